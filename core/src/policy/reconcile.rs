//! Which changes enter the feed.

use serde::{Deserialize, Serialize};

/// Which changes enter the feed. The snapshot follows the bucket in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reconcile {
    /// Deletions of files that are gone from the bucket.
    pub on_delete: bool,
    /// Updates.
    pub on_update: bool,
    /// Deletions of files that are still there and no longer pass the filters: the filters changed, or the file did.
    /// Where this and `on_delete` differ, a job looks for the files that vanished in the bucket once more.
    pub on_filter_drift: bool,
}

impl Default for Reconcile {
    fn default() -> Self {
        Self { on_delete: true, on_update: true, on_filter_drift: true }
    }
}

impl Reconcile {
    /// Whether some deletions enter the feed.
    pub const fn deletes(self) -> bool {
        self.on_delete || self.on_filter_drift
    }

    /// Whether it matters why a file vanished.
    pub const fn tells_apart(self) -> bool {
        self.on_delete != self.on_filter_drift
    }
}
