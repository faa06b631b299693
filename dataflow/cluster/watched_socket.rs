//! A socket between two processes that notes when it breaks, in place of the panic that timely makes of it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use faceflow_core::Clock;
use faceflow_core::peer_liveness::Peers;
use timely::communication::allocator::zero_copy::stream::Stream;

/// The last bytes of a connection that ends as agreed: a header of zeros.
const LAST_BYTES: usize = 48;

/// A connection as timely uses it. When it breaks, the process at its end is noted as gone, and nothing else happens: the stop
/// conditions end the run.
pub(super) struct WatchedSocket {
    socket: TcpStream,
    process: usize,
    peers: Arc<Peers>,
    clock: Arc<dyn Clock>,
    /// The last bytes read.
    tail: Vec<u8>,
}

impl WatchedSocket {
    /// A connection to `process`, whose end is noted in `peers` by `clock`.
    pub(super) fn new(socket: TcpStream, process: usize, (peers, clock): (Arc<Peers>, Arc<dyn Clock>)) -> Self {
        Self { socket, process, peers, clock, tail: vec![] }
    }

    fn ended(&self, as_agreed: bool) {
        self.peers.left(self.process, as_agreed, self.clock.now());
    }
}

impl Read for WatchedSocket {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let read = self.socket.read(room).unwrap_or(0);
        if read > 0 {
            self.tail.extend_from_slice(&room[..read]);
            self.tail.drain(..self.tail.len().saturating_sub(LAST_BYTES));
            return Ok(read);
        }
        let as_agreed = self.tail.len() == LAST_BYTES && self.tail.iter().all(|byte| *byte == 0);
        self.ended(as_agreed);
        if as_agreed {
            return Ok(0);
        }
        // An end that was not agreed would be a panic of the thread that reads; the stop conditions end the run with a reason.
        loop {
            std::thread::park();
        }
    }
}

impl Write for WatchedSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.socket.write(bytes).unwrap_or_else(|_| {
            self.ended(false);
            bytes.len()
        }))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

impl Stream for WatchedSocket {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::new(self.socket.try_clone()?, self.process, (Arc::clone(&self.peers), Arc::clone(&self.clock))))
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        // A connection that is broken already is as closed as can be.
        self.socket.shutdown(how).or(Ok(()))
    }
}
