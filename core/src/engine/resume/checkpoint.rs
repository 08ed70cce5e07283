//! The checkpoint: how a job is saved, and taken up again.

use std::{collections::BTreeSet, mem};

use super::Resumed;
use crate::{
    engine::{
        assembly::Assembly,
        listing::{
            Open,
            source::{ListingWatch, Source},
        },
        previous::known,
        step::Step,
        thresholds::Thresholds,
    },
    entry::Entry,
    error::Error,
    job::JobCounts,
    mutation::{self, Mutation},
    snapshot::{
        ContentHash,
        cut::Begins,
        index::{self, Level, SegmentRef},
        segment,
    },
    state::{
        State,
        document::{self, Checkpoint, SnapshotDocument},
        embedded, is_node,
        names::Names,
        node_name,
    },
    store::{BlobStore, DocumentStore},
    time::Clock,
};

/// Where a checkpoint has the listing go on.
struct ResumeAt {
    start_after: Option<String>,
    counts: JobCounts,
    /// The entries of the segment that is not complete, and what the first of them begins.
    pending: Vec<Entry>,
    pending_begins: Option<Begins>,
}

/// The leaves that a checkpoint holds.
pub(in crate::engine) async fn checkpoint_leaves<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    checkpoint: &Checkpoint,
) -> Result<(Vec<SegmentRef>, usize), Error> {
    let mut leaves = Vec::new();
    for name in &checkpoint.leaves {
        leaves.extend(state.read_node(name).await?.1);
    }
    let stored = leaves.len();
    let tail = document::decode_node(checkpoint.leaves_tail.as_deref());
    leaves.extend(tail.map_err(|error| error.into_error("checkpoint.leaves_tail"))?);
    Ok((leaves, stored))
}

/// The segments of the leaf that a checkpoint has not closed.
pub(in crate::engine) fn checkpoint_segments(checkpoint: &Checkpoint) -> Result<Vec<SegmentRef>, Error> {
    document::decode_node(checkpoint.segments.as_deref()).map_err(|error| error.into_error("checkpoint.segments"))
}

impl<S: Source, B: BlobStore, D: DocumentStore, C: Clock> Step<'_, S, B, D, C> {
    /// Takes up the checkpoint, if there is one.
    pub(in crate::engine) async fn resume(&mut self) -> Result<Resumed, Error> {
        let Some(mut checkpoint) = self.job.stored.document.checkpoint.clone() else { return Ok(self.begin()) };
        if checkpoint.job_id != self.spec.job_id && !mutation::is_on(Mutation::CountTwice) {
            // An earlier job read so far. What that one appended is not this one's.
            (checkpoint.counts, checkpoint.objects_found) = (checkpoint.counts.of_listing(), 0);
        }
        let (leaves, stored) = checkpoint_leaves(&self.state, &checkpoint).await?;
        let job = &mut self.job;
        job.next.leaves_stored = stored;
        job.next.assembly = Assembly::new(self.spec.cut, leaves, checkpoint_segments(&checkpoint)?);
        job.next.looked_into = Names::of(&checkpoint.looked_into)?;
        job.next.leaf_blobs = checkpoint.leaves;
        job.next.undeleted = checkpoint.undeleted;
        job.next.scratch = checkpoint.scratch;
        if checkpoint.listed {
            job.next.top_stored = job.next.leaf_blobs.last().filter(|name| is_node(name)).cloned();
            job.resync = checkpoint.resync;
        }
        job.deletions.parts = checkpoint.deletions;
        if let Some(tail) = job.deletions.parts.pop_if(|part| part.blob.is_none()) {
            job.deletions.held = known::read(&self.state, &tail).await?;
            job.deletions.held_key_bytes = job.deletions.held.iter().map(|known| known.key.len()).sum();
        }
        job.deletions.found = checkpoint.deletions_found;
        job.deletions.done = checkpoint.deletions_done;
        job.deletions.checked = checkpoint.deletions_checked;
        job.deletions.due = checkpoint.deletions_due;
        job.deletions.appended = checkpoint.deletions_appended;
        let pending = match (&checkpoint.pending, &checkpoint.pending_tail) {
            (None, None) => Vec::new(),
            (Some(name), _) => decode_pending(name, &self.state.read(name).await?)?,
            (None, Some(tail)) => {
                let name = "checkpoint.pending_tail";
                decode_pending(name, &embedded::decode_bytes(tail).map_err(|error| error.into_error(name))?)?
            }
        };
        job.place.pending_entries = pending.len();
        job.place.watch = ListingWatch::new(checkpoint.order, checkpoint.start_after);
        job.place.covered_to = checkpoint.covered_to;
        job.place.pending_begins = checkpoint.pending_begins;
        job.place.unfinished = checkpoint.unfinished;
        job.place.listed = checkpoint.listed;
        job.place.limited = checkpoint.limited;
        job.counts = checkpoint.counts;
        self.spec.seen.join(&checkpoint.seen);
        job.objects_found = checkpoint.objects_found;
        Ok(if checkpoint.listed { Resumed::Listed } else { Resumed::At { open: Open::of(&pending) } })
    }

    /// Begins at the first key, or at the caller's bookmark.
    fn begin(&mut self) -> Resumed {
        let done = self.job.stored.document.root.job.as_ref();
        if let Some(done) = done.filter(|it| it.job_id == self.spec.job_id) {
            // It was done under other filters, and begins again: what it has appended counts.
            self.job.counts = done.counts.of_changes();
            self.job.objects_found = done.objects_found;
        }
        let start_after = self.open_bookmark();
        self.job.place.watch = ListingWatch::new(self.job.stored.document.root.order, start_after);
        Resumed::At { open: Open::default() }
    }

    /// Saves how far the job is: behind the latest segment that was closed, which is one small write. Where no segment
    /// was closed in this step, everything read so far is in it, so that every step gets further. The changes that wait
    /// are appended to the feed by the same swap.
    pub(in crate::engine) async fn save_checkpoint(&mut self) -> Result<(), Error> {
        self.store_puts().await?;
        let (feed, appending) = self.append().await?;
        let Some(resume_at) = self.resume_at(self.job.counts.plus(appending.counts))? else {
            if feed == self.job.stored.document.feed {
                return Ok(());
            }
            return Err(Error::internal("A job has changes to append, and no place to go on from."));
        };
        let (pending, pending_tail) = self.store_pending(&resume_at.pending).await?;
        self.store_leaves().await?;
        let Thresholds { tail_items_max, list_bytes_max, .. } = self.spec.thresholds;
        let deletions = &self.job.deletions;
        if deletions.held.len() > tail_items_max || deletions.held_key_bytes > list_bytes_max {
            self.store_deletions().await?;
        }
        let next = &mut self.job.next;
        next.looked_into.note_leaves(next.assembly.take_looked_into());
        let looked_into = next.looked_into.store(&self.state, 0).await?;
        for blob in &looked_into.blobs {
            if !next.scratch.contains(blob) {
                next.scratch.push(blob.clone());
            }
        }
        next.scratch.append(&mut next.assembly.dropped);
        let (place, next, deletions) = (&self.job.place, &self.job.next, &self.job.deletions);
        let leaves_tail = next.assembly.leaves.get(next.leaves_stored..).unwrap_or_default();
        let checkpoint = Checkpoint {
            job_id: self.spec.job_id.to_owned(),
            listing_id: self.spec.listing_id().to_owned(),
            fingerprint: self.spec.fingerprint.to_owned(),
            listed: place.listed,
            limited: place.limited,
            start_after: resume_at.start_after,
            covered_to: place.covered_to.clone(),
            pending_tail,
            pending,
            pending_begins: resume_at.pending_begins,
            unfinished: place.unfinished,
            leaves: next.leaf_blobs.clone(),
            leaves_tail: document::encode_node(Level::Top, leaves_tail),
            segments: document::encode_node(Level::Leaf, &next.assembly.segments),
            deletions: deletions.parts.iter().cloned().chain(document::encode_known(&deletions.held)).collect(),
            undeleted: next.undeleted.clone(),
            resync: self.job.resync.clone(),
            deletions_found: deletions.found,
            deletions_done: deletions.done,
            deletions_checked: deletions.checked,
            deletions_due: deletions.due,
            deletions_appended: deletions.appended,
            objects_found: self.job.objects_found,
            counts: resume_at.counts,
            seen: self.spec.seen.record(),
            order: place.watch.order,
            looked_into,
            scratch: Vec::new(),
        };
        let root = next.without_swept(&self.job.stored.document.root);
        let mut document = SnapshotDocument { v: document::VERSION, root, checkpoint: Some(checkpoint), feed };
        self.delete_superseded(&document).await?;
        if let Some(checkpoint) = &mut document.checkpoint {
            checkpoint.scratch.clone_from(&self.job.next.scratch);
        }
        if document == self.job.stored.document {
            // It was saved a moment ago.
            return Ok(());
        }
        self.swap(document, appending).await
    }

    /// Where the listing goes on, behind what makes up these counts; `None`: nothing was read.
    fn resume_at(&mut self, mut counts: JobCounts) -> Result<Option<ResumeAt>, Error> {
        let place = &mut self.job.place;
        let (mut pending, mut pending_begins) = (Vec::new(), None);
        let start_after = if place.listed {
            None
        } else if let Some(point) = &place.resume_point {
            (counts.listed, counts.matched, counts.matched_bytes) = (point.listed, point.matched, point.matched_bytes);
            counts.unreadable = point.unreadable;
            point.start_after.clone()
        } else if let Some((open, since, begins)) = place.pending.take() {
            pending_begins = begins;
            counts.listed += since.listed;
            counts.matched += since.matched;
            counts.matched_bytes = counts.matched_bytes.saturating_add(since.matched_bytes);
            counts.unreadable += since.unreadable;
            if let Some(sealed) = open.seal() {
                pending = sealed.entries().map_err(|error| error.into_error("the open segment"))?;
            }
            since.after
        } else {
            return Ok(None);
        };
        Ok(Some(ResumeAt { start_after, counts, pending, pending_begins }))
    }

    /// The entries of the segment that is not complete: in a blob, or as text where they are few.
    async fn store_pending(&mut self, pending: &[Entry]) -> Result<(Option<String>, Option<String>), Error> {
        if pending.is_empty() {
            return Ok((None, None));
        }
        let bytes = segment::encode_entries(pending);
        if bytes.len() > self.spec.thresholds.tail_bytes_max {
            return Ok((Some(self.write_scratch(bytes).await?), None));
        }
        Ok((None, Some(embedded::encode_bytes(&bytes))))
    }

    /// Stores leaves that are too many to stand in the document.
    async fn store_leaves(&mut self) -> Result<(), Error> {
        let next = &mut self.job.next;
        if mem::replace(&mut next.assembly.leaves_as_before, usize::MAX) < next.leaves_stored {
            // A leaf was taken apart again that a blob lists.
            next.leaf_blobs.clear();
            next.leaves_stored = 0;
        }
        let Thresholds { tail_items_max, list_bytes_max, .. } = self.spec.thresholds;
        let tail = next.assembly.leaves.get(next.leaves_stored..).unwrap_or_default();
        let key_bytes: usize = tail.iter().map(|leaf| leaf.first_key.len()).sum();
        if tail.len() <= tail_items_max && key_bytes <= list_bytes_max {
            return Ok(());
        }
        match self.job.place.listed.then(|| next.assembly.top()).flatten() {
            Some((hash, bytes)) => self.store_top(hash, bytes).await?,
            None => {
                let bytes = index::encode(Level::Top, tail);
                let name = self.write_scratch(bytes).await?;
                self.job.next.leaf_blobs.push(name);
            }
        }
        self.job.next.leaves_stored = self.job.next.assembly.leaves.len();
        Ok(())
    }

    /// Stores the top of the next index, which lists all leaves, before the root names it.
    async fn store_top(&mut self, hash: ContentHash, bytes: Vec<u8>) -> Result<(), Error> {
        let name = node_name(hash);
        let next = &mut self.job.next;
        if self.job.stored.document.root.index.as_ref() != Some(&name) && next.top_stored.as_ref() != Some(&name) {
            self.state.write(&name, bytes).await?;
            // Should the job break off, the root may come to name another.
            next.scratch.push(name.clone());
        }
        next.top_stored = Some(name.clone());
        next.leaf_blobs = vec![name];
        Ok(())
    }

    /// Deletes what only earlier checkpoints of this job named: neither the stored document names it, nor the next.
    async fn delete_superseded(&mut self, next: &SnapshotDocument) -> Result<(), Error> {
        let mut kept: BTreeSet<&str> = self.job.stored.document.scratch_named().collect();
        kept.extend(next.scratch_named());
        let is_kept = |name: &str| !name.starts_with("scratch/") || kept.contains(name);
        let (scratch, superseded): (Vec<String>, Vec<String>) =
            self.job.next.scratch.iter().cloned().partition(|it| is_kept(it));
        for name in &superseded {
            self.state.delete(name).await?;
        }
        self.job.next.scratch = scratch;
        Ok(())
    }

    async fn write_scratch(&mut self, bytes: Vec<u8>) -> Result<String, Error> {
        let name = self.state.write_named("scratch", bytes).await?;
        if !self.job.next.scratch.contains(&name) {
            self.job.next.scratch.push(name.clone());
        }
        Ok(name)
    }
}

fn decode_pending(name: &str, bytes: &[u8]) -> Result<Vec<Entry>, Error> {
    segment::decode_entries(bytes).map_err(|error| error.into_error(name))
}
