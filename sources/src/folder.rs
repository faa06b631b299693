//! A folder of pictures that is watched: every picture in it is taken in, and those that arrive later too.
//!
//! A file counts once it was the same in two looks, so that one that is still being written is not read too early. Hidden
//! files and links are left alone. A folder that cannot be read is named once, and again when it can. Promise: a picture that keeps its name, time and size is taken in once, and one that
//! changes after it was taken in is taken in anew.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::DirEntry;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use faceflow_core::Time;
use faceflow_core::record::Key;
use faceflow_core::source::{Source, SourceItem};
use url::Url;

/// Endings of the names of pictures, in lower case.
const ENDINGS: [&str; 14] =
    ["jpg", "jpeg", "jpe", "jfif", "png", "apng", "gif", "webp", "bmp", "tif", "tiff", "avif", "heic", "jxl"];
/// The time between two looks, in milliseconds; ten times as long as a look takes, if that is more.
const LOOK_MS: Time = 1_000;
/// While no folder has changed, files are looked at only every so many looks: only one that is written to in its place changes no
/// folder.
const GLANCES: u32 = 10;
/// Folders below the watched one, at most.
const DEPTH_MAX: usize = 64;

/// A watched folder of pictures.
pub struct Folder {
    root: PathBuf,
    known: HashMap<Key, Seen>,
    ready: VecDeque<(Url, String)>,
    /// Every folder, and when it was changed last, as of the last look at all files.
    folders: Vec<(PathBuf, Option<SystemTime>)>,
    /// Looks since then.
    glances: u32,
    /// Whether some file was not the same twice yet.
    restless: bool,
    next_look: Time,
    complaints: VecDeque<SourceItem>,
    complained: HashSet<PathBuf>,
}

struct Seen {
    bytes: u64,
    modified: Option<SystemTime>,
    taken: bool,
}

impl Seen {
    /// When the file was changed last, in milliseconds since the Unix epoch, and its size.
    fn version(&self) -> String {
        let modified = self.modified.and_then(|modified| modified.duration_since(SystemTime::UNIX_EPOCH).ok());
        format!("{}-{}", modified.unwrap_or_default().as_millis(), self.bytes)
    }
}

impl Folder {
    /// Watches the folder at `root`, which must be there now.
    pub fn open(root: &Path) -> std::io::Result<Self> {
        let root = root.canonicalize()?;
        if !root.is_dir() {
            return Err(std::io::ErrorKind::NotADirectory.into());
        }
        Ok(Self {
            root,
            known: HashMap::new(),
            ready: VecDeque::new(),
            folders: Vec::new(),
            glances: 0,
            restless: true,
            next_look: 0,
            complaints: VecDeque::new(),
            complained: HashSet::new(),
        })
    }

    /// The folder's own address: the site and page of its pictures.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Looks at all files if there may be something new.
    fn glance(&mut self) {
        self.glances += 1;
        let changed = |(folder, when): &(PathBuf, _)| changed_at(folder) != *when;
        if self.restless || self.glances >= GLANCES || self.folders.iter().any(changed) {
            (self.glances, self.restless) = (0, false);
            self.folders.clear();
            self.look(&self.root.clone(), 0);
        }
    }

    fn look(&mut self, folder: &Path, depth: usize) {
        // What changes it from here on is seen next time.
        self.folders.push((folder.to_owned(), changed_at(folder)));
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return self.complain(folder, &error),
        };
        let mut whole = true;
        for entry in entries {
            match entry {
                Ok(entry) => self.look_at(&entry, depth),
                Err(error) => {
                    whole = false;
                    self.complain(folder, &error);
                }
            }
        }
        if whole && self.complained.remove(folder) {
            let said = format!("{} is back, and is watched as before", folder.display());
            self.complaints.push_back(SourceItem::Readable(said));
        }
    }

    fn look_at(&mut self, entry: &DirEntry, depth: usize) {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        // Of the entry itself, not of what a link points to.
        let Ok(metadata) = entry.metadata() else { return };
        if hidden {
            return;
        }
        if metadata.is_dir() && depth < DEPTH_MAX {
            return self.look(&path, depth + 1);
        }
        if !metadata.is_file() || !is_named_like_picture(&path) {
            return;
        }
        let Ok(url) = Url::from_file_path(&path) else { return };
        let now = Seen { bytes: metadata.len(), modified: metadata.modified().ok(), taken: false };
        match self.known.get_mut(&Key::image(&url)) {
            Some(seen) if seen.bytes == now.bytes && seen.modified == now.modified => {
                if !std::mem::replace(&mut seen.taken, true) {
                    self.ready.push_back((url, now.version()));
                }
            }
            _ => {
                self.restless = true;
                self.known.insert(Key::image(&url), now);
            }
        }
    }

    fn complain(&mut self, folder: &Path, error: &std::io::Error) {
        if self.complained.insert(folder.to_owned()) {
            let said = format!("{}: {error}; it is looked at again when it is back", folder.display());
            self.complaints.push_back(SourceItem::Unreadable(said));
        }
    }
}

/// Whether the name of a file ends like a picture's, in small letters or capitals.
pub fn is_named_like_picture(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

fn changed_at(folder: &Path) -> Option<SystemTime> {
    std::fs::metadata(folder).and_then(|metadata| metadata.modified()).ok()
}

impl Source for Folder {
    fn poll(&mut self, now: Time) -> SourceItem {
        if let Some((url, version)) = self.ready.pop_front() {
            return SourceItem::Picture { url, version };
        }
        if let Some(said) = self.complaints.pop_front() {
            return said;
        }
        if now >= self.next_look {
            // The pipeline's clock does not move inside a poll, so a look is timed by the machine's own.
            #[allow(clippy::disallowed_methods)]
            let began = std::time::Instant::now();
            self.glance();
            self.next_look = now + LOOK_MS.max(10 * began.elapsed().as_millis() as Time);
        }
        SourceItem::Later
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(folder: &mut Folder, now: Time) -> Vec<String> {
        let mut said = Vec::new();
        // The first poll may look, the next ones tell.
        folder.poll(now);
        loop {
            match folder.poll(now) {
                SourceItem::Picture { url, .. } => {
                    said.push(url.path().rsplit('/').next().unwrap_or_default().to_owned())
                }
                SourceItem::Unreadable(why) | SourceItem::Readable(why) => said.push(why),
                SourceItem::Later => {
                    said.sort();
                    return said;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn away_from(root: &Path) -> PathBuf {
        root.with_extension("away")
    }

    #[test]
    fn pictures_are_taken_once_they_rest_and_nothing_else_is() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(root.path().join(name), text).expect("writes");
        std::fs::create_dir(root.path().join("deep")).expect("makes");
        for name in ["a.jpg", "deep/b.PNG", ".hidden.jpg", "c.jpg.part", "notes.txt"] {
            write(name, "x");
        }
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("link.jpg")).expect("links");
        let mut folder = Folder::open(root.path()).expect("opens");
        assert_eq!(said(&mut folder, 0), [] as [&str; 0], "they may still be written");
        write("a.jpg", "xy");
        assert_eq!(said(&mut folder, 10_000), ["b.PNG"], "one still grows");
        std::fs::rename(root.path().join("c.jpg.part"), root.path().join("c.jpg")).expect("renames");
        assert_eq!(said(&mut folder, 20_000), ["a.jpg"]);
        assert_eq!(said(&mut folder, 30_000), ["c.jpg"], "a download that is complete gets its name");
        assert_eq!(said(&mut folder, 40_000), [] as [&str; 0]);
        let until_sure = |folder: &mut Folder, from: Time| -> Vec<String> {
            (0..=u64::from(GLANCES)).flat_map(|look| said(folder, from + look * LOOK_MS)).collect()
        };
        write("a.jpg", "xyz");
        assert_eq!(until_sure(&mut folder, 50_000), ["a.jpg"], "another picture has its name");
        assert_eq!(until_sure(&mut folder, 70_000), [] as [&str; 0]);
        let old = std::fs::File::options().write(true).open(root.path().join("a.jpg")).expect("opens");
        old.set_modified(SystemTime::UNIX_EPOCH - std::time::Duration::from_secs(1)).expect("is set");
        assert_eq!(until_sure(&mut folder, 90_000), ["a.jpg"], "whatever its time");
        write("deep/d.jpg", "x");
        assert_eq!(said(&mut folder, 120_000), [] as [&str; 0]);
        assert_eq!(said(&mut folder, 121_000), ["d.jpg"], "what is new is seen at the next look");
        for round in [200_000, 300_000] {
            std::fs::rename(root.path(), away_from(root.path())).expect("renames");
            let gone = said(&mut folder, round);
            assert!(gone.len() == 1 && gone[0].contains("looked at again when it is back"), "{gone:?}");
            assert_eq!(said(&mut folder, round + 1_000), [] as [&str; 0], "it is said once");
            std::fs::rename(away_from(root.path()), root.path()).expect("renames");
            let back = said(&mut folder, round + 2_000);
            assert!(back.len() == 1 && back[0].contains("is back"), "{back:?}");
        }
        assert!(Folder::open(&root.path().join("a.jpg")).is_err() && Folder::open(Path::new("/nowhere")).is_err());
    }
}
