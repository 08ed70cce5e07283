//! The feed: what requests ask for, and what answers show.

use serde::Serialize;

use crate::{
    api::{
        errors::{ApiError, Problem, Said, json_text, problem_of},
        events,
        query::{Query, check_problems},
        render::{self, Shown},
        request::ApiRequest,
        service::{Coordinators, Service, unexpected},
    },
    catalogue::{ChangeWire, Objects},
    coordinator::{
        WAIT_MS_MAX,
        protocol::{Answer, Command},
    },
    registry::{Registry, SyncRecord},
};
use b2sync_core::{
    entropy::Entropy,
    error::{Error, ErrorKind},
    feed::read::PAGE_CHANGES_MAX,
    http::HttpClient,
    time::Clock,
};

/// Changes of a page, unless the request says how many.
pub(in crate::api) const LIMIT_DEFAULT: u64 = 100;

/// Which changes to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChangesRequest {
    /// Behind this position; `None`: from the oldest that is there.
    pub(super) after: Option<u64>,
    /// At most this many.
    pub(super) limit: u64,
    /// Wait up to this long for the first one, in milliseconds.
    pub(super) wait_ms: u64,
}

impl ChangesRequest {
    /// Reads `after`, `limit` and `wait`.
    pub(super) fn parse(query: &Query, problems: &mut Vec<Problem>) -> Self {
        query.check_only(&["after", "limit", "wait"], problems);
        let limit_max = PAGE_CHANGES_MAX as u64;
        Self {
            after: query.integer("after", 0, u64::MAX, problems),
            limit: query.integer("limit", 1, limit_max, problems).unwrap_or(LIMIT_DEFAULT),
            wait_ms: query.wait_ms(problems),
        }
    }

    /// The same of a request for events: it reads on behind the event that its reader saw last, waits as long as it may
    /// and answers as much as it may, unless it says otherwise.
    fn parse_events(query: &Query, last_event_id: Option<&str>, problems: &mut Vec<Problem>) -> Self {
        let mut asked = Self::parse(query, problems);
        if query.get("wait").is_none() {
            asked.wait_ms = WAIT_MS_MAX;
        }
        if query.get("limit").is_none() {
            asked.limit = PAGE_CHANGES_MAX as u64;
        }
        if let Some(id) = last_event_id.filter(|id| !id.is_empty()) {
            let position = id.parse();
            if position.is_err() {
                let message = "`Last-Event-ID` is not a position of this feed. Send the `id` of an event, or `after`.";
                let location = vec!["header".to_owned(), "last-event-id".to_owned()];
                problems.push(Problem { location, kind: "int_parsing", message: message.to_owned() });
            }
            // A reader that was cut off sends the same query again.
            asked.after = position.ok().or(asked.after);
        }
        asked
    }
}

impl<R: Registry, C: Coordinators, O: Objects, H: HttpClient, K: Clock, E: Entropy> Service<'_, R, C, O, H, K, E> {
    pub(in crate::api) async fn read_changes(
        &self,
        sync: &SyncRecord,
        query: &Query,
        request: &ApiRequest,
    ) -> Result<Said, ApiError> {
        let mut problems = Vec::new();
        let is_events = events::are_asked_for(request.accept.as_deref());
        let asked = match is_events {
            true => ChangesRequest::parse_events(query, request.last_event_id.as_deref(), &mut problems),
            false => ChangesRequest::parse(query, &mut problems),
        };
        check_problems(problems)?;
        let ChangesRequest { after, limit, wait_ms } = asked;
        let read =
            |after, limit, wait_ms| self.coordinators.call(&sync.sync_id, Command::Changes { after, limit, wait_ms });
        match read(after, limit, wait_ms).await {
            Ok(Answer::Changes { changes, first, last }) => {
                let page = page(&changes, first, last, asked);
                if is_events {
                    let changes = page.changes.iter().map(|change| (change.position, change));
                    return events::of_changes(changes, page.next_after, page.has_more).map(Said::Events);
                }
                json_text(&page).map(Said::Json)
            }
            Ok(_) => Err(unexpected().into()),
            Err(error) if error.kind() == ErrorKind::FeedGap => match read(None, 1, 0).await? {
                Answer::Changes { first, .. } => Err(ApiError::FeedGap { error, first }),
                _ => Err(unexpected().into()),
            },
            Err(error) => Err(refusal(error)),
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
#[derive(Serialize)]
struct Page<'a> {
    changes: Vec<ShownChange<'a>>,
    next_after: u64,
    has_more: bool,
    first: u64,
    last: u64,
}

/// One change, with the field names of every reader of the feed.
#[derive(Serialize)]
pub(super) struct ShownChange<'a> {
    position: u64,
    id: &'a str,
    kind: &'static str,
    key: &'a str,
    etag: &'a str,
    size: u64,
    last_modified: Option<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<ShownPrevious>,
    #[serde(skip_serializing_if = "Option::is_none")]
    again: Option<bool>,
    found_at: Option<Shown>,
    job_id: &'a str,
}

#[derive(Serialize)]
struct ShownPrevious {
    size: u64,
    last_modified: Option<Shown>,
    tag: String,
}

fn page(changes: &[ChangeWire], first: u64, last: u64, asked: ChangesRequest) -> Page<'_> {
    let newest = changes.last().map(|change| change.position);
    let after = newest.or(asked.after).unwrap_or_else(|| first.saturating_sub(1));
    Page {
        changes: changes.iter().map(shown_change).collect(),
        next_after: render::int(after),
        has_more: after < last,
        first: render::int(first),
        last: render::int(last),
    }
}

pub(super) fn shown_change(change: &ChangeWire) -> ShownChange<'_> {
    ShownChange {
        position: render::int(change.position),
        id: &change.id,
        kind: change.kind.as_str(),
        key: &change.key,
        etag: &change.etag,
        size: render::int(change.size),
        last_modified: Shown::of(change.last_modified),
        previous: change.previous.as_ref().map(|previous| ShownPrevious {
            size: render::int(previous.size),
            last_modified: Shown::of(previous.last_modified),
            tag: format!("{:016x}", previous.tag),
        }),
        again: change.again.then_some(true),
        found_at: Shown::of(change.found_at),
        job_id: &change.job_id,
    }
}
