//! The connections of this process to all others of its cluster, from the handshake until the dataflow takes them over.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use faceflow_core::Clock;
use faceflow_core::peer_liveness::{ClusterSettings, LOADING_FACTOR, Peers};
use serde::Serialize;
use serde::de::DeserializeOwned;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::allocator::{AllocatorBuilder, ProcessBuilder};
use timely::communication::{Hooks, WorkerGuards};
use timely::worker::Worker;
use tokio::net::{TcpListener, TcpStream};

use super::agreement::Agreement;
use super::error::ClusterError;
use super::handshake::connect_all;
use super::membership::Membership;
use super::messages::{receive, send};
use super::watched_socket::WatchedSocket;

/// Workers that have started, or why they could not.
pub type Started<T> = Result<WorkerGuards<T>, String>;

/// Connections to all other processes, before the dataflow takes them over.
pub struct PeerConnections {
    /// Kept until the end, so that no other process takes the address.
    listener: TcpListener,
    membership: Membership,
    join_ms: u64,
    sockets: Vec<Option<TcpStream>>,
}

impl PeerConnections {
    /// Connects to every process of the cluster, and sees that all agree on `agreement`.
    pub async fn connect(
        membership: Membership,
        agreement: Agreement,
        settings: &ClusterSettings,
    ) -> Result<Self, ClusterError> {
        let Membership { process, addresses } = &membership;
        let listener = TcpListener::bind(&addresses[*process]).await.map_err(|error| ClusterError::Listen {
            process: *process,
            address: addresses[*process].clone(),
            reason: error.to_string(),
        })?;
        let mut sockets: Vec<Option<TcpStream>> = addresses.iter().map(|_| None).collect();
        let limit = Duration::from_millis(settings.join_ms);
        let connected =
            tokio::time::timeout(limit, connect_all(&membership, &agreement, &listener, &mut sockets)).await;
        if let Ok(connected) = connected {
            connected?;
            return Ok(Self { listener, join_ms: settings.join_ms, membership, sockets });
        }
        let others = (0..addresses.len()).filter(|other| other != process);
        let absent = others.into_iter().find(|other| sockets[*other].is_none()).unwrap_or_default();
        Err(ClusterError::Missing {
            process: absent,
            address: addresses[absent].clone(),
            waited_ms: settings.join_ms,
            reason: "nobody answered for it".to_owned(),
        })
    }

    /// Process 0 sends `message` to the others, which receive it.
    pub async fn share<T>(&mut self, message: Option<T>) -> Result<Option<T>, ClusterError>
    where
        T: Serialize + DeserializeOwned,
    {
        if self.membership.process > 0 {
            return self.receive(0).await;
        }
        for process in 1..self.sockets.len() {
            self.send(process, &message).await?;
        }
        Ok(message)
    }

    /// Resolves once every process has come so far.
    pub async fn barrier(&mut self) -> Result<(), ClusterError> {
        let own = self.membership.process;
        let others: Vec<usize> = (0..self.sockets.len()).filter(|other| *other != own).collect();
        for process in &others {
            self.send(*process, &()).await?;
        }
        for process in &others {
            self.receive::<()>(*process).await?;
        }
        Ok(())
    }

    async fn send<T: Serialize>(&mut self, process: usize, message: &T) -> Result<(), ClusterError> {
        let sent = match self.sockets[process].as_mut() {
            Some(socket) => send(socket, message).await,
            None => Ok(()),
        };
        sent.map_err(|error| self.left(process, &error))
    }

    async fn receive<T: DeserializeOwned>(&mut self, process: usize) -> Result<T, ClusterError> {
        let limit = Duration::from_millis(LOADING_FACTOR.saturating_mul(self.join_ms));
        let received = match self.sockets[process].as_mut() {
            Some(socket) => tokio::time::timeout(limit, receive(socket)).await.unwrap_or_else(|late| Err(late.into())),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        received.map_err(|error| self.left(process, &error))
    }

    fn left(&self, process: usize, error: &io::Error) -> ClusterError {
        let address = self.membership.addresses[process].clone();
        ClusterError::Left { process, address, reason: error.to_string() }
    }

    /// Runs `work` on every worker of this process, connected to those of all others. `clock` says when one of them has left.
    pub fn execute<T, F>(self, workers: usize, (peers, clock): (Arc<Peers>, Arc<dyn Clock>), work: F) -> Started<T>
    where
        T: Send + 'static,
        F: Fn(&mut Worker) -> T + Send + Sync + 'static,
    {
        let in_words = |error: io::Error| error.to_string();
        let mut sockets = Vec::with_capacity(self.sockets.len());
        for (process, socket) in self.sockets.into_iter().enumerate() {
            let watched = |socket: TcpStream| {
                let socket = socket.into_std()?;
                socket.set_nodelay(true)?;
                Ok(WatchedSocket::new(socket, process, (Arc::clone(&peers), Arc::clone(&clock))))
            };
            sockets.push(socket.map(watched).transpose().map_err(in_words)?);
        }
        let hooks = Hooks::default();
        let in_process = ProcessBuilder::new_typed_vector(workers, hooks.refill.clone(), None);
        let (builders, guard) =
            initialize_networking_from_sockets(in_process, sockets, self.membership.process, workers, hooks)
                .map_err(in_words)?;
        let builders = builders.into_iter().map(AllocatorBuilder::Tcp).collect();
        timely::execute::execute_from(builders, Box::new((guard, self.listener)), timely::WorkerConfig::default(), work)
    }
}
