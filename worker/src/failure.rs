//! What the platform's failures become.

use b2sync_core::{Error, ErrorKind, Retry};

/// What the platform says when a store, or an object, fails.
pub(crate) fn storage_error(what: &str, error: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Storage,
        format!("The {what} could not be reached: {error}."),
        "Nothing is lost: try again in a moment.",
    )
    .with_retry(Retry::Temporary)
}
