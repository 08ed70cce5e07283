//! Requests that are sent again, and what a user sees while B2 does not answer.

use super::*;

fn with_key(home: &Home, key: &str) {
    home.idempotency_key.replace(Some(key.to_owned()));
}

#[test]
fn a_create_that_is_sent_again_creates_nothing_more() {
    let home = Home::new();
    with_key(&home, "b7a3e1c4-first");
    let created = home.ok("POST", CONNECTIONS, new_connection("A"));
    assert_eq!(home.ok("POST", CONNECTIONS, new_connection("A")), created);
    let body = json!({"connection_id": "A", "source_path": "my-videos"});
    // The same key for another path is another key.
    let sync = home.ok("POST", SYNCS, body.clone());
    assert_eq!(home.ok("POST", SYNCS, body.clone())["sync_config_id"], sync["sync_config_id"]);
    assert_eq!(home.ok("POST", &format!("{SYNCS}/list"), Value::Null)["total"], 1);
    // Another body is no repetition.
    let (status, _, message) = home.refused("POST", SYNCS, json!({"connection_id": "A", "source_path": "other"}));
    assert_eq!(status, 422);
    assert!(message.contains("Use a new key"), "{message}");
    // Without a key, or with another, there are two.
    with_key(&home, "b7a3e1c4-second");
    assert_ne!(home.ok("POST", SYNCS, body.clone())["sync_config_id"], sync["sync_config_id"]);
    home.idempotency_key.replace(None);
    home.ok("POST", SYNCS, body);
    assert_eq!(home.ok("POST", &format!("{SYNCS}/list"), Value::Null)["total"], 3);
}

#[test]
fn a_key_counts_for_a_day_and_not_beyond_what_it_created() {
    let home = Home::new();
    home.ok("POST", CONNECTIONS, new_connection("A"));
    let body = json!({"connection_id": "A", "source_path": "my-videos"});
    with_key(&home, "k");
    let id = |answer: &Value| answer["sync_config_id"].as_str().unwrap().to_owned();
    let first = id(&home.ok("POST", SYNCS, body.clone()));
    home.ok("DELETE", &format!("{SYNCS}/{first}"), Value::Null);
    // What was deleted is not created again under its id.
    let second = id(&home.ok("POST", SYNCS, body.clone()));
    assert_ne!(second, first);
    home.now.set(home.now.get() + 24 * 3_600_000);
    assert_ne!(id(&home.ok("POST", SYNCS, body)), second);
    // A connection that was deleted stays so.
    let connection = home.ok("POST", CONNECTIONS, new_connection("B"));
    home.ok("DELETE", &format!("{CONNECTIONS}/{}", connection["connection_id"].as_str().unwrap()), Value::Null);
    assert_eq!(home.refused("POST", CONNECTIONS, new_connection("B")).0, 409);
}

#[test]
fn what_failed_may_be_corrected_and_sent_with_the_same_key() {
    let home = Home::new();
    home.ok("POST", CONNECTIONS, new_connection("A"));
    with_key(&home, "k");
    let body = |path: &str| json!({"connection_id": "A", "source_path": path});
    *home.list.borrow_mut() = Some((404, "<Error><Code>NoSuchBucket</Code></Error>".into()));
    assert_eq!(home.refused("POST", SYNCS, body("my-vidoes")).0, 400);
    *home.list.borrow_mut() = Some((200, PAGE.into()));
    let created = home.ok("POST", SYNCS, body("my-videos"));
    assert_eq!(home.ok("POST", SYNCS, body("my-videos"))["sync_config_id"], created["sync_config_id"]);
    assert_eq!(home.refused("POST", SYNCS, body("my-vidoes")).0, 422);
}

#[test]
fn a_key_that_is_none_says_so() {
    let home = Home::new();
    for key in ["", " ", "a b", "ü", &"k".repeat(256)] {
        with_key(&home, key);
        let (status, _, message) = home.refused("POST", CONNECTIONS, new_connection("A"));
        assert_eq!(status, 422);
        assert!(message.contains("Idempotency-Key"), "{message}");
    }
    with_key(&home, &"k".repeat(255));
    home.ok("POST", CONNECTIONS, new_connection("A"));
}

/// The client gives up after a while and sends it again: there must be one, or none.
#[test]
fn while_b2_hangs_an_answer_comes_in_time_and_nothing_is_stored() {
    let home = Home::new();
    home.ok("POST", CONNECTIONS, new_connection("A"));
    home.hangs.set(true);
    let body = json!({"connection_id": "A", "source_path": "my-videos"});
    for (target, body) in [(CONNECTIONS, new_connection("B")), (SYNCS, body.clone())] {
        let began = home.now.get();
        let (status, _, message) = home.refused("POST", target, body);
        assert_eq!(status, 503, "{message}");
        assert!(message.contains("Send the request again"), "{message}");
        assert!(home.now.get() - began < 10_000, "{} ms", home.now.get() - began);
    }
    let began = home.now.get();
    assert_eq!(home.ok("POST", &format!("{CONNECTIONS}/A/test"), Value::Null)["success"], false);
    assert!(home.now.get() - began < 10_000);
    assert_eq!(home.ok("POST", &format!("{CONNECTIONS}/list"), Value::Null)["total"], 1);
    assert_eq!(home.ok("POST", &format!("{SYNCS}/list"), Value::Null)["total"], 0);
    // The key that was sent with a request that failed works for the one that is sent again.
    with_key(&home, "again");
    assert_eq!(home.refused("POST", SYNCS, body.clone()).0, 503);
    home.hangs.set(false);
    home.ok("POST", SYNCS, body.clone());
    home.ok("POST", SYNCS, body);
    assert_eq!(home.ok("POST", &format!("{SYNCS}/list"), Value::Null)["total"], 1);
}

#[test]
fn names_that_no_url_can_hold_or_that_look_like_ids_are_refused() {
    let home = Home::new();
    for name in [".", "..", "conn_yalhqa2qlmiuqi5kunwa"] {
        assert_eq!(home.wrong("POST", CONNECTIONS, new_connection(name)), ["body.name"], "{name}");
    }
    home.ok("POST", CONNECTIONS, new_connection("..."));
}
