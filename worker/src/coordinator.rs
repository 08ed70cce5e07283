//! The Durable Object that is the single writer of one sync: its alarm drives the steps.

use std::cell::Cell;

use b2sync_core::{
    Error,
    change::Change,
    engine::memory::Memory,
    ids,
    job::JobRecord,
    sink::{Delivery, Sink},
    store::{Document, DocumentStore, Swapped},
    time::{Clock, Timestamp},
};
use b2sync_service::{
    catalogue::{APPLY_BATCH_MAX, CatalogueSink, CatalogueTarget},
    coordinator::{
        self, Cache, Config, Coordinator, Home,
        protocol::Command,
        ranges::{RangeAnswer, RangeCall},
    },
    registry::{Registry, SyncRecord},
    sinks::{SinkKind, SinkSpec},
};
use bytes::Bytes;
use serde::Deserialize;
use worker::{
    DurableObject, Env, Request, Response, Result, SqlStorage, State, Storage, console_error, durable_object,
};

use crate::{
    bindings::{self, reply},
    config,
    failure::storage_error,
    fetch::Fetcher,
    kv::{Kv, KvBlobs},
    platform::Platform,
    sql,
};

/// How long the alarm waits after an error of the platform's own stores, in milliseconds.
const ALARM_RETRY_MS: i64 = 10_000;

/// How many shards read for one coordinator: with its own connections, as many as a sync may ask for.
const SHARDS_MAX: usize = 16;

/// One sync's coordinator.
#[durable_object(alarm)]
pub struct SyncCoordinator {
    state: State,
    env: Env,
    /// Tells this instance from those before it.
    instance: String,
    memory: Memory,
    cache: Cache,
    /// Whether this instance has created the documents' table and not deleted it since. The storage treats each
    /// `CREATE` as a write even if the table exists: it opens a transaction, and the answer waits for it.
    has_table: Cell<bool>,
}

impl SyncCoordinator {
    fn home(&self) -> Result<WorkerHome<'_, impl Registry + use<>>, Error> {
        let storage = self.state.storage();
        let documents =
            if self.has_table.get() { SqlDocuments(storage.sql()) } else { SqlDocuments::open(storage.sql())? };
        self.has_table.set(true);
        Ok(WorkerHome {
            kv: Kv::of(&self.env)?,
            registry: bindings::registry(&self.env),
            config: config::coordinator(&self.env)?,
            env: self.env.clone(),
            instance: &self.instance,
            memory: &self.memory,
            cache: &self.cache,
            has_table: &self.has_table,
            documents,
            storage,
        })
    }

    async fn answer(&self, body: &str) -> Result<coordinator::protocol::Answer, Error> {
        let (sync_id, command): (String, Command) = serde_json::from_str(body)
            .map_err(|error| Error::internal(format!("A call to a coordinator does not decode: {error}.")))?;
        Coordinator::new(&self.home()?).handle(&sync_id, command).await
    }

    async fn drive(&self) -> Result<(), Error> {
        Coordinator::new(&self.home()?).drive().await
    }
}

impl DurableObject for SyncCoordinator {
    fn new(state: State, env: Env) -> Self {
        let (instance, memory, cache) = (ids::job_id(&Platform), Memory::new(), Cache::default());
        Self { state, env, instance, memory, cache, has_table: Cell::new(false) }
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        let body = request.text().await?;
        reply(self.answer(&body).await)
    }

    async fn alarm(&self) -> Result<Response> {
        // The platform gives an alarm that fails at most six more tries: an error is logged, never passed on.
        if let Err(error) = self.drive().await {
            console_error!("A step of {} failed: {error}", self.state.id().name().unwrap_or_default());
            self.state.storage().set_alarm(ALARM_RETRY_MS).await?;
        }
        Response::empty()
    }
}

struct WorkerHome<'a, R> {
    env: Env,
    storage: Storage,
    documents: SqlDocuments,
    kv: Kv,
    registry: R,
    config: Config,
    instance: &'a str,
    memory: &'a Memory,
    cache: &'a Cache,
    has_table: &'a Cell<bool>,
}

impl<R: Registry> Home for WorkerHome<'_, R> {
    type Http = Fetcher;
    type Blobs = KvBlobs;
    type Documents = SqlDocuments;
    type Clock = Platform;
    type Entropy = Platform;
    type Registry = R;
    type Sink = BucketSink;

    fn http(&self) -> &Fetcher {
        &Fetcher
    }

    fn blobs(&self, sync_id: &str) -> KvBlobs {
        self.kv.blobs(sync_id)
    }

    fn documents(&self) -> &SqlDocuments {
        &self.documents
    }

    fn clock(&self) -> &Platform {
        &Platform
    }

    fn entropy(&self) -> &Platform {
        &Platform
    }

    fn registry(&self) -> &R {
        &self.registry
    }

    fn sinks(&self, sync: &SyncRecord) -> Vec<(String, BucketSink)> {
        let sink = |spec: &SinkSpec| match spec.kind {
            SinkKind::Catalogue => BucketSink {
                env: self.env.clone(),
                namespace_id: sync.namespace_id.clone(),
                target: CatalogueTarget {
                    bucket_id: sync.bucket_id.clone(),
                    sync_id: sync.sync_id.clone(),
                    connection_id: sync.connection_id.clone(),
                    source_bucket: sync.source.bucket().as_str().to_owned(),
                },
            },
        };
        sync.sinks.iter().map(|spec| (spec.sink_id.clone(), sink(spec))).collect()
    }

    fn config(&self) -> &Config {
        &self.config
    }

    fn instance(&self) -> &str {
        self.instance
    }

    fn memory(&self) -> Option<&Memory> {
        Some(self.memory)
    }

    async fn set_alarm(&self, at: Option<Timestamp>) -> Result<(), Error> {
        let failed = |error| storage_error("alarm", error);
        match at {
            // As an offset: an alarm at a time that has just passed is one that goes off at once.
            Some(at) => {
                let wait_ms = i64::try_from(at.millis_since(Platform.now())).unwrap_or(i64::MAX);
                self.storage.set_alarm(wait_ms).await.map_err(failed)
            }
            None => self.storage.delete_alarm().await.map_err(failed),
        }
    }

    async fn publish_job(&self, job: &JobRecord) -> Result<(), Error> {
        self.kv.publish(job).await
    }

    fn cache(&self) -> Option<&Cache> {
        Some(self.cache)
    }

    fn shards_max(&self) -> usize {
        if self.env.durable_object(bindings::SHARD).is_ok() { SHARDS_MAX } else { 0 }
    }

    async fn read_range(&self, shard: usize, call: RangeCall) -> Result<RangeAnswer, Error> {
        let answer = bindings::shard(&self.env, shard, &call).await;
        if let Err(error) = &answer {
            console_error!("Shard {shard} of {} could not read: {error}", call.sync_id());
        }
        answer
    }

    async fn feed_blobs(&self, sync_id: &str, cursor: Option<&str>) -> Result<(Vec<String>, Option<String>), Error> {
        self.kv.feed_blobs(sync_id, cursor).await
    }

    async fn wipe(&self, sync_id: &str) -> Result<bool, Error> {
        if !self.kv.wipe(sync_id).await? {
            return Ok(false);
        }
        let deleted = self.storage.delete_all().await;
        // Set after the wait: a call during it may have created the table before the deletion took effect.
        self.has_table.set(false);
        deleted.map_err(|error| storage_error("sync's storage", error))?;
        Ok(true)
    }
}

/// Delivers into the catalogue of the sync's target bucket.
struct BucketSink {
    env: Env,
    namespace_id: String,
    target: CatalogueTarget,
}

impl Sink for BucketSink {
    fn batch_max(&self) -> usize {
        APPLY_BATCH_MAX
    }

    async fn deliver(&self, changes: &[Change]) -> Result<Vec<Delivery>, Error> {
        let send = async |call| bindings::catalogue(&self.env, &self.namespace_id, &self.target.bucket_id, &call).await;
        CatalogueSink { send, clock: Platform, target: self.target.clone() }.deliver(changes).await
    }
}

/// Documents in the object's own SQLite: strongly consistent, and one statement is one transaction.
#[derive(Clone)]
pub struct SqlDocuments(SqlStorage);

#[derive(Deserialize)]
struct Row {
    revision: u64,
    value: Option<serde_bytes::ByteBuf>,
}

#[derive(Deserialize)]
struct Revision {
    revision: u64,
}

impl SqlDocuments {
    /// Those of the object that `sql` belongs to; creates their table where it is missing.
    ///
    /// # Errors
    /// [`b2sync_core::ErrorKind::Storage`].
    pub fn open(sql: SqlStorage) -> Result<Self, Error> {
        sql.exec(
            "CREATE TABLE IF NOT EXISTS documents (name TEXT PRIMARY KEY, revision INTEGER NOT NULL, value BLOB) \
             WITHOUT ROWID",
            None,
        )
        .map_err(|error| storage_error("sync's storage", error))?;
        Ok(Self(sql))
    }
}

impl DocumentStore for SqlDocuments {
    async fn load(&self, name: &str) -> Result<Option<Document>, Error> {
        let row: Option<Row> =
            sql::first(&self.0, "SELECT revision, value FROM documents WHERE name = ?", vec![name.into()])
                .map_err(|error| storage_error("sync's storage", error))?;
        Ok(row.and_then(|row| Some(Document { revision: row.revision, value: Bytes::from(row.value?.into_vec()) })))
    }

    async fn revision(&self, name: &str) -> Result<u64, Error> {
        let query = "SELECT revision FROM documents WHERE name = ? AND value IS NOT NULL";
        let row: Option<Revision> =
            sql::first(&self.0, query, vec![name.into()]).map_err(|error| storage_error("sync's storage", error))?;
        Ok(row.map_or(0, |row| row.revision))
    }

    async fn swap(&self, name: &str, expected: u64, value: Option<Bytes>) -> Result<Swapped, Error> {
        let failed = |error| storage_error("sync's storage", error);
        let value = value.map_or(worker::SqlStorageValue::Null, |value| value.to_vec().into());
        let expected = i64::try_from(expected).unwrap_or(i64::MAX);
        // A deleted document keeps its row, so that its revision never goes back.
        let row: Option<Revision> = if expected == 0 {
            sql::first(
                &self.0,
                "INSERT INTO documents (name, revision, value) VALUES (?, 1, ?) ON CONFLICT (name) DO UPDATE \
                 SET revision = revision + 1, value = excluded.value WHERE documents.value IS NULL RETURNING revision",
                vec![name.into(), value],
            )
        } else {
            sql::first(
                &self.0,
                "UPDATE documents SET revision = revision + 1, value = ? WHERE name = ? AND revision = ? AND value IS \
                 NOT NULL RETURNING revision",
                vec![value, name.into(), expected.into()],
            )
        }
        .map_err(failed)?;
        Ok(row.map_or(Swapped::Conflict, |row| Swapped::Done(row.revision)))
    }
}
