//! Sinks: where the changes of a sync's feed go, each with a cursor of its own.
//!
//! A sink has one document ([`SinkRecord`]): up to which position it has taken the feed, how it stands, and its dead
//! letters. The [`pump`] reads the feed behind the cursor, delivers in order, and moves the cursor after the sink has
//! answered. So a sink gets every change at least once, in order, always under the same id; the catalogue, which
//! remembers the position that it has applied, applies each exactly once.
//!
//! # Invariants
//! - A cursor moves only behind changes that the sink took, or that became dead letters in the same swap.
//! - Sinks know nothing of each other: one that is slow, refuses or fails delays neither the others nor a poll.

pub mod dead_letters;
pub mod pump;

use b2sync_core::{
    error::{Error, ErrorKind},
    job::ErrorRecord,
    store::DocumentStore,
    time::Timestamp,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::dead_letters::DeadLetters;
use crate::documents::{Decoded, Loaded, Slot, Stored};

/// The version of a sink's document that this code reads and writes.
pub const VERSION: u32 = 1;
/// How often a change is offered to a sink that refuses it, before it becomes a dead letter.
pub const DELIVERY_ATTEMPTS_MAX: u32 = 3;
/// The wait after the first failed delivery in a row, in milliseconds; it doubles each time.
pub const BACKOFF_BASE_MS: u64 = 2_000;
/// The longest wait before a failed delivery is repeated, in milliseconds.
pub const BACKOFF_CAP_MS: u64 = 3_600_000;
/// A sink that has failed for this long is switched off, in milliseconds: 30 days.
pub const FAILING_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// The id of the sink that every sync has unless it says otherwise.
pub const CATALOGUE: &str = "catalogue";

/// What kind of sink it is. Snake case when stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum SinkKind {
    /// The bucket objects that the API lists.
    Catalogue,
}

impl SinkKind {
    /// In snake case, as it is stored and shown: `catalogue`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A sink as a sync's record names it. Stored: fields are only ever added, each with a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkSpec {
    /// Names it within its sync.
    pub sink_id: String,
    /// What it is.
    pub kind: SinkKind,
}

impl SinkSpec {
    /// The catalogue.
    pub fn catalogue() -> Self {
        Self { sink_id: CATALOGUE.to_owned(), kind: SinkKind::Catalogue }
    }
}

/// Whether a sink takes changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum SinkState {
    /// It does.
    #[default]
    Active,
    /// A delivery failed and is repeated at [`SinkRecord::next_attempt_at`].
    BackingOff,
    /// It is switched off; [`SinkRecord::last_error`] says why.
    Disabled,
}

impl SinkState {
    /// In snake case, as it is stored and shown: `backing_off`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The document of a sink. Stored: fields are only ever added, each with a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkRecord {
    /// [`VERSION`].
    pub v: u32,
    /// The position up to which it has taken the feed.
    #[serde(default)]
    pub cursor: u64,
    /// Whether it takes changes.
    #[serde(default)]
    pub state: SinkState,
    /// Deliveries that failed since one last succeeded.
    #[serde(default)]
    pub failures: u32,
    /// When the first of them failed.
    #[serde(default)]
    pub first_failure_at: Option<Timestamp>,
    /// When the latest failed.
    #[serde(default)]
    pub last_failure_at: Option<Timestamp>,
    /// Why the latest failed.
    #[serde(default)]
    pub last_error: Option<ErrorRecord>,
    /// When the next attempt is due, while it backs off.
    #[serde(default)]
    pub next_attempt_at: Option<Timestamp>,
    /// Changes that it took.
    #[serde(default)]
    pub taken: u64,
    /// Changes that it refused for good.
    #[serde(default)]
    pub dead_letters: DeadLetters,
}

impl Default for SinkRecord {
    fn default() -> Self {
        Self {
            v: VERSION,
            cursor: 0,
            state: SinkState::Active,
            failures: 0,
            first_failure_at: None,
            last_failure_at: None,
            last_error: None,
            next_attempt_at: None,
            taken: 0,
            dead_letters: DeadLetters::default(),
        }
    }
}

impl Stored for SinkRecord {
    fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let corrupt = |why: String| {
            Error::new(
                ErrorKind::StateCorrupt,
                format!("The stored document of a sink cannot be read: {why}."),
                "Use the version of b2sync that wrote it, or delete the sync and create it again.",
            )
        };
        let record: Self = serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))?;
        if record.v != VERSION {
            return Err(corrupt(format!("it has version {}, and this b2sync reads version {VERSION}", record.v)));
        }
        Ok(record)
    }

    fn encode(&self) -> Result<Bytes, Error> {
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Error::internal(format!("The document of a sink does not encode: {error}.")))?;
        Ok(bytes.into())
    }
}

impl SinkRecord {
    /// The name of a sink's document.
    pub fn document(sink_id: &str) -> String {
        format!("sink-{sink_id}")
    }

    /// The document of a sink; a fresh one with the revision 0 if there is none.
    ///
    /// # Errors
    /// Of the store; [`ErrorKind::StateCorrupt`].
    pub async fn load(documents: &impl DocumentStore, sink_id: &str) -> Result<Loaded<Self>, Error> {
        let (name, fresh, decoded) = (Self::document(sink_id), Self::default(), Decoded::default());
        Slot { documents, name: &name, fresh: &fresh, decoded: &decoded }.load().await
    }

    /// Changes the document as `decide` says, which may be called several times.
    ///
    /// # Errors
    /// As [`Slot::update`].
    pub async fn update<R>(
        documents: &impl DocumentStore,
        sink_id: &str,
        decide: impl FnMut(&mut Self) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let (name, fresh, decoded) = (Self::document(sink_id), Self::default(), Decoded::default());
        Slot { documents, name: &name, fresh: &fresh, decoded: &decoded }.update(decide).await
    }

    /// Whether the feed must keep what is behind its cursor.
    pub fn is_active(&self) -> bool {
        self.state != SinkState::Disabled
    }

    /// When there is something to deliver, where the feed reaches to `last`: now, once it no longer backs off, or
    /// never.
    pub fn due_at(&self, last: u64, now: Timestamp) -> Option<Timestamp> {
        let waiting = self.cursor < last || self.dead_letters.iter().any(|letter| letter.requeued);
        if !waiting || !self.is_active() {
            return None;
        }
        Some(self.next_attempt_at.unwrap_or(now).max(now))
    }

    /// Gets what is behind `after` again, also after failures. A cursor only goes back, except that of a sink that
    /// is switched off: that one may leave out what is no longer in the feed.
    pub(crate) fn replay(&mut self, after: u64) {
        if self.is_active() {
            self.cursor = self.cursor.min(after);
        } else {
            self.cursor = after;
        }
        self.succeeded();
    }

    /// A delivery succeeded.
    fn succeeded(&mut self) {
        self.state = SinkState::Active;
        self.failures = 0;
        (self.first_failure_at, self.last_failure_at) = (None, None);
        (self.last_error, self.next_attempt_at) = (None, None);
    }

    /// A delivery failed.
    pub(crate) fn failed(&mut self, error: &Error, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        let first = *self.first_failure_at.get_or_insert(now);
        self.last_failure_at = Some(now);
        self.last_error = Some(ErrorRecord::from(error));
        let doubled = BACKOFF_BASE_MS.saturating_mul(1 << (self.failures - 1).min(20));
        let wait = error.retry_after_ms().unwrap_or(0).max(doubled).min(BACKOFF_CAP_MS);
        let gave_up = error.kind() == ErrorKind::FeedGap || now.millis_since(first) >= FAILING_MS_MAX;
        self.state = if gave_up { SinkState::Disabled } else { SinkState::BackingOff };
        self.next_attempt_at = (!gave_up).then(|| now.plus_millis(i64::try_from(wait).unwrap_or(i64::MAX)));
    }
}
