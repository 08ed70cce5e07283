//! The core's values, and those of the interface.

use b2sync_core::{
    Error,
    change::{Change, ChangeKind, Previous},
    engine::{Outcome, meter::Budget},
    entry::Entry,
    feed::Page,
    filter::{FilterSpec, Verdict},
    job::JobCounts,
    policy::{DeletionLimit, Reconcile},
    source_path::SourcePath,
    time::Timestamp,
    warning::Warning,
};

use crate::bindings::{b2sync::embed::types, exports::b2sync::embed::sync as wit};

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

impl From<Entry> for types::Entry {
    fn from(entry: Entry) -> Self {
        let Entry { key, etag, size, last_modified } = entry;
        Self { key, etag, size, last_modified_ms: last_modified.as_millis() }
    }
}

impl From<ChangeKind> for types::ChangeKind {
    fn from(kind: ChangeKind) -> Self {
        match kind {
            ChangeKind::Created => Self::Created,
            ChangeKind::Updated => Self::Updated,
            ChangeKind::Deleted => Self::Deleted,
        }
    }
}

impl From<Previous> for types::Previous {
    fn from(previous: Previous) -> Self {
        let Previous { size, last_modified, tag } = previous;
        let tag = format!("{:016x}", u64::from_be_bytes(tag.0));
        Self { size, last_modified_ms: last_modified.as_millis(), tag }
    }
}

impl From<Change> for types::Change {
    fn from(change: Change) -> Self {
        let Change { position, id, kind, entry, previous, again, found_at, job_id } = change;
        Self {
            position,
            id,
            kind: kind.into(),
            entry: entry.into(),
            previous: previous.map(Into::into),
            again,
            found_at_ms: found_at.as_millis(),
            job_id,
        }
    }
}

impl From<Page> for wit::ChangePage {
    fn from(page: Page) -> Self {
        let Page { changes, first, last } = page;
        Self { changes: changes.into_iter().map(Into::into).collect(), first, last }
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
            include_folder_markers: spec.include_folder_markers,
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

impl From<Warning> for wit::Warning {
    fn from(warning: Warning) -> Self {
        let Warning { code, message, advice } = warning;
        Self { code: code.as_str().to_owned(), message, advice }
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
        let JobCounts { listed, matched, matched_bytes, created, updated, deleted, delivered_bytes, .. } = counts;
        Self { listed, matched, matched_bytes, created, updated, deleted, appended_bytes: delivered_bytes }
    }
}
