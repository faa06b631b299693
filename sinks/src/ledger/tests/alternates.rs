//! Alternates: behind one image, opened one after the other, never left behind one that failed.

use super::*;
use crate::ledger::Selection;

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
    let opened = rig.tell(rejected(image("/a")));
    assert_eq!(opened, [image("/z")], "the best by rank");
    assert_eq!(rig.owed(), [(0, "/z".to_owned())]);
    rig.tell(retry(image("/z"), 5));
    assert_eq!(rig.tell(dead(image("/z"))), [image("/b")]);
    rig.tell_all([kept(image("/b"), "one"), delivered("one", 0)]);
    let by_url = ["rejected", "done", "duplicate", "dead"];
    assert_eq!(rig.statuses(), by_url);
    // Seen again with another address: a worse one than what stands is not tried.
    rig.tell(Fact::Admitted(Admitted { visit: None, pages: vec![page("/p", 0)], images: vec![] }));
    assert_eq!(rig.tell(read(page("/p", 0), vec![], vec![image_with("/a", &["/z", "/b", "/y"])])), []);
    assert_eq!(rig.line("/y")["status"], "duplicate");
}

fn an_alternate_of_an_image_that_failed_long_ago_is_tried_at_once() {
    let rig = Rig::showing(vec![image("/a")]);
    assert_eq!(rig.tell(dead(image("/a"))), []);
    rig.tell(Fact::Admitted(Admitted { visit: None, pages: vec![page("/p", 0)], images: vec![] }));
    let seen = Image { page: url("/p"), ..image_with("/a", &["/b", "/c"]) };
    let opened = rig.tell(read(page("/p", 0), vec![], vec![seen]));
    assert_eq!(opened, [Image { page: url("/p"), ..image("/b") }]);
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
        rig.tell(Fact::Admitted(Admitted { visit: None, pages: vec![page("/p", 0)], images: vec![] }));
        assert_eq!(rig.tell(read(page("/p", 0), vec![], vec![image_with("/b", &["/a", "/b"])])), []);
        assert_eq!(rig.line("/b")["status"], "open");
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
        let mut opened = vec![];
        for n in order {
            if late {
                let path = format!("/page{n}");
                rig.tell(Fact::Admitted(Admitted { visit: None, pages: vec![page(&path, 1)], images: vec![] }));
                let shown = Image { page: url(&path), ..images[n].clone() };
                opened.extend(rig.tell(read(page(&path, 1), vec![], vec![shown])));
            }
            let fact = if n == 2 { kept(image("/c"), "one") } else { rejected(image(offers[n].0)) };
            opened.extend(rig.tell(fact));
        }
        opened.extend(rig.tell(rejected(image("/y"))));
        rig.tell_all([kept(image("/x"), "two"), delivered("one", 0), delivered("two", 1)]);
        let mut opened: Vec<String> = opened.into_iter().map(|image| image.url.path().to_owned()).collect();
        opened.sort();
        let lines =
            rig.lines(Kind::Images).into_iter().map(|line| (line["status"].clone(), line["duplicate_of"].clone()));
        (opened, lines.collect::<Vec<_>>())
    };
    let expected = fates([0, 1, 2], false);
    assert_eq!(expected.0, ["/x", "/y"]);
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
