//! A change: what the feed of a sync says of one key.

use serde::{Deserialize, Serialize};

use crate::{
    entry::Entry,
    snapshot::{EtagTag, Known},
    time::Timestamp,
};

/// What happened to a key. Snake case when stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// The snapshot did not know the key.
    Created,
    /// ETag, size or last modified differ from what the snapshot knew; or a full sync hands the file over again.
    Updated,
    /// The key is gone, or no longer passes the filters.
    Deleted,
}

impl ChangeKind {
    /// `created`, `updated` or `deleted`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What a snapshot knew of a key before a change. It keeps less than a whole ETag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Previous {
    /// In bytes.
    pub size: u64,
    /// As the listing showed it then.
    pub last_modified: Timestamp,
    /// Stands for the ETag: of an MD5 the first half.
    pub tag: EtagTag,
}

impl From<&Known> for Previous {
    fn from(known: &Known) -> Self {
        Self { size: known.size, last_modified: known.last_modified, tag: known.tag }
    }
}

/// One change of one key, as it stands in the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The place in the feed of its sync: 1, 2, 3 … without gaps.
    pub position: u64,
    /// See [`change_id`].
    pub id: String,
    /// What happened.
    pub kind: ChangeKind,
    /// The version that was created, or that is gone. A deletion has an empty ETag.
    pub entry: Entry,
    /// What was known before: of an update or a deletion.
    pub previous: Option<Previous>,
    /// Whether the file is as before, and a full sync hands it over again.
    pub again: bool,
    /// When the change was appended to the feed.
    pub found_at: Timestamp,
    /// The job that found it.
    pub job_id: String,
}

/// A change that has no place in the feed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The listing shows a key that was not known, or another version of one that was.
    Appeared {
        /// As listed.
        entry: Entry,
        /// What was known; `None`: the key is new.
        previous: Option<Previous>,
    },
    /// A key that was known is gone.
    Vanished(Known),
    /// A file is as before, and is handed over again.
    Again(Entry),
}

impl Found {
    /// What happened to the key.
    pub const fn kind(&self) -> ChangeKind {
        match self {
            Self::Appeared { previous: None, .. } => ChangeKind::Created,
            Self::Appeared { previous: Some(_), .. } | Self::Again(_) => ChangeKind::Updated,
            Self::Vanished(_) => ChangeKind::Deleted,
        }
    }

    /// The change at `position`.
    pub fn at(self, position: u64, id: String, found_at: Timestamp, job_id: &str) -> Change {
        let (kind, again) = (self.kind(), matches!(self, Self::Again(_)));
        let (entry, previous) = match self {
            Self::Appeared { entry, previous } => (entry, previous),
            Self::Again(entry) => (entry, None),
            Self::Vanished(known) => {
                let previous = Some(Previous::from(&known));
                let Known { key, size, last_modified, .. } = known;
                (Entry { key, etag: String::new(), size, last_modified }, previous)
            }
        };
        Change { position, id, kind, entry, previous, again, found_at, job_id: job_id.to_owned() }
    }
}

/// What all ids of a sync's changes begin with: `chg_`, 16 hexadecimal digits that stand for the sync, `_`.
pub fn change_id_prefix(sync_id: &str) -> String {
    let hash = blake3::derive_key("b2sync 2026-11 change id: sync", sync_id.as_bytes());
    format!("chg_{}_", hex::encode(hash.get(..8).unwrap_or_default()))
}

/// The id of the change at a position of a sync's feed, the same in every home and every repetition. A version that
/// goes and comes back has two, since it has two positions.
///
/// ```
/// use b2sync_core::change::change_id;
/// assert_eq!(change_id("sync_a", 7), change_id("sync_a", 7));
/// assert_ne!(change_id("sync_a", 7), change_id("sync_b", 7));
/// assert!(change_id("sync_a", 7).ends_with("_7"));
/// ```
pub fn change_id(sync_id: &str, position: u64) -> String {
    format!("{}{position}", change_id_prefix(sync_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_the_sync_and_the_position() {
        // Pinned: receivers remember these ids across releases.
        assert_eq!(change_id("sync_1", 12), "chg_8afb0436e6817d22_12");
        assert_ne!(change_id("sync_1", 1), change_id("sync_11", 1));
    }

    #[test]
    fn a_deletion_says_what_was_known() {
        let entry = Entry { key: "a".into(), etag: "e".into(), size: 1, last_modified: Timestamp::from_millis(1) };
        let known = Known::from(&entry);
        let change = Found::Vanished(known.clone()).at(1, change_id("s", 1), Timestamp::from_millis(9), "job_1");
        assert_eq!((change.kind, change.entry.etag.as_str()), (ChangeKind::Deleted, ""));
        assert_eq!(change.previous, Some(Previous::from(&known)));
        let change = Found::Again(entry).at(2, change_id("s", 2), Timestamp::from_millis(9), "job_1");
        assert_eq!((change.kind, change.again, change.previous), (ChangeKind::Updated, true, None));
    }
}
