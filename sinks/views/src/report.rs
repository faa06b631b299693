//! `report.html`: what a run found, for people who look rather than read.
//!
//! One file that needs no network and runs no script: thumbnails are embedded, faces are drawn as SVG over them. Everything
//! that came from the web is escaped, and only http and https addresses become links. It follows the log: where nothing was
//! added, nothing is read but that; where nothing that it shows has changed, nothing is written.

pub(crate) mod follow;
mod gather;
mod html;
mod settings;
mod sums;

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use faceflow_core::kill_point::kill_point;
use faceflow_core::ledger::LedgerError;
use faceflow_core::object_key::{report_key, thumb_key};
use faceflow_core::record::ContentId;
use faceflow_core::sink::Store;
use faceflow_ledger::Reader;

use crate::SinkError;
use crate::sidecar::reading;
use follow::Counts;
use gather::{Card, Found};

pub use settings::ReportSettings;

/// A thumbnail larger than this was not made by us, in bytes.
const THUMB_BYTES_MAX: usize = 512 * 1024;

/// One tenant's report between two looks: what was counted, the thumbnails it shows, and what was written last.
#[derive(Default)]
pub struct Report {
    /// Missing before the first look, and after one that failed.
    counts: Option<Counts>,
    settings: ReportSettings,
    /// Of the cards it shows, in base64; `None` for a picture that has none.
    thumbnails: HashMap<ContentId, Option<String>>,
    /// A digest of what was written, without its time.
    written: Option<ContentId>,
    /// Whether it has to be written although nothing was added to the log.
    due: bool,
}

impl Report {
    /// Writes the report if it shows anything else than before. Returns its key, or nothing if the settings want none.
    pub async fn write(
        &mut self,
        reader: &Reader,
        store: &dyn Store,
        settings: &ReportSettings,
    ) -> Result<Option<String>, SinkError> {
        if settings.images_max == 0 {
            *self = Self::default();
            return Ok(None);
        }
        let key = report_key(reader.tenant());
        self.due |= self.settings != *settings;
        if self.settings.images_max != settings.images_max {
            self.counts = None;
        }
        let (from, counts, due, wanted) = (reader.clone(), self.counts.take(), self.due, settings.clone());
        let (counts, found) = reading(move || look(&from, counts, due, &wanted)).await?;
        self.counts = Some(counts);
        let Some(found) = found else { return Ok(Some(key)) };
        // From here on until it is written.
        self.due = true;
        self.settings = settings.clone();
        let complete = self.fetch_thumbnails(reader.tenant(), &found, store).await;
        let thumbnails: Vec<Option<&str>> = found.cards.iter().map(|card| self.thumbnail(card)).collect();
        let page = |as_of| html::page(&found, (&key, &thumbnails), as_of);
        let digest = ContentId::of(page(None)?.as_bytes());
        if self.written != Some(digest) {
            let body = page(found.as_of.as_deref())?;
            kill_point("report.write");
            store.put(key.clone(), body.into()).await.map_err(|fault| SinkError::Store { key: key.clone(), fault })?;
            kill_point("report.written");
            self.written = Some(digest);
        }
        self.due = !complete;
        Ok(Some(key))
    }

    fn thumbnail(&self, card: &Card) -> Option<&str> {
        self.thumbnails.get(&picture(card)?)?.as_deref()
    }

    /// Reads the thumbnails of cards that were not shown before, and forgets those of cards that are not shown any more. Returns
    /// whether the store said of each what it has.
    async fn fetch_thumbnails(&mut self, tenant: &str, found: &Found, store: &dyn Store) -> bool {
        let (mut known, mut complete) = (std::mem::take(&mut self.thumbnails), true);
        for id in found.cards.iter().filter_map(picture) {
            let thumbnail = match known.remove(&id) {
                Some(thumbnail) => thumbnail,
                None => match store.get(thumb_key(tenant, id)).await {
                    Ok(bytes) => {
                        Some(bytes).filter(|bytes| bytes.len() <= THUMB_BYTES_MAX).map(|bytes| STANDARD.encode(bytes))
                    }
                    Err(fault) if fault.reason == "store_missing" => None,
                    Err(fault) => {
                        tracing::debug!("the report shows no thumbnail of {id} yet: {fault}");
                        complete = false;
                        continue;
                    }
                },
            };
            self.thumbnails.insert(id, thumbnail);
        }
        complete
    }
}

fn picture(card: &Card) -> Option<ContentId> {
    ContentId::parse(&card.line.image.as_ref()?.id)
}

/// Brings the counts up to date, and reads what is shown if anything was added to the log or the report is due.
fn look(
    reader: &Reader,
    counts: Option<Counts>,
    due: bool,
    settings: &ReportSettings,
) -> Result<(Counts, Option<Found>), LedgerError> {
    let (counts, changed) = match counts {
        None => (Counts::all(reader, settings.images_max)?, true),
        Some(mut counts) => {
            let changed = counts.follow(reader)?;
            (counts, changed)
        }
    };
    let found = (changed || due).then(|| gather::gather(reader, &counts, settings)).transpose()?;
    Ok((counts, found))
}

#[cfg(test)]
mod tests;
