//! Where a segment begins: decided by a salted hash of the key alone.
//!
//! Because nothing but the key decides, an insertion or a deletion changes the segment it falls into and no other
//! (the idea of prolly trees). The salt is the sync's own secret: file names are hostile input, and without it an
//! uploader could choose names that never, or always, begin a segment.
//!
//! The index is cut the same way: some of the keys that begin a segment begin a *leaf* of the index as well, a run of
//! segments that is itself stored and named by its content. So a whole leaf is compared by one hash.

use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

/// A key begins a segment with a chance of one in this many.
pub const SEGMENT_ENTRIES_MEAN: u64 = 4_096;
/// A segment ends here at the latest, however the keys fall: eight times the mean, which bad luck alone reaches once
/// in 3,000 segments.
pub const SEGMENT_ENTRIES_MAX: usize = 32_768;
/// A segment ends at the latest once its encoding is this long, in bytes: it fits into every store.
pub const SEGMENT_BYTES_MAX: usize = 3 << 19;

/// Of the keys that begin a segment, one in this many begins a leaf of the index too.
pub const LEAF_SEGMENTS_MEAN: u64 = 4;
/// A leaf of the index ends here at the latest, however the keys fall.
pub const LEAF_SEGMENTS_MAX: usize = 32;

/// What a key begins, by its own hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Begins {
    /// Nothing: it goes on with the segment before it.
    Nothing,
    /// A segment.
    Segment,
    /// A leaf of the index, and so a segment.
    Leaf,
}

/// Where the segments of one sync begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    salt: [u8; 16],
    mean: u64,
    entries_max: usize,
}

impl Cut {
    /// With the sync's own salt.
    pub const fn new(salt: [u8; 16]) -> Self {
        Self { salt, mean: SEGMENT_ENTRIES_MEAN, entries_max: SEGMENT_ENTRIES_MAX }
    }

    /// From 32 hexadecimal digits, as the salt is stored.
    pub fn parse(salt: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(salt, &mut bytes).ok()?;
        Some(Self::new(bytes))
    }

    /// The same salt with other sizes: so that a test needs few keys for many segments.
    #[must_use]
    pub const fn with_sizes(self, mean: u64, entries_max: usize) -> Self {
        Self { mean, entries_max, ..self }
    }

    /// What `key` begins, by its own hash.
    pub fn begins(&self, key: &str) -> Begins {
        let mut hasher = SipHasher13::new_with_key(&self.salt);
        hasher.write(key.as_bytes());
        let hash = hasher.finish();
        if !hash.is_multiple_of(self.mean) {
            Begins::Nothing
        } else if (hash / self.mean).is_multiple_of(LEAF_SEGMENTS_MEAN) {
            Begins::Leaf
        } else {
            Begins::Segment
        }
    }

    /// Whether `key` begins a segment, by its own hash.
    pub fn begins_segment(&self, key: &str) -> bool {
        self.begins(key) != Begins::Nothing
    }

    /// Whether a segment of `entries` entries in about `bytes` bytes ends, whatever key comes next.
    pub const fn is_full(&self, entries: usize, bytes: usize) -> bool {
        entries >= self.entries_max || bytes >= SEGMENT_BYTES_MAX
    }

    /// Whether `key` begins a segment behind one that has `entries` entries in about `bytes` bytes.
    pub fn cuts_before(&self, key: &str, entries: usize, bytes: usize) -> bool {
        entries > 0 && (self.is_full(entries, bytes) || self.begins_segment(key))
    }
}

/// Without the salt: it is the sync's secret.
impl std::fmt::Debug for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cut {{ mean: {}, entries_max: {} }}", self.mean, self.entries_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_in_4096_begins_a_segment() {
        let salt = Cut::new([7; 16]);
        let begins = (0..1_000_000).filter(|n| salt.begins_segment(&format!("videos/2024/clip-{n:07}.mp4"))).count();
        // Mean 244, standard deviation 15.6.
        assert!((160..330).contains(&begins), "{begins}");
    }

    #[test]
    fn another_salt_cuts_elsewhere() {
        let begins = |salt: Cut| (0..100_000).filter(|n| salt.begins_segment(&n.to_string())).collect::<Vec<_>>();
        assert_ne!(begins(Cut::new([1; 16])), begins(Cut::new([2; 16])));
    }
}
