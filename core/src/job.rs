//! Jobs: what one run of a sync did, as it is kept and shown.
//!
//! The types here are stored (as JSON) and cross from the coordinator to the API: fields are only ever added, each
//! with a default, so that an older record still reads.

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, quoted},
    time::Timestamp,
    warning::Warning,
};

/// Why a job was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// Its time had come: an alarm or the cron.
    Scheduled,
    /// A user asked for it.
    Manual,
    /// The sync was resumed after a pause.
    Resume,
}

impl Trigger {
    /// In snake case, as it is stored and shown: `manual`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// It works, or waits for its next step.
    Running,
    /// The feed has all its changes, and the root was moved.
    Completed,
    /// It ended with an error. What it had appended to the feed stays, and the snapshot counts it.
    Failed,
    /// It was cut off: paused, unlocked or deleted.
    Interrupted,
    /// It never began, because another job of the sync was running.
    Skipped,
}

impl JobStatus {
    /// In snake case, as it is stored and shown: `running`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What a running job is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waiting for its first step.
    Queued,
    /// Reading the listing, comparing, appending what was created and updated.
    Discovering,
    /// Appending the deletions that the complete listing showed; or its sinks are being fed for the first time.
    Delivering,
    /// Nothing more to do.
    Done,
}

impl Phase {
    /// In snake case, as it is stored and shown: `discovering`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What a job has found and appended to the feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobCounts {
    /// Keys that the listing showed.
    pub listed: u64,
    /// Keys that passed the filters.
    pub matched: u64,
    /// Bytes of the files that passed the filters.
    pub matched_bytes: u64,
    /// Keys whose names passed the filters, and whose entries in the listing cannot be read. Not in `matched`.
    pub unreadable: u64,
    /// Created keys appended.
    pub created: u64,
    /// Updated keys appended.
    pub updated: u64,
    /// Deleted keys appended.
    pub deleted: u64,
    /// Changes that sinks refused; the engine leaves it 0.
    pub failed: u64,
    /// Bytes of the created and updated files.
    pub delivered_bytes: u64,
}

impl JobCounts {
    /// Changes appended to the feed.
    pub const fn changes(&self) -> u64 {
        self.created + self.updated + self.deleted
    }

    /// Without what a listing found, for a job that lists again.
    #[must_use]
    pub const fn of_changes(self) -> Self {
        Self { listed: 0, matched: 0, matched_bytes: 0, unreadable: 0, ..self }
    }

    /// What a listing found, without the changes.
    #[must_use]
    pub fn of_listing(self) -> Self {
        let Self { listed, matched, matched_bytes, unreadable, .. } = self;
        Self { listed, matched, matched_bytes, unreadable, ..Self::default() }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            listed: self.listed.saturating_add(other.listed),
            matched: self.matched.saturating_add(other.matched),
            matched_bytes: self.matched_bytes.saturating_add(other.matched_bytes),
            unreadable: self.unreadable.saturating_add(other.unreadable),
            created: self.created.saturating_add(other.created),
            updated: self.updated.saturating_add(other.updated),
            deleted: self.deleted.saturating_add(other.deleted),
            failed: self.failed.saturating_add(other.failed),
            delivered_bytes: self.delivered_bytes.saturating_add(other.delivered_bytes),
        }
    }
}

/// What a job has spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobCost {
    /// Class B calls to B2 (downloads, HEAD).
    pub class_b: u64,
    /// Class C calls to B2 (authorize, list).
    pub class_c: u64,
    /// Bytes received from B2.
    pub bytes_received: u64,
    /// Reads of segments, indexes, checkpoints and roots.
    pub state_reads: u64,
    /// Writes of segments, indexes, checkpoints and roots.
    pub state_writes: u64,
    /// Deletions of segments and indexes that nothing names any more.
    pub state_deletions: u64,
    /// Steps begun.
    pub steps: u64,
}

impl JobCost {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            class_b: self.class_b.saturating_add(other.class_b),
            class_c: self.class_c.saturating_add(other.class_c),
            bytes_received: self.bytes_received.saturating_add(other.bytes_received),
            state_reads: self.state_reads.saturating_add(other.state_reads),
            state_writes: self.state_writes.saturating_add(other.state_writes),
            state_deletions: self.state_deletions.saturating_add(other.state_deletions),
            steps: self.steps.saturating_add(other.steps),
        }
    }
}

/// An error as it is kept and shown: [`Error`] without what only the engine needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorRecord {
    /// The kind in snake case (`bad_credentials`).
    pub kind: String,
    /// What was wrong and what to do next.
    pub message: String,
    /// Whether a later run may succeed although nothing is changed.
    #[serde(default)]
    pub transient: bool,
}

impl From<&Error> for ErrorRecord {
    fn from(error: &Error) -> Self {
        Self { kind: error.kind().as_str().to_owned(), message: error.to_string(), transient: error.is_transient() }
    }
}

/// Who or what ended a job that had not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Interruption {
    /// The sync was paused.
    Paused,
    /// A user gave the job up: `unlock`.
    Unlocked,
    /// The sync was deleted.
    Deleted,
}

impl Interruption {
    /// In snake case, as the record's kind: `paused`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// What a record says of it. `reason`: why, in the user's words; `before`: why the job's latest step was to be
    /// tried again.
    pub fn record(self, reason: Option<&str>, before: Option<&ErrorRecord>) -> ErrorRecord {
        let what = match self {
            Self::Paused => "The sync was paused while the job ran.",
            Self::Unlocked => "The job was aborted by unlock.",
            Self::Deleted => "The sync was deleted while the job ran.",
        };
        let next = match self {
            Self::Paused => " What the job appended stays in the feed. Resume the sync to start the next job.",
            Self::Unlocked => " What the job appended stays in the feed. The next job lists again.",
            Self::Deleted => "",
        };
        let reason = reason.map_or_else(String::new, |reason| format!(" The reason given: {}.", quoted(reason)));
        let before = before.map_or_else(String::new, |it| format!(" Before that, a step had failed: {}", it.message));
        let message = format!("{what}{reason}{next}{before}");
        ErrorRecord { kind: self.as_str().to_owned(), message, transient: false }
    }
}

/// One run of a sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// `job_` and letters and digits.
    pub job_id: String,
    /// The sync it runs.
    pub sync_id: String,
    /// Why it was started.
    pub trigger: Trigger,
    /// How it stands.
    pub status: JobStatus,
    /// What it is doing.
    pub phase: Phase,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its first step began.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When it last made progress.
    pub updated_at: Timestamp,
    /// When it ended.
    #[serde(default)]
    pub completed_at: Option<Timestamp>,
    /// What it has found and appended.
    #[serde(default)]
    pub counts: JobCounts,
    /// What it has spent.
    #[serde(default)]
    pub cost: JobCost,
    /// How many files the snapshot held before it began: what progress is measured by.
    #[serde(default)]
    pub known_before: u64,
    /// Why it failed, or what interrupted it; also why the latest step of a running job will be tried again.
    #[serde(default)]
    pub error: Option<ErrorRecord>,
    /// What its user should know though it did not fail.
    #[serde(default)]
    pub warnings: Vec<Warning>,
    /// Whether it ended before all was compared, because it took as many files as one run may.
    #[serde(default)]
    pub limited: bool,
    /// Deletions that it found and holds back until they are confirmed.
    #[serde(default)]
    pub deletions_held: u64,
    /// The keys of the first of them, while this is the latest job.
    #[serde(default)]
    pub held_keys: Vec<String>,
    /// It went on with the listing of an earlier job that broke off: the next job lists from the first key.
    #[serde(default)]
    pub continued: bool,
    /// The distance that its list calls keep, in milliseconds, because B2 has refused calls as too many; 0: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub list_interval_ms: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl JobRecord {
    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.status != JobStatus::Running
    }
}
