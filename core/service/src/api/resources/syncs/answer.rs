//! What answers show of a sync. They have the filters nested, in `file_filters`. `sync_mode` is answered in the
//! client's enum; the mode as it was asked stands in `schedule`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    schedule::{render_schedule, stale_after_s},
    sinks::render_sinks,
};
use crate::{
    api::{
        filters::{ListFilter, UNREADABLE},
        preconditions, render,
        resources::{connections::PROVIDER, jobs},
        service::{ORGANISATION_ID, USER_ID},
    },
    coordinator::protocol::{SyncState, SyncStatus},
    cost,
    registry::{SyncMode, SyncRecord, SyncRow},
    sinks::CATALOGUE,
};
use b2sync_core::{
    error::Error,
    filter::FilterSpec,
    job::JobStatus,
    time::Timestamp,
    warning::{self, Warning, WarningCode},
};

/// `UNKNOWN` when the coordinator did not answer.
pub(super) fn status_name(record: &SyncRecord, status: Option<&SyncStatus>) -> &'static str {
    match status.map(|status| status.state) {
        None => "UNKNOWN",
        Some(SyncState::Completed) => "COMPLETED",
        Some(SyncState::Suspended) => "SUSPENDED",
        Some(_) if !record.is_active => "SUSPENDED",
        Some(SyncState::Pending) => "PENDING",
        Some(SyncState::Active) => "ACTIVE",
        Some(SyncState::Failed) => "FAILED",
    }
}

pub(super) fn is_active(record: &SyncRecord, status: Option<&SyncStatus>) -> bool {
    let done = matches!(status.map(|status| status.state), Some(SyncState::Suspended | SyncState::Completed));
    record.is_active && !done
}

/// Whether only a sync can match that its user has not paused: see [`status_name`] and [`is_active`].
pub(super) fn needs_active(filter: &ListFilter) -> bool {
    filter.is_active() == Some(true) || matches!(filter.status(), Some("PENDING" | "ACTIVE" | "FAILED"))
}

fn is_paused(record: &SyncRecord, status: &SyncStatus) -> bool {
    !record.is_active || status.state == SyncState::Suspended
}

fn list_or_null(list: &[String]) -> Value {
    if list.is_empty() { Value::Null } else { list.into() }
}

fn render_filters(filters: &FilterSpec) -> Value {
    if *filters == FilterSpec::default() {
        return Value::Null;
    }
    json!({
        "include_patterns": list_or_null(&filters.include_patterns),
        "exclude_patterns": list_or_null(&filters.exclude_patterns),
        "extensions": list_or_null(&filters.extensions),
        "min_size_bytes": filters.min_size_bytes,
        "max_size_bytes": filters.max_size_bytes,
        "modified_after": render::time(filters.modified_after),
        "modified_before": render::time(filters.modified_before),
        "mime_types": list_or_null(&filters.mime_types),
        "include_folder_markers": filters.include_folder_markers,
        "metadata_filters": null,
    })
}

/// A sync, as the client reads it. `known` is `None` when its coordinator did not answer.
pub(super) fn render(record: &SyncRecord, known: Option<&SyncStatus>, now: Timestamp) -> Value {
    let nothing = SyncStatus::default();
    let status = known.unwrap_or(&nothing);
    let mut sync = render_settings(record, status);
    let last_error = match known {
        Some(status) => status.last_error.as_ref().map(|error| render::error(&error.message)),
        None => Some("The coordinator did not answer, so the state of the sync is unknown. Ask again.".to_owned()),
    };
    let live = json!({
        "warnings": render::warnings(&warnings(record, status)),
        "status": status_name(record, known),
        "is_active": is_active(record, known),
        "last_error": last_error,
    });
    for live in [live, render_live(record, status, now)] {
        if let (Value::Object(sync), Value::Object(live)) = (&mut sync, live) {
            sync.extend(live);
        }
    }
    sync
}

/// A sync whose record cannot be read: what is known of it, and why. It does nothing until it is deleted, or until a
/// b2sync is deployed that can read it. What is not known is `null`, so that it has every field that a sync has.
pub(super) fn render_unreadable(row: &SyncRow, error: &Error) -> Value {
    let mut sync = json!({
        "sync_config_id": row.sync_id,
        "bucket_id": row.bucket_id,
        "connection_id": row.connection_id,
        "internal_id": ORGANISATION_ID,
        "namespace_id": row.namespace_id,
        "etag": null,
        "source_type": PROVIDER,
        "created_at": render::time(row.created_at),
        "updated_at": render::time(row.created_at),
        "created_by_user_id": USER_ID,
        "metadata": {},
        "status": UNREADABLE,
        "is_active": false,
        "last_error": render::error(&error.to_string()),
        "warnings": [],
        "paused": false,
        "locked": false,
        "sinks": [],
    });
    if let Value::Object(sync) = &mut sync {
        sync.extend(NOT_KNOWN.split_whitespace().map(|name| (name.to_owned(), Value::Null)));
    }
    sync
}

/// The job that ran before and was interrupted since.
fn interrupted<'s>(before: &SyncStatus, now: &'s SyncStatus) -> Option<&'s str> {
    let ran = before.current_job.as_ref()?;
    let last = now.last_job.as_ref()?;
    (last.job_id == ran.job_id && last.status == JobStatus::Interrupted).then_some(last.job_id.as_str())
}

/// What came of an unlock.
pub(super) fn unlocked_message(before: &SyncStatus, now: &SyncStatus) -> String {
    match interrupted(before, now) {
        Some(job_id) => match now.next_sync_at {
            Some(at) => format!("The job {job_id} was aborted. The next one is due at {at}."),
            None => format!("The job {job_id} was aborted. No other is due: trigger the sync to start one."),
        },
        None => "No job was running, so nothing was aborted.".to_owned(),
    }
}

/// What came of a pause.
pub(super) fn paused_message(before: &SyncStatus, now: &SyncStatus) -> String {
    match (interrupted(before, now), before.paused_at) {
        (Some(job_id), _) => format!("The sync was paused, and its job {job_id} was interrupted."),
        (None, Some(_)) => "The sync was paused already.".to_owned(),
        (None, None) => "The sync was paused. No job was running.".to_owned(),
    }
}

/// What came of a resume.
pub(super) fn resumed_message(before: &SyncStatus, now: &SyncStatus) -> String {
    let was_paused = before.paused_at.is_some();
    let ran = before.current_job.as_ref().map(|job| &job.job_id);
    let started = now.current_job.as_ref().filter(|job| Some(&job.job_id) != ran);
    match (was_paused, started, ran) {
        (true, Some(job), _) => format!("The sync was resumed, and the job {} was started.", job.job_id),
        (true, None, _) => "The sync was resumed. No job was started.".to_owned(),
        (false, Some(job), _) => format!("The sync was not paused. The job {} was started.", job.job_id),
        (false, None, Some(job_id)) => format!("The sync was not paused, and its job {job_id} still runs."),
        (false, None, None) => "The sync was not paused, and no job was started.".to_owned(),
    }
}

/// The fields that are not known of a sync whose record cannot be read.
const NOT_KNOWN: &str = "source_path file_filters schema_mapping sync_mode schedule polling_interval_seconds \
    batch_size create_object_on_confirm skip_duplicates skip_batch_submission \
    batch_collection_ids ingest_filter provider_filters sync_from reconcile \
    deletion_limit description sync_concurrency max_objects_per_run max_class_c_per_day \
    feed_retention_hours total_files_discovered total_files_synced total_files_failed \
    total_bytes_synced total_bytes_known deletions_held held_keys consecutive_failures sync_run_counter \
    last_sync_at next_sync_at pause_reason paused_at locked_at current_sync_run_id \
    sync_progress stats dead_letters feed stretched cost";

/// Those of the latest job that completed, if it ran with the filters that the sync has now; else those that need no
/// job: of the filters, of deletions that are held, and, before the first job, of the creation.
fn warnings(record: &SyncRecord, status: &SyncStatus) -> Vec<Warning> {
    if status.warned_for == record.effective_filters().fingerprint() {
        return status.warnings.clone();
    }
    let mut warnings = warning::of_filters(&record.filters, &record.source);
    // What waits to be confirmed does so under any filters.
    let held = |warning: &&Warning| warning.code == WarningCode::DeletionsHeld && status.deletions_held > 0;
    warnings.extend(status.warnings.iter().filter(held).cloned());
    if status.last_sync_at.is_none() {
        warnings.extend(record.first_look.iter().cloned());
    }
    warnings
}

/// Differs where what a user sets differs. How the sync stands is not part of it.
pub(super) fn etag(record: &SyncRecord) -> String {
    preconditions::etag(&(&record.sync_id, record.revision))
}

/// What its user has set.
fn render_settings(record: &SyncRecord, status: &SyncStatus) -> Value {
    let echoed = &record.echoed;
    let mut reconcile = echoed.reconcile.clone();
    reconcile.insert("on_delete".to_owned(), record.reconcile.on_delete.into());
    reconcile.insert("on_update".to_owned(), record.reconcile.on_update.into());
    reconcile.insert("on_filter_drift".to_owned(), record.reconcile.on_filter_drift.into());
    let mode = match record.mode {
        SyncMode::OneTime => "initial_only",
        SyncMode::Continuous | SyncMode::Scheduled => "continuous",
    };
    json!({
        "sync_config_id": record.sync_id,
        "bucket_id": record.bucket_id,
        "connection_id": record.connection_id,
        "internal_id": record.internal_id,
        "namespace_id": record.namespace_id,
        "etag": etag(record),
        "source_path": record.source.to_string(),
        "source_type": PROVIDER,
        "file_filters": render_filters(&record.filters),
        "schema_mapping": echoed.schema_mapping,
        "sync_mode": mode,
        "schedule": render_schedule(record, status),
        "polling_interval_seconds": record.polling_interval_s,
        "batch_size": record.batch_size,
        "create_object_on_confirm": true,
        "skip_duplicates": record.skip_duplicates,
        "skip_batch_submission": echoed.skip_batch_submission,
        "batch_collection_ids": echoed.batch_collection_ids,
        "ingest_filter": echoed.ingest_filter,
        "provider_filters": echoed.provider_filters,
        "sync_from": render::time(echoed.sync_from),
        "reconcile": reconcile,
        "deletion_limit": {"percent": record.deletion_limit.percent, "files": record.deletion_limit.files},
        "created_at": render::time(record.created_at),
        "updated_at": render::time(record.updated_at),
        "created_by_user_id": record.created_by,
        "description": record.description,
        "metadata": record.metadata,
        "sync_concurrency": record.sync_concurrency,
        "max_objects_per_run": record.max_objects_per_run.map(render::integer),
        "max_class_c_per_day": record.max_class_c_per_day.map(render::integer),
        "feed_retention_hours": record.feed_retention_hours,
    })
}

/// How it stands.
fn render_live(record: &SyncRecord, status: &SyncStatus, now: Timestamp) -> Value {
    let job = status.current_job.as_ref();
    json!({
        "total_files_discovered": render::integer(status.files_known),
        "total_files_synced": render::integer(status.total_delivered),
        "total_files_failed": render::integer(status.total_failed),
        "total_bytes_synced": render::integer(status.total_bytes_delivered),
        "total_bytes_known": render::integer(status.bytes_known),
        "deletions_held": render::integer(status.deletions_held),
        "held_keys": status.held_keys,
        "consecutive_failures": render::integer(status.consecutive_failures),
        "sync_run_counter": render::integer(status.runs),
        "last_sync_at": render::time(status.last_sync_at),
        "next_sync_at": render::time(status.next_sync_at),
        "paused": is_paused(record, status),
        "pause_reason": status.pause_reason,
        "paused_at": render::time(status.paused_at),
        "locked": job.is_some(),
        "locked_at": render::time(job.map(|job| job.started_at.unwrap_or(job.created_at))),
        "current_sync_run_id": job.map(|job| &job.job_id),
        "sync_progress": job.map(|job| jobs::progress(job, now)),
        "stats": status.last_job.as_ref().map(|_| render_stats(status)),
        "dead_letters": dead_letters(status).map(|letters| render::integer(letters.values().sum())),
        "feed": {
            "first": render::integer(status.feed_first.max(1)),
            "last": render::integer(status.feed_last),
        },
        "sinks": render_sinks(record, status),
        "stretched": status.stretched,
        "cost": render_cost(record, status),
    })
}

/// The dead letters of the catalogue, by their type; `None`: they are not known at the moment.
fn dead_letters(status: &SyncStatus) -> Option<BTreeMap<String, u64>> {
    let sinks = status.sinks.as_ref()?;
    let catalogue = sinks.iter().find(|sink| sink.sink_id == CATALOGUE);
    Some(catalogue.map(|sink| sink.dead_letters.clone()).unwrap_or_default())
}

/// Seconds from the start of one job to the start of the next, as it is planned now.
fn interval_s(record: &SyncRecord, status: &SyncStatus) -> u64 {
    let interval_s = record.interval_s();
    status.stretched.as_ref().map_or(interval_s, |stretched| stretched.interval_seconds.max(interval_s))
}

/// What the latest job cost, and what a day of jobs like the latest that completed would. A sync that does not poll has
/// no forecast.
fn render_cost(record: &SyncRecord, status: &SyncStatus) -> Value {
    let last_job = status.last_job.as_ref().map(|job| {
        let mut cost = jobs::render_cost(&job.cost);
        cost.insert("sync_job_id".to_owned(), job.job_id.as_str().into());
        cost
    });
    let per_day = status.completed_cost.filter(|_| record.mode != SyncMode::OneTime).map(|job| {
        let day = cost::forecast_per_day(&job, interval_s(record, status));
        let mut per_day = jobs::render_cost(&day.cost);
        per_day.insert("interval_seconds".to_owned(), render::integer(day.interval_s));
        per_day.insert("dollars".to_owned(), render::dollars(day.b2_nanodollars));
        per_day.insert("state_dollars_max".to_owned(), render::dollars(day.state_nanodollars));
        per_day
    });
    json!({"last_job": last_job, "per_day": per_day})
}

fn render_stats(status: &SyncStatus) -> Value {
    let last = status.last_job.as_ref();
    let of_last =
        |count: fn(&b2sync_core::job::JobCounts) -> u64| render::integer(last.map_or(0, |job| count(&job.counts)));
    let duration_ms = last.map_or(0, jobs::duration_ms);
    json!({
        "total_objects_synced": render::integer(status.total_delivered),
        "total_objects_failed": render::integer(status.total_failed),
        "total_objects_discovered": render::integer(status.files_known),
        "total_bytes_synced": render::integer(status.total_bytes_delivered),
        "last_run_objects_synced": of_last(|counts| counts.changes()),
        "last_run_objects_failed": of_last(|counts| counts.failed),
        "last_run_objects_discovered": of_last(|counts| counts.matched),
        "last_run_objects_verified": render::integer(last.map_or(0, jobs::verified)),
        "last_run_objects_skipped": of_last(|counts| counts.listed.saturating_sub(counts.matched)),
        "last_run_bytes_synced": of_last(|counts| counts.delivered_bytes),
        "last_run_duration_seconds": render::decimal(duration_ms as f64 / 1_000.0),
        "last_run_at": render::time(last.and_then(|job| job.completed_at)),
    })
}

/// How a sync does, in one call.
pub(super) fn render_metrics(record: &SyncRecord, status: &SyncStatus, now: Timestamp) -> Value {
    let interval_s = interval_s(record, status);
    let stale_after_s = stale_after_s(record, interval_s, status.last_sync_at);
    let stalled_after_s = stale_after_s.max(300);
    let since_s = status.last_sync_at.map(|at| now.millis_since(at) / 1_000);
    let active = is_active(record, Some(status));
    let paused = is_paused(record, status);
    let polls = record.mode != SyncMode::OneTime;
    let stale = polls && active && since_s.is_some_and(|since| since > stale_after_s);
    let idle_s = status.current_job.as_ref().map(|job| now.millis_since(job.updated_at) / 1_000);
    let stalled = idle_s.is_some_and(|idle| idle > stalled_after_s);
    let done = status.state == SyncState::Completed;
    let failed = status.total_failed as f64;
    let discovered = status.files_known as f64;
    json!({
        "sync_config_id": record.sync_id,
        "status": status_name(record, Some(status)),
        "is_active": active,
        "paused": paused,
        "total_files_discovered": render::integer(status.files_known),
        "total_files_synced": render::integer(status.total_delivered),
        "total_files_failed": render::integer(status.total_failed),
        "batches_created": 0,
        "sync_run_counter": render::integer(status.runs),
        "consecutive_failures": render::integer(status.consecutive_failures),
        "last_error": status.last_error.as_ref().map(|error| render::error(&error.message)),
        "warnings": render::warnings(&warnings(record, status)),
        "deletions_held": render::integer(status.deletions_held),
        "last_sync_at": render::time(status.last_sync_at),
        "next_sync_at": render::time(status.next_sync_at),
        "seconds_since_last_sync": since_s.map(render::integer),
        "is_stale": stale,
        "intervals_since_last_sync":
            since_s.map(|since| render::decimal(since as f64 / interval_s.max(1) as f64)),
        "stale_after_seconds": stale_after_s,
        "failure_rate": if discovered > 0.0 { (failed / discovered).min(1.0) } else { 0.0 },
        "healthy": (active || done) && !paused && status.consecutive_failures == 0 && !stale && !stalled,
        "dlq_total": render::integer(dead_letters(status).unwrap_or_default().values().sum()),
        "dlq_by_error": dead_letters(status).unwrap_or_default(),
        "stretched": status.stretched,
        "cost": render_cost(record, status),
        "running_job": status.current_job.is_some(),
        "stalled": stalled,
        "stalled_reason": idle_s.filter(|_| stalled)
            .map(|idle| format!("The running job made no progress for {idle} seconds; POST …/unlock aborts it.")),
        "last_job": status.last_job.as_ref().map(jobs::render_summary),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use b2sync_core::job::{JobRecord, Phase, Trigger};

    fn job(job_id: &str, status: JobStatus) -> JobRecord {
        let at = Timestamp::from_millis(1);
        let record = json!({"job_id": job_id, "sync_id": "sync_1", "trigger": Trigger::Manual, "status": status,
                            "phase": Phase::Queued, "created_at": at, "updated_at": at});
        serde_json::from_value(record).unwrap()
    }

    fn stands(running: Option<&str>, ended: Option<(&str, JobStatus)>, is_paused: bool) -> SyncStatus {
        SyncStatus {
            current_job: running.map(|job_id| job(job_id, JobStatus::Running)),
            last_job: ended.map(|(job_id, status)| job(job_id, status)),
            paused_at: is_paused.then_some(Timestamp::from_millis(2)),
            ..SyncStatus::default()
        }
    }

    #[test]
    fn messages_say_what_was_done() {
        use JobStatus::{Completed, Interrupted};
        let idle = stands(None, Some(("job_0", Interrupted)), false);
        let paused = stands(None, Some(("job_0", Interrupted)), true);
        let running = stands(Some("job_1"), Some(("job_0", Completed)), false);
        let aborted = stands(None, Some(("job_1", Interrupted)), false);
        let paused_amid = stands(None, Some(("job_1", Interrupted)), true);
        let ended = stands(None, Some(("job_1", Completed)), false);
        let started = stands(Some("job_2"), Some(("job_0", Interrupted)), false);
        let next = "No other is due: trigger the sync to start one.";
        assert_eq!(unlocked_message(&running, &aborted), format!("The job job_1 was aborted. {next}"));
        let polls = SyncStatus { next_sync_at: Some(Timestamp::from_millis(0)), ..aborted };
        let next = "The next one is due at 1970-01-01T00:00:00Z.";
        assert_eq!(unlocked_message(&running, &polls), format!("The job job_1 was aborted. {next}"));
        for (before, now) in [(&idle, &idle), (&paused, &paused), (&running, &ended)] {
            assert_eq!(unlocked_message(before, now), "No job was running, so nothing was aborted.");
        }
        assert_eq!(paused_message(&running, &paused_amid), "The sync was paused, and its job job_1 was interrupted.");
        assert_eq!(paused_message(&paused, &paused), "The sync was paused already.");
        assert_eq!(paused_message(&idle, &paused), "The sync was paused. No job was running.");
        for (before, now, message) in [
            (&paused, &started, "The sync was resumed, and the job job_2 was started."),
            (&paused, &idle, "The sync was resumed. No job was started."),
            (&idle, &started, "The sync was not paused. The job job_2 was started."),
            (&running, &running, "The sync was not paused, and its job job_1 still runs."),
            (&idle, &idle, "The sync was not paused, and no job was started."),
        ] {
            assert_eq!(resumed_message(before, now), message);
        }
    }
}
