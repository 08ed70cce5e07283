//! Changes that a sink refuses: kept, listed, sent back and given up.

use super::*;

fn requeue(world: &World) -> u64 {
    match world.ask(Command::Requeue { error_types: Vec::new() }) {
        Answer::Marked { letters } => letters,
        other => panic!("{other:?}"),
    }
}

fn dead_letters(world: &World, offset: u64, limit: u64) -> (Vec<String>, u64) {
    let command = Command::DeadLetters { only_max_retries: true, error_types: Vec::new(), offset, limit };
    match world.ask(command) {
        Answer::DeadLetters { letters, total } => (letters.into_iter().map(|it| it.key).collect(), total),
        other => panic!("{other:?}"),
    }
}

fn letters(world: &World) -> u64 {
    world.status().sinks.unwrap()[0].dead_letters.values().sum()
}

/// Of each ten positions, it refuses the second and the third.
fn refuses_some(change: &Change) -> bool {
    matches!(change.position % 10, 2 | 3)
}

#[test]
fn dead_letters_are_listed_sent_back_and_given_up() {
    let all = keys(35, 100);
    let world = World::new(all.clone());
    world.job();
    assert_eq!((letters(&world), requeue(&world)), (0, 0));
    world.sink(0).manner.set(Manner::Refuses(|change| change.position > 36));
    for n in [3, 1, 2] {
        world.put(&all[n], 7);
        world.wait(1);
        let job = world.job();
        assert_eq!((job.status, job.counts.updated), (JobStatus::Completed, 1));
        assert_eq!(job.counts.failed, u64::from(n != 3), "{job:?}");
    }
    let status = world.status();
    assert_eq!((letters(&world), status.total_failed, status.total_delivered), (2, 2, 38));
    assert_eq!(status.sinks.unwrap()[0].cursor, 38, "the sink goes on behind what it refuses");
    assert_eq!(dead_letters(&world, 0, 1), (vec![all[2].clone()], 2));
    assert_eq!(dead_letters(&world, 1, 1), (vec![all[1].clone()], 2));
    let offers: Vec<u64> = world.sink(0).offers.borrow().iter().map(|(_, it)| it[0].position).collect();
    assert_eq!(offers[offers.len() - 6..], [37, 37, 37, 38, 38, 38], "each is offered a few times");

    // What was given up stays so, and what is sent back is delivered without a job.
    let error_types = vec![sinks::dead_letters::ERROR_TYPE_REFUSED.to_owned()];
    assert_eq!(world.ask(Command::MarkFailed { error_types }), Answer::Marked { letters: 2 });
    let (jobs, requests) = (world.status().runs, world.inner.requests.borrow().len());
    world.sink(0).manner.set(Manner::Takes);
    assert_eq!(requeue(&world), 2);
    assert_eq!(dead_letters(&world, 0, 9).1, 0, "they are on their way");
    assert_eq!(world.inner.alarm.get(), Some(world.now()), "at once");
    world.rest();
    assert_eq!((letters(&world), world.status().runs, world.status().current_job), (0, jobs, None));
    assert_eq!(world.inner.requests.borrow().len(), requests);
    assert_eq!(requeue(&world), 0);
    world.check();
}

#[test]
fn a_letter_that_is_refused_again_stays_until_it_is_sent_back_again() {
    let world = World::new(keys(35, 100));
    world.sink(0).manner.set(Manner::Refuses(refuses_some));
    world.job();
    assert_eq!(letters(&world), 8);
    for attempts in [6, 9] {
        assert_eq!(requeue(&world), 8);
        world.rest();
        let record = world.record(0);
        assert!(record.dead_letters.iter().all(|it| (it.attempts, it.requeued) == (attempts, false)), "{record:?}");
        assert_eq!((record.state, record.cursor, record.next_attempt_at), (SinkState::Active, 35, None));
    }
    // A newer change of the key takes the letter's place, whether it is refused or taken.
    let refused = world.record(0).dead_letters.requeued();
    assert_eq!(refused, []);
    let keys: Vec<String> = world.record(0).dead_letters.iter().map(|it| it.key.clone()).collect();
    keys.iter().for_each(|key| world.put(key, 2));
    world.job(); // 36 to 43, of which 42 and 43 are refused.
    assert_eq!(letters(&world), 2);
    world.sink(0).manner.set(Manner::Takes);
    requeue(&world);
    world.check();
}

#[test]
fn a_refused_change_does_not_come_after_a_newer_one_of_its_key() {
    let all = keys(3, 100);
    // The older of two changes of a key is refused, once or each time; both are, or the newer one is.
    type Case = (fn(&Change) -> bool, u64);
    let manners: [Case; 3] =
        [(|change| change.position == 4, 0), (|change| change.position >= 4, 1), (|change| change.position == 5, 1)];
    for (refuses, kept) in manners {
        for heals in [false, true] {
            let world = World::new(all.clone());
            world.job();
            let sink = world.sink(0);
            sink.manner.set(Manner::Fails(None));
            for version in [2, 3] {
                world.put(&all[0], version);
                world.job();
            }
            // Both changes are delivered at a time.
            sink.manner.set(Manner::Refuses(refuses));
            sink.heals.set(heals);
            world.catch_up();
            let offers: Vec<usize> = sink.offers.borrow().iter().map(|(_, it)| it.len()).collect();
            assert!(offers.contains(&2), "{offers:?}");
            let kept = if heals { 0 } else { kept };
            assert_eq!(letters(&world), kept);
            assert!(world.record(0).dead_letters.iter().all(|letter| letter.position == 5));
            sink.manner.set(Manner::Takes);
            assert_eq!(requeue(&world), kept);
            world.check();
        }
    }
}

#[test]
fn letters_sent_back_while_a_job_runs_go_with_its_next_step() {
    let world = World::new(keys(35, 100));
    world.sink(0).manner.set(Manner::Refuses(refuses_some));
    world.job();
    world.sink(0).manner.set(Manner::Takes);
    let world = world.a_page_a_step();
    world.trigger();
    world.drive();
    assert_eq!((requeue(&world), letters(&world)), (8, 8));
    world.drive();
    assert_eq!(letters(&world), 0);
    assert!(world.status().current_job.is_some());
    world.run();
    world.check();
}

#[test]
fn a_paused_sync_still_delivers_and_a_deleted_one_does_not() {
    let world = World::new(keys(35, 100));
    world.sink(0).manner.set(Manner::Refuses(refuses_some));
    world.job();
    world.sink(0).manner.set(Manner::Takes);
    world.ask(pause());
    assert_eq!((requeue(&world), world.status().current_job), (8, None));
    world.rest();
    assert_eq!((letters(&world), world.status().state), (0, SyncState::Suspended));
    world.check();
    assert!(world.only_collects());
    world.ask(Command::Forget);
    for command in [
        Command::Requeue { error_types: Vec::new() },
        Command::MarkFailed { error_types: Vec::new() },
        Command::Replay { sink_id: "catalogue".to_owned(), after: 0 },
    ] {
        assert_eq!(world.try_ask(command).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
