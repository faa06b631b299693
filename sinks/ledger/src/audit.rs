//! The audit: everything that the ledger keeps counted, counted anew from the rows themselves, and what must be true between rows.
//!
//! A schema can check a row; these are the invariants that hold between rows after every fact. Each is checked in a transaction of
//! its own, so that an audit of a large ledger holds up nobody for longer than one of them takes. Promise: a healthy ledger violates
//! none, and what violates one is named.

use faceflow_core::ledger::LedgerError;
use faceflow_core::record::ContentId;
use faceflow_core::tally::{Tally, Violation};
use faceflow_core::transition::State;

use super::Status;
use super::column_codecs::{EntryKind, StateText, TransactionError};
use super::database::{DbTransaction, Row, values};
use super::reader::Reader;
use super::references;
use super::tallies::Tallies;

/// An invariant, and how to find what violates it, of the tenant ?1: a URL, a picture, or both.
struct Invariant {
    says: &'static str,
    violations: &'static str,
}

const INVARIANTS: [Invariant; 13] = [
    Invariant {
        says: "every settled image has a picture, and nothing else has one",
        violations: "SELECT e.url, p.content FROM entries e LEFT JOIN pictures p ON p.id = e.picture
            WHERE e.tenant = ?1 AND (e.picture IS NOT NULL) <> (e.kind = 'image' AND e.state = 'settled')",
    },
    Invariant {
        says: "a picture counts the URLs that lead to it",
        violations: "SELECT m.url, p.content FROM pictures p LEFT JOIN entries m ON m.id = p.main
            WHERE p.tenant = ?1 AND p.urls <> (SELECT count(*) FROM entries e WHERE e.picture = p.id)",
    },
    Invariant {
        says: "a picture counts the alternates that stand behind its URLs",
        violations: "SELECT m.url, p.content FROM pictures p LEFT JOIN entries m ON m.id = p.main
            WHERE p.tenant = ?1 AND p.behind <> (SELECT count(*) FROM entries e JOIN entries a ON a.primary_entry = e.id
                WHERE e.picture = p.id AND a.state = 'alternate')",
    },
    Invariant {
        says: "the main URL of a picture is the smallest that leads to it",
        violations: "SELECT m.url, p.content FROM pictures p LEFT JOIN entries m ON m.id = p.main
            WHERE p.tenant = ?1 AND coalesce(p.main, 0) <>
                coalesce((SELECT e.id FROM entries e WHERE e.picture = p.id ORDER BY e.url LIMIT 1), 0)",
    },
    Invariant {
        says: "a settled picture has a detection, a dead one has none",
        violations: "SELECT m.url, p.content FROM pictures p LEFT JOIN entries m ON m.id = p.main
            LEFT JOIN detections d ON d.picture = p.id
            WHERE p.tenant = ?1 AND p.state <> 'open' AND (p.state = 'settled') <> (d.picture IS NOT NULL)",
    },
    Invariant {
        says: "a picture that stands for others is settled",
        violations: "SELECT m.url, p.content FROM pictures p LEFT JOIN entries m ON m.id = p.main
            WHERE p.tenant = ?1 AND p.state <> 'settled'
                AND EXISTS (SELECT 1 FROM pictures d WHERE d.representative = p.id AND d.representative <> d.id)",
    },
    Invariant {
        says: "an alternate stands behind an image that is open or settled",
        violations: "SELECT a.url, NULL FROM entries a JOIN entries e ON e.id = a.primary_entry
            WHERE a.tenant = ?1 AND a.state = 'alternate' AND (e.kind = 'page' OR e.state NOT IN ('open', 'settled'))",
    },
    Invariant {
        says: "an alternate is offered by an image",
        violations: "SELECT a.url, NULL FROM entries a WHERE a.tenant = ?1 AND a.state = 'alternate'
            AND NOT EXISTS (SELECT 1 FROM offers o WHERE o.alternate = a.id)",
    },
    Invariant {
        says: "while an image that failed has an alternate left, one of them is open or settled",
        violations: "SELECT e.url, NULL FROM entries e WHERE e.tenant = ?1 AND e.kind = 'image' AND e.state IN ('rejected', 'dead')
            AND EXISTS (SELECT 1 FROM offers o JOIN entries a ON a.id = o.alternate
                WHERE o.image = e.id AND a.state = 'alternate')
            AND NOT EXISTS (SELECT 1 FROM offers o JOIN entries a ON a.id = o.alternate
                WHERE o.image = e.id AND a.state IN ('open', 'settled'))",
    },
    Invariant {
        says: "what is open waits in a queue that is dispatched",
        // QueueId 0 is that of pictures.
        violations: "SELECT e.url, NULL FROM entries e WHERE e.tenant = ?1 AND e.state = 'open' AND e.queue = 0",
    },
    Invariant {
        says: "what a page leads to waits for an earlier turn of its site, or is taken up",
        violations: "SELECT p.url, NULL FROM reorder_buffer y JOIN entries p ON p.id = y.page
            WHERE p.tenant = ?1 AND NOT EXISTS (SELECT 1 FROM entries t WHERE t.site = y.site AND t.sequence < y.sequence)",
    },
    Invariant {
        says: "a site counts the images that it shows",
        violations: "SELECT s.url, NULL FROM sites s
            WHERE s.tenant = ?1 AND s.images <> (SELECT count(*) FROM site_images i WHERE i.site = s.id)",
    },
    Invariant {
        says: "a host that fails is asked for a job that there is",
        violations: "SELECT 'job ' || h.job || ', queue ' || h.queue, NULL FROM hosts h WHERE h.tenant = ?1
            AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.tenant = h.tenant AND j.number = h.job)",
    },
];

/// On a server, what nobody has is given out to nobody.
const HELD: Invariant = Invariant {
    says: "what is open is with a run",
    violations: "SELECT e.url, NULL FROM entries e WHERE e.tenant = ?1 AND e.state = 'open' AND e.run IS NULL",
};

/// A page that moved to another site on a shorter way still counts at its first, so only the sum is an invariant.
const PAGES: &str = "sites together count every page once";
const PAGES_COUNTED: &str = "SELECT (SELECT CAST(coalesce(sum(pages), 0) AS BIGINT) FROM sites WHERE tenant = ?1),
    (SELECT count(*) FROM entries WHERE tenant = ?1 AND kind = 'page')";

const COUNTS: &str = "pages and images are counted by what they are";

impl Reader {
    /// The invariants that do not hold, each with at most `keys_max` of what violates it. It reads everything, so it is slow for a
    /// large ledger.
    pub fn audit(&self, keys_max: usize) -> Result<Vec<Violation>, LedgerError> {
        let server = self.read(|tx| Ok(matches!(tx, DbTransaction::Postgres(_))))?;
        let mut violated = Vec::new();
        for invariant in INVARIANTS.iter().chain(Some(&HELD).filter(|_| server)) {
            let sql = format!("{} LIMIT ?2", invariant.violations);
            let values = values![self.tenant_id(), keys_max as i64 + 1];
            let found = self.read(|tx| tx.list(&sql, values, key_at))?;
            violated.extend(Violation::of(invariant.says, found, keys_max));
        }
        violated.extend(self.read(|tx| references::dangling(tx, keys_max))?);
        let pages = self.read(|tx| pages(tx, self.tenant_id()))?;
        violated.extend(Violation::of(PAGES, pages.into_iter().collect(), keys_max));
        let counts = self.read(|tx| counts(tx, self.tenant_id()))?;
        violated.extend(Violation::of(COUNTS, counts, keys_max));
        Ok(violated)
    }
}

/// How the sum over sites differs from the pages there are.
fn pages(tx: &DbTransaction<'_>, tenant: i64) -> Result<Option<String>, TransactionError> {
    let read = |row: &Row<'_>| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?));
    let differing = tx.one(PAGES_COUNTED, values![tenant], read)?.filter(|(counted, there)| counted != there);
    Ok(differing.map(|(counted, there)| format!("{counted} counted, {there} there")))
}

/// How what is kept as counted differs from the rows.
fn counts(tx: &DbTransaction<'_>, tenant: i64) -> Result<Vec<String>, TransactionError> {
    let (kept, counted) = (Tallies::load(tx, tenant)?, recount(tx, tenant, None)?);
    let both = [("pages", kept.pages, counted.pages), ("images", kept.images, counted.images)];
    let differing = both.into_iter().filter(|(_, kept, counted)| kept != counted);
    Ok(differing.map(|(kind, kept, counted)| format!("{kind} are kept as {kept}, and there are {counted}")).collect())
}

/// A URL, a picture, or a picture with the main URL it has.
fn key_at(row: &Row<'_>) -> Result<String, TransactionError> {
    Ok(match (row.get::<Option<String>>(0)?, row.get::<Option<ContentId>>(1)?) {
        (Some(url), Some(picture)) => format!("{picture} ({url})"),
        (Some(url), None) => url,
        (None, picture) => picture.map(|picture| picture.to_string()).unwrap_or_default(),
    })
}

/// Pages and images by status, from their rows; of a job, or of all.
pub(super) fn recount(tx: &DbTransaction<'_>, tenant: i64, job: Option<u32>) -> Result<Tallies, TransactionError> {
    // The condition on the number is that of the index.
    let of_job = match job {
        None => "",
        Some(0) => "AND e.job = 0",
        Some(_) => "AND e.job > 0 AND e.job = ?2",
    };
    let sql = format!(
        "SELECT e.kind, e.state, f.state, p.state, coalesce(p.representative, p.id) = p.id,
            p.main = coalesce(f.id, e.id), count(*)
        FROM entries e LEFT JOIN entries f ON f.id = e.primary_entry AND e.state = 'alternate'
        LEFT JOIN pictures p ON p.id = coalesce(f.picture, e.picture)
        WHERE e.tenant = ?1 {of_job} GROUP BY 1, 2, 3, 4, 5, 6"
    );
    let both = values![tenant, job];
    let values = if of_job.contains("?2") { &both[..] } else { &both[..1] };
    let rows = tx.list(&sql, values, |row| {
        let state = row.get::<StateText>(1)?.0;
        let front = row.get::<Option<StateText>>(2)?.map_or(state, |front| front.0);
        let status = match row.get::<Option<StateText>>(3)? {
            Some(picture) => Status::of_picture(picture.0, row.get(4)?, row.get::<Option<bool>>(5)? == Some(true)),
            None => Status::of_entry(front),
        };
        let status = if state == State::Alternate { Status::of_alternate(status) } else { status };
        Ok((row.get::<EntryKind>(0)?, status, row.get::<i64>(6)?))
    })?;
    let mut tallies = Tallies::default();
    for (kind, status, count) in rows {
        let tally: &mut Tally = match kind {
            EntryKind::Page => &mut tallies.pages,
            EntryKind::Image => &mut tallies.images,
        };
        tally.discovered += count as u64;
        tallies.count(kind, status, count);
    }
    Ok(tallies)
}
