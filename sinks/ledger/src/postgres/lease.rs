//! Leases: which run has which open work, so that any number of runs share one state and no two do the same.
//!
//! A run lives while it is connected and renews its lease (`lease_renewal.rs`); the clock is the server's. Work of a run that ended, that
//! was killed, or whose lease has run out, is claimed by the next run of its tenant that starts, which first declares that run over
//! and then becomes its successor: its row says so, however much work it is. One that was declared over, or could not renew its
//! lease, writes nothing any more: it promises that what it would still say cannot contradict whoever took over.

use std::cell::Cell;
use std::collections::HashSet;
use std::time::Duration;

use faceflow_core::kill_point::kill_point;

use super::lease_renewal::LeaseRenewal;
use super::live_runs::LIVING;
use super::migrate::keep_format;
use super::server::Server;
use crate::OpenError;
use crate::database::{Connection, DbTransaction, values};
use crate::error::TransactionError;

/// Whenever so many more runs have left something to one successor, it is looked which of them still have something.
const LEFT_MAX: i64 = 64;

/// Looks at other runs before they count as living, a tenth of a second apart.
const LOOKS: u32 = 15;

/// Each process of a run holds this for as long as it is connected, so that one that was killed is known to be dead at once.
const PRESENCE: &str = "SELECT pg_advisory_lock_shared(hashtext('faceflow ' || current_schema()), ?1::text::integer)";

/// This process's run, with the thread that renews its lease. Dropping it ends the run, which gives its work back.
pub(crate) struct Lease {
    id: i64,
    /// Whether this process began the run, and is to end it.
    own: bool,
    lease: Duration,
    /// The process of the server that serves the connection. The presence of a run is a lock of its session.
    backend: i64,
    /// Found to be over once, and so for ever: a renewal that was held up on its way may still arrive.
    over: Cell<bool>,
    /// How many of the runs whose successor it is had something when that was looked at last.
    remained: Cell<i64>,
    _heartbeat: LeaseRenewal,
}

impl Lease {
    /// Begins a run on the writer's connection, or joins one that another process of the cluster has begun.
    pub fn begin(server: &Server, connection: &mut Connection, joined: Option<i64>) -> Result<Self, OpenError> {
        let begun = connection.write(|tx| {
            keep_format(tx)?;
            let lease_ms = server.settings.lease_ms as i64;
            let id = match joined {
                Some(id) => id,
                None => tx.insert("INSERT INTO runs (lease_ms) VALUES (?1)", values![lease_ms])?,
            };
            tx.one(PRESENCE, values![&id.to_string()], |_| Ok(()))?;
            let backend = tx.one("SELECT CAST(pg_backend_pid() AS BIGINT)", &[], |row| row.get::<i64>(0))?;
            Ok((id, backend.unwrap_or(0)))
        });
        let (id, backend) = begun.map_err(|error| server.refused(error.to_string()))?;
        let lease = Duration::from_millis(server.settings.lease_ms);
        let heartbeat = LeaseRenewal::start(server, id, lease).map_err(|error| server.refused(error.to_string()))?;
        let own = joined.is_none();
        let (over, remained) = (Cell::new(false), Cell::new(0));
        let begun = Self { id, own, lease, backend, over, remained, _heartbeat: heartbeat };
        kill_point("lease.begun");
        Ok(begun)
    }

    /// The run's number.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Whether the run may still write; which others live, and those whose work they have taken over. To be asked with the tenant
    /// locked.
    pub fn living(&self, tx: &DbTransaction<'_>) -> Result<HashSet<i64>, TransactionError> {
        let sql = format!("SELECT id, CAST(pg_backend_pid() AS BIGINT) FROM runs WHERE {LIVING}");
        let found = tx.list(&sql, &[], |row| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?)))?;
        if found.iter().any(|(_, backend)| *backend != self.backend) {
            let why = "something between here and the server changes sessions from one transaction to the next (PgBouncer's \
                pool_mode=transaction or statement): connect to the server itself, or use pool_mode=session";
            return Err(TransactionError::Lost(why.to_owned()));
        }
        let mut living: HashSet<i64> = found.into_iter().map(|(run, _)| run).collect();
        if !living.remove(&self.id) || self.over.get() {
            self.over.set(true);
            let why = format!("run {} lost its lease of {} ms", self.id, self.lease.as_millis());
            return Err(TransactionError::Lost(format!(
                "{why}: its work may be with another run; run the same command again"
            )));
        }
        if living.is_empty() {
            return Ok(living);
        }
        let sql = "SELECT l.id FROM runs l JOIN runs h ON h.id = l.successor WHERE h.ended_at IS NULL AND h.id <> ?1";
        living.extend(tx.list(sql, values![self.id], |row| row.get::<i64>(0))?);
        Ok(living)
    }

    /// Declares over whoever is dead: one that renews its lease meanwhile either comes before this or finds that it is too late.
    pub fn expire(&self, tx: &DbTransaction<'_>) -> Result<(), TransactionError> {
        let sql = format!("UPDATE runs SET ended_at = clock_timestamp() WHERE ended_at IS NULL AND NOT ({LIVING})");
        tx.run(&sql, &[])
    }

    /// Notes that this run looks again at what is settled, and tries what ended badly.
    pub fn look_again(&self, tx: &DbTransaction<'_>) -> Result<(), TransactionError> {
        tx.run(
            "UPDATE runs SET recrawls_since = clock_timestamp() WHERE id = ?1 AND recrawls_since IS NULL",
            values![self.id],
        )
    }

    /// Says whose work the run does.
    pub fn serve(&self, tx: &DbTransaction<'_>, tenant: i64) -> Result<(), TransactionError> {
        tx.run("UPDATE runs SET tenant = ?2 WHERE id = ?1", values![self.id, tenant])
    }

    /// Waits a moment for runs of the tenant that were killed to count as over, and says how many others live: what they have is left
    /// to them. The lease is renewed meanwhile.
    pub fn tell_of_others(
        &self,
        connection: &mut Connection,
        tenant: i64,
        place: &str,
    ) -> Result<(), TransactionError> {
        if self.own {
            let others = others(connection, (self.id, tenant))?;
            if others > 0 {
                tracing::warn!("{place}: shared with {others} other runs; what they have is left to them");
            }
        }
        Ok(())
    }

    /// Becomes the successor of every run of the tenant that is over and has no living successor. While this one is `running`,
    /// pictures that they stored and did not look at are due at once: those are returned. At the start, it is told of them.
    pub fn take_over(&self, tx: &DbTransaction<'_>, tenant: i64, running: bool) -> Result<Vec<i64>, TransactionError> {
        self.expire(tx)?;
        let sql =
            "UPDATE runs SET successor = ?1 WHERE id IN (SELECT r.id FROM runs r LEFT JOIN runs h ON h.id = r.successor
            WHERE r.tenant = ?2 AND r.ended_at IS NOT NULL AND (r.successor IS NULL OR h.ended_at IS NOT NULL)
            FOR UPDATE OF r SKIP LOCKED) RETURNING id";
        let inherited = tx.list(sql, values![self.id, tenant], |row| row.get::<i64>(0))?;
        if !inherited.is_empty() {
            kill_point("lease.taken_over");
        }
        let due = if running { open_pictures_of(tx, tenant, &inherited)? } else { vec![] };
        if self.left_to_it(tx)? >= self.remained.get() + LEFT_MAX {
            self.forget_empty(tx, tenant)?;
            self.remained.set(self.left_to_it(tx)?);
        }
        Ok(due)
    }

    /// Whether a living run of the tenant looks again at what is settled, and tries what ended badly.
    pub fn is_looking_again(&self, tx: &DbTransaction<'_>, tenant: i64) -> Result<bool, TransactionError> {
        Ok(who_looks_again(tx, tenant)?.is_some())
    }

    /// How many runs have left it something.
    fn left_to_it(&self, tx: &DbTransaction<'_>) -> Result<i64, TransactionError> {
        let sql = "SELECT count(*) FROM runs WHERE successor = ?1";
        Ok(tx.one(sql, values![self.id], |row| row.get(0))?.unwrap_or(0))
    }

    /// Forgets runs that have nothing any more, so that they do not add up over the life of a state. Reads all open work.
    fn forget_empty(&self, tx: &DbTransaction<'_>, tenant: i64) -> Result<(), TransactionError> {
        let sql = "UPDATE runs SET tenant = NULL, successor = NULL WHERE successor = ?1 AND id NOT IN (
            SELECT run FROM entries WHERE tenant = ?2 AND state = 'open' AND run IS NOT NULL
            UNION SELECT run FROM pictures WHERE tenant = ?2 AND state = 'open' AND run IS NOT NULL)";
        tx.run(sql, values![self.id, tenant])?;
        // Nor do their rows: what is over, has nothing and was nobody's successor says nothing any more.
        let sql = "DELETE FROM runs WHERE ended_at IS NOT NULL AND tenant IS NULL AND successor IS NULL
            AND id NOT IN (SELECT successor FROM runs WHERE successor IS NOT NULL)";
        tx.run(sql, &[])
    }

    /// Ends the run on the writer's connection: what it has is anybody's from now on.
    pub fn end(&self, connection: &mut Connection) -> Result<(), TransactionError> {
        if !self.own {
            return Ok(());
        }
        connection.write(|tx| {
            tx.run("UPDATE runs SET ended_at = clock_timestamp() WHERE id = ?1 AND ended_at IS NULL", values![self.id])
        })
    }
}

/// The open pictures of these runs that are not due at a time of their own. Reads the whole table, since no index follows what
/// is open; that is seldom asked, and takes less than a look-up for every picture of the tenant.
fn open_pictures_of(tx: &DbTransaction<'_>, tenant: i64, runs: &[i64]) -> Result<Vec<i64>, TransactionError> {
    if runs.is_empty() {
        return Ok(vec![]);
    }
    let runs: HashSet<i64> = runs.iter().copied().collect();
    tx.run("SELECT set_config('enable_seqscan', 'on', true)", &[])?;
    let sql =
        "SELECT id, run FROM pictures WHERE tenant = ?1 AND state = 'open' AND due_ms IS NULL AND run IS NOT NULL";
    let open = tx.list(sql, values![tenant], |row| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?)))?;
    tx.run("SELECT set_config('enable_seqscan', 'off', true)", &[])?;
    Ok(open.into_iter().filter(|(_, run)| runs.contains(run)).map(|(id, _)| id).collect())
}

/// Whether a run lives.
pub(crate) fn lives(tx: &DbTransaction<'_>, run: i64) -> Result<bool, TransactionError> {
    let sql = format!("SELECT 1 FROM runs WHERE id = ?1 AND {LIVING}");
    Ok(tx.one(&sql, values![run], |_| Ok(()))?.is_some())
}

/// The one run of a tenant that looks again at what is settled: of those that would, the one that has done so longest, so that no
/// two do the same.
pub(crate) fn who_looks_again(tx: &DbTransaction<'_>, tenant: i64) -> Result<Option<i64>, TransactionError> {
    let sql = format!(
        "SELECT id FROM runs WHERE recrawls_since IS NOT NULL AND tenant = ?1 AND {LIVING} ORDER BY recrawls_since, id LIMIT 1"
    );
    tx.one(&sql, values![tenant], |row| row.get(0))
}

/// How many other runs of a tenant live. The server takes a moment to notice that a process was killed, so they are looked at again
/// for a while.
fn others(connection: &mut Connection, (id, tenant): (i64, i64)) -> Result<i64, TransactionError> {
    let sql = format!("SELECT count(*) FROM runs WHERE {LIVING} AND tenant = ?2 AND id <> ?1");
    let mut looks = 0;
    loop {
        let others = connection.write(|tx| tx.one(&sql, values![id, tenant], |row| row.get::<i64>(0)))?.unwrap_or(0);
        if others == 0 || looks == LOOKS {
            return Ok(others);
        }
        looks += 1;
        connection.write(|tx| tx.one("SELECT pg_sleep(0.1)", &[], |_| Ok(())))?;
    }
}
