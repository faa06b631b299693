//! From a command line to the command that carries it out.

use anyhow::Result;
use indicatif::MultiProgress;

use crate::cli::{Cli, Command};
use crate::crawl_commands::{run, stream};
use crate::doctor::doctor;
use crate::exit_status::Usage;
use crate::query_commands::{detect, explain, results, retry, status};

/// Carries out a command; its exit status.
pub fn dispatch(cli: Cli, bars: &MultiProgress) -> Result<u8> {
    let common = &cli.common;
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
        Command::Doctor => doctor(common),
    }
}
