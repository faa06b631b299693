//! Sites in a text file or on standard input: one per line, `#` starts a comment.
//!
//! Read line by line as the pipeline asks, so a file of any length costs no memory. A line that is no site is reported with
//! its number, and the next one is read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use faceflow_core::Time;
use faceflow_core::source::{Poll, Source};
use url::Url;

/// No line of a site list is longer; the rest of a longer one is skipped, and reported.
const LINE_MAX_BYTES: u64 = 64 * 1024;

/// Parses one line.
pub type ParseSite = fn(&str) -> Result<Url, String>;

/// The lines of a reader.
pub struct Lines {
    name: String,
    reader: Box<dyn BufRead + Send>,
    parse: ParseSite,
    number: u64,
}

impl Lines {
    /// The lines of a file, or of standard input for `-`.
    pub fn open(path: &Path, parse: ParseSite) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::new("standard input", Box::new(BufReader::new(io::stdin())), parse));
        }
        Ok(Self::new(&path.display().to_string(), Box::new(BufReader::new(File::open(path)?)), parse))
    }

    /// The lines of `reader`, called `name` in reports.
    pub fn new(name: &str, reader: Box<dyn BufRead + Send>, parse: ParseSite) -> Self {
        Self { name: name.to_owned(), reader, parse, number: 0 }
    }

    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        if self.reader.by_ref().take(LINE_MAX_BYTES).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.len() as u64 == LINE_MAX_BYTES && line.last() != Some(&b'\n') {
            self.skip_rest_of_line()?;
        }
        Ok(Some(line))
    }

    fn skip_rest_of_line(&mut self) -> io::Result<()> {
        loop {
            let available = self.reader.fill_buf()?;
            let (used, ended) = match available.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (available.len(), available.is_empty()),
            };
            self.reader.consume(used);
            if ended {
                return Ok(());
            }
        }
    }
}

impl Source for Lines {
    fn poll(&mut self, _now: Time) -> Poll {
        loop {
            self.number += 1;
            let at = format!("{} line {}", self.name, self.number);
            let line = match self.line() {
                Ok(None) => return Poll::End,
                Ok(Some(line)) => line,
                Err(error) => {
                    self.reader = Box::new(io::empty());
                    return Poll::Failed(format!("{at} could not be read: {error}"));
                }
            };
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_start_matches('\u{feff}').trim();
            // A `#` inside a URL is its fragment; after a blank it starts a comment.
            let text = text.split_once(" #").map_or(text, |(site, _)| site.trim_end());
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            return (self.parse)(text).map_or_else(|why| Poll::Bad(format!("{at}: {why}")), Poll::Site);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Url, String> {
        Url::parse(text).map_err(|error| format!("{}: {error}", &text[..text.len().min(20)]))
    }

    fn polls(text: &str) -> Vec<String> {
        let mut lines = Lines::new("sites.txt", Box::new(io::Cursor::new(text.to_owned().into_bytes())), parse);
        let mut seen = Vec::new();
        loop {
            match lines.poll(0) {
                Poll::Site(url) => seen.push(url.to_string()),
                Poll::Bad(why) => seen.push(why),
                Poll::Failed(why) => panic!("{why}"),
                Poll::Later => panic!("a file has no later"),
                Poll::End => return seen,
            }
        }
    }

    #[test]
    fn comments_and_blanks_are_skipped_and_a_bad_line_is_named_with_its_number() {
        let seen = polls(
            "\u{feff}# sites\r\nhttp://a.example/\r\n\n  http://b.example/x,y # the second\nnonsense\nhttp://c.example",
        );
        assert_eq!(seen.len(), 4, "{seen:?}");
        assert_eq!(seen[..2], ["http://a.example/", "http://b.example/x,y"]);
        assert!(seen[2].starts_with("sites.txt line 5: nonsense"), "{seen:?}");
        assert_eq!(seen[3], "http://c.example/");
    }

    #[test]
    fn an_endless_line_is_bounded_and_the_next_one_is_read() {
        let long = format!("{}\nhttp://a.example/\n", "x".repeat(1_000_000));
        let seen = polls(&long);
        assert_eq!((seen.len(), seen[1].as_str()), (2, "http://a.example/"));
    }
}
