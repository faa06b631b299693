//! Folders, memory, and S3 over real sockets on loopback.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;

const KEY: &str = "default/images/ab/abcd.jpg";

/// Waits for a future on a runtime of its own.
fn wait<T>(future: impl std::future::Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn put(objects: &Objects, key: &str, body: &'static [u8]) -> Result<(), Fault> {
    wait(objects.put(key.to_owned(), Bytes::from_static(body)))
}

fn get(objects: &Objects, key: &str) -> Result<Bytes, Fault> {
    wait(objects.get(key.to_owned()))
}

#[test]
fn folders_and_memory_give_back_what_they_took() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("made on the way");
    let url = Url::from_directory_path(dir.path().join("url")).expect("absolute");
    for place in [folder.to_str().expect("text"), url.as_str(), "memory://"] {
        for objects in [Objects::open(place).expect("opens"), Objects::open_durable(place).expect("opens")] {
            put(&objects, KEY, b"one").expect("puts");
            put(&objects, KEY, b"one").expect("twice is harmless");
            assert_eq!(get(&objects, KEY), Ok(Bytes::from_static(b"one")), "{place}");
            let missing = get(&objects, "default/images/no/no.jpg").expect_err("is not there");
            assert_eq!(
                (missing.class, missing.reason.as_str(), missing.permanent),
                (Class::Store, "store_missing", false)
            );
            assert_eq!(wait(objects.check()), Ok(()));
        }
    }
    assert!(folder.join(KEY).is_file());
    let left = std::fs::read_dir(&folder).expect("reads").flatten();
    let left = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(CHECK_KEY)).count();
    assert_eq!(left, 0, "the check leaves nothing");
}

fn keys(objects: &Objects, folder: &str) -> Vec<String> {
    let listed = wait(objects.list(folder.to_owned()).try_collect::<Vec<_>>()).expect("lists");
    let mut keys: Vec<String> = listed.into_iter().map(|object| object.key).collect();
    keys.sort_unstable();
    keys
}

/// What every store does with what it holds.
fn lists_and_deletes(objects: &Objects) {
    let all = ["t/faces/ab/abcd/0.jpg", "t/faces/ab/abcd/1.jpg", "t/faces/ab/abcdef/0.jpg", KEY];
    all.iter().for_each(|key| put(objects, key, b"body").expect("puts"));
    assert_eq!(keys(objects, "t/faces/ab/abcd"), all[..2], "a folder, not what begins like it");
    let (mut everything, mut expected) = (keys(objects, ""), all.map(str::to_owned).to_vec());
    everything.sort_unstable();
    expected.sort_unstable();
    assert_eq!(everything, expected);
    assert_eq!(keys(objects, "nowhere"), Vec::<String>::new());
    for _ in 0..2 {
        assert_eq!(wait(objects.delete(all[0].to_owned())), Ok(()), "what is gone is deleted already");
    }
    assert_eq!(keys(objects, "t/faces/ab/abcd"), all[1..2]);
    assert_eq!(get(objects, all[0]).expect_err("is gone").reason, "store_missing");
    // An original that was deleted is not remembered as stored.
    assert_eq!(wait(objects.delete(KEY.to_owned())), Ok(()));
    put(objects, KEY, b"body").expect("puts");
    assert_eq!(get(objects, KEY), Ok(Bytes::from_static(b"body")));
}

#[test]
fn folders_and_memory_list_and_delete() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().to_str().expect("text");
    std::fs::create_dir_all(dir.path().join("t/faces/ab/abcd")).expect("makes it");
    std::fs::write(dir.path().join("t/faces/ab/abcd/2.jpg#1"), "ha").expect("writes");
    for place in [folder, "memory://"] {
        lists_and_deletes(&Objects::open(place).expect("opens"));
    }
    let outside = wait(Objects::open(folder).expect("opens").delete("../x".to_owned())).expect_err("is outside");
    assert_eq!(outside.class, Class::Store);
}

#[test]
fn s3_lists_and_deletes_without_bulk_requests() {
    lists_and_deletes(&Bucket::answering(200).open());
}

#[test]
fn credentials_that_may_not_delete_are_good_enough() {
    assert_eq!(wait(Bucket::keeping().open().check()), Ok(()));
}

#[test]
fn an_object_that_changes_is_written_again() {
    let objects = Objects::open("memory://").expect("opens");
    put(&objects, "default/meta/ab/abcd.json", b"one").expect("puts");
    put(&objects, "default/meta/ab/abcd.json", b"two").expect("puts");
    assert_eq!(get(&objects, "default/meta/ab/abcd.json"), Ok(Bytes::from_static(b"two")));
}

#[test]
fn what_a_kill_leaves_behind_is_no_object() {
    let dir = tempfile::tempdir().expect("a folder");
    let objects = Objects::open(dir.path().to_str().expect("text")).expect("opens");
    let file = dir.path().join(KEY);
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("makes it");
    // Half a file under the name that a put writes to before it renames.
    let left = dir.path().join(format!("{KEY}#1"));
    std::fs::write(&left, b"ha").expect("writes");
    assert_eq!(get(&objects, KEY).expect_err("is no object").reason, "store_missing");
    put(&objects, KEY, b"whole").expect("puts");
    assert_eq!(std::fs::read(&file).expect("reads"), b"whole");
    let names: Vec<_> = std::fs::read_dir(file.parent().expect("a folder")).expect("lists").collect();
    assert_eq!(names.len(), 2, "the put left nothing of its own");
}

#[test]
fn keys_stay_inside() {
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path().join("out");
    let objects = Objects::open(root.to_str().expect("text")).expect("opens");
    for key in ["../escaped", "a/../../escaped", "a//b"] {
        assert!(put(&objects, key, b"x").is_err(), "{key}");
    }
    assert!(!dir.path().join("escaped").exists());
}

#[test]
fn places_that_are_none_say_what_is() {
    for place in ["ftp://host/x", "s3://", "http://bucket.example/"] {
        let refused = Objects::open(place).err().expect("is refused");
        assert!(refused.to_string().contains(place), "{refused}");
    }
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    std::fs::write(&file, "x").expect("writes");
    let refused = Objects::open(file.to_str().expect("text")).err().expect("is a file");
    assert!(matches!(refused, ObjectsError::Refused { .. }), "{refused}");
}

/// Says of a [`Bucket`] that it refuses to delete, and nothing else.
const KEEPING: u16 = 299;

/// A tiny S3 that knows no bulk requests: what was put is given back, and every answer can be made to fail.
struct Bucket {
    endpoint: String,
    puts: Arc<Mutex<Vec<String>>>,
}

impl Bucket {
    /// Deletes nothing.
    fn keeping() -> Self {
        Self::answering(KEEPING)
    }

    /// Answers with `status` unless it is 200.
    fn answering(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let endpoint = format!("http://{}", listener.local_addr().expect("has an address"));
        let puts: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&puts);
        std::thread::spawn(move || {
            let mut objects = HashMap::new();
            for stream in listener.incoming() {
                serve(stream.expect("connects"), status, &mut objects, &seen);
            }
        });
        Self { endpoint, puts }
    }

    fn open(&self) -> Objects {
        let builder = AmazonS3Builder::new().with_endpoint(&self.endpoint).with_region("here");
        let builder = builder.with_access_key_id("id").with_secret_access_key("secret");
        let store = PrefixStore::new(s3(builder, "bucket").expect("is complete"), Path::from("prefix"));
        Objects::over(Arc::new(store), "s3://bucket/prefix")
    }
}

fn serve(stream: TcpStream, status: u16, objects: &mut HashMap<String, Vec<u8>>, puts: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).expect("reads") <= 2 {
            break;
        }
        head.push(line);
    }
    let mut words = head[0].split_whitespace();
    let (method, path) = (words.next().expect("a method").to_owned(), words.next().expect("a path").to_owned());
    let length =
        head.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length:").map(|n| n.trim().parse()));
    let mut body = vec![0; length.map_or(0, |length| length.expect("a number"))];
    reader.read_exact(&mut body).expect("reads");
    let (place, query) = path.split_once('?').map_or((path.clone(), ""), |(place, query)| (place.to_owned(), query));
    let (status, answer) = match (status, method.as_str()) {
        (200 | KEEPING, "PUT") => {
            objects.insert(place, body);
            (200, Vec::new())
        }
        (200 | KEEPING, "GET") if query.contains("list-type=2") => (200, listed(objects, query)),
        (200 | KEEPING, "GET") => objects.get(&place).map_or((404, Vec::new()), |body| (200, body.clone())),
        (200, "DELETE") => {
            objects.remove(&place);
            (204, Vec::new())
        }
        (KEEPING, _) => (403, Vec::new()),
        (200, _) => (501, Vec::new()),
        (status, _) => (status, Vec::new()),
    };
    if method == "PUT" {
        puts.lock().expect("unpoisoned").push(path);
    }
    let head = format!(
        "HTTP/1.1 {status} X\r\nConnection: close\r\nETag: \"x\"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: {}\r\n\r\n",
        answer.len()
    );
    let mut stream = reader.into_inner();
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&answer)).expect("writes");
}

/// The answer to a list request, as S3 gives it.
fn listed(objects: &HashMap<String, Vec<u8>>, query: &str) -> Vec<u8> {
    let prefix = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "prefix");
    let prefix = format!("/bucket/{}", prefix.map(|(_, prefix)| prefix.into_owned()).unwrap_or_default());
    let found = objects.iter().filter(|(key, _)| key.starts_with(&prefix)).map(|(key, body)| {
        let (key, size) = (key.trim_start_matches("/bucket/"), body.len());
        format!(
            "<Contents><Key>{key}</Key><Size>{size}</Size><ETag>x</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        )
    });
    format!("<ListBucketResult><IsTruncated>false</IsTruncated>{}</ListBucketResult>", found.collect::<String>()).into()
}

#[test]
fn s3_keeps_its_prefix_and_stores_an_original_once() {
    let bucket = Bucket::answering(200);
    let objects = bucket.open();
    for key in [KEY, KEY, "default/meta/ab/abcd.json", "default/meta/ab/abcd.json"] {
        put(&objects, key, b"body").expect("puts");
    }
    let meta = "/bucket/prefix/default/meta/ab/abcd.json";
    assert_eq!(*bucket.puts.lock().expect("unpoisoned"), [format!("/bucket/prefix/{KEY}").as_str(), meta, meta]);
    assert_eq!(get(&objects, KEY), Ok(Bytes::from_static(b"body")));
}

#[test]
fn no_answer_of_a_store_gives_work_up() {
    for (status, reason, advice) in [
        (403, "store_denied", "AWS_ACCESS_KEY_ID"),
        (401, "store_denied", "credentials"),
        (404, "store_missing", "bucket"),
        (500, "store", "500"),
    ] {
        let fault = put(&Bucket::answering(status).open(), KEY, b"x").expect_err("is refused");
        assert_eq!(
            (fault.class, fault.reason.as_str(), fault.permanent),
            (Class::Store, reason, false),
            "{status}: {fault}"
        );
        assert!(fault.detail.contains(advice) && fault.detail.contains("s3://bucket/prefix"), "{status}: {fault}");
    }
    let closed = TcpListener::bind("127.0.0.1:0").expect("binds");
    let endpoint = format!("http://{}", closed.local_addr().expect("has an address"));
    drop(closed);
    let fault = put(&Bucket { endpoint, puts: Arc::default() }.open(), KEY, b"x").expect_err("nobody listens");
    assert_eq!((fault.class, fault.reason.as_str(), fault.permanent), (Class::Store, "store", false), "{fault}");
}
