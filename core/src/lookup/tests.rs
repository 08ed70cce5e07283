//! What is stored of a key is what the feed says of it, after any jobs over any files.

use std::collections::BTreeMap;

use pollster::block_on;
use proptest::prelude::*;

use super::*;
use crate::{
    change::ChangeKind,
    engine::{Engine, JobSpec, Outcome, meter::Budget},
    entry::Entry,
    feed::read_changes,
    filter::{Filter, FilterSpec},
    snapshot::cut::Cut,
    source_path::SourcePath,
    store::{MemoryBlobs, MemoryDocuments},
    testing::{VirtualClock, bucket::MemoryBucket},
    time::Timestamp,
};

const SYNC_ID: &str = "sync_a";
const ALL: PageLimits = PageLimits { changes: usize::MAX, reads: u64::MAX };

/// A bucket whose jobs have run.
struct Synced {
    bucket: MemoryBucket,
    blobs: MemoryBlobs,
    documents: MemoryDocuments,
    jobs: u32,
}

impl Synced {
    fn new(order: KeyOrder) -> Self {
        let bucket = MemoryBucket::default();
        bucket.order.set(order);
        bucket.page_size.set(7);
        Self { bucket, blobs: MemoryBlobs::default(), documents: MemoryDocuments::default(), jobs: 0 }
    }

    /// Runs a job over a bucket that holds these keys, each with a size.
    fn job(&mut self, files: &BTreeMap<String, u64>, confirm_deletes: bool) {
        let last_modified = Timestamp::from_millis(0);
        let entry = |(key, size): (&String, &u64)| Entry {
            key: key.clone(),
            etag: format!("{size:032x}"),
            size: *size,
            last_modified,
        };
        self.bucket.set(files.iter().map(entry));
        self.jobs += 1;
        let job_id = format!("job_{}", self.jobs);
        let filter = Filter::compile(&FilterSpec::default(), &SourcePath::parse("b2://my-videos").unwrap()).unwrap();
        let clock = VirtualClock::at("2024-01-01T00:00:00Z");
        // Small segments, so that the index has several levels.
        let spec = JobSpec { confirm_deletes, ..JobSpec::new(&job_id, Cut::new([7; 16]).with_sizes(2, 4), &filter) };
        let (blobs, documents) = (&self.blobs, &self.documents);
        let engine = Engine { source: &self.bucket, blobs, documents, clock: &clock };
        let report = block_on(engine.step(&spec, &Budget::UNLIMITED));
        assert!(matches!(report.outcome, Ok(Outcome::Done)), "{:?}", report.outcome);
    }

    fn look_up(&self, key: &str, limits: PageLimits) -> KeyHistory {
        block_on(look_up(&self.blobs, &self.documents, SYNC_ID, key, limits)).unwrap()
    }

    fn feed(&self) -> Vec<Change> {
        block_on(read_changes(&self.blobs, &self.documents, SYNC_ID, None, usize::MAX)).unwrap().changes
    }
}

fn files() -> impl Strategy<Value = BTreeMap<String, u64>> {
    // Both orders of keys, where they differ.
    proptest::collection::btree_map("[ab\u{e000}\u{1f600}]{1,3}", 0_u64..3, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn each_key_is_found_as_the_feed_says(states in proptest::collection::vec(files(), 1..5), utf16: bool) {
        let mut synced = Synced::new(if utf16 { KeyOrder::Utf16 } else { KeyOrder::Utf8 });
        for files in &states {
            synced.job(files, true);
        }
        let feed = synced.feed();
        let now = states.last().unwrap();
        let mut keys: Vec<&String> = states.iter().flat_map(BTreeMap::keys).collect();
        let never = "c".to_owned();
        keys.push(&never);
        for key in keys {
            let found = synced.look_up(key, ALL);
            prop_assert_eq!(found.known.as_ref().map(|known| known.size), now.get(key).copied(), "{}", key);
            let changes: Vec<Change> = feed.iter().rev().filter(|it| it.entry.key == *key).cloned().collect();
            prop_assert_eq!(&found.changes, &changes);
            prop_assert_eq!((found.searched_from, found.first, found.last), (1, 1, feed.len() as u64));
            prop_assert!(!found.is_undeleted);
        }
    }
}

fn numbered(count: u32) -> BTreeMap<String, u64> {
    (0..count).map(|number| (format!("k{number:03}"), 1)).collect()
}

#[test]
fn a_deletion_that_is_held_back_is_told() {
    let mut synced = Synced::new(KeyOrder::Utf8);
    synced.job(&numbered(200), false);
    // More than half of them are gone.
    synced.job(&numbered(20), false);
    let held = synced.look_up("k150", ALL);
    assert!(held.is_undeleted && held.known.is_some(), "{held:?}");
    assert_eq!(held.changes.iter().map(|change| change.kind).collect::<Vec<_>>(), [ChangeKind::Created]);
    let kept = synced.look_up("k010", ALL);
    assert!(!kept.is_undeleted && kept.known.is_some(), "{kept:?}");
}

#[test]
fn the_search_ends_where_its_limits_say() {
    let mut synced = Synced::new(KeyOrder::Utf8);
    let mut files = numbered(3);
    for size in 2..40 {
        synced.job(&files, false);
        files.insert("k001".to_owned(), size);
    }
    let all = synced.look_up("k001", ALL);
    assert_eq!(all.changes.len(), 38);
    let newest = synced.look_up("k001", PageLimits { changes: 3, reads: u64::MAX });
    assert_eq!(newest.changes, all.changes.get(..3).unwrap());
    assert_eq!(newest.searched_from, all.changes[2].position);
    let cheap = synced.look_up("k000", PageLimits { changes: 3, reads: 5 });
    assert_eq!((cheap.changes.len(), cheap.searched_from > 1, cheap.first), (0, true, 1), "{cheap:?}");
    let nothing = Synced::new(KeyOrder::Utf8).look_up("a", ALL);
    assert_eq!(nothing, KeyHistory { searched_from: 1, first: 1, ..KeyHistory::default() });
}
