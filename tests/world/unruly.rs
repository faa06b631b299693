//! A server between a client and a real one, that breaks some of their exchanges.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// What is done to an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mischief {
    /// 503 instead of an answer; the server hears nothing of it.
    Busy,
    /// 403 instead of an answer.
    Denied,
    /// What is uploaded breaks off halfway.
    HalfAsked,
    /// The server has done what it was asked, and its answer breaks off halfway.
    HalfAnswered,
}

const ALL: [Mischief; 4] = [Mischief::Busy, Mischief::HalfAsked, Mischief::Denied, Mischief::HalfAnswered];

/// The server between. It serves as long as the process lives.
pub struct Unruly {
    pub port: u16,
    pub armed: Arc<AtomicBool>,
    dealt: Arc<Mutex<Vec<Mischief>>>,
}

impl Unruly {
    /// Stands before the server at `behind`. While it is armed it breaks every second exchange, `times` in all.
    pub fn before(behind: u16, times: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (armed, dealt, turn) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<_>>>::default(), AtomicUsize::new(0));
        let (arms, deals, turn) = (Arc::clone(&armed), Arc::clone(&dealt), Arc::new(turn));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (arms, deals, turn) = (Arc::clone(&arms), Arc::clone(&deals), Arc::clone(&turn));
                std::thread::spawn(move || {
                    let mut mischief = None;
                    if arms.load(SeqCst) && turn.fetch_add(1, SeqCst) % 2 == 1 {
                        let mut deals = deals.lock().expect("not poisoned");
                        mischief = (deals.len() < times).then(|| ALL[deals.len() % ALL.len()]);
                        deals.extend(mischief);
                    }
                    // Whoever breaks off is broken off.
                    relay(client, behind, mischief).ok();
                });
            }
        });
        Self { port, armed, dealt }
    }

    /// What was done so far.
    pub fn dealt(&self) -> Vec<Mischief> {
        self.dealt.lock().expect("not poisoned").clone()
    }
}

/// One exchange; the connection ends with it.
fn relay(client: TcpStream, behind: u16, mischief: Option<Mischief>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line == "\r\n" {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(bytes) = lower.strip_prefix("content-length:") {
            length = bytes.trim().parse().expect("a number");
        }
        if !lower.starts_with("connection:") {
            head += &line;
        }
    }
    let mut body = vec![0; if mischief == Some(Mischief::HalfAsked) { length / 2 } else { length }];
    reader.read_exact(&mut body)?;
    let refuse = |status: &str| {
        let answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        (&client).write_all(answer.as_bytes())
    };
    match mischief {
        Some(Mischief::Busy) => return refuse("503 Slow Down"),
        Some(Mischief::Denied) => return refuse("403 Forbidden"),
        _ => {}
    }
    let mut server = TcpStream::connect(("127.0.0.1", behind))?;
    server.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
    server.write_all(&body)?;
    if mischief == Some(Mischief::HalfAsked) {
        return Ok(());
    }
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    if mischief == Some(Mischief::HalfAnswered) {
        answer.truncate(answer.len() / 2);
    }
    (&client).write_all(&answer)
}
