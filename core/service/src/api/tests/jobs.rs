//! Jobs.

use super::*;
use crate::coordinator::WAIT_MS_MAX;

#[test]
fn jobs_recent_and_archived() {
    let home = Home::new();
    *home.jobs.borrow_mut() =
        vec![job("job_5", NOW, JobStatus::Running), job("job_4", NOW - 1_000, JobStatus::Completed)];
    *home.archive.borrow_mut() = (1..=4)
        .rev()
        .map(|i| {
            let status = if i == 2 { JobStatus::Failed } else { JobStatus::Completed };
            job(&format!("job_{i}"), NOW - 1_000 * (5 - i), status)
        })
        .collect();
    home.archive.borrow_mut()[2].error =
        Some(ErrorRecord { kind: "bucket_not_found".into(), message: "Gone.".into(), transient: false });
    let sync = home.sync();
    let list = |query: &str, body: Value| -> (Vec<String>, Value) {
        let answer = home.ok("POST", &format!("{sync}/jobs{query}"), body);
        check_keys(&answer, "results pagination total");
        let results = answer["results"].as_array().unwrap();
        let ids = results.iter().map(|result| result["sync_job_id"].as_str().unwrap().to_owned()).collect();
        (ids, answer)
    };
    let (ids, answer) = list("", Value::Null);
    assert_eq!(ids, ["job_5", "job_4", "job_3", "job_2", "job_1"]);
    assert_eq!(answer["total"], 5);
    // The page ends where the jobs end that the coordinator keeps, and the archive has more.
    let (ids, answer) = list("?limit=2", Value::Null);
    assert_eq!((ids, &answer["total"]), (vec!["job_5".to_owned(), "job_4".to_owned()], &5.into()));
    assert!(answer["pagination"]["next_cursor"].is_string());
    assert_eq!(list("?limit=2&offset=2", Value::Null).0, ["job_3", "job_2"]);
    let (ids, answer) = list("?limit=3&offset=1", Value::Null);
    assert_eq!(ids, ["job_4", "job_3", "job_2"]);
    let cursor = answer["pagination"]["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(list(&format!("?limit=3&cursor={cursor}"), Value::Null).0, ["job_1"]);
    assert_eq!(list("", json!({"status": "failed"})).0, ["job_2"]);
    assert_eq!(list("", json!({"status": "running"})).0, ["job_5"]);
    assert_eq!(home.wrong("POST", &format!("{sync}/jobs"), json!({"status": "RUNNING"})), ["body.status"]);
    assert_eq!(home.ok("GET", &format!("{sync}/jobs"), Value::Null)["total"], 5);

    let running = home.ok("GET", &format!("{sync}/jobs/job_5"), Value::Null);
    assert_eq!(
        (&running["status"], &running["phase"], &running["progress_percent"], &running["total_files"]),
        (&"running".into(), &"discovering".into(), &50.0.into(), &40.into())
    );
    assert_eq!(running["lag_seconds"], 0);
    let failed = home.ok("GET", &format!("{sync}/jobs/job_2"), Value::Null);
    assert_eq!((&failed["error"], &failed["error_code"]), (&"Gone.".into(), &"bucket_not_found".into()));
    let done = home.ok("GET", &format!("{sync}/jobs/job_3"), Value::Null);
    assert_eq!(
        done,
        json!({
            "sync_job_id": "job_3",
            "sync_config_id": sync.rsplit('/').next().unwrap(),
            "internal_id": "int_b2sync",
            "namespace_id": "default",
            "bucket_id": "bkt_1",
            "status": "completed",
            "trigger": "manual",
            "phase": "done",
            "total_files": 20,
            "files_synced": 10,
            "files_failed": 1,
            "files_verified": 11,
            "changes": {"created": 5, "updated": 3, "deleted": 2, "failed": 1},
            "bytes_synced": 800,
            "created_at": "2023-11-14T22:13:18Z",
            "started_at": "2023-11-14T22:13:18.010Z",
            "completed_at": "2023-11-14T22:14:18.010Z",
            "updated_at": "2023-11-14T22:13:48.010Z",
            "error": null,
            "error_code": null,
            "warnings": [],
            "deletions_held": 0,
            "held_keys": [],
            "progress_percent": 100.0,
            "throughput_files_per_min": 10.0,
            "throttled": null,
            "lag_seconds": null,
            "progress": {
                "sync_job_id": "job_3", "phase": "done", "percent": 100.0, "files_listed": 30, "files_matched": 20,
                "files_synced": 10, "files_failed": 1, "bytes_synced": 800, "elapsed_seconds": 60,
            },
            "metadata": {
                "class_b_calls": 0, "class_c_calls": 0, "bytes_received": 0, "state_reads": 0,
                "state_writes": 0, "state_deletions": 0, "steps": 0, "dollars": 0.0,
            },
        })
    );
    assert_eq!(home.refused("GET", &format!("{sync}/jobs/job_9"), Value::Null).0, 404);
}

#[test]
fn a_job_can_be_waited_for() {
    let home = Home::new();
    *home.jobs.borrow_mut() = vec![job("job_1", NOW, JobStatus::Completed)];
    let job = format!("{}/jobs/job_1", home.sync());
    home.commands.borrow_mut().clear();
    for query in ["", "?wait=0", "?wait=25"] {
        assert_eq!(home.ok("GET", &format!("{job}{query}"), Value::Null)["status"], "completed");
    }
    let asked = [0, 0, WAIT_MS_MAX].map(|wait_ms| Command::Job { job_id: "job_1".to_owned(), wait_ms });
    assert_eq!(*home.commands.borrow(), asked);
    for (query, wrong) in
        [("wait=26", "wait"), ("wait=-1", "wait"), ("wait=", "wait"), ("wait=1.5", "wait"), ("after=1", "after")]
    {
        assert_eq!(home.wrong("GET", &format!("{job}?{query}"), Value::Null), [format!("query.{wrong}")], "{query}");
    }
}
