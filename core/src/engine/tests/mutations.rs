//! Deliberate defects of the engine and the feed: in a story that all of them run through, each is seen.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::mutation::{self, Mutation};

/// Everything that a world does, with few files.
fn story() {
    for (tiny, budget) in [(false, Budget::UNLIMITED), (true, ONE_PAGE)] {
        let world = World::new(5).with_tiny_thresholds(tiny);
        world.retention.set(Retention { before: Some(Timestamp::from_millis(-150)), up_to: 40 });
        world.bucket.set(keys(0..60));
        world.job(&budget);
        world.check();
        // Some of every kind; a version from before the newest one, and another of the same time.
        let mut entries = keys(3..70);
        entries[9] = entry("k00012", 2);
        entries[20] = Entry { etag: "f".repeat(32), ..entry("k00023", 1) };
        world.bucket.set(entries.clone());
        let report = world.job(&budget);
        assert_eq!((report.counts.created, report.counts.updated, report.counts.deleted), (10, 2, 3));
        world.check();
        let poll = world.job(&Budget::UNLIMITED);
        assert_eq!(poll.cost.state_writes, 0, "a poll that finds nothing writes nothing");
        // What cannot be read is there.
        world.bucket.unreadable.borrow_mut().extend(["k00012", "k00040"].map(str::to_owned));
        assert_eq!(world.job(&budget).counts.deleted, 0, "an entry that cannot be read is not gone");
        world.bucket.unreadable.borrow_mut().clear();
        // What is taken and old goes, as later jobs move on.
        for round in 3..8 {
            world.clock.now_ms.set(round as i64 * 100);
            entries[30] = entry("k00033", round);
            world.bucket.set(entries.clone());
            world.retention.set(Retention { before: Some(world.clock.now().plus_millis(-150)), up_to: 40 });
            world.job(&budget);
            world.check();
            world.check_nothing_else_is_stored();
        }
        // A listing that breaks off is not the end of it.
        world.bucket.fails_at.set(world.bucket.calls.get() + 3);
        world.job(&budget);
        world.check();
        // A step has its limits, and a job as well.
        world.bucket.set(keys(0..200));
        world.objects_max.set(Some(7));
        let limited = world.step("job_limited", &Budget { internal_requests_max: 200, ..Budget::UNLIMITED });
        assert!(limited.outcome.unwrap() == Outcome::Done && limited.limited && limited.counts.changes() == 7);
        world.objects_max.set(None);
        let short = world.step("job_short", &Budget { keys_max: 20, ..Budget::UNLIMITED });
        assert_eq!(short.outcome.unwrap(), Outcome::Continue);
        world.job(&budget);
        world.check();
    }
    asked_for();
    listing::goes_on_or_ends(2, 2_100, 1);
}

/// What is not asked for stays out of the feed.
fn asked_for() {
    let mut world = World::new(10);
    world.bucket.set(keys(0..30));
    world.job(&Budget::UNLIMITED);
    world.reconcile = Reconcile { on_update: false, ..Reconcile::default() };
    world.bucket.set((0..30).map(|n| entry(&format!("k{n:05}"), 2)));
    assert_eq!(world.job(&Budget::UNLIMITED).counts.changes(), 0);
    world.confirm_deletes = false;
    world.deletion_limit = DeletionLimit { percent: 10, files: 1 };
    world.bucket.set(keys(0..10));
    assert!(world.step("job_many", &Budget::UNLIMITED).held_back.is_some());
}

#[test]
fn the_story_is_as_it_should_be() {
    story();
}

#[test]
fn each_defect_is_seen() {
    for (defect, seen_by) in [
        (Mutation::MoveRootEarly, "no change tells why"),
        (Mutation::Watermark, "no change tells why"),
        (Mutation::DeleteEarly, "before the listing was read to its end"),
        (Mutation::AppendEarly, "a batch that is named can be read"),
        (Mutation::ReusePosition, "positions are dense"),
        (Mutation::CollectEarly, "in spite of"),
        (Mutation::SplitSwap, "no change tells why"),
        (Mutation::IgnoreBudget, "left: Done"),
        (Mutation::DeleteNamed, "are missing"),
        (Mutation::IgnoreDeletionLimit, "job_many"),
        (Mutation::IgnoreObjectsMax, "limited.counts.changes() == 7"),
        (Mutation::IgnoreReconcile, "right: 0"),
        (Mutation::AlwaysCreated, "where Some"),
        (Mutation::OneName, "its hash is another"),
        (Mutation::AlwaysMoveRoot, "writes nothing"),
        (Mutation::SameGeneration, "of the same generation"),
        (Mutation::TrustLastModified, "no change tells why"),
        (Mutation::AdvanceOnError, "before the listing was read to its end"),
        (Mutation::RestUnwoken, "will wake it"),
        (Mutation::TakeUnreadableAsGone, "is not gone"),
    ] {
        let told = mutation::with(defect, || catch_unwind(AssertUnwindSafe(story)));
        let told = told.map_err(|told| match told.downcast::<String>() {
            Ok(told) => *told,
            Err(told) => told.downcast::<&str>().map_or_else(|_| String::new(), |told| (*told).to_owned()),
        });
        assert!(told.as_ref().is_err_and(|told| told.contains(seen_by)), "{defect:?}: {told:?}");
    }
}
