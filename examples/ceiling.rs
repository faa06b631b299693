//! How many distinct pictures pass one process when the engine answers at once: what everything around it can do, and what the settle
//! window of near-duplicates takes from that.
//!
//! `cargo run --release --example ceiling -- [PICTURES [SETTLE_MS,… [KEY=VALUE]…]]`
#[path = "../tests/world/mod.rs"]
mod world;

use std::sync::Arc;

use faceflow::config::Layers;
use faceflow::core::Future;
use faceflow::core::detector::{Answer, Detector, EngineInfo, Inferred, PictureView, View};
use faceflow::job::{Engine, Job};
use faceflow::sources::list::List;
use world::{World, picture, png};

const SITES: usize = 32;
const SHOWN_BY_A_PAGE: usize = 50;

/// Looks at nothing.
struct AtOnce;

impl Detector for AtOnce {
    fn info(&self) -> EngineInfo {
        EngineInfo { engine: "at-once".into(), model: "none".into(), model_sha256: String::new() }
    }

    fn plan(&self, width: u32, height: u32) -> Vec<View> {
        vec![View::as_is(width, height)]
    }

    fn batch_max(&self) -> usize {
        64
    }

    fn infer(self: Arc<Self>, views: Vec<PictureView>) -> Future<Inferred> {
        let answer = |view: &PictureView| Ok(Answer::of_view(&view.view, self.info(), vec![]));
        Box::pin(std::future::ready(Ok(views.iter().map(answer).collect())))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let pictures = arguments.first().map_or(Ok(10_000), |text| text.parse::<usize>())?;
    let settle_ms = arguments.get(1).map_or("0,100,1000", String::as_str);
    let web = World::new();
    let sites: Vec<_> = (0..SITES).map(|_| web.site()).collect();
    let mut pages = vec![Vec::<String>::new(); SITES];
    for n in 0..pictures {
        let (site, path) = (n % SITES, format!("/{n}.png"));
        sites[site].image(&path, png(&picture(n as u64, 64, 64)));
        if (n / SITES).is_multiple_of(SHOWN_BY_A_PAGE) {
            pages[site].push(String::new());
        }
        pages[site].last_mut().ok_or("no page")?.push_str(&format!("<img src={path}>"));
    }
    for (site, pages) in sites.iter().zip(&pages) {
        let links: String = (1..pages.len()).map(|page| format!("<a href=/page{page}>{page}</a>")).collect();
        for (page, images) in pages.iter().enumerate() {
            let path = if page == 0 { "/".to_owned() } else { format!("/page{page}") };
            site.page(&path, if page == 0 { format!("{links}{images}") } else { images.clone() });
        }
    }
    for settle_ms in settle_ms.split(',') {
        let folder = std::env::temp_dir().join(format!("faceflow-ceiling-{}-{settle_ms}", std::process::id()));
        let mut job = Job::new(&folder.join("state").to_string_lossy(), &folder.join("out").to_string_lossy());
        let layers = Layers::default().set("fetch.allow_networks=127.0.0.0/8")?.set("crawl.shape=all")?;
        let layers = layers.set(&format!("dedupe.settle_ms={settle_ms}"))?;
        let layers = arguments.iter().skip(2).try_fold(layers, |layers, assignment| layers.set(assignment))?;
        job.settings = layers.settings()?;
        job.sources =
            vec![Box::new(List::new(sites.iter().map(|site| site.url("/").parse()).collect::<Result<Vec<_>, _>>()?))];
        job.engine = Engine::Own(Arc::new(AtOnce));
        // There is no pipeline here, and no clock of its own.
        #[allow(clippy::disallowed_methods)]
        let began = std::time::Instant::now();
        let summary = job.run()?;
        let (wall, images) = (began.elapsed().as_secs_f64(), summary.images);
        println!("settle_ms {settle_ms}: {images} in {wall:.2} s, {:.0} pictures/s", pictures as f64 / wall);
        std::fs::remove_dir_all(folder)?;
    }
    Ok(())
}
