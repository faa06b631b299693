//! What the pipeline costs beyond decoding and inference: CPU time of `faceflow run` over a web on loopback, against
//! `faceflow detect` over the files that it downloaded, and its peak memory. Linux only.
//!
//! `cargo build --release && cargo run --release --example overhead -- [SITES PAGES IMAGES [DETECTOR]]`
#[path = "../tests/world/mod.rs"]
mod world;

use std::path::Path;
use std::process::{Command, Stdio};

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
    let (run_cpu, peak_mb) = measure(&mut run)?;
    let looked_at = |files: &Path| {
        measure(Command::new(&binary).args(["detect", "--detector", detector]).arg(files).stdout(Stdio::null()))
    };
    let (all_cpu, _) = looked_at(&all)?;
    let (kept_cpu, _) = looked_at(&out.join("default/images"))?;
    println!(
        "run    {run_cpu:.2} CPU-s, peak {peak_mb} MB, {} requests, {} repeated",
        web.world.log().total(),
        web.repeats().len()
    );
    println!("detect {all_cpu:.2} CPU-s over all {} files: ratio {:.3}", web.images.len(), run_cpu / all_cpu);
    println!("detect {kept_cpu:.2} CPU-s over the distinct files: ratio {:.3}", run_cpu / kept_cpu);
    Ok(std::fs::remove_dir_all(folder)?)
}

/// CPU seconds and peak megabytes of a command.
fn measure(command: &mut Command) -> Result<(f64, u64), Box<dyn std::error::Error>> {
    let before = children_cpu()?;
    let mut child = command.spawn()?;
    let mut peak_kb = 0;
    while child.try_wait()?.is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let kb = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
        peak_kb = kb.unwrap_or(peak_kb);
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
    Ok((children_cpu()? - before, peak_kb / 1024))
}

/// User and system time of ended children, in seconds (proc(5): fields 16 and 17 of stat, in hundredths).
fn children_cpu() -> Result<f64, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok((fields[13].parse::<f64>()? + fields[14].parse::<f64>()?) / 100.0)
}
