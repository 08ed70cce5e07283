//! How listing in parallel scales when every answer takes its time.
//!
//! [`listing_only`] is the ceiling: as many streams as are asked for, each listing its share of the bucket by the core's
//! own client (signing, parsing) over asynchronous HTTP on one thread, with nothing compared. [`with_engine`] is
//! b2sync.

use std::time::{Duration, Instant};

use b2sync_core::b2::account::Credentials;
use b2sync_core::b2::client::B2Client;
use b2sync_core::b2::list::ListQuery;
use b2sync_core::entropy::Entropy;
use b2sync_core::http::{ExchangeLimits, HttpClient, Request, Response, TransportError, TransportFault};
use b2sync_core::retry::RetryPolicy;
use b2sync_core::time::{Clock, Timestamp};
use b2sync_poll_path::listing::{Listing, PAGE_KEYS};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::clients::{APPLICATION_KEY, KEY_ID};
use crate::home::System;
use crate::report::{Bar, Report};
use crate::server::{ListingServer, bucket};
use crate::{Options, Result};

const LATENCY_MS: u64 = 30;
/// Streams, and the least efficiency of b2sync with so many.
const STREAMS: [(u64, f64); 7] = [(1, 1.0), (2, 0.9), (4, 0.9), (8, 0.9), (16, 0.9), (32, 0.75), (64, 0.75)];

pub(crate) fn run(report: &mut Report, options: &Options) {
    let keys = if options.quick { 256_000 } else { 1_000_000 };
    report.section(
        "Parallel listing",
        "A bucket listed by 1 to 64 streams, with 30 ms of latency added to each answer. Efficiency: how much faster\n\
         than one stream, divided by the number of streams. `parallel_listing_only` is the ceiling: the same calls, with\n\
         nothing compared.",
    );
    let server = match ListingServer::start() {
        Ok(server) => server,
        Err(error) => return report.failed("parallel_efficiency", error),
    };
    server.warm(keys);
    server.set_latency_ms(LATENCY_MS);
    efficiencies(report, "parallel_listing_only", false, |streams| listing_only(&server, keys, streams));
    efficiencies(report, "parallel_efficiency", true, |streams| with_engine(&server, keys, streams));
}

/// Measures with each number of streams.
fn efficiencies(report: &mut Report, name: &str, bars: bool, mut list: impl FnMut(u64) -> Result<Option<Duration>>) {
    let mut alone = None;
    for (streams, bar) in STREAMS {
        let name = format!("{name}/{streams}");
        match list(streams) {
            Ok(Some(took)) => {
                let took = took.as_secs_f64();
                let alone = *alone.get_or_insert(took);
                let bar = if bars { Bar::AtLeast(bar) } else { Bar::None };
                report.figure(name, alone / took / streams as f64, "of linear", bar);
            }
            Ok(None) => report.not_run(name, "the engine reads a bucket as one stream"),
            Err(error) => report.failed(name, error),
        }
    }
}

/// Lists the bucket with the engine, in so many streams. `None` until it can.
fn with_engine(_server: &ListingServer, _keys: u64, _streams: u64) -> Result<Option<Duration>> {
    Ok(None)
}

fn listing_only(server: &ListingServer, keys: u64, streams: u64) -> Result<Option<Duration>> {
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
        if listed == keys { Ok(Some(started.elapsed())) } else { Err(format!("{listed} keys of {keys}").into()) }
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
        let exchange = async {
            let answer = self.0.request(request.map(Full::new)).await;
            let (parts, body) = answer.map_err(|error| failed(TransportFault::Unreachable, &error))?.into_parts();
            let body = Limited::new(body, limits.body_bytes_max).collect().await;
            let body = body.map_err(|error| failed(TransportFault::Interrupted, &error))?.to_bytes();
            Ok(Response::from_parts(parts, body))
        };
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
