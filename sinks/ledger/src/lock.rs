//! The lock of a state directory: one writing process at a time.
//!
//! The operating system holds it and lets go of it when the process ends, however it ends. The writers of that process, one for each
//! tenant, share it, and write one after the other. Promise: they take turns in the order in which they asked, so that one that
//! always has something to write delays each of the others by one transaction.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Error, ErrorKind, Read, Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use super::OpenError;

const NAME: &str = "lock";

/// Held for as long as it lives.
#[derive(Debug)]
pub(super) struct StateLock {
    #[allow(dead_code, reason = "the open file is the lock")]
    file: File,
    /// Writers that have ever shared it.
    writers: AtomicUsize,
    tickets: Mutex<Tickets>,
    turn_ended: Condvar,
}

/// Who may write, as in a shop: whoever comes takes the next number, and they are called in order.
#[derive(Debug, Default)]
struct Tickets {
    next: u64,
    called: u64,
}

/// The turn of a writer, until it is dropped.
pub(super) struct WriteLockGuard<'l>(&'l StateLock);

/// The lock of a directory as the writers of a process share it. Clones share it; the last writer lets go of it.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedLock(Arc<Mutex<Weak<StateLock>>>);

impl SharedLock {
    /// The lock of `dir`, which is taken if no writer that shares it has it yet.
    pub fn take(&self, dir: &Path) -> Result<Arc<StateLock>, OpenError> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = match shared.upgrade() {
            Some(lock) => lock,
            None => Arc::new(StateLock::take(dir)?),
        };
        lock.writers.fetch_add(1, Relaxed);
        *shared = Arc::downgrade(&lock);
        Ok(lock)
    }
}

impl StateLock {
    /// Locks `dir`, or says who has it.
    pub fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(NAME);
        let refused = |error: Error| unwritable(dir, &error);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(refused)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse { place: dir.display().to_string(), by: holder(&file) });
            }
            Err(TryLockError::Error(error)) => return Err(refused(error)),
        }
        let written =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
        written.map_err(refused)?;
        let (writers, tickets, turn_ended) = (AtomicUsize::new(0), Mutex::default(), Condvar::new());
        Ok(Self { file, writers, tickets, turn_ended })
    }

    /// Whether more than one writer has ever shared it: then others may have written since this one did.
    pub fn is_shared(&self) -> bool {
        self.writers.load(Relaxed) > 1
    }

    /// Waits until it is this writer's turn.
    pub fn write_turn(&self) -> WriteLockGuard<'_> {
        let mut tickets = self.tickets();
        let own = tickets.next;
        tickets.next += 1;
        while tickets.called != own {
            tickets = self.turn_ended.wait(tickets).unwrap_or_else(PoisonError::into_inner);
        }
        WriteLockGuard(self)
    }

    fn tickets(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WriteLockGuard<'_> {
    fn drop(&mut self) {
        self.0.tickets().called += 1;
        self.0.turn_ended.notify_all();
    }
}

/// What to say of a folder that cannot be made or written to.
pub(super) fn unwritable(dir: &Path, error: &Error) -> OpenError {
    let advice = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "; it must be writable for this: make it so, or name another --state (faceflow results, status, explain and \
             doctor read it as it is)"
        }
        _ => "",
    };
    OpenError::Storage { place: dir.display().to_string(), reason: format!("{error}{advice}") }
}

/// The process whose id is in the file; empty where it cannot be read.
fn holder(file: &File) -> String {
    let mut text = String::new();
    let read = file.take(32).read_to_string(&mut text);
    match read.ok().and_then(|_| text.trim().parse::<u32>().ok()) {
        Some(id) => format!(" (process {id})"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn writers_share_a_lock_until_the_last_one_is_gone() {
        let dir = tempfile::tempdir().expect("a folder");
        let shared = SharedLock::default();
        let first = shared.take(dir.path()).expect("nobody has it");
        assert!(!first.is_shared());
        let second = shared.clone().take(dir.path()).expect("it is shared");
        assert!(first.is_shared());
        let other = SharedLock::default().take(dir.path()).expect_err("is refused");
        assert!(matches!(other, OpenError::InUse { .. }), "{other}");
        drop(first);
        assert!(SharedLock::default().take(dir.path()).is_err(), "one has it still");
        drop(second);
        let again = SharedLock::default().take(dir.path()).expect("nobody has it");
        assert!(!again.is_shared());
    }

    #[test]
    fn writers_are_called_in_the_order_in_which_they_asked() {
        let dir = tempfile::tempdir().expect("a folder");
        let lock = SharedLock::default().take(dir.path()).expect("nobody has it");
        let (tell, told) = mpsc::channel();
        let turn = lock.write_turn();
        let waiting: Vec<_> = (0..5_u64)
            .map(|n| {
                let (theirs, tell) = (Arc::clone(&lock), tell.clone());
                let waiting = std::thread::spawn(move || {
                    let _turn = theirs.write_turn();
                    tell.send(n).expect("somebody listens");
                });
                // It has its ticket before the next one asks.
                while lock.tickets().next < n + 2 {
                    std::thread::yield_now();
                }
                waiting
            })
            .collect();
        assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Empty));
        drop(turn);
        waiting.into_iter().for_each(|writer| writer.join().expect("ends"));
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }
}
