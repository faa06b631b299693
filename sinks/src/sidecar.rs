//! Sidecars: beside every settled picture, what is known of it, so that the output explains itself without the ledger.
//!
//! They follow the log: each call writes those of the pictures that something happened to since the last one. The cursor
//! moves only after the objects are written, so a kill in between writes some again and misses none.

use std::collections::BTreeMap;

use bytes::Bytes;
use faceflow_core::blocking::blocking;
use faceflow_core::object_key::meta_key;
use faceflow_core::record::ContentId;
use faceflow_core::sink::Store;
use faceflow_core::{Class, Fault};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::SinkError;
use crate::ledger::database::{Moment, values};
use crate::ledger::rows::Trouble;
use crate::ledger::{Reader, StateLedger, Status};
use crate::lines::{ImageLine, image_line};

/// The name of the cursor.
const VIEW: &str = "sidecars";
/// Sidecars built, and then written, at once.
const CHUNK: usize = 32;

#[derive(Serialize)]
struct Sidecar {
    #[serde(flatten)]
    line: ImageLine,
    /// Pages that showed it under any of its URLs.
    pages: Vec<String>,
    /// Every URL that led to it.
    urls: Vec<String>,
    /// Response headers of each URL, kept as evidence.
    headers: BTreeMap<String, Vec<(String, String)>>,
}

/// Writes the sidecars of settled pictures that something happened to since the last call. Returns how many it wrote.
/// Holds 8 bytes for each such picture.
pub async fn write_sidecars(ledger: &StateLedger, store: &dyn Store) -> Result<usize, SinkError> {
    let reader = ledger.reader().clone();
    let (upto, pictures) = reading(move || reader.read(|moment| changed(&reader, moment))).await?;
    let mut count = 0;
    for chunk in pictures.chunks(CHUNK) {
        let (reader, chunk) = (ledger.reader().clone(), chunk.to_vec());
        let sidecars = reading(move || reader.read(|moment| build(&reader, moment, &chunk))).await?;
        count += sidecars.len();
        put_all(store, sidecars).await?;
    }
    if let Some(upto) = upto {
        ledger.advance(VIEW, upto).await?;
    }
    Ok(count)
}

/// The end of the log, unless nothing was added to it, and the pictures of what was added.
fn changed(reader: &Reader, moment: &Moment<'_>) -> Result<(Option<i64>, Vec<i64>), Trouble> {
    let tenant = reader.tenant_id();
    let cursor = "SELECT seq FROM cursors WHERE tenant = ?1 AND name = ?2";
    let from = moment.one(cursor, values![tenant, VIEW], |row| row.get::<i64>(0))?.unwrap_or(0);
    // Facts of another tenant may be visible before older ones of ours are.
    let end = "SELECT max(seq) FROM facts WHERE seq > ?1 AND tenant = ?2";
    let upto = moment.one(end, values![from, tenant], |row| row.get::<Option<i64>>(0))?.flatten();
    let sql = "SELECT DISTINCT picture FROM facts WHERE seq > ?1 AND tenant = ?2 AND picture IS NOT NULL";
    let mut pictures = Vec::new();
    moment.each(sql, values![from, tenant], |row| {
        pictures.push(row.get(0)?);
        Ok(())
    })?;
    Ok((upto, pictures))
}

/// The sidecars of these pictures, as keys and bodies; none for those that are still open.
fn build(reader: &Reader, moment: &Moment<'_>, pictures: &[i64]) -> Result<Vec<(String, Bytes)>, Trouble> {
    let mut sidecars = Vec::with_capacity(pictures.len());
    for picture in pictures {
        let main = "SELECT main, content FROM pictures WHERE id = ?1 AND main IS NOT NULL";
        let main = moment.one(main, values![*picture], |row| Ok((row.get::<i64>(0)?, row.get::<ContentId>(1)?)))?;
        let Some((main, id)) = main else { continue };
        let line = image_line(reader, moment, main)?;
        if line.status == Status::Open {
            continue;
        }
        let max = reader.settings().sidecar_pages_max;
        let pages =
            "SELECT DISTINCT p.url FROM entries e JOIN sightings s ON s.image = e.id JOIN entries p ON p.id = s.page
            WHERE e.picture = ?1 ORDER BY p.url LIMIT ?2";
        let pages = strings(moment, pages, *picture, max)?;
        let urls = strings(moment, "SELECT url FROM entries WHERE picture = ?1 ORDER BY url LIMIT ?2", *picture, max)?;
        let sidecar = Sidecar { line, pages, urls, headers: headers(moment, *picture, max)? };
        let body =
            serde_json::to_vec(&sidecar).map_err(|error| Trouble::Damaged(format!("the sidecar of {id}: {error}")))?;
        sidecars.push((meta_key(reader.tenant(), id), body.into()));
    }
    Ok(sidecars)
}

fn strings(moment: &Moment<'_>, sql: &str, picture: i64, max: usize) -> Result<Vec<String>, Trouble> {
    moment.list(sql, values![picture, max as i64], |row| row.get(0))
}

fn headers(moment: &Moment<'_>, picture: i64, max: usize) -> Result<BTreeMap<String, Vec<(String, String)>>, Trouble> {
    let sql = "SELECT url, headers FROM entries WHERE picture = ?1 AND headers IS NOT NULL ORDER BY url LIMIT ?2";
    let headers = moment.list(sql, values![picture, max as i64], |row| {
        let (url, text): (String, String) = (row.get(0)?, row.get(1)?);
        let kept =
            serde_json::from_str(&text).map_err(|error| Trouble::Damaged(format!("the headers of {url}: {error}")))?;
        Ok((url, kept))
    })?;
    Ok(headers.into_iter().collect())
}

async fn put_all(store: &dyn Store, sidecars: Vec<(String, Bytes)>) -> Result<(), SinkError> {
    let mut puts = JoinSet::new();
    for (key, body) in sidecars {
        let put = store.put(key.clone(), body);
        puts.spawn(async move { put.await.map_err(|fault| SinkError::Store { key, fault }) });
    }
    while let Some(put) = puts.join_next().await {
        put.map_err(|error| SinkError::Failed(Fault::transient(Class::Panic, "panic", error.to_string())))??;
    }
    Ok(())
}

/// Reads the ledger on a blocking thread.
pub(crate) async fn reading<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, faceflow_core::ledger::LedgerError> + Send + 'static,
) -> Result<T, SinkError> {
    Ok(blocking(move || Ok(work())).await.map_err(SinkError::Failed)??)
}

#[cfg(test)]
mod tests;
