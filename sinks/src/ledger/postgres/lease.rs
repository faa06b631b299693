//! Leases: which run has which open work, so that any number of runs share one state and no two do the same.
//!
//! A run lives while its heart beats; the clock is the server's. Work of a run that ended, that was killed, or whose heart has
//! not beaten for its lease, is claimed by the next run of its tenant that starts, which first declares that run over and then
//! becomes its heir: its row says so, however much work it is. One that was declared over, or could not
//! beat for a lease, writes nothing any more: it promises that what it would still say cannot contradict whoever took over.

use std::cell::Cell;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::server::Server;
use crate::ledger::OpenError;
use crate::ledger::database::{Connection, Moment, values};
use crate::ledger::rows::Trouble;

/// The condition of a living run. Locks know no schemas, so the schema's name is half of their number.
const LIVING: &str = "ended_at IS NULL AND beat_at + lease_ms * interval '1 millisecond' > clock_timestamp()
    AND EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = runs.id::oid
    AND classid::bigint = hashtext('faceflow ' || current_schema())::bigint & 4294967295
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";

/// Whenever so many more runs have left something to one heir, it is looked which of them still have something.
const HEIRLOOMS_MAX: i64 = 64;

/// Looks at other runs before they count as living, a tenth of a second apart.
const LOOKS: u32 = 15;

/// Each process of a run holds this for as long as it is connected, so that one that was killed is known to be dead at once.
const PRESENCE: &str = "SELECT pg_advisory_lock_shared(hashtext('faceflow ' || current_schema()), ?1::text::integer)";

/// This process's run, with the thread that is its heart. Dropping it ends the run, which gives its work back.
pub(in crate::ledger) struct Lease {
    id: i64,
    /// Whether this process began the run, and is to end it.
    own: bool,
    lease: Duration,
    /// Found to be over once, and so for ever: a beat that was held up on its way may still arrive.
    over: Cell<bool>,
    /// How many of the runs whose heir it is had something when that was looked at last.
    remained: Cell<i64>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Lease {
    /// Begins a run on the writer's connection, or joins one that another process of the cluster has begun.
    pub fn begin(server: &Server, connection: &mut Connection, joined: Option<i64>) -> Result<Self, OpenError> {
        let begun = connection.write(|moment| {
            let lease_ms = server.settings.lease_ms as i64;
            let id = match joined {
                Some(id) => id,
                None => moment.insert("INSERT INTO runs (lease_ms) VALUES (?1)", values![lease_ms])?,
            };
            moment.one(PRESENCE, values![&id.to_string()], |_| Ok(()))?;
            moment.one("SELECT set_config('faceflow.run', ?1, false)", values![&id.to_string()], |_| Ok(()))?;
            Ok(id)
        });
        let id = begun.map_err(|trouble| server.refused(trouble.to_string()))?;
        let (stop, stopped) = mpsc::channel();
        let lease = Duration::from_millis(server.settings.lease_ms);
        let refused = |error: std::io::Error| server.refused(error.to_string());
        let place = server.clone();
        let thread = std::thread::Builder::new().name("faceflow-lease".to_owned());
        let thread = thread.spawn(move || beat(&place, id, lease, &stopped)).map_err(refused)?;
        let own = joined.is_none();
        let begun = Self {
            id,
            own,
            lease,
            over: Cell::new(false),
            remained: Cell::new(0),
            stop: Some(stop),
            thread: Some(thread),
        };
        // The heart beats already: to look for the others may take longer than a short lease.
        if own {
            let others = others(connection, id).map_err(|trouble| server.refused(trouble.to_string()))?;
            if others > 0 {
                let place = &server.address;
                tracing::warn!("{place}: shared with {others} other runs; what they have is left to them");
            }
        }
        Ok(begun)
    }

    /// The run's number.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Whether the run may still write; which others live, and what they have taken over. To be asked with the tenant's books locked.
    pub fn living(&self, moment: &Moment<'_>) -> Result<Vec<i64>, Trouble> {
        let sql = format!("SELECT id FROM runs WHERE {LIVING}");
        let mut living = moment.list(&sql, &[], |row| row.get::<i64>(0))?;
        let own = living.iter().position(|run| *run == self.id).filter(|_| !self.over.get());
        let Some(own) = own else {
            self.over.set(true);
            let why = format!("run {} lost its lease of {} ms", self.id, self.lease.as_millis());
            return Err(Trouble::Lost(format!("{why}: its work may be with another run; run the same command again")));
        };
        living.swap_remove(own);
        if living.is_empty() {
            return Ok(living);
        }
        let sql = "SELECT l.id FROM runs l JOIN runs h ON h.id = l.heir WHERE h.ended_at IS NULL AND h.id <> ?1";
        living.extend(moment.list(sql, values![self.id], |row| row.get::<i64>(0))?);
        Ok(living)
    }

    /// Declares over whoever is dead: a heart that beats again meanwhile either comes before this or finds that it is too late.
    pub fn bury(&self, moment: &Moment<'_>) -> Result<(), Trouble> {
        let sql = format!("UPDATE runs SET ended_at = clock_timestamp() WHERE ended_at IS NULL AND NOT ({LIVING})");
        moment.run(&sql, &[])
    }

    /// Notes that this run looks again at what is settled, and tries what ended badly.
    pub fn look_again(&self, moment: &Moment<'_>) -> Result<(), Trouble> {
        moment.run("UPDATE runs SET again_at = clock_timestamp() WHERE id = ?1 AND again_at IS NULL", values![self.id])
    }

    /// Says whose work the run does.
    pub fn serve(&self, moment: &Moment<'_>, tenant: i64) -> Result<(), Trouble> {
        moment.run("UPDATE runs SET tenant = ?2 WHERE id = ?1", values![self.id, tenant])
    }

    /// Becomes the heir of every run of the tenant that is over and has no living heir. While this one is `running`, pictures
    /// that they kept and did not look at are due at once; at the start, it is told of them.
    pub fn take_over(&self, moment: &Moment<'_>, tenant: i64, running: bool) -> Result<(), Trouble> {
        self.bury(moment)?;
        let sql = "UPDATE runs SET heir = ?1 WHERE id IN (SELECT r.id FROM runs r LEFT JOIN runs h ON h.id = r.heir
            WHERE r.tenant = ?2 AND r.ended_at IS NOT NULL AND (r.heir IS NULL OR h.ended_at IS NOT NULL)
            FOR UPDATE OF r SKIP LOCKED) RETURNING id";
        let inherited = moment.list(sql, values![self.id, tenant], |row| row.get::<i64>(0))?;
        for run in inherited.into_iter().filter(|_| running) {
            let sql =
                "UPDATE pictures SET due_ms = 0 WHERE tenant = ?1 AND state = 'open' AND due_ms IS NULL AND run = ?2";
            moment.run(sql, values![tenant, run])?;
        }
        if self.heirlooms(moment)? < self.remained.get() + HEIRLOOMS_MAX {
            return Ok(());
        }
        self.forget_empty(moment, tenant)?;
        self.remained.set(self.heirlooms(moment)?);
        Ok(())
    }

    /// How many runs have left it something.
    fn heirlooms(&self, moment: &Moment<'_>) -> Result<i64, Trouble> {
        let sql = "SELECT count(*) FROM runs WHERE heir = ?1";
        Ok(moment.one(sql, values![self.id], |row| row.get(0))?.unwrap_or(0))
    }

    /// Forgets runs that have nothing any more, so that they do not add up over the life of a state. Reads all open work.
    fn forget_empty(&self, moment: &Moment<'_>, tenant: i64) -> Result<(), Trouble> {
        let sql = "UPDATE runs SET tenant = NULL, heir = NULL WHERE heir = ?1 AND id NOT IN (
            SELECT run FROM entries WHERE tenant = ?2 AND state = 'open' AND run IS NOT NULL
            UNION SELECT run FROM pictures WHERE tenant = ?2 AND state = 'open' AND run IS NOT NULL)";
        moment.run(sql, values![self.id, tenant])
    }

    /// Ends the run on the writer's connection: what it has is anybody's from now on.
    pub fn end(&self, connection: &mut Connection) -> Result<(), Trouble> {
        if !self.own {
            return Ok(());
        }
        connection.write(|moment| {
            moment.run(
                "UPDATE runs SET ended_at = clock_timestamp() WHERE id = ?1 AND ended_at IS NULL",
                values![self.id],
            )
        })
    }
}

/// Whether a run lives.
pub(in crate::ledger) fn lives(moment: &Moment<'_>, run: i64) -> Result<bool, Trouble> {
    let sql = format!("SELECT 1 FROM runs WHERE id = ?1 AND {LIVING}");
    Ok(moment.one(&sql, values![run], |_| Ok(()))?.is_some())
}

/// The one run of a tenant that looks again at what is settled: of those that would, the one that has done so longest, so that no
/// two do the same.
pub(in crate::ledger) fn who_looks_again(moment: &Moment<'_>, tenant: i64) -> Result<Option<i64>, Trouble> {
    let sql = format!(
        "SELECT id FROM runs WHERE again_at IS NOT NULL AND tenant = ?1 AND {LIVING} ORDER BY again_at, id LIMIT 1"
    );
    moment.one(&sql, values![tenant], |row| row.get(0))
}

/// How many other runs live. The server takes a moment to notice that a process was killed, so they are looked at again for
/// a while.
fn others(connection: &mut Connection, id: i64) -> Result<i64, Trouble> {
    let sql = format!("SELECT count(*) FROM runs WHERE {LIVING} AND id <> ?1");
    let mut looks = 0;
    loop {
        let others = connection.write(|moment| moment.one(&sql, values![id], |row| row.get::<i64>(0)))?.unwrap_or(0);
        if others == 0 || looks == LOOKS {
            return Ok(others);
        }
        looks += 1;
        connection.write(|moment| moment.one("SELECT pg_sleep(0.1)", &[], |_| Ok(())))?;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that keeps the lease panicked");
        }
    }
}

/// Beats until it is told to stop, or finds that it is too late.
fn beat(server: &Server, id: i64, lease: Duration, stopped: &mpsc::Receiver<()>) {
    let mut connection = None;
    while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(lease / 3) {
        match beat_once(server, id, lease, &mut connection) {
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

/// Whether the run is still alive after this beat.
fn beat_once(
    server: &Server,
    id: i64,
    lease: Duration,
    connection: &mut Option<tokio_postgres::Client>,
) -> Result<bool, String> {
    let (route, mut client) = (server.route().clone(), connection.take());
    let (alive, client) = server.wire().run(async move {
        let beating = async {
            let client = match client.take() {
                Some(client) => client,
                None => super::client::open(&route).await?,
            };
            let sql = format!("UPDATE runs SET beat_at = clock_timestamp() WHERE id = $1 AND {LIVING}");
            let rows = client.execute(&sql, &[&id]).await?;
            Ok::<_, Trouble>((rows == 1, client))
        };
        let beaten = tokio::time::timeout(lease / 3, beating).await;
        beaten.map_err(|_| "the server did not answer in time".to_owned())?.map_err(|trouble| trouble.to_string())
    })?;
    *connection = Some(client);
    Ok(alive)
}
