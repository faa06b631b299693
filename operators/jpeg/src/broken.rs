//! What is wrong with a file.

use std::fmt;

/// Why a file is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The data end before the picture is complete.
    Cut,
    /// The data contradict themselves or the format.
    Corrupt(&'static str),
    /// A process of the format that is not decoded.
    Unsupported(&'static str),
    /// So many bytes beside the pixels would be needed, more than are allowed.
    TooMuchMemory(u64),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("the data break off before the picture is complete"),
            Self::Corrupt(detail) | Self::Unsupported(detail) => f.write_str(detail),
            Self::TooMuchMemory(bytes) => write!(f, "decoding takes {bytes} bytes beside the pixels"),
        }
    }
}
