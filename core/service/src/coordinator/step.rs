//! One step of a job: the connection, the engine, and what became of both.

use std::cell::Cell;

use super::{
    Coordinator, DOCUMENT, Home,
    lease::Begun,
    opening::{ACCOUNT_MAX_AGE_MS, cut, gone},
    ranges::Ranges,
};
use crate::{
    documents,
    registry::{ConnectionRecord, Registry, SyncRecord},
    seal::Sealed,
};
use b2sync_core::{
    b2::{
        account::{Account, StoredAccount},
        client::B2Client,
        pace::Pace,
    },
    cost::SourceCost,
    engine::{
        Engine, JobSpec, Outcome, StepReport,
        listing::{
            RangeReader, Rules,
            source::{Page, PageStart, Source},
        },
        memory::Holding,
        meter::STREAMS_HERE_MAX,
    },
    error::{Error, ErrorKind},
    filter::{Filter, FilterSpec},
    job::{JobCounts, JobRecord},
    mutation::{self, Mutation},
    open_sync::{OpenSync, Unopened},
    secret::ExposeSecret,
    store::DocumentStore,
    time::Clock,
};

/// Files for each range that is read at the same time, where a sync does not say how many; at most
/// [`STREAMS_HERE_MAX`] ranges.
pub const STREAM_FILES: u64 = 100_000;

/// What a step used of the connection, and what it learned of the account.
#[derive(Debug, Default)]
pub(super) struct Used {
    pub(super) key_id: String,
    pub(super) application_key: Option<Sealed>,
    pub(super) account: Option<Account>,
    /// The distance between list calls, where another was learned.
    pub(super) pace: Option<Pace>,
    /// The distance that list calls kept at last, in milliseconds.
    pub(super) list_interval_ms: u64,
    /// The connection has failed before.
    pub(super) has_failed: bool,
}

/// A source that is read only while the step holds the lease and its job runs.
struct Leased<'a, S, H> {
    source: &'a S,
    ranges: Ranges<'a, H>,
    coordinator: &'a Coordinator<'a, H>,
    begun: &'a Begun,
    /// The revision of the coordinator's document that was looked at last: reading it for every page would cost.
    seen: Cell<u64>,
}

impl<S: Source, H: Home> Source for Leased<'_, S, H> {
    async fn page(&self, start: PageStart<'_>) -> Result<Page, Error> {
        self.source.page(start).await
    }

    fn cost(&self) -> SourceCost {
        self.ranges.cost(self.source.cost())
    }

    async fn read(&self, reader: &mut RangeReader, rules: &Rules<'_>) -> Result<(), Error> {
        self.ranges.read(self, reader, rules).await
    }

    fn prefix(&self) -> &str {
        self.source.prefix()
    }

    async fn still_wanted(&self) -> Result<(), Error> {
        let revision = self.coordinator.home.documents().revision(DOCUMENT).await?;
        if revision > 0 && revision == self.seen.get() {
            return Ok(());
        }
        // What changes between the two calls is seen by the next one.
        let state = self.coordinator.stored().await?;
        if state.is_some_and(|it| it.has_lease(self.begun.step) && it.is_running(&self.begun.job.job_id)) {
            self.seen.set(revision);
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Conflict,
            "The job was stopped while this step ran.",
            "No changes were lost; the next job resumes.",
        ))
    }
}

impl<H: Home> Coordinator<'_, H> {
    pub(super) async fn step(
        &self,
        (sync, connection): (&SyncRecord, Result<Option<ConnectionRecord>, Error>),
        filters: &FilterSpec,
        begun: &Begun,
    ) -> (StepReport, Used) {
        let job = &begun.job;
        let mut used = Used::default();
        let known_before = job.known_before;
        let report =
            self.try_step((sync, connection), filters, begun, &mut used).await.unwrap_or_else(|(error, cost)| {
                let report = StepReport::not_begun(error, &cost);
                StepReport { counts: job.counts, known_before, files_known: known_before, ..report }
            });
        (report, used)
    }

    async fn try_step(
        &self,
        (sync, connection): (&SyncRecord, Result<Option<ConnectionRecord>, Error>),
        filters: &FilterSpec,
        begun: &Begun,
        used: &mut Used,
    ) -> Result<StepReport, (Error, SourceCost)> {
        let (home, job) = (self.home, &begun.job);
        let config = home.config();
        let free = |error: Error| (error, SourceCost::default());
        let connection =
            connection.map_err(free)?.filter(|it| !it.archived).ok_or_else(|| free(gone(&sync.connection_id)))?;
        connection.check_usable().map_err(free)?;
        used.application_key.clone_from(&connection.application_key);
        used.key_id.clone_from(&connection.key_id);
        used.has_failed = connection.consecutive_failures > 0 || connection.last_error.is_some();
        let credentials = connection.credentials(&config.master_keys).map_err(free)?;
        let filter = Filter::compile(filters, &sync.source).map_err(free)?;
        let cut = cut(config, sync).map_err(free)?;
        let client = B2Client::new(home.http(), home.clock(), home.entropy(), config.retry)
            .with_pace(connection.pace)
            .probing(has_failed_lately(job));
        let now = home.clock().now();
        let fresh = connection.authorized_at.is_some_and(|at| now.millis_since(at) < ACCOUNT_MAX_AGE_MS);
        let cached = connection.account.clone().filter(|_| fresh).and_then(|account| Account::try_from(account).ok());
        let opening = OpenSync { api_url: &config.b2_api_url, credentials: &credentials, path: &sync.source, cached };
        let (source, opening) = opening.open(client).await.map_err(|Unopened { error, cost, account }| {
            used.account = account;
            (error, cost)
        })?;
        let ranges = Ranges::new(home, sync, &connection, StoredAccount::from(&source.account()));
        let blobs = home.blobs(&sync.sync_id);
        let source = Leased { source: &source, ranges, coordinator: self, begun, seen: Cell::new(0) };
        let engine = Engine { source: &source, blobs: &blobs, documents: home.documents(), clock: home.clock() };
        let spec = JobSpec {
            reconcile: sync.reconcile,
            deletion_limit: sync.deletion_limit,
            confirm_deletes: begun.confirm_deletes,
            objects_max: sync.max_objects_per_run,
            streams: streams(sync, begun.job.known_before, home.shards_max()),
            resync: begun.resync,
            listing_id: begun.listing_id.as_deref(),
            is_last_attempt: begun.is_last_attempt,
            retention: begun.pumps.retention(sync, &self.sink_ids(sync), now),
            thresholds: config.thresholds,
            bookmark: Some(begun.bookmark.clone().unwrap_or_default()),
            held: self.holding(begun),
            opening: Some(opening),
            ..JobSpec::new(&begun.job.job_id, cut, &filter)
        };
        let mut report = engine.step(&spec, &config.budget).await;
        if mutation::is_on(Mutation::LeakSecret) {
            let quote = |it: Error| Error::new(it.kind(), credentials.application_key().expose_secret(), it.advice());
            report.outcome = report.outcome.map_err(|error| quote(error.clone()).with_retry(error.retry()));
        }
        used.account = source.source.learned();
        used.pace = source.source.learned_pace(connection.pace);
        used.list_interval_ms = source.source.list_interval_ms();
        Ok(report)
    }

    /// Where the job of a step is held. A job that was lost from there is not entrusted to it again: its steps store
    /// how far they come, however often instances die.
    fn holding(&self, begun: &Begun) -> Option<Holding<'_>> {
        let holding = self.home.memory()?.for_step(begun.step_before, begun.step);
        let has_read_nothing = begun.job.counts == JobCounts::default() && begun.bookmark.is_none();
        (has_read_nothing || holding.has(&begun.job.job_id)).then_some(holding)
    }

    /// Notes with the connection that it worked or failed, and what B2 said of the account. Nothing is written while
    /// it just works.
    pub(super) async fn note_connection(
        &self,
        sync: &SyncRecord,
        outcome: &Result<Outcome, Error>,
        Used { key_id, application_key, account, pace, has_failed, .. }: Used,
    ) -> Result<(), Error> {
        let refused = outcome.as_ref().err().filter(|error| blames_connection(error.kind()));
        let has_learned = account.is_some() || pace.is_some();
        if refused.is_none() && !has_learned && !(outcome.is_ok() && has_failed) {
            return Ok(());
        }
        let registry = self.home.registry();
        for _ in 0..documents::SWAP_ATTEMPTS_MAX {
            let Some(mut connection) = registry.connection(&sync.connection_id).await? else { return Ok(()) };
            let recovered = outcome.is_ok() && (connection.consecutive_failures > 0 || connection.last_error.is_some());
            if connection.archived || (refused.is_none() && !has_learned && !recovered) {
                return Ok(());
            }
            if connection.key_id != key_id || connection.application_key != application_key {
                // Its credentials were replaced meanwhile: nothing of this is about the new ones.
                return Ok(());
            }
            let now = self.home.clock().now();
            if let Some(error) = refused {
                connection.note_failure(error);
                connection.account = None;
            } else if outcome.is_ok() {
                connection.note_success(now);
            }
            if let Some(account) = &account {
                connection.account = Some(StoredAccount::from(account));
                connection.authorized_at = Some(now);
            }
            connection.pace = pace.or(connection.pace);
            connection.updated_at = now;
            let expected = connection.revision;
            match registry.update_connection(connection, expected).await {
                Err(error) if error.kind() == ErrorKind::StateConflict => {}
                result => return result.map(|_| ()),
            }
        }
        Ok(())
    }
}

/// Whether B2 did not answer the step before: then one call finds out whether it does now.
fn has_failed_lately(job: &JobRecord) -> bool {
    let kinds = [ErrorKind::ServiceUnavailable, ErrorKind::Transport].map(ErrorKind::as_str);
    job.error.as_ref().is_some_and(|error| kinds.contains(&error.kind.as_str()))
}

/// Whether an error is the connection's fault rather than the sync's or B2's.
const fn blames_connection(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::BadCredentials | ErrorKind::KeyExpired | ErrorKind::Sealing)
}

/// How many ranges of a listing are read at the same time.
fn streams(sync: &SyncRecord, files_known: u64, shards: usize) -> usize {
    if let Some(asked) = sync.sync_concurrency {
        let most = STREAMS_HERE_MAX.saturating_mul(shards.saturating_add(1));
        return usize::try_from(asked).unwrap_or(most).clamp(1, most);
    }
    match files_known {
        // Of a first run nothing is known: it reads ranges side by side once it turns out to be long.
        0 => STREAMS_HERE_MAX,
        known => usize::try_from(known / STREAM_FILES).unwrap_or(STREAMS_HERE_MAX).clamp(1, STREAMS_HERE_MAX),
    }
}
