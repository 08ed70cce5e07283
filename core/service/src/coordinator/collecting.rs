//! What the coordinator remembers of what is to be deleted between jobs.

use serde::{Deserialize, Serialize};

use b2sync_core::time::Timestamp;

/// The least time between two turns that delete, in milliseconds: readers of an older document end meanwhile.
pub const COLLECT_EVERY_MS: i64 = 3_600_000;
/// How long after a step died its orphans are looked for, in milliseconds: a store may list a blob late.
pub const ORPHANS_AFTER_MS: i64 = 600_000;
/// When to delete next, and what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Collecting {
    /// When the next turn is due; `None`: there is nothing to delete.
    pub(super) due_at: Option<Timestamp>,
    /// A step may have left batches that nothing names.
    pub(super) orphans: bool,
    /// From where on they are looked for.
    pub(super) cursor: Option<String>,
    /// Counts the steps that may have left some: a turn sees whether one did while it ran.
    pub(super) asked: u64,
}

impl Collecting {
    pub(super) fn ask(&mut self, at: Timestamp) {
        self.due_at = Some(self.due_at.map_or(at, |due| due.min(at)));
    }

    /// A step appended to the feed or retired blobs.
    pub(super) fn note_change(&mut self, now: Timestamp) {
        self.ask(now.plus_millis(COLLECT_EVERY_MS));
    }

    /// A step died, or failed after it had stored something: its batches may be there, and nothing names them.
    pub(super) fn note_orphans(&mut self, now: Timestamp) {
        (self.orphans, self.cursor, self.asked) = (true, None, self.asked.wrapping_add(1));
        self.ask(now.plus_millis(ORPHANS_AFTER_MS));
    }
}
