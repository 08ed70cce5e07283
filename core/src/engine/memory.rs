//! What a job holds between two steps, where both run in the same instance of a home.

use std::cell::RefCell;

use super::{Order, base::Base, lanes::Waiting, run::Run};

/// A job between two steps, with all it has read: whoever goes on with it reads nothing again.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) job_id: String,
    /// As in [`crate::snapshot::root::Checkpoint::fingerprint`].
    pub(super) fingerprint: String,
    pub(super) run: Box<Run>,
    pub(super) paused: Box<Paused>,
    /// The steps of the job so far, once they are counted.
    steps: Option<u64>,
}

/// Where the reading stands.
#[derive(Debug)]
pub(super) struct Paused {
    pub(super) base: Base,
    pub(super) waiting: Waiting,
}

/// Holds a job that has found nothing so far from one step to the next. It may be lost at any time: the job then goes on
/// from its latest bookmark, or begins anew, and nothing else is lost.
///
/// What is in it is worth something only as long as nobody else runs a step of the sync: see [`Memory::is_of`].
#[derive(Debug, Default)]
pub struct Memory(RefCell<Option<Held>>);

impl Memory {
    /// With nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// The step that has put something into it was the job's `steps`-th, and is known to count.
    pub fn count(&self, steps: u64) {
        if let Some(held) = self.0.borrow_mut().as_mut() {
            held.steps = Some(steps);
        }
    }

    /// Whether it holds the job as it was after so many steps.
    pub fn is_of(&self, job_id: &str, steps: u64) -> bool {
        self.0.borrow().as_ref().is_some_and(|held| held.job_id == job_id && held.steps == Some(steps))
    }

    /// Gives up what it holds.
    pub fn forget(&self) {
        self.0.take();
    }

    /// What it holds of the order's job.
    pub(super) fn take(&self, order: &Order<'_>) -> Option<Held> {
        let held = self.0.take()?;
        let fits = held.job_id == order.job_id && held.fingerprint == order.fingerprint;
        (fits && !order.resync && !order.redeliver).then_some(held)
    }

    pub(super) fn put(&self, order: &Order<'_>, run: Run, paused: Box<Paused>) {
        self.0.replace(Some(Held {
            job_id: order.job_id.to_owned(),
            fingerprint: order.fingerprint.to_owned(),
            run: Box::new(run),
            paused,
            steps: None,
        }));
    }
}
