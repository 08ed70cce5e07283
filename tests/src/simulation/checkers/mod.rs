//! What must be so after every step, and at rest.
//!
//! They know the truth that the engine cannot know: every version of every file that was ever visible, and which pages
//! each job was answered. None of them asks the engine anything; they read what is stored and what is delivered.

mod coordinator;
mod feed;
mod listing;
mod rest;
mod sinks;
mod snapshot;
mod violation;

use std::collections::HashSet;

use b2sync_core::change::Change;
use b2sync_core::entry::{Entry, KeyOrder};
use b2sync_core::filter::FilterSpec;
use b2sync_core::job::JobRecord;
use b2sync_core::policy::{DeletionLimit, Reconcile};
use b2sync_core::source_path::SourcePath;
use b2sync_service::sinks::SinkRecord;

use self::coordinator::CoordinatorChecks;
pub use self::coordinator::CoordinatorSeen;
use self::feed::FeedLog;
pub use self::feed::{SinkStands, SwapSeen};
use self::listing::BucketSeen;
use self::sinks::{CatalogueSeen, SinkSeen};
use self::snapshot::SnapshotChecks;
pub use self::snapshot::SnapshotSeen;
pub use self::violation::{Rule, Violation};
use super::kv::StaleKv;

/// What the checkers remember.
#[derive(Debug)]
pub struct Checks {
    secrets: Vec<String>,
    bucket: BucketSeen,
    deletion_limit: DeletionLimit,
    coordinator: CoordinatorChecks,
    snapshot: SnapshotChecks,
    feed: FeedLog,
    sink_ids: Vec<String>,
    sinks: Vec<SinkSeen>,
    catalogue: CatalogueSeen,
}

impl Checks {
    /// Nothing has happened yet.
    pub fn new(sync_id: &str, order: KeyOrder, source: SourcePath, filters: &FilterSpec, reconcile: Reconcile) -> Self {
        Self {
            secrets: Vec::new(),
            bucket: BucketSeen::new(order, source, filters),
            deletion_limit: DeletionLimit::default(),
            coordinator: CoordinatorChecks::default(),
            snapshot: SnapshotChecks::default(),
            feed: FeedLog::new(sync_id, reconcile),
            sink_ids: Vec::new(),
            sinks: Vec::new(),
            catalogue: CatalogueSeen::default(),
        }
    }

    /// The sync feeds one sink more.
    pub fn add_sink(&mut self, sink_id: &str) {
        self.sink_ids.push(sink_id.to_owned());
        self.sinks.push(SinkSeen::new());
    }

    /// A job appends at most this many files.
    pub fn limit_objects(&mut self, objects_max: Option<u64>) {
        self.bucket.objects_max = objects_max;
    }

    /// A job appends at most this many deletions, unless they are confirmed.
    pub fn limit_deletions(&mut self, deletion_limit: DeletionLimit) {
        self.deletion_limit = deletion_limit;
    }

    /// Polls come to at most this many class C calls a day, by clocks that are off by this much. With `None`, they do
    /// not count.
    pub fn limit_class_c(&mut self, class_c_max: Option<u64>, skew_ms_max: u64) {
        let skew_ms = i64::try_from(skew_ms_max).unwrap_or(i64::MAX);
        self.coordinator.class_c_max = class_c_max.map(|most| (most, skew_ms));
    }

    /// From here on this must not be seen anywhere.
    pub fn add_secret(&mut self, secret: String) {
        self.secrets.push(secret);
    }

    /// The key shows this from here on.
    pub fn showed(&mut self, at: u64, key: &str, file: Option<Entry>) {
        self.bucket.showed(at, key, file);
    }

    /// The sync takes this from here on.
    pub fn scoped(&mut self, at: u64, source: SourcePath, filters: &FilterSpec) {
        self.bucket.scoped(at, source, filters);
    }

    /// What the sync takes now.
    pub fn takes(&self, entry: &Entry) -> bool {
        self.bucket.takes(entry)
    }

    /// The position of the newest change.
    pub fn last_position(&self) -> u64 {
        self.feed.last()
    }

    /// All changes of the feed, in order.
    pub fn changes(&self) -> Vec<Change> {
        (1..=self.feed.last()).filter_map(|position| self.feed.at(position).cloned()).collect()
    }

    fn sink_id(&self, sink: usize) -> &str {
        self.sink_ids.get(sink).map_or("an unknown sink", String::as_str)
    }

    // ---- documents -----------------------------------------------------------------------------------------------

    /// The coordinator's document was written. Answers what it says.
    pub fn coordinator_stored(&mut self, now_ms: i64, bytes: &[u8]) -> Result<CoordinatorSeen, Violation> {
        self.coordinator.stored(now_ms, bytes)
    }

    /// Whether the user has confirmed that the running job may delete everything.
    pub const fn deletes_are_confirmed(&self) -> bool {
        self.coordinator.confirmed
    }

    /// How all sinks stand, and what a swap in this moment may drop.
    pub fn swap(&self, at: u64, dropped_before_ms: i64) -> SwapSeen {
        let sinks = self.sink_ids.iter().zip(&self.sinks).map(|(sink_id, seen)| seen.stands(sink_id)).collect();
        SwapSeen { at, dropped_before_ms, sinks }
    }

    /// The snapshot's document was written, by a step that took this lease.
    pub fn snapshot_stored(
        &mut self,
        step: Option<u64>,
        bytes: &[u8],
        kv: &StaleKv,
        swap: &SwapSeen,
    ) -> Result<SnapshotSeen, Violation> {
        self.check_lease(step, "moves the snapshot")?;
        let document = snapshot::decode(bytes)?;
        let before = self.snapshot.root.clone();
        self.snapshot.check_root(&document.root)?;
        let mut named = HashSet::new();
        let found = self.feed.stored(&document.feed, kv, swap, &mut named)?;
        let mut seen = SnapshotSeen {
            batches: !document.feed.lists.is_empty(),
            appended: found.len() as u64,
            ..SnapshotSeen::default()
        };
        let done = document.root.job.as_ref().map(|job| job.fingerprint.as_str());
        let scope = document.checkpoint.as_ref().map_or(done.unwrap_or_default(), |it| it.fingerprint.as_str());
        for change in found {
            self.check_limits(&change, before.generation, before.entries)?;
            // One that was limited is made up for by the jobs behind it.
            let is_full = before.resync.is_some() || self.coordinator.full_syncs.contains(&change.job_id);
            self.feed.append(swap.at, change, (is_full, scope), &self.bucket)?;
        }
        let counted = self.snapshot.counted(&document, kv, self.bucket.order, &mut named)?;
        let files = self.feed.check_counted(&counted)?;
        if files != document.root.entries && document.checkpoint.is_none() {
            let message = format!("the root says {} files, and counts {files}", document.root.entries);
            return Err(Violation::new(Rule::FeedIsSnapshot, message));
        }
        let dropped = |name: &&String| name.starts_with("feed/") && !named.contains(*name);
        seen.dropped = self.snapshot.named.iter().filter(dropped).count() as u64;
        self.snapshot.named = named;
        if let Some(checkpoint) = &document.checkpoint {
            seen.pending = checkpoint.pending.is_some();
            seen.leaves = !checkpoint.leaves.is_empty();
            seen.deletions = checkpoint.deletions.iter().any(|part| part.blob.is_some());
        }
        Ok(seen)
    }

    /// A job appends no more files and no more deletions than it may, beside a root of `known` files.
    fn check_limits(&mut self, change: &Change, generation: u64, known: u64) -> Result<(), Violation> {
        let (objects, gone) = self.feed.count(change, generation);
        let (job, limit) = (&change.job_id, self.deletion_limit);
        let is_confirmed = self.coordinator.confirmed_jobs.contains(job);
        let is_within_part = gone * 100 <= known * u64::from(limit.percent);
        if gone > u64::from(limit.files) && !is_within_part && limit.percent < 100 && !is_confirmed {
            let message = format!("{job} deletes {gone} of {known} files within {limit:?}");
            return Err(Violation::new(Rule::WithinTheDeletionLimit, message));
        }
        match self.bucket.objects_max.filter(|most| objects > *most) {
            Some(most) => {
                let message = format!("{job} appends {objects} files of at most {most}");
                Err(Violation::new(Rule::WithinTheObjects, message))
            }
            None => Ok(()),
        }
    }

    /// A job ended: it counts no change that it has not appended.
    pub fn job_ended(&self, job: &JobRecord) -> Result<(), Violation> {
        let (counted, appended) = (job.counts.changes(), self.feed.appended_by(&job.job_id));
        if counted <= appended {
            return Ok(());
        }
        let message = format!("{} counts {counted} changes, and has appended {appended}", job.job_id);
        Err(Violation::new(Rule::CountsItsOwn, message))
    }

    /// A blob is deleted: nothing that is stored may name it, also if what is stored is about to be replaced.
    pub fn blob_deleted(&self, name: &str) -> Result<(), Violation> {
        if self.snapshot.named.contains(name) {
            let message = format!("{name} is deleted, and root, checkpoint or feed name it");
            return Err(Violation::new(Rule::NothingNamedIsMissing, message));
        }
        Ok(())
    }

    /// A job was answered a page, by a step that had read its sync's configuration at that moment.
    pub fn paged(&mut self, at: u64, job: &str, configured_at: u64, from: Option<String>, to: Option<String>) {
        let listing = self.coordinator.listings.get(job).map_or(job, String::as_str);
        self.bucket.paged((job, listing), (at, configured_at), from, to);
    }

    // ---- sinks ---------------------------------------------------------------------------------------------------

    fn check_lease(&self, step: Option<u64>, what: &str) -> Result<(), Violation> {
        let lease = self.coordinator.lease;
        if step.is_none() || step != lease {
            let message = format!("step {step:?} {what}, and the lease is that of {lease:?}");
            return Err(Violation::new(Rule::OneStepAtATime, message));
        }
        Ok(())
    }

    /// Changes are offered to a sink, which may refuse some of them.
    pub fn offered(&mut self, sink: usize, step: Option<u64>, changes: &[Change]) -> Result<(), Violation> {
        self.check_lease(step, "delivers")?;
        match self.sinks.get(sink) {
            Some(seen) => seen.offered(self.sink_id(sink), changes, &self.feed),
            None => Ok(()),
        }
    }

    /// A sink took a change. Answers whether it had taken it before.
    pub fn took(&mut self, sink: usize, change: &Change) -> bool {
        let Some(seen) = self.sinks.get_mut(sink) else { return false };
        let again = seen.has_taken(change.position);
        seen.took(change);
        again
    }

    /// A sink refused a change.
    pub fn refused(&mut self, sink: usize, change: &Change) {
        if let Some(seen) = self.sinks.get_mut(sink) {
            seen.refused(change);
        }
    }

    /// The catalogue was called with these changes, and has `count` rows; `row` answers the change and the version that
    /// it has of a key.
    pub fn applied(
        &mut self,
        changes: &[Change],
        count: u64,
        row: impl Fn(&str) -> Option<(String, u32)>,
    ) -> Result<(), Violation> {
        self.catalogue.applied(changes, count, row)
    }

    /// The document of a sink was written.
    pub fn sink_stored(&mut self, sink: usize, bytes: &[u8]) -> Result<SinkRecord, Violation> {
        let record: SinkRecord = serde_json::from_slice(bytes)
            .map_err(|error| Violation::new(Rule::CallsKeepTheirContract, format!("a sink's document: {error}")))?;
        let sink_id = self.sink_id(sink).to_owned();
        if let Some(seen) = self.sinks.get_mut(sink) {
            seen.stored(&sink_id, &record, &self.feed)?;
        }
        Ok(record)
    }

    /// What is stored or said holds no secret.
    pub fn secret_in(&self, place: &str, bytes: &[u8]) -> Result<(), Violation> {
        let text = String::from_utf8_lossy(bytes);
        if self.secrets.iter().any(|secret| text.contains(secret.as_str())) {
            return Err(Violation::new(Rule::NoSecrets, format!("{place} holds a secret")));
        }
        Ok(())
    }
}
