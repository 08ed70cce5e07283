//! How listing in parallel scales when every answer takes its time.
//!
//! [`listing_only`] is the ceiling: as many streams as are asked for, each listing its equal share of the bucket by the
//! core's own client (signing, parsing) over asynchronous HTTP on one thread, with nothing compared. [`Synced::poll`] is
//! b2sync: a poll of a bucket that was synced before, with [`Order::streams`].

use std::time::{Duration, Instant};

use b2sync_core::b2::account::Credentials;
use b2sync_core::b2::client::B2Client;
use b2sync_core::b2::list::ListQuery;
use b2sync_core::b2::source::B2Source;
use b2sync_core::engine::budget::Budget;
use b2sync_core::engine::{Engine, Order, Outcome};
use b2sync_core::entropy::Entropy;
use b2sync_core::filter::{Filter, FilterSpec};
use b2sync_core::http::{ExchangeLimits, HttpClient, Request, Response, TransportError, TransportFault};
use b2sync_core::retry::RetryPolicy;
use b2sync_core::snapshot::cut::Cut;
use b2sync_core::source_path::SourcePath;
use b2sync_core::store::{MemoryBlobs, MemoryDocuments};
use b2sync_core::time::{Clock, Timestamp};
use b2sync_poll_path::listing::{Encoding, Listing, PAGE_KEYS};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::clients::{APPLICATION_KEY, KEY_ID};
use crate::home::{CountingSink, System};
use crate::report::{Bar, Report};
use crate::server::{ListingServer, bucket};
use crate::{Options, Result};

const LATENCY_MS: u64 = 30;
/// Streams, and the least efficiency of b2sync with so many.
const STREAMS: [(u64, f64); 7] = [(1, 1.0), (2, 0.9), (4, 0.9), (8, 0.9), (16, 0.9), (32, 0.75), (64, 0.75)];
/// Keys of the bucket for each stream, and the most there are of them.
const KEYS_A_STREAM: u64 = 250_000;

pub(crate) fn run(report: &mut Report, options: &Options) {
    let keys_max = if options.quick { 1_000_000 } else { 8_000_000 };
    report.section(
        "Parallel listing",
        "A bucket polled by 1 to 64 streams, with 30 ms of latency added to each answer: 250,000 keys for each stream, and\n\
         at most 8 million (a quick run: 1 million). Efficiency: keys a second, divided by those of one stream and by the\n\
         number of streams. `parallel_listing_only` is the ceiling: the same calls in equal shares, nothing compared.",
    );
    let server = match ListingServer::start() {
        Ok(server) => server,
        Err(error) => return report.failed("parallel_efficiency", error),
    };
    let mut alone = [None; 2];
    let mut synced: Option<Synced> = None;
    for (streams, bar) in STREAMS {
        let keys = (streams * KEYS_A_STREAM).min(keys_max);
        if synced.as_ref().is_none_or(|synced| synced.keys != keys) {
            server.forget();
            server.set_latency_ms(0);
            synced = match Synced::first(&server, keys) {
                Ok(synced) => Some(synced),
                Err(error) => return report.failed(format!("parallel_efficiency/{streams}"), error),
            };
        }
        let Some(synced) = &mut synced else { return };
        // Ranges begin amid pages: those are rendered before anything is measured.
        server.set_latency_ms(0);
        let warmed = synced.poll(&server, streams);
        server.set_latency_ms(LATENCY_MS);
        let ceiling = listing_only(&server, keys, streams);
        let polled = warmed.and_then(|_| synced.poll(&server, streams));
        for ((name, bar, took), alone) in
            [("parallel_listing_only", Bar::None, ceiling), ("parallel_efficiency", Bar::AtLeast(bar), polled)]
                .into_iter()
                .zip(&mut alone)
        {
            match took {
                Ok(took) => {
                    let speed = keys as f64 / took.as_secs_f64();
                    let alone = *alone.get_or_insert(speed);
                    report.figure(format!("{name}/{streams}"), speed / alone / streams as f64, "of linear", bar);
                    report.figure(format!("{name}_keys_per_s/{streams}"), speed, "keys/s", Bar::None);
                }
                Err(error) => report.failed(format!("{name}/{streams}"), error),
            }
        }
    }
}

/// A bucket whose snapshot is known.
struct Synced {
    keys: u64,
    blobs: MemoryBlobs,
    documents: MemoryDocuments,
    jobs: u32,
}

impl Synced {
    /// Syncs it for the first time.
    fn first(server: &ListingServer, keys: u64) -> Result<Self> {
        server.warm(keys, &[Encoding::Url]);
        let mut synced = Self { keys, blobs: MemoryBlobs::default(), documents: MemoryDocuments::default(), jobs: 0 };
        synced.job(server, 1, keys)?;
        Ok(synced)
    }

    /// Polls it in so many streams.
    fn poll(&mut self, server: &ListingServer, streams: u64) -> Result<Duration> {
        self.job(server, streams, 0)
    }

    fn job(&mut self, server: &ListingServer, streams: u64, changes: u64) -> Result<Duration> {
        self.jobs += 1;
        let job_id = format!("job_{}", self.jobs);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (http, system, sink) = (Hyper::new(), AsyncSystem, CountingSink::default());
            let credentials = Credentials::new(KEY_ID, APPLICATION_KEY)?;
            let path = SourcePath::parse(&format!("b2://{}", bucket(self.keys)))?;
            let filter = Filter::compile(&FilterSpec::default(), &path)?;
            let client = B2Client::new(&http, &system, &system, RetryPolicy::NONE);
            let account = client.authorize(server.url(), &credentials).await?;
            let source = B2Source::new(client, server.url(), &credentials, &path, account);
            let (blobs, documents) = (&self.blobs, &self.documents);
            let engine = Engine { source: &source, blobs, documents, sink: &sink, clock: &system };
            let order = Order {
                streams: usize::try_from(streams)?,
                ..Order::new(&job_id, "sync_bench", Cut::new([7; 16]), &filter, "bench")
            };
            let started = Instant::now();
            let report = engine.step(&order, &Budget::UNLIMITED).await;
            let took = started.elapsed();
            match report.outcome? {
                Outcome::Done if report.counts.listed == self.keys && sink.changes() == changes => Ok(took),
                outcome => Err(format!("{outcome:?}: {:?}, {} changes", report.counts, sink.changes()).into()),
            }
        })
    }
}

fn listing_only(server: &ListingServer, keys: u64, streams: u64) -> Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (http, system) = (Hyper::new(), AsyncSystem);
        let credentials = Credentials::new(KEY_ID, APPLICATION_KEY)?;
        let client = B2Client::new(&http, &system, &system, RetryPolicy::NONE);
        let account = client.authorize(server.url(), &credentials).await?;
        let listing = Listing::new(keys);
        let pages = keys / PAGE_KEYS;
        let started = Instant::now();
        let shares = (0..streams).map(async |stream| -> Result<u64> {
            let (mut page, end) = (pages * stream / streams, pages * (stream + 1) / streams);
            let mut query = ListQuery::first(bucket(keys), "");
            if page > 0 {
                let mut last = String::new();
                listing.push_key(page * PAGE_KEYS - 1, &mut last);
                query.start_after = Some(last);
            }
            let mut listed = 0;
            while page < end {
                let answer = client.list_page(&account, &credentials, &query).await?;
                listed += answer.entries.len() as u64;
                query.continuation_token = answer.next_token;
                page += 1;
            }
            Ok(listed)
        });
        let listed: u64 = try_join_all(shares).await?.iter().sum();
        if listed == keys { Ok(started.elapsed()) } else { Err(format!("{listed} keys of {keys}").into()) }
    })
}

/// Asynchronous HTTP: as many exchanges at once as are polled.
pub(crate) struct Hyper(Client<HttpConnector, Full<Bytes>>);

impl Hyper {
    /// Needs a tokio runtime around it.
    pub(crate) fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }
}

impl HttpClient for Hyper {
    async fn send(&self, request: Request, limits: ExchangeLimits) -> Result<Response, TransportError> {
        let failed = |fault, error: &dyn std::fmt::Display| TransportError { fault, message: error.to_string() };
        let answer = self.0.request(request.map(Full::new));
        // A task of its own, so that whoever waits for it is woken once and not for every frame of the body.
        let exchange = tokio::spawn(async move {
            let (parts, body) = answer.await.map_err(|error| failed(TransportFault::Unreachable, &error))?.into_parts();
            let body = Limited::new(body, limits.body_bytes_max).collect().await;
            let body = body.map_err(|error| failed(TransportFault::Interrupted, &*error))?.to_bytes();
            Ok(Response::from_parts(parts, body))
        });
        let exchange =
            async { exchange.await.unwrap_or_else(|error| Err(failed(TransportFault::Interrupted, &error))) };
        let within = tokio::time::timeout(Duration::from_millis(limits.timeout_ms), exchange).await;
        within.unwrap_or_else(|error| Err(failed(TransportFault::TimedOut, &error)))
    }
}

/// The system's clock, whose sleepers let others work.
pub(crate) struct AsyncSystem;

impl Clock for AsyncSystem {
    fn now(&self) -> Timestamp {
        System.now()
    }

    async fn sleep(&self, millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

impl Entropy for AsyncSystem {
    fn fill(&self, bytes: &mut [u8]) {
        System.fill(bytes);
    }
}
