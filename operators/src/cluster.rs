//! `cluster`: near-duplicate pictures find each other, and one of each cluster goes on to the detector.
//!
//! Hashes are small, so all of a tenant's meet at one worker; pixels stay where they are. A picture rests here for a short
//! settle window, so that a better copy that arrives with it is chosen at once. A duplicate holds no capability: it is
//! settled at its representative's time. Promise: at the end, who represents whom depends on the set of pictures alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use faceflow_core::bridge::{Alarm, Bridge};
use faceflow_core::ledger::{KnownPicture, State};
use faceflow_core::record::{Content, ContentId, Frame, Ruling};
use faceflow_core::{Flow, Time};
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator;

use crate::clusters::{Clusters, DedupeSettings, Outcome, Verdict};

/// What the clusters hear.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Heard {
    /// A picture that was not known.
    Frame(Frame),
    /// A picture's faces are delivered.
    Done(Content),
    /// A picture's detection failed for good.
    Dead(Content),
}

/// What the clusters say.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Call {
    /// Look at this one.
    Detect(Frame),
    /// Another stands for this one, as far as is known: its pixels can go.
    Aside(Frame),
    /// This stands for that.
    Ruled(Ruling),
}

/// Clusters pictures.
pub trait Cluster<'s> {
    /// Clusters within `settings`, starting from the pictures of earlier runs.
    fn cluster(self, settings: DedupeSettings, known: Vec<KnownPicture>, bridge: &Bridge) -> Flow<'s, Call>;
}

impl<'s> Cluster<'s> for Flow<'s, Heard> {
    fn cluster(self, settings: DedupeSettings, known: Vec<KnownPicture>, bridge: &Bridge) -> Flow<'s, Call> {
        let (scope, bridge) = (self.scope(), bridge.clone());
        self.unary(Exchange::new(|_: &Heard| 0), "cluster", move |start, info| {
            let operator = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
            let (mut alarm, stage) = (Alarm::new(&bridge, operator), bridge.pulse.stage("cluster"));
            let mut table = Table::new(&settings, known);
            let mut resume = Some((start, table.resume()));
            let mut window: BTreeMap<Time, Vec<(Capability<Time>, ContentId)>> = BTreeMap::new();
            move |input, output| {
                let now = bridge.clock.now();
                if let Some((start, calls)) = resume.take() {
                    output.session(&start.delayed(&now)).give_iterator(calls.into_iter());
                }
                input.for_each_time(|time, data| {
                    for heard in data.flat_map(|batch| batch.drain(..)) {
                        let Heard::Frame(frame) = heard else {
                            output.session(&time).give_iterator(table.hear(heard).into_iter());
                            continue;
                        };
                        let until = now + if frame.content.phash.distinctive { settings.settle_ms } else { 0 };
                        let rest = time.retain(output.output_index());
                        window.entry(until).or_default().push((rest, frame.content.id));
                        // A picture in the window is under way: a drain waits for it.
                        stage.flying.fetch_add(1, Relaxed);
                        table.add(frame);
                    }
                });
                let later = window.split_off(&(now + 1));
                for (capability, id) in std::mem::replace(&mut window, later).into_values().flatten() {
                    output.session(&capability).give_iterator(table.settle(id).into_iter());
                    stage.flying.fetch_sub(1, Relaxed);
                }
                if let Some((&until, _)) = window.first_key_value() {
                    alarm.wake_at(until);
                }
            }
        })
    }
}

/// The clusters, with what it takes to send a picture to the detector.
struct Table {
    clusters: Clusters,
    /// Of pictures that may still be detected.
    frames: HashMap<ContentId, Frame>,
}

impl Table {
    fn new(settings: &DedupeSettings, known: Vec<KnownPicture>) -> Self {
        let mut table = Self { clusters: Clusters::new(settings), frames: HashMap::new() };
        for picture in known {
            if picture.state == State::Open {
                let home = picture.content.id.route() as usize;
                let (content, weak) = (picture.content.clone(), picture.weak);
                let frame = Frame { content, home, ticket: None, attempts: 0, spared: 0, weak, scale: None };
                table.frames.insert(picture.content.id, frame);
            }
            table.clusters.learn(picture);
        }
        table
    }

    /// What earlier runs still owe.
    fn resume(&mut self) -> Vec<Call> {
        let verdicts = self.clusters.evaluate_all();
        let calls = self.carry_out(verdicts);
        self.frames.retain(|id, _| !self.clusters.is_represented(*id));
        calls
    }

    fn add(&mut self, frame: Frame) {
        self.clusters.add(&frame.content);
        self.frames.insert(frame.content.id, frame);
    }

    /// The window of a picture is over: it is chosen or set aside.
    fn settle(&mut self, id: ContentId) -> Vec<Call> {
        let verdicts = self.clusters.settle(id);
        let mut calls = self.carry_out(verdicts);
        if let Some(frame) = self.frames.get_mut(&id).filter(|frame| frame.ticket.is_some()) {
            calls.push(Call::Aside(frame.clone()));
            frame.ticket = None;
        }
        calls
    }

    fn hear(&mut self, outcome: Heard) -> Vec<Call> {
        let id = match outcome {
            Heard::Done(content) => self.end(&content, Outcome::Done),
            Heard::Dead(content) => self.end(&content, Outcome::Dead),
            Heard::Frame(frame) => {
                let id = frame.content.id;
                self.add(frame);
                id
            }
        };
        let verdicts = self.clusters.settle(id);
        self.carry_out(verdicts)
    }

    fn end(&mut self, content: &Content, outcome: Outcome) -> ContentId {
        self.clusters.outcome(content, outcome);
        self.frames.remove(&content.id);
        content.id
    }

    fn carry_out(&mut self, verdicts: Vec<Verdict>) -> Vec<Call> {
        let mut calls = Vec::with_capacity(verdicts.len());
        for verdict in verdicts {
            match verdict {
                Verdict::Ruled(ruling) => {
                    // Whoever is represented by a detected picture is never detected itself.
                    let frame = self.frames.remove(&ruling.picture);
                    calls.extend(frame.filter(|frame| frame.ticket.is_some()).map(Call::Aside));
                    calls.push(Call::Ruled(ruling));
                }
                Verdict::Detect(id) => {
                    let frame = self.frames.get_mut(&id).expect("a picture that is not settled has a frame");
                    let chosen = frame.clone();
                    frame.ticket = None;
                    calls.push(Call::Detect(chosen));
                }
            }
        }
        calls
    }
}
