//! `give_up`: ends work whose host was given up, or that no page allows any more, without asking its host.
//!
//! The ledger says so of each work when it is dispatched, and why. Promise: whatever waits for a dead host ends with the reason of the
//! host, together and at once, and what waits for others goes on.

use faceflow_core::record::Work;
use faceflow_core::{FailedRecord, Fault, Flow, HostFaultKind, Reloadable};
use faceflow_web::OptOuts;
use faceflow_web::settings::FetchSettings;
use timely::dataflow::operators::core::OkErr;

/// Ends work of dead hosts.
pub trait GiveUp<'s> {
    /// Work that is to be done, and work that ends unasked, with the fault of its host or its own. An opt-out counts as long as
    /// `settings` respect it.
    fn give_up(self, settings: Reloadable<FetchSettings>) -> (Flow<'s, Work>, Flow<'s, FailedRecord<Work>>);
}

impl<'s> GiveUp<'s> for Flow<'s, Work> {
    fn give_up(self, settings: Reloadable<FetchSettings>) -> (Flow<'s, Work>, Flow<'s, FailedRecord<Work>>) {
        self.ok_err(move |work| {
            let why = match &work {
                Work::Frame(frame) => frame.opted_out.as_deref().cloned(),
                Work::Page(_) | Work::Image(_) => work.host().and_then(|host| host.given_up.clone()),
            };
            let counts = |fault: &Fault| !fault.is_opt_out() || OptOuts::new(&settings.get()).respects(fault);
            match (why.filter(counts), work.host_queue()) {
                // It says nothing about the host.
                (Some(fault), _) if fault.permanent => Err(FailedRecord { record: work, fault }),
                (Some(fault), Some(queue)) => {
                    Err(FailedRecord { record: work, fault: fault.of_host(queue, HostFaultKind::GivenUp) })
                }
                _ => Ok(work),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use faceflow_core::record::{HostState, JobId, Page};
    use faceflow_core::{Class, Fault, Time};
    use std::sync::mpsc::Receiver;

    use timely::dataflow::operators::capture::Event;
    use timely::dataflow::operators::{Capture, ToStream};
    use url::Url;

    use super::*;

    fn records<D>(captured: &Receiver<Event<Time, Vec<D>>>) -> Vec<D> {
        let records = captured.try_iter().map(|event| match event {
            Event::Messages(_, records) => records,
            Event::Progress(_) => vec![],
        });
        records.flatten().collect()
    }

    #[test]
    fn work_ends_with_its_host_once_that_was_given_up_and_not_before() {
        let page = |path: &str, given_up: Option<Option<Fault>>| {
            let url = Url::parse("http://a.example/").and_then(|base| base.join(path)).expect("a URL");
            let host = given_up.map(|given_up| Box::new(HostState { failures: 5, since: 1, given_up }));
            Work::Page(Page { host, ..Page::start(JobId::FIRST, url) })
        };
        let fault = Fault::transient(Class::Connect, "connect", "refused");
        let work = [page("/well", None), page("/probe", Some(None)), page("/dead", Some(Some(fault.clone())))];
        let [well, probe, dead] = work.clone();
        let (asked, ended) = timely::example(move |scope| {
            let (asked, ended) = work.to_stream(scope).container::<Vec<_>>().give_up(FetchSettings::default().into());
            (asked.capture(), ended.capture())
        });
        assert_eq!(records(&asked), [well, probe]);
        let queue = dead.host_queue().expect("it is on a host");
        let fault = fault.of_host(queue, HostFaultKind::GivenUp);
        assert_eq!(records(&ended), [FailedRecord { record: dead, fault }]);
    }
}
