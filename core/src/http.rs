//! The transport seam: one request, one response.
//!
//! A non-2xx answer is a *response*; only an exchange that failed is a [`TransportError`]. Nothing is retried here
//! and no redirect is followed: retries live in one place above ([`crate::retry`]), and a redirected request would
//! carry a signature that no longer fits.

use bytes::Bytes;

pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

/// A request with its whole body.
pub type Request = ::http::Request<Bytes>;
/// A response with its whole body.
pub type Response = ::http::Response<Bytes>;

/// What one exchange may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeLimits {
    /// From sending the request to the last byte of the body, in milliseconds.
    pub timeout_ms: u64,
    /// The largest body to read, in bytes. A longer one is a [`TransportFault::BodyTooLarge`].
    pub body_bytes_max: usize,
}

impl ExchangeLimits {
    /// For a page of 1,000 keys: the longest possible one (1,024-byte keys, every byte percent-encoded, all fields
    /// present) is about 3.6 MB.
    pub const LIST_PAGE: Self = Self { timeout_ms: 30_000, body_bytes_max: 8 << 20 };
    /// For the small JSON answers of B2's native API.
    pub const SMALL: Self = Self { timeout_ms: 15_000, body_bytes_max: 1 << 20 };
}

/// Why an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransportFault {
    /// No complete response within [`ExchangeLimits::timeout_ms`].
    TimedOut,
    /// The server was not reached: no such host, connection refused, TLS failed.
    Unreachable,
    /// The connection ended before the response was complete.
    Interrupted,
    /// The body is longer than [`ExchangeLimits::body_bytes_max`].
    BodyTooLarge,
}

/// A failed exchange: there is no response to look at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    /// The kind of failure; decides whether to try again.
    pub fault: TransportFault,
    /// What the home's HTTP stack said. Holds no URL query and no header.
    pub message: String,
}

/// Sends requests. Implemented by each home.
pub trait HttpClient {
    /// Exchanges one request for one response.
    ///
    /// # Errors
    /// Only when there is no complete response; any status is `Ok`.
    async fn send(&self, request: Request, limits: ExchangeLimits) -> Result<Response, TransportError>;
}

impl<T: HttpClient + ?Sized> HttpClient for &T {
    async fn send(&self, request: Request, limits: ExchangeLimits) -> Result<Response, TransportError> {
        (**self).send(request, limits).await
    }
}
