//! A request, as a home reads it.

use super::{
    errors::{ApiError, Problem},
    preconditions::IfMatch,
};

/// The namespace of requests without `X-Namespace`.
pub const NAMESPACE_DEFAULT: &str = "default";
/// The longest namespace, in characters.
pub(super) const NAMESPACE_CHARS_MAX: usize = 100;

/// A request. `Debug` shows neither the API key nor the body, which may hold an application key.
#[derive(Clone, Default)]
pub struct ApiRequest {
    /// In upper case.
    pub method: String,
    /// As the home's URL parser left it, percent-encoded, without the query.
    pub path: String,
    /// What stands behind the `?`, as it was sent.
    pub query: String,
    /// The header `Authorization`.
    pub authorization: Option<String>,
    /// The header `X-Namespace`.
    pub namespace: Option<String>,
    /// The header `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// The header `If-Match`.
    pub if_match: Option<String>,
    /// The header `Accept`.
    pub accept: Option<String>,
    /// The header `Origin`: the web page that a browser sends the request for.
    pub origin: Option<String>,
    /// The header `Last-Event-ID`.
    pub last_event_id: Option<String>,
    /// The whole body. More than [`super::BODY_BYTES_MAX`] is refused, so a home need read no more than one byte
    /// beyond.
    pub body: Vec<u8>,
}

impl ApiRequest {
    /// Whether a person reads the answer: a browser, or a client that takes anything, as curl does unless it is told
    /// otherwise.
    pub(super) fn is_for_people(&self) -> bool {
        self.accept.as_deref().is_some_and(|accept| accept.trim() == "*/*" || accept.contains("text/html"))
    }

    /// What `If-Match` asks for.
    pub(super) fn if_match(&self) -> IfMatch {
        IfMatch::of(self.if_match.as_deref())
    }

    /// The namespace that the request is about.
    pub(super) fn namespace(&self) -> Result<String, ApiError> {
        let given = self.namespace.as_deref().map(str::trim).filter(|namespace| !namespace.is_empty());
        let Some(namespace) = given else { return Ok(NAMESPACE_DEFAULT.to_owned()) };
        if namespace.chars().count() > NAMESPACE_CHARS_MAX || namespace.chars().any(char::is_control) {
            return Err(ApiError::Invalid(vec![Problem {
                location: vec!["header".to_owned(), "x-namespace".to_owned()],
                kind: "value_error",
                message: format!(
                    "The header X-Namespace must have 1 to {NAMESPACE_CHARS_MAX} characters, without control \
                     characters."
                ),
            }]));
        }
        Ok(namespace.to_owned())
    }
}

impl std::fmt::Debug for ApiRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiRequest")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("query", &self.query)
            .field("namespace", &self.namespace)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}
