//! Bodies read with a limit and a deadline for every piece.
//!
//! The only place where a body enters memory. What is sent and what it decodes to are counted as they arrive, so an
//! endless body, a decompression bomb and a coded stream that decodes to nothing all end at the limit. A page that is a gzip
//! file is unpacked here too, so that it is held to the same account. Promise: what is returned is complete as it was sent,
//! no longer than allowed, and within the memory of the process.

use std::io;
use std::time::Duration;

use async_compression::futures::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use bytes::{Bytes, BytesMut};
use faceflow_core::{Class, Fault};
use futures::stream::{self, BoxStream};
use futures::{AsyncBufRead, AsyncRead, AsyncReadExt, Stream, StreamExt, TryStreamExt};
use reqwest::header::CONTENT_ENCODING;
use tokio::time::{Instant, timeout, timeout_at};

use super::body_budget::{BodyPermit, SHARE_BYTES};
use super::classify_fault;
use super::classify_fault::WrappedFault;
use super::settings::SizeLimit;

/// The `Accept-Encoding` of every request: the content codings that [`read`] removes.
pub const CODINGS: &str = "gzip, deflate, br, zstd";

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
    /// The fault of an answer that is late.
    pub fn missed(&self) -> Fault {
        classify_fault::timeout(format!("no complete answer in {} ms", self.total_ms))
    }
}

/// What a decoder gives at once, in bytes.
const PIECE_BYTES: usize = 16 << 10;

/// The pieces of a body.
type Pieces<'a> = BoxStream<'a, Result<Bytes, Fault>>;

/// Reads the body of a response, which has a permit for its memory, and removes its content coding and, where the limit says so,
/// its packing.
pub async fn read(response: reqwest::Response, limit: Limit, permit: BodyPermit) -> Result<Bytes, Fault> {
    let mut announced = response.content_length().unwrap_or(0);
    if limit.whole && announced > limit.size.bytes as u64 {
        return Err(classify_fault::too_large(announced, limit.size));
    }
    let coding =
        response.headers().get(CONTENT_ENCODING).map(|coding| coding.as_bytes().trim_ascii().to_ascii_lowercase());
    let mut body: Pieces<'_> = Box::pin(sent(response, limit.patience));
    if let Some(coding) = coding.filter(|coding| !matches!(coding.as_slice(), b"" | b"identity")) {
        announced = 0;
        body = Box::pin(decoded(decoder(&coding, bytes_of(body, limit.size))?, false));
    }
    let Some(size) = limit.unpacked else { return collect(body, announced, limit, permit).await };
    let start = start(&mut body, limit.deadline).await?;
    let is_packed = start.concat().starts_with(&GZIP);
    let body: Pieces<'_> = Box::pin(stream::iter(start.into_iter().map(Ok)).chain(body));
    match is_packed {
        false => collect(body, announced, limit, permit).await,
        true => {
            let pieces = Box::pin(decoded(decoder(b"gzip", bytes_of(body, limit.size))?, true));
            collect(pieces, 0, Limit { size, ..limit }, permit).await
        }
    }
}

/// How a gzip file begins (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Enough pieces to see how a body begins.
async fn start(body: &mut Pieces<'_>, deadline: Deadline) -> Result<Vec<Bytes>, Fault> {
    let (mut start, mut bytes) = (vec![], 0);
    while bytes < GZIP.len() {
        let piece = timeout_at(deadline.at, body.next()).await;
        let Some(piece) = piece.map_err(|_| deadline.missed())? else { break };
        let piece = piece?;
        bytes += piece.len();
        start.push(piece);
    }
    Ok(start)
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

/// The same pieces as bytes to decode, up to a limit.
fn bytes_of<'a>(pieces: Pieces<'a>, limit: SizeLimit) -> impl AsyncBufRead + Send + Unpin + 'a {
    let mut bytes = 0;
    let counted = pieces.map(move |piece| {
        let piece = piece?;
        bytes += piece.len();
        if bytes > limit.bytes { Err(classify_fault::too_large("more, still coded,", limit)) } else { Ok(piece) }
    });
    counted.map_err(|fault| io::Error::other(WrappedFault(fault))).into_async_read()
}

fn decoder<'a>(
    coding: &[u8],
    coded: impl AsyncBufRead + Send + Unpin + 'a,
) -> Result<Box<dyn AsyncRead + Send + Unpin + 'a>, Fault> {
    match coding {
        b"gzip" | b"x-gzip" => {
            let mut gzip = GzipDecoder::new(coded);
            gzip.multiple_members(true);
            Ok(Box::new(gzip))
        }
        b"deflate" => Ok(Box::new(ZlibDecoder::new(coded))),
        b"br" => Ok(Box::new(BrotliDecoder::new(coded))),
        b"zstd" => Ok(Box::new(ZstdDecoder::new(coded))),
        other => {
            let detail = format!("unknown content coding {:?}", String::from_utf8_lossy(other));
            Err(Fault::permanent(Class::Content, "content_encoding", detail))
        }
    }
}

/// The pieces that a decoder gives. `tolerant` of what does not decode, they end there: a file that is broken lies broken
/// on its server, and its reader knows what a beginning is worth. A broken content coding is a fault of one answer.
fn decoded<D: AsyncRead + Unpin>(decoder: D, tolerant: bool) -> impl Stream<Item = Result<Bytes, Fault>> {
    stream::try_unfold((decoder, vec![0; PIECE_BYTES]), move |(mut decoder, mut room)| async move {
        match decoder.read(&mut room).await {
            Ok(0) => Ok(None),
            Ok(bytes) => Ok(Some((Bytes::copy_from_slice(&room[..bytes]), (decoder, room)))),
            Err(error) if tolerant && classify_fault::underneath(&error).is_none() => Ok(None),
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
    let mut body = BytesMut::with_capacity(announced.min(SHARE_BYTES));
    loop {
        let piece = timeout_at(limit.deadline.at, pieces.next()).await;
        let Some(piece) = piece.map_err(|_| limit.deadline.missed())? else { break };
        let piece = piece?;
        let room = bytes_max - body.len();
        if piece.len() > room && limit.whole {
            return Err(classify_fault::too_large(format_args!("at least {}", body.len() + piece.len()), limit.size));
        }
        let length = body.len() + piece.len().min(room);
        if length > SHARE_BYTES {
            let asked = Instant::now();
            let bytes = if length <= announced { announced } else { bytes_max };
            permit.grow(bytes).await;
            limit.deadline.at += asked.elapsed();
        }
        body.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room {
            break;
        }
    }
    Ok(permit.with(body.freeze()))
}
