//! How long functions of this process take: measured by criterion, by CPU time.

use std::fs;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, SamplingMode};
use nix::sys::time::TimeSpec;
use nix::time::ClockId;
use serde::Deserialize;
use tempfile::TempDir;

use crate::{Options, Result};

/// How often criterion takes samples of one function, and how long.
struct Sampling {
    samples: u32,
    sample: Duration,
    warm_up: Duration,
}

/// Criterion wants ten samples at least, and in each of them more than one round of the slowest function.
const QUICK: Sampling =
    Sampling { samples: 10, sample: Duration::from_millis(60), warm_up: Duration::from_millis(100) };
const FULL: Sampling =
    Sampling { samples: 15, sample: Duration::from_millis(300), warm_up: Duration::from_millis(300) };

/// Of so few samples more resamples say no more, and only take time.
const RESAMPLES: usize = 10_000;

/// What stands before the names of functions in criterion's lines.
const GROUP: &str = "page";

/// Measures functions that take the same pages in each round.
pub(crate) struct Timer {
    criterion: Criterion<CpuTime>,
    /// Criterion tells its estimates to files only.
    folder: TempDir,
}

impl Timer {
    pub(crate) fn new(options: &Options, pages: usize) -> Result<Self> {
        let Sampling { samples, sample, warm_up } = if options.quick { QUICK } else { FULL };
        let folder = TempDir::with_prefix("b2sync-bench-")?;
        let criterion = Criterion::default()
            .with_measurement(CpuTime { pages: pages as f64 })
            .without_plots()
            .output_directory(folder.path())
            .sample_size(samples as usize)
            .measurement_time(sample * samples)
            .warm_up_time(warm_up)
            .nresamples(RESAMPLES);
        Ok(Self { criterion, folder })
    }

    /// The median CPU time of a page, in microseconds, when `work` takes all pages and says whether it went well.
    pub(crate) fn page_us(&mut self, name: &str, mut work: impl FnMut() -> bool) -> Result<f64> {
        // Before criterion prints anything: what is always wrong has no time.
        let mut right = work();
        if right {
            let mut group = self.criterion.benchmark_group(GROUP);
            // The slowest functions have few rounds in a sample: too few for samples that grow by one length.
            group.sampling_mode(SamplingMode::Flat);
            group.bench_function(name, |bencher| bencher.iter(|| right &= work()));
            group.finish();
        }
        if !right {
            return Err("it did not see what is there".into());
        }
        let file = self.folder.path().join(GROUP).join(name).join("new/estimates.json");
        let estimates: Estimates = serde_json::from_slice(&fs::read(file)?)?;
        Ok(estimates.median.point_estimate / 1e3)
    }
}

/// What is read of a file of criterion's.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

/// User and system time of this process, a page: others may have the core in between.
struct CpuTime {
    pages: f64,
}

impl Measurement for CpuTime {
    type Intermediate = Option<TimeSpec>;
    type Value = Duration;

    fn start(&self) -> Self::Intermediate {
        ClockId::CLOCK_PROCESS_CPUTIME_ID.now().ok()
    }

    fn end(&self, started: Self::Intermediate) -> Duration {
        // Without a clock no time has passed, and of that criterion makes no estimates.
        self.start().zip(started).map_or(Duration::ZERO, |(now, started)| (now - started).into())
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64 / self.pages
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        // They are nanoseconds as well.
        WallTime.formatter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_see_what_is_there_has_no_time() -> Result<()> {
        let mut timer = Timer::new(&Options { quick: true, ..Options::default() }, 1)?;
        assert!(timer.page_us("always", || false).is_err());
        let mut rounds = 0;
        let once = timer.page_us("once", || {
            rounds += 1;
            rounds != 100
        });
        assert!(rounds > 100 && once.is_err(), "{rounds} rounds");
        assert!(timer.page_us("never", || true)? > 0.0);
        Ok(())
    }
}
