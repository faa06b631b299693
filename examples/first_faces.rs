//! Starts a small web site on loopback, crawls it with the real pipeline, and says what it found.
//!
//! The photograph on the site shows 29 people in 1927; the detector is the one built into the binary.
mod site;

use faceflow::config::Layers;
use faceflow::engine::SAMPLE_PHOTO;
use faceflow::job::Job;
use faceflow::sources::list::List;

const START: &str = r#"<title>Physics</title><h1>Brussels, 1927</h1>
    <img src="/conference.png"> <a href="/people">Who is who</a> <a href="/missing">A broken link</a>"#;
const PEOPLE: &str = r#"<img srcset="/conference.png?copy 1666w, /small.png 400w"> <img src="/lost.jpg">"#;
const SITE: &[site::Answer] = &[
    ("/", "text/html", START.as_bytes()),
    ("/people", "text/html", PEOPLE.as_bytes()),
    ("/conference.png", "image/png", SAMPLE_PHOTO),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start = site::start(SITE)?;
    let folder = std::env::temp_dir().join(format!("faceflow-first-faces-{}", std::process::id()));
    let (state, out) = (folder.join("state"), folder.join("out"));
    let mut job = Job::new(&state.to_string_lossy(), &out.to_string_lossy());
    // Private addresses are refused unless a setting allows them.
    job.settings = Layers::default().set("fetch.allow_networks=127.0.0.0/8")?.settings()?;
    job.sources = vec![Box::new(List::new([start.parse()?]))];
    let summary = job.run()?;

    println!("pages   {}", summary.pages);
    println!("images  {}", summary.images);
    println!("faces   {}", summary.faces);
    println!("report  {}", summary.report.as_deref().unwrap_or("none"));
    assert!(summary.faces >= 15, "the photograph shows 29 people");
    assert_eq!((summary.images.done, summary.images.open), (1, 0), "one picture, and nothing is left open");
    Ok(())
}
