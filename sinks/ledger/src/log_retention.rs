//! How long the log is kept: what is older than `ledger.log_keep_ms` is removed from its beginning, a bounded batch in one short
//! transaction of the writer at a time.
//!
//! Promises: nothing is removed that a view has still to follow, nor the last event and the last commit of a tenant, so positions go
//! on after a restart and none is given twice; what was removed is noted in the same transaction. SQLite uses the pages that become
//! free for what is written next, so its file stops growing but does not shrink; on a server autovacuum does the same.

use std::time::{Duration, Instant};

use faceflow_core::kill_point::kill_point;

use super::database::DbTransaction;
use super::error::TransactionError;
use super::value::values;

/// Events looked at, and commits removed, in one transaction.
pub(super) const BATCH: i64 = 5_000;
/// How long nothing is looked for after everything that may go is gone.
const PAUSE: Duration = Duration::from_secs(60);
/// After a full batch, writing has this many times as long as the batch took before the next one: under load, removing takes at most
/// a fifth of the writer's time.
const SHARE: u32 = 4;

/// The machine's own time.
#[allow(
    clippy::disallowed_methods,
    reason = "paces the writer's thread by how long its transactions take; no work of the graph"
)]
pub(super) fn machine_now() -> Instant {
    Instant::now()
}

/// When the writer removes the next batch.
pub(super) struct Schedule {
    /// `None` where everything is kept.
    at: Option<Instant>,
}

impl Schedule {
    pub fn new(keep_ms: u64) -> Self {
        Self { at: (keep_ms > 0).then(machine_now) }
    }

    /// How long until the next batch; `None` if there is never any.
    pub fn wait(&self) -> Option<Duration> {
        self.at.map(|at| at.saturating_duration_since(machine_now()))
    }

    /// A batch that began at `began` is done; whether there is more.
    pub fn done(&mut self, began: Instant, more: bool) {
        let now = machine_now();
        self.at = Some(now + if more { (now - began) * SHARE } else { PAUSE });
    }
}

/// What was removed of a tenant's log: up to which positions, and until when. 0: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The last position of an event that was removed.
    pub events: i64,
    /// The last number of a commit that was removed.
    pub commits: i64,
    /// The latest time of what was removed.
    pub upto_ms: i64,
}

impl Removed {
    /// Whether anything of this tenant was: its positions also pass over events of others.
    pub fn any(&self) -> bool {
        self.upto_ms > 0
    }
}

/// What was removed of this tenant's log.
pub fn removed(tx: &DbTransaction<'_>, tenant: i64) -> Result<Removed, TransactionError> {
    let sql = "SELECT events_removed, commits_removed, log_removed_ms FROM tenants WHERE id = ?1";
    let read = tx.one(sql, values![tenant], |row| {
        Ok(Removed { events: row.get(0)?, commits: row.get(1)?, upto_ms: row.get(2)? })
    })?;
    Ok(read.unwrap_or_default())
}

/// What goes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    before: Removed,
    after: Removed,
    /// Whether there may be more.
    pub more: bool,
}

impl Plan {
    /// The next batch of what was written before `limit_ms`; `None` if nothing may go.
    pub fn next(tx: &DbTransaction<'_>, tenant: i64, limit_ms: i64) -> Result<Option<Self>, TransactionError> {
        let before = removed(tx, tenant)?;
        let mut plan = Self { before, after: before, more: false };
        let commits_before_ms = plan.events(tx, tenant, limit_ms)?;
        plan.commits(tx, tenant, commits_before_ms)?;
        Ok(Some(plan).filter(|plan| plan.after != plan.before))
    }

    /// Takes in the events that may go. Commits from before the time returned have none left.
    fn events(&mut self, tx: &DbTransaction<'_>, tenant: i64, limit_ms: i64) -> Result<i64, TransactionError> {
        // A view that has no cursor yet has followed nothing.
        let followed = "SELECT min(seq) FROM cursors WHERE tenant = ?1";
        let followed = tx.one(followed, values![tenant], |row| row.get::<Option<i64>>(0))?.flatten().unwrap_or(0);
        let last = "SELECT seq FROM events WHERE tenant = ?1 AND seq > ?2 ORDER BY seq DESC LIMIT 1";
        let last = tx.one(last, values![tenant, self.before.events], |row| row.get::<i64>(0))?.unwrap_or(0);
        // In the order of positions, those of other tenants too: they have the same clock, and there is no index by tenant.
        let sql = "SELECT seq, at_ms, tenant FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2";
        let (mut stopped, mut count, mut last_ms) = (None, 0, limit_ms);
        tx.each(sql, values![self.before.events, BATCH], |row| {
            let (seq, at_ms, of) = (row.get::<i64>(0)?, row.get::<i64>(1)?, row.get::<i64>(2)?);
            let ours = of == tenant;
            if stopped.is_some() {
                return Ok(());
            }
            if at_ms >= limit_ms || seq >= last {
                stopped = Some(limit_ms);
            } else if ours && seq > followed {
                stopped = Some(at_ms.min(limit_ms));
            } else {
                (count, last_ms) = (count + 1, at_ms);
                self.after.events = seq;
                if ours {
                    self.after.upto_ms = self.after.upto_ms.max(at_ms);
                }
            }
            Ok(())
        })?;
        self.more |= count == BATCH;
        Ok(stopped.unwrap_or(if count == BATCH { last_ms } else { limit_ms }))
    }

    fn commits(&mut self, tx: &DbTransaction<'_>, tenant: i64, before_ms: i64) -> Result<(), TransactionError> {
        let sql = "SELECT seq, at_ms FROM commits WHERE tenant = ?1 AND seq > ?2
                AND seq < (SELECT max(seq) FROM commits WHERE tenant = ?1) ORDER BY seq LIMIT ?3";
        let (mut stopped, mut count) = (false, 0);
        tx.each(sql, values![tenant, self.before.commits, BATCH], |row| {
            let (seq, at_ms) = (row.get::<i64>(0)?, row.get::<i64>(1)?);
            stopped |= at_ms >= before_ms;
            if !stopped {
                count += 1;
                self.after.commits = seq;
                self.after.upto_ms = self.after.upto_ms.max(at_ms);
            }
            Ok(())
        })?;
        self.more |= count == BATCH;
        Ok(())
    }

    /// Removes it.
    pub fn carry_out(&self, tx: &DbTransaction<'_>, tenant: i64) -> Result<(), TransactionError> {
        let Self { before, after, .. } = self;
        let note = "UPDATE tenants SET events_removed = ?2, commits_removed = ?3, log_removed_ms = ?4 WHERE id = ?1";
        tx.run(note, values![tenant, after.events, after.commits, after.upto_ms])?;
        let events = "DELETE FROM events WHERE seq > ?1 AND seq <= ?2 AND tenant = ?3";
        tx.run(events, values![before.events, after.events, tenant])?;
        let commits = "DELETE FROM commits WHERE tenant = ?1 AND seq > ?2 AND seq <= ?3";
        tx.run(commits, values![tenant, before.commits, after.commits])?;
        kill_point("log.remove");
        Ok(())
    }
}
