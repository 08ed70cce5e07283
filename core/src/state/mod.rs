//! Reading and storing what the engine keeps, counted.

pub mod document;
pub mod embedded;
pub mod feed;
pub mod names;

use std::cell::Cell;

use bytes::Bytes;

use crate::{
    error::{Error, ErrorKind, Retry},
    mutation::{self, Mutation},
    snapshot::{
        ContentHash, Known,
        index::{self, Level, SegmentRef},
        packed, segment,
    },
    state::{
        document::SnapshotDocument,
        feed::{BatchRef, ListRef, decode_list},
    },
    store::{BlobStore, DocumentStore, Swapped},
};

/// The stores of one sync, with a count of what they were asked.
#[derive(Debug)]
pub struct State<'a, B, D> {
    blobs: &'a B,
    documents: &'a D,
    reads: Cell<u64>,
    writes: Cell<u64>,
    deletions: Cell<u64>,
}

/// How long to wait before a value that is not there is looked for again, in milliseconds. Workers KV shows a value
/// within 60 s or more, and remembers for as long that there was none.
pub const VISIBLE_AFTER_MS: u64 = 60_000;

fn add_one(counter: &Cell<u64>) {
    counter.set(counter.get().saturating_add(1));
}

/// What the names of segments' blobs begin with.
const SEGMENTS: &str = "segment/";

/// The name of a segment's blob.
pub fn segment_name(hash: ContentHash) -> String {
    format!("{SEGMENTS}{hash}")
}

/// The name of a blob that only checkpoints and lists name.
pub fn scratch_name(bytes: &[u8]) -> String {
    format!("scratch/{}", ContentHash::of(bytes))
}

/// What the names of the blobs of an index's nodes begin with.
const NODES: &str = "index/";

/// The name of the blob of an index's node.
pub fn node_name(hash: ContentHash) -> String {
    format!("{NODES}{hash}")
}

/// Whether that is the name of the blob of an index's node.
pub fn is_node(name: &str) -> bool {
    name.starts_with(NODES)
}

impl<'a, B: BlobStore, D: DocumentStore> State<'a, B, D> {
    /// Begins to count.
    pub fn new(blobs: &'a B, documents: &'a D) -> Self {
        Self { blobs, documents, reads: Cell::new(0), writes: Cell::new(0), deletions: Cell::new(0) }
    }

    /// Reads so far.
    pub fn reads(&self) -> u64 {
        self.reads.get()
    }

    /// Writes so far; deletions of what nothing names any more are not among them.
    pub fn writes(&self) -> u64 {
        self.writes.get()
    }

    /// Deletions so far.
    pub fn deletions(&self) -> u64 {
        self.deletions.get()
    }

    /// Reads, writes and deletions so far.
    pub fn requests(&self) -> u64 {
        self.reads.get() + self.writes.get() + self.deletions.get()
    }

    /// The snapshot document and its revision; a new sync has an empty one of revision 0.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`], [`ErrorKind::StateCorrupt`].
    pub async fn load_document(&self) -> Result<(SnapshotDocument, u64), Error> {
        add_one(&self.reads);
        match self.documents.load(document::DOCUMENT).await? {
            Some(document) => Ok((SnapshotDocument::decode(&document.value)?, document.revision)),
            None => Ok((SnapshotDocument::default(), 0)),
        }
    }

    /// Moves the snapshot document on from revision `expected`, and answers its new revision.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`]; [`ErrorKind::StateConflict`] when another writer moved it first.
    pub async fn swap_document(&self, expected: u64, document: &SnapshotDocument) -> Result<u64, Error> {
        add_one(&self.writes);
        match self.documents.swap(document::DOCUMENT, expected, Some(document.encode()?.into())).await? {
            Swapped::Done(revision) => Ok(revision),
            Swapped::Conflict => Err(Error::new(
                ErrorKind::StateConflict,
                "Another step changed the state of this sync at the same time.",
                "Nothing is lost. Run the step again: it resumes from the newer state.",
            )
            .with_retry(Retry::Temporary)),
        }
    }

    /// Reads a blob that a root or a checkpoint names.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`]; [`ErrorKind::StateMissing`] when it is not there, which may be for a while only;
    /// [`ErrorKind::StateCorrupt`] when it is not what its name is the hash of.
    pub async fn read(&self, name: &str) -> Result<Bytes, Error> {
        add_one(&self.reads);
        let value = self.blobs.get(name).await?.ok_or_else(|| {
            Error::new(
                ErrorKind::StateMissing,
                format!("The stored value {name:?} is not there (yet)."),
                "An eventually consistent store shows it within minutes; the step is repeated. If it stays missing, \
                 delete the sync and create it again to list afresh.",
            )
            .with_retry(Retry::Temporary)
            .with_retry_after_ms(Some(VISIBLE_AFTER_MS))
        })?;
        let value = match packed::unpack(&value).map_err(|error| error.into_error(name))? {
            Some(plain) => plain.into(),
            None => value,
        };
        // Every blob is named by its content. What a listing gives is hashed anyway, and of the snapshot only what
        // changed is read: this costs less than decoding it does.
        let hash = name.rsplit('/').next().and_then(ContentHash::parse);
        if hash != Some(ContentHash::of(&value)) {
            return Err(Error::new(
                ErrorKind::StateCorrupt,
                format!("The stored value {name:?} is not what was stored under this name: its hash is another."),
                "Something else writes to the store, or it lost bytes. Delete the sync and create it again to list the \
                 bucket afresh.",
            ));
        }
        Ok(value)
    }

    /// Stores a blob; a segment is deflated.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn write(&self, name: &str, value: Vec<u8>) -> Result<(), Error> {
        add_one(&self.writes);
        let value = if name.starts_with(SEGMENTS) { packed::pack(value) } else { value };
        self.blobs.put(name, value.into()).await
    }

    /// Stores a blob that is named after its content, and answers the name.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn write_named(&self, folder: &str, value: Vec<u8>) -> Result<String, Error> {
        let named_by = if mutation::is_on(Mutation::OneName) { &[][..] } else { &value };
        let name = format!("{folder}/{}", ContentHash::of(named_by));
        self.write(&name, value).await?;
        Ok(name)
    }

    /// Deletes a blob that nothing names any more.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        add_one(&self.deletions);
        self.blobs.delete(name).await
    }

    /// Reads a node of an index.
    ///
    /// # Errors
    /// As [`State::read`]; [`ErrorKind::StateCorrupt`].
    pub async fn read_node(&self, name: &str) -> Result<(Level, Vec<SegmentRef>), Error> {
        index::decode(&self.read(name).await?).map_err(|error| error.into_error(name))
    }

    /// Reads a segment.
    ///
    /// # Errors
    /// As [`State::read`]; [`ErrorKind::StateCorrupt`].
    pub async fn read_segment(&self, name: &str) -> Result<Vec<Known>, Error> {
        segment::decode(&self.read(name).await?).map_err(|error| error.into_error(name))
    }

    /// Reads a list of batches.
    ///
    /// # Errors
    /// As [`State::read`]; [`ErrorKind::StateCorrupt`].
    pub async fn read_batches(&self, list: &ListRef) -> Result<Vec<BatchRef>, Error> {
        decode_list(&self.read(&list.blob).await?).map_err(|error| error.into_error(&list.blob))
    }
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use crate::state::*;
    use crate::store::{MemoryBlobs, MemoryDocuments};

    #[test]
    fn a_blob_that_is_not_what_its_name_says_is_corrupt() {
        let (blobs, documents) = (MemoryBlobs::default(), MemoryDocuments::default());
        let state = State::new(&blobs, &documents);
        let leaf = index::encode(Level::Leaf, &[]);
        let segment = segment::encode([].iter());
        let node = node_name(ContentHash::of(&leaf));
        let name = segment_name(ContentHash::of(&segment));
        block_on(async {
            state.write(&node, leaf.clone()).await.unwrap();
            state.write(&name, segment.clone()).await.unwrap();
            assert_eq!(state.read_node(&node).await.unwrap(), (Level::Leaf, vec![]));
            assert_eq!(state.read_segment(&name).await.unwrap(), vec![]);
            // Both decode, and are not what was asked for; nor is one under a name that is no hash.
            let another = segment_name(ContentHash::of(b"another"));
            state.write(&another, segment.clone()).await.unwrap();
            state.write("segment/x", segment).await.unwrap();
            let other_leaf = node_name(ContentHash::of(b"another"));
            state.write(&other_leaf, leaf).await.unwrap();
            for error in [
                state.read_segment(&another).await.unwrap_err(),
                state.read_segment("segment/x").await.unwrap_err(),
                state.read_node(&other_leaf).await.unwrap_err(),
            ] {
                assert_eq!(error.kind(), ErrorKind::StateCorrupt);
                assert!(!error.is_transient() && error.to_string().contains("create it again"), "{error}");
            }
        });
    }
}
