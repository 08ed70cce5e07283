//! Objects.

use super::*;

#[test]
fn objects_are_listed_and_read() {
    let home = Home::new();
    let sync = home.sync();
    let sync_id = sync.rsplit('/').next().unwrap();
    fill(&home, sync_id);
    let answer = home.ok("POST", &format!("{OBJECTS}/list?include_total=true"), Value::Null);
    check_keys(&answer, "results pagination stats");
    assert_eq!(answer["pagination"]["total"], 3);
    let page = home.ok("POST", &format!("{OBJECTS}/list?include_total=true&limit=2"), Value::Null);
    let counts = (&page["stats"]["total_objects"], &page["pagination"]["total"]);
    assert_eq!(counts, (&json!(2), &json!(3)), "stats are those of the page");
    let object = answer["results"][0].clone();
    let id = b2sync_core::ids::object_id(sync_id, "2024/a b+%.mp4");
    assert_eq!(
        object,
        json!({
            "object_id": id,
            "bucket_id": "bkt_1",
            "key_prefix": "2024/a b+%.mp4",
            "blobs": [{
                "blob_id": id.replace("obj_", "blob_"),
                "property": "content",
                "key_prefix": "2024/a b+%.mp4",
                "type": "video",
                "properties": {"url": "b2://my-videos/2024/a b+%.mp4"},
                "presigned_url": null,
                "presigned_url_reason": null,
                "details": {"filename": "a b+%.mp4", "size_bytes": 7, "mime_type": "video/mp4", "hash": "e1"},
            }],
            "source_details": [{"type": "bucket", "source_id": "my-videos"}],
            "status": "ACTIVE",
            "created_at": "2023-11-14T22:13:22Z",
            "updated_at": "2023-11-14T22:13:22Z",
            "source_bucket": "my-videos",
            "source_key": "2024/a b+%.mp4",
            "source_url": "b2://my-videos/2024/a b+%.mp4",
            "etag": "e1",
            "size_bytes": 7,
            "last_modified": "1970-01-01T00:00:00Z",
            "sync_config_id": sync_id,
            "connection_id": object["connection_id"],
            "version": 1,
            "change_id": "chg_1",
        })
    );
    assert_eq!(home.ok("GET", &format!("{OBJECTS}/{id}"), Value::Null), object);
    let signed = home.ok("GET", &format!("{OBJECTS}/{id}?return_presigned_urls=true"), Value::Null);
    let url = signed["blobs"][0]["presigned_url"].as_str().unwrap();
    assert!(url.starts_with("https://s3.us-east-005.backblazeb2.com/my-videos/2024/a%20b%2B%25.mp4?"), "{url}");
    assert_eq!(signed["blobs"][0]["presigned_url_reason"], Value::Null);

    let page = home.ok("GET", &format!("{OBJECTS}?limit=2"), Value::Null);
    assert_eq!(page["pagination"]["total"], Value::Null);
    let cursor = page["pagination"]["next_cursor"].as_str().unwrap();
    let rest = home.ok("GET", &format!("{OBJECTS}?limit=2&cursor={cursor}"), Value::Null);
    assert_eq!(rest["results"][0]["source_key"], "notes.unknown");
    assert_eq!(rest["results"][0]["blobs"][0]["type"], "string");
    assert_eq!(rest["pagination"]["next_cursor"], Value::Null);
    let found = home.ok("POST", &format!("{OBJECTS}/list"), json!({"prefix": "2024/動", "include_total": true}));
    assert_eq!(found["pagination"]["total"], 1);
    let found = home.ok("GET", &format!("{OBJECTS}?prefix=2024%2F&include_total=true"), Value::Null);
    assert_eq!(found["pagination"]["total"], 2);
    home.ok("POST", &format!("{OBJECTS}/list"), json!({"filters": null, "search": "", "return_presigned_urls": false}));
    assert_eq!(
        home.wrong("POST", &format!("{OBJECTS}/list"), json!({"filters": {"AND": []}, "sort": {"field": "x"}})),
        ["body.filters", "body.sort"]
    );
    let (status, _, message) = home.refused("GET", "/v1/buckets/bkt_2/objects/x", Value::Null);
    assert_eq!(status, 404);
    assert!(message.contains("X-Namespace"), "{message}");
}

#[test]
fn a_url_that_nobody_could_use_is_null_with_the_reason() {
    let home = Home::new();
    let sync = home.sync();
    let sync_id = sync.rsplit('/').next().unwrap();
    fill(&home, sync_id);
    deliver(&home, sync_id, 4, &["2024/../secret.mp4"]);
    let listed = || home.ok("GET", &format!("{OBJECTS}?return_presigned_urls=true"), Value::Null);
    for object in listed()["results"].as_array().unwrap() {
        let blob = &object["blobs"][0];
        let is_odd = object["source_key"] == "2024/../secret.mp4";
        assert_eq!(
            (blob["presigned_url"].is_null(), blob["presigned_url_reason"].is_null()),
            (is_odd, !is_odd),
            "{blob}"
        );
    }
    // Its connection is archived.
    home.ok("POST", &format!("{sync}/pause"), Value::Null);
    home.ok("DELETE", &format!("{CONNECTIONS}/A"), Value::Null);
    for object in listed()["results"].as_array().unwrap() {
        let reason = object["blobs"][0]["presigned_url_reason"].as_str().unwrap();
        assert!(reason.contains("The connection was deleted"), "{reason}");
    }
}

/// The keys of the objects that a bucket has.
fn keys(home: &Home, bucket: &str) -> Vec<String> {
    let answer = home.ok("GET", bucket, Value::Null);
    let results = answer["results"].as_array().unwrap();
    results.iter().map(|object| object["source_key"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_object_is_removed() {
    let home = Home::new();
    let sync = home.sync();
    let sync_id = sync.rsplit('/').next().unwrap();
    fill(&home, sync_id);
    let object = format!("{OBJECTS}/{}", b2sync_core::ids::object_id(sync_id, "notes.unknown"));
    assert_eq!(home.refused("DELETE", &object.replace("bkt_1", "bkt_2"), Value::Null).0, 404);
    assert_eq!(home.wrong("DELETE", &format!("{object}?delete=true"), Value::Null), ["query.delete"]);
    assert_eq!(home.wrong("DELETE", &object, json!({"reason": "x"})), ["body.reason"]);
    assert_eq!(home.call("DELETE", &object, Value::Null), (204, Value::Null));
    for method in ["GET", "DELETE"] {
        let (status, _, message) = home.refused(method, &object, Value::Null);
        assert!(status == 404 && message.contains("has no object"), "{method}: {status} {message}");
    }
    assert_eq!(keys(&home, OBJECTS).len(), 2);
    // A slash at the end names the list, and what removes one object must not remove others.
    assert_eq!(home.refused("DELETE", &format!("{OBJECTS}/"), Value::Null).0, 404);
    // The next change of the file creates the object again.
    let at = Timestamp::from_millis(NOW);
    let entry = Entry { key: "notes.unknown".into(), etag: "e2".into(), size: 8, last_modified: at };
    let change = Change { kind: ChangeKind::Updated, ..created(4, entry) };
    let target = CatalogueTarget {
        bucket_id: "bkt_1".into(),
        sync_id: sync_id.into(),
        connection_id: "conn_a".into(),
        source_bucket: "my-videos".into(),
    };
    block_on(home.catalogue.sink("default", target, &home).deliver(&[change])).unwrap();
    let again = home.ok("GET", &object, Value::Null);
    assert_eq!((&again["version"], &again["etag"]), (&1.into(), &"e2".into()));
}

#[test]
fn the_objects_of_a_deleted_sync_are_removed() {
    let home = Home::new();
    let sync = home.sync();
    let sync_id = sync.rsplit('/').next().unwrap();
    fill(&home, sync_id);
    fill(&home, "sync_other");
    let of = |sync_id: &str| format!("{OBJECTS}?sync_id={sync_id}");
    for (target, wrong) in [
        (OBJECTS.to_owned(), ["query.sync_id"]),
        (format!("{OBJECTS}?sync_id="), ["query.sync_id"]),
        (format!("{OBJECTS}?sync={sync_id}"), ["query.sync"]),
        (format!("{}&sync_id=sync_other", of(sync_id)), ["query.sync_id"]),
    ] {
        assert_eq!(home.wrong("DELETE", &target, Value::Null), wrong, "{target}");
    }
    assert_eq!(home.wrong("DELETE", &of(sync_id), json!({"sync_id": sync_id})), ["body.sync_id"]);
    // A sync that exists keeps its objects.
    let (status, name, message) = home.refused("DELETE", &of(sync_id), Value::Null);
    assert_eq!((status, name.as_str()), (409, "ConflictError"));
    assert!(message.contains("?delete_objects=true") && message.contains("{\"sinks\": []}"), "{message}");
    assert_eq!(keys(&home, OBJECTS).len(), 6);

    home.ok("DELETE", &sync, Value::Null);
    let none = home.ok("DELETE", &of(sync_id).replace("bkt_1", "bkt_2"), Value::Null);
    assert_eq!((&none["objects_deleted"], &none["sync_config_id"]), (&0.into(), &sync_id.into()));
    assert!(none["message"].as_str().unwrap().contains("has no object of the sync"), "{none}");
    let removed = home.ok("DELETE", &of(sync_id), Value::Null);
    assert_eq!(removed["objects_deleted"], 3);
    assert!(removed["message"].as_str().unwrap().starts_with("3 objects of the sync"), "{removed}");
    assert_eq!(keys(&home, OBJECTS).len(), 3);
    assert_eq!(home.ok("DELETE", &of(sync_id), Value::Null)["objects_deleted"], 0);
    assert_eq!(home.ok("DELETE", &of("sync_other"), Value::Null)["objects_deleted"], 3);
    assert!(keys(&home, OBJECTS).is_empty());
}

#[test]
fn the_objects_of_a_sync_without_a_catalogue_are_removed() {
    let home = Home::new();
    let sync = home.sync();
    let sync_id = sync.rsplit('/').next().unwrap();
    fill(&home, sync_id);
    let of = format!("{OBJECTS}?sync_id={sync_id}");
    home.ok("PATCH", &sync, json!({"sinks": []}));
    assert_eq!(home.ok("DELETE", &of, Value::Null)["objects_deleted"], 3);
    // Whatever comes after it is switched on again is taken.
    home.ok("PATCH", &sync, json!({"sinks": null}));
    fill(&home, sync_id);
    assert!(keys(&home, OBJECTS).is_empty(), "a replay alters nothing");
    let target = CatalogueTarget {
        bucket_id: "bkt_1".into(),
        sync_id: sync_id.into(),
        connection_id: "conn_a".into(),
        source_bucket: "my-videos".into(),
    };
    let entry = Entry { key: "new".into(), etag: "e".into(), size: 1, last_modified: Timestamp::default() };
    block_on(home.catalogue.sink("default", target, &home).deliver(&[created(4, entry)])).unwrap();
    assert_eq!(keys(&home, OBJECTS), ["new"]);
    // One that cannot be read may still feed it.
    home.registry.damage(sync_id);
    assert_eq!(home.refused("DELETE", &of, Value::Null).0, 409);
}

#[test]
fn a_list_takes_its_page_in_the_body() {
    let home = Home::new();
    let sync = home.sync();
    fill(&home, sync.rsplit('/').next().unwrap());
    let list = format!("{OBJECTS}/list");
    // As the stock client asks, page by page.
    let first = home.ok("POST", &list, json!({"page_size": 2}));
    assert_eq!(first["results"].as_array().unwrap().len(), 2);
    let cursor = &first["pagination"]["next_cursor"];
    let rest = home.ok("POST", &list, json!({"page_size": 2, "cursor": cursor}));
    assert_eq!(rest["results"][0]["source_key"], "notes.unknown");
    // A link keeps everything, wherever it was asked for, and is followed with the same method.
    let body = json!({"limit": 1, "prefix": "2024/", "include_total": true});
    let first = home.ok("POST", &format!("{list}?return_presigned_urls=true"), body.clone());
    let link = first["pagination"]["next_page"].as_str().unwrap();
    assert_eq!(link, format!("{list}?include_total=true&prefix=2024%2F&return_presigned_urls=true&limit=1&offset=1"));
    for again in [Value::Null, body] {
        let second = home.ok("POST", link, again);
        assert_eq!((&second["pagination"]["total"], &second["pagination"]["page"]), (&2.into(), &2.into()));
        assert!(second["results"][0]["blobs"][0]["presigned_url"].is_string(), "{second}");
        assert_eq!(second["results"][0]["source_key"], "2024/動画/🎬.mov");
    }
    // A body that names another page than the link does not bring the page before again.
    assert_eq!(home.wrong("POST", link, json!({"limit": 1, "page": 1})), ["body.page"]);
    assert_eq!(home.wrong("POST", link, json!({"limit": 2})), ["body.limit"]);
}

#[test]
fn every_list_takes_the_same_in_query_and_body() {
    let home = Home::new();
    *home.jobs.borrow_mut() = (0..3).map(|n| job(&format!("job_{n}"), NOW, JobStatus::Failed)).collect();
    let sync = home.sync();
    home.connection("B");
    home.ok("POST", SYNCS, json!({"connection_id": "B", "source_path": "my-videos"}));
    let entry = |key: &str| Entry { key: key.into(), etag: "e".into(), size: 1, last_modified: Timestamp::default() };
    let at = Timestamp::from_millis(NOW);
    for position in 1..3 {
        let change = created(position, entry(&position.to_string()));
        home.letters.borrow_mut().refuse(&change, "No.", 3, at).unwrap();
    }
    let (connections, syncs) = (format!("{CONNECTIONS}/list"), format!("{SYNCS}/list"));
    let (jobs, letters) = (format!("{sync}/jobs"), format!("{sync}/dlq"));
    for (list, query, body) in [
        (&connections, "status=ACTIVE&is_active=true&provider_type=backblaze", json!({"status": "ACTIVE"})),
        (&syncs, "status=PENDING&is_active=true", json!({"status": "PENDING", "is_active": true})),
        (&jobs, "status=failed", json!({"status": "failed"})),
        (&letters, "error_types=delivery_refused&error_types=x", json!({"error_types": ["delivery_refused", "x"]})),
    ] {
        let total = |target: &str, body: Value| home.ok("POST", target, body)["total"].as_u64().unwrap();
        let all = total(list, Value::Null);
        assert!(all >= 2, "{list}");
        assert_eq!(total(&format!("{list}?{query}"), Value::Null), all, "{list}");
        assert_eq!(total(list, body.clone()), all, "{list}");
        // The second page, by the link of the first and by the body.
        let mut paged = body.clone();
        paged["page_size"] = 1.into();
        let first = home.ok("POST", list, paged.clone());
        let link = first["pagination"]["next_page"].as_str().unwrap();
        let second = home.ok("POST", link, Value::Null)["results"].clone();
        assert_ne!(second, first["results"], "{list}");
        paged["page"] = 2.into();
        assert_eq!(home.ok("POST", list, paged)["results"], second, "{list}");
        if body.get("status").is_some() {
            for none in ["none", "DRAFT", "skipped"] {
                assert_eq!(home.wrong("POST", &format!("{list}?status={none}"), Value::Null), ["query.status"]);
            }
        }
        // What no list supports is taken as long as it asks for nothing.
        for name in ["filters", "sort", "search", "select"] {
            for nothing in [json!({}), json!([]), json!(""), Value::Null] {
                home.ok("POST", list, json!({name: nothing}));
            }
            let location = format!("body.{name}");
            for something in [json!({"a": 1}), json!(["a"]), json!("a"), json!(1)] {
                assert_eq!(home.wrong("POST", list, json!({name: something})), [location.as_str()], "{list}");
            }
        }
    }
    for (list, query) in [
        (&connections, "status=FAILED"),
        (&connections, "is_active=false"),
        (&syncs, "status=FAILED"),
        (&syncs, "connection_id=conn_x"),
        (&jobs, "status=running"),
        (&letters, "error_types=x"),
    ] {
        assert_eq!(home.ok("POST", &format!("{list}?{query}"), Value::Null)["total"], 0, "{list} {query}");
    }
}
