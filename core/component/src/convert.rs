//! The core's values, and those of the interface.

use b2sync_core::{
    Error,
    engine::{Outcome, Reconcile, budget::Budget, limit::DeletionLimit},
    entry::Entry,
    filter::{FilterSpec, Verdict},
    job::JobCounts,
    sink::{Change, ChangeKind, Delivery},
    source_path::SourcePath,
    time::Timestamp,
};

use crate::bindings::{
    b2sync::embed::{sink, types},
    exports::b2sync::embed::sync as wit,
};

impl From<Error> for types::Error {
    fn from(error: Error) -> Self {
        Self {
            kind: error.kind().as_str().to_owned(),
            message: error.message().to_owned(),
            advice: error.advice().to_owned(),
            field: error.field().map(str::to_owned),
            transient: error.is_transient(),
            retry_after_ms: error.retry_after_ms(),
        }
    }
}

impl From<types::Entry> for Entry {
    fn from(entry: types::Entry) -> Self {
        let types::Entry { key, etag, size, last_modified_ms } = entry;
        Self { key, etag, size, last_modified: Timestamp::from_millis(last_modified_ms) }
    }
}

impl From<&Entry> for types::Entry {
    fn from(entry: &Entry) -> Self {
        Self {
            key: entry.key.clone(),
            etag: entry.etag.clone(),
            size: entry.size,
            last_modified_ms: entry.last_modified.as_millis(),
        }
    }
}

impl From<&Change> for types::Change {
    fn from(change: &Change) -> Self {
        let kind = match change.kind {
            ChangeKind::Created => types::ChangeKind::Created,
            ChangeKind::Updated => types::ChangeKind::Updated,
            ChangeKind::Deleted => types::ChangeKind::Deleted,
        };
        Self { id: change.id.clone(), kind, entry: (&change.entry).into() }
    }
}

impl From<sink::Delivery> for Delivery {
    fn from(delivery: sink::Delivery) -> Self {
        match delivery {
            sink::Delivery::Delivered => Self::Delivered,
            sink::Delivery::Refused(reason) => Self::Refused(reason),
        }
    }
}

impl From<SourcePath> for wit::SourcePath {
    fn from(path: SourcePath) -> Self {
        Self {
            bucket: path.bucket().as_str().to_owned(),
            prefix: path.prefix().to_owned(),
            canonical: path.to_string(),
        }
    }
}

impl From<wit::FilterSpec> for FilterSpec {
    fn from(spec: wit::FilterSpec) -> Self {
        Self {
            include_patterns: spec.include_patterns,
            exclude_patterns: spec.exclude_patterns,
            extensions: spec.extensions,
            min_size_bytes: spec.min_size_bytes,
            max_size_bytes: spec.max_size_bytes,
            modified_after: spec.modified_after_ms.map(Timestamp::from_millis),
            modified_before: spec.modified_before_ms.map(Timestamp::from_millis),
            mime_types: spec.mime_types,
        }
    }
}

impl From<Verdict<'_>> for wit::Verdict {
    fn from(verdict: Verdict<'_>) -> Self {
        match verdict.field() {
            None => Self::Taken,
            Some(field) => Self::Refused(wit::Refusal { field: field.to_owned(), reason: verdict.to_string() }),
        }
    }
}

impl From<wit::Reconcile> for Reconcile {
    fn from(reconcile: wit::Reconcile) -> Self {
        let wit::Reconcile { on_delete, on_update, on_filter_drift } = reconcile;
        Self { on_delete, on_update, on_filter_drift }
    }
}

impl From<wit::DeletionLimit> for DeletionLimit {
    fn from(limit: wit::DeletionLimit) -> Self {
        let wit::DeletionLimit { percent, files } = limit;
        Self { percent, files }
    }
}

impl From<wit::Budget> for Budget {
    fn from(budget: wit::Budget) -> Self {
        Self {
            external_requests_max: budget.requests_max.unwrap_or(u64::MAX),
            internal_requests_max: budget.calls_max.unwrap_or(u64::MAX),
            wall_ms_max: budget.wall_ms_max.unwrap_or(u64::MAX),
            bytes_received_max: budget.bytes_received_max.unwrap_or(u64::MAX),
            keys_max: budget.keys_max.unwrap_or(u64::MAX),
        }
    }
}

impl From<Outcome> for wit::Progress {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Continue => Self::Continue,
            Outcome::Done => Self::Done,
        }
    }
}

impl From<JobCounts> for wit::Counts {
    fn from(counts: JobCounts) -> Self {
        let JobCounts { listed, matched, matched_bytes, created, updated, deleted, failed, delivered_bytes } = counts;
        Self { listed, matched, matched_bytes, created, updated, deleted, failed, delivered_bytes }
    }
}
