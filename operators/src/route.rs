//! `route`: sends pages and images to the worker that owns the address of their host.
//!
//! Politeness lives in the web gate, which the workers of one process share. So in a cluster each address, with all hosts that
//! are there, has one process that requests it; within a process the hosts are spread over its workers. A process alone has every
//! address, and nothing is looked up.
//!
//! Promises: all work of a host goes to one worker for as long as work for it keeps coming, whatever its name servers say
//! meanwhile; and what cannot be looked up is routed all the same.

use std::collections::HashMap;
use std::sync::Arc;

use faceflow_core::executor::Executor;
use faceflow_core::in_flight::InFlight;
use faceflow_core::record::{Frame, Image, Page, Work, queue_of};
use faceflow_core::shutdown::Mode;
use faceflow_core::{Flow, Time};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Exchange as _;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::Map;
use url::Url;

use faceflow_web::Web;

/// A host for which no work has come for so long is looked up anew, in milliseconds.
const IDLE_MS: Time = 600_000;
/// Hosts remembered before those without work are forgotten.
const HOSTS_MAX: usize = 10_000;

/// A request to the web.
type Request = Result<Page, Image>;

/// Sorts work, and sends requests to the process that owns their address.
pub trait Route<'s> {
    /// Tells pages, images and frames apart. Pages and images go to the one of so many `processes` that has the address of their
    /// host in `web`; frames stay.
    fn route(
        self,
        web: Arc<dyn Web>,
        processes: usize,
        executor: &Executor,
    ) -> (Flow<'s, Page>, Flow<'s, Image>, Flow<'s, Frame>);
}

impl<'s> Route<'s> for Flow<'s, Work> {
    fn route(
        self,
        web: Arc<dyn Web>,
        processes: usize,
        executor: &Executor,
    ) -> (Flow<'s, Page>, Flow<'s, Image>, Flow<'s, Frame>) {
        let (requests, frames): (Flow<'s, Request>, _) = self.ok_err(|work| match work {
            Work::Page(page) => Ok(Ok(page)),
            Work::Image(image) => Ok(Err(image)),
            Work::Frame(frame) => Err(frame),
        });
        let workers = Workers::new(requests.scope().worker().peers(), processes);
        let requests = match processes {
            1 => requests.exchange(move |request| workers.by_queue(queue_of(url(request)))),
            _ => by_address(requests, web, workers, executor),
        };
        let (pages, images) = requests.ok_err(|request| request);
        (pages, images, frames)
    }
}

fn url(request: &Request) -> &Url {
    match request {
        Ok(page) => &page.url,
        Err(image) => &image.url,
    }
}

/// Looks up where hosts are, each at the worker that has its queue, and sends what requests them there.
fn by_address<'s>(
    requests: Flow<'s, Request>,
    web: Arc<dyn Web>,
    workers: Workers,
    executor: &Executor,
) -> Flow<'s, Request> {
    let (scope, executor) = (requests.scope(), executor.clone());
    let by_queue = Exchange::new(move |request: &Request| workers.by_queue(queue_of(url(request))));
    let routed = requests.unary(by_queue, "route", move |_, info| {
        let operator = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
        let (mut in_flight, mut addresses) = (InFlight::new(&executor, "route", operator), Addresses::new());
        move |input, output| {
            let now = executor.clock.now();
            input.for_each_time(|time, data| {
                let port = output.output_index();
                let mut session = output.session(&time);
                for request in data.flat_map(|batch| batch.drain(..)) {
                    let (url, queue) = (url(&request), queue_of(url(&request)));
                    if !matches!(url.scheme(), "http" | "https") {
                        session.give((workers.by_queue(queue), request));
                    } else if let Some(address) = addresses.get(queue, now) {
                        session.give((workers.by_address(address, queue), request));
                    } else {
                        let url = url.clone();
                        let is_first = addresses.wait(queue, (time.retain(port), request));
                        if is_first && executor.shutdown.mode() == Mode::Running {
                            let address = web.address_hash(&url);
                            in_flight.start(queue, 1, async { Ok(address.await) });
                        }
                    }
                }
            });
            while let Some((queue, address)) = in_flight.next_done() {
                // What cannot be found goes by its queue, and stays there like any other: the lookup of whoever requests may succeed.
                let address = address.ok().flatten().unwrap_or(queue);
                let worker = workers.by_address(address, queue);
                for (capability, request) in addresses.settle(queue, address, now) {
                    output.session(&capability).give((worker, request));
                }
            }
        }
    });
    routed.exchange(|(worker, _)| *worker).map(|(_, request)| request)
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

    /// The worker for a host at this address: the address says in which process, the queue which one there.
    fn by_address(self, address: u64, queue: u64) -> u64 {
        address % self.processes * self.in_each + queue / self.processes % self.in_each
    }

    /// The worker for a host that has no address, and the one that looks up addresses of this queue.
    fn by_queue(self, queue: u64) -> u64 {
        self.by_address(queue, queue)
    }
}

/// Where hosts are that have work, as one worker knows.
struct Addresses<W> {
    hosts: HashMap<u64, Host<W>>,
    /// How many hosts there may be before those without work are forgotten.
    sweep_at: usize,
}

enum Host<W> {
    /// At this address; and when work for it came last.
    At(u64, Time),
    /// Being looked up, while this waits.
    Sought(Vec<W>),
}

impl<W> Addresses<W> {
    fn new() -> Self {
        Self { hosts: HashMap::new(), sweep_at: HOSTS_MAX }
    }

    /// The address of a host for which there is work now, if it is known.
    fn get(&mut self, queue: u64, now: Time) -> Option<u64> {
        match self.hosts.get_mut(&queue)? {
            Host::At(address, last) if now < *last + IDLE_MS => {
                *last = now;
                Some(*address)
            }
            _ => None,
        }
    }

    /// Has work wait for the address of its host. Whether it is the first that does.
    fn wait(&mut self, queue: u64, work: W) -> bool {
        match self.hosts.get_mut(&queue) {
            Some(Host::Sought(waiting)) => {
                waiting.push(work);
                false
            }
            _ => {
                self.hosts.insert(queue, Host::Sought(vec![work]));
                true
            }
        }
    }

    /// Takes in where a host is. Returns what has waited for it.
    fn settle(&mut self, queue: u64, address: u64, now: Time) -> Vec<W> {
        let host = self.hosts.insert(queue, Host::At(address, now));
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

    use faceflow_core::record::JobId;
    use faceflow_core::testing::{EPOCH, simulate};
    use faceflow_core::{Fault, Future};
    use timely::dataflow::operators::{Concat, Probe, ToStream};

    use super::*;
    use faceflow_web::{Response, Want};

    #[test]
    fn a_place_chooses_the_process_and_its_hosts_spread_over_the_workers_there() {
        let workers = Workers::new(6, 3);
        let chosen: Vec<_> = (0..12).map(|queue| workers.by_address(7, queue)).collect();
        assert!(chosen.iter().all(|worker| [2, 3].contains(worker)), "{chosen:?}");
        assert_eq!(chosen.iter().filter(|worker| **worker == 2).count(), 6);
        let mut all: Vec<_> = (0..6).map(|queue| workers.by_queue(queue)).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4, 5], "without a address they spread over all");
        let alone = Workers::new(4, 1);
        assert!((0..9).all(|queue| alone.by_queue(queue) == queue % 4 && alone.by_address(77, queue) == queue % 4));
    }

    #[test]
    fn a_host_keeps_its_place_while_work_comes_and_is_looked_up_anew_after_a_pause() {
        let mut addresses = Addresses::new();
        assert_eq!(addresses.get(1, 0), None);
        assert!(addresses.wait(1, "a") && !addresses.wait(1, "b") && addresses.wait(2, "c"));
        assert_eq!(addresses.get(1, 5), None, "it is being looked up");
        assert_eq!(addresses.settle(1, 9, 10), ["a", "b"]);
        for now in (10..20 * IDLE_MS).step_by(IDLE_MS as usize - 1) {
            assert_eq!(addresses.get(1, now), Some(9));
        }
        assert_eq!(addresses.settle(2, 2, 10), ["c"]);
        assert_eq!(addresses.get(2, 11), Some(2));
        assert_eq!((addresses.get(1, 22 * IDLE_MS), addresses.wait(1, "e")), (None, true));
    }

    #[test]
    fn idle_hosts_are_forgotten() {
        let mut addresses = Addresses::new();
        for queue in 0..5 * HOSTS_MAX as u64 {
            // Each comes a second after the one before.
            assert!(addresses.wait(queue, ()));
            addresses.settle(queue, 1, 1_000 * queue);
            assert!(addresses.hosts.len() <= HOSTS_MAX);
        }
        let now = 5_000 * HOSTS_MAX as u64;
        assert_eq!(addresses.get(5 * HOSTS_MAX as u64 - 1, now), Some(1));
    }

    /// Resolves hosts once their digit has passed in seconds; one has no address, and one must never be resolved.
    struct Atlas(Arc<Mutex<Vec<String>>>);

    impl Web for Atlas {
        fn get(&self, url: &Url, _: Want) -> Future<Result<Response, Fault>> {
            panic!("{url} is not asked for");
        }

        fn address_hash(&self, url: &Url) -> Future<Option<u64>> {
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
        let page =
            |host: &str, n: usize| Page::start(JobId::FIRST, Url::parse(&format!("http://{host}/{n}")).expect("a URL"));
        let mut work: Vec<_> = (0..12)
            .map(|n| Work::Page(page(["h1.example", "h2.example", "h3.example", "h4.example"][n % 4], n)))
            .collect();
        let image = |url: &str| Image {
            job: JobId::FIRST,
            url: Url::parse(url).expect("a URL"),
            page: Url::parse("http://h1.example/").expect("a URL"),
            site: Url::parse("http://h1.example/").expect("a URL"),
            attempts: 0,
            inline: None,
            uncounted: 0,
            alternates: vec![],
            version: None,
            host: None,
        };
        work.extend(["http://h2.example/i.jpg", "data:sha256,77", "file:///a.jpg"].map(|url| Work::Image(image(url))));
        let (came, asked) = (Arc::new(Mutex::new(vec![])), Arc::new(Mutex::new(vec![])));
        let (log, atlas) = (Arc::clone(&came), Arc::new(Atlas(Arc::clone(&asked))));
        simulate(10_000, move |scope, executor| {
            let (pages, images, frames) = work.to_stream(scope).container::<Vec<_>>().route(atlas, 2, executor);
            let urls = pages.map(|page| page.url).concat(images.map(|image| image.url));
            let (clock, frames) = (Arc::clone(&executor.clock), frames.map(|frame| panic!("{frame:?}")));
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
