//! How listing in parallel scales when every answer takes its time.
//!
//! [`Coordinated`] is b2sync: a poll of a bucket that was synced before, by a coordinator with six connections, and
//! from the seventh stream on by its shards. [`listing_only`] is the ceiling: as many streams as are asked for, each
//! listing its equal share of the bucket by the core's own client (signing, parsing) over asynchronous HTTP on one
//! thread, with nothing compared and nothing handed from one to another.

use std::time::{Duration, Instant};

use b2sync_core::b2::account::Credentials;
use b2sync_core::b2::client::B2Client;
use b2sync_core::b2::list::ListQuery;
use b2sync_core::engine::meter::Budget;
use b2sync_core::retry::RetryPolicy;
use b2sync_poll_path::listing::{Encoding, Listing, PAGE_KEYS};
use futures_util::future::try_join_all;

use crate::clients::{APPLICATION_KEY, KEY_ID};
use crate::coordinated::{AsyncSystem, Coordinated, Crossed, Hyper};
use crate::poll_path::median;
use crate::report::{Bar, Report};
use crate::server::{ListingServer, bucket};
use crate::{Options, Result};

/// What this group measures.
pub(crate) const FIGURES: [&str; 6] = [
    "parallel_efficiency",
    "parallel_efficiency_keys_per_s",
    "parallel_listing_only",
    "parallel_listing_only_keys_per_s",
    "shard_bytes_per_key",
    "shard_calls_per_million_keys",
];

const LATENCY_MS: u64 = 30;
/// Streams, and the least efficiency of b2sync with that many.
const STREAMS: [(u64, f64); 7] = [(1, 1.0), (2, 0.9), (4, 0.9), (8, 0.9), (16, 0.9), (32, 0.75), (64, 0.75)];
/// Keys of the bucket for each stream, and the most there are of them.
const KEYS_A_STREAM: u64 = 250_000;

pub(crate) fn run(report: &mut Report, options: &Options) {
    let (keys_max, polls) = if options.quick { (4_000_000, 1) } else { (8_000_000, 3) };
    report.section(
        "Parallel listing",
        "A bucket polled in 1 to 64 streams, with 30 ms of latency added to each answer: 250,000 keys for each\n\
         stream, and at most 8 million (a quick run: 4 million). Six streams are read by the coordinator, the\n\
         others by up to 16 shards, each with six connections and a thread of its own; calls and answers cross as\n\
         JSON, `shard_bytes_per_key` of them. Efficiency: keys a second (the median of three polls), divided by\n\
         those of one stream and by the number of streams. `parallel_listing_only` is the ceiling: the same calls\n\
         in equal shares, nothing compared, nothing handed over.",
    );
    let server = match ListingServer::start() {
        Ok(server) => server,
        Err(error) => return report.failed("parallel_efficiency", error),
    };
    let mut alone = [None; 2];
    let mut synced: Option<Coordinated> = None;
    for (streams, bar) in STREAMS {
        let keys = (streams * KEYS_A_STREAM).min(keys_max);
        let mut scaled = |report: &mut Report, series: usize, bar, took: Result<f64>| {
            let name = ["parallel_efficiency", "parallel_listing_only"][series];
            match took {
                Ok(seconds) => {
                    let speed = keys as f64 / seconds;
                    let alone = *alone[series].get_or_insert(speed);
                    report.figure(format!("{name}/{streams}"), speed / alone / streams as f64, "of linear", bar);
                    report.figure(format!("{name}_keys_per_s/{streams}"), speed, "keys/s", Bar::None);
                }
                Err(error) => report.failed(format!("{name}/{streams}"), error),
            }
        };
        if synced.as_ref().is_none_or(|synced| synced.keys != keys) {
            server.forget();
            server.set_latency_ms(0);
            server.warm(keys, &[Encoding::Url]);
            synced = match Coordinated::first(&server, keys) {
                Ok(synced) => Some(synced),
                Err(error) => return report.failed(format!("parallel_efficiency/{streams}"), error),
            };
        }
        let Some(synced) = &synced else { return };
        // Ranges begin amid pages: those are rendered before anything is measured.
        server.set_latency_ms(0);
        let warmed = synced.poll(Some(streams), Budget::UNLIMITED);
        server.set_latency_ms(LATENCY_MS);
        scaled(report, 1, Bar::None, listing_only(&server, keys, streams).map(|took| took.as_secs_f64()));
        let mut crossed = Crossed::default();
        let polled = warmed.and_then(|_| {
            let mut all = Vec::new();
            for _ in 0..polls {
                let ran = synced.poll(Some(streams), Budget::UNLIMITED)?;
                crossed = ran.crossed;
                all.push(ran.took.as_secs_f64());
            }
            Ok(median(&mut all))
        });
        scaled(report, 0, Bar::AtLeast(bar), polled);
        if crossed.calls > 0 {
            let of_all = |count: u64| count as f64 / keys as f64;
            report.figure(format!("shard_bytes_per_key/{streams}"), of_all(crossed.bytes), "B", Bar::None);
            report.figure(
                format!("shard_calls_per_million_keys/{streams}"),
                of_all(crossed.calls) * 1e6,
                "calls",
                Bar::None,
            );
        }
    }
}

fn listing_only(server: &ListingServer, keys: u64, streams: u64) -> Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (http, system) = (Hyper::new(usize::try_from(streams)?), AsyncSystem);
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
