//! Hosts that fail as a whole: a row for each, made by what failed there, removed by what succeeded, and asked by the dispatcher.
//!
//! Promise: of a host that failed nothing is dispatched before it may be asked again, and then one at a time until it answers, also
//! after a kill. What waits for a host that was given up ends with it.

use std::collections::BTreeSet;

use faceflow_core::ledger::{DispatchRequest, FailingHosts, LedgerError};
use faceflow_core::planted_bugs::{HOSTS_IGNORED, planted};
use faceflow_core::record::{HostHold, HostState, QueueId};
use faceflow_core::{Class, Fault, Time};
use serde::Serialize;

use super::column_codecs::TransactionError;
use super::database::{DbTransaction, Row, values};
use super::reader::Reader;
use super::transaction::{LedgerTransaction, TenantQueue, brief};
use super::working_set::{HOST_COLUMNS, HostKey, HostRow};

impl HostRow {
    /// Why it failed last.
    fn fault(&self) -> Fault {
        Fault::transient(self.class, &*self.reason, &*self.detail)
    }

    fn state(&self, given_up: bool) -> HostState {
        let since = self.since_ms as Time;
        HostState { failures: self.failures, since, given_up: given_up.then(|| self.fault()) }
    }
}

impl LedgerTransaction<'_, '_> {
    fn host_key(&self, (job, queue): TenantQueue) -> HostKey {
        (self.context.tenant, job.into(), queue as i64)
    }

    /// Reads what is known of these hosts.
    pub fn need_hosts(&mut self, queues: &BTreeSet<TenantQueue>) -> Result<(), TransactionError> {
        let keys: Vec<HostKey> = queues.iter().map(|queue| self.host_key(*queue)).collect();
        self.rows.need_hosts(&keys)
    }

    /// A host failed. Requests that were under way together have the same to say, and it counts once.
    pub fn host_failed(
        &mut self,
        (queue, name): (TenantQueue, String),
        hold: &HostHold,
        fault: &Fault,
    ) -> Result<(), TransactionError> {
        let key = self.host_key(queue);
        let new = HostRow {
            name: name.into(),
            failures: hold.failures,
            since_ms: hold.since as i64,
            not_before_ms: hold.not_before as i64,
            given_up: hold.given_up,
            class: fault.class,
            reason: fault.reason.as_str().into(),
            detail: brief(&fault.detail).into(),
        };
        let merged = match self.rows.host(key)? {
            None => new,
            Some(known) => HostRow {
                failures: known.failures.max(new.failures),
                since_ms: known.since_ms.min(new.since_ms),
                not_before_ms: known.not_before_ms.max(new.not_before_ms),
                given_up: known.given_up || new.given_up,
                ..new
            },
        };
        self.rows.set_host(key, merged)
    }

    /// A host answered a request that was dispatched while this was known of it. One that asked for rest after that still rests.
    pub fn host_answered(&mut self, queue: TenantQueue, known: Option<&HostState>) -> Result<(), TransactionError> {
        let (key, now_ms) = (self.host_key(queue), self.context.now_ms);
        let Some(row) = self.rows.host(key)? else { return Ok(()) };
        let asked_since = known.is_some_and(|known| known.since as i64 == row.since_ms);
        if row.class == Class::Busy && !asked_since && now_ms < row.not_before_ms {
            return Ok(());
        }
        self.rows.forget_host(key)
    }

    /// Whatever a host did, it may be asked at once.
    pub fn host_redriven(&mut self, queue: TenantQueue) -> Result<(), TransactionError> {
        let key = self.host_key(queue);
        if self.rows.host(key)?.is_some() {
            self.rows.forget_host(key)?;
        }
        Ok(())
    }
}

/// How much of a queue may be dispatched, by what its host did.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Admission {
    /// What its work is told of the host.
    pub host: Option<HostState>,
    /// While it fails: when it may be asked again.
    pub not_before: Option<Time>,
    /// Whether one request finds out how it is. What was not tried is taken first, so that it is not the same again and again.
    pub probes: bool,
}

impl Admission {
    fn of(row: &HostRow, now: i64) -> Self {
        let (not_before, rests) = (row.not_before_ms as Time, now < row.not_before_ms);
        match row.given_up && rests {
            true => Self { host: Some(row.state(true)), not_before: None, probes: false },
            false => Self { host: Some(row.state(false)), not_before: Some(not_before), probes: !rests },
        }
    }

    /// How much of what is asked for may be dispatched.
    pub fn max(&self, ask: &DispatchRequest) -> usize {
        match (self.not_before, self.probes) {
            (None, _) => ask.max,
            (Some(_), true) => 1_usize.saturating_sub(ask.held.len()).min(ask.max),
            (Some(_), false) => 0,
        }
    }
}

/// What holds for each of these queues at `now`.
pub(super) fn admissions(
    tx: &DbTransaction<'_>,
    tenant: i64,
    now: i64,
    asks: &[DispatchRequest],
) -> Result<Vec<Admission>, TransactionError> {
    let any = tx.one("SELECT 1 FROM hosts WHERE tenant = ?1 LIMIT 1", values![tenant], |row| row.get::<i64>(0))?;
    let admission = |ask: &DispatchRequest| match any {
        Some(_) if !ask.queue.is_detection() && !planted(HOSTS_IGNORED) => {
            Ok(find(tx, tenant, ask.queue)?.map(|row| Admission::of(&row, now)).unwrap_or_default())
        }
        _ => Ok(Admission::default()),
    };
    asks.iter().map(admission).collect()
}

fn find(tx: &DbTransaction<'_>, tenant: i64, queue: QueueId) -> Result<Option<HostRow>, TransactionError> {
    let sql = format!("SELECT {HOST_COLUMNS} FROM hosts WHERE tenant = ?1 AND job = ?2 AND queue = ?3");
    let key = values![tenant, queue.job.number, queue.host as i64];
    tx.one(&sql, key, |row| HostRow::read(row).map(|(_, row)| row))
}

/// A host that fails, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HostHistory {
    /// Its name and port.
    pub host: String,
    /// How often it has failed in a row.
    pub failures: u32,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// When it may be asked again.
    pub not_before_ms: i64,
    /// Whether it was given up: what waits for it until then ends.
    pub given_up: bool,
    /// The last fault.
    pub reason: String,
    /// And in words.
    pub detail: String,
}

impl HostHistory {
    fn read(row: &Row<'_>) -> Result<Self, TransactionError> {
        let (_, row) = HostRow::read(row)?;
        let HostRow { name, failures, since_ms, not_before_ms, given_up, reason, detail, .. } = row;
        let [host, reason, detail] = [name, reason, detail].map(|text| text.to_string());
        Ok(Self { host, failures, since_ms, not_before_ms, given_up, reason, detail })
    }

    /// Of the host of an entry, if that fails.
    pub fn of_entry(tx: &DbTransaction<'_>, entry: i64) -> Result<Option<Self>, TransactionError> {
        let sql = format!(
            "SELECT {HOST_COLUMNS} FROM hosts WHERE (tenant, job, queue) = (SELECT tenant, job, queue FROM entries WHERE id = ?1)"
        );
        tx.one(&sql, values![entry], Self::read)
    }
}

impl Reader {
    /// How many hosts fail, each for every job that asks it.
    pub fn failing_hosts(&self) -> Result<FailingHosts, LedgerError> {
        let sql = "SELECT count(*), CAST(coalesce(sum(CASE WHEN given_up THEN 1 ELSE 0 END), 0) AS BIGINT)
            FROM hosts WHERE tenant = ?1";
        let counts =
            self.read(|tx| tx.one(sql, values![self.tenant_id()], |row| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?))))?;
        let (all, given_up) = counts.unwrap_or_default();
        Ok(FailingHosts { held_back: (all - given_up) as u64, given_up: given_up as u64 })
    }

    /// Hosts that were given up, at most `max`, by name.
    pub fn given_up_hosts(&self, max: usize) -> Result<Vec<HostHistory>, LedgerError> {
        let sql =
            format!("SELECT {HOST_COLUMNS} FROM hosts WHERE tenant = ?1 AND given_up ORDER BY name, job LIMIT ?2");
        self.read(|tx| tx.list(&sql, values![self.tenant_id(), max as i64], HostHistory::read))
    }
}
