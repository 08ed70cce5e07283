//! What rest is.

use std::collections::BTreeSet;
use std::future::Future as _;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use b2sync_core::engine::thresholds::Thresholds;
use b2sync_core::entropy::Entropy as _;
use b2sync_core::error::Error;
use b2sync_core::job::{JobCost, JobRecord, JobStatus, Trigger};
use b2sync_core::state::document;
use b2sync_core::store::DocumentStore as _;
use b2sync_core::time::Timestamp;
use b2sync_service::coordinator::protocol::{Answer, Command, SyncStatus};
use b2sync_service::coordinator::{COLLECT_EVERY_MS, Coordinator, DOCUMENT};
use b2sync_service::sinks::pump::DELIVERY_MS_MAX;
use b2sync_service::sinks::{CATALOGUE, SinkRecord};

use super::checkers::{Rule, Violation};
use super::faults;
use super::history::{Call, Event, Plan};
use super::home::SimHome;
use super::run::{Sim, below, broken, is_poked_after};
use super::world::SYNC;
use crate::virtual_world::SeededEntropy;

/// How long after the last event a sync may take to come to rest, in virtual milliseconds: polls are up to an hour
/// apart after failures.
const REST_MS_MAX: i64 = 12 * 3_600_000;
/// How long tasks may take to end, in virtual milliseconds.
const SETTLE_MS_MAX: i64 = 3_600_000;
/// How long tasks are looked at often while they end, in milliseconds.
const SETTLE_SLOWLY_MS: i64 = 1_000_000;

impl Sim {
    /// Asks the coordinator, while nothing goes wrong.
    ///
    /// # Errors
    /// Those of the coordinator.
    pub fn ask(&mut self, command: Command) -> Result<Answer, Error> {
        self.begun += 1;
        if self.inner.options.cron_asks && is_poked_after(&command) {
            self.inner.poke_after(Some(self.time()));
        }
        let home = SimHome::new(&self.inner, &self.instances[0], 0, self.begun);
        let coordinator = Coordinator::new(&home);
        let mut asked = std::pin::pin!(coordinator.handle(SYNC, command));
        loop {
            if let Poll::Ready(answer) = asked.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return answer;
            }
            // No other task goes on meanwhile.
            if let Some(until) = self.inner.timers.take().into_iter().min() {
                self.inner.now.set(until.max(self.inner.now.get()));
            }
        }
    }

    fn status(&mut self) -> Result<SyncStatus, Violation> {
        match self.ask(Command::Status) {
            Ok(Answer::Status(status)) => Ok(*status),
            other => Err(broken(Rule::CallsKeepTheirContract, format!("the status is {other:?}"))),
        }
    }

    fn job_of(status: &SyncStatus) -> Option<String> {
        status.last_job.as_ref().map(|job| job.job_id.clone())
    }

    /// Ends all trouble, lets the platform run until a job that began after it has completed, and compares.
    pub(super) fn rest(&mut self) -> Result<(), Violation> {
        self.inner.note(|| "== no more trouble".to_owned());
        self.end_trouble();
        self.inner.rotate_key(false);
        // A change that is refused takes three deliveries in a row: where a third of them is too slow, that may take
        // days.
        let quicker = |slow_ms: u64| slow_ms.min(DELIVERY_MS_MAX - 1_000);
        self.inner.sinks.iter().for_each(|sink| sink.slow_ms_max.set(quicker(sink.slow_ms_max.get())));
        // So that there is a rest between two polls, and not for a day.
        self.inner.change_sync(|sync| (sync.polling_interval_s, sync.max_class_c_per_day) = (900, None));
        self.inner.checks.borrow_mut().limit_class_c(None, 0);
        if self.inner.options.class_c_max.is_some() {
            let configured = self.ask(Command::Configured);
            configured.map_err(|error| broken(Rule::CallsKeepTheirContract, format!("configured: {error}")))?;
        }
        // What was sent back by then is offered again, without a further request.
        self.settle_tasks(&SeededEntropy::new(3))?;
        self.feed_sinks(&SeededEntropy::new(4))?;
        let down = self.inner.options.down_at_rest.and_then(|number| self.inner.sinks.get(number));
        down.inspect(|sink| sink.is_down.set(true));
        if self.inner.options.requeues {
            // From here on nothing is refused, and all that was comes once more, also what a user is giving up.
            self.settle_tasks(&SeededEntropy::new(5))?;
            self.inner.sinks.iter().for_each(|sink| sink.refused_for_ever.borrow_mut().clear());
            let requeued = self.ask(Command::Requeue { error_types: Vec::new() });
            requeued.map_err(|error| broken(Rule::CallsKeepTheirContract, format!("requeue: {error}")))?;
        }
        self.come_to_rest()?;
        if self.inner.options.down_at_rest.is_none() {
            return Ok(());
        }
        self.inner.note(|| "== the sink that was down is up again".to_owned());
        self.inner.sinks.iter().for_each(|sink| sink.is_down.set(false));
        self.feed_sinks(&SeededEntropy::new(17))?;
        self.compare()
    }

    /// Deletes the sync while a job may be on its way and something may break: at last nothing is left of it, and
    /// nothing goes on.
    pub(super) fn delete_sync(&mut self, plan: &Plan) -> Result<(), Violation> {
        self.inner.note(|| "== the sync is deleted".to_owned());
        self.deleting = true;
        let rng = SeededEntropy::new(plan.seed ^ 0xdead);
        if rng.chance(0.7) {
            self.call(Call::Trigger { confirm: true, full: false }, 0);
            self.turns(u32::try_from(rng.below(80)).unwrap_or(0), &rng)?;
        }
        if plan.options.troubled {
            let how = super::options::pick(&rng, &faults::Break::ALL);
            self.happen(&Event::Break { after: 1 + u16::try_from(rng.below(40)).unwrap_or(0), how })?;
        }
        if let Some(event) = &plan.last {
            self.happen(event)?;
        }
        if plan.options.cron_asks {
            // As the API does, so that nothing starts a job in between.
            self.inner.poke_after(None);
        }
        // The user who deletes it asks again until it is done; the record goes last.
        loop {
            let slot = below(&rng, self.instances.len());
            self.begin("Forget".to_owned(), slot, false, Some(Command::Forget));
            let id = self.begun;
            while self.tasks.iter().any(|task| task.id == id) {
                self.turns(1, &rng)?;
            }
            if self.forgotten.remove(&id) {
                break;
            }
        }
        self.inner.delete_sync();
        let since = self.now();
        while !self.tasks.is_empty() || self.inner.alarm.get().is_some() {
            self.run_for(10_000, &rng, true)?;
            if self.now() - since > REST_MS_MAX {
                return Err(broken(Rule::NothingIsLeft, "it is still being deleted"));
            }
        }
        let (blobs, documents) = (self.inner.kv.all().len(), self.inner.documents.values().len());
        if blobs + documents > 0 {
            let message = format!("{blobs} blobs and {documents} documents are left, and nothing goes on");
            return Err(broken(Rule::NothingIsLeft, message));
        }
        Ok(())
    }

    /// As [`Self::rest`], for a world that has no trouble.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn come_to_rest(&mut self) -> Result<(), Violation> {
        let rng = SeededEntropy::new(7);
        let since = self.now();
        // What is on its way may have been begun under other filters.
        self.settle_tasks(&rng)?;
        let before = self.status()?;
        let mut old: BTreeSet<String> = Self::job_of(&before).into_iter().collect();
        loop {
            self.run_for(1_000, &rng, true)?;
            let status = self.status()?;
            self.inner.lift_suspension();
            if status.paused_at.is_some() && self.tasks.is_empty() {
                let resumed = self.ask(Command::Resume);
                resumed.map_err(|error| broken(Rule::CallsKeepTheirContract, format!("resume: {error}")))?;
            }
            if let Some(job) = status.last_job.filter(|job| !old.contains(&job.job_id)) {
                match (job.status, job.error.as_ref().map(|error| error.kind.as_str())) {
                    // It went on with the listing of an earlier job: the next one, which is due at once, lists all.
                    (JobStatus::Completed, _) if status.current_job.is_none() && job.continued => {
                        old.insert(job.job_id);
                    }
                    (JobStatus::Completed, _) if status.current_job.is_none() && job.limited => {
                        old.insert(job.job_id);
                        self.trigger(false)?;
                    }
                    (JobStatus::Completed, _) if status.current_job.is_none() && job.deletions_held > 0 => {
                        self.only_deletions_wait(job.deletions_held)?;
                        old.insert(job.job_id);
                        self.trigger(true)?;
                    }
                    (JobStatus::Completed, _) if status.current_job.is_none() => break,
                    (JobStatus::Failed, Some("too_many_deletions")) if status.current_job.is_none() => {
                        old.insert(job.job_id);
                        self.trigger(true)?;
                    }
                    _ => {}
                }
            }
            if self.now() - since > REST_MS_MAX {
                let why = self.status()?.last_error.map_or_else(String::new, |error| error.message);
                return Err(broken(Rule::ComesToRest, format!("no job completes: {why}")));
            }
            if self.tasks.is_empty() {
                self.skip_idle_time();
            }
        }
        self.settle_tasks(&rng)?;
        self.feed_sinks(&rng)?;
        self.compare()?;
        self.quiet_poll(&rng)
    }

    /// Deletions are held back, and nothing else: all other changes of the bucket are in the feed.
    fn only_deletions_wait(&self, held: u64) -> Result<(), Violation> {
        let checks = self.inner.checks.borrow();
        checks.feed_equals_bucket(&self.inner.bucket(), held)
    }

    fn trigger(&mut self, confirm_deletes: bool) -> Result<(), Violation> {
        let triggered = self.ask(Command::Trigger { trigger: Trigger::Manual, confirm_deletes, full_sync: false });
        triggered.map_err(|error| broken(Rule::CallsKeepTheirContract, format!("trigger: {error}"))).map(|_| ())
    }

    /// Nothing is on its way: to where something begins. The cron comes each minute all the same.
    fn skip_idle_time(&mut self) {
        let next = self.inner.alarm.get().unwrap_or(i64::MAX).min(self.next_cron);
        self.advance(next);
    }

    fn settle_tasks(&mut self, rng: &SeededEntropy) -> Result<(), Violation> {
        let since = self.now();
        while self.now() - since < SETTLE_MS_MAX {
            if self.tasks.is_empty() && self.status()?.current_job.is_none() {
                return Ok(());
            }
            // A job each of whose steps waits for a blob to be seen takes a minute a page.
            let slice_ms = if self.now() - since < SETTLE_SLOWLY_MS { 100 } else { 10_000 };
            self.run_for(slice_ms, rng, true)?;
        }
        Err(broken(Rule::ComesToRest, "a task never ends"))
    }

    /// The feed tells of the bucket, each sink holds what the feed tells, and no secret is anywhere.
    fn compare(&self) -> Result<(), Violation> {
        let inner = &self.inner;
        let checks = inner.checks.borrow();
        checks.feed_equals_bucket(&inner.bucket(), 0)?;
        if let Ok(Some(document)) = pollster::block_on(inner.documents.load(document::DOCUMENT)) {
            checks.no_checkpoint_is_left(&document.value)?;
        }
        drop(checks);
        for (number, _) in inner.sinks.iter().enumerate().filter(|(_, sink)| !sink.is_down.get()) {
            self.compare_sink(number)?;
        }
        inner.check_secrets()
    }

    /// The sink holds what the feed tells, but for keys that it refuses, of which it has letters.
    fn compare_sink(&self, number: usize) -> Result<(), Violation> {
        let (sink, held) = (&self.inner.sinks[number], self.inner.held(number));
        let letters = self.record(number)?.dead_letters;
        // Of what is sent back and taken in the end, nothing is missing.
        let all_taken = self.inner.options.requeues && sink.sink_id == CATALOGUE;
        let exempt = if all_taken { BTreeSet::new() } else { sink.exempt.borrow().clone() };
        let checks = self.inner.checks.borrow();
        checks.sink_equals_feed(number, &held, &exempt)?;
        let of_key = |key: &str| letters.iter().find(|letter| letter.key == key);
        if all_taken && letters.iter().next().is_some() {
            let message = format!("{letters:?} are left of what was sent back and taken");
            return Err(broken(Rule::RefusedAreDeadLetters, message));
        }
        let lost = exempt.iter().find(|key| held.get(*key) != checks.told_of(key).as_ref() && of_key(key).is_none());
        match lost {
            Some(key) => {
                let message = format!("{key:?} is neither taken by {} nor among its dead letters", sink.sink_id);
                Err(broken(Rule::RefusedAreDeadLetters, message))
            }
            None => Ok(()),
        }
    }

    /// The document of a sink.
    fn record(&self, number: usize) -> Result<SinkRecord, Violation> {
        let loaded = pollster::block_on(SinkRecord::load(&self.inner.documents, &self.inner.sinks[number].sink_id));
        loaded.map(|loaded| loaded.value).map_err(|error| broken(Rule::CallsKeepTheirContract, error.to_string()))
    }

    /// Whether a sink has all that is to be delivered to it.
    fn is_fed(&self, number: usize) -> Result<bool, Violation> {
        let record = self.record(number)?;
        let is_sent_back = record.dead_letters.iter().any(|letter| letter.requeued);
        Ok(record.cursor == self.inner.checks.borrow().last_position() && !is_sent_back)
    }

    /// Waits until every sink that is not down has all: one that backs off is looked at again within the hour.
    fn feed_sinks(&mut self, rng: &SeededEntropy) -> Result<(), Violation> {
        let since = self.now();
        for number in 0..self.inner.sinks.len() {
            while !self.inner.sinks[number].is_down.get() && !self.is_fed(number)? {
                self.run_for(1_000, rng, true)?;
                if self.tasks.is_empty() {
                    self.skip_idle_time();
                }
                if self.now() - since > REST_MS_MAX {
                    let (sink_id, record) = (&self.inner.sinks[number].sink_id, self.record(number)?);
                    return Err(broken(Rule::ComesToRest, format!("{sink_id} is never fed: {record:?}")));
                }
            }
        }
        self.settle_tasks(rng)
    }

    fn coordinator_document(&self) -> serde_json::Value {
        let document = pollster::block_on(self.inner.documents.load(DOCUMENT)).ok().flatten();
        let document = document.and_then(|it| serde_json::from_slice(&it.value).ok());
        document.unwrap_or_default()
    }

    /// Whether the coordinator means to look at the sinks once more: after a turn that broke off, one by one.
    fn looks_at_sinks(&self) -> bool {
        !self.coordinator_document()["pumps"]["due_at"].is_null()
    }

    /// Whether the coordinator means to delete what a dead step left, or to delete within the next minutes.
    fn is_to_delete(&self) -> bool {
        let collecting = &self.coordinator_document()["collecting"];
        let due_at = serde_json::from_value::<Option<Timestamp>>(collecting["due_at"].clone()).ok().flatten();
        let is_soon = due_at.is_some_and(|at| at.as_millis() < self.now() + COLLECT_EVERY_MS / 4);
        is_soon || collecting["orphans"] == true
    }

    /// Waits until what is to be deleted soon is, and looks whether a dead step has left anything.
    fn collect(&mut self, rng: &SeededEntropy) -> Result<(), Violation> {
        let since = self.now();
        while self.is_to_delete() {
            self.run_for(1_000, rng, true)?;
            if self.tasks.is_empty() {
                self.skip_idle_time();
            }
            if self.now() - since > REST_MS_MAX {
                return Err(broken(Rule::ComesToRest, "the coordinator goes on deleting"));
            }
        }
        self.settle_tasks(rng)?;
        match pollster::block_on(self.inner.documents.load(document::DOCUMENT)) {
            Ok(Some(document)) => self.inner.checks.borrow().no_orphans(&document.value, &self.inner.kv),
            _ => Ok(()),
        }
    }

    fn quiet_poll(&mut self, rng: &SeededEntropy) -> Result<(), Violation> {
        self.collect(rng)?;
        let since = self.now();
        while self.looks_at_sinks() && self.inner.sinks.iter().all(|sink| !sink.is_down.get()) {
            self.run_for(1_000, rng, true)?;
            if self.now() - since > REST_MS_MAX {
                return Err(broken(Rule::ComesToRest, "the coordinator goes on looking at its sinks"));
            }
        }
        // Checkpoints store blobs where the document holds next to nothing itself.
        let inner = Rc::clone(&self.inner);
        let usual = inner.options.thresholds == Thresholds::USUAL;
        let so_far =
            || (inner.tally.get().changes, inner.tally.get().appended, if usual { inner.blob_puts.get() } else { 0 });
        let before = so_far();
        let stored = inner.snapshots_stored.get();
        self.inner.note(|| "== a poll that finds nothing".to_owned());
        let job = self.job(true, rng)?;
        let after = so_far();
        if job.status != JobStatus::Completed {
            return Err(broken(Rule::QuietPoll, format!("it ended as {job:?}")));
        }
        let stored = inner.snapshots_stored.get() - stored;
        // No other instance takes a step of it.
        let holds_all = inner.options.thresholds.held_bytes_max == Thresholds::USUAL.held_bytes_max;
        let is_held = inner.options.memory && inner.options.sole_instance && holds_all;
        let JobCost { steps, state_reads, .. } = job.cost;
        inner.count(|tally| tally.held += if is_held { steps - 1 } else { 0 });
        // Who is down is looked at again.
        let is_fed = inner.sinks.iter().all(|sink| !sink.is_down.get());
        if (is_held || steps == 1) && (stored > 0 || (is_fed && state_reads > 2)) {
            let message =
                format!("in {steps} steps it stored the snapshot {stored} times and read {state_reads} times");
            return Err(broken(Rule::QuietPoll, message));
        }
        if before != after {
            let message = format!(
                "(changes taken, changes appended, blobs stored) were {before:?} before it and are {after:?} after it"
            );
            return Err(broken(Rule::QuietPoll, message));
        }
        self.compare()
    }

    fn job(&mut self, confirm_deletes: bool, rng: &SeededEntropy) -> Result<JobRecord, Violation> {
        let last = Self::job_of(&self.status()?);
        self.trigger(confirm_deletes)?;
        for _ in 0..20_000 {
            self.run_for(1_000, rng, true)?;
            let status = self.status()?;
            if status.current_job.is_none() && Self::job_of(&status) != last {
                self.settle_tasks(rng)?;
                return status.last_job.ok_or_else(|| broken(Rule::ComesToRest, "the job left no record"));
            }
        }
        Err(broken(Rule::ComesToRest, "a job never ends"))
    }

    /// Triggers a job, and lets the platform run until it has ended: for tests that are a story.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn run_job(&mut self, confirm_deletes: bool) -> Result<JobRecord, Violation> {
        self.job(confirm_deletes, &SeededEntropy::new(11))
    }

    /// The time.
    pub fn time(&self) -> Timestamp {
        Timestamp::from_millis(self.now())
    }

    /// Lets the platform run for this long, in milliseconds: for tests that are a story.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn pass(&mut self, ms: i64) -> Result<(), Violation> {
        self.run_for(ms, &SeededEntropy::new(13), true)
    }

    /// Ends what was to fail.
    pub fn end_trouble(&mut self) {
        self.inner.breaks.borrow_mut().clear();
        self.inner.troubles.borrow_mut().clear();
        for sink in &self.inner.sinks {
            sink.refusals.borrow_mut().clear();
            sink.breaks.borrow_mut().clear();
        }
        self.inner.halves.set(0);
    }

    /// Lets an event happen.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn event(&mut self, event: &Event) -> Result<(), Violation> {
        self.happen(event)
    }
}
