//! The whole pipeline, as one chain.
//!
//! Every worker builds the same graph; what differs between them lives inside the operators. Timestamps are due times:
//! the probe's frontier says that everything due before it is settled, or has been re-timed to it or later.

use std::sync::Arc;

use faceflow_core::record::{Fate, Frame, Work};
use faceflow_core::{Flow, Time};
use faceflow_operators::admit::{Admit, Arrival};
use faceflow_operators::aside::{Aside, Home};
use faceflow_operators::cluster::{Call, Cluster, Heard};
use faceflow_operators::decode::Decode;
use faceflow_operators::deliver::Deliver;
use faceflow_operators::detect::Detect;
use faceflow_operators::download::Downloads;
use faceflow_operators::drain::Drain;
use faceflow_operators::fetch::Fetch;
use faceflow_operators::frontier::GiveOut;
use faceflow_operators::intake::intake;
use faceflow_operators::keep::Keep;
use faceflow_operators::mine::Mine;
use faceflow_operators::recall::Recall;
use faceflow_operators::record::Recorded;
use faceflow_operators::route::Route;
use faceflow_operators::schedule::{Schedule, lost_work, owe_full};
use faceflow_operators::unique::{Unique, Verdict};
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Concat, Concatenate, ConnectLoop, Feedback, Probe};
use timely::dataflow::{ProbeHandle, Scope};

use crate::parts::Parts;

/// Builds the pipeline on one worker. The probe sees everything settled before its frontier.
pub fn build<'s>(scope: Scope<'s, Time>, parts: &Parts) -> ProbeHandle<Time> {
    let Parts { bridge, ledger, darkroom, settings, live, .. } = parts;
    let (index, peers) = (scope.worker().index(), scope.worker().peers());
    let shelf = || parts.shelf.clone();

    // What comes round again: what the ledger has learned, to the frontier; outcomes, to the clusters.
    let (to_frontier, news) = scope.feedback(1);
    let (to_clusters, outcomes) = scope.feedback(1);

    // Everything that is open waits in the ledger; what is due there is given out, to whoever asks its host.
    let work = news.give_out(parts.lender(index), bridge);
    let (pages, images, due_frames) = work.route(Arc::clone(&parts.web), parts.processes, bridge);

    // Pages: fetched from their host, mined for links and images; what they lead to is admitted, as new sites are.
    let (fetched, unreachable) = pages.fetch(Arc::clone(&parts.web), bridge, parts.limits.fetch);
    let (visits, unreadable) = fetched.mine(settings.mine.clone(), settings.fetch.clone(), bridge, parts.limits.cpu);
    let arrivals = intake(scope, parts.intake(index), bridge).concat(visits.map(Arrival::Visit));
    let (_, found) = arrivals
        .admit(live.crawl.clone(), live.recrawl.clone(), Arc::clone(&bridge.clock))
        .record(Arc::clone(ledger), bridge);

    // Images: downloaded from their host, decoded once, kept before anything is said about them.
    let web = Arc::clone(&parts.web);
    let (downloads, missing) = images.download(web, Arc::clone(darkroom), bridge, parts.limits.download);
    let (developed, spoiled) = downloads.decode(settings.image.clone(), Arc::clone(darkroom), bridge, parts.limits.cpu);
    let (kept, unkept) = developed.keep(shelf(), Arc::clone(darkroom), bridge);
    let (kept, settled) = kept.record(Arc::clone(ledger), bridge);

    // Pictures: each content once, near-duplicates clustered by hash, one of each cluster chosen.
    let verdicts = kept.map(|kept| kept.frame).unique(parts.earlier.contents_of(index, peers));
    let (firsts, copies) = verdicts.ok_err(|verdict| match verdict {
        Verdict::First(frame) => Ok(frame),
        Verdict::Copy(frame) => Err(frame),
    });
    let heard = firsts.map(Heard::Frame).concat(outcomes);
    let calls = heard.cluster(settings.dedupe.clone(), parts.earlier.pictures_of(index), bridge);
    let (frames, rulings): (Flow<'s, Result<Frame, Frame>>, _) = calls.ok_err(|call| match call {
        Call::Ruled(ruling) => Err(ruling),
        Call::Detect(frame) => Ok(Ok(frame)),
        Call::Aside(frame) => Ok(Err(frame)),
    });
    let (chosen, duplicates) = frames.ok_err(|frame| frame);
    copies.concat(duplicates).home().aside(Arc::clone(darkroom));
    let (rulings, _) = rulings.record(Arc::clone(ledger), bridge);

    // Faces: pixels where they were decoded, batches by shape, crops to the store, sinks, then the fact.
    let wanted = chosen.home().concat(due_frames);
    let (frames, unread) = wanted.recall(shelf(), Arc::clone(darkroom), settings.image.clone(), bridge);
    let (detected, unseen) = frames.detect(parts.looker.clone(), Arc::clone(darkroom), bridge);
    let (delivered, undelivered) = detected.deliver(shelf(), settings.deliver.clone(), Arc::clone(darkroom), bridge);
    let delivered = parts.sinks.iter().fold(delivered, |delivered, sink| delivered.drain(Arc::clone(sink), bridge));
    let (delivered, answered) = delivered.record(Arc::clone(ledger), bridge);

    // A degraded answer is kept, and its full detection still owed.
    let (full, weak) =
        delivered.ok_err(|delivered| if delivered.detection.degraded() { Err(delivered) } else { Ok(delivered) });

    // Every loss: a fate, recorded. A retry waits in the ledger; the end of a picture concerns its cluster.
    let lost = scope.concatenate([
        unreachable.concat(unreadable).map(lost_work),
        missing.concat(spoiled).concat(unkept).map(lost_work),
        unread.concat(unseen).concat(undelivered).concat(weak.map(owe_full)).map(lost_work),
    ]);
    let fates = lost.schedule(live.retry.clone(), live.recrawl.clone(), Arc::clone(&bridge.clock));
    let (fates, failed) = fates.record(Arc::clone(ledger), bridge);
    scope.concatenate([found, settled, answered, failed]).connect_loop(to_frontier);
    let ended = fates.flat_map(|fate| match fate {
        Fate::Dead { work: Work::Frame(frame), .. } => Some(Heard::Dead(frame.content)),
        Fate::Stands { work: Work::Frame(frame), .. } => Some(Heard::Done(frame.content)),
        _ => None,
    });
    let done = full.map(|delivered| Heard::Done(delivered.frame.content));
    let outcomes = ended.concat(done);
    let (probe, outcomes) = outcomes.probe();
    rulings.probe_with(&probe);
    outcomes.connect_loop(to_clusters);
    probe
}
