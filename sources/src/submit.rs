//! Sites submitted over HTTP: `POST /v1/sites`, with a bearer token.
//!
//! What is accepted is appended to the inbox, a file of sites, before the answer is given; the pipeline follows that file as far as
//! it is on disk, and takes out of it what is in the ledger (`inbox.rs`). So a submission survives a kill, and resuming is
//! reading the inbox again. Nobody
//! without the token is read further than the head, and every connection has its time. Promise: what was answered with 202 is
//! on its way, and nothing else is.

use std::fs::File;
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
use faceflow_core::kill_point::kill_point;
use faceflow_core::source::{Source, SourceItem};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tokio::time::timeout_at;
use url::Url;

use crate::inbox::{Inbox, InboxReader, InboxTruncation, PART_LINES, TakenUp};
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
    /// Sites read since it was looked at what can go.
    read: usize,
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
    inbox: Arc<Mutex<Inbox>>,
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
    /// than what the crawl asks for. What is `taken_up` is taken out of it.
    pub fn open(
        address: &str,
        inbox: &Path,
        settings: &SubmitSettings,
        (parse, url_max_bytes): (ParseSite, usize),
        taken_up: TakenUp,
    ) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("the inbox {}: {error}", inbox.display()));
        let mut held = Inbox::open(inbox).map_err(named)?;
        truncate_torn_line(&mut held.file)?;
        held.sync_entry()?;
        let kept = Arc::new(AtomicU64::new(held.file.metadata()?.len()));
        let read = Arc::new(AtomicU64::new(0));
        let file = Arc::new(Mutex::new(held.file.try_clone()?));
        let follow = InboxReader { file: Arc::clone(&file), read: Arc::clone(&read), kept: Arc::clone(&kept) };
        let held = Arc::new(Mutex::new(held));
        let emptying = InboxTruncation {
            inbox: Arc::clone(&held),
            file,
            read,
            kept: Arc::clone(&kept),
            parse,
            taken_up,
            checked: 0,
            refused: vec![],
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
        let acceptor = Arc::new(Acceptor { inbox: held, kept, parse, token: digest, sites_max, url_max_bytes });
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
        Ok(Self { inbox, emptying, read: 0, address, token, _stop: stop })
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
        self.read += 1;
        // Where submissions never pause, there is always something to read.
        if matches!(item, SourceItem::Later) || self.read >= PART_LINES {
            self.read = 0;
            if let Err(error) = self.emptying.go_on(now) {
                tracing::warn!("the inbox stays as it is, and is emptied later: {error}");
            }
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
        inbox.sync_entry()?;
        let (before, file) = (self.kept.load(SeqCst), &mut inbox.file);
        // What a submission left that failed, and could not be taken back, is not the beginning of this one.
        file.set_len(before)?;
        kill_point("inbox.write");
        let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data());
        kill_point("inbox.written");
        if let Err(error) = written {
            // What is not answered for is not kept; if it cannot be cut off now, the next submission does so first.
            if let Err(left) = file.set_len(before) {
                tracing::warn!("the inbox still holds the beginning of a submission that was not accepted: {left}");
            }
            return Err(error);
        }
        self.kept.store(before + lines.len() as u64, SeqCst);
        Ok(Receipt { accepted, refused })
    }
}

#[cfg(test)]
mod tests;
