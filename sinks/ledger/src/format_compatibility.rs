//! Formats of a state: which of them this faceflow writes and reads, and what it says of the others.
//!
//! Each format notes the oldest formats whose writers and readers can use it, so that an older faceflow knows whether a change is
//! any of its business. Only a writer that has the state to itself brings it to a newer format: nobody who reads does, and nobody
//! does while an older writer is at work.
//!
//! The steps are plain SQL of our own, numbered, one list for each database. `refinery` 0.10 was weighed: it keeps checksums of
//! steps and a history, which is worth having, but takes the whole of them in one go, has no place for a kill between two steps, for
//! the window above or for the question who is at work, and wants a name for every step. `rusqlite_migration` needs an older
//! `rusqlite` and knows no PostgreSQL.

use super::OpenError;

/// Formats as numbers: those that this faceflow can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Formats {
    /// What it writes.
    pub ours: i64,
    /// The oldest that it reads as it is.
    pub reads_from: i64,
}

/// What a state says of its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub format: i64,
    /// The oldest formats whose readers and writers can use it.
    pub reader_min: i64,
    pub writer_min: i64,
}

impl Found {
    /// A format that notes nothing about others: only its own faceflow can use it.
    pub fn alone(format: i64) -> Self {
        Self { format, reader_min: format, writer_min: format }
    }
}

impl Formats {
    /// Whether the state can be read as it is.
    pub fn check_reader(self, place: &str, found: Found) -> Result<(), OpenError> {
        let (place, found_format, known) = (place.to_owned(), found.format, self.ours);
        match found.format {
            0 => Err(OpenError::Missing { place }),
            format if format > self.ours && found.reader_min > self.ours => {
                Err(OpenError::Newer { place, found: found_format, known })
            }
            format if format < self.reads_from => {
                Err(OpenError::Older { place, found: found_format, oldest: self.reads_from })
            }
            _ => Ok(()),
        }
    }

    /// The format to begin with on the way to ours; `None` where nothing is to be done.
    pub fn check_writer(self, place: &str, found: Found) -> Result<Option<usize>, OpenError> {
        if found.format > self.ours && found.writer_min > self.ours {
            return Err(OpenError::Newer { place: place.to_owned(), found: found.format, known: self.ours });
        }
        Ok(usize::try_from(found.format).ok().filter(|_| found.format < self.ours))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_used_by_those_who_can() {
        let formats = Formats { ours: 8, reads_from: 7 };
        let reads = |format, reader_min| formats.check_reader("x", Found { format, reader_min, writer_min: 99 });
        assert_eq!((reads(8, 8), reads(7, 7), reads(9, 8), reads(9, 5)), (Ok(()), Ok(()), Ok(()), Ok(())));
        let newer = OpenError::Newer { place: "x".to_owned(), found: 9, known: 8 };
        assert_eq!(reads(9, 9), Err(newer.clone()));
        assert_eq!(reads(6, 6), Err(OpenError::Older { place: "x".to_owned(), found: 6, oldest: 7 }));
        assert_eq!(reads(0, 0), Err(OpenError::Missing { place: "x".to_owned() }));
        let writes = |format, writer_min| formats.check_writer("x", Found { format, reader_min: 0, writer_min });
        assert_eq!(
            (writes(0, 0), writes(5, 5), writes(8, 8), writes(9, 8)),
            (Ok(Some(0)), Ok(Some(5)), Ok(None), Ok(None))
        );
        assert_eq!(writes(9, 9), Err(newer));
    }
}
