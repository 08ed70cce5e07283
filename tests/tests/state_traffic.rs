//! How much state a poll reads and writes, with a bucket of a million files: its listing is generated, never stored.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use b2sync_core::engine::listing::source::{Page, PageStart, Source};
use b2sync_core::engine::meter::{Budget, STREAMS_HERE_MAX};
use b2sync_core::engine::{Engine, JobSpec, Outcome, StepReport};
use b2sync_core::entry::EntryRef;
use b2sync_core::error::Error;
use b2sync_core::filter::{Filter, FilterSpec};
use b2sync_core::sink::{Delivery, Sink};
use b2sync_core::snapshot::cut::{Begins, Cut};
use b2sync_core::source_path::SourcePath;
use b2sync_core::store::{MemoryBlobs, MemoryDocuments};
use b2sync_core::time::{Clock, Timestamp};
use b2sync_core::{change::Change, cost::SourceCost};
use b2sync_service::coordinator::STREAM_FILES;
use b2sync_service::sinks::pump::{Pump, PumpBudget, Pumped};

const FILES: u32 = 1_000_000;
const PAGE: u32 = 1_000;
/// Of this many files, the first is not there to begin with.
const GONE_EVERY: u32 = 500;

/// A bucket whose file numbered n is `camera-<n / 10,000>/<n>.jpg`.
struct Generated {
    files: u32,
    changed: RefCell<BTreeSet<u32>>,
    gone: RefCell<BTreeSet<u32>>,
    calls: Cell<u64>,
}

impl Generated {
    fn new(files: u32) -> Self {
        Self { files, changed: RefCell::default(), gone: RefCell::default(), calls: Cell::new(0) }
    }
}

fn key(n: u32) -> String {
    format!("camera-{:03}/{n:09}.jpg", n / 10_000)
}

impl Source for Generated {
    async fn page(&self, start: PageStart<'_>) -> Result<Page, Error> {
        self.calls.set(self.calls.get() + 1);
        let files = self.files;
        let from = match start {
            PageStart::First => 0,
            PageStart::Token(token) => token.parse().unwrap_or(files),
            PageStart::After(after) => {
                // The first number whose key is behind it.
                let (mut low, mut high) = (0, files);
                while low < high {
                    let middle = u32::midpoint(low, high);
                    if key(middle).as_str() <= after { low = middle + 1 } else { high = middle }
                }
                low
            }
        };
        let to = files.min(from + PAGE);
        let mut page = Page { truncated: to < files, next_token: Some(to.to_string()), ..Page::default() };
        let (changed, gone) = (self.changed.borrow(), self.gone.borrow());
        for n in (from..to).filter(|n| !gone.contains(n)) {
            let version = u64::from(changed.contains(&n));
            let (key, etag) = (key(n), format!("{version:016x}{n:016x}"));
            let last_modified = Timestamp::from_millis(1_700_000_000_000 + i64::from(n) * 1_000);
            page.entries.extend([EntryRef { key: &key, etag: &etag, size: u64::from(n) * 977, last_modified }]);
        }
        Ok(page)
    }

    fn cost(&self) -> SourceCost {
        SourceCost { class_c: self.calls.get(), requests: self.calls.get(), ..SourceCost::default() }
    }
}

/// Counts what it is handed.
#[derive(Default)]
struct Counting(Cell<u64>);

impl Sink for Counting {
    fn batch_max(&self) -> usize {
        2_000
    }

    async fn deliver(&self, changes: &[Change]) -> Result<Vec<Delivery>, Error> {
        self.0.set(self.0.get() + changes.len() as u64);
        Ok(vec![Delivery::Delivered; changes.len()])
    }
}

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }

    async fn sleep(&self, _: u64) {
        // No delivery takes so long that it is given up.
        std::future::pending().await
    }
}

/// Changes `k` files far from each other, other ones in each round: updates them, or, where they are `mixed`, also
/// deletes some and creates some of those that are not there. Answers how many were created, updated and deleted. None
/// of them begins a segment: without such a file, two segments become one, and with it one becomes two.
fn scatter(bucket: &Generated, cut: &Cut, k: u32, round: u32, mixed: bool) -> (u64, u64, u64) {
    let (mut changed, mut gone) = (bucket.changed.borrow_mut(), bucket.gone.borrow_mut());
    let mut counts = (0, 0, 0);
    for nth in 0..k {
        let width = FILES / k;
        let (first, skipped) = (nth * width, 101 * round % width);
        let mut part = (first + skipped..first + width).chain(first..first + skipped);
        let kind = if mixed { (nth + round) % 3 } else { 0 };
        let fits = |n: &u32, is_gone: bool| gone.contains(n) == is_gone && cut.begins(&key(*n)) == Begins::Nothing;
        let to_create = part.clone().find(|n| kind == 2 && fits(n, true));
        // Where none is left to be created, one more is updated.
        let kind = if kind == 2 && to_create.is_none() { 0 } else { kind };
        let Some(n) = to_create.or_else(|| part.find(|n| fits(n, false))) else { continue };
        match kind {
            1 => {
                gone.insert(n);
                counts.2 += 1;
            }
            2 => {
                gone.remove(&n);
                counts.0 += 1;
            }
            _ => {
                if !changed.remove(&n) {
                    changed.insert(n);
                }
                counts.1 += 1;
            }
        }
    }
    counts
}

#[test]
fn a_poll_of_a_million_files_costs_next_to_no_state() -> Result<(), Box<dyn std::error::Error>> {
    check(Cut::new([9; 16]), &[1, 7, 40], false)
}

/// As many leaves as 64 million files have, so that nearly every changed file has a leaf and a segment of its own: more
/// leaves than a checkpoint holds itself.
#[test]
fn a_poll_of_many_leaves_and_every_kind_of_change_costs_no_more() -> Result<(), Box<dyn std::error::Error>> {
    check(Cut::new([9; 16]).with_sizes(64, 4_096), &[2, 3, 40, 300, 1_000], true)
}

fn check(cut: Cut, ks: &[u32], mixed: bool) -> Result<(), Box<dyn std::error::Error>> {
    let (bucket, blobs, documents) = (Generated::new(FILES), MemoryBlobs::default(), MemoryDocuments::default());
    let sink = Counting::default();
    bucket.gone.replace((0..FILES).step_by(GONE_EVERY as usize).collect());
    let files = u64::from(FILES - FILES / GONE_EVERY);
    let engine = Engine { source: &bucket, blobs: &blobs, documents: &documents, clock: &Stopped };
    let filter = Filter::compile(&FilterSpec::default(), &SourcePath::parse("b2://cameras")?)?;
    let job = |job_id: &str, streams: usize| -> StepReport {
        let spec = JobSpec { streams, ..JobSpec::new(job_id, cut, &filter) };
        let report = pollster::block_on(engine.step(&spec, &Budget::UNLIMITED));
        assert!(matches!(report.outcome, Ok(Outcome::Done)), "{:?}", report.outcome);
        report
    };
    // A sink that is fed behind the step, as a coordinator does it.
    let feed = |report: &StepReport| -> Result<Pumped, Error> {
        let Some(feed) = &report.feed else { return Ok(Pumped::default()) };
        let (clock, fresh) = (&Stopped, report.appended.as_slice());
        let pump = Pump { blobs: &blobs, documents: &documents, clock, sync_id: "sync_1", feed, fresh };
        let budget = PumpBudget { calls_max: u64::MAX, until: Timestamp::from_millis(1) };
        pollster::block_on(pump.run("counting", &sink, budget))
    };
    let first = job("job_1", 1);
    feed(&first)?;
    assert_eq!((first.counts.created, sink.0.get()), (files, files));

    for streams in [1, 6] {
        let calls = bucket.calls.get();
        let quiet = job(&format!("job_quiet_{streams}"), streams);
        assert!(quiet.cost.state_reads <= 2, "{quiet:?}");
        assert_eq!((quiet.cost.state_writes, quiet.counts.changes()), (0, 0), "{quiet:?}");
        // Each range ends amid a page, which the next begins again; and one more tells that the last one is the last.
        assert!(
            bucket.calls.get() - calls <= u64::from(FILES / PAGE) * 11 / 10,
            "{} calls",
            bucket.calls.get() - calls
        );

        for (nth, asked) in ks.iter().enumerate() {
            let expected = scatter(&bucket, &cut, *asked, streams as u32 * 10 + nth as u32, mixed);
            let report = job(&format!("job_{streams}_{asked}"), streams);
            let counts = (report.counts.created, report.counts.updated, report.counts.deleted);
            let k = expected.0 + expected.1 + expected.2;
            assert_eq!(k, u64::from(*asked));
            assert_eq!((counts, report.counts.changes()), (expected, k));
            let before = sink.0.get();
            let pumped = feed(&report)?;
            assert_eq!(sink.0.get() - before, k, "the sink gets them all");
            let reads = report.cost.state_reads + pumped.reads;
            let writes = report.cost.state_writes + pumped.writes;
            assert!(reads <= 2 * k + 3, "{k} changed, {streams} streams: {reads} reads, {:?}", report.cost);
            assert!(writes <= 2 * k + 4, "{k} changed, {streams} streams: {writes} writes, {:?}", report.cost);
        }
    }
    Ok(())
}

/// The calls of a poll that finds nothing, in as many ranges as a coordinator reads side by side.
fn calls_of_a_quiet_poll(files: u32) -> Result<u64, Box<dyn std::error::Error>> {
    let (bucket, blobs, documents) = (Generated::new(files), MemoryBlobs::default(), MemoryDocuments::default());
    let engine = Engine { source: &bucket, blobs: &blobs, documents: &documents, clock: &Stopped };
    let filter = Filter::compile(&FilterSpec::default(), &SourcePath::parse("b2://cameras")?)?;
    let streams = usize::try_from(u64::from(files) / STREAM_FILES)?.clamp(1, STREAMS_HERE_MAX);
    for (job_id, changes) in [("job_1", files), ("job_2", 0)] {
        bucket.calls.set(0);
        let spec = JobSpec { streams, ..JobSpec::new(job_id, Cut::new([9; 16]), &filter) };
        let report = pollster::block_on(engine.step(&spec, &Budget::UNLIMITED));
        assert!(matches!(report.outcome, Ok(Outcome::Done)), "{:?}", report.outcome);
        assert_eq!(report.counts.changes(), u64::from(changes));
    }
    Ok(bucket.calls.get())
}

/// What docs/reference/costs.md says of it.
#[test]
fn ranges_cost_a_poll_as_many_calls_as_the_documentation_says() -> Result<(), Box<dyn std::error::Error>> {
    let page = include_str!("../../docs/reference/costs.md").split_whitespace().collect::<Vec<_>>().join(" ");
    let (few, many) = (calls_of_a_quiet_poll(200_000)?, calls_of_a_quiet_poll(1_000_000)?);
    assert!((1_000..2_000).contains(&many), "{many} calls for a million files");
    let said = format!("measured: {few} calls for 200,000 files, 1,{:03} for a million", many - 1_000);
    assert!(page.contains(&said), "costs.md does not say {said:?}");
    for (calls, pages) in [(few, 200), (many, 1_000)] {
        assert!((calls - pages) * 100 <= pages * 4, "{calls} calls for {pages} pages are more than 4 % beyond");
    }
    assert!(page.contains("add up to 4 %"));
    Ok(())
}
