//! Where changes are delivered.

use std::{cell::RefCell, collections::BTreeMap};

use crate::{
    change::{Change, ChangeKind},
    entry::Entry,
    error::Error,
};

/// What the sink did with one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Taken, now or by an earlier delivery of the same id.
    Delivered,
    /// Refused, with the reason in words; other changes of the batch are not affected.
    Refused(String),
}

/// Takes the changes of a feed, in the order of their positions, each at least once.
///
/// Changes may come again from an earlier position, with the same positions, ids and contents, in batches that end
/// elsewhere than before; the feed then goes on from there. [`crate::conformance::sink`] holds an implementation to
/// that.
pub trait Sink {
    /// The most changes one call takes.
    fn batch_max(&self) -> usize;

    /// Delivers `changes`, in this order, and answers for each of them, in this order.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Sink`] when it is unknown what became of the batch; all of it is delivered again.
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

    /// The current versions: what a receiver has who applied all deliveries in their order.
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
