//! The one place that tries again.
//!
//! Whether an error is worth another try is decided where the error is made ([`crate::Retry`]); how long to wait is
//! decided here by [`plan_retry`], a pure function; [`with_retry`] is the only loop. The wait is exponential backoff
//! with full jitter (["Exponential Backoff And
//! Jitter"](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/)), so that many syncs that failed
//! together do not return together. A server that asks for a wait gets it, or is left alone until a later run.

use crate::{
    entropy::Entropy,
    error::{Error, ErrorKind, Retry},
    time::{Clock, Timestamp},
};

/// How often to try, and how long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often a call is made at most, the first time included. At least 1.
    pub attempts_max: u32,
    /// The longest wait before the second attempt, in milliseconds. It doubles with each attempt.
    pub backoff_base_ms: u64,
    /// The longest wait of all, in milliseconds.
    pub backoff_cap_ms: u64,
    /// The longest `Retry-After` that is waited for, in milliseconds. A longer one ends the call at once: a later run
    /// is the better place to wait.
    pub retry_after_max_ms: u64,
    /// No attempt begins, and none is waited for, at this time or later; `None`: whenever.
    pub deadline: Option<Timestamp>,
}

/// The waits after a call that was refused as too many, in milliseconds: longer than other waits, because a limit on
/// calls is mostly one of calls a minute. After the last, the call is given up.
const REFUSED_WAITS_MS: [u64; 5] = [500, 2_000, 8_000, 16_000, 32_000];

impl RetryPolicy {
    /// Five attempts, at most about 4 s of backoff in all: short against a step's budget, long against a busy pod.
    pub const DEFAULT: Self = Self {
        attempts_max: 5,
        backoff_base_ms: 250,
        backoff_cap_ms: 8_000,
        retry_after_max_ms: 20_000,
        deadline: None,
    };
    /// No second attempt.
    pub const NONE: Self = Self { attempts_max: 1, ..Self::DEFAULT };
    /// The most attempts of [`Self::DEFAULT`], also after a refusal as too many.
    pub const ATTEMPTS_MAX: u32 = REFUSED_WAITS_MS.len() as u32 + 1;

    /// Nothing is tried from `deadline` on.
    #[must_use]
    pub const fn until(self, deadline: Timestamp) -> Self {
        Self { deadline: Some(deadline), ..self }
    }
}

impl RetryPolicy {
    /// Whether an attempt may begin after that wait.
    pub(crate) fn is_in_time(&self, now: Timestamp, wait_ms: u64) -> bool {
        let begins = now.plus_millis(i64::try_from(wait_ms).unwrap_or(i64::MAX));
        self.deadline.is_none_or(|deadline| begins < deadline)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryPlan {
    /// Try again after this many milliseconds.
    Wait(u64),
    /// Do not; the error's retry behaviour is now this.
    GiveUp(Retry),
}

/// Decides what to do after the attempt number `attempt` (from 1) failed with `error`.
///
/// ```
/// use b2sync_core::{Error, ErrorKind, Retry, retry::{RetryPlan, RetryPolicy, plan_retry}};
/// # struct Middle;
/// # impl b2sync_core::entropy::Entropy for Middle {
/// #     fn fill(&self, bytes: &mut [u8]) { bytes.fill(0) }
/// # }
/// let busy = Error::new(ErrorKind::ServiceUnavailable, "B2 is busy.", "Wait.").with_retry(Retry::Temporary);
/// let asked = busy.clone().with_retry_after_ms(Some(2_000));
/// let policy = RetryPolicy::DEFAULT;
/// assert_eq!(plan_retry(&policy, 1, &asked, &Middle), RetryPlan::Wait(2_000));
/// assert_eq!(plan_retry(&policy, policy.attempts_max, &busy, &Middle), RetryPlan::GiveUp(Retry::Exhausted));
/// ```
pub fn plan_retry(policy: &RetryPolicy, attempt: u32, error: &Error, entropy: &impl Entropy) -> RetryPlan {
    if error.retry() != Retry::Temporary {
        return RetryPlan::GiveUp(error.retry());
    }
    if error.kind() == ErrorKind::RateLimited && policy.attempts_max >= RetryPolicy::DEFAULT.attempts_max {
        return plan_refused(policy, attempt, error, entropy);
    }
    if attempt >= policy.attempts_max {
        return RetryPlan::GiveUp(Retry::Exhausted);
    }
    let doublings = attempt.saturating_sub(1).min(32);
    let longest = policy.backoff_base_ms.saturating_mul(1_u64 << doublings).min(policy.backoff_cap_ms);
    match error.retry_after_ms() {
        Some(asked) if asked > policy.retry_after_max_ms => RetryPlan::GiveUp(Retry::Exhausted),
        // Never sooner than asked, and not all at the same moment after it.
        Some(asked) => RetryPlan::Wait(asked.saturating_add(entropy.below(policy.backoff_base_ms.saturating_add(1)))),
        None => RetryPlan::Wait(entropy.below(longest.saturating_add(1))),
    }
}

/// After a refusal as too many. What `Retry-After` says may be too short: then the waits grow all the same.
fn plan_refused(policy: &RetryPolicy, attempt: u32, error: &Error, entropy: &impl Entropy) -> RetryPlan {
    let wait = usize::try_from(attempt).ok().and_then(|attempt| REFUSED_WAITS_MS.get(attempt.saturating_sub(1)));
    let asked = error.retry_after_ms().unwrap_or(0);
    match wait {
        Some(wait) if asked <= policy.retry_after_max_ms.saturating_mul(3) => {
            RetryPlan::Wait(asked.max(*wait).saturating_add(entropy.below(*wait / 4 + 1)))
        }
        _ => RetryPlan::GiveUp(Retry::Exhausted),
    }
}

/// Calls `call` with the number of the attempt, from 1, until it succeeds or [`plan_retry`] gives up.
///
/// # Errors
/// The last error, with the number of attempts; [`Retry::Exhausted`] in place of [`Retry::Temporary`].
pub async fn with_retry<T>(
    policy: &RetryPolicy,
    clock: &impl Clock,
    entropy: &impl Entropy,
    mut call: impl AsyncFnMut(u32) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut attempt = 1;
    loop {
        let error = match call(attempt).await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        match plan_retry(policy, attempt, &error, entropy) {
            RetryPlan::Wait(millis) if policy.is_in_time(clock.now(), millis) => clock.sleep(millis).await,
            RetryPlan::Wait(_) => return Err(error.with_retry(Retry::Exhausted).with_attempts(attempt)),
            RetryPlan::GiveUp(retry) => return Err(error.with_retry(retry).with_attempts(attempt)),
        }
        attempt = attempt.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::ErrorKind,
        testing::{Seeded, VirtualClock},
    };
    use proptest::prelude::*;
    use std::cell::{Cell, RefCell};

    fn busy(retry_after_ms: Option<u64>) -> Error {
        Error::new(ErrorKind::ServiceUnavailable, "B2 is busy.", "Wait.")
            .with_retry(Retry::Temporary)
            .with_retry_after_ms(retry_after_ms)
    }

    fn run(errors: Vec<Error>) -> (Result<u32, Error>, Vec<u64>) {
        let clock = VirtualClock::at("2024-01-01T00:00:00Z");
        let entropy = Seeded(Cell::new(1));
        let errors = RefCell::new(errors.into_iter());
        let result = pollster::block_on(with_retry(&RetryPolicy::DEFAULT, &clock, &entropy, async |attempt| {
            errors.borrow_mut().next().map_or(Ok(attempt), Err)
        }));
        (result, clock.sleeps.into_inner())
    }

    #[test]
    fn the_first_success_ends_it() {
        assert_eq!(run(vec![]), (Ok(1), vec![]));
        let (result, sleeps) = run(vec![busy(None), busy(None)]);
        assert_eq!((result, sleeps.len()), (Ok(3), 2));
    }

    #[test]
    fn a_permanent_error_is_not_tried_again() {
        let error = Error::new(ErrorKind::BucketNotFound, "No.", "Look.");
        assert_eq!(run(vec![error.clone()]), (Err(error), vec![]));
    }

    #[test]
    fn an_exhausted_error_says_how_often_it_was_tried() {
        let (result, sleeps) = run(vec![busy(None); 9]);
        let error = result.unwrap_err();
        assert_eq!((error.retry(), error.attempts()), (Retry::Exhausted, RetryPolicy::DEFAULT.attempts_max));
        assert_eq!(sleeps.len(), 4);
    }

    #[test]
    fn too_long_a_retry_after_is_left_to_the_scheduler() {
        let (result, sleeps) = run(vec![busy(Some(20_001)); 9]);
        let error = result.unwrap_err();
        assert_eq!((error.retry(), error.attempts(), error.retry_after_ms()), (Retry::Exhausted, 1, Some(20_001)));
        assert!(sleeps.is_empty());
        let (result, sleeps) = run(vec![busy(Some(20_000))]);
        assert_eq!(result, Ok(2));
        assert!((20_000..=20_250).contains(&sleeps[0]));
    }

    fn refused(retry_after_ms: Option<u64>) -> Error {
        Error::new(ErrorKind::RateLimited, "B2 asks for fewer requests.", "Wait.")
            .with_retry(Retry::Temporary)
            .with_retry_after_ms(retry_after_ms)
    }

    #[test]
    fn a_limit_of_calls_a_minute_is_outlasted() {
        // Also where the server says a second and means a minute.
        for asked in [None, Some(1_000)] {
            let (result, sleeps) = run(vec![refused(asked); 9]);
            assert_eq!(result.unwrap_err().attempts(), RetryPolicy::ATTEMPTS_MAX);
            let total: u64 = sleeps.iter().sum();
            assert!((58_500..=75_000).contains(&total), "{sleeps:?}");
        }
        let (result, sleeps) = run(vec![refused(Some(60_000))]);
        assert_eq!((result, sleeps.len()), (Ok(2), 1));
        assert!(run(vec![refused(Some(60_001))]).1.is_empty());
    }

    #[test]
    fn nothing_is_tried_after_the_deadline() {
        let clock = VirtualClock::at("2024-01-01T00:00:00Z");
        let policy = RetryPolicy { attempts_max: 99, ..RetryPolicy::DEFAULT }.until(clock.now().plus_millis(5_000));
        let tried = Cell::new(0);
        let result: Result<(), _> =
            pollster::block_on(with_retry(&policy, &clock, &Seeded(Cell::new(3)), async |_| {
                tried.set(tried.get() + 1);
                Err(busy(Some(2_000)))
            }));
        let error = result.unwrap_err();
        assert_eq!((error.retry(), error.attempts(), tried.get()), (Retry::Exhausted, 3, 3));
        assert!(clock.sleeps.borrow().iter().sum::<u64>() < 5_000);
    }

    proptest! {
        #[test]
        fn a_wait_stays_in_its_bounds(
            attempt in 1_u32..200, attempts_max in 0_u32..200, base in any::<u64>(), cap in any::<u64>(),
            asked in proptest::option::of(any::<u64>()), seed in any::<u64>(),
        ) {
            let policy = RetryPolicy {
                attempts_max,
                backoff_base_ms: base,
                backoff_cap_ms: cap,
                retry_after_max_ms: 1_000,
                deadline: None,
            };
            match plan_retry(&policy, attempt, &busy(asked), &Seeded(Cell::new(seed))) {
                RetryPlan::GiveUp(retry) => {
                    prop_assert_eq!(retry, Retry::Exhausted);
                    prop_assert!(attempt >= attempts_max || asked.is_some_and(|asked| asked > 1_000));
                }
                RetryPlan::Wait(millis) => match asked {
                    Some(asked) => prop_assert!(millis >= asked && millis - asked <= base),
                    None => prop_assert!(millis <= cap),
                },
            }
        }
    }
}
