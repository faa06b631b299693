//! Scripts: how the answers of a path follow one another, and how each goes over the wire.
//!
//! Promise: the nth request for a path gets the nth answer of its script, whichever connection it comes on; everything is
//! made into bytes beforehand.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::answer::{Answer, Delivery};

/// An answer as bytes. Clones share them.
#[derive(Clone)]
pub(super) struct Prepared {
    pub head: Bytes,
    pub body: Bytes,
    pub delivery: Delivery,
    pub delay: Duration,
}

impl Prepared {
    /// Sends the answer; whether the connection may go on.
    pub(super) async fn send(self, stream: &mut TcpStream, head_only: bool) -> io::Result<bool> {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        let (head, mut body) = (self.head, self.body);
        if head_only {
            stream.write_all(&head).await?;
            return Ok(true);
        }
        match self.delivery {
            Delivery::Whole => stream.write_all_buf(&mut head.chain(body)).await.map(|()| true),
            Delivery::Closing => stream.write_all_buf(&mut head.chain(body)).await.map(|()| false),
            Delivery::Cut { after, reset } => {
                body.truncate(after);
                stream.write_all_buf(&mut head.chain(body)).await?;
                if reset {
                    stream.set_zero_linger()?;
                }
                Ok(false)
            }
            Delivery::Drip { bytes, tick } => {
                stream.write_all(&head).await?;
                while body.has_remaining() {
                    tokio::time::sleep(tick).await;
                    stream.write_all(&body.split_to(bytes.min(body.len()))).await?;
                }
                Ok(true)
            }
            Delivery::Endless => {
                stream.write_all(&head).await?;
                loop {
                    stream.write_all(&body).await?;
                }
            }
            Delivery::Never => {
                stream.write_all(&head).await?;
                let mut ignored = [0; 1_024];
                while stream.read(&mut ignored).await? > 0 {}
                Ok(false)
            }
        }
    }
}

/// Answers in the order of the requests for one path; the last one is repeated.
#[derive(Clone, Debug)]
pub struct Script {
    first: Vec<Answer>,
    last: Answer,
}

impl Script {
    /// So many times this answer, …
    pub fn times(times: usize, answer: Answer) -> Self {
        Self { first: vec![answer.clone(); times], last: answer }
    }

    /// … then this one, for ever or until the next `then`.
    pub fn then(mut self, answer: impl Into<Self>) -> Self {
        let next = answer.into();
        self.first.extend(next.first);
        Self { first: self.first, last: next.last }
    }
}

impl From<Answer> for Script {
    fn from(answer: Answer) -> Self {
        Self { first: vec![], last: answer }
    }
}

/// A script and how often it was asked.
pub(super) struct ScriptedDetector {
    answers: Vec<Prepared>,
    asked: AtomicUsize,
}

impl ScriptedDetector {
    pub(super) fn new(script: Script) -> Self {
        let answers = script.first.into_iter().chain([script.last]).map(Answer::prepare).collect();
        Self { answers, asked: AtomicUsize::new(0) }
    }

    pub(super) fn next(&self) -> Prepared {
        let turn = self.asked.fetch_add(1, Ordering::Relaxed);
        self.answers[turn.min(self.answers.len() - 1)].clone()
    }
}
