//! Folders whose entries are on disk, for outputs that survive a power cut.

use std::io;
use std::path::{Path as Folder, PathBuf};
use std::sync::Mutex;

use faceflow_core::fsync::sync_entries;
use object_store::path::Path;

use super::recent::{Recent, lock};

/// A folder whose objects survive a power cut.
pub struct Durable {
    root: PathBuf,
    /// Folders in it whose entries are on disk, and all above them.
    folders: Mutex<Recent>,
}

impl Durable {
    pub fn new(root: &Folder) -> Self {
        Self { root: root.to_owned(), folders: Mutex::default() }
    }

    /// Makes the folders of an object, with their entries on disk. The store does that for folders which it makes itself, and
    /// not for those that another put makes at the same time or that a killed process has left.
    pub fn make_folders(&self, path: &Path) -> io::Result<()> {
        let names: Vec<String> = path.parts().map(|part| part.as_ref().to_owned()).collect();
        let mut folder = self.root.clone();
        for name in &names[..names.len().saturating_sub(1)] {
            folder.push(name);
            let key = folder.to_string_lossy().into_owned();
            if lock(&self.folders).holds(&key) {
                continue;
            }
            std::fs::create_dir_all(&folder)?;
            // What is above it has been seen to, in this loop or when the output was opened.
            sync_entries(&folder, |_| true)?;
            lock(&self.folders).add(key);
        }
        Ok(())
    }
}
