//! What can change while a stream runs: whatever is decided anew for every record or request.

use std::collections::{BTreeMap, BTreeSet};

use faceflow_core::Reloadable;
use faceflow_core::retry_policy::RetrySettings;
use faceflow_operators::recrawl::RecrawlSettings;
use faceflow_operators::select_links::CrawlSettings;
use faceflow_views::report::ReportSettings;
use faceflow_web::FetchSettings;

use crate::Settings;
use crate::load::leaves_of;

/// The sections of which something can change, as running parts read them. Clones share them.
#[derive(Clone, Debug)]
pub struct ReloadableSettings {
    /// The web client.
    pub fetch: Reloadable<FetchSettings>,
    /// How far sites are crawled.
    pub crawl: Reloadable<CrawlSettings>,
    /// When pages are looked at again.
    pub recrawl: Reloadable<RecrawlSettings>,
    /// Retries.
    pub retry: Reloadable<RetrySettings>,
    /// The report.
    pub report: Reloadable<ReportSettings>,
}

impl From<&Settings> for ReloadableSettings {
    fn from(settings: &Settings) -> Self {
        let fetch = settings.with_memory_parts().fetch;
        Self {
            fetch: fetch.into(),
            crawl: settings.crawl.clone().into(),
            recrawl: settings.recrawl.into(),
            retry: settings.retry.into(),
            report: settings.report.clone().into(),
        }
    }
}

impl ReloadableSettings {
    /// Replaces them, by what [`Settings::taking`] has made.
    pub fn set(&self, settings: &Settings) {
        self.fetch.set(settings.with_memory_parts().fetch);
        self.crawl.set(settings.crawl.clone());
        self.recrawl.set(settings.recrawl);
        self.retry.set(settings.retry);
        self.report.set(settings.report.clone());
    }
}

impl Settings {
    /// These settings with everything that can change while a stream runs taken from `new`.
    pub fn taking(&self, new: &Self) -> Self {
        Self {
            fetch: self.fetch.taking(&new.fetch),
            crawl: new.crawl.clone(),
            // Queues that nobody was to look at again are forgotten.
            recrawl: RecrawlSettings { enabled: self.recrawl.enabled, ..new.recrawl },
            retry: new.retry,
            report: new.report.clone(),
            ..self.clone()
        }
    }

    /// The keys in which `other` differs, each with its value there (nothing for a key that is left out).
    pub fn differing(&self, other: &Self) -> BTreeMap<String, String> {
        let (ours, mut theirs) = (leaves_of(self), leaves_of(other));
        let keys: BTreeSet<String> = ours.keys().chain(theirs.keys()).cloned().collect();
        let differing = keys.into_iter().filter(|key| ours.get(key) != theirs.get(key)).collect::<Vec<_>>();
        let value = |key: &String| theirs.remove(key).map(|value| value.to_string()).unwrap_or_default();
        let values: Vec<String> = differing.iter().map(value).collect();
        differing.into_iter().zip(values).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::Layers;

    use super::*;

    fn settings(assignments: &[&str]) -> Settings {
        let layers = assignments.iter().try_fold(Layers::default(), |layers, assignment| layers.set(assignment));
        layers.and_then(Layers::settings).expect("valid")
    }

    #[test]
    fn what_cannot_change_stays_and_is_told_apart() {
        let old = settings(&["crawl.shape=1x1", "detect.seeta_px=320"]);
        let new = settings(&[
            "crawl.shape=all",
            "retry.web.base_ms=5",
            "fetch.delay_ms=7",
            "fetch.ip_delay_ms=8",
            "fetch.per_host=9",
            "fetch.per_ip=10",
            "recrawl.enabled=false",
            "recrawl.grow=0.5",
            "detect.score_min=0.7",
        ]);
        let taken = old.taking(&new);
        let keys = |from: &Settings, to: &Settings| from.differing(to).into_keys().collect::<Vec<_>>();
        let changed = ["crawl.shape", "fetch.delay_ms", "fetch.ip_delay_ms", "recrawl.grow", "retry.web.base_ms"];
        assert_eq!(keys(&old, &taken), changed);
        let unchanged = ["detect.score_min", "detect.seeta_px", "fetch.per_host", "fetch.per_ip", "recrawl.enabled"];
        assert_eq!(keys(&taken, &new), unchanged);
        assert_eq!(old.differing(&taken)["crawl.shape"], "\"all\"");
        assert_eq!(old.differing(&old), BTreeMap::new());

        let live = ReloadableSettings::from(&old);
        let seen = live.report.get();
        live.set(&taken);
        assert_eq!((live.fetch.get().delay_ms, live.fetch.get().per_host), (7, old.fetch.per_host));
        assert_eq!((*live.crawl.get()).clone(), new.crawl);
        assert!(std::sync::Arc::ptr_eq(&seen, &live.report.get()), "what is the same has not changed");
    }
}
