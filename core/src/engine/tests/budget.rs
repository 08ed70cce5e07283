//! What a step spends, and that it ends before it spends more than it may.

use super::*;

/// Runs a job over what the bucket holds now, `changed` files of which differ from before, and holds it to its price.
fn check_price(world: &World, changed: u64) {
    let appended = || world.home.watcher.changes().len();
    let before = appended();
    let JobCost { state_reads: reads, state_writes: writes, .. } = world.job(&Budget::UNLIMITED).cost;
    assert_eq!((appended() - before) as u64, changed);
    assert!(reads <= 2 * changed + 2, "{changed} changed: {reads} reads");
    assert!(writes <= 2 * changed + 3, "{changed} changed: {writes} writes");
}

#[test]
fn a_few_changes_cost_a_few_reads_and_writes() {
    let mut world = World::new(1_000);
    world.cut = Cut::new([1; 16]);
    let mut entries = keys(0..50_000);
    world.bucket.set(entries.clone());
    world.job(&Budget::UNLIMITED);
    for (round, changed) in [1, 1, 2, 5, 30, 300, 1_000].into_iter().enumerate() {
        // Spread over the bucket: updates, creations and deletions in turn.
        for n in 0..changed {
            let at = (n * (50_000 / changed) + round * 11) % 50_000;
            match n % 3 {
                0 => entries[at].size += 1,
                1 => entries[at].key.push('+'),
                _ => entries[at].etag = format!("{round}-{n}"),
            }
        }
        world.bucket.set(entries.clone());
        let renamed = (0..changed).filter(|n| n % 3 == 1).count();
        check_price(&world, (changed + renamed) as u64);
        check_price(&world, 0);
    }
    world.check();
}

#[test]
fn a_thousand_changes_in_as_many_segments_cost_a_segment_and_a_leaf_each() {
    let mut world = World::new(1_000);
    world.cut = Cut::new([1; 16]).with_sizes(16, 64);
    let mut entries = keys(0..50_000);
    world.bucket.set(entries.clone());
    world.job(&Budget::UNLIMITED);
    for changed in [1, 10, 100, 1_000] {
        entries.iter_mut().step_by(50_000 / changed).for_each(|entry| entry.size += 1);
        world.bucket.set(entries.clone());
        check_price(&world, changed as u64);
    }
    world.check();
}

#[test]
fn a_quiet_poll_of_any_number_of_held_steps_reads_twice_and_writes_nothing() {
    for pages in [1, 2, 7, 1_000] {
        let mut world = World::new(10).with_memory(true);
        world.cut = Cut::new([1; 16]).with_sizes(16, 64);
        world.bucket.set(keys(0..500));
        world.job(&Budget::UNLIMITED);
        let (effects, mut reads) = (world.home.effects.get(), 0);
        for steps in 1.. {
            let report = world.step("job_quiet", &Budget { keys_max: pages * 10, ..Budget::UNLIMITED });
            reads += report.cost.state_reads;
            assert_eq!(report.feed.is_some(), steps == 1, "a step that reads no document does not know the feed");
            if report.outcome.unwrap() == Outcome::Done {
                assert_eq!(steps, 50_u64.div_ceil(pages).max(1), "{pages} pages a step");
                break;
            }
        }
        assert_eq!((reads, world.home.effects.get()), (2, effects));
    }
}

#[test]
fn settling_takes_a_handful_of_calls_however_much_was_found_gone() {
    for (keys, steps) in [(400, 8), (4_000, 80)] {
        let world = World::new(100).with_tiny_thresholds(true);
        world.bucket.set(self::keys(0..keys));
        world.job(&Budget::UNLIMITED);
        // A file of nearly every segment is gone, and found gone by a job that ends before it appends that.
        world
            .bucket
            .set(self::keys(0..keys).into_iter().enumerate().filter(|(n, _)| n % 7 != 3).map(|(_, entry)| entry));
        for _ in 0..steps / 4 {
            assert_eq!(world.step("job_cut", &ONE_PAGE).outcome.unwrap(), Outcome::Continue);
        }
        let calls = || world.home.gets.get() + world.home.effects.get();
        let before = calls();
        world.settle();
        let taken = calls() - before;
        assert!(taken < 60, "{taken} calls for {keys} files");
        assert!(!world.document().root.undeleted.is_empty());
        assert_eq!(world.snapshot().len(), keys as usize, "the feed has told of no deletion");
        world.job(&Budget::UNLIMITED);
        world.check();
    }
}

#[test]
fn a_long_stretch_of_files_that_are_gone_is_read_within_the_budget() {
    let mut world = World::new(1_000);
    world.bucket.set(keys(0..4_000));
    world.job(&Budget::UNLIMITED);
    // Many portions, of which each is a swap.
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
fn what_one_page_brings_is_appended_within_the_budget_of_several_steps() {
    // Three at a time, and a step may make enough calls for a few swaps.
    let budget = Budget { internal_requests_max: 112, ..Budget::UNLIMITED };
    let world = World::new(1_000);
    world.thresholds.set(Thresholds { flush_changes_min: 3, ..Thresholds::USUAL });
    world.bucket.set(keys(0..120));
    let mut steps = 0;
    loop {
        let report = world.step("job_1", &budget);
        assert!(report.spent.internal_requests <= 120, "{:?}", report.spent);
        steps += 1;
        assert_eq!(report.counts.created, world.changes().len() as u64, "what is appended counts");
        if report.outcome.unwrap() == Outcome::Done {
            assert_eq!((report.counts.created, report.counts.listed), (120, 120));
            break;
        }
    }
    assert!(steps > 3, "{steps} steps");
    assert_eq!(world.changes().len(), 120, "each once");
    world.check();

    // A job that goes on where another broke off finds what that one has not appended, and counts only this.
    world.bucket.set(keys(0..240));
    assert_eq!(world.step("job_2", &budget).outcome.unwrap(), Outcome::Continue);
    world.settle();
    let (mut created, before) = (0, world.changes().len());
    assert!((120..240).contains(&before), "{before} changes");
    for _ in 0..100 {
        let report = world.step("job_3", &budget);
        created = report.counts.created;
        if report.outcome.unwrap() == Outcome::Done {
            break;
        }
    }
    assert_eq!((created, world.changes().len()), ((240 - before) as u64, 240));
    world.check();
}

#[test]
fn deletions_are_appended_in_portions_within_the_budget_of_several_steps() {
    for apart in [false, true] {
        let mut world = World::new(1_000);
        world.reconcile = Reconcile { on_filter_drift: !apart, ..Reconcile::default() };
        world.thresholds.set(Thresholds { flush_changes_min: 3, ..Thresholds::USUAL });
        world.bucket.set(keys(0..120));
        world.job(&Budget::UNLIMITED);
        world.bucket.set(keys(0..20));
        let budget = Budget { internal_requests_max: 108, ..Budget::UNLIMITED };
        let (mut steps, mut deleted) = (0, 0);
        loop {
            let report = world.step("job_2", &budget);
            assert!(report.spent.internal_requests <= 140, "{:?}", report.spent);
            assert_eq!(report.counts.deleted, world.changes().len() as u64 - 120, "what is appended counts");
            // Even a budget that allows nothing allows one portion.
            let is_listed = deleted > 0;
            assert!(report.counts.deleted > deleted || !is_listed || deleted == 100, "a step gets further");
            (steps, deleted) = (steps + 1, report.counts.deleted);
            if report.outcome.unwrap() == Outcome::Done {
                break;
            }
        }
        assert!(steps > 8 && deleted == 100, "{steps} steps, {deleted} deletions");
        world.check();
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
            // Once before the step, then before each page except the first, and where something is stored in between.
            cut.clock.cpu_left.set(Some(6));
            steps += 1;
            match cut.step("job_1", &Budget::UNLIMITED).outcome.unwrap() {
                Outcome::Continue => {}
                Outcome::Done => break,
            }
        }
        cut.check();
        assert_eq!(whole.document().root.index, cut.document().root.index);
        assert!(expected.contains(&steps), "{steps} steps of about five pages, in {streams} streams");
        // A signal that was not taken back is not about this step.
        cut.clock.cpu_left.set(Some(0));
        assert_eq!(cut.step("job_2", &Budget::UNLIMITED).outcome.unwrap(), Outcome::Done);
    }
}

#[test]
fn a_job_that_was_done_under_other_filters_delivers_no_more_than_it_may() {
    let world = World::new(10);
    world.bucket.set(keys(0..20));
    world.objects_max.set(Some(3));
    let report = world.step("job_1", &Budget::UNLIMITED);
    assert!(report.outcome.unwrap() == Outcome::Done && report.limited);
    // The caller never heard of it, and the filters were changed meanwhile.
    let spec = JobSpec { fingerprint: "g", ..world.spec("job_1") };
    let report = block_on(world.engine().step(&spec, &Budget::UNLIMITED));
    assert!(report.outcome.unwrap() == Outcome::Done && report.limited);
    assert_eq!((report.counts.created, world.current().len()), (3, 3));
    let report = world.step("job_2", &Budget::UNLIMITED);
    assert_eq!((report.counts.created, world.current().len()), (3, 6));
}
