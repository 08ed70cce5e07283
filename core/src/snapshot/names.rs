//! Names of blobs, many of them in few bytes: those that no snapshot names any more, and those that a job looked into.
//!
//! Format (`b2N` 1): a number that makes the list another than all before it, the number of names, then for each one
//! byte for its folder (1 segment, 2 index, 3 scratch, 4 feed) and the 32 bytes of its hash.

use std::fmt;

use super::{
    ContentHash,
    codec::{DecodeError, Piece, Reader, Writer},
};

/// What a blob holds: what stands before the `/` in its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Folder {
    /// A segment.
    Segment = 1,
    /// A node of an index.
    Index = 2,
    /// What only checkpoints and lists name.
    Scratch = 3,
    /// A batch of the feed, or a list of batches.
    Feed = 4,
}

/// The name of a blob: `segment/`, `index/`, `scratch/` or `feed/`, and the hash of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobName {
    /// What it holds.
    pub folder: Folder,
    /// The hash of its bytes.
    pub hash: ContentHash,
}

impl BlobName {
    /// Of a segment.
    pub const fn segment(hash: ContentHash) -> Self {
        Self { folder: Folder::Segment, hash }
    }

    /// Of a node of an index.
    pub const fn node(hash: ContentHash) -> Self {
        Self { folder: Folder::Index, hash }
    }

    /// Of a batch of the feed.
    pub const fn feed(hash: ContentHash) -> Self {
        Self { folder: Folder::Feed, hash }
    }

    /// From a name as it is written; `None` for any other text.
    ///
    /// ```
    /// use b2sync_core::snapshot::names::BlobName;
    /// let name = format!("segment/{}", "0f".repeat(32));
    /// assert_eq!(BlobName::parse(&name).map(|name| name.to_string()), Some(name));
    /// assert_eq!(BlobName::parse("segment/1"), None);
    /// ```
    pub fn parse(name: &str) -> Option<Self> {
        let (folder, hash) = name.split_once('/')?;
        let folder = match folder {
            "segment" => Folder::Segment,
            "index" => Folder::Index,
            "scratch" => Folder::Scratch,
            "feed" => Folder::Feed,
            _ => return None,
        };
        Some(Self { folder, hash: ContentHash::parse(hash)? })
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = match self.folder {
            Folder::Segment => "segment",
            Folder::Index => "index",
            Folder::Scratch => "scratch",
            Folder::Feed => "feed",
        };
        write!(f, "{folder}/{}", self.hash)
    }
}

/// Encodes names.
pub fn encode(salt: u64, names: &[BlobName]) -> Vec<u8> {
    let mut out = Writer::new(Piece::Names);
    out.number(salt);
    out.number(names.len() as u64);
    for name in names {
        out.raw(&[name.folder as u8]);
        out.raw(&name.hash.0);
    }
    out.finish()
}

/// Decodes names.
///
/// # Errors
/// For any bytes that [`encode`] cannot have written, bounded in memory.
pub fn decode(bytes: &[u8]) -> Result<Vec<BlobName>, DecodeError> {
    let mut input = Reader::new(bytes, Piece::Names, 0)?;
    input.number()?;
    let count = input.number()?;
    let mut names = Vec::with_capacity(input.at_most(count, 33));
    for _ in 0..count {
        let folder = match input.array()? {
            [1] => Folder::Segment,
            [2] => Folder::Index,
            [3] => Folder::Scratch,
            [4] => Folder::Feed,
            _ => return Err(DecodeError::Overflow),
        };
        names.push(BlobName { folder, hash: ContentHash(input.array()?) });
    }
    input.finish()?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decode_after_encode_is_the_same(
            salt: u64,
            list in proptest::collection::vec((0..4usize, any::<[u8; 32]>()), 0..9),
        ) {
            let names: Vec<_> = list
                .into_iter()
                .map(|(folder, hash)| {
                    let folder = [Folder::Segment, Folder::Index, Folder::Scratch, Folder::Feed][folder];
                    BlobName { folder, hash: ContentHash(hash) }
                })
                .collect();
            let bytes = encode(salt, &names);
            prop_assert_eq!(decode(&bytes).unwrap(), names.clone());
            for end in 0..bytes.len() {
                prop_assert!(decode(&bytes[..end]).is_err());
            }
            for name in names {
                prop_assert_eq!(BlobName::parse(&name.to_string()), Some(name));
            }
        }

        #[test]
        fn any_bytes_are_an_answer(bytes: Vec<u8>) {
            let _ = decode(&[b"b2N\x01".as_slice(), &bytes].concat());
        }
    }
}
