//! Outgoing requests, through the platform's `fetch`.

use b2sync_core::http::{
    ExchangeLimits, HeaderName, HeaderValue, HttpClient, Request, Response, StatusCode, TransportError, TransportFault,
};
use worker::{
    js_sys::{Object, Promise, Reflect, Uint8Array},
    wasm_bindgen::{self, JsCast, JsValue, prelude::wasm_bindgen},
    wasm_bindgen_futures::JsFuture,
    web_sys::{self, AbortSignal, ReadableStream},
};

/// The size of the first read where the sender gives no length, in bytes: a page of 1,000 keys of usual length.
const READ_BYTES: usize = 256 << 10;
/// The largest size of one read, in bytes, also if the sender gives a larger length.
const READ_BYTES_MAX: usize = 1 << 20;
const CONTENT_LENGTH: &str = "content-length";

/// Sends requests with `fetch`, without following redirects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetcher;

impl HttpClient for Fetcher {
    async fn send(&self, request: Request, limits: ExchangeLimits) -> Result<Response, TransportError> {
        // The signal covers the body as well: it ends the reading too.
        let timeout_ms = u32::try_from(limits.timeout_ms).unwrap_or(u32::MAX);
        let signal = AbortSignal::timeout_with_u32(timeout_ms);
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
    let headers = web_sys::Headers::new()?;
    for (name, value) in request.headers() {
        // `fetch` sets Host from the URL, and refuses to be told.
        if name != "host" {
            headers.set(name.as_str(), &String::from_utf8_lossy(value.as_bytes()))?;
        }
    }
    let init = web_sys::RequestInit::new();
    init.set_method(request.method().as_str());
    init.set_headers(&headers);
    init.set_redirect(web_sys::RequestRedirect::Manual);
    init.set_signal(Some(signal));
    if !request.body().is_empty() {
        init.set_body(&Uint8Array::from(request.body().as_ref()));
    }
    let response = JsFuture::from(fetch(&request.uri().to_string(), &init)?).await?;
    let response: web_sys::Response = response.dyn_into()?;
    *answered = true;
    let mut answer = Response::default();
    *answer.status_mut() = StatusCode::from_u16(response.status()).map_err(|e| Failure::Platform(e.to_string()))?;
    response.headers().unchecked_ref::<HeaderList>().for_each(&mut |value, name| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            answer.headers_mut().append(name, value);
        }
    });
    let length = answer.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let body = read(response.body(), length, limits.body_bytes_max.saturating_add(1)).await?;
    if body.len() > limits.body_bytes_max {
        return Err(Failure::TooLarge);
    }
    *answer.body_mut() = body.into();
    Ok(answer)
}

/// Reads a body, and no more of it than `bytes_max`. `length` is its Content-Length, if there is one: only a hint.
pub(crate) async fn read_at_most(
    body: Option<ReadableStream>,
    length: Option<usize>,
    bytes_max: usize,
) -> worker::Result<Vec<u8>> {
    read(body, length, bytes_max).await.map_err(|failure| match failure {
        Failure::TooLarge => "The body is too long.".into(),
        Failure::Platform(message) => message.into(),
    })
}

async fn read(body: Option<ReadableStream>, length: Option<usize>, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let Some(body) = body else { return Ok(Vec::new()) };
    let reader = ByteReader::new(&body)?;
    let result = fill(&reader, length, bytes_max).await;
    if !matches!(&result, Ok(bytes) if bytes.len() < bytes_max) {
        // The rest is not wanted; whether it can be called off does not matter.
        let _ = JsFuture::from(reader.cancel()).await;
    }
    result
}

/// Reads to the end, or until there are `bytes_max`.
///
/// The runtime fills a whole buffer before it wakes this future. A default reader hands over 4 KiB at a time, each with
/// its own promise, and for a page of 1,000 keys that costs more than twice as much CPU time as everything else.
async fn fill(reader: &ByteReader, length: Option<usize>, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    // One byte more than the length: the read that gets less has seen the end.
    let mut size = length.map_or(READ_BYTES, |length| length.saturating_add(1)).min(READ_BYTES_MAX);
    let mut bytes = Vec::new();
    loop {
        size = size.min(bytes_max - bytes.len());
        let buffer = Uint8Array::new_with_length(u32::try_from(size).unwrap_or(u32::MAX));
        let options = Object::new();
        Reflect::set(&options, &JsValue::from_str("min"), &buffer.length().into())?;
        let chunk: Chunk = JsFuture::from(reader.read(buffer, &options)?).await?.unchecked_into();
        let read = chunk.value().map_or_else(Vec::new, |chunk| chunk.to_vec());
        let ended = read.len() < size;
        if bytes.is_empty() {
            bytes = read;
        } else {
            bytes.extend_from_slice(&read);
        }
        if ended || bytes.len() >= bytes_max {
            return Ok(bytes);
        }
        size = size.saturating_mul(2).min(READ_BYTES_MAX);
    }
}

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(catch)]
    fn fetch(url: &str, init: &web_sys::RequestInit) -> Result<Promise, JsValue>;

    /// `Headers`, with the one method that visits all of them without an iterator.
    type HeaderList;
    #[wasm_bindgen(method, js_name = forEach)]
    fn for_each(this: &HeaderList, each: &mut dyn FnMut(String, String));

    /// A reader that fills the buffer it is given. The runtime detaches the buffer, and returns its memory as the
    /// chunk.
    #[wasm_bindgen(js_name = ReadableStreamBYOBReader)]
    type ByteReader;
    #[wasm_bindgen(constructor, catch, js_class = "ReadableStreamBYOBReader")]
    fn new(body: &ReadableStream) -> Result<ByteReader, JsValue>;
    /// With the option `min`, the chunk has at least that many bytes, and fewer only at the end of the body.
    #[wasm_bindgen(method, catch, js_class = "ReadableStreamBYOBReader")]
    fn read(this: &ByteReader, buffer: Uint8Array, options: &Object) -> Result<Promise, JsValue>;
    #[wasm_bindgen(method, js_class = "ReadableStreamBYOBReader")]
    fn cancel(this: &ByteReader) -> Promise;

    type Chunk;
    /// `done` is not read: the last bytes may come with it or without it.
    #[wasm_bindgen(method, getter)]
    fn value(this: &Chunk) -> Option<Uint8Array>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasm_bindgen_test::wasm_bindgen_test;
    use worker::js_sys::Function;

    /// A body of `bytes` bytes that fills the buffers it is handed, a part at a time, as workerd's do. Node's own do
    /// not end a read that has got less than it asked for.
    fn body(bytes: usize, breaks: bool) -> Option<ReadableStream> {
        let script = format!(
            "let at = 0;
            return new ReadableStream({{ type: 'bytes', pull(controller) {{
                const request = controller.byobRequest;
                if (at === {bytes} && {breaks}) return controller.error(new Error('It broke.'));
                if (at === {bytes}) controller.close();
                const count = Math.min(request.view.byteLength, 100000, {bytes} - at);
                for (let n = 0; n < count; n++, at++) request.view[n] = 97 + at % 23;
                request.respond(count);
            }} }});"
        );
        Function::new_no_args(&script).call0(&JsValue::NULL).ok()?.dyn_into().ok()
    }

    fn text(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| b'a' + (at % 23) as u8).collect()
    }

    #[wasm_bindgen_test]
    async fn a_body_is_read_whatever_its_sender_says() {
        assert_eq!(read_at_most(None, Some(7), 10).await.ok(), Some(Vec::new()));
        for bytes in [0, 1, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 3 * READ_BYTES] {
            for length in [None, Some(0), Some(1_000), Some(bytes), Some(bytes + 1), Some(usize::MAX)] {
                let read = read_at_most(body(bytes, false), length, READ_BYTES * 4).await;
                assert!(read.is_ok_and(|read| read == text(bytes)), "{bytes} bytes of {length:?}");
            }
        }
    }

    #[wasm_bindgen_test]
    async fn no_more_is_read_than_was_asked_for() {
        for bytes_max in [1, 999, 1_000, READ_BYTES, READ_BYTES + 1] {
            for length in [None, Some(10), Some(READ_BYTES * 2)] {
                let read = read_at_most(body(READ_BYTES * 2, false), length, bytes_max).await;
                assert!(read.is_ok_and(|read| read == text(bytes_max)), "{bytes_max} bytes of {length:?}");
            }
        }
    }

    #[wasm_bindgen_test]
    async fn a_body_that_breaks_is_an_error() {
        let result = read_at_most(body(2_000, true), Some(10_000), 1 << 20).await;
        assert!(result.as_ref().is_err_and(|error| error.to_string().contains("It broke.")), "{result:?}");
    }
}
