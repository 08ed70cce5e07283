//! The feed: what requests ask for, and what answers show.

use serde_json::{Map, Value, json};

use super::{
    body::{Fields, Given},
    errors::{ApiError, Problem, problem_of},
    pagination::Query,
    render,
};
use crate::{
    catalogue::ChangeWire,
    coordinator::{
        CHANGES_WAIT_MS_MAX,
        protocol::{SinkStatus, SyncStatus},
    },
    registry::SyncRecord,
    sinks::{CATALOGUE, SinkKind, SinkSpec, SinkState},
};
use b2sync_core::{
    error::{Error, ErrorKind},
    feed::read::PAGE_CHANGES_MAX,
};

/// Changes of a page, unless the request says how many.
const LIMIT_DEFAULT: u64 = 100;

/// Which changes to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChangesRequest {
    /// Behind this position; `None`: from the oldest that is there.
    pub(super) after: Option<u64>,
    /// At most this many.
    pub(super) limit: u64,
    /// Wait so long for the first one, in milliseconds.
    pub(super) wait_ms: u64,
}

impl ChangesRequest {
    /// Reads `after`, `limit` and `wait`.
    pub(super) fn parse(query: &Query, problems: &mut Vec<Problem>) -> Self {
        let limit_max = PAGE_CHANGES_MAX as u64;
        let wait_max = CHANGES_WAIT_MS_MAX / 1_000;
        Self {
            after: query.integer("after", 0, u64::MAX, problems),
            limit: query.integer("limit", 1, limit_max, problems).unwrap_or(LIMIT_DEFAULT),
            wait_ms: query.integer("wait", 0, wait_max, problems).unwrap_or(0) * 1_000,
        }
    }
}

/// What is wrong with the position that was asked for is wrong with the query.
pub(super) fn refusal(error: Error) -> ApiError {
    match error.field() {
        Some(field) if error.kind() == ErrorKind::InvalidInput => {
            let problem = problem_of(&error, field);
            ApiError::Invalid(vec![Problem { location: vec!["query".to_owned(), field.to_owned()], ..problem }])
        }
        _ => error.into(),
    }
}

/// A page of the feed, as the client reads it.
pub(super) fn render_page(changes: &[ChangeWire], first: u64, last: u64, asked: ChangesRequest) -> Value {
    let newest = changes.last().map(|change| change.position);
    let after = newest.or(asked.after).unwrap_or_else(|| first.saturating_sub(1));
    json!({
        "changes": changes.iter().map(render_change).collect::<Vec<_>>(),
        "next_after": render::integer(after),
        "has_more": after < last,
        "first": render::integer(first),
        "last": render::integer(last),
    })
}

/// One change, with the field names of every reader of the feed.
fn render_change(change: &ChangeWire) -> Value {
    let mut rendered = Map::new();
    let all = json!({
        "position": render::integer(change.position),
        "id": change.id,
        "kind": change.kind.as_str(),
        "key": change.key,
        "etag": change.etag,
        "size": render::integer(change.size),
        "last_modified": render::time(change.last_modified),
        "found_at": render::time(change.found_at),
        "job_id": change.job_id,
    });
    if let Value::Object(all) = all {
        rendered.extend(all);
    }
    if let Some(previous) = &change.previous {
        let previous = json!({
            "size": render::integer(previous.size),
            "last_modified": render::time(previous.last_modified),
            "tag": format!("{:016x}", previous.tag),
        });
        rendered.insert("previous".to_owned(), previous);
    }
    if change.again {
        rendered.insert("again".to_owned(), true.into());
    }
    Value::Object(rendered)
}

/// Reads `sinks`: a list of kinds, or of objects that name one. `null` is the default.
pub(super) fn read_sinks(fields: &mut Fields<'_>) -> Given<Vec<SinkSpec>> {
    if fields.is_null("sinks") {
        fields.value("sinks");
        return Given::Null;
    }
    let Some(value) = fields.value("sinks") else { return Given::Absent };
    let kind = |item: &Value| match item {
        Value::String(kind) => kind == CATALOGUE,
        Value::Object(fields) => {
            // As answers show it: its id is that of its kind.
            let is_it = |name| fields.get(name).is_none_or(|value| value == CATALOGUE);
            fields.contains_key("kind")
                && ["kind", "sink_id"].into_iter().all(is_it)
                && fields.keys().all(|name| matches!(name.as_str(), "kind" | "sink_id"))
        }
        _ => false,
    };
    match value {
        Value::Array(items) if items.is_empty() => Given::Value(Vec::new()),
        Value::Array(items) if items.len() == 1 && items.iter().all(kind) => Given::Value(vec![SinkSpec::catalogue()]),
        _ => {
            let message = "`sinks` must be [\"catalogue\"], or [] for a sync that is a feed and nothing else.";
            fields.problem("sinks", "value_error", message);
            Given::Absent
        }
    }
}

/// The sinks of a sync, each with how it stands.
pub(super) fn render_sinks(record: &SyncRecord, status: &SyncStatus) -> Value {
    let sink = |spec: &SinkSpec| {
        let known = status.sinks.iter().flatten().find(|sink| sink.sink_id == spec.sink_id);
        let kind = match spec.kind {
            SinkKind::Catalogue => CATALOGUE,
        };
        let mut sink =
            Map::from_iter([("sink_id".to_owned(), spec.sink_id.as_str().into()), ("kind".to_owned(), kind.into())]);
        if let Some(Value::Object(health)) = known.map(|sink| health(sink, status)) {
            sink.extend(health);
        }
        Value::Object(sink)
    };
    record.sinks.iter().map(sink).collect::<Vec<_>>().into()
}

fn health(sink: &SinkStatus, status: &SyncStatus) -> Value {
    let state = match sink.state {
        SinkState::Active => "active",
        SinkState::BackingOff => "backing_off",
        SinkState::Disabled => "disabled",
    };
    json!({
        "state": state,
        "cursor": render::integer(sink.cursor),
        "lag": render::integer(status.feed_last.saturating_sub(sink.cursor)),
        "taken": render::integer(sink.taken),
        "failures": sink.failures,
        "first_failure_at": render::time(sink.first_failure_at),
        "last_failure_at": render::time(sink.last_failure_at),
        "last_error": sink.last_error.as_ref().map(|error| render::error(&error.message)),
        "next_attempt_at": render::time(sink.next_attempt_at),
        "dead_letters": render::integer(sink.dead_letters.values().sum()),
    })
}
