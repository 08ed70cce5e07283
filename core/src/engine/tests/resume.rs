//! Jobs that are cut off, anywhere, and go on or do not.

use super::*;
use crate::feed::batch::JOB_ID_BYTES_MAX;

#[test]
fn a_full_sync_hands_over_updates_that_are_not_asked_for_otherwise() {
    let mut world = World::new(10);
    world.bucket.set(keys(0..9));
    world.job(&Budget::UNLIMITED);
    world.reconcile = Reconcile { on_update: false, ..Reconcile::default() };
    world.bucket.set(keys(0..8).into_iter().chain([entry("k00008", 2)]));
    world.resync.set(true);
    let report = world.job(&Budget::UNLIMITED);
    assert_eq!((report.counts.updated, report.counts.created), (9, 0));
    let changes = world.changes().split_off(9);
    assert!(changes[..8].iter().all(|change| change.again && change.previous.is_none()));
    let previous = changes[8].previous.expect("it is not as before");
    assert_eq!((changes[8].again, previous.size, changes[8].entry.size), (false, 1, 2));
    // One that is through with some files hands over only the rest.
    world.resync.set(false);
    world.bucket.set(keys(0..9));
    assert_eq!(world.job(&Budget::UNLIMITED).counts.changes(), 0);
    world.resync.set(true);
    world.objects_max.set(Some(4));
    assert_eq!(world.job(&Budget::UNLIMITED).counts.updated, 4);
    world.resync.set(false);
    world.objects_max.set(None);
    world.bucket.set((0..9).map(|n| entry(&format!("k{n:05}"), 3)));
    assert_eq!(world.job(&Budget::UNLIMITED).counts.updated, 5);
}

/// Batches carry the job's id: one that is too long would be written and never read again.
#[test]
fn a_job_id_that_could_not_be_read_again_is_refused() {
    let world = World::new(2);
    world.bucket.set(keys(0..3));
    for job_id in [String::new(), "j".repeat(JOB_ID_BYTES_MAX + 1)] {
        let error = world.step(&job_id, &Budget::UNLIMITED).outcome.unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidInput, Some("job_id")));
        assert_eq!(world.home.effects.get(), 0);
    }
    assert_eq!(world.step(&"j".repeat(JOB_ID_BYTES_MAX), &Budget::UNLIMITED).outcome, Ok(Outcome::Done));
    assert_eq!(world.changes().len(), 3);
}

#[test]
fn a_step_that_fails_while_it_settles_another_job_tells_how_things_stand() {
    for after in [false, true] {
        for at in 1..12 {
            let world = World::new(2).with_tiny_thresholds(true);
            world.bucket.set(keys(0..9));
            world.job(&Budget::UNLIMITED);
            world.bucket.set(keys(0..12));
            assert_eq!(world.step("job_cut_off", &ONE_PAGE).outcome, Ok(Outcome::Continue));
            let known = world.document().root.entries;
            world.home.breaks_at.set(Some((world.home.effects.get() + at, after)));
            let report = world.step("job_next", &Budget::UNLIMITED);
            if report.outcome.is_err() {
                assert!(report.feed.is_none_or(|feed| feed.last() >= 9), "{at}");
                assert!(report.files_known == 0 || report.files_known >= known, "{at}: {}", report.files_known);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

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
            whole.job(&Budget::UNLIMITED);
            stepped.job(&ONE_PAGE);
            whole.check();
            stepped.check();
            prop_assert_eq!(whole.changes(), stepped.changes(), "the same changes at the same positions");
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
            prop_assert_eq!(report.counts.changes(), 0);
            prop_assert_eq!(world.document().root.index, before.index);
            if world.document().root.generation == before.generation {
                // Where no checkpoint was needed.
                prop_assert_eq!(world.home.effects.get(), effects, "nothing is written");
            }
        }
    }

    #[test]
    fn a_break_at_every_effect_gives_the_same_feed(
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
        let expected = whole.changes();
        for at in 1..=whole.home.effects.get() {
            let world = new_world();
            world.home.breaks_at.set(Some((at, after)));
            world.home.watcher.looks_from.set(at - 1);
            for state in states(&history) {
                world.bucket.set(state);
                world.job(&budget);
                world.check();
            }
            prop_assert_eq!(&world.changes(), &expected, "broken at effect {}", at);
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
        let rounds = [(&first, &first), (&first, &second), (&second, &second)];
        for (round, (before, state)) in rounds.into_iter().enumerate() {
            world.bucket.set(state.iter().map(|(key, version)| entry(key, *version)));
            let appended = world.changes().len();
            if round == 0 {
                world.home.breaks_at.set(cut.map(|(at, after)| (world.home.effects.get() + at, after)));
            }
            let counts = world.job(budget).counts;
            world.check();
            // Each once, whatever broke off; and again where it is as before.
            let all = world.changes().split_off(appended);
            let handed: Vec<&Change> = all.iter().filter(|change| change.kind != ChangeKind::Deleted).collect();
            let keys: Vec<&String> = handed.iter().map(|change| &change.entry.key).collect();
            prop_assert_eq!(keys, state.keys().collect::<Vec<_>>());
            for change in handed {
                let (was, is) = (before.get(&change.entry.key), state.get(&change.entry.key));
                prop_assert_eq!(change.again, was == is, "{:?}", change);
                prop_assert_eq!(change.kind == ChangeKind::Created, was.is_none());
            }
            prop_assert_eq!(counts.created + counts.updated, state.len() as u64);
            prop_assert_eq!(counts.changes(), all.len() as u64);
            if round == 0 {
                prop_assert_eq!(&world.document().root.index, &root, "the snapshot is as before");
            }
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
        // A job over each state is cut off at each effect; by the time it goes on, or the next one begins, the bucket
        // is as it was before.
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
            world.home.watcher.looks_from.set(at - 1);
            world.bucket.set(states[0].clone());
            world.job(&budget);
            world.home.breaks_at.set(Some((at, after)));
            world.bucket.set(states.last().unwrap().clone());
            while world.step("job_cut", &budget).outcome.is_ok_and(|outcome| outcome == Outcome::Continue) {}
            world.bucket.set(states[0].clone());
            if same_job {
                while world.step("job_cut", &budget).outcome.unwrap() == Outcome::Continue {}
            } else {
                world.settle();
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
                world.home.breaks_at.set(Some((world.home.effects.get() + effects, *after)));
                let job_id = format!("job_cut_{nth}_{}", world.jobs.get());
                while world.step(&job_id, &budget).outcome.is_ok_and(|outcome| outcome == Outcome::Continue) {}
                world.home.breaks_at.set(None);
                world.settle();
            }
            world.objects_max.set(None);
            world.job(&budget);
            world.check();
            // And none of what is named is to be deleted.
            let named: BTreeSet<String> = world.stored().0.into_iter().chain(world.feed_blobs()).collect();
            let deleted = world.to_be_deleted();
            prop_assert!(named.is_disjoint(&deleted), "{:?}", named.intersection(&deleted).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_job_takes_no_more_than_it_may_and_the_next_goes_on(
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
}
