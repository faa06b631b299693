//! The tenants and jobs that a running graph serves: who they are, and their settings.
//!
//! Records carry the number of their job; operators look up here what it wants. Jobs are added while the graph runs. Promise:
//! what is known of a tenant or a job stays known for as long as the graph runs, since records of a job that was removed may still
//! be on their way.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, PoisonError, RwLock};

use faceflow_core::Reloadable;
use faceflow_core::record::{JobId, Priority, TenantId, TenantNumber};
use faceflow_core::retry_policy::RetrySettings;
use faceflow_duplicates::settings::DedupeSettings;
use faceflow_mine::html::MineSettings;
use faceflow_pixels::DeliverSettings;
use serde::{Deserialize, Serialize};

use crate::recrawl::RecrawlSettings;
use crate::select_links::CrawlSettings;

/// The settings that are about work, so that each job may have its own. All others are about the process. Clones share them.
#[derive(Clone, Debug)]
pub struct WorkSettings {
    /// How far sites are crawled. How much is in flight (`in_flight_max`, `in_flight_per_host`) is about the process.
    pub crawl: Reloadable<CrawlSettings>,
    /// When pages are looked at again.
    pub recrawl: Reloadable<RecrawlSettings>,
    /// Retries.
    pub retry: Reloadable<RetrySettings>,
    /// What is read out of pages.
    pub mine: Arc<MineSettings>,
    /// Crops and thumbnails.
    pub deliver: Arc<DeliverSettings>,
    /// Near-duplicates. They are a tenant's, so all its jobs have the same.
    pub dedupe: Arc<DedupeSettings>,
}

/// A tenant.
#[derive(Debug)]
pub struct TenantScope {
    /// Its number in the state.
    pub number: TenantNumber,
    /// Its name.
    pub id: TenantId,
    /// Those of its first job: what is not of a certain job follows them.
    pub settings: WorkSettings,
    /// Its queues that have something due which was not dispatched.
    pub waiting: AtomicUsize,
}

impl TenantScope {
    /// A tenant for which nothing waits.
    pub fn new(number: TenantNumber, id: TenantId, settings: WorkSettings) -> Self {
        Self { number, id, settings, waiting: AtomicUsize::new(0) }
    }
}

/// A job.
#[derive(Debug)]
pub struct JobScope {
    /// Whose it is, and its number there.
    pub id: JobId,
    /// Its name among the jobs of its tenant.
    pub name: String,
    /// How often it has its turn.
    pub priority: Priority,
    /// Its settings.
    pub settings: WorkSettings,
}

/// A job comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobEvent {
    /// Its work is dispatched from here on.
    Added(JobId),
    /// Nothing of it is dispatched any more; what is in flight comes to its end.
    Removed(JobId),
}

/// All tenants and jobs of a graph. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Jobs(Arc<RwLock<Known>>);

#[derive(Debug, Default)]
struct Known {
    tenants: HashMap<TenantNumber, Arc<TenantScope>>,
    jobs: HashMap<JobId, Arc<JobScope>>,
}

impl Jobs {
    /// Adds a tenant, or returns the one that is there.
    pub fn add_tenant(&self, tenant: TenantScope) -> Arc<TenantScope> {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.tenants.entry(tenant.number).or_insert_with(|| Arc::new(tenant)))
    }

    /// Adds a job of a tenant that is there, in place of what it was before.
    pub fn add(&self, job: JobScope) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        assert!(known.tenants.contains_key(&job.id.tenant), "the tenant of job {:?} was added before it", job.id);
        known.jobs.insert(job.id, Arc::new(job));
    }

    /// A job, if it was added.
    pub fn job(&self, job: JobId) -> Option<Arc<JobScope>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.jobs.get(&job).map(Arc::clone)
    }

    /// A tenant, if it was added.
    pub fn find_tenant(&self, tenant: TenantNumber) -> Option<Arc<TenantScope>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.tenants.get(&tenant).map(Arc::clone)
    }

    /// A tenant that has records in the graph.
    pub fn tenant(&self, tenant: TenantNumber) -> Arc<TenantScope> {
        self.find_tenant(tenant).unwrap_or_else(|| panic!("a record is of tenant {tenant:?}, whom nobody has added"))
    }

    /// The settings of a job that has records in the graph. A job that nobody has added has those of its tenant: a picture that is
    /// read back is not of a certain job, and other processes of a cluster know only tenants.
    pub fn settings(&self, job: JobId) -> WorkSettings {
        let own = self.job(job).map(|job| job.settings.clone());
        own.unwrap_or_else(|| self.tenant(job.tenant).settings.clone())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Default settings.
    pub fn settings() -> WorkSettings {
        WorkSettings {
            crawl: CrawlSettings::default().into(),
            recrawl: RecrawlSettings::default().into(),
            retry: RetrySettings::default().into(),
            mine: Arc::default(),
            deliver: Arc::default(),
            dedupe: Arc::default(),
        }
    }

    fn job(id: JobId, max_pages: u64) -> JobScope {
        let crawl = CrawlSettings { max_pages, ..CrawlSettings::default() };
        let settings = WorkSettings { crawl: crawl.into(), ..settings() };
        JobScope { id, name: format!("{id:?}"), priority: Priority::default(), settings }
    }

    /// A tenant with its job `default`, as most tests need it.
    pub fn one_tenant() -> Jobs {
        let jobs = Jobs::default();
        jobs.add_tenant(TenantScope::new(JobId::FIRST.tenant, TenantId::default(), settings()));
        jobs
    }

    #[test]
    fn a_job_has_its_settings_and_what_is_of_none_those_of_its_tenant() {
        let jobs = one_tenant();
        let [first, second] = [1, 2].map(|number| JobId { number, ..JobId::FIRST });
        jobs.add(job(first, 7));
        let max_pages = |id| jobs.settings(id).crawl.get().max_pages;
        assert_eq!([first, second].map(max_pages), [7, CrawlSettings::default().max_pages]);
        // A job that comes again may want something else.
        jobs.add(job(first, 8));
        assert_eq!((max_pages(first), jobs.job(second).is_none()), (8, true));
    }

    #[test]
    fn a_tenant_is_added_once_and_its_first_settings_stay() {
        let jobs = one_tenant();
        let number = JobId::FIRST.tenant;
        let other = TenantScope::new(number, "other".parse().expect("a name"), settings());
        assert_eq!(jobs.add_tenant(other).id, TenantId::default());
        assert!(jobs.find_tenant(TenantNumber(9)).is_none());
    }

    #[test]
    #[should_panic(expected = "whom nobody has added")]
    fn a_record_of_an_unknown_tenant_is_a_broken_promise() {
        one_tenant().settings(JobId::default_of(TenantNumber(9)));
    }
}
