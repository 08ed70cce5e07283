//! Connections.

use super::*;

#[test]
fn a_connection_from_birth_to_death() {
    let home = Home::new();
    let mut body = new_connection("Backblaze B2 Production");
    body["description"] = "All videos".into();
    body["metadata"] = json!({"team": "media"});
    let created = home.ok("POST", CONNECTIONS, body);
    let id = created["connection_id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("conn_"));
    assert_eq!(
        created,
        json!({
            "etag": created["etag"],
            "connection_id": id,
            "internal_id": "int_b2sync",
            "provider_type": "backblaze",
            "provider_config": {"provider_type": "backblaze", "credentials": {"type": "application_key"}},
            "write_enabled": false,
            "name": "Backblaze B2 Production",
            "description": "All videos",
            "status": "ACTIVE",
            "is_active": true,
            "last_used_at": null,
            "last_error": null,
            "consecutive_failures": 0,
            "created_at": "2023-11-14T22:13:21Z",
            "updated_at": "2023-11-14T22:13:21Z",
            "created_by_user_id": "usr_api_key",
            "metadata": {"team": "media"},
        })
    );
    assert_eq!(home.ok("GET", &format!("{CONNECTIONS}/{id}"), Value::Null), created);
    assert_eq!(home.ok("GET", &format!("{CONNECTIONS}/Backblaze%20B2%20Production"), Value::Null), created);

    let tested = home.ok("POST", &format!("{CONNECTIONS}/{id}/test"), Value::Null);
    check_keys(&tested, "success message details");
    assert_eq!(tested["success"], true);
    assert_eq!(
        tested["details"],
        json!({
            "s3_endpoint": "https://s3.us-east-005.backblazeb2.com",
            "region": "us-east-005",
            "capabilities": ["listBuckets", "listFiles", "readFiles"],
            "missing_capabilities": [],
            "buckets": null,
            "name_prefix": null,
            "key_expires_at": null,
        })
    );
    let read = home.ok("GET", &format!("{CONNECTIONS}/{id}"), Value::Null);
    assert_eq!(read["last_used_at"], "2023-11-14T22:13:24Z");

    let patch = json!({"name": "Renamed", "description": "", "metadata": {}, "write_enabled": true});
    let patched = home.ok("PATCH", &format!("{CONNECTIONS}/{id}"), patch);
    assert_eq!(
        (&patched["name"], &patched["description"], &patched["metadata"], &patched["write_enabled"]),
        (&"Renamed".into(), &Value::Null, &json!({}), &true.into())
    );
    assert_eq!(home.refused("GET", &format!("{CONNECTIONS}/Backblaze%20B2%20Production"), Value::Null).0, 404);

    let deleted = home.ok("DELETE", &format!("{CONNECTIONS}/Renamed"), Value::Null);
    assert!(deleted.as_object().unwrap().values().all(Value::is_string), "the client reads strings: {deleted}");
    assert_eq!(home.ok("GET", &format!("{CONNECTIONS}/{id}"), Value::Null)["status"], "ARCHIVED");
    assert_eq!(block_on(home.registry.connection(&id)).unwrap().unwrap().application_key, None);
    home.ok("DELETE", &format!("{CONNECTIONS}/{id}"), Value::Null); // again
    for (method, path) in [("PATCH", ""), ("POST", "/test")] {
        let (status, name, message) = home.refused(method, &format!("{CONNECTIONS}/{id}{path}"), json!({}));
        assert_eq!((status, name.as_str()), (409, "ConflictError"), "{message}");
    }
    home.connection("Renamed"); // The name is free.
}

#[test]
fn a_connection_is_stored_sealed() {
    let home = Home::new();
    let id = home.connection("A");
    let record = block_on(home.registry.connection(&id)).unwrap().unwrap();
    let stored = serde_json::to_string(&record).unwrap();
    assert!(!stored.contains(APPLICATION_KEY));
    let sealed = record.application_key.unwrap();
    let opened = home.master_keys.open(&sealed, &id).unwrap();
    assert_eq!(secrecy::ExposeSecret::expose_secret(&opened), APPLICATION_KEY);
    assert!(home.master_keys.open(&sealed, "conn_other").is_err());
}

#[test]
fn names_are_unique() {
    let home = Home::new();
    home.connection("A");
    let calls = home.sent.borrow().len();
    let (status, name, message) = home.refused("POST", CONNECTIONS, new_connection("A"));
    assert_eq!((status, name.as_str()), (409, "AlreadyExistsError"));
    assert!(message.contains("\"A\""));
    assert_eq!(home.sent.borrow().len(), calls, "B2 was not asked");
    let b = home.connection("B");
    let (status, name, _) = home.refused("PATCH", &format!("{CONNECTIONS}/{b}"), json!({"name": "A"}));
    assert_eq!((status, name.as_str()), (409, "AlreadyExistsError"));
}

#[test]
fn a_connection_that_is_wrong_says_where() {
    let home = Home::new();
    assert_eq!(home.wrong("POST", CONNECTIONS, json!({})), ["body.name", "body.provider_type", "body.provider_config"]);
    assert_eq!(home.wrong("POST", CONNECTIONS, Value::Null).len(), 3);
    let mut body = new_connection(" ");
    body["provider_type"] = "s3".into();
    body["description"] = "x".repeat(501).into();
    body["write_enabled"] = "yes".into();
    body["test_before_save"] = 1.into();
    body["metadata"] = json!([]);
    body["colour"] = "blue".into();
    body["provider_config"] =
        json!({"region": "x", "credentials": {"type": "oauth", "key_id": 1, "application_key": "ü"}});
    let mut wrong = home.wrong("POST", CONNECTIONS, body);
    wrong.sort_unstable();
    assert_eq!(
        wrong,
        [
            "body.colour",
            "body.description",
            "body.metadata",
            "body.name",
            "body.provider_config.credentials.application_key",
            "body.provider_config.credentials.key_id",
            "body.provider_config.credentials.type",
            "body.provider_config.region",
            "body.provider_type",
            "body.test_before_save",
            "body.write_enabled",
        ]
    );
    for (config, location) in [
        (json!({}), "body.provider_config.credentials"),
        (json!([]), "body.provider_config"),
        (json!({"credentials": {"application_key": "x"}}), "body.provider_config.credentials.key_id"),
        (json!({"credentials": {"key_id": "x"}}), "body.provider_config.credentials.application_key"),
        (
            json!({"credentials": {"key_id": "x", "application_key": ""}}),
            "body.provider_config.credentials.application_key",
        ),
    ] {
        let body = json!({"name": "A", "provider_type": "backblaze", "provider_config": config});
        assert_eq!(home.wrong("POST", CONNECTIONS, body), [location]);
    }
    assert_eq!(home.wrong("PATCH", &format!("{CONNECTIONS}/x"), json!({"status": "active"})), ["body.status"]);
    assert_eq!(
        home.wrong("PATCH", &format!("{CONNECTIONS}/x"), json!({"status": "ACTIVE", "is_active": false})),
        ["body.is_active"]
    );
    assert!(home.sent.borrow().is_empty(), "B2 was not asked");
}

#[test]
fn a_secret_in_the_wrong_place_is_not_echoed() {
    let home = Home::new();
    // `request` looks for the secret in every answer.
    let odd = format!("{APPLICATION_KEY}\u{1F4A5}");
    for body in [
        json!({"name": APPLICATION_KEY.repeat(9), "application_key": APPLICATION_KEY}),
        json!({"name": "A", "provider_type": APPLICATION_KEY, "provider_config": APPLICATION_KEY}),
        json!({"name": "A", "provider_type": "backblaze", "provider_config": {"credentials": APPLICATION_KEY}}),
        json!({"name": "A", "provider_type": "backblaze",
               "provider_config": {"credentials": {"type": APPLICATION_KEY, "key_id": "x", "application_key": odd}}}),
    ] {
        assert_eq!(home.call("POST", CONNECTIONS, body).0, 422);
    }
    let response = home.request(ApiRequest {
        method: "POST".into(),
        path: CONNECTIONS.into(),
        authorization: Some(format!("Bearer {API_KEY}")),
        body: format!("{{\"application_key\": {APPLICATION_KEY}}}").into_bytes(),
        ..ApiRequest::default()
    });
    assert_eq!(response.status, 422);
}

#[test]
fn what_b2_says_about_a_key_is_told() {
    for (answer, status, code, text) in [
        (Some((401, r#"{"code":"bad_auth_token","message":"","status":401}"#)), 400, "bad_credentials", "key"),
        (Some((403, r#"{"code":"transaction_cap_exceeded","message":"","status":403}"#)), 400, "cap_exceeded", "cap"),
        (Some((503, r#"{"code":"service_unavailable","message":"","status":503}"#)), 503, "service_unavailable", ""),
        (None, 503, "transport", ""),
    ] {
        let home = Home::new();
        *home.authorize.borrow_mut() = answer.map(|(status, body)| (status, body.to_owned()));
        let (got, body) = home.call("POST", CONNECTIONS, new_connection("A"));
        assert_eq!((got, body["error"]["code"].as_str().unwrap()), (status, code), "{body}");
        assert_eq!(body["error"]["details"]["retryable"], status == 503);
        assert!(body["error"]["message"].as_str().unwrap().contains(text), "{body}");
        assert_eq!(home.ok("GET", CONNECTIONS, Value::Null)["total"], 0, "nothing was stored");
        // Without the test it is stored all the same, and the test answers 200.
        let mut body = new_connection("A");
        body["test_before_save"] = false.into();
        home.ok("POST", CONNECTIONS, body);
        let tested = home.ok("POST", &format!("{CONNECTIONS}/A/test"), Value::Null);
        assert_eq!((&tested["success"], &tested["details"]["code"]), (&false.into(), &code.into()), "{tested}");
        let read = home.ok("GET", &format!("{CONNECTIONS}/A"), Value::Null);
        assert!(read["last_error"].is_string());
        assert_eq!(read["consecutive_failures"], u8::from(status != 503), "B2 being busy is no fault of the key");
    }
}

#[test]
fn five_failures_suspend_and_a_success_restores() {
    let home = Home::new();
    home.connection("A");
    *home.authorize.borrow_mut() = Some((401, r#"{"code":"bad_auth_token","message":"","status":401}"#.into()));
    for failures in 1..=5 {
        home.ok("POST", &format!("{CONNECTIONS}/A/test"), Value::Null);
        let read = home.ok("GET", &format!("{CONNECTIONS}/A"), Value::Null);
        assert_eq!(read["consecutive_failures"], failures);
        assert_eq!(read["status"], if failures < 5 { "FAILED" } else { "SUSPENDED" });
        assert_eq!(read["is_active"], failures < 5);
    }
    let body = json!({"connection_id": "A", "source_path": "my-videos"});
    let (status, _, message) = home.refused("POST", SYNCS, body);
    assert_eq!(status, 409);
    assert!(message.contains("SUSPENDED") && message.contains("/test"), "{message}");
    *home.authorize.borrow_mut() = Some((200, ACCOUNT.into()));
    home.ok("POST", &format!("{CONNECTIONS}/A/test"), Value::Null);
    let read = home.ok("GET", &format!("{CONNECTIONS}/A"), Value::Null);
    assert_eq!(
        (&read["status"], &read["consecutive_failures"], &read["last_error"]),
        (&"ACTIVE".into(), &0.into(), &Value::Null)
    );
    // One that its user suspended stays so.
    home.ok("PATCH", &format!("{CONNECTIONS}/A"), json!({"is_active": false}));
    home.ok("POST", &format!("{CONNECTIONS}/A/test"), Value::Null);
    assert_eq!(home.ok("GET", &format!("{CONNECTIONS}/A"), Value::Null)["status"], "SUSPENDED");
    let failing = Some((401, r#"{"code":"bad_auth_token","message":"","status":401}"#.into()));
    home.authorize.borrow_mut().clone_from(&failing);
    for _ in 0..6 {
        home.ok("POST", &format!("{CONNECTIONS}/A/test"), Value::Null);
    }
    *home.authorize.borrow_mut() = Some((200, ACCOUNT.into()));
    let key = json!({"provider_config": {"credentials": {"application_key": APPLICATION_KEY}}});
    assert_eq!(home.ok("PATCH", &format!("{CONNECTIONS}/A"), key.clone())["status"], "SUSPENDED");
    let (_, _, message) = home.refused("POST", SYNCS, json!({"connection_id": "A", "source_path": "my-videos"}));
    assert!(message.contains("{\"is_active\": true}"), "{message}");

    // What failures suspended, a new key or its user's word lifts, and its syncs begin at once.
    home.ok("PATCH", &format!("{CONNECTIONS}/A"), json!({"is_active": true}));
    home.ok("POST", SYNCS, json!({"connection_id": "A", "source_path": "b2://my-videos/2024/"}));
    let begun_now = || home.commands.borrow().iter().filter(|it| **it == Command::ConnectionLifted).count();
    let mut begun = 0;
    assert_eq!(begun_now(), begun, "there was no sync to tell");
    for lift in [key, json!({"is_active": true}), json!({"status": "ACTIVE"})] {
        home.ok("PATCH", &format!("{CONNECTIONS}/A"), json!({"is_active": true}));
        home.authorize.borrow_mut().clone_from(&failing);
        for _ in 0..5 {
            home.ok("POST", &format!("{CONNECTIONS}/A/test"), Value::Null);
        }
        assert_eq!(home.ok("GET", &format!("{CONNECTIONS}/A"), Value::Null)["status"], "SUSPENDED");
        *home.authorize.borrow_mut() = Some((200, ACCOUNT.into()));
        let lifted = home.ok("PATCH", &format!("{CONNECTIONS}/A"), lift);
        assert_eq!((&lifted["status"], &lifted["is_active"]), (&"ACTIVE".into(), &true.into()));
        assert_eq!(lifted["consecutive_failures"], 0);
        begun += 1;
        assert_eq!(begun_now(), begun);
    }
}

#[test]
fn a_key_without_its_rights_fails_the_test() {
    let home = Home::new();
    home.connection("A");
    *home.authorize.borrow_mut() = Some((200, ACCOUNT.replace("\"listFiles\",", "")));
    let tested = home.ok("POST", &format!("{CONNECTIONS}/A/test"), Value::Null);
    assert_eq!(tested["success"], false);
    assert_eq!(tested["details"]["missing_capabilities"], json!(["listFiles"]));
    assert!(tested["message"].as_str().unwrap().contains("List Files"));
}

#[test]
fn new_credentials_keep_what_they_leave_out() {
    let home = Home::new();
    let id = home.connection("A");
    let patch = json!({"provider_config": {"credentials": {"application_key": "K005another"}}});
    home.ok("PATCH", &format!("{CONNECTIONS}/{id}"), patch);
    let record = block_on(home.registry.connection(&id)).unwrap().unwrap();
    assert_eq!(record.key_id, KEY_ID);
    let opened = home.master_keys.open(record.application_key.as_ref().unwrap(), &id).unwrap();
    assert_eq!(secrecy::ExposeSecret::expose_secret(&opened), "K005another");
    // Wrong ones are not stored.
    *home.authorize.borrow_mut() = Some((401, r#"{"code":"bad_auth_token","message":"","status":401}"#.into()));
    let patch = json!({"provider_config": {"credentials": {"key_id": "other"}}});
    assert_eq!(home.refused("PATCH", &format!("{CONNECTIONS}/{id}"), patch).0, 400);
    assert_eq!(block_on(home.registry.connection(&id)).unwrap().unwrap(), record);
    // A body that changes no credentials needs no call to B2.
    home.ok(
        "PATCH",
        &format!("{CONNECTIONS}/{id}"),
        json!({"description": "x", "provider_config": {"provider_type": "backblaze"}}),
    );
}

#[test]
fn a_connection_in_use_stays() {
    let home = Home::new();
    let sync = home.sync();
    for (method, body) in [("DELETE", Value::Null), ("PATCH", json!({"status": "ARCHIVED"}))] {
        let (status, name, message) = home.refused(method, &format!("{CONNECTIONS}/A"), body);
        assert_eq!((status, name.as_str()), (409, "ConflictError"));
        assert!(message.contains(sync.rsplit('/').next().unwrap()) && message.contains("bkt_1"), "{message}");
    }
    home.ok("POST", &format!("{sync}/pause"), Value::Null);
    home.ok("DELETE", &format!("{CONNECTIONS}/A"), Value::Null);
    let (status, _, message) = home.refused("POST", &format!("{sync}/resume"), Value::Null);
    assert_eq!(status, 409);
    assert!(message.contains("deleted"), "{message}");
}

#[test]
fn lists_of_connections() {
    let home = Home::new();
    for name in ["A", "B", "C", "D", "E"] {
        home.connection(name);
    }
    home.ok("PATCH", &format!("{CONNECTIONS}/B"), json!({"status": "SUSPENDED"}));
    home.ok("DELETE", &format!("{CONNECTIONS}/C"), Value::Null);
    let names = |query: &str, body: Value| -> Vec<String> {
        let answer = home.ok("POST", &format!("{CONNECTIONS}/list{query}"), body);
        check_keys(&answer, "results pagination total");
        let results = answer["results"].as_array().unwrap();
        results.iter().map(|result| result["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("", Value::Null), ["E", "D", "B", "A"]);
    assert_eq!(names("", json!({"is_active": true})), ["E", "D", "A"]);
    assert_eq!(names("", json!({"status": "SUSPENDED", "provider_type": "backblaze"})), ["B"]);
    assert_eq!(names("", json!({"status": "ARCHIVED"})), ["C"]);
    assert!(names("", json!({"provider_type": "s3"})).is_empty());
    assert_eq!(names("?page_size=2&page=2", json!({})), ["B", "A"]);
    // Links are followed as the page was asked for, and keep its other parameters.
    for (method, path) in [("GET", CONNECTIONS.to_owned()), ("POST", format!("{CONNECTIONS}/list"))] {
        let mut link = Some(format!("{path}?limit=1&include_total=true"));
        let mut pages = 0;
        while let Some(here) = link {
            let answer = home.ok(method, &here, Value::Null);
            assert_eq!((answer["results"].as_array().unwrap().len(), &answer["total"]), (1, &4.into()));
            link = answer["pagination"]["next_page"].as_str().map(str::to_owned);
            pages += 1;
        }
        assert_eq!(pages, 4);
    }
    let answer = home.ok("GET", &format!("{CONNECTIONS}?limit=3"), Value::Null);
    assert_eq!((&answer["total"], &answer["pagination"]["total_pages"]), (&4.into(), &2.into()));
    check_keys(&answer["pagination"], "total page page_size total_pages next_page previous_page next_cursor");
    let cursor = answer["pagination"]["next_cursor"].as_str().unwrap();
    assert_eq!(names(&format!("?limit=3&cursor={cursor}"), Value::Null), ["A"]);
    assert_eq!(
        home.wrong("POST", &format!("{CONNECTIONS}/list?limit=0&offset=x"), json!({"status": "active", "x": 1})),
        ["body.status", "query.limit", "query.offset", "body.x"]
    );
}

#[test]
fn an_unknown_connection_is_not_found() {
    let home = Home::new();
    for (method, path) in [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/test")] {
        let (status, name, message) = home.refused(method, &format!("{CONNECTIONS}/conn_none{path}"), Value::Null);
        assert_eq!((status, name.as_str()), (404, "NotFoundError"));
        assert!(message.contains("conn_none"));
    }
}

#[test]
fn a_connection_that_cannot_be_read_hides_no_other() {
    let home = Home::new();
    let ids: Vec<String> = ["A", "B", "C"].iter().map(|name| home.connection(name)).collect();
    let broken = &ids[1];
    home.registry.damage(broken);
    let answer = home.ok("GET", CONNECTIONS, Value::Null);
    let results = answer["results"].as_array().unwrap();
    let shown: Vec<_> = results.iter().map(|it| (it["name"].as_str(), it["status"].as_str())).collect();
    let wanted = [("C", "ACTIVE"), ("B", "UNKNOWN"), ("A", "ACTIVE")];
    assert_eq!(shown, wanted.map(|(name, status)| (Some(name), Some(status))));
    assert_eq!(answer["total"], 3);
    assert_eq!((&results[1]["connection_id"], &results[1]["is_active"]), (&broken.as_str().into(), &false.into()));
    assert!(results[1]["last_error"].as_str().unwrap().contains("A stored connection does not decode"));
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields(&results[1]), fields(&results[0]), "it has every field");

    let (status, _, message) = home.refused("GET", &format!("{CONNECTIONS}/B"), Value::Null);
    assert_eq!(status, 500);
    assert!(message.contains("delete it"), "{message}");
    assert_eq!(home.refused("POST", CONNECTIONS, new_connection("B")).0, 409, "its name is taken");
    let deleted = home.ok("DELETE", &format!("{CONNECTIONS}/B"), Value::Null);
    assert_eq!((&deleted["connection_id"], &deleted["status"]), (&broken.as_str().into(), &"ARCHIVED".into()));
    assert_eq!(home.refused("GET", &format!("{CONNECTIONS}/{broken}"), Value::Null).0, 404);
    home.connection("B");
}

#[test]
fn a_connection_in_use_that_cannot_be_read_stays() {
    let home = Home::new();
    let sync = home.sync();
    let id = home.record(&sync).connection_id;
    home.registry.damage(&id);
    assert_eq!(home.refused("DELETE", &format!("{CONNECTIONS}/{id}"), Value::Null).0, 409);
    home.ok("DELETE", &sync, Value::Null);
    home.ok("DELETE", &format!("{CONNECTIONS}/{id}"), Value::Null);
}

#[test]
fn a_name_can_be_used_again_without_end() {
    let home = Home::new();
    for _ in 0..=crate::registry::CONNECTIONS_MAX {
        let id = home.connection("A");
        home.ok("DELETE", &format!("{CONNECTIONS}/{id}"), Value::Null);
    }
    home.connection("A");
    assert_eq!(home.ok("GET", CONNECTIONS, Value::Null)["total"], 1);
    let archived = home.ok("POST", &format!("{CONNECTIONS}/list?limit=1"), json!({"status": "ARCHIVED"}));
    assert_eq!(archived["total"], crate::registry::CONNECTIONS_MAX + 1);
}

#[test]
fn a_field_that_stands_twice_is_refused() {
    let home = Home::new();
    home.connection("A");
    let path = "/v1/organizations/connections/A";
    for (body, field) in
        [(r#"{"name": "B", "name": "C"}"#, "name"), (r#"{"metadata": {"x": [{"deep": 1, "deep": 2}]}}"#, "deep")]
    {
        let response = home.request(ApiRequest {
            method: "PATCH".into(),
            path: path.into(),
            authorization: Some(format!("Bearer {API_KEY}")),
            body: body.as_bytes().to_vec(),
            ..ApiRequest::default()
        });
        let answer: Value = serde_json::from_slice(&response.body).unwrap();
        let message = format!("`{field}` stands more than once in one object: send it once.");
        assert_eq!((response.status, &answer["error"]["message"]), (422, &json!(message)), "{answer}");
    }
    assert_eq!(home.ok("GET", path, Value::Null)["name"], "A");
}

#[test]
fn bodies_that_are_too_deep_or_too_large_are_refused() {
    let home = Home::new();
    let sync = home.sync();
    let id = home.connection("B");
    let deep = |levels: usize| (0..levels).fold(json!({}), |value, _| json!({"a": value}));
    let with = |metadata: Value| json!({"metadata": metadata});
    let text = |bytes: usize| json!({"a": "x".repeat(bytes - r#"{"a":""}"#.len())});
    let connection = format!("{CONNECTIONS}/{id}");
    for path in [&connection, &sync] {
        // The body is the first level, and `metadata` the second.
        for fits in [deep(30), text(16 * 1024)] {
            assert_eq!(home.ok("PATCH", path, with(fits.clone()))["metadata"], fits);
        }
        for wrong in [deep(31), deep(124), deep(1_000), text(16 * 1024 + 1)] {
            assert_eq!(home.wrong("PATCH", path, with(wrong)), ["body.metadata"]);
        }
        assert_eq!(home.ok("PATCH", path, with(Value::Null))["metadata"], json!({}));
    }
    let (_, _, message) = home.refused("PATCH", &sync, json!({"schema_mapping": deep(31)}));
    assert!(message.contains("`schema_mapping`") && message.contains("32 levels"), "{message}");
    let (_, _, message) = home.refused("PATCH", &sync, with(text(20_000)));
    assert!(message.contains("20000 bytes") && message.contains("16384"), "{message}");
    for (path, body) in
        [(CONNECTIONS, new_connection("C")), (SYNCS, json!({"connection_id": "B", "source_path": "my-videos"}))]
    {
        for metadata in [deep(31), text(16 * 1024 + 1)] {
            let mut body = body.clone();
            body["metadata"] = metadata;
            assert_eq!(home.wrong("POST", path, body), ["body.metadata"]);
        }
    }
    assert_eq!(home.ok("GET", CONNECTIONS, Value::Null)["total"], 2);
}

#[test]
fn a_byte_order_mark_is_read_over() {
    let home = Home::new();
    let response = home.request(ApiRequest {
        method: "POST".into(),
        path: CONNECTIONS.into(),
        authorization: Some(format!("Bearer {API_KEY}")),
        body: format!("\u{feff}{}", new_connection("A")).into_bytes(),
        ..ApiRequest::default()
    });
    assert_eq!(response.status, 200, "{:?}", String::from_utf8_lossy(&response.body));
}

#[test]
fn a_key_that_no_sync_could_use_is_refused_at_once() {
    let home = Home::new();
    let no_list = ACCOUNT.replace("\"listFiles\",", "");
    let expired =
        ACCOUNT.replace("\"applicationKeyExpirationTimestamp\":null", "\"applicationKeyExpirationTimestamp\":1");
    let master = ACCOUNT.replace("870eff85b6c6", KEY_ID);
    for (account, code, says) in [
        (&no_list, "capability_missing", "listFiles"),
        (&expired, "key_expired", "expired at"),
        (&master, "capability_missing", "master application key"),
    ] {
        *home.authorize.borrow_mut() = Some((200, account.clone()));
        let (status, answer) = home.call("POST", CONNECTIONS, new_connection("A"));
        let error = &answer["error"];
        assert_eq!((status, &error["code"]), (400, &json!(code)), "{answer}");
        assert!(error["message"].as_str().unwrap().contains(says), "{answer}");
        // The key of one that exists is not replaced by such a key, and a test tells.
        *home.authorize.borrow_mut() = Some((200, ACCOUNT.into()));
        home.ok("POST", CONNECTIONS, new_connection(code));
        *home.authorize.borrow_mut() = Some((200, account.clone()));
        let target = format!("{CONNECTIONS}/{code}");
        let patch = json!({"provider_config": new_connection(code)["provider_config"]});
        assert_eq!(home.call("PATCH", &target, patch).0, 400);
        home.ok("DELETE", &target, Value::Null);
    }
    // Without a test nothing is asked.
    let mut untested = new_connection("B");
    untested["test_before_save"] = false.into();
    home.ok("POST", CONNECTIONS, untested);
}

#[test]
fn swapped_credentials_are_recognised() {
    let home = Home::new();
    let mut swapped = new_connection("A");
    swapped["provider_config"]["credentials"]["key_id"] = "K005Z3yE4mBcQzLxYwVu0aHnJpRs1tU".into();
    for key_id in ["005870eff85b6c60000000001", "870eff85b6c6"] {
        swapped["provider_config"]["credentials"]["application_key"] = key_id.into();
        let (status, answer) = home.call("POST", CONNECTIONS, swapped.clone());
        assert_eq!(status, 422);
        assert!(answer["error"]["message"].as_str().unwrap().contains("are swapped"), "{answer}");
        assert!(!answer.to_string().contains("K005Z3"), "{answer}");
    }
    assert!(home.sent.borrow().is_empty());
}

#[test]
fn one_part_of_the_credentials_says_what_to_send() {
    let home = Home::new();
    home.connection("A");
    let path = format!("{CONNECTIONS}/A");
    let patch = |part: &str, text: &str| {
        let (status, answer) = home.call("PATCH", &path, json!({"provider_config": {"credentials": {part: text}}}));
        assert!(!answer.to_string().contains(text), "{answer}");
        (status, answer["error"]["message"].as_str().unwrap_or_default().to_owned())
    };
    let asked = home.sent.borrow().len();
    let (status, message) = patch("key_id", "K005Z3yE4mBcQzLxYwVu0aHnJpRs1tU");
    assert!(status == 422 && message.contains("The key id looks like an application key."), "{status} {message}");
    let (status, message) = patch("application_key", "005870eff85b6c60000000001");
    assert!(status == 422 && message.contains("The application key looks like a key id."), "{status} {message}");
    assert_eq!(home.sent.borrow().len(), asked, "B2 need not be asked");
    *home.authorize.borrow_mut() = Some((401, r#"{"code": "unauthorized", "status": 401}"#.to_owned()));
    for (part, text, other) in [
        ("key_id", "005870eff85b6c60000000099", "the stored application_key"),
        ("application_key", "K005Z3yE4mBcQzLxYwVu0aHnJpRs1tU", "the stored key_id"),
    ] {
        let (status, message) = patch(part, text);
        assert!(status == 400 && message.contains(other) && message.contains("send both"), "{status} {message}");
    }
}

#[test]
fn deleting_a_connection_says_which_paused_syncs_it_leaves() {
    let home = Home::new();
    for (name, paused) in [("A", 0), ("B", 1), ("C", 2)] {
        home.ok("POST", CONNECTIONS, new_connection(name));
        for prefix in 0..paused {
            let body = json!({"connection_id": name, "source_path": format!("my-videos/{prefix}/")});
            let sync = home.ok("POST", SYNCS, body);
            home.ok("POST", &format!("{SYNCS}/{}/pause", sync["sync_config_id"].as_str().unwrap()), Value::Null);
        }
        let answer = home.ok("DELETE", &format!("{CONNECTIONS}/{name}"), Value::Null);
        let message = answer["message"].as_str().unwrap();
        assert_eq!(message.contains("can no longer be resumed"), paused > 0, "{message}");
    }
}
