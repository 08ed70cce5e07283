//! Dead letters of a sync.

use serde_json::{Value, json};

use crate::{
    api::{
        body::{Fields, parse_object},
        errors::{Answered, ApiError},
        list_fields::ListFields,
        pagination::{Cursor, Listing, PageRequest, render_list},
        query::{Query, check_problems},
        render,
        service::{Coordinators, Service, unexpected},
    },
    catalogue::Objects,
    coordinator::protocol::{Answer, Command},
    registry::{Registry, SyncRecord},
    sinks::dead_letters::DeadLetter,
};
use b2sync_core::{entropy::Entropy, http::HttpClient, time::Clock};

/// The most types that a list names: its links name them too.
pub(in crate::api) const LIST_TYPES_MAX: usize = 32;

/// Reads `{"error_types": […]}`; where it is `required`, there must be one at least.
pub(super) fn parse_error_types(body: &[u8], required: bool) -> Result<Vec<String>, ApiError> {
    let mut problems = Vec::new();
    let mut fields = Fields::of_body(parse_object(body)?, &mut problems);
    let error_types = fields.texts("error_types");
    if required && error_types.as_ref().is_none_or(Vec::is_empty) && !fields.reported("error_types") {
        fields.missing("error_types", "the types to give up, at least one; each dead letter shows its `error_type`");
    }
    fields.done();
    check_problems(problems)?;
    Ok(error_types.unwrap_or_default())
}

impl<R: Registry, C: Coordinators, O: Objects, H: HttpClient, K: Clock, E: Entropy> Service<'_, R, C, O, H, K, E> {
    pub(in crate::api) async fn list_dead_letters(&self, sync: &SyncRecord, query: &Query, body: &[u8]) -> Answered {
        let mut problems = Vec::new();
        let mut fields = ListFields::parse(query, body, &mut problems)?;
        let mut page = PageRequest::read(&mut fields, Listing::Counted);
        // Without those that were sent back.
        let only_max_retries = fields.flag("only_max_retries").unwrap_or(false);
        // Only these types; all, if none is named.
        let error_types = fields.texts("error_types", LIST_TYPES_MAX).unwrap_or_default();
        page.list_url = fields.done();
        check_problems(problems)?;
        let offset = page.begin();
        let command = Command::DeadLetters { only_max_retries, error_types, offset, limit: page.limit };
        let Answer::DeadLetters { letters, total } = self.coordinators.call(&sync.sync_id, command).await? else {
            return Err(unexpected().into());
        };
        let end = offset.saturating_add(page.limit);
        let next = (end < total).then_some(Cursor::Offset { n: end });
        let results = letters.iter().map(|letter| render(sync, letter)).collect();
        Ok(render_list(&page, results, Some(total), next.as_ref()))
    }

    pub(in crate::api) async fn requeue_dead_letters(&self, sync: &SyncRecord, body: &[u8]) -> Answered {
        let error_types = parse_error_types(body, false)?;
        let command = self.mark_dead_letters(sync, Command::Requeue { error_types });
        let requeued = self.watched(&sync.sync_id, command).await?;
        Ok(json!({"requeued": render::integer(requeued)}))
    }

    pub(in crate::api) async fn mark_dead_letters_failed(&self, sync: &SyncRecord, body: &[u8]) -> Answered {
        let error_types = parse_error_types(body, true)?;
        let updated = self.mark_dead_letters(sync, Command::MarkFailed { error_types }).await?;
        Ok(json!({"updated": render::integer(updated)}))
    }

    async fn mark_dead_letters(&self, sync: &SyncRecord, command: Command) -> Result<u64, ApiError> {
        match self.coordinators.call(&sync.sync_id, command).await? {
            Answer::Marked { letters } => Ok(letters),
            _ => Err(unexpected().into()),
        }
    }
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
