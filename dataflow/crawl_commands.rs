//! `faceflow run` and `faceflow stream`: their arguments become a job, its end an exit status.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use anyhow::Result;
use faceflow::cluster::{ClusterError, Membership};
use faceflow::config::Settings;
use faceflow::core::source::Source;
use faceflow::job::{Engine, Job, JobError, Summary};
use faceflow::ledger::{Reader, StateLocation};
use faceflow::metrics_endpoint::MetricsEndpoint;
use faceflow::mine::url_normalization::parse_site;
use faceflow::reload::Reload;
use faceflow::run::RunOptions;
use faceflow::sources::folder::Folder;
use faceflow::sources::inbox::TakenUp;
use faceflow::sources::list::List;
use faceflow::sources::site_file::{Lines, ParseSite};
use faceflow::sources::submit::Submissions;
use faceflow::sources::watch::Watch;
use indicatif::MultiProgress;

use crate::cli::{Common, CrawlArgs, RunArgs, StreamArgs};
use crate::exit_status::{DONE, INTERRUPTED, UNFINISHED, Usage};
use crate::progress_bars::ProgressBars;
use crate::run_summary::print_summary;
use crate::settings_layers::{crawl_flags, layered, settings};
use crate::signals::watch_signals;

/// Where processes listen that no hosts file names, one port after the other.
const FIRST_PORT: usize = 2101;
/// More workers than any machine has use for.
const WORKERS_MAX: usize = 64;

/// `faceflow run`.
pub fn run(common: &Common, args: &RunArgs, bars: &MultiProgress) -> Result<u8> {
    let mut job = job(common, &args.crawl)?;
    // A list in which no line is a site is a mistake of whoever named it, known before anything is done.
    let primed = |file: &Path| Lines::open(file, parse_site)?.primed().map_err(io::Error::other);
    job.sources = sites(&args.crawl, |file| Ok(Box::new(primed(file)?)))?;
    if args.crawl.sites.is_empty() && args.crawl.files.is_empty() && StateLocation::new(&common.state).is_new() {
        let why = "nothing to do: name a SITE or --sites FILE, or a --state with open work to go on with";
        return Err(Usage(why.to_owned()).into());
    }
    job.options.patience_ms = args.patience.saturating_mul(1_000);
    watch_signals(job.shutdown.clone())?;
    let summary = finish(job, bars)?;
    Ok(exit_status(&summary))
}

/// `faceflow stream`.
pub fn stream(common: &Common, args: &StreamArgs, bars: &MultiProgress) -> Result<u8> {
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
        let taken_up = taken_up(common, &job.settings);
        let submissions = Submissions::open(address, &inbox, &job.settings.submit, sites, taken_up);
        let submissions = submissions.map_err(|error| Usage(format!("--listen {address}: {error}")))?;
        let made_up = job.settings.submit.token.is_empty();
        let token = if made_up { submissions.token() } else { "as in submit.token" };
        crate::say(format_args!("POST http://{}/v1/sites, bearer token {token}", submissions.address()));
        job.sources.push(Box::new(submissions));
    }
    if job.sources.len() == 1 && args.crawl.sites.is_empty() && StateLocation::new(&common.state).is_new() {
        let why = "nothing to wait for: name a SITE, --sites FILE, --images DIR or --listen HOST:PORT";
        return Err(Usage(why.to_owned()).into());
    }
    let (file, set, flags) = (common.config.clone(), common.set.clone(), crawl_flags(&args.crawl));
    job.reload = Some(Reload::new(file.clone(), move || layered(file.as_deref(), &set, &flags)));
    job.options = RunOptions { endless: true, grace_ms: args.grace.saturating_mul(1_000), ..job.options };
    let asked = watch_signals(job.shutdown.clone())?;
    finish(job, bars)?;
    // A supervisor's SIGTERM is the usual end of a stream, and so is that of another process of the cluster.
    Ok(if asked.load(Relaxed) { INTERRUPTED } else { DONE })
}

/// How many sites, from the first on, are in the ledger, on disk, as soon as there is one.
fn taken_up(common: &Common, settings: &Settings) -> TakenUp {
    let (state, tenant, settings) = (common.state.clone(), common.tenant.clone(), settings.ledger.clone());
    let opened = OnceCell::new();
    Box::new(move |sites| {
        let reader = match opened.get() {
            Some(reader) => reader,
            None => {
                let reader = Reader::open(StateLocation::new(&state), &tenant, &settings).map_err(io::Error::other)?;
                opened.get_or_init(|| reader)
            }
        };
        let taken = reader.sites_taken_up(sites).map_err(io::Error::other)?;
        // What answers for them from now on must survive a power cut as the inbox did.
        reader.sync()?;
        Ok(taken)
    })
}

/// Where submissions are kept: where the settings say, else beside the ledger if that is a folder.
fn inbox(common: &Common, settings: &Settings) -> Result<PathBuf, Usage> {
    match StateLocation::new(&common.state) {
        _ if !settings.submit.inbox.is_empty() => Ok(PathBuf::from(&settings.submit.inbox)),
        StateLocation::Folder(dir) => {
            let made = std::fs::create_dir_all(&dir);
            made.map_err(|error| Usage(format!("--state {}: {error}", dir.display())))?;
            Ok(dir.join(format!("inbox-{}.txt", common.tenant)))
        }
        StateLocation::Server(_) => {
            let why = "--listen with a state on a server: name a file for what is accepted, on a disk that lasts, with --set submit.inbox=FILE";
            Err(Usage(why.to_owned()))
        }
    }
}

/// A job as the flags say, with nothing to do yet.
fn job(common: &Common, args: &CrawlArgs) -> Result<Job> {
    let cluster = membership(args)?;
    if cluster.is_some() && matches!(StateLocation::new(&common.state), StateLocation::Folder(_)) {
        return Err(Usage(JobError::FolderState.to_string()).into());
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
    job.options.workers = args.workers;
    job.cluster = cluster;
    if let Some(address) = &args.metrics {
        let endpoint =
            MetricsEndpoint::listen(address).map_err(|error| Usage(format!("--metrics {address}: {error}")))?;
        crate::say(format_args!("metrics at http://{}/metrics", endpoint.address()));
        job.metrics_endpoint = Some(endpoint);
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
    let progress = io::stderr().is_terminal().then(|| ProgressBars::start(job.metrics.clone(), bars));
    let summary = job.run();
    drop(progress);
    let summary = summary.map_err(|error| match error {
        JobError::Engine(_)
        | JobError::Objects(_)
        | JobError::Store(_)
        | JobError::Client(_)
        | JobError::FolderState => Usage(error.to_string()).into(),
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

/// Sites of the command line first, then files. None at all goes on with what the ledger holds.
fn sites(args: &CrawlArgs, open: impl Fn(&Path) -> io::Result<Box<dyn Source>>) -> Result<Vec<Box<dyn Source>>, Usage> {
    let sites: Result<Vec<_>, _> = args.sites.iter().map(|site| parse_site(site)).collect();
    let mut sources: Vec<Box<dyn Source>> = vec![Box::new(List::new(sites.map_err(Usage)?))];
    for file in &args.files {
        sources.push(open(file).map_err(|error| Usage(format!("--sites {}: {error}", file.display())))?);
    }
    Ok(sources)
}

fn exit_status(summary: &Summary) -> u8 {
    let unfinished = |tally: &faceflow::core::tally::Tally| tally.dead + tally.open > 0;
    match summary {
        summary if summary.outcome.interrupted => INTERRUPTED,
        summary if summary.quarantined > 0 => UNFINISHED,
        summary if unfinished(&summary.pages) || unfinished(&summary.images) => UNFINISHED,
        _ => DONE,
    }
}
