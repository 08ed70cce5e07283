//! Which batches of a feed are dropped.

use super::Feed;
use crate::{
    error::Error,
    mutation::{self, Mutation},
    snapshot::names::BlobName,
    state::{State, feed::BatchRef, names::Names},
    store::{BlobStore, DocumentStore},
    time::Timestamp,
};

/// Lists of batches that one job reads at most, to drop what they name.
const LISTS_READ_MAX: usize = 4;

/// What a feed keeps: a batch is dropped when it was appended before `before` *and* all of it is at or before `up_to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Batches appended at this time or later stay; `None`: age keeps none.
    pub before: Option<Timestamp>,
    /// Batches with a change behind this position stay: the least cursor of the active sinks.
    pub up_to: u64,
}

impl Retention {
    /// Everything stays.
    pub const ALL: Self = Self { before: None, up_to: 0 };

    fn drops(&self, next: u64, found_at: Timestamp) -> bool {
        let taken = next <= self.up_to.saturating_add(1) || mutation::is_on(Mutation::CollectEarly);
        let old = self.before.is_none_or(|before| found_at < before);
        taken && old
    }
}

/// Drops what `retention` does not keep from the front of the feed, and answers the blobs that it named.
///
/// # Errors
/// Of reading lists of batches.
pub async fn drop_old<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    feed: &mut Feed,
    retention: Retention,
) -> Result<Vec<BlobName>, Error> {
    let mut names = Vec::new();
    let mut dropped = 0;
    for list in feed.lists.iter().take(LISTS_READ_MAX) {
        if !retention.drops(list.next, list.found_at) {
            break;
        }
        let batches = state.read_batches(list).await?;
        names.extend(batches.iter().map(|batch| BlobName::feed(batch.hash)));
        names.extend(BlobName::parse(&list.blob));
        dropped += 1;
    }
    feed.lists.drain(..dropped);
    if feed.lists.is_empty() {
        let tail = feed.tail()?;
        let kept = tail.iter().position(|batch| !retention.drops(batch.next(), batch.found_at)).unwrap_or(tail.len());
        let (old, rest) = tail.split_at(kept);
        if !old.is_empty() {
            names.extend(old.iter().map(|batch: &BatchRef| BlobName::feed(batch.hash)));
            feed.set_tail(rest);
        }
    }
    Ok(names)
}

/// Drops batches that end at or before `up_to`, for a home that says itself up to where it has read the feed. Answers
/// the position of the oldest change that is left. The next jobs delete the blobs.
///
/// # Errors
/// Of the stores; [`crate::ErrorKind::StateConflict`], transient, when a step runs at the same time.
pub async fn forget<B: BlobStore, D: DocumentStore>(blobs: &B, documents: &D, up_to: u64) -> Result<u64, Error> {
    let state = State::new(blobs, documents);
    let (mut document, revision) = state.load_document().await?;
    let retention = Retention { before: None, up_to };
    let dropped = drop_old(&state, &mut document.feed, retention).await?;
    let first = document.feed.first()?;
    if dropped.is_empty() {
        return Ok(first);
    }
    let root = &mut document.root;
    let mut retired = Names::of(&root.retired)?;
    retired.extend(dropped);
    root.retired = retired.store(&state, root.generation * 2).await?;
    state.swap_document(revision, &document).await?;
    Ok(first)
}
