//! Where sites come from: one file per source, and the small HTTP server that submissions share with metrics.

pub mod folder;
pub mod inbox;
pub mod list;
pub mod serve;
pub mod site_file;
pub mod submit;
mod text_reader;
pub mod watch;
