//! `decide_retry`: decides what becomes of every failure: a retry at a due time, or an end.
//!
//! Pages, images and frames share one policy type and one table of fault classes. Promise: every loss comes out with a
//! disposition, and the due time of a retry lies in the future.

use std::sync::Arc;

use faceflow_core::record::{DetectedFrame, Disposition, Frame, Work};
use faceflow_core::{Class, Clock, FailedRecord, Fault, Flow, Time};
use timely::dataflow::operators::vec::Map;

use crate::jobs::Jobs;

/// Decides what becomes of failures.
pub trait DecideRetry<'s> {
    /// Applies the retry policy of its job in `jobs` to each loss. A page that was read before stays settled: its next visit is timed
    /// by the recrawl settings, which also time when a stream tries again what is rejected or dead.
    fn decide_retry(self, jobs: Jobs, clock: Arc<dyn Clock>) -> Flow<'s, Disposition>;
}

impl<'s> DecideRetry<'s> for Flow<'s, FailedRecord<Work>> {
    fn decide_retry(self, jobs: Jobs, clock: Arc<dyn Clock>) -> Flow<'s, Disposition> {
        self.map(move |lost| {
            if lost.fault.class == Class::Store {
                // Every later write will fail too until the user mends it.
                tracing::warn!("the object store failed, work waits for a retry: {}", lost.fault.detail);
            }
            let now = clock.now();
            let work = jobs.settings(lost.record.job());
            let (settings, recrawl) = (work.retry.get(), work.recrawl.get());
            let asked = now + lost.fault.retry_after_ms.unwrap_or(0).min(settings.retry_after_max_ms);
            if let Work::Page(page) = &lost.record
                && let Some(due) = recrawl.after_failure(page, now)
            {
                return Disposition::Retry { work: lost.record, due: due.max(asked), fault: lost.fault };
            }
            let again = |due: Option<Time>| due.map(|due| due.max(asked));
            match settings.decide(lost, now) {
                Disposition::Rejected { work, fault, .. } => {
                    let again = again(recrawl.after_end(&work, &fault, 0, now));
                    Disposition::Rejected { work, fault, again }
                }
                Disposition::Dead { work, fault, .. } => {
                    let again = again(recrawl.after_end(&work, &fault, settings.policy(&work).attempts_max, now));
                    Disposition::Dead { work, fault, again }
                }
                fate => fate,
            }
        })
    }
}

/// The same loss, of work in general.
pub fn into_failed_work<R: Into<Work>>(lost: FailedRecord<R>) -> FailedRecord<Work> {
    FailedRecord { record: lost.record.into(), fault: lost.fault }
}

/// The loss that a degraded answer is: the full one is still owed.
pub fn degraded_as_failure(delivered: DetectedFrame) -> FailedRecord<Frame> {
    let scale = delivered.detection.scale();
    let fault = Fault::transient(Class::Engine, "degraded", format!("a degraded answer, at scale {scale:.3}"));
    let generation = delivered.detection.generation() + 1;
    FailedRecord { record: Frame { has_degraded: true, generation, scale: Some(scale), ..delivered.frame }, fault }
}
