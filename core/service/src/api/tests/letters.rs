//! Dead letters.

use super::*;

#[test]
fn dead_letters_are_listed_sent_back_and_given_up() {
    let home = Home::new();
    let sync = home.sync();
    for (n, key) in ["2024/a.mp4", "2024/ü 😀.mp4", "2024/c.mp4"].into_iter().enumerate() {
        let at = Timestamp::from_millis(NOW + n as i64);
        let entry = Entry { key: key.into(), etag: "e".into(), size: n as u64, last_modified: at };
        let change = created(n as u64 + 1, entry);
        home.letters.borrow_mut().refuse(&change, &"no ".repeat(500), 3, at).unwrap();
    }
    let dlq = format!("{sync}/dlq");
    let answer = home.ok("POST", &dlq, Value::Null);
    check_keys(&answer, "results pagination total");
    assert_eq!(answer["total"], 3);
    let first = &answer["results"][0];
    check_keys(
        first,
        "dlq_id sync_config_id internal_id namespace_id bucket_id source_object_id source_path error_type \
         error_message retry_count max_retries_reached requeued_at disposal_reason first_seen_at last_seen_at \
         change_id position change size_bytes last_modified",
    );
    assert_eq!(first["source_path"], "b2://my-videos/2024/a.mp4");
    assert_eq!(
        (&first["error_type"], &first["retry_count"], &first["max_retries_reached"], &first["change"]),
        (&"delivery_refused".into(), &3.into(), &true.into(), &"created".into())
    );
    assert_eq!(first["error_message"].as_str().unwrap().chars().count(), 1_000);
    let page = home.ok("GET", &format!("{dlq}?limit=2"), Value::Null);
    let cursor = page["pagination"]["next_cursor"].as_str().unwrap().to_owned();
    let rest = home.ok("POST", &format!("{dlq}?limit=2&cursor={cursor}"), Value::Null);
    assert_eq!((rest["results"].as_array().unwrap().len(), &rest["total"]), (1, &3.into()));
    assert_eq!(home.ok("POST", &dlq, json!({"error_types": ["Other"], "only_max_retries": true}))["total"], 0);

    let refused = json!({"error_types": ["delivery_refused"]});
    let marked = home.ok("POST", &format!("{dlq}/bulk-mark-failed"), refused.clone());
    assert_eq!(marked, json!({"updated": 3}));
    assert_eq!(home.ok("POST", &dlq, Value::Null)["results"][2]["disposal_reason"], "marked_failed");
    block_on(home.registry.set_poke_after(sync.rsplit('/').next().unwrap(), None)).unwrap();
    let requeued = home.ok("POST", &format!("{dlq}/requeue"), refused);
    assert_eq!(requeued, json!({"requeued": 3}));
    assert_eq!(
        block_on(home.registry.due(home.now().plus_millis(1), 9)).unwrap().len(),
        1,
        "the cron looks after the job"
    );
    assert_eq!(home.ok("POST", &format!("{dlq}/requeue"), Value::Null)["requeued"], 0);
    assert_eq!(home.ok("POST", &dlq, json!({"only_max_retries": true}))["total"], 0);
    let letter = &home.ok("POST", &dlq, Value::Null)["results"][0];
    assert_eq!((&letter["max_retries_reached"], &letter["disposal_reason"]), (&false.into(), &Value::Null));

    // Giving all up takes naming what.
    for body in [Value::Null, json!({"error_types": []}), json!({"error_types": null})] {
        assert_eq!(home.wrong("POST", &format!("{dlq}/bulk-mark-failed"), body), ["body.error_types"]);
    }
    assert_eq!(home.wrong("POST", &dlq, json!({"error_type": "x"})), ["body.error_type"]);
    assert_eq!(home.wrong("POST", &format!("{dlq}/requeue"), json!({"error_types": "x"})), ["body.error_types"]);

    // How many there are is shown with the sync.
    let dead_letters = [("delivery_refused".to_owned(), 3)].into();
    home.status.borrow_mut().sinks = Some(vec![SinkStatus { dead_letters, ..sink_status() }]);
    assert_eq!(home.ok("GET", &sync, Value::Null)["dead_letters"], 3);
    let metrics = home.ok("GET", &format!("{sync}/metrics"), Value::Null);
    assert_eq!((&metrics["dlq_total"], &metrics["dlq_by_error"]), (&3.into(), &json!({"delivery_refused": 3})));
}
