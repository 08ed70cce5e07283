//! What requests say about a sync.
//!
//! Both spellings of the filters are read: flat (`include_patterns`, `exclude_patterns`, `modified_since`), as the
//! integration's documentation writes them, and nested in `file_filters`, as the client does.

use serde_json::{Map, Value};

use super::{
    schedule::{MODES, SchedulePatch},
    sinks::read_sinks,
};
use crate::{
    api::{
        body::{DESCRIPTION_CHARS_MAX, Fields, Given, parse_object},
        errors::{ApiError, problem_of},
        query::check_problems,
    },
    registry::{BATCH_SIZE, FEED_RETENTION_HOURS_MAX, FEED_RETENTION_HOURS_MIN, SyncMode, SyncRecord, usual_sinks},
    sinks::SinkSpec,
};
use b2sync_core::{
    filter::{Filter, FilterSpec},
    policy::{DELETION_FILES_MAX, DELETION_PERCENT_MAX, DeletionLimit, Reconcile},
    source_path::SourcePath,
    time::Timestamp,
};

/// Changes a batch: the default and the bounds.
pub(in crate::api) const BATCH: (u64, u64, u64) = (BATCH_SIZE as u64, 1, 100);
/// The longest name or id in a body, in characters.
const NAME_CHARS_MAX: usize = 200;
/// The largest `max_class_c_per_day`: ten billion files listed a day.
pub(in crate::api) const CLASS_C_MAX: u64 = 10_000_000;
/// The largest `sync_concurrency`.
pub(in crate::api) const CONCURRENCY_MAX: u64 = 100;
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
        fields.missing("connection_id", "the id or the name of a connection; create one first");
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
    let mode = fields.choice("sync_mode", &MODES);
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
    let mode = mode.unwrap_or_else(|| settings.schedule.mode_default());
    Ok(NewSync { connection, source, mode, settings })
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
    schedule: SchedulePatch,
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
    for name in ["source_path", "connection_id", "sync_mode"] {
        let message = format!("`{name}` cannot be changed. Delete the sync and create a new one.");
        fields.refuse(name, message);
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
            metadata: fields.metadata(),
            activate: None,
            schedule: SchedulePatch::read(fields),
            batch_size: fields.integer("batch_size", BATCH.1, BATCH.2),
            skip_duplicates: fields.flag("skip_duplicates"),
            max_objects_per_run: fields.integer_or_null("max_objects_per_run", 1, OBJECTS_MAX),
            max_class_c_per_day: fields.integer_or_null("max_class_c_per_day", 1, CLASS_C_MAX),
            sync_concurrency: fields.integer_or_null("sync_concurrency", 1, CONCURRENCY_MAX),
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
    /// The filters that result do not fit together, or the schedule does not fit the sync.
    pub(super) fn apply(&self, record: &mut SyncRecord, now: Timestamp) -> Result<(), ApiError> {
        self.description.clone().apply(&mut record.description);
        record.description = record.description.take().filter(|text| !text.is_empty());
        match &self.metadata {
            Given::Absent => {}
            Given::Null => record.metadata = Map::new(),
            Given::Value(metadata) => record.metadata.clone_from(metadata),
        }
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX); // All have bounds below.
        self.schedule.apply(record, now)?;
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

/// The filters that only `file_filters` takes.
const NESTED_ONLY: [&str; 8] = [
    "extensions",
    "min_size_bytes",
    "max_size_bytes",
    "modified_after",
    "modified_before",
    "mime_types",
    "include_folder_markers",
    "metadata_filters",
];

/// Reads `file_filters`.
fn read_nested(mut nested: Fields<'_>) -> FilterSpec {
    let spec = FilterSpec {
        include_patterns: nested.texts("include_patterns").unwrap_or_default(),
        exclude_patterns: nested.texts("exclude_patterns").unwrap_or_default(),
        extensions: nested.texts("extensions").unwrap_or_default(),
        min_size_bytes: nested.integer("min_size_bytes", 0, u64::MAX),
        max_size_bytes: nested.integer("max_size_bytes", 0, u64::MAX),
        modified_after: nested.time("modified_after"),
        modified_before: nested.time("modified_before"),
        mime_types: nested.texts("mime_types").unwrap_or_default(),
        include_folder_markers: nested.flag("include_folder_markers").unwrap_or_default(),
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
    let elsewhere = "`modified_since` stands beside `file_filters`, not in it: send `modified_after` in it.";
    nested.refuse("modified_since", elsewhere.to_owned());
    nested.done();
    spec
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
                Some(nested) => Given::Value(read_nested(nested)),
                None => Given::Absent,
            },
        };
        for name in NESTED_ONLY {
            let message =
                format!("`{name}` belongs into `file_filters`: send {{\"file_filters\": {{\"{name}\": …}}}}.");
            fields.refuse(name, message);
        }
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
