//! Dead letters: what requests say, and what answers show.

use serde_json::{Value, json};

use super::{
    body::{Fields, parse_object},
    errors::{ApiError, Problem},
    pagination::check_problems,
    render,
};
use crate::{registry::SyncRecord, sinks::dead_letters::DeadLetter};

/// Which dead letters to list.
pub(super) struct DeadLetterFilter {
    /// Without those that are on their way again.
    pub(super) only_max_retries: bool,
    /// Only these types; all, if none is named.
    pub(super) error_types: Vec<String>,
}

impl DeadLetterFilter {
    /// Reads the body of a list; problems go with those of the query.
    pub(super) fn parse(body: &[u8], problems: &mut Vec<Problem>) -> Result<Self, ApiError> {
        let mut fields = Fields::of_body(parse_object(body)?, problems);
        let filter = Self {
            only_max_retries: fields.flag("only_max_retries").unwrap_or(false),
            error_types: fields.texts("error_types").unwrap_or_default(),
        };
        fields.done();
        Ok(filter)
    }
}

/// Reads `{"error_types": […]}`; where it is `required`, there must be one at least.
pub(super) fn parse_error_types(body: &[u8], required: bool) -> Result<Vec<String>, ApiError> {
    let mut problems = Vec::new();
    let mut fields = Fields::of_body(parse_object(body)?, &mut problems);
    let error_types = fields.texts("error_types");
    if required && error_types.as_ref().is_none_or(Vec::is_empty) && !fields.reported("error_types") {
        fields.missing("error_types", "which to give up, one at least; each dead letter shows its `error_type`");
    }
    fields.done();
    check_problems(problems)?;
    Ok(error_types.unwrap_or_default())
}

/// A dead letter, as the client reads it.
pub(super) fn render(sync: &SyncRecord, letter: &DeadLetter) -> Value {
    json!({
        "dlq_id": letter.dlq_id(),
        "sync_config_id": sync.sync_id,
        "internal_id": sync.internal_id,
        "namespace_id": sync.namespace_id,
        "bucket_id": sync.bucket_id,
        "source_object_id": letter.key,
        "source_path": format!("b2://{}/{}", sync.source.bucket().as_str(), letter.key),
        "error_type": letter.error_type,
        "error_message": render::error(&letter.reason),
        "retry_count": letter.attempts,
        "max_retries_reached": !letter.requeued,
        "requeued_at": render::time(letter.requeued_at),
        "disposal_reason": letter.marked_failed.then_some("marked_failed"),
        "first_seen_at": render::time(letter.first_seen_at),
        "last_seen_at": render::time(letter.last_seen_at),
        "change_id": letter.change_id,
        "position": render::integer(letter.position),
        "change": letter.kind.as_str(),
        "size_bytes": render::integer(letter.size),
        "last_modified": render::time(letter.last_modified),
    })
}
