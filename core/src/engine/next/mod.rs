//! The next snapshot: put together, stored, and made the current one by the swap that also appends to the feed.

pub mod retire;

use std::mem;

use self::retire::{Met, NextRoot};
use super::{
    APPENDED_BYTES_MAX,
    listing::{lanes::Reads, source::Source},
    step::Step,
    thresholds::Thresholds,
};
use crate::{
    engine::{assembly::Assembly, previous::Base},
    error::Error,
    feed::{
        Feed,
        outbox::{Append, Batch},
        retention::{Retention, drop_old},
    },
    job::JobCounts,
    mutation::{self, Mutation},
    snapshot::{cut::Begins, names::BlobName},
    state::{
        document::{NameList, RootJob, SnapshotDocument},
        names::Names,
    },
    store::{BlobStore, DocumentStore},
    time::Clock,
};

/// What a swap appends to the feed: it is stored, and nothing names it yet.
pub(super) struct Appending {
    batches: Vec<Batch>,
    /// What it adds to what the job has found and appended.
    pub(super) counts: JobCounts,
}

impl<S: Source, B: BlobStore, D: DocumentStore, C: Clock> Step<'_, S, B, D, C> {
    /// Opens what must be open for a key that begins that.
    pub(super) async fn open_for(&mut self, base: &mut Base, begins: Begins) -> Result<(), Error> {
        let assembly = &mut self.job.next.assembly;
        match begins {
            Begins::Leaf => {}
            Begins::Segment => assembly.reopen_leaf(&self.state).await?,
            Begins::Nothing => {
                assembly.reopen_segment(&self.state, base, self.job.place.watch.order).await?;
                self.job.place.realign = true;
            }
        }
        Ok(())
    }

    /// Notes the leaves that were looked into.
    pub(super) fn note_leaves(&mut self, base: &mut Base) {
        let next = &mut self.job.next;
        next.looked_into.note_leaves(base.leaves.take_looked_into());
        next.looked_into.note_leaves(next.assembly.take_looked_into());
    }

    /// Whether enough changes wait for the next swap to append them.
    pub(super) fn is_outbox_full(&self) -> bool {
        self.job.outbox.len() >= self.spec.thresholds.flush_changes_min.max(1)
    }

    /// Whether there is enough to store or to append that it should not wait, and it can be done here.
    pub(super) fn is_worth_storing(&self) -> bool {
        let Thresholds { flush_bytes_min, .. } = self.spec.thresholds;
        let assembly = &self.job.next.assembly;
        assembly.is_between_segments() && (self.is_outbox_full() || assembly.put_bytes() >= flush_bytes_min)
    }

    /// Stores what was put together and is not stored.
    pub(super) async fn store_puts(&mut self) -> Result<(), Error> {
        if !self.job.outbox.is_empty() {
            // Before anything is stored: nothing would name it.
            self.source.still_wanted().await?;
        }
        for (name, bytes) in self.job.next.assembly.take_puts() {
            self.state.write(&name, bytes).await?;
        }
        Ok(())
    }

    /// Stores the changes that wait, and answers the feed that names them: the next swap must store it.
    pub(super) async fn append(&mut self) -> Result<(Feed, Appending), Error> {
        let feed = &self.job.stored.document.feed;
        if self.job.outbox.is_empty() {
            return Ok((feed.clone(), Appending { batches: Vec::new(), counts: JobCounts::default() }));
        }
        let counts = self.job.outbox.counts();
        let (tail_max, now) = (self.spec.thresholds.tail_items_max, self.clock.now());
        let Append { batches, lists, feed } = self.job.outbox.take(feed, tail_max, now, self.spec.job_id)?;
        if !mutation::is_on(Mutation::AppendEarly) {
            self.write_batches(&batches).await?;
        }
        for (name, bytes) in lists {
            self.state.write(&name, bytes).await?;
        }
        Ok((feed, Appending { batches, counts }))
    }

    async fn write_batches(&self, batches: &[Batch]) -> Result<(), Error> {
        for batch in batches {
            self.state.write(&batch.batch.name(), batch.bytes.clone()).await?;
        }
        Ok(())
    }

    /// Replaces the document. This is the one swap of the engine.
    pub(super) async fn swap(&mut self, document: SnapshotDocument, appending: Appending) -> Result<(), Error> {
        let Appending { batches, counts } = appending;
        self.swap_document(&document).await?;
        self.job.stored.document = document;
        self.job.stored.is_known = true;
        self.job.counts = self.job.counts.plus(counts);
        if mutation::is_on(Mutation::AppendEarly) {
            self.write_batches(&batches).await?;
        }
        let appended = &mut self.job.appended;
        let mut bytes: usize = appended.iter().map(|batch| batch.bytes.len()).sum();
        for batch in batches {
            // The first ones, without a gap between them.
            let follows = appended.last().is_none_or(|last| last.batch.next() == batch.batch.first);
            bytes += batch.bytes.len();
            if !follows || bytes > APPENDED_BYTES_MAX {
                break;
            }
            appended.push(batch);
        }
        Ok(())
    }

    async fn swap_document(&mut self, document: &SnapshotDocument) -> Result<(), Error> {
        let stored = &mut self.job.stored;
        if mutation::is_on(Mutation::SplitSwap) && document.feed != stored.document.feed {
            let first = SnapshotDocument { feed: stored.document.feed.clone(), ..document.clone() };
            stored.revision = self.state.swap_document(stored.revision, &first).await?;
        }
        stored.revision = self.state.swap_document(stored.revision, document).await?;
        Ok(())
    }

    /// Whether what was listed is another snapshot than the current one, or there is something to put in order.
    pub(super) fn moves_root(&self, base: &Base) -> bool {
        let (document, next) = (&self.job.stored.document, &self.job.next);
        let same = next.assembly.leaves == base.leaves.list && self.job.place.watch.order == document.root.order;
        let held_back = self.parts_held_back();
        let guards = document.root.entries_listed.is_some() != held_back.is_empty();
        let unchanged = same && guards && !self.job.place.limited;
        let nothing_beside =
            document.root.undeleted == held_back && next.undeleted.is_empty() && document.root.resync.is_none();
        mutation::is_on(Mutation::AlwaysMoveRoot)
            || !(unchanged && document.checkpoint.is_none() && self.job.outbox.is_empty() && nothing_beside)
    }

    /// Deletes what was retired before the current root; `false`: the budget is used up before all is.
    pub(super) async fn sweep(&mut self, base: &mut Base) -> Result<bool, Error> {
        let root = self.job.next.without_swept(&self.job.stored.document.root);
        if root.garbage.is_empty() {
            return Ok(true);
        }
        self.note_leaves(base);
        let next = &mut self.job.next;
        // The stored checkpoint may still name what was taken apart since.
        next.scratch.append(&mut next.assembly.dropped);
        let Met { mut named, .. } = Met::of(&self.state, &next.looked_into, &base.leaves, &next.assembly).await?;
        let parts = self.job.deletions.parts.iter().filter_map(|part| part.blob.as_ref());
        named.extend(next.scratch.iter().chain(parts).filter_map(|name| BlobName::parse(name)));
        let mut garbage = Names::of(&root.garbage)?;
        let mut emptied = mem::take(&mut next.scratch);
        let mut must = true;
        let more = || mem::take(&mut must) || self.allows(Reads::default());
        let all = garbage.delete(&self.state, &named, &mut emptied, more).await?;
        self.job.next.scratch = emptied;
        if !all {
            self.job.next.garbage = Some(garbage.store(&self.state, root.generation * 2 + 1).await?);
            self.save_checkpoint().await?;
            return Ok(false);
        }
        self.job.next.garbage = Some(NameList::default());
        Ok(true)
    }

    /// Makes what was listed the current snapshot.
    pub(super) async fn move_root(&mut self, base: &mut Base) -> Result<(), Error> {
        self.store_puts().await?;
        let (mut feed, appending) = self.append().await?;
        // Nothing can have read what was appended since the retention was asked for.
        let up_to = self.spec.retention.up_to.min(self.job.stored.last_before);
        let retention = Retention { up_to, ..self.spec.retention };
        let dropped = drop_old(&self.state, &mut feed, retention).await?;
        self.note_leaves(base);
        let limited = self.job.place.limited;
        let mut undeleted = self.parts_held_back();
        // What was held back stays that part of the files that there were then.
        let guarded = (!undeleted.is_empty()).then(|| self.job.stored.document.root.entries_to_guard());
        let root = &self.job.next.without_swept(&self.job.stored.document.root);
        let next = &mut self.job.next;
        undeleted.append(&mut next.undeleted);
        let mut stale = mem::take(&mut next.scratch);
        stale.append(&mut next.assembly.dropped);
        stale.extend(self.job.deletions.parts.iter().filter_map(|part| part.blob.clone()));
        let plan = NextRoot {
            order: self.job.place.watch.order,
            stale,
            looked_into: mem::take(&mut next.looked_into),
            entries_listed: guarded.or_else(|| limited.then(|| root.entries_listed.unwrap_or(root.entries))),
            undeleted,
            resync: self.job.resync.take().filter(|_| limited),
            dropped,
            top_stored: next.top_stored.take(),
        };
        let mut root = plan.store(&self.state, root, &base.leaves, &next.assembly).await?;
        root.job = Some(RootJob {
            job_id: self.spec.job_id.to_owned(),
            fingerprint: self.spec.fingerprint.to_owned(),
            counts: self.job.counts.plus(appending.counts),
            objects_found: self.job.objects_found,
            known_before: self.job.stored.known_before,
            limited,
            deletions_held: self.job.deletions.held_back.as_ref().map_or(0, |held| held.count),
            seen: self.spec.seen.record(),
        });
        let mut document = SnapshotDocument { root, feed, ..SnapshotDocument::default() };
        if mutation::is_on(Mutation::KeepCheckpoint) {
            document.checkpoint.clone_from(&self.job.stored.document.checkpoint);
        }
        self.swap(document, appending).await
    }
}

/// Appends all that was not dealt with as it is.
pub(super) fn append_rest(assembly: &mut Assembly, base: &mut Base) {
    let (known, segments, leaves) = base.rest();
    known.iter().for_each(|known| assembly.push_known(known));
    segments.into_iter().for_each(|segment| assembly.append_segment(segment, None));
    leaves.into_iter().for_each(|leaf| assembly.append_leaf(leaf));
}
