//! A turn that deletes what nothing needs any more: between jobs, at most once an hour.

use super::{
    Coordinator, Home, State,
    collecting::{COLLECT_EVERY_MS, Collecting, ORPHANS_AFTER_MS},
    pumps::Pumps,
};
use crate::registry::SyncRecord;
use b2sync_core::{
    engine::{
        StepReport,
        collect::{Collected, collect, delete_orphans},
    },
    error::Error,
    mutation::{self, Mutation},
    time::{Clock, Timestamp},
};

/// Lists of names that one turn asks for at most.
const LISTS_MAX: usize = 5;

impl State {
    /// Takes in what the step of `report` leaves to be deleted.
    pub(super) fn note_garbage(&mut self, report: &StepReport, now: Timestamp) {
        if report.cost.state_writes == 0 {
            return;
        }
        match report.outcome {
            Ok(_) => self.collecting.note_change(now),
            Err(_) => self.collecting.note_orphans(now),
        }
    }

    /// Whether it is time to delete, and nothing else is to be done.
    pub(super) fn is_to_collect(&self, now: Timestamp) -> bool {
        self.status.current_job.is_none() && self.collecting.due_at.is_some_and(|at| at <= now)
    }
}

/// A turn that deletes.
#[derive(Debug)]
pub(super) struct CollectTurn {
    /// The number of its lease.
    pub(super) step: u64,
    pub(super) pumps: Pumps,
    pub(super) collecting: Collecting,
}

impl<H: Home> Coordinator<'_, H> {
    /// Deletes what nothing needs any more, and gives the lease back.
    pub(super) async fn drive_collect(&self, sync: &SyncRecord, turn: &CollectTurn) -> Result<(), Error> {
        let result = self.collect(sync, turn).await;
        let now = self.home.clock().now();
        let kept_ms = i64::from(sync.feed_retention_hours).saturating_mul(3_600_000);
        self.update_persistently(&sync.sync_id, |state| {
            if !state.has_lease(turn.step) {
                return Ok(());
            }
            state.lease = None;
            let is_same = state.collecting.asked == turn.collecting.asked;
            let Ok((collected, rest)) = &result else {
                state.collecting.due_at = Some(now.plus_millis(COLLECT_EVERY_MS));
                return Ok(());
            };
            state.status.feed_first = collected.feed.first().unwrap_or(state.status.feed_first);
            let hour = now.plus_millis(COLLECT_EVERY_MS);
            state.collecting.due_at = match collected.oldest {
                _ if collected.is_more => Some(hour),
                Some(found_at) => Some(found_at.plus_millis(kept_ms).max(hour)),
                None => None,
            };
            if turn.collecting.orphans && is_same {
                state.collecting.orphans = rest.is_some();
                state.collecting.cursor.clone_from(rest);
            }
            if state.collecting.orphans {
                state.collecting.ask(now.plus_millis(ORPHANS_AFTER_MS));
            }
            Ok(())
        })
        .await?;
        result.map(|_| ())
    }

    /// Answers what is left, and the cursor behind which orphans are still to be looked for.
    async fn collect(&self, sync: &SyncRecord, turn: &CollectTurn) -> Result<(Collected, Option<String>), Error> {
        let (blobs, documents) = (self.home.blobs(&sync.sync_id), self.home.documents());
        let retention = turn.pumps.retention(sync, &self.sink_ids(sync), self.home.clock().now());
        let collected = collect(&blobs, documents, retention, turn.collecting.orphans).await?;
        let mut cursor = turn.collecting.cursor.clone();
        if !turn.collecting.orphans || mutation::is_on(Mutation::KeepOrphans) {
            return Ok((collected, None));
        }
        for _ in 0..LISTS_MAX {
            let (listed, rest) = self.home.feed_blobs(&sync.sync_id, cursor.as_deref()).await?;
            if delete_orphans(&blobs, documents, &listed).await? {
                cursor = rest;
            }
            if cursor.is_none() {
                break;
            }
        }
        Ok((collected, cursor))
    }
}
