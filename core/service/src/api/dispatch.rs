//! From a request to a response: the route decides which operation of a resource answers.

use serde_json::{Value, json};

use super::{
    body::{Fields, parse_object},
    errors::{Answered, ApiError, ApiResponse, Problem, Said},
    idempotency::Repeatable,
    preconditions,
    query::{Query, check_problems},
    request::ApiRequest,
    resources::connections,
    routes::{self, Operation, Route},
    service::{Coordinators, Service},
};
use crate::{catalogue::Objects, registry::Registry};
use b2sync_core::{entropy::Entropy, error::ErrorKind, http::HttpClient, time::Clock};

/// A success.
struct Answer {
    /// What there is to say, if anything.
    said: Option<Said>,
    /// The header `ETag`.
    etag: Option<String>,
}

impl Answer {
    fn of_json(text: String) -> Self {
        Self::of(Said::Json(text))
    }

    fn of(said: Said) -> Self {
        Self { said: Some(said), etag: None }
    }
}

/// The API as OpenAPI 3.1. A test makes it of the routes, the parsers and the answers, and holds it to them.
const DESCRIPTION: &str = include_str!("assets/openapi.json");
/// The same as a page.
const PAGE: &str = include_str!("assets/docs.html");

/// Creates what a request asks for. One that is repeatable may be on its way twice: what the other has created in the
/// meantime is the answer to this one too.
async fn once(is_repeatable: bool, create: impl AsyncFn() -> Answered) -> Answered {
    match create().await {
        Err(ApiError::Failed(error)) if is_repeatable && error.kind() == ErrorKind::Conflict => create().await,
        result => result,
    }
}

/// Refuses parameters and fields that an operation does not read: one that is passed over does not do what was meant.
/// The body of a `GET` means nothing except to lists, and beside the path of `/` and `/healthz` nothing matters.
fn refuse_unread(request: &ApiRequest, route: &Route, query: &Query) -> Result<(), ApiError> {
    if route.is_public {
        return Ok(());
    }
    let mut problems = Vec::new();
    if !route.operation.reads_query() {
        query.check_only(&[], &mut problems);
    }
    let only_reads = matches!(request.method.as_str(), "GET" | "HEAD");
    if request.if_match.is_some() && !only_reads && !route.operation.reads_if_match() {
        problems.push(Problem {
            location: vec!["header".to_owned(), "if-match".to_owned()],
            kind: "extra_forbidden",
            message: "If-Match is for calls that change or delete a connection or a sync. Leave it out.".to_owned(),
        });
    }
    if !route.operation.reads_body() && !only_reads {
        Fields::of_body(parse_object(&request.body)?, &mut problems).done();
    }
    check_problems(problems)
}

impl<R: Registry, C: Coordinators, O: Objects, H: HttpClient, K: Clock, E: Entropy> Service<'_, R, C, O, H, K, E> {
    /// Answers a request. Never fails: an error is an answer too.
    pub async fn handle(&self, request: ApiRequest) -> ApiResponse {
        let origin = request.origin.as_deref();
        if let Some(mut response) = self.cors.preflight(&request.method, origin) {
            self.cors.mark(&mut response, origin);
            return response;
        }
        let mut response = match self.answer(&request).await {
            Ok(Answer { said: None, .. }) => ApiResponse::empty(),
            Ok(Answer { said: Some(said), etag }) => {
                let mut response = ApiResponse::of(said);
                response.headers.extend(etag.map(|etag| ("etag", etag)));
                response
            }
            Err(error) => error.into_response(),
        };
        if request.is_for_people() {
            response.make_readable();
        }
        self.cors.mark(&mut response, origin);
        response
    }

    async fn answer(&self, request: &ApiRequest) -> Result<Answer, ApiError> {
        let found = routes::find(&request.method, &request.path);
        let is_public = match &found {
            Ok((route, _)) => route.is_public,
            Err(_) => !request.path.starts_with("/v1"),
        };
        if !is_public {
            self.api_key.check(request.authorization.as_deref())?;
        }
        let (route, at) = found?;
        let query = &Query::parse(&request.path, &request.query);
        let body = request.body.as_slice();
        let if_match = &request.if_match();
        refuse_unread(request, route, query)?;
        let sync_row = async || self.find_sync_row(&request.namespace()?, &at.bucket_id, &at.sync_config_id).await;
        let sync = async || Ok::<_, ApiError>(sync_row().await?.read()?);
        let answer: Value = match route.operation {
            Operation::Root => self.root(),
            Operation::Health => json!({"status": "ok", "service": "b2sync", "version": self.version}),
            Operation::Page => return Ok(Answer::of(Said::Page(PAGE.to_owned()))),
            Operation::Description => return Ok(Answer::of_json(DESCRIPTION.to_owned())),
            Operation::ConnectionCreate => {
                let repeatable = Repeatable::of(request)?;
                let create = async || self.create_connection(repeatable.as_ref(), body).await;
                once(repeatable.is_some(), create).await?
            }
            Operation::ConnectionList => self.list_connections(query, body).await?,
            Operation::ConnectionGet => connections::render(&self.find_connection(&at.connection_id).await?),
            Operation::ConnectionUpdate => self.update_connection(&at.connection_id, if_match, body).await?,
            Operation::ConnectionDelete => self.delete_connection(&at.connection_id, if_match).await?,
            Operation::ConnectionTest => self.test_connection(&at.connection_id).await?,
            Operation::SyncCreate => {
                let repeatable = Repeatable::of(request)?;
                let place = (request.namespace()?, at.bucket_id);
                let create = async || self.create_sync(place.clone(), repeatable.as_ref(), body).await;
                once(repeatable.is_some(), create).await?
            }
            Operation::SyncPreview => self.preview_sync((request.namespace()?, at.bucket_id), body).await?,
            Operation::SyncListAll => self.list_syncs(request.namespace()?, None, query, body).await?,
            Operation::SyncList => self.list_syncs(request.namespace()?, Some(at.bucket_id), query, body).await?,
            Operation::SyncGet => self.get_sync(&sync().await?).await?,
            Operation::SyncUpdate => self.update_sync(sync().await?, if_match, body).await?,
            Operation::SyncDelete => self.delete_sync(sync_row().await?, if_match, query).await?,
            Operation::SyncTrigger => self.trigger_sync(&sync().await?, query).await?,
            Operation::SyncPause => self.pause_sync(sync().await?, if_match, body).await?,
            Operation::SyncResume => self.resume_sync(sync().await?, if_match).await?,
            Operation::SyncUnlock => self.unlock_sync(&sync().await?).await?,
            Operation::SyncMetrics => self.sync_metrics(&sync().await?).await?,
            Operation::ChangeList => {
                return self.read_changes(&sync().await?, query, request).await.map(Answer::of);
            }
            Operation::KeyExplain => self.explain_key(&sync().await?, query).await?,
            Operation::JobList => return self.list_jobs(&sync().await?, query, body).await.map(Answer::of_json),
            Operation::JobGet => self.get_job(&sync().await?, &at.sync_job_id, query).await?,
            Operation::DeadLetterList => self.list_dead_letters(&sync().await?, query, body).await?,
            Operation::DeadLetterRequeue => self.requeue_dead_letters(&sync().await?, body).await?,
            Operation::DeadLetterMarkFailed => self.mark_dead_letters_failed(&sync().await?, body).await?,
            Operation::ObjectList => {
                let page = self.list_objects(request.namespace()?, at.bucket_id, query, body).await;
                return page.map(Answer::of_json);
            }
            Operation::ObjectGet => self.get_object(&request.namespace()?, &at.bucket_id, &at.object_id, query).await?,
            Operation::ObjectDelete => self.delete_object(&request.namespace()?, &at.bucket_id, &at.object_id).await?,
            Operation::ObjectsDelete => self.delete_objects(&request.namespace()?, &at.bucket_id, query).await?,
        };
        let etag = if route.operation.answers_record() { preconditions::header(&answer) } else { None };
        Ok(Answer { said: (!answer.is_null()).then(|| Said::Json(answer.to_string())), etag })
    }

    fn root(&self) -> Value {
        json!({
            "service": "b2sync",
            "version": self.version,
            "message": "b2sync watches Backblaze B2 buckets and keeps an ordered log of every file that is created, \
                        updated or deleted, each version once. Send `Authorization: Bearer <your API key>` with \
                        every call under /v1.",
            "health": "/healthz",
            "start": routes::start(),
        })
    }
}
