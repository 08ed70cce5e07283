//! When polls come: at intervals, at times of the day, and at once after what changes that.

use super::*;
use crate::cron::CronSchedule;
use b2sync_core::time::Timestamp;

fn at(text: &str) -> Timestamp {
    Timestamp::parse_iso8601(text).unwrap()
}

/// As a PATCH does it.
fn set_cron(world: &World, cron: &str, timezone: &str) -> Option<Timestamp> {
    let schedule = CronSchedule::new(cron, timezone, world.now()).unwrap();
    world.change_sync(|sync| (sync.mode, sync.cron) = (SyncMode::Scheduled, Some(schedule)));
    world.ask(Command::Configured);
    world.status().next_sync_at
}

fn set_interval(world: &World, seconds: u32) -> Option<Timestamp> {
    world.change_sync(|sync| (sync.polling_interval_s, sync.cron) = (seconds, None));
    world.ask(Command::Configured);
    world.status().next_sync_at
}

/// Lets the time pass until the next poll, and answers when that began.
fn next_poll(world: &World) -> Timestamp {
    let due = world.status().next_sync_at.unwrap();
    world.wait(due.millis_since(world.now()) as i64);
    assert!(world.inner.alarm.get().is_some_and(|at| at <= due), "no alarm");
    world.drive();
    world.run();
    let job = world.status().last_job.unwrap();
    assert_eq!(job.trigger, Trigger::Scheduled);
    job.created_at
}

#[test]
fn polls_come_at_times_of_the_day_to_the_second() {
    // 2024-01-01T00:00:00Z
    let world = World::new(keys(35, 100));
    assert_eq!(set_cron(&world, "0 3 * * *", "Europe/Berlin"), Some(at("2024-01-01T02:00:00Z")));
    let polls: Vec<_> = (0..3).map(|_| next_poll(&world)).collect();
    assert_eq!(polls, ["2024-01-01T02:00:00Z", "2024-01-02T02:00:00Z", "2024-01-03T02:00:00Z"].map(at));
    // Through a change of the clock.
    world.wait(at("2024-03-29T12:00:00Z").millis_since(world.now()) as i64);
    assert_eq!(set_cron(&world, "30 2 * * *", "Europe/Berlin"), Some(at("2024-03-30T01:30:00Z")));
    let polls: Vec<_> = (0..3).map(|_| next_poll(&world)).collect();
    assert_eq!(polls, ["2024-03-30T01:30:00Z", "2024-03-31T01:00:00Z", "2024-04-01T00:30:00Z"].map(at));
    assert_eq!(world.status().next_sync_at, Some(at("2024-04-02T00:30:00Z")));
}

#[test]
fn a_change_of_the_schedule_acts_at_once() {
    let world = World::new(keys(35, 100));
    world.job();
    let began = world.status().last_job.unwrap().created_at;
    world.wait(100_000);
    let now = world.now();
    assert_eq!(set_interval(&world, 3_600), Some(began.plus_millis(3_600_000)), "later");
    assert_eq!(set_interval(&world, 120), Some(began.plus_millis(120_000)), "sooner");
    assert_eq!(world.inner.alarm.get(), Some(began.plus_millis(120_000)));
    // The interval is over already.
    assert_eq!(set_interval(&world, 30), Some(now));
    assert_eq!(world.inner.alarm.get(), Some(now));
    world.drive();
    world.run();
    let began = world.status().last_job.unwrap().created_at;
    assert_eq!((world.status().runs, began), (2, now));
    // To times of the day, and back.
    assert_eq!(set_cron(&world, "0 12 * * *", "UTC"), Some(at("2024-01-01T12:00:00Z")));
    assert_eq!(set_cron(&world, "0 12 * * *", "Asia/Tokyo"), Some(at("2024-01-01T03:00:00Z")));
    assert_eq!(set_interval(&world, 600), Some(began.plus_millis(600_000)));
    // Times before the change are not caught up on, however long ago the latest job began.
    world.wait(13 * 3_600_000);
    assert_eq!(set_cron(&world, "0 12 * * *", "UTC"), Some(at("2024-01-02T12:00:00Z")));
    // What has nothing to do with it changes nothing.
    world.change_sync(|sync| sync.description = Some("x".to_owned()));
    world.ask(Command::Configured);
    assert_eq!(world.status().next_sync_at, Some(at("2024-01-02T12:00:00Z")));
}

/// A user who changes something else again and again puts no poll off.
#[test]
fn a_change_of_something_else_puts_no_poll_off() {
    let world = World::new(keys(35, 100));
    let touch = |world: &World| {
        world.wait(60_000);
        world.ask(Command::Configured);
        world.status().next_sync_at
    };
    // Before the first job, after one that completed, and after one that failed.
    let planned = world.status().next_sync_at;
    assert_eq!(planned, Some(world.now().plus_millis(INTERVAL_MS)));
    assert_eq!((touch(&world), touch(&world)), (planned, planned));
    world.job();
    let planned = world.status().next_sync_at;
    assert_eq!((touch(&world), touch(&world)), (planned, planned));
    world.change_connection(|it| it.is_active = false);
    assert_eq!(world.job().status, JobStatus::Failed);
    let planned = world.status().next_sync_at;
    assert_eq!((touch(&world), touch(&world)), (planned, planned));
}

#[test]
fn a_time_that_passes_while_a_job_runs_has_its_poll_behind_it() {
    let world = World::new(keys(35, 100));
    set_cron(&world, "*/10 * * * *", "UTC");
    world.wait(at("2024-01-01T00:09:50Z").millis_since(world.now()) as i64);
    world.trigger();
    // It takes from before one time to after the next but one, and the poll behind it begins as soon as it has ended.
    world.wait(15 * 60_000);
    world.run();
    let status = world.status();
    let last = status.last_job.unwrap();
    assert_eq!((status.runs, last.trigger), (2, Trigger::Scheduled), "one poll, not two");
    assert_eq!(last.created_at, at("2024-01-01T00:24:50Z"));
    assert_eq!(status.next_sync_at, Some(at("2024-01-01T00:30:00Z")));
    // One that is interrupted needs no other.
    world.trigger();
    world.ask(Command::Unlock);
    assert_eq!(world.status().next_sync_at, Some(at("2024-01-01T00:30:00Z")));
}

#[test]
fn pausing_and_resuming_act_at_once_also_with_times_of_the_day() {
    let world = World::new(keys(35, 100));
    set_cron(&world, "0 3 * * *", "UTC");
    world.trigger();
    world.ask(pause());
    let status = world.status();
    assert_eq!((status.current_job, status.next_sync_at), (None, None));
    assert_eq!(status.last_job.unwrap().status, JobStatus::Interrupted);
    // Paused while a time passes: resuming begins a job, and the next is that of the next day.
    world.wait(5 * 3_600_000);
    world.drive();
    assert_eq!(world.status().runs, 1);
    world.ask(Command::Resume);
    assert_eq!(world.status().current_job.unwrap().created_at, at("2024-01-01T05:00:00Z"));
    world.run();
    assert_eq!(world.status().next_sync_at, Some(at("2024-01-02T03:00:00Z")));
}

#[test]
fn failures_leave_times_out() {
    let world = World::new(keys(35, 100));
    world.change_connection(|it| it.is_active = false);
    set_cron(&world, "*/10 * * * *", "UTC");
    let mut polls = Vec::new();
    for _ in 0..6 {
        let poll = next_poll(&world);
        polls.push(poll.millis_since(at("2024-01-01")) / 60_000);
    }
    assert_eq!(polls, [10, 20, 40, 80, 140, 200], "the interval doubles, up to an hour");
    world.change_connection(|it| it.is_active = true);
    assert_eq!(next_poll(&world), at("2024-01-01T04:20:00Z"));
    assert_eq!(world.status().next_sync_at, Some(at("2024-01-01T04:30:00Z")));
    // Where they are an hour apart or more, none is left out.
    world.change_connection(|it| it.is_active = false);
    assert_eq!(set_cron(&world, "0 */3 * * *", "UTC"), Some(at("2024-01-01T06:00:00Z")));
    for wanted in ["2024-01-01T06:00:00Z", "2024-01-01T09:00:00Z", "2024-01-01T12:00:00Z"] {
        assert_eq!(next_poll(&world), at(wanted));
    }
}

#[test]
fn a_cap_on_class_c_calls_leaves_times_out_and_says_so() {
    let world = World::new(keys(35, 100));
    world.job();
    world.wait(INTERVAL_MS);
    set_cron(&world, "*/10 * * * *", "UTC");
    assert_eq!(world.status().next_sync_at, Some(at("2024-01-01T00:10:00Z")));
    // Five calls, and one call each 5 minutes: 25 minutes after the start of the job.
    world.change_sync(|sync| sync.max_class_c_per_day = Some(cost::DAY_S / 300));
    world.ask(Command::Configured);
    let status = world.status();
    let began = status.last_job.unwrap().created_at;
    assert_eq!(status.next_sync_at, Some(at("2024-01-01T00:30:00Z")));
    let stretched = status.stretched.unwrap();
    assert_eq!(began.plus_millis(stretched.interval_seconds as i64 * 1_000), at("2024-01-01T00:30:00Z"));
    for said in ["at the first time of its cron expression", "at least 1500 seconds", "288 a day"] {
        assert!(stretched.reason.contains(said), "{}", stretched.reason);
    }
    assert_eq!(next_poll(&world), at("2024-01-01T00:30:00Z"));
    // One that leaves every time where it is says nothing.
    world.change_sync(|sync| sync.max_class_c_per_day = Some(cost::DAY_S / 30));
    world.ask(Command::Configured);
    assert_eq!((world.status().next_sync_at, world.status().stretched), (Some(at("2024-01-01T00:40:00Z")), None));
}

/// What another b2sync has stored, and this one cannot read, must not stop the sync.
#[test]
fn a_schedule_that_cannot_be_read_leaves_the_interval() {
    let world = World::new(keys(35, 100));
    set_cron(&world, "0 3 * * *", "UTC");
    world.change_sync(|sync| {
        if let Some(cron) = &mut sync.cron {
            cron.timezone = "Mars/Olympus".to_owned();
        }
    });
    world.ask(Command::Configured);
    assert_eq!(world.status().next_sync_at, Some(at("2024-01-01").plus_millis(INTERVAL_MS)));
}
