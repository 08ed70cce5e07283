//! What a step holds in memory, how it is saved, and how it becomes the next snapshot.

use std::{collections::BTreeSet, mem};

use super::{
    DELETIONS_UNASKED_MAX, Order,
    assembly::Assembly,
    base::{Base, Leaves},
    drift,
    lanes::Reads,
    listing::{Mark, Open},
    source::ListingWatch,
    state::{State, node_name, segment_name},
    thresholds::Thresholds,
    too_many_deletions,
};
use crate::{
    entry::{Entry, KeyOrder},
    error::Error,
    job::{JobCounts, Phase},
    mutation::{self, Mutation},
    sink::{Change, ChangeKind},
    snapshot::{
        Known,
        changes::{self, Noted},
        cut::Begins,
        index::{self, Level, SegmentRef},
        root::{self, Checkpoint, Root, RootJob, SnapshotDocument},
        segment,
    },
    store::{BlobStore, DocumentStore},
};

/// Blobs that nothing names any more and that are deleted in one step, at most: it must stay within its budget.
const GARBAGE_DELETED_MAX: usize = 100;

/// Where a job would go on, were it cut off now: behind the latest segment that was closed.
#[derive(Clone, Debug)]
pub(super) struct ResumePoint {
    pub(super) start_after: Option<String>,
    pub(super) listed: u64,
    pub(super) matched: u64,
    pub(super) matched_bytes: u64,
}

/// Where a step takes the job up.
pub(super) enum Resumed {
    /// The listing is read.
    Listed,
    /// Behind the last key that was listed, with the segment that is not complete.
    At { open: Open },
}

/// What a step holds in memory: at most one segment of the listing and one of the snapshot, one leaf, what is about to be
/// stored and delivered, and the list of leaves.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) document: SnapshotDocument,
    pub(super) revision: u64,
    pub(super) known_before: u64,
    pub(super) watch: ListingWatch,
    pub(super) listed: bool,
    pub(super) limited: bool,
    pub(super) covered_to: Option<String>,
    /// Whether the latest piece was at the end of the listing: `covered_to` is `None` then, as before the first one.
    pub(super) at_end: bool,
    pub(super) resume_point: Option<ResumePoint>,
    /// Behind the latest piece, also where no segment was closed there.
    pub(super) mark: Option<ResumePoint>,
    /// What was read behind the last segment, where the step ends in it; and what its first key begins, if that matters.
    pub(super) pending: Option<(Open, Mark, Option<Begins>)>,
    /// The same of the checkpoint that was taken up.
    pending_begins: Option<Begins>,
    /// Whether the last segment goes on behind `covered_to`.
    pub(super) unfinished: bool,
    pub(super) assembly: Assembly,
    /// Segments are cut elsewhere than the listing's pieces are, until one begins at a key that says so.
    pub(super) realign: bool,
    /// Of the leaves, how many are in `leaf_blobs`.
    leaves_stored: usize,
    leaf_blobs: Vec<String>,
    /// Found, and not in `deletion_blobs`.
    pub(super) deletions: Vec<Known>,
    pub(super) deletion_blobs: Vec<(String, u64)>,
    pub(super) deletions_found: u64,
    pub(super) deletions_delivered: u64,
    /// Where it matters why files vanished, and many did: how many were looked for, and of these are to be delivered.
    pub(super) deletions_checked: u64,
    pub(super) deletions_due: u64,
    scratch: Vec<String>,
    /// To be delivered.
    pub(super) noted: Vec<Noted>,
    /// The keys that dead letters are of; `None`: not read yet.
    pub(super) dead_letters: Option<BTreeSet<String>>,
    /// Created and updated files found by this job.
    pub(super) objects_found: u64,
    pub(super) counts: JobCounts,
    pub(super) phase: Phase,
    pub(super) batch_max: usize,
    pub(super) sink_calls: u64,
    pub(super) keys: u64,
}

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
    pub(super) fn new(order: &Order<'_>, batch_max: usize) -> Self {
        Self {
            document: SnapshotDocument::default(),
            revision: 0,
            known_before: 0,
            watch: ListingWatch::default(),
            listed: false,
            limited: false,
            covered_to: None,
            at_end: false,
            resume_point: None,
            mark: None,
            pending: None,
            pending_begins: None,
            unfinished: false,
            assembly: Assembly::new(order.cut, Vec::new(), Vec::new()),
            realign: false,
            leaves_stored: 0,
            leaf_blobs: Vec::new(),
            deletions: Vec::new(),
            deletion_blobs: Vec::new(),
            deletions_found: 0,
            deletions_delivered: 0,
            deletions_checked: 0,
            deletions_due: 0,
            scratch: Vec::new(),
            noted: Vec::new(),
            objects_found: 0,
            dead_letters: None,
            counts: JobCounts::default(),
            phase: Phase::Queued,
            batch_max: batch_max.max(1),
            sink_calls: 0,
            keys: 0,
        }
    }

    /// Takes up the checkpoint, if there is one.
    pub(super) async fn resume<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        order: &Order<'_>,
    ) -> Result<Resumed, Error> {
        let Some(checkpoint) = self.document.checkpoint.clone() else {
            self.watch = ListingWatch::new(self.document.root.order, false, None);
            return Ok(Resumed::At { open: Open::default() });
        };
        let (leaves, stored) = checkpoint_leaves(state, &checkpoint).await?;
        self.leaves_stored = stored;
        self.assembly = Assembly::new(order.cut, leaves, checkpoint_segments(&checkpoint)?);
        self.leaf_blobs = checkpoint.leaves;
        let deletions = root::decode_known(checkpoint.deletions_tail.as_deref());
        self.deletions = deletions.map_err(|error| error.into_error("checkpoint.deletions_tail"))?;
        self.deletion_blobs = checkpoint.deletions;
        self.deletions_found = checkpoint.deletions_found;
        self.deletions_delivered = checkpoint.deletions_delivered;
        self.deletions_checked = checkpoint.deletions_checked;
        self.deletions_due = checkpoint.deletions_due;
        let mut open = Open::default();
        if checkpoint.pending.is_some() || checkpoint.pending_tail.is_some() {
            let (name, bytes) = match (&checkpoint.pending, &checkpoint.pending_tail) {
                (Some(name), _) => (name.as_str(), Ok(state.read(name).await?.to_vec())),
                (None, tail) => ("checkpoint.pending_tail", root::decode_bytes(tail.as_deref().unwrap_or_default())),
            };
            let entries = bytes.and_then(|bytes| segment::decode_entries(&bytes));
            open = Open::of(&entries.map_err(|error| error.into_error(name))?);
        }
        self.watch = ListingWatch::new(checkpoint.order, checkpoint.order_assumed, checkpoint.start_after);
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

    /// What the first key behind `covered_to` begins, if that is known before it is seen.
    pub(super) fn begins(&self, order: &Order<'_>, nothing_pending: bool) -> Option<Begins> {
        let Some(covered_to) = self.covered_to.as_deref().filter(|_| nothing_pending) else {
            return Some(self.pending_begins.unwrap_or(Begins::Leaf));
        };
        // A segment that was full ends there, whatever comes next. Otherwise a key was to begin the next segment, and may
        // be gone by now.
        let was_full = order.cut.begins(covered_to) == Begins::Nothing && !self.unfinished;
        was_full.then_some(Begins::Leaf)
    }

    /// Opens what must be open for a key that begins that.
    pub(super) async fn open_for<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        base: &mut Base,
        begins: Begins,
    ) -> Result<(), Error> {
        match begins {
            Begins::Leaf => {}
            Begins::Segment => self.assembly.reopen_leaf(state).await?,
            Begins::Nothing => {
                self.assembly.reopen_segment(state, base, &mut self.watch).await?;
                self.realign = true;
            }
        }
        Ok(())
    }

    /// Makes the end of the latest piece a point to resume at, though a segment is open there: it is closed, and opened
    /// again by whoever goes on.
    pub(super) fn break_segment(&mut self) {
        if !self.assembly.is_between_segments() {
            self.unfinished = true;
            self.assembly.close_segment();
            self.resume_point.clone_from(&self.mark);
        }
    }

    /// Begins the comparison anew, from `settled`: a snapshot with all that was delivered, whose order is known.
    pub(super) fn restart(&mut self, order: &Order<'_>, settled: (SnapshotDocument, u64), found: KeyOrder) {
        let (document, revision) = settled;
        let watch = ListingWatch::new(found, false, None);
        let counts = JobCounts { listed: 0, matched: 0, matched_bytes: 0, ..self.counts };
        *self = Self {
            document,
            revision,
            known_before: self.known_before,
            watch,
            phase: self.phase,
            counts,
            objects_found: counts.created + counts.updated,
            dead_letters: self.dead_letters.take(),
            sink_calls: self.sink_calls,
            keys: self.keys,
            ..Self::new(order, self.batch_max)
        };
    }

    /// Keeps a deletion until the listing is complete.
    pub(super) async fn vanished<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        order: &Order<'_>,
        known: Known,
    ) -> Result<(), Error> {
        if !order.reconcile.on_delete && !order.reconcile.on_filter_drift {
            return Ok(());
        }
        if mutation::is_on(Mutation::DeleteEarly) {
            self.noted.push(Noted::Vanished(known));
            return Ok(());
        }
        self.deletions.push(known);
        self.deletions_found += 1;
        let found = self.deletions_found;
        if !order.confirm_deletes && !drift::matters(order.reconcile) && self.are_many_deletions(found) {
            return Err(self.too_many(found));
        }
        if self.deletions.len() >= order.thresholds.deletions_held_max {
            self.store_deletions(state).await?;
        }
        Ok(())
    }

    /// Notes that all of `entries` are handed over again, but for those that were noted since there were `before`.
    pub(super) fn note_resynced(&mut self, job_id: &str, before: usize, entries: &[Entry]) {
        let mut noted: BTreeSet<String> = BTreeSet::new();
        for it in self.noted.get(before..).unwrap_or_default() {
            if let Noted::Appeared(_, entry) = it {
                noted.insert(entry.key.clone());
            }
        }
        let left = entries.iter().filter(|entry| !noted.contains(&entry.key));
        self.noted.extend(left.map(|entry| Noted::Resynced { entry: entry.clone(), job_id: job_id.to_owned() }));
    }

    /// Whether so many deletions are not delivered unless they are confirmed.
    pub(super) fn are_many_deletions(&self, count: u64) -> bool {
        count > DELETIONS_UNASKED_MAX && count > self.document.root.entries_to_guard() / 2
    }

    /// The error for that.
    pub(super) fn too_many(&self, count: u64) -> Error {
        too_many_deletions(&format!(
            "More than half of the files that were there before are gone ({count} or more of {}).",
            self.known_before
        ))
    }

    /// Of the deletions found, those that are kept together with the one numbered `from`, from that one on.
    pub(super) async fn deletions_from<B: BlobStore, D: DocumentStore>(
        &self,
        state: &State<'_, B, D>,
        from: u64,
    ) -> Result<Vec<Known>, Error> {
        let mut skip = from;
        let behind = |known: Vec<Known>, skip: u64| {
            known.into_iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)).collect()
        };
        for (name, count) in &self.deletion_blobs {
            if skip < *count {
                return Ok(behind(state.read_segment(name).await?, skip));
            }
            skip -= count;
        }
        Ok(behind(self.deletions.clone(), skip))
    }

    pub(super) fn count_delivered(&mut self, change: &Change) {
        match change.kind {
            ChangeKind::Created => self.counts.created += 1,
            ChangeKind::Updated => self.counts.updated += 1,
            ChangeKind::Deleted => self.counts.deleted += 1,
        }
        mutation::raise_watermark(change.entry.last_modified);
        if change.kind != ChangeKind::Deleted {
            self.counts.delivered_bytes = self.counts.delivered_bytes.saturating_add(change.entry.size);
        }
    }

    /// What was read so far, with nothing on its way.
    pub(super) fn reads(&self) -> Reads {
        Reads { keys: self.keys, in_flight: 0, begins: false }
    }

    /// Whether there is so much to store or to deliver that it should not wait, and it can be done here.
    pub(super) fn is_worth_storing(&self, order: &Order<'_>) -> bool {
        let Thresholds { flush_changes_min, flush_bytes_min, .. } = order.thresholds;
        self.assembly.is_between_segments()
            && (self.noted.len() >= flush_changes_min || self.assembly.put_bytes() >= flush_bytes_min)
    }

    /// Stores what was put together and is not stored.
    pub(super) async fn store_puts<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
    ) -> Result<(), Error> {
        for (name, bytes) in self.assembly.take_puts() {
            state.write(&name, bytes).await?;
        }
        Ok(())
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
        if self.assembly.leaves.len() < self.leaves_stored || !self.assembly.dropped.is_empty() {
            // A leaf was taken apart again that a blob lists.
            self.leaf_blobs.clear();
            self.leaves_stored = 0;
        }
        let tail = self.assembly.leaves.get(self.leaves_stored..).unwrap_or_default();
        if tail.len() > order.thresholds.tail_items_max {
            let bytes = index::encode(Level::Top, tail);
            let name = self.write_scratch(state, bytes).await?;
            self.leaf_blobs.push(name);
            self.leaves_stored = self.assembly.leaves.len();
        }
        if self.deletions.len() > order.thresholds.tail_items_max {
            self.store_deletions(state).await?;
        }
        let (mut in_doubt, mut in_doubt_blob) = (None, None);
        if let Some(noted) = noted {
            let bytes = changes::encode(noted);
            if bytes.len() > order.thresholds.tail_bytes_max {
                in_doubt_blob = Some(self.write_scratch(state, bytes).await?);
            } else {
                in_doubt = Some(root::encode_bytes(&bytes));
            }
        }
        let mut scratch = self.scratch.clone();
        scratch.extend(self.assembly.dropped.iter().cloned());
        self.document.checkpoint = Some(Checkpoint {
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
            deletions: self.deletion_blobs.clone(),
            deletions_tail: root::encode_known(&self.deletions),
            deletions_found: self.deletions_found,
            deletions_delivered: self.deletions_delivered,
            deletions_checked: self.deletions_checked,
            deletions_due: self.deletions_due,
            objects_found: self.objects_found,
            counts,
            order: self.watch.order,
            order_assumed: self.watch.order_assumed,
            scratch,
        });
        (self.document.in_doubt, self.document.in_doubt_blob) = (in_doubt, in_doubt_blob);
        self.revision = state.swap_document(self.revision, &self.document).await?;
        Ok(())
    }

    async fn store_deletions<B: BlobStore, D: DocumentStore>(&mut self, state: &State<'_, B, D>) -> Result<(), Error> {
        let deletions = mem::take(&mut self.deletions);
        let name = self.write_scratch(state, segment::encode(deletions.iter())).await?;
        self.deletion_blobs.push((name, deletions.len() as u64));
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

    /// Makes what was listed the current snapshot. Nothing is written when nothing differs.
    pub(super) async fn move_root<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        order: &Order<'_>,
        base: &mut Base,
    ) -> Result<(), Error> {
        let document = &self.document;
        let same = self.assembly.leaves == base.leaves.list && self.watch.order == document.root.order;
        let nothing_noted = document.in_doubt.is_none() && document.in_doubt_blob.is_none();
        let unchanged = same && document.root.entries_listed.is_none() && !self.limited;
        if unchanged && document.checkpoint.is_none() && nothing_noted {
            return Ok(());
        }
        self.store_puts(state).await?;
        let document = &self.document;
        let mut stale = mem::take(&mut self.scratch);
        stale.append(&mut self.assembly.dropped);
        stale.extend(document.in_doubt_blob.clone());
        let entries_listed = self.limited.then(|| document.root.entries_listed.unwrap_or(document.root.entries));
        let root = document.root.clone();
        let next = NextRoot { order: self.watch.order, stale, entries_listed };
        let mut root = next.store(state, &root, &mut base.leaves, &self.assembly).await?;
        root.job = Some(RootJob {
            job_id: order.job_id.to_owned(),
            fingerprint: order.fingerprint.to_owned(),
            counts: self.counts,
            known_before: self.known_before,
            limited: self.limited,
        });
        let document = SnapshotDocument { root, ..SnapshotDocument::default() };
        self.revision = state.swap_document(self.revision, &document).await?;
        self.document = document;
        Ok(())
    }
}

/// The root that comes next.
pub(super) struct NextRoot {
    pub(super) order: KeyOrder,
    /// Blobs that only checkpoints named.
    pub(super) stale: Vec<String>,
    pub(super) entries_listed: Option<u64>,
}

impl NextRoot {
    /// Stores its index, deletes some of what was retired before `root`, and retires what only `root` and `stale` name.
    pub(super) async fn store<B: BlobStore, D: DocumentStore>(
        self,
        state: &State<'_, B, D>,
        root: &Root,
        before: &mut Leaves,
        assembly: &Assembly,
    ) -> Result<Root, Error> {
        let leaves = &assembly.leaves;
        let mut named = BTreeSet::new();
        let mut retired: BTreeSet<String> = self.stale.into_iter().collect();
        let mut index = root.index.clone();
        if *leaves != before.list {
            index = match (leaves.as_slice(), assembly.top()) {
                ([], _) => None,
                ([leaf], _) => Some(node_name(leaf.hash)),
                (_, Some((hash, bytes))) => {
                    let name = node_name(hash);
                    state.write(&name, bytes).await?;
                    Some(name)
                }
                (_, None) => None,
            };
            let old: BTreeSet<_> = before.list.iter().map(|leaf| leaf.hash).collect();
            let new: BTreeSet<_> = leaves.iter().map(|leaf| leaf.hash).collect();
            for &leaf in new.difference(&old) {
                named.insert(node_name(leaf));
                let segments = match assembly.node(leaf) {
                    Some(segments) => segments.to_vec(),
                    None => state.read_node(&node_name(leaf)).await?.1,
                };
                named.extend(segments.iter().map(|segment| segment_name(segment.hash)));
            }
            for &leaf in old.difference(&new) {
                retired.insert(node_name(leaf));
                retired.extend(before.segments(state, leaf).await?.iter().map(|it| segment_name(it.hash)));
            }
            retired.extend(root.index.clone());
        }
        // A leaf that both have may be the old index itself, when there was but one.
        named.extend(index.clone());
        named.extend(leaves.iter().map(|leaf| node_name(leaf.hash)));
        retired.retain(|name| !named.contains(name));
        let old = root.garbage.iter().chain(&root.retired);
        let mut garbage: Vec<String> =
            old.filter(|name| !named.contains(*name) && !retired.contains(*name)).cloned().collect();
        garbage.sort_unstable();
        garbage.dedup();
        let kept = garbage.split_off(garbage.len().min(GARBAGE_DELETED_MAX));
        for name in retired.iter().filter(|_| mutation::is_on(Mutation::DeleteNamed)).chain(&garbage) {
            state.delete(name).await?;
        }
        Ok(Root {
            generation: root.generation + 1,
            index,
            entries: leaves.iter().fold(0, |sum, leaf| sum.saturating_add(leaf.entries)),
            bytes: leaves.iter().fold(0, |sum, leaf| sum.saturating_add(leaf.bytes)),
            entries_listed: self.entries_listed,
            order: self.order,
            retired: retired.into_iter().collect(),
            garbage: kept,
            job: None,
        })
    }
}
