//! What becomes of a job that broke off.

use super::checkpoint::{checkpoint_leaves, checkpoint_segments};
use crate::{
    engine::{
        assembly::Assembly,
        next::{
            append_rest,
            retire::{Met, NextRoot},
        },
        previous::{Base, known::without_first},
    },
    error::Error,
    snapshot::{cut::Cut, names::BlobName},
    state::{
        State,
        document::{Checkpoint, Root, SnapshotDocument},
        names::Names,
    },
    store::{BlobStore, DocumentStore},
};

/// The most blobs that nothing names any more that are deleted when a job is settled.
const GARBAGE_DELETED_MAX: usize = 200;

/// Ends the checkpoint of a job that will not go on, and answers the root as it is then.
///
/// What the job appended is in the feed, so it becomes part of the snapshot. What the job found gone and did not append
/// stays known, beside the snapshot.
///
/// However large the bucket and however far the job was, that is a handful of reads and writes, and some more for the
/// lists of what is to be deleted.
///
/// # Errors
/// Of the stores.
pub async fn settle_checkpoint<B: BlobStore, D: DocumentStore>(
    blobs: &B,
    documents: &D,
    cut: Cut,
) -> Result<Root, Error> {
    let state = State::new(blobs, documents);
    let (document, revision) = state.load_document().await?;
    end_checkpoint(&state, cut, document, revision, None).await.map(|(document, _)| document.root)
}

/// Ends the checkpoint, if there is one, and puts `next` in its place.
pub(in crate::engine) async fn end_checkpoint<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    cut: Cut,
    mut document: SnapshotDocument,
    revision: u64,
    next: Option<Checkpoint>,
) -> Result<(SnapshotDocument, u64), Error> {
    let Some(checkpoint) = document.checkpoint.take() else { return Ok((document, revision)) };
    let (root, order) = (&document.root, checkpoint.order);
    let covered_to = checkpoint.covered_to.as_deref();
    let mut base = Base::open(state, root, covered_to, order).await?;
    let mut assembly = Assembly::new(cut, Vec::new(), Vec::new());
    let mut undeleted = without_first(checkpoint.deletions.clone(), checkpoint.deletions_done);
    if covered_to.is_some() || checkpoint.listed {
        // What the job closed, and behind it what it did not get to.
        let (leaves, _) = checkpoint_leaves(state, &checkpoint).await?;
        assembly = Assembly::new(cut, leaves, checkpoint_segments(&checkpoint)?);
    }
    assembly.keep_stored(&base.leaves.list);
    if checkpoint.listed {
        undeleted.extend(checkpoint.undeleted.iter().cloned());
    } else {
        append_rest(&mut assembly, &mut base);
        undeleted.extend(base.take_undeleted());
    }
    assembly.finish();
    for (name, bytes) in assembly.take_puts() {
        state.write(&name, bytes).await?;
    }
    let mut looked_into = Names::of(&checkpoint.looked_into)?;
    looked_into.note_leaves(base.leaves.take_looked_into());
    looked_into.note_leaves(assembly.take_looked_into());
    let mut stale = checkpoint.scratch.clone();
    stale.extend(looked_into.blobs().to_vec());
    stale.append(&mut assembly.dropped);
    stale.extend(checkpoint.deletions.iter().filter_map(|part| part.blob.clone()));
    // Jobs that break off again and again would only add to it.
    let mut root = root.clone();
    let mut garbage = Names::of(&root.garbage)?;
    let Met { mut named, .. } = Met::of(state, &looked_into, &base.leaves, &assembly).await?;
    named.extend(stale.iter().filter_map(|name| BlobName::parse(name)));
    let mut left = GARBAGE_DELETED_MAX;
    let more = || {
        left = left.saturating_sub(1);
        left > 0
    };
    garbage.delete(state, &named, &mut stale, more).await?;
    root.garbage = garbage.store(state, root.generation * 2 + 1).await?;
    let root_next = NextRoot {
        order,
        stale,
        looked_into,
        entries_listed: Some(root.entries_listed.unwrap_or(root.entries)),
        undeleted,
        resync: if checkpoint.listed && checkpoint.limited { checkpoint.resync } else { root.resync.clone() },
        dropped: Vec::new(),
        top_stored: None,
    };
    document.root = root_next.store(state, &root, &base.leaves, &assembly).await?;
    document.checkpoint = next;
    let revision = state.swap_document(revision, &document).await?;
    Ok((document, revision))
}
