//! The writer: one thread, one connection, and one transaction for everything that waits.
//!
//! While a group is being committed, the next one gathers; so the more is asked of it, the fewer commits it takes per fact.
//! Nobody is answered before the commit.

use std::collections::BTreeMap;
use std::sync::mpsc;

use faceflow_core::fact::Fact;
use faceflow_core::kill_point::kill_point;
use faceflow_core::ledger::{LedgerError, QueueUpdate};
use tokio::sync::oneshot;

use super::OpenError;
use super::books::Books;
use super::database::{Connection, Moment, values};
use super::place::{Backend, Keeper};
use super::redrive::Selection;
use super::rows::Trouble;
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
    /// Takes over what runs have left that are over; while this one is `running`, their pictures go straight to the detector.
    TakeOver {
        running: bool,
    },
    /// Notes that this run looks again at what is settled.
    LookAgain,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    Opened(Vec<QueueUpdate>),
    Driven(u64),
    Noted,
}

/// A task and whoever waits for it.
pub(super) struct Job {
    pub task: Task,
    pub answer: oneshot::Sender<Result<Outcome, LedgerError>>,
}

/// The writing side of a state. Dropping it closes the connection, then lets go of the lock or lease.
pub(super) struct Writer {
    connection: Connection,
    backend: Backend,
    tenant: i64,
    tallies: Tallies,
    last_site: Option<(String, i64)>,
    keeper: Keeper,
}

impl Writer {
    pub fn open(backend: &Backend, tenant: &str, joined: Option<i64>) -> Result<Self, OpenError> {
        let (mut connection, keeper) = backend.connect_writer(joined)?;
        let known = connection.write(|moment| {
            moment.run("INSERT INTO tenants (name) VALUES (?1) ON CONFLICT DO NOTHING", values![tenant])?;
            let id = moment.one("SELECT id FROM tenants WHERE name = ?1", values![tenant], |row| row.get(0))?;
            let id = id.ok_or_else(|| Trouble::Damaged(format!("the tenant {tenant} was made and is not there")))?;
            if let Keeper::Lease(lease) = &keeper {
                lease.serve(moment, id)?;
            }
            Ok((id, Tallies::load(moment, id)?))
        });
        let (tenant, tallies) = known.map_err(|trouble| backend.refused(&trouble))?;
        Ok(Self { connection, backend: backend.clone(), tenant, tallies, last_site: None, keeper })
    }

    /// The number of this run, where there may be others.
    pub fn run(&self) -> Option<i64> {
        match &self.keeper {
            Keeper::Lock(_) => None,
            Keeper::Lease(lease) => Some(lease.id()),
        }
    }

    /// Writes until nobody is left who could ask.
    pub fn work(mut self, jobs: &mpsc::Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let rest = jobs.try_iter().take(self.backend.settings().group_max.saturating_sub(1));
            let group: Vec<Job> = std::iter::once(first).chain(rest).collect();
            self.commit(group);
        }
        if let Keeper::Lease(lease) = &self.keeper
            && let Err(trouble) = lease.end(&mut self.connection)
        {
            tracing::warn!("{}: run {} ends with its lease: {trouble}", self.backend.name(), lease.id());
        }
    }

    fn commit(&mut self, group: Vec<Job>) {
        let (tasks, answers): (Vec<_>, Vec<_>) = group.into_iter().map(|job| (job.task, job.answer)).unzip();
        let outcomes = match self.write(&tasks) {
            Ok(outcomes) => outcomes,
            Err(trouble) => {
                // The transaction is rolled back: nothing of the group was written.
                self.last_site = None;
                let error = trouble.at(&self.backend.storage());
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
        let (tenant, keeper, place) = (self.tenant, &self.keeper, self.backend.storage());
        let (tallies, last_site) = (self.tallies, self.last_site.take());
        let written = self.connection.write(|moment| {
            let (others, tallies) = match keeper {
                Keeper::Lock(_) => (vec![], tallies),
                Keeper::Lease(lease) => {
                    lock_books(moment, tenant)?;
                    (lease.living(moment)?, Tallies::load(moment, tenant)?)
                }
            };
            let before = tallies;
            let now_ms = moment.now_ms()?;
            let (opened, freed) = (BTreeMap::new(), vec![]);
            let mut books = Books { moment, tenant, others: &others, now_ms, tallies, last_site, opened, freed };
            let mut outcomes = Vec::with_capacity(tasks.len());
            for task in tasks {
                let outcome = match (task, keeper) {
                    (Task::TakeOver { running }, Keeper::Lease(lease)) => {
                        lease.take_over(moment, tenant, *running).map(|()| Outcome::Noted)
                    }
                    (Task::LookAgain, Keeper::Lease(lease)) => lease.look_again(moment).map(|()| Outcome::Noted),
                    (Task::Redrive(_), Keeper::Lease(lease)) => lease.bury(moment).and_then(|()| books.carry_out(task)),
                    _ => books.carry_out(task),
                };
                outcomes.push(match outcome {
                    Err(refused @ (Trouble::Illegal { .. } | Trouble::Held { .. })) => Err(refused.at(&place)),
                    outcome => Ok(outcome?),
                });
            }
            if books.tallies != before {
                books.tallies.store(moment, tenant)?;
            }
            kill_point("ledger.commit");
            Ok((outcomes, books.tallies, books.last_site))
        });
        kill_point("ledger.committed");
        let outcomes;
        (outcomes, self.tallies, self.last_site) = written?;
        Ok(outcomes)
    }
}

/// Waits until no other run writes for this tenant, and keeps them waiting until the commit. So a group never meets
/// another halfway, and the numbers of the log grow in the order of the commits.
fn lock_books(moment: &Moment<'_>, tenant: i64) -> Result<(), Trouble> {
    moment.run("SELECT id FROM tenants WHERE id = ?1 FOR NO KEY UPDATE", values![tenant])
}

impl Books<'_, '_> {
    fn carry_out(&mut self, task: &Task) -> Result<Outcome, Trouble> {
        match task {
            Task::Append(fact) => self.write(fact).map(Outcome::Opened),
            Task::Redrive(selection) => self.redrive(selection).map(Outcome::Driven),
            Task::Advance { view, seq } => {
                let sql = "INSERT INTO cursors (tenant, name, seq) VALUES (?1, ?2, ?3)
                    ON CONFLICT (tenant, name) DO UPDATE SET seq = ?3";
                self.run(sql, values![self.tenant, *view, *seq]).map(|()| Outcome::Noted)
            }
            // A file belongs to this process, and all its work too.
            Task::TakeOver { .. } | Task::LookAgain => Ok(Outcome::Noted),
        }
    }
}
