//! The pictures, galleries and processes of the scripted web are what they say.

mod world;

use std::collections::HashSet;
use std::io::{Cursor, Read, Write};
use std::time::Duration;

use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage};
use world::*;

fn reader(bytes: &[u8]) -> ImageReader<Cursor<&[u8]>> {
    ImageReader::new(Cursor::new(bytes)).with_guessed_format().expect("memory can be read")
}

/// The picture as displayed.
fn decode(bytes: &[u8]) -> RgbImage {
    let mut decoder = reader(bytes).into_decoder().expect("a picture");
    let orientation = decoder.orientation().expect("readable metadata");
    let mut picture = DynamicImage::from_decoder(decoder).expect("a whole picture");
    picture.apply_orientation(orientation);
    picture.into_rgb8()
}

fn distance(a: &RgbImage, b: &RgbImage) -> u32 {
    (dhash(a) ^ dhash(b)).count_ones()
}

fn get(url: &str) -> (String, Vec<u8>) {
    let (host, path) = url.trim_start_matches("http://").split_once('/').expect("a path");
    let mut stream = std::net::TcpStream::connect(host).expect("the world listens");
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    (String::from_utf8_lossy(&bytes[..end]).into_owned(), bytes[end + 4..].to_vec())
}

#[test]
fn pictures_of_different_numbers_are_far_apart() {
    let hashes: Vec<u64> = (0..400).map(|seed| dhash(&portrait(seed, 90, 64).0)).collect();
    let pairs = hashes.iter().enumerate().flat_map(|(n, a)| hashes[..n].iter().map(move |b| (a ^ b).count_ones()));
    let nearest = pairs.min().expect("pairs");
    println!("nearest of {} pictures: {nearest} bits", hashes.len());
    assert!(nearest > 12, "{nearest}");
    assert_eq!(picture(5, 64, 48), picture(5, 64, 48));
    assert_ne!(picture(5, 64, 48), picture(5 + 65_536, 64, 48), "more numbers than code words");
}

#[test]
fn variants_of_one_picture_are_near() {
    for seed in 0..8 {
        let variants = variants(seed);
        let original = decode(&variants.original);
        assert_eq!(variants.original, variants.exact);
        for (name, bytes) in
            [("reencoded", &variants.reencoded), ("resized", &variants.resized), ("rotated", &variants.rotated)]
        {
            assert_ne!(bytes, &variants.original);
            let bits = distance(&decode(bytes), &original);
            assert!(bits <= 2, "{name} of {seed}: {bits} bits");
        }
        let rotated = decode(&variants.rotated);
        assert_eq!(
            (reader(&variants.rotated).into_dimensions().ok(), rotated.dimensions()),
            (Some((240, 320)), (320, 240))
        );
        for displayed in [original, rotated] {
            let found = find_markers(displayed.width(), displayed.height(), &displayed);
            assert!(near(&found, &[variants.marker]), "{found:?} in {seed}");
        }
    }
}

fn near(found: &[[u32; 4]], marked: &[[u32; 4]]) -> bool {
    let close = |(a, b): (&[u32; 4], &[u32; 4])| a.iter().zip(b).all(|(a, b)| a.abs_diff(*b) <= 3);
    found.len() == marked.len() && found.iter().zip(marked).all(close)
}

#[test]
fn every_encoding_is_its_own() {
    let (picture, markers) = portrait(2, 320, 240);
    assert_eq!(markers.len(), 2);
    let files = [
        (jpeg(&picture, 80), "jpeg"),
        (png(&picture), "png"),
        (gif(&picture), "gif"),
        (webp(&picture), "webp"),
        (bmp(&picture), "bmp"),
        (tiff(&picture), "tiff"),
    ];
    for (bytes, format) in &files {
        let guessed = reader(bytes).format().map(|format| format.to_mime_type());
        assert_eq!(guessed, Some(format!("image/{format}").as_str()));
        let decoded = decode(bytes);
        assert!(distance(&decoded, &picture) <= 2, "{format}");
        assert!(near(&find_markers(320, 240, &decoded), &markers), "{format}");
    }
    for orientation in 1..=8 {
        let bytes = with_orientation(&files[0].0, orientation);
        let mut decoder = reader(&bytes).into_decoder().expect("a JPEG");
        assert_eq!(decoder.orientation().expect("EXIF").to_exif(), orientation);
    }
}

#[test]
fn pixel_bombs_claim_what_they_do_not_hold() {
    for (bytes, side) in [(png_bomb(), 20_000), (gif_bomb(), 65_535)] {
        assert!(bytes.len() < 21_000, "{}", bytes.len());
        assert_eq!(reader(&bytes).into_dimensions().ok(), Some((side, side)));
        let mut limited = reader(&bytes);
        let mut limits = Limits::default();
        limits.max_alloc = Some(64 << 20);
        limited.limits(limits);
        assert!(matches!(limited.decode(), Err(image::ImageError::Limits(_))), "{side}");
    }
}

#[test]
fn real_photographs_are_found() {
    assert_eq!(reader(&rustface_photo()).into_dimensions().ok(), Some((1666, 1136)));
    let Some(photos) = photos() else { return };
    let first = std::fs::read(&photos[0]).expect("a file");
    assert!(reader(&first).into_dimensions().is_ok_and(|(width, _)| width > 100));
}

#[test]
fn a_gallery_is_what_its_truth_says() {
    let photos: Vec<bytes::Bytes> = (900..904).map(|seed| jpeg(&picture(seed, 200, 150), 80).into()).collect();
    let gallery = Plan { images: 120, size: (160, 120), photos: photos.clone(), ..Plan::default() }.serve();
    assert_eq!((gallery.sites.len(), gallery.pages.len(), gallery.images.len()), (3, 39, 120));
    let html: Vec<String> =
        gallery.pages.iter().map(|page| String::from_utf8(get(&page.url).1).expect("text")).collect();
    for (page, html) in gallery.pages.iter().zip(&html) {
        let origin = gallery.sites[page.site].origin();
        let spellings = |link: &String| {
            [format!("{:?}", &link[origin.len()..]), format!("'{link}'"), format!("={}>", &link[origin.len()..])]
        };
        let place = |link: &String| spellings(link).iter().filter_map(|spelling| html.find(spelling)).min();
        let places: Option<Vec<usize>> = page.links.iter().map(place).collect();
        assert!(places.as_ref().is_some_and(|places| places.is_sorted()), "{}: {places:?} {html}", page.url);
    }
    let used: HashSet<Embedding> =
        gallery.images.iter().flat_map(|image| &image.places).map(|place| place.embedding).collect();
    assert_eq!(used.len(), Embedding::ALL.len());
    for image in &gallery.images {
        let shown = decode(&image.bytes);
        assert_eq!((image.width, image.height), shown.dimensions());
        assert!(near(&find_markers(image.width, image.height, &shown), &image.markers), "{}", image.url);
        for place in &image.places {
            let page = gallery.pages.iter().position(|page| page.url == place.page).expect("a page of the gallery");
            let name = image.url.rsplit_once("/img").map_or("data:image", |(_, name)| name.trim_start_matches('/'));
            assert!(html[page].replace("&amp;", "&").contains(name), "{} on {}", image.url, place.page);
            assert!(
                place
                    .alternates
                    .iter()
                    .all(|alternate| html[page].contains(alternate.rsplit_once('/').expect("a path").1))
            );
        }
        if !image.url.starts_with("data:") {
            assert_eq!(get(&image.url).1, image.bytes, "{}", image.url);
        }
    }
    assert_eq!(gallery.trespasses(), [] as [&str; 0]);
    assert_eq!(gallery.repeats(), []);
    assert_eq!(photos.iter().filter(|photo| gallery.images.iter().any(|image| image.bytes == *photo)).count(), 4);
    for url in gallery.images.iter().flat_map(|image| &image.places).flat_map(|place| &place.alternates) {
        assert!(get(url).0.starts_with("HTTP/1.1 200"), "{url}");
    }
    get(&gallery.outside.url("/"));
    assert!(gallery.trespasses().contains(&gallery.outside.url("/")));
}

#[test]
fn a_gallery_knows_its_duplicates_and_crawls() {
    let gallery = Plan { sites: 4, pages_per_site: 17, images: 300, size: (144, 108), ..Plan::default() }.serve();
    let share = |wanted: fn(&Kind) -> bool| gallery.images.iter().filter(|image| wanted(&image.kind)).count();
    let (exact, similar) = (share(|kind| matches!(kind, Kind::Exact(_))), share(|kind| matches!(kind, Kind::Near(_))));
    println!("{exact} exact and {similar} near duplicates of 300");
    assert!((18..45).contains(&exact) && (18..45).contains(&similar));
    let across = gallery
        .exact_groups()
        .iter()
        .filter(|group| group.iter().any(|image| image.places[0].page[..20] != group[0].places[0].page[..20]))
        .count();
    assert!(across > 0, "some are on different sites");
    let members: usize = gallery.exact_groups().iter().map(|group| group.len() - 1).sum();
    assert_eq!(members, exact, "bytes are equal only where planned");
    let members: usize = gallery.picture_groups().iter().map(|group| group.len() - 1).sum();
    assert_eq!(members, exact + similar);
    for group in gallery.picture_groups() {
        let hashes: Vec<u64> = group.iter().map(|image| dhash(&decode(&image.bytes))).collect();
        assert!(hashes.iter().all(|hash| (hash ^ hashes[0]).count_ones() <= 4), "{hashes:x?}");
    }
    let bounded = gallery.pages_within(3, 3);
    assert_eq!(bounded.len(), 4 * 13);
    assert_eq!(bounded.iter().filter(|page| page.depth == 2).count(), 4 * 9);
    assert_eq!(gallery.pages_within(99, 99).len(), gallery.pages.len());
    assert!(gallery.images_on(&bounded).len() < gallery.images.len());
    assert_eq!(gallery.images_on(&gallery.pages.iter().collect::<Vec<_>>()).len(), gallery.images.len());
    assert_eq!(gallery_web(1, 1, 3).pages.len(), 1);
    assert_eq!(gallery_web(1, 2, 3).pages.len(), 2);
}

fn shell(folder: &tempfile::TempDir) -> Faceflow {
    Faceflow::new("/bin/sh", folder).env("GREETING", "hello")
}

#[test]
fn a_process_is_run_and_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let ended = shell(&folder).run(&["-c", "echo '{\"a\":1}'; echo; echo $GREETING >&2; exit 3"]);
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(3), "hello\n"));
    let lines = shell(&folder).lines(&["-c", "echo '{\"a\":1}'; echo '{\"a\":2}'; touch here"]);
    assert_eq!(lines[1]["a"], 2);
    assert!(folder.path().join("here").exists(), "it ran in the folder");
}

#[test]
fn a_process_is_interrupted_and_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let waiting = "trap 'exit 7' INT; echo ready >&2; while :; do sleep 0.05; done";
    let mut running = shell(&folder).start(&["-c", waiting]);
    assert!(running.hears("ready"));
    running.signal("INT");
    assert_eq!(running.finish().code(), Some(7));
    let killed = shell(&folder).start(&["-c", "exec sleep 60"]).kill9_after(Duration::from_millis(50));
    assert_eq!(killed.expect("killed in the middle").code(), None);
    let file = folder.path().join("now");
    let killed = shell(&folder).start(&["-c", "echo > now; exec sleep 60"]).kill9_when(|| file.exists());
    assert_eq!(killed.expect("killed in the middle").code(), None);
    let ended = shell(&folder).start(&["-c", "exit 0"]).kill9_when(|| false);
    assert_eq!(ended.expect_err("it ended before").code(), Some(0));
    assert!(!shell(&folder).start(&["-c", "exit 0"]).hears("never"));
}

#[test]
#[should_panic(expected = "it said last:\nstuck")]
fn a_process_that_does_not_end_fails_loudly() {
    let folder = tempfile::tempdir().expect("a folder");
    shell(&folder).deadline(Duration::from_millis(300)).run(&["-c", "echo stuck >&2; exec sleep 60"]);
}
