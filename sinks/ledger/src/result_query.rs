//! Lines read from the ledger, some hundred at a time, by one statement for all of them.

use faceflow_core::detector::{Detection, Face};
use faceflow_core::object_key::{crop_key, face_id, image_key};
use faceflow_core::record::{Content, ContentId, HashKind};
use faceflow_core::transition::State;

use crate::column_codecs::{StateText, TransactionError, content_at, content_columns};
use crate::database::{DbTransaction, Row};
use crate::entry_selection::EntrySelection;
use crate::result_schema::{Detector, FaceFields, ImageLine, PageLine, Picture};
use crate::sql::Sql;
use crate::{Reader, Status};

/// An image line, with what the views need to know besides.
pub struct Described {
    /// The entry's number.
    pub entry: i64,
    /// Of a picture that stands for itself: the generation of its answer, if it has one.
    pub generation: Option<u32>,
    /// The line itself.
    pub line: ImageLine,
}

/// The page with the smallest URL of those that show an image, as `g`.
const PAGE: Sql = Sql {
    sqlite: "entries g ON g.id = (SELECT i.page FROM page_images i JOIN entries q ON q.id = i.page
            WHERE i.image = e.id ORDER BY q.url LIMIT 1)",
    postgres: "LATERAL (SELECT q.url, q.site FROM page_images i JOIN entries q ON q.id = i.page
            WHERE i.image = e.id ORDER BY q.url LIMIT 1) g ON TRUE",
};

/// The columns of an image, in the order that [`described`] reads them: the entry; the smallest URL that shows it, with its site;
/// what an alternate stands behind; the picture of either; who stands for that, and its answer. Only the entry is certain. Nothing
/// is looked up twice: most pictures stand for themselves.
fn image_columns(tx: &DbTransaction<'_>, from: &str) -> String {
    let (page, content) = (PAGE.of(tx), content_columns(tx));
    format!(
        "SELECT e.id, e.url, e.final_url, e.state, e.attempts, e.due_ms, e.reason, g.url, s.url,
            f.id, f.state, p.id, p.main, p.state, p.attempts, p.due_ms, p.reason, p.distance,
            coalesce(p.representative, p.id) = p.id, CASE WHEN p.representative <> p.id THEN r.content ELSE p.content END, d.body,
            {content}
        FROM {from}
        LEFT JOIN {page}
        LEFT JOIN sites s ON s.id = coalesce(g.site, e.site)
        LEFT JOIN entries f ON f.id = e.primary_entry AND e.state = 'alternate'
        LEFT JOIN pictures p ON p.id = coalesce(f.picture, e.picture)
        LEFT JOIN pictures r ON r.id = CASE WHEN p.representative <> p.id THEN p.representative END
        LEFT JOIN detections d ON d.picture = coalesce(p.representative, p.id) AND f.id IS NULL"
    )
}

/// The lines of the chosen images, ordered by URL.
pub fn image_lines(
    reader: &Reader,
    tx: &DbTransaction<'_>,
    chosen: &EntrySelection<'_>,
) -> Result<Vec<Described>, TransactionError> {
    tx.look_up_by_keys()?;
    let sql = image_columns(tx, &chosen.from(tx));
    let mut lines = tx.list(&sql, &chosen.values(reader.tenant_id()), |row| described(reader.tenant(), row))?;
    lines.sort_unstable_by(|one, other| one.line.url.cmp(&other.line.url));
    Ok(lines)
}

fn described(tenant: &str, row: &Row<'_>) -> Result<Described, TransactionError> {
    let (entry, url, state) = (row.get(0)?, row.get::<String>(1)?, row.get::<StateText>(3)?.0);
    let (settled, answered) = (state == State::Settled, matches!(state, State::Settled | State::Rejected));
    let final_url: Option<String> = row.get(2)?;
    let mut line = ImageLine {
        final_url: final_url.or_else(|| settled.then(|| url.clone())),
        url,
        page: row.get(7)?,
        site: row.get(8)?,
        tenant: tenant.to_owned(),
        status: Status::of_entry(state),
        reason: row.get(6)?,
        attempts: row.get::<u32>(4)? + u32::from(answered),
        due_ms: row.get(5)?,
        image: None,
        duplicate_of: None,
        distance: None,
        faces: None,
        detector: None,
    };
    let picture = row.get::<Option<i64>>(11)?.map(|_| PictureFields::at(row)).transpose()?;
    let front = row
        .get::<Option<i64>>(9)?
        .map(|front| Ok::<_, TransactionError>((front, row.get::<StateText>(10)?.0)))
        .transpose()?;
    let mut generation = None;
    match (front, picture) {
        (Some(front), picture) => fill_alternate(&mut line, front, picture),
        (None, Some(picture)) => generation = fill_picture(&mut line, &picture, entry)?,
        (None, None) => {}
    }
    Ok(Described { entry, generation, line })
}

/// A picture with its representative, which is itself unless another stands for it.
struct PictureFields {
    content: Content,
    main: Option<i64>,
    state: State,
    attempts: u32,
    due_ms: Option<i64>,
    reason: Option<String>,
    distance: Option<u32>,
    own: bool,
    representative: ContentId,
    detection: Option<String>,
}

impl PictureFields {
    fn at(row: &Row<'_>) -> Result<Self, TransactionError> {
        Ok(Self {
            main: row.get(12)?,
            state: row.get::<StateText>(13)?.0,
            attempts: row.get(14)?,
            due_ms: row.get(15)?,
            reason: row.get(16)?,
            distance: row.get(17)?,
            own: row.get(18)?,
            representative: row.get(19)?,
            detection: row.get(20)?,
            content: content_at(row, 21)?,
        })
    }

    fn status(&self, entry: i64) -> Status {
        Status::of_picture(self.state, self.own, self.main == Some(entry))
    }

    /// The representative's answer.
    fn detection(&self) -> Result<Option<Detection>, TransactionError> {
        let damaged = |error| TransactionError::Damaged(format!("the detection of {}: {error}", self.representative));
        self.detection.as_deref().map(|body| serde_json::from_str(body).map_err(damaged)).transpose()
    }

    /// The representative's faces in this picture's own pixels.
    fn faces(&self, tenant: &str, detection: &Detection) -> Vec<FaceFields> {
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
            crop: crop_key(tenant, self.representative, detection.generation(), n),
        };
        detection.faces().iter().enumerate().map(face).collect()
    }
}

impl From<&Detection> for Detector {
    fn from(detection: &Detection) -> Self {
        let engine = detection.engine();
        Self {
            engine: engine.engine.clone(),
            model: engine.model.clone(),
            model_sha256: engine.model_sha256.clone(),
            scale: detection.scale(),
            degraded: detection.degraded(),
            passes: detection.passes().to_vec(),
        }
    }
}

/// Points in a picture of another size, to a hundredth of a pixel; as they are where there is no scale.
fn mapped<const N: usize>(points: [[f32; 2]; N], scale: Option<[f64; 2]>) -> [[f32; 2]; N] {
    let Some(scale) = scale else { return points };
    let hundredth = |value: f64| ((value * 100.0).round() / 100.0) as f32;
    points.map(|point| [hundredth(f64::from(point[0]) * scale[0]), hundredth(f64::from(point[1]) * scale[1])])
}

/// An alternate was never downloaded: all that is known is what it stands behind.
fn fill_alternate(line: &mut ImageLine, (front, state): (i64, State), picture: Option<PictureFields>) {
    let status = picture.as_ref().map_or(Status::of_entry(state), |picture| picture.status(front));
    line.status = Status::of_alternate(status);
    let Some(picture) = picture else { return };
    match line.status {
        Status::Duplicate => line.duplicate_of = Some(picture.content.id.to_string()),
        _ => line.reason = picture.reason,
    }
}

/// Returns the generation of its answer, if the picture stands for itself and has one.
fn fill_picture(line: &mut ImageLine, picture: &PictureFields, id: i64) -> Result<Option<u32>, TransactionError> {
    let content = &picture.content;
    line.status = picture.status(id);
    line.attempts += picture.attempts;
    line.image = Some(Picture {
        id: content.id.to_string(),
        bytes: content.bytes,
        format: content.format.clone(),
        width: content.width,
        height: content.height,
        phash: content.hashes.newest(HashKind::Dct64).map(|hash| hash.bits.to_string()),
        key: image_key(&line.tenant, content),
    });
    let detection = picture.detection()?;
    // While it is open, a degraded answer is what there is.
    if let (Status::Done | Status::Duplicate | Status::Open, Some(detection)) = (line.status, &detection) {
        line.faces = Some(picture.faces(&line.tenant, detection));
        line.detector = Some(detection.into());
    }
    if !matches!(line.status, Status::Done | Status::Duplicate) {
        (line.reason, line.due_ms) = (picture.reason.clone(), picture.due_ms);
    }
    if line.status == Status::Duplicate {
        line.duplicate_of = Some(picture.representative.to_string());
        line.distance = if picture.own { Some(0) } else { picture.distance };
    }
    Ok(detection.filter(|_| picture.own).map(|detection| detection.generation()))
}

/// The lines of the chosen pages, ordered by URL.
pub fn page_lines(
    reader: &Reader,
    tx: &DbTransaction<'_>,
    chosen: &EntrySelection<'_>,
) -> Result<Vec<PageLine>, TransactionError> {
    tx.look_up_by_keys()?;
    let sql = format!(
        "SELECT e.url, e.final_url, s.url, e.state, e.reason, e.http_status, e.depth, e.attempts, e.links, e.images
        FROM {} LEFT JOIN sites s ON s.id = e.site",
        chosen.from(tx)
    );
    let mut lines = tx.list(&sql, &chosen.values(reader.tenant_id()), |row| {
        let state = row.get::<StateText>(3)?.0;
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
    })?;
    lines.sort_unstable_by(|one, other| one.url.cmp(&other.url));
    Ok(lines)
}
