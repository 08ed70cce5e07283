//! Changes, and where they are delivered.

use crate::{entry::Entry, error::Error};

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// The version that was created, or that is gone.
    pub entry: Entry,
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

impl<T: Sink + ?Sized> Sink for &T {
    fn batch_max(&self) -> usize {
        (**self).batch_max()
    }

    async fn deliver(&self, changes: &[Change]) -> Result<Vec<Delivery>, Error> {
        (**self).deliver(changes).await
    }
}
