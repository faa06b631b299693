//! Bodies read with a limit and a deadline for every piece.
//!
//! The only place where a body enters memory. What is sent and what it decodes to are counted as they arrive, so an
//! endless body, a decompression bomb and a coded stream that decodes to nothing all end at the limit. A page or robots.txt that is a
//! gzip file is unpacked here too, so that it is held to the same account. Promise: what is returned is complete as it was sent,
//! no longer than allowed, and within the memory of the process.

use std::future::Future;
use std::io;
use std::time::Duration;

use async_compression::futures::bufread::{BrotliDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use bytes::{Buf, Bytes};
use faceflow_core::Fault;
use futures::stream::{self, BoxStream};
use futures::{AsyncBufRead, AsyncRead, AsyncReadExt, Stream, StreamExt, TryStreamExt};
use reqwest::Version;
use reqwest::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use tokio::time::{Instant, timeout, timeout_at};

use super::body_budget::{BodyPermit, SHARE_BYTES};
use super::classify_fault;
use super::classify_fault::WrappedFault;
use super::content_coding::{self, Coding, START_BYTES, Stated};
use super::decoder_window::Window;
use super::inflate::{GZIP_START, Inflate, Wrapping};
use super::settings::SizeLimit;

/// How much of a body is wanted, and how patiently.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Its size, both as sent and with its content coding removed.
    pub size: SizeLimit,
    /// Whether a longer body is a fault; otherwise it is cut there.
    pub whole: bool,
    /// The size of a gzip file (`sitemap.xml.gz`) without its packing. `None`: it stays packed.
    pub unpacked: Option<SizeLimit>,
    /// The wait for each piece.
    pub patience: Duration,
    /// When the whole body must be there. Waiting for memory of ours does not count.
    pub deadline: Deadline,
}

/// When a whole answer must be there, with all its redirects.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// The moment.
    pub at: Instant,
    /// How long the answer had, for the message.
    pub total_ms: u64,
}

impl Deadline {
    /// Waits for memory of ours, which does not count.
    async fn but_for(&mut self, wait: impl Future<Output = ()>) {
        let asked = Instant::now();
        wait.await;
        self.at += asked.elapsed();
    }

    /// The fault of an answer that is late.
    pub fn missed(&self) -> Fault {
        classify_fault::timeout(format!("no complete answer in {} ms", self.total_ms))
    }
}

/// What a decoder gives at once, in bytes.
const PIECE_BYTES: usize = 16 << 10;

/// Decoders on top of one another that remember megabytes (brotli up to 16, zstd up to 8), at most.
const WINDOWS_MAX: usize = 2;

/// The pieces of a body.
type Pieces<'a> = BoxStream<'a, Result<Bytes, Fault>>;

/// Reads the body of a response, which has a permit for its memory, and removes its content codings and, where the limit says so,
/// its packing.
pub async fn read(response: reqwest::Response, mut limit: Limit, mut permit: BodyPermit) -> Result<Bytes, Fault> {
    let mut announced = response.content_length().unwrap_or(0);
    if limit.whole && announced > limit.size.bytes as u64 {
        return Err(classify_fault::too_large(announced, limit.size));
    }
    let stated = Stated::of(response.headers())?;
    // HTTP/2 says by itself where a message ends.
    let framed = response.version() >= Version::HTTP_2
        || [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|name| response.headers().contains_key(name));
    let mut body: Pieces<'_> = Box::pin(sent(response, limit.patience));
    let mut windows = 0;
    for layer in stated.layers.iter().rev() {
        let start;
        (start, body) = peeked(body, START_BYTES, limit.deadline).await?;
        let Some(coding) = layer.found(&start)? else { continue };
        announced = 0;
        let window = Window::of(coding, &start)?;
        windows += usize::from(window.bytes > 0);
        if windows > WINDOWS_MAX {
            return Err(content_coding::refused(format!("{windows} codings with large windows on top of one another")));
        }
        limit.deadline.but_for(permit.hold_windows(window.bytes)).await;
        body = without((coding, window), counted(body, limit), framed);
    }
    if !stated.unknown.is_empty() {
        let start;
        (start, body) = peeked(body, START_BYTES, limit.deadline).await?;
        stated.check_unknown(&start)?;
    }
    let Some(size) = limit.unpacked else { return collect(body, announced, limit, permit).await };
    let (start, body) = peeked(body, GZIP_START.len(), limit.deadline).await?;
    match start.starts_with(&GZIP_START[..2]) {
        false => collect(body, announced, limit, permit).await,
        true => {
            // A file that is broken lies broken on its server, and its reader knows what a beginning is worth. A broken content coding
            // is a fault of one answer, and so is a file that must be had as a whole: rules would be missing.
            let ending = if limit.whole { Ending::Anywhere } else { Ending::Complete { framed } };
            let pieces = inflated(counted(body, limit), Wrapping::Gzip, ending);
            collect(Box::pin(pieces), 0, Limit { size, ..limit }, permit).await
        }
    }
}

/// How a body begins, in so many bytes if it has them; and all of it.
async fn peeked(mut body: Pieces<'_>, wanted: usize, deadline: Deadline) -> Result<(Vec<u8>, Pieces<'_>), Fault> {
    let (mut pieces, mut start) = (vec![], vec![]);
    while start.len() < wanted {
        let piece = timeout_at(deadline.at, body.next()).await;
        let Some(piece) = piece.map_err(|_| deadline.missed())? else { break };
        let piece = piece?;
        start.extend_from_slice(&piece[..piece.len().min(wanted - start.len())]);
        pieces.push(piece);
    }
    Ok((start, Box::pin(stream::iter(pieces.into_iter().map(Ok)).chain(body))))
}

/// The pieces of a body as they arrive, each within its deadline.
fn sent(response: reqwest::Response, patience: Duration) -> impl Stream<Item = Result<Bytes, Fault>> {
    stream::try_unfold(response, move |mut response| async move {
        match timeout(patience, response.chunk()).await {
            Ok(piece) => Ok(piece.map_err(|error| classify_fault::of_body(&error))?.map(|piece| (piece, response))),
            Err(_) => Err(classify_fault::timeout(format!("the body paused for {} ms", patience.as_millis()))),
        }
    })
}

/// The same pieces, to be decoded: too many are a fault.
fn counted(pieces: Pieces<'_>, limit: Limit) -> Pieces<'_> {
    let mut bytes = 0;
    Box::pin(pieces.map(move |piece| {
        let piece = piece?;
        bytes += piece.len();
        match bytes > limit.size.bytes {
            true => Err(classify_fault::too_large("more, still coded,", limit.size)),
            false => Ok(piece),
        }
    }))
}

/// The pieces without one coding; `framed` if the message says where they end.
fn without((coding, window): (Coding, Window), coded: Pieces<'_>, framed: bool) -> Pieces<'_> {
    let ending = Ending::Complete { framed };
    match coding {
        Coding::Gzip => Box::pin(inflated(coded, Wrapping::Gzip, ending)),
        Coding::Zlib => Box::pin(inflated(coded, Wrapping::Zlib, ending)),
        Coding::Bare => Box::pin(inflated(coded, Wrapping::Bare, ending)),
        Coding::Brotli => Box::pin(decoded(BrotliDecoder::new(bytes_of(coded)))),
        Coding::Zstd => {
            let mut zstd = ZstdDecoder::with_params(bytes_of(coded), &[DParameter::window_log_max(window.log_max)]);
            zstd.multiple_members(true);
            Box::pin(decoded(zstd))
        }
    }
}

/// The same pieces as bytes to decode.
fn bytes_of<'a>(pieces: Pieces<'a>) -> impl AsyncBufRead + Send + Unpin + 'a {
    pieces.map_err(|fault| io::Error::other(WrappedFault(fault))).into_async_read()
}

/// Where deflate data may end.
#[derive(Clone, Copy)]
enum Ending {
    /// Where they are complete.
    Complete {
        /// Whether the message said where it ends.
        framed: bool,
    },
    /// Wherever they break.
    Anywhere,
}

/// The pieces of deflate data that are decoded.
fn inflated(coded: Pieces<'_>, wrapping: Wrapping, ending: Ending) -> impl Stream<Item = Result<Bytes, Fault>> {
    let state = (coded, Inflate::new(wrapping), Bytes::new(), vec![0; PIECE_BYTES]);
    stream::try_unfold(state, move |(mut coded, mut inflate, mut input, mut room)| async move {
        loop {
            if input.is_empty() {
                // The decoder keeps some of what it made when the room was full.
                match (inflate.drain(&mut room), ending) {
                    (Ok(0), _) => {}
                    (Ok(given), _) => {
                        return Ok(Some((Bytes::copy_from_slice(&room[..given]), (coded, inflate, input, room))));
                    }
                    (Err(_), Ending::Anywhere) => return Ok(None),
                    (Err(broken), Ending::Complete { .. }) => return Err(classify_fault::of_deflate(broken)),
                }
                match (coded.next().await, ending) {
                    (Some(piece), _) => input = piece?,
                    (None, Ending::Complete { framed }) => {
                        inflate.finish(framed).map_err(classify_fault::of_deflate)?;
                        return Ok(None);
                    }
                    (None, Ending::Anywhere) => return Ok(None),
                }
                continue;
            }
            match (inflate.read(&input, &mut room), ending) {
                (Ok((used, 0)), _) => input.advance(used),
                (Ok((used, given)), _) => {
                    input.advance(used);
                    return Ok(Some((Bytes::copy_from_slice(&room[..given]), (coded, inflate, input, room))));
                }
                (Err(_), Ending::Anywhere) => return Ok(None),
                (Err(broken), Ending::Complete { .. }) => return Err(classify_fault::of_deflate(broken)),
            }
        }
    })
}

/// The pieces that a decoder gives.
fn decoded<D: AsyncRead + Unpin>(decoder: D) -> impl Stream<Item = Result<Bytes, Fault>> {
    stream::try_unfold((decoder, vec![0; PIECE_BYTES]), move |(mut decoder, mut room)| async move {
        match decoder.read(&mut room).await {
            Ok(0) => Ok(None),
            Ok(bytes) => Ok(Some((Bytes::copy_from_slice(&room[..bytes]), (decoder, room)))),
            Err(error) => Err(classify_fault::of_decoder(&error)),
        }
    })
}

async fn collect(
    mut pieces: Pieces<'_>,
    announced: u64,
    mut limit: Limit,
    mut permit: BodyPermit,
) -> Result<Bytes, Fault> {
    let bytes_max = limit.size.bytes;
    let announced = announced.min(bytes_max as u64) as usize;
    let mut body = Vec::with_capacity(announced.min(SHARE_BYTES));
    loop {
        let piece = timeout_at(limit.deadline.at, pieces.next()).await;
        let Some(piece) = piece.map_err(|_| limit.deadline.missed())? else { break };
        let piece = piece?;
        let room = bytes_max - body.len();
        if piece.len() > room && limit.whole {
            return Err(classify_fault::too_large(format_args!("at least {}", body.len() + piece.len()), limit.size));
        }
        let length = body.len() + piece.len().min(room);
        if length > body.capacity() {
            // What was announced at once, otherwise twice as much each time.
            let next = if length <= announced { announced } else { (2 * length).max(4 * PIECE_BYTES).min(bytes_max) };
            limit.deadline.but_for(permit.grow(next)).await;
            body.reserve_exact(next - body.len());
        }
        body.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room {
            break;
        }
    }
    body.shrink_to_fit();
    Ok(permit.with(body.into()))
}
