//! What a job holds between two steps, where both run in the same instance of a home.

use std::cell::RefCell;

use crate::engine::job::{JobState, Paused};

/// A job between two steps, with all it has read: the next step reads nothing again.
#[derive(Debug)]
struct Held {
    /// The number of the step that left it so.
    step: u64,
    job_id: String,
    /// As in [`crate::state::document::Checkpoint::fingerprint`].
    fingerprint: String,
    job: Box<JobState>,
    paused: Box<Paused>,
}

/// Holds a job that has found nothing so far from one step to the next; one job at a time. It may be lost at any time:
/// the job then goes on from its latest bookmark, or begins again, and nothing else is lost.
#[derive(Debug, Default)]
pub struct Memory(RefCell<Option<Held>>);

impl Memory {
    /// With nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Handle for the step `step`, which follows `before`. The held job is valid only if no other step has begun in
    /// between. Numbers must be unique for each sync, wherever its steps run.
    pub fn for_step(&self, before: Option<u64>, step: u64) -> Holding<'_> {
        Holding { memory: self, before, step }
    }

    /// Gives up what it holds.
    pub fn forget(&self) {
        self.0.take();
    }
}

/// A [`Memory`] as one step has it.
#[derive(Clone, Copy, Debug)]
pub struct Holding<'a> {
    memory: &'a Memory,
    before: Option<u64>,
    step: u64,
}

impl Holding<'_> {
    /// The job as the step before left it.
    pub(in crate::engine) fn take(&self, job_id: &str, fingerprint: &str) -> Option<JobState> {
        let held = self.memory.0.take()?;
        let fits = Some(held.step) == self.before && held.job_id == job_id && held.fingerprint == fingerprint;
        fits.then(|| {
            let mut job = *held.job;
            job.quiet.paused = Some(held.paused);
            job
        })
    }

    /// Holds the job as this step leaves it.
    pub(in crate::engine) fn hold(&self, job_id: &str, fingerprint: &str, job: JobState, paused: Box<Paused>) {
        self.memory.0.replace(Some(Held {
            step: self.step,
            job_id: job_id.to_owned(),
            fingerprint: fingerprint.to_owned(),
            job: Box::new(job),
            paused,
        }));
    }

    /// Whether it holds the job as the step before left it.
    pub fn has(&self, job_id: &str) -> bool {
        self.memory.0.borrow().as_ref().is_some_and(|held| Some(held.step) == self.before && held.job_id == job_id)
    }
}
