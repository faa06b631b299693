//! What becomes of work: retries, ends, kept bytes, delivered faces, and who stands for whom.

use faceflow_core::record::{
    Content, ContentId, DETECTION_QUEUE, DetectedFrame, Disposition, DuplicateAssignment, Frame, QueueId, StoredImage,
    Work,
};
use faceflow_core::transition::{Event, IllegalTransition, State};
use faceflow_core::{Fault, Time};
use serde_json::json;

use super::Status;
use super::books::{Books, Entry, Line, PictureRow, brief, fault_body, try_step};
use super::database::values;
use super::rows::{EntryKind, Trouble, Word};

/// A fate without its work: the step, its word in the log, when it is due again, and when it is tried although it ended.
struct End<'a> {
    event: Event,
    kind: &'static str,
    fault: &'a Fault,
    due: Option<Time>,
    again: Option<Time>,
}

impl End<'_> {
    fn body(&self, attempts: u32, scale: Option<f32>) -> String {
        fault_body(self.fault, attempts, (self.due.or(self.again), scale))
    }
}

impl Books<'_, '_> {
    pub fn fate(&mut self, fate: &Disposition) -> Result<(), Trouble> {
        let (work, end) = match fate {
            Disposition::Retry { work, fault, due } => {
                (work, End { event: Event::Retry, kind: "retry", fault, due: Some(*due), again: None })
            }
            Disposition::Rejected { work, fault, again } => {
                (work, End { event: Event::Reject, kind: "rejected", fault, due: None, again: *again })
            }
            Disposition::Dead { work, fault, again } => {
                (work, End { event: Event::Die, kind: "dead", fault, due: None, again: *again })
            }
            Disposition::DegradedAccepted { work, fault } => {
                (work, End { event: Event::Settle, kind: "delivered", fault, due: None, again: None })
            }
        };
        match work {
            Work::Frame(frame) => self.frame_failed(frame, &end),
            Work::Page(_) | Work::Image(_) => self.entry_failed(work, &end),
        }
    }

    fn entry_failed(&mut self, work: &Work, end: &End<'_>) -> Result<(), Trouble> {
        let (kind, url) = match work {
            Work::Page(page) => (EntryKind::Page, &page.url),
            Work::Image(image) => (EntryKind::Image, &image.url),
            Work::Frame(_) => return Ok(()),
        };
        let entry = self.find(work.key())?;
        // Since then it was reached on a shorter way, and that try decides.
        if let (Work::Page(page), Some(entry)) = (work, &entry)
            && entry.outdates(page)
        {
            if entry.state == State::Open {
                self.open(entry.lane, 0, false);
            }
            return Ok(());
        }
        let next = try_step(entry, end.event, url)?;
        if let (Work::Page(page), Some(entry), None, Some(due)) = (work, &entry, next, end.due)
            && page.last.is_some()
        {
            return self.not_seen_again(entry, end, due);
        }
        let (Some(entry), Some(next)) = (entry, next) else { return Ok(()) };
        self.refuse_held(entry.run, url)?;
        // A dead entry may be driven again, so it keeps what that takes.
        let sql = "UPDATE entries SET state = ?2, attempts = ?3, due_ms = ?4, reason = ?5, detail = ?6, turn = NULL,
            inline = CASE ?2 WHEN 'rejected' THEN NULL ELSE inline END, revive_ms = ?7, spared = ?8 WHERE id = ?1";
        let (due, revive) = (end.due.map(|due| due as i64), end.again.map(|again| again as i64));
        let (attempts, detail) = (work.attempts(), brief(&end.fault.detail));
        let spared = attempts - work.attempts_counted();
        self.run(sql, values![entry.id, Word(next), attempts, due, &end.fault.reason, detail, revive, spared])?;
        self.recount(kind, Some(entry.state), next);
        let body = end.body(attempts, None);
        self.log(Line { kind: end.kind, entry: Some(entry.id), body: Some(&body), ..Line::default() })?;
        self.due(entry.lane, end.due, end.again);
        if (kind, end.due) == (EntryKind::Image, None) {
            self.hand_on(&entry)?;
        }
        self.freed.extend(entry.turn.map(|_| entry.site));
        self.pass_turns()
    }

    /// A settled page could not be looked at again: that changes nothing but when it is tried next.
    fn not_seen_again(&mut self, entry: &Entry, end: &End<'_>, due: Time) -> Result<(), Trouble> {
        let sql = "UPDATE entries SET again_ms = ?2 WHERE id = ?1 AND again_ms IS NOT NULL";
        self.run(sql, values![entry.id, due as i64])?;
        self.open(entry.lane, due, true);
        self.log(Line { kind: end.kind, entry: Some(entry.id), body: Some(&end.body(0, None)), ..Line::default() })
    }

    /// Notes when what failed is due again, or is tried although it ended.
    fn due(&mut self, lane: QueueId, due: Option<Time>, again: Option<Time>) {
        let (due, again) = (due.map(|due| (due, false)), again.map(|again| (again, true)));
        for (due, again) in due.into_iter().chain(again) {
            self.open(lane, due, again);
        }
    }

    fn frame_failed(&mut self, frame: &Frame, end: &End<'_>) -> Result<(), Trouble> {
        let id = frame.content.id;
        let picture = self.find_picture(id)?;
        let next = try_step(picture, end.event, id)?;
        let (Some(picture), Some(next)) = (picture, next) else { return Ok(()) };
        if self.is_held(picture.run) {
            // Another run kept the same picture first, and what becomes of it there counts.
            let body = End { due: None, again: None, ..*end }.body(frame.attempts, frame.scale);
            return self.log(Line { kind: "retry", picture: Some(picture.id), body: Some(&body), ..Line::default() });
        }
        self.change_picture(picture.id, |books| {
            let sql =
                "UPDATE pictures SET state = ?2, attempts = ?3, due_ms = ?4, reason = ?5, detail = ?6, revive_ms = ?7,
                scale_ppm = coalesce(?8, scale_ppm), spared = ?9 WHERE id = ?1";
            let (due, again) = (end.due.map(|due| due as i64), end.again.map(|again| again as i64));
            let scale = frame.scale.map(|scale| (f64::from(scale) * 1e6).round() as i64);
            let detail = brief(&end.fault.detail);
            let (attempts, reason) = (frame.attempts, &end.fault.reason);
            books.run(sql, values![picture.id, Word(next), attempts, due, reason, detail, again, scale, frame.spared])
        })?;
        self.due(DETECTION_QUEUE, end.due, end.again);
        self.log(Line {
            kind: end.kind,
            picture: Some(picture.id),
            body: Some(&end.body(frame.attempts, frame.scale)),
            ..Line::default()
        })
    }

    pub fn kept(&mut self, kept: &StoredImage) -> Result<(), Trouble> {
        let image = &kept.image;
        let entry = self.find(image.key())?;
        let next = try_step(entry, Event::Settle, &image.url)?;
        let (Some(entry), Some(_)) = (entry, next) else { return Ok(()) };
        self.refuse_held(entry.run, &image.url)?;
        let picture = self.picture(&kept.frame.content)?;
        let behind = self.behind(entry.id)?;
        let final_url = (kept.final_url != image.url).then(|| kept.final_url.as_str());
        let headers = (!kept.headers.is_empty()).then(|| json!(kept.headers).to_string());
        let sql = "UPDATE entries SET state = 'settled', attempts = ?2, due_ms = NULL, reason = NULL, detail = NULL,
            picture = ?3, final_url = ?4, headers = ?5, inline = NULL, revive_ms = NULL WHERE id = ?1";
        self.run(sql, values![entry.id, image.attempts, picture, final_url, headers.as_deref()])?;
        self.tallies.count(EntryKind::Image, Status::of_entry(entry.state), -1 - behind);
        self.change_picture(picture, |books| {
            let main = "SELECT e.url > ?2 FROM pictures p JOIN entries e ON e.id = p.main WHERE p.id = ?1";
            let first = books.moment.one(main, values![picture, image.url.as_str()], |row| row.get(0))?;
            let main = first.unwrap_or(true).then_some(entry.id);
            let sql =
                "UPDATE pictures SET urls = urls + 1, behind = behind + ?2, main = coalesce(?3, main) WHERE id = ?1";
            books.run(sql, values![picture, behind, main])
        })?;
        self.log(Line { kind: "kept", entry: Some(entry.id), picture: Some(picture), ..Line::default() })
    }

    /// The row of a picture, made if it is new.
    fn picture(&mut self, content: &Content) -> Result<i64, Trouble> {
        if let Some(picture) = self.find_picture(content.id)? {
            return Ok(picture.id);
        }
        let sql = "INSERT INTO pictures (tenant, content, state, bytes, format, width, height, phash, distinctive)
            VALUES (?1, ?2, 'open', ?3, ?4, ?5, ?6, ?7, ?8)";
        let Content { id, bytes, format, width, height, phash } = content;
        let (bytes, bits) = (*bytes as i64, phash.bits as i64);
        let values = values![self.tenant, id, bytes, format, *width, *height, bits, phash.distinctive];
        self.moment.insert(sql, values)
    }

    /// A degraded answer is kept, and the full one is still owed.
    pub fn delivered(&mut self, delivered: &DetectedFrame) -> Result<(), Trouble> {
        let (frame, detection) = (&delivered.frame, &delivered.detection);
        let id = detection.picture();
        let picture = self.find_picture(id)?;
        let next = try_step(picture, Event::Settle, id)?;
        let (Some(picture), Some(_)) = (picture, next) else { return Ok(()) };
        let body = serde_json::to_string(detection)
            .map_err(|error| Trouble::Damaged(format!("the detection of {id}: {error}")))?;
        let sql = "INSERT INTO detections (picture, faces, body) VALUES (?1, ?2, ?3)
            ON CONFLICT (picture) DO UPDATE SET faces = ?2, body = ?3";
        self.run(sql, values![picture.id, detection.faces().len() as i64, &body])?;
        if detection.degraded() {
            if picture.revives {
                // It has an answer now, and is owed a full one like any other.
                self.change_picture(picture.id, |books| {
                    let sql = "UPDATE pictures SET state = 'open', due_ms = 0, revive_ms = NULL WHERE id = ?1";
                    books.run(sql, values![picture.id])
                })?;
            }
            return self.log(Line { kind: "delivered", picture: Some(picture.id), ..Line::default() });
        }
        self.change_picture(picture.id, |books| {
            let sql =
                "UPDATE pictures SET state = 'settled', attempts = CASE WHEN attempts > ?2 THEN attempts ELSE ?2 END,
                due_ms = NULL, reason = NULL, detail = NULL, revive_ms = NULL WHERE id = ?1";
            books.run(sql, values![picture.id, frame.attempts])
        })?;
        self.log(Line { kind: "delivered", picture: Some(picture.id), ..Line::default() })
    }

    pub fn ruled(&mut self, ruling: &DuplicateAssignment) -> Result<(), Trouble> {
        let picture = self.known_picture(ruling.picture)?;
        let representative = self.known_picture(ruling.representative)?;
        if representative.id != picture.id && representative.state != State::Settled {
            // Only a detected picture stands for others: nobody is settled by an answer that never came.
            let step = IllegalTransition { state: Some(representative.state), event: Event::Settle };
            let key = format!("{} as the representative of {}", ruling.representative, ruling.picture);
            return Err(Trouble::Illegal { key, step });
        }
        self.change_picture(picture.id, |books| {
            let sql = "UPDATE pictures SET representative = ?2, distance = ?3 WHERE id = ?1";
            books.run(sql, values![picture.id, representative.id, ruling.distance])
        })?;
        let (picture, other) = (Some(picture.id), Some(representative.id));
        let body = json!({"distance": ruling.distance}).to_string();
        self.log(Line { kind: "ruled", picture, other, body: Some(&body), ..Line::default() })
    }

    fn known_picture(&self, id: ContentId) -> Result<PictureRow, Trouble> {
        let step = IllegalTransition { state: None, event: Event::Settle };
        self.find_picture(id)?.ok_or_else(|| Trouble::Illegal { key: id.to_string(), step })
    }
}
