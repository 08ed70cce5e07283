//! What a sync does with what it has handed over already: filters that change, and everything once more.

use std::collections::BTreeMap;

use b2sync_core::time::Timestamp;
use b2sync_tests::service::{Service, ServiceConfig, SyncRef, changes, expected_objects, now_ms, text};
use fake_b2::media::seed_media_bucket;
use fake_b2::model::{NewFile, VisibleFile};
use serde_json::{Value, json};

use crate::{BUCKET, Outcome, SOON, change_ids, versions};

const FILES: usize = 1_500;

/// The files whose name ends like one of those.
fn ending(service: &Service, endings: &[&str]) -> BTreeMap<String, VisibleFile> {
    expected_objects(service.fake(), BUCKET, |key| endings.iter().any(|ending| key.ends_with(ending)))
}

/// What the next poll delivers.
fn poll(service: &Service, sync: &SyncRef) -> Result<(u64, u64, u64), Box<dyn std::error::Error>> {
    let known = service.job_ids(sync)?;
    service.cron(now_ms() + 3_605_000)?;
    let job = service.wait_for_new_job(sync, &known, SOON)?;
    assert_eq!((&job["status"], &job["trigger"]), (&json!("completed"), &json!("scheduled")), "{job}");
    Ok(changes(&job))
}

#[test]
fn a_full_sync_hands_everything_over_where_duplicates_are_not_skipped() -> Outcome {
    // More than one step, so that a full sync is continued as one.
    let service = Service::start(ServiceConfig::with_keys_a_step(500))?;
    service.fake().create_bucket(BUCKET)?;
    seed_media_bucket(service.fake(), BUCKET, FILES, 9)?;
    let it = service.connect("full", BUCKET)?;
    let everything = ending(&service, &[""]);
    let full_sync = |skip_duplicates: bool| -> Result<Value, Box<dyn std::error::Error>> {
        service.call("PATCH", &it.sync.path(), Some(&json!({ "skip_duplicates": skip_duplicates })))?;
        let answer = service.call("POST", &format!("{}/trigger?full_sync=true", it.sync.path()), None)?;
        let job = service.wait_for_job(&it.sync, &text(&answer, "sync_job_id")?, SOON, &mut |_| {})?;
        assert_eq!(job["status"], "completed", "{job}");
        Ok(job)
    };

    let job = service.run_job(&it.sync, SOON)?;
    assert_eq!(changes(&job), (FILES as u64, 0, 0), "{job}");
    let first = service.check_objects(&it.sync.bucket, &everything)?;

    let job = full_sync(true)?;
    assert_eq!(changes(&job), (0, 0, 0), "{job}");
    assert_eq!(service.check_objects(&it.sync.bucket, &everything)?, first);

    let job = full_sync(false)?;
    assert_eq!(changes(&job), (0, FILES as u64, 0), "{job}");
    let second = service.check_objects(&it.sync.bucket, &everything)?;
    assert!(versions(&second).values().all(|version| *version == 2));
    let (before, after) = (change_ids(&first), change_ids(&second));
    assert!(before.iter().all(|(key, id)| after[key] != *id), "an id that a sink has seen is no change to it");

    // Only what a user asks for.
    let job = service.run_job(&it.sync, SOON)?;
    assert_eq!(changes(&job), (0, 0, 0), "{job}");
    assert_eq!(service.check_objects(&it.sync.bucket, &everything)?, second);
    Ok(())
}

#[test]
fn filters_that_change_reconcile_at_the_next_poll() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    let fake = service.fake();
    fake.create_bucket(BUCKET)?;
    seed_media_bucket(fake, BUCKET, FILES, 10)?;
    let it = service.connect("drift", BUCKET)?;
    let change = |body: Value| service.call("PATCH", &it.sync.path(), Some(&body));
    let (films, texts) = (ending(&service, &[".mp4"]), ending(&service, &[".txt"]));
    let count = |files: &BTreeMap<String, VisibleFile>| files.len() as u64;
    assert!(count(&films) > 100 && count(&texts) > 20);

    change(json!({ "include_patterns": ["*.mp4", "*.txt"] }))?;
    assert_eq!(changes(&service.run_job(&it.sync, SOON)?), (count(&films) + count(&texts), 0, 0));

    // Narrower: what matches no longer goes, and nothing else.
    change(json!({ "include_patterns": ["*.mp4"] }))?;
    assert_eq!(poll(&service, &it.sync)?, (0, 0, count(&texts)));
    let objects = service.check_objects(&it.sync.bucket, &films)?;
    assert!(versions(&objects).values().all(|version| *version == 1));

    // Wider: it comes back.
    change(json!({ "include_patterns": ["*.mp4", "*.txt"] }))?;
    assert_eq!(poll(&service, &it.sync)?, (count(&texts), 0, 0));
    service.check_objects(&it.sync.bucket, &ending(&service, &[".mp4", ".txt"]))?;

    // Narrower, and the objects of files that are still there stay. One of the files has been deleted meanwhile.
    let gone = texts.keys().next().ok_or("no texts")?;
    fake.delete_key(BUCKET, gone)?;
    change(json!({ "include_patterns": ["*.mp4"], "reconcile": { "on_filter_drift": false } }))?;
    assert_eq!(poll(&service, &it.sync)?, (0, 0, 1));
    service.check_objects(&it.sync.bucket, &ending(&service, &[".mp4", ".txt"]))?;
    assert_eq!(changes(&service.run_job(&it.sync, SOON)?), (0, 0, 0));
    Ok(())
}

/// A folder is renamed, and a file is new: only the deletions wait to be confirmed.
#[test]
fn a_renamed_folder_arrives_and_its_deletions_wait() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    let fake = service.fake();
    fake.create_bucket(BUCKET)?;
    let put = |key: &str| fake.put(BUCKET, key, NewFile::generated(1, 1), Timestamp::from_millis(now_ms())).map(drop);
    (0..150).try_for_each(|n| put(&format!("old/{n:03}")))?;
    let it = service.connect("renamed", BUCKET)?;
    assert_eq!(changes(&service.run_job(&it.sync, SOON)?), (150, 0, 0));

    for n in 0..150 {
        put(&format!("new/{n:03}"))?;
        fake.delete_key(BUCKET, &format!("old/{n:03}"))?;
    }
    put("a/x")?;
    assert_eq!(poll(&service, &it.sync)?, (151, 0, 0));
    let sync = service.call("GET", &it.sync.path(), None)?;
    assert_eq!((&sync["status"], &sync["deletions_held"]), (&json!("ACTIVE"), &json!(150)), "{sync}");
    assert_eq!((&sync["held_keys"][0], sync["held_keys"].as_array().map(Vec::len)), (&json!("old/000"), Some(20)));
    let job = service.run_job(&it.sync, SOON)?;
    assert_eq!((changes(&job), &job["deletions_held"]), ((0, 0, 0), &json!(150)), "{job}");
    assert_eq!(job["warnings"][0]["code"], "deletions_held", "{job}");
    assert_eq!(service.list_objects(&it.sync.bucket)?.len(), 301);

    // One comes back and is held no more; the others are confirmed.
    put("old/007")?;
    let job = service.run_job(&it.sync, SOON)?;
    assert_eq!(job["deletions_held"], 149, "{job}");
    let answer = service.call("POST", &format!("{}/trigger?confirm_deletes=true", it.sync.path()), None)?;
    let job = service.wait_for_job(&it.sync, &text(&answer, "sync_job_id")?, SOON, &mut |_| {})?;
    assert_eq!((changes(&job), &job["deletions_held"]), ((0, 0, 149), &json!(0)), "{job}");
    service.check_objects(&it.sync.bucket, &ending(&service, &[""]))?;
    Ok(())
}
