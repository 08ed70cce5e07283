//! A registry at the other end of a channel of calls.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Claim, ConnectionQuery, ConnectionRecord, ConnectionRow, DueSync, Poked, Registry, Rows, SyncAndConnectionRows,
    SyncQuery, SyncRecord, SyncRow,
};
use b2sync_core::{error::Error, error_wire::ErrorWire, time::Timestamp};

/// One call to a registry, as it crosses to a Durable Object: a method of [`Registry`] and its arguments. The answer is
/// what the method answers.
#[allow(missing_docs)] // The fields are the arguments, which the methods describe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistryCall {
    InsertConnection { record: Box<ConnectionRecord> },
    CheckNewConnection { name: String },
    FindConnection { id_or_name: String },
    UpdateConnection { record: Box<ConnectionRecord>, expected: u64 },
    DeleteConnection { connection_id: String },
    Connections { query: ConnectionQuery },
    InsertSync { record: Box<SyncRecord> },
    CheckNewSync { namespace_id: String, bucket_id: String },
    FindSync { sync_id: String },
    FindSyncAndConnection { sync_id: String },
    UpdateSync { record: Box<SyncRecord>, expected: u64 },
    DeleteSync { sync_id: String },
    Syncs { query: SyncQuery },
    Due { at: Timestamp, limit: usize },
    Poked { pokes: Vec<Poked> },
    SetPokeAfter { sync_id: String, at: Option<Timestamp> },
    Claim { claim: Claim },
    Purge { archived_until: Timestamp, limit: usize },
}

/// Carries calls to a registry and answers back. Implemented by each home.
pub trait Channel {
    /// Sends a call and reads its answer: a `Result<T, ErrorWire>` as JSON.
    ///
    /// # Errors
    /// That of the call; [`b2sync_core::ErrorKind::Storage`] when the registry cannot be reached, or its answer cannot
    /// be read.
    async fn call<T: DeserializeOwned>(&self, call: &RegistryCall) -> Result<T, Error>;
}

/// Answers a call from any registry, as JSON: a `Result<T, ErrorWire>`, `T` being what the method answers.
pub async fn apply(registry: &impl Registry, call: RegistryCall) -> String {
    use RegistryCall as Call;
    match call {
        Call::InsertConnection { record } => answer(registry.insert_connection(*record).await),
        Call::CheckNewConnection { name } => answer(registry.check_new_connection(&name).await),
        Call::FindConnection { id_or_name } => answer(registry.find_connection(&id_or_name).await),
        Call::UpdateConnection { record, expected } => answer(registry.update_connection(*record, expected).await),
        Call::DeleteConnection { connection_id } => answer(registry.delete_connection(&connection_id).await),
        Call::Connections { query } => answer(registry.connections(&query).await),
        Call::InsertSync { record } => answer(registry.insert_sync(*record).await),
        Call::CheckNewSync { namespace_id, bucket_id } => {
            answer(registry.check_new_sync(&namespace_id, &bucket_id).await)
        }
        Call::FindSync { sync_id } => answer(registry.find_sync(&sync_id).await),
        Call::FindSyncAndConnection { sync_id } => answer(registry.find_sync_and_connection(&sync_id).await),
        Call::UpdateSync { record, expected } => answer(registry.update_sync(*record, expected).await),
        Call::DeleteSync { sync_id } => answer(registry.delete_sync(&sync_id).await),
        Call::Syncs { query } => answer(registry.syncs(&query).await),
        Call::Due { at, limit } => answer(registry.due(at, limit).await),
        Call::Poked { pokes } => answer(registry.poked(&pokes).await),
        Call::SetPokeAfter { sync_id, at } => answer(registry.set_poke_after(&sync_id, at).await),
        Call::Claim { claim } => answer(registry.claim(claim).await),
        Call::Purge { archived_until, limit } => answer(registry.purge(archived_until, limit).await),
    }
}

/// Answers a call that came as JSON: all that a Durable Object has to do.
pub async fn apply_json(registry: &impl Registry, call: &str) -> String {
    match serde_json::from_str(call) {
        Ok(call) => apply(registry, call).await,
        Err(error) => answer::<()>(Err(Error::internal(format!("A call to the registry does not decode: {error}.")))),
    }
}

fn answer<T: Serialize>(result: Result<T, Error>) -> String {
    // The other end cannot read an empty text, and says so.
    serde_json::to_string(&result.map_err(ErrorWire::from)).unwrap_or_default()
}

/// A [`Registry`] at the other end of a [`Channel`].
#[derive(Clone, Debug)]
pub struct RemoteRegistry<C>(pub C);

impl<C: Channel> Registry for RemoteRegistry<C> {
    async fn insert_connection(&self, record: ConnectionRecord) -> Result<ConnectionRecord, Error> {
        self.0.call(&RegistryCall::InsertConnection { record: Box::new(record) }).await
    }

    async fn check_new_connection(&self, name: &str) -> Result<(), Error> {
        self.0.call(&RegistryCall::CheckNewConnection { name: name.to_owned() }).await
    }

    async fn find_connection(&self, id_or_name: &str) -> Result<Option<ConnectionRow>, Error> {
        self.0.call(&RegistryCall::FindConnection { id_or_name: id_or_name.to_owned() }).await
    }

    async fn update_connection(&self, record: ConnectionRecord, expected: u64) -> Result<ConnectionRecord, Error> {
        self.0.call(&RegistryCall::UpdateConnection { record: Box::new(record), expected }).await
    }

    async fn delete_connection(&self, connection_id: &str) -> Result<bool, Error> {
        self.0.call(&RegistryCall::DeleteConnection { connection_id: connection_id.to_owned() }).await
    }

    async fn connections(&self, query: &ConnectionQuery) -> Result<Rows<ConnectionRow>, Error> {
        self.0.call(&RegistryCall::Connections { query: query.clone() }).await
    }

    async fn insert_sync(&self, record: SyncRecord) -> Result<SyncRecord, Error> {
        self.0.call(&RegistryCall::InsertSync { record: Box::new(record) }).await
    }

    async fn check_new_sync(&self, namespace_id: &str, bucket_id: &str) -> Result<(), Error> {
        let (namespace_id, bucket_id) = (namespace_id.to_owned(), bucket_id.to_owned());
        self.0.call(&RegistryCall::CheckNewSync { namespace_id, bucket_id }).await
    }

    async fn find_sync(&self, sync_id: &str) -> Result<Option<SyncRow>, Error> {
        self.0.call(&RegistryCall::FindSync { sync_id: sync_id.to_owned() }).await
    }

    async fn find_sync_and_connection(&self, sync_id: &str) -> Result<Option<SyncAndConnectionRows>, Error> {
        self.0.call(&RegistryCall::FindSyncAndConnection { sync_id: sync_id.to_owned() }).await
    }

    async fn update_sync(&self, record: SyncRecord, expected: u64) -> Result<SyncRecord, Error> {
        self.0.call(&RegistryCall::UpdateSync { record: Box::new(record), expected }).await
    }

    async fn delete_sync(&self, sync_id: &str) -> Result<bool, Error> {
        self.0.call(&RegistryCall::DeleteSync { sync_id: sync_id.to_owned() }).await
    }

    async fn syncs(&self, query: &SyncQuery) -> Result<Rows<SyncRow>, Error> {
        self.0.call(&RegistryCall::Syncs { query: query.clone() }).await
    }

    async fn due(&self, at: Timestamp, limit: usize) -> Result<Vec<DueSync>, Error> {
        self.0.call(&RegistryCall::Due { at, limit }).await
    }

    async fn poked(&self, pokes: &[Poked]) -> Result<(), Error> {
        self.0.call(&RegistryCall::Poked { pokes: pokes.to_vec() }).await
    }

    async fn set_poke_after(&self, sync_id: &str, at: Option<Timestamp>) -> Result<(), Error> {
        self.0.call(&RegistryCall::SetPokeAfter { sync_id: sync_id.to_owned(), at }).await
    }

    async fn claim(&self, claim: Claim) -> Result<Claim, Error> {
        self.0.call(&RegistryCall::Claim { claim }).await
    }

    async fn purge(&self, archived_until: Timestamp, limit: usize) -> Result<u64, Error> {
        self.0.call(&RegistryCall::Purge { archived_until, limit }).await
    }
}
