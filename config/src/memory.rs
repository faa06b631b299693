//! One number for the memory of the process, and what its parts make of it.
//!
//! Each part waits within a budget of its own, and the budgets together are the number. They are divided before anything runs and
//! not shared: what waits in one part holds what others of it wait for, and a picture that holds its body while it waits for room
//! for its pixels always gets it, because no body ever takes that room. Promise: parts whose setting is 0 share what the others
//! leave, and what does not fit is refused at the start, with what to do.

use faceflow_core::blocking::cores;
use serde::{Deserialize, Serialize};

use crate::Settings;

/// By default, and as much again as [`PER_CORE_BYTES`] for each core.
const BASE_BYTES: u64 = 208 << 20;
/// More cores have more pictures and bodies on their way.
const PER_CORE_BYTES: u64 = 40 << 20;
/// What the HTTP library buffers of one connection, at most.
const CONNECTION_BYTES: u64 = 408 << 10;
/// What connections that read the ledger cache, together.
const READERS_BYTES: u64 = 16 << 20;
/// The least that bodies, pixels and robots.txt can work with.
const LEAST_BYTES: [u64; 3] = [16 << 20, 16 << 20, 1 << 20];
/// How they share what is left, in twelfths.
const TWELFTHS: [u64; 3] = [6, 5, 1];

/// The settings `memory.*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemorySettings {
    /// Memory for everything that comes and goes, in bytes: bodies, pixels, robots.txt, connections and the ledger's cache. The program
    /// and its model (about 60 MB), and what is known of all pictures (about 35 MB for a million), come on top. 0: 208 MiB and
    /// 40 MiB for each core, and what the settings of the parts say beyond their share of it.
    pub max_bytes: u64,
}

/// What each part has, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryParts {
    /// Bodies of responses, and what their decoders remember.
    pub bodies: u64,
    /// Pixels.
    pub pixels: u64,
    /// Remembered robots.txt.
    pub robots: u64,
    /// Connections to the web, and the ledger.
    pub others: u64,
}

impl Settings {
    /// What each part has; or the key that is impossible, and what is allowed.
    pub fn memory_parts(&self) -> Result<MemoryParts, (&'static str, String)> {
        let others = self.other_bytes();
        let said =
            [self.fetch.memory_max_bytes as u64, self.image.memory_max_bytes, self.fetch.robots_cache_max_bytes as u64];
        let least = |part: usize| if said[part] == 0 { LEAST_BYTES[part] } else { said[part] };
        let needed = (0..3).map(least).fold(others, u64::saturating_add);
        let max_bytes = match self.memory.max_bytes {
            // What some parts say more than they have by default is not taken from the others.
            0 => {
                let usual = Self::default();
                let usual_others = usual.other_bytes();
                let whole = BASE_BYTES + PER_CORE_BYTES * cores() as u64;
                let spare = whole.saturating_sub(usual_others + LEAST_BYTES.iter().sum::<u64>());
                let usual_part = |part: usize| LEAST_BYTES[part] + spare * TWELFTHS[part] / 12;
                let parts = (0..3).map(|part| if said[part] == 0 { usual_part(part) } else { said[part] });
                parts.fold(others, u64::saturating_add)
            }
            bytes => bytes,
        };
        if max_bytes < needed {
            let allowed = format!(
                "at least {needed}, which fetch.memory_max_bytes, image.memory_max_bytes, fetch.robots_cache_max_bytes, \
                 connections (fetch.idle_connections_max, fetch.concurrency) and ledger.cache_mb need together; or lower one of these"
            );
            return Err(("max_bytes", allowed));
        }
        let open = |part: &usize| said[*part] == 0;
        let twelfths: u64 = (0..3).filter(open).map(|part| TWELFTHS[part]).sum();
        let spare = max_bytes - needed;
        let part = |part: usize| match said[part] {
            0 => LEAST_BYTES[part] + (u128::from(spare) * u128::from(TWELFTHS[part]) / u128::from(twelfths)) as u64,
            said => said,
        };
        Ok(MemoryParts { bodies: part(0), pixels: part(1), robots: part(2), others })
    }

    /// What connections and the ledger need.
    fn other_bytes(&self) -> u64 {
        let connections = self.fetch.idle_connections_max.saturating_add(self.fetch.concurrency) as u64;
        connections.saturating_mul(CONNECTION_BYTES) + (u64::from(self.ledger.cache_mb) << 20) + READERS_BYTES
    }

    /// These settings with the budget of every part filled in. Those that [`check`](crate::check::check) refuses stay as they are.
    pub fn with_memory_parts(&self) -> Self {
        let mut settings = self.clone();
        if let Ok(parts) = self.memory_parts() {
            let size = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
            settings.fetch.memory_max_bytes = size(parts.bodies);
            settings.fetch.robots_cache_max_bytes = size(parts.robots);
            settings.image.memory_max_bytes = parts.pixels;
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layers;

    fn settings(assignments: &[&str]) -> Result<Settings, String> {
        let layers = assignments.iter().try_fold(Layers::default(), |layers, assignment| layers.set(assignment));
        layers.and_then(Layers::settings).map_err(|error| error.to_string())
    }

    fn parts(assignments: &[&str]) -> MemoryParts {
        settings(assignments).expect("valid").memory_parts().expect("valid")
    }

    #[test]
    fn the_parts_are_the_whole_and_what_one_says_the_others_do_not_get() {
        let total = |parts: MemoryParts| parts.bodies + parts.pixels + parts.robots + parts.others;
        let by_default = parts(&[]);
        let whole = BASE_BYTES + PER_CORE_BYTES * cores() as u64;
        assert!((whole - 2..=whole).contains(&total(by_default)), "{by_default:?}");
        assert!(by_default.bodies > by_default.pixels && by_default.pixels > by_default.robots);
        let mine = parts(&["memory.max_bytes=400000000", "image.memory_max_bytes=100000000"]);
        assert_eq!(mine.pixels, 100_000_000);
        assert!((399_999_998..=400_000_000).contains(&total(mine)), "{mine:?}");
        let less = parts(&["memory.max_bytes=400000000", "image.memory_max_bytes=150000000"]);
        assert!(less.bodies < mine.bodies && less.robots < mine.robots && less.others == mine.others);
        let connections = parts(&["memory.max_bytes=400000000", "fetch.idle_connections_max=400"]);
        assert!(connections.bodies < parts(&["memory.max_bytes=400000000"]).bodies);
        let more = parts(&["fetch.memory_max_bytes=8000000000", "fetch.concurrency=512", "ledger.cache_mb=1024"]);
        assert_eq!(more.bodies, 8_000_000_000, "where no whole is said");
        let close = |one: u64, other: u64| one.abs_diff(other) < 1 << 10;
        assert!(
            close(more.pixels, by_default.pixels) && close(more.robots, by_default.robots),
            "{more:?} {by_default:?}"
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_to_do() {
        let refused =
            settings(&["memory.max_bytes=300000000", "image.memory_max_bytes=250000000"]).expect_err("too much");
        for words in ["memory.max_bytes", "300000000", "at least 3", "image.memory_max_bytes", "ledger.cache_mb"] {
            assert!(refused.contains(words), "{words}: {refused}");
        }
        let needed: u64 =
            refused.split("at least ").nth(1).and_then(|rest| rest.split(',').next()?.parse().ok()).expect("a number");
        let fits =
            |bytes: u64| settings(&[&format!("memory.max_bytes={bytes}"), "image.memory_max_bytes=250000000"]).is_ok();
        assert!(fits(needed) && !fits(needed - 1));
    }

    #[test]
    fn running_parts_read_their_budgets_also_after_a_reload() {
        use crate::reloadable::ReloadableSettings;
        let first = settings(&["memory.max_bytes=400000000"]).expect("valid");
        let live = ReloadableSettings::from(&first);
        let bodies = live.fetch.get().memory_max_bytes as u64;
        assert_eq!(bodies, first.memory_parts().expect("valid").bodies);
        live.set(&first.taking(&settings(&["fetch.delay_ms=5"]).expect("valid")));
        assert_eq!((live.fetch.get().memory_max_bytes as u64, live.fetch.get().delay_ms), (bodies, 5));
        assert!(live.fetch.get().robots_cache_max_bytes > 0);
    }
}
