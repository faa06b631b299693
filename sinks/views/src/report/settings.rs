//! How much the report shows, and how often it is brought up to date.

use serde::{Deserialize, Serialize};

/// The settings `report.*`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReportSettings {
    /// Images shown, those with the most faces first; each takes about 20 KB of the file and of memory. 0 for no report.
    pub images_max: usize,
    /// Examples of each kind of failure, and duplicates listed under each image, at most.
    pub examples_max: usize,
    /// How often sidecars and the report are brought up to date while `faceflow stream` runs, in milliseconds.
    pub refresh_ms: u64,
}

impl Default for ReportSettings {
    fn default() -> Self {
        Self { images_max: 400, examples_max: 8, refresh_ms: 60_000 }
    }
}

impl ReportSettings {
    /// Refuses impossible values: the key, and what is allowed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.images_max > 10_000 {
            return Err(("images_max", "at most 10000".to_owned()));
        }
        if !(1..=1_000).contains(&self.examples_max) {
            return Err(("examples_max", "1 to 1000".to_owned()));
        }
        if self.refresh_ms < 100 {
            return Err(("refresh_ms", "100 or more".to_owned()));
        }
        Ok(())
    }
}
