//! The native twin: the same job, run by the core itself on the same embedded B2. Every home of b2sync must find the
//! same changes with the same ids as its twin; so they find the same as each other.

use std::sync::Arc;

use b2sync_core::Error;
use b2sync_core::b2::account::{Account, Credentials};
use b2sync_core::b2::client::B2Client;
use b2sync_core::b2::source::B2Source;
use b2sync_core::engine::budget::Budget;
use b2sync_core::engine::{Engine, Order, Outcome, Reconcile, StepReport};
use b2sync_core::filter::{Filter, FilterSpec};
use b2sync_core::retry::RetryPolicy;
use b2sync_core::sink::{Change, MemorySink};
use b2sync_core::snapshot::cut::Cut;
use b2sync_core::source_path::SourcePath;
use b2sync_core::store::{MemoryBlobs, MemoryDocuments};
use b2sync_tests::fake_b2::in_process::InProcess;
use b2sync_tests::fake_b2::server::FakeB2Server;
use b2sync_tests::virtual_world::{SeededEntropy, VirtualClock};

/// What a twin syncs.
#[derive(Clone, Debug)]
pub struct TwinOrder<'a> {
    /// The key that lists.
    pub credentials: Credentials,
    /// What is synced.
    pub source_path: &'a str,
    /// Which files are taken.
    pub filters: FilterSpec,
    /// The sync.
    pub sync_id: &'a str,
    /// 32 hexadecimal digits.
    pub salt: &'a str,
}

/// A sync in native Rust, with its state and its sink in memory.
#[derive(Debug, Default)]
pub struct Twin {
    /// Its segments and indexes.
    pub blobs: MemoryBlobs,
    documents: MemoryDocuments,
    sink: MemorySink,
}

impl Twin {
    /// Runs a whole job in one step, and answers what it delivered.
    ///
    /// # Errors
    /// Of the order, and of the job.
    pub async fn run(&self, server: &FakeB2Server, job_id: &str, order: &TwinOrder<'_>) -> Result<Vec<Change>, Error> {
        let clock = VirtualClock::starting_at(server.clock().now());
        let http = InProcess::new(Arc::clone(server.model()), clock.clone());
        let entropy = SeededEntropy::new(1);
        let client = B2Client::new(&http, &clock, &entropy, RetryPolicy::DEFAULT);
        let path = SourcePath::parse(order.source_path)?;
        let filter = Filter::compile(&order.filters, &path)?;
        let cut = Cut::parse(order.salt).ok_or_else(|| Error::internal("The salt of the test is none."))?;
        let account: Account = client.authorize(server.url(), &order.credentials).await?;
        account.check(&path, server.clock().now())?;
        let source = B2Source::new(client, server.url(), &order.credentials, &path, account);
        let engine =
            Engine { source: &source, blobs: &self.blobs, documents: &self.documents, sink: &self.sink, clock: &clock };
        let before = self.sink.deliveries().len();
        let job = Order {
            job_id,
            sync_id: order.sync_id,
            cut,
            filter: &filter,
            fingerprint: "twin",
            reconcile: Reconcile::default(),
            confirm_deletes: false,
        };
        let report: StepReport = engine.step(&job, &Budget::UNLIMITED).await;
        match report.outcome? {
            Outcome::Done => Ok(self.sink.deliveries().split_off(before)),
            Outcome::Continue => Err(Error::internal("A step without limits ended before the job was done.")),
        }
    }
}
