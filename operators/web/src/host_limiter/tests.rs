//! Paces and limits on a paused clock.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use faceflow_core::Class;
use url::Url;

fn hosts(change: fn(&mut FetchSettings)) -> Arc<HostLimiter> {
    let mut settings = FetchSettings::default();
    change(&mut settings);
    Arc::new(HostLimiter::new(&settings.into()))
}

fn origin(name: &str) -> Origin {
    Origin::of(&Url::parse(&format!("http://{name}/")).expect(name))
}

fn address(n: u8) -> IpAddr {
    [9, 9, 9, n].into()
}

fn busy() -> Fault {
    Fault::transient(Class::Busy, "http_429", "Too Many Requests")
}

async fn enter(hosts: &HostLimiter, name: &str, ip: u8, delay_ms: u64) -> HostPermit {
    let delay = Duration::from_millis(delay_ms);
    hosts.acquire(&origin(name), address(ip), (delay, &|| Ok(()))).await.expect("nobody is refused")
}

/// When a request to each of these hosts at these addresses started, in milliseconds, each lasting 10 ms.
async fn starts_at(hosts: &HostLimiter, visits: impl IntoIterator<Item = (String, u8)>) -> Vec<u64> {
    let begin = Instant::now();
    let visit = |(name, ip): (String, u8)| async move {
        let _here = enter(hosts, &name, ip, 0).await;
        let start = begin.elapsed().as_millis() as u64;
        tokio::time::sleep(Duration::from_millis(10)).await;
        start
    };
    let mut starts = futures::future::join_all(visits.into_iter().map(visit)).await;
    starts.sort_unstable();
    starts
}

/// When each of `count` requests to one host started, in milliseconds, each lasting `work_ms`.
async fn starts(hosts: &Arc<HostLimiter>, count: usize, (delay_ms, work_ms): (u64, u64)) -> Vec<u64> {
    let begin = Instant::now();
    let request = |_| {
        let hosts = Arc::clone(hosts);
        async move {
            let _here = enter(&hosts, "a.example", 1, delay_ms).await;
            let start = begin.elapsed().as_millis() as u64;
            tokio::time::sleep(Duration::from_millis(work_ms)).await;
            start
        }
    };
    futures::future::join_all((0..count).map(request)).await
}

#[tokio::test(start_paused = true)]
async fn starts_keep_the_longer_of_both_delays() {
    let hosts = hosts(|settings| settings.delay_ms = 200);
    assert_eq!(starts(&hosts, 4, (0, 1)).await, [0, 200, 400, 600]);
    // The last of them still paces the next.
    assert_eq!(starts(&hosts, 3, (1_000, 1)).await, [199, 1_199, 2_199]);
    hosts.settings.set(FetchSettings { delay_ms: 50, ..FetchSettings::default() });
    assert_eq!(starts(&hosts, 3, (0, 1)).await, [999, 1_049, 1_099], "a new delay holds from the next start");
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_limit_at_one_host() {
    let hosts = hosts(|settings| settings.per_host = 2);
    assert_eq!(starts(&hosts, 5, (0, 10)).await, [0, 0, 10, 10, 20]);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_limit_at_one_address_whatever_hosts_are_there() {
    let hosts = hosts(|settings| settings.per_ip = 3);
    let visits = (0..8).map(|n| (format!("h{}.example", n % 4), 1));
    assert_eq!(starts_at(&hosts, visits).await, [0, 0, 0, 10, 10, 10, 20, 20]);
    let elsewhere = (0..8).map(|n| (format!("h{n}.example"), n));
    assert_eq!(starts_at(&hosts, elsewhere).await, [0; 8], "every address has its own");
}

#[tokio::test(start_paused = true)]
async fn starts_at_one_address_keep_its_delay_and_starts_at_one_host_the_hosts() {
    let hosts = hosts(|settings| {
        settings.ip_delay_ms = 100;
        settings.delay_ms = 250;
    });
    let visits = ["a.example", "b.example", "a.example", "c.example"].map(|name| (name.to_owned(), 1));
    assert_eq!(starts_at(&hosts, visits).await, [0, 100, 200, 300], "whoever waits for its host lets others pass");
    hosts.settings.set(FetchSettings { ip_delay_ms: 0, ..FetchSettings::default() });
    let visits = (0..4).map(|n| (format!("h{n}.example"), 1));
    assert_eq!(starts_at(&hosts, visits).await, [90; 4], "a new delay holds from the next start");
}

#[tokio::test(start_paused = true)]
async fn a_long_wait_for_the_address_does_not_bunch_up_starts_at_the_host() {
    let hosts = hosts(|settings| {
        settings.per_ip = 1;
        settings.delay_ms = 30;
    });
    let other = enter(&hosts, "other.example", 1, 0).await;
    let waiting = starts(&hosts, 3, (0, 1));
    tokio::pin!(waiting);
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(other);
    assert_eq!(waiting.await, [500, 530, 560]);
}

#[tokio::test(start_paused = true)]
async fn a_paced_address_holds_no_place_of_another() {
    let hosts = hosts(|settings| {
        settings.concurrency = 1;
        settings.ip_delay_ms = 1_000;
    });
    drop(enter(&hosts, "a.example", 1, 0).await);
    let waiting = enter(&hosts, "b.example", 1, 0);
    tokio::pin!(waiting);
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    let begin = Instant::now();
    drop(enter(&hosts, "c.example", 2, 0).await);
    assert_eq!(begin.elapsed(), Duration::ZERO);
    waiting.await;
    assert_eq!(begin.elapsed(), Duration::from_millis(1_000));
}

#[tokio::test(start_paused = true)]
async fn a_paced_host_holds_no_place_of_another() {
    let hosts = hosts(|settings| {
        settings.concurrency = 1;
        settings.per_ip = 1;
        settings.delay_ms = 1_000;
    });
    drop(enter(&hosts, "slow.example", 1, 0).await);
    let waiting = enter(&hosts, "slow.example", 1, 0);
    tokio::pin!(waiting);
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    let begin = Instant::now();
    drop(enter(&hosts, "b.example", 1, 0).await);
    assert_eq!(begin.elapsed(), Duration::ZERO);
    waiting.await;
    assert_eq!(begin.elapsed(), Duration::from_millis(1_000));
}

#[tokio::test(start_paused = true)]
async fn the_total_limit_holds_over_many_hosts() {
    let hosts = hosts(|settings| settings.concurrency = 3);
    let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let visit = |n: usize| {
        let (hosts, now, most) = (&hosts, &now, &most);
        async move {
            let _here = enter(hosts, &format!("h{n}.example"), n as u8, 0).await;
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            now.fetch_sub(1, SeqCst);
        }
    };
    futures::future::join_all((0..20).map(visit)).await;
    assert_eq!(most.load(SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_host_is_held_back_as_long_as_it_says_and_a_day_at_most() {
    let (hosts, begin) = (hosts(|_| ()), Instant::now());
    let wait = |name| hosts.not_before(&origin(name)).map(|moment| moment - begin);
    hosts.hold_back(&origin("a.example"), 5_000, &busy());
    hosts.hold_back(&origin("a.example"), 1_000, &busy());
    hosts.hold_back(&origin("b.example"), u64::MAX, &busy());
    assert_eq!(wait("a.example"), Some(Duration::from_secs(5)), "a shorter wish takes nothing back");
    assert_eq!(wait("b.example"), Some(Duration::from_millis(HOLD_BACK_MAX_MS)));
    assert_eq!(wait("c.example"), None);
    let refused = hosts.check(&origin("a.example")).expect_err("it rests");
    assert_eq!((refused.fault.reason.as_str(), refused.fault.retry_after_ms), ("http_429", Some(5_000)));
    assert_eq!((hosts.check(&origin("c.example")), hosts.resting_hosts()), (Ok(()), 2));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((wait("a.example"), hosts.check(&origin("a.example"))), (None, Ok(())));
}

#[tokio::test(start_paused = true)]
async fn whoever_waited_for_its_turn_is_refused_at_once_when_the_host_wants_to_rest() {
    let hosts = hosts(|settings| (settings.per_host, settings.delay_ms) = (1, 1_000));
    let (name, begin) = (origin("a.example"), Instant::now());
    let ask = || async {
        let check = || hosts.check(&name);
        hosts.acquire(&name, address(1), (Duration::ZERO, &check)).await.map_err(|failure| failure.fault.retry_after_ms)
    };
    let first = ask().await.expect("it is its turn");
    let waiting = futures::future::join_all((0..3).map(|_| ask()));
    tokio::pin!(waiting);
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    hosts.hold_back(&name, 5_000, &busy());
    drop(first);
    let refused: Vec<_> = waiting.await.into_iter().map(|asked| asked.err().flatten()).collect();
    assert_eq!((refused, begin.elapsed()), (vec![Some(5_000); 3], Duration::ZERO), "each has its turn and no pause");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(ask().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn hosts_that_are_held_back_are_forgotten_last() {
    let hosts = hosts(|settings| settings.hosts_max = 10);
    let host = |n: usize| origin(&format!("h{n}.example"));
    (0..5).for_each(|n| hosts.hold_back(&host(n), 60_000, &busy()));
    for n in 0..100 {
        drop(enter(&hosts, &format!("idle{n}.example"), 1, 0).await);
    }
    assert!((0..5).all(|n| hosts.not_before(&host(n)).is_some()));
    (5..100).for_each(|n| hosts.hold_back(&host(n), 60_000, &busy()));
    assert!(lock(&hosts.hosts).known.len() <= 10 && hosts.not_before(&host(99)).is_some());
}

#[tokio::test(start_paused = true)]
async fn idle_hosts_are_forgotten_and_busy_or_paced_ones_are_not() {
    let hosts = hosts(|settings| {
        settings.hosts_max = 10;
        settings.delay_ms = 1_000;
        settings.ip_delay_ms = 1_000;
    });
    let busy = enter(&hosts, "busy.example", 100, 0).await;
    for n in 0..9 {
        drop(enter(&hosts, &format!("old{n}.example"), n, 0).await);
    }
    tokio::time::sleep(Duration::from_millis(1_001)).await;
    drop(enter(&hosts, "paced.example", 101, 0).await);
    let known = |name| lock(&hosts.hosts).known.contains_key(&origin(name));
    assert!(known("busy.example") && known("paced.example") && !known("old0.example") && !known("old8.example"));
    let known = |n| lock(&hosts.addresses).known.contains_key(&address(n));
    assert!(known(100) && known(101) && !known(0) && !known(8));
    drop(busy);
}
