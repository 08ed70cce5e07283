//! How a job goes on in another step: from memory, from a bookmark, or from a checkpoint.

pub mod checkpoint;
mod quiet;
pub mod settle;

use std::ops::ControlFlow;

use self::settle::end_checkpoint;
use super::{
    listing::{Open, source::Source},
    step::Step,
};
use crate::{
    engine::job::Paused,
    error::Error,
    job::Phase,
    policy::HeldBack,
    state::document::{Checkpoint, Resync},
    store::{BlobStore, DocumentStore},
    time::Clock,
};

/// Where a step takes the job up.
pub(super) enum Resumed {
    /// The listing is read.
    Listed,
    /// Behind the last key that was listed, with the segment that is not complete.
    At { open: Open },
    /// Where the previous step stopped.
    Paused(Box<Paused>),
}

impl<S: Source, B: BlobStore, D: DocumentStore, C: Clock> Step<'_, S, B, D, C> {
    /// Reads where the job is; `Break`: it is done.
    pub(super) async fn take_up(&mut self) -> Result<ControlFlow<(), Resumed>, Error> {
        let spec = self.spec;
        let stored = &mut self.job.stored;
        (stored.document, stored.revision) = self.state.load_document().await?;
        stored.is_known = true;
        stored.known_before = stored.document.root.entries;
        stored.last_before = stored.document.feed.last();
        let is_mine = |id: &str, mine: &str, fingerprint: &str| id == mine && fingerprint == spec.fingerprint;
        let done = stored.document.root.job.clone();
        if let Some(done) = done.filter(|it| is_mine(&it.job_id, spec.job_id, &it.fingerprint)) {
            // The root was moved, and the caller was cut off before it heard of that.
            stored.known_before = done.known_before;
            self.job.counts = done.counts;
            spec.seen.join(&done.seen);
            self.job.place.limited = done.limited;
            self.job.phase = Phase::Done;
            if done.deletions_held > 0 {
                let keys = self.keys_beside(&self.job.stored.document.root.undeleted).await?;
                self.job.deletions.held_back = Some(HeldBack { count: done.deletions_held, keys });
            }
            return Ok(ControlFlow::Break(()));
        }
        let begun = stored.document.checkpoint.as_ref();
        if let Some(ended) = begun.filter(|it| !is_mine(&it.listing_id, spec.listing_id(), &it.fingerprint)) {
            // Under other filters the job begins again, and what it has appended counts.
            let again = (ended.job_id == spec.job_id).then(|| Checkpoint {
                job_id: spec.job_id.to_owned(),
                listing_id: spec.listing_id().to_owned(),
                fingerprint: spec.fingerprint.to_owned(),
                counts: ended.counts.of_changes(),
                objects_found: ended.objects_found,
                order: ended.order,
                ..Checkpoint::default()
            });
            // A copy: should this fail, the step still tells how things stand.
            let document = stored.document.clone();
            (stored.document, stored.revision) =
                end_checkpoint(&self.state, spec.cut, document, stored.revision, again).await?;
            stored.known_before = stored.document.root.entries;
        }
        self.job.resync = match &stored.document.root.resync {
            _ if spec.resync => Some(Resync { job_id: spec.job_id.to_owned(), from: None }),
            begun => begun.clone(),
        };
        let resumed = self.resume().await?;
        self.job.phase = Phase::Discovering;
        Ok(ControlFlow::Continue(resumed))
    }
}
