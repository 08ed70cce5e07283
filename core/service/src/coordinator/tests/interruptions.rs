//! Commands that cross a job: pausing, unlocking, other filters, and deleting the sync.

use super::*;

#[test]
fn pausing_in_the_middle_of_a_step_interrupts_the_job_and_resuming_delivers_everything_once() {
    for request in 0..5 {
        let world = World::new(keys(35, 4));
        let (job, _) = world.trigger();
        world.at_request(request, |world| {
            world.ask(pause());
        });
        world.drive();
        let status = world.status();
        let last = status.last_job.unwrap();
        assert_eq!((&last.job_id, last.status), (&job.job_id, JobStatus::Interrupted));
        assert_eq!((status.state, status.next_sync_at, status.current_job), (SyncState::Suspended, None, None));
        assert_eq!(world.inner.alarm.get(), None);
        assert!(
            world
                .try_ask(Command::Trigger { trigger: Trigger::Manual, confirm_deletes: false, full_sync: false })
                .is_err()
        );
        world.check_stored();
        // It stopped soon.
        assert!(world.inner.requests.borrow().len() as u64 <= request + 2, "{:?}", world.inner.requests);

        world.ask(Command::Resume);
        let resumed = world.status().current_job.unwrap();
        assert_eq!(resumed.trigger, Trigger::Resume);
        world.run();
        assert_eq!(world.status().last_job.unwrap().job_id, resumed.job_id);
        world.check();
    }
}

#[test]
fn what_the_step_of_an_interrupted_job_did_is_counted() {
    let mut appended = 0;
    for request in 1..9 {
        let world = World::new(keys(35, 4)).with_config(|config| config.thresholds.flush_changes_min = 1);
        world.trigger();
        world.at_request(request, |world| {
            world.ask(pause());
        });
        world.drive();
        let (_, _, last) = world.changes(None, 1, 0).unwrap();
        let status = world.status();
        let job = status.last_job.unwrap();
        if job.status == JobStatus::Completed {
            break;
        }
        assert_eq!((job.status, status.feed_last), (JobStatus::Interrupted, last), "{request}");
        assert_eq!((job.counts.changes(), status.total_delivered), (last, last), "{request}");
        assert_eq!(job.cost.class_c, world.inner.requests.borrow().len() as u64, "{request}");
        appended += last;
        // A sink that is added now is fed.
        let world = world.with_sink("other", Manner::Takes);
        world.rest();
        assert_eq!(world.record(1).cursor, last, "{request}");
    }
    assert!(appended > 0, "nothing was appended before a pause");
}

#[test]
fn a_sink_that_is_added_while_a_step_runs_is_fed() {
    for request in 0..5 {
        let world = World::new(keys(35, 4));
        world.change_sync(|sync| sync.sinks = Vec::new());
        world.ask(Command::Configured);
        world.trigger();
        world.at_request(request, |world| {
            world.change_sync(|sync| sync.sinks = crate::registry::usual_sinks());
            world.ask(Command::Configured);
        });
        world.drive();
        world.run();
        world.rest();
        assert_eq!(world.record(0).cursor, 35, "{request}: {:?}", world.state().pumps);
        world.check();
    }
}

/// Every call of a job counts towards the cap, also those of a step whose job was ended while it ran.
#[test]
fn the_calls_of_an_interrupted_step_put_the_next_poll_off() {
    let world = World::new(keys(35, 4));
    world.change_sync(|sync| sync.max_class_c_per_day = Some(100));
    world.trigger();
    world.at_request(3, |world| {
        world.ask(Command::Unlock);
    });
    world.drive();
    let status = world.status();
    let job = status.last_job.unwrap();
    assert_eq!(job.status, JobStatus::Interrupted);
    let wait_ms = job.cost.class_c as i64 * 864_000;
    assert!(job.cost.class_c >= 3 && status.next_sync_at >= Some(job.created_at.plus_millis(wait_ms)), "{job:?}");
    // The history has what was counted last.
    let kept = world.inner.published.borrow().iter().rev().find(|it| it.job_id == job.job_id).cloned().unwrap();
    assert_eq!((kept.counts, kept.cost), (job.counts, job.cost));
}

/// The call that deletes a sync removes its record last. Until then no command makes the sync start over.
#[test]
fn a_deletion_that_is_cut_off_gives_no_position_twice() {
    let world = World::new(keys(35, 100));
    world.job();
    assert_eq!(world.ask(Command::Forget), Answer::Forgotten);
    let trigger = Command::Trigger { trigger: Trigger::Manual, confirm_deletes: false, full_sync: false };
    for _ in 0..5 {
        world.wait(65_000);
        world.drive();
        assert!(world.inner.alarm.get() > Some(world.now()), "the alarm would go off in a loop");
        world.poke();
        assert_eq!(world.try_ask(trigger.clone()).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(world.inner.wipes.get(), 0, "what is wiped forgets that it was deleted");
    }
    // For as long as it is not sent again; but nothing looks at it each minute for ever.
    world.wait(600_000);
    world.drive();
    assert!(world.inner.alarm.get() >= Some(world.now().plus_millis(3_600_000)));
    assert_eq!((world.ask(Command::Forget), world.inner.wipes.get()), (Answer::Forgotten, 0));
    poll_to_end(world.inner.registry.delete_sync(SYNC)).unwrap().unwrap();
    world.drive();
    assert_eq!((world.inner.documents.values(), world.inner.blobs.names()), (Vec::new(), Vec::new()));
    assert_eq!(world.try_ask(trigger).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn pausing_between_two_steps_leaves_no_checkpoint() {
    let commands = [pause(), Command::Unlock];
    for command in commands {
        let world = World::new(keys(35, 4)).a_page_a_step();
        world.trigger();
        world.drive();
        world.drive();
        assert!(world.snapshot().checkpoint.is_some());
        world.ask(command.clone());
        assert_eq!(world.status().last_job.unwrap().status, JobStatus::Interrupted);
        world.check_stored();
        world.ask(Command::Resume);
        world.run();
        world.check();
    }
}

#[test]
fn what_an_interrupted_job_delivered_is_remembered() {
    let all = keys(35, 4);
    // Deleted before the next job lists, and hidden by other filters.
    for hidden in [false, true] {
        for steps in 1..4 {
            let world = World::new(all.clone()).a_page_a_step();
            world.trigger();
            (0..steps).for_each(|_| world.drive());
            world.ask(pause());
            if hidden {
                world.change_sync(|sync| sync.filters.exclude_patterns = vec!["k0001-*".to_owned()]);
            } else {
                world.delete(&all[1]);
            }
            world.put(&all[2], 2);
            world.ask(Command::Resume);
            world.run();
            world.delete(&all[1]);
            world.check();
        }
    }
}

#[test]
fn changing_the_filters_while_a_job_runs_takes_back_what_it_delivered() {
    let all = keys(35, 4);
    let world = World::new(all.clone()).a_page_a_step();
    world.trigger();
    (0..3).for_each(|_| world.drive());
    assert!(world.delivered().contains_key(&all[1]));
    world.change_sync(|sync| sync.filters.exclude_patterns = vec!["k0001-*".to_owned()]);
    world.ask(Command::Configured);
    world.run();
    world.delete(&all[1]);
    world.check();
}

#[test]
fn deletions_that_are_held_are_appended_by_no_later_poll_either() {
    let world = World::new(keys(300, 40));
    world.inner.page_size.set(60);
    let first = world.job();
    assert_eq!(first.error, None);
    let moved: Vec<String> = world.inner.bucket.borrow().keys().map(|key| format!("a{key}")).collect();
    world.inner.bucket.borrow_mut().clear();
    moved.iter().for_each(|key| world.put(key, 1));
    for budget in [60, 120, u64::MAX] {
        let world = world.clone().with_config(|config| config.budget.keys_max = budget);
        let job = world.job();
        assert_eq!((job.error.clone(), job.deletions_held, job.held_keys.len()), (None, 300, 20), "{job:?}");
        let status = world.status();
        assert_eq!((status.deletions_held, &status.held_keys), (300, &job.held_keys));
        assert!(job.warnings[0].advice.contains("confirm_deletes=true"), "{job:?}");
        assert!(status.next_sync_at.unwrap().millis_since(world.now()) <= INTERVAL_MS as u64, "polls go on");
        assert_eq!(world.state().jobs.iter().filter(|job| !job.held_keys.is_empty()).count(), 1);
        world.catch_up();
        assert_eq!(world.delivered().len(), 600, "what is new does not wait");
        let gone = world.feed().iter().filter(|it| it.kind == ChangeKind::Deleted).count();
        assert_eq!(gone, 0);
    }
    world.ask(Command::Trigger { trigger: Trigger::Manual, confirm_deletes: true, full_sync: false });
    world.run();
    world.check();
    assert_eq!((world.status().deletions_held, world.status().held_keys), (0, Vec::new()));
}

#[test]
fn unlocking_gives_a_job_up_and_goes_on_polling() {
    let world = World::new(keys(35, 4));
    let (job, _) = world.trigger();
    world.at_request(2, |world| {
        world.wait(INTERVAL_MS - 1_000);
        world.ask(Command::Unlock);
    });
    world.drive();
    let status = world.status();
    assert_eq!((status.last_job.unwrap().job_id, status.current_job), (job.job_id, None));
    let next = status.next_sync_at.unwrap();
    assert_eq!(next, Timestamp::from_millis(START + INTERVAL_MS));
    world.check_stored();
    world.wait(1_000);
    world.drive();
    assert_eq!(world.status().last_job.unwrap().status, JobStatus::Completed);
    world.check();
}

#[test]
fn forgetting_wipes_everything_even_in_the_middle_of_a_step() {
    for request in [None, Some(0), Some(2)] {
        let world = World::new(keys(35, 4)).a_page_a_step();
        world.trigger();
        world.drive();
        let forget = |world: &World| {
            assert_eq!(world.ask(Command::Forget), Answer::Forgotten);
            // The record goes last, and in between nothing may begin.
            assert_eq!(
                world
                    .try_ask(Command::Trigger { trigger: Trigger::Manual, confirm_deletes: false, full_sync: false })
                    .unwrap_err()
                    .kind(),
                ErrorKind::NotFound
            );
            poll_to_end(world.inner.registry.delete_sync(SYNC)).unwrap().unwrap();
        };
        match request {
            None => forget(&world),
            Some(request) => {
                let inside = world.clone();
                world.at_request(request, move |_| {
                    forget(&inside);
                    inside.drive();
                });
                world.drive();
                world.drive();
            }
        }
        for _ in 0..5 {
            let Some(at) = world.inner.alarm.get() else { break };
            world.wait((at.as_millis() - world.now().as_millis()).max(0));
            world.drive();
        }
        assert_eq!(world.inner.alarm.get(), None);
        assert_eq!(world.inner.blobs.names(), Vec::<String>::new());
        assert_eq!(world.inner.documents.values(), Vec::<Bytes>::new());
        world.drive();
    }
}

#[test]
fn a_sync_that_was_deleted_without_a_word_is_forgotten() {
    let world = World::new(keys(35, 4)).a_page_a_step();
    world.trigger();
    world.drive();
    poll_to_end(world.inner.registry.delete_sync(SYNC)).unwrap().unwrap();
    assert_eq!(world.poke(), None);
    world.drive();
    world.drive();
    assert_eq!((world.inner.alarm.get(), world.inner.blobs.names()), (None, Vec::new()));
}

#[test]
fn a_call_that_finds_a_deleted_sync_wiped_leaves_nothing_behind() {
    let mut context = Context::from_waker(Waker::noop());
    for (turns_before, turns_between) in (0..8).flat_map(|a| (0..16).map(move |b| (a, b))) {
        let world = World::new(keys(5, 100));
        world.job();
        world.inner.interleaved.set(true);
        let trigger = Command::Trigger { trigger: Trigger::Manual, confirm_deletes: true, full_sync: false };
        let mut late = world.task(Some(trigger));
        let mut is_late = (0..turns_before).all(|_| late.as_mut().poll(&mut context).is_pending());
        assert_eq!(world.ask(Command::Forget), Answer::Forgotten);
        poll_to_end(world.inner.registry.delete_sync(SYNC)).unwrap().unwrap();
        world.inner.alarm.set(None);
        let mut wiping = world.task(None);
        let mut is_wiping = (0..turns_between).all(|_| wiping.as_mut().poll(&mut context).is_pending());
        while is_late {
            is_late = late.as_mut().poll(&mut context).is_pending();
        }
        while is_wiping {
            is_wiping = wiping.as_mut().poll(&mut context).is_pending();
        }
        while world.inner.alarm.get().is_some() {
            world.drive();
        }
        assert_eq!(world.inner.documents.values(), Vec::<Bytes>::new(), "{turns_before} {turns_between}");
    }
}

#[test]
fn a_sync_that_was_switched_off_without_a_word_is_paused_and_not_driven_in_a_loop() {
    for poked in [false, true] {
        let world = World::new(keys(5, 100));
        world.change_sync(|sync| sync.is_active = false);
        world.wait(INTERVAL_MS);
        if poked {
            assert_eq!(world.poke(), None);
        } else {
            world.drive();
        }
        assert_eq!((world.status().state, world.inner.alarm.get()), (SyncState::Suspended, None));
        assert_eq!(world.status().runs, 0);
    }
}

#[test]
fn an_interrupted_job_says_what_interrupted_it_and_where_it_was() {
    let pause_because = |reason: Option<&str>| Command::Pause { reason: reason.map(str::to_owned) };
    for (command, kind, says) in [
        (pause_because(None), "paused", "The sync was paused while the job ran."),
        (pause_because(Some("Migration")), "paused", "The reason given: \"Migration\"."),
        (Command::Unlock, "unlocked", "The job was aborted by unlock."),
    ] {
        // Before its first step, amid the first one, and between two.
        for steps in 0..3 {
            let world = World::new(keys(35, 4)).a_page_a_step();
            world.trigger();
            if steps == 1 {
                let command = command.clone();
                world.at_request(1, move |world| {
                    world.ask(command);
                });
            }
            (0..steps).for_each(|_| world.drive());
            world.ask(command.clone());
            let job = world.status().last_job.unwrap();
            let error = job.error.unwrap();
            assert_eq!((job.status, error.kind.as_str()), (JobStatus::Interrupted, kind));
            assert!(error.message.contains(says), "{}", error.message);
            assert_eq!(job.phase, if steps == 0 { Phase::Queued } else { Phase::Discovering }, "{steps}");
            assert_eq!(world.status().last_error, None, "nothing failed");
        }
    }
    let world = World::new(keys(35, 4));
    world.trigger();
    world.ask(Command::Forget);
    assert_eq!(world.state().jobs[0].error.as_ref().unwrap().kind, "deleted");
}

#[test]
fn an_interrupted_job_says_what_it_waited_for() {
    let world = World::new(keys(35, 4));
    world.trigger();
    world.inner.always.set(Some((503, "<Error><Code>SlowDown</Code></Error>")));
    world.drive();
    world.ask(Command::Unlock);
    let error = world.status().last_job.unwrap().error.unwrap();
    assert!(error.kind == "unlocked" && error.message.contains("Before that, a step had failed: "), "{error:?}");
}
