//! Where sites come from: one file per source.

pub mod lines;
pub mod list;
