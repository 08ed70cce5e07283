//! Filters mean what is written, or say so.

use b2sync_tests::service::{Service, ServiceConfig, SyncRef, changes, number, text};
use fake_b2::keys::NewKey;
use fake_b2::model::NewFile;
use serde_json::{Value, json};

use crate::{BUCKET, Outcome, SOON};
use b2sync_core::time::Timestamp;

fn codes(it: &Value) -> Vec<&str> {
    it["warnings"].as_array().into_iter().flatten().filter_map(|warning| warning["code"].as_str()).collect()
}

#[test]
fn filters_mean_what_is_written_or_say_so() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    let fake = service.fake();
    fake.create_bucket(BUCKET)?;
    let at = Timestamp::parse_iso8601("2026-01-01").map_err(|error| format!("{error:?}"))?;
    for key in ["v/sub/a.mp4", "v/sub/drafts/b.mp4", "v/sub/x/drafts/c.mxf", "v/sub2/d.mp4", "v/sub_old.mp4"] {
        fake.put(BUCKET, key, NewFile::generated(1, 9), at)?;
    }
    for marker in ["v/sub/", "v/sub/.bzEmpty"] {
        fake.put(BUCKET, marker, NewFile::generated(1, 0), at)?;
    }
    let key = fake.create_key(NewKey::unrestricted())?;
    let connection = service.create_connection("filters", &key.key_id, &key.secret)?;
    let connection_id = text(&connection, "connection_id")?;
    let create = |body: Value| -> Result<Value, Box<dyn std::error::Error>> {
        let mut body = body;
        body["connection_id"] = json!(connection_id);
        Ok(service.create_sync("bkt_filters", &body)?)
    };

    // The folder that was meant, without its folder markers, and what lies beside it.
    let created = create(json!({ "source_path": format!("b2://{BUCKET}/v/sub"), "exclude_patterns": ["drafts"] }))?;
    assert_eq!(codes(&created), ["files_beside_folder"], "{created}");
    let sync = SyncRef::of(&created)?;
    let job = service.run_job(&sync, SOON)?;
    assert_eq!(changes(&job), (5, 0, 0), "{job}");
    assert_eq!(number(&job, "/progress/files_listed"), 7, "{job}");
    assert_eq!(codes(&job), ["files_beside_folder", "pattern_unmatched"], "{job}");
    let (beside, unmatched) = (&job["warnings"][0], &job["warnings"][1]);
    assert!(beside["message"].as_str().is_some_and(|it| it.contains("\"sub2/\", \"sub_old.mp4\"")), "{job}");
    assert!(unmatched["advice"].as_str().is_some_and(|it| it.contains("drafts/")), "{job}");
    assert_eq!(service.call("GET", &sync.path(), None)?["warnings"], job["warnings"]);
    let metrics = service.call("GET", &format!("{}/metrics", sync.path()), None)?;
    assert_eq!(metrics["warnings"], job["warnings"], "{metrics}");

    // What the warnings advise.
    let body = json!({
        "source_path": format!("b2://{BUCKET}/v/sub/"), "exclude_patterns": ["drafts/"], "modified_since": "2025-12-31",
    });
    let created = create(body)?;
    // The first sync is still there, and takes this folder too.
    assert_eq!(codes(&created), ["overlaps_sync"], "{created}");
    let sync = SyncRef::of(&created)?;
    let job = service.run_job(&sync, SOON)?;
    assert_eq!((changes(&job), codes(&job)), ((1, 0, 0), Vec::new()), "{job}");
    let films = json!({ "file_filters": { "mime_types": ["application/mxf"], "include_patterns": ["typo*", "x/"] } });
    service.call("PATCH", &sync.path(), Some(&films))?;
    let job = service.run_job(&sync, SOON)?;
    assert_eq!((changes(&job), codes(&job)), ((1, 0, 1), vec!["pattern_unmatched"]), "{job}");
    Ok(())
}
