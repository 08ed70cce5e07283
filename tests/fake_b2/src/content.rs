//! What a file holds: real bytes, or bytes that a seed describes so that a hundred thousand large files cost nothing.

use std::ops::Range;

use bytes::Bytes;
use md5::{Digest as _, Md5};

use crate::virtual_world::mix;

/// The bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Held in memory.
    Held(Bytes),
    /// Computed from `seed` when read.
    Generated {
        /// Decides every byte, and the ETag.
        seed: u64,
        /// In bytes.
        size: u64,
    },
}

impl Content {
    /// In bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Held(bytes) => bytes.len() as u64,
            Self::Generated { size, .. } => *size,
        }
    }

    /// The ETag that a simple upload gets, without quotes: the MD5 of held bytes. Generated content gets 32 hex
    /// digits that depend on seed and size but are no MD5 of anything: reading gigabytes to name them would defeat the
    /// purpose.
    pub fn etag(&self) -> String {
        match self {
            Self::Held(bytes) => hex::encode(Md5::digest(bytes)),
            Self::Generated { seed, size } => {
                format!("{:016x}{:016x}", mix(*seed), mix(seed.rotate_left(32) ^ size.wrapping_add(1)))
            }
        }
    }

    /// The ETag that a finished large upload gets: nothing that can be computed from the bytes.
    pub fn large_etag(&self, serial: u64, parts: u32) -> String {
        format!("{:016x}{:016x}-{parts}", mix(serial), mix(serial ^ self.size()))
    }

    /// The bytes of `range`, cut to what there is.
    pub fn slice(&self, range: Range<u64>) -> Bytes {
        let end = range.end.min(self.size());
        let start = range.start.min(end);
        match self {
            Self::Held(bytes) => bytes.slice(start as usize..end as usize),
            Self::Generated { seed, .. } => {
                let first_word = start / 8;
                let words = (first_word..end.div_ceil(8)).flat_map(|word| mix(seed.wrapping_add(word)).to_le_bytes());
                words.skip((start - first_word * 8) as usize).take((end - start) as usize).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_etag_of_held_bytes_is_their_md5() {
        assert_eq!(Content::Held(Bytes::from_static(b"hello")).etag(), "5d41402abc4b2a76b9719d911017c592");
    }

    #[test]
    fn any_slice_of_generated_content_is_that_slice_of_the_whole() {
        let content = Content::Generated { seed: 7, size: 30 };
        let whole = content.slice(0..u64::MAX);
        assert_eq!(whole.len(), 30);
        for start in 0..=30 {
            for end in start..=30 {
                assert_eq!(content.slice(start..end), whole.slice(start as usize..end as usize), "{start}..{end}");
            }
        }
        assert_ne!(content.etag(), Content::Generated { seed: 8, size: 30 }.etag());
        assert_ne!(content.etag(), Content::Generated { seed: 7, size: 31 }.etag());
    }
}
