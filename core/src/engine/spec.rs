//! What a job is to do.

use super::{
    listing::Rules,
    resume::{bookmark::Bookmark, memory::Holding},
    thresholds::Thresholds,
};
use crate::{
    feed::Retention,
    filter::Filter,
    policy::{DeletionLimit, Reconcile},
    snapshot::cut::Cut,
};

/// What a job is to do.
#[derive(Clone, Debug)]
pub struct JobSpec<'a> {
    /// The job.
    pub job_id: &'a str,
    /// Where segments begin.
    pub cut: Cut,
    /// Which entries are taken.
    pub filter: &'a Filter,
    /// Differs whenever the source path or the filters do; a checkpoint made under another one is dropped.
    pub fingerprint: &'a str,
    /// Which changes enter the feed.
    pub reconcile: Reconcile,
    /// How many deletions enter the feed without confirmation.
    pub deletion_limit: DeletionLimit,
    /// Deletions enter the feed though they are more than the limit.
    pub confirm_deletes: bool,
    /// The most created and updated files that the job takes; the next one goes on. `None`: all.
    pub objects_max: Option<u64>,
    /// Hand over every file once, also those that are as before.
    pub resync: bool,
    /// What the feed keeps.
    pub retention: Retention,
    /// How many ranges of the listing are read at the same time. The outcome does not depend on it.
    pub streams: usize,
    /// From which size on something is stored. The outcome does not depend on it.
    pub thresholds: Thresholds,
    /// Where an earlier step of the job left off: the latest [`super::StepReport::bookmark`], or [`Bookmark::default`].
    /// `None`: the caller keeps none, so that a step whose job is not held stores a checkpoint, also where nothing has
    /// changed so far.
    pub bookmark: Option<Bookmark>,
    /// Where the job is held between two steps as long as it has found nothing. `None`: it is not.
    pub held: Option<Holding<'a>>,
}

impl<'a> JobSpec<'a> {
    /// Takes all that the source lists and the filter passes, in one stream, with deletions within the usual limit; the
    /// feed keeps everything.
    pub fn new(job_id: &'a str, cut: Cut, filter: &'a Filter, fingerprint: &'a str) -> Self {
        Self {
            job_id,
            cut,
            filter,
            fingerprint,
            reconcile: Reconcile::default(),
            deletion_limit: DeletionLimit::default(),
            confirm_deletes: false,
            objects_max: None,
            resync: false,
            retention: Retention::ALL,
            streams: 1,
            thresholds: Thresholds::USUAL,
            bookmark: None,
            held: None,
        }
    }

    /// What a reader of the listing needs of it.
    pub const fn rules(&self) -> Rules<'a> {
        Rules { cut: self.cut, filter: self.filter }
    }
}
