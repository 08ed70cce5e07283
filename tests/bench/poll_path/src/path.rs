//! The poll path: from the bytes of a page to the knowledge that nothing changed.
//!
//! It is the engine that polls, whole steps of it: a [`Source`] parses pages that are in memory, and
//! [`Engine::step`] filters, cuts, encodes, hashes and compares them with a snapshot in memory. What is left out is the
//! exchange of requests, and the stores of a home.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use b2sync_core::engine::listing::source::{Page, PageStart, Source};
use b2sync_core::engine::meter::Budget;
use b2sync_core::engine::{Engine, JobSpec, Outcome, StepReport};
use b2sync_core::error::Error;
use b2sync_core::filter::{Filter, FilterSpec};
use b2sync_core::snapshot::cut::Cut;
use b2sync_core::source_path::SourcePath;
use b2sync_core::store::{MemoryBlobs, MemoryDocuments};
use b2sync_core::time::{Clock, Timestamp};
use b2sync_core::{b2::list::parse_list_page, cost::SourceCost};

use crate::listing::{Listing, PAGE_KEYS, parse_token};

/// Those of the README's example.
pub fn filters() -> FilterSpec {
    FilterSpec {
        include_patterns: ["*.mp4", "*.mov", "*.jpg"].map(str::to_owned).to_vec(),
        exclude_patterns: ["*_thumbnail.*", "podcast/**"].map(str::to_owned).to_vec(),
        ..FilterSpec::default()
    }
}

/// A listing whose answers are in memory.
struct InMemory<'a>(&'a [String]);

impl Source for InMemory<'_> {
    async fn page(&self, start: PageStart<'_>) -> Result<Page, Error> {
        let number = match start {
            PageStart::First => Some(0),
            PageStart::Token(token) => parse_token(token),
            PageStart::After(_) => None,
        };
        let body = number.and_then(|number| self.0.get(usize::try_from(number / PAGE_KEYS).ok()?));
        let body = body.ok_or_else(|| Error::internal(format!("There is no page at {start:?}.")))?;
        let page = parse_list_page(body.as_bytes())?;
        Ok(Page { entries: page.entries, truncated: page.truncated, next_token: page.next_token })
    }

    fn cost(&self) -> SourceCost {
        SourceCost::default()
    }
}

/// It stands still.
struct NoTime;

impl Clock for NoTime {
    fn now(&self) -> Timestamp {
        Timestamp::default()
    }

    async fn sleep(&self, _millis: u64) {}
}

/// Pages in memory, and the snapshot that a poll of them finds unchanged.
#[derive(Debug)]
pub struct PollBench {
    pages: Vec<String>,
    filter: Filter,
    blobs: MemoryBlobs,
    documents: MemoryDocuments,
    matched: u64,
}

impl PollBench {
    /// Generates this many pages and syncs what passes these filters once.
    ///
    /// # Errors
    /// The patterns do not compile, which would be a defect; those of [`Engine::step`].
    pub fn prepare(pages: u32, filters: &FilterSpec) -> Result<Self, Error> {
        let listing = Listing::new(u64::from(pages) * PAGE_KEYS);
        let pages: Vec<String> = (0..u64::from(pages)).map(|page| listing.page(page * PAGE_KEYS)).collect();
        let filter = Filter::compile(filters, &SourcePath::parse("b2://bench-bucket/")?)?;
        let (blobs, documents) = (MemoryBlobs::default(), MemoryDocuments::default());
        let mut bench = Self { pages, filter, blobs, documents, matched: 0 };
        bench.matched = bench.job("job_first")?.counts.matched;
        Ok(bench)
    }

    /// The pages.
    pub fn pages(&self) -> &[String] {
        &self.pages
    }

    /// How many of their keys pass the filters.
    pub fn matched(&self) -> u64 {
        self.matched
    }

    /// Polls all pages once; how many keys that were.
    ///
    /// # Errors
    /// Those of [`Engine::step`]; something differs from the snapshot.
    pub fn poll(&self) -> Result<u64, Error> {
        let report = self.job("job_poll")?;
        match (report.counts.changes(), report.cost.state_writes) {
            (0, 0) => Ok(report.counts.listed),
            (changes, writes) => Err(Error::internal(format!(
                "A poll of what is known found {changes} changes and wrote {writes} times."
            ))),
        }
    }

    /// A whole job.
    fn job(&self, job_id: &str) -> Result<StepReport, Error> {
        let source = InMemory(&self.pages);
        let engine = Engine { source: &source, blobs: &self.blobs, documents: &self.documents, clock: &NoTime };
        let spec = JobSpec::new(job_id, Cut::new([7; 16]), &self.filter);
        // Nothing here ever waits.
        let step = pin!(engine.step(&spec, &Budget::UNLIMITED));
        match step.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(report) => match &report.outcome {
                Ok(Outcome::Done) => Ok(report),
                Ok(Outcome::Continue) => Err(Error::internal("A step without limits did not end its job.")),
                Err(error) => Err(error.clone()),
            },
            Poll::Pending => Err(Error::internal("A step waits for something that is in memory.")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_finds_what_changed_and_nothing_else() {
        let bench = PollBench::prepare(12, &filters()).unwrap();
        assert!(bench.blobs.names().iter().filter(|name| name.starts_with("segment/")).count() > 1);
        assert_eq!(bench.poll().unwrap(), 12_000);
        let mut changed = PollBench::prepare(12, &filters()).unwrap();
        changed.pages[7] = changed.pages[7].replace("<Size>1", "<Size>2");
        assert!(changed.poll().is_err());
    }
}
