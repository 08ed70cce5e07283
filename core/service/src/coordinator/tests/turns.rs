//! Turns that feed the sinks while no step runs: who may take one, what it leaves alone, what it may spend.

use super::*;
use crate::sinks::pump::DELIVERY_MS_MAX;

fn replay(world: &World, after: u64) {
    world.ask(Command::Replay { sink_id: "catalogue".to_owned(), after });
}

/// A world whose catalogue is due and slow, and a turn that has begun to feed it.
fn in_the_middle(world: &World) -> Task {
    world.sink(0).manner.set(Manner::Slow(5_000));
    let offers = world.sink(0).offers.borrow().len();
    let mut turn = world.task(None);
    let mut context = Context::from_waker(Waker::noop());
    world.inner.interleaved.set(true);
    for _ in 0..100 {
        assert!(turn.as_mut().poll(&mut context).is_pending());
        if world.sink(0).offers.borrow().len() > offers {
            world.inner.interleaved.set(false);
            return turn;
        }
    }
    panic!("it feeds no sink");
}

#[test]
fn while_sinks_are_fed_nothing_else_is_done_and_no_alarm_goes_off_in_a_loop() {
    for sole in [true, false] {
        let world = World::new(keys(35, 100)).with_config(|config| config.sole_instance = sole);
        world.job();
        replay(&world, 0);
        let turn = in_the_middle(&world);
        let offers = world.sink(0).offers.borrow().len();
        for world in [world.clone(), if sole { world.clone() } else { world.next_instance() }] {
            world.drive();
            world.poke();
            assert!(world.inner.alarm.get() > Some(world.now()), "the alarm would go off in a loop");
            let again = world.try_ask(Command::Replay { sink_id: "catalogue".to_owned(), after: 0 }).unwrap_err();
            assert_eq!((again.kind(), again.is_transient()), (ErrorKind::StateConflict, true));
        }
        let (_, started) = world.trigger();
        assert!(started, "the job waits for its turn");
        world.drive();
        assert_eq!(world.sink(0).offers.borrow().len(), offers);
        assert_eq!(world.status().current_job.unwrap().cost.steps, 0);
        poll_to_end(turn).unwrap().unwrap();
        assert_eq!(world.inner.alarm.get(), Some(world.now()));
        world.sink(0).manner.set(Manner::Takes);
        world.run();
        world.check();
    }
}

#[test]
fn a_turn_ends_where_the_next_poll_is_due() {
    let world = World::new(keys(35, 100));
    world.job();
    world.sink(0).manner.set(Manner::Slow(3_000));
    world.wait(INTERVAL_MS - 4_000);
    replay(&world, 0);
    world.drive();
    // It begins no delivery behind the poll's time.
    assert_eq!(world.now(), world.status().next_sync_at.unwrap().plus_millis(2_000));
    assert_eq!(world.record(0).cursor, 14);
    world.drive();
    assert_eq!(world.status().runs, 2);
    world.check();
}

#[test]
fn a_turn_that_dies_is_followed_by_another() {
    for sole in [true, false] {
        let mut world = World::new(keys(35, 100)).with_config(|config| config.sole_instance = sole);
        world.job();
        replay(&world, 0);
        world.inner.break_at.set(Some((world.inner.effects.get() + 4, Break::KillAfter)));
        let lease_ms = 120_000 + LEASE_MARGIN_MS as i64;
        let began = world.now();
        assert!(world.try_drive().is_none(), "it was to be killed");
        world = world.next_instance();
        world.drive();
        assert_eq!(world.record(0).cursor == 35, sole, "{:?}", world.record(0));
        if !sole {
            // The lease of the dead is respected.
            assert!(world.inner.alarm.get() <= Some(began.plus_millis(lease_ms)));
            world.live(lease_ms + 60_000);
        }
        assert_eq!(world.record(0).cursor, 35);
        world.check();
    }
}

#[test]
fn the_cron_repairs_the_lost_alarm_of_a_sink() {
    for paused in [false, true] {
        let world = World::new(keys(35, 100));
        world.job();
        if paused {
            world.ask(pause());
            world.rest();
        }
        replay(&world, 0);
        world.inner.alarm.set(None);
        assert_eq!(world.poke(), Some(world.now()), "look again at once");
        assert_eq!(world.inner.alarm.get(), Some(world.now()));
        world.rest();
        assert_eq!((world.record(0).cursor, world.sink(0).positions().len()), (35, 70));
        assert_eq!(world.poke(), world.status().next_sync_at);
        world.check();
    }
    // Whatever dies in the middle of it.
    for n in 1..10 {
        let mut world = World::new(keys(35, 100));
        world.job();
        world.ask(pause());
        world.rest();
        replay(&world, 0);
        world.inner.break_at.set(Some((world.inner.effects.get() + n, Break::KillBefore)));
        world.inner.alarm.set(None);
        if world.try_drive().is_none() {
            world = world.next_instance();
        }
        world.inner.alarm.set(None);
        world.live(60_000);
        assert_eq!((world.record(0).cursor, world.state().pumps.due_at), (35, None), "{n}");
        world.check();
    }
}

#[test]
fn what_is_asked_for_while_sinks_are_fed_is_not_forgotten() {
    let all = keys(35, 100);
    // Letters that are sent back.
    let world = World::new(all.clone());
    world.sink(0).manner.set(Manner::Refuses(|change| change.position == 3));
    world.job();
    world.put(&all[9], 2);
    world.sink(0).manner.set(Manner::Fails(None));
    world.job();
    world.wait(2_000);
    let turn = in_the_middle(&world);
    assert_eq!(world.ask(Command::Requeue { error_types: Vec::new() }), Answer::Marked { letters: 1 });
    poll_to_end(turn).unwrap().unwrap();
    world.rest();
    assert!(world.record(0).dead_letters.is_empty(), "{:?}", world.record(0));
    world.check();

    // A sink that is added.
    let world = World::new(all);
    world.job();
    replay(&world, 30);
    let turn = in_the_middle(&world);
    let world = world.with_sink("other", Manner::Takes);
    poll_to_end(turn).unwrap().unwrap();
    assert_eq!(world.state().pumps.up_to, 0, "the new one needs everything");
    world.rest();
    assert_eq!(world.record(1).cursor, 35);
    world.check();
}

#[test]
fn a_job_that_is_held_in_memory_outlasts_a_turn() {
    let world = World::new(keys(95, 100)).a_page_a_step();
    world.job();
    world.trigger();
    world.drive();
    world.drive();
    world.inner.always.set(Some((503, "<Error><Code>SlowDown</Code></Error>")));
    world.drive();
    world.inner.always.set(None);
    assert!(world.state().step_not_before > Some(world.now()));
    replay(&world, 0);
    world.drive();
    assert_eq!(world.sink(0).positions().len(), 190, "fed while the job waits");
    world.run();
    let JobRecord { cost, counts, .. } = world.status().last_job.unwrap();
    assert_eq!((cost.steps, counts.listed, cost.state_reads, cost.state_writes), (11, 95, 2, 0));
    world.check();
}

#[test]
fn a_job_that_is_ended_during_a_turn_leaves_no_checkpoint() {
    for command in [pause(), Command::Unlock] {
        let world = World::new(keys(35, 4)).a_page_a_step();
        world.trigger();
        world.drive();
        world.inner.always.set(Some((503, "<Error><Code>SlowDown</Code></Error>")));
        world.drive();
        world.inner.always.set(None);
        assert!(world.snapshot().checkpoint.is_some());
        replay(&world, 0);
        let turn = in_the_middle(&world);
        world.ask(command);
        assert!(world.snapshot().checkpoint.is_some(), "the turn has the lease");
        poll_to_end(turn).unwrap().unwrap();
        assert_eq!((world.state().lease, world.snapshot().checkpoint), (None, None));
        world.sink(0).manner.set(Manner::Takes);
        world.ask(Command::Resume);
        world.run();
        world.check();
    }
}

#[test]
fn a_sync_that_is_deleted_while_its_sinks_are_fed_leaves_nothing_behind() {
    let world = World::new(keys(35, 100)).with_sink("other", Manner::Takes);
    world.job();
    replay(&world, 0);
    let turn = in_the_middle(&world);
    assert_eq!(world.ask(Command::Forget), Answer::Forgotten);
    poll_to_end(world.inner.registry.delete_sync(SYNC)).unwrap().unwrap();
    world.drive();
    assert_eq!(world.inner.wipes.get(), 0, "not while a step writes");
    poll_to_end(turn).unwrap().unwrap();
    while let Some(at) = world.inner.alarm.get() {
        world.wait((at.as_millis() - world.now().as_millis()).max(0));
        world.drive();
    }
    assert_eq!((world.inner.documents.values(), world.inner.blobs.names()), (Vec::new(), Vec::new()));
}

#[test]
fn sinks_spend_what_the_step_has_left_and_a_little_whatever_it_has_spent() {
    // What begins, ends and reports a turn, and the first delivery, which is always made.
    const BESIDE: u64 = 14;
    let world = World::new([]).with_sink("other", Manner::Takes);
    for n in 0..300 {
        world.sink(1).manner.set(Manner::Fails(None));
        world.put(&format!("k{n:03}"), 1);
        world.job();
    }
    let lag = |world: &World| 300 - world.record(1).cursor;
    assert_eq!(lag(&world), 300);
    world.sink(1).manner.set(Manner::Takes);
    world.sink(1).batch_max.set(1_000);
    for internal_requests_max in [0, 200] {
        let world = world.clone().with_config(|config| config.budget.internal_requests_max = internal_requests_max);
        let (most, before) = (internal_requests_max.max(PUMP_CALLS_MIN), lag(&world));
        replay_other(&world, 300 - before);
        let calls = world.inner.calls.get();
        world.drive();
        let calls = world.inner.calls.get() - calls;
        assert!(calls <= most / 2 + BESIDE, "{calls} calls");
        // Half of the calls are the other sink's.
        assert!(before - lag(&world) >= most / 2 - 8, "{} of {before} are left", lag(&world));
    }
    // Behind a step that has spent everything, too.
    let world = world.with_config(|config| config.budget.internal_requests_max = 1);
    let before = lag(&world);
    world.put("z", 1);
    world.trigger();
    world.drive();
    assert!(lag(&world) < before && lag(&world) > before - PUMP_CALLS_MIN, "{} of {before} are left", lag(&world));
    world.check();
}

fn replay_other(world: &World, after: u64) {
    world.ask(Command::Replay { sink_id: "other".to_owned(), after });
}

#[test]
fn a_slow_sink_ends_the_turn_and_not_the_other_sink() {
    let world = World::new(keys(70, 100)).with_sink("other", Manner::Slow(DELIVERY_MS_MAX - 1_000));
    let began = world.now();
    world.job();
    assert_eq!((world.record(0).cursor, world.record(1).cursor), (70, 70));
    let calls = world.sink(1).called_at();
    assert_eq!(calls.len(), 10);
    // Two deliveries of nine seconds a turn: none begins after ten.
    let turns: Vec<u64> = calls.iter().map(|at| at.millis_since(began) / 18_000).collect();
    assert_eq!(turns, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
    assert!(world.sink(0).called_at().iter().all(|at| *at == began));
    world.check();
}

#[test]
fn a_sink_whose_document_cannot_be_read_keeps_the_feed_and_is_not_asked_in_a_loop() {
    let world = World::new(keys(35, 100)).with_sink("other", Manner::Takes);
    world.change_sync(|sync| sync.feed_retention_hours = 1);
    world.job();
    let document = poll_to_end(world.inner.documents.load("sink-other")).unwrap().unwrap().unwrap();
    let swap = |revision, value: &'static [u8]| {
        poll_to_end(world.inner.documents.swap("sink-other", revision, Some(Bytes::from_static(value)))).unwrap()
    };
    swap(document.revision, b"{\"v\":7}").unwrap();
    world.wait(2 * 3_600_000);
    world.put("z", 1);
    world.job();
    assert_eq!(world.record(0).cursor, 36, "the others go on");
    assert_eq!(world.status().sinks, None, "not known at the moment");
    assert!(world.state().pumps.due_at > Some(world.now().plus_millis(60_000)), "{:?}", world.state().pumps);
    assert_eq!(world.state().pumps.up_to, 35);
    let value = Some(document.value);
    poll_to_end(world.inner.documents.swap("sink-other", document.revision + 1, value)).unwrap().unwrap();
    world.catch_up();
    assert_eq!((world.record(1).cursor, world.record(1).state), (36, SinkState::Active));
}
