//! Pages that were read before their turn: what they lead to waits until every earlier page of their site has been tried.
//!
//! A page that held up very many others frees them all at once. A transaction takes up a bounded number of them and notes that the
//! site is not finished; the writer goes on in transactions of their own before it answers (`writer.rs`).

use faceflow_core::record::{Discovery, JobId, Key};

use super::database::DbTransaction;
use super::error::TransactionError;
use super::log_record::Discovered;
use super::transaction::{LedgerTransaction, PICTURES};
use super::value::{Row, values};
use super::working_set::Wanted;

/// Pages read ahead of their turn whose bodies are in memory at a time.
const AHEAD_MAX: usize = 32;

impl LedgerTransaction<'_, '_> {
    /// Keeps what a page leads to until its turn.
    pub fn buffer_until_in_sequence(
        &mut self,
        found: &Discovered<'_>,
        turn: (i64, i64),
        page: i64,
    ) -> Result<(), TransactionError> {
        let found = Discovery {
            // Every page and image says whose it is.
            job: JobId::default_of(self.context.tenant_number()),
            visit: None,
            pages: found.pages.to_vec(),
            images: found.images.to_vec(),
            bounds: found.bounds,
            again: found.again.as_deref().cloned(),
            removed: found.removed.to_vec(),
            list: found.list.as_deref().map(str::to_owned),
        };
        let body = serde_json::to_string(&found).map_err(|error| unreadable(page, &error))?;
        self.rows.buffer(turn, page, body.into());
        Ok(())
    }

    /// After pages have given up their places: takes up what those lead to whose turn it is now.
    pub fn resume(&mut self) -> Result<(), TransactionError> {
        while let Some(site) = self.freed.pop() {
            while let Some(sequence) = self.next_turn(site)? {
                if self.resumable == 0 {
                    self.unfinished.push(site);
                    break;
                }
                self.resume_from(site, sequence)?;
            }
        }
        Ok(())
    }

    /// The first page of a site that waits, if its turn has come.
    fn next_turn(&self, site: i64) -> Result<Option<i64>, TransactionError> {
        let Some(waiting) = self.rows.first_buffered(site)? else { return Ok(None) };
        let first = self.rows.first_sequence(site)?;
        Ok(Some(waiting).filter(|waiting| first.is_none_or(|first| *waiting < first)))
    }

    /// Takes up what a few pages lead to, beginning with one whose turn has come.
    fn resume_from(&mut self, site: i64, sequence: i64) -> Result<(), TransactionError> {
        let (mut next, mut found, mut wanted) = (Some(sequence), Vec::new(), Wanted::default());
        while let Some(sequence) = next.filter(|_| self.resumable > 0 && found.len() < AHEAD_MAX) {
            let buffered = self.rows.take_buffered(site, sequence)?;
            let page: Discovery =
                serde_json::from_str(&buffered.body).map_err(|error| unreadable(buffered.page, &error))?;
            let key: Key = self.entry(buffered.page)?.key;
            wanted.add_found(&page, Some(key));
            self.resumable = self.resumable.saturating_sub(weight(&page));
            found.push((buffered.page, page));
            next = self.next_turn(site)?;
        }
        self.rows.prefetch(&wanted)?;
        for (page, found) in found {
            self.take_up(&Discovered::from(&found), Some((page, site)))?;
        }
        Ok(())
    }

    /// The first page that waits at a site: its place, its entry and what it leads to, without these pages and images. It waits no
    /// longer.
    pub fn take_first(
        &mut self,
        site: i64,
        without: &[Key],
    ) -> Result<Option<(i64, i64, Discovery)>, TransactionError> {
        let Some(sequence) = self.rows.first_buffered(site)? else { return Ok(None) };
        let (page, found) = self.take_without((site, sequence), without)?;
        Ok(Some((sequence, page, found)))
    }

    /// Takes up what a page leads to, whose turn has come, without these pages and images.
    pub fn resume_without(&mut self, turn: (i64, i64), without: &[Key]) -> Result<(), TransactionError> {
        let (page, found) = self.take_without(turn, without)?;
        self.take_up(&Discovered::from(&found), Some((page, turn.0)))
    }

    fn take_without(
        &mut self,
        (site, sequence): (i64, i64),
        without: &[Key],
    ) -> Result<(i64, Discovery), TransactionError> {
        let buffered = self.rows.take_buffered(site, sequence)?;
        let mut found: Discovery =
            serde_json::from_str(&buffered.body).map_err(|error| unreadable(buffered.page, &error))?;
        found.pages.retain(|page| !without.contains(&page.key()));
        found.images.retain(|image| !without.contains(&image.key()));
        Ok((buffered.page, found))
    }

    /// A site is no longer wanted: its pages are not looked at again, and lead to nothing.
    pub fn remove_site(&mut self, page: Key) -> Result<(), TransactionError> {
        let Some(url) = self.rows.find_entry(page)?.map(|row| row.url.clone()) else { return Ok(()) };
        let Some(site) = self.rows.find_site(page, &url)? else { return Ok(()) };
        let row = self.rows.change_site(site)?;
        (row.removed, row.list) = (true, None);
        // What ended badly may be under way; claims pass over it.
        self.bulk = true;
        self.rows.flush_and_forget_entries()?;
        let sql = "UPDATE entries SET recrawl_ms = NULL WHERE site = ?1 AND kind = 'page' AND recrawl_ms IS NOT NULL";
        self.tx.run(sql, values![site])
    }

    /// A site is on a list again: its pages are looked at again, now, those that failed too.
    pub fn restore_site(&mut self, site: i64) -> Result<(), TransactionError> {
        if !self.rows.site(site)?.removed {
            return Ok(());
        }
        self.rows.change_site(site)?.removed = false;
        self.bulk = true;
        self.rows.flush_and_forget_entries()?;
        let queues =
            "SELECT job, queue FROM entries WHERE site = ?1 AND kind = 'page' AND state IN ('settled', 'rejected', 'dead')
            UNION SELECT job, queue FROM entries WHERE site = ?1 AND terminal_retry_ms IS NOT NULL";
        self.open(PICTURES, 0, true);
        let queue = |row: &Row<'_>| Ok((row.get::<u32>(0)?, row.get::<i64>(1)? as u64));
        for queue in self.tx.list(queues, values![site], queue)? {
            self.open(queue, 0, true);
        }
        let sql = "UPDATE entries SET recrawl_ms = CASE state WHEN 'settled' THEN 0 END,
            terminal_retry_ms = CASE state WHEN 'settled' THEN NULL ELSE 0 END
            WHERE site = ?1 AND kind = 'page' AND state IN ('settled', 'rejected', 'dead')";
        self.tx.run(sql, values![site])
    }
}

/// Sites of a tenant at which pages wait whose turn has come: a process ended before it had taken them all up.
pub(super) fn unfinished(tx: &DbTransaction<'_>, tenant: i64) -> Result<Vec<i64>, TransactionError> {
    let sql =
        "SELECT w.site FROM (SELECT site, min(sequence) AS sequence FROM reorder_buffer GROUP BY site) w JOIN sites s ON s.id = w.site
        WHERE s.tenant = ?1 AND NOT EXISTS (SELECT 1 FROM entries e WHERE e.site = w.site AND e.sequence < w.sequence)";
    tx.list(sql, values![tenant], |row| row.get(0))
}

/// How much of a transaction the links and images of a page take: about the rows that they touch.
pub(super) fn weight(found: &Discovery) -> usize {
    let alternates: usize = found.images.iter().map(|image| image.alternates.len()).sum();
    1 + found.pages.len() + found.images.len() + alternates
}

fn unreadable(page: i64, error: &serde_json::Error) -> TransactionError {
    TransactionError::Damaged(format!("what page {page} leads to: {error}"))
}
