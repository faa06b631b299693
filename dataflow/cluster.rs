//! NearDuplicates: several processes run one graph. Here they come together, agree, and watch each other.
//!
//! Every process connects to every other, and they exchange what they believe about the cluster before anything starts:
//! version, settings, state, number of processes and workers. Then the ledger's run is shared, everybody reads what the
//! ledger holds, and only when all have done so does the dataflow begin. Promise: processes that would not fit together
//! never start together, and say in what they differ.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use faceflow_core::executor::Executor;
use faceflow_core::peers::{ClusterSettings, Heartbeat, Peers, READING};
use faceflow_core::timer::Timer;
use faceflow_core::{Clock, Time};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::allocator::zero_copy::stream::Stream;
use timely::communication::allocator::{AllocatorBuilder, ProcessBuilder};
use timely::communication::{Hooks, WorkerGuards};
use timely::dataflow::Scope;
use timely::dataflow::operators::Inspect;
use timely::dataflow::operators::generic::operator::source;
use timely::dataflow::operators::vec::Broadcast;
use timely::worker::Worker;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream as Connection};

/// The largest message while processes come together, in bytes.
const MESSAGE_MAX: u32 = 64 * 1024;
/// How long a caller may take to say who it is.
const GREETING: Duration = Duration::from_secs(2);
/// The pause between two tries to reach a process that is not there yet.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// The last bytes of a connection that ends as agreed: a header of zeros.
const LAST_BYTES: usize = 48;

/// Which process of which cluster this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Which process, from 0.
    pub process: usize,
    /// Every process's `host:port`, in the order of their numbers.
    pub addresses: Vec<String>,
}

/// Why the processes did not come together.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Its own address cannot be listened at.
    #[error(
        "process {process} cannot listen at {address}: {reason}; is that an address of this machine, and is no other process started with -p {process}?"
    )]
    Listen {
        /// This process.
        process: usize,
        /// Its address by the hosts file.
        address: String,
        /// The system's words.
        reason: String,
    },
    /// Somebody did not come in time.
    #[error("process {process} ({address}) did not come within {waited_ms} ms (cluster.join_ms): {reason}")]
    Missing {
        /// Who.
        process: usize,
        /// Its address by the hosts file.
        address: String,
        /// How long it was waited for.
        waited_ms: u64,
        /// What was seen instead.
        reason: String,
    },
    /// Two processes do not fit together.
    #[error("this process and process {process} differ in {what}: {ours} here, {theirs} there")]
    Differs {
        /// The other one.
        process: usize,
        /// In what.
        what: String,
        /// What this one has.
        ours: String,
        /// What the other one has.
        theirs: String,
    },
    /// A process left while all were getting ready.
    #[error("process {process} ({address}) left before the start: {reason}; its own log says why")]
    Left {
        /// Who.
        process: usize,
        /// Its address by the hosts file.
        address: String,
        /// What was seen.
        reason: String,
    },
}

/// What every process must agree on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// The version of faceflow.
    pub version: String,
    /// Every process's address.
    pub addresses: Vec<String>,
    /// Workers in each process.
    pub workers: usize,
    /// Whether only a signal ends the run.
    pub endless: bool,
    /// State, output and tenant, without passwords.
    pub places: String,
    /// A digest of the detector's model.
    pub model: String,
    /// Every setting, as text; a digest of those that are long or secret.
    pub settings: BTreeMap<String, String>,
}

impl Agreement {
    /// The first thing in which two processes do not fit together: what it is, here and there.
    fn differ(&self, theirs: &Self) -> Option<(String, String, String)> {
        let command = |endless| if endless { "stream" } else { "run" }.to_owned();
        let rows = [
            ("the version", self.version.clone(), theirs.version.clone()),
            ("the number of processes (-n)", self.addresses.len().to_string(), theirs.addresses.len().to_string()),
            ("the hosts file (-h)", self.addresses.join(" "), theirs.addresses.join(" ")),
            ("the number of workers (-w)", self.workers.to_string(), theirs.workers.to_string()),
            ("the command", command(self.endless), command(theirs.endless)),
            ("--state, --out or --tenant", self.places.clone(), theirs.places.clone()),
            ("the detector's model", self.model.clone(), theirs.model.clone()),
        ];
        let row = rows.into_iter().find(|(_, ours, theirs)| ours != theirs);
        row.map(|(what, ours, theirs)| (what.to_owned(), ours, theirs)).or_else(|| {
            let of =
                |terms: &Self, key: &String| terms.settings.get(key).cloned().unwrap_or_else(|| "nothing".to_owned());
            let keys = self.settings.keys().chain(theirs.settings.keys());
            let key = keys.into_iter().find(|key| self.settings.get(*key) != theirs.settings.get(*key))?;
            Some((format!("the setting {key}"), of(self, key), of(theirs, key)))
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Hello {
    process: usize,
    terms: Agreement,
}

/// Connections to all other processes, before the dataflow takes them over.
pub struct PeerConnections {
    /// Nobody else is this process as long as it runs.
    listener: TcpListener,
    membership: Membership,
    join_ms: u64,
    sockets: Vec<Option<Connection>>,
}

impl PeerConnections {
    /// Connects to every process of the cluster, and sees that all agree on `terms`.
    pub async fn connect(
        membership: Membership,
        terms: Agreement,
        settings: &ClusterSettings,
    ) -> Result<Self, ClusterError> {
        let Membership { process, addresses } = &membership;
        let listener = TcpListener::bind(&addresses[*process]).await.map_err(|error| ClusterError::Listen {
            process: *process,
            address: addresses[*process].clone(),
            reason: error.to_string(),
        })?;
        let mut sockets: Vec<Option<Connection>> = addresses.iter().map(|_| None).collect();
        let limit = Duration::from_millis(settings.join_ms);
        let met = tokio::time::timeout(limit, meet(&membership, &terms, &listener, &mut sockets)).await;
        if let Ok(met) = met {
            met?;
            return Ok(Self { listener, join_ms: settings.join_ms, membership, sockets });
        }
        let others = (0..addresses.len()).filter(|other| other != process);
        let absent = others.into_iter().find(|other| sockets[*other].is_none()).unwrap_or_default();
        Err(ClusterError::Missing {
            process: absent,
            address: addresses[absent].clone(),
            waited_ms: settings.join_ms,
            reason: "nobody spoke for it".to_owned(),
        })
    }

    /// Process 0 tells the others; they are told.
    pub async fn share<T>(&mut self, told: Option<T>) -> Result<Option<T>, ClusterError>
    where
        T: Serialize + DeserializeOwned,
    {
        if self.membership.process > 0 {
            return self.receive(0).await;
        }
        for process in 1..self.sockets.len() {
            self.send(process, &told).await?;
        }
        Ok(told)
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
        let limit = Duration::from_millis(READING.saturating_mul(self.join_ms));
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

    /// Runs `work` on every worker of this process, connected to those of all others. `clock` tells when somebody left.
    pub fn execute<T, F>(self, workers: usize, (peers, clock): (Arc<Peers>, Arc<dyn Clock>), work: F) -> Started<T>
    where
        T: Send + 'static,
        F: Fn(&mut Worker) -> T + Send + Sync + 'static,
    {
        let said = |error: io::Error| error.to_string();
        let mut sockets = Vec::with_capacity(self.sockets.len());
        for (process, socket) in self.sockets.into_iter().enumerate() {
            let link = |socket: Connection| {
                let socket = socket.into_std()?;
                socket.set_nodelay(true)?;
                Ok(Link { socket, process, peers: Arc::clone(&peers), clock: Arc::clone(&clock), tail: vec![] })
            };
            sockets.push(socket.map(link).transpose().map_err(said)?);
        }
        let hooks = Hooks::default();
        let inside = ProcessBuilder::new_typed_vector(workers, hooks.refill.clone(), None);
        let (builders, guard) =
            initialize_networking_from_sockets(inside, sockets, self.membership.process, workers, hooks)
                .map_err(said)?;
        let builders = builders.into_iter().map(AllocatorBuilder::Tcp).collect();
        timely::execute::execute_from(builders, Box::new((guard, self.listener)), timely::WorkerConfig::default(), work)
    }
}

/// Workers that have started, or why they could not.
pub type Started<T> = Result<WorkerGuards<T>, String>;

/// Meets every other process: those before this one are called, those after it call.
async fn meet(
    membership: &Membership,
    terms: &Agreement,
    listener: &TcpListener,
    sockets: &mut [Option<Connection>],
) -> Result<(), ClusterError> {
    let (before, after) = sockets.split_at_mut(membership.process);
    let actions = async {
        for (other, place) in before.iter_mut().enumerate() {
            *place = Some(call(membership, terms, other).await?);
        }
        Ok(())
    };
    let answers = async {
        while after[1..].iter().any(Option::is_none) {
            // A caller that goes again, or is none of ours, is nobody.
            let Ok((mut socket, _)) = listener.accept().await else { continue };
            let ours = Hello { process: membership.process, terms: terms.clone() };
            let greeted = async {
                let hello = receive::<Value>(&mut socket).await?;
                send(&mut socket, &ours).await.map(|()| hello)
            };
            let Ok(Ok(hello)) = tokio::time::timeout(GREETING, greeted).await else { continue };
            let Some(hello) = understood(terms, hello)? else { continue };
            let place = hello.process.checked_sub(membership.process).filter(|at| *at > 0);
            if let Some(place) = place.and_then(|at| after.get_mut(at)).filter(|place| place.is_none()) {
                agree(terms, &hello)?;
                *place = Some(socket);
            }
        }
        Ok(())
    };
    tokio::try_join!(actions, answers).map(drop)
}

/// Calls a process until it answers.
async fn call(membership: &Membership, terms: &Agreement, other: usize) -> Result<Connection, ClusterError> {
    loop {
        if let Ok(mut socket) = Connection::connect(&membership.addresses[other]).await {
            let hello = Hello { process: membership.process, terms: terms.clone() };
            let sent = send(&mut socket, &hello).await;
            if let (Ok(()), Ok(hello)) = (sent, receive::<Value>(&mut socket).await)
                && let Some(hello) = understood(terms, hello)?
            {
                agree(terms, &hello)?;
                if hello.process == other {
                    return Ok(socket);
                }
                let (ours, theirs) = (other.to_string(), hello.process.to_string());
                let what = "who is at its address".to_owned();
                return Err(ClusterError::Differs { process: other, what, ours, theirs });
            }
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// What a process says of itself; `None` for words that are none of ours. Another version may say it in other words.
fn understood(ours: &Agreement, said: Value) -> Result<Option<Hello>, ClusterError> {
    let (process, version) = (said["process"].as_u64(), said["terms"]["version"].as_str().map(str::to_owned));
    match (serde_json::from_value(said), process, version) {
        (Ok(hello), ..) => Ok(Some(hello)),
        (Err(_), Some(process), Some(theirs)) if theirs != ours.version => Err(ClusterError::Differs {
            process: process as usize,
            what: "the version".to_owned(),
            ours: ours.version.clone(),
            theirs,
        }),
        _ => Ok(None),
    }
}

/// Whether two processes fit together.
fn agree(ours: &Agreement, hello: &Hello) -> Result<(), ClusterError> {
    match ours.differ(&hello.terms) {
        Some((what, ours, theirs)) => Err(ClusterError::Differs { process: hello.process, what, ours, theirs }),
        None => Ok(()),
    }
}

async fn send<T: Serialize>(socket: &mut Connection, message: &T) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    socket.write_u32(body.len() as u32).await?;
    socket.write_all(&body).await
}

async fn receive<T: DeserializeOwned>(socket: &mut Connection) -> io::Result<T> {
    let bytes = socket.read_u32().await?;
    if bytes > MESSAGE_MAX {
        return Err(io::Error::other("this is no process of a faceflow cluster"));
    }
    let mut body = vec![0; bytes as usize];
    socket.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}

/// A connection as the dataflow uses it. When it breaks, the process at its end is noted as gone, and nothing else happens:
/// whoever watches ends the run.
struct Link {
    socket: TcpStream,
    process: usize,
    peers: Arc<Peers>,
    clock: Arc<dyn Clock>,
    /// The last bytes read.
    tail: Vec<u8>,
}

impl Link {
    fn ended(&self, farewell: bool) {
        self.peers.left(self.process, farewell, self.clock.now());
    }
}

impl Read for Link {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let read = self.socket.read(room).unwrap_or(0);
        if read > 0 {
            self.tail.extend_from_slice(&room[..read]);
            self.tail.drain(..self.tail.len().saturating_sub(LAST_BYTES));
            return Ok(read);
        }
        let farewell = self.tail.len() == LAST_BYTES && self.tail.iter().all(|byte| *byte == 0);
        self.ended(farewell);
        if farewell {
            return Ok(0);
        }
        // An end without a farewell would be a panic of the reading thread; the watch says it better.
        loop {
            std::thread::park();
        }
    }
}

impl Write for Link {
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

impl Stream for Link {
    fn try_clone(&self) -> io::Result<Self> {
        let (socket, peers, clock) = (self.socket.try_clone()?, Arc::clone(&self.peers), Arc::clone(&self.clock));
        Ok(Self { socket, process: self.process, peers, clock, tail: vec![] })
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        // A connection that is broken already is as closed as can be.
        self.socket.shutdown(how).or(Ok(()))
    }
}

/// Builds the telling: each process's first worker says how it is, and every process hears it.
pub fn heart(
    scope: Scope<'_, Time>,
    executor: &Executor,
    peers: &Arc<Peers>,
    say: impl Fn() -> Heartbeat + 'static,
    first: bool,
) {
    let (executor, events) = (executor.clone(), Arc::clone(peers));
    let (clock, every, own) = (Arc::clone(&executor.clock), peers.beat_ms(), Arc::clone(peers));
    let beats = source(scope, "heart", move |capability, info| {
        let operator = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
        let (mut timer, mut due) = (Timer::new(&executor, operator), 0);
        let mut capability = first.then_some(capability);
        move |output| {
            let Some(capability) = capability.as_mut() else { return };
            let now = executor.clock.now();
            if now >= due {
                capability.downgrade(&now.max(*capability.time()));
                output.session(capability).give(say());
                own.beat(now);
                due = now + every;
            }
            timer.wake_at(due);
        }
    });
    beats.container::<Vec<Heartbeat>>().broadcast().inspect(move |beat| events.hear(beat, clock.now()));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn terms() -> Agreement {
        Agreement {
            version: "1.2.3".to_owned(),
            addresses: vec!["a:1".to_owned(), "b:2".to_owned()],
            workers: 2,
            endless: false,
            places: "state out default".to_owned(),
            model: "abc".to_owned(),
            settings: BTreeMap::from([("fetch.per_host".to_owned(), "2".to_owned())]),
        }
    }

    #[test]
    fn the_setting_that_differs_is_named() {
        let mut theirs = terms();
        assert_eq!(terms().differ(&theirs), None);
        theirs.settings.insert("new.setting".to_owned(), "1".to_owned());
        let differ = |what: &str, ours: &str, theirs: &str| Some((what.to_owned(), ours.to_owned(), theirs.to_owned()));
        assert_eq!(terms().differ(&theirs), differ("the setting new.setting", "nothing", "1"));
        theirs.settings.insert("fetch.per_host".to_owned(), "8".to_owned());
        assert_eq!(terms().differ(&theirs), differ("the setting fetch.per_host", "2", "8"));
        theirs.model = "other".to_owned();
        assert_eq!(terms().differ(&theirs), differ("the detector's model", "abc", "other"));
    }

    #[test]
    fn another_version_is_named_even_if_its_words_are_not_understood() {
        let hello = |version: &str, terms: Value| {
            let mut said = json!({"process": 1, "terms": terms});
            said["terms"]["version"] = version.into();
            understood(&self::terms(), said)
        };
        let whole = serde_json::to_value(terms()).expect("JSON");
        assert!(hello("1.2.3", whole).is_ok_and(|hello| hello.is_some_and(|hello| hello.process == 1)));
        let refused = hello("9.9.9", json!({"what": "a later version says"})).err().expect("differs").to_string();
        assert!(refused.contains("process 1 differ in the version: 1.2.3 here, 9.9.9 there"), "{refused}");
        assert!(hello("1.2.3", json!({})).is_ok_and(|hello| hello.is_none()), "that is none of ours");
    }
}
