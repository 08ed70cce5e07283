//! The fields that requests accept and answers show are those that the reference names.

use std::collections::BTreeSet;

use super::{
    page::{check_block, names, names_of_paragraph, names_of_row, row, same},
    *,
};

const SYNC_PAGE: &str = "sync-fields.md";
const API_PAGE: &str = "http-api.md";

/// A field that no object has.
const UNKNOWN: &str = "?";

fn set(names: impl IntoIterator<Item = impl Into<String>>) -> BTreeSet<String> {
    names.into_iter().map(Into::into).collect()
}

fn keys(answer: &Value) -> BTreeSet<String> {
    set(answer.as_object().unwrap().keys())
}

/// The fields that a body may have, as the refusal of an unknown one lists them. Those of the object at the dotted path
/// `inside`.
fn accepted(home: &Home, method: &str, target: &str, inside: &str) -> BTreeSet<String> {
    let names: Vec<&str> = inside.split('.').filter(|name| !name.is_empty()).collect();
    let body = names.iter().rev().fold(json!({UNKNOWN: 1}), |object, name| json!({*name: object}));
    let (status, answer) = home.call(method, target, body);
    assert_eq!(status, 422, "{answer}");
    let problems = answer["error"]["details"]["validation_errors"].as_array().unwrap();
    let location: Vec<&str> = ["body"].into_iter().chain(names).chain([UNKNOWN]).collect();
    let problem = problems.iter().find(|it| it["location"] == json!(location)).unwrap();
    let (_, allowed) = problem["message"].as_str().unwrap().split_once("Allowed: ").unwrap();
    set(allowed.strip_suffix('.').unwrap().split(", "))
}

fn below(name: &str, fields: &BTreeSet<String>) -> BTreeSet<String> {
    set(fields.iter().map(|field| format!("{name}.{field}")))
}

#[test]
fn what_a_sync_accepts() {
    let home = Home::new();
    let sync = home.sync();
    let create = accepted(&home, "POST", SYNCS, "");
    let patch = accepted(&home, "PATCH", &sync, "");
    let unchanged = names(SYNC_PAGE, "### Stored and returned unchanged");
    let (unchanged_nested, unchanged): (BTreeSet<_>, BTreeSet<_>) =
        unchanged.into_iter().partition(|name| name.contains('.'));
    let documented = &names(SYNC_PAGE, "## What you set") | &unchanged;
    same("What a new sync accepts", &documented, &create);
    let documented = names(SYNC_PAGE, "### Only in a `PATCH`");
    same("What only a PATCH of a sync accepts", &documented, &(&patch - &create));
    for (method, target) in [("POST", SYNCS), ("PATCH", sync.as_str())] {
        same("Filters", &names(SYNC_PAGE, "### Filters"), &accepted(&home, method, target, "file_filters"));
        let reconcile = below("reconcile", &accepted(&home, method, target, "reconcile"));
        let documented = &below("reconcile", &names(SYNC_PAGE, "### Reconcile")) | &unchanged_nested;
        same("Reconcile", &documented, &reconcile);
        same("Schedule", &names(SYNC_PAGE, "### Schedule"), &accepted(&home, method, target, "schedule"));
        for field in accepted(&home, method, target, "deletion_limit") {
            let row = row(SYNC_PAGE, "## What you set", "deletion_limit");
            assert!(row.contains(&format!("`{field}`: ")), "sync-fields.md: deletion_limit has {field}");
        }
    }
    let fixed: Vec<String> = (&create - &patch).iter().map(|name| format!("`{name}`")).collect();
    let (last, others) = fixed.split_last().unwrap();
    let sentence =
        format!("{} and {last} cannot be changed. Delete the sync and create a new one.\n", others.join(", "));
    check_block(SYNC_PAGE, "fixed fields", |_| sentence);
}

#[test]
fn what_a_sync_shows() {
    let home = Home::new();
    let sync = home.sync();
    let accepted = accepted(&home, "POST", SYNCS, "");
    let shown = home.ok("GET", &sync, Value::Null);
    let besides = names(SYNC_PAGE, "## What the answer shows besides");
    // Answers have these nested in `file_filters`.
    let flat = set(["include_patterns", "exclude_patterns", "modified_since"]);
    same("What a sync shows", &(&(&accepted - &flat) | &besides), &keys(&shown));
    let schedule = names(SYNC_PAGE, "### Schedule");
    let by_cron = json!({"connection_id": "A", "source_path": "my-videos/cron/", "schedule": {"cron": "0 3 * * *"}});
    let by_cron = home.ok("POST", SYNCS, by_cron);
    same("What a schedule shows", &schedule, &(&keys(&shown["schedule"]) | &keys(&by_cron["schedule"])));
    for name in ["feed"] {
        let row = row(SYNC_PAGE, "## What the answer shows besides", name);
        for field in keys(&shown[name]) {
            assert!(row.contains(&format!("`{field}`")), "sync-fields.md: {name} has {field}");
        }
    }
    let metrics = keys(&home.ok("GET", &format!("{sync}/metrics"), Value::Null));
    let own = names(SYNC_PAGE, "## Metrics");
    same("What the metrics show", &own, &(&metrics - &keys(&shown)));
}

#[test]
fn what_a_connection_accepts_and_shows() {
    let home = Home::new();
    home.connection("A");
    let create = |inside: &str| accepted(&home, "POST", CONNECTIONS, inside);
    let mut fields = create("");
    fields.remove("provider_config");
    fields.extend(below("provider_config", &create("provider_config")));
    fields.remove("provider_config.credentials");
    fields.extend(below("provider_config.credentials", &create("provider_config.credentials")));
    same("What a new connection accepts", &names(API_PAGE, "## Connections"), &fields);
    let shown = keys(&home.ok("GET", &format!("{CONNECTIONS}/A"), Value::Null));
    same("What a connection shows", &names_of_paragraph(API_PAGE, "A connection answers"), &shown);
}

#[test]
fn what_lists_accept() {
    let home = Home::new();
    let sync = home.sync();
    let accepted = |target: &str| accepted(&home, "POST", target, "");
    let not_supported = names_of_paragraph(API_PAGE, "No list supports");
    let not_supported = &not_supported - &set(["{}", "[]", "\"\""]);
    same("What every list refuses", &not_supported, &set(["filters", "sort", "search", "select"]));
    let page = names(API_PAGE, "## Lists");
    let page: BTreeSet<String> = page.into_iter().filter(|name| !name.contains('.') && !name.contains('…')).collect();
    let page = &page - &set(["total", "page_size", "total_pages", "next_page", "previous_page"]);
    let page = &page | &set(["page_size"]);
    for (list, fields) in [
        ("connections", accepted(&format!("{CONNECTIONS}/list"))),
        ("syncs of a bucket", accepted(&format!("{SYNCS}/list"))),
        ("syncs of all buckets", accepted("/v1/syncs/list")),
        ("jobs", accepted(&format!("{sync}/jobs"))),
        ("dead letters", accepted(&format!("{sync}/dlq"))),
        ("objects", accepted(&format!("{OBJECTS}/list"))),
    ] {
        same(&format!("Fields of {list}"), &(&names_of_row(API_PAGE, "## Lists", list) | &page), &fields);
    }
}

#[test]
fn what_jobs_changes_letters_explanations_and_objects_show() {
    let home = Home::new();
    *home.jobs.borrow_mut() = vec![job("job_1", NOW, JobStatus::Completed)];
    let sync = home.sync();
    let at = Timestamp::from_millis(NOW);
    let entry = |key: &str| Entry { key: key.into(), etag: "e".into(), size: 1, last_modified: at };
    home.letters.borrow_mut().refuse(&created(1, entry("a")), "No.", 3, at).unwrap();
    let previous =
        b2sync_core::change::Previous { size: 1, last_modified: at, tag: b2sync_core::snapshot::EtagTag([1; 8]) };
    home.feed.borrow_mut().push(Change {
        kind: ChangeKind::Updated,
        previous: Some(previous),
        again: true,
        ..created(1, entry("a"))
    });
    fill(&home, sync.rsplit('/').next().unwrap());

    let job = home.ok("GET", &format!("{sync}/jobs/job_1"), Value::Null);
    same("What a job shows", &names(API_PAGE, "## Jobs"), &keys(&job));
    let letters = home.ok("GET", &format!("{sync}/dlq"), Value::Null);
    same("What a dead letter shows", &names(API_PAGE, "## Dead letters"), &keys(&letters["results"][0]));
    let previewed =
        home.ok("POST", &format!("{SYNCS}/preview"), json!({"connection_id": "A", "source_path": "bucket"}));
    same("What a preview shows", &names(API_PAGE, "## Preview"), &keys(&previewed));
    for name in ["counts", "cost"] {
        let row = row(API_PAGE, "## Preview", name);
        for field in keys(&previewed[name]) {
            assert!(row.contains(&format!("`{field}`")), "http-api.md: {name} has {field}");
        }
    }
    let explained = home.ok("GET", &format!("{sync}/explain?key=a"), Value::Null);
    same("What an explanation shows", &names(API_PAGE, "## Explain"), &keys(&explained));
    for name in ["filters", "snapshot"] {
        let row = row(API_PAGE, "## Explain", name);
        for field in keys(&explained[name]) {
            assert!(row.contains(&format!("`{field}`")), "http-api.md: {name} has {field}");
        }
    }
    let objects = home.ok("GET", OBJECTS, Value::Null);
    same("What an object shows", &names(API_PAGE, "## Objects"), &keys(&objects["results"][0]));
    let page = home.ok("GET", &format!("{sync}/changes"), Value::Null);
    let parameters = set(["after", "limit", "wait"]);
    same("What a page of the feed shows", &names(API_PAGE, "## Changes"), &(&keys(&page) | &parameters));
    same("What a change shows", &names("change.md", "# The change record"), &keys(&page["changes"][0]));
}
