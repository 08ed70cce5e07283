//! One coordinator a sync: it alone starts, drives and ends the jobs of its sync.
//!
//! It is a state machine over one stored document. Every call reads the document, decides, and writes it back by
//! compare-and-swap; [`Coordinator::drive`] runs one step of the running job, or starts the job that is due. On Workers
//! a Durable Object holds it: `fetch` is [`Coordinator::handle`], `alarm` is [`Coordinator::drive`], and the cron pokes
//! it, so that a lost alarm costs a minute and nothing else.
//!
//! Behind each step, [`crate::sinks::pump`] feeds the sync's sinks from what the step appended to the feed; what a sink
//! could not take then is delivered by a later alarm, whether or not a job runs.
//!
//! It deliberately does not keep time by itself, or decide what a change is; and it holds nothing in memory between
//! calls except what a job that has found nothing has read so far ([`Home::memory`]), which may be lost.
//!
//! # Invariants
//! - At most one job of a sync is running. A call that asks for another is told of it.
//! - At most one step of a sync is on its way, also when its job was ended meanwhile: the holder of the lease is alone
//!   with the snapshot, and a report counts only while its step's lease does.
//! - A job that ends leaves no checkpoint behind, once its step has ended too.
//! - After each call there is an alarm, unless nothing is ever due; none goes off in a loop.

mod answer;
mod collect_turn;
mod collecting;
mod drive;
mod feeding;
mod lease;
mod opening;
pub mod protocol;
mod pumps;
pub mod ranges;
mod schedule;
mod sink_calls;
mod state;
mod step;
mod store;

pub use self::{
    answer::{POKE_RUNNING_MS, WAIT_MS_MAX},
    collecting::{COLLECT_EVERY_MS, ORPHANS_AFTER_MS},
    feeding::{PUMP_CALLS_MIN, PUMP_MS_MAX},
    lease::{LEASE_LOOK_MS, LEASE_MARGIN_MS},
    opening::ACCOUNT_MAX_AGE_MS,
    schedule::FAILING_INTERVAL_S_MAX,
    state::{
        DOCUMENT, JOBS_KEPT_MAX, STEP_BACKOFF_BASE_MS, STEP_BACKOFF_CAP_MS, STEP_FAILURES_MAX, VERSION,
        document_read_and_written,
    },
    step::STREAM_FILES,
    store::{Cache, WIPE_AGAIN_MS},
};
use self::{
    ranges::{RangeAnswer, RangeCall},
    state::State,
};
use crate::{
    registry::{Registry, SyncRecord},
    seal::MasterKeys,
};
use b2sync_core::{
    engine::{memory::Memory, meter::Budget, thresholds::Thresholds},
    entropy::Entropy,
    error::Error,
    http::HttpClient,
    job::JobRecord,
    retry::RetryPolicy,
    sink::Sink,
    store::{BlobStore, DocumentStore},
    time::{Clock, Timestamp},
};

/// What is the same for all coordinators of a home.
#[derive(Debug)]
pub struct Config {
    /// Where to authorize.
    pub b2_api_url: String,
    /// What application keys are sealed with.
    pub master_keys: MasterKeys,
    /// What one step may spend.
    pub budget: Budget,
    /// How requests are retried.
    pub retry: RetryPolicy,
    /// Whether the home never runs two coordinators of one sync at the same time (a Durable Object does not). Then a
    /// lease that another instance left behind is that of a dead one.
    pub sole_instance: bool,
    /// For tests: the mean and the most entries of a segment, so that a small bucket has many. `None` everywhere else:
    /// with other sizes every snapshot is written again.
    pub cut_sizes: Option<(u64, usize)>,
    /// From how much on something is stored; tests make it little.
    pub thresholds: Thresholds,
}

/// What a coordinator needs of its home.
pub trait Home {
    /// Sends requests to B2.
    type Http: HttpClient;
    /// Where this sync's segments are.
    type Blobs: BlobStore;
    /// Where this sync's documents are.
    type Documents: DocumentStore;
    /// The time.
    type Clock: Clock;
    /// Chance.
    type Entropy: Entropy;
    /// Connections and syncs.
    type Registry: Registry;
    /// Takes changes of a sync.
    type Sink: Sink;

    /// See [`Home::Http`].
    fn http(&self) -> &Self::Http;
    /// See [`Home::Blobs`]; the same sync always gets the same.
    fn blobs(&self, sync_id: &str) -> Self::Blobs;
    /// See [`Home::Documents`].
    fn documents(&self) -> &Self::Documents;
    /// See [`Home::Clock`].
    fn clock(&self) -> &Self::Clock;
    /// See [`Home::Entropy`].
    fn entropy(&self) -> &Self::Entropy;
    /// See [`Home::Registry`].
    fn registry(&self) -> &Self::Registry;
    /// Where the changes of a sync go: each sink with the id that its document is named by. Empty: nowhere.
    fn sinks(&self, sync: &SyncRecord) -> Vec<(String, Self::Sink)>;
    /// See [`Config`].
    fn config(&self) -> &Config;
    /// Names this instance among all that ever lived.
    fn instance(&self) -> &str;

    /// Has [`Coordinator::drive`] called at that time, or as soon as possible after it. There is one alarm: the latest
    /// call counts.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    async fn set_alarm(&self, at: Option<Timestamp>) -> Result<(), Error>;

    /// Keeps the record of a job that ended, for people to read.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    async fn publish_job(&self, job: &JobRecord) -> Result<(), Error>;

    /// Where this instance holds a job between two steps; the same for all calls of one instance, and each instance has
    /// its own. `None`: it does not.
    fn memory(&self) -> Option<&Memory> {
        None
    }

    /// What this instance remembers of the coordinator's document; the same for all calls of one sync. `None`: it
    /// decodes the document each time.
    fn cache(&self) -> Option<&Cache> {
        None
    }

    /// How many shards there are that read ranges for a coordinator.
    fn shards_max(&self) -> usize {
        0
    }

    /// Has one of [`Home::shards_max`] shards read on in a range: by [`ranges::read_range`], somewhere else.
    ///
    /// # Errors
    /// Any: the coordinator reads the range itself then.
    async fn read_range(&self, shard: usize, call: RangeCall) -> Result<RangeAnswer, Error> {
        let _ = call;
        Err(Error::internal(format!("There is no shard {shard}.")))
    }

    /// Names of blobs of the sync's feed (`feed/…`), from `cursor` on, and the cursor of the rest. A store that lags
    /// may leave some out, or name some that are gone.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    async fn feed_blobs(&self, sync_id: &str, cursor: Option<&str>) -> Result<(Vec<String>, Option<String>), Error>;

    /// Deletes some of what is stored of a sync that was deleted; `true` when nothing is left.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    async fn wipe(&self, sync_id: &str) -> Result<bool, Error>;
}

/// A sync's coordinator in its home.
#[derive(Clone, Copy, Debug)]
pub struct Coordinator<'a, H> {
    home: &'a H,
}

impl<'a, H: Home> Coordinator<'a, H> {
    /// In that home.
    pub fn new(home: &'a H) -> Self {
        Self { home }
    }
}

#[cfg(test)]
mod tests;
