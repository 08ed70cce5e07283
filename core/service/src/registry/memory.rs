//! A registry in memory.

use std::{cell::RefCell, collections::BTreeMap};

use super::{ConnectionRecord, DueSync, Registry, SyncQuery, SyncRecord, refusals};
use b2sync_core::{error::Error, time::Timestamp};

/// A registry in memory, for tests and for embedding.
#[derive(Debug, Default)]
pub struct MemoryRegistry(RefCell<Tables>);

#[derive(Debug, Default)]
struct Tables {
    connections: BTreeMap<String, ConnectionRecord>,
    syncs: BTreeMap<String, (SyncRecord, Option<Timestamp>)>,
}

impl Tables {
    fn check_name(&self, record: &ConnectionRecord) -> Result<(), Error> {
        let taken = |other: &ConnectionRecord| {
            !other.archived && other.name == record.name && other.connection_id != record.connection_id
        };
        if !record.archived && self.connections.values().any(taken) {
            return Err(refusals::name_taken(&record.name));
        }
        Ok(())
    }
}

impl MemoryRegistry {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Registry for MemoryRegistry {
    async fn insert_connection(&self, mut record: ConnectionRecord) -> Result<ConnectionRecord, Error> {
        let mut tables = self.0.borrow_mut();
        tables.check_name(&record)?;
        if tables.connections.contains_key(&record.connection_id) {
            return Err(refusals::id_taken(&record.connection_id));
        }
        record.revision = 1;
        tables.connections.insert(record.connection_id.clone(), record.clone());
        Ok(record)
    }

    async fn connection(&self, id_or_name: &str) -> Result<Option<ConnectionRecord>, Error> {
        let tables = self.0.borrow();
        let by_name = || tables.connections.values().find(|record| !record.archived && record.name == id_or_name);
        Ok(tables.connections.get(id_or_name).or_else(by_name).cloned())
    }

    async fn update_connection(&self, mut record: ConnectionRecord, expected: u64) -> Result<ConnectionRecord, Error> {
        let mut tables = self.0.borrow_mut();
        match tables.connections.get(&record.connection_id) {
            None => return Err(refusals::missing(&record.connection_id)),
            Some(now) if now.revision != expected => return Err(refusals::moved(&record.connection_id)),
            Some(_) => tables.check_name(&record)?,
        }
        record.revision = expected.saturating_add(1);
        tables.connections.insert(record.connection_id.clone(), record.clone());
        Ok(record)
    }

    async fn connections(&self) -> Result<Vec<ConnectionRecord>, Error> {
        let mut records: Vec<_> = self.0.borrow().connections.values().cloned().collect();
        records.sort_by(|a, b| (b.created_at, &b.connection_id).cmp(&(a.created_at, &a.connection_id)));
        Ok(records)
    }

    async fn insert_sync(&self, mut record: SyncRecord) -> Result<SyncRecord, Error> {
        let mut tables = self.0.borrow_mut();
        if tables.syncs.contains_key(&record.sync_id) {
            return Err(refusals::id_taken(&record.sync_id));
        }
        record.revision = 1;
        tables.syncs.insert(record.sync_id.clone(), (record.clone(), Some(record.created_at)));
        Ok(record)
    }

    async fn sync(&self, sync_id: &str) -> Result<Option<SyncRecord>, Error> {
        Ok(self.0.borrow().syncs.get(sync_id).map(|(record, _)| record.clone()))
    }

    async fn update_sync(&self, mut record: SyncRecord, expected: u64) -> Result<SyncRecord, Error> {
        let mut tables = self.0.borrow_mut();
        let Some((now, _)) = tables.syncs.get_mut(&record.sync_id) else {
            return Err(refusals::missing(&record.sync_id));
        };
        if now.revision != expected {
            return Err(refusals::moved(&record.sync_id));
        }
        record.revision = expected.saturating_add(1);
        *now = record.clone();
        Ok(record)
    }

    async fn delete_sync(&self, sync_id: &str) -> Result<bool, Error> {
        Ok(self.0.borrow_mut().syncs.remove(sync_id).is_some())
    }

    async fn syncs(&self, query: &SyncQuery) -> Result<Vec<SyncRecord>, Error> {
        let wanted = |record: &&SyncRecord| match query {
            SyncQuery::Bucket { namespace_id, bucket_id } => {
                record.namespace_id == *namespace_id && record.bucket_id == *bucket_id
            }
            SyncQuery::Connection { connection_id } => record.connection_id == *connection_id,
        };
        let tables = self.0.borrow();
        let mut records: Vec<_> = tables.syncs.values().map(|(record, _)| record).filter(wanted).cloned().collect();
        records.sort_by(|a, b| (b.created_at, &b.sync_id).cmp(&(a.created_at, &a.sync_id)));
        Ok(records)
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

    async fn poked(&self, due: &DueSync, next: Option<Timestamp>) -> Result<(), Error> {
        if let Some((_, after)) = self.0.borrow_mut().syncs.get_mut(&due.sync_id)
            && *after == Some(due.since)
        {
            *after = next;
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
}
