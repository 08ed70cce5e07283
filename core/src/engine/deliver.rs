//! What goes to the sink, and in which order with what is stored.

use std::mem;

use super::{
    DELIVERY_ATTEMPTS_MAX, Engine, Order,
    checkpoint::read_in_doubt,
    drift::{self, Presence},
    lanes::Reads,
    run::Run,
    source::Source,
    state::State,
};
use crate::{
    error::{Error, ErrorKind, Retry},
    mutation::{self, Mutation},
    sink::{Change, ChangeKind, Delivery, Sink},
    snapshot::{Known, changes::Noted},
    store::{BlobStore, DocumentStore},
    time::Clock,
};

impl<S: Source, B: BlobStore, D: DocumentStore, K: Sink, C: Clock> Engine<'_, S, B, D, K, C> {
    /// Stores what is to be stored, notes what is to be delivered, and delivers it.
    ///
    /// In this order: whoever takes the job up after a cut delivers what was noted again, and the snapshot counts it as
    /// delivered. So nothing that the sink may have is ever forgotten. `false`: the budget is used up before all is
    /// delivered, what is left is noted, and the step is to end.
    pub(super) async fn flush(
        &self,
        state: &State<'_, B, D>,
        run: &mut Run,
        order: &Order<'_>,
        allows: &dyn Fn(Reads, u64) -> bool,
    ) -> Result<bool, Error> {
        if !run.noted.is_empty() {
            // Before anything is stored: nobody would name it.
            self.source.still_wanted().await?;
        }
        run.store_puts(state).await?;
        let noted = mem::take(&mut run.noted);
        if noted.is_empty() {
            return Ok(true);
        }
        if mutation::is_on(Mutation::SkipWriteAhead) {
            self.deliver(state, run, order, noted, &|_, _| true).await?;
            return run.save_checkpoint(state, order, None).await.map(|()| true);
        }
        run.save_checkpoint(
            state,
            order,
            Some(&noted).filter(|_| !mutation::is_on(Mutation::ForgetNote)).map(Vec::as_slice),
        )
        .await?;
        self.deliver(state, run, order, noted, allows).await
    }

    /// Delivers what was noted and may not have been delivered; `false` as in [`Self::flush`].
    pub(super) async fn deliver_in_doubt(
        &self,
        state: &State<'_, B, D>,
        run: &mut Run,
        order: &Order<'_>,
        allows: &dyn Fn(Reads, u64) -> bool,
    ) -> Result<bool, Error> {
        let noted = read_in_doubt(state, &run.document).await?;
        if noted.is_empty() {
            return Ok(true);
        }
        if run.document.checkpoint.is_none() {
            // Another job found them, and this one delivers them: they count for how many it may.
            run.objects_found += noted.iter().filter(|noted| !matches!(noted, Noted::Vanished(_))).count() as u64;
        }
        self.source.still_wanted().await?;
        self.deliver(state, run, order, noted, allows).await
    }

    /// Delivers the dead letters that were sent back; `false`: the budget is used up before all are, and the step is to end.
    pub(super) async fn deliver_requeued(
        &self,
        state: &State<'_, B, D>,
        run: &mut Run,
        order: &Order<'_>,
        allows: &dyn Fn(Reads, u64) -> bool,
    ) -> Result<bool, Error> {
        let requeued = state.load_dead_letters().await?.requeued();
        if run.sink_calls > 0 && !requeued.is_empty() && !may_deliver(run, allows) {
            run.note_rest(state, order, &[]).await?;
            return Ok(false);
        }
        let all = self.deliver_changes(state, run, &requeued, allows).await? == requeued.len();
        if !all {
            // Those that are left stay sent back.
            run.note_rest(state, order, &[]).await?;
        }
        Ok(all)
    }

    /// Delivers the deletions, one batch at least where it `must`; `false`: the budget is used up before all are.
    pub(super) async fn deliver_deletions(
        &self,
        state: &State<'_, B, D>,
        run: &mut Run,
        order: &Order<'_>,
        allows: &dyn Fn(Reads, u64) -> bool,
        mut must: bool,
    ) -> Result<bool, Error> {
        if run.deletions_found > run.deletions_delivered && drift::matters(order.reconcile) {
            return self.deliver_deletions_apart(state, run, order, allows, must).await;
        }
        // What is to be delivered may have been changed since they were found.
        if !order.reconcile.on_delete && !order.reconcile.on_filter_drift {
            run.deletions_delivered = run.deletions_found;
        }
        run.check_deletions(order, run.deletions_found)?;
        while run.deletions_delivered < run.deletions_found {
            // Asked anew each time: a checkpoint may have moved those at hand into a blob.
            let known = run.deletions_from(state, run.deletions_delivered).await?;
            for batch in known.chunks(run.portion(order)) {
                if !self.goes_on(state, run, order, allows, &mut must).await? {
                    return Ok(false);
                }
                self.source.still_wanted().await?;
                run.deletions_delivered += batch.len() as u64;
                let noted: Vec<Noted> = batch.iter().cloned().map(Noted::Vanished).collect();
                run.save_checkpoint(state, order, Some(&noted)).await?;
                if !self.deliver(state, run, order, noted, allows).await? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Whether the budget allows another portion, or one `must` be: otherwise a checkpoint is saved, and the step is to end.
    async fn goes_on(
        &self,
        state: &State<'_, B, D>,
        run: &mut Run,
        order: &Order<'_>,
        allows: &dyn Fn(Reads, u64) -> bool,
        must: &mut bool,
    ) -> Result<bool, Error> {
        if mem::take(must) || allows(run.reads(), run.sink_calls) {
            return Ok(true);
        }
        run.save_checkpoint(state, order, None).await?;
        Ok(false)
    }

    /// [`Self::deliver_deletions`] where it matters why files vanished.
    async fn deliver_deletions_apart(
        &self,
        state: &State<'_, B, D>,
        run: &mut Run,
        order: &Order<'_>,
        allows: &dyn Fn(Reads, u64) -> bool,
        mut must: bool,
    ) -> Result<bool, Error> {
        if run.deletions_delivered == 0 && run.deletions_checked == 0 {
            // Should it break off here, nothing is listed again.
            run.save_checkpoint(state, order, None).await?;
        }
        let mut presence = Presence::new(self.source, run.watch.order, order.filter);
        if !order.confirm_deletes && run.are_many_deletions(order, run.deletions_found) {
            // All are looked for before the first deletion is delivered: they may be too many.
            while run.deletions_checked < run.deletions_found {
                if run.deletions_checked > 0 && !self.goes_on(state, run, order, allows, &mut must).await? {
                    return Ok(false);
                }
                // One look more at least, so that the step gets further.
                let mut must = true;
                let known = run.deletions_from(state, run.deletions_checked).await?;
                for known in &known {
                    let Some(due) = self.is_due(&mut presence, run, order, known, &mut must, allows).await? else {
                        run.save_checkpoint(state, order, None).await?;
                        return Ok(false);
                    };
                    run.deletions_checked += 1;
                    run.deletions_due += u64::from(due);
                }
            }
            run.check_deletions(order, run.deletions_due)?;
        }
        while run.deletions_delivered < run.deletions_found {
            let known = run.deletions_from(state, run.deletions_delivered).await?;
            for batch in known.chunks(run.portion(order)) {
                if !self.goes_on(state, run, order, allows, &mut must).await? {
                    return Ok(false);
                }
                // One look more at least, so that the portion gets further.
                let mut must = true;
                let (mut noted, mut looked_for) = (Vec::new(), 0);
                for known in batch {
                    let Some(due) = self.is_due(&mut presence, run, order, known, &mut must, allows).await? else {
                        break;
                    };
                    looked_for += 1;
                    noted.extend(due.then(|| Noted::Vanished(known.clone())));
                }
                self.source.still_wanted().await?;
                // Some may have gone since they were looked for first.
                run.deletions_noted += noted.len() as u64;
                if !order.confirm_deletes && run.are_many_deletions(order, run.deletions_noted) {
                    return Err(run.too_many(order, run.deletions_noted));
                }
                run.deletions_delivered += looked_for;
                run.save_checkpoint(state, order, Some(&noted).filter(|noted| !noted.is_empty()).map(Vec::as_slice))
                    .await?;
                if !self.deliver(state, run, order, noted, allows).await? || looked_for < batch.len() as u64 {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Whether the deletion of a file that vanished is to be delivered; `None` when the budget is used up before that is
    /// known.
    async fn is_due(
        &self,
        presence: &mut Presence<'_, S>,
        run: &mut Run,
        order: &Order<'_>,
        known: &Known,
        must: &mut bool,
        allows: &dyn Fn(Reads, u64) -> bool,
    ) -> Result<Option<bool>, Error> {
        let fate = match presence.told(&known.key) {
            Some(fate) => fate,
            None if !mem::take(must) && !allows(run.reads(), run.sink_calls) => return Ok(None),
            None => {
                self.source.still_wanted().await?;
                let fate = presence.look(&known.key).await?;
                run.keys += presence.take_keys();
                fate
            }
        };
        Ok(Some(fate.is_due(order.reconcile)))
    }

    /// Delivers what was noted; `false` as in [`Self::flush`].
    async fn deliver(
        &self,
        state: &State<'_, B, D>,
        run: &mut Run,
        order: &Order<'_>,
        noted: Vec<Noted>,
        allows: &dyn Fn(Reads, u64) -> bool,
    ) -> Result<bool, Error> {
        let sync_id = if mutation::is_on(Mutation::JobInIds) { order.job_id } else { order.sync_id };
        let change = |noted: &Noted| match noted.clone() {
            Noted::Appeared(_, entry) if mutation::is_on(Mutation::AlwaysCreated) => {
                Change::appeared(sync_id, ChangeKind::Created, entry)
            }
            Noted::Appeared(kind, entry) => Change::appeared(sync_id, kind, entry),
            Noted::Vanished(known) => Change::deleted(sync_id, known),
            Noted::Resynced { entry, job_id } => Change::resynced(sync_id, &job_id, entry),
        };
        let changes: Vec<Change> = noted.iter().map(change).collect();
        let delivered = self.deliver_changes(state, run, &changes, allows).await?;
        match noted.get(delivered..).unwrap_or_default() {
            [] => Ok(true),
            rest => run.note_rest(state, order, rest).await.map(|()| false),
        }
    }

    /// Delivers changes in batches: at least one, and more as the budget allows. Answers how many changes those were. What
    /// the sink refuses is offered again, and becomes a dead letter in the end; the letter of a key goes when a change of
    /// that key is delivered.
    async fn deliver_changes(
        &self,
        state: &State<'_, B, D>,
        run: &mut Run,
        changes: &[Change],
        allows: &dyn Fn(Reads, u64) -> bool,
    ) -> Result<usize, Error> {
        if changes.is_empty() {
            return Ok(0);
        }
        if run.dead_letters.is_none() {
            let letters = state.load_dead_letters().await?;
            run.dead_letters = Some(letters.iter().map(|letter| letter.key.clone()).collect());
        }
        let mut done = 0;
        for batch in changes.chunks(run.batch_max) {
            if done > 0 && !may_deliver(run, allows) {
                break;
            }
            done += batch.len();
            let refused = self.deliver_batch(run, batch).await?;
            let dead = run.dead_letters.get_or_insert_default();
            let delivered = |change: &Change| !refused.iter().any(|(it, _)| it.id == change.id);
            let freed: Vec<&Change> =
                batch.iter().filter(|change| dead.contains(&change.entry.key) && delivered(change)).collect();
            if (refused.is_empty() && freed.is_empty()) || mutation::is_on(Mutation::DropLetters) {
                continue;
            }
            let now = self.clock.now();
            state
                .change_dead_letters(|letters| {
                    freed.iter().for_each(|change| letters.delivered(change));
                    refused.iter().try_for_each(|(change, why)| letters.refuse(change, why, DELIVERY_ATTEMPTS_MAX, now))
                })
                .await?;
            for change in freed {
                dead.remove(&change.entry.key);
            }
            dead.extend(refused.iter().map(|(change, _)| change.entry.key.clone()));
            run.counts.failed += refused.len() as u64;
        }
        Ok(done)
    }

    /// Delivers one batch, and answers what the sink refused each time, with the reason.
    async fn deliver_batch(&self, run: &mut Run, batch: &[Change]) -> Result<Vec<(Change, String)>, Error> {
        let mut refused: Vec<(Change, String)> = Vec::new();
        for attempt in 0..DELIVERY_ATTEMPTS_MAX {
            let left = match attempt {
                0 => batch.to_vec(),
                _ => refused.into_iter().map(|(change, _)| change).collect(),
            };
            run.sink_calls += 1;
            let answers = self.sink.deliver(&left).await?;
            if answers.len() != left.len() {
                return Err(Error::new(
                    ErrorKind::Sink,
                    format!("The sink answered for {} changes of {}.", answers.len(), left.len()),
                    "The batch is delivered again, under the same ids.",
                )
                .with_retry(Retry::Temporary));
            }
            refused = Vec::new();
            for (change, answer) in left.into_iter().zip(answers) {
                match answer {
                    Delivery::Delivered => run.count_delivered(&change),
                    Delivery::Refused(why) => refused.push((change, why)),
                }
            }
            if refused.is_empty() {
                break;
            }
        }
        Ok(refused)
    }
}

/// Whether the budget allows another batch.
fn may_deliver(run: &Run, allows: &dyn Fn(Reads, u64) -> bool) -> bool {
    mutation::is_on(Mutation::IgnoreCalls) || allows(Reads { delivers: true, ..run.reads() }, run.sink_calls)
}
