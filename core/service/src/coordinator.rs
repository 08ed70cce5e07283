//! One coordinator a sync: it alone starts, drives and ends the jobs of its sync.
//!
//! It is a state machine over one stored document. Every call reads the document, decides, and writes it back by
//! compare-and-swap; [`Coordinator::drive`] runs one step of the running job, or starts the job that is due. On Workers
//! a Durable Object holds it: `fetch` is [`Coordinator::handle`], `alarm` is [`Coordinator::drive`], and the cron pokes
//! it, so that a lost alarm costs a minute and nothing else.
//!
//! It deliberately does not keep time by itself, or decide what a change is; and it holds nothing in memory between calls but
//! what a job that has found nothing has read so far ([`Home::memory`]), which may be lost.
//!
//! # Invariants
//! - At most one job of a sync is running. Whoever asks for another is told of the one there is.
//! - At most one step of a sync is on its way, also when its job was ended meanwhile: whoever holds the lease is alone
//!   with the snapshot, and a report counts only while its step's lease does.
//! - A job that ends leaves no checkpoint behind, once its step has ended too.
//! - After each call there is an alarm, unless nothing is ever due; none goes off in a loop.

pub mod protocol;
pub mod ranges;

use std::cell::Cell;

use serde::{Deserialize, Serialize};

use self::{
    protocol::{Answer, Command, Stretched, SyncState, SyncStatus},
    ranges::{RangeAnswer, RangeCall, Ranges},
};
use crate::{
    cost,
    registry::{ConnectionRecord, Registry, SyncMode, SyncRecord},
    seal::{MasterKeys, Sealed},
};
use b2sync_core::{
    b2::{
        account::{Account, Credentials, StoredAccount},
        client::B2Client,
        source::B2Source,
    },
    dead_letters::{DeadLetter, DeadLetters},
    engine::{
        Engine, Order, Outcome, StepReport,
        bookmark::Bookmark,
        budget::{Budget, STREAMS_HERE_MAX},
        listing::RangeReader,
        memory::{Holding, Memory},
        source::{Page, PageStart, Source, SourceCost},
        thresholds::Thresholds,
    },
    entropy::Entropy,
    error::{Error, ErrorKind, Retry},
    filter::{Filter, FilterSpec},
    http::HttpClient,
    ids,
    job::{ErrorRecord, JobCost, JobCounts, JobRecord, JobStatus, Phase, Trigger},
    mutation::{self, Mutation},
    retry::RetryPolicy,
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
/// A lease outlasts the step's own time limit by this many milliseconds: a page that was asked for just before the limit
/// may take all its retries, each until it times out.
pub const LEASE_MARGIN_MS: u64 = 300_000;
/// How soon an instance looks again while a step of its own is on its way, in milliseconds. The step's end calls earlier;
/// this is for the step that dies with its instance.
pub const LEASE_LOOK_MS: i64 = 1_000;
/// How soon the rest of a deleted sync is deleted, in milliseconds: a store may go on listing what is gone for a while.
pub const WIPE_AGAIN_MS: i64 = 65_000;
/// How soon the cron looks again after a job that runs, in milliseconds.
pub const POKE_RUNNING_MS: i64 = 60_000;
/// How long an account is used as it was cached, in milliseconds: a day, as long as B2's own tokens live.
pub const ACCOUNT_MAX_AGE_MS: u64 = 24 * 3_600_000;
/// One more range is read at the same time for so many files, up to [`STREAMS_HERE_MAX`], where a sync does not say how many.
pub const STREAM_FILES: u64 = 100_000;
/// The wait before a store that failed is asked once more, in milliseconds.
const STORE_AGAIN_MS: u64 = 500;
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
    /// For tests: the mean and the most entries of a segment, so that a small bucket has many. `None` everywhere else:
    /// other sizes have every snapshot written anew.
    pub cut_sizes: Option<(u64, usize)>,
    /// From how much on something is stored; tests make it little.
    pub thresholds: Thresholds,
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

    /// Where this instance holds a job between two steps; the same for all calls of one instance, and each instance has its
    /// own. `None`: it does not.
    fn memory(&self) -> Option<&Memory> {
        None
    }

    /// How many shards there are that read ranges for a coordinator.
    fn shards_max(&self) -> usize {
        0
    }

    /// Has one of [`Home::shards_max`] shards read on in a range: by [`ranges::read_range`], somewhere else.
    ///
    /// # Errors
    /// Any: the coordinator reads the range itself then.
    async fn read_range(&self, shard: usize, call: RangeCall) -> Result<RangeAnswer, Error> {
        let _ = call;
        Err(Error::internal(format!("There is no shard {shard}.")))
    }

    /// Deletes some of what is stored of a sync that was deleted; `true` when nothing is left.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    async fn wipe(&self, sync_id: &str) -> Result<bool, Error>;
}

/// The right to run a step, and to touch the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    holder: String,
    until: Timestamp,
    /// Which step: a random number.
    #[serde(default)]
    step: u64,
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
    /// Whether the running job hands over every file.
    #[serde(default)]
    resync: bool,
    /// The sync was deleted: only its state remains to be.
    #[serde(default)]
    forgotten: bool,
    /// Jobs that ended and whose records are not known to be published, oldest first.
    #[serde(default)]
    unpublished: Vec<JobRecord>,
    /// Dead letters were sent back while a job was running: another begins once it has completed.
    #[serde(default)]
    run_again: bool,
    /// Dead letters wait to be offered again.
    #[serde(default)]
    requeued: bool,
    /// Where the running job goes on, if it has found nothing so far.
    #[serde(default)]
    bookmark: Option<Bookmark>,
    /// Which step took the lease last, whatever became of it.
    #[serde(default)]
    last_step: Option<u64>,
}

/// Reads a coordinator's document and writes it again: all that those who try the decoder need to see of it.
///
/// # Errors
/// [`ErrorKind::StateCorrupt`] for bytes that are none of this version.
pub fn document_read_and_written(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    State::decode(bytes)?.encode()
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
            resync: false,
            forgotten: false,
            unpublished: Vec::new(),
            run_again: false,
            requeued: false,
            bookmark: None,
            last_step: None,
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let corrupt = |why: String| {
            Error::new(
                ErrorKind::StateCorrupt,
                format!("The coordinator's stored document cannot be read: {why}."),
                "Use the version of b2sync that wrote it, or delete the sync and create it again.",
            )
        };
        let state: Self = serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))?;
        if state.v != VERSION {
            return Err(corrupt(format!("it has version {}, and this b2sync reads version {VERSION}", state.v)));
        }
        Ok(state)
    }

    fn encode(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self)
            .map_err(|error| Error::internal(format!("The coordinator's document does not encode: {error}.")))
    }

    /// When [`Coordinator::drive`] has something to do next, unless a lease is in the way until `held_until`.
    fn next_alarm(&self, now: Timestamp, held_until: Option<Timestamp>) -> Option<Timestamp> {
        if self.forgotten || self.status.current_job.is_some() {
            return Some(self.step_not_before.max(held_until).unwrap_or(now).max(now));
        }
        self.status.next_sync_at
    }

    fn has_lease(&self, step: u64) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.step == step)
    }

    fn is_running(&self, job_id: &str) -> bool {
        self.status.current_job.as_ref().is_some_and(|job| job.job_id == job_id)
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.status.current_job.is_none() && self.status.next_sync_at.is_some_and(|at| at <= now)
    }

    /// Plans the next poll by the sync's configuration.
    fn plan_next(&mut self, sync: &SyncRecord, now: Timestamp) {
        let status = &mut self.status;
        status.stretched = None;
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
        let limited = status.last_job.as_ref().is_some_and(|job| job.limited);
        status.next_sync_at = match (sync.mode, ended) {
            // A single import waits to be triggered, and is repeated only while a mere repetition may help.
            (SyncMode::OneTime, Some(JobStatus::Failed)) if transient => Some(retry_at(stretched)),
            // It took as many files as one run may; the next goes on.
            (SyncMode::OneTime, Some(JobStatus::Completed)) if limited => Some(retry_at(interval)),
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
            (Some(JobStatus::Completed), SyncMode::OneTime) if !limited => SyncState::Completed,
            (Some(JobStatus::Failed), _) if !transient => SyncState::Failed,
            _ => SyncState::Active,
        };
        if self.run_again && ended == Some(JobStatus::Completed) {
            // Asked for by somebody, so neither an interval nor a cap is in the way.
            status.next_sync_at = Some(now);
        } else {
            self.stretch(sync);
        }
    }

    /// Puts the next poll off as far as `max_class_c_per_day` asks for, and says so. Every job that is kept counts, however
    /// it ended and why ever it was started.
    fn stretch(&mut self, sync: &SyncRecord) {
        let (Some(cap), Some(next)) = (sync.max_class_c_per_day, self.status.next_sync_at) else { return };
        let interval_s = u64::from(sync.polling_interval_s);
        let jobs = self.jobs.iter().map(|job| (job.created_at, job.cost.class_c));
        let Some(put_off) = cost::put_off(interval_s, jobs, cap).filter(|it| it.until > next) else { return };
        if mutation::is_on(Mutation::IgnoreCap) {
            return;
        }
        self.status.next_sync_at = Some(put_off.until);
        self.status.stretched = Some(Stretched {
            interval_seconds: put_off.interval_s,
            reason: format!(
                "A job made {} class C calls. So that there are at most {cap} a day (max_class_c_per_day), the next poll \
                 begins {} seconds after that job and not {interval_s}. Raise max_class_c_per_day, or remove it with null, \
                 to poll more often.",
                put_off.class_c, put_off.interval_s
            ),
        });
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
            limited: false,
        };
        self.status.runs += 1;
        self.status.state = SyncState::Active;
        self.status.next_sync_at = None;
        self.status.current_job = Some(job.clone());
        self.step_failures = 0;
        self.step_not_before = None;
        self.confirm_deletes = false;
        self.resync = false;
        self.run_again = false;
        self.bookmark = None;
        job
    }

    /// Ends the running job, and answers its record. A step that is on its way keeps the lease.
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
            self.status.completed_cost = Some(job.cost);
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
        if is_worth_publishing(&job) {
            self.unpublished.push(job.clone());
            let over = self.unpublished.len().saturating_sub(JOBS_KEPT_MAX);
            self.unpublished.drain(..over);
        }
        self.step_failures = 0;
        self.step_not_before = None;
        self.confirm_deletes = false;
        self.resync = false;
        self.bookmark = None;
        Some(job)
    }

    /// Takes in what a step of the running job did. Answers the job when that ended it.
    fn apply_report(&mut self, report: &StepReport, warning: Option<String>, now: Timestamp) -> Option<JobRecord> {
        let job = self.status.current_job.as_mut()?;
        job.updated_at = now;
        job.cost = add_cost(job.cost, report.cost);
        // A step that failed before it had read anything knows nothing.
        if report.outcome.is_ok() || report.phase != Phase::Queued {
            job.phase = report.phase;
            job.counts = report.counts;
            job.known_before = report.known_before;
            self.status.files_known = report.files_known;
            self.status.bytes_known = report.bytes_known;
        }
        // One that is older than a checkpoint stays, and does not count beside it.
        if report.bookmark.is_some() {
            self.bookmark.clone_from(&report.bookmark);
        }
        match &report.outcome {
            Ok(outcome) => {
                job.error = None;
                self.step_failures = 0;
                self.step_not_before = None;
                if *outcome == Outcome::Continue {
                    return None;
                }
                job.limited = report.limited;
                job.warning = if report.limited {
                    Some(format!(
                        "Stopped after {} files, as max_objects_per_run says; the next run goes on with the others.",
                        report.counts.created + report.counts.updated
                    ))
                } else {
                    warning
                };
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
        state_deletions: a.state_deletions.saturating_add(b.state_deletions),
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
        let ends_job = matches!(command, Command::Pause { .. } | Command::Unlock);
        if let Some(memory) = self.home.memory().filter(|_| ends_job || matches!(command, Command::Forget)) {
            memory.forget();
        }
        let mut answer = self.answer(sync_id, command, now).await?;
        if ends_job {
            // What was asked for is done. Should the rest fail, the next job does it before it begins.
            let _ = self.clean_up(sync_id, now).await;
            let _ = self.publish_jobs(sync_id).await;
        }
        if let Answer::Status(status) = &mut answer {
            // How the sync stands is worth knowing without them.
            let letters = DeadLetters::load(self.home.documents()).await;
            status.dead_letters = letters.ok().map(|(letters, _)| letters.by_error_type());
        }
        Ok(answer)
    }

    async fn answer(&self, sync_id: &str, command: Command, now: Timestamp) -> Result<Answer, Error> {
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
            Command::DeadLetters { only_max_retries, error_types, offset, limit } => {
                let (letters, _) = DeadLetters::load(self.home.documents()).await?;
                let wanted = |letter: &&DeadLetter| {
                    !(only_max_retries && letter.requeued)
                        && (error_types.is_empty() || error_types.contains(&letter.error_type))
                };
                let mut letters: Vec<&DeadLetter> = letters.iter().filter(wanted).collect();
                letters.sort_by(|a, b| (b.first_seen_at, &b.key).cmp(&(a.first_seen_at, &a.key)));
                let page = letters.iter().skip(usize::try_from(offset).unwrap_or(usize::MAX));
                let page =
                    page.take(usize::try_from(limit).unwrap_or(usize::MAX)).map(|&letter| letter.clone()).collect();
                Ok(Answer::DeadLetters { letters: page, total: letters.len() as u64 })
            }
            Command::Requeue { error_types } => self.requeue(sync_id, &error_types, now).await,
            Command::MarkFailed { error_types } => {
                self.not_forgotten(sync_id).await?;
                let mark = |letters: &mut DeadLetters| Ok(letters.mark_failed(&error_types));
                let letters = DeadLetters::change(self.home.documents(), mark).await?;
                Ok(Answer::Marked { letters, job: None })
            }
            Command::Forget => self.forget(sync_id, now).await,
            Command::Configured => {
                let sync = self.sync(sync_id).await?;
                self.change(sync_id, |state| {
                    if state.status.current_job.is_none() {
                        state.plan_next(&sync, now);
                    }
                    Ok(Answer::Status(Box::new(state.status.clone())))
                })
                .await
            }
            Command::ConnectionLifted => {
                let sync = self.sync(sync_id).await?;
                let job_id = ids::job_id(self.home.entropy());
                self.change(sync_id, |state| {
                    let paused = state.status.paused_at.is_some() || !sync.is_active;
                    let failed = state.status.last_job.as_ref().is_some_and(|job| job.status == JobStatus::Failed);
                    if state.status.current_job.is_none() && failed && !paused {
                        state.start_job(job_id.clone(), Trigger::Resume, now);
                    }
                    Ok(Answer::Status(Box::new(state.status.clone())))
                })
                .await
            }
            Command::Trigger { trigger, confirm_deletes, full_sync } => {
                let sync = self.sync(sync_id).await?;
                let job_id = ids::job_id(self.home.entropy());
                self.change(sync_id, |state| {
                    if let Some(job) = &state.status.current_job {
                        return Ok(Answer::Triggered { job: Box::new(job.clone()), started: false });
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
                    state.resync = full_sync && !sync.skip_duplicates;
                    Ok(Answer::Triggered { job: Box::new(job), started: true })
                })
                .await
            }
            Command::Poke { at } => self.poke(sync_id, at.max(now)).await,
            Command::Pause { reason } => {
                let sync = self.sync(sync_id).await?;
                self.change(sync_id, |state| {
                    state.end_job(JobStatus::Interrupted, None, now);
                    state.status.paused_at.get_or_insert(now);
                    state.status.pause_reason = reason.clone().or_else(|| Some("Paused by its user.".to_owned()));
                    state.plan_next(&sync, now);
                    Ok(Answer::Status(Box::new(state.status.clone())))
                })
                .await
            }
            Command::Resume => {
                let sync = self.sync(sync_id).await?;
                let job_id = ids::job_id(self.home.entropy());
                self.change(sync_id, |state| {
                    state.status.paused_at = None;
                    state.status.pause_reason = None;
                    if state.status.current_job.is_some() {
                        return Ok(Answer::Status(Box::new(state.status.clone())));
                    }
                    state.plan_next(&sync, now);
                    let wanted = sync.mode != SyncMode::OneTime || state.status.last_sync_at.is_none();
                    if state.status.paused_at.is_none() && wanted {
                        state.start_job(job_id.clone(), Trigger::Resume, now);
                    }
                    Ok(Answer::Status(Box::new(state.status.clone())))
                })
                .await
            }
            Command::Unlock => {
                let sync = self.sync(sync_id).await?;
                self.change(sync_id, |state| {
                    state.end_job(JobStatus::Interrupted, None, now);
                    state.plan_next(&sync, now);
                    Ok(Answer::Status(Box::new(state.status.clone())))
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
            let again = match self.held_until(&state, now) {
                Some(until) => until,
                // An alarm that is set by now is that of a call which found nothing any more and began anew: it ends that.
                None if mutation::is_on(Mutation::KeepForgotten) => return Ok(()),
                None if self.home.wipe(&sync_id).await? => return Ok(()),
                None => now.plus_millis(WIPE_AGAIN_MS),
            };
            return self.home.set_alarm(Some(again)).await;
        }
        let Some(sync) = self.home.registry().sync(&sync_id).await? else {
            // Deleted, and whoever deleted it was cut off before saying so.
            self.forget(&sync_id, now).await?;
            return Ok(());
        };
        self.publish_jobs(&sync_id).await?;
        let Some(begun) = self.begin_step(&sync, now).await? else { return Ok(()) };
        let filters = sync.effective_filters();
        let (report, used) = self.step(&sync, &filters, &begun).await;
        let now = self.home.clock().now();
        let warning = nothing_found(&sync, &filters, &report.counts);
        let mut goes_on = false;
        let broke_off = self
            .change_surely(&sync_id, |state| {
                goes_on = false;
                if state.forgotten {
                    state.lease = None;
                    return Ok(false);
                }
                if !state.has_lease(begun.step) {
                    // It took so long that another step has begun: that one's report counts.
                    return Ok(false);
                }
                if !state.is_running(&begun.job.job_id) {
                    return Ok(true);
                }
                let ended = state.apply_report(&report, warning.clone(), now);
                goes_on = ended.is_none();
                if let Some(job) = &ended {
                    // Those that were sent back since this step began wait for the next job.
                    let offered = job.status == JobStatus::Completed && begun.requeued && !state.run_again;
                    state.requeued &= !offered;
                    state.plan_next(&sync, now);
                }
                let broke_off = ended.is_some_and(|job| job.status != JobStatus::Completed);
                if !broke_off {
                    state.lease = None;
                }
                Ok(broke_off)
            })
            .await;
        if let Some(memory) = self.home.memory().filter(|_| !goes_on) {
            memory.forget();
        }
        let broke_off = broke_off?;
        // One failure must not keep the others from being done; each is made up for later by whoever comes next.
        let settled = if broke_off { self.settle(&sync, begun.step).await } else { Ok(()) };
        let noted = self.note_connection(&sync, &report.outcome, used).await;
        let published = self.publish_jobs(&sync_id).await;
        settled.and(noted).and(published)
    }

    /// Until when a lease keeps this instance from running a step; `None`: nothing does.
    fn held_until(&self, state: &State, now: Timestamp) -> Option<Timestamp> {
        let lease = state.lease.as_ref().filter(|lease| lease.until > now)?;
        match (lease.holder == self.home.instance(), self.home.config().sole_instance) {
            (true, true) => Some(lease.until.min(now.plus_millis(LEASE_LOOK_MS))),
            (false, true) => None,
            (_, false) => Some(lease.until),
        }
    }

    fn take_lease(&self, state: &mut State, now: Timestamp) -> u64 {
        let lease_ms = self.home.config().budget.wall_ms_max.saturating_add(LEASE_MARGIN_MS).min(ACCOUNT_MAX_AGE_MS);
        let until = now.plus_millis(i64::try_from(lease_ms).unwrap_or(i64::MAX));
        let step = self.home.entropy().below(u64::MAX);
        state.lease = Some(Lease { holder: self.home.instance().to_owned(), until, step });
        state.last_step = Some(step);
        step
    }

    /// Settles the checkpoint of a job that was ended between two steps. A step that is on its way does so itself.
    async fn clean_up(&self, sync_id: &str, now: Timestamp) -> Result<(), Error> {
        // Before the lease is taken: nobody would give it back.
        let sync = self.sync(sync_id).await?;
        let step = self
            .change_with_lease(sync_id, |state| {
                let free = state.status.current_job.is_none() && self.held_until(state, now).is_none();
                let step = free.then(|| self.take_lease(state, now));
                Ok((step, step))
            })
            .await?;
        match step {
            Some(step) => self.settle(&sync, step).await,
            None => Ok(()),
        }
    }

    /// Settles the checkpoint of the job that ended, and gives the lease back.
    async fn settle(&self, sync: &SyncRecord, step: u64) -> Result<(), Error> {
        let sync_id = &sync.sync_id;
        let blobs = self.home.blobs(sync_id);
        // Should it fail, the next job does it before it begins.
        let settled = match cut(self.home.config(), sync) {
            Ok(cut) => b2sync_core::engine::settle_checkpoint(&blobs, self.home.documents(), cut).await,
            Err(error) => Err(error),
        };
        let root = match &settled {
            Ok(root) => Some((root.entries, root.bytes)),
            Err(_) => None,
        };
        self.change_surely(sync_id, |state| {
            if state.has_lease(step) {
                state.lease = None;
                if let Some((entries, bytes)) = root {
                    (state.status.files_known, state.status.bytes_known) = (entries, bytes);
                }
            }
            Ok(())
        })
        .await?;
        settled.map(|_| ())
    }

    /// Takes the lease for one step; `None`: there is nothing to do now, and the alarm is set.
    async fn begin_step(&self, sync: &SyncRecord, now: Timestamp) -> Result<Option<Begun>, Error> {
        let job_id = ids::job_id(self.home.entropy());
        self.change_with_lease(&sync.sync_id, |state| {
            self.start_due(state, sync, &job_id, now);
            let held = self.held_until(state, now).is_some() && !mutation::is_on(Mutation::SkipLease);
            let waiting = state.step_not_before.is_some_and(|at| at > now);
            let Some(job) = state.status.current_job.as_mut().filter(|_| !held && !waiting) else {
                return Ok((None, None));
            };
            job.started_at.get_or_insert(now);
            let job = job.clone();
            let step_before = state.last_step;
            let step = self.take_lease(state, now);
            let begun = Begun {
                job,
                step,
                step_before,
                confirm_deletes: state.confirm_deletes,
                resync: state.resync,
                requeued: state.requeued,
                bookmark: state.bookmark.clone(),
            };
            Ok((Some(begun), Some(step)))
        })
        .await
    }

    /// Starts the job that is due.
    fn start_due(&self, state: &mut State, sync: &SyncRecord, job_id: &str, at: Timestamp) {
        if !state.is_due(at) {
            return;
        }
        if sync.is_active {
            state.start_job(job_id.to_owned(), Trigger::Scheduled, self.home.clock().now());
        } else {
            // Switched off, and whoever did so was cut off before saying so.
            state.plan_next(sync, at);
        }
    }

    async fn step(&self, sync: &SyncRecord, filters: &FilterSpec, begun: &Begun) -> (StepReport, Used) {
        let job = &begun.job;
        let mut used = Used::default();
        match self.try_step(sync, filters, begun, &mut used).await {
            Ok(report) => (report, used),
            Err((error, cost)) => {
                let report = StepReport {
                    outcome: Err(error),
                    phase: Phase::Queued,
                    counts: job.counts,
                    cost,
                    known_before: job.known_before,
                    files_known: job.known_before,
                    bytes_known: 0,
                    limited: false,
                    spent: Default::default(),
                    bookmark: None,
                };
                (report, used)
            }
        }
    }

    async fn try_step(
        &self,
        sync: &SyncRecord,
        filters: &FilterSpec,
        begun: &Begun,
        used: &mut Used,
    ) -> Result<StepReport, (Error, JobCost)> {
        let home = self.home;
        let config = home.config();
        let free = |error: Error| (error, JobCost { steps: 1, ..JobCost::default() });
        let connection = home.registry().connection(&sync.connection_id).await.map_err(free)?;
        let connection = connection.filter(|it| !it.archived).ok_or_else(|| free(gone(&sync.connection_id)))?;
        connection.check_usable().map_err(free)?;
        used.application_key.clone_from(&connection.application_key);
        used.key_id.clone_from(&connection.key_id);
        let credentials = credentials(config, &connection).map_err(free)?;
        let filter = Filter::compile(filters, &sync.source).map_err(free)?;
        let cut = cut(config, sync).map_err(free)?;
        let client = B2Client::new(home.http(), home.clock(), home.entropy(), config.retry);
        let now = home.clock().now();
        let fresh = connection.authorized_at.is_some_and(|at| now.millis_since(at) < ACCOUNT_MAX_AGE_MS);
        let cached = connection.account.clone().filter(|_| fresh).and_then(|account| Account::try_from(account).ok());
        let mut authorizing = JobCost::default();
        let account = match cached {
            Some(account) => account,
            None => {
                let result = client.authorize(&config.b2_api_url, &credentials).await;
                let counts = client.counts();
                authorizing.class_c = counts.class_c;
                authorizing.bytes_received = counts.bytes_received;
                let account = result.map_err(|error| (error, JobCost { steps: 1, ..authorizing }))?;
                used.account = Some(account.clone());
                account
            }
        };
        account.check(&sync.source, now).map_err(|error| (error, JobCost { steps: 1, ..authorizing }))?;
        let ranges = Ranges::new(home, sync, &connection, StoredAccount::from(&account));
        // The platform counts the whole invocation, and the engine what comes from here on.
        let spent_before = client.counts();
        let budget = config.budget.without(spent_before.subrequests, spent_before.bytes_received);
        let source = B2Source::new(client, &config.b2_api_url, &credentials, &sync.source, account);
        let blobs = home.blobs(&sync.sync_id);
        let sink = home.sink(sync);
        let source = Leased { source: &source, ranges, coordinator: self, begun, seen: Cell::new(0) };
        let engine =
            Engine { source: &source, blobs: &blobs, documents: home.documents(), sink: &sink, clock: home.clock() };
        let fingerprint = fingerprint(sync, filters);
        let order = Order {
            reconcile: sync.reconcile,
            deletion_limit: sync.deletion_limit,
            confirm_deletes: begun.confirm_deletes,
            objects_max: sync.max_objects_per_run,
            streams: streams(sync, begun.job.known_before, home.shards_max()),
            resync: begun.resync,
            redeliver: begun.requeued,
            thresholds: config.thresholds,
            bookmark: Some(begun.bookmark.clone().unwrap_or_default()),
            held: self.holding(begun),
            ..Order::new(&begun.job.job_id, &sync.sync_id, cut, &filter, &fingerprint)
        };
        let mut report = engine.step(&order, &budget).await;
        if mutation::is_on(Mutation::LeakSecret) {
            let quote = |it: Error| Error::new(it.kind(), credentials.application_key().expose_secret(), it.advice());
            report.outcome = report.outcome.map_err(|error| quote(error.clone()).with_retry(error.retry()));
        }
        report.cost = add_cost(report.cost, authorizing);
        used.account = source.source.refreshed().or(used.account.take());
        Ok(report)
    }

    /// Where the job of a step is held. A job that was lost from there is not entrusted to it again: its steps store how far
    /// they come, however often instances die.
    fn holding(&self, begun: &Begun) -> Option<Holding<'_>> {
        let holding = self.home.memory()?.for_step(begun.step_before, begun.step);
        let has_read_nothing = begun.job.counts == JobCounts::default() && begun.bookmark.is_none();
        (has_read_nothing || holding.has(&begun.job.job_id)).then_some(holding)
    }

    /// Notes with the connection that it worked or failed, and what B2 said of the account. Nothing is written while
    /// it just works.
    async fn note_connection(
        &self,
        sync: &SyncRecord,
        outcome: &Result<Outcome, Error>,
        Used { key_id, application_key, account }: Used,
    ) -> Result<(), Error> {
        let refused = outcome.as_ref().err().filter(|error| blames_connection(error.kind()));
        let registry = self.home.registry();
        for _ in 0..SWAP_ATTEMPTS_MAX {
            let Some(mut connection) = registry.connection(&sync.connection_id).await? else { return Ok(()) };
            let recovered = outcome.is_ok() && (connection.consecutive_failures > 0 || connection.last_error.is_some());
            if connection.archived || (refused.is_none() && account.is_none() && !recovered) {
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
        self.change_any(sync_id, |state| {
            if state.forgotten {
                // Deleted, and whoever did so was cut off: the alarm deletes what is left.
                return Ok(Answer::Poked { next: Some(at.plus_millis(POKE_RUNNING_MS)) });
            }
            if state.status.current_job.is_none() && state.status.next_sync_at.is_none() {
                // Never planned: whoever created it was cut off; or there is nothing to plan.
                state.plan_next(&sync, at);
            }
            self.start_due(state, &sync, &job_id, at);
            let next = match &state.status.current_job {
                Some(_) => Some(at.plus_millis(POKE_RUNNING_MS)),
                None => state.status.next_sync_at,
            };
            Ok(Answer::Poked { next })
        })
        .await
    }

    /// Sends dead letters back, and sees to it that a job offers them.
    async fn requeue(&self, sync_id: &str, error_types: &[String], now: Timestamp) -> Result<Answer, Error> {
        let sync = self.sync(sync_id).await?;
        self.not_forgotten(sync_id).await?;
        let (letters, waiting) = DeadLetters::change(self.home.documents(), |letters| {
            let sent_back = letters.requeue(error_types, now);
            Ok((sent_back, letters.iter().any(|letter| letter.requeued)))
        })
        .await?;
        let job_id = ids::job_id(self.home.entropy());
        self.change(sync_id, |state| {
            let paused = state.status.paused_at.is_some() || !sync.is_active;
            let mut job = None;
            state.requeued |= waiting;
            if waiting && state.status.current_job.is_some() {
                state.run_again = true;
            } else if waiting && !paused {
                job = Some(Box::new(state.start_job(job_id.clone(), Trigger::Manual, now)));
            }
            Ok(Answer::Marked { letters, job })
        })
        .await
    }

    async fn forget(&self, sync_id: &str, now: Timestamp) -> Result<Answer, Error> {
        self.change_any(sync_id, |state| {
            state.end_job(JobStatus::Interrupted, None, now);
            state.forgotten = true;
            state.status.next_sync_at = None;
            Ok(Answer::Forgotten)
        })
        .await
    }

    async fn sync(&self, sync_id: &str) -> Result<SyncRecord, Error> {
        self.home.registry().sync(sync_id).await?.ok_or_else(|| no_sync(sync_id))
    }

    /// What is written for a sync that was deleted would be left behind.
    async fn not_forgotten(&self, sync_id: &str) -> Result<(), Error> {
        if self.load(sync_id).await?.0.forgotten { Err(no_sync(sync_id)) } else { Ok(()) }
    }

    async fn stored(&self) -> Result<Option<(State, u64)>, Error> {
        let Some(document) = self.home.documents().load(DOCUMENT).await? else { return Ok(None) };
        Ok(Some((State::decode(&document.value)?, document.revision)))
    }

    async fn load(&self, sync_id: &str) -> Result<(State, u64), Error> {
        Ok(self.stored().await?.unwrap_or_else(|| (State::new(sync_id), 0)))
    }

    /// [`Self::change_any`] of a sync that was not deleted.
    async fn change<T>(
        &self,
        sync_id: &str,
        mut decide: impl FnMut(&mut State) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.change_any(sync_id, |state| if state.forgotten { Err(no_sync(sync_id)) } else { decide(state) }).await
    }

    /// [`Self::change`] for what may take the lease, and answers which: where it fails all the same, nobody will use that
    /// lease.
    async fn change_with_lease<T>(
        &self,
        sync_id: &str,
        mut decide: impl FnMut(&mut State) -> Result<(T, Option<u64>), Error>,
    ) -> Result<T, Error> {
        let mut taken = None;
        let result = self
            .change(sync_id, |state| {
                taken = None;
                let (answer, step) = decide(state)?;
                taken = step;
                Ok(answer)
            })
            .await;
        if let (Err(_), Some(step)) = (&result, taken) {
            let _ = self
                .change_surely(sync_id, |state| {
                    if state.has_lease(step) {
                        state.lease = None;
                    }
                    Ok(())
                })
                .await;
        }
        result
    }

    /// [`Self::change_any`], once more if the stores fail: for what gives the lease back, since nothing else of this sync
    /// is done until then.
    async fn change_surely<T>(
        &self,
        sync_id: &str,
        mut decide: impl FnMut(&mut State) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match self.change_any(sync_id, &mut decide).await {
            Err(error) if error.is_transient() => {
                self.home.clock().sleep(STORE_AGAIN_MS).await;
                self.change_any(sync_id, decide).await
            }
            result => result,
        }
    }

    /// Reads the document, lets `decide` change it, and writes it back; again if somebody else moved it meanwhile.
    /// Then sets the alarm.
    async fn change_any<T>(
        &self,
        sync_id: &str,
        mut decide: impl FnMut(&mut State) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut answer = None;
        let mut note = |state: &mut State| decide(state).map(|it| answer = Some(it));
        self.change_by(sync_id, &mut note).await?;
        answer.ok_or_else(|| Error::internal("A change of the coordinator's document decided nothing."))
    }

    /// [`Self::change_any`] for a decision of whatever type: compiled once, and not for each of them.
    async fn change_by(
        &self,
        sync_id: &str,
        decide: &mut dyn FnMut(&mut State) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for _ in 0..SWAP_ATTEMPTS_MAX {
            let (before, revision) = self.load(sync_id).await?;
            let mut state = before.clone();
            decide(&mut state)?;
            if state != before && revision == 0 {
                // The sync may be deleted already: what is stored first is looked at, whatever breaks off behind it.
                self.home.set_alarm(Some(self.home.clock().now().plus_millis(WIPE_AGAIN_MS))).await?;
            }
            if state != before && !self.store(&state, revision).await? {
                continue;
            }
            let now = self.home.clock().now();
            let alarm = state.next_alarm(now, self.held_until(&state, now));
            if alarm.is_none() && state == before {
                // Whoever changes nothing clears no alarm: somebody may have set it since this was read.
                return Ok(());
            }
            return self.home.set_alarm(alarm).await;
        }
        Err(Error::new(
            ErrorKind::StateConflict,
            format!("The state of {sync_id} was changed by others {SWAP_ATTEMPTS_MAX} times in a row."),
            "Try again.",
        )
        .with_retry(Retry::Temporary))
    }

    /// False when somebody else moved it meanwhile.
    async fn store(&self, state: &State, revision: u64) -> Result<bool, Error> {
        let bytes = state.encode()?;
        Ok(self.home.documents().swap(DOCUMENT, revision, Some(bytes.into())).await? != Swapped::Conflict)
    }

    /// Publishes the records of jobs that ended. One that cannot be published is tried again by the next call: what
    /// was asked for is done all the same.
    async fn publish_jobs(&self, sync_id: &str) -> Result<(), Error> {
        let (state, _) = self.load(sync_id).await?;
        let mut published = Vec::new();
        for job in &state.unpublished {
            if self.home.publish_job(job).await.is_err() {
                break;
            }
            published.push(&job.job_id);
        }
        if published.is_empty() {
            return Ok(());
        }
        for _ in 0..SWAP_ATTEMPTS_MAX {
            let (mut state, revision) = self.load(sync_id).await?;
            state.unpublished.retain(|job| !published.contains(&&job.job_id));
            if self.store(&state, revision).await? {
                break;
            }
        }
        Ok(())
    }
}

/// Where the segments of a sync begin.
fn cut(config: &Config, sync: &SyncRecord) -> Result<Cut, Error> {
    let cut = Cut::parse(sync.salt.as_str()).ok_or_else(|| Error::internal("The sync's salt is unreadable."))?;
    Ok(config.cut_sizes.map_or(cut, |(mean, entries_max)| cut.with_sizes(mean, entries_max)))
}

fn credentials(config: &Config, connection: &ConnectionRecord) -> Result<Credentials, Error> {
    let sealed = connection.application_key.as_ref().ok_or_else(|| gone(&connection.connection_id))?;
    let key = config.master_keys.open(sealed, &connection.connection_id)?;
    Credentials::new(&connection.key_id, key.expose_secret())
}

/// What one step works on.
#[derive(Debug)]
struct Begun {
    job: JobRecord,
    /// The number of its lease, and of the one before.
    step: u64,
    step_before: Option<u64>,
    confirm_deletes: bool,
    resync: bool,
    requeued: bool,
    bookmark: Option<Bookmark>,
}

/// What a step used of the connection, and what it learned of the account.
#[derive(Debug, Default)]
struct Used {
    key_id: String,
    application_key: Option<Sealed>,
    account: Option<Account>,
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

    async fn read(&self, reader: &mut RangeReader, order: &Order<'_>) -> Result<(), Error> {
        self.ranges.read(self, reader, order).await
    }

    fn prefix(&self) -> &str {
        self.source.prefix()
    }

    async fn still_wanted(&self) -> Result<(), Error> {
        let document = self.coordinator.home.documents().load(DOCUMENT).await?;
        let revision = document.as_ref().map_or(0, |document| document.revision);
        if revision > 0 && revision == self.seen.get() {
            return Ok(());
        }
        let state = document.map(|document| State::decode(&document.value)).transpose()?;
        if state.is_some_and(|it| it.has_lease(self.begun.step) && it.is_running(&self.begun.job.job_id)) {
            self.seen.set(revision);
            return Ok(());
        }
        Err(Error::new(ErrorKind::Conflict, "The job was ended meanwhile.", "Nothing is lost: the next job goes on."))
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

fn no_sync(sync_id: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("There is no sync {sync_id}."),
        "List the syncs of the bucket to see which there are.",
    )
}

fn gone(connection_id: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("The connection {connection_id} was deleted."),
        "Delete this sync and create one with another connection.",
    )
}

#[cfg(test)]
mod tests;
