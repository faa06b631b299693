//! The queues of the crawl: work waits in the ledger in one queue for each host, so that no host delays another.

use url::Url;

use super::key::number;

/// The queue that work waits in: one for each host of the web, so that none stands in another's way. Equal in every process
/// and for ever, since ledgers hold it.
pub type QueueId = u64;

/// The queue of pictures whose detection is to be repeated.
pub const DETECTION_QUEUE: QueueId = 0;

/// Queues of what no host has to be asked for.
const LOCAL_QUEUES: u64 = 64;

/// The queue of a page or image: its host's, and for files and `data:` URIs one of a few.
pub fn queue_of(url: &Url) -> QueueId {
    match url.host_str().filter(|host| !host.is_empty()) {
        // A ledger keeps it as a signed number, and 0 is taken.
        Some(host) => (number(&format!("{host}:{}", url.port_or_known_default().unwrap_or(0))) >> 1) | (1 << 32),
        None => 1 + number(url.as_str()) % LOCAL_QUEUES,
    }
}
