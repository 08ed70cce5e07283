//! The control flow of a step, and nothing else.

use std::{mem, ops::ControlFlow};

use super::{
    Outcome, StepReport,
    compare::Taken,
    listing::{
        Piece,
        lanes::{Lanes, Next, Reads},
        source::Source,
    },
    resume::Resumed,
    step::Step,
};
use crate::{
    engine::{
        job::Paused,
        previous::{Base, Leaves},
    },
    error::Error,
    job::Phase,
    mutation::{self, Mutation},
    snapshot::cut::Begins,
    state::document::Checkpoint,
    store::{BlobStore, DocumentStore},
    time::Clock,
    warning,
};

/// Where reading the listing ended.
enum Ended {
    /// At its end.
    Whole,
    /// The budget is used up between two pieces.
    Stopped,
    /// The budget is used up, and pieces that were handed on are not taken.
    Dropped,
    /// A page could not be read.
    Failed(Error),
}

impl<S: Source, B: BlobStore, D: DocumentStore, C: Clock> Step<'_, S, B, D, C> {
    /// Goes on until the job is done or the budget is used up.
    pub(super) async fn run(&mut self) -> Result<Outcome, Error> {
        let resumed = match self.job.quiet.paused.take() {
            Some(paused) => {
                self.job.stored.is_known = false;
                Resumed::Paused(paused)
            }
            None => match self.take_up().await? {
                ControlFlow::Continue(resumed) => resumed,
                ControlFlow::Break(()) => return Ok(Outcome::Done),
            },
        };
        // A step that has only deletions to append gets at least one portion further, whatever its budget.
        let must = matches!(resumed, Resumed::Listed);
        let Some(mut base) = self.list(resumed).await? else {
            return Ok(Outcome::Continue);
        };
        self.job.phase = Phase::Delivering;
        if mutation::is_on(Mutation::MoveRootEarly) {
            self.job.stored.document.checkpoint = Some(Checkpoint::default());
            self.move_root(&mut base).await?;
        }
        if !self.append_deletions(must).await? {
            return Ok(Outcome::Continue);
        }
        self.hold_back_behind().await?;
        if base.leaves.list.is_empty() {
            base.leaves = Leaves::of(&self.state, &self.job.stored.document.root).await?;
        }
        if self.moves_root(&base) {
            if !self.sweep(&mut base).await? {
                return Ok(Outcome::Continue);
            }
            self.move_root(&mut base).await?;
        }
        self.job.phase = Phase::Done;
        Ok(Outcome::Done)
    }

    /// Tells what the step did, and holds the job where it is to be held.
    pub(super) fn report(mut self, outcome: Result<Outcome, Error>) -> StepReport {
        let mut counts = self.job.counts;
        if let Some(paused) = &self.job.quiet.paused {
            paused.lanes.add_to(&mut counts);
        }
        let stored = &self.job.stored;
        let limited = self.job.place.limited;
        let warnings = match outcome {
            Ok(Outcome::Done) => {
                let stopped_after = limited.then(|| counts.created.saturating_add(counts.updated));
                let done = warning::Done {
                    listed: counts.listed,
                    matched: counts.matched,
                    unreadable: counts.unreadable,
                    stopped_after,
                };
                let held = self.job.deletions.held_back.as_ref();
                let mut warnings: Vec<_> = held
                    .iter()
                    .map(|held| {
                        let known = stored.document.root.entries_to_guard();
                        warning::of_deletions(held, (self.spec.deletion_limit, known), limited)
                    })
                    .collect();
                warnings.extend(warning::of_job(self.spec.filter, &self.spec.seen.record(), done));
                warnings
            }
            _ => Vec::new(),
        };
        let report = StepReport {
            outcome,
            phase: self.job.phase,
            counts,
            cost: self.meter.cost(self.source, &self.state),
            known_before: stored.known_before,
            limited,
            held_back: self.job.deletions.held_back.take(),
            files_known: stored.document.root.entries,
            bytes_known: stored.document.root.bytes,
            spent: self.meter.spent(self.source, &self.state, self.clock),
            bookmark: self.job.quiet.bookmark_to_keep.take(),
            warnings,
            is_checkpointed: stored.is_known.then_some(stored.document.checkpoint.is_some()),
            feed: stored.is_known.then(|| stored.document.feed.clone()),
            appended: mem::take(&mut self.job.appended),
        };
        if let Some(paused) = self.job.quiet.paused.take() {
            self.spec.hold(self.job, paused);
        }
        report
    }

    /// Reads the listing from where the job is, to its end, or as far as the job may go; `None`: the budget is used up
    /// before.
    async fn list(&mut self, resumed: Resumed) -> Result<Option<Base>, Error> {
        let (mut base, mut lanes) = match resumed {
            Resumed::Listed => return Ok(Some(Base::default())),
            Resumed::Paused(paused) => {
                let Paused { base, lanes } = *paused;
                (base, Lanes::go_on(self.source, self.spec.rules(), lanes, self.spec.streams))
            }
            Resumed::At { open } => {
                let (base, first, ahead) = self.plan_ranges(open).await?;
                (base, Lanes::new(self.source, self.spec.rules(), first, ahead, self.spec.streams))
            }
        };
        let ended = match self.read_on(&mut base, &mut lanes).await? {
            ControlFlow::Continue(ended) => ended,
            ControlFlow::Break(()) => return Ok(Some(base)),
        };
        if let Some(left_off) = self.leave_off_quietly(&base, &mut lanes, &ended).await {
            // What is held goes on with the base as it is.
            if let Some(lanes) = left_off {
                self.job.quiet.paused = Some(Box::new(Paused { base, lanes }));
            }
            return match ended {
                Ended::Failed(error) => Err(error),
                _ => Ok(None),
            };
        }
        match ended {
            Ended::Whole => {
                self.job.next.assembly.finish();
                self.note_leaves(&mut base);
                self.job.place.listed = true;
                Ok(Some(base))
            }
            Ended::Failed(error) if self.spec.keeps_place_after(&error) => {
                let is_limited = self.stop_listing(&mut base, lanes, false).await?;
                if is_limited {
                    return Ok(Some(base));
                }
                if self.has_read_on() {
                    self.job.break_segment();
                    self.save_checkpoint().await?;
                }
                Err(error)
            }
            Ended::Failed(error) => {
                // What was read until then is not read again.
                let place = &self.job.place;
                let resumable =
                    place.resume_point.is_some() && !place.at_end && self.job.next.assembly.is_between_segments();
                if error.is_transient() && resumable {
                    self.save_checkpoint().await?;
                }
                Err(error)
            }
            Ended::Stopped | Ended::Dropped => {
                let is_limited = self.stop_listing(&mut base, lanes, matches!(ended, Ended::Dropped)).await?;
                if is_limited {
                    return Ok(Some(base));
                }
                self.job.break_segment();
                self.save_checkpoint().await?;
                Ok(None)
            }
        }
    }

    /// Whether the job has read more than the stored checkpoint says.
    fn has_read_on(&self) -> bool {
        let pending = self.job.place.pending.as_ref().map_or(0, |(_, since, _)| since.listed);
        let stored = self.job.stored.document.checkpoint.as_ref().map_or(0, |it| it.counts.listed);
        self.job.counts.listed + pending > stored
    }

    /// Takes pieces until none is left, the budget is used up, or the job may take no more files (`Break`).
    async fn read_on(&mut self, base: &mut Base, lanes: &mut Lanes<'_, S>) -> Result<ControlFlow<(), Ended>, Error> {
        let mut must = true;
        loop {
            let next = {
                let this = &*self;
                lanes.next(&mut |reads| mem::take(&mut must) || this.allows(reads)).await
            };
            self.meter.keys += lanes.take_keys();
            let (pieces, begins) = match next {
                Next::Pieces { pieces, begins } => (pieces, begins),
                Next::End => return Ok(ControlFlow::Continue(Ended::Whole)),
                Next::Stopped => {
                    self.job.place.watch.join(&lanes.watch)?;
                    return Ok(ControlFlow::Continue(Ended::Stopped));
                }
                Next::Failed(error) => return Ok(ControlFlow::Continue(Ended::Failed(error))),
            };
            self.job.place.watch.join(&lanes.watch)?;
            match self.take_pieces(base, pieces, begins, true).await? {
                Taken::All => {}
                Taken::Limited => return Ok(ControlFlow::Break(())),
                Taken::Stopped => return Ok(ControlFlow::Continue(Ended::Dropped)),
            }
        }
    }

    /// Takes pieces, of which the first begins that. What is much to store is stored in between, where the step
    /// `may_store`.
    async fn take_pieces(
        &mut self,
        base: &mut Base,
        pieces: Vec<Piece>,
        begins: Begins,
        may_store: bool,
    ) -> Result<Taken, Error> {
        let mut begins = Some(begins);
        for piece in pieces {
            let begins = begins.take().unwrap_or(Begins::Leaf);
            // Only once it is known that nothing more belongs to the last segment: it would have to be stored again. At
            // the end all is stored at once: no checkpoint lies between the last file and the end.
            if may_store && begins != Begins::Nothing && !self.job.place.at_end && self.is_worth_storing() {
                if self.job.outbox.is_empty() {
                    self.store_puts().await?;
                } else {
                    self.save_checkpoint().await?;
                }
                if !self.allows(Reads::default()) {
                    return Ok(Taken::Stopped);
                }
            }
            self.open_for(base, begins).await?;
            match self.take_piece(base, piece).await? {
                Taken::All => {}
                other => return Ok(other),
            }
        }
        Ok(Taken::All)
    }

    /// Leaves a job off that has found nothing, with nothing stored: held in memory, at a bookmark, or both. `None`: it
    /// has to save a checkpoint.
    async fn leave_off_quietly(
        &mut self,
        base: &Base,
        lanes: &mut Lanes<'_, S>,
        ended: &Ended,
    ) -> Option<Option<super::listing::lanes::PausedLanes>> {
        let breaks_off = match ended {
            Ended::Whole => false,
            Ended::Stopped | Ended::Dropped => true,
            Ended::Failed(error) => error.is_transient() && !self.spec.keeps_place_after(error),
        };
        if !breaks_off || !self.found_nothing(base) {
            return None;
        }
        let is_marked = self.keep_bookmark();
        if self.spec.may_be_held() && !matches!(ended, Ended::Dropped) {
            let paused = lanes.pause(self.spec.thresholds.held_bytes_max).await;
            self.meter.keys += lanes.take_keys();
            if paused.is_some() {
                return Some(paused);
            }
        }
        is_marked.then(|| {
            self.leave_off();
            None
        })
    }

    /// Takes what the first lane has read and not handed on. Answers whether the job may take no more files.
    async fn stop_listing(&mut self, base: &mut Base, lanes: Lanes<'_, S>, dropped: bool) -> Result<bool, Error> {
        let Some(rest) = lanes.stop().filter(|_| !dropped) else { return Ok(false) };
        self.job.place.watch.join(&rest.watch)?;
        let begins = if rest.pieces.is_empty() { Some(rest.begins) } else { None };
        match self.take_pieces(base, rest.pieces, rest.begins, false).await? {
            // A step that got no segment further keeps what it has of one.
            Taken::All => self.job.place.pending = Some((rest.open, rest.since, begins)),
            Taken::Limited => return Ok(true),
            Taken::Stopped => {}
        }
        Ok(false)
    }
}
