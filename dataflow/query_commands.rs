//! Commands that ask the ledger, change its due times, or look at local files: `results`, `status`, `retry`, `explain`, `detect`.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use faceflow::detect_files::{FoundFiles, Local, files};
use faceflow::job::FAILURES_NAMED;
use faceflow::ledger::{DatabaseLedger, OpenError, QuarantinedFact, Reader, Selection, StateLocation};
use faceflow::mine::url_normalization::parse_site;
use faceflow::views::failure_summary::failure_summary;
use faceflow::views::{explain, results};
use url::Url;

use crate::cli::{Common, Format, Kind};
use crate::exit_status::{DONE, UNFINISHED, Usage};
use crate::run_summary::{QUARANTINED_NAMED_MAX, shortened, write_failures, write_quarantined};
use crate::settings_layers::settings;

/// `faceflow detect`.
pub fn detect(common: &Common, paths: &[PathBuf]) -> Result<u8> {
    let settings = settings(common, &[])?;
    let detector = faceflow::engine::open(&common.detector, &settings.detect);
    let detector = detector.map_err(|error| Usage(format!("--detector: {error}")))?;
    let FoundFiles { files, passed_over } = files(paths).map_err(|error| Usage(error.to_string()))?;
    if passed_over > 0 {
        let what = if passed_over == 1 { "file that is no picture" } else { "files that are no pictures" };
        tracing::info!("passed over {passed_over} {what}, by name and by content");
    }
    let threads = settings.detect.concurrency();
    let local =
        Local { detector, image: settings.image, file_max_bytes: settings.fetch.body_max_bytes as u64, threads };
    let failed = local.detect(&files, &mut BufWriter::new(io::stdout().lock()))?;
    Ok(if failed == 0 { DONE } else { UNFINISHED })
}

/// The ledger of `--state` and `--tenant`, to read. It must exist.
fn reader(common: &Common) -> Result<Reader> {
    let settings = settings(common, &[])?;
    let opened = Reader::open(StateLocation::new(&common.state), &common.tenant, &settings.ledger);
    opened.map_err(|error| match error {
        OpenError::Missing { .. } => Usage(format!("--state: {error}")).into(),
        other => other.into(),
    })
}

/// `faceflow results`.
pub fn results(common: &Common, format: Format, kind: Kind) -> Result<u8> {
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

/// `faceflow status`.
pub fn status(common: &Common) -> Result<u8> {
    let ledger = reader(common)?;
    let (pages, images) = ledger.tally()?;
    let mut out = io::stdout().lock();
    writeln!(out, "pages   {pages}")?;
    writeln!(out, "images  {images}")?;
    writeln!(out, "faces   {}", ledger.face_count()?)?;
    write_failures(&failure_summary(&ledger, FAILURES_NAMED)?, &mut out)?;
    let quarantined = ledger.quarantined_count()?;
    if quarantined > 0 {
        write_quarantined(quarantined, &ledger.quarantined(QUARANTINED_NAMED_MAX)?, &mut out)?;
    }
    Ok(DONE)
}

/// `faceflow retry`.
pub fn retry(common: &Common, dead: bool, urls: &[String]) -> Result<u8> {
    // A mistyped state must not be made.
    reader(common)?;
    let settings = settings(common, &[])?;
    let ledger = DatabaseLedger::open(StateLocation::new(&common.state), &common.tenant, &settings.ledger)?;
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

/// `faceflow explain`.
pub fn explain(common: &Common, url: &str) -> Result<u8> {
    let parsed = parse_known(url)?;
    let ledger = reader(common)?;
    let histories = explain::explain(&ledger, &parsed)?;
    let quarantined = ledger.quarantined_at(&parsed)?;
    let mut out = io::stdout().lock();
    for history in &histories {
        writeln!(out, "{history}")?;
    }
    for QuarantinedFact { kind, subject, reason, at_ms } in &quarantined {
        writeln!(out, "quarantined at {}, {kind} {}: {reason}", explain::as_text(*at_ms), shortened(subject))?;
    }
    if !histories.is_empty() || !quarantined.is_empty() {
        return Ok(DONE);
    }
    Err(Usage(format!("{url} is not known to {}; faceflow results lists what is", StateLocation::new(&common.state)))
        .into())
}

/// An address that results name: of the web, of a file, or that of a picture inside a page.
fn parse_known(text: &str) -> Result<Url> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "file" | "data") => Ok(url),
        _ => Ok(parse_site(text).map_err(Usage)?),
    }
}
