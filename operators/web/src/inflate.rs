//! Deflate data (RFC 1951) in its wrappings, gzip (RFC 1952) and zlib (RFC 1950), or in none, read as browsers read it.
//!
//! What servers do at the end of a stream is forgiven where nothing is lost by it: a checksum that is missing or cut off, bytes behind
//! the end, zeros as padding, and a stream that was flushed and then never closed, in a message whose length is known. Data that
//! break off anywhere else, or whose checksum is there and does not fit, are a fault. Promise: all data that come out are in the order
//! and as long as they went in, and no call gives more than its room.

use flate2::{Crc, Decompress, FlushDecompress, Status};

/// What stands around the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// A gzip file, of one or several members.
    Gzip,
    /// A zlib stream.
    Zlib,
    /// Nothing.
    Bare,
}

/// Why data do not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// They end too early.
    Cut,
    /// They are not what they should be.
    Damaged(&'static str),
}

/// Where reading is.
#[derive(Debug)]
enum Place {
    /// In the fixed part of a header; so much of it was read.
    Head(Vec<u8>),
    /// In the optional fields of a gzip header: which of them are still to come, and how far the present one is.
    Fields { flags: u8, extra: Vec<u8>, left: usize },
    /// In the data.
    Data,
    /// In the checksum.
    Check(Vec<u8>),
    /// Behind a gzip member: another one may begin.
    Behind(Vec<u8>),
    /// Behind the end: the rest means nothing.
    End,
}

/// A stream that is being read.
pub struct Inflate {
    wrapping: Wrapping,
    place: Place,
    inflater: Decompress,
    crc: Crc,
    adler: (u32, u32),
    /// The last bytes of the data.
    last: [u8; 4],
}

/// What an empty stored block ends with: how a stream is flushed.
const FLUSHED: [u8; 4] = [0, 0, 0xff, 0xff];
/// How a gzip member begins.
pub const GZIP_START: [u8; 3] = [0x1f, 0x8b, 8];

impl Inflate {
    /// A stream at its beginning.
    pub fn new(wrapping: Wrapping) -> Self {
        let place = match wrapping {
            Wrapping::Gzip | Wrapping::Zlib => Place::Head(vec![]),
            Wrapping::Bare => Place::Data,
        };
        Self { wrapping, place, inflater: Decompress::new(false), crc: Crc::new(), adler: (1, 0), last: [1; 4] }
    }

    /// Reads from the beginning of `input` and gives into `room`: how much of both was used. `input` is not empty.
    pub fn read(&mut self, input: &[u8], room: &mut [u8]) -> Result<(usize, usize), Broken> {
        match &mut self.place {
            Place::Data => return self.data(input, room),
            Place::End => return Ok((input.len(), 0)),
            _ => {}
        }
        // Headers and checksums are short; what they may hold of any length is passed over as it comes.
        let used = input.iter().position(|byte| self.byte(*byte).map_or_else(|_| true, |goes_on| !goes_on));
        match (used, &self.place) {
            (Some(_), Place::Head(_) | Place::Fields { .. }) => Err(Broken::Damaged("not a header of its kind")),
            (Some(_), Place::Check(_)) => Err(Broken::Damaged("the checksum does not fit")),
            (Some(at), _) => Ok((at + 1, 0)),
            (None, _) => Ok((input.len(), 0)),
        }
    }

    /// Gives into `room` what has come of all that was read, and was not given yet: how much that is.
    pub fn drain(&mut self, room: &mut [u8]) -> Result<usize, Broken> {
        match self.place {
            Place::Data => Ok(self.inflate(&[], room)?.1),
            _ => Ok(0),
        }
    }

    /// Whether what was read is complete; `framed` if the message around it said where it ends.
    pub fn finish(&self, framed: bool) -> Result<(), Broken> {
        match self.place {
            Place::Check(_) | Place::Behind(_) | Place::End => Ok(()),
            Place::Data if framed && self.last == FLUSHED => Ok(()),
            Place::Head(_) | Place::Fields { .. } | Place::Data => Err(Broken::Cut),
        }
    }

    fn data(&mut self, input: &[u8], room: &mut [u8]) -> Result<(usize, usize), Broken> {
        match self.inflate(input, room)? {
            (0, 0) if matches!(self.place, Place::Data) => Err(Broken::Damaged("no deflate data")),
            done => Ok(done),
        }
    }

    fn inflate(&mut self, input: &[u8], room: &mut [u8]) -> Result<(usize, usize), Broken> {
        let before = (self.inflater.total_in(), self.inflater.total_out());
        let status = self.inflater.decompress(input, room, FlushDecompress::None);
        let status = status.map_err(|_| Broken::Damaged("no deflate data"))?;
        let used = (self.inflater.total_in() - before.0) as usize;
        let given = (self.inflater.total_out() - before.1) as usize;
        self.note(&input[..used], &room[..given]);
        if status == Status::StreamEnd {
            self.place = if self.wrapping == Wrapping::Bare { Place::End } else { Place::Check(vec![]) };
        }
        Ok((used, given))
    }

    fn note(&mut self, used: &[u8], given: &[u8]) {
        for byte in &used[used.len().saturating_sub(4)..] {
            self.last.rotate_left(1);
            self.last[3] = *byte;
        }
        match self.wrapping {
            Wrapping::Gzip => self.crc.update(given),
            Wrapping::Zlib => {
                // So many sums of 16 bits fit into 32.
                for piece in given.chunks(5_000) {
                    for byte in piece {
                        self.adler.0 += u32::from(*byte);
                        self.adler.1 += self.adler.0;
                    }
                    self.adler = (self.adler.0 % 65_521, self.adler.1 % 65_521);
                }
            }
            Wrapping::Bare => {}
        }
    }

    /// Takes a byte outside of the data: whether the next one is outside, too.
    fn byte(&mut self, byte: u8) -> Result<bool, Broken> {
        match &mut self.place {
            Place::Head(head) => {
                head.push(byte);
                let head = std::mem::take(head);
                self.head(head)
            }
            Place::Fields { .. } => Ok(self.field(byte)),
            Place::Check(check) => {
                check.push(byte);
                let check = std::mem::take(check);
                self.check(check)
            }
            Place::Behind(next) => {
                next.push(byte);
                if !GZIP_START.starts_with(next) {
                    self.place = Place::End;
                } else if next.len() == GZIP_START.len() {
                    *self = Self { place: Place::Head(std::mem::take(next)), ..Self::new(Wrapping::Gzip) };
                }
                Ok(!matches!(self.place, Place::End))
            }
            Place::Data | Place::End => Ok(false),
        }
    }

    fn head(&mut self, head: Vec<u8>) -> Result<bool, Broken> {
        let wrong = match self.wrapping {
            Wrapping::Gzip => !head.iter().zip(GZIP_START).all(|(byte, wanted)| *byte == wanted),
            _ => head.len() == 2 && !is_zlib_start(&head),
        };
        match (self.wrapping, head.len()) {
            _ if wrong => {
                self.place = Place::Head(head);
                Err(Broken::Damaged("not a header of its kind"))
            }
            (Wrapping::Gzip, 10) => {
                self.place = Place::Fields { flags: head[3] & 0b1_1110, extra: vec![], left: 0 };
                Ok(self.next_field())
            }
            (Wrapping::Zlib, 2) => {
                self.place = Place::Data;
                Ok(false)
            }
            _ => {
                self.place = Place::Head(head);
                Ok(true)
            }
        }
    }

    /// Takes a byte of the optional fields: a length and so many bytes, two texts that end with a zero, a checksum.
    fn field(&mut self, byte: u8) -> bool {
        let Place::Fields { flags, extra, left } = &mut self.place else { return false };
        if *flags & EXTRA != 0 {
            if extra.len() < 2 {
                extra.push(byte);
                *left = extra.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            } else {
                *left -= 1;
            }
            if extra.len() == 2 && *left == 0 {
                *flags &= !EXTRA;
            }
        } else if *flags & (NAME | COMMENT) != 0 {
            let present = if *flags & NAME != 0 { NAME } else { COMMENT };
            if byte == 0 {
                *flags &= !present;
            }
        } else {
            *left += 1;
            if *left == 2 {
                *flags = 0;
            }
        }
        self.next_field()
    }

    /// Whether there is another optional field; the data begin otherwise.
    fn next_field(&mut self) -> bool {
        let more = matches!(self.place, Place::Fields { flags, .. } if flags != 0);
        if !more {
            self.place = Place::Data;
        }
        more
    }

    fn check(&mut self, check: Vec<u8>) -> Result<bool, Broken> {
        let (right, behind) = match self.wrapping {
            Wrapping::Gzip => {
                let right = [self.crc.sum().to_le_bytes(), self.crc.amount().to_le_bytes()].concat();
                (right, Place::Behind(vec![]))
            }
            _ => ((self.adler.1 << 16 | self.adler.0).to_be_bytes().to_vec(), Place::End),
        };
        if check.len() < right.len() {
            self.place = Place::Check(check);
            return Ok(true);
        }
        let fits = check == right;
        self.place = if fits { behind } else { Place::Check(check) };
        if fits { Ok(!matches!(self.place, Place::End)) } else { Err(Broken::Damaged("the checksum does not fit")) }
    }
}

const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;

/// Whether data begin with a zlib header that needs no dictionary.
pub fn is_zlib_start(start: &[u8]) -> bool {
    match start {
        [method, flags, ..] => {
            let number = u16::from(*method) << 8 | u16::from(*flags);
            method & 0x0f == 8 && method >> 4 <= 7 && number.is_multiple_of(31) && flags & 0x20 == 0
        }
        _ => false,
    }
}
