//! Pixels: what a picture's bytes decode to, and everything that is measured on or cut out of the result.
//!
//! It exists so that no other part has to distrust image files. Promise: a limit is checked before the memory it guards
//! is allocated, and the same bytes give the same picture, hash and quality on every machine and thread.

pub mod crop;
pub mod decode;
pub mod phash;
pub mod quality;
pub mod sniff;

mod jpeg;
mod luma;
mod mend;
mod orient;
mod tiff;

#[cfg(test)]
mod measure;
#[cfg(test)]
mod tests;

pub use crop::{DeliverSettings, crop, thumbnail};
pub use decode::{Decoded, Header, ImageSettings, decode, peek};
pub use phash::phash;
pub use quality::quality;
