//! The lock of a state directory: one writing process at a time.
//!
//! The operating system holds it and lets go of it when the process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Error, ErrorKind, Read, Seek, Write};
use std::path::Path;

use super::OpenError;

const NAME: &str = "lock";

/// Held for as long as it lives.
#[derive(Debug)]
pub(super) struct StateLock(#[allow(dead_code, reason = "the open file is the lock")] File);

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
        Ok(Self(file))
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
