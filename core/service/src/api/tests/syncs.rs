//! Syncs: what they are made of.

use super::*;
use crate::registry::{SYNCS_ASKED_MAX, SyncRecord};
use b2sync_core::{
    b2::account::{StoredAccount, parse_authorize},
    policy::{DeletionLimit, HeldBack},
    warning::{Warning, WarningCode},
};

#[test]
fn a_sync_as_the_documentation_makes_it() {
    let home = Home::new();
    let connection_id = home.connection("A");
    let created = home.ok(
        "POST",
        SYNCS,
        json!({
            "connection_id": connection_id,
            "source_path": "b2://my-videos/2024/",
            "sync_mode": "scheduled",
            "polling_interval_seconds": 3600,
            "include_patterns": ["*.mp4", "*.mov"],
            "exclude_patterns": ["*_thumbnail.*"],
            "modified_since": "2024-01-01T02:00:00+02:00",
        }),
    );
    let sync_id = created["sync_config_id"].as_str().unwrap().to_owned();
    assert!(sync_id.starts_with("sync_"));
    // More than `json!` can hold.
    let wanted = r#"{
        "sync_config_id": "SYNC",
        "bucket_id": "bkt_1",
        "connection_id": "CONN",
        "internal_id": "int_b2sync",
        "namespace_id": "default",
        "source_path": "b2://my-videos/2024/",
        "source_type": "backblaze",
        "file_filters": {
            "include_patterns": ["*.mp4", "*.mov"],
            "exclude_patterns": ["*_thumbnail.*"],
            "extensions": null,
            "min_size_bytes": null,
            "max_size_bytes": null,
            "modified_after": "2024-01-01T00:00:00Z",
            "modified_before": null,
            "mime_types": null, "include_folder_markers": false,
            "metadata_filters": null
        },
        "etag": "ETAG",
        "schema_mapping": null,
        "sync_mode": "continuous",
        "schedule": {"mode": "scheduled", "interval_seconds": 3600, "next_run_at": null, "last_run_at": null},
        "polling_interval_seconds": 3600,
        "batch_size": 50,
        "create_object_on_confirm": true,
        "skip_duplicates": true,
        "skip_batch_submission": false,
        "batch_collection_ids": null,
        "ingest_filter": null,
        "provider_filters": null,
        "sync_from": null,
        "reconcile": {"on_delete": true, "on_update": true, "on_filter_drift": true},
        "deletion_limit": {"percent": 50, "files": 100},
        "status": "PENDING",
        "is_active": true,
        "total_files_discovered": 0,
        "total_files_synced": 0,
        "total_files_failed": 0,
        "total_bytes_synced": 0,
        "total_bytes_known": 0,
        "deletions_held": 0,
        "held_keys": [],
        "consecutive_failures": 0,
        "sync_run_counter": 0,
        "created_at": "2023-11-14T22:13:22Z",
        "updated_at": "2023-11-14T22:13:22Z",
        "created_by_user_id": "usr_api_key",
        "last_sync_at": null,
        "next_sync_at": null,
        "last_error": null,
        "warnings": [{
            "code": "no_files",
            "message": "There are no files below b2://my-videos/2024/.",
            "advice": "Check the spelling of the source path; case counts."
        }],
        "paused": false,
        "pause_reason": null,
        "paused_at": null,
        "locked": false,
        "locked_at": null,
        "current_sync_run_id": null,
        "sync_progress": null,
        "stats": null,
        "description": null,
        "metadata": {},
        "sync_concurrency": null,
        "max_objects_per_run": null,
        "max_class_c_per_day": null,
        "feed_retention_hours": 168,
        "dead_letters": null,
        "feed": {"first": 1, "last": 0},
        "sinks": [{"sink_id": "catalogue", "kind": "catalogue"}],
        "stretched": null,
        "cost": {"last_job": null, "per_day": null}
    }"#;
    let wanted = wanted.replace("SYNC", &sync_id).replace("CONN", &connection_id);
    let wanted = wanted.replace("ETAG", created["etag"].as_str().unwrap());
    let wanted: Value = serde_json::from_str(&wanted).unwrap();
    assert_eq!(created, wanted);
    assert_eq!(home.ok("GET", &format!("{SYNCS}/{sync_id}"), Value::Null), created);
    assert_eq!(home.commands.borrow().first(), Some(&Command::Configured));
    let probed = home.sent.borrow().last().unwrap().clone();
    assert!(probed.starts_with("https://s3.us-east-005.backblazeb2.com/my-videos?"), "{probed}");
    assert!(probed.contains("max-keys=1") && probed.contains("prefix=2024%2F"), "{probed}");
    let due = block_on(home.registry.due(Timestamp::from_millis(NOW * 2), 9)).unwrap();
    assert_eq!(due.iter().map(|due| &due.sync_id).collect::<Vec<_>>(), [&sync_id]);
}

#[test]
fn what_the_user_should_know_is_said_at_once() {
    let home = Home::new();
    home.connection("A");
    let found = "<Contents><Key>v/sub_old.mp4</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>&quot;e\
                 &quot;</ETag><Size>1</Size></Contents><CommonPrefixes><Prefix>v/sub/</Prefix></CommonPrefixes>\
                 <CommonPrefixes><Prefix>v/sub2/</Prefix></CommonPrefixes></ListBucketResult>";
    *home.list.borrow_mut() = Some((200, PAGE.replace("</ListBucketResult>", found)));
    let body = json!({"connection_id": "A", "source_path": "my-videos/v/sub", "include_patterns": ["v/**"]});
    let created = home.ok("POST", SYNCS, body);
    let probed = home.sent.borrow().last().unwrap().clone();
    assert!(probed.contains("delimiter=%2F") && probed.contains("prefix=v%2Fsub"), "{probed}");
    let codes = |answer: &Value| -> Vec<String> {
        let warnings = answer["warnings"].as_array().unwrap().iter();
        warnings.map(|warning| warning["code"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(codes(&created), ["pattern_repeats_source_path", "files_beside_folder"]);
    let message = created["warnings"][1]["message"].as_str().unwrap();
    assert!(message.contains("also \"sub2/\", \"sub_old.mp4\""), "{message}");
    let path = format!("{SYNCS}/{}", created["sync_config_id"].as_str().unwrap());
    assert_eq!(home.ok("GET", &path, Value::Null)["warnings"], created["warnings"]);
    assert_eq!(home.ok("GET", &format!("{path}/metrics"), Value::Null)["warnings"], created["warnings"]);
    let patched = home.ok("PATCH", &path, json!({"include_patterns": ["*.mp4"]}));
    assert_eq!(codes(&patched), ["files_beside_folder"]);
    // The latest job that completed knows better, as long as the filters are the same.
    let filters = b2sync_core::filter::FilterSpec { include_patterns: vec!["*.mp4".into()], ..Default::default() };
    home.status.borrow_mut().warned_for = filters.fingerprint();
    assert_eq!(codes(&home.ok("GET", &path, Value::Null)), [""; 0]);
    let patched = home.ok("PATCH", &path, json!({"include_patterns": ["v/**"]}));
    assert_eq!(codes(&patched), ["pattern_repeats_source_path", "files_beside_folder"]);

    // Deletions wait to be confirmed, whatever the filters are now.
    let held = HeldBack { count: 150, keys: vec!["v/sub/a".into()] };
    let limit = DeletionLimit { percent: 20, files: 5 };
    home.status.borrow_mut().warnings = vec![
        b2sync_core::warning::of_deletions(&held, (limit, 200), false),
        Warning { code: WarningCode::NoFiles, message: "m".into(), advice: "a".into() },
    ];
    home.status.borrow_mut().deletions_held = 150;
    let shown = home.ok("GET", &path, Value::Null);
    assert_eq!(codes(&shown), ["pattern_repeats_source_path", "deletions_held", "files_beside_folder"]);
    let message = "150 known files are gone, or no longer match the filters. deletion_limit allows 5, or 20 % of 200 \
                   files, so their deletions are held; everything else was synced. The first is \"v/sub/a\".";
    assert_eq!(shown["warnings"][1]["message"], message);
    home.status.borrow_mut().deletions_held = 0;
    assert_eq!(codes(&home.ok("GET", &path, Value::Null)), ["pattern_repeats_source_path", "files_beside_folder"]);
}

#[test]
fn a_sync_that_overlaps_with_another_says_so() {
    let home = Home::new();
    home.connection("A");
    home.connection("B");
    let create = |target: &str, connection: &str, source: &str, sinks: Value| {
        let body = json!({"connection_id": connection, "source_path": source, "sinks": sinks});
        home.ok("POST", target, body)
    };
    let overlaps = |created: &Value| -> Option<String> {
        let warnings = created["warnings"].as_array().unwrap().iter();
        let mut found = warnings.filter(|warning| warning["code"] == "overlaps_sync");
        found.next().map(|warning| warning["message"].as_str().unwrap().to_owned())
    };
    let first = create(SYNCS, "A", "my-videos/2024/", Value::Null);
    let id = first["sync_config_id"].as_str().unwrap();
    assert_eq!(overlaps(&first), None);
    for source in ["my-videos/2024/", "my-videos/2024/05/", "my-videos"] {
        let created = create(SYNCS, "B", source, Value::Null);
        let message = overlaps(&created).unwrap();
        assert!(message.contains(&format!("The sync {id} of the same target bucket")), "{message}");
        let path = format!("{SYNCS}/{}", created["sync_config_id"].as_str().unwrap());
        assert_eq!(home.ok("GET", &path, Value::Null)["warnings"], created["warnings"]);
        home.ok("DELETE", &path, Value::Null);
    }
    for (target, source, sinks) in [
        (SYNCS, "my-videos/2025/", Value::Null),
        (SYNCS, "my-videos2/2024/", Value::Null),
        (SYNCS, "my-videos/2024/", json!([])),
        ("/v1/buckets/bkt_2/syncs", "my-videos/2024/", Value::Null),
    ] {
        assert_eq!(overlaps(&create(target, "A", source, sinks)), None, "{target} {source}");
    }
    // It is found among many that do not overlap, and behind one that cannot be read.
    for n in 0..120 {
        create(SYNCS, "A", &format!("my-videos/n{n}/"), Value::Null);
    }
    home.registry.damage(create(SYNCS, "A", "my-videos/2024/", Value::Null)["sync_config_id"].as_str().unwrap());
    assert!(overlaps(&create(SYNCS, "A", "my-videos/2024/x/", Value::Null)).unwrap().contains(id));
    let all = overlaps(&create(SYNCS, "A", "my-videos", Value::Null)).unwrap();
    assert!(all.contains("Other syncs of the same target bucket") && all.contains(", …"), "{all}");
}

#[test]
fn a_sync_as_the_client_makes_it() {
    let home = Home::new();
    home.connection("A");
    let filters = json!({
        "include_patterns": ["a/**"], "exclude_patterns": [], "extensions": ["mp4"], "min_size_bytes": 0,
        "max_size_bytes": 18446744073709551615_u64, "modified_after": "2024-01-01T00:00:00Z",
        "modified_before": "2025-01-01T00:00:00", "mime_types": ["video/*"], "metadata_filters": [],
    });
    let created = home.ok(
        "POST",
        SYNCS,
        json!({
            "connection_id": "A", "source_path": "my-videos", "sync_mode": "initial_only", "file_filters": filters,
            "include_patterns": ["a/**"], "schema_mapping": {"mappings": {"content": {
                "target_type": "blob", "source": {"type": "file"}, "blob_type": "video",
            }}},
            "polling_interval_seconds": 30, "batch_size": 100, "skip_batch_submission": true,
            "batch_collection_ids": ["col_1"], "ingest_filter": {"retriever_id": "ret_1"}, "skip_duplicates": false,
            "reconcile": {
                "on_delete": false, "on_update": true, "re_extract_on_update": false, "re_extract_fields": ["a"],
            },
            "sync_from": "2024-06-01T00:00:00Z", "provider_filters": {"x": 1}, "description": "d",
            "max_objects_per_run": 100000, "sync_concurrency": 8, "metadata": {"a": null},
            "deletion_limit": {"percent": 0, "files": 10000000},
        }),
    );
    assert_eq!(created["sync_mode"], "initial_only");
    assert_eq!(created["schedule"]["mode"], "one_time");
    assert_eq!(created["source_path"], "b2://my-videos/");
    assert_eq!(created["file_filters"]["modified_before"], "2025-01-01T00:00:00Z");
    assert_eq!(created["file_filters"]["max_size_bytes"], u64::MAX);
    assert_eq!(created["reconcile"]["on_delete"], false);
    assert_eq!(created["reconcile"]["re_extract_fields"], json!(["a"]));
    for (name, value) in [
        ("skip_batch_submission", json!(true)),
        ("batch_collection_ids", json!(["col_1"])),
        ("ingest_filter", json!({"retriever_id": "ret_1"})),
        ("provider_filters", json!({"x": 1})),
        (
            "schema_mapping",
            json!({"mappings": {"content": {"target_type": "blob", "source": {"type": "file"}, "blob_type": "video"}}}),
        ),
        ("sync_from", json!("2024-06-01T00:00:00Z")),
        ("max_objects_per_run", json!(100_000)),
        ("sync_concurrency", json!(8)),
        ("metadata", json!({"a": null})),
        ("description", json!("d")),
        ("skip_duplicates", json!(false)),
        ("deletion_limit", json!({"percent": 0, "files": 10_000_000})),
    ] {
        assert_eq!(created[name], value, "{name}");
    }
    let record = home.record(created["sync_config_id"].as_str().unwrap());
    assert_eq!(record.effective_filters().modified_after, record.echoed.sync_from);
}

#[test]
fn a_sync_that_is_wrong_says_where() {
    let home = Home::new();
    assert_eq!(home.wrong("POST", SYNCS, Value::Null), ["body.connection_id", "body.source_path"]);
    let body = json!({
        "connection_id": 1, "source_path": "gs://x/y", "sync_mode": "weekly", "polling_interval_seconds": 29,
        "batch_size": 101, "sync_concurrency": 0, "max_objects_per_run": 0, "skip_duplicates": "yes",
        "file_filters": {"include_patterns": "*.mp4", "min_size_bytes": -1, "modified_after": "2024", "colour": 1,
                         "metadata_filters": [{"field": "a"}]},
        "reconcile": {"on_delete": 1, "other": true}, "ingest_filter": {}, "schema_mapping": {"a": 1},
        "bucket_id": "x", "sync_from": 5, "deletion_limit": {"percent": 101, "files": 10_000_001, "share": 0.5},
    });
    let mut wrong = home.wrong("POST", SYNCS, body);
    wrong.sort_unstable();
    assert_eq!(
        wrong,
        [
            "body.batch_size",
            "body.bucket_id",
            "body.connection_id",
            "body.deletion_limit.files",
            "body.deletion_limit.percent",
            "body.deletion_limit.share",
            "body.file_filters.colour",
            "body.file_filters.include_patterns",
            "body.file_filters.metadata_filters",
            "body.file_filters.min_size_bytes",
            "body.file_filters.modified_after",
            "body.ingest_filter",
            "body.max_objects_per_run",
            "body.polling_interval_seconds",
            "body.reconcile.on_delete",
            "body.reconcile.other",
            "body.schema_mapping",
            "body.skip_duplicates",
            "body.source_path",
            "body.sync_concurrency",
            "body.sync_from",
            "body.sync_mode",
        ]
    );
    for (filters, location) in [
        (json!({"include_patterns": ["ok", "a[b"]}), "body.file_filters.include_patterns[1]"),
        (json!({"min_size_bytes": 2, "max_size_bytes": 1}), "body.file_filters.min_size_bytes"),
        (json!({"mime_types": ["video"]}), "body.file_filters.mime_types[0]"),
    ] {
        let body = json!({"connection_id": "A", "source_path": "my-videos", "file_filters": filters});
        assert_eq!(home.wrong("POST", SYNCS, body), [location]);
    }
    let body = json!({
        "connection_id": "A", "source_path": "my-videos",
        "file_filters": {
            "include_patterns": ["a"], "exclude_patterns": ["b"], "modified_after": "2024-01-01T00:00:00Z",
        },
        "include_patterns": ["x"], "exclude_patterns": ["y"], "modified_since": "2025-01-01T00:00:00Z",
    });
    assert_eq!(
        home.wrong("POST", SYNCS, body),
        ["body.include_patterns", "body.exclude_patterns", "body.modified_since"]
    );
    let (status, _, message) = home.refused("POST", SYNCS, json!({"connection_id": "A", "source_path": "my-videos"}));
    assert_eq!(status, 404);
    assert!(message.contains("no connection \"A\""), "{message}");
}

#[test]
fn what_b2_says_about_a_source_is_told_at_once() {
    let restricted = ACCOUNT.replace("\"buckets\":null", r#""buckets":[{"id":"b","name":"my-videos"}]"#);
    let no_list = ACCOUNT.replace("\"listFiles\",", "");
    let prefix = ACCOUNT.replace("\"namePrefix\":null", "\"namePrefix\":\"2024/\"");
    let expired =
        ACCOUNT.replace("\"applicationKeyExpirationTimestamp\":null", "\"applicationKeyExpirationTimestamp\":1");
    let xml = |code: &str| format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>");
    let ok = || Some((200, PAGE.to_owned()));
    for (account, list, source, status, code) in [
        (restricted.as_str(), ok(), "other-bucket", 400, "bucket_not_allowed"),
        (restricted.as_str(), ok(), "My-Videos", 400, "bucket_not_allowed"),
        (no_list.as_str(), ok(), "my-videos", 400, "capability_missing"),
        (prefix.as_str(), ok(), "my-videos", 400, "prefix_not_allowed"),
        (expired.as_str(), ok(), "my-videos", 400, "key_expired"),
        (ACCOUNT, Some((404, xml("NoSuchBucket"))), "my-videos", 400, "bucket_not_found"),
        (ACCOUNT, Some((503, xml("SlowDown"))), "my-videos", 429, "rate_limited"),
        (ACCOUNT, None, "my-videos", 503, "transport"),
    ] {
        for test_before_save in [true, false] {
            let home = Home::new();
            *home.list.borrow_mut() = list.clone();
            let mut connection = new_connection("A");
            connection["test_before_save"] = test_before_save.into();
            home.ok("POST", CONNECTIONS, connection);
            if test_before_save {
                // What the key may do is cached, and less than it was when it was tested.
                let mut record = block_on(home.registry.connection("A")).unwrap().unwrap();
                record.account = Some(StoredAccount::from(&parse_authorize(account.as_bytes()).unwrap()));
                let revision = record.revision;
                block_on(home.registry.update_connection(record, revision)).unwrap();
            }
            *home.authorize.borrow_mut() = Some((200, account.to_owned()));
            let (got, body) = home.call("POST", SYNCS, json!({"connection_id": "A", "source_path": source}));
            assert_eq!(got, status, "{source} {code}: {body}");
            assert_eq!(body["error"]["code"], code);
            if status == 400 {
                assert_eq!(body["error"]["type"], "BadRequestError");
            } else {
                let advice = body["error"]["details"]["advice"].as_str().unwrap();
                assert!(advice.starts_with("Nothing was stored. Send the request again"), "{advice}");
            }
            assert_eq!(home.ok("POST", &format!("{SYNCS}/list"), Value::Null)["total"], 0);
            // What was learnt of the key is kept.
            assert!(block_on(home.registry.connection("A")).unwrap().unwrap().account.is_some());
        }
    }
}

#[test]
fn a_cached_account_that_is_old_is_asked_for_again() {
    let home = Home::new();
    home.connection("A");
    *home.list.borrow_mut() = Some((404, "<Error><Code>NoSuchBucket</Code></Error>".into()));
    let moved = ACCOUNT.replace("us-east-005", "eu-central-003");
    *home.authorize.borrow_mut() = Some((200, moved));
    let refused = home.refused("POST", SYNCS, json!({"connection_id": "A", "source_path": "my-videos"}));
    assert_eq!(refused.0, 400, "B2 says the same again");
    let sent = home.sent.borrow();
    assert!(sent[1].starts_with("https://s3.us-east-005."), "{sent:?}");
    assert!(sent[2].contains("b2_authorize_account"), "{sent:?}");
    assert!(sent[3].starts_with("https://s3.eu-central-003."), "{sent:?}");
    assert_eq!(sent.len(), 4);
    let stored = serde_json::to_value(block_on(home.registry.connection("A")).unwrap().unwrap()).unwrap();
    assert_eq!(stored["account"]["region"], "eu-central-003");
}

#[test]
fn a_sync_belongs_to_its_bucket_and_namespace() {
    let home = Home::new();
    let sync = home.sync();
    let id = sync.rsplit('/').next().unwrap();
    let with = |path: String, namespace: &str| {
        let request = ApiRequest {
            method: "GET".into(),
            path,
            authorization: Some(format!("Bearer {API_KEY}")),
            namespace: Some(namespace.into()),
            ..ApiRequest::default()
        };
        home.request(request).status
    };
    assert_eq!(with(sync.clone(), "default"), 200);
    assert_eq!(with(sync.clone(), ""), 200);
    assert_eq!(with(sync.clone(), "other"), 404);
    assert_eq!(with(format!("/v1/buckets/bkt_2/syncs/{id}"), "default"), 404);
    assert_eq!(with(sync.clone(), &"x".repeat(101)), 422);
    let wrong = sync.replace("bkt_1", "bkt_2");
    for (method, path) in [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/trigger"),
        ("POST", "/unlock"),
        ("GET", "/metrics"),
        ("POST", "/jobs"),
        ("GET", "/jobs/job_1"),
    ] {
        let (status, name, message) = home.refused(method, &format!("{wrong}{path}"), Value::Null);
        assert_eq!((status, name.as_str()), (404, "NotFoundError"), "{method} {path}");
        assert!(message.contains("X-Namespace"), "{message}");
    }
    assert_eq!(home.commands.borrow().len(), 3, "no coordinator was disturbed"); // configured, and two reads
}

#[test]
fn a_sync_is_changed() {
    let home = Home::new();
    let sync = home.sync();
    let before = home.record(&sync);
    let patched = home.ok(
        "PATCH",
        &sync,
        json!({"description": "d", "polling_interval_seconds": 86400, "batch_size": 1, "metadata": {"a": 1},
               "reconcile": {"on_delete": false}, "max_objects_per_run": 5, "sync_concurrency": 2,
               "batch_collection_ids": ["col"], "include_patterns": ["*.mp4"], "skip_batch_submission": true}),
    );
    assert_eq!(patched["polling_interval_seconds"], 86_400);
    assert_eq!(patched["reconcile"], json!({"on_delete": false, "on_update": true, "on_filter_drift": true}));
    assert_eq!(patched["file_filters"]["include_patterns"], json!(["*.mp4"]));
    let after = home.record(&sync);
    assert_eq!((&after.salt, &after.source, after.created_at), (&before.salt, &before.source, before.created_at));
    assert!(home.commands.borrow().ends_with(&[Command::Configured]));
    // The nested filters replace all; null clears; what is left out stays.
    let patched = home.ok("PATCH", &sync, json!({"file_filters": {"min_size_bytes": 5}, "max_objects_per_run": null}));
    assert_eq!(
        (&patched["file_filters"]["include_patterns"], &patched["max_objects_per_run"]),
        (&Value::Null, &Value::Null)
    );
    let patched = home.ok("PATCH", &sync, json!({"file_filters": null, "metadata": null, "batch_collection_ids": []}));
    assert_eq!(
        (&patched["file_filters"], &patched["metadata"], &patched["batch_collection_ids"]),
        (&Value::Null, &json!({}), &Value::Null)
    );
    assert_eq!(patched["description"], "d");
    for (limit, percent, files) in [
        (json!({"percent": 80}), 80, 100),
        (json!({"files": 0}), 80, 0),
        (json!({}), 80, 0),
        (json!({"percent": 100, "files": 7}), 100, 7),
        (Value::Null, 50, 100),
    ] {
        let patched = home.ok("PATCH", &sync, json!({"deletion_limit": limit}));
        assert_eq!(patched["deletion_limit"], json!({"percent": percent, "files": files}), "{limit}");
        assert_eq!(u32::from(home.record(&sync).deletion_limit.percent), percent);
    }
    assert_eq!(home.wrong("PATCH", &sync, json!({"deletion_limit": 5})), ["body.deletion_limit"]);
    // What cannot be changed, and what does not fit together.
    assert_eq!(
        home.wrong("PATCH", &sync, json!({"source_path": "x", "sync_mode": "one_time"})),
        ["body.source_path", "body.sync_mode"]
    );
    home.ok("PATCH", &sync, json!({"file_filters": {"modified_before": "2024-01-01T00:00:00Z"}}));
    assert_eq!(
        home.wrong("PATCH", &sync, json!({"modified_since": "2025-01-01T00:00:00Z"})),
        ["body.file_filters.modified_after"]
    );
    assert_eq!(home.record(&sync).filters.modified_after, None);
}

/// What the latest job cost, the day's forecast, and why polls are further apart.

#[test]
fn lists_of_syncs() {
    let home = Home::new();
    let first = home.sync();
    let other = home.connection("B");
    let mut ids = vec![first.rsplit('/').next().unwrap().to_owned()];
    for i in 0..40 {
        let body = json!({"connection_id": other, "source_path": format!("my-videos/{i}")});
        ids.insert(0, home.ok("POST", SYNCS, body)["sync_config_id"].as_str().unwrap().to_owned());
    }
    let list = |query: &str, body: Value| -> Vec<String> {
        let answer = home.ok("POST", &format!("{SYNCS}/list{query}"), body);
        check_keys(&answer, "results pagination total");
        let results = answer["results"].as_array().unwrap();
        results.iter().map(|result| result["sync_config_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(list("?limit=100", Value::Null), ids);
    assert_eq!(list("", json!({"connection_id": other})).len(), 40);
    assert_eq!(list("", json!({"status": "PENDING"})).len(), 41);
    assert!(list("", json!({"status": "ACTIVE"})).is_empty());
    assert_eq!(list("", json!({"is_active": true})).len(), 41);
    assert_eq!(list("?limit=2&page=2", Value::Null), ids[2..4]);
    assert_eq!(home.ok("GET", "/v1/buckets/bkt_2/syncs", Value::Null)["total"], 0);
    // A coordinator that does not answer hides no sync.
    home.unreachable.set(true);
    assert_eq!(list("?limit=100", Value::Null), ids);
    let answer = home.ok("POST", &format!("{SYNCS}/list"), Value::Null);
    assert_eq!(answer["results"][0]["status"], "UNKNOWN");
    let (status, name, _) = home.refused("GET", &first, Value::Null);
    assert_eq!((status, name.as_str()), (503, "ServiceUnavailableError"));
    // Nor does it keep one from being created: the cron will find it.
    let created = home.ok("POST", SYNCS, json!({"connection_id": other, "source_path": "my-videos"}));
    assert_eq!(created["status"], "PENDING");
}

#[test]
fn the_syncs_of_all_buckets_are_listed() {
    let home = Home::new();
    let (a, b) = (home.connection("A"), home.connection("B"));
    let create = |bucket: &str, connection: &str, n: u32| {
        let body = json!({"connection_id": connection, "source_path": format!("my-videos/{bucket}/{n}/")});
        home.ok("POST", &format!("/v1/buckets/{bucket}/syncs"), body)["sync_config_id"].as_str().unwrap().to_owned()
    };
    let mut ids: Vec<_> =
        [("bkt_1", &a, 1), ("bkt_2", &a, 2), ("bkt_1", &b, 3)].map(|(it, by, n)| create(it, by, n)).into();
    ids.reverse();
    let list = |query: &str, body: Value| -> Vec<String> {
        let answer = home.ok("POST", &format!("/v1/syncs/list{query}"), body);
        check_keys(&answer, "results pagination total");
        let results = answer["results"].as_array().unwrap();
        results.iter().map(|result| result["sync_config_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(list("", Value::Null), ids);
    assert_eq!(list("", json!({"bucket_id": "bkt_1"})), [&*ids[0], &ids[2]]);
    assert_eq!(list(&format!("?connection_id={a}"), Value::Null), ids[1..]);
    assert_eq!(list("?bucket_id=bkt_1", json!({"connection_id": a, "status": "PENDING"})), ids[2..]);
    assert_eq!(list("?status=PENDING&limit=2", Value::Null), ids[..2]);
    assert_eq!(list("?is_active=true&page=2&limit=2", Value::Null), ids[2..]);
    assert!(list("?bucket_id=bkt_3", Value::Null).is_empty());
    assert!(list("?status=FAILED", Value::Null).is_empty());
    // Each as it shows itself, and the links keep what was asked for.
    let first = home.ok("GET", "/v1/syncs?bucket_id=bkt_1&limit=1", Value::Null);
    assert_eq!(first["total"], 2);
    assert_eq!(first["results"][0], home.ok("GET", &format!("{SYNCS}/{}", ids[0]), Value::Null));
    let next = first["pagination"]["next_page"].as_str().unwrap();
    assert_eq!(home.ok("GET", next, Value::Null)["results"][0]["sync_config_id"], ids[2].as_str());
    let cursor = first["pagination"]["next_cursor"].as_str().unwrap();
    assert_eq!(list(&format!("?cursor={cursor}"), Value::Null), ids[1..]);
    // Those of the namespace only.
    let request = |namespace: &str| ApiRequest {
        method: "GET".into(),
        path: "/v1/syncs".into(),
        authorization: Some(format!("Bearer {API_KEY}")),
        namespace: Some(namespace.into()),
        ..ApiRequest::default()
    };
    for (namespace, syncs) in [("default", 3), ("other", 0)] {
        let answer: Value = serde_json::from_slice(&home.request(request(namespace)).body).unwrap();
        assert_eq!(answer["total"], syncs, "{namespace}");
    }
    assert_eq!(home.wrong("GET", "/v1/syncs?source_path=x", Value::Null), ["query.source_path"]);
    assert_eq!(home.wrong("GET", &format!("{SYNCS}?bucket_id=bkt_1"), Value::Null), ["query.bucket_id"]);
    assert_eq!(home.call("POST", "/v1/syncs", Value::Null).0, 405);
}

/// A request that would need more calls than the limit is refused before it makes one.
#[test]
fn a_list_asks_a_bounded_number_of_syncs_how_they_stand() {
    let home = Home::new();
    home.sync();
    let record = home.ok("GET", "/v1/syncs", Value::Null)["results"][0]["sync_config_id"].as_str().unwrap().to_owned();
    let record = block_on(home.registry.sync(&record)).unwrap().unwrap();
    for n in 0..SYNCS_ASKED_MAX {
        let (sync_id, bucket_id) = (format!("sync_{n}"), format!("bkt_{}", n % 2));
        block_on(home.registry.insert_sync(SyncRecord { sync_id, bucket_id, ..record.clone() })).unwrap();
    }
    home.commands.borrow_mut().clear();
    assert_eq!(home.wrong("GET", "/v1/syncs?status=ACTIVE", Value::Null), ["query.status"]);
    assert_eq!(home.wrong("POST", "/v1/syncs/list", json!({"is_active": true})), ["body.is_active"]);
    assert!(home.commands.borrow().is_empty());
    assert_eq!(home.ok("GET", "/v1/syncs?limit=1", Value::Null)["total"], SYNCS_ASKED_MAX + 1);
    assert_eq!(home.ok("GET", "/v1/syncs?status=PENDING&bucket_id=bkt_0", Value::Null)["total"], SYNCS_ASKED_MAX / 2);
}

#[test]
fn a_sync_that_cannot_be_read_hides_no_other() {
    let home = Home::new();
    let first = home.sync();
    let broken = home.ok("POST", SYNCS, json!({"connection_id": "A", "source_path": "my-videos"}))["sync_config_id"]
        .as_str()
        .unwrap()
        .to_owned();
    home.registry.damage(&broken);
    let answer = home.ok("GET", SYNCS, Value::Null);
    let (shown, other) = (&answer["results"][0], &answer["results"][1]);
    assert_eq!((&answer["total"], &shown["sync_config_id"]), (&2.into(), &broken.as_str().into()));
    assert_eq!((&shown["status"], &shown["is_active"]), (&"UNKNOWN".into(), &false.into()));
    assert!(shown["last_error"].as_str().unwrap().contains("A stored sync does not decode"), "{shown}");
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(fields(shown), fields(other), "it has every field");
    let total = |body: Value| home.ok("POST", &format!("{SYNCS}/list"), body)["total"].clone();
    assert_eq!(total(json!({"status": "UNKNOWN"})), 1);
    assert_eq!(total(json!({"is_active": false})), 1);
    assert_eq!(total(json!({"is_active": true})), 1);
    home.ok("POST", &format!("{first}/pause"), Value::Null);
    assert_eq!(total(json!({"is_active": false})), 2);

    let path = format!("{SYNCS}/{broken}");
    for (method, path) in [("GET", ""), ("PATCH", ""), ("POST", "/trigger"), ("POST", "/pause"), ("POST", "/resume")] {
        let (status, _, message) = home.refused(method, &format!("{SYNCS}/{broken}{path}"), Value::Null);
        assert!(status == 500 && message.contains("delete it"), "{method} {path}: {status} {message}");
    }
    assert_eq!(home.refused("DELETE", &path.replace("bkt_1", "bkt_2"), Value::Null).0, 404);
    home.ok("DELETE", &path, Value::Null);
    assert_eq!(home.refused("GET", &path, Value::Null).0, 404);
}

#[test]
fn a_filter_in_the_wrong_place_says_where_it_belongs() {
    let home = Home::new();
    let sync = home.sync();
    for name in ["extensions", "mime_types", "min_size_bytes", "modified_after", "include_folder_markers"] {
        let body = json!({"connection_id": "A", "source_path": "my-videos/x/", name: ["a"]});
        for (method, path, body) in [("POST", SYNCS, body), ("PATCH", sync.as_str(), json!({name: 1}))] {
            let (status, _, message) = home.refused(method, path, body);
            assert!(status == 422 && message.contains("belongs into `file_filters`"), "{name}: {message}");
        }
    }
    let (_, _, message) = home.refused("PATCH", &sync, json!({"file_filters": {"modified_since": "2024-01-01"}}));
    assert!(message.contains("send `modified_after` in it"), "{message}");
}

#[test]
fn the_answer_says_whether_there_was_anything_to_do() {
    let home = Home::new();
    let sync = home.sync();
    let ask = |action: &str| home.ok("POST", &format!("{sync}/{action}"), Value::Null)["message"].clone();
    assert_eq!(ask("unlock"), "No job was running, so nothing was aborted.");
    assert_eq!(ask("pause"), "The sync was paused. No job was running.");
    assert_eq!(ask("resume"), "The sync was not paused, and no job was started.");
}

#[test]
fn a_list_takes_the_name_of_a_connection_as_creation_does() {
    let home = Home::new();
    let (a, b) = (home.connection("A"), home.connection("B"));
    for connection in ["A", "B", "B"] {
        home.ok("POST", SYNCS, json!({"connection_id": connection, "source_path": "my-videos/v/"}));
    }
    for (connection, syncs) in [("A", 1), (&*a, 1), ("B", 2), (&*b, 2)] {
        let list = home.ok("GET", &format!("{SYNCS}?connection_id={connection}"), Value::Null);
        assert_eq!(list["results"].as_array().unwrap().len(), syncs, "{connection}");
        let list = home.ok("POST", &format!("{SYNCS}/list"), json!({"connection_id": connection, "status": "PENDING"}));
        assert_eq!(list["results"].as_array().unwrap().len(), syncs, "{connection}");
    }
    let (status, answer) = home.call("GET", &format!("{SYNCS}?connection_id=C"), Value::Null);
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("not_found")), "{answer}");
}
