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
