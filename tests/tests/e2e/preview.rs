//! `preview`: what a user is told of a sync before there is one, and whether the first job then does that.

use b2sync_core::time::Timestamp;
use b2sync_tests::service::{Service, ServiceConfig, SyncRef, changes, now_ms, number, text};
use fake_b2::keys::NewKey;
use fake_b2::model::NewFile;
use serde_json::{Value, json};

use crate::{BUCKET, Outcome, SOON};

#[test]
fn a_preview_says_what_the_first_job_does() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    let uploaded_at = Timestamp::from_millis(now_ms() - 5_000);
    let files = [("a.mp4", 10), ("b.tmp", 20), ("big.mp4", 5_000), ("f/", 0), ("sub/c.MP4", 30), ("sub2/d.mp4", 40)];
    for (key, size) in files {
        service.fake().put(BUCKET, key, NewFile::generated(size, size), uploaded_at)?;
    }
    let key = service.fake().create_key(NewKey::unrestricted())?;
    let connection = service.create_connection("preview", &key.key_id, &key.secret)?;
    let body = |source_path: &str, filters: Value| {
        json!({
            "connection_id": connection["connection_id"], "source_path": source_path, "file_filters": filters,
            "polling_interval_seconds": 3_600,
        })
    };
    let preview = |body: &Value| service.call("POST", "/v1/buckets/bkt_preview/syncs/preview", Some(body));
    let filters = json!({
        "include_patterns": ["*.mp4", "none/**"], "extensions": ["mp4"], "max_size_bytes": 1_000,
    });
    let request = body(BUCKET, filters);
    let previewed = preview(&request)?;
    let decided: Vec<(&str, Option<&str>)> = previewed["files"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|file| (file["key"].as_str().unwrap_or_default(), file["decided_by"].as_str()))
        .collect();
    assert_eq!(
        decided,
        [
            ("a.mp4", None),
            ("b.tmp", Some("file_filters.extensions")),
            ("big.mp4", Some("file_filters.max_size_bytes")),
            ("f/", Some("file_filters.include_folder_markers")),
            ("sub/c.MP4", Some("file_filters.include_patterns")),
            ("sub2/d.mp4", None),
        ]
    );
    let counts = &previewed["counts"];
    assert_eq!((number(counts, "/listed"), number(counts, "/matched"), &counts["is_all"]), (6, 2, &json!(true)));
    assert_eq!(number(counts, "/matched_bytes"), 50);
    assert!(previewed["warnings"].to_string().contains("none/**"), "{previewed}");
    let syncs = service.call("GET", "/v1/buckets/bkt_preview/syncs", None)?;
    assert_eq!(syncs["total"], 0, "a preview creates nothing");

    // The job does what was said, costs what was said, and says the same.
    let sync = SyncRef::of(&service.create_sync("bkt_preview", &request)?)?;
    let job = service.run_job(&sync, SOON)?;
    assert_eq!(changes(&job), (2, 0, 0), "{job}");
    assert_eq!(number(&job, "/bytes_synced"), 50);
    let calls = number(&previewed, "/cost/first_sync/class_c_calls");
    assert_eq!(number(&job, "/metadata/class_c_calls"), calls, "{job}");
    assert_eq!(number(&previewed, "/cost/polls_per_day/class_c_calls"), 24);
    for warning in job["warnings"].as_array().into_iter().flatten() {
        let warnings = previewed["warnings"].as_array().into_iter().flatten();
        assert!(warnings.into_iter().any(|it| it == warning), "{warning} is not in {previewed}");
    }

    // What lies beside a folder; another sync of the same files; what is wrong is refused as a create is.
    let beside = preview(&body(&format!("b2://{BUCKET}/sub"), json!({})))?;
    assert!(beside["warnings"].to_string().contains("sub2/"), "{beside}");
    assert!(beside["warnings"].to_string().contains(&sync.id), "{beside}");
    for (wrong, status) in [
        (body("b2://none-such/", json!({})), 400),
        (body(BUCKET, json!({"include_patterns": ["!x"]})), 422),
        (json!({"connection_id": "conn_none", "source_path": BUCKET}), 404),
    ] {
        let (answered, answer) = service.ask("POST", "/v1/buckets/bkt_preview/syncs/preview", Some(&wrong))?;
        assert_eq!(answered, status, "{answer}");
        assert!(!text(&answer["error"], "message")?.is_empty());
    }
    Ok(())
}

#[test]
fn of_many_files_the_first_ones_are_shown() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    let uploaded_at = Timestamp::from_millis(now_ms() - 5_000);
    for file in 0..1_200 {
        service.fake().put(BUCKET, &format!("f{file:04}.mp4"), NewFile::generated(file, 1), uploaded_at)?;
    }
    let key = service.fake().create_key(NewKey::unrestricted())?;
    let connection = service.create_connection("many", &key.key_id, &key.secret)?;
    let body = json!({
        "connection_id": connection["connection_id"], "source_path": BUCKET, "exclude_patterns": ["none-*"],
    });
    let previewed = service.call("POST", "/v1/buckets/bkt_many/syncs/preview", Some(&body))?;
    let counts = &previewed["counts"];
    assert_eq!(
        (number(counts, "/listed"), number(counts, "/matched"), &counts["is_all"]),
        (1_000, 1_000, &json!(false))
    );
    assert_eq!(previewed["files"].as_array().map(Vec::len), Some(100));
    // Nothing is said of files that were not seen.
    assert_eq!((&previewed["cost"], &previewed["warnings"]), (&Value::Null, &json!([])), "{previewed}");
    Ok(())
}
