//! Sinks of any manner: each gets the whole feed in order, and none holds another, or a poll.

use super::*;
use crate::sinks::{BACKOFF_BASE_MS, BACKOFF_CAP_MS, DELIVERY_ATTEMPTS_MAX, FAILING_MS_MAX, pump::DELIVERY_MS_MAX};

const HOUR_MS: i64 = 3_600_000;

/// A world with a second sink, and a hundred files.
fn world(manner: Manner) -> World {
    World::new(keys(35, 100)).with_sink("other", manner)
}

/// How far a sink is behind the feed.
fn lag(world: &World, n: usize) -> u64 {
    world.status().feed_last - world.record(n).cursor
}

#[test]
fn sinks_get_the_same_changes_side_by_side() {
    let world = world(Manner::Takes).with_sink("third", Manner::Takes);
    world.sink(1).batch_max.set(100);
    world.sink(2).batch_max.set(1);
    let job = world.job();
    world.check();
    assert_eq!([0, 1, 2].map(|n| world.sink(n).offers.borrow().len()), [5, 1, 35]);
    // Each delivery is one write to the sink's document; what was appended a moment ago is not read again.
    let (reads, writes) = (job.cost.state_reads, job.cost.state_writes);
    assert!(reads <= 3 + 3 && writes <= 41 + 6, "{reads} reads, {writes} writes");
    let status = world.status();
    let cursors: Vec<_> = status.sinks.unwrap().iter().map(|sink| (sink.cursor, sink.taken, sink.failures)).collect();
    assert_eq!(cursors, [(35, 35, 0); 3]);
}

#[test]
fn a_poll_that_finds_nothing_asks_no_sink_and_writes_nothing_for_one() {
    let mut world = world(Manner::Takes);
    world.job();
    for failing in [false, true] {
        if failing {
            // One that backs off is not looked at by each poll either.
            world.sink(1).manner.set(Manner::Fails(Some(BACKOFF_CAP_MS)));
            world.put("z", 1);
            world.job();
        }
        let (offers, revision) = (world.sink(1).offers.borrow().len(), world.record(1));
        let polls = world.status().runs;
        for _ in 0..5 {
            world.live(INTERVAL_MS);
            let cost = world.status().last_job.unwrap().cost;
            assert_eq!((cost.state_reads, cost.state_writes), (2, 0));
        }
        assert_eq!(world.status().runs, polls + 5);
        assert_eq!((world.sink(1).offers.borrow().len(), world.record(1)), (offers, revision));
    }
}

#[test]
fn a_sink_of_any_manner_holds_neither_the_other_nor_a_poll() {
    let manners = [
        (Manner::Slow(4_000), false),
        (Manner::Slow(DELIVERY_MS_MAX - 500), false),
        (Manner::Slow(DELIVERY_MS_MAX + 500), false),
        (Manner::Hangs, false),
        (Manner::Fails(None), false),
        (Manner::Forgets, false),
        (Manner::Refuses(|_| true), false),
        (Manner::Kills, true),
    ];
    for (manner, kills) in manners {
        for first in [false, true] {
            let mut world = World::new(keys(35, 100));
            if first {
                world.inner.sinks.borrow_mut().insert(0, std::rc::Rc::new(TestSink::new("other")));
            } else {
                world = world.with_sink("other", Manner::Takes);
            }
            let (good, bad) = (usize::from(first), usize::from(!first));
            world.sink(bad).manner.set(manner);
            world.ask(Command::Configured);
            world.change_sync(|sync| sync.polling_interval_s = 60);
            let mut late = world.live(INTERVAL_MS + 30_000);
            for n in 0..8 {
                world.put(&format!("new{n}"), 1);
                let runs = world.status().runs;
                late = late.max(world.live(90_000));
                assert!(world.status().runs > runs, "{manner:?}: no poll");
                assert!(kills || lag(&world, good) == 0, "{manner:?}: {:?}", world.record(good));
            }
            let late_max = DELIVERY_MS_MAX + if kills { POKE_RUNNING_MS as u64 } else { 0 };
            assert!(late <= late_max, "{manner:?}: a poll began {late} ms late");
            world.change_sync(|sync| sync.polling_interval_s = 1_200);
            world.live(10 * 60_000);
            assert_eq!(lag(&world, good), 0, "{manner:?}");
            if kills {
                let error = world.record(bad).last_error.unwrap();
                assert!(error.message.contains("cut off") && error.message.contains("other"), "{}", error.message);
                assert_eq!(world.record(bad).state, SinkState::BackingOff);
            }
            // It gets everything once it is well again.
            world.sink(bad).manner.set(Manner::Takes);
            world.live(HOUR_MS + 60_000);
            assert_eq!(lag(&world, bad), 0, "{manner:?}: {:?}", world.record(bad));
            if let Manner::Refuses(_) = manner {
                assert_eq!(world.record(bad).dead_letters.len(), 43);
                poll_to_end(world.send_back("other")).unwrap().unwrap();
            }
            world.check();
        }
    }
}

#[test]
fn a_sink_that_never_answers_counts_as_failed_after_a_while() {
    let world = world(Manner::Hangs);
    let began = world.now();
    world.job();
    assert_eq!(world.now().millis_since(began), DELIVERY_MS_MAX);
    let record = world.record(1);
    let error = record.last_error.unwrap();
    assert!(error.message.contains("\"other\" did not answer within 10 seconds"), "{}", error.message);
    assert_eq!((record.state, record.failures, record.cursor), (SinkState::BackingOff, 1, 0));
    assert_eq!(record.next_attempt_at, Some(world.now().plus_millis(BACKOFF_BASE_MS as i64)));
}

#[test]
fn a_sink_that_fails_is_tried_less_and_less_often_until_it_takes_something() {
    let mut world = world(Manner::Fails(None));
    world.job();
    world.live(6 * HOUR_MS);
    let calls = world.sink(1).called_at();
    let gaps: Vec<u64> = calls.windows(2).map(|pair| pair[1].millis_since(pair[0])).collect();
    let wanted = (0..gaps.len()).map(|n| (BACKOFF_BASE_MS << n.min(20)).min(BACKOFF_CAP_MS));
    assert_eq!(gaps, wanted.collect::<Vec<_>>());
    assert!(gaps.len() >= 14 && gaps.last() == Some(&BACKOFF_CAP_MS));
    let sink = world.status().sinks.unwrap()[1].clone();
    assert_eq!((sink.state, sink.failures as usize), (SinkState::BackingOff, calls.len()));
    assert_eq!((sink.first_failure_at, sink.last_failure_at), (calls.first().copied(), calls.last().copied()));
    assert_eq!(sink.last_error.unwrap().message, "The sink failed. Try again.");
    assert_eq!(sink.next_attempt_at, Some(calls.last().unwrap().plus_millis(BACKOFF_CAP_MS as i64)));

    world.sink(1).manner.set(Manner::Takes);
    world.live(HOUR_MS);
    let sink = world.status().sinks.unwrap()[1].clone();
    assert_eq!((sink.state, sink.failures, sink.last_error, sink.first_failure_at), (SinkState::Active, 0, None, None));
    world.check();

    // From the beginning again, and not before the sink wants to be asked.
    for (wants, wait) in [(None, BACKOFF_BASE_MS), (Some(90_000), 90_000), (Some(u64::MAX), BACKOFF_CAP_MS)] {
        world.sink(1).manner.set(Manner::Fails(wants));
        world.put("z", wait);
        world.job();
        let next = world.record(1).next_attempt_at.unwrap();
        assert_eq!(next.millis_since(*world.sink(1).called_at().last().unwrap()), wait);
        world.sink(1).manner.set(Manner::Takes);
        world.catch_up();
    }
}

#[test]
fn a_sink_that_has_failed_for_a_month_is_switched_off_and_comes_back_by_a_replay() {
    let world = world(Manner::Fails(None));
    world.change_sync(|sync| sync.polling_interval_s = 24 * 3_600);
    world.job();
    world.put("z", 1);
    world.job();
    assert_eq!(lag(&world, 0), 0);
    let began = world.record(1).first_failure_at.unwrap();
    while world.record(1).is_active() {
        assert!(world.now().millis_since(began) <= FAILING_MS_MAX + BACKOFF_CAP_MS);
        let at = world.inner.alarm.get().unwrap();
        world.wait((at.as_millis() - world.now().as_millis()).max(0));
        world.drive();
    }
    assert!(world.now().millis_since(began) >= FAILING_MS_MAX);
    let sink = world.status().sinks.unwrap()[1].clone();
    assert_eq!((sink.state, sink.next_attempt_at, sink.cursor), (SinkState::Disabled, None, 0));
    assert!(sink.last_error.unwrap().message.contains("The sink failed."));
    // It is left alone, and nothing is due.
    let calls = world.sink(1).called_at().len();
    world.job();
    assert_eq!((world.sink(1).called_at().len(), world.state().pumps.due_at), (calls, None));
    assert!(world.only_collects() || world.inner.alarm.get() == world.status().next_sync_at);

    let replay = |after| world.try_ask(Command::Replay { sink_id: "other".to_owned(), after });
    replay(0).unwrap();
    world.rest();
    let record = world.record(1);
    assert_eq!((record.state, record.failures), (SinkState::BackingOff, 1), "it begins to count again");
    world.sink(1).manner.set(Manner::Takes);
    world.check();
}

#[test]
fn a_sink_behind_a_gap_is_switched_off_with_the_reason() {
    let world = World::new(keys(35, 100));
    world.change_sync(|sync| sync.feed_retention_hours = 1);
    world.job();
    world.wait(2 * HOUR_MS);
    world.put("z", 1);
    world.job();
    let first = world.feed().first().unwrap().position;
    assert_eq!(first, 36);
    let world = world.with_sink("late", Manner::Takes);
    world.rest();
    let record = world.record(1);
    let error = record.last_error.clone().unwrap();
    assert_eq!((record.state, record.cursor, error.kind.as_str()), (SinkState::Disabled, 0, "feed_gap"));
    assert!(error.message.contains("1 to 35 are no longer in the feed"), "{}", error.message);
    assert!(world.sink(1).offers.borrow().is_empty(), "nothing is passed over silently");
    assert_eq!(world.state().pumps.due_at, None);

    // Only what is there can be replayed.
    let replay = |after| world.try_ask(Command::Replay { sink_id: "late".to_owned(), after });
    assert_eq!(replay(34).unwrap_err().kind(), ErrorKind::FeedGap);
    assert_eq!(replay(37).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!((world.record(1), world.state().lease), (record, None));
    replay(35).unwrap();
    world.rest();
    assert_eq!((world.sink(1).positions(), world.record(1).state), (vec![36], SinkState::Active));
}

#[test]
fn a_replay_delivers_the_same_again_and_the_catalogue_applies_nothing_twice() {
    let all = keys(35, 100);
    let world = World::new(all.clone()).with_sink("other", Manner::Takes);
    world.job();
    all[..5].iter().for_each(|key| world.put(key, 2));
    world.delete(&all[6]);
    world.job();
    let (rows, jobs, requests) = (world.sink(0).rows(), world.status().runs, world.inner.requests.borrow().len());
    for (sink, after) in [("catalogue", 0), ("catalogue", 33), ("other", 20), ("catalogue", 41)] {
        let n = usize::from(sink == "other");
        let before = world.sink(n).positions().len();
        world.ask(Command::Replay { sink_id: sink.to_owned(), after });
        assert!(after >= 41 || world.inner.alarm.get() == Some(world.now()), "at once");
        world.catch_up();
        assert_eq!(world.sink(n).positions()[before..], (after + 1..=41).collect::<Vec<_>>());
        // The rules of what a sink is offered are those of the check.
        world.check();
    }
    // No cursor goes ahead by it.
    world.sink(1).manner.set(Manner::Fails(None));
    world.put(&all[7], 2);
    world.job();
    world.ask(Command::Replay { sink_id: "other".to_owned(), after: 42 });
    assert_eq!(world.record(1).cursor, 41);
    world.sink(1).manner.set(Manner::Takes);
    world.delete(&all[7]);
    world.job();
    world.check();
    assert_eq!(rows.objects.len() - 1, world.sink(0).rows().objects.len());
    assert_eq!(world.status().runs, jobs + 2);
    assert!(world.inner.requests.borrow().len() > requests);
    let unknown = world.try_ask(Command::Replay { sink_id: "none".to_owned(), after: 0 }).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    assert_eq!(poll_to_end(world.inner.documents.load("sink-none")).unwrap().unwrap(), None);
}

#[test]
fn a_sync_without_sinks_is_a_feed_and_nothing_else() {
    let world = World::new(keys(35, 100));
    world.change_sync(|sync| {
        sync.sinks.clear();
        sync.feed_retention_hours = 1;
    });
    world.ask(Command::Configured);
    assert_eq!(world.inner.alarm.get(), world.status().next_sync_at);
    let job = world.job();
    assert_eq!((world.feed().len(), world.status().sinks), (35, Some(Vec::new())));
    assert!(job.cost.state_reads <= 3 && job.cost.state_writes <= 8, "{:?}", job.cost);
    assert_eq!(world.inner.alarm.get(), world.status().next_sync_at);
    world.check();
    assert!(world.sink(0).offers.borrow().is_empty());
    assert_eq!(poll_to_end(world.inner.documents.load("sink-catalogue")).unwrap().unwrap(), None);
    // Age alone decides what stays.
    world.wait(2 * HOUR_MS);
    world.put("z", 1);
    world.job();
    assert_eq!((world.feed().first().unwrap().position, world.status().feed_first), (36, 36));
}

#[test]
fn a_sink_that_is_added_gets_the_feed_from_its_beginning() {
    let world = World::new(keys(35, 100));
    world.job();
    let world = world.with_sink("new", Manner::Takes);
    world.rest();
    assert_eq!(world.sink(1).positions(), (1..=35).collect::<Vec<_>>());
    world.check();
    // Also where the call that added it was cut off before saying so.
    let third = TestSink::new("third");
    world.inner.sinks.borrow_mut().push(std::rc::Rc::new(third));
    world.wait(INTERVAL_MS);
    world.drive();
    world.check();
}

#[test]
fn letters_sent_back_while_the_sink_backs_off_are_offered_at_once() {
    let all = keys(35, 100);
    let world = World::new(all.clone());
    let sink = world.sink(0);
    sink.manner.set(Manner::Refuses(|change| change.position == 3));
    world.job();
    sink.manner.set(Manner::Fails(None));
    world.put(&all[9], 2);
    world.job();
    for _ in 0..5 {
        world.wait((world.inner.alarm.get().unwrap().as_millis() - world.now().as_millis()).max(0));
        world.drive();
    }
    let (next, calls) = (world.record(0).next_attempt_at.unwrap(), sink.called_at().len());
    assert!(next > world.now());
    assert_eq!(world.ask(Command::Requeue { error_types: Vec::new() }), Answer::Marked { letters: 1 });
    world.rest();
    let offers = sink.offers.borrow()[calls..].to_vec();
    assert_eq!(offers.iter().map(|(at, it)| (*at, it[0].position)).collect::<Vec<_>>(), [(world.now(), 3)]);
    let record = world.record(0);
    assert!(record.next_attempt_at.unwrap() > next, "it failed once more: {record:?}");
    assert!(record.dead_letters.iter().all(|letter| letter.requeued), "the letter is still on its way");
    sink.manner.set(Manner::Takes);
    world.check();
    assert!(world.record(0).dead_letters.is_empty());
}

#[test]
fn where_no_letter_fits_the_sink_stops_and_nothing_is_dropped() {
    let world = World::new([]);
    world.inner.page_size.set(1_000);
    (0..1_030).for_each(|n| world.put(&format!("k{n:04}"), 1));
    world.sink(0).batch_max.set(100);
    world.sink(0).manner.set(Manner::Refuses(|_| true));
    let job = world.job();
    assert_eq!(job.status, JobStatus::Completed, "the job does not mind");
    let record = world.record(0);
    assert_eq!((record.cursor, record.dead_letters.len(), record.state), (1_000, 1_000, SinkState::BackingOff));
    assert!(record.last_error.unwrap().message.contains("the limit of dead letters is reached"));
    assert_eq!(job.counts.failed, 1_000);
    world.sink(0).manner.set(Manner::Takes);
    world.ask(Command::Requeue { error_types: Vec::new() });
    world.check();
}

#[test]
fn refused_changes_are_offered_a_few_times_and_the_others_once() {
    let world = World::new(keys(7, 100));
    world.sink(0).manner.set(Manner::Refuses(|change| change.position % 3 == 0));
    world.job();
    let offers = world.sink(0).offers.borrow().clone();
    let offers: Vec<Vec<u64>> = offers.iter().map(|(_, it)| it.iter().map(|it| it.position).collect()).collect();
    assert_eq!(offers.len(), DELIVERY_ATTEMPTS_MAX as usize);
    assert_eq!(offers, [vec![1, 2, 3, 4, 5, 6, 7], vec![3, 6], vec![3, 6]]);
}
