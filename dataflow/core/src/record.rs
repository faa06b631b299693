//! The records of the pipeline: pages, images, pictures, and the keys by which they are known.

mod content;
mod detected;
mod discovery;
mod hash;
mod host;
mod image;
mod job;
pub mod key;
mod page;
mod queue;
mod tenant;
mod work;

pub use content::{Content, DuplicateAssignment, Frame, TenantAssignment};
pub use detected::DetectedFrame;
pub use discovery::{Bounds, Discovery};
pub use hash::{HashBits, HashKind, Hashes, PerceptualHash};
pub use host::{HostHold, HostState};
pub use image::{CopiedImage, Image, StoredImage};
pub use job::{DEFAULT_JOB, JobId, Priority, TenantNumber};
pub use key::{ContentId, Key, number};
pub use page::{Page, PageKind, PageVersion, Visit};
pub use queue::{DETECTION_QUEUE, QueueId, host_of, queue_of, twin_queue_of};
pub use tenant::{TenantId, TenantIdError};
pub use work::{Disposition, Work};
