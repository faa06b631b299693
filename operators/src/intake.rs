//! `intake`: where work enters: what earlier runs still owe, then the sources' sites and pictures.
//!
//! Both are read lazily, a few at a time on a blocking thread, and only while the process has room, so a list of ten
//! million sites takes no more memory than a short one. A source is read until it has nothing for now, then the next one.
//! Promise: the frontier follows the clock until every source has ended.

use std::collections::VecDeque;
use std::sync::Arc;

use faceflow_core::bridge::{Alarm, Bridge, Flight, blocking};
use faceflow_core::ledger::Ledger;
use faceflow_core::pulse::Mode;
use faceflow_core::record::Image;
use faceflow_core::source::{Poll, Source};
use faceflow_core::{Class, Fault, Flow, Time};
use timely::dataflow::Scope;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::generic::operator::source;
use url::Url;

use crate::admit::Arrival;
use crate::wait::Waiting;

/// Entries read at once.
const CHUNK: usize = 64;
/// How long a full process waits before it looks again, in milliseconds.
const FULL_MS: u64 = 20;
/// How long an idle source is left alone, in milliseconds.
const IDLE_MS: u64 = 200;

/// What a worker takes in: everything on one worker, nothing on the others.
pub struct Intake {
    /// The ledger whose open work goes first.
    pub ledger: Arc<dyn Ledger>,
    /// The sources.
    pub sources: VecDeque<Box<dyn Source>>,
    /// Load of the process above which nothing more is read.
    pub ahead_max: usize,
}

enum Chunk {
    Owed(Vec<(u64, Time, Waiting)>),
    Sites(Box<dyn Source>, Vec<Poll>),
}

/// The flows of what is new and of owed work. `intake` is `None` on workers that take nothing in.
pub fn intake<'s>(
    scope: Scope<'s, Time>,
    intake: Option<Intake>,
    bridge: &Bridge,
) -> (Flow<'s, Arrival>, Flow<'s, Waiting>) {
    let bridge = bridge.clone();
    let entries: Flow<'s, Result<Arrival, Waiting>> = source(scope, "intake", move |capability, info| {
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
            let again = reader.read_on(&bridge);
            alarm.wake_at(now + again);
        }
    });
    entries.ok_err(|entry| entry)
}

/// Reads the ledger's open work, then the sources.
struct Reader {
    ledger: Arc<dyn Ledger>,
    owed_after: Option<u64>,
    sources: VecDeque<Box<dyn Source>>,
    ahead_max: usize,
    flight: Flight<(), Chunk>,
    /// Sources in a row that had nothing.
    idle: usize,
    bridge: Bridge,
}

impl Reader {
    fn new(intake: Intake, bridge: &Bridge, operator: Arc<timely::scheduling::activate::SyncActivator>) -> Self {
        let Intake { ledger, sources, ahead_max } = intake;
        let flight = Flight::new(bridge, "intake", operator);
        Self { ledger, owed_after: Some(0), sources, ahead_max, flight, idle: 0, bridge: bridge.clone() }
    }

    fn ended(&self) -> bool {
        self.owed_after.is_none() && self.sources.is_empty() && self.flight.count() == 0
    }

    /// Starts reading the next chunk if there is room; when to look again, in milliseconds from now.
    fn read_on(&mut self, bridge: &Bridge) -> u64 {
        if self.flight.count() > 0 || bridge.pulse.load() >= self.ahead_max {
            return FULL_MS;
        }
        if self.idle >= self.sources.len().max(1) {
            self.idle = 0;
            return IDLE_MS;
        }
        let now = bridge.clock.now();
        if let Some(after) = self.owed_after {
            let ledger = Arc::clone(&self.ledger);
            self.flight.start((), 1, blocking(move || owed(ledger.as_ref(), after)));
        } else if let Some(source) = self.sources.pop_front() {
            self.flight.start((), 1, blocking(move || Ok(sites(source, now))));
        }
        FULL_MS
    }

    /// What has been read since.
    fn landed(&mut self) -> Vec<Result<Arrival, Waiting>> {
        let mut entries = Vec::new();
        while let Some(((), chunk)) = self.flight.land() {
            match chunk {
                Ok(Chunk::Owed(owed)) => {
                    self.owed_after = owed.last().map(|(position, ..)| *position);
                    entries.extend(owed.into_iter().map(|(_, _, waiting)| Err(waiting)));
                }
                Ok(Chunk::Sites(source, polls)) => self.take_sites(source, polls, &mut entries),
                Err(fault) => self.bridge.pulse.fail(format!("reading the input: {}", fault.detail)),
            }
        }
        entries
    }

    fn take_sites(&mut self, source: Box<dyn Source>, polls: Vec<Poll>, entries: &mut Vec<Result<Arrival, Waiting>>) {
        let (mut ended, mut paused) = (false, false);
        for poll in polls {
            match poll {
                Poll::Site(url) => entries.push(Ok(Arrival::Start(url))),
                Poll::Picture(url) => entries.push(Ok(Arrival::Picture(picture(url)))),
                Poll::Bad(why) => {
                    tracing::error!("{why}");
                    self.bridge.pulse.stage("bad input").lost.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
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
    }
}

/// A picture that no page shows belongs to the folder it lies in.
fn picture(url: Url) -> Image {
    let folder = url.join(".").unwrap_or_else(|_| url.clone());
    Image { url, page: folder.clone(), site: folder, attempts: 0, inline: None, alternates: vec![] }
}

fn owed(ledger: &dyn Ledger, after: u64) -> Result<Chunk, Fault> {
    let owed = ledger.open_work(after, CHUNK).map_err(|e| Fault::transient(Class::Store, "ledger", e.to_string()))?;
    Ok(Chunk::Owed(owed.into_iter().map(|(position, due, work)| (position, due, Waiting { work, due })).collect()))
}

fn sites(mut source: Box<dyn Source>, now: Time) -> Chunk {
    let mut polls = Vec::new();
    while polls.len() < CHUNK {
        let poll = source.poll(now);
        let pause = matches!(poll, Poll::Failed(_) | Poll::Later | Poll::End);
        polls.push(poll);
        if pause {
            break;
        }
    }
    Chunk::Sites(source, polls)
}
