//! The feed as its readers see it: every change once, in order, from any position, for as long as it is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use b2sync_tests::service::{Service, ServiceConfig, SyncRef, changes, number, text};
use fake_b2::media::seed_plain_bucket;
use fake_b2::model::NewFile;
use serde_json::{Value, json};

use crate::{BUCKET, Outcome, SOON, all, change_ids, twin_of};

/// The keys and ETags that a reader has who applies all changes in order.
fn replayed(changes: &[Value]) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for change in changes {
        let key = change["key"].as_str().unwrap_or_default().to_owned();
        match change["kind"].as_str() {
            Some("deleted") => drop(files.remove(&key)),
            _ => drop(files.insert(key, change["etag"].as_str().unwrap_or_default().to_owned())),
        }
    }
    files
}

fn bucket(service: &Service) -> BTreeMap<String, String> {
    all(service).into_iter().map(|(key, file)| (key, file.etag)).collect()
}

#[test]
fn a_reader_gets_every_change_once_and_in_order() -> Outcome {
    let service = Service::start(ServiceConfig::with_keys_a_step(1_000))?;
    service.fake().create_bucket(BUCKET)?;
    seed_plain_bucket(service.fake(), BUCKET, 3_500, 5)?;
    let it = service.connect("feed", BUCKET)?;
    let mut twin = twin_of(&service, &it, BUCKET)?;
    let empty = service.call("GET", &format!("{}/changes", it.sync.path()), None)?;
    assert_eq!(empty, json!({"changes": [], "next_after": 0, "has_more": false, "first": 1, "last": 0}));

    service.run_job(&it.sync, SOON)?;
    let feed = service.changes(&it.sync, 0)?;
    assert_eq!(feed.len(), 3_500);
    assert_eq!(replayed(&feed), bucket(&service));
    let twins: Vec<String> = twin.run(service.b2().clock().now())?.into_iter().map(|change| change.id).collect();
    let ids: Vec<String> = feed.iter().map(|change| text(change, "id")).collect::<Result<_, _>>()?;
    assert_eq!(ids, twins, "the same changes, in the same order, under the same ids");

    // A version that goes and comes back is two changes.
    let now = service.b2().clock().now();
    let key = "item-00000007";
    let before = all(&service)[key].clone();
    service.fake().delete_key(BUCKET, key)?;
    service.run_job(&it.sync, SOON)?;
    service.fake().put(BUCKET, key, NewFile::generated(9, 9), now)?;
    service.run_job(&it.sync, SOON)?;
    let later = service.changes(&it.sync, 3_500)?;
    let kinds: Vec<&str> = later.iter().filter_map(|change| change["kind"].as_str()).collect();
    assert_eq!(kinds, ["deleted", "created"]);
    assert_eq!(later[0]["previous"]["size"], before.size, "{}", later[0]);
    assert_eq!(later[0]["etag"], "", "{}", later[0]);
    assert!(later[1]["previous"].is_null(), "{}", later[1]);
    let ids: BTreeSet<String> =
        service.changes(&it.sync, 0)?.iter().map(|change| text(change, "id")).collect::<Result<_, _>>()?;
    assert_eq!(ids.len(), 3_502);
    assert_eq!(replayed(&service.changes(&it.sync, 0)?), bucket(&service));
    let sync = service.sync(&it.sync)?;
    assert_eq!(sync["feed"], json!({"first": 1, "last": 3_502}), "{sync}");
    assert_eq!(sync["sinks"][0]["cursor"], 3_502, "{sync}");
    assert_eq!(sync["sinks"][0]["state"], "active", "{sync}");

    // What cannot be: each with what to do instead.
    for (query, status, field) in [
        ("after=3503", 422, "after"),
        ("after=x", 422, "after"),
        ("limit=0", 422, "limit"),
        ("limit=1001", 422, "limit"),
        ("wait=26", 422, "wait"),
    ] {
        let (got, answer) = service.ask("GET", &format!("{}/changes?{query}", it.sync.path()), None)?;
        assert_eq!(got, status, "{query}: {answer}");
        assert!(answer.to_string().contains(field), "{query}: {answer}");
    }
    Ok(())
}

#[test]
fn a_reader_that_waits_hears_of_a_change_as_soon_as_it_is_there() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    seed_plain_bucket(service.fake(), BUCKET, 3, 5)?;
    let it = service.connect("wait", BUCKET)?;
    service.run_job(&it.sync, SOON)?;
    let path = format!("{}/changes?after=3", it.sync.path());
    let began = Instant::now();
    let nothing = service.call("GET", &format!("{path}&wait=1"), None)?;
    assert_eq!(nothing["changes"], json!([]));
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());

    let heard = thread::scope(|scope| {
        let reader = scope.spawn(|| service.call("GET", &format!("{path}&wait=25"), None));
        thread::sleep(Duration::from_millis(300));
        let now = service.b2().clock().now();
        service.fake().put(BUCKET, "new", NewFile::generated(1, 1), now).ok();
        let job = service.run_job(&it.sync, SOON);
        (reader.join(), job)
    });
    let answer = heard.0.map_err(|_| "the reader panicked")??;
    heard.1?;
    assert_eq!((&answer["changes"][0]["key"], &answer["next_after"]), (&json!("new"), &json!(4)), "{answer}");
    Ok(())
}

#[test]
fn a_sync_without_sinks_is_a_feed_and_nothing_else() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    seed_plain_bucket(service.fake(), BUCKET, 20, 5)?;
    let with = service.connect("with", BUCKET)?;
    let body = json!({"connection_id": "with", "source_path": BUCKET, "sinks": [], "feed_retention_hours": 1});
    let sync = service.create_sync("bkt_none", &body)?;
    assert_eq!((&sync["sinks"], &sync["feed_retention_hours"]), (&json!([]), &json!(1)), "{sync}");
    let sync = SyncRef::of(&sync)?;
    service.run_job(&sync, SOON)?;
    assert_eq!(service.changes(&sync, 0)?.len(), 20);
    assert_eq!(service.list_objects("bkt_none")?.len(), 0);

    // Switched on again, the catalogue takes the feed from its beginning.
    service.call("PATCH", &sync.path(), Some(&json!({"sinks": ["catalogue"]})))?;
    let deadline = Instant::now() + SOON;
    while service.list_objects("bkt_none")?.len() < 20 {
        if Instant::now() > deadline {
            return Err(service.error(format!("the catalogue stays empty: {}", service.sync(&sync)?)).into());
        }
        thread::sleep(Duration::from_millis(50));
    }
    service.run_job(&with.sync, SOON)?;
    assert_eq!(change_ids(&service.list_objects(&with.sync.bucket)?).len(), 20);
    for sinks in [json!(["webhook"]), json!("catalogue"), json!([{"kind": "catalogue", "x": 1}]), json!([1])] {
        let (status, answer) = service.ask("PATCH", &sync.path(), Some(&json!({"sinks": sinks})))?;
        assert_eq!(status, 422, "{answer}");
    }
    Ok(())
}

#[test]
fn changes_younger_than_the_retention_stay_however_many_jobs_run() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    seed_plain_bucket(service.fake(), BUCKET, 10, 5)?;
    let it = service.connect("gap", BUCKET)?;
    service.call("PATCH", &it.sync.path(), Some(&json!({"feed_retention_hours": 1})))?;
    let job = service.run_job(&it.sync, SOON)?;
    assert_eq!(changes(&job), (10, 0, 0));
    for round in 0..3 {
        let now = service.b2().clock().now();
        service.fake().put(BUCKET, "item", NewFile::generated(round, round), now)?;
        service.run_job(&it.sync, SOON)?;
    }
    assert_eq!(service.changes(&it.sync, 0)?.len(), 13);
    assert_eq!(number(&service.sync(&it.sync)?, "/feed/first"), 1);
    Ok(())
}

/// A reader of events, as `EventSource` is one: it asks again behind the event that it saw last.
#[test]
fn a_reader_of_events_follows_the_feed() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    seed_plain_bucket(service.fake(), BUCKET, 1_500, 12)?;
    let it = service.connect("events", BUCKET)?;
    service.run_job(&it.sync, SOON)?;
    let bearer = format!("Bearer {}", service.api_key());
    let ask = |last: &str, query: &str| -> Result<String, Box<dyn std::error::Error>> {
        let mut headers = vec![("authorization", bearer.as_str()), ("accept", "text/event-stream")];
        headers.extend((!last.is_empty()).then_some(("last-event-id", last)));
        let (status, body) = service.send("GET", &format!("{}/changes{query}", it.sync.path()), &headers, b"")?;
        let text = String::from_utf8(body)?;
        assert_eq!(status, 200, "{text}");
        Ok(text)
    };
    let (mut last, mut seen) = (String::new(), Vec::new());
    for answers in 1.. {
        let text = ask(&last, "?after=0&wait=0")?;
        let has_more = text.starts_with("retry: 1\n");
        for line in text.lines() {
            if let Some(id) = line.strip_prefix("id: ") {
                id.clone_into(&mut last);
            } else if let Some(data) = line.strip_prefix("data: ") {
                seen.push(serde_json::from_str::<Value>(data)?);
            }
        }
        if !has_more {
            assert_eq!((answers, last.as_str()), (2, "1500"));
            break;
        }
    }
    assert_eq!(seen, service.changes(&it.sync, 0)?);

    // The answer comes with the first change.
    let began = Instant::now();
    thread::scope(|scope| -> Outcome {
        let waiting = scope.spawn(|| ask("1500", "").map_err(|error| error.to_string()));
        thread::sleep(Duration::from_millis(300));
        let now = service.b2().clock().now();
        service.fake().put(BUCKET, "new", NewFile::generated(9, 9), now)?;
        service.trigger(&it.sync)?;
        let text = waiting.join().map_err(|_| "the reader panicked")??;
        assert!(text.contains("\nid: 1501\nevent: change\ndata: {"), "{text}");
        Ok(())
    })?;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    Ok(())
}
