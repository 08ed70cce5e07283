//! What lists are asked for, and what they hold: records as text, so that one that cannot be read hides no other.

use serde::{Deserialize, Serialize};

use super::{ConnectionRecord, Record, SyncRecord};
use b2sync_core::{error::Error, time::Timestamp};

/// A connection as it is stored: its record as text, and what is known of it without reading that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRow {
    /// `conn_…`
    pub connection_id: String,
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// A [`ConnectionRecord`] as JSON.
    pub record: String,
}

impl ConnectionRow {
    /// The record.
    ///
    /// # Errors
    /// Those of [`Record::from_stored`].
    pub fn read(&self) -> Result<ConnectionRecord, Error> {
        ConnectionRecord::from_stored(&self.record)
    }
}

/// A sync as it is stored: its record as text, and what is known of it without reading that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRow {
    /// `sync_…`
    pub sync_id: String,
    /// The namespace of its bucket.
    pub namespace_id: String,
    /// Its bucket.
    pub bucket_id: String,
    /// Its connection.
    pub connection_id: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// A [`SyncRecord`] as JSON.
    pub record: String,
}

impl SyncRow {
    /// The record.
    ///
    /// # Errors
    /// Those of [`Record::from_stored`].
    pub fn read(&self) -> Result<SyncRecord, Error> {
        SyncRecord::from_stored(&self.record)
    }
}

/// A sync and the connection that it names, if there is one, as they are stored.
pub type SyncAndConnectionRows = (SyncRow, Option<ConnectionRow>);

/// A section of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows<T> {
    /// Newest first (by `created_at`, then by id).
    pub rows: Vec<T>,
    /// How many match in all, in every section.
    pub total: u64,
    /// Whether more follow.
    pub more: bool,
}

/// Which section of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Begin behind the item that was created then and has that id.
    pub after: Option<(Timestamp, String)>,
    /// How many to pass over from there.
    pub offset: u64,
    /// The most to answer.
    pub limit: u64,
}

impl Section {
    /// The first `limit` items.
    pub const fn first(limit: u64) -> Self {
        Self { after: None, offset: 0, limit }
    }

    /// The section of items that are at hand as a whole, newest first. `key` is when an item was created, and its id.
    pub fn of<T>(&self, items: Vec<T>, key: impl Fn(&T) -> (Timestamp, &str)) -> Rows<T> {
        let total = items.len() as u64;
        let is_behind = |item: &T| match &self.after {
            Some((at, id)) => key(item) < (*at, id.as_str()),
            None => true,
        };
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let mut rest = items.into_iter().filter(is_behind).skip(size(self.offset));
        let rows: Vec<T> = rest.by_ref().take(size(self.limit)).collect();
        Rows { rows, total, more: rest.next().is_some() }
    }
}

/// Which connections to list. What is asked for is compared with what was stored, also where a record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionQuery {
    /// Only those of this provider.
    pub provider_type: Option<String>,
    /// Only those with this status; without one, those that are not archived.
    pub status: Option<String>,
    /// Only those that are, or are not, switched on.
    pub is_active: Option<bool>,
    /// Which section of them.
    pub section: Section,
}

impl ConnectionQuery {
    /// Whether a connection is to be listed.
    pub fn takes(&self, record: &ConnectionRecord) -> bool {
        let shown = match &self.status {
            Some(status) => record.status.as_str() == status,
            None => !record.archived,
        };
        shown
            && self.provider_type.as_ref().is_none_or(|wanted| *wanted == record.provider_type)
            && self.is_active.is_none_or(|wanted| wanted == record.is_active)
    }
}

/// Whose syncs to list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncsOf {
    /// Those of a bucket.
    Bucket {
        /// The namespace that the bucket belongs to.
        namespace_id: String,
        /// The bucket.
        bucket_id: String,
        /// Only those that read through this connection.
        connection_id: Option<String>,
    },
    /// Those of all buckets of a namespace.
    Namespace {
        /// The namespace.
        namespace_id: String,
        /// Only those that read through this connection.
        connection_id: Option<String>,
    },
    /// Those that read through a connection, in all namespaces.
    Connection {
        /// The connection.
        connection_id: String,
    },
}

/// Which syncs to list. What is asked for is compared with what was stored, also where a record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncQuery {
    /// Whose.
    pub of: SyncsOf,
    /// Only those that their user has not paused, or only those that are paused.
    pub is_active: Option<bool>,
    /// Which section of them.
    pub section: Section,
}

impl SyncQuery {
    /// Whether a sync is to be listed.
    pub fn takes(&self, record: &SyncRecord) -> bool {
        let of = match &self.of {
            SyncsOf::Bucket { namespace_id, bucket_id, connection_id } => {
                record.namespace_id == *namespace_id
                    && record.bucket_id == *bucket_id
                    && connection_id.as_ref().is_none_or(|wanted| *wanted == record.connection_id)
            }
            SyncsOf::Namespace { namespace_id, connection_id } => {
                record.namespace_id == *namespace_id
                    && connection_id.as_ref().is_none_or(|wanted| *wanted == record.connection_id)
            }
            SyncsOf::Connection { connection_id } => record.connection_id == *connection_id,
        };
        of && self.is_active.is_none_or(|wanted| wanted == record.is_active)
    }
}
