//! The ledger as the pipeline uses it: facts go in, work that is due comes out.

use serde::{Deserialize, Serialize};

use crate::Future;
use crate::clock::Time;
use crate::fact::Fact;
use crate::record::{Content, ContentId, JobId, Key, QueueId, TenantNumber, Work};
use crate::tally::{Tally, Violation};
use crate::transition::{IllegalTransition, State};

/// Why the ledger did not do what it was asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LedgerError {
    /// A promise was broken: the fact names an entry that cannot take that step.
    #[error("{key}: {step}")]
    Illegal {
        /// The URL or picture.
        key: String,
        /// The step.
        step: IllegalTransition,
    },
    /// The fact is about work that another run has, whose word counts.
    #[error("{key} is with run {run}, which lives: this run has lost it, or never had it")]
    Held {
        /// The URL or picture.
        key: String,
        /// The other run.
        run: i64,
    },
    /// The database refused the fact for what it says. It is in the quarantine, and its work has come to an end.
    #[error("{key} is quarantined: {reason}")]
    Quarantined {
        /// The URL or picture.
        key: String,
        /// Why.
        reason: String,
        /// What is open because of that, each queue once.
        opened: Vec<QueueUpdate>,
    },
    /// The storage below failed.
    #[error("the ledger at {place} failed: {reason}")]
    Storage {
        /// The file or server.
        place: String,
        /// Its words.
        reason: String,
    },
}

impl LedgerError {
    /// Whether only that one fact was refused, and everything else can be written.
    pub fn is_of_one_fact(&self) -> bool {
        !matches!(self, Self::Storage { .. })
    }
}

/// A picture the ledger knows, as the duplicate index needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownPicture {
    /// What it is.
    pub content: Content,
    /// Whether its detection is owed, settled or dead.
    pub state: State,
    /// Whether a retry of its detection is already scheduled.
    pub retrying: bool,
    /// Whether a degraded answer is kept while its full detection is owed.
    pub has_degraded: bool,
    /// How many answers are recorded: the generation of the next one.
    pub generation: u32,
    /// Who stands for it by the last ruling.
    pub representative: Option<ContentId>,
}

/// Work that is open in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueUpdate {
    /// Where it waits.
    pub queue: QueueId,
    /// When the first of it is due; 0 for at once.
    pub due: Time,
    /// Whether it is a settled page that is to be looked at again, or something that ended badly and is tried nevertheless.
    pub again: bool,
}

/// What is wanted of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DispatchRequest {
    /// The queue.
    pub queue: QueueId,
    /// Work to dispatch, at most.
    pub max: usize,
    /// What is in flight: it is not dispatched again.
    pub held: Vec<Key>,
    /// Whether settled pages are looked at again, and what ended badly is tried nevertheless.
    pub again: bool,
}

/// What a queue gives.
#[derive(Clone, Debug, PartialEq)]
pub struct DispatchReply {
    /// The queue.
    pub queue: QueueId,
    /// Work that is due: retries first, the longest due before the others, then what is new in the order of its discovery,
    /// then settled pages that are looked at again, then what ended badly and is tried nevertheless.
    pub work: Vec<Work>,
    /// When the first of the rest is due, if there is any; 0 for at once.
    pub next: Option<Time>,
    /// While its host fails: when it may be asked again, then by one request at a time until one succeeds.
    pub hold: Option<Time>,
}

/// Hosts that fail as a whole, each counted for every job that asks it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailingHosts {
    /// Those that are asked by one request at a time, and not before their time.
    pub held_back: u64,
    /// Those that were given up.
    pub given_up: u64,
}

/// The durable truth: of one tenant, or of several, each with records of its own.
pub trait Ledger: Send + Sync {
    /// Appends a fact to what its tenant has; resolves once it is durable, to what is open now because of it, each queue once. Facts are written in
    /// the order of their appends, those of a tenant.
    fn append(&self, fact: Fact) -> Future<Result<Vec<QueueUpdate>, LedgerError>>;

    /// Calls `each` with every queue of a job, and of the pictures of its tenant, that may have open work of ours (pages, images,
    /// frames whose retry is scheduled), and if `again`, with every queue that has settled pages to be looked at again, or what ended badly and is tried nevertheless, and
    /// when the first of that is due. A queue may be named more than once.
    fn queues(&self, job: JobId, again: bool, each: &mut dyn FnMut(QueueUpdate)) -> Result<(), LedgerError>;

    /// What queues have to give that is due by `now`; an answer for each that was asked, and after these perhaps for others.
    fn due_work(&self, now: Time, asks: &[DispatchRequest]) -> Result<Vec<DispatchReply>, LedgerError>;

    /// Calls `each` with every known picture of a tenant.
    fn known_pictures(&self, tenant: TenantNumber, each: &mut dyn FnMut(KnownPicture)) -> Result<(), LedgerError>;

    /// Pages and images by state, of all tenants together: `(pages, images)`.
    fn tally(&self) -> Result<(Tally, Tally), LedgerError>;

    /// Hosts that fail, of all tenants together. Whoever keeps no rows knows of none.
    fn failing_hosts(&self) -> Result<FailingHosts, LedgerError> {
        Ok(FailingHosts::default())
    }

    /// How many facts are in the quarantine, of all tenants together. Whoever keeps no rows has none.
    fn quarantined(&self) -> Result<u64, LedgerError> {
        Ok(0)
    }

    /// Counts everything anew: which invariants do not hold, with at most `keys_max` of what breaks each. It may take long. Whoever
    /// keeps no rows has nothing to say.
    fn audit(&self, keys_max: usize) -> Result<Vec<Violation>, LedgerError> {
        let _ = keys_max;
        Ok(vec![])
    }
}
