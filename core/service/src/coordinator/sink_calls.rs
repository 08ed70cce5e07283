//! What the API asks of a sync's feed and its sinks.

use super::{
    Coordinator, Home,
    answer::{LOOK_MS, WAIT_MS_MAX, being_deleted, page_of},
    protocol::{Answer, KeyAnswer, LOOK_UP_CHANGES_MAX, SinkStatus},
};
use crate::{
    registry::SyncRecord,
    sinks::{CATALOGUE, SinkRecord, dead_letters::DeadLetter},
};
use b2sync_core::{
    change::Previous,
    error::{Error, ErrorKind, Retry},
    feed::{
        read::{PAGE_CHANGES_MAX, PAGE_READS_MAX, PageLimits},
        read_changes,
    },
    lookup::look_up,
    snapshot::Known,
    time::{Clock, Timestamp},
};

impl<H: Home> Coordinator<'_, H> {
    /// Changes of the feed behind a position; waits for the first one if there is none yet.
    pub(super) async fn changes(
        &self,
        sync_id: &str,
        after: Option<u64>,
        limit: u64,
        wait_ms: u64,
        began: Timestamp,
    ) -> Result<Answer, Error> {
        let (home, blobs) = (self.home, self.home.blobs(sync_id));
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(PAGE_CHANGES_MAX);
        let wait_ms = wait_ms.min(WAIT_MS_MAX);
        loop {
            let page = read_changes(&blobs, home.documents(), sync_id, after, limit).await?;
            let waited_ms = home.clock().now().millis_since(began);
            if !page.changes.is_empty() || waited_ms >= wait_ms {
                let changes = page.changes.iter().map(Into::into).collect();
                return Ok(Answer::Changes { changes, first: page.first, last: page.last });
            }
            if self.stored().await?.is_some_and(|state| state.forgotten) {
                return Err(being_deleted(sync_id));
            }
            home.clock().sleep(LOOK_MS.min(wait_ms - waited_ms)).await;
        }
    }

    /// What is stored of one key.
    pub(super) async fn look_up(&self, sync_id: &str, key: &str) -> Result<Answer, Error> {
        let status = self.load(sync_id).await?.status;
        let limits = PageLimits { changes: LOOK_UP_CHANGES_MAX, reads: PAGE_READS_MAX };
        let blobs = self.home.blobs(sync_id);
        let found = look_up(&blobs, self.home.documents(), sync_id, key, limits).await?;
        let letters = SinkRecord::load(self.home.documents(), CATALOGUE).await?.value.dead_letters;
        let previous = |known: Known| Previous { size: known.size, last_modified: known.last_modified, tag: known.tag };
        Ok(Answer::Key(Box::new(KeyAnswer {
            known: found.known.map(|known| previous(known).into()),
            is_undeleted: found.is_undeleted,
            generation: found.generation,
            changes: found.changes.iter().take(LOOK_UP_CHANGES_MAX).map(Into::into).collect(),
            searched_from: found.searched_from,
            first: found.first,
            status: Box::new(status),
            dead_letters: letters.iter().filter(|letter| letter.key == key).cloned().collect(),
        })))
    }

    /// Sends dead letters of a sink back: it is offered them at once.
    pub(super) async fn send_back(
        &self,
        sync_id: &str,
        sink_id: &str,
        error_types: &[String],
        now: Timestamp,
    ) -> Result<Answer, Error> {
        // Before: should this be cut off, they are looked at all the same. And after: a pump that ran in between saw
        // nothing.
        self.ask_pumps(sync_id, now).await?;
        let letters = SinkRecord::update(self.home.documents(), sink_id, |record| {
            // Also where the sink backs off.
            record.next_attempt_at = record.next_attempt_at.map(|at| at.min(now));
            Ok(record.dead_letters.requeue(error_types, now))
        })
        .await?;
        self.ask_pumps(sync_id, now).await?;
        Ok(Answer::Marked { letters })
    }

    /// The letters of the catalogue, newest first.
    pub(super) async fn dead_letters(
        &self,
        only_max_retries: bool,
        error_types: &[String],
        page: (u64, u64),
    ) -> Result<Answer, Error> {
        let letters = SinkRecord::load(self.home.documents(), CATALOGUE).await?.value.dead_letters;
        let is_wanted = |letter: &&DeadLetter| {
            !(only_max_retries && letter.requeued)
                && (error_types.is_empty() || error_types.contains(&letter.error_type))
        };
        let mut letters: Vec<DeadLetter> = letters.iter().filter(is_wanted).cloned().collect();
        letters.sort_by(|a, b| (b.first_seen_at, &b.key).cmp(&(a.first_seen_at, &a.key)));
        Ok(Answer::DeadLetters { total: letters.len() as u64, letters: page_of(letters, page) })
    }

    /// Gives letters of the catalogue up.
    pub(super) async fn mark_failed(&self, sync_id: &str, error_types: &[String]) -> Result<Answer, Error> {
        if self.load(sync_id).await?.forgotten {
            // What is written for a sync that was deleted would be left behind.
            return Err(being_deleted(sync_id));
        }
        let mark = |record: &mut SinkRecord| Ok(record.dead_letters.mark_failed(error_types));
        let letters = SinkRecord::update(self.home.documents(), CATALOGUE, mark).await?;
        Ok(Answer::Marked { letters })
    }

    /// Moves a sink's cursor back.
    pub(super) async fn replay(
        &self,
        sync_id: &str,
        sink_id: &str,
        after: u64,
        now: Timestamp,
    ) -> Result<Answer, Error> {
        let sync = self.sync(sync_id).await?;
        if !self.sink_ids(&sync).iter().any(|it| it == sink_id) {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("The sync {sync_id} has no sink {sink_id:?}."),
                "Read the sync to see its sinks.",
            ));
        }
        // No step may run meanwhile: it would drop what the sink needs from now on.
        let step = self
            .update_taking_lease(sync_id, |state| {
                if self.held_until(state, now).is_some() {
                    return Err(Error::new(
                        ErrorKind::StateConflict,
                        "A step of this sync runs at the moment.",
                        "Send the request again.",
                    )
                    .with_retry(Retry::Temporary));
                }
                state.pumps.ask(now);
                // Also where the answer of moving the cursor is lost.
                state.pumps.up_to = state.pumps.up_to.min(after);
                let step = self.take_lease_beside(state, now);
                Ok((step, Some(step)))
            })
            .await?;
        let moved = self.move_cursor(sync_id, sink_id, after).await;
        let status = self
            .update_persistently(sync_id, |state| {
                if state.has_lease(step) {
                    state.lease = None;
                }
                Ok(state.status.clone())
            })
            .await?;
        moved.map(|()| Answer::Status(Box::new(status)))
    }

    pub(super) async fn move_cursor(&self, sync_id: &str, sink_id: &str, after: u64) -> Result<(), Error> {
        let (blobs, documents) = (self.home.blobs(sync_id), self.home.documents());
        // Refuses a position that is not there.
        read_changes(&blobs, documents, sync_id, Some(after), 1).await?;
        SinkRecord::update(documents, sink_id, |record| {
            record.replay(after);
            Ok(())
        })
        .await
    }

    pub(super) async fn ask_pumps(&self, sync_id: &str, now: Timestamp) -> Result<(), Error> {
        self.update_live(sync_id, |state| {
            state.pumps.ask(now);
            Ok(())
        })
        .await
    }

    pub(super) fn sink_ids(&self, sync: &SyncRecord) -> Vec<String> {
        self.home.sinks(sync).into_iter().map(|(sink_id, _)| sink_id).collect()
    }

    pub(super) async fn sink_statuses(&self, sync_id: &str) -> Result<Vec<SinkStatus>, Error> {
        let mut statuses = Vec::new();
        for sink_id in self.load(sync_id).await?.pumps.sink_ids {
            let record = SinkRecord::load(self.home.documents(), &sink_id).await?.value;
            statuses.push(SinkStatus {
                sink_id,
                state: record.state,
                cursor: record.cursor,
                taken: record.taken,
                failures: record.failures,
                first_failure_at: record.first_failure_at,
                last_failure_at: record.last_failure_at,
                last_error: record.last_error,
                next_attempt_at: record.next_attempt_at,
                dead_letters: record.dead_letters.by_error_type(),
            });
        }
        Ok(statuses)
    }
}
