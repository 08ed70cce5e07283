//! Syncs of a target bucket.

mod answer;
pub(in crate::api) mod preview;
pub(in crate::api) mod schedule;
pub(in crate::api) mod settings;
mod sinks;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    api::{
        body::{DESCRIPTION_CHARS_MAX, Fields, parse_object},
        errors::{Answered, ApiError, Problem},
        filters::{ListFilter, SYNC_STATUSES, UNREADABLE},
        idempotency::Repeatable,
        list_fields::ListFields,
        pagination::{Listing, PageRequest, render_section},
        preconditions::IfMatch,
        query::{Query, check_problems, encode},
        render,
        resources::jobs,
        service::{Coordinators, ORGANISATION_ID, Service, USER_ID, nothing_stored, unexpected},
    },
    catalogue::Objects,
    coordinator::protocol::{Answer, Command, SyncStatus},
    registry::{
        ConnectionRecord, NewSync, Registry, Rows, SYNCS_ASKED_MAX, Section, SyncQuery, SyncRecord, SyncRow, SyncsOf,
    },
};
use b2sync_core::{
    b2::{
        account::{Account, StoredAccount},
        source::{B2Source, FirstLook},
    },
    entropy::Entropy,
    error::{Error, ErrorKind},
    http::HttpClient,
    ids,
    job::Trigger,
    open_sync::{OpenSync, Unopened},
    source_path::SourcePath,
    time::{Clock, Timestamp},
    warning::{self, OVERLAPS_MAX, Warning},
};

/// How many coordinators are asked at the same time.
const COORDINATORS_IN_FLIGHT: usize = 16;

/// The longest `bucket_id` of a list, in characters.
const BUCKET_ID_CHARS_MAX: usize = 512;

/// How many syncs of a bucket are read at a time, to find those that overlap with a new one.
const OVERLAP_SECTION: u64 = 100;

/// A sync of a list.
enum Listed {
    /// With how its coordinator says it stands; `None`: that did not answer.
    Sync(Box<(SyncRecord, Option<SyncStatus>)>),
    /// One whose record cannot be read, and why.
    Unreadable(SyncRow, Error),
}

impl Listed {
    /// When it was created, and its id.
    fn created(&self) -> (Timestamp, &str) {
        match self {
            Self::Sync(known) => (known.0.created_at, &known.0.sync_id),
            Self::Unreadable(row, _) => (row.created_at, &row.sync_id),
        }
    }

    /// Whether it matches what its coordinator must be asked about.
    fn stands_as(&self, filter: &ListFilter) -> bool {
        match self {
            Self::Sync(known) => {
                let (record, status) = (&known.0, known.1.as_ref());
                filter.stands_as(answer::status_name(record, status), answer::is_active(record, status))
            }
            Self::Unreadable(..) => filter.stands_as(UNREADABLE, false),
        }
    }

    fn render(&self, now: Timestamp) -> Value {
        match self {
            Self::Sync(known) => answer::render(&known.0, known.1.as_ref(), now),
            Self::Unreadable(row, error) => answer::render_unreadable(row, error),
        }
    }
}

impl<R: Registry, C: Coordinators, O: Objects, H: HttpClient, K: Clock, E: Entropy> Service<'_, R, C, O, H, K, E> {
    pub(in crate::api) async fn create_sync(
        &self,
        (namespace_id, bucket_id): (String, String),
        request: Option<&Repeatable>,
        body: &[u8],
    ) -> Answered {
        let new = settings::parse_create(body)?;
        let sync_id = self.id_of(request, ids::sync_id(self.entropy)).await?;
        if request.is_some()
            && let Some(created) = self.registry.sync(&sync_id).await?
        {
            let status = self.command(&sync_id, Command::Status).await.unwrap_or_default();
            return Ok(answer::render(&created, Some(&status), self.clock.now()));
        }
        // The registry decides when it stores the record; this only spares B2 a call.
        self.registry.check_new_sync(&namespace_id, &bucket_id).await?;
        let (connection, mut record) = self.plan_sync(sync_id, (namespace_id, bucket_id), new).await?;
        record.first_look = self.first_look(connection, &record).await?;
        record.first_look.extend(self.overlaps(&record).await?);
        let record = self.registry.insert_sync(record).await?;
        // It exists now, and is due: should the coordinator not be reached, the cron will.
        let status = self.command(&record.sync_id, Command::Configured).await.unwrap_or_default();
        Ok(answer::render(&record, Some(&status), self.clock.now()))
    }

    /// The record of a sync that is asked for, as it would be stored, and its connection.
    async fn plan_sync(
        &self,
        sync_id: String,
        (namespace_id, bucket_id): (String, String),
        new: settings::NewSync,
    ) -> Result<(ConnectionRecord, SyncRecord), ApiError> {
        let connection = self.find_connection(&new.connection).await?;
        connection.check_usable()?;
        let fixed = NewSync {
            sync_id,
            internal_id: ORGANISATION_ID.to_owned(),
            namespace_id,
            bucket_id,
            connection_id: connection.connection_id.clone(),
            source: new.source,
            mode: new.mode,
            salt: ids::salt(self.entropy).into(),
            created_by: USER_ID.to_owned(),
        };
        let now = self.clock.now();
        let mut record = SyncRecord::new(fixed, now);
        new.settings.apply(&mut record, now)?;
        Ok((connection, record))
    }

    /// Asks whether the connection may read the source path, so that a wrong bucket, a wrong case or a missing right is
    /// told at once and not by the first job. If B2 does not answer in time, the sync is not created. Answers what the
    /// user should know of what is there.
    async fn first_look(&self, connection: ConnectionRecord, sync: &SyncRecord) -> Result<Vec<Warning>, ApiError> {
        let outcome = self.look(connection, &sync.source, async |source| source.first_look().await).await?;
        let FirstLook { found, is_all } = outcome.map_err(nothing_stored)?;
        Ok(warning::of_first_look(&sync.source, &found, is_all))
    }

    /// Looks into the bucket of a sync. What B2 says of the account is stored with the connection. The inner result is
    /// what B2 says.
    pub(in crate::api) async fn look<T>(
        &self,
        connection: ConnectionRecord,
        path: &SourcePath,
        look: impl AsyncFnOnce(&B2Source<'_, H, K, E>) -> Result<T, Error>,
    ) -> Result<Result<T, Error>, ApiError> {
        let credentials = connection.credentials(self.master_keys)?;
        let cached = connection.account.clone().and_then(|stored| Account::try_from(stored).ok());
        let opening = OpenSync { api_url: self.b2_api_url, credentials: &credentials, path, cached };
        let (outcome, learned) = match opening.open(self.client()).await {
            Ok((source, _)) => (look(&source).await, source.learned()),
            Err(Unopened { error, account, .. }) => (Err(error), account),
        };
        if let Some(account) = learned {
            let now = self.clock.now();
            self.change(connection, &|record| {
                record.account = Some(StoredAccount::from(&account));
                record.authorized_at = Some(now);
                Ok(())
            })
            .await?;
        }
        Ok(outcome)
    }

    /// Looks for syncs that feed the same target bucket from the same files.
    async fn overlaps(&self, sync: &SyncRecord) -> Result<Option<Warning>, Error> {
        if sync.sinks.is_empty() {
            return Ok(None);
        }
        let (namespace_id, bucket_id) = (sync.namespace_id.clone(), sync.bucket_id.clone());
        let of = SyncsOf::Bucket { namespace_id, bucket_id, connection_id: None };
        let mut query = SyncQuery { of, is_active: None, section: Section::first(OVERLAP_SECTION) };
        let mut others = Vec::new();
        loop {
            let section = self.registry.syncs(&query).await?;
            query.section.after = section.rows.last().map(|row| (row.created_at, row.sync_id.clone()));
            // One that cannot be read feeds nothing.
            let records = section.rows.iter().filter_map(|row| row.read().ok());
            let found = records.filter(|it| !it.sinks.is_empty() && warning::overlap(&it.source, &sync.source));
            others.extend(found.map(|it| (it.sync_id, it.source)));
            if !section.more || others.len() > OVERLAPS_MAX {
                return Ok(warning::of_overlaps(&sync.source, &others));
            }
        }
    }

    /// The syncs of a bucket, or of all buckets of the namespace.
    pub(in crate::api) async fn list_syncs(
        &self,
        namespace_id: String,
        bucket_id: Option<String>,
        query: &Query,
        body: &[u8],
    ) -> Answered {
        let mut problems = Vec::new();
        let mut fields = ListFields::parse(query, body, &mut problems)?;
        let mut page = PageRequest::read(&mut fields, Listing::ByCreation);
        let filter = ListFilter::read(&mut fields, "connection_id", &SYNC_STATUSES);
        let bucket_id = bucket_id.or_else(|| fields.text("bucket_id", 1, BUCKET_ID_CHARS_MAX));
        page.list_url = fields.done();
        check_problems(problems)?;
        let connection_id = match filter.owner() {
            Some(name) if !name.starts_with("conn_") => Some(self.find_connection_row(&name).await?.connection_id),
            owner => owner,
        };
        let of = match bucket_id {
            Some(bucket_id) => SyncsOf::Bucket { namespace_id, bucket_id, connection_id },
            None => SyncsOf::Namespace { namespace_id, connection_id },
        };
        let section = if filter.asks_how_it_stands() {
            // Coordinators know how a sync stands: all are asked that may match.
            let is_active = answer::needs_active(&filter).then_some(true);
            let section = Section::first(SYNCS_ASKED_MAX as u64);
            let all = self.registry.syncs(&SyncQuery { of, is_active, section }).await?;
            if all.more {
                return Err(too_many_to_ask(&filter, query, all.total));
            }
            let mut known = self.with_statuses(all.rows).await;
            known.retain(|sync| sync.stands_as(&filter));
            page.section().of(known, Listed::created)
        } else {
            // Only those of the page are asked.
            let section = self.registry.syncs(&SyncQuery { of, is_active: None, section: page.section() }).await?;
            Rows { rows: self.with_statuses(section.rows).await, total: section.total, more: section.more }
        };
        let now = self.clock.now();
        Ok(render_section(&page, &section, Listed::created, |sync| sync.render(now)))
    }

    /// Asks the coordinators of these syncs how they stand; `None` for one that does not answer, because that must not
    /// hide the others.
    async fn with_statuses(&self, rows: Vec<SyncRow>) -> Vec<Listed> {
        let mut known = Vec::with_capacity(rows.len());
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            let calls = rows.by_ref().take(COORDINATORS_IN_FLIGHT).map(async |row| match row.read() {
                Ok(record) => {
                    let status = self.command(&record.sync_id, Command::Status).await.ok();
                    Listed::Sync(Box::new((record, status)))
                }
                Err(error) => Listed::Unreadable(row, error),
            });
            known.extend(join_all(calls).await);
        }
        known
    }

    async fn render_sync(&self, sync: &SyncRecord, command: Command) -> Answered {
        let status = self.command(&sync.sync_id, command).await?;
        Ok(answer::render(sync, Some(&status), self.clock.now()))
    }

    pub(in crate::api) async fn get_sync(&self, sync: &SyncRecord) -> Answered {
        self.render_sync(sync, Command::Status).await
    }

    /// Has the coordinator do what changes how the sync goes on, and adds to the answer what came of it, which
    /// `message` tells from how the sync stood before and how it stands now. To ask twice is no error.
    async fn change_course(
        &self,
        sync: &SyncRecord,
        command: Command,
        message: impl Fn(&SyncStatus, &SyncStatus) -> String,
    ) -> Answered {
        let before = self.command(&sync.sync_id, Command::Status).await?;
        let status = self.command(&sync.sync_id, command).await?;
        let mut sync = answer::render(sync, Some(&status), self.clock.now());
        if let Value::Object(sync) = &mut sync {
            sync.insert("message".to_owned(), message(&before, &status).into());
        }
        Ok(sync)
    }

    pub(in crate::api) async fn unlock_sync(&self, sync: &SyncRecord) -> Answered {
        self.change_course(sync, Command::Unlock, answer::unlocked_message).await
    }

    pub(in crate::api) async fn sync_metrics(&self, sync: &SyncRecord) -> Answered {
        let status = self.command(&sync.sync_id, Command::Status).await?;
        Ok(answer::render_metrics(sync, &status, self.clock.now()))
    }

    pub(in crate::api) async fn update_sync(&self, sync: SyncRecord, if_match: &IfMatch, body: &[u8]) -> Answered {
        let patch = settings::parse_patch(body)?;
        let now = self.clock.now();
        let apply = |record: &mut SyncRecord| {
            if_match.check(&answer::etag(record))?;
            patch.apply(record, now)
        };
        let sync = self.change(sync, &apply).await?;
        match patch.activate {
            Some(true) if !sync.is_active => {
                self.command(&sync.sync_id, Command::Configured).await?;
                self.resume_sync(sync, &IfMatch::default()).await
            }
            Some(false) => {
                self.command(&sync.sync_id, Command::Configured).await?;
                self.pause(sync, &IfMatch::default(), None).await
            }
            Some(true) | None => self.watched(&sync.sync_id, self.render_sync(&sync, Command::Configured)).await,
        }
    }

    pub(in crate::api) async fn pause_sync(&self, sync: SyncRecord, if_match: &IfMatch, body: &[u8]) -> Answered {
        let reason = parse_reason(body)?;
        self.pause(sync, if_match, reason).await
    }

    async fn pause(&self, sync: SyncRecord, if_match: &IfMatch, reason: Option<String>) -> Answered {
        let sync = self
            .change(sync, &|record| {
                if_match.check(&answer::etag(record))?;
                record.is_active = false;
                Ok(())
            })
            .await?;
        self.change_course(&sync, Command::Pause { reason }, answer::paused_message).await
    }

    pub(in crate::api) async fn resume_sync(&self, sync: SyncRecord, if_match: &IfMatch) -> Answered {
        self.find_connection(&sync.connection_id).await?.check_usable()?;
        let sync = self
            .change(sync, &|record| {
                if_match.check(&answer::etag(record))?;
                record.is_active = true;
                Ok(())
            })
            .await?;
        self.watched(&sync.sync_id, self.change_course(&sync, Command::Resume, answer::resumed_message)).await
    }

    pub(in crate::api) async fn trigger_sync(&self, sync: &SyncRecord, query: &Query) -> Answered {
        let mut problems = Vec::new();
        query.check_only(&["full_sync", "confirm_deletes"], &mut problems);
        // Every listing is a full one: asking for it matters only where files are to be handed over again.
        let full_sync = query.flag("full_sync", &mut problems).unwrap_or(false);
        let confirm_deletes = query.flag("confirm_deletes", &mut problems).unwrap_or(false);
        check_problems(problems)?;
        let command = Command::Trigger { trigger: Trigger::Manual, confirm_deletes, full_sync };
        let command = self.coordinators.call(&sync.sync_id, command);
        let Answer::Triggered { job, started } = self.watched(&sync.sync_id, command).await? else {
            return Err(unexpected().into());
        };
        let id = &job.job_id;
        let (status, message) = if started {
            let ignored = if full_sync && sync.skip_duplicates {
                " It ignores full_sync=true, because skip_duplicates is true: set skip_duplicates to false to get \
                 every file again."
            } else {
                ""
            };
            ("triggered", format!("Job {id} was started. GET …/jobs/{id}?wait=25 waits for its end.{ignored}"))
        } else {
            let ignored = match confirm_deletes {
                true => {
                    " The running job ignores confirm_deletes=true. If it holds deletions, trigger again with \
                     confirm_deletes=true."
                }
                false => "",
            };
            let running = format!(
                "Job {id} is already running, so no other job was started. GET …/jobs/{id}?wait=25 waits for its end."
            );
            ("skipped_already_running", running + ignored)
        };
        let mut answer = json!({
            "sync_config_id": sync.sync_id,
            "sync_job_id": job.job_id,
            "status": status,
            "message": message,
            "job": jobs::shown(sync, &job, self.clock.now()),
        });
        if let Value::Object(answer) = &mut answer {
            if confirm_deletes && !started {
                answer.insert("confirm_deletes_ignored".to_owned(), true.into());
            }
            if full_sync && (!started || sync.skip_duplicates) {
                answer.insert("full_sync_ignored".to_owned(), true.into());
            }
        }
        Ok(answer)
    }

    /// Deletes a sync, whether its record can be read or not.
    pub(in crate::api) async fn delete_sync(&self, sync: SyncRow, if_match: &IfMatch, query: &Query) -> Answered {
        if let Ok(record) = sync.read() {
            if_match.check(&answer::etag(&record))?;
        }
        let mut problems = Vec::new();
        query.check_only(&["delete_objects"], &mut problems);
        let delete_objects = query.flag("delete_objects", &mut problems).unwrap_or(false);
        check_problems(problems)?;
        // The record goes last: if the request is cut off, it can be sent again. Without a time to be poked at,
        // nothing starts a job in between.
        match self.registry.set_poke_after(&sync.sync_id, None).await {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        match self.coordinators.call(&sync.sync_id, Command::Forget).await? {
            Answer::Forgotten => {}
            _ => return Err(unexpected().into()),
        }
        let (namespace_id, bucket_id, id) = (&sync.namespace_id, &sync.bucket_id, &sync.sync_id);
        let (removed, kept) = match delete_objects {
            true => (self.objects.drop_sync(namespace_id, bucket_id, id).await?, Some(0)),
            // How many there are does not decide whether the sync can be deleted.
            false => (0, self.objects.count_of_sync(namespace_id, bucket_id, id).await.ok()),
        };
        self.registry.delete_sync(id).await?;
        Ok(json!({
            "sync_config_id": id,
            "deleted": true,
            "objects_deleted": render::integer(removed),
            "objects_kept": kept.map(render::integer),
            "message": deleted_message(&sync, delete_objects.then_some(removed), kept),
        }))
    }
}

/// More syncs than one request can ask how they stand.
fn too_many_to_ask(filter: &ListFilter, query: &Query, syncs: u64) -> ApiError {
    let name = if filter.status().is_some() { "status" } else { "is_active" };
    let place = if query.get(name).is_some() { "query" } else { "body" };
    let message = format!(
        "`{name}` would have to ask {syncs} syncs how they stand, and a request asks at most {SYNCS_ASKED_MAX}. Send \
         `bucket_id` or `connection_id` too, or leave `{name}` out and read it in the answer."
    );
    ApiError::Invalid(vec![Problem { location: vec![place.to_owned(), name.to_owned()], kind: "value_error", message }])
}

/// What became of a sync and its objects; `removed` if they were to be deleted with it.
fn deleted_message(sync: &SyncRow, removed: Option<u64>, kept: Option<u64>) -> String {
    let count = |count: u64| if count == 1 { "1 object".to_owned() } else { format!("{count} objects") };
    let objects = match (removed, kept) {
        (Some(removed), _) => return format!("The sync was deleted, and {} with it.", count(removed)),
        (None, Some(0)) => return "The sync was deleted. It had no objects.".to_owned(),
        (None, Some(1)) => "Its 1 object stays".to_owned(),
        (None, Some(kept)) => format!("Its {kept} objects stay"),
        (None, None) => "Its objects stay".to_owned(),
    };
    format!(
        "The sync was deleted. {objects} in the catalogue, because delete_objects=true was not set. To remove them, \
         send DELETE /v1/buckets/{}/objects?sync_id={}.",
        encode(&sync.bucket_id),
        sync.sync_id
    )
}

/// The optional body of a pause: `{"reason": …}`.
fn parse_reason(body: &[u8]) -> Result<Option<String>, ApiError> {
    let mut problems = Vec::new();
    let mut fields = Fields::of_body(parse_object(body)?, &mut problems);
    let reason = fields.text("reason", 0, DESCRIPTION_CHARS_MAX);
    fields.done();
    check_problems(problems)?;
    Ok(reason.filter(|reason| !reason.is_empty()))
}
