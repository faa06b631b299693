//! Pictures as files, and the ways in which one picture comes to be many files.

use std::io::Cursor;

use image::codecs::gif::GifEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageFormat, RgbImage};

use super::picture::{mark, picture, shrink};

/// JPEG of this quality, 1 to 100.
pub fn jpeg(picture: &RgbImage, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoded = JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(picture);
    encoded.expect("a picture can be encoded");
    bytes
}

/// PNG.
pub fn png(picture: &RgbImage) -> Vec<u8> {
    file(picture, ImageFormat::Png)
}

/// GIF, one frame of 256 colours.
pub fn gif(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (width, height) = picture.dimensions();
    let encoded = GifEncoder::new_with_speed(&mut bytes, 30).encode(picture, width, height, ExtendedColorType::Rgb8);
    encoded.expect("a picture can be encoded");
    bytes
}

/// WebP, lossless.
pub fn webp(picture: &RgbImage) -> Vec<u8> {
    file(picture, ImageFormat::WebP)
}

/// BMP.
pub fn bmp(picture: &RgbImage) -> Vec<u8> {
    file(picture, ImageFormat::Bmp)
}

/// TIFF.
pub fn tiff(picture: &RgbImage) -> Vec<u8> {
    file(picture, ImageFormat::Tiff)
}

fn file(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("a picture can be encoded");
    bytes.into_inner()
}

/// The media type of bytes, by how they begin.
pub(super) fn media_type(bytes: &[u8]) -> &'static str {
    match bytes {
        [0xff, 0xd8, ..] => "image/jpeg",
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [b'G', b'I', b'F', b'8', ..] => "image/gif",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        [b'B', b'M', ..] => "image/bmp",
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => "image/tiff",
        _ => "application/octet-stream",
    }
}

/// The usual file name extension for bytes, by how they begin.
pub(super) fn extension(bytes: &[u8]) -> &'static str {
    match media_type(bytes) {
        "image/jpeg" => "jpg",
        "image/tiff" => "tif",
        other => other.trim_start_matches("image/"),
    }
}

/// A JPEG with an EXIF orientation, 1 to 8 (Exif 2.32, 4.6.4: tag 0x0112, SHORT), put first as the standard asks.
pub fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    assert!(jpeg.starts_with(&[0xff, 0xd8]), "not a JPEG");
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let mut rotated = vec![0xff, 0xd8, 0xff, 0xe1];
    rotated.extend((exif.len() as u16 + 2).to_be_bytes());
    rotated.extend(exif);
    rotated.extend(&jpeg[2..]);
    rotated
}

/// One picture in five files.
pub struct Variants {
    /// JPEG of 320 × 240.
    pub original: Vec<u8>,
    /// The same bytes.
    pub exact: Vec<u8>,
    /// A JPEG of lower quality.
    pub reencoded: Vec<u8>,
    /// A JPEG of 240 × 180.
    pub resized: Vec<u8>,
    /// A JPEG of 240 × 320 whose orientation (6) makes it display as the original does.
    pub rotated: Vec<u8>,
    /// The marked rectangle, in pixels of the original.
    pub marker: [u32; 4],
}

/// The picture of `seed`, with a marker, in five files.
pub fn variants(seed: u64) -> Variants {
    let mut whole = picture(seed, 320, 240);
    let marker = [36, 30, 72, 66];
    mark(&mut whole, marker);
    let original = jpeg(&whole, 90);
    // Orientation 6: the stored picture is turned clockwise for display, so it is stored turned the other way.
    let turned = RgbImage::from_fn(whole.height(), whole.width(), |x, y| *whole.get_pixel(whole.width() - 1 - y, x));
    Variants {
        exact: original.clone(),
        reencoded: jpeg(&whole, 60),
        resized: jpeg(&shrink(&whole, 240, 180), 90),
        rotated: with_orientation(&jpeg(&turned, 90), 6),
        original,
        marker,
    }
}
