//! The context of the API: what it runs over, and what several resources do alike.

use super::{auth::ApiKey, cors::Cors, errors::ApiError};
use crate::{
    catalogue::Objects,
    coordinator::protocol::{Answer, Command, SyncStatus},
    registry::{ConnectionRecord, ConnectionRow, Registry, SyncRecord, SyncRow, refusals},
    seal::MasterKeys,
};
use b2sync_core::{
    b2::client::B2Client,
    entropy::Entropy,
    error::{Error, ErrorKind},
    http::HttpClient,
    job::JobRecord,
    retry::RetryPolicy,
    time::{Clock, Timestamp},
};

/// The organisation that everything belongs to: a deployment serves one.
pub const ORGANISATION_ID: &str = "int_b2sync";
/// Who creates connections and syncs: every caller has the same API key.
pub(super) const USER_ID: &str = "usr_api_key";
/// How often a record is read and changed again after another request changed it at the same time. Each time another
/// request was done, so as many may change one record at the same time, and all succeed.
const CHANGE_ATTEMPTS_MAX: u32 = 100;
/// A user waits for the answer: short, and few attempts.
pub(super) const INTERACTIVE: RetryPolicy = RetryPolicy {
    attempts_max: 3,
    backoff_base_ms: 250,
    backoff_cap_ms: 2_000,
    retry_after_max_ms: 3_000,
    deadline: None,
};
/// The calls to B2 of one request end within this time, in milliseconds: the answer then comes within 10 s.
const INTERACTIVE_MS_MAX: i64 = 8_000;

/// The coordinators of all syncs. Implemented by each home.
pub trait Coordinators {
    /// Sends a command to the coordinator of a sync.
    ///
    /// # Errors
    /// What the coordinator says; [`ErrorKind::Storage`] when it cannot be reached.
    async fn call(&self, sync_id: &str, command: Command) -> Result<Answer, Error>;

    /// A job that ended long ago: its coordinator keeps only the latest.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    async fn archived_job(&self, sync_id: &str, job_id: &str) -> Result<Option<JobRecord>, Error>;

    /// At most `limit` jobs that ended, newest first; may hold some that the coordinator still keeps.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    async fn archived_jobs(&self, sync_id: &str, limit: usize) -> Result<Vec<JobRecord>, Error>;
}

impl<T: Coordinators + ?Sized> Coordinators for &T {
    async fn call(&self, sync_id: &str, command: Command) -> Result<Answer, Error> {
        (**self).call(sync_id, command).await
    }

    async fn archived_job(&self, sync_id: &str, job_id: &str) -> Result<Option<JobRecord>, Error> {
        (**self).archived_job(sync_id, job_id).await
    }

    async fn archived_jobs(&self, sync_id: &str, limit: usize) -> Result<Vec<JobRecord>, Error> {
        (**self).archived_jobs(sync_id, limit).await
    }
}

/// The API over a home's parts.
#[derive(Debug)]
pub struct Service<'a, R, C, O, H, K, E> {
    /// Connections and syncs.
    pub registry: &'a R,
    /// What runs the syncs.
    pub coordinators: &'a C,
    /// What they delivered.
    pub objects: &'a O,
    /// To reach B2.
    pub http: &'a H,
    /// The time.
    pub clock: &'a K,
    /// For ids, salts, nonces and jitter.
    pub entropy: &'a E,
    /// To seal application keys.
    pub master_keys: &'a MasterKeys,
    /// Who may call.
    pub api_key: &'a ApiKey,
    /// Which web pages may call.
    pub cors: &'a Cors,
    /// [`b2sync_core::b2::account::API_URL`] except in tests.
    pub b2_api_url: &'a str,
    /// Of the deployment.
    pub version: &'a str,
}

impl<R: Registry, C: Coordinators, O: Objects, H: HttpClient, K: Clock, E: Entropy> Service<'_, R, C, O, H, K, E> {
    pub(super) fn client(&self) -> B2Client<'_, H, K, E> {
        let policy = INTERACTIVE.until(self.clock.now().plus_millis(INTERACTIVE_MS_MAX));
        B2Client::new(self.http, self.clock, self.entropy, policy)
    }

    /// A connection as it is stored, whether its record can be read or not.
    pub(super) async fn find_connection_row(&self, id_or_name: &str) -> Result<ConnectionRow, ApiError> {
        self.registry.find_connection(id_or_name).await?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("There is no connection {id_or_name:?}."),
                "List the connections with POST /v1/organizations/connections/list. Names are case-sensitive.",
            )
            .into()
        })
    }

    pub(super) async fn find_connection(&self, id_or_name: &str) -> Result<ConnectionRecord, ApiError> {
        Ok(self.find_connection_row(id_or_name).await?.read()?)
    }

    /// A sync as it is stored, whether its record can be read or not.
    pub(super) async fn find_sync_row(
        &self,
        namespace_id: &str,
        bucket_id: &str,
        sync_id: &str,
    ) -> Result<SyncRow, ApiError> {
        let found = self.registry.find_sync(sync_id).await?;
        found.filter(|sync| sync.namespace_id == namespace_id && sync.bucket_id == bucket_id).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("The bucket {bucket_id:?} of the namespace {namespace_id:?} has no sync {sync_id:?}."),
                "Check the bucket in the path and the header X-Namespace, or list the syncs with POST …/syncs/list.",
            )
            .into()
        })
    }

    /// Changes and writes a record; if another request changed it at the same time, reads it and does so again.
    /// `record` is what was read.
    pub(super) async fn change<T: Changeable>(
        &self,
        mut record: T,
        change: &dyn Fn(&mut T) -> Result<(), ApiError>,
    ) -> Result<T, ApiError> {
        let mut attempt = 1;
        loop {
            let before = record.clone();
            change(&mut record)?;
            if record == before {
                return Ok(record);
            }
            match record.write(self.registry, self.clock.now()).await {
                Ok(written) => return Ok(written),
                Err(error) if error.kind() == ErrorKind::StateConflict && attempt < CHANGE_ATTEMPTS_MAX => {
                    attempt += 1;
                    record = before.read_again(self.registry).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A command that is answered with how the sync stands.
    pub(super) async fn command(&self, sync_id: &str, command: Command) -> Result<SyncStatus, Error> {
        match self.coordinators.call(sync_id, command).await? {
            Answer::Status(status) => Ok(*status),
            _ => Err(unexpected()),
        }
    }

    /// Gives a sync's coordinator a command, and has the cron look after it, should the coordinator not be reached or
    /// its alarm be lost. That is noted before, in case this is cut off; and after it, since a tick in between may have
    /// been told what was so before the command.
    pub(super) async fn watched<T, F: From<Error>>(
        &self,
        sync_id: &str,
        command: impl Future<Output = Result<T, F>>,
    ) -> Result<T, F> {
        self.registry.set_poke_after(sync_id, Some(self.clock.now())).await?;
        let answer = command.await?;
        // Another moment than the first, which the tick may have read.
        let _ = self.registry.set_poke_after(sync_id, Some(self.clock.now().plus_millis(1))).await;
        Ok(answer)
    }
}

/// A record of the registry that requests change.
pub(super) trait Changeable: Clone + PartialEq {
    /// Writes it over the revision that it was read with.
    async fn write(self, registry: &impl Registry, now: Timestamp) -> Result<Self, Error>;

    /// As it is stored now.
    async fn read_again(&self, registry: &impl Registry) -> Result<Self, Error>;
}

impl Changeable for ConnectionRecord {
    async fn write(mut self, registry: &impl Registry, now: Timestamp) -> Result<Self, Error> {
        self.updated_at = now;
        let expected = self.revision;
        registry.update_connection(self, expected).await
    }

    async fn read_again(&self, registry: &impl Registry) -> Result<Self, Error> {
        let id = &self.connection_id;
        registry.connection(id).await?.ok_or_else(|| refusals::missing(id))
    }
}

impl Changeable for SyncRecord {
    async fn write(mut self, registry: &impl Registry, now: Timestamp) -> Result<Self, Error> {
        self.updated_at = now;
        let expected = self.revision;
        registry.update_sync(self, expected).await
    }

    async fn read_again(&self, registry: &impl Registry) -> Result<Self, Error> {
        let id = &self.sync_id;
        registry.sync(id).await?.ok_or_else(|| refusals::missing(id))
    }
}

/// What failed for a passing reason before anything was stored: the user sends the request again.
pub(super) fn nothing_stored(error: Error) -> Error {
    if !error.is_transient() {
        return error;
    }
    error.with_advice(
        "Nothing was stored. Send the request again in a moment; if it keeps failing, check \
         https://status.backblaze.com.",
    )
}

/// A coordinator's reply does not fit the command.
pub(super) fn unexpected() -> Error {
    Error::internal("The coordinator sent an unexpected reply.")
}
