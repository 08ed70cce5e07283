//! Where state is kept: immutable blobs, and small documents that move by compare-and-swap.

use std::{cell::RefCell, collections::BTreeMap};

use bytes::Bytes;

use crate::error::Error;

/// Immutable values by name. May be eventually consistent: a value just written may be invisible elsewhere for a
/// while. That is harmless, because a name is never given to a second value.
pub trait BlobStore {
    /// The value called `name`; `None` when there is none, or when it is not visible here yet.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Storage`].
    async fn get(&self, name: &str) -> Result<Option<Bytes>, Error>;

    /// Stores `value` as `name`. Storing the same value again is harmless.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Storage`].
    async fn put(&self, name: &str, value: Bytes) -> Result<(), Error>;

    /// Removes `name`; no error when there is no such value.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Storage`].
    async fn delete(&self, name: &str) -> Result<(), Error>;
}

/// A document with the revision that a later [`DocumentStore::swap`] must name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Counts the writes to this name, from 1. Never goes back, not even after a deletion.
    pub revision: u64,
    /// The content.
    pub value: Bytes,
}

/// How a [`DocumentStore::swap`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swapped {
    /// Written; the document's new revision.
    Done(u64),
    /// Another writer moved it first: nothing was written.
    Conflict,
}

/// Small documents, strongly consistent: a read sees every write that was acknowledged before it.
pub trait DocumentStore {
    /// The document called `name`; `None` when there is none.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Storage`].
    async fn load(&self, name: &str) -> Result<Option<Document>, Error>;

    /// The revision of the document called `name`; 0 when there is none.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Storage`].
    async fn revision(&self, name: &str) -> Result<u64, Error> {
        Ok(self.load(name).await?.map_or(0, |document| document.revision))
    }

    /// Replaces the document if its revision is still `expected` (0: if there is none). `None` as `value` deletes
    /// it. Nothing is written on a conflict.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Storage`].
    async fn swap(&self, name: &str, expected: u64, value: Option<Bytes>) -> Result<Swapped, Error>;
}

impl<T: BlobStore + ?Sized> BlobStore for &T {
    async fn get(&self, name: &str) -> Result<Option<Bytes>, Error> {
        (**self).get(name).await
    }

    async fn put(&self, name: &str, value: Bytes) -> Result<(), Error> {
        (**self).put(name, value).await
    }

    async fn delete(&self, name: &str) -> Result<(), Error> {
        (**self).delete(name).await
    }
}

impl<T: DocumentStore + ?Sized> DocumentStore for &T {
    async fn load(&self, name: &str) -> Result<Option<Document>, Error> {
        (**self).load(name).await
    }

    async fn revision(&self, name: &str) -> Result<u64, Error> {
        (**self).revision(name).await
    }

    async fn swap(&self, name: &str, expected: u64, value: Option<Bytes>) -> Result<Swapped, Error> {
        (**self).swap(name, expected, value).await
    }
}

/// Blobs in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryBlobs(RefCell<BTreeMap<String, Bytes>>);

impl MemoryBlobs {
    /// All names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.0.borrow().keys().cloned().collect()
    }

    /// All values, in the order of their names.
    pub fn values(&self) -> Vec<Bytes> {
        self.0.borrow().values().cloned().collect()
    }
}

impl BlobStore for MemoryBlobs {
    async fn get(&self, name: &str) -> Result<Option<Bytes>, Error> {
        Ok(self.0.borrow().get(name).cloned())
    }

    async fn put(&self, name: &str, value: Bytes) -> Result<(), Error> {
        self.0.borrow_mut().insert(name.to_owned(), value);
        Ok(())
    }

    async fn delete(&self, name: &str) -> Result<(), Error> {
        self.0.borrow_mut().remove(name);
        Ok(())
    }
}

/// Documents in memory. A deleted one leaves its revision behind.
#[derive(Clone, Debug, Default)]
pub struct MemoryDocuments(RefCell<BTreeMap<String, (u64, Option<Bytes>)>>);

impl MemoryDocuments {
    /// All values, in the order of their names.
    pub fn values(&self) -> Vec<Bytes> {
        self.0.borrow().values().filter_map(|(_, value)| value.clone()).collect()
    }
}

impl DocumentStore for MemoryDocuments {
    async fn load(&self, name: &str) -> Result<Option<Document>, Error> {
        let documents = self.0.borrow();
        let found = documents.get(name).and_then(|(revision, value)| Some((*revision, value.clone()?)));
        Ok(found.map(|(revision, value)| Document { revision, value }))
    }

    async fn swap(&self, name: &str, expected: u64, value: Option<Bytes>) -> Result<Swapped, Error> {
        let mut documents = self.0.borrow_mut();
        let (revision, present) =
            documents.get(name).map_or((0, false), |(revision, value)| (*revision, value.is_some()));
        if expected != if present { revision } else { 0 } {
            return Ok(Swapped::Conflict);
        }
        documents.insert(name.to_owned(), (revision + 1, value));
        Ok(Swapped::Done(revision + 1))
    }
}
