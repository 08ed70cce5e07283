//! The pump: reads the feed behind a sink's cursor, delivers in order, and moves the cursor after the sink has
//! answered.

use std::collections::BTreeMap;

use b2sync_core::{
    change::Change,
    error::{Error, ErrorKind, Retry},
    feed::{
        Feed,
        outbox::Batch,
        read::{FeedReader, PageLimits},
    },
    mutation::{self, Mutation},
    sink::{Delivery, Sink},
    state::State,
    store::{BlobStore, DocumentStore},
    time::{Clock, Timestamp},
};
use futures_util::future::{Either, select};

use super::{DELIVERY_ATTEMPTS_MAX, SinkRecord};
use crate::documents::{Decoded, Loaded, Slot, Updated};

/// One delivery may take this long, in milliseconds. After that the sink counts as failed, and the changes come again.
pub const DELIVERY_MS_MAX: u64 = 10_000;

/// Calls of a delivery that goes well, beside the batches that it reads: two of reading where they are, one to the
/// sink, and one to its document.
const DELIVERY_CALLS: u64 = 4;

/// What one run of a pump may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PumpBudget {
    /// Calls to the stores and the sink; one delivery is always made, even beyond this.
    pub calls_max: u64,
    /// No delivery begins at this time or later.
    pub until: Timestamp,
}

/// What a run of a pump did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pumped {
    /// Changes that the sink took.
    pub taken: u64,
    /// Changes that became dead letters.
    pub refused: u64,
    /// Where the sink's cursor is now.
    pub cursor: u64,
    /// Whether the feed must keep what is behind the cursor.
    pub is_active: bool,
    /// When there is something to deliver again.
    pub due_at: Option<Timestamp>,
    /// Reads of the stores.
    pub reads: u64,
    /// Writes to the stores.
    pub writes: u64,
}

/// A pump of one sync.
#[derive(Clone, Copy, Debug)]
pub struct Pump<'a, B, D, C> {
    /// Where the feed's batches are.
    pub blobs: &'a B,
    /// Where the sinks' documents are.
    pub documents: &'a D,
    /// The time.
    pub clock: &'a C,
    /// The sync.
    pub sync_id: &'a str,
    /// Its feed.
    pub feed: &'a Feed,
    /// Batches that were appended a moment ago.
    pub fresh: &'a [Batch],
}

/// A sink's document while it is pumped.
struct Cursor<'a> {
    name: String,
    sink_id: &'a str,
    document: Loaded<SinkRecord>,
    pumped: Pumped,
    calls: u64,
}

/// What became of changes that were offered.
#[derive(Debug, Default)]
struct Offered {
    taken: Vec<Change>,
    /// Those that were refused each time, and why.
    refused: Vec<(Change, String)>,
}

impl Offered {
    /// Forgets what was refused where a newer change of the same key was taken.
    fn drop_superseded(&mut self) {
        if self.refused.is_empty() {
            return;
        }
        let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
        for change in &self.taken {
            let position = newest.entry(&change.entry.key).or_default();
            *position = change.position.max(*position);
        }
        self.refused.retain(|(change, _)| newest.get(change.entry.key.as_str()).is_none_or(|it| *it < change.position));
    }
}

impl<B: BlobStore, D: DocumentStore, C: Clock> Pump<'_, B, D, C> {
    /// Delivers to one sink until it has taken everything, it fails, or the budget is used up.
    ///
    /// # Errors
    /// Of reading and writing the sink's own document. What the sink and the feed do is in that document.
    pub async fn run(&self, sink_id: &str, sink: &impl Sink, budget: PumpBudget) -> Result<Pumped, Error> {
        let name = SinkRecord::document(sink_id);
        let document = SinkRecord::load(self.documents, sink_id).await?;
        let pumped = Pumped { reads: 1, ..Pumped::default() };
        let mut cursor = Cursor { name, sink_id, document, pumped, calls: 1 };
        let state = State::new(self.blobs, self.documents);
        loop {
            let now = self.clock.now();
            let due = cursor.document.value.due_at(self.feed.last(), now).is_some_and(|at| at <= now);
            let begun = cursor.pumped.writes > 0;
            let left = budget.calls_max.saturating_sub(cursor.calls + DELIVERY_CALLS);
            let is_over = now >= budget.until && !mutation::is_on(Mutation::HoldPolls);
            if !due || (begun && (left == 0 || is_over)) {
                break;
            }
            let reads = state.reads();
            let goes_on = self.deliver_next(&state, &mut cursor, sink, left).await?;
            cursor.pumped.reads += state.reads() - reads;
            cursor.calls += state.reads() - reads;
            if !goes_on {
                break;
            }
        }
        let Cursor { document: Loaded { value: record, .. }, pumped, .. } = cursor;
        let due_at = record.due_at(self.feed.last(), self.clock.now());
        Ok(Pumped { cursor: record.cursor, is_active: record.is_active(), due_at, ..pumped })
    }

    /// Delivers as much as the sink takes at a time, in about `reads` of the feed: letters that were sent back first.
    /// `false`: the sink failed.
    async fn deliver_next(
        &self,
        state: &State<'_, B, D>,
        cursor: &mut Cursor<'_>,
        sink: &impl Sink,
        reads: u64,
    ) -> Result<bool, Error> {
        let batch_max = sink.batch_max().max(1);
        let mut requeued = cursor.document.value.dead_letters.requeued();
        requeued.truncate(batch_max);
        let from = cursor.document.value.cursor;
        let (mut changes, up_to) = if requeued.is_empty() {
            let reader = FeedReader { state, feed: self.feed, fresh: self.fresh, sync_id: self.sync_id };
            match reader.read(Some(from), PageLimits { changes: batch_max, reads }).await {
                Ok(page) => {
                    let up_to = page.changes.last().map(|change| change.position);
                    (page.changes, up_to.unwrap_or(from))
                }
                Err(error) => return self.note_failure(cursor, &error).await,
            }
        } else {
            (requeued, from)
        };
        if mutation::is_on(Mutation::DeliverBackwards) {
            changes.reverse();
        }
        if mutation::is_on(Mutation::MoveCursorEarly) {
            self.store(cursor, |record| {
                record.cursor = up_to;
                Ok(())
            })
            .await?;
        }
        match self.offer(cursor, sink, &changes).await {
            Ok(offered) => self.note_answer(cursor, &offered, (from, up_to)).await,
            Err(error) => self.note_failure(cursor, &error).await,
        }
    }

    /// Offers changes, those that are refused several times: unless the sink has taken a newer change of the same key
    /// meanwhile, which an older one must not follow.
    async fn offer(&self, cursor: &mut Cursor<'_>, sink: &impl Sink, changes: &[Change]) -> Result<Offered, Error> {
        let mut left = changes.to_vec();
        let mut offered = Offered::default();
        for _ in 0..DELIVERY_ATTEMPTS_MAX {
            if left.is_empty() {
                break;
            }
            cursor.calls += 1;
            let answers = self.deliver(cursor.sink_id, sink, &left).await?;
            if answers.len() != left.len() {
                return Err(Error::new(
                    ErrorKind::Sink,
                    format!("The sink answered for {} changes of {}.", answers.len(), left.len()),
                    "The changes are delivered again, with the same ids.",
                )
                .with_retry(Retry::Temporary));
            }
            offered.refused.clear();
            for (change, answer) in left.into_iter().zip(answers) {
                match answer {
                    Delivery::Delivered => offered.taken.push(change),
                    Delivery::Refused(why) => offered.refused.push((change, why)),
                }
            }
            offered.drop_superseded();
            left = offered.refused.iter().map(|(change, _)| change.clone()).collect();
        }
        Ok(offered)
    }

    /// One call to the sink, within [`DELIVERY_MS_MAX`].
    async fn deliver(&self, sink_id: &str, sink: &impl Sink, changes: &[Change]) -> Result<Vec<Delivery>, Error> {
        let deliver = std::pin::pin!(sink.deliver(changes));
        let limit = std::pin::pin!(self.clock.sleep(DELIVERY_MS_MAX));
        match select(deliver, limit).await {
            Either::Left((answers, _)) => answers,
            Either::Right(_) => Err(too_slow(sink_id)),
        }
    }

    /// Moves the cursor behind what the sink took, and keeps what it refused, in one swap. `false`: a letter does not
    /// fit.
    async fn note_answer(
        &self,
        cursor: &mut Cursor<'_>,
        Offered { taken, refused }: &Offered,
        (from, up_to): (u64, u64),
    ) -> Result<bool, Error> {
        let now = self.clock.now();
        let noted = self
            .store(cursor, |record| {
                taken.iter().for_each(|change| record.dead_letters.delivered(change));
                for (change, why) in refused.iter().filter(|_| !mutation::is_on(Mutation::DropLetters)) {
                    record.dead_letters.refuse(change, why, DELIVERY_ATTEMPTS_MAX, now)?;
                }
                record.succeeded();
                record.taken = record.taken.saturating_add(taken.len() as u64);
                // Unless a replay has moved it meanwhile.
                if record.cursor == from {
                    record.cursor = up_to;
                }
                Ok(())
            })
            .await;
        match noted {
            Ok(()) => {
                cursor.pumped.taken += taken.len() as u64;
                cursor.pumped.refused += refused.len() as u64;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Sink => self.note_failure(cursor, &error).await,
            Err(error) => Err(error),
        }
    }

    async fn note_failure(&self, cursor: &mut Cursor<'_>, error: &Error) -> Result<bool, Error> {
        let now = self.clock.now();
        self.store(cursor, |record| {
            record.failed(error, now);
            Ok(())
        })
        .await?;
        Ok(false)
    }

    /// Changes the sink's document; again from what is stored when a user changed its letters meanwhile.
    async fn store(
        &self,
        cursor: &mut Cursor<'_>,
        mut decide: impl FnMut(&mut SinkRecord) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Cursor { name, document, .. } = cursor;
        let (fresh, decoded) = (SinkRecord::default(), Decoded::default());
        let slot = Slot { documents: self.documents, name, fresh: &fresh, decoded: &decoded };
        let Updated { is_changed, reloads } = slot.update_loaded(document, &mut decide, async || Ok(())).await?;
        cursor.pumped.reads += u64::from(reloads);
        cursor.pumped.writes += u64::from(is_changed);
        cursor.calls += u64::from(2 * reloads) + u64::from(is_changed);
        Ok(())
    }
}

fn too_slow(sink_id: &str) -> Error {
    Error::new(
        ErrorKind::Sink,
        format!("The sink {sink_id:?} did not answer within {} seconds.", DELIVERY_MS_MAX / 1_000),
        "The changes are delivered again, with the same ids.",
    )
    .with_retry(Retry::Temporary)
}
