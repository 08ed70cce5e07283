//! A step of a job on its way: what all that it does works on.

use std::mem;

use super::{
    job::JobState,
    listing::{lanes::Reads, source::Source},
    meter::Meter,
    spec::JobSpec,
};
use crate::{
    error::Error,
    state::State,
    store::{BlobStore, DocumentStore},
    time::Clock,
};

/// A step on its way.
pub(super) struct Step<'a, S, B, D, C> {
    pub(super) source: &'a S,
    pub(super) clock: &'a C,
    pub(super) state: State<'a, B, D>,
    pub(super) spec: &'a JobSpec<'a>,
    pub(super) meter: Meter,
    pub(super) job: JobState,
}

impl<S: Source, B: BlobStore, D: DocumentStore, C: Clock> Step<'_, S, B, D, C> {
    /// Whether the budget allows `reads` more.
    pub(super) fn allows(&self, reads: Reads) -> bool {
        self.meter.allows(self.meter.spent(self.source, &self.state, self.clock), reads, self.clock)
    }

    /// Whether the budget allows something more, or it `must` be done; otherwise a checkpoint is saved, and the step is
    /// to end.
    pub(super) async fn goes_on(&mut self, must: &mut bool) -> Result<bool, Error> {
        if mem::take(must) || self.allows(Reads::default()) {
            return Ok(true);
        }
        self.save_checkpoint().await?;
        Ok(false)
    }
}
