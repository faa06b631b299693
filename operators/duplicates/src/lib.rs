//! Near-duplicate pictures: an index of perceptual hashes, groups by leader, and which pictures are detected.

pub mod index;
mod leaders;
pub mod near;
mod pictures;
pub mod settings;
