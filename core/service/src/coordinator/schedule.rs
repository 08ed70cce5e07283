//! When a sync polls, and when its coordinator is to be called again.

use super::{
    Coordinator, Home, State,
    protocol::{Stretched, SyncState},
};
use crate::{
    cost,
    cron::Times,
    registry::{SyncMode, SyncRecord},
};
use b2sync_core::{
    job::{JobStatus, Trigger},
    mutation::{self, Mutation},
    time::{Clock, Timestamp},
};

/// After failures in a row a sync polls less and less often, down to once in this many seconds.
pub const FAILING_INTERVAL_S_MAX: u64 = 3_600;

/// How polls follow each other.
enum Rhythm {
    /// This many seconds after the start of the one before.
    Every(u64),
    /// At times of the day, from when its user set them.
    At(Box<Times>, Timestamp),
}

impl Rhythm {
    fn of(sync: &SyncRecord) -> Self {
        // One that cannot be read leaves the interval, so that the sync goes on.
        let times = sync.cron.as_ref().and_then(|cron| Some((cron.times()?, cron.since)));
        times.map_or(Self::Every(u64::from(sync.polling_interval_s)), |(times, since)| Self::At(Box::new(times), since))
    }

    /// The poll after one that began at `began`. May lie in the past: then it is due.
    fn after(&self, began: Timestamp) -> Timestamp {
        match self {
            Self::Every(interval_s) => later(began, *interval_s),
            Self::At(times, since) => next(times, began.max(*since)),
        }
    }

    /// The poll after this many failures in a row, of which the latest was at `failed`: less and less often.
    fn after_failures(&self, failures: u64, failed: Timestamp) -> Timestamp {
        let stretched = |interval_s: u64| {
            let longer = interval_s.saturating_mul(1 << failures.saturating_sub(1).min(20));
            longer.min(FAILING_INTERVAL_S_MAX.max(interval_s))
        };
        match self {
            Self::Every(interval_s) => later(failed, stretched(*interval_s)),
            Self::At(times, since) => {
                let first = next(times, failed.max(*since));
                let interval_s = next(times, first).millis_since(first) / 1_000;
                // After one failure the first time, after two the second, as long as they are close together.
                next(times, later(failed.max(*since), stretched(interval_s).saturating_sub(interval_s)))
            }
        }
    }

    /// The first moment at `at` or later at which a poll may begin.
    fn not_before(&self, at: Timestamp) -> Timestamp {
        match self {
            Self::Every(_) => at,
            Self::At(times, _) => next(times, at.plus_millis(-1)),
        }
    }
}

fn later(at: Timestamp, seconds: u64) -> Timestamp {
    at.plus_millis(i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX))
}

/// The first time behind `at`. There always is one: a schedule that never matches is refused, and the calendar ends in
/// the year 9999.
fn next(times: &Times, at: Timestamp) -> Timestamp {
    times.after(at).unwrap_or_else(|| later(at, FAILING_INTERVAL_S_MAX))
}

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
        let rhythm = Rhythm::of(sync);
        let transient = status.last_error.as_ref().is_some_and(|error| error.transient);
        let last = status.last_job.as_ref();
        let ended = last.map(|job| job.status);
        let limited = last.is_some_and(|job| job.limited);
        let continued = last.is_some_and(|job| job.continued);
        // From when the latest job began or ended, and not from now: a sync that is changed in between polls no later.
        let (began, over) = last.map_or((now, now), |job| (job.created_at, job.completed_at.unwrap_or(now)));
        let at = match (sync.mode, ended) {
            // A single import waits to be triggered, and is repeated only while a mere repetition may help.
            (SyncMode::OneTime, Some(JobStatus::Failed)) if transient => Some(rhythm.after_failures(failures, over)),
            // It took as many files as one run may; the next goes on.
            (SyncMode::OneTime, Some(JobStatus::Completed)) if limited => Some(rhythm.after(over)),
            // What came before the place where it went on was read by an earlier job: it may be old.
            (_, Some(JobStatus::Completed)) if continued => Some(now),
            (SyncMode::OneTime, _) => None,
            (_, Some(_)) if failures > 0 => Some(rhythm.after_failures(failures, over)),
            // From the start of the latest job, so that a slow one does not stretch the interval.
            (_, Some(_)) => Some(rhythm.after(began)),
            (_, None) => Some(rhythm.after(sync.created_at)),
        };
        status.next_sync_at = at.map(|at| at.max(now));
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
        let rhythm = Rhythm::of(sync);
        let reserve_s = if let Rhythm::Every(interval_s) = rhythm { interval_s } else { 0 };
        let jobs = self.jobs.iter().map(|job| (job.created_at, job.cost.class_c));
        let Some(put_off) = cost::put_off(reserve_s, jobs, cap).filter(|it| it.until > next) else { return };
        if mutation::is_on(Mutation::IgnoreCap) {
            return;
        }
        let until = rhythm.not_before(put_off.until);
        let (calls, needed_s) = (put_off.class_c, put_off.interval_s);
        let waits_s = needed_s.saturating_add(until.millis_since(put_off.until) / 1_000);
        let when = match rhythm {
            Rhythm::Every(interval_s) => format!("{waits_s} seconds after that job and not {interval_s}"),
            Rhythm::At(..) => {
                format!("at the first time of its cron expression that is at least {needed_s} seconds after that job")
            }
        };
        self.status.next_sync_at = Some(until);
        self.status.stretched = Some(Stretched {
            interval_seconds: waits_s,
            reason: format!(
                "A job made {calls} class C calls. So that there are at most {cap} a day (max_class_c_per_day), the \
                 next poll begins {when}. Raise max_class_c_per_day, or remove it with null, to poll more often.",
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cron::CronSchedule;

    fn rhythm(which: usize) -> Rhythm {
        let crons = ["* * * * *", "*/10 * * * *", "0 3 * * *", "30 2 * * 1-5", "0,7 */5 1 * *"];
        let since = Timestamp::from_millis(0);
        match crons.get(which) {
            Some(cron) => {
                let schedule = CronSchedule::new(cron, "Europe/Berlin", since).unwrap();
                Rhythm::At(Box::new(schedule.times().unwrap()), since)
            }
            None => Rhythm::Every(which as u64 * 30),
        }
    }

    proptest! {
        /// From 2020 to 2040, in milliseconds.
        #[test]
        fn polls_go_on_and_come_less_often_after_failures(
            which in 0_usize..12, at in 1_577_836_800_000_i64..2_208_988_800_000, failures in 1_u64..70,
        ) {
            let (rhythm, at) = (rhythm(which), Timestamp::from_millis(at));
            let next = rhythm.after(at);
            prop_assert!(next > at);
            // No moment of a rhythm lies between.
            if let Rhythm::At(..) = rhythm {
                prop_assert_eq!(rhythm.not_before(at.plus_millis(1)), next);
            }
            prop_assert_eq!(rhythm.not_before(next), next);
            let failed: Vec<_> = [failures, failures + 1].map(|n| rhythm.after_failures(n, at)).into();
            prop_assert_eq!(rhythm.after_failures(1, at), next);
            prop_assert!(failed[0] >= next && failed[1] >= failed[0]);
            // Not much longer than an hour, or than what the rhythm says anyway.
            let hour = Timestamp::from_millis(at.as_millis() + FAILING_INTERVAL_S_MAX as i64 * 1_000);
            prop_assert!(failed[1] <= rhythm.after(hour).max(rhythm.after(next)));
        }
    }
}
