//! The S3-compatible API, path style: `ListObjectsV2`, `HeadObject` and `GetObject`. Everything else is
//! `NotImplemented`: the product reads, and the model is changed through [`super::admin`] or in Rust.

use std::ops::Range;

use b2sync_core::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use b2sync_core::time::Timestamp;
use bytes::Bytes;
use percent_encoding::percent_decode_str;

use super::Config;
use super::faults::Fault;
use super::keys::ApplicationKey;
use super::ledger::{Operation, split_path};
use super::listing;
use super::model::{Model, StoredFile, Version};
use super::refusal::{Refusal, respond};
use super::sigv4::Claim;

/// The longest body of one answer, in bytes. It is held in memory, and generated files may claim any size.
const BODY_BYTES_MAX: u64 = 256 << 20;

/// Answers a request of the S3-compatible API. `quirk` is a fault that only listings know.
pub(super) fn answer(
    model: &Model,
    config: &Config,
    request: &Request,
    now: Timestamp,
    quirk: Option<&Fault>,
) -> Response {
    route(model, config, request, now, quirk).unwrap_or_else(|refusal| refusal.into_xml(request.method()))
}

fn route(
    model: &Model,
    config: &Config,
    request: &Request,
    now: Timestamp,
    quirk: Option<&Fault>,
) -> Result<Response, Refusal> {
    refuse_checksum_headers(request)?;
    let key = authenticate(model, config, request, now)?;
    let (bucket, name) = split_path(request.uri().path());
    let (bucket, name) = (decoded(bucket)?, decoded(name)?);
    if bucket.is_empty() {
        return Err(not_implemented());
    }
    let bucket_id = model.bucket(&bucket).map(|found| found.id());
    if !key.may_use_bucket(bucket_id) {
        return Err(Refusal::not_entitled());
    }
    if bucket_id.is_none() {
        let message = format!("The specified bucket does not exist: {bucket}");
        return Err(Refusal::new(StatusCode::NOT_FOUND, "NoSuchBucket", message));
    }
    match Operation::of(request) {
        Operation::List => listing::answer(model, config, key, &bucket, request, quirk),
        Operation::Head | Operation::Get => object(model, key, &bucket, &name, request),
        _ if request.method() == Method::HEAD && name.is_empty() => head_bucket(key),
        _ => Err(not_implemented()),
    }
}

fn not_implemented() -> Refusal {
    let message = "A header or query you provided implies functionality that is not implemented.";
    Refusal::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
}

/// B2 knows none of the newer checksum headers, which the SDKs of AWS send by default.
fn refuse_checksum_headers(request: &Request) -> Result<(), Refusal> {
    let unsupported = |name: &&HeaderName| {
        let name = name.as_str();
        name.starts_with("x-amz-checksum-") || name == "x-amz-sdk-checksum-algorithm"
    };
    match request.headers().keys().find(unsupported) {
        Some(name) => {
            Err(Refusal::invalid_argument(format!("Unsupported header '{name}' received for this API call.")))
        }
        None => Ok(()),
    }
}

fn authenticate<'a>(
    model: &'a Model,
    config: &Config,
    request: &Request,
    now: Timestamp,
) -> Result<&'a ApplicationKey, Refusal> {
    let claim = Claim::parse(request)?;
    let invalid = |message: String| Err(Refusal::new(StatusCode::FORBIDDEN, "InvalidAccessKeyId", message));
    let key = match model.application_key(&claim.key_id) {
        Some(key) if !key.master && !key.expired(now) => key,
        Some(key) if !key.master => return invalid(format!("The key '{}' is not valid", key.key_id)),
        None if has_the_shape_of_a_key_id(&claim.key_id) => {
            return invalid(format!("The key '{}' is not valid", claim.key_id));
        }
        _ => return invalid("Malformed Access Key Id".to_owned()),
    };
    claim.check(request, &key.secret, &config.region, now)?;
    Ok(key)
}

fn has_the_shape_of_a_key_id(text: &str) -> bool {
    text.len() == 25 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn decoded(text: &str) -> Result<String, Refusal> {
    let decoded = percent_decode_str(text).decode_utf8();
    let invalid = |_| Refusal::new(StatusCode::BAD_REQUEST, "InvalidURI", "Couldn't parse the specified URI.");
    Ok(decoded.map_err(invalid)?.into_owned())
}

/// A key that is restricted to buckets may not even look at its own.
fn head_bucket(key: &ApplicationKey) -> Result<Response, Refusal> {
    if key.bucket_ids.is_some() || !key.can("listBuckets") {
        return Err(Refusal::not_entitled());
    }
    Ok(respond(StatusCode::OK, "application/xml", Bytes::new()))
}

fn object(
    model: &Model,
    key: &ApplicationKey,
    bucket: &str,
    name: &str,
    request: &Request,
) -> Result<Response, Refusal> {
    if !key.can("readFiles") || !key.may_use_name(name) {
        return Err(Refusal::not_entitled());
    }
    let version = model.find(bucket, name);
    let found = version.as_deref().and_then(|version| Some((version, version.stored.as_ref()?)));
    let (version, stored) = found.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "NoSuchKey", "Key not found"))?;
    let content = &stored.file.content;
    let range = request.headers().get("range").and_then(|value| value.to_str().ok());
    let range = match range.and_then(|value| parse_range(value, content.size())) {
        Some(RangeAnswer::Unsatisfiable) => {
            let message = "The requested range is not satisfiable";
            return Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange", message));
        }
        Some(RangeAnswer::Bytes(range)) => Some(range),
        None => None,
    };
    let bytes = range.clone().unwrap_or(0..content.size());
    let length = bytes.end - bytes.start;
    let is_get = request.method() == Method::GET;
    if is_get && length > BODY_BYTES_MAX {
        let message = format!("The embedded B2 answers at most {BODY_BYTES_MAX} bytes at once: ask for a range");
        return Err(Refusal::invalid_argument(message));
    }
    let mut response = Response::new(if is_get { content.slice(bytes) } else { Bytes::new() });
    let headers = response.headers_mut();
    headers.insert("content-length", HeaderValue::from(length));
    if let Some(range) = &range {
        let value = format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), content.size());
        insert(&mut response, "content-range", &value);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    describe(&mut response, version, stored);
    Ok(response)
}

fn describe(response: &mut Response, version: &Version, stored: &StoredFile) {
    insert(response, "accept-ranges", "bytes");
    insert(response, "etag", &format!("\"{}\"", stored.etag));
    insert(response, "content-type", &stored.file.content_type);
    insert(response, "x-amz-version-id", &version.id());
    if let Some(time) = version.uploaded_at.to_chrono() {
        insert(response, "last-modified", &time.format("%a, %d %b %Y %H:%M:%S GMT").to_string());
    }
    for (name, value) in &stored.file.info {
        insert(response, &format!("x-amz-meta-{name}"), value);
    }
}

/// Leaves out what is no header: a real server could not send it either.
fn insert(response: &mut Response, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(value.as_bytes())) {
        response.headers_mut().insert(name, value);
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum RangeAnswer {
    Bytes(Range<u64>),
    Unsatisfiable,
}

/// Reads `bytes=a-b`, `bytes=a-` and `bytes=-n`; anything else is ignored, as RFC 9110 asks.
fn parse_range(value: &str, size: u64) -> Option<RangeAnswer> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first, last) {
        ("", suffix) => size.saturating_sub(suffix.parse().ok()?)..size,
        (first, "") => first.parse().ok()?..size,
        (first, last) => {
            let (first, last) = (first.parse().ok()?, last.parse::<u64>().ok()?);
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(size)
        }
    };
    Some(if range.start >= range.end { RangeAnswer::Unsatisfiable } else { RangeAnswer::Bytes(range) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_rfc_9110() {
        let table: [(&str, u64, Option<RangeAnswer>); 11] = [
            ("bytes=0-9", 100, Some(RangeAnswer::Bytes(0..10))),
            ("bytes=90-", 100, Some(RangeAnswer::Bytes(90..100))),
            ("bytes=-10", 100, Some(RangeAnswer::Bytes(90..100))),
            ("bytes=-1000", 100, Some(RangeAnswer::Bytes(0..100))),
            ("bytes=95-200", 100, Some(RangeAnswer::Bytes(95..100))),
            ("bytes=100-", 100, Some(RangeAnswer::Unsatisfiable)),
            ("bytes=100-200", 100, Some(RangeAnswer::Unsatisfiable)),
            ("bytes=-0", 100, Some(RangeAnswer::Unsatisfiable)),
            ("bytes=0-0", 0, Some(RangeAnswer::Unsatisfiable)),
            ("bytes=9-5", 100, None),
            ("lines=1-2", 100, None),
        ];
        for (value, size, expected) in table {
            assert_eq!(parse_range(value, size), expected, "{value} of {size}");
        }
    }
}
