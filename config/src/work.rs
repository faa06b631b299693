//! Which settings are about work, so that each job may have its own; all others are about the process.
//!
//! `crawl` (but for `in_flight_max` and `in_flight_per_host`), `recrawl`, `retry`, `mine` and `deliver` are a job's. `dedupe` and `report` are
//! a tenant's, whose pictures are compared with each other whatever jobs found them: all its jobs have the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use faceflow_operators::jobs::WorkSettings;

use crate::Settings;
use crate::reloadable::ReloadableSettings;

/// Sections of settings that are a job's.
const OF_JOB: [&str; 5] = ["crawl", "recrawl", "retry", "mine", "deliver"];
/// Sections of settings that are a tenant's.
const OF_TENANT: [&str; 2] = ["dedupe", "report"];
/// Keys of the former that are about the process all the same.
const OF_PROCESS: [&str; 2] = ["crawl.in_flight_max", "crawl.in_flight_per_host"];

/// Whose a setting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All jobs of the process have the same.
    Process,
    /// All jobs of a tenant have the same.
    Tenant,
    /// Each job may have its own.
    Job,
}

/// Whose the setting of this key is.
pub fn scope_of(key: &str) -> Scope {
    let section = key.split('.').next().unwrap_or_default();
    match section {
        _ if OF_PROCESS.contains(&key) => Scope::Process,
        section if OF_JOB.contains(&section) => Scope::Job,
        section if OF_TENANT.contains(&section) => Scope::Tenant,
        _ => Scope::Process,
    }
}

impl Settings {
    /// What a job with these settings goes by; what can change while it runs is read from `live`.
    pub fn work(&self, live: &ReloadableSettings) -> WorkSettings {
        WorkSettings {
            crawl: live.crawl.clone(),
            recrawl: live.recrawl.clone(),
            retry: live.retry.clone(),
            mine: Arc::new(self.mine.clone()),
            deliver: Arc::new(self.deliver.clone()),
            dedupe: Arc::new(self.dedupe.clone()),
        }
    }

    /// The settings in which `other` differs that are of one of these scopes, each with its value there.
    pub fn differing_in(&self, other: &Self, scopes: &[Scope]) -> BTreeMap<String, String> {
        let differing = self.differing(other).into_iter();
        differing.filter(|(key, _)| scopes.contains(&scope_of(key))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layers;

    #[test]
    fn a_job_has_its_own_crawl_and_not_its_own_process() {
        let settings = |assignments: &[&str]| {
            let layers = assignments.iter().try_fold(Layers::default(), |layers, assignment| layers.set(assignment));
            layers.and_then(Layers::settings).expect("valid")
        };
        let (base, other) = (
            settings(&[]),
            settings(&["crawl.max_pages=5", "crawl.in_flight_max=9", "dedupe.radius_bits=3", "fetch.per_host=3"]),
        );
        let keys = |scope| base.differing_in(&other, &[scope]).into_keys().collect::<Vec<_>>();
        assert_eq!(keys(Scope::Job), ["crawl.max_pages"]);
        assert_eq!(keys(Scope::Tenant), ["dedupe.radius_bits"]);
        assert_eq!(keys(Scope::Process), ["crawl.in_flight_max", "fetch.per_host"]);
        let work = other.work(&ReloadableSettings::from(&other));
        assert_eq!((work.crawl.get().max_pages, work.dedupe.radius_bits), (5, 3));
    }

    #[test]
    fn every_section_that_is_named_is_there() {
        let sections = toml::Table::try_from(Settings::default()).expect("is a table");
        assert!(OF_JOB.iter().chain(&OF_TENANT).all(|section| sections.contains_key(*section)));
    }
}
