//! Where a job goes on that has found nothing different so far.

use serde::{Deserialize, Serialize};

use crate::{filter::SeenRecord, job::JobCounts, state::document::SnapshotDocument};

/// Where a job goes on that has found nothing different so far: behind a leaf, all of them up to there being as before.
///
/// The step has stored nothing. The caller keeps this from one step to the next; if it is lost, the job begins again,
/// and nothing else is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bookmark {
    pub(in crate::engine) listing_id: String,
    /// As in [`crate::state::document::Checkpoint::fingerprint`].
    pub(in crate::engine) fingerprint: String,
    /// Of the root that was compared with.
    pub(in crate::engine) generation: u64,
    /// How many of its leaves, from the first on, are as before.
    pub(in crate::engine) leaves: usize,
    /// The first key of the leaf behind them.
    pub(in crate::engine) covered_to: String,
    /// The listing goes on after this key.
    pub(in crate::engine) start_after: Option<String>,
    pub(in crate::engine) counts: JobCounts,
    /// What was seen of the filters, at least up to there.
    pub(in crate::engine) seen: SeenRecord,
}

impl Bookmark {
    /// Whether it is of this listing, and of this snapshot.
    pub(in crate::engine) fn is_of(&self, listing_id: &str, fingerprint: &str, document: &SnapshotDocument) -> bool {
        self.listing_id == listing_id
            && self.fingerprint == fingerprint
            && self.generation == document.root.generation
            && self.leaves > 0
    }
}
