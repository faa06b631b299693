//! Perceptual hashes: of which kind and version, the bits, and whether they say anything.
//!
//! Promise: hashes are compared only with hashes of the same kind and version; to others there is no distance.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How a hash is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashKind {
    /// 64 bits: which of the 8 by 8 lowest coefficients of a DCT of the luma are above their median ("pHash").
    Dct64,
}

impl HashKind {
    /// Every kind.
    pub const ALL: [Self; 1] = [Self::Dct64];

    /// Its name, as ledgers hold it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dct64 => "dct64",
        }
    }

    /// The kind of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The version that is made today. It changes whenever the same picture would get other bits.
    pub fn version(self) -> u16 {
        match self {
            Self::Dct64 => 1,
        }
    }
}

/// Bits of a hash: 8 to 256 of them, whole bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HashBits {
    /// The first bits first; zero after the last.
    bytes: [u8; Self::BYTES_MAX],
    len: u8,
}

impl HashBits {
    const BYTES_MAX: usize = 32;

    /// The bits of these bytes; `None` if there are none or too many.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let mut all = [0; Self::BYTES_MAX];
        let len = u8::try_from(bytes.len()).ok().filter(|len| *len > 0)?;
        all.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self { bytes: all, len })
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The bits of a hash of 64.
    pub fn as_u64(&self) -> Option<u64> {
        self.as_bytes().try_into().ok().map(u64::from_be_bytes)
    }
}

impl From<u64> for HashBits {
    fn from(bits: u64) -> Self {
        let mut bytes = [0; Self::BYTES_MAX];
        bytes[..8].copy_from_slice(&bits.to_be_bytes());
        Self { bytes, len: 8 }
    }
}

impl From<HashBits> for String {
    fn from(bits: HashBits) -> Self {
        bits.to_string()
    }
}

impl TryFrom<String> for HashBits {
    type Error = &'static str;

    /// Reads hexadecimal digits.
    fn try_from(hex: String) -> Result<Self, Self::Error> {
        let digit = |byte: &u8| (*byte as char).to_digit(16).map(|digit| digit as u8);
        let digits: Option<Vec<u8>> = hex.as_bytes().iter().map(digit).collect();
        let bytes = digits.filter(|digits| digits.len() % 2 == 0).map(|digits| {
            let pairs = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]);
            pairs.collect::<Vec<u8>>()
        });
        bytes.and_then(|bytes| Self::of_bytes(&bytes)).ok_or("a hash is 2 to 64 hexadecimal digits, two for each byte")
    }
}

impl fmt::Display for HashBits {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for HashBits {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

/// A perceptual hash of a picture's displayed pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PerceptualHash {
    /// How it was made.
    pub kind: HashKind,
    /// By which version of that.
    pub version: u16,
    /// The bits.
    pub bits: HashBits,
    /// Whether the picture has enough structure for the bits to mean something; a flat picture never matches another.
    pub distinctive: bool,
}

impl PerceptualHash {
    /// A hash of 64 bits as it is made today.
    pub fn dct64(bits: u64, distinctive: bool) -> Self {
        let kind = HashKind::Dct64;
        Self { kind, version: kind.version(), bits: bits.into(), distinctive }
    }

    /// Hamming distance in bits; `None` between hashes of different kinds or versions.
    pub fn distance(&self, other: &Self) -> Option<u32> {
        let (one, two) = (self.bits.as_bytes(), other.bits.as_bytes());
        let comparable = (self.kind, self.version, one.len()) == (other.kind, other.version, two.len());
        comparable.then(|| one.iter().zip(two).map(|(one, two)| (one ^ two).count_ones()).sum())
    }
}

/// The perceptual hashes of a picture, one of each kind and version, in the order of these.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<PerceptualHash>")]
pub struct Hashes(Arc<[PerceptualHash]>);

impl Hashes {
    /// The hash of a kind as it is made today, if the picture has one.
    pub fn current(&self, kind: HashKind) -> Option<&PerceptualHash> {
        self.0.iter().find(|hash| hash.kind == kind && hash.version == kind.version())
    }

    /// The newest hash of a kind.
    pub fn newest(&self, kind: HashKind) -> Option<&PerceptualHash> {
        self.0.iter().rev().find(|hash| hash.kind == kind)
    }

    /// Every hash.
    pub fn iter(&self) -> impl Iterator<Item = &PerceptualHash> {
        self.0.iter()
    }
}

impl From<Vec<PerceptualHash>> for Hashes {
    /// Of several of one kind and version the first one stays.
    fn from(mut hashes: Vec<PerceptualHash>) -> Self {
        hashes.sort_by_key(|hash| (hash.kind, hash.version));
        hashes.dedup_by_key(|hash| (hash.kind, hash.version));
        Self(hashes.into())
    }
}

impl From<PerceptualHash> for Hashes {
    fn from(hash: PerceptualHash) -> Self {
        Self(Arc::new([hash]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_compared_with_their_own_kind_and_version_only() {
        let one = PerceptualHash::dct64(0b1011, true);
        assert_eq!(one.distance(&PerceptualHash::dct64(0b0010, false)), Some(2));
        assert_eq!(one.distance(&PerceptualHash { version: 0, ..one }), None);
        let longer = HashBits::of_bytes(&[0; 32]).expect("is no longer than may be");
        assert_eq!(one.distance(&PerceptualHash { bits: longer, ..one }), None);
    }

    #[test]
    fn a_picture_has_one_hash_of_each_kind_and_version() {
        let today = PerceptualHash::dct64(1, true);
        let old = PerceptualHash { version: 0, bits: 2.into(), distinctive: false, ..today };
        let hashes = Hashes::from(vec![today, PerceptualHash { bits: 3.into(), ..today }, old]);
        assert_eq!(hashes.iter().collect::<Vec<_>>(), [&old, &today]);
        assert_eq!((hashes.current(HashKind::Dct64), hashes.newest(HashKind::Dct64)), (Some(&today), Some(&today)));
        let old_alone = Hashes::from(old);
        assert_eq!((old_alone.current(HashKind::Dct64), old_alone.newest(HashKind::Dct64)), (None, Some(&old)));
    }

    #[test]
    fn bits_survive_text_and_bytes() {
        let bits = HashBits::from(0x0123_4567_89ab_cdef);
        assert_eq!((bits.to_string().as_str(), bits.as_u64()), ("0123456789abcdef", Some(0x0123_4567_89ab_cdef)));
        assert_eq!(HashBits::try_from(bits.to_string()), Ok(bits));
        assert_eq!(HashBits::of_bytes(bits.as_bytes()), Some(bits));
        for wrong in ["", "0", "0g", "é0", &"0".repeat(66)] {
            assert!(HashBits::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
        assert_eq!((HashBits::of_bytes(&[]), HashBits::of_bytes(&[0; 33])), (None, None));
        assert_eq!(HashBits::of_bytes(&[1, 2]).and_then(|bits| bits.as_u64()), None);
        for kind in HashKind::ALL {
            assert_eq!(HashKind::of_name(kind.name()), Some(kind));
            assert_eq!(serde_json::to_value(kind).ok(), Some(kind.name().into()));
        }
    }
}
