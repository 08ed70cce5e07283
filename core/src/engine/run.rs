//! What a step holds in memory, and how it becomes the next snapshot.

use std::{collections::BTreeSet, mem};

use super::{
    Order,
    assembly::Assembly,
    base::Base,
    bookmark::Bookmark,
    drift, known,
    lanes::Reads,
    listing::{Mark, Open},
    memory::Paused,
    retire::{Met, Names, NextRoot},
    settle::append_rest,
    source::ListingWatch,
    state::State,
    thresholds::Thresholds,
};
use crate::{
    entry::{Entry, just_before},
    error::Error,
    job::{JobCounts, Phase},
    mutation::{self, Mutation},
    sink::{Change, ChangeKind},
    snapshot::{
        Known,
        changes::Noted,
        cut::{Begins, SEGMENT_BYTES_MAX},
        names::BlobName,
        root::{KnownPart, NameList, Resync, Root, RootJob, SnapshotDocument},
    },
    store::{BlobStore, DocumentStore},
};

/// A portion of deletions takes at most so many calls to the sink: what a step keeps in hand is twice that.
const PORTION_CALLS_MAX: usize = 50;

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
    /// Where the step before stopped.
    Paused(Box<Paused>),
}

/// What a step, or several of a job that is held between them, has in memory: at most one segment of the listing and one of
/// the snapshot, one leaf, what is about to be stored and delivered, and the list of leaves.
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
    /// The same of the checkpoint that was taken up, and how many entries there are.
    pub(super) pending_begins: Option<Begins>,
    pub(super) pending_entries: usize,
    /// Whether the last segment goes on behind `covered_to`.
    pub(super) unfinished: bool,
    pub(super) assembly: Assembly,
    /// Behind the latest leaf that is as before.
    pub(super) bookmark: Option<Bookmark>,
    /// That of them which the caller is to keep.
    pub(super) bookmark_to_keep: Option<Bookmark>,
    /// So many leaves were passed by at the latest bookmark that the caller knows.
    pub(super) leaves_passed: usize,
    /// Where the step before, or this one, stopped with nothing stored, to be gone on with.
    pub(super) paused: Option<Box<Paused>>,
    /// Segments are cut elsewhere than the listing's pieces are, until one begins at a key that says so.
    pub(super) realign: bool,
    /// Of the leaves, how many are in `leaf_blobs`.
    pub(super) leaves_stored: usize,
    pub(super) leaf_blobs: Vec<String>,
    /// The top of the next index, once it is stored.
    pub(super) top_stored: Option<String>,
    /// Found, and not in `deletion_parts`.
    pub(super) deletions: Vec<Known>,
    pub(super) deletion_key_bytes: usize,
    pub(super) deletion_parts: Vec<KnownPart>,
    /// What stands beside the snapshot and the job did not get to: the next root keeps it.
    pub(super) undeleted: Vec<KnownPart>,
    /// Leaves that were read, closed or taken apart.
    pub(super) looked_into: Names,
    pub(super) deletions_found: u64,
    pub(super) deletions_delivered: u64,
    /// Where it matters why files vanished, and many did: how many were looked for, and of these are to be delivered.
    pub(super) deletions_checked: u64,
    pub(super) deletions_due: u64,
    /// How many of those that were looked for again were delivered.
    pub(super) deletions_noted: u64,
    pub(super) scratch: Vec<String>,
    /// What is left of the root's garbage, where some was deleted.
    pub(super) garbage: Option<NameList>,
    /// To be delivered.
    pub(super) noted: Vec<Noted>,
    /// The keys that dead letters are of; `None`: not read yet.
    pub(super) dead_letters: Option<BTreeSet<String>>,
    /// Created and updated files found by this job, and those that it hands over again.
    pub(super) objects_found: u64,
    /// Which files are handed over again.
    pub(super) resync: Option<Resync>,
    pub(super) counts: JobCounts,
    pub(super) phase: Phase,
    pub(super) batch_max: usize,
    pub(super) sink_calls: u64,
    pub(super) keys: u64,
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
            pending_entries: 0,
            unfinished: false,
            assembly: Assembly::new(order.cut, Vec::new(), Vec::new()),
            bookmark: None,
            bookmark_to_keep: None,
            leaves_passed: 0,
            paused: None,
            realign: false,
            leaves_stored: 0,
            leaf_blobs: Vec::new(),
            top_stored: None,
            deletions: Vec::new(),
            deletion_key_bytes: 0,
            deletion_parts: Vec::new(),
            undeleted: Vec::new(),
            looked_into: Names::default(),
            deletions_found: 0,
            deletions_delivered: 0,
            deletions_checked: 0,
            deletions_due: 0,
            deletions_noted: 0,
            scratch: Vec::new(),
            garbage: None,
            noted: Vec::new(),
            objects_found: 0,
            resync: None,
            dead_letters: None,
            counts: JobCounts::default(),
            phase: Phase::Queued,
            batch_max: batch_max.max(1),
            sink_calls: 0,
            keys: 0,
        }
    }

    /// Goes on in another step, which counts anew what it reads and calls.
    pub(super) fn go_on(self, paused: Box<Paused>) -> Self {
        Self { paused: Some(paused), keys: 0, sink_calls: 0, ..self }
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
                self.assembly.reopen_segment(state, base, self.watch.order).await?;
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

    /// Notes the leaves that were looked into.
    pub(super) fn note_leaves(&mut self, base: &mut Base) {
        self.looked_into.note_leaves(base.leaves.take_looked_into());
        self.looked_into.note_leaves(self.assembly.take_looked_into());
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
        self.deletion_key_bytes += known.key.len();
        self.deletions.push(known);
        self.deletions_found += 1;
        let found = self.deletions_found;
        if !order.confirm_deletes && !drift::matters(order.reconcile) && self.are_many_deletions(order, found) {
            return Err(self.too_many(order, found));
        }
        let held_max = order.thresholds.deletions_held_max;
        if self.deletions.len() >= held_max || self.deletion_key_bytes >= SEGMENT_BYTES_MAX {
            self.store_deletions(state, order).await?;
        }
        Ok(())
    }

    /// How many deletions are noted and delivered at once.
    pub(super) fn portion(&self, order: &Order<'_>) -> usize {
        order.thresholds.flush_changes_min.min(self.batch_max.saturating_mul(PORTION_CALLS_MAX)).max(1)
    }

    /// Has the deletions delivered together with the last of what appeared, where all of it is one portion: that is one write
    /// of the document less.
    pub(super) fn note_few_deletions(&mut self, order: &Order<'_>) {
        let few = self.noted.len() + self.deletions.len() <= self.portion(order);
        let none_before = self.deletion_parts.is_empty() && self.deletions_delivered == 0;
        // What is asked for may be another thing than when they were found.
        let all_are_due = order.reconcile.on_delete && order.reconcile.on_filter_drift;
        let may_be_delivered = all_are_due && self.check_deletions(order, self.deletions_found).is_ok();
        if few && none_before && !self.noted.is_empty() && may_be_delivered {
            self.noted.extend(self.deletions.drain(..).map(Noted::Vanished));
            self.deletion_key_bytes = 0;
            self.deletions_delivered = self.deletions_found;
        }
    }

    /// Whether the job has delivered as many files as it may.
    pub(super) fn may_deliver_no_more(&self, order: &Order<'_>) -> bool {
        order.objects_max.is_some_and(|most| self.objects_found >= most) && !mutation::is_on(Mutation::IgnoreObjectsMax)
    }

    /// Hands files that are as before over again, where that was asked for. Answers before which one that ended, because
    /// the job may deliver no more.
    pub(super) fn take_again(&mut self, order: &Order<'_>, entries: &[Entry]) -> Option<usize> {
        let Resync { job_id, from } = self.resync.as_ref()?;
        for (nth, entry) in entries.iter().enumerate() {
            if from.as_ref().is_some_and(|from| self.watch.order.compare(&entry.key, from).is_lt()) {
                continue;
            }
            if self.may_deliver_no_more(order) {
                return Some(nth);
            }
            self.objects_found += 1;
            self.noted.push(Noted::Resynced { entry: entry.clone(), job_id: job_id.clone() });
        }
        None
    }

    /// Where the job would go on behind all that was taken so far, the last key listed being that one.
    pub(super) fn mark_behind(&self, start_after: Option<String>) -> ResumePoint {
        let JobCounts { listed, matched, matched_bytes, .. } = self.counts;
        ResumePoint { start_after, listed, matched, matched_bytes }
    }

    /// The budget is used up amid a piece: of its `entries`, so many are dealt with, and all that the snapshot knows before
    /// `up_to`. What is behind is listed again.
    pub(super) fn stop_before(&mut self, base: &mut Base, up_to: String, entries: &[Entry], dealt_with: usize) {
        let done = entries.get(..dealt_with).unwrap_or_default();
        // What an earlier step read of the segment was counted by it.
        let pending = mem::take(&mut self.pending_entries);
        let counted = entries.get(..pending).unwrap_or_default();
        let (more, less) = (done.len() as u64, counted.len() as u64);
        let bytes = |entries: &[Entry]| entries.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.size));
        self.counts.listed = (self.counts.listed + more).saturating_sub(less);
        self.counts.matched = (self.counts.matched + more).saturating_sub(less);
        self.counts.matched_bytes =
            self.counts.matched_bytes.saturating_add(bytes(done)).saturating_sub(bytes(counted));
        self.assembly.keep_reopened(base.take_read());
        done.iter().for_each(|entry| self.assembly.push_entry(entry.into()));
        self.note_leaves(base);
        let start_after = match (done.last(), counted.first(), &self.mark) {
            (Some(last), ..) => Some(last.key.clone()),
            (None, Some(first), _) => Some(just_before(&first.key)),
            (None, None, Some(mark)) => mark.start_after.clone(),
            (None, None, None) => self.watch.last_key().map(str::to_owned),
        };
        self.mark = Some(self.mark_behind(start_after));
        self.covered_to = Some(up_to);
        self.unfinished = true;
        if self.assembly.is_between_segments() {
            self.resume_point.clone_from(&self.mark);
        }
    }

    /// The job may deliver no more: from the entry numbered `stop` on, the next snapshot is the one there is.
    pub(super) fn stop_at(&mut self, base: &mut Base, entries: &[Entry], stop: usize) {
        for entry in entries.get(..stop).unwrap_or_default() {
            self.assembly.push_entry(entry.into());
            self.counts.listed += 1;
            self.counts.matched += 1;
            self.counts.matched_bytes = self.counts.matched_bytes.saturating_add(entry.size);
        }
        self.assembly.keep_reopened(base.take_read());
        append_rest(&mut self.assembly, base);
        self.undeleted = base.take_undeleted();
        self.assembly.finish();
        self.note_leaves(base);
        self.listed = true;
        self.limited = true;
        if let (Some(resync), Some(entry)) = (&mut self.resync, entries.get(stop)) {
            // All before this one were handed over once more.
            let is_behind = resync.from.as_ref().is_none_or(|from| self.watch.order.compare(from, &entry.key).is_lt());
            if is_behind {
                resync.from = Some(entry.key.clone());
            }
        }
    }

    /// Whether so many deletions are not delivered unless they are confirmed.
    pub(super) fn are_many_deletions(&self, order: &Order<'_>, count: u64) -> bool {
        !order.deletion_limit.allows(count, self.document.root.entries_to_guard())
            && !mutation::is_on(Mutation::IgnoreDeletionLimit)
    }

    /// Before the first of so many deletions is delivered: they may be too many.
    pub(super) fn check_deletions(&self, order: &Order<'_>, count: u64) -> Result<(), Error> {
        let begins = self.deletions_delivered == 0 && !order.confirm_deletes;
        if begins && self.are_many_deletions(order, count) { Err(self.too_many(order, count)) } else { Ok(()) }
    }

    /// The error for that.
    pub(super) fn too_many(&self, order: &Order<'_>, count: u64) -> Error {
        order.deletion_limit.exceeded(count, self.document.root.entries_to_guard(), self.deletions_delivered > 0)
    }

    /// Of the deletions found, those that are kept together with the one numbered `from`, from that one on: one at least.
    pub(super) async fn deletions_from<B: BlobStore, D: DocumentStore>(
        &self,
        state: &State<'_, B, D>,
        from: u64,
    ) -> Result<Vec<Known>, Error> {
        let parts = known::without_first(self.deletion_parts.clone(), from);
        let known = match parts.first() {
            Some(part) => known::read(state, part).await?,
            None => {
                let in_parts = known::count(&self.deletion_parts);
                let skipped = usize::try_from(from.saturating_sub(in_parts)).unwrap_or(usize::MAX);
                self.deletions.get(skipped..).unwrap_or_default().to_vec()
            }
        };
        if known.is_empty() {
            return Err(Error::internal("A job keeps fewer deletions than it found."));
        }
        Ok(known)
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
        Reads { keys: self.keys, in_flight: 0, begins: false, delivers: false }
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

    /// Whether what was listed is another snapshot than the current one, or there is something to put in order.
    pub(super) fn moves_root(&self, base: &Base) -> bool {
        let document = &self.document;
        let same = self.assembly.leaves == base.leaves.list && self.watch.order == document.root.order;
        let nothing_noted = document.in_doubt.is_none() && document.in_doubt_blob.is_none();
        let unchanged = same && document.root.entries_listed.is_none() && !self.limited;
        let nothing_beside =
            document.root.undeleted.is_empty() && self.undeleted.is_empty() && document.root.resync.is_none();
        mutation::is_on(Mutation::AlwaysMoveRoot)
            || !(unchanged && document.checkpoint.is_none() && nothing_noted && nothing_beside)
    }

    /// The current root, without the garbage that was deleted.
    pub(super) fn root_without_swept(&self) -> Root {
        let mut root = self.document.root.clone();
        if let Some(garbage) = &self.garbage {
            root.garbage.clone_from(garbage);
        }
        root
    }

    /// Deletes what was retired before the current root; `false`: the budget is used up before all is.
    pub(super) async fn sweep<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        order: &Order<'_>,
        base: &mut Base,
        allows: &dyn Fn(Reads, u64) -> bool,
    ) -> Result<bool, Error> {
        let root = self.root_without_swept();
        if root.garbage.is_empty() {
            return Ok(true);
        }
        self.note_leaves(base);
        // The stored checkpoint may still name what was taken apart since.
        self.scratch.append(&mut self.assembly.dropped);
        let Met { mut named, .. } = Met::of(state, &self.looked_into, &base.leaves, &self.assembly).await?;
        let parts = self.deletion_parts.iter().filter_map(|part| part.blob.as_ref());
        named.extend(self.scratch.iter().chain(parts).filter_map(|name| BlobName::parse(name)));
        let mut garbage = Names::of(&root.garbage)?;
        let mut must = true;
        let (reads, sink_calls) = (self.reads(), self.sink_calls);
        let more = || mem::take(&mut must) || allows(reads, sink_calls);
        if !garbage.delete(state, &named, &mut self.scratch, more).await? {
            self.garbage = Some(garbage.store(state, root.generation * 2 + 1).await?);
            self.save_checkpoint(state, order, None).await?;
            return Ok(false);
        }
        self.garbage = Some(NameList::default());
        Ok(true)
    }

    /// Makes what was listed the current snapshot.
    pub(super) async fn move_root<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        order: &Order<'_>,
        base: &mut Base,
    ) -> Result<(), Error> {
        self.store_puts(state).await?;
        self.note_leaves(base);
        let root = &self.root_without_swept();
        let mut stale = mem::take(&mut self.scratch);
        stale.append(&mut self.assembly.dropped);
        stale.extend(self.document.in_doubt_blob.clone());
        stale.extend(self.deletion_parts.iter().filter_map(|part| part.blob.clone()));
        let next = NextRoot {
            order: self.watch.order,
            stale,
            looked_into: mem::take(&mut self.looked_into),
            entries_listed: self.limited.then(|| root.entries_listed.unwrap_or(root.entries)),
            undeleted: mem::take(&mut self.undeleted),
            resync: self.resync.take().filter(|_| self.limited),
            in_doubt: None,
            top_stored: self.top_stored.take(),
        };
        let mut root = next.store(state, root, &base.leaves, &self.assembly).await?;
        root.job = Some(RootJob {
            job_id: order.job_id.to_owned(),
            fingerprint: order.fingerprint.to_owned(),
            counts: self.counts,
            objects_found: self.objects_found,
            known_before: self.known_before,
            limited: self.limited,
        });
        let document = SnapshotDocument { root, ..SnapshotDocument::default() };
        self.revision = state.swap_document(self.revision, &document).await?;
        self.document = document;
        Ok(())
    }
}
