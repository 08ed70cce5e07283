//! Which web pages may call the API from a browser: none, unless the deployment names them.

use super::errors::ApiResponse;
use b2sync_core::error::{Error, ErrorKind};

/// What a page may send besides what every page may.
const HEADERS: &str = "authorization, content-type, idempotency-key, if-match, last-event-id, x-namespace";
const METHODS: &str = "GET, HEAD, POST, PATCH, DELETE";
/// What a page may read besides what every page may.
const EXPOSED: &str = "allow, etag, retry-after";
/// How long a browser remembers it, in seconds.
const MAX_AGE_S: &str = "600";

/// The origins of pages that may call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cors {
    /// None: no answer has a header of CORS.
    #[default]
    Off,
    /// Any.
    Any,
    /// These: `https://app.example.com`.
    Of(Vec<String>),
}

impl Cors {
    /// Reads the variable `CORS_ORIGINS`: origins, separated by commas, or `*`; empty: none.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] for what is not an origin.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let origins: Vec<&str> = text.split(',').map(str::trim).filter(|origin| !origin.is_empty()).collect();
        if origins.is_empty() {
            return Ok(Self::Off);
        }
        if origins == ["*"] {
            return Ok(Self::Any);
        }
        match origins.iter().find(|origin| !is_origin(origin)) {
            None => Ok(Self::Of(origins.into_iter().map(str::to_ascii_lowercase).collect())),
            Some(wrong) => Err(Error::new(
                ErrorKind::Misconfigured,
                format!("The variable CORS_ORIGINS names {wrong:?}, which is not an origin."),
                "Write scheme and host without a path, such as https://app.example.com; several separated by commas; \
                 or * alone for any.",
            )),
        }
    }

    /// What `Access-Control-Allow-Origin` answers to a page; `None`: it may not call.
    fn allowed<'a>(&self, origin: &'a str) -> Option<&'a str> {
        match self {
            Self::Off => None,
            Self::Any => Some("*"),
            Self::Of(origins) => origins.contains(&origin.to_ascii_lowercase()).then_some(origin),
        }
    }

    /// The answer to a browser that asks whether a page may call.
    pub(super) fn preflight(&self, method: &str, origin: Option<&str>) -> Option<ApiResponse> {
        if method != "OPTIONS" {
            return None;
        }
        self.allowed(origin?)?;
        let mut response = ApiResponse::empty();
        for (name, value) in [
            ("access-control-allow-methods", METHODS),
            ("access-control-allow-headers", HEADERS),
            ("access-control-max-age", MAX_AGE_S),
        ] {
            response.headers.push((name, value.to_owned()));
        }
        Some(response)
    }

    /// Adds what lets a page read the answer.
    pub(super) fn mark(&self, response: &mut ApiResponse, origin: Option<&str>) {
        if let Self::Of(_) = self {
            // A cache must not give one page what another got.
            response.headers.push(("vary", "Origin".to_owned()));
        }
        if let Some(allowed) = origin.and_then(|origin| self.allowed(origin)) {
            response.headers.push(("access-control-allow-origin", allowed.to_owned()));
            response.headers.push(("access-control-expose-headers", EXPOSED.to_owned()));
        }
    }
}

/// Whether it is scheme, host and perhaps a port, as browsers write it.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read() {
        for nothing in ["", " ", ","] {
            assert_eq!(Cors::parse(nothing), Ok(Cors::Off));
        }
        assert_eq!(Cors::parse(" * "), Ok(Cors::Any));
        let both = Cors::parse("https://App.example.com, http://localhost:3000").unwrap();
        assert_eq!(both.allowed("https://app.example.com"), Some("https://app.example.com"));
        assert_eq!(both.allowed("http://localhost:3000"), Some("http://localhost:3000"));
        assert_eq!(both.allowed("http://localhost:3001"), None);
        assert_eq!(both.allowed("null"), None);
        for wrong in ["example.com", "https://", "https://a/b", "*, https://a", "https://*.a", "ftp://a"] {
            let error = Cors::parse(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured, "{wrong}");
        }
    }
}
