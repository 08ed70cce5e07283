//! Jobs. `files_synced` counts every change delivered, deletions too, so that the jobs of a sync add
//! up to its `total_files_synced`; `changes` tells them apart.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    api::{
        errors::{Answered, AnsweredText, json_text, json_value},
        list_fields::ListFields,
        pagination::{Cursor, Listing, PageRequest, render_pagination},
        query::{Query, check_problems},
        render::{self, Shown},
        service::{Coordinators, Service, unexpected},
    },
    catalogue::Objects,
    coordinator::protocol::{Answer, Command},
    cost::b2_nanodollars,
    registry::{Registry, SyncRecord},
};
use b2sync_core::{
    entropy::Entropy,
    error::{Error, ErrorKind},
    http::HttpClient,
    job::{JobCost, JobRecord, JobStatus, Phase},
    time::{Clock, Timestamp},
};

/// The most archived jobs that a list reads.
pub(in crate::api) const ARCHIVED_JOBS_MAX: u64 = 1_000;

/// The statuses that a job may have, for filters of lists. Clients know `skipped` too; no job has it.
const STATUSES: [(&str, JobStatus); 4] = [
    ("running", JobStatus::Running),
    ("completed", JobStatus::Completed),
    ("failed", JobStatus::Failed),
    ("interrupted", JobStatus::Interrupted),
];

/// A page of jobs, as the client reads it.
#[derive(Serialize)]
struct Page<'a> {
    results: Vec<ShownJob<'a>>,
    pagination: Value,
    total: u64,
}

/// Jobs as the coordinator keeps them: [`Answer::Jobs`].
struct Kept {
    jobs: Vec<JobRecord>,
    total: u64,
    has_all: bool,
}

impl<R: Registry, C: Coordinators, O: Objects, H: HttpClient, K: Clock, E: Entropy> Service<'_, R, C, O, H, K, E> {
    pub(in crate::api) async fn list_jobs(&self, sync: &SyncRecord, query: &Query, body: &[u8]) -> AnsweredText {
        let mut problems = Vec::new();
        let mut fields = ListFields::parse(query, body, &mut problems)?;
        let mut page = PageRequest::read(&mut fields, Listing::Counted);
        let status = fields.choice("status", &STATUSES);
        page.list_url = fields.done();
        check_problems(problems)?;
        let begin = page.begin();
        let end = begin.saturating_add(page.limit);
        let Kept { jobs: mut records, mut total, has_all } = self.kept_jobs(sync, status, begin, page.limit).await?;
        if end >= total && !has_all {
            // What the coordinator keeps, and what is archived beyond it.
            let (mut all, kept) = match begin {
                0 => (records, total),
                _ => {
                    let kept = self.kept_jobs(sync, status, 0, total.max(1)).await?;
                    (kept.jobs, kept.total)
                }
            };
            let archived = self.coordinators.archived_jobs(&sync.sync_id, ARCHIVED_JOBS_MAX as usize).await?;
            all.extend(archived.into_iter().filter(|job| status.is_none_or(|status| job.status == status)));
            all.sort_by(|a, b| (b.created_at, &b.job_id).cmp(&(a.created_at, &a.job_id)));
            all.dedup_by(|a, b| a.job_id == b.job_id);
            total = kept.max(all.len() as u64);
            records = all.into_iter().skip(begin as usize).take(page.limit as usize).collect();
        }
        let next = (end < total).then_some(Cursor::Offset { n: end });
        let now = self.clock.now();
        json_text(&Page {
            results: records.iter().map(|job| shown(sync, job, now)).collect(),
            pagination: render_pagination(&page, Some(total), next.as_ref()),
            total: render::int(total),
        })
    }

    async fn kept_jobs(
        &self,
        sync: &SyncRecord,
        status: Option<JobStatus>,
        offset: u64,
        limit: u64,
    ) -> Result<Kept, Error> {
        match self.coordinators.call(&sync.sync_id, Command::Jobs { status, offset, limit }).await? {
            Answer::Jobs { jobs, total, has_all } => Ok(Kept { jobs, total, has_all }),
            _ => Err(unexpected()),
        }
    }

    pub(in crate::api) async fn get_job(&self, sync: &SyncRecord, job_id: &str, query: &Query) -> Answered {
        let mut problems = Vec::new();
        query.check_only(&["wait"], &mut problems);
        let wait_ms = query.wait_ms(&mut problems);
        check_problems(problems)?;
        let command = Command::Job { job_id: job_id.to_owned(), wait_ms };
        let kept = match self.coordinators.call(&sync.sync_id, command).await? {
            Answer::Job { job } => job.map(|job| *job),
            _ => return Err(unexpected().into()),
        };
        let job = match kept {
            Some(job) => Some(job),
            None => self.coordinators.archived_job(&sync.sync_id, job_id).await?,
        };
        match job.filter(|job| job.sync_id == sync.sync_id) {
            Some(job) => json_value(&shown(sync, &job, self.clock.now())),
            None => Err(Error::new(
                ErrorKind::NotFound,
                format!("The sync {} has no job {job_id:?}.", sync.sync_id),
                "List its jobs with POST …/jobs.",
            )
            .into()),
        }
    }
}

/// How long it has run, or ran, in milliseconds.
pub(super) fn duration_ms(job: &JobRecord) -> u64 {
    job.started_at.map_or(0, |started| job.completed_at.unwrap_or(job.updated_at).millis_since(started))
}

/// Files that were looked at and found as they were.
pub(super) fn verified(job: &JobRecord) -> u64 {
    let counts = &job.counts;
    counts.matched.saturating_sub(counts.created.saturating_add(counts.updated).saturating_add(counts.failed))
}

/// How many files there are to see: known only once the listing was read; before, what the snapshot held is the guess.
fn total(job: &JobRecord) -> Option<u64> {
    match job.phase {
        _ if job.is_over() => Some(job.counts.matched),
        Phase::Delivering | Phase::Done => Some(job.counts.matched),
        Phase::Queued | Phase::Discovering => (job.known_before > 0).then(|| job.known_before.max(job.counts.matched)),
    }
}

fn percent(job: &JobRecord) -> Value {
    match (job.status, total(job)) {
        (JobStatus::Completed, _) => render::decimal(100.0),
        (_, Some(total)) if total > 0 => {
            // Only what is complete shows 100.
            render::decimal((job.counts.matched as f64 / total as f64 * 100.0).clamp(0.0, 99.9))
        }
        _ => Value::Null,
    }
}

fn throughput(job: &JobRecord) -> Value {
    match duration_ms(job) {
        0 => Value::Null,
        millis => render::decimal(job.counts.changes() as f64 * 60_000.0 / millis as f64),
    }
}

/// What a running job has done so far.
#[derive(Serialize)]
pub(super) struct ShownProgress<'a> {
    sync_job_id: &'a str,
    phase: &'static str,
    percent: Value,
    files_listed: u64,
    files_matched: u64,
    files_synced: u64,
    files_failed: u64,
    bytes_synced: u64,
    elapsed_seconds: u64,
}

pub(super) fn progress(job: &JobRecord, now: Timestamp) -> ShownProgress<'_> {
    let counts = &job.counts;
    let elapsed_ms = job.started_at.map_or(0, |at| job.completed_at.unwrap_or(now).millis_since(at));
    ShownProgress {
        sync_job_id: &job.job_id,
        phase: job.phase.as_str(),
        percent: percent(job),
        files_listed: render::int(counts.listed),
        files_matched: render::int(counts.matched),
        files_synced: render::int(counts.changes()),
        files_failed: render::int(counts.failed),
        bytes_synced: render::int(counts.delivered_bytes),
        elapsed_seconds: render::int(elapsed_ms / 1_000),
    }
}

/// The latest job, in short.
pub(super) fn render_summary(job: &JobRecord) -> Value {
    json!({
        "sync_job_id": job.job_id,
        "status": job.status.as_str(),
        "files_synced": render::integer(job.counts.changes()),
        "files_failed": render::integer(job.counts.failed),
        "throughput_files_per_min": throughput(job),
        "duration_seconds": render::decimal(duration_ms(job) as f64 / 1_000.0),
    })
}

/// A job, as the client reads it.
#[derive(Serialize)]
pub(super) struct ShownJob<'a> {
    sync_job_id: &'a str,
    sync_config_id: &'a str,
    internal_id: &'a str,
    namespace_id: &'a str,
    bucket_id: &'a str,
    status: &'static str,
    trigger: &'static str,
    phase: &'static str,
    total_files: Option<u64>,
    files_synced: u64,
    files_failed: u64,
    files_verified: u64,
    changes: ShownCounts,
    bytes_synced: u64,
    created_at: Option<Shown>,
    started_at: Option<Shown>,
    completed_at: Option<Shown>,
    updated_at: Option<Shown>,
    error: Option<String>,
    error_code: Option<&'a str>,
    warnings: Value,
    deletions_held: u64,
    held_keys: &'a [String],
    progress_percent: Value,
    throughput_files_per_min: Value,
    throttled: Value,
    lag_seconds: Option<u64>,
    progress: ShownProgress<'a>,
    metadata: ShownCost,
}

#[derive(Serialize)]
struct ShownCounts {
    created: u64,
    updated: u64,
    deleted: u64,
    failed: u64,
}

pub(super) fn shown<'a>(sync: &'a SyncRecord, job: &'a JobRecord, now: Timestamp) -> ShownJob<'a> {
    let counts = &job.counts;
    ShownJob {
        sync_job_id: &job.job_id,
        sync_config_id: &job.sync_id,
        internal_id: &sync.internal_id,
        namespace_id: &sync.namespace_id,
        bucket_id: &sync.bucket_id,
        status: job.status.as_str(),
        trigger: job.trigger.as_str(),
        phase: job.phase.as_str(),
        total_files: total(job).map(render::int),
        files_synced: render::int(counts.changes()),
        files_failed: render::int(counts.failed),
        files_verified: render::int(verified(job)),
        changes: ShownCounts {
            created: render::int(counts.created),
            updated: render::int(counts.updated),
            deleted: render::int(counts.deleted),
            failed: render::int(counts.failed),
        },
        bytes_synced: render::int(counts.delivered_bytes),
        created_at: Shown::of(job.created_at),
        started_at: job.started_at.and_then(Shown::of),
        completed_at: job.completed_at.and_then(Shown::of),
        updated_at: Shown::of(job.updated_at),
        error: job.error.as_ref().map(|error| render::error(&error.message)),
        error_code: job.error.as_ref().map(|error| error.kind.as_str()),
        warnings: render::warnings(&job.warnings),
        deletions_held: render::int(job.deletions_held),
        held_keys: &job.held_keys,
        progress_percent: percent(job),
        throughput_files_per_min: throughput(job),
        throttled: render_throttled(job),
        lag_seconds: (!job.is_over()).then(|| render::int(now.millis_since(job.updated_at) / 1_000)),
        progress: progress(job, now),
        metadata: shown_cost(&job.cost),
    }
}

/// That B2 allows few calls, and what b2sync does about it; `null` where it does not.
fn render_throttled(job: &JobRecord) -> Value {
    let seconds = match job.list_interval_ms {
        0 => return Value::Null,
        millis => render::decimal((millis as f64 / 1_000.0).max(0.1)),
    };
    json!({
        "seconds_between_calls": seconds,
        "message": format!(
            "B2 refused list calls as too many. They now keep a distance of {seconds} s, so the job takes longer; \
             nothing is lost. If other programs use the same key, slow them down or give them a key of their own."
        ),
    })
}

/// What a job has spent. `dollars` is what B2 charges at its list prices, as if no free calls were left.
#[derive(Serialize)]
pub(super) struct ShownCost {
    class_b_calls: u64,
    class_c_calls: u64,
    bytes_received: u64,
    state_reads: u64,
    state_writes: u64,
    state_deletions: u64,
    steps: u64,
    dollars: Value,
}

pub(super) fn shown_cost(cost: &JobCost) -> ShownCost {
    ShownCost {
        class_b_calls: render::int(cost.class_b),
        class_c_calls: render::int(cost.class_c),
        bytes_received: render::int(cost.bytes_received),
        state_reads: render::int(cost.state_reads),
        state_writes: render::int(cost.state_writes),
        state_deletions: render::int(cost.state_deletions),
        steps: render::int(cost.steps),
        dollars: render::dollars(b2_nanodollars(cost)),
    }
}

/// As [`shown_cost`], to be added to.
pub(super) fn render_cost(cost: &JobCost) -> Map<String, Value> {
    match serde_json::to_value(shown_cost(cost)) {
        Ok(Value::Object(cost)) => cost,
        _ => Map::new(),
    }
}
