//! Errors as HTTP answers: one `match` from [`ErrorKind`] to a status and a type name, one envelope.
//!
//! What B2 refuses is never 401 or 403 here: those speak of the API key of the request. It is a 400, whose `code` is
//! the kind.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::render;
use b2sync_core::error::{Error, ErrorKind, Retry};

/// The wait to ask for if the error names none, in milliseconds.
const RETRY_AFTER_DEFAULT_MS: u64 = 5_000;

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `["body", "file_filters", "min_size_bytes"]`.
    pub location: Vec<String>,
    /// What kind, in the words of pydantic: `missing`, `extra_forbidden`, …
    pub kind: &'static str,
    /// What is wrong and what is right.
    pub message: String,
}

/// Why a request got no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// Something failed.
    Failed(Error),
    /// Changes that were asked for are no longer in the feed.
    FeedGap {
        /// Which, and what to do.
        error: Error,
        /// The position of the oldest change that is there.
        first: u64,
    },
    /// The request breaks these rules.
    Invalid(Vec<Problem>),
    /// `If-Match` names another state of the record.
    PreconditionFailed {
        /// The tag of the record as it is now, without quotes.
        etag: String,
    },
    /// The path has other methods.
    MethodNotAllowed {
        /// The `Allow` header.
        allow: String,
    },
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What an operation answers; `null` is an answer without a body.
pub(super) type Answered = Result<Value, ApiError>;

/// What an operation with a large answer answers: the JSON. To build it as a [`Value`] first takes several times as
/// long.
pub(super) type AnsweredText = Result<String, ApiError>;

/// An answer as a value.
pub(super) fn json_value(answer: &impl Serialize) -> Answered {
    serde_json::to_value(answer).map_err(|error| not_encoded(&error))
}

/// The JSON of an answer.
pub(super) fn json_text(answer: &impl Serialize) -> AnsweredText {
    serde_json::to_string(answer).map_err(|error| not_encoded(&error))
}

fn not_encoded(error: &serde_json::Error) -> ApiError {
    Error::internal(format!("An answer does not encode: {error}.")).into()
}

/// The type of an answer that is events.
pub(super) const EVENT_STREAM: &str = "text/event-stream";

/// What a successful answer says.
#[derive(Debug)]
pub(super) enum Said {
    Json(String),
    /// As [`EVENT_STREAM`].
    Events(String),
    /// A page of HTML.
    Page(String),
}

/// An HTTP answer; the body is JSON, events, or a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiResponse {
    /// 200 on every success; 204 where there is nothing to say.
    pub status: u16,
    /// All of them, names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// JSON, events or HTML; empty with 204.
    pub body: Vec<u8>,
}

impl ApiResponse {
    /// An answer with that JSON.
    pub(crate) fn json(status: u16, body: String) -> Self {
        Self {
            status,
            headers: vec![
                ("content-type", "application/json".to_owned()),
                ("cache-control", "no-store".to_owned()),
                ("x-content-type-options", "nosniff".to_owned()),
                ("referrer-policy", "no-referrer".to_owned()),
                ("content-security-policy", "default-src 'none'; frame-ancestors 'none'".to_owned()),
            ],
            body: body.into_bytes(),
        }
    }

    /// A page of HTML, whose style stands in it.
    fn page(body: String) -> Self {
        let mut response = Self::json(200, body);
        for (name, value) in &mut response.headers {
            match *name {
                "content-type" => *value = "text/html; charset=utf-8".to_owned(),
                "content-security-policy" => {
                    *value = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'".to_owned();
                }
                _ => {}
            }
        }
        response
    }

    /// A success with that to say; a home may add headers.
    pub(super) fn of(said: Said) -> Self {
        match said {
            Said::Json(body) => Self::json(200, body),
            Said::Page(body) => Self::page(body),
            Said::Events(body) => {
                let mut response = Self::json(200, body);
                if let Some((_, value)) = response.headers.iter_mut().find(|(name, _)| *name == "content-type") {
                    EVENT_STREAM.clone_into(value);
                }
                response
            }
        }
    }

    /// Writes JSON in lines, for people. What is not JSON stays.
    pub(crate) fn make_readable(&mut self) {
        let value: Option<Value> = serde_json::from_slice(&self.body).ok();
        if let Some(mut lines) = value.and_then(|value| serde_json::to_vec_pretty(&value).ok()) {
            lines.push(b'\n');
            self.body = lines;
        }
    }

    /// A success that has nothing to say.
    pub(crate) fn empty() -> Self {
        Self { status: 204, headers: vec![("cache-control", "no-store".to_owned())], body: Vec::new() }
    }
}

/// The status and the type name of each kind of error.
pub fn http_status(kind: ErrorKind) -> (u16, &'static str) {
    match kind {
        ErrorKind::InvalidInput => (422, "ValidationError"),
        ErrorKind::BadCredentials
        | ErrorKind::KeyExpired
        | ErrorKind::CapabilityMissing
        | ErrorKind::BucketNotAllowed
        | ErrorKind::PrefixNotAllowed
        | ErrorKind::BucketNotFound
        | ErrorKind::AccessDenied
        | ErrorKind::CapExceeded => (400, "BadRequestError"),
        ErrorKind::Unauthorized => (401, "UnauthorizedError"),
        ErrorKind::NotFound => (404, "NotFoundError"),
        ErrorKind::Conflict | ErrorKind::StateConflict | ErrorKind::TooManyDeletions => (409, "ConflictError"),
        ErrorKind::FeedGap => (410, "GoneError"),
        ErrorKind::RateLimited => (429, "TooManyRequestsError"),
        ErrorKind::ClockSkew | ErrorKind::MalformedResponse | ErrorKind::ListingOrder | ErrorKind::ListingStuck => {
            (502, "BadGatewayError")
        }
        ErrorKind::ServiceUnavailable | ErrorKind::Transport | ErrorKind::Storage | ErrorKind::Sink => {
            (503, "ServiceUnavailableError")
        }
        ErrorKind::StateMissing
        | ErrorKind::StateCorrupt
        | ErrorKind::Sealing
        | ErrorKind::Misconfigured
        | ErrorKind::Internal => (500, "InternalServerError"),
    }
}

impl ApiError {
    /// As an answer.
    pub fn into_response(self) -> ApiResponse {
        match self {
            Self::Failed(error) => failed(&error, Map::new()),
            Self::FeedGap { error, first } => {
                failed(&error, Map::from_iter([("first".to_owned(), render::integer(first))]))
            }
            Self::Invalid(problems) => invalid(&problems),
            Self::PreconditionFailed { etag } => {
                let message = format!(
                    "The record was changed since it was read: its etag is \"{etag}\", and If-Match names another. \
                     Read it again, and send the change with the etag that it has then."
                );
                let details = json!({"retryable": false, "etag": etag});
                envelope(412, "PreconditionFailedError", "precondition_failed", &message, details)
            }
            Self::MethodNotAllowed { allow } => {
                let message = format!("Method not allowed. Allowed: {allow}.");
                let details = Map::from_iter([("retryable".to_owned(), false.into())]);
                let mut response =
                    envelope(405, "MethodNotAllowedError", "method_not_allowed", &message, Value::Object(details));
                response.headers.push(("allow", allow));
                response
            }
        }
    }
}

/// `details` are those that only this error has.
fn failed(error: &Error, mut details: Map<String, Value>) -> ApiResponse {
    if error.kind() == ErrorKind::InvalidInput
        && let Some(field) = error.field()
    {
        return invalid(&[problem_of(error, field)]);
    }
    let (status, mut name) = http_status(error.kind());
    if error.kind() == ErrorKind::Conflict && error.field().is_some() {
        name = "AlreadyExistsError"; // A conflict about a field is a name that is taken.
    }
    let retryable = error.is_transient();
    details.insert("retryable".to_owned(), retryable.into());
    details.insert("advice".to_owned(), error.advice().into());
    if let Some(field) = error.field() {
        details.insert("field".to_owned(), field.into());
    }
    if let Some(b2_status) = error.status() {
        details.insert("b2".to_owned(), json!({"status": b2_status, "code": error.code()}));
    }
    if error.retry() == Retry::Exhausted {
        details.insert("attempts".to_owned(), error.attempts().into());
    }
    let retry_after_s = (retryable && matches!(status, 429 | 503))
        .then(|| error.retry_after_ms().unwrap_or(RETRY_AFTER_DEFAULT_MS).div_ceil(1_000).max(1));
    if let Some(seconds) = retry_after_s {
        details.insert("retry_after_seconds".to_owned(), seconds.into());
    }
    let mut response = envelope(status, name, error.kind().as_str(), &error.to_string(), Value::Object(details));
    if let Some(seconds) = retry_after_s {
        response.headers.push(("retry-after", seconds.to_string()));
    }
    if status == 401 {
        response.headers.push(("www-authenticate", "Bearer".to_owned()));
    }
    response
}

/// An [`ErrorKind::InvalidInput`] of the core as a problem of the body: its field is a path such as
/// `file_filters.include_patterns[2]`.
pub(crate) fn problem_of(error: &Error, field: &str) -> Problem {
    let location = std::iter::once("body").chain(field.split('.')).map(str::to_owned).collect();
    Problem { location, kind: "value_error", message: format!("{} {}", error.message(), error.advice()) }
}

fn invalid(problems: &[Problem]) -> ApiResponse {
    let message = match problems {
        [] => "The request is not valid.".to_owned(),
        [only] => only.message.clone(),
        [first, rest @ ..] => {
            let more = rest.len();
            let plural = if more == 1 { "problem" } else { "problems" };
            format!("{} {more} more {plural} in details.validation_errors.", first.message)
        }
    };
    let list: Vec<Value> = problems
        .iter()
        .map(|problem| json!({"type": problem.kind, "location": problem.location, "message": problem.message}))
        .collect();
    let details = json!({"retryable": false, "validation_errors": list});
    envelope(422, "ValidationError", ErrorKind::InvalidInput.as_str(), &message, details)
}

fn envelope(status: u16, name: &str, code: &str, message: &str, details: Value) -> ApiResponse {
    ApiResponse::json(
        status,
        json!({
            "success": false,
            "status": status,
            "error": {"message": message, "type": name, "code": code, "details": details},
        })
        .to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use strum::VariantArray;

    fn body(response: &ApiResponse) -> Value {
        serde_json::from_slice(&response.body).unwrap()
    }

    #[test]
    fn every_kind_has_an_envelope() {
        for kind in ErrorKind::VARIANTS.iter().copied() {
            let response = ApiError::from(Error::new(kind, "What.", "Do this.")).into_response();
            let body = body(&response);
            assert_eq!(body["success"], false);
            assert_eq!(body["status"], response.status);
            assert_eq!(body["error"]["code"], kind.as_str());
            assert!((400..=599).contains(&response.status));
            assert!(body["error"]["message"].as_str().unwrap().contains("Do this."), "{kind:?}");
            assert_eq!(body["error"]["details"]["retryable"], false);
            assert!(response.headers.iter().all(|(name, _)| *name != "retry-after"), "a permanent error");
            assert_eq!(response.status == 401, kind == ErrorKind::Unauthorized, "401 speaks of the API key alone");
        }
    }

    #[test]
    fn what_may_succeed_later_says_when() {
        for (kind, status) in [(ErrorKind::RateLimited, 429), (ErrorKind::ServiceUnavailable, 503)] {
            let error =
                Error::new(kind, "Busy.", "Wait.").with_retry(Retry::Exhausted).with_response(503, Some("SlowDown"));
            let response = ApiError::from(error.clone().with_retry_after_ms(Some(1_200))).into_response();
            assert_eq!(response.status, status);
            assert!(response.headers.contains(&("retry-after", "2".to_owned())));
            let details = &body(&response)["error"]["details"];
            assert_eq!(details["retry_after_seconds"], 2);
            assert_eq!(details["retryable"], true);
            assert_eq!(details["b2"], json!({"status": 503, "code": "SlowDown"}));
            let response = ApiError::from(error).into_response();
            assert!(response.headers.contains(&("retry-after", "5".to_owned())));
        }
    }

    #[test]
    fn a_field_of_the_core_is_a_validation_error() {
        let error =
            Error::new(ErrorKind::InvalidInput, "No glob.", "Write one.").with_field("file_filters.extensions[2]");
        let response = ApiError::from(error).into_response();
        assert_eq!(
            body(&response)["error"]["details"]["validation_errors"],
            json!([{"type": "value_error", "location": ["body", "file_filters", "extensions[2]"],
                    "message": "No glob. Write one."}])
        );
    }

    #[test]
    fn a_taken_name_and_a_state_are_told_apart() {
        let name = |error: Error| body(&ApiError::from(error).into_response())["error"]["type"].clone();
        assert_eq!(name(crate::registry::refusals::name_taken("A")), "AlreadyExistsError");
        assert_eq!(name(Error::new(ErrorKind::Conflict, "In use.", "Wait.")), "ConflictError");
    }
}
