//! The feed as it is read, waited for, and forgotten.

use super::*;

const HOUR_MS: i64 = 3_600_000;

#[test]
fn changes_are_read_behind_a_position() {
    let world = World::new(keys(35, 100));
    assert_eq!(world.changes(None, 10, 0).unwrap(), (Vec::new(), 1, 0), "there is nothing yet");
    assert_eq!(world.changes(Some(0), 10, 0).unwrap(), (Vec::new(), 1, 0));
    world.job();
    let positions = |after, limit| {
        let (changes, first, last) = world.changes(after, limit, 0).unwrap();
        assert_eq!((first, last), (1, 35));
        changes.into_iter().map(|change| change.position).collect::<Vec<_>>()
    };
    assert_eq!(positions(None, 3), [1, 2, 3]);
    assert_eq!(positions(Some(0), 3), [1, 2, 3]);
    assert_eq!(positions(Some(33), 3), [34, 35]);
    assert_eq!(positions(Some(35), 3), Vec::<u64>::new());
    assert_eq!(positions(Some(7), 0), [8], "at least one");
    assert_eq!(positions(None, u64::MAX).len(), 35);
    for after in [36, u64::MAX] {
        let error = world.changes(Some(after), 3, 0).unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidInput, Some("after")));
    }
    let job = world.status().last_job.unwrap();
    let (changes, ..) = world.changes(Some(0), 1, 0).unwrap();
    assert_eq!((&changes[0].job_id, changes[0].kind), (&job.job_id, ChangeKind::Created));
    assert_eq!((world.status().feed_first, world.status().feed_last), (1, 35));
}

/// Waits for changes behind the newest while `meanwhile` runs after this many looks. Answers the positions, and how
/// long it took from then on.
fn waited(world: &World, wait_ms: u64, looks: u32, meanwhile: impl FnOnce()) -> (Vec<u64>, u64) {
    let (home, after) = (world.home(), Some(world.status().feed_last));
    let coordinator = Coordinator::new(&home);
    let mut reading = Box::pin(coordinator.handle(SYNC, Command::Changes { after, limit: 10, wait_ms }));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..looks {
        assert!(reading.as_mut().poll(&mut context).is_pending());
    }
    let began = world.now();
    meanwhile();
    match poll_to_end(reading).unwrap().unwrap() {
        Answer::Changes { changes, .. } => {
            (changes.into_iter().map(|change| change.position).collect(), world.now().millis_since(began))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn whoever_waits_for_changes_gets_them_as_soon_as_there_are_some() {
    let world = World::new(keys(35, 100));
    world.job();
    assert_eq!(waited(&world, 0, 0, || {}), (Vec::new(), 0));
    for (wait_ms, waits) in [(1, 1), (700, 700), (20_000, 20_000), (600_000, WAIT_MS_MAX)] {
        assert_eq!(waited(&world, wait_ms, 0, || {}), (Vec::new(), waits), "in vain");
    }
    // In the middle of waiting; the poll itself takes no time here.
    for n in 0..5 {
        let position = world.status().feed_last + 1;
        world.put(&format!("new{n}"), 1);
        let (positions, took) = waited(&world, 20_000, n, || {
            world.job();
        });
        assert_eq!(positions, [position]);
        assert!(took <= 250, "{took} ms");
    }
    // What is there is answered at once.
    let before = world.now();
    assert_eq!(world.changes(Some(35), 10, 20_000).unwrap().0.len(), 5);
    // A gap is no reason to wait, nor is a position that is not there yet.
    assert!(world.changes(Some(41), 10, 20_000).is_err());
    assert_eq!(world.now(), before);
}

#[test]
fn whoever_waits_for_changes_of_a_sync_that_is_deleted_is_told() {
    let world = World::new(keys(35, 100));
    world.job();
    let (home, after) = (world.home(), Some(35));
    let coordinator = Coordinator::new(&home);
    let mut reading = Box::pin(coordinator.handle(SYNC, Command::Changes { after, limit: 10, wait_ms: 20_000 }));
    assert!(reading.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    world.ask(Command::Forget);
    let began = world.now();
    assert_eq!(poll_to_end(reading).unwrap().unwrap_err().kind(), ErrorKind::NotFound);
    assert!(world.now().millis_since(began) <= 250);
}

/// Waits for the end of a job while `meanwhile` runs after this many looks. Answers the job, if there is one, and how
/// long it took from then on.
fn waited_for_job(
    world: &World,
    (job_id, wait_ms): (&str, u64),
    looks: u32,
    meanwhile: impl FnOnce(),
) -> (Option<JobRecord>, u64) {
    let home = world.home();
    let coordinator = Coordinator::new(&home);
    let mut reading = Box::pin(coordinator.handle(SYNC, Command::Job { job_id: job_id.to_owned(), wait_ms }));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..looks {
        assert!(reading.as_mut().poll(&mut context).is_pending());
    }
    let began = world.now();
    meanwhile();
    match poll_to_end(reading).unwrap().unwrap() {
        Answer::Job { job } => (job.map(|job| *job), world.now().millis_since(began)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_that_waits_for_a_job_is_answered_as_soon_as_it_ends() {
    let world = World::new(keys(35, 100));
    let status = |job: Option<JobRecord>| job.map(|job| job.status);
    let (running, _) = world.trigger();
    let id = running.job_id.as_str();
    for (wait_ms, waits) in [(0, 0), (1, 1), (700, 700), (600_000, WAIT_MS_MAX)] {
        let (job, took) = waited_for_job(&world, (id, wait_ms), 0, || {});
        assert_eq!((status(job), took), (Some(JobStatus::Running), waits), "in vain");
    }
    // The call holds nothing that a step needs.
    for looks in [1, 2, 3] {
        let (job, _) = world.trigger();
        let (job, took) = waited_for_job(&world, (&job.job_id, 20_000), looks, || {
            world.run();
        });
        assert_eq!(status(job), Some(JobStatus::Completed));
        assert!(took <= 250, "{took} ms");
    }
    // One that has ended, and one that there is not, are answered at once.
    assert_eq!(waited_for_job(&world, (id, 20_000), 0, || {}).1, 0);
    assert_eq!(waited_for_job(&world, ("job_none", 20_000), 0, || {}), (None, 0));
    for command in [Command::Pause { reason: None }, Command::Unlock, Command::Forget] {
        world.ask(Command::Resume);
        let id = world.status().current_job.map_or_else(|| world.trigger().0.job_id, |job| job.job_id);
        let (job, took) = waited_for_job(&world, (&id, 20_000), 1, || {
            world.ask(command.clone());
        });
        assert_eq!(status(job), Some(JobStatus::Interrupted), "{command:?}");
        assert!(took <= 250, "{command:?}: {took} ms");
    }
}

#[test]
fn a_feed_in_many_batches_is_read_in_pages_of_bounded_cost() {
    let world = World::new([]);
    for n in 0..250 {
        world.put(&format!("k{n:03}"), 1);
        world.job();
    }
    let mut after = 0;
    for page in 1.. {
        let calls = world.inner.calls.get();
        let (changes, first, last) = world.changes(Some(after), 1_000, 0).unwrap();
        assert!(world.inner.calls.get() - calls <= PAGE_READS_MAX + 1);
        assert_eq!((first, last, changes[0].position), (1, 250, after + 1));
        after = changes.last().unwrap().position;
        if after == last {
            assert_eq!(page, 3);
            break;
        }
    }
    world.check();
}

#[test]
fn what_retention_has_dropped_is_a_gap_and_not_an_empty_page() {
    let world = World::new(keys(35, 100));
    world.change_sync(|sync| sync.feed_retention_hours = 1);
    world.job();
    world.wait(HOUR_MS - INTERVAL_MS);
    world.put("y", 1);
    world.job();
    assert_eq!(world.feed().len(), 36, "an hour is not over");
    world.wait(2 * INTERVAL_MS);
    world.put("z", 1);
    world.job();
    assert_eq!(world.feed().iter().map(|change| change.position).collect::<Vec<_>>(), [36, 37]);
    let error = world.changes(Some(3), 10, 20_000).unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::FeedGap, Some("after")));
    assert!(error.message().contains("4 to 35") && error.advice().contains("after=35"), "{error}");
    assert_eq!(world.changes(Some(35), 1, 0).unwrap().0.len(), 1);
    assert_eq!((world.status().feed_first, world.status().feed_last), (36, 37));
    // The blobs go, too.
    world.put("z", 2);
    world.job();
    world.put("z", 3);
    world.job();
    let batches = world.inner.blobs.names().into_iter().filter(|name| name.starts_with("feed/")).count();
    assert_eq!(batches, 4);
}

/// An active sink that fails keeps the feed, whatever its age; one that is removed or switched off does not.
#[test]
pub(super) fn retention_keeps_what_an_active_sink_needs() {
    for removed in [true, false] {
        let world = World::new(keys(35, 100)).with_sink("other", Manner::Takes);
        world.change_sync(|sync| sync.feed_retention_hours = 1);
        world.job();
        world.sink(1).manner.set(Manner::Fails(None));
        for n in 0..6 {
            world.put("z", n);
            world.wait(2 * HOUR_MS);
            world.drive();
            world.job();
            let (first, cursor) = (world.changes(None, 1, 0).unwrap().1, world.record(1).cursor);
            assert!(first <= cursor + 1, "the feed begins at {first}, and a sink still needs what is behind {cursor}");
            assert_eq!(cursor, 35);
        }
        assert_eq!(world.feed().first().unwrap().position, 36, "what all have taken goes");
        if removed {
            world.without_sink();
        } else {
            let disable = |record: &mut SinkRecord| {
                record.state = SinkState::Disabled;
                Ok(())
            };
            poll_to_end(SinkRecord::update(&world.inner.documents, "other", disable)).unwrap().unwrap();
        }
        for n in 0..2 {
            world.wait(2 * HOUR_MS);
            world.put("z", 100 + n);
            world.job();
        }
        assert_eq!(world.feed().iter().map(|change| change.position).collect::<Vec<_>>(), [43]);
    }
}

#[test]
fn a_replay_holds_what_it_needs_from_the_very_moment() {
    for n in 1..12 {
        for how in [Break::Before, Break::After, Break::KillBefore, Break::KillAfter] {
            let mut world = World::new(keys(35, 100));
            world.change_sync(|sync| sync.feed_retention_hours = 1);
            world.job();
            world.wait(2 * HOUR_MS);
            world.inner.break_at.set(Some((world.inner.effects.get() + n, how)));
            let replay = Command::Replay { sink_id: "catalogue".to_owned(), after: 10 };
            if poll_to_end(world.task(Some(replay))).is_none() {
                world = world.next_instance();
            }
            let moved = world.record(0).cursor == 10;
            world.sink(0).manner.set(Manner::Fails(None));
            world.put("z", 1);
            for _ in 0..3 {
                world.live(INTERVAL_MS);
            }
            let first = world.changes(None, 1, 0).unwrap().1;
            assert!(!moved || first == 1, "{n} {how:?}: the feed begins at {first}");
            world.sink(0).manner.set(Manner::Takes);
            world.live(HOUR_MS);
            let record = world.record(0);
            assert_eq!((record.cursor, record.state), (36, SinkState::Active));
            assert_eq!(world.sink(0).positions().len(), if moved { 35 + 26 } else { 36 }, "{n} {how:?}");
        }
    }
}
