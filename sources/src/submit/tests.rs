//! Submissions over real sockets, and the inbox that keeps them.

use std::fs::OpenOptions;
use std::net::TcpStream;

use super::*;

/// No address of the tests is longer.
const SITES: (ParseSite, usize) = (parse, 100);

/// The ledger has none of them.
fn nothing() -> TakenUp {
    Box::new(|_| Ok(0))
}

#[test]
fn the_inbox_is_emptied_once_all_of_it_is_in_the_ledger_and_not_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let inbox = folder.path().join("inbox.txt");
    let in_ledger = Arc::new(AtomicU64::new(0));
    let asked = Arc::clone(&in_ledger);
    // So many of the sites are in the ledger, by the number in their names.
    let number = |site: &Url| site.path().trim_matches('/').parse::<u64>().expect("a number");
    let taken_up = move |sites: &[Url]| Ok(sites.iter().take_while(|site| number(site) < asked.load(SeqCst)).count());
    let settings = SubmitSettings::default();
    let mut submissions =
        Submissions::open("127.0.0.1:0", &inbox, &settings, SITES, Box::new(taken_up)).expect("opens");
    let token = submissions.token().to_owned();
    let bytes = || std::fs::metadata(&inbox).expect("is there").len();
    let submit = |submissions: &Submissions, from: u64, count: u64| {
        let sites: Vec<_> = (from..from + count).map(|n| format!("\"http://a.example/{n:070}\"")).collect();
        let (status, body) = post(submissions, &token, &format!(r#"{{"sites":[{}]}}"#, sites.join(",")));
        assert!(status.contains("202"), "{status} {body}");
    };
    let mut now = 0;
    // Reads everything, then asks for more a few times, a second apart.
    let mut read = |submissions: &mut Submissions| {
        let (mut sites, mut later) = (0, 0);
        while later < 8 {
            match submissions.poll(now) {
                SourceItem::Site(_) => sites += 1,
                SourceItem::Later => (later, now) = (later + 1, now + 1_000),
                other => panic!("{other:?}"),
            }
        }
        sites
    };
    submit(&submissions, 0, 3_000);
    let full = bytes();
    assert!(full > crate::inbox::EMPTIED_FROM_BYTES, "{full}");
    assert_eq!((read(&mut submissions), bytes()), (3_000, full), "nothing is in the ledger");
    in_ledger.store(1_499, SeqCst);
    assert_eq!((read(&mut submissions), bytes()), (0, full), "most of it is not");
    submit(&submissions, 3_000, 1);
    in_ledger.store(3_000, SeqCst);
    assert_eq!((read(&mut submissions), bytes()), (1, full / 3_000), "the last one is not");
    submit(&submissions, 3_001, 2_999);
    in_ledger.store(6_000, SeqCst);
    assert_eq!((read(&mut submissions), bytes()), (2_999, 0));
    // It goes on from its beginning, any number of times.
    for round in 2..5 {
        let from = round * 3_000;
        submit(&submissions, from, 3_000);
        assert_eq!(bytes(), full);
        in_ledger.store(from + 3_000, SeqCst);
        assert_eq!((read(&mut submissions), bytes()), (3_000, 0));
    }
    // A small one is left alone.
    submit(&submissions, 20_000, 1);
    in_ledger.store(30_000, SeqCst);
    assert_eq!(read(&mut submissions), 1);
    assert!(bytes() > 0);
}

/// What is in the ledger: so many of the sites, by the number in their names.
fn counting(in_ledger: &Arc<AtomicU64>) -> TakenUp {
    let in_ledger = Arc::clone(in_ledger);
    let number = |site: &Url| site.path().trim_matches('/').parse::<u64>().expect("a number");
    Box::new(move |sites| Ok(sites.iter().take_while(|site| number(site) < in_ledger.load(SeqCst)).count()))
}

#[test]
fn an_inbox_that_is_written_to_without_a_pause_has_no_more_than_twice_what_is_needed() {
    let folder = tempfile::tempdir().expect("a folder");
    let inbox = folder.path().join("inbox.txt");
    let (in_ledger, settings) = (Arc::new(AtomicU64::new(0)), SubmitSettings::default());
    let open = || Submissions::open("127.0.0.1:0", &inbox, &settings, SITES, counting(&in_ledger));
    let mut submissions = open().expect("opens");
    let token = submissions.token().to_owned();
    let (mut sent, mut seen, mut most, mut now) = (0_u64, 0_u64, 0, 0);
    for _ in 0..40 {
        let sites: Vec<_> = (sent..sent + 1_000).map(|n| format!("\"http://a.example/{n:070}\"")).collect();
        let (status, body) = post(&submissions, &token, &format!(r#"{{"sites":[{}]}}"#, sites.join(",")));
        assert!(status.contains("202"), "{status} {body}");
        sent += 1_000;
        // It is never read to its end, and the ledger is a little behind.
        while seen + 500 < sent {
            assert!(matches!(submissions.poll(now), SourceItem::Site(_)), "there is always something to read");
            seen += 1;
            in_ledger.store(seen.saturating_sub(300), SeqCst);
        }
        now += 1_000;
        most = most.max(std::fs::metadata(&inbox).expect("is there").len());
    }
    assert!(most < 5_000 * 88, "{most} bytes of {}", sent * 88);
    // What was not in the ledger is read again by whoever opens it next, and nothing before that for long.
    let address = submissions.address();
    drop(submissions);
    let mut again = loop {
        match open() {
            Ok(again) => break again,
            Err(error) => assert!(error.to_string().contains("another process"), "{error}"),
        }
    };
    assert_ne!(again.address(), address);
    let mut read = Vec::new();
    while let SourceItem::Site(site) = again.poll(0) {
        read.push(site.path().trim_matches('/').parse::<u64>().expect("a number"));
    }
    assert!(read.first().is_some_and(|first| *first <= in_ledger.load(SeqCst)), "{:?}", read.first());
    assert!(read.is_sorted() && read.last() == Some(&(sent - 1)), "{:?}", read.last());
    assert_eq!(read.len() as u64, sent - read[0], "each once");
}

#[test]
fn lines_that_are_no_sites_are_kept_apart_and_do_not_keep_the_inbox_full() {
    let folder = tempfile::tempdir().expect("a folder");
    let inbox = folder.path().join("inbox.txt");
    let long = "x".repeat(3 * LINE_MAX_BYTES as usize);
    let sites: String = (0..1_000).map(|n| format!("http://a.example/{n:070}\n")).collect();
    std::fs::write(&inbox, format!("# by hand\n\nnonsense\n{sites}{long}\nmore nonsense # no site\n")).expect("writes");
    let settings = SubmitSettings::default();
    let in_ledger = Arc::new(AtomicU64::new(0));
    let mut submissions =
        Submissions::open("127.0.0.1:0", &inbox, &settings, SITES, counting(&in_ledger)).expect("opens");
    let (mut sites, mut bad, mut later) = (0, 0, 0);
    let mut read = |submissions: &mut Submissions, until: u64| {
        while later < until {
            match submissions.poll(later * 1_000) {
                SourceItem::Site(_) => sites += 1,
                SourceItem::Bad(_) => bad += 1,
                SourceItem::Later => later += 1,
                other => panic!("{other:?}"),
            }
        }
        (sites, bad)
    };
    assert_eq!(read(&mut submissions, 8), (1_000, 3), "each is said");
    assert!(std::fs::metadata(&inbox).expect("is there").len() > 1_000 * 88, "nothing is in the ledger");
    in_ledger.store(1_000, SeqCst);
    assert_eq!(read(&mut submissions, 16), (1_000, 3));
    assert_eq!(std::fs::metadata(&inbox).expect("is there").len(), 0);
    // A line that an accepted site might have been is not lost; one that is too long for that is.
    let kept = std::fs::read_to_string(folder.path().join("inbox.txt.refused")).expect("reads");
    assert_eq!(kept, "nonsense\nmore nonsense # no site\n");
}

#[test]
fn what_a_failed_submission_left_is_no_part_of_the_next_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let inbox = folder.path().join("inbox.txt");
    let settings = SubmitSettings::default();
    let mut submissions = Submissions::open("127.0.0.1:0", &inbox, &settings, SITES, nothing()).expect("opens");
    let token = submissions.token().to_owned();
    // As if its end could neither be written nor cut off.
    let mut beside = OpenOptions::new().append(true).open(&inbox).expect("opens");
    beside.write_all(b"http://b.exa").expect("writes");
    let (status, _) = post(&submissions, &token, r#"{"sites":["http://a.example/"]}"#);
    assert!(status.contains("202"), "{status}");
    assert_eq!(std::fs::read_to_string(&inbox).expect("reads"), "http://a.example/\n");
    assert_eq!([next(&mut submissions), next(&mut submissions)], ["http://a.example/", "Later"]);
}

fn parse(text: &str) -> Result<Url, String> {
    Url::parse(text).map_err(|error| error.to_string())
}

/// Status line and body of the answer to a submission.
fn post(submissions: &Submissions, token: &str, body: &str) -> (String, String) {
    post_part(submissions, token, body, body.len())
}

/// The same for one that is said to have so many bytes.
fn post_part(submissions: &Submissions, token: &str, body: &str, bytes: usize) -> (String, String) {
    let mut stream = TcpStream::connect(submissions.address()).expect("connects");
    let head = format!(
        "POST /v1/sites HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {bytes}\r\n\r\n{body}",
    );
    stream.write_all(head.as_bytes()).expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

fn next(submissions: &mut Submissions) -> String {
    match submissions.poll(0) {
        SourceItem::Site(url) => url.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_site_that_the_crawl_would_not_ask_for_is_refused_and_so_is_a_slow_submission() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = SubmitSettings { timeout_ms: 500, ..SubmitSettings::default() };
    let inbox = folder.path().join("inbox.txt");
    let mut submissions = Submissions::open("127.0.0.1:0", &inbox, &settings, SITES, nothing()).expect("opens");
    let token = submissions.token().to_owned();
    let [fits, long] = [100, 101].map(|bytes| format!("{:x<bytes$}", "http://a.example/"));
    let (status, body) = post(&submissions, &token, &format!(r#"{{"sites":["{long}","{fits}"]}}"#));
    assert!(status.contains("202") && body.contains(r#""accepted":1"#), "{status} {body}");
    assert!(body.contains("an address of 101 bytes; at most 100"), "{body}");
    assert_eq!([next(&mut submissions), next(&mut submissions)], [fits, "Later".to_owned()]);
    let (status, body) = post(&submissions, &token, &format!(r#"{{"sites":["{}"]}}"#, "x".repeat(10_000)));
    assert!(status.contains("422") && body.len() < 1_000, "{status} {body}");

    let (status, body) = post_part(&submissions, &token, r#"{"sites":["http://b.example/"#, 1_000);
    assert!(status.contains("408") && body.contains("submit.timeout_ms"), "{status} {body}");
    assert_eq!(next(&mut submissions), "Later");
}

#[test]
fn whoever_is_silent_keeps_nobody_waiting() {
    let folder = tempfile::tempdir().expect("a folder");
    // Nobody would live to see the end of the silence.
    let settings = SubmitSettings { timeout_ms: u64::from(u32::MAX), ..SubmitSettings::default() };
    let inbox = folder.path().join("inbox.txt");
    let submissions = Submissions::open("127.0.0.1:0", &inbox, &settings, SITES, nothing()).expect("opens");
    let token = submissions.token().to_owned();
    let silent: Vec<_> = (0..300).map(|_| TcpStream::connect(submissions.address()).expect("connects")).collect();
    let (status, _) = post(&submissions, &token, r#"{"sites":["http://a.example/"]}"#);
    assert!(status.contains("202"), "{status}");
    drop(silent);
}

#[test]
fn what_is_accepted_is_in_the_inbox_and_comes_again_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let inbox = folder.path().join("inbox.txt");
    let settings = SubmitSettings { sites_max: 2, body_max_bytes: 1_000, timeout_ms: 500, ..SubmitSettings::default() };
    let mut submissions = Submissions::open("127.0.0.1:0", &inbox, &settings, SITES, nothing()).expect("opens");
    let token = submissions.token().to_owned();
    assert_eq!(token.len(), 32);
    let (status, body) = post(&submissions, &token, r#"{"sites":["http://a.example/","nonsense"]}"#);
    assert!(status.contains("202") && body.contains(r#""accepted":1"#) && body.contains("nonsense"), "{status} {body}");
    assert_eq!([next(&mut submissions), next(&mut submissions)], ["http://a.example/", "Later"]);

    for (token, body, expected) in [
        ("wrong", r#"{"sites":["http://b.example/"]}"#, "401"),
        ("", r#"{"sites":["http://b.example/"]}"#, "401"),
        (&token, r#"{"sites":["nonsense"]}"#, "422"),
        (&token, r#"{"sites":"#, "400"),
        (&token, r#"{"sites":["http://1/","http://2/","http://3/"]}"#, "413"),
        (&token, &format!(r#"{{"sites":["{}"]}}"#, "x".repeat(2_000)), "413"),
    ] {
        let (status, said) = post(&submissions, token, body);
        assert!(status.contains(expected), "{body}: {status} {said}");
    }
    assert_eq!(next(&mut submissions), "Later");

    let second = Submissions::open("127.0.0.1:0", &inbox, &settings, SITES, nothing()).err().expect("it is kept");
    assert!(second.to_string().contains("another process"), "{second}");
    // Who is silent, or has no token and much to say, is not waited for.
    let mut silent = TcpStream::connect(submissions.address()).expect("connects");
    let mut answer = Vec::new();
    silent.read_to_end(&mut answer).expect("is closed");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));

    let address = submissions.address();
    drop(submissions);
    let mut torn = OpenOptions::new().append(true).open(&inbox).expect("opens");
    torn.write_all(b"http://torn.exam").expect("writes");
    // The server's thread lets go of the inbox in a moment.
    let mut again = loop {
        match Submissions::open("127.0.0.1:0", &inbox, &settings, SITES, nothing()) {
            Ok(again) => break again,
            Err(error) => assert!(error.to_string().contains("another process"), "{error}"),
        }
    };
    assert_eq!([next(&mut again), next(&mut again)], ["http://a.example/", "Later"]);
    assert_ne!(again.address(), address);
}
