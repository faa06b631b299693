//! Where sites and pictures come from.

use std::collections::HashSet;

use url::Url;

use crate::clock::Time;
use crate::record::Key;

/// A source of a running job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u64);

/// What a source has at the moment.
#[derive(Debug)]
pub enum SourceItem {
    /// A site to crawl.
    Site(Url),
    /// A picture that is no page's: a file on this machine.
    Picture {
        /// Where it is.
        url: Url,
        /// When it was changed last, and its size: another version is another picture.
        version: String,
    },
    /// The key of a site's page: it is no longer on the list, so its pages are not looked at again.
    Removed(Key),
    /// An entry that is not a site, and why; it is reported and counted, and the source goes on.
    Bad(String),
    /// What it watches is gone or cannot be read for now, and why; it is reported, and the source goes on. No entry is concerned.
    Unreadable(String),
    /// What it watches is back and can be read, in words.
    Readable(String),
    /// The rest cannot be read, and why: the run fails, and goes on from its ledger when it is started again.
    Failed(String),
    /// Nothing now; ask again later.
    Later,
    /// Nothing, ever again.
    End,
}

/// A sequence of sites and pictures, read lazily.
pub trait Source: Send {
    /// The next entry. Called on a thread that may block, but other sources wait for it: it should answer in a moment.
    fn poll(&mut self, now: Time) -> SourceItem;

    /// Of a list that may lose entries while nobody reads it: its name, under which the ledger notes which sites it named.
    fn list(&self) -> Option<&str> {
        None
    }

    /// Called once, before the first poll of such a list: the sites it named when it was read last, by the keys of their pages.
    /// They need not be named again, and those that it does not name any more are removed.
    fn remember(&mut self, sites: HashSet<Key>) {
        drop(sites);
    }

    /// Whether it named the site with this page when it was read last: then no other list removes it, and if it does not any more,
    /// it says so itself.
    fn names(&self, site: &Key) -> bool {
        let _ = site;
        false
    }

    /// Whether what it names is known, as far as it can be: until then no other list removes anything.
    fn is_read(&self) -> bool {
        true
    }
}
