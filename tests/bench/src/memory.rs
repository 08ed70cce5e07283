//! What a sync keeps: in memory while it runs, in its snapshot, and what a poll that finds nothing asks of the stores.

use std::env;
use std::process::Command;
use std::sync::Arc;

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
use b2sync_core::store::{MemoryBlobs, MemoryDocuments};
use b2sync_core::time::Timestamp;
use b2sync_tests::virtual_world::{SeededEntropy, VirtualClock};
use fake_b2::in_process::InProcess;
use fake_b2::keys::NewKey;
use fake_b2::media::seed_media_bucket;
use fake_b2::{Config, FakeB2};
use serde_json::Value;
use tempfile::TempDir;

use crate::clients::measure;
use crate::coordinated::Coordinated;
use crate::report::{Bar, Report};
use crate::server::{ListingServer, bucket};
use crate::{Options, Result};

/// What this group measures.
pub(crate) const FIGURES: [&str; 9] = [
    "peak_memory_bytes",
    "peak_memory_growth",
    "no_change_poll_state_reads",
    "no_change_poll_state_writes",
    "no_change_poll_paid_budget_state_reads",
    "no_change_poll_paid_budget_state_writes",
    "no_change_poll_paid_budget_steps",
    "snapshot_bytes_per_key",
    "feed_bytes_per_change",
];

const SNAPSHOT_BYTES_PER_KEY_MAX: f64 = 24.0;
const FEED_BYTES_PER_CHANGE_MAX: f64 = 60.0;
const STATE_READS_MAX: f64 = 2.0;
const STATE_WRITES_MAX: f64 = 0.0;
/// What counts as flat: this much more memory for a hundred times as many keys, since the list of leaves grows with
/// them.
const MEMORY_GROWTH_MAX: f64 = 1.25;
const MEDIA_BUCKET: &str = "bench-media";
const MEDIA_KEYS: usize = 100_000;

pub(crate) fn run(report: &mut Report, options: &Options) {
    report.section(
        "Memory and state",
        "Peak resident memory of a process that syncs a generated listing, and then polls it once more with\n\
         nothing changed. State is in a folder, not in memory. A poll with the budget that is deployed (`paid`)\n\
         takes several steps for 10 million keys (a quick run: 4 million); its reads and writes are of all of\n\
         them. Snapshot and feed are those of a first sync of a bucket like the demo's.",
    );
    let server = match ListingServer::start() {
        Ok(server) => server,
        Err(error) => return report.failed("peak_memory_bytes", error),
    };
    let (mut last, mut first_peak) = (None, None);
    for keys in [100_000, 1_000_000, 10_000_000] {
        let name = format!("peak_memory_bytes/{keys}");
        if options.quick && keys > 1_000_000 {
            report.not_run(name, "left out of a quick run");
            continue;
        }
        match sync_and_poll(&server, keys) {
            Ok(answer) => {
                let peak = answer["peak_memory_bytes"].as_f64().unwrap_or(f64::NAN);
                report.figure(name, peak, "B", Bar::None);
                let first = *first_peak.get_or_insert(peak);
                if keys == 10_000_000 {
                    report.figure("peak_memory_growth", peak / first, "times", Bar::AtMost(MEMORY_GROWTH_MAX));
                }
                last = Some(answer);
            }
            Err(error) => report.failed(name, error),
        }
    }
    if let Some(last) = last {
        let count = |name: &str| last[name].as_f64().unwrap_or(f64::NAN);
        report.figure("no_change_poll_state_reads", count("state_reads"), "reads", Bar::AtMost(STATE_READS_MAX));
        report.figure("no_change_poll_state_writes", count("state_writes"), "writes", Bar::AtMost(STATE_WRITES_MAX));
    }
    let keys = if options.quick { 4_000_000 } else { 10_000_000 };
    match paid_budget_poll(&server, keys) {
        Ok(JobCost { state_reads, state_writes, steps, .. }) => {
            for (what, count, unit, bar) in [
                ("state_reads", state_reads, "reads", Bar::AtMost(STATE_READS_MAX)),
                ("state_writes", state_writes, "writes", Bar::AtMost(STATE_WRITES_MAX)),
                ("steps", steps, "steps", Bar::None),
            ] {
                report.figure(format!("no_change_poll_paid_budget_{what}"), count as f64, unit, bar);
            }
        }
        Err(error) => report.failed("no_change_poll_paid_budget_state_reads", error),
    }
    match stored_bytes_per_key() {
        Ok([snapshot, feed]) => {
            report.figure("snapshot_bytes_per_key", snapshot, "B", Bar::AtMost(SNAPSHOT_BYTES_PER_KEY_MAX));
            report.figure("feed_bytes_per_change", feed, "B", Bar::AtMost(FEED_BYTES_PER_CHANGE_MAX));
        }
        Err(error) => report.failed("snapshot_bytes_per_key", error),
    }
}

/// A poll with the budget that is deployed, and in as many streams as a coordinator takes then.
fn paid_budget_poll(server: &ListingServer, keys: u64) -> Result<JobCost> {
    Ok(Coordinated::first(server, keys)?.poll(None, Budget::WORKERS_PAID)?.cost)
}

fn sync_and_poll(server: &ListingServer, keys: u64) -> Result<Value> {
    let folder = TempDir::with_prefix("b2sync-bench-")?;
    let mut command = Command::new(env::current_exe()?);
    command.args(["client", "b2sync_twice", server.url(), &keys.to_string()]).arg(folder.path().join(bucket(keys)));
    let answer: Value = serde_json::from_str(measure(&mut command)?.output.trim())?;
    if answer["known"] != keys || answer["changes"] != serde_json::json!([keys, 0]) {
        return Err(format!("{keys} keys were not synced once: {answer}").into());
    }
    Ok(answer)
}

/// Of a bucket like the demo's: segments and index, and the batches of the feed, each divided by the number of keys.
fn stored_bytes_per_key() -> Result<[f64; 2]> {
    let fake = Arc::new(FakeB2::new(Config::default()));
    fake.create_bucket(MEDIA_BUCKET)?;
    seed_media_bucket(&fake, MEDIA_BUCKET, MEDIA_KEYS, 1)?;
    let key = fake.create_key(NewKey::unrestricted())?;
    let clock = VirtualClock::starting_at(Timestamp::from_millis(1_767_225_600_000));
    let http = InProcess::new(Arc::clone(&fake), clock.clone());
    let entropy = SeededEntropy::new(1);
    let url = &fake.config().base_url;
    let credentials = Credentials::new(&key.key_id, &key.secret)?;
    let path = SourcePath::parse(&format!("b2://{MEDIA_BUCKET}"))?;
    let filter = Filter::compile(&FilterSpec::default(), &path)?;
    let (blobs, documents) = (MemoryBlobs::default(), MemoryDocuments::default());
    pollster::block_on(async {
        let client = B2Client::new(&http, &clock, &entropy, RetryPolicy::NONE);
        let account = client.authorize(url, &credentials).await?;
        let source = B2Source::new(client, url, &credentials, &path, account);
        let engine = Engine { source: &source, blobs: &blobs, documents: &documents, clock: &clock };
        let spec = JobSpec::new("job_bench", Cut::new([7; 16]), &filter);
        let report = engine.step(&spec, &Budget::UNLIMITED).await;
        match report.outcome? {
            Outcome::Done if report.files_known == MEDIA_KEYS as u64 => {
                // What checkpoints and lists hold is neither.
                let bytes = |folders: &[&str]| {
                    let all = blobs.names().into_iter().zip(blobs.values());
                    let of = all.filter(|(name, _)| folders.iter().any(|folder| name.starts_with(folder)));
                    of.map(|(_, value)| value.len()).sum::<usize>() as f64 / MEDIA_KEYS as f64
                };
                Ok([bytes(&["segment/", "index/"]), bytes(&["feed/"])])
            }
            outcome => Err(format!("the sync ended with {outcome:?} at {} files", report.files_known).into()),
        }
    })
}
