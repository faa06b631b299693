//! A healthy ledger breaks no invariant; one that is damaged is told by which invariant, and where.

use super::*;
use crate::StateLocation;

both![damage_is_named_by_its_invariant_and_its_key, what_a_page_leads_to_is_not_forgotten];

/// An invariant, and what is named as breaking it, if that is looked at.
type Expected = (&'static str, Option<String>);

/// Runs a statement beside the ledger, whatever its schema thinks of it.
fn damage(rig: &Rig, sql: &str) {
    if let StateLocation::Server(_) = rig.home.place() {
        // Nobody has what is not open: there the schema does not look away.
        return rig.home.sql(&sql.replace("SET state = 'dead'", "SET run = NULL, state = 'dead'"));
    }
    let file = rusqlite::Connection::open(rig.home.path().join("ledger.sqlite")).expect("opens");
    file.pragma_update(None, "ignore_check_constraints", true).expect("sets");
    file.pragma_update(None, "foreign_keys", false).expect("sets");
    assert!(file.execute(sql, []).expect("runs") > 0, "{sql} changes nothing");
}

/// A page that shows: /a with the alternate /a2, of one content with /b and standing for /c; /d, which is owed; /e with the
/// alternate /e2, owed too; /f, which failed, with /f2, which stands for it, and /f3.
fn healthy() -> Rig {
    let rig = Rig::showing(vec![
        image_with("/a", &["/a2"]),
        image("/b"),
        image("/c"),
        image("/d"),
        image_with("/e", &["/e2"]),
        image_with("/f", &["/f2", "/f3"]),
    ]);
    rig.tell_all([kept(image("/a"), "one"), kept(image("/b"), "one"), kept(image("/c"), "two")]);
    rig.tell_all([delivered("one", 1), ruled("two", "one", 3), rejected(image("/f"))]);
    rig
}

fn broken(rig: &Rig) -> Vec<(&'static str, Vec<String>)> {
    let broken = rig.reader().audit(2).expect("reads");
    broken.into_iter().map(|broken| (broken.invariant, broken.keys)).collect()
}

fn damage_is_named_by_its_invariant_and_its_key() {
    let site = url("/").to_string();
    let picture = |name: &str, main: &str| format!("{} ({})", content(name).id, url(main));
    let entry = |path: &str| format!("(SELECT id FROM entries WHERE url = '{}')", url(path));
    let of = |name: &str| format!("(SELECT picture FROM entries WHERE url = '{}')", url(name));
    let urls = "a picture counts the URLs that lead to it";
    let counts = "pages and images are counted by what they are";
    let cases: Vec<(String, Vec<Expected>)> = vec![
        (format!("UPDATE pictures SET urls = 1 WHERE id = {}", of("/a")), vec![(urls, Some(picture("one", "/a")))]),
        (
            format!("UPDATE pictures SET behind = 0 WHERE id = {}", of("/a")),
            vec![("a picture counts the alternates that stand behind its URLs", Some(picture("one", "/a")))],
        ),
        (
            format!("UPDATE pictures SET main = {} WHERE id = {}", entry("/b"), of("/a")),
            vec![("the main URL of a picture is the smallest that leads to it", Some(picture("one", "/b")))],
        ),
        (
            format!("DELETE FROM detections WHERE picture = {}", of("/a")),
            vec![("a settled picture has a detection, a dead one has none", Some(picture("one", "/a")))],
        ),
        (
            format!("UPDATE pictures SET representative = {}, distance = 1 WHERE id = {}", of("/c"), of("/a")),
            vec![("a picture that stands for others is settled", Some(picture("two", "/c"))), (counts, None)],
        ),
        (
            format!("UPDATE entries SET state = 'dead' WHERE id = {}", entry("/e")),
            vec![
                ("an alternate stands behind an image that is open or settled", Some(url("/e2").to_string())),
                (
                    "while an image that failed has an alternate left, one of them is open or settled",
                    Some(url("/e").to_string()),
                ),
                (counts, None),
            ],
        ),
        (
            format!("DELETE FROM offers WHERE alternate = {}", entry("/e2")),
            vec![("an alternate is offered by an image", Some(url("/e2").to_string()))],
        ),
        (
            format!("UPDATE entries SET queue = 0 WHERE id = {}", entry("/d")),
            vec![("what is open waits in a queue that is dispatched", Some(url("/d").to_string()))],
        ),
        (
            format!("UPDATE entries SET site = 999 WHERE id = {}", entry("/d")),
            vec![("every row that is named is there", Some("entries.site 999".to_owned()))],
        ),
        (
            "UPDATE sites SET images = images + 1".to_owned(),
            vec![("a site counts the images that it shows", Some(site))],
        ),
        (
            "UPDATE sites SET pages = pages + 1".to_owned(),
            vec![("sites together count every page once", Some("2 counted, 1 there".to_owned()))],
        ),
        (
            "UPDATE tallies SET open = open + 1 WHERE kind = 'image'".to_owned(),
            vec![(
                counts,
                Some(
                    "images are kept as 10 discovered: 1 done, 3 duplicate, 1 rejected, 0 dead, 6 open, \
                     and there are 10 discovered: 1 done, 3 duplicate, 1 rejected, 0 dead, 5 open"
                        .to_owned(),
                ),
            )],
        ),
    ];
    for (sql, expected) in cases {
        let rig = healthy();
        damage(&rig, &sql);
        let found = broken(&rig);
        assert_eq!(found.len(), expected.len(), "{sql}: {found:?}");
        for ((invariant, keys), (expected, key)) in found.iter().zip(expected) {
            assert_eq!(*invariant, expected, "{sql}");
            assert!(key.as_ref().is_none_or(|key| keys == std::slice::from_ref(key)), "{sql}: {keys:?} not {key:?}");
        }
    }
    let rig = healthy();
    if let StateLocation::Server(_) = rig.home.place() {
        damage(&rig, "UPDATE entries SET run = NULL WHERE state = 'open'");
        let open = rig.reader().audit(2).expect("reads");
        let [open] = &open[..] else { panic!("{open:?}") };
        assert_eq!((open.invariant, open.keys.len(), open.more), ("what is open is with a run", 2, true));
    } else {
        // Here the schema can be told to look away.
        damage(&rig, &format!("UPDATE entries SET picture = NULL WHERE id = {}", entry("/b")));
        let invariants = broken(&rig);
        assert_eq!(
            invariants[0],
            ("every settled image has a picture, and nothing else has one", vec![url("/b").to_string()])
        );
        assert_eq!(invariants[1], (urls, vec![picture("one", "/a")]));
    }
}

fn what_a_page_leads_to_is_not_forgotten() {
    let rig = Rig::new();
    rig.tell(start());
    rig.tell(read(page("/", 0), vec![page("/a", 1), page("/b", 1)], vec![]));
    rig.tell(read(page("/b", 1), vec![page("/b1", 2)], vec![]));
    damage(&rig, &format!("UPDATE entries SET sequence = NULL WHERE url = '{}'", url("/a")));
    let invariant = "what a page leads to waits for an earlier turn of its site, or is taken up";
    assert_eq!(broken(&rig), [(invariant, vec![url("/b").to_string()])]);
    // Whoever opens the state next goes on with it.
    let rig = rig.reopened();
    assert_eq!(broken(&rig), []);
    assert!(rig.owed().contains(&(0, "/b1".to_owned())));
}
