//! The feed of a sync, and where it goes.

use super::*;
use crate::{coordinator::WAIT_MS_MAX, sinks::SinkSpec};
use b2sync_core::{change::Previous, feed::read::PAGE_CHANGES_MAX, snapshot::EtagTag};

/// A created, an updated, a deleted file, and one that a full sync hands over again.
fn feed() -> Vec<Change> {
    let at = Timestamp::from_millis(NOW);
    let entry = |key: &str, etag: &str| Entry { key: key.into(), etag: etag.into(), size: 7, last_modified: at };
    let previous = Some(Previous {
        size: 5,
        last_modified: at.plus_millis(-9_000),
        tag: EtagTag(*b"\x00\x01\x02\x03\xfc\xfd\xfe\xff"),
    });
    let updated = Change { kind: ChangeKind::Updated, previous, ..created(2, entry("2024/ü 😀.mp4", "e2")) };
    let deleted = Change { kind: ChangeKind::Deleted, previous, ..created(3, entry("2024/b.mp4", "")) };
    let again = Change { kind: ChangeKind::Updated, again: true, ..created(4, entry("2024/c.mp4", "e4")) };
    vec![created(1, entry("2024/a.mp4", "e1")), updated, deleted, again]
}

fn positions(page: &Value) -> Vec<u64> {
    page["changes"].as_array().unwrap().iter().map(|change| change["position"].as_u64().unwrap()).collect()
}

#[test]
fn changes_are_shown_with_what_was_known_before() {
    let home = Home::new();
    let sync = home.sync();
    home.feed.replace(feed());
    let page = home.ok("GET", &format!("{sync}/changes"), Value::Null);
    check_keys(&page, "changes next_after has_more first last");
    let changes = page["changes"].as_array().unwrap();
    let common = "position id kind key etag size last_modified found_at job_id";
    for (change, more) in changes.iter().zip(["", " previous", " previous", " again"]) {
        check_keys(change, &format!("{common}{more}"));
    }
    assert_eq!(
        changes[1],
        json!({
            "position": 2, "id": "chg_2", "kind": "updated", "key": "2024/ü 😀.mp4", "etag": "e2", "size": 7,
            "last_modified": "2023-11-14T22:13:20Z", "found_at": "2023-11-14T22:13:20Z", "job_id": "job_1",
            "previous": {"size": 5, "last_modified": "2023-11-14T22:13:11Z", "tag": "00010203fcfdfeff"},
        })
    );
    let kinds: Vec<_> = changes.iter().map(|it| it["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["created", "updated", "deleted", "updated"]);
    assert_eq!(changes[3]["again"], true);
    assert_eq!((&page["first"], &page["last"]), (&1.into(), &4.into()));
}

/// A parameter that is passed over would do something else than was meant: `after=` would replay the whole feed.
#[test]
fn parameters_and_fields_that_would_be_passed_over_are_refused() {
    let home = Home::new();
    let sync = home.sync();
    for (query, wrong) in [
        ("after=", vec!["query.after"]),
        ("afer=5&limit=1", vec!["query.afer"]),
        ("cursor=5", vec!["query.cursor"]),
        ("after=1&after=2", vec!["query.after"]),
        ("after=-1&limit=0&wait=26", vec!["query.after", "query.limit", "query.wait"]),
    ] {
        assert_eq!(home.wrong("GET", &format!("{sync}/changes?{query}"), Value::Null), wrong, "{query}");
    }
    assert_eq!(
        home.wrong("POST", &format!("{sync}/trigger?confrim_deletes=true"), Value::Null),
        ["query.confrim_deletes"]
    );
    let body = json!({"confirm_deletes": true});
    for action in ["trigger", "resume", "unlock"] {
        assert_eq!(home.wrong("POST", &format!("{sync}/{action}"), body.clone()), ["body.confirm_deletes"]);
        home.ok("POST", &format!("{sync}/{action}"), json!({}));
    }
    assert_eq!(home.wrong("DELETE", &format!("{sync}?delete_object=true"), Value::Null), ["query.delete_object"]);
}

#[test]
fn pages_of_the_feed_follow_each_other() {
    let home = Home::new();
    let changes = format!("{}/changes", home.sync());
    // Nothing was found yet.
    let page = home.ok("GET", &changes, Value::Null);
    assert_eq!(page, json!({"changes": [], "next_after": 0, "has_more": false, "first": 1, "last": 0}));

    home.feed.replace(feed());
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = home.ok("GET", &format!("{changes}?limit=3&after={after}"), Value::Null);
        seen.extend(positions(&page));
        after = page["next_after"].as_u64().unwrap();
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!((seen, after), (vec![1, 2, 3, 4], 4));
    let page = home.ok("GET", &format!("{changes}?after=4"), Value::Null);
    assert_eq!(page, json!({"changes": [], "next_after": 4, "has_more": false, "first": 1, "last": 4}));

    // What is asked for is what the coordinator is asked.
    home.commands.borrow_mut().clear();
    home.ok("GET", &changes, Value::Null);
    home.ok("GET", &format!("{changes}?after=2&limit={PAGE_CHANGES_MAX}&wait=25"), Value::Null);
    let (most, longest) = (PAGE_CHANGES_MAX as u64, WAIT_MS_MAX);
    assert_eq!(
        *home.commands.borrow(),
        [
            Command::Changes { after: None, limit: 100, wait_ms: 0 },
            Command::Changes { after: Some(2), limit: most, wait_ms: longest },
        ]
    );
    // Reading starts nothing: the cron has nothing to look after.
    home.ok("HEAD", &changes, Value::Null);
}

#[test]
fn what_is_no_longer_in_the_feed_is_gone() {
    let home = Home::new();
    let changes = format!("{}/changes", home.sync());
    home.feed.replace(feed()[2..].to_vec());
    home.dropped.set(2);
    for after in [0, 1] {
        let (status, answer) = home.call("GET", &format!("{changes}?after={after}&wait=25"), Value::Null);
        let error = &answer["error"];
        assert_eq!((status, &error["type"], &error["code"]), (410, &"GoneError".into(), &"feed_gap".into()));
        let details = &error["details"];
        assert_eq!((&details["first"], &details["retryable"]), (&3.into(), &false.into()));
        assert_eq!(details["advice"], "Read on behind another.");
        assert!(error["message"].as_str().unwrap().starts_with(&format!("Not after {after}.")));
    }
    assert_eq!(positions(&home.ok("GET", &format!("{changes}?after=2"), Value::Null)), [3, 4]);
    // Without a position it begins with the oldest that is there.
    let page = home.ok("GET", &format!("{changes}?limit=1"), Value::Null);
    assert_eq!((positions(&page), &page["first"], &page["next_after"]), (vec![3], &3.into(), &3.into()));
    home.feed.borrow_mut().clear();
    let page = home.ok("GET", &changes, Value::Null);
    assert_eq!(page, json!({"changes": [], "next_after": 2, "has_more": false, "first": 3, "last": 2}));
}

#[test]
fn a_wrong_question_about_the_feed_says_where() {
    let home = Home::new();
    let sync = home.sync();
    home.feed.replace(feed());
    for (query, wrong) in [
        ("after=-1", "query.after"),
        ("after=x", "query.after"),
        ("after=5", "query.after"),
        ("after=18446744073709551615", "query.after"),
        ("limit=0", "query.limit"),
        ("limit=1001", "query.limit"),
        ("wait=26", "query.wait"),
        ("wait=0.5", "query.wait"),
    ] {
        assert_eq!(home.wrong("GET", &format!("{sync}/changes?{query}"), Value::Null), [wrong], "{query}");
    }
    let many = home.wrong("GET", &format!("{sync}/changes?after=x&limit=0&wait=99"), Value::Null);
    assert_eq!(many, ["query.after", "query.limit", "query.wait"]);
    assert_eq!(home.refused("GET", &format!("{SYNCS}/sync_none/changes"), Value::Null).0, 404);
    assert_eq!(home.call("POST", &format!("{sync}/changes"), Value::Null).0, 405);
    home.unreachable.set(true);
    assert_eq!(home.refused("GET", &format!("{sync}/changes"), Value::Null).0, 503);
}

/// What a reader of events gets.
fn events(home: &Home, target: &str, last_event_id: Option<&str>) -> (u16, String, String) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let response = home.request(ApiRequest {
        method: "GET".into(),
        path: path.into(),
        query: query.into(),
        authorization: Some(format!("Bearer {API_KEY}")),
        accept: Some("application/json;q=0.1, Text/Event-Stream; q=1".into()),
        last_event_id: last_event_id.map(Into::into),
        ..ApiRequest::default()
    });
    let kind = response.headers.iter().find(|(name, _)| *name == "content-type").unwrap().1.clone();
    (response.status, kind, String::from_utf8(response.body).unwrap())
}

#[test]
fn changes_are_events_for_those_who_ask_for_them() {
    let home = Home::new();
    let changes = format!("{}/changes", home.sync());
    home.feed.replace(feed());
    let json = home.ok("GET", &changes, Value::Null);
    home.commands.borrow_mut().clear();
    let (status, kind, text) = events(&home, &changes, None);
    assert_eq!((status, kind.as_str()), (200, "text/event-stream"));
    let mut blocks = text.split("\n\n");
    assert_eq!(blocks.next(), Some("retry: 1000"));
    for change in json["changes"].as_array().unwrap() {
        let lines: Vec<_> = blocks.next().unwrap().split('\n').collect();
        let [id, event, data] = lines.try_into().unwrap();
        assert_eq!((id, event), (format!("id: {}", change["position"]).as_str(), "event: change"));
        assert_eq!(serde_json::from_str::<Value>(data.strip_prefix("data: ").unwrap()).unwrap(), *change);
    }
    assert_eq!((blocks.next(), blocks.next()), (Some(""), None));
    // As long and as much as may be, unless the query says otherwise; and behind what the reader saw last.
    events(&home, &format!("{changes}?after=1&limit=2&wait=3"), None);
    events(&home, &format!("{changes}?after=1"), Some("3"));
    events(&home, &format!("{changes}?after=1"), Some(""));
    let (most, longest) = (PAGE_CHANGES_MAX as u64, WAIT_MS_MAX);
    assert_eq!(
        *home.commands.borrow(),
        [
            Command::Changes { after: None, limit: most, wait_ms: longest },
            Command::Changes { after: Some(1), limit: 2, wait_ms: 3_000 },
            Command::Changes { after: Some(3), limit: most, wait_ms: longest },
            Command::Changes { after: Some(1), limit: most, wait_ms: longest },
        ]
    );
    // More is there: the reader asks again at once. Nothing is: it learns where it is.
    assert!(events(&home, &format!("{changes}?limit=3"), None).2.starts_with("retry: 1\n\nid: 1\n"));
    assert_eq!(events(&home, &changes, Some("4")).2, "retry: 1000\n\n: no change so far\nid: 4\n\n");
    // Everything else is answered as JSON.
    let sync = changes.strip_suffix("/changes").unwrap();
    assert_eq!(events(&home, sync, None).1, "application/json");
    home.dropped.set(2);
    home.feed.borrow_mut().drain(..2);
    let (status, kind, text) = events(&home, &changes, Some("1"));
    assert_eq!((status, kind.as_str()), (410, "application/json"), "{text}");
    for wrong in ["x", "-1", "1.5", "18446744073709551616"] {
        let (status, _, text) = events(&home, &changes, Some(wrong));
        assert!(status == 422 && text.contains("last-event-id"), "{wrong}: {text}");
    }
    assert_eq!(events(&home, &changes, Some("9")).0, 422, "beyond the newest");
}

#[test]
fn a_sync_says_where_its_changes_go() {
    let home = Home::new();
    let connection_id = home.connection("A");
    let create = |n: u32, sinks: Value| {
        let source_path = format!("my-videos/{n}/");
        let body = json!({"connection_id": connection_id, "source_path": source_path, "sinks": sinks});
        home.ok("POST", SYNCS, body)
    };
    let catalogue = json!([{"sink_id": "catalogue", "kind": "catalogue"}]);
    for (n, sinks) in (0..).zip([Value::Null, json!(["catalogue"]), json!([{"kind": "catalogue"}]), catalogue.clone()])
    {
        assert_eq!(create(n, sinks.clone())["sinks"], catalogue, "{sinks}");
    }
    let feed_alone = create(9, json!([]));
    assert_eq!(feed_alone["sinks"], json!([]));
    let sync = format!("{SYNCS}/{}", feed_alone["sync_config_id"].as_str().unwrap());
    assert_eq!(home.record(&sync).sinks, []);

    // It can be changed, and the coordinator hears of it.
    home.commands.borrow_mut().clear();
    assert_eq!(home.ok("PATCH", &sync, json!({"sinks": null}))["sinks"], catalogue);
    assert!(home.commands.borrow().contains(&Command::Configured));
    assert_eq!(home.record(&sync).sinks, [SinkSpec::catalogue()]);
    assert_eq!(home.ok("PATCH", &sync, json!({"description": "d"}))["sinks"], catalogue);
    assert_eq!(home.ok("PATCH", &sync, json!({"sinks": []}))["sinks"], json!([]));

    for sinks in [
        json!("catalogue"),
        json!({}),
        json!([1]),
        json!([null]),
        json!(["webhook"]),
        json!(["catalogue", "catalogue"]),
        json!([{}]),
        json!([{"sink_id": "catalogue"}]),
        json!([{"kind": "webhook"}]),
        json!([{"kind": "catalogue", "sink_id": "mine"}]),
        json!([{"kind": "catalogue", "url": "https://example.com"}]),
    ] {
        assert_eq!(home.wrong("PATCH", &sync, json!({"sinks": sinks})), ["body.sinks"], "{sinks}");
    }
}

#[test]
fn a_sync_shows_how_its_feed_and_its_sinks_stand() {
    let home = Home::new();
    let sync = home.sync();
    let at = Timestamp::from_millis(NOW);
    let error = Error::new(ErrorKind::Sink, "The catalogue is away.", "Wait.");
    {
        let mut status = home.status.borrow_mut();
        (status.feed_first, status.feed_last) = (12, 90);
        status.sinks = Some(vec![SinkStatus {
            state: SinkState::BackingOff,
            cursor: 70,
            taken: 69,
            failures: 3,
            first_failure_at: Some(at),
            last_failure_at: Some(at.plus_millis(6_000)),
            last_error: Some(ErrorRecord::from(&error)),
            next_attempt_at: Some(at.plus_millis(14_000)),
            dead_letters: [("delivery_refused".to_owned(), 1)].into(),
            ..sink_status()
        }]);
    }
    let shown = home.ok("GET", &sync, Value::Null);
    assert_eq!((&shown["feed"], &shown["dead_letters"]), (&json!({"first": 12, "last": 90}), &1.into()));
    assert_eq!(
        shown["sinks"],
        json!([{
            "sink_id": "catalogue", "kind": "catalogue", "state": "backing_off", "cursor": 70, "lag": 20, "taken": 69,
            "failures": 3, "first_failure_at": "2023-11-14T22:13:20Z", "last_failure_at": "2023-11-14T22:13:26Z",
            "last_error": "The catalogue is away. Wait.", "next_attempt_at": "2023-11-14T22:13:34Z", "dead_letters": 1,
        }])
    );
    for (state, name) in [(SinkState::Active, "active"), (SinkState::Disabled, "disabled")] {
        home.status.borrow_mut().sinks.as_mut().unwrap()[0].state = state;
        assert_eq!(home.ok("GET", &sync, Value::Null)["sinks"][0]["state"], name);
    }
    // How they stand is not known at the moment.
    home.status.borrow_mut().sinks = None;
    let shown = home.ok("GET", &sync, Value::Null);
    assert_eq!(shown["sinks"], json!([{"sink_id": "catalogue", "kind": "catalogue"}]));
    assert_eq!(shown["dead_letters"], Value::Null);
}

#[test]
fn a_feed_keeps_changes_as_long_as_is_asked_for() {
    let home = Home::new();
    let connection_id = home.connection("A");
    let body = json!({"connection_id": connection_id, "source_path": "my-videos", "feed_retention_hours": 720});
    let created = home.ok("POST", SYNCS, body);
    assert_eq!(created["feed_retention_hours"], 720);
    let sync = format!("{SYNCS}/{}", created["sync_config_id"].as_str().unwrap());
    assert_eq!(home.ok("PATCH", &sync, json!({"feed_retention_hours": 1}))["feed_retention_hours"], 1);
    assert_eq!(home.record(&sync).feed_retention_hours, 1);
    assert_eq!(home.ok("PATCH", &sync, json!({"description": "d"}))["feed_retention_hours"], 1);
    for hours in [json!(0), json!(721), json!(-1), json!(1.5), json!("1"), json!(true)] {
        let wrong = home.wrong("PATCH", &sync, json!({"feed_retention_hours": hours}));
        assert_eq!(wrong, ["body.feed_retention_hours"], "{hours}");
    }
    assert_eq!(home.record(&sync).feed_retention_hours, 1);
}
