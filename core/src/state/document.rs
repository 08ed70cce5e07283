//! The one document that moves: the root of the snapshot, and the checkpoint of the job that works on the next one.
//!
//! Both are in one document, so that a job ends, its checkpoint goes and its snapshot becomes current in the same
//! compare-and-swap. The document also names the batches of the feed: the swap that makes root or checkpoint count a
//! change appends that change.
//!
//! Stored as JSON, `"v": 4`; any other version is refused.

use serde::{Deserialize, Serialize};

use crate::{
    entry::KeyOrder,
    error::{Error, ErrorKind},
    feed::Feed,
    filter::SeenRecord,
    job::JobCounts,
};
use crate::{
    snapshot::{
        Known,
        codec::DecodeError,
        cut::Begins,
        index::{self, Level, SegmentRef},
        names::{self, BlobName},
        segment,
    },
    state::embedded::{decode_bytes, encode_bytes},
};

/// The name of the document.
pub const DOCUMENT: &str = "snapshot";
/// The version that this code reads and writes.
pub const VERSION: u32 = 4;

/// The document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotDocument {
    /// The format's version.
    pub v: u32,
    /// The current snapshot.
    pub root: Root,
    /// Where the running job is; `None` between jobs.
    #[serde(default)]
    pub checkpoint: Option<Checkpoint>,
    /// The batches of the feed: all that root and checkpoint count, in order.
    #[serde(default)]
    pub feed: Feed,
}

impl Default for SnapshotDocument {
    fn default() -> Self {
        Self { v: VERSION, root: Root::default(), checkpoint: None, feed: Feed::default() }
    }
}

/// The current snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Root {
    /// Counts the snapshots of this sync. Never goes back.
    pub generation: u64,
    /// The name of the index: of its top, or of its only leaf; `None`: the snapshot is empty.
    pub index: Option<String>,
    /// How many entries the snapshot has, `undeleted` among them.
    pub entries: u64,
    /// The sum of their sizes, in bytes.
    pub bytes: u64,
    /// How many entries the latest snapshot had that a whole listing gave, where a job that broke off has changed it
    /// since; `None`: this is that snapshot.
    pub entries_listed: Option<u64>,
    /// The order in which this bucket was seen to list its keys.
    pub order: KeyOrder,
    /// Files that the snapshot counts and its index does not name: a job found them gone, and broke off before it
    /// appended their deletions to the feed. The next job compares its listing with them as well.
    pub undeleted: Vec<KnownPart>,
    /// A full sync that handed over as many files as one job may, and is not through.
    pub resync: Option<Resync>,
    /// Blobs that the snapshot before this one named and this one does not. They are kept until the root moves next, so
    /// that a reader who still holds the older root finds them meanwhile.
    pub retired: NameList,
    /// Blobs that were retired before those, and are not deleted yet.
    pub garbage: NameList,
    /// The job that moved the root here: should its end go unheard, its last step can be told again.
    pub job: Option<RootJob>,
}

/// A full sync: every file is handed over once more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resync {
    /// The job that was asked to.
    pub job_id: String,
    /// Files before this key are handed over; `None`: none is.
    pub from: Option<String>,
}

/// Files as a snapshot knows them, kept beside it, in the order of keys: a part of a list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KnownPart {
    /// The first key in it.
    pub first_key: String,
    /// How many files are in it.
    pub count: u64,
    /// How many of them are dealt with, from the first on.
    #[serde(skip_serializing_if = "is_default")]
    pub skip: u64,
    /// The blob with them, an encoded segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob: Option<String>,
    /// The encoded segment itself, base64, where there are few.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Names of blobs: lists of them in blobs, and the rest in place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NameList {
    /// Blobs with encoded names.
    pub blobs: Vec<String>,
    /// Encoded names ([`crate::snapshot::names`]), base64.
    pub tail: Option<String>,
}

impl NameList {
    /// Whether it lists nothing.
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty() && self.tail.is_none()
    }
}

/// How a job ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootJob {
    /// The job.
    pub job_id: String,
    /// As in [`Checkpoint::fingerprint`].
    pub fingerprint: String,
    /// What it found.
    pub counts: JobCounts,
    /// As in [`Checkpoint::objects_found`].
    pub objects_found: u64,
    /// How many entries the snapshot before had.
    pub known_before: u64,
    /// Whether it ended before all was compared, because it had found as many files as it might.
    pub limited: bool,
    /// Deletions that it held back.
    pub deletions_held: u64,
    /// What it saw of the filters.
    pub seen: SeenRecord,
}

/// All that a job needs to go on after it was cut off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Checkpoint {
    /// The job.
    pub job_id: String,
    /// The listing: the first job that worked on it, of several that broke off for a passing reason.
    pub listing_id: String,
    /// Of the source path and the filters; a checkpoint made under others is settled.
    pub fingerprint: String,
    /// Whether the listing was read to its end, or as far as this job may go, and only deletions remain to be appended.
    pub listed: bool,
    /// Whether the job ended its listing early, because it has found as many files as it may.
    pub limited: bool,
    /// The listing goes on after this key. A key, never a token: tokens expire.
    pub start_after: Option<String>,
    /// What the snapshot knew before this key is dealt with; `None`: nothing is.
    pub covered_to: Option<String>,
    /// The entries of the segment that is not complete yet, encoded with their whole ETags, base64.
    pub pending_tail: Option<String>,
    /// The blob with those entries, where they are too many to stand here.
    pub pending: Option<String>,
    /// What the first of those entries begins, where what is closed before it may have to be opened again for it.
    pub pending_begins: Option<Begins>,
    /// Whether the last segment that is closed goes on behind `covered_to`, unless a key there begins another.
    pub unfinished: bool,
    /// The blobs with the leaves closed so far, each a top of the index, and behind them those in `leaves_tail`.
    pub leaves: Vec<String>,
    /// An encoded top, base64.
    pub leaves_tail: Option<String>,
    /// The segments of the leaf that is not closed yet: an encoded leaf, base64.
    pub segments: Option<String>,
    /// The deletions found so far, appended to the feed or not.
    pub deletions: Vec<KnownPart>,
    /// Files that the next root keeps as [`Root::undeleted`]: the job ended its listing before it came to them.
    pub undeleted: Vec<KnownPart>,
    /// Once the listing is read: the full sync that the next root keeps as [`Root::resync`], if the job was limited.
    pub resync: Option<Resync>,
    /// How many deletions were found.
    pub deletions_found: u64,
    /// How many of them are dealt with: appended to the feed, or not asked for.
    pub deletions_done: u64,
    /// Of the deletions found, how many were looked for in the bucket before the first was appended, where that
    /// matters.
    pub deletions_checked: u64,
    /// Of these, how many are to be appended.
    pub deletions_due: u64,
    /// How many were appended, where each was looked for once more.
    pub deletions_appended: u64,
    /// How many created and updated files were found.
    pub objects_found: u64,
    /// What was found so far.
    pub counts: JobCounts,
    /// What was seen of the filters so far.
    pub seen: SeenRecord,
    /// The order of keys as far as it is known.
    pub order: KeyOrder,
    /// The leaves of the old index and of the next one that were looked into, each with its segments behind it.
    pub looked_into: NameList,
    /// Blobs that this job stored for its checkpoints alone.
    pub scratch: Vec<String>,
}

impl Root {
    /// Of how many entries the limit of deletions is a part. What broken-off jobs added does not raise it.
    pub fn entries_to_guard(&self) -> u64 {
        self.entries_listed.filter(|listed| *listed > 0).map_or(self.entries, |listed| listed.min(self.entries))
    }
}

impl SnapshotDocument {
    /// The blobs in `scratch/` that it names, except [`Checkpoint::scratch`]: those that are still needed.
    pub fn scratch_named(&self) -> impl Iterator<Item = &str> {
        let root = &self.root;
        let lists = root.retired.blobs.iter().chain(&root.garbage.blobs);
        let checkpoint = self.checkpoint.iter().flat_map(|it| {
            let parts = it.deletions.iter().chain(&it.undeleted).filter_map(|part| part.blob.as_ref());
            it.leaves.iter().chain(&it.pending).chain(&it.looked_into.blobs).chain(parts)
        });
        let beside = root.undeleted.iter().filter_map(|part| part.blob.as_ref());
        lists.chain(checkpoint).chain(beside).map(String::as_str)
    }

    /// Reads the stored document.
    ///
    /// # Errors
    /// [`ErrorKind::StateCorrupt`] when it is not JSON of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let corrupt = |why: String| {
            Error::new(
                ErrorKind::StateCorrupt,
                format!("The stored snapshot document cannot be read: {why}."),
                "Use the version of b2sync that wrote it, or delete the sync and create it again to list the bucket \
                 afresh.",
            )
        };
        let document: Self = serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))?;
        if document.v != VERSION {
            return Err(corrupt(format!("it has version {}, and this b2sync reads version {VERSION}", document.v)));
        }
        Ok(document)
    }

    /// The bytes to store.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`]; it does not happen.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self)
            .map_err(|error| Error::internal(format!("The snapshot document does not encode: {error}.")))
    }
}

/// Encodes a node of an index to stand in the document itself.
pub fn encode_node(level: Level, items: &[SegmentRef]) -> Option<String> {
    (!items.is_empty()).then(|| encode_bytes(&index::encode(level, items)))
}

/// Decodes what [`encode_node`] wrote.
///
/// # Errors
/// [`DecodeError`] on any other text.
pub fn decode_node(text: Option<&str>) -> Result<Vec<SegmentRef>, DecodeError> {
    text.map_or(Ok(Vec::new()), |text| Ok(index::decode(&decode_bytes(text)?)?.1))
}

/// A part of a list of known files that stands in the document itself; `None` for no file.
pub fn encode_known(entries: &[Known]) -> Option<KnownPart> {
    let first_key = entries.first()?.key.clone();
    let tail = Some(encode_bytes(&segment::encode(entries.iter())));
    Some(KnownPart { first_key, count: entries.len() as u64, skip: 0, blob: None, tail })
}

/// Decodes what [`encode_known`] wrote, all of it, also what is to be skipped.
///
/// # Errors
/// [`DecodeError`] on any other text.
pub fn decode_known(text: Option<&str>) -> Result<Vec<Known>, DecodeError> {
    text.map_or(Ok(Vec::new()), |text| segment::decode(&decode_bytes(text)?))
}

/// Encodes names to stand in the document itself.
pub fn encode_names(salt: u64, names: &[BlobName]) -> Option<String> {
    (!names.is_empty()).then(|| encode_bytes(&names::encode(salt, names)))
}

/// Decodes what [`encode_names`] wrote.
///
/// # Errors
/// [`DecodeError`] on any other text.
pub fn decode_names(text: Option<&str>) -> Result<Vec<BlobName>, DecodeError> {
    text.map_or(Ok(Vec::new()), |text| names::decode(&decode_bytes(text)?))
}

#[cfg(test)]
mod tests {
    use crate::state::document::*;

    #[test]
    fn another_version_is_not_guessed_at() {
        let error = SnapshotDocument::decode(br#"{"v":3,"root":{}}"#).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StateCorrupt);
        assert!(error.message().contains("version 3"), "{error}");
        assert_eq!(SnapshotDocument::decode(b"").unwrap_err().kind(), ErrorKind::StateCorrupt);
        let document = SnapshotDocument { checkpoint: Some(Checkpoint::default()), ..SnapshotDocument::default() };
        assert_eq!(SnapshotDocument::decode(&document.encode().unwrap()).unwrap(), document);
    }
}
