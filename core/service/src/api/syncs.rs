//! Syncs: what requests say, and what answers show.
//!
//! Both spellings of the filters are read: flat (`include_patterns`, `exclude_patterns`, `modified_since`), as the
//! integration's documentation writes them, and nested in `file_filters`, as the client does. Answers have the nested
//! one. `sync_mode` is answered in the client's enum; the mode as it was asked stands in `schedule`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    body::{Fields, Given, parse_object},
    changes::{read_sinks, render_sinks},
    connections::{DESCRIPTION_CHARS_MAX, PROVIDER},
    errors::{ApiError, Problem, problem_of},
    filters::ListFilter,
    jobs,
    pagination::check_problems,
    render,
};
use crate::{
    coordinator::protocol::{SyncState, SyncStatus},
    cost,
    registry::{FEED_RETENTION_HOURS_MAX, FEED_RETENTION_HOURS_MIN, SyncMode, SyncRecord, usual_sinks},
    sinks::{CATALOGUE, SinkSpec},
};
use b2sync_core::{
    filter::{Filter, FilterSpec},
    policy::{DELETION_FILES_MAX, DELETION_PERCENT_MAX, DeletionLimit, Reconcile},
    source_path::SourcePath,
    time::Timestamp,
};

/// Seconds between polls: the default and the bounds.
const INTERVAL_S: (u64, u64, u64) = (300, 30, 86_400);
/// Changes a batch: the default and the bounds.
const BATCH: (u64, u64, u64) = (50, 1, 100);
/// The longest name or id in a body, in characters.
const NAME_CHARS_MAX: usize = 200;
/// The largest `max_class_c_per_day`: ten billion files listed a day.
const CLASS_C_MAX: u64 = 10_000_000;
/// The largest `max_objects_per_run`: what every client's `int` takes.
const OBJECTS_MAX: u64 = i64::MAX as u64;

/// A sync to create.
pub(super) struct NewSync {
    /// Id or name.
    pub(super) connection: String,
    pub(super) source: SourcePath,
    pub(super) mode: SyncMode,
    pub(super) settings: SyncPatch,
}

/// Reads the body of a create.
pub(super) fn parse_create(body: &[u8]) -> Result<NewSync, ApiError> {
    let mut problems = Vec::new();
    let mut fields = Fields::of_body(parse_object(body)?, &mut problems);
    let connection = fields.text("connection_id", 1, NAME_CHARS_MAX);
    if connection.is_none() && !fields.reported("connection_id") {
        fields.missing("connection_id", "the connection to read through; create one first");
    }
    let source = match fields.text("source_path", 0, usize::MAX) {
        Some(text) => SourcePath::parse(&text)
            .map_err(|error| fields.report(problem_of(&error, error.field().unwrap_or("source_path"))))
            .ok(),
        None => {
            if !fields.reported("source_path") {
                fields.missing("source_path", "b2://bucket/prefix, or bucket/prefix, or only the bucket");
            }
            None
        }
    };
    let mode = fields.choice(
        "sync_mode",
        &[
            ("continuous", SyncMode::Continuous),
            ("scheduled", SyncMode::Scheduled),
            ("one_time", SyncMode::OneTime),
            ("initial_only", SyncMode::OneTime),
        ],
    );
    let mut settings = SyncPatch::read(&mut fields);
    settings.sync_from = fields.time("sync_from");
    let mut filters = FilterSpec::default();
    settings.filters.apply(&mut filters);
    if settings.sync_from.is_some() {
        filters.modified_after = filters.modified_after.max(settings.sync_from);
    }
    // Whether a filter compiles does not depend on which source it is for; any will do to find its problems.
    if let Some(any) = source.clone().or_else(|| SourcePath::parse("any-bucket").ok()) {
        check_filters(&filters, &any, &mut fields);
    }
    fields.done();
    check_problems(problems)?;
    let (Some(connection), Some(source)) = (connection, source) else {
        return Err(ApiError::Invalid(Vec::new())); // Both were reported above.
    };
    Ok(NewSync { connection, source, mode: mode.unwrap_or_default(), settings })
}

fn check_filters(filters: &FilterSpec, source: &SourcePath, fields: &mut Fields<'_>) {
    if let Err(error) = Filter::compile(filters, source) {
        fields.report(problem_of(&error, error.field().unwrap_or("file_filters")));
    }
}

/// What to change about a sync, or, applied to a new one, what its user chose.
pub(super) struct SyncPatch {
    description: Given<String>,
    metadata: Given<Map<String, Value>>,
    /// To resume or to pause.
    pub(super) activate: Option<bool>,
    polling_interval_s: Option<u64>,
    batch_size: Option<u64>,
    skip_duplicates: Option<bool>,
    max_objects_per_run: Given<u64>,
    max_class_c_per_day: Given<u64>,
    sync_concurrency: Given<u64>,
    feed_retention_hours: Option<u64>,
    sinks: Given<Vec<SinkSpec>>,
    on_delete: Option<bool>,
    on_update: Option<bool>,
    on_filter_drift: Option<bool>,
    /// Percent, files.
    deletion_limit: Given<(Option<u64>, Option<u64>)>,
    reconcile_echoed: Map<String, Value>,
    skip_batch_submission: Option<bool>,
    batch_collection_ids: Given<Vec<String>>,
    ingest_filter: Given<Map<String, Value>>,
    provider_filters: Given<Map<String, Value>>,
    schema_mapping: Given<Map<String, Value>>,
    sync_from: Option<Timestamp>,
    filters: FilterPatch,
}

/// Reads the body of a PATCH.
pub(super) fn parse_patch(body: &[u8]) -> Result<SyncPatch, ApiError> {
    let mut problems = Vec::new();
    let mut fields = Fields::of_body(parse_object(body)?, &mut problems);
    let mut patch = SyncPatch::read(&mut fields);
    patch.activate = fields.choice("status", &[("ACTIVE", true), ("SUSPENDED", false)]);
    if let Some(is_active) = fields.flag("is_active") {
        if patch.activate.is_some_and(|activate| activate != is_active) {
            fields.problem("is_active", "value_error", "`is_active` contradicts `status`: send one of them.");
        }
        patch.activate = Some(is_active);
    }
    fields.done();
    check_problems(problems)?;
    Ok(patch)
}

impl SyncPatch {
    /// Reads what both a create and a PATCH may hold.
    fn read(fields: &mut Fields<'_>) -> Self {
        let mut patch = Self {
            description: fields.text_or_null("description", 0, DESCRIPTION_CHARS_MAX),
            metadata: fields.free_object_or_null("metadata"),
            activate: None,
            polling_interval_s: fields.integer("polling_interval_seconds", INTERVAL_S.1, INTERVAL_S.2),
            batch_size: fields.integer("batch_size", BATCH.1, BATCH.2),
            skip_duplicates: fields.flag("skip_duplicates"),
            max_objects_per_run: fields.integer_or_null("max_objects_per_run", 1, OBJECTS_MAX),
            max_class_c_per_day: fields.integer_or_null("max_class_c_per_day", 1, CLASS_C_MAX),
            sync_concurrency: fields.integer_or_null("sync_concurrency", 1, 100),
            feed_retention_hours: fields.integer(
                "feed_retention_hours",
                FEED_RETENTION_HOURS_MIN.into(),
                FEED_RETENTION_HOURS_MAX.into(),
            ),
            sinks: read_sinks(fields),
            on_delete: None,
            on_update: None,
            on_filter_drift: None,
            deletion_limit: Given::Absent,
            reconcile_echoed: Map::new(),
            skip_batch_submission: fields.flag("skip_batch_submission"),
            batch_collection_ids: fields.texts_or_null("batch_collection_ids"),
            ingest_filter: fields.free_object_or_null("ingest_filter"),
            provider_filters: fields.free_object_or_null("provider_filters"),
            schema_mapping: fields.free_object_or_null("schema_mapping"),
            sync_from: None,
            filters: FilterPatch::read(fields),
        };
        // What is echoed must be such that the client can read it.
        if let Given::Value(filter) = &patch.ingest_filter
            && filter.get("retriever_id").and_then(Value::as_str).is_none_or(str::is_empty)
        {
            fields.problem("ingest_filter", "value_error", "`ingest_filter` must name a `retriever_id`.");
        }
        if let Given::Value(mapping) = &patch.schema_mapping
            && !mapping.get("mappings").is_some_and(Value::is_object)
        {
            fields.problem("schema_mapping", "value_error", "`schema_mapping` must have an object `mappings`.");
        }
        if let Some(mut reconcile) = fields.nested("reconcile") {
            patch.on_delete = reconcile.flag("on_delete");
            patch.on_update = reconcile.flag("on_update");
            patch.on_filter_drift = reconcile.flag("on_filter_drift");
            if let Some(flag) = reconcile.flag("re_extract_on_update") {
                patch.reconcile_echoed.insert("re_extract_on_update".to_owned(), flag.into());
            }
            if let Some(names) = reconcile.texts("re_extract_fields") {
                patch.reconcile_echoed.insert("re_extract_fields".to_owned(), names.into());
            }
            reconcile.done();
        }
        if fields.is_null("deletion_limit") {
            patch.deletion_limit = Given::Null;
        }
        if let Some(mut limit) = fields.nested("deletion_limit") {
            let percent = limit.integer("percent", 0, DELETION_PERCENT_MAX.into());
            let files = limit.integer("files", 0, DELETION_FILES_MAX.into());
            patch.deletion_limit = Given::Value((percent, files));
            limit.done();
        }
        patch
    }

    /// Changes everything but whether the sync is active.
    ///
    /// # Errors
    /// The filters that result do not fit together.
    pub(super) fn apply(&self, record: &mut SyncRecord) -> Result<(), ApiError> {
        self.description.clone().apply(&mut record.description);
        record.description = record.description.take().filter(|text| !text.is_empty());
        match &self.metadata {
            Given::Absent => {}
            Given::Null => record.metadata = Map::new(),
            Given::Value(metadata) => record.metadata.clone_from(metadata),
        }
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX); // All have bounds below.
        record.polling_interval_s = self.polling_interval_s.map_or(record.polling_interval_s, small);
        record.batch_size = self.batch_size.map_or(record.batch_size, small);
        record.skip_duplicates = self.skip_duplicates.unwrap_or(record.skip_duplicates);
        self.max_objects_per_run.clone().apply(&mut record.max_objects_per_run);
        self.max_class_c_per_day.clone().apply(&mut record.max_class_c_per_day);
        match self.sync_concurrency {
            Given::Absent => {}
            Given::Null => record.sync_concurrency = None,
            Given::Value(number) => record.sync_concurrency = Some(small(number)),
        }
        record.feed_retention_hours = self.feed_retention_hours.map_or(record.feed_retention_hours, small);
        match &self.sinks {
            Given::Absent => {}
            Given::Null => record.sinks = usual_sinks(),
            Given::Value(sinks) => record.sinks.clone_from(sinks),
        }
        let now = record.reconcile;
        record.reconcile = Reconcile {
            on_delete: self.on_delete.unwrap_or(now.on_delete),
            on_update: self.on_update.unwrap_or(now.on_update),
            on_filter_drift: self.on_filter_drift.unwrap_or(now.on_filter_drift),
        };
        match self.deletion_limit {
            Given::Absent => {}
            Given::Null => record.deletion_limit = DeletionLimit::default(),
            Given::Value((percent, files)) => {
                let DeletionLimit { percent: percent_now, files: files_now } = record.deletion_limit;
                record.deletion_limit = DeletionLimit {
                    percent: percent.map_or(percent_now, |it| u8::try_from(it).unwrap_or(DELETION_PERCENT_MAX)),
                    files: files.map_or(files_now, small),
                };
            }
        }
        let echoed = &mut record.echoed;
        echoed.reconcile.extend(self.reconcile_echoed.clone());
        echoed.skip_batch_submission = self.skip_batch_submission.unwrap_or(echoed.skip_batch_submission);
        self.batch_collection_ids.clone().apply(&mut echoed.batch_collection_ids);
        // An empty list clears it, as the client says.
        echoed.batch_collection_ids = echoed.batch_collection_ids.take().filter(|ids| !ids.is_empty());
        for (given, place) in [
            (&self.ingest_filter, &mut echoed.ingest_filter),
            (&self.provider_filters, &mut echoed.provider_filters),
            (&self.schema_mapping, &mut echoed.schema_mapping),
        ] {
            match given {
                Given::Absent => {}
                Given::Null => *place = None,
                Given::Value(map) => *place = Some(Value::Object(map.clone())),
            }
        }
        echoed.sync_from = self.sync_from.or(echoed.sync_from);
        self.filters.apply(&mut record.filters);
        Filter::compile(&record.effective_filters(), &record.source)?;
        Ok(())
    }
}

/// The defaults of a new sync's numbers: interval and batch size.
pub(super) const fn defaults() -> (u32, u32) {
    (INTERVAL_S.0 as u32, BATCH.0 as u32)
}

/// Changes of the filters: the nested ones as a whole, and the flat ones each by itself.
struct FilterPatch {
    whole: Given<FilterSpec>,
    include_patterns: Given<Vec<String>>,
    exclude_patterns: Given<Vec<String>>,
    modified_since: Given<Timestamp>,
}

impl FilterPatch {
    fn read(fields: &mut Fields<'_>) -> Self {
        let whole = match fields.is_null("file_filters") {
            true => {
                fields.value("file_filters");
                Given::Null
            }
            false => match fields.nested("file_filters") {
                Some(mut nested) => {
                    let spec = FilterSpec {
                        include_patterns: nested.texts("include_patterns").unwrap_or_default(),
                        exclude_patterns: nested.texts("exclude_patterns").unwrap_or_default(),
                        extensions: nested.texts("extensions").unwrap_or_default(),
                        min_size_bytes: nested.integer("min_size_bytes", 0, u64::MAX),
                        max_size_bytes: nested.integer("max_size_bytes", 0, u64::MAX),
                        modified_after: nested.time("modified_after"),
                        modified_before: nested.time("modified_before"),
                        mime_types: nested.texts("mime_types").unwrap_or_default(),
                    };
                    match nested.value("metadata_filters") {
                        None => {}
                        Some(Value::Array(none)) if none.is_empty() => {}
                        Some(_) => nested.problem(
                            "metadata_filters",
                            "value_error",
                            "Backblaze B2 lists files without their metadata, so they cannot be filtered by it. Leave \
                             `metadata_filters` out and filter by name, size, time or MIME type.",
                        ),
                    }
                    nested.done();
                    Given::Value(spec)
                }
                None => Given::Absent,
            },
        };
        let patch = Self {
            whole,
            include_patterns: fields.texts_or_null("include_patterns"),
            exclude_patterns: fields.texts_or_null("exclude_patterns"),
            modified_since: fields.time_or_null("modified_since"),
        };
        if let Given::Value(whole) = &patch.whole {
            let differ = |flat: &Given<Vec<String>>, nested: &Vec<String>| match flat {
                Given::Value(flat) => !nested.is_empty() && flat != nested,
                _ => false,
            };
            let since = matches!(patch.modified_since, Given::Value(since)
                                 if whole.modified_after.is_some_and(|after| after != since));
            for (conflict, flat, nested) in [
                (differ(&patch.include_patterns, &whole.include_patterns), "include_patterns", "include_patterns"),
                (differ(&patch.exclude_patterns, &whole.exclude_patterns), "exclude_patterns", "exclude_patterns"),
                (since, "modified_since", "modified_after"),
            ] {
                if conflict {
                    fields.problem(
                        flat,
                        "value_error",
                        format!("`{flat}` and `file_filters.{nested}` mean the same and differ: send one of them."),
                    );
                }
            }
        }
        patch
    }

    fn apply(&self, filters: &mut FilterSpec) {
        match &self.whole {
            Given::Absent => {}
            Given::Null => *filters = FilterSpec::default(),
            Given::Value(whole) => filters.clone_from(whole),
        }
        for (given, place) in [
            (&self.include_patterns, &mut filters.include_patterns),
            (&self.exclude_patterns, &mut filters.exclude_patterns),
        ] {
            match given {
                Given::Absent => {}
                Given::Null => place.clear(),
                Given::Value(patterns) => place.clone_from(patterns),
            }
        }
        self.modified_since.clone().apply(&mut filters.modified_after);
    }
}

/// Reads the body of a list: of which connection, and how they stand. Problems go with those of the query.
pub(super) fn parse_list(body: &[u8], problems: &mut Vec<Problem>) -> Result<ListFilter, ApiError> {
    ListFilter::parse(body, "connection_id", problems)
}

/// Whether a sync matches what its coordinator must be asked about.
pub(super) fn stands_as(filter: &ListFilter, record: &SyncRecord, status: Option<&SyncStatus>) -> bool {
    filter.stands_as(status_name(record, status), is_active(record, status))
}

/// `UNKNOWN` when the coordinator did not answer.
fn status_name(record: &SyncRecord, status: Option<&SyncStatus>) -> &'static str {
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

fn is_active(record: &SyncRecord, status: Option<&SyncStatus>) -> bool {
    let done = matches!(status.map(|status| status.state), Some(SyncState::Suspended | SyncState::Completed));
    record.is_active && !done
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
        None => Some("How the sync stands is not known at the moment: ask again.".to_owned()),
    };
    let live = json!({
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
        "source_path": record.source.to_string(),
        "source_type": PROVIDER,
        "file_filters": render_filters(&record.filters),
        "schema_mapping": echoed.schema_mapping,
        "sync_mode": mode,
        "schedule": {
            "mode": record.mode.as_str(),
            "interval_seconds": record.polling_interval_s,
            "next_run_at": render::time(status.next_sync_at),
            "last_run_at": render::time(status.last_sync_at),
        },
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
        "sync_progress": job.map(|job| jobs::render_progress(job, now)),
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
    let interval_s = u64::from(record.polling_interval_s);
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
    let stale_after_s = (2 * interval_s).max(120);
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
            .map(|idle| format!("The running job made no progress for {idle} seconds; POST …/unlock gives it up.")),
        "last_job": status.last_job.as_ref().map(jobs::render_summary),
    })
}
