//! Several tenants, and several jobs of one, in a state that one process has open.

use faceflow_core::record::{Key, Priority, TenantNumber};

use super::*;
use crate::{StateLocation, TenantLedgers};

both![
    tenants_write_the_same_urls_side_by_side_and_nothing_of_one_is_the_others,
    an_entry_belongs_to_the_job_that_discovered_it_first_and_waits_in_its_lane,
    a_job_has_one_number_and_the_log_says_so,
    what_is_of_a_tenant_that_is_not_open_is_refused,
];

fn open(home: &Home) -> TenantLedgers {
    TenantLedgers::new(home.place(), &LedgerSettings::default()).expect("a location")
}

/// The fact as one of another job.
fn of(job: JobId, fact: Fact) -> Fact {
    match fact {
        Fact::Discovered(mut found) => {
            found.job = job;
            found.pages.iter_mut().for_each(|page| page.job = job);
            found.images.iter_mut().for_each(|image| image.job = job);
            found.visit.iter_mut().for_each(|visit| visit.page.job = job);
            Fact::Discovered(found)
        }
        Fact::Stored(mut stored) => {
            (stored.image.job, stored.frame.job) = (job, job);
            Fact::Stored(stored)
        }
        Fact::Detected(mut detected) => {
            detected.frame.job = job;
            Fact::Detected(detected)
        }
        other => panic!("{other:?}"),
    }
}

fn check(ledger: &DatabaseLedger) {
    assert_eq!(ledger.audit(3), Ok(vec![]));
    assert_eq!(ledger.reader().replay_differences(), Ok(vec![]), "the log says everything");
}

/// The open work of a job, by its queues.
fn owed_to(ledgers: &TenantLedgers, job: JobId) -> Vec<Work> {
    let mut queues = Vec::new();
    ledgers.queues(job, false, &mut |update| queues.push(update.queue)).expect("reads");
    queues.dedup();
    let ask = |queue| DispatchRequest { queue, max: 100, held: vec![], again: false };
    let asks: Vec<_> = queues.into_iter().map(ask).collect();
    ledgers.due_work(u64::MAX >> 1, &asks).expect("reads").into_iter().flat_map(|reply| reply.work).collect()
}

fn tenants_write_the_same_urls_side_by_side_and_nothing_of_one_is_the_others() {
    let home = Home::new();
    let ledgers = open(&home);
    let tenants = ["one", "two", "three"].map(|name| ledgers.tenant(name).expect("opens"));
    let jobs = tenants.each_ref().map(|ledger| JobId::default_of(ledger.reader().tenant_number()));
    let again = ledgers.tenant("two").expect("is open");
    assert_eq!((again.reader().tenant_number(), ledgers.all().len()), (jobs[1].tenant, 3));
    // Their groups take turns, and each makes rows.
    for n in 0..20 {
        let path = format!("/{n}");
        let facts = jobs.map(|job| {
            let start = admitted(vec![Page { site: url(&path), ..page(&path, 0) }]);
            let shown = read(Page { site: url(&path), ..page(&path, 0) }, vec![], vec![image(&format!("/i{n}"))]);
            [of(job, start), of(job, shown), of(job, kept(image(&format!("/i{n}")), &format!("picture {n}")))]
        });
        let appends: Vec<_> = facts.into_iter().flatten().map(|fact| ledgers.append(fact)).collect();
        for append in appends {
            let opened = wait(append).expect("is legal");
            assert!(opened.iter().all(|update| jobs.contains(&update.queue.job)), "{opened:?}");
        }
    }
    wait(ledgers.append(of(jobs[1], delivered("picture 7", 2)))).expect("is legal");
    for (ledger, job) in tenants.iter().zip(jobs) {
        let (pages, images) = ledger.tally().expect("counts");
        assert_eq!((pages.done, images.discovered, images.done), (20, 20, u64::from(job == jobs[1])));
        assert_eq!(ledger.reader().face_count(), Ok(if job == jobs[1] { 2 } else { 0 }));
        check(ledger);
    }
    let (pages, images) = ledgers.tally().expect("counts");
    assert_eq!((pages.done, images.discovered, images.done), (60, 60, 1));
    // The last to go lets go of the state.
    let refused = home.open_for("one").err();
    assert_eq!(refused.is_some(), matches!(home.place(), StateLocation::Folder(_)), "{refused:?}");
    drop((tenants, again, ledgers));
    assert_eq!(home.open_for("two").expect("is free").tally().expect("counts").1.done, 1);
}

fn an_entry_belongs_to_the_job_that_discovered_it_first_and_waits_in_its_lane() {
    let home = Home::new();
    let ledgers = open(&home);
    let ledger = ledgers.tenant("default").expect("opens");
    let first = JobId::default_of(ledger.reader().tenant_number());
    let [second, third] = ["second", "third"].map(|name| ledger.add_job(name, Priority::default()).expect("is added"));
    let discover = |job, path: &str| {
        let found = admitted(vec![Page { site: url(path), ..page(path, 0) }]);
        wait(ledgers.append(of(job, found))).expect("is legal")
    };
    assert_eq!(discover(second, "/a")[0].queue, QueueId::of(second, &url("/a")));
    assert_eq!(discover(third, "/a"), [], "it is known");
    discover(third, "/b");
    discover(first, "/c");
    for (job, path) in [(first, "/c"), (second, "/a"), (third, "/b")] {
        let work = owed_to(&ledgers, job);
        assert_eq!(
            work.iter().map(|work| (work.key(), work.job())).collect::<Vec<_>>(),
            [(Key::page(&url(path)), job)]
        );
    }
    // What a page leads to is its job's, whoever reads it.
    let shown = read(Page { site: url("/a"), ..page("/a", 0) }, vec![], vec![image("/i"), image("/j")]);
    wait(ledgers.append(of(second, shown))).expect("is legal");
    wait(ledgers.append(of(second, kept(image("/i"), "one")))).expect("is legal");
    wait(ledgers.append(of(second, delivered("one", 1)))).expect("is legal");
    let counted = |job: JobId| {
        let (pages, images) = ledger.reader().job_tally(job.number).expect("counts");
        [pages.discovered, pages.done, images.discovered, images.done, images.open]
    };
    assert_eq!([first, second, third].map(counted), [[1, 0, 0, 0, 0], [1, 1, 2, 1, 1], [1, 0, 0, 0, 0]]);
    check(&ledger);
}

fn a_job_has_one_number_and_the_log_says_so() {
    let home = Home::new();
    let ledger = home.open();
    let priority = |n| Priority::new(n).expect("a priority");
    let add = |ledger: &DatabaseLedger, name: &str, n| ledger.add_job(name, priority(n)).expect("is added").number;
    assert_eq!([add(&ledger, "default", 5), add(&ledger, "a", 1), add(&ledger, "b", 2)], [0, 1, 2]);
    assert_eq!([add(&ledger, "a", 9), add(&ledger, "a", 9), add(&ledger, "b", 2)], [1, 1, 2]);
    check(&ledger);
    drop(ledger);
    let ledger = home.open();
    assert_eq!((ledger.reader().job_number("b"), ledger.reader().job_number("c")), (Ok(Some(2)), Ok(None)));
    assert_eq!([add(&ledger, "c", 0), add(&ledger, "b", 2)], [3, 2]);
    // Numbers are a tenant's own.
    if matches!(home.place(), StateLocation::Server(_)) {
        assert_eq!(add(&home.open_for("other").expect("opens"), "b", 2), 1);
    }
    check(&ledger);
}

fn what_is_of_a_tenant_that_is_not_open_is_refused() {
    let home = Home::new();
    let ledgers = open(&home);
    let nobody = JobId::default_of(TenantNumber(7));
    let refused = wait(ledgers.append(of(nobody, start()))).expect_err("nobody has it").to_string();
    assert!(refused.contains("tenant number 7"), "{refused}");
    let ask = DispatchRequest { queue: QueueId { job: nobody, host: 1 }, max: 1, held: vec![], again: false };
    assert!(ledgers.due_work(0, &[ask]).is_err() && ledgers.queues(nobody, false, &mut |_| ()).is_err());
}
