//! What the alarm does: a step of the running job, or a turn that feeds the sinks.

use super::{
    Coordinator, Home, PUMP_CALLS_MIN, WIPE_AGAIN_MS,
    lease::{Begun, PumpTurn, Turn},
    opening::cut,
    pumps::{AllPumped, Pumps},
};
use crate::registry::{ConnectionRecord, Registry, SyncRecord};
use b2sync_core::{
    engine::{self, StepReport},
    error::Error,
    job::JobStatus,
    mutation::{self, Mutation},
    state::document::SnapshotDocument,
    time::{Clock, Timestamp},
};

/// A deletion that was cut off is expected again for this long, in milliseconds; the alarm looks less often after that.
const FORGET_AGAIN_MS: u64 = 600_000;
/// How often it looks then, in milliseconds.
const FORGET_LOOK_MS: i64 = 3_600_000;

/// How soon a sync whose record cannot be read is looked at again, in milliseconds.
const UNREADABLE_AGAIN_MS: i64 = 3_600_000;

/// What is left to do once a step has reported.
#[derive(Clone, Debug, Default)]
struct Reported {
    /// The job goes on in another step.
    goes_on: bool,
    /// The job ended before it was done: its checkpoint is settled.
    broke_off: bool,
    /// The sinks are fed, until then.
    pumps: Option<Pumps>,
    pump_until: Timestamp,
}

impl<H: Home> Coordinator<'_, H> {
    /// Runs one step of the running job, or starts the job that is due and runs its first. Call it when the alarm goes
    /// off; too early or too often is harmless.
    ///
    /// # Errors
    /// Only those of the home's own stores. Set the alarm again after one; the cron does so too.
    pub async fn drive(&self) -> Result<(), Error> {
        let now = self.home.clock().now();
        let Some(state) = self.stored().await? else { return Ok(()) };
        let sync_id = state.sync_id.clone();
        if state.forgotten {
            let again = match self.held_until(&state, now) {
                Some(until) => until,
                // The call that deletes it is on its way, or was cut off and is to be sent again. While the registry
                // has the sync, the mark must stay: a fresh document would give out positions and ids a second time.
                None if self.home.registry().sync(&sync_id).await?.is_some() => {
                    let is_recent = state.forgotten_at.is_some_and(|at| now.millis_since(at) < FORGET_AGAIN_MS);
                    now.plus_millis(if is_recent { WIPE_AGAIN_MS } else { FORGET_LOOK_MS })
                }
                // An alarm set meanwhile belongs to a call that found nothing and wrote a fresh document: it wipes that
                // too.
                None if mutation::is_on(Mutation::KeepForgotten) => return Ok(()),
                None if self.home.wipe(&sync_id).await? => return Ok(()),
                None => now.plus_millis(WIPE_AGAIN_MS),
            };
            return self.home.set_alarm(Some(again)).await;
        }
        let Some((sync, connection)) = self.home.registry().find_sync_and_connection(&sync_id).await? else {
            // Deleted, and the call that deleted it was cut off before it said so.
            self.forget(&sync_id, now).await?;
            return Ok(());
        };
        let Ok(sync) = sync.read() else {
            // Lists show it as broken. A b2sync that can read it may be deployed.
            return self.home.set_alarm(Some(now.plus_millis(UNREADABLE_AGAIN_MS))).await;
        };
        let connection = connection.map(|row| row.read()).transpose();
        self.publish_jobs(&sync_id).await?;
        match self.begin_turn(&sync, now).await? {
            None => Ok(()),
            Some(Turn::Step(begun)) => self.drive_job((&sync, connection), &begun).await,
            Some(Turn::Pump(turn)) => self.drive_pumps(&sync, &turn).await,
            Some(Turn::Collect(turn)) => self.drive_collect(&sync, &turn).await,
        }
    }

    /// Runs one step of the running job, takes in its report, and feeds the sinks from what it appended.
    async fn drive_job(
        &self,
        (sync, connection): (&SyncRecord, Result<Option<ConnectionRecord>, Error>),
        begun: &Begun,
    ) -> Result<(), Error> {
        let sync_id = &sync.sync_id;
        let filters = sync.effective_filters();
        let (report, used) = self.step((sync, connection), &filters, begun).await;
        let (now, fingerprint) = (self.home.clock().now(), filters.fingerprint());
        let mut attempt = Reported::default();
        let sink_ids = self.sink_ids(sync);
        let reported = self
            .update_persistently(sync_id, |state| {
                if state.lease.as_ref().is_some_and(|lease| lease.step == begun.step && lease.is_reported) {
                    // The report is stored, and the answer to that was lost.
                    return Ok(attempt.clone());
                }
                let mut reported = Reported::default();
                if state.forgotten {
                    state.lease = None;
                    return Ok(reported);
                }
                if !state.has_lease(begun.step) {
                    // It took so long that another step has begun: that one's report counts.
                    state.collecting.note_orphans(now);
                    return Ok(reported);
                }
                state.note_garbage(&report, now);
                // Before the job ends: one that fails has the sinks looked at once more.
                reported.pumps = state.begin_pumping_behind(report.feed.as_ref(), &sink_ids, now);
                reported.broke_off = true;
                state.note_distance(&begun.job.job_id, used.list_interval_ms);
                if state.is_running(&begun.job.job_id) {
                    let ended = state.apply_report(&report, &fingerprint, now);
                    reported.goes_on = ended.is_none();
                    if let Some(job) = &ended {
                        state.plan_next(sync, now);
                        if reported.pumps.is_some() {
                            state.pumps.show_until_fed(job);
                        }
                    }
                    // What a later job goes on with stays as it is.
                    let is_over = state.continues.is_none();
                    reported.broke_off = ended.is_some_and(|job| job.status != JobStatus::Completed) && is_over;
                } else {
                    state.apply_late_report(&report, &begun.job.job_id, sync);
                }
                reported.pump_until = state.pump_until(now);
                if !reported.broke_off && reported.pumps.is_none() {
                    state.lease = None;
                } else if let Some(lease) = &mut state.lease {
                    lease.is_reported = true;
                }
                attempt.clone_from(&reported);
                Ok(reported)
            })
            .await;
        if let Some(memory) = self.home.memory().filter(|_| !reported.as_ref().is_ok_and(|it| it.goes_on)) {
            memory.forget();
        }
        let reported = reported?;
        // One failure must not keep the others from being done; each is made up for later by the next call.
        let ended = self.end_step(sync, begun, &report, &reported).await;
        let noted = self.note_connection(sync, &report.outcome, used).await;
        let published = self.publish_jobs(sync_id).await;
        if mutation::is_on(Mutation::FailAlarm) {
            report.outcome?;
        }
        ended.and(noted).and(published)
    }

    /// Does what is left to do behind a step that has reported, and gives the lease back.
    async fn end_step(
        &self,
        sync: &SyncRecord,
        begun: &Begun,
        report: &StepReport,
        reported: &Reported,
    ) -> Result<(), Error> {
        let Reported { pumps, pump_until, broke_off, .. } = reported;
        let mut pumped = None;
        if let Some(pumps) = pumps {
            let feed = match &report.feed {
                Some(feed) => Ok(feed.clone()),
                // A step of a job that is held in memory does not read the document.
                None => self.load_snapshot(&sync.sync_id).await.map(|document| document.feed),
            };
            let calls_max = self.home.config().budget.internal_requests_max;
            let left = calls_max.saturating_sub(report.spent.internal_requests).max(PUMP_CALLS_MIN);
            let all = match feed {
                Ok(feed) => Ok(self.pump(sync, pumps, &feed, &report.appended, (left, *pump_until)).await),
                Err(error) => Err(error),
            };
            pumped = Some((pumps, all));
        }
        if pumped.is_none() && !broke_off {
            return Ok(());
        }
        self.end_turn(sync, begun.step, Some(&begun.job.job_id), pumped, *broke_off).await
    }

    /// Feeds the sinks while no step runs, and gives the lease back.
    async fn drive_pumps(&self, sync: &SyncRecord, turn: &PumpTurn) -> Result<(), Error> {
        let calls_max = self.home.config().budget.internal_requests_max.max(PUMP_CALLS_MIN);
        let (pumped, has_checkpoint) = match self.load_snapshot(&sync.sync_id).await {
            Ok(document) => {
                let until = turn.until;
                let pumped = self.pump(sync, &turn.pumps, &document.feed, &[], (calls_max, until)).await;
                (Ok(pumped), document.checkpoint.is_some())
            }
            Err(error) => (Err(error), false),
        };
        self.end_turn(sync, turn.step, None, Some((&turn.pumps, pumped)), has_checkpoint).await
    }

    async fn load_snapshot(&self, sync_id: &str) -> Result<SnapshotDocument, Error> {
        let blobs = self.home.blobs(sync_id);
        let stored = b2sync_core::state::State::new(&blobs, self.home.documents());
        stored.load_document().await.map(|(document, _)| document)
    }

    /// Takes in what feeding the sinks came to, settles the checkpoint where it `may_settle` and no job runs, and gives
    /// the lease back.
    async fn end_turn(
        &self,
        sync: &SyncRecord,
        step: u64,
        job_id: Option<&str>,
        pumped: Option<(&Pumps, Result<AllPumped, Error>)>,
        may_settle: bool,
    ) -> Result<(), Error> {
        let now = self.home.clock().now();
        let settles = self
            .update_persistently(&sync.sync_id, |state| {
                if !state.has_lease(step) {
                    return Ok(false);
                }
                // Once, also if the answer to storing this was lost.
                if let Some((before, pumped)) = pumped.as_ref().filter(|_| state.pumps.running) {
                    state.end_pumping(before, pumped.as_ref(), job_id, now);
                }
                let is_over = state.status.current_job.is_none() && state.continues.is_none();
                let settles = may_settle && is_over && !state.forgotten;
                if !settles {
                    state.lease = None;
                }
                Ok(settles)
            })
            .await?;
        let settled = if settles { self.settle(sync, step).await } else { Ok(()) };
        match pumped {
            Some((_, Err(error))) => Err(error),
            _ => settled,
        }
    }

    /// Settles the checkpoint of a job that was ended between two steps. A step that is on its way does so itself.
    pub(super) async fn clean_up(&self, sync_id: &str, now: Timestamp) -> Result<(), Error> {
        // Before the lease is taken: an error would leave it taken.
        let sync = self.sync(sync_id).await?;
        let step = self
            .update_taking_lease(sync_id, |state| {
                let free = state.status.current_job.is_none() && self.held_until(state, now).is_none();
                let step = free.then(|| self.take_lease(state, now));
                Ok((step, step))
            })
            .await?;
        match step {
            Some(step) => self.settle(&sync, step).await,
            None => Ok(()),
        }
    }

    /// Settles the checkpoint of the job that ended, and gives the lease back.
    async fn settle(&self, sync: &SyncRecord, step: u64) -> Result<(), Error> {
        let sync_id = &sync.sync_id;
        let blobs = self.home.blobs(sync_id);
        // Should it fail, the next job does it before it begins.
        let settled = match cut(self.home.config(), sync) {
            Ok(cut) => engine::settle_checkpoint(&blobs, self.home.documents(), cut).await,
            Err(error) => Err(error),
        };
        let root = match &settled {
            Ok(root) => Some((root.entries, root.bytes)),
            Err(_) => None,
        };
        self.update_persistently(sync_id, |state| {
            if state.has_lease(step) {
                state.lease = None;
                if let Some((entries, bytes)) = root {
                    (state.status.files_known, state.status.bytes_known) = (entries, bytes);
                }
            }
            Ok(())
        })
        .await?;
        settled.map(|_| ())
    }
}
