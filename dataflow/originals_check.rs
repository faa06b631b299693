//! Whether the originals that a state records are in the output: a sample of them. A folder that was emptied, or the output of another
//! state, is noticed before anybody believes that all is done.

use faceflow_core::blocking::blocking;
use faceflow_core::sink::Store;
use faceflow_core::{Class, Fault};
use faceflow_ledger::{EntryKind, EntrySelection, Reader, Status, image_lines};

/// Lines among which the sample is taken: the first by URL.
const LINES_MAX: usize = 512;
/// The reason with which a store says that it has no such object.
const MISSING: &str = "store_missing";

/// What was looked for.
pub struct Originals {
    /// How many.
    pub looked_for: usize,
    /// Keys of those that are not there. One that cannot be read now is not among them.
    pub missing: Vec<String>,
}

/// Looks for the originals of some pictures, `max` at most, spread over the first lines.
pub async fn look_for_originals(reader: &Reader, store: &dyn Store, max: usize) -> Result<Originals, Fault> {
    let reader = reader.clone();
    let read = blocking(move || {
        let first = EntrySelection::Next { kind: EntryKind::Image, after: "", max: LINES_MAX };
        let failed = |error| Fault::transient(Class::Store, "ledger", format!("{error}"));
        reader.read(|tx| image_lines(&reader, tx, &first)).map_err(failed)
    });
    let lines = read.await?;
    let keys = lines.into_iter().filter(|described| described.line.status == Status::Done);
    let keys: Vec<String> = keys.filter_map(|described| Some(described.line.image?.key)).collect();
    let step = keys.len().div_ceil(max.max(1)).max(1);
    let mut originals = Originals { looked_for: 0, missing: vec![] };
    for key in keys.into_iter().step_by(step) {
        originals.looked_for += 1;
        if store.get(key.clone()).await.is_err_and(|fault| fault.reason == MISSING) {
            originals.missing.push(key);
        }
    }
    Ok(originals)
}
