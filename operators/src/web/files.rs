//! Files of this machine as part of the web, where the user named their folder.
//!
//! Pages never lead here: the miner keeps http and https addresses only, and redirects are refused by the client. Promise: no
//! file outside the named folders is read, whatever links lie in them.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use faceflow_core::bridge::blocking;
use faceflow_core::{Class, Fault, Future};
use url::Url;

use super::{Response, Want, Web, faults};

/// A web whose `file:` addresses are files in some folders.
pub struct Files {
    web: Arc<dyn Web>,
    roots: Arc<[PathBuf]>,
    bytes_max: usize,
}

impl Files {
    /// `web`, and the files in `roots` (canonical paths), each of at most `bytes_max`.
    pub fn new(web: Arc<dyn Web>, roots: Vec<PathBuf>, bytes_max: usize) -> Self {
        Self { web, roots: roots.into(), bytes_max }
    }
}

impl Web for Files {
    fn get(&self, url: &Url, want: Want) -> Future<Result<Response, Fault>> {
        if url.scheme() != "file" {
            return self.web.get(url, want);
        }
        let (url, roots, bytes_max) = (url.clone(), Arc::clone(&self.roots), self.bytes_max);
        Box::pin(blocking(move || read(url, &roots, bytes_max)))
    }
}

fn read(url: Url, roots: &[PathBuf], bytes_max: usize) -> Result<Response, Fault> {
    let inside = |path: &PathBuf| roots.iter().any(|root| path.starts_with(root));
    let path = url.to_file_path().ok().filter(inside).ok_or_else(|| {
        let detail = format!("{url} is in no folder that this run was told of: name it with faceflow stream --images");
        Fault::transient(Class::Policy, "folder_not_named", detail)
    })?;
    let path = path.canonicalize().map_err(|error| refused(&url, &error))?;
    if !inside(&path) {
        return Err(Fault::permanent(Class::Policy, "forbidden_file", format!("{url} leads out of its folder")));
    }
    let file = std::fs::File::open(&path).map_err(|error| refused(&url, &error))?;
    let mut body = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut body).map_err(|error| refused(&url, &error))?;
    if body.len() > bytes_max {
        return Err(faults::too_large("more", bytes_max));
    }
    Ok(Response { final_url: url, status: 200, headers: vec![], body: body.into() })
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

    struct Nothing;

    impl Web for Nothing {
        fn get(&self, _: &Url, _: Want) -> Future<Result<Response, Fault>> {
            Box::pin(async { Err(Fault::transient(Class::Dns, "no_web", "")) })
        }
    }

    #[tokio::test]
    async fn only_files_in_named_folders_are_read() {
        let (inside, outside) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        for (folder, name) in [(&inside, "a.jpg"), (&inside, "long.jpg"), (&outside, "secret.jpg")] {
            std::fs::write(folder.path().join(name), name.repeat(if name == "long.jpg" { 10 } else { 1 }))
                .expect("writes");
        }
        std::os::unix::fs::symlink(outside.path().join("secret.jpg"), inside.path().join("link.jpg")).expect("links");
        let files = Files::new(Arc::new(Nothing), vec![inside.path().canonicalize().expect("is there")], 20);
        let get = async |folder: &tempfile::TempDir, name: &str| {
            let url = Url::from_file_path(folder.path().join(name)).expect("a path");
            files.get(&url, Want::Image).await.map(|response| response.body).map_err(|fault| fault.reason)
        };
        assert_eq!(get(&inside, "a.jpg").await, Ok("a.jpg".into()));
        assert_eq!(get(&inside, "long.jpg").await, Err("too_large".into()));
        assert_eq!(get(&inside, "none.jpg").await, Err("file_missing".into()));
        assert_eq!(get(&inside, "link.jpg").await, Err("forbidden_file".into()));
        assert_eq!(get(&outside, "secret.jpg").await, Err("folder_not_named".into()));
        let web = Url::parse("http://a.example/").expect("a URL");
        assert_eq!(files.get(&web, Want::Page).await.map_err(|fault| fault.reason), Err("no_web".into()));
    }
}
