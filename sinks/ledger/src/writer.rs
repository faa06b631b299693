//! The writer: one thread, one connection, and one transaction for everything that waits.
//!
//! While a group is being committed, the next one gathers; so the more is asked of it, the fewer commits it takes per fact.
//! Nobody is answered before the commit.
//!
//! On a server a group holds the lock of its tenant from its first read to its commit, so groups of one tenant are written one
//! after the other. That is meant: pictures and duplicates are shared between sites, so a lock by site would have to be joined by
//! one for each picture that two sites show; and readers that follow the log by position rely on a higher number never being
//! visible before a lower one. What it costs is little, since a group is a dozen ways there and back whatever its size, and while
//! one run's group is written the next of every run gathers. Runs of different tenants do not wait for each other.

use std::collections::{BTreeMap, HashSet};
use std::sync::mpsc::{self, RecvTimeoutError};

use faceflow_core::fact::Fact;
use faceflow_core::kill_point::kill_point;
use faceflow_core::ledger::{LedgerError, QueueUpdate};
use faceflow_core::planted_bugs;
use faceflow_core::record::Priority;
use tokio::sync::oneshot;

use super::database::{Connection, DbTransaction};
use super::error::TransactionError;
use super::jobs;
use super::location::{Backend, ExclusiveAccess};
use super::log_record::LogRecord;
use super::log_retention::{Plan, Schedule, machine_now};
use super::redrive::Selection;
use super::reorder_buffer::{self, weight};
use super::tallies::Tallies;
use super::transaction::{Context, LedgerTransaction};
use super::value::values;
use super::working_set::{IdAllocators, Wanted};
use super::{LedgerSettings, OpenError};

/// Something to write.
pub(super) enum Task {
    Append(Box<Fact>),
    Redrive(Selection),
    /// Moves the cursor of a view.
    Advance {
        view: &'static str,
        /// Where it is believed to be: if another run has moved it since, it stays.
        from: i64,
        seq: i64,
    },
    /// Takes over what runs have left that are over; while this one is `running`, their pictures go straight to the detector.
    TakeOver {
        running: bool,
    },
    /// Notes that this run looks again at what is settled.
    LookAgain,
    /// Sees to it that the tenant has a job of this name and priority.
    AddJob {
        name: String,
        priority: Priority,
    },
}

impl Task {
    /// About how many rows it touches.
    fn weight(&self) -> usize {
        match self {
            Self::Append(fact) => match fact.as_ref() {
                Fact::Discovered(found) => weight(found),
                _ => 1,
            },
            _ => 1,
        }
    }

    fn fact(&mut self) -> Option<&mut Fact> {
        if let Self::Append(fact) = self { Some(fact) } else { None }
    }
}

/// What came of it.
#[derive(Debug)]
pub(super) enum WriteReply {
    Opened(Vec<QueueUpdate>),
    Driven(u64),
    /// Whether the cursor was where it was believed to be.
    Advanced(bool),
    /// The number of the job.
    Job(u32),
    Noted,
}

/// A task and whoever waits for it.
pub(super) struct WriteRequest {
    pub task: Task,
    pub answer: oneshot::Sender<Result<WriteReply, LedgerError>>,
}

/// What came of the tasks of a group, in their order.
pub(super) type WriteReplies = Vec<Result<WriteReply, LedgerError>>;

/// Whether what was tried is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Commit,
    /// Then it fails with [`TransactionError::Tried`], unless it is refused.
    DryRun,
}

/// The writing side of a state. Dropping it closes the connection, then lets go of the lock or lease.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) backend: Backend,
    pub(super) tenant: i64,
    tallies: Tallies,
    numbers: IdAllocators,
    access: ExclusiveAccess,
    /// Pages and images that pages which waited for their turn lead to, taken up in one transaction.
    resumed_max: usize,
}

impl Writer {
    pub fn open(backend: &Backend, tenant: &str, joined: Option<i64>) -> Result<Self, OpenError> {
        let (mut connection, access) = backend.connect_writer(joined)?;
        let turn = access.write_turn();
        let known = connection.write(|tx| {
            tx.run("INSERT INTO tenants (name) VALUES (?1) ON CONFLICT DO NOTHING", values![tenant])?;
            let id = tx.one("SELECT id FROM tenants WHERE name = ?1", values![tenant], |row| row.get(0))?;
            let missing = || TransactionError::Damaged(format!("the tenant {tenant} was made and is not there"));
            let id = id.ok_or_else(missing)?;
            jobs::add_default(tx, id)?;
            if let ExclusiveAccess::Lease(lease) = &access {
                lease.serve(tx, id)?;
            }
            Ok((id, Tallies::load(tx, id)?, reorder_buffer::unfinished(tx, id)?))
        });
        drop(turn);
        let (tenant, tallies, unfinished) = known.map_err(|error| backend.refused(&error))?;
        if let ExclusiveAccess::Lease(lease) = &access {
            let told = lease.tell_of_others(&mut connection, tenant, &backend.name());
            told.map_err(|error| backend.refused(&error))?;
        }
        let (backend, numbers) = (backend.clone(), IdAllocators::default());
        let resumed_max = backend.settings().transaction_max;
        let mut writer = Self { connection, backend, tenant, tallies, numbers, access, resumed_max };
        writer.resume(unfinished).map_err(|error| writer.backend.refused(&error))?;
        Ok(writer)
    }

    /// The number of this run, where there may be others.
    pub fn run(&self) -> Option<i64> {
        match &self.access {
            ExclusiveAccess::Lock(_) => None,
            ExclusiveAccess::Lease(lease) => Some(lease.id()),
        }
    }

    /// Where the state is, for messages.
    pub(super) fn place(&self) -> String {
        self.backend.storage()
    }

    /// Writes until nobody is left who could ask.
    pub fn work(mut self, jobs: &mpsc::Receiver<Vec<WriteRequest>>) {
        let LedgerSettings { group_max, transaction_max, log_keep_ms, .. } = *self.backend.settings();
        let mut removal = Schedule::new(log_keep_ms);
        loop {
            // Between two groups, whether anything waits or not.
            if removal.wait().is_some_and(|wait| wait.is_zero()) {
                self.remove_log(&mut removal, log_keep_ms);
            }
            let received = match removal.wait() {
                None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(wait) => jobs.recv_timeout(wait),
            };
            let mut jobs_of_group = match received {
                Ok(jobs_of_group) => jobs_of_group,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let weigh = |jobs: &[WriteRequest]| jobs.iter().map(|job| job.task.weight()).sum::<usize>();
            let mut weight = weigh(&jobs_of_group);
            while let Some(more) =
                (jobs_of_group.len() < group_max && weight < transaction_max).then(|| jobs.try_recv().ok()).flatten()
            {
                weight += weigh(&more);
                jobs_of_group.extend(more);
            }
            let (mut group, mut answers) = (Vec::new(), Vec::new());
            for WriteRequest { task, answer } in jobs_of_group {
                match task {
                    // Tasks are written in the order in which they were asked for.
                    Task::Redrive(selection) => {
                        self.commit(std::mem::take(&mut group), std::mem::take(&mut answers));
                        drop(answer.send(self.redrive(&selection)));
                    }
                    task => {
                        group.push(task);
                        answers.push(answer);
                    }
                }
            }
            self.commit(group, answers);
        }
        if let ExclusiveAccess::Lease(lease) = &self.access
            && let Err(error) = lease.end(&mut self.connection)
        {
            tracing::warn!("{}: run {} ends with its lease: {error}", self.backend.name(), lease.id());
        }
    }

    /// Removes a batch of what is older than what is kept of the log.
    fn remove_log(&mut self, removal: &mut Schedule, keep_ms: u64) {
        let began = machine_now();
        let more = self.remove_some(keep_ms).unwrap_or_else(|error| {
            tracing::warn!("{}: the beginning of the log was not removed: {error}", self.backend.name());
            false
        });
        removal.done(began, more);
    }

    /// Removes a batch of the log. Whether there may be more.
    fn remove_some(&mut self, keep_ms: u64) -> Result<bool, TransactionError> {
        let tenant = self.tenant;
        let plan = |tx: &DbTransaction<'_>| Plan::next(tx, tenant, tx.now_ms()?.saturating_sub_unsigned(keep_ms));
        // Where nothing is to be removed, nothing is locked or written.
        if self.connection.read(plan)?.is_none() {
            return Ok(false);
        }
        let turn = self.access.write_turn();
        let shared = matches!(self.access, ExclusiveAccess::Lease(_));
        let removed = self.connection.write(|tx| {
            if shared {
                lock_tenant(tx, tenant)?;
            }
            let Some(plan) = plan(tx)? else { return Ok(false) };
            plan.carry_out(tx, tenant)?;
            Ok(plan.more)
        });
        drop(turn);
        removed
    }

    /// Writes a group and answers.
    fn commit(&mut self, mut group: Vec<Task>, answers: Vec<oneshot::Sender<Result<WriteReply, LedgerError>>>) {
        if group.is_empty() {
            return;
        }
        planted_bugs::leak(group.iter_mut().filter_map(Task::fact));
        let outcomes = self.write_all(&group).unwrap_or_else(|error| {
            let error = error.at(&self.backend.storage());
            tracing::error!("{error}; {} facts were not written", group.len());
            group.iter().map(|_| Err(error.clone())).collect()
        });
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // Whoever asked may have left meanwhile.
            drop(answer.send(outcome));
        }
    }

    /// Writes a group in one transaction.
    pub(super) fn write_group(&mut self, tasks: &[Task]) -> Result<WriteReplies, TransactionError> {
        kill_point("ledger.write");
        let place = self.backend.storage();
        let (mut outcomes, unfinished) = self.transact(|transaction, access| {
            let mut wanted = Wanted::default();
            for task in tasks {
                if let Task::Append(fact) = task {
                    wanted.add(fact);
                }
            }
            transaction.rows.prefetch(&wanted)?;
            let (mut outcomes, mut unfinished) = (Vec::with_capacity(tasks.len()), Vec::new());
            for (n, task) in tasks.iter().enumerate() {
                outcomes.push(match transaction.carry_out(task, access) {
                    Err(refused @ TransactionError::Illegal { .. }) => {
                        if let Task::Append(fact) = task {
                            transaction.quarantine_illegal(fact, &refused)?;
                        }
                        Err(refused.at(&place))
                    }
                    Err(refused @ TransactionError::Held { .. }) => Err(refused.at(&place)),
                    outcome => Ok(outcome?),
                });
                unfinished.extend(transaction.unfinished.drain(..).map(|site| (n, site)));
            }
            Ok((outcomes, unfinished))
        })?;
        kill_point("ledger.committed");
        for (n, site) in unfinished {
            match (self.resume(vec![site]), &mut outcomes[n]) {
                (Ok(more), Ok(WriteReply::Opened(opened))) => add_opened(opened, more),
                (Ok(_), _) => {}
                // The fact is durable; the next opening of the state goes on with what it led to.
                (Err(error), outcome) => *outcome = Err(error.at(&place)),
            }
        }
        Ok(outcomes)
    }

    /// Takes up what waits at these sites and whose turn has come, in transactions of a bounded size. What that opened.
    /// Where the database refuses what one page leads to, it is taken up alone, without what is refused of it.
    pub(super) fn resume(&mut self, mut sites: Vec<i64>) -> Result<Vec<QueueUpdate>, TransactionError> {
        let (mut opened, mut max) = (Vec::new(), self.resumed_max);
        while let Some(site) = sites.pop() {
            let resumed = self.transact_with((max, Attempt::Commit), |transaction, _| {
                let opened = transaction.take_in(LogRecord::Resumed { site })?;
                Ok((opened, std::mem::take(&mut transaction.unfinished)))
            });
            match resumed {
                Ok((more, unfinished)) => {
                    add_opened(&mut opened, more);
                    sites.extend(unfinished);
                    max = max.saturating_mul(2).min(self.resumed_max);
                }
                Err(refusal) if refusal.is_about_data() => {
                    sites.push(site);
                    if max == 1 {
                        let more = self.resume_without_refused(site, refusal)?;
                        add_opened(&mut opened, more);
                    }
                    max = (max / 2).max(1);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(opened)
    }

    /// Carries out `work` in one transaction. If that fails, nothing of it was written.
    pub(super) fn transact<T>(
        &mut self,
        work: impl FnOnce(&mut LedgerTransaction<'_, '_>, &ExclusiveAccess) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        self.transact_with((self.resumed_max, Attempt::Commit), work)
    }

    /// The same, with so many pages at most that waited for their turn; and perhaps only to see whether it is refused.
    pub(super) fn transact_with<T>(
        &mut self,
        (resumed_max, attempt): (usize, Attempt),
        work: impl FnOnce(&mut LedgerTransaction<'_, '_>, &ExclusiveAccess) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        let (tenant, access, tallies) = (self.tenant, &self.access, self.tallies);
        let numbers = &mut self.numbers;
        let turn = access.write_turn();
        if access.is_shared() {
            // Another tenant's writer has gone on numbering the rows of the same tables.
            *numbers = IdAllocators::default();
        }
        let written = self.connection.write(|tx| {
            let (run, others, tallies) = match access {
                ExclusiveAccess::Lock(_) => (None, HashSet::new(), tallies),
                ExclusiveAccess::Lease(lease) => {
                    lock_tenant(tx, tenant)?;
                    (Some(lease.id()), lease.living(tx)?, Tallies::load(tx, tenant)?)
                }
            };
            let context = Context { tenant, run, others: &others, now_ms: tx.now_ms()?, resumed_max };
            let mut transaction = LedgerTransaction::new(tx, context, tallies, numbers);
            let done = work(&mut transaction, access)?;
            let tallies = transaction.write()?;
            if attempt == Attempt::DryRun {
                // On a server this waits for the answers to everything before it.
                tx.now_ms()?;
                return Err(TransactionError::Tried);
            }
            kill_point("ledger.commit");
            Ok((done, tallies))
        });
        drop(turn);
        match written {
            Ok((done, tallies)) => {
                self.tallies = tallies;
                Ok(done)
            }
            Err(error) => {
                self.numbers.abandon();
                Err(error)
            }
        }
    }
}

/// Adds what was opened to what was opened before: each queue once, with when the first of it is due.
pub(super) fn add_opened(opened: &mut Vec<QueueUpdate>, more: Vec<QueueUpdate>) {
    let all = opened.drain(..).chain(more);
    let mut first = BTreeMap::new();
    for QueueUpdate { queue, due, again } in all {
        let known = first.entry((queue, again)).or_insert(due);
        *known = due.min(*known);
    }
    opened.extend(first.into_iter().map(|((queue, again), due)| QueueUpdate { queue, due, again }));
}

/// Waits until no other run writes for this tenant, and keeps them waiting until the commit.
fn lock_tenant(tx: &DbTransaction<'_>, tenant: i64) -> Result<(), TransactionError> {
    tx.run("SELECT id FROM tenants WHERE id = ?1 FOR NO KEY UPDATE", values![tenant])
}

impl LedgerTransaction<'_, '_> {
    fn carry_out(&mut self, task: &Task, access: &ExclusiveAccess) -> Result<WriteReply, TransactionError> {
        match (task, access) {
            (Task::Append(fact), _) => self.append(fact).map(WriteReply::Opened),
            (Task::Advance { view, from, seq }, _) => {
                let sql = "INSERT INTO cursors (tenant, name, seq) VALUES (?1, ?2, ?3)
                    ON CONFLICT (tenant, name) DO UPDATE SET seq = ?3 WHERE cursors.seq = ?4";
                let moved = self.tx.change(sql, values![self.context.tenant, *view, *seq, *from])?;
                Ok(WriteReply::Advanced(moved > 0))
            }
            (Task::TakeOver { running }, ExclusiveAccess::Lease(lease)) => {
                // What this group has changed so far is part of what is looked at.
                self.rows.flush()?;
                let pictures = lease.take_over(self.tx, self.context.tenant, *running)?;
                if !pictures.is_empty() {
                    self.take_in(LogRecord::Due { pictures })?;
                }
                // A run that was killed may have left pages whose turn has come; they are taken up after this transaction.
                self.unfinished.extend(reorder_buffer::unfinished(self.tx, self.context.tenant)?);
                Ok(WriteReply::Noted)
            }
            (Task::AddJob { name, priority }, _) => self.add_job(name, *priority).map(WriteReply::Job),
            (Task::LookAgain, ExclusiveAccess::Lease(lease)) => lease.look_again(self.tx).map(|()| WriteReply::Noted),
            // A file belongs to this process, and all its work too.
            (Task::TakeOver { .. } | Task::LookAgain, ExclusiveAccess::Lock(_)) => Ok(WriteReply::Noted),
            (Task::Redrive(_), _) => Err(TransactionError::Damaged("a redrive is no part of a group".to_owned())),
        }
    }
}
