//! Anything that can fail and come back, and what is decided about it.

use serde::{Deserialize, Serialize};

use super::content::Frame;
use super::host::{HostHold, HostState};
use super::image::Image;
use super::job::JobId;
use super::key::Key;
use super::page::Page;
use super::queue::queue_of;
use crate::clock::Time;
use crate::fault::Fault;

/// Anything that can fail and come back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Work {
    /// A page to fetch.
    Page(Page),
    /// An image to download.
    Image(Image),
    /// A frame to detect in.
    Frame(Frame),
}

impl Work {
    /// Its identity.
    pub fn key(&self) -> Key {
        match self {
            Self::Page(page) => page.key(),
            Self::Image(image) => image.key(),
            Self::Frame(frame) => frame.key(),
        }
    }

    /// Whose it is.
    pub fn job(&self) -> JobId {
        match self {
            Self::Page(page) => page.job,
            Self::Image(image) => image.job,
            Self::Frame(frame) => frame.job,
        }
    }

    /// The number of its host's queues, as [`queue_of`] says; `None` for a frame, which is asked of no host.
    pub fn host_queue(&self) -> Option<u64> {
        match self {
            Self::Page(page) => Some(queue_of(&page.url)),
            Self::Image(image) => Some(queue_of(&image.url)),
            Self::Frame(_) => None,
        }
    }

    /// What was known of its host when it was dispatched, if that was failing.
    pub fn host(&self) -> Option<&HostState> {
        match self {
            Self::Page(page) => page.host.as_deref(),
            Self::Image(image) => image.host.as_deref(),
            Self::Frame(_) => None,
        }
    }

    /// Notes what is known of its host.
    pub fn set_host(&mut self, host: Option<&HostState>) {
        let host = host.cloned().map(Box::new);
        match self {
            Self::Page(page) => page.host = host,
            Self::Image(image) => image.host = host,
            Self::Frame(_) => {}
        }
    }

    /// Tries that failed so far.
    pub fn attempts(&self) -> u32 {
        match self {
            Self::Page(page) => page.attempts,
            Self::Image(image) => image.attempts,
            Self::Frame(frame) => frame.attempts,
        }
    }

    /// Those of them that count towards a limit: the object store is not the fault of the work, and a rejection is an answer.
    pub fn attempts_counted(&self) -> u32 {
        let uncounted = match self {
            Self::Page(page) => page.uncounted,
            Self::Image(image) => image.uncounted,
            Self::Frame(frame) => frame.uncounted,
        };
        self.attempts().saturating_sub(uncounted)
    }

    /// The last failed try counts towards no limit.
    pub fn uncounted(mut self) -> Self {
        match &mut self {
            Self::Page(page) => page.uncounted += 1,
            Self::Image(image) => image.uncounted += 1,
            Self::Frame(frame) => frame.uncounted += 1,
        }
        self
    }

    /// One more failed try. The pixels of a frame do not wait with it.
    pub fn failed_once_more(mut self) -> Self {
        match &mut self {
            Self::Page(page) => page.attempts += 1,
            Self::Image(image) => image.attempts += 1,
            Self::Frame(frame) => {
                frame.attempts += 1;
                frame.pixels = None;
            }
        }
        self
    }

    /// A stable number for the work, the seed of its jitter.
    pub fn partition_hash(&self) -> u64 {
        match self {
            Self::Page(page) => page.key().partition_hash(),
            Self::Image(image) => image.key().partition_hash(),
            Self::Frame(frame) => frame.content.id.partition_hash(),
        }
    }
}

impl From<Page> for Work {
    fn from(page: Page) -> Self {
        Self::Page(page)
    }
}

impl From<Image> for Work {
    fn from(image: Image) -> Self {
        Self::Image(image)
    }
}

impl From<Frame> for Work {
    fn from(frame: Frame) -> Self {
        Self::Frame(frame)
    }
}

/// What `decide_retry` decided about a failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Disposition {
    /// Try again at the due time. `work.attempts()` already counts the failure.
    Retry {
        /// The work.
        work: Work,
        /// What went wrong.
        fault: Fault,
        /// When it is due.
        due: Time,
        /// What it says of the host, if that failed and not the work alone.
        #[serde(default)]
        host: Option<HostHold>,
    },
    /// Trying again cannot help.
    Rejected {
        /// The work.
        work: Work,
        /// Why.
        fault: Fault,
        /// When a stream tries it nevertheless.
        again: Option<Time>,
    },
    /// Every attempt the policy allows has failed.
    Dead {
        /// The work.
        work: Work,
        /// The last fault.
        fault: Fault,
        /// When a stream tries it nevertheless.
        again: Option<Time>,
        /// What it says of the host, if that failed and not the work alone.
        #[serde(default)]
        host: Option<HostHold>,
    },
    /// Every attempt at a full answer has failed, so the degraded one that is kept stands.
    DegradedAccepted {
        /// The frame.
        work: Work,
        /// The last fault.
        fault: Fault,
    },
}

impl Disposition {
    /// What it is about.
    pub fn work(&self) -> &Work {
        match self {
            Self::Retry { work, .. }
            | Self::Rejected { work, .. }
            | Self::Dead { work, .. }
            | Self::DegradedAccepted { work, .. } => work,
        }
    }

    /// What went wrong.
    pub fn fault(&self) -> &Fault {
        match self {
            Self::Retry { fault, .. }
            | Self::Rejected { fault, .. }
            | Self::Dead { fault, .. }
            | Self::DegradedAccepted { fault, .. } => fault,
        }
    }

    /// What it says of the host, if that failed and not the work alone.
    pub fn host(&self) -> Option<&HostHold> {
        match self {
            Self::Retry { host, .. } | Self::Dead { host, .. } => host.as_ref(),
            Self::Rejected { .. } | Self::DegradedAccepted { .. } => None,
        }
    }
}
