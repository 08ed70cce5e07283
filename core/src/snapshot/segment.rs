//! One immutable piece of a snapshot.
//!
//! Format (`b2S` 1): the number of entries, then for each its key ([`super::codec`]), 8 bytes of [`EtagTag`], its size,
//! and its last modified as the signed difference in milliseconds from the entry before (the first: from 1970).
//! `b2E` 1 is the same with the whole ETag as a text in place of the tag.

use super::{
    EtagTag, Known,
    codec::{DecodeError, Piece, Reader, Writer},
};
use crate::{entry::Entry, time::Timestamp};

fn difference(time: Timestamp, before: Timestamp) -> i64 {
    time.as_millis().wrapping_sub(before.as_millis())
}

fn sum(before: Timestamp, difference: i64) -> Timestamp {
    Timestamp::from_millis(before.as_millis().wrapping_add(difference))
}

/// Encodes a segment. The same entries give the same bytes.
pub fn encode<'a>(entries: impl ExactSizeIterator<Item = &'a Known>) -> Vec<u8> {
    let mut out = Writer::new(Piece::Segment);
    out.number(entries.len() as u64);
    let mut before = Timestamp::default();
    for entry in entries {
        out.key(&entry.key);
        out.raw(&entry.tag.0);
        out.number(entry.size);
        out.signed(difference(entry.last_modified, before));
        before = entry.last_modified;
    }
    out.finish()
}

/// Decodes a segment.
///
/// # Errors
/// For any bytes that [`encode`] cannot have written, bounded in memory.
pub fn decode(bytes: &[u8]) -> Result<Vec<Known>, DecodeError> {
    let mut input = Reader::new(bytes, Piece::Segment)?;
    let count = input.number()?;
    let mut entries = Vec::with_capacity(input.at_most(count / 8));
    let mut before = Timestamp::default();
    for _ in 0..count {
        let key = input.key()?;
        let tag = EtagTag(input.array()?);
        let size = input.number()?;
        before = sum(before, input.signed()?);
        entries.push(Known { key, tag, size, last_modified: before });
    }
    input.finish()?;
    Ok(entries)
}

/// Encodes entries with their whole ETags.
pub fn encode_entries(entries: &[Entry]) -> Vec<u8> {
    let mut out = Writer::new(Piece::Entries);
    out.number(entries.len() as u64);
    let mut before = Timestamp::default();
    for entry in entries {
        out.key(&entry.key);
        out.text(&entry.etag);
        out.number(entry.size);
        out.signed(difference(entry.last_modified, before));
        before = entry.last_modified;
    }
    out.finish()
}

/// Decodes what [`encode_entries`] wrote.
///
/// # Errors
/// As [`decode`].
pub fn decode_entries(bytes: &[u8]) -> Result<Vec<Entry>, DecodeError> {
    let mut input = Reader::new(bytes, Piece::Entries)?;
    let count = input.number()?;
    let mut entries = Vec::with_capacity(input.at_most(count / 8));
    let mut before = Timestamp::default();
    for _ in 0..count {
        let key = input.key()?;
        let etag = input.text()?;
        let size = input.number()?;
        before = sum(before, input.signed()?);
        entries.push(Entry { key, etag, size, last_modified: before });
    }
    input.finish()?;
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let entry = ("[ab/😀]{0,12}", "[0-9a-f]{0,4}|[0-9a-f]{32}(-[0-9]{1,3})?", any::<u64>(), any::<i64>());
        proptest::collection::vec(entry, 0..20).prop_map(|list| {
            list.into_iter()
                .map(|(key, etag, size, time)| Entry { key, etag, size, last_modified: Timestamp::from_millis(time) })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn decode_after_encode_is_the_same(entries in entries()) {
            let known: Vec<_> = entries.iter().map(Known::from).collect();
            prop_assert_eq!(decode(&encode(known.iter())).unwrap(), known);
            prop_assert_eq!(decode_entries(&encode_entries(&entries)).unwrap(), entries);
        }

        #[test]
        fn any_bytes_are_an_answer(bytes: Vec<u8>, header in 0..3) {
            let mut whole = match header { 0 => b"b2S\x01".to_vec(), 1 => b"b2E\x01".to_vec(), _ => Vec::new() };
            whole.extend(bytes);
            let _ = decode(&whole);
            let _ = decode_entries(&whole);
        }

        #[test]
        fn every_cut_is_noticed(entries in entries()) {
            let bytes = encode(entries.iter().map(Known::from).collect::<Vec<_>>().iter());
            for end in 0..bytes.len() {
                prop_assert!(decode(&bytes[..end]).is_err());
            }
        }
    }

    #[test]
    fn a_huge_count_reserves_nothing() {
        let mut bytes = b"b2S\x01".to_vec();
        bytes.extend([0xff; 9]);
        bytes.push(1);
        assert_eq!(decode(&bytes), Err(DecodeError::Truncated));
    }

    #[test]
    fn a_newer_version_is_told_apart() {
        assert_eq!(decode(b"b2S\x02\x00"), Err(DecodeError::Version(2)));
        assert_eq!(decode(b"b2I\x01\x00"), Err(DecodeError::Kind(Piece::Segment)));
    }
}
