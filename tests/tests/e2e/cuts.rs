//! workerd is killed in the middle of jobs: nothing is lost, and nothing is delivered under a second id.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use b2sync_tests::service::{Service, ServiceConfig, SyncRef, changes, now_ms, number, text};
use b2sync_tests::virtual_world::SeededEntropy;
use fake_b2::faults::{Fault, Rule, Target};
use fake_b2::media::seed_plain_bucket;
use fake_b2::model::NewFile;
use serde_json::json;

use crate::{BUCKET, Outcome, SOON, all, change_ids, twin_of, versions};

const OBJECTS: usize = 12_000;
/// Each page takes this long, so that a kill finds the job in the middle of one.
const PAGE_MS: u64 = 60;
/// Kills the Worker this often while a job runs, at moments that the seed decides.
const KILLS: u32 = 5;
const SEED: u64 = 20_261_123;

/// Kills and restarts workerd while the job runs; how many of the kills found it running.
fn kill_and_restart(
    service: &mut Service,
    sync: &SyncRef,
    job_id: &str,
    entropy: &SeededEntropy,
) -> Result<u32, Box<dyn std::error::Error>> {
    let mut mid_job = 0;
    for kill in 0..KILLS {
        // Wait for progress since the last kill: a job that never got further would hide behind the kills.
        let steps = number(&service.job(sync, job_id)?, "/metadata/steps");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let job = service.job(sync, job_id)?;
            if job["status"] != "running" {
                return Ok(mid_job);
            }
            if number(&job, "/metadata/steps") > steps {
                break;
            }
            if Instant::now() > deadline {
                return Err(service.error(format!("no progress since kill {kill} (seed {SEED}): {job}")).into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        // Anywhere in what follows: while a page is on its way, while it is delivered, between two steps.
        thread::sleep(Duration::from_millis(entropy.next_u64() % (2 * PAGE_MS)));
        mid_job += u32::from(service.job(sync, job_id)?["status"] == "running");
        service.workerd().restart()?;
        if kill % 2 == 1 {
            // The watchdog comes by; otherwise the alarm alone must do.
            service.cron(now_ms())?;
        }
    }
    Ok(mid_job)
}

#[test]
fn a_job_survives_kills() -> Outcome {
    let mut service = Service::start(ServiceConfig::with_keys_a_step(1))?;
    service.fake().create_bucket(BUCKET)?;
    seed_plain_bucket(service.fake(), BUCKET, OBJECTS, 8)?;
    let it = service.connect("cuts", BUCKET)?;
    let mut twin = twin_of(&service, &it, BUCKET)?;
    let entropy = SeededEntropy::new(SEED);
    let slow = || Rule::next(Target::List, Fault::Delay { millis: PAGE_MS }).times(Rule::ALWAYS);

    service.fake().inject(slow());
    let job_id = text(&service.trigger(&it.sync)?, "sync_job_id")?;
    let mid_job = kill_and_restart(&mut service, &it.sync, &job_id, &entropy)?;
    assert!(mid_job >= 3, "only {mid_job} kills found the job running (seed {SEED})");
    let job = service.wait_for_job(&it.sync, &job_id, SOON, &mut |_| {})?;
    assert_eq!(job["status"], "completed", "seed {SEED}: {job}");
    let first = service.check_objects(&it.sync.bucket, &all(&service))?;
    let twice: Vec<_> = versions(&first).into_iter().filter(|(_, version)| *version != 1).collect();
    assert!(twice.is_empty(), "delivered under a second id (seed {SEED}): {twice:?}");
    service.fake().clear_faults();
    twin.run(service.b2().clock().now())?;
    assert_eq!(change_ids(&first), twin.change_ids(), "seed {SEED}");
    assert_eq!(service.job_ids(&it.sync)?, std::slice::from_ref(&job_id), "the same job went on");

    // And again with updates, deletions and new keys all over the bucket.
    let now = service.b2().clock().now();
    let (mut updated, mut deleted) = (BTreeSet::new(), BTreeSet::new());
    for index in (0..OBJECTS).step_by(10) {
        let key = format!("item-{index:08}");
        match index % 3 {
            0 => drop(service.fake().put(BUCKET, &format!("{key}-new"), NewFile::generated(1, 1), now)?),
            1 => {
                service.fake().put(BUCKET, &key, NewFile::generated(2, 2), now)?;
                updated.insert(key);
            }
            _ => {
                service.fake().delete_key(BUCKET, &key)?;
                deleted.insert(key);
            }
        }
    }
    service.fake().inject(slow());
    let job_id = text(&service.trigger(&it.sync)?, "sync_job_id")?;
    kill_and_restart(&mut service, &it.sync, &job_id, &entropy)?;
    let job = service.wait_for_job(&it.sync, &job_id, SOON, &mut |_| {})?;
    assert_eq!(job["status"], "completed", "seed {SEED}: {job}");
    let second = service.check_objects(&it.sync.bucket, &all(&service))?;
    for (key, version) in versions(&second) {
        assert_eq!(version, if updated.contains(&key) { 2 } else { 1 }, "{key} (seed {SEED})");
    }
    service.fake().clear_faults();
    twin.run(service.b2().clock().now())?;
    assert_eq!(change_ids(&second), twin.change_ids(), "seed {SEED}");

    // Whatever the kills left behind, the next poll finds nothing to do.
    let job = service.run_job(&it.sync, SOON)?;
    assert_eq!((&job["status"], changes(&job)), (&json!("completed"), (0, 0, 0)), "{job}");
    Ok(())
}
