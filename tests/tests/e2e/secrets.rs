//! Who may call, and what never leaves: no key is in persisted state, in a log or in an answer.

use b2sync_tests::service::{CONNECTIONS, Service, ServiceConfig, connection_body};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use fake_b2::keys::NewKey;
use fake_b2::media::seed_plain_bucket;
use serde_json::json;

use crate::poll::files_below;
use crate::{BUCKET, Outcome, SOON};

#[test]
fn every_route_wants_the_api_key() -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    let (sync, connection) = ("/v1/buckets/bkt/syncs/sync_x", "/v1/organizations/connections/conn_x");
    let routes = [
        ("POST", CONNECTIONS.to_owned()),
        ("GET", CONNECTIONS.to_owned()),
        ("POST", format!("{CONNECTIONS}/list")),
        ("GET", connection.to_owned()),
        ("PATCH", connection.to_owned()),
        ("DELETE", connection.to_owned()),
        ("POST", format!("{connection}/test")),
        ("POST", "/v1/buckets/bkt/syncs".to_owned()),
        ("GET", "/v1/buckets/bkt/syncs".to_owned()),
        ("POST", "/v1/buckets/bkt/syncs/list".to_owned()),
        ("GET", sync.to_owned()),
        ("PATCH", sync.to_owned()),
        ("DELETE", sync.to_owned()),
        ("POST", format!("{sync}/pause")),
        ("POST", format!("{sync}/resume")),
        ("POST", format!("{sync}/trigger")),
        ("POST", format!("{sync}/unlock")),
        ("GET", format!("{sync}/metrics")),
        ("POST", format!("{sync}/jobs")),
        ("GET", format!("{sync}/jobs/job_x")),
        ("GET", "/v1/buckets/bkt/objects".to_owned()),
        ("POST", "/v1/buckets/bkt/objects/list".to_owned()),
        ("GET", "/v1/buckets/bkt/objects/obj_x".to_owned()),
        // And what there is not: a stranger learns nothing of it.
        ("GET", "/v1".to_owned()),
        ("GET", "/v1/nothing".to_owned()),
        ("PUT", CONNECTIONS.to_owned()),
        ("GET", "/v1/%62uckets/bkt/objects".to_owned()),
    ];
    let key = service.api_key().to_owned();
    let wrong = [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some(format!("Basic {key}")),
        Some(key.clone()),
        Some(format!("Bearer {}", &key[..key.len() - 1])),
        Some(format!("Bearer {key}0")),
        Some(format!("Bearer {}", key.to_uppercase())),
    ];
    for (method, path) in &routes {
        for authorization in &wrong {
            let headers: Vec<(&str, &str)> =
                authorization.iter().map(|value| ("authorization", value.as_str())).collect();
            let (status, body) = service.send(method, path, &headers, b"")?;
            let text = String::from_utf8_lossy(&body);
            assert_eq!(status, 401, "{method} {path} with {authorization:?}: {text}");
            assert!(text.contains("UnauthorizedError") && text.contains("Authorization: Bearer"), "{text}");
        }
        // With the key, each of them is answered by something else than the door.
        let (status, answer) = service.ask(method, path, None)?;
        assert!(![401, 500].contains(&status), "{method} {path}: {status} {answer}");
    }
    assert_eq!(service.send("GET", "/healthz", &[], b"")?.0, 200);
    Ok(())
}

/// The forms in which a secret could hide.
fn forms(name: &str, secret: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut forms = vec![
        (format!("{name}, plain"), secret.to_vec()),
        (format!("{name}, hex"), hex::encode(secret).into_bytes()),
        (format!("{name}, HEX"), hex::encode_upper(secret).into_bytes()),
        (format!("{name}, UTF-16"), secret.iter().flat_map(|byte| [*byte, 0]).collect()),
        (format!("{name}, reversed"), secret.iter().rev().copied().collect()),
        (format!("{name}, percent-encoded"), secret.iter().flat_map(|b| format!("%{b:02X}").into_bytes()).collect()),
    ];
    for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        // Anywhere in a longer text that was encoded: the groups of three bytes begin at one of three places.
        for shift in 0..3 {
            let mut padded = vec![0; shift];
            padded.extend_from_slice(secret);
            let encoded = engine.encode(&padded);
            // The first and the last group also hold bits of the neighbours.
            let inner = &encoded[if shift == 0 { 0 } else { 4 }..encoded.len() - 4];
            forms.push((format!("{name}, base64 at {shift}"), inner.as_bytes().to_vec()));
        }
    }
    forms
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    // The first byte is compared by `memchr` inside of `position`; a plain window search takes minutes here.
    let Some(first) = needle.first() else { return false };
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = &rest[at..];
        if rest.starts_with(needle) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

#[test]
fn the_search_finds_what_is_there() {
    let secret = b"K004secretsecretsecret";
    for (name, form) in forms("key", secret) {
        assert!(holds(&[b"xx".as_slice(), &form, b"yy"].concat(), &form), "{name}");
    }
    for before in ["", "a", "ab", "id:"] {
        let header = STANDARD_NO_PAD.encode([before.as_bytes(), secret, b"tail"].concat());
        assert!(forms("key", secret).iter().any(|(_, form)| holds(header.as_bytes(), form)), "{before:?}");
    }
    assert!(!holds(b"K004secretsecretsecre", secret));
}

#[test]
fn no_key_is_in_state_logs_or_answers() -> Outcome {
    let mut service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    seed_plain_bucket(service.fake(), BUCKET, 1_500, 1)?;
    let mut application_keys = Vec::new();

    // Everything that touches a key, what fails too.
    let it = service.connect("findable", BUCKET)?;
    application_keys.push(it.key.clone());
    let path = format!("{CONNECTIONS}/{}", it.connection_id);
    assert_eq!(service.run_job(&it.sync, SOON)?["status"], "completed");
    for (method, path) in [
        ("GET", path.clone()),
        ("POST", format!("{CONNECTIONS}/list")),
        ("POST", format!("{path}/test")),
        ("GET", it.sync.path()),
        ("GET", format!("{}/metrics", it.sync.path())),
        ("GET", format!("/v1/buckets/{}/objects?limit=5&return_presigned_urls=true", it.sync.bucket)),
    ] {
        service.call(method, &path, None)?;
    }
    let fresh = service.fake().create_key(NewKey::unrestricted())?;
    let credentials = json!({ "key_id": fresh.key_id, "application_key": fresh.secret });
    service.call("PATCH", &path, Some(&json!({ "provider_config": { "credentials": credentials } })))?;
    application_keys.push(fresh.clone());
    service.fake().delete_application_key(&fresh.key_id)?;
    assert_eq!(service.run_job(&it.sync, SOON)?["status"], "failed");
    let tested = service.call("POST", &format!("{path}/test"), None)?;
    assert_eq!(tested["success"], false, "{tested}");

    let stray = service.fake().create_key(NewKey::unrestricted())?;
    application_keys.push(stray.clone());
    let secret = stray.secret.as_str();
    let mut undeclared = connection_body("undeclared", &stray.key_id, secret);
    undeclared["secret"] = json!(secret);
    for body in [
        connection_body("taken", "no-such-key-id", secret),
        connection_body("swapped", secret, &stray.key_id),
        connection_body("blank", &stray.key_id, &format!(" {secret} \n")),
        json!({ "name": "misplaced", "provider_type": secret, "provider_config": secret }),
        json!({ "name": "misplaced", "provider_type": "backblaze", "provider_config": { "credentials": secret } }),
        undeclared,
    ] {
        let (status, answer) = service.ask("POST", CONNECTIONS, Some(&body))?;
        assert!([200, 400, 422].contains(&status), "{status} {answer}");
    }
    let bearer = format!("Bearer {}", service.api_key());
    let cut = format!("{{\"name\": \"cut\", \"application_key\": \"{secret}\"");
    let (status, _) = service.send("POST", CONNECTIONS, &[("authorization", &bearer)], cut.as_bytes())?;
    assert!([400, 422].contains(&status), "{status}");
    service.send("GET", CONNECTIONS, &[("authorization", &format!("Basic {}", service.api_key()))], b"")?;

    // Killed, so that what is on disk is what a thief of the disk would have; write-ahead logs included.
    service.workerd().kill();
    let mut places: Vec<(String, Vec<u8>)> = Vec::new();
    for (path, bytes) in files_below(service.state_dir())? {
        // The harness hands the secrets to workerd in this file; to Cloudflare they go by `wrangler secret put`.
        if !path.ends_with("/config.capnp") {
            places.push((path, bytes));
        }
    }
    assert!(places.iter().any(|(path, _)| path.contains("/objects/") && path.ends_with(".sqlite")), "state is on disk");
    let log = service.logs().join("\n");
    places.push(("the log".to_owned(), log.into_bytes()));
    for exchange in service.exchanges() {
        places.push((format!("the answer {} to {}", exchange.status, exchange.request), exchange.body));
    }
    let connection_id = it.connection_id.as_bytes();
    assert!(places.iter().any(|(path, bytes)| path.contains("/objects/") && holds(bytes, connection_id)));

    let mut secrets = forms("the API key", service.api_key().as_bytes());
    secrets.extend(forms("the master key", service.master_key()));
    for (index, key) in application_keys.iter().enumerate() {
        secrets.extend(forms(&format!("application key {index}"), key.secret.as_bytes()));
    }
    for (place, bytes) in &places {
        for (name, form) in &secrets {
            let shown = || String::from_utf8_lossy(&bytes[..bytes.len().min(1_000)]).into_owned();
            assert!(!holds(bytes, form), "{name} is in {place}, which begins {:?}", shown());
        }
    }
    // A key id is no secret, but answers have none of it, as documented; a presigned URL must.
    for exchange in service.exchanges().iter().filter(|exchange| !exchange.request.contains("presigned")) {
        assert!(!holds(&exchange.body, it.key.key_id.as_bytes()), "{}", exchange.request);
    }
    let presigned = service.exchanges().into_iter().find(|exchange| exchange.request.contains("presigned"));
    let presigned = presigned.ok_or("there was no presigned URL")?;
    assert!(holds(&presigned.body, b"X-Amz-Signature="), "{}", String::from_utf8_lossy(&presigned.body));
    Ok(())
}
