//! `GET /openapi.json` describes the API as the code has it: paths from the route table, fields from the parsers (which
//! are recorded while they parse), answers from answers, and the words from `docs/reference/`.
//! `UPDATE_DOCS=1 cargo test -p b2sync-service openapi` writes it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use serde_json::Map;
use strum::VariantArray;

use super::{docs::page, *};
use crate::api::{
    recorder::{self, Note},
    routes::{Operation, ROUTES, Route},
};

/// The records that answers show, and the pages of them: what to call the schema, and where the words for its fields
/// stand.
fn schema_of(operation: Operation) -> Option<(&'static str, bool)> {
    use Operation::*;
    Some(match operation {
        ConnectionCreate | ConnectionGet | ConnectionUpdate => ("Connection", false),
        ConnectionList => ("Connection", true),
        SyncCreate | SyncGet | SyncUpdate | SyncPause | SyncResume | SyncUnlock => ("Sync", false),
        SyncList | SyncListAll => ("Sync", true),
        JobGet => ("Job", false),
        JobList => ("Job", true),
        DeadLetterList => ("DeadLetter", true),
        ObjectGet => ("Object", false),
        ObjectList => ("Object", true),
        _ => return None,
    })
}

/// Where the reference has words for the fields of a resource: page and heading, in the order in which they count.
fn sections(tag: &str, is_answer: bool) -> Vec<(&'static str, &'static str)> {
    let sync = "sync-fields.md";
    let api = "http-api.md";
    let lists = (api, "## Lists");
    let set = [
        (sync, "## What you set"),
        (sync, "### Filters"),
        (sync, "### Only in a `PATCH`"),
        (sync, "### Stored and returned unchanged"),
    ];
    let shown = [(sync, "## What the answer shows besides"), (sync, "## Metrics"), (api, "## Preview")];
    match tag {
        "connections" => vec![(api, "## Connections"), lists],
        "syncs" if is_answer => shown.into_iter().chain(set).chain([lists]).collect(),
        "syncs" => set.into_iter().chain([lists]).collect(),
        "changes" => vec![(api, "## Changes"), ("change.md", "# The change record"), (api, "## Explain")],
        "jobs" => vec![(api, "## Jobs"), lists],
        "dead letters" => vec![(api, "## Dead letters"), lists],
        "objects" => vec![(api, "## Objects"), lists],
        _ => Vec::new(),
    }
}

/// What the reference says of each field of a resource; the first section that has a field wins.
fn words(tag: &str, is_answer: bool) -> BTreeMap<String, String> {
    let mut words = BTreeMap::new();
    for (name, heading) in sections(tag, is_answer) {
        for (fields, text) in page::rows(name, heading) {
            for field in fields {
                let last = field.rsplit('.').next().unwrap_or_default().to_owned();
                words.entry(last).or_insert_with(|| text.clone());
            }
        }
    }
    words
}

/// A home in which there is one of everything.
fn furnished() -> (Home, String) {
    let home = Home::new();
    let mut done = job("job_1", NOW, JobStatus::Completed);
    done.completed_at = Some(Timestamp::from_millis(NOW + 9_000));
    done.started_at = Some(Timestamp::from_millis(NOW + 1_000));
    let mut failed = job("job_0", NOW - 1, JobStatus::Failed);
    failed.list_interval_ms = 3_000;
    failed.error = Some(ErrorRecord::from(&Error::new(ErrorKind::CapExceeded, "A cap is reached.", "Raise it.")));
    let queued = JobRecord {
        started_at: None,
        phase: Phase::Queued,
        known_before: 0,
        counts: JobCounts::default(),
        ..job("job_2", NOW, JobStatus::Running)
    };
    *home.jobs.borrow_mut() = vec![done.clone(), queued, failed];
    let sync = home.sync();
    done.sync_id = sync.rsplit('/').next().unwrap().to_owned();
    let at = Timestamp::from_millis(NOW);
    let entry = |key: &str| Entry { key: key.into(), etag: "e".into(), size: 1, last_modified: at };
    home.letters.borrow_mut().refuse(&created(1, entry("a")), "No.", 3, at).unwrap();
    let previous =
        b2sync_core::change::Previous { size: 1, last_modified: at, tag: b2sync_core::snapshot::EtagTag([1; 8]) };
    for again in [true, false] {
        let kind = ChangeKind::Updated;
        let previous = again.then_some(previous);
        home.feed.borrow_mut().push(Change { kind, previous, again, ..created(1, entry("a")) });
    }
    fill(&home, sync.rsplit('/').next().unwrap());
    {
        let mut status = home.status.borrow_mut();
        status.last_job = Some(done.clone());
        status.completed_cost = Some(done.cost);
        status.sinks = Some(vec![sink_status()]);
        (status.last_sync_at, status.next_sync_at, status.paused_at) = (Some(at), Some(at), Some(at));
        status.pause_reason = Some("Paused.".to_owned());
        status.stretched = Some(Stretched { interval_seconds: 900, reason: "A cap.".to_owned() });
        status.current_job = Some(job("job_2", NOW, JobStatus::Running));
    }
    (home, sync)
}

/// A path of the table with ids that are there.
fn filled(path: &str, sync: &str, object: &str) -> String {
    path.replace("{connection_id}", "A")
        .replace("/v1/buckets/{bucket_id}/syncs/{sync_config_id}", sync)
        .replace("{bucket_id}", "bkt_1")
        .replace("{sync_job_id}", "job_1")
        .replace("{object_id}", object)
}

/// A body with which the call succeeds.
fn body_of(operation: Operation) -> Value {
    match operation {
        Operation::ConnectionCreate => new_connection("Backblaze B2 Production"),
        Operation::SyncCreate | Operation::SyncPreview => json!({
            "connection_id": "A",
            "source_path": "b2://my-videos/2024/",
            "sync_mode": "scheduled",
            "polling_interval_seconds": 3_600,
            "include_patterns": ["*.mp4", "*.mov"],
        }),
        Operation::ConnectionUpdate | Operation::SyncUpdate => json!({"description": "All videos"}),
        Operation::DeadLetterMarkFailed => json!({"error_types": ["refused"]}),
        _ => Value::Null,
    }
}

/// What a route answers, and what it asks for while it parses.
struct Seen {
    answers: Vec<Value>,
    notes: Vec<Note>,
}

fn see(route: &'static Route) -> Seen {
    let mut answers = Vec::new();
    let mut notes = Vec::new();
    if matches!(route.operation, Operation::Description | Operation::Page) {
        return Seen { answers: vec![json!({})], notes };
    }
    for method in route.methods {
        let (home, sync) = furnished();
        let objects = home.ok("GET", OBJECTS, Value::Null);
        let object = objects["results"][0]["object_id"].as_str().unwrap().to_owned();
        let mut path = filled(route.path, &sync, &object);
        match route.operation {
            Operation::KeyExplain => path += "?key=a",
            Operation::ObjectsDelete => path += "?sync_id=sync_none",
            _ => {}
        }
        if route.operation == Operation::ConnectionDelete {
            home.ok("DELETE", &sync, Value::Null);
        }
        notes.extend(recorder::record(|| {
            let (target, body) = path.split_once('?').map_or((path.as_str(), json!({})), |(path, _)| (path, json!({})));
            home.call(method, target, if *method == "GET" { Value::Null } else { body });
        }));
        let (home, again) = furnished();
        if route.operation == Operation::ConnectionDelete {
            home.ok("DELETE", &again, Value::Null);
        }
        let path = path.replace(&sync, &again);
        let (status, answer) = home.call(method, &path, body_of(route.operation));
        assert!(matches!(status, 200 | 204), "{method} {path}: {answer}");
        answers.push(answer);
        if *method == "GET" {
            // And as it is while nothing has happened: what is `null` then.
            let home = Home::new();
            let (status, answer) = home.call(method, &path.replace(&again, &home.sync()), Value::Null);
            answers.extend((status == 200).then_some(answer));
        }
    }
    Seen { answers, notes }
}

/// The JSON Schema of all these values.
fn infer(values: &[&Value], words: &BTreeMap<String, String>) -> Value {
    let kind = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let mut kinds: BTreeSet<&str> = values.iter().map(|value| kind(value)).collect();
    if kinds.contains("number") {
        kinds.remove("integer");
    }
    let known: Vec<&str> = kinds.iter().copied().filter(|kind| *kind != "null").collect();
    let mut schema = Map::new();
    if known.is_empty() {
        // Nothing was seen but `null`.
        return Value::Object(schema);
    }
    let types: Vec<Value> = kinds.iter().map(|kind| json!(kind)).collect();
    schema.insert("type".to_owned(), if let [only] = types.as_slice() { only.clone() } else { types.into() });
    let items: Vec<&Value> = values.iter().filter_map(|value| value.as_array()).flatten().collect();
    if known.contains(&"array") && !items.is_empty() {
        schema.insert("items".to_owned(), infer(&items, words));
    }
    let objects: Vec<&Map<String, Value>> = values.iter().filter_map(|value| value.as_object()).collect();
    let mut properties = Map::new();
    for name in objects.iter().flat_map(|object| object.keys()) {
        if properties.contains_key(name) {
            continue;
        }
        let values: Vec<&Value> = objects.iter().filter_map(|object| object.get(name)).collect();
        let mut property = infer(&values, words);
        if let (Some(property), Some(text)) = (property.as_object_mut(), words.get(name)) {
            property.insert("description".to_owned(), text.as_str().into());
        }
        properties.insert(name.clone(), property);
    }
    if !properties.is_empty() {
        schema.insert("properties".to_owned(), properties.into());
        let in_all = |name: &&String| objects.iter().all(|object| object.contains_key(*name));
        let required: Vec<&String> = objects[0].keys().filter(in_all).collect();
        schema.insert("required".to_owned(), json!(required));
    }
    Value::Object(schema)
}

/// The fields below a location, as a schema. `null` counts as left out.
fn object_schema(notes: &[Note], at: &[&str], words: &BTreeMap<String, String>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for note in notes.iter().filter(|note| note.location.len() == at.len() + 1) {
        let (name, before) = note.location.split_last().unwrap();
        if before != at {
            continue;
        }
        let Some(schema) = &note.schema else {
            required.push(name.clone());
            continue;
        };
        let is_better = properties.get(name).is_none_or(|known: &Value| known.as_object().is_some_and(Map::is_empty));
        if !is_better {
            continue;
        }
        let inside: Vec<&str> = at.iter().copied().chain([name.as_str()]).collect();
        let is_nested =
            notes.iter().any(|it| it.location.len() > inside.len() && it.location.starts_with(&owned(&inside)));
        let mut schema = if is_nested { object_schema(notes, &inside, words) } else { schema.clone() };
        if let Some(schema) = schema.as_object_mut() {
            if let Some(text) = words.get(name) {
                schema.insert("description".to_owned(), text.as_str().into());
            }
            if at.first() == Some(&"body")
                && let Some(Value::String(kind)) = schema.get("type")
            {
                let kinds = json!([kind, "null"]);
                if let Some(Value::Array(choices)) = schema.get_mut("enum") {
                    choices.push(Value::Null);
                }
                schema.insert("type".to_owned(), kinds);
            }
        }
        properties.insert(name.clone(), schema);
    }
    for name in &required {
        // What is required cannot be `null`.
        if let Some(schema) = properties.get_mut(name).and_then(Value::as_object_mut) {
            if let Some(Value::Array(kinds)) = schema.get("type") {
                let kind = kinds[0].clone();
                schema.insert("type".to_owned(), kind);
            }
            if let Some(Value::Array(choices)) = schema.get_mut("enum") {
                choices.retain(|choice| !choice.is_null());
            }
        }
    }
    let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
    if !required.is_empty() {
        required.sort();
        required.dedup();
        schema["required"] = json!(required);
    }
    schema
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn parameters(route: &Route, notes: &[Note], words: &BTreeMap<String, String>) -> Vec<Value> {
    let mut parameters: Vec<Value> = Vec::new();
    for name in route.path.split(['{', '}']).skip(1).step_by(2) {
        parameters.push(json!({
            "name": name, "in": "path", "required": true,
            "schema": {"type": "string", "minLength": 1}, "description": path_words(name),
        }));
    }
    let query = object_schema(notes, &["query"], words);
    let required: Vec<&str> = query["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, schema) in query["properties"].as_object().unwrap() {
        let mut schema = schema.clone();
        let text = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        let mut parameter = json!({"name": name, "in": "query", "schema": schema});
        if let Some(text) = text {
            parameter["description"] = text;
        }
        if required.contains(&name.as_str())
            || (route.operation == Operation::KeyExplain && name == "key")
            || (route.operation == Operation::ObjectsDelete && name == "sync_id")
        {
            parameter["required"] = true.into();
        }
        parameters.push(parameter);
    }
    let header = |name: &str, text: &str| {
        let schema = json!({"type": "string"});
        json!({"name": name, "in": "header", "schema": schema, "description": text})
    };
    if route.path.starts_with("/v1/buckets") || route.path.starts_with("/v1/syncs") {
        parameters.push(header("X-Namespace", "Keeps target buckets of the same name apart; `default` without it."));
    }
    if matches!(route.operation, Operation::ConnectionCreate | Operation::SyncCreate) {
        parameters.push(header("Idempotency-Key", "A request with the same key and body creates nothing more."));
    }
    if route.operation == Operation::ChangeList {
        parameters.push(header("Last-Event-ID", "With `Accept: text/event-stream`: as `after`, which it wins over."));
    }
    if route.operation.reads_if_match() {
        parameters.push(header("If-Match", "The `etag` of the record as it was read: 412 if it was changed since."));
    }
    parameters
}

fn path_words(name: &str) -> &'static str {
    match name {
        "connection_id" => "Id or name of the connection.",
        "bucket_id" => "The target bucket: a name of your choice.",
        "sync_config_id" => "Id of the sync.",
        "sync_job_id" => "Id of the job.",
        _ => "Id of the object.",
    }
}

fn response(
    route: &Route,
    seen: &Seen,
    records: &mut BTreeMap<&'static str, (&'static str, Vec<Value>)>,
    words: &BTreeMap<String, String>,
) -> Value {
    if seen.answers.iter().all(Value::is_null) {
        return json!({"204": {"description": "Done; there is nothing to say."}});
    }
    if route.operation == Operation::Page {
        let content = json!({"schema": {"type": "string"}});
        return json!({"200": {"description": "The page.", "content": {"text/html": content}}});
    }
    if route.operation == Operation::Description {
        let content = json!({"schema": {"type": "object"}});
        return json!({"200": {"description": "This description.", "content": {"application/json": content}}});
    }
    let values: Vec<&Value> = seen.answers.iter().collect();
    let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let mut add = |name, values: Vec<Value>| {
        records.entry(name).or_insert((tag(route.path), Vec::new())).1.extend(values);
    };
    let mut schema = match schema_of(route.operation) {
        Some((name, false)) => {
            add(name, seen.answers.clone());
            reference(name)
        }
        Some((name, true)) => {
            let results = values.iter().filter_map(|value| value["results"].as_array()).flatten().cloned();
            add(name, results.collect());
            let mut page = infer(&values, words);
            page["properties"]["results"] = json!({"type": "array", "items": reference(name)});
            page
        }
        None => infer(&values, words),
    };
    if let Some(job) = schema.pointer_mut("/properties/job") {
        *job = reference("Job");
    }
    let mut content = json!({"schema": schema});
    if schema_of(route.operation).is_none() {
        content["example"] = seen.answers[0].clone();
    }
    let mut contents = json!({"application/json": content});
    if route.operation == Operation::ChangeList {
        contents["text/event-stream"] = json!({"schema": {"type": "string"}});
    }
    json!({"200": {"description": "Success.", "content": contents}})
}

fn operation_id(route: &Route, method: &str, is_only: bool) -> String {
    let name = format!("{:?}", route.operation);
    let (first, rest) = name.split_at(1);
    let name = first.to_lowercase() + rest;
    if is_only { name } else { format!("{name}By{}{}", &method[..1], method[1..].to_lowercase()) }
}

/// The whole description.
fn describe() -> Value {
    let mut records: BTreeMap<&str, (&str, Vec<Value>)> = BTreeMap::new();
    let mut paths = Map::new();
    for route in &ROUTES {
        let seen = see(route);
        let (asked, said) = (words(tag(route.path), false), words(tag(route.path), true));
        let same = ROUTES.iter().filter(|it| it.operation == route.operation);
        let is_only = same.map(|it| it.methods.len()).sum::<usize>() == 1;
        for method in route.methods {
            let mut operation = json!({
                "operationId": operation_id(route, method, is_only),
                "summary": route.summary,
                "tags": [tag(route.path)],
                "parameters": parameters(route, &seen.notes, &asked),
            });
            if route.is_public {
                operation["security"] = json!([]);
            }
            let body = object_schema(&seen.notes, &["body"], &asked);
            if *method != "GET" && body["properties"].as_object().is_some_and(|fields| !fields.is_empty()) {
                let is_required = body.get("required").is_some();
                let mut content = json!({"schema": body});
                let mut example = body_of(route.operation);
                if let Some(credentials) = example.pointer_mut("/provider_config/credentials") {
                    credentials["key_id"] = "<keyID>".into();
                    credentials["application_key"] = "<applicationKey>".into();
                }
                if !example.is_null() {
                    content["example"] = example;
                }
                operation["requestBody"] = json!({"required": is_required, "content": {"application/json": content}});
            }
            let mut responses = response(route, &seen, &mut records, &said);
            if !route.is_public {
                responses["default"] = json!({"$ref": "#/components/responses/Error"});
            }
            operation["responses"] = responses;
            let path = paths.entry(route.path.to_owned()).or_insert_with(|| json!({}));
            path[method.to_lowercase()] = operation;
        }
    }
    let mut schemas: Map<String, Value> = records
        .into_iter()
        .map(|(name, (tag, values))| {
            let mut schema = infer(&values.iter().collect::<Vec<_>>(), &words(tag, true));
            schema["examples"] = json!([values.first()]);
            (name.to_owned(), schema)
        })
        .collect();
    schemas.insert("Error".to_owned(), error_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "b2sync",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Watches Backblaze B2 buckets, and keeps an ordered log of every file that is created, \
                            updated or deleted. `null` in a body counts as left out, except where a PATCH clears \
                            a field.",
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"apiKey": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
            "responses": {"Error": {
                "description": "What is wrong, and what to do next.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            }},
            "schemas": schemas,
        },
    })
}

fn tag(path: &str) -> &'static str {
    match path {
        _ if path.contains("/connections") => "connections",
        _ if path.contains("/jobs") => "jobs",
        _ if path.contains("/dlq") => "dead letters",
        _ if path.contains("/objects") => "objects",
        _ if path.contains("/changes") || path.contains("/explain") => "changes",
        _ if path.contains("/syncs") => "syncs",
        _ => "service",
    }
}

fn error_schema() -> Value {
    let mut codes: Vec<&str> = ErrorKind::VARIANTS.iter().map(|kind| kind.as_str()).collect();
    codes.extend(["precondition_failed", "method_not_allowed"]);
    json!({
        "type": "object",
        "required": ["success", "status", "error"],
        "properties": {
            "success": {"const": false},
            "status": {"type": "integer", "description": "The HTTP status."},
            "error": {
                "type": "object",
                "required": ["message", "type", "code", "details"],
                "properties": {
                    "message": {"type": "string", "description": "What is wrong and what to do next."},
                    "type": {"type": "string"},
                    "code": {"type": "string", "enum": codes},
                    "details": {"type": "object", "properties": {
                        "retryable": {"type": "boolean"},
                        "advice": {"type": "string", "description": "The part of the message that says what to do."},
                        "validation_errors": {"type": "array", "items": {
                            "type": "object",
                            "required": ["type", "location", "message"],
                            "properties": {
                                "type": {"type": "string"},
                                "location": {"type": "array", "items": {"type": "string"}},
                                "message": {"type": "string"},
                            },
                        }},
                    }},
                },
            },
        },
    })
}

/// A line a path and a line a schema: few enough bytes for the bundle of the Worker, and lines that can be compared.
fn in_lines(description: &Value) -> String {
    let mut rest = description.clone();
    let mut take = |at: &str, mark: &str| {
        let map = rest.pointer_mut(at).unwrap().take();
        let line = |(name, value): (&String, &Value)| format!("{}:{value}", json!(name));
        let lines: Vec<String> = map.as_object().unwrap().iter().map(line).collect();
        (format!("\"{mark}\":null"), format!("\"{mark}\":{{\n{}\n}}", lines.join(",\n")))
    };
    let parts = [take("/paths", "paths"), take("/components/schemas", "schemas")];
    parts.iter().fold(rest.to_string(), |text, (mark, lines)| text.replacen(mark, lines, 1)) + "\n"
}

#[test]
fn the_description_is_that_of_the_code() {
    let description = describe();
    check_asset("openapi.json", &in_lines(&description));
    check_asset("docs.html", &openapi_page::page(&description));
}

#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a test writes documentation; no home does")]
fn check_asset(name: &str, now: &str) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "src/api/assets", name].iter().collect();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, now).unwrap();
    }
    let before = fs::read_to_string(&path).unwrap_or_default();
    let differs = before.lines().zip(now.lines()).find(|(before, now)| before != now);
    assert!(
        before == now,
        "{name} is not what the code says, first at {differs:?}. Run `UPDATE_DOCS=1 cargo test -p b2sync-service \
         openapi` and read what changed."
    );
}
