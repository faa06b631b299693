//! Files of this machine as part of the web, where the user named their folder.
//!
//! Pages never lead here: the miner keeps http and https URLs only, and redirects are refused by the client. Promise: no
//! file outside the named folders is read, whatever links lie in them.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use faceflow_core::blocking::blocking;
use faceflow_core::record::PageVersion;
use faceflow_core::{Class, Fault, Future, Reloadable};
use rustix::fs::OFlags;
use url::Url;

use super::body_budget::BodyBudget;
use super::settings::SizeLimit;
use super::{Client, FetchSettings, HeldBack, Response, Want, Web, classify_fault};

/// A web whose `file:` URLs are files in some folders.
pub struct Files {
    web: Arc<dyn Web>,
    bodies: Arc<BodyBudget>,
    roots: Arc<[PathBuf]>,
    settings: Reloadable<FetchSettings>,
}

impl Files {
    /// The web of `client`, whose settings and memory for bodies it shares, and the files in `roots` (canonical paths).
    pub fn new(client: Client, roots: Vec<PathBuf>) -> Self {
        Self {
            bodies: client.gate().bodies(),
            settings: client.gate().settings(),
            web: Arc::new(client),
            roots: roots.into(),
        }
    }
}

impl Web for Files {
    fn get_again(&self, url: &Url, last: &PageVersion) -> Future<Result<Option<Response>, Fault>> {
        self.web.get_again(url, last)
    }

    fn held_back(&self) -> HeldBack {
        self.web.held_back()
    }

    fn address_hash(&self, url: &Url) -> Future<Option<u64>> {
        self.web.address_hash(url)
    }

    fn get(&self, url: &Url, want: Want) -> Future<Result<Response, Fault>> {
        if url.scheme() != "file" {
            return self.web.get(url, want);
        }
        let (url, roots, bodies) = (url.clone(), Arc::clone(&self.roots), Arc::clone(&self.bodies));
        let bytes_max = self.settings.get().body_max_bytes;
        Box::pin(async move {
            let mut permit = bodies.share().await;
            let named = url.clone();
            let (file, bytes) = blocking(move || open(&named, &roots)).await?;
            if bytes > bytes_max as u64 {
                return Err(classify_fault::too_large(bytes, SizeLimit { bytes: bytes_max, key: "body_max_bytes" }));
            }
            permit.grow(bytes as usize).await;
            let named = url.clone();
            let body = blocking(move || {
                let mut body = Vec::with_capacity(bytes as usize);
                // It may have grown since; what was promised is what is read.
                file.take(bytes).read_to_end(&mut body).map_err(|error| refused(&named, &error))?;
                Ok(body)
            });
            let body = permit.with(body.await?.into());
            Ok(Response { final_url: url, status: 200, headers: vec![], body })
        })
    }
}

/// Opens a regular file and tells its size. Whatever is swapped for it meanwhile, what is open lies in a named folder.
fn open(url: &Url, roots: &[PathBuf]) -> Result<(File, u64), Fault> {
    let inside = |path: &PathBuf| roots.iter().any(|root| path.starts_with(root));
    let path = url.to_file_path().ok().filter(inside).ok_or_else(|| {
        let detail = format!("{url} is in no folder that this run was told of: name it with faceflow stream --images");
        Fault::transient(Class::Policy, "folder_not_named", detail)
    })?;
    let forbidden = |why: &str| Fault::permanent(Class::Policy, "forbidden_file", format!("{url} {why}"));
    // A named pipe must not keep us waiting for its other end.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file =
        File::options().read(true).custom_flags(flags).open(&path).map_err(|error| match error.raw_os_error() {
            Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => forbidden("is a link"),
            _ => refused(url, &error),
        })?;
    let metadata = file.metadata().map_err(|error| refused(url, &error))?;
    if !metadata.is_file() {
        return Err(forbidden("is no file"));
    }
    // Where the system tells what an open file really is (Linux), folders on the way cannot be links either.
    let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).or_else(|_| path.canonicalize());
    if !real.as_ref().is_ok_and(inside) {
        return Err(forbidden("leads out of its folder"));
    }
    Ok((file, metadata.len()))
}

fn refused(url: &Url, error: &std::io::Error) -> Fault {
    let detail = format!("{url}: {error}");
    match error.kind() {
        std::io::ErrorKind::NotFound => Fault::permanent(Class::Refused, "file_missing", detail),
        _ => Fault::transient(Class::Content, "file", detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        let runtime = tokio::runtime::Handle::current();
        let clock = Arc::new(faceflow_core::clock::RuntimeClock::wall(runtime));
        let settings = FetchSettings { body_max_bytes: 20, ..FetchSettings::default() };
        Client::new(settings.into(), clock).expect("a client")
    }

    #[tokio::test]
    async fn only_files_in_named_folders_are_read() {
        let (inside, outside) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        for (folder, name) in [(&inside, "a.jpg"), (&inside, "long.jpg"), (&outside, "secret.jpg")] {
            std::fs::write(folder.path().join(name), name.repeat(if name == "long.jpg" { 10 } else { 1 }))
                .expect("writes");
        }
        std::os::unix::fs::symlink(outside.path().join("secret.jpg"), inside.path().join("link.jpg")).expect("links");
        let files = Files::new(client(), vec![inside.path().canonicalize().expect("is there")]);
        let get = async |folder: &tempfile::TempDir, name: &str| {
            let url = Url::from_file_path(folder.path().join(name)).expect("a path");
            files.get(&url, Want::Image).await.map(|response| response.body).map_err(|fault| fault.reason)
        };
        assert_eq!(get(&inside, "a.jpg").await, Ok("a.jpg".into()));
        assert_eq!(get(&inside, "long.jpg").await, Err("too_large".into()));
        assert_eq!(get(&inside, "none.jpg").await, Err("file_missing".into()));
        assert_eq!(get(&inside, "link.jpg").await, Err("forbidden_file".into()));
        assert_eq!(get(&outside, "secret.jpg").await, Err("folder_not_named".into()));
        let deep = inside.path().join("deep");
        std::os::unix::fs::symlink(outside.path(), &deep).expect("links");
        assert_eq!(
            get(&inside, "deep/secret.jpg").await,
            Err("forbidden_file".into()),
            "a folder on the way is a link"
        );
        let made = std::process::Command::new("mkfifo").arg(inside.path().join("pipe.jpg")).status();
        assert!(made.expect("mkfifo runs").success());
        assert_eq!(get(&inside, "pipe.jpg").await, Err("forbidden_file".into()), "and it does not wait");
    }
}
