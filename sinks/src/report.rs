//! `report.html`: what a run found, for people who look rather than read.
//!
//! One file that needs no network and runs no script: thumbnails are embedded, faces are drawn as SVG over them. Everything
//! that came from the web is escaped, and only http and https addresses become links.

mod gather;
mod html;

use faceflow_core::kill_point::kill_point;
use faceflow_core::object_key::thumb_key;
use faceflow_core::record::ContentId;
use faceflow_core::sink::Store;
use serde::{Deserialize, Serialize};

use crate::SinkError;
use crate::ledger::Reader;
use crate::sidecar::reading;

/// A thumbnail larger than this was not made by us, in bytes.
const THUMB_BYTES_MAX: usize = 512 * 1024;

/// The settings `report.*`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReportSettings {
    /// Images shown, those with the most faces first; each takes about 20 KB of the file and of memory. 0 for no report.
    pub images_max: usize,
    /// Examples of each kind of failure, and duplicates listed under each image, at most.
    pub examples_max: usize,
    /// How often sidecars and the report are brought up to date while `faceflow stream` runs, in milliseconds.
    pub refresh_ms: u64,
}

impl Default for ReportSettings {
    fn default() -> Self {
        Self { images_max: 400, examples_max: 8, refresh_ms: 60_000 }
    }
}

impl ReportSettings {
    /// Refuses impossible values: the key, and what is allowed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.images_max > 10_000 {
            return Err(("images_max", "at most 10000".to_owned()));
        }
        if !(1..=1_000).contains(&self.examples_max) {
            return Err(("examples_max", "1 to 1000".to_owned()));
        }
        if self.refresh_ms < 100 {
            return Err(("refresh_ms", "100 or more".to_owned()));
        }
        Ok(())
    }
}

/// The key of a tenant's report: at the root of the output, where people look, for the tenant `default`.
pub fn report_key(tenant: &str) -> String {
    if tenant == "default" { "report.html".to_owned() } else { format!("{tenant}/report.html") }
}

/// Writes the report. Returns its key, or nothing if the settings want none.
pub async fn write_report(
    reader: &Reader,
    store: &dyn Store,
    settings: &ReportSettings,
) -> Result<Option<String>, SinkError> {
    if settings.images_max == 0 {
        return Ok(None);
    }
    let (from, settings) = (reader.clone(), settings.clone());
    let found = reading(move || gather::gather(&from, &settings)).await?;
    let key = report_key(reader.tenant());
    let mut page = html::begin(&found);
    for card in &found.cards {
        let thumbnail = thumbnail(reader.tenant(), card, store).await;
        html::card(&mut page, card, thumbnail.as_deref(), &key);
    }
    html::end(&mut page, &found);
    kill_point("report.write");
    store.put(key.clone(), page.into()).await.map_err(|fault| SinkError::Store { key: key.clone(), fault })?;
    kill_point("report.written");
    Ok(Some(key))
}

/// The thumbnail of a card; without one the faces are drawn on an empty frame.
async fn thumbnail(tenant: &str, card: &gather::Card, store: &dyn Store) -> Option<bytes::Bytes> {
    let id = ContentId::parse(&card.line.image.as_ref()?.id)?;
    match store.get(thumb_key(tenant, id)).await {
        Ok(bytes) => Some(bytes).filter(|bytes| bytes.len() <= THUMB_BYTES_MAX),
        Err(fault) => {
            tracing::debug!("the report shows no thumbnail of {id}: {fault}");
            None
        }
    }
}

#[cfg(test)]
mod tests;
