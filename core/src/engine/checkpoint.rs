//! The checkpoint: how a job is saved, and taken up again.

use std::{collections::BTreeSet, mem};

use super::{
    Order,
    assembly::Assembly,
    known,
    listing::Open,
    retire::Names,
    run::{Resumed, Run},
    source::ListingWatch,
    state::{State, is_node, node_name},
    thresholds::Thresholds,
};
use crate::{
    error::Error,
    job::JobCounts,
    snapshot::{
        ContentHash,
        changes::{self, Noted},
        cut::SEGMENT_BYTES_MAX,
        index::{self, Level, SegmentRef},
        root::{self, Checkpoint, KnownPart, SnapshotDocument},
        segment,
    },
    store::{BlobStore, DocumentStore},
};

/// What is noted in the document, and may not have been delivered.
pub(super) async fn read_in_doubt<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    document: &SnapshotDocument,
) -> Result<Vec<Noted>, Error> {
    match &document.in_doubt_blob {
        Some(name) => changes::decode(&state.read(name).await?).map_err(|error| error.into_error(name)),
        None => root::decode_changes(document.in_doubt.as_deref()).map_err(|error| error.into_error("in_doubt")),
    }
}

/// The leaves that a checkpoint holds.
pub(super) async fn checkpoint_leaves<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    checkpoint: &Checkpoint,
) -> Result<(Vec<SegmentRef>, usize), Error> {
    let mut leaves = Vec::new();
    for name in &checkpoint.leaves {
        leaves.extend(state.read_node(name).await?.1);
    }
    let stored = leaves.len();
    let tail = root::decode_node(checkpoint.leaves_tail.as_deref());
    leaves.extend(tail.map_err(|error| error.into_error("checkpoint.leaves_tail"))?);
    Ok((leaves, stored))
}

/// The segments of the leaf that a checkpoint has not closed.
pub(super) fn checkpoint_segments(checkpoint: &Checkpoint) -> Result<Vec<SegmentRef>, Error> {
    root::decode_node(checkpoint.segments.as_deref()).map_err(|error| error.into_error("checkpoint.segments"))
}

impl Run {
    /// Takes up the checkpoint, if there is one.
    pub(super) async fn resume<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        order: &Order<'_>,
    ) -> Result<Resumed, Error> {
        let Some(checkpoint) = self.document.checkpoint.clone() else {
            if let Some(done) = self.document.root.job.as_ref().filter(|it| it.job_id == order.job_id) {
                // It was done under other filters, and begins anew: what it has delivered counts.
                self.counts = done.counts.of_deliveries();
                self.objects_found = done.objects_found;
            }
            let start_after = self.open_bookmark(order);
            self.watch = ListingWatch::new(self.document.root.order, start_after);
            // Another job stored it, and this one delivers what is in it.
            self.scratch.extend(self.document.in_doubt_blob.clone());
            return Ok(Resumed::At { open: Open::default() });
        };
        let (leaves, stored) = checkpoint_leaves(state, &checkpoint).await?;
        self.leaves_stored = stored;
        self.assembly = Assembly::new(order.cut, leaves, checkpoint_segments(&checkpoint)?);
        self.leaf_blobs = checkpoint.leaves;
        if checkpoint.listed {
            self.top_stored = self.leaf_blobs.last().filter(|name| is_node(name)).cloned();
        }
        self.deletion_parts = checkpoint.deletions;
        if let Some(tail) = self.deletion_parts.pop_if(|part| part.blob.is_none()) {
            self.deletions = known::read(state, &tail).await?;
            self.deletion_key_bytes = self.deletions.iter().map(|known| known.key.len()).sum();
        }
        self.undeleted = checkpoint.undeleted;
        if checkpoint.listed {
            self.resync = checkpoint.resync;
        }
        self.looked_into = Names::of(&checkpoint.looked_into)?;
        self.deletions_found = checkpoint.deletions_found;
        self.deletions_delivered = checkpoint.deletions_delivered;
        self.deletions_checked = checkpoint.deletions_checked;
        self.deletions_due = checkpoint.deletions_due;
        self.deletions_noted = checkpoint.deletions_noted;
        let mut open = Open::default();
        if checkpoint.pending.is_some() || checkpoint.pending_tail.is_some() {
            let (name, bytes) = match (&checkpoint.pending, &checkpoint.pending_tail) {
                (Some(name), _) => (name.as_str(), Ok(state.read(name).await?.to_vec())),
                (None, tail) => ("checkpoint.pending_tail", root::decode_bytes(tail.as_deref().unwrap_or_default())),
            };
            let entries = bytes.and_then(|bytes| segment::decode_entries(&bytes));
            let entries = entries.map_err(|error| error.into_error(name))?;
            self.pending_entries = entries.len();
            open = Open::of(&entries);
        }
        self.watch = ListingWatch::new(checkpoint.order, checkpoint.start_after);
        self.covered_to = checkpoint.covered_to;
        self.pending_begins = checkpoint.pending_begins;
        self.unfinished = checkpoint.unfinished;
        self.listed = checkpoint.listed;
        self.limited = checkpoint.limited;
        self.counts = checkpoint.counts;
        self.objects_found = checkpoint.objects_found;
        self.scratch = checkpoint.scratch;
        Ok(if self.listed { Resumed::Listed } else { Resumed::At { open } })
    }

    /// Saves how far the job is: behind the latest segment that was closed, which is one small write. Where no segment was
    /// closed in this step, everything read so far is in it, so that every step gets further. `noted` is about to be
    /// delivered, and what the checkpoint holds counts as delivered already.
    pub(super) async fn save_checkpoint<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        order: &Order<'_>,
        noted: Option<&[Noted]>,
    ) -> Result<(), Error> {
        self.store_puts(state).await?;
        let mut counts = self.counts;
        let mut pending = Vec::new();
        let mut pending_begins = None;
        let start_after = if self.listed {
            None
        } else if let Some(point) = &self.resume_point {
            (counts.listed, counts.matched, counts.matched_bytes) = (point.listed, point.matched, point.matched_bytes);
            point.start_after.clone()
        } else if let Some((open, since, begins)) = self.pending.take() {
            pending_begins = begins;
            counts.listed += since.listed;
            counts.matched += since.matched;
            counts.matched_bytes = counts.matched_bytes.saturating_add(since.matched_bytes);
            if let Some(sealed) = open.seal() {
                pending = sealed.entries().map_err(|error| error.into_error("the open segment"))?;
            }
            since.after
        } else {
            return Ok(());
        };
        let (mut pending_blob, mut pending_tail) = (None, None);
        if !pending.is_empty() {
            let bytes = segment::encode_entries(&pending);
            if bytes.len() > order.thresholds.tail_bytes_max {
                pending_blob = Some(self.write_scratch(state, bytes).await?);
            } else {
                pending_tail = Some(root::encode_bytes(&bytes));
            }
        }
        if mem::replace(&mut self.assembly.leaves_as_before, usize::MAX) < self.leaves_stored {
            // A leaf was taken apart again that a blob lists.
            self.leaf_blobs.clear();
            self.leaves_stored = 0;
        }
        let Thresholds { tail_items_max, list_bytes_max, .. } = order.thresholds;
        let tail = self.assembly.leaves.get(self.leaves_stored..).unwrap_or_default();
        let key_bytes: usize = tail.iter().map(|leaf| leaf.first_key.len()).sum();
        if tail.len() > tail_items_max || key_bytes > list_bytes_max {
            match self.listed.then(|| self.assembly.top()).flatten() {
                Some((hash, bytes)) => self.store_top(state, hash, bytes).await?,
                None => {
                    let bytes = index::encode(Level::Top, tail);
                    let name = self.write_scratch(state, bytes).await?;
                    self.leaf_blobs.push(name);
                }
            }
            self.leaves_stored = self.assembly.leaves.len();
        }
        if self.deletions.len() > tail_items_max || self.deletion_key_bytes > list_bytes_max {
            self.store_deletions(state, order).await?;
        }
        let mut deletions = self.deletion_parts.clone();
        deletions.extend(root::encode_known(&self.deletions));
        self.looked_into.note_leaves(self.assembly.take_looked_into());
        let looked_into = self.looked_into.store(state, 0).await?;
        for blob in &looked_into.blobs {
            if !self.scratch.contains(blob) {
                self.scratch.push(blob.clone());
            }
        }
        let (mut in_doubt, mut in_doubt_blob) = (None, None);
        if let Some(noted) = noted {
            (in_doubt, in_doubt_blob) = self.store_noted(state, order, noted).await?;
        }
        self.scratch.append(&mut self.assembly.dropped);
        let checkpoint = Checkpoint {
            job_id: order.job_id.to_owned(),
            fingerprint: order.fingerprint.to_owned(),
            listed: self.listed,
            limited: self.limited,
            start_after,
            covered_to: self.covered_to.clone(),
            pending_tail,
            pending: pending_blob,
            pending_begins,
            unfinished: self.unfinished,
            leaves: self.leaf_blobs.clone(),
            leaves_tail: root::encode_node(
                Level::Top,
                self.assembly.leaves.get(self.leaves_stored..).unwrap_or_default(),
            ),
            segments: root::encode_node(Level::Leaf, &self.assembly.segments),
            deletions,
            undeleted: self.undeleted.clone(),
            resync: self.resync.clone(),
            deletions_found: self.deletions_found,
            deletions_delivered: self.deletions_delivered,
            deletions_checked: self.deletions_checked,
            deletions_due: self.deletions_due,
            deletions_noted: self.deletions_noted,
            objects_found: self.objects_found,
            counts,
            order: self.watch.order,
            looked_into,
            scratch: Vec::new(),
        };
        let next = SnapshotDocument {
            v: root::VERSION,
            root: self.root_without_swept(),
            checkpoint: Some(checkpoint),
            in_doubt,
            in_doubt_blob,
        };
        self.delete_superseded(state, &next).await?;
        self.document = next;
        if let Some(checkpoint) = &mut self.document.checkpoint {
            checkpoint.scratch.clone_from(&self.scratch);
        }
        self.revision = state.swap_document(self.revision, &self.document).await?;
        Ok(())
    }

    /// Stores changes to be noted in the document, or in a blob where they are too long for it.
    async fn store_noted<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        order: &Order<'_>,
        noted: &[Noted],
    ) -> Result<(Option<String>, Option<String>), Error> {
        if noted.is_empty() {
            return Ok((None, None));
        }
        let bytes = changes::encode(noted);
        if bytes.len() > order.thresholds.tail_bytes_max / 2 {
            return Ok((None, Some(self.write_scratch(state, bytes).await?)));
        }
        Ok((Some(root::encode_bytes(&bytes)), None))
    }

    /// Of what was noted, only the `rest` is still to be delivered: saves that, and what was delivered of it.
    pub(super) async fn note_rest<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        order: &Order<'_>,
        rest: &[Noted],
    ) -> Result<(), Error> {
        let mut next = self.document.clone();
        (next.in_doubt, next.in_doubt_blob) = self.store_noted(state, order, rest).await?;
        // Another job may have noted it, and left no checkpoint of this one.
        let checkpoint = next.checkpoint.get_or_insert_with(|| Checkpoint {
            job_id: order.job_id.to_owned(),
            fingerprint: order.fingerprint.to_owned(),
            order: self.watch.order,
            ..Checkpoint::default()
        });
        let JobCounts { listed, matched, matched_bytes, .. } = checkpoint.counts;
        checkpoint.counts = JobCounts { listed, matched, matched_bytes, ..self.counts };
        checkpoint.objects_found = self.objects_found;
        self.delete_superseded(state, &next).await?;
        if let Some(checkpoint) = &mut next.checkpoint {
            checkpoint.scratch.clone_from(&self.scratch);
        }
        self.document = next;
        self.revision = state.swap_document(self.revision, &self.document).await?;
        Ok(())
    }

    /// Stores the top of the next index, which lists all leaves, before the root names it.
    async fn store_top<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        hash: ContentHash,
        bytes: Vec<u8>,
    ) -> Result<(), Error> {
        let name = node_name(hash);
        if self.document.root.index.as_ref() != Some(&name) && self.top_stored.as_ref() != Some(&name) {
            state.write(&name, bytes).await?;
            // Should the job break off, the root may come to name another.
            self.scratch.push(name.clone());
        }
        self.top_stored = Some(name.clone());
        self.leaf_blobs = vec![name];
        Ok(())
    }

    /// Deletes what only earlier checkpoints of this job named: neither the document that is stored names it, nor the next.
    async fn delete_superseded<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        next: &SnapshotDocument,
    ) -> Result<(), Error> {
        let mut kept: BTreeSet<&str> = self.document.scratch_named().collect();
        kept.extend(next.scratch_named());
        let is_kept = |name: &str| !name.starts_with("scratch/") || kept.contains(name);
        let (scratch, superseded): (Vec<String>, Vec<String>) =
            self.scratch.iter().cloned().partition(|it| is_kept(it));
        for name in &superseded {
            state.delete(name).await?;
        }
        self.scratch = scratch;
        Ok(())
    }

    /// Stores the deletions that are held. A part that has room is stored anew with them, so that there are few parts.
    pub(super) async fn store_deletions<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        order: &Order<'_>,
    ) -> Result<(), Error> {
        let mut deletions = mem::take(&mut self.deletions);
        self.deletion_key_bytes = 0;
        let held_max = order.thresholds.deletions_held_max as u64;
        let has_room = |part: &mut KnownPart| part.count + deletions.len() as u64 <= held_max;
        if let Some(last) = self.deletion_parts.pop_if(has_room) {
            let mut before = known::read(state, &last).await?;
            let key_bytes: usize = before.iter().chain(&deletions).map(|known| known.key.len()).sum();
            if key_bytes <= SEGMENT_BYTES_MAX {
                before.append(&mut deletions);
                deletions = before;
                self.scratch.extend(last.blob);
            } else {
                self.deletion_parts.push(last);
            }
        }
        let Some(first) = deletions.first() else { return Ok(()) };
        let (first_key, count) = (first.key.clone(), deletions.len() as u64);
        let blob = Some(state.write_named("scratch", segment::encode(deletions.iter())).await?);
        self.deletion_parts.push(KnownPart { first_key, count, blob, ..KnownPart::default() });
        Ok(())
    }

    async fn write_scratch<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        bytes: Vec<u8>,
    ) -> Result<String, Error> {
        let name = state.write_named("scratch", bytes).await?;
        if !self.scratch.contains(&name) {
            self.scratch.push(name.clone());
        }
        Ok(name)
    }
}
