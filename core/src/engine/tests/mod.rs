//! The engine against a bucket in memory: cut off anywhere, it ends with the same feed.
//!
//! [`rules`] holds after every swap of the document, in every test here, whatever the test itself is about.

mod budget;
mod deletions;
mod feed;
mod listing;
#[cfg(feature = "mutations")]
mod mutations;
mod quiet;
mod resume;
mod retention;
mod rules;
mod snapshot;
mod unreadable;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use pollster::block_on;
use proptest::prelude::*;

use self::rules::{Files, Rules, SYNC_ID};
use super::{listing::source::Page, thresholds::Thresholds, *};
use crate::{
    change::{Change, ChangeKind},
    engine::{memory::Memory, previous::Leaves},
    entry::{Entry, KeyOrder},
    error::ErrorKind,
    feed::{self as change_feed, Retention, read_changes},
    filter::{Filter, FilterSpec},
    policy::{DeletionLimit, Reconcile},
    snapshot::{
        Known,
        cut::{Cut, LEAF_SEGMENTS_MAX},
        index::SegmentRef,
    },
    source_path::SourcePath,
    state::{
        State,
        document::{Checkpoint, SnapshotDocument},
        names::Names,
        segment_name,
    },
    testing::{
        bucket::{MemoryBucket, packed},
        stores::{BreakingStores, broken},
    },
    time::Timestamp,
};

/// A clock that a test moves.
#[derive(Default)]
struct TestClock {
    now_ms: Cell<i64>,
    /// Is asked so often before the platform is about to end the step; `None`: it never is.
    cpu_left: Cell<Option<u32>>,
}

impl Clock for TestClock {
    fn is_near_cpu_limit(&self) -> bool {
        let left = self.cpu_left.get();
        self.cpu_left.set(left.map(|left| left.saturating_sub(1)));
        left == Some(0)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now_ms.get())
    }

    async fn sleep(&self, _: u64) {}
}

type Stores = BreakingStores<Rules>;

struct World {
    clock: TestClock,
    bucket: MemoryBucket,
    home: Stores,
    filter: Filter,
    cut: Cut,
    confirm_deletes: bool,
    deletion_limit: DeletionLimit,
    reconcile: Reconcile,
    /// Of the filters.
    fingerprint: &'static str,
    jobs: Cell<u32>,
    streams: Cell<usize>,
    resync: Cell<bool>,
    objects_max: Cell<Option<u64>>,
    retention: Cell<Retention>,
    thresholds: Cell<Thresholds>,
    bookmark: RefCell<Option<Bookmark>>,
    /// `None`: no job is held between its steps.
    memory: Option<Memory>,
    /// Steps so far, of all jobs, and the job of the latest.
    steps: Cell<u64>,
    latest: RefCell<String>,
    /// Batches that steps of the latest job answered.
    appended: RefCell<Vec<Batch>>,
}

impl World {
    fn new(page_size: usize) -> Self {
        let bucket = MemoryBucket::default();
        bucket.page_size.set(page_size);
        let home = Stores::default();
        home.watcher.pages_ended.replace(Rc::clone(&bucket.ends));
        Self {
            clock: TestClock::default(),
            bucket,
            home,
            filter: all_files(),
            cut: Cut::new([1; 16]).with_sizes(4, 9),
            confirm_deletes: true,
            deletion_limit: DeletionLimit::default(),
            reconcile: Reconcile::default(),
            fingerprint: "f",
            jobs: Cell::new(0),
            streams: Cell::new(1),
            resync: Cell::new(false),
            objects_max: Cell::new(None),
            retention: Cell::new(Retention::ALL),
            thresholds: Cell::new(Thresholds::USUAL),
            bookmark: RefCell::new(Some(Bookmark::default())),
            memory: None,
            steps: Cell::default(),
            latest: RefCell::default(),
            appended: RefCell::default(),
        }
    }

    /// An instance that lives on from step to step holds jobs in memory.
    fn with_memory(self, memory: bool) -> Self {
        Self { memory: memory.then(Memory::new), ..self }
    }

    fn in_order(self, utf16: bool) -> Self {
        self.bucket.order.set(if utf16 { KeyOrder::Utf16 } else { KeyOrder::Utf8 });
        self
    }

    /// With few files, everything that is met with many.
    fn with_tiny_thresholds(self, tiny: bool) -> Self {
        self.thresholds.set(if tiny { Thresholds::TINY } else { Thresholds::USUAL });
        self
    }

    /// The engine; the rules know from here on what it is asked.
    fn engine(&self) -> Engine<'_, MemoryBucket, Stores, Stores, TestClock> {
        let rules = &self.home.watcher;
        rules.cut.set(self.cut);
        rules.reconcile.set(self.reconcile);
        rules.retention.set(self.retention.get());
        Engine { source: &self.bucket, blobs: &self.home, documents: &self.home, clock: &self.clock }
    }

    fn spec<'a>(&'a self, job_id: &'a str) -> JobSpec<'a> {
        JobSpec {
            reconcile: self.reconcile,
            confirm_deletes: self.confirm_deletes,
            deletion_limit: self.deletion_limit,
            objects_max: self.objects_max.get(),
            retention: self.retention.get(),
            streams: self.streams.get(),
            resync: self.resync.get(),
            thresholds: self.thresholds.get(),
            bookmark: self.bookmark.borrow().clone(),
            fingerprint: self.fingerprint,
            ..JobSpec::new(job_id, self.cut, &self.filter)
        }
    }

    fn step(&self, job_id: &str, budget: &Budget) -> StepReport {
        let step = self.steps.get();
        self.steps.set(step + 1);
        let holding = self.memory.as_ref().map(|memory| memory.for_step(step.checked_sub(1), step));
        // A job that was lost is not entrusted to it again.
        let begins = self.latest.replace(job_id.to_owned()) != job_id;
        if begins {
            self.home.watcher.ended_before.set(self.bucket.ends.get());
            self.appended.borrow_mut().clear();
        }
        let held = holding.filter(|holding| begins || holding.has(job_id));
        let before = self.document().feed;
        let report = block_on(self.engine().step(&JobSpec { held, ..self.spec(job_id) }, budget));
        if report.bookmark.is_some() {
            assert!(self.document().checkpoint.is_none(), "a job goes on in one place");
            self.bookmark.replace(report.bookmark.clone());
        }
        if let Some(feed) = &report.feed {
            let now = self.document().feed;
            // The answer to the last swap may be lost.
            let is_unheard = report.outcome.is_err() && (before.next..=now.next).contains(&feed.next);
            assert!(is_unheard || *feed == now, "the feed as the step left it: {feed:?}");
        }
        self.check_appended(&report);
        report
    }

    /// What a step answers as appended is in the feed.
    fn check_appended(&self, report: &StepReport) {
        if report.appended.is_empty() {
            return;
        }
        let state = State::new(&self.home.blobs, &self.home.documents);
        let named = rules::batches_of(&state, &self.document().feed).0;
        for batch in &report.appended {
            assert!(named.contains(&batch.batch), "{:?} was not appended", batch.batch);
            assert_eq!(block_on(state.read(&batch.batch.name())).unwrap(), batch.bytes);
        }
        self.appended.borrow_mut().extend(report.appended.iter().cloned());
    }

    /// Runs one job to its end, going on after every break.
    fn job(&self, budget: &Budget) -> StepReport {
        self.jobs.set(self.jobs.get() + 1);
        let job_id = format!("job_{}", self.jobs.get());
        for _ in 0..10_000 {
            let report = self.step(&job_id, budget);
            match &report.outcome {
                Ok(Outcome::Done) => return report,
                Ok(Outcome::Continue) => {}
                Err(error) if error.is_transient() => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the job does not end");
    }

    /// Ends the job that broke off, as it is.
    fn settle(&self) {
        block_on(settle_checkpoint(&self.home, &self.home, self.cut)).unwrap();
    }

    /// Drops what a reader has read, up to that position.
    fn forget(&self, up_to: u64) -> Result<u64, Error> {
        self.home.watcher.retention.set(Retention { before: None, up_to });
        let before = self.document().root;
        let first = block_on(change_feed::forget(&self.home, &self.home, up_to));
        assert_eq!(self.document().root.generation, before.generation);
        first
    }

    fn document(&self) -> SnapshotDocument {
        block_on(State::new(&self.home.blobs, &self.home.documents).load_document()).unwrap().0
    }

    /// All blobs of the current snapshot, and all that it knows.
    fn stored(&self) -> (BTreeSet<String>, Vec<Known>) {
        rules::known_of(&State::new(&self.home.blobs, &self.home.documents), &self.document().root)
    }

    /// The blobs that are retired or garbage, and those with lists of them.
    fn to_be_deleted(&self) -> BTreeSet<String> {
        let state = State::new(&self.home.blobs, &self.home.documents);
        let root = self.document().root;
        let mut names = BTreeSet::new();
        for list in [root.retired, root.garbage] {
            names.extend(block_on(Names::of(&list).unwrap().all(&state)).unwrap().iter().map(ToString::to_string));
            names.extend(list.blobs);
        }
        names
    }

    /// The blobs of the feed: batches, and lists of them.
    fn feed_blobs(&self) -> BTreeSet<String> {
        rules::batches_of(&State::new(&self.home.blobs, &self.home.documents), &self.document().feed).1
    }

    /// The segments of each leaf of the current snapshot.
    fn leaves(&self) -> Vec<Vec<SegmentRef>> {
        let state = State::new(&self.home.blobs, &self.home.documents);
        let mut leaves = block_on(Leaves::of(&state, &self.document().root)).unwrap();
        let list = leaves.list.clone();
        list.iter().map(|leaf| block_on(leaves.segments(&state, leaf.hash)).unwrap().to_vec()).collect()
    }

    /// The whole stored snapshot.
    fn snapshot(&self) -> Vec<Known> {
        self.stored().1
    }

    /// Changes behind a position.
    fn read(&self, after: u64, limit: usize) -> change_feed::Page {
        block_on(read_changes(&self.home.blobs, &self.home.documents, SYNC_ID, Some(after), limit)).unwrap()
    }

    /// The feed, from the first change that is kept to the last, read page by page.
    fn kept_changes(&self, limit: usize) -> Vec<Change> {
        let (mut changes, mut after) = (Vec::new(), self.document().feed.first().unwrap() - 1);
        loop {
            let page = self.read(after, limit);
            let Some(last) = page.changes.last() else { return changes };
            after = last.position;
            changes.extend(page.changes);
        }
    }

    /// All changes that were ever appended.
    fn changes(&self) -> Vec<Change> {
        let (all, kept) = (self.home.watcher.changes(), self.kept_changes(1_000));
        let dropped = all.len() - kept.len();
        assert_eq!(all[dropped..], kept, "what is read is what was appended");
        all
    }

    /// What a reader has that applied all changes in their order.
    fn current(&self) -> BTreeMap<String, Entry> {
        let mut current = BTreeMap::new();
        for change in self.changes() {
            match change.kind {
                ChangeKind::Deleted => current.remove(&change.entry.key),
                _ => current.insert(change.entry.key.clone(), change.entry),
            };
        }
        current
    }

    fn check(&self) {
        let (bucket, current) = (self.bucket.current(), self.current());
        let differing: Vec<_> =
            bucket.keys().chain(current.keys()).filter(|key| bucket.get(*key) != current.get(*key)).collect();
        assert!(differing.is_empty(), "what the feed tells is not what the bucket holds: {differing:?}");
        let known: Files = self.snapshot().into_iter().map(|known| (known.key.clone(), known)).collect();
        let expected: Files = bucket.iter().map(|(key, entry)| (key.clone(), Known::from(entry))).collect();
        rules::assert_same(&known, &expected, "the snapshot is what the bucket holds");
        assert!(self.document().checkpoint.is_none());
    }

    /// Every blob is named: by the snapshot, by the feed, or as one to be deleted. Of these, those that only
    /// checkpoints named may be gone already.
    fn check_nothing_else_is_stored(&self) {
        let missing = self.check_all_is_named();
        let missing: Vec<_> = missing.iter().filter(|name| !name.starts_with("scratch/")).collect();
        assert!(missing.is_empty(), "{missing:?} are missing");
    }

    /// Every blob is named. Answers what is named and not there.
    fn check_all_is_named(&self) -> BTreeSet<String> {
        let mut named = self.to_be_deleted();
        named.extend(self.stored().0);
        named.extend(self.feed_blobs());
        let stored: BTreeSet<String> = self.home.blobs.names().into_iter().collect();
        let unnamed: Vec<_> = stored.difference(&named).collect();
        assert!(unnamed.is_empty(), "nothing names {unnamed:?}");
        named.difference(&stored).cloned().collect()
    }
}

const ONE_PAGE: Budget = Budget { keys_max: 1, ..Budget::UNLIMITED };

fn all_files() -> Filter {
    filter(&[])
}

/// Leaves out what matches one of these.
fn filter(exclude_patterns: &[&str]) -> Filter {
    let exclude_patterns = exclude_patterns.iter().map(|&pattern| pattern.to_owned()).collect();
    let spec = FilterSpec { exclude_patterns, ..FilterSpec::default() };
    Filter::compile(&spec, &SourcePath::parse("bucket-one").unwrap()).unwrap()
}

fn entry(key: &str, version: u64) -> Entry {
    let last_modified = Timestamp::from_millis(1_700_000_000_000 - version as i64 * 1_000);
    Entry { key: key.to_owned(), etag: format!("{version:032x}"), size: version, last_modified }
}

fn keys(range: std::ops::Range<u32>) -> Vec<Entry> {
    range.map(|n| entry(&format!("k{n:05}"), 1)).collect()
}

/// A history: what the bucket holds at each poll.
fn histories() -> impl Strategy<Value = Vec<BTreeMap<String, u64>>> {
    let key = prop_oneof!["[abc]{1,3}", "[ab]😀[ab]?", "[ab]\u{ff01}[ab]?"];
    proptest::collection::vec(proptest::collection::btree_map(key, 1u64..3, 0..40), 1..4)
}

/// With enough keys for several leaves.
fn big_histories() -> impl Strategy<Value = Vec<BTreeMap<String, u64>>> {
    let key = prop_oneof![
        4 => "[a-f]{1,4}",
        1 => "[ab]😀[a-f]{1,3}",
        1 => "[ab]\u{ff01}[a-f]{1,3}",
        1 => "[😀\u{e000}ü][a-f]{0,2}",
    ];
    proptest::collection::vec(proptest::collection::btree_map(key, 1u64..3, 0..160), 1..4)
}

fn states(history: &[BTreeMap<String, u64>]) -> impl Iterator<Item = Vec<Entry>> {
    history.iter().map(|state| state.iter().map(|(key, version)| entry(key, *version)).collect())
}
