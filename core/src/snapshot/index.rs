//! The segments of a snapshot, in order.
//!
//! Format (`b2I` 1): the level (0: the items are segments; higher levels, for buckets whose index is itself worth
//! cutting, are reserved), the number of items, then for each its first key, 32 bytes of [`ContentHash`], the number
//! of entries, the sum of their sizes.

use super::{
    ContentHash,
    codec::{DecodeError, Piece, Reader, Writer},
};

/// One segment of a snapshot.
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

/// Encodes an index. The same segments give the same bytes.
pub fn encode(segments: &[SegmentRef]) -> Vec<u8> {
    let mut out = Writer::new(Piece::Index);
    out.number(0);
    out.number(segments.len() as u64);
    for segment in segments {
        out.key(&segment.first_key);
        out.raw(&segment.hash.0);
        out.number(segment.entries);
        out.number(segment.bytes);
    }
    out.finish()
}

/// Decodes an index.
///
/// # Errors
/// For any bytes that [`encode`] cannot have written, bounded in memory.
pub fn decode(bytes: &[u8]) -> Result<Vec<SegmentRef>, DecodeError> {
    let mut input = Reader::new(bytes, Piece::Index)?;
    if input.number()? != 0 {
        return Err(DecodeError::Overflow);
    }
    let count = input.number()?;
    let mut segments = Vec::with_capacity(input.at_most(count / 36));
    for _ in 0..count {
        let first_key = input.key()?;
        let hash = ContentHash(input.array()?);
        let entries = input.number()?;
        let bytes = input.number()?;
        segments.push(SegmentRef { first_key, hash, entries, bytes });
    }
    input.finish()?;
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decode_after_encode_is_the_same(list in proptest::collection::vec(("[ab😀]{0,9}", any::<[u8; 32]>(), any::<u64>(), any::<u64>()), 0..9)) {
            let segments: Vec<_> = list
                .into_iter()
                .map(|(first_key, hash, entries, bytes)| SegmentRef { first_key, hash: ContentHash(hash), entries, bytes })
                .collect();
            let bytes = encode(&segments);
            prop_assert_eq!(decode(&bytes).unwrap(), segments);
            for end in 0..bytes.len() {
                prop_assert!(decode(&bytes[..end]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_an_answer(bytes: Vec<u8>) {
            let _ = decode(&[b"b2I\x01".as_slice(), &bytes].concat());
        }
    }
}
