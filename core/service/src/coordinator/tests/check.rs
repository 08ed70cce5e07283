//! What must hold at rest: feed, sinks, snapshot and bucket are the same.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use super::{test_sink::*, world::*};
use b2sync_core::{
    change::{Change, ChangeKind, Previous, change_id},
    entry::Entry,
    feed::read::PAGE_CHANGES_MAX,
    snapshot::{EtagTag, Known, index::Level},
    state::{self, State as Stored},
};

impl World {
    /// A page of the feed.
    pub(super) fn changes(
        &self,
        after: Option<u64>,
        limit: u64,
        wait_ms: u64,
    ) -> Result<(Vec<Change>, u64, u64), Error> {
        match self.try_ask(Command::Changes { after, limit, wait_ms })? {
            Answer::Changes { changes, first, last } => {
                Ok((changes.into_iter().map(Change::from).collect(), first, last))
            }
            other => panic!("{other:?}"),
        }
    }

    /// All that is in the feed.
    pub(super) fn feed(&self) -> Vec<Change> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let (changes, first, last) = self.changes(after, 1 + PAGE_CHANGES_MAX as u64, 0).unwrap();
            all.extend(changes);
            let reached = all.last().map_or(first - 1, |change: &Change| change.position);
            if reached == last {
                return all;
            }
            after = Some(reached);
        }
    }

    /// What the catalogue has: key and version.
    pub(super) fn delivered(&self) -> BTreeMap<String, u64> {
        versions(self.sink(0).taken.current())
    }

    /// What the bucket holds that passes the filters.
    pub(super) fn expected(&self) -> BTreeMap<String, u64> {
        let sync = poll_to_end(self.inner.registry.sync(SYNC)).unwrap().unwrap().unwrap();
        let filter = Filter::compile(&sync.effective_filters(), &sync.source).unwrap();
        let bucket = self.inner.bucket.borrow().clone();
        bucket.into_iter().filter(|(key, version)| filter.matches(&listed(key, *version))).collect()
    }

    /// Bucket, feed, snapshot and every sink are the same; the feed is whole, and each sink got all of it in order.
    #[track_caller]
    pub(super) fn check(&self) {
        self.check_from(&BTreeMap::new());
    }

    /// [`Self::check`] where retention may have dropped what the feed was seen to begin with.
    #[track_caller]
    pub(super) fn check_from(&self, seen: &BTreeMap<u64, Change>) {
        self.catch_up();
        let expected = self.expected();
        let mut feed = self.check_feed();
        let first = feed.first().map_or(u64::MAX, |change| change.position);
        feed.splice(..0, seen.range(..first).map(|(_, change)| change.clone()));
        assert_eq!(feed.first().map_or(1, |change| change.position), 1, "the feed does not begin at 1");
        assert_eq!(versions(replayed(&feed)), expected, "the feed is not what the bucket holds");
        self.check_stored();
        let sync = poll_to_end(self.inner.registry.sync(SYNC)).unwrap().unwrap().unwrap();
        let sinks = if sync.sinks.is_empty() { Vec::new() } else { self.inner.sinks.borrow().clone() };
        for sink in sinks {
            check_offers(&sink, &feed);
            assert_eq!(versions(sink.taken.current()), expected, "{} is not what the bucket holds", sink.sink_id);
            let offers = sink.offers.borrow();
            let offered: BTreeSet<u64> = offers.iter().flat_map(|(_, it)| it).map(|it| it.position).collect();
            let wanted: BTreeSet<u64> = (1..=feed.last().map_or(0, |change| change.position)).collect();
            assert_eq!(offered, wanted, "{} has not got every position", sink.sink_id);
            if !sink.has_refused.get() {
                let rows = sink.rows().objects.into_iter().map(|row| (row.key, (row.change_id, row.version)));
                assert_eq!(rows.collect::<BTreeMap<_, _>>(), applied_once(&feed), "{} applied otherwise", sink.sink_id);
            }
        }
        let known: BTreeMap<String, Known> = self.known().into_iter().map(|known| (known.key.clone(), known)).collect();
        let wanted = expected.iter().map(|(key, version)| (key.clone(), Known::from(&listed(key, *version)))).collect();
        assert_eq!(known, wanted, "the snapshot is not what the bucket holds");
    }

    /// The feed is dense, each change under its own id, and follows from the one before of its key.
    #[track_caller]
    pub(super) fn check_feed(&self) -> Vec<Change> {
        let feed = self.feed();
        let first = feed.first().map_or(1, |change| change.position);
        let mut now: BTreeMap<&str, &Change> = BTreeMap::new();
        for (change, position) in feed.iter().zip(first..) {
            assert_eq!((change.position, &change.id), (position, &change_id(SYNC, position)));
            assert_eq!(change.entry.etag.is_empty(), change.kind == ChangeKind::Deleted);
            let before = now.insert(&change.entry.key, change).filter(|it| it.kind != ChangeKind::Deleted);
            if change.again {
                assert_eq!(before.map(|it| &it.entry), Some(&change.entry), "{change:?}");
                continue;
            }
            assert_eq!(change.previous.is_some(), change.kind != ChangeKind::Created, "{change:?}");
            match before {
                Some(before) => {
                    assert_eq!(change.previous, Some(previous(&before.entry)), "{change:?} after {before:?}");
                    assert!(change.kind == ChangeKind::Deleted || change.entry.etag != before.entry.etag, "{change:?}");
                }
                // What retention dropped cannot be seen.
                None => assert!(first > 1 || change.kind == ChangeKind::Created, "{change:?} after nothing"),
            }
        }
        feed
    }

    /// No checkpoint is left, and all that the document names is stored.
    #[track_caller]
    pub(super) fn check_stored(&self) {
        assert!(self.snapshot().checkpoint.is_none(), "a checkpoint is left");
        self.known();
        self.feed();
    }

    /// The snapshot.
    fn known(&self) -> Vec<Known> {
        let inner = &self.inner;
        let stored = Stored::new(&inner.blobs, &inner.documents);
        let mut names: Vec<String> = self.snapshot().root.index.into_iter().collect();
        let mut known = Vec::new();
        while let Some(name) = names.pop() {
            if !state::is_node(&name) {
                known.extend(poll_to_end(stored.read_segment(&name)).unwrap().unwrap());
                continue;
            }
            let (level, items) = poll_to_end(stored.read_node(&name)).unwrap().unwrap();
            let name = |hash| if level == Level::Top { state::node_name(hash) } else { state::segment_name(hash) };
            names.extend(items.into_iter().map(|item| name(item.hash)));
        }
        known
    }

    /// A sink's document.
    pub(super) fn record(&self, n: usize) -> SinkRecord {
        poll_to_end(SinkRecord::load(&self.inner.documents, &self.sink(n).sink_id)).unwrap().unwrap().value
    }

    /// The coordinator's document.
    pub(super) fn state(&self) -> State {
        poll_to_end(Coordinator::new(&self.home()).load(SYNC)).unwrap().unwrap()
    }
}

/// A sink was offered every position in order: a repetition may go back, and nothing skips ahead; a position is always
/// the same change.
#[track_caller]
pub(super) fn check_offers(sink: &TestSink, feed: &[Change]) {
    let feed: BTreeMap<u64, &Change> = feed.iter().map(|change| (change.position, change)).collect();
    let mut seen: BTreeMap<u64, Change> = BTreeMap::new();
    let mut highest = 0;
    for (_, changes) in sink.offers.borrow().iter() {
        assert!(changes.is_sorted_by_key(|change| change.position), "{}: {changes:?}", sink.sink_id);
        for change in changes {
            assert!(change.position <= highest + 1, "{} skipped from {highest} to {change:?}", sink.sink_id);
            highest = highest.max(change.position);
            assert!(feed.get(&change.position).is_none_or(|it| *it == change), "it stands otherwise in the feed");
            let first = seen.entry(change.position).or_insert_with(|| change.clone());
            assert_eq!(first, change, "{} got another change for a position", sink.sink_id);
        }
    }
}

/// What a feed, from its beginning, comes to.
pub(super) fn replayed(feed: &[Change]) -> BTreeMap<String, Entry> {
    let mut current = BTreeMap::new();
    for change in feed {
        match change.kind {
            ChangeKind::Deleted => current.remove(&change.entry.key),
            _ => current.insert(change.entry.key.clone(), change.entry.clone()),
        };
    }
    current
}

/// What a catalogue that applies each change of a feed once has of each key: the latest change, and how many there were
/// since the key was created.
fn applied_once(feed: &[Change]) -> BTreeMap<String, (String, u32)> {
    let mut rows: BTreeMap<String, (String, u32)> = BTreeMap::new();
    for change in feed {
        let version = rows.remove(&change.entry.key).map_or(1, |(_, version)| version + 1);
        if change.kind != ChangeKind::Deleted {
            rows.insert(change.entry.key.clone(), (change.id.clone(), version));
        }
    }
    rows
}

fn versions(current: BTreeMap<String, Entry>) -> BTreeMap<String, u64> {
    current.into_iter().map(|(key, entry)| (key, entry.size)).collect()
}

fn previous(entry: &Entry) -> Previous {
    Previous { size: entry.size, last_modified: entry.last_modified, tag: EtagTag::of(&entry.etag) }
}

/// A file of the bucket, as the listing shows it.
fn listed(key: &str, version: u64) -> Entry {
    let last_modified = Timestamp::parse_rfc3339("2023-01-01T00:00:00Z").unwrap();
    Entry { key: key.to_owned(), etag: etag(version), size: version, last_modified }
}
