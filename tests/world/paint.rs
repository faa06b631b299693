//! The painting of a gallery's files: many pictures, in many encodings, on every core.
//!
//! Promise: a file depends on its number, size and style alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::encode::{bmp, gif, jpeg, png, webp};
use super::picture::portrait;

/// Styles of near duplicates; below them, styles go round.
pub(super) const SMALL: usize = usize::MAX;
pub(super) const COARSE: usize = usize::MAX - 1;
pub(super) const FINE: usize = usize::MAX - 2;

/// A file to be made.
pub(super) struct Painting {
    pub picture: u64,
    pub size: (u32, u32),
    /// Chooses the encoding.
    pub style: usize,
    /// A photograph, taken as it is.
    pub bytes: Option<Bytes>,
}

/// A file.
pub(super) struct Painted {
    pub bytes: Bytes,
    pub width: u32,
    pub height: u32,
    pub markers: Vec<[u32; 4]>,
}

impl Painting {
    fn paint(&self) -> Painted {
        if let Some(bytes) = &self.bytes {
            let reader = image::ImageReader::new(std::io::Cursor::new(bytes)).with_guessed_format();
            let size = reader.ok().and_then(|reader| reader.into_dimensions().ok());
            let (width, height) = size.expect("photographs are readable files");
            return Painted { bytes: bytes.clone(), width, height, markers: vec![] };
        }
        let (width, height) = self.size;
        let (picture, markers) = portrait(self.picture, width, height);
        let bytes = match self.style {
            SMALL => jpeg(&picture, 85),
            COARSE => jpeg(&picture, 50),
            FINE => png(&picture),
            style => match style % 40 {
                3 | 23 => png(&picture),
                10 => webp(&picture),
                17 => gif(&picture),
                31 => bmp(&picture),
                _ => jpeg(&picture, 85),
            },
        };
        Painted { bytes: bytes.into(), width, height, markers }
    }
}

/// Paints on every core, in order.
pub(super) fn paint(paintings: Vec<Painting>) -> Vec<Painted> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|threads| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            threads.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(painting) = paintings.get(number) else { break };
                    let painted = painting.paint();
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((number, painted));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, painted)| painted).collect()
}
