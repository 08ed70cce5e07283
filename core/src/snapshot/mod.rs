//! What a sync last saw and delivered: the sorted set of (key, ETag, size, last modified), in pieces.
//!
//! - [`cut`] decides, from a key alone, where a segment begins;
//! - [`segment`] encodes one immutable segment, named by the hash of its bytes;
//! - [`index`] lists the segments of a snapshot in order;
//! - [`changes`] encodes what is about to be delivered;
//! - [`root`] is the one small document that names the current index, and the checkpoint of the job that works on
//!   the next one.
//!
//! Nothing here reads or writes: the engine does.

pub mod changes;
pub mod codec;
pub mod cut;
pub mod index;
pub mod root;
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
/// bits, in size *and* in last modified is a chance of 2⁻⁶⁴, or somebody hiding a change of their own file from
/// themselves, which an MD5 collision does as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EtagTag(pub [u8; 8]);

impl EtagTag {
    /// Of an ETag without quotes.
    pub fn of(etag: &str) -> Self {
        let mut md5 = [0; 16];
        let mut tag = [0; 8];
        if etag.len() == 32 && hex::decode_to_slice(etag, &mut md5).is_ok() {
            tag.copy_from_slice(md5.first_chunk::<8>().unwrap_or(&[0; 8]));
        } else {
            let hash = blake3::hash(etag.as_bytes());
            tag.copy_from_slice(hash.as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]));
        }
        Self(tag)
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
