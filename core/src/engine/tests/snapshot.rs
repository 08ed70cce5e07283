//! What is stored: how large its pieces are, and what is deleted of it.

use super::*;
use crate::{
    snapshot::{
        ContentHash,
        codec::{KEY_BYTES_MAX, KEYS_BYTES_MAX},
        cut::{SEGMENT_BYTES_MAX, SEGMENT_ENTRIES_MAX},
        index::Level,
        names::BlobName,
        packed::unpack,
        segment::decode,
    },
    state::{
        document::{self, NameList, Root},
        embedded,
        feed::{BatchRef, Feed, ListRef},
        names::NAMES_MAX,
    },
    store::BlobStore,
};

/// Where no key ever begins a segment, as if the user who names files knew the salt.
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
        let blobs = segments.map(|it| block_on(world.home.blobs.get(&segment_name(it.hash))).unwrap().unwrap());
        let plain = blobs.map(|blob| unpack(&blob).unwrap().unwrap_or(blob.to_vec()));
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
fn however_many_blobs_each_job_replaces_what_is_to_be_deleted_does_not_pile_up() {
    let world = World::new(1_000);
    let mut sizes = Vec::new();
    for round in 0..12 {
        // Some 600 segments in 150 leaves, of which each job replaces most.
        world.bucket.set((0..2_400).map(|n| entry(&format!("k{n:05}"), if n % 4 == 0 { round } else { 1 })));
        world.job(&Budget { internal_requests_max: 500, ..Budget::UNLIMITED });
        sizes.push((world.document().encode().unwrap().len(), world.home.blobs.names().len()));
    }
    world.check();
    // What two jobs replaced, and the snapshot: from the fourth round on it is about the same.
    let (first, last) = (sizes[4], sizes[11]);
    assert!(last.0 < first.0 * 5 / 4 && last.0 < 64 << 10, "{sizes:?}");
    assert!(last.1 < first.1 * 5 / 4, "{sizes:?}");
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
    // A segment, its leaf and the top are retired by each job from the second on, and go with the second move behind
    // it.
    assert_eq!(deleted, [0, 0, 0, 3, 3]);
}

#[test]
fn a_document_in_which_everything_is_full_is_below_two_megabytes() {
    let Thresholds { tail_items_max, list_bytes_max, tail_bytes_max, .. } = Thresholds::USUAL;
    let key = |n: usize, bytes: usize| format!("{n:0bytes$}");
    // As long as B2's names may be.
    let known: Vec<Known> = (0..list_bytes_max / 1_024).map(|n| Known::from(&entry(&key(n, 1_024), 7))).collect();
    let item = |n: usize, bytes: usize| SegmentRef {
        first_key: key(n, bytes),
        hash: ContentHash::of(&[]),
        entries: u64::MAX,
        bytes: u64::MAX,
    };
    let leaves: Vec<_> = (0..tail_items_max).map(|n| item(n, list_bytes_max / tail_items_max)).collect();
    let segments: Vec<_> = (0..LEAF_SEGMENTS_MAX).map(|n| item(n, 1_024)).collect();
    let names: Vec<_> = (0..NAMES_MAX).map(|_| BlobName::segment(ContentHash::of(&[]))).collect();
    // Each poll of a month appends a batch; half of what stands in the document goes into a list at once.
    let found_at = |n: usize| Timestamp::from_millis(if n.is_multiple_of(2) { i64::MAX } else { i64::MIN });
    let first = |n: usize| u64::MAX / 2 + n as u64 * 5_000;
    let batch =
        |n: usize| BatchRef { hash: ContentHash::of(&[]), first: first(n), count: 5_000, found_at: found_at(n) };
    let lists = (0..30 * 24 * 60 / (tail_items_max / 2)).map(|n| ListRef {
        blob: batch(n).name(),
        first: first(n),
        next: first(n + 1),
        found_at: found_at(n),
    });
    let mut feed = Feed { next: u64::MAX, lists: lists.collect(), ..Feed::default() };
    feed.set_tail(&(0..tail_items_max).map(batch).collect::<Vec<_>>());
    let list = || NameList { blobs: Vec::new(), tail: document::encode_names(u64::MAX, &names) };
    let checkpoint = Checkpoint {
        start_after: Some(key(0, 1_024)),
        covered_to: Some(key(0, 1_024)),
        pending_tail: Some(embedded::encode_bytes(&vec![0; tail_bytes_max])),
        leaves_tail: document::encode_node(Level::Top, &leaves),
        segments: document::encode_node(Level::Leaf, &segments),
        deletions: document::encode_known(&known).into_iter().collect(),
        looked_into: list(),
        ..Checkpoint::default()
    };
    let document = SnapshotDocument {
        root: Root { retired: list(), garbage: list(), ..Root::default() },
        checkpoint: Some(checkpoint),
        feed,
        ..SnapshotDocument::default()
    };
    let bytes = document.encode().unwrap().len();
    assert!((1_200_000..1_700_000).contains(&bytes), "{bytes} bytes");
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
fn deletions_of_long_keys_are_kept_in_pieces_that_can_be_read() {
    let world = World::new(100);
    let all = (0..KEYS_BYTES_MAX / 8_000 + 100).map(|n| entry(&format!("k{n:05}{}", "x".repeat(8_000)), 1));
    world.bucket.set(all);
    world.job(&Budget::UNLIMITED);
    world.bucket.set(keys(0..1));
    world.job(&ONE_PAGE);
    world.check();
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
    fn nothing_is_stored_that_nobody_names(history in histories(), page_size in 1usize..12) {
        let world = World::new(page_size);
        for state in states(&history) {
            world.bucket.set(state);
            world.job(&ONE_PAGE);
        }
        world.check_nothing_else_is_stored();
    }
}
