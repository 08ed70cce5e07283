//! One immutable piece of a snapshot.
//!
//! Format (`b2S` 1): the number of entries, then for each its key ([`super::codec`]), 8 bytes of [`EtagTag`], its size,
//! and its last modified as the signed difference in milliseconds from the entry before (the first: from 1970).
//! `b2E` 1 is the same with the whole ETag as a text in place of the tag.

use super::{
    ContentHash, EtagTag, Known,
    codec::{DecodeError, KEYS_BYTES_MAX, Piece, Reader, Writer},
    cut::SEGMENT_ENTRIES_MAX,
    index::SegmentRef,
};
use crate::{entry::Entry, time::Timestamp};

fn difference(time: Timestamp, before: Timestamp) -> i64 {
    time.as_millis().wrapping_sub(before.as_millis())
}

fn sum(before: Timestamp, difference: i64) -> Timestamp {
    Timestamp::from_millis(before.as_millis().wrapping_add(difference))
}

/// Bytes that an entry takes at most besides its key, encoded.
const ENTRY_BYTES_MAX: usize = 48;

/// A segment as it grows, entry by entry.
#[derive(Clone, Debug)]
pub struct Builder {
    body: Writer,
    before: Timestamp,
    first_key: Option<String>,
    entries: usize,
    bytes: u64,
    weight: usize,
}

impl Default for Builder {
    fn default() -> Self {
        Self { body: Writer::body(), before: Timestamp::default(), first_key: None, entries: 0, bytes: 0, weight: 0 }
    }
}

impl Builder {
    /// Appends an entry.
    pub fn push(&mut self, key: &str, tag: EtagTag, size: u64, last_modified: Timestamp) {
        if self.first_key.is_none() {
            self.first_key = Some(key.to_owned());
        }
        self.body.key(key);
        self.body.raw(&tag.0);
        self.body.number(size);
        self.body.signed(difference(last_modified, self.before));
        self.before = last_modified;
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(size);
        self.weight += key.len() + ENTRY_BYTES_MAX;
    }

    /// The first key.
    pub fn first_key(&self) -> Option<&str> {
        self.first_key.as_deref()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// What the encoding takes at most, in bytes: what [`super::cut::Cut::is_full`] asks.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// The finished segment and its bytes; `None` when there is no entry.
    pub fn finish(self) -> Option<(SegmentRef, Vec<u8>)> {
        let mut out = Writer::new(Piece::Segment);
        out.number(self.entries as u64);
        out.raw(&self.body.finish());
        let bytes = out.finish();
        let segment = SegmentRef {
            first_key: self.first_key?,
            hash: ContentHash::of(&bytes),
            entries: self.entries as u64,
            bytes: self.bytes,
        };
        Some((segment, bytes))
    }
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

/// How many entries there are: never more than a segment has.
fn count(input: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let count = input.number()?;
    if count <= SEGMENT_ENTRIES_MAX as u64 { Ok(count) } else { Err(DecodeError::Overflow) }
}

/// Decodes a segment.
///
/// # Errors
/// For any bytes that [`encode`] cannot have written, bounded in memory.
pub fn decode(bytes: &[u8]) -> Result<Vec<Known>, DecodeError> {
    let mut input = Reader::new(bytes, Piece::Segment, KEYS_BYTES_MAX)?;
    let count = count(&mut input)?;
    let mut entries = Vec::with_capacity(input.at_most(count, 12));
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

/// Reads the entries of a segment one by one: key, tag, size, last modified.
///
/// # Errors
/// As [`decode`]; that of `take`.
pub fn for_each(
    bytes: &[u8],
    mut take: impl FnMut(&str, EtagTag, u64, Timestamp) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut input = Reader::new(bytes, Piece::Segment, KEYS_BYTES_MAX)?;
    let count = count(&mut input)?;
    let mut before = Timestamp::default();
    let mut key = String::new();
    for _ in 0..count {
        key.clear();
        key.push_str(input.key_in_place()?);
        let tag = EtagTag(input.array()?);
        let size = input.number()?;
        before = sum(before, input.signed()?);
        take(&key, tag, size, before)?;
    }
    input.finish()
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
    let mut input = Reader::new(bytes, Piece::Entries, KEYS_BYTES_MAX)?;
    let count = count(&mut input)?;
    let mut entries = Vec::with_capacity(input.at_most(count, 5));
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

    use super::{super::codec::KEY_BYTES_MAX, *};

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
            prop_assert_eq!(&decode(&encode(known.iter())).unwrap(), &known);
            let mut builder = Builder::default();
            for known in &known {
                builder.push(&known.key, known.tag, known.size, known.last_modified);
            }
            let built = builder.finish();
            prop_assert_eq!(built.is_none(), known.is_empty());
            if let Some((segment, bytes)) = built {
                prop_assert_eq!(&bytes, &encode(known.iter()));
                prop_assert_eq!(segment.hash, ContentHash::of(&bytes));
                prop_assert_eq!(segment.entries, known.len() as u64);
            }
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
        assert_eq!(decode(&bytes), Err(DecodeError::Overflow));
        let most = [b"b2S\x01".as_slice(), &[0x80, 0x80, 2]].concat();
        assert_eq!(decode(&most), Err(DecodeError::Truncated));
    }

    /// That many of the longest keys, all alike: two bytes each.
    fn longest_keys(count: usize) -> Vec<Entry> {
        let key = "k".repeat(KEY_BYTES_MAX);
        vec![Entry { key, etag: String::new(), size: 0, last_modified: Timestamp::default() }; count]
    }

    #[test]
    fn keys_that_are_too_long_together_are_refused() {
        let most = KEYS_BYTES_MAX / KEY_BYTES_MAX;
        let encoded = |count| encode(longest_keys(count).iter().map(Known::from).collect::<Vec<_>>().iter());
        assert_eq!(decode(&encoded(most)).unwrap().len(), most);
        assert_eq!(decode(&encoded(most + 1)), Err(DecodeError::Keys));
        assert_eq!(decode_entries(&encode_entries(&longest_keys(most))).unwrap().len(), most);
        assert_eq!(decode_entries(&encode_entries(&longest_keys(most + 1))), Err(DecodeError::Keys));
    }

    #[test]
    fn a_newer_version_is_told_apart() {
        assert_eq!(decode(b"b2S\x02\x00"), Err(DecodeError::Version(2)));
        assert_eq!(decode(b"b2I\x01\x00"), Err(DecodeError::Kind(Piece::Segment)));
    }
}
