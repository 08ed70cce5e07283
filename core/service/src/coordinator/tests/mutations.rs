//! Deliberate defects of what is here: each is seen by [`World::check`].

use super::*;
use b2sync_core::mutation::{self, Mutation};

/// A sink fails in the middle, refuses, gets its letters back, and is replayed; and the feed is as the bucket.
fn run() {
    let all = keys(24, 4);
    let world = World::new(all.clone()).with_sink("other", Manner::Takes);
    world.job();
    world.sink(1).manner.set(Manner::Fails(None));
    all[..9].iter().for_each(|key| world.put(key, 2));
    world.job();
    world.sink(1).manner.set(Manner::Refuses(|change| change.position % 2 == 0));
    world.catch_up();
    world.put(&all[20], 2);
    world.delete(&all[21]);
    world.job();
    world.sink(1).manner.set(Manner::Takes);
    poll_to_end(world.send_back("other")).unwrap().unwrap();
    world.ask(Command::Replay { sink_id: "catalogue".to_owned(), after: 3 });
    world.catch_up();
    world.check();
}

#[test]
fn without_a_defect_nothing_is_seen() {
    run();
}

#[test]
#[should_panic(expected = "other is not what the bucket holds")]
fn a_cursor_that_is_moved_before_the_answer_is_seen() {
    mutation::with(Mutation::MoveCursorEarly, run);
}

#[test]
#[should_panic(expected = "catalogue applied")]
fn a_catalogue_that_applies_changes_twice_is_seen() {
    mutation::with(Mutation::ApplyTwice, run);
}

#[test]
#[should_panic(expected = "other is not what the bucket holds")]
fn letters_that_are_dropped_are_seen() {
    mutation::with(Mutation::DropLetters, run);
}

#[test]
#[should_panic(expected = "two steps at a time")]
fn a_lease_that_is_passed_over_is_seen() {
    mutation::with(Mutation::SkipLease, || {
        lease::pausing_and_resuming_within_a_step_runs_one_step_at_a_time();
    });
}

#[test]
#[should_panic(expected = "still needs")]
fn a_batch_that_is_collected_early_is_seen() {
    mutation::with(Mutation::CollectEarly, reading::retention_keeps_what_an_active_sink_needs);
}
