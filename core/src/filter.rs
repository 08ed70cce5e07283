//! Which entries a sync takes.

use crate::time::Timestamp;

/// The filters of a sync as its user wrote them. All are ANDed; excludes win. Empty means: no such filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterSpec {
    /// Globs, of which at least one must match. One without `/` matches the base name in any folder, one with `/`
    /// the path from the sync's source root.
    pub include_patterns: Vec<String>,
    /// Globs, of which none may match.
    pub exclude_patterns: Vec<String>,
    /// File name extensions, with or without the dot, in any case.
    pub extensions: Vec<String>,
    /// Smallest size taken, in bytes.
    pub min_size_bytes: Option<u64>,
    /// Largest size taken, in bytes.
    pub max_size_bytes: Option<u64>,
    /// Only files whose last modified is later than this.
    pub modified_after: Option<Timestamp>,
    /// Only files whose last modified is earlier than this.
    pub modified_before: Option<Timestamp>,
    /// MIME types (`image/png`, `image/*`), as guessed from the file name: a listing has none.
    pub mime_types: Vec<String>,
}
