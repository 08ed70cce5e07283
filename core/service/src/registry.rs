//! The registry: connections and syncs, as their users configured them.
//!
//! It decides nothing but what only one place can decide: that a name is free, that a record is still the one that was
//! read, and which syncs are due. It is strongly consistent: a read sees every write acknowledged before it. On Workers
//! it is one Durable Object, called through [`RegistryCall`]; [`apply`] makes any [`Registry`] answer such calls and
//! [`RemoteRegistry`] is the other end.
//!
//! **Invariants.** A record's revision counts its writes from 1 and every update names the revision it read. Of the
//! connections that are not archived, no two have the same name. A new sync is due at once, so that the cron finds it
//! even if whoever created it was cut off. The application key is only ever here sealed.

use std::{cell::RefCell, collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{seal::Sealed, sinks::SinkSpec};
use b2sync_core::{
    b2::account::StoredAccount,
    error::{Error, ErrorKind},
    error_wire::ErrorWire,
    filter::FilterSpec,
    policy::{DeletionLimit, Reconcile},
    source_path::SourcePath,
    time::Timestamp,
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

/// How a connection stands. `SCREAMING_SNAKE_CASE` when stored and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Suspended => "SUSPENDED",
            Self::Failed => "FAILED",
            Self::Archived => "ARCHIVED",
        }
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
    /// Whether jobs and new syncs may use it. A suspended one is left alone until somebody acts, so that a key that was
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
    /// missing does not count, since whoever deploys must mend that and B2 is not asked. One that is switched off
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Continuous => "continuous",
            Self::OneTime => "one_time",
            Self::Scheduled => "scheduled",
        }
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

/// 32 hexadecimal digits that decide where a sync's segments begin. Whoever knows them can choose names that never
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
    /// Seconds between polls.
    pub polling_interval_s: u32,
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

impl SyncRecord {
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

/// Which syncs to list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncQuery {
    /// Those of a bucket.
    Bucket {
        /// The namespace that the bucket belongs to.
        namespace_id: String,
        /// The bucket.
        bucket_id: String,
    },
    /// Those that read through a connection, in all namespaces.
    Connection {
        /// The connection.
        connection_id: String,
    },
}

/// Keeps connections and syncs. Implemented by each home; [`crate::conformance::registry`] says what it must do.
///
/// # Errors
/// Besides what each method names: [`ErrorKind::Storage`], and [`ErrorKind::StateCorrupt`] for a record that does not
/// decode.
pub trait Registry {
    /// Stores a new connection and returns it, its revision now 1.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`], field `name`, when another connection that is not archived has the name, or the id is
    /// taken.
    async fn insert_connection(&self, record: ConnectionRecord) -> Result<ConnectionRecord, Error>;

    /// The connection with that id, or else the one with that name that is not archived.
    async fn connection(&self, id_or_name: &str) -> Result<Option<ConnectionRecord>, Error>;

    /// Replaces a connection whose revision is still `expected` and returns it with its new revision.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::StateConflict`] when it has another revision; [`ErrorKind::Conflict`],
    /// field `name`, when the name is taken.
    async fn update_connection(&self, record: ConnectionRecord, expected: u64) -> Result<ConnectionRecord, Error>;

    /// All connections, archived ones too, newest first (by `created_at`, then by id).
    async fn connections(&self) -> Result<Vec<ConnectionRecord>, Error>;

    /// Stores a new sync and returns it, its revision now 1. It is due at its `created_at`.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the id is taken.
    async fn insert_sync(&self, record: SyncRecord) -> Result<SyncRecord, Error>;

    /// One sync.
    async fn sync(&self, sync_id: &str) -> Result<Option<SyncRecord>, Error>;

    /// Replaces a sync whose revision is still `expected` and returns it with its new revision.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::StateConflict`] when it has another revision.
    async fn update_sync(&self, record: SyncRecord, expected: u64) -> Result<SyncRecord, Error>;

    /// Removes a sync; says whether there was one.
    async fn delete_sync(&self, sync_id: &str) -> Result<bool, Error>;

    /// Syncs, newest first (by `created_at`, then by id).
    async fn syncs(&self, query: &SyncQuery) -> Result<Vec<SyncRecord>, Error>;

    /// At most `limit` syncs to poke at `at`, longest overdue first.
    async fn due(&self, at: Timestamp, limit: usize) -> Result<Vec<DueSync>, Error>;

    /// Makes a sync that was due, and was poked, due next at that time, or never; unless [`Self::set_poke_after`] has
    /// said otherwise meanwhile, or it is gone.
    async fn poked(&self, due: &DueSync, next: Option<Timestamp>) -> Result<(), Error>;

    /// Makes a sync due at that time, or never. Does not count as a write of its record.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    async fn set_poke_after(&self, sync_id: &str, at: Option<Timestamp>) -> Result<(), Error>;
}

/// A sync that is to be poked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DueSync {
    /// Since when.
    pub since: Timestamp,
    /// `sync_…`
    pub sync_id: String,
}

/// The errors that every home's registry answers, in the same words.
pub mod refusals {
    use super::*;

    /// A name that another connection has.
    pub fn name_taken(name: &str) -> Error {
        Error::new(
            ErrorKind::Conflict,
            format!("A connection named {name:?} exists already."),
            "Choose another name, or change the existing connection with PATCH.",
        )
        .with_field("name")
    }

    /// An id that exists.
    pub fn id_taken(id: &str) -> Error {
        Error::new(ErrorKind::Conflict, format!("{id} exists already."), "Try again: another id will be drawn.")
    }

    /// Nothing to update.
    pub fn missing(id: &str) -> Error {
        Error::new(ErrorKind::NotFound, format!("{id} does not exist."), "It may have been deleted.")
    }

    /// Another writer came first.
    pub fn moved(id: &str) -> Error {
        Error::new(
            ErrorKind::StateConflict,
            format!("{id} was modified concurrently."),
            "Nothing was written. Try again.",
        )
        .with_retry(b2sync_core::Retry::Temporary)
    }
}

/// One call to a registry, as it crosses to a Durable Object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistryCall {
    /// [`Registry::insert_connection`]
    InsertConnection {
        /// The new one.
        record: Box<ConnectionRecord>,
    },
    /// [`Registry::connection`]
    Connection {
        /// Either.
        id_or_name: String,
    },
    /// [`Registry::update_connection`]
    UpdateConnection {
        /// What it becomes.
        record: Box<ConnectionRecord>,
        /// The revision that was read.
        expected: u64,
    },
    /// [`Registry::connections`]
    Connections,
    /// [`Registry::insert_sync`]
    InsertSync {
        /// The new one.
        record: Box<SyncRecord>,
    },
    /// [`Registry::sync`]
    Sync {
        /// `sync_…`
        sync_id: String,
    },
    /// [`Registry::update_sync`]
    UpdateSync {
        /// What it becomes.
        record: Box<SyncRecord>,
        /// The revision that was read.
        expected: u64,
    },
    /// [`Registry::delete_sync`]
    DeleteSync {
        /// `sync_…`
        sync_id: String,
    },
    /// [`Registry::syncs`]
    Syncs {
        /// Which.
        query: SyncQuery,
    },
    /// [`Registry::due`]
    Due {
        /// The cron's time.
        at: Timestamp,
        /// The most to answer.
        limit: usize,
    },
    /// [`Registry::poked`]
    Poked {
        /// What was poked.
        due: DueSync,
        /// `None`: never again.
        next: Option<Timestamp>,
    },
    /// [`Registry::set_poke_after`]
    SetPokeAfter {
        /// `sync_…`
        sync_id: String,
        /// `None`: never.
        at: Option<Timestamp>,
    },
}

/// A registry's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistryAnswer {
    /// A connection, or none.
    Connection(Option<Box<ConnectionRecord>>),
    /// Connections.
    Connections(Vec<ConnectionRecord>),
    /// A sync, or none.
    Sync(Option<Box<SyncRecord>>),
    /// Syncs.
    Syncs(Vec<SyncRecord>),
    /// Syncs to poke.
    Due(Vec<DueSync>),
    /// Whether there was a sync to delete.
    Deleted(bool),
    /// It is done.
    Done,
}

/// Answers a call from any registry.
///
/// # Errors
/// Those of the method called.
pub async fn apply(registry: &impl Registry, call: RegistryCall) -> Result<RegistryAnswer, Error> {
    Ok(match call {
        RegistryCall::InsertConnection { record } => {
            RegistryAnswer::Connection(Some(Box::new(registry.insert_connection(*record).await?)))
        }
        RegistryCall::Connection { id_or_name } => {
            RegistryAnswer::Connection(registry.connection(&id_or_name).await?.map(Box::new))
        }
        RegistryCall::UpdateConnection { record, expected } => {
            RegistryAnswer::Connection(Some(Box::new(registry.update_connection(*record, expected).await?)))
        }
        RegistryCall::Connections => RegistryAnswer::Connections(registry.connections().await?),
        RegistryCall::InsertSync { record } => {
            RegistryAnswer::Sync(Some(Box::new(registry.insert_sync(*record).await?)))
        }
        RegistryCall::Sync { sync_id } => RegistryAnswer::Sync(registry.sync(&sync_id).await?.map(Box::new)),
        RegistryCall::UpdateSync { record, expected } => {
            RegistryAnswer::Sync(Some(Box::new(registry.update_sync(*record, expected).await?)))
        }
        RegistryCall::DeleteSync { sync_id } => RegistryAnswer::Deleted(registry.delete_sync(&sync_id).await?),
        RegistryCall::Syncs { query } => RegistryAnswer::Syncs(registry.syncs(&query).await?),
        RegistryCall::Due { at, limit } => RegistryAnswer::Due(registry.due(at, limit).await?),
        RegistryCall::Poked { due, next } => {
            registry.poked(&due, next).await?;
            RegistryAnswer::Done
        }
        RegistryCall::SetPokeAfter { sync_id, at } => {
            registry.set_poke_after(&sync_id, at).await?;
            RegistryAnswer::Done
        }
    })
}

/// Answers a call that came as JSON, as JSON: all that a Durable Object has to do.
pub async fn apply_json(registry: &impl Registry, call: &str) -> String {
    let answer: Result<RegistryAnswer, ErrorWire> = match serde_json::from_str(call) {
        Ok(call) => apply(registry, call).await.map_err(ErrorWire::from),
        Err(error) => Err(Error::internal(format!("A call to the registry does not decode: {error}.")).into()),
    };
    serde_json::to_string(&answer).unwrap_or_else(|_| String::new())
}

/// Reads what [`apply_json`] answered.
///
/// # Errors
/// That of the call; [`ErrorKind::Storage`] for what is no answer.
pub fn parse_answer(answer: &str) -> Result<RegistryAnswer, Error> {
    match serde_json::from_str::<Result<RegistryAnswer, ErrorWire>>(answer) {
        Ok(answer) => answer.map_err(Error::from),
        Err(error) => Err(Error::new(
            ErrorKind::Storage,
            format!("The registry's answer does not decode: {error}."),
            "Try again in a moment.",
        )
        .with_retry(b2sync_core::Retry::Temporary)),
    }
}

/// A [`Registry`] at the other end of a channel of [`RegistryCall`]s.
#[derive(Clone, Debug)]
pub struct RemoteRegistry<F>(pub F);

impl<F: AsyncFn(RegistryCall) -> Result<RegistryAnswer, Error>> RemoteRegistry<F> {
    async fn one_connection(&self, call: RegistryCall) -> Result<Option<ConnectionRecord>, Error> {
        match self.0(call).await? {
            RegistryAnswer::Connection(record) => Ok(record.map(|record| *record)),
            other => Err(unexpected(&other)),
        }
    }

    async fn one_sync(&self, call: RegistryCall) -> Result<Option<SyncRecord>, Error> {
        match self.0(call).await? {
            RegistryAnswer::Sync(record) => Ok(record.map(|record| *record)),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(answer: &RegistryAnswer) -> Error {
    let name = match answer {
        RegistryAnswer::Connection(Some(_)) => "a connection",
        RegistryAnswer::Sync(Some(_)) => "a sync",
        RegistryAnswer::Connection(None) | RegistryAnswer::Sync(None) => "nothing",
        RegistryAnswer::Connections(_) => "connections",
        RegistryAnswer::Syncs(_) => "syncs",
        RegistryAnswer::Due(_) => "what is due",
        RegistryAnswer::Deleted(_) => "a deletion",
        RegistryAnswer::Done => "done",
    };
    Error::internal(format!("The registry sent an unexpected reply: {name}."))
}

impl<F: AsyncFn(RegistryCall) -> Result<RegistryAnswer, Error>> Registry for RemoteRegistry<F> {
    async fn insert_connection(&self, record: ConnectionRecord) -> Result<ConnectionRecord, Error> {
        self.one_connection(RegistryCall::InsertConnection { record: Box::new(record) })
            .await?
            .ok_or_else(|| unexpected(&RegistryAnswer::Connection(None)))
    }

    async fn connection(&self, id_or_name: &str) -> Result<Option<ConnectionRecord>, Error> {
        self.one_connection(RegistryCall::Connection { id_or_name: id_or_name.to_owned() }).await
    }

    async fn update_connection(&self, record: ConnectionRecord, expected: u64) -> Result<ConnectionRecord, Error> {
        self.one_connection(RegistryCall::UpdateConnection { record: Box::new(record), expected })
            .await?
            .ok_or_else(|| unexpected(&RegistryAnswer::Connection(None)))
    }

    async fn connections(&self) -> Result<Vec<ConnectionRecord>, Error> {
        match self.0(RegistryCall::Connections).await? {
            RegistryAnswer::Connections(records) => Ok(records),
            other => Err(unexpected(&other)),
        }
    }

    async fn insert_sync(&self, record: SyncRecord) -> Result<SyncRecord, Error> {
        self.one_sync(RegistryCall::InsertSync { record: Box::new(record) })
            .await?
            .ok_or_else(|| unexpected(&RegistryAnswer::Sync(None)))
    }

    async fn sync(&self, sync_id: &str) -> Result<Option<SyncRecord>, Error> {
        self.one_sync(RegistryCall::Sync { sync_id: sync_id.to_owned() }).await
    }

    async fn update_sync(&self, record: SyncRecord, expected: u64) -> Result<SyncRecord, Error> {
        self.one_sync(RegistryCall::UpdateSync { record: Box::new(record), expected })
            .await?
            .ok_or_else(|| unexpected(&RegistryAnswer::Sync(None)))
    }

    async fn delete_sync(&self, sync_id: &str) -> Result<bool, Error> {
        match self.0(RegistryCall::DeleteSync { sync_id: sync_id.to_owned() }).await? {
            RegistryAnswer::Deleted(deleted) => Ok(deleted),
            other => Err(unexpected(&other)),
        }
    }

    async fn syncs(&self, query: &SyncQuery) -> Result<Vec<SyncRecord>, Error> {
        match self.0(RegistryCall::Syncs { query: query.clone() }).await? {
            RegistryAnswer::Syncs(records) => Ok(records),
            other => Err(unexpected(&other)),
        }
    }

    async fn due(&self, at: Timestamp, limit: usize) -> Result<Vec<DueSync>, Error> {
        match self.0(RegistryCall::Due { at, limit }).await? {
            RegistryAnswer::Due(due) => Ok(due),
            other => Err(unexpected(&other)),
        }
    }

    async fn poked(&self, due: &DueSync, next: Option<Timestamp>) -> Result<(), Error> {
        match self.0(RegistryCall::Poked { due: due.clone(), next }).await? {
            RegistryAnswer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn set_poke_after(&self, sync_id: &str, at: Option<Timestamp>) -> Result<(), Error> {
        match self.0(RegistryCall::SetPokeAfter { sync_id: sync_id.to_owned(), at }).await? {
            RegistryAnswer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}

/// A registry in memory, for tests and for embedding.
#[derive(Debug, Default)]
pub struct MemoryRegistry(RefCell<Tables>);

#[derive(Debug, Default)]
struct Tables {
    connections: BTreeMap<String, ConnectionRecord>,
    syncs: BTreeMap<String, (SyncRecord, Option<Timestamp>)>,
}

impl Tables {
    fn check_name(&self, record: &ConnectionRecord) -> Result<(), Error> {
        let taken = |other: &ConnectionRecord| {
            !other.archived && other.name == record.name && other.connection_id != record.connection_id
        };
        if !record.archived && self.connections.values().any(taken) {
            return Err(refusals::name_taken(&record.name));
        }
        Ok(())
    }
}

impl MemoryRegistry {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Registry for MemoryRegistry {
    async fn insert_connection(&self, mut record: ConnectionRecord) -> Result<ConnectionRecord, Error> {
        let mut tables = self.0.borrow_mut();
        tables.check_name(&record)?;
        if tables.connections.contains_key(&record.connection_id) {
            return Err(refusals::id_taken(&record.connection_id));
        }
        record.revision = 1;
        tables.connections.insert(record.connection_id.clone(), record.clone());
        Ok(record)
    }

    async fn connection(&self, id_or_name: &str) -> Result<Option<ConnectionRecord>, Error> {
        let tables = self.0.borrow();
        let by_name = || tables.connections.values().find(|record| !record.archived && record.name == id_or_name);
        Ok(tables.connections.get(id_or_name).or_else(by_name).cloned())
    }

    async fn update_connection(&self, mut record: ConnectionRecord, expected: u64) -> Result<ConnectionRecord, Error> {
        let mut tables = self.0.borrow_mut();
        match tables.connections.get(&record.connection_id) {
            None => return Err(refusals::missing(&record.connection_id)),
            Some(now) if now.revision != expected => return Err(refusals::moved(&record.connection_id)),
            Some(_) => tables.check_name(&record)?,
        }
        record.revision = expected.saturating_add(1);
        tables.connections.insert(record.connection_id.clone(), record.clone());
        Ok(record)
    }

    async fn connections(&self) -> Result<Vec<ConnectionRecord>, Error> {
        let mut records: Vec<_> = self.0.borrow().connections.values().cloned().collect();
        records.sort_by(|a, b| (b.created_at, &b.connection_id).cmp(&(a.created_at, &a.connection_id)));
        Ok(records)
    }

    async fn insert_sync(&self, mut record: SyncRecord) -> Result<SyncRecord, Error> {
        let mut tables = self.0.borrow_mut();
        if tables.syncs.contains_key(&record.sync_id) {
            return Err(refusals::id_taken(&record.sync_id));
        }
        record.revision = 1;
        tables.syncs.insert(record.sync_id.clone(), (record.clone(), Some(record.created_at)));
        Ok(record)
    }

    async fn sync(&self, sync_id: &str) -> Result<Option<SyncRecord>, Error> {
        Ok(self.0.borrow().syncs.get(sync_id).map(|(record, _)| record.clone()))
    }

    async fn update_sync(&self, mut record: SyncRecord, expected: u64) -> Result<SyncRecord, Error> {
        let mut tables = self.0.borrow_mut();
        let Some((now, _)) = tables.syncs.get_mut(&record.sync_id) else {
            return Err(refusals::missing(&record.sync_id));
        };
        if now.revision != expected {
            return Err(refusals::moved(&record.sync_id));
        }
        record.revision = expected.saturating_add(1);
        *now = record.clone();
        Ok(record)
    }

    async fn delete_sync(&self, sync_id: &str) -> Result<bool, Error> {
        Ok(self.0.borrow_mut().syncs.remove(sync_id).is_some())
    }

    async fn syncs(&self, query: &SyncQuery) -> Result<Vec<SyncRecord>, Error> {
        let wanted = |record: &&SyncRecord| match query {
            SyncQuery::Bucket { namespace_id, bucket_id } => {
                record.namespace_id == *namespace_id && record.bucket_id == *bucket_id
            }
            SyncQuery::Connection { connection_id } => record.connection_id == *connection_id,
        };
        let tables = self.0.borrow();
        let mut records: Vec<_> = tables.syncs.values().map(|(record, _)| record).filter(wanted).cloned().collect();
        records.sort_by(|a, b| (b.created_at, &b.sync_id).cmp(&(a.created_at, &a.sync_id)));
        Ok(records)
    }

    async fn due(&self, at: Timestamp, limit: usize) -> Result<Vec<DueSync>, Error> {
        let tables = self.0.borrow();
        let mut due: Vec<_> = tables
            .syncs
            .iter()
            .filter_map(|(sync_id, (_, after))| Some(DueSync { since: (*after)?, sync_id: sync_id.clone() }))
            .filter(|due| due.since <= at)
            .collect();
        due.sort_unstable();
        due.truncate(limit);
        Ok(due)
    }

    async fn poked(&self, due: &DueSync, next: Option<Timestamp>) -> Result<(), Error> {
        if let Some((_, after)) = self.0.borrow_mut().syncs.get_mut(&due.sync_id)
            && *after == Some(due.since)
        {
            *after = next;
        }
        Ok(())
    }

    async fn set_poke_after(&self, sync_id: &str, at: Option<Timestamp>) -> Result<(), Error> {
        match self.0.borrow_mut().syncs.get_mut(sync_id) {
            Some((_, after)) => {
                *after = at;
                Ok(())
            }
            None => Err(refusals::missing(sync_id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::*;
    use crate::conformance::registry::{connection, registry_conformance, sync};

    #[test]
    fn memory_conforms() {
        block_on(registry_conformance(async || MemoryRegistry::new())).unwrap();
    }

    #[test]
    fn a_remote_one_conforms() {
        block_on(registry_conformance(async || {
            let memory = MemoryRegistry::new();
            RemoteRegistry(async move |call: RegistryCall| {
                parse_answer(&apply_json(&memory, &serde_json::to_string(&call).unwrap()).await)
            })
        }))
        .unwrap();
    }

    #[test]
    fn records_survive_storing() {
        let record = connection("conn_a", "A", 1);
        assert_eq!(ConnectionRecord::from_stored(&record.to_stored().unwrap()).unwrap(), record);
        let record = sync("sync_a", "bkt", "conn_a", 1).unwrap();
        assert_eq!(SyncRecord::from_stored(&record.to_stored().unwrap()).unwrap(), record);
    }

    #[test]
    fn no_record_shows_its_salt() {
        let record = sync("sync_a", "bkt", "conn_a", 1).unwrap();
        assert!(record.to_stored().unwrap().contains("\"salt\":\"000102"));
        let shown = format!("{record:?} {record:#?}");
        assert!(shown.contains("sync_a") && !shown.contains("0102"), "{shown}");
    }

    #[test]
    fn an_older_record_reads_with_defaults() {
        let record = SyncRecord::from_stored(
            r#"{"v":1,"sync_id":"sync_a","internal_id":"int_a","namespace_id":"default","bucket_id":"b",
                "connection_id":"conn_a","source":"b2://media/x/","polling_interval_s":300,"batch_size":50,"salt":"00",
                "is_active":true,"created_at":1,"updated_at":1}"#,
        )
        .unwrap();
        assert_eq!(record.mode, SyncMode::Continuous);
        assert_eq!(record.filters, FilterSpec::default());
        assert!(record.reconcile.on_delete && record.skip_duplicates);
        assert_eq!(record.deletion_limit, DeletionLimit { percent: 50, files: 100 });
        let record = ConnectionRecord::from_stored(
            r#"{"v":1,"connection_id":"conn_a","internal_id":"int_a","name":"A","provider_type":"backblaze",
                "key_id":"k","status":"ACTIVE","is_active":true,"created_at":1,"updated_at":1}"#,
        )
        .unwrap();
        assert_eq!(record.application_key, None);
    }

    #[test]
    fn a_newer_or_broken_record_is_refused() {
        let newer = ConnectionRecord { v: RECORD_VERSION + 1, ..connection("conn_a", "A", 1) };
        for text in [newer.to_stored().unwrap().as_str(), "{}", "", "null"] {
            assert_eq!(ConnectionRecord::from_stored(text).unwrap_err().kind(), ErrorKind::StateCorrupt);
        }
        let text = sync("sync_a", "bkt", "conn_a", 1).unwrap().to_stored().unwrap();
        let wrong = text.replace("b2://", "gs://");
        assert_ne!(wrong, text);
        assert_eq!(SyncRecord::from_stored(&wrong).unwrap_err().kind(), ErrorKind::StateCorrupt);
    }

    #[test]
    fn sync_from_is_a_filter() {
        let mut record = sync("sync_a", "bkt", "conn_a", 1).unwrap();
        assert_eq!(record.effective_filters().modified_after, None);
        record.echoed.sync_from = Some(Timestamp::from_millis(5));
        assert_eq!(record.effective_filters().modified_after, Some(Timestamp::from_millis(5)));
        record.filters.modified_after = Some(Timestamp::from_millis(9));
        assert_eq!(record.effective_filters().modified_after, Some(Timestamp::from_millis(9)));
    }

    #[test]
    fn what_is_no_call_or_answer_is_an_error() {
        let answer = block_on(apply_json(&MemoryRegistry::new(), "{}"));
        assert_eq!(parse_answer(&answer).unwrap_err().kind(), ErrorKind::Internal);
        assert_eq!(parse_answer("").unwrap_err().kind(), ErrorKind::Storage);
    }
}
