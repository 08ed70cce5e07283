//! The records of connections and syncs, as they are stored.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    cron::CronSchedule,
    seal::{MasterKeys, Sealed},
    sinks::SinkSpec,
};
use b2sync_core::{
    b2::{
        account::{Credentials, StoredAccount},
        pace::Pace,
    },
    error::{Error, ErrorKind},
    filter::FilterSpec,
    policy::{DeletionLimit, Reconcile},
    secret::ExposeSecret,
    source_path::SourcePath,
    time::Timestamp,
    warning::Warning,
};

/// The version of both stored records. A reader refuses a higher one.
pub const RECORD_VERSION: u32 = 1;
/// The most connections an organisation has; archived ones do not count.
pub const CONNECTIONS_MAX: usize = 1_000;
/// Failures in a row that suspend a connection.
pub const CONNECTION_FAILURES_MAX: u64 = 5;
/// The longest `last_error`, in characters.
const LAST_ERROR_CHARS_MAX: usize = 1_000;
/// The most syncs one bucket has.
pub const SYNCS_PER_BUCKET_MAX: usize = 1_000;
/// The most syncs that a list asks how they stand.
pub const SYNCS_ASKED_MAX: usize = 1_000;

/// How a connection stands. `SCREAMING_SNAKE_CASE` when stored and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, strum::IntoStaticStr)]
#[strum(serialize_all = "UPPERCASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConnectionStatus {
    /// Ready for use.
    Active,
    /// Switched off, by its user or after too many failures in a row.
    Suspended,
    /// Its credentials failed.
    Failed,
    /// Deleted. Final.
    Archived,
}

impl ConnectionStatus {
    /// `ACTIVE`, as stored and on the wire.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A connection. Stored: fields are only ever added, each with a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRecord {
    /// [`RECORD_VERSION`].
    pub v: u32,
    /// `conn_…`
    pub connection_id: String,
    /// The organisation.
    pub internal_id: String,
    /// Unique among the connections that are not archived.
    pub name: String,
    /// In the user's words.
    #[serde(default)]
    pub description: Option<String>,
    /// The user's own.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// `backblaze`
    pub provider_type: String,
    /// The id of the application key. Not a secret, and never shown all the same.
    pub key_id: String,
    /// The application key, bound to [`Self::connection_id`]; `None` once archived.
    #[serde(default)]
    pub application_key: Option<Sealed>,
    /// What B2 said about the key when it was last authorized.
    #[serde(default)]
    pub account: Option<StoredAccount>,
    /// When that was.
    #[serde(default)]
    pub authorized_at: Option<Timestamp>,
    /// The distance that its list calls have to keep, where B2 has refused some as too many.
    #[serde(default)]
    pub pace: Option<Pace>,
    /// How it stands.
    pub status: ConnectionStatus,
    /// False: switched off.
    pub is_active: bool,
    /// Kept and echoed: b2sync itself never writes to B2.
    #[serde(default)]
    pub write_enabled: bool,
    /// When a job or a test last used it with success.
    #[serde(default)]
    pub last_used_at: Option<Timestamp>,
    /// Why the latest use failed.
    #[serde(default)]
    pub last_error: Option<String>,
    /// Uses that failed since the last that worked.
    #[serde(default)]
    pub consecutive_failures: u64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last written.
    pub updated_at: Timestamp,
    /// Counts its writes, from 1; set by the registry.
    #[serde(default)]
    pub revision: u64,
    /// Deleted. Final.
    #[serde(default)]
    pub archived: bool,
    /// Who created it.
    #[serde(default)]
    pub created_by: String,
}

impl ConnectionRecord {
    /// The credentials, opened.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where the application key is erased; [`ErrorKind::Sealing`].
    pub fn credentials(&self, master_keys: &MasterKeys) -> Result<Credentials, Error> {
        let sealed = self.application_key.as_ref().ok_or_else(|| {
            let message = format!("The connection {:?} no longer has an application key.", self.name);
            Error::new(ErrorKind::Conflict, message, "Create a new connection.")
        })?;
        let application_key = master_keys.open(sealed, &self.connection_id)?;
        Credentials::new(&self.key_id, application_key.expose_secret())
    }

    /// Whether jobs and new syncs may use it. A suspended one is left alone until its user acts, so that a key that was
    /// refused again and again does not lock the account; testing and changing it are always possible.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`], which says how to lift it.
    pub fn check_usable(&self) -> Result<(), Error> {
        if self.archived {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("The connection {:?} was deleted.", self.name),
                "That is final: create a new connection, and a sync with it.",
            ));
        }
        if self.is_active && self.status != ConnectionStatus::Suspended {
            return Ok(());
        }
        if self.is_suspended_by_failures() {
            let why = self.last_error.as_deref().map(|error| format!(" (the last time: {error})")).unwrap_or_default();
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "The connection {:?} is SUSPENDED: it failed {} times in a row{why}.",
                    self.name, self.consecutive_failures
                ),
                "PATCH it with an application key that works, or test it (POST …/test) once the key works again: \
                 either lifts the suspension. Jobs do not ask B2 until then.",
            ));
        }
        Err(Error::new(
            ErrorKind::Conflict,
            format!("The connection {:?} is switched off ({}).", self.name, self.status.as_str()),
            "Switch it on again: PATCH it with {\"is_active\": true}.",
        ))
    }

    /// Whether b2sync suspended it, and not its user, whose [`ConnectionStatus::Suspended`] counts no failures.
    pub fn is_suspended_by_failures(&self) -> bool {
        self.status == ConnectionStatus::Suspended && self.consecutive_failures >= CONNECTION_FAILURES_MAX
    }

    /// Notes a use that failed and was the connection's fault. The fifth in a row suspends it; a master key that is
    /// missing does not count, since the operator must mend that and B2 is not asked. One that is switched off
    /// counts nothing.
    pub fn note_failure(&mut self, error: &Error) {
        self.last_error = Some(error.to_string().chars().take(LAST_ERROR_CHARS_MAX).collect());
        if !self.is_active {
            return;
        }
        self.consecutive_failures += u64::from(error.kind() != ErrorKind::Sealing);
        self.status = ConnectionStatus::Failed;
        if self.consecutive_failures >= CONNECTION_FAILURES_MAX {
            self.status = ConnectionStatus::Suspended;
            self.is_active = false;
        }
    }

    /// Notes a use that worked. It lifts a suspension by failures, but not one by the user.
    pub fn note_success(&mut self, now: Timestamp) {
        if self.is_active || self.is_suspended_by_failures() {
            self.status = ConnectionStatus::Active;
            self.is_active = true;
        }
        self.consecutive_failures = 0;
        self.last_error = None;
        self.last_used_at = Some(now);
    }
}

/// How long a sync goes on, as its user asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum SyncMode {
    /// Polls for ever.
    #[default]
    Continuous,
    /// One complete run, then done.
    OneTime,
    /// Runs at a fixed interval; to b2sync the same as [`Self::Continuous`].
    Scheduled,
}

impl SyncMode {
    /// `one_time`, as stored and as the integration's documentation writes it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Fields that concern the processing that follows a sync: kept as they came, and echoed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Echoed {
    /// As it came.
    pub skip_batch_submission: bool,
    /// As it came.
    pub batch_collection_ids: Option<Vec<String>>,
    /// As it came.
    pub ingest_filter: Option<Value>,
    /// As it came.
    pub provider_filters: Option<Value>,
    /// As it came.
    pub schema_mapping: Option<Value>,
    /// Only files modified after this: part of [`SyncRecord::effective_filters`].
    pub sync_from: Option<Timestamp>,
    /// Parts of `reconcile` that b2sync does not act on.
    pub reconcile: Map<String, Value>,
}

/// 32 hexadecimal digits that decide where a sync's segments begin. A user who knows them can choose names that never
/// begin one, so nothing shows them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Salt(String);

impl Salt {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Salt {
    fn from(digits: String) -> Self {
        Self(digits)
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt")
    }
}

/// A sync. Stored: fields are only ever added, each with a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncRecord {
    /// [`RECORD_VERSION`].
    pub v: u32,
    /// `sync_…`
    pub sync_id: String,
    /// The organisation.
    pub internal_id: String,
    /// The namespace that the target bucket belongs to.
    pub namespace_id: String,
    /// The target bucket.
    pub bucket_id: String,
    /// What it reads through.
    pub connection_id: String,
    /// What it reads.
    #[serde(with = "source_text")]
    pub source: SourcePath,
    /// How long it goes on.
    #[serde(default)]
    pub mode: SyncMode,
    /// Which files it takes, as asked; what it acts on is [`Self::effective_filters`].
    #[serde(default, with = "StoredFilters")]
    pub filters: FilterSpec,
    /// Seconds between polls, unless they come at [`Self::cron`].
    pub polling_interval_s: u32,
    /// The times at which it polls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<CronSchedule>,
    /// For the processing that follows: kept, and returned unchanged.
    pub batch_size: u32,
    /// What to do about changed sources.
    #[serde(default)]
    pub reconcile: Reconcile,
    /// How many deletions enter the feed without confirmation.
    #[serde(default)]
    pub deletion_limit: DeletionLimit,
    /// Where its changes go; empty: nowhere, the sync is a feed and nothing else.
    #[serde(default = "usual_sinks")]
    pub sinks: Vec<SinkSpec>,
    /// How many hours the feed keeps a change at least.
    #[serde(default = "usual_retention")]
    pub feed_retention_hours: u32,
    /// Whether a job may hand over every file again only where this is false.
    #[serde(default = "yes")]
    pub skip_duplicates: bool,
    /// The most created and updated files that one job takes; `None`: no limit.
    #[serde(default)]
    pub max_objects_per_run: Option<u64>,
    /// How many class C calls a day polls may come to: they are spaced so far apart. `None`: no such limit.
    #[serde(default)]
    pub max_class_c_per_day: Option<u64>,
    /// How many ranges of the bucket are listed at the same time; `None`: by its size.
    #[serde(default)]
    pub sync_concurrency: Option<u32>,
    /// In the user's words.
    #[serde(default)]
    pub description: Option<String>,
    /// The user's own.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// What its creation found below the source path and the user should know.
    #[serde(default)]
    pub first_look: Vec<Warning>,
    /// For the processing that follows.
    #[serde(default)]
    pub echoed: Echoed,
    /// The key of its segment hash. Never changed.
    pub salt: Salt,
    /// False: its user paused it.
    pub is_active: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last written.
    pub updated_at: Timestamp,
    /// Counts its writes, from 1; set by the registry.
    #[serde(default)]
    pub revision: u64,
    /// Who created it.
    #[serde(default)]
    pub created_by: String,
}

/// What a new sync must say; see [`SyncRecord::new`].
#[derive(Clone, Debug)]
pub struct NewSync {
    /// `sync_…`
    pub sync_id: String,
    /// The organisation.
    pub internal_id: String,
    /// The namespace that the target bucket belongs to.
    pub namespace_id: String,
    /// The target bucket.
    pub bucket_id: String,
    /// What it reads through.
    pub connection_id: String,
    /// What it reads.
    pub source: SourcePath,
    /// How long it goes on.
    pub mode: SyncMode,
    /// The key of its segment hash.
    pub salt: Salt,
    /// Who creates it.
    pub created_by: String,
}

impl SyncRecord {
    /// A sync that is created at `now`, active, and with the default of everything that its user may set. The registry
    /// gives it its revision.
    pub fn new(new: NewSync, now: Timestamp) -> Self {
        let NewSync { sync_id, internal_id, namespace_id, bucket_id, connection_id, source, mode, salt, created_by } =
            new;
        Self {
            v: RECORD_VERSION,
            sync_id,
            internal_id,
            namespace_id,
            bucket_id,
            connection_id,
            source,
            mode,
            filters: FilterSpec::default(),
            polling_interval_s: POLLING_INTERVAL_S,
            cron: None,
            batch_size: BATCH_SIZE,
            reconcile: Reconcile::default(),
            deletion_limit: DeletionLimit::default(),
            sinks: usual_sinks(),
            feed_retention_hours: FEED_RETENTION_HOURS,
            skip_duplicates: true,
            max_objects_per_run: None,
            max_class_c_per_day: None,
            sync_concurrency: None,
            description: None,
            metadata: Map::new(),
            first_look: Vec::new(),
            echoed: Echoed::default(),
            salt,
            is_active: true,
            created_at: now,
            updated_at: now,
            revision: 0,
            created_by,
        }
    }

    /// Seconds from one poll to the next, as its user has set it; where polls come at times of the day, in the mean.
    pub fn interval_s(&self) -> u64 {
        self.cron.as_ref().map_or(u64::from(self.polling_interval_s), |cron| cron.interval_s)
    }

    /// The filters that decide: [`Self::filters`], and nothing modified at or before [`Echoed::sync_from`].
    pub fn effective_filters(&self) -> FilterSpec {
        FilterSpec { modified_after: self.filters.modified_after.max(self.echoed.sync_from), ..self.filters.clone() }
    }
}

const fn yes() -> bool {
    true
}

/// The sinks of a sync that does not say which.
pub fn usual_sinks() -> Vec<SinkSpec> {
    vec![SinkSpec::catalogue()]
}

/// The default of [`SyncRecord::feed_retention_hours`]: a week.
pub const FEED_RETENTION_HOURS: u32 = 168;
/// Seconds between polls of a sync that does not say how many.
pub const POLLING_INTERVAL_S: u32 = 300;
/// The `batch_size` of a sync that does not say which.
pub const BATCH_SIZE: u32 = 50;
/// The least [`SyncRecord::feed_retention_hours`].
pub const FEED_RETENTION_HOURS_MIN: u32 = 1;
/// The largest [`SyncRecord::feed_retention_hours`]: 30 days.
pub const FEED_RETENTION_HOURS_MAX: u32 = 720;

const fn usual_retention() -> u32 {
    FEED_RETENTION_HOURS
}

/// [`FilterSpec`] as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(remote = "FilterSpec")]
struct StoredFilters {
    #[serde(default)]
    include_patterns: Vec<String>,
    #[serde(default)]
    exclude_patterns: Vec<String>,
    #[serde(default)]
    extensions: Vec<String>,
    #[serde(default)]
    min_size_bytes: Option<u64>,
    #[serde(default)]
    max_size_bytes: Option<u64>,
    #[serde(default)]
    modified_after: Option<Timestamp>,
    #[serde(default)]
    modified_before: Option<Timestamp>,
    #[serde(default)]
    mime_types: Vec<String>,
    #[serde(default)]
    include_folder_markers: bool,
}

/// [`SourcePath`] as it is stored: its text.
mod source_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use b2sync_core::source_path::SourcePath;

    pub(super) fn serialize<S: Serializer>(source: &SourcePath, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(source)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SourcePath, D::Error> {
        SourcePath::parse(&String::deserialize(deserializer)?).map_err(|error| D::Error::custom(error.message()))
    }
}

/// A record of the registry: how homes store it.
pub trait Record: Serialize + DeserializeOwned {
    /// What it is, in an error.
    const WHAT: &'static str;

    /// The version it was written in.
    fn version(&self) -> u32;

    /// As JSON, to store.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`]; never happens.
    fn to_stored(&self) -> Result<String, Error> {
        serde_json::to_string(self)
            .map_err(|error| Error::internal(format!("A {} cannot be written as JSON: {error}.", Self::WHAT)))
    }

    /// From what was stored.
    ///
    /// # Errors
    /// [`ErrorKind::StateCorrupt`] for what does not decode, and for a version above [`RECORD_VERSION`].
    fn from_stored(text: &str) -> Result<Self, Error> {
        let record: Self = serde_json::from_str(text).map_err(|error| {
            Error::new(
                ErrorKind::StateCorrupt,
                format!("A stored {} does not decode: {error}.", Self::WHAT),
                "Restore it from a backup, or delete it and create it again.",
            )
        })?;
        if record.version() > RECORD_VERSION {
            return Err(Error::new(
                ErrorKind::StateCorrupt,
                format!("A stored {} has version {}; this code knows {RECORD_VERSION}.", Self::WHAT, record.version()),
                "Deploy the newer b2sync again.",
            ));
        }
        Ok(record)
    }
}

impl Record for ConnectionRecord {
    const WHAT: &'static str = "connection";

    fn version(&self) -> u32 {
        self.v
    }
}

impl Record for SyncRecord {
    const WHAT: &'static str = "sync";

    fn version(&self) -> u32 {
        self.v
    }
}
