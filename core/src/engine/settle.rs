//! What becomes of a job that broke off.

use std::{collections::BTreeMap, collections::VecDeque};

use super::{
    assembly::Assembly,
    base::{Base, Leaves},
    run::{NextRoot, checkpoint_leaves, checkpoint_segments},
    source::ListingWatch,
    state::{State, segment_name},
};
use crate::{
    entry::KeyOrder,
    error::Error,
    snapshot::{
        Known,
        cut::Cut,
        index::SegmentRef,
        root::{self, Checkpoint, Root, SnapshotDocument},
    },
    store::{BlobStore, DocumentStore},
};

/// Ends the checkpoint of a job that will not go on, and answers the root as it is then.
///
/// What the job delivered is in the sink, so it becomes part of the snapshot: else a file that is gone, or that other
/// filters leave out, by the next job's time would stay in the sink for ever. What the job found gone and did not deliver
/// stays known. What is noted as about to be delivered stays noted, and the next job delivers it first.
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
    end_checkpoint(&state, cut, document, revision).await.map(|(document, _)| document.root)
}

/// Ends the checkpoint, if there is one.
pub(super) async fn end_checkpoint<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    cut: Cut,
    document: SnapshotDocument,
    revision: u64,
) -> Result<(SnapshotDocument, u64), Error> {
    let order = document.checkpoint.as_ref().map_or(document.root.order, |it| it.order);
    settle(state, cut, document, revision, order, false).await
}

/// Ends the checkpoint, if there is one, of a comparison that was made in another order than the listing is in.
pub(super) async fn settle_in_order<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    cut: Cut,
    document: SnapshotDocument,
    revision: u64,
    order: KeyOrder,
) -> Result<(SnapshotDocument, u64), Error> {
    settle(state, cut, document, revision, order, true).await
}

async fn settle<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    cut: Cut,
    mut document: SnapshotDocument,
    revision: u64,
    order: KeyOrder,
    mistaken: bool,
) -> Result<(SnapshotDocument, u64), Error> {
    let Some(checkpoint) = document.checkpoint.take() else { return Ok((document, revision)) };
    let mut before = Leaves::of(state, &document.root).await?;
    // Once the listing is read, no other order has shown itself, and deletions may have been delivered.
    let mut assembly = if mistaken || (checkpoint.order_assumed && !checkpoint.listed) {
        everything(state, cut, &mut before, &checkpoint, order).await?
    } else {
        settled(state, cut, &document.root, &checkpoint).await?
    };
    for (name, bytes) in assembly.take_puts() {
        state.write(&name, bytes).await?;
    }
    let mut stale = checkpoint.scratch.clone();
    // What is about to be delivered is still named.
    stale.retain(|name| document.in_doubt_blob.as_ref() != Some(name));
    let entries_listed = Some(document.root.entries_listed.unwrap_or(document.root.entries));
    let next = NextRoot { order, stale, entries_listed };
    document.root = next.store(state, &document.root, &mut before, &assembly).await?;
    let revision = state.swap_document(revision, &document).await?;
    Ok((document, revision))
}

/// Deletions that were found and not delivered, one behind the other.
struct Kept<'a> {
    blobs: std::slice::Iter<'a, (String, u64)>,
    in_hand: VecDeque<Known>,
    tail: Vec<Known>,
    skip: u64,
}

impl Kept<'_> {
    /// Those before `end`.
    async fn take_before<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        end: Option<&str>,
        watch: &mut ListingWatch,
    ) -> Result<Vec<Known>, Error> {
        let mut taken = Vec::new();
        loop {
            while let Some(known) =
                self.in_hand.pop_front_if(|known| end.is_none_or(|end| watch.compare(&known.key, end).is_lt()))
            {
                taken.push(known);
            }
            if !self.in_hand.is_empty() {
                return Ok(taken);
            }
            let next = match self.blobs.next() {
                Some((name, _)) => state.read_segment(name).await?,
                None if self.tail.is_empty() => return Ok(taken),
                None => std::mem::take(&mut self.tail),
            };
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(next.len());
            self.skip -= skipped as u64;
            self.in_hand.extend(next.into_iter().skip(skipped));
        }
    }
}

/// The snapshot as the sink knows it after a job that broke off: what the job closed, with the deletions that it did not
/// deliver, and behind it what it did not get to.
async fn settled<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    cut: Cut,
    root: &Root,
    checkpoint: &Checkpoint,
) -> Result<Assembly, Error> {
    let mut watch = ListingWatch::new(checkpoint.order, false, None);
    let covered_to = checkpoint.covered_to.as_deref();
    let mut base = Base::open(state, root, covered_to, &mut watch).await?;
    let mut assembly = Assembly::new(cut, Vec::new(), Vec::new());
    assembly.keep_stored(&base.leaves.list);
    if covered_to.is_none() && !checkpoint.listed {
        // The comparison had not begun.
        append_rest(&mut assembly, &mut base);
        assembly.finish();
        return Ok(assembly);
    }
    let tail = root::decode_known(checkpoint.deletions_tail.as_deref());
    let mut kept = Kept {
        blobs: checkpoint.deletions.iter(),
        in_hand: VecDeque::new(),
        tail: tail.map_err(|error| error.into_error("checkpoint.deletions_tail"))?,
        skip: checkpoint.deletions_delivered,
    };
    let (leaves, _) = checkpoint_leaves(state, checkpoint).await?;
    let open = checkpoint_segments(checkpoint)?;
    for (nth, leaf) in leaves.iter().enumerate() {
        let end = leaves.get(nth + 1).or(open.first()).map(|next| next.first_key.as_str());
        let gone = kept.take_before(state, end, &mut watch).await?;
        if gone.is_empty() {
            assembly.append_leaf(leaf.clone());
            continue;
        }
        let segments = state.read_node(&super::state::node_name(leaf.hash)).await?.1;
        append_with(state, &mut assembly, &segments, gone, &mut watch).await?;
    }
    let gone = kept.take_before(state, None, &mut watch).await?;
    append_with(state, &mut assembly, &open, gone, &mut watch).await?;
    if !checkpoint.listed {
        append_rest(&mut assembly, &mut base);
    }
    assembly.finish();
    Ok(assembly)
}

/// Appends segments, and entries that lie among them.
async fn append_with<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    assembly: &mut Assembly,
    segments: &[SegmentRef],
    entries: Vec<Known>,
    watch: &mut ListingWatch,
) -> Result<(), Error> {
    let mut entries: VecDeque<Known> = entries.into();
    for (nth, segment) in segments.iter().enumerate() {
        let end = segments.get(nth + 1).map(|next| next.first_key.as_str());
        let mut here = Vec::new();
        while let Some(known) =
            entries.pop_front_if(|known| end.is_none_or(|end| watch.compare(&known.key, end).is_lt()))
        {
            here.push(known);
        }
        if here.is_empty() {
            assembly.append_segment(segment.clone(), None);
            continue;
        }
        here.extend(state.read_segment(&segment_name(segment.hash)).await?);
        here.sort_by(|a, b| watch.compare(&a.key, &b.key));
        here.iter().for_each(|known| assembly.push_known(known));
    }
    entries.iter().for_each(|known| assembly.push_known(known));
    Ok(())
}

/// Appends all that was not dealt with as it is.
pub(super) fn append_rest(assembly: &mut Assembly, base: &mut Base) {
    let (known, segments, leaves) = base.rest();
    known.iter().for_each(|known| assembly.push_known(known));
    segments.into_iter().for_each(|segment| assembly.append_segment(segment, None));
    leaves.into_iter().for_each(|leaf| assembly.append_leaf(leaf));
}

/// The same, where keys were compared in an order that may be another than the listing's: all that was known, with all that
/// the job closed. It is put together in memory, since neither is in order; that happens at most once in a bucket's life.
async fn everything<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    cut: Cut,
    before: &mut Leaves,
    checkpoint: &Checkpoint,
    order: KeyOrder,
) -> Result<Assembly, Error> {
    let mut all: BTreeMap<String, Known> = BTreeMap::new();
    let mut segments = Vec::new();
    for leaf in before.list.clone() {
        segments.extend(before.segments(state, leaf.hash).await?.to_vec());
    }
    for leaf in checkpoint_leaves(state, checkpoint).await?.0 {
        segments.extend(state.read_node(&super::state::node_name(leaf.hash)).await?.1);
    }
    segments.extend(checkpoint_segments(checkpoint)?);
    for segment in segments {
        let known = state.read_segment(&segment_name(segment.hash)).await?;
        all.extend(known.into_iter().map(|known| (known.key.clone(), known)));
    }
    let mut all: Vec<Known> = all.into_values().collect();
    all.sort_by(|a, b| order.compare(&a.key, &b.key));
    let mut assembly = Assembly::new(cut, Vec::new(), Vec::new());
    assembly.keep_stored(&before.list);
    all.iter().for_each(|known| assembly.push_known(known));
    assembly.finish();
    Ok(assembly)
}
