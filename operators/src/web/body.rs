//! Bodies read with a limit and a deadline for every piece.
//!
//! The only place where a body enters memory. What is sent and what it decodes to are counted as they arrive, so an
//! endless body, a decompression bomb and a coded stream that decodes to nothing all end at the limit. Promise: what is
//! returned is complete, no longer than allowed, and within the memory of the process.

use std::io;
use std::time::Duration;

use async_compression::futures::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use bytes::{Bytes, BytesMut};
use faceflow_core::{Class, Fault};
use futures::{AsyncBufRead, AsyncRead, AsyncReadExt, Stream, StreamExt, TryStreamExt, stream};
use reqwest::header::CONTENT_ENCODING;
use tokio::time::{Instant, timeout, timeout_at};

use super::faults;
use super::guard::Carried;
use super::memory::{BodyMemory, Held, SHARE_BYTES};

/// The `Accept-Encoding` of every request: the content codings that [`read`] removes.
pub const CODINGS: &str = "gzip, deflate, br, zstd";

/// How much of a body is wanted, and how patiently.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Its size, both as sent and with its content coding removed, in bytes.
    pub bytes_max: usize,
    /// Whether a longer body is a fault; otherwise it is cut at `bytes_max`.
    pub whole: bool,
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
        faults::timeout(format!("no complete answer in {} ms", self.total_ms))
    }
}

/// What a decoder gives at once, in bytes.
const PIECE_BYTES: usize = 16 << 10;

/// Reads the body of an answer into `memory`, of which it holds its share, and removes its content coding.
pub async fn read(
    answer: reqwest::Response,
    limit: Limit,
    (memory, held): (&BodyMemory, Held),
) -> Result<Bytes, Fault> {
    let announced = answer.content_length().unwrap_or(0);
    if limit.whole && announced > limit.bytes_max as u64 {
        return Err(faults::too_large(announced, limit.bytes_max));
    }
    let coding =
        answer.headers().get(CONTENT_ENCODING).map(|coding| coding.as_bytes().trim_ascii().to_ascii_lowercase());
    let sent = Box::pin(sent(answer, limit.patience));
    match coding.as_deref() {
        None | Some(b"" | b"identity") => collect(sent, announced, limit, (memory, held)).await,
        Some(coding) => {
            let coded = counted(sent, limit.bytes_max).map_err(|fault| io::Error::other(Carried(fault)));
            let decoder = decoder(coding, coded.into_async_read())?;
            collect(Box::pin(decoded(decoder)), 0, limit, (memory, held)).await
        }
    }
}

/// The pieces of a body as they arrive, each within its deadline.
fn sent(answer: reqwest::Response, patience: Duration) -> impl Stream<Item = Result<Bytes, Fault>> {
    stream::try_unfold(answer, move |mut answer| async move {
        match timeout(patience, answer.chunk()).await {
            Ok(piece) => Ok(piece.map_err(|error| faults::of_body(&error))?.map(|piece| (piece, answer))),
            Err(_) => Err(faults::timeout(format!("the body paused for {} ms", patience.as_millis()))),
        }
    })
}

/// The same pieces, up to a limit in bytes.
fn counted<S>(pieces: S, bytes_max: usize) -> impl Stream<Item = Result<Bytes, Fault>> + Unpin
where
    S: Stream<Item = Result<Bytes, Fault>> + Unpin,
{
    let mut bytes = 0;
    pieces.map(move |piece| {
        let piece = piece?;
        bytes += piece.len();
        if bytes > bytes_max { Err(faults::too_large("more, still coded,", bytes_max)) } else { Ok(piece) }
    })
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

/// The pieces that a decoder gives.
fn decoded<D: AsyncRead + Unpin>(decoder: D) -> impl Stream<Item = Result<Bytes, Fault>> {
    stream::try_unfold((decoder, vec![0; PIECE_BYTES]), |(mut decoder, mut room)| async move {
        match decoder.read(&mut room).await {
            Ok(0) => Ok(None),
            Ok(bytes) => Ok(Some((Bytes::copy_from_slice(&room[..bytes]), (decoder, room)))),
            Err(error) => Err(faults::of_decoder(&error)),
        }
    })
}

async fn collect<S>(
    mut pieces: S,
    announced: u64,
    mut limit: Limit,
    (memory, mut held): (&BodyMemory, Held),
) -> Result<Bytes, Fault>
where
    S: Stream<Item = Result<Bytes, Fault>> + Unpin,
{
    let announced = announced.min(limit.bytes_max as u64) as usize;
    let mut body = BytesMut::with_capacity(announced.min(SHARE_BYTES));
    loop {
        let piece = timeout_at(limit.deadline.at, pieces.next()).await;
        let Some(piece) = piece.map_err(|_| limit.deadline.missed())? else { break };
        let piece = piece?;
        let room = limit.bytes_max - body.len();
        if piece.len() > room && limit.whole {
            return Err(faults::too_large(format_args!("at least {}", body.len() + piece.len()), limit.bytes_max));
        }
        let length = body.len() + piece.len().min(room);
        if length > SHARE_BYTES {
            let asked = Instant::now();
            let bytes = if length <= announced { announced } else { limit.bytes_max };
            memory.grow(&mut held, bytes).await;
            limit.deadline.at += asked.elapsed();
        }
        body.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room {
            break;
        }
    }
    Ok(held.with(body.freeze()))
}
