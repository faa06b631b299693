//! A small web site on loopback for the examples: fixed answers by path, 404 for the rest.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

/// A path, its content type and its body.
pub type Answer = (&'static str, &'static str, &'static [u8]);

/// Serves `answers` on a free port until the process ends; the address of the start page.
pub fn start(answers: &'static [Answer]) -> std::io::Result<String> {
    let site = TcpListener::bind("127.0.0.1:0")?;
    let start = format!("http://{}/", site.local_addr()?);
    std::thread::spawn(move || {
        for visitor in site.incoming().flatten() {
            if let Err(error) = serve(visitor, answers) {
                eprintln!("the example's site: {error}");
            }
        }
    });
    Ok(start)
}

fn serve(mut visitor: TcpStream, answers: &[Answer]) -> std::io::Result<()> {
    let mut lines = BufReader::new(visitor.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // A server that closes before it has read the whole request resets the connection.
    lines.map_while(Result::ok).find(String::is_empty);
    let path = request.split(' ').nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let found = answers.iter().find(|(known, ..)| *known == path);
    let (status, kind, body) =
        found.map_or(("404 Not Found", "text/plain", &b"not here"[..]), |(_, kind, body)| ("200 OK", *kind, *body));
    let length = body.len();
    write!(
        visitor,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    visitor.write_all(body)
}
