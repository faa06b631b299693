//! `decide_retry`: decides what becomes of every failure: a retry at a due time, or an end.
//!
//! Pages, images and frames share one policy type and one table of fault classes. Promise: every loss comes out with a
//! disposition, and the due time of a retry lies in the future.

use std::sync::Arc;

use faceflow_core::record::{DetectedFrame, Disposition, Frame, Work};
use faceflow_core::retry_policy::RetrySettings;
use faceflow_core::{Class, Clock, FailedRecord, Fault, Flow, HostFaultKind, Time};
use timely::dataflow::operators::vec::Map;

use crate::jobs::Jobs;
use crate::recrawl::RecrawlSettings;

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
            let work = jobs.settings(lost.record.job());
            decide(lost, (&work.retry.get(), &work.recrawl.get()), clock.now())
        })
    }
}

/// Decides what becomes of one failure that happened now.
fn decide(lost: FailedRecord<Work>, (settings, recrawl): (&RetrySettings, &RecrawlSettings), now: Time) -> Disposition {
    let asked = now + lost.fault.retry_after_ms.unwrap_or(0).min(settings.retry_after_max_ms);
    if let Work::Page(page) = &lost.record
        && let Some(due) = recrawl.after_failure(page, now)
    {
        let host = settings.hold(&lost.record, &lost.fault, now);
        // A page whose host rests was not looked at, and may well be as soon as it does not.
        let rests = lost.fault.host.is_some_and(|host| host.kind == HostFaultKind::Resting);
        let due = if rests { asked.max(now + 1) } else { due.max(asked) };
        return Disposition::Retry { work: lost.record, due, fault: lost.fault, host };
    }
    let again = |due: Option<Time>| due.map(|due| due.max(asked));
    match settings.decide(lost, now) {
        Disposition::Rejected { work, fault, .. } => {
            let again = again(recrawl.terminal_retry_due(&work, &fault, 0, now));
            Disposition::Rejected { work, fault, again }
        }
        Disposition::Dead { work, fault, host, .. } => {
            // With a host that was given up its work ends after no attempts of its own.
            let attempts_max = if fault.host.is_some() { 1 } else { settings.policy(&work).attempts_max };
            let again = again(recrawl.terminal_retry_due(&work, &fault, attempts_max, now));
            Disposition::Dead { work, fault, again, host }
        }
        disposition => disposition,
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

#[cfg(test)]
mod tests {
    use faceflow_core::record::{HostState, JobId, Page, PageVersion, queue_of};
    use url::Url;

    use super::*;

    const HOUR_MS: Time = 3_600_000;

    /// What becomes of a page whose host did this; it was read before, or is new.
    fn decided(kind: HostFaultKind, known: Option<HostState>, last: Option<PageVersion>) -> Disposition {
        let url = Url::parse("http://a.example/").expect("a URL");
        let fault = Fault::transient(Class::Connect, "connect", "refused").after(60_000).of_host(queue_of(&url), kind);
        let page = Page { last, host: known.map(Box::new), ..Page::start(JobId::FIRST, url) };
        let (mut settings, recrawl) = (RetrySettings::default(), RecrawlSettings::default());
        settings.host.jitter = 0.0;
        decide(FailedRecord { record: page.into(), fault }, (&settings, &recrawl), 0)
    }

    #[test]
    fn a_page_that_was_read_stays_so_whatever_its_host_does() {
        let last = || Some(PageVersion { interval_ms: 10 * HOUR_MS, ..PageVersion::default() });
        let due = |kind| match decided(kind, None, last()) {
            Disposition::Retry { due, host, .. } => (due, host.map(|hold| hold.not_before)),
            other => panic!("{other:?}"),
        };
        assert_eq!(due(HostFaultKind::Unreachable), (14 * HOUR_MS, Some(60_000)), "it failed");
        assert_eq!(due(HostFaultKind::Resting), (60_000, Some(60_000)), "it was not looked at");
        assert_eq!(due(HostFaultKind::GivenUp), (14 * HOUR_MS, None));
    }

    #[test]
    fn what_ended_with_its_host_is_tried_by_a_stream_like_what_is_dead() {
        let known = |given_up| Some(HostState { failures: 4, since: 0, given_up });
        let why = Fault::transient(Class::Connect, "connect", "refused");
        for (kind, known) in [(HostFaultKind::Unreachable, known(None)), (HostFaultKind::GivenUp, known(Some(why)))] {
            match decided(kind, known, None) {
                Disposition::Dead { again, .. } => assert_eq!(again, Some(HOUR_MS), "{kind:?}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
