//! What a listing says of one key, and the order keys come in.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The largest size of a file, in bytes: what SQL and JSON carry exactly.
pub const SIZE_MAX: u64 = i64::MAX as u64;

/// One visible file of a bucket, as a listing shows it.
///
/// Where the listing says something of a key that cannot be read (a size that is no number), the entry stands for the
/// key alone: [`Self::unreadable`]. Such an entry keeps its place in pages and in the segments of a listing, so that
/// everything before and behind it is read as always. No snapshot and no change ever holds one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The whole key, decoded, from the bucket's root.
    pub key: String,
    /// Opaque, without the quotes: an MD5 for a simple upload, anything else for others.
    pub etag: String,
    /// In bytes.
    pub size: u64,
    /// When the upload *started*; a file may appear long after this time.
    pub last_modified: Timestamp,
}

/// Last modified of an entry that cannot be read. No listing says that time: years have four digits.
const UNREADABLE: Timestamp = Timestamp::from_millis(i64::MIN);

/// Whether an entry with this time cannot be read.
#[inline(always)]
pub(crate) fn is_unreadable_at(last_modified: Timestamp) -> bool {
    last_modified == UNREADABLE
}

impl Entry {
    /// An entry that cannot be read, except for its key; `why` says what is wrong, and stands in for the ETag.
    pub fn unreadable(key: impl Into<String>, why: impl Into<String>) -> Self {
        Self { key: key.into(), etag: why.into(), size: 0, last_modified: UNREADABLE }
    }

    /// As [`EntryRef::is_unreadable`].
    pub fn is_unreadable(&self) -> bool {
        EntryRef::from(self).is_unreadable()
    }
}

/// An [`Entry`] that borrows its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// As [`Entry::key`].
    pub key: &'a str,
    /// As [`Entry::etag`].
    pub etag: &'a str,
    /// As [`Entry::size`].
    pub size: u64,
    /// As [`Entry::last_modified`].
    pub last_modified: Timestamp,
}

impl EntryRef<'_> {
    /// Whether only its key is known: [`Entry::unreadable`].
    #[inline(always)]
    pub fn is_unreadable(&self) -> bool {
        is_unreadable_at(self.last_modified)
    }

    /// A copy that stands alone.
    pub fn to_entry(self) -> Entry {
        Entry {
            key: self.key.to_owned(),
            etag: self.etag.to_owned(),
            size: self.size,
            last_modified: self.last_modified,
        }
    }
}

impl<'a> From<&'a Entry> for EntryRef<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self { key: &entry.key, etag: &entry.etag, size: entry.size, last_modified: entry.last_modified }
    }
}

/// The entries of a page, packed: all their text stands in one buffer, so that a page costs two allocations and not two
/// thousand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryBuffer {
    /// Key and ETag of each entry, one behind the other.
    text: String,
    items: Vec<Item>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    key_end: usize,
    etag_end: usize,
    size: u64,
    last_modified: Timestamp,
}

impl EntryBuffer {
    /// With room for `entries` entries and `text` bytes of keys and ETags.
    pub fn with_capacity(entries: usize, text: usize) -> Self {
        Self { text: String::with_capacity(text), items: Vec::with_capacity(entries) }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Appends an entry.
    pub fn push(&mut self, key: &str, etag: &str, size: u64, last_modified: Timestamp) {
        self.text.push_str(key);
        let key_end = self.text.len();
        self.text.push_str(etag);
        self.items.push(Item { key_end, etag_end: self.text.len(), size, last_modified });
    }

    /// The first entry on whose key's place the orders do not agree, among keys that all begin with the same
    /// `prefix_len` bytes.
    pub fn first_without_one_place(&self, prefix_len: usize) -> Option<EntryRef<'_>> {
        if has_one_place(&self.text) {
            return None;
        }
        self.iter().find(|entry| !has_one_place(entry.key.get(prefix_len..).unwrap_or(entry.key)))
    }

    /// In the order in which they were appended.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = EntryRef<'_>> {
        let mut start = 0;
        self.items.iter().map(move |item| {
            let key = self.text.get(start..item.key_end).unwrap_or_default();
            let etag = self.text.get(item.key_end..item.etag_end).unwrap_or_default();
            start = item.etag_end;
            EntryRef { key, etag, size: item.size, last_modified: item.last_modified }
        })
    }
}

/// An [`EntryBuffer`] in the making, from bytes of which it is not yet known whether they are UTF-8: that is asked
/// once, in the end, for all of them.
#[derive(Debug)]
pub(crate) struct EntryBytes {
    text: Vec<u8>,
    items: Vec<Item>,
}

impl EntryBytes {
    /// With room for `entries` entries and `text` bytes of keys and ETags.
    pub(crate) fn with_capacity(entries: usize, text: usize) -> Self {
        Self { text: Vec::with_capacity(text), items: Vec::with_capacity(entries) }
    }

    /// Appends an entry, whose key `write_key` appends to what it is given; `None` when that does.
    #[inline(always)]
    pub(crate) fn push(
        &mut self,
        write_key: impl FnOnce(&mut Vec<u8>) -> Option<()>,
        etag: &[u8],
        size: u64,
        last_modified: Timestamp,
    ) -> Option<()> {
        write_key(&mut self.text)?;
        let key_end = self.text.len();
        self.text.extend_from_slice(etag);
        self.items.push(Item { key_end, etag_end: self.text.len(), size, last_modified });
        Some(())
    }

    /// The entries; `None` when a key or an ETag is not UTF-8.
    pub(crate) fn finish(self) -> Option<EntryBuffer> {
        let text = String::from_utf8(self.text).ok()?;
        // The whole may be UTF-8 when a part is not: a character that begins in a key and ends in an ETag.
        let whole =
            self.items.iter().all(|item| text.is_char_boundary(item.key_end) && text.is_char_boundary(item.etag_end));
        whole.then_some(EntryBuffer { text, items: self.items })
    }
}

impl<'a> Extend<EntryRef<'a>> for EntryBuffer {
    fn extend<T: IntoIterator<Item = EntryRef<'a>>>(&mut self, entries: T) {
        for entry in entries {
            self.push(entry.key, entry.etag, entry.size, entry.last_modified);
        }
    }
}

impl<'a> FromIterator<EntryRef<'a>> for EntryBuffer {
    fn from_iter<T: IntoIterator<Item = EntryRef<'a>>>(entries: T) -> Self {
        let mut buffer = Self::default();
        buffer.extend(entries);
        buffer
    }
}

/// The order in which a bucket lists its keys. B2 does not document it; the two orders differ only where one key has
/// a character above U+FFFF at the place where the other has one from U+E000 to U+FFFF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyOrder {
    /// No listing has shown a pair of keys that tells.
    #[default]
    Unknown,
    /// By UTF-8 bytes, which is also by code points.
    Utf8,
    /// By UTF-16 code units.
    Utf16,
}

impl KeyOrder {
    /// Compares two keys; while the order is unknown, as if it were UTF-8.
    #[inline]
    pub fn compare(self, a: &str, b: &str) -> Ordering {
        let bytes = compare_bytes(a.as_bytes(), b.as_bytes());
        if self == Self::Utf16 && orders_differ(a, b) { bytes.reverse() } else { bytes }
    }
}

/// `a.cmp(b)`, eight bytes at a time. Neighbours in a listing share most of what they begin with, and a call of
/// `memcmp` costs more than to look for where they part.
#[inline]
fn compare_bytes(a: &[u8], b: &[u8]) -> Ordering {
    let ((a_words, a_rest), (b_words, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut words = a_words.iter().zip(b_words);
    if let Some((a, b)) = words.find(|(a, b)| a != b) {
        return u64::from_be_bytes(*a).cmp(&u64::from_be_bytes(*b));
    }
    match a_words.len().cmp(&b_words.len()) {
        Ordering::Equal => a_rest.cmp(b_rest),
        // Of one there is less than a word left, and less than all of it may be like the other.
        _ => {
            let from = a_words.len().min(b_words.len()) * 8;
            a.get(from..).cmp(&b.get(from..))
        }
    }
}

/// Whether UTF-8 and UTF-16 order put these two keys in a different order.
///
/// At the first byte that differs, a lead byte from F0 (above U+FFFF) stands against EE or EF (U+E000 to U+FFFF).
/// Continuation bytes are below C0, so both bytes are lead bytes.
pub fn orders_differ(a: &str, b: &str) -> bool {
    a.bytes().zip(b.bytes()).find(|(x, y)| x != y).is_some_and(|(x, y)| x.min(y) >= 0xee && (x >= 0xf0) != (y >= 0xf0))
}

/// Whether all orders put this key in the same place among any others: it has no character from U+E000 on.
pub fn has_one_place(key: &str) -> bool {
    // To the end, whatever comes: without a way out, the compiler looks at many bytes at once.
    !key.bytes().fold(false, |found, byte| found | (byte >= 0xee))
}

/// A key below `key` with few keys between, or none: where to begin a listing that is to show `key`.
///
/// It need not exist. It is below `key` in either order of keys.
pub fn just_before(key: &str) -> String {
    let mut chars = key.chars();
    let last = chars.next_back();
    let mut before = chars.as_str().to_owned();
    // What begins with the character before, and the highest there is behind it, is the closest. Only printable ASCII
    // is made use of: it is the same in both orders, and no store refuses it.
    if let Some(last @ '!'..='~') = last
        && key.len() < 1_000
    {
        before.push(char::from_u32(last as u32 - 1).unwrap_or(' '));
        before.push('\u{10fffd}');
    }
    before
}

/// An ETag as a listing's segment keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtagRef<'a> {
    /// The bytes of an MD5 in small letters.
    Md5([u8; 16]),
    /// Any other.
    Text(&'a str),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_orders_differ_above_the_basic_plane_only() {
        let (emoji, fullwidth) = ("a😀", "a\u{ff01}");
        assert!(orders_differ(emoji, fullwidth));
        assert_eq!(KeyOrder::Utf8.compare(emoji, fullwidth), Ordering::Greater);
        assert_eq!(KeyOrder::Utf16.compare(emoji, fullwidth), Ordering::Less);
        assert!(!orders_differ(emoji, "a\u{d7ff}"));
        assert!(!orders_differ("a", "a😀"));
    }

    #[test]
    fn a_buffer_gives_back_what_was_put_in() {
        let entry = |key: &str, etag: &str, size| Entry {
            key: key.to_owned(),
            etag: etag.to_owned(),
            size,
            last_modified: Timestamp::from_millis(7),
        };
        let entries = [entry("a", "", 0), entry("é😀", "etag", 5), entry("z/1", "e", u64::MAX)];
        let buffer: EntryBuffer = entries.iter().map(EntryRef::from).collect();
        assert_eq!(buffer.len(), 3);
        assert_eq!(buffer.iter().map(EntryRef::to_entry).collect::<Vec<_>>(), entries);
    }

    #[test]
    fn bytes_are_entries_only_if_each_text_is_utf8() {
        let entries = |key: &[u8], etag: &[u8]| {
            let mut bytes = EntryBytes::with_capacity(1, 8);
            let write = |text: &mut Vec<u8>| {
                text.extend_from_slice(key);
                Some(())
            };
            bytes.push(write, etag, 1, Timestamp::from_millis(2))?;
            bytes.finish()
        };
        let whole = entries("é".as_bytes(), b"e").unwrap();
        assert_eq!(
            whole,
            EntryBuffer::from_iter([EntryRef {
                key: "é",
                etag: "e",
                size: 1,
                last_modified: Timestamp::from_millis(2)
            }])
        );
        assert_eq!(entries(b"\xc3", b"e"), None);
        assert_eq!(entries(b"\xc3", b"\xa9"), None);
        assert!(EntryBytes::with_capacity(1, 8).push(|_| None, b"e", 1, Timestamp::default()).is_none());
    }

    proptest! {
        #[test]
        fn just_before_is_before_in_both_orders(key in "[a!~ 0/\u{e000}\u{ffff}😀é]{1,6}", other in "[a!~ 0/😀]{1,6}") {
            let before = just_before(&key);
            prop_assert!(KeyOrder::Utf8.compare(&before, &key).is_lt());
            prop_assert!(KeyOrder::Utf16.compare(&before, &key).is_lt());
            // Between the two are only keys that share all but the last character, or that are beyond any real name.
            if key.ends_with(|last: char| last.is_ascii_graphic()) && other > before && other < key {
                prop_assert!(other.contains('\u{10fffd}'), "{before:?} < {other:?} < {key:?}");
            }
        }

        #[test]
        fn bytes_are_compared_as_by_memcmp(
            a in "[ab\u{7f}é]{0,20}",
            b in "[ab\u{7f}é]{0,20}",
            shared in "[a-zé]{0,30}",
        ) {
            prop_assert_eq!(compare_bytes(a.as_bytes(), b.as_bytes()), a.cmp(&b));
            let (a, b) = (format!("{shared}{a}"), format!("{shared}{b}"));
            prop_assert_eq!(compare_bytes(a.as_bytes(), b.as_bytes()), a.cmp(&b));
        }

        #[test]
        fn utf16_order_is_the_order_of_code_units(
            a in "[a\u{d7ff}\u{e000}\u{ffff}😀]{0,4}",
            b in "[a\u{d7ff}\u{e000}\u{ffff}😀]{0,4}",
        ) {
            let expected = a.encode_utf16().cmp(b.encode_utf16());
            prop_assert_eq!(KeyOrder::Utf16.compare(&a, &b), expected);
            prop_assert_eq!(orders_differ(&a, &b), expected != a.cmp(&b));
            prop_assert!(!has_one_place(&a) || expected == a.cmp(&b));
        }
    }
}
