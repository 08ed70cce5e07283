//! One coordinator a sync: it alone starts, drives and ends the jobs of its sync.
//!
//! It is a state machine over one stored document. Every call reads the document, decides, and writes it back by
//! compare-and-swap; [`Coordinator::drive`] runs one step of the running job, or starts the job that is due. On Workers
//! a Durable Object holds it: `fetch` is [`Coordinator::handle`], `alarm` is [`Coordinator::drive`], and the cron pokes
//! it, so that a lost alarm costs a minute and nothing else.
//!
//! It deliberately does not keep time by itself, hold anything in memory between calls, or decide what a change is.
//!
//! # Invariants
//! - At most one job of a sync is running. Whoever asks for another is told of the one there is.
//! - A job that ends leaves no checkpoint behind.
//! - After each call there is an alarm, unless nothing is ever due.

pub mod protocol;

use serde::{Deserialize, Serialize};

use self::protocol::{Answer, Command, SyncState, SyncStatus};
use crate::{
    b2::{
        account::{Account, Credentials, StoredAccount},
        client::B2Client,
        source::B2Source,
    },
    engine::{Engine, Order, Outcome, StepReport, budget::Budget},
    entropy::Entropy,
    error::{Error, ErrorKind, Retry},
    filter::{Filter, FilterSpec},
    http::HttpClient,
    ids,
    job::{ErrorRecord, JobCost, JobCounts, JobRecord, JobStatus, Phase, Trigger},
    registry::{ConnectionRecord, ConnectionStatus, Registry, SyncMode, SyncRecord},
    retry::RetryPolicy,
    seal::MasterKeys,
    secret::ExposeSecret,
    sink::Sink,
    snapshot::cut::Cut,
    store::{BlobStore, DocumentStore, Swapped},
    time::{Clock, Timestamp},
};

/// The name of the coordinator's document.
pub const DOCUMENT: &str = "coordinator";
/// The version that this code reads and writes.
pub const VERSION: u32 = 1;
/// Jobs that ended and are kept in the document; older ones are only in the job history.
pub const JOBS_KEPT_MAX: usize = 50;
/// Steps that may fail in a row with a transient error before the job fails.
pub const STEP_FAILURES_MAX: u32 = 5;
/// The wait before the first repetition of a failed step, in milliseconds; it doubles each time.
pub const STEP_BACKOFF_BASE_MS: u64 = 2_000;
/// The longest wait before a failed step is repeated, in milliseconds.
pub const STEP_BACKOFF_CAP_MS: u64 = 120_000;
/// After failures in a row a sync polls less and less often, down to once in this many seconds.
pub const FAILING_INTERVAL_S_MAX: u64 = 3_600;
/// A lease outlasts the step's own time limit by this many milliseconds.
pub const LEASE_MARGIN_MS: u64 = 60_000;
/// How soon the cron looks again after a job that runs, in milliseconds.
pub const POKE_RUNNING_MS: i64 = 60_000;
/// Failures in a row that suspend a connection.
pub const CONNECTION_FAILURES_MAX: u64 = 5;
/// How long an account is used as it was cached, in milliseconds: a day, as long as B2's own tokens live.
pub const ACCOUNT_MAX_AGE_MS: u64 = 24 * 3_600_000;
/// The wait between two rounds of deleting what is stored of a sync: KV may list a deleted name for a minute.
pub const WIPE_INTERVAL_MS: i64 = 65_000;
/// Compare-and-swap rounds before a call gives up.
const SWAP_ATTEMPTS_MAX: u32 = 10;

/// What is the same for all coordinators of a home.
#[derive(Debug)]
pub struct Config {
    /// Where to authorize.
    pub b2_api_url: String,
    /// What application keys are sealed with.
    pub master_keys: MasterKeys,
    /// What one step may spend.
    pub budget: Budget,
    /// How requests are retried.
    pub retry: RetryPolicy,
    /// Whether the home never runs two coordinators of one sync at the same time (a Durable Object does not). Then a
    /// lease that another instance left behind is that of a dead one.
    pub sole_instance: bool,
}

/// What a coordinator needs of its home.
pub trait Home {
    /// Sends requests to B2.
    type Http: HttpClient;
    /// Where this sync's segments are.
    type Blobs: BlobStore;
    /// Where this sync's documents are.
    type Documents: DocumentStore;
    /// The time.
    type Clock: Clock;
    /// Chance.
    type Entropy: Entropy;
    /// Connections and syncs.
    type Registry: Registry;
    /// Where this sync's changes go.
    type Sink: Sink;

    /// See [`Home::Http`].
    fn http(&self) -> &Self::Http;
    /// See [`Home::Blobs`]; the same sync always gets the same.
    fn blobs(&self, sync_id: &str) -> Self::Blobs;
    /// See [`Home::Documents`].
    fn documents(&self) -> &Self::Documents;
    /// See [`Home::Clock`].
    fn clock(&self) -> &Self::Clock;
    /// See [`Home::Entropy`].
    fn entropy(&self) -> &Self::Entropy;
    /// See [`Home::Registry`].
    fn registry(&self) -> &Self::Registry;
    /// See [`Home::Sink`].
    fn sink(&self, sync: &SyncRecord) -> Self::Sink;
    /// See [`Config`].
    fn config(&self) -> &Config;
    /// Names this instance among all that ever lived.
    fn instance(&self) -> &str;

    /// Has [`Coordinator::drive`] called at that time, or as soon as possible after it. There is one alarm: the latest
    /// call counts.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    async fn set_alarm(&self, at: Option<Timestamp>) -> Result<(), Error>;

    /// Keeps the record of a job that ended, for people to read.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    async fn publish_job(&self, job: &JobRecord) -> Result<(), Error>;

    /// Deletes some of what is stored of a sync that was deleted; `true` when nothing is left.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    async fn wipe(&self, sync_id: &str) -> Result<bool, Error>;
}

/// The right to run a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    holder: String,
    until: Timestamp,
}

/// The coordinator's document. Stored: fields are only ever added, each with a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    v: u32,
    sync_id: String,
    #[serde(default)]
    status: SyncStatus,
    /// Jobs that ended, newest first.
    #[serde(default)]
    jobs: Vec<JobRecord>,
    #[serde(default)]
    lease: Option<Lease>,
    #[serde(default)]
    step_failures: u32,
    /// When the failed step is repeated.
    #[serde(default)]
    step_not_before: Option<Timestamp>,
    /// The running job may delete as much as it finds.
    #[serde(default)]
    confirm_deletes: bool,
    /// The sync was deleted: only its state remains to be.
    #[serde(default)]
    forgotten: bool,
}

impl State {
    fn new(sync_id: &str) -> Self {
        Self {
            v: VERSION,
            sync_id: sync_id.to_owned(),
            status: SyncStatus::default(),
            jobs: Vec::new(),
            lease: None,
            step_failures: 0,
            step_not_before: None,
            confirm_deletes: false,
            forgotten: false,
        }
    }

    /// When [`Coordinator::drive`] has something to do next.
    fn next_alarm(&self, now: Timestamp) -> Option<Timestamp> {
        if self.forgotten || self.status.current_job.is_some() {
            return Some(self.step_not_before.unwrap_or(now).max(now));
        }
        self.status.next_sync_at
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.status.current_job.is_none() && self.status.next_sync_at.is_some_and(|at| at <= now)
    }

    /// Plans the next poll by the sync's configuration.
    fn plan_next(&mut self, sync: &SyncRecord, now: Timestamp) {
        let status = &mut self.status;
        if !sync.is_active {
            status.paused_at.get_or_insert(now);
            status.pause_reason.get_or_insert_with(|| "The sync is switched off (is_active is false).".to_owned());
        }
        if status.paused_at.is_some() {
            status.state = SyncState::Suspended;
            status.next_sync_at = None;
            return;
        }
        let failures = status.consecutive_failures;
        let retry_at = |s: u64| now.plus_millis(i64::try_from(s.saturating_mul(1_000)).unwrap_or(i64::MAX));
        let interval = u64::from(sync.polling_interval_s);
        let stretched = interval.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let stretched = stretched.min(FAILING_INTERVAL_S_MAX.max(interval));
        let transient = status.last_error.as_ref().is_some_and(|error| error.transient);
        let ended = status.last_job.as_ref().map(|job| job.status);
        status.next_sync_at = match (sync.mode, ended) {
            // A single import waits to be triggered, and is repeated only while a mere repetition may help.
            (SyncMode::OneTime, Some(JobStatus::Failed)) if transient => Some(retry_at(stretched)),
            (SyncMode::OneTime, _) => None,
            (_, Some(_)) if failures > 0 => Some(retry_at(stretched)),
            // From the start of the latest job, so that a slow one does not stretch the interval.
            (_, Some(_)) => {
                let from = status.last_job.as_ref().map_or(now, |job| job.created_at);
                Some(from.plus_millis(i64::from(sync.polling_interval_s) * 1_000).max(now))
            }
            (_, None) => Some(retry_at(interval)),
        };
        status.state = match (ended, sync.mode) {
            (None, _) => SyncState::Pending,
            (Some(JobStatus::Completed), SyncMode::OneTime) => SyncState::Completed,
            (Some(JobStatus::Failed), _) if !transient => SyncState::Failed,
            _ => SyncState::Active,
        };
    }

    fn start_job(&mut self, job_id: String, trigger: Trigger, now: Timestamp) -> JobRecord {
        let job = JobRecord {
            job_id,
            sync_id: self.sync_id.clone(),
            trigger,
            status: JobStatus::Running,
            phase: Phase::Queued,
            created_at: now,
            started_at: None,
            updated_at: now,
            completed_at: None,
            counts: JobCounts::default(),
            cost: JobCost::default(),
            known_before: self.status.files_known,
            error: None,
            warning: None,
        };
        self.status.runs += 1;
        self.status.state = SyncState::Active;
        self.status.next_sync_at = None;
        self.status.current_job = Some(job.clone());
        self.step_failures = 0;
        self.step_not_before = None;
        self.confirm_deletes = false;
        job
    }

    /// Ends the running job, and answers its record.
    fn end_job(&mut self, status: JobStatus, error: Option<&Error>, now: Timestamp) -> Option<JobRecord> {
        let mut job = self.status.current_job.take()?;
        job.status = status;
        job.updated_at = now;
        job.completed_at = Some(now);
        job.error = error.map(ErrorRecord::from).or(job.error.filter(|_| status != JobStatus::Completed));
        if status == JobStatus::Completed {
            job.phase = Phase::Done;
            self.status.last_sync_at = Some(now);
            self.status.consecutive_failures = 0;
            self.status.last_error = None;
        } else if status == JobStatus::Failed {
            self.status.consecutive_failures += 1;
            self.status.last_error.clone_from(&job.error);
        }
        self.status.total_delivered += job.counts.delivered();
        self.status.total_bytes_delivered =
            self.status.total_bytes_delivered.saturating_add(job.counts.delivered_bytes);
        self.status.total_failed += job.counts.failed;
        self.status.last_job = Some(job.clone());
        self.jobs.insert(0, job.clone());
        self.jobs.truncate(JOBS_KEPT_MAX);
        self.lease = None;
        self.step_failures = 0;
        self.step_not_before = None;
        self.confirm_deletes = false;
        Some(job)
    }

    /// Takes in what a step of the running job did. Answers the job when that ended it.
    fn apply_report(&mut self, report: &StepReport, warning: Option<String>, now: Timestamp) -> Option<JobRecord> {
        self.lease = None;
        let job = self.status.current_job.as_mut()?;
        job.updated_at = now;
        job.phase = report.phase;
        job.counts = report.counts;
        job.known_before = report.known_before;
        job.cost = add_cost(job.cost, report.cost);
        self.status.files_known = report.files_known;
        self.status.bytes_known = report.bytes_known;
        match &report.outcome {
            Ok(outcome) => {
                job.error = None;
                self.step_failures = 0;
                self.step_not_before = None;
                if *outcome == Outcome::Continue {
                    return None;
                }
                job.warning = warning;
                self.end_job(JobStatus::Completed, None, now)
            }
            Err(error) if error.is_transient() && self.step_failures + 1 < STEP_FAILURES_MAX => {
                self.step_failures += 1;
                job.error = Some(ErrorRecord::from(error));
                let backoff = STEP_BACKOFF_BASE_MS.saturating_mul(1 << (self.step_failures - 1).min(20));
                let wait = error.retry_after_ms().unwrap_or(0).max(backoff).min(STEP_BACKOFF_CAP_MS);
                self.step_not_before = Some(now.plus_millis(i64::try_from(wait).unwrap_or(i64::MAX)));
                None
            }
            Err(error) => self.end_job(JobStatus::Failed, Some(error), now),
        }
    }
}

fn add_cost(a: JobCost, b: JobCost) -> JobCost {
    JobCost {
        class_b: a.class_b.saturating_add(b.class_b),
        class_c: a.class_c.saturating_add(b.class_c),
        bytes_received: a.bytes_received.saturating_add(b.bytes_received),
        state_reads: a.state_reads.saturating_add(b.state_reads),
        state_writes: a.state_writes.saturating_add(b.state_writes),
        steps: a.steps.saturating_add(b.steps),
    }
}

/// Changes with whatever makes a checkpoint worthless.
fn fingerprint(sync: &SyncRecord, filters: &FilterSpec) -> String {
    format!("{} {}", sync.source, filters.fingerprint())
}

/// What its user should know of a job that completed and found nothing.
fn nothing_found(sync: &SyncRecord, filters: &FilterSpec, counts: &JobCounts) -> Option<String> {
    if counts.matched > 0 {
        return None;
    }
    if counts.listed == 0 {
        return Some(format!(
            "There are no files below {}. Names are case-sensitive and a prefix is part of the name: check the source \
             path, or use b2://{}/ for the whole bucket.",
            sync.source,
            sync.source.bucket().as_str()
        ));
    }
    let patterns = |what: &str, list: &[String]| {
        if list.is_empty() { String::new() } else { format!(" {what} {list:?};") }
    };
    Some(format!(
        "Nothing matched: {} files were listed below {} and none passed the filters.{}{} check that they fit your file \
         names and extensions (a pattern without / matches the file name in any folder; names are case-sensitive), and \
         the date and size limits.",
        counts.listed,
        sync.source,
        patterns("include_patterns are", &filters.include_patterns),
        patterns("exclude_patterns are", &filters.exclude_patterns),
    ))
}

/// A sync's coordinator in its home.
#[derive(Clone, Copy, Debug)]
pub struct Coordinator<'a, H> {
    home: &'a H,
}

impl<'a, H: Home> Coordinator<'a, H> {
    /// In that home.
    pub fn new(home: &'a H) -> Self {
        Self { home }
    }

    /// Answers one call.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such sync; [`ErrorKind::Conflict`] when its state does not allow the
    /// call; those of the stores.
    pub async fn handle(&self, sync_id: &str, command: Command) -> Result<Answer, Error> {
        let now = self.home.clock().now();
        match command {
            Command::Status => Ok(Answer::Status(Box::new(self.load(sync_id).await?.0.status))),
            Command::Jobs { status, offset, limit } => {
                let (state, _) = self.load(sync_id).await?;
                let all = state.status.current_job.iter().chain(&state.jobs);
                let jobs: Vec<_> = all.filter(|job| status.is_none_or(|status| job.status == status)).collect();
                let page = jobs.iter().skip(usize::try_from(offset).unwrap_or(usize::MAX));
                let page = page.take(usize::try_from(limit).unwrap_or(usize::MAX)).map(|job| (*job).clone()).collect();
                Ok(Answer::Jobs { jobs: page, total: jobs.len() as u64 })
            }
            Command::Job { job_id } => {
                let (state, _) = self.load(sync_id).await?;
                let mut all = state.status.current_job.iter().chain(&state.jobs);
                Ok(Answer::Job { job: all.find(|job| job.job_id == job_id).cloned().map(Box::new) })
            }
            Command::Forget => self.forget(sync_id, now).await,
            Command::Configured => {
                let sync = self.sync(sync_id).await?;
                self.change(sync_id, |state| {
                    if state.status.current_job.is_none() {
                        state.plan_next(&sync, now);
                    }
                    Ok((Answer::Status(Box::new(state.status.clone())), None))
                })
                .await
            }
            Command::Trigger { trigger, confirm_deletes } => {
                let sync = self.sync(sync_id).await?;
                let job_id = ids::job_id(self.home.entropy());
                self.change(sync_id, |state| {
                    if let Some(job) = &state.status.current_job {
                        return Ok((Answer::Triggered { job: Box::new(job.clone()), started: false }, None));
                    }
                    if state.status.paused_at.is_some() || !sync.is_active {
                        return Err(Error::new(
                            ErrorKind::Conflict,
                            format!("The sync {sync_id} is paused."),
                            "Resume it first (POST …/resume); that starts a job as well.",
                        ));
                    }
                    let job = state.start_job(job_id.clone(), trigger, now);
                    state.confirm_deletes = confirm_deletes;
                    Ok((Answer::Triggered { job: Box::new(job), started: true }, None))
                })
                .await
            }
            Command::Poke { at } => self.poke(sync_id, at.max(now)).await,
            Command::Pause { reason } => {
                let sync = self.sync(sync_id).await?;
                self.change(sync_id, |state| {
                    let ended = state.end_job(JobStatus::Interrupted, None, now);
                    state.status.paused_at.get_or_insert(now);
                    state.status.pause_reason = reason.clone().or_else(|| Some("Paused by its user.".to_owned()));
                    state.plan_next(&sync, now);
                    Ok((Answer::Status(Box::new(state.status.clone())), ended))
                })
                .await
            }
            Command::Resume => {
                let sync = self.sync(sync_id).await?;
                let job_id = ids::job_id(self.home.entropy());
                self.change(sync_id, |state| {
                    state.status.paused_at = None;
                    state.status.pause_reason = None;
                    state.plan_next(&sync, now);
                    let wanted = sync.mode != SyncMode::OneTime || state.status.last_sync_at.is_none();
                    if state.status.paused_at.is_none() && state.status.current_job.is_none() && wanted {
                        state.start_job(job_id.clone(), Trigger::Resume, now);
                    }
                    Ok((Answer::Status(Box::new(state.status.clone())), None))
                })
                .await
            }
            Command::Unlock => {
                let sync = self.sync(sync_id).await?;
                self.change(sync_id, |state| {
                    let ended = state.end_job(JobStatus::Interrupted, None, now);
                    state.plan_next(&sync, now);
                    Ok((Answer::Status(Box::new(state.status.clone())), ended))
                })
                .await
            }
        }
    }

    /// Runs one step of the running job, or starts the job that is due and runs its first. Call it when the alarm goes
    /// off; too early or too often is harmless.
    ///
    /// # Errors
    /// Only those of the home's own stores. Set the alarm again after one; the cron does so too.
    pub async fn drive(&self) -> Result<(), Error> {
        let now = self.home.clock().now();
        let Some((state, _)) = self.stored().await? else { return Ok(()) };
        let sync_id = state.sync_id.clone();
        if state.forgotten {
            let again = (!self.home.wipe(&sync_id).await?).then(|| now.plus_millis(WIPE_INTERVAL_MS));
            return self.home.set_alarm(again).await;
        }
        let Some(sync) = self.home.registry().sync(&sync_id).await? else {
            // Deleted, and whoever deleted it was cut off before saying so.
            self.forget(&sync_id, now).await?;
            return Ok(());
        };
        let Some((job, confirm_deletes)) = self.begin_step(&sync, now).await? else { return Ok(()) };
        let filters = sync.effective_filters();
        let (report, account) = self.step(&sync, &filters, &job, confirm_deletes).await;
        let now = self.home.clock().now();
        let warning = nothing_found(&sync, &filters, &report.counts);
        let still = self
            .change(&sync_id, |state| {
                if state.status.current_job.as_ref().is_none_or(|current| current.job_id != job.job_id) {
                    return Ok((false, None));
                }
                let ended = state.apply_report(&report, warning.clone(), now);
                if ended.is_some() {
                    state.plan_next(&sync, now);
                }
                Ok((true, ended))
            })
            .await?;
        if !still || matches!(&report.outcome, Err(error) if !error.is_transient()) {
            self.discard_checkpoint(&sync, &job).await?;
        }
        self.note_connection(&sync, &report.outcome, account).await
    }

    /// Takes the lease for one step; `None`: there is nothing to do now, and the alarm is set.
    async fn begin_step(&self, sync: &SyncRecord, now: Timestamp) -> Result<Option<(JobRecord, bool)>, Error> {
        let job_id = ids::job_id(self.home.entropy());
        let config = self.home.config();
        let lease_ms = config.budget.wall_ms_max.saturating_add(LEASE_MARGIN_MS).min(ACCOUNT_MAX_AGE_MS);
        self.change(&sync.sync_id, |state| {
            if state.is_due(now) && sync.is_active {
                state.start_job(job_id.clone(), Trigger::Scheduled, now);
            }
            let held = state.lease.as_ref().is_some_and(|lease| {
                lease.until > now && (lease.holder == self.home.instance() || !config.sole_instance)
            });
            let waiting = state.step_not_before.is_some_and(|at| at > now);
            let Some(job) = state.status.current_job.as_mut().filter(|_| !held && !waiting) else {
                return Ok((None, None));
            };
            job.started_at.get_or_insert(now);
            let job = job.clone();
            state.lease = Some(Lease {
                holder: self.home.instance().to_owned(),
                until: now.plus_millis(i64::try_from(lease_ms).unwrap_or(i64::MAX)),
            });
            Ok((Some((job, state.confirm_deletes)), None))
        })
        .await
    }

    async fn step(
        &self,
        sync: &SyncRecord,
        filters: &FilterSpec,
        job: &JobRecord,
        confirm_deletes: bool,
    ) -> (StepReport, Option<Account>) {
        match self.try_step(sync, filters, job, confirm_deletes).await {
            Ok(done) => done,
            Err((error, cost)) => {
                let report = StepReport {
                    outcome: Err(error),
                    phase: job.phase,
                    counts: job.counts,
                    cost,
                    known_before: job.known_before,
                    files_known: job.known_before,
                    bytes_known: 0,
                    spent: Default::default(),
                };
                (report, None)
            }
        }
    }

    async fn try_step(
        &self,
        sync: &SyncRecord,
        filters: &FilterSpec,
        job: &JobRecord,
        confirm_deletes: bool,
    ) -> Result<(StepReport, Option<Account>), (Error, JobCost)> {
        let home = self.home;
        let config = home.config();
        let free = |error: Error| (error, JobCost { steps: 1, ..JobCost::default() });
        let connection = home.registry().connection(&sync.connection_id).await.map_err(free)?;
        let connection = usable(connection, &sync.connection_id).map_err(free)?;
        let credentials = self.credentials(&connection).map_err(free)?;
        let filter = Filter::compile(filters, &sync.source).map_err(free)?;
        let cut = Cut::parse(&sync.salt).ok_or_else(|| free(Error::internal("The sync's salt is unreadable.")))?;
        let client = B2Client::new(home.http(), home.clock(), home.entropy(), config.retry);
        let now = home.clock().now();
        let fresh = connection.authorized_at.is_some_and(|at| now.millis_since(at) < ACCOUNT_MAX_AGE_MS);
        let cached = connection.account.clone().filter(|_| fresh).and_then(|account| Account::try_from(account).ok());
        let mut authorized = None;
        let account = match cached {
            Some(account) => account,
            None => {
                let result = client.authorize(&config.b2_api_url, &credentials).await;
                let cost = JobCost { class_c: client.counts().class_c, steps: 1, ..JobCost::default() };
                let account = result.map_err(|error| (error, cost))?;
                authorized = Some(account.clone());
                account
            }
        };
        account.check(&sync.source, now).map_err(free)?;
        let source = B2Source::new(client, &config.b2_api_url, &credentials, &sync.source, account);
        let blobs = home.blobs(&sync.sync_id);
        let sink = home.sink(sync);
        let engine =
            Engine { source: &source, blobs: &blobs, documents: home.documents(), sink: &sink, clock: home.clock() };
        let order = Order {
            job_id: &job.job_id,
            sync_id: &sync.sync_id,
            cut,
            filter: &filter,
            fingerprint: &fingerprint(sync, filters),
            reconcile: sync.reconcile,
            confirm_deletes,
        };
        let report = engine.step(&order, &config.budget).await;
        Ok((report, source.refreshed().or(authorized)))
    }

    fn credentials(&self, connection: &ConnectionRecord) -> Result<Credentials, Error> {
        let sealed = connection.application_key.as_ref().ok_or_else(|| gone(&connection.connection_id))?;
        let key = self.home.config().master_keys.open(sealed, &connection.connection_id)?;
        Credentials::new(&connection.key_id, key.expose_secret())
    }

    async fn discard_checkpoint(&self, sync: &SyncRecord, _job: &JobRecord) -> Result<(), Error> {
        let blobs = self.home.blobs(&sync.sync_id);
        crate::engine::discard_checkpoint(&blobs, self.home.documents()).await
    }

    /// Notes with the connection that it worked or failed, and what B2 said of the account. Nothing is written while
    /// it just works.
    async fn note_connection(
        &self,
        sync: &SyncRecord,
        outcome: &Result<Outcome, Error>,
        account: Option<Account>,
    ) -> Result<(), Error> {
        let refused = outcome.as_ref().err().filter(|error| blames_connection(error.kind()));
        let registry = self.home.registry();
        for _ in 0..SWAP_ATTEMPTS_MAX {
            let Some(mut connection) = registry.connection(&sync.connection_id).await? else { return Ok(()) };
            if connection.archived || (refused.is_none() && account.is_none() && connection.consecutive_failures == 0) {
                return Ok(());
            }
            let now = self.home.clock().now();
            if let Some(error) = refused {
                connection.consecutive_failures += 1;
                connection.last_error = Some(error.to_string().chars().take(1_000).collect());
                connection.account = None;
                connection.status = if connection.consecutive_failures >= CONNECTION_FAILURES_MAX {
                    ConnectionStatus::Suspended
                } else {
                    ConnectionStatus::Failed
                };
            } else if outcome.is_ok() {
                connection.consecutive_failures = 0;
                connection.last_error = None;
                connection.status = ConnectionStatus::Active;
                connection.last_used_at = Some(now);
            }
            if let Some(account) = &account {
                connection.account = Some(StoredAccount::from(account));
                connection.authorized_at = Some(now);
            }
            connection.updated_at = now;
            let expected = connection.revision;
            match registry.update_connection(connection, expected).await {
                Err(error) if error.kind() == ErrorKind::StateConflict => {}
                result => return result.map(|_| ()),
            }
        }
        Ok(())
    }

    /// From the cron: the watchdog.
    async fn poke(&self, sync_id: &str, at: Timestamp) -> Result<Answer, Error> {
        let Some(sync) = self.home.registry().sync(sync_id).await? else {
            return Ok(Answer::Poked { next: None });
        };
        let job_id = ids::job_id(self.home.entropy());
        self.change(sync_id, |state| {
            if state.status.current_job.is_none() && state.status.next_sync_at.is_none() {
                // Never planned: whoever created it was cut off; or there is nothing to plan.
                state.plan_next(&sync, at);
            }
            if state.is_due(at) && sync.is_active {
                state.start_job(job_id.clone(), Trigger::Scheduled, self.home.clock().now());
            }
            let next = match &state.status.current_job {
                Some(_) => Some(at.plus_millis(POKE_RUNNING_MS)),
                None => state.status.next_sync_at,
            };
            Ok((Answer::Poked { next }, None))
        })
        .await
    }

    async fn forget(&self, sync_id: &str, now: Timestamp) -> Result<Answer, Error> {
        self.change(sync_id, |state| {
            let ended = state.end_job(JobStatus::Interrupted, None, now);
            state.forgotten = true;
            state.status.next_sync_at = None;
            Ok((Answer::Forgotten, ended))
        })
        .await
    }

    async fn sync(&self, sync_id: &str) -> Result<SyncRecord, Error> {
        self.home.registry().sync(sync_id).await?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("There is no sync {sync_id}."),
                "List the syncs of the bucket to see which there are.",
            )
        })
    }

    async fn stored(&self) -> Result<Option<(State, u64)>, Error> {
        let Some(document) = self.home.documents().load(DOCUMENT).await? else { return Ok(None) };
        let corrupt = |why: String| {
            Error::new(
                ErrorKind::StateCorrupt,
                format!("The coordinator's stored document cannot be read: {why}."),
                "Use the version of b2sync that wrote it, or delete the sync and create it again.",
            )
        };
        let state: State = serde_json::from_slice(&document.value).map_err(|error| corrupt(error.to_string()))?;
        if state.v != VERSION {
            return Err(corrupt(format!("it has version {}, and this b2sync reads version {VERSION}", state.v)));
        }
        Ok(Some((state, document.revision)))
    }

    async fn load(&self, sync_id: &str) -> Result<(State, u64), Error> {
        Ok(self.stored().await?.unwrap_or_else(|| (State::new(sync_id), 0)))
    }

    /// Reads the document, lets `decide` change it, and writes it back; again if somebody else moved it meanwhile.
    /// Then publishes the job that ended, if one did, and sets the alarm.
    async fn change<T>(
        &self,
        sync_id: &str,
        mut decide: impl FnMut(&mut State) -> Result<(T, Option<JobRecord>), Error>,
    ) -> Result<T, Error> {
        for _ in 0..SWAP_ATTEMPTS_MAX {
            let (before, revision) = self.load(sync_id).await?;
            let mut state = before.clone();
            let (answer, ended) = decide(&mut state)?;
            if state != before {
                let bytes = serde_json::to_vec(&state).map_err(|error| {
                    Error::internal(format!("The coordinator's document does not encode: {error}."))
                })?;
                if self.home.documents().swap(DOCUMENT, revision, Some(bytes.into())).await? == Swapped::Conflict {
                    continue;
                }
            }
            self.home.set_alarm(state.next_alarm(self.home.clock().now())).await?;
            if let Some(job) = ended.filter(is_worth_publishing) {
                self.home.publish_job(&job).await?;
            }
            return Ok(answer);
        }
        Err(Error::new(
            ErrorKind::StateConflict,
            format!("The state of {sync_id} was changed by others {SWAP_ATTEMPTS_MAX} times in a row."),
            "Try again.",
        )
        .with_retry(Retry::Temporary))
    }
}

/// A poll that found nothing is not history.
fn is_worth_publishing(job: &JobRecord) -> bool {
    job.status != JobStatus::Completed || job.counts.delivered() > 0 || job.counts.failed > 0
}

/// Whether an error is the connection's fault rather than the sync's or B2's.
const fn blames_connection(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::BadCredentials | ErrorKind::KeyExpired | ErrorKind::Sealing)
}

fn gone(connection_id: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("The connection {connection_id} was deleted."),
        "Delete this sync and create one with another connection.",
    )
}

fn usable(connection: Option<ConnectionRecord>, connection_id: &str) -> Result<ConnectionRecord, Error> {
    let connection = connection.filter(|it| !it.archived).ok_or_else(|| gone(connection_id))?;
    if !connection.is_active {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!("The connection {:?} is switched off.", connection.name),
            "Switch it on again: PATCH it with {\"is_active\": true}.",
        ));
    }
    Ok(connection)
}
