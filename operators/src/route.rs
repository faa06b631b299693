//! `route`: brings pages and images to the worker that asks the web for them.
//!
//! Politeness lives in the web client, which the workers of one process share. So in a cluster each address, with all hosts that
//! are there, has one process that asks it; within a process the hosts are spread over its workers. A process alone has every
//! address, and nothing is looked up.
//!
//! Promises: all work of a host goes to one worker for as long as work for it keeps coming, whatever its name servers say
//! meanwhile; and what cannot be looked up is routed all the same.

use std::collections::HashMap;
use std::sync::Arc;

use faceflow_core::bridge::{Bridge, Flight};
use faceflow_core::pulse::Mode;
use faceflow_core::record::{Frame, Image, Lane, Page, Work, lane};
use faceflow_core::{Flow, Time};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Exchange as _;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::Map;
use url::Url;

use crate::web::Web;

/// A host for which no work has come for so long is looked up anew, in milliseconds.
const IDLE_MS: Time = 600_000;
/// Hosts remembered before those without work are forgotten.
const HOSTS_MAX: usize = 10_000;

/// What is asked of the web.
type Ask = Result<Page, Image>;

/// Sorts work, and brings what asks the web to where that is done.
pub trait Route<'s> {
    /// Tells pages, images and frames apart. Pages and images go to the one of so many `processes` that has the place of their
    /// host in `web`; frames stay.
    fn route(
        self,
        web: Arc<dyn Web>,
        processes: usize,
        bridge: &Bridge,
    ) -> (Flow<'s, Page>, Flow<'s, Image>, Flow<'s, Frame>);
}

impl<'s> Route<'s> for Flow<'s, Work> {
    fn route(
        self,
        web: Arc<dyn Web>,
        processes: usize,
        bridge: &Bridge,
    ) -> (Flow<'s, Page>, Flow<'s, Image>, Flow<'s, Frame>) {
        let (asks, frames): (Flow<'s, Ask>, _) = self.ok_err(|work| match work {
            Work::Page(page) => Ok(Ok(page)),
            Work::Image(image) => Ok(Err(image)),
            Work::Frame(frame) => Err(frame),
        });
        let workers = Workers::new(asks.scope().worker().peers(), processes);
        let asks = match processes {
            1 => asks.exchange(move |ask| workers.by_lane(lane(url(ask)))),
            _ => by_place(asks, web, workers, bridge),
        };
        let (pages, images) = asks.ok_err(|ask| ask);
        (pages, images, frames)
    }
}

fn url(ask: &Ask) -> &Url {
    match ask {
        Ok(page) => &page.url,
        Err(image) => &image.url,
    }
}

/// Looks up where hosts are, each at the worker that has its lane, and sends what asks them there.
fn by_place<'s>(asks: Flow<'s, Ask>, web: Arc<dyn Web>, workers: Workers, bridge: &Bridge) -> Flow<'s, Ask> {
    let (scope, bridge) = (asks.scope(), bridge.clone());
    let by_lane = Exchange::new(move |ask: &Ask| workers.by_lane(lane(url(ask))));
    let routed = asks.unary(by_lane, "route", move |_, info| {
        let operator = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
        let (mut flight, mut places) = (Flight::new(&bridge, "route", operator), Places::new());
        move |input, output| {
            let now = bridge.clock.now();
            input.for_each_time(|time, data| {
                let port = output.output_index();
                let mut session = output.session(&time);
                for ask in data.flat_map(|batch| batch.drain(..)) {
                    let (url, lane) = (url(&ask), lane(url(&ask)));
                    if !matches!(url.scheme(), "http" | "https") {
                        session.give((workers.by_lane(lane), ask));
                    } else if let Some(place) = places.get(lane, now) {
                        session.give((workers.by_place(place, lane), ask));
                    } else {
                        let url = url.clone();
                        let is_first = places.wait(lane, (time.retain(port), ask));
                        if is_first && bridge.pulse.mode() == Mode::Running {
                            let place = web.place(&url);
                            flight.start(lane, 1, async { Ok(place.await) });
                        }
                    }
                }
            });
            while let Some((lane, place)) = flight.land() {
                // What cannot be found goes by its lane, and stays there like any other: the lookup of whoever asks may succeed.
                let place = place.ok().flatten().unwrap_or(lane);
                let worker = workers.by_place(place, lane);
                for (capability, ask) in places.settle(lane, place, now) {
                    output.session(&capability).give((worker, ask));
                }
            }
        }
    });
    routed.exchange(|(worker, _)| *worker).map(|(_, ask)| ask)
}

/// The workers of all processes.
#[derive(Clone, Copy, Debug)]
struct Workers {
    processes: u64,
    in_each: u64,
}

impl Workers {
    fn new(peers: usize, processes: usize) -> Self {
        let processes = processes.max(1);
        Self { processes: processes as u64, in_each: (peers / processes).max(1) as u64 }
    }

    /// The worker for a host at this place: the place says in which process, the lane which one there.
    fn by_place(self, place: u64, lane: Lane) -> u64 {
        place % self.processes * self.in_each + lane / self.processes % self.in_each
    }

    /// The worker for a host that has no place, and the one that looks up places of this lane.
    fn by_lane(self, lane: Lane) -> u64 {
        self.by_place(lane, lane)
    }
}

/// Where hosts are that have work, as one worker knows.
struct Places<W> {
    hosts: HashMap<Lane, Host<W>>,
    /// How many hosts there may be before those without work are forgotten.
    sweep_at: usize,
}

enum Host<W> {
    /// At this place; and when work for it came last.
    At(u64, Time),
    /// Being looked up, while this waits.
    Sought(Vec<W>),
}

impl<W> Places<W> {
    fn new() -> Self {
        Self { hosts: HashMap::new(), sweep_at: HOSTS_MAX }
    }

    /// The place of a host for which there is work now, if it is known.
    fn get(&mut self, lane: Lane, now: Time) -> Option<u64> {
        match self.hosts.get_mut(&lane)? {
            Host::At(place, last) if now < *last + IDLE_MS => {
                *last = now;
                Some(*place)
            }
            _ => None,
        }
    }

    /// Has work wait for the place of its host. Whether it is the first that does.
    fn wait(&mut self, lane: Lane, work: W) -> bool {
        match self.hosts.get_mut(&lane) {
            Some(Host::Sought(waiting)) => {
                waiting.push(work);
                false
            }
            _ => {
                self.hosts.insert(lane, Host::Sought(vec![work]));
                true
            }
        }
    }

    /// Takes in where a host is. Returns what has waited for it.
    fn settle(&mut self, lane: Lane, place: u64, now: Time) -> Vec<W> {
        let host = self.hosts.insert(lane, Host::At(place, now));
        if self.hosts.len() >= self.sweep_at {
            self.hosts.retain(|_, host| !matches!(host, Host::At(_, last) if now >= *last + IDLE_MS));
            // Doubling the distance to the next sweep keeps the cost per host constant when few are idle.
            self.sweep_at = HOSTS_MAX.max(2 * self.hosts.len());
        }
        match host {
            Some(Host::Sought(waiting)) => waiting,
            _ => vec![],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use faceflow_core::testing::{EPOCH, simulate};
    use faceflow_core::{Fault, Future};
    use timely::dataflow::operators::{Concat, Probe, ToStream};

    use super::*;
    use crate::web::{Response, Want};

    #[test]
    fn a_place_chooses_the_process_and_its_hosts_spread_over_the_workers_there() {
        let workers = Workers::new(6, 3);
        let chosen: Vec<_> = (0..12).map(|lane| workers.by_place(7, lane)).collect();
        assert!(chosen.iter().all(|worker| [2, 3].contains(worker)), "{chosen:?}");
        assert_eq!(chosen.iter().filter(|worker| **worker == 2).count(), 6);
        let mut all: Vec<_> = (0..6).map(|lane| workers.by_lane(lane)).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4, 5], "without a place they spread over all");
        let alone = Workers::new(4, 1);
        assert!((0..9).all(|lane| alone.by_lane(lane) == lane % 4 && alone.by_place(77, lane) == lane % 4));
    }

    #[test]
    fn a_host_keeps_its_place_while_work_comes_and_is_looked_up_anew_after_a_pause() {
        let mut places = Places::new();
        assert_eq!(places.get(1, 0), None);
        assert!(places.wait(1, "a") && !places.wait(1, "b") && places.wait(2, "c"));
        assert_eq!(places.get(1, 5), None, "it is being looked up");
        assert_eq!(places.settle(1, 9, 10), ["a", "b"]);
        for now in (10..20 * IDLE_MS).step_by(IDLE_MS as usize - 1) {
            assert_eq!(places.get(1, now), Some(9));
        }
        assert_eq!(places.settle(2, 2, 10), ["c"]);
        assert_eq!(places.get(2, 11), Some(2));
        assert_eq!((places.get(1, 22 * IDLE_MS), places.wait(1, "e")), (None, true));
    }

    #[test]
    fn idle_hosts_are_forgotten() {
        let mut places = Places::new();
        for lane in 0..5 * HOSTS_MAX as u64 {
            // Each comes a second after the one before.
            assert!(places.wait(lane, ()));
            places.settle(lane, 1, 1_000 * lane);
            assert!(places.hosts.len() <= HOSTS_MAX);
        }
        let now = 5_000 * HOSTS_MAX as u64;
        assert_eq!(places.get(5 * HOSTS_MAX as u64 - 1, now), Some(1));
    }

    /// Knows where hosts are once their digit has passed in seconds; one is nowhere, and to look for one is a bug.
    struct Atlas(Arc<Mutex<Vec<String>>>);

    impl Web for Atlas {
        fn get(&self, url: &Url, _: Want) -> Future<Result<Response, Fault>> {
            panic!("{url} is not asked for");
        }

        fn place(&self, url: &Url) -> Future<Option<u64>> {
            let host = url.host_str().expect("it is on the web").to_owned();
            self.0.lock().expect("not poisoned").push(host.clone());
            Box::pin(async move {
                let digit = host[1..2].parse().expect("a digit");
                tokio::time::sleep(Duration::from_secs(digit)).await;
                assert_ne!(digit, 4, "a bug");
                (digit != 3).then_some(digit)
            })
        }
    }

    #[test]
    fn everything_comes_out_again_each_host_is_looked_up_once_and_none_waits_for_another() {
        let page = |host: &str, n: usize| Page::start(Url::parse(&format!("http://{host}/{n}")).expect("a URL"));
        let mut work: Vec<_> = (0..12)
            .map(|n| Work::Page(page(["h1.example", "h2.example", "h3.example", "h4.example"][n % 4], n)))
            .collect();
        let image = |url: &str| Image {
            url: Url::parse(url).expect("a URL"),
            page: Url::parse("http://h1.example/").expect("a URL"),
            site: Url::parse("http://h1.example/").expect("a URL"),
            attempts: 0,
            inline: None,
            spared: 0,
            alternates: vec![],
            version: None,
        };
        work.extend(["http://h2.example/i.jpg", "data:sha256,77", "file:///a.jpg"].map(|url| Work::Image(image(url))));
        let (came, asked) = (Arc::new(Mutex::new(vec![])), Arc::new(Mutex::new(vec![])));
        let (log, atlas) = (Arc::clone(&came), Arc::new(Atlas(Arc::clone(&asked))));
        simulate(10_000, move |scope, bridge| {
            let (pages, images, frames) = work.to_stream(scope).container::<Vec<_>>().route(atlas, 2, bridge);
            let urls = pages.map(|page| page.url).concat(images.map(|image| image.url));
            let (clock, frames) = (Arc::clone(&bridge.clock), frames.map(|frame| panic!("{frame:?}")));
            let note = move |url: Url| log.lock().expect("not poisoned").push((clock.now() - EPOCH, url.to_string()));
            urls.map(note).concat(frames).probe().0
        });
        let mut came = came.lock().expect("not poisoned").clone();
        came.sort();
        let expected = [
            (0, "data:sha256,77"),
            (0, "file:///a.jpg"),
            (1_000, "http://h1.example/0"),
            (1_000, "http://h1.example/4"),
            (1_000, "http://h1.example/8"),
            (2_000, "http://h2.example/1"),
            (2_000, "http://h2.example/5"),
            (2_000, "http://h2.example/9"),
            (2_000, "http://h2.example/i.jpg"),
            (3_000, "http://h3.example/10"),
            (3_000, "http://h3.example/2"),
            (3_000, "http://h3.example/6"),
            (4_000, "http://h4.example/11"),
            (4_000, "http://h4.example/3"),
            (4_000, "http://h4.example/7"),
        ];
        assert_eq!(came, expected.map(|(at, url)| (at, url.to_owned())));
        let mut asked = asked.lock().expect("not poisoned").clone();
        asked.sort();
        assert_eq!(asked, ["h1.example", "h2.example", "h3.example", "h4.example"]);
    }
}
