//! Pages: to fetch, and as they were when they were read.

use serde::{Deserialize, Serialize};
use url::Url;

use super::host::HostState;
use super::image::Image;
use super::job::JobId;
use super::key::Key;

/// A page to fetch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// The job that discovered it first.
    #[serde(default = "JobId::of_log")]
    pub job: JobId,
    /// Its normalised address.
    pub url: Url,
    /// The entry of the site list through which it was reached.
    pub site: Url,
    /// Links followed from the start page: 0 for the start page itself.
    pub depth: u32,
    /// Tries that failed so far.
    pub attempts: u32,
    /// Those of them that count towards no limit: it was rejected before.
    #[serde(default, alias = "spared")]
    pub uncounted: u32,
    /// Keys of pages that its links must not choose again (the start page and its listing pages), for a bounded crawl.
    pub skip: Vec<Key>,
    /// What it was when it was read last, if it is looked at again.
    #[serde(default)]
    pub last: Option<PageVersion>,
    /// What was known of its host when it was dispatched, if that was failing.
    #[serde(default)]
    pub host: Option<Box<HostState>>,
}

impl Page {
    /// The start page of a site that `job` names.
    pub fn start(job: JobId, site: Url) -> Self {
        Self { job, url: site.clone(), site, depth: 0, attempts: 0, uncounted: 0, skip: vec![], last: None, host: None }
    }

    /// Its identity.
    pub fn key(&self) -> Key {
        Key::page(&self.url)
    }
}

/// What a page was when it was read, and how often it is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PageVersion {
    /// Where redirects ended: whose validators these are.
    pub url: Option<Url>,
    /// Its `ETag` header.
    pub etag: Option<String>,
    /// Its `Last-Modified` header.
    pub last_modified: Option<String>,
    /// A digest of its links and images.
    pub digest: u64,
    /// How long after this reading it is looked at again, in milliseconds.
    pub interval_ms: u64,
}

/// What a page turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PageKind {
    /// A page for readers (or a picture): its links are navigation.
    Page,
    /// A sitemap, a sitemap index or a feed: its links are entries in their own right, pages or further feeds.
    #[serde(alias = "Listing")]
    Feed,
}

/// A page that was fetched and read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Visit {
    /// The page.
    pub page: Page,
    /// What was read.
    pub kind: PageKind,
    /// Where redirects ended.
    pub final_url: Url,
    /// The final HTTP status; 304 for a page that has not changed since its last reading, whose links and images are not
    /// given again.
    pub http_status: u16,
    /// Its `ETag` header.
    pub etag: Option<String>,
    /// Its `Last-Modified` header.
    pub last_modified: Option<String>,
    /// Every link of the page to its own site, in document order, each once; those of a feed too.
    pub links: Vec<Url>,
    /// Every picture it shows, in document order, each once. `alternates` are set; `attempts` is 0.
    pub images: Vec<Image>,
}

impl Visit {
    /// Whether the page is as it was when it was read last, by the word of its server.
    pub fn is_unchanged(&self) -> bool {
        self.http_status == 304
    }
}
