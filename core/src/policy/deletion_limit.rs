//! How many deletions a job appends to the feed without confirmation.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// The largest [`DeletionLimit::percent`]: with it no part of a listing is too much, only an empty one is.
pub const DELETION_PERCENT_MAX: u8 = 100;
/// The largest [`DeletionLimit::files`].
pub const DELETION_FILES_MAX: u32 = 10_000_000;

/// A job holds deletions back when more files are gone than both of these allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeletionLimit {
    /// Percentage of the previously known files, at most [`DELETION_PERCENT_MAX`].
    pub percent: u8,
    /// Number of files, at most [`DELETION_FILES_MAX`].
    pub files: u32,
}

impl Default for DeletionLimit {
    fn default() -> Self {
        Self { percent: 50, files: 100 }
    }
}

impl DeletionLimit {
    /// Whether `count` deletions are within the limit, where there were `known` files.
    pub fn allows(self, count: u64, known: u64) -> bool {
        let within_part = u128::from(count) * 100 <= u128::from(known) * u128::from(self.percent);
        self.percent >= DELETION_PERCENT_MAX || count <= u64::from(self.files) || within_part
    }
}

/// Deletions that a job found and did not append, because they are more than the limit allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldBack {
    /// How many.
    pub count: u64,
    /// The keys of the first of them.
    pub keys: Vec<String>,
}

/// The error of a job that found none of `known` files. No limit allows that.
pub(crate) fn empty_listing(known: u64) -> Error {
    Error::new(
        ErrorKind::TooManyDeletions,
        format!("The listing is empty, but {known} files were there before."),
        "Nothing was deleted. Check the key's rights, the source path and the filters; to delete them anyway, run the \
         sync with confirm_deletes=true.",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn more_than_half_and_more_than_a_hundred_is_too_much() {
        let limit = DeletionLimit::default();
        for (count, known, allowed) in [
            (100, 100, true),
            (101, 101, false),
            (101, 202, true),
            (101, 201, false),
            (5_000, 10_000, true),
            (5_001, 10_001, false),
            (u64::MAX, u64::MAX, false),
            (0, 0, true),
        ] {
            assert_eq!(limit.allows(count, known), allowed, "{count} of {known}");
        }
    }

    proptest! {
        #[test]
        fn what_is_more_than_both_is_too_much(
            count: u64,
            known: u64,
            percent in 0u8..100,
            files in 0..=DELETION_FILES_MAX,
        ) {
            let limit = DeletionLimit { percent, files };
            let part = (u128::from(known) * u128::from(percent)) / 100;
            prop_assert_eq!(limit.allows(count, known), u128::from(count) <= part.max(u128::from(files)));
            // A limit of all is no limit, however little was known before.
            let all = DeletionLimit { percent: 100, files };
            prop_assert!(all.allows(count, known));
        }
    }
}
