//! The stores of a sync, as the host implements them.

use b2sync_core::{
    Error, ErrorKind, Retry,
    store::{BlobStore, Document, DocumentStore, Swapped},
};
use bytes::Bytes;

use crate::bindings::b2sync::embed::state;

/// The host's `state`, for one sync.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'a> {
    pub(crate) sync_id: &'a str,
}

fn storage(what: &str, name: &str, reason: &str) -> Error {
    Error::new(
        ErrorKind::Storage,
        format!("The host's store could not {what} {name:?}: {reason}."),
        "Nothing is lost. Make the same call again once the store works.",
    )
    .with_retry(Retry::Temporary)
}

impl BlobStore for Host<'_> {
    async fn get(&self, name: &str) -> Result<Option<Bytes>, Error> {
        let value = state::get_blob(self.sync_id, name).map_err(|reason| storage("read", name, &reason))?;
        Ok(value.map(Bytes::from))
    }

    async fn put(&self, name: &str, value: Bytes) -> Result<(), Error> {
        state::put_blob(self.sync_id, name, &value).map_err(|reason| storage("write", name, &reason))
    }

    async fn delete(&self, name: &str) -> Result<(), Error> {
        state::delete_blob(self.sync_id, name).map_err(|reason| storage("delete", name, &reason))
    }
}

impl DocumentStore for Host<'_> {
    async fn load(&self, name: &str) -> Result<Option<Document>, Error> {
        let document = state::load_document(self.sync_id, name).map_err(|reason| storage("read", name, &reason))?;
        Ok(document.map(|document| Document { revision: document.revision, value: document.value.into() }))
    }

    async fn swap(&self, name: &str, expected: u64, value: Option<Bytes>) -> Result<Swapped, Error> {
        let swapped = state::swap_document(self.sync_id, name, expected, value.as_deref());
        Ok(match swapped.map_err(|reason| storage("write", name, &reason))? {
            state::Swapped::Done(revision) => Swapped::Done(revision),
            state::Swapped::Conflict => Swapped::Conflict,
        })
    }
}
