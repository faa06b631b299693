//! What workers and processes gain and cost: the same web, crawled by one worker on one core, by two workers on two, and, over a
//! state in PostgreSQL, by one process with two workers and by two processes with one each. Linux only, with `taskset`.
//!
//! `cargo build --release && cargo run --release --example scaling -- [SITES PAGES IMAGES [DETECTOR [postgres://…]]]`
mod measure;
#[path = "../tests/world/mod.rs"]
mod world;

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use measure::{Usage, measure};
use world::{Gallery, Plan, photos};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default| arguments.get(at).map_or(Ok(default), |text| text.parse::<usize>());
    let (sites, pages_per_site, images) = (number(0, 8)?, number(1, 13)?, number(2, 400)?);
    let detector = arguments.get(3).map_or("auto", String::as_str);
    let photos = photos()
        .unwrap_or_default()
        .iter()
        .map(|path| std::fs::read(path).map(Into::into))
        .collect::<Result<_, _>>()?;
    let web = Plan { sites, pages_per_site, images, photos, size: (960, 720), ..Plan::default() }.serve();
    let folder = std::env::temp_dir().join(format!("faceflow-scaling-{}", std::process::id()));

    let mut round = 0;
    let mut crawl = |what: &str, cores: &str, state: Option<&str>, processes: &[&[&str]]| {
        round += 1;
        let place = folder.join(round.to_string());
        std::fs::create_dir_all(&place)?;
        let mut commands = Vec::new();
        for flags in processes {
            commands.push(command(&web, &place, (detector, cores, state), flags)?);
        }
        let usage = measure(&mut commands)?;
        let Usage { cpu, wall, peak_mb } = usage;
        let each = 1e3 * cpu / images as f64;
        println!("{what}: {wall:.2} s, {cpu:.2} CPU-s, {each:.1} ms of CPU an image, peak {peak_mb} MB");
        Ok::<Usage, Box<dyn std::error::Error>>(usage)
    };
    let one = crawl("one worker on one core", "0", None, &[&["-w", "1"]])?;
    let two = crawl("two workers on two cores", "0,1", None, &[&["-w", "2"]])?;
    println!("two are {:.2} times as fast", one.wall / two.wall);
    if let Some(state) = arguments.get(4) {
        hosts(&folder.join("hosts.txt"))?;
        let hosts = folder.join("hosts.txt").display().to_string();
        let together = crawl("one process, two workers", "0,1", Some(state), &[&["-w", "2", "--tenant", "together"]])?;
        let process = |index: &'static str| ["--tenant", "apart", "-n", "2", "-h", &hosts, "-p", index];
        let apart = crawl("two processes, one worker each", "0,1", Some(state), &[&process("0"), &process("1")])?;
        println!("two processes use {:.3} times the CPU time", apart.cpu / together.cpu);
    }
    Ok(std::fs::remove_dir_all(folder)?)
}

/// One process that crawls the web, on these cores.
fn command(
    web: &Gallery,
    place: &Path,
    (detector, cores, state): (&str, &str, Option<&str>),
    flags: &[&str],
) -> Result<Command, Box<dyn std::error::Error>> {
    let binary = std::env::current_exe()?.ancestors().nth(2).ok_or("no target folder")?.join("faceflow");
    let mut command = Command::new("taskset");
    command.args(["-c", cores]).arg(binary).args(["run", "--crawl", "all", "--detector", detector]);
    command.args(["--set", "fetch.allow_networks=127.0.0.0/8"]).arg("--out").arg(place.join("out"));
    command.arg("--state").arg(state.map_or(place.join("state"), Into::into)).args(flags).args(web.starts());
    Ok(command)
}

/// A hosts file of two ports that are free now.
fn hosts(file: &Path) -> std::io::Result<()> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let [one, two] = listeners.map(|listener| listener.local_addr());
    std::fs::write(file, format!("{}\n{}\n", one?, two?))
}
