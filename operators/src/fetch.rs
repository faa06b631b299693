//! `fetch`: pages to responses.
//!
//! Pages come to the worker that asks their host ([`route`](crate::route)). One that was found where a picture was expected has its
//! answer already. Promise: every page comes out again, as a response or as a loss.

use std::sync::Arc;

use faceflow_core::executor::Executor;
use faceflow_core::fair_queue::Limits;
use faceflow_core::map_async::MapAsync;
use faceflow_core::record::{Page, QueueId};
use faceflow_core::{FailedRecord, Flow};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::OkErr;

use crate::found_pages::FoundPages;
use faceflow_web::{Response, Want, Web};

/// A page with the response it got. Stays on its worker.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The page.
    pub page: Page,
    /// The answer; `None` if the page has not changed since its last reading.
    pub response: Option<Arc<Response>>,
}

/// Fetches pages.
pub trait Fetch<'s> {
    /// Sends each page's request through `web`, at most `limits` at once, unless its answer is among the pages that were found.
    fn fetch(
        self,
        backends: (Arc<dyn Web>, Arc<FoundPages>),
        executor: &Executor,
        limits: Limits,
    ) -> (Flow<'s, Fetched>, Flow<'s, FailedRecord<Page>>);
}

impl<'s> Fetch<'s> for Flow<'s, Page> {
    fn fetch(
        self,
        (web, found): (Arc<dyn Web>, Arc<FoundPages>),
        executor: &Executor,
        limits: Limits,
    ) -> (Flow<'s, Fetched>, Flow<'s, FailedRecord<Page>>) {
        let clock = Arc::clone(&executor.clock);
        let job = move |page: Page| {
            let (web, found) = (Arc::clone(&web), found.take((page.job, &page.url), clock.now()));
            async move {
                let response = match (found, &page.last) {
                    (Some(response), None) => Some(response),
                    (_, Some(last)) => web.get_again(&page.url, last).await?,
                    (None, None) => Some(web.get(&page.url, Want::Page).await?),
                };
                Ok(Fetched { page, response: response.map(Arc::new) })
            }
        };
        self.map_async(Pipeline, "fetch", executor, (limits, |page| QueueId::of(page.job, &page.url), job))
            .ok_err(|answer| answer)
    }
}
