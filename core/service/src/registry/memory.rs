//! A registry in memory.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    Claim, ConnectionQuery, ConnectionRecord, ConnectionRow, DueSync, Poked, Record, Registry, Rows, SyncQuery,
    SyncRecord, SyncRow,
    plan::{self, ConnectionFacts, ExistingConnection},
    refusals,
};
use b2sync_core::{error::Error, time::Timestamp};

/// A registry in memory, for tests and for embedding.
#[derive(Debug, Default)]
pub struct MemoryRegistry(RefCell<Tables>);

#[derive(Debug, Default)]
struct Tables {
    connections: BTreeMap<String, ConnectionRecord>,
    syncs: BTreeMap<String, (SyncRecord, Option<Timestamp>)>,
    claims: BTreeMap<String, Claim>,
    /// The ids of records that cannot be read.
    damaged: BTreeSet<String>,
}

impl Tables {
    fn name_owner(&self, name: &str) -> Option<&str> {
        self.live().find(|record| record.name == name).map(|record| record.connection_id.as_str())
    }

    fn in_bucket(&self, namespace_id: &str, bucket_id: &str) -> u64 {
        let all = self.syncs.values().map(|(record, _)| record);
        all.filter(|it| it.namespace_id == namespace_id && it.bucket_id == bucket_id).count() as u64
    }

    fn facts(&self, record: &ConnectionRecord) -> ConnectionFacts {
        let existing =
            |stored: &ConnectionRecord| ExistingConnection { revision: stored.revision, archived: stored.archived };
        ConnectionFacts {
            same_id: self.connections.get(&record.connection_id).map(existing),
            name_owner: self.name_owner(&record.name).map(str::to_owned),
            live: self.live().count() as u64,
        }
    }

    /// The connections that are not archived.
    fn live(&self) -> impl Iterator<Item = &ConnectionRecord> {
        self.connections.values().filter(|record| !record.archived)
    }

    fn text(&self, id: &str, record: &impl Record) -> Result<String, Error> {
        if self.damaged.contains(id) { Ok("{".to_owned()) } else { record.to_stored() }
    }

    fn connection_row(&self, record: &ConnectionRecord) -> Result<ConnectionRow, Error> {
        Ok(ConnectionRow {
            connection_id: record.connection_id.clone(),
            name: record.name.clone(),
            created_at: record.created_at,
            record: self.text(&record.connection_id, record)?,
        })
    }

    fn sync_row(&self, record: &SyncRecord) -> Result<SyncRow, Error> {
        Ok(SyncRow {
            sync_id: record.sync_id.clone(),
            namespace_id: record.namespace_id.clone(),
            bucket_id: record.bucket_id.clone(),
            connection_id: record.connection_id.clone(),
            created_at: record.created_at,
            record: self.text(&record.sync_id, record)?,
        })
    }

    fn revision_of_sync(&self, sync_id: &str) -> Option<u64> {
        self.syncs.get(sync_id).map(|(record, _)| record.revision)
    }

    fn put_connection(&mut self, record: ConnectionRecord) -> ConnectionRecord {
        self.connections.insert(record.connection_id.clone(), record.clone());
        record
    }
}

impl MemoryRegistry {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// For tests: what is stored under this id can no longer be read.
    pub fn damage(&self, id: &str) {
        self.0.borrow_mut().damaged.insert(id.to_owned());
    }
}

impl Registry for MemoryRegistry {
    async fn insert_connection(&self, record: ConnectionRecord) -> Result<ConnectionRecord, Error> {
        let mut tables = self.0.borrow_mut();
        let facts = tables.facts(&record);
        let record = plan::plan_connection_insert(record, &facts)?;
        Ok(tables.put_connection(record))
    }

    async fn check_new_connection(&self, name: &str) -> Result<(), Error> {
        let tables = self.0.borrow();
        plan::plan_new_connection(name, tables.name_owner(name), tables.live().count() as u64)
    }

    async fn find_connection(&self, id_or_name: &str) -> Result<Option<ConnectionRow>, Error> {
        let tables = self.0.borrow();
        let by_name = || tables.live().find(|record| record.name == id_or_name);
        let found = tables.connections.get(id_or_name).or_else(by_name);
        found.map(|record| tables.connection_row(record)).transpose()
    }

    async fn update_connection(&self, record: ConnectionRecord, expected: u64) -> Result<ConnectionRecord, Error> {
        let mut tables = self.0.borrow_mut();
        let facts = tables.facts(&record);
        let record = plan::plan_connection_update(record, expected, &facts)?;
        Ok(tables.put_connection(record))
    }

    async fn delete_connection(&self, connection_id: &str) -> Result<bool, Error> {
        Ok(self.0.borrow_mut().connections.remove(connection_id).is_some())
    }

    async fn connections(&self, query: &ConnectionQuery) -> Result<Rows<ConnectionRow>, Error> {
        let tables = self.0.borrow();
        let mut all: Vec<_> = tables.connections.values().filter(|record| query.takes(record)).collect();
        all.sort_by(|a, b| (b.created_at, &b.connection_id).cmp(&(a.created_at, &a.connection_id)));
        let Rows { rows, total, more } =
            query.section.of(all, |record| (record.created_at, record.connection_id.as_str()));
        let rows = rows.into_iter().map(|record| tables.connection_row(record)).collect::<Result<_, _>>()?;
        Ok(Rows { rows, total, more })
    }

    async fn insert_sync(&self, record: SyncRecord) -> Result<SyncRecord, Error> {
        let mut tables = self.0.borrow_mut();
        let in_bucket = tables.in_bucket(&record.namespace_id, &record.bucket_id);
        let revision = tables.revision_of_sync(&record.sync_id);
        let record = plan::plan_sync_insert(record, revision, in_bucket)?;
        tables.syncs.insert(record.sync_id.clone(), (record.clone(), Some(plan::plan_first_poke(&record))));
        Ok(record)
    }

    async fn check_new_sync(&self, namespace_id: &str, bucket_id: &str) -> Result<(), Error> {
        plan::plan_new_sync(self.0.borrow().in_bucket(namespace_id, bucket_id))
    }

    async fn find_sync(&self, sync_id: &str) -> Result<Option<SyncRow>, Error> {
        let tables = self.0.borrow();
        tables.syncs.get(sync_id).map(|(record, _)| tables.sync_row(record)).transpose()
    }

    async fn update_sync(&self, record: SyncRecord, expected: u64) -> Result<SyncRecord, Error> {
        let mut tables = self.0.borrow_mut();
        let revision = tables.revision_of_sync(&record.sync_id);
        let record = plan::plan_sync_update(record, expected, revision)?;
        if let Some((stored, _)) = tables.syncs.get_mut(&record.sync_id) {
            stored.clone_from(&record);
        }
        Ok(record)
    }

    async fn delete_sync(&self, sync_id: &str) -> Result<bool, Error> {
        let mut tables = self.0.borrow_mut();
        tables.claims.retain(|_, claim| claim.id != sync_id);
        Ok(tables.syncs.remove(sync_id).is_some())
    }

    async fn syncs(&self, query: &SyncQuery) -> Result<Rows<SyncRow>, Error> {
        let tables = self.0.borrow();
        let all = tables.syncs.values().map(|(record, _)| record);
        let mut all: Vec<_> = all.filter(|record| query.takes(record)).collect();
        all.sort_by(|a, b| (b.created_at, &b.sync_id).cmp(&(a.created_at, &a.sync_id)));
        let Rows { rows, total, more } = query.section.of(all, |record| (record.created_at, record.sync_id.as_str()));
        let rows = rows.into_iter().map(|record| tables.sync_row(record)).collect::<Result<_, _>>()?;
        Ok(Rows { rows, total, more })
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

    async fn poked(&self, pokes: &[Poked]) -> Result<(), Error> {
        let syncs = &mut self.0.borrow_mut().syncs;
        for Poked { due, next } in pokes {
            if let Some((_, after)) = syncs.get_mut(&due.sync_id)
                && *after == Some(due.since)
            {
                *after = *next;
            }
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

    async fn claim(&self, claim: Claim) -> Result<Claim, Error> {
        let mut tables = self.0.borrow_mut();
        let since = plan::plan_claims_since(claim.at);
        tables.claims.retain(|_, claim| claim.at >= since);
        let Tables { connections, syncs, claims, .. } = &mut *tables;
        let kept = claims.entry(claim.key.clone()).or_insert_with(|| claim.clone());
        if !connections.contains_key(&kept.id) && !syncs.contains_key(&kept.id) {
            kept.fingerprint = claim.fingerprint;
        }
        Ok(kept.clone())
    }

    async fn purge(&self, archived_until: Timestamp, limit: usize) -> Result<u64, Error> {
        let mut tables = self.0.borrow_mut();
        let is_needed = |id: &str| tables.syncs.values().any(|(sync, _)| sync.connection_id == id);
        let is_over = |it: &&ConnectionRecord| plan::plan_archived_at(it).is_some_and(|at| at <= archived_until);
        let over = tables.connections.values().filter(is_over).map(|it| it.connection_id.clone());
        let over: Vec<_> = over.filter(|id| !is_needed(id)).take(limit).collect();
        over.iter().for_each(|id| {
            tables.connections.remove(id);
        });
        Ok(over.len() as u64)
    }
}
