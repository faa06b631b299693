//! The lines of the results, built from the ledger: one definition for the results, the sidecars and the report.
//!
//! Field order is the contract's. A line is made from one entry at a time, so a million of them take no memory.

use faceflow_core::detector::{Detection, Face};
use faceflow_core::object_key::{crop_key, face_id, image_key};
use faceflow_core::record::{Content, ContentId};
use faceflow_core::transition::State;
use serde::Serialize;

use crate::ledger::database::{Moment, Row, values};
use crate::ledger::rows::{CONTENT, Trouble, Word, content_at};
use crate::ledger::{Reader, Status};

/// An image URL.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImageLine {
    pub url: String,
    pub final_url: Option<String>,
    pub page: Option<String>,
    pub site: String,
    pub tenant: String,
    pub status: Status,
    pub reason: Option<String>,
    pub attempts: u32,
    pub due_ms: Option<i64>,
    pub image: Option<Picture>,
    pub duplicate_of: Option<String>,
    pub distance: Option<u32>,
    pub faces: Option<Vec<FaceFields>>,
    pub detector: Option<Detector>,
}

/// The picture behind an image URL.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Picture {
    pub id: String,
    pub bytes: u64,
    pub format: String,
    pub width: u32,
    pub height: u32,
    pub phash: String,
    pub key: String,
}

/// A face, in pixels of its image as displayed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaceFields {
    pub id: String,
    pub bbox: [f32; 4],
    pub score: f32,
    pub quality: f32,
    pub landmarks: Option<[[f32; 2]; 5]>,
    pub crop: String,
}

/// Which engine answered, and how.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Detector {
    pub engine: String,
    pub model: String,
    pub model_sha256: String,
    pub scale: f32,
    pub degraded: bool,
}

/// A page.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PageLine {
    pub url: String,
    pub final_url: Option<String>,
    pub site: String,
    pub tenant: String,
    pub status: Status,
    pub reason: Option<String>,
    pub http_status: Option<u16>,
    pub depth: u32,
    pub attempts: u32,
    pub links: Option<u32>,
    pub images: Option<u32>,
}

/// A face of a done image, on its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaceLine<'a> {
    pub id: &'a str,
    pub image: &'a str,
    pub url: &'a str,
    pub page: Option<&'a str>,
    pub site: &'a str,
    pub tenant: &'a str,
    pub bbox: [f32; 4],
    pub score: f32,
    pub quality: f32,
    pub landmarks: Option<[[f32; 2]; 5]>,
    pub crop: &'a str,
}

impl ImageLine {
    /// The faces as lines of their own; none unless the image is done.
    pub fn face_lines(&self) -> impl Iterator<Item = FaceLine<'_>> {
        let done = self.image.as_ref().filter(|_| self.status == Status::Done);
        let faces = done.and(self.faces.as_deref()).unwrap_or_default();
        faces.iter().map(move |face| FaceLine {
            id: &face.id,
            image: done.map_or("", |image| &image.id),
            url: &self.url,
            page: self.page.as_deref(),
            site: &self.site,
            tenant: &self.tenant,
            bbox: face.bbox,
            score: face.score,
            quality: face.quality,
            landmarks: face.landmarks,
            crop: &face.crop,
        })
    }
}

/// The columns of an image's entry, in the order that [`EntryFields::at`] reads them.
const ENTRY: &str = "SELECT e.url, e.final_url, e.state, e.attempts, e.due_ms, e.reason, e.primary_entry, e.picture,
        g.url, coalesce(t.url, s.url)
    FROM entries e JOIN sites s ON s.id = e.site
    LEFT JOIN entries g ON g.id = (SELECT i.page FROM sightings i JOIN entries q ON q.id = i.page
        WHERE i.image = e.id ORDER BY q.url LIMIT 1)
    LEFT JOIN sites t ON t.id = g.site
    WHERE e.id = ?1";

struct EntryFields {
    url: String,
    final_url: Option<String>,
    state: State,
    attempts: u32,
    due_ms: Option<i64>,
    reason: Option<String>,
    primary: Option<i64>,
    picture: Option<i64>,
    page: Option<String>,
    site: String,
}

impl EntryFields {
    fn at(row: &Row<'_>) -> Result<Self, Trouble> {
        Ok(Self {
            url: row.get(0)?,
            final_url: row.get(1)?,
            state: row.get::<Word>(2)?.0,
            attempts: row.get(3)?,
            due_ms: row.get(4)?,
            reason: row.get(5)?,
            primary: row.get(6)?,
            picture: row.get(7)?,
            page: row.get(8)?,
            site: row.get(9)?,
        })
    }
}

/// A picture with its representative, which is itself unless another stands for it.
struct PictureFields {
    content: Content,
    state: State,
    attempts: u32,
    due_ms: Option<i64>,
    reason: Option<String>,
    main: Option<i64>,
    distance: Option<u32>,
    own: bool,
    representative: ContentId,
    detection: Option<String>,
}

impl PictureFields {
    fn read(moment: &Moment<'_>, id: i64) -> Result<Self, Trouble> {
        let sql = format!(
            "SELECT {CONTENT}, p.state, p.attempts, p.due_ms, p.reason, p.main, p.distance, r.id = p.id, r.content, d.body
            FROM pictures p JOIN pictures r ON r.id = coalesce(p.representative, p.id)
            LEFT JOIN detections d ON d.picture = r.id WHERE p.id = ?1"
        );
        let read = |row: &Row<'_>| {
            Ok(Self {
                content: content_at(row, 0)?,
                state: row.get::<Word>(7)?.0,
                attempts: row.get(8)?,
                due_ms: row.get(9)?,
                reason: row.get(10)?,
                main: row.get(11)?,
                distance: row.get(12)?,
                own: row.get(13)?,
                representative: row.get(14)?,
                detection: row.get(15)?,
            })
        };
        moment
            .one(&sql, values![id], read)?
            .ok_or_else(|| Trouble::Damaged(format!("picture {id} is named but not there")))
    }

    fn status(&self, entry: i64) -> Status {
        Status::of_picture(self.state, self.own, self.main == Some(entry))
    }

    /// The representative's faces in this picture's own pixels.
    fn faces(&self, tenant: &str) -> Result<Option<(Vec<FaceFields>, Detector)>, Trouble> {
        let Some(body) = &self.detection else { return Ok(None) };
        let damaged = |error| Trouble::Damaged(format!("the detection of {}: {error}", self.representative));
        let detection: Detection = serde_json::from_str(body).map_err(damaged)?;
        let scale = (!self.own).then(|| {
            let (width, height) = detection.size();
            let ratio = |own: u32, theirs: u32| f64::from(own) / f64::from(theirs.max(1));
            [ratio(self.content.width, width), ratio(self.content.height, height)]
        });
        let face = |(n, face): (usize, &Face)| FaceFields {
            id: face_id(self.representative, n),
            bbox: mapped([[face.bbox[0], face.bbox[1]], [face.bbox[2], face.bbox[3]]], scale)
                .as_flattened()
                .try_into()
                .expect("two corners are four numbers"),
            score: face.score,
            quality: face.quality,
            landmarks: face.landmarks.map(|points| mapped(points, scale)),
            crop: crop_key(tenant, self.representative, n),
        };
        let faces = detection.faces().iter().enumerate().map(face).collect();
        let engine = detection.engine();
        let detector = Detector {
            engine: engine.engine.clone(),
            model: engine.model.clone(),
            model_sha256: engine.model_sha256.clone(),
            scale: detection.scale(),
            degraded: detection.degraded(),
        };
        Ok(Some((faces, detector)))
    }
}

/// Points in a picture of another size, to a hundredth of a pixel; as they are where there is no scale.
fn mapped<const N: usize>(points: [[f32; 2]; N], scale: Option<[f64; 2]>) -> [[f32; 2]; N] {
    let Some(scale) = scale else { return points };
    let hundredth = |value: f64| ((value * 100.0).round() / 100.0) as f32;
    points.map(|point| [hundredth(f64::from(point[0]) * scale[0]), hundredth(f64::from(point[1]) * scale[1])])
}

/// The line of the image with this entry id.
pub fn image_line(reader: &Reader, moment: &Moment<'_>, id: i64) -> Result<ImageLine, Trouble> {
    let entry = entry_fields(moment, id)?;
    let settled = entry.state == State::Settled;
    let answered = matches!(entry.state, State::Settled | State::Rejected);
    let mut line = ImageLine {
        final_url: entry.final_url.or_else(|| settled.then(|| entry.url.clone())),
        url: entry.url,
        page: entry.page,
        site: entry.site,
        tenant: reader.tenant().to_owned(),
        status: Status::of_entry(entry.state),
        reason: entry.reason,
        attempts: entry.attempts + u32::from(answered),
        due_ms: entry.due_ms,
        image: None,
        duplicate_of: None,
        distance: None,
        faces: None,
        detector: None,
    };
    match (entry.state, entry.primary, entry.picture) {
        (State::Alternate, Some(primary), _) => fill_alternate(&mut line, moment, primary)?,
        (_, _, Some(picture)) => fill_picture(&mut line, &PictureFields::read(moment, picture)?, id)?,
        _ => {}
    }
    Ok(line)
}

/// The status of the image with this entry id, as its line has it.
pub fn image_status(moment: &Moment<'_>, id: i64) -> Result<Status, Trouble> {
    let entry = entry_fields(moment, id)?;
    match (entry.state, entry.primary, entry.picture) {
        (State::Alternate, Some(primary), _) => Ok(Status::of_alternate(image_status(moment, primary)?)),
        (_, _, Some(picture)) => Ok(PictureFields::read(moment, picture)?.status(id)),
        _ => Ok(Status::of_entry(entry.state)),
    }
}

fn entry_fields(moment: &Moment<'_>, id: i64) -> Result<EntryFields, Trouble> {
    let entry = moment.one(ENTRY, values![id], EntryFields::at)?;
    entry.ok_or_else(|| Trouble::Damaged(format!("entry {id} is named but not there")))
}

/// An alternate was never downloaded: all that is known is what it stands behind.
fn fill_alternate(line: &mut ImageLine, moment: &Moment<'_>, primary: i64) -> Result<(), Trouble> {
    let front = entry_fields(moment, primary)?;
    line.status = Status::of_alternate(image_status(moment, primary)?);
    let Some(picture) = front.picture else { return Ok(()) };
    let picture = PictureFields::read(moment, picture)?;
    match line.status {
        Status::Duplicate => line.duplicate_of = Some(picture.content.id.to_string()),
        _ => line.reason = picture.reason,
    }
    Ok(())
}

fn fill_picture(line: &mut ImageLine, picture: &PictureFields, id: i64) -> Result<(), Trouble> {
    let content = &picture.content;
    line.status = picture.status(id);
    line.attempts += picture.attempts;
    line.image = Some(Picture {
        id: content.id.to_string(),
        bytes: content.bytes,
        format: content.format.clone(),
        width: content.width,
        height: content.height,
        phash: content.phash.to_string(),
        key: image_key(&line.tenant, content),
    });
    // While it is open, a degraded answer is what there is.
    if let Status::Done | Status::Duplicate | Status::Open = line.status {
        let faces = picture.faces(&line.tenant)?;
        (line.faces, line.detector) = faces.map_or((None, None), |(faces, detector)| (Some(faces), Some(detector)));
    }
    if !matches!(line.status, Status::Done | Status::Duplicate) {
        (line.reason, line.due_ms) = (picture.reason.clone(), picture.due_ms);
    }
    if line.status == Status::Duplicate {
        line.duplicate_of = Some(picture.representative.to_string());
        line.distance = if picture.own { Some(0) } else { picture.distance };
    }
    Ok(())
}

/// The line of the page with this entry id.
pub fn page_line(reader: &Reader, moment: &Moment<'_>, id: i64) -> Result<PageLine, Trouble> {
    let sql =
        "SELECT e.url, e.final_url, s.url, e.state, e.reason, e.http_status, e.depth, e.attempts, e.links, e.images
        FROM entries e JOIN sites s ON s.id = e.site WHERE e.id = ?1";
    let read = |row: &Row<'_>| {
        let state = row.get::<Word>(3)?.0;
        let url: String = row.get(0)?;
        let answered = matches!(state, State::Settled | State::Rejected);
        Ok(PageLine {
            final_url: row.get::<Option<String>>(1)?.or_else(|| (state == State::Settled).then(|| url.clone())),
            url,
            site: row.get(2)?,
            tenant: reader.tenant().to_owned(),
            status: Status::of_entry(state),
            reason: row.get(4)?,
            http_status: row.get(5)?,
            depth: row.get(6)?,
            attempts: row.get::<u32>(7)? + u32::from(answered),
            links: row.get(8)?,
            images: row.get(9)?,
        })
    };
    moment.one(sql, values![id], read)?.ok_or_else(|| Trouble::Damaged(format!("entry {id} is named but not there")))
}
