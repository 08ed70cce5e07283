//! What kind of world a seed is.

use b2sync_core::engine::meter::Budget;
use b2sync_core::engine::thresholds::Thresholds;
use b2sync_core::entropy::Entropy as _;
use b2sync_core::policy::{DeletionLimit, Reconcile};
use b2sync_core::retry::RetryPolicy;
use b2sync_service::registry::FEED_RETENTION_HOURS;
use b2sync_service::sinks::CATALOGUE;

use crate::virtual_world::SeededEntropy;
use fake_b2::SpaceEncoding;
use fake_b2::model::KeyOrder;

/// What may be excluded from all worlds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// In worlds in which anything breaks or dies, no file goes away or comes back, and neither filters nor source
    /// change.
    pub no_undo: bool,
    /// The sink refuses no key for ever.
    pub no_dead_letters: bool,
}

/// As the options of `sim` that ask for it, each behind a space.
impl std::fmt::Display for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let options = [(self.no_undo, " --no-undo"), (self.no_dead_letters, " --no-dead-letters")];
        options.iter().filter(|(on, _)| *on).try_for_each(|(_, option)| f.write_str(option))
    }
}

/// A sink of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinkOptions {
    /// Whether it is the catalogue, which refuses nothing; otherwise it holds what it is told, and applies whatever
    /// comes.
    pub is_catalogue: bool,
    /// The most changes of one delivery.
    pub batch_max: usize,
    /// The longest a delivery takes, in milliseconds.
    pub slow_ms_max: u64,
    /// Whether it refuses what is to be refused.
    pub refuses: bool,
}

impl SinkOptions {
    /// The catalogue.
    pub const fn catalogue(batch_max: usize) -> Self {
        Self { is_catalogue: true, batch_max, slow_ms_max: 0, refuses: false }
    }

    /// Another one, which refuses what is to be refused.
    pub const fn other(batch_max: usize) -> Self {
        Self { is_catalogue: false, batch_max, slow_ms_max: 0, refuses: true }
    }
}

/// What is the same throughout one world.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the bucket sorts its keys.
    pub order: KeyOrder,
    /// How listings write spaces.
    pub space_encoding: SpaceEncoding,
    /// The most keys of a page.
    pub page_keys: usize,
    /// The mean and the most entries of a segment.
    pub cut: (u64, usize),
    /// What a step may spend.
    pub budget: Budget,
    /// How requests are retried.
    pub retry: RetryPolicy,
    /// Whether only one instance of the coordinator lives at a time.
    pub sole_instance: bool,
    /// How many ranges of the listing are read at the same time.
    pub streams: u32,
    /// How many shards help the coordinator to read.
    pub shards: usize,
    /// The sinks: first the catalogue, then up to two more.
    pub sinks: Vec<SinkOptions>,
    /// Which of them takes nothing until all else is at rest.
    pub down_at_rest: Option<usize>,
    /// Whether cursors of sinks are moved back.
    pub replays: bool,
    /// How long the feed keeps changes, in hours.
    pub retention_hours: u32,
    /// Seconds between polls.
    pub interval_s: u32,
    /// The longest a request to B2 takes that nothing is wrong with, in milliseconds.
    pub latency_ms_max: u64,
    /// The longest until a blob is visible in another place, in milliseconds.
    pub kv_lag_ms_max: u64,
    /// The farthest an instance's clock is off, in milliseconds.
    pub skew_ms_max: u64,
    /// Whether keys are chosen to hurt.
    pub hostile_keys: bool,
    /// Whether anything breaks or dies.
    pub troubled: bool,
    /// Whether that is most of what happens.
    pub stormy: bool,
    /// Whether files go away and come back, and filters and source change.
    pub undo: bool,
    /// Whether sinks refuse some keys for ever.
    pub dead_letters: bool,
    /// Which changes enter the feed.
    pub reconcile: Reconcile,
    /// Whether some triggers ask for everything to be handed over once more.
    pub full_syncs: bool,
    /// How many files a job appends at most.
    pub objects_max: Option<u64>,
    /// How many deletions a job appends unasked.
    pub deletion_limit: DeletionLimit,
    /// To how many class C calls a day polls may come.
    pub class_c_max: Option<u64>,
    /// After how many times that it asks, at most, a step is told that its CPU time runs out.
    pub cpu_asks_max: Option<u32>,
    /// Whether users send dead letters back, and give them up. At rest that sink takes everything then.
    pub requeues: bool,
    /// Whether users switch the connection off and on.
    pub suspends: bool,
    /// Whether sinks take a part of some deliveries and then fails.
    pub halves: bool,
    /// Whether the cron asks the registry which sync is due, as the Worker does, or calls the coordinator each time.
    pub cron_asks: bool,
    /// From how much on something is stored.
    pub thresholds: Thresholds,
    /// Whether an instance holds a job that has found nothing from one step to the next.
    pub memory: bool,
    /// Whether the sync is deleted in the end.
    pub deleted: bool,
    /// How many keys there are to choose from.
    pub keys: usize,
    /// How many events there are.
    pub events: usize,
}

impl Options {
    /// Those of a world.
    pub fn draw(rng: &SeededEntropy, limits: Limits) -> Self {
        let troubled = rng.chance(0.8);
        let page_keys = pick(rng, &[1, 3, 7, 16, 40, 1_000]);
        let keys = match rng.below(10) {
            0..6 => 8 + rng.below(40),
            6..9 => 40 + rng.below(80),
            _ => 150 + rng.below(150),
        };
        // A page a key would take thousands of requests.
        let page_keys = if keys > 40 { page_keys.max(7) } else { page_keys };
        let mean = pick(rng, &[2, 4, 8, 16, 64]);
        let streams = pick(rng, &[1, 1, 2, 6, 20]);
        Self {
            order: if rng.chance(0.5) { KeyOrder::Utf8 } else { KeyOrder::Utf16 },
            space_encoding: if rng.chance(0.5) { SpaceEncoding::Plus } else { SpaceEncoding::Percent },
            page_keys,
            cut: (mean, usize::try_from(mean).unwrap_or(usize::MAX) * pick(rng, &[1, 2, 8])),
            budget: budget(rng),
            retry: if rng.chance(0.7) { RetryPolicy::DEFAULT } else { RetryPolicy::NONE },
            sole_instance: rng.chance(0.6),
            streams,
            shards: if streams > 6 { pick(rng, &[1, 3]) } else { 0 },
            sinks: vec![SinkOptions::catalogue(pick(rng, &[1, 3, 10, 500]))],
            interval_s: pick(rng, &[60, 300, 900]),
            latency_ms_max: pick(rng, &[1, 40, 900]),
            kv_lag_ms_max: pick(rng, &[0, 5_000, 60_000]),
            skew_ms_max: pick(rng, &[0, 1_000, 60_000]),
            hostile_keys: rng.chance(0.5),
            troubled,
            stormy: troubled && rng.chance(0.3),
            undo: !(troubled && limits.no_undo),
            dead_letters: troubled && !limits.no_dead_letters,
            deleted: rng.chance(0.3),
            keys: usize::try_from(keys).unwrap_or(8),
            events: usize::try_from(10 + rng.below(50)).unwrap_or(10),
            ..Self::calm()
        }
    }

    /// Draws what a sync is told to deliver: in most worlds everything, once.
    pub fn draw_deliveries(&mut self, rng: &SeededEntropy) {
        if rng.chance(0.35) {
            let [on_delete, on_update, on_filter_drift] = [0.5, 0.7, 0.5].map(|share| rng.chance(share));
            self.reconcile = Reconcile { on_delete, on_update, on_filter_drift };
        }
        self.full_syncs = rng.chance(0.3);
    }

    /// Draws what a sync, its users and its home are limited by: in most worlds, by nothing.
    pub fn draw_limits(&mut self, rng: &SeededEntropy) {
        // A job of three files each takes too many of them otherwise.
        let objects = if self.keys > 120 { &[40, 100, 100] } else { &[3, 10, 40] };
        self.objects_max = rng.chance(0.2).then(|| pick(rng, objects));
        self.class_c_max = rng.chance(0.2).then(|| pick(rng, &[200, 1_000, 5_000]));
        self.cpu_asks_max = rng.chance(0.25).then(|| pick(rng, &[1, 3, 10, 40]));
        self.requeues = self.dead_letters && rng.chance(0.5);
        self.suspends = self.troubled && rng.chance(0.3);
        self.halves = self.troubled && rng.chance(0.4);
        self.cron_asks = rng.chance(0.5);
        if rng.chance(0.15) {
            self.budget = pick(rng, &[Budget::WORKERS_FREE, Budget::WORKERS_PAID]);
        }
    }

    /// Draws which other sinks there are, how slow all are, and how long the feed keeps what they need: in half the
    /// worlds, no longer than they need it.
    pub fn draw_sinks(&mut self, rng: &SeededEntropy) {
        let others = pick(rng, &[0, 1, 1, 2, 2]).max(usize::from(self.dead_letters));
        for number in 0..others {
            let other = SinkOptions::other(pick(rng, &[1, 3, 10, 500]));
            let slow_ms_max = pick(rng, &[0, 0, 2_000, 9_000, 15_000]);
            self.sinks.push(SinkOptions { slow_ms_max, refuses: number == 0 || rng.chance(0.5), ..other });
        }
        if let Some(catalogue) = self.sinks.first_mut() {
            catalogue.slow_ms_max = pick(rng, &[0, 0, 0, 0, 3_000]);
        }
        self.down_at_rest = rng.chance(0.3).then(|| usize::try_from(rng.below(1 + others as u64)).unwrap_or(0));
        self.replays = rng.chance(0.5);
        self.retention_hours = pick(rng, &[0, 0, 1, FEED_RETENTION_HOURS, FEED_RETENTION_HOURS, FEED_RETENTION_HOURS]);
    }

    /// The ids of the sinks. The API sends back the dead letters of the sink that is called [`CATALOGUE`], and the
    /// catalogue itself refuses nothing: where sinks refuse for ever, the first of the others has that name.
    pub fn sink_ids(&self) -> Vec<String> {
        let (first, second) = if self.dead_letters { ("objects", CATALOGUE) } else { (CATALOGUE, "other_1") };
        [first, second, "other_2"].map(str::to_owned).into_iter().take(self.sinks.len()).collect()
    }

    /// Draws how many deletions a job appends unasked: in most worlds, the usual, of which they have too few files.
    pub fn draw_deletion_limit(&mut self, rng: &SeededEntropy) {
        if rng.chance(0.4) {
            self.deletion_limit =
                DeletionLimit { percent: pick(rng, &[0, 10, 30, 100]), files: pick(rng, &[0, 1, 3, 10]) };
        }
    }

    /// Draws from how much on something is stored: in most worlds of few keys from so little that every kind of blob is
    /// met. Many keys would take a step each, and each step of one page a minute, where a blob is not seen earlier.
    pub fn draw_thresholds(&mut self, rng: &SeededEntropy) {
        let slow = self.kv_lag_ms_max > 0 && (self.budget.keys_max <= 70 || self.page_keys < 7);
        if self.keys <= 48 && !slow && rng.chance(0.8) {
            self.thresholds = Thresholds {
                flush_changes_min: pick(rng, &[2, 5, 10]),
                flush_bytes_min: pick(rng, &[1, 200, 2_000]),
                deletions_held_max: pick(rng, &[1, 2, 10]),
                tail_items_max: pick(rng, &[0, 1, 8]),
                tail_bytes_max: pick(rng, &[0, 40, 400]),
                ..Thresholds::USUAL
            };
        }
        self.thresholds.bookmark_leaves_min = pick(rng, &[1, 1, 2, 8]);
        self.thresholds.list_bytes_max = pick(rng, &[20, 64 << 10, 64 << 10]);
        let usual = Thresholds::USUAL.held_bytes_max;
        self.thresholds.held_bytes_max = pick(rng, &[400, usual, usual, usual]);
    }

    /// The world in which nothing goes wrong by itself: for tests that are a story.
    pub fn calm() -> Self {
        Self {
            order: KeyOrder::Utf8,
            space_encoding: SpaceEncoding::Plus,
            page_keys: 1_000,
            cut: (16, 64),
            budget: Budget { wall_ms_max: 120_000, ..Budget::UNLIMITED },
            retry: RetryPolicy::DEFAULT,
            sole_instance: true,
            streams: 1,
            shards: 0,
            sinks: vec![SinkOptions::catalogue(500)],
            down_at_rest: None,
            replays: false,
            retention_hours: FEED_RETENTION_HOURS,
            interval_s: 300,
            latency_ms_max: 1,
            kv_lag_ms_max: 0,
            skew_ms_max: 0,
            hostile_keys: false,
            troubled: false,
            stormy: false,
            undo: true,
            dead_letters: false,
            reconcile: Reconcile::default(),
            full_syncs: false,
            objects_max: None,
            deletion_limit: DeletionLimit::default(),
            class_c_max: None,
            cpu_asks_max: None,
            requeues: false,
            suspends: false,
            halves: false,
            cron_asks: false,
            thresholds: Thresholds::USUAL,
            memory: false,
            deleted: false,
            keys: 0,
            events: 0,
        }
    }
}

/// Of several sizes; the smallest is one page a step.
fn budget(rng: &SeededEntropy) -> Budget {
    let unlimited = Budget { wall_ms_max: 120_000, ..Budget::UNLIMITED };
    match rng.below(7) {
        0 => Budget { keys_max: 1, ..unlimited },
        1 => Budget { keys_max: 10 + rng.below(60), ..unlimited },
        2 => Budget { external_requests_max: 13 + rng.below(16), ..unlimited },
        3 => Budget { internal_requests_max: 101 + rng.below(40), ..unlimited },
        4 => Budget { wall_ms_max: 500 + rng.below(5_000), ..unlimited },
        5 => Budget { bytes_received_max: 1_000 + rng.below(20_000), ..unlimited },
        _ => unlimited,
    }
}

/// One of them.
pub(super) fn pick<T: Copy>(rng: &SeededEntropy, all: &[T]) -> T {
    all[usize::try_from(rng.below(all.len() as u64)).unwrap_or(0)]
}
