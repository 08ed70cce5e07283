//! Changes, and where they are delivered.

use std::{cell::RefCell, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use crate::{
    entry::Entry,
    error::Error,
    snapshot::{EtagTag, Known},
};

/// What happened to a key. Snake case when stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// The key was not in the snapshot.
    Created,
    /// ETag, size or last modified differ from the snapshot.
    Updated,
    /// The key is gone, or matches the filters no longer.
    Deleted,
}

impl ChangeKind {
    /// `created`, `updated` or `deleted`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
        }
    }
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `chg_` and 32 hexadecimal digits: a hash of (sync, key, kind, version). A change that is delivered again has
    /// the same id, so a receiver can tell.
    pub id: String,
    /// What happened.
    pub kind: ChangeKind,
    /// The version that was created, or that is gone. A deletion has an empty ETag: a snapshot keeps only what is
    /// needed to tell versions apart.
    pub entry: Entry,
}

impl Change {
    /// A key that is new, or has another version than before (`kind`: created or updated).
    pub fn appeared(sync_id: &str, kind: ChangeKind, entry: Entry) -> Self {
        Self { id: change_id(sync_id, kind, &Known::from(&entry)), kind, entry }
    }

    /// A key that is as before, and is handed over again because a job was asked to.
    pub fn resynced(sync_id: &str, job_id: &str, entry: Entry) -> Self {
        let version = Known::from(&entry);
        let context = "b2sync 2026-11 change id of a full sync v1";
        Self { id: hashed_id(context, [sync_id, &version.key, job_id], &version), kind: ChangeKind::Updated, entry }
    }

    /// A key that is gone.
    pub fn deleted(sync_id: &str, known: Known) -> Self {
        let id = change_id(sync_id, ChangeKind::Deleted, &known);
        let Known { key, size, last_modified, .. } = known;
        Self { id, kind: ChangeKind::Deleted, entry: Entry { key, etag: String::new(), size, last_modified } }
    }
}

/// The id of a change: a hash of (sync, key, kind, version), the same in every home and in every repetition.
pub fn change_id(sync_id: &str, kind: ChangeKind, version: &Known) -> String {
    hashed_id("b2sync 2026-11 change id v1", [sync_id, &version.key, kind.as_str()], version)
}

fn hashed_id(context: &str, texts: [&str; 3], version: &Known) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for text in texts {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    let EtagTag(tag) = version.tag;
    hasher.update(&tag);
    hasher.update(&version.size.to_le_bytes());
    hasher.update(&version.last_modified.as_millis().to_le_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    format!("chg_{}", hex::encode(id))
}

/// What the sink did with one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Taken, now or by an earlier delivery of the same id.
    Delivered,
    /// Refused, with the reason in words; other changes of the batch are not affected.
    Refused(String),
}

/// Delivers changes, at least once. Implemented by each home.
pub trait Sink {
    /// The most changes one call takes.
    fn batch_max(&self) -> usize;

    /// Delivers `changes`, in this order, and answers for each of them, in this order.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Sink`] when it is unknown what became of the batch; the engine delivers all of it again.
    async fn deliver(&self, changes: &[Change]) -> Result<Vec<Delivery>, Error>;
}

/// Takes every change and remembers all deliveries, in order.
#[derive(Debug, Default)]
pub struct MemorySink(RefCell<Vec<Change>>);

impl MemorySink {
    /// Every change delivered so far, repetitions included.
    pub fn deliveries(&self) -> Vec<Change> {
        self.0.borrow().clone()
    }

    /// What somebody who applied all deliveries in order, each id once a version, would have: the current versions.
    pub fn current(&self) -> BTreeMap<String, Entry> {
        let mut current = BTreeMap::new();
        for change in self.0.borrow().iter() {
            match change.kind {
                ChangeKind::Deleted => current.remove(&change.entry.key),
                _ => current.insert(change.entry.key.clone(), change.entry.clone()),
            };
        }
        current
    }
}

impl Sink for MemorySink {
    fn batch_max(&self) -> usize {
        100
    }

    async fn deliver(&self, changes: &[Change]) -> Result<Vec<Delivery>, Error> {
        self.0.borrow_mut().extend_from_slice(changes);
        Ok(vec![Delivery::Delivered; changes.len()])
    }
}

impl<T: Sink + ?Sized> Sink for &T {
    fn batch_max(&self) -> usize {
        (**self).batch_max()
    }

    async fn deliver(&self, changes: &[Change]) -> Result<Vec<Delivery>, Error> {
        (**self).deliver(changes).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn the_id_depends_on_every_part() {
        let entry = Entry { key: "a".into(), etag: "e".into(), size: 1, last_modified: Timestamp::from_millis(1) };
        let base = Change::appeared("sync_1", ChangeKind::Created, entry.clone());
        // Pinned: receivers remember these ids across releases.
        assert_eq!(base.id, "chg_0f14a77b01546a440339a0918a7cf281");
        assert_eq!(base.id, Change::appeared("sync_1", ChangeKind::Created, entry.clone()).id);
        let others = [
            Change::appeared("sync_2", ChangeKind::Created, entry.clone()),
            Change::appeared("sync_1", ChangeKind::Updated, entry.clone()),
            Change::appeared("sync_1", ChangeKind::Created, Entry { key: "b".into(), ..entry.clone() }),
            Change::appeared("sync_1", ChangeKind::Created, Entry { etag: "f".into(), ..entry.clone() }),
            Change::appeared("sync_1", ChangeKind::Created, Entry { size: 2, ..entry.clone() }),
            Change::appeared(
                "sync_1",
                ChangeKind::Created,
                Entry { last_modified: Timestamp::from_millis(2), ..entry.clone() },
            ),
            Change::deleted("sync_1", Known::from(&entry)),
        ];
        for other in others {
            assert_ne!(other.id, base.id, "{other:?}");
        }
    }
}
