//! When the sinks of a sync are fed, and what its coordinator has to know of them.
//!
//! Sinks are fed behind a step that appended something, and by turns of their own while no step runs. Both hold the
//! lease, so that no sink gets two deliveries at once.
//!
//! # Invariants
//! - [`Pumps::up_to`] is never ahead of the cursor of an active sink: a job drops nothing that a sink still needs.
//! - What is asked for while the sinks are being fed is not forgotten: the next turn looks again.
//! - A sink that ends the instance which calls it is found, and backs off like one that fails.

use serde::{Deserialize, Serialize};

use crate::registry::SyncRecord;
use b2sync_core::{
    feed::Retention,
    job::{JobRecord, JobStatus, Phase},
    time::Timestamp,
};

/// How far the sinks of a sync are, as far as its coordinator has to know. Stored: fields are only ever added, each
/// with a default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Pumps {
    /// Every active sink has taken the feed up to here: never ahead of the sinks' own cursors.
    pub(super) up_to: u64,
    /// The position of the newest change when the sinks were fed last.
    pub(super) last: u64,
    /// When a sink has something to take.
    pub(super) due_at: Option<Timestamp>,
    /// The sinks.
    pub(super) sink_ids: Vec<String>,
    /// Counts requests to look at the sinks: a turn sees whether one came while it ran.
    pub(super) asked: u64,
    /// A turn has begun to feed them, and has not reported yet.
    pub(super) running: bool,
    /// After a turn that broke off, the sinks are fed one by one: this one is the next.
    pub(super) alone: Option<usize>,
    /// The sink that was being fed, alone, when the turn before broke off.
    pub(super) culprit: Option<usize>,
    /// The job that completed and whose changes the sinks are being fed for the first time.
    pub(super) feeding: Option<String>,
}

/// What feeding the sinks came to.
#[derive(Clone, Debug, Default)]
pub(super) struct AllPumped {
    pub(super) up_to: u64,
    pub(super) last: u64,
    pub(super) due_at: Option<Timestamp>,
    pub(super) refused: u64,
    pub(super) reads: u64,
    pub(super) writes: u64,
}

impl Pumps {
    /// Has the sinks looked at, now.
    pub(super) fn ask(&mut self, now: Timestamp) {
        self.asked = self.asked.wrapping_add(1);
        if !self.sink_ids.is_empty() {
            self.due_at = Some(self.due_at.map_or(now, |at| at.min(now)));
        }
    }

    /// Takes in which sinks the sync has.
    pub(super) fn set_sinks(&mut self, sink_ids: &[String], feed_last: u64, now: Timestamp) {
        if self.sink_ids == sink_ids {
            return;
        }
        self.sink_ids = sink_ids.to_vec();
        // One that was added may be far behind.
        (self.up_to, self.due_at, self.alone, self.culprit) = (0, None, None, None);
        if feed_last > 0 {
            self.ask(now);
        }
    }

    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.due_at.is_some_and(|at| at <= now)
    }

    /// Begins to feed the sinks. Answers how things stand, for what feeds them.
    pub(super) fn begin(&mut self, now: Timestamp) -> Self {
        // Should this break off, it is due.
        self.due_at = Some(self.due_at.map_or(now, |at| at.min(now)));
        (self.culprit, self.feeding) = (None, None);
        if self.running {
            (self.culprit, self.alone) = match self.alone {
                None => (None, Some(0)),
                Some(sink) => (Some(sink), Some(sink + 1)),
            };
        }
        self.alone = self.alone.filter(|sink| *sink < self.sink_ids.len());
        self.running = true;
        self.clone()
    }

    /// Has a job that completed shown as running until its changes were offered to the sinks once: a client that waits
    /// for the job finds them in the catalogue then. The feed has them already.
    pub(super) fn show_until_fed(&mut self, job: &JobRecord) {
        self.feeding = (job.status == JobStatus::Completed).then(|| job.job_id.clone());
    }

    /// The job as it is shown.
    pub(super) fn shown(&self, job: &JobRecord) -> JobRecord {
        let mut job = job.clone();
        if self.feeding.as_ref() == Some(&job.job_id) {
            (job.status, job.phase, job.completed_at) = (JobStatus::Running, Phase::Delivering, None);
        }
        job
    }

    /// What the feed keeps for these sinks, and for those who read it.
    pub(super) fn retention(&self, sync: &SyncRecord, sink_ids: &[String], now: Timestamp) -> Retention {
        let kept_ms = i64::from(sync.feed_retention_hours).saturating_mul(3_600_000);
        let up_to = match sink_ids {
            [] => u64::MAX,
            _ if self.sink_ids == sink_ids => self.up_to,
            // How far they are was never noted: the call that configured the sync may have been cut off.
            _ => 0,
        };
        Retention { before: Some(now.plus_millis(-kept_ms)), up_to }
    }
}
