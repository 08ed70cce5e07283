//! `b2_authorize_account`, versions 3 and 4: what a key may do, and where to send what follows.

use b2sync_core::http::{Request, Response, StatusCode};
use b2sync_core::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Config;
use super::keys::ApplicationKey;
use super::model::Model;
use super::refusal::{Refusal, respond_json};

/// Answers a request of the native API.
pub(super) fn answer(model: &Model, config: &Config, request: &Request, now: Timestamp) -> Response {
    match authorize(model, config, request, now) {
        Ok(body) => respond_json(StatusCode::OK, &body),
        Err(refusal) => refusal.into_json(),
    }
}

fn authorize(model: &Model, config: &Config, request: &Request, now: Timestamp) -> Result<Value, Refusal> {
    let path = request.uri().path();
    let version = match path.strip_prefix("/b2api/").and_then(|path| path.split_once('/')) {
        Some(("v3", "b2_authorize_account")) => 3,
        Some(("v4", "b2_authorize_account")) => 4,
        _ => return Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", format!("invalid_api_name: {path}"))),
    };
    let unauthorized = |code: &str, message: &str| Refusal::new(StatusCode::UNAUTHORIZED, code, message);
    let (key_id, secret) = credentials(request).ok_or_else(|| unauthorized("bad_auth_token", ""))?;
    let key = model.application_key(&key_id).filter(|key| key.secret == secret);
    let key = key.ok_or_else(|| unauthorized("bad_auth_token", ""))?;
    if key.expired(now) {
        return Err(unauthorized("expired_auth_token", "Application key has expired"));
    }
    let mut storage = json!({
        "absoluteMinimumPartSize": 5_000_000,
        "apiUrl": config.base_url,
        "downloadUrl": config.base_url,
        "recommendedPartSize": 100_000_000,
        "s3ApiUrl": config.s3_api_url.as_ref().unwrap_or(&config.base_url),
    });
    if version == 4 {
        storage["allowed"] = json!({
            "buckets": key.bucket_ids.as_ref().map(|ids| allowed_buckets(model, ids)),
            "capabilities": key.capabilities,
            "namePrefix": key.name_prefix,
        });
    } else {
        let bucket = only_bucket(key).ok_or_else(|| {
            unauthorized("unsupported", "This key names several buckets: use version 4 of the API or later")
        })?;
        storage["bucketId"] = json!(bucket);
        storage["bucketName"] = json!(bucket.and_then(|id| model.bucket_name(id)));
        storage["capabilities"] = json!(key.capabilities);
        storage["infoType"] = json!("storageApi");
        storage["namePrefix"] = json!(key.name_prefix);
    }
    Ok(json!({
        "accountId": model.account_id(),
        "apiInfo": { "storageApi": storage },
        "applicationKeyExpirationTimestamp": key.expires_at.map(Timestamp::as_millis),
        "authorizationToken": format!("4_{}_{:016x}_acct", key.key_id, now.as_millis()),
    }))
}

/// `[{id, name}]`; the name of a deleted bucket is null.
fn allowed_buckets(model: &Model, ids: &[String]) -> Vec<Value> {
    ids.iter().map(|id| json!({"id": id, "name": model.bucket_name(id)})).collect()
}

/// The bucket that version 3 can express: none or one. `None` when there are more.
fn only_bucket(key: &ApplicationKey) -> Option<Option<&str>> {
    match key.bucket_ids.as_deref() {
        None => Some(None),
        Some([only]) => Some(Some(only)),
        Some(_) => None,
    }
}

fn credentials(request: &Request) -> Option<(String, String)> {
    let value = request.headers().get("authorization")?.to_str().ok()?;
    let decoded = STANDARD.decode(value.strip_prefix("Basic ")?.trim()).ok()?;
    let (key_id, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((key_id.to_owned(), secret.to_owned()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::keys::NewKey;
    use crate::model::KeyOrder;

    const NOW: Timestamp = Timestamp::from_millis(1_704_067_200_000);

    fn model() -> Model {
        let mut model = Model::new(KeyOrder::Utf8);
        for name in ["bucket-a", "bucket-b", "bucket-gone"] {
            model.create_bucket(name).unwrap();
        }
        model
    }

    fn ask(model: &Model, version: &str, key_id: &str, secret: &str) -> (u16, Value) {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = format!("http://fake/b2api/{version}/b2_authorize_account").parse().unwrap();
        let value = format!("Basic {}", STANDARD.encode(format!("{key_id}:{secret}")));
        request.headers_mut().insert("authorization", value.parse().unwrap());
        let response = answer(model, &Config::like_b2(), &request, NOW);
        (response.status().as_u16(), serde_json::from_slice(response.body()).unwrap())
    }

    #[test]
    fn version_4_lists_what_is_allowed() {
        let mut model = model();
        let key = model.create_key(NewKey::unrestricted()).unwrap();
        let (status, answer) = ask(&model, "v4", &key.key_id, &key.secret);
        assert_eq!(status, 200);
        assert_eq!(answer["applicationKeyExpirationTimestamp"], Value::Null);
        assert_eq!(
            answer["apiInfo"]["storageApi"],
            json!({
                "absoluteMinimumPartSize": 5_000_000,
                "allowed": {
                    "buckets": null,
                    "capabilities": ["listBuckets", "listFiles", "readFiles"],
                    "namePrefix": null
                },
                "apiUrl": "https://api.backblazeb2.com",
                "downloadUrl": "https://api.backblazeb2.com",
                "recommendedPartSize": 100_000_000,
                "s3ApiUrl": "https://s3.us-west-004.backblazeb2.com"
            })
        );
    }

    #[test]
    fn a_deleted_bucket_has_no_name() {
        let mut model = model();
        let new = NewKey::unrestricted().for_buckets(&["bucket-a", "bucket-gone"]).for_prefix("p/");
        let key = model.create_key(new).unwrap();
        model.delete_bucket("bucket-gone").unwrap();
        let (_, answer) = ask(&model, "v4", &key.key_id, &key.secret);
        let allowed = &answer["apiInfo"]["storageApi"]["allowed"];
        assert_eq!(allowed["buckets"][0]["name"], json!("bucket-a"));
        assert_eq!(allowed["buckets"][1]["name"], Value::Null);
        assert!(allowed["buckets"][1]["id"].is_string());
        assert_eq!(allowed["namePrefix"], json!("p/"));
    }

    #[test]
    fn version_3_knows_one_bucket_at_most() {
        let mut model = model();
        let key = model.create_key(NewKey::unrestricted().for_buckets(&["bucket-b"])).unwrap();
        let (status, answer) = ask(&model, "v3", &key.key_id, &key.secret);
        let storage = &answer["apiInfo"]["storageApi"];
        assert_eq!((status, &storage["bucketName"]), (200, &json!("bucket-b")));
        assert_eq!(storage.get("allowed"), None);
        let key = model.create_key(NewKey::unrestricted().for_buckets(&["bucket-a", "bucket-b"])).unwrap();
        let (status, answer) = ask(&model, "v3", &key.key_id, &key.secret);
        assert_eq!((status, &answer["code"]), (401, &json!("unsupported")));
    }

    #[test]
    fn refusals_are_401_and_json() {
        let mut model = model();
        let key = model.create_key(NewKey::unrestricted().expiring_at(NOW)).unwrap();
        let bad = json!({"code": "bad_auth_token", "message": "", "status": 401});
        assert_eq!(ask(&model, "v4", &key.key_id, "wrong"), (401, bad.clone()));
        assert_eq!(ask(&model, "v4", "nobody", "wrong"), (401, bad.clone()));
        let (status, answer) = ask(&model, "v4", &key.key_id, &key.secret);
        assert_eq!((status, &answer["code"]), (401, &json!("expired_auth_token")));
        model.delete_application_key(&key.key_id).unwrap();
        assert_eq!(ask(&model, "v4", &key.key_id, &key.secret), (401, bad));
        assert_eq!(ask(&model, "v9", "a", "b").0, 404);
    }

    #[test]
    fn the_master_key_authorizes() {
        let mut model = model();
        let key = model.create_master_key();
        assert_eq!(ask(&model, "v4", &key.key_id, &key.secret).0, 200);
    }
}
