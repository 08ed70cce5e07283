//! What the API and the cron say to a coordinator, and what it answers. On Workers this crosses, as JSON, from the
//! Worker to the sync's Durable Object; both are always of the same deployment.
//!
//! Every enum that crosses is tagged from outside (`{"trigger": {…}}`), serde's default: a tag inside would have each
//! type below it compiled twice, and the bundle of the Worker has a limit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    catalogue::ChangeWire,
    sinks::{
        SinkState,
        dead_letters::{DeadLetter, PreviousWire},
    },
};
use b2sync_core::{
    job::{ErrorRecord, JobCost, JobRecord, JobStatus, Trigger},
    time::Timestamp,
    warning::Warning,
};

/// One call to a coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// The sync was created or changed: plan its next poll again.
    Configured,
    /// The connection's suspension was lifted: where the latest job failed, begin the next at once.
    ConnectionLifted,
    /// Start a job. Answer: [`Answer::Triggered`].
    Trigger {
        /// Why.
        trigger: Trigger,
        /// Deliver deletions although they are more than the limit.
        #[serde(default)]
        confirm_deletes: bool,
        /// Where the sync does not skip duplicates: hand over every file, also those that are as before.
        #[serde(default)]
        full_sync: bool,
    },
    /// From the cron: start a job if one is due at `at`, and repair a lost alarm. Answer: [`Answer::Poked`].
    Poke {
        /// The cron's time.
        at: Timestamp,
    },
    /// Stop polling; a running job is interrupted.
    Pause {
        /// In the user's words.
        #[serde(default)]
        reason: Option<String>,
    },
    /// Poll again, beginning at once.
    Resume,
    /// Give up a job that hangs: it becomes `interrupted`.
    Unlock,
    /// How the sync stands.
    Status,
    /// The latest jobs, newest first. Answer: [`Answer::Jobs`].
    Jobs {
        /// Only these.
        #[serde(default)]
        status: Option<JobStatus>,
        /// How many to pass over.
        offset: u64,
        /// At most this many.
        limit: u64,
    },
    /// One job. Answer: [`Answer::Job`].
    Job {
        /// Its id.
        job_id: String,
        /// Wait up to this long for its end, in milliseconds, if it runs.
        wait_ms: u64,
    },
    /// Changes of the feed. Answer: [`Answer::Changes`].
    Changes {
        /// Behind this position; `None`: from the oldest that is there.
        after: Option<u64>,
        /// At most this many.
        limit: u64,
        /// Wait up to this long for the first one, in milliseconds, if there is none yet.
        wait_ms: u64,
    },
    /// What is stored of one key. Answer: [`Answer::Key`].
    LookUp {
        /// The whole key.
        key: String,
    },
    /// Move the cursor of a sink back, so that it gets what is behind that position again.
    Replay {
        /// The sink.
        sink_id: String,
        /// The position.
        after: u64,
    },
    /// Changes that the catalogue refused for good, newest first. Answer: [`Answer::DeadLetters`].
    DeadLetters {
        /// Without those that are on their way again.
        #[serde(default)]
        only_max_retries: bool,
        /// Only these types; all, if none is named.
        #[serde(default)]
        error_types: Vec<String>,
        /// How many to pass over.
        offset: u64,
        /// At most this many.
        limit: u64,
    },
    /// Send dead letters back: they are offered again at once. Answer: [`Answer::Marked`].
    Requeue {
        /// Only these types; all, if none is named.
        #[serde(default)]
        error_types: Vec<String>,
    },
    /// Give dead letters up. Answer: [`Answer::Marked`].
    MarkFailed {
        /// Of these types.
        error_types: Vec<String>,
    },
    /// The sync was deleted: interrupt its job, and delete all its state once the registry has no record of it. Answer:
    /// [`Answer::Forgotten`].
    Forget,
}

/// A coordinator's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// How the sync stands.
    Status(Box<SyncStatus>),
    /// Of a [`Command::Trigger`].
    Triggered {
        /// The new job, or the one that was running already.
        job: Box<JobRecord>,
        /// False when a job was running already: nothing was started.
        started: bool,
    },
    /// Of a [`Command::Poke`].
    Poked {
        /// When to poke again; `None`: never, unless something changes.
        next: Option<Timestamp>,
    },
    /// Of [`Command::Jobs`].
    Jobs {
        /// Newest first.
        jobs: Vec<JobRecord>,
        /// How many there are in all.
        total: u64,
        /// Whether the coordinator still keeps every job that there ever was.
        has_all: bool,
    },
    /// Of [`Command::Job`].
    Job {
        /// `None` when there is no such job (any more).
        job: Option<Box<JobRecord>>,
    },
    /// Of [`Command::Changes`].
    Changes {
        /// In order, without gaps.
        changes: Vec<ChangeWire>,
        /// The position of the oldest change that is still there; `last + 1` where none is.
        first: u64,
        /// The position of the newest change; 0: there never was one.
        last: u64,
    },
    /// Of [`Command::LookUp`].
    Key(Box<KeyAnswer>),
    /// Of [`Command::DeadLetters`].
    DeadLetters {
        /// Newest first.
        letters: Vec<DeadLetter>,
        /// How many there are in all.
        total: u64,
    },
    /// Of [`Command::Requeue`] and [`Command::MarkFailed`].
    Marked {
        /// How many dead letters were not marked so already.
        letters: u64,
    },
    /// Of [`Command::Forget`].
    Forgotten,
}

/// What is stored of one key: [`b2sync_core::lookup::KeyHistory`], the sinks and their dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyAnswer {
    /// As the snapshot knows it.
    pub known: Option<PreviousWire>,
    /// As in [`b2sync_core::lookup::KeyHistory`].
    pub is_undeleted: bool,
    /// As in [`b2sync_core::lookup::KeyHistory`].
    pub generation: u64,
    /// Newest first, at most [`LOOK_UP_CHANGES_MAX`].
    pub changes: Vec<ChangeWire>,
    /// As in [`b2sync_core::lookup::KeyHistory`].
    pub searched_from: u64,
    /// As in [`b2sync_core::lookup::KeyHistory`].
    pub first: u64,
    /// How the sync stands.
    pub status: Box<SyncStatus>,
    /// What sinks have refused of the key for good.
    pub dead_letters: Vec<DeadLetter>,
}

/// The most changes of a [`KeyAnswer`].
pub const LOOK_UP_CHANGES_MAX: usize = 20;

/// Whether a sync polls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    /// No job has begun yet.
    #[default]
    Pending,
    /// It polls.
    Active,
    /// Paused: by its user, or after too many failures in a row.
    Suspended,
    /// A one-time sync that is done.
    Completed,
    /// Its latest job failed with an error that its user must fix; it goes on polling.
    Failed,
}

/// Polls that are further apart than the sync's interval says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretched {
    /// Seconds from the start of one job to the start of the next.
    pub interval_seconds: u64,
    /// Why, and what to do about it.
    pub reason: String,
}

/// How a sync stands. Stored: fields are only ever added, each with a default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncStatus {
    /// Whether it polls.
    pub state: SyncState,
    /// What the latest job that completed has to say.
    pub warnings: Vec<Warning>,
    /// The fingerprint of the filters that it ran with.
    pub warned_for: String,
    /// The job that runs now.
    pub current_job: Option<JobRecord>,
    /// The latest job that ended.
    pub last_job: Option<JobRecord>,
    /// Jobs begun.
    pub runs: u64,
    /// Jobs failed since the last that completed.
    pub consecutive_failures: u64,
    /// When a job last completed.
    pub last_sync_at: Option<Timestamp>,
    /// When the next poll is due.
    pub next_sync_at: Option<Timestamp>,
    /// Why the latest job failed; `None` after one that completed.
    pub last_error: Option<ErrorRecord>,
    /// Why polling stopped.
    pub pause_reason: Option<String>,
    /// When polling stopped.
    pub paused_at: Option<Timestamp>,
    /// Files in the snapshot now.
    pub files_known: u64,
    /// Bytes of those files.
    pub bytes_known: u64,
    /// Deletions that the latest job that completed holds back until they are confirmed.
    pub deletions_held: u64,
    /// The keys of the first of them.
    pub held_keys: Vec<String>,
    /// Changes that all jobs appended to the feed.
    pub total_delivered: u64,
    /// Bytes of the created and updated files among them.
    pub total_bytes_delivered: u64,
    /// Changes that sinks refused for good.
    pub total_failed: u64,
    /// Why the next poll is later than the sync's interval says, if a cap puts it off.
    pub stretched: Option<Stretched>,
    /// What the latest job that completed has spent: what the next ones are forecast from.
    pub completed_cost: Option<JobCost>,
    /// The position of the oldest change in the feed, as the latest step left it; one more than `feed_last` where there
    /// is none.
    pub feed_first: u64,
    /// The position of the newest change.
    pub feed_last: u64,
    /// How the sinks stand; `None` when that is not known at the moment. Only in answers: they have documents of their
    /// own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sinks: Option<Vec<SinkStatus>>,
}

/// How a sink stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkStatus {
    /// Names it within its sync.
    pub sink_id: String,
    /// Whether it takes changes.
    pub state: SinkState,
    /// The position up to which it has taken the feed.
    pub cursor: u64,
    /// Changes that it took.
    pub taken: u64,
    /// Deliveries that failed since one last succeeded.
    pub failures: u32,
    /// When the first of them failed.
    pub first_failure_at: Option<Timestamp>,
    /// When the latest failed.
    pub last_failure_at: Option<Timestamp>,
    /// Why the latest failed.
    pub last_error: Option<ErrorRecord>,
    /// When the next attempt is due, while it backs off.
    pub next_attempt_at: Option<Timestamp>,
    /// How many dead letters there are of each type.
    pub dead_letters: BTreeMap<String, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_crosses_as_json() {
        let answers = [
            Answer::Status(Box::default()),
            Answer::Poked { next: Some(Timestamp::from_millis(1)) },
            Answer::Jobs { jobs: Vec::new(), total: 0, has_all: true },
            Answer::Job { job: None },
            Answer::DeadLetters { letters: Vec::new(), total: 0 },
            Answer::Marked { letters: 2 },
            Answer::Changes { changes: Vec::new(), first: 1, last: 0 },
            Answer::Forgotten,
        ];
        for answer in answers {
            let json = serde_json::to_string(&answer).unwrap();
            assert_eq!(serde_json::from_str::<Answer>(&json).unwrap(), answer, "{json}");
        }
    }
}
