//! The world as the coordinator's home.

use std::rc::Rc;

use b2sync_core::engine::memory::Memory;
use b2sync_core::error::Error;
use b2sync_core::job::JobRecord;
use b2sync_core::state::document;
use b2sync_core::store::DocumentStore as _;
use b2sync_core::time::{Clock, Timestamp};
use b2sync_service::catalogue::CatalogueTarget;
use b2sync_service::coordinator::ranges::{self, RangeAnswer, RangeCall};
use b2sync_service::coordinator::{Cache, Config, DOCUMENT, Home};
use b2sync_service::registry::SyncRecord;
use b2sync_service::sinks::SinkRecord;

use super::seam::{Seam, resent};
use super::sinks::SimSink;
use super::world::{Inner, Instance, storage_error};

/// How many blobs of the feed are listed at a time.
const LISTED_AT_ONCE: usize = 7;
/// How many blobs of a deleted sync go at a time.
const WIPED_AT_ONCE: usize = 20;

/// [`Seam`] as the coordinator sees it.
pub(super) struct SimHome {
    seam: Seam,
}

impl SimHome {
    pub(super) fn new(inner: &Rc<Inner>, instance: &Instance, slot: usize, task: u64) -> Self {
        let (inner, instance) = (Rc::clone(inner), instance.clone());
        Self { seam: Seam { inner, instance, slot, task, shard: false } }
    }
}

impl Home for SimHome {
    type Http = Seam;
    type Blobs = Seam;
    type Documents = Seam;
    type Clock = Seam;
    type Entropy = Seam;
    type Registry = Seam;
    type Sink = SimSink;

    fn http(&self) -> &Seam {
        &self.seam
    }

    fn blobs(&self, _: &str) -> Seam {
        self.seam.clone()
    }

    fn documents(&self) -> &Seam {
        &self.seam
    }

    fn clock(&self) -> &Seam {
        &self.seam
    }

    fn entropy(&self) -> &Seam {
        &self.seam
    }

    fn registry(&self) -> &Seam {
        &self.seam
    }

    fn sinks(&self, sync: &SyncRecord) -> Vec<(String, SimSink)> {
        let target = CatalogueTarget {
            bucket_id: sync.bucket_id.clone(),
            sync_id: sync.sync_id.clone(),
            connection_id: sync.connection_id.clone(),
            source_bucket: sync.source.bucket().as_str().to_owned(),
        };
        let sink = |number| SimSink { seam: self.seam.clone(), number, target: target.clone() };
        self.seam.inner.sinks.iter().enumerate().map(|(number, it)| (it.sink_id.clone(), sink(number))).collect()
    }

    fn config(&self) -> &Config {
        &self.seam.inner.config
    }

    fn instance(&self) -> &str {
        &self.seam.instance.name
    }

    async fn set_alarm(&self, at: Option<Timestamp>) -> Result<(), Error> {
        let seam = &self.seam;
        seam.effect("alarm", storage_error, async || {
            // As an offset, as homes do: an instance's own clock may be wrong.
            let wait_ms = at.map(|at| at.as_millis() - Clock::now(seam).as_millis());
            seam.inner.alarm.set(wait_ms.map(|wait_ms| seam.inner.now.get() + wait_ms.max(0)));
            Ok(())
        })
        .await
    }

    async fn publish_job(&self, job: &JobRecord) -> Result<(), Error> {
        let seam = &self.seam;
        seam.effect("history", storage_error, async || {
            seam.note(|| {
                let error = job.error.as_ref().map_or("", |error| error.message.as_str());
                format!("{} ended: {:?} {error}", job.job_id, job.status)
            });
            seam.inner.check_no_secret("a published job", format!("{job:?}").as_bytes());
            let own = seam.inner.checks.borrow().job_ended(job);
            seam.inner.check(own);
            seam.inner.published.borrow_mut().push(job.clone());
            Ok(())
        })
        .await
    }

    fn cache(&self) -> Option<&Cache> {
        Some(&self.seam.instance.cache)
    }

    fn memory(&self) -> Option<&Memory> {
        self.seam.inner.options.memory.then(|| self.seam.instance.memory.as_ref())
    }

    fn shards_max(&self) -> usize {
        self.seam.inner.options.shards
    }

    async fn read_range(&self, shard: usize, call: RangeCall) -> Result<RangeAnswer, Error> {
        let there = Seam { shard: true, ..self.seam.clone() };
        let call = resent(&call)?;
        let ask = async || {
            there.note(|| format!("shard {shard} is asked to read"));
            there.inner.count(|tally| tally.shard_calls += 1);
            let answer = ranges::read_range(&there, &there, &there, self.config(), call).await?;
            there.note(|| format!("shard {shard} answers"));
            resent(&answer)
        };
        self.seam.spend(|step| step.internal += 1);
        self.seam.effect("shard", storage_error, ask).await
    }

    async fn feed_blobs(&self, _: &str, cursor: Option<&str>) -> Result<(Vec<String>, Option<String>), Error> {
        let seam = &self.seam;
        seam.effect("KV get", storage_error, async || {
            let names = seam.inner.kv.all().into_iter().map(|(name, _)| name);
            let rest = names.filter(|name| name.starts_with("feed/") && Some(name.as_str()) > cursor);
            let listed: Vec<_> = rest.take(LISTED_AT_ONCE).collect();
            let cursor = listed.last().cloned().filter(|_| listed.len() == LISTED_AT_ONCE);
            Ok((listed, cursor))
        })
        .await
    }

    async fn wipe(&self, _: &str) -> Result<bool, Error> {
        let seam = &self.seam;
        seam.effect("wipe", storage_error, async || {
            let names = seam.inner.kv.all();
            names.iter().take(WIPED_AT_ONCE).for_each(|(name, _)| seam.inner.kv.delete(name));
            seam.note(|| format!("wipes {} of {} blobs", names.len().min(WIPED_AT_ONCE), names.len()));
            if names.len() > WIPED_AT_ONCE {
                return Ok(false);
            }
            let sinks = seam.inner.sinks.iter().map(|sink| SinkRecord::document(&sink.sink_id));
            for name in [DOCUMENT, document::DOCUMENT].map(str::to_owned).into_iter().chain(sinks) {
                if let Some(document) = seam.inner.documents.load(&name).await? {
                    seam.inner.documents.swap(&name, document.revision, None).await?;
                }
            }
            Ok(true)
        })
        .await
    }
}
