//! The demo's scenario: first everything, then exactly what changed.

use b2sync_core::filter::FilterSpec;
use b2sync_core::time::Timestamp;
use b2sync_tests::service::{Service, ServiceConfig, SyncRef, changes, expected_objects, now_ms, number, text};
use b2sync_tests::twin::Twin;
use fake_b2::content::Content;
use fake_b2::keys::NewKey;
use fake_b2::media::seed_media_bucket;
use fake_b2::model::NewFile;
use serde_json::json;

use crate::{BUCKET, Outcome, SOON, change_ids, versions};

/// Written by hand: it must not be the filter under test.
fn takes(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    (name.ends_with(".mp4") || name.ends_with(".jpg") || name.ends_with(".txt"))
        && !name.contains("_thumbnail.")
        && !key.starts_with("podcast/")
}

#[test]
fn first_everything_then_exactly_what_changed() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    let fake = service.fake();
    fake.create_bucket(BUCKET)?;
    seed_media_bucket(fake, BUCKET, 2_500, 3)?;
    let key = fake.create_key(NewKey::unrestricted().for_buckets(&[BUCKET]))?;
    let now = Timestamp::from_millis(now_ms());
    let large =
        fake.start_large(BUCKET, "raw/2026/large.mp4", NewFile::generated(0, 0), now.plus_millis(-7_200_000))?;

    let connection = service.create_connection("scenario", &key.key_id, &key.secret)?;
    let include = ["*.mp4", "*.jpg", "*.txt"].map(str::to_owned).to_vec();
    let exclude = ["*_thumbnail.*", "podcast/**"].map(str::to_owned).to_vec();
    let sync = SyncRef::of(&service.create_sync(
        "bkt_scenario",
        &json!({
            "connection_id": text(&connection, "connection_id")?,
            "source_path": format!("b2://{BUCKET}/"),
            "sync_mode": "scheduled",
            "polling_interval_seconds": 3_600,
            "include_patterns": include,
            "exclude_patterns": exclude,
        }),
    )?)?;
    let filters = FilterSpec { include_patterns: include, exclude_patterns: exclude, ..FilterSpec::default() };
    let mut twin = Twin::new(fake, &sync.id, &format!("b2://{BUCKET}/"), &filters, &key)?;

    let before = expected_objects(fake, BUCKET, takes);
    let job = service.run_job(&sync, SOON)?;
    assert_eq!(job["status"], "completed", "{job}");
    assert_eq!(changes(&job), (before.len() as u64, 0, 0), "{job}");
    assert_eq!(number(&job, "/progress/files_listed"), 2_500, "{job}");
    assert_eq!(job["progress_percent"], 100.0, "{job}");
    let first = service.check_objects("bkt_scenario", &before)?;
    assert!(versions(&first).values().all(|version| *version == 1));
    assert_eq!(twin.run(now)?.len(), before.len());
    assert_eq!(change_ids(&first), twin.change_ids());

    // All the ways in which a bucket changes, most of them invisible to a cursor over last modified.
    let now = Timestamp::from_millis(now_ms());
    let mut victims = before.values().filter(|file| !file.key.contains("awkward")).skip(20);
    let mut next = || victims.next().ok_or("too few objects");
    for index in 0..4 {
        fake.put(BUCKET, &format!("raw/2026/new {index} %+é.mp4"), NewFile::generated(1, 5), now)?;
    }
    fake.put(BUCKET, "raw/2026/not wanted.tmp", NewFile::generated(1, 5), now)?;
    fake.finish_large(BUCKET, &large, Content::Generated { seed: 5, size: 9_000_000_000 })?;
    let overwritten = next()?;
    fake.put(BUCKET, &overwritten.key, NewFile::generated(2, 6), now)?;
    for twin in [next()?, &before["awkward/emoji 😀🎬.mp4"]] {
        fake.put(BUCKET, &twin.key, NewFile::generated(3, twin.size), twin.last_modified)?;
    }
    for gone in [next()?.key.as_str(), "awkward/a%20b.mp4"] {
        fake.delete_key(BUCKET, gone)?;
    }
    fake.hide(BUCKET, &next()?.key, now)?;

    let after = expected_objects(fake, BUCKET, takes);
    let known = service.job_ids(&sync)?;
    service.cron(now_ms() + 3_605_000)?;
    let job = service.wait_for_new_job(&sync, &known, SOON)?;
    assert_eq!((&job["status"], &job["trigger"]), (&json!("completed"), &json!("scheduled")), "{job}");
    assert_eq!(changes(&job), (5, 3, 3), "{job}");
    let second = service.check_objects("bkt_scenario", &after)?;
    assert_eq!(second["raw/2026/large.mp4"]["last_modified"], after["raw/2026/large.mp4"].last_modified.to_string());
    let untouched = second.iter().filter(|(key, object)| first.get(*key) == Some(object)).count();
    assert_eq!(untouched, after.len() - 5 - 3);
    assert_eq!(second[&overwritten.key]["version"], 2);
    assert_eq!(twin.run(now)?.len(), 5 + 3 + 3);
    assert_eq!(change_ids(&second), twin.change_ids());

    // What it says of itself.
    let state = service.sync(&sync)?;
    assert_eq!((&state["status"], &state["locked"]), (&json!("ACTIVE"), &json!(false)), "{state}");
    assert_eq!(number(&state, "/total_files_discovered"), after.len() as u64, "{state}");
    assert_eq!(number(&state, "/total_files_synced"), before.len() as u64 + 11, "{state}");
    assert_eq!(number(&state, "/sync_run_counter"), 2, "{state}");
    Ok(())
}
