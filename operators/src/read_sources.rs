//! `read_sources`: where the sources' sites and pictures enter, and jobs.
//!
//! They are read lazily, a few at a time on a blocking thread, and only while the process has room, so a list of ten million
//! sites takes no more memory than a short one. Sources take turns, so that one that never pauses holds up no other; they may be
//! added and removed meanwhile. Promise: the frontier follows the clock until the set of sources is closed and every source has
//! ended, so what an added source yields is never earlier than the frontier.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use faceflow_core::blocking::blocking;
use faceflow_core::executor::Executor;
use faceflow_core::in_flight::InFlight;
use faceflow_core::record::{Image, JobId, Key, TenantNumber};
use faceflow_core::shutdown::Mode;
use faceflow_core::source::{Source, SourceId, SourceItem};
use faceflow_core::timer::Timer;
use faceflow_core::{Flow, Reloadable, Time};
use timely::dataflow::Scope;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::generic::operator::source;
use timely::scheduling::activate::SyncActivator;
use url::Url;

use crate::dispatch;
use crate::jobs::{JobEvent, Jobs};
use crate::select_links::{Arrival, CrawlSettings};
use crate::source_set::{Changes, NumberedSource, SourceSet};

/// Entries read at once.
const CHUNK: usize = 64;
/// How long a full process waits before it looks again, in milliseconds.
const FULL_MS: u64 = 20;
/// How long idle sources are left alone, in milliseconds.
const IDLE_MS: u64 = 200;

/// What a worker reads: everything on one worker, nothing on the others.
pub struct SourceReader {
    /// The sources.
    pub sources: SourceSet,
    /// How many pages, images and retries are in memory at once (`in_flight_max`).
    pub crawl: Reloadable<CrawlSettings>,
    /// The tenants, and how many of their queues wait.
    pub jobs: Jobs,
}

/// A source with its entries.
type Chunk = (Box<dyn Source>, Vec<SourceItem>);

/// The flows of what is new, and of jobs that come and go. `source_reader` is `None` on workers that read nothing.
pub fn read_sources<'s>(
    scope: Scope<'s, Time>,
    source_reader: Option<SourceReader>,
    executor: &Executor,
) -> (Flow<'s, Arrival>, Flow<'s, JobEvent>) {
    let executor = executor.clone();
    let entered: Flow<'s, Result<Arrival, JobEvent>> = source(scope, "read_sources", move |capability, info| {
        let operator = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
        let mut timer = Timer::new(&executor, Arc::clone(&operator));
        let mut open = source_reader.map(|source_reader| (capability, Reader::new(source_reader, &executor, operator)));
        move |output| {
            let Some((capability, reader)) = open.as_mut() else { return };
            let now = executor.clock.now();
            capability.downgrade(&now.max(*capability.time()));
            output.session(capability).give_iterator(reader.arrivals().into_iter());
            if reader.has_ended() || executor.shutdown.mode() != Mode::Running {
                open = None;
                return;
            }
            let again = reader.read_on();
            timer.wake_at(now + again);
        }
    });
    entered.ok_err(|entered| entered)
}

/// Reads the sources.
struct Reader {
    set: SourceSet,
    /// In the order of their turns, without the one that is being read.
    sources: VecDeque<NumberedSource>,
    crawl: Reloadable<CrawlSettings>,
    jobs: Jobs,
    in_flight: InFlight<(SourceId, JobId), Chunk>,
    /// Sites removed from a list, held back until every list of the tenant was read, since another may name them.
    removed: Vec<(JobId, Key)>,
    /// Sources in a row that had nothing.
    idle: usize,
    executor: Executor,
}

impl Reader {
    fn new(source_reader: SourceReader, executor: &Executor, operator: Arc<SyncActivator>) -> Self {
        let SourceReader { sources: set, crawl, jobs } = source_reader;
        set.attach(Arc::clone(&operator), executor.clone());
        let in_flight = InFlight::new(executor, "read_sources", operator);
        let executor = executor.clone();
        Self { set, sources: VecDeque::new(), crawl, jobs, in_flight, removed: vec![], idle: 0, executor }
    }

    /// Whether nothing comes any more. That the set is complete is asked first: it does not change back, and sources that were
    /// added before it was closed are among `sources` then.
    fn has_ended(&self) -> bool {
        self.set.is_complete() && self.sources.is_empty() && self.in_flight.count() == 0
    }

    /// Whether enough of a tenant waits already: its hosts for their turn, and what of anybody is under way but was not dispatched
    /// from the ledger, whose room is its own.
    fn is_full(&self, tenant: TenantNumber) -> bool {
        let (metrics, stage) = (&self.executor.metrics, dispatch::stage(&self.executor.metrics));
        let of_dispatcher = stage.dispatched.load(Relaxed) + stage.waiting.load(Relaxed);
        let waiting = self.jobs.tenant(tenant).waiting.load(Relaxed);
        metrics.load().saturating_sub(of_dispatcher) + waiting >= self.crawl.get().in_flight_max
    }

    /// Starts reading the next chunk if there is room; when to look again, in milliseconds from now.
    fn read_on(&mut self) -> u64 {
        if self.in_flight.count() > 0 {
            return FULL_MS;
        }
        if self.idle >= self.sources.len() {
            self.idle = 0;
            return IDLE_MS;
        }
        let now = self.executor.clock.now();
        let next = self.sources.iter().position(|source| !self.is_full(source.job.tenant));
        if let Some(NumberedSource { id, job, source }) = next.and_then(|next| self.sources.remove(next)) {
            self.in_flight.start((id, job), 1, blocking(move || Ok(read(source, now))));
        }
        FULL_MS
    }

    /// What has been read since the last call.
    fn arrivals(&mut self) -> Vec<Result<Arrival, JobEvent>> {
        let mut entered = Vec::new();
        if let Some(Changes { jobs, removed }) = self.set.update(&mut self.sources) {
            self.idle = 0;
            entered.extend(jobs.into_iter().map(Err));
            removed.into_iter().for_each(|removed| self.let_go(removed.source));
        }
        let mut arrivals = Vec::new();
        while let Some(((id, job), chunk)) = self.in_flight.next_done() {
            match chunk {
                Ok((source, polls)) => self.take_in(NumberedSource { id, job, source }, polls, &mut arrivals),
                Err(fault) => self.executor.shutdown.fail(format!("reading the input: {}", fault.detail)),
            }
        }
        self.take_in_removed(&mut arrivals);
        entered.extend(arrivals.into_iter().map(Ok));
        entered
    }

    fn take_in(&mut self, source: NumberedSource, polls: Vec<SourceItem>, arrivals: &mut Vec<Arrival>) {
        let (mut ended, mut paused) = (false, false);
        let (id, job, list) = (source.id, source.job, source.source.list().map(str::to_owned));
        for poll in polls {
            match poll {
                SourceItem::Site(url) => arrivals.push(Arrival::Start(job, url, list.clone())),
                SourceItem::Removed(site) => self.removed.push((job, site)),
                SourceItem::Picture { url, version } => arrivals.push(Arrival::Picture(picture(job, url, version))),
                SourceItem::Bad(why) => {
                    tracing::error!("{why}");
                    self.executor.metrics.stage("bad input").failed.fetch_add(1, Relaxed);
                }
                SourceItem::Unreadable(why) => tracing::warn!("{why}"),
                SourceItem::Readable(what) => tracing::info!("{what}"),
                SourceItem::Failed(why) => self.executor.shutdown.fail(why),
                SourceItem::Later => paused = true,
                SourceItem::End => ended = true,
            }
        }
        self.idle = if paused { self.idle + 1 } else { 0 };
        if !ended && self.set.is_active(id) {
            // The others have their turn.
            return self.sources.push_back(source);
        }
        self.set.ended(id);
        self.let_go(source.source);
    }

    /// Takes in what lists lost, once it is known what all of them name: what another of the same tenant still names is not removed.
    fn take_in_removed(&mut self, arrivals: &mut Vec<Arrival>) {
        if self.removed.is_empty() || self.in_flight.count() > 0 {
            return;
        }
        let of = |tenant: TenantNumber| self.sources.iter().filter(move |source| source.job.tenant == tenant);
        let is_read = |tenant| of(tenant).all(|source| source.source.is_read());
        let removed = std::mem::take(&mut self.removed).into_iter();
        let (known, unsure) = removed.partition::<Vec<_>, _>(|(job, _)| is_read(job.tenant));
        let names = |tenant, site: &Key| of(tenant).any(|source| source.source.names(site));
        let unnamed = known.into_iter().filter(|(job, site)| !names(job.tenant, site));
        arrivals.extend(unnamed.map(|(job, site)| Arrival::Removed(job, site)));
        self.removed = unsure;
    }

    /// Drops a source where it may block: it is code of others.
    fn let_go(&self, source: Box<dyn Source>) {
        self.executor.runtime.spawn(async move {
            let dropped = blocking(move || {
                drop(source);
                Ok(())
            });
            if let Err(fault) = dropped.await {
                tracing::error!("a source that is not read any more: {}", fault.detail);
            }
        });
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.set.detach();
    }
}

/// A picture that no page shows belongs to the folder it lies in.
fn picture(job: JobId, url: Url, version: String) -> Image {
    let folder = url.join(".").unwrap_or_else(|_| url.clone());
    Image {
        job,
        url,
        page: folder.clone(),
        site: folder,
        attempts: 0,
        inline: None,
        uncounted: 0,
        alternates: vec![],
        version: Some(version),
        host: None,
    }
}

fn read(mut source: Box<dyn Source>, now: Time) -> Chunk {
    let mut polls = Vec::new();
    while polls.len() < CHUNK {
        let poll = source.poll(now);
        let pause = matches!(poll, SourceItem::Failed(_) | SourceItem::Later | SourceItem::End);
        polls.push(poll);
        if pause {
            break;
        }
    }
    (source, polls)
}
