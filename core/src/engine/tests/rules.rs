//! What must hold after every swap of the document, by any step: checked by the stores themselves.
//!
//! What the snapshot counts is held against the feed after every swap as long as there are few files, and after some of
//! them, and the last one of each job, where there are many.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use bytes::Bytes;
use pollster::block_on;

use crate::{
    change::{Change, ChangeKind, Previous},
    engine::{
        previous::{Leaves, known},
        settle_checkpoint,
    },
    feed::{Retention, batch},
    policy::Reconcile,
    snapshot::{Known, cut::Cut},
    state::{
        State,
        document::{Root, SnapshotDocument},
        feed::{BatchRef, Feed, decode_list},
        node_name, segment_name,
    },
    store::{BlobStore, DocumentStore, MemoryBlobs, MemoryDocuments},
    testing::stores::Watcher,
};

/// The sync of all tests here.
pub(super) const SYNC_ID: &str = "sync_1";

/// With more files than this, what the snapshot counts is looked at less often.
const FILES_FEW: usize = 1_000;
/// And then once in this many swaps.
const SWAPS_BETWEEN: u64 = 32;

/// Files by their keys.
pub(super) type Files = BTreeMap<String, Known>;

/// What the steps of a world are asked to do, and what all swaps so far have shown.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) cut: Cell<Cut>,
    pub(super) reconcile: Cell<Reconcile>,
    pub(super) retention: Cell<Retention>,
    /// How often a page of the bucket was the last one, and how often before the job began that runs.
    pub(super) pages_ended: RefCell<Rc<Cell<u64>>>,
    pub(super) ended_before: Cell<u64>,
    /// Whether all changes were asked for in every swap: then the feed tells everything.
    pub(super) tells_all: Cell<bool>,
    /// Before this effect, what the snapshot counts is not looked at: another world has shown it.
    pub(super) looks_from: Cell<u64>,
    effects: Cell<u64>,
    /// A swap may store the document as it was.
    pub(super) is_fenced: Cell<bool>,
    seen: RefCell<Seen>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            cut: Cell::new(Cut::new([1; 16])),
            reconcile: Cell::default(),
            retention: Cell::new(Retention::ALL),
            pages_ended: RefCell::default(),
            ended_before: Cell::default(),
            tells_all: Cell::new(true),
            looks_from: Cell::default(),
            effects: Cell::default(),
            is_fenced: Cell::default(),
            seen: RefCell::default(),
        }
    }
}

/// What the swaps so far have shown.
#[derive(Debug, Default)]
struct Seen {
    /// The document as the latest swap left it.
    document: Option<SnapshotDocument>,
    /// Every list of batches that was ever named.
    lists: BTreeMap<String, Vec<BatchRef>>,
    /// Every batch that was ever named, by its first position.
    batches: BTreeMap<u64, (BatchRef, Bytes)>,
    ids: BTreeSet<String>,
    changes: Vec<Change>,
    /// What a reader has that applied all changes over nothing.
    replayed: Files,
    /// What the snapshot counted when it was looked at last, and how many swaps there were since then.
    counted: Files,
    swaps_since: u64,
    /// The position of the oldest change that is kept, and the one that comes next.
    first: u64,
    next: u64,
    generation: u64,
    entries: u64,
    index: Option<String>,
    /// The blobs of the feed that the document names.
    named: BTreeSet<String>,
}

impl Rules {
    /// All changes that were ever appended, also those that are no longer kept.
    pub(super) fn changes(&self) -> Vec<Change> {
        self.seen.borrow().changes.clone()
    }
}

impl Watcher for Rules {
    fn storing(&self, blobs: &MemoryBlobs, name: &str, value: &Bytes) {
        self.effects.set(self.effects.get() + 1);
        let before = block_on(blobs.get(name)).unwrap();
        assert!(before.is_none_or(|before| before == *value), "{name} is stored again, and is another blob");
    }

    fn deleting(&self, _: &MemoryBlobs, name: &str) {
        self.effects.set(self.effects.get() + 1);
        assert!(!self.seen.borrow().named.contains(name), "{name} is deleted, and the feed names it");
    }

    fn swapped(&self, blobs: &MemoryBlobs, documents: &MemoryDocuments) {
        self.effects.set(self.effects.get() + 1);
        let state = State::new(blobs, documents);
        let document = block_on(state.load_document()).unwrap().0;
        let mut seen = self.seen.borrow_mut();
        let changes = seen.document.as_ref() != Some(&document);
        assert!(changes || self.is_fenced.get(), "a swap that changes nothing");
        seen.document = Some(document.clone());
        let root = &document.root;
        assert!(root.generation >= seen.generation, "the root goes back");
        let is_same = (root.generation, root.entries, &root.index) == (seen.generation, seen.entries, &seen.index);
        assert!(is_same || root.generation > seen.generation, "another snapshot is of the same generation");
        (seen.generation, seen.entries) = (root.generation, root.entries);
        seen.index.clone_from(&root.index);
        let (appended, named) = appended(&mut seen, &state, &document.feed, self.retention.get());
        seen.named = named;
        self.check_deletions(&document, &appended);
        self.tells_all.set(self.tells_all.get() && self.reconcile.get() == Reconcile::default());
        for change in &appended {
            if self.tells_all.get() {
                check_against_replay(&seen.replayed, change);
            }
            apply(&mut seen.replayed, change);
        }
        seen.swaps_since += 1;
        let is_due =
            seen.replayed.len() <= FILES_FEW || seen.swaps_since >= SWAPS_BETWEEN || document.checkpoint.is_none();
        if is_due && self.effects.get() >= self.looks_from.get() {
            let counted = counted(blobs, documents, self.cut.get());
            if seen.swaps_since == 1 {
                self.check_difference(&seen.counted, &counted, &appended);
            }
            if self.tells_all.get() {
                assert_same(&seen.replayed, &counted, "the feed, replayed from its first change, is what is counted");
            }
            (seen.counted, seen.swaps_since) = (counted, 0);
        }
        seen.changes.extend(appended);
    }
}

impl Rules {
    /// Of what the snapshot counts, nothing changes that the feed does not tell, unless it was not asked for.
    fn check_difference(&self, before: &Files, after: &Files, appended: &[Change]) {
        let Reconcile { on_delete, on_update, on_filter_drift } = self.reconcile.get();
        let told: BTreeMap<&String, &Change> = appended.iter().map(|change| (&change.entry.key, change)).collect();
        assert_eq!(told.len(), appended.len(), "one swap appends two changes of one key");
        for change in appended {
            let (was, is) = (before.get(&change.entry.key), after.get(&change.entry.key));
            let version = Known::from(&change.entry);
            let fits = match change.kind {
                ChangeKind::Created => was.is_none() && is == Some(&version),
                ChangeKind::Updated if change.again => is == Some(&version) && was == is,
                ChangeKind::Updated => was.is_some() && is == Some(&version) && was != is,
                ChangeKind::Deleted => was.is_some() && is.is_none(),
            };
            assert!(fits, "{change:?} takes the snapshot from {was:?} to {is:?}");
            let previous = was.map(Previous::from).filter(|_| !change.again);
            assert_eq!(change.previous, previous, "what was known before {change:?}");
        }
        for key in before.keys().chain(after.keys()).filter(|key| !told.contains_key(key)) {
            let fits = match (before.get(key), after.get(key)) {
                (Some(was), Some(is)) => was == is || !on_update,
                (Some(_), None) => !(on_delete && on_filter_drift),
                _ => false,
            };
            assert!(fits, "no change tells why {key:?} went from {:?} to {:?}", before.get(key), after.get(key));
        }
    }

    /// A deletion is appended once the whole listing was read.
    fn check_deletions(&self, document: &SnapshotDocument, appended: &[Change]) {
        if appended.iter().any(|change| change.kind == ChangeKind::Deleted) {
            let is_listed = document.checkpoint.as_ref().is_none_or(|checkpoint| checkpoint.listed);
            let is_limited = match &document.checkpoint {
                Some(checkpoint) => checkpoint.limited,
                None => document.root.job.as_ref().is_some_and(|job| job.limited),
            };
            let is_covered = self.pages_ended.borrow().get() > self.ended_before.get() || is_limited;
            assert!(is_listed && is_covered, "a deletion is appended before the listing was read to its end");
        }
    }
}

/// What a change says of a key is what a reader knows of it that applied all changes before.
fn check_against_replay(replayed: &Files, change: &Change) {
    let had = replayed.get(&change.entry.key);
    assert_eq!(had.is_none(), change.kind == ChangeKind::Created, "{change:?}, where {had:?} was before");
    if change.again {
        assert_eq!(had, Some(&Known::from(&change.entry)), "what is handed over again is as before");
    } else {
        assert_eq!(change.previous, had.map(Previous::from), "what was known before {change:?}");
    }
    if change.kind == ChangeKind::Updated && !change.again {
        assert_ne!(had, Some(&Known::from(&change.entry)), "an update that changes nothing");
    }
}

/// Applies a change, as a reader of the feed does.
pub(super) fn apply(files: &mut Files, change: &Change) {
    match change.kind {
        ChangeKind::Deleted => files.remove(&change.entry.key),
        _ => files.insert(change.entry.key.clone(), Known::from(&change.entry)),
    };
}

/// Checks the batches that the feed names, and answers the changes that are new, and the blobs that it names.
fn appended(
    seen: &mut Seen,
    state: &State<'_, MemoryBlobs, MemoryDocuments>,
    feed: &Feed,
    retention: Retention,
) -> (Vec<Change>, BTreeSet<String>) {
    for list in &feed.lists {
        seen.lists.entry(list.blob.clone()).or_insert_with(|| read_list(state, &list.blob));
    }
    let (batches, named) = batches_by(feed, |blob| seen.lists[blob].clone());
    let first = batches.first().map_or(feed.next, |batch| batch.first);
    assert_eq!(feed.first().unwrap(), first);
    let known_next = seen.next.max(1);
    assert!(feed.next >= known_next && first >= seen.first, "the feed goes back");
    let mut changes = Vec::new();
    let mut position = first;
    for batch in batches {
        assert!(batch.first == position && batch.count > 0, "positions are dense: {batch:?} at {position}");
        position = batch.next();
        if batch.first < known_next {
            // What is in it is the same: blobs are neither replaced nor, while they are named, deleted.
            assert_eq!(seen.batches.get(&batch.first).map(|it| it.0), Some(batch), "a batch is another one now");
            continue;
        }
        let bytes = block_on(state.read(&batch.name())).expect("a batch that is named can be read");
        let decoded = batch::decode(&bytes, SYNC_ID).unwrap();
        assert_eq!(decoded.len() as u64, batch.count);
        for (change, position) in decoded.iter().zip(batch.first..) {
            assert_eq!((change.position, change.found_at), (position, batch.found_at));
            assert!(seen.ids.insert(change.id.clone()), "the id {} is there twice", change.id);
        }
        changes.extend(decoded);
        seen.batches.insert(batch.first, (batch, bytes));
    }
    assert_eq!(position, feed.next, "positions are dense up to the last one");
    for (batch, _) in seen.batches.range(seen.first..first).map(|(_, it)| it) {
        let is_old = retention.before.is_none_or(|before| batch.found_at < before);
        assert!(is_old && batch.next() - 1 <= retention.up_to, "{batch:?} is dropped in spite of {retention:?}");
    }
    let told: Vec<u64> = changes.iter().map(|change| change.position).collect();
    let due: Vec<u64> = (known_next..feed.next).collect();
    assert_eq!(told, due, "each position is told once");
    (seen.first, seen.next) = (first, feed.next);
    (changes, named)
}

/// All batches that a feed names, in order, and the names of its blobs.
pub(super) fn batches_of(
    state: &State<'_, MemoryBlobs, MemoryDocuments>,
    feed: &Feed,
) -> (Vec<BatchRef>, BTreeSet<String>) {
    batches_by(feed, |blob| read_list(state, blob))
}

fn read_list(state: &State<'_, MemoryBlobs, MemoryDocuments>, blob: &str) -> Vec<BatchRef> {
    decode_list(&block_on(state.read(blob)).expect("a list that is named can be read")).unwrap()
}

fn batches_by(feed: &Feed, read: impl Fn(&str) -> Vec<BatchRef>) -> (Vec<BatchRef>, BTreeSet<String>) {
    let (mut batches, mut named) = (Vec::new(), BTreeSet::new());
    for list in &feed.lists {
        let part = read(&list.blob);
        let (oldest, newest) = (part.first().unwrap(), part.last().unwrap());
        let found_at = part.iter().map(|batch| batch.found_at).max().unwrap();
        assert_eq!((list.first, list.next, list.found_at), (oldest.first, newest.next(), found_at));
        batches.extend(part);
        assert!(named.insert(list.blob.clone()));
    }
    batches.extend(feed.tail().unwrap());
    named.extend(batches.iter().map(|batch| batch.name()));
    (batches, named)
}

/// All that the root and the checkpoint count together: what is left when the job is settled there.
pub(super) fn counted(blobs: &MemoryBlobs, documents: &MemoryDocuments, cut: Cut) -> Files {
    let (blobs, documents) = (blobs.clone(), documents.clone());
    let before = block_on(State::new(&blobs, &documents).load_document()).unwrap().0.feed;
    let root = block_on(settle_checkpoint(&blobs, &documents, cut)).unwrap();
    let state = State::new(&blobs, &documents);
    assert_eq!(block_on(state.load_document()).unwrap().0.feed, before, "settling a job appends nothing");
    let known = known_of(&state, &root).1;
    assert_eq!(root.entries, known.len() as u64);
    let files: Files = known.into_iter().map(|known| (known.key.clone(), known)).collect();
    assert_eq!(root.entries, files.len() as u64, "a file is in the snapshot twice");
    files
}

/// All blobs of a snapshot, and all that it knows.
pub(super) fn known_of<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    root: &Root,
) -> (BTreeSet<String>, Vec<Known>) {
    let mut names: BTreeSet<String> = root.index.clone().into_iter().collect();
    let mut known = Vec::new();
    let mut leaves = block_on(Leaves::of(state, root)).unwrap();
    for leaf in leaves.list.clone() {
        names.insert(node_name(leaf.hash));
        for segment in block_on(leaves.segments(state, leaf.hash)).unwrap().to_vec() {
            names.insert(segment_name(segment.hash));
            known.extend(block_on(state.read_segment(&segment_name(segment.hash))).unwrap());
        }
    }
    for part in &root.undeleted {
        names.extend(part.blob.clone());
        known.extend(block_on(known::read(state, part)).unwrap());
    }
    (names, known)
}

/// Shows what differs, and not all of both.
#[track_caller]
pub(super) fn assert_same(a: &Files, b: &Files, rule: &str) {
    let differing: Vec<_> = a
        .keys()
        .chain(b.keys())
        .filter(|key| a.get(*key) != b.get(*key))
        .map(|key| (key, a.get(key), b.get(key)))
        .collect();
    assert!(differing.is_empty(), "{rule}: {differing:?}");
}
