//! Sidecars: beside every settled picture, what is known of it, so that the output explains itself without the ledger.
//!
//! They follow the log: each call writes those of the pictures that something happened to since the last one, a part of the log
//! at a time. The cursor moves only after the objects are written, so a kill in between writes some again and misses none.
//! Crops that no answer names any more are deleted on the way, after the answer that replaced theirs is recorded.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use faceflow_core::blocking::blocking;
use faceflow_core::kill_point::kill_point;
use faceflow_core::object_key::{crop_generation, crops_folder, meta_key};
use faceflow_core::record::ContentId;
use faceflow_core::sink::Store;
use faceflow_core::{Class, Fault};
use faceflow_ledger::ImageLine;
use faceflow_ledger::TransactionError;
use faceflow_ledger::image_lines;
use faceflow_ledger::{DatabaseLedger, Reader, Status};
use faceflow_ledger::{DbTransaction, values};
use faceflow_ledger::{EntrySelection, THESE_MAX, numbers, these};
use futures::TryStreamExt;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::SinkError;

/// The name of the cursor.
const VIEW: &str = "sidecars";
/// Lines of the log followed at a time.
const WINDOW: i64 = 50_000;

#[derive(Serialize)]
struct Sidecar {
    #[serde(flatten)]
    line: ImageLine,
    /// Pages that showed it under any of its URLs.
    pages: Vec<String>,
    /// Every URL that led to it.
    urls: Vec<String>,
    /// Response headers of each URL, kept as evidence.
    headers: Headers,
}

/// Writes the sidecars of settled pictures that something happened to since the last call. Returns how many it wrote. Holds
/// 8 bytes for each picture of a part of the log; where nothing was added to the log, nothing is read but that, or written.
pub async fn write_sidecars(ledger: &DatabaseLedger, store: &dyn Store) -> Result<usize, SinkError> {
    let (mut count, mut again) = (0, Vec::new());
    loop {
        let reader = ledger.reader().clone();
        let changed = reading(move || reader.read(|tx| changed(&reader, tx, &again))).await?;
        let Some(Changed { cursor, upto, pictures }) = changed else { return Ok(count) };
        let mut replaced = Vec::new();
        for chunk in pictures.chunks(THESE_MAX) {
            let (reader, chunk) = (ledger.reader().clone(), chunk.to_vec());
            let built = reading(move || reader.read(|tx| build(&reader, tx, &chunk))).await?;
            count += built.sidecars.len();
            put_all(store, built.sidecars).await?;
            replaced.extend(built.replaced);
        }
        for (id, generation) in replaced {
            delete_crops(store, ledger.reader().tenant(), id, generation).await;
        }
        kill_point("sidecars.cursor");
        // Another run that writes them too may have moved it, and what was written here may be older than what that run wrote: it is
        // written once more, as it is now.
        again = if ledger.advance(VIEW, cursor, upto).await? { Vec::new() } else { pictures };
    }
}

/// Where the next part of the log ends, from after ?1.
pub(crate) const END: &str =
    "SELECT max(seq) FROM (SELECT seq FROM events WHERE seq > ?1 AND tenant = ?2 ORDER BY seq LIMIT ?3) w";

/// A part of the log that was not followed yet.
struct Changed {
    /// Where the cursor is.
    cursor: i64,
    /// Where it ends.
    upto: i64,
    /// The pictures whose sidecars it may have changed.
    pictures: Vec<i64>,
}

/// The next part of the log, if anything was added to it or these pictures are to be written `again`: what was said of those may
/// have been removed from the log since.
fn changed(reader: &Reader, tx: &DbTransaction<'_>, again: &[i64]) -> Result<Option<Changed>, TransactionError> {
    let tenant = reader.tenant_id();
    let cursor = "SELECT seq FROM cursors WHERE tenant = ?1 AND name = ?2";
    let cursor = tx.one(cursor, values![tenant, VIEW], |row| row.get::<i64>(0))?.unwrap_or(0);
    // Facts of another tenant may be visible before older ones of ours are.
    let upto = tx.one(END, values![cursor, tenant, WINDOW], |row| row.get::<Option<i64>>(0))?.flatten();
    let upto = match upto {
        None if again.is_empty() => return Ok(None),
        upto => upto.unwrap_or(cursor),
    };
    // A picture's faces are also those of the pictures that it stands for.
    let sql = "SELECT picture FROM events WHERE seq > ?1 AND seq <= ?2 AND tenant = ?3 AND picture IS NOT NULL
        UNION SELECT q.id FROM events f JOIN pictures q ON q.representative = f.picture AND q.representative <> q.id
            WHERE f.seq > ?1 AND f.seq <= ?2 AND f.tenant = ?3 AND f.kind = 'detected'";
    let mut pictures = again.to_vec();
    tx.each(sql, values![cursor, upto, tenant], |row| {
        pictures.push(row.get(0)?);
        Ok(())
    })?;
    pictures.sort_unstable();
    pictures.dedup();
    Ok(Some(Changed { cursor, upto, pictures }))
}

/// Sidecars, and what they leave behind.
struct Built {
    /// Keys and bodies.
    sidecars: Vec<(String, Bytes)>,
    /// Pictures whose answer replaced others: crops of generations before that are named nowhere any more.
    replaced: Vec<(ContentId, u32)>,
}

/// The sidecars of these pictures; none for those that are still open.
fn build(reader: &Reader, tx: &DbTransaction<'_>, pictures: &[i64]) -> Result<Built, TransactionError> {
    let sql = format!("SELECT main, id, content FROM pictures WHERE id IN ({}) AND main IS NOT NULL", numbers());
    let of_main = tx
        .list(&sql, &these(pictures), |row| Ok((row.get::<i64>(0)?, (row.get::<i64>(1)?, row.get::<ContentId>(2)?))))?;
    let of_main: HashMap<i64, (i64, ContentId)> = of_main.into_iter().collect();
    let mains: Vec<i64> = of_main.keys().copied().collect();
    let max = reader.settings().sidecar_pages_max as i64;
    let (mut pages, mut urls) = (grouped(tx, pictures, PAGES, max)?, grouped(tx, pictures, URLS, max)?);
    let mut headers = headers(tx, pictures, max)?;
    let mut built = Built { sidecars: Vec::with_capacity(mains.len()), replaced: Vec::new() };
    for described in image_lines(reader, tx, &EntrySelection::These(&mains))? {
        let (picture, id) = of_main[&described.entry];
        let line = described.line;
        if line.status == Status::Open {
            continue;
        }
        built.replaced.extend(described.generation.filter(|generation| *generation > 0).map(|later| (id, later)));
        let (pages, urls) = (pages.remove(&picture).unwrap_or_default(), urls.remove(&picture).unwrap_or_default());
        let sidecar = Sidecar { line, pages, urls, headers: headers.remove(&picture).unwrap_or_default() };
        let body = serde_json::to_vec(&sidecar)
            .map_err(|error| TransactionError::Damaged(format!("the sidecar of {id}: {error}")))?;
        built.sidecars.push((meta_key(reader.tenant(), id), body.into()));
    }
    Ok(built)
}

/// Pictures with the pages that show them, each once.
const PAGES: &str = "SELECT DISTINCT e.picture, p.url
    FROM entries e JOIN page_images s ON s.image = e.id JOIN entries p ON p.id = s.page";
/// Pictures with the URLs that lead to them.
const URLS: &str = "SELECT e.picture, e.url FROM entries e";

/// The first `max` URLs of each picture, in their order.
fn grouped(
    tx: &DbTransaction<'_>,
    pictures: &[i64],
    pairs: &str,
    max: i64,
) -> Result<HashMap<i64, Vec<String>>, TransactionError> {
    let sql = format!(
        "SELECT picture, url FROM (
            SELECT picture, url, row_number() OVER (PARTITION BY picture ORDER BY url) AS nth
            FROM ({pairs} WHERE e.picture IN ({})) pairs
        ) ordered WHERE nth <= ?{} ORDER BY picture, url",
        numbers(),
        THESE_MAX + 1
    );
    let mut values = these(pictures);
    values.push(max.into());
    let mut grouped: HashMap<i64, Vec<String>> = HashMap::new();
    tx.each(&sql, &values, |row| {
        grouped.entry(row.get(0)?).or_default().push(row.get(1)?);
        Ok(())
    })?;
    Ok(grouped)
}

type Headers = BTreeMap<String, Vec<(String, String)>>;

/// What is kept of the headers of each picture's first `max` URLs that have any.
fn headers(tx: &DbTransaction<'_>, pictures: &[i64], max: i64) -> Result<HashMap<i64, Headers>, TransactionError> {
    let sql = format!(
        "SELECT picture, url, headers FROM (
            SELECT picture, url, headers, row_number() OVER (PARTITION BY picture ORDER BY url) AS nth
            FROM entries WHERE picture IN ({}) AND headers IS NOT NULL
        ) ordered WHERE nth <= ?{}",
        numbers(),
        THESE_MAX + 1
    );
    let mut values = these(pictures);
    values.push(max.into());
    let mut of_pictures: HashMap<i64, Headers> = HashMap::new();
    tx.each(&sql, &values, |row| {
        let (url, text): (String, String) = (row.get(1)?, row.get(2)?);
        let kept = serde_json::from_str(&text)
            .map_err(|error| TransactionError::Damaged(format!("the headers of {url}: {error}")))?;
        of_pictures.entry(row.get(0)?).or_default().insert(url, kept);
        Ok(())
    })?;
    Ok(of_pictures)
}

/// Deletes the crops of a picture that belong to answers before this generation. What cannot be deleted stays, and harms nobody.
async fn delete_crops(store: &dyn Store, tenant: &str, id: ContentId, generation: u32) {
    let deleted = async {
        let mut listed = store.list(crops_folder(tenant, id));
        while let Some(object) = listed.try_next().await? {
            if crop_generation(&object.key).is_some_and(|older| older < generation) {
                store.delete(object.key).await?;
            }
        }
        Ok::<_, Fault>(())
    };
    if let Err(fault) = deleted.await {
        tracing::warn!("crops of {id} that no answer names any more stay in the store: {fault}");
    }
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
