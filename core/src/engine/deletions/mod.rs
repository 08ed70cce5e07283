//! Files that are gone: kept until the listing is complete, then appended to the feed within the limit.

pub(in crate::engine) mod drift;

use std::mem;

use self::drift::Presence;
use super::{
    listing::{lanes::Reads, source::Source},
    step::Step,
};
use crate::{
    change::Found,
    engine::{previous::known, thresholds::Thresholds},
    error::Error,
    mutation::{self, Mutation},
    policy::HeldBack,
    snapshot::{Known, cut::SEGMENT_BYTES_MAX, segment},
    state::{
        document::{self, KnownPart},
        scratch_name,
    },
    store::{BlobStore, DocumentStore},
    time::Clock,
};

/// The most keys of files whose deletion is held back that a report names, and how long they may be together, in bytes.
const KEYS_SHOWN_MAX: usize = 20;
const KEY_BYTES_SHOWN_MAX: usize = 4_096;

/// The first of the keys, as many as a report names.
fn keys_shown(keys: impl Iterator<Item = String>) -> Vec<String> {
    let mut bytes = 0;
    let fits = |key: &String| {
        bytes += key.len();
        bytes <= KEY_BYTES_SHOWN_MAX
    };
    keys.take(KEYS_SHOWN_MAX).filter(fits).collect()
}

impl<S: Source, B: BlobStore, D: DocumentStore, C: Clock> Step<'_, S, B, D, C> {
    /// Keeps a deletion until the listing is complete.
    pub(super) async fn vanished(&mut self, known: Known) -> Result<(), Error> {
        let spec = self.spec;
        if !spec.reconcile.deletes() {
            return Ok(());
        }
        if mutation::is_on(Mutation::DeleteEarly) {
            self.job.outbox.push(&Found::Vanished(known));
            return Ok(());
        }
        let deletions = &mut self.job.deletions;
        deletions.held_key_bytes += known.key.len();
        deletions.held.push(known);
        deletions.found += 1;
        let much =
            deletions.held.len() >= spec.thresholds.deletions_held_max || deletions.held_key_bytes >= SEGMENT_BYTES_MAX;
        if much {
            self.store_deletions().await?;
        }
        Ok(())
    }

    /// Appends the deletions, one portion at least where it `must`; `false`: the budget is used up before all are.
    /// Those that pass the limit are held back.
    pub(super) async fn append_deletions(&mut self, mut must: bool) -> Result<bool, Error> {
        let reconcile = self.spec.reconcile;
        if self.job.deletions.found > self.job.deletions.done && reconcile.tells_apart() {
            return self.append_deletions_apart(must).await;
        }
        // What is asked for may have been changed since they were found.
        if !reconcile.deletes() {
            self.job.deletions.done = self.job.deletions.found;
        }
        if self.are_too_many(self.job.deletions.found) {
            self.hold_back(self.job.deletions.found).await?;
            return Ok(true);
        }
        while self.job.deletions.done < self.job.deletions.found {
            if !self.goes_on(&mut must).await? {
                return Ok(false);
            }
            // Asked again each time: a checkpoint may have moved those at hand into a blob.
            for known in self.deletions_from(self.job.deletions.done).await? {
                if self.is_outbox_full() {
                    self.save_checkpoint().await?;
                    if !self.allows(Reads::default()) {
                        return Ok(false);
                    }
                }
                self.job.outbox.push(&Found::Vanished(known));
                self.job.deletions.done += 1;
            }
        }
        Ok(true)
    }

    /// [`Self::append_deletions`] where it matters why files vanished.
    async fn append_deletions_apart(&mut self, mut must: bool) -> Result<bool, Error> {
        let spec = self.spec;
        if self.job.deletions.done == 0 && self.job.deletions.checked == 0 {
            // Should it break off here, nothing is listed again.
            self.save_checkpoint().await?;
        }
        let mut presence = Presence::new(self.source, self.job.place.watch.order, spec.filter);
        if !spec.confirm_deletes
            && self.job.are_many_deletions(spec.deletion_limit, self.job.deletions.found)
            && !self.look_for_all(&mut presence, &mut must).await?
        {
            return Ok(false);
        }
        if self.job.deletions.checked == self.job.deletions.found && self.are_too_many(self.job.deletions.due) {
            self.hold_back(self.job.deletions.due).await?;
            return Ok(true);
        }
        while self.job.deletions.done < self.job.deletions.found {
            let known = self.deletions_from(self.job.deletions.done).await?;
            for portion in known.chunks(spec.thresholds.flush_changes_min.max(1)) {
                if !self.goes_on(&mut must).await? {
                    return Ok(false);
                }
                let (due, looked_for) = self.look_for(&mut presence, portion).await?;
                // Some may have gone since they were looked for first.
                self.job.deletions.appended += due.len() as u64;
                let appended = self.job.deletions.appended;
                if !spec.confirm_deletes && self.job.are_many_deletions(spec.deletion_limit, appended) {
                    self.hold_back(self.job.deletions.found - self.job.deletions.done).await?;
                    return Ok(true);
                }
                due.into_iter().for_each(|known| self.job.outbox.push(&Found::Vanished(known)));
                self.job.deletions.done += looked_for;
                self.save_checkpoint().await?;
                if looked_for < portion.len() as u64 {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Looks for all before the first deletion is appended: they may be too many. `false`: the budget is used up
    /// before.
    async fn look_for_all(&mut self, presence: &mut Presence<'_, S>, must: &mut bool) -> Result<bool, Error> {
        while self.job.deletions.checked < self.job.deletions.found {
            // Before the first, the checkpoint is saved already.
            let goes_on = match self.job.deletions.checked {
                0 => mem::take(must) || self.allows(Reads::default()),
                _ => self.goes_on(must).await?,
            };
            if !goes_on {
                return Ok(false);
            }
            let known = self.deletions_from(self.job.deletions.checked).await?;
            let (due, looked_for) = self.look_for(presence, &known).await?;
            self.job.deletions.checked += looked_for;
            self.job.deletions.due += due.len() as u64;
            if looked_for < known.len() as u64 {
                self.save_checkpoint().await?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Looks in the bucket for files that vanished, as many as the budget allows, and one look more at least, so that
    /// the step gets further. Answers those whose deletion is due, and how many were looked for.
    async fn look_for(&mut self, presence: &mut Presence<'_, S>, files: &[Known]) -> Result<(Vec<Known>, u64), Error> {
        let (mut due, mut looked_for, mut must) = (Vec::new(), 0, true);
        for known in files {
            let fate = match presence.told(&known.key) {
                Some(fate) => fate,
                None if !mem::take(&mut must) && !self.allows(Reads::default()) => break,
                None => {
                    self.source.still_wanted().await?;
                    let fate = presence.look(&known.key).await?;
                    self.meter.keys += presence.take_keys();
                    fate
                }
            };
            looked_for += 1;
            due.extend(fate.is_due(self.spec.reconcile).then(|| known.clone()));
        }
        Ok((due, looked_for))
    }

    /// Before the first of that many deletions is appended: they may be too many.
    fn are_too_many(&self, count: u64) -> bool {
        let begins = self.job.deletions.done == 0 && !self.spec.confirm_deletes;
        begins && self.job.are_many_deletions(self.spec.deletion_limit, count)
    }

    /// Has the next root keep all deletions that are not dealt with, of which `count` are due, until they are confirmed
    /// or come true no more.
    async fn hold_back(&mut self, count: u64) -> Result<(), Error> {
        let Thresholds { tail_items_max, list_bytes_max, .. } = self.spec.thresholds;
        let deletions = &self.job.deletions;
        if deletions.held.len() > tail_items_max || deletions.held_key_bytes > list_bytes_max {
            self.store_deletions().await?;
        }
        let first = self.deletions_from(self.job.deletions.done).await?;
        let keys = keys_shown(first.into_iter().map(|known| known.key));
        self.job.deletions.held_back = Some(HeldBack { count, keys });
        Ok(())
    }

    /// Counts what was held back before and lies behind the place where the job stopped, because it may take no more
    /// files: it is held back still, confirmed or not.
    pub(super) async fn hold_back_behind(&mut self) -> Result<(), Error> {
        let behind = known::count(&self.job.next.undeleted);
        let held = self.job.deletions.held_back.clone().unwrap_or_default();
        let count = held.count.saturating_add(behind);
        let is_asked = self.spec.reconcile.deletes();
        if behind == 0 || !is_asked || !self.job.are_many_deletions(self.spec.deletion_limit, count) {
            return Ok(());
        }
        let behind = self.keys_beside(&self.job.next.undeleted).await?;
        let keys = keys_shown(held.keys.into_iter().chain(behind));
        self.job.deletions.held_back = Some(HeldBack { count, keys });
        Ok(())
    }

    /// The keys of the first files of a list, as a report names them.
    pub(super) async fn keys_beside(&self, parts: &[KnownPart]) -> Result<Vec<String>, Error> {
        let Some(first) = parts.first() else { return Ok(Vec::new()) };
        let known = known::read(&self.state, first).await?;
        Ok(keys_shown(known.into_iter().map(|known| known.key)))
    }

    /// The deletions that are held back, as the next root keeps them.
    pub(super) fn parts_held_back(&self) -> Vec<KnownPart> {
        let deletions = &self.job.deletions;
        if deletions.held_back.is_none() || mutation::is_on(Mutation::ForgetHeld) {
            return Vec::new();
        }
        let all = deletions.parts.iter().cloned().chain(document::encode_known(&deletions.held)).collect();
        known::without_first(all, deletions.done)
    }

    /// Of the deletions found, those that are kept together with the one numbered `from`, from that one on: one at
    /// least.
    async fn deletions_from(&self, from: u64) -> Result<Vec<Known>, Error> {
        let deletions = &self.job.deletions;
        let parts = known::without_first(deletions.parts.clone(), from);
        let known = match parts.first() {
            Some(part) => known::read(&self.state, part).await?,
            None => {
                let skipped = from.saturating_sub(known::count(&deletions.parts));
                let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
                deletions.held.get(skipped..).unwrap_or_default().to_vec()
            }
        };
        if known.is_empty() {
            return Err(Error::internal("A job keeps fewer deletions than it found."));
        }
        Ok(known)
    }

    /// Stores the deletions that are held. A part that has room is stored again with them, so that there are few parts.
    pub(super) async fn store_deletions(&mut self) -> Result<(), Error> {
        let mut held = mem::take(&mut self.job.deletions.held);
        self.job.deletions.held_key_bytes = 0;
        let held_max = self.spec.thresholds.deletions_held_max as u64;
        let has_room = |part: &mut KnownPart| part.count + held.len() as u64 <= held_max;
        if let Some(last) = self.job.deletions.parts.pop_if(has_room) {
            let mut before = known::read(&self.state, &last).await?;
            let key_bytes: usize = before.iter().chain(&held).map(|known| known.key.len()).sum();
            if key_bytes <= SEGMENT_BYTES_MAX {
                before.append(&mut held);
                held = before;
                self.job.next.scratch.extend(last.blob);
            } else {
                self.job.deletions.parts.push(last);
            }
        }
        let Some(first) = held.first() else { return Ok(()) };
        let (first_key, count) = (first.key.clone(), held.len() as u64);
        let bytes = segment::encode(held.iter());
        let name = scratch_name(&bytes);
        let blob = Some(name.clone());
        // Those that were held back before are mostly found again as they were.
        let is_stored = self.job.stored.document.root.undeleted.iter().any(|part| part.blob == blob);
        if !is_stored {
            self.state.write(&name, bytes).await?;
        }
        self.job.deletions.parts.push(KnownPart { first_key, count, blob, ..KnownPart::default() });
        Ok(())
    }
}
