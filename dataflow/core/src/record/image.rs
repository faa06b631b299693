//! Images: to download, and with their bytes stored.

use serde::{Deserialize, Serialize};
use url::Url;

use super::content::Frame;
use super::host::HostState;
use super::job::JobId;
use super::key::{ContentId, Key};

/// An image to download.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// The job that discovered it first.
    #[serde(default = "JobId::of_log")]
    pub job: JobId,
    /// Its normalised address; for a `data:` URI, `data:sha256,<hex of the bytes>`.
    pub url: Url,
    /// The page that showed it first.
    pub page: Url,
    /// That page's site.
    pub site: Url,
    /// Tries that failed so far.
    pub attempts: u32,
    /// Those of them that count towards no limit: the object store failed, or it was rejected before.
    #[serde(default, alias = "spared")]
    pub uncounted: u32,
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
    /// What was known of its host when it was dispatched, if that was failing.
    #[serde(default)]
    pub host: Option<Box<HostState>>,
}

impl Image {
    /// Its identity.
    pub fn key(&self) -> Key {
        Key::image(&self.url)
    }
}

/// An image whose bytes were downloaded, decoded and stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredImage {
    /// The image.
    pub image: Image,
    /// Where redirects ended.
    pub final_url: Url,
    /// Response headers kept as evidence (`x-robots-tag`, `tdm-reservation`, `last-modified`, `etag`, `content-type`).
    pub headers: Vec<(String, String)>,
    /// The picture, with its pixels in the cache.
    pub frame: Frame,
}

/// An image whose bytes were downloaded and are those of a picture that the ledger has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopiedImage {
    /// The image.
    pub image: Image,
    /// Where redirects ended.
    pub final_url: Url,
    /// Response headers kept as evidence, as of a [`StoredImage`].
    pub headers: Vec<(String, String)>,
    /// The picture.
    pub content: ContentId,
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
