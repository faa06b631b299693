//! Files whose headers are wrong and whose pixels are right, as browsers and the reference libraries show them.

use image::codecs::gif::GifEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageFormat, RgbImage};

use crate::{ImageSettings, decode};

fn settings() -> ImageSettings {
    ImageSettings { min_side_px: 1, ..ImageSettings::default() }
}

/// Few colours, all different from their neighbours.
fn scene(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let shade = ((x / 5 + y / 3) % 16) as u8;
        image::Rgb([shade * 17, 255 - shade * 9, shade * 5])
    })
}

fn shown(bytes: &[u8]) -> Result<RgbImage, String> {
    let picture = decode(bytes, &settings()).map_err(|fault| fault.reason)?.picture;
    Ok(RgbImage::from_raw(picture.width, picture.height, picture.rgb.to_vec()).expect("whole"))
}

fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let pad: &[u8] = if data.len().is_multiple_of(2) { b"" } else { b"\0" };
    [&name[..], &(data.len() as u32).to_le_bytes(), data, pad].concat()
}

fn webp(chunks: &[Vec<u8>]) -> Vec<u8> {
    let body = [b"WEBP".as_slice(), &chunks.concat()].concat();
    [b"RIFF".as_slice(), &(body.len() as u32).to_le_bytes(), &body].concat()
}

fn extended(flags: u8, (width, height): (u32, u32)) -> Vec<u8> {
    let side = |side: u32| (side - 1).to_le_bytes()[..3].to_vec();
    chunk(b"VP8X", &[vec![flags, 0, 0, 0], side(width), side(height)].concat())
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)).expect("a fixture")
}

/// The chunk of this name in a file.
fn cut_out(file: &[u8], name: &[u8; 4]) -> Vec<u8> {
    let at = file.windows(4).position(|window| window == name).expect("the chunk");
    let length = u32::from_le_bytes(file[at + 4..at + 8].try_into().expect("four bytes")) as usize;
    chunk(name, &file[at + 8..at + 8 + length])
}

#[test]
fn a_webp_is_what_its_chunks_are_not_its_flags() {
    let expected = |name| image::load_from_memory(&fixture(name)).expect("a PNG").to_rgb8();
    let (plain, alpha) = (fixture("lossy.webp"), fixture("lossy-alpha.webp"));
    let (size, opaque) = ((71, 53), expected("lossy.png"));
    let pixels = cut_out(&plain, b"VP8 ");
    for flags in [0, 0x04, 0x08, 0x0c, 0x10, 0x20, 0x3c] {
        let file = webp(&[extended(flags, size), chunk(b"what", b"odd"), pixels.clone(), chunk(b"ICCP", b"none")]);
        assert_eq!(shown(&file).as_ref(), Ok(&opaque), "flags {flags:x}");
        let mut short = file.clone();
        short[4..8].copy_from_slice(&9_u32.to_le_bytes());
        assert_eq!(shown(&short).as_ref(), Ok(&opaque), "the length of the file is wrong");
    }
    let alpha = [cut_out(&alpha, b"ALPH"), chunk(b"ICCP", b"none"), cut_out(&alpha, b"VP8 ")].concat();
    for flags in [0x10, 0x1c] {
        assert_eq!(shown(&webp(&[extended(flags, size), alpha.clone()])).as_ref(), Ok(&expected("lossy-alpha.png")));
    }
    let fault = shown(&webp(&[extended(0, (72, 53)), pixels.clone()]));
    assert_eq!(fault, Err("corrupt_image".to_owned()), "libwebp refuses a picture of another size, too");
    let cut = webp(&[extended(0, size), pixels.clone()]);
    assert_eq!(shown(&cut[..cut.len() * 2 / 3]), Err("corrupt_image".to_owned()));
}

#[test]
fn a_webp_lies_as_its_exif_says_with_and_without_a_prefix() {
    let stored = scene(20, 12);
    let mut file = Vec::new();
    WebPEncoder::new_lossless(&mut file).encode(&stored, 20, 12, ExtendedColorType::Rgb8).expect("encodes");
    let tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    for exif in [tiff.to_vec(), [&b"Exif\0\0"[..], tiff].concat()] {
        let turned = webp(&[extended(0x08, (20, 12)), cut_out(&file, b"VP8L"), chunk(b"EXIF", &exif)]);
        assert_eq!(shown(&turned), Ok(image::imageops::rotate90(&stored)));
    }
}

#[test]
fn a_gif_is_as_large_as_its_first_frame_needs() {
    let stored = scene(40, 30);
    let mut file = Vec::new();
    GifEncoder::new(&mut file).encode(&stored, 40, 30, ExtendedColorType::Rgb8).expect("encodes");
    let whole = shown(&file).expect("decodes");
    assert_eq!(whole.dimensions(), (40, 30));
    for (width, height) in [(10_u16, 10_u16), (40, 3), (0, 0)] {
        file[6..8].copy_from_slice(&width.to_le_bytes());
        file[8..10].copy_from_slice(&height.to_le_bytes());
        assert_eq!(shown(&file).as_ref(), Ok(&whole), "a screen of {width}x{height}");
    }
    file[6..10].copy_from_slice(&[50, 0, 30, 0]);
    let wide = shown(&file).expect("decodes");
    assert_eq!(
        (wide.dimensions(), wide.get_pixel(45, 10).0),
        ((50, 30), [255; 3]),
        "beside the frame there is nothing"
    );
}

#[test]
fn a_png_is_whole_without_its_last_chunk_and_no_otherwise() {
    let stored = RgbImage::from_fn(90, 70, |x, y| image::Rgb([(x * 7) as u8, (y * 5) as u8, (x * y) as u8]));
    let mut file = std::io::Cursor::new(Vec::new());
    stored.write_to(&mut file, ImageFormat::Png).expect("encodes");
    let file = file.into_inner();
    for missing in 1..=12 {
        assert_eq!(shown(&file[..file.len() - missing]).as_ref(), Ok(&stored), "{missing} bytes less");
    }
    for left in [60, 90, 99] {
        let cut = &file[..(file.len() - 12) * left / 100];
        assert_eq!(shown(cut), Err("corrupt_image".to_owned()), "{left} %");
        assert_eq!(
            shown(&[cut, &file[file.len() - 12..]].concat()),
            Err("corrupt_image".to_owned()),
            "{left} %, closed"
        );
    }
}

/// A BMP of sixteen colours: what the header holds behind width and height, and the pixels.
fn bmp(stored: &RgbImage, length: u32, edit: impl Fn(&mut Vec<u8>), data: &[u8]) -> Vec<u8> {
    let mut info = [length, stored.width(), stored.height()].map(u32::to_le_bytes).concat();
    info.extend([1, 0, 4, 0]);
    info.resize(length as usize, 0);
    edit(&mut info);
    let colours: Vec<[u8; 4]> = (0..16_u8).map(|shade| [shade * 5, 255 - shade * 9, shade * 17, 0]).collect();
    let offset = 14 + info.len() + 64;
    let head = [b"BM".to_vec(), [0, 0, offset as u32].map(u32::to_le_bytes).concat()].concat();
    [&head[..], &info, colours.as_flattened(), data].concat()
}

#[test]
fn a_bmp_is_shown_whatever_its_header_exaggerates() {
    let stored = scene(24, 10);
    let shade = |x: u32, y: u32| stored.get_pixel(x, y).0[0] / 17;
    let rows = || (0..10).rev();
    let plain: Vec<u8> = rows()
        .flat_map(|y| (0..12).map(move |x| (x * 2, y)))
        .map(|(x, y)| shade(x, y) << 4 | shade(x + 1, y))
        .collect();
    let same = |file: &[u8], why: &str| assert_eq!(shown(file).as_ref(), Ok(&stored), "{why}");
    same(&bmp(&stored, 40, |_| {}, &plain), "as it should be");
    same(&bmp(&stored, 40, |info| info[12] = 0, &plain), "no planes");
    same(&bmp(&stored, 40, |info| info[32..34].copy_from_slice(&[44, 1]), &plain), "300 colours");
    same(&bmp(&stored, 64, |_| {}, &plain), "OS/2 2.x");
    same(&bmp(&stored, 16, |_| {}, &plain), "OS/2 2.x, short");
    let mut without_offset = bmp(&stored, 40, |_| {}, &plain);
    without_offset[10..14].fill(0);
    same(&without_offset, "no offset");
    let runs: Vec<Vec<u8>> =
        rows().map(|y| (0..24).flat_map(|x| [1, shade(x, y) << 4]).chain([0, 0]).collect()).collect();
    let runs =
        |end: &[u8], lines: usize| bmp(&stored, 40, |info| info[16] = 2, &[&runs[..lines].concat(), end].concat());
    same(&runs(&[0, 1], 10), "runs");
    same(&runs(&[], 10), "runs without an end");
    assert_eq!(shown(&runs(&[], 6)), Err("corrupt_image".to_owned()), "runs that break off");
    assert_eq!(
        shown(&bmp(&stored, 64, |info| info[16] = 3, &plain)),
        Err("corrupt_image".to_owned()),
        "OS/2 Huffman codes"
    );
}

#[test]
fn a_bmp_whose_alpha_is_empty_is_opaque() {
    let masks = [0xff_0000_u32, 0xff00, 0xff, 0xff00_0000].map(u32::to_le_bytes).concat();
    let file = |alpha: [u8; 2]| {
        let mut info = [108_u32, 2, 1].map(u32::to_le_bytes).concat();
        info.extend([1, 0, 32, 0, 3, 0, 0, 0]);
        info.resize(40, 0);
        info.extend(&masks);
        info.resize(108, 0);
        let head = [b"BM".to_vec(), [0, 0, 122].map(u32::to_le_bytes).concat()].concat();
        [&head[..], &info, &[1, 2, 3, alpha[0], 4, 5, 6, alpha[1]]].concat()
    };
    assert_eq!(shown(&file([0, 0])).expect("decodes").into_raw(), [3, 2, 1, 6, 5, 4]);
    assert_eq!(shown(&file([0, 255])).expect("decodes").into_raw(), [255, 255, 255, 6, 5, 4]);
}
