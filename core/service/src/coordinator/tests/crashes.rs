//! Instances that die, and stores that fail, at any effect.

use super::*;

#[test]
fn a_file_that_is_there_again_after_a_job_died_while_deleting_is_there_again() {
    for how in [Break::KillBefore, Break::KillAfter, Break::Before, Break::After] {
        for effect in 1..12 {
            let mut world = World::new(keys(35, 4));
            world.job();
            world.change_sync(|sync| sync.filters.exclude_patterns = vec!["k00[12]*".to_owned()]);
            world.trigger();
            let deleted = |world: &World| 35 - world.delivered().len();
            world.inner.break_at.set(Some((world.inner.effects.get() + effect, how)));
            if world.try_drive().is_none() {
                world = world.next_instance();
            }
            let before = deleted(&world);
            world.change_sync(|sync| sync.filters.exclude_patterns.clear());
            world.job();
            world.catch_up();
            assert_eq!(deleted(&world), 0, "{how:?} {effect}: {before} were deleted");
            world.check();
        }
    }
}

/// One job over a bucket with changes and two sinks, broken once at its n-th effect.
fn broken_at(n: u64, how: Break) -> (World, bool) {
    let all = keys(24, 4);
    let mut world = World::new(all.clone()).with_sink("other", Manner::Takes).a_page_a_step();
    world.sink(1).batch_max.set(3);
    world.job();
    world.put(&all[3], 2);
    world.put("k0002z", 1);
    world.delete(&all[9]);
    world.delete(&all[10]);
    world.trigger();
    let first = world.inner.effects.get();
    world.inner.break_at.set(Some((first + n, how)));
    for _ in 0..200 {
        match world.try_drive() {
            None => world = world.next_instance(),
            Some(Err(error)) => assert_eq!(error.kind(), ErrorKind::Storage),
            Some(Ok(())) => {}
        }
        // The alarm may be lost with the step: the cron is the watchdog.
        world.wait(10_000);
        let _ = poll_to_end(world.task(Some(Command::Poke { at: world.now() })));
        if world.status().current_job.is_none() && world.state().pumps.due_at.is_none() {
            break;
        }
    }
    (world.clone(), world.inner.effects.get() >= first + n)
}

/// A store that fails, or whose answer is lost, ends no instance: what the job did is counted, and once.
#[test]
fn what_a_job_did_is_counted_once_though_a_store_fails() {
    for how in [Break::Before, Break::After] {
        for n in 1.. {
            let all = keys(24, 4);
            let mut world = World::new(all.clone()).with_sink("other", Manner::Takes).a_page_a_step();
            world.sink(1).manner.set(Manner::Refuses(|change| change.position > 24));
            world.job();
            world.put(&all[3], 2);
            world.put("k0002z", 1);
            world.delete(&all[9]);
            world.trigger();
            let (first, asked) = (world.inner.effects.get(), world.inner.requests.borrow().len());
            world.inner.break_at.set(Some((first + n, how)));
            world.live(60_000);
            let status = world.status();
            let job = status.last_job.clone().unwrap();
            assert_eq!(status.current_job, None, "{how:?} {n}");
            assert_eq!(job.cost.class_c as usize, world.inner.requests.borrow().len() - asked, "{how:?} {n}");
            assert_eq!((job.counts.changes(), world.record(1).dead_letters.len()), (3, 3), "{how:?} {n}");
            // A sink whose document did not answer counts none, and those of a turn of its own are not the job's.
            assert!(job.counts.failed <= status.total_failed && status.total_failed <= 3, "{how:?} {n}: {status:?}");
            assert!(world.record(1).last_error.is_none(), "{how:?} {n}: {:?}", world.record(1));
            if world.inner.effects.get() < first + n {
                break;
            }
        }
    }
}

#[test]
fn a_break_at_every_effect_ends_the_same() {
    for how in [Break::Before, Break::After, Break::KillBefore, Break::KillAfter] {
        for n in 1.. {
            let (world, reached) = broken_at(n, how);
            world.check();
            let status = world.status();
            assert_eq!(status.last_job.as_ref().unwrap().status, JobStatus::Completed, "{how:?} {n}");
            assert_eq!(status.runs, 2, "{how:?} {n}: the same job goes on");
            assert_eq!(status.files_known, 23, "{how:?} {n}");
            assert!(world.inner.alarm.get().is_some());
            // No more than one delivery is repeated.
            for (sink, most) in [(0, 7), (1, 3)] {
                let (taken, all) = (world.sink(sink).positions().len(), world.status().feed_last as usize);
                assert!(taken <= all + most, "{how:?} {n}: {taken} of {all}");
            }
            if !reached {
                break;
            }
        }
    }
}

/// Letters that are sent back, and a replay, broken once at the n-th effect.
fn sent_back_broken_at(n: u64, how: Break) -> (World, bool) {
    let mut world = World::new(keys(24, 4)).with_sink("other", Manner::Takes);
    world.sink(0).manner.set(Manner::Refuses(|change| change.position % 5 == 0));
    world.job();
    world.sink(0).manner.set(Manner::Takes);
    world.ask(pause());
    world.rest();
    let first = world.inner.effects.get();
    world.inner.break_at.set(Some((first + n, how)));
    for command in
        [Command::Requeue { error_types: Vec::new() }, Command::Replay { sink_id: "other".to_owned(), after: 9 }]
    {
        // A client that gets no answer, or an error, asks again.
        for attempt in 0.. {
            assert!(attempt < 20, "{how:?} {n}: {command:?} never succeeds");
            match poll_to_end(world.task(Some(command.clone()))) {
                None => world = world.next_instance(),
                Some(Ok(())) => break,
                Some(Err(error)) => assert!(error.is_transient(), "{error}"),
            }
            // The other command waits for a lease that was left behind.
            world.live(60_000);
        }
    }
    world.live(600_000);
    (world.clone(), world.inner.effects.get() >= first + n)
}

#[test]
fn a_break_at_every_effect_of_sending_back_ends_the_same() {
    for how in [Break::Before, Break::After, Break::KillBefore, Break::KillAfter] {
        for n in 1.. {
            let (world, reached) = sent_back_broken_at(n, how);
            assert!(world.record(0).dead_letters.is_empty(), "{how:?} {n}: {:?}", world.record(0));
            assert!(world.sink(1).positions().len() >= 24 + 15, "{how:?} {n}");
            assert_eq!(world.state().pumps.due_at, None, "{how:?} {n}");
            world.check();
            if !reached {
                break;
            }
        }
    }
}

#[test]
fn letters_that_were_sent_back_are_delivered_though_nobody_asks_again() {
    for how in [Break::Before, Break::After, Break::KillBefore, Break::KillAfter] {
        for n in 1..8 {
            let mut world = World::new(keys(24, 4));
            world.sink(0).manner.set(Manner::Refuses(|change| change.position % 5 == 0));
            world.job();
            world.sink(0).manner.set(Manner::Takes);
            world.inner.break_at.set(Some((world.inner.effects.get() + n, how)));
            if poll_to_end(world.task(Some(Command::Requeue { error_types: Vec::new() }))).is_none() {
                world = world.next_instance();
            }
            let sent_back = world.record(0).dead_letters.iter().all(|letter| letter.requeued);
            world.live(120_000);
            let left = world.record(0).dead_letters.len();
            assert_eq!(left, if sent_back { 0 } else { 4 }, "{how:?} {n}");
        }
    }
}
