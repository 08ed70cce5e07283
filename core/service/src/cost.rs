//! What jobs cost: prices, what is forecast from one job, and how a cap on class C calls spaces polls.
//!
//! Pure functions over [`JobCost`]. Money is counted in whole *nanodollars*, so that no sum rounds.
//!
//! It deliberately does not know what else an account is used for, and rounds no bill: B2's free calls are those of the
//! whole account, each day from midnight UTC, and other programs use them as well.

use b2sync_core::{job::JobCost, time::Timestamp};

/// Nanodollars in a dollar.
pub const NANODOLLARS: u64 = 1_000_000_000;
/// Seconds in a day.
pub const DAY_S: u64 = 86_400;

/// Calls of class B that B2 charges nothing for, an account and a day.
/// Source: <https://www.backblaze.com/cloud-storage/transaction-pricing>, read 2026-11.
pub const CLASS_B_FREE_PER_DAY: u64 = 2_500;
/// Calls of class C that B2 charges nothing for, an account and a day. Source: as above.
pub const CLASS_C_FREE_PER_DAY: u64 = 2_500;
/// A call of class B beyond: $0.004 for 10,000. Source: as above.
pub const CLASS_B_NANODOLLARS: u64 = 400;
/// A call of class C beyond: $0.004 for 1,000. Source: as above.
pub const CLASS_C_NANODOLLARS: u64 = 4_000;
/// A read of Workers KV beyond what a plan includes: $0.50 for a million.
/// Source: <https://developers.cloudflare.com/kv/platform/pricing/>, read 2026-11.
pub const KV_READ_NANODOLLARS: u64 = 500;
/// A write, deletion or listing of Workers KV beyond what a plan includes: $5 for a million. Source: as above.
pub const KV_WRITE_NANODOLLARS: u64 = 5_000;

/// What B2 charges for a job at its list prices, in nanodollars: as if the account's free calls of the day were used
/// up. So it is the most that the job can have added to the bill; while free calls are left, it added less, or nothing.
///
/// ```
/// use b2sync_core::job::JobCost;
/// use b2sync_service::cost::{NANODOLLARS, b2_nanodollars};
/// let listing_a_million_files = JobCost { class_c: 1_000, ..JobCost::default() };
/// assert_eq!(b2_nanodollars(&listing_a_million_files), 4 * NANODOLLARS / 1_000);
/// ```
pub const fn b2_nanodollars(cost: &JobCost) -> u64 {
    let class_b = cost.class_b.saturating_mul(CLASS_B_NANODOLLARS);
    class_b.saturating_add(cost.class_c.saturating_mul(CLASS_C_NANODOLLARS))
}

/// The most that Cloudflare charges for a job's snapshot, in nanodollars: as if each read, write and deletion were one
/// of Workers KV beyond what the plan includes. Those of documents are rows of a Durable Object, which cost less.
///
/// It leaves out what is not the snapshot: the rows of coordinator, registry and catalogue, the job's record in the
/// history (one write, of a job that is kept), what is stored, and the time and the requests of the objects.
pub const fn state_nanodollars(cost: &JobCost) -> u64 {
    let reads = cost.state_reads.saturating_mul(KV_READ_NANODOLLARS);
    let writes = cost.state_writes.saturating_add(cost.state_deletions);
    reads.saturating_add(writes.saturating_mul(KV_WRITE_NANODOLLARS))
}

/// What a day of equal jobs comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// Seconds from the start of one job to the start of the next.
    pub interval_s: u64,
    /// Calls, bytes, reads, writes and steps of all jobs; fractions are rounded up.
    pub cost: JobCost,
    /// What B2 charges for the calls beyond its free ones, in nanodollars, if nothing else uses the account.
    pub b2_nanodollars: u64,
    /// [`state_nanodollars`] of all jobs.
    pub state_nanodollars: u64,
}

/// A day of jobs like this one, one every `interval_s` seconds (0 counts as 1).
///
/// ```
/// use b2sync_core::job::JobCost;
/// use b2sync_service::cost::forecast_per_day;
/// // A million files every hour: 24,000 class C calls, of which 21,500 cost something.
/// let day = forecast_per_day(&JobCost { class_c: 1_000, ..JobCost::default() }, 3_600);
/// assert_eq!((day.cost.class_c, day.b2_nanodollars), (24_000, 86_000_000));
/// ```
pub fn forecast_per_day(job: &JobCost, interval_s: u64) -> Forecast {
    let interval_s = interval_s.max(1);
    let a_day = |count: u64| ratio(count, DAY_S, interval_s);
    let cost = JobCost {
        class_b: a_day(job.class_b),
        class_c: a_day(job.class_c),
        bytes_received: a_day(job.bytes_received),
        state_reads: a_day(job.state_reads),
        state_writes: a_day(job.state_writes),
        state_deletions: a_day(job.state_deletions),
        steps: a_day(job.steps),
    };
    let charged = JobCost {
        class_b: cost.class_b.saturating_sub(CLASS_B_FREE_PER_DAY),
        class_c: cost.class_c.saturating_sub(CLASS_C_FREE_PER_DAY),
        ..cost
    };
    Forecast { interval_s, cost, b2_nanodollars: b2_nanodollars(&charged), state_nanodollars: state_nanodollars(&cost) }
}

/// The interval that keeps jobs that make `class_c` calls within `cap` of them a day, in seconds; `None` when
/// `interval_s` does already. It may be longer than a day. A cap of 0 counts as 1.
///
/// ```
/// use b2sync_service::cost::stretched_interval;
/// assert_eq!(stretched_interval(300, 10, 2_880), None);
/// assert_eq!(stretched_interval(300, 10, 1_000), Some(864));
/// ```
pub fn stretched_interval(interval_s: u64, class_c_per_job: u64, cap: u64) -> Option<u64> {
    Some(ratio(class_c_per_job, DAY_S, cap.max(1))).filter(|needed_s| *needed_s > interval_s)
}

/// A poll that a cap puts off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutOff {
    /// Not before this.
    pub until: Timestamp,
    /// [`stretched_interval`] of the job that decides, in seconds.
    pub interval_s: u64,
    /// The class C calls of that job.
    pub class_c: u64,
}

/// When the next poll may begin after `jobs` (when each began, and its class C calls, however it ended, and why ever it
/// was started): each of them reserves its calls' share of a day from its start on. `None` when no job reserves more
/// than the interval.
///
/// So the jobs that begin by themselves within any 24 hours make at most `cap` calls and those of one more job. Jobs
/// that a user starts are not held back; they put off the next poll.
pub fn put_off(interval_s: u64, jobs: impl Iterator<Item = (Timestamp, u64)>, cap: u64) -> Option<PutOff> {
    let reserved = jobs.filter_map(|(start, class_c)| {
        let interval_s = stretched_interval(interval_s, class_c, cap)?;
        let millis = i64::try_from(interval_s.saturating_mul(1_000)).unwrap_or(i64::MAX);
        Some(PutOff { until: start.plus_millis(millis), interval_s, class_c })
    });
    reserved.max_by_key(|it| it.until)
}

/// `count * times / per`, rounded up, or as much as fits. `per` is not 0.
fn ratio(count: u64, times: u64, per: u64) -> u64 {
    let exact = (u128::from(count) * u128::from(times)).div_ceil(u128::from(per.max(1)));
    u64::try_from(exact).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn job(class_c: u64) -> JobCost {
        JobCost { class_c, ..JobCost::default() }
    }

    /// What a day of jobs costs, without the one call a day to authorize.
    #[test]
    fn what_polls_of_buckets_of_several_sizes_cost() {
        for (files, interval_s, calls, dollars) in [
            (10_000_u64, 3_600, 240, 0.0),
            (10_000, 300, 2_880, 0.001_52),
            (1_000_000, 86_400, 1_000, 0.0),
            (1_000_000, 3_600, 24_000, 0.086),
            (1_000_000, 300, 288_000, 1.142),
        ] {
            let day = forecast_per_day(&job(files.div_ceil(1_000)), interval_s);
            assert_eq!(day.cost.class_c, calls);
            assert_eq!(day.b2_nanodollars as f64 / NANODOLLARS as f64, dollars, "{files} every {interval_s} s");
        }
    }

    #[test]
    fn list_prices() {
        let cost = JobCost {
            class_b: 10_000,
            class_c: 1_000,
            state_reads: 2,
            state_writes: 1,
            state_deletions: 2,
            ..JobCost::default()
        };
        assert_eq!(b2_nanodollars(&cost), 8_000_000, "$0.004 and $0.004");
        assert_eq!(state_nanodollars(&cost), 16_000);
        let day = forecast_per_day(&cost, DAY_S);
        assert_eq!((day.cost, day.b2_nanodollars), (cost, 7_500 * CLASS_B_NANODOLLARS));
        let most = JobCost { class_b: u64::MAX, class_c: u64::MAX, state_reads: u64::MAX, ..cost };
        assert_eq!(forecast_per_day(&most, 0).b2_nanodollars, u64::MAX);
    }

    #[test]
    fn every_job_reserves_its_share() {
        let at = |s: i64| Timestamp::from_millis(s * 1_000);
        let jobs = [(at(0), 1_000), (at(600), 1)];
        assert_eq!(
            put_off(300, jobs.into_iter(), 100_000),
            Some(PutOff { until: at(864), interval_s: 864, class_c: 1_000 })
        );
        assert_eq!(put_off(900, jobs.into_iter(), 100_000), None);
        assert_eq!(
            put_off(30, jobs.into_iter(), 864),
            Some(PutOff { until: at(100_000), interval_s: 100_000, class_c: 1_000 })
        );
        assert_eq!(put_off(300, std::iter::empty(), 1), None);
    }

    proptest! {
        #[test]
        fn a_stretched_interval_keeps_the_cap_and_is_no_longer_than_it_must_be(
            interval in 1..=86_400_u64, calls in 0..10_000_000_u64, cap in 1..=10_000_000_u64,
        ) {
            let a_day = |interval: u64| calls as f64 * DAY_S as f64 / interval as f64;
            match stretched_interval(interval, calls, cap) {
                None => prop_assert!(a_day(interval) <= cap as f64 * (1.0 + 1e-9)),
                Some(stretched) => {
                    prop_assert!(stretched > interval && a_day(stretched) <= cap as f64 * (1.0 + 1e-9));
                    prop_assert!(stretched == interval + 1 || a_day(stretched - 1) > cap as f64 * (1.0 - 1e-9));
                }
            }
        }

        #[test]
        fn no_day_has_more_than_the_cap_and_one_job(
            calls in proptest::collection::vec(0..5_000_u64, 1..60), cap in 1..20_000_u64, interval in 30..3_600_u64,
        ) {
            let mut jobs: Vec<(Timestamp, u64)> = Vec::new();
            let mut now = Timestamp::from_millis(0);
            for calls in calls {
                jobs.push((now, calls));
                let next = now.plus_millis(interval as i64 * 1_000);
                now = put_off(interval, jobs.iter().copied(), cap).map_or(next, |it| it.until.max(next));
            }
            for (from, _) in &jobs {
                let end = from.plus_millis(DAY_S as i64 * 1_000);
                let of_day = jobs.iter().filter(|(at, _)| at >= from && *at < end);
                let day: Vec<u64> = of_day.map(|(_, calls)| *calls).collect();
                let (last, before) = day.split_last().unwrap();
                prop_assert!(before.iter().sum::<u64>() <= cap, "{day:?} {last}");
            }
        }

        #[test]
        fn nothing_overflows(a in any::<u64>(), b in any::<u64>(), c in any::<u64>()) {
            let cost = JobCost {
                class_b: a,
                class_c: b,
                bytes_received: c,
                state_reads: a,
                state_writes: b,
                state_deletions: c,
                steps: c,
            };
            forecast_per_day(&cost, c);
            stretched_interval(a, b, c);
            put_off(a, [(Timestamp::from_millis(i64::MAX), b)].into_iter(), c);
        }
    }
}
