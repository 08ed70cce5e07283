//! Compares pieces of the listing with the snapshot, and says what changed.

pub mod diff;
mod unreadable;

use self::{
    diff::{Difference, diff},
    unreadable::Carried,
};
use super::{
    listing::{
        Content, Mark, Open, Piece, RangeReader, SPLIT_PAGES_FIRST, Sealed,
        lanes::Reads,
        source::{PAGE_KEYS, Source},
    },
    next::append_rest,
    step::Step,
};
use crate::{
    change::{Found, Previous},
    engine::previous::{Base, Chunk},
    entry::{Entry, is_unreadable_at, just_before},
    error::Error,
    job::JobCounts,
    mutation::{self, Mutation},
    policy,
    snapshot::{
        Known,
        cut::{Begins, LEAF_SEGMENTS_MAX},
        index::SegmentRef,
    },
    store::{BlobStore, DocumentStore},
    time::Clock,
};

/// Target minimum of files in each range that is read side by side with others.
const RANGE_FILES_MIN: u64 = 24_000;
/// Minimum of ranges for each stream; wins over [`RANGE_FILES_MIN`].
const RANGES_A_STREAM: u64 = 8;

/// What became of a piece.
pub(super) enum Taken {
    /// It is dealt with.
    All,
    /// The job may take no more files.
    Limited,
    /// The budget is used up before all is compared, and it is noted where.
    Stopped,
}

/// What became of the entries of a segment.
enum Compared {
    /// They are compared.
    All,
    /// The job may take only that many of them.
    Limited(usize),
    /// The budget is used up: that many of them are compared, and all that was known before that key.
    Stopped { dealt_with: usize, up_to: String },
}

impl<S: Source, B: BlobStore, D: DocumentStore, C: Clock> Step<'_, S, B, D, C> {
    /// The snapshot that is compared with, and the ranges that are read side by side: the first from where the job is,
    /// the others from leaf to leaf of the snapshot.
    pub(super) async fn plan_ranges(&mut self, open: Open) -> Result<(Base, RangeReader, Vec<RangeReader>), Error> {
        let place = &self.job.place;
        let root = &self.job.stored.document.root;
        let base = Base::open(&self.state, root, place.covered_to.as_deref(), place.watch.order).await?;
        self.job.next.assembly.keep_stored(&base.leaves.list);
        if !self.pass_leaves(&base) {
            return Err(Error::internal("A job was to resume behind a leaf that its snapshot does not have."));
        }
        let bounds = self.range_bounds(&base);
        let leaves = base.leaves_ahead();
        // A job that hands over everything needs the entries of leaves that are as before, too; and what stands beside
        // the snapshot may lie in any of them.
        let whole = self.job.resync.is_none() && !base.has_undeleted();
        let known_leaves = |leaves: &[SegmentRef]| if whole { leaves.to_vec() } else { Vec::new() };
        let key = |bound: Option<&usize>| bound.and_then(|&index| leaves.get(index)).map(|leaf| leaf.first_key.clone());
        let until = |bound: Option<&usize>| bound.copied().unwrap_or(leaves.len());
        let known = known_leaves(leaves.get(..until(bounds.first())).unwrap_or_default());
        let head = self.first_range(&base, key(bounds.first()), known, open);
        let mut ahead = Vec::new();
        for (nth, &bound) in bounds.iter().enumerate() {
            let Some(from) = key(Some(&bound)) else { continue };
            let next = bounds.get(nth + 1);
            let known = leaves.get(bound..until(next)).unwrap_or_default();
            ahead.push(RangeReader::range(self.job.place.watch.order, from, key(next), known_leaves(known)));
        }
        Ok((base, head, ahead))
    }

    /// The range that begins where the job is.
    fn first_range(&self, base: &Base, end: Option<String>, known: Vec<SegmentRef>, open: Open) -> RangeReader {
        let (place, segments) = (&self.job.place, &self.job.next.assembly.segments);
        // The open segment may begin a leaf, and then those before it are all of another.
        let begins_leaf = open.first_key().is_some_and(|key| self.spec.cut.begins(key) == Begins::Leaf);
        let full = segments.len() >= LEAF_SEGMENTS_MAX && !open.is_empty();
        let segments = if begins_leaf || full { 0 } else { segments.len() };
        let begins = self.begins(open.is_empty());
        let (watch, from) = (place.watch.clone(), place.covered_to.clone());
        let reader = RangeReader::resume(watch, from, end, known, open, segments, begins).knows(base.files_at_hand());
        let much = self.job.counts.listed >= u64::from(SPLIT_PAGES_FIRST) * PAGE_KEYS;
        if much { reader.split_soon() } else { reader }
    }

    /// At which of the leaves ahead a range begins.
    fn range_bounds(&self, base: &Base) -> Vec<usize> {
        let (place, leaves) = (&self.job.place, base.leaves_ahead());
        if self.spec.streams < 2 {
            return Vec::new();
        }
        let begins_range = |leaf: &SegmentRef| {
            // What was listed already, and left out by the filters, is not listed again.
            let last = place.watch.last_key();
            let is_ahead = last.is_none_or(|last| place.watch.order.compare(last, &leaf.first_key).is_lt());
            is_ahead
                && place.covered_to.as_deref() != Some(leaf.first_key.as_str())
                && self.spec.cut.begins(&leaf.first_key) == Begins::Leaf
        };
        let mut bounds: Vec<usize> =
            (0..leaves.len()).filter(|&index| leaves.get(index).is_some_and(begins_range)).collect();
        if place.covered_to.is_none() {
            // What is before the first key that is known belongs to the first range as well.
            bounds.retain(|&index| index > 0);
        }
        // Each range has a page of which it makes use of a part, so they are not too short; but there are enough for
        // all.
        let files: u64 = leaves.iter().map(|leaf| leaf.entries).sum();
        let enough = (files / (self.spec.streams as u64).saturating_mul(RANGES_A_STREAM)).min(RANGE_FILES_MIN);
        let mut before = 0_usize;
        bounds.retain(|&index| {
            let range = leaves.get(before..index).unwrap_or_default();
            let long = range.iter().map(|leaf| leaf.entries).sum::<u64>() >= enough;
            before = if long { index } else { before };
            long
        });
        bounds
    }

    /// What the first key behind `covered_to` begins, if that is known before it is seen.
    fn begins(&self, nothing_pending: bool) -> Option<Begins> {
        let place = &self.job.place;
        let Some(covered_to) = place.covered_to.as_deref().filter(|_| nothing_pending) else {
            return Some(place.pending_begins.unwrap_or(Begins::Leaf));
        };
        // A segment that was full ends there, whatever comes next. Otherwise a key was to begin the next segment, and
        // may be gone by now.
        let was_full = self.spec.cut.begins(covered_to) == Begins::Nothing && !place.unfinished;
        was_full.then_some(Begins::Leaf)
    }

    /// Compares a piece of the listing with the snapshot, and puts it into the next one.
    pub(super) async fn take_piece(&mut self, base: &mut Base, piece: Piece) -> Result<Taken, Error> {
        let Piece { content, until } = piece;
        self.check_not_empty(&until)?;
        let first_key = match &content {
            Content::Nothing => None,
            Content::Leaf(leaf) => Some(&leaf.first_key),
            Content::Segment(sealed) => Some(&sealed.segment.first_key),
        };
        if let Some(first_key) = first_key
            && let Some(up_to) = self.take_gone(base, Some(first_key)).await?
        {
            let entries = match &content {
                Content::Segment(sealed) => entries_of(sealed)?,
                _ => Vec::new(),
            };
            self.stop_before(base, up_to, &entries, 0, &Carried::default()).await?;
            return Ok(Taken::Stopped);
        }
        let is_leaf = matches!(content, Content::Leaf(_));
        match content {
            Content::Nothing => {}
            Content::Leaf(leaf) => {
                if !base.skip_leaf(leaf.hash) {
                    return Err(Error::internal("The listing met a leaf of the snapshot out of its turn."));
                }
                self.job.place.realign = false;
                self.job.next.assembly.append_leaf(leaf);
            }
            Content::Segment(sealed) => match self.take_segment(base, sealed, until.covered_to.as_deref()).await? {
                Taken::All => {}
                other => return Ok(other),
            },
        }
        self.take_mark(base, until, is_leaf).await
    }

    /// An empty listing where there were files stops the job before any of them counts as gone: that may take several
    /// steps, and the next may be told something else.
    fn check_not_empty(&self, until: &Mark) -> Result<(), Error> {
        let known = self.job.stored.known_before;
        let empty = until.covered_to.is_none() && self.job.counts.listed + until.listed == 0;
        if empty && known > 0 && self.spec.reconcile.deletes() && !self.spec.confirm_deletes {
            return Err(policy::empty_listing(known));
        }
        Ok(())
    }

    /// Takes a segment of the listing, which goes to `end`.
    async fn take_segment(&mut self, base: &mut Base, sealed: Sealed, end: Option<&str>) -> Result<Taken, Error> {
        self.job.place.realign &= !self.spec.cut.begins_segment(&sealed.segment.first_key);
        let equal = base.skip_segment(&self.state, &sealed.segment, end, self.job.place.watch.order).await?;
        if equal && !self.job.place.realign && self.job.resync.is_none() {
            self.job.next.assembly.append_equal(sealed.segment, sealed.bytes);
            return Ok(Taken::All);
        }
        // Where nothing was known before, all of it is new.
        let known = if equal { None } else { base.take_before(&self.state, end, self.job.place.watch.order).await? };
        if !equal && known.is_none() && self.takes_all_new() {
            let is_readable = self.take_all_new(&sealed)?;
            self.job.next.assembly.keep_reopened(base.take_read());
            if is_readable {
                self.job.next.assembly.append_segment(sealed.segment, Some(sealed.bytes));
            } else {
                self.push_readable(base, &entries_of(&sealed)?, &Carried::default()).await?;
            }
            return Ok(Taken::All);
        }
        let entries = entries_of(&sealed)?;
        let mut carried = Carried::default();
        let compared = if equal {
            match self.take_again(&entries) {
                Some(stop) => {
                    base.put_back(entries.iter().skip(stop).map(Known::from), self.job.place.watch.order);
                    Compared::Limited(stop)
                }
                None => Compared::All,
            }
        } else {
            self.compare(base, &entries, end, known, &mut carried).await?
        };
        match compared {
            Compared::All => {}
            Compared::Limited(stop) => {
                self.stop_at(base, &entries, stop, &carried).await?;
                return Ok(Taken::Limited);
            }
            Compared::Stopped { dealt_with, up_to } => {
                self.stop_before(base, up_to, &entries, dealt_with, &carried).await?;
                return Ok(Taken::Stopped);
            }
        }
        self.job.next.assembly.keep_reopened(base.take_read());
        if entries.iter().any(Entry::is_unreadable) {
            self.push_readable(base, &entries, &carried).await?;
            return Ok(Taken::All);
        }
        let (assembly, realign) = (&mut self.job.next.assembly, self.job.place.realign);
        match (equal, realign) {
            (true, false) => assembly.append_equal(sealed.segment, sealed.bytes),
            (true, true) => assembly.realign_equal(sealed.segment.hash, &entries),
            (false, true) => entries.iter().for_each(|entry| assembly.push_entry(entry.into())),
            (false, false) => assembly.append_segment(sealed.segment, Some(sealed.bytes)),
        }
        Ok(Taken::All)
    }

    /// Behind a piece: what the snapshot knows up to there is gone, and the job could go on from there.
    async fn take_mark(&mut self, base: &mut Base, until: Mark, is_leaf: bool) -> Result<Taken, Error> {
        let gone = self.take_gone(base, until.covered_to.as_deref()).await?;
        self.note_leaves(base);
        let counts = &mut self.job.counts;
        counts.listed += until.listed;
        counts.matched += until.matched;
        counts.matched_bytes = counts.matched_bytes.saturating_add(until.matched_bytes);
        counts.unreadable += until.unreadable;
        let mark = self.job.mark_behind(until.after);
        let is_between = self.job.next.assembly.is_between_segments();
        let place = &mut self.job.place;
        place.pending_entries = 0;
        place.at_end = gone.is_none() && until.covered_to.is_none();
        let taken = if gone.is_some() { Taken::Stopped } else { Taken::All };
        let unfinished = until.unfinished || gone.is_some();
        place.covered_to = gone.or(until.covered_to);
        place.mark = Some(mark);
        if is_between {
            place.resume_point.clone_from(&place.mark);
            place.unfinished = unfinished;
        }
        if is_leaf {
            self.note_bookmark(base);
        }
        Ok(taken)
    }

    /// All that the snapshot knows before `end` is gone. Answers up to which key that was dealt with, where the budget
    /// was used up before the end.
    async fn take_gone(&mut self, base: &mut Base, end: Option<&str>) -> Result<Option<String>, Error> {
        while let Some(chunk) = base.take_before(&self.state, end, self.job.place.watch.order).await? {
            for known in chunk.known {
                self.vanished(known).await?;
            }
            if chunk.up_to.is_some() && !self.allows(Reads::default()) {
                return Ok(chunk.up_to);
            }
        }
        Ok(None)
    }

    /// Compares `entries`, which are all that is listed up to `end`, with the snapshot.
    /// `chunk` is what was known of the beginning. What stays as it was known is added to `carried`.
    async fn compare(
        &mut self,
        base: &mut Base,
        entries: &[Entry],
        end: Option<&str>,
        mut chunk: Option<Chunk>,
        carried: &mut Carried,
    ) -> Result<Compared, Error> {
        let keys = self.job.place.watch.order;
        let mut done = 0;
        loop {
            let (known, up_to) = chunk.map_or((Vec::new(), None), |chunk| (chunk.known, chunk.up_to));
            let last = known.is_empty();
            let left = entries.get(done..).unwrap_or_default();
            let here = match &up_to {
                Some(up_to) => left.partition_point(|entry| keys.compare(&entry.key, up_to).is_lt()),
                None => left.len(),
            };
            let listed = left.get(..here).unwrap_or_default();
            if let Some(stop) = self.take_differences(listed, &known, carried).await? {
                let key = listed.get(stop).map(|entry| entry.key.as_str());
                let from =
                    key.map_or(known.len(), |key| known.partition_point(|it| keys.compare(&it.key, key).is_lt()));
                base.put_back(known.into_iter().skip(from), keys);
                return Ok(Compared::Limited(done + stop));
            }
            done += here;
            match up_to {
                Some(up_to) if !last && !self.allows(Reads::default()) => {
                    return Ok(Compared::Stopped { dealt_with: done, up_to });
                }
                Some(_) if !last => chunk = base.take_before(&self.state, end, keys).await?,
                _ => return Ok(Compared::All),
            }
        }
    }

    /// Whether files that are new are taken without a look at each.
    fn takes_all_new(&self) -> bool {
        !self.job.place.realign
            && self.job.resync.is_none()
            && self.spec.objects_max.is_none()
            && !mutation::is_on(Mutation::Watermark)
    }

    /// Takes all files of a segment as new; `false`: not all of them, because some cannot be read.
    fn take_all_new(&mut self, sealed: &Sealed) -> Result<bool, Error> {
        let job = &mut self.job;
        let (outbox, mut taken) = (&mut job.outbox, 0);
        let read = sealed.for_each(|key, etag, size, last_modified| {
            if !is_unreadable_at(last_modified) {
                outbox.created(key, etag, size, last_modified);
                taken += 1;
            }
        });
        read.map_err(|error| error.into_error("a listed segment"))?;
        job.objects_found += taken;
        Ok(taken == sealed.segment.entries)
    }

    /// Takes the differences between what is listed and what was known of the same range. Answers before which entry
    /// that ended, because the job may take no more files.
    async fn take_differences(
        &mut self,
        listed: &[Entry],
        known: &[Known],
        carried: &mut Carried,
    ) -> Result<Option<usize>, Error> {
        let keys = self.job.place.watch.order;
        // Entries before this one are dealt with.
        let mut at = 0;
        for difference in diff(listed, known.iter().cloned(), |a, b| keys.compare(a, b)) {
            let place = match &difference {
                Difference::Vanished(known) => &known.key,
                Difference::Appeared { entry, .. } => &entry.key,
            };
            let place = at
                + listed.get(at..).unwrap_or_default().partition_point(|entry| keys.compare(&entry.key, place).is_lt());
            // Those in between are as before.
            if let Some(stop) = self.take_again(listed.get(at..place).unwrap_or_default()) {
                return Ok(Some(at + stop));
            }
            at = place;
            match difference {
                Difference::Vanished(known) => self.vanished(known).await?,
                Difference::Appeared { entry, previous } if entry.is_unreadable() => {
                    match previous {
                        Some(known) if mutation::is_on(Mutation::TakeUnreadableAsGone) => self.vanished(known).await?,
                        previous => carried.keep(previous),
                    }
                    at = place + 1;
                }
                Difference::Appeared { previous: Some(_), entry }
                    if !self.spec.reconcile.on_update
                        && !self.hands_over(&entry.key)
                        && !mutation::is_on(Mutation::IgnoreReconcile) => {}
                Difference::Appeared { entry, .. } if mutation::is_below_watermark(entry.last_modified) => {}
                Difference::Appeared { .. } if self.may_take_no_more() => return Ok(Some(place)),
                Difference::Appeared { entry, previous } => {
                    self.job.objects_found += 1;
                    self.job.outbox.appeared(entry.into(), previous.as_ref().map(Previous::from).as_ref());
                    at = place + 1;
                }
            }
        }
        let stop = self.take_again(listed.get(at..).unwrap_or_default());
        Ok(stop.map(|stop| at + stop))
    }

    /// Whether the job has found as many files as it may.
    fn may_take_no_more(&self) -> bool {
        self.spec.objects_max.is_some_and(|most| self.job.objects_found >= most)
            && !mutation::is_on(Mutation::IgnoreObjectsMax)
    }

    /// Whether a file with this key is handed over, though it is as before or its update is not asked for.
    fn hands_over(&self, key: &str) -> bool {
        let is_ahead = |from: &String| self.job.place.watch.order.compare(key, from).is_ge();
        self.job.resync.as_ref().is_some_and(|resync| resync.from.as_ref().is_none_or(is_ahead))
    }

    /// Hands files that are as before over again, where that was asked for. Answers before which one that ended,
    /// because the job may take no more.
    fn take_again(&mut self, entries: &[Entry]) -> Option<usize> {
        self.job.resync.as_ref()?;
        for (nth, entry) in entries.iter().enumerate() {
            if !self.hands_over(&entry.key) {
                continue;
            }
            if self.may_take_no_more() {
                return Some(nth);
            }
            self.job.objects_found += 1;
            self.job.outbox.push(&Found::Again(entry.clone()));
        }
        None
    }

    /// The budget is used up amid a piece: of its `entries`, that many are dealt with, and all that the snapshot knows
    /// before `up_to`. What is behind is listed again.
    async fn stop_before(
        &mut self,
        base: &mut Base,
        up_to: String,
        entries: &[Entry],
        dealt_with: usize,
        carried: &Carried,
    ) -> Result<(), Error> {
        let done = entries.get(..dealt_with).unwrap_or_default();
        // What an earlier step read of the segment was counted by it.
        let pending = std::mem::take(&mut self.job.place.pending_entries);
        let counted = entries.get(..pending).unwrap_or_default();
        let (more, less) = (counts_of(done), counts_of(counted));
        let counts = &mut self.job.counts;
        counts.listed = (counts.listed + more.listed).saturating_sub(less.listed);
        counts.matched = (counts.matched + more.matched).saturating_sub(less.matched);
        counts.unreadable = (counts.unreadable + more.unreadable).saturating_sub(less.unreadable);
        counts.matched_bytes =
            counts.matched_bytes.saturating_add(more.matched_bytes).saturating_sub(less.matched_bytes);
        self.job.next.assembly.keep_reopened(base.take_read());
        self.push_readable(base, done, carried).await?;
        self.note_leaves(base);
        let start_after = match (done.last(), counted.first(), &self.job.place.mark) {
            (Some(last), ..) => Some(last.key.clone()),
            (None, Some(first), _) => Some(just_before(&first.key)),
            (None, None, Some(mark)) => mark.start_after.clone(),
            (None, None, None) => self.job.place.watch.last_key().map(str::to_owned),
        };
        let mark = self.job.mark_behind(start_after);
        let is_between = self.job.next.assembly.is_between_segments();
        let place = &mut self.job.place;
        place.mark = Some(mark);
        place.covered_to = Some(up_to);
        place.unfinished = true;
        if is_between {
            place.resume_point.clone_from(&place.mark);
        }
        Ok(())
    }

    /// The job may take no more files: from the entry numbered `stop` on, the next snapshot is the one there is.
    async fn stop_at(
        &mut self,
        base: &mut Base,
        entries: &[Entry],
        stop: usize,
        carried: &Carried,
    ) -> Result<(), Error> {
        let done = entries.get(..stop).unwrap_or_default();
        self.push_readable(base, done, carried).await?;
        self.job.counts = self.job.counts.plus(counts_of(done));
        let assembly = &mut self.job.next.assembly;
        assembly.keep_reopened(base.take_read());
        append_rest(assembly, base);
        assembly.finish();
        self.job.next.undeleted = base.take_undeleted();
        self.note_leaves(base);
        self.job.place.listed = true;
        self.job.place.limited = true;
        if let (Some(resync), Some(entry)) = (&mut self.job.resync, entries.get(stop)) {
            // All before this one were handed over once more.
            let order = self.job.place.watch.order;
            if resync.from.as_ref().is_none_or(|from| order.compare(from, &entry.key).is_lt()) {
                resync.from = Some(entry.key.clone());
            }
        }
        Ok(())
    }
}

/// What entries that passed the filters add to the counts of a listing.
fn counts_of(entries: &[Entry]) -> JobCounts {
    let mut counts = JobCounts { listed: entries.len() as u64, ..JobCounts::default() };
    for entry in entries {
        let (unreadable, matched) = if entry.is_unreadable() { (1, 0) } else { (0, 1) };
        counts.unreadable += unreadable;
        counts.matched += matched;
        counts.matched_bytes = counts.matched_bytes.saturating_add(entry.size);
    }
    counts
}

fn entries_of(sealed: &Sealed) -> Result<Vec<Entry>, Error> {
    sealed.entries().map_err(|error| error.into_error("a listed segment"))
}
