//! What is known of the tasks that run.

use std::collections::{BTreeMap, BTreeSet};

use b2sync_core::time::Timestamp;

/// What is known of a task while it runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Step {
    /// The number of the lease that it took last.
    pub(super) lease: Option<u64>,
    pub(super) job: Option<String>,
    /// Where its latest page began.
    pub(super) asked: BTreeSet<String>,
    /// Pages asked for since the order of keys was asked for.
    pub(super) since_order: Option<u32>,
    pub(super) pages: u64,
    pub(super) keys: u64,
    pub(super) bytes: u64,
    pub(super) external: u64,
    pub(super) internal: u64,
    pub(super) began_at: i64,
    pub(super) last_status: u16,
    /// The most bytes of a page.
    pub(super) page_bytes_max: u64,
    /// The positions of each sink's latest batch.
    pub(super) batches: BTreeMap<usize, BTreeSet<u64>>,
    /// When a poll is due, by the coordinator's document, if the lease was taken to feed the sinks alone; and how long
    /// no task had been able to use the time by then.
    pub(super) poll_due: Option<(Timestamp, i64)>,
    /// When it read the sync's configuration.
    pub(super) configured_at: u64,
    /// How often it asked whether its CPU time runs out.
    pub(super) cpu_asked: u32,
    /// Whether it was told so, and not at once.
    pub(super) signalled: bool,
}
