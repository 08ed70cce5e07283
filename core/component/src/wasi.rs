//! Transport, time and entropy from WASI 0.2, by way of `wstd`.

use std::time::{Duration as StdDuration, SystemTime, UNIX_EPOCH};

use b2sync_core::{
    entropy::Entropy,
    http::{ExchangeLimits, HttpClient, Request, Response, TransportError, TransportFault},
    time::{Clock, Timestamp},
};
use bytes::{Bytes, BytesMut};
use wstd::{
    future::FutureExt as _,
    http::{Body, BodyExt as _, Client, Error, ErrorCode, body::util::Empty},
    task::sleep,
    time::Duration,
};

/// `wasi:http`, `wasi:clocks` and `wasi:random`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wasi;

impl HttpClient for Wasi {
    async fn send(&self, request: Request, limits: ExchangeLimits) -> Result<Response, TransportError> {
        // One limit over the whole exchange, kept here: the options of wasi:http know none, and a host may ignore them.
        let exchange = exchange(request, limits).timeout(sleep(Duration::from_millis(limits.timeout_ms)));
        exchange.await.unwrap_or_else(|_| {
            Err(fault(TransportFault::TimedOut, format!("no complete response within {} ms", limits.timeout_ms)))
        })
    }
}

async fn exchange(request: Request, limits: ExchangeLimits) -> Result<Response, TransportError> {
    let response = Client::new().send(request.map(body_of)).await.map_err(failed)?;
    let (parts, body) = response.into_parts();
    let mut body = body.into_boxed_body();
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(interrupted)?.into_data() else { continue };
        if data.len() > limits.body_bytes_max.saturating_sub(bytes.len()) {
            let message = format!("the body is longer than {} bytes", limits.body_bytes_max);
            return Err(fault(TransportFault::BodyTooLarge, message));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Response::from_parts(parts, bytes.freeze()))
}

/// An empty body of bytes would be written all the same, and a host that has already seen that a GET has none breaks
/// that write off ("connection reset").
fn body_of(bytes: Bytes) -> Body {
    if bytes.is_empty() { Body::from_http_body(Empty::<Bytes>::new()) } else { Body::from(bytes) }
}

fn fault(fault: TransportFault, message: String) -> TransportError {
    TransportError { fault, message }
}

/// An exchange that failed before there was a response. What is not known to mean that the server was never reached
/// counts as a connection that broke.
fn failed(error: Error) -> TransportError {
    use ErrorCode as Code;
    let code = error.downcast_ref::<Code>();
    let kind = match code {
        Some(
            Code::DnsTimeout
            | Code::DnsError(_)
            | Code::DestinationNotFound
            | Code::DestinationUnavailable
            | Code::DestinationIpProhibited
            | Code::DestinationIpUnroutable
            | Code::ConnectionRefused
            | Code::ConnectionTimeout
            | Code::TlsProtocolError
            | Code::TlsCertificateError
            | Code::TlsAlertReceived(_)
            | Code::HttpRequestDenied,
        ) => TransportFault::Unreachable,
        Some(Code::ConnectionReadTimeout | Code::ConnectionWriteTimeout | Code::HttpResponseTimeout) => {
            TransportFault::TimedOut
        }
        _ => TransportFault::Interrupted,
    };
    match code {
        Some(code) => fault(kind, format!("wasi:http says {code:?}")),
        None => fault(kind, error.to_string()),
    }
}

/// A response whose body ended early.
fn interrupted(error: Error) -> TransportError {
    fault(TransportFault::Interrupted, format!("{error:#}"))
}

impl Clock for Wasi {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(StdDuration::ZERO);
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    async fn sleep(&self, millis: u64) {
        sleep(Duration::from_millis(millis)).await;
    }
}

impl Entropy for Wasi {
    fn fill(&self, bytes: &mut [u8]) {
        wstd::rand::get_random_bytes(bytes);
    }
}
