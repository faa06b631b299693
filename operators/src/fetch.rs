//! `fetch`: pages to responses.
//!
//! Pages come to the worker that asks their host ([`route`](crate::route)). Promise: every page comes out again, as a response
//! or as a loss.

use std::sync::Arc;

use faceflow_core::executor::Executor;
use faceflow_core::fair_queue::Limits;
use faceflow_core::map_async::MapAsync;
use faceflow_core::record::{Page, QueueId};
use faceflow_core::{FailedRecord, Flow};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::OkErr;

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
    /// Sends each page's request through `web`, at most `limits` at once.
    fn fetch(
        self,
        web: Arc<dyn Web>,
        executor: &Executor,
        limits: Limits,
    ) -> (Flow<'s, Fetched>, Flow<'s, FailedRecord<Page>>);
}

impl<'s> Fetch<'s> for Flow<'s, Page> {
    fn fetch(
        self,
        web: Arc<dyn Web>,
        executor: &Executor,
        limits: Limits,
    ) -> (Flow<'s, Fetched>, Flow<'s, FailedRecord<Page>>) {
        let job = move |page: Page| {
            let web = Arc::clone(&web);
            async move {
                let response = match &page.last {
                    Some(last) => web.get_again(&page.url, last).await?,
                    None => Some(web.get(&page.url, Want::Page).await?),
                };
                Ok(Fetched { page, response: response.map(Arc::new) })
            }
        };
        self.map_async(Pipeline, "fetch", executor, (limits, |page| QueueId::of(page.job, &page.url), job))
            .ok_err(|answer| answer)
    }
}
