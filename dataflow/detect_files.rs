//! Faces in local image files: the decoder and detector of the pipeline, without the pipeline.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};

use faceflow_core::Fault;
use faceflow_core::blocking::panicked;
use faceflow_core::detector::{Answer, Detector, Face, Pass, detect};
use faceflow_core::object_key::face_id;
use faceflow_core::record::ContentId;
use faceflow_pixels::ImageSettings;
use faceflow_pixels::sniff::sniff;
use faceflow_sources::folder::is_named_like_picture;
use serde::Serialize;
use tokio::runtime::Handle;

/// So many bytes at the beginning of a file say what it is.
const FIRST_BYTES: u64 = 64;

/// A file to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it is called in the output: relative to the folder named, or the file as named.
    pub name: String,
}

/// The files under some paths.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FoundFiles {
    /// Those to look at.
    pub files: Vec<LocalFile>,
    /// How many in folders are no pictures, by their names and by their first bytes.
    pub passed_over: usize,
}

/// The files under these paths, folders recursively, in path order within each. A file that is named is looked at whatever it is; of
/// those in folders, those that are named like a picture or begin like one, and those that cannot be read.
pub fn files(paths: &[PathBuf]) -> io::Result<FoundFiles> {
    let (mut found, mut passed_over) = (Vec::new(), 0);
    for path in paths {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let kind = std::fs::metadata(path).map_err(named)?.file_type();
        if kind.is_fifo() || kind.is_socket() {
            // Whoever opens one may wait for ever.
            return Err(named(io::Error::other("neither a file nor a folder")));
        }
        if !kind.is_dir() {
            found.push(LocalFile { path: path.clone(), name: path.display().to_string() });
            continue;
        }
        let mut below = Vec::new();
        walk(path, &mut below, &mut passed_over).map_err(named)?;
        let all = below.len();
        below.retain(|file| may_be_picture(file));
        passed_over += all - below.len();
        below.sort();
        found.extend(below.into_iter().map(|file| LocalFile {
            name: file.strip_prefix(path).unwrap_or(&file).display().to_string(),
            path: file,
        }));
    }
    Ok(FoundFiles { files: found, passed_over })
}

/// Whether a file is named like a picture, or begins like one that is decoded, or does not say.
fn may_be_picture(path: &Path) -> bool {
    let first = || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(FIRST_BYTES).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes)
    };
    // What cannot be read is a line with its error.
    is_named_like_picture(path) || first().map_or(true, |bytes| sniff(&bytes).is_ok())
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>, others: &mut usize) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        match kind {
            // Links to folders are not followed: they may lead round in circles.
            kind if kind.is_dir() => walk(&path, found, others)?,
            // A dangling link is a line with its error.
            kind if kind.is_file() || path.is_file() || (kind.is_symlink() && !path.exists()) => found.push(path),
            // Pipes, sockets, devices, and links to folders.
            _ => *others += 1,
        }
    }
    Ok(())
}

/// How to look at local files.
pub struct Local {
    /// What finds faces.
    pub detector: Arc<dyn Detector>,
    /// Which images are decoded.
    pub image: ImageSettings,
    /// No file is read beyond this many bytes.
    pub file_max_bytes: u64,
    /// Threads that decode and look.
    pub threads: usize,
}

#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    width: Option<u32>,
    height: Option<u32>,
    faces: Option<Vec<FaceLine>>,
    detector: Option<DetectorLine<'a>>,
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct FaceLine {
    id: String,
    bbox: [f32; 4],
    score: f32,
    quality: f32,
    landmarks: Option<[[f32; 2]; 5]>,
    crop: Option<String>,
}

#[derive(Serialize)]
struct DetectorLine<'a> {
    engine: &'a str,
    model: &'a str,
    model_sha256: &'a str,
    scale: f32,
    degraded: bool,
    passes: &'a [Pass],
}

struct Seen {
    id: ContentId,
    size: (u32, u32),
    answer: Answer,
}

impl Local {
    /// Looks at the files and writes one JSON line for each, in their order. Returns how many could not be looked at.
    pub fn detect(&self, files: &[LocalFile], out: &mut dyn Write) -> io::Result<usize> {
        let (next, (lines, written)) = (AtomicUsize::new(0), mpsc::sync_channel(self.threads * 4));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        std::thread::scope(|threads| {
            for _ in 0..self.threads.max(1) {
                let (lines, next, runtime) = (lines.clone(), &next, runtime.handle());
                threads.spawn(move || {
                    // A closed channel means that nobody reads the output any more.
                    while let Some((at, file)) = take(files, next) {
                        if lines.send((at, self.look(&file.path, runtime))).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(lines);
            let (mut early, mut failed, mut turn) = (BTreeMap::new(), 0, 0);
            for (at, seen) in written {
                early.insert(at, seen);
                while let Some(seen) = early.remove(&turn) {
                    failed += usize::from(seen.is_err());
                    writeln!(out, "{}", line(&files[turn].name, seen)?)?;
                    turn += 1;
                }
            }
            out.flush()?;
            Ok(failed)
        })
    }

    fn look(&self, path: &Path, runtime: &Handle) -> Result<Seen, String> {
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.look_at(path, runtime)));
        looked.unwrap_or_else(|panic| Err(panicked(panic.as_ref()).to_string()))
    }

    fn look_at(&self, path: &Path, runtime: &Handle) -> Result<Seen, String> {
        let bytes = self.read(path).map_err(|error| format!("cannot be read: {error}"))?;
        let fault = |fault: Fault| fault.to_string();
        let picture = faceflow_pixels::decode(&bytes, &self.image).map_err(fault)?.picture;
        let mut answers = runtime.block_on(detect(&self.detector, vec![picture.clone()]));
        let mut answer = answers.pop().expect("one picture has one answer").map_err(fault)?;
        for face in &mut answer.faces {
            face.quality = faceflow_pixels::quality(&picture, face);
        }
        Ok(Seen { id: ContentId::of(&bytes), size: (picture.width, picture.height), answer })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(self.file_max_bytes + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > self.file_max_bytes {
            return Err(io::Error::other(format!("larger than {} bytes (fetch.body_max_bytes)", self.file_max_bytes)));
        }
        Ok(bytes)
    }
}

fn take<'a>(files: &'a [LocalFile], next: &AtomicUsize) -> Option<(usize, &'a LocalFile)> {
    let at = next.fetch_add(1, Relaxed);
    files.get(at).map(|file| (at, file))
}

fn line(name: &str, seen: Result<Seen, String>) -> io::Result<String> {
    let line = match &seen {
        Err(error) => Line { file: name, width: None, height: None, faces: None, detector: None, error: Some(error) },
        Ok(Seen { id, size: (width, height), answer }) => Line {
            file: name,
            width: Some(*width),
            height: Some(*height),
            faces: Some(answer.faces.iter().enumerate().map(|(n, face)| face_line(*id, n, face)).collect()),
            detector: Some(DetectorLine {
                engine: &answer.engine.engine,
                model: &answer.engine.model,
                model_sha256: &answer.engine.model_sha256,
                scale: answer.scale,
                degraded: answer.degraded,
                passes: &answer.passes,
            }),
            error: None,
        },
    };
    Ok(serde_json::to_string(&line)?)
}

fn face_line(id: ContentId, n: usize, face: &Face) -> FaceLine {
    let Face { bbox, score, quality, landmarks } = *face;
    FaceLine { id: face_id(id, n), bbox, score, quality, landmarks, crop: None }
}
