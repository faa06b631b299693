//! `intake`: where the sources' sites and pictures enter.
//!
//! They are read lazily, a few at a time on a blocking thread, and only while the process has room, so a list of ten million
//! sites takes no more memory than a short one. A source is read until it has nothing for now, then the next one. Promise:
//! the frontier follows the clock until every source has ended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use faceflow_core::bridge::{Alarm, Bridge, Flight, blocking};
use faceflow_core::pulse::Mode;
use faceflow_core::record::{Image, Key};
use faceflow_core::source::{Poll, Source};
use faceflow_core::{Flow, Live, Time};
use timely::dataflow::Scope;
use timely::dataflow::operators::generic::operator::source;
use url::Url;

use crate::admit::{Arrival, CrawlSettings};
use crate::frontier;

/// Entries read at once.
const CHUNK: usize = 64;
/// How long a full process waits before it looks again, in milliseconds.
const FULL_MS: u64 = 20;
/// How long an idle source is left alone, in milliseconds.
const IDLE_MS: u64 = 200;

/// What a worker takes in: everything on one worker, nothing on the others.
pub struct Intake {
    /// The sources.
    pub sources: VecDeque<Box<dyn Source>>,
    /// How many pages, images and retries are in memory at once (`ahead_max`).
    pub crawl: Live<CrawlSettings>,
}

/// A source with what it said.
type Chunk = (Box<dyn Source>, Vec<Poll>);

/// The flow of what is new. `intake` is `None` on workers that take nothing in.
pub fn intake<'s>(scope: Scope<'s, Time>, intake: Option<Intake>, bridge: &Bridge) -> Flow<'s, Arrival> {
    let bridge = bridge.clone();
    source(scope, "intake", move |capability, info| {
        let operator = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
        let mut alarm = Alarm::new(&bridge, Arc::clone(&operator));
        let mut open = intake.map(|intake| (capability, Reader::new(intake, &bridge, operator)));
        move |output| {
            let Some((capability, reader)) = open.as_mut() else { return };
            let now = bridge.clock.now();
            capability.downgrade(&now.max(*capability.time()));
            output.session(capability).give_iterator(reader.landed().into_iter());
            if reader.ended() || bridge.pulse.mode() != Mode::Running {
                open = None;
                return;
            }
            let again = reader.read_on();
            alarm.wake_at(now + again);
        }
    })
}

/// Reads the sources.
struct Reader {
    sources: VecDeque<Box<dyn Source>>,
    crawl: Live<CrawlSettings>,
    flight: Flight<(), Chunk>,
    /// What lists lost, until it is known what all of them name.
    removed: Vec<Key>,
    /// Sources in a row that had nothing.
    idle: usize,
    bridge: Bridge,
}

impl Reader {
    fn new(intake: Intake, bridge: &Bridge, operator: Arc<timely::scheduling::activate::SyncActivator>) -> Self {
        let Intake { sources, crawl } = intake;
        let flight = Flight::new(bridge, "intake", operator);
        Self { sources, crawl, flight, removed: vec![], idle: 0, bridge: bridge.clone() }
    }

    fn ended(&self) -> bool {
        self.sources.is_empty() && self.flight.count() == 0
    }

    /// Whether enough waits already: hosts for their turn, and what is under way but was not lent by the frontier, whose room
    /// is its own.
    fn is_full(&self) -> bool {
        let pulse = &self.bridge.pulse;
        let lent = frontier::stage(pulse).lent.load(Relaxed);
        pulse.load().saturating_sub(lent) >= self.crawl.get().ahead_max
    }

    /// Starts reading the next chunk if there is room; when to look again, in milliseconds from now.
    fn read_on(&mut self) -> u64 {
        if self.flight.count() > 0 || self.is_full() {
            return FULL_MS;
        }
        if self.idle >= self.sources.len().max(1) {
            self.idle = 0;
            return IDLE_MS;
        }
        let now = self.bridge.clock.now();
        if let Some(source) = self.sources.pop_front() {
            self.flight.start((), 1, blocking(move || Ok(read(source, now))));
        }
        FULL_MS
    }

    /// What has been read since.
    fn landed(&mut self) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        while let Some(((), chunk)) = self.flight.land() {
            match chunk {
                Ok((source, polls)) => self.take_in(source, polls, &mut arrivals),
                Err(fault) => self.bridge.pulse.fail(format!("reading the input: {}", fault.detail)),
            }
        }
        arrivals
    }

    fn take_in(&mut self, source: Box<dyn Source>, polls: Vec<Poll>, arrivals: &mut Vec<Arrival>) {
        let (mut ended, mut paused) = (false, false);
        let list = source.list().map(str::to_owned);
        for poll in polls {
            match poll {
                Poll::Site(url) => arrivals.push(Arrival::Start(url, list.clone())),
                Poll::Removed(site) => self.removed.push(site),
                Poll::Picture { url, version } => arrivals.push(Arrival::Picture(picture(url, version))),
                Poll::Bad(why) => {
                    tracing::error!("{why}");
                    self.bridge.pulse.stage("bad input").lost.fetch_add(1, Relaxed);
                }
                Poll::Failed(why) => self.bridge.pulse.fail(why),
                Poll::Later => paused = true,
                Poll::End => ended = true,
            }
        }
        match (ended, paused) {
            (true, _) => {}
            // The others have their turn.
            (_, true) => self.sources.push_back(source),
            (_, false) => self.sources.push_front(source),
        }
        self.idle = if paused { self.idle + 1 } else { 0 };
        if self.sources.iter().all(|source| source.is_read()) {
            let removed = std::mem::take(&mut self.removed).into_iter();
            let unnamed = removed.filter(|site| !self.sources.iter().any(|source| source.names(site)));
            arrivals.extend(unnamed.map(Arrival::Removed));
        }
    }
}

/// A picture that no page shows belongs to the folder it lies in.
fn picture(url: Url, version: String) -> Image {
    let folder = url.join(".").unwrap_or_else(|_| url.clone());
    Image {
        url,
        page: folder.clone(),
        site: folder,
        attempts: 0,
        inline: None,
        spared: 0,
        alternates: vec![],
        version: Some(version),
    }
}

fn read(mut source: Box<dyn Source>, now: Time) -> Chunk {
    let mut polls = Vec::new();
    while polls.len() < CHUNK {
        let poll = source.poll(now);
        let pause = matches!(poll, Poll::Failed(_) | Poll::Later | Poll::End);
        polls.push(poll);
        if pause {
            break;
        }
    }
    (source, polls)
}
