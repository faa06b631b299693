//! Impossible values: each section's own check, with the section's name put before the key.

use crate::Settings;

/// A key with an impossible value, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impossible {
    /// `section.key`.
    pub key: String,
    /// What is allowed.
    pub allowed: String,
}

/// Checks every section.
pub fn check(settings: &Settings) -> Result<(), Impossible> {
    let sections = [
        ("fetch", settings.fetch.check()),
        ("memory", settings.memory_parts().map(drop)),
        ("crawl", settings.crawl.check()),
        ("recrawl", settings.recrawl.check()),
        ("mine", settings.mine.check()),
        ("image", settings.image.check()),
        ("dedupe", settings.dedupe.check()),
        ("detect", settings.detect.check()),
        ("deliver", settings.deliver.check()),
        ("retry", settings.retry.check()),
        ("ledger", settings.ledger.check()),
        ("store", settings.store.check()),
        ("report", settings.report.check()),
        ("submit", settings.submit.check()),
        ("cluster", settings.cluster.check()),
    ];
    for (section, verdict) in sections {
        verdict.map_err(|(key, allowed)| Impossible { key: format!("{section}.{key}"), allowed })?;
    }
    Ok(())
}
