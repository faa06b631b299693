//! Reading a ledger, also while another process writes it. Every read sees one state between two groups of facts.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use faceflow_core::Time;
use faceflow_core::ledger::{DispatchReply, DispatchRequest, KnownPicture, LedgerError, QueueUpdate};
use faceflow_core::record::{DETECTION_QUEUE, Frame, Image, Key, Page, QueueId, Work};
use faceflow_core::tally::Tally;

use super::alternates::first_page;
use super::database::{Connection, Moment, Row, values};
use super::location::{Backend, StateLocation};
use super::postgres::lease::{lives, who_looks_again};
use super::rows::{CONTENT, Trouble, Word, content_at, parse_url, split_keys};
use super::tallies::Tallies;
use super::{LedgerSettings, OpenError};

/// One tenant's ledger, read only. Clones share it.
#[derive(Clone)]
pub struct Reader(Arc<Shared>);

struct Shared {
    backend: Backend,
    tenant: String,
    id: i64,
    idle: Mutex<Vec<Connection>>,
}

/// Refuses tenants whose name is not good for a folder.
pub(super) fn check_tenant(tenant: &str) -> Result<(), OpenError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if (1..=64).contains(&tenant.len()) && tenant.chars().all(allowed) && !tenant.starts_with('.') {
        return Ok(());
    }
    Err(OpenError::Tenant { tenant: tenant.to_owned() })
}

impl Reader {
    /// Opens the state at `place` for reading about `tenant`.
    pub fn open(place: impl Into<StateLocation>, tenant: &str, settings: &LedgerSettings) -> Result<Self, OpenError> {
        check_tenant(tenant)?;
        Self::of(Backend::new(&place.into(), settings)?, tenant)
    }

    pub(super) fn of(backend: Backend, tenant: &str) -> Result<Self, OpenError> {
        let mut connection = backend.connect_reader()?;
        let sql = "SELECT id, name FROM tenants ORDER BY name";
        let tenants = connection
            .read(|moment| moment.list(sql, &[], |row| Ok((row.get::<i64>(0)?, row.get::<String>(1)?))))
            .map_err(|trouble| backend.refused(&trouble))?;
        let Some((id, _)) = tenants.iter().find(|(_, name)| name == tenant) else {
            let known = tenants.into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(", ");
            return Err(OpenError::NoTenant { place: backend.name(), tenant: tenant.to_owned(), known });
        };
        let (id, tenant) = (*id, tenant.to_owned());
        Ok(Self(Arc::new(Shared { backend, tenant, id, idle: Mutex::new(vec![connection]) })))
    }

    /// Whose ledger this is.
    pub fn tenant(&self) -> &str {
        &self.0.tenant
    }

    /// The settings it was opened with.
    pub fn settings(&self) -> &LedgerSettings {
        self.0.backend.settings()
    }

    pub(crate) fn tenant_id(&self) -> i64 {
        self.0.id
    }

    /// Reads in one transaction: everything that `work` sees is of one moment.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Moment<'_>) -> Result<T, Trouble>) -> Result<T, LedgerError> {
        let idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let backend = &self.0.backend;
        let storage = |error: OpenError| LedgerError::Storage { place: backend.name(), reason: error.to_string() };
        let mut connection = idle.map_or_else(|| backend.connect_reader(), Ok).map_err(storage)?;
        let read = connection.read(work).map_err(|trouble| trouble.at(&backend.storage()))?;
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(read)
    }

    /// Checks what the database can say about itself; slow for a large file. For `faceflow doctor`.
    pub fn check(&self) -> Result<(), LedgerError> {
        self.read(|moment| match moment {
            Moment::Sqlite(_) => match moment.one("PRAGMA quick_check(1)", &[], |row| row.get::<String>(0))? {
                Some(said) if said != "ok" => Err(Trouble::Damaged(said)),
                _ => Ok(()),
            },
            // A server checks its own files. What we can see is whether the books can be read.
            Moment::Postgres(_) => Tallies::load(moment, self.tenant_id()).map(drop),
        })
    }

    /// The sites that a watched list named when it was read last, by the keys of their pages.
    pub fn listed(&self, list: &str) -> Result<HashSet<Key>, LedgerError> {
        let mut sites = HashSet::new();
        self.read(|moment| {
            let sql = "SELECT url FROM sites WHERE tenant = ?1 AND list = ?2 AND NOT removed";
            moment.each(sql, values![self.tenant_id(), list], |row| {
                sites.insert(Key::page(&parse_url(&row.get::<String>(0)?)?));
                Ok(())
            })
        })?;
        Ok(sites)
    }

    /// Every known picture; of `ours`, without open ones that other runs have.
    pub(super) fn pictures_for(
        &self,
        ours: Option<i64>,
        each: &mut dyn FnMut(KnownPicture),
    ) -> Result<(), LedgerError> {
        let ours = having("p", ours);
        let sql = format!(
            "SELECT {CONTENT}, p.state, p.state = 'open' AND p.due_ms IS NOT NULL,
                CASE p.representative WHEN p.id THEN p.content ELSE r.content END,
                p.state = 'open' AND EXISTS (SELECT 1 FROM detections d WHERE d.picture = p.id)
            FROM pictures p NOT INDEXED LEFT JOIN pictures r ON r.id = p.representative AND r.id <> p.id
            WHERE p.tenant = ?1 AND (p.state <> 'open' OR {ours}) ORDER BY p.id"
        );
        self.for_each(&sql, |row| {
            each(KnownPicture {
                content: content_at(row, 0)?,
                state: row.get::<Word>(7)?.0,
                retrying: row.get(8)?,
                representative: row.get(9)?,
                weak: row.get(10)?,
            });
            Ok(())
        })
    }

    /// Calls `each` with every lane that has open work, and if `again`, with those of settled pages to be looked at again.
    pub fn lanes(&self, again: bool, each: &mut dyn FnMut(QueueUpdate)) -> Result<(), LedgerError> {
        let open = ("state = 'open'", "CAST(0 AS BIGINT)");
        let later = (
            "again_ms IS NOT NULL",
            "(SELECT min(again_ms) FROM entries WHERE tenant = ?1 AND again_ms IS NOT NULL AND lane = l.lane)",
        );
        let revived = (
            "revive_ms IS NOT NULL",
            "(SELECT min(revive_ms) FROM entries WHERE tenant = ?1 AND revive_ms IS NOT NULL AND lane = l.lane)",
        );
        let looks_again = [later, revived].into_iter().filter(|_| again);
        for (waiting, due) in std::iter::once(open).chain(looks_again) {
            // One look into the index for each lane, however much waits in it.
            let sql = format!(
                "WITH RECURSIVE l (lane) AS (
                    SELECT min(lane) FROM entries WHERE tenant = ?1 AND {waiting}
                    UNION ALL
                    SELECT (SELECT min(lane) FROM entries WHERE tenant = ?1 AND {waiting} AND lane > l.lane) FROM l
                    WHERE l.lane IS NOT NULL
                ) SELECT lane, {due} FROM l WHERE lane IS NOT NULL"
            );
            let again = waiting != open.0;
            self.for_each(&sql, |row| {
                let due = row.get::<Option<i64>>(1)?.unwrap_or(0) as Time;
                each(QueueUpdate { lane: row.get::<i64>(0)? as QueueId, due, again });
                Ok(())
            })?;
        }
        self.for_each("SELECT 1 FROM pictures WHERE tenant = ?1 AND due_ms IS NOT NULL LIMIT 1", |_| {
            each(QueueUpdate { lane: DETECTION_QUEUE, due: 0, again: false });
            Ok(())
        })?;
        let sql = "SELECT min(revive_ms) FROM pictures
            WHERE tenant = ?1 AND revive_ms IS NOT NULL AND (representative IS NULL OR representative = id)";
        if !again {
            return Ok(());
        }
        self.for_each(sql, |row| {
            if let Some(due) = row.get::<Option<i64>>(0)? {
                each(QueueUpdate { lane: DETECTION_QUEUE, due: due as Time, again: true });
            }
            Ok(())
        })
    }

    /// Whether `run` is the one that looks again at what is settled. One that is over is told so.
    pub fn looks_again(&self, run: i64) -> Result<bool, LedgerError> {
        self.read(|moment| {
            if !lives(moment, run)? {
                let why = format!("run {run} lost its lease: its work may be with another run");
                return Err(Trouble::Lost(format!("{why}; run the same command again")));
            }
            Ok(who_looks_again(moment, self.tenant_id())?.is_none_or(|eldest| eldest == run))
        })
    }

    /// What lanes have to give that is due by `now`; of `ours`, only what that run has. Where another run looks again,
    /// that is asked about after `patience_ms`.
    pub fn claim(
        &self,
        (ours, patience_ms): (Option<i64>, Option<u64>),
        now: Time,
        asks: &[DispatchRequest],
    ) -> Result<Vec<DispatchReply>, LedgerError> {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        self.read(|moment| {
            follow_indexes(moment)?;
            let claim = |ask: &DispatchRequest| {
                let mut claim = Claim { moment, tenant: self.tenant_id(), now, ask, work: vec![], next: None };
                if ask.lane == DETECTION_QUEUE {
                    claim.from(&Queue::frames(ours), &["due_ms"])?;
                } else {
                    claim.from(&Queue::entries(ours), &["due_ms", ""])?;
                }
                match patience_ms.filter(|_| ask.again) {
                    None if ask.again => claim.look_again()?,
                    None => {}
                    Some(patience_ms) => claim.leave_to_another(patience_ms as i64)?,
                }
                Ok(DispatchReply { lane: ask.lane, work: claim.work, next: claim.next })
            };
            asks.iter().map(claim).collect()
        })
    }

    /// Pages and images by status: `(pages, images)`.
    pub fn tally(&self) -> Result<(Tally, Tally), LedgerError> {
        let tallies = self.read(|moment| Tallies::load(moment, self.tenant_id()))?;
        Ok((tallies.pages, tallies.images))
    }

    /// How many faces were found in the pictures that stand for themselves.
    pub fn face_count(&self) -> Result<u64, LedgerError> {
        let sql =
            "SELECT CAST(coalesce(sum(d.faces), 0) AS BIGINT) FROM detections d JOIN pictures p ON p.id = d.picture
            WHERE p.tenant = ?1 AND coalesce(p.representative, p.id) = p.id";
        let mut faces = 0;
        self.for_each(sql, |row| {
            faces = row.get::<i64>(0)? as u64;
            Ok(())
        })?;
        Ok(faces)
    }

    fn for_each(&self, sql: &str, mut each: impl FnMut(&Row<'_>) -> Result<(), Trouble>) -> Result<(), LedgerError> {
        self.read(|moment| moment.each(sql, values![self.tenant_id()], &mut each))
    }
}

/// A server guesses that little is due, and would then rather sort it: for claims it has to follow an index in its order, however
/// much there is.
fn follow_indexes(moment: &Moment<'_>) -> Result<(), Trouble> {
    match moment {
        Moment::Sqlite(_) => Ok(()),
        Moment::Postgres(_) => moment.batch("SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off"),
    }
}

/// A condition that is true of what this run has, and of what those have whose heir it is; of everything where there are no runs.
/// Its text does not change with those, for every text is a statement that stays prepared.
fn having(alias: &str, run: Option<i64>) -> String {
    let Some(run) = run else { return "TRUE".to_owned() };
    format!("{alias}.run = ANY (ARRAY(SELECT CAST({run} AS BIGINT) UNION ALL SELECT id FROM runs WHERE heir = {run}))")
}

/// How to ask for the work of a lane that waits in one way.
struct Queue {
    /// What waits, as `e`, and what its columns need besides.
    from: &'static str,
    join: &'static str,
    /// Which of it.
    which: String,
    /// What comes first of what is due at the same time, where the index says so: sorting would read all of that every time.
    ties: &'static str,
    /// What [`Queue::work`] reads; the first two tell what it is and when it is due.
    columns: String,
    work: fn(&Moment<'_>, &Row<'_>) -> Result<Work, Trouble>,
    key: fn(&Row<'_>) -> Result<Key, Trouble>,
}

const ENTRY_COLUMNS: &str = "e.id, e.url, s.url, e.attempts, e.depth, e.skip, e.inline,
    CASE e.state WHEN 'settled' THEN coalesce(e.reading, '{}') END, e.spared";

/// Of what was rejected a try counts as failed, so that the next one comes later, but towards no limit.
const ENTRY_AGAIN: &str =
    "e.id, e.url, s.url, CASE e.state WHEN 'rejected' THEN e.attempts + 1 ELSE e.attempts END, e.depth,
    e.skip, e.inline, NULL, CASE e.state WHEN 'rejected' THEN e.spared + 1 ELSE e.spared END";

impl Queue {
    fn entries(ours: Option<i64>) -> Self {
        Self {
            from: "FROM entries e INDEXED BY entries_open",
            join: "JOIN sites s ON s.id = e.site",
            which: format!("WHERE e.tenant = ?1 AND e.lane = ?2 AND e.state = 'open' AND {}", having("e", ours)),
            ties: ", e.id",
            columns: format!("e.key, e.due_ms, {ENTRY_COLUMNS}"),
            work: entry_work,
            key: |row| row.get(0),
        }
    }

    /// Settled pages that are looked at again.
    fn again() -> Self {
        Self {
            from: "FROM entries e INDEXED BY entries_again",
            join: "JOIN sites s ON s.id = e.site",
            which: "WHERE e.tenant = ?1 AND e.lane = ?2 AND e.again_ms IS NOT NULL".to_owned(),
            ties: ", e.id",
            columns: format!("e.key, e.again_ms, {ENTRY_COLUMNS}"),
            work: entry_work,
            key: |row| row.get(0),
        }
    }

    /// What came to a bad end and is tried nevertheless.
    fn revived() -> Self {
        Self {
            from: "FROM entries e INDEXED BY entries_revive",
            join: "JOIN sites s ON s.id = e.site",
            which: "WHERE e.tenant = ?1 AND e.lane = ?2 AND e.revive_ms IS NOT NULL
                AND NOT (SELECT removed FROM sites WHERE id = e.site)"
                .to_owned(),
            ties: ", e.id",
            columns: format!("e.key, e.revive_ms, {ENTRY_AGAIN}"),
            work: entry_work,
            key: |row| row.get(0),
        }
    }

    fn frames(ours: Option<i64>) -> Self {
        let which = format!("e.state = 'open' AND e.due_ms IS NOT NULL AND {}", having("e", ours));
        Self::pictures("due_ms", "FROM pictures e INDEXED BY pictures_waiting", &which)
    }

    /// Dead pictures that are tried nevertheless, unless another stands for them by now or all their sites were removed.
    fn revived_frames() -> Self {
        let which = "e.revive_ms IS NOT NULL AND (e.representative IS NULL OR e.representative = e.id)
            AND EXISTS (SELECT 1 FROM entries i JOIN sites s ON s.id = i.site WHERE i.picture = e.id AND NOT s.removed)";
        Self::pictures("revive_ms", "FROM pictures e INDEXED BY pictures_revive", which)
    }

    fn pictures(due: &str, from: &'static str, which: &str) -> Self {
        let content = CONTENT.replace("p.", "e.");
        let answered = "EXISTS (SELECT 1 FROM detections d WHERE d.picture = e.id)";
        Self {
            from,
            join: "",
            which: format!("WHERE e.tenant = ?1 AND CAST(?2 AS BIGINT) = 0 AND {which}"),
            ties: "",
            columns: format!("e.attempts, e.{due}, {content}, {answered}, e.scale_ppm, e.spared"),
            work: frame_work,
            key: |row| Ok(frame_at(row)?.key()),
        }
    }

    /// What of it is due at `?3` by the column `due`, or at once (`""`), the first `?4` of it.
    fn due(&self, due: &str) -> String {
        let Self { from, join, which, ties, columns, .. } = self;
        let order = match due {
            // In the order of the index: a server does not see that one column is the same for all.
            "" => "AND e.due_ms IS NULL AND CAST(?3 AS BIGINT) IS NOT NULL ORDER BY e.due_ms".to_owned(),
            due => format!("AND e.{due} <= ?3 ORDER BY e.{due}"),
        };
        format!("SELECT {columns} {from} {join} {which} {order}{ties} LIMIT ?4")
    }

    /// When the next of it is due after `?3`.
    fn later(&self, due: &str) -> String {
        // Not the minimum, which a server finds in an index only where it is asked of one table alone.
        let Self { from, which, .. } = self;
        format!("SELECT e.{due} {from} {which} AND e.{due} > ?3 ORDER BY e.{due} LIMIT 1")
    }
}

/// What is being taken out of a lane.
struct Claim<'a, 'm> {
    moment: &'a Moment<'m>,
    tenant: i64,
    now: i64,
    ask: &'a DispatchRequest,
    work: Vec<Work>,
    next: Option<Time>,
}

impl Claim<'_, '_> {
    /// Takes what is settled and looked at again, and what came to a bad end and is tried nevertheless.
    fn look_again(&mut self) -> Result<(), Trouble> {
        if self.ask.lane == DETECTION_QUEUE {
            return self.from(&Queue::revived_frames(), &["revive_ms"]);
        }
        self.from(&Queue::again(), &["again_ms"])?;
        self.from(&Queue::revived(), &["revive_ms"])
    }

    /// Another run does that. It may be over when this is asked again, which it is for the lane of pictures in any case, so that
    /// somebody notices.
    fn leave_to_another(&mut self, patience_ms: i64) -> Result<(), Trouble> {
        let until = self.now.saturating_add(patience_ms);
        if self.ask.lane == DETECTION_QUEUE {
            self.wait_until(Some(until));
            return Ok(());
        }
        for (queue, due) in [(Queue::again(), "again_ms"), (Queue::revived(), "revive_ms")] {
            // Whatever is not due yet is more than no time at all.
            let lane = self.ask.lane as i64;
            let first =
                self.moment.one(&queue.later(due), values![self.tenant, lane, -1_i64], |row| row.get::<i64>(0))?;
            self.wait_until(first.map(|first| first.max(until)));
        }
        Ok(())
    }

    /// Takes what a queue has whose due time is in one of these columns, one after the other; `""` for what is due at once.
    fn from(&mut self, queue: &Queue, dues: &[&str]) -> Result<(), Trouble> {
        for due in dues {
            self.take(queue, due)?;
            if !due.is_empty() {
                let (sql, lane) = (queue.later(due), self.ask.lane as i64);
                let later =
                    self.moment.one(&sql, values![self.tenant, lane, self.now], |row| row.get::<Option<i64>>(0))?;
                self.wait_until(later.flatten());
            }
        }
        Ok(())
    }

    fn take(&mut self, queue: &Queue, due: &str) -> Result<(), Trouble> {
        let (moment, ask, sql) = (self.moment, self.ask, queue.due(due));
        let most = (ask.max - self.work.len() + ask.held.len() + 1) as i64;
        let found = moment.list(&sql, values![self.tenant, ask.lane as i64, self.now, most], |row| {
            if ask.held.contains(&(queue.key)(row)?) {
                return Ok(None);
            }
            Ok(Some((row.get::<Option<i64>>(1)?, (queue.work)(moment, row)?)))
        })?;
        for (due, work) in found.into_iter().flatten() {
            match self.work.len() < ask.max {
                true => self.work.push(work),
                false => self.wait_until(Some(due.unwrap_or(0))),
            }
        }
        Ok(())
    }

    fn wait_until(&mut self, due: Option<i64>) {
        self.next = [self.next, due.map(|due| due as Time)].into_iter().flatten().min();
    }
}

fn frame_work(_: &Moment<'_>, row: &Row<'_>) -> Result<Work, Trouble> {
    frame_at(row).map(Work::Frame)
}

/// The frame whose columns these are: attempts, due, content, whether there is an answer, scale, spared attempts.
fn frame_at(row: &Row<'_>) -> Result<Frame, Trouble> {
    let content = content_at(row, 2)?;
    // Its pixels are gone, so any worker is as good a home as the other.
    let owner = content.id.route() as usize;
    let scale = row.get::<Option<i64>>(10)?.map(|ppm| (ppm as f64 / 1e6) as f32);
    Ok(Frame { content, owner, pixels: None, attempts: row.get(0)?, spared: row.get(11)?, weak: row.get(9)?, scale })
}

/// The page or image whose columns these are: key, due, id, URL, site, attempts, depth, skip, inline, reading, spared attempts.
fn entry_work(moment: &Moment<'_>, row: &Row<'_>) -> Result<Work, Trouble> {
    let id: i64 = row.get(2)?;
    let url = parse_url(&row.get::<String>(3)?)?;
    let site = parse_url(&row.get::<String>(4)?)?;
    let attempts = row.get(5)?;
    if let Some(depth) = row.get(6)? {
        let damaged = |error: serde_json::Error| Trouble::Damaged(format!("the reading of {url}: {error}"));
        let last =
            row.get::<Option<String>>(9)?.map(|text| serde_json::from_str(&text).map_err(damaged)).transpose()?;
        return Ok(Work::Page(Page {
            skip: split_keys(row.get(7)?),
            url,
            site,
            depth,
            attempts,
            spared: row.get(10)?,
            last,
        }));
    }
    let page = first_page(moment, id)?.map(|page| parse_url(&page)).transpose()?;
    let inline = row.get::<Option<Vec<u8>>>(8)?.map(Into::into);
    Ok(Work::Image(Image {
        page: page.unwrap_or_else(|| site.clone()),
        url,
        site,
        attempts,
        inline,
        spared: row.get(10)?,
        alternates: vec![],
        version: None,
    }))
}

#[cfg(test)]
mod tests;
