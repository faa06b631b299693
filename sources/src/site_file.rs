//! Sites in a text file or on standard input: one per line, `#` starts a comment; in UTF-8 or UTF-16, with lines ended in any way.
//!
//! Read line by line as the pipeline asks, so a file of any length costs no memory. A line that is no site, or is too long, is
//! reported with its number in a few words, and the next one is read.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use faceflow_core::Time;
use faceflow_core::source::{Source, SourceItem};
use url::Url;

use crate::text_reader::TextReader;

/// A line of a site list is shorter; one that is not is reported and skipped.
pub(crate) const LINE_MAX_BYTES: u64 = 64 * 1024;

/// Of a message about a line, this much of the beginning and of the end is said.
const SAID_CHARS: usize = 160;

/// Parses one line.
pub type ParseSite = fn(&str) -> Result<Url, String>;

/// So many lines of a list are looked at for a site before its reading begins in earnest.
const PRIMED_MAX: usize = 10_000;
/// So many bad lines of a list without a site are said.
const BAD_SAID: usize = 5;

/// How long a poll waits for standard input to say something.
const PATIENCE: Duration = Duration::from_millis(50);

/// The lines of a reader.
pub struct Lines {
    name: String,
    reader: TextReader,
    parse: ParseSite,
    number: u64,
    /// Whether more may come after the end.
    follow: bool,
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
    /// Whether what comes is the rest of a line that was too long.
    skipping: bool,
}

impl Lines {
    /// The lines of a file, or of standard input for `-`.
    pub fn open(path: &Path, parse: ParseSite) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::new("standard input", Box::new(BufReader::new(Listener::to_stdin()?)), parse));
        }
        Ok(Self::new(&path.display().to_string(), Box::new(BufReader::new(File::open(path)?)), parse))
    }

    /// The lines of a reader that has more to say after its end. A line counts once its end is there.
    pub fn following(name: &str, reader: Box<dyn BufRead + Send>, parse: ParseSite) -> Self {
        Self { follow: true, ..Self::new(name, reader, parse) }
    }

    /// The lines of `reader`, called `name` in reports.
    pub fn new(name: &str, reader: Box<dyn BufRead + Send>, parse: ParseSite) -> Self {
        let reader = TextReader::new(reader);
        Self { name: name.to_owned(), reader, parse, number: 0, follow: false, begun: vec![], skipping: false }
    }

    /// These lines, if one of the first [`PRIMED_MAX`] is a site or all are comments.
    ///
    /// # Errors
    /// What is wrong with the first lines, where none is a site.
    pub fn primed(mut self) -> Result<Primed, String> {
        let (mut begun, mut bad) = (VecDeque::new(), vec![]);
        while begun.len() < PRIMED_MAX {
            match self.poll(0) {
                SourceItem::Later => continue,
                SourceItem::Failed(why) => return Err(why),
                SourceItem::End if bad.is_empty() => break,
                SourceItem::End => {
                    let said = bad.iter().take(BAD_SAID).map(String::as_str).collect::<Vec<_>>().join("; ");
                    return Err(format!("none of its {} lines is a site: {said}", bad.len()));
                }
                SourceItem::Bad(why) => {
                    bad.push(why.clone());
                    begun.push_back(SourceItem::Bad(why));
                }
                site => {
                    begun.push_back(site);
                    break;
                }
            }
        }
        Ok(Primed { begun, rest: self })
    }

    /// The next line. `None` at the end, and [`io::ErrorKind::WouldBlock`] where more may come.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.skipping {
            self.skip_rest_of_line()?;
            self.skipping = false;
        }
        let room = LINE_MAX_BYTES - self.begun.len() as u64;
        let read = self.reader.by_ref().take(room).read_until(b'\n', &mut self.begun)?;
        let ended = self.begun.last() == Some(&b'\n');
        let full = self.begun.len() as u64 == LINE_MAX_BYTES;
        if !ended && !full && self.follow {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if read == 0 && self.begun.is_empty() {
            return Ok(None);
        }
        self.skipping = full && !ended;
        Ok(Some(std::mem::take(&mut self.begun)))
    }

    fn skip_rest_of_line(&mut self) -> io::Result<()> {
        loop {
            let available = self.reader.fill_buf()?;
            if available.is_empty() && self.follow {
                return Err(io::ErrorKind::WouldBlock.into());
            }
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

/// Lines of which the first were read already.
pub struct Primed {
    begun: VecDeque<SourceItem>,
    rest: Lines,
}

impl Source for Primed {
    fn poll(&mut self, now: Time) -> SourceItem {
        self.begun.pop_front().unwrap_or_else(|| self.rest.poll(now))
    }
}

impl Source for Lines {
    fn poll(&mut self, _now: Time) -> SourceItem {
        loop {
            let at = format!("{} line {}", self.name, self.number + 1);
            let line = match self.line() {
                Ok(None) => return SourceItem::End,
                Ok(Some(line)) => line,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return SourceItem::Later,
                Err(error) => {
                    self.reader = TextReader::new(Box::new(io::empty()));
                    return SourceItem::Failed(format!("{at} could not be read: {error}"));
                }
            };
            self.number += 1;
            let text = String::from_utf8_lossy(&line);
            let Some(entry) = entry_in(&text) else { continue };
            let site = match self.skipping {
                true => Err(format!("{entry:?} is too long: a line has less than {LINE_MAX_BYTES} bytes")),
                false => (self.parse)(entry),
            };
            return site.map_or_else(|why| SourceItem::Bad(format!("{at}: {}", shortened(&why))), SourceItem::Site);
        }
    }
}

/// What a line says; `None` for blank lines and comments.
pub(crate) fn entry_in(line: &str) -> Option<&str> {
    let text = line.trim_matches(is_blank);
    // A `#` inside a URL is its fragment; after a blank it starts a comment.
    let comment = text.match_indices('#').find(|(at, _)| text[..*at].chars().next_back().is_none_or(is_blank));
    let text = comment.map_or(text, |(at, _)| text[..at].trim_end_matches(is_blank));
    (!text.is_empty()).then_some(text)
}

/// White space, and characters that nobody sees: byte order marks, zero-width blanks and joiners, marks of direction.
fn is_blank(char: char) -> bool {
    char.is_whitespace()
        || matches!(char, '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{202a}'..='\u{202e}' | '\0')
}

/// The beginning and the end of a long message: it quotes somebody's line, and says at its end what is wrong.
pub(crate) fn shortened(why: &str) -> String {
    let chars = why.chars().count();
    if chars <= 2 * SAID_CHARS {
        return why.to_owned();
    }
    let (start, end) = (why.chars().take(SAID_CHARS), why.chars().skip(chars - SAID_CHARS));
    start.chain(" … ".chars()).chain(end).collect()
}

/// Standard input, read by a thread of its own: whoever types slowly must not hold up a poll. When nothing comes for a
/// moment, reading says [`io::ErrorKind::WouldBlock`].
struct Listener {
    heard: Receiver<io::Result<Vec<u8>>>,
    rest: io::Cursor<Vec<u8>>,
}

impl Listener {
    fn to_stdin() -> io::Result<Self> {
        let (tell, heard) = sync_channel(4);
        let listen = move || {
            let mut input = io::stdin().lock();
            loop {
                let piece = input.fill_buf().map(<[u8]>::to_vec);
                let read = piece.as_ref().map_or(0, Vec::len);
                input.consume(read);
                // An empty piece says that it was the last. Nobody listens any more once the source is dropped.
                if tell.send(piece).is_err() || read == 0 {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("faceflow-stdin".to_owned()).spawn(listen)?;
        Ok(Self { heard, rest: io::Cursor::default() })
    }
}

impl Read for Listener {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.rest.position() as usize >= self.rest.get_ref().len() {
            self.rest = match self.heard.recv_timeout(PATIENCE) {
                Ok(piece) => io::Cursor::new(piece?),
                Err(RecvTimeoutError::Timeout) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
            };
        }
        self.rest.read(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Url, String> {
        Url::parse(text).map_err(|error| format!("{text}: {error}"))
    }

    fn polls(text: &str) -> Vec<String> {
        let mut lines = Lines::new("sites.txt", Box::new(io::Cursor::new(text.to_owned().into_bytes())), parse);
        let mut seen = Vec::new();
        loop {
            match lines.poll(0) {
                SourceItem::Site(url) => seen.push(url.to_string()),
                SourceItem::Bad(why) => seen.push(why),
                SourceItem::End => return seen,
                other => panic!("{other:?}"),
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

    /// What the sites of a list are, or what is said about it.
    fn primed(bytes: &[u8]) -> Result<Vec<String>, String> {
        let mut lines = Lines::new("sites.txt", Box::new(io::Cursor::new(bytes.to_vec())), parse).primed()?;
        let mut seen = Vec::new();
        loop {
            match lines.poll(0) {
                SourceItem::Site(url) => seen.push(url.path().to_owned()),
                SourceItem::Bad(why) => seen.push(why),
                SourceItem::End => return Ok(seen),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn lists_are_read_as_people_have_them() {
        let plain = "# sites\n\n  http://x.example/a  \n\thttp://x.example/b  # the second\n\nhttp://x.example/c";
        let wide = |text: &str, unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<_>>();
        for end in ["\n", "\r\n", "\r"] {
            for last in ["", end] {
                for mark in ["", "\u{feff}"] {
                    let text = format!("{mark}{}{last}", plain.replace('\n', end));
                    for bytes in
                        [text.clone().into_bytes(), wide(&text, u16::to_le_bytes), wide(&text, u16::to_be_bytes)]
                    {
                        assert_eq!(primed(&bytes), Ok(["/a", "/b", "/c"].map(str::to_owned).to_vec()), "{bytes:?}");
                    }
                }
            }
        }
        for line in [
            "http://x.example/a\t# one",
            "http://x.example/a #",
            "\u{200b}http://x.example/a\u{200b}\u{feff}",
            "\u{a0}http://x.example/a\u{3000}\u{200e}# one",
            "http://x.example/a\0",
            "http://x.example/a#fragment",
        ] {
            assert_eq!(primed(line.as_bytes()), Ok(vec!["/a".to_owned()]), "{line:?}");
        }
        let seen = primed(&wide("\u{feff}nonsense\r\nhttp://x.example/\u{fc}", u16::to_le_bytes)).expect("one is good");
        assert!(seen[0].starts_with("sites.txt line 1: nonsense") && seen[1] == "/%C3%BC", "{seen:?}");
    }

    #[test]
    fn a_list_without_a_site_is_refused_and_one_that_names_nothing_is_not() {
        for bytes in [&b""[..], b"\n\n", b"# nothing\n", b"\xff\xfe"] {
            assert_eq!(primed(bytes), Ok(vec![]), "{bytes:?}");
        }
        for bytes in [&b"nonsense"[..], b"# sites\nnonsense\n\nmore nonsense\n", b"\xff\xfex\0\n\0"] {
            let why = primed(bytes).expect_err("no line is a site");
            assert!(why.starts_with("none of its ") && why.contains("sites.txt line "), "{why}");
        }
        assert_eq!(primed(b"nonsense\nhttp://x.example/a").map(|seen| seen.len()), Ok(2));
    }

    #[test]
    fn a_line_that_is_too_long_is_said_in_a_few_words_and_the_next_one_is_read() {
        let (long, half) = ("x".repeat(1_000_000), "x".repeat(LINE_MAX_BYTES as usize / 2));
        let seen = polls(&format!("http://a.example/{long}\n{half}\n# {long}\nhttp://a.example/{half}\n{long}"));
        assert_eq!(seen.len(), 4, "a comment may have any length");
        let said = |n: usize, ends: [&str; 2]| seen[n].starts_with(ends[0]) && seen[n].ends_with(ends[1]);
        let too_long = "x\" is too long: a line has less than 65536 bytes";
        assert!(said(0, ["sites.txt line 1: \"http://a.example/xxx", too_long]), "{}", seen[0]);
        assert!(said(1, ["sites.txt line 2: xxx", "x: relative URL without a base"]), "{}", seen[1]);
        assert!(said(2, ["http://a.example/xxx", "xxx"]), "{}", seen[2]);
        assert!(said(3, ["sites.txt line 5: \"xxx", too_long]), "{}", seen[3]);
        assert!([0, 1, 3].iter().all(|n| seen[*n].chars().count() < 400), "{seen:?}");
    }

    #[test]
    fn a_followed_file_gives_its_lines_as_they_are_completed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("inbox.txt");
        let add = |text: &str| {
            let mut file = File::options().append(true).create(true).open(&path).expect("opens");
            io::Write::write_all(&mut file, text.as_bytes()).expect("writes");
        };
        add("http://a.example/\nhttp://b.exa");
        let file = File::open(&path).expect("opens");
        let mut lines = Lines::following("inbox.txt", Box::new(BufReader::new(file)), parse);
        let next = |lines: &mut Lines| match lines.poll(0) {
            SourceItem::Site(url) => url.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!([next(&mut lines), next(&mut lines), next(&mut lines)], ["http://a.example/", "Later", "Later"]);
        add("mple/\nnonsense\n");
        assert_eq!(next(&mut lines), "http://b.example/");
        assert!(next(&mut lines).contains("inbox.txt line 3: nonsense"));
        assert_eq!(next(&mut lines), "Later");
        add(&"x".repeat(LINE_MAX_BYTES as usize));
        assert!(next(&mut lines).contains("inbox.txt line 4: "));
        assert_eq!(next(&mut lines), "Later");
        add("x\nhttp://c.example/\n");
        assert_eq!(next(&mut lines), "http://c.example/", "the rest of a line is no line");
    }

    #[test]
    fn a_reader_that_has_nothing_yet_is_asked_again_and_no_part_of_a_line_is_lost() {
        let (tell, heard) = sync_channel(4);
        let listener = Listener { heard, rest: io::Cursor::default() };
        let mut lines = Lines::new("standard input", Box::new(BufReader::new(listener)), parse);
        tell.send(Ok(b"http://a.exam".to_vec())).expect("is heard");
        assert!(matches!(lines.poll(0), SourceItem::Later));
        tell.send(Ok(b"ple/\nhttp://b.example/".to_vec())).expect("is heard");
        assert!(matches!(lines.poll(0), SourceItem::Site(url) if url.as_str() == "http://a.example/"));
        assert!(matches!(lines.poll(0), SourceItem::Later));
        drop(tell);
        assert!(matches!(lines.poll(0), SourceItem::Site(url) if url.as_str() == "http://b.example/"));
        assert!(matches!(lines.poll(0), SourceItem::End));
    }
}
