//! The queues of the crawl: work waits in the ledger in one queue for each host of each job, so that no tenant, job or host delays
//! another.

use serde::{Deserialize, Serialize};
use url::Url;

use super::job::{JobId, TenantNumber};
use super::key::number;

/// The queue that work waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QueueId {
    /// Whose work waits there.
    pub job: JobId,
    /// Which host is asked for it, as [`queue_of`] says; [`DETECTION_QUEUE`] for pictures.
    pub host: u64,
}

/// The queue of pictures whose detection is to be repeated. Pictures are a tenant's, whatever jobs found them, so it is one of
/// the job that every tenant has.
pub const DETECTION_QUEUE: u64 = 0;

impl QueueId {
    /// The queue of a page or image of `job`.
    pub fn of(job: JobId, url: &Url) -> Self {
        Self { job, host: queue_of(url) }
    }

    /// The queue of a tenant's pictures whose detection is to be repeated.
    pub fn detection(tenant: TenantNumber) -> Self {
        Self { job: JobId::default_of(tenant), host: DETECTION_QUEUE }
    }

    /// The queue of a job's records at a stage that asks no host.
    pub fn local(job: JobId) -> Self {
        Self { job, host: 0 }
    }

    /// Whether pictures wait there.
    pub fn is_detection(self) -> bool {
        self.host == DETECTION_QUEUE
    }
}

/// Queues of what no host has to be asked for.
const LOCAL_QUEUES: u64 = 64;

/// The host of a page or image, as `name:port`; `None` for files and `data:` URIs.
pub fn host_of(url: &Url) -> Option<String> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    Some(format!("{host}:{}", url.port_or_known_default().unwrap_or(0)))
}

/// The queue of the same name by the other of http and https, if both have their usual ports.
pub fn twin_queue_of(url: &Url) -> Option<u64> {
    let other = match url.scheme() {
        "http" => 443,
        "https" => 80,
        _ => return None,
    };
    let name = url.host_str().filter(|_| url.port().is_none())?;
    Some(queue_of_host(&format!("{name}:{other}")))
}

fn queue_of_host(host: &str) -> u64 {
    // A ledger keeps it as a signed number, and 0 is taken.
    (number(host) >> 1) | (1 << 32)
}

/// The host of a page or image as the number of a queue, and for files and `data:` URIs one of a few numbers. Equal in every
/// process and for ever, since ledgers hold it.
pub fn queue_of(url: &Url) -> u64 {
    match host_of(url) {
        Some(host) => queue_of_host(&host),
        None => 1 + number(url.as_str()) % LOCAL_QUEUES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_twin_where_both_ports_are_usual() {
        let url = |text: &str| Url::parse(text).expect(text);
        let [http, https] = ["http://a.example/x", "https://a.example/"].map(url);
        assert_eq!((twin_queue_of(&http), twin_queue_of(&https)), (Some(queue_of(&https)), Some(queue_of(&http))));
        assert_eq!(twin_queue_of(&url("http://a.example:80/")), Some(queue_of(&https)));
        for other in ["http://a.example:8080/", "https://a.example:80/", "file:///a", "data:,x"] {
            assert_eq!(twin_queue_of(&url(other)), None, "{other}");
        }
    }
}
