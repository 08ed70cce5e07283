//! A segment as it is stored: deflated, since names in a bucket are alike in more than what neighbours begin with.
//!
//! Format (`b2P` 1): four bytes of header, then the whole piece as raw DEFLATE (RFC 1951). A blob keeps the name that
//! is the hash of the piece itself, so a poll that finds nothing deflates nothing. A piece that does not become smaller
//! is stored as it is.

use miniz_oxide::{deflate::compress_to_vec, inflate::decompress_to_vec_with_limit};

use super::codec::DecodeError;

const HEADER: [u8; 4] = *b"b2P\x01";
/// The fastest level: higher ones take several times as long for a few hundredths less.
const LEVEL: u8 = 1;
/// A piece is at most this long, in bytes: twice what a segment is.
pub const PLAIN_BYTES_MAX: usize = 2 * super::cut::SEGMENT_BYTES_MAX;

/// A piece as it is to be stored.
pub fn pack(plain: Vec<u8>) -> Vec<u8> {
    let mut packed = HEADER.to_vec();
    packed.extend(compress_to_vec(&plain, LEVEL));
    if packed.len() < plain.len() { packed } else { plain }
}

/// The piece that was stored so, or as it is; `None` for the latter.
///
/// # Errors
/// [`DecodeError`] for what [`pack`] cannot have made of a piece, bounded in memory.
pub fn unpack(stored: &[u8]) -> Result<Option<Vec<u8>>, DecodeError> {
    let Some(packed) = stored.strip_prefix(&HEADER) else { return Ok(None) };
    match decompress_to_vec_with_limit(packed, PLAIN_BYTES_MAX) {
        Ok(plain) => Ok(Some(plain)),
        Err(_) => Err(DecodeError::Truncated),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn unpacked_after_packed_is_the_same(plain in "[ab]{0,4}([a-c/]{1,9}){0,200}") {
            let plain = plain.into_bytes();
            let stored = pack(plain.clone());
            prop_assert!(stored.len() <= plain.len());
            prop_assert_eq!(unpack(&stored).unwrap().unwrap_or(stored), plain);
        }

        #[test]
        fn any_bytes_are_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpack(&[&HEADER, bytes.as_slice()].concat());
        }
    }

    #[test]
    fn what_would_unpack_to_more_than_any_segment_is_an_error() {
        let bomb = pack(vec![0; PLAIN_BYTES_MAX + 1]);
        assert!(bomb.len() < 100_000);
        assert_eq!(unpack(&bomb).unwrap_err(), DecodeError::Truncated);
        assert_eq!(unpack(&pack(vec![0; PLAIN_BYTES_MAX])).unwrap().map(|plain| plain.len()), Some(PLAIN_BYTES_MAX));
    }
}
