//! What is stored of one key: how the snapshot knows it, and its changes in the feed. It reads, and changes nothing.

use crate::{
    change::Change,
    engine::previous::known,
    entry::KeyOrder,
    error::Error,
    feed::read::{FeedReader, PageLimits},
    snapshot::{
        Known,
        index::{Level, SegmentRef},
    },
    state::{
        State,
        document::{KnownPart, Root},
        node_name, segment_name,
    },
    store::{BlobStore, DocumentStore},
};

/// What is stored of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyHistory {
    /// As the current snapshot knows it; `None`: it does not.
    pub known: Option<Known>,
    /// Whether a job found it gone, and its deletion is not in the feed: it is held back, or a job broke off before.
    pub is_undeleted: bool,
    /// How many snapshots there were; 0: nothing was listed to its end so far.
    pub generation: u64,
    /// Its changes in the feed, newest first.
    pub changes: Vec<Change>,
    /// The feed was searched back to this position; changes before it are not known.
    pub searched_from: u64,
    /// The position of the oldest change that is still in the feed; `last + 1` where none is.
    pub first: u64,
    /// The position of the newest change of any key; 0: there never was one.
    pub last: u64,
}

/// Reads what is stored of `key`: at most three blobs of the snapshot and one of what stands beside it, and the feed
/// backwards within `limits`.
///
/// # Errors
/// Of the stores; [`crate::ErrorKind::StateCorrupt`].
pub async fn look_up<B: BlobStore, D: DocumentStore>(
    blobs: &B,
    documents: &D,
    sync_id: &str,
    key: &str,
    limits: PageLimits,
) -> Result<KeyHistory, Error> {
    let state = State::new(blobs, documents);
    let (document, _) = state.load_document().await?;
    let root = &document.root;
    let indexed = in_index(&state, root, key).await?;
    let beside = match &indexed {
        Some(_) => None,
        None => in_parts(&state, &root.undeleted, key, root.order).await?,
    };
    let reader = FeedReader { state: &state, feed: &document.feed, fresh: &[], sync_id };
    let found = reader.of_key(key, limits).await?;
    Ok(KeyHistory {
        is_undeleted: beside.is_some(),
        known: indexed.or(beside),
        generation: root.generation,
        changes: found.changes,
        searched_from: found.searched_from,
        first: found.first,
        last: document.feed.last(),
    })
}

async fn in_index<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    root: &Root,
    key: &str,
) -> Result<Option<Known>, Error> {
    let Some(name) = &root.index else { return Ok(None) };
    let (level, mut items) = state.read_node(name).await?;
    if level == Level::Top {
        let Some(leaf) = holder(&items, key, root.order) else { return Ok(None) };
        items = state.read_node(&node_name(leaf.hash)).await?.1;
    }
    let Some(segment) = holder(&items, key, root.order) else { return Ok(None) };
    let known = state.read_segment(&segment_name(segment.hash)).await?;
    Ok(known.into_iter().find(|known| known.key == key))
}

/// The item that holds the key, if one does.
fn holder<'a>(items: &'a [SegmentRef], key: &str, order: KeyOrder) -> Option<&'a SegmentRef> {
    let behind = items.partition_point(|item| order.compare(&item.first_key, key).is_le());
    behind.checked_sub(1).and_then(|index| items.get(index))
}

async fn in_parts<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    parts: &[KnownPart],
    key: &str,
    order: KeyOrder,
) -> Result<Option<Known>, Error> {
    let behind = parts.partition_point(|part| order.compare(&part.first_key, key).is_le());
    let Some(part) = behind.checked_sub(1).and_then(|index| parts.get(index)) else { return Ok(None) };
    Ok(known::read(state, part).await?.into_iter().find(|known| known.key == key))
}

#[cfg(test)]
mod tests;
