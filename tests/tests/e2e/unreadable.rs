//! Entries of a listing that cannot be read, and jobs that are interrupted: both say what happened.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use b2sync_tests::service::{Service, ServiceConfig, changes};
use fake_b2::faults::{Fault, Rule, Target};
use fake_b2::media::seed_plain_bucket;
use fake_b2::model::NewFile;
use serde_json::{Value, json};

use crate::{BUCKET, Outcome, SOON, all, versions};

fn unreadable(it: &Value) -> Option<&Value> {
    it["warnings"].as_array()?.iter().find(|warning| warning["code"] == "entries_unreadable")
}

#[test]
fn an_entry_that_cannot_be_read_hides_no_other() -> Outcome {
    let service = Service::start(ServiceConfig::with_keys_a_step(1_000))?;
    let fake = service.fake();
    fake.create_bucket(BUCKET)?;
    seed_plain_bucket(fake, BUCKET, 2_500, 1)?;
    let it = service.connect("unreadable", BUCKET)?;
    let hide = |keys: &[&str]| {
        fake.clear_faults();
        let keys = keys.iter().map(|&key| key.to_owned()).collect();
        fake.inject(Rule::next(Target::List, Fault::UnreadableEntries { keys }).times(Rule::ALWAYS));
    };
    let (first, second) = ("item-00000003", "item-00001500");
    hide(&[first, second]);
    let job = service.run_job(&it.sync, SOON)?;
    assert_eq!((&job["status"], changes(&job)), (&json!("completed"), (2_498, 0, 0)), "{job}");
    let warning = unreadable(&job).ok_or("the job names no entry")?;
    let message = warning["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("2 files cannot be synced") && message.contains(second), "{warning}");
    let sync = service.sync(&it.sync)?;
    let metrics = service.call("GET", &format!("{}/metrics", it.sync.path()), None)?;
    assert_eq!((unreadable(&sync), unreadable(&metrics)), (Some(warning), Some(warning)));
    let mut expected = all(&service);
    expected.retain(|key, _| key != first && key != second);
    service.check_objects(&it.sync.bucket, &expected)?;

    // Known files stay as they were, whatever became of them; the others are new. What is gone beside them is gone.
    let now = service.b2().clock().now();
    let (gone, changed) = ("item-00002000", "item-00002001");
    fake.delete_key(BUCKET, gone)?;
    fake.put(BUCKET, changed, NewFile::generated(1, 1), now)?;
    hide(&["item-00000000", changed, "item-00002499"]);
    let job = service.run_job(&it.sync, SOON)?;
    assert_eq!((&job["status"], changes(&job)), (&json!("completed"), (2, 0, 1)), "{job}");
    assert!(unreadable(&job).is_some(), "{job}");

    fake.clear_faults();
    let job = service.run_job(&it.sync, SOON)?;
    assert_eq!((changes(&job), unreadable(&job)), ((0, 1, 0), None), "{job}");
    let objects = service.check_objects(&it.sync.bucket, &all(&service))?;
    let updated: BTreeMap<_, _> = versions(&objects).into_iter().filter(|(_, version)| *version > 1).collect();
    assert_eq!(updated, BTreeMap::from([(changed.to_owned(), 2)]));
    Ok(())
}

#[test]
fn an_interrupted_job_says_what_interrupted_it() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    let fake = service.fake();
    fake.create_bucket(BUCKET)?;
    seed_plain_bucket(fake, BUCKET, 2_500, 1)?;
    for (action, code) in [("unlock", "unlocked"), ("pause", "paused")] {
        let it = service.connect(code, BUCKET)?;
        let post = |action: &str| service.call("POST", &format!("{}/{action}", it.sync.path()), None);
        assert_eq!(post("unlock")?["message"], "No job was running, so nothing was aborted.");
        fake.inject(Rule::next(Target::List, Fault::Hang).after(1).times(Rule::ALWAYS));
        let before = fake.counts().list;
        let started = post(if code == "paused" { "trigger" } else { "resume" })?;
        let job_id = started["current_sync_run_id"].as_str().or(started["sync_job_id"].as_str());
        let job_id = job_id.ok_or_else(|| format!("no job: {started}"))?.to_owned();
        let patience = Instant::now() + Duration::from_secs(20);
        while fake.counts().list < before + 2 && Instant::now() < patience {
            thread::sleep(Duration::from_millis(20));
        }
        let answer = post(action)?;
        assert!(answer["message"].as_str().is_some_and(|it| it.contains(&job_id)), "{answer}");
        let job = service.job(&it.sync, &job_id)?;
        let told = (&job["status"], &job["error_code"], &job["phase"]);
        assert_eq!(told, (&json!("interrupted"), &json!(code), &json!("discovering")), "{job}");
        assert!(job["error"].is_string(), "{job}");
        fake.clear_faults();
        post("pause")?;
        assert_eq!(post("pause")?["message"], "The sync was paused already.");
    }
    Ok(())
}
