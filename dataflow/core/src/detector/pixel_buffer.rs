//! Decoded pixels, and parts of them.

use std::sync::Arc;

use crate::fault::{Class, Fault};

/// Decoded pixels: RGB, 8 bits a channel, rows from the top, orientation applied.
#[derive(Clone)]
pub struct PixelBuffer {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `width * height * 3` bytes.
    pub rgb: Arc<[u8]>,
}

impl std::fmt::Debug for PixelBuffer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "PixelBuffer({}x{})", self.width, self.height)
    }
}

/// A rectangle of a picture, in its pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// The left edge.
    pub x: u32,
    /// The upper edge.
    pub y: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

impl Region {
    /// All of a picture of this size.
    pub fn whole(width: u32, height: u32) -> Self {
        Self { x: 0, y: 0, width, height }
    }
}

impl PixelBuffer {
    /// The pixels of a region: the picture itself, not copied, where the region is all of it.
    pub fn part(&self, region: Region) -> Result<Self, Fault> {
        if region == Region::whole(self.width, self.height) {
            return Ok(self.clone());
        }
        let outside = || {
            let detail = format!("{region:?} is not a part of {self:?} with {} bytes", self.rgb.len());
            Fault::permanent(Class::Engine, "engine_error", detail)
        };
        let row = |y: u32| {
            let first = (u64::from(y) * u64::from(self.width) + u64::from(region.x)) as usize * 3;
            self.rgb.get(first..first + region.width as usize * 3).ok_or_else(outside)
        };
        let ends = [region.x.checked_add(region.width), region.y.checked_add(region.height)];
        let [Some(right), Some(bottom)] = ends else { return Err(outside()) };
        if right > self.width || bottom > self.height {
            return Err(outside());
        }
        let mut rgb = Vec::with_capacity(region.width as usize * region.height as usize * 3);
        for y in region.y..bottom {
            rgb.extend_from_slice(row(y)?);
        }
        Ok(Self { width: region.width, height: region.height, rgb: rgb.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_its_rows_and_the_whole_is_not_copied() {
        let picture = PixelBuffer { width: 3, height: 2, rgb: (0..18).collect::<Vec<u8>>().into() };
        let part = picture.part(Region { x: 1, y: 1, width: 2, height: 1 }).expect("a part");
        assert_eq!((part.width, part.height, &part.rgb[..]), (2, 1, &[12, 13, 14, 15, 16, 17][..]));
        let whole = picture.part(Region::whole(3, 2)).expect("the picture");
        assert!(Arc::ptr_eq(&whole.rgb, &picture.rgb));
    }

    #[test]
    fn what_lies_outside_or_lacks_bytes_is_a_fault() {
        let picture = PixelBuffer { width: 3, height: 2, rgb: vec![0; 18].into() };
        for (x, y, width, height) in [(2, 0, 2, 1), (0, 1, 1, 2), (u32::MAX, 0, 2, 1)] {
            assert!(picture.part(Region { x, y, width, height }).is_err());
        }
        let short = PixelBuffer { rgb: vec![0; 9].into(), ..picture };
        assert!(short.part(Region { x: 0, y: 1, width: 1, height: 1 }).is_err());
    }
}
