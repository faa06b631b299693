//! The thread that keeps a lease: it renews it three times as often as others would wait for it.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::client::open;
use super::live_runs::LIVING;
use super::server::Server;
use crate::error::TransactionError;

/// The thread. Dropping it ends it.
pub(super) struct LeaseRenewal {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LeaseRenewal {
    /// Renews the lease of run `id` from now on, over a connection of its own.
    pub fn start(server: &Server, id: i64, lease: Duration) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let server = server.clone();
        let thread = std::thread::Builder::new().name("faceflow-lease".to_owned());
        let thread = thread.spawn(move || renew(&server, id, lease, &stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for LeaseRenewal {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that keeps the lease panicked");
        }
    }
}

/// Renews until it is told to stop, or finds that it is too late.
fn renew(server: &Server, id: i64, lease: Duration, stopped: &mpsc::Receiver<()>) {
    let mut connection = None;
    while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(lease / 3) {
        match renew_once(server, id, lease, &mut connection) {
            Ok(true) => {}
            Ok(false) => {
                tracing::error!("{}: run {id} lost its lease; it writes nothing any more", server.address);
                return;
            }
            Err(why) => {
                connection = None;
                tracing::warn!("{}: the lease of run {id} was not renewed: {why}", server.address);
            }
        }
    }
}

/// Whether the run is still alive after this.
fn renew_once(
    server: &Server,
    id: i64,
    lease: Duration,
    connection: &mut Option<tokio_postgres::Client>,
) -> Result<bool, String> {
    let (route, mut client) = (server.route().clone(), connection.take());
    let (alive, client) = server.wire().run(async move {
        let renewing = async {
            let client = match client.take() {
                Some(client) => client,
                None => open(&route).await?,
            };
            let sql = format!("UPDATE runs SET heartbeat_at = clock_timestamp() WHERE id = $1 AND {LIVING}");
            let rows = client.execute(&sql, &[&id]).await?;
            Ok::<_, TransactionError>((rows == 1, client))
        };
        let renewed = tokio::time::timeout(lease / 3, renewing).await;
        renewed.map_err(|_| "the server did not answer in time".to_owned())?.map_err(|error| error.to_string())
    })?;
    *connection = Some(client);
    Ok(alive)
}
