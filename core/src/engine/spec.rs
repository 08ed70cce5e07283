//! What a job is to do.

use super::{listing::Rules, thresholds::Thresholds};
use crate::{
    cost::SourceCost,
    engine::{
        bookmark::Bookmark,
        job::{JobState, Paused},
        memory::Holding,
    },
    error::{Error, ErrorKind},
    feed::{Retention, batch::JOB_ID_BYTES_MAX},
    filter::{Filter, Seen},
    policy::{DeletionLimit, Reconcile},
    snapshot::cut::Cut,
    time::Timestamp,
};

/// What a job is to do.
#[derive(Clone, Debug)]
pub struct JobSpec<'a> {
    /// The job.
    pub job_id: &'a str,
    /// The listing that the job goes on with: the first job that began it, and that broke off for a passing reason.
    /// `None`: its own. Where nothing is kept of that listing, the job begins at the first key.
    pub listing_id: Option<&'a str>,
    /// Should this step fail for a passing reason, the caller gives the job up, and a later job goes on with its
    /// listing: what it has read is saved, also where it found nothing.
    pub is_last_attempt: bool,
    /// Where segments begin.
    pub cut: Cut,
    /// Which entries are taken.
    pub filter: &'a Filter,
    /// Differs whenever the source path or the filters do; a checkpoint made under another one is settled.
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
    /// What the job has seen of the filters. It begins with nothing; the engine fills it.
    pub seen: Seen,
    /// What opening the source took in this step: it counts against the step's budget and in its report.
    pub opening: Option<Opening>,
}

/// What opening a source took, before the engine had it.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// What the calls cost.
    pub cost: SourceCost,
    /// When it began.
    pub began: Timestamp,
}

/// Whether a later job may go on where one broke off with this error: B2 did not answer, or did not let it go on for
/// now. After an error that makes the listing itself doubtful, the next job lists from the first key.
pub fn is_passing(error: &Error) -> bool {
    error.is_transient()
        || matches!(
            error.kind(),
            ErrorKind::CapExceeded | ErrorKind::BadCredentials | ErrorKind::KeyExpired | ErrorKind::AccessDenied
        )
}

impl<'a> JobSpec<'a> {
    /// Takes all that the source lists and the filter passes, in one stream, with deletions within the usual limit; the
    /// feed keeps everything.
    pub fn new(job_id: &'a str, cut: Cut, filter: &'a Filter) -> Self {
        Self {
            job_id,
            listing_id: None,
            is_last_attempt: false,
            cut,
            filter,
            fingerprint: filter.fingerprint(),
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
            seen: Seen::default(),
            opening: None,
        }
    }

    /// What a reader of the listing needs of it.
    pub const fn rules(&self) -> Rules<'_> {
        Rules { cut: self.cut, filter: self.filter, seen: &self.seen }
    }
}

impl JobSpec<'_> {
    /// The listing that the job is of.
    pub(in crate::engine) fn listing_id(&self) -> &str {
        self.listing_id.unwrap_or(self.job_id)
    }

    /// Whether the place of the job is saved though it failed, because a later job goes on from there.
    pub(in crate::engine) fn keeps_place_after(&self, error: &Error) -> bool {
        is_passing(error) && (self.is_last_attempt || !error.is_transient())
    }

    /// Refuses what could be stored and not read again.
    pub(in crate::engine) fn check(&self) -> Result<(), Error> {
        if (1..=JOB_ID_BYTES_MAX).contains(&self.job_id.len()) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            format!("The job id has {} bytes; it must have 1 to {JOB_ID_BYTES_MAX}.", self.job_id.len()),
            "Use a shorter id that no other job of the sync has.",
        )
        .with_field("job_id"))
    }

    /// Where the job may be held. One that hands over more than what has changed is not.
    fn holding(&self) -> Option<Holding<'_>> {
        self.held.filter(|_| !self.resync)
    }

    /// Whether the job may be held when the step ends.
    pub(in crate::engine) fn may_be_held(&self) -> bool {
        self.holding().is_some()
    }

    /// The job as the previous step left it.
    pub(in crate::engine) fn take_held(&self) -> Option<JobState> {
        let job = self.holding()?.take(self.job_id, self.fingerprint)?;
        self.seen.join(&job.seen);
        Some(job)
    }

    /// Holds the job as the step leaves it.
    pub(in crate::engine) fn hold(&self, mut job: JobState, paused: Box<Paused>) {
        if let Some(holding) = self.holding() {
            job.seen = self.seen.record();
            holding.hold(self.job_id, self.fingerprint, job, paused);
        }
    }
}
