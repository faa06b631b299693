//! What a link is: the bytes behind it decide, whatever its address or its server says.

mod world;

use std::time::Duration;

use serde_json::Value;
use tempfile::tempdir;
use world::{Answer, Faceflow, World, jpeg, picture, png};

const LOCAL: [&str; 2] = ["--set", "fetch.allow_networks=127.0.0.0/8"];

/// Pages at addresses like those of pictures: how they are linked, what their server says they are, and the picture they show.
const PAGES: [(&str, &str, &str); 11] = [
    ("/wiki/File:Two_people.png", "text/html", "<!DOCTYPE html><a href='/full/0.png'>original file</a>"),
    ("/view/photo.JPG", "text/html; charset=utf-8", "<html><body><img src='/full/1.png'></body></html>"),
    (
        "/view/photo.jpeg?size=large",
        "application/xhtml+xml",
        "<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'><body><img src='/full/2.png'/></body></html>",
    ),
    ("/gallery/a.webp", "image/webp", "<!doctype html><title>a</title><img src='/full/3.png'>"),
    ("/gallery/b.gif", "application/octet-stream", "\u{feff}  <!-- seen by nobody --><html><img src='/full/4.png'>"),
    ("/gallery/c.bmp", "text/plain", "<HTML><BODY><IMG SRC='/full/5.png'></BODY></HTML>"),
    ("/gallery/d.tiff", "", "<html><meta property='og:image' content='/full/6.png'></html>"),
    ("/gallery/e.png/", "text/html", "<html><img src='/full/7.png'></html>"),
    ("/gallery/f.JFIF?download=0", "text/html", "<html><img src='/full/8.png'></html>"),
    ("/wiki/File:Map.svg", "text/html", "<html><img src='/full/9.png'></html>"),
    ("/wiki/Datei%3ATalk.webm", "text/html", "<html><img src='/full/10.png'></html>"),
];

/// Pictures at addresses that say nothing of it, or something else, and what their server says they are.
const PICTURES: [(&str, &str); 8] = [
    ("/media/77", "image/jpeg"),
    ("/download.php?id=5", "image/png"),
    ("/show.html", "image/png"),
    ("/photo", "application/octet-stream"),
    ("/photo.aspx", "text/html"),
    ("/photo.cgi", "text/plain"),
    ("/photo.jpg.html", "image/svg+xml"),
    ("/files/photo.v2", ""),
];

fn answer(content_type: &str, body: impl Into<bytes::Bytes>) -> Answer {
    let body = body.into();
    if content_type.is_empty() {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        return Answer::raw([head.as_bytes(), &body].concat());
    }
    Answer::ok(content_type, body)
}

#[test]
fn a_page_behind_the_address_of_a_picture_is_read_and_a_picture_behind_any_address_is_taken() {
    let web = World::new();
    let site = web.site();
    let mut start = String::from("<html><body>");
    for (n, (path, content_type, html)) in PAGES.into_iter().enumerate() {
        start += &format!("<a href='{path}'>{n}</a>");
        site.put(path, answer(content_type, html.to_owned()));
        site.image(&format!("/full/{n}.png"), png(&picture(n as u64, 160, 120)));
    }
    for (n, (path, content_type)) in PICTURES.into_iter().enumerate() {
        start += &format!("<a href='{path}'>{n}</a>");
        site.put(path, answer(content_type, jpeg(&picture(100 + n as u64, 160, 120), 90)));
    }
    // Behind a redirect, either way round.
    start += "<a href='/go/page.jpg'>a</a><a href='/go/picture'>b</a>";
    site.put("/go/page.jpg", Answer::redirect("/viewer")).page("/viewer", "<img src='/full/viewed.png'>");
    site.image("/full/viewed.png", png(&picture(50, 160, 120)));
    site.put("/go/picture", Answer::redirect("/hidden"))
        .put("/hidden", answer("image/png", png(&picture(51, 160, 120))));
    site.page("/", start);

    let folder = tempdir().expect("a folder");
    let faceflow = Faceflow::new(env!("CARGO_BIN_EXE_faceflow"), folder.path()).deadline(Duration::from_secs(60));
    let ended = faceflow.run(&[&["run", &site.url("/"), "--crawl", "all"], &LOCAL[..]].concat());
    assert_eq!(ended.code(), Some(0), "{}{}", ended.stdout, ended.stderr);
    let images = faceflow.results(&[]);
    let taken = |path: &str| {
        let line = images.iter().find(|line| line["url"] == site.url(path));
        line.is_some_and(|line| line["status"] == "done" || line["status"] == "duplicate")
    };
    let shown = (0..PAGES.len()).map(|n| format!("/full/{n}.png"));
    let linked = PICTURES.iter().map(|(path, _)| (*path).to_owned());
    let led_to = ["/full/viewed.png", "/hidden"].map(str::to_owned);
    let lost: Vec<String> = shown.chain(linked).chain(led_to).filter(|path| !taken(path)).collect();
    assert!(lost.is_empty(), "{lost:?} of {}\n{}", summary(&images), summary(&faceflow.results(&["--kind", "pages"])));
}

#[test]
fn a_page_that_answers_for_a_missing_picture_is_asked_for_once() {
    let web = World::new();
    let site = web.site();
    let paths: Vec<String> = (0..8).map(|n| format!("/missing/{n}.jpg")).collect();
    let shown: String = paths.iter().map(|path| format!("<img src='{path}'><a href='{path}'>large</a>")).collect();
    site.page("/", shown);
    for path in &paths {
        // It shows a picture all the same, so that it is seen to be read.
        site.put(path, Answer::ok("text/html", format!("<p>Nothing here. <img src='{path}.png'>")));
        site.image(&format!("{path}.png"), png(&picture(1, 160, 120)));
    }
    let folder = tempdir().expect("a folder");
    let faceflow = Faceflow::new(env!("CARGO_BIN_EXE_faceflow"), folder.path()).deadline(Duration::from_secs(60));
    let ended = faceflow.run(&[&["run", &site.url("/"), "--crawl", "all"], &LOCAL[..]].concat());
    assert_eq!(ended.code(), Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("pages   9 discovered: 9 done"), "{}", ended.stdout);
    let asked: Vec<usize> = paths.iter().map(|path| web.log().count(&site.url(path))).collect();
    assert_eq!(asked, [1; 8]);
    let log = web.log();
    assert!(paths.iter().all(|path| log.count(&site.url(&format!("{path}.png"))) == 1), "each was read");
}

fn summary(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{} {} {}\n", line["url"], line["status"], line["reason"])).collect()
}
