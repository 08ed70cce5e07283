//! The feed: the ordered log of a sync's changes.
//!
//! A change has a *position*: 1, 2, 3 … without gaps, for the life of the sync. Consecutive changes stand in a
//! [`batch`], an immutable blob named by the hash of its bytes. The document that holds root and checkpoint also names
//! the batches ([`Feed`]), so the compare-and-swap that makes the snapshot count a change is the one that
//! appends it: a change is in the feed if and only if the snapshot counts it.
//!
//! - [`batch`] encodes consecutive changes;
//! - [`crate::state::feed`] says which batches there are, and where;
//! - [`outbox`] holds what a step has found until the next swap appends it;
//! - [`read`] reads changes behind a position;
//! - [`retention`] says which batches are dropped.
//!
//! # Invariants
//! - Positions are dense and never reused. A batch never changes once the document names it.
//! - Batches are stored before the swap that names them. A crash before the swap leaves blobs that nothing names.
//! - A batch is dropped only when it is older than the retention and no active sink needs it, the oldest first.

pub mod batch;
pub mod outbox;
pub mod read;
pub mod retention;

pub use self::{
    read::{Page, read_changes},
    retention::{Retention, forget},
};
pub use crate::state::feed::Feed;

#[cfg(test)]
mod tests;
