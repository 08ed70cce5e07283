//! What the API and the cron ask of a coordinator.

use super::{
    Coordinator, Home,
    protocol::{Answer, Command},
    state::JOBS_KEPT_MAX,
};
use crate::{
    registry::{Registry, SyncRecord},
    sinks::CATALOGUE,
};
use b2sync_core::{
    error::{Error, ErrorKind},
    ids,
    job::{Interruption, JobRecord, JobStatus, Trigger},
    mutation::{self, Mutation},
    time::{Clock, Timestamp},
};

/// How soon the cron looks again after a job that runs, in milliseconds.
pub const POKE_RUNNING_MS: i64 = 60_000;
/// How often a call that waits looks whether there is what it waits for, in milliseconds.
pub(super) const LOOK_MS: u64 = 250;
/// The longest that a call waits for changes or for the end of a job, in milliseconds.
pub const WAIT_MS_MAX: u64 = 25_000;

impl<H: Home> Coordinator<'_, H> {
    /// Answers one call.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such sync; [`ErrorKind::Conflict`] when its state does not allow the
    /// call; those of the stores.
    pub async fn handle(&self, sync_id: &str, command: Command) -> Result<Answer, Error> {
        let now = self.home.clock().now();
        let ends_job = matches!(command, Command::Pause { .. } | Command::Unlock);
        if let Some(memory) = self.home.memory().filter(|_| ends_job || matches!(command, Command::Forget)) {
            memory.forget();
        }
        let mut answer = self.answer(sync_id, command, now).await?;
        if ends_job {
            // What was asked for is done. Should the rest fail, the next job does it before it begins.
            let _ = self.clean_up(sync_id, now).await;
            let _ = self.publish_jobs(sync_id).await;
        }
        let status = match &mut answer {
            Answer::Status(status) => Some(status),
            Answer::Key(key) => Some(&mut key.status),
            _ => None,
        };
        if let Some(status) = status {
            // How the sync stands is worth knowing without them.
            status.sinks = self.sink_statuses(sync_id).await.ok();
        }
        Ok(answer)
    }

    async fn answer(&self, sync_id: &str, command: Command, now: Timestamp) -> Result<Answer, Error> {
        match command {
            Command::Status => Ok(Answer::Status(Box::new(self.load(sync_id).await?.status))),
            Command::Jobs { status, offset, limit } => self.list_jobs(sync_id, status, (offset, limit)).await,
            Command::Job { job_id, wait_ms } => self.job(sync_id, &job_id, wait_ms, now).await,
            Command::Changes { after, limit, wait_ms } => self.changes(sync_id, after, limit, wait_ms, now).await,
            Command::LookUp { key } => self.look_up(sync_id, &key).await,
            Command::Replay { sink_id, after } => self.replay(sync_id, &sink_id, after, now).await,
            Command::DeadLetters { only_max_retries, error_types, offset, limit } => {
                self.dead_letters(only_max_retries, &error_types, (offset, limit)).await
            }
            Command::Requeue { error_types } => self.send_back(sync_id, CATALOGUE, &error_types, now).await,
            Command::MarkFailed { error_types } => self.mark_failed(sync_id, &error_types).await,
            Command::Forget => self.forget(sync_id, now).await,
            Command::Poke { at } => self.poke(sync_id, at.max(now)).await,
            Command::Trigger { trigger, confirm_deletes, full_sync } => {
                self.trigger(sync_id, trigger, (confirm_deletes, full_sync), now).await
            }
            Command::Configured
            | Command::ConnectionLifted
            | Command::Pause { .. }
            | Command::Resume
            | Command::Unlock => self.change_course(sync_id, command, now).await,
        }
    }

    /// One job; waits for its end if it runs. A sync that is deleted ends its job.
    async fn job(&self, sync_id: &str, job_id: &str, wait_ms: u64, began: Timestamp) -> Result<Answer, Error> {
        let wait_ms = wait_ms.min(WAIT_MS_MAX);
        loop {
            let state = self.load(sync_id).await?;
            let mut all = state.status.current_job.iter().chain(&state.jobs);
            let job = all.find(|job| job.job_id == job_id).map(|job| state.pumps.shown(job));
            let waited_ms = self.home.clock().now().millis_since(began);
            if waited_ms >= wait_ms || job.as_ref().is_none_or(JobRecord::is_over) {
                return Ok(Answer::Job { job: job.map(Box::new) });
            }
            self.home.clock().sleep(LOOK_MS.min(wait_ms - waited_ms)).await;
        }
    }

    async fn list_jobs(&self, sync_id: &str, status: Option<JobStatus>, page: (u64, u64)) -> Result<Answer, Error> {
        let state = self.load(sync_id).await?;
        let all = state.status.current_job.iter().chain(&state.jobs).map(|job| state.pumps.shown(job));
        let jobs: Vec<_> = all.filter(|job| status.is_none_or(|status| job.status == status)).collect();
        let total = jobs.len() as u64;
        let jobs = page_of(jobs, page);
        Ok(Answer::Jobs { jobs, total, has_all: state.jobs.len() < JOBS_KEPT_MAX })
    }

    async fn trigger(
        &self,
        sync_id: &str,
        trigger: Trigger,
        (confirm_deletes, full_sync): (bool, bool),
        now: Timestamp,
    ) -> Result<Answer, Error> {
        let sync = self.sync(sync_id).await?;
        let job_id = ids::job_id(self.home.entropy());
        self.update_live(sync_id, |state| {
            let running = state.status.current_job.as_ref();
            if let Some(job) = running.filter(|_| !mutation::is_on(Mutation::StartBeside)) {
                return Ok(Answer::Triggered { job: Box::new(job.clone()), started: false });
            }
            if state.status.paused_at.is_some() || !sync.is_active {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("The sync {sync_id} is paused."),
                    "Resume it first (POST …/resume); that starts a job as well.",
                ));
            }
            let job = state.start_job(job_id.clone(), trigger, now);
            state.confirm_deletes = confirm_deletes;
            if full_sync && !sync.skip_duplicates && !state.resync {
                state.list_anew();
                state.resync = true;
            }
            Ok(Answer::Triggered { job: Box::new(job), started: true })
        })
        .await
    }

    /// Commands that say how the sync goes on, and are answered with how it stands then.
    async fn change_course(&self, sync_id: &str, command: Command, now: Timestamp) -> Result<Answer, Error> {
        let sync = self.sync(sync_id).await?;
        let job_id = ids::job_id(self.home.entropy());
        let sink_ids = self.sink_ids(&sync);
        self.update_live(sync_id, |state| {
            match &command {
                Command::Configured => {
                    if state.status.current_job.is_none() {
                        state.plan_next(&sync, now);
                    }
                    state.pumps.set_sinks(&sink_ids, state.status.feed_last, now);
                }
                Command::ConnectionLifted => state.begin_what_failed(&sync, &job_id, now),
                Command::Pause { reason } => {
                    state.interrupt_job(Interruption::Paused, reason.as_deref(), now);
                    state.status.paused_at.get_or_insert(now);
                    state.status.pause_reason = reason.clone().or_else(|| Some("Paused by its user.".to_owned()));
                    state.plan_next(&sync, now);
                }
                Command::Resume => state.resume(&sync, &job_id, now),
                _ => {
                    state.interrupt_job(Interruption::Unlocked, None, now);
                    state.plan_next(&sync, now);
                }
            }
            Ok(Answer::Status(Box::new(state.status.clone())))
        })
        .await
    }

    /// From the cron: the watchdog.
    async fn poke(&self, sync_id: &str, at: Timestamp) -> Result<Answer, Error> {
        let Some(sync) = self.home.registry().sync(sync_id).await? else {
            return Ok(Answer::Poked { next: None });
        };
        let job_id = ids::job_id(self.home.entropy());
        self.update(sync_id, |state| {
            if state.forgotten {
                // Deleted, and the call that did so was cut off: the alarm deletes what is left.
                return Ok(Answer::Poked { next: Some(at.plus_millis(POKE_RUNNING_MS)) });
            }
            if state.status.current_job.is_none() && state.status.next_sync_at.is_none() {
                // Never planned: the call that created it was cut off; or there is nothing to plan.
                state.plan_next(&sync, at);
            }
            self.start_due(state, &sync, &job_id, at);
            let next = match &state.status.current_job {
                Some(_) => Some(at.plus_millis(POKE_RUNNING_MS)),
                None => state.status.next_sync_at.into_iter().chain(state.pumps.due_at).min(),
            };
            Ok(Answer::Poked { next })
        })
        .await
    }

    pub(super) async fn forget(&self, sync_id: &str, now: Timestamp) -> Result<Answer, Error> {
        self.update(sync_id, |state| {
            state.interrupt_job(Interruption::Deleted, None, now);
            state.forgotten = true;
            state.forgotten_at.get_or_insert(now);
            state.status.next_sync_at = None;
            Ok(Answer::Forgotten)
        })
        .await
    }

    pub(super) async fn sync(&self, sync_id: &str) -> Result<SyncRecord, Error> {
        self.home.registry().sync(sync_id).await?.ok_or_else(|| no_sync(sync_id))
    }
}

/// The answer to commands while a deletion is on its way, or was cut off.
pub(super) fn being_deleted(sync_id: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("The sync {sync_id} is being deleted."),
        "If you delete it and that does not end within a minute, send the DELETE again.",
    )
}

pub(super) fn no_sync(sync_id: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("There is no sync {sync_id}."),
        "List the syncs of the bucket to see which there are.",
    )
}

/// A page of a list.
pub(super) fn page_of<T>(items: Vec<T>, (offset, limit): (u64, u64)) -> Vec<T> {
    let [offset, limit] = [offset, limit].map(|number| usize::try_from(number).unwrap_or(usize::MAX));
    items.into_iter().skip(offset).take(limit).collect()
}
