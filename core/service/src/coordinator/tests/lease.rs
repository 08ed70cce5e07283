//! Who may run a step, and when: the alarm, the cron, and instances that die.

use super::*;

#[test]
fn a_poke_starts_what_is_due_and_repairs_a_lost_alarm() {
    let world = World::new(keys(5, 100));
    let due = world.status().next_sync_at.unwrap();
    assert_eq!(due, world.now().plus_millis(INTERVAL_MS));
    assert_eq!(world.poke(), Some(due));
    assert_eq!(world.status().runs, 0);
    world.wait(INTERVAL_MS);
    world.inner.alarm.set(None);
    assert_eq!(world.poke(), Some(world.now().plus_millis(POKE_RUNNING_MS)));
    assert_eq!((world.status().runs, world.inner.alarm.get()), (1, Some(world.now())));
    world.inner.alarm.set(None);
    world.poke();
    world.run();
    assert_eq!(world.status().runs, 1);
    world.check();
}

#[test]
fn cron_and_alarm_at_once_make_one_job() {
    let world = World::new(keys(25, 100));
    world.wait(INTERVAL_MS);
    world.at_request(1, |world| {
        world.poke();
        world.poke();
        world.drive();
    });
    world.drive();
    world.drive();
    assert_eq!((world.status().runs, world.status().current_job), (1, None));
    assert_eq!(world.inner.requests.borrow().len(), 4);
    world.check();
}

#[test]
fn a_drive_while_a_step_is_on_its_way_neither_begins_another_nor_asks_to_be_called_at_once() {
    for sole in [true, false] {
        let world = World::new(keys(25, 100)).with_config(|config| {
            config.sole_instance = sole;
        });
        world.trigger();
        let inside = world.clone();
        world.at_request(2, move |_| {
            inside.drive();
            assert!(inside.inner.alarm.get() > Some(inside.now()), "the alarm would go off in a loop");
        });
        world.drive();
        assert_eq!(world.status().last_job.unwrap().cost.steps, 1);
        assert_eq!(world.inner.requests.borrow().len(), 4);
        world.check();
    }
}

#[test]
fn the_lease_of_a_dead_instance_is_taken_over_only_where_there_is_no_other() {
    for sole in [true, false] {
        let world = World::new(keys(25, 100)).with_config(|config| {
            config.sole_instance = sole;
        });
        world.trigger();
        world.inner.break_at.set(Some((world.inner.effects.get() + 3, Break::KillBefore)));
        assert!(world.try_drive().is_none(), "it was to be killed");
        let next = world.next_instance();
        next.drive();
        assert_eq!(next.status().current_job.is_none(), sole);
        assert!(sole || next.inner.alarm.get() > Some(next.now()));
        next.run();
        assert!(sole || next.now() >= Timestamp::from_millis(START + 120_000), "the lease was to be respected");
        next.check();
    }
}

#[test]
fn a_step_whose_lease_lapsed_neither_reports_nor_frees_the_lease_of_another() {
    let world = World::new(keys(35, 4)).with_config(|config| {
        config.budget = Budget { keys_max: 11, wall_ms_max: 120_000, ..Budget::UNLIMITED };
    });
    world.trigger();
    let inside = world.clone();
    world.at_request(2, move |_| {
        inside.wait(3_600_000);
        // Another step is in the middle while the first one comes back to life.
        let mut second = inside.task(None);
        inside.inner.interleaved.set(true);
        for _ in 0..6 {
            let mut context = Context::from_waker(Waker::noop());
            assert!(second.as_mut().poll(&mut context).is_pending());
        }
        inside.inner.interleaved.set(false);
        std::mem::forget(second);
    });
    world.drive();
    let state = world.state();
    assert!(state.lease.is_some(), "the second step's lease");
    assert_eq!(state.status.current_job.unwrap().cost.steps, 0);
    world.next_instance().run();
    world.check();
}

#[test]
pub(super) fn pausing_and_resuming_within_a_step_runs_one_step_at_a_time() {
    for request in 0..5 {
        let world = World::new(keys(35, 4)).a_page_a_step();
        world.trigger();
        let inside = world.clone();
        world.at_request(request, move |_| {
            inside.ask(pause());
            inside.ask(Command::Resume);
            let before = inside.inner.requests.borrow().len();
            inside.drive();
            inside.poke();
            assert_eq!(inside.inner.requests.borrow().len(), before, "two steps at a time");
        });
        world.run();
        assert_eq!(world.status().runs, 2);
        world.check();
    }
}
