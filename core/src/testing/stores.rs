//! Stores in memory that break off when they are told to, and that tell a watcher of every write.

use std::cell::Cell;

use bytes::Bytes;

use crate::{
    error::{Error, ErrorKind, Retry},
    store::{BlobStore, Document, DocumentStore, MemoryBlobs, MemoryDocuments, Swapped},
};

/// Is told of every write that took place, whether or not the writer hears of it.
pub trait Watcher {
    /// A blob is about to be stored.
    fn storing(&self, _: &MemoryBlobs, _name: &str, _value: &Bytes) {}

    /// A blob is about to be deleted.
    fn deleting(&self, _: &MemoryBlobs, _name: &str) {}

    /// A document was replaced.
    fn swapped(&self, _: &MemoryBlobs, _: &MemoryDocuments) {}
}

/// No watcher.
impl Watcher for () {}

/// Blobs and documents that break off at the n-th effect, before or after it happened.
#[derive(Debug, Default)]
pub struct BreakingStores<W = ()> {
    /// The blobs, for looks that are not counted.
    pub blobs: MemoryBlobs,
    /// The documents, for looks that are not counted.
    pub documents: MemoryDocuments,
    /// Who is told of every write.
    pub watcher: W,
    /// Writes and deletions so far.
    pub effects: Cell<u64>,
    /// Blobs that were asked for.
    pub gets: Cell<u64>,
    /// The effect that breaks, and whether it happens all the same.
    pub breaks_at: Cell<Option<(u64, bool)>>,
}

impl<W> BreakingStores<W> {
    /// Whether the effect that begins now breaks off after it happened.
    fn begins(&self) -> Result<bool, Error> {
        self.effects.set(self.effects.get() + 1);
        match self.breaks_at.get() {
            Some((at, false)) if at == self.effects.get() => Err(broken()),
            Some((at, true)) if at == self.effects.get() => Ok(true),
            _ => Ok(false),
        }
    }
}

/// The error of an effect that broke off.
pub fn broken() -> Error {
    Error::new(ErrorKind::Storage, "Broken off.", "").with_retry(Retry::Temporary)
}

impl<W: Watcher> BlobStore for BreakingStores<W> {
    async fn get(&self, name: &str) -> Result<Option<Bytes>, Error> {
        self.gets.set(self.gets.get() + 1);
        self.blobs.get(name).await
    }

    async fn put(&self, name: &str, value: Bytes) -> Result<(), Error> {
        let breaks = self.begins()?;
        self.watcher.storing(&self.blobs, name, &value);
        self.blobs.put(name, value).await?;
        if breaks { Err(broken()) } else { Ok(()) }
    }

    async fn delete(&self, name: &str) -> Result<(), Error> {
        let breaks = self.begins()?;
        self.watcher.deleting(&self.blobs, name);
        self.blobs.delete(name).await?;
        if breaks { Err(broken()) } else { Ok(()) }
    }
}

impl<W: Watcher> DocumentStore for BreakingStores<W> {
    async fn load(&self, name: &str) -> Result<Option<Document>, Error> {
        self.documents.load(name).await
    }

    async fn swap(&self, name: &str, expected: u64, value: Option<Bytes>) -> Result<Swapped, Error> {
        let breaks = self.begins()?;
        let swapped = self.documents.swap(name, expected, value).await?;
        if swapped != Swapped::Conflict {
            self.watcher.swapped(&self.blobs, &self.documents);
        }
        if breaks { Err(broken()) } else { Ok(swapped) }
    }
}
