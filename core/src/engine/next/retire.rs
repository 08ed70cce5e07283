//! The root that comes next, and which blobs are no longer named.
//!
//! A blob is *retired* with the move of the root that no longer names it, is *garbage* after the next move, and is
//! deleted by the job after that, before it moves the root: until then a reader with an older root finds it.
//! Nothing is read to find out which blobs those are: each leaf that a job reads, closes or takes apart is noted with
//! its segments, and in the end a leaf of that list is either named or not.

use std::collections::BTreeSet;

use crate::{
    engine::{
        assembly::Assembly,
        previous::{Leaves, known},
    },
    entry::KeyOrder,
    error::Error,
    mutation::{self, Mutation},
    snapshot::{
        ContentHash,
        names::{BlobName, Folder},
    },
    state::{
        State,
        document::{KnownPart, Resync, Root},
        names::Names,
        node_name,
    },
    store::{BlobStore, DocumentStore},
};

/// What one job found out of the blobs that it met.
pub(in crate::engine) struct Met {
    /// Named by the next root, as far as an older one may not name them.
    pub(in crate::engine) named: BTreeSet<BlobName>,
    /// Named by an older root or by a checkpoint of the job, and not by the next root.
    unnamed: BTreeSet<BlobName>,
}

impl Met {
    /// Of the leaves before and those that come next.
    pub(in crate::engine) async fn of<B: BlobStore, D: DocumentStore>(
        state: &State<'_, B, D>,
        looked_into: &Names,
        before: &Leaves,
        assembly: &Assembly,
    ) -> Result<Self, Error> {
        let next: BTreeSet<ContentHash> = assembly.leaves.iter().map(|leaf| leaf.hash).collect();
        let mut named: BTreeSet<BlobName> = next.iter().copied().map(BlobName::node).collect();
        let mut unnamed: BTreeSet<BlobName> = before.list.iter().map(|leaf| BlobName::node(leaf.hash)).collect();
        let mut is_next = false;
        for name in looked_into.all(state).await? {
            if name.folder == Folder::Index {
                is_next = next.contains(&name.hash);
            }
            if is_next {
                named.insert(name)
            } else {
                unnamed.insert(name)
            };
        }
        unnamed.retain(|name| !named.contains(name));
        Ok(Self { named, unnamed })
    }
}

/// The root that comes next.
pub(in crate::engine) struct NextRoot {
    pub(in crate::engine) order: KeyOrder,
    /// Blobs that only checkpoints named.
    pub(in crate::engine) stale: Vec<String>,
    /// The leaves that the job looked into, before and after.
    pub(in crate::engine) looked_into: Names,
    pub(in crate::engine) entries_listed: Option<u64>,
    pub(in crate::engine) undeleted: Vec<KnownPart>,
    pub(in crate::engine) resync: Option<Resync>,
    /// Blobs of the feed that it no longer names.
    pub(in crate::engine) dropped: Vec<BlobName>,
    /// The top of its index, if that is stored already.
    pub(in crate::engine) top_stored: Option<String>,
}

impl NextRoot {
    /// Stores the top of its index and its lists. `before` are the leaves of `root`.
    pub(in crate::engine) async fn store<B: BlobStore, D: DocumentStore>(
        self,
        state: &State<'_, B, D>,
        root: &Root,
        before: &Leaves,
        assembly: &Assembly,
    ) -> Result<Root, Error> {
        let leaves = &assembly.leaves;
        let generation = root.generation + u64::from(!mutation::is_on(Mutation::SameGeneration));
        let mut index = root.index.clone();
        if *leaves != before.list {
            index = match (leaves.as_slice(), assembly.top()) {
                ([], _) => None,
                ([leaf], _) => Some(node_name(leaf.hash)),
                (_, Some((hash, bytes))) => {
                    let name = node_name(hash);
                    if self.top_stored.as_ref() != Some(&name) {
                        state.write(&name, bytes).await?;
                    }
                    Some(name)
                }
                (_, None) => None,
            };
        }
        let Met { mut named, unnamed } = Met::of(state, &self.looked_into, before, assembly).await?;
        let kept = self.undeleted.iter().filter_map(|part| part.blob.as_deref());
        let kept = kept.chain(index.as_deref());
        named.extend(kept.filter_map(BlobName::parse));
        let parts = root.undeleted.iter().filter_map(|part| part.blob.as_deref());
        let stale = self.stale.iter().map(String::as_str).chain(parts).chain(root.index.as_deref());
        let mut retired = unnamed;
        retired.extend(stale.filter_map(BlobName::parse));
        retired.extend(self.dropped);
        retired.retain(|name| !named.contains(name));
        for name in retired.iter().filter(|_| mutation::is_on(Mutation::DeleteNamed)) {
            state.delete(&name.to_string()).await?;
        }
        let mut lists = Names { blobs: Vec::new(), tail: retired.iter().copied().collect() };
        // What was retired before and is named again is not garbage.
        let mut garbage = Names::default();
        for list in [&root.garbage, &root.retired] {
            let list = Names::of(list)?;
            let returns = |name: &BlobName| named.contains(name) || retired.contains(name);
            let all = list.all(state).await?;
            if all.iter().any(returns) {
                garbage.tail.extend(all.iter().filter(|name| !returns(name)));
                lists.tail.extend(list.blobs.iter().filter_map(|blob| BlobName::parse(blob)));
            } else {
                garbage.blobs.extend(list.blobs);
                garbage.tail.extend(list.tail);
            }
        }
        Ok(Root {
            generation,
            index,
            entries: leaves.iter().fold(known::count(&self.undeleted), |sum, leaf| sum.saturating_add(leaf.entries)),
            bytes: leaves.iter().fold(0, |sum, leaf| sum.saturating_add(leaf.bytes)),
            entries_listed: self.entries_listed,
            order: self.order,
            undeleted: self.undeleted,
            resync: self.resync,
            retired: lists.store(state, generation * 2).await?,
            garbage: garbage.store(state, generation * 2 + 1).await?,
            job: None,
        })
    }
}
