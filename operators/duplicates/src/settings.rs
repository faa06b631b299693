//! The settings of near-duplicate detection.

use serde::{Deserialize, Serialize};

use crate::index::RADIUS_MAX;

/// The settings `dedupe.*`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DedupeSettings {
    /// Pictures whose perceptual hashes differ in at most this many of 64 bits are near-duplicates.
    pub radius_bits: u32,
    /// How long a new picture waits, in milliseconds, for a better copy of itself before it is detected.
    pub settle_ms: u64,
}

impl Default for DedupeSettings {
    fn default() -> Self {
        Self { radius_bits: 4, settle_ms: 100 }
    }
}

impl DedupeSettings {
    /// Refuses impossible values: the key, and what is allowed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.radius_bits > RADIUS_MAX {
            return Err(("radius_bits", format!("0 to {RADIUS_MAX}")));
        }
        if self.settle_ms > 60_000 {
            return Err(("settle_ms", "0 to 60000".to_owned()));
        }
        Ok(())
    }
}
