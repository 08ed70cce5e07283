//! The sinks of a sync: which a request names, and how each stands.

use serde_json::{Map, Value, json};

use crate::{
    api::{
        body::{Fields, Given},
        render,
    },
    coordinator::protocol::{SinkStatus, SyncStatus},
    registry::SyncRecord,
    sinks::{CATALOGUE, SinkSpec},
};

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
            let message = "`sinks` must be [\"catalogue\"], or [] for a sync that only keeps a feed.";
            fields.problem("sinks", "value_error", message);
            Given::Absent
        }
    }
}

/// The sinks of a sync, each with how it stands.
pub(super) fn render_sinks(record: &SyncRecord, status: &SyncStatus) -> Value {
    let sink = |spec: &SinkSpec| {
        let known = status.sinks.iter().flatten().find(|sink| sink.sink_id == spec.sink_id);
        let (sink_id, kind) = (spec.sink_id.as_str(), spec.kind.as_str());
        let mut sink = Map::from_iter([("sink_id".to_owned(), sink_id.into()), ("kind".to_owned(), kind.into())]);
        if let Some(Value::Object(health)) = known.map(|sink| health(sink, status)) {
            sink.extend(health);
        }
        Value::Object(sink)
    };
    record.sinks.iter().map(sink).collect::<Vec<_>>().into()
}

fn health(sink: &SinkStatus, status: &SyncStatus) -> Value {
    json!({
        "state": sink.state.as_str(),
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
