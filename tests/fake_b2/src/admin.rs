//! The back door: JSON over HTTP under `/_admin/`, for the demo and for tests in other processes.
//!
//! [`CALLS`] has all calls; `GET /_admin` shows them.
//!
//! *Content* is one of `content` (text), `content_base64`, or `size` with an optional `seed`; none of them is an empty
//! file. *Description* is `content_type`, `info` (an object) and `at`, each optional. A time (`at`, `expires_at`) is a
//! number of milliseconds since 1970 or RFC 3339 text; without `at` it is now. What a key may do is
//! `{capabilities?, buckets?, name_prefix?, expires_at?, key_id?, secret?}`. A *version* is
//! `{version_id, etag, size, last_modified_ms}`. Errors are 400 with `{error}`. It asks for no credentials,
//! nothing is counted, and no fault strikes here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use b2sync_core::http::{Method, Request, Response, StatusCode};
use b2sync_core::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::FakeB2;
use super::clock::OffsetClock;
use super::content::Content;
use super::faults::{Chance, Quota, Rule};
use super::keys::NewKey;
use super::media::{seed_media_bucket, seed_plain_bucket};
use super::model::{ModelError, NewFile, Version};
use super::refusal::{respond, respond_json};
use super::sigv4::query_pairs;

/// One call of the back door.
struct Call {
    method: &'static str,
    /// Behind `/_admin`.
    path: &'static str,
    /// Its body, or its query.
    takes: &'static str,
    answers: &'static str,
}

const fn call(method: &'static str, path: &'static str, takes: &'static str, answers: &'static str) -> Call {
    Call { method, path, takes, answers }
}

/// All calls.
const CALLS: [Call; 20] = [
    call("GET", "", "", "this list"),
    call("POST", "/buckets", "{name}", "{bucket_id}"),
    call("POST", "/buckets/delete", "{name}", "{}"),
    call("POST", "/buckets/seed", "{bucket, count, seed?, plain?}", "{}"),
    call("GET", "/files", "?bucket=…", "{files: [{key, etag, size, last_modified_ms}]}: what a listing shows"),
    call("POST", "/files", "{bucket, key} + content + description", "a version"),
    call("POST", "/files/hide", "{bucket, key, at?}", "a version"),
    call("POST", "/files/delete", "{bucket, key}", "{}; all versions are gone"),
    call("POST", "/versions/delete", "{bucket, key, version_id}", "{}"),
    call("POST", "/large/start", "{bucket, key} + description", "{upload_id}"),
    call("POST", "/large/finish", "{bucket, upload_id} + content", "a version"),
    call(
        "POST",
        "/keys",
        "{capabilities?, buckets?, name_prefix?, expires_at?, key_id?, secret?}",
        "{key_id, application_key}",
    ),
    call("POST", "/keys/delete", "{key_id}", "{}"),
    call("POST", "/faults", "{rules?: [{target?, skip?, times?, fault: {kind, …}}], chance?, quota?}", "{}"),
    call("POST", "/faults/clear", "", "{}"),
    call("GET", "/counts", "", "how many requests of each kind there were"),
    call("POST", "/counts/reset", "", "{}; the log is emptied too"),
    call("GET", "/log", "", "{requests: […]}, oldest first"),
    call("GET", "/clock", "", "{now_ms, offset_ms}"),
    call("POST", "/clock", "{offset_ms} or {advance_ms}", "{now_ms, offset_ms}"),
];

/// What the words in [`CALLS`] mean.
const NOTES: [&str; 6] = [
    "Content is one of content (text), content_base64, or size with an optional seed; none of them is an empty file.",
    "Description is content_type, info (an object) and at, each optional.",
    "A time (at, expires_at) is a number of milliseconds since 1970 or RFC 3339 text; without at it is now.",
    "A version is {version_id, etag, size, last_modified_ms}.",
    "A target is any, authorize, list, head or get. A fault is one of {\"kind\": \"status\", \"status\": 503, \
     \"retry_after_s\"?, \"code\"?, \"message\"?}, hang, reset, {\"kind\": \"cut_body\", \"after_bytes\"}, {\"kind\": \
     \"delay\", \"millis\"}, garbage, truncated, empty_listing, no_token, same_token, {\"kind\": \
     \"unreadable_entries\", \"keys\"?: […]}. Without times a rule strikes once; 4294967295 is for ever.",
    "Errors are 400 with {error}. No credentials are asked for, nothing is counted, and no fault strikes here.",
];

/// The page that shows all calls.
fn help() -> Response {
    let mut page = String::from("The back door of the embedded B2: JSON over HTTP. The real B2 has no such thing.\n\n");
    for Call { method, path, takes, answers } in &CALLS {
        let what = format!("{method} /_admin{path}");
        let _ = writeln!(page, "{what:<30} {takes}\n{:<30}   answers {answers}", "");
    }
    for note in NOTES {
        let _ = write!(page, "\n{note}\n");
    }
    respond(StatusCode::OK, "text/plain; charset=utf-8", page.into())
}

/// Whether a request is for the back door.
pub(super) fn is_admin(request: &Request) -> bool {
    let path = request.uri().path();
    path == "/_admin" || path.starts_with("/_admin/")
}

/// Answers a request for the back door.
pub(super) fn answer(fake: &FakeB2, clock: &OffsetClock, request: &Request) -> Response {
    if request.method() == Method::GET && request.uri().path().trim_end_matches('/') == "/_admin" {
        return help();
    }
    match route(fake, clock, request) {
        Ok(body) => respond_json(StatusCode::OK, &body),
        Err(Wrong(error)) => respond_json(StatusCode::BAD_REQUEST, &json!({ "error": error })),
    }
}

/// What is wrong with a call.
struct Wrong(String);

impl From<ModelError> for Wrong {
    fn from(error: ModelError) -> Self {
        Self(error.to_string())
    }
}

fn route(fake: &FakeB2, clock: &OffsetClock, request: &Request) -> Result<Value, Wrong> {
    let call = request.uri().path().strip_prefix("/_admin/").unwrap_or_default();
    if request.method() == Method::GET {
        return read(fake, clock, call, request.uri().query().unwrap_or_default());
    }
    if request.method() != Method::POST {
        return Err(Wrong(format!("{} is neither GET nor POST", request.method())));
    }
    write(fake, clock, call, request.body())
}

fn read(fake: &FakeB2, clock: &OffsetClock, call: &str, query: &str) -> Result<Value, Wrong> {
    match call {
        "counts" => Ok(json!(fake.counts())),
        "log" => Ok(json!({ "requests": fake.log() })),
        "clock" => Ok(clock_value(clock)),
        "files" => {
            let bucket = query_pairs(query).find(|(name, _)| name == b"bucket").map(|(_, value)| value);
            let bucket = bucket.and_then(|value| String::from_utf8(value).ok()).unwrap_or_default();
            if fake.inspect(|model| model.bucket(&bucket).is_none()) {
                return Err(ModelError::NoSuchBucket(bucket).into());
            }
            let file = |file: super::VisibleFile| {
                let last_modified_ms = file.last_modified.as_millis();
                json!({"key": file.key, "etag": file.etag, "size": file.size, "last_modified_ms": last_modified_ms})
            };
            Ok(json!({ "files": fake.visible(&bucket).into_iter().map(file).collect::<Vec<_>>() }))
        }
        other => Err(Wrong(format!("there is no GET /_admin/{other}: GET /_admin lists the calls"))),
    }
}

fn write(fake: &FakeB2, clock: &OffsetClock, call: &str, body: &[u8]) -> Result<Value, Wrong> {
    let now = clock.now();
    match call {
        "buckets" => {
            let Named { name } = parse(body)?;
            return Ok(json!({ "bucket_id": fake.create_bucket(&name)? }));
        }
        "buckets/delete" => {
            let Named { name } = parse(body)?;
            fake.delete_bucket(&name)?;
        }
        "buckets/seed" => {
            let Seed { bucket, count, seed, plain } = parse(body)?;
            let fill = if plain { seed_plain_bucket } else { seed_media_bucket };
            fill(fake, &bucket, count, seed)?;
        }
        "files" => {
            let call: FileCall = parse(body)?;
            let at = instant(call.at.as_ref())?.unwrap_or(now);
            let (bucket, key) = (call.bucket.clone(), call.key.clone());
            return Ok(version(&*fake.put(&bucket, &key, call.file()?, at)?));
        }
        "files/hide" => {
            let call: FileCall = parse(body)?;
            let at = instant(call.at.as_ref())?.unwrap_or(now);
            return Ok(version(&*fake.hide(&call.bucket, &call.key, at)?));
        }
        "files/delete" => {
            let call: FileCall = parse(body)?;
            fake.delete_key(&call.bucket, &call.key)?;
        }
        "versions/delete" => {
            let VersionCall { bucket, key, version_id } = parse(body)?;
            fake.delete_version(&bucket, &key, &version_id)?;
        }
        "large/start" => {
            let call: FileCall = parse(body)?;
            let at = instant(call.at.as_ref())?.unwrap_or(now);
            let (bucket, key) = (call.bucket.clone(), call.key.clone());
            return Ok(json!({ "upload_id": fake.start_large(&bucket, &key, call.file()?, at)? }));
        }
        "large/finish" => {
            let call: FinishCall = parse(body)?;
            let content = call.content.into_content()?;
            return Ok(version(&*fake.finish_large(&call.bucket, &call.upload_id, content)?));
        }
        "keys" => {
            let key = fake.create_key(parse::<KeyCall>(body)?.into_new_key()?)?;
            return Ok(json!({"key_id": key.key_id, "application_key": key.secret}));
        }
        "keys/delete" => {
            let KeyId { key_id } = parse(body)?;
            fake.delete_application_key(&key_id)?;
        }
        "faults" => add_faults(fake, parse(body)?),
        "faults/clear" => fake.clear_faults(),
        "counts/reset" => fake.reset_counts(),
        "clock" => {
            set_clock(clock, &parse(body)?);
            return Ok(clock_value(clock));
        }
        other => return Err(Wrong(format!("there is no POST /_admin/{other}: GET /_admin lists the calls"))),
    }
    Ok(json!({}))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Wrong> {
    serde_json::from_slice(body).map_err(|error| Wrong(format!("the body is not what this call takes: {error}")))
}

fn add_faults(fake: &FakeB2, FaultsCall { rules, chance, quota }: FaultsCall) {
    if quota.is_some() {
        fake.set_quota(quota);
    }
    rules.into_iter().for_each(|rule| fake.inject(rule));
    if chance.is_some() {
        fake.set_chance(chance);
    }
}

fn set_clock(clock: &OffsetClock, call: &ClockCall) {
    if let Some(offset_ms) = call.offset_ms {
        clock.set_offset_ms(offset_ms);
    }
    clock.advance(call.advance_ms.unwrap_or_default());
}

fn clock_value(clock: &OffsetClock) -> Value {
    json!({"now_ms": clock.now().as_millis(), "offset_ms": clock.offset_ms()})
}

fn version(version: &Version) -> Value {
    json!({
        "version_id": version.id(),
        "etag": version.stored.as_ref().map(|stored| &stored.etag),
        "size": version.stored.as_ref().map(|stored| stored.file.content.size()),
        "last_modified_ms": version.uploaded_at.as_millis(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seed {
    bucket: String,
    count: usize,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    plain: bool,
}

/// Milliseconds, or RFC 3339.
#[derive(Deserialize)]
#[serde(untagged)]
enum When {
    Millis(i64),
    Text(String),
}

fn instant(when: Option<&When>) -> Result<Option<Timestamp>, Wrong> {
    match when {
        None => Ok(None),
        Some(When::Millis(millis)) => Ok(Some(Timestamp::from_millis(*millis))),
        Some(When::Text(text)) => match Timestamp::parse_rfc3339(text) {
            Ok(time) => Ok(Some(time)),
            Err(error) => Err(Wrong(format!("{text:?} is no RFC 3339 time: {error}"))),
        },
    }
}

#[derive(Default, Deserialize)]
struct ContentCall {
    content: Option<String>,
    content_base64: Option<String>,
    size: Option<u64>,
    #[serde(default)]
    seed: u64,
}

impl ContentCall {
    fn into_content(self) -> Result<Content, Wrong> {
        match (self.content, self.content_base64, self.size) {
            (Some(text), None, None) => Ok(Content::Held(text.into())),
            (None, Some(text), None) => match STANDARD.decode(text) {
                Ok(bytes) => Ok(Content::Held(bytes.into())),
                Err(error) => Err(Wrong(format!("content_base64 is no base64: {error}"))),
            },
            (None, None, Some(size)) => Ok(Content::Generated { seed: self.seed, size }),
            (None, None, None) => Ok(Content::Held(Bytes::new())),
            _ => Err(Wrong("give one of content, content_base64 and size".to_owned())),
        }
    }
}

#[derive(Deserialize)]
struct FileCall {
    bucket: String,
    key: String,
    #[serde(flatten)]
    content: ContentCall,
    content_type: Option<String>,
    #[serde(default)]
    info: BTreeMap<String, String>,
    at: Option<When>,
}

impl FileCall {
    fn file(self) -> Result<NewFile, Wrong> {
        let content_type = self.content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
        Ok(NewFile { content: self.content.into_content()?, content_type, info: self.info })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VersionCall {
    bucket: String,
    key: String,
    version_id: String,
}

#[derive(Deserialize)]
struct FinishCall {
    bucket: String,
    upload_id: String,
    #[serde(flatten)]
    content: ContentCall,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyCall {
    capabilities: Option<Vec<String>>,
    buckets: Option<Vec<String>>,
    name_prefix: Option<String>,
    expires_at: Option<When>,
    key_id: Option<String>,
    secret: Option<String>,
}

impl KeyCall {
    fn into_new_key(self) -> Result<NewKey, Wrong> {
        Ok(NewKey {
            capabilities: self.capabilities.unwrap_or_else(|| NewKey::unrestricted().capabilities),
            buckets: self.buckets,
            name_prefix: self.name_prefix,
            expires_at: instant(self.expires_at.as_ref())?,
            key_id: self.key_id,
            secret: self.secret,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyId {
    key_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultsCall {
    #[serde(default)]
    quota: Option<Quota>,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    chance: Option<Chance>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockCall {
    offset_ms: Option<i64>,
    advance_ms: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::faults::Fault;

    fn ask(method: Method, path: &str) -> Response {
        let mut request = Request::new(Bytes::from_static(b"{}"));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        assert!(is_admin(&request), "{path}");
        answer(&FakeB2::new(Config::default()), &OffsetClock::default(), &request)
    }

    #[test]
    fn the_help_page_has_every_call_and_every_fault() {
        let help = |path: &str| String::from_utf8(ask(Method::GET, path).body().to_vec()).unwrap();
        let page = help("/_admin");
        assert_eq!(page, help("/_admin/"));
        for Call { method, path, .. } in &CALLS {
            assert!(page.contains(&format!("{method} /_admin{path} ")), "{path}");
            let answer = ask(method.parse().unwrap(), &format!("/_admin{path}"));
            let body = String::from_utf8_lossy(answer.body()).into_owned();
            assert!(!body.contains("there is no POST") && !body.contains("there is no GET"), "{method} {path}: {body}");
        }
        // Each arm of the two matches is one of them.
        let source = include_str!("admin.rs").split("mod tests").next().unwrap();
        let arms = source.lines().filter(|line| line.starts_with("        \"") && line.contains("\" => ")).count();
        assert_eq!(arms + 1, CALLS.len());
        for fault in [
            Fault::status(503),
            Fault::Hang,
            Fault::Reset,
            Fault::CutBody { after_bytes: 1 },
            Fault::Delay { millis: 1 },
            Fault::Garbage,
            Fault::Truncated,
            Fault::EmptyListing,
            Fault::NoToken,
            Fault::SameToken,
            Fault::UnreadableEntries { keys: Vec::new() },
        ] {
            assert!(page.contains(fault.name()), "{}", fault.name());
        }
        let unknown = ask(Method::POST, "/_admin/nothing");
        assert!(unknown.status() == 400 && String::from_utf8_lossy(unknown.body()).contains("GET /_admin lists"));
    }
}
