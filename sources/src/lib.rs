//! Where sites come from: one file per source.

pub mod folder;
pub mod lines;
pub mod list;
pub mod submit;
pub mod watch;
