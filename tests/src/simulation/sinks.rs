//! The sinks of a world: the catalogue, and up to two more that hold what they are told, each slow, refusing and
//! failing as it likes.

use std::collections::BTreeSet;

use b2sync_core::change::{Change, ChangeKind};
use b2sync_core::entropy::Entropy as _;
use b2sync_core::entry::Entry;
use b2sync_core::error::{Error, ErrorKind, Retry};
use b2sync_core::ids::object_id;
use b2sync_core::sink::{Delivery, Sink};
use b2sync_core::time::Clock as _;
use b2sync_service::catalogue::{CatalogueAnswer, CatalogueCall, CatalogueSink, CatalogueTarget};
use b2sync_service::sinks::pump::DELIVERY_MS_MAX;

use super::checkers::{Rule, Violation};
use super::faults::Break;
use super::seam::Seam;
use super::sink_state::SinkState;
use super::world::{Inner, NAMESPACE, TARGET_BUCKET};

/// Of how many changes of one delivery the trace tells.
const DELIVERIES_SHOWN_MAX: usize = 12;

/// A sink, with a log.
pub(super) struct SimSink {
    pub(super) seam: Seam,
    /// Which of the world's.
    pub(super) number: usize,
    pub(super) target: CatalogueTarget,
}

fn sink_error() -> Error {
    Error::new(ErrorKind::Sink, "The sink broke off.", "Try again.").with_retry(Retry::Temporary)
}

impl SimSink {
    fn inner(&self) -> &Inner {
        &self.seam.inner
    }

    fn state(&self) -> &SinkState {
        &self.seam.inner.sinks[self.number]
    }

    fn note(&self, line: impl FnOnce() -> String) {
        self.seam.note(|| format!("{}: {}", self.state().sink_id, line()));
    }

    /// A delivery begins. While a poll is due, none does: but for those of what was refused a moment ago.
    fn check_begins(&self, changes: &[Change]) {
        let (inner, now) = (self.inner(), self.seam.now());
        let positions: BTreeSet<u64> = changes.iter().map(|change| change.position).collect();
        let late = inner.step(self.seam.task, |step| {
            let before = step.batches.insert(self.number, positions.clone());
            let again = before.is_some_and(|before| positions.is_subset(&before));
            let (due, frozen_ms) = step.poll_due.filter(|_| !again)?;
            let frozen_ms = inner.frozen_ms.get() - frozen_ms;
            Some(due).filter(|due| now.plus_millis(-frozen_ms) >= *due)
        });
        if let Some(due) = late {
            let message = format!("{} is delivered to at {now}, and a poll is due at {due}", self.state().sink_id);
            inner.check(Err(Violation::new(Rule::NobodyWaitsForASink, message)));
        }
    }

    /// What becomes of this delivery, and how long it takes before it reaches the sink and after.
    fn fate(&self) -> (Option<Break>, u64, u64) {
        let (inner, state) = (self.inner(), self.state());
        let slow_ms = state.slow_ms_max.get();
        let delay = || if slow_ms == 0 { 0 } else { inner.sink_entropy.below(slow_ms + 1) };
        let (takes_ms, is_late) = (delay(), slow_ms > 0 && inner.sink_entropy.chance(0.5));
        let (before_ms, after_ms) = if is_late { (0, takes_ms) } else { (takes_ms, 0) };
        let down = state.is_down.get().then_some(Break::Before);
        let how = down.or_else(|| state.breaks.borrow_mut().pop_front());
        if let Some(how) = how {
            inner.count(|tally| tally.sink_breaks += 1);
            self.note(|| format!("{how:?}"));
        }
        inner.count(|tally| tally.too_slow += u64::from(takes_ms > DELIVERY_MS_MAX));
        (how, before_ms, after_ms)
    }

    /// Which of these the sink takes.
    fn refusals(&self, changes: &[Change]) -> Vec<Option<String>> {
        let state = self.state();
        let mut refusals = state.refusals.borrow_mut();
        let for_ever = state.refused_for_ever.borrow();
        let mut refuse = |key: &str| {
            if for_ever.contains(key) {
                return Some("refused for ever".to_owned());
            }
            let left = refusals.get_mut(key)?;
            *left -= 1;
            if *left == 0 {
                refusals.remove(key);
            }
            self.inner().count(|tally| tally.faults += 1);
            Some("refused for now".to_owned())
        };
        changes.iter().map(|change| refuse(&change.entry.key)).collect()
    }

    /// Of a delivery that is half taken, the second half is not.
    fn is_half_taken(&self, taken: &mut Vec<Change>) -> bool {
        let inner = self.inner();
        let fails = inner.halves.get() > 0;
        if fails {
            inner.halves.set(inner.halves.get() - 1);
            inner.count(|tally| (tally.faults, tally.halves) = (tally.faults + 1, tally.halves + 1));
            let all = taken.len();
            taken.truncate(all.div_ceil(2));
            self.note(|| format!("takes {} of {all} changes and fails", taken.len()));
        }
        fails
    }

    fn seen(&self, taken: &[Change]) {
        let inner = self.inner();
        for (number, change) in taken.iter().enumerate() {
            let repeated = inner.checks.borrow_mut().took(self.number, change);
            inner.count(|tally| {
                tally.changes += 1;
                tally.repeated += u64::from(repeated);
            });
            if number == DELIVERIES_SHOWN_MAX {
                self.note(|| format!("takes {} more", taken.len() - number));
            } else if number < DELIVERIES_SHOWN_MAX {
                self.note(|| {
                    let Entry { key, etag, size, last_modified } = &change.entry;
                    let (kind, position) = (change.kind.as_str(), change.position);
                    format!("takes {position}, {kind} {key:?} ({etag}, {size} B, {last_modified})")
                });
            }
        }
        if self.number == 0 {
            inner.deliveries.borrow_mut().extend_from_slice(taken);
        }
    }

    /// The changes are there: in the catalogue, or in a sink that applies them without looking.
    async fn take(&self, taken: &[Change]) -> Result<(), Error> {
        let inner = self.inner();
        self.seen(taken);
        if !self.state().options.is_catalogue {
            let mut held = self.state().held.borrow_mut();
            for Change { kind, entry, .. } in taken {
                match kind {
                    ChangeKind::Deleted => held.remove(&entry.key),
                    ChangeKind::Created | ChangeKind::Updated => held.insert(entry.key.clone(), entry.clone()),
                };
            }
            return Ok(());
        }
        let send = async |call| inner.catalogue.call(NAMESPACE, TARGET_BUCKET, call);
        let sink = CatalogueSink { send, clock: self.seam.clone(), target: self.target.clone() };
        let answers = sink.deliver(taken).await?;
        if answers.iter().any(|answer| *answer != Delivery::Delivered) {
            return Err(Error::internal("The catalogue refuses something."));
        }
        let call = |call| inner.catalogue.call(NAMESPACE, TARGET_BUCKET, call);
        let row = |key: &str| match call(CatalogueCall::Get { object_id: object_id(&self.target.sync_id, key) }) {
            Ok(CatalogueAnswer::Object { object: Some(row) }) => Some((row.change_id, row.version)),
            _ => None,
        };
        let count = match call(CatalogueCall::Count { sync_id: None }) {
            Ok(CatalogueAnswer::Count { count }) => count,
            _ => 0,
        };
        let applied = inner.checks.borrow_mut().applied(taken, count, row);
        inner.check(applied);
        Ok(())
    }

    async fn reach(&self, changes: &[Change]) -> Result<Vec<Delivery>, Error> {
        let (seam, inner) = (&self.seam, self.inner());
        let (how, before_ms, after_ms) = self.fate();
        match how {
            Some(Break::Before) => return Err(sink_error()),
            Some(Break::DieBefore) => seam.die().await,
            _ => {}
        }
        if before_ms > 0 {
            seam.wait(before_ms).await;
        }
        inner.check_no_secret("a delivery", format!("{changes:?}").as_bytes());
        let lease = inner.step(seam.task, |step| step.lease);
        let offered = inner.checks.borrow_mut().offered(self.number, lease, changes);
        inner.check(offered);
        let refusals = self.refusals(changes);
        let taken = changes.iter().zip(&refusals).filter(|(_, refusal)| refusal.is_none());
        let mut taken: Vec<Change> = taken.map(|(change, _)| change.clone()).collect();
        let fails = self.is_half_taken(&mut taken);
        self.take(&taken).await?;
        for (change, _) in changes.iter().zip(&refusals).filter(|(_, refusal)| refusal.is_some()) {
            self.note(|| format!("refuses {}", change.position));
            inner.checks.borrow_mut().refused(self.number, change);
        }
        if after_ms > 0 {
            seam.wait(after_ms).await;
        }
        match how {
            _ if fails => return Err(sink_error()),
            Some(Break::After) => return Err(sink_error()),
            Some(Break::DieAfter) => seam.die().await,
            _ => {}
        }
        Ok(refusals.into_iter().map(|refusal| refusal.map_or(Delivery::Delivered, Delivery::Refused)).collect())
    }
}

impl Sink for SimSink {
    fn batch_max(&self) -> usize {
        self.state().options.batch_max
    }

    async fn deliver(&self, changes: &[Change]) -> Result<Vec<Delivery>, Error> {
        self.check_begins(changes);
        self.seam.spend(|step| step.internal += 1);
        self.seam.effect("delivery", sink_error, async || self.reach(changes).await).await
    }
}
