//! Whole requests against [`FakeB2::handle`]: what each kind of key, name and fault is answered.

use b2sync_core::http::{Method, Request, Response};
use b2sync_core::time::Timestamp;
use bytes::Bytes;

use super::faults::{Fault, Rule, Target};
use super::keys::{ApplicationKey, NewKey};
use super::media::{awkward_keys, seed_media_bucket};
use super::model::{KeyOrder, NewFile};
use super::sigv4::sign;
use super::{Config, FakeB2};

const BUCKET: &str = "my-bucket";
/// 2025-06-01T00:00:00Z
const NOW: Timestamp = Timestamp::from_millis(1_748_736_000_000);
const S3: &str = "https://s3.us-west-004.backblazeb2.com";

fn fake() -> (FakeB2, ApplicationKey) {
    let fake = FakeB2::new(Config::like_b2());
    fake.create_bucket(BUCKET).unwrap();
    let key = fake.create_key(NewKey::unrestricted()).unwrap();
    (fake, key)
}

fn request(method: Method, path: &str) -> Request {
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = method;
    *request.uri_mut() = format!("{S3}{path}").parse().unwrap();
    request
}

fn send(fake: &FakeB2, key: &ApplicationKey, mut request: Request) -> Response {
    sign(&mut request, &key.key_id, &key.secret, "us-west-004", NOW);
    fake.handle(&request, NOW).into_response().unwrap()
}

fn get(fake: &FakeB2, key: &ApplicationKey, path: &str) -> (u16, String) {
    let response = send(fake, key, request(Method::GET, path));
    (response.status().as_u16(), String::from_utf8_lossy(response.body()).into_owned())
}

/// What stands between all the pairs of a tag, in order.
fn elements<'a>(xml: &'a str, tag: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    xml.split(&open).skip(1).map(|rest| rest.split_once(&close).unwrap().0).collect()
}

#[track_caller]
fn refused(answer: (u16, String), status: u16, code: &str, message: &str) {
    assert_eq!(answer.0, status, "{}", answer.1);
    assert_eq!((elements(&answer.1, "Code"), elements(&answer.1, "Message")), (vec![code], vec![message]));
}

fn url_decoded(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_encoding::percent_decode_str(&text).decode_utf8().unwrap().into_owned()
}

#[test]
fn a_page_has_the_shape_of_the_real_one() {
    let (fake, key) = fake();
    fake.put(BUCKET, "a b/c&d.mp4", NewFile::bytes("hello"), NOW).unwrap();
    let (status, xml) = get(&fake, &key, "/my-bucket?list-type=2&encoding-type=url&prefix=a");
    assert_eq!(status, 200);
    assert_eq!(
        xml,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>my-bucket</Name>\
         <Prefix>a</Prefix><MaxKeys>1000</MaxKeys><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated>\
         <EncodingType>url</EncodingType><Contents><Key>a+b/c%26d.mp4</Key>\
         <LastModified>2025-06-01T00:00:00.000Z</LastModified>\
         <ETag>&quot;5d41402abc4b2a76b9719d911017c592&quot;</ETag><Size>5</Size>\
         <StorageClass>STANDARD</StorageClass></Contents></ListBucketResult>"
    );
}

/// Awkward names included, every page size and both orders give what the model shows.
#[test]
fn every_page_size_gives_the_same_whole() {
    for order in [KeyOrder::Utf8, KeyOrder::Utf16] {
        let fake = FakeB2::new(Config { order, ..Config::like_b2() });
        fake.create_bucket(BUCKET).unwrap();
        let key = fake.create_key(NewKey::unrestricted()).unwrap();
        seed_media_bucket(&fake, BUCKET, 150, 3).unwrap();
        let whole: Vec<String> = fake.visible(BUCKET).into_iter().map(|file| file.key).collect();
        for max_keys in [1, 2, 7, 50, 149, 150, 151, 1_000, 5_000] {
            let mut listed = Vec::new();
            let mut token = String::new();
            loop {
                let path = format!("/my-bucket/?list-type=2&encoding-type=url&max-keys={max_keys}{token}");
                let (status, xml) = get(&fake, &key, &path);
                assert_eq!(status, 200, "{xml}");
                listed.extend(elements(&xml, "Key").into_iter().map(url_decoded));
                let next = elements(&xml, "NextContinuationToken");
                assert_eq!(elements(&xml, "IsTruncated"), [(!next.is_empty()).to_string()]);
                match next.first() {
                    Some(next) => token = format!("&continuation-token={next}"),
                    None => break,
                }
            }
            assert_eq!(listed, whole, "{order:?} {max_keys}");
        }
    }
}

#[test]
fn start_after_and_delimiter() {
    let (fake, key) = fake();
    for name in ["a/1", "a/2", "b", "c/1"] {
        fake.put(BUCKET, name, NewFile::bytes(""), NOW).unwrap();
    }
    let list = |query: &str| get(&fake, &key, &format!("/my-bucket?list-type=2&{query}")).1;
    let xml = list("delimiter=%2F");
    assert_eq!(elements(&xml, "Key"), ["b"]);
    assert_eq!(elements(&xml, "Prefix"), ["", "a/", "c/"]);
    assert_eq!(elements(&list("start-after=a%2F1"), "Key"), ["a/2", "b", "c/1"]);
    assert_eq!(elements(&list("max-keys=0"), "IsTruncated"), ["false"]);
}

#[test]
fn without_encoding_a_control_character_becomes_a_reference() {
    let (fake, key) = fake();
    fake.put(BUCKET, "a\u{1}b", NewFile::bytes(""), NOW).unwrap();
    let (_, xml) = get(&fake, &key, "/my-bucket?list-type=2");
    assert_eq!(elements(&xml, "Key"), ["a&#x1;b"]);
}

#[test]
fn every_awkward_object_can_be_read_by_its_encoded_path() {
    let (fake, key) = fake();
    let names = awkward_keys();
    seed_media_bucket(&fake, BUCKET, names.len(), 3).unwrap();
    for name in names {
        let encoded = percent_encoding::utf8_percent_encode(&name, percent_encoding::NON_ALPHANUMERIC);
        let response = send(&fake, &key, request(Method::HEAD, &format!("/my-bucket/{encoded}")));
        assert_eq!(response.status(), 200, "{name:?}");
        let size =
            fake.inspect(|model| model.find(BUCKET, &name).unwrap().stored.as_ref().unwrap().file.content.size());
        assert_eq!(response.headers()["content-length"].to_str().unwrap(), size.to_string());
    }
}

#[test]
fn ranges() {
    let (fake, key) = fake();
    fake.put(BUCKET, "k", NewFile::bytes("0123456789"), NOW).unwrap();
    let ranged = |range: &str| {
        let mut request = request(Method::GET, "/my-bucket/k");
        request.headers_mut().insert("range", range.parse().unwrap());
        let response = send(&fake, &key, request);
        let range = response.headers().get("content-range").map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), range, response.into_body())
    };
    assert_eq!(ranged("bytes=2-4"), (206, Some("bytes 2-4/10".to_owned()), Bytes::from_static(b"234")));
    assert_eq!(ranged("bytes=-3"), (206, Some("bytes 7-9/10".to_owned()), Bytes::from_static(b"789")));
    assert_eq!(ranged("bytes=10-").0, 416);
}

#[test]
fn keys_are_told_what_is_wrong_with_them() {
    let (fake, key) = fake();
    let list = "/my-bucket?list-type=2";
    let other = |change: fn(&mut ApplicationKey)| {
        let mut key = key.clone();
        change(&mut key);
        get(&fake, &key, list)
    };
    let invalid = "InvalidAccessKeyId";
    let unknown = other(|key| key.key_id = "004b2f4ce0000019999999999".to_owned());
    refused(unknown, 403, invalid, "The key '004b2f4ce0000019999999999' is not valid");
    refused(other(|key| key.key_id = "nonsense".to_owned()), 403, invalid, "Malformed Access Key Id");
    refused(get(&fake, &fake.create_master_key(), list), 403, invalid, "Malformed Access Key Id");
    let wrong = other(|key| key.secret.push('x'));
    refused(wrong, 403, "SignatureDoesNotMatch", "Signature validation failed");
    let expired = fake.create_key(NewKey::unrestricted().expiring_at(NOW)).unwrap();
    let message = format!("The key '{}' is not valid", expired.key_id);
    refused(get(&fake, &expired, list), 403, invalid, &message);
    fake.delete_application_key(&key.key_id).unwrap();
    let message = format!("The key '{}' is not valid", key.key_id);
    refused(get(&fake, &key, list), 403, invalid, &message);
}

#[test]
fn restrictions_are_enforced() {
    let (fake, key) = fake();
    fake.create_bucket("other-bucket").unwrap();
    for name in ["in/a", "out/a"] {
        fake.put(BUCKET, name, NewFile::bytes("x"), NOW).unwrap();
    }
    let list = "/my-bucket?list-type=2";
    let make = |new: NewKey| fake.create_key(new).unwrap();
    let denied = |key: &ApplicationKey, path| refused(get(&fake, key, path), 403, "AccessDenied", "not entitled");
    let allowed = |key: &ApplicationKey, path| assert_eq!(get(&fake, key, path).0, 200);

    let no_list = make(NewKey::unrestricted().with_capabilities(&["readFiles"]));
    denied(&no_list, list);
    allowed(&no_list, "/my-bucket/in/a");
    let no_read = make(NewKey::unrestricted().with_capabilities(&["listFiles"]));
    allowed(&no_read, list);
    denied(&no_read, "/my-bucket/in/a");
    let one_bucket = make(NewKey::unrestricted().for_buckets(&[BUCKET]));
    allowed(&one_bucket, list);
    denied(&one_bucket, "/other-bucket?list-type=2");
    denied(&one_bucket, "/no-such-bucket?list-type=2");
    let one_prefix = make(NewKey::unrestricted().for_prefix("in/"));
    denied(&one_prefix, list);
    denied(&one_prefix, "/my-bucket?list-type=2&prefix=in");
    allowed(&one_prefix, "/my-bucket?list-type=2&prefix=in%2F");
    allowed(&one_prefix, "/my-bucket/in/a");
    denied(&one_prefix, "/my-bucket/out/a");

    let head = |key: &ApplicationKey| send(&fake, key, request(Method::HEAD, "/my-bucket")).status().as_u16();
    assert_eq!((head(&key), head(&one_bucket)), (200, 403));
}

#[test]
fn what_is_missing_or_not_understood() {
    let (fake, key) = fake();
    fake.put(BUCKET, "hidden", NewFile::bytes("x"), NOW).unwrap();
    fake.hide(BUCKET, "hidden", NOW).unwrap();
    let message = "The specified bucket does not exist: My-Bucket";
    refused(get(&fake, &key, "/My-Bucket?list-type=2"), 404, "NoSuchBucket", message);
    refused(get(&fake, &key, "/my-bucket/hidden"), 404, "NoSuchKey", "Key not found");
    let message = "The continuation token provided is incorrect";
    let bad_token = "/my-bucket?list-type=2&continuation-token=a%2F1";
    refused(get(&fake, &key, bad_token), 400, "InvalidArgument", message);
    assert_eq!(get(&fake, &key, "/my-bucket/%FF").0, 400);
    assert_eq!(get(&fake, &key, "/my-bucket").0, 501);
    assert_eq!(get(&fake, &key, "/").0, 501);
    assert_eq!(send(&fake, &key, request(Method::PUT, "/my-bucket/k")).status(), 501);
    for name in ["x-amz-checksum-mode", "x-amz-checksum-crc32", "x-amz-sdk-checksum-algorithm"] {
        let mut request = request(Method::GET, "/my-bucket/k");
        request.headers_mut().insert(name, "CRC32".parse().unwrap());
        let response = send(&fake, &key, request);
        let body = String::from_utf8(response.body().to_vec()).unwrap();
        assert_eq!(response.status(), 400);
        assert!(body.contains("InvalidArgument") && body.contains("Unsupported header"), "{body}");
    }
}

#[test]
fn faults_of_the_answer() {
    let (fake, key) = fake();
    fake.put(BUCKET, "k", NewFile::bytes("x"), NOW).unwrap();
    let list = "/my-bucket?list-type=2";
    let strike = |fault: Fault| {
        fake.inject(Rule::next(Target::List, fault));
        get(&fake, &key, list)
    };
    refused(strike(Fault::status(503)), 503, "SlowDown", "Please reduce your request rate.");
    assert_eq!(strike(Fault::status(429)).0, 429);
    let cap = Fault::Status {
        status: 403,
        retry_after_s: None,
        code: Some("AccessDenied".to_owned()),
        message: Some("Transaction cap exceeded".to_owned()),
    };
    refused(strike(cap), 403, "AccessDenied", "Transaction cap exceeded");
    let (status, cut) = strike(Fault::Truncated);
    assert!(status == 200 && cut.starts_with("<?xml") && !cut.ends_with("</ListBucketResult>"), "{cut}");
    assert!(strike(Fault::Garbage).1.starts_with("<<<"));
    assert_eq!(elements(&strike(Fault::EmptyListing).1, "KeyCount"), ["0"]);
    let (_, xml) = strike(Fault::NoToken);
    assert_eq!((elements(&xml, "IsTruncated"), elements(&xml, "NextContinuationToken").len()), (vec!["true"], 0));
    let (_, xml) = strike(Fault::SameToken);
    let token = elements(&xml, "NextContinuationToken")[0];
    assert_eq!(elements(&get(&fake, &key, &format!("{list}&continuation-token={token}")).1, "Key"), ["k"]);

    (0..9).for_each(|n| drop(fake.put(BUCKET, &format!("l{n}"), NewFile::bytes("xyz"), NOW).unwrap()));
    let (_, xml) = strike(Fault::UnreadableEntries { keys: Vec::new() });
    let sizes = ["1", "abc3", "3", "-3", "3", "92233720368547758083", "3", "3", "3", "abc3"];
    assert_eq!((elements(&xml, "Size"), elements(&xml, "LastModified").len()), (sizes.to_vec(), 9));
    let (_, xml) = strike(Fault::UnreadableEntries { keys: vec!["k".to_owned()] });
    assert_eq!(elements(&xml, "Size")[..3], ["abc1", "3", "3"]);

    fake.inject(Rule::next(Target::Any, Fault::slow_down(7)));
    let response = fake.handle(&request(Method::GET, "/b2api/v4/b2_authorize_account"), NOW).into_response().unwrap();
    assert_eq!(response.headers()["retry-after"], "7");
    let json: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(json["message"], "no tomes available");
}

#[test]
fn requests_are_counted_and_logged_without_secrets() {
    let (fake, key) = fake();
    fake.put(BUCKET, "k", NewFile::bytes("x"), NOW).unwrap();
    get(&fake, &key, "/my-bucket?list-type=2&X-Amz-Signature=secret");
    get(&fake, &key, "/my-bucket/k");
    send(&fake, &key, request(Method::HEAD, "/my-bucket/none"));
    fake.inject(Rule::next(Target::Authorize, Fault::Hang));
    fake.handle(&request(Method::GET, "/b2api/v4/b2_authorize_account"), NOW);
    let counts = fake.counts();
    assert_eq!((counts.list, counts.get, counts.head, counts.authorize), (1, 1, 1, 1));
    assert_eq!((counts.class_a, counts.class_b, counts.class_c), (0, 2, 2));
    let log: Vec<_> =
        fake.log().into_iter().map(|entry| (entry.path, entry.query, entry.status, entry.fault)).collect();
    assert_eq!(log[0], ("/my-bucket".to_owned(), "list-type=2".to_owned(), Some(200), None));
    assert_eq!(log[2].2, Some(404));
    assert_eq!((log[3].2, log[3].3), (None, Some("hang")));
    fake.reset_counts();
    assert_eq!((fake.counts().total(), fake.log().len()), (0, 0));
}
