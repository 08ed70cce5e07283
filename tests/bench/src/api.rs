//! The API in workerd: how many requests a second it answers to clients that keep their connections.
//!
//! Runtime, Worker, registry, coordinator and catalogue share one process here, and nearly all of their work one
//! thread. On Cloudflare each object has a thread of its own. The clients run on the other cores of this machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use b2sync_core::time::Timestamp;
use b2sync_tests::service::{Service, ServiceConfig, SyncRef, changes, now_ms};
use bytes::Bytes;
use fake_b2::model::NewFile;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;

use crate::report::{Bar, Report};
use crate::workerd::cpu_s;
use crate::{Options, Result};

/// What this group measures.
pub(crate) const FIGURES: [&str; 2] = ["api_requests_per_s", "api_cpu_ms_per_request"];

/// Requests a second of the three that have a bar.
const REQUESTS_PER_S_MIN: f64 = 1_000.0;
/// Connections, each with one request at a time.
const CONNECTIONS: usize = 32;
/// Files of the bucket.
const FILES: u64 = 1_000;
/// Jobs of the sync, the first one too.
const JOBS: usize = 20;
/// How long a job may take.
const JOB_LIMIT: Duration = Duration::from_secs(60);
const BUCKET: &str = "bench-api";

/// One kind of request.
struct Kind {
    name: &'static str,
    method: &'static str,
    path: String,
    bar: Bar,
}

pub(crate) fn run(report: &mut Report, options: &Options) {
    report.section(
        "The API",
        &format!(
            "{CONNECTIONS} connections with one request at a time each, to a sync of {FILES} files with {JOBS} jobs.\n\
             What is measured is warm: each request was sent for a second before. Every answer is read to its end,\n\
             and one that is no 200 ends the measurement. CPU time is that of the whole process of workerd."
        ),
    );
    if let Err(why) = options.tool("worker") {
        for name in FIGURES {
            report.not_run(name, &why);
        }
        return;
    }
    if let Err(error) = measure(report, options.quick) {
        report.failed(FIGURES[0], error);
    }
}

fn measure(report: &mut Report, is_quick: bool) -> Result<()> {
    let (mut service, sync) = synced()?;
    let process = service.workerd().process_id();
    let (path, bucket) = (sync.path(), &sync.bucket);
    let kind = |name, method, path, bar| Kind { name, method, path, bar };
    let bar = Bar::AtLeast(REQUESTS_PER_S_MIN);
    let kinds = [
        kind("health", "GET", "/healthz".to_owned(), Bar::None),
        kind("sync", "GET", path.clone(), bar),
        kind("jobs", "POST", format!("{path}/jobs"), bar),
        kind("objects_50", "GET", format!("/v1/buckets/{bucket}/objects?limit=50"), bar),
        kind("objects_1000", "GET", format!("/v1/buckets/{bucket}/objects?limit=1000"), Bar::None),
    ];
    let seconds = if is_quick { 2 } else { 5 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for kind in kinds {
        let clients = |seconds| {
            let limit = Duration::from_secs(seconds);
            runtime.block_on(requests(service.url(), service.api_key(), &kind, limit))
        };
        clients(1)?;
        let cpu = || process.and_then(cpu_s);
        let before = cpu();
        let (answers, took) = clients(seconds)?;
        let name = kind.name;
        let per_s = answers as f64 / took.as_secs_f64();
        report.figure(format!("api_requests_per_s/{name}"), per_s, "requests/s", kind.bar);
        if let Some((before, after)) = before.zip(cpu()) {
            let cpu_ms = (after - before) * 1e3 / answers as f64;
            report.figure(format!("api_cpu_ms_per_request/{name}"), cpu_ms, "ms", Bar::None);
        }
    }
    Ok(())
}

/// A service with a sync that has its files and jobs.
fn synced() -> Result<(Service, SyncRef)> {
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    let uploaded_at = Timestamp::from_millis(now_ms() - 1_000);
    for number in 0..FILES {
        let key = format!("videos/2026/11/recording-{number:06}.mp4");
        service.fake().put(BUCKET, &key, NewFile::generated(number, 1 << 20), uploaded_at)?;
    }
    let sync = service.connect("bench", &format!("b2://{BUCKET}"))?.sync;
    let first = service.jobs(&sync)?.first().and_then(|job| job["sync_job_id"].as_str().map(str::to_owned));
    let first = match first {
        Some(first) => service.wait_for_job(&sync, &first, JOB_LIMIT, &mut |_| {})?,
        None => service.run_job(&sync, JOB_LIMIT)?,
    };
    if changes(&first) != (FILES, 0, 0) {
        return Err(format!("the first job was to deliver {FILES} files: {first}").into());
    }
    while service.jobs(&sync)?.len() < JOBS {
        service.run_job(&sync, JOB_LIMIT)?;
    }
    let objects = service.list_objects(&sync.bucket)?.len();
    if objects as u64 != FILES {
        return Err(format!("the catalogue has {objects} objects in place of {FILES}").into());
    }
    Ok((service, sync))
}

/// How many answers all connections got within `limit`, and how long that took.
async fn requests(url: &str, api_key: &str, kind: &Kind, limit: Duration) -> Result<(u64, Duration)> {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let answers = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut connections = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (client, answers) = (client.clone(), answers.clone());
        let request = Request::builder()
            .method(kind.method)
            .uri(format!("{url}{}", kind.path))
            .header("authorization", format!("Bearer {api_key}"))
            .body(Full::new(Bytes::new()))?;
        connections.spawn(async move {
            while started.elapsed() < limit {
                let answer = client.request(request.clone()).await.map_err(|error| error.to_string())?;
                let status = answer.status();
                let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
                if status != 200 {
                    return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
                }
                answers.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    while let Some(ended) = connections.join_next().await {
        ended??;
    }
    Ok((answers.load(Ordering::Relaxed), started.elapsed()))
}
