//! The engine against a bucket in memory: cut off anywhere, it ends with the same changes.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use pollster::block_on;
use proptest::prelude::*;

use super::{
    drift::{Fate, Presence},
    memory::Memory,
    retire::{NAMES_MAX, Names},
    source::{Page, PageStart, SourceCost},
    state::{node_name, segment_name},
    wire::ReaderWire,
    *,
};
use crate::{
    dead_letters::DeadLetters,
    entry::{EntryBuffer, EntryRef, KeyOrder},
    error::{ErrorKind, Retry},
    filter::FilterSpec,
    sink::{Change, Delivery, MemorySink},
    snapshot::{
        self, Known,
        codec::{KEY_BYTES_MAX, KEYS_BYTES_MAX},
        cut::{SEGMENT_BYTES_MAX, SEGMENT_ENTRIES_MAX},
        index::Level,
        root::{self, NameList, Root, SnapshotDocument},
        segment::decode,
    },
    source_path::SourcePath,
    store::{Document, MemoryBlobs, MemoryDocuments, Swapped},
    time::Timestamp,
};

/// A bucket that lists itself, page by page.
#[derive(Default)]
struct Bucket {
    entries: RefCell<Vec<Entry>>,
    page_size: Cell<usize>,
    order: Cell<KeyOrder>,
    calls: Cell<u64>,
    answers: RefCell<Vec<Result<Page, Error>>>,
    /// The call that fails.
    fails_at: Cell<u64>,
    /// The call that is answered by a page without keys, behind which there are more.
    empty_at: Cell<u64>,
    /// How often a page is asked for before it is there.
    latency: Cell<u32>,
    in_flight: Cell<usize>,
    in_flight_most: Cell<usize>,
    /// Whether ranges are read somewhere else.
    elsewhere: Cell<bool>,
}

fn sent(wire: &ReaderWire) -> RangeReader {
    let wire: ReaderWire = serde_json::from_str(&serde_json::to_string(wire).unwrap()).unwrap();
    wire.into_reader().unwrap()
}

impl Bucket {
    fn set(&self, entries: impl IntoIterator<Item = Entry>) {
        let mut entries: Vec<Entry> = entries.into_iter().collect();
        entries.sort_by(|a, b| self.order.get().compare(&a.key, &b.key));
        *self.entries.borrow_mut() = entries;
    }

    fn current(&self) -> BTreeMap<String, Entry> {
        self.entries.borrow().iter().map(|entry| (entry.key.clone(), entry.clone())).collect()
    }
}

impl Source for Bucket {
    async fn page(&self, start: PageStart<'_>) -> Result<Page, Error> {
        self.calls.set(self.calls.get() + 1);
        self.in_flight.set(self.in_flight.get() + 1);
        self.in_flight_most.set(self.in_flight_most.get().max(self.in_flight.get()));
        // A failure comes sooner.
        let fails = self.calls.get() == self.fails_at.get();
        let mut left = self.latency.get() / if fails { 2 } else { 1 };
        std::future::poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        self.in_flight.set(self.in_flight.get() - 1);
        if let Some(answer) = self.answers.borrow_mut().pop() {
            return answer;
        }
        if fails {
            return Err(broken());
        }
        let after = match start {
            PageStart::First => None,
            PageStart::After(key) | PageStart::Token(key) => Some(key),
        };
        if self.calls.get() == self.empty_at.get() {
            let next_token = Some(format!("{}!", after.unwrap_or_default()));
            return Ok(Page { entries: packed(&[]), truncated: true, next_token });
        }
        let entries = self.entries.borrow();
        let from = after
            .map_or(0, |after| entries.partition_point(|entry| self.order.get().compare(&entry.key, after).is_le()));
        let page: Vec<Entry> = entries.iter().skip(from).take(self.page_size.get().max(1)).cloned().collect();
        let truncated = from + page.len() < entries.len();
        let next_token = truncated.then(|| page.last().unwrap().key.clone());
        Ok(Page { entries: packed(&page), truncated, next_token })
    }

    async fn read(&self, reader: &mut RangeReader, order: &Order<'_>) -> Result<(), Error> {
        if !self.elsewhere.get() {
            return reader.read(self, order).await;
        }
        let mut other = sent(&ReaderWire::rest_of(reader).unwrap());
        let mut read = Ok(());
        for _ in 0..other.pages_at_once(5) {
            read = other.read(self, order).await;
            if read.is_err() {
                break;
            }
        }
        reader.go_on_as(sent(&ReaderWire::of(&other).unwrap()));
        read
    }

    fn cost(&self) -> SourceCost {
        let calls = self.calls.get();
        SourceCost { class_b: 0, class_c: calls, requests: calls, bytes_received: calls * 100, ..SourceCost::default() }
    }
}

#[derive(Default)]
struct Stopped {
    /// Is asked so often before the platform is about to end the step; `None`: it never is.
    cpu_left: Cell<Option<u32>>,
}

impl Clock for Stopped {
    fn is_near_cpu_limit(&self) -> bool {
        let left = self.cpu_left.get();
        self.cpu_left.set(left.map(|left| left.saturating_sub(1)));
        left == Some(0)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }

    async fn sleep(&self, _: u64) {}
}

/// Breaks off at the n-th effect, before or after it happened.
#[derive(Default)]
struct Breaking<T> {
    inner: T,
    effects: Cell<u64>,
    /// Blobs that were asked for.
    gets: Cell<u64>,
    at: Cell<Option<(u64, bool)>>,
}

impl<T> Breaking<T> {
    fn breaks(&self) -> Result<bool, Error> {
        self.effects.set(self.effects.get() + 1);
        match self.at.get() {
            Some((at, false)) if at == self.effects.get() => Err(broken()),
            Some((at, true)) if at == self.effects.get() => Ok(true),
            _ => Ok(false),
        }
    }
}

fn broken() -> Error {
    Error::new(ErrorKind::Storage, "Broken off.", "").with_retry(Retry::Temporary)
}

#[derive(Default)]
struct Homes {
    blobs: MemoryBlobs,
    documents: MemoryDocuments,
    sink: MemorySink,
}

impl BlobStore for Breaking<Homes> {
    async fn get(&self, name: &str) -> Result<Option<Bytes>, Error> {
        self.gets.set(self.gets.get() + 1);
        self.inner.blobs.get(name).await
    }

    async fn put(&self, name: &str, value: Bytes) -> Result<(), Error> {
        let after = self.breaks()?;
        self.inner.blobs.put(name, value).await?;
        if after { Err(broken()) } else { Ok(()) }
    }

    async fn delete(&self, name: &str) -> Result<(), Error> {
        let after = self.breaks()?;
        self.inner.blobs.delete(name).await?;
        if after { Err(broken()) } else { Ok(()) }
    }
}

impl DocumentStore for Breaking<Homes> {
    async fn load(&self, name: &str) -> Result<Option<Document>, Error> {
        self.inner.documents.load(name).await
    }

    async fn swap(&self, name: &str, expected: u64, value: Option<Bytes>) -> Result<Swapped, Error> {
        let after = self.breaks()?;
        let swapped = self.inner.documents.swap(name, expected, value).await?;
        if after { Err(broken()) } else { Ok(swapped) }
    }
}

impl Sink for Breaking<Homes> {
    fn batch_max(&self) -> usize {
        3
    }

    async fn deliver(&self, changes: &[Change]) -> Result<Vec<Delivery>, Error> {
        let after = self.breaks()?;
        let answers = self.inner.sink.deliver(changes).await?;
        if after { Err(broken()) } else { Ok(answers) }
    }
}

struct World {
    clock: Stopped,
    bucket: Bucket,
    home: Breaking<Homes>,
    filter: Filter,
    cut: Cut,
    confirm_deletes: bool,
    deletion_limit: DeletionLimit,
    reconcile: Reconcile,
    jobs: Cell<u32>,
    streams: Cell<usize>,
    resync: Cell<bool>,
    objects_max: Cell<Option<u64>>,
    thresholds: Cell<Thresholds>,
    bookmark: RefCell<Option<Bookmark>>,
    /// `None`: no job is held between its steps.
    memory: Option<Memory>,
    /// Steps so far, of all jobs, and the job of the latest.
    steps: Cell<u64>,
    latest: RefCell<String>,
}

impl World {
    fn new(page_size: usize) -> Self {
        let bucket = Bucket::default();
        bucket.page_size.set(page_size);
        let path = SourcePath::parse("bucket-one").unwrap();
        Self {
            clock: Stopped::default(),
            bucket,
            home: Breaking::default(),
            filter: Filter::compile(&FilterSpec::default(), &path).unwrap(),
            cut: Cut::new([1; 16]).with_sizes(4, 9),
            confirm_deletes: true,
            deletion_limit: DeletionLimit::default(),
            reconcile: Reconcile::default(),
            jobs: Cell::new(0),
            streams: Cell::new(1),
            resync: Cell::new(false),
            objects_max: Cell::new(None),
            thresholds: Cell::new(Thresholds::USUAL),
            bookmark: RefCell::new(Some(Bookmark::default())),
            memory: None,
            steps: Cell::default(),
            latest: RefCell::default(),
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

    fn engine(&self) -> Engine<'_, Bucket, Breaking<Homes>, Breaking<Homes>, Breaking<Homes>, Stopped> {
        Engine { source: &self.bucket, blobs: &self.home, documents: &self.home, sink: &self.home, clock: &self.clock }
    }

    fn order<'a>(&'a self, job_id: &'a str) -> Order<'a> {
        Order {
            reconcile: self.reconcile,
            confirm_deletes: self.confirm_deletes,
            deletion_limit: self.deletion_limit,
            objects_max: self.objects_max.get(),
            streams: self.streams.get(),
            resync: self.resync.get(),
            thresholds: self.thresholds.get(),
            bookmark: self.bookmark.borrow().clone(),
            ..Order::new(job_id, "sync_1", self.cut, &self.filter, "f")
        }
    }

    fn step(&self, job_id: &str, budget: &Budget) -> StepReport {
        let step = self.steps.get();
        self.steps.set(step + 1);
        let holding = self.memory.as_ref().map(|memory| memory.for_step(step.checked_sub(1), step));
        // A job that was lost is not entrusted to it again.
        let begins = self.latest.replace(job_id.to_owned()) != job_id;
        let held = holding.filter(|holding| begins || holding.has(job_id));
        let report = block_on(self.engine().step(&Order { held, ..self.order(job_id) }, budget));
        if report.bookmark.is_some() {
            assert!(self.document().checkpoint.is_none(), "a job goes on in one place");
            self.bookmark.replace(report.bookmark.clone());
        }
        report
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

    fn document(&self) -> SnapshotDocument {
        let (document, _) = block_on(State::new(&self.home, &self.home).load_document()).unwrap();
        document
    }

    /// All blobs of the current snapshot, and all that it knows.
    fn stored(&self) -> (BTreeSet<String>, Vec<Known>) {
        let state = State::new(&self.home, &self.home);
        let root = self.document().root;
        let mut names: BTreeSet<String> = root.index.clone().into_iter().collect();
        let mut known = Vec::new();
        let mut leaves = block_on(Leaves::of(&state, &root)).unwrap();
        for leaf in leaves.list.clone() {
            names.insert(node_name(leaf.hash));
            for segment in block_on(leaves.segments(&state, leaf.hash)).unwrap().to_vec() {
                names.insert(segment_name(segment.hash));
                known.extend(block_on(state.read_segment(&segment_name(segment.hash))).unwrap());
            }
        }
        for part in &root.undeleted {
            names.extend(part.blob.clone());
            known.extend(block_on(known::read(&state, part)).unwrap());
        }
        (names, known)
    }

    /// The blobs that are retired or garbage, and those with lists of them.
    fn to_be_deleted(&self) -> BTreeSet<String> {
        let state = State::new(&self.home, &self.home);
        let root = self.document().root;
        let mut names = BTreeSet::new();
        for list in [root.retired, root.garbage] {
            names.extend(block_on(Names::of(&list).unwrap().all(&state)).unwrap().iter().map(ToString::to_string));
            names.extend(list.blobs);
        }
        names
    }

    /// The segments of each leaf of the current snapshot.
    fn leaves(&self) -> Vec<Vec<SegmentRef>> {
        let state = State::new(&self.home, &self.home);
        let mut leaves = block_on(Leaves::of(&state, &self.document().root)).unwrap();
        let list = leaves.list.clone();
        list.iter().map(|leaf| block_on(leaves.segments(&state, leaf.hash)).unwrap().to_vec()).collect()
    }

    /// The whole stored snapshot.
    fn snapshot(&self) -> Vec<Known> {
        self.stored().1
    }

    fn check(&self) {
        let bucket = self.bucket.current();
        let delivered = self.home.inner.sink.current();
        let differing: Vec<_> =
            bucket.keys().chain(delivered.keys()).filter(|key| bucket.get(*key) != delivered.get(*key)).collect();
        assert!(differing.is_empty(), "what was delivered is not what the bucket holds: {differing:?}");
        let known: BTreeMap<_, _> = self.snapshot().into_iter().map(|known| (known.key.clone(), known)).collect();
        let expected: BTreeMap<_, _> = bucket.iter().map(|(key, entry)| (key.clone(), Known::from(entry))).collect();
        assert_eq!(known, expected, "the snapshot is what the bucket holds");
        assert!(self.document().checkpoint.is_none());
    }
}

const ONE_PAGE: Budget = Budget { keys_max: 1, ..Budget::UNLIMITED };

fn entry(key: &str, version: u64) -> Entry {
    let last_modified = Timestamp::from_millis(1_700_000_000_000 - version as i64 * 1_000);
    Entry { key: key.to_owned(), etag: format!("{version:032x}"), size: version, last_modified }
}

fn packed(entries: &[Entry]) -> EntryBuffer {
    entries.iter().map(EntryRef::from).collect()
}

fn keys(range: std::ops::Range<u32>) -> Vec<Entry> {
    range.map(|n| entry(&format!("k{n:05}"), 1)).collect()
}

/// Where no key ever begins a segment, as if whoever names files knew the salt.
fn no_beginnings(entries_max: usize) -> Cut {
    Cut::new([1; 16]).with_sizes(u64::MAX, entries_max)
}

#[test]
fn segments_of_long_keys_that_begin_none_are_bounded_in_bytes() {
    let mut world = World::new(100);
    world.cut = Cut::new([1; 16]).with_sizes(u64::MAX, SEGMENT_ENTRIES_MAX);
    let name = |n: usize| format!("{n:04}{}", "x".repeat(n * 37 % 8_000));
    world.bucket.set((0..1_000).map(|n| entry(&name(n), 1)));
    world.job(&Budget::UNLIMITED);
    world.check();
    let sizes = |world: &World| -> Vec<usize> {
        let segments = world.leaves().into_iter().flatten();
        let blobs = segments.map(|it| block_on(world.home.inner.blobs.get(&segment_name(it.hash))).unwrap().unwrap());
        let plain = blobs.map(|blob| snapshot::packed::unpack(&blob).unwrap().unwrap_or(blob.to_vec()));
        // Not deflated, and with each key as long as it is.
        plain.map(|plain| decode(&plain).unwrap().iter().map(|known| known.key.len() + 48).sum()).collect()
    };
    let whole = sizes(&world);
    assert!(whole.len() > 2, "{whole:?}");
    assert!(whole.iter().all(|size| *size < SEGMENT_BYTES_MAX + KEY_BYTES_MAX + 48), "{whole:?}");
    assert!(whole.iter().rev().skip(1).all(|size| *size >= SEGMENT_BYTES_MAX), "{whole:?}");
    // Put together again around what is gone.
    world.bucket.set((0..1_000).filter(|n| n % 7 > 0).map(|n| entry(&name(n), 1)));
    world.job(&ONE_PAGE);
    world.check();
    let again = sizes(&world);
    assert!(again.iter().all(|size| *size < SEGMENT_BYTES_MAX + KEY_BYTES_MAX + 48), "{again:?}");
}

#[test]
fn first_everything_then_nothing_then_exactly_what_changed() {
    let world = World::new(10);
    world.bucket.set(keys(0..95));
    let report = world.job(&Budget::UNLIMITED);
    assert_eq!((report.counts.created, report.counts.listed, report.files_known), (95, 95, 95));
    world.check();

    let effects = world.home.effects.get();
    let report = world.job(&Budget::UNLIMITED);
    assert_eq!(report.counts.delivered(), 0);
    assert_eq!((report.cost.state_reads, report.cost.state_writes), (2, 0), "a poll that finds nothing writes nothing");
    assert_eq!(world.home.effects.get(), effects);

    let mut entries = keys(0..95);
    entries.remove(40);
    entries[7] = entry("k00007", 2);
    entries.push(entry("k00030x", 1));
    world.bucket.set(entries);
    let report = world.job(&Budget::UNLIMITED);
    assert_eq!((report.counts.created, report.counts.updated, report.counts.deleted), (1, 1, 1));
    world.check();
}

#[test]
fn a_poll_of_many_steps_that_finds_nothing_stores_no_blob() {
    for cut in [Cut::new([1; 16]).with_sizes(4, 9), Cut::new([1; 16])] {
        let mut world = World::new(10);
        world.cut = cut;
        world.bucket.set(keys(0..95));
        world.job(&ONE_PAGE);
        // What the first job retired is deleted when the root moves next.
        world.job(&ONE_PAGE);
        let names = world.home.inner.blobs.names();
        let report = world.job(&ONE_PAGE);
        assert_eq!((report.counts.listed, report.counts.delivered()), (95, 0));
        assert_eq!(world.home.inner.blobs.names(), names);
        world.check();
    }
}

#[test]
fn a_poll_of_many_steps_that_finds_nothing_reads_twice_a_step_and_writes_nothing() {
    let mut world = World::new(50);
    world.cut = Cut::new([1; 16]).with_sizes(16, 64);
    world.bucket.set(keys(0..5_000));
    world.job(&Budget::UNLIMITED);
    let budget = Budget { keys_max: 1_500, ..Budget::UNLIMITED };
    for streams in [1, 4] {
        world.streams.set(streams);
        let effects = world.home.effects.get();
        let calls = world.bucket.calls.get();
        let mut steps = 1;
        let job_id = format!("job_quiet_{streams}");
        loop {
            let report = world.step(&job_id, &budget);
            assert_eq!((report.cost.state_reads, report.cost.state_writes), (2, 0));
            if report.outcome.unwrap() == Outcome::Done {
                break;
            }
            steps += 1;
        }
        assert!(steps > 3, "{steps} steps");
        assert_eq!(world.home.effects.get(), effects, "nothing is written");
        // Of each step, what it read behind the last leaf, and ahead in other ranges.
        let calls = world.bucket.calls.get() - calls;
        assert!(calls < 100 + steps * 10 * streams as u64, "{calls} pages");
    }

    // A listing that fails goes on from there as well.
    world.streams.set(1);
    let effects = world.home.effects.get();
    world.bucket.fails_at.set(world.bucket.calls.get() + 60);
    let report = world.step("job_fails", &Budget::UNLIMITED);
    assert!(report.outcome.is_err_and(|error| error.is_transient()));
    let calls = world.bucket.calls.get();
    let report = world.step("job_fails", &Budget::UNLIMITED);
    assert_eq!(report.outcome.unwrap(), Outcome::Done);
    assert_eq!((report.counts.listed, world.home.effects.get()), (5_000, effects));
    assert!(world.bucket.calls.get() - calls < 50, "{} pages", world.bucket.calls.get() - calls);

    // Who keeps no bookmark gets a checkpoint.
    world.bookmark.replace(None);
    let report = world.job(&budget);
    assert!(report.counts.listed == 5_000 && world.home.effects.get() > effects);
    world.check();
}

#[test]
fn a_job_that_is_held_between_its_steps_reads_nothing_twice_and_writes_nothing() {
    // Also where a step comes past no leaf.
    for (streams, keys_max) in [(1, 1), (1, 1_500), (4, 1_500), (6, 2_500)] {
        let mut world = World::new(50).with_memory(true);
        world.cut = Cut::new([1; 16]).with_sizes(16, 64);
        world.bucket.set(keys(0..5_000));
        world.job(&Budget::UNLIMITED);
        world.streams.set(streams);
        let budget = Budget { keys_max, ..Budget::UNLIMITED };
        let (effects, calls) = (world.home.effects.get(), world.bucket.calls.get());
        let (mut cost, mut counts) = (JobCost::default(), JobCounts::default());
        for step in 1.. {
            let report = world.step("job_quiet", &budget);
            assert!(report.counts.listed >= counts.listed, "{counts:?}");
            (cost.state_reads, cost.steps) = (cost.state_reads + report.cost.state_reads, step);
            counts = report.counts;
            if report.outcome.unwrap() == Outcome::Done {
                break;
            }
        }
        assert!(cost.steps > 2, "{cost:?}");
        assert_eq!((cost.state_reads, world.home.effects.get()), (2, effects));
        assert_eq!((counts.listed, counts.delivered()), (5_000, 0));
        // Of each range, a page that goes beyond it.
        let calls = world.bucket.calls.get() - calls;
        assert!((100..=100 + 8 * (streams as u64 - 1)).contains(&calls), "{calls} pages");

        // What a later step finds is delivered and stored as ever.
        world.bucket.set(keys(0..4_990).into_iter().chain([entry("z", 1)]));
        let report = world.job(&budget);
        assert_eq!((report.counts.created, report.counts.deleted), (1, 10));
        world.check();
    }
}

#[test]
fn what_is_held_counts_for_the_next_step_of_the_same_job_only() {
    let world = World::new(50).with_memory(true);
    world.bucket.set(keys(0..300));
    world.job(&Budget::UNLIMITED);
    let memory = Memory::new();
    for change in 0..6 {
        let job_id = format!("job_x{change}");
        let order = Order { held: Some(memory.for_step(None, 7)), ..world.order(&job_id) };
        let first = block_on(world.engine().step(&order, &ONE_PAGE));
        assert_eq!((first.outcome.unwrap(), first.counts.listed), (Outcome::Continue, 50));
        let next = memory.for_step(Some(7), 9);
        assert!(next.has(&job_id) && !next.has("job_y") && !memory.for_step(Some(8), 9).has(&job_id));
        let order = Order { held: Some(next), ..order };
        let order = match change {
            0 => order,
            1 => Order { job_id: "job_y", ..order },
            2 => Order { held: Some(memory.for_step(Some(8), 9)), ..order },
            3 => Order { fingerprint: "g", ..order },
            4 => Order { resync: true, ..order },
            _ => Order { redeliver: true, ..order },
        };
        let calls = world.bucket.calls.get();
        let report = block_on(world.engine().step(&order, &Budget::UNLIMITED));
        assert_eq!((report.outcome.unwrap(), report.counts.listed), (Outcome::Done, 300), "{change}");
        assert_eq!((world.bucket.calls.get() - calls >= 6, report.cost.state_reads >= 2), (change > 0, change > 0));
    }
    // Many that hold much are not held together.
    let mut thresholds = world.thresholds.get();
    thresholds.held_bytes_max = 100;
    world.thresholds.set(thresholds);
    let first = world.step("job_z", &ONE_PAGE);
    assert!(first.outcome.unwrap() == Outcome::Continue && first.cost.state_writes > 0);
    // And one that was lost stores how far it comes.
    world.thresholds.set(Thresholds::USUAL);
    world.job(&Budget::UNLIMITED);
    assert_eq!(world.step("job_l", &ONE_PAGE).cost.state_writes, 0);
    world.memory.as_ref().unwrap().forget();
    let report = world.step("job_l", &ONE_PAGE);
    assert!(report.outcome.unwrap() == Outcome::Continue && report.cost.state_writes > 0);
}

#[test]
fn a_step_that_failed_amid_pages_without_keys_does_not_hold_them_against_the_next() {
    for memory in [false, true] {
        let world = World::new(50).with_memory(memory);
        world.bucket.set(keys(0..300));
        world.job(&Budget::UNLIMITED);
        // After the second page comes one without keys, and the one behind it fails.
        let calls = world.bucket.calls.get();
        world.bucket.empty_at.set(calls + 3);
        world.bucket.fails_at.set(calls + 4);
        let report = world.step("job_x", &Budget::UNLIMITED);
        assert!(report.outcome.is_err_and(|error| error.is_transient()));
        world.bucket.empty_at.set(calls + 5);
        let report = world.step("job_x", &Budget::UNLIMITED);
        assert_eq!((report.outcome.unwrap(), report.counts.listed), (Outcome::Done, 300));
        world.check();
    }
}

#[test]
fn a_job_of_several_streams_is_held_when_one_of_them_fails() {
    let mut world = World::new(50).with_memory(true);
    world.cut = Cut::new([1; 16]).with_sizes(16, 64);
    world.bucket.set(keys(0..5_000));
    world.job(&Budget::UNLIMITED);
    world.streams.set(4);
    let effects = world.home.effects.get();
    for fails in [1, 2, 5, 23, 50] {
        let job_id = format!("fails_{fails}");
        let calls = world.bucket.calls.get();
        world.bucket.fails_at.set(calls + fails);
        let first = world.step(&job_id, &Budget::UNLIMITED);
        assert!(first.outcome.as_ref().is_err_and(Error::is_transient), "{fails}: {first:?}");
        let second = world.step(&job_id, &Budget::UNLIMITED);
        assert_eq!((second.outcome.unwrap(), second.counts.listed), (Outcome::Done, 5_000));
        let reads = first.cost.state_reads + second.cost.state_reads;
        assert_eq!((reads, world.home.effects.get()), (2, effects), "{fails}");
        // The page that failed is read once more, and of each range one that goes beyond it.
        assert!(world.bucket.calls.get() - calls <= 101 + 4 * 8, "{} pages", world.bucket.calls.get() - calls);
    }
}

#[test]
fn pages_on_their_way_are_waited_for_at_the_same_time() {
    let mut world = World::new(50).with_memory(true);
    world.cut = Cut::new([1; 16]).with_sizes(16, 64);
    world.bucket.set(keys(0..5_000));
    world.job(&Budget::UNLIMITED);
    world.streams.set(6);
    world.bucket.latency.set(100);
    world.bucket.fails_at.set(world.bucket.calls.get() + 1);
    let memory = Memory::new();
    let order = Order { held: Some(memory.for_step(None, 1)), ..world.order("job_slow") };
    let engine = world.engine();
    let mut step = pin!(engine.step(&order, &Budget::UNLIMITED));
    for turns in 1.. {
        if let Poll::Ready(report) = step.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            assert!(report.outcome.is_err_and(|error| error.is_transient()));
            assert!((100..150).contains(&turns), "{turns} turns for five pages of a hundred each");
            break;
        }
    }
    assert!(memory.for_step(Some(1), 2).has("job_slow"));
}

#[test]
fn a_bookmark_of_another_job_of_other_filters_or_of_an_older_snapshot_does_not_count() {
    let mut world = World::new(50);
    world.cut = Cut::new([1; 16]).with_sizes(16, 64);
    world.bucket.set(keys(0..5_000));
    world.job(&Budget::UNLIMITED);
    let budget = Budget { keys_max: 2_500, ..Budget::UNLIMITED };
    let listed = |world: &World, job_id: &str, fingerprint: &str| {
        let order = Order { fingerprint, ..world.order(job_id) };
        block_on(world.engine().step(&order, &Budget::UNLIMITED)).counts.listed
    };
    let left_off = world.step("job_quiet", &budget).counts.listed;
    assert!((1..=2_500).contains(&left_off), "{left_off}");
    for (job_id, fingerprint, begins_anew) in
        [("job_quiet", "f", false), ("job_x", "f", true), ("job_quiet", "g", true)]
    {
        let calls = world.bucket.calls.get();
        assert_eq!(listed(&world, job_id, fingerprint), 5_000);
        assert_eq!(world.bucket.calls.get() - calls >= 100, begins_anew, "{job_id} {fingerprint}");
    }
    // Another job has changed the snapshot.
    world.bucket.set(keys(0..5_001));
    let bookmark = world.bookmark.take();
    world.job(&Budget::UNLIMITED);
    world.bookmark.replace(bookmark);
    let calls = world.bucket.calls.get();
    assert_eq!(listed(&world, "job_quiet", "f"), 5_001);
    assert!(world.bucket.calls.get() - calls >= 100);
    world.check();
}

#[test]
fn a_few_changes_cost_a_few_reads_and_writes() {
    let mut world = World::new(1_000);
    world.cut = Cut::new([1; 16]);
    world.bucket.set(keys(0..50_000));
    world.job(&Budget::UNLIMITED);
    for changed in [1u32, 2, 5] {
        let mut entries = keys(0..50_000);
        for n in 0..changed {
            entries[(n * 9_973) as usize] = entry(&format!("k{:05}", n * 9_973), 1 + u64::from(changed));
        }
        world.bucket.set(entries);
        let report = world.job(&Budget::UNLIMITED);
        let most = u64::from(2 * (2 * changed) + 3); // Those of the round before change back.
        assert!(report.cost.state_reads <= most, "{changed} changed: {} reads", report.cost.state_reads);
        assert!(report.cost.state_writes <= most, "{changed} changed: {} writes", report.cost.state_writes);
        world.check();
    }
}

#[test]
fn what_is_deleted_of_older_snapshots_is_in_the_cost() {
    let world = World::new(10);
    let deleted: Vec<u64> = (0..5)
        .map(|round| {
            world.bucket.set((0..30).map(|n| entry(&format!("k{n:05}"), if n == 3 { round } else { 9 })));
            let report = world.job(&Budget::UNLIMITED);
            report.cost.state_deletions
        })
        .collect();
    // A segment, its leaf and the top are retired by each job from the second on, and go with the second move behind it.
    assert_eq!(deleted, [0, 0, 0, 3, 3]);
}

#[test]
fn however_many_blobs_each_job_replaces_what_is_to_be_deleted_does_not_pile_up() {
    let world = World::new(1_000);
    let mut sizes = Vec::new();
    for round in 0..12 {
        // Some 600 segments in 150 leaves, of which each job replaces most.
        world.bucket.set((0..2_400).map(|n| entry(&format!("k{n:05}"), if n % 4 == 0 { round } else { 1 })));
        world.job(&Budget { internal_requests_max: 500, ..Budget::UNLIMITED });
        sizes.push((world.document().encode().unwrap().len(), world.home.inner.blobs.names().len()));
    }
    world.check();
    // What two jobs replaced, and the snapshot: from the fourth round on it is about the same.
    let (first, last) = (sizes[4], sizes[11]);
    assert!(last.0 < first.0 * 5 / 4 && last.0 < 64 << 10, "{sizes:?}");
    assert!(last.1 < first.1 * 5 / 4, "{sizes:?}");
}

#[test]
fn settling_takes_a_handful_of_calls_however_much_was_found_gone() {
    for (keys, steps) in [(400, 8), (4_000, 80)] {
        let world = World::new(100).with_tiny_thresholds(true);
        world.bucket.set(self::keys(0..keys));
        world.job(&Budget::UNLIMITED);
        // A file of nearly every segment is gone, and found gone by a job that ends before it delivers that.
        world
            .bucket
            .set(self::keys(0..keys).into_iter().enumerate().filter(|(n, _)| n % 7 != 3).map(|(_, entry)| entry));
        for _ in 0..steps / 4 {
            assert_eq!(world.step("job_cut", &ONE_PAGE).outcome.unwrap(), Outcome::Continue);
        }
        let calls = || world.home.gets.get() + world.home.effects.get();
        let before = calls();
        block_on(settle_checkpoint(&world.home, &world.home, world.cut)).unwrap();
        let taken = calls() - before;
        assert!(taken < 60, "{taken} calls for {keys} files");
        assert!(!world.document().root.undeleted.is_empty());
        assert_eq!(world.snapshot().len(), keys as usize, "the sink still has them");
        world.job(&Budget::UNLIMITED);
        world.check();
    }
}

#[test]
fn a_long_stretch_of_files_that_are_gone_is_read_within_the_budget() {
    let mut world = World::new(1_000);
    world.bucket.set(keys(0..4_000));
    world.job(&Budget::UNLIMITED);
    // As many changes at once as the sink here takes in ten calls.
    world.thresholds.set(Thresholds { flush_changes_min: 30, ..Thresholds::USUAL });
    let mut left = keys(0..4_000);
    left.drain(100..3_900);
    world.bucket.set(left);
    world.confirm_deletes = true;
    let budget = Budget { internal_requests_max: 200, ..Budget::UNLIMITED };
    for steps in 1.. {
        let report = world.step("job_gone", &budget);
        assert!(report.spent.internal_requests <= 200, "{:?}", report.spent);
        if report.outcome.unwrap() == Outcome::Done {
            assert!(steps > 5 && report.counts.deleted == 3_800, "{steps} steps: {:?}", report.counts);
            break;
        }
        assert!(steps < 200, "it gets no further");
    }
    world.check();
}

#[test]
fn a_job_that_was_done_under_other_filters_delivers_no_more_than_it_may() {
    let world = World::new(10);
    world.bucket.set(keys(0..20));
    world.objects_max.set(Some(3));
    let report = world.step("job_1", &Budget::UNLIMITED);
    assert!(report.outcome.unwrap() == Outcome::Done && report.limited);
    // Whoever called never heard of it, and the filters were changed meanwhile.
    let order = Order { fingerprint: "g", ..world.order("job_1") };
    let report = block_on(world.engine().step(&order, &Budget::UNLIMITED));
    assert!(report.outcome.unwrap() == Outcome::Done && report.limited);
    assert_eq!((report.counts.created, world.home.inner.sink.current().len()), (3, 3));
    let report = world.step("job_2", &Budget::UNLIMITED);
    assert_eq!((report.counts.created, world.home.inner.sink.current().len()), (3, 6));
}

#[test]
fn what_one_page_brings_is_delivered_within_the_budget_of_several_steps() {
    // The sink takes three at a time, and a step may make so many calls that a few batches fit into it.
    let budget = Budget { internal_requests_max: 112, ..Budget::UNLIMITED };
    let world = World::new(1_000);
    world.bucket.set(keys(0..120));
    let mut steps = 0;
    loop {
        let report = world.step("job_1", &budget);
        assert!(report.spent.internal_requests <= 112, "{:?}", report.spent);
        steps += 1;
        if report.outcome.unwrap() == Outcome::Done {
            assert_eq!((report.counts.created, report.counts.listed), (120, 120));
            break;
        }
    }
    assert!(steps > 3, "{steps} steps");
    assert_eq!(ids(&world).len(), 120, "each once: what was delivered is no longer noted");
    world.check();

    // A job that did not find them delivers what another has noted, and counts it.
    world.bucket.set(keys(0..240));
    assert_eq!(world.step("job_2", &budget).outcome.unwrap(), Outcome::Continue);
    block_on(settle_checkpoint(&world.home, &world.home, world.cut)).unwrap();
    let (mut created, before) = (0, ids(&world).len());
    for _ in 0..100 {
        let report = world.step("job_3", &budget);
        created = report.counts.created;
        if report.outcome.unwrap() == Outcome::Done {
            break;
        }
    }
    assert_eq!((created, ids(&world).len()), ((240 - before) as u64, 240));
    world.check();
}

#[test]
fn an_older_date_and_the_same_second_are_updates() {
    let world = World::new(10);
    let first = entry("a", 1);
    world.bucket.set([first.clone()]);
    world.job(&Budget::UNLIMITED);
    let older = Entry { last_modified: first.last_modified.plus_millis(-86_400_000), ..first.clone() };
    let same_second_and_size = Entry { etag: "f".repeat(32), ..first.clone() };
    for version in [older, same_second_and_size] {
        world.bucket.set([version]);
        assert_eq!(world.job(&Budget::UNLIMITED).counts.updated, 1);
        world.check();
    }
}

#[test]
fn an_empty_listing_deletes_nothing_until_it_is_confirmed() {
    let mut world = World::new(10);
    world.confirm_deletes = false;
    world.bucket.set(keys(0..20));
    world.job(&Budget::UNLIMITED);
    world.bucket.set([]);
    let error = world.step("job_x", &Budget::UNLIMITED).outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooManyDeletions);
    assert!(error.advice().contains("confirm_deletes=true"), "{error}");
    assert_eq!(world.home.inner.sink.current().len(), 20);
    world.confirm_deletes = true;
    assert_eq!(world.job(&Budget::UNLIMITED).counts.deleted, 20);
    world.check();
}

#[test]
fn an_empty_listing_deletes_nothing_where_only_drift_does() {
    let mut world = World::new(10);
    world.confirm_deletes = false;
    world.reconcile = Reconcile { on_delete: false, on_update: true, on_filter_drift: true };
    world.bucket.set(keys(0..20));
    world.job(&Budget::UNLIMITED);
    *world.bucket.answers.borrow_mut() = vec![Ok(Page::default())];
    let error = world.step("job_x", &Budget::UNLIMITED).outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooManyDeletions);
    assert_eq!(world.home.inner.sink.current().len(), 20);
}

#[test]
fn a_file_that_a_listing_left_out_has_not_drifted() {
    for (on_delete, on_filter_drift) in [(true, false), (false, true)] {
        let mut world = World::new(10);
        world.reconcile = Reconcile { on_delete, on_update: true, on_filter_drift };
        world.bucket.set(keys(0..3));
        world.job(&Budget::UNLIMITED);
        let some = Page { entries: packed(&keys(0..1)), ..Page::default() };
        *world.bucket.answers.borrow_mut() = vec![Ok(some)];
        assert_eq!(world.job(&Budget::UNLIMITED).counts.deleted, 0);
        world.job(&Budget::UNLIMITED);
        assert_eq!(world.home.inner.sink.current().len(), 3);
    }
}

#[test]
fn a_key_is_not_gone_while_the_order_of_keys_leaves_that_open() {
    let bucket = Bucket { page_size: Cell::new(1), ..Bucket::default() };
    bucket.order.set(KeyOrder::Utf16);
    bucket.set([entry("b\u{ff01}", 1), entry("b😀", 1)]);
    let filter = Filter::compile(&FilterSpec::default(), &SourcePath::parse("bucket-one").unwrap()).unwrap();
    let mut presence = Presence::new(&bucket, KeyOrder::Unknown, &filter);
    assert_eq!(block_on(presence.look("b\u{ff01}")).unwrap(), Fate::Taken);
    assert_eq!(block_on(presence.look("b\u{ff02}")).unwrap(), Fate::Gone);
}

#[test]
fn losing_more_than_half_stops_before_the_first_deletion() {
    let mut world = World::new(50);
    world.confirm_deletes = false;
    world.bucket.set(keys(0..300));
    world.job(&Budget::UNLIMITED);
    world.bucket.set(keys(200..300));
    let report = world.step("job_x", &Budget::UNLIMITED);
    assert_eq!(report.outcome.unwrap_err().kind(), ErrorKind::TooManyDeletions);
    assert_eq!(world.home.inner.sink.current().len(), 300);
    // Up to a hundred, and up to half, are ordinary.
    world.bucket.set(keys(140..300));
    assert_eq!(world.job(&Budget::UNLIMITED).counts.deleted, 140);
    world.check();
}

#[test]
fn how_much_may_be_deleted_unasked_is_for_each_sync_to_say() {
    for (percent, files, gone, stops) in [
        (20, 10, 30, true),
        (20, 30, 30, false),
        (20, 10, 20, false),
        (0, 0, 1, true),
        (90, 0, 90, false),
        (90, 0, 91, true),
        (100, 0, 99, false),
        (100, 0, 100, true), // An empty listing always does.
    ] {
        let mut world = World::new(50);
        world.confirm_deletes = false;
        world.deletion_limit = DeletionLimit { percent, files };
        world.bucket.set(keys(0..100));
        world.job(&Budget::UNLIMITED);
        world.bucket.set(keys(gone..100));
        match world.step("job_x", &Budget::UNLIMITED).outcome {
            Ok(outcome) => assert_eq!((outcome, stops), (Outcome::Done, false), "{percent} % {files}: {gone}"),
            Err(error) => {
                assert_eq!((error.kind(), stops), (ErrorKind::TooManyDeletions, true), "{percent} % {files}: {gone}");
                assert_eq!(world.home.inner.sink.current().len(), 100);
                assert!(error.advice().contains("confirm_deletes=true"), "{error}");
                if gone < 100 {
                    assert!(error.message().contains(&format!("{percent} % and {files} files")), "{error}");
                    assert!(error.advice().contains("raise deletion_limit"), "{error}");
                }
                world.confirm_deletes = true;
                world.job(&Budget::UNLIMITED);
            }
        }
        world.check();
    }
}

#[test]
fn what_is_to_be_delivered_may_change_while_a_job_delivers_its_deletions() {
    let apart = Reconcile { on_filter_drift: false, ..Reconcile::default() };
    let none = Reconcile { on_delete: false, ..apart };
    for (then, is_too_much) in [(Reconcile::default(), true), (none, false)] {
        let mut world = World::new(10);
        world.confirm_deletes = false;
        world.deletion_limit = DeletionLimit { percent: 0, files: 3 };
        world.bucket.set(keys(0..60));
        world.job(&Budget::UNLIMITED);
        world.reconcile = apart;
        // So far from each other that looking for them takes several pages.
        world.bucket.set(keys(0..60).into_iter().enumerate().filter(|(n, _)| n % 3 > 0).map(|(_, entry)| entry));
        while !world.document().checkpoint.is_some_and(|checkpoint| checkpoint.listed) {
            assert_eq!(world.step("job_2", &ONE_PAGE).outcome.unwrap(), Outcome::Continue);
        }
        world.reconcile = then;
        let outcome = world.step("job_2", &Budget::UNLIMITED).outcome;
        assert_eq!(outcome.map_err(|error| error.kind()).is_err(), is_too_much);
        assert_eq!(world.home.inner.sink.current().len(), 60);
    }
}

#[test]
fn what_is_to_be_delivered_may_change_while_a_job_lists() {
    let apart = Reconcile { on_filter_drift: false, ..Reconcile::default() };
    let none = Reconcile { on_delete: false, ..apart };
    for (then, is_too_much) in [(Reconcile::default(), true), (none, false)] {
        let mut world = World::new(10);
        world.confirm_deletes = false;
        world.deletion_limit = DeletionLimit { percent: 0, files: 3 };
        world.bucket.set(keys(0..60));
        world.job(&Budget::UNLIMITED);
        world.reconcile = apart;
        // Gone at the beginning, and one more at the end, which is delivered together with few deletions.
        world.bucket.set(keys(20..61));
        let found = |world: &World| world.document().checkpoint.map_or(0, |checkpoint| checkpoint.deletions_found);
        while found(&world) < 20 {
            assert_eq!(world.step("job_2", &ONE_PAGE).outcome.unwrap(), Outcome::Continue);
        }
        assert!(!world.document().checkpoint.unwrap().listed);
        world.reconcile = then;
        let outcome = world.step("job_2", &Budget::UNLIMITED).outcome;
        assert_eq!(
            outcome.map_err(|error| error.kind()),
            if is_too_much { Err(ErrorKind::TooManyDeletions) } else { Ok(Outcome::Done) }
        );
        assert_eq!(world.home.inner.sink.current().len(), 61);
    }
}

#[test]
fn a_document_in_which_everything_is_full_is_below_two_megabytes() {
    let Thresholds { tail_items_max, list_bytes_max, tail_bytes_max, .. } = Thresholds::USUAL;
    let key = |n: usize, bytes: usize| format!("{n:0bytes$}");
    // As long as B2's names may be.
    let known: Vec<Known> = (0..list_bytes_max / 1_024).map(|n| Known::from(&entry(&key(n, 1_024), 7))).collect();
    let item = |n: usize, bytes: usize| SegmentRef {
        first_key: key(n, bytes),
        hash: snapshot::ContentHash::of(&[]),
        entries: u64::MAX,
        bytes: u64::MAX,
    };
    let leaves: Vec<_> = (0..tail_items_max).map(|n| item(n, list_bytes_max / tail_items_max)).collect();
    let segments: Vec<_> = (0..LEAF_SEGMENTS_MAX).map(|n| item(n, 1_024)).collect();
    let names: Vec<_> =
        (0..NAMES_MAX).map(|_| snapshot::names::BlobName::segment(snapshot::ContentHash::of(&[]))).collect();
    let list = || NameList { blobs: Vec::new(), tail: root::encode_names(u64::MAX, &names) };
    let checkpoint = Checkpoint {
        start_after: Some(key(0, 1_024)),
        covered_to: Some(key(0, 1_024)),
        pending_tail: Some(root::encode_bytes(&vec![0; tail_bytes_max])),
        leaves_tail: root::encode_node(Level::Top, &leaves),
        segments: root::encode_node(Level::Leaf, &segments),
        deletions: root::encode_known(&known).into_iter().collect(),
        looked_into: list(),
        ..Checkpoint::default()
    };
    let document = SnapshotDocument {
        root: Root { retired: list(), garbage: list(), ..Root::default() },
        checkpoint: Some(checkpoint),
        in_doubt: Some(root::encode_bytes(&vec![0; tail_bytes_max / 2])),
        ..SnapshotDocument::default()
    };
    let bytes = document.encode().unwrap().len();
    assert!((1_400_000..1_900_000).contains(&bytes), "{bytes} bytes");
}

#[test]
fn files_that_go_between_two_looks_are_not_deleted_beyond_the_limit() {
    let mut world = World::new(10);
    world.confirm_deletes = false;
    world.deletion_limit = DeletionLimit { percent: 0, files: 3 };
    world.reconcile = Reconcile { on_filter_drift: false, ..Reconcile::default() };
    world.bucket.set(keys(0..60));
    world.job(&Budget::UNLIMITED);
    // A dozen that other filters leave out, and two that are gone.
    let patterns = vec!["k0000?".to_owned(), "k0001[01]".to_owned()];
    let spec = FilterSpec { exclude_patterns: patterns, ..FilterSpec::default() };
    world.filter = Filter::compile(&spec, &SourcePath::parse("bucket-one").unwrap()).unwrap();
    world.bucket.set(keys(0..58));
    // All are looked for before the first deletion is delivered; then the bucket changes.
    let looked_for = |world: &World| world.document().checkpoint.map_or(0, |checkpoint| checkpoint.deletions_checked);
    while looked_for(&world) < 14 {
        assert_eq!(world.step("job_2", &ONE_PAGE).outcome.unwrap(), Outcome::Continue);
    }
    world.bucket.set(keys(12..58));
    let error = loop {
        if let Err(error) = world.step("job_2", &ONE_PAGE).outcome {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::TooManyDeletions);
    assert_eq!(error.advice().contains("Nothing was deleted."), world.home.inner.sink.current().len() == 60);
    assert!(world.home.inner.sink.current().len() >= 57);
}

#[test]
fn deletions_of_long_keys_are_kept_in_pieces_that_can_be_read() {
    let world = World::new(100);
    let all = (0..KEYS_BYTES_MAX / 8_000 + 100).map(|n| entry(&format!("k{n:05}{}", "x".repeat(8_000)), 1));
    world.bucket.set(all);
    world.job(&Budget::UNLIMITED);
    world.bucket.set(keys(0..1));
    world.job(&ONE_PAGE);
    world.check();
}

#[test]
fn a_failed_listing_deletes_nothing() {
    let world = World::new(10);
    world.bucket.set(keys(0..60));
    world.job(&Budget::UNLIMITED);
    world.bucket.set(keys(30..60));
    let page = |range, truncated| Page { entries: packed(&keys(range)), truncated, next_token: None };
    for (answers, kind) in [
        (vec![Ok(page(30..40, true))], ErrorKind::ListingStuck),
        (vec![Err(broken())], ErrorKind::Storage),
        (
            vec![Ok(Page { entries: packed(&[entry("b", 1), entry("a", 1)]), ..Page::default() })],
            ErrorKind::ListingOrder,
        ),
    ] {
        *world.bucket.answers.borrow_mut() = answers;
        let report = world.step("job_x", &Budget::UNLIMITED);
        assert_eq!(report.outcome.unwrap_err().kind(), kind);
        assert_eq!(world.home.inner.sink.current().len(), 60, "{kind:?}");
    }
    world.job(&Budget::UNLIMITED);
    world.check();
}

#[test]
fn an_expired_token_is_replaced_by_the_last_key() {
    let world = World::new(10);
    world.bucket.set(keys(0..30));
    let expired = Error::new(ErrorKind::InvalidInput, "Token.", "").with_response(400, Some("InvalidArgument"));
    let first = Page { entries: packed(&keys(0..10)), truncated: true, next_token: Some("k00009".into()) };
    *world.bucket.answers.borrow_mut() = vec![Err(expired), Ok(first)];
    assert_eq!(world.job(&Budget::UNLIMITED).counts.created, 30);
    world.check();
}

#[test]
fn the_limit_counts_the_deletions_that_would_be_delivered() {
    let all = || (0..600).map(|n| entry(&format!("{}{n:03}", if n < 540 { "old/" } else { "new/" }), 1));
    let spec = FilterSpec { exclude_patterns: vec!["old/*".to_owned()], ..FilterSpec::default() };
    let narrow = Filter::compile(&spec, &SourcePath::parse("bucket-one").unwrap()).unwrap();
    for stepped in [false, true] {
        for (drifts, on_delete, on_filter_drift, stops) in [
            (true, true, false, false),
            (true, false, true, true),
            (false, false, true, false),
            (false, true, false, true),
        ] {
            let mut world = World::new(50);
            world.bucket.set(all());
            world.job(&Budget::UNLIMITED);
            world.confirm_deletes = false;
            world.reconcile = Reconcile { on_delete, on_update: true, on_filter_drift };
            if drifts {
                world.filter = narrow.clone();
            } else {
                world.bucket.set(all().filter(|entry| entry.key.starts_with("new/")));
            }
            let budget = if stepped { ONE_PAGE } else { Budget::UNLIMITED };
            let mut steps = 1;
            let outcome = loop {
                match world.step("job_2", &budget).outcome {
                    Ok(Outcome::Continue) => steps += 1,
                    ended => break ended,
                }
            };
            assert_eq!(stepped, steps > 1);
            let known = world.document().root.entries;
            match (outcome, stops) {
                (Ok(Outcome::Done), false) => assert_eq!(known, 60),
                (Err(error), true) => {
                    assert_eq!((error.kind(), known), (ErrorKind::TooManyDeletions, 600));
                    block_on(settle_checkpoint(&world.home, &world.home, world.cut)).unwrap();
                    assert_eq!(world.snapshot().len(), 600);
                }
                (outcome, _) => panic!("drifts: {drifts}, {:?}: {outcome:?}", world.reconcile),
            }
            assert_eq!(world.home.inner.sink.current().len(), 600, "nothing was deleted");
            if stops {
                world.confirm_deletes = true;
                world.job(&budget);
                assert_eq!(world.home.inner.sink.current().len(), 60);
            }
        }
    }
}

#[test]
fn a_step_ends_when_the_platform_says_that_its_cpu_time_is_used_up() {
    for (streams, expected) in [(1, 6..=9), (6, 4..=20)] {
        let (whole, cut) = (World::new(10), World::new(10));
        cut.streams.set(streams);
        let mut steps = 0;
        for world in [&whole, &cut] {
            world.bucket.set((0..300).map(|n| entry(&format!("k{n:03}"), 1)));
        }
        whole.job(&Budget::UNLIMITED);
        loop {
            // Once before the step, then before each page but the first, and three times for the four batches of a page.
            cut.clock.cpu_left.set(Some(20));
            steps += 1;
            match cut.step("job_1", &Budget::UNLIMITED).outcome.unwrap() {
                Outcome::Continue => {}
                Outcome::Done => break,
            }
        }
        cut.check();
        assert_eq!(whole.document().root.index, cut.document().root.index);
        assert!(expected.contains(&steps), "{steps} steps of about five pages, in {streams} streams");
        // A signal that nobody took back is not about this step.
        cut.clock.cpu_left.set(Some(0));
        assert_eq!(cut.step("job_2", &Budget::UNLIMITED).outcome.unwrap(), Outcome::Done);
    }
}

/// Runs a future as a runtime does: it is polled again when it was woken, and not before.
fn run_woken<T>(future: impl Future<Output = T>) -> T {
    struct Flag(AtomicBool);
    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let flag = Arc::new(Flag(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&flag));
    let mut future = pin!(future);
    while flag.0.swap(false, Ordering::SeqCst) {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
    }
    panic!("it waits, and nobody will wake it");
}

#[test]
fn a_step_of_several_streams_always_goes_on_or_ends() {
    // A page on its way counts as a thousand keys.
    for streams in [2, 6] {
        for keys_max in [1_000, 2_100, 3_000, 4_500, 7_000] {
            for latency in [1, 3] {
                let world = World::new(100);
                world.streams.set(streams);
                world.bucket.latency.set(latency);
                world.bucket.set((0..10_000u32).map(|n| entry(&format!("{:08x}", n.wrapping_mul(0x9e37_79b9)), 1)));
                for job in ["job_1", "job_2"] {
                    let budget = Budget { keys_max, ..Budget::UNLIMITED };
                    let mut order = world.order(job);
                    loop {
                        let report = run_woken(world.engine().step(&order, &budget));
                        order.bookmark = report.bookmark.or(order.bookmark);
                        if report.outcome.unwrap() == Outcome::Done {
                            break;
                        }
                    }
                }
                world.check();
            }
        }
    }
}

#[test]
fn a_first_run_reads_ranges_that_nobody_knew_of() {
    let names: [fn(u32) -> String; 4] = [
        |n| format!("camera-{}/2024/{:02}/{n:06}.jpg", n % 5, n % 12 + 1),
        |n| format!("{:08x}", n.wrapping_mul(0x9e37_79b9)),
        |n| format!("export/part-{n:07}"),
        |n| format!("{n}"),
    ];
    for (nth, name) in names.into_iter().enumerate() {
        for (streams, in_flight, more) in [(1, 1, 0), (2, 2, 70), (6, 5, 70), (12, 6, 70)] {
            let world = World::new(10);
            world.streams.set(streams);
            world.bucket.latency.set(3);
            world.bucket.set((0..3_000).map(|n| entry(&name(n), 1)));
            world.job(&Budget::UNLIMITED);
            world.check();
            let (calls, most) = (world.bucket.calls.get(), world.bucket.in_flight_most.get());
            assert!((in_flight..=streams).contains(&most), "names {nth}: {most} pages at once with {streams} streams");
            // A range ends amid a page, which the next begins anew.
            assert!((300..=300 + more).contains(&calls), "names {nth}: {calls} pages with {streams} streams");
        }
    }
}

#[test]
fn a_segment_that_hostile_names_never_cut_ends_all_the_same() {
    let mut world = World::new(100);
    world.cut = Cut::new([0; 16]).with_sizes(u64::MAX, 9);
    world.bucket.set(keys(0..100));
    world.job(&Budget::UNLIMITED);
    world.check();
    // 12 segments, and the one leaf that lists them.
    assert_eq!(world.stored().0.len(), 13);
}

#[test]
fn refused_changes_become_dead_letters_and_are_offered_again_when_asked_for() {
    struct Refusing;
    impl Sink for Refusing {
        fn batch_max(&self) -> usize {
            10
        }
        async fn deliver(&self, changes: &[Change]) -> Result<Vec<Delivery>, Error> {
            Ok(changes.iter().map(|_| Delivery::Refused("full".into())).collect())
        }
    }
    let world = World::new(10);
    world.bucket.set(keys(0..3));
    let engine = Engine {
        source: &world.bucket,
        blobs: &world.home,
        documents: &world.home,
        sink: &Refusing,
        clock: &Stopped::default(),
    };
    let order = Order::new("job_first", "sync_1", world.cut, &world.filter, "f");
    let report = block_on(engine.step(&order, &Budget::UNLIMITED));
    assert_eq!(report.outcome.unwrap(), Outcome::Done);
    assert_eq!((report.counts.created, report.counts.failed), (0, 3));
    let letters = || block_on(DeadLetters::load(&world.home)).unwrap().0;
    assert_eq!(letters().len(), 3);
    assert!(letters().iter().all(|letter| letter.reason == "full" && letter.attempts == DELIVERY_ATTEMPTS_MAX));
    // A newer version makes the letter of its key pointless.
    let mut entries = keys(0..3);
    entries[1] = entry("k00001", 2);
    world.bucket.set(entries);
    assert_eq!(world.job(&Budget::UNLIMITED).counts.updated, 1);
    assert_eq!(letters().len(), 2);
    // Those that were sent back are offered first.
    block_on(DeadLetters::change(&world.home, |letters| Ok(letters.requeue(&[], Stopped::default().now())))).unwrap();
    let engine = world.engine();
    let report = block_on(engine.step(&Order { job_id: "job_last", redeliver: true, ..order }, &Budget::UNLIMITED));
    assert_eq!((report.outcome.unwrap(), report.counts.created), (Outcome::Done, 2));
    assert!(letters().is_empty());
    world.check();
}

/// A history: what the bucket holds at each poll.
fn histories() -> impl Strategy<Value = Vec<BTreeMap<String, u64>>> {
    let key = prop_oneof!["[abc]{1,3}", "[ab]😀[ab]?", "[ab]\u{ff01}[ab]?"];
    proptest::collection::vec(proptest::collection::btree_map(key, 1u64..3, 0..40), 1..4)
}

/// With enough keys for several leaves.
fn big_histories() -> impl Strategy<Value = Vec<BTreeMap<String, u64>>> {
    let key = prop_oneof![4 => "[a-f]{1,4}", 1 => "[ab]😀[a-f]{1,3}", 1 => "[ab]\u{ff01}[a-f]{1,3}", 1 => "[😀\u{e000}ü][a-f]{0,2}"];
    proptest::collection::vec(proptest::collection::btree_map(key, 1u64..3, 0..160), 1..4)
}

fn states(history: &[BTreeMap<String, u64>]) -> impl Iterator<Item = Vec<Entry>> {
    history.iter().map(|state| state.iter().map(|(key, version)| entry(key, *version)).collect())
}

fn ids(world: &World) -> Vec<String> {
    world.home.inner.sink.deliveries().into_iter().map(|change| change.id).collect()
}

proptest! {
    #[test]
    fn the_order_of_keys_is_asked_of_the_bucket(
        keys in proptest::collection::btree_set("[a😀\u{e000}\u{fffd}\u{ffff}\u{10fffd}\u{10ffff}]{1,3}", 1..12),
        page_size in 1usize..4,
        utf16: bool,
    ) {
        let world = World::new(page_size).in_order(utf16);
        world.bucket.set(keys.iter().map(|key| entry(key, 1)));
        let order = world.bucket.order.get();
        for key in keys.iter().filter(|key| !crate::entry::has_one_place(key)) {
            world.bucket.calls.set(0);
            match block_on(key_order::find_key_order(&world.bucket, key)) {
                Ok(found) => prop_assert_eq!(found, order, "by {:?}", key),
                // Only where names go on with the last characters there are.
                Err(error) => {
                    let is_odd = keys.iter().any(|key| key.contains(['\u{ffff}', '\u{10ffff}']));
                    prop_assert!(error.is_transient() && is_odd, "by {:?}: {}", key, error);
                }
            }
            prop_assert!(world.bucket.calls.get() <= 5);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn keys_that_never_begin_a_segment_make_bounded_segments_and_leaves(
        entries_max in 1usize..6,
        page_size in 1usize..60,
        streams in 1usize..4,
        counts in proptest::collection::vec((0u32..400, 1u32..9), 1..4),
    ) {
        let mut world = World::new(page_size);
        world.cut = no_beginnings(entries_max);
        world.streams.set(streams);
        for (count, every) in counts {
            world.bucket.set((0..count).filter(|n| n % every == 0).map(|n| entry(&format!("k{n:05}"), 1)));
            world.job(if every % 2 == 0 { &ONE_PAGE } else { &Budget::UNLIMITED });
            world.check();
            let leaves = world.leaves();
            prop_assert!(leaves.iter().all(|leaf| leaf.len() <= LEAF_SEGMENTS_MAX), "{leaves:?}");
            let segments: Vec<u64> = leaves.iter().flatten().map(|segment| segment.entries).collect();
            prop_assert!(segments.iter().all(|entries| (1..=entries_max as u64).contains(entries)), "{segments:?}");
            // Nothing else cuts: as full as can be, as a listing of everything makes them.
            prop_assert_eq!(segments.len(), count.div_ceil(every).div_ceil(entries_max as u32) as usize);
            prop_assert_eq!(leaves.len(), segments.len().div_ceil(LEAF_SEGMENTS_MAX));
        }
    }

    #[test]
    fn a_step_for_every_page_equals_one_run(
        history in histories(),
        page_size in 1usize..12,
        utf16: bool,
        tiny: bool,
        memory: bool,
    ) {
        let (whole, stepped) = (World::new(page_size), World::new(page_size));
        let stepped = stepped.with_tiny_thresholds(tiny).in_order(utf16).with_memory(memory);
        let whole = whole.in_order(utf16);
        for state in states(&history) {
            whole.bucket.set(state.clone());
            stepped.bucket.set(state);
            let before = (whole.home.inner.sink.deliveries().len(), stepped.home.inner.sink.deliveries().len());
            whole.job(&Budget::UNLIMITED);
            stepped.job(&ONE_PAGE);
            whole.check();
            stepped.check();
            // The same changes under the same ids; a listing that is begun anew may repeat some.
            let set = |world: &World, from: usize| ids(world)[from..].iter().cloned().collect::<BTreeSet<_>>();
            prop_assert_eq!(set(&whole, before.0), set(&stepped, before.1));
            prop_assert_eq!(&whole.document().root.index, &stepped.document().root.index);
        }
    }

    #[test]
    fn a_bucket_that_changes_between_steps_is_followed(
        history in big_histories(),
        page_size in 1usize..12,
        keys_max in 1u64..80,
        streams in 1usize..4,
        utf16: bool,
        tiny: bool,
        forgetful: bool,
        memory: bool,
    ) {
        let budget = Budget { keys_max, ..Budget::UNLIMITED };
        let world = World::new(page_size).in_order(utf16).with_tiny_thresholds(tiny).with_memory(memory);
        world.streams.set(streams);
        if forgetful {
            world.bookmark.replace(None);
        }
        for state in states(&history) {
            let job_id = format!("job_amid_{}", world.jobs.get());
            world.step(&job_id, &budget).outcome.unwrap();
            world.bucket.set(state);
            while world.step(&job_id, &budget).outcome.unwrap() == Outcome::Continue {}
            world.job(&budget);
            world.check();
            let effects = world.home.effects.get();
            let before = world.document().root;
            let report = world.job(&budget);
            prop_assert_eq!(report.counts.delivered(), 0);
            prop_assert_eq!(world.document().root.index, before.index);
            if world.document().root.generation == before.generation {
                prop_assert_eq!(world.home.effects.get(), effects, "where no checkpoint was needed, nothing is written");
            }
        }
    }

    #[test]
    fn a_break_at_every_effect_loses_nothing_and_makes_no_second_id(
        history in histories(),
        page_size in 1usize..12,
        after: bool,
        stepped: bool,
        utf16: bool,
        tiny: bool,
        memory: bool,
    ) {
        let budget = if stepped { ONE_PAGE } else { Budget::UNLIMITED };
        let new_world = || World::new(page_size).in_order(utf16).with_tiny_thresholds(tiny).with_memory(memory);
        let whole = new_world();
        for state in states(&history) {
            whole.bucket.set(state);
            whole.job(&budget);
        }
        let expected: BTreeSet<_> = ids(&whole).into_iter().collect();
        for at in 1..=whole.home.effects.get() {
            let world = new_world();
            world.home.at.set(Some((at, after)));
            for state in states(&history) {
                world.bucket.set(state);
                world.job(&budget);
                world.check();
            }
            prop_assert_eq!(ids(&world).into_iter().collect::<BTreeSet<_>>(), expected.clone());
        }
    }

    #[test]
    fn a_full_sync_hands_every_file_over_once_more(
        first in proptest::collection::btree_map("[a-d]{1,3}", 1u64..3, 0..60),
        second in proptest::collection::btree_map("[a-d]{1,3}", 1u64..3, 0..60),
        page_size in 1usize..12,
        streams in 1usize..4,
        stepped: bool,
        cut in proptest::option::of((1u64..30, any::<bool>())),
    ) {
        let world = World::new(page_size);
        world.streams.set(streams);
        world.bucket.set(first.iter().map(|(key, version)| entry(key, *version)));
        world.job(&Budget::UNLIMITED);
        let root = world.document().root.index;
        world.resync.set(true);
        let budget = if stepped { &ONE_PAGE } else { &Budget::UNLIMITED };
        for (round, state) in [&first, &second, &second].into_iter().enumerate() {
            world.bucket.set(state.iter().map(|(key, version)| entry(key, *version)));
            let before = ids(&world);
            if round == 0 {
                world.home.at.set(cut.map(|(at, after)| (world.home.effects.get() + at, after)));
            }
            let counts = world.job(budget).counts;
            world.check();
            // Each delivered at least once under one id that is new, and none under two.
            let handed: BTreeSet<(String, String)> = world.home.inner.sink.deliveries().into_iter().skip(before.len())
                .filter(|change| change.kind != ChangeKind::Deleted)
                .map(|change| (change.entry.key, change.id)).collect();
            let keys: Vec<&String> = handed.iter().map(|(key, _)| key).collect();
            prop_assert_eq!(keys, state.keys().collect::<Vec<_>>());
            let is_new = |id: &String| !before.contains(id);
            prop_assert!(round == 1 || handed.iter().all(|(_, id)| is_new(id)));
            if cut.is_none() {
                prop_assert_eq!(counts.created + counts.updated, state.len() as u64);
            }
            if round == 0 {
                prop_assert_eq!(&world.document().root.index, &root, "the snapshot is as before");
            }
        }
    }

    #[test]
    fn gone_and_drifted_files_are_told_apart(
        history in proptest::collection::vec((proptest::collection::btree_map("[a-d😀]{1,3}", 1u64..3, 0..30), any::<bool>()), 1..5),
        page_size in 1usize..12,
        stepped: bool,
        on_delete: bool,
        on_filter_drift: bool,
        utf16: bool,
        cut in proptest::option::of((1u64..60, any::<bool>())),
    ) {
        let mut world = World::new(page_size);
        world.bucket.order.set(if utf16 { KeyOrder::Utf16 } else { KeyOrder::Utf8 });
        world.reconcile = Reconcile { on_delete, on_update: true, on_filter_drift };
        world.home.at.set(cut);
        let (mut tracked, mut objects) = (BTreeSet::<String>::new(), BTreeMap::<String, Entry>::new());
        for (state, narrow) in &history {
            world.bucket.set(state.iter().map(|(key, version)| entry(key, *version)));
            let spec = FilterSpec { exclude_patterns: narrow.then(|| "a*".to_owned()).into_iter().collect(), ..FilterSpec::default() };
            world.filter = Filter::compile(&spec, &SourcePath::parse("bucket-one").unwrap()).unwrap();
            world.job(if stepped { &ONE_PAGE } else { &Budget::UNLIMITED });
            let takes = |key: &str| !(*narrow && key.starts_with('a'));
            for key in mem::take(&mut tracked) {
                let removed = if state.contains_key(&key) { !takes(&key) && on_filter_drift } else { on_delete };
                if removed {
                    objects.remove(&key);
                }
            }
            for (key, version) in state.iter().filter(|(key, _)| takes(key)) {
                tracked.insert(key.clone());
                objects.insert(key.clone(), entry(key, *version));
            }
            prop_assert_eq!(&world.home.inner.sink.current(), &objects);
            let known: BTreeSet<String> = world.snapshot().into_iter().map(|known| known.key).collect();
            prop_assert_eq!(&known, &tracked, "the snapshot follows the bucket under the filters");
        }
    }

    #[test]
    fn any_number_of_streams_gives_the_same(
        history in big_histories(),
        page_size in 1usize..12,
        streams in 2usize..12,
        utf16: bool,
        tiny: bool,
        elsewhere: bool,
        sizes in prop_oneof![Just((4, 9)), Just((2, 2)), Just((8, 3)), Just((64, 64))],
        pages in prop_oneof![1u64..24, Just(u64::MAX)],
    ) {
        let (mut one, mut many) = (World::new(page_size), World::new(page_size));
        for world in [&mut one, &mut many] {
            world.cut = world.cut.with_sizes(sizes.0, sizes.1);
        }
        let budget = Budget { keys_max: pages.saturating_mul(page_size as u64), ..Budget::UNLIMITED };
        let many = many.with_tiny_thresholds(tiny);
        many.streams.set(streams);
        many.bucket.elsewhere.set(elsewhere);
        for world in [&one, &many] {
            world.bucket.order.set(if utf16 { KeyOrder::Utf16 } else { KeyOrder::Utf8 });
        }
        for state in states(&history) {
            one.bucket.set(state.clone());
            many.bucket.set(state);
            let before = (one.home.inner.sink.deliveries().len(), many.home.inner.sink.deliveries().len());
            let first = one.job(&Budget::UNLIMITED).counts;
            let second = many.job(&budget).counts;
            many.check();
            let set = |world: &World, from: usize| ids(world)[from..].iter().cloned().collect::<BTreeSet<_>>();
            prop_assert_eq!(set(&one, before.0), set(&many, before.1));
            prop_assert_eq!(&one.document().root.index, &many.document().root.index);
            prop_assert_eq!((first.matched, first.matched_bytes), (second.matched, second.matched_bytes));
        }
    }

    #[test]
    fn what_changes_back_after_a_cut_is_not_forgotten(
        history in histories(),
        page_size in 1usize..12,
        after: bool,
        stepped: bool,
        same_job: bool,
        utf16: bool,
        tiny: bool,
    ) {
        let new_world = || World::new(page_size).in_order(utf16).with_tiny_thresholds(tiny);
        // A job over each state is cut off at each effect; by the time it goes on, or the next one begins, the bucket is as
        // it was before.
        let budget = if stepped { ONE_PAGE } else { Budget::UNLIMITED };
        let states: Vec<_> = states(&history).collect();
        let whole = new_world();
        whole.bucket.set(states[0].clone());
        whole.job(&budget);
        let first = whole.home.effects.get();
        whole.bucket.set(states.last().unwrap().clone());
        whole.job(&budget);
        for at in first + 1..=whole.home.effects.get() {
            let world = new_world();
            world.bucket.set(states[0].clone());
            world.job(&budget);
            world.home.at.set(Some((at, after)));
            world.bucket.set(states.last().unwrap().clone());
            while world.step("job_cut", &budget).outcome.is_ok_and(|outcome| outcome == Outcome::Continue) {}
            world.bucket.set(states[0].clone());
            if same_job {
                while world.step("job_cut", &budget).outcome.unwrap() == Outcome::Continue {}
            } else {
                block_on(settle_checkpoint(&world.home, &world.home, world.cut)).unwrap();
            }
            world.job(&budget);
            world.check();
        }
    }

    #[test]
    fn jobs_that_break_off_again_and_again_forget_nothing(
        history in big_histories(),
        page_size in 1usize..12,
        cuts in proptest::collection::vec((1u64..60, any::<bool>()), 1..8),
        stepped: bool,
        utf16: bool,
        tiny: bool,
        streams in 1usize..4,
        most in prop_oneof![Just(None), (1u64..9).prop_map(Some)],
    ) {
        let budget = if stepped { ONE_PAGE } else { Budget::UNLIMITED };
        let world = World::new(page_size).in_order(utf16).with_tiny_thresholds(tiny);
        world.streams.set(streams);
        for state in states(&history) {
            world.bucket.set(state);
            for (nth, (effects, after)) in cuts.iter().enumerate() {
                world.objects_max.set(most);
                world.home.at.set(Some((world.home.effects.get() + effects, *after)));
                let job_id = format!("job_cut_{nth}_{}", world.jobs.get());
                while world.step(&job_id, &budget).outcome.is_ok_and(|outcome| outcome == Outcome::Continue) {}
                world.home.at.set(None);
                block_on(settle_checkpoint(&world.home, &world.home, world.cut)).unwrap();
            }
            world.objects_max.set(None);
            world.job(&budget);
            world.check();
            // And none of what is named is to be deleted.
            let named = world.stored().0;
            let deleted = world.to_be_deleted();
            prop_assert!(named.is_disjoint(&deleted), "{:?}", named.intersection(&deleted).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_job_delivers_no_more_than_it_may_and_the_next_goes_on(
        history in histories(),
        page_size in 1usize..12,
        most in 1u64..9,
        stepped: bool,
        utf16: bool,
        tiny: bool,
    ) {
        let world = World::new(page_size).in_order(utf16).with_tiny_thresholds(tiny);
        for state in states(&history) {
            world.bucket.set(state);
            for jobs in 0.. {
                prop_assert!(jobs < 60, "it never ends");
                world.objects_max.set(Some(most));
                let report = world.job(if stepped { &ONE_PAGE } else { &Budget::UNLIMITED });
                prop_assert!(report.counts.created + report.counts.updated <= most);
                if !report.limited {
                    break;
                }
                prop_assert_eq!(report.counts.created + report.counts.updated, most);
            }
            world.check();
        }
    }

    #[test]
    fn nothing_is_stored_that_nobody_names(history in histories(), page_size in 1usize..12) {
        let world = World::new(page_size);
        for state in states(&history) {
            world.bucket.set(state);
            world.job(&ONE_PAGE);
        }
        let mut named = world.to_be_deleted();
        named.extend(world.stored().0);
        prop_assert_eq!(world.home.inner.blobs.names().into_iter().collect::<BTreeSet<_>>(), named);
    }
}
