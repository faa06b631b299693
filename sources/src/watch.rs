//! A file of sites that is watched: what is added to it is crawled while the process runs, and what is removed from it is not
//! looked at again.
//!
//! The file is read again whenever it has changed and then rested for a moment, so that a half-written one is not taken for
//! the whole; editors that replace the file are followed by its name. Sites that were there before are not repeated, also not
//! after a restart: the ledger remembers which sites the file named, and what it lost meanwhile is removed. Promise:
//! a file that is gone or cannot be read for a while ends nothing; it is reported once, and so is that it is back and read on.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use faceflow_core::Time;
use faceflow_core::record::Key;
use faceflow_core::source::{Source, SourceItem};

use crate::site_file::{Lines, ParseSite};

/// How long a file must rest before it is read again, in milliseconds.
const REST_MS: Time = 500;

/// A watched file of sites.
pub struct Watch {
    /// What the ledger knows the file by: its path on this machine, wherever the process was started.
    name: String,
    parse: ParseSite,
    known: HashSet<Key>,
    /// What the reading under way has shown so far, and what the one before showed that this one did not.
    shown: HashSet<Key>,
    removed: Vec<Key>,
    /// The reading under way.
    reading: Option<Lines>,
    file: Rested,
    missing: bool,
    /// Whether it was read to its end once.
    read: bool,
}

/// A file that changes now and then, and is read when it has changed and rests.
pub struct Rested {
    path: PathBuf,
    /// The file as it was when it was read.
    read: Option<Stamp>,
    /// The file as it was last seen, and since when it has been so.
    last: Option<(Stamp, Time)>,
}

impl Rested {
    /// A file that has not been read yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: None, last: None }
    }

    /// Whether it has changed since this was last so, and has not been touched for a moment. The error names the file.
    pub fn has_changed(&mut self, now: Time) -> std::io::Result<bool> {
        let stamp = self.stamp()?;
        if self.read == Some(stamp) {
            return Ok(false);
        }
        match self.last {
            Some((last, since)) if last == stamp && now >= since + REST_MS => {
                self.read = Some(stamp);
                Ok(true)
            }
            Some((last, _)) if last == stamp => Ok(false),
            _ => {
                self.last = Some((stamp, now));
                Ok(false)
            }
        }
    }

    /// Whether it is there, as it was when it was read.
    pub fn is_as_read(&self) -> bool {
        self.read.is_some() && self.stamp().ok() == self.read
    }

    /// As it is now it counts as read.
    pub fn take_as_read(&mut self) {
        self.read = self.stamp().ok();
    }

    /// As it is now it is read again, after another rest.
    pub fn forget(&mut self) {
        (self.read, self.last) = (None, None);
    }

    fn stamp(&self) -> std::io::Result<Stamp> {
        let metadata = std::fs::metadata(&self.path);
        let metadata = metadata.map_err(|error| std::io::Error::other(format!("{}: {error}", self.path.display())))?;
        Ok(Stamp { bytes: metadata.len(), modified: metadata.modified().ok() })
    }
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Watch {
    /// Watches the file at `path`, which must be there now.
    pub fn open(path: &Path, parse: ParseSite) -> std::io::Result<Self> {
        drop(Lines::open(path, parse)?);
        let machine = rustix::system::uname();
        let name = format!("{}:{}", machine.nodename().to_string_lossy(), std::path::absolute(path)?.display());
        let file = Rested::new(path.to_owned());
        let (known, shown, removed) = (HashSet::new(), HashSet::new(), vec![]);
        Ok(Self { name, parse, known, shown, removed, reading: None, file, missing: false, read: false })
    }

    /// Begins to read the file again if it has changed and rests.
    fn look(&mut self, now: Time) -> Option<SourceItem> {
        match self.file.has_changed(now) {
            Ok(true) => self.read(),
            // It came back as it was.
            Ok(false) if self.missing && self.file.is_as_read() => self.back(),
            Ok(false) => None,
            Err(error) => self.miss(&error),
        }
    }

    fn read(&mut self) -> Option<SourceItem> {
        match Lines::open(&self.file.path, self.parse) {
            Ok(lines) => {
                self.reading = Some(lines);
                None
            }
            Err(error) => {
                self.file.forget();
                self.miss(&std::io::Error::other(format!("{}: {error}", self.file.path.display())))
            }
        }
    }

    fn miss(&mut self, error: &std::io::Error) -> Option<SourceItem> {
        let why = format!("{error}; it is read again when it is back");
        (!std::mem::replace(&mut self.missing, true)).then_some(SourceItem::Unreadable(why))
    }

    /// Says that it is back, if that it was gone was said.
    fn back(&mut self) -> Option<SourceItem> {
        let back = || SourceItem::Readable(format!("{} is back, and is watched as before", self.file.path.display()));
        let said = self.missing.then(back);
        self.missing = false;
        said
    }
}

impl Source for Watch {
    fn list(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn remember(&mut self, sites: HashSet<Key>) {
        self.known = sites;
    }

    fn names(&self, site: &Key) -> bool {
        self.known.contains(site)
    }

    fn is_read(&self) -> bool {
        self.read || self.missing
    }

    fn poll(&mut self, now: Time) -> SourceItem {
        loop {
            let Some(lines) = &mut self.reading else {
                if let Some(removed) = self.removed.pop() {
                    self.known.remove(&removed);
                    return SourceItem::Removed(removed);
                }
                match self.look(now) {
                    Some(poll) => return poll,
                    None if self.reading.is_some() => continue,
                    None => return SourceItem::Later,
                }
            };
            match lines.poll(now) {
                SourceItem::Site(url) => {
                    self.shown.insert(Key::page(&url));
                    if self.known.insert(Key::page(&url)) {
                        return SourceItem::Site(url);
                    }
                }
                SourceItem::Failed(why) => {
                    // From the beginning, after another rest: what came through already is known.
                    self.reading = None;
                    self.file.forget();
                    self.shown.clear();
                    if let Some(poll) = self.miss(&std::io::Error::other(why)) {
                        return poll;
                    }
                    return SourceItem::Later;
                }
                SourceItem::End | SourceItem::Later => {
                    (self.reading, self.read) = (None, true);
                    let shown = std::mem::take(&mut self.shown);
                    self.removed.extend(self.known.difference(&shown));
                    if let Some(back) = self.back() {
                        return back;
                    }
                }
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use url::Url;

    fn parse(text: &str) -> Result<Url, String> {
        Url::parse(text).map_err(|error| format!("{text}: {error}"))
    }

    /// Everything the watch has to say until it has nothing.
    fn said(watch: &mut Watch, now: Time) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            match watch.poll(now) {
                SourceItem::Site(url) => said.push(url.path().to_owned()),
                SourceItem::Unreadable(why) | SourceItem::Readable(why) => said.push(why),
                SourceItem::Removed(key) => said.push(format!("-{key:?}")),
                SourceItem::Later => return said,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_a_file_lost_while_nobody_watched_it_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sites.txt");
        std::fs::write(&path, "http://a.example/1\nhttp://a.example/3\n").expect("writes");
        let mut watch = Watch::open(&path, parse).expect("opens");
        let key = |path: &str| Key::page(&parse(&format!("http://a.example{path}")).expect("a URL"));
        watch.remember(HashSet::from(["/1", "/2"].map(key)));
        assert!(watch.names(&key("/2")), "it did when it was read last");
        assert_eq!(said(&mut watch, 0), [] as [&str; 0]);
        assert_eq!(said(&mut watch, REST_MS), ["/3".to_owned(), format!("-{:?}", key("/2"))], "and repeats nothing");
        assert_eq!(["/1", "/2", "/3"].map(|path| watch.names(&key(path))), [true, false, true]);
    }

    #[test]
    fn additions_are_found_once_they_rest_and_nothing_is_repeated() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sites.txt");
        std::fs::write(&path, "http://a.example/1\nhttp://a.example/2\n").expect("writes");
        let mut watch = Watch::open(&path, parse).expect("opens");
        assert_eq!(said(&mut watch, 0), [] as [&str; 0], "somebody may be writing it just now");
        assert_eq!(said(&mut watch, REST_MS), ["/1", "/2"]);
        assert_eq!(said(&mut watch, 10_000), [] as [&str; 0]);

        std::fs::write(&path, "http://a.example/2\nhttp://a.example/3\n").expect("writes");
        std::fs::write(&path, "http://a.example/2\nhttp://a.example/3\nhttp://a.example/4 # new\n").expect("writes");
        assert_eq!(said(&mut watch, 20_000), [] as [&str; 0], "it may be half-written");
        let removed =
            |path: &str| format!("-{:?}", Key::page(&parse(&format!("http://a.example{path}")).expect("a URL")));
        assert_eq!(said(&mut watch, 20_000 + REST_MS), ["/3".to_owned(), "/4".to_owned(), removed("/1")]);

        std::fs::remove_file(&path).expect("removes");
        let missing = said(&mut watch, 30_000);
        assert!(missing.len() == 1 && missing[0].contains("sites.txt"), "{missing:?}");
        assert_eq!(said(&mut watch, 31_000), [] as [&str; 0], "it is said once");
        let other = folder.path().join("other.txt");
        std::fs::write(&other, "http://a.example/5\n").expect("writes");
        std::fs::rename(&other, &path).expect("renames");
        said(&mut watch, 40_000);
        let mut last = said(&mut watch, 40_000 + REST_MS);
        assert_eq!(last.remove(0), "/5", "a file that takes its place is read");
        assert!(last.remove(0).contains("sites.txt is back"), "and that is said");
        last.sort();
        let mut gone = ["/2", "/3", "/4"].map(removed);
        gone.sort();
        assert_eq!(last, gone, "while it was missing, nothing was removed");
        std::fs::write(&path, "http://a.example/5\nhttp://a.example/1\n").expect("writes");
        said(&mut watch, 50_000);
        assert_eq!(said(&mut watch, 50_000 + REST_MS), ["/1"], "what comes back is new");

        for round in [60_000, 70_000] {
            std::fs::rename(&path, &other).expect("renames");
            assert!(said(&mut watch, round)[0].contains("read again when it is back"), "each time");
            std::fs::rename(&other, &path).expect("renames");
            let back = said(&mut watch, round + 1_000);
            assert!(back.len() == 1 && back[0].contains("is back"), "as it was, and with nothing new: {back:?}");
            assert_eq!(said(&mut watch, round + 2_000), [] as [&str; 0]);
        }
    }
}
