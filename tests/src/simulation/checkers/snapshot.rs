//! What the snapshot's document names, and what root and checkpoint count.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use b2sync_core::entry::KeyOrder;
use b2sync_core::snapshot::index::{self, Level, SegmentRef};
use b2sync_core::snapshot::{Known, packed, segment};
use b2sync_core::state::document::{self, Checkpoint, KnownPart, Root, SnapshotDocument};
use b2sync_core::state::{node_name, segment_name};

use super::{Rule, Violation};
use crate::simulation::kv::StaleKv;

/// Which parts of a snapshot's document are in blobs, since they are too long for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SnapshotSeen {
    /// The open segment.
    pub pending: bool,
    /// Leaves of the next snapshot.
    pub leaves: bool,
    /// Deletions.
    pub deletions: bool,
    /// Lists of batches.
    pub batches: bool,
    /// How many changes it appended.
    pub appended: u64,
    /// How many batches it no longer names.
    pub dropped: u64,
}

/// Files as root and checkpoint count them, in whatever order.
pub(super) type Counted = Vec<Rc<[Known]>>;

/// What the checkers remember of it.
#[derive(Debug, Default)]
pub(super) struct SnapshotChecks {
    /// As it was stored last.
    pub(super) root: Root,
    /// The blobs that the document names.
    pub(super) named: HashSet<String>,
    /// What segments and nodes hold: a name never has a second value.
    segments: HashMap<String, Rc<[Known]>>,
    nodes: HashMap<String, (Level, Rc<[SegmentRef]>)>,
}

pub(super) fn unreadable(error: impl std::fmt::Debug) -> Violation {
    Violation::new(Rule::NothingNamedIsMissing, format!("a stored piece does not decode: {error:?}"))
}

pub(super) fn missing(who: &str, name: &str) -> Violation {
    Violation::new(Rule::NothingNamedIsMissing, format!("{who} names {name}, which is not stored"))
}

pub(super) fn decode(bytes: &[u8]) -> Result<SnapshotDocument, Violation> {
    SnapshotDocument::decode(bytes).map_err(unreadable)
}

impl SnapshotChecks {
    /// Within a generation only what is to be deleted changes.
    pub(super) fn check_root(&mut self, next: &Root) -> Result<(), Violation> {
        let root = Root { garbage: self.root.garbage.clone(), retired: self.root.retired.clone(), ..next.clone() };
        if root.generation < self.root.generation || (root.generation == self.root.generation && root != self.root) {
            let message = format!("generation {} comes after {}", root.generation, self.root.generation);
            return Err(Violation::new(Rule::RootNeverRegresses, message));
        }
        self.root = next.clone();
        Ok(())
    }

    /// All that the document names must be there, and is added to `named`. Answers what root and checkpoint count.
    pub(super) fn counted(
        &mut self,
        document: &SnapshotDocument,
        kv: &StaleKv,
        order: KeyOrder,
        named: &mut HashSet<String>,
    ) -> Result<Counted, Violation> {
        let counted = self.root_entries(&document.root, kv, named)?;
        if let Some(name) = document.scratch_named().find(|name| kv.truth(name).is_none()) {
            return Err(missing("the document", name));
        }
        named.extend(document.scratch_named().map(str::to_owned));
        let Some(checkpoint) = &document.checkpoint else { return Ok(counted) };
        let mut closed = self.closed_entries(checkpoint, kv, named)?;
        let covered_to = checkpoint.covered_to.as_deref();
        if covered_to.is_none() && !checkpoint.listed {
            return Ok(counted);
        }
        let done = usize::try_from(checkpoint.deletions_done).unwrap_or(usize::MAX);
        closed.push(self.parts(&checkpoint.deletions, kv)?.into_iter().skip(done).collect());
        match covered_to.filter(|_| !checkpoint.listed) {
            None => closed.push(self.parts(&checkpoint.undeleted, kv)?.into()),
            // Behind that key all is as the root has it.
            Some(to) => {
                let is_behind = |known: &Known| order.compare(&known.key, to).is_ge();
                closed.extend(counted.into_iter().map(|segment| match segment.iter().all(is_behind) {
                    true => segment,
                    false => segment.iter().filter(|known| is_behind(known)).cloned().collect(),
                }));
            }
        }
        Ok(closed)
    }

    /// What the document named before is there: nothing may delete it.
    fn check_there(&self, kv: &StaleKv, who: &str, name: &str) -> Result<(), Violation> {
        if self.named.contains(name) || kv.truth(name).is_some() { Ok(()) } else { Err(missing(who, name)) }
    }

    fn read_node(&mut self, kv: &StaleKv, who: &str, name: &str) -> Result<(Level, Rc<[SegmentRef]>), Violation> {
        self.check_there(kv, who, name)?;
        if let Some((level, items)) = self.nodes.get(name) {
            return Ok((*level, Rc::clone(items)));
        }
        let bytes = kv.truth(name).ok_or_else(|| missing(who, name))?;
        let (level, items) = index::decode(&bytes).map_err(unreadable)?;
        let items: Rc<[SegmentRef]> = items.into();
        self.nodes.insert(name.to_owned(), (level, Rc::clone(&items)));
        Ok((level, items))
    }

    fn open_leaves(
        &mut self,
        leaves: &[SegmentRef],
        kv: &StaleKv,
        who: &str,
        named: &mut HashSet<String>,
    ) -> Result<Vec<SegmentRef>, Violation> {
        let mut segments = Vec::new();
        for leaf in leaves {
            let name = node_name(leaf.hash);
            segments.extend(self.read_node(kv, who, &name)?.1.iter().cloned());
            named.insert(name);
        }
        Ok(segments)
    }

    fn root_entries(&mut self, root: &Root, kv: &StaleKv, named: &mut HashSet<String>) -> Result<Counted, Violation> {
        let mut counted: Counted = vec![self.parts(&root.undeleted, kv)?.into()];
        let Some(name) = &root.index else { return Ok(counted) };
        let (level, items) = self.read_node(kv, "the root", name)?;
        named.insert(name.clone());
        let segments = match level {
            Level::Leaf => items.to_vec(),
            Level::Top => self.open_leaves(&items, kv, "the root", named)?,
        };
        counted.extend(self.read_segments(&segments, kv, "the root", named)?);
        Ok(counted)
    }

    /// What is in the leaves and segments that a checkpoint has closed.
    fn closed_entries(
        &mut self,
        checkpoint: &Checkpoint,
        kv: &StaleKv,
        named: &mut HashSet<String>,
    ) -> Result<Counted, Violation> {
        let who = "the checkpoint";
        let mut leaves = Vec::new();
        for blob in &checkpoint.leaves {
            leaves.extend(self.read_node(kv, who, blob)?.1.iter().cloned());
        }
        leaves.extend(document::decode_node(checkpoint.leaves_tail.as_deref()).map_err(unreadable)?);
        named.extend(checkpoint.leaves.iter().chain(&checkpoint.pending).cloned());
        let mut segments = self.open_leaves(&leaves, kv, who, named)?;
        segments.extend(document::decode_node(checkpoint.segments.as_deref()).map_err(unreadable)?);
        self.read_segments(&segments, kv, who, named)
    }

    fn read_segments(
        &mut self,
        segments: &[SegmentRef],
        kv: &StaleKv,
        who: &str,
        named: &mut HashSet<String>,
    ) -> Result<Counted, Violation> {
        let mut entries = Vec::new();
        for reference in segments {
            let name = segment_name(reference.hash);
            self.check_there(kv, who, &name)?;
            let known = match self.segments.get(&name) {
                Some(known) => Rc::clone(known),
                None => {
                    let bytes = kv.truth(&name).ok_or_else(|| missing(who, &name))?;
                    let plain = packed::unpack(&bytes).map_err(unreadable)?;
                    let known: Rc<[Known]> =
                        segment::decode(plain.as_deref().unwrap_or(&bytes)).map_err(unreadable)?.into();
                    self.segments.insert(name.clone(), Rc::clone(&known));
                    known
                }
            };
            entries.push(known);
            named.insert(name);
        }
        Ok(entries)
    }

    fn parts(&self, parts: &[KnownPart], kv: &StaleKv) -> Result<Vec<Known>, Violation> {
        let mut entries = Vec::new();
        for part in parts {
            let known = match &part.blob {
                Some(name) => {
                    let bytes = kv.truth(name).ok_or_else(|| missing("the document", name))?;
                    let plain = packed::unpack(&bytes).map_err(unreadable)?;
                    segment::decode(plain.as_deref().unwrap_or(&bytes)).map_err(unreadable)?
                }
                None => document::decode_known(part.tail.as_deref()).map_err(unreadable)?,
            };
            entries.extend(known.into_iter().skip(usize::try_from(part.skip).unwrap_or(usize::MAX)));
        }
        Ok(entries)
    }
}
