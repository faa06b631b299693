//! Counts by status, kept with every fact so that reading them costs nothing.

use faceflow_core::tally::Tally;

use super::column_codecs::EntryKind;
use super::database::{DbTransaction, values};
use super::error::TransactionError;
use super::status::Status;

/// The counts of one tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tallies {
    pub pages: Tally,
    pub images: Tally,
}

impl Tallies {
    /// Reads them; zero where nothing was counted yet.
    pub fn load(tx: &DbTransaction<'_>, tenant: i64) -> Result<Self, TransactionError> {
        let sql = "SELECT kind, discovered, done, duplicate, rejected, dead, open FROM tallies WHERE tenant = ?1";
        let mut tallies = Self::default();
        let counted = tx.list(sql, values![tenant], |row| {
            let count = |column| row.get::<i64>(column).map(|count| count as u64);
            let tally = Tally {
                discovered: count(1)?,
                done: count(2)?,
                duplicate: count(3)?,
                rejected: count(4)?,
                dead: count(5)?,
                open: count(6)?,
            };
            Ok((row.get::<EntryKind>(0)?, tally))
        })?;
        for (kind, tally) in counted {
            *tallies.of(kind) = tally;
        }
        Ok(tallies)
    }

    /// Writes them.
    pub fn store(&self, tx: &DbTransaction<'_>, tenant: i64) -> Result<(), TransactionError> {
        let sql = "INSERT INTO tallies (tenant, kind, discovered, done, duplicate, rejected, dead, open)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (tenant, kind) DO UPDATE SET discovered = ?3, done = ?4,
            duplicate = ?5, rejected = ?6, dead = ?7, open = ?8";
        for (kind, tally) in [(EntryKind::Page, &self.pages), (EntryKind::Image, &self.images)] {
            let Tally { discovered, done, duplicate, rejected, dead, open } = *tally;
            let counts = [discovered, done, duplicate, rejected, dead, open].map(|count| count as i64);
            let [discovered, done, duplicate, rejected, dead, open] = counts;
            tx.run(sql, values![tenant, kind, discovered, done, duplicate, rejected, dead, open])?;
        }
        Ok(())
    }

    /// One more entry was discovered. What it counts as is said apart, so that conservation can be checked.
    pub fn discover(&mut self, kind: EntryKind) {
        self.of(kind).discovered += 1;
    }

    /// `change` more (or fewer) entries have `status`.
    pub fn count(&mut self, kind: EntryKind, status: Status, change: i64) {
        let tally = self.of(kind);
        let count = match status {
            Status::Done => &mut tally.done,
            Status::Duplicate => &mut tally.duplicate,
            Status::Rejected => &mut tally.rejected,
            Status::Dead => &mut tally.dead,
            Status::Open => &mut tally.open,
        };
        *count = count.checked_add_signed(change).expect("nothing leaves a status that it was not counted in");
    }

    fn of(&mut self, kind: EntryKind) -> &mut Tally {
        match kind {
            EntryKind::Page => &mut self.pages,
            EntryKind::Image => &mut self.images,
        }
    }
}
