//! The Durable Object that holds connections and syncs: configuration that must be readable right after it was written.

use std::cell::Cell;

use b2sync_core::{Error, time::Timestamp};
use b2sync_service::registry::{
    ConnectionRecord, DueSync, Record, Registry as CoreRegistry, SyncQuery, SyncRecord, apply_json,
    plan::{self, ConnectionFacts, ExistingConnection},
    refusals,
};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use worker::{DurableObject, Env, Request, Response, Result, SqlStorage, SqlStorageValue, State, durable_object};

use crate::{bindings::reply, failure::storage_error, sql};

const SCHEMA: [&str; 6] = [
    "CREATE TABLE IF NOT EXISTS connections (connection_id TEXT PRIMARY KEY, name TEXT NOT NULL, archived INTEGER NOT \
     NULL, created_at INTEGER NOT NULL, revision INTEGER NOT NULL, record TEXT NOT NULL) WITHOUT ROWID",
    "CREATE UNIQUE INDEX IF NOT EXISTS connections_by_name ON connections (name) WHERE archived = 0",
    "CREATE TABLE IF NOT EXISTS syncs (sync_id TEXT PRIMARY KEY, namespace_id TEXT NOT NULL, bucket_id TEXT NOT NULL, \
     connection_id TEXT NOT NULL, created_at INTEGER NOT NULL, poke_after INTEGER, revision INTEGER NOT NULL, record TEXT NOT \
     NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS syncs_by_bucket ON syncs (namespace_id, bucket_id)",
    "CREATE INDEX IF NOT EXISTS syncs_by_connection ON syncs (connection_id)",
    "CREATE INDEX IF NOT EXISTS syncs_by_poke ON syncs (poke_after)",
];

#[derive(Deserialize)]
struct Stored {
    record: String,
}

#[derive(Deserialize)]
struct Revision {
    revision: u64,
    archived: u8,
}

#[derive(Deserialize)]
struct Id {
    id: String,
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

fn integer(number: u64) -> SqlStorageValue {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}

fn failed(error: impl std::fmt::Display) -> Error {
    storage_error("registry", error)
}

/// Each method is one run of statements without an await: nobody else's come in between.
impl Registry {
    /// Creates the tables at the first call of an instance. The storage treats each `CREATE` as a write even if the
    /// table exists: it opens a transaction, and the answer waits for it.
    fn open(&self) -> Result<(), Error> {
        if !self.opened.get() {
            SCHEMA.iter().try_for_each(|statement| self.sql.exec(statement, None).map(|_| ())).map_err(failed)?;
            self.opened.set(true);
        }
        Ok(())
    }

    fn rows<T: Record>(&self, query: &str, bindings: Vec<SqlStorageValue>) -> Result<Vec<T>, Error> {
        let rows: Vec<Stored> = sql::rows(&self.sql, query, bindings).map_err(failed)?;
        rows.iter().map(|row| T::from_stored(&row.record)).collect()
    }

    fn row<T: Record>(&self, query: &str, id: &str) -> Result<Option<T>, Error> {
        Ok(self.rows(query, vec![id.into()])?.into_iter().next())
    }

    fn connection_by_id(&self, id: &str) -> Result<Option<ConnectionRecord>, Error> {
        self.row("SELECT record FROM connections WHERE connection_id = ?", id)
    }

    fn connection_by_name(&self, name: &str) -> Result<Option<ConnectionRecord>, Error> {
        self.row("SELECT record FROM connections WHERE name = ? AND archived = 0", name)
    }

    fn facts(&self, record: &ConnectionRecord) -> Result<ConnectionFacts, Error> {
        let id = vec![record.connection_id.as_str().into()];
        let same_id: Option<Revision> =
            self.first("SELECT revision, archived FROM connections WHERE connection_id = ?", id)?;
        Ok(ConnectionFacts {
            same_id: same_id.map(|it| ExistingConnection { revision: it.revision, archived: it.archived != 0 }),
            name_owner: self.name_owner(&record.name)?,
            live: self.live()?,
        })
    }

    fn name_owner(&self, name: &str) -> Result<Option<String>, Error> {
        let query = "SELECT connection_id AS id FROM connections WHERE name = ? AND archived = 0";
        Ok(self.first::<Id>(query, vec![name.into()])?.map(|it| it.id))
    }

    /// How many connections are not archived.
    fn live(&self) -> Result<u64, Error> {
        self.count("connections WHERE archived = 0", Vec::new())
    }

    fn in_bucket(&self, namespace_id: &str, bucket_id: &str) -> Result<u64, Error> {
        self.count("syncs WHERE namespace_id = ? AND bucket_id = ?", vec![namespace_id.into(), bucket_id.into()])
    }

    fn put_connection(&self, record: &ConnectionRecord) -> Result<(), Error> {
        let query = "INSERT INTO connections (connection_id, name, archived, created_at, revision, record) \
            VALUES (?, ?, ?, ?, ?, ?) \
            ON CONFLICT (connection_id) DO UPDATE SET name = excluded.name, archived = excluded.archived, \
            revision = excluded.revision, record = excluded.record";
        let bindings = vec![
            record.connection_id.as_str().into(),
            record.name.as_str().into(),
            i64::from(record.archived).into(),
            record.created_at.as_millis().into(),
            integer(record.revision),
            record.to_stored()?.into(),
        ];
        self.sql.exec(query, bindings).map(|_| ()).map_err(failed)
    }

    fn revision_of_sync(&self, sync_id: &str) -> Result<Option<u64>, Error> {
        let query = "SELECT revision, 0 AS archived FROM syncs WHERE sync_id = ?";
        Ok(self.first::<Revision>(query, vec![sync_id.into()])?.map(|it| it.revision))
    }

    fn first<T: DeserializeOwned>(&self, query: &str, bindings: Vec<SqlStorageValue>) -> Result<Option<T>, Error> {
        sql::first(&self.sql, query, bindings).map_err(failed)
    }

    /// How many rows there are; `of` is a table and a condition.
    fn count(&self, of: &str, bindings: Vec<SqlStorageValue>) -> Result<u64, Error> {
        let row: Option<Count> = self.first(&format!("SELECT count(*) AS count FROM {of}"), bindings)?;
        Ok(row.map_or(0, |row| row.count))
    }

    fn sync_by_id(&self, id: &str) -> Result<Option<SyncRecord>, Error> {
        self.row("SELECT record FROM syncs WHERE sync_id = ?", id)
    }
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

    async fn connection(&self, id_or_name: &str) -> Result<Option<ConnectionRecord>, Error> {
        match self.connection_by_id(id_or_name)? {
            Some(record) => Ok(Some(record)),
            None => self.connection_by_name(id_or_name),
        }
    }

    async fn update_connection(&self, record: ConnectionRecord, expected: u64) -> Result<ConnectionRecord, Error> {
        let facts = self.facts(&record)?;
        let record = plan::plan_connection_update(record, expected, &facts)?;
        self.put_connection(&record)?;
        Ok(record)
    }

    async fn connections(&self) -> Result<Vec<ConnectionRecord>, Error> {
        self.rows("SELECT record FROM connections ORDER BY created_at DESC, connection_id DESC", Vec::new())
    }

    async fn insert_sync(&self, record: SyncRecord) -> Result<SyncRecord, Error> {
        let revision = self.revision_of_sync(&record.sync_id)?;
        let in_bucket = self.in_bucket(&record.namespace_id, &record.bucket_id)?;
        let record = plan::plan_sync_insert(record, revision, in_bucket)?;
        let query = "INSERT INTO syncs (sync_id, namespace_id, bucket_id, connection_id, created_at, poke_after, \
            revision, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
        let bindings = vec![
            record.sync_id.as_str().into(),
            record.namespace_id.as_str().into(),
            record.bucket_id.as_str().into(),
            record.connection_id.as_str().into(),
            record.created_at.as_millis().into(),
            plan::plan_first_poke(&record).as_millis().into(),
            integer(record.revision),
            record.to_stored()?.into(),
        ];
        self.sql.exec(query, bindings).map_err(failed)?;
        Ok(record)
    }

    async fn check_new_sync(&self, namespace_id: &str, bucket_id: &str) -> Result<(), Error> {
        plan::plan_new_sync(self.in_bucket(namespace_id, bucket_id)?)
    }

    async fn sync(&self, sync_id: &str) -> Result<Option<SyncRecord>, Error> {
        self.sync_by_id(sync_id)
    }

    async fn update_sync(&self, record: SyncRecord, expected: u64) -> Result<SyncRecord, Error> {
        let revision = self.revision_of_sync(&record.sync_id)?;
        let record = plan::plan_sync_update(record, expected, revision)?;
        let query = "UPDATE syncs SET namespace_id = ?, bucket_id = ?, connection_id = ?, revision = ?, record = ? \
            WHERE sync_id = ?";
        let bindings = vec![
            record.namespace_id.as_str().into(),
            record.bucket_id.as_str().into(),
            record.connection_id.as_str().into(),
            integer(record.revision),
            record.to_stored()?.into(),
            record.sync_id.as_str().into(),
        ];
        self.sql.exec(query, bindings).map_err(failed)?;
        Ok(record)
    }

    async fn delete_sync(&self, sync_id: &str) -> Result<bool, Error> {
        let query = "DELETE FROM syncs WHERE sync_id = ? RETURNING sync_id";
        Ok(sql::first::<IgnoredAny>(&self.sql, query, vec![sync_id.into()]).map_err(failed)?.is_some())
    }

    async fn syncs(&self, query: &SyncQuery) -> Result<Vec<SyncRecord>, Error> {
        const ORDER: &str = "ORDER BY created_at DESC, sync_id DESC";
        match query {
            SyncQuery::Bucket { namespace_id, bucket_id } => self.rows(
                &format!("SELECT record FROM syncs WHERE namespace_id = ? AND bucket_id = ? {ORDER}"),
                vec![namespace_id.clone().into(), bucket_id.clone().into()],
            ),
            SyncQuery::Connection { connection_id } => self.rows(
                &format!("SELECT record FROM syncs WHERE connection_id = ? {ORDER}"),
                vec![connection_id.clone().into()],
            ),
        }
    }

    async fn due(&self, at: Timestamp, limit: usize) -> Result<Vec<DueSync>, Error> {
        let query = "SELECT sync_id, poke_after FROM syncs WHERE poke_after <= ? ORDER BY poke_after, sync_id LIMIT ?";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: Vec<Due> = sql::rows(&self.sql, query, vec![at.as_millis().into(), limit.into()]).map_err(failed)?;
        let due = |row: Due| DueSync { since: Timestamp::from_millis(row.poke_after), sync_id: row.sync_id };
        Ok(rows.into_iter().map(due).collect())
    }

    async fn poked(&self, due: &DueSync, next: Option<Timestamp>) -> Result<(), Error> {
        let next = next.map_or(SqlStorageValue::Null, |next| next.as_millis().into());
        let query = "UPDATE syncs SET poke_after = ? WHERE sync_id = ? AND poke_after = ? RETURNING sync_id";
        let values = vec![next, due.sync_id.as_str().into(), due.since.as_millis().into()];
        sql::first::<IgnoredAny>(&self.sql, query, values).map(|_| ()).map_err(failed)
    }

    async fn set_poke_after(&self, sync_id: &str, at: Option<Timestamp>) -> Result<(), Error> {
        let at = at.map_or(SqlStorageValue::Null, |at| at.as_millis().into());
        let query = "UPDATE syncs SET poke_after = ? WHERE sync_id = ? RETURNING sync_id";
        let found: Option<IgnoredAny> = sql::first(&self.sql, query, vec![at, sync_id.into()]).map_err(failed)?;
        found.map(|_| ()).ok_or_else(|| refusals::missing(sync_id))
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
