//! The first directory of a TIFF or BigTIFF file: its tags and their numbers.

use super::broken::Broken;

/// Bytes, and the order in which their numbers are.
#[derive(Clone, Copy)]
pub struct File<'a> {
    /// The whole file.
    pub bytes: &'a [u8],
    /// Whether the most significant byte comes first.
    pub big_endian: bool,
}

impl File<'_> {
    /// The number of `size` bytes (1, 2, 4 or 8) at `at`.
    fn number(&self, at: u64, size: usize) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let bytes = self.bytes.get(at..at.checked_add(size)?)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if self.big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) })
    }
}

/// The tags of one page, sorted as the file has them.
pub struct Directory<'a> {
    /// The file.
    pub file: File<'a>,
    tags: Vec<Tag>,
}

/// Where the values of a tag are.
struct Tag {
    name: u16,
    size: usize,
    count: u64,
    at: u64,
}

impl<'a> Directory<'a> {
    /// Reads the first directory.
    pub fn first(bytes: &'a [u8]) -> Result<Self, Broken> {
        let file = File { bytes, big_endian: bytes.starts_with(b"MM") };
        let short = || Broken::Corrupt("the directory lies outside of the file");
        let big = file.number(2, 2) == Some(43);
        let (count_size, entry, word) = if big { (8, 20, 8) } else { (2, 12, 4) };
        let start = file.number(if big { 8 } else { 4 }, word).ok_or_else(short)?;
        let count = file.number(start, count_size).ok_or_else(short)?;
        let mut tags = Vec::new();
        for index in 0..count {
            let at = start.saturating_add(count_size as u64).saturating_add(index.saturating_mul(entry));
            let (name, kind) = file.number(at, 2).zip(file.number(at + 2, 2)).ok_or_else(short)?;
            let count = file.number(at + 4, word).ok_or_else(short)?;
            let size = match kind {
                1 | 2 | 6 | 7 => 1,
                3 | 8 => 2,
                4 | 9 | 11 | 13 => 4,
                5 | 10 | 12 | 16 | 17 | 18 => 8,
                _ => continue,
            };
            let inside = count.saturating_mul(size as u64) <= word as u64;
            let values = at + 4 + word as u64;
            let at = if inside { values } else { file.number(values, word).ok_or_else(short)? };
            tags.push(Tag { name: name as u16, size, count, at });
        }
        Ok(Self { file, tags })
    }

    fn tag(&self, name: u16) -> Option<&Tag> {
        self.tags.iter().find(|tag| tag.name == name && tag.count > 0)
    }

    /// Whether a tag is there.
    pub fn has(&self, name: u16) -> bool {
        self.tag(name).is_some()
    }

    /// All numbers of a tag; none where it is missing.
    pub fn numbers(&self, name: u16) -> Result<Vec<u64>, Broken> {
        let Some(tag) = self.tag(name) else { return Ok(vec![]) };
        let read = |index: u64| self.file.number(tag.at.checked_add(index.checked_mul(tag.size as u64)?)?, tag.size);
        // The last first: a count that leads out of the file is refused before room is made for it.
        read(tag.count - 1).ok_or(Broken::Corrupt("the values of a tag lie outside of the file"))?;
        (0..tag.count)
            .map(|index| read(index).ok_or(Broken::Corrupt("the values of a tag lie outside of the file")))
            .collect()
    }

    /// The first number of a tag.
    pub fn number(&self, name: u16) -> Result<Option<u64>, Broken> {
        let Some(tag) = self.tag(name) else { return Ok(None) };
        self.file
            .number(tag.at, tag.size)
            .map(Some)
            .ok_or(Broken::Corrupt("the value of a tag lies outside of the file"))
    }

    /// The bytes of a tag.
    pub fn bytes(&self, name: u16) -> Option<&'a [u8]> {
        let tag = self.tag(name).filter(|tag| tag.size == 1)?;
        let (from, length) = (usize::try_from(tag.at).ok()?, usize::try_from(tag.count).ok()?);
        self.file.bytes.get(from..from.checked_add(length)?)
    }

    /// The whole parts of fractions.
    pub fn whole_ratios(&self, name: u16) -> Result<Option<Vec<u64>>, Broken> {
        let Some(tag) = self.tag(name).filter(|tag| tag.size == 8 && tag.count <= 16) else { return Ok(None) };
        let outside = Broken::Corrupt("the values of a tag lie outside of the file");
        let ratio = |index: u64| {
            let at = tag.at.checked_add(8 * index)?;
            let (over, under) = (self.file.number(at, 4)?, self.file.number(at.checked_add(4)?, 4)?);
            Some(over / under.max(1))
        };
        (0..tag.count).map(ratio).collect::<Option<_>>().map(Some).ok_or(outside)
    }
}
