//! Where a job goes on that has found nothing different so far.

use serde::{Deserialize, Serialize};

use super::{Order, base::Base, run::Run};
use crate::{job::JobCounts, snapshot::root::SnapshotDocument};

/// Where a job goes on that has found nothing different so far: behind a leaf, all of them up to there being as before.
///
/// The step has stored and delivered nothing. Who calls the steps keeps this from one to the next; if it is lost, the job
/// begins anew, and nothing else is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bookmark {
    job_id: String,
    /// As in [`crate::snapshot::root::Checkpoint::fingerprint`].
    fingerprint: String,
    /// Of the root that was compared with.
    generation: u64,
    /// So many of its leaves, from the first on, are as before.
    leaves: usize,
    /// The first key of the leaf behind them.
    covered_to: String,
    /// The listing goes on after this key.
    start_after: Option<String>,
    counts: JobCounts,
}

impl Bookmark {
    /// Whether it is of this job, and of this snapshot.
    fn is_of(&self, order: &Order<'_>, document: &SnapshotDocument) -> bool {
        self.job_id == order.job_id
            && self.fingerprint == order.fingerprint
            && self.generation == document.root.generation
            && self.leaves > 0
    }
}

/// Whether a document is as one that a job found and has not touched.
fn is_untouched(document: &SnapshotDocument) -> bool {
    document.checkpoint.is_none()
        && document.in_doubt.is_none()
        && document.in_doubt_blob.is_none()
        && document.root.undeleted.is_empty()
}

impl Run {
    /// Takes up the order's bookmark, if it fits.
    pub(super) fn open_bookmark(&mut self, order: &Order<'_>) -> Option<String> {
        let fits = |it: &&Bookmark| it.is_of(order, &self.document) && is_untouched(&self.document);
        let bookmark = order.bookmark.as_ref().filter(fits).filter(|_| self.resync.is_none())?;
        self.covered_to = Some(bookmark.covered_to.clone());
        self.counts = bookmark.counts;
        self.leaves_passed = bookmark.leaves;
        bookmark.start_after.clone()
    }

    /// Puts the leaves before the bookmark into the next snapshot; `false`: it is none of this snapshot.
    pub(super) fn pass_leaves(&mut self, base: &Base) -> bool {
        if self.leaves_passed == 0 {
            return true;
        }
        let Some((passed, left)) = base.leaves.list.split_at_checked(self.leaves_passed) else { return false };
        self.assembly.leaves.extend_from_slice(passed);
        left.first().map(|leaf| &leaf.first_key) == self.covered_to.as_ref()
    }

    /// Notes that a leaf that is as before ends here, and what comes next is the first key of another.
    pub(super) fn note_bookmark(&mut self, order: &Order<'_>, base: &Base) {
        if order.bookmark.is_none() {
            return;
        }
        let next = base.leaves_ahead().first().map(|leaf| &leaf.first_key);
        let (Some(covered_to), Some(mark)) = (self.covered_to.as_ref(), &self.mark) else { return };
        if next == Some(covered_to) {
            self.bookmark = Some(Bookmark {
                job_id: order.job_id.to_owned(),
                fingerprint: order.fingerprint.to_owned(),
                generation: self.document.root.generation,
                leaves: base.leaves.list.len() - base.leaves_ahead().len(),
                covered_to: covered_to.clone(),
                start_after: mark.start_after.clone(),
                counts: self.counts,
            });
        }
    }

    /// Whether the job has found nothing different, not even what nobody is told of, and delivered nothing. `writes`: what the
    /// step has stored so far.
    pub(super) fn found_nothing(&self, base: &Base, writes: u64) -> bool {
        self.noted.is_empty()
            && self.objects_found == 0
            && self.deletions_found == 0
            && self.counts.of_deliveries() == JobCounts::default()
            && self.assembly.put_bytes() == 0
            && base.leaves.list.starts_with(&self.assembly.leaves)
            && self.resync.is_none()
            && writes == 0
            && is_untouched(&self.document)
    }

    /// Has the caller keep the latest bookmark of a job that has found nothing, if it is a few leaves behind the one before;
    /// `false`: it is not.
    pub(super) fn keep_bookmark(&mut self, order: &Order<'_>) -> bool {
        let knows_nothing_new = self.watch.order == self.document.root.order;
        let is_far =
            |it: &Bookmark| it.leaves >= self.leaves_passed + order.thresholds.bookmark_leaves_min && knows_nothing_new;
        let Some(bookmark) = self.bookmark.take_if(|it| is_far(it)) else { return false };
        self.leaves_passed = bookmark.leaves;
        self.bookmark_to_keep = Some(bookmark);
        true
    }

    /// Ends the step at the bookmark: what is behind it is read again, and does not count.
    pub(super) fn leave_off(&mut self) {
        if let Some(bookmark) = &self.bookmark_to_keep {
            self.counts = bookmark.counts;
        }
    }
}
