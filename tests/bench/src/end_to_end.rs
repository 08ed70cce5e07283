//! CPU and wall time of a whole listing from one local server, b2sync beside its peers, each in a process of its own.

use std::env;
use std::process::Command;
use std::time::Instant;

use b2sync_core::b2::account::{Credentials, OTHER_STORE_REGION};
use b2sync_core::b2::list::{ListQuery, list_request};
use b2sync_core::b2::sign::sign;
use b2sync_core::http::{ExchangeLimits, HttpClient as _};
use b2sync_core::time::Clock as _;
use b2sync_poll_path::listing::Encoding;
use fake_b2::Config;
use fake_b2::keys::NewKey;
use fake_b2::media::seed_plain_bucket;
use fake_b2::server::FakeB2Server;
use serde_json::Value;
use tempfile::TempDir;

use crate::clients::{APPLICATION_KEY, KEY_ID, REGION, Ran, measure};
use crate::home::{System, Ureq, agent};
use crate::poll_path::median;
use crate::report::{Bar, Report};
use crate::server::{ListingServer, bucket};
use crate::{Options, Result};

/// What this group measures.
pub(crate) const FIGURES: [&str; 4] =
    ["cpu_s_per_million_keys", "wall_s_per_million_keys", "cpu_ratio", "embedded_b2_pages_per_s"];

const B2SYNC_CPU_S_MAX: f64 = 0.3;
const B2SYNC_FIRST_CPU_S_MAX: f64 = 0.9;
/// How many times the CPU of b2sync a client needs at least.
const CPU_RATIOS_MIN: [(&str, f64); 2] = [("rusty_s3_ureq", 4.0), ("object_store", 8.0)];
/// A client that takes longer than this is run once.
const REPEATED_S_MAX: f64 = 8.0;
/// One page: what a client costs before it has listed much.
const BASE_KEYS: u64 = 1_000;

const BOTO3_SCRIPT: &str = include_str!("list_boto3.py");
const CLIENTS: [&str; 7] = ["floor", "b2sync", "rusty_s3_ureq", "object_store", "opendal", "rclone", "boto3"];

pub(crate) fn run(report: &mut Report, options: &Options) {
    let keys = if options.quick { 200_000 } else { 1_000_000 };
    report.section(
        "End to end",
        "A listing from a server on this machine, signed requests, one stream; seconds per million keys. What the\n\
         process costs for one page is taken off. `b2sync` polls a bucket in which nothing changed, so it also\n\
         compares; `b2sync_first` is a first sync, which appends every key to the feed; `floor` is the exchange\n\
         alone, by the HTTP client of b2sync and rusty_s3_ureq; `cpu_ratio` is how many times the CPU of a poll by\n\
         b2sync a client needs.",
    );
    let started = || -> Result<(ListingServer, TempDir)> {
        let server = ListingServer::start()?;
        server.warm(BASE_KEYS, &[Encoding::Url, Encoding::Xml]);
        server.warm(keys, &[Encoding::Url, Encoding::Xml]);
        Ok((server, TempDir::with_prefix("b2sync-bench-")?))
    };
    let (server, folder) = match started() {
        Ok(started) => started,
        Err(error) => return report.failed("cpu_s_per_million_keys", error),
    };
    let mut b2sync_cpu_s = None;
    for client in CLIENTS {
        let tool = match client {
            "object_store" | "opendal" | "rclone" | "boto3" => match options.tool(client) {
                Ok(tool) => Some(tool.as_path()),
                Err(why) => {
                    report.not_run(format!("cpu_s_per_million_keys/{client}"), &why);
                    report.not_run(format!("wall_s_per_million_keys/{client}"), &why);
                    continue;
                }
            },
            _ => None,
        };
        let once = |keys: u64| -> Result<Ran> {
            let mut command = command(client, tool, server.url(), keys, &folder)?;
            let ran = measure(&mut command)?;
            let listed = listed(client, &ran.output)?;
            if listed == keys { Ok(ran) } else { Err(format!("it listed {listed} keys of {keys}").into()) }
        };
        if client == "b2sync" && !first_sync(report, keys, &once) {
            continue;
        }
        match listings(keys, &once) {
            Ok((cpu_s, wall_s)) => {
                show(report, client, (cpu_s, wall_s), b2sync_cpu_s);
                b2sync_cpu_s = b2sync_cpu_s.or((client == "b2sync").then_some(cpu_s));
            }
            Err(error) => report.failed(format!("cpu_s_per_million_keys/{client}"), error),
        }
    }
    match embedded_b2_pages_per_s() {
        Ok(pages) => report.figure("embedded_b2_pages_per_s", pages, "pages/s", Bar::None),
        Err(error) => report.failed("embedded_b2_pages_per_s", error),
    }
}

/// A first sync of b2sync. It leaves the snapshot that the measured polls compare with. `false`: it failed.
fn first_sync(report: &mut Report, keys: u64, once: &impl Fn(u64) -> Result<Ran>) -> bool {
    let measured = || -> Result<(f64, f64)> {
        let base = once(BASE_KEYS)?;
        let first = once(keys)?;
        Ok(per_million(&[first], &[base], keys))
    };
    match measured() {
        Ok((cpu_s, wall_s)) => {
            report.figure("cpu_s_per_million_keys/b2sync_first", cpu_s, "s", Bar::AtMost(B2SYNC_FIRST_CPU_S_MAX));
            report.figure("wall_s_per_million_keys/b2sync_first", wall_s, "s", Bar::None);
            true
        }
        Err(error) => {
            report.failed("cpu_s_per_million_keys/b2sync_first", error);
            false
        }
    }
}

/// CPU and wall seconds per million keys of a client that lists `keys` keys.
fn listings(keys: u64, once: &impl Fn(u64) -> Result<Ran>) -> Result<(f64, f64)> {
    let base = [once(BASE_KEYS)?, once(BASE_KEYS)?, once(BASE_KEYS)?];
    let mut runs = vec![once(keys)?];
    while runs.len() < 3 && runs[0].wall_s < REPEATED_S_MAX {
        runs.push(once(keys)?);
    }
    Ok(per_million(&runs, &base, keys))
}

fn show(report: &mut Report, client: &str, (cpu_s, wall_s): (f64, f64), b2sync_cpu_s: Option<f64>) {
    let bar = if client == "b2sync" { Bar::AtMost(B2SYNC_CPU_S_MAX) } else { Bar::None };
    report.figure(format!("cpu_s_per_million_keys/{client}"), cpu_s, "s", bar);
    report.figure(format!("wall_s_per_million_keys/{client}"), wall_s, "s", Bar::None);
    if let Some(b2sync) = b2sync_cpu_s.filter(|_| client != "floor") {
        let bar = CPU_RATIOS_MIN.iter().find(|(name, _)| *name == client);
        let bar = bar.map_or(Bar::None, |(_, ratio)| Bar::AtLeast(*ratio));
        report.figure(format!("cpu_ratio/{client}"), cpu_s / b2sync, "times", bar);
    }
}

/// How fast the embedded B2 of the tests answers pages: the slowest part of a test with many keys, should it ever be.
fn embedded_b2_pages_per_s() -> Result<f64> {
    const PAGES: u32 = 200;
    let server = FakeB2Server::start(Config::default())?;
    server.model().create_bucket("bench-bucket")?;
    seed_plain_bucket(server.model(), "bench-bucket", 100_000, 1)?;
    let key = server.model().create_key(NewKey::unrestricted())?;
    let query = ListQuery { start_after: Some("item-00050000".to_owned()), ..ListQuery::first("bench-bucket", "") };
    let mut request = list_request(server.url(), &query)?;
    let credentials = Credentials::new(&key.key_id, &key.secret)?;
    sign(&mut request, &credentials, OTHER_STORE_REGION, System.now())?;
    let http = Ureq(agent());
    let started = Instant::now();
    for _ in 0..PAGES {
        let answer = pollster::block_on(http.send(request.clone(), ExchangeLimits::LIST_PAGE))?;
        if answer.status() != 200 {
            return Err(format!("it answered {}", answer.status()).into());
        }
    }
    Ok(f64::from(PAGES) / started.elapsed().as_secs_f64())
}

/// CPU and wall seconds per million keys: medians, less those of listing one page.
fn per_million(runs: &[Ran], base: &[Ran], keys: u64) -> (f64, f64) {
    let of = |runs: &[Ran], take: fn(&Ran) -> f64| median(&mut runs.iter().map(take).collect::<Vec<_>>());
    let millions = (keys - BASE_KEYS) as f64 / 1e6;
    let difference = |take: fn(&Ran) -> f64| (of(runs, take) - of(base, take)).max(0.0) / millions;
    (difference(|ran| ran.cpu_s), difference(|ran| ran.wall_s))
}

fn command(client: &str, tool: Option<&std::path::Path>, url: &str, keys: u64, folder: &TempDir) -> Result<Command> {
    let command = match (client, tool) {
        ("object_store" | "opendal", Some(program)) => {
            let mut command = Command::new(program);
            command.args([client, url, &bucket(keys), KEY_ID, APPLICATION_KEY, REGION]);
            command
        }
        ("rclone", Some(program)) => {
            let mut command = Command::new(program);
            // One listing of the whole bucket, as a sync of it makes; times as the listing says them.
            command
                .args(["lsf", "--recursive", "--fast-list", "--files-only", "--format", "pst", "--use-server-modtime"])
                .args(["--config", "", "--s3-provider", "Other", "--s3-region", REGION])
                .args(["--s3-access-key-id", KEY_ID, "--s3-secret-access-key", APPLICATION_KEY])
                .args(["--s3-endpoint", url, "--s3-list-version", "2", "--s3-list-url-encode", "true"])
                .arg(format!(":s3:{}", bucket(keys)));
            command
        }
        ("boto3", Some(packages)) => {
            let mut command = Command::new("python3");
            command
                .args(["-c", BOTO3_SCRIPT, url, &bucket(keys), KEY_ID, APPLICATION_KEY, REGION])
                .env("PYTHONPATH", packages)
                .env("AWS_EC2_METADATA_DISABLED", "true");
            command
        }
        _ => {
            let mut command = Command::new(env::current_exe()?);
            command.args(["client", client, url, &keys.to_string()]).arg(folder.path().join(bucket(keys)));
            command
        }
    };
    Ok(command)
}

/// How many keys the client says it has seen.
fn listed(client: &str, output: &str) -> Result<u64> {
    if client == "rclone" {
        return Ok(output.lines().count() as u64);
    }
    let answer: Value = serde_json::from_str(output.trim())?;
    answer["keys"].as_u64().ok_or_else(|| format!("no number of keys in {answer}").into())
}
