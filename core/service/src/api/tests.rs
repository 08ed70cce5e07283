//! The whole API against fakes: every route, every refusal, every shape.

mod auth;
mod changes;
mod connections;
mod conventions;
mod docs;
mod everything;
mod explain;
mod idempotency;
mod jobs;
mod letters;
mod objects;
mod openapi;
mod openapi_page;
mod running;
mod schedule;
mod syncs;

use std::cell::{Cell, RefCell};

use pollster::block_on;
use serde_json::{Value, json};

use super::*;
use crate::{
    catalogue::{CatalogueTarget, MemoryCatalogue},
    coordinator::protocol::{Answer, Command, KeyAnswer, SinkStatus, Stretched, SyncState, SyncStatus},
    registry::{MemoryRegistry, Registry},
    seal::MasterKeys,
    sinks::{CATALOGUE, SinkState, dead_letters::DeadLetters},
};
use b2sync_core::{
    change::{Change, ChangeKind},
    entropy::Entropy,
    entry::Entry,
    error::{Error, ErrorKind},
    http::{ExchangeLimits, HttpClient, Request, Response, TransportError, TransportFault},
    job::{ErrorRecord, JobCost, JobCounts, JobRecord, JobStatus, Phase, Trigger},
    secret::SecretString,
    sink::Sink,
    time::{Clock, Timestamp},
};

const API_KEY: &str = "the-api-key-of-this-test";
const KEY_ID: &str = "005870eff85b6c60000000001";
const APPLICATION_KEY: &str = "K005veryverysecret";
const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NOW: i64 = 1_700_000_000_000;

const ACCOUNT: &str = r#"{"accountId":"870eff85b6c6","apiInfo":{"storageApi":{
    "allowed":{"buckets":null,"capabilities":["listBuckets","listFiles","readFiles"],"namePrefix":null},
    "apiUrl":"https://api005.backblazeb2.com","downloadUrl":"https://f005.backblazeb2.com",
    "s3ApiUrl":"https://s3.us-east-005.backblazeb2.com"}},
    "applicationKeyExpirationTimestamp":null,"authorizationToken":"4_token"}"#;
const PAGE: &str = concat!(
    r#"<?xml version="1.0" encoding="UTF-8"?>"#,
    r#"<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>my-videos</Name>"#,
    r#"<Prefix></Prefix><MaxKeys>1</MaxKeys><EncodingType>url</EncodingType>"#,
    r#"<IsTruncated>false</IsTruncated><KeyCount>0</KeyCount></ListBucketResult>"#,
);

struct Home {
    now: Cell<i64>,
    draws: Cell<u64>,
    authorize: RefCell<Option<(u16, String)>>,
    list: RefCell<Option<(u16, String)>>,
    sent: RefCell<Vec<String>>,
    registry: MemoryRegistry,
    catalogue: MemoryCatalogue,
    letters: RefCell<DeadLetters>,
    status: RefCell<SyncStatus>,
    /// What is stored of every key.
    stored: RefCell<KeyAnswer>,
    running: RefCell<Option<JobRecord>>,
    jobs: RefCell<Vec<JobRecord>>,
    archive: RefCell<Vec<JobRecord>>,
    commands: RefCell<Vec<Command>>,
    /// The feed of every sync, and up to which position it was dropped.
    feed: RefCell<Vec<Change>>,
    dropped: Cell<u64>,
    unreachable: Cell<bool>,
    /// B2 never answers.
    hangs: Cell<bool>,
    idempotency_key: RefCell<Option<String>>,
    cors: Cors,
    master_keys: MasterKeys,
    api_key: ApiKey,
}

impl Clock for Home {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now.get())
    }
    async fn sleep(&self, millis: u64) {
        self.now.set(self.now.get() + millis as i64);
    }
}

impl Entropy for Home {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            self.draws.set(self.draws.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            *byte = (self.draws.get() >> 56) as u8;
        }
    }
}

impl HttpClient for Home {
    async fn send(&self, request: Request, limits: ExchangeLimits) -> Result<Response, TransportError> {
        self.sent.borrow_mut().push(request.uri().to_string());
        if self.hangs.get() {
            self.sleep(limits.timeout_ms).await;
            return Err(TransportError { fault: TransportFault::TimedOut, message: "no answer".into() });
        }
        let script = if request.uri().path().contains("b2_authorize_account") { &self.authorize } else { &self.list };
        let Some((status, body)) = script.borrow().clone() else {
            return Err(TransportError { fault: TransportFault::TimedOut, message: "no answer".into() });
        };
        let mut response = Response::new(body.into());
        *response.status_mut() = status.try_into().unwrap();
        Ok(response)
    }
}

impl Coordinators for Home {
    async fn call(&self, _: &str, command: Command) -> Result<Answer, Error> {
        if self.unreachable.get() {
            return Err(Error::new(ErrorKind::Storage, "The coordinator is away.", "Try again.")
                .with_retry(b2sync_core::Retry::Temporary));
        }
        self.commands.borrow_mut().push(command.clone());
        match &command {
            Command::Pause { reason } => {
                let mut status = self.status.borrow_mut();
                status.state = SyncState::Suspended;
                status.pause_reason.clone_from(reason);
            }
            Command::Resume => self.status.borrow_mut().state = SyncState::Active,
            _ => {}
        }
        Ok(match command {
            Command::Trigger { .. } => {
                let mut running = self.running.borrow_mut();
                let started = running.is_none();
                let job = running.get_or_insert_with(|| job("job_now", NOW, JobStatus::Running)).clone();
                Answer::Triggered { job: Box::new(job), started }
            }
            Command::Jobs { status, offset, limit } => {
                let jobs: Vec<_> =
                    self.jobs.borrow().iter().filter(|job| status.is_none_or(|s| s == job.status)).cloned().collect();
                let total = jobs.len() as u64;
                let jobs = jobs.into_iter().skip(offset as usize).take(limit as usize).collect();
                Answer::Jobs { jobs, total, has_all: self.archive.borrow().is_empty() }
            }
            Command::LookUp { .. } => Answer::Key(Box::new(self.stored.borrow().clone())),
            Command::Changes { after, limit, .. } => self.changes(after, limit)?,
            Command::Job { job_id, .. } => {
                Answer::Job { job: self.jobs.borrow().iter().find(|job| job.job_id == job_id).cloned().map(Box::new) }
            }
            Command::DeadLetters { only_max_retries, error_types, offset, limit } => {
                let letters = self.letters.borrow();
                let wanted: Vec<_> = letters
                    .iter()
                    .filter(|it| error_types.is_empty() || error_types.contains(&it.error_type))
                    .filter(|it| !(only_max_retries && it.requeued))
                    .collect();
                let page = wanted.iter().skip(offset as usize).take(limit as usize).map(|&it| it.clone()).collect();
                Answer::DeadLetters { letters: page, total: wanted.len() as u64 }
            }
            Command::Requeue { error_types } => {
                let letters = self.letters.borrow_mut().requeue(&error_types, self.now());
                Answer::Marked { letters }
            }
            Command::MarkFailed { error_types } => {
                Answer::Marked { letters: self.letters.borrow_mut().mark_failed(&error_types) }
            }
            Command::Forget => Answer::Forgotten,
            Command::Poke { .. } => Answer::Poked { next: None },
            _ => Answer::Status(Box::new(self.status.borrow().clone())),
        })
    }

    async fn archived_job(&self, _: &str, job_id: &str) -> Result<Option<JobRecord>, Error> {
        Ok(self.archive.borrow().iter().find(|job| job.job_id == job_id).cloned())
    }

    async fn archived_jobs(&self, _: &str, limit: usize) -> Result<Vec<JobRecord>, Error> {
        Ok(self.archive.borrow().iter().take(limit).cloned().collect())
    }
}

fn job(job_id: &str, created_at: i64, status: JobStatus) -> JobRecord {
    let at = Timestamp::from_millis(created_at);
    let over = status != JobStatus::Running;
    JobRecord {
        job_id: job_id.into(),
        sync_id: String::new(), // A test that needs it sets it.
        trigger: Trigger::Manual,
        status,
        phase: if over { Phase::Done } else { Phase::Discovering },
        created_at: at,
        started_at: Some(at.plus_millis(10)),
        updated_at: at.plus_millis(30_010),
        completed_at: over.then(|| at.plus_millis(60_010)),
        counts: JobCounts {
            unreadable: 0,
            listed: 30,
            matched: 20,
            matched_bytes: 2_000,
            created: 5,
            updated: 3,
            deleted: 2,
            failed: 1,
            delivered_bytes: 800,
        },
        cost: Default::default(),
        known_before: 40,
        error: None,
        warnings: Vec::new(),
        limited: false,
        continued: false,
        list_interval_ms: 0,
        deletions_held: 0,
        held_keys: Vec::new(),
    }
}

/// The change with which a key begins.
fn created(position: u64, entry: Entry) -> Change {
    let (id, found_at) = (format!("chg_{position}"), entry.last_modified);
    let kind = ChangeKind::Created;
    Change { position, id, kind, entry, previous: None, again: false, found_at, job_id: "job_1".to_owned() }
}

/// A catalogue that has taken everything.
fn sink_status() -> SinkStatus {
    SinkStatus {
        sink_id: CATALOGUE.to_owned(),
        state: SinkState::Active,
        cursor: 0,
        taken: 0,
        failures: 0,
        first_failure_at: None,
        last_failure_at: None,
        last_error: None,
        next_attempt_at: None,
        dead_letters: Default::default(),
    }
}

impl Home {
    fn new() -> Self {
        Self {
            now: Cell::new(NOW),
            draws: Cell::new(1),
            authorize: RefCell::new(Some((200, ACCOUNT.into()))),
            list: RefCell::new(Some((200, PAGE.into()))),
            sent: RefCell::default(),
            registry: MemoryRegistry::new(),
            catalogue: MemoryCatalogue::new(),
            letters: RefCell::default(),
            status: RefCell::default(),
            stored: RefCell::default(),
            running: RefCell::default(),
            jobs: RefCell::default(),
            archive: RefCell::default(),
            commands: RefCell::default(),
            feed: RefCell::default(),
            dropped: Cell::new(0),
            unreachable: Cell::new(false),
            hangs: Cell::new(false),
            idempotency_key: RefCell::default(),
            cors: Cors::Off,
            master_keys: MasterKeys::parse(&format!("k1:{MASTER_KEY}")).unwrap(),
            api_key: ApiKey::new(&SecretString::from(API_KEY)),
        }
    }

    /// As the coordinator reads its feed.
    fn changes(&self, after: Option<u64>, limit: u64) -> Result<Answer, Error> {
        let (feed, dropped) = (self.feed.borrow(), self.dropped.get());
        let last = feed.last().map_or(dropped, |change| change.position);
        let after = after.unwrap_or(dropped);
        if after > last || after < dropped {
            let kind = if after > last { ErrorKind::InvalidInput } else { ErrorKind::FeedGap };
            return Err(Error::new(kind, format!("Not after {after}."), "Read on behind another.").with_field("after"));
        }
        let page = feed.iter().filter(|change| change.position > after.max(dropped)).take(limit as usize);
        Ok(Answer::Changes { changes: page.map(Into::into).collect(), first: dropped + 1, last })
    }

    fn request(&self, request: ApiRequest) -> ApiResponse {
        let response = block_on(
            Service {
                registry: &self.registry,
                coordinators: self,
                objects: &self.catalogue,
                http: self,
                clock: self,
                entropy: self,
                master_keys: &self.master_keys,
                api_key: &self.api_key,
                cors: &self.cors,
                b2_api_url: "https://api.backblazeb2.com",
                version: "0.1.0",
            }
            .handle(request),
        );
        let text = String::from_utf8(response.body.clone()).unwrap();
        for secret in [API_KEY, KEY_ID, APPLICATION_KEY, MASTER_KEY, "\"ct\"", "\"salt\"", "4_token"] {
            if secret == KEY_ID && text.contains("X-Amz-Credential=") {
                continue; // A presigned URL, which was asked for, cannot do without.
            }
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        response
    }

    fn call(&self, method: &str, target: &str, body: Value) -> (u16, Value) {
        self.now.set(self.now.get() + 1_000);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let response = self.request(ApiRequest {
            method: method.into(),
            path: path.into(),
            query: query.into(),
            authorization: Some(format!("Bearer {API_KEY}")),
            idempotency_key: self.idempotency_key.borrow().clone(),
            accept: None,
            last_event_id: None,
            body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
            ..ApiRequest::default()
        });
        assert_eq!(response.status == 204, response.body.is_empty());
        let answer = if response.body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&response.body) };
        (response.status, answer.unwrap())
    }

    #[track_caller]
    fn ok(&self, method: &str, target: &str, body: Value) -> Value {
        let (status, answer) = self.call(method, target, body);
        assert_eq!(status, 200, "{method} {target}: {answer}");
        answer
    }

    /// The status, the type and the message of an error.
    #[track_caller]
    fn refused(&self, method: &str, target: &str, body: Value) -> (u16, String, String) {
        let (status, answer) = self.call(method, target, body);
        assert_eq!(answer["success"], false, "{method} {target}: {answer}");
        assert_eq!(answer["status"], status);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (status, text(&answer["error"]["type"]), text(&answer["error"]["message"]))
    }

    /// Where a body is wrong.
    #[track_caller]
    fn wrong(&self, method: &str, target: &str, body: Value) -> Vec<String> {
        let (status, answer) = self.call(method, target, body);
        assert_eq!(status, 422, "{answer}");
        assert_eq!(answer["error"]["type"], "ValidationError");
        let problems = answer["error"]["details"]["validation_errors"].as_array().unwrap();
        assert!(!problems.is_empty(), "{answer}");
        let location = |problem: &Value| {
            assert!(problem["message"].as_str().unwrap().len() > 10, "{problem}");
            let parts = problem["location"].as_array().unwrap();
            parts.iter().map(|part| part.as_str().unwrap()).collect::<Vec<_>>().join(".")
        };
        problems.iter().map(location).collect()
    }

    fn connection(&self, name: &str) -> String {
        let created = self.ok("POST", CONNECTIONS, new_connection(name));
        created["connection_id"].as_str().unwrap().to_owned()
    }

    /// The path of a new sync.
    fn sync(&self) -> String {
        let body = json!({"connection_id": self.connection("A"), "source_path": "b2://my-videos/2024/"});
        let created = self.ok("POST", SYNCS, body);
        let sync_id = created["sync_config_id"].as_str().unwrap();
        for jobs in [&self.jobs, &self.archive] {
            jobs.borrow_mut().iter_mut().for_each(|job| job.sync_id = sync_id.to_owned());
        }
        format!("{SYNCS}/{sync_id}")
    }

    fn record(&self, path: &str) -> crate::registry::SyncRecord {
        block_on(self.registry.sync(path.rsplit('/').next().unwrap())).unwrap().unwrap()
    }
}

const CONNECTIONS: &str = "/v1/organizations/connections";
const SYNCS: &str = "/v1/buckets/bkt_1/syncs";
const OBJECTS: &str = "/v1/buckets/bkt_1/objects";

fn new_connection(name: &str) -> Value {
    json!({
        "name": name,
        "provider_type": "backblaze",
        "provider_config": {"credentials": {
            "type": "application_key", "key_id": KEY_ID, "application_key": APPLICATION_KEY,
        }},
    })
}

/// Fails if `answer` has not exactly these keys.
#[track_caller]
fn check_keys(answer: &Value, keys: &str) {
    let mut wanted: Vec<&str> = keys.split_whitespace().collect();
    wanted.sort_unstable();
    let mut got: Vec<&str> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    got.sort_unstable();
    assert_eq!(got, wanted);
}

/// A catalogue with three files.
fn fill(home: &Home, sync_id: &str) {
    deliver(home, sync_id, 1, &["2024/a b+%.mp4", "2024/動画/🎬.mov", "notes.unknown"]);
}

/// Puts files into the catalogue, as changes from that position on.
fn deliver(home: &Home, sync_id: &str, first: u64, keys: &[&str]) {
    let target = CatalogueTarget {
        bucket_id: "bkt_1".into(),
        sync_id: sync_id.into(),
        connection_id: block_on(home.registry.connection("A")).unwrap().unwrap().connection_id,
        source_bucket: "my-videos".into(),
    };
    let entry = |key: &str| Entry { key: key.into(), etag: "e1".into(), size: 7, last_modified: Timestamp::default() };
    let changes: Vec<Change> = keys.iter().zip(first..).map(|(key, position)| created(position, entry(key))).collect();
    let delivered = block_on(home.catalogue.sink("default", target, home).deliver(&changes)).unwrap();
    assert_eq!(delivered.len(), keys.len());
}
