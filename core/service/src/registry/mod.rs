//! The registry: connections and syncs, as their users configured them.
//!
//! It decides nothing but what only one place can decide: that a name is free, that a record is still the one that was
//! read, and which syncs are due. It is strongly consistent: a read sees every write acknowledged before it. On Workers
//! it is one Durable Object, called through [`RegistryCall`]; [`apply`] makes any [`Registry`] answer such calls and
//! [`RemoteRegistry`] is the other end. What is refused, and what a record becomes, is decided in [`plan`], once for
//! all homes; a home only looks up and stores.
//!
//! **Invariants.** A record's revision counts its writes from 1 and every update names the revision it read. Of the
//! connections that are not archived, no two have the same name. A new sync is due at once, so that the cron finds it
//! even if its creation was cut off. An archived connection does not change. The application key is only ever here
//! sealed. A record that cannot be read hides no other: lists hold text, and each record is read by itself.

mod memory;
pub mod plan;
mod records;
mod remote;
mod rows;

use serde::{Deserialize, Serialize};

use b2sync_core::{
    error::{Error, ErrorKind},
    time::Timestamp,
};

pub use self::{memory::MemoryRegistry, records::*, remote::*, rows::*};

/// Keeps connections and syncs. Implemented by each home; [`crate::conformance::registry`] says what it must do.
///
/// # Errors
/// Besides what each method names: [`ErrorKind::Storage`], and [`ErrorKind::StateCorrupt`] for a record that does not
/// decode.
pub trait Registry {
    /// Stores a new connection and returns it, its revision now 1.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: field `name`, when another connection that is not archived has the name; when the id is
    /// taken; when there are [`CONNECTIONS_MAX`] that are not archived.
    async fn insert_connection(&self, record: ConnectionRecord) -> Result<ConnectionRecord, Error>;

    /// Whether [`Self::insert_connection`] would now accept a new connection with that name.
    ///
    /// # Errors
    /// As it.
    async fn check_new_connection(&self, name: &str) -> Result<(), Error>;

    /// The connection with that id, or else the one with that name that is not archived; as it is stored.
    async fn find_connection(&self, id_or_name: &str) -> Result<Option<ConnectionRow>, Error>;

    /// The record of [`Self::find_connection`].
    async fn connection(&self, id_or_name: &str) -> Result<Option<ConnectionRecord>, Error> {
        self.find_connection(id_or_name).await?.map(|row| row.read()).transpose()
    }

    /// Replaces a connection whose revision is still `expected` and returns it with its new revision.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::StateConflict`] when it has another revision; [`ErrorKind::Conflict`] when
    /// it is archived, and, with the field `name`, when the name is taken.
    async fn update_connection(&self, record: ConnectionRecord, expected: u64) -> Result<ConnectionRecord, Error>;

    /// Removes a connection, whether its record can be read or not; says whether there was one. What is to be
    /// remembered as archived is updated instead.
    async fn delete_connection(&self, connection_id: &str) -> Result<bool, Error>;

    /// Connections, newest first (by `created_at`, then by id).
    async fn connections(&self, query: &ConnectionQuery) -> Result<Rows<ConnectionRow>, Error>;

    /// Stores a new sync and returns it, its revision now 1. It is due at its `created_at`.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the id is taken, or the bucket has [`SYNCS_PER_BUCKET_MAX`] syncs.
    async fn insert_sync(&self, record: SyncRecord) -> Result<SyncRecord, Error>;

    /// Whether [`Self::insert_sync`] would now accept a new sync of that bucket.
    ///
    /// # Errors
    /// As it.
    async fn check_new_sync(&self, namespace_id: &str, bucket_id: &str) -> Result<(), Error>;

    /// One sync, as it is stored.
    async fn find_sync(&self, sync_id: &str) -> Result<Option<SyncRow>, Error>;

    /// The record of [`Self::find_sync`].
    async fn sync(&self, sync_id: &str) -> Result<Option<SyncRecord>, Error> {
        self.find_sync(sync_id).await?.map(|row| row.read()).transpose()
    }

    /// One sync, and its connection, as they are stored.
    async fn find_sync_and_connection(&self, sync_id: &str) -> Result<Option<SyncAndConnectionRows>, Error> {
        let Some(sync) = self.find_sync(sync_id).await? else { return Ok(None) };
        let connection = self.find_connection(&sync.connection_id).await?;
        Ok(Some((sync, connection)))
    }

    /// The records of [`Self::find_sync_and_connection`].
    async fn sync_and_connection(&self, sync_id: &str) -> Result<Option<SyncAndConnection>, Error> {
        let Some((sync, connection)) = self.find_sync_and_connection(sync_id).await? else { return Ok(None) };
        Ok(Some((sync.read()?, connection.map(|row| row.read()).transpose()?)))
    }

    /// Replaces a sync whose revision is still `expected` and returns it with its new revision.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::StateConflict`] when it has another revision.
    async fn update_sync(&self, record: SyncRecord, expected: u64) -> Result<SyncRecord, Error>;

    /// Removes a sync, whether its record can be read or not, and the claims of its id; says whether there was one.
    async fn delete_sync(&self, sync_id: &str) -> Result<bool, Error>;

    /// Syncs, newest first (by `created_at`, then by id).
    async fn syncs(&self, query: &SyncQuery) -> Result<Rows<SyncRow>, Error>;

    /// At most `limit` syncs to poke at `at`, longest overdue first.
    async fn due(&self, at: Timestamp, limit: usize) -> Result<Vec<DueSync>, Error>;

    /// Makes syncs that were due, and were poked, due next at their times, or never; except those of which
    /// [`Self::set_poke_after`] has said otherwise meanwhile, and those that are gone.
    async fn poked(&self, pokes: &[Poked]) -> Result<(), Error>;

    /// Makes a sync due at that time, or never. Does not count as a write of its record.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    async fn set_poke_after(&self, sync_id: &str, at: Option<Timestamp>) -> Result<(), Error>;

    /// Keeps a claim for [`CLAIM_MS`], unless there is one of the same key, and answers the one that is kept. While no
    /// record has the id that is kept, its fingerprint becomes that of `claim`: what failed may be sent again changed.
    async fn claim(&self, claim: Claim) -> Result<Claim, Error>;

    /// Removes at most `limit` connections that were archived at that time or before it and that no sync names; says
    /// how many.
    async fn purge(&self, archived_until: Timestamp, limit: usize) -> Result<u64, Error>;
}

/// How long a claim is kept, in milliseconds: a day.
pub const CLAIM_MS: i64 = 24 * 3_600_000;

/// The id of what a request creates, kept so that the request can be sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// What names the request.
    pub key: String,
    /// Differs if the request does.
    pub fingerprint: String,
    /// The id of the record that the request creates.
    pub id: String,
    /// When it was first sent.
    pub at: Timestamp,
}

/// A sync, and the connection that it names, if there is one.
pub type SyncAndConnection = (SyncRecord, Option<ConnectionRecord>);

/// A sync that is to be poked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DueSync {
    /// Since when.
    pub since: Timestamp,
    /// `sync_…`
    pub sync_id: String,
}

/// A sync that was poked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poked {
    /// What was due.
    pub due: DueSync,
    /// When it is due next; `None`: never.
    pub next: Option<Timestamp>,
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

    /// A limit is reached. `advice` says how to make room.
    pub fn too_many(what: &str, max: usize, advice: &str) -> Error {
        Error::new(ErrorKind::Conflict, format!("Limit reached: {max} {what}."), advice)
    }

    /// A connection that was deleted is to change.
    pub fn archived(name: &str) -> Error {
        Error::new(
            ErrorKind::Conflict,
            format!("The connection {name:?} was deleted."),
            "Deleting is final. Create a new connection.",
        )
    }

    /// An id that exists.
    pub fn id_taken(id: &str) -> Error {
        Error::new(ErrorKind::Conflict, format!("{id} exists already."), "Try again: b2sync draws another id.")
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

#[cfg(test)]
mod tests {
    use pollster::block_on;
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::conformance::registry::{connection, registry_conformance, sync};
    use b2sync_core::{error_wire::ErrorWire, filter::FilterSpec, policy::DeletionLimit};

    /// Calls and answers cross as text, as they do to a Durable Object.
    struct Loop(MemoryRegistry);

    impl Channel for Loop {
        async fn call<T: DeserializeOwned>(&self, call: &RegistryCall) -> Result<T, Error> {
            let answer = apply_json(&self.0, &serde_json::to_string(call).unwrap()).await;
            serde_json::from_str::<Result<T, ErrorWire>>(&answer).unwrap().map_err(Error::from)
        }
    }

    #[test]
    fn memory_conforms() {
        block_on(registry_conformance(async || MemoryRegistry::new())).unwrap();
    }

    #[test]
    fn a_remote_one_conforms() {
        block_on(registry_conformance(async || RemoteRegistry(Loop(MemoryRegistry::new())))).unwrap();
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
    fn sections_follow_each_other() {
        let items = vec![(5, "b"), (5, "a"), (4, "z"), (1, "c")];
        let section = |after: Option<(i64, &str)>, offset, limit| {
            let after = after.map(|(at, id)| (Timestamp::from_millis(at), id.to_owned()));
            let section = Section { after, offset, limit };
            section.of(items.clone(), |(at, id)| (Timestamp::from_millis(*at), id))
        };
        assert_eq!(section(None, 0, 2), Rows { rows: vec![(5, "b"), (5, "a")], total: 4, more: true });
        assert_eq!(section(Some((5, "b")), 0, 2), Rows { rows: vec![(5, "a"), (4, "z")], total: 4, more: true });
        // The one it begins behind may be gone.
        assert_eq!(section(Some((5, "aa")), 1, 9), Rows { rows: vec![(4, "z"), (1, "c")], total: 4, more: false });
        assert_eq!(section(None, 9, 2), Rows { rows: vec![], total: 4, more: false });
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
    fn what_is_no_call_is_an_error() {
        let answer = block_on(apply_json(&MemoryRegistry::new(), "{}"));
        let answer: Result<(), ErrorWire> = serde_json::from_str(&answer).unwrap();
        assert_eq!(Error::from(answer.unwrap_err()).kind(), ErrorKind::Internal);
    }
}
