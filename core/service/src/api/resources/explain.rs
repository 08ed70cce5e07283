//! What happened to one file, and why: what the filters say of it, what B2 shows, what the snapshot knows, what the
//! feed has of it, and which sinks have taken that. The facts stand in fields; `summary` says them in words.

use serde_json::{Value, json};

use super::{changes, dead_letters};
use crate::{
    api::{
        errors::{Answered, ApiError, Problem},
        query::{Query, check_problems},
        render,
        service::{Coordinators, Service, unexpected},
    },
    catalogue::{ChangeWire, Objects},
    coordinator::protocol::{Answer, Command, KeyAnswer, SinkStatus},
    registry::{Registry, SyncRecord},
};
use b2sync_core::{
    change::ChangeKind,
    entropy::Entropy,
    entry::Entry,
    error::Error,
    filter::{Filter, Verdict},
    http::HttpClient,
    snapshot::{EtagTag, Known},
    time::{Clock, Timestamp},
};

/// The longest key, in bytes: that of B2.
const KEY_BYTES_MAX: usize = 1_024;

impl<R: Registry, C: Coordinators, O: Objects, H: HttpClient, K: Clock, E: Entropy> Service<'_, R, C, O, H, K, E> {
    pub(in crate::api) async fn explain_key(&self, sync: &SyncRecord, query: &Query) -> Answered {
        let key = parse(query)?;
        let filter = Filter::compile(&sync.filters, &sync.source)?;
        let is_below = key.starts_with(sync.source.prefix());
        let Answer::Key(stored) =
            self.coordinators.call(&sync.sync_id, Command::LookUp { key: key.to_owned() }).await?
        else {
            return Err(unexpected().into());
        };
        let in_b2 = if is_below { Some(self.look_at(sync, key).await) } else { None };
        let facts = Facts { sync, key, filter: &filter, in_b2, stored: *stored };
        Ok(facts.render(self.clock.now()))
    }

    /// The current version of the file in B2. Why B2 could not be asked is part of the explanation.
    async fn look_at(&self, sync: &SyncRecord, key: &str) -> Result<Option<Entry>, Error> {
        let connection = self.registry.connection(&sync.connection_id).await?.ok_or_else(|| {
            Error::new(
                b2sync_core::ErrorKind::NotFound,
                format!("The connection {} of the sync does not exist.", sync.connection_id),
                "Create a sync with another connection.",
            )
        })?;
        connection.check_usable()?;
        match self.look(connection, &sync.source, async |source| source.look_at(key).await).await {
            Ok(outcome) => outcome,
            Err(ApiError::Failed(error)) => Err(error),
            Err(_) => Err(Error::internal("What B2 said of the account could not be stored.")),
        }
    }
}

/// Reads `key`.
fn parse(query: &Query) -> Result<&str, ApiError> {
    let mut problems = Vec::new();
    query.check_only(&["key"], &mut problems);
    let key = query.get("key");
    let mut problem = |kind, message: String| {
        problems.push(Problem { location: vec!["query".to_owned(), "key".to_owned()], kind, message });
    };
    match key {
        None => problem("missing", "`key` is required: the whole key of the file, percent-encoded.".to_owned()),
        Some(key) if key.len() > KEY_BYTES_MAX => {
            problem("string_too_long", format!("`key` has {} bytes; B2 allows {KEY_BYTES_MAX}.", key.len()));
        }
        Some(_) => {}
    }
    check_problems(problems)?;
    key.ok_or(ApiError::Invalid(Vec::new())) // It was reported above.
}

/// All that is known of a file.
struct Facts<'a> {
    sync: &'a SyncRecord,
    key: &'a str,
    filter: &'a Filter,
    /// `None`: the key is outside of what the sync reads.
    in_b2: Option<Result<Option<Entry>, Error>>,
    stored: KeyAnswer,
}

/// How the filters were asked.
enum Asked<'f> {
    /// About the file as B2 shows it, or as it was known last.
    File(Verdict<'f>),
    /// About its name alone: no size and no time of it is known.
    Name(Verdict<'f>),
}

impl Facts<'_> {
    /// The file as B2 shows it now.
    fn shown(&self) -> Option<&Entry> {
        self.in_b2.as_ref()?.as_ref().ok()?.as_ref()
    }

    /// Whether B2 said that there is no such file.
    fn is_gone(&self) -> bool {
        matches!(self.in_b2, Some(Ok(None)))
    }

    fn newest(&self) -> Option<&ChangeWire> {
        self.stored.changes.first()
    }

    /// Whether the snapshot knows the version that B2 shows.
    fn is_version(&self) -> Option<bool> {
        let (known, shown) = (self.stored.known.as_ref()?, self.shown()?);
        let tag = EtagTag(known.tag.to_be_bytes());
        let known = Known { key: shown.key.clone(), tag, size: known.size, last_modified: known.last_modified };
        Some(known.is_version(shown))
    }

    fn asked(&self) -> Asked<'_> {
        if let Some(entry) = self.shown() {
            return Asked::File(self.filter.explain(entry));
        }
        let last = self.stored.known.as_ref().map(|known| (known.size, known.last_modified));
        let last = last.or_else(|| self.newest().map(|change| (change.size, change.last_modified)));
        let is_known = last.is_some();
        let spec = self.filter.spec();
        let (size, last_modified) = last.unwrap_or_else(|| {
            // A stand-in that passes what is asked of sizes and times.
            let after = spec.modified_after.map(|after| after.plus_millis(1));
            let before = spec.modified_before.map(|before| before.plus_millis(-1));
            (spec.min_size_bytes.unwrap_or(1).max(1), after.or(before).unwrap_or_default())
        });
        let entry = Entry { key: self.key.to_owned(), etag: String::new(), size, last_modified };
        let verdict = self.filter.explain(&entry);
        if is_known { Asked::File(verdict) } else { Asked::Name(verdict) }
    }

    fn render(&self, now: Timestamp) -> Value {
        let asked = self.asked();
        let (verdict, is_by_name) = match asked {
            Asked::File(verdict) => (verdict, false),
            Asked::Name(verdict) => (verdict, true),
        };
        let in_b2 = match &self.in_b2 {
            None => Value::Null,
            Some(Ok(None)) => json!({"is_there": false}),
            Some(Ok(Some(entry))) => json!({
                "is_there": true,
                "etag": entry.etag,
                "size": render::integer(entry.size),
                "last_modified": render::time(entry.last_modified),
            }),
            Some(Err(error)) => json!({"is_there": null, "error": render::error(&error.to_string()),
                                       "error_code": error.kind().as_str()}),
        };
        json!({
            "key": self.key,
            "summary": self.summary(verdict, is_by_name, now),
            "is_below_source_path": self.in_b2.is_some(),
            "filters": {
                "takes": verdict == Verdict::Accepted,
                "decided_by": verdict.field(),
                "reason": format!("{} {verdict}.", self.key),
                "by_name_only": is_by_name,
            },
            "b2": in_b2,
            "snapshot": {
                "is_known": self.stored.known.is_some(),
                "is_current_version": self.is_version(),
                "size": self.stored.known.map(|known| render::integer(known.size)),
                "last_modified": render::time(self.stored.known.map(|known| known.last_modified)),
                "deletion_held": self.stored.is_undeleted,
            },
            "changes": self.stored.changes.iter().map(changes::shown_change).collect::<Vec<_>>(),
            "changes_searched_from": render::integer(self.stored.searched_from),
            "sinks": self.sinks().iter().map(|sink| json!({
                "sink_id": sink.sink_id,
                "state": sink.state.as_str(),
                "cursor": render::integer(sink.cursor),
                "has_newest_change": self.newest().map(|change| sink.cursor >= change.position),
            })).collect::<Vec<_>>(),
            "dead_letters":
                self.stored.dead_letters.iter().map(|it| dead_letters::render(self.sync, it)).collect::<Vec<_>>(),
        })
    }

    fn sinks(&self) -> &[SinkStatus] {
        self.stored.status.sinks.as_deref().unwrap_or_default()
    }

    /// What all of it means, sentence by sentence.
    fn summary(&self, verdict: Verdict<'_>, is_by_name: bool, now: Timestamp) -> Vec<String> {
        if self.in_b2.is_none() {
            let prefix = self.sync.source.prefix();
            return vec![format!(
                "The sync does not read this key: its source path is {}, and the key does not begin with {prefix:?}.",
                self.sync.source
            )];
        }
        let mut said = vec![self.in_words_of_b2()];
        said.push(match verdict {
            Verdict::Accepted if is_by_name => "The filters take a file of this name.".to_owned(),
            Verdict::Accepted => "The filters take it.".to_owned(),
            _ => format!("The filters leave it out: the file {verdict} (`{}`).", verdict.field().unwrap_or_default()),
        });
        said.extend(self.in_words_of_snapshot(verdict == Verdict::Accepted, now));
        said.push(self.in_words_of_feed());
        if let Some(change) = self.newest() {
            said.extend(self.sinks().iter().map(|sink| in_words_of_sink(sink, change.position)));
        }
        said.extend(self.stored.dead_letters.iter().map(|letter| {
            format!("The catalogue refused it for good: {} Send it back with POST …/dlq/requeue.", letter.reason)
        }));
        said
    }

    fn in_words_of_b2(&self) -> String {
        match &self.in_b2 {
            Some(Ok(Some(entry))) => {
                format!("B2 shows the file now: {} bytes, last modified {}.", entry.size, entry.last_modified)
            }
            Some(Err(error)) => format!("B2 could not be asked: {error}"),
            _ => "B2 shows no file with exactly this key: it was deleted or hidden, or never uploaded. Keys are \
                  case-sensitive."
                .to_owned(),
        }
    }

    fn in_words_of_snapshot(&self, is_taken: bool, now: Timestamp) -> Option<String> {
        let next = match (&self.stored.status.current_job, self.stored.status.next_sync_at) {
            (Some(_), _) => "A job is running and has not come to it, or the next one finds it".to_owned(),
            (None, Some(at)) if at > now => format!("The next poll, at {at}, finds it"),
            (None, Some(_)) => "The next poll, which is due, finds it".to_owned(),
            (None, None) => "No poll is planned: resume or trigger the sync".to_owned(),
        };
        Some(match (self.stored.known, self.is_version()) {
            _ if self.stored.is_undeleted => {
                "A job found the file gone and holds its deletion back: more files were gone than `deletion_limit` \
                 allows. Confirm with POST …/trigger?confirm_deletes=true."
                    .to_owned()
            }
            (Some(_), Some(true)) if is_taken => "The snapshot knows this version.".to_owned(),
            (Some(_), Some(false)) if is_taken => format!("The snapshot knows another version. {next}."),
            (Some(_), _) if self.is_gone() => format!("The snapshot still knows it. {next}, and appends its deletion."),
            (Some(_), Some(_)) => format!("The snapshot still knows it, since the filters took it before. {next}."),
            (None, _) if self.stored.generation == 0 => "No job has completed its listing so far.".to_owned(),
            (None, _) if is_taken && self.shown().is_some() => format!("The snapshot does not know it yet. {next}."),
            _ => return None,
        })
    }

    fn in_words_of_feed(&self) -> String {
        let KeyAnswer { searched_from, first, .. } = self.stored;
        match self.newest() {
            Some(change) => {
                let kind = match change.kind {
                    ChangeKind::Created => "created",
                    ChangeKind::Updated => "updated",
                    ChangeKind::Deleted => "deleted",
                };
                format!(
                    "Its newest change in the feed is `{kind}`, at position {}, found at {} by {}.",
                    change.position, change.found_at, change.job_id
                )
            }
            None if searched_from > first => {
                format!("The feed has no change of it from position {searched_from} on; older ones were not read.")
            }
            None if first > 1 => format!("The feed has no change of it; changes before position {first} are gone."),
            None => "The feed has no change of it.".to_owned(),
        }
    }
}

fn in_words_of_sink(sink: &SinkStatus, position: u64) -> String {
    let id = &sink.sink_id;
    if sink.cursor >= position {
        return format!("The sink `{id}` has taken that change.");
    }
    let why = match (&sink.last_error, sink.next_attempt_at) {
        (Some(error), Some(at)) => format!(" It failed, and tries again at {at}: {}", error.message),
        (Some(error), None) => format!(" It failed: {}", error.message),
        (None, _) => String::new(),
    };
    format!("The sink `{id}` has not taken that change: it is at position {}.{why}", sink.cursor)
}
