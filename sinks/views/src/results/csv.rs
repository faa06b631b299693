//! Results as comma-separated values, RFC 4180: CRLF, quotes where they are needed, nothing where nothing is known.

use std::io::{self, Write};

use csv::{Terminator, Writer, WriterBuilder};

use faceflow_ledger::{FaceLine, ImageLine, PageLine};

/// Columns of images; `faces` is how many were seen, each of which is a row of the faces.
pub const IMAGES: &[&str] = &[
    "url",
    "final_url",
    "page",
    "site",
    "tenant",
    "status",
    "reason",
    "attempts",
    "due_ms",
    "id",
    "bytes",
    "format",
    "width",
    "height",
    "phash",
    "key",
    "duplicate_of",
    "distance",
    "faces",
    "engine",
    "model",
    "model_sha256",
    "scale",
    "degraded",
];

/// Columns of pages.
pub const PAGES: &[&str] =
    &["url", "final_url", "site", "tenant", "status", "reason", "http_status", "depth", "attempts", "links", "images"];

/// Columns of faces; `landmarks` is ten numbers, x before y, separated by spaces.
pub const FACES: &[&str] =
    &["id", "image", "url", "page", "site", "tenant", "x1", "y1", "x2", "y2", "score", "quality", "landmarks", "crop"];

/// Writes rows to `out`, whose errors are its own.
pub fn writer(out: &mut dyn Write) -> Writer<&mut dyn Write> {
    WriterBuilder::new().terminator(Terminator::CRLF).from_writer(out)
}

/// What became of a write.
pub fn written(written: csv::Result<()>) -> io::Result<()> {
    written.map_err(|error| match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    })
}

fn text(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

pub fn image_fields(line: &ImageLine) -> Vec<String> {
    let (image, detector) = (line.image.as_ref(), line.detector.as_ref());
    vec![
        line.url.clone(),
        text(line.final_url.as_ref()),
        text(line.page.as_ref()),
        line.site.clone(),
        line.tenant.clone(),
        line.status.word().to_owned(),
        text(line.reason.as_ref()),
        line.attempts.to_string(),
        text(line.due_ms),
        text(image.map(|image| &image.id)),
        text(image.map(|image| image.bytes)),
        text(image.map(|image| &image.format)),
        text(image.map(|image| image.width)),
        text(image.map(|image| image.height)),
        text(image.and_then(|image| image.phash.as_ref())),
        text(image.map(|image| &image.key)),
        text(line.duplicate_of.as_ref()),
        text(line.distance),
        text(line.faces.as_ref().map(Vec::len)),
        text(detector.map(|detector| &detector.engine)),
        text(detector.map(|detector| &detector.model)),
        text(detector.map(|detector| &detector.model_sha256)),
        text(detector.map(|detector| detector.scale)),
        text(detector.map(|detector| detector.degraded)),
    ]
}

pub fn page_fields(line: &PageLine) -> Vec<String> {
    vec![
        line.url.clone(),
        text(line.final_url.as_ref()),
        line.site.clone(),
        line.tenant.clone(),
        line.status.word().to_owned(),
        text(line.reason.as_ref()),
        text(line.http_status),
        line.depth.to_string(),
        line.attempts.to_string(),
        text(line.links),
        text(line.images),
    ]
}

pub fn face_fields(line: &FaceLine<'_>) -> Vec<String> {
    let landmarks =
        line.landmarks.map(|points| points.as_flattened().iter().map(f32::to_string).collect::<Vec<_>>().join(" "));
    let [x1, y1, x2, y2] = line.bbox.map(|side| side.to_string());
    let (image, url, crop) = (line.image.to_owned(), line.url.to_owned(), line.crop.to_owned());
    let (id, site, tenant) = (line.id.to_owned(), line.site.to_owned(), line.tenant.to_owned());
    let (score, quality) = (line.score.to_string(), line.quality.to_string());
    vec![id, image, url, text(line.page), site, tenant, x1, y1, x2, y2, score, quality, text(landmarks), crop]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_fields_stay_in_their_columns() {
        let mut out = Vec::new();
        let row = ["plain", "a,b", "say \"no\"", "two\nlines", ""];
        written(writer(&mut out).write_record(row)).expect("writes to memory");
        assert_eq!(String::from_utf8(out).expect("text"), "plain,\"a,b\",\"say \"\"no\"\"\",\"two\nlines\",\r\n");
    }
}
