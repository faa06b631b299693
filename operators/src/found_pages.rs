//! Pages that were found where pictures were expected, until they are fetched: what `download` was answered, `fetch` need not ask for
//! once more. A site that answers for every missing picture with a page (a soft 404) is asked once for each.
//!
//! Such a page enters the ledger like any other, with the budget and the turn of its site, and comes back from there to the process
//! that asked for it. Promise: an answer is given once, soon, and for the same job and address; all of them together are small,
//! and hold nothing of the budget for bodies. What was left out is asked for again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use faceflow_core::Time;
use faceflow_core::record::JobId;
use url::Url;

use faceflow_web::Response;

/// An answer with a larger body is not kept, in bytes.
const BODY_MAX_BYTES: usize = 1 << 20;
/// All bodies together, in bytes.
const BYTES_MAX: usize = 4 << 20;
/// Answers at once.
const ANSWERS_MAX: usize = 64;
/// How long an answer is kept, in milliseconds.
const KEPT_MS: Time = 60_000;

/// The answers of one process.
#[derive(Default)]
pub struct FoundPages(Mutex<VecDeque<FoundPage>>);

struct FoundPage {
    job: JobId,
    url: Url,
    at: Time,
    response: Response,
}

impl FoundPages {
    /// Keeps the answer for a page of a job. `url` is the page's address, by which it is fetched.
    pub fn keep(&self, (job, url): (JobId, &Url), response: &Response, now: Time) {
        if response.body.len() > BODY_MAX_BYTES {
            return;
        }
        // A copy: the body itself holds a part of a budget that others wait for.
        let response = Response { body: Bytes::copy_from_slice(&response.body), ..response.clone() };
        let mut pages = self.lock();
        pages.push_back(FoundPage { job, url: url.clone(), at: now, response });
        let bytes = |pages: &VecDeque<FoundPage>| pages.iter().map(|page| page.response.body.len()).sum::<usize>();
        while pages.len() > ANSWERS_MAX || bytes(&pages) > BYTES_MAX {
            pages.pop_front();
        }
    }

    /// Takes the answer for a page of a job, if it is here and fresh.
    pub fn take(&self, (job, url): (JobId, &Url), now: Time) -> Option<Response> {
        let mut pages = self.lock();
        pages.retain(|page| now < page.at.saturating_add(KEPT_MS));
        let at = pages.iter().position(|page| page.job == job && page.url == *url)?;
        pages.remove(at).map(|page| page.response)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<FoundPage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(n: usize) -> Url {
        Url::parse(&format!("http://a.example/{n}.jpg")).expect("a URL")
    }

    fn response(n: usize, bytes: usize) -> Response {
        Response { final_url: url(n), status: 200, headers: vec![], body: vec![b'x'; bytes].into() }
    }

    #[test]
    fn an_answer_is_given_once_and_while_it_is_fresh() {
        let pages = FoundPages::default();
        let other = JobId { number: 1, ..JobId::FIRST };
        pages.keep((JobId::FIRST, &url(1)), &response(1, 10), 5);
        assert!(pages.take((other, &url(1)), 5).is_none() && pages.take((JobId::FIRST, &url(2)), 5).is_none());
        assert!(pages.take((JobId::FIRST, &url(1)), 6).is_some_and(|response| response.body.len() == 10));
        assert!(pages.take((JobId::FIRST, &url(1)), 6).is_none(), "it was taken");
        pages.keep((JobId::FIRST, &url(1)), &response(1, 10), 5);
        assert!(pages.take((JobId::FIRST, &url(1)), 5 + KEPT_MS).is_none() && pages.lock().is_empty());
    }

    #[test]
    fn what_is_kept_is_small() {
        let pages = FoundPages::default();
        pages.keep((JobId::FIRST, &url(0)), &response(0, BODY_MAX_BYTES + 1), 0);
        assert!(pages.lock().is_empty());
        for n in 0..2 * ANSWERS_MAX {
            pages.keep((JobId::FIRST, &url(n)), &response(n, 1), 0);
        }
        assert_eq!(pages.lock().len(), ANSWERS_MAX);
        for n in 0..8 {
            pages.keep((JobId::FIRST, &url(n)), &response(n, BODY_MAX_BYTES), 0);
        }
        assert_eq!(pages.lock().len(), BYTES_MAX / BODY_MAX_BYTES);
        assert!(pages.take((JobId::FIRST, &url(7)), 0).is_some(), "the latest stay");
    }
}
