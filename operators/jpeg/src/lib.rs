//! JPEG (ITU-T T.81): every Huffman-coded picture of 8 bits, sequential or progressive, in any order of scans and with any
//! sampling factors whose ratios are whole, as libjpeg-turbo shows it.
//!
//! It exists because no decoder at hand gives right pixels for all of these, and none tells a whole picture from one that
//! was cut and closed. Promise: pixels that are not in the file are not made up; a picture that lacks some is refused. What
//! is not decoded (arithmetic coding, lossless, 12 bits, fractional sampling ratios) is refused by name.

mod bits;
mod broken;
mod fast;
mod idct;
mod rows;
mod scan;
mod segments;

#[cfg(test)]
mod test_encoder;
#[cfg(test)]
mod tests;

pub use broken::Broken;

use rows::{Colours, Samples};
use scan::Plane;
use segments::{Frame, Scan, Segments, Stop};

/// Scans that are read at most: each is a walk over all blocks, however few bytes it has. T.81 needs far fewer.
const SCANS_MAX: usize = 500;

/// A picture whose header has been read.
pub struct Jpeg<'a> {
    bytes: &'a [u8],
    frame: Frame,
    segments: Segments,
    first: (Scan, usize),
    colours: Colours,
}

impl<'a> Jpeg<'a> {
    /// Reads up to the first scan; allocates nothing that depends on the size of the picture.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Broken> {
        let mut segments = Segments::default();
        let Stop::Scan(scan, at) = segments.read(bytes, 2)? else {
            return Err(Broken::Corrupt("there is no scan"));
        };
        let frame = segments.frame.clone().ok_or(Broken::Corrupt("there is no frame header"))?;
        let colours = colours(&segments, &frame);
        Ok(Self { bytes, frame, segments, first: (scan, at), colours })
    }

    /// Width and height in pixels, as stored.
    pub fn size(&self) -> (u32, u32) {
        (self.frame.width as u32, self.frame.height as u32)
    }

    /// The same picture with its components as they are stored, whatever colours they are.
    pub fn as_stored(self) -> Self {
        Self { colours: Colours::Stored, ..self }
    }

    /// Bytes of a pixel: one of grey, three of red, green and blue, or as many as there are components as they are stored.
    pub fn channels(&self) -> usize {
        match self.colours {
            Colours::Grey => 1,
            Colours::Stored => self.frame.components.len(),
            _ => 3,
        }
    }

    /// The EXIF data, from their byte order mark on.
    pub fn exif(&self) -> Option<&'a [u8]> {
        self.segments.exif.and_then(|(from, to)| self.bytes.get(from..to))
    }

    /// What decoding holds beside the pixels that it writes, in bytes. Rarely a picture that seemed of the fast kind is not;
    /// [`Jpeg::decode`] then checks again.
    pub fn working_bytes(&self) -> u64 {
        if self.is_plain() { self.bytes.len() as u64 } else { self.coefficient_bytes() }
    }

    fn is_plain(&self) -> bool {
        fast::suits(&self.frame, &self.segments, &self.first.0, self.colours)
    }

    /// Coefficients of all components, 128 bytes a block, which one after another become samples, 64 bytes a block.
    fn coefficient_bytes(&self) -> u64 {
        let blocks = (0..self.frame.components.len()).map(|index| {
            let (across, down) = Plane::size(&self.frame, index);
            (across * down) as u64
        });
        blocks.clone().map(|blocks| 128 * blocks).sum::<u64>() + 64 * blocks.max().unwrap_or(0)
    }

    /// Reads all scans; the coefficients of each component.
    fn planes(&self) -> Result<Vec<Plane>, Broken> {
        let mut planes: Vec<Plane> =
            (0..self.frame.components.len()).map(|index| Plane::new(&self.frame, index)).collect();
        let mut segments = self.segments.clone();
        let (mut header, mut at) = (&self.first.0, self.first.1);
        let mut next;
        for _ in 0..SCANS_MAX {
            let end = scan::read(self.bytes, at, header, &segments, &mut planes)?;
            match segments.read(self.bytes, end)? {
                Stop::Scan(scan, behind) => (next, at) = (scan, behind),
                Stop::End => {
                    let whole = planes.iter().all(|plane| plane.seen);
                    return if whole { Ok(planes) } else { Err(Broken::Cut) };
                }
            }
            header = &next;
        }
        Err(Broken::Unsupported("more than 500 scans are not decoded"))
    }

    /// Writes the pixels, row by row: `out` holds width times height of them. May hold so many bytes beside them.
    pub fn decode(&self, out: &mut [u8], working_bytes_max: u64) -> Result<(), Broken> {
        let (width, height) = (self.frame.width, self.frame.height);
        assert_eq!(out.len(), width * height * self.channels(), "room for the pixels, and no more");
        if self.is_plain() && fast::decode(self.bytes, self.first.1, self.channels() == 1, out) {
            return Ok(());
        }
        match self.coefficient_bytes() {
            bytes if bytes > working_bytes_max => Err(Broken::TooMuchMemory(bytes)),
            _ => self.decode_fully(out),
        }
    }

    fn decode_fully(&self, out: &mut [u8]) -> Result<(), Broken> {
        let mut samples = Vec::with_capacity(4);
        for (plane, component) in self.planes()?.into_iter().zip(&self.frame.components) {
            let quant = plane.quant.ok_or(Broken::Corrupt("a component has no quantisation table"))?;
            let (across, down) = (self.frame.h_max / component.h, self.frame.v_max / component.v);
            samples.push(Samples::of(&plane, &quant, across, down));
        }
        rows::write(&mut samples, self.colours, self.frame.width, out);
        Ok(())
    }
}

/// The colours of a file, by what libjpeg goes by: JFIF, then Adobe, then the names of the components.
fn colours(segments: &Segments, frame: &Frame) -> Colours {
    let ids: Vec<u8> = frame.components.iter().map(|component| component.id).collect();
    match (ids.len(), segments.jfif, segments.adobe) {
        (1, ..) => Colours::Grey,
        (3, true, _) => Colours::YCbCr,
        (3, false, Some(0)) => Colours::Rgb,
        (3, false, None) if ids == *b"RGB" => Colours::Rgb,
        (3, ..) => Colours::YCbCr,
        (_, _, None | Some(0)) => Colours::Cmyk,
        _ => Colours::Ycck,
    }
}
