//! Hosts that fail as a whole: held back, probed by one request at a time, given up with all that waits, and asked again.

use faceflow_core::HostFaultKind;
use faceflow_core::ledger::FailingHosts;
use faceflow_core::record::{HostHold, HostState, Key, QueueId, queue_of};

use super::quarantine::{at, is_quarantined, plant};
use super::*;
use crate::Selection;

both![
    a_failing_host_is_held_back_and_then_probed_by_what_was_not_tried_until_it_answers,
    requests_that_were_under_way_together_fail_once,
    an_answer_that_was_under_way_ends_no_rest_that_the_host_asked_for,
    a_url_that_fails_alone_shows_that_its_host_answers_and_a_rule_of_ours_shows_nothing,
    what_waits_for_a_host_that_was_given_up_is_told_so_and_new_work_asks_it_again_later,
    what_is_driven_again_asks_at_once,
    each_job_has_hosts_of_its_own_and_pictures_have_none,
    rows_follow_from_the_log_after_any_facts_about_hosts,
    what_is_withheld_takes_no_probe,
];

/// A failure of the host of this work, which says this of it.
fn host_failed(work: impl Into<Work>, class: Class, hold: HostHold) -> Fact {
    let work: Work = work.into();
    let fault = Fault::transient(class, "why", "it says so").of_host(queue_of(&url("/")), HostFaultKind::Unreachable);
    let (work, due, host) = (work.failed_once_more().uncounted(), hold.not_before, Some(hold));
    Fact::Failed(match hold.given_up {
        true => Disposition::Dead { work, fault, again: None, host },
        false => Disposition::Retry { work, fault, due, host },
    })
}

fn hold(failures: u32, not_before: u64) -> HostHold {
    HostHold { failures, since: 1_000, not_before, given_up: false }
}

/// The same page as it was dispatched while this was known of its host.
fn knowing(page: Page, failures: u32, since: u64) -> Page {
    Page { host: Some(Box::new(HostState { failures, since, given_up: None })), ..page }
}

impl Rig {
    /// What the queue of the host gives out at `now`, while this is in flight.
    fn due_work(&self, now: u64, held: &[&str]) -> DispatchReply {
        let queue = QueueId::of(JobId::FIRST, &url("/"));
        let held = held.iter().map(|path| Key::page(&url(path))).collect();
        let ask = DispatchRequest { queue, max: 7, held, again: false };
        self.ledger().due_work(now, &[ask]).expect("reads").remove(0)
    }

    /// The paths of that, with how often its host has failed, when the next is due and until when the host is held back.
    fn given(&self, now: u64, held: &[&str]) -> (Vec<String>, Option<u32>, Option<u64>, Option<u64>) {
        let DispatchReply { work, next, hold, .. } = self.due_work(now, held);
        let failures = work.first().and_then(|work| work.host().map(|host| host.failures));
        let path = |work: &Work| match work {
            Work::Page(page) => page.url.path().to_owned(),
            other => panic!("{other:?} is no page"),
        };
        (work.iter().map(path).collect(), failures, next, hold)
    }

    /// How many are held back, and how many were given up.
    fn hosts(&self) -> (u64, u64) {
        let FailingHosts { held_back, given_up } = self.reader().failing_hosts().expect("counts");
        (held_back, given_up)
    }
}

/// Four pages of one host.
fn pages() -> Rig {
    let rig = Rig::new();
    rig.tell(admitted(["/a", "/b", "/c", "/d"].map(|path| Page { site: url(path), ..page(path, 0) }).into()));
    rig
}

fn paths(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

fn a_failing_host_is_held_back_and_then_probed_by_what_was_not_tried_until_it_answers() {
    let rig = pages();
    rig.tell(host_failed(page("/a", 0), Class::Connect, hold(1, 5_000)));
    assert_eq!(rig.given(4_999, &[]), (vec![], None, Some(5_000), Some(5_000)));
    assert_eq!(rig.given(5_000, &[]), (paths(&["/b"]), Some(1), Some(5_000), Some(5_000)), "one, and a new one");
    assert_eq!(rig.given(5_000, &["/b"]), (vec![], None, Some(5_000), Some(5_000)), "no other beside it");
    let rig = rig.reopened();
    rig.ledger().known_pictures(JobId::FIRST.tenant, &mut |_| ()).expect("takes over what the run before has left");
    rig.tell(host_failed(knowing(page("/b", 0), 1, 1_000), Class::Connect, hold(2, 9_000)));
    assert_eq!(rig.given(8_999, &[]).2, Some(9_000), "after a restart too");
    rig.tell(read(knowing(page("/c", 0), 2, 1_000), vec![], vec![]));
    assert_eq!(rig.given(9_000, &[]), (paths(&["/a", "/b", "/d"]), None, None, None), "it answers");
    assert_eq!(rig.hosts(), (0, 0));
}

fn requests_that_were_under_way_together_fail_once() {
    let rig = pages();
    rig.tell(host_failed(page("/a", 0), Class::Connect, hold(1, 5_000)));
    rig.tell(host_failed(page("/b", 0), Class::Connect, hold(1, 7_000)));
    rig.tell(host_failed(page("/c", 0), Class::Connect, hold(1, 6_000)));
    let (given, failures, next, until) = rig.given(7_000, &[]);
    assert_eq!((given, failures, until), (paths(&["/d"]), Some(1), Some(7_000)));
    assert_eq!(next, Some(7_000));
}

fn an_answer_that_was_under_way_ends_no_rest_that_the_host_asked_for() {
    let far = 1 << 50;
    let rig = pages();
    rig.tell(host_failed(page("/a", 0), Class::Busy, hold(1, far)));
    rig.tell(read(page("/b", 0), vec![], vec![]));
    assert_eq!(rig.given(far - 1, &[]).2, Some(far));
    // Whoever was told that it rests was dispatched after that.
    rig.tell(read(knowing(page("/c", 0), 1, 1_000), vec![], vec![]));
    assert_eq!(rig.given(far - 1, &[]).3, None);
    // One that was unreachable is not.
    rig.tell(host_failed(page("/a", 0), Class::Connect, hold(1, far)));
    rig.tell(read(page("/d", 0), vec![], vec![]));
    assert_eq!(rig.hosts(), (0, 0));
}

fn a_url_that_fails_alone_shows_that_its_host_answers_and_a_rule_of_ours_shows_nothing() {
    let rig = pages();
    rig.tell(host_failed(page("/a", 0), Class::Connect, hold(1, 5_000)));
    let rule = Fault::permanent(Class::Policy, "robots", "/b is disallowed");
    rig.tell(Fact::Failed(Disposition::Rejected { work: page("/b", 0).into(), fault: rule, again: None }));
    assert_eq!(rig.hosts(), (1, 0));
    rig.tell(rejected(page("/c", 0)));
    assert_eq!(rig.hosts(), (0, 0));
}

fn what_waits_for_a_host_that_was_given_up_is_told_so_and_new_work_asks_it_again_later() {
    let rig = pages();
    let given_up = HostHold { given_up: true, ..hold(5, 9_000) };
    rig.tell(host_failed(page("/a", 0), Class::Connect, given_up));
    assert_eq!(rig.hosts(), (0, 1));
    let known = rig.reader().given_up_hosts(9).expect("reads");
    assert_eq!((known.len(), known[0].host.as_str(), known[0].reason.as_str()), (1, "a.example:80", "why"));
    let reply = rig.due_work(8_000, &["/b"]);
    let why: Vec<_> = reply.work.iter().map(|work| work.host().and_then(|host| host.given_up.clone())).collect();
    let fault = Fault::transient(Class::Connect, "why", "it says so");
    assert_eq!((why, reply.hold), (vec![Some(fault.clone()), Some(fault)], None), "all of it at once");
    assert_eq!(rig.given(9_000, &[]), (paths(&["/b"]), Some(5), Some(9_000), Some(9_000)), "one asks it");
    rig.tell(host_failed(
        knowing(page("/b", 0), 5, 1_000),
        Class::Connect,
        HostHold { failures: 6, not_before: 99_000, ..given_up },
    ));
    assert_eq!(rig.due_work(98_000, &[]).work.len(), 2);
}

fn what_is_driven_again_asks_at_once() {
    let rig = pages();
    rig.tell(host_failed(page("/a", 0), Class::Connect, HostHold { given_up: true, ..hold(5, 1 << 50) }));
    assert_eq!(wait(rig.ledger().redrive(Selection { dead: true, ..Selection::default() })), Ok(1));
    rig.check();
    assert_eq!(rig.hosts(), (0, 0));
    assert_eq!(rig.given(1, &[]).0.len(), 4);
}

fn each_job_has_hosts_of_its_own_and_pictures_have_none() {
    let rig = pages();
    rig.tell(host_failed(page("/a", 0), Class::Connect, hold(1, 5_000)));
    let (other, queue) = (JobId { number: 7, ..JobId::FIRST }, queue_of(&url("/")));
    let asks = [QueueId { job: other, host: queue }, QueueId::detection(JobId::FIRST.tenant)];
    let asks = asks.map(|queue| DispatchRequest { queue, max: 7, held: vec![], again: false });
    let replies = rig.ledger().due_work(0, &asks).expect("reads");
    assert!(replies.iter().all(|reply| reply.hold.is_none()), "{replies:?}");
}

fn rows_follow_from_the_log_after_any_facts_about_hosts() {
    for seed in 0..8_u64 {
        let (rig, mut dice) = (Rig::new(), seed);
        let mut roll = |sides: u64| {
            // Steele and Vigna's SplitMix64.
            dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (dice ^ (dice >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed ^ (mixed >> 27)) % sides
        };
        let (mut told, mut failing) = (0, 0);
        for step in 0..60 {
            let url = url(&format!("http://h{}.example/{}", roll(2), roll(3)));
            let new = Page { site: url.clone(), url, ..page("/", 0) };
            let known = if roll(2) == 0 { knowing(new.clone(), roll(4) as u32, 1_000 + roll(2)) } else { new.clone() };
            let class = if roll(2) == 0 { Class::Connect } else { Class::Busy };
            let not_before = if roll(2) == 0 { 2_000 + roll(9) } else { 1 << 50 };
            let given_up = roll(5) == 0;
            let hold = HostHold { failures: roll(6) as u32, since: 1_000 + roll(2), not_before, given_up };
            let fact = match roll(8) {
                0 | 1 => admitted(vec![new]),
                2 => read(known, vec![], vec![]),
                3 => rejected(known),
                4 => dead(known),
                _ => host_failed(known, class, hold),
            };
            told += u32::from(rig.try_tell(fact).is_ok());
            if roll(15) == 0 {
                wait(rig.ledger().redrive(Selection { dead: true, ..Selection::default() })).expect("drives");
            }
            if step % 12 == 0 {
                failing += rig.hosts().0 + rig.hosts().1;
                rig.check_rows();
            }
        }
        rig.check();
        assert!(told > 10 && failing > 0, "{told} told, {failing} failing");
    }
}

fn what_is_withheld_takes_no_probe() {
    let rig = pages();
    plant(&rig, "UPDATE", "entries", &at("/a"));
    assert!(is_quarantined(&rig.try_tell(host_failed(page("/a", 0), Class::Connect, hold(1, 5_000)))));
    rig.tell(host_failed(page("/b", 0), Class::Connect, hold(1, 5_000)));
    assert_eq!(rig.given(4_999, &[]).0, paths(&[]));
    assert_eq!(rig.given(5_000, &[]).0, paths(&["/c"]));
    assert_eq!(rig.given(5_000, &["/c"]).0, paths(&[]));
}
