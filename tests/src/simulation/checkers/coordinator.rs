//! What a coordinator's document says.

use std::collections::{BTreeMap, BTreeSet};

use b2sync_core::job::{JobCost, JobStatus, Trigger};
use b2sync_core::time::Timestamp;
use b2sync_service::coordinator;
use b2sync_service::cost;
use serde::Deserialize;

use super::{Rule, Violation};

/// A job that began by itself.
#[derive(Clone, Debug)]
struct PollSeen {
    began_ms: i64,
    class_c: u64,
}

/// What a coordinator's document says.
#[derive(Clone, Debug, Default)]
pub struct CoordinatorSeen {
    /// The step that has the lease.
    pub lease: Option<u64>,
    /// The job that runs.
    pub job: Option<String>,
    /// Whether a cap puts the next poll off.
    pub stretched: bool,
    /// Whether the latest job that ended delivered as much as it may.
    pub limited: bool,
    /// Whether it keeps a bookmark.
    pub bookmark: bool,
    /// When the next poll is due.
    pub next_sync_at: Option<Timestamp>,
}

/// Of the coordinator's document, what the checkers look at.
#[derive(Debug, Deserialize)]
struct Stored {
    #[serde(default)]
    status: StoredStatus,
    #[serde(default)]
    jobs: Vec<StoredJob>,
    #[serde(default)]
    lease: Option<StoredLease>,
    #[serde(default)]
    confirm_deletes: bool,
    #[serde(default)]
    resync: bool,
    #[serde(default)]
    listing_id: Option<String>,
    #[serde(default)]
    bookmark: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
struct StoredStatus {
    #[serde(default)]
    current_job: Option<StoredJob>,
    #[serde(default)]
    stretched: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    next_sync_at: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
struct StoredJob {
    job_id: String,
    status: JobStatus,
    trigger: Trigger,
    cost: JobCost,
    #[serde(default)]
    limited: bool,
}

#[derive(Debug, Deserialize)]
struct StoredLease {
    step: u64,
}

/// What the checkers remember of it.
#[derive(Debug, Default)]
pub(super) struct CoordinatorChecks {
    /// Class C calls a day, and how far clocks are off, in milliseconds.
    pub(super) class_c_max: Option<(u64, i64)>,
    polls: BTreeMap<String, PollSeen>,
    /// The step that has the lease.
    pub(super) lease: Option<u64>,
    /// The job that runs.
    pub(super) job: Option<String>,
    /// Whether the user has confirmed that the running job may delete everything.
    pub(super) confirmed: bool,
    /// Jobs whose deletions were confirmed.
    pub(super) confirmed_jobs: BTreeSet<String>,
    /// Of jobs that go on with the listing of an earlier one, which that is.
    pub(super) listings: BTreeMap<String, String>,
    /// Jobs that are full syncs.
    pub(super) full_syncs: BTreeSet<String>,
}

impl CoordinatorChecks {
    /// The coordinator's document was written. Answers what it says.
    pub(super) fn stored(&mut self, now_ms: i64, bytes: &[u8]) -> Result<CoordinatorSeen, Violation> {
        let stored: Stored = serde_json::from_slice(bytes).map_err(|error| {
            let message = format!("{} does not read: {error}", coordinator::DOCUMENT);
            Violation::new(Rule::CallsKeepTheirContract, message)
        })?;
        let running = stored.jobs.iter().find(|job| job.status == JobStatus::Running);
        if let Some(job) = running {
            let message = format!("{} runs and is among those that ended", job.job_id);
            return Err(Violation::new(Rule::OneJobAtATime, message));
        }
        let job = stored.status.current_job;
        let is_current = |job_id: &String| job.as_ref().is_some_and(|job| job.job_id == *job_id);
        let has_ended = |job_id: &String| stored.jobs.iter().any(|job| job.job_id == *job_id);
        if let Some(lost) = self.job.as_ref().filter(|job_id| !is_current(job_id) && !has_ended(job_id)) {
            let message = format!("{lost} was running, and neither runs on nor has ended");
            return Err(Violation::new(Rule::OneJobAtATime, message));
        }
        if let Some(job) = job.as_ref().filter(|job| job.status != JobStatus::Running) {
            return Err(Violation::new(Rule::OneJobAtATime, format!("{} is current and has ended", job.job_id)));
        }
        for ended in &stored.jobs {
            if let Some(poll) = self.polls.get_mut(&ended.job_id) {
                poll.class_c = ended.cost.class_c;
            }
        }
        if let Some(job) = job.as_ref().filter(|job| self.job.as_ref() != Some(&job.job_id)) {
            self.began(now_ms, job)?;
        }
        self.confirmed = stored.confirm_deletes;
        self.confirmed_jobs.extend(job.as_ref().filter(|_| stored.confirm_deletes).map(|job| job.job_id.clone()));
        self.full_syncs.extend(job.as_ref().filter(|_| stored.resync).map(|job| job.job_id.clone()));
        if let (Some(job), Some(listing_id)) = (&job, stored.listing_id) {
            self.listings.insert(job.job_id.clone(), listing_id);
        }
        self.lease = stored.lease.map(|lease| lease.step);
        self.job = job.map(|job| job.job_id);
        Ok(CoordinatorSeen {
            lease: self.lease,
            job: self.job.clone(),
            stretched: stored.status.stretched.is_some(),
            limited: stored.jobs.first().is_some_and(|job| job.limited),
            bookmark: stored.bookmark.is_some(),
            next_sync_at: stored.status.next_sync_at,
        })
    }

    /// A job begins. By itself none does before the calls of those before it have had their share of a day.
    fn began(&mut self, now_ms: i64, job: &StoredJob) -> Result<(), Violation> {
        if job.trigger != Trigger::Scheduled {
            return Ok(());
        }
        if let Some((most, skew_ms)) = self.class_c_max {
            // Each of two clocks is off.
            let day_ms = i64::try_from(cost::DAY_S * 1_000).unwrap_or(i64::MAX) - 4 * skew_ms;
            let today = self.polls.values().filter(|poll| now_ms - poll.began_ms < day_ms);
            let made: u64 = today.map(|poll| poll.class_c).sum();
            if made > most {
                let message =
                    format!("{} begins by itself after {made} class C calls within a day of {most}", job.job_id);
                return Err(Violation::new(Rule::WithinTheCap, message));
            }
        }
        let poll = PollSeen { began_ms: now_ms, class_c: 0 };
        self.polls.insert(job.job_id.clone(), poll);
        Ok(())
    }
}
