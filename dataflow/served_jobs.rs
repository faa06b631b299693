//! The jobs that a running graph serves: how one enters it and leaves it.
//!
//! Promise: before anything of a job is in the graph, everything that its operators ask for is known: its tenant's ledger and
//! pictures, its name, priority and settings. A job that is refused leaves the graph as it was.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use faceflow_config::Settings;
use faceflow_config::reloadable::ReloadableSettings;
use faceflow_config::work::Scope;
use faceflow_core::ledger::LedgerError;
use faceflow_core::record::{JobId, TenantId, TenantNumber};
use faceflow_core::source::Source;
use faceflow_ledger::{DatabaseLedger, TenantLedgers};
use faceflow_operators::jobs::{JobScope, Jobs, TenantScope};
use faceflow_operators::source_set::SourceSet;

use crate::job_spec::{AddJobError, JobSpec};
use crate::known_contents::KnownContents;
use crate::tenant_views::TenantViews;

/// What jobs enter.
pub(crate) struct ServedJobs {
    /// The tenant and settings that the graph was started with.
    pub(crate) tenant: TenantId,
    pub(crate) settings: Arc<Settings>,
    /// Whether the graph runs on several processes.
    pub(crate) cluster: bool,
    pub(crate) jobs: Jobs,
    pub(crate) known: Arc<KnownContents>,
    pub(crate) sources: SourceSet,
    /// Not kept open from here: once the graph has ended, another may open the same state.
    pub(crate) ledgers: Weak<TenantLedgers>,
    pub(crate) views: Weak<TenantViews>,
    pub(crate) entered: Mutex<Entered>,
}

/// Who is there.
#[derive(Default)]
pub(crate) struct Entered {
    jobs: BTreeSet<JobId>,
    /// With the settings of its first job.
    tenants: HashMap<TenantNumber, Arc<Settings>>,
}

impl Entered {
    /// The job that the graph was started for, alone.
    pub(crate) fn with(job: JobId, settings: Arc<Settings>) -> Mutex<Self> {
        Mutex::new(Self { jobs: [job].into(), tenants: [(job.tenant, settings)].into() })
    }
}

impl ServedJobs {
    /// Adds a job. One at a time.
    pub(crate) fn add(&self, spec: JobSpec) -> Result<JobId, AddJobError> {
        spec.check_name()?;
        self.check_process(&spec)?;
        let mut entered = self.entered();
        let ledgers = self.ledgers.upgrade().ok_or(AddJobError::Closed)?;
        let views = self.views.upgrade().ok_or(AddJobError::Closed)?;
        let ledger = ledgers.tenant(&spec.tenant)?;
        let tenant = ledger.reader().tenant_number();
        if let Some(settings) = entered.tenants.get(&tenant) {
            let keys = keys(settings, &spec.settings, Scope::Tenant);
            if !keys.is_empty() {
                return Err(AddJobError::TenantSettings { tenant: spec.tenant, keys });
            }
        }
        let known = ledger.reader().job_number(&spec.name)?.map(|number| JobId { tenant, number });
        if let Some(job) = known.filter(|job| entered.jobs.contains(job)) {
            return Err(AddJobError::Running(job));
        }
        let job = ledger.add_job(&spec.name, spec.priority)?;
        self.known.load(ledgers.as_ref(), tenant)?;
        let JobSpec { tenant: id, name, priority, settings, mut sources } = spec;
        for source in &mut sources {
            remember_sites(source.as_mut(), &ledger)?;
        }
        let live = ReloadableSettings::from(&settings);
        let work = settings.work(&live);
        self.jobs.add_tenant(TenantScope::new(tenant, id, work.clone()));
        self.jobs.add(JobScope { id: job, name, priority, settings: work });
        self.sources.add_job(job, sources).ok_or(AddJobError::Closed)?;
        entered.jobs.insert(job);
        entered.tenants.entry(tenant).or_insert_with(|| {
            views.add(ledger, live.report);
            Arc::new(settings)
        });
        Ok(job)
    }

    /// Removes a job; whether it was there.
    pub(crate) fn remove(&self, job: JobId) -> bool {
        let was_there = self.entered().jobs.remove(&job);
        if was_there {
            self.sources.remove_job(job);
        }
        was_there
    }

    /// The jobs that are there.
    pub(crate) fn all(&self) -> Vec<JobId> {
        self.entered().jobs.iter().copied().collect()
    }

    /// The ledger of the tenant of a job, as long as the graph runs.
    pub(crate) fn ledger_of(&self, job: JobId) -> Option<Arc<DatabaseLedger>> {
        self.ledgers.upgrade()?.of(job.tenant).ok()
    }

    /// Refuses what only another process could do.
    fn check_process(&self, spec: &JobSpec) -> Result<(), AddJobError> {
        let of_process = keys(&self.settings, &spec.settings, Scope::Process);
        if !of_process.is_empty() {
            return Err(AddJobError::ProcessSettings(of_process));
        }
        let differs = spec.tenant != self.tenant || !keys(&self.settings, &spec.settings, Scope::Job).is_empty();
        if self.cluster && differs {
            return Err(AddJobError::Cluster { tenant: self.tenant.clone(), name: spec.name.clone() });
        }
        Ok(())
    }

    fn entered(&self) -> MutexGuard<'_, Entered> {
        self.entered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keys(ours: &Settings, theirs: &Settings, scope: Scope) -> Vec<String> {
    ours.differing_in(theirs, &[scope]).into_keys().collect()
}

/// Gives a list that may lose entries while nobody reads it the sites that it named when it was read last.
pub(crate) fn remember_sites(source: &mut dyn Source, ledger: &DatabaseLedger) -> Result<(), LedgerError> {
    if let Some(list) = source.list() {
        let sites = ledger.reader().listed(list)?;
        source.remember(sites);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use faceflow_config::Layers;

    use super::*;

    fn settings(assignments: &[&str]) -> Settings {
        let layers = assignments.iter().try_fold(Layers::default(), |layers, assignment| layers.set(assignment));
        layers.and_then(Layers::settings).expect("valid")
    }

    #[test]
    fn a_cluster_takes_only_what_all_its_processes_know() {
        let of = |cluster| ServedJobs {
            tenant: TenantId::default(),
            settings: Arc::new(settings(&["crawl.max_pages=5"])),
            cluster,
            jobs: Jobs::default(),
            known: Arc::new(KnownContents::new(Default::default())),
            sources: SourceSet::open(JobId::FIRST, vec![]),
            ledgers: Weak::new(),
            views: Weak::new(),
            entered: Mutex::default(),
        };
        let spec = |tenant: &str, assignments: &[&str]| {
            JobSpec::new(tenant.parse().expect("a name"), "x", settings(assignments))
        };
        let same = ["crawl.max_pages=5"];
        assert!(of(true).check_process(&spec("default", &same)).is_ok());
        for (tenant, assignments) in [("other", &same[..]), ("default", &["crawl.max_pages=6"])] {
            assert!(of(false).check_process(&spec(tenant, assignments)).is_ok());
            let refused = of(true).check_process(&spec(tenant, assignments)).expect_err("is refused").to_string();
            assert!(refused.contains("a cluster serves one tenant"), "{refused}");
        }
        // Once the graph has ended there is nothing to enter.
        assert!(matches!(of(false).add(spec("default", &same)), Err(AddJobError::Closed)));
    }
}
