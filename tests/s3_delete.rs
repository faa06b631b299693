//! S3 stores that cannot, or may not, delete: a run needs no more of a store than that it keeps and gives objects.

mod world;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::tempdir;
use world::{Faceflow, World};

const LOCAL: [&str; 2] = ["--set", "fetch.allow_networks=127.0.0.0/8"];

/// A refusal: its status line and the code in its body.
type Refusal = Option<(&'static str, &'static str)>;

/// A store on loopback. Every answer ends its connection.
struct Store {
    endpoint: String,
    /// Objects, and what was asked for but objects.
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    objects: BTreeMap<String, Vec<u8>>,
    bulk: usize,
    deleted: usize,
}

impl Store {
    /// Answers bulk deletes and single ones like this; `None` for doing it.
    fn new(bulk: Refusal, single: Refusal) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let endpoint = format!("http://{}", listener.local_addr().expect("has an address"));
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                // Whoever asks may leave in the middle, which ends its connection and nothing else.
                std::thread::spawn(move || serve(stream.expect("connects"), (bulk, single), &shared).ok());
            }
        });
        Self { endpoint, seen }
    }
}

fn serve(stream: TcpStream, (bulk, single): (Refusal, Refusal), seen: &Mutex<Seen>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length, mut chunked) = (String::new(), 0, false);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        let line = line.to_lowercase();
        if let Some(bytes) = line.strip_prefix("content-length:") {
            length = bytes.trim().parse().expect("a number");
        }
        chunked |= line.starts_with("transfer-encoding:");
    }
    assert!(!chunked, "objects are sent with their length");
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (key, query) = target.split_once('?').unwrap_or((target, ""));
    let mut seen = seen.lock().expect("unpoisoned");
    let refused = |(status, code): (&'static str, &str)| {
        (status, format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>").into_bytes())
    };
    let (status, answer) = match method {
        "PUT" => {
            seen.objects.insert(key.to_owned(), body);
            ("200 OK", vec![])
        }
        "GET" if query.contains("list-type") => {
            ("200 OK", b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>".to_vec())
        }
        "GET" | "HEAD" => match seen.objects.get(key) {
            Some(body) => ("200 OK", body.clone()),
            None => refused(("404 Not Found", "NoSuchKey")),
        },
        "POST" => {
            seen.bulk += 1;
            bulk.map_or(("200 OK", b"<DeleteResult/>".to_vec()), refused)
        }
        "DELETE" => {
            seen.deleted += 1;
            if single.is_none() {
                seen.objects.remove(key);
            }
            single.map_or(("204 No Content", vec![]), refused)
        }
        _ => ("405 Method Not Allowed", vec![]),
    };
    drop(seen);
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nETag: \"x\"\r\nLast-Modified: Tue, 01 Jan 2030 00:00:00 GMT\r\nContent-Length: {}\r\n\r\n",
        answer.len()
    );
    let mut stream = reader.into_inner();
    stream.write_all(head.as_bytes())?;
    stream.write_all(if method == "HEAD" { &[] } else { &answer })
}

#[test]
fn a_run_needs_no_deletes_of_its_store() {
    let web = World::new();
    let site = web.site();
    site.page("/", r#"<img src="/a.png">"#).image("/a.png", world::png(&world::picture(1, 160, 120)));
    let no_bulk = Some(("501 Not Implemented", "NotImplemented"));
    let stores: [(&str, Refusal, Refusal); 10] = [
        ("that does everything", None, None),
        ("without bulk deletes: 501", no_bulk, None),
        ("without bulk deletes: 400", Some(("400 Bad Request", "MissingArgument")), None),
        ("without bulk deletes: 400 for a digest", Some(("400 Bad Request", "MissingContentMD5")), None),
        ("without bulk deletes: 405", Some(("405 Method Not Allowed", "MethodNotAllowed")), None),
        (
            "that may be appended to: 403",
            Some(("403 Forbidden", "AccessDenied")),
            Some(("403 Forbidden", "AccessDenied")),
        ),
        ("with object lock: 409", no_bulk, Some(("409 Conflict", "ObjectLocked"))),
        ("with object lock: 400", no_bulk, Some(("400 Bad Request", "InvalidRequest"))),
        ("without deletes: 405", no_bulk, Some(("405 Method Not Allowed", "MethodNotAllowed"))),
        ("without deletes: 501", no_bulk, Some(("501 Not Implemented", "NotImplemented"))),
    ];
    for (what, bulk, single) in stores {
        let store = Store::new(bulk, single);
        let folder = tempdir().expect("a folder");
        let faceflow = Faceflow::new(env!("CARGO_BIN_EXE_faceflow"), folder.path())
            .deadline(Duration::from_secs(60))
            .env("AWS_ACCESS_KEY_ID", "id")
            .env("AWS_SECRET_ACCESS_KEY", "secret/Key+1")
            .env("AWS_REGION", "here")
            .env("AWS_ENDPOINT", &store.endpoint)
            .env("AWS_ALLOW_HTTP", "true");
        let out = ["--out", "s3://bucket/x"];
        let ended = faceflow.run(&[&["run", &site.url("/")], &LOCAL[..], &out[..]].concat());
        assert_eq!(ended.code(), Some(0), "a store {what}: {}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.contains("images  1 discovered: 1 done"), "a store {what}: {}", ended.stdout);
        let seen = store.seen.lock().expect("unpoisoned");
        let has =
            |part: &str| seen.objects.keys().any(|key| key.starts_with("/bucket/x/default/") && key.contains(part));
        assert!(["/images/", "/thumbs/", "/meta/"].into_iter().all(has), "a store {what}: {:?}", seen.objects.keys());
        let probes =
            seen.objects.keys().filter(|key| !key.contains("/default/") && !key.ends_with("report.html")).count();
        // Only the probe is ever deleted; where it stays, that is said.
        assert_eq!((probes, seen.bulk, seen.deleted > 0), (usize::from(single.is_some()), 0, true), "a store {what}");
        assert_eq!(
            ended.stderr.contains("stays in s3://bucket/x"),
            single.is_some(),
            "a store {what}: {}",
            ended.stderr
        );
    }
}
