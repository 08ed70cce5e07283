//! The whole service, as its users meet it: the Worker on the real runtime, and HTTP.
//!
//! [`Service::start`] starts a [`Workerd`] with an API key and a master key of its own, and an embedded B2 beside it
//! unless told of another one. The calls answer the API's JSON as it came. All bodies are kept, so that a test can
//! search them for what must not be there.
//!
//! It deliberately decides nothing: every wait has a limit and says what it saw last, and no call is repeated.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fmt, thread};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::workerd::{Outbound, Workerd, WorkerdConfig};
use fake_b2::keys::{ApplicationKey, NewKey};
use fake_b2::model::VisibleFile;
use fake_b2::server::FakeB2Server;
use fake_b2::{Config, FakeB2};

/// How often a job is looked at while a test waits for it.
const POLL_EVERY: Duration = Duration::from_millis(25);
/// Objects a page: the most that the API answers.
/// Changes of a page of the feed.
const CHANGES_PAGE: u64 = 1_000;
const OBJECTS_PAGE: u64 = 1_000;
/// The newest lines of the log that an error shows.
const ERROR_LOG_LINES: usize = 30;

/// Why a call, a wait or a comparison failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ServiceError(String);

impl ServiceError {
    /// With that message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    fn from_error(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// What the calls return.
pub type Result<T> = std::result::Result<T, ServiceError>;

/// How to start a [`Service`].
#[derive(Clone, Debug, Default)]
pub struct ServiceConfig {
    /// `STEP_BUDGET`: `free`, `paid` or a JSON object; unset is the Worker's own default.
    pub step_budget: Option<String>,
    /// The embedded B2.
    pub b2: Config,
    /// The real B2, by its API URL, in place of the embedded one.
    pub real_b2: Option<String>,
}

impl ServiceConfig {
    /// Steps that read at most this many keys each, so that a job has several.
    pub fn with_keys_a_step(keys_max: u64) -> Self {
        Self { step_budget: Some(json!({ "keys_max": keys_max }).to_string()), ..Self::default() }
    }
}

/// A request that was made, and its answer.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// `POST /v1/…`
    pub request: String,
    /// The HTTP status.
    pub status: u16,
    /// The whole body.
    pub body: Vec<u8>,
}

/// A sync, as paths name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncRef {
    /// The target bucket.
    pub bucket: String,
    /// `sync_…`
    pub id: String,
}

impl SyncRef {
    /// From the answer to a create or a get.
    ///
    /// # Errors
    /// The answer names no sync.
    pub fn of(sync: &Value) -> Result<Self> {
        Ok(Self { bucket: text(sync, "bucket_id")?, id: text(sync, "sync_config_id")? })
    }

    /// `/v1/buckets/{bucket}/syncs/{id}`
    pub fn path(&self) -> String {
        format!("/v1/buckets/{}/syncs/{}", self.bucket, self.id)
    }
}

/// The running service. Dropping it kills the Worker, ends the embedded B2 and deletes all state.
#[derive(Debug)]
pub struct Service {
    workerd: Workerd,
    b2: Option<FakeB2Server>,
    api_key: String,
    master_key: [u8; 32],
    exchanges: Mutex<Vec<Exchange>>,
    // Last, so that nothing writes into it any more when it is deleted.
    _folder: TempDir,
}

impl Service {
    /// Starts the Worker, and an embedded B2 unless a real one is named.
    ///
    /// # Errors
    /// The Worker is not built, workerd is not installed, or something does not start.
    pub fn start(config: ServiceConfig) -> Result<Self> {
        let folder = TempDir::with_prefix("b2sync-").map_err(ServiceError::from_error)?;
        let mut random = [0; 48];
        getrandom::fill(&mut random).map_err(ServiceError::from_error)?;
        let api_key = hex::encode(&random[..16]);
        let mut master_key = [0; 32];
        master_key.copy_from_slice(&random[16..]);

        let (b2, b2_url, outbound) = match config.real_b2 {
            Some(url) => (None, url, Outbound::LocalAndPublic),
            None => {
                let b2 = FakeB2Server::start(config.b2).map_err(ServiceError::from_error)?;
                let url = b2.url().to_owned();
                (Some(b2), url, Outbound::Local)
            }
        };
        let mut vars = WorkerdConfig::new(folder.path())
            .var("API_KEY", &api_key)
            .var("MASTER_KEY", format!("k1:{}", STANDARD.encode(master_key)))
            .var("B2_API_URL", b2_url)
            .outbound(outbound);
        if let Some(budget) = config.step_budget {
            vars = vars.var("STEP_BUDGET", budget);
        }
        let workerd = Workerd::start(vars).map_err(ServiceError::from_error)?;
        Ok(Self { workerd, b2, api_key, master_key, exchanges: Mutex::default(), _folder: folder })
    }

    /// The runtime, to kill and restart it.
    pub fn workerd(&mut self) -> &mut Workerd {
        &mut self.workerd
    }

    /// Where the API is: `http://127.0.0.1:49152`.
    pub fn url(&self) -> &str {
        self.workerd.url()
    }

    /// What callers must send.
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// What application keys are sealed under.
    pub fn master_key(&self) -> &[u8; 32] {
        &self.master_key
    }

    /// Where KV and the Durable Objects keep their data.
    pub fn state_dir(&self) -> &std::path::Path {
        self.workerd.state_dir()
    }

    /// What the Worker has printed.
    pub fn logs(&self) -> Vec<String> {
        self.workerd.logs()
    }

    /// The embedded B2.
    ///
    /// # Panics
    /// When the service speaks to the real one.
    pub fn b2(&self) -> &FakeB2Server {
        self.b2.as_ref().expect("this service has an embedded B2")
    }

    /// The account of the embedded B2.
    ///
    /// # Panics
    /// As [`Service::b2`].
    pub fn fake(&self) -> &Arc<FakeB2> {
        self.b2().model()
    }

    /// All requests made so far, with their answers.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An error that also shows what the Worker printed last.
    pub fn error(&self, message: impl fmt::Display) -> ServiceError {
        let lines = self.logs();
        let newest = &lines[lines.len().saturating_sub(ERROR_LOG_LINES)..];
        ServiceError::new(format!("{message}\nThe newest lines of the Worker's log:\n    {}", newest.join("\n    ")))
    }

    // ---- calls ---------------------------------------------------------------------------------------------------

    /// One request with these headers; any status is an answer.
    ///
    /// # Errors
    /// There is no answer.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<(u16, Vec<u8>)> {
        let answer = self.workerd.send(method, path, headers, body).map_err(ServiceError::from_error)?;
        let exchange =
            Exchange { request: format!("{method} {path}"), status: answer.status, body: answer.body.clone() };
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner).push(exchange);
        Ok((answer.status, answer.body))
    }

    /// One call with the API key; any status is an answer. That of a 204 is `null`.
    ///
    /// # Errors
    /// There is no answer, or it is no JSON.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let bearer = format!("Bearer {}", self.api_key);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let body = body.map(Value::to_string).unwrap_or_default();
        let (status, bytes) = self.send(method, path, &headers, body.as_bytes())?;
        if status == 204 && bytes.is_empty() {
            return Ok((status, Value::Null));
        }
        let json = serde_json::from_slice(&bytes).map_err(|error| {
            let text = String::from_utf8_lossy(&bytes);
            self.error(format!("{method} {path} answered {status} with no JSON ({error}): {text}"))
        })?;
        Ok((status, json))
    }

    /// One call that must succeed.
    ///
    /// # Errors
    /// The status is not 200.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        match self.ask(method, path, body)? {
            (200, answer) => Ok(answer),
            (status, answer) => Err(self.error(format!("{method} {path} answered {status}: {answer}"))),
        }
    }

    /// Creates a connection; the answer.
    ///
    /// # Errors
    /// As [`Service::call`].
    pub fn create_connection(&self, name: &str, key_id: &str, application_key: &str) -> Result<Value> {
        self.call("POST", CONNECTIONS, Some(&connection_body(name, key_id, application_key)))
    }

    /// Creates a sync; the answer. `body` names the connection and the source path.
    ///
    /// # Errors
    /// As [`Service::call`].
    pub fn create_sync(&self, bucket: &str, body: &Value) -> Result<Value> {
        self.call("POST", &format!("/v1/buckets/{bucket}/syncs"), Some(body))
    }

    /// A key, a connection with it and a sync of the whole `source_path`: how most tests begin.
    ///
    /// # Errors
    /// As [`Service::call`].
    pub fn connect(&self, name: &str, source_path: &str) -> Result<Connected> {
        let key = self.fake().create_key(NewKey::unrestricted()).map_err(ServiceError::from_error)?;
        let connection = self.create_connection(name, &key.key_id, &key.secret)?;
        let connection_id = text(&connection, "connection_id")?;
        let body = json!({
            "connection_id": connection_id, "source_path": source_path, "polling_interval_seconds": 3_600,
        });
        let sync = SyncRef::of(&self.create_sync(&format!("bkt_{name}"), &body)?)?;
        Ok(Connected { key, connection_id, sync })
    }

    /// Starts a job; the answer has `status` and `sync_job_id`.
    ///
    /// # Errors
    /// As [`Service::call`].
    pub fn trigger(&self, sync: &SyncRef) -> Result<Value> {
        self.call("POST", &format!("{}/trigger", sync.path()), None)
    }

    /// Starts a job and waits for its end; the job.
    ///
    /// # Errors
    /// Another job was running, or it does not end within `limit`.
    pub fn run_job(&self, sync: &SyncRef, limit: Duration) -> Result<Value> {
        let answer = self.trigger(sync)?;
        if answer["status"] != "triggered" {
            return Err(self.error(format!("No job was started: {answer}")));
        }
        self.wait_for_job(sync, &text(&answer, "sync_job_id")?, limit, &mut |_| {})
    }

    /// A sync as it stands.
    ///
    /// # Errors
    /// As [`Service::call`].
    pub fn sync(&self, sync: &SyncRef) -> Result<Value> {
        self.call("GET", &sync.path(), None)
    }

    /// One job.
    ///
    /// # Errors
    /// As [`Service::call`].
    pub fn job(&self, sync: &SyncRef, job_id: &str) -> Result<Value> {
        self.job_within(sync, job_id, 0)
    }

    /// One job, once it has ended, or as it stands after this many seconds, at most 25.
    ///
    /// # Errors
    /// As [`Service::call`].
    pub fn job_within(&self, sync: &SyncRef, job_id: &str, wait_s: u64) -> Result<Value> {
        self.call("GET", &format!("{}/jobs/{job_id}?wait={wait_s}", sync.path()), None)
    }

    /// The latest jobs, newest first.
    ///
    /// # Errors
    /// As [`Service::call`].
    pub fn jobs(&self, sync: &SyncRef) -> Result<Vec<Value>> {
        let answer = self.call("POST", &format!("{}/jobs?limit=100", sync.path()), None)?;
        answer["results"].as_array().cloned().ok_or_else(|| self.error(format!("No list of jobs: {answer}")))
    }

    /// Waits until a job has ended, and shows `progress` each second; the job.
    ///
    /// # Errors
    /// It does not end within `limit`.
    pub fn wait_for_job(
        &self,
        sync: &SyncRef,
        job_id: &str,
        limit: Duration,
        progress: &mut dyn FnMut(&Value),
    ) -> Result<Value> {
        let deadline = Instant::now() + limit;
        loop {
            let job = self.job_within(sync, job_id, 1)?;
            progress(&job);
            if job["status"] != "running" {
                return Ok(job);
            }
            if Instant::now() > deadline {
                return Err(self.error(format!("The job has not ended within {} s: {job}", limit.as_secs())));
            }
        }
    }

    /// Looks at the jobs until there is one that was not among `known` ids, and waits for its end; the job.
    ///
    /// # Errors
    /// There is none, or it does not end, within `limit`.
    pub fn wait_for_new_job(&self, sync: &SyncRef, known: &[String], limit: Duration) -> Result<Value> {
        let deadline = Instant::now() + limit;
        loop {
            let jobs = self.jobs(sync)?;
            let new =
                jobs.iter().filter_map(|job| job["sync_job_id"].as_str()).find(|id| !known.iter().any(|k| k == id));
            if let Some(job_id) = new {
                return self.wait_for_job(sync, job_id, limit, &mut |_| {});
            }
            if Instant::now() > deadline {
                return Err(self.error(format!("There is no new job after {} s: {jobs:?}", limit.as_secs())));
            }
            thread::sleep(POLL_EVERY);
        }
    }

    /// The ids of the latest jobs.
    ///
    /// # Errors
    /// As [`Service::jobs`].
    pub fn job_ids(&self, sync: &SyncRef) -> Result<Vec<String>> {
        self.jobs(sync)?.iter().map(|job| text(job, "sync_job_id")).collect()
    }

    /// Stops polling.
    ///
    /// # Errors
    /// As [`Service::call`].
    pub fn pause(&self, sync: &SyncRef) -> Result<Value> {
        self.call("POST", &format!("{}/pause", sync.path()), None)
    }

    /// Polls again.
    ///
    /// # Errors
    /// As [`Service::call`].
    pub fn resume(&self, sync: &SyncRef) -> Result<Value> {
        self.call("POST", &format!("{}/resume", sync.path()), None)
    }

    /// Fires the cron, with that scheduled time.
    ///
    /// # Errors
    /// The handler failed.
    pub fn cron(&self, scheduled_ms: i64) -> Result<()> {
        self.workerd.cron(scheduled_ms).map_err(ServiceError::from_error)
    }

    /// All objects of a bucket, from all pages, by key.
    ///
    /// # Errors
    /// A page fails, a cursor leads nowhere new, or a key comes twice.
    pub fn list_objects(&self, bucket: &str) -> Result<BTreeMap<String, Value>> {
        let mut objects = BTreeMap::new();
        let mut cursor: Option<String> = None;
        loop {
            let after = cursor.as_ref().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let page = self.call("GET", &format!("/v1/buckets/{bucket}/objects?limit={OBJECTS_PAGE}{after}"), None)?;
            for object in page["results"].as_array().into_iter().flatten() {
                let key = text(object, "source_key")?;
                if let Some(other) = objects.insert(key, object.clone()) {
                    return Err(self.error(format!("A key was listed twice: {other}")));
                }
            }
            let next = page["pagination"]["next_cursor"].as_str().map(str::to_owned);
            if next.is_some() && next == cursor {
                return Err(self.error(format!("The cursor does not move on: {}", page["pagination"])));
            }
            cursor = next;
            if cursor.is_none() {
                return Ok(objects);
            }
        }
    }

    /// The whole feed of a sync behind a position, page by page.
    ///
    /// # Errors
    /// A page fails, a position is missing or comes twice, or a page says something else of the feed than the one
    /// before.
    pub fn changes(&self, sync: &SyncRef, after: u64) -> Result<Vec<Value>> {
        let mut changes: Vec<Value> = Vec::new();
        let mut after = after;
        loop {
            let path = format!("{}/changes?after={after}&limit={CHANGES_PAGE}", sync.path());
            let page = self.call("GET", &path, None)?;
            for change in page["changes"].as_array().into_iter().flatten() {
                after += 1;
                if change["position"].as_u64() != Some(after) {
                    return Err(self.error(format!("The change at {after} has another position: {change}")));
                }
                changes.push(change.clone());
            }
            if page["next_after"].as_u64() != Some(after) || page["has_more"] == (after == number(&page, "/last")) {
                return Err(self.error(format!("The page behind {after} does not say where it ends: {page}")));
            }
            if page["has_more"] == false {
                return Ok(changes);
            }
        }
    }

    /// Whether the catalogue holds exactly `expected`.
    ///
    /// # Errors
    /// It does not; the first differences, key by key.
    pub fn check_objects(
        &self,
        bucket: &str,
        expected: &BTreeMap<String, VisibleFile>,
    ) -> Result<BTreeMap<String, Value>> {
        let objects = self.list_objects(bucket)?;
        let differences = differences(&objects, expected);
        if differences.is_empty() {
            return Ok(objects);
        }
        Err(self.error(format!(
            "The catalogue is not what the bucket holds: {} differences among {} objects and {} expected ones.\n    {}",
            differences.len(),
            objects.len(),
            expected.len(),
            differences.iter().take(20).cloned().collect::<Vec<_>>().join("\n    ")
        )))
    }
}

/// What [`Service::connect`] made.
#[derive(Clone, Debug)]
pub struct Connected {
    /// The application key, known to the embedded B2.
    pub key: ApplicationKey,
    /// `conn_…`
    pub connection_id: String,
    /// The sync.
    pub sync: SyncRef,
}

/// Where connections are.
pub const CONNECTIONS: &str = "/v1/organizations/connections";

/// The body that creates a connection.
pub fn connection_body(name: &str, key_id: &str, application_key: &str) -> Value {
    json!({
        "name": name,
        "provider_type": "backblaze",
        "provider_config": {
            "credentials": { "type": "application_key", "key_id": key_id, "application_key": application_key },
        },
    })
}

/// A field that must be text.
///
/// # Errors
/// It is not.
pub fn text(json: &Value, field: &str) -> Result<String> {
    match &json[field] {
        Value::String(text) => Ok(text.clone()),
        _ => Err(ServiceError::new(format!("There is no text {field:?} in {json}"))),
    }
}

/// A number behind a JSON pointer; 0 when there is none.
pub fn number(json: &Value, pointer: &str) -> u64 {
    json.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// What a job says that it delivered: created, updated, deleted.
pub fn changes(job: &Value) -> (u64, u64, u64) {
    (number(job, "/changes/created"), number(job, "/changes/updated"), number(job, "/changes/deleted"))
}

/// Now, in milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

/// What a sync of `bucket` must have in its catalogue: the oracle, by what the embedded B2 shows and a filter of the
/// test's own.
pub fn expected_objects(fake: &FakeB2, bucket: &str, takes: impl Fn(&str) -> bool) -> BTreeMap<String, VisibleFile> {
    fake.visible(bucket).into_iter().filter(|file| takes(&file.key)).map(|file| (file.key.clone(), file)).collect()
}

/// In which keys the catalogue and the oracle differ, in words.
pub fn differences(objects: &BTreeMap<String, Value>, expected: &BTreeMap<String, VisibleFile>) -> Vec<String> {
    let mut differences = Vec::new();
    for (key, file) in expected {
        let Some(object) = objects.get(key) else {
            differences.push(format!("{key:?} is missing"));
            continue;
        };
        let seen = (object["etag"].as_str(), object["size_bytes"].as_u64(), object["last_modified"].as_str());
        let last_modified = file.last_modified.to_string();
        let wanted = (Some(file.etag.as_str()), Some(file.size), Some(last_modified.as_str()));
        if seen != wanted {
            differences.push(format!("{key:?} is {seen:?} and should be {wanted:?}"));
        }
    }
    differences
        .extend(objects.keys().filter(|key| !expected.contains_key(*key)).map(|key| format!("{key:?} is extra")));
    differences
}
