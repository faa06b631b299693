//! The nouns of the pipeline: pages, images, frames, and the keys by which they are known.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use crate::clock::Time;
use crate::detector::Detection;
use crate::fault::Fault;

/// The identity of a page or image URL: the first 16 bytes of the SHA-256 of its kind and normalised URL.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(pub u128);

impl Key {
    /// The key of a page.
    pub fn page(url: &Url) -> Self {
        Self::of(b"page", url)
    }

    /// The key of an image.
    pub fn image(url: &Url) -> Self {
        Self::of(b"image", url)
    }

    fn of(kind: &[u8], url: &Url) -> Self {
        let digest = Sha256::new().chain_update(kind).chain_update([0]).chain_update(url.as_str()).finalize();
        Self(u128::from_be_bytes(std::array::from_fn(|i| digest[i])))
    }

    /// Where the key routes in an exchange.
    pub fn route(self) -> u64 {
        self.0 as u64
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}", self.0)
    }
}

/// The identity of a picture: the SHA-256 of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentId(pub [u8; 32]);

impl ContentId {
    /// The id of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Parses 64 hex digits.
    pub fn parse(hex: &str) -> Option<Self> {
        if hex.len() != 64 || !hex.is_ascii() {
            return None;
        }
        let mut id = [0; 32];
        for (i, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(Self(id))
    }

    /// Where the id routes in an exchange.
    pub fn route(&self) -> u64 {
        u64::from_be_bytes(std::array::from_fn(|i| self.0[i]))
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

/// A page to fetch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// Its normalised address.
    pub url: Url,
    /// The entry of the site list through which it was reached.
    pub site: Url,
    /// Links followed from the start page: 0 for the start page itself.
    pub depth: u32,
    /// Tries that failed so far.
    pub attempts: u32,
    /// Those of them that count towards no limit: it was rejected before.
    #[serde(default)]
    pub spared: u32,
    /// Keys of pages that its links must not choose again (the start page and its listing pages), for a bounded crawl.
    pub skip: Vec<Key>,
    /// What it was when it was read last, if it is looked at again.
    #[serde(default)]
    pub last: Option<Reading>,
}

/// What a page was when it was read, and how often it is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reading {
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

impl Page {
    /// The start page of a site.
    pub fn start(site: Url) -> Self {
        Self { url: site.clone(), site, depth: 0, attempts: 0, spared: 0, skip: vec![], last: None }
    }

    /// Its identity.
    pub fn key(&self) -> Key {
        Key::page(&self.url)
    }
}

/// An image to download.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Its normalised address; for a `data:` URI, `data:sha256,<hex of the bytes>`.
    pub url: Url,
    /// The page that showed it first.
    pub page: Url,
    /// That page's site.
    pub site: Url,
    /// Tries that failed so far.
    pub attempts: u32,
    /// Those of them that count towards no limit: the object store failed, or it was rejected before.
    #[serde(default)]
    pub spared: u32,
    /// The bytes of a `data:` URI, base64 in JSON; `None` for everything that is fetched.
    #[serde(default, with = "inline")]
    pub inline: Option<bytes::Bytes>,
    /// Other addresses of the same picture (smaller candidates of one `srcset`), best first. They are not downloaded
    /// unless this one fails.
    #[serde(default)]
    pub alternates: Vec<Url>,
    /// Of a file: when it was changed last and its size, so that one that is replaced under its name is known for a new one.
    #[serde(default)]
    pub version: Option<String>,
}

impl Image {
    /// Its identity.
    pub fn key(&self) -> Key {
        Key::image(&self.url)
    }
}

/// A perceptual hash, with the verdict on whether it says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Phash {
    /// The bits.
    pub bits: u64,
    /// Whether the picture has enough structure for the bits to mean something; a flat picture never matches another.
    pub distinctive: bool,
}

impl Phash {
    /// Hamming distance in bits.
    pub fn distance(self, other: Self) -> u32 {
        (self.bits ^ other.bits).count_ones()
    }
}

impl fmt::Display for Phash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.bits)
    }
}

/// What is known of a picture's bytes once they are decoded and kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// SHA-256 of the bytes.
    pub id: ContentId,
    /// Length in bytes.
    pub bytes: u64,
    /// Sniffed format: `jpeg`, `png`, `gif`, `webp`, `bmp`, `tiff`.
    pub format: String,
    /// Width in pixels as displayed (EXIF orientation applied).
    pub width: u32,
    /// Height in pixels as displayed.
    pub height: u32,
    /// Perceptual hash of the displayed pixels.
    pub phash: Phash,
}

impl Content {
    /// The usual file name extension of the format.
    pub fn extension(&self) -> &str {
        match self.format.as_str() {
            "jpeg" => "jpg",
            "tiff" => "tif",
            other => other,
        }
    }
}

/// A picture on its way to the detector. The pixels stay where they were decoded; this is all that travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// The picture.
    pub content: Content,
    /// The worker in whose process the pixels are.
    pub home: usize,
    /// The pixels' place in that process's darkroom; `None` once they are gone and must be read back from the store.
    pub ticket: Option<u64>,
    /// Detections that failed so far.
    pub attempts: u32,
    /// Those of them that the object store failed: they count towards no limit.
    pub spared: u32,
    /// Whether a degraded answer is kept, which stands if no full one comes.
    pub weak: bool,
    /// The scale at which the last failed detection looked: input pixels per pixel of the picture.
    pub scale: Option<f32>,
}

impl Frame {
    /// The identity of its detection.
    pub fn key(&self) -> Key {
        Key(u128::from_be_bytes(std::array::from_fn(|i| self.content.id.0[i])))
    }
}

/// The queue that work waits in: one for each host of the web, so that none stands in another's way. Equal in every process
/// and for ever, since ledgers hold it.
pub type Lane = u64;

/// The lane of pictures whose detection is to be repeated.
pub const FRAMES: Lane = 0;

/// Lanes of what no host has to be asked for.
const OWN_LANES: u64 = 64;

/// The lane of a page or image: its host's, and for files and `data:` URIs one of a few.
pub fn lane(url: &Url) -> Lane {
    match url.host_str().filter(|host| !host.is_empty()) {
        // A ledger keeps it as a signed number, and 0 is taken.
        Some(host) => (number(&format!("{host}:{}", url.port_or_known_default().unwrap_or(0))) >> 1) | (1 << 32),
        None => 1 + number(url.as_str()) % OWN_LANES,
    }
}

/// A number for a text, equal in every process and for ever.
pub fn number(text: &str) -> u64 {
    let digest = Sha256::digest(text);
    u64::from_be_bytes(std::array::from_fn(|i| digest[i]))
}

/// Anything that can fail and come back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Work {
    /// A page to fetch.
    Page(Page),
    /// An image to download.
    Image(Image),
    /// A frame to detect in.
    Frame(Frame),
}

impl Work {
    /// Its identity.
    pub fn key(&self) -> Key {
        match self {
            Self::Page(page) => page.key(),
            Self::Image(image) => image.key(),
            Self::Frame(frame) => frame.key(),
        }
    }

    /// Tries that failed so far.
    pub fn attempts(&self) -> u32 {
        match self {
            Self::Page(page) => page.attempts,
            Self::Image(image) => image.attempts,
            Self::Frame(frame) => frame.attempts,
        }
    }

    /// Those of them that count towards a limit: the object store is not the fault of the work, and a rejection is an answer.
    pub fn attempts_counted(&self) -> u32 {
        let spared = match self {
            Self::Page(page) => page.spared,
            Self::Image(image) => image.spared,
            Self::Frame(frame) => frame.spared,
        };
        self.attempts().saturating_sub(spared)
    }

    /// The last failed try counts towards no limit.
    pub fn spared(mut self) -> Self {
        match &mut self {
            Self::Page(page) => page.spared += 1,
            Self::Image(image) => image.spared += 1,
            Self::Frame(frame) => frame.spared += 1,
        }
        self
    }

    /// One more failed try. The pixels of a frame do not wait with it.
    pub fn failed_once_more(mut self) -> Self {
        match &mut self {
            Self::Page(page) => page.attempts += 1,
            Self::Image(image) => image.attempts += 1,
            Self::Frame(frame) => {
                frame.attempts += 1;
                frame.ticket = None;
            }
        }
        self
    }

    /// A stable number for the work, the seed of its jitter.
    pub fn route(&self) -> u64 {
        match self {
            Self::Page(page) => page.key().route(),
            Self::Image(image) => image.key().route(),
            Self::Frame(frame) => frame.content.id.route(),
        }
    }
}

impl From<Page> for Work {
    fn from(page: Page) -> Self {
        Self::Page(page)
    }
}

impl From<Image> for Work {
    fn from(image: Image) -> Self {
        Self::Image(image)
    }
}

impl From<Frame> for Work {
    fn from(frame: Frame) -> Self {
        Self::Frame(frame)
    }
}

impl Visit {
    /// Whether the page is as it was when it was read last, by the word of its server.
    pub fn is_unchanged(&self) -> bool {
        self.http_status == 304
    }
}

/// What a page turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PageKind {
    /// A page for readers (or a picture): its links are navigation.
    Page,
    /// A sitemap, a sitemap index or a feed: its links are entries in their own right, pages or further listings.
    Listing,
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
    /// Every link of the page to its own site, in document order, each once; those of a listing too.
    pub links: Vec<Url>,
    /// Every picture it shows, in document order, each once. `alternates` are set; `attempts` is 0.
    pub images: Vec<Image>,
}

/// What was found: by a page that was read, or, with no visit, by a source.
///
/// The ledger takes it up within the bounds, page by page in the order in which the pages were admitted, so that a budget
/// cuts the same pages and images whatever overtakes whatever.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Admitted {
    /// The page that was read, without its images.
    pub visit: Option<Visit>,
    /// Pages to fetch, known ones included.
    pub pages: Vec<Page>,
    /// Every image the page shows, known ones included, for the record of who shows what.
    pub images: Vec<Image>,
    /// How much of it is taken up.
    pub bounds: Bounds,
    /// Of a page that was read: what to compare it with, and when it is to be looked at again.
    pub again: Option<(Reading, Time)>,
    /// The pages of sites that are no longer wanted: none of their pages are looked at again.
    pub removed: Vec<Key>,
    /// The watched list that names the sites of `pages`.
    #[serde(default)]
    pub list: Option<String>,
}

impl Admitted {
    /// Nothing was found.
    pub fn nothing(bounds: Bounds) -> Self {
        Self { visit: None, pages: vec![], images: vec![], bounds, again: None, removed: vec![], list: None }
    }
}

/// How much of what is found is taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Pages admitted per site, at most.
    pub pages_max: u64,
    /// Images admitted per site, at most.
    pub images_max: u64,
    /// Whether a page that is reached on a shorter way than before is read again: from there more is followed.
    pub shorter_ways: bool,
}

/// An image whose bytes were downloaded, decoded and kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The image.
    pub image: Image,
    /// Where redirects ended.
    pub final_url: Url,
    /// Response headers kept as evidence (`x-robots-tag`, `tdm-reservation`, `last-modified`, `etag`, `content-type`).
    pub headers: Vec<(String, String)>,
    /// The picture, with a place in the darkroom.
    pub frame: Frame,
}

/// What `schedule` decided about a failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Fate {
    /// Try again at the due time. `work.attempts()` already counts the failure.
    Retry {
        /// The work.
        work: Work,
        /// What went wrong.
        fault: Fault,
        /// When it is due.
        due: Time,
    },
    /// Trying again cannot help.
    Rejected {
        /// The work.
        work: Work,
        /// Why.
        fault: Fault,
        /// When a stream tries it nevertheless.
        again: Option<Time>,
    },
    /// Every attempt the policy allows has failed.
    Dead {
        /// The work.
        work: Work,
        /// The last fault.
        fault: Fault,
        /// When a stream tries it nevertheless.
        again: Option<Time>,
    },
    /// Every attempt at a full answer has failed, so the degraded one that is kept stands.
    Stands {
        /// The frame.
        work: Work,
        /// The last fault.
        fault: Fault,
    },
}

impl Fate {
    /// What it is about.
    pub fn work(&self) -> &Work {
        match self {
            Self::Retry { work, .. }
            | Self::Rejected { work, .. }
            | Self::Dead { work, .. }
            | Self::Stands { work, .. } => work,
        }
    }
}

/// Which picture stands for another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ruling {
    /// The picture the ruling is about.
    pub picture: ContentId,
    /// The picture that stands for it: itself for a representative.
    pub representative: ContentId,
    /// Hamming distance between the two in bits.
    pub distance: u32,
}

/// Faces found in a picture, with every output that goes with them stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivered {
    /// The picture.
    pub frame: Frame,
    /// What the engine answered.
    pub detection: Detection,
}

/// Bytes as base64 where people or SQL may read them, as they are between processes.
mod inline {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &Option<Bytes>, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            return bytes.as_ref().map(|bytes| STANDARD.encode(bytes)).serialize(to);
        }
        bytes.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Bytes>, D::Error> {
        if from.is_human_readable() {
            let text = Option::<String>::deserialize(from)?;
            return text.map(|text| STANDARD.decode(text).map(Bytes::from).map_err(D::Error::custom)).transpose();
        }
        Option::<Bytes>::deserialize(from)
    }
}
