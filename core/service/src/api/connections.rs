//! Connections: what requests say, and what answers show. Answers show no key id and no key.

use serde_json::{Map, Value, json};

use super::{
    body::{Fields, Given, parse_object},
    errors::{ApiError, Problem, problem_of},
    filters::ListFilter,
    pagination::check_problems,
    render,
};
use crate::registry::{ConnectionRecord, ConnectionStatus};
use b2sync_core::{
    b2::account::{Account, Credentials},
    error::Error,
    secret::{ExposeSecret, SecretString},
};

/// The only provider of this service.
pub(super) const PROVIDER: &str = "backblaze";
/// The longest name, in characters.
const NAME_CHARS_MAX: usize = 100;
/// The longest description, in characters.
pub(super) const DESCRIPTION_CHARS_MAX: usize = 500;

/// What a key must be allowed for any sync to work.
const CAPABILITIES_NEEDED: [&str; 2] = ["listFiles", "readFiles"];

/// A connection to create.
pub(super) struct NewConnection {
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) metadata: Map<String, Value>,
    pub(super) credentials: Credentials,
    pub(super) write_enabled: bool,
    pub(super) test_before_save: bool,
}

/// Reads the body of a create.
pub(super) fn parse_create(body: &[u8]) -> Result<NewConnection, ApiError> {
    let mut problems = Vec::new();
    let mut fields = Fields::of_body(parse_object(body)?, &mut problems);
    let name = read_name(&mut fields);
    if name.is_none() && !fields.reported("name") {
        fields.missing("name", "what to call the connection, 1 to 100 characters");
    }
    if fields.choice("provider_type", &[(PROVIDER, ())]).is_none() && !fields.reported("provider_type") {
        fields.missing("provider_type", "it must be \"backblaze\"");
    }
    let credentials = read_provider_config(&mut fields, true);
    let description = fields.text("description", 0, DESCRIPTION_CHARS_MAX);
    let metadata = fields.free_object("metadata");
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
        metadata: metadata.unwrap_or_default(),
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
    for error in halves.into_iter().flatten().filter_map(Result::err) {
        credentials.report(problem_of(&error, error.field().unwrap_or("provider_config.credentials")));
    }
    credentials.done();
    config.done();
    (key_id, application_key)
}

/// What to change about a connection.
pub(super) struct ConnectionPatch {
    pub(super) name: Option<String>,
    description: Given<String>,
    metadata: Given<Map<String, Value>>,
    /// ACTIVE, SUSPENDED, FAILED or ARCHIVED.
    pub(super) status: Option<ConnectionStatus>,
    write_enabled: Option<bool>,
    pub(super) key_id: Option<String>,
    pub(super) application_key: Option<SecretString>,
}

impl ConnectionPatch {
    /// Whether the credentials change.
    pub(super) fn has_credentials(&self) -> bool {
        self.key_id.is_some() || self.application_key.is_some()
    }

    /// Changes everything but the credentials.
    pub(super) fn apply(&self, record: &mut ConnectionRecord) {
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
pub(super) fn parse_patch(body: &[u8]) -> Result<ConnectionPatch, ApiError> {
    let mut problems = Vec::new();
    let mut fields = Fields::of_body(parse_object(body)?, &mut problems);
    let name = read_name(&mut fields);
    let description = fields.text_or_null("description", 0, DESCRIPTION_CHARS_MAX);
    let metadata = fields.free_object_or_null("metadata");
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

/// Reads the body of a list: of which provider, and how they stand. Problems go with those of the query.
pub(super) fn parse_list(body: &[u8], problems: &mut Vec<Problem>) -> Result<ListFilter, ApiError> {
    ListFilter::parse(body, "provider_type", problems)
}

/// Whether a connection matches. Archived ones are listed only to those who ask for them.
pub(super) fn matches(filter: &ListFilter, record: &ConnectionRecord) -> bool {
    let shown = !record.archived || filter.names_status();
    shown && filter.belongs_to(&record.provider_type) && filter.stands_as(record.status.as_str(), record.is_active)
}

/// A connection, as the client reads it.
pub(super) fn render(record: &ConnectionRecord) -> Value {
    json!({
        "connection_id": record.connection_id,
        "internal_id": record.internal_id,
        "provider_type": record.provider_type,
        "provider_config": {"provider_type": record.provider_type, "credentials": {"type": "application_key"}},
        "write_enabled": record.write_enabled,
        "name": record.name,
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

/// The answer to a test that B2 answered with an account.
pub(super) fn render_tested(account: &Account) -> Value {
    let missing: Vec<&str> =
        CAPABILITIES_NEEDED.into_iter().filter(|needed| !account.capabilities.contains(*needed)).collect();
    let message = if missing.is_empty() {
        "Connection test succeeded: Backblaze B2 accepts the application key.".to_owned()
    } else {
        format!(
            "Backblaze B2 accepts the application key, but it lacks the capability {}. Create a new key with List \
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
pub(super) fn render_failed(error: &Error) -> Value {
    json!({
        "success": false,
        "message": error.to_string(),
        "details": {"code": error.kind().as_str(), "retryable": error.is_transient()},
    })
}
