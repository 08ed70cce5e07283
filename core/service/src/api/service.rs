//! From a request to a response: the one place of the API that awaits. What requests say and what answers show is
//! decided in the files beside it.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use super::{
    auth::ApiKey,
    changes::{self, ChangesRequest},
    connections::{self, ConnectionPatch, NewConnection},
    dead_letters::{self, DeadLetterFilter},
    errors::{ApiError, ApiResponse, Problem},
    jobs,
    objects::{self, ObjectFilter},
    pagination::{Cursor, Listing, Page, PageRequest, Query, check_problems, paginate, render_pagination},
    render,
    router::{Route, SyncAction, parse_route},
    syncs,
};
use crate::{
    catalogue::{ObjectQuery, ObjectRecord, Objects},
    coordinator::protocol::{Answer, Command, SyncStatus},
    registry::{
        CONNECTIONS_MAX, ConnectionRecord, ConnectionStatus, RECORD_VERSION, Registry, SYNCS_PER_BUCKET_MAX, SyncQuery,
        SyncRecord,
    },
    seal::MasterKeys,
};
use b2sync_core::{
    b2::{
        account::{Account, Credentials, StoredAccount},
        classify::{Call, suggests_stale_account},
        client::B2Client,
        list::ListQuery,
        sign::presign_get,
        url::object_url,
    },
    entropy::Entropy,
    error::{Error, ErrorKind},
    http::HttpClient,
    ids,
    job::{JobRecord, JobStatus, Trigger},
    retry::RetryPolicy,
    secret::ExposeSecret,
    time::{Clock, Timestamp},
};

/// The organisation that everything belongs to: a deployment serves one.
pub const ORGANISATION_ID: &str = "int_b2sync";
/// The namespace of requests without `X-Namespace`.
pub const NAMESPACE_DEFAULT: &str = "default";
/// Who creates connections and syncs: whoever has the API key.
const USER_ID: &str = "usr_api_key";
/// The longest namespace, in characters.
const NAMESPACE_CHARS_MAX: usize = 100;
/// How often a record is read and changed anew because somebody else changed it at the same time.
const CHANGE_ATTEMPTS_MAX: u32 = 4;
/// How many coordinators are asked at the same time.
const COORDINATORS_IN_FLIGHT: usize = 16;
/// The most syncs that are told at once that their connection's suspension was lifted; the others go on with their next
/// poll.
const LIFTED_SYNCS_MAX: usize = 100;
/// The most archived jobs that a list reads.
const ARCHIVED_JOBS_MAX: u64 = 1_000;
/// How long a presigned URL lasts, in seconds.
const PRESIGNED_S: u64 = 3_600;
/// A user waits for the answer: short, and few attempts.
const INTERACTIVE: RetryPolicy =
    RetryPolicy { attempts_max: 3, backoff_base_ms: 250, backoff_cap_ms: 2_000, retry_after_max_ms: 3_000 };

/// The coordinators of all syncs. Implemented by each home.
pub trait Coordinators {
    /// Sends a command to the coordinator of a sync.
    ///
    /// # Errors
    /// What the coordinator says; [`ErrorKind::Storage`] when it cannot be reached.
    async fn call(&self, sync_id: &str, command: Command) -> Result<Answer, Error>;

    /// A job that ended long ago: its coordinator keeps only the latest.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    async fn archived_job(&self, sync_id: &str, job_id: &str) -> Result<Option<JobRecord>, Error>;

    /// At most `limit` jobs that ended, newest first; may hold some that the coordinator still keeps.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    async fn archived_jobs(&self, sync_id: &str, limit: usize) -> Result<Vec<JobRecord>, Error>;
}

impl<T: Coordinators + ?Sized> Coordinators for &T {
    async fn call(&self, sync_id: &str, command: Command) -> Result<Answer, Error> {
        (**self).call(sync_id, command).await
    }

    async fn archived_job(&self, sync_id: &str, job_id: &str) -> Result<Option<JobRecord>, Error> {
        (**self).archived_job(sync_id, job_id).await
    }

    async fn archived_jobs(&self, sync_id: &str, limit: usize) -> Result<Vec<JobRecord>, Error> {
        (**self).archived_jobs(sync_id, limit).await
    }
}

/// A request, as a home reads it. `Debug` shows neither the API key nor the body, which may hold an application key.
#[derive(Clone, Default)]
pub struct ApiRequest {
    /// In upper case.
    pub method: String,
    /// As it was sent, percent-encoded, without the query.
    pub path: String,
    /// What stands behind the `?`, as it was sent.
    pub query: String,
    /// The header `Authorization`.
    pub authorization: Option<String>,
    /// The header `X-Namespace`.
    pub namespace: Option<String>,
    /// The whole body. More than [`super::BODY_BYTES_MAX`] is refused, so a home need read no more than one byte
    /// beyond.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for ApiRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiRequest")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("query", &self.query)
            .field("namespace", &self.namespace)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// The API over a home's parts.
#[derive(Debug)]
pub struct Service<'a, R, C, O, H, K, E> {
    /// Connections and syncs.
    pub registry: &'a R,
    /// What runs the syncs.
    pub coordinators: &'a C,
    /// What they delivered.
    pub objects: &'a O,
    /// To reach B2.
    pub http: &'a H,
    /// The time.
    pub clock: &'a K,
    /// For ids, salts, nonces and jitter.
    pub entropy: &'a E,
    /// To seal application keys.
    pub master_keys: &'a MasterKeys,
    /// Who may call.
    pub api_key: &'a ApiKey,
    /// [`b2sync_core::b2::account::API_URL`] but in tests.
    pub b2_api_url: &'a str,
    /// Of the deployment.
    pub version: &'a str,
}

/// What a route answers.
type Answered = Result<Value, ApiError>;

impl<R: Registry, C: Coordinators, O: Objects, H: HttpClient, K: Clock, E: Entropy> Service<'_, R, C, O, H, K, E> {
    /// Answers a request. Never fails: an error is an answer too.
    pub async fn handle(&self, request: ApiRequest) -> ApiResponse {
        match self.answer(&request).await {
            Ok(body) => ApiResponse::json(200, &body),
            Err(error) => error.into_response(),
        }
    }

    async fn answer(&self, request: &ApiRequest) -> Answered {
        let route = parse_route(&request.method, &request.path);
        let is_public = match &route {
            Ok(route) => route.is_public(),
            Err(_) => !request.path.starts_with("/v1"),
        };
        if !is_public {
            self.api_key.check(request.authorization.as_deref())?;
        }
        let query = Query::parse(&request.query);
        let body = request.body.as_slice();
        match route? {
            Route::Root => Ok(self.root()),
            Route::Health => Ok(json!({"status": "ok", "service": "b2sync", "version": self.version})),
            Route::ConnectionCreate => self.create_connection(body).await,
            Route::ConnectionList => self.list_connections(&query, body).await,
            Route::ConnectionGet(id) => Ok(connections::render(&self.find_connection(&id).await?)),
            Route::ConnectionUpdate(id) => self.update_connection(&id, body).await,
            Route::ConnectionDelete(id) => self.delete_connection(&id).await,
            Route::ConnectionTest(id) => self.test_connection(&id).await,
            Route::SyncCreate { bucket } => self.create_sync(namespace(request)?, bucket, body).await,
            Route::SyncList { bucket } => self.list_syncs(namespace(request)?, bucket, &query, body).await,
            Route::Sync { bucket, sync, action } => {
                let sync = self.find_sync(&namespace(request)?, &bucket, &sync).await?;
                self.act_on_sync(sync, action, &query, body).await
            }
            Route::ObjectList { bucket } => self.list_objects(namespace(request)?, bucket, &query, body).await,
            Route::ObjectGet { bucket, object } => {
                self.get_object(&namespace(request)?, &bucket, &object, &query).await
            }
        }
    }

    fn root(&self) -> Value {
        json!({
            "service": "b2sync",
            "version": self.version,
            "message": "b2sync watches Backblaze B2 buckets and keeps an ordered log of every file that is created, \
                        updated or deleted, each version once. Send `Authorization: Bearer <your API key>` with \
                        every call under /v1.",
            "health": "/healthz",
            "start": [
                "POST /v1/organizations/connections",
                "POST /v1/buckets/{bucket_id}/syncs",
                "POST /v1/buckets/{bucket_id}/syncs/{sync_config_id}/trigger",
                "GET /v1/buckets/{bucket_id}/syncs/{sync_config_id}/changes",
                "GET /v1/buckets/{bucket_id}/syncs/{sync_config_id}/jobs",
                "GET /v1/buckets/{bucket_id}/objects",
            ],
        })
    }

    fn client(&self) -> B2Client<'_, H, K, E> {
        B2Client::new(self.http, self.clock, self.entropy, INTERACTIVE)
    }

    // Connections

    async fn find_connection(&self, id_or_name: &str) -> Result<ConnectionRecord, ApiError> {
        self.registry.connection(id_or_name).await?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("There is no connection {id_or_name:?}."),
                "List the connections with POST /v1/organizations/connections/list. Names are case-sensitive.",
            )
            .into()
        })
    }

    async fn create_connection(&self, body: &[u8]) -> Answered {
        let new: NewConnection = connections::parse_create(body)?;
        let existing = self.registry.connections().await?;
        if existing.len() >= CONNECTIONS_MAX {
            return Err(too_many("connections", CONNECTIONS_MAX));
        }
        // The registry decides; this only spares B2 a call.
        if existing.iter().any(|record| !record.archived && record.name == new.name) {
            return Err(crate::registry::refusals::name_taken(&new.name).into());
        }
        let account = match new.test_before_save {
            true => Some(self.client().authorize(self.b2_api_url, &new.credentials).await?),
            false => None,
        };
        let now = self.clock.now();
        let connection_id = ids::connection_id(self.entropy);
        let sealed = self.master_keys.seal(new.credentials.application_key(), &connection_id, self.entropy)?;
        let record = ConnectionRecord {
            v: RECORD_VERSION,
            connection_id,
            internal_id: ORGANISATION_ID.to_owned(),
            name: new.name,
            description: new.description,
            metadata: new.metadata,
            provider_type: connections::PROVIDER.to_owned(),
            key_id: new.credentials.key_id().to_owned(),
            application_key: Some(sealed),
            account: account.as_ref().map(StoredAccount::from),
            authorized_at: account.as_ref().map(|_| now),
            // One that was not tested is ready for use all the same: its first use tests it.
            status: ConnectionStatus::Active,
            is_active: true,
            write_enabled: new.write_enabled,
            last_used_at: None,
            last_error: None,
            consecutive_failures: 0,
            created_at: now,
            updated_at: now,
            revision: 0,
            archived: false,
            created_by: USER_ID.to_owned(),
        };
        Ok(connections::render(&self.registry.insert_connection(record).await?))
    }

    async fn list_connections(&self, query: &Query, body: &[u8]) -> Answered {
        let mut problems = Vec::new();
        let page = PageRequest::parse(query, Listing::ByCreation, &mut problems);
        let filter = connections::parse_list(body, &mut problems)?;
        check_problems(problems)?;
        let mut records = self.registry.connections().await?;
        records.retain(|record| connections::matches(&filter, record));
        let answer = paginate(records, &page, |record| (record.created_at, &record.connection_id));
        let results = answer.items.iter().map(connections::render).collect();
        Ok(listed("/v1/organizations/connections/list", &page, results, answer.total, answer.next.as_ref()))
    }

    async fn update_connection(&self, id: &str, body: &[u8]) -> Answered {
        let patch: ConnectionPatch = connections::parse_patch(body)?;
        let record = self.find_connection(id).await?;
        refuse_archived(&record)?;
        if patch.status == Some(ConnectionStatus::Archived) {
            self.refuse_in_use(&record).await?;
        }
        let mut fresh = None;
        if patch.has_credentials() && patch.status != Some(ConnectionStatus::Archived) {
            let key_id = patch.key_id.clone().unwrap_or_else(|| record.key_id.clone());
            let application_key = match &patch.application_key {
                Some(key) => key.clone(),
                None => self.credentials(&record)?.application_key().clone(),
            };
            let credentials = Credentials::new(&key_id, application_key.expose_secret())?;
            let account = self.client().authorize(self.b2_api_url, &credentials).await?;
            let sealed = self.master_keys.seal(credentials.application_key(), &record.connection_id, self.entropy)?;
            fresh = Some((credentials.key_id().to_owned(), sealed, StoredAccount::from(&account)));
        }
        let was_suspended = record.is_suspended_by_failures();
        let record = self
            .change(record, &|record| {
                refuse_archived(record)?;
                let suspended_by_failures = record.is_suspended_by_failures();
                patch.apply(record);
                if let Some((key_id, sealed, account)) = &fresh {
                    record.key_id.clone_from(key_id);
                    record.application_key = Some(sealed.clone());
                    record.account = Some(account.clone());
                    record.authorized_at = Some(self.clock.now());
                    record.consecutive_failures = 0;
                    record.last_error = None;
                    let failed = suspended_by_failures || record.status == ConnectionStatus::Failed;
                    if failed && patch.status.is_none() {
                        record.status = ConnectionStatus::Active;
                        record.is_active = true;
                    }
                }
                if patch.status == Some(ConnectionStatus::Archived) {
                    archive(record);
                }
                Ok(())
            })
            .await?;
        self.begin_again(was_suspended, &record).await;
        Ok(connections::render(&record))
    }

    /// Has the syncs of a connection begin at once, if its suspension was lifted. What fails here is not told: a sync
    /// that was not reached goes on with its next poll.
    async fn begin_again(&self, was_suspended: bool, record: &ConnectionRecord) {
        if !was_suspended || record.check_usable().is_err() {
            return;
        }
        let query = SyncQuery::Connection { connection_id: record.connection_id.clone() };
        let syncs = self.registry.syncs(&query).await.unwrap_or_default();
        for sync in syncs.iter().filter(|sync| sync.is_active).take(LIFTED_SYNCS_MAX) {
            // As `watched`, but that it is tried whatever fails.
            let _ = self.registry.set_poke_after(&sync.sync_id, Some(self.clock.now())).await;
            let _ = self.command(&sync.sync_id, Command::ConnectionLifted).await;
            let _ = self.registry.set_poke_after(&sync.sync_id, Some(self.clock.now().plus_millis(1))).await;
        }
    }

    async fn delete_connection(&self, id: &str) -> Answered {
        let record = self.find_connection(id).await?;
        if !record.archived {
            self.refuse_in_use(&record).await?;
        }
        let record = self
            .change(record, &|record| {
                archive(record);
                Ok(())
            })
            .await?;
        // The client reads strings only.
        Ok(json!({
            "connection_id": record.connection_id,
            "status": record.status.as_str(),
            "message": format!("The connection {:?} is archived, and its application key is erased.", record.name),
        }))
    }

    async fn refuse_in_use(&self, record: &ConnectionRecord) -> Result<(), ApiError> {
        let query = SyncQuery::Connection { connection_id: record.connection_id.clone() };
        let mut syncs = self.registry.syncs(&query).await?;
        syncs.retain(|sync| sync.is_active);
        let Some(first) = syncs.first() else { return Ok(()) };
        let more = match syncs.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "The connection {:?} is in use by the sync {} of the bucket {:?}{more}.",
                record.name, first.sync_id, first.bucket_id
            ),
            "Delete or pause its syncs first.",
        )
        .into())
    }

    async fn test_connection(&self, id: &str) -> Answered {
        let record = self.find_connection(id).await?;
        refuse_archived(&record)?;
        let tested = match self.credentials(&record) {
            Ok(credentials) => self.client().authorize(self.b2_api_url, &credentials).await,
            Err(error) => Err(error),
        };
        let now = self.clock.now();
        let was_suspended = record.is_suspended_by_failures();
        let noted = self
            .change(record, &|record| {
                match &tested {
                    Ok(account) => {
                        record.is_active |= record.status == ConnectionStatus::Failed;
                        record.note_success(now);
                        record.account = Some(account.into());
                        record.authorized_at = Some(now);
                    }
                    // B2 being busy is no fault of the credentials.
                    Err(error) if error.is_transient() => record.last_error = Some(error.to_string()),
                    Err(error) => record.note_failure(error),
                }
                Ok(())
            })
            .await;
        match noted {
            Ok(record) => self.begin_again(was_suspended, &record).await,
            // The outcome of the test is what was asked for; noting it is not.
            Err(ApiError::Failed(_)) => {}
            Err(other) => return Err(other),
        }
        Ok(match &tested {
            Ok(account) => connections::render_tested(account),
            Err(error) => connections::render_failed(error),
        })
    }

    /// The credentials of a connection, opened.
    fn credentials(&self, record: &ConnectionRecord) -> Result<Credentials, Error> {
        let Some(sealed) = &record.application_key else {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("The connection {:?} has no application key any more.", record.name),
                "Create a new connection.",
            ));
        };
        let application_key = self.master_keys.open(sealed, &record.connection_id)?;
        Credentials::new(&record.key_id, application_key.expose_secret())
    }

    /// Reads, changes and writes a record until nobody else did so at the same time. `record` is what was read.
    async fn change<T: Changeable>(
        &self,
        mut record: T,
        change: &dyn Fn(&mut T) -> Result<(), ApiError>,
    ) -> Result<T, ApiError> {
        let mut attempt = 1;
        loop {
            let before = record.clone();
            change(&mut record)?;
            if record == before {
                return Ok(record);
            }
            match record.write(self.registry, self.clock.now()).await {
                Ok(written) => return Ok(written),
                Err(error) if error.kind() == ErrorKind::StateConflict && attempt < CHANGE_ATTEMPTS_MAX => {
                    attempt += 1;
                    record = before.read_again(self.registry).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    // Syncs

    async fn find_sync(&self, namespace_id: &str, bucket_id: &str, sync_id: &str) -> Result<SyncRecord, ApiError> {
        let found = self.registry.sync(sync_id).await?;
        found.filter(|sync| sync.namespace_id == namespace_id && sync.bucket_id == bucket_id).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("The bucket {bucket_id:?} of the namespace {namespace_id:?} has no sync {sync_id:?}."),
                "Check the bucket in the path and the header X-Namespace, or list the syncs with POST …/syncs/list.",
            )
            .into()
        })
    }

    async fn create_sync(&self, namespace_id: String, bucket_id: String, body: &[u8]) -> Answered {
        let new = syncs::parse_create(body)?;
        let query = SyncQuery::Bucket { namespace_id: namespace_id.clone(), bucket_id: bucket_id.clone() };
        if self.registry.syncs(&query).await?.len() >= SYNCS_PER_BUCKET_MAX {
            return Err(too_many("syncs in this bucket", SYNCS_PER_BUCKET_MAX));
        }
        let connection = self.find_connection(&new.connection).await?;
        connection.check_usable()?;
        let now = self.clock.now();
        let (polling_interval_s, batch_size) = syncs::defaults();
        let mut record = SyncRecord {
            v: RECORD_VERSION,
            sync_id: ids::sync_id(self.entropy),
            internal_id: ORGANISATION_ID.to_owned(),
            namespace_id,
            bucket_id,
            connection_id: connection.connection_id.clone(),
            source: new.source,
            mode: new.mode,
            filters: Default::default(),
            polling_interval_s,
            batch_size,
            reconcile: Default::default(),
            deletion_limit: Default::default(),
            sinks: crate::registry::usual_sinks(),
            feed_retention_hours: crate::registry::FEED_RETENTION_HOURS,
            skip_duplicates: true,
            max_objects_per_run: None,
            max_class_c_per_day: None,
            sync_concurrency: None,
            description: None,
            metadata: Map::new(),
            echoed: Default::default(),
            salt: ids::salt(self.entropy).into(),
            is_active: true,
            created_at: now,
            updated_at: now,
            revision: 0,
            created_by: USER_ID.to_owned(),
        };
        new.settings.apply(&mut record)?;
        self.probe(connection, &record).await?;
        let record = self.registry.insert_sync(record).await?;
        // It exists now, and is due: should the coordinator not be reached, the cron will.
        let status = self.command(&record.sync_id, Command::Configured).await.unwrap_or_default();
        Ok(syncs::render(&record, Some(&status), self.clock.now()))
    }

    /// Asks whether the connection may read the source path, so that a wrong bucket, a wrong case or a missing right is
    /// told at once and not by the first job. What may be better in a moment is no reason to refuse.
    async fn probe(&self, connection: ConnectionRecord, sync: &SyncRecord) -> Result<(), ApiError> {
        let credentials = self.credentials(&connection)?;
        let client = self.client();
        let cached = connection.account.clone().and_then(|stored| Account::try_from(stored).ok());
        let query = ListQuery { max_keys: 1, ..ListQuery::first(sync.source.bucket().as_str(), sync.source.prefix()) };
        if let Some(account) = cached {
            account.check(&sync.source, self.clock.now())?;
            let call = Call::List { bucket: &query.bucket };
            match client.list_page(&account, &credentials, &query).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_transient() => return Ok(()),
                // What was cached may be old: what B2 says now decides.
                Err(error) if suggests_stale_account(call, &error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let account = match client.authorize(self.b2_api_url, &credentials).await {
            Ok(account) => account,
            Err(error) if error.is_transient() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let now = self.clock.now();
        self.change(connection, &|record| {
            record.account = Some(StoredAccount::from(&account));
            record.authorized_at = Some(now);
            Ok(())
        })
        .await?;
        account.check(&sync.source, now)?;
        match client.list_page(&account, &credentials, &query).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_transient() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn list_syncs(&self, namespace_id: String, bucket_id: String, query: &Query, body: &[u8]) -> Answered {
        let mut problems = Vec::new();
        let page = PageRequest::parse(query, Listing::ByCreation, &mut problems);
        let filter = syncs::parse_list(body, &mut problems)?;
        check_problems(problems)?;
        let path = format!("/v1/buckets/{}/syncs/list", encode(&bucket_id));
        let mut records = self.registry.syncs(&SyncQuery::Bucket { namespace_id, bucket_id }).await?;
        records.retain(|record| filter.belongs_to(&record.connection_id));
        let answer: Page<(SyncRecord, Option<SyncStatus>)> = if filter.asks_how_it_stands() {
            let mut known = self.with_statuses(records).await;
            known.retain(|(record, status)| syncs::stands_as(&filter, record, status.as_ref()));
            paginate(known, &page, |(record, _)| (record.created_at, &record.sync_id))
        } else {
            // Only those of the page are asked.
            let answer = paginate(records, &page, |record| (record.created_at, &record.sync_id));
            Page { items: self.with_statuses(answer.items).await, total: answer.total, next: answer.next }
        };
        let now = self.clock.now();
        let results = answer.items.iter().map(|(sync, status)| syncs::render(sync, status.as_ref(), now)).collect();
        Ok(listed(&path, &page, results, answer.total, answer.next.as_ref()))
    }

    /// Asks the coordinators of these syncs how they stand; `None` for one that does not answer, because that must not
    /// hide the others.
    async fn with_statuses(&self, records: Vec<SyncRecord>) -> Vec<(SyncRecord, Option<SyncStatus>)> {
        let mut known = Vec::with_capacity(records.len());
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let calls = records.by_ref().take(COORDINATORS_IN_FLIGHT).map(async |record| {
                let status = self.command(&record.sync_id, Command::Status).await.ok();
                (record, status)
            });
            known.extend(join_all(calls).await);
        }
        known
    }

    /// A command that is answered with how the sync stands.
    async fn command(&self, sync_id: &str, command: Command) -> Result<SyncStatus, Error> {
        match self.coordinators.call(sync_id, command).await? {
            Answer::Status(status) => Ok(*status),
            _ => Err(unexpected()),
        }
    }

    async fn act_on_sync(&self, sync: SyncRecord, action: SyncAction, query: &Query, body: &[u8]) -> Answered {
        match action {
            SyncAction::Get => self.render_sync(&sync, Command::Status).await,
            SyncAction::Update => self.update_sync(sync, body).await,
            SyncAction::Delete => self.delete_sync(sync, query).await,
            SyncAction::Pause => {
                let reason = parse_reason(body)?;
                self.pause_sync(sync, reason).await
            }
            SyncAction::Resume => self.resume_sync(sync).await,
            SyncAction::Trigger => self.trigger_sync(&sync, query).await,
            SyncAction::Unlock => self.render_sync(&sync, Command::Unlock).await,
            SyncAction::Metrics => {
                let status = self.command(&sync.sync_id, Command::Status).await?;
                Ok(syncs::render_metrics(&sync, &status, self.clock.now()))
            }
            SyncAction::Changes => self.read_changes(&sync, query).await,
            SyncAction::JobList => self.list_jobs(&sync, query, body).await,
            SyncAction::JobGet(job_id) => self.get_job(&sync, job_id).await,
            SyncAction::DeadLetterList => self.list_dead_letters(&sync, query, body).await,
            SyncAction::DeadLetterRequeue => self.requeue_dead_letters(&sync, body).await,
            SyncAction::DeadLetterMarkFailed => {
                let error_types = dead_letters::parse_error_types(body, true)?;
                let updated = self.mark_dead_letters(&sync, Command::MarkFailed { error_types }).await?;
                Ok(json!({"updated": render::integer(updated)}))
            }
        }
    }

    async fn render_sync(&self, sync: &SyncRecord, command: Command) -> Answered {
        let status = self.command(&sync.sync_id, command).await?;
        Ok(syncs::render(sync, Some(&status), self.clock.now()))
    }

    async fn update_sync(&self, sync: SyncRecord, body: &[u8]) -> Answered {
        let patch = syncs::parse_patch(body)?;
        let sync = self.change(sync, &|record| patch.apply(record)).await?;
        match patch.activate {
            Some(true) if !sync.is_active => {
                self.command(&sync.sync_id, Command::Configured).await?;
                self.resume_sync(sync).await
            }
            Some(false) => {
                self.command(&sync.sync_id, Command::Configured).await?;
                self.pause_sync(sync, None).await
            }
            Some(true) | None => self.watched(&sync.sync_id, self.render_sync(&sync, Command::Configured)).await,
        }
    }

    /// Gives a sync's coordinator a command, and has the cron look after it, should the coordinator not be reached or
    /// its alarm be lost. That is noted before, in case this is cut off; and after it, since a tick in between may have
    /// been told what was so before the command.
    async fn watched<T, F: From<Error>>(
        &self,
        sync_id: &str,
        command: impl Future<Output = Result<T, F>>,
    ) -> Result<T, F> {
        self.registry.set_poke_after(sync_id, Some(self.clock.now())).await?;
        let answer = command.await?;
        // Another moment than the first, which the tick may have read.
        let _ = self.registry.set_poke_after(sync_id, Some(self.clock.now().plus_millis(1))).await;
        Ok(answer)
    }

    async fn pause_sync(&self, sync: SyncRecord, reason: Option<String>) -> Answered {
        let sync = self
            .change(sync, &|record| {
                record.is_active = false;
                Ok(())
            })
            .await?;
        self.render_sync(&sync, Command::Pause { reason }).await
    }

    async fn resume_sync(&self, sync: SyncRecord) -> Answered {
        self.find_connection(&sync.connection_id).await?.check_usable()?;
        let sync = self
            .change(sync, &|record| {
                record.is_active = true;
                Ok(())
            })
            .await?;
        self.watched(&sync.sync_id, self.render_sync(&sync, Command::Resume)).await
    }

    async fn trigger_sync(&self, sync: &SyncRecord, query: &Query) -> Answered {
        let mut problems = Vec::new();
        // Every listing is a full one: asking for it matters only where files are to be handed over again.
        let full_sync = query.flag("full_sync", &mut problems).unwrap_or(false);
        let confirm_deletes = query.flag("confirm_deletes", &mut problems).unwrap_or(false);
        check_problems(problems)?;
        let command = Command::Trigger { trigger: Trigger::Manual, confirm_deletes, full_sync };
        let command = self.coordinators.call(&sync.sync_id, command);
        let Answer::Triggered { job, started } = self.watched(&sync.sync_id, command).await? else {
            return Err(unexpected().into());
        };
        let (status, message) = if started {
            ("triggered", format!("The job {} was started. Follow it with GET …/jobs/{}.", job.job_id, job.job_id))
        } else {
            let ignored = match confirm_deletes {
                true => {
                    " It does not take your confirmation of deletions: should it fail with too_many_deletions, trigger \
                          again with confirm_deletes=true once it has ended."
                }
                false => "",
            };
            let id = &job.job_id;
            (
                "skipped_already_running",
                format!("The job {id} is running already, so no other was started. Follow that one.{ignored}"),
            )
        };
        let mut answer = json!({
            "sync_config_id": sync.sync_id,
            "sync_job_id": job.job_id,
            "status": status,
            "message": message,
            "job": jobs::render(sync, &job, self.clock.now()),
        });
        if let (Value::Object(answer), true, false) = (&mut answer, confirm_deletes, started) {
            answer.insert("confirm_deletes_ignored".to_owned(), true.into());
        }
        Ok(answer)
    }

    async fn delete_sync(&self, sync: SyncRecord, query: &Query) -> Answered {
        let mut problems = Vec::new();
        let delete_objects = query.flag("delete_objects", &mut problems).unwrap_or(false);
        check_problems(problems)?;
        // The record goes last: whoever was cut off can ask again. Without a time to be poked at, nothing starts a job
        // in between.
        match self.registry.set_poke_after(&sync.sync_id, None).await {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        match self.coordinators.call(&sync.sync_id, Command::Forget).await? {
            Answer::Forgotten => {}
            _ => return Err(unexpected().into()),
        }
        let removed = match delete_objects {
            true => Some(self.objects.drop_sync(&sync.namespace_id, &sync.bucket_id, &sync.sync_id).await?),
            false => None,
        };
        self.registry.delete_sync(&sync.sync_id).await?;
        let message = match removed {
            Some(removed) => format!("The sync was deleted, and {removed} objects with it."),
            None => "The sync was deleted. Its objects are kept; ?delete_objects=true deletes them too.".to_owned(),
        };
        Ok(json!({
            "sync_config_id": sync.sync_id,
            "deleted": true,
            "objects_deleted": removed.unwrap_or(0),
            "message": message,
        }))
    }

    // Jobs

    async fn list_jobs(&self, sync: &SyncRecord, query: &Query, body: &[u8]) -> Answered {
        let mut problems = Vec::new();
        let page = PageRequest::parse(query, Listing::Counted, &mut problems);
        let status = jobs::parse_list(body, &mut problems)?;
        check_problems(problems)?;
        let begin = page.begin();
        let end = begin.saturating_add(page.limit);
        let (mut records, mut total) = self.kept_jobs(sync, status, begin, page.limit).await?;
        if end > total {
            // The coordinator keeps only the latest: what it keeps, and what is archived beyond it.
            let (mut all, kept) = match begin {
                0 => (records, total),
                _ => self.kept_jobs(sync, status, 0, total.max(1)).await?,
            };
            let archived = self.coordinators.archived_jobs(&sync.sync_id, ARCHIVED_JOBS_MAX as usize).await?;
            all.extend(archived.into_iter().filter(|job| status.is_none_or(|status| job.status == status)));
            all.sort_by(|a, b| (b.created_at, &b.job_id).cmp(&(a.created_at, &a.job_id)));
            all.dedup_by(|a, b| a.job_id == b.job_id);
            total = kept.max(all.len() as u64);
            records = all.into_iter().skip(begin as usize).take(page.limit as usize).collect();
        }
        let next = (end < total).then_some(Cursor::Offset { n: end });
        let now = self.clock.now();
        let results = records.iter().map(|job| jobs::render(sync, job, now)).collect();
        let path = format!("/v1/buckets/{}/syncs/{}/jobs", encode(&sync.bucket_id), sync.sync_id);
        Ok(listed(&path, &page, results, Some(total), next.as_ref()))
    }

    async fn kept_jobs(
        &self,
        sync: &SyncRecord,
        status: Option<JobStatus>,
        offset: u64,
        limit: u64,
    ) -> Result<(Vec<JobRecord>, u64), Error> {
        match self.coordinators.call(&sync.sync_id, Command::Jobs { status, offset, limit }).await? {
            Answer::Jobs { jobs, total } => Ok((jobs, total)),
            _ => Err(unexpected()),
        }
    }

    async fn get_job(&self, sync: &SyncRecord, job_id: String) -> Answered {
        let kept = match self.coordinators.call(&sync.sync_id, Command::Job { job_id: job_id.clone() }).await? {
            Answer::Job { job } => job.map(|job| *job),
            _ => return Err(unexpected().into()),
        };
        let job = match kept {
            Some(job) => Some(job),
            None => self.coordinators.archived_job(&sync.sync_id, &job_id).await?,
        };
        match job.filter(|job| job.sync_id == sync.sync_id) {
            Some(job) => Ok(jobs::render(sync, &job, self.clock.now())),
            None => Err(Error::new(
                ErrorKind::NotFound,
                format!("The sync {} has no job {job_id:?}.", sync.sync_id),
                "List its jobs with POST …/jobs.",
            )
            .into()),
        }
    }

    // The feed

    async fn read_changes(&self, sync: &SyncRecord, query: &Query) -> Answered {
        let mut problems = Vec::new();
        let asked = ChangesRequest::parse(query, &mut problems);
        check_problems(problems)?;
        let ChangesRequest { after, limit, wait_ms } = asked;
        let read =
            |after, limit, wait_ms| self.coordinators.call(&sync.sync_id, Command::Changes { after, limit, wait_ms });
        match read(after, limit, wait_ms).await {
            Ok(Answer::Changes { changes, first, last }) => Ok(changes::render_page(&changes, first, last, asked)),
            Ok(_) => Err(unexpected().into()),
            Err(error) if error.kind() == ErrorKind::FeedGap => match read(None, 1, 0).await? {
                Answer::Changes { first, .. } => Err(ApiError::FeedGap { error, first }),
                _ => Err(unexpected().into()),
            },
            Err(error) => Err(changes::refusal(error)),
        }
    }

    // Dead letters

    async fn list_dead_letters(&self, sync: &SyncRecord, query: &Query, body: &[u8]) -> Answered {
        let mut problems = Vec::new();
        let page = PageRequest::parse(query, Listing::Counted, &mut problems);
        let DeadLetterFilter { only_max_retries, error_types } = DeadLetterFilter::parse(body, &mut problems)?;
        check_problems(problems)?;
        let offset = page.begin();
        let command = Command::DeadLetters { only_max_retries, error_types, offset, limit: page.limit };
        let Answer::DeadLetters { letters, total } = self.coordinators.call(&sync.sync_id, command).await? else {
            return Err(unexpected().into());
        };
        let end = offset.saturating_add(page.limit);
        let next = (end < total).then_some(Cursor::Offset { n: end });
        let results = letters.iter().map(|letter| dead_letters::render(sync, letter)).collect();
        let path = format!("/v1/buckets/{}/syncs/{}/dlq", encode(&sync.bucket_id), sync.sync_id);
        Ok(listed(&path, &page, results, Some(total), next.as_ref()))
    }

    async fn requeue_dead_letters(&self, sync: &SyncRecord, body: &[u8]) -> Answered {
        let error_types = dead_letters::parse_error_types(body, false)?;
        let command = self.mark_dead_letters(sync, Command::Requeue { error_types });
        let requeued = self.watched(&sync.sync_id, command).await?;
        Ok(json!({"requeued": render::integer(requeued)}))
    }

    async fn mark_dead_letters(&self, sync: &SyncRecord, command: Command) -> Result<u64, ApiError> {
        match self.coordinators.call(&sync.sync_id, command).await? {
            Answer::Marked { letters } => Ok(letters),
            _ => Err(unexpected().into()),
        }
    }

    // Objects

    async fn list_objects(&self, namespace_id: String, bucket_id: String, query: &Query, body: &[u8]) -> Answered {
        let mut problems = Vec::new();
        let page = PageRequest::parse(query, Listing::Objects, &mut problems);
        let filter = ObjectFilter::parse(body, &mut problems)?;
        let presign = query.flag("return_presigned_urls", &mut problems).unwrap_or(filter.return_presigned_urls);
        check_problems(problems)?;
        let path = format!("/v1/buckets/{}/objects", encode(&bucket_id));
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX); // Both have bounds below.
        let answer = self
            .objects
            .list(&ObjectQuery {
                namespace_id,
                bucket_id,
                limit: small(page.limit),
                offset: small(page.offset),
                cursor: match &page.cursor {
                    Some(Cursor::Object(cursor)) => Some(cursor.clone()),
                    _ => None,
                },
                prefix: filter.prefix.or_else(|| query.get("prefix").map(str::to_owned)),
                include_total: filter.include_total.unwrap_or(page.include_total),
            })
            .await?;
        let results = self.render_objects(&answer.objects, presign).await?;
        let stats = json!({
            "total_objects": results.len(),
            "total_blobs": results.len(),
            "avg_blobs_per_object": if results.is_empty() { 0.0 } else { 1.0 },
            "objects_by_status": {"ACTIVE": results.len()},
        });
        let next = answer.next.map(Cursor::Object);
        let pagination = render_pagination(&path, &page, answer.total, next.as_ref());
        Ok(json!({"results": results, "pagination": pagination, "stats": stats}))
    }

    async fn get_object(&self, namespace_id: &str, bucket_id: &str, object_id: &str, query: &Query) -> Answered {
        let mut problems = Vec::new();
        let presign = query.flag("return_presigned_urls", &mut problems).unwrap_or(false);
        check_problems(problems)?;
        match self.objects.get(namespace_id, bucket_id, object_id).await? {
            Some(object) => {
                let mut rendered = self.render_objects(&[object], presign).await?;
                rendered.pop().ok_or_else(|| Error::internal("An object was not rendered.").into())
            }
            None => Err(Error::new(
                ErrorKind::NotFound,
                format!("The bucket {bucket_id:?} of the namespace {namespace_id:?} has no object {object_id:?}."),
                "It may have been deleted at its source. Check the bucket in the path and the header X-Namespace.",
            )
            .into()),
        }
    }

    async fn render_objects(&self, records: &[ObjectRecord], presign: bool) -> Result<Vec<Value>, ApiError> {
        let mut accounts: BTreeMap<&str, Option<(Account, Credentials)>> = BTreeMap::new();
        let mut rendered = Vec::with_capacity(records.len());
        for record in records {
            if presign && !accounts.contains_key(record.connection_id.as_str()) {
                accounts.insert(&record.connection_id, self.signer(&record.connection_id).await?);
            }
            let url = match accounts.get(record.connection_id.as_str()) {
                Some(Some((account, credentials))) => {
                    let url = object_url(&account.s3_endpoint, &record.source_bucket, &record.key, &[]);
                    Some(presign_get(&url, credentials, &account.region, self.clock.now(), PRESIGNED_S)?)
                }
                _ => None,
            };
            rendered.push(objects::render(record, url.as_deref()));
        }
        Ok(rendered)
    }

    /// What signs URLs for a connection; `None` when it is gone or was never authorized.
    async fn signer(&self, connection_id: &str) -> Result<Option<(Account, Credentials)>, Error> {
        let Some(connection) = self.registry.connection(connection_id).await? else { return Ok(None) };
        let account = connection.account.clone().and_then(|stored| Account::try_from(stored).ok());
        match (account, &connection.application_key) {
            (Some(account), Some(_)) => Ok(Some((account, self.credentials(&connection)?))),
            _ => Ok(None),
        }
    }
}

/// A record of the registry that requests change.
trait Changeable: Clone + PartialEq {
    /// Writes it over the revision that it was read with.
    async fn write(self, registry: &impl Registry, now: Timestamp) -> Result<Self, Error>;

    /// As it is stored now.
    async fn read_again(&self, registry: &impl Registry) -> Result<Self, Error>;
}

impl Changeable for ConnectionRecord {
    async fn write(mut self, registry: &impl Registry, now: Timestamp) -> Result<Self, Error> {
        self.updated_at = now;
        let expected = self.revision;
        registry.update_connection(self, expected).await
    }

    async fn read_again(&self, registry: &impl Registry) -> Result<Self, Error> {
        let id = &self.connection_id;
        registry.connection(id).await?.ok_or_else(|| crate::registry::refusals::missing(id))
    }
}

impl Changeable for SyncRecord {
    async fn write(mut self, registry: &impl Registry, now: Timestamp) -> Result<Self, Error> {
        self.updated_at = now;
        let expected = self.revision;
        registry.update_sync(self, expected).await
    }

    async fn read_again(&self, registry: &impl Registry) -> Result<Self, Error> {
        let id = &self.sync_id;
        registry.sync(id).await?.ok_or_else(|| crate::registry::refusals::missing(id))
    }
}

fn listed(path: &str, page: &PageRequest, results: Vec<Value>, total: Option<u64>, next: Option<&Cursor>) -> Value {
    let pagination = render_pagination(path, page, total, next);
    json!({"results": results, "pagination": pagination, "total": render::integer(total.unwrap_or(0))})
}

/// One part of a path, encoded.
fn encode(segment: &str) -> String {
    percent_encoding::utf8_percent_encode(segment, b2sync_core::b2::url::RESERVED).to_string()
}

fn namespace(request: &ApiRequest) -> Result<String, ApiError> {
    let Some(namespace) = request.namespace.as_deref().map(str::trim).filter(|namespace| !namespace.is_empty()) else {
        return Ok(NAMESPACE_DEFAULT.to_owned());
    };
    if namespace.chars().count() > NAMESPACE_CHARS_MAX || namespace.chars().any(char::is_control) {
        return Err(ApiError::Invalid(vec![Problem {
            location: vec!["header".to_owned(), "x-namespace".to_owned()],
            kind: "value_error",
            message: format!(
                "The header X-Namespace must have 1 to {NAMESPACE_CHARS_MAX} characters, none a control character."
            ),
        }]));
    }
    Ok(namespace.to_owned())
}

/// The optional body of a pause: `{"reason": …}`.
fn parse_reason(body: &[u8]) -> Result<Option<String>, ApiError> {
    let mut problems = Vec::new();
    let mut fields = super::body::Fields::of_body(super::body::parse_object(body)?, &mut problems);
    let reason = fields.text("reason", 0, connections::DESCRIPTION_CHARS_MAX);
    fields.done();
    check_problems(problems)?;
    Ok(reason.filter(|reason| !reason.is_empty()))
}

fn archive(record: &mut ConnectionRecord) {
    record.archived = true;
    record.status = ConnectionStatus::Archived;
    record.is_active = false;
    record.application_key = None;
    record.account = None;
}

fn refuse_archived(record: &ConnectionRecord) -> Result<(), ApiError> {
    if !record.archived {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Conflict,
        format!("The connection {:?} was deleted.", record.name),
        "That is final: create a new connection.",
    )
    .into())
}

fn too_many(what: &str, max: usize) -> ApiError {
    Error::new(ErrorKind::Conflict, format!("There are {max} {what}: no more fit."), "Delete some first.").into()
}

fn unexpected() -> Error {
    Error::internal("A coordinator answered something else than it was asked.")
}
