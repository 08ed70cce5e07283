//! Files that are gone: how many may be, why they are, and when the feed says so.

use std::mem;

use super::*;
use crate::engine::deletions::drift::{Fate, Presence};

/// How many deletions a step's report says are held back.
fn held(report: &StepReport) -> u64 {
    report.held_back.as_ref().map_or(0, |held| held.count)
}

#[test]
fn what_is_new_does_not_wait_for_deletions_that_are_held() {
    for (on_filter_drift, streams, stepped) in [(true, 1, false), (false, 1, false), (true, 4, false), (true, 1, true)]
    {
        let mut world = World::new(10);
        world.confirm_deletes = false;
        world.streams.set(streams);
        world.reconcile = Reconcile { on_filter_drift, ..Reconcile::default() };
        let files = |folder: &str| (0..150).map(|n| entry(&format!("{folder}/{n:03}"), 1)).collect::<Vec<_>>();
        let job = |world: &World| {
            if !stepped {
                return world.job(&Budget::UNLIMITED);
            }
            let job_id = format!("job_s{}", world.steps.get());
            loop {
                let report = world.step(&job_id, &ONE_PAGE);
                if report.outcome.clone().unwrap() == Outcome::Done {
                    return report;
                }
            }
        };
        world.bucket.set(files("old"));
        job(&world);
        // A folder is renamed, and there is something new before and behind it.
        let renamed = || [files("new"), vec![entry("a/x", 1), entry("z/x", 1)]].concat();
        world.bucket.set(renamed());
        let report = job(&world);
        assert_eq!((report.counts.created, report.counts.deleted, held(&report)), (152, 0, 150));
        let keys = report.held_back.unwrap().keys;
        assert_eq!((keys.len(), keys[0].as_str(), keys[19].as_str()), (20, "old/000", "old/019"));
        assert_eq!(world.current().len(), 302);
        world.check_all_is_named();
        // The next polls find it so again; that there are more files now lets nothing slip through.
        for _ in 0..3 {
            let report = job(&world);
            assert_eq!((report.counts.changes(), held(&report)), (0, 150));
            world.check_all_is_named();
        }
        // What happens elsewhere meanwhile is told.
        world.bucket.set([renamed(), vec![entry("m", 1)]].concat());
        let report = job(&world);
        assert_eq!((report.counts.created, held(&report)), (1, 150));
        // Files that return are no longer held, and were never deleted.
        world.bucket.set([renamed(), files("old")[..30].to_vec()].concat());
        let report = job(&world);
        assert_eq!(
            (report.counts.created, report.counts.deleted, held(&report)),
            (0, 0, 121),
            "one that is gone waits with them"
        );
        world.confirm_deletes = true;
        let report = job(&world);
        assert_eq!((report.counts.deleted, held(&report)), (121, 0));
        world.check();
        world.check_all_is_named();
        world.confirm_deletes = false;
        assert_eq!(job(&world).counts.changes(), 0);
    }
}

#[test]
fn a_poll_that_still_holds_the_same_deletions_writes_nothing() {
    for tiny in [false, true] {
        let mut world = World::new(50).with_tiny_thresholds(tiny);
        world.confirm_deletes = false;
        world.bucket.set(keys(0..300));
        world.job(&Budget::UNLIMITED);
        world.bucket.set(keys(200..300));
        world.job(&Budget::UNLIMITED);
        world.job(&Budget::UNLIMITED);
        let (document, effects) = (world.document(), world.home.effects.get());
        let report = world.job(&Budget::UNLIMITED);
        assert_eq!((held(&report), world.document()), (200, document), "tiny: {tiny}");
        assert!(tiny || world.home.effects.get() == effects, "{} writes", world.home.effects.get() - effects);
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
    assert_eq!(world.current().len(), 20);
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
    assert_eq!(world.current().len(), 20);
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
        assert_eq!(world.current().len(), 3);
    }
}

#[test]
fn a_key_is_not_gone_while_the_order_of_keys_leaves_that_open() {
    let bucket = MemoryBucket::default();
    bucket.page_size.set(1);
    bucket.order.set(KeyOrder::Utf16);
    bucket.set([entry("b\u{ff01}", 1), entry("b😀", 1)]);
    let filter = all_files();
    let mut presence = Presence::new(&bucket, KeyOrder::Unknown, &filter);
    assert_eq!(block_on(presence.look("b\u{ff01}")).unwrap(), Fate::Taken);
    assert_eq!(block_on(presence.look("b\u{ff02}")).unwrap(), Fate::Gone);
}

#[test]
fn losing_more_than_half_holds_all_deletions() {
    let mut world = World::new(50);
    world.confirm_deletes = false;
    world.bucket.set(keys(0..300));
    world.job(&Budget::UNLIMITED);
    world.bucket.set(keys(200..300));
    assert_eq!(held(&world.job(&Budget::UNLIMITED)), 200);
    assert_eq!(world.current().len(), 300);
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
        let report = world.step("job_x", &Budget::UNLIMITED);
        let is_held = held(&report);
        match report.outcome {
            Ok(outcome) => {
                assert_eq!((outcome, is_held > 0), (Outcome::Done, stops), "{percent} % {files}: {gone}");
                assert!(is_held == 0 || is_held == gone as u64);
            }
            Err(error) => {
                assert_eq!((error.kind(), gone), (ErrorKind::TooManyDeletions, 100), "{percent} % {files}: {gone}");
                assert!(error.advice().contains("confirm_deletes=true"), "{error}");
            }
        }
        if stops {
            assert_eq!(world.current().len(), 100);
            world.confirm_deletes = true;
            assert_eq!(world.job(&Budget::UNLIMITED).counts.deleted, gone as u64);
        }
        world.check();
    }
}

/// The snapshot knows 60 files. Three deletions are within the limit, and files that have drifted stay silent.
fn sixty_files_with_drift_apart() -> World {
    let mut world = World::new(10);
    world.confirm_deletes = false;
    world.deletion_limit = DeletionLimit { percent: 0, files: 3 };
    world.bucket.set(keys(0..60));
    world.job(&Budget::UNLIMITED);
    world.reconcile = Reconcile { on_filter_drift: false, ..Reconcile::default() };
    world
}

#[test]
fn what_is_to_be_delivered_may_change_while_a_job_delivers_its_deletions() {
    let none = Reconcile { on_delete: false, on_filter_drift: false, ..Reconcile::default() };
    for (then, is_too_much) in [(Reconcile::default(), true), (none, false)] {
        let mut world = sixty_files_with_drift_apart();
        // So far from each other that looking for them takes several pages.
        world.bucket.set(keys(0..60).into_iter().enumerate().filter(|(n, _)| n % 3 > 0).map(|(_, entry)| entry));
        while !world.document().checkpoint.is_some_and(|checkpoint| checkpoint.listed) {
            assert_eq!(world.step("job_2", &ONE_PAGE).outcome.unwrap(), Outcome::Continue);
        }
        world.reconcile = then;
        let report = world.step("job_2", &Budget::UNLIMITED);
        assert_eq!((held(&report) > 0, report.outcome), (is_too_much, Ok(Outcome::Done)));
        assert_eq!(world.current().len(), 60);
    }
}

#[test]
fn what_is_to_be_delivered_may_change_while_a_job_lists() {
    let none = Reconcile { on_delete: false, on_filter_drift: false, ..Reconcile::default() };
    for (then, is_too_much) in [(Reconcile::default(), true), (none, false)] {
        let mut world = sixty_files_with_drift_apart();
        // Gone at the beginning, and one more at the end, which is delivered together with few deletions.
        world.bucket.set(keys(20..61));
        let found = |world: &World| world.document().checkpoint.map_or(0, |checkpoint| checkpoint.deletions_found);
        while found(&world) < 20 {
            assert_eq!(world.step("job_2", &ONE_PAGE).outcome.unwrap(), Outcome::Continue);
        }
        assert!(!world.document().checkpoint.unwrap().listed);
        world.reconcile = then;
        let report = world.step("job_2", &Budget::UNLIMITED);
        assert_eq!((held(&report) > 0, report.outcome), (is_too_much, Ok(Outcome::Done)));
        assert_eq!(world.current().len(), 61);
    }
}

#[test]
fn files_that_go_between_two_looks_are_not_deleted_beyond_the_limit() {
    let mut world = sixty_files_with_drift_apart();
    // A dozen that other filters leave out, and two that are gone.
    world.filter = filter(&["k0000?", "k0001[01]"]);
    world.bucket.set(keys(0..58));
    // All are looked for before the first deletion is delivered; then the bucket changes.
    let looked_for = |world: &World| world.document().checkpoint.map_or(0, |checkpoint| checkpoint.deletions_checked);
    while looked_for(&world) < 14 {
        assert_eq!(world.step("job_2", &ONE_PAGE).outcome.unwrap(), Outcome::Continue);
    }
    world.bucket.set(keys(12..58));
    let report = loop {
        let report = world.step("job_2", &ONE_PAGE);
        if report.outcome.clone().unwrap() == Outcome::Done {
            break report;
        }
    };
    assert!(held(&report) > 0);
    assert_eq!(report.counts.deleted as usize, 60 - world.current().len());
    assert!(world.current().len() >= 57);
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
        assert_eq!(world.current().len(), 60, "{kind:?}");
    }
    world.job(&Budget::UNLIMITED);
    world.check();
}

#[test]
fn the_limit_counts_the_deletions_that_would_be_delivered() {
    let all = || (0..600).map(|n| entry(&format!("{}{n:03}", if n < 540 { "old/" } else { "new/" }), 1));
    let narrow = filter(&["old/*"]);
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
            let report = loop {
                let report = world.step("job_x", &budget);
                match report.outcome {
                    Ok(Outcome::Continue) => steps += 1,
                    _ => break report,
                }
            };
            assert_eq!(stepped, steps > 1);
            let known = world.document().root.entries;
            let seen = (report.outcome.clone(), held(&report), known);
            let wanted = if stops { (Ok(Outcome::Done), 540, 600) } else { (Ok(Outcome::Done), 0, 60) };
            assert_eq!(seen, wanted, "drifts: {drifts}, {:?}", world.reconcile);
            assert_eq!(world.current().len(), 600, "nothing was deleted");
            if stops {
                world.confirm_deletes = true;
                world.job(&budget);
                assert_eq!(world.current().len(), 60);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn gone_and_drifted_files_are_told_apart(
        history in proptest::collection::vec(
            (proptest::collection::btree_map("[a-d😀]{1,3}", 1u64..3, 0..30), any::<bool>()),
            1..5,
        ),
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
        world.home.breaks_at.set(cut);
        let (mut tracked, mut objects) = (BTreeSet::<String>::new(), BTreeMap::<String, Entry>::new());
        for (state, narrow) in &history {
            world.bucket.set(state.iter().map(|(key, version)| entry(key, *version)));
            world.filter = filter(if *narrow { &["a*"] } else { &[] });
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
            prop_assert_eq!(&world.current(), &objects);
            let known: BTreeSet<String> = world.snapshot().into_iter().map(|known| known.key).collect();
            prop_assert_eq!(&known, &tracked, "the snapshot follows the bucket under the filters");
        }
    }
}

#[test]
fn deletions_stay_held_behind_the_place_where_a_job_stops() {
    for (tiny, streams, stepped) in [(false, 1, false), (true, 1, false), (true, 4, false), (true, 1, true)] {
        let mut world = World::new(10).with_tiny_thresholds(tiny);
        world.confirm_deletes = false;
        world.streams.set(streams);
        let job = |world: &World| {
            let (job_id, budget) =
                (format!("job_s{}", world.steps.get()), if stepped { ONE_PAGE } else { Budget::UNLIMITED });
            loop {
                let report = world.step(&job_id, &budget);
                if report.outcome.clone().unwrap() == Outcome::Done {
                    return report;
                }
            }
        };
        let kept = || (0..10).map(|n| entry(&format!("b/{n:03}"), 1)).chain([entry("old/060x", 1), entry("z", 1)]);
        world.bucket.set((0..150).map(|n| entry(&format!("old/{n:03}"), 1)).chain(kept()).collect::<Vec<_>>());
        job(&world);
        world.bucket.set(kept().collect::<Vec<_>>());
        assert_eq!(held(&job(&world)), 150);
        let bytes = world.document().root.bytes;

        world.objects_max.set(Some(3));
        let early = ["a/1", "a/2", "a/3", "a/4", "a/5"].map(|key| entry(key, 1));
        world.bucket.set(kept().chain(early).collect::<Vec<_>>());
        // To confirm does not reach them, and they stay held.
        world.confirm_deletes = true;
        let report = job(&world);
        let stands = (report.limited, held(&report), report.counts.deleted);
        assert_eq!(stands, (true, 150, 0), "tiny: {tiny}, {streams} streams");
        assert_eq!(world.document().root.bytes, bytes + 3, "what is held is no part of the snapshot");
        let warning = &report.warnings[0];
        assert!(warning.message.starts_with("150 known files are gone, or"), "{warning:?}");
        assert!(warning.advice.contains("a job that stops at max_objects_per_run"), "{warning:?}");
        assert_eq!(report.held_back.unwrap().keys[0], "old/000");
        world.check_all_is_named();
        let report = job(&world);
        assert_eq!((report.limited, held(&report), report.counts.deleted), (false, 0, 150));
        world.check_all_is_named();
        world.check();
    }
}

#[test]
fn a_confirmation_takes_what_lies_before_the_place_where_a_job_stops() {
    for tiny in [false, true] {
        let mut world = World::new(10).with_tiny_thresholds(tiny);
        world.confirm_deletes = false;
        let kept = || [entry("a", 1), entry("z", 1)].into_iter();
        world.bucket.set((0..150).map(|n| entry(&format!("old/{n:03}"), 1)).chain(kept()).collect::<Vec<_>>());
        world.job(&Budget::UNLIMITED);
        world.bucket.set(kept().collect::<Vec<_>>());
        assert_eq!(held(&world.job(&Budget::UNLIMITED)), 150);
        world.objects_max.set(Some(1));
        world.bucket.set(kept().chain([entry("old/020x", 1), entry("old/030x", 1)]).collect::<Vec<_>>());
        world.confirm_deletes = true;
        let report = world.job(&Budget::UNLIMITED);
        assert_eq!((report.limited, report.counts.deleted + held(&report)), (true, 150), "tiny: {tiny}");
        assert!((21..=31).contains(&report.counts.deleted), "{}", report.counts.deleted);
        world.check_all_is_named();
        // What is left is no more than the limit allows of the files that there were.
        world.confirm_deletes = false;
        let report = world.job(&Budget::UNLIMITED);
        assert_eq!(held(&report), 119, "tiny: {tiny}");
        world.confirm_deletes = true;
        assert_eq!(world.job(&Budget::UNLIMITED).counts.deleted, 119);
        world.check();
    }
}

#[test]
fn a_job_that_is_asked_again_names_what_it_holds() {
    for tiny in [false, true] {
        let mut world = World::new(50).with_tiny_thresholds(tiny);
        world.confirm_deletes = false;
        world.bucket.set(keys(0..300));
        world.job(&Budget::UNLIMITED);
        world.bucket.set(keys(200..300));
        let told = world.step("job_held", &Budget::UNLIMITED);
        assert_eq!((told.outcome.clone(), held(&told)), (Ok(Outcome::Done), 200));
        // Its caller was cut off before it heard of that.
        let again = world.step("job_held", &Budget::UNLIMITED);
        let (told, again) = (told.held_back.unwrap(), again.held_back.unwrap());
        assert_eq!((again.count, &again.keys[..2]), (200, &told.keys[..2]), "tiny: {tiny}");
    }
}
