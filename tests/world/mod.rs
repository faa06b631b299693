//! The scripted web: real HTTP servers on loopback that behave, or misbehave, as a test tells them to.
//!
//! Tests of the whole pipeline need a web whose truth is known: which pages and pictures exist, what each answer does at
//! the byte level, and what was asked for. Promise: every byte goes over a real socket, nothing depends on chance, and
//! the [`Log`] knows every request.
//!
//! A test file says `mod world;` and starts with a [`World`]:
//!
//! ```text
//! let web = World::new();
//! let site = web.site();
//! site.page("/", r#"<img src="/busy.jpg">"#);
//! site.put("/busy.jpg", Script::times(2, Answer::status(503)).then(Answer::ok("image/jpeg", photo)));
//! …
//! assert_eq!(web.log().count(&site.url("/busy.jpg")), 3);
//! ```

// Every test file compiles this module anew and uses its own part of it.
#![allow(dead_code, unused_imports)]

mod answer;
pub mod disk;
mod embed;
mod encode;
mod gallery;
mod log;
mod nasty;
mod paint;
mod photos;
mod picture;
pub mod postgres;
mod process;
mod script;
mod server;
mod truth;
pub mod unruly;

pub use answer::Answer;
pub use embed::Embedding;
pub use encode::{Variants, bmp, gif, jpeg, png, tiff, variants, webp, with_orientation};
pub use gallery::{Plan, gallery_web};
pub use log::{Log, Request};
pub use nasty::{gif_bomb, gzip, gzip_bomb, png_bomb};
pub use photos::{photos, rustface_photo};
pub use picture::{MARKER, dhash, find_markers, mark, picture, portrait, shrink};
pub use process::{Ended, Faceflow, Running};
pub use script::Script;
pub use server::{Site, World};
pub use truth::{Gallery, Kind, PageTruth, Place, Placed};
