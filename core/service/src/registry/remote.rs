//! A registry at the other end of a channel of calls.

use serde::{Deserialize, Serialize};

use super::{ConnectionRecord, DueSync, Registry, SyncAndConnection, SyncQuery, SyncRecord};
use b2sync_core::{
    error::{Error, ErrorKind},
    error_wire::ErrorWire,
    time::Timestamp,
};

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
    /// [`Registry::sync_and_connection`]
    SyncAndConnection {
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
    /// A sync and its connection, or none.
    SyncAndConnection(Option<Box<SyncAndConnection>>),
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
        RegistryCall::SyncAndConnection { sync_id } => {
            RegistryAnswer::SyncAndConnection(registry.sync_and_connection(&sync_id).await?.map(Box::new))
        }
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
        RegistryAnswer::SyncAndConnection(Some(_)) => "a sync and its connection",
        RegistryAnswer::Connection(None) | RegistryAnswer::Sync(None) | RegistryAnswer::SyncAndConnection(None) => {
            "nothing"
        }
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

    async fn sync_and_connection(&self, sync_id: &str) -> Result<Option<SyncAndConnection>, Error> {
        match self.0(RegistryCall::SyncAndConnection { sync_id: sync_id.to_owned() }).await? {
            RegistryAnswer::SyncAndConnection(found) => Ok(found.map(|found| *found)),
            other => Err(unexpected(&other)),
        }
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
