//! The embedded B2 on a real port of the loopback interface: HTTP/1.1, with faults that are real on the wire.

use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use b2sync_core::http::{Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Sleep, sleep};

use super::clock::OffsetClock;
use super::{Config, FakeB2, Outcome, WireFault, admin};

/// The largest body of a request, in bytes.
const REQUEST_BYTES_MAX: usize = 64 << 20;
/// Between the last byte of a cut body and the end of its connection, in milliseconds: time for the byte to leave.
const CUT_AFTER_MS: u64 = 20;

#[derive(Debug)]
struct Shared {
    fake: Arc<FakeB2>,
    clock: OffsetClock,
    /// Requests that are delayed on purpose now, and the most that ever were.
    delayed: AtomicUsize,
    delayed_most: AtomicUsize,
}

/// A running embedded B2. Dropping it ends its connections and frees the port.
#[derive(Debug)]
pub struct FakeB2Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl FakeB2Server {
    /// Starts on a free port. [`Config::base_url`] becomes the address.
    ///
    /// # Errors
    /// No port or thread is to be had.
    pub fn start(config: Config) -> io::Result<Self> {
        Self::start_on(0, config)
    }

    /// Starts on a given port.
    ///
    /// # Errors
    /// The port is taken, or no thread is to be had.
    pub fn start_on(port: u16, mut config: Config) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        config.base_url = format!("http://{address}");
        let shared = Arc::new(Shared {
            fake: Arc::new(FakeB2::new(config)),
            clock: OffsetClock::default(),
            delayed: AtomicUsize::new(0),
            delayed_most: AtomicUsize::new(0),
        });
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("fake-b2").enable_all().build()?;
        let entered = runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        drop(entered);
        runtime.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { shared, address, runtime: Some(runtime) })
    }

    /// `http://127.0.0.1:port`, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.shared.fake.config().base_url
    }

    /// `127.0.0.1:port`.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The account.
    pub fn model(&self) -> &Arc<FakeB2> {
        &self.shared.fake
    }

    /// The most requests that were ever delayed on purpose at the same time: how many a client sends side by side.
    pub fn delayed_most(&self) -> usize {
        self.shared.delayed_most.load(Ordering::SeqCst)
    }

    /// Its time.
    pub fn clock(&self) -> &OffsetClock {
        &self.shared.clock
    }
}

impl Drop for FakeB2Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Does not wait for connections that hang on purpose, and may be called from within another runtime.
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, Arc::clone(&shared)))),
            // Out of file descriptors, or a connection that was gone again: the next one may do better.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { exchange(request, &shared).await }
    });
    // An error here is a client that left, or a fault that was asked for.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// The error that makes hyper drop a connection.
#[derive(Debug, thiserror::Error)]
#[error("the connection is dropped on purpose")]
struct Dropped;

async fn exchange(request: hyper::Request<Incoming>, shared: &Shared) -> Result<hyper::Response<WireBody>, Dropped> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, REQUEST_BYTES_MAX).collect().await.map_err(|_| Dropped)?.to_bytes();
    let request = Request::from_parts(parts, body);
    if admin::is_admin(&request) {
        return Ok(whole(admin::answer(&shared.fake, &shared.clock, &request)));
    }
    match shared.fake.handle(&request, shared.clock.now()) {
        Outcome::Respond(response) => Ok(whole(response)),
        Outcome::Fault(WireFault::Hang) => pending().await,
        Outcome::Fault(WireFault::Reset) => Err(Dropped),
        Outcome::Fault(WireFault::CutBody { response, after_bytes }) => Ok(response.map(|body| {
            let bytes = Some(body.slice(..after_bytes.min(body.len())));
            WireBody { bytes, cut: Some(Box::pin(sleep(Duration::from_millis(CUT_AFTER_MS)))) }
        })),
        Outcome::Fault(WireFault::Delay { millis, response }) => {
            let delayed = shared.delayed.fetch_add(1, Ordering::SeqCst) + 1;
            shared.delayed_most.fetch_max(delayed, Ordering::SeqCst);
            sleep(Duration::from_millis(millis)).await;
            shared.delayed.fetch_sub(1, Ordering::SeqCst);
            Ok(whole(response))
        }
    }
}

fn whole(response: Response) -> hyper::Response<WireBody> {
    response.map(|body| WireBody { bytes: Some(body), cut: None })
}

/// A body that is sent whole, or that ends in an error before the length that its response declares.
struct WireBody {
    bytes: Option<Bytes>,
    cut: Option<Pin<Box<Sleep>>>,
}

impl Body for WireBody {
    type Data = Bytes;
    type Error = Dropped;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        if let Some(bytes) = self.bytes.take().filter(|bytes| !bytes.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match &mut self.cut {
            None => Poll::Ready(None),
            Some(delay) => delay.as_mut().poll(context).map(|()| Some(Err(Dropped))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.cut.is_none() && self.bytes.as_ref().is_none_or(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.cut, &self.bytes) {
            (None, Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            (None, None) => SizeHint::with_exact(0),
            (Some(_), _) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests;
