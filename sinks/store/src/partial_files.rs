//! What a killed process leaves in a folder: a put writes to `{key}#{n}` and renames that, so a kill in between leaves a file which
//! nobody reads and nobody would remove.
//!
//! A walk goes through the output's own folders, some files at a time, and removes such files once they have not been written to
//! for long enough. Promise: nothing else is removed, and a put that is under way keeps its file.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use faceflow_core::blocking::blocking;
use faceflow_core::clock::Clock;
use faceflow_core::object_key::KINDS;
use faceflow_core::{Fault, Time};
use serde::{Deserialize, Serialize};
use walkdir::{DirEntry, WalkDir};

use faceflow_core::object_key::REPORT;

/// Files and folders looked at in one go.
const STEP: usize = 1_000;
/// Between two such goes others have the disk.
const PAUSE: Duration = Duration::from_millis(20);

/// The settings `store.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// How long a file that a killed process left half written stays in an output folder, in milliseconds.
    pub partial_files_keep_ms: u64,
    /// How often `faceflow stream` looks for such files, in milliseconds; a batch does so once.
    pub partial_files_check_every_ms: u64,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { partial_files_keep_ms: 86_400_000, partial_files_check_every_ms: 86_400_000 }
    }
}

impl StoreSettings {
    /// Refuses impossible values: the key, and what is allowed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        // A put takes a minute at most.
        if self.partial_files_keep_ms < 120_000 {
            return Err(("partial_files_keep_ms", "120000 (two minutes) or more".to_owned()));
        }
        if self.partial_files_check_every_ms < 1_000 {
            return Err(("partial_files_check_every_ms", "1000 or more".to_owned()));
        }
        Ok(())
    }
}

/// A walk through a folder that can be interrupted.
pub struct PartialFiles {
    root: PathBuf,
    walk: Box<dyn Iterator<Item = walkdir::Result<DirEntry>> + Send>,
}

impl PartialFiles {
    /// From the beginning.
    pub fn of(root: &Path) -> Self {
        let walk = WalkDir::new(root).min_depth(1).into_iter().filter_entry(is_ours);
        Self { root: root.to_owned(), walk: Box::new(walk) }
    }

    /// Looks at the next files and folders, `max` at most, and removes what was left before a time. Returns how much that was, or
    /// nothing at the end. What cannot be read or removed stays.
    pub fn step(&mut self, max: usize, before: Time) -> Option<usize> {
        let mut removed = None;
        for entry in self.walk.by_ref().take(max) {
            let count = removed.get_or_insert(0);
            let Ok(entry) = entry else { continue };
            if is_left(&self.root, &entry, before) && std::fs::remove_file(entry.path()).is_ok() {
                *count += 1;
            }
        }
        removed
    }
}

fn is_left(root: &Path, entry: &DirEntry, before: Time) -> bool {
    let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
    if !entry.file_type().is_file() || !is_half_written(relative) {
        return false;
    }
    let changed = entry.metadata().ok().and_then(|file| file.modified().ok());
    changed.is_some_and(|changed| changed < UNIX_EPOCH + Duration::from_millis(before))
}

/// Whether a file or folder may be of the output: below a tenant's folder only those of its kinds of objects are.
fn is_ours(entry: &DirEntry) -> bool {
    let named = |names: &[&str]| entry.file_name().to_str().is_some_and(|name| names.contains(&name));
    entry.depth() != 2 || !entry.file_type().is_dir() || named(&KINDS)
}

/// Whether a put writes to such a name: that of an object or of a report, a sign, and a number.
fn is_half_written(relative: &Path) -> bool {
    let parts: Option<Vec<&str>> = relative.iter().map(OsStr::to_str).collect();
    let Some((name, number)) = parts.as_ref().and_then(|parts| parts.last()?.rsplit_once('#')) else { return false };
    if number.is_empty() || !number.bytes().all(|c| c.is_ascii_digit()) {
        return false;
    }
    match &parts.unwrap_or_default()[..] {
        [_] | [_, _] => name == REPORT,
        [_, kind, first, ..] => {
            KINDS.contains(kind) && first.len() == 2 && first.bytes().all(|c| c.is_ascii_hexdigit())
        }
        [] => false,
    }
}

/// Sweeps an output folder again and again.
pub async fn remove_partial_files(root: PathBuf, settings: StoreSettings, clock: Arc<dyn Clock>) -> Result<(), Fault> {
    loop {
        let (mut files, mut removed) = (PartialFiles::of(&root), 0);
        loop {
            let before = clock.now().saturating_sub(settings.partial_files_keep_ms);
            let (swept, count) = blocking(move || {
                let count = files.step(STEP, before);
                Ok((files, count))
            })
            .await?;
            let Some(count) = count else { break };
            (files, removed) = (swept, removed + count);
            tokio::time::sleep(PAUSE).await;
        }
        if removed > 0 {
            tracing::info!(
                "{removed} files that were half written when a process was killed are removed from {}",
                root.display()
            );
        }
        tokio::time::sleep(Duration::from_millis(settings.partial_files_check_every_ms)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_half_written_is_told_by_its_place_and_name() {
        let left = ["report.html#1", "acme/report.html#23", "t/images/ab/abcd.jpg#1", "t/faces/ab/abcd/0.jpg#7"];
        let others = [
            "song#1",
            "t/song#1",
            "t/images/ab/abcd.jpg",
            "t/images/ab/abcd.jpg#",
            "t/images/ab/abcd.jpg#x",
            "t/images/long/abcd.jpg#1",
            "t/music/ab/abcd.jpg#1",
        ];
        assert!(left.iter().all(|name| is_half_written(Path::new(name))));
        assert!(!others.iter().any(|name| is_half_written(Path::new(name))));
    }

    #[test]
    fn what_is_old_is_removed_a_part_at_a_time_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = |name: &str, age_ms: u64| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("makes it");
            let file = std::fs::File::create(&path).expect("makes it");
            file.set_modified(UNIX_EPOCH + Duration::from_millis(10_000 - age_ms)).expect("sets");
            path
        };
        let left: Vec<_> = (0..50).map(|n| file(&format!("t/images/{n:02x}/{n}.jpg#1"), 2_000)).collect();
        let stay = [
            file("t/images/00/whole.jpg", 2_000),
            file("t/images/00/young.jpg#1", 10),
            file("song#1", 2_000),
            file("t/music/00/song#1", 2_000),
        ];
        let (mut files, mut steps) = (PartialFiles::of(dir.path()), vec![]);
        while let Some(removed) = files.step(10, 9_000) {
            steps.push(removed);
        }
        assert!(steps.len() > 9 && steps.iter().all(|removed| *removed <= 10), "{steps:?}");
        assert_eq!(steps.iter().sum::<usize>(), 50);
        assert!(left.iter().all(|path| !path.exists()) && stay.iter().all(|path| path.exists()));
    }

    #[test]
    fn times_that_a_put_may_need_are_refused() {
        assert_eq!(StoreSettings::default().check(), Ok(()));
        let short = StoreSettings { partial_files_keep_ms: 60_000, ..StoreSettings::default() };
        assert_eq!(short.check().expect_err("is too short").0, "partial_files_keep_ms");
        let often = StoreSettings { partial_files_check_every_ms: 1, ..StoreSettings::default() };
        assert_eq!(often.check().expect_err("is too often").0, "partial_files_check_every_ms");
    }
}
