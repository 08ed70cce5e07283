//! The native twin of a sync: the same engine over the same embedded B2, without a Worker.
//!
//! A change's id depends on the sync, the key, the kind and the version alone, so the Worker and its twin must deliver
//! the same ids, however often the Worker was cut off on its way.

use std::collections::BTreeMap;
use std::sync::Arc;

use b2sync_core::b2::account::Credentials;
use b2sync_core::b2::client::B2Client;
use b2sync_core::b2::source::B2Source;
use b2sync_core::engine::budget::Budget;
use b2sync_core::engine::{Engine, Order, Outcome};
use b2sync_core::error::Error;
use b2sync_core::filter::{Filter, FilterSpec};
use b2sync_core::retry::RetryPolicy;
use b2sync_core::sink::{Change, ChangeKind, MemorySink};
use b2sync_core::snapshot::cut::Cut;
use b2sync_core::source_path::SourcePath;
use b2sync_core::store::{MemoryBlobs, MemoryDocuments};
use b2sync_core::time::Timestamp;

use crate::virtual_world::{SeededEntropy, VirtualClock};
use fake_b2::FakeB2;
use fake_b2::in_process::InProcess;
use fake_b2::keys::ApplicationKey;

/// A sync that is run natively. Its state is in memory, and unless [`Twin::with_cut`] says otherwise its segments are cut
/// elsewhere than its twin's: neither may matter.
#[derive(Debug)]
pub struct Twin {
    fake: Arc<FakeB2>,
    sync_id: String,
    source: SourcePath,
    filter: Filter,
    credentials: Credentials,
    cut: Cut,
    blobs: MemoryBlobs,
    documents: MemoryDocuments,
    sink: MemorySink,
    runs: u32,
}

impl Twin {
    /// The twin of the sync of that id.
    ///
    /// # Errors
    /// The source path, the filters or the key are not such that there could be a sync of them.
    pub fn new(
        fake: &Arc<FakeB2>,
        sync_id: &str,
        source_path: &str,
        filters: &FilterSpec,
        key: &ApplicationKey,
    ) -> Result<Self, Error> {
        let source = SourcePath::parse(source_path)?;
        Ok(Self {
            fake: Arc::clone(fake),
            sync_id: sync_id.to_owned(),
            filter: Filter::compile(filters, &source)?,
            source,
            credentials: Credentials::new(&key.key_id, &key.secret)?,
            cut: Cut::new([7; 16]),
            blobs: MemoryBlobs::default(),
            documents: MemoryDocuments::default(),
            sink: MemorySink::default(),
            runs: 0,
        })
    }

    /// The same twin with its segments cut there.
    #[must_use]
    pub fn with_cut(self, cut: Cut) -> Self {
        Self { cut, ..self }
    }

    /// The names of its segments and indexes, sorted.
    pub fn blob_names(&self) -> Vec<String> {
        self.blobs.names()
    }

    /// Runs one job, with `now` as the time; the changes it delivered.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn run(&mut self, now: Timestamp) -> Result<Vec<Change>, Error> {
        self.runs += 1;
        let before = self.sink.deliveries().len();
        let clock = VirtualClock::starting_at(now);
        let http = InProcess::new(Arc::clone(&self.fake), clock.clone());
        let entropy = SeededEntropy::new(u64::from(self.runs));
        let api_url = self.fake.config().base_url.clone();
        let client = B2Client::new(&http, &clock, &entropy, RetryPolicy::DEFAULT);
        pollster::block_on(async {
            let account = client.authorize(&api_url, &self.credentials).await?;
            let source = B2Source::new(client, &api_url, &self.credentials, &self.source, account);
            let engine = Engine {
                source: &source,
                blobs: &self.blobs,
                documents: &self.documents,
                sink: &self.sink,
                clock: &clock,
            };
            let job_id = format!("job_twin{}", self.runs);
            let order = Order::new(&job_id, &self.sync_id, self.cut, &self.filter, "twin");
            while engine.step(&order, &Budget::UNLIMITED).await.outcome? == Outcome::Continue {}
            Ok(self.sink.deliveries().split_off(before))
        })
    }

    /// The id of the latest change of each key that is there now.
    pub fn change_ids(&self) -> BTreeMap<String, String> {
        let mut ids = BTreeMap::new();
        for Change { id, kind, entry } in self.sink.deliveries() {
            match kind {
                ChangeKind::Deleted => ids.remove(&entry.key),
                ChangeKind::Created | ChangeKind::Updated => ids.insert(entry.key, id),
            };
        }
        ids
    }
}
