//! Calls that wait for the end of a job, and the list of all syncs.

use std::{thread, time::Instant};

use b2sync_tests::service::{Service, ServiceConfig, SyncRef, text};
use fake_b2::faults::{Fault, Rule, Target};
use fake_b2::media::seed_plain_bucket;
use serde_json::{Value, json};

use crate::{BUCKET, Outcome, SOON};

#[test]
fn a_call_that_waits_for_a_job_is_answered_when_it_ends_and_holds_up_no_other() -> Outcome {
    const PAGE_MS: u64 = 3_000;
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    seed_plain_bucket(service.fake(), BUCKET, 50, 10)?;
    let it = service.connect("waiting", BUCKET)?;
    let delay = || service.fake().inject(Rule::next(Target::List, Fault::Delay { millis: PAGE_MS }));
    delay();
    let began = Instant::now();
    let job_id = text(&service.trigger(&it.sync)?, "sync_job_id")?;
    assert_eq!(service.job(&it.sync, &job_id)?["status"], "running");
    // In vain, and only as long as it was asked to.
    assert_eq!(service.job_within(&it.sync, &job_id, 1)?["status"], "running");
    assert!(began.elapsed().as_millis() < u128::from(PAGE_MS), "{:?}", began.elapsed());
    let job = service.job_within(&it.sync, &job_id, 25)?;
    assert_eq!(job["status"], "completed", "{job}");
    assert!(began.elapsed().as_secs() < 15, "{:?}", began.elapsed());
    // One that has ended is answered at once.
    let began = Instant::now();
    assert_eq!(service.job_within(&it.sync, &job_id, 25)?["status"], "completed");
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());

    // A pause ends the job, and is not held up by the call that waits.
    delay();
    let job_id = text(&service.trigger(&it.sync)?, "sync_job_id")?;
    thread::scope(|scope| -> Outcome {
        let waiting = scope.spawn(|| service.job_within(&it.sync, &job_id, 25).map_err(|error| error.to_string()));
        let began = Instant::now();
        service.pause(&it.sync)?;
        let job = waiting.join().map_err(|_| "the call that waits panicked")??;
        assert_eq!((&job["status"], &job["error_code"]), (&json!("interrupted"), &json!("paused")), "{job}");
        assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
        Ok(())
    })
}

#[test]
fn the_syncs_of_all_buckets_are_listed() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    seed_plain_bucket(service.fake(), BUCKET, 5, 11)?;
    let it = service.connect("all", BUCKET)?;
    let body = json!({"connection_id": it.connection_id, "source_path": BUCKET, "polling_interval_seconds": 3_600});
    let other = SyncRef::of(&service.create_sync("bkt_other", &body)?)?;
    service.run_job(&other, SOON)?;
    service.pause(&it.sync)?;
    let list = |query: &str| -> Result<Vec<String>, Box<dyn std::error::Error>> {
        let answer = service.call("GET", &format!("/v1/syncs{query}"), None)?;
        let ids = answer["results"].as_array().into_iter().flatten().map(|sync| text(sync, "sync_config_id"));
        let ids: Vec<String> = ids.collect::<Result<_, _>>()?;
        assert_eq!(answer["pagination"]["total"], answer["total"], "{answer}");
        Ok(ids)
    };
    let (this, other_id) = (it.sync.id.clone(), other.id.clone());
    assert_eq!(list("")?, [other_id.clone(), this.clone()]);
    assert_eq!(list("?limit=1&page=2")?, std::slice::from_ref(&this));
    assert_eq!(list("?bucket_id=bkt_other")?, std::slice::from_ref(&other_id));
    assert_eq!(list("?status=SUSPENDED")?, std::slice::from_ref(&this));
    assert_eq!(list("?is_active=true")?, std::slice::from_ref(&other_id));
    assert_eq!(list(&format!("?connection_id={}", it.connection_id))?.len(), 2);
    assert!(list("?connection_id=conn_none")?.is_empty());
    let shown = service.call("GET", "/v1/syncs?limit=1", None)?;
    let own: Value = service.sync(&other)?;
    assert_eq!(shown["results"][0], own);
    Ok(())
}
