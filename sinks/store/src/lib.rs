//! The object store: a folder, S3 or Azure behind one [`Store`].
//!
//! Every failure is transient: wrong credentials or a missing bucket are the user's to mend, and no image is to be given up
//! for them. A folder is written by renaming, so a kill leaves at most a file whose name ends in `#` and a number, which is
//! never read as an object.

mod durable;
pub mod partial_files;
mod recent;

use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::path::Path as Folder;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use faceflow_core::blocking::blocking;
use faceflow_core::fsync::sync_entries;
use faceflow_core::kill_point::kill_point;
use faceflow_core::sink::{Listed, Listing, Store};
use faceflow_core::{Class, Fault, Future};
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{Error, ObjectStore, ObjectStoreExt, RetryConfig};
use url::Url;

use durable::Durable;
use recent::{Recent, lock};

/// Retries inside one request. The pipeline retries with more patience, and lets others go first.
const RETRIES_MAX: usize = 2;
/// How long a request and its retries may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The object that [`Objects::check`] writes and deletes.
const CHECK_KEY: &str = "faceflow-check-";

/// Why an output could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectsError {
    /// A URL of a kind we do not know.
    #[error("{place}: an output is a folder, or a URL like s3://bucket/prefix or az://container/prefix")]
    Unknown {
        /// As named.
        place: String,
    },
    /// The folder cannot be made, or the configuration is not complete.
    #[error("{place} cannot be opened: {reason}")]
    Refused {
        /// As named.
        place: String,
        /// What is wrong.
        reason: String,
    },
}

/// An object store under one root. Clones share it.
#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    place: Arc<str>,
    stored: Arc<Mutex<Recent>>,
    /// Where it lies, if it is a folder.
    folder: Option<Arc<Folder>>,
    durable: Option<Arc<Durable>>,
}

impl Objects {
    /// Opens `place`: a folder (made if it is not there), `file://`, `s3://bucket/prefix`, `az://container/prefix`, or
    /// `memory://` for tests. Credentials and endpoints come from the usual variables, `AWS_*` and `AZURE_*`; a plain `http`
    /// endpoint is allowed where one is named.
    pub fn open(place: &str) -> Result<Self, ObjectsError> {
        Self::open_with(place, false)
    }

    /// As [`Objects::open`]; a folder's files are on disk before a put resolves, so that they survive a power cut.
    pub fn open_durable(place: &str) -> Result<Self, ObjectsError> {
        Self::open_with(place, true)
    }

    fn open_with(place: &str, durable: bool) -> Result<Self, ObjectsError> {
        let unknown = || ObjectsError::Unknown { place: place.to_owned() };
        let refused = |reason: String| ObjectsError::Refused { place: place.to_owned(), reason };
        let in_folder = |path: &Folder| {
            let store = local(path, durable).map_err(refused)?;
            let root = Durable::new(path);
            Ok(Self { durable: durable.then(|| Arc::new(root)), folder: Some(path.into()), ..Self::over(store, place) })
        };
        if !place.contains("://") {
            return in_folder(Folder::new(place));
        }
        let url = Url::parse(place).map_err(|_| unknown())?;
        let bucket = || url.host_str().map(str::to_owned).ok_or_else(unknown);
        let store: Arc<dyn ObjectStore> = match url.scheme() {
            "file" => {
                return in_folder(&url.to_file_path().map_err(|()| unknown())?);
            }
            "memory" => Arc::new(InMemory::new()),
            "s3" => Arc::new(s3(AmazonS3Builder::from_env(), &bucket()?).map_err(|error| refused(said(&error)))?),
            "az" => Arc::new(azure(&bucket()?).map_err(|error| refused(said(&error)))?),
            _ => return Err(unknown()),
        };
        let prefix = Path::from_url_path(url.path()).map_err(|error| refused(error.to_string()))?;
        Ok(Self::over(Arc::new(PrefixStore::new(store, prefix)), place))
    }

    fn over(store: Arc<dyn ObjectStore>, place: &str) -> Self {
        Self { store, place: place.into(), stored: Arc::default(), folder: None, durable: None }
    }

    /// Where it lies, if it is a folder.
    pub fn folder(&self) -> Option<&Folder> {
        self.folder.as_deref()
    }

    /// Writes, reads and deletes a small object, for `faceflow doctor`.
    pub async fn check(&self) -> Result<(), Fault> {
        let body = Bytes::from_static(b"written by faceflow doctor; it may be deleted");
        // Others may be checking the same place.
        let key = format!("{CHECK_KEY}{:016x}", RandomState::new().hash_one(std::process::id()));
        self.put(key.clone(), body.clone()).await?;
        let read = self.get(key.clone()).await?;
        // Credentials that may not delete are good enough for everything else.
        if let Err(fault) = self.delete(key.clone()).await {
            tracing::warn!("{key} stays in {}, where it was written for a check: {fault}", self.place);
        }
        if read == body {
            return Ok(());
        }
        let detail = format!("{}: what was read is not what was written", self.place);
        Err(Fault::transient(Class::Store, "store_corrupt", detail))
    }

    fn fault(&self, error: &Error, key: &str) -> Fault {
        let (reason, advice) = match error {
            Error::NotFound { .. } if without_bucket(error) => {
                ("store", "; make the bucket or container, or mend --out")
            }
            Error::NotFound { .. } => (
                "store_missing",
                "; if nothing else is found there either, make the bucket or container, or mend --out",
            ),
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => (
                "store_denied",
                "; check the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AZURE_STORAGE_ACCOUNT_NAME and \
                 AZURE_STORAGE_ACCOUNT_KEY) and that they may read and write there",
            ),
            _ if unwritable(error) => ("store", "; it must be writable: make it so, or name another --out"),
            _ => ("store", ""),
        };
        Fault::transient(Class::Store, reason, format!("{}: {key}: {}{advice}", self.place, said(error)))
    }

    fn failed(&self, error: &io::Error, key: &str) -> Fault {
        Fault::transient(Class::Store, "store", format!("{}: {key}: {}", self.place, said(error)))
    }
}

impl std::fmt::Display for Objects {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.place)
    }
}

impl Store for Objects {
    fn put(&self, key: String, body: Bytes) -> Future<Result<(), Fault>> {
        let objects = self.clone();
        Box::pin(async move {
            // The key of an original is the digest of its bytes: what is stored under it need not be stored again.
            let original = key.split('/').nth(1) == Some("images");
            if original && lock(&objects.stored).holds(&key) {
                return Ok(());
            }
            let path = Path::parse(&key).map_err(|error| objects.fault(&error.into(), &key))?;
            if let Some(durable) = &objects.durable {
                let (durable, parts) = (Arc::clone(durable), path.clone());
                let made = blocking(move || Ok(durable.make_folders(&parts))).await?;
                made.map_err(|error| objects.failed(&error, &key))?;
            }
            kill_point("store.put");
            objects.store.put(&path, body.into()).await.map_err(|error| objects.fault(&error, &key))?;
            kill_point("store.stored");
            if original {
                lock(&objects.stored).add(key);
            }
            Ok(())
        })
    }

    fn get(&self, key: String) -> Future<Result<Bytes, Fault>> {
        let objects = self.clone();
        Box::pin(async move {
            let path = Path::parse(&key).map_err(|error| objects.fault(&error.into(), &key))?;
            let read = async { objects.store.get(&path).await?.bytes().await };
            read.await.map_err(|error| objects.fault(&error, &key))
        })
    }

    fn list(&self, folder: String) -> Listing {
        let objects = self.clone();
        let listed = match Path::parse(&folder) {
            Ok(path) => self.store.list(Some(&path)),
            Err(error) => futures::stream::once(async { Err(error.into()) }).boxed(),
        };
        listed
            .map_ok(|meta| Listed { key: meta.location.to_string(), bytes: meta.size })
            .map_err(move |error| objects.fault(&error, &folder))
            .boxed()
    }

    fn delete(&self, key: String) -> Future<Result<(), Fault>> {
        let objects = self.clone();
        Box::pin(async move {
            let path = Path::parse(&key).map_err(|error| objects.fault(&error.into(), &key))?;
            lock(&objects.stored).forget(&key);
            match objects.store.delete(&path).await {
                Err(Error::NotFound { .. }) => Ok(()),
                deleted => deleted.map_err(|error| objects.fault(&error, &key)),
            }
        })
    }
}

fn local(path: &Folder, durable: bool) -> Result<Arc<dyn ObjectStore>, String> {
    let made =
        std::fs::create_dir_all(path).and_then(|()| if durable { sync_entries(path, |_| false) } else { Ok(()) });
    made.map_err(|error| error.to_string())?;
    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| said(&error))?;
    Ok(Arc::new(store.with_fsync(durable)))
}

fn s3(builder: AmazonS3Builder, bucket: &str) -> Result<impl ObjectStore + use<>, Error> {
    let http =
        builder.get_config_value(&AmazonS3ConfigKey::Endpoint).is_some_and(|endpoint| endpoint.starts_with("http://"));
    let builder = if http { builder.with_allow_http(true) } else { builder };
    // One request for each object: many servers that speak S3 know no other way to delete.
    builder.with_bucket_name(bucket).with_retry(retry()).with_disable_bulk_delete(true).build()
}

fn azure(container: &str) -> Result<impl ObjectStore + use<>, Error> {
    let builder = MicrosoftAzureBuilder::from_env();
    let http =
        builder.get_config_value(&AzureConfigKey::Endpoint).is_some_and(|endpoint| endpoint.starts_with("http://"));
    let builder = if http { builder.with_allow_http(true) } else { builder };
    builder.with_container_name(container).with_retry(retry()).build()
}

fn retry() -> RetryConfig {
    RetryConfig { max_retries: RETRIES_MAX, retry_timeout: PATIENCE, ..RetryConfig::default() }
}

/// Whether the bucket or container itself is not there, by the codes of Amazon S3 and Azure Blob Storage: then nothing is known
/// about an object.
fn without_bucket(error: &Error) -> bool {
    let said = said(error);
    ["NoSuchBucket", "ContainerNotFound"].iter().any(|code| said.contains(code))
}

/// Whether a folder may not be written to.
fn unwritable(error: &(dyn std::error::Error + 'static)) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(kind, Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem))
        || error.source().is_some_and(unwritable)
}

/// An error with its causes, each once.
fn said(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
