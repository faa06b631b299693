use faceflow_core::record::Page;
use url::Url;

use super::*;
use crate::jobs::JobScope;
use crate::jobs::tests::{one_tenant, settings};

fn page(host: usize, n: usize) -> Work {
    let url = Url::parse(&format!("http://h{host}.example/{n}")).expect("a URL");
    Work::Page(Page::start(JobId::FIRST, url))
}

fn queue_of_host(host: usize) -> QueueId {
    let Work::Page(page) = page(host, 0) else { unreachable!("it is a page") };
    QueueId::of(page.job, &page.url)
}

fn host(host: u64) -> QueueId {
    QueueId { job: JobId::FIRST, host }
}

fn opened(queue: QueueId, due: Time) -> QueueUpdate {
    QueueUpdate { queue, due, again: false }
}

fn queues(max: usize, per_queue: usize) -> CrawlQueues {
    let mut queues = CrawlQueues {
        per_queue,
        again: false,
        jobs: Jobs::default(),
        served: HashMap::new(),
        queues: HashMap::new(),
        dispatched: HashMap::new(),
        window: Window::default(),
        turns: QueueScheduler::default(),
        later: BTreeSet::new(),
        full: 0,
        stage: Arc::default(),
    };
    queues.window.max = max;
    assert_eq!(queues.change_jobs(JobEvent::Added(JobId::FIRST), 0), Some(JobId::FIRST));
    queues
}

/// Hosts with as much work as anyone may ask, all due.
fn give(queues: &mut CrawlQueues, hosts: &HashMap<QueueId, usize>, given: &mut HashMap<usize, Vec<Key>>) -> usize {
    let mut all = 0;
    for ask in queues.asks() {
        let host = hosts[&ask.queue];
        let of_host = given.entry(host).or_default();
        let work: Vec<Work> = (0..ask.max).map(|n| page(host, of_host.len() + n)).collect();
        assert!(work.iter().all(|work| !ask.held.contains(&work.key())));
        of_host.extend(work.iter().map(Work::key));
        all += queues.dispatch(DispatchReply { queue: ask.queue, work, next: Some(0), hold: None }, 0).len();
    }
    all
}

#[test]
fn greedy_queues_leave_room_for_whoever_comes_next() {
    let mut queues = queues(1_000, 1_000);
    let (hosts, mut given): (HashMap<QueueId, usize>, _) =
        ((0..50).map(|host| (queue_of_host(host), host)).collect(), HashMap::new());
    for host in 0..40 {
        queues.open(opened(queue_of_host(host), 0), 0);
    }
    while give(&mut queues, &hosts, &mut given) > 0 {}
    assert!(given.len() == 40 && given.values().all(|keys| !keys.is_empty()), "all of them have some");
    assert!(queues.is_behind() && queues.dispatched.len() < 1_000, "{} of 1000", queues.dispatched.len());
    queues.open(opened(queue_of_host(45), 0), 0);
    while give(&mut queues, &hosts, &mut given) > 0 {}
    assert!(!given[&45].is_empty());
    // Who has ended everything may have its share again.
    let ended = std::mem::take(given.get_mut(&3).expect("it has some"));
    for key in &ended {
        queues.hear(LedgerUpdate { ended: Some((JobId::FIRST.tenant, *key)), opened: vec![] }, 0);
    }
    while give(&mut queues, &hosts, &mut given) > 0 {}
    assert!(given[&3].len() >= ended.len().min(2), "{} after {}", given[&3].len(), ended.len());
}

#[test]
fn a_queue_has_its_limit_and_comes_back_when_something_ends() {
    let mut queues = queues(1_000, 4);
    let (hosts, mut given) = (HashMap::from([(queue_of_host(0), 0)]), HashMap::new());
    queues.open(opened(queue_of_host(0), 0), 0);
    assert_eq!(give(&mut queues, &hosts, &mut given), 4);
    assert_eq!((queues.asks(), queues.is_behind()), (vec![], true));
    queues.hear(LedgerUpdate { ended: Some((JobId::FIRST.tenant, given[&0][1])), opened: vec![] }, 0);
    assert_eq!(give(&mut queues, &hosts, &mut given), 1);
    let unknown = page(9, 9).key();
    queues.hear(LedgerUpdate { ended: Some((JobId::FIRST.tenant, unknown)), opened: vec![] }, 0);
    assert_eq!(give(&mut queues, &hosts, &mut given), 0);
    // Another limit holds as soon as the queue moves.
    queues.limit(&CrawlSettings { in_flight_max: 1_000, in_flight_per_host: 6, ..CrawlSettings::default() });
    queues.hear(LedgerUpdate { ended: Some((JobId::FIRST.tenant, given[&0][2])), opened: vec![] }, 0);
    assert_eq!(give(&mut queues, &hosts, &mut given), 3);
}

#[test]
fn what_is_due_later_waits_and_the_frontier_says_when() {
    let mut queues = queues(10, 10);
    queues.open(opened(host(7), 50), 10);
    queues.open(opened(host(8), 90), 10);
    queues.open(opened(host(7), 60), 10);
    assert_eq!((queues.asks(), queues.is_behind(), queues.next_due()), (vec![], false, Some(50)));
    queues.wake(49);
    assert_eq!(queues.asks(), []);
    queues.wake(50);
    let asks = queues.asks();
    assert_eq!((asks.len(), asks[0].queue, queues.next_due()), (1, host(7), Some(90)));
    // Updates that come while it is asked are not lost, whatever the reply says.
    queues.open(opened(host(7), 55), 50);
    queues.dispatch(DispatchReply { queue: host(7), work: vec![], next: Some(60), hold: None }, 51);
    assert_eq!(queues.next_due(), Some(55));
    queues.wake(100);
    for ask in queues.asks() {
        queues.dispatch(DispatchReply { queue: ask.queue, work: vec![], next: None, hold: None }, 100);
    }
    assert!(queues.queues.is_empty() && queues.next_due().is_none() && !queues.is_behind());
}

#[test]
fn a_host_that_fails_is_held_back_then_probed_by_one_and_then_has_its_window_again() {
    let (mut queues, queue) = (queues(1_000, 4), host(7));
    let reply = |work: Vec<Work>, hold| DispatchReply { queue, work, next: Some(0), hold };
    let ended = |key| LedgerUpdate { ended: Some((JobId::FIRST.tenant, key)), opened: vec![] };
    queues.open(opened(queue, 0), 0);
    assert_eq!(queues.asks()[0].max, 4);
    // What is found meanwhile makes it no earlier, and neither does what is due.
    queues.dispatch(reply(vec![], Some(50)), 10);
    queues.open(opened(queue, 0), 20);
    assert_eq!((queues.asks(), queues.is_behind(), queues.next_due()), (vec![], false, Some(50)));
    queues.wake(50);
    assert_eq!(queues.asks()[0].max, 1, "one finds out how it is");
    queues.dispatch(reply(vec![page(7, 0)], Some(50)), 50);
    assert_eq!((queues.asks(), queues.is_behind()), (vec![], true), "what is due waits for it");
    queues.hear(ended(page(7, 0).key()), 60);
    assert_eq!(queues.asks()[0].max, 1);
    queues.dispatch(reply(vec![], Some(90)), 60);
    assert_eq!((queues.asks(), queues.next_due()), (vec![], Some(90)), "it failed again");
    queues.wake(90);
    assert_eq!(queues.asks().len(), 1);
    queues.dispatch(reply(vec![page(7, 1)], Some(90)), 90);
    queues.hear(ended(page(7, 1).key()), 95);
    assert_eq!(queues.asks()[0].max, 1);
    queues.dispatch(reply(vec![page(7, 2)], None), 95);
    assert_eq!((queues.asks()[0].max, queues.asks()), (3, vec![]), "it answered");
}

#[test]
fn what_ends_while_a_host_is_held_back_may_have_ended_that() {
    let (mut queues, queue) = (queues(1_000, 4), host(7));
    queues.open(opened(queue, 0), 0);
    queues.asks();
    let work = (0..2).map(|n| page(7, n)).collect();
    queues.dispatch(DispatchReply { queue, work, next: Some(0), hold: None }, 0);
    queues.asks();
    queues.dispatch(DispatchReply { queue, work: vec![], next: Some(0), hold: Some(5_000) }, 10);
    assert_eq!((queues.asks(), queues.next_due()), (vec![], Some(5_000)));
    queues.hear(LedgerUpdate { ended: Some((JobId::FIRST.tenant, page(7, 0).key())), opened: vec![] }, 20);
    assert_eq!((queues.asks(), queues.is_behind()), (vec![], true), "one is in flight");
    queues.hear(LedgerUpdate { ended: Some((JobId::FIRST.tenant, page(7, 1).key())), opened: vec![] }, 30);
    assert_eq!(queues.asks().len(), 1, "the ledger is asked whether it still fails");
    // So is it when another run may have changed that.
    queues.dispatch(DispatchReply { queue, work: vec![], next: Some(0), hold: Some(5_000) }, 40);
    assert_eq!(queues.asks(), []);
    queues.dispatch(DispatchReply { queue, work: vec![], next: Some(0), hold: None }, 50);
    assert_eq!(queues.asks().len(), 1);
}

/// A job of a tenant, both new.
fn job_of(queues: &mut CrawlQueues, tenant: u32, number: u32) -> JobId {
    let job = JobId { tenant: TenantNumber(tenant), number };
    queues.change_jobs(JobEvent::Added(job), 0);
    job
}

/// Asks until there is no room, and has each queue give as much as it is asked for. How much was given, by tenant.
fn give_all(queues: &mut CrawlQueues) -> HashMap<TenantNumber, usize> {
    let mut given = HashMap::new();
    loop {
        let asks = queues.asks();
        if asks.is_empty() {
            return given;
        }
        for ask in asks {
            let of_queue = |n| Url::parse(&format!("http://h{}.example/{n}", ask.queue.host)).expect("a URL");
            let first = ask.held.len();
            let work = (first..first + ask.max).map(|n| Work::Page(Page::start(ask.queue.job, of_queue(n))));
            let work =
                queues.dispatch(DispatchReply { queue: ask.queue, work: work.collect(), next: Some(0), hold: None }, 0);
            *given.entry(ask.queue.job.tenant).or_default() += work.len();
        }
    }
}

#[test]
fn a_tenant_with_very_many_hosts_leaves_others_their_turns_and_their_room() {
    let mut queues = queues(1_000, 32);
    let (many, few) = (JobId::FIRST, job_of(&mut queues, 2, 0));
    (1..100_000).for_each(|host| queues.open(opened(QueueId { job: many, host }, 0), 0));
    (1..4).for_each(|host| queues.open(opened(QueueId { job: few, host }, 0), 0));
    let asks = queues.asks();
    let of_few = asks.iter().take(6).filter(|ask| ask.queue.job == few).count();
    assert_eq!(of_few, 3, "they take turns: {asks:?}");
    for ask in asks {
        queues.dispatch(DispatchReply { queue: ask.queue, work: vec![], next: Some(0), hold: None }, 0);
    }
    give_all(&mut queues);
    // A third comes while nothing ends.
    let third = job_of(&mut queues, 3, 0);
    queues.open(opened(QueueId { job: third, host: 1 }, 0), 0);
    let given = give_all(&mut queues);
    assert!(given[&third.tenant] > 0, "{given:?}");
}

#[test]
fn the_same_url_of_two_tenants_is_in_flight_twice_and_ends_twice() {
    let mut queues = queues(100, 10);
    let jobs = [JobId::FIRST, job_of(&mut queues, 2, 0)];
    jobs.into_iter().for_each(|job| queues.open(opened(QueueId { job, host: 7 }, 0), 0));
    let url = Url::parse("http://h7.example/").expect("a URL");
    for ask in queues.asks() {
        let work = vec![Work::Page(Page::start(ask.queue.job, url.clone()))];
        assert_eq!(queues.dispatch(DispatchReply { queue: ask.queue, work, next: None, hold: None }, 0).len(), 1);
    }
    for (left, job) in [(1, jobs[1]), (0, jobs[0])] {
        queues.hear(LedgerUpdate { ended: Some((job.tenant, Key::page(&url))), opened: vec![] }, 0);
        assert_eq!(queues.window.in_flight(), left);
    }
    assert!(queues.queues.is_empty());
}

#[test]
fn of_a_job_that_was_removed_nothing_is_dispatched_until_it_comes_again() {
    let mut queues = queues(100, 10);
    let (stays, leaves) = (JobId::FIRST, job_of(&mut queues, 1, 4));
    let queue = |job, host| QueueId { job, host };
    for (at, due) in [(1, 0), (2, 0), (3, 50)] {
        queues.open(opened(queue(leaves, at), due), 0);
    }
    queues.open(opened(QueueId::detection(stays.tenant), 0), 0);
    let asked = queues.asks();
    assert_eq!(asked.len(), 3);
    queues.open(opened(queue(leaves, 4), 0), 0);
    assert_eq!(queues.change_jobs(JobEvent::Removed(leaves), 0), None);
    assert_eq!((queues.asks(), queues.next_due(), queues.is_behind()), (vec![], None, false));
    // What was asked before comes after: it stays in the ledger.
    for ask in asked {
        let work = vec![page(ask.queue.host as usize, 0)];
        let given = queues.dispatch(DispatchReply { queue: ask.queue, work, next: Some(0), hold: None }, 0);
        assert_eq!(given.len(), usize::from(ask.queue.is_detection()), "pictures are their tenant's");
    }
    queues.open(opened(queue(leaves, 5), 0), 0);
    assert!(queues.asks().iter().all(|ask| ask.queue.is_detection()), "news of it are no work");
    assert_eq!(queues.change_jobs(JobEvent::Added(leaves), 0), Some(leaves));
    queues.open(opened(queue(leaves, 5), 0), 0);
    assert_eq!(queues.asks().iter().filter(|ask| ask.queue.job == leaves).count(), 1);
}

#[test]
fn when_no_job_of_a_tenant_is_left_its_pictures_wait_too() {
    let mut queues = queues(100, 10);
    let pictures = QueueId::detection(JobId::FIRST.tenant);
    let other = job_of(&mut queues, 1, 1);
    queues.open(opened(pictures, 0), 0);
    queues.change_jobs(JobEvent::Removed(JobId::FIRST), 0);
    assert!(queues.is_behind(), "another job of the tenant is there");
    queues.change_jobs(JobEvent::Removed(other), 0);
    assert_eq!((queues.asks(), queues.is_behind(), queues.queues.len()), (vec![], false, 0));
}

#[test]
fn jobs_of_a_tenant_are_asked_by_their_priorities() {
    let mut queues = queues(100_000, 1);
    queues.jobs = one_tenant();
    let job = |number, priority| JobScope {
        id: JobId { number, ..JobId::FIRST },
        name: number.to_string(),
        priority: Priority::new(priority).expect("a priority"),
        settings: settings(),
    };
    for (number, priority) in [(1, 0), (2, 9)] {
        queues.jobs.add(job(number, priority));
        let id = job_of(&mut queues, 1, number);
        (1..200).for_each(|host| queues.open(opened(QueueId { job: id, host }, 0), 0));
    }
    assert_eq!(queues.jobs.tenant(JobId::FIRST.tenant).waiting.load(Relaxed), 398);
    let asks = queues.asks();
    let of_first = asks.iter().filter(|ask| ask.queue.job.number == 1).count();
    assert!(asks.len() == ASKED_MAX && (5..=7).contains(&of_first), "{of_first} of {}", asks.len());
    assert_eq!(queues.jobs.tenant(JobId::FIRST.tenant).waiting.load(Relaxed), 398 - ASKED_MAX);
}

/// Every queue is in the set that fits what is known of it, whatever happened.
fn assert_fitting(queues: &CrawlQueues, now: Time) {
    let of = |wanted: fn(QueueStatus) -> bool| queues.queues.values().filter(|state| wanted(state.status)).count();
    assert_eq!(queues.full, of(|status| status == QueueStatus::Full));
    assert_eq!(queues.turns.len(), of(|status| status == QueueStatus::Turn));
    assert_eq!(queues.later.len(), of(|status| matches!(status, QueueStatus::Later(_))));
    let waiting = of(|status| matches!(status, QueueStatus::Turn | QueueStatus::Full));
    assert_eq!(queues.jobs.tenant(JobId::FIRST.tenant).waiting.load(Relaxed), waiting);
    assert_eq!(queues.window.in_flight(), queues.dispatched.len());
    for (queue, state) in &queues.queues {
        let (max, served) = (state.limit(queues.queue_max(*queue)), queues.is_served(*queue));
        match state.status {
            QueueStatus::Idle => assert!(!state.held.is_empty() && (state.due().is_none() || !served), "{queue:?}"),
            QueueStatus::Turn => assert!(served && state.held.len() < max && state.due() <= Some(now), "{queue:?}"),
            QueueStatus::Full => assert!(served && state.held.len() >= max && state.due() <= Some(now), "{queue:?}"),
            QueueStatus::Later(due) => {
                assert!(served && queues.later.contains(&(due, *queue)) && Some(due) == state.due(), "{queue:?}");
            }
            QueueStatus::Asked => {}
        }
    }
}

#[test]
fn queues_fit_what_is_known_of_them_after_any_events() {
    let mut seed = 7_u64;
    let mut below = move |end: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % end
    };
    let mut queues = queues(200, 3);
    queues.jobs = one_tenant();
    let jobs = [JobId::FIRST, job_of(&mut queues, 1, 1)];
    let (mut now, mut asked, mut made) = (0, Vec::<DispatchRequest>::new(), 0);
    let mut seen = [0; 3];
    for _ in 0..20_000 {
        match below(12) {
            0..=3 => {
                let job = jobs[below(2) as usize];
                let queue =
                    if below(6) == 0 { QueueId::detection(job.tenant) } else { QueueId { job, host: 100 + below(6) } };
                queues.open(opened(queue, now + below(40)), now);
            }
            4 | 5 => asked.extend(queues.asks()),
            6 | 7 if !asked.is_empty() => {
                let ask = asked.swap_remove(below(asked.len() as u64) as usize);
                let count = below(ask.max as u64 + 1);
                let url = |n: u64| Url::parse(&format!("http://h.example/{n}")).expect("a URL");
                let work = (0..count).map(|n| Work::Page(Page::start(ask.queue.job, url(made + n)))).collect();
                made += count;
                let next = (below(3) > 0).then(|| now + below(30));
                let hold = (below(6) == 0).then(|| now + below(30));
                queues.dispatch(DispatchReply { queue: ask.queue, work, next, hold }, now);
            }
            8 | 9 => {
                let ended = queues.dispatched.keys().min().copied();
                queues.hear(LedgerUpdate { ended, opened: vec![] }, now);
            }
            10 => {
                now += below(10);
                queues.wake(now);
            }
            _ if below(8) == 0 => {
                let job = jobs[below(2) as usize];
                let event = if below(2) == 0 { JobEvent::Removed(job) } else { JobEvent::Added(job) };
                queues.change_jobs(event, now);
            }
            _ => {}
        }
        assert_fitting(&queues, now);
        seen[0] += usize::from(queues.full > 0);
        seen[1] += usize::from(!queues.later.is_empty());
        seen[2] += usize::from(queues.queues.values().any(|state| state.hold.is_some()));
    }
    assert!(seen.iter().all(|times| *times > 100), "each kind of state was there: {seen:?}");
}

#[test]
fn what_is_to_be_looked_at_again_is_no_work_for_a_run_that_does_not() {
    let mut queues = queues(10, 10);
    queues.open(QueueUpdate { again: true, ..opened(host(9), 0) }, 0);
    assert!(!queues.is_behind() && queues.queues.is_empty());
    queues.again = true;
    queues.open(QueueUpdate { again: true, ..opened(host(9), 0) }, 0);
    assert!(queues.is_behind());
    let unserved = QueueId { job: JobId { number: 5, ..JobId::FIRST }, host: 9 };
    queues.open(QueueUpdate { again: true, ..opened(unserved, 0) }, 0);
    assert_eq!(queues.queues.len(), 1);
}
