//! Reading a ledger, also while another process writes it. Every read sees one state between two groups of facts.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use faceflow_core::Time;
use faceflow_core::ledger::{KnownPicture, LedgerError, OpenSite, Tally};
use faceflow_core::record::{ContentId, Frame, Image, Key, Page, Work};
use rusqlite::{Connection, Row, params};

use super::alternates::first_page;
use super::rows::{CONTENT, Trouble, Word, content_at, key_at, parse_url, split_keys};
use super::schema::Place;
use super::tallies::Tallies;
use super::{LedgerSettings, OpenError};

/// Positions of frames in [`Reader::open_work`] begin here, after those of all pages and images.
const FRAMES: u64 = 1 << 62;

/// One tenant's ledger, read only. Clones share it.
#[derive(Clone)]
pub struct Reader(Arc<Shared>);

struct Shared {
    place: Place,
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
    /// Opens the state directory `dir` for reading about `tenant`.
    pub fn open(dir: &Path, tenant: &str, settings: &LedgerSettings) -> Result<Self, OpenError> {
        check_tenant(tenant)?;
        let place = Place::new(dir, settings);
        let connection = place.connect_reader()?;
        let tenants = || -> rusqlite::Result<Vec<(i64, String)>> {
            let mut statement = connection.prepare("SELECT id, name FROM tenants ORDER BY name")?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        let tenants = tenants().map_err(|error| place.refused(&error))?;
        let Some((id, _)) = tenants.iter().find(|(_, name)| name == tenant) else {
            let known = tenants.into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(", ");
            return Err(OpenError::NoTenant { place: place.name(), tenant: tenant.to_owned(), known });
        };
        let (id, tenant) = (*id, tenant.to_owned());
        Ok(Self(Arc::new(Shared { place, tenant, id, idle: Mutex::new(vec![connection]) })))
    }

    /// Whose ledger this is.
    pub fn tenant(&self) -> &str {
        &self.0.tenant
    }

    /// The settings it was opened with.
    pub fn settings(&self) -> &LedgerSettings {
        &self.0.place.settings
    }

    pub(crate) fn tenant_id(&self) -> i64 {
        self.0.id
    }

    /// Reads in one transaction: everything that `work` sees is of one moment.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Trouble>) -> Result<T, LedgerError> {
        let idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let place = &self.0.place;
        let storage = |error: OpenError| LedgerError::Storage { place: place.name(), reason: error.to_string() };
        let connection = idle.map_or_else(|| place.connect_reader(), Ok).map_err(storage)?;
        let moment = connection.unchecked_transaction().map_err(|error| Trouble::from(error).at(place))?;
        let read = work(&moment).map_err(|trouble| trouble.at(place));
        moment.finish().map_err(|error| Trouble::from(error).at(place))?;
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        read
    }

    /// Checks the file's structure; slow for a large one. For `faceflow doctor`.
    pub fn check(&self) -> Result<(), LedgerError> {
        self.read(|connection| {
            let said: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if said == "ok" { Ok(()) } else { Err(Trouble::Damaged(said)) }
        })
    }

    /// Calls `each` with the key and depth of every known page.
    pub fn known_pages(&self, each: &mut dyn FnMut(Key, u32)) -> Result<(), LedgerError> {
        let sql = "SELECT key, depth FROM entries WHERE tenant = ?1 AND kind = 'page'";
        self.for_each(sql, |row| {
            each(key_at(row, 0)?, row.get(1)?);
            Ok(())
        })
    }

    /// Calls `each` with the key of every known image that is more than an alternate.
    pub fn known_images(&self, each: &mut dyn FnMut(Key)) -> Result<(), LedgerError> {
        let sql = "SELECT key FROM entries NOT INDEXED WHERE tenant = ?1 AND kind = 'image' AND state <> 'alternate'";
        self.for_each(sql, |row| {
            each(key_at(row, 0)?);
            Ok(())
        })
    }

    /// Calls `each` with every known picture.
    pub fn known_pictures(&self, each: &mut dyn FnMut(KnownPicture)) -> Result<(), LedgerError> {
        let sql = format!(
            "SELECT {CONTENT}, p.state, p.state = 'open' AND p.due_ms IS NOT NULL,
                CASE p.representative WHEN p.id THEN p.content ELSE r.content END
            FROM pictures p NOT INDEXED LEFT JOIN pictures r ON r.id = p.representative AND r.id <> p.id WHERE p.tenant = ?1"
        );
        self.for_each(&sql, |row| {
            each(KnownPicture {
                content: content_at(row, 0)?,
                state: row.get::<_, Word>(7)?.0,
                retrying: row.get(8)?,
                representative: row.get::<_, Option<[u8; 32]>>(9)?.map(ContentId),
            });
            Ok(())
        })
    }

    /// Calls `each` with every site that has open pages.
    pub fn open_sites(&self, each: &mut dyn FnMut(OpenSite)) -> Result<(), LedgerError> {
        let sql = "SELECT id, url, pages FROM sites WHERE id IN (
            SELECT site FROM entries INDEXED BY entries_open WHERE tenant = ?1 AND state = 'open' AND kind = 'page')";
        let mut open: HashMap<i64, OpenSite> = HashMap::new();
        self.for_each(sql, |row| {
            let (site, pages) = (parse_url(&row.get::<_, String>(1)?)?, row.get::<_, i64>(2)? as u64);
            open.insert(row.get(0)?, OpenSite { site, pages, images: vec![], turns: vec![] });
            Ok(())
        })?;
        let sql = "SELECT site, key FROM entries INDEXED BY entries_open WHERE tenant = ?1 AND state = 'open'
            AND kind = 'page' AND attempts = 0 ORDER BY id";
        self.for_each(sql, |row| {
            if let Some(site) = open.get_mut(&row.get(0)?) {
                site.turns.push(key_at(row, 1)?);
            }
            Ok(())
        })?;
        for (id, mut site) in open {
            site.images = self.read(|connection| {
                let sql = "SELECT e.key FROM shown s JOIN entries e ON e.id = s.image WHERE s.site = ?1";
                let mut statement = connection.prepare_cached(sql)?;
                let keys = statement.query_map([id], |row| key_at(row, 0))?;
                Ok(keys.collect::<Result<_, _>>()?)
            })?;
            each(site);
        }
        Ok(())
    }

    /// Pages and images by status: `(pages, images)`.
    pub fn tally(&self) -> Result<(Tally, Tally), LedgerError> {
        let tallies = self.read(|connection| Ok(Tallies::load(connection, self.tenant_id())?))?;
        Ok((tallies.pages, tallies.images))
    }

    /// How many faces were found in the pictures that stand for themselves.
    pub fn face_count(&self) -> Result<u64, LedgerError> {
        let sql = "SELECT coalesce(sum(d.faces), 0) FROM detections d JOIN pictures p ON p.id = d.picture
            WHERE p.tenant = ?1 AND coalesce(p.representative, p.id) = p.id";
        let mut faces = 0;
        self.for_each(sql, |row| {
            faces = row.get::<_, i64>(0)? as u64;
            Ok(())
        })?;
        Ok(faces)
    }

    /// The positions of all open work, ascending, each with the depth it has if it is a page.
    pub(super) fn open_positions(&self) -> Result<Vec<(u64, u32)>, LedgerError> {
        let mut positions = Vec::new();
        let queries = [
            (
                "SELECT id, coalesce(depth, 0) FROM entries INDEXED BY entries_open
                WHERE tenant = ?1 AND state = 'open' ORDER BY id",
                0,
            ),
            (
                "SELECT id, 0 FROM pictures WHERE tenant = ?1 AND state = 'open' AND due_ms IS NOT NULL ORDER BY id",
                FRAMES,
            ),
        ];
        for (sql, first) in queries {
            self.for_each(sql, |row| {
                positions.push((first + row.get::<_, i64>(0)? as u64, row.get(1)?));
                Ok(())
            })?;
        }
        Ok(positions)
    }

    /// Up to `max` open entries after the position `after`; see [`Ledger::open_work`](faceflow_core::ledger::Ledger::open_work).
    pub fn open_work(&self, after: u64, max: usize) -> Result<Vec<(u64, Time, Work)>, LedgerError> {
        self.read(|connection| {
            let mut work = if after < FRAMES { self.open_entries(connection, after, max)? } else { Vec::new() };
            let left = max - work.len();
            work.extend(self.open_frames(connection, after.saturating_sub(FRAMES), left)?);
            Ok(work)
        })
    }

    fn open_entries(&self, connection: &Connection, after: u64, max: usize) -> Result<Vec<(u64, Time, Work)>, Trouble> {
        let sql = "SELECT e.id, e.due_ms, e.url, s.url, e.attempts, e.depth, e.skip, e.inline
            FROM entries e INDEXED BY entries_open JOIN sites s ON s.id = e.site
            WHERE e.tenant = ?1 AND e.state = 'open' AND e.id > ?2 ORDER BY e.id LIMIT ?3";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![self.tenant_id(), after as i64, max as i64])?;
        let mut work = Vec::new();
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let due = row.get::<_, Option<i64>>(1)?.unwrap_or(0) as Time;
            work.push((id as u64, due, entry_work(connection, row)?));
        }
        Ok(work)
    }

    fn open_frames(&self, connection: &Connection, after: u64, max: usize) -> Result<Vec<(u64, Time, Work)>, Trouble> {
        let sql = format!(
            "SELECT {CONTENT}, p.id, p.due_ms, p.attempts FROM pictures p INDEXED BY pictures_waiting
            WHERE p.tenant = ?1 AND p.state = 'open' AND p.due_ms IS NOT NULL AND p.id > ?2 ORDER BY p.id LIMIT ?3"
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![self.tenant_id(), after as i64, max as i64])?;
        let mut work = Vec::new();
        while let Some(row) = rows.next()? {
            let content = content_at(row, 0)?;
            let (id, due): (i64, i64) = (row.get(7)?, row.get(8)?);
            // Its pixels are gone, so any worker is as good a home as the other.
            let home = content.id.route() as usize;
            let frame = Frame { content, home, ticket: None, attempts: row.get(9)? };
            work.push((FRAMES + id as u64, due as Time, Work::Frame(frame)));
        }
        Ok(work)
    }

    fn for_each(&self, sql: &str, mut each: impl FnMut(&Row<'_>) -> Result<(), Trouble>) -> Result<(), LedgerError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query([self.tenant_id()])?;
            while let Some(row) = rows.next()? {
                each(row)?;
            }
            Ok(())
        })
    }
}

/// The page or image whose columns these are: id, due, URL, site, attempts, depth, skip, inline.
fn entry_work(connection: &Connection, row: &Row<'_>) -> Result<Work, Trouble> {
    let id: i64 = row.get(0)?;
    let url = parse_url(&row.get::<_, String>(2)?)?;
    let site = parse_url(&row.get::<_, String>(3)?)?;
    let attempts = row.get(4)?;
    if let Some(depth) = row.get(5)? {
        return Ok(Work::Page(Page { url, site, depth, attempts, skip: split_keys(row.get(6)?) }));
    }
    let page = first_page(connection, id)?.map(|page| parse_url(&page)).transpose()?;
    let inline = row.get::<_, Option<Vec<u8>>>(7)?.map(Into::into);
    let sql = "SELECT url FROM entries WHERE primary_entry = ?1 AND state = 'alternate' ORDER BY rank, url";
    let mut statement = connection.prepare_cached(sql)?;
    let alternates = statement.query_map([id], |row| row.get::<_, String>(0))?;
    let alternates: Result<_, Trouble> = alternates.map(|url| parse_url(&url?)).collect();
    Ok(Work::Image(Image {
        page: page.unwrap_or_else(|| site.clone()),
        url,
        site,
        attempts,
        inline,
        alternates: alternates?,
    }))
}
