//! Outgoing requests, through the platform's `fetch`.

use b2sync_core::http::{
    ExchangeLimits, HeaderName, HeaderValue, HttpClient, Request, Response, StatusCode, TransportError, TransportFault,
};
use worker::{
    AbortSignal, Fetch, Headers, Method, RequestInit, RequestRedirect,
    js_sys::{Reflect, Uint8Array},
    wasm_bindgen::{JsCast, JsValue},
    wasm_bindgen_futures::JsFuture,
    web_sys::{self, ReadableStream, ReadableStreamDefaultReader},
};

/// Sends requests with `fetch`, without following redirects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetcher;

impl HttpClient for Fetcher {
    async fn send(&self, request: Request, limits: ExchangeLimits) -> Result<Response, TransportError> {
        // The signal covers the body as well: it ends the reading too.
        let timeout_ms = u32::try_from(limits.timeout_ms).unwrap_or(u32::MAX);
        let signal = AbortSignal::from(web_sys::AbortSignal::timeout_with_u32(timeout_ms));
        let mut answered = false;
        let result = exchange(request, limits, &signal, &mut answered).await;
        result.map_err(|error| match error {
            Failure::TooLarge => TransportError {
                fault: TransportFault::BodyTooLarge,
                message: format!("the answer is longer than {} bytes", limits.body_bytes_max),
            },
            Failure::Platform(_) if signal.aborted() => TransportError {
                fault: TransportFault::TimedOut,
                message: format!("no complete answer within {} ms", limits.timeout_ms),
            },
            Failure::Platform(message) => TransportError {
                fault: if answered { TransportFault::Interrupted } else { TransportFault::Unreachable },
                message,
            },
        })
    }
}

enum Failure {
    TooLarge,
    Platform(String),
}

impl From<worker::Error> for Failure {
    fn from(error: worker::Error) -> Self {
        Self::Platform(error.to_string())
    }
}

impl From<JsValue> for Failure {
    fn from(error: JsValue) -> Self {
        Self::Platform(worker::Error::from(error).to_string())
    }
}

async fn exchange(
    request: Request,
    limits: ExchangeLimits,
    signal: &AbortSignal,
    answered: &mut bool,
) -> Result<Response, Failure> {
    let headers = Headers::new();
    for (name, value) in request.headers() {
        // `fetch` sets Host from the URL, and refuses to be told.
        if name != "host" {
            headers.set(name.as_str(), &String::from_utf8_lossy(value.as_bytes()))?;
        }
    }
    let mut init = RequestInit::new();
    init.with_method(Method::from(request.method().as_str().to_owned()));
    init.with_headers(headers).with_redirect(RequestRedirect::Manual);
    if !request.body().is_empty() {
        init.with_body(Some(Uint8Array::from(request.body().as_ref()).into()));
    }
    let outgoing = worker::Request::new_with_init(&request.uri().to_string(), &init)?;
    let response = Fetch::Request(outgoing).send_with_signal(signal).await?;
    *answered = true;
    let mut answer = Response::default();
    *answer.status_mut() =
        StatusCode::from_u16(response.status_code()).map_err(|e| Failure::Platform(e.to_string()))?;
    for (name, value) in response.headers() {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            answer.headers_mut().append(name, value);
        }
    }
    let raw: web_sys::Response = response.into();
    let body = read(raw.body(), limits.body_bytes_max.saturating_add(1)).await?;
    if body.len() > limits.body_bytes_max {
        return Err(Failure::TooLarge);
    }
    *answer.body_mut() = body.into();
    Ok(answer)
}

/// Reads a body, and no more of it than `bytes_max`.
pub(crate) async fn read_at_most(body: Option<ReadableStream>, bytes_max: usize) -> worker::Result<Vec<u8>> {
    read(body, bytes_max).await.map_err(|failure| match failure {
        Failure::TooLarge => "The body is too long.".into(),
        Failure::Platform(message) => message.into(),
    })
}

async fn read(body: Option<ReadableStream>, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let Some(body) = body else { return Ok(Vec::new()) };
    let reader: ReadableStreamDefaultReader = body.get_reader().unchecked_into();
    let mut bytes = Vec::new();
    loop {
        let chunk = JsFuture::from(reader.read()).await?;
        if Reflect::get(&chunk, &JsValue::from_str("done"))?.is_truthy() {
            return Ok(bytes);
        }
        let chunk: Uint8Array = Reflect::get(&chunk, &JsValue::from_str("value"))?.unchecked_into();
        bytes.extend(chunk.to_vec());
        if bytes.len() >= bytes_max {
            bytes.truncate(bytes_max);
            // The rest is not wanted; whether it can be called off does not matter.
            let _ = JsFuture::from(reader.cancel()).await;
            return Ok(bytes);
        }
    }
}
