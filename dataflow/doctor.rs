//! `faceflow doctor`: one line for each thing that a run needs, and whether it is well.

use std::io::{self, Write};

use anyhow::Result;
use faceflow::core::detector::{PixelBuffer, detect};
use faceflow::core::tally::Violation;
use faceflow::ledger::{OpenError, Reader, StateLocation};
use faceflow::originals_check::{Originals, look_for_originals};
use faceflow::store::Objects;

use crate::cli::Common;
use crate::exit_status::{DONE, FAILED};
use crate::settings_layers::settings;

/// Of what breaks an invariant of the ledger, so many are named.
const KEYS_MAX: usize = 5;
/// Of the originals that are recorded, so many are looked for.
const ORIGINALS_MAX: usize = 32;

/// Checks everything, says it, and fails if anything is not well.
pub fn doctor(common: &Common) -> Result<u8> {
    let settings = match settings(common, &[]) {
        Ok(settings) => settings,
        Err(error) => return report(&[("settings", Err(error.to_string()))]),
    };
    let checks = [
        ("settings", Ok(common.config.as_ref().map_or("defaults".to_owned(), |file| file.display().to_string()))),
        ("state", state(common, &settings)),
        ("objects", objects(common)),
        ("originals", originals(common, &settings)),
        ("detector", detector(common, &settings)),
        ("onnxruntime", onnxruntime(&settings)),
    ];
    report(&checks)
}

fn report(checks: &[(&str, Result<String, String>)]) -> Result<u8> {
    let mut out = io::stdout().lock();
    for (name, verdict) in checks {
        match verdict {
            Ok(detail) => writeln!(out, "ok    {name:12} {detail}")?,
            Err(why) => writeln!(out, "FAIL  {name:12} {why}")?,
        }
    }
    Ok(if checks.iter().all(|(_, verdict)| verdict.is_ok()) { DONE } else { FAILED })
}

fn state(common: &Common, settings: &faceflow::config::Settings) -> Result<String, String> {
    let place = StateLocation::new(&common.state);
    let nothing = || Ok(format!("{place}: nothing there yet; faceflow run makes it"));
    if place.is_new() {
        return nothing();
    }
    let ledger = match (&place, Reader::open(place.clone(), &common.tenant, &settings.ledger)) {
        (StateLocation::Server(_), Err(OpenError::Missing { .. })) => return nothing(),
        (_, opened) => opened.map_err(|error| error.to_string())?,
    };
    ledger.check().map_err(|error| error.to_string())?;
    let broken = ledger.audit(KEYS_MAX).map_err(|error| error.to_string())?;
    if !broken.is_empty() {
        let broken: Vec<String> = broken.iter().map(Violation::to_string).collect();
        return Err(format!("{place}: {}", broken.join("; ")));
    }
    let (pages, images) = ledger.tally().map_err(|error| error.to_string())?;
    Ok(format!("{place}: {} pages, {} images", pages.discovered, images.discovered))
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())
}

fn objects(common: &Common) -> Result<String, String> {
    let objects = Objects::open(&common.out).map_err(|error| error.to_string())?;
    runtime()?.block_on(objects.check()).map_err(|fault| fault.to_string())?;
    Ok(format!("{}: written, read and removed a probe", common.out))
}

/// Whether the output is the one that the state has written to.
fn originals(common: &Common, settings: &faceflow::config::Settings) -> Result<String, String> {
    let place = StateLocation::new(&common.state);
    let opened = (!place.is_new()).then(|| Reader::open(place, &common.tenant, &settings.ledger));
    // What is wrong with the state was said.
    let Some(Ok(ledger)) = opened else { return Ok("none recorded".to_owned()) };
    let objects = Objects::open(&common.out).map_err(|error| error.to_string())?;
    let found = runtime()?.block_on(look_for_originals(&ledger, &objects, ORIGINALS_MAX));
    let Originals { looked_for, missing } = found.map_err(|error| error.to_string())?;
    match missing.first() {
        None => Ok(format!("{looked_for} recorded ones looked for, all there")),
        Some(key) => Err(format!(
            "{} of {looked_for} recorded ones are not in {}, such as {key}: name the --out of this state, or begin a new --state",
            missing.len(),
            common.out
        )),
    }
}

fn detector(common: &Common, settings: &faceflow::config::Settings) -> Result<String, String> {
    let detector = faceflow::engine::open(&common.detector, &settings.detect).map_err(|error| error.to_string())?;
    let grey = PixelBuffer { width: 64, height: 64, rgb: vec![128; 64 * 64 * 3].into() };
    let mut answers = runtime()?.block_on(detect(&detector, vec![grey]));
    let answer = answers.pop().ok_or("no answer")?.map_err(|fault| fault.to_string())?;
    Ok(format!("{} with {} looked at a test picture", answer.engine.engine, answer.engine.model))
}

fn onnxruntime(settings: &faceflow::config::Settings) -> Result<String, String> {
    Ok(match faceflow::engine::onnxruntime(&settings.detect) {
        Some(library) => library.display().to_string(),
        None => "not found; ONNX models run on the built-in engine, more slowly (pip install onnxruntime)".to_owned(),
    })
}
