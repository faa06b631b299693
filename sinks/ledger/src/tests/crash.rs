//! What was acknowledged survives: a real process is killed with SIGKILL, and a copy of the files is opened in mid-flight.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;
use crate::{OpenError, StateLocation};

both![an_acknowledged_fact_survives_kill_9,];

const STATE: &str = "FACEFLOW_TEST_CRASH_STATE";
const CHILD: &str = "tests::crash::the_process_that_is_killed";

/// Does nothing unless the test below starts it: then it writes until it is killed.
#[test]
fn the_process_that_is_killed() {
    let Ok(state) = std::env::var(STATE) else {
        println!("skipped: runs only as the child of an_acknowledged_fact_survives_kill_9");
        return;
    };
    let ledger =
        DatabaseLedger::open(StateLocation::new(&state), "default", &LedgerSettings::default()).expect("opens");
    wait(ledger.append(start())).expect("is legal");
    for n in 0.. {
        let path = format!("/{n}");
        wait(ledger.append(read(page("/", 0), vec![], vec![image(&path)]))).expect("is legal");
        wait(ledger.append(kept(image(&path), &path))).expect("is legal");
        println!("kept {path} ");
    }
}

fn an_acknowledged_fact_survives_kill_9() {
    for acknowledged in [1, 150] {
        let home = Home::new();
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command
            .args(["--exact", CHILD, "--nocapture"])
            .env(STATE, &home.name)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
        let kept_path = |line: String| line.split_once("kept /").map(|(_, rest)| rest.trim().to_owned());
        let mut acked: HashSet<String> = lines.by_ref().filter_map(kept_path).take(acknowledged).collect();
        if let StateLocation::Folder(_) = home.place() {
            let in_use = home.open_for("default").err().expect("the child has it");
            assert!(matches!(in_use, OpenError::InUse { .. }), "{in_use}");
        }
        child.kill().expect("is killed");
        child.wait().expect("is gone");
        acked.extend(lines.filter_map(kept_path));
        let rig = Rig { ledger: Some(home.open()), home };
        rig.check();
        let lines = rig.images();
        let durable =
            |path: &String| lines.iter().any(|line| line["url"] == url(path).as_str() && !line["image"].is_null());
        assert!(acked.len() >= acknowledged && acked.iter().all(durable), "{} acknowledged", acked.len());
    }
}

#[test]
fn the_files_as_a_kill_leaves_them_open_and_go_on() {
    let rig = Rig::showing(vec![image_with("/a", &["/b"]), image("/c")]);
    rig.tell_all([kept(image("/c"), "one"), delivered("one", 1), dead(image("/a")), retry(image("/b"), 77)]);
    let copy = Home::new();
    for entry in std::fs::read_dir(rig.home.path()).expect("lists") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("copies");
    }
    let resumed = Rig { ledger: Some(copy.open()), home: copy };
    resumed.check();
    assert_eq!(resumed.images(), rig.images());
    assert_eq!(resumed.owed(), [(77, "/b".to_owned())]);
    resumed.tell_all([kept(Image { attempts: 1, ..image("/b") }, "two"), delivered("two", 0)]);
    assert_eq!(resumed.statuses(), ["dead", "done", "done"]);
}
