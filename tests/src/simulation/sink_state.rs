//! What the sinks of a world hold, and what becomes of deliveries to them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use b2sync_core::entry::Entry;

use super::faults::Break;
use super::options::SinkOptions;

/// A sink, shared by all instances that ever deliver to it.
#[derive(Debug)]
pub(super) struct SinkState {
    pub(super) sink_id: String,
    pub(super) options: SinkOptions,
    /// What it holds, unless it is the catalogue.
    pub(super) held: RefCell<BTreeMap<String, Entry>>,
    /// What becomes of its next deliveries.
    pub(super) breaks: RefCell<VecDeque<Break>>,
    /// How often it refuses a key from now on.
    pub(super) refusals: RefCell<BTreeMap<String, u8>>,
    /// What it refuses for ever, or until everything is taken at rest.
    pub(super) refused_for_ever: RefCell<BTreeSet<String>>,
    /// What it ever refused so. Such a key must be among its dead letters, where it does not hold what the feed tells.
    pub(super) exempt: RefCell<BTreeSet<String>>,
    /// The longest that a delivery takes.
    pub(super) slow_ms_max: Cell<u64>,
    /// Whether every delivery fails.
    pub(super) is_down: Cell<bool>,
}

impl SinkState {
    pub(super) fn new(sink_id: String, options: SinkOptions) -> Self {
        Self {
            sink_id,
            options,
            held: RefCell::default(),
            breaks: RefCell::default(),
            refusals: RefCell::default(),
            refused_for_ever: RefCell::default(),
            exempt: RefCell::default(),
            slow_ms_max: Cell::new(options.slow_ms_max),
            is_down: Cell::new(false),
        }
    }
}
