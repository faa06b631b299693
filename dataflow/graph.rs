//! The whole pipeline, as one chain.
//!
//! Every worker builds the same graph; what differs between them lives inside the operators. Timestamps are due times:
//! the probe's frontier says that everything due before it is settled, or has been re-timed to it or later.

use std::sync::Arc;

use faceflow_core::Time;
use faceflow_core::record::{Disposition, Work};
use faceflow_operators::append_facts::AppendFacts;
use faceflow_operators::branch::{Branch, Branched};
use faceflow_operators::decide_retry::{DecideRetry, degraded_as_failure, into_failed_work};
use faceflow_operators::decode::Decode;
use faceflow_operators::dedupe_exact::{DedupeExact, Seen};
use faceflow_operators::dedupe_near::{DedupeAction, DedupeEvent, DedupeNear};
use faceflow_operators::detect::Detect;
use faceflow_operators::dispatch::{Dispatch, DispatchEvent};
use faceflow_operators::download::{DownloadImages, Downloads};
use faceflow_operators::evict::Evict;
use faceflow_operators::fetch::Fetch;
use faceflow_operators::give_up::GiveUp;
use faceflow_operators::jobs::JobEvent;
use faceflow_operators::mine::Mine;
use faceflow_operators::read_sources::read_sources;
use faceflow_operators::rehydrate::Rehydrate;
use faceflow_operators::route::Route;
use faceflow_operators::select_links::{Arrival, SelectLinks};
use faceflow_operators::store_crops::StoreCrops;
use faceflow_operators::store_original::StoreOriginal;
use faceflow_operators::to_owner::ToOwner;
use faceflow_operators::write_sinks::WriteSinks;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Concat, Concatenate, ConnectLoop, Feedback, Probe};
use timely::dataflow::{ProbeHandle, Scope};

use crate::services::Services;

/// Builds the pipeline on one worker. The probe sees everything settled before its frontier.
pub fn build<'s>(scope: Scope<'s, Time>, services: &Services) -> ProbeHandle<Time> {
    let Services { executor, ledger, pixel_cache, settings, jobs, limits, .. } = services;
    let index = scope.worker().index();
    let (store, jobs, decoder) = (|| services.tenant_store.clone(), || jobs.clone(), || services.picture_decoder());

    // Two loops: what the ledger learns goes to the dispatcher, how detections end goes to the near-duplicates.
    let (to_dispatcher, updates) = scope.feedback(1);
    let (to_duplicates, outcomes) = scope.feedback(1);

    // Jobs and their sources enter. All open work waits in the ledger. What is due is dispatched to the process that owns the
    // address of its host.
    let (entered, job_events) = read_sources(scope, services.source_reader(index), executor);
    let events = updates.map(DispatchEvent::Ledger).concat(job_events.clone().map(DispatchEvent::Job));
    let work = events.dispatch(services.dispatcher(index), executor);
    // What waits for a host that was given up ends with it.
    let (work, given_up) = work.give_up(services.live.fetch.clone());
    let (pages, images, due_frames) = work.route(Arc::clone(&services.web), services.processes, executor);

    // Images: downloaded. The bytes of a picture that is recorded need a fact and nothing else. Only bytes show whether a link
    // led to a picture or to a page.
    let (web, contents) =
        (|| (Arc::clone(&services.web), Arc::clone(&services.found_pages)), services.stored_contents());
    let Downloads { new: downloads, copies, pages: behind_links, missing } =
        images.download(web(), (Arc::clone(&contents), decoder()), executor, limits.download);
    let copied = copies.append_facts(Arc::clone(ledger), executor).updates;

    // Pages: fetched, mined for links and images. What they lead to is discovered, like what comes from the sources.
    let (fetched, unreachable) = pages.fetch(web(), executor, limits.fetch);
    let (visits, unreadable) = fetched.mine(jobs(), settings.fetch.clone(), executor, limits.cpu);
    let arrivals = entered.concat(visits.map(Arrival::Visit)).concat(behind_links.map(Arrival::Page));
    let discovered = arrivals.select_links(jobs(), Arc::clone(&executor.clock));
    let discovered = discovered.append_facts(Arc::clone(ledger), executor).updates;

    // Pictures: bytes that are new are decoded once, and the original is stored before the fact that says so.
    let (decoded, undecodable) = downloads.decode(decoder(), executor, limits.cpu);
    let (stored, unstored) = decoded.store_original(store(), Arc::clone(pixel_cache), executor);
    let stored = stored.append_facts(Arc::clone(ledger), executor);
    let unrecorded = stored.refused.map(|stored| stored.frame);
    let (stored, downloaded) = (stored.written, stored.updates);

    // Each content once; of near-duplicates one is detected, and its faces are given to the others.
    let seen = stored.map(|stored| stored.frame).dedupe_exact(Arc::clone(&contents));
    let (new, late_copies) = seen.ok_err(|seen| match seen {
        Seen::First(frame) => Ok(frame),
        Seen::Before(frame) => Err(frame),
    });
    let tenants = job_events.flat_map(|event| match event {
        JobEvent::Added(job) => Some(DedupeEvent::Tenant(job.tenant)),
        JobEvent::Removed(_) => None,
    });
    let pictures = scope.concatenate([tenants, new.map(DedupeEvent::Frame), outcomes]);
    let actions = pictures.dedupe_near(services.known_pictures(index), executor);
    let (chosen, duplicates, assignments) = actions.branch("dedupe actions", |action| match action {
        DedupeAction::Detect(frame) => Branched::A(frame),
        DedupeAction::Evict(frame) => Branched::B(frame),
        DedupeAction::Assign(assignment) => Branched::C(assignment),
    });
    scope.concatenate([late_copies, duplicates, unrecorded]).to_owner().evict(Arc::clone(pixel_cache));
    let assignments = assignments.append_facts(Arc::clone(ledger), executor).written;

    // Faces: pixels where they are cached (of retries: read back, spread over the workers), batches by shape, crops to the store,
    // custom sinks, then the fact.
    let wanted = chosen.concat(due_frames).to_owner();
    let (frames, unread) = wanted.rehydrate(store(), (decoder(), contents), executor);
    let (detected, undetected) = frames.detect(services.detector_pool.clone(), Arc::clone(pixel_cache), executor);
    let (cropped, uncropped) = detected.store_crops(store(), Arc::clone(pixel_cache), executor);
    let tenant = services.job.tenant;
    let written = services.sinks.iter().fold(cropped, |flow, sink| flow.write_to(tenant, Arc::clone(sink), executor));
    let detected = written.append_facts(Arc::clone(ledger), executor);

    // A degraded answer is recorded, and its full detection still owed.
    let (full, degraded) =
        detected.written.ok_err(|detected| if detected.detection.degraded() { Err(detected) } else { Ok(detected) });

    // Every loss gets a disposition, which is recorded: a retry waits in the ledger, the end of a picture goes to its group.
    let lost = scope.concatenate([
        given_up,
        unreachable.concat(unreadable).map(into_failed_work),
        missing.concat(undecodable).concat(unstored).map(into_failed_work),
        unread.concat(undetected).concat(uncropped).concat(degraded.map(degraded_as_failure)).map(into_failed_work),
    ]);
    let dispositions = lost.decide_retry(jobs(), Arc::clone(&executor.clock));
    let dispositions = dispositions.append_facts(Arc::clone(ledger), executor);
    scope
        .concatenate([discovered, copied, downloaded, detected.updates, dispositions.updates])
        .connect_loop(to_dispatcher);
    let ended = dispositions.written.flat_map(|disposition| match disposition {
        Disposition::Dead { work: Work::Frame(frame), .. } | Disposition::Rejected { work: Work::Frame(frame), .. } => {
            Some(DedupeEvent::Dead(frame.job.tenant, frame.content))
        }
        Disposition::DegradedAccepted { work: Work::Frame(frame), .. } => {
            Some(DedupeEvent::Done(frame.job.tenant, frame.content))
        }
        _ => None,
    });
    let done = full.map(|detected| DedupeEvent::Done(detected.frame.job.tenant, detected.frame.content));
    // Of a picture about which a fact was refused no answer will come.
    let unrecorded = dispositions.refused.flat_map(|disposition| match disposition.work() {
        Work::Frame(frame) => Some(DedupeEvent::Dead(frame.job.tenant, frame.content.clone())),
        Work::Page(_) | Work::Image(_) => None,
    });
    let unanswered =
        detected.refused.map(|detected| DedupeEvent::Dead(detected.frame.job.tenant, detected.frame.content));
    let (probe, outcomes) = scope.concatenate([ended, done, unrecorded, unanswered]).probe();
    assignments.probe_with(&probe);
    outcomes.connect_loop(to_duplicates);
    probe
}
