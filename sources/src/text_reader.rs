//! Text as people have it: in UTF-8 or UTF-16, with or without a byte order mark, its lines ended in any way.
//!
//! Promise: what comes out is the same text in UTF-8 with every line ended by a line feed, piece by piece as it is read.

use std::io::{self, BufRead, Read};

use encoding_rs::{Decoder, Encoding, UTF_16BE, UTF_16LE};

/// How much is read ahead, in bytes.
const PIECE_BYTES: usize = 8 << 10;

/// A reader of text.
pub(crate) struct TextReader {
    inner: Box<dyn BufRead + Send>,
    /// The first bytes, until the encoding is known.
    start: Vec<u8>,
    /// What is known of the encoding.
    encoding: Known,
    /// What was read and not taken yet.
    ready: Vec<u8>,
    taken: usize,
    /// Whether the last character was a carriage return.
    after_return: bool,
}

enum Known {
    NotYet,
    Utf8,
    Other(Decoder),
}

impl TextReader {
    pub fn new(inner: Box<dyn BufRead + Send>) -> Self {
        Self { inner, start: vec![], encoding: Known::NotYet, ready: vec![], taken: 0, after_return: false }
    }

    /// Reads another piece; nothing at the end.
    fn read_on(&mut self) -> io::Result<()> {
        (self.taken, self.ready) = (0, vec![]);
        while self.ready.is_empty() {
            let piece = self.inner.fill_buf()?;
            let piece = piece[..piece.len().min(PIECE_BYTES)].to_vec();
            let ended = piece.is_empty();
            self.inner.consume(piece.len());
            match self.encoding {
                Known::NotYet => {
                    self.start.extend(piece);
                    if self.start.len() >= 4 || ended {
                        let start = std::mem::take(&mut self.start);
                        self.encoding = Known::of(&start);
                        self.take_in(&start, ended);
                    }
                }
                _ => self.take_in(&piece, ended),
            }
            if ended {
                return Ok(());
            }
        }
        Ok(())
    }

    fn take_in(&mut self, piece: &[u8], ended: bool) {
        let text = match &mut self.encoding {
            Known::Other(decoder) => {
                let mut text = String::with_capacity(decoder.max_utf8_buffer_length(piece.len()).unwrap_or_default());
                // More may be written after the end of a file that is followed.
                let _ = decoder.decode_to_string(piece, &mut text, false);
                if ended && text.is_empty() {
                    return;
                }
                text.into_bytes()
            }
            _ => piece.to_vec(),
        };
        for byte in text {
            let is_second = std::mem::replace(&mut self.after_return, byte == b'\r') && byte == b'\n';
            match byte {
                _ if is_second => {}
                b'\r' => self.ready.push(b'\n'),
                byte => self.ready.push(byte),
            }
        }
    }
}

impl Known {
    /// By the mark, or by the zeros between ASCII characters.
    fn of(start: &[u8]) -> Self {
        let unmarked = match start {
            [first, 0, third, 0, ..] if *first != 0 && *third != 0 => Some(UTF_16LE),
            [0, second, 0, fourth, ..] if *second != 0 && *fourth != 0 => Some(UTF_16BE),
            _ => None,
        };
        match Encoding::for_bom(start).map(|(encoding, _)| encoding).or(unmarked) {
            Some(encoding) if encoding == UTF_16LE || encoding == UTF_16BE => {
                Self::Other(encoding.new_decoder_with_bom_removal())
            }
            _ => Self::Utf8,
        }
    }
}

impl BufRead for TextReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.ready.len() {
            self.read_on()?;
        }
        Ok(&self.ready[self.taken..])
    }

    fn consume(&mut self, amount: usize) {
        self.taken += amount;
    }
}

impl Read for TextReader {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let ready = self.fill_buf()?;
        let amount = ready.len().min(room.len());
        room[..amount].copy_from_slice(&ready[..amount]);
        self.consume(amount);
        Ok(amount)
    }
}
