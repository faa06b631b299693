//! What becomes of work: retries, ends, stored bytes, detected faces, and who stands for whom.

use faceflow_core::detector::Detection;
use faceflow_core::record::{
    Content, ContentId, Disposition, DuplicateAssignment, Frame, HostState, Key, Work, host_of,
};
use faceflow_core::transition::{Event, IllegalTransition, State};
use faceflow_core::{Fault, Time};
use serde_json::json;
use url::Url;

use super::Status;
use super::column_codecs::EntryKind;
use super::error::TransactionError;
use super::event_feed::EventRow;
use super::transaction::{Entry, LedgerTransaction, PICTURES, Picture, TenantQueue, brief, fault_body, try_step};

/// A failure without its work: the step, its word in the log, when it is due again, and when it is tried although it ended.
struct End<'a> {
    event: Event,
    kind: &'static str,
    fault: &'a Fault,
    due: Option<Time>,
    again: Option<Time>,
}

impl<'a> End<'a> {
    fn of(disposition: &'a Disposition) -> Self {
        match disposition {
            Disposition::Retry { fault, due, .. } => {
                Self { event: Event::Retry, kind: "retry", fault, due: Some(*due), again: None }
            }
            Disposition::Rejected { fault, again, .. } => {
                Self { event: Event::Reject, kind: "rejected", fault, due: None, again: *again }
            }
            Disposition::Dead { fault, again, .. } => {
                Self { event: Event::Die, kind: "dead", fault, due: None, again: *again }
            }
            Disposition::DegradedAccepted { fault, .. } => {
                Self { event: Event::Settle, kind: "detected", fault, due: None, again: None }
            }
        }
    }

    fn body(&self, attempts: u32, scale: Option<f32>) -> Option<String> {
        Some(fault_body(self.fault, attempts, (self.due.or(self.again), scale)))
    }
}

impl LedgerTransaction<'_, '_> {
    pub fn failed(&mut self, disposition: &Disposition, elsewhere: bool) -> Result<(), TransactionError> {
        let end = End::of(disposition);
        match disposition.work() {
            Work::Frame(frame) => self.frame_failed(frame, &end, elsewhere),
            work @ (Work::Page(_) | Work::Image(_)) => {
                self.note_host(disposition)?;
                self.entry_failed(work, &end)
            }
        }
    }

    /// What a failure of a page or image says of its host: that it failed, that it answered, or nothing.
    fn note_host(&mut self, disposition: &Disposition) -> Result<(), TransactionError> {
        let work = disposition.work();
        let (url, known) = match work {
            Work::Page(page) => (&page.url, self.find(work.key())?),
            Work::Image(image) => (&image.url, self.find(work.key())?),
            Work::Frame(_) => return Ok(()),
        };
        let Some(queue) = known.map(|entry| entry.queue) else { return Ok(()) };
        match disposition.host() {
            Some(hold) => self.host_failed((queue, host_of(url).unwrap_or_default()), hold, disposition.fault()),
            None if disposition.fault().is_answer() => self.host_answered(queue, work.host()),
            None => Ok(()),
        }
    }

    fn entry_failed(&mut self, work: &Work, end: &End<'_>) -> Result<(), TransactionError> {
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
                self.open(entry.queue, 0, false);
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
        let (attempts, run) = (work.attempts(), self.context.run);
        self.freed.extend(self.rows.give_up_sequence(entry.id)?);
        let row = self.rows.change_entry(entry.id)?;
        row.set_state(next, run);
        (row.attempts, row.uncounted) = (attempts, attempts - work.attempts_counted());
        (row.due_ms, row.terminal_retry_ms) = (end.due.map(|due| due as i64), end.again.map(|again| again as i64));
        row.patch.reason = Some(Some(end.fault.reason.as_str().into()));
        row.patch.detail = Some(Some(brief(&end.fault.detail).into()));
        if next == State::Rejected {
            // A dead entry may be driven again, so that keeps what it takes.
            row.patch.inline = Some(None);
        }
        self.recount(kind, Some(entry.state), next);
        let body = end.body(attempts, None);
        self.note(EventRow { kind: end.kind, entry: Some(entry.id), body, ..EventRow::default() });
        self.due(entry.queue, end.due, end.again);
        if (kind, end.due) == (EntryKind::Image, None) {
            self.hand_on(&entry)?;
        }
        self.resume()
    }

    /// A settled page could not be looked at again: that changes nothing but when it is tried next, and an opt-out of its pictures is
    /// noted, which ends those that are open when they are dispatched (`alternates.rs`).
    fn not_seen_again(&mut self, entry: &Entry, end: &End<'_>, due: Time) -> Result<(), TransactionError> {
        if self.rows.entry(entry.id)?.recrawl_ms.is_some() {
            self.rows.change_entry(entry.id)?.recrawl_ms = Some(due as i64);
        }
        if end.fault.is_opt_out() {
            let patch = &mut self.rows.change_entry(entry.id)?.patch;
            patch.reason = Some(Some(end.fault.reason.as_str().into()));
            patch.detail = Some(Some(brief(&end.fault.detail).into()));
        }
        self.open(entry.queue, due, true);
        let body = end.body(0, None);
        self.note(EventRow { kind: end.kind, entry: Some(entry.id), body, ..EventRow::default() });
        Ok(())
    }

    /// Notes when what failed is due again, or is tried although it ended.
    fn due(&mut self, queue: TenantQueue, due: Option<Time>, again: Option<Time>) {
        let (due, again) = (due.map(|due| (due, false)), again.map(|again| (again, true)));
        for (due, again) in due.into_iter().chain(again) {
            self.open(queue, due, again);
        }
    }

    fn frame_failed(&mut self, frame: &Frame, end: &End<'_>, elsewhere: bool) -> Result<(), TransactionError> {
        let id = frame.content.id;
        let picture = self.find_picture(id)?;
        let next = try_step(picture, end.event, id)?;
        let (Some(picture), Some(next)) = (picture, next) else { return Ok(()) };
        self.elsewhere = elsewhere || self.is_held(picture.run);
        if self.elsewhere {
            // Another run stored the same picture first, and what becomes of it there counts.
            let body = End { due: None, again: None, ..*end }.body(frame.attempts, frame.scale);
            self.note(EventRow { kind: "retry", picture: Some(picture.id), body, ..EventRow::default() });
            return Ok(());
        }
        let run = self.context.run;
        self.change_picture(picture.id, |row| {
            row.set_state(next, run);
            (row.attempts, row.uncounted) = (frame.attempts, frame.uncounted);
            (row.due_ms, row.terminal_retry_ms) = (end.due.map(|due| due as i64), end.again.map(|again| again as i64));
            row.reason = Some(Some(end.fault.reason.as_str().into()));
            row.detail = Some(Some(brief(&end.fault.detail).into()));
            let scale_ppm = frame.scale.map(|scale| (f64::from(scale) * 1e6).round() as i64);
            row.scale_ppm = scale_ppm.or(row.scale_ppm);
        })?;
        self.due(PICTURES, end.due, end.again);
        let body = end.body(frame.attempts, frame.scale);
        self.note(EventRow { kind: end.kind, picture: Some(picture.id), body, ..EventRow::default() });
        Ok(())
    }

    /// An image's bytes are in the store: those of this picture, which is described unless it has a row.
    pub fn stored(
        &mut self,
        (url, attempts, host): (&Url, u32, Option<&HostState>),
        (final_url, headers): (&Url, &[(String, String)]),
        (id, content): (ContentId, Option<&Content>),
    ) -> Result<(), TransactionError> {
        let entry = self.find(Key::image(url))?;
        let next = try_step(entry, Event::Settle, url)?;
        if let Some(entry) = &entry {
            self.host_answered(entry.queue, host)?;
        }
        let (Some(entry), Some(_)) = (entry, next) else { return Ok(()) };
        self.refuse_held(entry.run, url)?;
        let known = self.find_picture(id)?;
        let picture = match (known, content) {
            (Some(picture), _) => picture.id,
            (None, Some(content)) => self.rows.new_picture(content, self.context.run)?,
            (None, None) => self.known_picture(id)?.id,
        };
        let behind = self.rows.behind(entry.id)?.len() as i64;
        let headers = (!headers.is_empty()).then(|| json!(headers).to_string().into());
        let row = self.rows.change_entry(entry.id)?;
        row.set_state(State::Settled, None);
        (row.attempts, row.due_ms, row.picture, row.terminal_retry_ms) = (attempts, None, Some(picture), None);
        let patch = &mut row.patch;
        (patch.reason, patch.detail, patch.inline) = (Some(None), Some(None), Some(None));
        patch.final_url = Some((final_url != url).then(|| final_url.as_str().into()));
        patch.headers = Some(headers);
        self.tallies.count(EntryKind::Image, Status::of_entry(entry.state), -1 - behind);
        // The smallest URL that leads to a picture is its main one.
        let main = match known.and_then(|picture| picture.main) {
            Some(main) => (*self.rows.entry(main)?.url > *url.as_str()).then_some(entry.id),
            None => Some(entry.id),
        };
        self.change_picture(picture, |row| {
            row.urls += 1;
            row.behind += behind;
            row.main = main.or(row.main);
        })?;
        self.note(EventRow { kind: "stored", entry: Some(entry.id), picture: Some(picture), ..EventRow::default() });
        Ok(())
    }

    /// Faces were looked for. A degraded answer is kept, and the full one is still owed.
    pub fn detected(&mut self, attempts: u32, detection: &Detection) -> Result<(), TransactionError> {
        let id = detection.picture();
        let picture = self.find_picture(id)?;
        let next = try_step(picture, Event::Settle, id)?;
        let (Some(picture), Some(_)) = (picture, next) else { return Ok(()) };
        let body = serde_json::to_string(detection)
            .map_err(|error| TransactionError::Damaged(format!("the detection of {id}: {error}")))?;
        self.rows.set_detection(picture.id, detection.faces().len() as i64, &body);
        let run = self.context.run;
        if !detection.degraded() {
            self.change_picture(picture.id, |row| {
                row.set_state(State::Settled, None);
                row.attempts = row.attempts.max(attempts);
                (row.due_ms, row.terminal_retry_ms) = (None, None);
                (row.reason, row.detail) = (Some(None), Some(None));
            })?;
        } else if picture.retried {
            // It has an answer now, and is owed a full one like any other.
            self.change_picture(picture.id, |row| {
                row.set_state(State::Open, run);
                (row.due_ms, row.terminal_retry_ms) = (Some(0), None);
            })?;
        }
        self.note(EventRow { kind: "detected", picture: Some(picture.id), ..EventRow::default() });
        Ok(())
    }

    /// Another picture stands for one, or none does any more.
    pub fn assigned(&mut self, ruling: &DuplicateAssignment) -> Result<(), TransactionError> {
        let picture = self.known_picture(ruling.picture)?;
        let representative = self.known_picture(ruling.representative)?;
        if representative.id != picture.id && representative.state != State::Settled {
            // Only a detected picture stands for others: nobody is settled by an answer that never came.
            let step = IllegalTransition { state: Some(representative.state), event: Event::Settle };
            let key = format!("{} as the representative of {}", ruling.representative, ruling.picture);
            return Err(TransactionError::Illegal { key, step });
        }
        self.change_picture(picture.id, |row| {
            (row.representative, row.distance) = (Some(representative.id), Some(ruling.distance));
        })?;
        let (picture, other) = (Some(picture.id), Some(representative.id));
        let body = Some(json!({"distance": ruling.distance}).to_string());
        self.note(EventRow { kind: "assigned", picture, other, body, ..EventRow::default() });
        Ok(())
    }

    fn known_picture(&mut self, id: ContentId) -> Result<Picture, TransactionError> {
        let step = IllegalTransition { state: None, event: Event::Settle };
        self.find_picture(id)?.ok_or_else(|| TransactionError::Illegal { key: id.to_string(), step })
    }
}
