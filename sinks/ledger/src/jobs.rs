//! The jobs of a tenant: their numbers, and what they have come to.

use faceflow_core::ledger::LedgerError;
use faceflow_core::record::{DEFAULT_JOB, Priority};
use faceflow_core::tally::Tally;

use super::audit::recount;
use super::database::{DbTransaction, values};
use super::error::TransactionError;
use super::log_record::LogRecord;
use super::reader::Reader;
use super::tallies::Tallies;
use super::transaction::LedgerTransaction;

/// Sees to it that a tenant has the job that every tenant has.
pub(super) fn add_default(tx: &DbTransaction<'_>, tenant: i64) -> Result<(), TransactionError> {
    let sql = "INSERT INTO jobs (tenant, number, name, priority) VALUES (?1, 0, ?2, ?3) ON CONFLICT DO NOTHING";
    tx.run(sql, values![tenant, DEFAULT_JOB, u32::from(Priority::default().get())])
}

impl LedgerTransaction<'_, '_> {
    /// The number of the job of this name, which has this priority from here on. A new one is noted in the log.
    pub fn add_job(&mut self, name: &str, priority: Priority) -> Result<u32, TransactionError> {
        let tenant = self.context.tenant;
        let sql = "SELECT number, priority FROM jobs WHERE tenant = ?1 AND name = ?2";
        let known = self.tx.one(sql, values![tenant, name], |row| Ok((row.get::<u32>(0)?, row.get::<u32>(1)?)))?;
        let number = match known {
            Some((number, as_before)) if as_before == u32::from(priority.get()) => return Ok(number),
            Some((number, _)) => number,
            None => {
                let sql = "SELECT coalesce(max(number), 0) + 1 FROM jobs WHERE tenant = ?1";
                let next = self.tx.one(sql, values![tenant], |row| row.get::<u32>(0))?;
                next.ok_or_else(|| TransactionError::Damaged("there is no number for a new job".to_owned()))?
            }
        };
        self.take_in(LogRecord::Job { number, name: name.into(), priority })?;
        Ok(number)
    }

    /// Notes a job.
    pub fn job_added(&mut self, number: u32, name: &str, priority: Priority) -> Result<(), TransactionError> {
        self.bulk = true;
        let sql = "INSERT INTO jobs (tenant, number, name, priority) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (tenant, number) DO UPDATE SET priority = excluded.priority";
        self.tx.run(sql, values![self.context.tenant, number, name, u32::from(priority.get())])
    }
}

impl Reader {
    /// Pages and images of a job by state: `(pages, images)`. Those that another job of the tenant discovered first are its.
    ///
    /// They are counted from the entries of the job, so that no write has to keep count; it takes as long as it has entries.
    pub fn job_tally(&self, number: u32) -> Result<(Tally, Tally), LedgerError> {
        let Tallies { pages, images } = self.read(|tx| recount(tx, self.tenant_id(), Some(number)))?;
        Ok((pages, images))
    }

    /// The number of the job of this name, if there is one.
    pub fn job_number(&self, name: &str) -> Result<Option<u32>, LedgerError> {
        let sql = "SELECT number FROM jobs WHERE tenant = ?1 AND name = ?2";
        self.read(|tx| tx.one(sql, values![self.tenant_id(), name], |row| row.get(0)))
    }
}
