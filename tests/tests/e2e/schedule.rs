//! When polls come, and what changes that at once.

use std::{thread, time::Duration};

use b2sync_core::time::Timestamp;
use b2sync_tests::service::{Service, ServiceConfig, SyncRef, now_ms, text};
use fake_b2::media::seed_plain_bucket;
use serde_json::{Value, json};

use crate::{BUCKET, Outcome, SOON};

const MINUTE_MS: i64 = 60_000;

fn time(value: &Value, name: &str) -> Result<i64, Box<dyn std::error::Error>> {
    let at = Timestamp::parse_rfc3339(&text(value, name)?).map_err(|error| error.to_string())?;
    Ok(at.as_millis())
}

#[test]
fn a_change_of_the_schedule_acts_at_once() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    seed_plain_bucket(service.fake(), BUCKET, 50, 9)?;
    let it = service.connect("schedule", BUCKET)?;
    let body = json!({
        "connection_id": it.connection_id, "source_path": BUCKET, "sync_mode": "scheduled",
        "polling_interval_seconds": 3_600, "sinks": [],
    });
    let sync = SyncRef::of(&service.create_sync("bkt_schedule", &body)?)?;
    let patch = |body: Value| service.call("PATCH", &sync.path(), Some(&body));
    let first = service.run_job(&sync, SOON)?;
    let began = time(&first, "created_at")?;

    let state = patch(json!({"schedule": {"cron": "0 3 * * *", "timezone": "Europe/Berlin"}}))?;
    let next = time(&state, "next_sync_at")?;
    // 03:00 in Berlin is 01:00 or 02:00 UTC.
    assert!([1, 2].contains(&(next / 3_600_000 % 24)) && next % 3_600_000 == 0, "{state}");
    assert!(next > now_ms() && next < now_ms() + 25 * 3_600_000, "{state}");
    assert_eq!(state["schedule"]["next_run_at"], state["next_sync_at"], "{state}");
    let (status, refused) = service.ask("PATCH", &sync.path(), Some(&json!({"schedule": {"cron": "0 0 31 2 *"}})))?;
    assert_eq!((status, &refused["error"]["type"]), (422, &json!("ValidationError")), "{refused}");

    // Each minute: the alarm begins the job on the minute.
    let known = service.job_ids(&sync)?;
    let state = patch(json!({"schedule": {"cron": "* * * * *"}}))?;
    let next = time(&state, "next_sync_at")?;
    assert!(next % MINUTE_MS == 0 && next <= now_ms() + MINUTE_MS, "{state}");
    let job = service.wait_for_new_job(&sync, &known, SOON + Duration::from_secs(10))?;
    assert_eq!((&job["status"], &job["trigger"]), (&json!("completed"), &json!("scheduled")), "{job}");
    let late_ms = time(&job, "created_at")? - next;
    assert!((0..5_000).contains(&late_ms), "{late_ms} ms late: {job}");
    let began_again = time(&job, "created_at")?;
    assert!(began_again > began);

    // And back: from the start of the latest job.
    let state = patch(json!({"schedule": null}))?;
    assert_eq!(time(&state, "next_sync_at")?, began_again + 3_600_000, "{state}");
    let state = patch(json!({"polling_interval_seconds": 600}))?;
    assert_eq!(time(&state, "next_sync_at")?, began_again + 600_000, "{state}");
    // An interval that is over already: the next poll is due.
    thread::sleep(Duration::from_millis(u64::try_from(began_again + 31_000 - now_ms()).unwrap_or(0)));
    let known = service.job_ids(&sync)?;
    patch(json!({"polling_interval_seconds": 30}))?;
    let job = service.wait_for_new_job(&sync, &known, Duration::from_secs(10))?;
    assert_eq!((&job["status"], &job["trigger"]), (&json!("completed"), &json!("scheduled")), "{job}");
    Ok(())
}
