//! What the dispatcher asks: the work of a queue that is due, in the order in which it is dispatched.

use std::collections::HashSet;

use faceflow_core::Time;
use faceflow_core::ledger::{DispatchReply, DispatchRequest, LedgerError};
use faceflow_core::record::{Frame, HostState, Image, JobId, Key, Page, TenantNumber, Work};
use serde::Deserialize;

use super::alternates::{Shown, picture_opted_out, shown_by};
use super::column_codecs::{TransactionError, content_at, content_columns, parse_url, split_keys};
use super::database::{DbTransaction, Row, Value, values};
use super::hosts::{self, Admission};
use super::quarantine_list;
use super::reader::Reader;
use super::sql::Sql;

impl Reader {
    /// What queues have to give that is due by `now`; of `ours`, only what that run has. Where another run looks again,
    /// that is asked about after `patience_ms`.
    pub fn due_work(
        &self,
        (ours, patience_ms): (Option<i64>, Option<u64>),
        now: Time,
        asks: &[DispatchRequest],
    ) -> Result<Vec<DispatchReply>, LedgerError> {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        self.read(|tx| {
            force_index_scans(tx)?;
            let admissions = hosts::admissions(tx, self.tenant_id(), now, asks)?;
            let withheld = quarantine_list::withheld(tx, self.tenant_id())?;
            let claim = |(ask, admission): (&DispatchRequest, Admission)| {
                let max = admission.max(ask);
                let (tenant, withheld) = (self.tenant_id(), &withheld);
                let mut claim =
                    DueWorkScan { tx, tenant, now, ask, withheld, max, admission, work: vec![], next: None };
                if ask.queue.is_detection() {
                    claim.from(&DueQuery::frames(tx, ours), &["due_ms"])?;
                } else {
                    let order = if claim.admission.probes { ["", "due_ms"] } else { ["due_ms", ""] };
                    claim.from(&DueQuery::entries(ours), &order)?;
                }
                match patience_ms.filter(|_| ask.again) {
                    None if ask.again => claim.look_again()?,
                    None => {}
                    Some(patience_ms) => claim.leave_to_another(patience_ms as i64)?,
                }
                Ok(claim.reply())
            };
            asks.iter().zip(admissions).map(claim).collect()
        })
    }
}

/// A server guesses that little is due, and would then rather sort it: for claims it has to follow an index in its order, however
/// much there is.
fn force_index_scans(tx: &DbTransaction<'_>) -> Result<(), TransactionError> {
    match tx {
        DbTransaction::Sqlite(_) => Ok(()),
        DbTransaction::Postgres(_) => tx.batch("SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off"),
    }
}

/// A condition that is true of what this run has, and of what those have whose successor it is; of everything where there are no runs.
/// Its text does not change with those, for every text is a statement that stays prepared.
pub(super) fn owned_by_sql(alias: &str, run: Option<i64>) -> String {
    let Some(run) = run else { return "TRUE".to_owned() };
    format!(
        "{alias}.run = ANY (ARRAY(SELECT CAST({run} AS BIGINT) UNION ALL SELECT id FROM runs WHERE successor = {run}))"
    )
}

/// How to ask for the work of a queue that waits in one way.
struct DueQuery {
    /// What waits, as `e`, and what its columns need besides.
    from: Sql,
    join: &'static str,
    /// Which of it.
    which: String,
    /// What comes first of what is due at the same time, where the index says so: sorting would read all of that every time.
    ties: &'static str,
    /// What [`DueQuery::work`] reads; the first two tell what it is and when it is due.
    columns: String,
    work: fn(&DbTransaction<'_>, &Row<'_>) -> Result<Work, TransactionError>,
    key: fn(&Row<'_>) -> Result<Key, TransactionError>,
}

const ENTRY_COLUMNS: &str = "e.id, e.url, s.url, e.attempts, e.depth, e.skip, e.inline,
    CASE e.state WHEN 'settled' THEN coalesce(e.page_version, '{}') END, e.uncounted, e.tenant, e.job";

/// Of what was rejected a try counts as failed, so that the next one comes later, but towards no limit.
const ENTRY_AGAIN: &str =
    "e.id, e.url, s.url, CASE e.state WHEN 'rejected' THEN e.attempts + 1 ELSE e.attempts END, e.depth,
    e.skip, e.inline, NULL, CASE e.state WHEN 'rejected' THEN e.uncounted + 1 ELSE e.uncounted END, e.tenant, e.job";

impl DueQuery {
    fn entries(ours: Option<i64>) -> Self {
        Self {
            from: Sql::hinted("FROM entries e INDEXED BY entries_open", "FROM entries e"),
            join: "JOIN sites s ON s.id = e.site",
            which: format!(
                "WHERE e.tenant = ?1 AND e.job = ?4 AND e.queue = ?2 AND e.state = 'open' AND {}",
                owned_by_sql("e", ours)
            ),
            ties: ", e.id",
            columns: format!("e.key, e.due_ms, {ENTRY_COLUMNS}"),
            work: entry_work,
            key: |row| row.get(0),
        }
    }

    /// Settled pages that are looked at again.
    fn again() -> Self {
        Self {
            from: Sql::hinted("FROM entries e INDEXED BY entries_recrawl", "FROM entries e"),
            join: "JOIN sites s ON s.id = e.site",
            which: "WHERE e.tenant = ?1 AND e.job = ?4 AND e.queue = ?2 AND e.recrawl_ms IS NOT NULL".to_owned(),
            ties: ", e.id",
            columns: format!("e.key, e.recrawl_ms, {ENTRY_COLUMNS}"),
            work: entry_work,
            key: |row| row.get(0),
        }
    }

    /// What came to a bad end and is tried nevertheless.
    fn revived() -> Self {
        Self {
            from: Sql::hinted("FROM entries e INDEXED BY entries_terminal_retry", "FROM entries e"),
            join: "JOIN sites s ON s.id = e.site",
            which: "WHERE e.tenant = ?1 AND e.job = ?4 AND e.queue = ?2 AND e.terminal_retry_ms IS NOT NULL
                AND NOT (SELECT removed FROM sites WHERE id = e.site)"
                .to_owned(),
            ties: ", e.id",
            columns: format!("e.key, e.terminal_retry_ms, {ENTRY_AGAIN}"),
            work: entry_work,
            key: |row| row.get(0),
        }
    }

    fn frames(tx: &DbTransaction<'_>, ours: Option<i64>) -> Self {
        let which = format!("e.state = 'open' AND e.due_ms IS NOT NULL AND {}", owned_by_sql("e", ours));
        let from = Sql::hinted("FROM pictures e INDEXED BY pictures_waiting", "FROM pictures e");
        Self::pictures(tx, "due_ms", from, &which)
    }

    /// Dead pictures that are tried nevertheless, unless another stands for them by now or all their sites were removed.
    fn revived_frames(tx: &DbTransaction<'_>) -> Self {
        let which = "e.terminal_retry_ms IS NOT NULL AND (e.representative IS NULL OR e.representative = e.id)
            AND EXISTS (SELECT 1 FROM entries i JOIN sites s ON s.id = i.site WHERE i.picture = e.id AND NOT s.removed)";
        let from = Sql::hinted("FROM pictures e INDEXED BY pictures_terminal_retry", "FROM pictures e");
        Self::pictures(tx, "terminal_retry_ms", from, which)
    }

    fn pictures(tx: &DbTransaction<'_>, due: &str, from: Sql, which: &str) -> Self {
        let content = content_columns(tx).replace("p.", "e.");
        let answered = "(SELECT d.body FROM detections d WHERE d.picture = e.id)";
        Self {
            from,
            join: "",
            which: format!("WHERE e.tenant = ?1 AND CAST(?2 AS BIGINT) = 0 AND CAST(?4 AS BIGINT) = 0 AND {which}"),
            ties: "",
            columns: format!("e.attempts, e.{due}, {content}, {answered}, e.scale_ppm, e.uncounted, e.tenant, e.id"),
            work: frame_work,
            key: |row| Ok(frame_at(row)?.key()),
        }
    }

    /// What of it is due at `?3` by the column `due`, or at once (`""`), the first `?5` of it.
    fn due(&self, tx: &DbTransaction<'_>, due: &str) -> String {
        let (Self { join, which, ties, columns, .. }, from) = (self, self.from.of(tx));
        let order = match due {
            // In the order of the index: a server does not see that one column is the same for all.
            "" => "AND e.due_ms IS NULL AND CAST(?3 AS BIGINT) IS NOT NULL ORDER BY e.due_ms".to_owned(),
            due => format!("AND e.{due} <= ?3 ORDER BY e.{due}"),
        };
        format!("SELECT {columns} {from} {join} {which} {order}{ties} LIMIT ?5")
    }

    /// When the next of it is due after `?3`.
    fn later(&self, tx: &DbTransaction<'_>, due: &str) -> String {
        // Not the minimum, which a server finds in an index only where it is asked of one table alone.
        let (Self { which, .. }, from) = (self, self.from.of(tx));
        format!("SELECT e.{due} {from} {which} AND e.{due} > ?3 ORDER BY e.{due} LIMIT 1")
    }
}

/// What is being taken out of a queue.
struct DueWorkScan<'a, 'm> {
    tx: &'a DbTransaction<'m>,
    tenant: i64,
    now: i64,
    ask: &'a DispatchRequest,
    /// What is open and not given out.
    withheld: &'a HashSet<Key>,
    /// Work that is taken, at most.
    max: usize,
    admission: Admission,
    work: Vec<Work>,
    next: Option<Time>,
}

impl DueWorkScan<'_, '_> {
    /// What was taken, with what is known of its host.
    fn reply(self) -> DispatchReply {
        let Self { ask, admission, mut work, next, .. } = self;
        for work in work.iter_mut().filter(|work| work.host().is_none()) {
            work.set_host(admission.host.as_ref());
        }
        let next = next.map(|next| next.max(admission.not_before.unwrap_or(0)));
        DispatchReply { queue: ask.queue, work, next, hold: admission.not_before }
    }

    /// Takes what is settled and looked at again, and what came to a bad end and is tried nevertheless.
    fn look_again(&mut self) -> Result<(), TransactionError> {
        if self.ask.queue.is_detection() {
            return self.from(&DueQuery::revived_frames(self.tx), &["terminal_retry_ms"]);
        }
        self.from(&DueQuery::again(), &["recrawl_ms"])?;
        self.from(&DueQuery::revived(), &["terminal_retry_ms"])
    }

    /// Another run does that. It may be over when this is asked again, which it is for the queue of pictures in any case, so that
    /// somebody notices.
    fn leave_to_another(&mut self, patience_ms: i64) -> Result<(), TransactionError> {
        let until = self.now.saturating_add(patience_ms);
        if self.ask.queue.is_detection() {
            self.wait_until(Some(until));
            return Ok(());
        }
        for (queue, due) in [(DueQuery::again(), "recrawl_ms"), (DueQuery::revived(), "terminal_retry_ms")] {
            // Whatever is not due yet is more than no time at all.
            let first = self.tx.one(&queue.later(self.tx, due), &self.values(-1), |row| row.get::<i64>(0))?;
            self.wait_until(first.map(|first| first.max(until)));
        }
        Ok(())
    }

    /// Takes what a queue has whose due time is in one of these columns, one after the other; `""` for what is due at once.
    fn from(&mut self, queue: &DueQuery, dues: &[&str]) -> Result<(), TransactionError> {
        for due in dues {
            self.take(queue, due)?;
            if !due.is_empty() {
                let sql = queue.later(self.tx, due);
                let later = self.tx.one(&sql, &self.values(self.now), |row| row.get::<Option<i64>>(0))?;
                self.wait_until(later.flatten());
            }
        }
        Ok(())
    }

    fn take(&mut self, queue: &DueQuery, due: &str) -> Result<(), TransactionError> {
        let (tx, ask, sql) = (self.tx, self.ask, queue.due(self.tx, due));
        let most = (self.max - self.work.len() + ask.held.len() + self.withheld.len() + 1) as i64;
        let values = [&self.values(self.now)[..], values![most]].concat();
        let found = tx.list(&sql, &values, |row| {
            let key = (queue.key)(row)?;
            if ask.held.contains(&key) || self.withheld.contains(&key) {
                return Ok(None);
            }
            Ok(Some((row.get::<Option<i64>>(1)?, (queue.work)(tx, row)?)))
        })?;
        for (due, work) in found.into_iter().flatten() {
            match self.work.len() < self.max {
                true => self.work.push(work),
                false => self.wait_until(Some(due.unwrap_or(0))),
            }
        }
        Ok(())
    }

    /// Which queue it is, and what is due in it by `now`.
    fn values(&self, now: i64) -> [Value<'static>; 4] {
        let queue = self.ask.queue;
        [self.tenant.into(), (queue.host as i64).into(), now.into(), queue.job.number.into()]
    }

    fn wait_until(&mut self, due: Option<i64>) {
        self.next = [self.next, due.map(|due| due as Time)].into_iter().flatten().min();
    }
}

fn frame_work(tx: &DbTransaction<'_>, row: &Row<'_>) -> Result<Work, TransactionError> {
    let frame = frame_at(row)?;
    Ok(Work::Frame(Frame { opted_out: picture_opted_out(tx, row.get(12)?)?.map(Box::new), ..frame }))
}

/// The frame whose columns these are: attempts, due, content, the answer that is kept, scale, uncounted attempts, tenant, id.
fn frame_at(row: &Row<'_>) -> Result<Frame, TransactionError> {
    let content = content_at(row, 2)?;
    // Its pixels are gone, so any worker is as good a home as the other.
    let owner = content.id.partition_hash() as usize;
    let scale = row.get::<Option<i64>>(9)?.map(|ppm| (ppm as f64 / 1e6) as f32);
    let (has_degraded, generation) = next_generation(row.get(8)?)?;
    Ok(Frame {
        opted_out: None,
        job: JobId::default_of(TenantNumber(row.get(11)?)),
        content,
        owner,
        pixels: None,
        attempts: row.get(0)?,
        uncounted: row.get(10)?,
        has_degraded,
        generation,
        scale,
    })
}

/// The page or image whose columns these are: key, due, id, URL, site, attempts, depth, skip, inline, page version, uncounted attempts, tenant,
/// job.
fn entry_work(tx: &DbTransaction<'_>, row: &Row<'_>) -> Result<Work, TransactionError> {
    let id: i64 = row.get(2)?;
    let url = parse_url(&row.get::<String>(3)?)?;
    let site = parse_url(&row.get::<String>(4)?)?;
    let attempts = row.get(5)?;
    let job = JobId { tenant: TenantNumber(row.get(11)?), number: row.get(12)? };
    if let Some(depth) = row.get(6)? {
        let damaged = |error: serde_json::Error| TransactionError::Damaged(format!("the version of {url}: {error}"));
        let last =
            row.get::<Option<String>>(9)?.map(|text| serde_json::from_str(&text).map_err(damaged)).transpose()?;
        return Ok(Work::Page(Page {
            job,
            skip: split_keys(row.get(7)?),
            url,
            site,
            depth,
            attempts,
            uncounted: row.get(10)?,
            last,
            host: None,
        }));
    }
    let Shown { page, opted_out } = shown_by(tx, id)?;
    let page = page.map(|page| parse_url(&page)).transpose()?;
    let inline = row.get::<Option<Vec<u8>>>(8)?.map(Into::into);
    Ok(Work::Image(Image {
        job,
        page: page.unwrap_or_else(|| site.clone()),
        url,
        site,
        attempts,
        inline,
        uncounted: row.get(10)?,
        alternates: vec![],
        version: None,
        host: opted_out.map(|fault| Box::new(HostState { failures: 0, since: 0, given_up: Some(fault) })),
    }))
}

/// Whether there is an answer, and the generation of the one that follows it.
pub(super) fn next_generation(body: Option<String>) -> Result<(bool, u32), TransactionError> {
    #[derive(Deserialize)]
    struct Answered {
        #[serde(default)]
        generation: u32,
    }
    let Some(body) = body else { return Ok((false, 0)) };
    let damaged = |error| TransactionError::Damaged(format!("a detection: {error}"));
    let Answered { generation } = serde_json::from_str(&body).map_err(damaged)?;
    Ok((true, generation + 1))
}

#[cfg(test)]
mod tests;
