//! Polls that find nothing: what they read, and that they write nothing.

use super::*;

#[test]
fn first_everything_then_nothing_then_exactly_what_changed() {
    let world = World::new(10);
    world.bucket.set(keys(0..95));
    let report = world.job(&Budget::UNLIMITED);
    assert_eq!((report.counts.created, report.counts.listed, report.files_known), (95, 95, 95));
    world.check();

    let effects = world.home.effects.get();
    let report = world.job(&Budget::UNLIMITED);
    assert_eq!(report.counts.changes(), 0);
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

/// What was seen of the filters survives every way in which a job goes on: from memory, a bookmark, a checkpoint.
#[test]
fn the_patterns_that_matched_nothing_are_those_of_the_whole_listing() {
    for (memory, bookmark, tiny) in [(true, true, false), (false, true, true), (false, false, true)] {
        let mut world = World::new(10).with_memory(memory).with_tiny_thresholds(tiny);
        world.cut = Cut::new([1; 16]).with_sizes(4, 9);
        if !bookmark {
            world.bookmark.replace(None);
        }
        world.filter = filter(&["k00003", "k0005[57]", "k00080*", "typo", "*typo"]);
        world.bucket.set(keys(0..95));
        for round in 0..3 {
            let report = world.job(&ONE_PAGE);
            let named: Vec<&str> = report.warnings.iter().map(|warning| warning.message.as_str()).collect();
            let expected = ["*typo", "typo"].map(|it| format!("The exclude pattern \"{it}\" matched no file."));
            assert_eq!(named, expected, "{memory} {bookmark} {round}");
            assert_eq!(report.counts.matched, 91);
            if round == 0 {
                // The answer was lost, and the step is asked for again.
                assert_eq!(world.step("job_1", &ONE_PAGE).warnings, report.warnings);
            }
        }
    }
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
        let names = world.home.blobs.names();
        let report = world.job(&ONE_PAGE);
        assert_eq!((report.counts.listed, report.counts.changes()), (95, 0));
        assert_eq!(world.home.blobs.names(), names);
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
        assert_eq!((counts.listed, counts.changes()), (5_000, 0));
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
    for change in 0..5 {
        let job_id = format!("job_x{change}");
        let spec = JobSpec { held: Some(memory.for_step(None, 7)), ..world.spec(&job_id) };
        let first = block_on(world.engine().step(&spec, &ONE_PAGE));
        assert_eq!((first.outcome.unwrap(), first.counts.listed), (Outcome::Continue, 50));
        let next = memory.for_step(Some(7), 9);
        assert!(next.has(&job_id) && !next.has("job_y") && !memory.for_step(Some(8), 9).has(&job_id));
        let spec = JobSpec { held: Some(next), ..spec };
        let spec = match change {
            0 => spec,
            1 => JobSpec { job_id: "job_y", ..spec },
            2 => JobSpec { held: Some(memory.for_step(Some(8), 9)), ..spec },
            3 => JobSpec { fingerprint: "g", ..spec },
            _ => JobSpec { resync: true, ..spec },
        };
        let calls = world.bucket.calls.get();
        let report = block_on(world.engine().step(&spec, &Budget::UNLIMITED));
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
    let spec = JobSpec { held: Some(memory.for_step(None, 1)), ..world.spec("job_slow") };
    let engine = world.engine();
    let mut step = pin!(engine.step(&spec, &Budget::UNLIMITED));
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
        let spec = JobSpec { fingerprint, ..world.spec(job_id) };
        block_on(world.engine().step(&spec, &Budget::UNLIMITED)).counts.listed
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
