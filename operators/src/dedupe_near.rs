//! `dedupe_near`: groups near-duplicate pictures by perceptual hash; the leader of each group goes on to the detector.
//!
//! Hashes are small, so all are exchanged to one worker; pixels stay where they are. A picture waits for a short
//! settle window, so that a better copy that arrives with it is chosen at once. A duplicate holds no capability: it is
//! settled at its leader's time. One that loses its leader and has no answer is detected then: its pixels are read back. Each tenant
//! has groups of its own, so nobody is given another tenant's faces. Promise: at the end, who leads whom depends on the tenant's
//! set of pictures alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use faceflow_core::executor::Executor;
use faceflow_core::ledger::KnownPicture;
use faceflow_core::record::{Content, ContentId, Frame, JobId, TenantAssignment, TenantNumber};
use faceflow_core::timer::Timer;
use faceflow_core::transition::State;
use faceflow_core::{Flow, Time};
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator;

use faceflow_duplicates::near::{DedupeDecision, DetectionOutcome, NearDuplicates, compared};
use faceflow_duplicates::settings::DedupeSettings;

/// What happens to pictures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum DedupeEvent {
    /// A tenant has a job: what earlier runs left of it goes on.
    Tenant(TenantNumber),
    /// A picture that was not known.
    Frame(Frame),
    /// A picture's faces are recorded.
    Done(TenantNumber, Content),
    /// A picture's detection failed for good.
    Dead(TenantNumber, Content),
}

/// What is to be done with pictures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum DedupeAction {
    /// Detect faces in this one.
    Detect(Frame),
    /// Another leads this one, as far as is known: its pixels are not needed.
    Evict(Frame),
    /// Record which picture leads which.
    Assign(TenantAssignment),
}

/// What is known of a tenant when the first of it comes through.
pub struct TenantPictures {
    /// Its settings.
    pub settings: DedupeSettings,
    /// The pictures of earlier runs.
    pub known: Vec<KnownPicture>,
}

/// Groups pictures.
pub trait DedupeNear<'s> {
    /// Groups the pictures of each tenant, starting from what `known` says of it.
    fn dedupe_near(
        self,
        known: impl Fn(TenantNumber) -> TenantPictures + 'static,
        executor: &Executor,
    ) -> Flow<'s, DedupeAction>;
}

/// Pictures whose settle window is open, by when it ends.
type SettleWindow = BTreeMap<Time, Vec<(Capability<Time>, TenantNumber, ContentId)>>;

impl<'s> DedupeNear<'s> for Flow<'s, DedupeEvent> {
    fn dedupe_near(
        self,
        known: impl Fn(TenantNumber) -> TenantPictures + 'static,
        executor: &Executor,
    ) -> Flow<'s, DedupeAction> {
        let (scope, executor) = (self.scope(), executor.clone());
        self.unary(Exchange::new(|_: &DedupeEvent| 0), "dedupe_near", move |_, info| {
            let operator = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
            let (mut timer, stage) = (Timer::new(&executor, operator), executor.metrics.stage("dedupe_near"));
            let mut tables = HashMap::<TenantNumber, Table>::new();
            let mut window = SettleWindow::new();
            move |input, output| {
                let now = executor.clock.now();
                input.for_each_time(|time, data| {
                    for event in data.flat_map(|batch| batch.drain(..)) {
                        let tenant = event.tenant();
                        let table = tables.entry(tenant).or_insert_with(|| Table::new(tenant, known(tenant)));
                        // What earlier runs left comes before what is new.
                        output.session(&time).give_iterator(table.resume().into_iter());
                        let DedupeEvent::Frame(frame) = event else {
                            output.session(&time).give_iterator(table.hear(event).into_iter());
                            continue;
                        };
                        let wait = if compared(&frame.content).is_some() { table.settle_ms } else { 0 };
                        let until = now + wait;
                        let rest = time.retain(output.output_index());
                        window.entry(until).or_default().push((rest, tenant, frame.content.id));
                        // A picture in the window is under way: a drain waits for it.
                        stage.in_flight.fetch_add(1, Relaxed);
                        table.add(frame);
                    }
                });
                let later = window.split_off(&(now + 1));
                for (capability, tenant, id) in std::mem::replace(&mut window, later).into_values().flatten() {
                    let table = tables.get_mut(&tenant).expect("a picture in the window is in its tenant's table");
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

impl DedupeEvent {
    /// Whose it is.
    fn tenant(&self) -> TenantNumber {
        match self {
            Self::Tenant(tenant) | Self::Done(tenant, _) | Self::Dead(tenant, _) => *tenant,
            Self::Frame(frame) => frame.job.tenant,
        }
    }
}

/// The groups of a tenant, and the frames that may still be sent to the detector.
struct Table {
    tenant: TenantNumber,
    settle_ms: u64,
    /// Whether what earlier runs left open has gone on.
    resumed: bool,
    groups: NearDuplicates,
    /// Frames of pictures without an end of their own: a duplicate may lose its leader.
    frames: HashMap<ContentId, Frame>,
}

impl Table {
    fn new(tenant: TenantNumber, TenantPictures { settings, known }: TenantPictures) -> Self {
        let (groups, settle_ms) = (NearDuplicates::new(&settings), settings.settle_ms);
        let mut table = Self { tenant, settle_ms, resumed: false, groups, frames: HashMap::new() };
        for picture in known {
            if picture.state == State::Open {
                let owner = picture.content.id.partition_hash() as usize;
                let (content, has_degraded, generation) =
                    (picture.content.clone(), picture.has_degraded, picture.generation);
                let frame = Frame {
                    job: JobId::default_of(tenant),
                    content,
                    owner,
                    pixels: None,
                    attempts: 0,
                    uncounted: 0,
                    has_degraded,
                    opted_out: None,
                    generation,
                    scale: None,
                };
                table.frames.insert(picture.content.id, frame);
            }
            table.groups.load_known(picture);
        }
        table
    }

    /// The detections that earlier runs left open, once.
    fn resume(&mut self) -> Vec<DedupeAction> {
        if std::mem::replace(&mut self.resumed, true) {
            return vec![];
        }
        let decisions = self.groups.decide_all();
        self.carry_out(decisions)
    }

    fn add(&mut self, frame: Frame) {
        self.groups.add(&frame.content);
        self.frames.insert(frame.content.id, frame);
    }

    /// The window of a picture is over: it is chosen or evicted.
    fn settle(&mut self, id: ContentId) -> Vec<DedupeAction> {
        let decisions = self.groups.decide(id);
        let mut actions = self.carry_out(decisions);
        if let Some(frame) = self.frames.get_mut(&id).filter(|frame| frame.pixels.is_some()) {
            actions.push(DedupeAction::Evict(frame.clone()));
            frame.pixels = None;
        }
        actions
    }

    fn hear(&mut self, outcome: DedupeEvent) -> Vec<DedupeAction> {
        let id = match outcome {
            DedupeEvent::Tenant(_) => return vec![],
            DedupeEvent::Done(_, content) => self.end(&content, DetectionOutcome::Done),
            DedupeEvent::Dead(_, content) => self.end(&content, DetectionOutcome::Dead),
            DedupeEvent::Frame(frame) => {
                let id = frame.content.id;
                self.add(frame);
                id
            }
        };
        let decisions = self.groups.decide(id);
        self.carry_out(decisions)
    }

    fn end(&mut self, content: &Content, outcome: DetectionOutcome) -> ContentId {
        self.groups.outcome(content, outcome);
        self.frames.remove(&content.id);
        content.id
    }

    fn carry_out(&mut self, decisions: Vec<DedupeDecision>) -> Vec<DedupeAction> {
        let mut actions = Vec::with_capacity(decisions.len());
        for decision in decisions {
            match decision {
                DedupeDecision::Assigned(assignment) => {
                    if let Some(frame) = self.frames.get_mut(&assignment.picture).filter(|frame| frame.pixels.is_some())
                    {
                        actions.push(DedupeAction::Evict(frame.clone()));
                        frame.pixels = None;
                    }
                    actions.push(DedupeAction::Assign(TenantAssignment { tenant: self.tenant, assignment }));
                }
                DedupeDecision::Detect(id) => {
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

#[cfg(test)]
mod tests {
    use faceflow_core::record::PerceptualHash;

    use super::*;

    fn frame(name: u8, width: u32, bits: u64) -> Frame {
        let hashes = PerceptualHash::dct64(bits, true).into();
        let content =
            Content { id: ContentId::of(&[name]), bytes: 1, format: "png".to_owned(), width, height: 1, hashes };
        Frame {
            job: JobId::default_of(TenantNumber(1)),
            content,
            owner: 0,
            pixels: Some(u64::from(name)),
            attempts: 0,
            uncounted: 0,
            has_degraded: false,
            opted_out: None,
            generation: 0,
            scale: None,
        }
    }

    fn detected(actions: &[DedupeAction]) -> Vec<(ContentId, Option<u64>)> {
        let frames = actions.iter().filter_map(|action| match action {
            DedupeAction::Detect(frame) => Some((frame.content.id, frame.pixels)),
            _ => None,
        });
        frames.collect()
    }

    #[test]
    fn a_duplicate_that_loses_its_leader_is_detected_without_its_pixels() {
        let [big, middle, small] = [frame(1, 30, 0), frame(2, 20, 0b111), frame(3, 10, 0b11_1111)];
        let pictures = TenantPictures { settings: DedupeSettings::default(), known: vec![] };
        let (tenant, ids) = (TenantNumber(1), [&big, &middle, &small].map(|frame| frame.content.id));
        let mut table = Table::new(tenant, pictures);
        [&middle, &small].into_iter().for_each(|frame| table.add(frame.clone()));
        assert_eq!(detected(&table.settle(ids[1])), [(ids[1], Some(2))]);
        let evicted = table.settle(ids[2]);
        assert!(matches!(&evicted[..], [DedupeAction::Evict(frame)] if frame.pixels == Some(3)), "{evicted:?}");
        let done = table.hear(DedupeEvent::Done(tenant, middle.content.clone()));
        assert!(matches!(&done[..], [DedupeAction::Assign(_)]), "{done:?}");
        table.add(big);
        assert_eq!(detected(&table.settle(ids[0])), [(ids[0], Some(1)), (ids[2], None)]);
        table.hear(DedupeEvent::Done(tenant, small.content));
        assert!(!table.frames.contains_key(&ids[2]), "what has an answer is not detected again");
    }
}
