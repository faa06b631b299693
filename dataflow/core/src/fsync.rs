//! Entries of folders on disk: a file that was synced is still lost in a power cut if the entry that names it is not there.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Brings the entry of `path` to disk, and those of the folders that it is in, up to the first of which `known` says that
/// this was done already.
///
/// Whoever made them, and in whatever process: that one may have been killed before it could sync. Folders that may not be
/// opened or cannot be synced are no matter of ours, so they are left out.
pub fn sync_entries(path: &Path, known: impl Fn(&Path) -> bool) -> io::Result<()> {
    for folder in path.canonicalize()?.ancestors().skip(1) {
        match File::open(folder).and_then(|folder| folder.sync_all()) {
            Err(error) if !left_out(error.kind()) => return Err(error),
            _ => {}
        }
        if known(folder) {
            break;
        }
    }
    Ok(())
}

fn left_out(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::ReadOnlyFilesystem
    )
}
