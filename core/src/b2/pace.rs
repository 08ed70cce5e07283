//! How fast calls to B2 follow each other, learned from its answers.
//!
//! B2 does not say how many calls it allows. Until it refuses one as too many, nothing is held back. When it grants
//! calls again, they keep a distance: the one that they had before, twice as much for each refusal in a row after the
//! first, and at most the one at which B2 has granted calls with all the waiting. So one refusal, as a busy server
//! gives at random, costs little, and a limit of calls a minute is found out at once. Each call that B2 grants shortens
//! the distance a little.

use std::cell::Cell;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The longest distance between two calls, in milliseconds.
pub const INTERVAL_MS_MAX: u64 = 30_000;
/// A shorter distance than this, in milliseconds, is none.
const INTERVAL_MS_MIN: u64 = 20;
/// What was learned is believed for this long, in milliseconds.
pub const PACE_MAX_AGE_MS: u64 = 3_600_000;
/// After the time that this many calls take without a refusal, the distance shrinks quickly.
const CALM_CALLS: u64 = 10;
/// The most calls that line up behind each other.
const LINED_UP_MAX: u64 = 24;
/// Each granted call takes this part of the distance off, and in calm times [`SHRINKS_CALM`].
const SHRINKS: u64 = 32;
const SHRINKS_CALM: u64 = 16;
/// Refusals in a row beyond this double nothing more.
const DOUBLINGS_MAX: u32 = 10;

/// The distance that calls to B2 have to keep, as it is stored with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// The least time between the beginnings of two calls, in milliseconds.
    pub interval_ms: u64,
    /// When it was learned.
    pub noted_at: Timestamp,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    interval_ms: u64,
    /// No call begins before.
    next_at: Timestamp,
    /// Calls that B2 has refused since it granted one.
    refusals: u32,
    /// When it refused the first of them.
    first_refused_at: Timestamp,
    /// When B2 granted calls again, or the first call.
    since: Option<Timestamp>,
    granted: u64,
    refused_at: Option<Timestamp>,
    has_learned: bool,
}

/// Keeps the calls of one client at a distance, also those that are made side by side.
#[derive(Debug, Default)]
pub struct Pacer(Cell<State>);

impl Pacer {
    /// Begins with what was learned earlier, if that is recent.
    pub fn new(pace: Option<Pace>, now: Timestamp) -> Self {
        let recent = pace.filter(|pace| now.millis_since(pace.noted_at) < PACE_MAX_AGE_MS);
        let interval_ms = recent.map_or(0, |pace| pace.interval_ms.min(INTERVAL_MS_MAX));
        Self(Cell::new(State { interval_ms, ..State::default() }))
    }

    /// The distance that calls keep now, in milliseconds; 0: none.
    pub fn interval_ms(&self) -> u64 {
        self.0.get().interval_ms
    }

    /// How long a call that is ready now has to wait, in milliseconds. The caller waits; others line up behind it.
    pub fn reserve(&self, now: Timestamp) -> u64 {
        let mut state = self.0.get();
        // A clock that was set back must not hold anything for as long.
        let longest_ms = state.interval_ms * LINED_UP_MAX + if state.refusals > 0 { INTERVAL_MS_MAX * 2 } else { 0 };
        let begins = if state.next_at.millis_since(now) > longest_ms { now } else { state.next_at.max(now) };
        state.since.get_or_insert(begins);
        state.next_at = begins.plus_millis(millis(state.interval_ms));
        self.0.set(state);
        begins.millis_since(now)
    }

    /// B2 refused a call as too many: none begins for `wait_ms`.
    pub fn refused(&self, now: Timestamp, wait_ms: u64) {
        let mut state = self.0.get();
        if state.refusals == 0 {
            state.first_refused_at = now;
        }
        (state.refusals, state.refused_at) = (state.refusals.saturating_add(1), Some(now));
        state.next_at = state.next_at.max(now.plus_millis(millis(wait_ms)));
        self.0.set(state);
    }

    /// B2 answered a call.
    pub fn granted(&self, now: Timestamp) {
        let mut state = self.0.get();
        if state.refusals > 0 {
            let (since, granted) = (state.since.unwrap_or(now), state.granted.max(1));
            let called_ms = (state.first_refused_at.millis_since(since) / granted).max(state.interval_ms);
            let doublings = if state.refusals == 1 { 0 } else { state.refusals.min(DOUBLINGS_MAX) };
            let more_ms = called_ms.max(INTERVAL_MS_MIN).saturating_mul(1 << doublings);
            let granted_ms = now.millis_since(since) / granted;
            let most_ms = granted_ms.saturating_add(granted_ms / 4);
            state.interval_ms = more_ms.min(most_ms).clamp(INTERVAL_MS_MIN, INTERVAL_MS_MAX);
            state.next_at = now.plus_millis(millis(state.interval_ms));
            (state.refusals, state.since, state.granted, state.has_learned) = (0, Some(now), 1, true);
        } else {
            state.granted += 1;
            let is_calm = state.refused_at.is_none_or(|at| now.millis_since(at) > CALM_CALLS * state.interval_ms);
            let part = if is_calm { SHRINKS_CALM } else { SHRINKS };
            let shorter = state.interval_ms - state.interval_ms.div_ceil(part);
            state.has_learned |= state.interval_ms > 0;
            state.interval_ms = if shorter < INTERVAL_MS_MIN { 0 } else { shorter };
        }
        self.0.set(state);
    }

    /// What is to be stored in place of `before`; `None`: it holds as it is, or nearly.
    pub fn learned(&self, before: Option<Pace>, now: Timestamp) -> Option<Pace> {
        let State { interval_ms, refusals, has_learned, .. } = self.0.get();
        let known_ms = before.map_or(0, |pace| pace.interval_ms);
        let is_near = interval_ms.abs_diff(known_ms) <= known_ms / 4;
        (has_learned && refusals == 0 && !is_near).then_some(Pace { interval_ms, noted_at: now })
    }
}

fn millis(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A store that grants `calls` calls in each window, asked by a caller that backs off as [`crate::retry`] does.
    fn pages_in(ms: i64, window_ms: i64, calls: u64, pacer: &Pacer) -> (u64, u64) {
        let (mut now, mut window, mut left) = (0_i64, 0, calls);
        let (mut pages, mut refusals, mut wait_ms) = (0, 0, 500);
        while now < ms {
            now += pacer.reserve(Timestamp::from_millis(now)) as i64;
            if now / window_ms != window {
                (window, left) = (now / window_ms, calls);
            }
            now += 40;
            let at = Timestamp::from_millis(now);
            if left == 0 {
                refusals += 1;
                pacer.refused(at, wait_ms);
                wait_ms = (wait_ms * 4).min(32_000);
            } else {
                (left, wait_ms) = (left - 1, 500);
                pages += 1;
                pacer.granted(at);
            }
        }
        (pages, refusals)
    }

    #[test]
    fn without_a_refusal_nothing_waits_and_nothing_is_learned() {
        let pacer = Pacer::new(None, Timestamp::from_millis(0));
        assert_eq!(pages_in(40_000, 1_000, 1_000, &pacer), (1_000, 0));
        assert_eq!(pacer.learned(None, Timestamp::from_millis(40_000)), None);
    }

    #[test]
    fn twenty_calls_a_minute_are_found_out() {
        let pacer = Pacer::new(None, Timestamp::from_millis(0));
        let (pages, _) = pages_in(300_000, 60_000, 20, &pacer);
        assert!(pages >= 80, "{pages} pages in five minutes, of 100");
        let pace = pacer.learned(None, Timestamp::from_millis(300_000)).unwrap();
        assert!((1_000..=6_000).contains(&pace.interval_ms), "{pace:?}");
        // The next job knows it: hardly any call is refused.
        let pacer = Pacer::new(Some(pace), Timestamp::from_millis(300_000));
        let (pages, refusals) = pages_in(300_000, 60_000, 20, &pacer);
        assert!(pages >= 70 && refusals <= 20, "{pages} pages, {refusals} refusals");
    }

    #[test]
    fn two_calls_a_second_are_found_out() {
        let pacer = Pacer::new(None, Timestamp::from_millis(0));
        let (pages, refusals) = pages_in(60_000, 1_000, 2, &pacer);
        assert!(pages >= 70 && refusals <= pages, "{pages} pages, {refusals} refusals");
    }

    #[test]
    fn a_server_that_refuses_one_call_in_twenty_at_random_is_hardly_slowed_down() {
        let pacer = Pacer::new(None, Timestamp::from_millis(0));
        let (mut now, mut pages, mut wait_ms, mut draw) = (0_i64, 0, 500, 7_u64);
        while now < 60_000 {
            now += pacer.reserve(Timestamp::from_millis(now)) as i64 + 40;
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if (draw >> 33).is_multiple_of(20) {
                pacer.refused(Timestamp::from_millis(now), wait_ms);
                wait_ms *= 4;
            } else {
                pacer.granted(Timestamp::from_millis(now));
                (pages, wait_ms) = (pages + 1, 500);
            }
        }
        assert!(pages > 300, "{pages} pages in a minute");
    }

    #[test]
    fn what_was_learned_long_ago_is_forgotten_and_calm_times_end_it() {
        let pace = Pace { interval_ms: 4_000, noted_at: Timestamp::from_millis(0) };
        let later = Timestamp::from_millis(millis(PACE_MAX_AGE_MS));
        let pacer = Pacer::new(Some(pace), later);
        assert_eq!((pacer.reserve(later), pacer.reserve(later)), (0, 0));
        let pacer = Pacer::new(Some(pace), Timestamp::from_millis(1));
        let (pages, refusals) = pages_in(600_000, 1, 1_000, &pacer);
        assert!(refusals == 0 && pages > 5_000, "{pages}");
        assert_eq!(pacer.learned(Some(pace), later), Some(Pace { interval_ms: 0, noted_at: later }));
    }

    #[test]
    fn a_clock_that_is_set_back_holds_nothing() {
        let (now, before) = (Timestamp::from_millis(900_000), Timestamp::from_millis(0));
        let pacer = Pacer::new(None, now);
        assert_eq!((pacer.reserve(now), pacer.reserve(before)), (0, 0));
        let pacer = Pacer::new(Some(Pace { interval_ms: 100, noted_at: now }), now);
        assert_eq!((pacer.reserve(now), pacer.reserve(now), pacer.reserve(before)), (0, 100, 0));
        pacer.refused(now, 1_000);
        assert_eq!(pacer.reserve(before), 0);
    }

    #[test]
    fn calls_side_by_side_line_up() {
        let now = Timestamp::from_millis(5);
        let pacer = Pacer::new(Some(Pace { interval_ms: 100, noted_at: now }), now);
        assert_eq!([(); 3].map(|()| pacer.reserve(now)), [0, 100, 200]);
        pacer.refused(now, 1_000);
        assert_eq!(pacer.reserve(now), 1_000);
    }

    proptest! {
        #[test]
        fn a_wait_is_never_longer_than_what_lines_up(
            answers in proptest::collection::vec((0..3_u8, 0..90_000_i64), 0..200),
        ) {
            let pacer = Pacer::new(None, Timestamp::from_millis(0));
            let mut now = 0;
            for (answer, after) in answers {
                now += after;
                let at = Timestamp::from_millis(now);
                match answer {
                    0 => {
                        let wait = pacer.reserve(at);
                        prop_assert!(wait <= INTERVAL_MS_MAX * 200 + 60_000);
                        now += wait as i64;
                    }
                    1 => pacer.granted(at),
                    _ => pacer.refused(at, 60_000),
                }
                prop_assert!(pacer.0.get().interval_ms <= INTERVAL_MS_MAX);
            }
        }
    }
}
