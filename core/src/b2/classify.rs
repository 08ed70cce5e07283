//! What went wrong, from what B2 answered: one table for its native API and its S3 API.
//!
//! [`classify_response`] reads (call, status, code, message) and takes the first row of `TABLE` that fits; the last
//! rows fit everything, so every answer has a kind, a retry behaviour, and advice. Bodies are read leniently, because
//! an error may come from a proxy, be cut, or have no body at all (HEAD).
//!
//! Sources: [B2 native errors](https://www.backblaze.com/apidocs/introduction-to-the-b2-native-api), [S3 error
//! responses](https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html), and recorded B2 traffic. Not
//! recorded from B2 but assumed as AWS does it: `SignatureDoesNotMatch`, `NoSuchBucket`, `RequestTimeTooSkewed`.

use chrono::DateTime;
use quick_xml::{Reader, events::Event};
use serde::Deserialize;

use crate::{
    error::{Error, ErrorKind, Retry, quoted},
    http::{HeaderMap, Response, TransportError, TransportFault},
    time::Timestamp,
};

/// The call that was answered, with what an error should name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// `b2_authorize_account`.
    Authorize,
    /// S3 `ListObjectsV2`.
    List {
        /// The bucket that was listed.
        bucket: &'a str,
    },
    /// S3 `GetObject` or `HeadObject`.
    Object {
        /// The bucket.
        bucket: &'a str,
        /// The key.
        key: &'a str,
    },
}

impl Call<'_> {
    const fn words(self) -> &'static str {
        match self {
            Self::Authorize => "authorizing",
            Self::List { .. } => "listing the bucket",
            Self::Object { .. } => "reading a file",
        }
    }
}

/// The API that a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Api {
    Native,
    S3,
    Either,
}

/// One row. Empty `codes` and `says` fit anything.
struct Row {
    api: Api,
    status_min: u16,
    status_max: u16,
    codes: &'static [&'static str],
    /// Part of B2's message, in lower case.
    says: &'static str,
    kind: ErrorKind,
    retry: Retry,
    /// `{bucket}` and `{key}` are replaced by the call's, in quotation marks.
    message: &'static str,
    advice: &'static str,
}

/// A row that fits any code and message, to be narrowed by `..ANY`.
const ANY: Row = Row {
    api: Api::Either,
    status_min: 100,
    status_max: 999,
    codes: &[],
    says: "",
    kind: ErrorKind::Internal,
    retry: Retry::Permanent,
    message: "",
    advice: "",
};

const CHECK_KEY: &str = "In the Backblaze console, App Keys, check that the keyID is the one you entered, and that the \
     key has not expired or been deleted. The application key is shown only once: if it is lost, create a new key, \
     and use it in place of this one.";
const RAISE_CAP: &str =
    "Raise the cap in the Backblaze console, Caps & Alerts, or wait until midnight UTC, when daily caps start again.";
pub(super) const WAIT: &str = "This usually passes within minutes. If it persists, check https://status.backblaze.com.";
const READ_RIGHTS: &str = "Create a new key with List Files and Read Files enabled for this bucket, without a file \
     name prefix or with one that the source path begins with, and use it in place of this one.";

/// First fit wins: particular codes, then statuses, then the rest.
const TABLE: &[Row] = &[
    Row {
        status_min: 403,
        status_max: 403,
        codes: &["transaction_cap_exceeded", "download_cap_exceeded", "storage_cap_exceeded", "cap_exceeded"],
        kind: ErrorKind::CapExceeded,
        message: "A spending cap of the B2 account is reached.",
        advice: RAISE_CAP,
        ..ANY
    },
    Row {
        status_min: 400,
        status_max: 499,
        says: "cap exceeded",
        kind: ErrorKind::CapExceeded,
        message: "A spending cap of the B2 account is reached.",
        advice: RAISE_CAP,
        ..ANY
    },
    Row {
        status_min: 429,
        status_max: 429,
        kind: ErrorKind::RateLimited,
        retry: Retry::Temporary,
        message: "B2 receives too many requests from this account.",
        advice: WAIT,
        ..ANY
    },
    Row {
        codes: &["SlowDown", "TooManyRequests", "RequestLimitExceeded", "too_many_requests"],
        kind: ErrorKind::RateLimited,
        retry: Retry::Temporary,
        message: "B2 asks for fewer requests.",
        advice: WAIT,
        ..ANY
    },
    // b2_authorize_account
    Row {
        api: Api::Native,
        status_min: 401,
        status_max: 401,
        codes: &["unsupported"],
        kind: ErrorKind::BadCredentials,
        message: "This application key cannot be used with version 4 of B2's API.",
        advice: "Create a new application key in the Backblaze console, App Keys, and use it in place of this one.",
        ..ANY
    },
    Row {
        api: Api::Native,
        status_min: 401,
        status_max: 401,
        codes: &["expired_auth_token"],
        kind: ErrorKind::KeyExpired,
        message: "B2 says that the credentials have expired.",
        advice: CHECK_KEY,
        ..ANY
    },
    Row {
        api: Api::Native,
        status_min: 401,
        status_max: 401,
        kind: ErrorKind::BadCredentials,
        message: "The key id or the application key is incorrect.",
        advice: CHECK_KEY,
        ..ANY
    },
    Row {
        api: Api::Native,
        status_min: 403,
        status_max: 403,
        kind: ErrorKind::AccessDenied,
        message: "B2 refuses this account or application key.",
        advice: "Sign in to the Backblaze console: the account may be suspended or have an unpaid bill. Otherwise \
                 create a new key, and use it in place of this one.",
        ..ANY
    },
    // S3
    Row {
        api: Api::S3,
        codes: &["InvalidAccessKeyId"],
        says: "malformed access key id",
        kind: ErrorKind::BadCredentials,
        message: "B2's S3 API does not accept this key id.",
        advice: "The master application key does not work with the S3 API: create an application key in the Backblaze \
                 console, App Keys, and use it in place of this one.",
        ..ANY
    },
    Row {
        api: Api::S3,
        codes: &["InvalidAccessKeyId"],
        kind: ErrorKind::BadCredentials,
        message: "B2's S3 API does not know this key id.",
        advice: "The key may have been deleted, or belong to another region than the connection's endpoint: test the \
                 connection, and if that fails create a new key. The master application key does not work with the S3 \
                 API.",
        ..ANY
    },
    Row {
        api: Api::S3,
        codes: &["ExpiredToken", "expired_auth_token"],
        kind: ErrorKind::KeyExpired,
        message: "The application key has expired.",
        advice: "Create a new application key in the Backblaze console, App Keys, and use it in place of this one.",
        ..ANY
    },
    Row {
        api: Api::S3,
        codes: &["SignatureDoesNotMatch"],
        kind: ErrorKind::BadCredentials,
        message: "The application key does not belong to this key id.",
        advice: CHECK_KEY,
        ..ANY
    },
    Row {
        api: Api::S3,
        says: "signature validation failed",
        kind: ErrorKind::BadCredentials,
        message: "The application key does not belong to this key id.",
        advice: CHECK_KEY,
        ..ANY
    },
    Row {
        api: Api::S3,
        codes: &["AuthorizationHeaderMalformed"],
        kind: ErrorKind::AccessDenied,
        message: "B2 does not accept the signature, perhaps because the endpoint is of another region.",
        advice: "Test the connection: that finds its endpoint and region again.",
        ..ANY
    },
    Row {
        api: Api::S3,
        codes: &["RequestTimeTooSkewed", "RequestExpired"],
        kind: ErrorKind::ClockSkew,
        message: "B2's clock and the clock of this machine differ by more than 15 minutes.",
        advice: "Set the clock of the machine that b2sync runs on.",
        ..ANY
    },
    Row {
        api: Api::S3,
        codes: &["NoSuchBucket"],
        kind: ErrorKind::BucketNotFound,
        message: "There is no bucket {bucket} in this account.",
        advice: "Check the bucket in source_path against the Buckets page of the Backblaze console. Bucket names are \
                 case-sensitive.",
        ..ANY
    },
    Row {
        api: Api::S3,
        says: "not entitled",
        kind: ErrorKind::AccessDenied,
        message: "The application key is not entitled to read {bucket} with this prefix.",
        advice: READ_RIGHTS,
        ..ANY
    },
    Row {
        api: Api::S3,
        codes: &["NoSuchKey"],
        kind: ErrorKind::NotFound,
        message: "There is no file {key} in the bucket {bucket}.",
        advice: "It was deleted or hidden since it was listed. The next job finds that out.",
        ..ANY
    },
    Row {
        api: Api::S3,
        status_min: 401,
        status_max: 401,
        kind: ErrorKind::BadCredentials,
        message: "B2's S3 API does not accept the credentials.",
        advice: CHECK_KEY,
        ..ANY
    },
    Row {
        api: Api::S3,
        status_min: 403,
        status_max: 403,
        kind: ErrorKind::AccessDenied,
        message: "The application key may not read {bucket}.",
        advice: READ_RIGHTS,
        ..ANY
    },
    Row {
        api: Api::S3,
        status_min: 404,
        status_max: 404,
        kind: ErrorKind::NotFound,
        message: "B2 finds neither the bucket {bucket} nor what was asked for in it.",
        advice: "Check source_path: bucket names are case-sensitive.",
        ..ANY
    },
    // What B2 says exactly of a bucket that is too old for its S3 API was never recorded.
    Row {
        api: Api::S3,
        status_min: 400,
        status_max: 400,
        codes: &["InvalidRequest"],
        kind: ErrorKind::AccessDenied,
        message: "B2's S3 API rejects the request for the bucket {bucket}.",
        advice: "Buckets that were created before 4 May 2020 do not work with it: create a new bucket and copy the \
                 files there. Otherwise check source_path; if it is right, report this message as a defect of b2sync.",
        ..ANY
    },
    // By status alone
    Row {
        status_min: 408,
        status_max: 408,
        kind: ErrorKind::ServiceUnavailable,
        retry: Retry::Temporary,
        message: "B2 gave up waiting for the request.",
        advice: WAIT,
        ..ANY
    },
    Row {
        status_min: 500,
        status_max: 500,
        kind: ErrorKind::ServiceUnavailable,
        retry: Retry::Temporary,
        message: "B2 failed.",
        advice: WAIT,
        ..ANY
    },
    Row {
        status_min: 502,
        status_max: 504,
        kind: ErrorKind::ServiceUnavailable,
        retry: Retry::Temporary,
        message: "B2 is busy.",
        advice: WAIT,
        ..ANY
    },
    // What Cloudflare's network answers in place of a server that it cannot reach.
    Row {
        status_min: 520,
        status_max: 530,
        kind: ErrorKind::ServiceUnavailable,
        retry: Retry::Temporary,
        message: "B2 cannot be reached.",
        advice: WAIT,
        ..ANY
    },
    Row {
        status_min: 500,
        kind: ErrorKind::ServiceUnavailable,
        message: "B2 cannot answer this request.",
        advice: "Check that the API URL is Backblaze's, and check https://status.backblaze.com.",
        ..ANY
    },
    Row {
        api: Api::Native,
        status_min: 400,
        status_max: 499,
        kind: ErrorKind::Internal,
        message: "B2 rejected the request as invalid.",
        advice: "Check that the API URL is Backblaze's, https://api.backblazeb2.com. If it is, this is a defect of \
                 b2sync: please report it with this message.",
        ..ANY
    },
    Row {
        status_min: 400,
        kind: ErrorKind::Internal,
        message: "B2 rejected the request as invalid.",
        advice: "Check source_path. If it is right, this is a defect of b2sync: please report it with this message.",
        ..ANY
    },
    Row {
        kind: ErrorKind::MalformedResponse,
        message: "B2 answered with an unexpected status.",
        advice: "Check that the API URL is Backblaze's, https://api.backblazeb2.com, and that no proxy stands between.",
        ..ANY
    },
];

impl Row {
    fn fits(&self, api: Api, status: u16, code: &str, message: &str) -> bool {
        (self.api == Api::Either || self.api == api)
            && (self.status_min..=self.status_max).contains(&status)
            && (self.codes.is_empty() || self.codes.contains(&code))
            && message.contains(self.says)
    }
}

/// The error that `response` stands for; `response` is not a success. `now` turns a date in `Retry-After` into a wait.
///
/// ```
/// use b2sync_core::{b2::classify::{Call, classify_response}, http::Response, time::Timestamp, ErrorKind};
///
/// let body = "<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist: x</Message></Error>";
/// let mut response = Response::new(body.into());
/// *response.status_mut() = b2sync_core::http::StatusCode::NOT_FOUND;
/// let error = classify_response(Call::List { bucket: "My-Videos" }, &response, Timestamp::from_millis(0));
/// assert_eq!(error.kind(), ErrorKind::BucketNotFound);
/// assert!(error.message().starts_with("There is no bucket \"My-Videos\" in this account."));
/// assert!(error.advice().contains("case-sensitive"));
/// ```
pub fn classify_response(call: Call<'_>, response: &Response, now: Timestamp) -> Error {
    // What is an error in spite of a success began as one that was not yet known to fail.
    let status = if is_error_document(response) { 503 } else { response.status().as_u16() };
    let body = ErrorBody::parse(response.body());
    let api = if call == Call::Authorize { Api::Native } else { Api::S3 };
    let said = body.message.to_lowercase();
    let Some(row) = TABLE.iter().find(|row| row.fits(api, status, &body.code, &said)) else {
        return Error::internal(format!("No rule classifies the status {status}.")); // The last row fits all.
    };
    let (bucket, key) = match call {
        Call::Authorize => ("", ""),
        Call::List { bucket } => (bucket, ""),
        Call::Object { bucket, key } => (bucket, key),
    };
    // The key last: it may itself hold "{bucket}".
    let mut message = row.message.replace("{bucket}", &quoted(bucket)).replace("{key}", &quoted(key));
    if !body.message.is_empty() {
        message.push_str(&format!(" B2 says: {}.", quoted(&body.message)));
    }
    Error::new(row.kind, message, row.advice)
        .with_retry(row.retry)
        .with_response(status, (!body.code.is_empty()).then_some(&*body.code))
        .with_retry_after_ms(parse_retry_after(response.headers(), now))
}

/// Whether a success carries an error document, as S3 servers send it where they find out late that they fail.
pub fn is_error_document(response: &Response) -> bool {
    let Some(body) = response.body().get(..response.body().len().min(200)) else { return false };
    let body = body.trim_ascii_start();
    let body = match body.strip_prefix(b"<?xml") {
        Some(rest) => {
            rest.iter().position(|byte| *byte == b'>').and_then(|end| rest.get(end + 1..)).unwrap_or_default()
        }
        None => body,
    };
    response.status().is_success() && body.trim_ascii_start().starts_with(b"<Error>")
}

/// The error that a failed exchange stands for: temporary, except for a body that is too large.
pub fn classify_transport(call: Call<'_>, error: &TransportError) -> Error {
    let what = match error.fault {
        TransportFault::TimedOut => "B2 did not answer in time",
        TransportFault::Unreachable => "B2 cannot be reached",
        TransportFault::Interrupted => "The connection to B2 broke",
        TransportFault::BodyTooLarge => {
            return Error::new(
                ErrorKind::MalformedResponse,
                format!("B2's answer is longer than the limit, while {} ({}).", call.words(), error.message),
                "Check that the API URL is Backblaze's, https://api.backblazeb2.com, and that no proxy stands between.",
            );
        }
    };
    Error::new(ErrorKind::Transport, format!("{what} while {} ({}).", call.words(), error.message), WAIT)
        .with_retry(Retry::Temporary)
}

/// Whether authorizing again may help after `error`: endpoint, region or rights may have changed since they were
/// cached.
///
/// True for what a wrong endpoint or region looks like, and for refusals; never for an error of `b2_authorize_account`
/// itself, which has just been asked. Worth one more authorization, not a loop.
pub fn suggests_stale_account(call: Call<'_>, error: &Error) -> bool {
    call != Call::Authorize
        && match error.kind() {
            ErrorKind::AccessDenied | ErrorKind::BucketNotFound | ErrorKind::KeyExpired => true,
            ErrorKind::BadCredentials => error.code() == Some("InvalidAccessKeyId"),
            ErrorKind::MalformedResponse => matches!(error.status(), Some(300..=399)),
            _ => false,
        }
}

/// `Retry-After` in milliseconds: seconds or an HTTP date ([RFC 9110,
/// 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)). A date that is past is no wait; what is neither is
/// ignored.
fn parse_retry_after(headers: &HeaderMap, now: Timestamp) -> Option<u64> {
    let text = headers.get(::http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds.saturating_mul(1_000));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    Some(Timestamp::from_millis(date.timestamp_millis()).millis_since(now))
}

/// How much of a body is searched for an error, in bytes.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What an error's body says; empty where it says nothing.
#[derive(Debug, Default, PartialEq, Eq)]
struct ErrorBody {
    code: String,
    message: String,
}

#[derive(Deserialize)]
struct ErrorWire {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

impl ErrorBody {
    /// Native JSON `{"code","message","status"}`, S3 XML `<Error><Code/><Message/></Error>`, or nothing.
    fn parse(body: &[u8]) -> Self {
        let body = body.get(..BODY_BYTES_MAX).unwrap_or(body);
        if let Ok(wire) = serde_json::from_slice::<ErrorWire>(body) {
            return Self { code: wire.code.unwrap_or_default(), message: wire.message.unwrap_or_default() };
        }
        Self::parse_xml(&String::from_utf8_lossy(body))
    }

    /// Takes what it finds before the first fault.
    fn parse_xml(text: &str) -> Self {
        let mut found = Self::default();
        let mut reader = Reader::from_str(text);
        let mut path: Vec<String> = Vec::new();
        while let Ok(event) = reader.read_event() {
            let said = match event {
                Event::Start(start) => {
                    path.push(start.local_name().as_ref().to_owned());
                    continue;
                }
                Event::End(_) => {
                    path.pop();
                    continue;
                }
                Event::Text(text) => text.into_inner().into_owned(),
                Event::CData(text) => text.into_inner().into_owned(),
                Event::GeneralRef(entity) => resolve_entity(&entity).unwrap_or_default(),
                Event::Eof => break,
                _ => continue,
            };
            match path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["Error", "Code"] => found.code.push_str(said.trim()),
                ["Error", "Message"] => found.message.push_str(&said),
                _ => {}
            }
        }
        found.message = found.message.trim().to_owned();
        found
    }
}

/// What `&entity;` stands for: a character reference, or one of XML's five names.
pub(super) fn resolve_entity(entity: &quick_xml::events::BytesRef<'_>) -> Option<String> {
    if let Ok(Some(character)) = entity.resolve_char_ref() {
        return Some(character.into());
    }
    quick_xml::escape::resolve_predefined_entity(entity).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::StatusCode;
    use ErrorKind::*;
    use Retry::{Permanent, Temporary};
    use bytes::Bytes;
    use proptest::prelude::*;

    const LIST: Call<'static> = Call::List { bucket: "my-videos" };
    const NOW: Timestamp = Timestamp::from_millis(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT

    fn response(status: u16, body: impl Into<Bytes>) -> Response {
        let mut response = Response::new(body.into());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    }

    fn json(status: u16, code: &str, message: &str) -> Response {
        response(status, format!(r#"{{"code":"{code}","message":"{message}","status":{status}}}"#))
    }

    fn xml(status: u16, code: &str, message: &str) -> Response {
        let head = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>"#;
        response(status, format!("{head}\n<Error>\n  <Code>{code}</Code>\n  <Message>{message}</Message>\n</Error>\n"))
    }

    #[test]
    fn every_answer_has_its_kind_retry_and_advice() {
        let a = Call::Authorize;
        let o = Call::Object { bucket: "my-videos", key: "a.mp4" };
        for (call, response, kind, retry, text) in [
            (
                a,
                json(401, "bad_auth_token", ""),
                BadCredentials,
                Permanent,
                "key id or the application key is incorrect",
            ),
            (a, json(401, "unauthorized", ""), BadCredentials, Permanent, "expired or been deleted"),
            (a, json(401, "expired_auth_token", ""), KeyExpired, Permanent, "have expired"),
            (a, json(401, "unsupported", "v4"), BadCredentials, Permanent, "version 4"),
            (a, response(401, ""), BadCredentials, Permanent, "incorrect"),
            (a, json(403, "access_denied", ""), AccessDenied, Permanent, "suspended"),
            (a, json(403, "transaction_cap_exceeded", "x"), CapExceeded, Permanent, "Caps & Alerts"),
            (a, json(403, "download_cap_exceeded", "x"), CapExceeded, Permanent, "Caps & Alerts"),
            (a, json(429, "too_many_requests", ""), RateLimited, Temporary, "too many requests"),
            (a, json(503, "service_unavailable", "busy"), ServiceUnavailable, Temporary, "usually passes"),
            (a, json(500, "internal_error", ""), ServiceUnavailable, Temporary, "failed"),
            (a, json(408, "request_timeout", ""), ServiceUnavailable, Temporary, "gave up"),
            (a, json(400, "bad_request", "x"), Internal, Permanent, "B2 says: \"x\". Check that the API URL"),
            (a, json(404, "not_found", "x"), Internal, Permanent, "Check that the API URL"),
            (a, response(302, ""), MalformedResponse, Permanent, "API URL"),
            (
                LIST,
                xml(403, "InvalidAccessKeyId", "Malformed Access Key Id"),
                BadCredentials,
                Permanent,
                "master application key",
            ),
            (
                LIST,
                xml(403, "InvalidAccessKeyId", "The key &apos;005&apos; is not valid"),
                BadCredentials,
                Permanent,
                "B2 says: \"The key '005' is not valid\"",
            ),
            (LIST, xml(403, "SignatureDoesNotMatch", "…"), BadCredentials, Permanent, "does not belong to this key id"),
            (
                LIST,
                xml(403, "AccessDenied", "Signature validation failed"),
                BadCredentials,
                Permanent,
                "does not belong",
            ),
            (LIST, xml(400, "AuthorizationHeaderMalformed", "region"), AccessDenied, Permanent, "another region"),
            (
                LIST,
                xml(403, "AccessDenied", "not entitled"),
                AccessDenied,
                Permanent,
                "not entitled to read \"my-videos\"",
            ),
            (LIST, xml(403, "AccessDenied", "Access Denied"), AccessDenied, Permanent, "List Files and Read Files"),
            (LIST, xml(403, "AccessDenied", "Transaction cap exceeded"), CapExceeded, Permanent, "Raise the cap"),
            (LIST, xml(403, "RequestTimeTooSkewed", ""), ClockSkew, Permanent, "Set the clock"),
            (LIST, xml(403, "ExpiredToken", ""), KeyExpired, Permanent, "Create a new"),
            (LIST, xml(404, "NoSuchBucket", "x"), BucketNotFound, Permanent, "no bucket \"my-videos\""),
            (LIST, xml(503, "SlowDown", "no tomes available"), RateLimited, Temporary, "usually passes"),
            (LIST, xml(503, "ServiceUnavailable", "no tomes available"), ServiceUnavailable, Temporary, "no tomes"),
            (LIST, xml(400, "InvalidRequest", "m"), AccessDenied, Permanent, "created before 4 May 2020"),
            (LIST, xml(400, "InvalidArgument", "Unsupported header"), Internal, Permanent, "Unsupported header"),
            (LIST, response(502, "<html>Bad gateway"), ServiceUnavailable, Temporary, "busy"),
            (LIST, response(504, ""), ServiceUnavailable, Temporary, "busy"),
            (LIST, response(522, ""), ServiceUnavailable, Temporary, "cannot be reached"),
            (LIST, response(501, ""), ServiceUnavailable, Permanent, "cannot answer"),
            (LIST, response(429, ""), RateLimited, Temporary, "too many"),
            (LIST, response(401, ""), BadCredentials, Permanent, "credentials"),
            (o, response(403, ""), AccessDenied, Permanent, "may not read \"my-videos\""),
            (o, response(404, ""), NotFound, Permanent, "neither the bucket"),
            (o, xml(404, "NoSuchKey", ""), NotFound, Permanent, "no file \"a.mp4\""),
        ] {
            let error = classify_response(call, &response, NOW);
            assert_eq!((error.kind(), error.retry()), (kind, retry), "{error}");
            assert!(error.to_string().contains(text), "{error}");
            assert_eq!(error.status(), Some(response.status().as_u16()));
            assert!(!error.advice().is_empty());
        }
    }

    #[test]
    fn the_code_is_kept() {
        assert_eq!(classify_response(LIST, &xml(404, "NoSuchBucket", ""), NOW).code(), Some("NoSuchBucket"));
        assert_eq!(classify_response(LIST, &response(500, "<html>"), NOW).code(), None);
        assert_eq!(classify_response(LIST, &response(500, "<Error><Code>A</Code><Mess"), NOW).code(), Some("A"));
    }

    #[test]
    fn a_stale_account_shows_in_refusals() {
        for (call, response, stale) in [
            (LIST, xml(403, "InvalidAccessKeyId", "The key 'x' is not valid"), true),
            (LIST, xml(400, "AuthorizationHeaderMalformed", ""), true),
            (LIST, xml(403, "AccessDenied", "not entitled"), true),
            (LIST, xml(404, "NoSuchBucket", ""), true),
            (LIST, xml(301, "PermanentRedirect", ""), true),
            (LIST, xml(403, "SignatureDoesNotMatch", ""), false),
            (LIST, xml(503, "SlowDown", ""), false),
            (Call::Authorize, json(403, "access_denied", ""), false),
        ] {
            let error = classify_response(call, &response, NOW);
            assert_eq!(suggests_stale_account(call, &error), stale, "{error}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        for (text, millis) in [
            ("7", Some(7_000)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10_000)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            ("99999999999999999999", None),
            ("18446744073709551615", Some(u64::MAX)),
            ("soon", None),
            ("-1", None),
        ] {
            let mut response = response(503, "");
            response.headers_mut().insert("retry-after", text.parse().unwrap());
            assert_eq!(classify_response(LIST, &response, NOW).retry_after_ms(), millis, "{text}");
        }
    }

    #[test]
    fn a_failed_exchange_is_temporary() {
        use TransportFault::*;
        for (fault, kind, retry) in [
            (TimedOut, Transport, Temporary),
            (Unreachable, Transport, Temporary),
            (Interrupted, Transport, Temporary),
            (BodyTooLarge, MalformedResponse, Permanent),
        ] {
            let error = classify_transport(LIST, &TransportError { fault, message: "reset by peer".into() });
            assert_eq!((error.kind(), error.retry()), (kind, retry));
            assert!(error.message().contains("listing the bucket (reset by peer)"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_status_and_body_have_a_row(
            status in 100_u16..=999,
            body in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let response = response(status, body);
            for call in [Call::Authorize, LIST] {
                let error = classify_response(call, &response, NOW);
                prop_assert!(!error.message().contains("No rule classifies"));
            }
        }
    }
}
