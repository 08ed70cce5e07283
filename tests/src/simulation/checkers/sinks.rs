//! What each sink was offered, took and refused, and how far its document says that it is.

use std::collections::{BTreeMap, BTreeSet};

use b2sync_core::change::{Change, ChangeKind};
use b2sync_service::sinks::SinkRecord;

use super::feed::{FeedLog, SinkStands};
use super::{Rule, Violation};

/// What the checkers remember of a sink.
#[derive(Debug, Default)]
pub(super) struct SinkSeen {
    taken: BTreeSet<u64>,
    refused: BTreeSet<u64>,
    /// All changes up to here were taken or refused.
    dealt: u64,
    /// Of each key, the newest change that was taken.
    newest_taken: BTreeMap<String, u64>,
    /// The same of the time since the cursor was moved back last.
    taken_again: BTreeSet<u64>,
    cursor: u64,
    is_active: bool,
}

fn order(message: String) -> Violation {
    Violation::new(Rule::SinksGetEveryChangeInOrder, message)
}

impl SinkSeen {
    pub(super) fn new() -> Self {
        Self { is_active: true, ..Self::default() }
    }

    pub(super) fn stands(&self, sink_id: &str) -> SinkStands {
        SinkStands { sink_id: sink_id.to_owned(), cursor: self.is_active.then_some(self.cursor) }
    }

    fn is_dealt(&self, position: u64) -> bool {
        position <= self.dealt || self.taken.contains(&position) || self.refused.contains(&position)
    }

    /// A delivery reached the sink: these are the feed's changes, none is passed over, and they are in order, but for
    /// those that were refused and sent back.
    pub(super) fn offered(&self, sink_id: &str, changes: &[Change], feed: &FeedLog) -> Result<(), Violation> {
        let are_letters = changes.iter().all(|change| self.refused.contains(&change.position));
        let mut before = 0;
        for (number, change) in changes.iter().enumerate() {
            let position = change.position;
            if feed.at(position) != Some(change) {
                let told = feed.at(position);
                return Err(order(format!("{sink_id} gets {change:?}, and the feed has {told:?} there")));
            }
            if !are_letters && position <= before {
                return Err(order(format!("{sink_id} gets {position} behind {before}")));
            }
            before = position;
            let earlier = changes.get(..number).unwrap_or_default();
            let is_passed_over =
                |passed: &u64| !self.is_dealt(*passed) && !earlier.iter().any(|change| change.position == *passed);
            if let Some(passed) = (self.dealt + 1..position).find(is_passed_over) {
                return Err(order(format!("{sink_id} gets {position}, and never got {passed}")));
            }
        }
        Ok(())
    }

    /// Whether the sink took that change before.
    pub(super) fn has_taken(&self, position: u64) -> bool {
        self.taken.contains(&position)
    }

    /// The sink took a change.
    pub(super) fn took(&mut self, change: &Change) {
        self.taken.insert(change.position);
        self.taken_again.insert(change.position);
        let newest = self.newest_taken.entry(change.entry.key.clone()).or_default();
        *newest = change.position.max(*newest);
        self.advance();
    }

    /// The sink refused a change.
    pub(super) fn refused(&mut self, change: &Change) {
        self.refused.insert(change.position);
        self.advance();
    }

    fn advance(&mut self) {
        while self.taken.contains(&(self.dealt + 1)) || self.refused.contains(&(self.dealt + 1)) {
            self.dealt += 1;
        }
    }

    /// The sink's document was stored.
    pub(super) fn stored(&mut self, sink_id: &str, record: &SinkRecord, feed: &FeedLog) -> Result<(), Violation> {
        let broken = |message| Err(Violation::new(Rule::CursorsFollowAnswers, message));
        if record.cursor > feed.last() {
            return broken(format!("{sink_id} is at {}, and the feed ends at {}", record.cursor, feed.last()));
        }
        for letter in record.dead_letters.iter() {
            let change = letter.change();
            if feed.at(letter.position) != Some(&change) || !self.refused.contains(&letter.position) {
                return broken(format!("{sink_id} has a letter of what it never refused: {change:?}"));
            }
        }
        for position in self.cursor + 1..=record.cursor {
            let Some(change) = feed.at(position) else { continue };
            let letter = record.dead_letters.iter().find(|letter| letter.key == change.entry.key);
            let is_kept = letter.is_some_and(|letter| letter.position >= position);
            let newest = self.newest_taken.get(&change.entry.key).copied().unwrap_or(0);
            let is_refused = self.refused.contains(&position) && (is_kept || newest > position);
            if !self.taken_again.contains(&position) && !is_refused {
                let message = format!("the cursor of {sink_id} moves behind {change:?}, which it has not taken");
                let rule = if self.refused.contains(&position) {
                    Rule::RefusedAreDeadLetters
                } else {
                    Rule::CursorsFollowAnswers
                };
                return Err(Violation::new(rule, message));
            }
        }
        if record.cursor < self.cursor {
            self.taken_again = self.taken_again.iter().copied().filter(|taken| *taken <= record.cursor).collect();
        }
        self.cursor = record.cursor;
        self.is_active = record.is_active();
        Ok(())
    }

    /// At rest everything was offered, and the cursor is at the end.
    pub(super) fn check_rest(&self, sink_id: &str, feed: &FeedLog) -> Result<(), Violation> {
        if self.dealt != feed.last() || self.cursor != feed.last() {
            let message = format!("{sink_id} got {} changes of {}, and is at {}", self.dealt, feed.last(), self.cursor);
            return Err(order(message));
        }
        Ok(())
    }
}

/// What the catalogue must hold, if it applies each change exactly once.
#[derive(Debug, Default)]
pub(super) struct CatalogueSeen {
    applied: u64,
    /// By key: the change that was applied last, and how many were since the key was created.
    rows: BTreeMap<String, (String, u32)>,
}

impl CatalogueSeen {
    /// The catalogue was called with these changes, and has `count` rows; `row` answers the change and the version that
    /// it has of a key.
    pub(super) fn applied(
        &mut self,
        changes: &[Change],
        count: u64,
        row: impl Fn(&str) -> Option<(String, u32)>,
    ) -> Result<(), Violation> {
        for change in changes.iter().filter(|change| change.position > self.applied) {
            let key = &change.entry.key;
            if change.kind == ChangeKind::Deleted {
                self.rows.remove(key);
            } else {
                let (id, version) = self.rows.entry(key.clone()).or_default();
                (*id, *version) = (change.id.clone(), *version + 1);
            }
        }
        self.applied = changes.iter().map(|change| change.position).fold(self.applied, u64::max);
        let broken = |message| Err(Violation::new(Rule::CatalogueAppliesOnce, message));
        for change in changes {
            let (held, once) = (row(&change.entry.key), self.rows.get(&change.entry.key));
            if held.as_ref() != once {
                return broken(format!("{change:?} leaves {held:?}, and each change once leaves {once:?}"));
            }
        }
        if count != self.rows.len() as u64 {
            return broken(format!("there are {count} rows, and each change once leaves {}", self.rows.len()));
        }
        Ok(())
    }
}
