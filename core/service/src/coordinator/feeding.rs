//! Feeding the sinks: behind a step, and by turns of their own.

use futures_util::future::join_all;

use super::{
    Coordinator, Home,
    pumps::{AllPumped, Pumps},
    state::State,
};
use crate::{
    registry::SyncRecord,
    sinks::{
        SinkRecord,
        pump::{Pump, PumpBudget, Pumped},
    },
};
use b2sync_core::{
    error::{Error, ErrorKind, Retry},
    feed::{Feed, outbox::Batch},
    time::{Clock, Timestamp},
};

/// In one turn, deliveries begin for this long, in milliseconds, or until the next poll is due.
pub const PUMP_MS_MAX: i64 = 10_000;
/// Calls that are left for sinks behind a step, whatever the step has spent.
pub const PUMP_CALLS_MIN: u64 = 60;
/// How soon a sink is looked at again whose own document could not be read or written, in milliseconds.
const PUMP_AGAIN_MS: i64 = 10_000;
/// The same where a repetition hardly helps.
const PUMP_BROKEN_MS: i64 = 3_600_000;
impl State {
    /// Begins to feed the sinks by a turn of their own, if one of them is due.
    pub(super) fn begin_pumping(&mut self, now: Timestamp) -> Option<Pumps> {
        self.pumps.is_due(now).then(|| self.pumps.begin(now))
    }

    /// Begins to feed the sinks behind a step that left the feed like that (`None`: it did not touch the feed), if
    /// there is something for them. The step knows the sinks `sink_ids`: where they were changed while it ran, the next
    /// turn feeds them.
    pub(super) fn begin_pumping_behind(
        &mut self,
        feed: Option<&Feed>,
        sink_ids: &[String],
        now: Timestamp,
    ) -> Option<Pumps> {
        if self.pumps.sink_ids != sink_ids {
            self.pumps.ask(now);
            return None;
        }
        let is_new = feed.is_some_and(|feed| feed.last() != self.pumps.last);
        let is_due = !self.pumps.sink_ids.is_empty() && (is_new || self.pumps.is_due(now));
        is_due.then(|| self.pumps.begin(now))
    }

    /// When deliveries of a turn that begins now are to end: the next poll, or the next step, is not to wait for a
    /// sink.
    pub(super) fn pump_until(&self, now: Timestamp) -> Timestamp {
        let next = if self.status.current_job.is_some() { self.step_not_before } else { self.status.next_sync_at };
        let most = now.plus_millis(PUMP_MS_MAX);
        next.filter(|at| *at > now).map_or(most, |at| at.min(most))
    }

    /// Takes in what feeding the sinks came to, `job_id` being the job whose step came before, and `before` how things
    /// stood.
    pub(super) fn end_pumping(
        &mut self,
        before: &Pumps,
        pumped: Result<&AllPumped, &Error>,
        job_id: Option<&str>,
        now: Timestamp,
    ) {
        let asked_meanwhile = self.pumps.asked != before.asked;
        self.pumps.running = false;
        (self.pumps.culprit, self.pumps.feeding) = (None, None);
        match pumped {
            Ok(pumped) => {
                let up_to_max = if asked_meanwhile { self.pumps.up_to } else { u64::MAX };
                self.pumps.up_to = pumped.up_to.min(up_to_max);
                self.pumps.last = pumped.last;
                self.pumps.due_at = pumped.due_at;
                let next = self.pumps.alone.map(|sink| sink + 1);
                self.pumps.alone = next.filter(|sink| *sink < self.pumps.sink_ids.len());
                self.note_pumped(pumped, job_id);
            }
            Err(error) => self.pumps.due_at = Some(now.plus_millis(wait_ms(error))),
        }
        if asked_meanwhile && !self.pumps.sink_ids.is_empty() {
            self.pumps.due_at = Some(now);
        }
    }

    /// Counts what sinks refused, and what feeding them cost, with the sync and with the job.
    fn note_pumped(&mut self, pumped: &AllPumped, job_id: Option<&str>) {
        let status = &mut self.status;
        status.total_failed = status.total_failed.saturating_add(pumped.refused);
        let kept = status.current_job.iter_mut().chain(&mut status.last_job).chain(&mut self.jobs);
        for job in kept.chain(&mut self.unpublished).filter(|job| Some(job.job_id.as_str()) == job_id) {
            job.counts.failed = job.counts.failed.saturating_add(pumped.refused);
            job.cost.state_reads = job.cost.state_reads.saturating_add(pumped.reads);
            job.cost.state_writes = job.cost.state_writes.saturating_add(pumped.writes);
        }
    }
}

impl<H: Home> Coordinator<'_, H> {
    /// Feeds all sinks side by side, as `pumps` says.
    pub(super) async fn pump(
        &self,
        sync: &SyncRecord,
        pumps: &Pumps,
        feed: &Feed,
        fresh: &[Batch],
        (calls_max, until): (u64, Timestamp),
    ) -> AllPumped {
        let (home, sync_id) = (self.home, sync.sync_id.as_str());
        let (documents, clock) = (home.documents(), home.clock());
        let sinks = home.sinks(sync);
        if let Some((sink_id, _)) = pumps.culprit.and_then(|sink| sinks.get(sink)) {
            self.blame(sink_id).await;
        }
        let blobs = home.blobs(sync_id);
        let pump = Pump { blobs: &blobs, documents, clock, sync_id, feed, fresh };
        let fed = sinks.iter().enumerate().filter(|(sink, _)| pumps.alone.is_none_or(|alone| alone == *sink));
        let budget = PumpBudget { calls_max: calls_max / (sinks.len() as u64).max(1), until };
        let runs = fed.map(|(_, (sink_id, sink))| pump.run(sink_id, sink, budget));
        let results = join_all(runs).await;
        let now = clock.now();
        let mut all = AllPumped { up_to: u64::MAX, last: feed.last(), ..AllPumped::default() };
        if results.len() < sinks.len() {
            (all.up_to, all.due_at) = (pumps.up_to, Some(now));
        }
        for result in results {
            let (cursor, due_at) = match &result {
                Ok(Pumped { cursor, due_at, is_active, .. }) => (if *is_active { *cursor } else { u64::MAX }, *due_at),
                // How far it is is not known: not behind what was known before.
                Err(error) => (pumps.up_to, Some(now.plus_millis(wait_ms(error)))),
            };
            all.up_to = all.up_to.min(cursor);
            all.due_at = all.due_at.into_iter().chain(due_at).min();
            let Pumped { refused, reads, writes, .. } = result.unwrap_or_default();
            all.refused += refused;
            all.reads += reads;
            all.writes += writes;
        }
        all
    }

    /// Notes with a sink that the turn which fed it broke off.
    async fn blame(&self, sink_id: &str) {
        let now = self.home.clock().now();
        let error = Error::new(
            ErrorKind::Sink,
            format!("b2sync was cut off while it delivered to the sink {sink_id:?}."),
            "The changes are delivered again, with the same ids.",
        )
        .with_retry(Retry::Temporary);
        // Should that fail, it is fed once more, and found once more.
        let _ = SinkRecord::update(self.home.documents(), sink_id, |record| {
            record.failed(&error, now);
            Ok(())
        })
        .await;
    }
}

fn wait_ms(error: &Error) -> i64 {
    if error.is_transient() { PUMP_AGAIN_MS } else { PUMP_BROKEN_MS }
}
