//! What a coordinator stores, and what becomes of it as jobs begin, go on and end.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    collecting::Collecting,
    protocol::{SyncState, SyncStatus},
    pumps::Pumps,
};
use crate::{documents::Stored, registry::SyncRecord};
use b2sync_core::{
    engine::{Outcome, StepReport, bookmark::Bookmark, spec::is_passing},
    error::{Error, ErrorKind},
    job::{ErrorRecord, Interruption, JobCost, JobCounts, JobRecord, JobStatus, Phase, Trigger},
    policy::HeldBack,
    time::Timestamp,
};

/// The name of the coordinator's document.
pub const DOCUMENT: &str = "coordinator";
/// The version that this code reads and writes.
pub const VERSION: u32 = 1;
/// Jobs that ended and are kept in the document; older ones are only in the job history.
pub const JOBS_KEPT_MAX: usize = 50;
/// Steps that may fail in a row with a transient error before the job fails.
pub const STEP_FAILURES_MAX: u32 = 5;
/// The wait before the first repetition of a failed step, in milliseconds; it doubles each time.
pub const STEP_BACKOFF_BASE_MS: u64 = 2_000;
/// The longest wait before a failed step is repeated, in milliseconds.
pub const STEP_BACKOFF_CAP_MS: u64 = 120_000;

/// The right to run a step, and to touch the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    pub(super) holder: String,
    pub(super) until: Timestamp,
    /// Which step: a random number.
    #[serde(default)]
    pub(super) step: u64,
    /// Whether its report is counted already, and the lease is kept for the work after it.
    #[serde(default)]
    pub(super) is_reported: bool,
}

/// How long what a job had read is worth going on from, in milliseconds: two days, which outlast a cap on calls a day.
const CONTINUES_MS_MAX: u64 = 2 * 24 * 3_600_000;

/// A listing that broke off for a passing reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Continues {
    /// The first job that worked on it.
    pub(super) listing_id: String,
    /// When the latest job broke off.
    pub(super) ended_at: Timestamp,
    /// Whether it hands over every file.
    pub(super) resync: bool,
}

/// The coordinator's document. Stored: fields are only ever added, each with a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) v: u32,
    pub(super) sync_id: String,
    #[serde(default)]
    pub(super) status: SyncStatus,
    /// Jobs that ended, newest first.
    #[serde(default)]
    pub(super) jobs: Vec<JobRecord>,
    #[serde(default)]
    pub(super) lease: Option<Lease>,
    #[serde(default)]
    pub(super) step_failures: u32,
    /// When the failed step is repeated.
    #[serde(default)]
    pub(super) step_not_before: Option<Timestamp>,
    /// The running job may delete as much as it finds.
    #[serde(default)]
    pub(super) confirm_deletes: bool,
    /// Whether the running job hands over every file.
    #[serde(default)]
    pub(super) resync: bool,
    /// The listing that the running job is of, where an earlier job began it.
    #[serde(default)]
    pub(super) listing_id: Option<String>,
    /// Whether a checkpoint says how far the listing is read.
    #[serde(default)]
    pub(super) is_checkpointed: bool,
    /// The latest job broke off for a passing reason: the next one goes on from there.
    #[serde(default)]
    pub(super) continues: Option<Continues>,
    /// The sync was deleted: only its state remains to be.
    #[serde(default)]
    pub(super) forgotten: bool,
    /// When it was deleted first.
    #[serde(default)]
    pub(super) forgotten_at: Option<Timestamp>,
    /// Jobs that ended and whose records are not known to be published, oldest first.
    #[serde(default)]
    pub(super) unpublished: Vec<JobRecord>,
    /// How far the sinks are.
    #[serde(default)]
    pub(super) pumps: Pumps,
    /// When to delete next what nothing needs any more.
    #[serde(default)]
    pub(super) collecting: Collecting,
    /// Where the running job goes on, if it has found nothing so far.
    #[serde(default)]
    pub(super) bookmark: Option<Bookmark>,
    /// Which step took the lease last, also if it died.
    #[serde(default)]
    pub(super) last_step: Option<u64>,
}

/// Reads a coordinator's document and writes it again: all that those who try the decoder need to see of it.
///
/// # Errors
/// [`ErrorKind::StateCorrupt`] for bytes that are none of this version.
pub fn document_read_and_written(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    Ok(State::decode(bytes)?.encode()?.into())
}

impl Stored for State {
    fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let corrupt = |why: String| {
            Error::new(
                ErrorKind::StateCorrupt,
                format!("The coordinator's stored document cannot be read: {why}."),
                "Use the version of b2sync that wrote it, or delete the sync and create it again.",
            )
        };
        let state: Self = serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))?;
        if state.v != VERSION {
            return Err(corrupt(format!("it has version {}, and this b2sync reads version {VERSION}", state.v)));
        }
        Ok(state)
    }

    fn encode(&self) -> Result<Bytes, Error> {
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Error::internal(format!("The coordinator's document does not encode: {error}.")))?;
        Ok(bytes.into())
    }
}

impl State {
    pub(super) fn new(sync_id: &str) -> Self {
        Self {
            v: VERSION,
            sync_id: sync_id.to_owned(),
            status: SyncStatus::default(),
            jobs: Vec::new(),
            lease: None,
            step_failures: 0,
            step_not_before: None,
            confirm_deletes: false,
            resync: false,
            listing_id: None,
            is_checkpointed: false,
            continues: None,
            forgotten: false,
            forgotten_at: None,
            unpublished: Vec::new(),
            pumps: Pumps::default(),
            collecting: Collecting::default(),
            bookmark: None,
            last_step: None,
        }
    }

    pub(super) fn has_lease(&self, step: u64) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.step == step)
    }

    pub(super) fn is_running(&self, job_id: &str) -> bool {
        self.status.current_job.as_ref().is_some_and(|job| job.job_id == job_id)
    }

    pub(super) fn start_job(&mut self, job_id: String, trigger: Trigger, now: Timestamp) -> JobRecord {
        let job = JobRecord {
            job_id,
            sync_id: self.sync_id.clone(),
            trigger,
            status: JobStatus::Running,
            phase: Phase::Queued,
            created_at: now,
            started_at: None,
            updated_at: now,
            completed_at: None,
            counts: JobCounts::default(),
            cost: JobCost::default(),
            known_before: self.status.files_known,
            error: None,
            warnings: Vec::new(),
            limited: false,
            deletions_held: 0,
            held_keys: Vec::new(),
            continued: false,
            list_interval_ms: 0,
        };
        self.status.runs += 1;
        self.status.state = SyncState::Active;
        self.status.next_sync_at = None;
        self.status.current_job = Some(job.clone());
        self.step_failures = 0;
        self.step_not_before = None;
        self.confirm_deletes = false;
        self.resync = false;
        self.listing_id = None;
        match self.continues.take().filter(|it| now.millis_since(it.ended_at) < CONTINUES_MS_MAX) {
            Some(Continues { listing_id, resync, .. }) => self.continue_listing(listing_id, resync),
            None => self.bookmark = None,
        }
        self.status.current_job.clone().unwrap_or(job)
    }

    fn continue_listing(&mut self, listing_id: String, resync: bool) {
        (self.listing_id, self.resync) = (Some(listing_id), resync);
        if let Some(job) = &mut self.status.current_job {
            job.continued = true;
        }
    }

    /// The running job lists from the first key, whatever an earlier one has read.
    pub(super) fn list_anew(&mut self) {
        (self.listing_id, self.bookmark) = (None, None);
        if let Some(job) = &mut self.status.current_job {
            job.continued = false;
        }
    }

    /// Ends the running job, and answers its record. A step that is on its way keeps the lease.
    pub(super) fn end_job(&mut self, status: JobStatus, error: Option<&Error>, now: Timestamp) -> Option<JobRecord> {
        let mut job = self.status.current_job.take()?;
        job.status = status;
        job.updated_at = now;
        job.completed_at = Some(now);
        job.error = error.map(ErrorRecord::from).or(job.error.filter(|_| status != JobStatus::Completed));
        if status == JobStatus::Completed {
            job.phase = Phase::Done;
            self.status.last_sync_at = Some(now);
            self.status.consecutive_failures = 0;
            self.status.last_error = None;
            self.status.completed_cost = Some(job.cost);
        } else if status == JobStatus::Failed {
            self.status.consecutive_failures += 1;
            self.status.last_error.clone_from(&job.error);
        }
        self.status.total_delivered += job.counts.changes();
        self.status.total_bytes_delivered =
            self.status.total_bytes_delivered.saturating_add(job.counts.delivered_bytes);
        self.status.last_job = Some(job.clone());
        if let Some(before) = self.jobs.first_mut() {
            before.held_keys.clear();
        }
        self.jobs.insert(0, job.clone());
        self.jobs.truncate(JOBS_KEPT_MAX);
        if is_worth_publishing(&job) {
            self.unpublished.push(job.clone());
            let over = self.unpublished.len().saturating_sub(JOBS_KEPT_MAX);
            self.unpublished.drain(..over);
        }
        self.step_failures = 0;
        self.step_not_before = None;
        self.confirm_deletes = false;
        let (resync, listing_id) = (std::mem::take(&mut self.resync), self.listing_id.take());
        let is_kept = self.is_checkpointed || self.bookmark.is_some();
        let is_passing = |error: &&Error| status == JobStatus::Failed && is_kept && is_passing(error);
        self.continues = error.filter(is_passing).map(|_| Continues {
            listing_id: listing_id.unwrap_or_else(|| job.job_id.clone()),
            ended_at: now,
            resync,
        });
        if self.continues.is_none() {
            self.bookmark = None;
        }
        if status != JobStatus::Completed && job.started_at.is_some() {
            // A step that broke off may have appended changes and not reported them.
            self.pumps.ask(now);
        }
        Some(job)
    }

    /// Ends the running job because a user wants something else; `reason` is in the user's words.
    pub(super) fn interrupt_job(&mut self, why: Interruption, reason: Option<&str>, now: Timestamp) {
        if let Some(job) = &mut self.status.current_job {
            job.error = Some(why.record(reason, job.error.as_ref()));
        }
        self.end_job(JobStatus::Interrupted, None, now);
    }

    /// Takes in which distance a job's list calls keep.
    pub(super) fn note_distance(&mut self, job_id: &str, list_interval_ms: u64) {
        if let Some(job) = self.status.current_job.as_mut().filter(|job| job.job_id == job_id) {
            job.list_interval_ms = list_interval_ms;
        }
    }

    /// Takes in how far the feed reaches.
    fn note_feed(&mut self, report: &StepReport) {
        if let Some(feed) = &report.feed {
            self.status.feed_last = feed.last();
            self.status.feed_first = feed.first().unwrap_or(self.status.feed_first);
        }
    }

    /// Takes in what the last step did of a job that was ended while it ran: what it appended is in the feed.
    pub(super) fn apply_late_report(&mut self, report: &StepReport, job_id: &str, sync: &SyncRecord) {
        self.note_feed(report);
        let Some(ended) = self.jobs.iter_mut().find(|job| job.job_id == job_id) else { return };
        let before = ended.counts;
        if report.outcome.is_ok() || report.phase != Phase::Queued {
            ended.counts = JobCounts { failed: before.failed, ..report.counts };
            // It was interrupted, so not everything that belongs to it was done.
            ended.phase = if report.phase == Phase::Done { Phase::Delivering } else { report.phase };
        }
        ended.cost = ended.cost.plus(report.cost);
        let ended = ended.clone();
        let status = &mut self.status;
        status.total_delivered += ended.counts.changes().saturating_sub(before.changes());
        let more_bytes = ended.counts.delivered_bytes.saturating_sub(before.delivered_bytes);
        status.total_bytes_delivered = status.total_bytes_delivered.saturating_add(more_bytes);
        if let Some(last) = status.last_job.as_mut().filter(|job| job.job_id == job_id) {
            last.clone_from(&ended);
        }
        // What is published already is published once more.
        self.unpublished.retain(|job| job.job_id != job_id);
        self.unpublished.push(ended);
        if self.status.current_job.is_none() {
            // The next poll was planned before the step's calls were known.
            self.stretch(sync);
        }
    }

    /// Takes in what a step of the running job did, under the filters of that fingerprint. Answers the job when that
    /// ended it.
    pub(super) fn apply_report(&mut self, report: &StepReport, fingerprint: &str, now: Timestamp) -> Option<JobRecord> {
        self.note_feed(report);
        let job = self.status.current_job.as_mut()?;
        job.updated_at = now;
        job.cost = job.cost.plus(report.cost);
        self.is_checkpointed = report.is_checkpointed.unwrap_or(self.is_checkpointed);
        if report.counts.listed > job.counts.listed || report.counts.changes() > job.counts.changes() {
            // It got further: only failures without that end a job.
            self.step_failures = 0;
        }
        // A step that failed before it had read anything knows nothing.
        if report.outcome.is_ok() || report.phase != Phase::Queued {
            job.phase = report.phase;
            // The engine knows nothing of what sinks refuse.
            job.counts = JobCounts { failed: job.counts.failed, ..report.counts };
            job.known_before = report.known_before;
            self.status.files_known = report.files_known;
            self.status.bytes_known = report.bytes_known;
        }
        // One that is older than a checkpoint stays, and does not count beside it.
        if report.bookmark.is_some() {
            self.bookmark.clone_from(&report.bookmark);
        }
        match &report.outcome {
            Ok(outcome) => {
                job.error = None;
                self.step_failures = 0;
                self.step_not_before = None;
                if *outcome == Outcome::Continue {
                    return None;
                }
                job.limited = report.limited;
                let HeldBack { count, keys } = report.held_back.clone().unwrap_or_default();
                (job.deletions_held, job.held_keys) = (count, keys.clone());
                (self.status.deletions_held, self.status.held_keys) = (count, keys);
                job.warnings.clone_from(&report.warnings);
                self.status.warnings.clone_from(&report.warnings);
                self.status.warned_for = fingerprint.to_owned();
                self.end_job(JobStatus::Completed, None, now)
            }
            Err(error) if error.is_transient() && self.step_failures + 1 < STEP_FAILURES_MAX => {
                self.step_failures += 1;
                job.error = Some(ErrorRecord::from(error));
                let backoff = STEP_BACKOFF_BASE_MS.saturating_mul(1 << (self.step_failures - 1).min(20));
                let wait = error.retry_after_ms().unwrap_or(0).max(backoff).min(STEP_BACKOFF_CAP_MS);
                self.step_not_before = Some(now.plus_millis(i64::try_from(wait).unwrap_or(i64::MAX)));
                None
            }
            Err(error) => self.end_job(JobStatus::Failed, Some(error), now),
        }
    }
}

/// A poll that found nothing is not history.
fn is_worth_publishing(job: &JobRecord) -> bool {
    job.status != JobStatus::Completed || job.counts.changes() > 0 || job.counts.failed > 0
}
