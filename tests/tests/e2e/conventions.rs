//! What the Worker makes of HTTP: `HEAD`, entity tags, JSON in lines for people.

use b2sync_tests::service::{Service, ServiceConfig};

use crate::{BUCKET, Outcome};

#[test]
fn head_and_tags_and_lines_come_through_the_runtime() -> Outcome {
    let mut service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    let path = service.connect("conventions", BUCKET)?.sync.path();
    let bearer = format!("Bearer {}", service.api_key());
    let workerd = service.workerd();
    let send = |method: &str, more: &[(&str, &str)], body: &[u8]| {
        let headers = [&[("authorization", bearer.as_str())], more].concat();
        workerd.send(method, &path, &headers, body)
    };
    let read = send("GET", &[("accept", "application/json")], b"")?;
    let etag = read.headers.get("etag").ok_or("there is no etag")?.clone();
    assert!(etag.starts_with('"') && read.text().contains(etag.trim_matches('"')), "{etag}: {}", read.text());
    assert_eq!(read.headers.get("x-content-type-options").map(String::as_str), Some("nosniff"));

    let head = send("HEAD", &[], b"")?;
    assert_eq!((head.status, head.body.len(), head.headers.get("etag")), (200, 0, Some(&etag)));

    for method in ["QUERY", "PROPFIND", "PUT"] {
        let answer = send(method, &[], b"")?;
        let allow = answer.headers.get("allow").map(String::as_str);
        assert_eq!((answer.status, allow), (405, Some("DELETE, GET, HEAD, PATCH")), "{method}: {}", answer.text());
    }

    let lines = send("GET", &[("accept", "*/*")], b"")?;
    assert!(lines.text().starts_with("{\n  \"sync_config_id\": "), "{}", lines.text());

    let change = |etag: &str| send("PATCH", &[("if-match", etag)], br#"{"description": "Changed"}"#);
    assert_eq!(change(&etag)?.status, 200);
    let refused = change(&etag)?;
    assert_eq!(refused.status, 412, "{}", refused.text());
    Ok(())
}
