//! When a sync polls, and when its coordinator is to be called again.

use super::{
    Coordinator, Home, State,
    protocol::{Stretched, SyncState},
};
use crate::{
    cost,
    registry::{SyncMode, SyncRecord},
};
use b2sync_core::{
    job::{JobStatus, Trigger},
    mutation::{self, Mutation},
    time::{Clock, Timestamp},
};

/// After failures in a row a sync polls less and less often, down to once in this many seconds.
pub const FAILING_INTERVAL_S_MAX: u64 = 3_600;

impl State {
    /// When [`Coordinator::drive`] has something to do next, unless a lease is in the way until `held_until`.
    pub(super) fn next_alarm(&self, now: Timestamp, held_until: Option<Timestamp>) -> Option<Timestamp> {
        let free_at = held_until.unwrap_or(now).max(now);
        if self.forgotten {
            return Some(free_at);
        }
        let job = match self.status.current_job {
            Some(_) => Some(self.step_not_before.map_or(free_at, |at| at.max(free_at))),
            None => self.status.next_sync_at,
        };
        let pump = self.pumps.due_at.map(|at| at.max(free_at));
        let collect = self.collecting.due_at.filter(|_| self.status.current_job.is_none()).map(|at| at.max(free_at));
        job.into_iter().chain(pump).chain(collect).min()
    }

    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.status.current_job.is_none() && self.status.next_sync_at.is_some_and(|at| at <= now)
    }

    /// Plans the next poll by the sync's configuration.
    pub(super) fn plan_next(&mut self, sync: &SyncRecord, now: Timestamp) {
        let status = &mut self.status;
        status.stretched = None;
        if !sync.is_active {
            status.paused_at.get_or_insert(now);
            status.pause_reason.get_or_insert_with(|| "The sync is switched off (is_active is false).".to_owned());
        }
        if status.paused_at.is_some() {
            status.state = SyncState::Suspended;
            status.next_sync_at = None;
            return;
        }
        let failures = status.consecutive_failures;
        let retry_at = |s: u64| now.plus_millis(i64::try_from(s.saturating_mul(1_000)).unwrap_or(i64::MAX));
        let interval = u64::from(sync.polling_interval_s);
        let stretched = interval.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let stretched = stretched.min(FAILING_INTERVAL_S_MAX.max(interval));
        let transient = status.last_error.as_ref().is_some_and(|error| error.transient);
        let ended = status.last_job.as_ref().map(|job| job.status);
        let limited = status.last_job.as_ref().is_some_and(|job| job.limited);
        let continued = status.last_job.as_ref().is_some_and(|job| job.continued);
        status.next_sync_at = match (sync.mode, ended) {
            // A single import waits to be triggered, and is repeated only while a mere repetition may help.
            (SyncMode::OneTime, Some(JobStatus::Failed)) if transient => Some(retry_at(stretched)),
            // It took as many files as one run may; the next goes on.
            (SyncMode::OneTime, Some(JobStatus::Completed)) if limited => Some(retry_at(interval)),
            // What came before the place where it went on was read by an earlier job: it may be old.
            (_, Some(JobStatus::Completed)) if continued => Some(now),
            (SyncMode::OneTime, _) => None,
            (_, Some(_)) if failures > 0 => Some(retry_at(stretched)),
            // From the start of the latest job, so that a slow one does not stretch the interval.
            (_, Some(_)) => {
                let from = status.last_job.as_ref().map_or(now, |job| job.created_at);
                Some(from.plus_millis(i64::from(sync.polling_interval_s) * 1_000).max(now))
            }
            (_, None) => Some(retry_at(interval)),
        };
        status.state = match (ended, sync.mode) {
            (None, _) => SyncState::Pending,
            (Some(JobStatus::Completed), SyncMode::OneTime) if !limited && !continued => SyncState::Completed,
            (Some(JobStatus::Failed), _) if !transient => SyncState::Failed,
            _ => SyncState::Active,
        };
        self.stretch(sync);
    }

    /// Polls again, and begins at once.
    pub(super) fn resume(&mut self, sync: &SyncRecord, job_id: &str, now: Timestamp) {
        self.status.paused_at = None;
        self.status.pause_reason = None;
        if self.status.current_job.is_some() {
            return;
        }
        self.plan_next(sync, now);
        let wanted = sync.mode != SyncMode::OneTime || self.status.last_sync_at.is_none();
        if self.status.paused_at.is_none() && wanted {
            self.start_job(job_id.to_owned(), Trigger::Resume, now);
        }
    }

    /// Begins at once, if the latest job failed.
    pub(super) fn begin_what_failed(&mut self, sync: &SyncRecord, job_id: &str, now: Timestamp) {
        let paused = self.status.paused_at.is_some() || !sync.is_active;
        let failed = self.status.last_job.as_ref().is_some_and(|job| job.status == JobStatus::Failed);
        if self.status.current_job.is_none() && failed && !paused {
            self.start_job(job_id.to_owned(), Trigger::Resume, now);
        }
    }

    /// Puts the next poll off as far as `max_class_c_per_day` asks for, and says so. Every job that is kept counts,
    /// however it ended and why ever it was started.
    pub(super) fn stretch(&mut self, sync: &SyncRecord) {
        let (Some(cap), Some(next)) = (sync.max_class_c_per_day, self.status.next_sync_at) else { return };
        let interval_s = u64::from(sync.polling_interval_s);
        let jobs = self.jobs.iter().map(|job| (job.created_at, job.cost.class_c));
        let Some(put_off) = cost::put_off(interval_s, jobs, cap).filter(|it| it.until > next) else { return };
        if mutation::is_on(Mutation::IgnoreCap) {
            return;
        }
        self.status.next_sync_at = Some(put_off.until);
        self.status.stretched = Some(Stretched {
            interval_seconds: put_off.interval_s,
            reason: format!(
                "A job made {} class C calls. So that there are at most {cap} a day (max_class_c_per_day), the next \
                 poll begins {} seconds after that job and not {interval_s}. Raise max_class_c_per_day, or remove it \
                 with null, to poll more often.",
                put_off.class_c, put_off.interval_s
            ),
        });
    }
}

impl<H: Home> Coordinator<'_, H> {
    /// Starts the job that is due.
    pub(super) fn start_due(&self, state: &mut State, sync: &SyncRecord, job_id: &str, at: Timestamp) {
        if !state.is_due(at) {
            return;
        }
        if sync.is_active {
            state.start_job(job_id.to_owned(), Trigger::Scheduled, self.home.clock().now());
        } else {
            // Switched off, and the call that did so was cut off before it said so.
            state.plan_next(sync, at);
        }
    }
}
