//! What is deleted between jobs.

use super::*;
use crate::coordinator::{COLLECT_EVERY_MS, ORPHANS_AFTER_MS};

impl World {
    /// The alarm goes off only to delete what nothing needs any more.
    pub(super) fn only_collects(&self) -> bool {
        self.inner.alarm.get() == self.state().collecting.due_at
    }

    /// Batches that the document names.
    fn batches_named(&self) -> usize {
        self.snapshot().feed.tail().unwrap().len()
    }

    fn batches_stored(&self) -> usize {
        self.inner.blobs.names().iter().filter(|name| name.starts_with("feed/")).count()
    }
}

#[test]
fn a_sync_that_finds_nothing_more_still_drops_its_old_batches() {
    let mut world = World::new(keys(35, 100));
    world.change_sync(|sync| (sync.mode, sync.feed_retention_hours) = (SyncMode::OneTime, 3));
    world.job();
    world.put("z", 1);
    world.job();
    assert_eq!((world.status().feed_first, world.status().feed_last), (1, 36));
    assert!(world.batches_stored() >= 2);
    let runs = world.status().runs;
    // The batches are kept for as long as was promised.
    world.live(3 * COLLECT_EVERY_MS - 60_000);
    assert_eq!(world.status().feed_first, 1);
    world.live(5 * COLLECT_EVERY_MS);
    assert_eq!((world.status().feed_first, world.status().feed_last), (37, 36));
    assert_eq!((world.batches_stored(), world.status().runs), (0, runs));
    assert_eq!((world.state().collecting.due_at, world.inner.alarm.get()), (None, None), "nothing is left to do");
    world.put("z", 2);
    world.job();
    assert_eq!((world.status().feed_first, world.status().feed_last), (37, 37));
    assert_eq!(world.delivered().len(), 36);
}

#[test]
fn a_batch_that_a_sink_still_needs_stays() {
    let mut world = World::new(keys(35, 100)).with_sink("other", Manner::Fails(None));
    world.change_sync(|sync| (sync.mode, sync.feed_retention_hours) = (SyncMode::OneTime, 1));
    world.job();
    world.live(12 * COLLECT_EVERY_MS);
    assert_eq!(world.status().feed_first, 1);
    world.sink(1).manner.set(Manner::Takes);
    world.live(4 * COLLECT_EVERY_MS);
    assert_eq!((world.status().feed_first, world.record(1).cursor), (36, 35));
}

#[test]
fn batches_that_a_step_left_behind_when_it_died_are_deleted() {
    let mut orphans_seen = 0;
    for how in [Break::KillBefore, Break::KillAfter, Break::Before, Break::After] {
        for n in 1..14 {
            let mut world = World::new(keys(35, 100));
            world.job();
            world.put("z", 1);
            world.trigger();
            world.inner.break_at.set(Some((world.inner.effects.get() + n, how)));
            if world.try_drive().is_none() {
                world = world.next_instance();
            }
            // The next step finds another version, and appends another batch.
            world.put("z", 2);
            world.wait(5_000);
            world.run();
            orphans_seen += world.batches_stored() - world.batches_named();
            world.live(ORPHANS_AFTER_MS + 60_000);
            assert_eq!(world.batches_named(), world.batches_stored(), "{how:?} {n}");
            assert!(!world.state().collecting.orphans);
            world.check();
        }
    }
    assert!(orphans_seen > 0);
}
