//! `frontier`: gives out what the ledger holds open, when it is due.
//!
//! Everything that is admitted, and every retry, waits in the ledger, in one lane for each host. A bounded window of it is in
//! memory; lanes take turns, and each may have a share of the room that is left, so a host with a million images, or one that
//! never answers, stands in nobody's way. Between the two lie only news: what came to an end, and what was opened.
//!
//! Promises: what is open is given out once until it comes to an end, and never before it is due. The frontier of time follows
//! the clock while something is due, and else stands where the next retry is.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use faceflow_core::bridge::{Alarm, Bridge, Flight, blocking};
use faceflow_core::ledger::{Ask, Claimed, Ledger, LedgerError, Opened};
use faceflow_core::pulse::{Mode, Pulse, Stage};
use faceflow_core::record::{FRAMES, Key, Lane, Work};
use faceflow_core::{Class, Fault, Flow, Live, Time};
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;

use crate::admit::CrawlSettings;

/// Lanes asked for work at once.
const ASKED_MAX: usize = 64;
/// A lane may have this part of the room that is left: the dynamic threshold of shared-memory switches (Choudhury and Hahne,
/// 1998), which leaves room for whoever comes next.
const SHARE: usize = 16;

/// What a fact means for the frontier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// The work that came to an end, for now or for good.
    pub ended: Option<Key>,
    /// Where something is open now.
    pub opened: Vec<Opened>,
}

/// The frontier's counters: `lent` is what was given out, `waiting` the lanes that have more which is due.
pub fn stage(pulse: &Pulse) -> Arc<Stage> {
    pulse.stage("frontier")
}

/// The ledger as one worker gives out what it holds.
pub struct Lender {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// How much is given out at once (`ahead_max`), and of one lane (`ahead_per_host`).
    pub crawl: Live<CrawlSettings>,
    /// Whether settled pages are looked at again, and what ended badly is tried nevertheless.
    pub again: bool,
}

/// Gives out work.
pub trait GiveOut<'s> {
    /// Gives out what the ledger of `lender` holds open. `lender` is `None` on all workers but the first.
    fn give_out(self, lender: Option<Lender>, bridge: &Bridge) -> Flow<'s, Work>;
}

/// What the ledger was asked, and what it said.
enum Answer {
    Lanes(Vec<Opened>),
    Work(Vec<Claimed>),
}

impl<'s> GiveOut<'s> for Flow<'s, News> {
    fn give_out(self, lender: Option<Lender>, bridge: &Bridge) -> Flow<'s, Work> {
        let (scope, bridge) = (self.scope(), bridge.clone());
        self.unary(Exchange::new(|_: &News| 0), "frontier", move |capability, info| {
            let operator = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
            let mut alarm = Alarm::new(&bridge, Arc::clone(&operator));
            let mut flight = Flight::new(&bridge, "frontier", operator);
            let mut held = lender.is_some().then_some(capability);
            let mut lent = lender.map(|lender| {
                let frontier = Frontier::new(&lender, stage(&bridge.pulse));
                let again = lender.again;
                ask(&mut flight, &lender.ledger, move |ledger| {
                    let mut lanes = Vec::new();
                    ledger.lanes(again, &mut |lane| lanes.push(lane))?;
                    Ok(Answer::Lanes(lanes))
                });
                (lender.ledger, lender.crawl, frontier)
            });
            move |input, output| {
                let now = bridge.clock.now();
                input.for_each_time(|time, data| {
                    let Some((.., frontier)) = lent.as_mut() else { return };
                    for news in data.flat_map(|batch| batch.drain(..)) {
                        frontier.hear(news, now);
                    }
                    // What this opened is due from here on, wherever the next retry is.
                    let is_earlier = held.as_ref().is_none_or(|held| held.time() > time.time());
                    if is_earlier && bridge.pulse.mode() == Mode::Running {
                        held = Some(time.retain(output.output_index()));
                    }
                });
                let Some((ledger, crawl, frontier)) = lent.as_mut() else { return };
                frontier.limit(&crawl.get());
                while let Some(((), answer)) = flight.land() {
                    match (answer, &held) {
                        (Ok(Answer::Lanes(lanes)), _) => {
                            lanes.into_iter().for_each(|lane| frontier.open(lane, now));
                        }
                        (Ok(Answer::Work(claimed)), Some(capability)) => {
                            let work = claimed.into_iter().flat_map(|claimed| frontier.lend(claimed, now));
                            output.session(capability).give_iterator(work.collect::<Vec<_>>().into_iter());
                        }
                        // The process drains.
                        (Ok(Answer::Work(_)), None) => {}
                        (Err(fault), _) => bridge.pulse.fail(fault.detail),
                    }
                }
                if bridge.pulse.mode() != Mode::Running {
                    held = None;
                }
                let Some(capability) = held.as_mut() else { return };
                frontier.wake(now);
                let asks = if flight.count() == 0 { frontier.asks() } else { vec![] };
                if !asks.is_empty() {
                    ask(&mut flight, ledger, move |ledger| Ok(Answer::Work(ledger.claim(now, &asks)?)));
                }
                let next = frontier.next_due();
                if flight.count() > 0 || frontier.is_behind() {
                    capability.downgrade(&now.max(*capability.time()));
                } else if let Some(due) = next {
                    capability.downgrade(&due.max(*capability.time()));
                } else {
                    held = None;
                }
                if let Some(due) = next {
                    alarm.wake_at(due);
                }
            }
        })
    }
}

/// Asks the ledger on a blocking thread.
fn ask<Q>(flight: &mut Flight<(), Answer>, ledger: &Arc<dyn Ledger>, question: Q)
where
    Q: FnOnce(&dyn Ledger) -> Result<Answer, LedgerError> + Send + 'static,
{
    let ledger = Arc::clone(ledger);
    let failed = |error: LedgerError| Fault::transient(Class::Store, "ledger", error.to_string());
    flight.start((), 1, blocking(move || question(ledger.as_ref()).map_err(failed)));
}

/// The lanes that have something, and what of it was given out.
struct Frontier {
    max: usize,
    per_lane: usize,
    again: bool,
    lanes: HashMap<Lane, LaneState>,
    lent: HashMap<Key, Lane>,
    /// Lanes that wait to be asked.
    turns: VecDeque<Lane>,
    /// Lanes whose next work is not due yet.
    later: BTreeSet<(Time, Lane)>,
    /// Lanes that have something due and have been given their share.
    full: usize,
    stage: Arc<Stage>,
}

struct LaneState {
    held: Vec<Key>,
    /// When the first of what the ledger holds for it is due; `None` if there is nothing.
    next: Option<Time>,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It has nothing to give.
    Idle,
    /// In `turns`.
    Turn,
    /// Being asked.
    Asked,
    /// In `later`.
    Later(Time),
    /// It has work, and no room.
    Full,
}

impl Frontier {
    fn new(lender: &Lender, stage: Arc<Stage>) -> Self {
        Self {
            max: 0,
            per_lane: 0,
            again: lender.again,
            lanes: HashMap::new(),
            lent: HashMap::new(),
            turns: VecDeque::new(),
            later: BTreeSet::new(),
            full: 0,
            stage,
        }
    }

    /// Gives out so much from here on.
    fn limit(&mut self, crawl: &CrawlSettings) {
        (self.max, self.per_lane) = (crawl.ahead_max, crawl.ahead_per_host);
    }

    fn hear(&mut self, news: News, now: Time) {
        for opened in news.opened {
            self.open(opened, now);
        }
        let Some(lane) = news.ended.and_then(|key| self.lent.remove(&key)) else { return };
        self.count();
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.held.retain(|key| Some(*key) != news.ended);
            self.put(lane, now);
        }
    }

    fn open(&mut self, Opened { lane, due, again }: Opened, now: Time) {
        if again && !self.again {
            return;
        }
        let state = self.lanes.entry(lane).or_insert(LaneState { held: vec![], next: None, place: Place::Idle });
        state.next = Some(state.next.map_or(due, |next| next.min(due)));
        self.put(lane, now);
    }

    /// Takes in what a lane gave. Returns the work.
    fn lend(&mut self, claimed: Claimed, now: Time) -> Vec<Work> {
        let Claimed { lane, work, next } = claimed;
        if self.lanes.get(&lane).is_none_or(|state| state.place != Place::Asked) {
            // It was not asked, and has something all the same.
            if let Some(due) = next {
                self.open(Opened { lane, due, again: self.again }, now);
            }
        } else if let Some(state) = self.lanes.get_mut(&lane) {
            state.held.extend(work.iter().map(Work::key));
            self.lent.extend(work.iter().map(|work| (work.key(), lane)));
            // What was opened since it was asked may be more than what it says is left.
            state.next = [state.next, next].into_iter().flatten().min();
            state.place = Place::Idle;
            self.put(lane, now);
        }
        self.count();
        work
    }

    /// Puts a lane where it belongs.
    fn put(&mut self, lane: Lane, now: Time) {
        let lane_max = self.lane_max(lane);
        let Some(state) = self.lanes.get_mut(&lane) else { return };
        match state.place {
            // Its turn comes, or its answer.
            Place::Turn | Place::Asked => return,
            Place::Later(due) => drop(self.later.remove(&(due, lane))),
            Place::Full => self.full -= 1,
            Place::Idle => {}
        }
        state.place = match state.next {
            None => Place::Idle,
            Some(due) if due > now => Place::Later(due),
            Some(_) if state.held.len() >= lane_max => Place::Full,
            Some(_) => Place::Turn,
        };
        match state.place {
            Place::Turn => self.turns.push_back(lane),
            Place::Later(due) => drop(self.later.insert((due, lane))),
            Place::Full => self.full += 1,
            Place::Idle if state.held.is_empty() => drop(self.lanes.remove(&lane)),
            Place::Idle | Place::Asked => {}
        }
        self.count();
    }

    /// Lanes whose time has come take their turn.
    fn wake(&mut self, now: Time) {
        while let Some((due, lane)) = self.later.first().copied().filter(|(due, _)| *due <= now) {
            self.later.remove(&(due, lane));
            if let Some(state) = self.lanes.get_mut(&lane) {
                state.place = Place::Idle;
                self.put(lane, now);
            }
        }
    }

    /// What a lane may have at once. Pictures whose detection is repeated burden no host.
    fn lane_max(&self, lane: Lane) -> usize {
        if lane == FRAMES { self.max } else { self.per_lane }
    }

    /// What to ask for now: of each lane in turn as much as its share of the room allows.
    fn asks(&mut self) -> Vec<Ask> {
        let mut room = self.max.saturating_sub(self.lent.len());
        let (mut asks, mut looked) = (Vec::new(), 0);
        while asks.len() < ASKED_MAX && looked < self.turns.len() && room > 0 {
            let Some(lane) = self.turns.pop_front() else { break };
            let lane_max = self.lane_max(lane);
            let Some(state) = self.lanes.get_mut(&lane) else { continue };
            let share = (room / SHARE).clamp(1, lane_max);
            let max = share.saturating_sub(state.held.len()).min(room);
            if max == 0 {
                self.turns.push_back(lane);
                looked += 1;
                continue;
            }
            room -= max;
            state.place = Place::Asked;
            // Whatever is opened from here on is news.
            state.next = None;
            asks.push(Ask { lane, max, held: state.held.clone(), again: self.again });
        }
        self.count();
        asks
    }

    /// Whether something is due that was not given out.
    fn is_behind(&self) -> bool {
        !self.turns.is_empty() || self.full > 0
    }

    /// When the next lane that has nothing due has something.
    fn next_due(&self) -> Option<Time> {
        self.later.first().map(|(due, _)| *due)
    }

    fn count(&self) {
        self.stage.lent.store(self.lent.len(), Relaxed);
        self.stage.waiting.store(self.turns.len() + self.full, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use faceflow_core::record::{Page, lane};
    use url::Url;

    use super::*;

    fn page(host: usize, n: usize) -> Work {
        let url = Url::parse(&format!("http://h{host}.example/{n}")).expect("a URL");
        Work::Page(Page::start(url))
    }

    fn lane_of(host: usize) -> Lane {
        let Work::Page(page) = page(host, 0) else { unreachable!("it is a page") };
        lane(&page.url)
    }

    fn opened(lane: Lane, due: Time) -> Opened {
        Opened { lane, due, again: false }
    }

    fn frontier(max: usize, per_lane: usize) -> Frontier {
        Frontier {
            max,
            per_lane,
            again: false,
            lanes: HashMap::new(),
            lent: HashMap::new(),
            turns: VecDeque::new(),
            later: BTreeSet::new(),
            full: 0,
            stage: Arc::default(),
        }
    }

    /// Hosts with as much work as anyone may ask, all due.
    fn give(frontier: &mut Frontier, hosts: &HashMap<Lane, usize>, given: &mut HashMap<usize, Vec<Key>>) -> usize {
        let mut all = 0;
        for ask in frontier.asks() {
            let host = hosts[&ask.lane];
            let of_host = given.entry(host).or_default();
            let work: Vec<Work> = (0..ask.max).map(|n| page(host, of_host.len() + n)).collect();
            assert!(work.iter().all(|work| !ask.held.contains(&work.key())));
            of_host.extend(work.iter().map(Work::key));
            all += frontier.lend(Claimed { lane: ask.lane, work, next: Some(0) }, 0).len();
        }
        all
    }

    #[test]
    fn greedy_lanes_leave_room_for_whoever_comes_next() {
        let mut frontier = frontier(1_000, 1_000);
        let (hosts, mut given): (HashMap<Lane, usize>, _) =
            ((0..50).map(|host| (lane_of(host), host)).collect(), HashMap::new());
        for host in 0..40 {
            frontier.open(opened(lane_of(host), 0), 0);
        }
        while give(&mut frontier, &hosts, &mut given) > 0 {}
        assert!(given.len() == 40 && given.values().all(|keys| !keys.is_empty()), "all of them have some");
        assert!(frontier.is_behind() && frontier.lent.len() < 1_000, "{} of 1000", frontier.lent.len());
        frontier.open(opened(lane_of(45), 0), 0);
        while give(&mut frontier, &hosts, &mut given) > 0 {}
        assert!(!given[&45].is_empty());
        // Who has ended everything may have its share again.
        let ended = std::mem::take(given.get_mut(&3).expect("it has some"));
        for key in &ended {
            frontier.hear(News { ended: Some(*key), opened: vec![] }, 0);
        }
        while give(&mut frontier, &hosts, &mut given) > 0 {}
        assert!(given[&3].len() >= ended.len().min(2), "{} after {}", given[&3].len(), ended.len());
    }

    #[test]
    fn a_lane_has_its_limit_and_comes_back_when_something_ends() {
        let mut frontier = frontier(1_000, 4);
        let (hosts, mut given) = (HashMap::from([(lane_of(0), 0)]), HashMap::new());
        frontier.open(opened(lane_of(0), 0), 0);
        assert_eq!(give(&mut frontier, &hosts, &mut given), 4);
        assert_eq!((frontier.asks(), frontier.is_behind()), (vec![], true));
        frontier.hear(News { ended: Some(given[&0][1]), opened: vec![] }, 0);
        assert_eq!(give(&mut frontier, &hosts, &mut given), 1);
        let unknown = page(9, 9).key();
        frontier.hear(News { ended: Some(unknown), opened: vec![] }, 0);
        assert_eq!(give(&mut frontier, &hosts, &mut given), 0);
        // Another limit holds as soon as the lane moves.
        frontier.limit(&CrawlSettings { ahead_max: 1_000, ahead_per_host: 6, ..CrawlSettings::default() });
        frontier.hear(News { ended: Some(given[&0][2]), opened: vec![] }, 0);
        assert_eq!(give(&mut frontier, &hosts, &mut given), 3);
    }

    #[test]
    fn what_is_due_later_waits_and_the_frontier_says_when() {
        let mut frontier = frontier(10, 10);
        frontier.open(opened(7, 50), 10);
        frontier.open(opened(8, 90), 10);
        frontier.open(opened(7, 60), 10);
        assert_eq!((frontier.asks(), frontier.is_behind(), frontier.next_due()), (vec![], false, Some(50)));
        frontier.wake(49);
        assert_eq!(frontier.asks(), []);
        frontier.wake(50);
        let asks = frontier.asks();
        assert_eq!((asks.len(), asks[0].lane, frontier.next_due()), (1, 7, Some(90)));
        // News that come while it is asked are not lost, whatever the answer knew.
        frontier.open(opened(7, 55), 50);
        frontier.lend(Claimed { lane: 7, work: vec![], next: Some(60) }, 51);
        assert_eq!(frontier.next_due(), Some(55));
        frontier.wake(100);
        for ask in frontier.asks() {
            frontier.lend(Claimed { lane: ask.lane, work: vec![], next: None }, 100);
        }
        assert!(frontier.lanes.is_empty() && frontier.next_due().is_none() && !frontier.is_behind());
    }
}
