//! Reading changes behind a position.

use super::{Feed, batch, outbox::Batch};
use crate::{
    change::Change,
    error::{Error, ErrorKind},
    state::{State, feed::BatchRef},
    store::{BlobStore, DocumentStore},
};

/// The most changes of a [`Page`].
pub const PAGE_CHANGES_MAX: usize = 1_000;
/// The most reads of the store for one page, beside that of the document: each poll that finds a change appends a
/// batch, so a page of as many batches as changes would cost a call for each.
pub const PAGE_READS_MAX: u64 = 100;

/// What a page may hold and cost; each is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimits {
    /// Changes.
    pub changes: usize,
    /// Reads of the store, for batches and lists of batches. The first change is read however many reads it takes.
    pub reads: u64,
}

/// Changes behind a position, and how far the feed reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In order, without gaps.
    pub changes: Vec<Change>,
    /// The position of the oldest change that is still there; `last + 1` where none is.
    pub first: u64,
    /// The position of the newest change; 0: there never was one.
    pub last: u64,
}

/// Changes of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyChanges {
    /// Newest first.
    pub changes: Vec<Change>,
    /// The feed was searched back to this position.
    pub searched_from: u64,
    /// The position of the oldest change that is still there; `last + 1` where none is.
    pub first: u64,
}

/// Reads the changes behind `after` (`None`: from the oldest that is there), at most `limit` of them, in at most
/// [`PAGE_READS_MAX`] reads: at least one where there is one, and fewer than `limit` where they stand in many batches.
///
/// # Errors
/// [`ErrorKind::FeedGap`] when changes behind `after` are no longer there; [`ErrorKind::InvalidInput`] when `after` is
/// behind the newest change; of the stores.
pub async fn read_changes<B: BlobStore, D: DocumentStore>(
    blobs: &B,
    documents: &D,
    sync_id: &str,
    after: Option<u64>,
    limit: usize,
) -> Result<Page, Error> {
    let limits = PageLimits { changes: limit, reads: PAGE_READS_MAX };
    let state = State::new(blobs, documents);
    let (document, revision) = state.load_document().await?;
    let reader = FeedReader { state: &state, feed: &document.feed, fresh: &[], sync_id };
    match reader.read(after, limits).await {
        Err(error) if error.kind() == ErrorKind::StateMissing => {
            // A job may have dropped the batch since the document was read: then this is a gap.
            let (document, now) = state.load_document().await?;
            if now == revision {
                return Err(error);
            }
            FeedReader { feed: &document.feed, ..reader }.read(after, limits).await
        }
        result => result,
    }
}

/// Reads one feed.
#[derive(Clone, Copy, Debug)]
pub struct FeedReader<'a, B, D> {
    /// Where its batches are.
    pub state: &'a State<'a, B, D>,
    /// Which batches there are.
    pub feed: &'a Feed,
    /// Batches that were stored a moment ago, and need not be read.
    pub fresh: &'a [Batch],
    /// The sync, for the ids of changes.
    pub sync_id: &'a str,
}

impl<B: BlobStore, D: DocumentStore> FeedReader<'_, B, D> {
    /// Reads the changes behind `after` within `limits`, as [`read_changes`] does.
    ///
    /// # Errors
    /// As there.
    pub async fn read(&self, after: Option<u64>, limits: PageLimits) -> Result<Page, Error> {
        let first = self.feed.first()?;
        let mut page = Page { changes: Vec::new(), first, last: self.feed.last() };
        let after = after.unwrap_or(first.saturating_sub(1));
        check_position(after, &page)?;
        let changes_max = limits.changes.max(1);
        let reads_max = self.state.reads().saturating_add(limits.reads);
        let is_full = |page: &Page| {
            page.changes.len() >= changes_max || (!page.changes.is_empty() && self.state.reads() >= reads_max)
        };
        let mut position = after.saturating_add(1);
        while position < self.feed.next && !is_full(&page) {
            let mut batches = self.list_with(position).await?.into_iter();
            while !is_full(&page)
                && let Some(batch) = batches.next()
            {
                let left = changes_max - page.changes.len();
                let changes = self.changes(&batch).await?;
                page.changes.extend(changes.into_iter().skip_while(|change| change.position < position).take(left));
                position = page.changes.last().map_or(position, |change| change.position + 1);
            }
        }
        Ok(page)
    }

    /// The changes of one key, newest first: the feed is read backwards, at least one batch of it, until it ends or
    /// there are as many changes or reads as `limits` says.
    ///
    /// # Errors
    /// Of the stores.
    pub async fn of_key(&self, key: &str, limits: PageLimits) -> Result<KeyChanges, Error> {
        let first = self.feed.first()?;
        let mut found = KeyChanges { changes: Vec::new(), searched_from: self.feed.next, first };
        let reads_max = self.state.reads().saturating_add(limits.reads);
        while found.searched_from > first {
            let batches = self.list_with_last(found.searched_from - 1).await?;
            for batch in batches.iter().rev() {
                let is_full = found.changes.len() >= limits.changes || self.state.reads() >= reads_max;
                if is_full && found.searched_from < self.feed.next {
                    return Ok(found);
                }
                let changes = self.changes(batch).await?;
                found.changes.extend(changes.into_iter().rev().filter(|change| change.entry.key == key));
                found.searched_from = batch.first;
            }
        }
        Ok(found)
    }

    /// The batches of one list, up to the one that holds `position`.
    async fn list_with_last(&self, position: u64) -> Result<Vec<BatchRef>, Error> {
        let mut batches = self.list(position).await?;
        batches.truncate(batches.partition_point(|batch| batch.first <= position));
        match batches.last() {
            Some(batch) if batch.next() > position => Ok(batches),
            _ => Err(misplaced(position)),
        }
    }

    async fn changes(&self, batch: &BatchRef) -> Result<Vec<Change>, Error> {
        let name = batch.name();
        let changes = match self.fresh.iter().find(|fresh| fresh.batch.hash == batch.hash) {
            Some(fresh) => batch::decode(&fresh.bytes, self.sync_id),
            None => batch::decode(&self.state.read(&name).await?, self.sync_id),
        };
        let changes = changes.map_err(|error| error.into_error(&name))?;
        let is_it =
            changes.first().is_some_and(|change| change.position == batch.first) && changes.len() as u64 == batch.count;
        if is_it { Ok(changes) } else { Err(misplaced(batch.first)) }
    }

    /// The batches of the list that `position` is in.
    async fn list(&self, position: u64) -> Result<Vec<BatchRef>, Error> {
        let in_lists = self.feed.lists.partition_point(|list| list.next <= position);
        match self.feed.lists.get(in_lists) {
            Some(list) => self.state.read_batches(list).await,
            None => self.feed.tail(),
        }
    }

    /// The batches of one list, from the one that holds `position` on.
    async fn list_with(&self, position: u64) -> Result<Vec<BatchRef>, Error> {
        let mut batches = self.list(position).await?;
        batches.drain(..batches.partition_point(|batch| batch.next() <= position));
        match batches.first() {
            Some(batch) if batch.first <= position => Ok(batches),
            _ => Err(misplaced(position)),
        }
    }
}

fn misplaced(position: u64) -> Error {
    Error::new(
        ErrorKind::StateCorrupt,
        format!("The feed names no batch with the position {position}."),
        "Delete the sync and create it again to list the bucket afresh.",
    )
}

/// Checks that all changes behind `after` are still there.
fn check_position(after: u64, page: &Page) -> Result<(), Error> {
    let Page { first, last, .. } = *page;
    if after > last {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("The position {after} is beyond the newest change of this feed, {last}."),
            "Read on from the position of the last change that you have. If the sync was created again, begin at 0.",
        )
        .with_field("after"));
    }
    if after.saturating_add(1) < first {
        let (from, gone_to) = (after + 1, first - 1);
        return Err(Error::new(
            ErrorKind::FeedGap,
            format!("The changes {from} to {gone_to} are no longer in the feed."),
            format!("Read on with after={gone_to}, and compare what you have with a full list of the files."),
        )
        .with_field("after"));
    }
    Ok(())
}
