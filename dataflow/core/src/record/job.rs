//! Whose work a record is: a tenant and one of its jobs, by their numbers in the state.
//!
//! A record carries numbers and no names, so it is small, and what is known of a job (its name, priority and settings) is looked
//! up where it is needed. The tenant is part of the number of a job: whose something is can always be told without looking.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The number of a tenant: its row in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TenantNumber(pub u32);

/// A job: its tenant, and its number among the jobs of that tenant.
///
/// In text, as in the log, it is the second number alone: a log is of one tenant, which it does not name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId {
    /// Whose job it is.
    pub tenant: TenantNumber,
    /// Its number among the jobs of its tenant; 0 for the job `default`.
    pub number: u32,
}

/// How often a job has its turn, in proportion to the other jobs of its tenant: 0 to 9. Tenants have theirs equally often, whatever
/// the priorities of their jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Priority(u8);

impl Priority {
    /// The highest.
    pub const MAX: Self = Self(9);

    /// A priority from 0 to 9.
    pub fn new(priority: u8) -> Option<Self> {
        Some(Self(priority)).filter(|priority| *priority <= Self::MAX)
    }

    /// As a number.
    pub fn get(self) -> u8 {
        self.0
    }

    /// Turns in proportion to others.
    pub fn weight(self) -> u64 {
        u64::from(self.0) + 1
    }
}

impl Default for Priority {
    /// Of a job that names none, so that others can go before and after it.
    fn default() -> Self {
        Self(5)
    }
}

/// The name of the job that every tenant has.
pub const DEFAULT_JOB: &str = "default";

impl JobId {
    /// The job `default` of the tenant that a state had first. Where there is one tenant with one job, it is this.
    pub const FIRST: Self = Self::default_of(TenantNumber(1));

    /// The job `default` of a tenant.
    pub const fn default_of(tenant: TenantNumber) -> Self {
        Self { tenant, number: 0 }
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.tenant.0, self.number)
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            return self.number.serialize(to);
        }
        (self.tenant, self.number).serialize(to)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            return u32::deserialize(from).map(|number| Self { number, ..Self::of_log() });
        }
        <(TenantNumber, u32)>::deserialize(from).map(|(tenant, number)| Self { tenant, number })
    }
}

impl JobId {
    /// The job of a record of a log that names none: it was written before there were others.
    pub(crate) fn of_log() -> Self {
        Self::default_of(TenantNumber(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_does_not_name_the_tenant_and_a_record_between_processes_does() {
        let job = JobId { tenant: TenantNumber(7), number: 300 };
        assert_eq!(serde_json::to_string(&job).ok().as_deref(), Some("300"));
        let read: JobId = serde_json::from_str("300").expect("a number");
        assert_eq!((read.tenant, read.number), (TenantNumber(0), 300));
        let bytes = bincode::serialize(&job).expect("serialises");
        assert_eq!((bytes.len(), bincode::deserialize(&bytes).ok()), (8, Some(job)));
    }
}
