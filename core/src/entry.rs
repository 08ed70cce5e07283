//! What a listing says of one key, and the order keys come in.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// One visible file of a bucket, as a listing shows it.
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
    pub fn compare(self, a: &str, b: &str) -> Ordering {
        let bytes = a.cmp(b);
        if self == Self::Utf16 && orders_differ(a, b) { bytes.reverse() } else { bytes }
    }
}

/// Whether UTF-8 and UTF-16 order put these two keys in a different order.
///
/// At the first byte that differs, a lead byte from F0 (above U+FFFF) stands against EE or EF (U+E000 to U+FFFF).
/// Continuation bytes are below C0, so both bytes are lead bytes.
pub fn orders_differ(a: &str, b: &str) -> bool {
    a.bytes().zip(b.bytes()).find(|(x, y)| x != y).is_some_and(|(x, y)| x.min(y) >= 0xee && (x >= 0xf0) != (y >= 0xf0))
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

    proptest! {
        #[test]
        fn utf16_order_is_the_order_of_code_units(a in "[a\u{d7ff}\u{e000}\u{ffff}😀]{0,4}", b in "[a\u{d7ff}\u{e000}\u{ffff}😀]{0,4}") {
            let expected = a.encode_utf16().cmp(b.encode_utf16());
            prop_assert_eq!(KeyOrder::Utf16.compare(&a, &b), expected);
            prop_assert_eq!(orders_differ(&a, &b), expected != a.cmp(&b));
        }
    }
}
