//! The audit: everything the books keep counted, counted anew from the rows themselves, and what must be true between rows.
//!
//! A schema can check a row; these are the laws that hold between rows after every fact. Promise: a healthy ledger breaks none,
//! and what breaks one is named.

use faceflow_core::ledger::LedgerError;
use faceflow_core::record::ContentId;
use faceflow_core::tally::{Tally, Violation};
use faceflow_core::transition::State;

use super::Status;
use super::database::{Moment, Row, values};
use super::reader::Reader;
use super::rows::{EntryKind, Trouble, Word};
use super::tallies::Tallies;

/// A law, and how to find what breaks it, of the tenant ?1: a URL, a picture, or both.
struct Law {
    says: &'static str,
    broken: &'static str,
}

const LAWS: [Law; 12] = [
    Law {
        says: "every settled image has a picture, and nothing else has one",
        broken: "SELECT e.url, p.content FROM entries e LEFT JOIN pictures p ON p.id = e.picture
            WHERE e.tenant = ?1 AND (e.picture IS NOT NULL) <> (e.kind = 'image' AND e.state = 'settled')",
    },
    Law {
        says: "a picture counts the URLs that lead to it",
        broken: "SELECT m.url, p.content FROM pictures p LEFT JOIN entries m ON m.id = p.main
            WHERE p.tenant = ?1 AND p.urls <> (SELECT count(*) FROM entries e WHERE e.picture = p.id)",
    },
    Law {
        says: "a picture counts the alternates that stand behind its URLs",
        broken: "SELECT m.url, p.content FROM pictures p LEFT JOIN entries m ON m.id = p.main
            WHERE p.tenant = ?1 AND p.behind <> (SELECT count(*) FROM entries e JOIN entries a ON a.primary_entry = e.id
                WHERE e.picture = p.id AND a.state = 'alternate')",
    },
    Law {
        says: "the main URL of a picture is the smallest that leads to it",
        broken: "SELECT m.url, p.content FROM pictures p LEFT JOIN entries m ON m.id = p.main
            WHERE p.tenant = ?1 AND coalesce(p.main, 0) <>
                coalesce((SELECT e.id FROM entries e WHERE e.picture = p.id ORDER BY e.url LIMIT 1), 0)",
    },
    Law {
        says: "a settled picture has a detection, a dead one has none",
        broken: "SELECT m.url, p.content FROM pictures p LEFT JOIN entries m ON m.id = p.main
            LEFT JOIN detections d ON d.picture = p.id
            WHERE p.tenant = ?1 AND p.state <> 'open' AND (p.state = 'settled') <> (d.picture IS NOT NULL)",
    },
    Law {
        says: "a picture that stands for others is settled",
        broken: "SELECT m.url, p.content FROM pictures p LEFT JOIN entries m ON m.id = p.main
            WHERE p.tenant = ?1 AND p.state <> 'settled'
                AND EXISTS (SELECT 1 FROM pictures d WHERE d.representative = p.id AND d.representative <> d.id)",
    },
    Law {
        says: "an alternate stands behind an image that is open or settled",
        broken: "SELECT a.url, NULL FROM entries a JOIN entries e ON e.id = a.primary_entry
            WHERE a.tenant = ?1 AND a.state = 'alternate' AND (e.kind = 'page' OR e.state NOT IN ('open', 'settled'))",
    },
    Law {
        says: "an alternate is offered by an image",
        broken: "SELECT a.url, NULL FROM entries a WHERE a.tenant = ?1 AND a.state = 'alternate'
            AND NOT EXISTS (SELECT 1 FROM offers o WHERE o.alternate = a.id)",
    },
    Law {
        says: "while an image that failed has an alternate left, one of them is open or settled",
        broken: "SELECT e.url, NULL FROM entries e WHERE e.tenant = ?1 AND e.kind = 'image' AND e.state IN ('rejected', 'dead')
            AND EXISTS (SELECT 1 FROM offers o JOIN entries a ON a.id = o.alternate
                WHERE o.image = e.id AND a.state = 'alternate')
            AND NOT EXISTS (SELECT 1 FROM offers o JOIN entries a ON a.id = o.alternate
                WHERE o.image = e.id AND a.state IN ('open', 'settled'))",
    },
    Law {
        says: "what is open waits in a lane that is given out",
        // QueueId 0 is that of pictures.
        broken: "SELECT e.url, NULL FROM entries e WHERE e.tenant = ?1 AND e.state = 'open' AND e.lane = 0",
    },
    Law {
        says: "what a page leads to waits for an earlier turn of its site, or is taken up",
        broken: "SELECT p.url, NULL FROM early y JOIN entries p ON p.id = y.page
            WHERE p.tenant = ?1 AND NOT EXISTS (SELECT 1 FROM entries t WHERE t.site = y.site AND t.turn < y.turn)",
    },
    Law {
        says: "a site counts the images that it shows",
        broken: "SELECT s.url, NULL FROM sites s
            WHERE s.tenant = ?1 AND s.images <> (SELECT count(*) FROM shown i WHERE i.site = s.id)",
    },
];

/// On a server, what nobody has is given out to nobody.
const HELD: Law = Law {
    says: "what is open is with a run",
    broken: "SELECT e.url, NULL FROM entries e WHERE e.tenant = ?1 AND e.state = 'open' AND e.run IS NULL",
};

/// A page that moved to another site on a shorter way still counts at its first, so only the sum is a law.
const PAGES: &str = "sites together count every page once";
const PAGES_COUNTED: &str = "SELECT (SELECT CAST(coalesce(sum(pages), 0) AS BIGINT) FROM sites WHERE tenant = ?1),
    (SELECT count(*) FROM entries WHERE tenant = ?1 AND kind = 'page')";

const COUNTS: &str = "pages and images are counted by what they are";

impl Reader {
    /// The laws of the books that do not hold, each with at most `keys_max` of what breaks it. It reads everything, so it is
    /// slow for a large ledger.
    pub fn audit(&self, keys_max: usize) -> Result<Vec<Violation>, LedgerError> {
        self.read(|moment| {
            let server = matches!(moment, Moment::Postgres(_));
            let mut broken = Vec::new();
            for law in LAWS.iter().chain(Some(&HELD).filter(|_| server)) {
                let sql = format!("{} LIMIT ?2", law.broken);
                let found = moment.list(&sql, values![self.tenant_id(), keys_max as i64 + 1], key_at)?;
                broken.extend(Violation::of(law.says, found, keys_max));
            }
            let pages = moment
                .one(PAGES_COUNTED, values![self.tenant_id()], |row| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?)))?;
            let pages = pages.filter(|(counted, there)| counted != there);
            let pages = pages.map(|(counted, there)| format!("{counted} counted, {there} there"));
            broken.extend(Violation::of(PAGES, pages.into_iter().collect(), keys_max));
            let (kept, counted) = (Tallies::load(moment, self.tenant_id())?, recount(moment, self.tenant_id())?);
            let differing = [("pages", kept.pages, counted.pages), ("images", kept.images, counted.images)];
            let differing = differing.into_iter().filter(|(_, kept, counted)| kept != counted);
            let differing =
                differing.map(|(kind, kept, counted)| format!("{kind} are kept as {kept}, and there are {counted}"));
            broken.extend(Violation::of(COUNTS, differing.collect(), keys_max));
            Ok(broken)
        })
    }
}

/// A URL, a picture, or a picture with the main URL it has.
fn key_at(row: &Row<'_>) -> Result<String, Trouble> {
    Ok(match (row.get::<Option<String>>(0)?, row.get::<Option<ContentId>>(1)?) {
        (Some(url), Some(picture)) => format!("{picture} ({url})"),
        (Some(url), None) => url,
        (None, picture) => picture.map(|picture| picture.to_string()).unwrap_or_default(),
    })
}

/// Pages and images by status, from their rows.
fn recount(moment: &Moment<'_>, tenant: i64) -> Result<Tallies, Trouble> {
    let sql = "SELECT e.kind, e.state, f.state, p.state, coalesce(p.representative, p.id) = p.id,
            p.main = coalesce(f.id, e.id), count(*)
        FROM entries e LEFT JOIN entries f ON f.id = e.primary_entry AND e.state = 'alternate'
        LEFT JOIN pictures p ON p.id = coalesce(f.picture, e.picture)
        WHERE e.tenant = ?1 GROUP BY 1, 2, 3, 4, 5, 6";
    let rows = moment.list(sql, values![tenant], |row| {
        let state = row.get::<Word>(1)?.0;
        let front = row.get::<Option<Word>>(2)?.map_or(state, |front| front.0);
        let status = match row.get::<Option<Word>>(3)? {
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
