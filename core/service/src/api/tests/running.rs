//! Syncs: what becomes of them.

use std::{future::poll_fn, task::Poll};

use futures_util::future::join_all;
use serde::de::DeserializeOwned;

use super::*;
use crate::registry::{Channel, RegistryCall, RemoteRegistry, apply_json};
use b2sync_core::error_wire::ErrorWire;

#[test]
fn a_sync_is_paused_and_resumed() {
    let home = Home::new();
    let sync = home.sync();
    let paused = home.ok("POST", &format!("{sync}/pause"), json!({"reason": "Holidays"}));
    assert_eq!(
        (&paused["status"], &paused["is_active"], &paused["paused"], &paused["pause_reason"]),
        (&"SUSPENDED".into(), &false.into(), &true.into(), &"Holidays".into())
    );
    assert!(!home.record(&sync).is_active);
    home.ok("POST", &format!("{sync}/pause"), Value::Null);
    block_on(home.registry.set_poke_after(sync.rsplit('/').next().unwrap(), None)).unwrap();
    let resumed = home.ok("POST", &format!("{sync}/resume"), Value::Null);
    assert_eq!(
        (&resumed["status"], &resumed["is_active"], &resumed["paused"]),
        (&"ACTIVE".into(), &true.into(), &false.into())
    );
    assert_eq!(
        block_on(home.registry.due(home.now().plus_millis(1), 9)).unwrap().len(),
        1,
        "the cron looks after it again"
    );
    assert_eq!(home.ok("PATCH", &sync, json!({"is_active": false}))["status"], "SUSPENDED");
    assert_eq!(home.ok("PATCH", &sync, json!({"status": "ACTIVE"}))["status"], "ACTIVE");
    assert_eq!(home.wrong("PATCH", &sync, json!({"status": "PAUSED"})), ["body.status"]);
    assert_eq!(home.wrong("PATCH", &sync, json!({"status": "ACTIVE", "is_active": false})), ["body.is_active"]);
    assert_eq!(home.wrong("POST", &format!("{sync}/pause"), json!({"why": "x"})), ["body.why"]);
    let (status, _, message) = home.refused("PATCH", &sync, json!({"source_path": "b2://other"}));
    assert_eq!(status, 422);
    assert!(message.contains("cannot be changed. Delete the sync and create a new one"), "{message}");
}

#[test]
fn a_sync_is_triggered_once() {
    let home = Home::new();
    let sync = home.sync();
    block_on(home.registry.set_poke_after(sync.rsplit('/').next().unwrap(), None)).unwrap();
    let answer = home.ok("POST", &format!("{sync}/trigger?full_sync=true&confirm_deletes=true"), Value::Null);
    assert_eq!(
        block_on(home.registry.due(home.now().plus_millis(1), 9)).unwrap().len(),
        1,
        "the cron looks after the job"
    );
    check_keys(&answer, "sync_config_id sync_job_id status message job full_sync_ignored");
    assert!(answer["message"].as_str().unwrap().contains("set skip_duplicates to false"), "{answer}");
    assert_eq!((&answer["sync_job_id"], &answer["status"]), (&"job_now".into(), &"triggered".into()));
    let command = home.commands.borrow().last().cloned();
    assert_eq!(command, Some(Command::Trigger { trigger: Trigger::Manual, confirm_deletes: true, full_sync: true }));
    let answer = home.ok("POST", &format!("{sync}/trigger"), Value::Null);
    check_keys(&answer, "sync_config_id sync_job_id status message job");
    assert_eq!((&answer["sync_job_id"], &answer["status"]), (&"job_now".into(), &"skipped_already_running".into()));
    assert!(answer["message"].as_str().unwrap().contains("job_now"));
    let answer = home.ok("POST", &format!("{sync}/trigger?confirm_deletes=true"), Value::Null);
    assert_eq!(answer["confirm_deletes_ignored"], true, "the running job does not take it");
    assert!(answer["message"].as_str().unwrap().contains("trigger again with confirm_deletes=true"), "{answer}");
    assert_eq!(
        home.wrong("POST", &format!("{sync}/trigger?confirm_deletes=maybe"), Value::Null),
        ["query.confirm_deletes"]
    );
}

#[test]
fn a_running_sync_shows_its_progress() {
    let home = Home::new();
    let sync = home.sync();
    {
        let mut status = home.status.borrow_mut();
        status.state = SyncState::Failed;
        status.current_job = Some(job("job_2", NOW, JobStatus::Running));
        status.last_job = Some(job("job_1", NOW - 100_000, JobStatus::Failed));
        status.runs = 2;
        status.consecutive_failures = 1;
        status.last_sync_at = Some(Timestamp::from_millis(NOW - 1_000_000));
        status.files_known = 40;
        status.total_delivered = 10;
        status.total_failed = 1;
        status.last_error = Some(ErrorRecord { kind: "transport".into(), message: "x".repeat(2_000), transient: true });
    }
    let read = home.ok("GET", &sync, Value::Null);
    assert_eq!(
        (&read["status"], &read["locked"], &read["current_sync_run_id"]),
        (&"FAILED".into(), &true.into(), &"job_2".into())
    );
    assert_eq!(read["sync_progress"]["percent"], 50.0);
    assert_eq!(read["last_error"].as_str().unwrap().chars().count(), 1_000);
    assert_eq!(read["stats"]["last_run_objects_verified"], 11);
    let metrics = home.ok("GET", &format!("{sync}/metrics"), Value::Null);
    check_keys(
        &metrics,
        "sync_config_id status is_active paused total_files_discovered total_files_synced total_files_failed \
         batches_created sync_run_counter consecutive_failures last_error last_sync_at next_sync_at \
         seconds_since_last_sync is_stale intervals_since_last_sync stale_after_seconds failure_rate healthy dlq_total \
         dlq_by_error running_job stalled stalled_reason last_job stretched cost warnings \
         deletions_held",
    );
    assert_eq!(
        (&metrics["stale_after_seconds"], &metrics["is_stale"], &metrics["healthy"]),
        (&600.into(), &true.into(), &false.into())
    );
    assert_eq!(metrics["failure_rate"], 0.025);
    assert_eq!(home.ok("POST", &format!("{sync}/unlock"), Value::Null)["sync_config_id"], read["sync_config_id"]);
    assert_eq!(home.commands.borrow().last(), Some(&Command::Unlock));
}

#[test]
fn a_sync_says_what_it_costs() {
    let home = Home::new();
    let sync = home.sync();
    let patched = home.ok("PATCH", &sync, json!({"max_class_c_per_day": 10_000_000}));
    assert_eq!(patched["max_class_c_per_day"], 10_000_000);
    assert_eq!(home.record(&sync).max_class_c_per_day, Some(10_000_000));
    for wrong in [json!(0), json!(10_000_001), json!("9"), json!(1.5)] {
        assert_eq!(home.wrong("PATCH", &sync, json!({"max_class_c_per_day": wrong})), ["body.max_class_c_per_day"]);
    }
    let mut last = job("job_1", NOW - 100_000, JobStatus::Completed);
    last.cost = JobCost {
        class_b: 0,
        class_c: 1_001,
        bytes_received: 5,
        state_reads: 3,
        state_writes: 1,
        state_deletions: 1,
        steps: 2,
    };
    {
        let mut status = home.status.borrow_mut();
        status.completed_cost = Some(last.cost);
        status.last_job = Some(last);
        status.last_sync_at = Some(Timestamp::from_millis(NOW - 100_000));
    }
    let read = home.ok("GET", &sync, Value::Null);
    assert_eq!(
        read["cost"],
        json!({
            "last_job": {"sync_job_id": "job_1", "class_b_calls": 0, "class_c_calls": 1001, "bytes_received": 5,
                         "state_reads": 3, "state_writes": 1, "state_deletions": 1, "steps": 2, "dollars": 0.004004},
            "per_day": {"interval_seconds": 300, "class_b_calls": 0, "class_c_calls": 288_288, "bytes_received": 1440,
                        "state_reads": 864, "state_writes": 288, "state_deletions": 288, "steps": 576,
                        "dollars": 1.143152, "state_dollars_max": 0.003312},
        })
    );
    assert_eq!(read["stretched"], Value::Null);
    home.status.borrow_mut().stretched = Some(Stretched { interval_seconds: 86_400, reason: "A cap.".into() });
    let read = home.ok("GET", &sync, Value::Null);
    assert_eq!(read["stretched"], json!({"interval_seconds": 86_400, "reason": "A cap."}));
    assert_eq!(
        (&read["cost"]["per_day"]["class_c_calls"], &read["cost"]["per_day"]["dollars"]),
        (&1001.into(), &0.0.into())
    );
    let metrics = home.ok("GET", &format!("{sync}/metrics"), Value::Null);
    assert_eq!(
        (&metrics["stale_after_seconds"], &metrics["cost"]),
        (&172_800.into(), &read["cost"]),
        "late on purpose"
    );
    let patched = home.ok("PATCH", &sync, json!({"max_class_c_per_day": null}));
    assert_eq!(patched["max_class_c_per_day"], Value::Null);
    // One that does not poll has no days.
    let body =
        json!({"connection_id": "A", "source_path": "my-videos", "sync_mode": "one_time", "max_class_c_per_day": 5});
    let created = home.ok("POST", SYNCS, body);
    assert_eq!((&created["cost"]["per_day"], &created["max_class_c_per_day"]), (&Value::Null, &5.into()));
}

#[test]
fn a_sync_is_deleted() {
    let home = Home::new();
    let sync = home.sync();
    fill(&home, sync.rsplit('/').next().unwrap());
    let second = home.ok("POST", SYNCS, json!({"connection_id": "A", "source_path": "my-videos"}));
    let second = format!("{SYNCS}/{}", second["sync_config_id"].as_str().unwrap());
    let answer = home.ok("DELETE", &second, Value::Null);
    assert_eq!((&answer["deleted"], &answer["objects_deleted"]), (&true.into(), &0.into()));
    assert_eq!(home.ok("GET", OBJECTS, Value::Null)["results"].as_array().unwrap().len(), 3);
    assert_eq!(home.refused("DELETE", &second, Value::Null).0, 404);
    assert_eq!(answer["message"], "The sync was deleted. It had no objects.");
    let answer = home.ok("DELETE", &format!("{sync}?delete_objects=true"), Value::Null);
    assert_eq!((&answer["objects_deleted"], &answer["objects_kept"]), (&3.into(), &0.into()));
    assert_eq!(answer["message"], "The sync was deleted, and 3 objects with it.");
    assert_eq!(home.refused("GET", &sync, Value::Null).0, 404);
    assert!(home.ok("GET", OBJECTS, Value::Null)["results"].as_array().unwrap().is_empty());
    assert!(home.commands.borrow().contains(&Command::Forget));
    // If the coordinator cannot be reached, the record stays, so that one can ask again.
    let home = Home::new();
    let sync = home.sync();
    home.unreachable.set(true);
    assert_eq!(home.refused("DELETE", &sync, Value::Null).0, 503);
    home.unreachable.set(false);
    home.ok("DELETE", &sync, Value::Null);
}

#[test]
fn a_sync_that_is_deleted_says_how_many_objects_stay() {
    let home = Home::new();
    let sync = home.sync();
    fill(&home, sync.rsplit('/').next().unwrap());
    let answer = home.ok("DELETE", &sync, Value::Null);
    check_keys(&answer, "sync_config_id deleted objects_deleted objects_kept message");
    assert_eq!((&answer["objects_deleted"], &answer["objects_kept"]), (&0.into(), &3.into()));
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("Its 3 objects stay in the catalogue"), "{message}");
    // The call that it names removes them.
    let call = message.split_once("send ").unwrap().1.trim_end_matches('.');
    let (method, target) = call.split_once(' ').unwrap();
    assert_eq!(home.ok(method, target, Value::Null)["objects_deleted"], 3);
}

/// A registry that lets others go on before it answers, as one at the other end of a network does.
struct Slow<'a>(&'a MemoryRegistry);

impl Channel for Slow<'_> {
    async fn call<T: DeserializeOwned>(&self, call: &RegistryCall) -> Result<T, Error> {
        let mut turns = 2;
        poll_fn(|context| {
            turns -= 1;
            context.waker().wake_by_ref();
            if turns == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let answer = apply_json(self.0, &serde_json::to_string(call).unwrap()).await;
        serde_json::from_str::<Result<T, ErrorWire>>(&answer).unwrap().map_err(Error::from)
    }
}

#[test]
fn fifty_changes_at_the_same_time_all_succeed() {
    const CHANGES: usize = 50;
    let home = Home::new();
    let sync = home.sync();
    let connection = format!("{CONNECTIONS}/{}", home.record(&sync).connection_id);
    let registry = RemoteRegistry(Slow(&home.registry));
    let service = Service {
        registry: &registry,
        coordinators: &home,
        objects: &home.catalogue,
        http: &home,
        clock: &home,
        entropy: &home,
        master_keys: &home.master_keys,
        api_key: &home.api_key,
        cors: &home.cors,
        b2_api_url: "https://api.backblazeb2.com",
        version: "0.1.0",
    };
    for path in [&connection, &sync] {
        let before = home.ok("GET", path, Value::Null);
        let change = |i: usize| ApiRequest {
            method: "PATCH".into(),
            path: path.clone(),
            authorization: Some(format!("Bearer {API_KEY}")),
            body: json!({"description": format!("change {i}")}).to_string().into_bytes(),
            ..ApiRequest::default()
        };
        let answers = block_on(join_all((0..CHANGES).map(|i| service.handle(change(i)))));
        for answer in answers {
            assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        }
        let after = home.ok("GET", path, Value::Null);
        assert_ne!(after["description"], before["description"]);
    }
    let connection = block_on(home.registry.connection("A")).unwrap().unwrap();
    // Creating the sync noted B2's answer with the connection; nothing else wrote.
    assert!(connection.revision as usize > CHANGES && home.record(&sync).revision as usize == CHANGES + 1);
}
