//! The real ledger, written on this thread, so that time stands still meanwhile: in groups of facts, in the order of their appends.
//!
//! Every fact passes through here on its way, so this is where it is checked that retries and further looks are due when the
//! policy, written down here once more, says.

use std::sync::{Arc, Mutex};

use faceflow::core::fact::Fact;
use faceflow::core::ledger::{DispatchReply, DispatchRequest, KnownPicture, Ledger, LedgerError, QueueUpdate};
use faceflow::core::record::{Discovery, Disposition, HostHold, JobId, TenantNumber, Work};
use faceflow::core::tally::{Tally, Violation};
use faceflow::core::{Class, Fault, Future, HostFaultKind, Time};
use faceflow::ledger::DatabaseLedger;
use tokio::sync::oneshot;

use crate::life::Life;
use crate::script::{host_of, lock};

/// What a ledger says that fails.
pub const BROKEN: &str = "the connection broke";

const HOUR_MS: u64 = 3_600_000;

type Answer = Result<Vec<QueueUpdate>, LedgerError>;

/// A fact that waits for its group, when it was appended, and whoever waits for the answer.
struct Waiting {
    fact: Fact,
    at: Time,
    answer: oneshot::Sender<Answer>,
}

pub struct ScriptedLedger {
    life: Arc<Life>,
    ledger: Arc<DatabaseLedger>,
    waiting: Arc<Mutex<Vec<Waiting>>>,
    groups: Arc<Mutex<usize>>,
}

impl ScriptedLedger {
    pub fn new(life: &Arc<Life>, ledger: Arc<DatabaseLedger>) -> Self {
        Self { life: Arc::clone(life), ledger, waiting: Arc::default(), groups: Arc::default() }
    }
}

impl Ledger for ScriptedLedger {
    fn append(&self, fact: Fact) -> Future<Answer> {
        let (answer, answered) = oneshot::channel();
        let at = self.life.executor.clock.now();
        check_due(&self.life, &fact, at);
        let mut waiting = lock(&self.waiting);
        waiting.push(Waiting { fact, at, answer });
        // The first of a group writes it.
        if waiting.len() == 1 {
            let (life, ledger) = (Arc::clone(&self.life), Arc::clone(&self.ledger));
            let (waiting, groups) = (Arc::clone(&self.waiting), Arc::clone(&self.groups));
            self.life.executor.runtime.spawn(write_group(life, ledger, waiting, groups));
        }
        Box::pin(async move { answered.await.unwrap_or_else(|_| Err(broken())) })
    }

    fn queues(&self, job: JobId, again: bool, each: &mut dyn FnMut(QueueUpdate)) -> Result<(), LedgerError> {
        self.ledger.queues(job, again, each)
    }

    fn due_work(&self, now: Time, asks: &[DispatchRequest]) -> Result<Vec<DispatchReply>, LedgerError> {
        self.ledger.due_work(now, asks)
    }

    fn known_pictures(&self, tenant: TenantNumber, each: &mut dyn FnMut(KnownPicture)) -> Result<(), LedgerError> {
        self.ledger.known_pictures(tenant, each)
    }

    fn tally(&self) -> Result<(Tally, Tally), LedgerError> {
        self.ledger.tally()
    }

    fn audit(&self, keys_max: usize) -> Result<Vec<Violation>, LedgerError> {
        self.ledger.audit(keys_max)
    }
}

fn broken() -> LedgerError {
    LedgerError::Storage { place: "scripted".to_owned(), reason: BROKEN.to_owned() }
}

/// Writes what has gathered: at once what was appended in one moment, now and then what comes within a pause.
async fn write_group(
    life: Arc<Life>,
    ledger: Arc<DatabaseLedger>,
    waiting: Arc<Mutex<Vec<Waiting>>>,
    groups: Arc<Mutex<usize>>,
) {
    let number = {
        let mut groups = lock(&groups);
        *groups += 1;
        *groups
    };
    if number.is_multiple_of(3) {
        life.pause("group", number).await;
    }
    life.step(&format!("group {number}")).await;
    let group = std::mem::take(&mut *lock(&waiting));
    let facts: Vec<Fact> = group.iter().map(|waiting| waiting.fact.clone()).collect();
    // The connection breaks before the facts are there, or before the answer is.
    if life.ledger_is_down() && number.is_multiple_of(2) {
        return;
    }
    let written = futures::executor::block_on(futures::future::join_all(ledger.append_group(facts.clone())));
    for (Waiting { fact, at, .. }, written) in group.iter().zip(&written) {
        match written {
            Ok(_) => note_due(&life, fact, *at),
            Err(LedgerError::Quarantined { key, .. }) if life.world.refuses(key) => {}
            Err(error) => life.object(format!("{fact:?} was refused: {error}")),
        }
    }
    life.step(&format!("written {facts:?}")).await;
    if life.ledger_is_down() {
        return;
    }
    for (waiting, written) in group.into_iter().zip(written) {
        // A worker that is gone does not listen.
        drop(waiting.answer.send(written));
    }
}

/// A retry is due when the backoff says: 2 s, doubled to a minute, for the web; a minute, doubled to an hour, for pictures; and to
/// an hour for everything that the store is to blame for.
fn check_due(life: &Life, fact: &Fact, now: Time) {
    let Fact::Failed(Disposition::Retry { work, fault, due, host }) = fact else { return };
    if let Some(hold) = host {
        check_hold(life, (work, fault), (hold, *due), now);
        return;
    }
    if matches!(work, Work::Page(page) if page.last.is_some()) {
        return;
    }
    let store = fault.class == Class::Store;
    let failures = if store { work.attempts() } else { work.attempts_counted() };
    let (base, cap) = if matches!(work, Work::Frame(_)) { (60_000, HOUR_MS) } else { (2_000, 60_000) };
    let cap = if store { HOUR_MS } else { cap };
    let expected = now + (base << (failures - 1).min(20)).min(cap);
    if *due != expected {
        life.object(format!("after {failures} failures by {fault} at {now}, {work:?} is due at {due}, not {expected}"));
    }
}

/// A host is left alone for 2 s, doubled to a minute, or for as long as it says; and its work is due no earlier.
fn check_hold(life: &Life, (work, fault): (&Work, &Fault), (hold, due): (&HostHold, Time), now: Time) {
    let backoff = if hold.failures == 0 { 1 } else { (2_000 << (hold.failures - 1).min(20)).min(60_000) };
    let resting = fault.host.is_some_and(|host| host.kind == HostFaultKind::Resting);
    let asked = fault.retry_after_ms.unwrap_or(0);
    let expected = now + if resting { asked } else { asked.max(backoff) };
    if hold.not_before != expected || due < hold.not_before {
        life.object(format!("after {fault:?} at {now}, {work:?} is due at {due}, by {hold:?}, not {expected}"));
    }
}

/// Notes when the web is to be asked again, and that a page that was read is due when its interval says.
fn note_due(life: &Life, fact: &Fact, at: Time) {
    let (world, now) = (&life.world, life.executor.clock.now());
    if let Fact::Failed(Disposition::Retry { work, fault, host: Some(hold), .. }) = fact
        && let Some(url) = url_of(work).filter(|_| fault.class == Class::Busy)
    {
        let mut rests = lock(&world.rests);
        let (until, _) = *rests.entry(host_of(&url).to_owned()).or_insert((hold.not_before, now));
        rests.insert(host_of(&url).to_owned(), (until.max(hold.not_before), now));
    }
    let due = match fact {
        Fact::Failed(Disposition::Retry { work, due, .. }) => url_of(work).map(|url| (url, *due)),
        Fact::Failed(
            Disposition::Rejected { work, again: Some(due), .. } | Disposition::Dead { work, again: Some(due), .. },
        ) => url_of(work).filter(|_| world.plan.recrawl).map(|url| (url, *due)),
        Fact::Discovered(Discovery { visit: Some(visit), again: Some((reading, due)), .. }) => {
            let (url, mut intervals) = (visit.page.url.to_string(), lock(&world.intervals));
            let grown = world.is_grown() && page_grows(life, &url);
            let expected = match intervals.get(&url) {
                None => 24 * HOUR_MS,
                Some((before, interval)) if *before != grown => interval * 8 / 10,
                Some((_, interval)) => interval * 14 / 10,
            };
            if (reading.interval_ms, *due) != (expected, at + expected) {
                life.object(format!("{url}, read at {at}, is due at {due}, not after {expected}"));
            }
            intervals.insert(url.clone(), (grown, expected));
            Some((url, *due)).filter(|_| world.plan.recrawl)
        }
        _ => None,
    };
    lock(&world.dues).extend(due.map(|(url, due)| (url, due.max(now))));
}

fn page_grows(life: &Life, url: &str) -> bool {
    matches!(life.world.places.get(url), Some(crate::script::Place::Page(page)) if page.later.is_some())
}

fn url_of(work: &Work) -> Option<String> {
    match work {
        Work::Page(page) => Some(page.url.to_string()),
        Work::Image(image) => Some(image.url.to_string()),
        Work::Frame(_) => None,
    }
}
