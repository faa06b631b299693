//! The command line: what can be said, and nothing about how it is done.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use faceflow::core::record::TenantId;
use faceflow::ledger::StateLocation;

/// Turns a list of sites into a deduplicated, face-annotated image store, and never loses a face.
#[derive(Debug, Parser)]
#[command(name = "faceflow", version, disable_help_flag = true, disable_version_flag = true, propagate_version = true)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Args)]
pub struct Common {
    /// Settings file (TOML); every key is in config/faceflow.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting, as in --set fetch.per_host=8; repeatable; overrides file and environment
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", action = ArgAction::Append)]
    pub set: Vec<String>,
    /// Folder of the ledger, or postgres://USER@HOST/DATABASE
    #[arg(long, global = true, value_name = "PLACE", default_value = "faceflow-state", value_parser = state_location)]
    pub state: String,
    /// Folder or object store URL (s3://, az://) for images, crops, thumbnails, sidecars and the report
    #[arg(long, global = true, value_name = "URL", default_value = "faceflow-out")]
    pub out: String,
    /// Whose work this is; a state may hold several tenants
    #[arg(long, global = true, value_name = "ID", default_value = "default")]
    pub tenant: TenantId,
    /// auto, seeta, or onnx:PATH to an SCRFD, YuNet or UltraFace model
    #[arg(long, global = true, value_name = "ENGINE", default_value = "auto")]
    pub detector: String,
    /// How logs are written to stderr
    #[arg(long, global = true, value_enum, default_value_t = Log::Text)]
    pub log: Log,
    /// Print help
    #[arg(long, global = true, action = ArgAction::Help)]
    help: Option<bool>,
    /// Print version
    #[arg(long, global = true, action = ArgAction::Version)]
    version: Option<bool>,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Log {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What faceflow does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Crawl the sites, settle everything, print a summary, exit
    Run(RunArgs),
    /// Keep inputs open: watched site files and folders of pictures, submissions over HTTP; ends with a signal
    Stream(StreamArgs),
    /// Find faces in local image files or folders; JSONL on stdout, one line per file
    Detect {
        /// Files and folders (recursive)
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// What is known, from the ledger alone, ordered by URL
    Results {
        /// JSON lines or CSV
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        format: Format,
        /// What each line is about
        #[arg(long, value_enum, default_value_t = Kind::Images)]
        kind: Kind,
    },
    /// Counts by state
    Status,
    /// Make dead and waiting entries due at once, their attempts counted anew; faceflow run goes on with them
    Retry {
        /// Only the dead, not those that wait for a retry
        #[arg(long)]
        dead: bool,
        /// Only these
        #[arg(value_name = "URL")]
        urls: Vec<String>,
    },
    /// The whole life of one URL
    Explain {
        /// The URL of a page or image
        #[arg(value_name = "URL")]
        url: String,
    },
    /// Check settings, state, object store, detector and ONNX Runtime; one line each
    Doctor,
}

/// The form of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object per line.
    Jsonl,
    /// Comma-separated values with a header line.
    Csv,
}

/// What results are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Every image URL discovered.
    Images,
    /// Every page.
    Pages,
    /// Every face.
    Faces,
}

/// Flags of `faceflow run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// What to crawl, and how
    #[command(flatten)]
    pub crawl: CrawlArgs,
    /// Once only retries due later than this remain, they stay open and the run ends with exit 3
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub patience: u64,
}

/// Flags of `faceflow stream`.
#[derive(Debug, Args)]
pub struct StreamArgs {
    /// What to crawl, and how; files of sites are watched
    #[command(flatten)]
    pub crawl: CrawlArgs,
    /// Folder of pictures to take in, now and as they arrive
    #[arg(long = "images", value_name = "DIR", action = ArgAction::Append)]
    pub folders: Vec<PathBuf>,
    /// Take submissions at this address (POST /v1/sites), such as 127.0.0.1:8780
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// After a signal, how long what is under way may take to be finished and recorded
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub grace: u64,
}

/// Flags of everything that crawls.
#[derive(Debug, Args)]
pub struct CrawlArgs {
    /// Sites to crawl
    #[arg(value_name = "SITE")]
    pub sites: Vec<String>,
    /// File of sites, one per line, # comments; - for standard input
    #[arg(long = "sites", value_name = "FILE", action = ArgAction::Append)]
    pub files: Vec<PathBuf>,
    /// Pages per site, at most [crawl.max_pages]
    #[arg(long, value_name = "N")]
    pub max_pages: Option<u64>,
    /// Images per site, at most [crawl.max_images]
    #[arg(long, value_name = "N")]
    pub max_images: Option<u64>,
    /// Decoded images in flight, at most [image.concurrent_max]
    #[arg(long, value_name = "N")]
    pub max_concurrent_images: Option<usize>,
    /// AxB: at most A listing pages from the start page and B detail pages from each; all: the whole site [crawl.shape]
    #[arg(long = "crawl", value_name = "AxB|all")]
    pub shape: Option<String>,
    /// How images are found on a page: smart and all take every embedding
    #[arg(long, value_name = "METHOD", default_value = "smart")]
    pub method: String,
    /// Tell metrics for Prometheus at this address (GET /metrics), such as 127.0.0.1:9090
    #[arg(long, value_name = "HOST:PORT")]
    pub metrics: Option<String>,
    /// Worker threads of the dataflow
    #[arg(short = 'w', value_name = "N", default_value_t = 1)]
    pub workers: usize,
    /// Processes of the cluster
    #[arg(short = 'n', value_name = "N", default_value_t = 1)]
    pub processes: usize,
    /// Which of them this is
    #[arg(short = 'p', value_name = "I", default_value_t = 0)]
    pub process: usize,
    /// File of the processes' addresses, host:port, one per line
    #[arg(short = 'h', value_name = "FILE")]
    pub hosts: Option<PathBuf>,
}

/// Refuses what names neither a folder nor a server.
fn state_location(text: &str) -> Result<String, &'static str> {
    match StateLocation::new(text) {
        StateLocation::Folder(_) if text.contains("://") => Err("it is neither a folder nor postgres://…"),
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound_and_h_is_not_help() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["faceflow", "run", "-w", "2", "-h", "hosts.txt", "http://a.example/"]);
        let Command::Run(run) = cli.expect("parses").command else { panic!("it is run") };
        assert_eq!((run.crawl.workers, run.crawl.hosts), (2, Some(PathBuf::from("hosts.txt"))));
    }
}
