//! The sync engine: streams a listing, compares it with the snapshot, delivers what changed, moves the root.
//!
//! One call of [`Engine::step`] does as much as its [`Budget`] allows. The order of effects makes every repetition
//! harmless: **deliver to the sink → store segments → save the checkpoint**, and at the end of the job, after every
//! deletion is delivered and everything it names is stored, **move the root**. Cut off at any point, the same changes
//! are delivered again under the same ids.
//!
//! What it deliberately does not do: keep a watermark (last modified is the *start* of an upload, so one loses files),
//! trust a continuation token across steps, or deliver a deletion before the whole listing was read.
//!
//! Known limit: a batch that was delivered when the step died, before that was noted, is in doubt. The same job delivers it
//! again and all is well; but when its file changes back in between (created and deleted again; deleted, or filtered out,
//! and there again as it was), there is no difference left to deliver, and the sink keeps the version in doubt.
//!
//! # Invariants
//! - The root names only blobs that are stored, and its generation never goes back.
//! - A deletion is delivered only when the listing was read to its end without an error, and within the limit.
//! - A job that finds nothing writes nothing; one of several steps writes its checkpoints, and no blob.
//! - What a job that broke off had delivered, up to its latest checkpoint, is in the snapshot.

pub mod base;
pub mod budget;
pub mod diff;
pub mod source;
pub mod state;

use std::{collections::BTreeSet, mem};

use serde::{Deserialize, Serialize};

use self::{
    base::Base,
    budget::{Budget, Spent},
    diff::{Difference, diff},
    source::{Admitted, ListingWatch, Page, PageStart, Source, SourceCost},
    state::{State, segment_name},
};
use crate::{
    entry::{Entry, KeyOrder},
    error::{Error, ErrorKind, Retry},
    filter::Filter,
    job::{JobCost, JobCounts, Phase},
    sink::{Change, ChangeKind, Delivery, Sink},
    snapshot::{
        ContentHash, Known,
        cut::{Cut, SEGMENT_BYTES_MAX, SEGMENT_ENTRIES_MAX},
        index::{self, SegmentRef},
        root::{self, Checkpoint, Root, RootJob, SnapshotDocument},
        segment,
    },
    store::{BlobStore, DocumentStore},
    time::Clock,
};

/// Deletions up to this many are always delivered.
pub const DELETIONS_UNASKED_MAX: u64 = 100;
/// How often a change is offered to a sink that refuses it.
pub const DELIVERY_ATTEMPTS_MAX: u32 = 3;
/// What a checkpoint holds in the document itself, in entries; more goes into a blob.
const CHECKPOINT_TAIL_MAX: usize = 256;
/// What a checkpoint holds in the document itself of the segment that is not complete, in bytes; more goes into a blob.
/// A poll that finds nothing thus stores no blob, however many steps it takes.
const CHECKPOINT_PENDING_BYTES_MAX: usize = 512 << 10;
/// Bytes that an entry takes at most besides its key, encoded.
const ENTRY_BYTES_MAX: usize = 48;

/// Which changes are delivered. The snapshot follows the bucket in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reconcile {
    /// Deliver deletions.
    pub on_delete: bool,
    /// Deliver updates.
    pub on_update: bool,
    /// Deliver deletions of keys that are still there, but match the filters no longer. Kept and shown; for now they are
    /// delivered as `on_delete` says.
    pub on_filter_drift: bool,
}

impl Default for Reconcile {
    fn default() -> Self {
        Self { on_delete: true, on_update: true, on_filter_drift: true }
    }
}

/// What a job is to do.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// The job.
    pub job_id: &'a str,
    /// The sync, which is part of every change's id.
    pub sync_id: &'a str,
    /// Where segments begin.
    pub cut: Cut,
    /// Which entries are taken.
    pub filter: &'a Filter,
    /// Changes with the source path and the filters; a checkpoint made under others is dropped.
    pub fingerprint: &'a str,
    /// Which changes are delivered.
    pub reconcile: Reconcile,
    /// Deliver deletions though they are more than the limit.
    pub confirm_deletes: bool,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The budget is used up: call [`Engine::step`] again.
    Continue,
    /// The job is done: all is delivered, and the root names the new snapshot.
    Done,
}

/// What a step did. Counts are those of the whole job so far, costs those of this step.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// How it ended. After an error the job goes on from its latest checkpoint, or ends.
    pub outcome: Result<Outcome, Error>,
    /// What the job is doing.
    pub phase: Phase,
    /// What the job has found and delivered.
    pub counts: JobCounts,
    /// What this step has spent.
    pub cost: JobCost,
    /// Files in the snapshot before the job.
    pub known_before: u64,
    /// Files in the current snapshot, and their bytes.
    pub files_known: u64,
    /// The sum of their sizes.
    pub bytes_known: u64,
    /// What went to the stores and the sink in this step.
    pub spent: Spent,
}

/// The engine, and what it works with.
#[derive(Clone, Copy, Debug)]
pub struct Engine<'a, S, B, D, K, C> {
    /// What is listed.
    pub source: &'a S,
    /// Where segments are kept. Names are the sync's own: the home keeps syncs apart.
    pub blobs: &'a B,
    /// Where the snapshot document is kept. Names are the sync's own.
    pub documents: &'a D,
    /// Where changes go.
    pub sink: &'a K,
    /// The time.
    pub clock: &'a C,
}

impl<S: Source, B: BlobStore, D: DocumentStore, K: Sink, C: Clock> Engine<'_, S, B, D, K, C> {
    /// Goes on with the job from its latest checkpoint, or begins it, until it is done or the budget is used up.
    ///
    /// Errors are in [`StepReport::outcome`]. After a transient one the same call goes on from the latest checkpoint.
    pub async fn step(&self, order: &Order<'_>, budget: &Budget) -> StepReport {
        let started = self.clock.now();
        let cost_before = self.source.cost();
        let state = State::new(self.blobs, self.documents);
        let mut run = Run::new(self.sink.batch_max());
        let spent = |run: &Run, state: &State<'_, B, D>| {
            run.spent(state, cost_before, self.source.cost(), self.clock.now().millis_since(started))
        };
        let outcome = self.run(&state, &mut run, order, &|run, state| budget.allows(&spent(run, state))).await;
        if outcome.as_ref().is_err_and(|error| !error.is_transient()) {
            // The job ends, and no checkpoint names what this step has stored. What cannot be deleted now is not worth
            // a second error.
            let _ = delete_unnamed(&state, &run.document.root, mem::take(&mut run.unsaved)).await;
        }
        let cost = self.source.cost();
        StepReport {
            outcome,
            phase: run.phase,
            counts: run.counts,
            cost: JobCost {
                class_b: cost.class_b - cost_before.class_b,
                class_c: cost.class_c - cost_before.class_c,
                bytes_received: cost.bytes_received - cost_before.bytes_received,
                state_reads: state.reads(),
                state_writes: state.writes(),
                steps: 1,
            },
            known_before: run.known_before,
            files_known: run.document.root.entries,
            bytes_known: run.document.root.bytes,
            spent: spent(&run, &state),
        }
    }

    async fn run(
        &self,
        state: &State<'_, B, D>,
        run: &mut Run,
        order: &Order<'_>,
        allows: &dyn Fn(&Run, &State<'_, B, D>) -> bool,
    ) -> Result<Outcome, Error> {
        (run.document, run.revision) = state.load_document().await?;
        run.known_before = run.document.root.entries;
        let done = run.document.root.job.as_ref();
        if let Some(done) = done.filter(|it| it.job_id == order.job_id && it.fingerprint == order.fingerprint) {
            // The root was moved, and whoever called was cut off before hearing of it.
            run.counts = done.counts;
            run.known_before = done.known_before;
            run.phase = Phase::Done;
            return Ok(Outcome::Done);
        }
        if run
            .document
            .checkpoint
            .as_ref()
            .is_some_and(|it| it.job_id != order.job_id || it.fingerprint != order.fingerprint)
        {
            let document = run.document.clone();
            (run.document, run.revision) = end_checkpoint(state, document, run.revision, true).await?;
            run.known_before = run.document.root.entries;
        }
        run.resume(state).await?;
        run.phase = Phase::Discovering;
        let mut base = None;
        let mut token: Option<String> = None;
        let mut first = true;
        while !run.listed {
            if !mem::take(&mut first) && !allows(run, state) {
                run.save_checkpoint(state, order, true).await?;
                return Ok(Outcome::Continue);
            }
            self.source.still_wanted().await?;
            let page = self.next_page(run, token.take()).await?;
            if base.is_none() {
                base = Some(Base::open(state, &run.document.root, run.covered_to.as_deref(), &mut run.watch).await?);
            }
            let Some(base) = base.as_mut() else { continue };
            if self.take_page(state, run, base, order, &page).await? == Admitted::OrderWasMistaken {
                // Nothing wrong was delivered: what is listed was delivered as it is listed, and no deletion is
                // delivered before the end. Only the comparison begins anew.
                let found = KeyOrder::Utf16;
                (run.document, run.revision) =
                    end_checkpoint(state, mem::take(&mut run.document), run.revision, false).await?;
                run.restart(found);
                *base = Base::open(state, &run.document.root, None, &mut run.watch).await?;
                continue;
            }
            token = run.watch.next(&page)?;
            if token.is_none() {
                self.end_listing(state, run, base, order).await?;
            }
            let delivered = self.apply_page(state, run).await?;
            if delivered && !run.listed {
                run.save_checkpoint(state, order, false).await?;
            }
        }
        run.phase = Phase::Delivering;
        self.deliver_deletions(state, run, order, allows).await?;
        if run.deletions_delivered < run.deletions_found {
            return Ok(Outcome::Continue);
        }
        let known_segments = match &base {
            Some(base) => base.segments().to_vec(),
            None => match &run.document.root.index {
                Some(name) => state.read_index(name).await?,
                None => Vec::new(),
            },
        };
        run.move_root(state, order, &known_segments).await?;
        run.phase = Phase::Done;
        Ok(Outcome::Done)
    }

    /// Reads the page that `token` names. A token that the store does not accept any more is replaced by the last key.
    async fn next_page(&self, run: &mut Run, token: Option<String>) -> Result<Page, Error> {
        let after = run.watch.last_key().map_or(PageStart::First, PageStart::After);
        match &token {
            None => self.source.page(after).await,
            Some(token) => match self.source.page(PageStart::Token(token)).await {
                Err(error) if error.status() == Some(400) && after != PageStart::First => self.source.page(after).await,
                result => result,
            },
        }
    }

    /// Takes the entries of a page in, closing every segment that ends in it.
    async fn take_page(
        &self,
        state: &State<'_, B, D>,
        run: &mut Run,
        base: &mut Base,
        order: &Order<'_>,
        page: &Page,
    ) -> Result<Admitted, Error> {
        for entry in page.entries.iter() {
            let last_key = run.watch.last_key().map(str::to_owned);
            if run.watch.admit(entry.key)? == Admitted::OrderWasMistaken {
                return Ok(Admitted::OrderWasMistaken);
            }
            if order.filter.matches(entry) {
                if order.cut.cuts_before(entry.key, run.pending.len(), run.pending_bytes) {
                    self.close_segment(state, run, base, order, Some(entry.key)).await?;
                    run.covered_to = Some(entry.key.to_owned());
                    run.resume_point = Some(ResumePoint {
                        start_after: last_key,
                        listed: run.counts.listed,
                        matched: run.counts.matched,
                        matched_bytes: run.counts.matched_bytes,
                    });
                }
                run.pending_bytes += entry.key.len() + ENTRY_BYTES_MAX;
                run.pending.push(entry.to_entry());
                run.counts.matched += 1;
                run.counts.matched_bytes = run.counts.matched_bytes.saturating_add(entry.size);
            }
            run.counts.listed += 1;
            run.keys += 1;
        }
        Ok(Admitted::InOrder)
    }

    /// Compares a complete segment with the snapshot. `end` is the first key after it.
    async fn close_segment(
        &self,
        state: &State<'_, B, D>,
        run: &mut Run,
        base: &mut Base,
        order: &Order<'_>,
        end: Option<&str>,
    ) -> Result<(), Error> {
        let entries = mem::take(&mut run.pending);
        run.pending_bytes = 0;
        if let Some(first) = entries.first() {
            let known: Vec<Known> = entries.iter().map(Known::from).collect();
            let (segment, bytes) = encode_segment(&Known::from(first), &known);
            let equal = base.skip_equal(state, segment.hash, &first.key, &mut run.watch).await?;
            let hash = segment.hash;
            run.closed.push(segment);
            if equal {
                // What is left before `end` lies before or behind this segment: keys that are gone.
                let gone = base.take_before(state, end, &mut run.watch).await?;
                return gone.into_iter().try_for_each(|known| run.vanished(order, known));
            }
            run.puts.push((segment_name(hash), bytes));
        }
        let known = base.take_before(state, end, &mut run.watch).await?;
        for difference in diff(&entries, known, |a, b| run.watch.compare(a, b)) {
            match difference {
                Difference::Appeared(ChangeKind::Updated, _) if !order.reconcile.on_update => {}
                Difference::Appeared(kind, entry) => run.changes.push(Change::appeared(order.sync_id, kind, entry)),
                Difference::Vanished(known) => run.vanished(order, known)?,
            }
        }
        Ok(())
    }

    /// The listing was read to its end.
    async fn end_listing(
        &self,
        state: &State<'_, B, D>,
        run: &mut Run,
        base: &mut Base,
        order: &Order<'_>,
    ) -> Result<(), Error> {
        if run.counts.listed == 0 && run.known_before > 0 && order.reconcile.on_delete && !order.confirm_deletes {
            return Err(too_many_deletions(&format!(
                "The listing is empty, but {} files were there before.",
                run.known_before
            )));
        }
        self.close_segment(state, run, base, order, None).await?;
        run.listed = true;
        Ok(())
    }

    /// Delivers what a page showed, then stores its segments. Answers whether anything was delivered.
    async fn apply_page(&self, state: &State<'_, B, D>, run: &mut Run) -> Result<bool, Error> {
        let changes = mem::take(&mut run.changes);
        for batch in changes.chunks(run.batch_max) {
            self.deliver(run, batch).await?;
        }
        for (name, bytes) in mem::take(&mut run.puts) {
            run.unsaved.insert(name.clone());
            state.write(&name, bytes).await?;
        }
        Ok(!changes.is_empty())
    }

    async fn deliver_deletions(
        &self,
        state: &State<'_, B, D>,
        run: &mut Run,
        order: &Order<'_>,
        allows: &dyn Fn(&Run, &State<'_, B, D>) -> bool,
    ) -> Result<(), Error> {
        let mut to_skip = run.deletions_delivered;
        // A step that began here delivers at least one batch, so that it gets further.
        let mut must = run.keys == 0;
        // Each batch is noted before the next: a deletion that was delivered and is not noted would be lost on a later
        // job that finds the file there again.
        let mut unsaved = false;
        let blobs = run.deletion_blobs.clone();
        for part in 0..=blobs.len() {
            let known = match blobs.get(part) {
                Some(name) => state.read_segment(name).await?,
                None => run.deletions.clone(),
            };
            let skipped = to_skip.min(known.len() as u64);
            to_skip -= skipped;
            let changes: Vec<Change> = known
                .into_iter()
                .skip(usize::try_from(skipped).unwrap_or(usize::MAX))
                .map(|known| Change::deleted(order.sync_id, known))
                .collect();
            for batch in changes.chunks(run.batch_max) {
                if !mem::take(&mut must) && !allows(run, state) {
                    return run.save_checkpoint(state, order, true).await;
                }
                if unsaved {
                    run.save_checkpoint(state, order, true).await?;
                }
                unsaved = true;
                self.source.still_wanted().await?;
                self.deliver(run, batch).await?;
                run.deletions_delivered += batch.len() as u64;
            }
        }
        Ok(())
    }

    /// Delivers one batch; what the sink refuses is offered again.
    async fn deliver(&self, run: &mut Run, batch: &[Change]) -> Result<(), Error> {
        let mut left = batch.to_vec();
        let mut reason = String::new();
        for _ in 0..DELIVERY_ATTEMPTS_MAX {
            run.sink_calls += 1;
            let answers = self.sink.deliver(&left).await?;
            if answers.len() != left.len() {
                return Err(Error::new(
                    ErrorKind::Sink,
                    format!("The sink answered for {} changes of {}.", answers.len(), left.len()),
                    "The batch is delivered again, under the same ids.",
                )
                .with_retry(Retry::Temporary));
            }
            let mut refused = Vec::new();
            for (change, answer) in left.into_iter().zip(answers) {
                match answer {
                    Delivery::Delivered => run.count_delivered(&change),
                    Delivery::Refused(why) => {
                        reason = why;
                        refused.push(change);
                    }
                }
            }
            left = refused;
            if left.is_empty() {
                return Ok(());
            }
        }
        let key = left.first().map_or("", |change| change.entry.key.as_str());
        Err(Error::new(
            ErrorKind::Sink,
            format!(
                "The sink refused {} changes {DELIVERY_ATTEMPTS_MAX} times, the first for {key:?}: {reason}.",
                left.len()
            ),
            "The snapshot stays as it is, so they are delivered again by the next job, under the same ids.",
        ))
    }
}

fn too_many_deletions(what: &str) -> Error {
    Error::new(
        ErrorKind::TooManyDeletions,
        what,
        "Nothing was deleted. Check the key's rights and the source path; if the files are really gone, trigger the \
         sync with confirm_deletes=true.",
    )
}

/// Ends the checkpoint of a job that will not go on.
///
/// Answers the root as it is then. What the job delivered is in the sink, so it becomes part of the snapshot: else a file that is gone, or that other
/// filters leave out, by the next job's time would stay in the sink for ever. What the job found gone and did not deliver
/// stays known.
///
/// # Errors
/// Of the stores.
pub async fn settle_checkpoint<B: BlobStore, D: DocumentStore>(blobs: &B, documents: &D) -> Result<Root, Error> {
    let state = State::new(blobs, documents);
    let (document, revision) = state.load_document().await?;
    end_checkpoint(&state, document, revision, true).await.map(|(document, _)| document.root)
}

/// Ends the checkpoint; unless `settle`, the root stays as it is.
async fn end_checkpoint<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    mut document: SnapshotDocument,
    revision: u64,
    settle: bool,
) -> Result<(SnapshotDocument, u64), Error> {
    let Some(checkpoint) = document.checkpoint.take() else {
        return Ok((document, revision));
    };
    let before = match &document.root.index {
        Some(name) => state.read_index(name).await?,
        None => Vec::new(),
    };
    let closed = checkpoint_segments(state, &checkpoint).await?;
    let mut stale = checkpoint.scratch.clone();
    stale.extend(closed.iter().map(|segment| segment_name(segment.hash)));
    let settled = if settle { settled_segments(state, &document.root, &checkpoint, closed).await? } else { None };
    let root = &document.root;
    document.root = match settled.filter(|segments| *segments != before) {
        Some(segments) => {
            let entries_listed = Some(root.entries_listed.unwrap_or(root.entries));
            next_root(state, root, &before, &segments, checkpoint.order, stale, entries_listed).await?
        }
        None => {
            let named: BTreeSet<String> =
                before.iter().map(|it| segment_name(it.hash)).chain(root.index.clone()).collect();
            stale.extend(root.retired.iter().cloned());
            stale.retain(|name| !named.contains(name));
            stale.sort_unstable();
            stale.dedup();
            Root { retired: stale, ..root.clone() }
        }
    };
    let revision = state.swap_document(revision, &document).await?;
    Ok((document, revision))
}

/// Deletes those of `names` that the root neither names nor keeps for readers of the one before.
async fn delete_unnamed<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    root: &Root,
    mut names: BTreeSet<String>,
) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    if let Some(index) = &root.index {
        for segment in state.read_index(index).await? {
            names.remove(&segment_name(segment.hash));
        }
        names.remove(index);
    }
    for name in names.iter().filter(|name| !root.retired.contains(name)) {
        state.delete(name).await?;
    }
    Ok(())
}

/// The snapshot as the sink knows it after a job that broke off: what the job closed, with the deletions that it did not
/// deliver, and behind it what it did not get to. `None` when the comparison rests on an order that was only assumed, or
/// did not begin.
async fn settled_segments<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    root: &Root,
    checkpoint: &Checkpoint,
    closed: Vec<SegmentRef>,
) -> Result<Option<Vec<SegmentRef>>, Error> {
    if checkpoint.order_assumed || (checkpoint.covered_to.is_none() && !checkpoint.listed) {
        return Ok(None);
    }
    let mut kept = Vec::new();
    for name in &checkpoint.deletions {
        kept.extend(state.read_segment(name).await?);
    }
    let tail = root::decode_known(checkpoint.deletions_tail.as_deref());
    kept.extend(tail.map_err(|error| error.into_error("checkpoint.deletions_tail"))?);
    let delivered = usize::try_from(checkpoint.deletions_delivered).unwrap_or(usize::MAX);
    let mut kept = kept.into_iter().skip(delivered).peekable();
    let mut watch = ListingWatch::new(checkpoint.order, false, None);
    let mut segments = Vec::new();
    let mut closed = closed.into_iter().peekable();
    while let Some(segment) = closed.next() {
        let end = closed.peek().map(|next| next.first_key.clone());
        let mut entries = Vec::new();
        while let Some(known) =
            kept.next_if(|known| end.as_deref().is_none_or(|end| watch.compare(&known.key, end).is_lt()))
        {
            entries.push(known);
        }
        if entries.is_empty() {
            segments.push(segment);
            continue;
        }
        entries.extend(state.read_segment(&segment_name(segment.hash)).await?);
        entries.sort_by(|a, b| watch.compare(&a.key, &b.key));
        write_segments(state, &entries, &mut segments).await?;
    }
    write_segments(state, &kept.collect::<Vec<_>>(), &mut segments).await?;
    if !checkpoint.listed {
        let base = Base::open(state, root, checkpoint.covered_to.as_deref(), &mut watch).await?;
        let (entries, behind) = base.rest();
        write_segments(state, &entries, &mut segments).await?;
        segments.extend(behind);
    }
    Ok((!watch.order_assumed).then_some(segments))
}

/// Stores entries as segments, and adds them to `segments`.
async fn write_segments<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    entries: &[Known],
    segments: &mut Vec<SegmentRef>,
) -> Result<(), Error> {
    let mut left = entries;
    while let Some(first) = left.first() {
        let mut bytes = 0;
        let fits = |known: &&Known| {
            bytes += known.key.len() + ENTRY_BYTES_MAX;
            bytes <= SEGMENT_BYTES_MAX
        };
        let count = left.iter().take(SEGMENT_ENTRIES_MAX).take_while(fits).count().max(1);
        let (now, then) = left.split_at(count);
        let (segment, bytes) = encode_segment(first, now);
        state.write(&segment_name(segment.hash), bytes).await?;
        segments.push(segment);
        left = then;
    }
    Ok(())
}

/// One segment, and its bytes.
fn encode_segment(first: &Known, entries: &[Known]) -> (SegmentRef, Vec<u8>) {
    let bytes = segment::encode(entries.iter());
    let segment = SegmentRef {
        first_key: first.key.clone(),
        hash: ContentHash::of(&bytes),
        entries: entries.len() as u64,
        bytes: entries.iter().fold(0, |sum, known| sum.saturating_add(known.size)),
    };
    (segment, bytes)
}

/// The root that comes after `root`: stores its index, deletes what `root` had retired, and retires what only `root` and
/// `stale` name.
async fn next_root<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    root: &Root,
    before: &[SegmentRef],
    segments: &[SegmentRef],
    order: KeyOrder,
    stale: Vec<String>,
    entries_listed: Option<u64>,
) -> Result<Root, Error> {
    let index = if segments == before {
        root.index.clone()
    } else if segments.is_empty() {
        None
    } else {
        Some(state.write_named("index", index::encode(segments)).await?)
    };
    let mut named: BTreeSet<String> = segments.iter().map(|segment| segment_name(segment.hash)).collect();
    named.extend(index.clone());
    let mut retired: BTreeSet<String> = before.iter().map(|segment| segment_name(segment.hash)).collect();
    retired.extend(root.index.clone());
    retired.extend(stale);
    retired.retain(|name| !named.contains(name));
    for name in root.retired.iter().filter(|name| !named.contains(*name) && !retired.contains(*name)) {
        state.delete(name).await?;
    }
    Ok(Root {
        generation: root.generation + 1,
        index,
        entries: segments.iter().map(|segment| segment.entries).sum(),
        bytes: segments.iter().fold(0, |sum, segment| sum.saturating_add(segment.bytes)),
        entries_listed,
        order,
        retired: retired.into_iter().collect(),
        job: None,
    })
}

async fn checkpoint_segments<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    checkpoint: &Checkpoint,
) -> Result<Vec<SegmentRef>, Error> {
    let mut segments = Vec::new();
    for name in &checkpoint.closed {
        segments.extend(state.read_index(name).await?);
    }
    let tail = root::decode_segments(checkpoint.closed_tail.as_deref());
    segments.extend(tail.map_err(|error| error.into_error("checkpoint.closed_tail"))?);
    Ok(segments)
}

/// Where a job would go on, were it cut off now: behind the latest segment that was closed.
#[derive(Clone, Debug)]
struct ResumePoint {
    start_after: Option<String>,
    listed: u64,
    matched: u64,
    matched_bytes: u64,
}

/// What a step holds in memory: one segment, one page, the list of segments, and the deletions that it found and no
/// checkpoint has taken yet.
#[derive(Debug)]
struct Run {
    document: SnapshotDocument,
    revision: u64,
    known_before: u64,
    watch: ListingWatch,
    listed: bool,
    covered_to: Option<String>,
    resume_point: Option<ResumePoint>,
    /// The segment that is not complete yet.
    pending: Vec<Entry>,
    pending_bytes: usize,
    closed: Vec<SegmentRef>,
    /// Of `closed`, how many are in `closed_blobs`.
    closed_stored: usize,
    closed_blobs: Vec<String>,
    /// Found, and not in `deletion_blobs`.
    deletions: Vec<Known>,
    deletion_blobs: Vec<String>,
    deletions_found: u64,
    deletions_delivered: u64,
    scratch: Vec<String>,
    /// Found on this page: to deliver, then to store.
    changes: Vec<Change>,
    puts: Vec<(String, Vec<u8>)>,
    /// Segments stored that neither a checkpoint nor the root names yet.
    unsaved: BTreeSet<String>,
    counts: JobCounts,
    phase: Phase,
    batch_max: usize,
    sink_calls: u64,
    keys: u64,
}

impl Run {
    fn new(batch_max: usize) -> Self {
        Self {
            document: SnapshotDocument::default(),
            revision: 0,
            known_before: 0,
            watch: ListingWatch::default(),
            listed: false,
            covered_to: None,
            resume_point: None,
            pending: Vec::new(),
            pending_bytes: 0,
            closed: Vec::new(),
            closed_stored: 0,
            closed_blobs: Vec::new(),
            deletions: Vec::new(),
            deletion_blobs: Vec::new(),
            deletions_found: 0,
            deletions_delivered: 0,
            scratch: Vec::new(),
            changes: Vec::new(),
            puts: Vec::new(),
            unsaved: BTreeSet::new(),
            counts: JobCounts::default(),
            phase: Phase::Queued,
            batch_max: batch_max.max(1),
            sink_calls: 0,
            keys: 0,
        }
    }

    /// Takes up the checkpoint, if there is one.
    async fn resume<B: BlobStore, D: DocumentStore>(&mut self, state: &State<'_, B, D>) -> Result<(), Error> {
        let Some(checkpoint) = self.document.checkpoint.clone() else {
            self.watch = ListingWatch::new(self.document.root.order, false, None);
            return Ok(());
        };
        self.closed = checkpoint_segments(state, &checkpoint).await?;
        let tail = root::decode_segments(checkpoint.closed_tail.as_deref()).map_or(0, |tail| tail.len());
        self.closed_stored = self.closed.len() - tail;
        self.closed_blobs = checkpoint.closed;
        let deletions = root::decode_known(checkpoint.deletions_tail.as_deref());
        self.deletions = deletions.map_err(|error| error.into_error("checkpoint.deletions_tail"))?;
        self.deletion_blobs = checkpoint.deletions;
        self.deletions_found = checkpoint.deletions_found;
        self.deletions_delivered = checkpoint.deletions_delivered;
        if checkpoint.pending.is_some() || checkpoint.pending_tail.is_some() {
            let (name, bytes) = match (&checkpoint.pending, &checkpoint.pending_tail) {
                (Some(name), _) => (name.as_str(), Ok(state.read(name).await?.to_vec())),
                (None, tail) => ("checkpoint.pending_tail", root::decode_bytes(tail.as_deref().unwrap_or_default())),
            };
            let entries = bytes.and_then(|bytes| segment::decode_entries(&bytes));
            self.pending = entries.map_err(|error| error.into_error(name))?;
            self.pending_bytes = self.pending.iter().map(|entry| entry.key.len() + ENTRY_BYTES_MAX).sum();
        }
        self.watch = ListingWatch::new(checkpoint.order, checkpoint.order_assumed, checkpoint.start_after);
        self.covered_to = checkpoint.covered_to;
        self.listed = checkpoint.listed;
        self.counts = checkpoint.counts;
        self.scratch = checkpoint.scratch;
        Ok(())
    }

    /// Begins the comparison anew, now that the order is known.
    fn restart(&mut self, order: KeyOrder) {
        let fresh = Self {
            document: mem::take(&mut self.document),
            revision: self.revision,
            known_before: self.known_before,
            watch: ListingWatch::new(order, false, None),
            phase: self.phase,
            unsaved: mem::take(&mut self.unsaved),
            sink_calls: self.sink_calls,
            keys: self.keys,
            ..Self::new(self.batch_max)
        };
        *self = fresh;
    }

    /// Keeps a deletion until the listing is complete.
    fn vanished(&mut self, order: &Order<'_>, known: Known) -> Result<(), Error> {
        if !order.reconcile.on_delete {
            return Ok(());
        }
        self.deletions.push(known);
        self.deletions_found += 1;
        let found = self.deletions_found;
        if !order.confirm_deletes && found > DELETIONS_UNASKED_MAX && found > self.document.root.entries_to_guard() / 2
        {
            return Err(too_many_deletions(&format!(
                "More than half of the files that were there before are gone ({found} or more of {}).",
                self.known_before
            )));
        }
        Ok(())
    }

    fn count_delivered(&mut self, change: &Change) {
        match change.kind {
            ChangeKind::Created => self.counts.created += 1,
            ChangeKind::Updated => self.counts.updated += 1,
            ChangeKind::Deleted => self.counts.deleted += 1,
        }
        if change.kind != ChangeKind::Deleted {
            self.counts.delivered_bytes = self.counts.delivered_bytes.saturating_add(change.entry.size);
        }
    }

    /// Saves how far the job is: behind the latest segment that was closed, which is one small write. With `pending`, and
    /// where no segment was closed in this step, everything read so far is in it, so that every step gets further.
    async fn save_checkpoint<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        order: &Order<'_>,
        pending: bool,
    ) -> Result<(), Error> {
        // Where a segment was closed in this step, going on behind it costs a few pages read again, and no blob.
        let pending = pending && self.resume_point.is_none();
        let mut counts = self.counts;
        let start_after = if pending || self.listed {
            self.watch.last_key().map(str::to_owned)
        } else if let Some(point) = &self.resume_point {
            counts.listed = point.listed;
            counts.matched = point.matched;
            counts.matched_bytes = point.matched_bytes;
            point.start_after.clone()
        } else {
            return Ok(());
        };
        let (mut pending_blob, mut pending_tail) = (None, None);
        if pending && !self.pending.is_empty() {
            let bytes = segment::encode_entries(&self.pending);
            if bytes.len() > CHECKPOINT_PENDING_BYTES_MAX {
                pending_blob = Some(self.write_scratch(state, bytes).await?);
            } else {
                pending_tail = Some(root::encode_bytes(&bytes));
            }
        }
        let tail = self.closed.get(self.closed_stored..).unwrap_or_default();
        if tail.len() > CHECKPOINT_TAIL_MAX {
            let bytes = index::encode(tail);
            let name = self.write_scratch(state, bytes).await?;
            self.closed_blobs.push(name);
            self.closed_stored = self.closed.len();
        }
        if self.deletions.len() > CHECKPOINT_TAIL_MAX {
            let deletions = mem::take(&mut self.deletions);
            let name = self.write_scratch(state, segment::encode(deletions.iter())).await?;
            self.deletion_blobs.push(name);
        }
        self.document.checkpoint = Some(Checkpoint {
            job_id: order.job_id.to_owned(),
            fingerprint: order.fingerprint.to_owned(),
            listed: self.listed,
            start_after,
            covered_to: self.covered_to.clone(),
            pending_tail,
            pending: pending_blob,
            closed: self.closed_blobs.clone(),
            closed_tail: root::encode_segments(self.closed.get(self.closed_stored..).unwrap_or_default()),
            deletions: self.deletion_blobs.clone(),
            deletions_tail: root::encode_known(&self.deletions),
            deletions_found: self.deletions_found,
            deletions_delivered: self.deletions_delivered,
            counts,
            order: self.watch.order,
            order_assumed: self.watch.order_assumed,
            scratch: self.scratch.clone(),
        });
        self.revision = state.swap_document(self.revision, &self.document).await?;
        self.unsaved.clear();
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
    async fn move_root<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        order: &Order<'_>,
        before: &[SegmentRef],
    ) -> Result<(), Error> {
        let same = self.closed == before && self.watch.order == self.document.root.order;
        if same && self.document.checkpoint.is_none() && self.document.root.entries_listed.is_none() {
            return Ok(());
        }
        let scratch = mem::take(&mut self.scratch);
        let root = &self.document.root;
        let mut root = next_root(state, root, before, &self.closed, self.watch.order, scratch, None).await?;
        root.job = Some(RootJob {
            job_id: order.job_id.to_owned(),
            fingerprint: order.fingerprint.to_owned(),
            counts: self.counts,
            known_before: self.known_before,
        });
        let document = SnapshotDocument { v: root::VERSION, root, checkpoint: None };
        self.revision = state.swap_document(self.revision, &document).await?;
        self.document = document;
        Ok(())
    }

    fn spent<B: BlobStore, D: DocumentStore>(
        &self,
        state: &State<'_, B, D>,
        before: SourceCost,
        now: SourceCost,
        wall_ms: u64,
    ) -> Spent {
        Spent {
            external_requests: now.requests - before.requests,
            internal_requests: state.requests() + self.sink_calls,
            wall_ms,
            bytes_received: now.bytes_received - before.bytes_received,
            keys: self.keys,
        }
    }
}

#[cfg(test)]
mod tests;
