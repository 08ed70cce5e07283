//! The snapshot that a listing is compared with, read as little as possible; and merged with it the files that stand
//! beside it, because a job that broke off did not append their deletions.

pub mod known;

use std::collections::{BTreeMap, VecDeque};

use crate::{
    engine::previous::known::KnownList,
    entry::KeyOrder,
    error::Error,
    snapshot::{
        ContentHash, Known,
        index::{Level, SegmentRef},
    },
    state::{
        State,
        document::{KnownPart, Root},
        node_name, segment_name,
    },
    store::{BlobStore, DocumentStore},
};

/// The leaves of a snapshot's index, and the contents of those that were read.
#[derive(Clone, Debug, Default)]
pub struct Leaves {
    /// In order.
    pub list: Vec<SegmentRef>,
    read: BTreeMap<ContentHash, Vec<SegmentRef>>,
    /// Those that were read since this was asked last, with their segments.
    looked_into: Vec<(ContentHash, Vec<ContentHash>)>,
}

impl Leaves {
    /// Of the snapshot that `root` names.
    ///
    /// # Errors
    /// Of reading its index.
    pub async fn of<B: BlobStore, D: DocumentStore>(state: &State<'_, B, D>, root: &Root) -> Result<Self, Error> {
        let Some(name) = &root.index else { return Ok(Self::default()) };
        let (level, items) = state.read_node(name).await?;
        if level == Level::Top {
            return Ok(Self { list: items, ..Self::default() });
        }
        let mut leaves = Self::default();
        if let Some((leaf, _)) = crate::snapshot::index::node(Level::Leaf, &items) {
            leaves.note(leaf.hash, &items);
            leaves.read.insert(leaf.hash, items);
            leaves.list.push(leaf);
        }
        Ok(leaves)
    }

    /// The segments of a leaf.
    ///
    /// # Errors
    /// Of reading it, where it was not read before.
    pub async fn segments<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        leaf: ContentHash,
    ) -> Result<&[SegmentRef], Error> {
        let items = match self.read.remove(&leaf) {
            Some(items) => items,
            None => {
                let items = state.read_node(&node_name(leaf)).await?.1;
                self.note(leaf, &items);
                items
            }
        };
        Ok(self.read.entry(leaf).or_insert(items))
    }

    fn note(&mut self, leaf: ContentHash, items: &[SegmentRef]) {
        self.looked_into.push((leaf, items.iter().map(|item| item.hash).collect()));
    }

    /// The leaves that were read since this was asked last, with their segments.
    pub fn take_looked_into(&mut self) -> Vec<(ContentHash, Vec<ContentHash>)> {
        std::mem::take(&mut self.looked_into)
    }
}

/// Some of what the snapshot knows.
#[derive(Debug)]
pub struct Chunk {
    /// In order, at most one segment.
    pub known: Vec<Known>,
    /// All that the snapshot knows before this key is dealt with; `None`: all that was asked for is.
    pub up_to: Option<String>,
}

/// Walks through a snapshot from its first key to its last.
#[derive(Debug, Default)]
pub struct Base {
    /// All leaves.
    pub leaves: Leaves,
    /// The first leaf that was neither opened nor passed over.
    next_leaf: usize,
    /// Of the leaf before it: the segments that were neither read nor passed over.
    segments: VecDeque<SegmentRef>,
    /// Of the segment before those: what is not dealt with yet.
    in_hand: VecDeque<Known>,
    /// Segments that were read since this was asked last.
    read: Vec<ContentHash>,
    /// What stands beside the snapshot and is not dealt with yet.
    undeleted: KnownList,
    /// The keys of what was taken of that last, in order.
    beside: Vec<String>,
}

impl Base {
    /// Stands before the first key that is not `covered_to` yet.
    ///
    /// # Errors
    /// Of reading the index, and of the one leaf and segment that `covered_to` lies inside of.
    pub async fn open<B: BlobStore, D: DocumentStore>(
        state: &State<'_, B, D>,
        root: &Root,
        covered_to: Option<&str>,
        order: KeyOrder,
    ) -> Result<Self, Error> {
        let leaves = Leaves::of(state, root).await?;
        let mut base = Self { leaves, undeleted: KnownList::of(root.undeleted.clone()), ..Self::default() };
        let Some(covered_to) = covered_to else { return Ok(base) };
        base.undeleted.skip_before(state, covered_to, order).await?;
        base.next_leaf = behind(&base.leaves.list, covered_to, order);
        if base.next_leaf > 0 && starts_at(base.leaves.list.get(base.next_leaf), covered_to) {
            return Ok(base);
        }
        let Some(leaf) = base.next_leaf.checked_sub(1).and_then(|index| base.leaves.list.get(index)) else {
            return Ok(base);
        };
        let hash = leaf.hash;
        let segments = base.leaves.segments(state, hash).await?;
        let next = behind(segments, covered_to, order);
        base.segments = segments.iter().skip(next).cloned().collect();
        let straddling = segments.get(next.wrapping_sub(1)).filter(|_| !starts_at(segments.get(next), covered_to));
        if let Some(straddling) = straddling.cloned() {
            base.read.push(straddling.hash);
            base.in_hand.extend(state.read_segment(&segment_name(straddling.hash)).await?);
            while base.in_hand.pop_front_if(|known| order.compare(&known.key, covered_to).is_lt()).is_some() {}
        }
        Ok(base)
    }

    /// The leaves that were neither opened nor passed over.
    pub fn leaves_ahead(&self) -> &[SegmentRef] {
        self.leaves.list.get(self.next_leaf..).unwrap_or_default()
    }

    /// How many files there are before those, and are not dealt with.
    pub fn files_at_hand(&self) -> u64 {
        self.segments.iter().fold(self.in_hand.len() as u64, |sum, segment| sum.saturating_add(segment.entries))
    }

    /// Whether there are files beside the snapshot that are not dealt with.
    pub fn has_undeleted(&self) -> bool {
        !self.undeleted.is_empty()
    }

    /// Those files.
    pub fn take_undeleted(&mut self) -> Vec<KnownPart> {
        std::mem::take(&mut self.undeleted).into_parts()
    }

    /// All that is not dealt with: entries, the segments behind them, the leaves behind those; without
    /// [`Self::take_undeleted`].
    pub fn rest(&mut self) -> (Vec<Known>, Vec<SegmentRef>, Vec<SegmentRef>) {
        let leaves = self.leaves_ahead().to_vec();
        self.next_leaf = self.leaves.list.len();
        (self.in_hand.drain(..).collect(), self.segments.drain(..).collect(), leaves)
    }

    /// Whether `segment` is one of the snapshot's.
    ///
    /// # Errors
    /// Of reading the leaf that it would be in, where it was not read before.
    pub async fn has_segment<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        segment: &SegmentRef,
        order: KeyOrder,
    ) -> Result<bool, Error> {
        let next = behind(&self.leaves.list, &segment.first_key, order);
        let begins = starts_at(self.leaves.list.get(next), &segment.first_key);
        let leaf = if begins { Some(next) } else { next.checked_sub(1) };
        let Some(hash) = leaf.and_then(|leaf| self.leaves.list.get(leaf)).map(|leaf| leaf.hash) else {
            return Ok(false);
        };
        Ok(self.leaves.segments(state, hash).await?.iter().any(|it| it.hash == segment.hash))
    }

    /// Passes over a leaf unread; `false` when that is not what comes next.
    pub fn skip_leaf(&mut self, hash: ContentHash) -> bool {
        let next = self.in_hand.is_empty()
            && self.segments.is_empty()
            && self.leaves.list.get(self.next_leaf).is_some_and(|leaf| leaf.hash == hash);
        self.next_leaf += usize::from(next);
        next
    }

    /// Passes over a segment unread; `false` when that is not what comes next, or not all that is known before `end`.
    ///
    /// # Errors
    /// Of reading the leaf that it may be in.
    pub async fn skip_segment<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        segment: &SegmentRef,
        end: Option<&str>,
        order: KeyOrder,
    ) -> Result<bool, Error> {
        if !self.in_hand.is_empty() || self.undeleted.has_before(state, end, order).await? {
            return Ok(false);
        }
        if self.segments.is_empty() && starts_at(self.leaves.list.get(self.next_leaf), &segment.first_key) {
            self.open_leaf(state).await?;
        }
        Ok(self.segments.pop_front_if(|next| next.hash == segment.hash).is_some())
    }

    /// Takes what comes before `end` (`None`: all), a segment at a time; `None` when there is nothing left of it.
    ///
    /// # Errors
    /// Of reading the leaf and the segment that come next.
    pub async fn take_before<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        end: Option<&str>,
        order: KeyOrder,
    ) -> Result<Option<Chunk>, Error> {
        loop {
            // Of what stands beside the snapshot, a part at a time.
            let next_part = self.undeleted.next_part();
            let nearer = next_part.filter(|key| end.is_none_or(|end| order.compare(key, end).is_lt()));
            let chunk = self.take_of_snapshot(state, nearer.as_deref().or(end), order).await?;
            let (mut known, up_to) = chunk.map_or((Vec::new(), None), |chunk| (chunk.known, chunk.up_to));
            let up_to = up_to.or(nearer);
            let beside = self.undeleted.take_before(state, up_to.as_deref().or(end), order).await?;
            self.beside = beside.iter().map(|known| known.key.clone()).collect();
            if !beside.is_empty() {
                // It lies among the snapshot's files, and none of it is one of them.
                known.extend(beside);
                known.sort_by(|a, b| order.compare(&a.key, &b.key));
            }
            if !known.is_empty() {
                return Ok(Some(Chunk { known, up_to }));
            }
            if up_to.is_none() {
                return Ok(None);
            }
        }
    }

    async fn take_of_snapshot<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        end: Option<&str>,
        order: KeyOrder,
    ) -> Result<Option<Chunk>, Error> {
        let is_before = |key: &str| end.is_none_or(|end| order.compare(key, end).is_lt());
        loop {
            let mut known = Vec::new();
            while let Some(next) = self.in_hand.pop_front_if(|known| is_before(&known.key)) {
                known.push(next);
            }
            if !known.is_empty() {
                let next = self.segments.front().or(self.leaves.list.get(self.next_leaf)).map(|next| &next.first_key);
                let up_to = next.filter(|next| self.in_hand.is_empty() && is_before(next));
                return Ok(Some(Chunk { known, up_to: up_to.cloned() }));
            }
            if !self.in_hand.is_empty() {
                return Ok(None);
            }
            if self.segments.is_empty() {
                if !self.leaves.list.get(self.next_leaf).is_some_and(|leaf| is_before(&leaf.first_key)) {
                    return Ok(None);
                }
                self.open_leaf(state).await?;
            }
            let Some(next) = self.segments.pop_front_if(|segment| is_before(&segment.first_key)) else {
                return Ok(None);
            };
            self.read.push(next.hash);
            self.in_hand.extend(state.read_segment(&segment_name(next.hash)).await?);
        }
    }

    /// The segments that were read since this was asked last.
    pub fn take_read(&mut self) -> Vec<ContentHash> {
        std::mem::take(&mut self.read)
    }

    /// Gives back what was taken and not dealt with. It must be what was taken last.
    pub fn put_back(&mut self, known: impl DoubleEndedIterator<Item = Known>, order: KeyOrder) {
        let is_beside = |it: &Known| self.beside.binary_search_by(|key| order.compare(key, &it.key)).is_ok();
        let (beside, known): (Vec<_>, Vec<_>) = known.partition(is_beside);
        known.into_iter().rev().for_each(|known| self.in_hand.push_front(known));
        self.undeleted.put_back(beside);
        self.beside.clear();
    }

    async fn open_leaf<B: BlobStore, D: DocumentStore>(&mut self, state: &State<'_, B, D>) -> Result<(), Error> {
        if let Some(leaf) = self.leaves.list.get(self.next_leaf) {
            let hash = leaf.hash;
            self.segments = self.leaves.segments(state, hash).await?.to_vec().into();
            self.next_leaf += 1;
        }
        Ok(())
    }
}

/// How many of `items` begin before `key`.
fn behind(items: &[SegmentRef], key: &str, order: KeyOrder) -> usize {
    items.partition_point(|item| order.compare(&item.first_key, key).is_lt())
}

fn starts_at(item: Option<&SegmentRef>, key: &str) -> bool {
    item.is_some_and(|item| item.first_key == key)
}
