//! What holds for every route alike: headers, entity tags, how JSON is written, who may call from a browser.

use super::*;
use crate::api::routes::ROUTES;

fn header<'a>(response: &'a ApiResponse, name: &str) -> Option<&'a str> {
    response.headers.iter().find(|(it, _)| *it == name).map(|(_, value)| value.as_str())
}

fn to(method: &str, path: &str, body: Value) -> ApiRequest {
    ApiRequest {
        method: method.into(),
        path: path.into(),
        authorization: Some(format!("Bearer {API_KEY}")),
        body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
        ..ApiRequest::default()
    }
}

#[track_caller]
fn json_of(response: &ApiResponse, status: u16) -> Value {
    let json: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(response.status, status, "{json}");
    json
}

#[test]
fn a_change_with_if_match_needs_the_record_as_it_was_read() {
    let home = Home::new();
    let sync = home.sync();
    for (path, body) in
        [(format!("{CONNECTIONS}/A"), json!({"description": "one"})), (sync.clone(), json!({"description": "one"}))]
    {
        let read = home.request(to("GET", &path, Value::Null));
        let etag = header(&read, "etag").unwrap().to_owned();
        assert_eq!(json_of(&read, 200)["etag"], etag.trim_matches('"'));
        let change = |etag: &str| {
            home.request(ApiRequest { if_match: Some(etag.to_owned()), ..to("PATCH", &path, body.clone()) })
        };
        let changed = change(&etag);
        let new = header(&changed, "etag").unwrap().to_owned();
        assert_ne!(new, etag, "{}", json_of(&changed, 200));
        let refused = json_of(&change(&etag), 412);
        assert_eq!(refused["error"]["code"], "precondition_failed");
        assert_eq!(refused["error"]["details"]["etag"], new.trim_matches('"'));
        for allowed in [new.as_str(), "*", "\"x\", *"].iter().take(2) {
            // What changes nothing has the same tag.
            assert_eq!(header(&change(allowed), "etag"), Some(new.as_str()));
        }
        let delete = |etag: &str| {
            home.request(ApiRequest { if_match: Some(etag.to_owned()), ..to("DELETE", &path, Value::Null) })
        };
        json_of(&delete(&etag), 412);
        home.ok("GET", &path, Value::Null);
        if path == sync {
            json_of(&delete(&new), 200);
        }
    }
}

#[test]
fn pause_and_resume_heed_if_match_and_what_cannot_refuses_it() {
    let home = Home::new();
    let sync = home.sync();
    let etag = home.ok("GET", &sync, Value::Null)["etag"].as_str().unwrap().to_owned();
    let send = |path: String, etag: &str| {
        home.request(ApiRequest { if_match: Some(etag.to_owned()), ..to("POST", &path, Value::Null) })
    };
    let paused = json_of(&send(format!("{sync}/pause"), &etag), 200);
    json_of(&send(format!("{sync}/resume"), &etag), 412);
    json_of(&send(format!("{sync}/resume"), paused["etag"].as_str().unwrap()), 200);
    for path in [format!("{sync}/trigger"), format!("{sync}/unlock"), SYNCS.to_owned()] {
        let refused = json_of(&send(path.clone(), &etag), 422);
        assert!(refused.to_string().contains("If-Match is for calls"), "{path}: {refused}");
    }
}

#[test]
fn jobs_leave_the_tag_of_a_connection_as_it_is() {
    let home = Home::new();
    home.connection("A");
    let read = || home.ok("GET", &format!("{CONNECTIONS}/A"), Value::Null);
    let before = read();
    let id = before["connection_id"].as_str().unwrap();
    let mut record = block_on(home.registry.connection(id)).unwrap().unwrap();
    let revision = record.revision;
    record.note_success(Timestamp::from_millis(NOW + 5));
    record.authorized_at = Some(Timestamp::from_millis(NOW + 5));
    block_on(home.registry.update_connection(record, revision)).unwrap();
    assert_eq!(read()["etag"], before["etag"]);
    home.ok("PATCH", &format!("{CONNECTIONS}/A"), json!({"status": "SUSPENDED"}));
    assert_ne!(read()["etag"], before["etag"]);
}

#[test]
fn people_get_json_in_lines_and_programs_in_one() {
    let home = Home::new();
    let sync = home.sync();
    let read = |accept: Option<&str>| {
        let accept = accept.map(str::to_owned);
        home.request(ApiRequest { accept, ..to("GET", &sync, Value::Null) }).body
    };
    let programs = read(Some("application/json"));
    assert!(!programs.contains(&b'\n'));
    assert_eq!(read(None), programs);
    for accept in ["*/*", "text/html,application/xhtml+xml,*/*;q=0.8"] {
        let people = String::from_utf8(read(Some(accept))).unwrap();
        assert!(people.starts_with("{\n  \"sync_config_id\": \"sync_"), "{people}");
        assert!(people.ends_with("}\n"));
        let (lines, line): (Value, Value) =
            (serde_json::from_str(&people).unwrap(), serde_json::from_slice(&programs).unwrap());
        assert_eq!(lines, line);
    }
    // Errors too.
    let accept = Some("*/*".to_owned());
    let missing = home.request(ApiRequest { accept, ..to("GET", "/v1/none", Value::Null) });
    assert!(missing.body.starts_with(b"{\n  \"success\": false,\n"));
}

#[test]
fn ids_come_before_the_rest() {
    let home = Home::new();
    *home.jobs.borrow_mut() = vec![job("job_1", NOW, JobStatus::Completed)];
    let sync = home.sync();
    fill(&home, sync.rsplit('/').next().unwrap());
    for (path, first) in [
        (format!("{CONNECTIONS}/A"), "connection_id"),
        (sync.clone(), "sync_config_id"),
        (format!("{sync}/jobs/job_1"), "sync_job_id"),
        (OBJECTS.to_owned(), "results"),
    ] {
        let record = home.ok("GET", &path, Value::Null);
        assert_eq!(record.as_object().unwrap().keys().next().unwrap(), first, "{path}");
    }
    let objects = home.ok("GET", OBJECTS, Value::Null);
    assert_eq!(objects["results"][0].as_object().unwrap().keys().next().unwrap(), "object_id");
}

#[test]
fn every_answer_tells_browsers_to_be_careful() {
    let home = Home::new();
    for route in &ROUTES {
        let method = route.methods.first().unwrap();
        for authorization in [None, Some(format!("Bearer {API_KEY}"))] {
            let response = home.request(ApiRequest { authorization, ..to(method, route.path, Value::Null) });
            assert_eq!(header(&response, "cache-control"), Some("no-store"), "{method} {}", route.path);
            if !response.body.is_empty() {
                let wanted = if route.path == "/docs" { "text/html; charset=utf-8" } else { "application/json" };
                assert_eq!(header(&response, "content-type"), Some(wanted));
                assert_eq!(header(&response, "x-content-type-options"), Some("nosniff"));
                assert_eq!(header(&response, "referrer-policy"), Some("no-referrer"));
                assert!(header(&response, "content-security-policy").unwrap().starts_with("default-src 'none'"));
            }
        }
    }
}

#[test]
fn browsers_may_call_only_from_pages_that_the_deployment_names() {
    const PAGE: &str = "https://app.example.com";
    let asks = |home: &Home, method: &str, origin: &str| {
        let origin = Some(origin.to_owned());
        home.request(ApiRequest { origin, authorization: None, ..to(method, "/healthz", Value::Null) })
    };
    let mut home = Home::new();
    for method in ["OPTIONS", "GET"] {
        let response = asks(&home, method, PAGE);
        assert!(response.headers.iter().all(|(name, _)| !name.starts_with("access-control") && *name != "vary"));
        assert_eq!(response.status, if method == "GET" { 200 } else { 405 });
    }
    home.cors = Cors::parse(PAGE).unwrap();
    let preflight = asks(&home, "OPTIONS", PAGE);
    assert_eq!((preflight.status, header(&preflight, "access-control-allow-origin")), (204, Some(PAGE)));
    assert!(header(&preflight, "access-control-allow-headers").unwrap().contains("if-match"));
    let answer = asks(&home, "GET", PAGE);
    assert_eq!(header(&answer, "access-control-allow-origin"), Some(PAGE));
    assert_eq!(header(&answer, "vary"), Some("Origin"));
    let other = asks(&home, "OPTIONS", "https://evil.example.com");
    assert_eq!((other.status, header(&other, "access-control-allow-origin")), (405, None));
    assert_eq!(header(&asks(&home, "GET", "https://evil.example.com"), "access-control-allow-origin"), None);
    home.cors = Cors::Any;
    assert_eq!(header(&asks(&home, "GET", "null"), "access-control-allow-origin"), Some("*"));
    // A page that may call needs the API key all the same.
    let origin = Some(PAGE.to_owned());
    let response = home.request(ApiRequest { origin, authorization: None, ..to("GET", SYNCS, Value::Null) });
    assert_eq!((response.status, header(&response, "access-control-allow-origin")), (401, Some("*")));
}
