//! What KV holds: the segments of snapshots, and the history of jobs. The name of a blob is written once.
//!
//! Names: `state/<sync>/<segment/…|index/…|scratch/…|feed/…>` and `jobs/<sync>/<time>-<job>`, where the time is counted
//! down, so that a list begins with the newest.

use b2sync_core::{Error, job::JobRecord, store::BlobStore};
use bytes::Bytes;
use worker::{Env, KvStore};

use crate::failure::storage_error;

/// Milliseconds since 1970 are counted down from here: the largest number of 13 digits.
const TIME_MAX: i64 = 9_999_999_999_999;
/// Names deleted in one call of [`Kv::wipe`].
const WIPE_MAX: u64 = 400;

fn failed(error: impl std::fmt::Display) -> Error {
    storage_error("KV namespace", error)
}

/// The KV namespace.
pub struct Kv(KvStore);

impl Kv {
    /// That of the binding `STATE`.
    ///
    /// # Errors
    /// [`b2sync_core::ErrorKind::Storage`] when there is no such binding.
    pub fn of(env: &Env) -> Result<Self, Error> {
        env.kv("STATE").map(Self).map_err(failed)
    }

    /// The blobs of one sync.
    pub fn blobs(&self, sync_id: &str) -> KvBlobs {
        KvBlobs { store: self.0.clone(), prefix: format!("state/{sync_id}/") }
    }

    /// Keeps a job that ended.
    pub(crate) async fn publish(&self, job: &JobRecord) -> Result<(), Error> {
        let ended = job.completed_at.unwrap_or(job.updated_at).as_millis();
        let name = format!("jobs/{}/{:013}-{}", job.sync_id, TIME_MAX.saturating_sub(ended), job.job_id);
        let value = serde_json::to_string(job).map_err(failed)?;
        self.0.put(&name, value).map_err(failed)?.execute().await.map_err(failed)
    }

    /// The newest jobs of a sync.
    pub(crate) async fn jobs(&self, sync_id: &str, limit: usize) -> Result<Vec<JobRecord>, Error> {
        let names = self.names(&format!("jobs/{sync_id}/"), limit as u64).await?;
        let mut jobs = Vec::with_capacity(names.len());
        for name in names {
            jobs.extend(self.read(&name).await?);
        }
        Ok(jobs)
    }

    /// One job of a sync.
    pub(crate) async fn job(&self, sync_id: &str, job_id: &str) -> Result<Option<JobRecord>, Error> {
        let names = self.names(&format!("jobs/{sync_id}/"), 1_000).await?;
        match names.iter().find(|name| name.split_once('-').is_some_and(|(_, id)| id == job_id)) {
            Some(name) => self.read(name).await,
            None => Ok(None),
        }
    }

    async fn read(&self, name: &str) -> Result<Option<JobRecord>, Error> {
        // A record that a newer deployment wrote is left out rather than failing the list.
        let text = self.0.get(name).text().await.map_err(failed)?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    async fn names(&self, prefix: &str, limit: u64) -> Result<Vec<String>, Error> {
        let list = self.0.list().prefix(prefix.to_owned()).limit(limit.clamp(1, 1_000));
        let page = list.execute().await.map_err(failed)?;
        Ok(page.keys.into_iter().map(|key| key.name).collect())
    }

    /// Names of a sync's blobs that its feed is in, from a cursor on, and the cursor of the rest.
    pub(crate) async fn feed_blobs(
        &self,
        sync_id: &str,
        cursor: Option<&str>,
    ) -> Result<(Vec<String>, Option<String>), Error> {
        let folder = format!("state/{sync_id}/");
        let mut list = self.0.list().prefix(format!("{folder}feed/"));
        if let Some(cursor) = cursor {
            list = list.cursor(cursor.to_owned());
        }
        let page = list.execute().await.map_err(failed)?;
        let names = page.keys.iter().filter_map(|key| key.name.strip_prefix(&folder)).map(str::to_owned).collect();
        Ok((names, page.cursor.filter(|_| !page.list_complete)))
    }

    /// Deletes some of what is kept of a sync; `true` when nothing is left.
    pub(crate) async fn wipe(&self, sync_id: &str) -> Result<bool, Error> {
        for folder in ["state", "jobs"] {
            let names = self.names(&format!("{folder}/{sync_id}/"), WIPE_MAX).await?;
            for name in &names {
                self.0.delete(name).await.map_err(failed)?;
            }
            if !names.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The blobs of one sync.
pub struct KvBlobs {
    store: KvStore,
    prefix: String,
}

impl BlobStore for KvBlobs {
    async fn get(&self, name: &str) -> Result<Option<Bytes>, Error> {
        let value = self.store.get(&format!("{}{name}", self.prefix)).bytes().await.map_err(failed)?;
        Ok(value.map(Bytes::from))
    }

    async fn put(&self, name: &str, value: Bytes) -> Result<(), Error> {
        let put = self.store.put_bytes(&format!("{}{name}", self.prefix), &value).map_err(failed)?;
        put.execute().await.map_err(failed)
    }

    async fn delete(&self, name: &str) -> Result<(), Error> {
        self.store.delete(&format!("{}{name}", self.prefix)).await.map_err(failed)
    }
}
