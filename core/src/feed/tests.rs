//! The feed without the engine: appended to, read, and dropped.

use std::{cell::RefCell, collections::BTreeSet};

use bytes::Bytes;
use pollster::block_on;
use proptest::prelude::*;

use super::{
    batch::{self, BATCH_CHANGES_MAX},
    outbox::{Append, Outbox},
    read::{FeedReader, PAGE_CHANGES_MAX, PageLimits},
    retention::drop_old,
    *,
};
use crate::{
    change::{Change, ChangeKind, Found, Previous, change_id},
    entry::Entry,
    error::{Error, ErrorKind},
    job::JobCounts,
    snapshot::{ContentHash, Known, names::BlobName},
    state::{
        State,
        feed::{BatchRef, LIST_BATCHES_MAX, decode_list},
    },
    store::{BlobStore, MemoryBlobs, MemoryDocuments},
    time::Timestamp,
};

const SYNC_ID: &str = "sync_1";

fn entry(key: &str, version: u64) -> Entry {
    let last_modified = Timestamp::from_millis(1_700_000_000_000 + version as i64);
    Entry { key: key.to_owned(), etag: format!("{version:032x}"), size: version, last_modified }
}

fn created(key: &str) -> Found {
    Found::Appeared { entry: entry(key, 1), previous: None }
}

/// A feed, and what it is kept in.
#[derive(Default)]
struct Log {
    blobs: MemoryBlobs,
    documents: MemoryDocuments,
}

impl Log {
    fn state(&self) -> State<'_, MemoryBlobs, MemoryDocuments> {
        State::new(&self.blobs, &self.documents)
    }

    fn feed(&self) -> Feed {
        block_on(self.state().load_document()).unwrap().0.feed
    }

    fn set_feed(&self, feed: Feed) {
        let (mut document, revision) = block_on(self.state().load_document()).unwrap();
        document.feed = feed;
        block_on(self.state().swap_document(revision, &document)).unwrap();
    }

    /// Appends by one swap, as a step does.
    fn append(&self, found: &[Found], at: i64, tail_max: usize) {
        let mut outbox = Outbox::default();
        found.iter().for_each(|found| outbox.push(found));
        let Append { batches, lists, feed } =
            outbox.take(&self.feed(), tail_max, Timestamp::from_millis(at), "job_1").unwrap();
        assert!(outbox.is_empty() && outbox.counts() == JobCounts::default());
        for batch in batches {
            block_on(self.state().write(&batch.batch.name(), batch.bytes)).unwrap();
        }
        for (name, bytes) in lists {
            block_on(self.state().write(&name, bytes)).unwrap();
        }
        self.set_feed(feed);
    }

    /// Appends `count` new files.
    fn append_files(&self, count: usize, at: i64, tail_max: usize) {
        let next = self.feed().next;
        let found: Vec<Found> = (next..next + count as u64).map(|n| created(&format!("k{n:06}"))).collect();
        self.append(&found, at, tail_max);
    }

    fn read(&self, after: u64, limit: usize) -> Result<Page, Error> {
        block_on(read_changes(&self.blobs, &self.documents, SYNC_ID, Some(after), limit))
    }

    /// All that is kept, page by page.
    fn read_all(&self, limit: usize) -> Vec<Change> {
        let (mut changes, mut after) = (Vec::new(), self.feed().first().unwrap() - 1);
        loop {
            let page = self.read(after, limit).unwrap();
            assert_eq!((page.first, page.last), (self.feed().first().unwrap(), self.feed().last()));
            assert!(page.changes.len() <= limit.max(1));
            let Some(last) = page.changes.last() else { break };
            // Each batch has a change at least.
            let is_full = page.changes.len() >= limit.clamp(1, 90) || last.position == page.last;
            assert!(is_full, "a page ends before its limits, and not at the end");
            after = last.position;
            changes.extend(page.changes);
        }
        assert_eq!(after, self.feed().last());
        changes
    }

    /// The batches that the feed names, and the blobs.
    fn named(&self) -> (Vec<BatchRef>, BTreeSet<String>) {
        let feed = self.feed();
        let (mut batches, mut names) = (Vec::new(), BTreeSet::new());
        for list in &feed.lists {
            batches.extend(decode_list(&block_on(self.state().read(&list.blob)).unwrap()).unwrap());
            names.insert(list.blob.clone());
        }
        batches.extend(feed.tail().unwrap());
        names.extend(batches.iter().map(BatchRef::name));
        (batches, names)
    }
}

#[test]
fn an_empty_feed_has_an_empty_page() {
    let log = Log::default();
    for limit in [0, 1, PAGE_CHANGES_MAX] {
        assert_eq!(log.read(0, limit).unwrap(), Page { changes: Vec::new(), first: 1, last: 0 });
    }
    let error = log.read(1, 10).unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidInput, Some("after")));
}

#[test]
fn a_page_says_how_far_the_feed_reaches() {
    let log = Log::default();
    log.append_files(3, 5, 9);
    log.append_files(2, 7, 9);
    let page = log.read(1, 2).unwrap();
    assert_eq!((page.first, page.last), (1, 5));
    assert_eq!(page.changes.iter().map(|change| change.position).collect::<Vec<_>>(), [2, 3]);
    // Where nothing is asked for, there is at least one.
    assert_eq!(log.read(3, 0).unwrap().changes.len(), 1);
    let page = log.read(4, 100).unwrap();
    assert_eq!((page.changes.len(), page.changes[0].found_at), (1, Timestamp::from_millis(7)));
    assert_eq!(log.read(5, 100).unwrap().changes, []);
    for after in [6, u64::MAX] {
        let error = log.read(after, 1).unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidInput, Some("after")));
        assert!(error.message().contains("newest change of this feed, 5"), "{error}");
    }
}

#[test]
fn what_is_no_longer_there_is_a_gap() {
    let log = Log::default();
    for at in 0..6 {
        log.append_files(10, at, 2);
    }
    let first = block_on(forget(&log.blobs, &log.documents, 25)).unwrap();
    assert_eq!(first, 21, "a batch of which something is needed stays");
    for after in [0, 7, 19] {
        let error = log.read(after, 100).unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::FeedGap, Some("after")));
        assert!(error.message().contains(&format!("changes {} to 20", after + 1)), "{error}");
        assert!(error.advice().contains("after=20"), "{error}");
        assert!(!error.is_transient());
    }
    let page = log.read(20, 3).unwrap();
    assert_eq!((page.first, page.last, page.changes[0].position), (21, 60, 21));
    // All of it goes; where it went on is still known.
    assert_eq!(block_on(forget(&log.blobs, &log.documents, u64::MAX)).unwrap(), 61);
    assert_eq!(log.read(60, 3).unwrap(), Page { changes: Vec::new(), first: 61, last: 60 });
    assert_eq!(log.read(59, 3).unwrap_err().kind(), ErrorKind::FeedGap);
    log.append_files(1, 9, 2);
    assert_eq!(log.read_all(5)[0].position, 61);
}

/// Another job or reader comes in between, before the first blob of the feed is read.
struct Interrupted<'a, F> {
    blobs: &'a MemoryBlobs,
    meanwhile: RefCell<Option<F>>,
    /// Whether it comes after the read that finds nothing, and not before the first.
    is_late: bool,
}

impl<F: FnOnce()> BlobStore for Interrupted<'_, F> {
    async fn get(&self, name: &str) -> Result<Option<Bytes>, Error> {
        if !self.is_late
            && let Some(meanwhile) = self.meanwhile.take()
        {
            meanwhile();
        }
        let found = self.blobs.get(name).await?;
        if found.is_none()
            && let Some(meanwhile) = self.meanwhile.take()
        {
            meanwhile();
        }
        Ok(found)
    }

    async fn put(&self, name: &str, value: Bytes) -> Result<(), Error> {
        self.blobs.put(name, value).await
    }

    async fn delete(&self, name: &str) -> Result<(), Error> {
        self.blobs.delete(name).await
    }
}

#[test]
fn a_batch_that_is_dropped_while_it_is_read_is_a_gap() {
    for (after, up_to, tail_max) in [(0, 10, 9), (5, 10, 9), (0, 20, 1), (0, 30, 2), (12, 20, 9)] {
        let log = Log::default();
        for at in 0..4 {
            log.append_files(10, at, tail_max);
        }
        let before = log.named().1;
        let drop = || {
            block_on(forget(&log.blobs, &log.documents, up_to)).unwrap();
            let named = log.named().1;
            before.difference(&named).for_each(|name| block_on(log.blobs.delete(name)).unwrap());
        };
        let blobs = Interrupted { blobs: &log.blobs, meanwhile: RefCell::new(Some(drop)), is_late: false };
        let error = block_on(read_changes(&blobs, &log.documents, SYNC_ID, Some(after), 100)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FeedGap, "after {after}: {error}");
        let first = log.feed().first().unwrap();
        assert!(error.advice().contains(&format!("after={}", first - 1)), "{error}");
        assert_eq!(log.read(first - 1, 100).unwrap().changes.len() as u64, 41 - first);
    }
}

#[test]
fn a_blob_that_is_not_visible_yet_is_no_gap() {
    let log = Log::default();
    log.append_files(10, 0, 9);
    log.append_files(10, 1, 9);
    let name = log.named().0[1].name();
    let bytes = block_on(log.blobs.get(&name)).unwrap().unwrap();
    block_on(log.blobs.delete(&name)).unwrap();
    let error = log.read(0, 100).unwrap_err();
    assert!(error.kind() == ErrorKind::StateMissing && error.is_transient(), "{error}");
    assert_eq!(log.read(0, 10).unwrap().changes.len(), 10, "what is asked for is there");
    // Nor where the document moves on meanwhile, and still names it.
    let more = || log.append_files(1, 2, 9);
    let blobs = Interrupted { blobs: &log.blobs, meanwhile: RefCell::new(Some(more)), is_late: false };
    let error = block_on(read_changes(&blobs, &log.documents, SYNC_ID, Some(0), 100)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StateMissing);
    // Read again because the document has moved on, it is there by then, and what is new as well.
    let more = || {
        log.append_files(1, 2, 9);
        block_on(log.blobs.put(&name, bytes.clone())).unwrap();
    };
    let blobs = Interrupted { blobs: &log.blobs, meanwhile: RefCell::new(Some(more)), is_late: true };
    let page = block_on(read_changes(&blobs, &log.documents, SYNC_ID, Some(0), 100)).unwrap();
    assert_eq!((page.changes.len(), page.last), (22, 22));
}

#[test]
fn a_batch_that_is_another_one_is_corrupt() {
    let log = Log::default();
    log.append_files(3, 0, 9);
    log.append_files(3, 0, 9);
    let mut feed = log.feed();
    let tail = feed.tail().unwrap();
    for wrong in [
        vec![tail[0], BatchRef { count: 4, ..tail[1] }],
        vec![tail[0], BatchRef { hash: tail[0].hash, ..tail[1] }],
        vec![BatchRef { first: 2, ..tail[0] }, BatchRef { first: 5, ..tail[1] }],
        vec![tail[1]],
    ] {
        feed.set_tail(&wrong);
        feed.next = wrong.last().unwrap().next();
        log.set_feed(feed.clone());
        let after = feed.first().unwrap() - 1;
        let read = log.read(after, 100).map(|page| page.changes.len());
        let is_right = wrong == vec![tail[1]];
        assert_eq!(read.map_err(|error| error.kind()), if is_right { Ok(3) } else { Err(ErrorKind::StateCorrupt) });
    }
    // A feed that says that there is more than it names.
    feed.next += 1;
    log.set_feed(feed);
    assert_eq!(log.read(3, 100).unwrap_err().kind(), ErrorKind::StateCorrupt);
}

#[test]
fn what_was_just_stored_need_not_be_read() {
    let log = Log::default();
    let mut outbox = Outbox::default();
    (0..5_000).for_each(|n| outbox.push(&created(&format!("k{n:05}"))));
    let Append { batches, feed, .. } = outbox.take(&Feed::default(), 9, Timestamp::default(), "job_1").unwrap();
    let state = log.state();
    let reader = FeedReader { state: &state, feed: &feed, fresh: &batches, sync_id: SYNC_ID };
    let page = block_on(reader.read(Some(0), limits(10_000, 100))).unwrap();
    assert_eq!((page.changes.len(), state.reads()), (5_000, 0));
    let reader = FeedReader { fresh: &batches[..1], ..reader };
    assert_eq!(block_on(reader.read(Some(0), limits(4_096, 100))).unwrap().changes.len(), 4_096);
    assert_eq!(block_on(reader.read(Some(0), limits(4_097, 100))).unwrap_err().kind(), ErrorKind::StateMissing);
}

#[test]
fn a_feed_of_many_batches_stands_in_few_lists_and_is_read_from_anywhere() {
    let log = Log::default();
    for at in 0..3_000 {
        log.append_files(2, at, 256);
    }
    let feed = log.feed();
    assert_eq!((feed.next, feed.first().unwrap()), (6_001, 1));
    // Each list is of half of what stands in the document at most, and one more.
    assert!((3_000 / 129 - 1..=3_000 / 129).contains(&feed.lists.len()), "{} lists", feed.lists.len());
    assert!(feed.tail().unwrap().len() <= 256);
    let bytes = serde_json::to_vec(&feed).unwrap().len();
    assert!(bytes < 20 << 10, "{bytes} bytes");
    for after in [0, 1, 2, 257, 258, 3_001, 5_744, 5_998, 5_999] {
        let state = log.state();
        let reader = FeedReader { state: &state, feed: &feed, fresh: &[], sync_id: SYNC_ID };
        let page = block_on(reader.read(Some(after), limits(2, 100))).unwrap();
        assert_eq!(page.changes[0].position, after + 1);
        // At most two batches, each perhaps of another list.
        assert!(state.reads() <= 4, "{} reads", state.reads());
    }
    let all = log.read_all(PAGE_CHANGES_MAX);
    assert_eq!(all.len(), 6_000);
    assert!((1..).zip(&all).all(|(position, change)| change.position == position));
}

fn limits(changes: usize, reads: u64) -> PageLimits {
    PageLimits { changes, reads }
}

#[test]
fn a_page_makes_no_more_reads_than_it_may_and_misses_nothing() {
    let log = Log::default();
    for n in 0..60 {
        log.append_files(if n % 7 == 0 { 5 } else { 1 }, n, 8);
    }
    let feed = log.feed();
    assert!(!feed.lists.is_empty());
    for (changes, reads) in [(1_000, 3), (1_000, 1), (2, 3), (7, 100), (1_000, 1_000), (0, 0)] {
        let (mut after, mut seen) = (0, Vec::new());
        while after < feed.last() {
            let state = log.state();
            let reader = FeedReader { state: &state, feed: &feed, fresh: &[], sync_id: SYNC_ID };
            let page = block_on(reader.read(Some(after), limits(changes, reads))).unwrap();
            assert!((1..=changes.max(1)).contains(&page.changes.len()));
            // A list and a batch are read whatever the limit, and the last batch of a list is followed by a list.
            assert!(state.reads() <= reads.max(2) + 1, "{changes} {reads}: {} reads", state.reads());
            seen.extend(page.changes.iter().map(|change| change.position));
            after = *seen.last().unwrap();
        }
        assert_eq!(seen, (1..=feed.last()).collect::<Vec<_>>());
    }
}

#[test]
fn no_list_is_longer_than_lists_may_be() {
    let batch = |n: u64| BatchRef {
        hash: ContentHash::of(&n.to_le_bytes()),
        first: n,
        count: 1,
        found_at: Timestamp::default(),
    };
    let mut feed = Feed { next: 2_501, ..Feed::default() };
    feed.set_tail(&(1..=2_500).map(batch).collect::<Vec<_>>());
    let mut outbox = Outbox::default();
    outbox.push(&created("a"));
    let Append { lists, feed, .. } = outbox.take(&feed, 256, Timestamp::default(), "job_1").unwrap();
    assert_eq!(lists.len(), 3);
    for (list, (name, bytes)) in feed.lists.iter().zip(&lists) {
        let batches = decode_list(bytes).unwrap();
        assert_eq!((&list.blob, list.first), (name, batches[0].first));
        assert!(batches.len() <= LIST_BATCHES_MAX && list.next == batches.last().unwrap().next());
    }
    assert_eq!(feed.tail().unwrap().len(), 128);
}

#[test]
fn many_changes_are_several_batches_at_consecutive_positions() {
    let log = Log::default();
    log.append_files(3, 0, 9);
    log.append_files(10_000, 1, 9);
    let counts: Vec<u64> = log.named().0.iter().map(|batch| batch.count).collect();
    let max = BATCH_CHANGES_MAX as u64;
    assert_eq!(counts, [3, max, max, 10_000 - 2 * max]);
    let all = log.read_all(777);
    assert!((1..=10_003).eq(all.iter().map(|change| change.position)));
    assert_eq!(all.iter().map(|change| &change.id).collect::<BTreeSet<_>>().len(), 10_003);
    assert_eq!(all[4_100].id, change_id(SYNC_ID, 4_101));
}

#[test]
fn what_waits_is_counted() {
    let mut outbox = Outbox::default();
    let known = Known::from(&entry("c", 9));
    outbox.push(&created("a"));
    outbox.push(&Found::Appeared { entry: entry("b", 5), previous: Some(Previous::from(&known)) });
    outbox.push(&Found::Again(entry("b", 7)));
    outbox.push(&Found::Vanished(known));
    let expected = JobCounts { created: 1, updated: 2, deleted: 1, delivered_bytes: 13, ..JobCounts::default() };
    assert_eq!((outbox.len(), outbox.is_empty(), outbox.counts()), (4, false, expected));
}

/// The size of `found`, as batches hold it.
fn encoded(found: &[Found]) -> usize {
    let mut outbox = Outbox::default();
    found.iter().for_each(|found| outbox.push(found));
    let append =
        outbox.take(&Feed::default(), 256, Timestamp::from_millis(1_800_000_000_000), "job_abcdefghijklmnopqrst");
    append.unwrap().batches.iter().map(|batch| batch.bytes.len()).sum()
}

#[test]
fn a_change_of_a_file_with_a_usual_name_takes_at_most_sixty_bytes() {
    let names: [fn(u64) -> String; 4] = [
        |n| format!("camera-{}/2024/{:02}/{:02}/{:06}.jpg", n / 2_000, n / 200 % 10 + 1, n / 20 % 10 + 1, n % 2_000),
        |n| format!("{:016x}{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n.wrapping_mul(0xbf58_476d_1ce4_e5b9)),
        |n| format!("export/part-{n:07}.parquet"),
        |n| format!("users/{:08x}/avatar.png", n.wrapping_mul(0x9e37_79b9) as u32),
    ];
    for (nth, name) in names.into_iter().enumerate() {
        let mut keys: Vec<String> = (0..10_000).map(name).collect();
        keys.sort();
        let version = |key: &String, n: u64| Entry {
            key: key.clone(),
            etag: format!("{:032x}", u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 61 | u128::from(n)),
            size: n.wrapping_mul(7_919) % 100_000_000,
            last_modified: Timestamp::from_millis(1_700_000_000_000 + (n * 86_413_777 % 31_536_000_000) as i64),
        };
        let previous = |key: &String, n| Previous::from(&Known::from(&version(key, n + 1)));
        let all = |found: &dyn Fn(&String, u64) -> Found| -> Vec<Found> {
            keys.iter().zip(0..).map(|(key, n)| found(key, n)).collect()
        };
        let kinds = [
            all(&|key, n| Found::Appeared { entry: version(key, n), previous: None }),
            all(&|key, n| Found::Appeared { entry: version(key, n), previous: Some(previous(key, n)) }),
            all(&|key, n| Found::Again(version(key, n))),
            all(&|key, n| Found::Vanished(Known::from(&version(key, n)))),
        ];
        let sizes = kinds.map(|found| encoded(&found) as f64 / 10_000.0);
        // Measured: 32, 48, 32 and 24; of names that are 32 digits without a pattern 56, 72, 56 and 48.
        let most = [60.0, if nth == 1 { 76.0 } else { 60.0 }, 60.0, 60.0];
        assert!(sizes.iter().zip(most).all(|(size, most)| *size <= most), "names {nth}: {sizes:.1?} bytes a change");
    }
}

#[test]
fn a_batch_is_stored_and_must_stay_readable() {
    let mut outbox = Outbox::default();
    let before = Known::from(&entry("a/c", 8));
    outbox.push(&Found::Appeared { entry: entry("a/b", 1), previous: None });
    outbox.push(&Found::Appeared {
        entry: Entry { etag: "x-2".into(), ..entry("a/c", 9) },
        previous: Some((&before).into()),
    });
    outbox.push(&Found::Again(entry("a/d", 3)));
    outbox.push(&Found::Vanished(Known::from(&entry("b", 4))));
    let feed = Feed { next: 7, ..Feed::default() };
    let bytes = outbox.take(&feed, 9, Timestamp::from_millis(12), "job_1").unwrap().batches.remove(0).bytes;
    let expected = [
        // The header, the first position, four changes, at 12 ms, `job_1`.
        "62324601 07 04 18 056a6f625f31",
        // Created, with an MD5: `a/b`, its size and date.
        "11 0003612f62 01 82a0abfef962 00000000000000000000000000000001",
        // Updated, with another ETag: the key shares two bytes; behind it what was known before.
        "02 020163 09 10 03782d32 0000000000000000 08 01",
        // Handed over again, with an MD5.
        "14 020164 03 0b 00000000000000000000000000000003",
        // Deleted: its size and date, and the tag.
        "03 000162 04 02 0000000000000000",
    ];
    assert_eq!(hex::encode(&bytes), expected.concat().replace(' ', ""));
    let kinds: Vec<_> = batch::decode(&bytes, SYNC_ID).unwrap().into_iter().map(|it| (it.position, it.kind)).collect();
    use ChangeKind::{Created, Deleted, Updated};
    assert_eq!(kinds, [(7, Created), (8, Updated), (9, Updated), (10, Deleted)]);
}

/// Portions of changes, each at a time.
fn portions() -> impl Strategy<Value = Vec<(usize, i64)>> {
    proptest::collection::vec((1usize..12, 0i64..100), 1..30)
}

proptest! {
    #[test]
    fn paging_by_any_limit_gives_the_same(portions in portions(), tail_max in 0usize..7, limit in 0usize..40) {
        let log = Log::default();
        for (count, at) in &portions {
            log.append_files(*count, *at, tail_max);
            prop_assert!(log.feed().tail().unwrap().len() <= tail_max);
        }
        let all = log.read_all(limit);
        let times = portions.iter().flat_map(|(count, at)| vec![Timestamp::from_millis(*at); *count]);
        let expected: Vec<Change> = (1..)
            .zip(times)
            .map(|(position, at)| {
                let found = created(&format!("k{position:06}"));
                found.at(position, change_id(SYNC_ID, position), at, "job_1")
            })
            .collect();
        prop_assert_eq!(&all, &expected);
        // From anywhere.
        for after in 0..=log.feed().last() {
            let page = log.read(after, limit).unwrap();
            let rest = &expected[after as usize..];
            prop_assert_eq!(&page.changes, &rest[..limit.max(1).min(rest.len())]);
        }
    }

    #[test]
    fn no_batch_is_dropped_that_is_younger_or_still_needed(
        portions in portions(),
        tail_max in 0usize..7,
        rounds in proptest::collection::vec((proptest::option::of(0i64..110), 0u64..200), 1..6),
    ) {
        let log = Log::default();
        for (count, at) in &portions {
            log.append_files(*count, *at, tail_max);
        }
        for (before, up_to) in rounds {
            let retention = Retention { before: before.map(Timestamp::from_millis), up_to };
            let (batches, names) = log.named();
            let mut feed = log.feed();
            let dropped = block_on(drop_old(&log.state(), &mut feed, retention)).unwrap();
            let next = feed.next;
            log.set_feed(feed);
            let (kept, names_kept) = log.named();
            // From the front, and the feed goes on as before.
            prop_assert_eq!(&batches[batches.len() - kept.len()..], &kept);
            prop_assert_eq!(next, log.feed().next);
            let gone: BTreeSet<String> = dropped.iter().map(BlobName::to_string).collect();
            prop_assert_eq!(&gone, &names.difference(&names_kept).cloned().collect::<BTreeSet<_>>());
            prop_assert_eq!(gone.len(), dropped.len());
            let may_go = |batch: &BatchRef| {
                batch.next() - 1 <= up_to && retention.before.is_none_or(|before| batch.found_at < before)
            };
            prop_assert!(batches[..batches.len() - kept.len()].iter().all(may_go));
            // As far as it may: of those in the document each, of those in lists whole lists, some at a time.
            let may_more = match log.feed().lists.first() {
                None => kept.first().is_some_and(may_go),
                Some(list) => {
                    let few = kept.iter().take_while(|batch| batch.first < list.next).all(may_go);
                    few && (batches.len() == kept.len())
                }
            };
            prop_assert!(!may_more, "{retention:?} keeps {kept:?}");
            prop_assert_eq!(log.read_all(9).len() as u64, next - log.feed().first().unwrap());
        }
    }

    #[test]
    fn forgetting_drops_what_was_read_and_nothing_else(
        portions in portions(),
        tail_max in 0usize..7,
        up_to in 0u64..200,
    ) {
        let log = Log::default();
        for (count, at) in &portions {
            log.append_files(*count, *at, tail_max);
        }
        let all = log.read_all(50);
        // However long the lists are, it comes to an end.
        for _ in 0..=portions.len() {
            let first = block_on(forget(&log.blobs, &log.documents, up_to)).unwrap();
            prop_assert_eq!(first, log.feed().first().unwrap());
            prop_assert!(first <= up_to + 1);
        }
        let kept = log.read_all(50);
        prop_assert_eq!(&all[all.len() - kept.len()..], &kept);
        if tail_max >= portions.len() {
            // Only whole batches are dropped, and all of them that were read.
            let first = kept.first().map_or(log.feed().next, |change| change.position);
            prop_assert!(first <= up_to + 1);
            prop_assert!(log.named().0.first().is_none_or(|batch| batch.next() > up_to + 1));
        }
    }
}
