//! Real files: every format, every way to be broken, and what the hash makes of re-encoded photographs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use faceflow_core::detector::{Face, PixelBuffer};
use faceflow_core::record::{HashKind, PerceptualHash};
use faceflow_core::testing::require;
use image::{ExtendedColorType, ImageEncoder, ImageFormat, RgbImage, codecs, imageops};

use super::*;

/// The folder of test photographs, or `None` with a line that says so.
pub(super) fn photos() -> Option<PathBuf> {
    require::testdata("photos")
}

fn settings() -> ImageSettings {
    ImageSettings::default()
}

fn reason(bytes: &[u8]) -> String {
    let fault = decode(bytes, &settings()).expect_err("it is refused");
    assert!(fault.permanent && fault.class == faceflow_core::Class::Content, "{fault}");
    fault.reason
}

fn encoded(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("encodes");
    bytes.into_inner()
}

pub(super) fn jpeg(picture: &RgbImage, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality);
    encoder.write_image(picture, picture.width(), picture.height(), ExtendedColorType::Rgb8).expect("encodes");
    bytes
}

pub(super) fn picture(image: &RgbImage) -> PixelBuffer {
    PixelBuffer { width: image.width(), height: image.height(), rgb: Arc::from(image.as_raw().as_slice()) }
}

/// A picture with something in it.
fn scene(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (u, v) = (x * 256 / width, y * 256 / height);
        let inside = (u as i32 - 90).pow(2) + (v as i32 - 110).pow(2) < 3_600;
        image::Rgb(if inside { [230, 190, 160] } else { [(u / 2) as u8, (v * u / 300) as u8, (u ^ v) as u8] })
    })
}

#[test]
fn every_file_of_the_format_collection_is_as_its_label_says() {
    let Some(folder) = photos().map(|photos| photos.join("formats")) else { return };
    let labels = std::fs::read_to_string(folder.join("labels.jsonl")).expect("labels");
    let decoded = ["jpg", "png", "gif", "webp", "bmp", "tif"];
    let mut pictures = 0;
    for label in labels.lines() {
        let label: serde_json::Value = serde_json::from_str(label).expect("a label");
        let file = label["file"].as_str().expect("a file");
        let bytes = std::fs::read(folder.join(file)).expect("the file");
        let sides = label["width"].as_u64().zip(label["height"].as_u64()).filter(|_| label["decodes"] != false);
        let ours = decoded.iter().any(|extension| file.ends_with(extension));
        let Some((mut width, mut height)) = sides.filter(|_| ours) else {
            let expected = match file.rsplit('.').next() {
                _ if file.contains("html") || file.contains("empty") => "not_an_image",
                Some("jpg" | "png") => "corrupt_image",
                _ => "unsupported_format",
            };
            assert_eq!(reason(&bytes), expected, "{file}");
            continue;
        };
        if file.starts_with("exif_") && file.ends_with("_6.jpg") {
            // These two labels are of the picture before it is turned.
            (width, height) = (height, width);
        }
        let header = peek(&bytes, &settings()).unwrap_or_else(|fault| panic!("{file}: {fault}"));
        let picture = decode(&bytes, &settings()).unwrap_or_else(|fault| panic!("{file}: {fault}")).picture;
        assert_eq!((u64::from(picture.width), u64::from(picture.height)), (width, height), "{file}");
        assert_eq!((picture.width, picture.height), (header.width, header.height), "{file}");
        assert_eq!(picture.rgb.len(), picture.width as usize * picture.height as usize * 3, "{file}");
        assert!(header.memory_bytes >= picture.rgb.len() as u64, "{file}");
        pictures += 1;
    }
    assert!(pictures >= 40, "{pictures} of the collection's formats are read");
}

#[test]
fn one_photograph_is_the_same_in_every_format_and_orientation() {
    let Some(folder) = photos().map(|photos| photos.join("formats")) else { return };
    let load = |file: &str| {
        let bytes = std::fs::read(folder.join(file)).expect("the file");
        decode(&bytes, &settings()).unwrap_or_else(|fault| panic!("{file}: {fault}")).picture
    };
    let base = load("face_baseline.jpg");
    let jpegs = ["444.jpg", "progressive.jpg", "gray.jpg", "cmyk.jpg"];
    let others = ["lossy.webp", "lossless.webp", "palette.png", "16bit.png"];
    let turned: Vec<String> = (1..=8).map(|exif| format!("exif{exif}.jpg")).collect();
    for file in jpegs.into_iter().chain(others).chain(turned.iter().map(String::as_str)) {
        let other = load(&format!("face_{file}"));
        assert!(phash(&base).distance(&phash(&other)).is_some_and(|bits| bits <= 2), "{file} has another hash");
        let grey = file == "gray.jpg";
        let apart = base.rgb.iter().zip(&other.rgb[..]).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>()
            / base.rgb.len() as u64;
        assert!(grey || apart <= 6, "{file} is {apart} levels apart on average");
    }
    let transparent = load("face_rgba.png");
    assert!(transparent.rgb[..3 * 1024 * 40].iter().all(|value| *value == 255), "its top 40 rows are transparent");
}

#[test]
fn what_breaks_off_is_corrupt_in_every_format() {
    let scene = scene(300, 200);
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
    for format in [Jpeg, Png, Gif, WebP, Bmp, Tiff] {
        let bytes = encoded(&scene, format);
        assert!(decode(&bytes, &settings()).is_ok(), "{format:?}");
        for part in [30, 60, 95] {
            assert_eq!(reason(&bytes[..bytes.len() * part / 100]), "corrupt_image", "{part} % of a {format:?}");
        }
    }
    let bytes = encoded(&scene, Jpeg);
    let whole = decode(&bytes, &settings()).expect("whole").picture;
    let unended = decode(&bytes[..bytes.len() - 2], &settings()).expect("only the end marker is missing").picture;
    assert_eq!(whole.rgb, unended.rgb);
    let trailing = [&bytes[..], b"<!-- cached -->"].concat();
    assert_eq!(decode(&trailing, &settings()).expect("bytes after the end").picture.rgb, whole.rgb);
}

/// A PNG whose header claims these sides, with the right check sum and no data.
fn hollow_png(width: u32, height: u32) -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
    header.extend([8, 2, 0, 0, 0]);
    let crc = header.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    });
    let end = b"\0\0\0\0IDAT\x35\xaf\x06\x1e\0\0\0\0IEND\xae\x42\x60\x82";
    [b"\x89PNG\r\n\x1a\n\0\0\0\x0d", &header[..], &(!crc).to_be_bytes(), end].concat()
}

#[test]
fn limits_are_checked_before_pixels_are_allocated() {
    let limits = |bytes: &[u8], settings: &ImageSettings| peek(bytes, settings).expect_err("it is refused").reason;
    assert_eq!(limits(&hollow_png(20_000, 20_000), &settings()), "too_many_pixels");
    let gif = b"GIF89a\xff\xff\xff\xff\0\0\0\x2c\0\0\0\0\xff\xff\xff\xff\0\x02\0\x3b";
    assert_eq!(limits(gif, &settings()), "too_many_pixels");
    assert_eq!(limits(&encoded(&scene(31, 200), ImageFormat::Png), &settings()), "too_small");
    assert_eq!(limits(&encoded(&scene(1, 1), ImageFormat::Gif), &settings()), "too_small");
    let narrow = ImageSettings { decode_memory_max_bytes: 1 << 20, ..settings() };
    assert_eq!(limits(&hollow_png(1_000, 1_000), &narrow), "too_much_memory");
    let open = ImageSettings { min_side_px: 1, pixels_max: 1_000_000_000, ..settings() };
    assert_eq!(limits(&hollow_png(2_000_000, 1), &open), "too_many_pixels");
    assert_eq!(peek(&hollow_png(7_000, 7_000), &settings()).expect("within the limits").memory_bytes, 147_000_000);
    assert_eq!(reason(&hollow_png(7_000, 7_000)), "corrupt_image");
}

#[test]
fn a_frame_larger_than_the_picture_around_it_is_refused_unread() {
    let chunk = |name: &[u8; 4], data: &[u8]| [&name[..], &(data.len() as u32).to_le_bytes(), data].concat();
    let vp8 = chunk(b"VP8 ", b"\x10\0\0\x9d\x01\x2a\xff\x3f\xff\x3f");
    let canvas = chunk(b"VP8X", b"\0\0\0\0\x63\0\0\x63\0\0");
    let body = [b"WEBP".to_vec(), canvas, vp8].concat();
    let fault = peek(&chunk(b"RIFF", &body), &settings()).expect_err("it is refused");
    assert_eq!(fault.reason, "corrupt_image");
    assert!(fault.detail.contains("16383x16383"), "{fault}");
}

#[test]
fn impossible_settings_are_named() {
    assert_eq!(settings().check(), Ok(()));
    assert_eq!(ImageSettings { min_side_px: 0, ..settings() }.check().map_err(|(key, _)| key), Err("min_side_px"));
    assert_eq!(DeliverSettings::default().check(), Ok(()));
    let mad = DeliverSettings { crop_margin: f32::NAN, ..DeliverSettings::default() };
    assert_eq!(mad.check().map_err(|(key, _)| key), Err("crop_margin"));
}

/// The photographs of the collection, no two of one scene.
pub(super) fn different_photos(photos: &Path) -> impl Iterator<Item = RgbImage> {
    let folders = ["faces", "nofaces", "extra_dlib"].map(|folder| photos.join(folder));
    let files =
        folders.map(|folder| std::fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path()));
    let mut files: Vec<_> = files.into_iter().flatten().collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jpg"));
    files.sort();
    let read = |file: PathBuf| image::load_from_memory(&std::fs::read(file).expect("the file"));
    files.into_iter().map(move |file| read(file).expect("decodes").to_rgb8())
}

#[test]
fn re_encodings_and_resizes_match_and_different_photographs_do_not() {
    let Some(photos) = photos() else { return };
    let radius = faceflow_duplicates::settings::DedupeSettings::default().radius_bits;
    let mut hashes: Vec<PerceptualHash> = Vec::new();
    for (at, photo) in different_photos(&photos).step_by(3).enumerate() {
        let hash = phash(&picture(&photo));
        assert!(hash.distinctive, "photograph {at} says something");
        let closest = hashes.iter().filter_map(|other| hash.distance(other)).min().unwrap_or(64);
        assert!(closest > radius, "photograph {at} and an earlier one are {closest} bits apart");
        hashes.push(hash);
        if at % 10 == 0 {
            let (width, height) = photo.dimensions();
            let resized = |width, height| imageops::resize(&photo, width, height, imageops::FilterType::CatmullRom);
            let (half, small) = (resized(width / 2, height / 2), resized(256, 256 * height / width));
            for variant in [jpeg(&photo, 90), jpeg(&photo, 40), jpeg(&half, 75), jpeg(&small, 60)] {
                let other = phash(&decode(&variant, &settings()).expect("decodes").picture);
                let off = hash.distance(&other).expect("hashes of one kind are compared");
                assert!(other.distinctive && off <= radius, "a variant of {at} is {off} bits off");
            }
        }
    }
}

/// Draws a grey picture.
fn draw(shade: fn(u32, u32) -> u32) -> PixelBuffer {
    picture(&RgbImage::from_fn(400, 300, |x, y| image::Rgb([shade(x, y).min(255) as u8; 3])))
}

#[test]
fn flat_two_toned_and_regular_pictures_say_nothing() {
    type Shade = fn(u32, u32) -> u32;
    let plain: [(&str, Shade); 9] = [
        ("flat", |_, _| 128),
        ("noise on flat", |x, y| 128 + (x * 7919 + y * 104_729) % 5),
        ("two halves", |x, _| if x < 150 { 255 } else { 0 }),
        ("two corners", |x, y| if x + y < 300 { 255 } else { 0 }),
        ("disc", |x, y| if x.abs_diff(200).pow(2) + y.abs_diff(150).pow(2) < 3_600 { 20 } else { 255 }),
        ("near empty", |x, y| if x > 350 && y > 280 { 0 } else { 255 }),
        ("ramp", |x, _| x * 5 / 8),
        ("slope", |x, y| (x + y) * 255 / 700),
        ("chequers", |x, y| (x / 20 + y / 20) % 2 * 255),
    ];
    for (name, shade) in plain {
        assert!(!phash(&draw(shade)).distinctive, "{name}");
    }
    assert!(phash(&picture(&scene(400, 300))).distinctive);
}

#[test]
fn the_hash_is_the_one_of_this_version() {
    assert_eq!(HashKind::Dct64.version(), 1, "a new version needs new figures here");
    let sizes = [(640, 480), (64, 48), (37, 41), (1000, 33)];
    let hashes = sizes.map(|(width, height)| phash(&picture(&scene(width, height))).bits.to_string());
    assert_eq!(hashes, ["80453f3fc0f8c7c6", "80453f3fc0f8c7c6", "81453e3ec0f8c7c7", "80453f3fc0f8c7c6"]);
}

#[test]
fn crops_and_thumbnails_have_the_right_size_and_content() {
    let whole = picture(&scene(800, 600));
    let settings = DeliverSettings { crop_side_max_px: 200, ..DeliverSettings::default() };
    let size = |file: Vec<u8>| image::load_from_memory(&file).expect("a JPEG").to_rgb8().dimensions();
    let cut = |bbox| size(crop(&whole, bbox, &settings).expect("a crop"));
    assert_eq!(cut([100.0, 100.0, 180.0, 200.0]), (130, 150), "a quarter of 100 on each side");
    assert_eq!(cut([-50.0, -50.0, 60.0, 60.0]), (88, 88), "clipped");
    assert_eq!(cut([0.0, 0.0, 800.0, 600.0]), (200, 150), "scaled down");
    assert_eq!(cut([5_000.0, 5_000.0, 6_000.0, 6_000.0]), (1, 1), "the nearest pixel");
    assert_eq!(cut([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3.0]), (1, 1));
    assert_eq!(size(thumbnail(&whole, &settings).expect("a thumbnail")), (256, 192));
    assert_eq!(size(thumbnail(&picture(&scene(90, 300)), &settings).expect("a thumbnail")), (77, 256));
    let small = picture(&scene(90, 60));
    assert_eq!(size(thumbnail(&small, &settings).expect("a thumbnail")), (90, 60), "never enlarged");
    let face = image::load_from_memory(&crop(&whole, [200.0, 180.0, 360.0, 330.0], &settings).expect("a crop"));
    let middle = face.expect("a JPEG").to_rgb8().get_pixel(60, 60).0;
    assert!(middle.iter().zip([230, 190, 160]).all(|(value, expected)| value.abs_diff(expected) < 12), "{middle:?}");
}

#[test]
fn quality_falls_with_blur_and_with_size() {
    let Some(photos) = photos() else { return };
    let file = std::fs::read(photos.join("formats/face_444.jpg")).expect("the file");
    let sharp = image::load_from_memory(&file).expect("decodes").to_rgb8();
    let face = |[x1, y1, x2, y2]: [f32; 4]| Face { bbox: [x1, y1, x2, y2], score: 1.0, quality: 0.0, landmarks: None };
    let bbox = [186.0, 94.0, 284.0, 244.0];
    let blurred = [0.0, 1.0, 2.0, 4.0].map(|sigma| match sigma > 0.0 {
        true => quality(&picture(&imageops::blur(&sharp, sigma)), &face(bbox)),
        false => quality(&picture(&sharp), &face(bbox)),
    });
    assert!(blurred.is_sorted_by(|more, less| more > less), "{blurred:?}");
    assert!(blurred[0] > 0.5 && blurred[3] < 0.3, "{blurred:?}");
    let quarter = imageops::resize(&sharp, 256, 85, imageops::FilterType::Triangle);
    assert!(quality(&picture(&quarter), &face(bbox.map(|side| side / 4.0))) < blurred[0]);
    let mad = quality(&picture(&sharp), &face([f32::NAN, 1e30, -1e30, f32::INFINITY]));
    assert!((0.0..=1.0).contains(&mad), "{mad}");
}
