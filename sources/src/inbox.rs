//! The inbox as the pipeline reads it, and how it is emptied.
//!
//! Once everything in it was read and is in the ledger, nobody needs it: it is cut to nothing, in one step, so that a kill leaves
//! all of it or none. Until then it stays as it is, for a restart reads it again. Memory is bounded by one part of it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use faceflow_core::Time;
use faceflow_core::kill_point::kill_point;
use url::Url;

use crate::site_file::{LINE_MAX_BYTES, ParseSite};

/// A smaller inbox is left alone.
pub(crate) const EMPTIED_FROM_BYTES: u64 = 64 * 1024;
/// Lines looked at in one poll.
const PART_LINES: usize = 1_000;
/// How long to wait after a line was not in the ledger yet, in milliseconds.
const PAUSE_MS: u64 = 1_000;

/// How many sites, from the first on, the ledger has taken in and has on disk, whatever became of them since.
pub type TakenUp = Box<dyn Fn(&[Url]) -> io::Result<usize> + Send>;

/// The inbox as far as it is on disk.
pub(crate) struct InboxReader {
    pub file: File,
    /// How much was read.
    pub read: Arc<AtomicU64>,
    /// How much is on disk, whole lines all of it.
    pub kept: Arc<AtomicU64>,
}

impl Read for InboxReader {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let at = self.read.load(SeqCst);
        let left = self.kept.load(SeqCst).saturating_sub(at);
        let room_len = room.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut room[..room_len], at)?;
        self.read.store(at + read as u64, SeqCst);
        Ok(read)
    }
}

/// Empties the inbox.
pub(crate) struct InboxTruncation {
    /// What submissions are appended to.
    pub inbox: Arc<Mutex<File>>,
    /// For reading what is looked at.
    pub file: File,
    pub read: Arc<AtomicU64>,
    pub kept: Arc<AtomicU64>,
    pub parse: ParseSite,
    pub taken_up: TakenUp,
    /// Up to here everything is in the ledger.
    pub checked: u64,
    pub not_before: Time,
}

impl InboxTruncation {
    /// Goes on, where everything that is kept was read. Called by whoever reads the inbox, between two reads.
    pub fn go_on(&mut self, now: Time) -> io::Result<()> {
        let kept = self.kept.load(SeqCst);
        if now < self.not_before || kept < EMPTIED_FROM_BYTES || self.read.load(SeqCst) != kept {
            return Ok(());
        }
        if self.checked < kept && !self.check(kept)? {
            self.not_before = now.saturating_add(PAUSE_MS);
        }
        if self.checked < kept {
            return Ok(());
        }
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        // Another submission may have come before the lock did.
        if self.kept.load(SeqCst) == kept {
            kill_point("inbox.empty");
            inbox.set_len(0)?;
            self.kept.store(0, SeqCst);
            self.read.store(0, SeqCst);
            self.checked = 0;
        }
        Ok(())
    }

    /// Looks at the next lines up to `kept`; whether all of those are in the ledger.
    fn check(&mut self, kept: u64) -> io::Result<bool> {
        self.file.seek(SeekFrom::Start(self.checked))?;
        let mut lines = BufReader::new((&mut self.file).take(kept - self.checked));
        let (mut sites, mut ends, mut at) = (Vec::new(), Vec::new(), self.checked);
        while sites.len() < PART_LINES {
            let mut line = Vec::new();
            let read = lines.by_ref().take(LINE_MAX_BYTES).read_until(b'\n', &mut line)?;
            if read == 0 {
                break;
            }
            at += read as u64;
            // What is no site was not written by us, and stays.
            let Ok(site) = (self.parse)(String::from_utf8_lossy(&line).trim()) else { break };
            sites.push(site);
            ends.push(at);
        }
        let taken = (self.taken_up)(&sites)?.min(sites.len());
        self.checked = taken.checked_sub(1).map_or(self.checked, |last| ends[last]);
        Ok(taken > 0 && taken == sites.len())
    }
}
