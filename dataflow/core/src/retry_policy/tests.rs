use super::*;
use crate::record::{HostState, Image, JobId, Page};

fn page(attempts: u32) -> Work {
    let url = url::Url::parse("http://a.example/").expect("a URL");
    Work::Page(Page { attempts, ..Page::start(JobId::FIRST, url) })
}

#[test]
fn backoff_doubles_to_the_cap() {
    let delays: Vec<_> = (1..=8).map(|n| Policy::DETECT.delay_ms(n, 0)).collect();
    assert_eq!(delays, [60_000, 120_000, 240_000, 480_000, 960_000, 1_920_000, 3_600_000, 3_600_000]);
    assert_eq!(Policy::DETECT.delay_ms(u32::MAX, u64::MAX), 3_600_000, "no overflow, no jitter");
}

#[test]
fn jitter_adds_at_most_its_share_and_repeats() {
    for dice in [0, 1 << 20, u64::MAX / 3, u64::MAX] {
        let delay = Policy::WEB.delay_ms(1, dice);
        assert!((2_000..=2_200).contains(&delay), "{delay}");
    }
    let busy = Fault::transient(Class::Busy, "http_503", "");
    let settings = RetrySettings::default();
    let decide = || settings.decide(FailedRecord { record: page(0), fault: busy.clone() }, 5);
    assert_eq!(decide(), decide());
}

/// The delay of this site's start page at its `attempts`-th failure, of which up to half is jitter.
fn jittered(seed: u64, site: u32, attempts: u32) -> u64 {
    let mut settings = RetrySettings { seed, ..RetrySettings::default() };
    settings.web = Policy { base_ms: 1_000_000, factor: 1.0, attempts_max: u32::MAX, jitter: 0.5, ..Policy::WEB };
    settings.web.cap_ms = 1_000_000;
    let url = url::Url::parse(&format!("http://s{site}.example/")).expect("a URL");
    let record = Work::Page(Page { attempts, ..Page::start(JobId::FIRST, url) });
    match settings.decide(FailedRecord { record, fault: Fault::transient(Class::Busy, "http_503", "") }, 0) {
        Disposition::Retry { due, .. } => due,
        other => panic!("{other:?}"),
    }
}

/// Failures that happened at once come back evenly over the whole interval, whatever it is by which they differ.
#[test]
fn jitter_spreads_what_failed_together() {
    let by_site: Vec<u64> = (0..4_000).map(|site| jittered(0, site, 0)).collect();
    let by_attempt: Vec<u64> = (0..4_000).map(|attempts| jittered(0, 7, attempts)).collect();
    let by_seed: Vec<u64> = (0..4_000).map(|seed| jittered(seed, 7, 0)).collect();
    for (what, delays) in [("sites", &by_site), ("attempts", &by_attempt), ("seeds", &by_seed)] {
        assert!(delays.iter().all(|delay| (1_000_000..=1_500_000).contains(delay)), "{what}");
        let mut tenths = [0_i32; 10];
        delays.iter().for_each(|delay| tenths[((delay - 1_000_000) / 50_000).min(9) as usize] += 1);
        // 400 each, and a standard deviation of 19.
        assert!(tenths.iter().all(|count| (count - 400).abs() < 95), "{what}: {tenths:?}");
        let apart = delays.iter().collect::<std::collections::BTreeSet<_>>().len();
        assert!(apart > 3_900, "{what}: {apart} different delays");
        // Neighbours are not near each other: a third of the interval apart, in the mean.
        let steps = delays.windows(2).map(|pair| pair[0].abs_diff(pair[1])).sum::<u64>() / 3_999;
        assert!((155_000..179_000).contains(&steps), "{what}: {steps}");
    }
}

/// Whoever restarts with another version waits as long as before.
#[test]
fn jitter_is_the_same_in_every_process_and_version() {
    assert_eq!([jittered(0, 1, 0), jittered(0, 1, 1), jittered(9, 1, 0)], [1_139_286, 1_432_093, 1_455_136]);
}

#[test]
fn the_last_attempt_is_the_last() {
    let busy = Fault::transient(Class::Busy, "http_503", "");
    let settings = RetrySettings::default();
    assert!(matches!(
        settings.decide(FailedRecord { record: page(3), fault: busy.clone() }, 0),
        Disposition::Retry { .. }
    ));
    assert!(matches!(settings.decide(FailedRecord { record: page(4), fault: busy }, 0), Disposition::Dead { .. }));
}

#[test]
fn nothing_dies_of_the_object_store() {
    let settings = RetrySettings::default();
    let full = || Fault::transient(Class::Store, "store", "full");
    let decided = |record, fault| match settings.decide(FailedRecord { record, fault }, 0) {
        Disposition::Retry { work, due, .. } => Ok((work, due)),
        Disposition::Dead { work, .. } => Err(work.attempts()),
        other => panic!("{other:?}"),
    };
    let url = url::Url::parse("http://a.example/").expect("a URL");
    let (page, site, alternates) = (url.clone(), url.clone(), vec![]);
    let job = JobId::FIRST;
    let image =
        Image { job, url, page, site, attempts: 0, uncounted: 0, inline: None, alternates, version: None, host: None };
    let mut failing = Work::Image(image);
    let mut dues = vec![];
    for _ in 0..41 {
        let (work, due) = decided(failing, full()).expect("it is not given up");
        (failing, _) = (work, dues.push(due));
    }
    assert!((2_000..=2_200).contains(&dues[0]) && dues[40] >= STORE_CAP_MS, "{dues:?}");
    // Once it is back, all attempts at the web are left.
    let busy = || Fault::transient(Class::Busy, "http_503", "");
    for failed in 1..settings.web.attempts_max {
        let (work, due) = decided(failing, busy()).expect("it has failed too seldom");
        assert!(due <= 2_200 << (failed - 1), "{due}");
        failing = work;
    }
    assert_eq!(decided(failing, busy()).map(|(work, _)| work), Err(41 + settings.web.attempts_max));
}

/// A picture whose detection failed so often.
fn frame(attempts: u32, has_degraded: bool) -> Work {
    let hashes = crate::record::PerceptualHash::dct64(0, false).into();
    let id = crate::record::ContentId::of(b"picture");
    let content = crate::record::Content { id, bytes: 7, format: "png".to_owned(), width: 1, height: 1, hashes };
    Work::Frame(Frame {
        job: JobId::FIRST,
        content,
        owner: 0,
        pixels: None,
        attempts,
        uncounted: 0,
        has_degraded,
        opted_out: None,
        generation: 0,
        scale: None,
    })
}

#[test]
fn no_is_an_answer_for_what_the_web_holds_and_an_end_for_a_picture() {
    let settings = RetrySettings::default();
    let no = || Fault::permanent(Class::Content, "corrupt_image", "");
    let decide = |record, fault| settings.decide(FailedRecord { record, fault }, 0);
    assert!(matches!(decide(page(0), no()), Disposition::Rejected { .. }));
    assert!(matches!(decide(frame(0, false), no()), Disposition::Dead { .. }));
    let failed = || Fault::transient(Class::Engine, "engine_error", "");
    assert!(matches!(decide(frame(4, false), failed()), Disposition::Retry { due: 960_000, .. }));
    assert!(matches!(decide(frame(5, false), failed()), Disposition::Dead { .. }));
    // A degraded answer stands once every attempt at a full one has failed.
    assert!(matches!(decide(frame(4, true), failed()), Disposition::Retry { .. }));
    assert!(matches!(decide(frame(5, true), failed()), Disposition::DegradedAccepted { .. }));
}

#[test]
fn impossible_policies_are_refused_by_name() {
    let base = RetrySettings::default();
    assert_eq!(base.check(), Ok(()));
    let web = |change: fn(&mut Policy)| {
        let mut settings = base;
        change(&mut settings.web);
        settings.check().map_err(|(key, _)| key)
    };
    assert_eq!(web(|policy| policy.factor = 0.9), Err("web.factor"));
    assert_eq!(web(|policy| policy.factor = f64::INFINITY), Err("web.factor"));
    assert_eq!(web(|policy| policy.factor = f64::NAN), Err("web.factor"));
    assert_eq!(web(|policy| policy.factor = 1.0), Ok(()));
    assert_eq!(web(|policy| policy.attempts_max = 0), Err("web.attempts_max"));
    assert_eq!(web(|policy| policy.jitter = 1.1), Err("web.jitter"));
    assert_eq!(web(|policy| policy.jitter = -0.1), Err("web.jitter"));
    assert_eq!(web(|policy| policy.jitter = 1.0), Ok(()));
    let host = |change: fn(&mut HostPolicy)| {
        let mut settings = base;
        change(&mut settings.host);
        settings.check().map_err(|(key, _)| key)
    };
    assert_eq!(host(|policy| policy.factor = 0.9), Err("host.factor"));
    assert_eq!(host(|policy| policy.attempts_max = 0), Err("host.attempts_max"));
    assert_eq!(host(|policy| policy.jitter = 1.1), Err("host.jitter"));
    assert_eq!(host(|policy| policy.patience_ms = 0), Ok(()));
    let detect = RetrySettings { detect: DetectPolicy(Policy { factor: 0.5, ..Policy::DETECT }), ..base };
    assert_eq!(detect.check(), Err(("detect.factor", "1 or more".to_owned())));
}

#[test]
fn a_part_of_the_policy_for_pictures_can_be_set() {
    let partial: DetectPolicy = serde_json::from_str(r#"{"attempts_max": 2}"#).expect("a policy");
    assert_eq!(Policy::from(partial), Policy { attempts_max: 2, ..Policy::DETECT });
    assert!(serde_json::from_str::<DetectPolicy>(r#"{"attempts": 2}"#).is_err());
}

#[test]
fn retry_after_is_a_floor_with_a_ceiling() {
    let mut settings = RetrySettings::default();
    settings.web.jitter = 0.0;
    let due = |asked| match settings.decide(
        FailedRecord { record: page(0), fault: Fault::transient(Class::Busy, "http_429", "").after(asked) },
        100,
    ) {
        Disposition::Retry { due, .. } => due,
        other => panic!("{other:?}"),
    };
    assert_eq!((due(0), due(10_000), due(u64::MAX)), (2_100, 10_100, 86_400_100));
}

/// A failure of the host of [`page`], which was in this state when the page was dispatched.
fn host_failed(
    known: Option<HostState>,
    attempts: (u32, u32),
    fault: Fault,
    kind: HostFaultKind,
    now: Time,
) -> Disposition {
    let Work::Page(page) = page(attempts.0) else { panic!("it is a page") };
    let queue = crate::record::queue_of(&page.url);
    let record = Work::Page(Page { host: known.map(Box::new), uncounted: attempts.1, ..page });
    let mut settings = RetrySettings::default();
    (settings.web.jitter, settings.host.jitter) = (0.0, 0.0);
    settings.decide(FailedRecord { record, fault: fault.of_host(queue, kind) }, now)
}

fn known(failures: u32, since: Time) -> Option<HostState> {
    Some(HostState { failures, since, given_up: None })
}

fn refused() -> Fault {
    Fault::transient(Class::Connect, "connect", "refused")
}

fn asked_to_wait() -> Fault {
    Fault::transient(Class::Busy, "http_429", "").after(60_000)
}

#[test]
fn a_host_that_is_unreachable_is_left_alone_longer_and_longer_and_given_up_after_the_last_attempt() {
    let (mut state, mut now, mut waits) = (None, 1_000, vec![]);
    let end = loop {
        assert!(waits.len() < 9, "{waits:?}");
        // However often the page has failed with it, that counts only once.
        match host_failed(state, (90, 89), refused(), HostFaultKind::Unreachable, now) {
            Disposition::Retry { due, host: Some(hold), work, .. } => {
                assert_eq!((hold.since, hold.given_up, hold.not_before <= due), (1_000, false, true));
                assert_eq!(work.attempts_counted(), if waits.is_empty() { 2 } else { 1 });
                waits.push(hold.not_before - now);
                (state, now) = (known(hold.failures, hold.since), hold.not_before);
            }
            end => break end,
        }
    };
    assert_eq!(waits, [2_000, 4_000, 8_000, 16_000]);
    let Disposition::Dead { host: Some(hold), fault, .. } = end else { panic!("{end:?}") };
    assert_eq!(
        (hold.failures, hold.given_up, hold.not_before - now),
        (5, true, 60_000),
        "it is asked again after that"
    );
    assert_eq!(fault.reason, "connect");
}

#[test]
fn a_host_that_answers_is_not_given_up_before_its_patience_is_over() {
    let failed =
        |failures, since, now| host_failed(known(failures, since), (3, 3), asked_to_wait(), HostFaultKind::Busy, now);
    let Disposition::Retry { due, host: Some(hold), work, .. } = failed(40, 0, 899_999) else {
        panic!("it is retried")
    };
    assert_eq!((due, hold.failures, hold.not_before), (959_999, 41, 959_999));
    assert_eq!((work.attempts(), work.attempts_counted()), (4, 0));
    assert!(matches!(failed(40, 0, 900_000), Disposition::Dead { .. }));
    assert!(matches!(failed(3, 0, 900_000), Disposition::Retry { .. }), "it was asked too seldom");
}

#[test]
fn what_was_not_asked_counts_for_nobody() {
    let resting = |state| host_failed(state, (9, 9), asked_to_wait(), HostFaultKind::Resting, 7);
    for (state, failures, since) in [(None, 0, 7), (known(99, 3), 99, 3)] {
        let Disposition::Retry { due: 60_007, host, work, .. } = resting(state) else { panic!("it is retried") };
        assert_eq!(host, Some(HostHold { failures, since, not_before: 60_007, given_up: false }));
        assert_eq!((work.attempts(), work.attempts_counted()), (10, 0));
    }
    let given_up = Some(HostState { failures: 5, since: 1, given_up: Some(refused()) });
    let end = host_failed(given_up, (0, 0), refused(), HostFaultKind::GivenUp, 9);
    assert!(matches!(end, Disposition::Dead { host: None, .. }), "its row stays as it is: {end:?}");
}

#[test]
fn a_url_that_alone_is_told_to_wait_ends_too_and_gives_way_to_others_until_then() {
    let failed = |attempts| host_failed(None, (attempts, 0), asked_to_wait(), HostFaultKind::Busy, 0);
    let due = |attempts| match failed(attempts) {
        Disposition::Retry { due, host: Some(hold), .. } => due - hold.not_before,
        other => panic!("{other:?}"),
    };
    assert_eq!([0, 1, 2, 23].map(due), [0, 2_000, 4_000, 60_000]);
    let Disposition::Dead { host: Some(hold), .. } = failed(24) else { panic!("the last of 5 times 5") };
    assert!(!hold.given_up);
}

#[test]
fn the_fault_of_another_host_is_the_urls_own() {
    let fault = refused().of_host(99, HostFaultKind::Unreachable);
    let decide =
        |attempts| RetrySettings::default().decide(FailedRecord { record: page(attempts), fault: fault.clone() }, 0);
    assert!(matches!(decide(3), Disposition::Retry { host: None, .. }));
    assert!(matches!(decide(4), Disposition::Dead { host: None, .. }));
    // What is led from http to https is asked at the same host.
    let mut led = refused().of_host(99, HostFaultKind::Unreachable);
    led.host = led.host.map(|host| HostFault { twin: page(0).host_queue(), ..host });
    let end = RetrySettings::default().decide(FailedRecord { record: page(0), fault: led }, 0);
    assert!(matches!(end, Disposition::Retry { host: Some(_), .. }), "{end:?}");
    // While that one rests it is not asked, and nothing dies of it.
    let fault = asked_to_wait().of_host(99, HostFaultKind::Resting);
    let end = RetrySettings::default().decide(FailedRecord { record: page(40), fault }, 0);
    let Disposition::Retry { work, due: 60_000, host: None, .. } = end else { panic!("{end:?}") };
    assert_eq!((work.attempts(), work.attempts_counted()), (41, 40));
}

#[test]
fn silence_is_an_attempt_of_the_url_and_of_its_host() {
    let silent = || Fault::transient(Class::Timeout, "timeout", "no headers in time");
    let failed = |state, attempts| host_failed(state, (attempts, 0), silent(), HostFaultKind::Silent, 0);
    let Disposition::Retry { due, host: Some(hold), work, .. } = failed(known(2, 0), 3) else {
        panic!("it is retried")
    };
    assert_eq!((work.attempts_counted(), hold.failures, hold.not_before, due), (4, 3, 8_000, 16_000));
    assert!(
        matches!(failed(None, 4), Disposition::Dead { host: Some(HostHold { given_up: false, .. }), .. }),
        "its last"
    );
    assert!(matches!(failed(known(4, 0), 0), Disposition::Dead { host: Some(HostHold { given_up: true, .. }), .. }));
}

#[test]
fn an_opt_out_of_all_pages_ends_a_detection_and_what_was_seen_before_stays() {
    let fault = || Fault::permanent(Class::Policy, "opt_out:noai", "they say so");
    let decide = |record| RetrySettings::default().decide(FailedRecord { record, fault: fault() }, 5);
    assert!(matches!(decide(frame(0, false)), Disposition::Rejected { again: None, .. }));
    assert!(matches!(decide(frame(0, true)), Disposition::DegradedAccepted { .. }));
}
