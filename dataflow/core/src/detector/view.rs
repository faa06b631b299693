//! A view: one look at one region of a picture, as a detector plans it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::detector::pixel_buffer::{PixelBuffer, Region};
use crate::fault::Fault;

/// The name of a way of looking. Answers say which passes they rest on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pass(Cow<'static, str>);

impl Pass {
    /// The whole picture, at the scale that the settings ask for.
    pub const FULL: Self = Self::named("full");

    /// A pass of this name.
    pub const fn named(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }
}

impl std::fmt::Display for Pass {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

/// The input shape that views are padded to; only views of one shape share a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    /// Width of the tensor.
    pub width: u32,
    /// Height of the tensor.
    pub height: u32,
}

/// One look at one region of a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Which pass it belongs to.
    pub pass: Pass,
    /// The region of the picture that is looked at.
    pub region: Region,
    /// The engine's input for it.
    pub shape: Shape,
    /// Input pixels per picture pixel.
    pub scale: f32,
}

impl View {
    /// The pass `full` over a picture of this size.
    pub fn full((width, height): (u32, u32), shape: Shape, scale: f32) -> Self {
        Self { pass: Pass::FULL, region: Region::whole(width, height), shape, scale }
    }

    /// The pass `full` for an engine that looks at pictures as they are.
    pub fn as_is(width: u32, height: u32) -> Self {
        Self::full((width, height), Shape { width, height }, 1.0)
    }
}

/// The scale at which all of a picture is looked at by these views: the smallest of theirs.
pub fn scale_of<'a>(views: impl Iterator<Item = &'a View>) -> Option<f32> {
    views.map(|view| view.scale).min_by(f32::total_cmp)
}

/// A view with the picture that it looks at.
#[derive(Clone, Debug)]
pub struct PictureView {
    /// All of the picture.
    pub picture: PixelBuffer,
    /// How it is looked at.
    pub view: View,
}

impl PictureView {
    /// The pixels of the view's region.
    pub fn pixels(&self) -> Result<PixelBuffer, Fault> {
        self.picture.part(self.view.region)
    }
}
