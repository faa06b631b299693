//! From bytes to pictures in the pixel cache, on blocking threads, within the limits of the process.
//!
//! Promise: no allocation before the limits are checked, and no decoding before there is room for the pixels.

use std::sync::Arc;

use bytes::Bytes;
use faceflow_core::Fault;
use faceflow_core::blocking::CpuPermits;
use faceflow_core::detector::PixelBuffer;
use faceflow_core::record::{Content, ContentId};
use faceflow_pixels::{Header, ImageSettings};

use crate::pixel_cache::{PixelCache, Room};

/// What decoding takes. Clones share it.
#[derive(Clone)]
pub struct PictureDecoder {
    /// Which images are decoded.
    pub settings: Arc<ImageSettings>,
    /// Where pixels go.
    pub pixel_cache: Arc<PixelCache>,
    /// Permits for the work.
    pub cpu: CpuPermits,
}

/// What bytes are.
pub struct Examined {
    /// Their digest.
    pub id: ContentId,
    /// What their header says, or why they are no picture to decode.
    pub header: Result<Header, Fault>,
}

impl PictureDecoder {
    /// Finds out what bytes are, without decoding them.
    pub async fn examine(&self, body: Bytes) -> Result<Examined, Fault> {
        let settings = Arc::clone(&self.settings);
        let examine =
            move || Ok(Examined { id: ContentId::of(&body), header: faceflow_pixels::peek(&body, &settings) });
        self.cpu.blocking(examine).await
    }

    /// Decodes bytes with this digest into the room that was reserved for them: the description of the picture, and the handle of
    /// its pixels.
    pub async fn decode(&self, (id, body): (ContentId, Bytes), room: Arc<Room>) -> Result<(Content, u64), Fault> {
        let Self { settings, pixel_cache, .. } = self.clone();
        let decode = move || {
            let (content, picture) = describe((id, &body), &settings)?;
            Ok((content, pixel_cache.insert(picture, room)))
        };
        self.cpu.blocking(decode).await
    }
}

/// Decodes bytes with this digest and describes the picture they are.
fn describe((id, body): (ContentId, &[u8]), settings: &ImageSettings) -> Result<(Content, PixelBuffer), Fault> {
    let decoded = faceflow_pixels::decode(body, settings)?;
    let picture = decoded.picture;
    let content = Content {
        id,
        bytes: body.len() as u64,
        format: decoded.format.to_owned(),
        width: picture.width,
        height: picture.height,
        hashes: faceflow_pixels::phash(&picture).into(),
    };
    Ok((content, picture))
}
