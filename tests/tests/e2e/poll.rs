//! What a job costs, how many there are, and how one that is large is cut into steps.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io, thread};

use b2sync_tests::service::{Service, ServiceConfig, SyncRef, changes, now_ms, number, text};
use fake_b2::faults::{Fault, Rule, Target};
use fake_b2::media::{seed_media_bucket, seed_plain_bucket};
use serde_json::json;

use crate::{BUCKET, Outcome, SOON, all, change_ids, twin_of, versions};

/// Every file of a folder, with its content.
pub(crate) fn files_below(folder: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.insert(path.display().to_string(), fs::read(&path)?);
        }
    }
    Ok(files)
}

/// All that KV has on disk.
fn kv_state(service: &Service) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = files_below(&service.state_dir().join("blobs"))?;
    files.extend(files_below(&service.state_dir().join("objects/kv"))?);
    // SQLite's index of its write-ahead log, which a reader writes as well: memory, not data.
    files.retain(|path, _| !path.ends_with(".sqlite-shm"));
    Ok(files)
}

#[test]
fn ten_thousand_objects_and_then_nothing_is_written() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    seed_media_bucket(service.fake(), BUCKET, 10_000, 4)?;
    let it = service.connect("ten", BUCKET)?;

    let job = service.run_job(&it.sync, SOON)?;
    assert_eq!((&job["status"], changes(&job)), (&json!("completed"), (10_000, 0, 0)), "{job}");
    assert!(number(&job, "/metadata/state_writes") > 0, "{job}");
    let objects = service.check_objects(&it.sync.bucket, &all(&service))?;
    assert!(versions(&objects).values().all(|version| *version == 1));

    let before = kv_state(&service)?;
    assert!(before.values().map(Vec::len).sum::<usize>() > 100_000, "the segments of 10,000 keys are in KV");
    service.fake().reset_counts();
    let known = service.job_ids(&it.sync)?;
    service.cron(now_ms() + 3_605_000)?;
    let job = service.wait_for_new_job(&it.sync, &known, SOON)?;
    assert_eq!((&job["status"], changes(&job)), (&json!("completed"), (0, 0, 0)), "{job}");
    assert_eq!(number(&job, "/metadata/state_writes"), 0, "{job}");
    assert_eq!(number(&job, "/files_verified"), 10_000, "{job}");
    assert_eq!(number(&job, "/metadata/class_c_calls"), 10, "{job}");
    assert_eq!(service.fake().counts().total(), 10, "{:?}", service.fake().counts());
    let after = kv_state(&service)?;
    let changed: Vec<&String> =
        after.iter().filter(|(path, bytes)| before.get(*path) != Some(bytes)).map(|it| it.0).collect();
    assert_eq!((changed, before.len()), (Vec::new(), after.len()), "nothing in KV was touched");
    Ok(())
}

#[test]
fn one_sync_has_one_job_at_a_time() -> Outcome {
    let service = Service::start(ServiceConfig::with_keys_a_step(1))?;
    service.fake().create_bucket(BUCKET)?;
    seed_plain_bucket(service.fake(), BUCKET, 4_500, 5)?;
    let it = service.connect("one", BUCKET)?;
    service.fake().inject(Rule::next(Target::List, Fault::Delay { millis: 150 }).times(Rule::ALWAYS));

    let answers: Vec<_> = thread::scope(|scope| {
        let callers: Vec<_> = (0..4).map(|_| scope.spawn(|| service.trigger(&it.sync))).collect();
        callers.into_iter().map(|caller| caller.join().map_err(|_| "a caller panicked")).collect()
    });
    let mut started = Vec::new();
    let mut told = Vec::new();
    for answer in answers {
        let answer = answer??;
        let job_id = text(&answer, "sync_job_id")?;
        match answer["status"].as_str() {
            Some("triggered") => started.push(job_id),
            Some("skipped_already_running") => told.push(job_id),
            _ => return Err(format!("neither started nor skipped: {answer}").into()),
        }
    }
    assert_eq!((started.len(), told.len()), (1, 3));
    let job_id = &started[0];
    assert!(told.iter().all(|told| told == job_id), "{told:?} were told of another job than {job_id}");

    // A cron for which the sync is due, and once more a trigger, while it runs.
    service.cron(now_ms() + 3_605_000)?;
    let again = service.trigger(&it.sync)?;
    assert_eq!(
        (&again["status"], &again["sync_job_id"]),
        (&json!("skipped_already_running"), &json!(job_id)),
        "{again}"
    );
    let state = service.sync(&it.sync)?;
    assert_eq!((&state["locked"], &state["current_sync_run_id"]), (&json!(true), &json!(job_id)), "{state}");

    let job = service.wait_for_job(&it.sync, job_id, SOON, &mut |_| {})?;
    assert_eq!((&job["status"], changes(&job)), (&json!("completed"), (4_500, 0, 0)), "{job}");
    assert_eq!(service.job_ids(&it.sync)?, std::slice::from_ref(job_id));
    // Whatever was listed, that job listed it, but for the look at the bucket when the sync was created.
    assert_eq!(service.fake().counts().list, number(&job, "/metadata/class_c_calls") + 1, "{job}");
    Ok(())
}

#[test]
fn a_job_longer_than_a_step_is_cut_into_steps_and_ends_the_same() -> Outcome {
    let service = Service::start(ServiceConfig { step_budget: Some("free".to_owned()), ..Default::default() })?;
    service.fake().create_bucket(BUCKET)?;
    seed_media_bucket(service.fake(), BUCKET, 12_500, 6)?;
    let it = service.connect("steps", BUCKET)?;
    let mut twin = twin_of(&service, &it, BUCKET)?;

    let job = service.run_job(&it.sync, SOON)?;
    assert_eq!((&job["status"], changes(&job)), (&json!("completed"), (12_500, 0, 0)), "{job}");
    assert!(number(&job, "/metadata/steps") >= 5, "{job}");
    let objects = service.check_objects(&it.sync.bucket, &all(&service))?;
    assert!(versions(&objects).values().all(|version| *version == 1));
    twin.run(service.b2().clock().now())?;
    assert_eq!(change_ids(&objects), twin.change_ids());

    // A poll that finds nothing is held in memory from step to step: of state it reads the document and the index,
    // once.
    let listed = service.fake().counts().list;
    let job = service.run_job(&it.sync, SOON)?;
    assert_eq!((&job["status"], changes(&job)), (&json!("completed"), (0, 0, 0)), "{job}");
    assert!(number(&job, "/metadata/steps") >= 13, "{job}");
    assert_eq!((number(&job, "/metadata/state_reads"), number(&job, "/metadata/state_writes")), (2, 0), "{job}");
    assert_eq!(service.fake().counts().list - listed, 13, "{job}");
    Ok(())
}

#[test]
fn shards_read_for_a_sync_that_asks_for_more_than_six_streams() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    seed_plain_bucket(service.fake(), BUCKET, 60_000, 8)?;
    let it = service.connect("one", BUCKET)?;
    let body = json!({
        "connection_id": it.connection_id, "source_path": BUCKET, "polling_interval_seconds": 3_600,
        "sync_concurrency": 24,
    });
    let wide = SyncRef::of(&service.create_sync("bkt_wide", &body)?)?;
    // Long enough that it does not matter how quickly pages are asked for and made.
    service.fake().inject(Rule::next(Target::List, Fault::Delay { millis: 1_000 }).times(Rule::ALWAYS));

    // A first run finds out by itself where to split what it reads.
    let job = service.run_job(&wide, SOON)?;
    assert_eq!((&job["status"], changes(&job)), (&json!("completed"), (60_000, 0, 0)), "{job}");
    let objects = service.check_objects("bkt_wide", &all(&service))?;
    assert!(versions(&objects).values().all(|version| *version == 1));
    let most = service.b2().delayed_most();
    // A coordinator has six connections.
    assert!((7..=24).contains(&most), "{most} pages at once");

    service.fake().clear_faults();
    let job = service.run_job(&wide, SOON)?;
    assert_eq!((&job["status"], changes(&job)), (&json!("completed"), (0, 0, 0)), "{job}");
    assert_eq!(number(&job, "/metadata/state_writes"), 0, "{job}");
    Ok(())
}

#[test]
fn a_paused_sync_rests_until_it_is_resumed() -> Outcome {
    let service = Service::start(ServiceConfig::with_keys_a_step(1))?;
    service.fake().create_bucket(BUCKET)?;
    seed_plain_bucket(service.fake(), BUCKET, 3_500, 7)?;
    let it = service.connect("pause", BUCKET)?;
    service.fake().inject(Rule::next(Target::List, Fault::Delay { millis: 200 }).times(Rule::ALWAYS));
    let job_id = text(&service.trigger(&it.sync)?, "sync_job_id")?;

    let state = service.pause(&it.sync)?;
    assert_eq!((&state["status"], &state["paused"]), (&json!("SUSPENDED"), &json!(true)), "{state}");
    assert_eq!(service.job(&it.sync, &job_id)?["status"], "interrupted");
    let (status, refused) = service.ask("POST", &format!("{}/trigger", it.sync.path()), None)?;
    assert_eq!(status, 409, "{refused}");
    assert!(refused["error"]["message"].as_str().is_some_and(|message| message.contains("Resume it")), "{refused}");
    service.cron(now_ms() + 7_200_000)?;
    assert_eq!(service.job_ids(&it.sync)?, std::slice::from_ref(&job_id));

    service.fake().clear_faults();
    service.resume(&it.sync)?;
    let job = service.wait_for_new_job(&it.sync, &[job_id], SOON)?;
    assert_eq!((&job["status"], &job["trigger"]), (&json!("completed"), &json!("resume")), "{job}");
    let objects = service.check_objects(&it.sync.bucket, &all(&service))?;
    assert!(versions(&objects).values().all(|version| *version == 1));
    Ok(())
}

#[test]
fn a_cap_on_class_c_calls_puts_polls_off_and_the_sync_says_so() -> Outcome {
    const HOUR_MS: i64 = 3_600_000;
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    seed_plain_bucket(service.fake(), BUCKET, 2_500, 8)?;
    let it = service.connect("cap", BUCKET)?;
    let path = it.sync.path();
    let job = service.run_job(&it.sync, SOON)?;
    assert_eq!((&job["status"], number(&job, "/metadata/class_c_calls")), (&json!("completed"), 3), "{job}");
    assert_eq!(job["metadata"]["dollars"], 0.000_012, "{job}");

    // One call an hour: three pages every three hours.
    let state = service.call("PATCH", &path, Some(&json!({"max_class_c_per_day": 24})))?;
    assert_eq!(number(&state, "/stretched/interval_seconds"), 10_800, "{state}");
    assert_eq!(number(&state, "/cost/per_day/class_c_calls"), 24, "{state}");
    assert_eq!(state["cost"]["last_job"]["dollars"], 0.000_012, "{state}");
    assert_eq!(state["dead_letters"], 0, "{state}");
    let known = service.job_ids(&it.sync)?;
    service.cron(now_ms() + 2 * HOUR_MS)?;
    assert_eq!(service.job_ids(&it.sync)?, known);
    service.cron(now_ms() + 3 * HOUR_MS)?;
    let job = service.wait_for_new_job(&it.sync, &known, SOON)?;
    assert_eq!((&job["status"], &job["trigger"]), (&json!("completed"), &json!("scheduled")), "{job}");

    let state = service.call("PATCH", &path, Some(&json!({"max_class_c_per_day": null})))?;
    assert!(state["stretched"].is_null() && state["max_class_c_per_day"].is_null(), "{state}");

    // There are no dead letters, and so nothing to send back.
    let letters = service.call("POST", &format!("{path}/dlq"), None)?;
    assert_eq!((&letters["total"], &letters["results"]), (&json!(0), &json!([])), "{letters}");
    let requeued = service.call("POST", &format!("{path}/dlq/requeue"), None)?;
    assert_eq!(requeued, json!({"requeued": 0}));
    let all = json!({"error_types": ["delivery_refused"]});
    assert_eq!(service.call("POST", &format!("{path}/dlq/bulk-mark-failed"), Some(&all))?["updated"], 0);
    Ok(())
}
