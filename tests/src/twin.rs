//! The native twin of a sync: the same engine over the same embedded B2, without a Worker.
//!
//! A change's id depends on the sync and on its place in the feed alone, so the Worker and its twin must append the
//! same changes at the same positions, however often the Worker was cut off on its way.

use std::collections::BTreeMap;
use std::sync::Arc;

use b2sync_core::b2::account::Credentials;
use b2sync_core::b2::client::B2Client;
use b2sync_core::b2::source::B2Source;
use b2sync_core::change::{Change, ChangeKind};
use b2sync_core::engine::meter::Budget;
use b2sync_core::engine::{Engine, JobSpec, Outcome};
use b2sync_core::error::Error;
use b2sync_core::feed::read::PAGE_CHANGES_MAX;
use b2sync_core::feed::read_changes;
use b2sync_core::filter::{Filter, FilterSpec};
use b2sync_core::retry::RetryPolicy;
use b2sync_core::snapshot::cut::Cut;
use b2sync_core::source_path::SourcePath;
use b2sync_core::store::{BlobStore, DocumentStore, MemoryBlobs, MemoryDocuments};
use b2sync_core::time::Timestamp;

use crate::virtual_world::{SeededEntropy, VirtualClock};
use fake_b2::FakeB2;
use fake_b2::in_process::InProcess;
use fake_b2::keys::ApplicationKey;

/// A sync that is run natively. Its state is in memory unless [`Twin::with_stores`] says otherwise, and its segments
/// are cut elsewhere than its twin's unless [`Twin::with_cut`] does: neither may matter.
#[derive(Debug)]
pub struct Twin<B = MemoryBlobs, D = MemoryDocuments> {
    fake: Arc<FakeB2>,
    sync_id: String,
    source: SourcePath,
    filter: Filter,
    credentials: Credentials,
    cut: Cut,
    blobs: B,
    documents: D,
    changes: Vec<Change>,
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
            changes: Vec::new(),
            runs: 0,
        })
    }

    /// The names of its segments, indexes and batches, sorted.
    pub fn blob_names(&self) -> Vec<String> {
        self.blobs.names()
    }
}

impl<B: BlobStore, D: DocumentStore> Twin<B, D> {
    /// The same twin, before its first job, with its state there.
    #[must_use]
    pub fn with_stores<B2, D2>(self, blobs: B2, documents: D2) -> Twin<B2, D2> {
        let Self { fake, sync_id, source, filter, credentials, cut, changes, runs, .. } = self;
        Twin { fake, sync_id, source, filter, credentials, cut, blobs, documents, changes, runs }
    }

    /// The same twin with its segments cut there.
    #[must_use]
    pub fn with_cut(self, cut: Cut) -> Self {
        Self { cut, ..self }
    }

    /// Runs one job, with `now` as the time; the changes that it appended to the feed.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn run(&mut self, now: Timestamp) -> Result<Vec<Change>, Error> {
        self.runs += 1;
        let clock = VirtualClock::starting_at(now);
        let http = InProcess::new(Arc::clone(&self.fake), clock.clone());
        let entropy = SeededEntropy::new(u64::from(self.runs));
        let api_url = self.fake.config().base_url.clone();
        let client = B2Client::new(&http, &clock, &entropy, RetryPolicy::DEFAULT);
        pollster::block_on(async {
            let account = client.authorize(&api_url, &self.credentials).await?;
            let source = B2Source::new(client, &api_url, &self.credentials, &self.source, account);
            let (blobs, documents) = (&self.blobs, &self.documents);
            let engine = Engine { source: &source, blobs, documents, clock: &clock };
            let job_id = format!("job_twin{}", self.runs);
            let spec = JobSpec::new(&job_id, self.cut, &self.filter);
            while engine.step(&spec, &Budget::UNLIMITED).await.outcome? == Outcome::Continue {}
            let before = self.changes.len();
            loop {
                let cursor = self.changes.last().map_or(0, |change| change.position);
                let page = read_changes(blobs, documents, &self.sync_id, Some(cursor), PAGE_CHANGES_MAX).await?;
                if page.changes.is_empty() {
                    return Ok(self.changes[before..].to_vec());
                }
                self.changes.extend(page.changes);
            }
        })
    }

    /// The id of the latest change of each key that is there now.
    pub fn change_ids(&self) -> BTreeMap<String, String> {
        let mut ids = BTreeMap::new();
        for Change { id, kind, entry, .. } in &self.changes {
            match kind {
                ChangeKind::Deleted => ids.remove(&entry.key),
                ChangeKind::Created | ChangeKind::Updated => ids.insert(entry.key.clone(), id.clone()),
            };
        }
        ids
    }
}
