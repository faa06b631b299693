//! What the pipeline costs beyond decoding and inference: CPU time of `faceflow run` over a web on loopback, against
//! `faceflow detect` over the files that it downloaded, and its peak memory. Linux only.
//!
//! `cargo build --release && cargo run --release --example overhead -- [SITES PAGES IMAGES [DETECTOR]]`
mod measure;
#[path = "../tests/world/mod.rs"]
mod world;

use std::path::Path;
use std::process::{Command, Stdio};

use measure::measure;
use world::{Plan, photos};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default| arguments.get(at).map_or(Ok(default), |text| text.parse::<usize>());
    let (sites, pages_per_site, images) = (number(0, 20)?, number(1, 30)?, number(2, 1_500)?);
    let detector = arguments.get(3).map_or("auto", String::as_str);
    let photos = photos()
        .unwrap_or_default()
        .iter()
        .map(|path| std::fs::read(path).map(Into::into))
        .collect::<Result<_, _>>()?;
    let web = Plan { sites, pages_per_site, images, photos, size: (960, 720), ..Plan::default() }.serve();

    let folder = std::env::temp_dir().join(format!("faceflow-overhead-{}", std::process::id()));
    let (all, out) = (folder.join("all"), folder.join("out"));
    std::fs::create_dir_all(&all)?;
    for (n, image) in web.images.iter().enumerate() {
        std::fs::write(all.join(format!("{n:05}")), &image.bytes)?;
    }
    let binary = std::env::current_exe()?.ancestors().nth(2).ok_or("no target folder")?.join("faceflow");
    let state = folder.join("state");
    let mut run = Command::new(&binary);
    run.args(["run", "--crawl", "all", "--set", "fetch.allow_networks=127.0.0.0/8", "--detector", detector]);
    run.arg("--state").arg(&state).arg("--out").arg(&out).args(web.starts());
    let run = measure(&mut [run])?;
    let looked_at = |files: &Path| {
        let mut detect = Command::new(&binary);
        detect.args(["detect", "--detector", detector]).arg(files).stdout(Stdio::null());
        measure(&mut [detect]).map(|usage| usage.cpu)
    };
    let (all_cpu, kept_cpu) = (looked_at(&all)?, looked_at(&out.join("default/images"))?);
    let (run_cpu, requests, repeats) = (run.cpu, web.world.log().total(), web.repeats().len());
    let (wall, peak_mb) = (run.wall, run.peak_mb);
    println!("run    {run_cpu:.2} CPU-s in {wall:.1} s, peak {peak_mb} MB, {requests} requests, {repeats} repeated");
    println!("detect {all_cpu:.2} CPU-s over all {} files: ratio {:.3}", web.images.len(), run_cpu / all_cpu);
    println!("detect {kept_cpu:.2} CPU-s over the distinct files: ratio {:.3}", run_cpu / kept_cpu);
    Ok(std::fs::remove_dir_all(folder)?)
}
