//! Jobs that have found nothing different so far: where they go on, kept by the caller.

use crate::{
    engine::{bookmark::Bookmark, listing::source::Source, previous::Base, step::Step},
    job::JobCounts,
    state::document::SnapshotDocument,
    store::{BlobStore, DocumentStore},
    time::Clock,
};

/// Whether a document is as one that a job found and has not touched.
fn is_untouched(document: &SnapshotDocument) -> bool {
    document.checkpoint.is_none() && document.root.undeleted.is_empty()
}

impl<S: Source, B: BlobStore, D: DocumentStore, C: Clock> Step<'_, S, B, D, C> {
    /// Takes up the caller's bookmark, if it fits.
    pub(in crate::engine) fn open_bookmark(&mut self) -> Option<String> {
        let document = &self.job.stored.document;
        let fits = |it: &&Bookmark| {
            it.is_of(self.spec.listing_id(), self.spec.fingerprint, document) && is_untouched(document)
        };
        let bookmark = self.spec.bookmark.as_ref().filter(fits).filter(|_| self.job.resync.is_none())?;
        self.job.place.covered_to = Some(bookmark.covered_to.clone());
        self.job.counts = bookmark.counts;
        self.spec.seen.join(&bookmark.seen);
        self.job.quiet.leaves_passed = bookmark.leaves;
        bookmark.start_after.clone()
    }

    /// Puts the leaves before the bookmark into the next snapshot; `false`: it is of another snapshot.
    pub(in crate::engine) fn pass_leaves(&mut self, base: &Base) -> bool {
        let passed = self.job.quiet.leaves_passed;
        if passed == 0 {
            return true;
        }
        let Some((passed, left)) = base.leaves.list.split_at_checked(passed) else { return false };
        self.job.next.assembly.leaves.extend_from_slice(passed);
        left.first().map(|leaf| &leaf.first_key) == self.job.place.covered_to.as_ref()
    }

    /// Notes that a leaf that is as before ends here, and what comes next is the first key of another.
    pub(in crate::engine) fn note_bookmark(&mut self, base: &Base) {
        if self.spec.bookmark.is_none() {
            return;
        }
        let next = base.leaves_ahead().first().map(|leaf| &leaf.first_key);
        let place = &self.job.place;
        let (Some(covered_to), Some(mark)) = (place.covered_to.as_ref(), &place.mark) else { return };
        if next == Some(covered_to) {
            self.job.quiet.bookmark = Some(Bookmark {
                listing_id: self.spec.listing_id().to_owned(),
                fingerprint: self.spec.fingerprint.to_owned(),
                generation: self.job.stored.document.root.generation,
                leaves: base.leaves.list.len() - base.leaves_ahead().len(),
                covered_to: covered_to.clone(),
                start_after: mark.start_after.clone(),
                counts: self.job.counts,
                seen: self.spec.seen.record(),
            });
        }
    }

    /// Whether the job has found nothing different, silenced changes included, and stored nothing.
    pub(in crate::engine) fn found_nothing(&self, base: &Base) -> bool {
        let job = &self.job;
        job.outbox.is_empty()
            && job.objects_found == 0
            && job.deletions.found == 0
            && job.counts.of_changes() == JobCounts::default()
            && job.next.assembly.put_bytes() == 0
            && base.leaves.list.starts_with(&job.next.assembly.leaves)
            && job.resync.is_none()
            && self.state.writes() == 0
            && is_untouched(&job.stored.document)
    }

    /// Has the caller keep the latest bookmark of a job that has found nothing, if it is a few leaves behind the one
    /// before; `false`: it is not.
    pub(in crate::engine) fn keep_bookmark(&mut self) -> bool {
        let knows_nothing_new = self.job.place.watch.order == self.job.stored.document.root.order;
        let quiet = &mut self.job.quiet;
        let leaves_min = quiet.leaves_passed + self.spec.thresholds.bookmark_leaves_min;
        let Some(bookmark) = quiet.bookmark.take_if(|it| it.leaves >= leaves_min && knows_nothing_new) else {
            return false;
        };
        quiet.leaves_passed = bookmark.leaves;
        quiet.bookmark_to_keep = Some(bookmark);
        true
    }

    /// Ends the step at the bookmark: what is behind it is read again, and does not count.
    pub(in crate::engine) fn leave_off(&mut self) {
        if let Some(bookmark) = &self.job.quiet.bookmark_to_keep {
            self.job.counts = bookmark.counts;
        }
    }
}
