//! What one step may spend, and has spent.

use super::listing::{
    lanes::Reads,
    source::{PAGE_KEYS, Source},
};
use crate::{
    cost::SourceCost,
    engine::spec::Opening,
    job::JobCost,
    mutation::{self, Mutation},
    state::State,
    store::{BlobStore, DocumentStore},
    time::{Clock, Timestamp},
};

/// The limits of one step. A step ends by itself before it would pass one of them, saves how far it came and asks
/// to be continued. It always reads at least one page, or appends one portion of deletions, so that it always gets
/// further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Requests to B2, retries included.
    pub external_requests_max: u64,
    /// Calls to the stores.
    pub internal_requests_max: u64,
    /// From the step's first moment to its last, in milliseconds.
    pub wall_ms_max: u64,
    /// Bytes received from B2.
    pub bytes_received_max: u64,
    /// Keys read from the listing.
    pub keys_max: u64,
}

/// The most ranges of a listing that are read at the same time in one place: a Worker has six connections.
pub const STREAMS_HERE_MAX: usize = 6;
/// What a step keeps in hand for one more page: the retries of its list call, of one more that checks its end, and of
/// two that ask for the order of keys.
pub const EXTERNAL_REQUESTS_RESERVED: u64 = 24;
/// About the bytes of a page.
const PAGE_BYTES: u64 = 256 << 10;
/// What a step keeps in hand for one more page: reading and storing segments and batches, and the checkpoint.
pub const INTERNAL_REQUESTS_RESERVED: u64 = 100;

impl Budget {
    /// A Worker on the paid plan: 10,000 subrequests an invocation, 1,000 of them to KV, 15 minutes for an alarm. A
    /// step stays below, so that a cut costs little.
    pub const WORKERS_PAID: Self = Self {
        external_requests_max: 3_000,
        internal_requests_max: 900,
        wall_ms_max: 120_000,
        bytes_received_max: 768 << 20,
        keys_max: 2_000_000,
    };
    /// A Worker on the free plan: 50 external subrequests, 1,000 to Cloudflare's own services, and 10 ms of CPU,
    /// so a step reads one page.
    pub const WORKERS_FREE: Self = Self {
        external_requests_max: 40,
        internal_requests_max: 800,
        wall_ms_max: 30_000,
        bytes_received_max: 4 << 20,
        keys_max: 1_000,
    };
    /// No limits: native runs.
    pub const UNLIMITED: Self = Self {
        external_requests_max: u64::MAX,
        internal_requests_max: u64::MAX,
        wall_ms_max: u64::MAX,
        bytes_received_max: u64::MAX,
        keys_max: u64::MAX,
    };

    /// The profile called `free` or `paid`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "free" => Some(Self::WORKERS_FREE),
            "paid" => Some(Self::WORKERS_PAID),
            _ => None,
        }
    }

    /// Whether there is enough left to begin a range ahead of others: a quarter is kept for reading what was begun.
    pub fn allows_ahead(&self, spent: &Spent) -> bool {
        let most = |max: u64| max - max / 4;
        spent.external_requests < most(self.external_requests_max)
            && spent.internal_requests < most(self.internal_requests_max)
            && spent.wall_ms < most(self.wall_ms_max)
            && spent.bytes_received < most(self.bytes_received_max)
            && spent.keys < most(self.keys_max)
    }

    /// Whether there is enough left for one more page, or one more portion of deletions.
    pub fn allows(&self, spent: &Spent) -> bool {
        mutation::is_on(Mutation::IgnoreBudget)
            || (spent.external_requests.saturating_add(EXTERNAL_REQUESTS_RESERVED) <= self.external_requests_max
                && spent.internal_requests.saturating_add(INTERNAL_REQUESTS_RESERVED) <= self.internal_requests_max
                && spent.wall_ms < self.wall_ms_max
                && spent.bytes_received < self.bytes_received_max
                && spent.keys < self.keys_max)
    }
}

/// What a step has spent of its [`Budget`], as the platform counts it. What a job costs is [`JobCost`]: that is billed
/// and stored, and counts what shards have read too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Requests to B2, retries included.
    pub external_requests: u64,
    /// Calls to the stores.
    pub internal_requests: u64,
    /// Since the step began, in milliseconds.
    pub wall_ms: u64,
    /// Bytes received from B2.
    pub bytes_received: u64,
    /// Keys read from the listing.
    pub keys: u64,
}

impl Spent {
    /// As if `pages` pages that are on their way had come, as large as they may be, with all their retries. Where more
    /// are on their way than there are connections, the others are read elsewhere.
    #[must_use]
    pub fn with_in_flight(self, pages: u64) -> Self {
        let keys = pages;
        let pages = pages.min(STREAMS_HERE_MAX as u64);
        Self {
            external_requests: self.external_requests.saturating_add(pages.saturating_mul(EXTERNAL_REQUESTS_RESERVED)),
            bytes_received: self.bytes_received.saturating_add(pages.saturating_mul(PAGE_BYTES)),
            keys: self.keys.saturating_add(keys.saturating_mul(PAGE_KEYS)),
            ..self
        }
    }
}

/// Measures one step.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    budget: Budget,
    started: Timestamp,
    cost_before: SourceCost,
    /// A signal that came before the step is not about it.
    signalled_before: bool,
    /// Keys read so far.
    pub(super) keys: u64,
}

impl Meter {
    pub(super) fn begin(budget: &Budget, opening: Option<&Opening>, source: &impl Source, clock: &impl Clock) -> Self {
        let opening_cost = opening.map(|it| it.cost).unwrap_or_default();
        Self {
            budget: *budget,
            started: opening.map_or_else(|| clock.now(), |it| it.began),
            cost_before: source.cost().since(&opening_cost),
            signalled_before: clock.is_near_cpu_limit(),
            keys: 0,
        }
    }

    /// What the step has spent so far.
    pub(super) fn spent<B: BlobStore, D: DocumentStore>(
        &self,
        source: &impl Source,
        state: &State<'_, B, D>,
        clock: &impl Clock,
    ) -> Spent {
        let cost = source.cost().since(&self.cost_before);
        Spent {
            external_requests: cost.requests,
            internal_requests: state.requests() + cost.calls,
            wall_ms: clock.now().millis_since(self.started),
            bytes_received: cost.bytes_received - cost.bytes_elsewhere,
            keys: self.keys,
        }
    }

    /// What the step has cost so far.
    pub(super) fn cost<B: BlobStore, D: DocumentStore>(
        &self,
        source: &impl Source,
        state: &State<'_, B, D>,
    ) -> JobCost {
        let cost = source.cost().since(&self.cost_before);
        JobCost {
            class_b: cost.class_b,
            class_c: cost.class_c,
            bytes_received: cost.bytes_received,
            state_reads: state.reads(),
            state_writes: state.writes(),
            state_deletions: state.deletions(),
            steps: 1,
        }
    }

    /// Whether the budget allows `reads` on top of what was `spent`.
    pub(super) fn allows(&self, spent: Spent, reads: Reads, clock: &impl Clock) -> bool {
        let spent = Spent { keys: spent.keys + reads.keys, ..spent }.with_in_flight(reads.in_flight);
        self.budget.allows(&spent)
            && (!reads.begins || self.budget.allows_ahead(&spent))
            && (self.signalled_before || !clock.is_near_cpu_limit())
    }
}
