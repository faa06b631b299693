//! Reading a ledger, also while another process writes it. Every read sees one state between two groups of facts.

use std::sync::{Arc, Mutex, PoisonError};

use faceflow_core::ledger::LedgerError;
use faceflow_core::record::TenantNumber;
use faceflow_core::tally::Tally;
use url::Url;

use super::column_codecs::TransactionError;
use super::database::{Connection, DbTransaction, Row, values};
use super::location::{Backend, StateLocation};
use super::sql::Sql;
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
    #[cfg(any(test, feature = "testing"))]
    reads: std::sync::atomic::AtomicU64,
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
            .read(|tx| tx.list(sql, &[], |row| Ok((row.get::<i64>(0)?, row.get::<String>(1)?))))
            .map_err(|error| backend.refused(&error))?;
        let Some((id, _)) = tenants.iter().find(|(_, name)| name == tenant) else {
            let known = tenants.into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(", ");
            return Err(OpenError::NoTenant { place: backend.name(), tenant: tenant.to_owned(), known });
        };
        let (id, tenant) = (*id, tenant.to_owned());
        let idle = Mutex::new(vec![connection]);
        Ok(Self(Arc::new(Shared {
            backend,
            tenant,
            id,
            idle,
            #[cfg(any(test, feature = "testing"))]
            reads: 0.into(),
        })))
    }

    /// Whose ledger this is.
    pub fn tenant(&self) -> &str {
        &self.0.tenant
    }

    /// The settings it was opened with.
    pub fn settings(&self) -> &LedgerSettings {
        self.0.backend.settings()
    }

    /// How many transactions have read.
    #[cfg(any(test, feature = "testing"))]
    pub fn reads(&self) -> u64 {
        self.0.reads.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// The number of the tenant, as its rows carry it.
    pub fn tenant_id(&self) -> i64 {
        self.0.id
    }

    /// The number of the tenant, as records carry it.
    pub fn tenant_number(&self) -> TenantNumber {
        TenantNumber(self.0.id as u32)
    }

    /// How many of these sites, from the first on, the tenant's ledger has taken in, whatever became of them since; also one that was
    /// refused is, for the quarantine has it.
    pub fn sites_taken_up(&self, sites: &[Url]) -> Result<usize, LedgerError> {
        // On a server a digest of the URL is indexed.
        const KNOWN: Sql = Sql::hinted("url = ?2", "site_key(url) = site_key(?2) AND url = ?2");
        self.read(|tx| {
            let sql = format!("SELECT 1 FROM sites WHERE tenant = ?1 AND {}", KNOWN.of(tx));
            for (n, site) in sites.iter().enumerate() {
                let refused = "SELECT 1 FROM quarantine WHERE tenant = ?1 AND subject = ?2";
                if tx.one(&sql, values![self.tenant_id(), site.as_str()], |_| Ok(()))?.is_none()
                    && tx.one(refused, values![self.tenant_id(), site.as_str().as_bytes()], |_| Ok(()))?.is_none()
                {
                    return Ok(n);
                }
            }
            Ok(sites.len())
        })
    }

    /// Brings what was committed to disk, where commits alone do not (`ledger.durability = "process"`).
    pub fn sync(&self) -> std::io::Result<()> {
        self.0.backend.sync()
    }

    /// Reads in one transaction: everything that `work` sees is of one moment.
    pub fn read<T>(
        &self,
        work: impl FnOnce(&DbTransaction<'_>) -> Result<T, TransactionError>,
    ) -> Result<T, LedgerError> {
        #[cfg(any(test, feature = "testing"))]
        self.0.reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let backend = &self.0.backend;
        let storage = |error: OpenError| LedgerError::Storage { place: backend.name(), reason: error.to_string() };
        let mut connection = idle.map_or_else(|| backend.connect_reader(), Ok).map_err(storage)?;
        let read = connection.read(work).map_err(|error| error.at(&backend.storage()))?;
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(read)
    }

    /// Checks what the database can say about itself; slow for a large file. For `faceflow doctor`.
    pub fn check(&self) -> Result<(), LedgerError> {
        self.read(|tx| match tx {
            DbTransaction::Sqlite(_) => match tx.one("PRAGMA quick_check(1)", &[], |row| row.get::<String>(0))? {
                Some(said) if said != "ok" => Err(TransactionError::Damaged(said)),
                _ => Ok(()),
            },
            // A server checks its own files. What we can see is whether its tables can be read.
            DbTransaction::Postgres(_) => Tallies::load(tx, self.tenant_id()).map(drop),
        })
    }

    /// Pages and images by status: `(pages, images)`.
    pub fn tally(&self) -> Result<(Tally, Tally), LedgerError> {
        let tallies = self.read(|tx| Tallies::load(tx, self.tenant_id()))?;
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

    pub(super) fn for_each(
        &self,
        sql: &str,
        mut each: impl FnMut(&Row<'_>) -> Result<(), TransactionError>,
    ) -> Result<(), LedgerError> {
        self.read(|tx| tx.each(sql, values![self.tenant_id()], &mut each))
    }
}
