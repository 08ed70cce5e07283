//! When syncs poll, as requests set it and answers show it.

use super::*;
use crate::coordinator::protocol::Command;

fn create(home: &Home, more: Value) -> Value {
    let mut body = json!({"connection_id": "A", "source_path": "my-videos/cron/"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.as_object().map(|_| home.ok("POST", SYNCS, body.clone())).unwrap()
}

fn path_of(sync: &Value) -> String {
    format!("{SYNCS}/{}", sync["sync_config_id"].as_str().unwrap())
}

#[test]
fn a_sync_polls_at_times_of_the_day() {
    let home = Home::new();
    home.connection("A");
    let berlin = json!({"cron": "0 3 * * *", "timezone": "europe/berlin"});
    let shown = json!({"mode": "scheduled", "cron": "0 3 * * *", "timezone": "Europe/Berlin", "next_run_at": null,
                       "last_run_at": null});
    for mode in [json!("scheduled"), Value::Null] {
        let sync = create(&home, json!({"sync_mode": mode, "schedule": berlin}));
        assert_eq!((&sync["schedule"], &sync["sync_mode"]), (&shown, &"continuous".into()));
        assert_eq!(sync["polling_interval_seconds"], 300);
        let sync = path_of(&sync);
        // What is shown can be sent back, and changes nothing.
        let record = home.record(&sync);
        let same = home.ok("PATCH", &sync, json!({"schedule": shown, "polling_interval_seconds": 300}));
        assert_eq!((&same["schedule"], home.record(&sync)), (&shown, record));
    }
    let utc = create(&home, json!({"schedule": {"cron": "*/10 * * * *", "mode": "scheduled"}}));
    assert_eq!(utc["schedule"]["timezone"], "UTC");
}

#[test]
fn a_schedule_changes_to_an_interval_and_back() {
    let home = Home::new();
    home.connection("A");
    let sync = path_of(&create(&home, json!({"sync_mode": "scheduled", "polling_interval_seconds": 3600})));
    let schedule = |body: Value| {
        home.commands.borrow_mut().clear();
        let schedule = home.ok("PATCH", &sync, body)["schedule"].clone();
        assert!(home.commands.borrow().contains(&Command::Configured), "the coordinator plans again");
        (schedule["cron"].clone(), schedule["timezone"].clone(), schedule["interval_seconds"].clone())
    };
    let (cron, berlin, none) = (json!("0 3 * * *"), json!("Europe/Berlin"), Value::Null);
    let by_interval = |seconds: u32| (none.clone(), none.clone(), json!(seconds));
    let by_cron = (cron.clone(), berlin.clone(), none.clone());
    assert_eq!(schedule(json!({"schedule": {"cron": cron, "timezone": berlin}})), by_cron);
    let since = home.record(&sync).cron.unwrap().since;
    assert_eq!(since, Timestamp::from_millis(home.now.get()));
    // Each part by itself; what is not sent stays.
    assert_eq!(schedule(json!({"description": "x"})), by_cron);
    assert_eq!(home.record(&sync).cron.unwrap().since, since);
    assert_eq!(schedule(json!({"schedule": {"timezone": "UTC"}})), (cron.clone(), json!("UTC"), none.clone()));
    assert_eq!(schedule(json!({"schedule": {"timezone": "Europe/Berlin"}})), by_cron);
    assert_eq!(
        schedule(json!({"schedule": {"cron": "5 4 * * *"}})),
        (json!("5 4 * * *"), berlin.clone(), none.clone())
    );
    assert_eq!(schedule(json!({"schedule": {}})).0, "5 4 * * *");
    for (back, seconds) in [
        (json!({"schedule": null}), 3_600),
        (json!({"schedule": {"cron": null}}), 3_600),
        (json!({"schedule": {"interval_seconds": 60}}), 60),
        (json!({"schedule": null, "polling_interval_seconds": 90}), 90),
        (json!({"schedule": {"cron": null, "interval_seconds": 3600}}), 3_600),
    ] {
        assert_eq!(schedule(json!({"schedule": {"cron": cron, "timezone": berlin}})), by_cron);
        assert_eq!(schedule(back.clone()), by_interval(seconds), "{back}");
    }
    assert_eq!(schedule(json!({"schedule": {"interval_seconds": 30}})), by_interval(30));
}

#[test]
fn what_is_wrong_with_a_schedule_is_said_where_it_stands() {
    let home = Home::new();
    home.connection("A");
    let cron = "0 3 * * *";
    let new = |more: Value| {
        let mut body = json!({"connection_id": "A", "source_path": "my-videos/x/"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (more, wrong) in [
        (json!({"schedule": {"cron": "0 0 31 2 *"}}), "schedule.cron"),
        (json!({"schedule": {"cron": "61 3 * * *"}}), "schedule.cron"),
        (json!({"schedule": {"cron": ""}}), "schedule.cron"),
        (json!({"schedule": {"cron": 3}}), "schedule.cron"),
        (json!({"schedule": {"cron": cron, "timezone": "Europe/Berln"}}), "schedule.timezone"),
        (json!({"schedule": {"timezone": "Europe/Berlin"}}), "schedule.timezone"),
        (json!({"schedule": {"cron": cron, "interval_seconds": 60}}), "schedule.interval_seconds"),
        (json!({"schedule": {"interval_seconds": 29}}), "schedule.interval_seconds"),
        (json!({"schedule": {"interval_seconds": 60}, "polling_interval_seconds": 61}), "schedule.interval_seconds"),
        (json!({"schedule": {"cron": cron}, "polling_interval_seconds": 61}), "polling_interval_seconds"),
        (json!({"schedule": {"cron": cron}, "sync_mode": "continuous"}), "schedule.cron"),
        (json!({"schedule": {"cron": cron}, "sync_mode": "one_time"}), "schedule.cron"),
        (json!({"schedule": {"mode": "continuous"}, "sync_mode": "scheduled"}), "schedule.mode"),
        (json!({"schedule": {"at": "3:00"}}), "schedule.at"),
        (json!({"schedule": "0 3 * * *"}), "schedule"),
    ] {
        assert_eq!(home.wrong("POST", SYNCS, new(more.clone())), [format!("body.{wrong}")], "{more}");
    }
    assert_eq!(home.ok("GET", SYNCS, Value::Null)["total"], 0);
    let (_, _, message) = home.refused("POST", SYNCS, new(json!({"schedule": {"cron": "0 3 * *"}})));
    assert!(message.contains("it has 4. Example: \"0 3 * * *\""), "{message}");

    let sync = path_of(&create(&home, json!({"schedule": {"cron": cron}})));
    let polls = path_of(&create(&home, json!({"sync_mode": "continuous"})));
    for (sync, body, wrong) in [
        (&sync, json!({"polling_interval_seconds": 600}), "polling_interval_seconds"),
        (&sync, json!({"schedule": {"cron": "0 0 31 2 *"}}), "schedule.cron"),
        (&sync, json!({"schedule": {"mode": "one_time"}}), "schedule.mode"),
        (&polls, json!({"schedule": {"cron": cron}}), "schedule.cron"),
        (&polls, json!({"schedule": {"timezone": "UTC"}}), "schedule.timezone"),
    ] {
        let before = home.record(sync);
        assert_eq!(home.wrong("PATCH", sync, body.clone()), [format!("body.{wrong}")], "{body}");
        assert_eq!(home.record(sync), before, "{body}");
    }
}

/// Polls on workdays are not stale on a Monday morning, and cost what their number says.
#[test]
fn metrics_go_by_the_times() {
    let home = Home::new();
    home.connection("A");
    let cron = json!({"cron": "0 9-16 * * MON-FRI", "timezone": "UTC"});
    let sync = path_of(&create(&home, json!({"schedule": cron})));
    let at = |text: &str| Timestamp::parse_iso8601(text).unwrap();
    // A Friday.
    home.status.borrow_mut().last_sync_at = Some(at("2026-11-27T16:00:10Z"));
    home.status.borrow_mut().completed_cost = Some(JobCost { class_c: 10, ..JobCost::default() });
    for (now, stale) in
        [("2026-11-28T12:00:00Z", false), ("2026-11-30T09:59:00Z", false), ("2026-11-30T10:01:00Z", true)]
    {
        home.now.set(at(now).as_millis());
        assert_eq!(home.ok("GET", &format!("{sync}/metrics"), Value::Null)["is_stale"], stale, "{now}");
    }
    let day = home.ok("GET", &sync, Value::Null)["cost"]["per_day"].clone();
    assert_eq!(day["interval_seconds"], 7 * 86_400 / 40);
    assert_eq!(day["class_c_calls"], 58, "40 polls a week");
}
