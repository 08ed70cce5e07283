//! Steps that fail: what is tried again, what is blamed, and what is remembered.

use super::*;

#[test]
fn transient_failures_wait_longer_and_longer_and_then_fail_the_job() {
    let world = World::new(keys(35, 4));
    world.inner.always.set(Some((503, "<Error><Code>SlowDown</Code></Error>")));
    world.trigger();
    for failed in 1..STEP_FAILURES_MAX {
        world.drive();
        let wait = STEP_BACKOFF_BASE_MS << (failed - 1);
        let at = world.now().plus_millis(wait as i64);
        assert_eq!(world.inner.alarm.get(), Some(at));
        let requests = world.inner.requests.borrow().len();
        world.drive();
        world.poke();
        assert_eq!(world.inner.requests.borrow().len(), requests, "too early");
        assert_eq!(world.status().current_job.unwrap().error.unwrap().kind, "rate_limited");
        world.wait(wait as i64);
    }
    world.drive();
    let status = world.status();
    assert_eq!(status.last_job.unwrap().status, JobStatus::Failed);
    assert_eq!((status.state, status.consecutive_failures), (SyncState::Active, 1));
    assert_eq!(status.next_sync_at, Some(world.now().plus_millis(INTERVAL_MS)));
    assert_eq!(world.connection().consecutive_failures, 0, "B2's fault, not the connection's");

    // The polls after it come less and less often.
    for stretched in [2, 4, 8, 12, 12] {
        world.wait(INTERVAL_MS * 12);
        world.drive();
        world.run();
        let next = world.status().next_sync_at.unwrap();
        assert_eq!(next.millis_since(world.now()), (INTERVAL_MS * stretched) as u64);
    }
    world.inner.always.set(None);
    world.job();
    assert_eq!((world.status().consecutive_failures, world.status().last_error), (0, None));
    world.check();
}

#[test]
fn a_failed_step_forgets_nothing_that_was_known() {
    let world = World::new(keys(35, 4));
    world.job();
    for n in 0..20 {
        world.put(&format!("new{n}"), 1);
    }
    let failing: [fn(&World); 3] = [
        // Before the engine begins, at its first page, and at its second.
        |world| world.change_connection(|it| it.is_active = false),
        |world| world.inner.always.set(Some((503, "<Error><Code>SlowDown</Code></Error>"))),
        |world| {
            // Refused again after the account was asked for again.
            let gone = Some((404, "<Error><Code>NoSuchBucket</Code></Error>"));
            *world.inner.answers.borrow_mut() = [None, gone, None, gone].into()
        },
    ];
    for fail in failing {
        fail(&world);
        let job = world.job();
        let status = world.status();
        assert_eq!(job.status, JobStatus::Failed, "{job:?}");
        assert_eq!((status.files_known, status.bytes_known, job.known_before), (35, 35, 35));
        world.change_connection(|it| it.is_active = true);
        world.inner.always.set(None);
    }
    world.job();
    world.check();
}

#[test]
fn a_permanent_failure_ends_the_job_and_is_noted_with_the_connection() {
    const DENIED: (u16, &str) = (401, r#"{"code":"bad_auth_token","message":"","status":401}"#);
    let world = World::new(keys(5, 100));
    for failures in 1..=CONNECTION_FAILURES_MAX {
        world.inner.answers.borrow_mut().push_back(Some(DENIED));
        let job = world.job();
        assert_eq!((job.status, job.error.unwrap().kind.as_str()), (JobStatus::Failed, "bad_credentials"));
        assert_eq!((world.status().state, world.status().consecutive_failures), (SyncState::Failed, failures));
        let connection = world.connection();
        let suspended = failures == CONNECTION_FAILURES_MAX;
        assert_eq!(connection.consecutive_failures, failures);
        assert_eq!(connection.status, if suspended { ConnectionStatus::Suspended } else { ConnectionStatus::Failed });
        assert_eq!(connection.is_active, !suspended);
    }
    // From now on B2 is left alone, until a user says that the key works.
    let asked = world.inner.requests.borrow().len();
    let job = world.job();
    let error = job.error.unwrap();
    assert_eq!((job.status, error.kind.as_str(), error.transient), (JobStatus::Failed, "conflict", false));
    assert!(error.message.contains("SUSPENDED") && error.message.contains("/test"), "{}", error.message);
    assert_eq!((world.inner.requests.borrow().len(), job.cost.class_c), (asked, 0));
    assert_eq!(world.connection().consecutive_failures, CONNECTION_FAILURES_MAX);
    world.change_connection(|it| it.note_success(it.updated_at));
    assert_eq!(world.job().status, JobStatus::Completed);
    let connection = world.connection();
    assert_eq!((connection.status, connection.consecutive_failures), (ConnectionStatus::Active, 0));
    assert_eq!((connection.last_error, world.status().state), (None, SyncState::Active));
    // Nothing is written while it just works.
    world.job();
    assert_eq!(world.connection().revision, connection.revision);
}

#[test]
fn a_lifted_suspension_begins_at_once_what_failed() {
    let world = World::new(keys(5, 100));
    let lift = |world: &World| world.ask(Command::ConnectionLifted);
    lift(&world);
    assert_eq!(world.status().runs, 0, "nothing failed yet: the first poll is planned");
    world.change_connection(|it| it.is_active = false);
    assert_eq!(world.job().status, JobStatus::Failed);
    world.change_connection(|it| it.is_active = true);
    world.ask(pause());
    lift(&world);
    assert_eq!(world.status().runs, 1, "a paused sync stays so");
    world.ask(Command::Resume);
    world.change_connection(|it| it.is_active = false);
    world.run();
    assert_eq!(world.status().last_job.unwrap().status, JobStatus::Failed);
    world.change_connection(|it| it.is_active = true);
    lift(&world);
    assert_eq!(world.inner.alarm.get(), Some(world.now()));
    lift(&world);
    world.run();
    let status = world.status();
    let last = status.last_job.clone().unwrap();
    assert_eq!((last.status, last.trigger, status.runs), (JobStatus::Completed, Trigger::Resume, 3));
    lift(&world);
    assert_eq!(world.status().runs, 3, "what completed goes on with its next poll");
    world.check();
}

#[test]
fn credentials_that_were_replaced_meanwhile_are_not_blamed_and_do_not_get_the_old_account() {
    let world = World::new(keys(5, 100));
    let replace = |world: &World| world.change_connection(|it| it.key_id = "006".to_owned());
    world.at_request(0, replace);
    world.job();
    assert_eq!(world.connection().account, None, "it is that of the old key");
    world.inner.answers.borrow_mut().push_back(Some((401, r#"{"code":"bad_auth_token","message":"","status":401}"#)));
    world.at_request(0, |world| world.change_connection(|it| it.key_id = "007".to_owned()));
    assert_eq!(world.job().status, JobStatus::Failed);
    assert_eq!(world.connection().consecutive_failures, 0);
}

#[test]
fn a_connection_that_was_switched_off_meanwhile_stays_so() {
    let world = World::new(keys(5, 100));
    world.at_request(0, |world| {
        world.change_connection(|it| {
            it.is_active = false;
            it.status = ConnectionStatus::Suspended;
        });
    });
    world.job();
    assert_eq!(world.connection().status, ConnectionStatus::Suspended);
}

#[test]
fn a_deleted_connection_fails_the_job_with_what_to_do() {
    let world = World::new(keys(35, 4)).a_page_a_step();
    world.trigger();
    world.drive();
    world.change_connection(|it| {
        it.archived = true;
        it.application_key = None;
    });
    world.run();
    let job = world.status().last_job.unwrap();
    assert_eq!(job.status, JobStatus::Failed);
    assert!(job.error.unwrap().message.contains("another connection"));
    world.check_stored();
}

#[test]
fn a_store_that_shows_a_value_a_minute_late_fails_no_job() {
    let world = World::new(keys(35, 4));
    world.job();
    world.put("k0003", 1);
    world.inner.invisible_until.set(Some((world.now().as_millis() + 75_000, "index/")));
    let job = world.job();
    assert_eq!(job.status, JobStatus::Completed, "{:?}", job.error);
    world.check();
}

#[test]
fn a_job_whose_record_could_not_be_published_is_published_later() {
    let world = World::new(keys(35, 4));
    world.inner.publish_fails.set(true);
    let job = world.job();
    assert_eq!((job.status, world.inner.published.borrow().len()), (JobStatus::Completed, 0));
    world.trigger();
    world.ask(pause());
    assert!(world.connection().account.is_some(), "noted all the same");
    world.inner.publish_fails.set(false);
    world.ask(Command::Resume);
    world.run();
    let published: Vec<_> = world.inner.published.borrow().iter().map(|job| job.status).collect();
    assert_eq!(published, [JobStatus::Completed, JobStatus::Interrupted]);
}

#[test]
fn a_record_that_cannot_be_read_fails_the_job_or_is_left_alone() {
    let world = World::new(keys(5, 100));
    world.job();
    let connection_id = world.connection().connection_id;
    world.inner.registry.damage(&connection_id);
    let job = world.job();
    assert_eq!((job.status, job.error.unwrap().kind.as_str()), (JobStatus::Failed, "state_corrupt"));
    // Of a sync nothing can be done, and nothing is, in a loop.
    world.inner.registry.damage(SYNC);
    world.wait(3_600_000);
    let runs = world.status().runs;
    world.drive();
    assert_eq!(world.status().runs, runs);
    assert!(world.inner.alarm.get().is_some_and(|at| at.millis_since(world.now()) >= 3_600_000));
}
