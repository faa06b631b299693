//! Alternates: behind one image, opened one after the other, never left behind one that failed.

use super::*;
use crate::Selection;

both![
    alternates_follow_their_primary,
    the_best_alternate_takes_over_then_the_next,
    an_alternate_of_an_image_that_failed_long_ago_is_tried_at_once,
    an_alternate_shown_in_its_own_right_is_an_image_like_any_other,
    an_alternate_of_several_images_is_tried_when_the_turn_of_any_comes_whatever_happens_first,
    an_alternate_shares_the_fate_of_a_picture_whose_detection_died,
];

fn alternates_follow_their_primary() {
    let rig = Rig::showing(vec![image_with("/a", &["/a2", "/a3"])]);
    assert_eq!(rig.statuses(), ["open", "open", "open"]);
    assert_eq!(rig.owed().len(), 1, "alternates are not downloaded");
    rig.tell(kept(image("/a"), "one"));
    assert_eq!(rig.statuses(), ["open", "open", "open"]);
    rig.tell(delivered("one", 1));
    assert_eq!(rig.statuses(), ["done", "duplicate", "duplicate"]);
    let line = rig.line("/a2");
    assert_eq!(line["duplicate_of"], content("one").id.to_string());
    assert_eq!((&line["image"], &line["distance"], &line["faces"]), (&Value::Null, &Value::Null, &Value::Null));
}

fn the_best_alternate_takes_over_then_the_next() {
    let rig = Rig::showing(vec![image_with("/a", &["/z", "/b", "/c"])]);
    let news = rig.tell(rejected(image("/a")));
    assert_eq!(news, [opened("/z", 0)]);
    assert_eq!(rig.owed(), [(0, "/z".to_owned())], "the best by rank");
    rig.tell(retry(image("/z"), 5));
    rig.tell(dead(image("/z")));
    assert_eq!(rig.owed(), [(0, "/b".to_owned())]);
    rig.tell_all([kept(image("/b"), "one"), delivered("one", 0)]);
    let by_url = ["rejected", "done", "duplicate", "dead"];
    assert_eq!(rig.statuses(), by_url);
    // Seen again with another address: a worse one than what stands is not tried.
    rig.tell(admitted(vec![page("/p", 0)]));
    assert_eq!(rig.tell(read(page("/p", 0), vec![], vec![image_with("/a", &["/z", "/b", "/y"])])), []);
    assert_eq!(rig.line("/y")["status"], "duplicate");
}

fn an_alternate_of_an_image_that_failed_long_ago_is_tried_at_once() {
    let rig = Rig::showing(vec![image("/a")]);
    assert_eq!(rig.tell(dead(image("/a"))), []);
    rig.tell(admitted(vec![page("/p", 0)]));
    let seen = Image { page: url("/p"), ..image_with("/a", &["/b", "/c"]) };
    rig.tell(read(page("/p", 0), vec![], vec![seen]));
    assert_eq!(owed(rig.ledger()), [(0, Work::Image(Image { page: url("/p"), ..image("/b") }))]);
    assert_eq!(rig.statuses(), ["dead", "open", "open"]);
    rig.tell_all([kept(image("/b"), "one"), delivered("one", 0)]);
    assert_eq!(rig.statuses(), ["dead", "done", "duplicate"]);
    assert_eq!(wait(rig.ledger().redrive(Selection { dead: true, ..Selection::default() })), Ok(1));
    rig.check();
    rig.tell(dead(image("/a")));
}

fn an_alternate_shown_in_its_own_right_is_an_image_like_any_other() {
    for settle_first in [false, true] {
        let rig = Rig::showing(vec![image_with("/a", &["/b", "/c"])]);
        if settle_first {
            rig.tell_all([kept(image("/a"), "one"), delivered("one", 0)]);
        }
        rig.tell(admitted(vec![page("/p", 0)]));
        rig.tell(read(page("/p", 0), vec![], vec![image_with("/b", &["/a", "/b"])]));
        assert!(rig.owed().contains(&(0, "/b".to_owned())));
        rig.tell(rejected(image("/b")));
        let expected = if settle_first { ["done", "rejected", "duplicate"] } else { ["open", "rejected", "open"] };
        assert_eq!(rig.statuses(), expected);
    }
}

fn an_alternate_of_several_images_is_tried_when_the_turn_of_any_comes_whatever_happens_first() {
    // /x is the only other address of /a and of /c, and the last of /b.
    let offers = [("/a", vec!["/x"]), ("/b", vec!["/y", "/x"]), ("/c", vec!["/x", "/z"])];
    let fates = |order: [usize; 3], late: bool| {
        let images: Vec<Image> = offers.iter().map(|(image, others)| image_with(image, others)).collect();
        let rig = Rig::showing(if late { vec![] } else { images.clone() });
        for n in order {
            if late {
                let path = format!("/page{n}");
                rig.tell(admitted(vec![page(&path, 1)]));
                let shown = Image { page: url(&path), ..images[n].clone() };
                rig.tell(read(page(&path, 1), vec![], vec![shown]));
            }
            let fact = if n == 2 { kept(image("/c"), "one") } else { rejected(image(offers[n].0)) };
            rig.tell(fact);
        }
        rig.tell(rejected(image("/y")));
        rig.tell_all([kept(image("/x"), "two"), delivered("one", 0), delivered("two", 1)]);
        let sql = "SELECT e.url FROM events f JOIN entries e ON e.id = f.entry WHERE f.kind = 'opened' ORDER BY e.url";
        let opened = rig.reader().read(|tx| tx.list(sql, &[], |row| row.get::<String>(0))).expect("reads");
        let lines = rig.images().into_iter().map(|line| (line["status"].clone(), line["duplicate_of"].clone()));
        (opened, lines.collect::<Vec<_>>())
    };
    let expected = fates([0, 1, 2], false);
    assert_eq!(expected.0, ["http://a.example/x", "http://a.example/y"]);
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for late in [false, true] {
            assert_eq!(fates(order, late), expected, "{order:?} {late}");
        }
    }
}

fn an_alternate_shares_the_fate_of_a_picture_whose_detection_died() {
    let rig = Rig::showing(vec![image_with("/a", &["/b"])]);
    rig.tell(kept(image("/a"), "one"));
    rig.tell(dead(Work::Frame(frame("one"))));
    assert_eq!(rig.statuses(), ["dead", "dead"]);
    assert_eq!(rig.line("/b")["reason"], "http_503");
}
