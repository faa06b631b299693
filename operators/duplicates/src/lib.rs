//! Near-duplicate pictures: which resemble each other by perceptual hash, which of them is detected, and which represent which.

pub mod index;
pub mod near;
pub mod settings;
