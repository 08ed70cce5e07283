//! The nodes of an index: the segments of a snapshot, in order.
//!
//! A *leaf* lists a run of segments; where a snapshot has more than one leaf, a *top* lists the leaves. A node is named
//! by the hash of its bytes, as a segment is, so a leaf that is equal is neither read nor written.
//!
//! Format (`b2I` 1): the level (0: a leaf; 1: a top), the number of items, then for each its first key, 32 bytes of
//! [`ContentHash`], the number of entries in it, the sum of their sizes.

use super::{
    ContentHash,
    codec::{DecodeError, LEAF_KEYS_BYTES_MAX, LIST_KEYS_BYTES_MAX, Piece, Reader, Writer},
};

/// One segment of a snapshot, or one leaf of its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRef {
    /// The first key in it.
    pub first_key: String,
    /// The hash of its bytes, which is its name.
    pub hash: ContentHash,
    /// How many entries it has.
    pub entries: u64,
    /// The sum of their sizes, in bytes.
    pub bytes: u64,
}

/// What a node lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Segments.
    Leaf = 0,
    /// Leaves.
    Top = 1,
}

/// Encodes a node. The same items give the same bytes.
pub fn encode(level: Level, items: &[SegmentRef]) -> Vec<u8> {
    let mut out = Writer::new(Piece::Index);
    out.number(level as u64);
    out.number(items.len() as u64);
    for item in items {
        out.key(&item.first_key);
        out.raw(&item.hash.0);
        out.number(item.entries);
        out.number(item.bytes);
    }
    out.finish()
}

/// Decodes a node.
///
/// # Errors
/// For any bytes that [`encode`] cannot have written, bounded in memory.
pub fn decode(bytes: &[u8]) -> Result<(Level, Vec<SegmentRef>), DecodeError> {
    let mut input = Reader::new(bytes, Piece::Index, LIST_KEYS_BYTES_MAX)?;
    let level = match input.number()? {
        0 => Level::Leaf,
        1 => Level::Top,
        _ => return Err(DecodeError::Overflow),
    };
    if level == Level::Leaf {
        input.limit_keys(LEAF_KEYS_BYTES_MAX);
    }
    let count = input.number()?;
    let mut items = Vec::with_capacity(input.at_most(count, 36));
    for _ in 0..count {
        let first_key = input.key()?;
        let hash = ContentHash(input.array()?);
        let entries = input.number()?;
        let bytes = input.number()?;
        items.push(SegmentRef { first_key, hash, entries, bytes });
    }
    input.finish()?;
    Ok((level, items))
}

/// The item that stands for a node in the node above it, and the node's bytes; `None` for a node without items.
pub fn node(level: Level, items: &[SegmentRef]) -> Option<(SegmentRef, Vec<u8>)> {
    let first = items.first()?;
    let bytes = encode(level, items);
    let item = SegmentRef {
        first_key: first.first_key.clone(),
        hash: ContentHash::of(&bytes),
        entries: items.iter().fold(0, |sum, item| sum.saturating_add(item.entries)),
        bytes: items.iter().fold(0, |sum, item| sum.saturating_add(item.bytes)),
    };
    Some((item, bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{codec::KEY_BYTES_MAX, cut::LEAF_SEGMENTS_MAX},
        *,
    };

    proptest! {
        #[test]
        fn decode_after_encode_is_the_same(
            top: bool,
            list in proptest::collection::vec(("[ab😀]{0,9}", any::<[u8; 32]>(), any::<u64>(), any::<u64>()), 0..9),
        ) {
            let segments: Vec<_> = list
                .into_iter()
                .map(|(first_key, hash, entries, bytes)| {
                    SegmentRef { first_key, hash: ContentHash(hash), entries, bytes }
                })
                .collect();
            let level = if top { Level::Top } else { Level::Leaf };
            let bytes = encode(level, &segments);
            prop_assert_eq!(decode(&bytes).unwrap(), (level, segments));
            for end in 0..bytes.len() {
                prop_assert!(decode(&bytes[..end]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_an_answer(bytes: Vec<u8>) {
            let _ = decode(&[b"b2I\x01".as_slice(), &bytes].concat());
        }
    }

    #[test]
    fn a_leaf_holds_the_longest_keys_of_its_segments_and_no_more() {
        let items = |count: usize| {
            let first_key = "k".repeat(KEY_BYTES_MAX);
            vec![SegmentRef { first_key, hash: ContentHash([0; 32]), entries: 1, bytes: 1 }; count]
        };
        assert_eq!(decode(&encode(Level::Leaf, &items(LEAF_SEGMENTS_MAX))).unwrap().1.len(), LEAF_SEGMENTS_MAX);
        assert_eq!(decode(&encode(Level::Leaf, &items(LEAF_SEGMENTS_MAX + 1))), Err(DecodeError::Keys));
        let most = LIST_KEYS_BYTES_MAX / KEY_BYTES_MAX;
        assert_eq!(decode(&encode(Level::Top, &items(most))).unwrap().1.len(), most);
        assert_eq!(decode(&encode(Level::Top, &items(most + 1))), Err(DecodeError::Keys));
    }
}
