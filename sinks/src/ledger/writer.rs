//! The writer: one thread, one connection, and one transaction for everything that waits.
//!
//! While a group is being committed, the next one gathers; so the more is asked of it, the fewer commits it takes per fact.
//! Nobody is answered before the commit.

use std::sync::mpsc;

use faceflow_core::kill::kill_point;
use faceflow_core::ledger::{Fact, LedgerError};
use faceflow_core::record::Image;
use rusqlite::{Connection, TransactionBehavior, params};
use tokio::sync::oneshot;

use super::books::Books;
use super::lock::StateLock;
use super::redrive::Selection;
use super::rows::Trouble;
use super::schema::Place;
use super::tallies::Tallies;

/// Something to write.
pub(super) enum Task {
    Append(Box<Fact>),
    Redrive(Selection),
    /// Moves the cursor of a view.
    Advance {
        view: &'static str,
        seq: i64,
    },
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    Opened(Vec<Image>),
    Driven(u64),
    Advanced,
}

/// A task and whoever waits for it.
pub(super) struct Job {
    pub task: Task,
    pub answer: oneshot::Sender<Result<Outcome, LedgerError>>,
}

/// The writing side of a state directory. Dropping it closes the file, then lets go of the lock.
pub(super) struct Writer {
    connection: Connection,
    place: Place,
    tenant: i64,
    tallies: Tallies,
    last_site: Option<(String, i64)>,
    _lock: StateLock,
}

impl Writer {
    pub fn new(connection: Connection, lock: StateLock, place: Place, tenant: &str) -> rusqlite::Result<Self> {
        connection.execute("INSERT OR IGNORE INTO tenants (name) VALUES (?1)", [tenant])?;
        let tenant = connection.query_row("SELECT id FROM tenants WHERE name = ?1", [tenant], |row| row.get(0))?;
        let tallies = Tallies::load(&connection, tenant)?;
        Ok(Self { connection, place, tenant, tallies, last_site: None, _lock: lock })
    }

    /// Writes until nobody is left who could ask.
    pub fn work(mut self, jobs: &mpsc::Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let rest = jobs.try_iter().take(self.place.settings.group_max.saturating_sub(1));
            let group: Vec<Job> = std::iter::once(first).chain(rest).collect();
            self.commit(group);
        }
    }

    fn commit(&mut self, group: Vec<Job>) {
        let (tasks, answers): (Vec<_>, Vec<_>) = group.into_iter().map(|job| (job.task, job.answer)).unzip();
        let outcomes = match self.write(&tasks) {
            Ok(outcomes) => outcomes,
            Err(trouble) => {
                // The transaction is rolled back: nothing of the group was written.
                self.last_site = None;
                let error = trouble.at(&self.place);
                tracing::error!("{error}; {} facts were not written", tasks.len());
                tasks.iter().map(|_| Err(error.clone())).collect()
            }
        };
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // Whoever asked may have left meanwhile.
            drop(answer.send(outcome));
        }
    }

    fn write(&mut self, tasks: &[Task]) -> Result<Vec<Result<Outcome, LedgerError>>, Trouble> {
        kill_point("ledger.write");
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let now = "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)";
        let mut books = Books {
            connection: &transaction,
            tenant: self.tenant,
            now_ms: transaction.prepare_cached(now)?.query_row([], |row| row.get(0))?,
            tallies: self.tallies,
            last_site: self.last_site.take(),
        };
        let mut outcomes = Vec::with_capacity(tasks.len());
        for task in tasks {
            outcomes.push(match books.carry_out(task) {
                Ok(outcome) => Ok(outcome),
                Err(illegal @ Trouble::Illegal { .. }) => Err(illegal.at(&self.place)),
                Err(trouble) => return Err(trouble),
            });
        }
        let (tallies, last_site) = (books.tallies, books.last_site);
        if tallies != self.tallies {
            tallies.store(&transaction, self.tenant)?;
        }
        kill_point("ledger.commit");
        transaction.commit()?;
        kill_point("ledger.committed");
        (self.tallies, self.last_site) = (tallies, last_site);
        Ok(outcomes)
    }
}

impl Books<'_> {
    fn carry_out(&mut self, task: &Task) -> Result<Outcome, Trouble> {
        match task {
            Task::Append(fact) => self.write(fact).map(Outcome::Opened),
            Task::Redrive(selection) => self.redrive(selection).map(Outcome::Driven),
            Task::Advance { view, seq } => {
                let sql = "INSERT OR REPLACE INTO cursors (tenant, name, seq) VALUES (?1, ?2, ?3)";
                self.run(sql, params![self.tenant, view, seq]).map(|_| Outcome::Advanced)
            }
        }
    }
}
