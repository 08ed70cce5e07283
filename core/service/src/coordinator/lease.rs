//! Who may run a step, or feed the sinks: one at a time.

use super::{
    ACCOUNT_MAX_AGE_MS, Coordinator, Home, State,
    collect_turn::CollectTurn,
    pumps::Pumps,
    state::{Lease, STEP_FAILURES_MAX},
};
use crate::registry::SyncRecord;
use b2sync_core::{
    engine::bookmark::Bookmark,
    entropy::Entropy,
    error::Error,
    ids,
    job::{JobRecord, Phase},
    mutation::{self, Mutation},
    time::Timestamp,
};

/// A lease outlasts the step's own time limit by this many milliseconds: a page that was asked for just before the
/// limit may take all its retries, each until it times out.
pub const LEASE_MARGIN_MS: u64 = 300_000;
/// How soon an instance looks again while a step of its own is on its way, in milliseconds. The step's end calls
/// earlier; this is for the step that dies with its instance.
pub const LEASE_LOOK_MS: i64 = 1_000;

/// What one step works on.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) job: JobRecord,
    /// The number of its lease, and of the one before.
    pub(super) step: u64,
    pub(super) step_before: Option<u64>,
    pub(super) confirm_deletes: bool,
    pub(super) resync: bool,
    pub(super) listing_id: Option<String>,
    pub(super) is_last_attempt: bool,
    pub(super) pumps: Pumps,
    pub(super) bookmark: Option<Bookmark>,
}

/// What a drive does.
pub(super) enum Turn {
    /// A step of the running job.
    Step(Box<Begun>),
    /// It feeds the sinks.
    Pump(Box<PumpTurn>),
    /// It deletes what nothing needs any more.
    Collect(Box<CollectTurn>),
}

/// A turn that feeds the sinks.
#[derive(Debug)]
pub(super) struct PumpTurn {
    /// The number of its lease.
    pub(super) step: u64,
    pub(super) pumps: Pumps,
    pub(super) until: Timestamp,
}

impl<H: Home> Coordinator<'_, H> {
    /// Until when a lease keeps this instance from running a step; `None`: nothing does.
    pub(super) fn held_until(&self, state: &State, now: Timestamp) -> Option<Timestamp> {
        let lease = state.lease.as_ref().filter(|lease| lease.until > now)?;
        match (lease.holder == self.home.instance(), self.home.config().sole_instance) {
            (true, true) => Some(lease.until.min(now.plus_millis(LEASE_LOOK_MS))),
            (false, true) => None,
            (_, false) => Some(lease.until),
        }
    }

    /// Takes the lease for a step, which may touch the snapshot.
    pub(super) fn take_lease(&self, state: &mut State, now: Timestamp) -> u64 {
        let step = self.take_lease_beside(state, now);
        state.last_step = Some(step);
        step
    }

    /// Takes the lease for what leaves the snapshot alone: a job that is held in memory stays so.
    pub(super) fn take_lease_beside(&self, state: &mut State, now: Timestamp) -> u64 {
        let lease_ms = self.home.config().budget.wall_ms_max.saturating_add(LEASE_MARGIN_MS).min(ACCOUNT_MAX_AGE_MS);
        let until = now.plus_millis(i64::try_from(lease_ms).unwrap_or(i64::MAX));
        if state.lease.is_some() {
            // A step died with it.
            state.collecting.note_orphans(now);
        }
        let step = self.home.entropy().below(u64::MAX);
        state.lease = Some(Lease { holder: self.home.instance().to_owned(), until, step, is_reported: false });
        step
    }

    /// Takes the lease to delete what nothing needs any more, if it is time to.
    fn begin_collecting(&self, state: &mut State, now: Timestamp) -> (Option<Turn>, Option<u64>) {
        if !state.is_to_collect(now) {
            return (None, None);
        }
        let step = self.take_lease(state, now);
        let (pumps, collecting) = (state.pumps.clone(), state.collecting.clone());
        (Some(Turn::Collect(Box::new(CollectTurn { step, pumps, collecting }))), Some(step))
    }

    /// Takes the lease for one step, or for feeding the sinks; `None`: there is nothing to do now, and the alarm is
    /// set.
    pub(super) async fn begin_turn(&self, sync: &SyncRecord, now: Timestamp) -> Result<Option<Turn>, Error> {
        let job_id = ids::job_id(self.home.entropy());
        let sink_ids = self.sink_ids(sync);
        self.update_taking_lease(&sync.sync_id, |state| {
            self.start_due(state, sync, &job_id, now);
            // The call that changed them may have been cut off before it said so.
            state.pumps.set_sinks(&sink_ids, state.status.feed_last, now);
            let held = self.held_until(state, now).is_some() && !mutation::is_on(Mutation::SkipLease);
            let waiting = state.step_not_before.is_some_and(|at| at > now);
            let Some(job) = state.status.current_job.as_mut().filter(|_| !held && !waiting) else {
                if held {
                    return Ok((None, None));
                }
                let Some(pumps) = state.begin_pumping(now) else {
                    return Ok(self.begin_collecting(state, now));
                };
                // A job that waits for its next step may be held meanwhile.
                let step = self.take_lease_beside(state, now);
                let until = state.pump_until(now);
                return Ok((Some(Turn::Pump(Box::new(PumpTurn { step, pumps, until }))), Some(step)));
            };
            job.started_at.get_or_insert(now);
            if job.phase == Phase::Queued {
                job.phase = Phase::Discovering;
            }
            let job = job.clone();
            let step_before = state.last_step;
            let step = self.take_lease(state, now);
            let begun = Begun {
                job,
                step,
                step_before,
                confirm_deletes: state.confirm_deletes,
                resync: state.resync,
                listing_id: state.listing_id.clone(),
                is_last_attempt: state.step_failures + 1 >= STEP_FAILURES_MAX,
                pumps: state.pumps.clone(),
                bookmark: state.bookmark.clone(),
            };
            Ok((Some(Turn::Step(Box::new(begun))), Some(step)))
        })
        .await
    }
}
