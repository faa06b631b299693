//! Driving again in batches: what is dead or waits, then what is in the quarantine. What the database refuses is found by smaller
//! batches and passed over.

use faceflow_core::kill_point::kill_point;
use faceflow_core::ledger::LedgerError;
use url::Url;

use super::error::TransactionError;
use super::location::ExclusiveAccess;
use super::quarantine_list;
use super::redrive::{Progress, Selection};
use super::writer::{WriteReply, Writer};

/// Facts of the quarantine that are driven again in one transaction, at most.
const RELEASED_MAX: usize = 64;

impl Writer {
    /// Drives what is selected again, in transactions of a bounded size.
    pub(super) fn redrive(&mut self, selection: &Selection) -> Result<WriteReply, LedgerError> {
        let place = self.place();
        let (mut progress, all) = (Progress::default(), self.backend.settings().group_max);
        let mut max = all;
        while !progress.done {
            kill_point("ledger.write");
            let mut tried_upto = progress;
            let driven = self.transact(|transaction, access| {
                let tried = match access {
                    ExclusiveAccess::Lock(_) => false,
                    ExclusiveAccess::Lease(lease) => {
                        lease.expire(transaction.tx)?;
                        lease.is_looking_again(transaction.tx, transaction.context.tenant)?
                    }
                };
                transaction.redrive_some(selection, &mut tried_upto, (max, tried))
            });
            match driven {
                Ok(()) => (progress, max) = (tried_upto, max.saturating_mul(2).min(all)),
                // What is refused is found by trying fewer; it is passed over, and stays as it is.
                Err(refusal) if refusal.is_about_data() && max > 1 => max /= 2,
                Err(refusal) if refusal.is_about_data() => {
                    tracing::error!("{place}: one entry is not driven again: {refusal}");
                    tried_upto.driven = progress.driven;
                    progress = tried_upto;
                }
                Err(error) => return Err(error.at(&place)),
            }
            kill_point("ledger.committed");
        }
        let released =
            if selection.dead { self.release(&selection.urls).map_err(|error| error.at(&place))? } else { 0 };
        Ok(WriteReply::Driven(progress.driven + released))
    }

    /// Drives what is in the quarantine and has no entry or picture that was driven. How many facts that are.
    fn release(&mut self, urls: &[Url]) -> Result<u64, TransactionError> {
        let place = self.place();
        let (mut after, mut released, mut max) = (None, 0, RELEASED_MAX);
        loop {
            let mut upto = after;
            let driven = self.transact(|transaction, _| {
                let rows = quarantine_list::releasable(transaction.tx, transaction.context.tenant, (urls, after), max)?;
                upto = rows.last().map(|row| row.id);
                transaction.release(rows)
            });
            match driven {
                Ok(_) if upto.is_none() => break,
                Ok(driven) => (after, released) = (upto, released + driven),
                Err(refusal) if refusal.is_about_data() && max > 1 => max = 1,
                Err(refusal) if refusal.is_about_data() => {
                    tracing::error!("{place}: one fact stays in the quarantine: {refusal}");
                    after = upto;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(released)
    }
}
