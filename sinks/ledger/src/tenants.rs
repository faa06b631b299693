//! The ledgers of several tenants in one state, as one running graph uses them.
//!
//! Each tenant has a ledger of its own: a writer, readers, and on a server a run with its lease. Facts and questions go to the one of
//! their tenant. Promise: no tenant's rows are read or written for another, and none waits for more than a transaction of another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use faceflow_core::fact::Fact;
use faceflow_core::ledger::{
    DispatchReply, DispatchRequest, FailingHosts, KnownPicture, Ledger, LedgerError, QueueUpdate,
};
use faceflow_core::record::{JobId, TenantNumber};
use faceflow_core::tally::{Tally, Violation};
use faceflow_core::{Future, Time};

use super::database_ledger::DatabaseLedger;
use super::location::{Backend, StateLocation};
use super::{LedgerSettings, OpenError};

/// A state with the ledgers of those tenants that were asked for. The last one to be dropped lets go of a folder.
pub struct TenantLedgers {
    backend: Backend,
    tenants: RwLock<BTreeMap<TenantNumber, Arc<DatabaseLedger>>>,
    /// Held while one is opened, so that none is opened twice.
    opening: Mutex<()>,
}

impl TenantLedgers {
    /// The state at `place`. Nothing is opened yet.
    pub fn new(place: impl Into<StateLocation>, settings: &LedgerSettings) -> Result<Self, OpenError> {
        let backend = Backend::new(&place.into(), settings)?;
        Ok(Self { backend, tenants: RwLock::default(), opening: Mutex::default() })
    }

    /// The ledger of a tenant, opened and made if it is not yet. It blocks.
    pub fn tenant(&self, tenant: &str) -> Result<Arc<DatabaseLedger>, OpenError> {
        self.open(tenant, None)
    }

    /// The ledger of a tenant for another process of the same cluster: `run` is the first one's [`DatabaseLedger::run`].
    pub fn join(&self, tenant: &str, run: i64) -> Result<Arc<DatabaseLedger>, OpenError> {
        self.open(tenant, Some(run))
    }

    fn open(&self, tenant: &str, joined: Option<i64>) -> Result<Arc<DatabaseLedger>, OpenError> {
        let _one_at_a_time = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ledger) = self.all().into_iter().find(|ledger| ledger.reader().tenant() == tenant) {
            return Ok(ledger);
        }
        let ledger = Arc::new(DatabaseLedger::of(self.backend.clone(), tenant, joined)?);
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        tenants.insert(ledger.reader().tenant_number(), Arc::clone(&ledger));
        Ok(ledger)
    }

    /// The ledgers that are open.
    pub fn all(&self) -> Vec<Arc<DatabaseLedger>> {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        tenants.values().map(Arc::clone).collect()
    }

    /// The ledger of a tenant that was opened.
    pub fn of(&self, tenant: TenantNumber) -> Result<Arc<DatabaseLedger>, LedgerError> {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        tenants.get(&tenant).map(Arc::clone).ok_or_else(|| LedgerError::Storage {
            place: self.backend.storage(),
            reason: format!("the ledger of tenant number {} is not open", tenant.0),
        })
    }
}

impl Ledger for TenantLedgers {
    fn append(&self, fact: Fact) -> Future<Result<Vec<QueueUpdate>, LedgerError>> {
        match self.of(fact.tenant()) {
            Ok(ledger) => ledger.append(fact),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn queues(&self, job: JobId, again: bool, each: &mut dyn FnMut(QueueUpdate)) -> Result<(), LedgerError> {
        self.of(job.tenant)?.queues(job, again, each)
    }

    fn due_work(&self, now: Time, asks: &[DispatchRequest]) -> Result<Vec<DispatchReply>, LedgerError> {
        let mut of_tenants = BTreeMap::<TenantNumber, Vec<DispatchRequest>>::new();
        for ask in asks {
            of_tenants.entry(ask.queue.job.tenant).or_default().push(ask.clone());
        }
        let mut replies = Vec::with_capacity(asks.len());
        for (tenant, asks) in of_tenants {
            replies.extend(self.of(tenant)?.due_work(now, &asks)?);
        }
        Ok(replies)
    }

    fn known_pictures(&self, tenant: TenantNumber, each: &mut dyn FnMut(KnownPicture)) -> Result<(), LedgerError> {
        self.of(tenant)?.known_pictures(tenant, each)
    }

    fn tally(&self) -> Result<(Tally, Tally), LedgerError> {
        let mut tallies = self.all().into_iter().map(|ledger| ledger.tally());
        tallies.try_fold((Tally::default(), Tally::default()), |sum, tally| {
            let (pages, images) = tally?;
            Ok((sum.0 + pages, sum.1 + images))
        })
    }

    fn failing_hosts(&self) -> Result<FailingHosts, LedgerError> {
        self.all().into_iter().try_fold(FailingHosts::default(), |sum, ledger| {
            let FailingHosts { held_back, given_up } = ledger.failing_hosts()?;
            Ok(FailingHosts { held_back: sum.held_back + held_back, given_up: sum.given_up + given_up })
        })
    }

    fn quarantined(&self) -> Result<u64, LedgerError> {
        self.all().into_iter().map(|ledger| ledger.quarantined()).sum()
    }

    fn audit(&self, keys_max: usize) -> Result<Vec<Violation>, LedgerError> {
        let audits: Result<Vec<_>, _> = self.all().into_iter().map(|ledger| ledger.audit(keys_max)).collect();
        Ok(audits?.into_iter().flatten().collect())
    }
}
