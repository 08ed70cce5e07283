//! `ETag` and `If-Match`: a record is changed only if it is still as it was read.
//!
//! The tag of a record stands in its field `etag`, and in the header of the answer that shows it alone.

use serde::Serialize;
use serde_json::Value;

use super::errors::ApiError;

/// What the hash of a record is for, so that no other hash of the same bytes equals it.
const CONTEXT: &str = "b2sync 2026-11 entity tag of a record";
/// Hexadecimal digits of a tag.
const DIGITS: usize = 16;

/// The tag of what a record says, without quotes: 16 hexadecimal digits.
pub(super) fn etag(content: &impl Serialize) -> String {
    // What does not encode has no tag that a client could send.
    let bytes = serde_json::to_vec(content).unwrap_or_default();
    let hash = blake3::Hasher::new_derive_key(CONTEXT).update(&bytes).finalize();
    hash.to_hex().chars().take(DIGITS).collect()
}

/// The header `ETag` of an answer: that of the record that it shows.
pub(super) fn header(answer: &Value) -> Option<String> {
    answer.get("etag")?.as_str().map(|etag| format!("\"{etag}\""))
}

/// What `If-Match` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IfMatch(Option<String>);

impl IfMatch {
    /// From the header.
    pub(super) fn of(header: Option<&str>) -> Self {
        Self(header.map(str::trim).filter(|text| !text.is_empty() && *text != "*").map(str::to_owned))
    }

    /// Checks that the record is one of those that the header names. Tags without quotes are taken too: the field
    /// `etag` has none.
    ///
    /// # Errors
    /// [`ApiError::PreconditionFailed`].
    pub(super) fn check(&self, etag: &str) -> Result<(), ApiError> {
        let Some(asked) = &self.0 else { return Ok(()) };
        let mut tags = asked.split(',').map(|tag| tag.trim().trim_matches('"'));
        if tags.any(|tag| tag == etag) { Ok(()) } else { Err(ApiError::PreconditionFailed { etag: etag.to_owned() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_tag_is_of_the_content() {
        let tag = etag(&("a", 1));
        assert_eq!((tag.len(), &tag), (DIGITS, &etag(&("a", 1))));
        assert_ne!(tag, etag(&("a", 2)));
        assert_eq!(header(&json!({"etag": tag})), Some(format!("\"{tag}\"")));
        assert_eq!(header(&json!({"etag": null})), None);
        assert_eq!(header(&json!([])), None);
    }

    #[test]
    fn what_if_match_names_may_be_changed() {
        for header in [None, Some(""), Some("*"), Some("\"a\""), Some("a"), Some("\"b\", \"a\"")] {
            assert_eq!(IfMatch::of(header).check("a"), Ok(()), "{header:?}");
        }
        // A weak tag never matches.
        for header in ["\"b\"", "W/\"a\"", "\"A\"", "b, c"] {
            let failed = Err(ApiError::PreconditionFailed { etag: "a".to_owned() });
            assert_eq!(IfMatch::of(Some(header)).check("a"), failed, "{header}");
        }
    }
}
