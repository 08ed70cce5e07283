//! Connections. Answers show no key id and no key.

use serde_json::{Map, Value, json};

use crate::{
    api::{
        body::{DESCRIPTION_CHARS_MAX, Fields, Given, parse_object},
        errors::{Answered, ApiError, problem_of},
        filters::{CONNECTION_STATUSES, ListFilter, UNREADABLE},
        idempotency::Repeatable,
        list_fields::ListFields,
        pagination::{Listing, PageRequest, render_section},
        preconditions::{self, IfMatch},
        query::{Query, check_problems},
        render,
        service::{Coordinators, ORGANISATION_ID, Service, USER_ID, nothing_stored},
    },
    catalogue::Objects,
    coordinator::protocol::Command,
    registry::{
        ConnectionQuery, ConnectionRecord, ConnectionRow, ConnectionStatus, RECORD_VERSION, Registry, Rows, Section,
        SyncQuery, SyncRow, SyncsOf, refusals,
    },
};
use b2sync_core::{
    b2::account::{Account, Credentials, StoredAccount},
    entropy::Entropy,
    error::{Error, ErrorKind},
    http::HttpClient,
    ids,
    secret::{ExposeSecret, SecretString},
    time::{Clock, Timestamp},
};

/// The only provider of this service.
pub(in crate::api) const PROVIDER: &str = "backblaze";
/// The longest name, in characters.
pub(in crate::api) const NAME_CHARS_MAX: usize = 100;
/// The most syncs that are told at once that their connection's suspension was lifted; the others continue with their
/// next poll.
const LIFTED_SYNCS_MAX: u64 = 100;

/// What a key must be allowed for any sync to work.
const CAPABILITIES_NEEDED: [&str; 2] = ["listFiles", "readFiles"];

/// A connection to create.
pub(in crate::api) struct NewConnection {
    pub(in crate::api) name: String,
    pub(in crate::api) description: Option<String>,
    pub(in crate::api) metadata: Map<String, Value>,
    pub(in crate::api) credentials: Credentials,
    pub(in crate::api) write_enabled: bool,
    pub(in crate::api) test_before_save: bool,
}

/// Reads the body of a create.
pub(in crate::api) fn parse_create(body: &[u8]) -> Result<NewConnection, ApiError> {
    let mut problems = Vec::new();
    let mut fields = Fields::of_body(parse_object(body)?, &mut problems);
    let name = read_name(&mut fields);
    if name.is_none() && !fields.reported("name") {
        fields.missing("name", "the name of the connection, 1 to 100 characters");
    }
    if fields.choice("provider_type", &[(PROVIDER, ())]).is_none() && !fields.reported("provider_type") {
        fields.missing("provider_type", "it must be \"backblaze\"");
    }
    let credentials = read_provider_config(&mut fields, true);
    let description = fields.text("description", 0, DESCRIPTION_CHARS_MAX);
    let metadata = fields.metadata();
    let write_enabled = fields.flag("write_enabled");
    let test_before_save = fields.flag("test_before_save");
    fields.done();
    check_problems(problems)?;
    // Whatever is missing here was reported above.
    let (Some(name), (Some(key_id), Some(application_key))) = (name, credentials) else {
        return Err(ApiError::Invalid(Vec::new()));
    };
    Ok(NewConnection {
        name,
        description: description.filter(|text| !text.is_empty()),
        metadata: metadata.value().unwrap_or_default(),
        credentials: Credentials::new(&key_id, application_key.expose_secret())?,
        write_enabled: write_enabled.unwrap_or(false),
        test_before_save: test_before_save.unwrap_or(true),
    })
}

fn read_name(fields: &mut Fields<'_>) -> Option<String> {
    let name = fields.text("name", 1, NAME_CHARS_MAX)?;
    if name.trim().is_empty() || name.trim() != name || name.chars().any(char::is_control) {
        fields.problem(
            "name",
            "value_error",
            "`name` must not be blank, begin or end with white space, or hold control characters.",
        );
        return None;
    }
    if name == "." || name == ".." || name.starts_with("conn_") {
        fields.problem(
            "name",
            "value_error",
            "`name` must not be \".\" or \"..\", which cannot stand in a URL, or begin with \"conn_\" as ids do.",
        );
        return None;
    }
    Some(name)
}

/// Key id and application key, checked one by one, so that both problems are told.
fn read_provider_config(fields: &mut Fields<'_>, required: bool) -> (Option<String>, Option<SecretString>) {
    let Some(mut config) = fields.nested("provider_config") else {
        if required && !fields.reported("provider_config") {
            fields.missing("provider_config", "{\"credentials\": {\"key_id\": …, \"application_key\": …}}");
        }
        return (None, None);
    };
    config.choice("provider_type", &[(PROVIDER, ())]);
    let Some(mut credentials) = config.nested("credentials") else {
        if required && !config.reported("credentials") {
            config.missing("credentials", "{\"type\": \"application_key\", \"key_id\": …, \"application_key\": …}");
        }
        config.done();
        return (None, None);
    };
    credentials.choice("type", &[("application_key", ())]);
    let key_id = credentials.text("key_id", 0, usize::MAX);
    let application_key = credentials.text("application_key", 0, usize::MAX).map(SecretString::from);
    if required {
        let console = "copy it from the Backblaze console, App Keys";
        if key_id.is_none() && !credentials.reported("key_id") {
            credentials.missing("key_id", console);
        }
        if application_key.is_none() && !credentials.reported("application_key") {
            credentials.missing("application_key", console);
        }
    }
    // The other half is a stand-in that is right.
    let halves = [
        key_id.as_ref().map(|key_id| Credentials::new(key_id, "x")),
        application_key.as_ref().map(|key| Credentials::new("x", key.expose_secret())),
    ];
    let mut wrong: Vec<Error> = halves.into_iter().flatten().filter_map(Result::err).collect();
    if let (Some(key_id), Some(key), [_, _]) = (&key_id, &application_key, wrong.as_slice())
        && let Some(swapped) = Credentials::swapped(key_id, key.expose_secret())
    {
        wrong = vec![swapped];
    }
    for error in wrong {
        credentials.report(problem_of(&error, error.field().unwrap_or("provider_config.credentials")));
    }
    credentials.done();
    config.done();
    (key_id, application_key)
}

/// What to change about a connection.
pub(in crate::api) struct ConnectionPatch {
    pub(in crate::api) name: Option<String>,
    description: Given<String>,
    metadata: Given<Map<String, Value>>,
    /// ACTIVE, SUSPENDED, FAILED or ARCHIVED.
    pub(in crate::api) status: Option<ConnectionStatus>,
    write_enabled: Option<bool>,
    pub(in crate::api) key_id: Option<String>,
    pub(in crate::api) application_key: Option<SecretString>,
}

impl ConnectionPatch {
    /// Whether the credentials change.
    pub(in crate::api) fn has_credentials(&self) -> bool {
        self.key_id.is_some() || self.application_key.is_some()
    }

    /// Says what to send where B2 refuses one half that was sent together with the other that is stored.
    fn explain(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::BadCredentials || self.key_id.is_some() == self.application_key.is_some() {
            return error;
        }
        let (sent, stored) = match self.key_id {
            Some(_) => ("key_id", "application_key"),
            None => ("application_key", "key_id"),
        };
        let advice = format!(
            "Only {sent} was sent, so b2sync tried it with the stored {stored}. Each key has its own key_id and \
             application_key: send both."
        );
        error.with_advice(advice)
    }

    /// Changes everything but the credentials.
    pub(in crate::api) fn apply(&self, record: &mut ConnectionRecord) {
        if let Some(name) = &self.name {
            record.name.clone_from(name);
        }
        self.description.clone().apply(&mut record.description);
        record.description = record.description.take().filter(|text| !text.is_empty());
        match &self.metadata {
            Given::Absent => {}
            Given::Null => record.metadata = Map::new(),
            Given::Value(metadata) => record.metadata.clone_from(metadata),
        }
        if let Some(write_enabled) = self.write_enabled {
            record.write_enabled = write_enabled;
        }
        if let Some(status) = self.status {
            if status == ConnectionStatus::Active && record.status != status {
                record.consecutive_failures = 0;
                record.last_error = None;
            }
            if status == ConnectionStatus::Suspended {
                record.consecutive_failures = 0; // It is its user who suspends it.
            }
            record.status = status;
            record.is_active = status == ConnectionStatus::Active;
        }
    }
}

/// Reads the body of a PATCH.
pub(in crate::api) fn parse_patch(body: &[u8]) -> Result<ConnectionPatch, ApiError> {
    let mut problems = Vec::new();
    let mut fields = Fields::of_body(parse_object(body)?, &mut problems);
    let name = read_name(&mut fields);
    let description = fields.text_or_null("description", 0, DESCRIPTION_CHARS_MAX);
    let metadata = fields.metadata();
    let mut status = fields.choice(
        "status",
        &[
            ("ACTIVE", ConnectionStatus::Active),
            ("SUSPENDED", ConnectionStatus::Suspended),
            ("FAILED", ConnectionStatus::Failed),
            ("ARCHIVED", ConnectionStatus::Archived),
        ],
    );
    if let Some(is_active) = fields.flag("is_active") {
        match status {
            Some(status) if (status == ConnectionStatus::Active) != is_active => {
                fields.problem("is_active", "value_error", "`is_active` contradicts `status`: send one of them.");
            }
            Some(_) => {}
            None => {
                status = Some(if is_active { ConnectionStatus::Active } else { ConnectionStatus::Suspended });
            }
        }
    }
    let write_enabled = fields.flag("write_enabled");
    let (key_id, application_key) = read_provider_config(&mut fields, false);
    fields.done();
    check_problems(problems)?;
    Ok(ConnectionPatch { name, description, metadata, status, write_enabled, key_id, application_key })
}

impl<R: Registry, C: Coordinators, O: Objects, H: HttpClient, K: Clock, E: Entropy> Service<'_, R, C, O, H, K, E> {
    pub(in crate::api) async fn create_connection(&self, request: Option<&Repeatable>, body: &[u8]) -> Answered {
        let new: NewConnection = parse_create(body)?;
        let connection_id = self.id_of(request, ids::connection_id(self.entropy)).await?;
        if request.is_some()
            && let Some(created) = self.registry.connection(&connection_id).await?
        {
            refuse_archived(&created)?;
            return Ok(render(&created));
        }
        // The registry decides when it stores the record; this only spares B2 a call.
        self.registry.check_new_connection(&new.name).await?;
        let account = match new.test_before_save {
            true => Some(self.authorize(&new.credentials).await.map_err(nothing_stored)?),
            false => None,
        };
        let now = self.clock.now();
        let sealed = self.master_keys.seal(new.credentials.application_key(), &connection_id, self.entropy)?;
        let record = ConnectionRecord {
            v: RECORD_VERSION,
            connection_id,
            internal_id: ORGANISATION_ID.to_owned(),
            name: new.name,
            description: new.description,
            metadata: new.metadata,
            provider_type: PROVIDER.to_owned(),
            key_id: new.credentials.key_id().to_owned(),
            application_key: Some(sealed),
            account: account.as_ref().map(StoredAccount::from),
            authorized_at: account.as_ref().map(|_| now),
            pace: None,
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
        Ok(render(&self.registry.insert_connection(record).await?))
    }

    /// Asks B2 what a key may do, and whether that is enough for a sync.
    async fn authorize(&self, credentials: &Credentials) -> Result<Account, Error> {
        let account = self.client().authorize(self.b2_api_url, credentials).await?;
        account.check_not_master(credentials)?;
        account.check_key(self.clock.now())?;
        Ok(account)
    }

    pub(in crate::api) async fn list_connections(&self, query: &Query, body: &[u8]) -> Answered {
        let mut problems = Vec::new();
        let mut fields = ListFields::parse(query, body, &mut problems)?;
        let mut page = PageRequest::read(&mut fields, Listing::ByCreation);
        let filter = ListFilter::read(&mut fields, "provider_type", &CONNECTION_STATUSES);
        page.list_url = fields.done();
        check_problems(problems)?;
        let query = ConnectionQuery {
            provider_type: filter.owner(),
            status: filter.status().map(str::to_owned),
            is_active: filter.is_active(),
            section: page.section(),
        };
        let section = self.registry.connections(&query).await?;
        Ok(render_section(&page, &section, created, |row| match row.read() {
            Ok(record) => render(&record),
            Err(error) => render_unreadable(row, &error),
        }))
    }

    pub(in crate::api) async fn update_connection(&self, id: &str, if_match: &IfMatch, body: &[u8]) -> Answered {
        let patch: ConnectionPatch = parse_patch(body)?;
        let row = self.find_connection_row(id).await?;
        let record = row.read()?;
        refuse_archived(&record)?;
        if_match.check(&etag(&record))?;
        if patch.status == Some(ConnectionStatus::Archived) {
            self.refuse_in_use(&row).await?;
        }
        let mut fresh = None;
        if patch.has_credentials() && patch.status != Some(ConnectionStatus::Archived) {
            let key_id = patch.key_id.clone().unwrap_or_else(|| record.key_id.clone());
            let application_key = match &patch.application_key {
                Some(key) => key.clone(),
                None => record.credentials(self.master_keys)?.application_key().clone(),
            };
            let credentials = Credentials::new(&key_id, application_key.expose_secret())?;
            let account = self.authorize(&credentials).await.map_err(|error| patch.explain(nothing_stored(error)))?;
            let sealed = self.master_keys.seal(credentials.application_key(), &record.connection_id, self.entropy)?;
            fresh = Some((credentials.key_id().to_owned(), sealed, StoredAccount::from(&account)));
        }
        let was_suspended = record.is_suspended_by_failures();
        let record = self
            .change(record, &|record| {
                refuse_archived(record)?;
                if_match.check(&etag(record))?;
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
        Ok(render(&record))
    }

    /// Has the syncs of a connection begin at once, if its suspension was lifted. Failures are ignored: a sync
    /// that was not reached continues with its next poll.
    async fn begin_again(&self, was_suspended: bool, record: &ConnectionRecord) {
        if !was_suspended || record.check_usable().is_err() {
            return;
        }
        let Ok(syncs) = self.active_syncs(&record.connection_id, LIFTED_SYNCS_MAX).await else { return };
        for sync in syncs.rows {
            // As `watched`, except that each call is made even if the one before fails.
            let _ = self.registry.set_poke_after(&sync.sync_id, Some(self.clock.now())).await;
            let _ = self.command(&sync.sync_id, Command::ConnectionLifted).await;
            let _ = self.registry.set_poke_after(&sync.sync_id, Some(self.clock.now().plus_millis(1))).await;
        }
    }

    pub(in crate::api) async fn delete_connection(&self, id: &str, if_match: &IfMatch) -> Answered {
        let row = self.find_connection_row(id).await?;
        let record = match row.read() {
            Ok(record) => record,
            Err(_) => return self.remove_unreadable(&row).await,
        };
        if_match.check(&etag(&record))?;
        if !record.archived {
            self.refuse_in_use(&row).await?;
        }
        let record = self
            .change(record, &|record| {
                archive(record);
                Ok(())
            })
            .await?;
        let mut message = format!("The connection {:?} is archived, and its application key is erased.", record.name);
        let of = SyncsOf::Connection { connection_id: row.connection_id.clone() };
        let paused = self.registry.syncs(&SyncQuery { of, is_active: None, section: Section::first(1) }).await?.total;
        if paused > 0 {
            let syncs =
                if paused == 1 { "A paused sync uses".to_owned() } else { format!("{paused} paused syncs use") };
            message += &format!(
                " {syncs} it, and can no longer be resumed: delete it, or create it with another \
                connection."
            );
        }
        Ok(render_deleted(&row, &message))
    }

    /// A record that cannot be read cannot be archived either.
    async fn remove_unreadable(&self, row: &ConnectionRow) -> Answered {
        self.refuse_in_use(row).await?;
        self.registry.delete_connection(&row.connection_id).await?;
        let message = format!("The connection {:?}, which could not be read, and its key were removed.", row.name);
        Ok(render_deleted(row, &message))
    }

    /// The syncs of a connection that their user has not paused: the first `limit`, and how many there are.
    async fn active_syncs(&self, connection_id: &str, limit: u64) -> Result<Rows<SyncRow>, Error> {
        let of = SyncsOf::Connection { connection_id: connection_id.to_owned() };
        self.registry.syncs(&SyncQuery { of, is_active: Some(true), section: Section::first(limit) }).await
    }

    async fn refuse_in_use(&self, row: &ConnectionRow) -> Result<(), ApiError> {
        let syncs = self.active_syncs(&row.connection_id, 1).await?;
        let Some(first) = syncs.rows.first() else { return Ok(()) };
        let more = match syncs.total.saturating_sub(1) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "The connection {:?} is in use by the sync {} of the bucket {:?}{more}.",
                row.name, first.sync_id, first.bucket_id
            ),
            "Delete or pause its syncs first.",
        )
        .into())
    }

    pub(in crate::api) async fn test_connection(&self, id: &str) -> Answered {
        let record = self.find_connection(id).await?;
        refuse_archived(&record)?;
        let tested = match record.credentials(self.master_keys) {
            Ok(credentials) => {
                let account = self.client().authorize(self.b2_api_url, &credentials).await;
                account.and_then(|account| account.check_not_master(&credentials).map(|()| account))
            }
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
            Ok(account) => render_tested(account),
            Err(error) => render_failed(error),
        })
    }
}

fn archive(record: &mut ConnectionRecord) {
    record.archived = true;
    record.status = ConnectionStatus::Archived;
    record.is_active = false;
    record.application_key = None;
    record.account = None;
}

fn refuse_archived(record: &ConnectionRecord) -> Result<(), ApiError> {
    if record.archived { Err(refusals::archived(&record.name).into()) } else { Ok(()) }
}

/// Differs where what a user sets differs, or the status; jobs that use the connection do not change it.
fn etag(record: &ConnectionRecord) -> String {
    let ConnectionRecord { connection_id, name, description, metadata, key_id, application_key, .. } = record;
    let credentials = (key_id, application_key);
    preconditions::etag(&(connection_id, name, description, metadata, credentials, record.write_enabled, record.status))
}

/// A connection, as the client reads it.
pub(in crate::api) fn render(record: &ConnectionRecord) -> Value {
    json!({
        "connection_id": record.connection_id,
        "internal_id": record.internal_id,
        "name": record.name,
        "etag": etag(record),
        "provider_type": record.provider_type,
        "provider_config": {"provider_type": record.provider_type, "credentials": {"type": "application_key"}},
        "write_enabled": record.write_enabled,
        "description": record.description,
        "status": record.status.as_str(),
        "is_active": record.is_active,
        "last_used_at": render::time(record.last_used_at),
        "last_error": record.last_error.as_deref().map(render::error),
        "consecutive_failures": render::integer(record.consecutive_failures),
        "created_at": render::time(record.created_at),
        "updated_at": render::time(record.updated_at),
        "created_by_user_id": record.created_by,
        "metadata": record.metadata,
    })
}

/// A connection whose record cannot be read: what is known of it, and why. It is of no use until it is removed, or
/// until a b2sync is deployed that can read it.
fn render_unreadable(row: &ConnectionRow, error: &Error) -> Value {
    json!({
        "connection_id": row.connection_id,
        "internal_id": ORGANISATION_ID,
        "name": row.name,
        "etag": null,
        "provider_type": PROVIDER,
        "provider_config": {"provider_type": PROVIDER, "credentials": {"type": "application_key"}},
        "write_enabled": false,
        "description": null,
        "status": UNREADABLE,
        "is_active": false,
        "last_used_at": null,
        "last_error": render::error(&error.to_string()),
        "consecutive_failures": 0,
        "created_at": render::time(row.created_at),
        "updated_at": render::time(row.created_at),
        "created_by_user_id": USER_ID,
        "metadata": {},
    })
}

/// The client reads strings only.
fn render_deleted(row: &ConnectionRow, message: &str) -> Value {
    json!({
        "connection_id": row.connection_id,
        "status": ConnectionStatus::Archived.as_str(),
        "message": message,
    })
}

/// When a connection was created, and its id.
fn created(row: &ConnectionRow) -> (Timestamp, &str) {
    (row.created_at, &row.connection_id)
}

/// The answer to a test that B2 answered with an account.
pub(in crate::api) fn render_tested(account: &Account) -> Value {
    let missing: Vec<&str> =
        CAPABILITIES_NEEDED.into_iter().filter(|needed| !account.capabilities.contains(*needed)).collect();
    let message = if missing.is_empty() {
        "Connection test succeeded: Backblaze B2 accepts the application key.".to_owned()
    } else {
        let what = if missing.len() == 1 { "capability" } else { "capabilities" };
        format!(
            "Backblaze B2 accepts the application key, but it lacks the {what} {}. Create a new key with List \
             Files and Read Files enabled for the target bucket, and update the connection with it.",
            missing.join(" and ")
        )
    };
    json!({
        "success": missing.is_empty(),
        "message": message,
        "details": {
            "s3_endpoint": account.s3_endpoint,
            "region": account.region,
            "capabilities": account.capabilities,
            "missing_capabilities": missing,
            "buckets": account.buckets,
            "name_prefix": account.name_prefix,
            "key_expires_at": render::time(account.key_expires_at),
        },
    })
}

/// The answer to a test that failed.
pub(in crate::api) fn render_failed(error: &Error) -> Value {
    json!({
        "success": false,
        "message": error.to_string(),
        "details": {"code": error.kind().as_str(), "retryable": error.is_transient()},
    })
}
