//! A network for measurements: a relay between sockets of this machine through which every byte takes its time.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::place::Home;

/// The name of a server's socket in its folder.
const SOCKET: &str = ".s.PGSQL.5432";

/// The way to the server of `home`, `delay` longer in each direction. It lasts as long as this process.
pub fn farther(home: &Home, delay: Duration) -> (Home, TempDir) {
    let (_, folder) = home.name.split_once("host=").expect("the address of a test's server names its folder");
    let folder = folder.split('&').next().expect("a folder").to_owned();
    let far = tempfile::tempdir().expect("a folder");
    let listener = UnixListener::bind(far.path().join(SOCKET)).expect("listens");
    let name = home.name.replace(&folder, &far.path().display().to_string());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("is called");
            let server = UnixStream::connect(Path::new(&folder).join(SOCKET)).expect("the server is there");
            relay(client.try_clone().expect("a second handle"), server.try_clone().expect("a second handle"), delay);
            relay(server, client, delay);
        }
    });
    (Home::named(name), far)
}

/// Passes on what comes from `from`, each piece when its time has come.
#[allow(clippy::disallowed_methods, reason = "the time it takes is what is measured")]
fn relay(mut from: UnixStream, mut to: UnixStream, delay: Duration) {
    let (sent, under_way) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if sent.send((Instant::now() + delay, buffer[..read].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        while let Ok((due, piece)) = under_way.recv() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                return;
            }
        }
        // The other side has closed.
        drop(to.shutdown(std::net::Shutdown::Both));
    });
}
