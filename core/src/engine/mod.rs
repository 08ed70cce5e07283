//! The sync engine: streams a listing, compares it with the snapshot, appends what changed to the feed, moves the root.
//!
//! One call of [`Engine::step`] does as much as its [`Budget`] allows. The order of effects makes every cut harmless:
//! **segments and batches are stored → one compare-and-swap of the document names them.** The swap that makes the
//! snapshot count a change (in the checkpoint or in the root) is the swap that appends the change to the feed. A cut at
//! any point repeats work, never a change.
//!
//! What it deliberately does not do: deliver anything (sinks read the feed), keep a watermark (last modified is the
//! *start* of an upload, so one loses files), trust a continuation token across steps, or append a deletion before the
//! whole listing was read.
//!
//! [`listing`] turns pages into pieces, one range or several at once; [`compare`] compares the pieces with the
//! snapshot; [`next`] puts the next snapshot together; [`deletions`] keeps what is gone until the listing is complete;
//! [`resume`] saves a job and takes it up again. `run` is the control flow.
//!
//! # Invariants
//! - The root names only blobs that are stored, and its generation never goes back.
//! - Replaying the feed from position 1 over nothing gives what root and checkpoint count, after every swap.
//! - A deletion enters the feed only when the listing was read without an error to its end, or as far as the job may
//!   take files, and within the limit.
//! - A job that finds nothing writes nothing, in any number of steps, as long as it is held in [`memory`], or
//!   each step comes past a few leaves and the caller keeps its [`Bookmark`]; otherwise it writes checkpoints.

pub mod assembly;
pub mod bookmark;
pub mod collect;
pub mod compare;
pub mod deletions;
mod job;
pub mod listing;
pub mod memory;
pub mod meter;
pub mod next;
pub mod previous;
pub mod resume;
mod run;
pub mod spec;
mod step;
pub mod thresholds;

use self::{
    job::JobState,
    listing::source::Source,
    meter::{Budget, Meter, Spent},
    step::Step,
};
pub use self::{resume::settle::settle_checkpoint, spec::JobSpec};
use crate::{
    cost::SourceCost,
    engine::bookmark::Bookmark,
    error::Error,
    feed::{Feed, outbox::Batch},
    job::{JobCost, JobCounts, Phase},
    policy::HeldBack,
    state::State,
    store::{BlobStore, DocumentStore},
    time::Clock,
    warning::Warning,
};

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The budget is used up: call [`Engine::step`] again.
    Continue,
    /// The job is done: the feed has all changes, and the root names the new snapshot.
    Done,
}

/// What a step did. Counts are those of the whole job so far, costs those of this step.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// How it ended. After an error the job resumes from its latest checkpoint, or ends.
    pub outcome: Result<Outcome, Error>,
    /// What the job is doing.
    pub phase: Phase,
    /// What the job has found and appended to the feed.
    pub counts: JobCounts,
    /// What this step has spent.
    pub cost: JobCost,
    /// Files in the snapshot before the job.
    pub known_before: u64,
    /// Whether the job ended before all was compared, because it has found as many files as it may.
    pub limited: bool,
    /// Deletions that the job found and holds back, because they are more than the limit allows; `None`: none are held,
    /// or the job is not done.
    pub held_back: Option<HeldBack>,
    /// Files in the current snapshot.
    pub files_known: u64,
    /// The sum of their sizes, in bytes.
    pub bytes_known: u64,
    /// What went to the stores in this step.
    pub spent: Spent,
    /// Where the job goes on, if it is not held by then and has stored nothing: a later step's [`JobSpec::bookmark`].
    /// `None`: the previous one still holds, or a checkpoint does.
    pub bookmark: Option<Bookmark>,
    /// Whether a checkpoint says how far the listing is read; `None`: the step neither read nor wrote the document.
    pub is_checkpointed: Option<bool>,
    /// The feed as the step left it; `None`: the step neither read nor wrote the document.
    pub feed: Option<Feed>,
    /// What the user should know of the job, once it is done.
    pub warnings: Vec<Warning>,
    /// The first batches that the step appended, at most [`APPENDED_BYTES_MAX`] in all: a sink that is up to date need
    /// not read them again.
    pub appended: Vec<Batch>,
}

impl StepReport {
    /// Of a step whose engine never began.
    pub fn not_begun(error: Error, cost: &SourceCost) -> Self {
        Self {
            outcome: Err(error),
            phase: Phase::Queued,
            counts: JobCounts::default(),
            cost: JobCost {
                class_b: cost.class_b,
                class_c: cost.class_c,
                bytes_received: cost.bytes_received,
                steps: 1,
                ..JobCost::default()
            },
            known_before: 0,
            limited: false,
            held_back: None,
            files_known: 0,
            bytes_known: 0,
            spent: Spent { external_requests: cost.requests, bytes_received: cost.bytes_received, ..Spent::default() },
            bookmark: None,
            is_checkpointed: None,
            feed: None,
            warnings: Vec::new(),
            appended: Vec::new(),
        }
    }
}

/// The most bytes of [`StepReport::appended`].
pub const APPENDED_BYTES_MAX: usize = 2 << 20;

/// The engine, and what it works with.
#[derive(Clone, Copy, Debug)]
pub struct Engine<'a, S, B, D, C> {
    /// What is listed.
    pub source: &'a S,
    /// Where segments and batches are kept. Names are the sync's own: the home keeps syncs apart.
    pub blobs: &'a B,
    /// Where the document is kept. Names are the sync's own.
    pub documents: &'a D,
    /// The time.
    pub clock: &'a C,
}

impl<S: Source, B: BlobStore, D: DocumentStore, C: Clock> Engine<'_, S, B, D, C> {
    /// Resumes the job from its latest checkpoint, or begins it, until it is done or the budget is used up.
    ///
    /// Errors are in [`StepReport::outcome`]. After a transient one the same call resumes from the latest checkpoint.
    pub async fn step(&self, spec: &JobSpec<'_>, budget: &Budget) -> StepReport {
        let mut step = Step {
            source: self.source,
            clock: self.clock,
            state: State::new(self.blobs, self.documents),
            spec,
            meter: Meter::begin(budget, spec.opening.as_ref(), self.source, self.clock),
            job: spec.take_held().unwrap_or_else(|| JobState::new(spec.cut)),
        };
        let outcome = match spec.check() {
            Ok(()) => step.run().await,
            Err(error) => Err(error),
        };
        step.report(outcome)
    }
}

#[cfg(test)]
mod tests;
