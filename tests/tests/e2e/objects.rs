//! Objects that are removed, and two syncs of one target bucket.

use b2sync_core::time::Timestamp;
use b2sync_tests::service::{Service, ServiceConfig, SyncRef, changes, number, text};
use fake_b2::model::NewFile;
use serde_json::{Value, json};

use crate::{BUCKET, Outcome, SOON, all, versions};

#[test]
fn objects_are_removed_and_the_feed_goes_on() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    let fake = service.fake();
    fake.create_bucket(BUCKET)?;
    let at = Timestamp::parse_iso8601("2026-01-01").map_err(|error| format!("{error:?}"))?;
    for key in ["v/a.mp4", "v/b.mp4", "v/c ü.mp4"] {
        fake.put(BUCKET, key, NewFile::generated(1, 9), at)?;
    }
    let connected = service.connect("objects", &format!("b2://{BUCKET}/"))?;
    let sync = &connected.sync;
    service.run_job(sync, SOON)?;
    let objects = service.check_objects("bkt_objects", &all(&service))?;

    // One that is removed stays away, until its file changes.
    let object = format!("/v1/buckets/bkt_objects/objects/{}", text(&objects["v/a.mp4"], "object_id")?);
    assert_eq!(service.ask("DELETE", &object, None)?, (204, Value::Null));
    assert_eq!((service.ask("DELETE", &object, None)?.0, service.ask("GET", &object, None)?.0), (404, 404));
    let job = service.run_job(sync, SOON)?;
    assert_eq!(changes(&job), (0, 0, 0), "{job}");
    assert_eq!(service.list_objects("bkt_objects")?.len(), 2);
    fake.put(BUCKET, "v/a.mp4", NewFile::generated(2, 10), at)?;
    let job = service.run_job(sync, SOON)?;
    assert_eq!(changes(&job), (0, 1, 0), "{job}");
    let objects = service.check_objects("bkt_objects", &all(&service))?;
    assert!(versions(&objects).values().all(|version| *version == 1), "{objects:?}");

    // Page by page, as the stock client asks.
    let list = "/v1/buckets/bkt_objects/objects/list";
    let first = service.call("POST", list, Some(&json!({"page_size": 2, "prefix": "v/"})))?;
    let rest = service.call("POST", &text(&first["pagination"], "next_page")?, None)?;
    assert_eq!(
        (&rest["results"][0]["source_key"], &rest["pagination"]["next_page"]),
        (&json!("v/c ü.mp4"), &Value::Null)
    );

    // A second sync of the same files is told of the first. What the first leaves behind can be removed.
    let body = json!({"connection_id": connected.connection_id, "source_path": format!("b2://{BUCKET}/v/")});
    let second = service.create_sync("bkt_objects", &body)?;
    assert_eq!(second["warnings"][0]["code"], "overlaps_sync", "{second}");
    assert!(text(&second["warnings"][0], "message")?.contains(&sync.id), "{second}");
    service.run_job(&SyncRef::of(&second)?, SOON)?;
    let of_first = format!("/v1/buckets/bkt_objects/objects?sync_id={}", sync.id);
    assert_eq!(service.ask("DELETE", &of_first, None)?.0, 409);
    assert_eq!(service.ask("DELETE", &format!("{}?delete_object=true", sync.path()), None)?.0, 422);
    let deleted = service.call("DELETE", &sync.path(), None)?;
    assert_eq!(number(&deleted, "/objects_kept"), 3, "{deleted}");
    assert!(text(&deleted, "message")?.contains(&of_first), "{deleted}");
    assert_eq!(number(&service.call("DELETE", &of_first, None)?, "/objects_deleted"), 3);
    service.check_objects("bkt_objects", &all(&service))?;
    Ok(())
}
