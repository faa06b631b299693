//! A sink of one's own: it receives every detection once its outputs are stored, and before the ledger calls it done.
mod site;

use std::sync::mpsc::{Sender, channel};

use faceflow::config::Layers;
use faceflow::core::detector::Detection;
use faceflow::core::sink::Sink;
use faceflow::core::{Fault, Time};
use faceflow::engine::SAMPLE_PHOTO;
use faceflow::job::Job;
use faceflow::sources::list::List;

const SITE: &[site::Answer] =
    &[("/", "text/html", b"<img src=/conference.png>"), ("/conference.png", "image/png", SAMPLE_PHOTO)];

/// Sends one line per picture.
struct Tell(Sender<String>);

impl Sink for Tell {
    fn write(&mut self, at: Time, batch: &[Detection]) -> Result<(), Fault> {
        for seen in batch {
            let best = seen.faces().first().map_or(0.0, |face| face.score);
            let line = format!("{at} {}: {} faces, the best scores {best}", seen.picture(), seen.faces().len());
            // The receiver lives as long as main.
            let _ = self.0.send(line);
        }
        Ok(())
    }

    fn flush(&mut self, _upto: Time) -> Result<(), Fault> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (lines, told) = channel();
    let folder = std::env::temp_dir().join(format!("faceflow-custom-sink-{}", std::process::id()));
    let (state, out) = (folder.join("state"), folder.join("out"));
    let mut job = Job::new(&state.to_string_lossy(), &out.to_string_lossy());
    job.settings = Layers::default().set("fetch.allow_networks=127.0.0.0/8")?.settings()?;
    job.sources = vec![Box::new(List::new([site::start(SITE)?.parse()?]))];
    job.sinks = vec![Box::new(Tell(lines))];
    job.run()?;

    let told: Vec<String> = told.iter().collect();
    println!("{}", told.join("\n"));
    assert_eq!(told.len(), 1, "one picture was told of");
    Ok(())
}
