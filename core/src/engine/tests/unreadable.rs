//! Entries of the listing that cannot be read: their files stay as they were known, and hide no others.

use super::*;
use crate::warning::{Warning, WarningCode};

/// What is to be known, job after job.
#[derive(Default)]
struct Expected(BTreeMap<String, Entry>);

impl Expected {
    /// After a job that was shown all of the bucket.
    fn follow(&mut self, bucket: &MemoryBucket) {
        let mut shown = bucket.current();
        for key in bucket.unreadable.borrow().iter() {
            if shown.contains_key(key) {
                shown.remove(key);
                shown.extend(self.0.remove_entry(key));
            }
        }
        self.0 = shown;
    }

    #[track_caller]
    fn check(&self, world: &World) {
        assert_eq!(world.current(), self.0, "the feed tells what can be read, and no deletion of what is there");
        let known: Files = world.snapshot().into_iter().map(|known| (known.key.clone(), known)).collect();
        let expected: Files = self.0.iter().map(|(key, entry)| (key.clone(), Known::from(entry))).collect();
        rules::assert_same(&known, &expected, "the snapshot is what the feed tells");
    }
}

impl World {
    fn hide(&self, keys: &[&str]) {
        *self.bucket.unreadable.borrow_mut() = keys.iter().map(|&key| key.to_owned()).collect();
    }

    /// The segments of each leaf of a snapshot of these files, listed at once.
    fn leaves_of(&self, files: &Expected) -> Vec<Vec<SegmentRef>> {
        let mut fresh = World::new(1_000).in_order(self.bucket.order.get() == KeyOrder::Utf16);
        fresh.cut = self.cut;
        fresh.bucket.set(files.0.values().cloned());
        fresh.job(&Budget::UNLIMITED);
        fresh.leaves()
    }
}

fn unreadable(report: &StepReport) -> Option<&Warning> {
    report.warnings.iter().find(|warning| warning.code == WarningCode::EntriesUnreadable)
}

#[test]
fn an_unreadable_entry_is_neither_gone_nor_new() {
    let world = World::new(10);
    world.bucket.set(keys(0..100));
    world.hide(&["k00007", "k00050"]);
    let report = world.job(&Budget::UNLIMITED);
    assert_eq!((report.counts.created, report.counts.listed, report.counts.matched), (98, 100, 98));
    let warning = unreadable(&report).unwrap();
    let names = "\"k00007\" (<Size> is \"abc\"), \"k00050\" (<Size> is \"abc\"). Everything else was synced.";
    assert!(warning.message.starts_with("2 files cannot be synced") && warning.message.contains(names), "{warning:?}");
    // Once they can be read they are new, and others that cannot are not gone.
    world.hide(&["k00000", "k00013", "k00099"]);
    let mut changed = keys(0..100);
    changed[13] = entry("k00013", 2);
    world.bucket.set(changed);
    let report = world.job(&Budget::UNLIMITED);
    assert_eq!((report.counts.created, report.counts.updated, report.counts.deleted), (2, 0, 0));
    // The same again writes nothing, and is told again.
    let report = world.job(&Budget::UNLIMITED);
    assert_eq!((report.cost.state_writes, report.counts.unreadable), (0, 3));
    assert!(unreadable(&report).is_some());
    // A file that is gone meanwhile is gone, and a change that came meanwhile is found.
    world.hide(&[]);
    world.bucket.set(world.bucket.current().into_values().filter(|entry| entry.key != "k00000"));
    let report = world.job(&Budget::UNLIMITED);
    assert_eq!((report.counts.created, report.counts.updated, report.counts.deleted), (0, 1, 1));
    assert!(unreadable(&report).is_none());
    world.check();
}

#[test]
fn a_bucket_of_which_nothing_can_be_read_loses_nothing() {
    let mut world = World::new(10);
    world.confirm_deletes = false;
    world.bucket.set(keys(0..30));
    world.job(&Budget::UNLIMITED);
    let all: Vec<String> = world.bucket.current().into_keys().collect();
    world.hide(&all.iter().map(String::as_str).collect::<Vec<_>>());
    let report = world.job(&ONE_PAGE);
    assert_eq!(report.counts.changes(), 0);
    let warnings: Vec<_> = report.warnings.iter().map(|warning| warning.code).collect();
    assert_eq!(warnings, [WarningCode::EntriesUnreadable]);
    assert!(unreadable(&report).unwrap().message.starts_with("30 files"));
    world.hide(&[]);
    assert_eq!(world.job(&Budget::UNLIMITED).counts.changes(), 0);
    world.check();
}

#[test]
fn a_name_that_the_filters_leave_out_is_not_told() {
    let mut world = World::new(10);
    world.filter = filter(&["*3"]);
    world.bucket.set(keys(0..10));
    world.hide(&["k00003", "k00004"]);
    let report = world.job(&Budget::UNLIMITED);
    assert_eq!((report.counts.unreadable, report.counts.matched), (1, 8));
    assert!(unreadable(&report).unwrap().message.starts_with("1 file cannot be synced, because its entry"));
}

/// A file whose deletion waits to be confirmed, and that is there again, is known again.
#[test]
fn a_held_deletion_of_an_unreadable_file_comes_true_no_more() {
    let mut world = World::new(10);
    world.confirm_deletes = false;
    world.deletion_limit = DeletionLimit { percent: 10, files: 1 };
    world.bucket.set(keys(0..30));
    world.job(&Budget::UNLIMITED);
    world.bucket.set(keys(0..10));
    assert_eq!(world.job(&Budget::UNLIMITED).held_back.unwrap().count, 20);
    world.bucket.set(keys(0..30));
    world.hide(&["k00020"]);
    let report = world.job(&Budget::UNLIMITED);
    assert_eq!((report.held_back, report.counts.changes()), (None, 0));
    world.hide(&[]);
    assert_eq!(world.job(&Budget::UNLIMITED).counts.changes(), 0);
    world.check();
}

/// Of deletions and files left out by new filters, each is looked for once more.
#[test]
fn an_unreadable_file_is_not_taken_as_left_out_by_the_filters() {
    let mut world = World::new(10);
    world.bucket.set(keys(0..30));
    world.job(&Budget::UNLIMITED);
    world.reconcile = Reconcile { on_delete: true, on_filter_drift: false, ..Reconcile::default() };
    world.bucket.set(keys(0..30).into_iter().filter(|entry| entry.key != "k00012"));
    world.hide(&["k00011", "k00013"]);
    let report = world.job(&Budget::UNLIMITED);
    assert_eq!((report.counts.deleted, report.counts.changes()), (1, 1));
    world.hide(&[]);
    world.job(&Budget::UNLIMITED);
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_cannot_be_read_hides_nothing(
        history in big_histories(),
        hidden in proptest::collection::vec(any::<u64>(), 4),
        share in 1u64..12,
        page_size in 1usize..40,
        (one_page, tiny, elsewhere, memory, utf16) in any::<(bool, bool, bool, bool, bool)>(),
        (resync, streams) in (proptest::bool::weighted(0.2), 1usize..4),
        objects_max in prop_oneof![3 => Just(None), 1 => (1u64..30).prop_map(Some)],
        breaks in proptest::option::of((1u64..40, any::<bool>())),
    ) {
        let world = World::new(page_size).with_tiny_thresholds(tiny).with_memory(memory).in_order(utf16);
        world.streams.set(streams);
        world.bucket.elsewhere.set(elsewhere);
        world.objects_max.set(objects_max);
        let budget = if one_page { ONE_PAGE } else { Budget::UNLIMITED };
        let mut expected = Expected::default();
        for (state, seed) in states(&history).zip(hidden.iter().cycle()) {
            world.bucket.set(state);
            let is_hidden = |key: &String| {
                let hash = blake3::hash(format!("{seed}{key}").as_bytes());
                u64::from(hash.as_bytes()[0]) % share == 0
            };
            *world.bucket.unreadable.borrow_mut() = world.bucket.current().into_keys().filter(is_hidden).collect();
            world.resync.set(resync);
            world.home.breaks_at.set(breaks.map(|(at, after)| (world.home.effects.get() + at, after)));
            let mut report = world.job(&budget);
            world.resync.set(false);
            world.home.breaks_at.set(None);
            while report.limited {
                report = world.job(&budget);
            }
            let unreadable_keys = world.bucket.unreadable.borrow().len() as u64;
            expected.follow(&world.bucket);
            expected.check(&world);
            prop_assert_eq!(report.counts.unreadable, unreadable_keys);
            prop_assert_eq!(report.counts.matched + unreadable_keys, report.counts.listed);
            prop_assert_eq!(unreadable(&report).is_some(), unreadable_keys > 0);
            // The snapshot is cut as if the listing had shown what is known, and the same again writes nothing.
            prop_assert_eq!(world.leaves(), world.leaves_of(&expected));
            let again = world.job(&Budget::UNLIMITED);
            prop_assert_eq!((again.cost.state_writes, again.counts.changes()), (0, 0));
        }
        world.hide(&[]);
        let mut report = world.job(&budget);
        while report.limited {
            report = world.job(&budget);
        }
        world.check();
        // A segment that was taken apart again before it was stored may be listed as one to be deleted.
        if breaks.is_none() {
            world.check_all_is_named();
        }
    }
}
