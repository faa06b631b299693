//! Pages that opt out on a later visit: what they alone show is given out with the reason to end it.

use faceflow_core::record::PageVersion;

use super::*;
use crate::Selection;

both![
    what_a_page_alone_shows_ends_with_its_opt_out_and_what_another_shows_does_not,
    an_opt_out_that_is_taken_back_ends_nothing,
    a_picture_of_which_every_page_opted_out_is_not_looked_at_again,
];

/// The page as it is when it is looked at again.
fn again(path: &str, depth: u32) -> Page {
    Page { last: Some(PageVersion::default()), ..page(path, depth) }
}

fn opts_out(path: &str, depth: u32) -> Fact {
    let fault = Fault::permanent(Class::Policy, "opt_out:noai", "the site says \"noai\"");
    Fact::Failed(Disposition::Retry { work: again(path, depth).into(), fault, due: 9_000, host: None })
}

/// What is given out, by the word that ends it.
fn given(rig: &Rig) -> Vec<(String, Option<String>)> {
    let given = owed(rig.ledger()).into_iter().map(|(_, work)| match work {
        Work::Page(page) => (page.url.path().to_owned(), page.host.and_then(|host| host.given_up)),
        Work::Image(image) => (image.url.path().to_owned(), image.host.and_then(|host| host.given_up)),
        Work::Frame(frame) => ("frame".to_owned(), frame.opted_out.map(|fault| *fault)),
    });
    let reason = |fault: Fault| {
        assert!(fault.permanent && fault.is_opt_out());
        fault.reason
    };
    given.map(|(path, fault)| (path, fault.map(reason))).collect()
}

fn ends(path: &str) -> (String, Option<String>) {
    (path.to_owned(), Some("opt_out:noai".to_owned()))
}

fn goes_on(path: &str) -> (String, Option<String>) {
    (path.to_owned(), None)
}

fn what_a_page_alone_shows_ends_with_its_opt_out_and_what_another_shows_does_not() {
    let rig = Rig::showing(vec![image("/both"), image_with("/own", &["/other"])]);
    rig.tell(admitted(vec![page("/p", 1)]));
    rig.tell(read(page("/p", 1), vec![], vec![Image { page: url("/p"), ..image("/both") }]));
    assert_eq!(given(&rig), [goes_on("/both"), goes_on("/own")]);
    rig.tell(opts_out("/", 0));
    assert_eq!(given(&rig), [goes_on("/both"), ends("/own")]);
    let line = &rig.pages()[0];
    assert_eq!((&line["status"], &line["reason"]), (&"done".into(), &"opt_out:noai".into()));
    rig.tell(rejected(image("/own")));
    assert_eq!(given(&rig), [goes_on("/both"), ends("/other")], "another address of it, too");
    rig.tell(opts_out("/p", 1));
    assert_eq!(given(&rig), [ends("/both"), ends("/other")]);
    let rig = rig.reopened();
    assert_eq!(given(&rig), [ends("/both"), ends("/other")], "the next run knows");
}

fn an_opt_out_that_is_taken_back_ends_nothing() {
    let rig = Rig::showing(vec![image("/own")]);
    rig.tell(opts_out("/", 0));
    rig.tell(retry(image("/own"), 5));
    assert_eq!(given(&rig), [ends("/own")], "whatever became of a try that was under way");
    rig.tell(read(again("/", 0), vec![], vec![image("/own")]));
    assert_eq!(given(&rig), [goes_on("/own")]);
    assert_eq!(rig.pages()[0]["reason"], Value::Null);
}

fn a_picture_of_which_every_page_opted_out_is_not_looked_at_again() {
    let rig = Rig::showing(vec![image("/a"), image("/b")]);
    rig.tell_all([kept(image("/a"), "one"), kept(image("/b"), "two")]);
    rig.tell(delivered("two", 1));
    rig.tell(retry(frame("one"), 5));
    assert_eq!(given(&rig), [goes_on("frame")]);
    rig.tell(opts_out("/", 0));
    assert_eq!(given(&rig), [ends("frame")]);
    let fault = Fault::permanent(Class::Policy, "opt_out:noai", "");
    rig.tell(Fact::Failed(Disposition::Rejected { work: frame("one").into(), fault, again: None }));
    assert_eq!((given(&rig), rig.statuses()), (vec![], vec!["rejected".to_owned(), "done".to_owned()]));
    assert_eq!(rig.line("/a")["reason"], "opt_out:noai");
    let named = Selection { dead: true, urls: vec![url("/a")], ..Selection::default() };
    assert!(wait(rig.ledger().redrive(named)).is_ok_and(|driven| driven > 0));
    rig.check();
    assert_eq!(given(&rig), [ends("frame")], "the user may try, and its pages decide");
}
