//! The root that comes next, and which blobs nobody names any more.
//!
//! A blob is *retired* with the move of the root that no longer names it, is *garbage* after the next move, and is
//! deleted by the job after that, before it moves the root: until then whoever still holds an older root finds it.
//! Nothing is read to find out which blobs those are: each leaf that a job reads, closes or takes apart is noted with
//! its segments, and in the end a leaf of that list is either named or not.

use std::collections::BTreeSet;

use super::assembly::Assembly;
use crate::{
    engine::{
        compare::{base::Leaves, known},
        state::{State, node_name},
    },
    entry::KeyOrder,
    error::Error,
    mutation::{self, Mutation},
    snapshot::{
        ContentHash,
        names::{self, BlobName, Folder},
        root::{self, KnownPart, NameList, Resync, Root},
    },
    store::{BlobStore, DocumentStore},
};

/// So many names stand in the document itself; more go into blobs of so many each.
pub(in crate::engine) const NAMES_MAX: usize = 3_072;

/// A list of names, some of it in blobs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    blobs: Vec<String>,
    tail: Vec<BlobName>,
}

impl Names {
    /// As it is stored.
    pub(crate) fn of(list: &NameList) -> Result<Self, Error> {
        let tail = root::decode_names(list.tail.as_deref()).map_err(|error| error.into_error("a list of names"))?;
        Ok(Self { blobs: list.blobs.clone(), tail })
    }

    /// The blobs that some of it is in.
    pub(in crate::engine) fn blobs(&self) -> &[String] {
        &self.blobs
    }

    /// Adds names.
    pub(crate) fn extend(&mut self, names: impl IntoIterator<Item = BlobName>) {
        self.tail.extend(names);
    }

    /// Adds leaves, each followed by its segments.
    pub(in crate::engine) fn note_leaves(&mut self, leaves: Vec<(ContentHash, Vec<ContentHash>)>) {
        for (leaf, segments) in leaves {
            let leaf = BlobName::node(leaf);
            if self.tail.contains(&leaf) {
                // Each step of a job looks into the one in which it goes on.
                continue;
            }
            self.tail.push(leaf);
            self.tail.extend(segments.into_iter().map(BlobName::segment));
        }
    }

    /// Stores what is too much for the document. `salt` makes the blobs other ones than all before.
    pub(crate) async fn store<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        salt: u64,
    ) -> Result<NameList, Error> {
        while self.tail.len() > NAMES_MAX {
            let rest = self.tail.split_off(NAMES_MAX);
            let full = std::mem::replace(&mut self.tail, rest);
            let name = state.write_named("scratch", names::encode(salt, &full)).await?;
            self.blobs.push(name);
        }
        Ok(NameList { blobs: self.blobs.clone(), tail: root::encode_names(salt, &self.tail) })
    }

    /// Takes the last name; where it is read from a blob, that one's name is added to `emptied`.
    async fn pop<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        emptied: &mut Vec<String>,
    ) -> Result<Option<BlobName>, Error> {
        while self.tail.is_empty() {
            let Some(blob) = self.blobs.pop() else { return Ok(None) };
            self.tail = read_names(state, &blob).await?;
            emptied.push(blob);
        }
        Ok(self.tail.pop())
    }

    /// Deletes blobs, from the last name on, but for those that are `named`, as long as `allows` says so. Answers
    /// whether none is left.
    pub(in crate::engine) async fn delete<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        named: &BTreeSet<BlobName>,
        emptied: &mut Vec<String>,
        mut allows: impl FnMut() -> bool,
    ) -> Result<bool, Error> {
        while let Some(name) = self.pop(state, emptied).await? {
            if !allows() {
                self.tail.push(name);
                return Ok(false);
            }
            if !named.contains(&name) {
                state.delete(&name.to_string()).await?;
            }
        }
        Ok(true)
    }

    /// All names, in order.
    pub(in crate::engine) async fn all<B: BlobStore, D: DocumentStore>(
        &self,
        state: &State<'_, B, D>,
    ) -> Result<Vec<BlobName>, Error> {
        let mut all = Vec::new();
        for blob in &self.blobs {
            all.extend(read_names(state, blob).await?);
        }
        all.extend(&self.tail);
        Ok(all)
    }
}

async fn read_names<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    blob: &str,
) -> Result<Vec<BlobName>, Error> {
    names::decode(&state.read(blob).await?).map_err(|error| error.into_error(blob))
}

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
