//! The feed as server-sent events, for readers whose `Accept` asks for `text/event-stream`.
//!
//! An answer is whole: it has what is there, or the first change that comes within the wait, and ends. It says when to
//! ask again, and readers of events do so by themselves, with the position that they have reached in `Last-Event-ID`.
//!
//! Format: <https://html.spec.whatwg.org/multipage/server-sent-events.html>

use serde::Serialize;

use super::errors::{AnsweredText, EVENT_STREAM, json_text};

/// When a reader asks again, in milliseconds: nothing more was there.
const AGAIN_MS: u64 = 1_000;
/// When a reader asks again, in milliseconds: more is there already.
const MORE_MS: u64 = 1;

/// Whether an `Accept` header asks for events.
pub(super) fn are_asked_for(accept: Option<&str>) -> bool {
    let kinds = accept.unwrap_or_default().split(',');
    kinds.filter_map(|kind| kind.split(';').next()).any(|kind| kind.trim().eq_ignore_ascii_case(EVENT_STREAM))
}

/// One event for each change, with its position as the id. Without a change the reader still learns where it is.
pub(super) fn of_changes<'c, C: Serialize + 'c>(
    changes: impl Iterator<Item = (u64, &'c C)>,
    next_after: u64,
    has_more: bool,
) -> AnsweredText {
    let mut text = format!("retry: {}\n\n", if has_more { MORE_MS } else { AGAIN_MS });
    let mut is_empty = true;
    for (position, change) in changes {
        is_empty = false;
        // JSON has no line ends outside of its texts, and escapes those in them.
        text.push_str(&format!("id: {position}\nevent: change\ndata: {}\n\n", json_text(change)?));
    }
    if is_empty {
        text.push_str(&format!(": no change so far\nid: {next_after}\n\n"));
    }
    Ok(text)
}
