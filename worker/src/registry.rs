//! The Durable Object that holds connections and syncs: configuration that must be readable right after it was written.
//!
//! It looks up and stores; [`plan`] decides. What is asked for beside a record (name, status, owner, …) has a column of
//! its own, so that no list and no count reads a record.

use std::cell::Cell;

use b2sync_core::{Error, time::Timestamp};
use b2sync_service::registry::{
    Claim, ConnectionQuery, ConnectionRecord, ConnectionRow, DueSync, Poked, Record, Registry as CoreRegistry, Rows,
    Section, SyncQuery, SyncRecord, SyncRow, SyncsOf, apply_json,
    plan::{self, ConnectionFacts, ExistingConnection},
    refusals,
};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use worker::{DurableObject, Env, Request, Response, Result, SqlStorage, SqlStorageValue, State, durable_object};

use crate::{
    bindings::reply,
    failure::storage_error,
    sql::{self, Conditions},
};

const SCHEMA: [&str; 13] = [
    "CREATE TABLE IF NOT EXISTS connections (connection_id TEXT PRIMARY KEY, name TEXT NOT NULL, \
     provider_type TEXT NOT NULL, status TEXT NOT NULL, is_active INTEGER NOT NULL, archived_at INTEGER, \
     created_at INTEGER NOT NULL, revision INTEGER NOT NULL, record TEXT NOT NULL) WITHOUT ROWID",
    "CREATE UNIQUE INDEX IF NOT EXISTS connections_by_name ON connections (name) WHERE archived_at IS NULL",
    "CREATE INDEX IF NOT EXISTS connections_by_archival ON connections (archived_at, created_at, connection_id)",
    "CREATE INDEX IF NOT EXISTS connections_by_status ON connections (status, created_at, connection_id)",
    "CREATE TABLE IF NOT EXISTS syncs (sync_id TEXT PRIMARY KEY, namespace_id TEXT NOT NULL, bucket_id TEXT NOT NULL, \
     connection_id TEXT NOT NULL, is_active INTEGER NOT NULL, created_at INTEGER NOT NULL, poke_after INTEGER, \
     revision INTEGER NOT NULL, record TEXT NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS syncs_by_bucket ON syncs (namespace_id, bucket_id, created_at, sync_id)",
    "CREATE INDEX IF NOT EXISTS syncs_by_connection ON syncs (connection_id, is_active, created_at, sync_id)",
    "CREATE INDEX IF NOT EXISTS syncs_by_namespace ON syncs (namespace_id, created_at, sync_id, is_active)",
    "CREATE INDEX IF NOT EXISTS syncs_by_namespace_and_connection ON syncs (namespace_id, connection_id, created_at, \
     sync_id, is_active)",
    "CREATE INDEX IF NOT EXISTS syncs_by_poke ON syncs (poke_after, sync_id)",
    "CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, id TEXT NOT NULL, \
     at INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS claims_by_time ON claims (at)",
    "CREATE INDEX IF NOT EXISTS claims_by_id ON claims (id)",
];

/// The columns of a [`ConnectionRow`].
const CONNECTION: &str = "connection_id, name, created_at, record";
/// The columns of a [`SyncRow`].
const SYNC: &str = "sync_id, namespace_id, bucket_id, connection_id, created_at, record";

#[derive(Deserialize)]
struct Existing {
    revision: u64,
    archived_at: Option<i64>,
}

#[derive(Deserialize)]
struct Revision {
    revision: u64,
}

#[derive(Deserialize)]
struct Id {
    connection_id: String,
}

#[derive(Deserialize)]
struct Count {
    count: u64,
}

#[derive(Deserialize)]
struct Due {
    sync_id: String,
    poke_after: i64,
}

/// Connections and syncs, strongly consistent.
#[durable_object(fetch)]
pub struct Registry {
    sql: SqlStorage,
    /// Whether this instance has created the tables. Nothing drops them.
    opened: Cell<bool>,
}

/// The largest number that JavaScript counts exactly.
const INTEGER_MAX: i64 = (1 << 53) - 1;

fn integer(number: u64) -> SqlStorageValue {
    i64::try_from(number).unwrap_or(INTEGER_MAX).min(INTEGER_MAX).into()
}

fn time(at: Option<Timestamp>) -> SqlStorageValue {
    at.map_or(SqlStorageValue::Null, |at| at.as_millis().into())
}

fn failed(error: impl std::fmt::Display) -> Error {
    storage_error("registry", error)
}

/// Each method is one run of statements without an await: no other call's come in between.
impl Registry {
    /// Creates the tables at the first call of an instance. The storage treats each `CREATE` as a write even if the
    /// table exists: it opens a transaction, and the answer waits for it.
    fn open(&self) -> Result<(), Error> {
        if !self.opened.get() {
            SCHEMA.iter().try_for_each(|statement| self.exec(statement, Vec::new()))?;
            self.opened.set(true);
        }
        Ok(())
    }

    fn exec(&self, query: &str, bindings: Vec<SqlStorageValue>) -> Result<(), Error> {
        self.sql.exec(query, bindings).map(|_| ()).map_err(failed)
    }

    fn rows<T: DeserializeOwned>(&self, query: &str, bindings: Vec<SqlStorageValue>) -> Result<Vec<T>, Error> {
        sql::rows(&self.sql, query, bindings).map_err(failed)
    }

    fn first<T: DeserializeOwned>(&self, query: &str, bindings: Vec<SqlStorageValue>) -> Result<Option<T>, Error> {
        sql::first(&self.sql, query, bindings).map_err(failed)
    }

    fn count(&self, table: &str, conditions: &Conditions) -> Result<u64, Error> {
        let query = format!("SELECT count(*) AS count FROM {table} WHERE {}", conditions.sql);
        Ok(self.first::<Count>(&query, conditions.bindings.clone())?.map_or(0, |row| row.count))
    }

    /// A section of a table, newest first; the table comes with the column of its id and those to answer.
    fn section<T: DeserializeOwned>(
        &self,
        (table, id, columns): (&str, &str, &str),
        conditions: &Conditions,
        section: &Section,
    ) -> Result<Rows<T>, Error> {
        let mut bindings = conditions.bindings.clone();
        let mut wanted = conditions.sql.clone();
        if let Some((at, last)) = &section.after {
            wanted = format!("{wanted} AND (created_at, {id}) < (?, ?)");
            bindings.extend([at.as_millis().into(), last.as_str().into()]);
        }
        bindings.extend([integer(section.limit.saturating_add(1)), integer(section.offset)]);
        let query = format!(
            "SELECT {columns} FROM {table} WHERE {wanted} ORDER BY created_at DESC, {id} DESC LIMIT ? OFFSET ?"
        );
        let mut rows: Vec<T> = self.rows(&query, bindings)?;
        let limit = usize::try_from(section.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        Ok(Rows { rows, total: self.count(table, conditions)?, more })
    }

    fn facts(&self, record: &ConnectionRecord) -> Result<ConnectionFacts, Error> {
        let query = "SELECT revision, archived_at FROM connections WHERE connection_id = ?";
        let same_id: Option<Existing> = self.first(query, vec![record.connection_id.as_str().into()])?;
        Ok(ConnectionFacts {
            same_id: same_id.map(|it| ExistingConnection { revision: it.revision, archived: it.archived_at.is_some() }),
            name_owner: self.name_owner(&record.name)?,
            live: self.live()?,
        })
    }

    fn name_owner(&self, name: &str) -> Result<Option<String>, Error> {
        let query = "SELECT connection_id FROM connections WHERE name = ? AND archived_at IS NULL";
        Ok(self.first::<Id>(query, vec![name.into()])?.map(|it| it.connection_id))
    }

    /// How many connections are not archived.
    fn live(&self) -> Result<u64, Error> {
        self.count("connections", &Conditions::new("archived_at IS NULL", Vec::new()))
    }

    fn in_bucket(&self, namespace_id: &str, bucket_id: &str) -> Result<u64, Error> {
        self.count("syncs", &bucket(namespace_id, bucket_id))
    }

    fn put_connection(&self, record: &ConnectionRecord) -> Result<(), Error> {
        let query = "INSERT INTO connections (connection_id, name, provider_type, status, is_active, archived_at, \
            created_at, revision, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) \
            ON CONFLICT (connection_id) DO UPDATE SET name = excluded.name, status = excluded.status, \
            is_active = excluded.is_active, archived_at = excluded.archived_at, revision = excluded.revision, \
            record = excluded.record";
        let bindings = vec![
            record.connection_id.as_str().into(),
            record.name.as_str().into(),
            record.provider_type.as_str().into(),
            record.status.as_str().into(),
            i64::from(record.is_active).into(),
            time(plan::plan_archived_at(record)),
            record.created_at.as_millis().into(),
            integer(record.revision),
            record.to_stored()?.into(),
        ];
        self.exec(query, bindings)
    }

    fn revision_of_sync(&self, sync_id: &str) -> Result<Option<u64>, Error> {
        let query = "SELECT revision FROM syncs WHERE sync_id = ?";
        Ok(self.first::<Revision>(query, vec![sync_id.into()])?.map(|it| it.revision))
    }
}

fn bucket(namespace_id: &str, bucket_id: &str) -> Conditions {
    Conditions::new("namespace_id = ? AND bucket_id = ?", vec![namespace_id.into(), bucket_id.into()])
}

impl CoreRegistry for Registry {
    async fn insert_connection(&self, record: ConnectionRecord) -> Result<ConnectionRecord, Error> {
        let facts = self.facts(&record)?;
        let record = plan::plan_connection_insert(record, &facts)?;
        self.put_connection(&record)?;
        Ok(record)
    }

    async fn check_new_connection(&self, name: &str) -> Result<(), Error> {
        plan::plan_new_connection(name, self.name_owner(name)?.as_deref(), self.live()?)
    }

    async fn find_connection(&self, id_or_name: &str) -> Result<Option<ConnectionRow>, Error> {
        let by = |condition: &str| {
            self.first(&format!("SELECT {CONNECTION} FROM connections WHERE {condition}"), vec![id_or_name.into()])
        };
        match by("connection_id = ?")? {
            Some(row) => Ok(Some(row)),
            None => by("name = ? AND archived_at IS NULL"),
        }
    }

    async fn update_connection(&self, record: ConnectionRecord, expected: u64) -> Result<ConnectionRecord, Error> {
        let facts = self.facts(&record)?;
        let record = plan::plan_connection_update(record, expected, &facts)?;
        self.put_connection(&record)?;
        Ok(record)
    }

    async fn delete_connection(&self, connection_id: &str) -> Result<bool, Error> {
        let query = "DELETE FROM connections WHERE connection_id = ? RETURNING connection_id";
        Ok(self.first::<IgnoredAny>(query, vec![connection_id.into()])?.is_some())
    }

    async fn connections(&self, query: &ConnectionQuery) -> Result<Rows<ConnectionRow>, Error> {
        let conditions = match &query.status {
            Some(status) => Conditions::new("status = ?", vec![status.as_str().into()]),
            None => Conditions::new("archived_at IS NULL", Vec::new()),
        };
        let conditions = conditions
            .and("provider_type = ?", query.provider_type.as_deref())
            .and("is_active = ?", query.is_active.map(i64::from));
        self.section(("connections", "connection_id", CONNECTION), &conditions, &query.section)
    }

    async fn insert_sync(&self, record: SyncRecord) -> Result<SyncRecord, Error> {
        let revision = self.revision_of_sync(&record.sync_id)?;
        let in_bucket = self.in_bucket(&record.namespace_id, &record.bucket_id)?;
        let record = plan::plan_sync_insert(record, revision, in_bucket)?;
        let query = "INSERT INTO syncs (sync_id, namespace_id, bucket_id, connection_id, is_active, created_at, \
            poke_after, revision, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let bindings = vec![
            record.sync_id.as_str().into(),
            record.namespace_id.as_str().into(),
            record.bucket_id.as_str().into(),
            record.connection_id.as_str().into(),
            i64::from(record.is_active).into(),
            record.created_at.as_millis().into(),
            plan::plan_first_poke(&record).as_millis().into(),
            integer(record.revision),
            record.to_stored()?.into(),
        ];
        self.exec(query, bindings)?;
        Ok(record)
    }

    async fn check_new_sync(&self, namespace_id: &str, bucket_id: &str) -> Result<(), Error> {
        plan::plan_new_sync(self.in_bucket(namespace_id, bucket_id)?)
    }

    async fn find_sync(&self, sync_id: &str) -> Result<Option<SyncRow>, Error> {
        self.first(&format!("SELECT {SYNC} FROM syncs WHERE sync_id = ?"), vec![sync_id.into()])
    }

    async fn update_sync(&self, record: SyncRecord, expected: u64) -> Result<SyncRecord, Error> {
        let revision = self.revision_of_sync(&record.sync_id)?;
        let record = plan::plan_sync_update(record, expected, revision)?;
        let query = "UPDATE syncs SET namespace_id = ?, bucket_id = ?, connection_id = ?, is_active = ?, revision = ?, \
            record = ? WHERE sync_id = ?";
        let bindings = vec![
            record.namespace_id.as_str().into(),
            record.bucket_id.as_str().into(),
            record.connection_id.as_str().into(),
            i64::from(record.is_active).into(),
            integer(record.revision),
            record.to_stored()?.into(),
            record.sync_id.as_str().into(),
        ];
        self.exec(query, bindings)?;
        Ok(record)
    }

    async fn delete_sync(&self, sync_id: &str) -> Result<bool, Error> {
        self.exec("DELETE FROM claims WHERE id = ?", vec![sync_id.into()])?;
        let query = "DELETE FROM syncs WHERE sync_id = ? RETURNING sync_id";
        Ok(self.first::<IgnoredAny>(query, vec![sync_id.into()])?.is_some())
    }

    async fn syncs(&self, query: &SyncQuery) -> Result<Rows<SyncRow>, Error> {
        // A `+` keeps a condition from choosing the index: that of the rest reads fewer rows.
        let is_active = query.is_active.map(i64::from);
        let conditions = match &query.of {
            SyncsOf::Bucket { namespace_id, bucket_id, connection_id } => {
                bucket(namespace_id, bucket_id).and("+connection_id = ?", connection_id.as_deref())
            }
            SyncsOf::Namespace { namespace_id, connection_id } => {
                Conditions::new("namespace_id = ?", vec![namespace_id.as_str().into()])
                    .and("connection_id = ?", connection_id.as_deref())
            }
            SyncsOf::Connection { connection_id } => {
                Conditions::new("connection_id = ?", vec![connection_id.as_str().into()])
            }
        };
        let conditions = match &query.of {
            SyncsOf::Connection { .. } => conditions.and("is_active = ?", is_active),
            SyncsOf::Bucket { .. } | SyncsOf::Namespace { .. } => conditions.and("+is_active = ?", is_active),
        };
        self.section(("syncs", "sync_id", SYNC), &conditions, &query.section)
    }

    async fn due(&self, at: Timestamp, limit: usize) -> Result<Vec<DueSync>, Error> {
        let query = "SELECT sync_id, poke_after FROM syncs WHERE poke_after <= ? ORDER BY poke_after, sync_id LIMIT ?";
        let rows: Vec<Due> = self.rows(query, vec![at.as_millis().into(), integer(limit as u64)])?;
        let due = |row: Due| DueSync { since: Timestamp::from_millis(row.poke_after), sync_id: row.sync_id };
        Ok(rows.into_iter().map(due).collect())
    }

    async fn poked(&self, pokes: &[Poked]) -> Result<(), Error> {
        let row = |it: &Poked| (it.due.sync_id.clone(), it.due.since.as_millis(), it.next.map(Timestamp::as_millis));
        let rows: Vec<_> = pokes.iter().map(row).collect();
        let rows = serde_json::to_string(&rows).map_err(failed)?;
        let query = "UPDATE syncs SET poke_after = poked.value ->> 2 FROM json_each(?) AS poked \
            WHERE sync_id = poked.value ->> 0 AND poke_after = poked.value ->> 1";
        self.exec(query, vec![rows.into()])
    }

    async fn set_poke_after(&self, sync_id: &str, at: Option<Timestamp>) -> Result<(), Error> {
        let query = "UPDATE syncs SET poke_after = ? WHERE sync_id = ? RETURNING sync_id";
        let found: Option<IgnoredAny> = self.first(query, vec![time(at), sync_id.into()])?;
        found.map(|_| ()).ok_or_else(|| refusals::missing(sync_id))
    }

    async fn claim(&self, claim: Claim) -> Result<Claim, Error> {
        let since = plan::plan_claims_since(claim.at).as_millis();
        self.exec("DELETE FROM claims WHERE at < ?", vec![since.into()])?;
        let Claim { key, fingerprint, id, at } = &claim;
        let columns = [key, fingerprint, id].map(|text| text.as_str().into());
        let bindings = columns.into_iter().chain([at.as_millis().into()]).collect();
        let query = "INSERT INTO claims (key, fingerprint, id, at) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE \
            SET fingerprint = excluded.fingerprint \
            WHERE NOT EXISTS (SELECT 1 FROM connections WHERE connection_id = claims.id) \
            AND NOT EXISTS (SELECT 1 FROM syncs WHERE sync_id = claims.id)";
        self.exec(query, bindings)?;
        let query = "SELECT key, fingerprint, id, at FROM claims WHERE key = ?";
        self.first(query, vec![key.as_str().into()])?.ok_or_else(|| failed("a claim is not there"))
    }

    async fn purge(&self, archived_until: Timestamp, limit: usize) -> Result<u64, Error> {
        let query = "DELETE FROM connections WHERE connection_id IN (SELECT connection_id FROM connections AS it WHERE \
            archived_at <= ? AND NOT EXISTS (SELECT 1 FROM syncs WHERE syncs.connection_id = it.connection_id) \
            LIMIT ?) RETURNING connection_id";
        let purged: Vec<Id> = self.rows(query, vec![archived_until.as_millis().into(), integer(limit as u64)])?;
        Ok(purged.len() as u64)
    }
}

impl DurableObject for Registry {
    fn new(state: State, _env: Env) -> Self {
        Self { sql: state.storage().sql(), opened: Cell::new(false) }
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        let call = request.text().await?;
        match self.open() {
            Ok(()) => Response::ok(apply_json(self, &call).await),
            Err(error) => reply::<()>(Err(error)),
        }
    }
}
