//! The snapshot that comes next, as it is put together: segments become leaves, leaves become an index.

use std::collections::BTreeSet;

use crate::{
    engine::previous::Base,
    entry::{Entry, EntryRef, KeyOrder},
    error::Error,
    snapshot::{
        ContentHash, EtagTag, Known,
        cut::{Begins, Cut, LEAF_SEGMENTS_MAX},
        index::{self, Level, SegmentRef},
        segment::Builder,
    },
    state::{State, node_name, segment_name},
    store::{BlobStore, DocumentStore},
};

/// What was put together so far, in the order of keys. The same entries give the same pieces, in whatever portions they
/// come.
#[derive(Debug)]
pub struct Assembly {
    cut: Cut,
    /// The leaves that are closed.
    pub leaves: Vec<SegmentRef>,
    /// The segments of the leaf that is not.
    pub segments: Vec<SegmentRef>,
    builder: Builder,
    /// What is to be stored: name and bytes.
    puts: Vec<(String, Vec<u8>)>,
    put_bytes: usize,
    /// Leaves of the snapshot before: they are stored already.
    stored: BTreeSet<ContentHash>,
    /// The leaves that were closed or taken apart since this was asked last, with their segments.
    looked_into: Vec<(ContentHash, Vec<ContentHash>)>,
    /// The latest segment that was closed, where it is not to be stored (any more): it may be taken apart again.
    last: Option<(ContentHash, Vec<u8>)>,
    /// Segments of the snapshot before that were taken apart here, or met again amid others that were: they are stored.
    reopened: BTreeSet<ContentHash>,
    /// How many leaves, from the first on, are as they were when this was set.
    pub leaves_as_before: usize,
    /// Blobs of this job that were taken apart again, and may have been stored.
    pub dropped: Vec<String>,
}

impl Assembly {
    /// With what was put together before.
    pub fn new(cut: Cut, leaves: Vec<SegmentRef>, segments: Vec<SegmentRef>) -> Self {
        Self {
            cut,
            leaves,
            segments,
            builder: Builder::default(),
            puts: Vec::new(),
            put_bytes: 0,
            stored: BTreeSet::new(),
            looked_into: Vec::new(),
            last: None,
            reopened: BTreeSet::new(),
            leaves_as_before: usize::MAX,
            dropped: Vec::new(),
        }
    }

    /// These leaves are stored already.
    pub fn keep_stored(&mut self, leaves: &[SegmentRef]) {
        self.stored = leaves.iter().map(|leaf| leaf.hash).collect();
    }

    /// The leaves that were closed or taken apart since this was asked last, with their segments.
    pub fn take_looked_into(&mut self) -> Vec<(ContentHash, Vec<ContentHash>)> {
        std::mem::take(&mut self.looked_into)
    }

    fn note(&mut self, leaf: ContentHash) {
        self.looked_into.push((leaf, self.segments.iter().map(|segment| segment.hash).collect()));
    }

    /// Whether all that was put in is in closed segments.
    pub fn is_between_segments(&self) -> bool {
        self.builder.is_empty()
    }

    /// What is to be stored, in bytes.
    pub fn put_bytes(&self) -> usize {
        self.put_bytes
    }

    /// Takes what is to be stored: name and bytes. All of it belongs to closed segments and leaves.
    pub fn take_puts(&mut self) -> Vec<(String, Vec<u8>)> {
        self.put_bytes = 0;
        let puts = std::mem::take(&mut self.puts);
        if let Some(segment) = self.segments.last() {
            let name = segment_name(segment.hash);
            let last = puts.iter().rev().find(|(it, _)| *it == name);
            self.last = last.map(|(_, bytes)| (segment.hash, bytes.clone())).or(self.last.take());
        }
        puts
    }

    fn put(&mut self, name: String, bytes: Vec<u8>) {
        self.put_bytes += bytes.len();
        self.puts.push((name, bytes));
    }

    /// Appends an entry.
    pub fn push_entry(&mut self, entry: EntryRef<'_>) {
        self.push(entry.key, EtagTag::of(entry.etag), entry.size, entry.last_modified);
    }

    /// Appends an entry.
    pub fn push_known(&mut self, known: &Known) {
        self.push(&known.key, known.tag, known.size, known.last_modified);
    }

    fn push(&mut self, key: &str, tag: EtagTag, size: u64, last_modified: crate::time::Timestamp) {
        let full = self.cut.is_full(self.builder.len(), self.builder.weight());
        if !self.builder.is_empty() && (full || self.cut.begins_segment(key)) {
            self.close_segment();
        }
        self.builder.push(key, tag, size, last_modified);
    }

    /// Closes the segment that is not, wherever it is.
    pub fn close_segment(&mut self) {
        if let Some((segment, bytes)) = std::mem::take(&mut self.builder).finish() {
            self.append_segment(segment, Some(bytes));
        }
    }

    /// Appends a whole segment; `bytes` unless it is stored already.
    pub fn append_segment(&mut self, segment: SegmentRef, bytes: Option<Vec<u8>>) {
        self.close_segment();
        if self.cut.begins(&segment.first_key) == Begins::Leaf || self.segments.len() >= LEAF_SEGMENTS_MAX {
            self.close_leaf();
        }
        self.last = None;
        if let Some(bytes) = bytes {
            if self.reopened.contains(&segment.hash) {
                self.last = Some((segment.hash, bytes));
            } else {
                self.put(segment_name(segment.hash), bytes);
            }
        }
        self.segments.push(segment);
    }

    /// Appends a whole segment that the snapshot before has as well.
    pub fn append_equal(&mut self, segment: SegmentRef, bytes: Vec<u8>) {
        let hash = segment.hash;
        self.append_segment(segment, None);
        self.reopened.clear();
        self.last = Some((hash, bytes));
    }

    /// These segments of the snapshot before were taken apart: one that is put together again as it was is stored
    /// already.
    pub fn keep_reopened(&mut self, segments: Vec<ContentHash>) {
        self.reopened.extend(segments);
    }

    /// Appends the entries of a segment that the snapshot before has as well, where segments are cut elsewhere for now.
    pub fn realign_equal(&mut self, hash: ContentHash, entries: &[Entry]) {
        self.reopened.insert(hash);
        entries.iter().for_each(|entry| self.push_entry(entry.into()));
    }

    /// Appends a whole leaf that is stored already.
    pub fn append_leaf(&mut self, leaf: SegmentRef) {
        self.close_segment();
        self.close_leaf();
        self.leaves.push(leaf);
    }

    fn close_leaf(&mut self) {
        if let Some((leaf, bytes)) = index::node(Level::Leaf, &self.segments) {
            self.note(leaf.hash);
            if !self.stored.contains(&leaf.hash) {
                self.put(node_name(leaf.hash), bytes);
            }
            self.leaves.push(leaf);
        }
        self.segments.clear();
    }

    /// Nothing follows.
    pub fn finish(&mut self) {
        self.close_segment();
        self.close_leaf();
    }

    /// Takes the last leaf apart again, because what comes next belongs to it.
    ///
    /// # Errors
    /// Of reading what is not to be stored, but stored.
    pub async fn reopen_leaf<B: BlobStore, D: DocumentStore>(&mut self, state: &State<'_, B, D>) -> Result<(), Error> {
        if self.builder.is_empty()
            && self.segments.is_empty()
            && let Some(leaf) = self.leaves.pop()
        {
            self.leaves_as_before = self.leaves_as_before.min(self.leaves.len());
            let name = node_name(leaf.hash);
            self.segments = match self.unput(&name) {
                Some(bytes) => index::decode(&bytes).map_err(|error| error.into_error(&name))?.1,
                None => state.read_node(&name).await?.1,
            };
            self.note(leaf.hash);
            if !self.stored.contains(&leaf.hash) {
                self.dropped.push(name);
            }
        }
        Ok(())
    }

    /// Takes the last segment apart again, because what comes next belongs to it. `base` is the snapshot before.
    ///
    /// # Errors
    /// As [`Self::reopen_leaf`].
    pub async fn reopen_segment<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        base: &mut Base,
        order: KeyOrder,
    ) -> Result<(), Error> {
        self.reopen_leaf(state).await?;
        if !self.builder.is_empty() {
            return Ok(());
        }
        let Some(segment) = self.segments.pop() else { return Ok(()) };
        let name = segment_name(segment.hash);
        let last = self.last.take().filter(|(hash, _)| *hash == segment.hash);
        let known = match self.unput(&name).or(last.map(|(_, bytes)| bytes)) {
            Some(bytes) => crate::snapshot::segment::decode(&bytes).map_err(|error| error.into_error(&name))?,
            None => state.read_segment(&name).await?,
        };
        if base.has_segment(state, &segment, order).await? {
            self.reopened.insert(segment.hash);
        } else {
            self.dropped.push(name);
        }
        for known in &known {
            self.builder.push(&known.key, known.tag, known.size, known.last_modified);
        }
        Ok(())
    }

    fn unput(&mut self, name: &str) -> Option<Vec<u8>> {
        let at = self.puts.iter().position(|(it, _)| it == name)?;
        let (_, bytes) = self.puts.remove(at);
        self.put_bytes -= bytes.len();
        Some(bytes)
    }

    /// The top of the index, to be stored as it is named; `None` for no leaf, or for one, which is the index itself.
    pub fn top(&self) -> Option<(ContentHash, Vec<u8>)> {
        if self.leaves.len() < 2 {
            return None;
        }
        index::node(Level::Top, &self.leaves).map(|(top, bytes)| (top.hash, bytes))
    }
}
