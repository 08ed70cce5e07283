//! Bytes in, values out, bounded: the primitives of the stored formats.
//!
//! Every stored piece begins with four bytes: `b2` (0x62 0x32), one for the kind, one for the version of that kind.
//! Integers are LEB128 varints, signed ones zigzag. A key is the number of bytes it shares with the key before it and
//! the rest. A decoder answers an error on any bytes and never reserves memory that the bytes cannot pay for, but for
//! the keys, which have a limit of their own for each piece, in total.

use super::cut::{LEAF_SEGMENTS_MAX, SEGMENT_BYTES_MAX};
use crate::error::{Error, ErrorKind};

/// What a stored piece is: the third byte of its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Piece {
    /// A segment of a snapshot ([`super::segment`]).
    Segment = b'S',
    /// Entries with whole ETags: the part of a segment that a checkpoint holds.
    Entries = b'E',
    /// An index ([`super::index`]).
    Index = b'I',
    /// A batch of the feed ([`crate::feed::batch`]).
    Batch = b'F',
    /// A list of such batches ([`crate::state::feed`]).
    Batches = b'L',
    /// Names of blobs ([`super::names`]).
    Names = b'N',
}

/// The version that this code writes, the fourth byte of the header.
pub const VERSION: u8 = 1;
/// The longest key that is stored, in bytes. B2 allows 1,024; other S3 stores count characters.
pub const KEY_BYTES_MAX: usize = 8 << 10;
/// What all keys of a segment, of a checkpoint's entries or of its deletions take together at most, in bytes: what a
/// key shares with the one before it costs two bytes, and takes all of its length again when it is read. All that the
/// engine writes ends at [`SEGMENT_BYTES_MAX`] and one key more; there is room for 4,096 of B2's longest.
pub const KEYS_BYTES_MAX: usize = 4 << 20;
/// The same of a leaf of the index.
pub const LEAF_KEYS_BYTES_MAX: usize = LEAF_SEGMENTS_MAX * KEY_BYTES_MAX;
/// The same of what is as long as the bucket makes it: of a top of the index, which has one key in about 16,000 (a
/// billion files with names of a kilobyte).
pub const LIST_KEYS_BYTES_MAX: usize = 64 << 20;

const _: () = assert!(SEGMENT_BYTES_MAX + KEY_BYTES_MAX <= KEYS_BYTES_MAX);

/// A stored value does not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The header is not that of the piece that was expected.
    #[error("it is not a stored {0:?}")]
    Kind(Piece),
    /// Written by a newer b2sync.
    #[error("it has version {0}, and this b2sync reads version {VERSION}")]
    Version(u8),
    /// The bytes end too early.
    #[error("it ends too early")]
    Truncated,
    /// Bytes are left over.
    #[error("it has bytes left over")]
    Trailing,
    /// A number is too large for its place.
    #[error("a number in it is too large")]
    Overflow,
    /// A key is not UTF-8, too long, or shares more bytes than there are.
    #[error("a key in it is invalid")]
    Key,
    /// Its keys take more memory than those of any piece that b2sync writes.
    #[error("its keys are too long together")]
    Keys,
    /// A text is not UTF-8.
    #[error("a text in it is not UTF-8")]
    Text,
}

impl DecodeError {
    /// As the public error, naming the stored value.
    pub fn into_error(self, name: &str) -> Error {
        Error::new(
            ErrorKind::StateCorrupt,
            format!("The stored value {name:?} cannot be read: {self}."),
            "Delete the sync and create it again to list the bucket afresh.",
        )
    }
}

/// Appends to a buffer.
#[derive(Clone, Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    key: Vec<u8>,
}

/// How many bytes two keys begin with that are the same, eight at a time.
fn shared_length(a: &[u8], b: &[u8]) -> usize {
    let ((a_words, _), (b_words, _)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut shared = 0;
    for (a, b) in a_words.iter().zip(b_words) {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return shared + (differ.trailing_zeros() / 8) as usize;
        }
        shared += 8;
    }
    shared + a.iter().zip(b).skip(shared).take_while(|(a, b)| a == b).count()
}

impl Writer {
    /// Begins a piece.
    pub fn new(piece: Piece) -> Self {
        Self { bytes: vec![b'b', b'2', piece as u8, VERSION], key: Vec::new() }
    }

    /// Begins what stands behind the header and the number of items of a piece.
    pub fn body() -> Self {
        Self { bytes: Vec::new(), key: Vec::new() }
    }

    /// Appends a varint.
    pub fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// Appends a signed varint.
    pub fn signed(&mut self, value: i64) {
        self.number(((value << 1) ^ (value >> 63)) as u64);
    }

    /// Appends bytes of a length that the reader knows.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends a text with its length.
    pub fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.raw(text.as_bytes());
    }

    /// Appends a key: what it shares with the one before, and the rest.
    pub fn key(&mut self, key: &str) {
        let shared = shared_length(&self.key, key.as_bytes());
        let rest = key.as_bytes().get(shared..).unwrap_or_default();
        self.number(shared as u64);
        self.number(rest.len() as u64);
        self.bytes.extend_from_slice(rest);
        // Only what differs is copied. Bytes, not text: `shared` may end within a character.
        self.key.truncate(shared);
        self.key.extend_from_slice(rest);
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The whole piece.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads what a [`Writer`] wrote.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    key: Vec<u8>,
    keys_bytes_left: usize,
}

impl<'a> Reader<'a> {
    /// Checks the header. All keys may be `keys_bytes_max` long together.
    ///
    /// # Errors
    /// [`DecodeError::Kind`] or [`DecodeError::Version`].
    pub fn new(bytes: &'a [u8], piece: Piece, keys_bytes_max: usize) -> Result<Self, DecodeError> {
        match bytes.split_first_chunk::<4>() {
            Some(([b'b', b'2', kind, VERSION], rest)) if *kind == piece as u8 => {
                Ok(Self { bytes: rest, key: Vec::new(), keys_bytes_left: keys_bytes_max })
            }
            Some(([b'b', b'2', kind, version], _)) if *kind == piece as u8 => Err(DecodeError::Version(*version)),
            _ => Err(DecodeError::Kind(piece)),
        }
    }

    /// Reads a varint.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], [`DecodeError::Overflow`].
    pub fn number(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.bytes.split_first().ok_or(DecodeError::Truncated)?;
            self.bytes = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::Overflow);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Overflow)
    }

    /// Reads a signed varint.
    ///
    /// # Errors
    /// As [`Reader::number`].
    pub fn signed(&mut self) -> Result<i64, DecodeError> {
        let value = self.number()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Reads `length` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn raw(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(length).map_err(|_| DecodeError::Truncated)?;
        let (head, rest) = self.bytes.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.bytes = rest;
        Ok(head)
    }

    /// Reads `N` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.bytes.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.bytes = rest;
        Ok(*head)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], [`DecodeError::Text`].
    pub fn text(&mut self) -> Result<String, DecodeError> {
        let length = self.number()?;
        let bytes = self.raw(length)?;
        Ok(std::str::from_utf8(bytes).map_err(|_| DecodeError::Text)?.to_owned())
    }

    /// All keys from here on may be `keys_bytes_max` long together.
    pub fn limit_keys(&mut self, keys_bytes_max: usize) {
        self.keys_bytes_left = keys_bytes_max;
    }

    /// Reads a key.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], [`DecodeError::Key`], [`DecodeError::Keys`].
    pub fn key(&mut self) -> Result<String, DecodeError> {
        Ok(self.key_in_place()?.to_owned())
    }

    /// Reads a key, which is there until the next one is read.
    ///
    /// # Errors
    /// As [`Reader::key`].
    pub fn key_in_place(&mut self) -> Result<&str, DecodeError> {
        let shared = usize::try_from(self.number()?).map_err(|_| DecodeError::Key)?;
        let length = self.number()?;
        if shared > self.key.len() || length > KEY_BYTES_MAX as u64 || shared > KEY_BYTES_MAX {
            return Err(DecodeError::Key);
        }
        let rest = self.raw(length)?;
        self.key.truncate(shared);
        self.key.extend_from_slice(rest);
        if self.key.len() > KEY_BYTES_MAX {
            return Err(DecodeError::Key);
        }
        self.keys_bytes_left = self.keys_bytes_left.checked_sub(self.key.len()).ok_or(DecodeError::Keys)?;
        std::str::from_utf8(&self.key).map_err(|_| DecodeError::Key)
    }

    /// How many items there can be at most, when each takes at least this many bytes: what a count read from the bytes
    /// may reserve.
    pub fn at_most(&self, count: u64, item_bytes_min: usize) -> usize {
        usize::try_from(count).unwrap_or(usize::MAX).min(self.bytes.len() / item_bytes_min.max(1))
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`].
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_two_keys_share_is_counted_in_bytes(a in "[aé]{0,20}", b in "[aé]{0,20}", same in "[ab😀]{0,20}") {
            let (a, b) = (format!("{same}{a}"), format!("{same}{b}"));
            let expected = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
            prop_assert_eq!(shared_length(a.as_bytes(), b.as_bytes()), expected);
            prop_assert_eq!(shared_length(b.as_bytes(), a.as_bytes()), expected);
        }

        #[test]
        fn keys_are_read_until_they_are_too_long_together(
            keys in proptest::collection::vec("(aaaaaaaa){0,9}[aé]{0,9}", 0..30),
            keys_bytes_max in 0usize..600,
        ) {
            let mut out = Writer::new(Piece::Segment);
            keys.iter().for_each(|key| out.key(key));
            let bytes = out.finish();
            let mut input = Reader::new(&bytes, Piece::Segment, keys_bytes_max).unwrap();
            let mut together = 0;
            for key in &keys {
                together += key.len();
                if together > keys_bytes_max {
                    prop_assert_eq!(input.key(), Err(DecodeError::Keys));
                    return Ok(());
                }
                prop_assert_eq!(&input.key().unwrap(), key);
            }
            prop_assert_eq!(input.finish(), Ok(()));
        }

        #[test]
        fn keys_are_written_as_documented(keys in proptest::collection::vec("[aé]{0,20}", 0..6)) {
            let (mut out, mut before) = (Writer::new(Piece::Segment), String::new());
            let mut expected = b"b2S\x01".to_vec();
            for key in keys {
                let shared = before.bytes().zip(key.bytes()).take_while(|(a, b)| a == b).count();
                // Both below 128: varints of one byte.
                expected.extend([shared as u8, (key.len() - shared) as u8]);
                expected.extend(&key.as_bytes()[shared..]);
                out.key(&key);
                before = key;
            }
            prop_assert_eq!(out.finish(), expected);
        }
    }
}
