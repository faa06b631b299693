//! What a process that begins or goes on has to know of earlier ones: pictures, queues with something in them, watched sites,
//! and whose turn it is to look again at what is settled.

use std::collections::HashSet;

use faceflow_core::Time;
use faceflow_core::ledger::{KnownPicture, LedgerError, QueueUpdate};
use faceflow_core::record::{JobId, Key, QueueId};

use super::column_codecs::{StateText, TransactionError, content_at, content_columns, parse_url};
use super::database::{Row, values};
use super::due_work::{next_generation, owned_by_sql};
use super::postgres::lease::{lives, who_looks_again};
use super::reader::Reader;
use super::sql::Sql;

/// All are read, in the order of the table.
const PICTURES: Sql = Sql::hinted("pictures p NOT INDEXED", "pictures p");

impl Reader {
    /// The sites that a watched list named when it was read last, by the keys of their pages.
    pub fn listed(&self, list: &str) -> Result<HashSet<Key>, LedgerError> {
        let mut sites = HashSet::new();
        self.read(|tx| {
            let sql = "SELECT url FROM sites WHERE tenant = ?1 AND list = ?2 AND NOT removed";
            tx.each(sql, values![self.tenant_id(), list], |row| {
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
        let ours = owned_by_sql("p", ours);
        self.read(|tx| {
            let (from, content) = (PICTURES.of(tx), content_columns(tx));
            let sql = format!(
                "SELECT {content}, p.state, p.state = 'open' AND p.due_ms IS NOT NULL,
                CASE p.representative WHEN p.id THEN p.content ELSE r.content END,
                CASE WHEN p.state = 'open' THEN (SELECT d.body FROM detections d WHERE d.picture = p.id) END
            FROM {from} LEFT JOIN pictures r ON r.id = p.representative AND r.id <> p.id
            WHERE p.tenant = ?1 AND (p.state <> 'open' OR {ours}) ORDER BY p.id"
            );
            tx.each(&sql, values![self.tenant_id()], |row| {
                let (answered, generation) = next_generation(row.get(9)?)?;
                each(KnownPicture {
                    content: content_at(row, 0)?,
                    state: row.get::<StateText>(6)?.0,
                    retrying: row.get(7)?,
                    representative: row.get(8)?,
                    has_degraded: answered,
                    generation,
                });
                Ok(())
            })
        })
    }

    /// Calls `each` with every queue of a job that has open work, and if `again`, with those of settled pages to be looked at again;
    /// and with the queue of the tenant's pictures.
    pub fn queues(&self, number: u32, again: bool, each: &mut dyn FnMut(QueueUpdate)) -> Result<(), LedgerError> {
        let job = JobId { tenant: self.tenant_number(), number };
        let open = ("state = 'open'", "CAST(0 AS BIGINT)");
        let of = "FROM entries WHERE tenant = ?1 AND job = ?2";
        let later = format!("(SELECT min(recrawl_ms) {of} AND recrawl_ms IS NOT NULL AND queue = l.queue)");
        let revived =
            format!("(SELECT min(terminal_retry_ms) {of} AND terminal_retry_ms IS NOT NULL AND queue = l.queue)");
        let looks_again = [("recrawl_ms IS NOT NULL", &later[..]), ("terminal_retry_ms IS NOT NULL", &revived)];
        for (waiting, due) in std::iter::once(open).chain(looks_again.into_iter().filter(|_| again)) {
            // One look into the index for each queue, however much waits in it.
            let sql = format!(
                "WITH RECURSIVE l (queue) AS (
                    SELECT min(queue) {of} AND {waiting}
                    UNION ALL
                    SELECT (SELECT min(queue) {of} AND {waiting} AND queue > l.queue) FROM l
                    WHERE l.queue IS NOT NULL
                ) SELECT queue, {due} FROM l WHERE queue IS NOT NULL"
            );
            let again = waiting != open.0;
            let mut queue = |row: &Row<'_>| {
                let due = row.get::<Option<i64>>(1)?.unwrap_or(0) as Time;
                each(QueueUpdate { queue: QueueId { job, host: row.get::<i64>(0)? as u64 }, due, again });
                Ok(())
            };
            self.read(|tx| tx.each(&sql, values![self.tenant_id(), number], &mut queue))?;
        }
        let pictures = QueueId::detection(job.tenant);
        self.for_each("SELECT 1 FROM pictures WHERE tenant = ?1 AND due_ms IS NOT NULL LIMIT 1", |_| {
            each(QueueUpdate { queue: pictures, due: 0, again: false });
            Ok(())
        })?;
        let sql = "SELECT min(terminal_retry_ms) FROM pictures
            WHERE tenant = ?1 AND terminal_retry_ms IS NOT NULL AND (representative IS NULL OR representative = id)";
        if !again {
            return Ok(());
        }
        self.for_each(sql, |row| {
            if let Some(due) = row.get::<Option<i64>>(0)? {
                each(QueueUpdate { queue: pictures, due: due as Time, again: true });
            }
            Ok(())
        })
    }

    /// Whether `run` is the one that looks again at what is settled. One that is over is told so.
    pub fn looks_again(&self, run: i64) -> Result<bool, LedgerError> {
        self.read(|tx| {
            if !lives(tx, run)? {
                let why = format!("run {run} lost its lease: its work may be with another run");
                return Err(TransactionError::Lost(format!("{why}; run the same command again")));
            }
            Ok(who_looks_again(tx, self.tenant_id())?.is_none_or(|eldest| eldest == run))
        })
    }
}
