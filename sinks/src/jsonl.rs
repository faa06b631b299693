//! A sink that writes detections as JSON lines, for whoever wants to follow a run.
//!
//! After a crash the last lines may come again; a reader keeps the last line of each image id.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::Path;

use faceflow_core::detector::{Detection, Face};
use faceflow_core::record::ContentId;
use faceflow_core::sink::Sink;
use faceflow_core::{Class, Fault, Time};
use serde::Serialize;

/// Writes one line per detection.
pub struct Jsonl<W> {
    out: W,
}

#[derive(Serialize)]
struct Line<'a> {
    at_ms: Time,
    image: String,
    width: u32,
    height: u32,
    faces: &'a [Face],
    detector: Engine<'a>,
}

#[derive(Serialize)]
struct Engine<'a> {
    engine: &'a str,
    model: &'a str,
    model_sha256: &'a str,
    scale: f32,
    degraded: bool,
}

impl<W: Write + Send> Jsonl<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// What was written to.
    pub fn into_inner(self) -> W {
        self.out
    }
}

impl Jsonl<BufWriter<File>> {
    /// Writes to the end of a file, which is made if it is not there.
    pub fn append(path: &Path) -> std::io::Result<Self> {
        Ok(Self::new(BufWriter::new(OpenOptions::new().append(true).create(true).open(path)?)))
    }
}

impl<W: Write + Send> Sink for Jsonl<W> {
    fn write(&mut self, at: Time, batch: &[Detection]) -> Result<(), Fault> {
        for detection in batch {
            let ((width, height), engine) = (detection.size(), detection.engine());
            let line = Line {
                at_ms: at,
                image: ContentId::to_string(&detection.picture()),
                width,
                height,
                faces: detection.faces(),
                detector: Engine {
                    engine: &engine.engine,
                    model: &engine.model,
                    model_sha256: &engine.model_sha256,
                    scale: detection.scale(),
                    degraded: detection.degraded(),
                },
            };
            serde_json::to_writer(&mut self.out, &line).map_err(std::io::Error::from).map_err(refused)?;
            self.out.write_all(b"\n").map_err(refused)?;
        }
        Ok(())
    }

    fn flush(&mut self, _upto: Time) -> Result<(), Fault> {
        self.out.flush().map_err(refused)
    }
}

fn refused(error: std::io::Error) -> Fault {
    Fault::transient(Class::Store, "sink", format!("detections could not be written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::detection;

    #[test]
    fn a_detection_is_a_line_once_it_is_flushed() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("faces.jsonl");
        let id = ContentId::of(b"a");
        for at in [7, 8] {
            let mut sink = Jsonl::append(&path).expect("opens");
            sink.write(at, &[detection(id, (40, 30), 1)]).expect("writes");
            sink.flush(at + 1).expect("flushes");
        }
        let text = std::fs::read_to_string(&path).expect("reads");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!((lines.len(), &lines[0]["at_ms"], &lines[1]["at_ms"]), (2, &7.into(), &8.into()));
        assert_eq!(lines[0]["image"], id.to_string());
        assert_eq!(lines[0]["faces"][0]["bbox"], serde_json::json!([1.0, 2.0, 11.0, 22.0]));
        assert_eq!(lines[0]["detector"]["engine"], "scripted");
    }

    #[test]
    fn a_full_disk_is_a_fault() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let refused = Jsonl::new(Full).write(0, &[detection(ContentId::of(b"a"), (4, 3), 0)]).expect_err("is full");
        assert_eq!((refused.class, refused.permanent), (Class::Store, false));
    }
}
