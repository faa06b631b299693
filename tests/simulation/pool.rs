//! Pictures that sites choose from, and all that is true of them: some are near-duplicates of each other, one says nothing, one is
//! no picture.

use std::collections::HashMap;
use std::sync::OnceLock;

use bytes::Bytes;
use faceflow::core::record::ContentId;

use crate::script::dice;
use crate::world::{MARKER, jpeg, mark, picture, png, shrink};

/// Pictures in the pool.
pub const POOL: usize = 17;

/// A picture, and the truth about it.
pub struct PoolPicture {
    pub bytes: Bytes,
    pub id: ContentId,
    /// Width and height, or why it is refused.
    pub size: Result<(u32, u32), &'static str>,
    /// Pictures of one group show the same.
    pub group: usize,
    /// The one face, and how many pixels an edge may be off.
    pub face: ([f32; 4], f32),
}

/// All of them.
pub fn pool() -> &'static [PoolPicture] {
    static POOL_OF_ALL: OnceLock<Vec<PoolPicture>> = OnceLock::new();
    POOL_OF_ALL.get_or_init(|| {
        let mut pool = Vec::new();
        let mut add = |bytes: Vec<u8>, size, group, face| {
            let bytes = Bytes::from(bytes);
            pool.push(PoolPicture { id: ContentId::of(&bytes), bytes, size, group, face });
        };
        for group in 0..5 {
            let mut whole = picture(group as u64, 96, 72);
            mark(&mut whole, [10, 10, 30, 28]);
            let face = [10.0, 10.0, 30.0, 28.0];
            add(jpeg(&whole, 92), Ok((96, 72)), group, (face, 3.0));
            add(jpeg(&whole, 70), Ok((96, 72)), group, (face, 3.0));
            add(png(&shrink(&whole, 72, 54)), Ok((72, 54)), group, (face.map(|side| side * 0.75), 1.0));
        }
        let flat = image::RgbImage::from_pixel(64, 64, image::Rgb(MARKER));
        add(png(&flat), Ok((64, 64)), 5, ([0.0, 0.0, 64.0, 64.0], 0.0));
        add(b"no picture".to_vec(), Err("not_an_image"), 6, ([0.0; 4], 0.0));
        assert_eq!(pool.len(), POOL);
        pool
    })
}

/// Which picture of the pool has these pixels.
pub fn by_pixels(rgb: &[u8]) -> usize {
    static BY_PIXELS: OnceLock<HashMap<u64, usize>> = OnceLock::new();
    let known = BY_PIXELS.get_or_init(|| {
        let decoded = pool().iter().enumerate().filter_map(|(n, picture)| {
            let pixels = image::load_from_memory(&picture.bytes).ok()?;
            Some((dice(&pixels.into_rgb8().into_raw()[..]), n))
        });
        decoded.collect()
    });
    *known.get(&dice(rgb)).expect("every picture that is looked at is of the pool, and whole")
}
