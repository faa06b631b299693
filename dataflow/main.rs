//! The `faceflow` binary: parse, run, exit status.

mod advice;
mod cli;
mod commands;
mod crawl_commands;
mod doctor;
mod exit_status;
mod progress_bars;
mod query_commands;
mod run_summary;
mod settings_layers;
mod signals;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Log};
use crate::commands::dispatch;
use crate::exit_status::{DONE, FAILED, USAGE, Usage};

/// "Input/output error".
const EIO: i32 = 5;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed terminal is no reason to fail.
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if asked { DONE } else { USAGE });
        }
    };
    let bars = MultiProgress::new();
    let log = cli.common.log;
    log_to_stderr(log, &bars);
    match dispatch(cli, &bars) {
        Ok(status) => ExitCode::from(status),
        Err(error) if is_closed_pipe(&error) => ExitCode::from(DONE),
        Err(error) => {
            match log {
                Log::Json => tracing::error!("{error}"),
                Log::Text => say(format_args!("{error}")),
            }
            ExitCode::from(if error.is::<Usage>() { USAGE } else { FAILED })
        }
    }
}

/// Says something on standard error. Where that is gone or full, the exit status still tells.
fn say(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "faceflow: {text}");
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| {
            // A terminal that is gone says that it is broken.
            error.kind() == io::ErrorKind::BrokenPipe || error.raw_os_error() == Some(EIO)
        })
    };
    error.chain().any(closed)
}

fn log_to_stderr(log: Log, bars: &MultiProgress) {
    let filter = EnvFilter::try_from_env("FACEFLOW_LOG").unwrap_or_else(|_| EnvFilter::new("warn,faceflow=info"));
    let bars = bars.clone();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || BesideBars(bars.clone()));
    match log {
        Log::Json => builder.json().init(),
        Log::Text => builder.with_target(false).with_ansi(io::stderr().is_terminal()).init(),
    }
}

/// Writes to stderr without tearing the progress bars.
struct BesideBars(MultiProgress);

impl Write for BesideBars {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let write = || io::stderr().write(text);
        // A closed terminal is no reason to fail. The bars could not be cleared on one, which they do not forgive.
        let written = if io::stderr().is_terminal() { self.0.suspend(write) } else { write() };
        Ok(written.unwrap_or(text.len()))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
