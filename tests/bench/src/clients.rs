//! The clients that list one bucket and are built with the bench, each run in a process of its own:
//! `b2sync-bench client <name> <url> <keys> [state]`.
//!
//! Each prints one line of JSON: how many keys it has seen, and what else is known of it. Each sends signed requests,
//! but the floor, which is the exchange alone.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use b2sync_core::b2::account::Credentials;
use b2sync_core::b2::client::B2Client;
use b2sync_core::b2::source::B2Source;
use b2sync_core::engine::meter::Budget;
use b2sync_core::engine::{Engine, JobSpec, Outcome};
use b2sync_core::filter::{Filter, FilterSpec};
use b2sync_core::job::JobCost;
use b2sync_core::retry::RetryPolicy;
use b2sync_core::snapshot::cut::Cut;
use b2sync_core::source_path::SourcePath;
use b2sync_poll_path::listing::{PAGE_KEYS, token};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};

use crate::home::{Folder, System, Ureq, agent, read_body};
use crate::server::bucket;
use crate::{Error, Result};

/// What the clients sign with.
pub(crate) const KEY_ID: &str = "005b2sync000bench00000000";
pub(crate) const APPLICATION_KEY: &str = "K005benchbenchbenchbenchbenchbe";
pub(crate) const REGION: &str = "us-west-004";

/// The longest page.
const BODY_BYTES_MAX: u64 = 8 << 20;

/// Runs one client.
pub(crate) fn run(args: &[String]) -> Result<Value> {
    let [name, url, keys, rest @ ..] = args else { return Err("client <name> <url> <keys> [state]".into()) };
    let keys: u64 = keys.parse()?;
    let state = rest.first().map(Path::new);
    match name.as_str() {
        "floor" => floor(url, keys),
        "b2sync" => Ok(b2sync(url, keys, state.ok_or("b2sync needs a state folder")?, 1)?),
        "b2sync_twice" => Ok(b2sync(url, keys, state.ok_or("b2sync needs a state folder")?, 2)?),
        "rusty_s3_ureq" => rusty_s3(url, keys),
        unknown => Err(format!("there is no client {unknown}").into()),
    }
}

/// The exchange alone, by the same HTTP client: nothing is parsed, and the tokens are known beforehand.
fn floor(url: &str, keys: u64) -> Result<Value> {
    let agent = agent();
    let mut listed = 0;
    while listed < keys {
        let after = if listed == 0 { String::new() } else { format!("&continuation-token={}", token(listed)) };
        let target = format!("{url}/{}?encoding-type=url&list-type=2&max-keys={PAGE_KEYS}{after}", bucket(keys));
        let body = read_body(&mut agent.get(&target).call()?, BODY_BYTES_MAX)?;
        if !body.ends_with(b"</ListBucketResult>") {
            return Err("an answer is not a page".into());
        }
        listed += PAGE_KEYS.min(keys - listed);
    }
    Ok(json!({ "keys": listed }))
}

/// The engine, `jobs` times on the same state; what the last job did.
fn b2sync(url: &str, keys: u64, state: &Path, jobs: u32) -> Result<Value> {
    let (http, system, folder) = (Ureq(agent()), System, Folder::at(state));
    let credentials = Credentials::new(KEY_ID, APPLICATION_KEY)?;
    let path = SourcePath::parse(&format!("b2://{}", bucket(keys)))?;
    let filter = Filter::compile(&FilterSpec::default(), &path)?;
    let mut job_costs = Vec::new();
    let mut listed = 0;
    let mut changes = Vec::new();
    let mut known = 0;
    for job in 0..jobs {
        let report = pollster::block_on(async {
            let client = B2Client::new(&http, &system, &system, RetryPolicy::DEFAULT);
            let account = client.authorize(url, &credentials).await?;
            let source = B2Source::new(client, url, &credentials, &path, account);
            let engine = Engine { source: &source, blobs: &folder, documents: &folder, clock: &system };
            let job_id = format!("job_{}_{job}", std::process::id());
            let spec = JobSpec::new(&job_id, Cut::new([7; 16]), &filter);
            let report = engine.step(&spec, &Budget::UNLIMITED).await;
            match &report.outcome {
                Ok(Outcome::Done) => Ok(report),
                Ok(Outcome::Continue) => Err(Error::from("a step without a budget did not end its job")),
                Err(error) => Err(error.clone().into()),
            }
        })?;
        listed = report.counts.listed;
        known = report.files_known;
        changes.push(report.counts.changes());
        job_costs.push(report.cost);
    }
    let JobCost { state_reads, state_writes, .. } = job_costs.last().copied().ok_or("no job was run")?;
    Ok(json!({
        "keys": listed,
        "known": known,
        "changes": changes,
        "state_reads": state_reads,
        "state_writes": state_writes,
        "peak_memory_bytes": peak_memory_bytes()?,
    }))
}

/// The most memory that this process has had resident.
fn peak_memory_bytes() -> Result<i64> {
    // On Linux the figure of `getrusage` begins with that of the process that started this one.
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        return Ok(kilobytes.ok_or("there is no VmHWM in /proc/self/status")?.parse::<i64>()? * 1_024);
    }
    // Kilobytes everywhere but on macOS.
    Ok(getrusage(UsageWho::RUSAGE_SELF)?.max_rss() * if cfg!(target_os = "macos") { 1 } else { 1_024 })
}

fn rusty_s3(url: &str, keys: u64) -> Result<Value> {
    use rusty_s3::S3Action as _;
    use rusty_s3::actions::ListObjectsV2;
    let bucket = rusty_s3::Bucket::new(url.parse()?, rusty_s3::UrlStyle::Path, bucket(keys), REGION)?;
    let credentials = rusty_s3::Credentials::new(KEY_ID, APPLICATION_KEY);
    let agent = agent();
    let mut listed = 0;
    let mut token: Option<String> = None;
    loop {
        let mut action = bucket.list_objects_v2(Some(&credentials));
        action.with_max_keys(1_000);
        if let Some(token) = token.take() {
            action.with_continuation_token(token);
        }
        let signed = action.sign(Duration::from_secs(60));
        let body = String::from_utf8(read_body(&mut agent.get(signed.as_str()).call()?, BODY_BYTES_MAX)?)?;
        let page = ListObjectsV2::parse_response(&body).map_err(|error| format!("rusty-s3: {error}"))?;
        listed += page.contents.len() as u64;
        token = page.next_continuation_token;
        if token.is_none() {
            return Ok(json!({ "keys": listed }));
        }
    }
}

/// What a child process cost.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    /// User and system time, in seconds.
    pub(crate) cpu_s: f64,
    /// From its start to its end, in seconds.
    pub(crate) wall_s: f64,
    /// What it printed.
    pub(crate) output: String,
}

/// Runs a child process and measures it. Nothing else may be waited for meanwhile: the system adds up all children.
pub(crate) fn measure(command: &mut std::process::Command) -> Result<Ran> {
    let cpu = || -> Result<f64> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
    };
    let before = cpu()?;
    let started = Instant::now();
    let output = command
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|error| format!("{} does not start: {error}", command.get_program().to_string_lossy()))?;
    let wall_s = started.elapsed().as_secs_f64();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.trim().lines().last().unwrap_or("it said nothing").to_owned();
        return Err(format!("it failed ({}): {last}", output.status).into());
    }
    Ok(Ran { cpu_s: cpu()? - before, wall_s, output: String::from_utf8_lossy(&output.stdout).into_owned() })
}
