//! What a user can get wrong ends in a documented status, and in a message that tells what to do.

use b2sync_tests::service::{
    CONNECTIONS, Connected, Service, ServiceConfig, SyncRef, changes, connection_body, number, text,
};
use fake_b2::faults::{Fault, Rule, Target};
use fake_b2::keys::{ApplicationKey, NewKey};
use fake_b2::media::seed_plain_bucket;
use serde_json::{Value, json};

use crate::{BUCKET, Outcome, SOON, all};

/// Whether an answer is an error of that status and code, in the envelope that clients know, whose message has all of
/// these words.
fn check_refusal(name: &str, (status, answer): (u16, Value), expected: (u16, &str), words: &[&str]) -> Outcome {
    let error = &answer["error"];
    if (status, error["code"].as_str()) != (expected.0, Some(expected.1)) {
        return Err(format!("{name}: expected {expected:?}, got {status} {answer}").into());
    }
    assert_eq!((&answer["success"], &answer["status"]), (&json!(false), &json!(status)), "{name}: {answer}");
    assert!(error["type"].is_string(), "{name}: {answer}");
    check_words(name, error["message"].as_str(), words)
}

fn check_words(name: &str, message: Option<&str>, words: &[&str]) -> Outcome {
    let message = message.ok_or_else(|| format!("{name}: there is no message"))?;
    for word in words {
        if !message.contains(word) {
            return Err(format!("{name}: there is no {word:?} in {message:?}").into());
        }
    }
    Ok(())
}

fn connect(service: &Service, name: &str, key: &ApplicationKey) -> Result<String, Box<dyn std::error::Error>> {
    Ok(text(&service.create_connection(name, &key.key_id, &key.secret)?, "connection_id")?)
}

fn ask_for_sync(
    service: &Service,
    connection_id: &str,
    body: &Value,
) -> Result<(u16, Value), Box<dyn std::error::Error>> {
    let mut body = body.clone();
    body["connection_id"] = json!(connection_id);
    Ok(service.ask("POST", "/v1/buckets/bkt_refusals/syncs", Some(&body))?)
}

/// Connection, source path, status and code, words.
type Row = (&'static str, &'static str, (u16, &'static str), &'static [&'static str]);

#[test]
fn what_is_wrong_from_the_start_is_refused_at_once() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    let fake = service.fake();
    for bucket in [BUCKET, "Other-Media"] {
        fake.create_bucket(bucket)?;
        seed_plain_bucket(fake, bucket, 10, 1)?;
    }
    let right = fake.create_key(NewKey::unrestricted())?;

    // Of the key itself: the connection is refused.
    let expired_at = service.b2().clock().now().plus_millis(-1_000);
    let expired = fake.create_key(NewKey::unrestricted().expiring_at(expired_at))?;
    let deleted = fake.create_key(NewKey::unrestricted())?;
    fake.delete_application_key(&deleted.key_id)?;
    let incorrect = ["key id or the application key is incorrect", "App Keys", "create a new key"];
    let no_list = fake.create_key(NewKey::unrestricted().with_capabilities(&["listBuckets", "readFiles"]))?;
    let rights = ["listFiles", "Create a new key with List Files and Read Files", "use it in place of this one"];
    for (name, key_id, secret, code, words) in [
        ("wrong key id", "005870eff85b6c60000000001", right.secret.as_str(), "bad_credentials", &incorrect[..]),
        ("wrong key", &right.key_id, "K005wrongwrongwrongwrongwrongwr", "bad_credentials", &incorrect[..]),
        ("deleted key", &deleted.key_id, &deleted.secret, "bad_credentials", &incorrect[..]),
        ("expired key", &expired.key_id, &expired.secret, "key_expired", &["expired", "create a new key"][..]),
        ("no listFiles", &no_list.key_id, &no_list.secret, "capability_missing", &rights[..]),
    ] {
        let answer = service.ask("POST", CONNECTIONS, Some(&connection_body(name, key_id, secret)))?;
        check_refusal(name, answer, (400, code), words)?;
    }
    let listed = service.call("POST", &format!("{CONNECTIONS}/list"), None)?;
    assert_eq!(listed["total"], 0, "nothing of that was kept: {listed}");

    // Of the key and the source path together: the sync is refused.
    let keys = [
        ("unrestricted", right),
        ("other bucket", fake.create_key(NewKey::unrestricted().for_buckets(&["Other-Media"]))?),
        ("prefix", fake.create_key(NewKey::unrestricted().for_prefix("videos/"))?),
    ];
    let mut connections = std::collections::BTreeMap::new();
    for (name, key) in &keys {
        connections.insert(*name, connect(&service, name, key)?);
    }
    let table: [Row; 6] = [
        ("unrestricted", "b2://no-such-bucket/", (400, "bucket_not_found"), &["\"no-such-bucket\"", "case-sensitive"]),
        ("unrestricted", "b2://Test-Media/", (400, "bucket_not_found"), &["\"Test-Media\"", "case-sensitive"]),
        (
            "other bucket",
            "b2://test-media/",
            (400, "bucket_not_allowed"),
            &["may read only bucket \"Other-Media\"", "\"test-media\"", "create a key"],
        ),
        (
            "other bucket",
            "b2://other-media/",
            (400, "bucket_not_allowed"),
            &["case-sensitive", "write \"Other-Media\" in the source path"],
        ),
        ("prefix", "b2://test-media/", (400, "prefix_not_allowed"), &["videos/", "b2://test-media/videos/"]),
        ("unrestricted", "gs://test-media/", (422, "invalid_input"), &["gs://test-media/", "b2://"]),
    ];
    for (connection, source_path, expected, words) in table {
        let answer = ask_for_sync(&service, &connections[connection], &json!({ "source_path": source_path }))?;
        if expected.0 == 422 {
            // Whatever is wrong with the body itself is told field by field.
            assert_eq!(answer.0, 422, "{}", answer.1);
            let problem = answer.1["error"]["details"]["validation_errors"][0].clone();
            assert_eq!(problem["location"], json!(["body", "source_path"]), "{}", answer.1);
            check_words(source_path, problem["message"].as_str(), words)?;
        } else {
            check_refusal(source_path, answer, expected, words)?;
        }
    }
    let listed = service.call("POST", "/v1/buckets/bkt_refusals/syncs/list", None)?;
    assert_eq!(listed["total"], 0, "nothing of that was kept: {listed}");

    // A key that may do too little also fails the test of its connection.
    let mut untested = connection_body("untested", &no_list.key_id, &no_list.secret);
    untested["test_before_save"] = json!(false);
    let untested = text(&service.call("POST", CONNECTIONS, Some(&untested))?, "connection_id")?;
    let tested = service.call("POST", &format!("{CONNECTIONS}/{untested}/test"), None)?;
    assert_eq!(tested["success"], false, "{tested}");
    check_words("test", tested["message"].as_str(), &["listFiles", "Create a new key"])?;
    let tested = service.call("POST", &format!("{CONNECTIONS}/{}/test", connections["unrestricted"]), None)?;
    assert_eq!(tested["success"], true, "{tested}");
    Ok(())
}

#[test]
fn a_job_that_finds_nothing_says_why() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    seed_plain_bucket(service.fake(), BUCKET, 10, 1)?;
    let key = service.fake().create_key(NewKey::unrestricted())?;
    let connection_id = connect(&service, "nothing", &key)?;
    let run = |body: Value| -> Result<Value, Box<dyn std::error::Error>> {
        let (status, answer) = ask_for_sync(&service, &connection_id, &body)?;
        assert_eq!(status, 200, "{answer}");
        Ok(service.run_job(&SyncRef::of(&answer)?, SOON)?)
    };
    let job = run(json!({ "source_path": BUCKET, "include_patterns": ["*.mp4"] }))?;
    assert_eq!((&job["status"], changes(&job)), (&json!("completed"), (0, 0, 0)), "{job}");
    let warning = |job: &Value, index: usize| -> String {
        let warning = &job["warnings"][index];
        [&warning["code"], &warning["message"], &warning["advice"]]
            .map(|text| text.as_str().unwrap_or_default())
            .join(" ")
    };
    let words = ["nothing_matched", "None of the 10 files", "include_patterns", "case counts"];
    check_words("patterns", Some(&warning(&job, 0)), &words)?;
    check_words("patterns", Some(&warning(&job, 1)), &["pattern_unmatched", "*.mp4", "case counts"])?;
    let job = run(json!({ "source_path": format!("b2://{BUCKET}/Item/") }))?;
    assert_eq!((&job["status"], changes(&job)), (&json!("completed"), (0, 0, 0)), "{job}");
    check_words("prefix", Some(&warning(&job, 0)), &["no_files", "no files below", "Item/", "case counts"])?;
    Ok(())
}

/// Makes something wrong after the first sync: the job ends as documented, and nothing that was delivered is lost.
fn fails_later(
    service: &Service,
    it: &Connected,
    expected: (&str, &[&str]),
    break_it: impl FnOnce() -> Outcome,
) -> Outcome {
    assert_eq!(service.run_job(&it.sync, SOON)?["status"], "completed");
    let delivered = service.list_objects(&it.sync.bucket)?;
    break_it()?;
    let job = service.run_job(&it.sync, SOON)?;
    assert_eq!((&job["status"], &job["error_code"]), (&json!("failed"), &json!(expected.0)), "{job}");
    check_words(expected.0, job["error"].as_str(), expected.1)?;
    assert_eq!(service.list_objects(&it.sync.bucket)?, delivered, "{} loses nothing", expected.0);
    let state = service.sync(&it.sync)?;
    assert_eq!((&state["status"], number(&state, "/consecutive_failures")), (&json!("FAILED"), 1), "{state}");
    check_words(expected.0, state["last_error"].as_str(), expected.1)
}

#[test]
fn what_goes_wrong_later_fails_the_job_with_the_reason() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    let fake = service.fake();
    fake.create_bucket(BUCKET)?;
    seed_plain_bucket(fake, BUCKET, 300, 1)?;
    fake.create_bucket("doomed-bucket")?;
    seed_plain_bucket(fake, "doomed-bucket", 10, 1)?;

    // The key is deleted: the sync says so, the connection says so, and a new key mends both.
    let it = service.connect("deleted", BUCKET)?;
    fails_later(&service, &it, ("bad_credentials", &["incorrect", "deleted", "App Keys"]), || {
        Ok(fake.delete_application_key(&it.key.key_id)?)
    })?;
    let path = format!("{CONNECTIONS}/{}", it.connection_id);
    let connection = service.call("GET", &path, None)?;
    assert_eq!(connection["status"], "FAILED", "{connection}");
    check_words("connection", connection["last_error"].as_str(), &["incorrect", "App Keys"])?;
    let fresh = fake.create_key(NewKey::unrestricted())?;
    let credentials = json!({ "key_id": fresh.key_id, "application_key": fresh.secret });
    let mended = service.call("PATCH", &path, Some(&json!({ "provider_config": { "credentials": credentials } })))?;
    assert_eq!((&mended["status"], &mended["last_error"]), (&json!("ACTIVE"), &Value::Null), "{mended}");
    let job = service.run_job(&it.sync, SOON)?;
    assert_eq!((&job["status"], changes(&job)), (&json!("completed"), (0, 0, 0)), "{job}");

    // The key expires. B2's clock goes before ours, which a signature allows for 15 minutes.
    let soon = service.b2().clock().now().plus_millis(60_000);
    let expiring = fake.create_key(NewKey::unrestricted().expiring_at(soon))?;
    let connection_id = connect(&service, "expiring", &expiring)?;
    let (_, sync) = ask_for_sync(&service, &connection_id, &json!({ "source_path": BUCKET }))?;
    let it = Connected { key: expiring, connection_id, sync: SyncRef::of(&sync)? };
    fails_later(&service, &it, ("key_expired", &["expired", "create a new key"]), || {
        service.b2().clock().advance(120_000);
        Ok(())
    })?;
    service.b2().clock().set_offset_ms(0);

    // The bucket is deleted.
    let it = service.connect("doomed", "doomed-bucket")?;
    let words = ["\"doomed-bucket\"", "case-sensitive", "source_path"];
    fails_later(&service, &it, ("bucket_not_found", &words), || Ok(fake.delete_bucket("doomed-bucket")?))?;

    // The bucket shows nothing, as after a mishap: nothing is deleted until a user says so.
    let it = service.connect("emptied", BUCKET)?;
    fails_later(&service, &it, ("too_many_deletions", &["300", "confirm"]), || {
        fake.inject(Rule::next(Target::List, Fault::EmptyListing));
        Ok(())
    })?;
    service.check_objects(&it.sync.bucket, &all(&service))?;
    fake.inject(Rule::next(Target::List, Fault::EmptyListing));
    let answer = service.call("POST", &format!("{}/trigger?confirm_deletes=true", it.sync.path()), None)?;
    let job = service.wait_for_job(&it.sync, &text(&answer, "sync_job_id")?, SOON, &mut |_| {})?;
    assert_eq!((&job["status"], changes(&job)), (&json!("completed"), (0, 0, 300)), "{job}");
    assert_eq!(service.list_objects(&it.sync.bucket)?.len(), 0);
    let job = service.run_job(&it.sync, SOON)?;
    assert_eq!((&job["status"], changes(&job)), (&json!("completed"), (300, 0, 0)), "{job}");
    Ok(())
}
