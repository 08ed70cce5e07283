//! State and sink, as the host implements them.

use b2sync_core::{
    Error, ErrorKind, Retry,
    sink::{Change, Delivery, Sink},
    store::{BlobStore, Document, DocumentStore, Swapped},
};
use bytes::Bytes;

use crate::bindings::b2sync::embed::{sink, state};

/// The host's state and sink, for one job of one sync.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'a> {
    pub(crate) sync_id: &'a str,
    pub(crate) job_id: &'a str,
}

fn storage(what: &str, name: &str, reason: &str) -> Error {
    Error::new(
        ErrorKind::Storage,
        format!("The host's store could not {what} {name:?}: {reason}."),
        "The step can be repeated once the store works again; nothing is lost.",
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

impl Sink for Host<'_> {
    fn batch_max(&self) -> usize {
        usize::try_from(sink::batch_max()).unwrap_or(usize::MAX)
    }

    async fn deliver(&self, changes: &[Change]) -> Result<Vec<Delivery>, Error> {
        let changes: Vec<sink::Change> = changes.iter().map(Into::into).collect();
        let answers = sink::deliver(self.sync_id, self.job_id, &changes).map_err(|reason| {
            Error::new(
                ErrorKind::Sink,
                format!("It is unknown what became of {} changes: {reason}.", changes.len()),
                "The step can be repeated once the sink works again; they come again, under the same ids.",
            )
            .with_retry(Retry::Temporary)
        })?;
        Ok(answers.into_iter().map(Into::into).collect())
    }
}
