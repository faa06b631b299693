//! The lines exactly as scripts read them.

use std::collections::BTreeSet;

use super::*;
use faceflow_core::fact::Fact;
use faceflow_core::object_key::{crop_key, image_key};
use faceflow_core::record::{Content, HashKind, Image, StoredImage};
use faceflow_ledger::StateLocation;
use faceflow_ledger::both;
use faceflow_ledger::testing::{
    Rig, admitted, content, delivered, image, image_with, kept, page, read, rejected, retry, ruled, start,
};

both![
    images_are_as_the_contract_says,
    faces_are_those_of_done_images_only,
    a_row_has_a_field_for_every_column,
    a_closed_pipe_is_told_apart_from_a_broken_ledger,
    pages_follow_each_other_while_others_write,
    a_page_is_read_in_the_order_of_its_index,
];

fn text(rig: &Rig, kind: Kind, format: Format) -> String {
    let mut out = Vec::new();
    write_results(rig.reader(), kind, format, &mut out).expect("writes");
    String::from_utf8(out).expect("text")
}

/// A picture of twice the size in one direction, for whom `one` stands.
fn larger() -> Fact {
    let Fact::Stored(kept) = kept(Image { attempts: 1, ..image("/c,\"d\"") }, "two") else {
        unreachable!("it is kept")
    };
    let mut frame = kept.frame.clone();
    (frame.content.width, frame.content.height) = (80, 30);
    Fact::Stored(StoredImage { frame, ..kept })
}

fn phash(content: &Content) -> String {
    content.hashes.current(HashKind::Dct64).expect("it has one").bits.to_string()
}

fn world() -> Rig {
    let rig = Rig::showing(vec![image_with("/a", &["/z"]), image("/b"), image("/c,\"d\""), image("/e")]);
    rig.tell_all([kept(image("/a"), "one"), delivered("one", 2), larger(), ruled("two", "one", 3)]);
    rig.tell_all([rejected(image("/b")), retry(image("/e"), 5_000)]);
    rig
}

fn images_are_as_the_contract_says() {
    let (one, two) = (content("one"), content("two"));
    let (id, crop) = (one.id, crop_key("default", one.id, 0, 0));
    let detector = r#""detector":{"engine":"scripted","model":"none","model_sha256":"00","scale":1.0,"degraded":false,"passes":["full"]}"#;
    let common = r#""page":"http://a.example/","site":"http://a.example/","tenant":"default""#;
    let nothing = r#""image":null,"duplicate_of":null,"distance":null,"faces":null,"detector":null"#;
    let expected = [
        format!(
            r#"{{"url":"http://a.example/a","final_url":"http://a.example/a",{common},"status":"done","reason":null,"attempts":1,"due_ms":null,"image":{{"id":"{id}","bytes":3,"format":"jpeg","width":40,"height":30,"phash":"{}","key":"{}"}},"duplicate_of":null,"distance":null,"faces":[{{"id":"{id}/0","bbox":[1.0,2.0,11.0,22.0],"score":0.98,"quality":0.5,"landmarks":[[3.0,4.0],[5.0,4.0],[4.0,6.0],[3.0,8.0],[5.0,8.0]],"crop":"{crop}"}},{{"id":"{id}/1","bbox":[11.0,2.0,21.0,22.0],"score":0.98,"quality":0.5,"landmarks":null,"crop":"{}"}}],{detector}}}"#,
            phash(&one),
            image_key("default", &one),
            crop_key("default", id, 0, 1),
        ),
        format!(
            r#"{{"url":"http://a.example/b","final_url":null,{common},"status":"rejected","reason":"http_404","attempts":1,"due_ms":null,{nothing}}}"#
        ),
        format!(
            r#"{{"url":"http://a.example/c,%22d%22","final_url":"http://a.example/c,%22d%22",{common},"status":"duplicate","reason":null,"attempts":2,"due_ms":null,"image":{{"id":"{}","bytes":3,"format":"jpeg","width":80,"height":30,"phash":"{}","key":"{}"}},"duplicate_of":"{id}","distance":3,"faces":[{{"id":"{id}/0","bbox":[2.0,2.0,22.0,22.0],"score":0.98,"quality":0.5,"landmarks":[[6.0,4.0],[10.0,4.0],[8.0,6.0],[6.0,8.0],[10.0,8.0]],"crop":"{crop}"}},{{"id":"{id}/1","bbox":[22.0,2.0,42.0,22.0],"score":0.98,"quality":0.5,"landmarks":null,"crop":"{}"}}],{detector}}}"#,
            two.id,
            phash(&two),
            image_key("default", &two),
            crop_key("default", id, 0, 1),
        ),
        format!(
            r#"{{"url":"http://a.example/e","final_url":null,{common},"status":"open","reason":"http_503","attempts":1,"due_ms":5000,{nothing}}}"#
        ),
        format!(
            r#"{{"url":"http://a.example/z","final_url":null,{common},"status":"duplicate","reason":null,"attempts":0,"due_ms":null,"image":null,"duplicate_of":"{id}","distance":null,"faces":null,"detector":null}}"#
        ),
    ];
    assert_eq!(text(&world(), Kind::Images, Format::Jsonl), expected.map(|line| line + "\n").concat());
}

fn faces_are_those_of_done_images_only() {
    let id = content("one").id;
    let crop = crop_key("default", id, 0, 0);
    let text = text(&world(), Kind::Faces, Format::Jsonl);
    let first = format!(
        r#"{{"id":"{id}/0","image":"{id}","url":"http://a.example/a","page":"http://a.example/","site":"http://a.example/","tenant":"default","bbox":[1.0,2.0,11.0,22.0],"score":0.98,"quality":0.5,"landmarks":[[3.0,4.0],[5.0,4.0],[4.0,6.0],[3.0,8.0],[5.0,8.0]],"crop":"{crop}"}}"#
    );
    assert_eq!((text.lines().count(), text.lines().next()), (2, Some(first.as_str())));
}

fn a_row_has_a_field_for_every_column() {
    let rig = world();
    for (kind, header, rows) in
        [(Kind::Images, csv::IMAGES, 5), (Kind::Pages, csv::PAGES, 1), (Kind::Faces, csv::FACES, 2)]
    {
        let text = text(&rig, kind, Format::Csv);
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        assert_eq!((lines[0], lines.len()), (header.join(",").as_str(), rows + 1));
        // The only commas inside a field are those of /c,%22d%22: twice, and quoted.
        let fields = |line: &str| line.replace("c,%22d", "").split(',').count();
        assert!(lines.iter().all(|line| fields(line) == header.len()), "{text}");
    }
    let images = text(&rig, Kind::Images, Format::Csv);
    assert!(
        images.contains("\"http://a.example/c,%22d%22\",\"http://a.example/c,%22d%22\",http://a.example/,"),
        "{images}"
    );
}

fn a_closed_pipe_is_told_apart_from_a_broken_ledger() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for format in [Format::Jsonl, Format::Csv] {
        let ended = write_results(world().reader(), Kind::Images, format, &mut Closed).expect_err("is closed");
        assert!(matches!(&ended, ResultsError::Io(error) if error.kind() == io::ErrorKind::BrokenPipe), "{ended:?}");
    }
}

/// URLs of every length, also beyond what an index of a server holds, many of which differ only at their ends.
fn many() -> Vec<Image> {
    let long = |n: usize| image(&format!("/long/{}{}", "x".repeat(3_000), n % 700));
    let prefix = |n: usize| image(&format!("/p{}{:04}", "y".repeat(n % 490), n));
    (0..2 * PAGE).flat_map(|n| [prefix(n), long(n)]).collect()
}

/// Whenever something is written to it, it puts the file in order and adds pages and images.
struct Meddling<'r> {
    rig: &'r Rig,
    written: Vec<u8>,
    times: usize,
}

impl Write for Meddling<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.extend(bytes);
        self.times += 1;
        if self.times.is_multiple_of(200) {
            if let StateLocation::Folder(dir) = self.rig.home.place() {
                let file = rusqlite::Connection::open(dir.join("ledger.sqlite")).expect("opens");
                let busy: bool =
                    file.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).expect("answers");
                assert!(!busy, "a reader that waits for its reader holds up nothing");
            }
            let (by, before) = (format!("/by{}", self.times), format!("/0{}", self.times));
            let images = vec![image(&before), image(&format!("/zz{}", self.times)), image("/p0000")];
            self.rig.try_tell(admitted(vec![page(&by, 0)])).expect("is legal");
            self.rig.try_tell(read(page(&by, 0), vec![], images)).expect("is legal");
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pages_follow_each_other_while_others_write() {
    let rig = Rig::new();
    rig.tell(start());
    rig.try_tell(read(page("/", 0), vec![], many())).expect("is legal");
    let before: BTreeSet<String> = many().iter().map(|image| image.url.to_string()).collect();
    assert!(before.len() > 2 * PAGE);
    let mut out = Meddling { rig: &rig, written: vec![], times: 0 };
    write_results(rig.reader(), Kind::Images, Format::Jsonl, &mut out).expect("writes");
    let urls = String::from_utf8(out.written).expect("text");
    let urls: Vec<String> = urls
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).expect("JSON")["url"].as_str().expect("a URL").into()
        })
        .collect();
    assert!(out.times >= 200, "something was added meanwhile");
    assert!(urls.is_sorted_by(|one, other| one < other), "ordered by URL, each once");
    let seen: BTreeSet<String> = urls.into_iter().collect();
    assert!(before.is_subset(&seen), "nothing is left out");
    assert!(seen.len() > before.len(), "what comes further on is seen");
}

fn a_page_is_read_in_the_order_of_its_index() {
    let rig = Rig::new();
    rig.tell(start());
    rig.try_tell(read(page("/", 0), vec![], many())).expect("is legal");
    if let StateLocation::Server(_) = rig.home.place() {
        rig.home.sql("ANALYZE entries");
    }
    let plan = rig.reader().read(|tx| {
        let chosen = EntrySelection::Next { kind: EntryKind::Image, after: "http://a.example/p", max: 100 };
        let (from, values) = (chosen.from(tx), chosen.values(rig.reader().tenant_id()));
        let lines = match tx {
            DbTransaction::Sqlite(_) => {
                tx.list(&format!("EXPLAIN QUERY PLAN SELECT * FROM {from}"), &values, |row| row.get::<String>(3))
            }
            DbTransaction::Postgres(_) => {
                let sql = format!("SELECT * FROM {from}").replace("?1", "1").replace("?2", "'image'");
                let sql = sql.replace("?3", "'http://a.example/p'").replace("?4", "100");
                tx.list(&format!("EXPLAIN {sql}"), &[], |row| row.get::<String>(0))
            }
        };
        Ok(lines?.join("\n"))
    });
    let plan = plan.expect("explains");
    // A server sorts only what shares a prefix.
    let sorts = plan.contains("TEMP B-TREE") || plan.replace("Incremental Sort", "").contains("Sort  ");
    assert!(plan.contains("entries_by_url") && !sorts, "{plan}");
}
