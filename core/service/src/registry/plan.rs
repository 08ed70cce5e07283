//! What the registry decides. Pure: every home's registry looks up what a plan asks for, decides by it, and writes what
//! it answers, with nothing else in between.

use super::{CLAIM_MS, CONNECTIONS_MAX, ConnectionRecord, SYNCS_PER_BUCKET_MAX, SyncRecord, refusals};
use b2sync_core::{error::Error, time::Timestamp};

/// What a registry holds that decides about writing a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionFacts {
    /// The connection with the id of the record.
    pub same_id: Option<ExistingConnection>,
    /// The id of the connection that has the name of the record and is not archived.
    pub name_owner: Option<String>,
    /// How many connections are not archived.
    pub live: u64,
}

/// What is stored under the id of a connection that is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExistingConnection {
    /// How often it was written.
    pub revision: u64,
    /// Whether it was deleted. That is final.
    pub archived: bool,
}

/// Whether a new connection may be created: there is room, and its name is free.
///
/// # Errors
/// [`refusals::too_many`], [`refusals::name_taken`].
pub fn plan_new_connection(name: &str, name_owner: Option<&str>, live: u64) -> Result<(), Error> {
    if live >= CONNECTIONS_MAX as u64 {
        let advice = "Archive connections that you no longer use (DELETE), or change an existing one with PATCH.";
        return Err(refusals::too_many("connections", CONNECTIONS_MAX, advice));
    }
    match name_owner {
        Some(_) => Err(refusals::name_taken(name)),
        None => Ok(()),
    }
}

/// The record to insert.
///
/// # Errors
/// Those of [`plan_new_connection`]; [`refusals::id_taken`].
pub fn plan_connection_insert(record: ConnectionRecord, facts: &ConnectionFacts) -> Result<ConnectionRecord, Error> {
    if facts.same_id.is_some() {
        return Err(refusals::id_taken(&record.connection_id));
    }
    if !record.archived {
        plan_new_connection(&record.name, facts.name_owner.as_deref(), facts.live)?;
    }
    Ok(ConnectionRecord { revision: 1, ..record })
}

/// The record to replace the stored one, which was read with the revision `expected`.
///
/// # Errors
/// [`refusals::missing`], [`refusals::moved`], [`refusals::archived`], [`refusals::name_taken`].
pub fn plan_connection_update(
    record: ConnectionRecord,
    expected: u64,
    facts: &ConnectionFacts,
) -> Result<ConnectionRecord, Error> {
    let id = &record.connection_id;
    let stored = facts.same_id.ok_or_else(|| refusals::missing(id))?;
    let revision = plan_revision(id, stored.revision, expected)?;
    if stored.archived {
        return Err(refusals::archived(&record.name));
    }
    let taken = facts.name_owner.as_ref().is_some_and(|owner| owner != id);
    if taken && !record.archived {
        return Err(refusals::name_taken(&record.name));
    }
    Ok(ConnectionRecord { revision, ..record })
}

/// Whether a bucket that has `in_bucket` syncs may get another.
///
/// # Errors
/// [`refusals::too_many`].
pub fn plan_new_sync(in_bucket: u64) -> Result<(), Error> {
    if in_bucket >= SYNCS_PER_BUCKET_MAX as u64 {
        return Err(refusals::too_many("syncs in this bucket", SYNCS_PER_BUCKET_MAX, "Delete one first."));
    }
    Ok(())
}

/// The record to insert. `revision` is that of the sync with its id, if there is one.
///
/// # Errors
/// Those of [`plan_new_sync`]; [`refusals::id_taken`].
pub fn plan_sync_insert(record: SyncRecord, revision: Option<u64>, in_bucket: u64) -> Result<SyncRecord, Error> {
    if revision.is_some() {
        return Err(refusals::id_taken(&record.sync_id));
    }
    plan_new_sync(in_bucket)?;
    Ok(SyncRecord { revision: 1, ..record })
}

/// The record to replace the stored one, which was read with the revision `expected` and has `revision` now.
///
/// # Errors
/// [`refusals::missing`], [`refusals::moved`].
pub fn plan_sync_update(record: SyncRecord, expected: u64, revision: Option<u64>) -> Result<SyncRecord, Error> {
    let stored = revision.ok_or_else(|| refusals::missing(&record.sync_id))?;
    let revision = plan_revision(&record.sync_id, stored, expected)?;
    Ok(SyncRecord { revision, ..record })
}

/// The revision of a record that replaces another.
fn plan_revision(id: &str, stored: u64, expected: u64) -> Result<u64, Error> {
    if stored != expected {
        return Err(refusals::moved(id));
    }
    Ok(stored.saturating_add(1))
}

/// When a new sync is to be poked first: at once, so that the cron finds it even if its creation was cut off.
pub fn plan_first_poke(record: &SyncRecord) -> Timestamp {
    record.created_at
}

/// Claims made before this are forgotten.
pub fn plan_claims_since(now: Timestamp) -> Timestamp {
    now.plus_millis(-CLAIM_MS)
}

/// Since when a connection is archived: an archived one does not change, so its last write is what archived it.
pub fn plan_archived_at(record: &ConnectionRecord) -> Option<Timestamp> {
    record.archived.then_some(record.updated_at)
}
