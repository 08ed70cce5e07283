//! The sync engine: streams a listing, compares it with the snapshot, delivers what changed, moves the root.
//!
//! One call of [`Engine::step`] does as much as its [`Budget`] allows. The order of effects makes every cut harmless:
//! **store segments → note in the document what is about to be delivered, and that the snapshot counts it as delivered →
//! deliver it to the sink**. Whoever takes the document up delivers first what it notes: the same changes, under the same
//! ids. At the end of the job, after every deletion is delivered, **the root moves**.
//!
//! What it deliberately does not do: keep a watermark (last modified is the *start* of an upload, so one loses files),
//! trust a continuation token across steps, or deliver a deletion before the whole listing was read.
//!
//! [`listing`] turns pages into pieces, [`lanes`] does so for several ranges at once, [`Engine`] compares the pieces with
//! the [`base`] and puts them into the [`assembly`] of the next snapshot.
//!
//! # Invariants
//! - The root names only blobs that are stored, and its generation never goes back.
//! - A deletion is delivered only when the listing was read to its end without an error, and within the limit.
//! - A job that finds nothing writes nothing, in any number of steps, as long as it is held in [`memory`], or each step comes
//!   past a few leaves and the caller keeps its [`bookmark`]; otherwise it writes checkpoints.
//! - Root and checkpoint together hold what the sink has once what the document notes is delivered, whatever broke off.

pub mod assembly;
pub mod base;
pub mod bookmark;
pub mod budget;
mod checkpoint;
mod deliver;
pub mod diff;
mod drift;
pub mod key_order;
pub mod known;
pub mod lanes;
pub mod limit;
pub mod listing;
pub mod memory;
mod retire;
mod run;
mod settle;
pub mod source;
pub mod state;
pub mod thresholds;
pub mod wire;

use std::{mem, ops::ControlFlow};

use serde::{Deserialize, Serialize};

pub use self::settle::settle_checkpoint;
use self::{
    base::{Base, Leaves},
    bookmark::Bookmark,
    budget::{Budget, PAGE_KEYS, Spent},
    diff::{Difference, diff},
    lanes::{Lanes, Next, Reads},
    limit::DeletionLimit,
    listing::{Content, Open, Piece, RangeReader, SPLIT_PAGES_FIRST},
    memory::{Holding, Paused},
    run::{Resumed, Run},
    settle::end_checkpoint,
    source::Source,
    state::State,
    thresholds::Thresholds,
};
use crate::{
    entry::Entry,
    error::Error,
    filter::Filter,
    job::{JobCost, JobCounts, Phase},
    mutation::{self, Mutation},
    sink::{ChangeKind, Sink},
    snapshot::{
        Known,
        changes::Noted,
        cut::{Begins, Cut, LEAF_SEGMENTS_MAX},
        index::SegmentRef,
        root::{Checkpoint, Resync},
    },
    store::{BlobStore, DocumentStore},
    time::Clock,
};

/// How often a change is offered to a sink that refuses it.
pub const DELIVERY_ATTEMPTS_MAX: u32 = 3;
/// Ranges that are read side by side have about so many files or more,
const RANGE_FILES_MIN: u64 = 24_000;
/// unless that makes fewer of them than so many for each stream.
const RANGES_A_STREAM: u64 = 8;

/// Which changes are delivered. The snapshot follows the bucket in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reconcile {
    /// Deliver deletions of files that are gone from the bucket.
    pub on_delete: bool,
    /// Deliver updates.
    pub on_update: bool,
    /// Deliver deletions of files that are still there, but match the filters no longer: these were changed, or the file was
    /// replaced. Where this and `on_delete` differ, files that vanished are looked for in the bucket once more.
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
    /// How many deletions are delivered without being asked to.
    pub deletion_limit: DeletionLimit,
    /// Deliver deletions though they are more than the limit.
    pub confirm_deletes: bool,
    /// How many created and updated files the job delivers at most; the next one goes on. `None`: all.
    pub objects_max: Option<u64>,
    /// Hand over every file, also those that are as before, once.
    pub resync: bool,
    /// Dead letters were sent back: offer them again.
    pub redeliver: bool,
    /// How many ranges of the listing are read at the same time; what comes of it is the same.
    pub streams: usize,
    /// From how much on something is stored; what comes of it is the same.
    pub thresholds: Thresholds,
    /// Where an earlier step of the job left off: the latest [`StepReport::bookmark`] that was one, or [`Bookmark::default`].
    /// `None`: the caller keeps none, so that a step whose job is not held stores a checkpoint, also where nothing has changed so far.
    pub bookmark: Option<Bookmark>,
    /// Where the job is held between two steps as long as it has found nothing. `None`: it is not.
    pub held: Option<Holding<'a>>,
}

impl<'a> Order<'a> {
    /// All that the source lists and the filter takes, each change delivered, in one stream; deletions within the limit.
    pub fn new(job_id: &'a str, sync_id: &'a str, cut: Cut, filter: &'a Filter, fingerprint: &'a str) -> Self {
        Self {
            job_id,
            sync_id,
            cut,
            filter,
            fingerprint,
            reconcile: Reconcile::default(),
            deletion_limit: DeletionLimit::default(),
            confirm_deletes: false,
            objects_max: None,
            resync: false,
            redeliver: false,
            streams: 1,
            thresholds: Thresholds::USUAL,
            bookmark: None,
            held: None,
        }
    }
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
    /// Whether the job ended before all was compared, because it may deliver no more.
    pub limited: bool,
    /// Files in the current snapshot, and their bytes.
    pub files_known: u64,
    /// The sum of their sizes.
    pub bytes_known: u64,
    /// What went to the stores and the sink in this step.
    pub spent: Spent,
    /// Where the job goes on, if it is not held by then and has stored nothing: a later step's [`Order::bookmark`]. `None`: the
    /// one before still holds, or a checkpoint does.
    pub bookmark: Option<Bookmark>,
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
        let mut run = order.take_held().unwrap_or_else(|| Run::new(order, self.sink.batch_max()));
        let spent = |keys: u64, sink_calls: u64| {
            let now = self.source.cost();
            Spent {
                external_requests: now.requests - cost_before.requests,
                internal_requests: state.requests() + sink_calls + (now.calls - cost_before.calls),
                wall_ms: self.clock.now().millis_since(started),
                bytes_received: (now.bytes_received - cost_before.bytes_received)
                    - (now.bytes_elsewhere - cost_before.bytes_elsewhere),
                keys,
            }
        };
        // A signal that came before this step is not about it.
        let signalled_before = self.clock.is_near_cpu_limit();
        let has_cpu = || signalled_before || !self.clock.is_near_cpu_limit();
        let allows = |reads: Reads, sink_calls: u64| {
            let spent = spent(reads.keys, sink_calls).with_in_flight(reads.in_flight);
            if reads.delivers {
                return budget.allows_calls(&spent) && has_cpu();
            }
            budget.allows(&spent) && (!reads.begins || budget.allows_ahead(&spent)) && has_cpu()
        };
        let outcome = self.run(&state, &mut run, order, &allows).await;
        let cost = self.source.cost();
        let mut counts = run.counts;
        if let Some(paused) = &run.paused {
            paused.lanes.add_to(&mut counts);
        }
        let report = StepReport {
            outcome,
            phase: run.phase,
            counts,
            cost: JobCost {
                class_b: cost.class_b - cost_before.class_b,
                class_c: cost.class_c - cost_before.class_c,
                bytes_received: cost.bytes_received - cost_before.bytes_received,
                state_reads: state.reads(),
                state_writes: state.writes(),
                state_deletions: state.deletions(),
                steps: 1,
            },
            known_before: run.known_before,
            files_known: run.document.root.entries,
            bytes_known: run.document.root.bytes,
            limited: run.limited,
            spent: spent(run.keys, run.sink_calls),
            bookmark: run.bookmark_to_keep.take(),
        };
        if let Some(paused) = run.paused.take() {
            order.hold(run, paused);
        }
        report
    }

    async fn run(
        &self,
        state: &State<'_, B, D>,
        run: &mut Run,
        order: &Order<'_>,
        allows: &dyn Fn(Reads, u64) -> bool,
    ) -> Result<Outcome, Error> {
        let resumed = match run.paused.take() {
            Some(paused) => Resumed::Paused(paused),
            None => match self.take_up(state, run, order, allows).await? {
                ControlFlow::Continue(resumed) => resumed,
                ControlFlow::Break(outcome) => return Ok(outcome),
            },
        };
        // A step that has only deletions to deliver gets at least one batch further, whatever its budget.
        let must = matches!(resumed, Resumed::Listed);
        let Some(mut base) = self.list(state, run, order, resumed, allows).await? else {
            return Ok(Outcome::Continue);
        };
        run.phase = Phase::Delivering;
        if mutation::is_on(Mutation::MoveRootEarly) {
            run.document.checkpoint = Some(Checkpoint::default());
            run.move_root(state, order, &mut base).await?;
        }
        if !self.deliver_deletions(state, run, order, allows, must).await? {
            return Ok(Outcome::Continue);
        }
        if matches!(base.leaves.list.as_slice(), []) {
            base.leaves = Leaves::of(state, &run.document.root).await?;
        }
        if run.moves_root(&base) {
            if !run.sweep(state, order, &mut base, allows).await? {
                return Ok(Outcome::Continue);
            }
            run.move_root(state, order, &mut base).await?;
        }
        run.phase = Phase::Done;
        Ok(Outcome::Done)
    }

    /// Reads where the job is, and delivers what is noted there.
    async fn take_up(
        &self,
        state: &State<'_, B, D>,
        run: &mut Run,
        order: &Order<'_>,
        allows: &dyn Fn(Reads, u64) -> bool,
    ) -> Result<ControlFlow<Outcome, Resumed>, Error> {
        (run.document, run.revision) = state.load_document().await?;
        run.known_before = run.document.root.entries;
        let done = run.document.root.job.as_ref();
        if let Some(done) = done.filter(|it| it.job_id == order.job_id && it.fingerprint == order.fingerprint) {
            // The root was moved, and whoever called was cut off before hearing of it.
            run.counts = done.counts;
            run.known_before = done.known_before;
            run.limited = done.limited;
            run.phase = Phase::Done;
            return Ok(ControlFlow::Break(Outcome::Done));
        }
        let begun = run.document.checkpoint.as_ref();
        if let Some(ended) = begun.filter(|it| it.job_id != order.job_id || it.fingerprint != order.fingerprint) {
            // Under other filters the job begins anew, and what it has delivered counts.
            let anew = (ended.job_id == order.job_id).then(|| Checkpoint {
                job_id: order.job_id.to_owned(),
                fingerprint: order.fingerprint.to_owned(),
                counts: ended.counts.of_deliveries(),
                objects_found: ended.objects_found,
                order: ended.order,
                scratch: run.document.in_doubt_blob.iter().cloned().collect(),
                ..Checkpoint::default()
            });
            let document = mem::take(&mut run.document);
            (run.document, run.revision) = end_checkpoint(state, order.cut, document, run.revision, anew).await?;
            run.known_before = run.document.root.entries;
        }
        run.resync = match &run.document.root.resync {
            _ if order.resync => Some(Resync { job_id: order.job_id.to_owned(), from: None }),
            begun => begun.clone(),
        };
        let resumed = run.resume(state, order).await?;
        run.phase = Phase::Discovering;
        if !self.deliver_in_doubt(state, run, order, allows).await?
            || (order.redeliver && !self.deliver_requeued(state, run, order, allows).await?)
        {
            return Ok(ControlFlow::Break(Outcome::Continue));
        }
        Ok(ControlFlow::Continue(resumed))
    }

    /// Reads the listing from where the job is, to its end, or as far as the job may go; `None`: the budget is used up
    /// before.
    async fn list(
        &self,
        state: &State<'_, B, D>,
        run: &mut Run,
        order: &Order<'_>,
        resumed: Resumed,
        allows: &dyn Fn(Reads, u64) -> bool,
    ) -> Result<Option<Base>, Error> {
        let (mut base, mut lanes) = match resumed {
            Resumed::Listed => return Ok(Some(Base::default())),
            Resumed::Paused(paused) => {
                let Paused { base, lanes } = *paused;
                (base, Lanes::go_on(self.source, order, lanes, order.streams))
            }
            Resumed::At { open } => {
                let base = Base::open(state, &run.document.root, run.covered_to.as_deref(), run.watch.order).await?;
                run.assembly.keep_stored(&base.leaves.list);
                if !run.pass_leaves(&base) {
                    return Err(Error::internal("A job was to go on behind a leaf that its snapshot does not have."));
                }
                let (first, ahead) = self.plan(run, &base, order, open).await?;
                (base, Lanes::new(self.source, order, first, ahead, order.streams))
            }
        };
        let mut must = true;
        let (mut ended, mut failed) = (false, None);
        // Whether pieces were handed on and not taken.
        let mut dropped = false;
        while !ended {
            let next = {
                let (keys, calls) = (run.keys, run.sink_calls);
                lanes
                    .next(&mut |reads| {
                        mem::take(&mut must) || allows(Reads { keys: keys + reads.keys, ..reads }, calls)
                    })
                    .await
            };
            run.keys += lanes.take_keys();
            let (pieces, begins) = match next {
                Next::Pieces { pieces, begins } => (pieces, begins),
                Next::End => break,
                Next::Stopped => {
                    ended = true;
                    (Vec::new(), Begins::Leaf)
                }
                Next::Failed(error) => {
                    failed = Some(error);
                    break;
                }
            };
            run.watch.join(&lanes.watch)?;
            let mut begins = Some(begins);
            for piece in pieces {
                let begins = begins.take().unwrap_or(Begins::Leaf);
                // Only once it is known that nothing more belongs to the last segment: it would have to be stored again. At the
                // end all is stored at once: no checkpoint lies between the last file and the end.
                if begins != Begins::Nothing && !run.at_end && run.is_worth_storing(order) {
                    if !self.flush(state, run, order, allows).await? {
                        return Ok(None);
                    }
                    if !allows(run.reads(), run.sink_calls) {
                        (ended, dropped) = (true, true);
                        break;
                    }
                }
                run.open_for(state, &mut base, begins).await?;
                match self.take_piece(state, run, &mut base, order, piece, allows).await? {
                    Taken::All => {}
                    Taken::Limited => return Ok(Some(base)),
                    Taken::Saved => return Ok(None),
                    Taken::Stopped => {
                        (ended, dropped) = (true, true);
                        break;
                    }
                }
            }
        }
        let breaks_off = ended || failed.as_ref().is_some_and(Error::is_transient);
        if breaks_off && run.found_nothing(&base, state.writes()) {
            let is_marked = run.keep_bookmark(order);
            if order.may_be_held() && !dropped {
                let paused = lanes.pause(order.thresholds.held_bytes_max).await;
                run.keys += lanes.take_keys();
                if let Some(lanes) = paused {
                    run.paused = Some(Box::new(Paused { base, lanes }));
                    return failed.map_or(Ok(None), Err);
                }
            }
            if is_marked {
                run.leave_off();
                return failed.map_or(Ok(None), Err);
            }
        }
        if let Some(error) = failed {
            // What was read until then is not read again.
            let resumable = run.resume_point.is_some() && !run.at_end && run.assembly.is_between_segments();
            if error.is_transient() && resumable && self.flush(state, run, order, allows).await? {
                run.save_checkpoint(state, order, None).await?;
            }
            return Err(error);
        }
        if ended {
            if let Some(rest) = lanes.stop().filter(|_| !dropped) {
                run.watch.join(&rest.watch)?;
                let mut begins = Some(rest.begins);
                for piece in rest.pieces {
                    run.open_for(state, &mut base, begins.take().unwrap_or(Begins::Leaf)).await?;
                    match self.take_piece(state, run, &mut base, order, piece, allows).await? {
                        Taken::All => {}
                        Taken::Limited => return Ok(Some(base)),
                        Taken::Saved => return Ok(None),
                        Taken::Stopped => {
                            dropped = true;
                            break;
                        }
                    }
                }
                // A step that got no segment further keeps what it has of one.
                run.pending = Some((rest.open, rest.since, begins)).filter(|_| !dropped);
            }
            run.break_segment();
            if self.flush(state, run, order, allows).await? {
                run.save_checkpoint(state, order, None).await?;
            }
            return Ok(None);
        }
        run.assembly.finish();
        run.note_leaves(&mut base);
        run.listed = true;
        run.note_few_deletions(order);
        Ok(self.flush(state, run, order, allows).await?.then_some(base))
    }

    /// The ranges that are read side by side: the first from where the job is, the others from leaf to leaf of the
    /// snapshot.
    async fn plan(
        &self,
        run: &Run,
        base: &Base,
        order: &Order<'_>,
        open: Open,
    ) -> Result<(RangeReader, Vec<RangeReader>), Error> {
        let leaves = base.leaves_ahead();
        // Whoever hands over everything needs the entries of leaves that are as before, too; and what stands beside the
        // snapshot may lie in any of them.
        let whole = run.resync.is_none() && !base.has_undeleted();
        let known_leaves = |leaves: &[SegmentRef]| if whole { leaves.to_vec() } else { Vec::new() };
        let watch = run.watch.clone();
        // The open segment may begin a leaf, and then those before it are all of another.
        let begins_leaf = open.first_key().is_some_and(|key| order.cut.begins(key) == Begins::Leaf);
        let full = run.assembly.segments.len() >= LEAF_SEGMENTS_MAX && !open.is_empty();
        let segments = if begins_leaf || full { 0 } else { run.assembly.segments.len() };
        let begins = run.begins(order, open.is_empty());
        let much = run.counts.listed >= u64::from(SPLIT_PAGES_FIRST) * PAGE_KEYS;
        let first = |end: Option<String>, known: &[SegmentRef]| {
            let reader =
                RangeReader::resume(watch, run.covered_to.clone(), end, known_leaves(known), open, segments, begins);
            let reader = reader.knows(base.files_at_hand());
            if much { reader.split_soon() } else { reader }
        };
        if order.streams < 2 {
            return Ok((first(None, leaves), Vec::new()));
        }
        let mut bounds: Vec<usize> = (0..leaves.len())
            .filter(|&index| {
                leaves.get(index).is_some_and(|leaf| {
                    // What was listed already, and left out by the filters, is not listed again.
                    let last = run.watch.last_key();
                    let is_ahead = last.is_none_or(|last| run.watch.order.compare(last, &leaf.first_key).is_lt());
                    is_ahead
                        && run.covered_to.as_deref() != Some(leaf.first_key.as_str())
                        && order.cut.begins(&leaf.first_key) == Begins::Leaf
                })
            })
            .collect();
        if run.covered_to.is_none() {
            // What is before the first key that is known belongs to the first range as well.
            bounds.retain(|&index| index > 0);
        }
        // Each range has a page of which it makes use of a part, so they are not too short; but there are enough for all.
        let files: u64 = leaves.iter().map(|leaf| leaf.entries).sum();
        let enough = (files / (order.streams as u64).saturating_mul(RANGES_A_STREAM)).min(RANGE_FILES_MIN);
        let mut before = 0_usize;
        bounds.retain(|&index| {
            let range = leaves.get(before..index).unwrap_or_default();
            let long = range.iter().map(|leaf| leaf.entries).sum::<u64>() >= enough;
            before = if long { index } else { before };
            long
        });
        let key = |bound: Option<&usize>| bound.and_then(|&index| leaves.get(index)).map(|leaf| leaf.first_key.clone());
        let until = |bound: Option<&usize>| bound.copied().unwrap_or(leaves.len());
        let head = first(key(bounds.first()), leaves.get(..until(bounds.first())).unwrap_or_default());
        let mut ahead = Vec::new();
        for (nth, &bound) in bounds.iter().enumerate() {
            let Some(from) = key(Some(&bound)) else { continue };
            let next = bounds.get(nth + 1);
            let known = leaves.get(bound..until(next)).unwrap_or_default();
            ahead.push(RangeReader::range(run.watch.order, from, key(next), known_leaves(known)));
        }
        Ok((head, ahead))
    }

    /// Compares a piece of the listing with the snapshot, and puts it into the next one.
    async fn take_piece(
        &self,
        state: &State<'_, B, D>,
        run: &mut Run,
        base: &mut Base,
        order: &Order<'_>,
        piece: Piece,
        allows: &dyn Fn(Reads, u64) -> bool,
    ) -> Result<Taken, Error> {
        let Piece { content, until } = piece;
        let deletes = order.reconcile.on_delete || order.reconcile.on_filter_drift;
        let empty = until.covered_to.is_none() && run.counts.listed + until.listed == 0;
        if empty && run.known_before > 0 && deletes && !order.confirm_deletes {
            // Before any of it counts as gone: that may take several steps, and the next may be told something else.
            return Err(limit::empty_listing(run.known_before));
        }
        let first_key = match &content {
            Content::Nothing => None,
            Content::Leaf(leaf) => Some(&leaf.first_key),
            Content::Segment(sealed) => Some(&sealed.segment.first_key),
        };
        if let Some(first_key) = first_key
            && let Some(up_to) = self.take_gone(state, run, base, order, Some(first_key), allows).await?
        {
            let entries = match &content {
                Content::Segment(sealed) => sealed.entries().map_err(|error| error.into_error("a listed segment"))?,
                _ => Vec::new(),
            };
            run.stop_before(base, up_to, &entries, 0);
            return Ok(Taken::Stopped);
        }
        let is_leaf = matches!(content, Content::Leaf(_));
        match content {
            Content::Nothing => {}
            Content::Leaf(leaf) => {
                if !base.skip_leaf(leaf.hash) {
                    return Err(Error::internal("The listing met a leaf of the snapshot out of its turn."));
                }
                run.realign = false;
                run.assembly.append_leaf(leaf);
            }
            Content::Segment(sealed) => {
                run.realign &= !order.cut.begins_segment(&sealed.segment.first_key);
                let end = until.covered_to.as_deref();
                let equal = base.skip_segment(state, &sealed.segment, end, run.watch.order).await?;
                if equal && !run.realign && run.resync.is_none() {
                    run.assembly.append_equal(sealed.segment, sealed.bytes);
                } else {
                    let entries = sealed.entries().map_err(|error| error.into_error("a listed segment"))?;
                    let compared = if equal {
                        match run.take_again(order, &entries) {
                            Some(stop) => {
                                base.put_back(entries.iter().skip(stop).map(Known::from));
                                Compared::Limited(stop)
                            }
                            None => Compared::All,
                        }
                    } else {
                        self.compare(state, run, base, order, &entries, end, allows).await?
                    };
                    match compared {
                        Compared::All => {}
                        Compared::Limited(stop) => {
                            run.stop_at(base, &entries, stop);
                            let delivered = self.flush(state, run, order, allows).await?;
                            return Ok(if delivered { Taken::Limited } else { Taken::Saved });
                        }
                        Compared::Stopped { dealt_with, up_to } => {
                            run.stop_before(base, up_to, &entries, dealt_with);
                            return Ok(Taken::Stopped);
                        }
                    }
                    run.assembly.keep_reopened(base.take_read());
                    match (equal, run.realign) {
                        (true, false) => run.assembly.append_equal(sealed.segment, sealed.bytes),
                        (true, true) => run.assembly.realign_equal(sealed.segment.hash, &entries),
                        (false, true) => entries.iter().for_each(|entry| run.assembly.push_entry(entry.into())),
                        (false, false) => run.assembly.append_segment(sealed.segment, Some(sealed.bytes)),
                    }
                }
            }
        }
        let gone = self.take_gone(state, run, base, order, until.covered_to.as_deref(), allows).await?;
        run.note_leaves(base);
        run.pending_entries = 0;
        run.counts.listed += until.listed;
        run.counts.matched += until.matched;
        run.counts.matched_bytes = run.counts.matched_bytes.saturating_add(until.matched_bytes);
        run.at_end = gone.is_none() && until.covered_to.is_none();
        let taken = if gone.is_some() { Taken::Stopped } else { Taken::All };
        let unfinished = until.unfinished || gone.is_some();
        run.covered_to = gone.or(until.covered_to);
        run.mark = Some(run.mark_behind(until.after));
        if run.assembly.is_between_segments() {
            run.resume_point.clone_from(&run.mark);
            run.unfinished = unfinished;
        }
        if is_leaf {
            run.note_bookmark(order, base);
        }
        Ok(taken)
    }

    /// All that the snapshot knows before `end` is gone. Answers up to which key that was dealt with, where the budget was
    /// used up before the end.
    async fn take_gone(
        &self,
        state: &State<'_, B, D>,
        run: &mut Run,
        base: &mut Base,
        order: &Order<'_>,
        end: Option<&str>,
        allows: &dyn Fn(Reads, u64) -> bool,
    ) -> Result<Option<String>, Error> {
        while let Some(chunk) = base.take_before(state, end, run.watch.order).await? {
            for known in chunk.known {
                run.vanished(state, order, known).await?;
            }
            if chunk.up_to.is_some() && !allows(run.reads(), run.sink_calls) {
                return Ok(chunk.up_to);
            }
        }
        Ok(None)
    }

    /// Compares `entries`, which are all that is listed up to `end`, with the snapshot.
    #[expect(clippy::too_many_arguments, reason = "what a comparison takes; a type for it would name nothing")]
    async fn compare(
        &self,
        state: &State<'_, B, D>,
        run: &mut Run,
        base: &mut Base,
        order: &Order<'_>,
        entries: &[Entry],
        end: Option<&str>,
        allows: &dyn Fn(Reads, u64) -> bool,
    ) -> Result<Compared, Error> {
        let keys = run.watch.order;
        let mut done = 0;
        loop {
            let chunk = base.take_before(state, end, keys).await?;
            let (known, up_to) = chunk.map_or((Vec::new(), None), |chunk| (chunk.known, chunk.up_to));
            let last = known.is_empty();
            let left = entries.get(done..).unwrap_or_default();
            let here = match &up_to {
                Some(up_to) => left.partition_point(|entry| keys.compare(&entry.key, up_to).is_lt()),
                None => left.len(),
            };
            let listed = left.get(..here).unwrap_or_default();
            if let Some(stop) = self.take_differences(state, run, order, listed, &known).await? {
                let key = listed.get(stop).map(|entry| entry.key.as_str());
                let from =
                    key.map_or(known.len(), |key| known.partition_point(|it| keys.compare(&it.key, key).is_lt()));
                base.put_back(known.into_iter().skip(from));
                return Ok(Compared::Limited(done + stop));
            }
            done += here;
            match up_to {
                Some(up_to) if !last && !allows(run.reads(), run.sink_calls) => {
                    return Ok(Compared::Stopped { dealt_with: done, up_to });
                }
                Some(_) if !last => {}
                _ => return Ok(Compared::All),
            }
        }
    }

    /// Takes the differences between what is listed and what was known of the same range. Answers before which entry that
    /// ended, because the job may deliver no more.
    async fn take_differences(
        &self,
        state: &State<'_, B, D>,
        run: &mut Run,
        order: &Order<'_>,
        listed: &[Entry],
        known: &[Known],
    ) -> Result<Option<usize>, Error> {
        let keys = run.watch.order;
        // Entries before this one are dealt with.
        let mut at = 0;
        for difference in diff(listed, known.iter().cloned(), |a, b| keys.compare(a, b)) {
            let place = match &difference {
                Difference::Vanished(known) => &known.key,
                Difference::Appeared(_, entry) => &entry.key,
            };
            let place = listed.partition_point(|entry| keys.compare(&entry.key, place).is_lt());
            // Those in between are as before.
            if let Some(stop) = run.take_again(order, listed.get(at..place).unwrap_or_default()) {
                return Ok(Some(at + stop));
            }
            at = place;
            match difference {
                Difference::Vanished(known) => run.vanished(state, order, known).await?,
                Difference::Appeared(ChangeKind::Updated, _)
                    if !order.reconcile.on_update && !mutation::is_on(Mutation::IgnoreReconcile) => {}
                Difference::Appeared(_, entry) if mutation::is_below_watermark(entry.last_modified) => {}
                Difference::Appeared(..) if run.may_deliver_no_more(order) => return Ok(Some(place)),
                Difference::Appeared(kind, entry) => {
                    run.objects_found += 1;
                    run.noted.push(Noted::Appeared(kind, entry));
                    at = place + 1;
                }
            }
        }
        let stop = run.take_again(order, listed.get(at..).unwrap_or_default());
        Ok(stop.map(|stop| at + stop))
    }
}

/// What became of a piece.
enum Taken {
    /// It is dealt with.
    All,
    /// The job may deliver no more.
    Limited,
    /// As [`Self::Limited`], and the budget is used up before all that it delivers is: the rest is noted.
    Saved,
    /// The budget is used up before all is compared, and it is noted where.
    Stopped,
}

/// What became of the entries of a segment.
enum Compared {
    /// They are compared.
    All,
    /// The job may deliver no more than so many of them.
    Limited(usize),
    /// The budget is used up: so many of them are compared, and all that was known before that key.
    Stopped { dealt_with: usize, up_to: String },
}

#[cfg(test)]
mod tests;
