//! The coordinator in a home in memory: commands that cross a step, steps that fail, instances that die.

mod simulation;
mod world;

use std::task::{Context, Waker};

use self::world::*;
use super::*;
use crate::registry::{CONNECTION_FAILURES_MAX, ConnectionStatus};
use b2sync_core::{
    engine::budget::EXTERNAL_REQUESTS_RESERVED,
    entry::Entry,
    sink::{Change, ChangeKind},
};

const INTERVAL_MS: i64 = 300_000;

fn pause() -> Command {
    Command::Pause { reason: None }
}

#[test]
fn a_triggered_job_runs_to_its_end() {
    let world = World::new(keys(35, 100));
    let (job, started) = world.trigger();
    assert!(started && job.status == JobStatus::Running && job.phase == Phase::Queued);
    assert_eq!(world.inner.alarm.get(), Some(world.now()), "it begins at once");
    assert_eq!(world.run(), 1);
    let status = world.status();
    let last = status.last_job.clone().unwrap();
    assert_eq!((last.job_id, last.status, last.counts.created), (job.job_id.clone(), JobStatus::Completed, 35));
    assert_eq!((status.files_known, status.bytes_known, status.total_delivered, status.runs), (35, 35, 35, 1));
    assert_eq!(status.next_sync_at, Some(world.now().plus_millis(INTERVAL_MS)));
    assert_eq!(world.inner.alarm.get(), status.next_sync_at);
    assert_eq!(world.inner.published.borrow().len(), 1);
    assert!(world.connection().account.is_some() && world.connection().authorized_at.is_some());
    world.check();

    // A poll that finds nothing stores nothing and is not history.
    let (blobs, generation) = (world.inner.blobs.names(), world.snapshot().root.generation);
    world.wait(INTERVAL_MS);
    world.drive();
    assert_eq!(world.status().runs, 2);
    assert_eq!(world.status().last_job.unwrap().trigger, Trigger::Scheduled);
    assert_eq!((world.inner.blobs.names(), world.snapshot().root.generation), (blobs, generation));
    assert_eq!(world.inner.published.borrow().len(), 1);
}

#[test]
fn everything_a_job_asks_of_b2_is_in_its_cost() {
    let world = World::new(keys(35, 100));
    let job = world.job();
    assert_eq!(job.cost.class_c, world.inner.requests.borrow().len() as u64);
    assert_eq!(job.cost.class_c, 5, "an authorization and four pages");
    assert_eq!(world.job().cost.class_c, 4, "the account is cached");
}

#[test]
fn shards_read_for_their_coordinator() {
    for (shard_fails, streams) in [(0, 6), (0, 24), (3, 24)] {
        let world = World::new(keys(1, 7)).with_config(|config| config.cut_sizes = Some((16, 64)));
        let bucket = (0..2_000u32).map(|n| (format!("{:08x}", n.wrapping_mul(0x9e37_79b9)), 1));
        *world.inner.bucket.borrow_mut() = bucket.collect();
        world.inner.interleaved.set(true);
        world.inner.shards.set(3);
        world.inner.shard_fails.set(shard_fails);
        world.change_sync(|sync| sync.sync_concurrency = Some(streams));
        for changed in [0u32, 1, 400] {
            (0..changed).for_each(|n| world.put(&format!("{:08x}", n.wrapping_mul(0x0070_7070)), 2));
            let (calls, pages) = (world.inner.shard_calls.borrow().len(), world.inner.requests.borrow().len());
            let job = world.job();
            assert_eq!((job.status, &job.error), (JobStatus::Completed, &None));
            world.check();
            world.check_stored();
            let calls = world.inner.shard_calls.borrow().len() - calls;
            assert_eq!(calls > 0, streams > 6, "{calls} calls with {streams} streams");
            if shard_fails == 0 {
                let pages = world.inner.requests.borrow().len() - pages;
                assert_eq!(job.cost.class_c, pages as u64, "what shards asked of B2 is in the job's cost");
            }
        }
        let asked: std::collections::BTreeSet<usize> = world.inner.shard_calls.borrow().iter().copied().collect();
        assert_eq!(asked.len(), if streams > 6 { 3 } else { 0 }, "{asked:?}");
    }
}

#[test]
fn a_full_sync_hands_everything_over_where_duplicates_are_not_skipped() {
    let world = World::new(keys(35, 100)).a_page_a_step();
    assert_eq!(world.job().counts.created, 35);
    for (skip_duplicates, full_sync, handed_over) in
        [(true, true, 0), (false, false, 0), (false, true, 35), (false, false, 0)]
    {
        world.change_sync(|sync| sync.skip_duplicates = skip_duplicates);
        world.ask(Command::Trigger { trigger: Trigger::Manual, confirm_deletes: false, full_sync });
        world.run();
        let counts = world.status().last_job.unwrap().counts;
        assert_eq!((counts.created, counts.updated, counts.deleted), (0, handed_over, 0));
        assert_eq!(world.delivered().len(), 35);
        world.check_stored();
    }
}

#[test]
fn the_first_authorization_is_within_the_budget_of_its_step() {
    // Each authorization and each page takes one attempt more than the one before.
    for failures in 0..4_usize {
        let retry = RetryPolicy { backoff_base_ms: 0, ..RetryPolicy::DEFAULT };
        let world = World::new(keys(600, 100)).with_config(|config| {
            (config.retry, config.budget.external_requests_max) = (retry, 40);
        });
        let busy = Some((503, "<Error><Code>ServiceUnavailable</Code></Error>"));
        let storm = || [vec![busy; failures], vec![None]].concat();
        *world.inner.answers.borrow_mut() = (0..20).flat_map(|_| storm()).collect();
        world.trigger();
        world.drive();
        let asked = world.inner.requests.borrow().len();
        // The last page was asked for with as much in hand as a page may take, the authorization counted.
        let reserved = usize::try_from(EXTERNAL_REQUESTS_RESERVED).unwrap();
        assert!(asked <= 40 - reserved + failures + 1, "{asked} requests with {failures} failures before each answer");
        // No less than what a step keeps in hand, and one page and its failures, is left unused.
        assert!(asked + reserved + failures + 1 > 40, "{asked} requests with {failures} failures before each answer");
        assert_eq!(world.status().current_job.map(|job| job.status), Some(JobStatus::Running));
        let authorizations = world.inner.requests.borrow().iter().filter(|it| it.contains("authorize")).count();
        assert_eq!(authorizations, failures + 1);
    }
}

#[test]
fn a_second_trigger_is_told_of_the_first() {
    let world = World::new(keys(35, 100)).a_page_a_step();
    let (first, _) = world.trigger();
    for _ in 0..3 {
        let (second, started) = world.trigger();
        assert!(!started);
        assert_eq!(second.job_id, first.job_id);
        world.poke();
        world.drive();
    }
    world.run();
    assert_eq!(world.status().runs, 1);
    world.check();
}

#[test]
fn a_small_budget_takes_a_step_for_every_page() {
    let world = World::new(keys(35, 100)).a_page_a_step();
    world.trigger();
    assert_eq!(world.run(), 4);
    let job = world.status().last_job.unwrap();
    assert_eq!((job.cost.steps, job.counts.listed, job.counts.created), (4, 35, 35));
    world.check();
}

#[test]
fn an_instance_holds_a_job_that_finds_nothing_from_step_to_step() {
    let world = World::new(keys(95, 100)).a_page_a_step();
    world.job();
    let requests = || world.inner.requests.borrow().len();
    let (before, stored) = (requests(), world.snapshot());
    let JobRecord { cost, counts, .. } = world.job();
    assert_eq!((cost.steps, counts.listed, cost.state_reads, cost.state_writes), (10, 95, 2, 0));
    assert_eq!((requests() - before, world.snapshot()), (10, stored));

    // A step that fails takes nothing away.
    world.trigger();
    world.drive();
    world.inner.always.set(Some((503, "<Error><Code>SlowDown</Code></Error>")));
    world.drive();
    world.inner.always.set(None);
    world.run();
    let JobRecord { cost, counts, .. } = world.status().last_job.unwrap();
    assert_eq!((cost.steps, counts.listed, cost.state_reads, cost.state_writes), (11, 95, 2, 0));

    // What appears meanwhile, and ahead, is found.
    world.trigger();
    world.drive();
    world.drive();
    world.put("z", 1);
    world.run();
    assert_eq!(world.status().last_job.unwrap().counts.created, 1);
    world.check();
}

#[test]
fn a_job_that_its_instance_has_lost_stores_how_far_it_comes() {
    let world = World::new(keys(95, 100)).a_page_a_step();
    world.job();
    world.trigger();
    (0..4).for_each(|_| world.drive());
    assert_eq!(world.status().current_job.unwrap().counts.listed, 40);
    let mut next = world.next_instance();
    // However often it is lost from here on, it gets further.
    for _ in 0..30 {
        if next.status().current_job.is_none() {
            break;
        }
        next.drive();
        next = next.next_instance();
    }
    let job = next.status().last_job.unwrap();
    assert!(job.counts.listed == 95 && job.cost.steps <= 16 && job.cost.state_writes > 0, "{job:?}");
    next.check();
}

#[test]
fn what_an_instance_holds_does_not_count_once_another_has_taken_a_step() {
    // The other one ends its step; or it is killed, and nobody, or somebody whose own step does not begin, comes between.
    for story in 0..6 {
        let world = World::new(keys(95, 100)).a_page_a_step().with_config(|config| config.sole_instance = false);
        world.job();
        world.trigger();
        (0..3).for_each(|_| world.drive());
        world.put("a", 1);
        let other = world.next_instance();
        if story == 0 {
            other.drive();
        } else {
            // Behind the delivery: it has stored where the job is, and nobody hears of it.
            let before = world.delivered().len();
            for at in 1.. {
                world.inner.break_at.set(Some((world.inner.effects.get() + at, Break::KillBefore)));
                assert!(other.try_drive().is_none(), "it was to be killed");
                if world.delivered().len() > before {
                    break;
                }
                world.wait(1_000_000);
            }
            assert!(world.snapshot().checkpoint.is_some());
            world.wait(1_000_000);
        }
        if story > 1 {
            world.inner.break_at.set(Some((world.inner.effects.get() + story - 1, Break::Before)));
            let _ = other.next_instance().try_drive().expect("killed");
            world.inner.break_at.set(None);
        }
        // And what the other has found is gone again before this one goes on.
        world.delete("a");
        world.run();
        assert!(world.snapshot().checkpoint.is_none(), "{story}: {:?}", world.snapshot());
        world.job();
        world.check();
    }
}

#[test]
fn a_job_whose_first_steps_fail_before_they_read_is_held_all_the_same() {
    let world = World::new(keys(95, 100)).a_page_a_step();
    world.job();
    world.change_connection(|connection| connection.authorized_at = None);
    world.trigger();
    world.inner.always.set(Some((503, "<Error><Code>SlowDown</Code></Error>")));
    world.drive();
    world.wait(STEP_BACKOFF_CAP_MS as i64);
    world.drive();
    world.inner.always.set(None);
    world.run();
    let JobRecord { cost, counts, .. } = world.status().last_job.unwrap();
    assert_eq!((cost.steps, counts.listed, cost.state_reads, cost.state_writes), (12, 95, 2, 0));
}

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
    let (state, _) = poll_to_end(Coordinator::new(&world.home()).load(SYNC)).unwrap().unwrap();
    assert!(state.lease.is_some(), "the second step's lease");
    assert_eq!(state.status.current_job.unwrap().cost.steps, 0);
    world.next_instance().run();
    world.check();
}

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
            // Refused again after the account was asked for anew.
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
    // From now on B2 is left alone, until somebody says that the key works.
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
fn a_job_that_used_up_its_failures_leaves_no_checkpoint() {
    let world = World::new(keys(35, 4)).a_page_a_step();
    world.trigger();
    world.drive();
    world.drive();
    assert!(world.snapshot().checkpoint.is_some());
    world.inner.always.set(Some((503, "<Error><Code>SlowDown</Code></Error>")));
    world.run();
    assert_eq!(world.status().last_job.unwrap().status, JobStatus::Failed);
    world.check_stored();
}

#[test]
fn pausing_and_resuming_within_a_step_runs_one_step_at_a_time() {
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
fn a_job_that_would_delete_too_much_does_so_at_no_later_poll_either() {
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
        assert_eq!(job.error.unwrap().kind, "too_many_deletions");
        world.check_stored();
        let gone = world.inner.sink.deliveries().iter().filter(|it| it.kind == ChangeKind::Deleted).count();
        assert_eq!(gone, 0);
    }
    world.ask(Command::Trigger { trigger: Trigger::Manual, confirm_deletes: true, full_sync: false });
    world.run();
    world.check();
}

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
            assert_eq!(deleted(&world), 0, "{how:?} {effect}: {before} were deleted");
            world.check_delivered();
        }
    }
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
        assert_eq!(world.inner.documents.values(), Vec::<bytes::Bytes>::new());
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
        assert_eq!(world.inner.documents.values(), Vec::<bytes::Bytes>::new(), "{turns_before} {turns_between}");
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
fn a_one_time_sync_completes_and_never_polls_again() {
    let world = World::new(keys(5, 100));
    world.change_sync(|sync| sync.mode = SyncMode::OneTime);
    world.ask(Command::Configured);
    assert_eq!((world.status().next_sync_at, world.inner.alarm.get()), (None, None));
    // A failure that may pass is tried again by itself.
    world.inner.always.set(Some((503, "<Error><Code>SlowDown</Code></Error>")));
    world.job();
    assert!(world.status().next_sync_at.is_some());
    world.inner.always.set(None);
    world.wait(INTERVAL_MS);
    world.drive();
    assert_eq!((world.status().state, world.status().next_sync_at), (SyncState::Completed, None));
    assert_eq!((world.inner.alarm.get(), world.poke()), (None, None));
    world.wait(100 * INTERVAL_MS);
    world.drive();
    assert_eq!(world.poke(), None);
    world.ask(Command::Resume);
    assert_eq!((world.status().runs, world.status().current_job), (2, None));
    world.check();
}

#[test]
fn nothing_found_is_a_warning() {
    let world = World::new([]);
    let job = world.job();
    assert_eq!(job.status, JobStatus::Completed);
    assert!(job.warning.unwrap().contains("There are no files below b2://my-videos"));
    let world = World::new(keys(5, 100));
    world.change_sync(|sync| sync.filters.include_patterns = vec!["*.MP4".to_owned()]);
    let warning = world.job().warning.unwrap();
    assert!(warning.contains("Nothing matched: 5 files") && warning.contains("*.MP4"), "{warning}");
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

/// A cap of one call every so many seconds.
fn cap(world: &World, seconds_a_call: u64) {
    world.change_sync(|sync| sync.max_class_c_per_day = Some(cost::DAY_S / seconds_a_call));
    world.ask(Command::Configured);
}

#[test]
fn a_cap_on_class_c_calls_stretches_the_interval_and_says_so() {
    let world = World::new(keys(35, 100));
    world.job();
    let begun = world.job().created_at; // Four pages, and no authorization.
    assert_eq!((world.status().stretched, world.status().completed_cost.unwrap().class_c), (None, 4));
    cap(&world, 240);
    let status = world.status();
    // The first job made five calls, and began before: the later of the two ends decides.
    let (first, second) = (1_200_000, 960_000);
    let first_began = status.last_sync_at.unwrap().min(begun);
    assert_eq!(status.next_sync_at, Some(first_began.plus_millis(first).max(begun.plus_millis(second))));
    let stretched = status.stretched.unwrap();
    assert_eq!(stretched.interval_seconds, 1_200);
    assert!(
        stretched.reason.contains("max_class_c_per_day") && stretched.reason.contains("360 a day"),
        "{}",
        stretched.reason
    );

    // It holds for whoever comes next, for the cron and for the alarm, and no poll begins before.
    let world = world.next_instance();
    world.wait(first - 1_000);
    world.poke();
    world.drive();
    assert_eq!((world.status().runs, world.status().next_sync_at), (2, status.next_sync_at));
    world.wait(1_000);
    world.drive();
    assert_eq!(world.status().runs, 3);

    // A trigger is not held back. What it made counts as well, and does not shorten what others reserved.
    let before = world.status().next_sync_at.unwrap();
    world.wait(INTERVAL_MS);
    let triggered = world.job().created_at;
    assert_eq!(world.status().next_sync_at, Some(triggered.plus_millis(second).max(before)));
    let gone = Some((404, "<Error><Code>NoSuchBucket</Code></Error>"));
    *world.inner.answers.borrow_mut() = [gone, None, gone].into(); // The account is asked for anew in between.
    world.wait(1_000);
    let failed = world.job();
    assert_eq!(failed.status, JobStatus::Failed);
    assert_eq!(world.status().next_sync_at, Some(triggered.plus_millis(second)), "it is no way around the cap");

    // Without the cap it polls as before.
    world.change_sync(|sync| sync.max_class_c_per_day = None);
    world.ask(Command::Configured);
    assert_eq!(world.status().stretched, None);
    assert!(world.status().next_sync_at < Some(triggered.plus_millis(second)));
}

#[test]
fn a_cap_that_is_kept_anyway_changes_nothing() {
    let world = World::new(keys(35, 100));
    cap(&world, 60);
    world.job();
    assert_eq!(world.status().stretched, None, "five calls, 300 seconds");
    assert_eq!(world.status().next_sync_at, Some(world.now().plus_millis(INTERVAL_MS)));
    world.change_sync(|sync| sync.mode = SyncMode::OneTime);
    cap(&world, 3_600);
    assert_eq!((world.status().next_sync_at, world.status().stretched), (None, None), "it polls never");
}

fn refuse(world: &World, key: &str) -> Change {
    let entry = Entry { key: key.to_owned(), etag: "e".to_owned(), size: 1, last_modified: world.now() };
    let change = Change::appeared("sync_1", ChangeKind::Created, entry);
    let home = world.home();
    let refused = DeadLetters::change(home.documents(), |letters| letters.refuse(&change, "full", 3, world.now()));
    poll_to_end(refused).unwrap().unwrap();
    change
}

fn requeue(world: &World) -> (u64, Option<JobRecord>) {
    match world.ask(Command::Requeue { error_types: Vec::new() }) {
        Answer::Marked { letters, job } => (letters, job.map(|job| *job)),
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

#[test]
fn dead_letters_are_listed_sent_back_and_given_up() {
    let world = World::new(keys(5, 100));
    world.job();
    assert_eq!(world.status().dead_letters, Some(Default::default()));
    assert_eq!(requeue(&world), (0, None), "there is nothing to start a job for");
    for key in ["a", "b", "c"] {
        refuse(&world, key);
        world.wait(1);
    }
    assert_eq!(world.status().dead_letters.unwrap().values().sum::<u64>(), 3);
    assert_eq!(dead_letters(&world, 0, 2), (vec!["c".to_owned(), "b".to_owned()], 3));
    assert_eq!(dead_letters(&world, 2, 2), (vec!["a".to_owned()], 3));
    let error_types = vec![b2sync_core::dead_letters::ERROR_TYPE_REFUSED.to_owned()];
    assert_eq!(world.ask(Command::MarkFailed { error_types }), Answer::Marked { letters: 3, job: None });
    let (letters, job) = requeue(&world);
    assert_eq!((letters, job.map(|job| job.trigger)), (3, Some(Trigger::Manual)));
    assert_eq!(dead_letters(&world, 0, 9).1, 0, "they are on their way");
    world.run();
    assert_eq!(world.status().last_job.unwrap().status, JobStatus::Completed);
}

#[test]
fn letters_sent_back_while_a_job_runs_go_with_the_next_which_begins_at_once() {
    let world = World::new(keys(35, 100)).a_page_a_step();
    world.change_sync(|sync| {
        sync.mode = SyncMode::OneTime;
        sync.max_class_c_per_day = Some(1);
    });
    refuse(&world, "a");
    let (running, _) = world.trigger();
    assert_eq!(requeue(&world), (1, None));
    world.run();
    assert_eq!(world.status().next_sync_at, Some(world.now()));
    world.run();
    world.drive();
    world.run();
    let status = world.status();
    assert_eq!((status.runs, status.last_job.unwrap().status), (2, JobStatus::Completed));
    assert!(world.inner.published.borrow().iter().any(|job| job.job_id == running.job_id));
    assert_eq!(world.status().next_sync_at, None, "once");
}

#[test]
fn letters_sent_back_to_a_paused_or_deleted_sync_start_nothing() {
    let world = World::new(keys(5, 100));
    refuse(&world, "a");
    world.ask(pause());
    assert_eq!(requeue(&world), (1, None));
    assert_eq!(world.status().current_job, None);
    world.ask(Command::Forget);
    let error = world.try_ask(Command::Requeue { error_types: Vec::new() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// One job over a bucket with changes, broken once at its n-th effect.
fn broken_at(n: u64, how: Break) -> (World, bool) {
    let all = keys(24, 4);
    let mut world = World::new(all.clone()).a_page_a_step();
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
        if world.status().current_job.is_none() {
            break;
        }
    }
    (world.clone(), world.inner.effects.get() >= first + n)
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
            if !reached {
                break;
            }
        }
    }
}
