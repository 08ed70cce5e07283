//! What one step may spend, judged from outside.

use b2sync_core::b2::pace::INTERVAL_MS_MAX;
use b2sync_core::engine::meter::{EXTERNAL_REQUESTS_RESERVED, INTERNAL_REQUESTS_RESERVED};
use b2sync_core::engine::thresholds::Thresholds;
use b2sync_service::coordinator::{LEASE_MARGIN_MS, PUMP_CALLS_MIN};

use super::checkers::{Rule, Violation};
use super::seam::Seam;
use super::task::Step;

/// Calls to the stores that one key of a page may take until the step has dealt with it: in the smallest of pieces, its
/// leaf and its segment are read and both are stored again; and a checkpoint is the document and three blobs. The
/// engine asks the budget before each page, and its reserve is made for pieces of thousands of keys.
const CALLS_A_KEY: u64 = 4 + 4;
/// Calls to sink and stores that a pump may make beyond what it was given: it reads its document, as many batches as
/// one page of the feed may be in and the list of them, offers them three times, and stores its document, for which it
/// may have to read it again.
const CALLS_A_DELIVERY: u64 = 1 + 51 + 3 + 2;
/// Pages by which a step may pass its limits of keys and bytes: the last one that these allowed, one that checks the
/// end of its range, and those that tell the order of keys.
const PAGES_BEYOND_MAX: u64 = 6;
/// Requests to B2 that a step may make whatever its budget: those of its first page, and authorizing before it.
const REQUESTS_MIN: u64 = EXTERNAL_REQUESTS_RESERVED + 5;

impl Step {
    /// Calls to stores and sinks that it may make beyond its budget: for what it was handed, and for what is left to
    /// the pumps whatever it has spent.
    fn owed(&self, sinks: usize) -> u64 {
        self.keys * CALLS_A_KEY + PUMP_CALLS_MIN + sinks as u64 * CALLS_A_DELIVERY
    }
}

impl Seam {
    /// A page is asked for: its step's budget must allow it.
    pub(super) fn check_page(&self, start: &str) {
        // Who is frozen between asking the budget and asking for a page is not to blame.
        let now = self.inner.now.get() - self.inner.frozen_ms.get();
        let (budget, sinks) = (&self.inner.config.budget, self.inner.sinks.len());
        let page_keys = self.inner.options.page_keys as u64;
        let ranges = self.inner.options.streams > 1;
        let skew_ms = 2 * self.inner.options.skew_ms_max;
        let over = self.inner.step(self.task, |step| {
            // Several ranges may be read at the same time, and each asks again by itself.
            let again = !step.asked.insert(start.to_owned()) || step.last_status == 400;
            if step.pages == 0 {
                // The engine's time begins after the coordinator has authorized.
                step.began_at = now;
            }
            // A step reads one page whatever its budget; where that ends a range, one more tells whether it may.
            // The first key on whose place orders do not agree has the bucket asked for its order, with two pages or a
            // few that belong to the one in which it came.
            let asks_order = start.contains("%F4%8F%BF%BD") || start.contains("%EF%BF%BD");
            step.since_order = if asks_order { Some(0) } else { step.since_order.map(|pages| pages + 1) };
            let probing = step.since_order.is_some();
            let belongs = step.since_order.is_some_and(|pages| pages <= 1);
            if again || step.pages == 0 || (ranges && step.pages == 1) || belongs {
                return None;
            }
            let wall_ms = u64::try_from(now - step.began_at).unwrap_or(0);
            // Those pages are not pages of the job.
            let keys = step.keys.saturating_sub(if probing { 4 * page_keys } else { page_keys });
            // The page that checks the end of a range is in the reserve of the one before it. While one range's pieces
            // are stored and delivered, pages of others are on their way that were allowed before. A page that was
            // allowed may have to keep its distance from the one before.
            let (calls, bytes, slack_ms) = if ranges {
                (
                    step.internal.saturating_sub(step.owed(sinks)),
                    step.bytes.saturating_sub(step.page_bytes_max),
                    LEASE_MARGIN_MS,
                )
            } else {
                // Just before a page, the coordinator's own document is asked whether the job is still wanted: that is
                // no call of the engine's.
                let internal = step.internal.saturating_sub(1);
                (internal + INTERNAL_REQUESTS_RESERVED, step.bytes, skew_ms + INTERVAL_MS_MAX)
            };
            let signals = u64::from(step.signalled && !ranges);
            [
                ("requests to B2", step.external + EXTERNAL_REQUESTS_RESERVED / 4, budget.external_requests_max),
                ("calls to stores", calls, budget.internal_requests_max),
                ("bytes", bytes, budget.bytes_received_max.saturating_sub(1)),
                ("keys", keys, budget.keys_max.saturating_sub(1)),
                ("ms", wall_ms, budget.wall_ms_max.saturating_add(slack_ms)),
                ("signals that the CPU time runs out", signals, 0),
            ]
            .into_iter()
            .find(|(_, spent, max)| spent > max)
        });
        if let Some((what, spent, max)) = over {
            let message = format!("a page is asked for after {spent} {what} of {max}");
            self.inner.check(Err(Violation::new(Rule::WithinTheBudget, message)));
        }
    }

    /// Adds to what the step has spent, which must be no more than its budget and what one page may take beyond it.
    pub(super) fn spend(&self, add: impl FnOnce(&mut Step)) {
        let now = self.inner.now.get() - self.inner.frozen_ms.get();
        let (budget, sinks) = (&self.inner.config.budget, self.inner.sinks.len());
        let page_keys = self.inner.options.page_keys as u64;
        let over = self.inner.step(self.task, |step| {
            add(step);
            step.lease?;
            let wall_ms = u64::try_from(now - step.began_at).unwrap_or(0);
            // Where two deletions are a blob, what vanishes between two keys is in no reserve.
            let tiny = u64::from(self.inner.options.thresholds != Thresholds::USUAL);
            let owed = step.owed(sinks) + tiny * CALLS_A_KEY * self.inner.options.keys as u64;
            [
                ("requests to B2", step.external, budget.external_requests_max.max(REQUESTS_MIN)),
                ("calls to stores", step.internal, budget.internal_requests_max.saturating_add(owed)),
                ("bytes", step.bytes, budget.bytes_received_max.saturating_add(PAGES_BEYOND_MAX * step.page_bytes_max)),
                ("keys", step.keys, budget.keys_max.saturating_add(PAGES_BEYOND_MAX * page_keys)),
                ("ms", wall_ms, budget.wall_ms_max.saturating_add(LEASE_MARGIN_MS)),
            ]
            .into_iter()
            .find(|(_, spent, max)| spent > max)
        });
        if let Some((what, spent, max)) = over {
            let message = format!("a step has spent {spent} {what} of {max}");
            self.inner.check(Err(Violation::new(Rule::WithinTheBudget, message)));
        }
    }
}
