//! The feed, as it was read behind each swap: what it tells, replayed from position 1 over nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use b2sync_core::change::{Change, ChangeKind, Previous, change_id};
use b2sync_core::feed::Feed;
use b2sync_core::feed::batch;
use b2sync_core::policy::Reconcile;
use b2sync_core::snapshot::{EtagTag, Known};
use b2sync_core::state::feed::{BatchRef, decode_list};

use super::listing::BucketSeen;
use super::snapshot::{Counted, missing, unreadable};
use super::{Rule, Violation};
use crate::simulation::kv::StaleKv;

/// What is to be known of a sink to judge what a feed drops.
#[derive(Clone, Debug)]
pub struct SinkStands {
    /// Its id.
    pub sink_id: String,
    /// Its cursor; `None`: it is switched off, and the feed keeps nothing for it.
    pub cursor: Option<u64>,
}

/// When a swap happens, and what it may drop.
#[derive(Clone, Debug)]
pub struct SwapSeen {
    /// The moment.
    pub at: u64,
    /// Batches that were found later than this must stay, by whatever clock.
    pub dropped_before_ms: i64,
    /// How the sinks stand.
    pub sinks: Vec<SinkStands>,
}

/// All that the feed ever told.
#[derive(Debug)]
pub(super) struct FeedLog {
    sync_id: String,
    pub(super) reconcile: Reconcile,
    /// In order: the change at position 1 first.
    changes: Vec<Change>,
    ids: BTreeSet<String>,
    /// What a reader has that applies them all.
    current: HashMap<String, Known>,
    /// When the feed first told of a key as it is there: no page before that tells that it is gone.
    appeared: BTreeMap<String, u64>,
    /// The batches that the document named last, by their first positions.
    batches: BTreeMap<u64, BatchRef>,
    /// Files that full syncs handed over again: by job, key, how many scopes there had been, and those that the step
    /// knew.
    again: BTreeSet<(String, String, usize, String)>,
    /// What each job appended: created, updated and repeated files.
    objects: BTreeMap<String, u64>,
    /// Deletions, by job and root: under other filters a job lists from the beginning, beside another root.
    deletions: BTreeMap<(String, u64), u64>,
}

fn dense(message: String) -> Violation {
    Violation::new(Rule::PositionsAreDense, message)
}

fn is_previous(previous: Option<Previous>, known: &Known) -> bool {
    previous == Some(Previous::from(known))
}

impl FeedLog {
    pub(super) fn new(sync_id: &str, reconcile: Reconcile) -> Self {
        Self {
            sync_id: sync_id.to_owned(),
            reconcile,
            changes: Vec::new(),
            ids: BTreeSet::new(),
            current: HashMap::new(),
            appeared: BTreeMap::new(),
            batches: BTreeMap::new(),
            again: BTreeSet::new(),
            objects: BTreeMap::new(),
            deletions: BTreeMap::new(),
        }
    }

    /// The position of the newest change.
    pub(super) fn last(&self) -> u64 {
        self.changes.len() as u64
    }

    /// The change at a position.
    pub(super) fn at(&self, position: u64) -> Option<&Change> {
        self.changes.get(usize::try_from(position.checked_sub(1)?).ok()?)
    }

    /// The files that are there by then, as the feed told of them.
    pub(super) fn files(&self) -> BTreeMap<String, b2sync_core::entry::Entry> {
        let mut files = BTreeMap::new();
        for change in &self.changes {
            match change.kind {
                ChangeKind::Deleted => files.remove(&change.entry.key),
                _ => files.insert(change.entry.key.clone(), change.entry.clone()),
            };
        }
        files
    }

    /// Reads what a document's feed names, and answers the changes that are new. Blobs that it names are added to
    /// `named`.
    pub(super) fn stored(
        &mut self,
        feed: &Feed,
        kv: &StaleKv,
        swap: &SwapSeen,
        named: &mut HashSet<String>,
    ) -> Result<Vec<Change>, Violation> {
        let batches = named_batches(feed, kv, named)?;
        let mut next = batches.first().map_or(feed.next, |batch| batch.first);
        for batch in &batches {
            if batch.first != next || batch.count == 0 {
                return Err(dense(format!("a batch begins at {} behind the position {}", batch.first, next - 1)));
            }
            next = batch.next();
        }
        if next != feed.next {
            return Err(dense(format!("the next position is {}, and the last change is at {}", feed.next, next - 1)));
        }
        let mut found = Vec::new();
        for batch in &batches {
            if !named.insert(batch.name()) {
                return Err(dense(format!("{} is named twice", batch.name())));
            }
            let Some(bytes) = kv.truth(&batch.name()) else {
                let message = format!("the feed names {}, which is not stored", batch.name());
                return Err(Violation::new(Rule::BatchesStay, message));
            };
            if batch.first <= self.last() {
                let before = self.batches.get(&batch.first);
                if before != Some(batch) {
                    return Err(Violation::new(Rule::BatchesStay, format!("{batch:?} was {before:?} before")));
                }
                continue;
            }
            let changes = batch::decode(&bytes, &self.sync_id).map_err(unreadable)?;
            let is_it = changes.first().is_some_and(|change| change.position == batch.first);
            if !is_it || changes.len() as u64 != batch.count {
                return Err(dense(format!("{batch:?} holds {} other changes", changes.len())));
            }
            found.extend(changes);
        }
        let first_new = self.last() + 1;
        if found.first().is_some_and(|change| change.position != first_new) || feed.next < first_new {
            return Err(dense(format!("the feed ends at {} and went to {}", feed.last(), self.last())));
        }
        self.check_dropped(&batches, swap)?;
        self.batches = batches.into_iter().map(|batch| (batch.first, batch)).collect();
        Ok(found)
    }

    /// Batches that are named no more must be the oldest, and no sink may need them.
    fn check_dropped(&self, batches: &[BatchRef], swap: &SwapSeen) -> Result<(), Violation> {
        let kept: BTreeSet<u64> = batches.iter().map(|batch| batch.first).collect();
        for dropped in self.batches.values().filter(|batch| !kept.contains(&batch.first)) {
            let broken = |message| Err(Violation::new(Rule::RetentionWaitsForSinks, message));
            if kept.first().is_some_and(|first| *first < dropped.first) {
                return broken(format!("{dropped:?} is dropped, and an older batch is not"));
            }
            if dropped.found_at.as_millis() >= swap.dropped_before_ms {
                let kept_from = swap.dropped_before_ms;
                return broken(format!("{dropped:?} is dropped, and the feed keeps what was found since {kept_from}"));
            }
            let needs = |sink: &&SinkStands| sink.cursor.is_some_and(|cursor| cursor < dropped.next() - 1);
            if let Some(sink) = swap.sinks.iter().find(needs) {
                return broken(format!("{dropped:?} is dropped, and {sink:?} has not taken it"));
            }
        }
        Ok(())
    }

    /// Appends a change that a step found under the filters `scope`, and judges it. Full syncs append updates whether
    /// they are asked for or not.
    pub(super) fn append(
        &mut self,
        at: u64,
        change: Change,
        (is_full, scope): (bool, &str),
        bucket: &BucketSeen,
    ) -> Result<(), Violation> {
        let position = self.last() + 1;
        if change.position != position {
            return Err(dense(format!("{change:?} is at {position}")));
        }
        if change.id != change_id(&self.sync_id, position) || !self.ids.insert(change.id.clone()) {
            return Err(Violation::new(Rule::OneIdAPosition, format!("{change:?} has another change's id")));
        }
        let key = &change.entry.key;
        let before = self.current.get(key);
        if let Some(why) = self.does_not_follow(before, &change) {
            return Err(Violation::new(Rule::ChangesFollow, format!("{change:?} {why}: {before:?}")));
        }
        self.check_asked_for(at, &change, is_full, bucket)?;
        match change.kind {
            ChangeKind::Deleted => {
                self.current.remove(key);
            }
            ChangeKind::Created | ChangeKind::Updated => {
                self.appeared.insert(key.clone(), at);
                self.current.insert(key.clone(), Known::from(&change.entry));
            }
        }
        let handed_over = (change.job_id.clone(), key.clone(), bucket.scopes(), scope.to_owned());
        if change.again && !self.again.insert(handed_over) {
            let message = format!("{change:?} was handed over by this job before");
            return Err(Violation::new(Rule::ChangesFollow, message));
        }
        self.changes.push(change);
        Ok(())
    }

    /// Why a change cannot come after what was replayed before it.
    fn does_not_follow(&self, before: Option<&Known>, change: &Change) -> Option<&'static str> {
        let Reconcile { on_delete, on_update, on_filter_drift } = self.reconcile;
        let known = Known::from(&change.entry);
        match (change.kind, before) {
            (ChangeKind::Created, Some(_)) if on_delete && on_filter_drift => Some("creates what is there"),
            (ChangeKind::Created, _) => change.previous.is_some().then_some("creates what was known"),
            (ChangeKind::Updated | ChangeKind::Deleted, None) => Some("is of what is not there"),
            (ChangeKind::Updated, Some(before)) if change.again => {
                (on_update && *before != known).then_some("hands over again what is another version")
            }
            // Where updates are silenced, the snapshot may know versions that the feed was not told of.
            (ChangeKind::Updated, Some(_)) if !on_update => None,
            (ChangeKind::Updated, Some(before)) if *before == known => Some("changes nothing"),
            (ChangeKind::Updated, Some(before)) => {
                (!is_previous(change.previous, before)).then_some("updates another version than was replayed before")
            }
            (ChangeKind::Deleted, Some(before)) => (on_update && !is_previous(change.previous, before))
                .then_some("deletes another version than was replayed before"),
        }
    }

    /// The change is of what was visible, and of what the sync is told to tell of.
    fn check_asked_for(&self, at: u64, change: &Change, is_full: bool, bucket: &BucketSeen) -> Result<(), Violation> {
        let key = &change.entry.key;
        let asked_for = |is: bool| match is {
            true => Ok(()),
            false => {
                let message = format!("{change:?} is in the feed under {:?}", self.reconcile);
                Err(Violation::new(Rule::OnlyWhatIsAskedFor, message))
            }
        };
        if change.kind != ChangeKind::Deleted {
            if !bucket.shown(key).any(|entry| *entry == change.entry) {
                return Err(Violation::new(Rule::NothingInvented, format!("{change:?} was never visible")));
            }
            let is_update = change.kind == ChangeKind::Updated;
            return asked_for(if change.again { is_full } else { !is_update || is_full || self.reconcile.on_update });
        }
        let tag = change.previous.map(|previous| previous.tag);
        if !bucket.shown(key).any(|entry| Some(EtagTag::of(&entry.etag)) == tag && entry.size == change.entry.size) {
            return Err(Violation::new(Rule::NothingInvented, format!("{change:?} deletes what was never visible")));
        }
        let since = self.appeared.get(key).copied().unwrap_or(0);
        if !bucket.is_gone(since, key) {
            let message = format!("no complete listing has shown that {key:?} is gone, since it was told of");
            return Err(Violation::new(Rule::DeletesOnlyAfterCompleteCoverage, message));
        }
        asked_for(bucket.is_deletion_asked_for(at, key, self.reconcile))
    }

    /// Counts a change as its job's, beside the root of that generation. Answers how many files the job has appended so
    /// far, and how many deletions beside that root.
    pub(super) fn count(&mut self, change: &Change, generation: u64) -> (u64, u64) {
        let objects = self.objects.entry(change.job_id.clone()).or_default();
        let deletions = self.deletions.entry((change.job_id.clone(), generation)).or_default();
        match change.kind {
            ChangeKind::Deleted => *deletions += 1,
            ChangeKind::Created | ChangeKind::Updated => *objects += 1,
        }
        (*objects, *deletions)
    }

    /// How many changes a job has appended.
    pub(super) fn appended_by(&self, job: &str) -> u64 {
        let deletions = self.deletions.iter().filter(|((by, _), _)| by == job).map(|(_, count)| count);
        self.objects.get(job).copied().unwrap_or(0) + deletions.sum::<u64>()
    }

    /// What is replayed is what root and checkpoint count. Answers how many files that are.
    pub(super) fn check_counted(&self, counted: &Counted) -> Result<u64, Violation> {
        let Reconcile { on_delete, on_update, on_filter_drift } = self.reconcile;
        let broken = |message| Err(Violation::new(Rule::FeedIsSnapshot, message));
        let mut seen: HashSet<&str> = HashSet::new();
        for known in counted.iter().flat_map(|part| part.iter()) {
            if !seen.insert(&known.key) {
                return broken(format!("{known:?} is counted twice"));
            }
            match self.current.get(&known.key) {
                None => return broken(format!("{known:?} is counted, and the feed does not tell of it")),
                Some(told) if on_update && told != known => {
                    return broken(format!("{known:?} is counted, and the feed tells of {told:?}"));
                }
                Some(_) => {}
            }
        }
        let is_left = seen.len() < self.current.len() && on_delete && on_filter_drift;
        match self.current.values().find(|told| is_left && !seen.contains(told.key.as_str())) {
            Some(told) => broken(format!("the feed tells of {told:?}, and it is not counted")),
            None => Ok(seen.len() as u64),
        }
    }
}

/// The batches of a feed, in order; the blobs of its lists are added to `named`.
pub(super) fn named_batches(
    feed: &Feed,
    kv: &StaleKv,
    named: &mut HashSet<String>,
) -> Result<Vec<BatchRef>, Violation> {
    let mut batches = Vec::new();
    for list in &feed.lists {
        let bytes = kv.truth(&list.blob).ok_or_else(|| missing("the feed", &list.blob))?;
        let part = decode_list(&bytes).map_err(unreadable)?;
        let (first, last) = (part.first(), part.last());
        let fits = first.is_some_and(|batch| batch.first == list.first)
            && last.is_some_and(|batch| batch.next() == list.next)
            && part.iter().map(|batch| batch.found_at).max() == Some(list.found_at);
        if !fits {
            return Err(dense(format!("{list:?} is not of what it lists")));
        }
        named.insert(list.blob.clone());
        batches.extend(part);
    }
    batches.extend(feed.tail().map_err(unreadable)?);
    Ok(batches)
}
