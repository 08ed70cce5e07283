//! b2sync as a WASI component: the world `embed` of the WIT package `b2sync:embed` in `wit/`.
//!
//! Thin adapters, and no decisions: [`wasi`] gives the core an HTTP client, a clock and entropy from WASI 0.2, [`host`]
//! gives it stores from what the host implements, [`convert`] turns the core's values into those of the interface, and
//! [`step`] runs a step with them. Nothing is kept between calls, and nothing here panics: a panic would be a trap that
//! takes the instance with it.

#![deny(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bindings;
mod convert;
mod host;
mod step;
mod wasi;

use b2sync_core::{
    Error,
    feed::{self, read::PAGE_CHANGES_MAX},
    filter::{Filter, FilterSpec},
    source_path::SourcePath,
};

use bindings::exports::b2sync::embed::sync as wit;
use host::Host;
use wstd::runtime::block_on;

/// The component: what the world `embed` exports.
struct Component;

impl wit::Guest for Component {
    fn parse_source_path(text: String) -> Result<wit::SourcePath, wit::Error> {
        Ok(SourcePath::parse(&text).map_err(wit::Error::from)?.into())
    }

    fn decide_filter(
        filters: wit::FilterSpec,
        source_path: String,
        entry: wit::Entry,
    ) -> Result<wit::Verdict, wit::Error> {
        let filter = SourcePath::parse(&source_path)
            .and_then(|path| Filter::compile(&FilterSpec::from(filters), &path))
            .map_err(|error: Error| wit::Error::from(error))?;
        Ok(filter.explain(&entry.into()).into())
    }

    fn run_step(job: wit::JobOrder) -> wit::StepResult {
        block_on(step::run(job))
    }

    fn changes(sync_id: String, after: u64, limit: u32) -> Result<wit::ChangePage, wit::Error> {
        let host = Host { sync_id: &sync_id };
        let limit = usize::try_from(limit).unwrap_or(PAGE_CHANGES_MAX).min(PAGE_CHANGES_MAX);
        let page = block_on(feed::read_changes(&host, &host, &sync_id, Some(after), limit));
        Ok(page.map_err(wit::Error::from)?.into())
    }

    fn forget(sync_id: String, up_to: u64) -> Result<u64, wit::Error> {
        let host = Host { sync_id: &sync_id };
        block_on(feed::forget(&host, &host, up_to)).map_err(Into::into)
    }
}
