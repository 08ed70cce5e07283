//! What is deleted while no job runs: old batches of the feed, garbage, and batches that a step left behind when it
//! died before its swap.

use std::collections::BTreeSet;

use crate::{
    error::Error,
    feed::{
        Feed,
        retention::{Retention, drop_old},
    },
    snapshot::names::{BlobName, Folder},
    state::{State, document::NameList, names::Names},
    store::{BlobStore, DocumentStore},
    time::Timestamp,
};

/// The most blobs that one call of [`collect`] deletes.
pub const COLLECTED_MAX: usize = 400;

/// What [`collect`] left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// The feed as it is now.
    pub feed: Feed,
    /// There are blobs to be deleted by a later call: until then a reader of the older document still finds them.
    pub is_more: bool,
    /// When the oldest batch of the feed was appended; `None`: the feed has no batch.
    pub oldest: Option<Timestamp>,
}

/// Deletes the garbage, makes garbage of what was retired, and retires the batches that `retention` does not keep.
/// Between two calls readers of the older document must have had the time to end: an hour is plenty. A job that broke
/// off keeps all as it is, since its checkpoint may name any of it.
///
/// `fence` stores the document even where nothing changes: a step that still holds an older revision of it can name
/// nothing any more.
///
/// # Errors
/// Of the stores; [`crate::ErrorKind::StateConflict`], transient, when a step runs at the same time.
pub async fn collect<B: BlobStore, D: DocumentStore>(
    blobs: &B,
    documents: &D,
    retention: Retention,
    fence: bool,
) -> Result<Collected, Error> {
    let state = State::new(blobs, documents);
    let (mut document, revision) = state.load_document().await?;
    if revision == 0 || document.checkpoint.is_some() {
        if fence && revision > 0 {
            state.swap_document(revision, &document).await?;
        }
        return Ok(Collected { oldest: oldest(&document.feed)?, feed: document.feed, is_more: revision > 0 });
    }
    let before = (document.feed.clone(), document.root.garbage.clone(), document.root.retired.clone());
    let dropped = drop_old(&state, &mut document.feed, retention).await?;
    let root = &mut document.root;
    let (mut garbage, mut retired) = (Names::of(&root.garbage)?, Names::of(&root.retired)?);
    let (mut emptied, mut left) = (Vec::new(), COLLECTED_MAX);
    let more = || {
        let allows = left > 0;
        left = left.saturating_sub(1);
        allows
    };
    let all = garbage.delete(&state, &BTreeSet::new(), &mut emptied, more).await?;
    let fresh = dropped.into_iter().chain(emptied.iter().filter_map(|name| BlobName::parse(name)));
    if all {
        // The next call deletes what was retired, and the one after it what is retired now.
        root.garbage = root.retired.clone();
        retired = Names::default();
    }
    retired.extend(fresh);
    // Other numbers than those of jobs, which count generations.
    let salt = u64::MAX - revision.saturating_mul(2);
    root.retired = retired.store(&state, salt).await?;
    if !all {
        root.garbage = garbage.store(&state, salt - 1).await?;
    }
    let is_more = [&root.garbage, &root.retired].iter().any(|list| **list != NameList::default());
    let collected = Collected { feed: document.feed.clone(), is_more, oldest: oldest(&document.feed)? };
    if fence || before != (document.feed.clone(), document.root.garbage.clone(), document.root.retired.clone()) {
        state.swap_document(revision, &document).await?;
    }
    Ok(collected)
}

fn oldest(feed: &Feed) -> Result<Option<Timestamp>, Error> {
    if let Some(list) = feed.lists.first() {
        return Ok(Some(list.found_at));
    }
    let tail = feed.tail()?;
    Ok(tail.first().map(|batch| batch.found_at))
}

/// Deletes those of the `listed` blobs that are batches, or lists of batches, and that the document does not name.
/// Answers whether that were all; at most [`COLLECTED_MAX`] are deleted. Call it after [`collect`] with `fence`, while
/// no step runs: a step stores its batches before the swap that names them.
///
/// # Errors
/// Of the stores.
pub async fn delete_orphans<B: BlobStore, D: DocumentStore>(
    blobs: &B,
    documents: &D,
    listed: &[String],
) -> Result<bool, Error> {
    let listed: Vec<_> =
        listed.iter().filter_map(|name| BlobName::parse(name)).filter(|name| name.folder == Folder::Feed).collect();
    if listed.is_empty() {
        return Ok(true);
    }
    let state = State::new(blobs, documents);
    let (document, _) = state.load_document().await?;
    let feed = &document.feed;
    let mut named: BTreeSet<BlobName> = BTreeSet::new();
    for list in &feed.lists {
        named.extend(BlobName::parse(&list.blob));
        let batches = state.read_batches(list).await?;
        named.extend(batches.iter().map(|batch| BlobName::feed(batch.hash)));
    }
    let tail = feed.tail()?;
    named.extend(tail.iter().map(|batch| BlobName::feed(batch.hash)));
    for list in [&document.root.retired, &document.root.garbage] {
        named.extend(Names::of(list)?.all(&state).await?);
    }
    let orphans: Vec<_> = listed.iter().filter(|name| !named.contains(name)).collect();
    for name in orphans.iter().take(COLLECTED_MAX) {
        state.delete(&name.to_string()).await?;
    }
    Ok(orphans.len() <= COLLECTED_MAX)
}
