//! The inbox as the pipeline reads it, and how it is emptied.
//!
//! What is in the ledger, nobody needs here any more. Once that is all of it, the inbox is cut to nothing; while submissions never
//! pause, what is left is written to a file beside it, which takes its place. So it has no more bytes than twice what is not in the
//! ledger yet, and a little. Promise: either is one step, so that a kill leaves every line that is still needed; lines that
//! are no sites, which somebody else wrote there, are put into a file of their own first. Memory is bounded by one part of it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use faceflow_core::Time;
use faceflow_core::fsync::sync_entries;
use faceflow_core::kill_point::kill_point;
use url::Url;

use crate::site_file::{LINE_MAX_BYTES, ParseSite, entry_in};

/// A smaller inbox is left alone.
pub(crate) const EMPTIED_FROM_BYTES: u64 = 64 * 1024;
/// Lines looked at together.
pub(crate) const PART_LINES: usize = 1_000;
/// Parts looked at in one poll.
const PARTS_MAX: usize = 4;
/// So many bytes of lines are enough to look at together.
const PART_BYTES: u64 = 1 << 20;
/// How long to wait after a line was not in the ledger yet, in milliseconds.
const PAUSE_MS: u64 = 1_000;
/// What the name of the file ends with that takes the place of an inbox.
const NEXT: &str = ".next";
/// What the name of the file ends with that keeps lines which are no sites.
const REFUSED: &str = ".refused";

/// How many sites, from the first on, the ledger has taken in and has on disk, whatever became of them since.
pub type TakenUp = Box<dyn Fn(&[Url]) -> io::Result<usize> + Send>;

/// Lines that are no sites are held in memory, until they are taken out, up to so many bytes. More are kept at once, and may be kept
/// once more if the process is killed before they are taken out.
const REFUSED_HELD_BYTES: usize = 1 << 20;

/// The file that is appended to, held by this process alone.
pub(crate) struct Inbox {
    pub file: File,
    path: PathBuf,
    /// Whether its entry in its folder is on disk.
    is_named: bool,
}

impl Inbox {
    /// Opens the inbox at `path`, and makes it if it is not there. It is refused while another process holds it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let held = || io::Error::other(format!("another process keeps {}", path.display()));
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => held(),
            TryLockError::Error(error) => error,
        })?;
        // Whoever held it may have put another file in its place between the two steps.
        let (ours, there) = (file.metadata()?, std::fs::metadata(path)?);
        if (ours.dev(), ours.ino()) != (there.dev(), there.ino()) {
            return Err(held());
        }
        // Where a link leads: what takes its place lies on the same disk.
        let path = path.canonicalize()?;
        // Written by a process that was killed before it took the place of this one.
        remove(&named(&path, NEXT))?;
        Ok(Self { file, path, is_named: false })
    }

    /// Brings its entry to disk, if that is not sure. Before that nothing may be answered for.
    pub fn sync_entry(&mut self) -> io::Result<()> {
        if !self.is_named {
            sync_entries(&self.path, |_| false)?;
            self.is_named = true;
        }
        Ok(())
    }

    /// Goes on with a file that has only what is from `start` to `end`. Returns a handle for reading it.
    fn drop_before(&mut self, start: u64, end: u64) -> io::Result<File> {
        let next = named(&self.path, NEXT);
        remove(&next)?;
        let mut file = OpenOptions::new().read(true).append(true).create_new(true).open(&next)?;
        let replaced = (|| {
            // Before it has the name by which others would open it.
            file.try_lock().map_err(io::Error::from)?;
            let before = self.file.metadata()?;
            file.set_permissions(before.permissions())?;
            // Only root may give a file away; others own it already.
            if file.metadata()?.uid() != before.uid() || file.metadata()?.gid() != before.gid() {
                std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()))?;
            }
            io::copy(&mut Part { file: &self.file, at: start, end }, &mut file)?;
            file.sync_all()?;
            let reading = file.try_clone()?;
            kill_point("inbox.rewritten");
            std::fs::rename(&next, &self.path)?;
            Ok(reading)
        })();
        let reading = match replaced {
            Ok(reading) => reading,
            Err(error) => {
                remove(&next)?;
                return Err(error);
            }
        };
        kill_point("inbox.replaced");
        (self.file, self.is_named) = (file, false);
        Ok(reading)
    }

    /// Appends lines that are no sites to the file that keeps them, on disk before it returns.
    fn keep_refused(&self, lines: &[u8]) -> io::Result<PathBuf> {
        let path = named(&self.path, REFUSED);
        let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
        file.write_all(lines)?;
        file.sync_all()?;
        sync_entries(&path, |_| false)?;
        Ok(path)
    }
}

fn named(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Part of a file.
struct Part<'f> {
    file: &'f File,
    at: u64,
    end: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = room.len().min(left);
        let read = self.file.read_at(&mut room[..most], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// A handle for reading, which follows the inbox from file to file.
pub(crate) type Reading = Arc<Mutex<File>>;

fn locked(reading: &Reading) -> MutexGuard<'_, File> {
    reading.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The inbox as far as it is on disk.
pub(crate) struct InboxReader {
    pub file: Reading,
    /// How much was read.
    pub read: Arc<AtomicU64>,
    /// How much is on disk, whole lines all of it.
    pub kept: Arc<AtomicU64>,
}

impl Read for InboxReader {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let at = self.read.load(SeqCst);
        let read = Part { file: &locked(&self.file), at, end: self.kept.load(SeqCst) }.read(room)?;
        self.read.store(at + read as u64, SeqCst);
        Ok(read)
    }
}

/// Empties the inbox.
pub(crate) struct InboxTruncation {
    /// What submissions are appended to.
    pub inbox: Arc<Mutex<Inbox>>,
    /// What is read.
    pub file: Reading,
    pub read: Arc<AtomicU64>,
    pub kept: Arc<AtomicU64>,
    pub parse: ParseSite,
    pub taken_up: TakenUp,
    /// Up to here nothing is needed any more.
    pub checked: u64,
    /// The lines up to there that are no sites. They are kept elsewhere when they are taken out, so that a process which reads them
    /// again does not keep them twice.
    pub refused: Vec<u8>,
    pub not_before: Time,
}

/// A line that was looked at, and where it ends.
struct Line {
    end: u64,
    is_site: bool,
    /// One that is no site, if it might have been accepted.
    refused: Option<Vec<u8>>,
}

impl InboxTruncation {
    /// Goes on with what was read. Called by whoever reads the inbox, between two reads.
    pub fn go_on(&mut self, now: Time) -> io::Result<()> {
        if now < self.not_before || self.kept.load(SeqCst) < EMPTIED_FROM_BYTES {
            return Ok(());
        }
        let tried = self.check().and_then(|all| {
            self.shorten()?;
            Ok(all)
        });
        if !matches!(tried, Ok(true)) {
            self.not_before = now.saturating_add(PAUSE_MS);
        }
        tried.map(drop)
    }

    /// Takes what is not needed any more out of the inbox, where that is all of it or more than is left.
    fn shorten(&mut self) -> io::Result<()> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody appends from here on.
        let kept = self.kept.load(SeqCst);
        let rest = kept - self.checked;
        if rest > 0 && self.checked < rest.max(EMPTIED_FROM_BYTES) {
            return Ok(());
        }
        if !self.refused.is_empty() {
            let path = inbox.keep_refused(&self.refused)?;
            self.refused.clear();
            tracing::warn!("lines of the inbox that are no sites are in {} now", path.display());
        }
        if rest == 0 {
            kill_point("inbox.empty");
            inbox.file.set_len(0)?;
        } else {
            *locked(&self.file) = inbox.drop_before(self.checked, kept)?;
        }
        self.kept.store(rest, SeqCst);
        self.read.fetch_sub(self.checked, SeqCst);
        self.checked = 0;
        inbox.sync_entry()
    }

    /// Looks at the next lines that were read; whether none of those is needed any more.
    fn check(&mut self) -> io::Result<bool> {
        for _ in 0..PARTS_MAX {
            let read = self.read.load(SeqCst);
            if self.checked >= read {
                return Ok(true);
            }
            if !self.check_part(read)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The same for a part of them.
    fn check_part(&mut self, upto: u64) -> io::Result<bool> {
        let (lines, sites) = self.lines(upto)?;
        let taken = if sites.is_empty() { 0 } else { (self.taken_up)(&sites)?.min(sites.len()) };
        let (mut left, mut checked) = (taken, self.checked);
        for line in lines {
            if line.is_site && left == 0 {
                break;
            }
            left -= usize::from(line.is_site);
            self.refused.extend(line.refused.into_iter().flatten());
            checked = line.end;
        }
        if self.refused.len() > REFUSED_HELD_BYTES {
            let path = self.inbox.lock().unwrap_or_else(PoisonError::into_inner).keep_refused(&self.refused)?;
            self.refused.clear();
            tracing::warn!("lines of the inbox that are no sites are in {} now", path.display());
        }
        let moved = checked > self.checked;
        self.checked = checked;
        Ok(moved && taken == sites.len())
    }

    /// The next whole lines up to `upto`, as many as are looked at together, and the sites among them.
    fn lines(&self, upto: u64) -> io::Result<(Vec<Line>, Vec<Url>)> {
        let file = locked(&self.file);
        let mut text = BufReader::new(Part { file: &file, at: self.checked, end: upto });
        let (mut lines, mut sites, mut end) = (Vec::new(), Vec::new(), self.checked);
        while lines.len() < PART_LINES && end - self.checked < PART_BYTES {
            let mut line = Vec::new();
            end += text.by_ref().take(LINE_MAX_BYTES).read_until(b'\n', &mut line)? as u64;
            let mut is_long = false;
            while line.last().is_some_and(|byte| *byte != b'\n') && line.len() as u64 == LINE_MAX_BYTES {
                // No site that is accepted is as long; it was said when it was read.
                is_long = true;
                line.clear();
                end += text.by_ref().take(LINE_MAX_BYTES).read_until(b'\n', &mut line)? as u64;
            }
            if line.last() != Some(&b'\n') {
                break;
            }
            let entry = String::from_utf8_lossy(&line).into_owned();
            let site = entry_in(&entry).filter(|_| !is_long).map(|entry| (self.parse)(entry));
            let refused = matches!(site, Some(Err(_))).then_some(line);
            lines.push(Line { end, is_site: matches!(site, Some(Ok(_))), refused });
            sites.extend(site.and_then(Result::ok));
        }
        Ok((lines, sites))
    }
}
