//! Jobs from their trigger to their end, and what they cost.

use b2sync_core::warning::{Warning, WarningCode};

use super::*;

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
    // The other one ends its step; or it is killed, and no call, or one whose own step does not begin, comes
    // between.
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
            // Behind the delivery: it has stored where the job is, and no caller hears of it.
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
    assert!(world.only_collects());
    assert_eq!(world.poke(), None);
    world.wait(100 * INTERVAL_MS);
    world.drive();
    assert_eq!(world.poke(), None);
    world.ask(Command::Resume);
    assert_eq!((world.status().runs, world.status().current_job), (2, None));
    world.check();
}

fn codes(warnings: &[Warning]) -> Vec<WarningCode> {
    warnings.iter().map(|warning| warning.code).collect()
}

/// In one step and in many, here and on shards: the patterns that matched nothing are those of the whole listing.
#[test]
fn a_job_names_the_patterns_that_matched_nothing() {
    for (is_one_step, shards) in [(true, 0), (false, 0), (true, 3)] {
        let world = World::new(keys(1, 7)).with_config(|config| config.cut_sizes = Some((16, 64)));
        let world = if is_one_step { world } else { world.a_page_a_step() };
        let bucket = (0..2_000u32).map(|n| (format!("{:08x}", n.wrapping_mul(0x9e37_79b9)), 1));
        *world.inner.bucket.borrow_mut() = bucket.collect();
        world.inner.interleaved.set(shards > 0);
        world.inner.shards.set(shards);
        // One key each, all over the listing.
        let mut include: Vec<String> = world.inner.bucket.borrow().keys().step_by(190).cloned().collect();
        include.extend(["typo*", "[0-9]*", "[a-f]*"].map(str::to_owned));
        world.change_sync(|sync| {
            sync.sync_concurrency = Some(if shards > 0 { 24 } else { 1 });
            sync.filters.include_patterns = include;
            sync.filters.exclude_patterns = vec!["drafts".to_owned()];
        });
        for round in 0..3 {
            let job = world.job();
            let named: Vec<&str> = job.warnings.iter().map(|warning| warning.message.as_str()).collect();
            let expected = [
                "The include pattern \"typo*\" matched no file.",
                "The exclude pattern \"drafts\" matched no file that the other filters pass.",
            ];
            assert_eq!(named, expected, "{is_one_step} {shards} {round}");
            assert!(job.warnings[1].advice.contains("write drafts/"), "{:?}", job.warnings);
            assert_eq!(world.status().warnings, job.warnings);
            if round > 0 {
                assert_eq!((job.counts.changes(), job.cost.state_writes), (0, 0));
                assert_eq!(job.cost.steps > 5, !is_one_step, "{job:?}");
            }
        }
        assert_eq!(world.inner.shard_calls.borrow().is_empty(), shards == 0);
        // Under other filters it is judged again.
        world.change_sync(|sync| sync.filters.include_patterns = vec!["*".to_owned()]);
        assert_eq!(world.job().warnings.len(), 1);
        world.check();
    }
}

#[test]
fn nothing_found_is_a_warning() {
    let world = World::new([]);
    let job = world.job();
    assert_eq!(job.status, JobStatus::Completed);
    assert_eq!(codes(&job.warnings), [WarningCode::NoFiles]);
    assert!(job.warnings[0].message.contains("There are no files"), "{:?}", job.warnings);
    let world = World::new(keys(5, 100));
    world.change_sync(|sync| sync.filters.include_patterns = vec!["*.MP4".to_owned()]);
    let warnings = world.job().warnings;
    assert_eq!(codes(&warnings), [WarningCode::NothingMatched, WarningCode::PatternUnmatched]);
    assert!(warnings[0].message.contains("None of the 5 files") && warnings[1].message.contains("*.MP4"));
    assert_eq!(world.status().warnings, warnings);
}

/// A cap of one call every `seconds_a_call` seconds.
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

    // It holds for the next call, for the cron and for the alarm, and no poll begins before.
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
    *world.inner.answers.borrow_mut() = [gone, None, gone].into(); // The account is asked for again in between.
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
