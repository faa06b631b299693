//! Sidecars say what the results say, are written when something changed, and not before.

use faceflow_core::Future;
use faceflow_core::ledger::Ledger;
use faceflow_core::object_key::crop_key;
use faceflow_core::record::{Frame, Image, Work};
use faceflow_core::sink::Listing;
use faceflow_ledger::both;
use faceflow_ledger::testing::{
    Rig, admitted, content, delivered, delivered_at, delivered_later, frame, image, image_with, kept, owed, page, read,
    retry, ruled, url, wait,
};
use faceflow_store::Objects;
use serde_json::Value;

use super::*;

both![
    a_sidecar_is_the_line_with_pages_urls_and_evidence,
    another_page_that_shows_a_settled_image_is_added,
    what_the_store_did_not_take_is_written_next_time,
    crops_that_no_answer_names_are_deleted_once_the_next_answer_is_recorded,
];

fn sidecar(store: &Objects, name: &str) -> Value {
    let body = wait(store.get(meta_key("default", content(name).id))).expect("is there");
    serde_json::from_slice(&body).expect("JSON")
}

fn write(rig: &Rig, store: &Objects) -> usize {
    wait(write_sidecars(rig.ledger(), store)).expect("writes")
}

fn a_sidecar_is_the_line_with_pages_urls_and_evidence() {
    let (rig, store) =
        (Rig::showing(vec![image("/a"), image("/b"), image("/c")]), Objects::open("memory://").expect("opens"));
    rig.tell_all([kept(image("/b"), "one"), kept(image("/a"), "one"), kept(image("/c"), "two")]);
    assert_eq!(write(&rig, &store), 0, "nothing is settled");
    rig.tell(delivered("one", 1));
    assert_eq!(write(&rig, &store), 1);
    let said = sidecar(&store, "one");
    let line = rig.line("/a");
    for (field, value) in line.as_object().expect("an object") {
        assert_eq!(&said[field], value, "{field}");
    }
    assert_eq!(said["pages"], serde_json::json!([url("/").as_str()]));
    assert_eq!(said["urls"], serde_json::json!([url("/a").as_str(), url("/b").as_str()]));
    assert_eq!(said["headers"][url("/b").as_str()], serde_json::json!([["etag", "\"one\""]]));
    // The score is written as the engine gave it, not as its nearest double.
    let body = wait(store.get(meta_key("default", content("one").id))).expect("is there");
    assert!(String::from_utf8_lossy(&body).contains(r#""score":0.98,"#), "{said}");
    assert_eq!(write(&rig, &store), 0, "nothing happened since");
    rig.tell(ruled("two", "one", 3));
    assert_eq!(write(&rig, &store), 1);
    assert_eq!(sidecar(&store, "two")["duplicate_of"], content("one").id.to_string());
}

fn another_page_that_shows_a_settled_image_is_added() {
    let (rig, store) = (Rig::showing(vec![image_with("/a", &["/b"])]), Objects::open("memory://").expect("opens"));
    rig.tell_all([kept(image("/a"), "one"), delivered("one", 1)]);
    assert_eq!(write(&rig, &store), 1);
    rig.tell(admitted(vec![page("/p", 0)]));
    rig.tell(read(page("/p", 0), vec![], vec![Image { page: url("/p"), ..image("/a") }]));
    assert_eq!(write(&rig, &store), 1);
    assert_eq!(sidecar(&store, "one")["pages"], serde_json::json!([url("/").as_str(), url("/p").as_str()]));
}

fn what_the_store_did_not_take_is_written_next_time() {
    struct Full;
    impl Store for Full {
        fn put(&self, _: String, _: Bytes) -> Future<Result<(), Fault>> {
            Box::pin(async { Err(Fault::transient(Class::Store, "store", "full")) })
        }
        fn get(&self, _: String) -> Future<Result<Bytes, Fault>> {
            Box::pin(async { Err(Fault::transient(Class::Store, "store", "full")) })
        }
        fn list(&self, _: String) -> Listing {
            Box::pin(futures::stream::empty())
        }
        fn delete(&self, _: String) -> Future<Result<(), Fault>> {
            Box::pin(async { Err(Fault::transient(Class::Store, "store", "full")) })
        }
    }
    let (rig, store) = (Rig::showing(vec![image("/a")]), Objects::open("memory://").expect("opens"));
    rig.tell_all([kept(image("/a"), "one"), delivered("one", 1)]);
    let refused = wait(write_sidecars(rig.ledger(), &Full)).expect_err("is full");
    assert!(refused.to_string().contains("meta/"), "{refused}");
    assert_eq!(write(&rig, &store), 1, "the cursor did not move");
    assert_eq!(rig.ledger().tally().expect("counts").1.done, 1);
}

fn crops_that_no_answer_names_are_deleted_once_the_next_answer_is_recorded() {
    let (rig, store) = (Rig::showing(vec![image("/a"), image("/b")]), Objects::open("memory://").expect("opens"));
    let id = content("one").id;
    let put = |generation, n| {
        let key = crop_key("default", id, generation, n);
        wait(store.put(key, Bytes::from(format!("{generation} {n}")))).expect("puts");
    };
    let there = || {
        let listed = wait(store.list(crops_folder("default", id)).try_collect::<Vec<_>>()).expect("lists");
        let mut names: Vec<String> =
            listed.iter().map(|object| object.key.rsplit('/').next().expect("a name").to_owned()).collect();
        names.sort_unstable();
        names
    };
    let named = || {
        let line = rig.line("/a");
        let faces = line["faces"].as_array().expect("a list").clone();
        faces.iter().map(|face| face["crop"].as_str().expect("a key").to_owned()).collect::<Vec<_>>()
    };
    rig.tell_all([kept(image("/a"), "one"), kept(image("/b"), "two")]);
    (0..3).for_each(|n| put(0, n));
    rig.tell_all([
        delivered_at(0.5, "one", 3),
        retry(Work::Frame(Frame { has_degraded: true, generation: 1, ..frame("one") }), 0),
    ]);
    // A second degraded answer is on its way, and was cut off.
    (0..2).for_each(|n| put(1, n));
    write(&rig, &store);
    assert_eq!(
        (there().len(), named()[2].as_str()),
        (5, crop_key("default", id, 0, 2).as_str()),
        "nothing named is deleted"
    );
    let owed: Vec<_> = owed(rig.ledger()).into_iter().map(|(_, work)| work).collect();
    let [Work::Frame(next)] = &owed[..] else { panic!("{owed:?}") };
    assert_eq!((next.has_degraded, next.generation), (true, 1), "the next answer has keys of its own");

    rig.tell(delivered_later(1, "one", 2));
    assert_eq!(there().len(), 5, "until the sidecar names others");
    rig.tell(ruled("two", "one", 3));
    // A third answer is on its way.
    put(2, 0);
    assert_eq!(write(&rig, &store), 2);
    assert_eq!(there(), ["g1-0.jpg", "g1-1.jpg", "g2-0.jpg"]);
    assert_eq!(named(), [0, 1].map(|n| crop_key("default", id, 1, n)));
    for name in ["one", "two"] {
        let faces = sidecar(&store, name)["faces"].as_array().expect("a list").len();
        assert_eq!(faces, 2, "the sidecar of {name}");
    }
    assert_eq!(write(&rig, &store), 0);
}
