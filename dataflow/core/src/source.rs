//! Where sites come from.

use url::Url;

use crate::clock::Time;
use crate::record::Key;

/// What a source has at the moment.
#[derive(Debug)]
pub enum Poll {
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
    fn poll(&mut self, now: Time) -> Poll;
}
