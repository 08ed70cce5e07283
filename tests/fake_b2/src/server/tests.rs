//! The embedded B2 over real sockets, by a client that reads raw bytes: nothing between the test and the wire.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use b2sync_core::http::{Method, Request};
use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::faults::{Fault, Rule, Target};
use crate::keys::{ApplicationKey, NewKey};
use crate::model::NewFile;
use crate::sigv4::sign;

const BUCKET: &str = "my-bucket";

fn server() -> (FakeB2Server, ApplicationKey) {
    let server = FakeB2Server::start(Config::default()).unwrap();
    server.model().create_bucket(BUCKET).unwrap();
    let key = server.model().create_key(NewKey::unrestricted()).unwrap();
    (server, key)
}

/// A signed request as its bytes.
fn bytes_of(server: &FakeB2Server, key: &ApplicationKey, method: Method, path: &str) -> Vec<u8> {
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = method;
    *request.uri_mut() = format!("{}{path}", server.url()).parse().unwrap();
    sign(&mut request, &key.key_id, &key.secret, "us-east-1", server.clock().now());
    let mut bytes = format!("{} {path} HTTP/1.1\r\n", request.method()).into_bytes();
    for (name, value) in request.headers() {
        bytes.extend(format!("{name}: {}\r\n", value.to_str().unwrap()).into_bytes());
    }
    bytes.extend(b"\r\n");
    bytes
}

fn connect(server: &FakeB2Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// The head of an answer and what followed it, up to the declared length or the end of the connection.
fn read_answer(stream: &mut TcpStream, has_body: bool) -> (String, Vec<u8>) {
    let mut received = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(received[..end].to_vec()).unwrap().to_lowercase();
            let body = received[end + 4..].to_vec();
            if body.len() >= if has_body { declared_length(&head) } else { 0 } {
                return (head, body);
            }
        }
        let count = stream.read(&mut buffer).unwrap_or(0);
        if count == 0 {
            let end = received.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |end| end + 4);
            return (String::from_utf8_lossy(&received[..end]).to_lowercase(), received[end..].to_vec());
        }
        received.extend(&buffer[..count]);
    }
}

fn declared_length(head: &str) -> usize {
    head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap()
}

fn exchange(server: &FakeB2Server, key: &ApplicationKey, method: Method, path: &str) -> (String, Vec<u8>) {
    let mut stream = connect(server);
    stream.write_all(&bytes_of(server, key, method.clone(), path)).unwrap();
    read_answer(&mut stream, method != Method::HEAD)
}

fn admin(server: &FakeB2Server, method: &str, call: &str, body: &Value) -> (u16, Value) {
    let body = if method == "GET" { String::new() } else { body.to_string() };
    let mut stream = connect(server);
    write!(stream, "{method} /_admin/{call} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .unwrap();
    let (head, body) = read_answer(&mut stream, true);
    (head["http/1.1 ".len()..][..3].parse().unwrap(), serde_json::from_slice(&body).unwrap())
}

#[test]
fn an_object_travels_whole() {
    let (server, key) = server();
    let file = NewFile::bytes("hello").with_content_type("text/plain").with_info("Mtime", "17");
    server.model().put(BUCKET, "a b+c%2F/é.txt", file, server.clock().now()).unwrap();
    let path = "/my-bucket/a%20b%2Bc%252F/%C3%A9.txt";
    let (head, body) = exchange(&server, &key, Method::GET, path);
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("x-amz-meta-mtime: 17") && head.contains("content-type: text/plain"), "{head}");
    assert_eq!(body, b"hello");
    let (head, body) = exchange(&server, &key, Method::HEAD, path);
    assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 5"), "{head}");
    assert_eq!(body, b"");
    let (head, body) = exchange(&server, &key, Method::HEAD, "/my-bucket/nothing");
    assert!(head.starts_with("http/1.1 404"), "{head}");
    assert_eq!(body, b"");
}

#[test]
fn a_cut_body_ends_before_its_declared_length() {
    let (server, key) = server();
    for after_bytes in [0, 100] {
        server.model().inject(Rule::next(Target::List, Fault::CutBody { after_bytes }));
        let (head, body) = exchange(&server, &key, Method::GET, "/my-bucket?list-type=2");
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert_eq!(body.len(), after_bytes);
        assert!(declared_length(&head) > 100);
    }
}

#[test]
fn a_reset_connection_answers_nothing() {
    let (server, key) = server();
    server.model().inject(Rule::next(Target::List, Fault::Reset));
    let (head, body) = exchange(&server, &key, Method::GET, "/my-bucket?list-type=2");
    assert_eq!((head.as_str(), body.as_slice()), ("", &b""[..]));
}

#[test]
fn a_hanging_request_stays_silent_until_the_server_stops() {
    let (server, key) = server();
    server.model().inject(Rule::next(Target::List, Fault::Hang));
    let mut stream = connect(&server);
    stream.write_all(&bytes_of(&server, &key, Method::GET, "/my-bucket?list-type=2")).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let silence = stream.read(&mut [0; 1]).unwrap_err();
    assert!(matches!(silence.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silence}");
    drop(server);
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
}

#[test]
fn a_delayed_answer_is_right() {
    let (server, key) = server();
    server.model().inject(Rule::next(Target::List, Fault::Delay { millis: 60 }));
    let start = Instant::now();
    let (head, _) = exchange(&server, &key, Method::GET, "/my-bucket?list-type=2");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(start.elapsed() >= Duration::from_millis(60));
}

#[test]
fn the_clock_may_be_moved() {
    let (server, key) = server();
    let request = bytes_of(&server, &key, Method::GET, "/my-bucket?list-type=2");
    let (status, _) = admin(&server, "POST", "clock", &json!({"advance_ms": 3_600_000}));
    assert_eq!(status, 200);
    let mut stream = connect(&server);
    stream.write_all(&request).unwrap();
    let (head, body) = read_answer(&mut stream, true);
    assert!(head.starts_with("http/1.1 403"), "{head}");
    assert!(String::from_utf8(body).unwrap().contains("RequestTimeTooSkewed"));
}

#[test]
fn the_back_door_does_all_that_a_test_needs() {
    let (server, _) = server();
    let post = |call: &str, body: Value| {
        let (status, answer) = admin(&server, "POST", call, &body);
        assert_eq!(status, 200, "{call}: {answer}");
        answer
    };
    let files = |bucket: &str| admin(&server, "GET", &format!("files?bucket={bucket}"), &json!({})).1["files"].clone();
    post("buckets", json!({"name": "Bucket-2"}));
    let put = json!({"bucket": "Bucket-2", "key": "a", "content": "hi", "at": "2024-01-01T00:00:00Z"});
    let old = post("files", put);
    assert_eq!(old["last_modified_ms"], json!(1_704_067_200_000_i64));
    let new = post("files", json!({"bucket": "Bucket-2", "key": "a", "content_base64": "AAEC"}));
    assert_eq!(files("Bucket-2")[0]["etag"], new["etag"]);
    post("files/hide", json!({"bucket": "Bucket-2", "key": "a"}));
    assert_eq!(files("Bucket-2"), json!([]));
    post("files/delete", json!({"bucket": "Bucket-2", "key": "a"}));
    let start = json!({"bucket": "Bucket-2", "key": "big", "content_type": "video/mp4", "at": 1_000});
    let upload = post("large/start", start);
    assert_eq!(files("Bucket-2"), json!([]));
    post("large/finish", json!({"bucket": "Bucket-2", "upload_id": upload["upload_id"], "size": 5_000_000_000_u64}));
    let big = &files("Bucket-2")[0];
    assert_eq!((&big["last_modified_ms"], &big["size"]), (&json!(1_000), &json!(5_000_000_000_u64)));
    post("buckets/seed", json!({"bucket": "Bucket-2", "count": 30, "seed": 1}));
    assert_eq!(files("Bucket-2").as_array().unwrap().len(), 31);
    let old = post("files", json!({"bucket": "Bucket-2", "key": "zz", "size": 10, "seed": 4}));
    post("versions/delete", json!({"bucket": "Bucket-2", "key": "zz", "version_id": old["version_id"]}));

    let made = post("keys", json!({"buckets": ["Bucket-2"], "name_prefix": "a/"}));
    let key_id = made["key_id"].as_str().unwrap();
    let secret = made["application_key"].as_str().unwrap();
    assert_eq!(server.model().inspect(|model| model.application_key(key_id).unwrap().secret.clone()), secret);
    post("keys/delete", json!({"key_id": key_id}));

    post("faults", json!({"rules": [{"target": "list", "times": 9, "fault": {"kind": "hang"}}]}));
    post("faults/clear", json!({}));
    let (key, secret) = ("x".to_owned(), "y".to_owned());
    let key = server.model().create_key(NewKey { key_id: Some(key), secret: Some(secret), ..NewKey::unrestricted() });
    exchange(&server, &key.unwrap(), Method::GET, "/Bucket-2?list-type=2");
    assert_eq!(admin(&server, "GET", "counts", &json!({})).1["list"], json!(1));
    let log = admin(&server, "GET", "log", &json!({})).1;
    assert_eq!(log["requests"][0]["path"], json!("/Bucket-2"));
    post("counts/reset", json!({}));
    assert_eq!(admin(&server, "GET", "counts", &json!({})).1["class_c"], json!(0));
    post("buckets/delete", json!({"name": "Bucket-2"}));
    let (status, answer) = admin(&server, "POST", "files", &json!({"bucket": "Bucket-2", "key": "a"}));
    assert_eq!((status, answer), (400, json!({"error": "there is no bucket \"Bucket-2\""})));
}
