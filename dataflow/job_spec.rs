//! A further job for a running graph, as its caller describes it, and why it may be refused.

use faceflow_config::Settings;
use faceflow_core::ledger::LedgerError;
use faceflow_core::record::{JobId, Priority, TenantId};
use faceflow_core::source::Source;
use faceflow_ledger::OpenError;

/// The longest name of a job, in bytes.
const NAME_MAX: usize = 200;

/// A job that enters a running graph.
///
/// What was open of the job of this tenant and name goes on. Within a tenant each URL is done once, for the job that discovered it
/// first: what another job of the tenant knows already is not discovered anew.
pub struct JobSpec {
    /// Whose work it is.
    pub tenant: TenantId,
    /// Its name among the jobs of its tenant.
    pub name: String,
    /// How often it has its turn, in proportion to the other jobs of its tenant.
    pub priority: Priority,
    /// Every setting. Those about the process (see `faceflow_config::work`) must be the ones that the graph was started with, and
    /// those of the tenant the ones that its first job came with.
    pub settings: Settings,
    /// Where its sites and pictures come from.
    pub sources: Vec<Box<dyn Source>>,
}

impl JobSpec {
    /// A job with these settings and nothing to do yet.
    pub fn new(tenant: TenantId, name: &str, settings: Settings) -> Self {
        Self { tenant, name: name.to_owned(), priority: Priority::default(), settings, sources: vec![] }
    }

    /// Refuses names that cannot be told from others where people read them.
    pub(crate) fn check_name(&self) -> Result<(), AddJobError> {
        let fits = (1..=NAME_MAX).contains(&self.name.len()) && !self.name.chars().any(char::is_control);
        if fits && self.name.trim() == self.name { Ok(()) } else { Err(AddJobError::Name(self.name.clone())) }
    }
}

/// Why a job was not added.
#[derive(Debug, thiserror::Error)]
pub enum AddJobError {
    /// The graph drains, was cancelled or has ended, or its input was closed.
    #[error("the input of the graph is closed")]
    Closed,
    /// Another process reads the sources.
    #[error("jobs are added at process 0 of a cluster")]
    OtherProcess,
    /// The other processes of a cluster know the tenant and settings that it was started with, and no others.
    #[error(
        "a cluster serves one tenant with one set of settings, tenant {tenant}: start a process of its own for job {name:?}, \
         on the same state"
    )]
    Cluster {
        /// The tenant of the cluster.
        tenant: TenantId,
        /// The job.
        name: String,
    },
    /// Its name.
    #[error("{0:?} cannot be the name of a job: 1 to {NAME_MAX} bytes, no control characters, no space at its ends")]
    Name(String),
    /// It is there already.
    #[error("job {0:?} runs already")]
    Running(JobId),
    /// It wants another process.
    #[error("these settings are about the whole process, which was started with others: {}", .0.join(", "))]
    ProcessSettings(Vec<String>),
    /// It wants something else of what all jobs of a tenant have in common.
    #[error("these settings are about all jobs of a tenant, and tenant {tenant} has others: {}", .keys.join(", "))]
    TenantSettings {
        /// The tenant.
        tenant: TenantId,
        /// The keys.
        keys: Vec<String>,
    },
    /// The ledger of its tenant could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The ledger of its tenant failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_be_read() {
        let check = |name: &str| JobSpec::new(TenantId::default(), name, Settings::default()).check_name().is_ok();
        assert!(check("a") && check("Fälle 2026/3") && check(&"x".repeat(NAME_MAX)));
        for name in ["", " a", "a\n", "a\u{7}b", &"x".repeat(NAME_MAX + 1)] {
            assert!(!check(name), "{name:?}");
        }
    }
}
