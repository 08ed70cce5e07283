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
        let filter = Filter::compile(&sync.effective_filters(), &sync.source)?;
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
    let is_reported = !problems.is_empty();
    let mut problem = |kind, message: String| {
        problems.push(Problem { location: vec!["query".to_owned(), "key".to_owned()], kind, message });
    };
    match key {
        None if is_reported => {}
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

/// Of what the filters judged a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judged {
    /// Of the version that B2 shows.
    Shown,
    /// Of the version that was known last: B2 shows none, or could not be asked.
    Last,
    /// Of its name alone: no size and no time of it is known.
    Name,
}

/// What the filters say of a file.
#[derive(Clone, Copy)]
struct Judgement<'f> {
    verdict: Verdict<'f>,
    of: Judged,
}

impl Judgement<'_> {
    fn is_taken(self) -> bool {
        self.verdict == Verdict::Accepted
    }
}

impl Facts<'_> {
    /// The file as B2 shows it now, also where its entry cannot be read.
    fn listed(&self) -> Option<&Entry> {
        self.in_b2.as_ref()?.as_ref().ok()?.as_ref()
    }

    /// The version that B2 shows now.
    fn shown(&self) -> Option<&Entry> {
        self.listed().filter(|entry| !entry.is_unreadable())
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

    /// Whether the newest change in the feed is of the version that B2 shows.
    fn is_in_feed(&self) -> bool {
        let of = |change: &ChangeWire, it: &Entry| {
            (&change.etag, change.size, change.last_modified) == (&it.etag, it.size, it.last_modified)
        };
        let both = self.newest().filter(|change| change.kind != ChangeKind::Deleted).zip(self.shown());
        both.is_some_and(|(change, shown)| of(change, shown))
    }

    fn judge(&self) -> Judgement<'_> {
        if let Some(entry) = self.shown() {
            return Judgement { verdict: self.filter.explain(entry), of: Judged::Shown };
        }
        let last = self.stored.known.as_ref().map(|known| (known.size, known.last_modified));
        let last = last.or_else(|| self.newest().map(|change| (change.size, change.last_modified)));
        let of = if last.is_some() && self.listed().is_none() { Judged::Last } else { Judged::Name };
        let verdict = match last {
            Some((size, last_modified)) if of == Judged::Last => {
                let key = self.key.to_owned();
                self.filter.explain(&Entry { key, etag: String::new(), size, last_modified })
            }
            _ => self.filter.explain(&Entry::unreadable(self.key, "")),
        };
        Judgement { verdict, of }
    }

    fn render(&self, now: Timestamp) -> Value {
        let judged = self.judge();
        let (decided_by, why) = self.why(judged.verdict);
        json!({
            "key": self.key,
            "summary": self.summary(judged, now),
            "is_below_source_path": self.in_b2.is_some(),
            "filters": {
                "takes": judged.is_taken(),
                "decided_by": decided_by,
                "reason": format!("{} {why}.", self.key),
                "by_name_only": judged.of == Judged::Name,
            },
            "b2": self.in_b2.as_ref().map_or(Value::Null, shown_in_b2),
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

    /// The field that leaves a file out, and the same in words.
    fn why(&self, verdict: Verdict<'_>) -> (Option<&'static str>, String) {
        let asked = self.sync.filters.modified_after;
        match self.sync.echoed.sync_from {
            Some(from) if verdict == Verdict::TooOld && asked.is_none_or(|after| after < from) => {
                (Some("sync_from"), format!("was not modified after sync_from, {from}"))
            }
            _ => (verdict.field(), verdict.to_string()),
        }
    }

    fn sinks(&self) -> &[SinkStatus] {
        self.stored.status.sinks.as_deref().unwrap_or_default()
    }

    /// What all of it means, sentence by sentence.
    fn summary(&self, judged: Judgement<'_>, now: Timestamp) -> Vec<String> {
        if self.in_b2.is_none() {
            let prefix = self.sync.source.prefix();
            return vec![format!(
                "The sync does not read this key: its source path is {}, and the key does not begin with {prefix:?}.",
                self.sync.source
            )];
        }
        let mut said = vec![self.in_words_of_b2(), self.in_words_of_filters(judged)];
        said.extend(self.in_words_of_snapshot(judged.is_taken(), now));
        said.push(self.in_words_of_feed());
        if let Some(change) = self.newest() {
            said.extend(self.sinks().iter().map(|sink| in_words_of_sink(sink, change.position)));
        }
        said.extend(self.stored.dead_letters.iter().map(|letter| {
            format!("The catalogue refused it for good: {} Send it back with POST …/dlq/requeue.", letter.reason)
        }));
        said.extend(self.in_words_of_last_job());
        said
    }

    fn in_words_of_b2(&self) -> String {
        match &self.in_b2 {
            Some(Ok(Some(entry))) if entry.is_unreadable() => format!(
                "B2 lists the file, but its entry cannot be read: {}. Until it can, jobs set the file aside, and \
                 append nothing of it.",
                entry.etag
            ),
            Some(Ok(Some(entry))) => {
                format!("B2 shows the file now: {} bytes, last modified {}.", entry.size, entry.last_modified)
            }
            Some(Err(error)) => format!("B2 could not be asked: {error}"),
            _ => "B2 shows no file with exactly this key: it was deleted or hidden, or never uploaded. Keys are \
                  case-sensitive."
                .to_owned(),
        }
    }

    fn in_words_of_filters(&self, judged: Judgement<'_>) -> String {
        let what = match judged.of {
            Judged::Shown => "it",
            Judged::Last => "the version that was known last",
            Judged::Name => "a file of this name",
        };
        if judged.is_taken() {
            return format!("The filters take {what}.");
        }
        let (field, why) = self.why(judged.verdict);
        format!("The filters leave {what} out: the file {why} (`{}`).", field.unwrap_or_default())
    }

    /// What the snapshot knows, and what follows from that.
    fn in_words_of_snapshot(&self, is_taken: bool, now: Timestamp) -> Option<String> {
        if self.stored.is_undeleted {
            return Some(self.in_words_of_held(is_taken, now));
        }
        let is_shown = self.shown().is_some();
        if self.stored.known.is_none() {
            return match self.stored.generation {
                0 if is_taken && self.is_in_feed() => Some(IN_FEED_ALREADY.to_owned()),
                0 if is_taken && is_shown => {
                    Some(format!("No job has completed its listing so far. {}", self.comes(now, "appends it")))
                }
                0 => Some("No job has completed its listing so far.".to_owned()),
                _ if is_taken && is_shown => Some(self.in_words_of_new(now)),
                _ if self.is_kept() => Some(
                    "The snapshot does not know it, and the feed has no deletion of it: `reconcile` keeps such \
                     objects."
                        .to_owned(),
                ),
                _ if self.listed().is_none() && (self.newest().is_some() || !self.is_gone()) => {
                    Some("The snapshot does not know it.".to_owned())
                }
                _ => None,
            };
        }
        let reconcile = self.sync.reconcile;
        Some(match self.is_version() {
            None if self.is_gone() => {
                format!("The snapshot still knows it. {}", self.comes(now, &deletion("on_delete", reconcile.on_delete)))
            }
            None => "The snapshot knows a version of it.".to_owned(),
            Some(_) if !is_taken => format!(
                "The snapshot still knows it, since the filters took it before. {}",
                self.comes(now, &deletion("on_filter_drift", reconcile.on_filter_drift))
            ),
            Some(true) => "The snapshot knows this version.".to_owned(),
            Some(false) if self.is_in_feed() => IN_FEED_ALREADY.to_owned(),
            Some(false) if reconcile.on_update => {
                format!("The snapshot knows another version. {}", self.comes(now, "appends the update"))
            }
            Some(false) => format!(
                "The snapshot knows another version. {}",
                self.comes(now, "takes this one over and appends nothing, because `reconcile.on_update` is false")
            ),
        })
    }

    /// Of a file that B2 shows, that the filters take, and that the snapshot does not know.
    fn in_words_of_new(&self, now: Timestamp) -> String {
        if self.is_in_feed() {
            return IN_FEED_ALREADY.to_owned();
        }
        let may_wait = match self.sync.max_objects_per_run {
            Some(most) => format!("appends it, if that is among the first {most} (`max_objects_per_run`)"),
            None => "appends it".to_owned(),
        };
        format!("The snapshot does not know it yet. {}", self.comes(now, &may_wait))
    }

    /// Of a file that a job found gone or left out, while its deletion is not in the feed.
    fn in_words_of_held(&self, is_taken: bool, now: Timestamp) -> String {
        if self.shown().is_some() && is_taken {
            let what = match self.is_version() {
                Some(true) => "no longer holds its deletion",
                _ => "appends the update and no longer holds its deletion",
            };
            return format!("A job found the file gone or left out. It is there again. {}", self.comes(now, what));
        }
        let found = if self.shown().is_some() { "left out by the filters" } else { "gone or left out" };
        if self.stored.status.deletions_held == 0 {
            return format!(
                "A job found the file {found}, and ended before it appended the deletion. {}",
                self.comes(now, "looks again")
            );
        }
        let first = if self.is_paused() { "Resume the sync, and then confirm" } else { "Confirm" };
        format!(
            "A job found the file {found}. It holds the deletion back, because there were more such files than \
             `deletion_limit` allows. {first} with POST …/trigger?confirm_deletes=true."
        )
    }

    /// Whether the feed's readers have it and keep it, as `reconcile` asks for.
    fn is_kept(&self) -> bool {
        let asks = !self.sync.reconcile.on_delete || !self.sync.reconcile.on_filter_drift;
        let has = self.newest().is_some_and(|change| change.kind != ChangeKind::Deleted);
        asks && has && self.stored.status.current_job.is_none()
    }

    fn is_paused(&self) -> bool {
        self.stored.status.paused_at.is_some()
    }

    /// Which job comes next, and what it does.
    fn comes(&self, now: Timestamp, what: &str) -> String {
        match (&self.stored.status.current_job, self.stored.status.next_sync_at) {
            (Some(_), _) => {
                format!("A job is running. When it comes to the file, it {what}; or else the next one does.")
            }
            _ if self.is_paused() => format!("The sync is paused. The job after POST …/resume {what}."),
            (None, Some(at)) if at > now => format!("The next poll, at {at}, {what}."),
            (None, Some(_)) => format!("The next poll, which is due, {what}."),
            (None, None) => format!("No poll is planned. A job that you start with POST …/trigger {what}."),
        }
    }

    /// Why the latest job failed: what it would have done is not done.
    fn in_words_of_last_job(&self) -> Option<String> {
        let error = self.stored.status.last_error.as_ref()?;
        let is_done = self.is_version() == Some(true) && !self.stored.is_undeleted;
        (!is_done).then(|| format!("The latest job failed: {}", error.message))
    }

    fn in_words_of_feed(&self) -> String {
        let KeyAnswer { searched_from, first, .. } = self.stored;
        match self.newest() {
            Some(change) => {
                let (kind, position) = (change.kind.as_str(), change.position);
                format!(
                    "Its newest change in the feed is `{kind}`, at position {position}, found at {} by {}.",
                    change.found_at, change.job_id
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

/// Of a version that the feed has, and the snapshot does not know so far.
const IN_FEED_ALREADY: &str = "A job has appended this version. The snapshot knows it once a job has read the whole \
                               listing.";

/// What a job does with a file that is gone, or left out, as `reconcile` says in `field`.
fn deletion(field: &str, is_asked: bool) -> String {
    if is_asked {
        return "appends its deletion, or holds it if there are more than `deletion_limit` allows".to_owned();
    }
    format!("drops it from the snapshot and appends nothing, because `reconcile.{field}` is false")
}

/// What B2 shows, as fields.
fn shown_in_b2(asked: &Result<Option<Entry>, Error>) -> Value {
    match asked {
        Ok(None) => json!({"is_there": false}),
        Ok(Some(entry)) if entry.is_unreadable() => json!({"is_there": true, "unreadable": entry.etag}),
        Ok(Some(entry)) => json!({
            "is_there": true,
            "etag": entry.etag,
            "size": render::integer(entry.size),
            "last_modified": render::time(entry.last_modified),
        }),
        Err(error) => json!({"is_there": null, "error": render::error(&error.to_string()),
                             "error_code": error.kind().as_str()}),
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
