//! What a step has found and no swap has appended yet.

use super::batch::Builder;
use crate::{
    change::{Found, Previous},
    entry::{EntryRef, EtagRef},
    error::Error,
    job::JobCounts,
    mutation::{self, Mutation},
    snapshot::ContentHash,
    state::feed::{BatchRef, Feed, ListRef, batch_name, encode_list},
    time::Timestamp,
};

/// Changes in the order in which they are appended, encoded as they come.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    full: Vec<Builder>,
    open: Builder,
    counts: JobCounts,
}

/// A batch that is stored, and that the next swap names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// As the feed names it.
    pub batch: BatchRef,
    /// What is stored.
    pub bytes: Vec<u8>,
}

/// What a swap appends: all that is to be stored before it, and the feed behind it.
#[derive(Clone, Debug)]
pub struct Append {
    /// The batches, in order.
    pub batches: Vec<Batch>,
    /// Lists of batches that no longer stand in the document: name and bytes.
    pub lists: Vec<(String, Vec<u8>)>,
    /// The feed behind the swap.
    pub feed: Feed,
}

/// The last modification as a change says it: to the millisecond.
fn as_told(last_modified: Timestamp) -> Timestamp {
    match mutation::is_on(Mutation::RoundTimes) {
        true => Timestamp::from_millis(last_modified.as_millis() / 1_000 * 1_000),
        false => last_modified,
    }
}

impl Outbox {
    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.full.iter().map(Builder::len).sum::<usize>() + self.open.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.full.is_empty()
    }

    /// What the changes add to what a job has found.
    pub const fn counts(&self) -> JobCounts {
        self.counts
    }

    /// Adds a change.
    pub fn push(&mut self, found: &Found) {
        match found {
            Found::Appeared { entry, previous } => return self.appeared(entry.into(), previous.as_ref()),
            Found::Again(entry) => {
                self.counts.updated += 1;
                self.count_bytes(entry.size, entry.last_modified);
            }
            Found::Vanished(_) => self.counts.deleted += 1,
        }
        self.open().push(found);
    }

    /// Adds a file that is new, or has another version than the previous one.
    pub fn appeared(&mut self, entry: EntryRef<'_>, previous: Option<&Previous>) {
        let entry = EntryRef { last_modified: as_told(entry.last_modified), ..entry };
        let previous = previous.filter(|_| !mutation::is_on(Mutation::AlwaysCreated));
        match previous {
            None => self.counts.created += 1,
            Some(_) => self.counts.updated += 1,
        }
        self.count_bytes(entry.size, entry.last_modified);
        self.open().appeared(entry, previous);
    }

    /// Adds a file that is new, as a segment of the listing keeps it.
    pub fn created(&mut self, key: &str, etag: EtagRef<'_>, size: u64, last_modified: Timestamp) {
        match etag {
            EtagRef::Text(etag) => self.appeared(EntryRef { key, etag, size, last_modified }, None),
            EtagRef::Md5(md5) => {
                self.counts.created += 1;
                self.count_bytes(size, last_modified);
                self.open().created_md5(key, md5, size, as_told(last_modified));
            }
        }
    }

    fn count_bytes(&mut self, size: u64, last_modified: Timestamp) {
        self.counts.delivered_bytes = self.counts.delivered_bytes.saturating_add(size);
        mutation::raise_watermark(last_modified);
    }

    fn open(&mut self) -> &mut Builder {
        if self.open.is_full() {
            self.full.push(std::mem::take(&mut self.open));
        }
        &mut self.open
    }

    /// Takes all changes, to be appended to `feed` by one swap. At most `tail_max` batches stand in the document; older
    /// ones go into lists.
    ///
    /// # Errors
    /// [`crate::ErrorKind::StateCorrupt`] when the feed's own list does not decode.
    pub fn take(&mut self, feed: &Feed, tail_max: usize, found_at: Timestamp, job_id: &str) -> Result<Append, Error> {
        let Self { full, open, .. } = std::mem::take(self);
        let mut feed = feed.clone();
        let mut tail = feed.tail()?;
        let mut batches = Vec::new();
        for builder in full.into_iter().chain([open]).filter(|builder| !builder.is_empty()) {
            let (first, count) = (feed.next, builder.len() as u64);
            let bytes = builder.finish(first, found_at, job_id);
            let batch = BatchRef { hash: ContentHash::of(&bytes), first, count, found_at };
            feed.next = batch.next();
            if mutation::is_on(Mutation::ReusePosition) {
                feed.next = feed.next.saturating_sub(1).max(1);
            }
            tail.push(batch);
            batches.push(Batch { batch, bytes });
        }
        let mut lists = Vec::new();
        if tail.len() > tail_max {
            // Half of them stay, so that a list is written once for many swaps.
            let rest = tail.split_off(tail.len() - tail_max / 2);
            for part in tail.chunks(crate::state::feed::LIST_BATCHES_MAX) {
                let (Some(oldest), Some(newest)) = (part.first(), part.last()) else { continue };
                let bytes = encode_list(part);
                let blob = batch_name(ContentHash::of(&bytes));
                let found_at = part.iter().map(|batch| batch.found_at).max().unwrap_or_default();
                let list = ListRef { blob: blob.clone(), first: oldest.first, next: newest.next(), found_at };
                feed.lists.push(list);
                lists.push((blob, bytes));
            }
            tail = rest;
        }
        feed.set_tail(&tail);
        Ok(Append { batches, lists, feed })
    }
}
