//! What a listing says of one key, and the order keys come in.

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
