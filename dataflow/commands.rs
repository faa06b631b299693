//! The commands: each turns its arguments into a job or a query, and its outcome into an exit status.

use std::collections::HashSet;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};
use faceflow::cluster::{ClusterError, Membership};
use faceflow::config::{Layers, Settings, SettingsError};
use faceflow::core::pulse::Pulse;
use faceflow::core::source::Source;
use faceflow::job::{Engine, Job, JobError, Summary};
use faceflow::local::{Local, files};
use faceflow::metrics::Metrics;
use faceflow::operators::address::parse_site;
use faceflow::reload::Reload;
use faceflow::run::Drive;
use faceflow::sinks::ledger::{OpenError, Place, Reader, Selection, StateLedger};
use faceflow::sinks::{explain, results};
use faceflow::sources::folder::Folder;
use faceflow::sources::lines::{Lines, ParseSite};
use faceflow::sources::list::{List, Open};
use faceflow::sources::submit::Submissions;
use faceflow::sources::watch::Watch;
use indicatif::MultiProgress;
use url::Url;

use crate::cli::{Cli, Command, Common, CrawlArgs, Format, Kind, RunArgs, StreamArgs};
use crate::doctor;
use crate::progress::Progress;

/// Everything settled and nothing dead.
pub const DONE: u8 = 0;
/// A failure of ours.
pub const FAILED: u8 = 1;
/// Bad usage or settings.
pub const USAGE: u8 = 2;
/// Dead or still open entries.
pub const UNFINISHED: u8 = 3;
/// Interrupted, state kept.
pub const INTERRUPTED: u8 = 130;

/// Where processes listen that no hosts file names, one port after the other.
const FIRST_PORT: usize = 2101;
/// More workers than any machine has use for.
const WORKERS_MAX: usize = 64;

/// A mistake of the user's.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Carries out a command; its exit status.
pub fn dispatch(cli: Cli, bars: &MultiProgress) -> Result<u8> {
    let common = &cli.common;
    check_tenant(&common.tenant)?;
    if common.state.is_empty() {
        return Err(Usage("--state: an empty name".to_owned()).into());
    }
    match &cli.command {
        Command::Run(args) => run(common, args, bars),
        Command::Stream(args) => stream(common, args, bars),
        Command::Detect { paths } => detect(common, paths),
        Command::Results { format, kind } => results(common, *format, *kind),
        Command::Status => status(common),
        Command::Retry { dead, urls } => retry(common, *dead, urls),
        Command::Explain { url } => explain(common, url),
        Command::Doctor => doctor::doctor(common),
    }
}

/// The settings of a command line: file, environment, `--set`, and the flags that stand for settings.
pub fn settings(common: &Common, flags: &[Flag]) -> Result<Settings> {
    let layered = layered(common.config.as_deref(), &common.set, flags);
    Ok(layered.map_err(|error| Usage(error.to_string()))?)
}

/// A flag that stands for a setting.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As the user typed it.
    said: String,
    /// As after `--set`.
    assignment: String,
}

fn layered(file: Option<&Path>, set: &[String], flags: &[Flag]) -> Result<Settings, SettingsError> {
    let layers = match file {
        Some(path) => Layers::default().file(path),
        None => Ok(Layers::default()),
    };
    let layers = layers.map(|layers| layers.environment(std::env::vars()));
    let layers = set.iter().fold(layers, |layers, assignment| layers?.set(assignment));
    let layers = flags.iter().fold(layers, |layers, flag| layers?.assign(&flag.said, &flag.assignment));
    layers.and_then(Layers::settings)
}

fn run(common: &Common, args: &RunArgs, bars: &MultiProgress) -> Result<u8> {
    let mut job = job(common, &args.crawl)?;
    job.sources = sites(&args.crawl, |file| Ok(Box::new(Lines::open(file, parse_site)?)))?;
    if args.crawl.sites.is_empty() && args.crawl.files.is_empty() && Place::new(&common.state).is_new() {
        let why = "nothing to do: name a SITE or --sites FILE, or a --state with open work to go on with";
        return Err(Usage(why.to_owned()).into());
    }
    job.drive.patience_ms = args.patience.saturating_mul(1_000);
    watch_signals(job.pulse.clone())?;
    let summary = finish(job, bars)?;
    Ok(exit_status(&summary))
}

fn stream(common: &Common, args: &StreamArgs, bars: &MultiProgress) -> Result<u8> {
    let mut job = job(common, &args.crawl)?;
    job.sources = sites(&args.crawl, |file| match file == Path::new("-") {
        true => Ok(Box::new(Lines::open(file, parse_site)?)),
        false => Ok(Box::new(Watch::open(file, parse_site)?)),
    })?;
    if job.cluster.is_some() && !args.folders.is_empty() {
        let why = "--images: a folder is read by one process; watch it with a stream of its own, on the same state";
        return Err(Usage(why.to_owned()).into());
    }
    for path in &args.folders {
        let refused = |error: io::Error| Usage(format!("--images {}: {error}", path.display()));
        let folder = Folder::open(path).map_err(refused)?;
        job.folders.push(folder.root().to_owned());
        job.sources.push(Box::new(folder));
    }
    if let Some(address) = args.listen.as_ref().filter(|_| job.is_first()) {
        let inbox = inbox(common, &job.settings)?;
        let sites = (parse_site as ParseSite, job.settings.fetch.url_max_bytes);
        let submissions = Submissions::open(address, &inbox, &job.settings.submit, sites);
        let submissions = submissions.map_err(|error| Usage(format!("--listen {address}: {error}")))?;
        let made_up = job.settings.submit.token.is_empty();
        let token = if made_up { submissions.token() } else { "as in submit.token" };
        eprintln!("faceflow: POST http://{}/v1/sites, bearer token {token}", submissions.address());
        job.sources.push(Box::new(submissions));
    }
    if job.sources.len() == 1 && args.crawl.sites.is_empty() && Place::new(&common.state).is_new() {
        let why = "nothing to wait for: name a SITE, --sites FILE, --images DIR or --listen HOST:PORT";
        return Err(Usage(why.to_owned()).into());
    }
    job.sources.push(Box::new(Open));
    let (file, set, flags) = (common.config.clone(), common.set.clone(), crawl_flags(&args.crawl));
    job.reload = Some(Reload::new(file.clone(), move || layered(file.as_deref(), &set, &flags)));
    job.drive = Drive { endless: true, grace_ms: args.grace.saturating_mul(1_000), ..job.drive };
    let asked = watch_signals(job.pulse.clone())?;
    finish(job, bars)?;
    // A supervisor's SIGTERM is the usual end of a stream, and so is that of another process of the cluster.
    Ok(if asked.load(Relaxed) { INTERRUPTED } else { DONE })
}

/// Where submissions are kept: where the settings say, else beside the ledger if that is a folder.
fn inbox(common: &Common, settings: &Settings) -> Result<PathBuf, Usage> {
    match Place::new(&common.state) {
        _ if !settings.submit.inbox.is_empty() => Ok(PathBuf::from(&settings.submit.inbox)),
        Place::Folder(dir) => {
            let made = std::fs::create_dir_all(&dir);
            made.map_err(|error| Usage(format!("--state {}: {error}", dir.display())))?;
            Ok(dir.join(format!("inbox-{}.txt", common.tenant)))
        }
        Place::Server(_) => {
            let why = "--listen with a state on a server: name a file for what is accepted, on a disk that lasts, with --set submit.inbox=FILE";
            Err(Usage(why.to_owned()))
        }
    }
}

/// A job as the flags say, with nothing to do yet.
fn job(common: &Common, args: &CrawlArgs) -> Result<Job> {
    let cluster = membership(args)?;
    if cluster.is_some() && matches!(Place::new(&common.state), Place::Folder(_)) {
        return Err(Usage(JobError::Lonely.to_string()).into());
    }
    if !matches!(args.method.as_str(), "smart" | "all") {
        let why = format!("--method {}: this version finds images by every embedding (smart or all)", args.method);
        return Err(Usage(why).into());
    }
    if !(1..=WORKERS_MAX).contains(&args.workers) {
        return Err(Usage(format!("-w {}: 1 to {WORKERS_MAX} workers", args.workers)).into());
    }
    let mut job = Job::new(&common.state, &common.out);
    job.settings = settings(common, &crawl_flags(args))?;
    job.tenant = common.tenant.clone();
    job.engine = Engine::Named(common.detector.clone());
    job.drive.workers = args.workers;
    job.cluster = cluster;
    if let Some(address) = &args.metrics {
        let metrics = Metrics::listen(address).map_err(|error| Usage(format!("--metrics {address}: {error}")))?;
        eprintln!("faceflow: metrics at http://{}/metrics", metrics.address());
        job.metrics = Some(metrics);
    }
    Ok(job)
}

/// Which process of which cluster the flags `-n -p -h` speak of; `None` for a single process.
fn membership(args: &CrawlArgs) -> Result<Option<Membership>, Usage> {
    let (processes, process) = (args.processes, args.process);
    if process >= processes {
        return Err(Usage(format!("-p {process}: the processes of -n {processes} are 0 to {}", processes.max(1) - 1)));
    }
    let addresses: Vec<String> = match &args.hosts {
        None => (0..processes).map(|process| format!("localhost:{}", FIRST_PORT + process)).collect(),
        Some(file) => {
            let text = std::fs::read_to_string(file);
            let text = text.map_err(|error| Usage(format!("-h {}: {error}", file.display())))?;
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
        }
    };
    let file = || args.hosts.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
    if addresses.len() != processes {
        let why = format!("-h {}: {} addresses for -n {processes} processes", file(), addresses.len());
        return Err(Usage(why));
    }
    let known: HashSet<&String> = addresses.iter().collect();
    if known.len() < processes {
        return Err(Usage(format!("-h {}: two processes have the same address", file())));
    }
    if let Some(bad) = addresses.iter().find(|address| !address.contains(':')) {
        return Err(Usage(format!("-h {}: {bad:?} is not like host:port", file())));
    }
    Ok((processes > 1).then_some(Membership { process, addresses }))
}

/// Runs a job to its end, with progress on a terminal and a summary.
fn finish(job: Job, bars: &MultiProgress) -> Result<Summary> {
    let first = job.is_first();
    let progress = io::stderr().is_terminal().then(|| Progress::start(job.pulse.clone(), bars));
    let summary = job.run();
    drop(progress);
    let summary = summary.map_err(|error| match error {
        JobError::Engine(_) | JobError::Objects(_) | JobError::Store(_) | JobError::Client(_) | JobError::Lonely => {
            Usage(error.to_string()).into()
        }
        JobError::Cluster(ClusterError::Differs { .. } | ClusterError::Listen { .. }) => {
            Usage(error.to_string()).into()
        }
        other => anyhow::Error::new(other),
    })?;
    if first {
        print_summary(&summary)?;
    }
    Ok(summary)
}

/// The flags that stand for settings.
fn crawl_flags(args: &CrawlArgs) -> Vec<Flag> {
    let flag = |name: &str, key: &str, value: Option<String>| {
        value.map(|value| Flag { said: format!("{name} {value}"), assignment: format!("{key}={value}") })
    };
    let flags = [
        flag("--max-pages", "crawl.max_pages", args.max_pages.map(|n| n.to_string())),
        flag("--max-images", "crawl.max_images", args.max_images.map(|n| n.to_string())),
        flag("--max-concurrent-images", "image.concurrent_max", args.max_concurrent_images.map(|n| n.to_string())),
        flag("--crawl", "crawl.shape", args.shape.clone()),
    ];
    flags.into_iter().flatten().collect()
}

/// Sites of the command line first, then files. None at all goes on with what the ledger holds.
fn sites(args: &CrawlArgs, open: impl Fn(&Path) -> io::Result<Box<dyn Source>>) -> Result<Vec<Box<dyn Source>>, Usage> {
    let sites: Result<Vec<_>, _> = args.sites.iter().map(|site| parse_site(site)).collect();
    let mut sources: Vec<Box<dyn Source>> = vec![Box::new(List::new(sites.map_err(Usage)?))];
    for file in &args.files {
        sources.push(open(file).map_err(|error| Usage(format!("--sites {}: {error}", file.display())))?);
    }
    Ok(sources)
}

/// The first signal drains, the second ends the process at once; both leave a state that resumes. What is returned turns true
/// if the first was an interrupt.
fn watch_signals(pulse: Pulse) -> Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    let interrupted = Arc::clone(&asked);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("watching for signals")?;
    std::thread::Builder::new().name("faceflow-signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            let mut signals = match Signals::listen() {
                Ok(signals) => signals,
                Err(error) => {
                    return tracing::warn!(%error, "signals cannot be caught; an interrupt ends the process at once");
                }
            };
            let interrupt = signals.next().await;
            interrupted.store(interrupt, Relaxed);
            // A closed terminal is nobody to tell.
            let _ = writeln!(io::stderr(), "faceflow: finishing what is under way; once more stops at once");
            pulse.drain();
            signals.next().await;
            std::process::exit(i32::from(INTERRUPTED));
        });
    })?;
    Ok(asked)
}

struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for a signal; whether it was an interrupt.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => false,
        }
    }
}

fn print_summary(summary: &Summary) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "pages   {}", summary.pages)?;
    writeln!(out, "images  {}", summary.images)?;
    writeln!(out, "faces   {}", summary.faces)?;
    if let Some(report) = &summary.report {
        writeln!(out, "report  {report}")?;
    }
    if summary.ending.bad_input > 0 {
        writeln!(out, "skipped {} entries of the site list that are no sites (named above)", summary.ending.bad_input)?;
    }
    if summary.ending.interrupted {
        writeln!(out, "interrupted; the same command goes on from here")?;
    }
    if let Some(due) = summary.ending.next_due {
        let due = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(due));
        writeln!(out, "the next retry is due at {due}, beyond --patience; the same command goes on then")?;
    }
    Ok(out.flush()?)
}

fn exit_status(summary: &Summary) -> u8 {
    let unfinished = |tally: &faceflow::core::ledger::Tally| tally.dead + tally.open > 0;
    match summary {
        summary if summary.ending.interrupted => INTERRUPTED,
        summary if unfinished(&summary.pages) || unfinished(&summary.images) => UNFINISHED,
        _ => DONE,
    }
}

fn detect(common: &Common, paths: &[PathBuf]) -> Result<u8> {
    let settings = settings(common, &[])?;
    let detector = faceflow::engine::open(&common.detector, &settings.detect);
    let detector = detector.map_err(|error| Usage(format!("--detector: {error}")))?;
    let files = files(paths).map_err(|error| Usage(error.to_string()))?;
    let threads = settings.detect.concurrency();
    let local =
        Local { detector, image: settings.image, file_max_bytes: settings.fetch.body_max_bytes as u64, threads };
    let failed = local.detect(&files, &mut BufWriter::new(io::stdout().lock()))?;
    Ok(if failed == 0 { DONE } else { UNFINISHED })
}

/// The ledger of `--state` and `--tenant`, to read. It must exist.
pub fn reader(common: &Common) -> Result<Reader> {
    let settings = settings(common, &[])?;
    let opened = Reader::open(Place::new(&common.state), &common.tenant, &settings.ledger);
    opened.map_err(|error| match error {
        OpenError::Missing { .. } => Usage(format!("--state: {error}")).into(),
        other => other.into(),
    })
}

fn results(common: &Common, format: Format, kind: Kind) -> Result<u8> {
    let ledger = reader(common)?;
    let kind = match kind {
        Kind::Images => results::Kind::Images,
        Kind::Pages => results::Kind::Pages,
        Kind::Faces => results::Kind::Faces,
    };
    let format = match format {
        Format::Jsonl => results::Format::Jsonl,
        Format::Csv => results::Format::Csv,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    results::write_results(&ledger, kind, format, &mut out)?;
    out.flush()?;
    Ok(DONE)
}

fn status(common: &Common) -> Result<u8> {
    let ledger = reader(common)?;
    let (pages, images) = ledger.tally()?;
    let mut out = io::stdout().lock();
    writeln!(out, "pages   {pages}")?;
    writeln!(out, "images  {images}")?;
    writeln!(out, "faces   {}", ledger.face_count()?)?;
    Ok(DONE)
}

fn retry(common: &Common, dead: bool, urls: &[String]) -> Result<u8> {
    // A mistyped state must not be made.
    reader(common)?;
    let settings = settings(common, &[])?;
    let ledger = StateLedger::open(Place::new(&common.state), &common.tenant, &settings.ledger)?;
    let parsed: Result<Vec<Url>> = urls.iter().map(|url| parse_known(url)).collect();
    let driven = ledger.redrive(Selection { dead: true, waiting: !dead, urls: parsed? });
    let runtime = tokio::runtime::Builder::new_current_thread().build().context("waiting for the ledger")?;
    let driven = runtime.block_on(driven)?;
    if driven == 0 && !urls.is_empty() {
        let which = if dead { "dead or rejected" } else { "dead, rejected or waiting" };
        return Err(Usage(format!(
            "nothing named is {which}, or a stream is trying it already; faceflow explain URL tells what became of it"
        ))
        .into());
    }
    writeln!(io::stdout(), "{driven} entries are due now; faceflow run goes on with them")?;
    Ok(DONE)
}

fn explain(common: &Common, url: &str) -> Result<u8> {
    let parsed = parse_known(url)?;
    let lives = explain::explain(&reader(common)?, &parsed)?;
    let mut out = io::stdout().lock();
    for life in &lives {
        writeln!(out, "{life}")?;
    }
    if !lives.is_empty() {
        return Ok(DONE);
    }
    Err(Usage(format!("{url} is not known to {}; faceflow results lists what is", Place::new(&common.state))).into())
}

/// An address that results name: of the web, of a file, or that of a picture inside a page.
fn parse_known(text: &str) -> Result<Url> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "file" | "data") => Ok(url),
        _ => Ok(parse_site(text).map_err(Usage)?),
    }
}

/// Object keys begin with the tenant, so its name is kept plain.
fn check_tenant(tenant: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=64).contains(&tenant.len()) && tenant.chars().all(plain) && !tenant.starts_with('.') {
        return Ok(());
    }
    Err(Usage(format!("--tenant {tenant:?}: up to 64 letters, digits, '-', '_' and '.', not starting with '.'")).into())
}
