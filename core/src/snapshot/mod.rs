//! What a sync last saw: the sorted set of (key, ETag, size, last modified), in pieces.
//!
//! - [`cut`] decides, from a key alone, where a segment begins;
//! - [`segment`] encodes one immutable segment, named by the hash of its bytes;
//! - [`index`] lists the segments of a snapshot in order;
//! - [`names`] encodes which blobs are to be deleted;
//! - [`root`] is the one small document that names the current index, the checkpoint of the job that works on the next
//!   one, and the batches of the feed.
//!
//! Nothing here reads or writes: the engine does.

pub mod codec;
pub mod cut;
pub mod index;
pub mod names;
pub mod packed;
pub mod segment;

use std::fmt;

use crate::{
    entry::Entry,
    mutation::{self, Mutation},
    time::Timestamp,
};

/// The name of a stored piece: the BLAKE3 hash of its bytes, which an uploader cannot collide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// Of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// From 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).ok()?;
        Some(Self(hash))
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// 64 bits that stand for an ETag: the first half of an MD5, or of the BLAKE3 hash of any other ETag. The whole ETag
/// would double the size of a snapshot, and only equality is ever asked. That two versions of one key agree in these
/// bits, in size *and* in last modified is a chance of 2⁻⁶⁴, or a user hiding a change of their own file from
/// themselves, which an MD5 collision does as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EtagTag(pub [u8; 8]);

impl EtagTag {
    /// Of an ETag without quotes.
    pub fn of(etag: &str) -> Self {
        if let Ok(digits) = etag.as_bytes().try_into()
            && let Some(md5) = Md5::of_hex(digits)
        {
            return Self(md5.first);
        }
        let mut tag = [0; 8];
        tag.copy_from_slice(blake3::hash(etag.as_bytes()).as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]));
        Self(tag)
    }
}

/// An MD5 by its halves.
pub(crate) struct Md5 {
    pub(crate) first: [u8; 8],
    pub(crate) second: [u8; 8],
    /// Whether it was written without capital letters.
    pub(crate) is_lower_case: bool,
}

impl Md5 {
    /// From 32 hexadecimal digits; `None` if one of them is no digit. Eight digits at a time, because every key of
    /// every page comes through here.
    #[inline]
    pub(crate) fn of_hex(digits: &[u8; 32]) -> Option<Self> {
        const fn all(byte: u8) -> u64 {
            u64::from_ne_bytes([byte; 8])
        }
        /// Whether each byte is a digit: its top bit. No sum carries when no byte is above 127, and one that is ends it
        /// all.
        const fn is_digit(word: u64) -> u64 {
            let lower = word | all(0x20);
            let decimal = word.wrapping_add(all(0x80 - b'0')) & !word.wrapping_add(all(0x7f - b'9'));
            let letter = lower.wrapping_add(all(0x80 - b'a')) & !lower.wrapping_add(all(0x7f - b'f'));
            (decimal | letter) & !word & all(0x80)
        }
        /// Eight digits as the four bytes they stand for.
        const fn value(word: u64) -> u32 {
            // The lower half of a digit, and 9 more for a letter: those have the bit 0x40.
            let nibbles = (word & all(0x0f)) + ((word >> 6) & all(1)) * 9;
            // The first digit of each pair is the lower byte here and the upper half there. Then pairs are drawn
            // together.
            let pairs = ((nibbles << 4) | (nibbles >> 8)) & 0x00ff_00ff_00ff_00ff;
            let fours = (pairs | (pairs >> 8)) & 0x0000_ffff_0000_ffff;
            (fours | (fours >> 16)) as u32
        }
        let (words, _) = digits.as_chunks::<8>();
        let &[a, b, c, d] = words else { return None };
        let [a, b, c, d] = [a, b, c, d].map(u64::from_le_bytes);
        let all_digits = is_digit(a) & is_digit(b) & is_digit(c) & is_digit(d) == all(0x80);
        all_digits.then(|| {
            let half = |low, high| (u64::from(value(high)) << 32 | u64::from(value(low))).to_le_bytes();
            // Digits and small letters have the bit 0x20.
            let is_lower_case = a & b & c & d & all(0x20) == all(0x20);
            Self { first: half(a, b), second: half(c, d), is_lower_case }
        })
    }
}

/// One key as a snapshot knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The whole key.
    pub key: String,
    /// Stands for its ETag.
    pub tag: EtagTag,
    /// In bytes.
    pub size: u64,
    /// As the listing said.
    pub last_modified: Timestamp,
}

impl Known {
    /// Whether the listing still shows this very version.
    pub fn is_version(&self, entry: &Entry) -> bool {
        if mutation::is_on(Mutation::TrustLastModified) {
            return self.last_modified == entry.last_modified;
        }
        self.size == entry.size && self.last_modified == entry.last_modified && self.tag == EtagTag::of(&entry.etag)
    }
}

impl From<&Entry> for Known {
    fn from(entry: &Entry) -> Self {
        Self {
            key: entry.key.clone(),
            tag: EtagTag::of(&entry.etag),
            size: entry.size,
            last_modified: entry.last_modified,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the tag is, said with the crate `hex`.
    fn oracle(etag: &str) -> EtagTag {
        let mut md5 = [0; 16];
        let half = match hex::decode_to_slice(etag, &mut md5) {
            Ok(()) => md5[..8].to_vec(),
            Err(_) => blake3::hash(etag.as_bytes()).as_bytes()[..8].to_vec(),
        };
        EtagTag(half.try_into().unwrap())
    }

    #[test]
    fn every_byte_is_a_digit_or_not() {
        for at in 0..32 {
            for byte in 0..=255 {
                let mut digits = *b"0123456789abcdefABCDEF9876543210";
                digits[at] = byte;
                let found = Md5::of_hex(&digits);
                let bytes = found.as_ref().map(|md5| [md5.first, md5.second].concat());
                assert_eq!(bytes, hex::decode(digits).ok(), "{byte:#x} at {at}");
                assert!(!found.is_some_and(|md5| md5.is_lower_case), "{byte:#x} at {at}");
                digits.make_ascii_lowercase();
                assert!(Md5::of_hex(&digits).is_none_or(|md5| md5.is_lower_case), "{byte:#x} at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_tag_is_half_an_md5_or_a_hash(
            etag in "[0-9a-fA-F]{32}|[0-9a-g]{32}|[0-9a-f]{31,33}(-[0-9]{1,3})?|.{0,32}",
        ) {
            prop_assert_eq!(EtagTag::of(&etag), oracle(&etag));
        }
    }
}
