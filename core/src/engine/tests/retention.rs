//! What jobs drop of the feed, and that it is really deleted.

use super::*;
use crate::{
    engine::collect::{Collected, collect, delete_orphans},
    state::document::DOCUMENT,
};

#[test]
fn what_is_old_and_taken_is_dropped_and_deleted_by_later_jobs() {
    let world = World::new(10);
    let mut seen = Vec::new();
    for round in 0..12 {
        world.clock.now_ms.set(round * 100);
        world.bucket.set((0..30).map(|n| entry(&format!("k{n:05}"), if n == 3 { round as u64 } else { 9 })));
        // Taken up to two jobs ago, and kept for three.
        let up_to = world.document().feed.last().saturating_sub(2);
        world.retention.set(Retention { before: Some(world.clock.now().plus_millis(-250)), up_to });
        world.job(&Budget::UNLIMITED);
        world.check();
        world.check_nothing_else_is_stored();
        seen.push((world.feed_blobs(), world.document().feed.first().unwrap()));
        // Dropped by one job, and gone two root moves and the job after that later.
        if let Some(earlier) = seen.len().checked_sub(4) {
            let (before, after) = (&seen[earlier].0, &seen[earlier + 1].0);
            let dropped: Vec<_> = before.difference(after).collect();
            assert!(dropped.iter().all(|name| !world.home.blobs.names().contains(*name)), "{dropped:?} in {round}");
        }
    }
    // Thirty changes at first, then one a job: those of the latest three stay.
    assert_eq!(seen.iter().map(|it| it.1).collect::<Vec<_>>(), [1, 1, 1, 31, 32, 33, 34, 35, 36, 37, 38, 39]);
}

#[test]
fn a_poll_that_finds_nothing_drops_nothing_and_writes_nothing() {
    let world = World::new(10);
    world.bucket.set(keys(0..30));
    world.job(&Budget::UNLIMITED);
    world.clock.now_ms.set(1_000_000);
    world.retention.set(Retention { before: Some(world.clock.now()), up_to: u64::MAX });
    let effects = world.home.effects.get();
    let report = world.job(&Budget::UNLIMITED);
    assert_eq!((report.cost.state_reads, world.home.effects.get()), (2, effects));
    assert_eq!(report.feed.unwrap().first().unwrap(), 1);
    // The next change takes it along, and stays itself.
    world.bucket.set(keys(0..31));
    assert_eq!(world.job(&Budget::UNLIMITED).feed.unwrap().first().unwrap(), 31);
    world.check();
}

#[test]
fn what_was_appended_since_the_retention_was_asked_for_stays() {
    let world = World::new(10);
    // Whatever a caller says, nothing can have read it.
    world.retention.set(Retention { before: None, up_to: u64::MAX });
    for (range, first) in [(0..30, 1), (0..31, 31), (5..31, 32)] {
        world.bucket.set(keys(range));
        assert_eq!(world.job(&Budget::UNLIMITED).feed.unwrap().first().unwrap(), first);
        world.check();
    }
    // Nor where the step appends more than once.
    let world = World::new(10).with_tiny_thresholds(true);
    world.retention.set(Retention { before: None, up_to: u64::MAX });
    world.bucket.set(keys(0..30));
    assert_eq!(world.job(&Budget::UNLIMITED).feed.unwrap().first().unwrap(), 1);
    world.check();
}

#[test]
fn what_a_job_reads_to_drop_old_batches_is_bounded() {
    let world = World::new(10);
    world.thresholds.set(Thresholds { flush_changes_min: 1, tail_items_max: 2, ..Thresholds::USUAL });
    world.bucket.set(keys(0..300));
    world.job(&Budget::UNLIMITED);
    let lists = || world.document().feed.lists.len();
    assert!(lists() > 30);
    let mut entries = keys(0..300);
    for round in 0..30 {
        entries[7].size += 1;
        world.bucket.set(entries.clone());
        world.clock.now_ms.set(1_000 + round);
        world.retention.set(Retention { before: Some(world.clock.now()), up_to: u64::MAX });
        let (before, first) = (lists(), world.document().feed.first().unwrap());
        let report = world.job(&Budget::UNLIMITED);
        assert!(report.cost.state_reads <= 2 + 2 + 4, "{:?} in round {round}", report.cost);
        assert!(lists() + 4 >= before && world.document().feed.first().unwrap() > first, "it gets further");
        if lists() == 0 {
            break;
        }
    }
    assert!(lists() <= 1, "{} lists are left", lists());
    world.check();
    world.check_nothing_else_is_stored();
}

#[test]
fn what_a_home_has_read_is_forgotten_at_any_moment_of_a_job() {
    let world = World::new(10).with_tiny_thresholds(true);
    world.bucket.set(keys(0..60));
    // Between the steps of a job that saves checkpoints.
    loop {
        let outcome = world.step("job_1", &ONE_PAGE).outcome.unwrap();
        let Feed { next, .. } = world.document().feed;
        let (last, first) = (next - 1, world.document().feed.first().unwrap());
        assert!((first..=first.max(last / 2 + 1)).contains(&world.forget(last / 2).unwrap()));
        assert_eq!(world.forget(last).unwrap(), last + 1, "all of it");
        if outcome == Outcome::Done {
            break;
        }
    }
    world.check();
    world.check_nothing_else_is_stored();
    // A job that is held finds that the document has moved on, and begins again.
    let world = World::new(10).with_memory(true);
    world.bucket.set(keys(0..60));
    world.job(&Budget::UNLIMITED);
    assert_eq!(world.step("job_2", &ONE_PAGE).outcome.unwrap(), Outcome::Continue);
    world.forget(60).unwrap();
    world.bucket.set(keys(0..61));
    let error = world.step("job_2", &Budget::UNLIMITED).outcome.unwrap_err();
    assert!(error.kind() == ErrorKind::StateConflict && error.is_transient());
    let report = world.step("job_2", &Budget::UNLIMITED);
    assert_eq!((report.outcome.unwrap(), report.counts.created), (Outcome::Done, 1));
    assert_eq!(world.kept_changes(9).len(), 1);
    world.check();
}

#[test]
fn what_is_forgotten_is_deleted_by_later_jobs() {
    for tiny in [false, true] {
        let world = World::new(10).with_tiny_thresholds(tiny);
        world.bucket.set(keys(0..60));
        world.job(&ONE_PAGE);
        let before = world.feed_blobs();
        assert!(tiny || before.len() > 3);
        while world.forget(60).unwrap() <= 60 {}
        assert!(world.feed_blobs().is_empty());
        assert_eq!(world.forget(60).unwrap(), 61);
        for round in 2..5 {
            // A reader who has just read the document still finds them, until the root has moved and a job has begun.
            let left = before.iter().filter(|name| world.home.blobs.names().contains(*name)).count();
            assert_eq!(left, if round < 4 { before.len() } else { 0 }, "before round {round}");
            world.bucket.set((0..60).map(|n| entry(&format!("k{n:05}"), if n == 3 { round } else { 1 })));
            world.job(&Budget::UNLIMITED);
            world.check();
            world.check_nothing_else_is_stored();
        }
        assert!(before.iter().all(|name| !world.home.blobs.names().contains(name)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_kept_what_was_read_in_time_is_everything(
        history in proptest::collection::vec(
            (proptest::collection::btree_map("[abc]{1,2}", 1u64..3, 0..20), 0i64..100, 0i64..200, 1usize..30),
            1..10,
        ),
        page_size in 1usize..12,
        stepped: bool,
        tiny: bool,
    ) {
        let world = World::new(page_size).with_tiny_thresholds(tiny);
        let (mut files, mut cursor) = (Files::new(), 0);
        for (state, passes, keeps, reads) in history {
            world.clock.now_ms.set(world.clock.now_ms.get() + passes);
            world.bucket.set(state.iter().map(|(key, version)| entry(key, *version)));
            world.retention.set(Retention { before: Some(world.clock.now().plus_millis(-keeps)), up_to: cursor });
            world.job(if stepped { &ONE_PAGE } else { &Budget::UNLIMITED });
            world.check();
            world.check_nothing_else_is_stored();
            // A sink that reads on from its cursor, however slowly, never meets a gap.
            let page = world.read(cursor, reads);
            for change in page.changes {
                prop_assert_eq!(change.position, cursor + 1);
                cursor = change.position;
                rules::apply(&mut files, &change);
            }
        }
        let rest = world.read(cursor, 10_000);
        rest.changes.iter().for_each(|change| rules::apply(&mut files, change));
        let expected: Files = world.snapshot().into_iter().map(|known| (known.key.clone(), known)).collect();
        rules::assert_same(&files, &expected, "what a sink has in the end");
    }
}

/// Runs [`collect`] as a home does that has seen the sinks take everything, and that keeps nothing for its age.
fn collect_all(world: &World, fence: bool) -> Result<Collected, Error> {
    let retention = Retention { before: None, up_to: world.document().feed.last() };
    world.home.watcher.retention.set(retention);
    world.home.watcher.is_fenced.set(fence);
    block_on(collect(&world.home, &world.home, retention, fence))
}

#[test]
fn while_no_job_runs_what_is_old_is_dropped_and_then_deleted() {
    let world = World::new(10);
    for round in 0..4 {
        world.bucket.set((0..30).map(|n| entry(&format!("k{n:05}"), if n < 5 { round } else { 9 })));
        world.job(&Budget::UNLIMITED);
    }
    let (snapshot, batches) = (world.stored(), world.feed_blobs());
    assert_eq!(batches.len(), 4);
    for more in [true, true, false] {
        let collected = collect_all(&world, false).unwrap();
        assert_eq!((collected.is_more, collected.oldest), (more, None));
        assert_eq!(world.stored(), snapshot, "the snapshot stays");
        world.check();
        world.check_nothing_else_is_stored();
    }
    assert!(world.to_be_deleted().is_empty() && world.feed_blobs().is_empty());
    assert!(batches.iter().all(|name| !world.home.blobs.names().contains(name)));
    let effects = world.home.effects.get();
    collect_all(&world, false).unwrap();
    assert_eq!(world.home.effects.get(), effects, "there is nothing to do, and nothing is written");
    world.bucket.set(keys(0..31));
    world.job(&Budget::UNLIMITED);
    world.check();
}

#[test]
fn a_checkpoint_keeps_all_as_it_is() {
    let world = World::new(10).with_tiny_thresholds(true);
    world.bucket.set(keys(0..60));
    assert_eq!(world.step("job_1", &ONE_PAGE).outcome.unwrap(), Outcome::Continue);
    let document = world.document();
    assert!(document.checkpoint.is_some() && document.feed.last() > 0);
    collect_all(&world, true).unwrap();
    assert_eq!(world.document(), document);
}

#[test]
fn batches_that_a_dead_step_stored_are_found_and_deleted() {
    let mut orphans_seen = 0;
    for at in 1.. {
        let world = World::new(10);
        world.bucket.set(keys(0..30));
        world.job(&Budget::UNLIMITED);
        world.bucket.set(keys(10..40));
        world.clock.now_ms.set(77);
        world.home.breaks_at.set(Some((world.home.effects.get() + at, false)));
        let died = world.step("job_2", &Budget::UNLIMITED).outcome.is_err();
        world.home.breaks_at.set(None);
        world.home.watcher.is_fenced.set(true);
        block_on(collect(&world.home, &world.home, Retention::ALL, true)).unwrap();
        world.home.watcher.is_fenced.set(false);
        let named = world.feed_blobs();
        let listed = world.home.blobs.names();
        let orphans = listed.iter().filter(|name| name.starts_with("feed/") && !named.contains(*name)).count();
        assert!(block_on(delete_orphans(&world.home, &world.home, &listed)).unwrap());
        let left = world.home.blobs.names();
        assert_eq!(left.len(), listed.len() - orphans, "at effect {at}");
        assert!(left.iter().all(|name| !name.starts_with("feed/") || named.contains(name)), "at effect {at}");
        orphans_seen += orphans;
        assert_eq!(world.feed_blobs(), named);
        world.clock.now_ms.set(99);
        world.job(&Budget::UNLIMITED);
        world.check();
        if !died {
            break;
        }
    }
    assert!(orphans_seen > 0);
}

#[test]
fn a_step_that_is_fenced_off_names_nothing_any_more() {
    let world = World::new(10);
    world.bucket.set(keys(0..30));
    world.job(&Budget::UNLIMITED);
    let revision = || block_on(world.home.documents.revision(DOCUMENT)).unwrap();
    let before = revision();
    collect_all(&world, true).unwrap();
    assert!(revision() > before);
    let before = revision();
    block_on(collect(&world.home, &world.home, Retention::ALL, true)).unwrap();
    assert!(revision() > before, "also where there is nothing to do");
}
