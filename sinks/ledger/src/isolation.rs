//! One fact that the database refuses does not hold up the others.
//!
//! A group whose write is refused for what is in it (`TransactionError::is_about_data`) is halved until the fact is alone. Of what
//! a page or a source found only the pages and images that are refused are left out; any other fact goes into the quarantine as a
//! whole, and its work ends. What a page leads to may wait for its turn, so that it is written with the fact of another page: a fact
//! that is alone is written without those, and they are found among what waits in the same way.
//!
//! Everything that is tried is a transaction of its own, and only what is kept is in the log. Order is kept: the first half is
//! written before the second.

use std::collections::HashSet;

use faceflow_core::fact::Fact;
use faceflow_core::ledger::{LedgerError, QueueUpdate};
use faceflow_core::record::{Discovery, Key};

use super::error::TransactionError;
use super::log_record::{Discovered, LogRecord, Quarantined, WorkEnd};
use super::transaction::LedgerTransaction;
use super::writer::{Attempt, Task, WriteReplies, WriteReply, Writer, add_opened};

/// Whether the database takes something; why not, if it does not.
type Taken = Result<(), String>;

/// Tries what goes with these pages and images alone.
type Try<'t> = dyn FnMut(&mut Writer, &[Key]) -> Result<Taken, TransactionError> + 't;

/// A page or image that was refused, and why.
type Refused = (Key, String);

impl Writer {
    /// Writes a group. It fails only where nothing can be written.
    pub fn write_all(&mut self, tasks: &[Task]) -> Result<WriteReplies, TransactionError> {
        match self.write_group(tasks) {
            Err(refusal) if refusal.is_about_data() => match tasks {
                [task] => Ok(vec![self.write_alone(task, refusal)?]),
                tasks => {
                    let (first, second) = tasks.split_at(tasks.len() / 2);
                    let mut replies = self.write_all(first)?;
                    replies.extend(self.write_all(second)?);
                    Ok(replies)
                }
            },
            written => written,
        }
    }

    /// Writes a task that was refused with what waited for it.
    fn write_alone(
        &mut self,
        task: &Task,
        refusal: TransactionError,
    ) -> Result<Result<WriteReply, LedgerError>, TransactionError> {
        let Task::Append(fact) = task else {
            return Ok(Err(refusal.at(&self.place())));
        };
        let refusal = match self.append_apart(|transaction| transaction.append(fact)) {
            Ok(opened) => return Ok(Ok(WriteReply::Opened(opened))),
            Err(refusal) if refusal.is_about_data() => refusal,
            Err(error @ (TransactionError::Illegal { .. } | TransactionError::Held { .. })) => {
                return Ok(Err(error.at(&self.place())));
            }
            Err(error) => return Err(error),
        };
        if let Fact::Discovered(found) = fact.as_ref()
            && let Some(opened) = self.append_without_refused(found)?
        {
            return Ok(Ok(WriteReply::Opened(opened)));
        }
        self.quarantine(fact, &refusal.to_string()).map(Err)
    }

    /// Carries out `work` without taking up what waits for its turn, then takes that up.
    fn append_apart(
        &mut self,
        work: impl FnOnce(&mut LedgerTransaction<'_, '_>) -> Result<Vec<QueueUpdate>, TransactionError>,
    ) -> Result<Vec<QueueUpdate>, TransactionError> {
        let (mut opened, unfinished) = self.transact_with((0, Attempt::Commit), |transaction, _| {
            let opened = work(transaction)?;
            Ok((opened, std::mem::take(&mut transaction.unfinished)))
        })?;
        let more = self.resume(unfinished)?;
        add_opened(&mut opened, more);
        Ok(opened)
    }

    /// Whether the database takes this; nothing of it is kept.
    fn is_taken(
        &mut self,
        work: impl FnOnce(&mut LedgerTransaction<'_, '_>) -> Result<(), TransactionError>,
    ) -> Result<Taken, TransactionError> {
        match self.transact_with((0, Attempt::DryRun), |transaction, _| work(transaction)) {
            Ok(()) | Err(TransactionError::Tried) => Ok(Ok(())),
            Err(refusal) if refusal.is_about_data() => Ok(Err(refusal.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Those of `keys` that are refused, found by halves. `try_with` says whether it goes with these alone.
    fn refused_among(&mut self, keys: &[Key], try_with: &mut Try<'_>) -> Result<Vec<Refused>, TransactionError> {
        match (try_with(self, keys)?, keys) {
            (Ok(()), _) | (_, []) => Ok(vec![]),
            (Err(reason), [key]) => Ok(vec![(*key, reason)]),
            (Err(_), keys) => {
                let (first, second) = keys.split_at(keys.len() / 2);
                let mut refused = self.refused_among(first, try_with)?;
                refused.extend(self.refused_among(second, try_with)?);
                Ok(refused)
            }
        }
    }

    /// Takes in what was found, without the pages and images that are refused. `None` if it is not for those.
    fn append_without_refused(&mut self, found: &Discovery) -> Result<Option<Vec<QueueUpdate>>, TransactionError> {
        let keys = keys(found);
        let append = |writer: &mut Self, kept: &[Key]| {
            let found = Fact::Discovered(only(found, kept));
            writer.is_taken(|transaction| transaction.append(&found).map(drop))
        };
        if append(self, &[])?.is_err() {
            return Ok(None);
        }
        let refused = self.refused_among(&keys, &mut { append })?;
        let kept = without(&keys, &refused);
        let kept = Fact::Discovered(only(found, &kept));
        let written = self.append_apart(|transaction| {
            let opened = transaction.append(&kept)?;
            quarantine_parts(transaction, found, &refused)?;
            Ok(opened)
        });
        match written {
            Ok(opened) => Ok(Some(opened)),
            Err(refusal) if refusal.is_about_data() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes up what the first page that waits at a site leads to, without what is refused of it.
    pub(super) fn resume_without_refused(
        &mut self,
        site: i64,
        refusal: TransactionError,
    ) -> Result<Vec<QueueUpdate>, TransactionError> {
        let mut first = None;
        let looked = self.is_taken(|transaction| {
            first = transaction.take_first(site, &[])?;
            Ok(())
        })?;
        let Some((sequence, _, found)) = first.filter(|_| looked.is_ok()) else { return Err(refusal) };
        let keys = keys(&found);
        let resumed = |kept: &[Key]| {
            let kept: HashSet<&Key> = kept.iter().collect();
            let without = keys.iter().filter(|key| !kept.contains(key)).copied().collect();
            LogRecord::ResumedWithout { site, sequence, without }
        };
        let refused = self.refused_among(&keys, &mut |writer, kept| {
            writer.is_taken(|transaction| transaction.take_in(resumed(kept)).map(drop))
        })?;
        let record = resumed(&without(&keys, &refused));
        self.transact_with((0, Attempt::Commit), |transaction, _| {
            let opened = transaction.take_in(record)?;
            quarantine_parts(transaction, &found, &refused)?;
            Ok(opened)
        })
    }

    /// Notes that a fact was refused, and ends its work. Where the database refuses that too, only the note is written, and the work
    /// is not given out until it is driven again.
    fn quarantine(&mut self, fact: &Fact, reason: &str) -> Result<LedgerError, TransactionError> {
        let mut refused = Quarantined::fact(fact, reason)?;
        tracing::error!(
            "{}: the database refuses what is {} of {}: {reason}; it is quarantined",
            self.place(),
            refused.kind,
            refused.subject
        );
        let take_in = |writer: &mut Self, refused: &Quarantined<'_>| {
            writer.append_apart(|transaction| transaction.take_in(LogRecord::Quarantined(refused.clone())))
        };
        let opened = match take_in(self, &refused) {
            Err(refusal) if refusal.is_about_data() => {
                tracing::error!("{}: nor does it take the end of {}: {refusal}", self.place(), refused.subject);
                refused.end = WorkEnd::Withheld;
                take_in(self, &refused)?
            }
            Err(TransactionError::Held { key, run }) => return Ok(LedgerError::Held { key, run }),
            noted => noted?,
        };
        Ok(LedgerError::Quarantined { key: refused.subject.into_owned(), reason: reason.to_owned(), opened })
    }
}

impl LedgerTransaction<'_, '_> {
    /// Notes that a fact speaks of a step that cannot be: a promise of ours is broken. What it is about stays as it is, and is not given out where it is open.
    pub fn quarantine_illegal(&mut self, fact: &Fact, why: &TransactionError) -> Result<(), TransactionError> {
        let mut refused =
            Quarantined { end: WorkEnd::Stays, again: false, ..Quarantined::fact(fact, &why.to_string())? };
        if !matches!(fact, Fact::Assigned(_)) && self.is_open(&refused)? {
            // Given out again it would only come to the same step.
            refused.end = WorkEnd::Withheld;
        }
        tracing::error!("what is {} of {} cannot be: {why}; it is quarantined", refused.kind, refused.subject);
        self.take_in(LogRecord::Quarantined(refused)).map(drop)
    }
}

/// Every page and image of what was found, once.
fn keys(found: &Discovery) -> Vec<Key> {
    let mut seen = HashSet::new();
    let all = found.pages.iter().map(|page| page.key()).chain(found.images.iter().map(|image| image.key()));
    all.filter(|key| seen.insert(*key)).collect()
}

fn without(keys: &[Key], refused: &[Refused]) -> Vec<Key> {
    let refused: HashSet<Key> = refused.iter().map(|(key, _)| *key).collect();
    keys.iter().filter(|key| !refused.contains(key)).copied().collect()
}

/// What was found, with these pages and images only.
fn only(found: &Discovery, kept: &[Key]) -> Discovery {
    let kept: HashSet<&Key> = kept.iter().collect();
    let mut found = found.clone();
    found.pages.retain(|page| kept.contains(&page.key()));
    found.images.retain(|image| kept.contains(&image.key()));
    found
}

/// Notes which pages and images of what was found were refused.
fn quarantine_parts(
    transaction: &mut LedgerTransaction<'_, '_>,
    found: &Discovery,
    refused: &[Refused],
) -> Result<(), TransactionError> {
    let of_all = Discovered::from(found);
    for (key, reason) in refused {
        let page = found.pages.iter().find(|page| page.key() == *key);
        let image = found.images.iter().find(|image| image.key() == *key);
        let part = match (page, image) {
            (Some(page), _) => Quarantined::page(page, &of_all, reason)?,
            (None, Some(image)) => Quarantined::image(image, &of_all, reason)?,
            (None, None) => continue,
        };
        tracing::error!("the database refuses the {} {}: {reason}; it is quarantined", part.kind, part.subject);
        transaction.take_in(LogRecord::Quarantined(part))?;
    }
    Ok(())
}
