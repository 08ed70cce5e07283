//! `explain`: what a user is told who asks why a file is here, or is not.

use b2sync_core::time::Timestamp;
use b2sync_tests::service::{Connected, Service, ServiceConfig, now_ms};
use fake_b2::faults::{Fault, Rule, Target};
use fake_b2::model::NewFile;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::{BUCKET, Outcome, SOON};

fn put(service: &Service, key: &str, size: u64) -> Outcome {
    service.fake().put(BUCKET, key, NewFile::generated(size, size), Timestamp::from_millis(now_ms() - 5_000))?;
    Ok(())
}

fn explain(service: &Service, it: &Connected, key: &str) -> Result<Value, Box<dyn std::error::Error>> {
    let key = utf8_percent_encode(key, NON_ALPHANUMERIC);
    Ok(service.call("GET", &format!("{}/explain?key={key}", it.sync.path()), None)?)
}

/// The sentences, as one text.
fn words(explained: &Value) -> String {
    let said = explained["summary"].as_array().into_iter().flatten().filter_map(Value::as_str);
    said.collect::<Vec<_>>().join(" ")
}

#[test]
fn each_fate_of_a_file_is_told() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    for (key, size) in [("2024/a b.mp4", 10), ("2024/b.mp4", 20), ("2024/c.tmp", 30), ("2024/d.mp4", 40)] {
        put(&service, key, size)?;
    }
    let it = service.connect("why", &format!("b2://{BUCKET}/2024/"))?;
    service.call("PATCH", &it.sync.path(), Some(&json!({ "exclude_patterns": ["*.tmp"] })))?;
    let job = service.run_job(&it.sync, SOON)?;

    let known = explain(&service, &it, "2024/a b.mp4")?;
    assert_eq!(
        known["filters"],
        json!({"takes": true, "decided_by": null, "by_name_only": false,
                                        "reason": "2024/a b.mp4 passes every filter."}),
        "{known}"
    );
    assert_eq!((&known["b2"]["is_there"], &known["b2"]["size"]), (&json!(true), &json!(10)), "{known}");
    assert_eq!(known["snapshot"]["is_current_version"], true, "{known}");
    assert_eq!(known["changes"][0]["kind"], "created", "{known}");
    assert_eq!(known["changes"][0]["job_id"], job["sync_job_id"], "{known}");
    assert_eq!(known["sinks"][0]["has_newest_change"], true, "{known}");
    assert!(words(&known).contains("The sink `catalogue` has taken that change."), "{known}");

    let excluded = explain(&service, &it, "2024/c.tmp")?;
    assert_eq!(excluded["filters"]["decided_by"], "file_filters.exclude_patterns", "{excluded}");
    assert!(words(&excluded).contains("matches the exclude pattern \"*.tmp\""), "{excluded}");
    assert!(words(&excluded).ends_with("The feed has no change of it."), "{excluded}");

    let outside = explain(&service, &it, "2023/a.mp4")?;
    assert_eq!((&outside["is_below_source_path"], &outside["b2"]), (&json!(false), &Value::Null), "{outside}");
    assert!(words(&outside).contains("does not begin with \"2024/\""), "{outside}");

    let misspelt = explain(&service, &it, "2024/B.mp4")?;
    assert_eq!((&misspelt["b2"]["is_there"], &misspelt["filters"]["by_name_only"]), (&json!(false), &json!(true)));
    assert!(words(&misspelt).contains("Keys are case-sensitive."), "{misspelt}");

    put(&service, "2024/new.mp4", 50)?;
    let new = explain(&service, &it, "2024/new.mp4")?;
    assert_eq!((&new["snapshot"]["is_known"], &new["b2"]["is_there"]), (&json!(false), &json!(true)), "{new}");
    assert!(words(&new).contains("The snapshot does not know it yet. The next poll, at "), "{new}");

    put(&service, "2024/b.mp4", 21)?;
    let changed = explain(&service, &it, "2024/b.mp4")?;
    assert_eq!(changed["snapshot"]["is_current_version"], false, "{changed}");
    service.fake().delete_key(BUCKET, "2024/d.mp4")?;
    let gone = explain(&service, &it, "2024/d.mp4")?;
    assert!(words(&gone).contains("appends its deletion, or holds it"), "{gone}");

    service.run_job(&it.sync, SOON)?;
    let kinds = |explained: &Value| -> Vec<String> {
        let changes = explained["changes"].as_array().into_iter().flatten();
        changes.filter_map(|change| change["kind"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(kinds(&explain(&service, &it, "2024/b.mp4")?), ["updated", "created"]);
    let gone = explain(&service, &it, "2024/d.mp4")?;
    assert_eq!(
        (kinds(&gone), &gone["snapshot"]["is_known"]),
        (vec!["deleted".into(), "created".into()], &json!(false))
    );
    assert_eq!(kinds(&explain(&service, &it, "2024/new.mp4")?), ["created"]);

    // Its size cannot be read: it has none.
    service.fake().inject(Rule::next(Target::List, Fault::UnreadableEntries { keys: vec!["2024/new.mp4".into()] }));
    let unreadable = explain(&service, &it, "2024/new.mp4")?;
    assert!(unreadable["b2"]["size"].is_null() && unreadable["b2"]["unreadable"].is_string(), "{unreadable}");
    assert_eq!(unreadable["snapshot"]["is_current_version"], Value::Null, "{unreadable}");

    // B2 is down: everything else is told all the same.
    service.fake().inject(Rule::next(Target::List, Fault::status(503)).times(Rule::ALWAYS));
    let down = explain(&service, &it, "2024/b.mp4")?;
    assert_eq!((&down["b2"]["is_there"], kinds(&down).len()), (&Value::Null, 2), "{down}");
    assert!(words(&down).starts_with("B2 could not be asked: "), "{down}");

    for query in ["", "?key=", &format!("?key={}", "x".repeat(1_025)), "?key=a&all=1"] {
        let (status, answer) = service.ask("GET", &format!("{}/explain{query}", it.sync.path()), None)?;
        assert_eq!(status, 422, "{query}: {answer}");
    }
    Ok(())
}

#[test]
fn a_deletion_that_is_held_is_told_with_what_to_do() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    for number in 0..200 {
        put(&service, &format!("f{number:03}.mp4"), number + 1)?;
    }
    let it = service.connect("held", BUCKET)?;
    service.run_job(&it.sync, SOON)?;
    for number in 0..150 {
        service.fake().delete_key(BUCKET, &format!("f{number:03}.mp4"))?;
    }
    service.run_job(&it.sync, SOON)?;
    let held = explain(&service, &it, "f007.mp4")?;
    assert_eq!(held["snapshot"]["deletion_held"], true, "{held}");
    assert!(words(&held).contains("confirm_deletes=true"), "{held}");
    let kept = explain(&service, &it, "f180.mp4")?;
    assert_eq!((&kept["snapshot"]["deletion_held"], &kept["snapshot"]["is_known"]), (&json!(false), &json!(true)));
    Ok(())
}
