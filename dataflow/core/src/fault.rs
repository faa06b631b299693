//! Failure is data: a [`Fault`] says what went wrong, [`FailedRecord`] keeps the record it went wrong with.
//!
//! A fault never looks like an answer. Its [`Class`] decides which retry policy applies; whether it is permanent decides
//! if it is retried at all.

use serde::{Deserialize, Serialize};

/// What kind of thing failed; the retry policy and the report are keyed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A name that did not resolve.
    Dns,
    /// A connection that was refused, reset or never came about, or a failed TLS handshake.
    Connect,
    /// A deadline that passed: connect, read or total.
    Timeout,
    /// A body or header that broke off or contradicted itself.
    Protocol,
    /// An HTTP status that says "later": 408, 425, 429 and 5xx.
    Busy,
    /// An HTTP status that says "no": other 4xx and unexpected 3xx.
    Refused,
    /// A rule kept us away: robots.txt, an opt-out, a private address, a limit of the settings.
    Policy,
    /// Bytes that are not a picture we can or want to read.
    Content,
    /// The object store.
    Store,
    /// The inference engine as a whole: it failed, timed out or is out of memory.
    Engine,
    /// A bug: a job panicked.
    Panic,
}

/// That a fault concerns a host as a whole: its other URLs would have fared alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFault {
    /// The host, by the number of its queues (`record::queue_of`). After a redirect it is that of another URL.
    pub queue: u64,
    /// The same name by the other of http and https, where both have their usual ports: what asks one is mostly led to the other.
    #[serde(default)]
    pub twin: Option<u64>,
    /// What it did.
    pub kind: HostFaultKind,
}

impl HostFault {
    /// Whether it concerns the host whose queues have this number.
    pub fn concerns(&self, queue: u64) -> bool {
        self.queue == queue || self.twin == Some(queue)
    }
}

/// What a host did that failed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostFaultKind {
    /// There was no connection: its name has no address, or nothing there takes connections.
    Unreachable,
    /// It did not begin to answer in time. That may be its URL's doing as well: it is an attempt of both.
    Silent,
    /// It answers, and wants to be left alone for a while, or cannot say what its robots.txt allows.
    Busy,
    /// It was not asked, because it wants to be left alone.
    Resting,
    /// It was not asked, because it was given up.
    GivenUp,
}

/// Why a piece of work failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What kind of thing failed.
    pub class: Class,
    /// Stable, machine-readable word for it, as it appears under `reason` in the results: `http_503`, `too_large`, `robots`.
    pub reason: String,
    /// For people: what happened, with the numbers.
    pub detail: String,
    /// Whether trying again cannot help.
    pub permanent: bool,
    /// The earliest moment, as a delay from now in milliseconds, at which the other side wants to be asked again.
    pub retry_after_ms: Option<u64>,
    /// Whether it concerns a host and not the URL alone.
    #[serde(default)]
    pub host: Option<HostFault>,
}

impl Fault {
    /// A fault that may pass: the work will be tried again.
    pub fn transient(class: Class, reason: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { class, reason: reason.into(), detail: detail.into(), permanent: false, retry_after_ms: None, host: None }
    }

    /// A fault that trying again cannot mend: the work is rejected for this reason.
    pub fn permanent(class: Class, reason: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { class, reason: reason.into(), detail: detail.into(), permanent: true, retry_after_ms: None, host: None }
    }

    /// The same fault, asking not to be retried before `delay_ms` from now.
    pub fn after(mut self, delay_ms: u64) -> Self {
        self.retry_after_ms = Some(delay_ms);
        self
    }

    /// The same fault, of the host whose queues have this number.
    pub fn of_host(mut self, queue: u64, kind: HostFaultKind) -> Self {
        self.host = Some(HostFault { queue, twin: None, kind });
        self
    }

    /// Whether a site opted out by a word of its own.
    pub fn is_opt_out(&self) -> bool {
        self.class == Class::Policy && self.reason.starts_with("opt_out:")
    }

    /// Whether the host that was asked answered all the same, as far as that is known.
    pub fn is_answer(&self) -> bool {
        let answers = [Class::Protocol, Class::Busy, Class::Refused, Class::Content, Class::Store];
        self.host.is_none() && answers.contains(&self.class)
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {}", self.reason, self.detail)
    }
}

/// A record whose work failed, with the fault. Nothing is dropped: whoever produces a `FailedRecord` sends it on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailedRecord<R> {
    /// The record, exactly as it was when its work began.
    pub record: R,
    /// What went wrong.
    pub fault: Fault,
}
