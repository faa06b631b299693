//! An engine of one's own: anything that turns pictures into answers can stand behind the pipeline.
mod site;

use std::sync::Arc;

use faceflow::config::Layers;
use faceflow::core::Future;
use faceflow::core::blocking::blocking;
use faceflow::core::detector::{Answer, Detector, EngineInfo, Face, Inferred, PictureView, View};
use faceflow::engine::SAMPLE_PHOTO;
use faceflow::job::{Engine, Job};
use faceflow::sources::list::List;

const SITE: &[site::Answer] =
    &[("/", "text/html", b"<img src=/conference.png>"), ("/conference.png", "image/png", SAMPLE_PHOTO)];

/// Takes the middle of every picture for a face: a baseline that any detector should beat.
struct Middle;

impl Detector for Middle {
    fn info(&self) -> EngineInfo {
        EngineInfo { engine: "middle".into(), model: "none".into(), model_sha256: String::new() }
    }

    fn plan(&self, width: u32, height: u32) -> Vec<View> {
        vec![View::as_is(width, height)]
    }

    fn batch_max(&self) -> usize {
        1
    }

    fn infer(self: Arc<Self>, views: Vec<PictureView>) -> Future<Inferred> {
        let middle = move |view: &PictureView| {
            let picture = view.pixels()?;
            let (w, h) = (picture.width as f32, picture.height as f32);
            let bbox = [w * 0.25, h * 0.25, w * 0.75, h * 0.75];
            let face = Face { bbox, score: 0.5, quality: 0.0, landmarks: None };
            Ok(Answer::of_view(&view.view, self.info(), vec![face]))
        };
        Box::pin(blocking(move || Ok(views.iter().map(middle).collect())))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("faceflow-custom-engine-{}", std::process::id()));
    let (state, out) = (folder.join("state"), folder.join("out"));
    let mut job = Job::new(&state.to_string_lossy(), &out.to_string_lossy());
    job.settings = Layers::default().set("fetch.allow_networks=127.0.0.0/8")?.settings()?;
    job.sources = vec![Box::new(List::new([site::start(SITE)?.parse()?]))];
    job.engine = Engine::Own(Arc::new(Middle));
    let summary = job.run()?;
    println!("{} face in {}", summary.faces, summary.images);
    assert_eq!(summary.faces, 1, "the middle of the one picture");
    Ok(())
}
