//! `dedupe_near`: groups near-duplicate pictures by perceptual hash; one of each group goes on to the detector.
//!
//! Hashes are small, so all of a tenant's are exchanged to one worker; pixels stay where they are. A picture waits for a short
//! settle window, so that a better copy that arrives with it is chosen at once. A duplicate holds no capability: it is
//! settled at its representative's time. Promise: at the end, who represents whom depends on the set of pictures alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use faceflow_core::executor::Executor;
use faceflow_core::ledger::KnownPicture;
use faceflow_core::record::{Content, ContentId, DuplicateAssignment, Frame};
use faceflow_core::timer::Timer;
use faceflow_core::transition::State;
use faceflow_core::{Flow, Time};
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator;

use faceflow_duplicates::near::{NearDuplicates, Outcome, Verdict, compared};
use faceflow_duplicates::settings::DedupeSettings;

/// What happens to pictures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum DedupeEvent {
    /// A picture that was not known.
    Frame(Frame),
    /// A picture's faces are recorded.
    Done(Content),
    /// A picture's detection failed for good.
    Dead(Content),
}

/// What is to be done with pictures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum DedupeAction {
    /// Detect faces in this one.
    Detect(Frame),
    /// Another represents this one, as far as is known: its pixels are not needed.
    Evict(Frame),
    /// Record which picture represents which.
    Assign(DuplicateAssignment),
}

/// Groups pictures.
pub trait DedupeNear<'s> {
    /// Groups within `settings`, starting from the pictures of earlier runs.
    fn dedupe_near(
        self,
        settings: DedupeSettings,
        known: Vec<KnownPicture>,
        executor: &Executor,
    ) -> Flow<'s, DedupeAction>;
}

impl<'s> DedupeNear<'s> for Flow<'s, DedupeEvent> {
    fn dedupe_near(
        self,
        settings: DedupeSettings,
        known: Vec<KnownPicture>,
        executor: &Executor,
    ) -> Flow<'s, DedupeAction> {
        let (scope, executor) = (self.scope(), executor.clone());
        self.unary(Exchange::new(|_: &DedupeEvent| 0), "dedupe_near", move |start, info| {
            let operator = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
            let (mut timer, stage) = (Timer::new(&executor, operator), executor.metrics.stage("dedupe_near"));
            let mut table = Table::new(&settings, known);
            let mut resume = Some((start, table.resume()));
            let mut window: BTreeMap<Time, Vec<(Capability<Time>, ContentId)>> = BTreeMap::new();
            move |input, output| {
                let now = executor.clock.now();
                if let Some((start, actions)) = resume.take() {
                    output.session(&start.delayed(&now)).give_iterator(actions.into_iter());
                }
                input.for_each_time(|time, data| {
                    for events in data.flat_map(|batch| batch.drain(..)) {
                        let DedupeEvent::Frame(frame) = events else {
                            output.session(&time).give_iterator(table.hear(events).into_iter());
                            continue;
                        };
                        let wait = if compared(&frame.content).is_some() { settings.settle_ms } else { 0 };
                        let until = now + wait;
                        let rest = time.retain(output.output_index());
                        window.entry(until).or_default().push((rest, frame.content.id));
                        // A picture in the window is under way: a drain waits for it.
                        stage.in_flight.fetch_add(1, Relaxed);
                        table.add(frame);
                    }
                });
                let later = window.split_off(&(now + 1));
                for (capability, id) in std::mem::replace(&mut window, later).into_values().flatten() {
                    output.session(&capability).give_iterator(table.settle(id).into_iter());
                    stage.in_flight.fetch_sub(1, Relaxed);
                }
                if let Some((&until, _)) = window.first_key_value() {
                    timer.wake_at(until);
                }
            }
        })
    }
}

/// The groups, and the frames that may still be sent to the detector.
struct Table {
    clusters: NearDuplicates,
    /// Frames of pictures that may still be detected.
    frames: HashMap<ContentId, Frame>,
}

impl Table {
    fn new(settings: &DedupeSettings, known: Vec<KnownPicture>) -> Self {
        let mut table = Self { clusters: NearDuplicates::new(settings), frames: HashMap::new() };
        for picture in known {
            if picture.state == State::Open {
                let owner = picture.content.id.route() as usize;
                let (content, has_degraded, generation) =
                    (picture.content.clone(), picture.has_degraded, picture.generation);
                let frame = Frame {
                    content,
                    owner,
                    pixels: None,
                    attempts: 0,
                    uncounted: 0,
                    has_degraded,
                    generation,
                    scale: None,
                };
                table.frames.insert(picture.content.id, frame);
            }
            table.clusters.learn(picture);
        }
        table
    }

    /// The detections that earlier runs left open.
    fn resume(&mut self) -> Vec<DedupeAction> {
        let verdicts = self.clusters.evaluate_all();
        let actions = self.carry_out(verdicts);
        self.frames.retain(|id, _| !self.clusters.is_represented(*id));
        actions
    }

    fn add(&mut self, frame: Frame) {
        self.clusters.add(&frame.content);
        self.frames.insert(frame.content.id, frame);
    }

    /// The window of a picture is over: it is chosen or evicted.
    fn settle(&mut self, id: ContentId) -> Vec<DedupeAction> {
        let verdicts = self.clusters.settle(id);
        let mut actions = self.carry_out(verdicts);
        if let Some(frame) = self.frames.get_mut(&id).filter(|frame| frame.pixels.is_some()) {
            actions.push(DedupeAction::Evict(frame.clone()));
            frame.pixels = None;
        }
        actions
    }

    fn hear(&mut self, outcome: DedupeEvent) -> Vec<DedupeAction> {
        let id = match outcome {
            DedupeEvent::Done(content) => self.end(&content, Outcome::Done),
            DedupeEvent::Dead(content) => self.end(&content, Outcome::Dead),
            DedupeEvent::Frame(frame) => {
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

    fn carry_out(&mut self, verdicts: Vec<Verdict>) -> Vec<DedupeAction> {
        let mut actions = Vec::with_capacity(verdicts.len());
        for verdict in verdicts {
            match verdict {
                Verdict::Assigned(ruling) => {
                    // Whoever is represented by a detected picture is never detected itself.
                    let frame = self.frames.remove(&ruling.picture);
                    actions.extend(frame.filter(|frame| frame.pixels.is_some()).map(DedupeAction::Evict));
                    actions.push(DedupeAction::Assign(ruling));
                }
                Verdict::Detect(id) => {
                    let frame = self.frames.get_mut(&id).expect("a picture that is not settled has a frame");
                    let chosen = frame.clone();
                    frame.pixels = None;
                    actions.push(DedupeAction::Detect(chosen));
                }
            }
        }
        actions
    }
}
