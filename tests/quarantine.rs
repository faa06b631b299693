//! Facts that a real database refuses, planted by triggers: the run ends by itself with everything else recorded, and says which;
//! a retry drives them again.

mod support;
mod world;

use std::collections::BTreeMap;
use std::path::Path;

use faceflow::core::record::ContentId;
use faceflow::job::{Job, Summary};
use faceflow::ledger::{DatabaseLedger, Reader, StateLocation};
use faceflow::views::results::{Format, Kind, write_results};
use serde_json::Value;
use tempfile::{TempDir, tempdir};
use world::postgres::Server;
use world::{Faceflow, Site, World, jpeg, mark, picture};

const PAGES: u64 = 4;
const IMAGES: u64 = 6;

/// A site of pages that show pictures with a face each, all different.
struct Web {
    #[allow(dead_code, reason = "serves as long as it lives")]
    world: World,
    site: Site,
}

fn bytes(page: u64, n: u64) -> Vec<u8> {
    let mut picture = picture(1_000 + page * 100 + n, 288, 216);
    mark(&mut picture, [40, 40, 90, 90]);
    jpeg(&picture, 90)
}

fn web() -> Web {
    let world = World::new();
    let site = world.site();
    let links: String = (1..PAGES).map(|page| format!("<a href=/p{page}.html>p</a>")).collect();
    for page in 0..PAGES {
        let shown: String = (0..IMAGES).map(|n| format!("<img src=/{page}-{n}.jpg>")).collect();
        let path = if page == 0 { "/".to_owned() } else { format!("/p{page}.html") };
        site.page(&path, format!("{links}{shown}"));
        for n in 0..IMAGES {
            site.image(&format!("/{page}-{n}.jpg"), bytes(page, n));
        }
    }
    Web { world, site }
}

/// A place for a state, and the output beside it.
struct Place {
    folder: TempDir,
    state: String,
}

impl Place {
    fn folder() -> Self {
        let folder = tempdir().expect("a folder");
        let state = folder.path().join("state").display().to_string();
        Self { folder, state }
    }

    fn server(server: &Server) -> Self {
        Self { folder: tempdir().expect("a folder"), state: server.schema("postgres") }
    }

    fn run(&self, web: &Web) -> Summary {
        let mut job: Job = support::job(self.folder.path(), &[web.site.url("/")], &[]);
        job.state.clone_from(&self.state);
        job.options.workers = 2;
        support::finish(job)
    }

    fn is_server(&self) -> bool {
        self.state.starts_with("postgres:")
    }

    fn sql(&self, statements: &str) {
        if self.is_server() {
            Server::sql(&self.state, statements);
            return;
        }
        let file = Path::new(&self.state).join("ledger.sqlite");
        rusqlite::Connection::open(file).expect("opens").execute_batch(statements).expect("runs");
    }

    /// From now on these rows are refused.
    fn plant(&self, poisons: &[(&str, &str, String)]) {
        drop(DatabaseLedger::open(StateLocation::new(&self.state), "default", &Default::default()).expect("is made"));
        if self.is_server() {
            self.sql(
                "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'planted poison'; END $$",
            );
        }
        for (n, (event, table, when)) in poisons.iter().enumerate() {
            let trigger = format!("CREATE TRIGGER poison{n} BEFORE {event} ON {table}");
            self.sql(&match self.is_server() {
                true => format!("{trigger} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION poison()"),
                false => format!("{trigger} WHEN {when} BEGIN SELECT RAISE(ABORT, 'planted poison'); END"),
            });
        }
    }

    fn cure(&self, poisons: &[(&str, &str, String)]) {
        for (n, (_, table, _)) in poisons.iter().enumerate() {
            let on = if self.is_server() { format!(" ON {table}") } else { String::new() };
            self.sql(&format!("DROP TRIGGER poison{n}{on}"));
        }
    }

    /// The results by path: status, reason, and how many faces.
    fn lines(&self) -> BTreeMap<String, (String, Option<String>, Option<usize>)> {
        let reader = Reader::open(StateLocation::new(&self.state), "default", &Default::default()).expect("opens");
        let mut lines = BTreeMap::new();
        for kind in [Kind::Pages, Kind::Images] {
            let mut out = Vec::new();
            write_results(&reader, kind, Format::Jsonl, &mut out).expect("writes");
            for line in String::from_utf8(out).expect("text").lines() {
                let line: Value = serde_json::from_str(line).expect("JSON");
                let text = |key: &str| line[key].as_str().map(str::to_owned);
                let faces = line["faces"].as_array().map(Vec::len);
                lines.insert(text("url").expect("a URL"), (text("status").expect("one"), text("reason"), faces));
            }
        }
        lines
    }

    /// What the binary says, with its exit status.
    fn says(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let faceflow = Faceflow::new(env!("CARGO_BIN_EXE_faceflow"), self.folder.path());
        let ended = faceflow.run(&[arguments, &["--state", &self.state]].concat());
        (ended.code(), ended.stdout + &ended.stderr)
    }
}

fn a_run_ends_by_itself_with_everything_else(place: &Place) {
    let web = web();
    let clean = Place::folder();
    clean.run(&web);
    let expected = clean.lines();
    assert!(expected.values().all(|(status, ..)| status == "done"), "{expected:?}");

    let url = |path: &str| web.site.url(path);
    let hex: String = ContentId::of(&bytes(3, 4)).to_string().trim_start_matches("sha256:").to_owned();
    let content = if place.is_server() { format!("'\\x{hex}'") } else { format!("x'{hex}'") };
    let poisons = [
        // One is not admitted, one not stored, one page not read; of one even the end is refused, and of one its detection.
        ("INSERT", "entries", format!("NEW.url = '{}'", url("/1-2.jpg"))),
        ("UPDATE", "entries", format!("NEW.url = '{}' AND NEW.state = 'settled'", url("/2-3.jpg"))),
        ("UPDATE", "entries", format!("NEW.url = '{}' AND NEW.state = 'settled'", url("/p3.html"))),
        ("UPDATE", "entries", format!("NEW.url = '{}'", url("/0-1.jpg"))),
        ("UPDATE", "pictures", format!("NEW.content = {content} AND NEW.state = 'settled'")),
    ];
    let content_url = url("/3-4.jpg");
    // The page that is not read shows the picture, so that is shown elsewhere too.
    let shown = format!("<img src={content_url}>");
    let links: String = (1..PAGES).map(|page| format!("<a href=/p{page}.html>p</a>")).collect();
    let images: String = (0..IMAGES).map(|n| format!("<img src=/0-{n}.jpg>")).collect();
    web.site.page("/", format!("{links}{images}{shown}"));
    place.plant(&poisons);
    for attempt in 0..2 {
        // And a second time, as after a restart.
        let summary = place.run(&web);
        let named = &summary.quarantined_facts;
        assert_eq!((summary.quarantined, named.len()), (5, 5), "{attempt}: {named:?}");
        assert!(named.iter().all(|fact| fact.reason.contains("planted poison")), "{named:?}");
    }
    let lines = place.lines();
    let dead = ("dead".to_owned(), Some("quarantined".to_owned()), None);
    for (of, expected) in &expected {
        let found = lines.get(of);
        let unread = (0..IMAGES).filter(|n| *n != 4).any(|n| *of == url(&format!("/3-{n}.jpg")));
        match of {
            _ if unread || *of == url("/1-2.jpg") => assert_eq!(found, None, "{of} was not discovered"),
            of if [url("/2-3.jpg"), url("/p3.html"), content_url.clone()].contains(of) => {
                assert_eq!(found, Some(&dead), "{of}");
            }
            of if *of == url("/0-1.jpg") => assert_eq!(found.map(|line| line.0.as_str()), Some("open"), "{of}"),
            of => assert_eq!(found, Some(expected), "{of}"),
        }
    }
    let (code, status) = place.says(&["status"]);
    assert_eq!(code, Some(0), "{status}");
    assert!(status.contains("quarantined  5 facts") && status.contains(&url("/1-2.jpg")), "{status}");
    for path in ["/1-2.jpg", "/2-3.jpg", "/p3.html", "/0-1.jpg", "/3-4.jpg"] {
        let (code, told) = place.says(&["explain", &url(path)]);
        assert_eq!(code, Some(0), "{told}");
        assert!(told.contains("quarantined at") && told.contains("planted poison"), "{path}: {told}");
    }

    place.cure(&poisons);
    let (code, driven) = place.says(&["retry", "--dead"]);
    assert_eq!(code, Some(0), "{driven}");
    assert!(driven.contains("5 entries are due now"), "{driven}");
    let summary = place.run(&web);
    assert_eq!((summary.quarantined, summary.images.dead, summary.images.open), (0, 0, 0));
    assert_eq!(place.lines(), expected, "as if nothing had ever been refused");
    assert!(!place.says(&["status"]).1.contains("quarantined"));
}

#[test]
fn a_file_that_refuses_facts() {
    a_run_ends_by_itself_with_everything_else(&Place::folder());
}

#[test]
fn a_server_that_refuses_facts() {
    let Some(server) = Server::shared() else { return };
    a_run_ends_by_itself_with_everything_else(&Place::server(server));
}
