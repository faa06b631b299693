//! Reading a ledger, also while another process writes it. Every read sees one state between two groups of facts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use faceflow_core::Time;
use faceflow_core::ledger::{KnownPicture, LedgerError, OpenSite, Tally};
use faceflow_core::record::{Frame, Image, Key, Page, Work};

use super::alternates::first_page;
use super::database::{Connection, Moment, Row, values};
use super::place::{Backend, Place};
use super::rows::{CONTENT, Trouble, Word, content_at, parse_url, split_keys};
use super::tallies::Tallies;
use super::{LedgerSettings, OpenError};

/// Positions of frames in [`Reader::open_work`] begin here, after those of all pages and images.
pub(super) const FRAMES: u64 = 1 << 62;

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
    pub fn open(place: impl Into<Place>, tenant: &str, settings: &LedgerSettings) -> Result<Self, OpenError> {
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

    /// Calls `each` with the key and depth of every known page.
    pub fn known_pages(&self, each: &mut dyn FnMut(Key, u32)) -> Result<(), LedgerError> {
        let sql = "SELECT key, depth FROM entries WHERE tenant = ?1 AND kind = 'page'";
        self.for_each(sql, |row| {
            each(row.get(0)?, row.get(1)?);
            Ok(())
        })
    }

    /// Calls `each` with the key of every known image that is more than an alternate.
    pub fn known_images(&self, each: &mut dyn FnMut(Key)) -> Result<(), LedgerError> {
        let sql = "SELECT key FROM entries NOT INDEXED WHERE tenant = ?1 AND kind = 'image' AND state <> 'alternate'";
        self.for_each(sql, |row| {
            each(row.get(0)?);
            Ok(())
        })
    }

    /// Calls `each` with every known picture.
    pub fn known_pictures(&self, each: &mut dyn FnMut(KnownPicture)) -> Result<(), LedgerError> {
        self.pictures_for(None, each)
    }

    /// The same for a run, if one is given: without open pictures that others have.
    pub(super) fn pictures_for(&self, run: Option<i64>, each: &mut dyn FnMut(KnownPicture)) -> Result<(), LedgerError> {
        let open = run.map(|run| format!(" AND (p.state <> 'open' OR p.run = {run})")).unwrap_or_default();
        let sql = format!(
            "SELECT {CONTENT}, p.state, p.state = 'open' AND p.due_ms IS NOT NULL,
                CASE p.representative WHEN p.id THEN p.content ELSE r.content END
            FROM pictures p NOT INDEXED LEFT JOIN pictures r ON r.id = p.representative AND r.id <> p.id
            WHERE p.tenant = ?1{open} ORDER BY p.id"
        );
        self.for_each(&sql, |row| {
            each(KnownPicture {
                content: content_at(row, 0)?,
                state: row.get::<Word>(7)?.0,
                retrying: row.get(8)?,
                representative: row.get(9)?,
            });
            Ok(())
        })
    }

    /// Calls `each` with every site that has open pages.
    pub fn open_sites(&self, each: &mut dyn FnMut(OpenSite)) -> Result<(), LedgerError> {
        self.sites_for(None, each)
    }

    /// The same for a run, if one is given: with the pages that it has.
    pub(super) fn sites_for(&self, run: Option<i64>, each: &mut dyn FnMut(OpenSite)) -> Result<(), LedgerError> {
        let having = having("e", run);
        let sql = format!(
            "SELECT id, url, pages FROM sites WHERE id IN (SELECT e.site FROM entries e INDEXED BY entries_open
            WHERE e.tenant = ?1 AND e.state = 'open' AND e.kind = 'page'{having})"
        );
        let mut open: HashMap<i64, OpenSite> = HashMap::new();
        self.for_each(&sql, |row| {
            let (site, pages) = (parse_url(&row.get::<String>(1)?)?, row.get::<i64>(2)? as u64);
            open.insert(row.get(0)?, OpenSite { site, pages, images: vec![], turns: vec![] });
            Ok(())
        })?;
        let sql = format!(
            "SELECT e.site, e.key FROM entries e INDEXED BY entries_open WHERE e.tenant = ?1 AND e.state = 'open'
            AND e.kind = 'page' AND e.attempts = 0{having} ORDER BY e.id"
        );
        self.for_each(&sql, |row| {
            if let Some(site) = open.get_mut(&row.get(0)?) {
                site.turns.push(row.get(1)?);
            }
            Ok(())
        })?;
        for (id, mut site) in open {
            let sql = "SELECT e.key FROM shown s JOIN entries e ON e.id = s.image WHERE s.site = ?1";
            self.read(|moment| {
                moment.each(sql, values![id], |row| {
                    site.images.push(row.get(0)?);
                    Ok(())
                })
            })?;
            each(site);
        }
        Ok(())
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
                positions.push((first + row.get::<i64>(0)? as u64, row.get(1)?));
                Ok(())
            })?;
        }
        Ok(positions)
    }

    /// Up to `max` open entries after the position `after`; see [`Ledger::open_work`](faceflow_core::ledger::Ledger::open_work).
    pub fn open_work(&self, after: u64, max: usize) -> Result<Vec<(u64, Time, Work)>, LedgerError> {
        self.work_for(None, after, max)
    }

    /// The same for a run, if one is given: only what it has.
    pub(super) fn work_for(
        &self,
        run: Option<i64>,
        after: u64,
        max: usize,
    ) -> Result<Vec<(u64, Time, Work)>, LedgerError> {
        self.read(|moment| {
            let mut work = if after < FRAMES { self.open_entries(moment, run, (after, max))? } else { Vec::new() };
            let left = max - work.len();
            work.extend(self.open_frames(moment, run, (after.saturating_sub(FRAMES), left))?);
            Ok(work)
        })
    }

    fn open_entries(
        &self,
        moment: &Moment<'_>,
        run: Option<i64>,
        (after, max): (u64, usize),
    ) -> Result<Vec<(u64, Time, Work)>, Trouble> {
        let sql = format!(
            "SELECT e.id, e.due_ms, e.url, s.url, e.attempts, e.depth, e.skip, e.inline
            FROM entries e INDEXED BY entries_open JOIN sites s ON s.id = e.site
            WHERE e.tenant = ?1 AND e.state = 'open' AND e.id > ?2{} ORDER BY e.id LIMIT ?3",
            having("e", run)
        );
        moment.list(&sql, values![self.tenant_id(), after as i64, max as i64], |row| {
            let due = row.get::<Option<i64>>(1)?.unwrap_or(0) as Time;
            Ok((row.get::<i64>(0)? as u64, due, entry_work(moment, row)?))
        })
    }

    fn open_frames(
        &self,
        moment: &Moment<'_>,
        run: Option<i64>,
        (after, max): (u64, usize),
    ) -> Result<Vec<(u64, Time, Work)>, Trouble> {
        let sql = format!(
            "SELECT {CONTENT}, p.id, p.due_ms, p.attempts FROM pictures p INDEXED BY pictures_waiting
            WHERE p.tenant = ?1 AND p.state = 'open' AND p.due_ms IS NOT NULL AND p.id > ?2{} ORDER BY p.id LIMIT ?3",
            having("p", run)
        );
        moment.list(&sql, values![self.tenant_id(), after as i64, max as i64], |row| {
            let content = content_at(row, 0)?;
            let (id, due): (i64, i64) = (row.get(7)?, row.get(8)?);
            // Its pixels are gone, so any worker is as good a home as the other.
            let home = content.id.route() as usize;
            let frame = Frame { content, home, ticket: None, attempts: row.get(9)? };
            Ok((FRAMES + id as u64, due as Time, Work::Frame(frame)))
        })
    }

    fn for_each(&self, sql: &str, mut each: impl FnMut(&Row<'_>) -> Result<(), Trouble>) -> Result<(), LedgerError> {
        self.read(|moment| moment.each(sql, values![self.tenant_id()], &mut each))
    }
}

/// A condition, with its `AND`, that is true of what a run has.
fn having(alias: &str, run: Option<i64>) -> String {
    run.map(|run| format!(" AND {alias}.run = {run}")).unwrap_or_default()
}

/// The page or image whose columns these are: id, due, URL, site, attempts, depth, skip, inline.
fn entry_work(moment: &Moment<'_>, row: &Row<'_>) -> Result<Work, Trouble> {
    let id: i64 = row.get(0)?;
    let url = parse_url(&row.get::<String>(2)?)?;
    let site = parse_url(&row.get::<String>(3)?)?;
    let attempts = row.get(4)?;
    if let Some(depth) = row.get(5)? {
        return Ok(Work::Page(Page { url, site, depth, attempts, skip: split_keys(row.get(6)?) }));
    }
    let page = first_page(moment, id)?.map(|page| parse_url(&page)).transpose()?;
    let inline = row.get::<Option<Vec<u8>>>(7)?.map(Into::into);
    let sql = "SELECT url FROM entries WHERE primary_entry = ?1 AND state = 'alternate' ORDER BY rank, url";
    let alternates = moment.list(sql, values![id], |row| parse_url(&row.get::<String>(0)?))?;
    Ok(Work::Image(Image { page: page.unwrap_or_else(|| site.clone()), url, site, attempts, inline, alternates }))
}
