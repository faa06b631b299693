//! Sites submitted over HTTP: `POST /v1/sites`, with a bearer token.
//!
//! What is accepted is appended to the inbox, a file of sites, before the answer is given; the pipeline follows that file as far as
//! it is on disk, and empties it once all of it is in the ledger (`inbox.rs`). So a submission survives a kill, and resuming is
//! reading the inbox again. Nobody
//! without the token is read further than the head, and every connection has its time. Promise: what was answered with 202 is
//! on its way, and nothing else is.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Json, Router};
use faceflow_core::Time;
use faceflow_core::fsync::sync_entries;
use faceflow_core::kill_point::kill_point;
use faceflow_core::source::{Source, SourceItem};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tokio::time::timeout_at;
use url::Url;

use crate::inbox::{InboxReader, InboxTruncation, TakenUp};
use crate::serve::{Deadline, listen, serve};
use crate::site_file::{LINE_MAX_BYTES, Lines, ParseSite, shortened};

/// The settings `[submit]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SubmitSettings {
    /// The token that `Authorization: Bearer …` must carry. Empty: one is made up and printed when the server starts.
    pub token: String,
    /// The file that keeps what is accepted, on a disk that lasts. Empty: beside the ledger, where that is a folder.
    pub inbox: String,
    /// Sites in one submission, at most.
    pub sites_max: usize,
    /// Size of one submission, in bytes.
    pub body_max_bytes: usize,
    /// How long one submission may take to arrive, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for SubmitSettings {
    fn default() -> Self {
        Self {
            token: String::new(),
            inbox: String::new(),
            sites_max: 10_000,
            body_max_bytes: 4 << 20,
            timeout_ms: 10_000,
        }
    }
}

impl SubmitSettings {
    /// Refuses impossible values: the key, and what is allowed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if !self.token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(("token", "printable ASCII without blanks".to_owned()));
        }
        if self.sites_max == 0 {
            return Err(("sites_max", "1 or more".to_owned()));
        }
        if self.body_max_bytes == 0 {
            return Err(("body_max_bytes", "1 or more".to_owned()));
        }
        if self.timeout_ms == 0 {
            return Err(("timeout_ms", "1 or more".to_owned()));
        }
        Ok(())
    }
}

/// The inbox, and the server that fills it. Dropped, the server stops.
pub struct Submissions {
    inbox: Lines,
    emptying: InboxTruncation,
    address: SocketAddr,
    token: String,
    _stop: oneshot::Sender<()>,
}

/// What is submitted.
#[derive(Deserialize)]
struct Submission {
    sites: Vec<String>,
}

/// The answer.
#[derive(Serialize)]
struct Receipt {
    accepted: usize,
    refused: Vec<Refusal>,
}

#[derive(Serialize)]
struct Refusal {
    site: String,
    why: String,
}

struct Acceptor {
    inbox: Arc<Mutex<File>>,
    /// How much of the inbox is on disk, whole lines all of it.
    kept: Arc<AtomicU64>,
    parse: ParseSite,
    token: [u8; 32],
    sites_max: usize,
    url_max_bytes: usize,
}

type Problem = (StatusCode, String);

impl Submissions {
    /// Listens at `address` and keeps what comes in the file `inbox`: sites that `parse` takes, whose addresses are not longer
    /// than what the crawl asks for. It is emptied once all of it is `taken_up`.
    pub fn open(
        address: &str,
        inbox: &Path,
        settings: &SubmitSettings,
        (parse, url_max_bytes): (ParseSite, usize),
        taken_up: TakenUp,
    ) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("the inbox {}: {error}", inbox.display()));
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(inbox).map_err(named)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other(format!("another process keeps {}", inbox.display())),
            TryLockError::Error(error) => error,
        })?;
        truncate_torn_line(&mut file)?;
        sync_entries(inbox, |_| false)?;
        let kept = Arc::new(AtomicU64::new(file.metadata()?.len()));
        let read = Arc::new(AtomicU64::new(0));
        let follow = InboxReader { file: File::open(inbox)?, read: Arc::clone(&read), kept: Arc::clone(&kept) };
        let file = Arc::new(Mutex::new(file));
        let emptying = InboxTruncation {
            inbox: Arc::clone(&file),
            file: File::open(inbox)?,
            read,
            kept: Arc::clone(&kept),
            parse,
            taken_up,
            checked: 0,
            not_before: 0,
        };
        let listener = listen(address)?;
        let address = listener.local_addr()?;
        let token = match &settings.token[..] {
            "" => made_up()?,
            token => token.to_owned(),
        };
        let digest = Sha256::digest(&token).into();
        let sites_max = settings.sites_max;
        let acceptor = Arc::new(Acceptor { inbox: file, kept, parse, token: digest, sites_max, url_max_bytes });
        let routes = Router::new()
            .route("/v1/sites", post(submit))
            .layer(DefaultBodyLimit::max(settings.body_max_bytes))
            .layer(from_fn_with_state(Arc::clone(&acceptor), admit))
            .with_state(acceptor);
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let limit = Duration::from_millis(settings.timeout_ms);
        std::thread::Builder::new().name("faceflow-submit".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    served = serve(listener, routes, limit) => {
                        if let Err(error) = served {
                            tracing::error!("no more submissions are taken: {error}");
                        }
                    }
                    // Nobody waits for the end of a submission that is not answered yet.
                    _ = stopped => {}
                }
            });
        })?;
        let name = inbox.display().to_string();
        let inbox = Lines::following(&name, Box::new(BufReader::new(follow)), parse);
        Ok(Self { inbox, emptying, address, token, _stop: stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The token it asks for.
    pub fn token(&self) -> &str {
        &self.token
    }
}

impl Source for Submissions {
    fn poll(&mut self, now: Time) -> SourceItem {
        let item = self.inbox.poll(now);
        if let SourceItem::Later = item
            && let Err(error) = self.emptying.go_on(now)
        {
            tracing::warn!("the inbox stays as it is, and is emptied later: {error}");
        }
        item
    }
}

/// Cuts off a last line that has no end: the process died, or the disk was full, before it was answered for.
fn truncate_torn_line(file: &mut File) -> io::Result<()> {
    let bytes = file.metadata()?.len();
    let from = bytes.saturating_sub(LINE_MAX_BYTES);
    let mut tail = Vec::new();
    file.seek(io::SeekFrom::Start(from))?;
    file.take(LINE_MAX_BYTES).read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole == tail.len() {
        return Ok(());
    }
    kill_point("inbox.cut");
    file.set_len(from + whole as u64)
}

/// 128 bits of chance, in hex.
fn made_up() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Lets requests with the token through, before anything of their body is read.
async fn admit(State(acceptor): State<Arc<Acceptor>>, request: Request, next: Next) -> Result<Response, Problem> {
    acceptor.admit(request.headers())?;
    Ok(next.run(request).await)
}

async fn submit(
    State(acceptor): State<Arc<Acceptor>>,
    Extension(Deadline(by)): Extension<Deadline>,
    request: Request,
) -> Result<(StatusCode, Json<Receipt>), Problem> {
    let late = |_| (StatusCode::REQUEST_TIMEOUT, "the submission came too slowly (submit.timeout_ms)".to_owned());
    let arrived = timeout_at(by, Json::<Submission>::from_request(request, &())).await.map_err(late)?;
    let Json(submission) = arrived.map_err(|refused| (refused.status(), refused.body_text()))?;
    if submission.sites.len() > acceptor.sites_max {
        let why =
            format!("{} sites; at most {} at once (submit.sites_max)", submission.sites.len(), acceptor.sites_max);
        return Err((StatusCode::PAYLOAD_TOO_LARGE, why));
    }
    let receipt = tokio::task::spawn_blocking(move || acceptor.keep(submission.sites));
    let receipt = receipt.await.map_err(io::Error::other).flatten();
    let receipt = receipt.map_err(|error| (StatusCode::INSUFFICIENT_STORAGE, format!("the inbox: {error}")))?;
    let status = if receipt.accepted > 0 { StatusCode::ACCEPTED } else { StatusCode::UNPROCESSABLE_ENTITY };
    Ok((status, Json(receipt)))
}

impl Acceptor {
    /// Compares digests, so that the time it takes says nothing about the token.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let said = headers.get(header::AUTHORIZATION).and_then(|value| {
            // The scheme is case-insensitive (RFC 9110, section 11.1).
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token)
        });
        let admitted = said.is_some_and(|token| <[u8; 32]>::from(Sha256::digest(token)) == self.token);
        if admitted { Ok(()) } else { Err((StatusCode::UNAUTHORIZED, "a bearer token is needed".to_owned())) }
    }

    /// The address of a site that the crawl asks for.
    fn read(&self, site: &str) -> Result<Url, String> {
        let url = (self.parse)(site)?;
        let (bytes, most) = (url.as_str().len(), self.url_max_bytes.min(LINE_MAX_BYTES as usize - 1));
        match bytes <= most {
            true => Ok(url),
            false => Err(format!("an address of {bytes} bytes; at most {most} are asked for (fetch.url_max_bytes)")),
        }
    }

    /// Appends the sites to the inbox, on disk before it returns.
    fn keep(&self, sites: Vec<String>) -> io::Result<Receipt> {
        let (mut lines, mut refused, mut accepted) = (String::new(), vec![], 0);
        for site in sites {
            match self.read(&site) {
                Ok(url) => {
                    accepted += 1;
                    lines += &format!("{url}\n");
                }
                Err(why) => refused.push(Refusal { site: shortened(&site), why: shortened(&why) }),
            }
        }
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.kept.load(SeqCst);
        // What a submission left that failed, and could not be taken back, is not the beginning of this one.
        inbox.set_len(before)?;
        kill_point("inbox.write");
        let written = inbox.write_all(lines.as_bytes()).and_then(|()| inbox.sync_data());
        kill_point("inbox.written");
        if let Err(error) = written {
            // What is not answered for is not kept; if it cannot be cut off now, the next submission does so first.
            if let Err(left) = inbox.set_len(before) {
                tracing::warn!("the inbox still holds the beginning of a submission that was not accepted: {left}");
            }
            return Err(error);
        }
        self.kept.store(before + lines.len() as u64, SeqCst);
        Ok(Receipt { accepted, refused })
    }
}

#[cfg(test)]
mod tests {
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
        let taken_up =
            move |sites: &[Url]| Ok(sites.iter().take_while(|site| number(site) < asked.load(SeqCst)).count());
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
        in_ledger.store(2_999, SeqCst);
        assert_eq!((read(&mut submissions), bytes()), (0, full), "one is not");
        submit(&submissions, 3_000, 1);
        in_ledger.store(3_000, SeqCst);
        assert_eq!(read(&mut submissions), 1);
        assert!(bytes() > full, "the last one is not");
        in_ledger.store(3_001, SeqCst);
        assert_eq!((read(&mut submissions), bytes()), (0, 0));
        // It goes on from its beginning, any number of times.
        for round in 1..4 {
            let from = round * 3_000 + 1;
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
        let settings =
            SubmitSettings { sites_max: 2, body_max_bytes: 1_000, timeout_ms: 500, ..SubmitSettings::default() };
        let mut submissions = Submissions::open("127.0.0.1:0", &inbox, &settings, SITES, nothing()).expect("opens");
        let token = submissions.token().to_owned();
        assert_eq!(token.len(), 32);
        let (status, body) = post(&submissions, &token, r#"{"sites":["http://a.example/","nonsense"]}"#);
        assert!(
            status.contains("202") && body.contains(r#""accepted":1"#) && body.contains("nonsense"),
            "{status} {body}"
        );
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
}
