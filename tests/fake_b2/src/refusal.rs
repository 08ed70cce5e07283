//! Error answers: XML on the S3 side, JSON on the native side.

use b2sync_core::http::{HeaderValue, Method, Response, StatusCode};
use bytes::Bytes;
use serde_json::json;

/// A request that is refused, in the words of either API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: String,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into() }
    }

    /// 403 `AccessDenied` in B2's words.
    pub(super) fn not_entitled() -> Self {
        Self::new(StatusCode::FORBIDDEN, "AccessDenied", "not entitled")
    }

    /// 400 `InvalidArgument`.
    pub(super) fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidArgument", message)
    }

    /// The S3-compatible API's answer: XML, and nothing at all for HEAD.
    pub(super) fn into_xml(self, method: &Method) -> Response {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n<Error>\n    <Code>{}</Code>\n    \
             <Message>{}</Message>\n</Error>\n",
            xml_escaped(&self.code),
            xml_escaped(&self.message)
        );
        let body = if method == Method::HEAD { Bytes::new() } else { body.into() };
        respond(self.status, "application/xml", body)
    }

    /// The native API's answer.
    pub(super) fn into_json(self) -> Response {
        let body = json!({"code": self.code, "message": self.message, "status": self.status.as_u16()});
        respond_json(self.status, &body)
    }
}

/// A response with `Content-Type` and `Content-Length`.
pub(super) fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Response {
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
    response.headers_mut().insert("content-length", length);
    response
}

/// A JSON response, indented as B2 does.
pub(super) fn respond_json(status: StatusCode, body: &serde_json::Value) -> Response {
    respond(status, "application/json;charset=utf-8", format!("{body:#}").into())
}

/// Escapes text for XML. Control characters become references (`&#x1;`), which XML 1.0 forbids and S3 sends all the
/// same.
pub(super) fn xml_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            char if char.is_control() => escaped.push_str(&format!("&#x{:x};", u32::from(char))),
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_references() {
        assert_eq!(xml_escaped("a\u{1}<b>\n\"&'é"), "a&#x1;&lt;b&gt;&#xa;&quot;&amp;'é");
    }

    #[test]
    fn a_head_error_has_no_body() {
        let refusal = Refusal::new(StatusCode::NOT_FOUND, "NoSuchKey", "Key not found");
        assert!(refusal.clone().into_xml(&Method::HEAD).body().is_empty());
        let body = String::from_utf8(refusal.clone().into_xml(&Method::GET).into_body().to_vec()).unwrap();
        assert!(body.contains("<Code>NoSuchKey</Code>\n    <Message>Key not found</Message>"), "{body}");
        let body = refusal.into_json().into_body();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json, json!({"code": "NoSuchKey", "message": "Key not found", "status": 404}));
    }
}
