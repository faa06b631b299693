//! Several tenants and jobs in one running graph: each has what a graph of its own would have given it, none holds up another, and
//! they come and go while it runs.

mod support;
mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use faceflow::core::record::{ContentId, JobId, TenantId};
use faceflow::core::source::Source;
use faceflow::core::tally::Tally;
use faceflow::job::{Job, Summary};
use faceflow::job_handle::{AddSourceError, JobCounts, JobHandle};
use faceflow::job_spec::{AddJobError, JobSpec};
use faceflow::ledger::{DatabaseLedger, Reader, StateLocation};
use faceflow::mine::url_normalization::parse_site;
use faceflow::sources::list::List;
use faceflow::views::results::{Format, Kind, write_results};
use serde_json::Value;
use support::{LIMIT, finish, job, settings, until};
use tempfile::{TempDir, tempdir};
use world::postgres::Server;
use world::{Answer, Gallery, World, gallery_web, jpeg, picture};

fn ended(handle: JobHandle) -> Summary {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(handle.wait()));
    let summary = receive.recv_timeout(LIMIT).unwrap_or_else(|error| panic!("the end of the graph: {error}"));
    summary.unwrap_or_else(|error| panic!("the graph failed: {error}"))
}

fn tenant(name: &str) -> TenantId {
    name.parse().expect("a name")
}

/// A graph with state and output under `folder` that has nothing to do yet.
fn graph(folder: &Path, assignments: &[&str]) -> Job {
    let mut job = job(folder, &[], assignments);
    job.options.workers = 2;
    job
}

fn spec(whose: &str, name: &str, sites: &[String], assignments: &[&str]) -> JobSpec {
    let sites: Vec<_> = sites.iter().map(|site| parse_site(site).expect("a site")).collect();
    let sources: Vec<Box<dyn Source>> = vec![Box::new(List::new(sites.into_iter()))];
    JobSpec { sources, ..JobSpec::new(tenant(whose), name, settings(assignments)) }
}

fn add(handle: &JobHandle, spec: JobSpec) -> JobId {
    handle.add_job(spec).unwrap_or_else(|error| panic!("{error}"))
}

fn counts(handle: &JobHandle, job: JobId) -> JobCounts {
    assert!(!handle.is_finished(), "it runs on");
    handle.job_progress(job).expect("counts").expect("it runs")
}

/// Waits until a job has discovered something and nothing of it is owed.
fn settled(handle: &JobHandle, job: JobId) -> JobCounts {
    until(&format!("all of {job:?} is settled"), || {
        let now = counts(handle, job);
        now.pages.discovered > 0 && now.is_settled()
    });
    counts(handle, job)
}

/// Where the state is of a graph with state and output there.
fn state_in(folder: &TempDir) -> String {
    folder.path().join("state").to_string_lossy().into_owned()
}

/// The results of a tenant, without its name; the ids of crops and originals say whose they are.
fn lines(state: &str, whose: &str, kind: Kind) -> Vec<Value> {
    let reader = Reader::open(StateLocation::new(state), whose, &Default::default()).expect("a ledger");
    let mut out = Vec::new();
    write_results(&reader, kind, Format::Jsonl, &mut out).expect("results");
    let text = String::from_utf8(out).expect("text");
    let own = format!("\"{whose}/");
    text.lines()
        .map(|line| serde_json::from_str(&line.replace(&own, "\"WHOSE/")).expect("JSON"))
        .map(|mut line: Value| {
            assert_eq!(line["tenant"], whose);
            line["tenant"] = Value::Null;
            line
        })
        .collect()
}

/// The originals and crops that results name, by their keys below the tenant's folder, with a digest of their bytes.
fn named_objects(folder: &Path, whose: &str, lines: &[Value]) -> BTreeMap<String, ContentId> {
    let crops =
        |line: &Value| line["faces"].as_array().into_iter().flatten().map(|face| face["crop"].clone()).collect();
    let keys = lines.iter().flat_map(|line| [vec![line["image"]["key"].clone()], crops(line)].concat());
    let keys = keys.filter_map(|key| key.as_str().and_then(|key| key.strip_prefix("WHOSE/")).map(str::to_owned));
    let read = |key: &str| {
        std::fs::read(folder.join("out").join(whose).join(key)).unwrap_or_else(|error| panic!("{key}: {error}"))
    };
    keys.map(|key| (key.clone(), ContentId::of(&read(&key)))).collect()
}

/// Pages and images of a tenant by state, once the graph has ended: until then it may still be decided which picture stands for which.
fn tallies(state: &str, whose: &str) -> (Tally, Tally) {
    use faceflow::core::ledger::Ledger;
    let ledger = DatabaseLedger::open(StateLocation::new(state), whose, &Default::default()).expect("a ledger");
    ledger.tally().expect("counts")
}

/// The state adds up for a tenant, row by row.
fn adds_up(state: &str, whose: &str) {
    use faceflow::core::ledger::Ledger;
    let ledger = DatabaseLedger::open(StateLocation::new(state), whose, &Default::default()).expect("a ledger");
    assert_eq!(ledger.audit(3), Ok(vec![]));
    assert_eq!(ledger.reader().replay_differences(), Ok(vec![]));
}

#[test]
fn tenants_of_one_graph_have_what_graphs_of_their_own_would_have_given_them() {
    let gallery = gallery_web(2, 9, 45);
    let starts = gallery.starts();
    let wanted =
        [("one", ["crawl.shape=all", "deliver.thumb_px=0"]), ("two", ["crawl.shape=all", "crawl.max_pages=4"])];
    let alone = wanted.map(|(whose, assignments)| {
        let folder = tempdir().expect("a folder");
        let mut job = job(folder.path(), &starts, &assignments);
        job.tenant = tenant(whose);
        (finish(job), folder)
    });
    gallery.world.log().clear();

    let folder = tempdir().expect("a folder");
    let handle = graph(folder.path(), &[]).start().expect("starts");
    let jobs = wanted.map(|(whose, assignments)| add(&handle, spec(whose, "crawl", &starts, &assignments)));
    for job in jobs {
        settled(&handle, job);
    }
    assert_eq!(handle.jobs().len(), 3);
    let summary = ended(handle);
    assert_eq!((summary.pages.discovered, summary.images.discovered), (0, 0), "the first tenant had nothing to do");
    for ((whose, _), (summary, own)) in wanted.iter().zip(&alone) {
        assert_eq!(tallies(&state_in(&folder), whose), (summary.pages, summary.images), "{whose}");
        for kind in [Kind::Pages, Kind::Images, Kind::Faces] {
            assert_eq!(lines(&state_in(&folder), whose, kind), lines(&state_in(own), whose, kind), "{whose}");
        }
        let images = lines(&state_in(own), whose, Kind::Images);
        let expected = named_objects(own.path(), whose, &images);
        assert!(expected.keys().any(|key| key.starts_with("faces")), "{whose}");
        assert!(named_objects(folder.path(), whose, &images) == expected, "{whose}: an object has other bytes");
        let thumbs = folder.path().join("out").join(whose).join("thumbs").is_dir();
        assert_eq!(thumbs, *whose == "two", "each has its own settings");
        assert!(folder.path().join("out").join(whose).join("report.html").is_file(), "each has its own views");
        adds_up(&state_in(&folder), whose);
    }
    let (one, two) = (alone[0].0.pages.done, alone[1].0.pages.done);
    assert!(one > two && two == 8, "the budget of one is not that of the other: {one} and {two}");
    // Each asks for itself.
    assert!(starts.iter().all(|start| gallery.world.log().count(start) == 2));
}

/// A web of so many sites that never answer.
fn silent_sites(web: &World, count: usize) -> Vec<String> {
    let site = |_| {
        let site = web.site();
        site.put("/", Answer::silent());
        site.url("/")
    };
    (0..count).map(site).collect()
}

#[test]
fn a_tenant_whose_work_hangs_in_all_of_the_window_holds_up_no_other() {
    let web = World::new();
    let (silent, quick) = (silent_sites(&web, 40), web.site());
    quick.page("/", "<img src=/a.jpg>").image("/a.jpg", jpeg(&picture(1, 200, 150), 90));
    let folder = tempdir().expect("a folder");
    let small = ["crawl.in_flight_max=16", "fetch.concurrency=200"];
    let handle = graph(folder.path(), &small).start().expect("starts");
    let many = add(&handle, spec("many", "crawl", &silent, &small));
    until("the window is full of what hangs", || silent.iter().filter(|url| web.log().count(url) > 0).count() >= 14);
    let few = add(&handle, spec("few", "crawl", &[quick.url("/")], &small));
    let counts = settled(&handle, few);
    assert_eq!((counts.pages.done, counts.images.done), (1, 1));
    let hangs = self::counts(&handle, many);
    assert!(hangs.pages.discovered >= 16 && hangs.pages.done == 0, "{hangs:?}");
    handle.cancel();
    ended(handle);
}

/// A site of so many pages, each of which takes a while and shows a picture of its own.
fn slow_site(web: &World, pages: u64, seed: u64) -> (String, Vec<String>) {
    let site = web.site();
    let links: String = (0..pages).map(|n| format!("<a href=/p{n}>p</a>")).collect();
    site.put("/", Answer::ok("text/html", links));
    for n in 0..pages {
        site.put(&format!("/p{n}"), Answer::ok("text/html", format!("<img src=/{n}.jpg>")).delayed(150));
        site.image(&format!("/{n}.jpg"), jpeg(&picture(seed + n, 200, 150), 90));
    }
    let urls = (0..pages).flat_map(|n| [site.url(&format!("/p{n}")), site.url(&format!("/{n}.jpg"))]);
    (site.url("/"), urls.collect())
}

const SLOW: [&str; 4] = ["crawl.shape=all", "fetch.per_host=1", "fetch.per_ip=200", "crawl.in_flight_per_host=2"];

#[test]
fn a_job_that_is_removed_leaves_its_open_work_to_whoever_adds_it_again_and_the_others_end_as_ever() {
    let web = World::new();
    let (slow, urls) = slow_site(&web, 20, 100);
    let (other, other_urls) = slow_site(&web, 4, 200);
    let folder = tempdir().expect("a folder");
    let handle = graph(folder.path(), &SLOW).start().expect("starts");
    let leaves = add(&handle, spec("acme", "leaves", std::slice::from_ref(&slow), &SLOW));
    until("some of it is done", || counts(&handle, leaves).pages.done > 3);
    let stays = add(&handle, spec("acme", "stays", &[other], &SLOW));
    assert_eq!((leaves.tenant, leaves == stays), (stays.tenant, false));
    assert!(handle.remove_job(leaves) && !handle.remove_job(leaves));
    let done = settled(&handle, stays);
    assert_eq!((done.pages.done, done.images.done), (5, 4));
    let left = counts(&handle, leaves);
    assert!(left.pages.open > 3 && left.pages.discovered == 21, "{left:?}");
    let summary = ended(handle);
    assert!(!summary.outcome.interrupted && summary.outcome.next_due.is_none(), "{:?}", summary.outcome);
    adds_up(&state_in(&folder), "acme");

    let handle = graph(folder.path(), &SLOW).start().expect("starts");
    assert_eq!(add(&handle, spec("acme", "leaves", &[], &SLOW)), leaves, "it is the same job");
    let done = settled(&handle, leaves);
    assert_eq!((done.pages.done, done.images.done), (21, 20));
    // Without its own job, the handle has nobody to add a source for.
    assert!(handle.remove_job(handle.id()));
    let source = Box::new(List::new(std::iter::empty()));
    assert!(matches!(handle.add_source(source), Err(AddSourceError::Closed)));
    ended(handle);
    let asked: Vec<_> = urls.iter().chain(&other_urls).map(|url| web.log().count(url)).collect();
    assert!(asked.iter().all(|count| *count == 1), "nothing is asked for twice: {asked:?}");
}

#[test]
fn a_job_is_removed_also_once_the_input_has_ended() {
    let web = World::new();
    let (slow, _urls) = slow_site(&web, 40, 100);
    let folder = tempdir().expect("a folder");
    let handle = graph(folder.path(), &SLOW).start().expect("starts");
    let job = add(&handle, spec("acme", "leaves", &[slow], &SLOW));
    handle.close_input();
    until("the input has ended", || handle.progress().expect("progress").sources.is_empty());
    until("some of it is done", || counts(&handle, job).pages.done > 3);
    assert!(handle.remove_job(job) && handle.jobs() == [handle.id()]);
    ended(handle);
    let (pages, _) = tallies(&state_in(&folder), "acme");
    assert!(pages.open > 3 && pages.discovered == 41, "its open work stays: {pages:?}");
    adds_up(&state_in(&folder), "acme");
}

/// A crawl of the same sites for two tenants, on a state in a folder or on a server.
struct Crawl {
    starts: Vec<String>,
    folder: PathBuf,
    state: String,
}

const ALL: [&str; 1] = ["crawl.shape=all"];

impl Crawl {
    fn begin(&self) -> (JobHandle, [JobId; 2]) {
        let graph = Job { state: self.state.clone(), ..graph(&self.folder, &ALL) };
        let handle = graph.start().expect("starts");
        let jobs = ["one", "two"].map(|whose| add(&handle, spec(whose, "crawl", &self.starts, &ALL)));
        (handle, jobs)
    }

    /// Goes on to the end, which is that of a crawl that nothing disturbed.
    fn goes_on(&self, undisturbed: &TempDir) {
        let (handle, jobs) = self.begin();
        // Which picture stands for which may still be decided after the last of them is settled.
        for job in jobs {
            settled(&handle, job);
        }
        ended(handle);
        for kind in [Kind::Pages, Kind::Images, Kind::Faces] {
            let expected = without_attempts(lines(&state_in(undisturbed), "one", kind));
            for whose in ["one", "two"] {
                assert_eq!(without_attempts(lines(&self.state, whose, kind)), expected, "{whose}");
            }
        }
        ["one", "two"].iter().for_each(|whose| adds_up(&self.state, whose));
    }
}

/// The crawl of one of the tenants, by a graph of its own.
fn undisturbed(gallery: &Gallery) -> TempDir {
    let folder = tempdir().expect("a folder");
    let mut alone = job(folder.path(), &gallery.starts(), &ALL);
    alone.tenant = tenant("one");
    finish(alone);
    gallery.world.log().clear();
    folder
}

/// A graph of two tenants is cancelled again and again.
fn is_cut_off_and_goes_on(state: Option<String>) {
    let gallery = gallery_web(2, 9, 45);
    let (undisturbed, folder) = (undisturbed(&gallery), tempdir().expect("a folder"));
    let state = state.unwrap_or_else(|| state_in(&folder));
    let crawl = Crawl { starts: gallery.starts(), folder: folder.path().to_owned(), state };
    for images in [5, 12, 30] {
        let (handle, jobs) = crawl.begin();
        until("something is done", || {
            let done = jobs.map(|job| counts(&handle, job).images.done);
            done.iter().sum::<u64>() >= images
        });
        handle.cancel();
        assert!(ended(handle).outcome.interrupted);
    }
    crawl.goes_on(&undisturbed);
}

#[test]
fn a_graph_of_two_tenants_that_is_cut_off_loses_nothing() {
    is_cut_off_and_goes_on(None);
}

#[test]
fn nor_does_one_on_a_server() {
    let Some(server) = Server::shared() else { return };
    is_cut_off_and_goes_on(Some(server.schema("postgres")));
}

/// Where the process that is killed finds its crawl.
const CHILD: &str = "FACEFLOW_TEST_TENANTS_CHILD";

#[test]
#[ignore = "it is the process that the next test kills"]
fn a_process_that_is_killed() {
    let Ok(text) = std::env::var(CHILD) else { return };
    let mut words = text.split_whitespace().map(str::to_owned);
    let folder = PathBuf::from(words.next().expect("a folder"));
    let state = folder.join("state").to_string_lossy().into_owned();
    let (handle, _) = Crawl { starts: words.collect(), folder, state }.begin();
    ended(handle);
}

#[test]
fn a_graph_of_two_tenants_whose_process_is_killed_loses_nothing() {
    let gallery = gallery_web(2, 9, 45);
    let (undisturbed, folder) = (undisturbed(&gallery), tempdir().expect("a folder"));
    let crawl = Crawl { starts: gallery.starts(), folder: folder.path().to_owned(), state: state_in(&folder) };
    for requests in [4, 25, 60, 90] {
        let mut child = Command::new(std::env::current_exe().expect("this program"));
        let place = [vec![folder.path().to_string_lossy().into_owned()], crawl.starts.clone()].concat().join(" ");
        child.args(["--ignored", "--exact", "a_process_that_is_killed"]).env(CHILD, place);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        until("it has asked for something", || {
            gallery.world.log().total() >= requests || child.try_wait().expect("is ours").is_some()
        });
        // SIGKILL.
        child.kill().expect("is ours");
        let ended = child.wait().expect("is ours");
        assert!(!ended.success() || requests > 60, "it was killed before its end: {ended}");
    }
    crawl.goes_on(&undisturbed);
}

fn without_attempts(mut lines: Vec<Value>) -> Vec<Value> {
    lines.iter_mut().filter_map(Value::as_object_mut).for_each(|line| drop(line.remove("attempts")));
    lines
}

#[test]
fn what_a_graph_cannot_serve_is_refused_with_the_reason() {
    let folder = tempdir().expect("a folder");
    let handle = graph(folder.path(), &[]).start().expect("starts");
    let refused = |spec| handle.add_job(spec).expect_err("is refused");
    let process = refused(spec("a", "x", &[], &["crawl.in_flight_max=7", "detect.batch_max=3"]));
    assert!(
        matches!(&process, AddJobError::ProcessSettings(keys) if *keys == ["crawl.in_flight_max", "detect.batch_max"])
    );
    assert!(matches!(refused(spec("a", "", &[], &[])), AddJobError::Name(_)));
    let first = add(&handle, spec("a", "x", &[], &["dedupe.radius_bits=3"]));
    assert!(
        matches!(refused(spec("a", "x", &[], &["dedupe.radius_bits=3"])), AddJobError::Running(job) if job == first)
    );
    let of_tenant = refused(spec("a", "y", &[], &["dedupe.radius_bits=4"]));
    assert!(of_tenant.to_string().contains("dedupe.radius_bits"), "{of_tenant}");
    add(&handle, spec("b", "y", &[], &["dedupe.radius_bits=4"]));
    assert!(matches!(refused(spec("default", "default", &[], &[])), AddJobError::Running(job) if job == handle.id()));
    assert_eq!(handle.jobs().len(), 3);
    handle.close_input();
    assert!(matches!(refused(spec("c", "z", &[], &[])), AddJobError::Closed));
    ended(handle);
}
