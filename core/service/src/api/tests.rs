//! The whole API against fakes: every route, every refusal, every shape.

use std::cell::{Cell, RefCell};

use pollster::block_on;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    catalogue::{CatalogueTarget, MemoryCatalogue},
    coordinator::protocol::{Answer, Command, Stretched, SyncState, SyncStatus},
    registry::{MemoryRegistry, Registry},
    seal::MasterKeys,
};
use b2sync_core::{
    dead_letters::DeadLetters,
    entropy::Entropy,
    entry::Entry,
    error::{Error, ErrorKind},
    http::{ExchangeLimits, HttpClient, Request, Response, TransportError, TransportFault},
    job::{ErrorRecord, JobCost, JobCounts, JobRecord, JobStatus, Phase, Trigger},
    secret::SecretString,
    sink::{Change, ChangeKind, Sink},
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
const PAGE: &str = r#"<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>my-videos</Name><Prefix></Prefix><MaxKeys>1</MaxKeys><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated><KeyCount>0</KeyCount></ListBucketResult>"#;

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
    running: RefCell<Option<JobRecord>>,
    jobs: RefCell<Vec<JobRecord>>,
    archive: RefCell<Vec<JobRecord>>,
    commands: RefCell<Vec<Command>>,
    unreachable: Cell<bool>,
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
    async fn send(&self, request: Request, _: ExchangeLimits) -> Result<Response, TransportError> {
        self.sent.borrow_mut().push(request.uri().to_string());
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
                Answer::Jobs { jobs, total }
            }
            Command::Job { job_id } => {
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
                Answer::Marked { letters, job: Some(Box::new(job("job_now", NOW, JobStatus::Running))) }
            }
            Command::MarkFailed { error_types } => {
                Answer::Marked { letters: self.letters.borrow_mut().mark_failed(&error_types), job: None }
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
        sync_id: String::new(), // Whoever needs it sets it.
        trigger: Trigger::Manual,
        status,
        phase: if over { Phase::Done } else { Phase::Discovering },
        created_at: at,
        started_at: Some(at.plus_millis(10)),
        updated_at: at.plus_millis(30_010),
        completed_at: over.then(|| at.plus_millis(60_010)),
        counts: JobCounts {
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
        warning: None,
        limited: false,
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
            running: RefCell::default(),
            jobs: RefCell::default(),
            archive: RefCell::default(),
            commands: RefCell::default(),
            unreachable: Cell::new(false),
            master_keys: MasterKeys::parse(&format!("k1:{MASTER_KEY}")).unwrap(),
            api_key: ApiKey::new(&SecretString::from(API_KEY)),
        }
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
            namespace: None,
            body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
        });
        (response.status, serde_json::from_slice(&response.body).unwrap())
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

// Who may call, and where

#[test]
fn every_v1_path_wants_the_key() {
    let home = Home::new();
    let paths = [
        "/v1",
        "/v1/",
        "/v1/nothing",
        CONNECTIONS,
        "/v1/organizations/connections/x/test",
        SYNCS,
        OBJECTS,
        "/%761/organizations/connections",
    ];
    for path in paths {
        for authorization in [None, Some("Bearer wrong"), Some("Bearer "), Some(API_KEY)] {
            for method in ["GET", "POST", "PUT"] {
                let request = ApiRequest {
                    method: method.into(),
                    path: path.into(),
                    authorization: authorization.map(str::to_owned),
                    ..ApiRequest::default()
                };
                let response = home.request(request);
                let body: Value = serde_json::from_slice(&response.body).unwrap();
                if path.starts_with("/%") && method == "PUT" {
                    continue; // It is told that the method is wrong, which says nothing.
                }
                assert_eq!(response.status, 401, "{method} {path}");
                assert_eq!(body["error"]["type"], "UnauthorizedError");
                assert!(body["error"]["message"].as_str().unwrap().contains("Authorization: Bearer"));
                assert!(response.headers.contains(&("www-authenticate", "Bearer".to_owned())));
            }
        }
    }
}

#[test]
fn two_paths_are_public() {
    let home = Home::new();
    for path in ["/", "/healthz", "/healthz/"] {
        let response = home.request(ApiRequest { method: "GET".into(), path: path.into(), ..ApiRequest::default() });
        assert_eq!(response.status, 200);
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(body["version"], "0.1.0");
    }
    let request = ApiRequest { method: "GET".into(), path: "/favicon.ico".into(), ..ApiRequest::default() };
    assert_eq!(home.request(request).status, 404);
}

#[test]
fn a_wrong_method_says_which_are_right() {
    let home = Home::new();
    let response = home.request(ApiRequest {
        method: "PUT".into(),
        path: CONNECTIONS.into(),
        authorization: Some(format!("Bearer {API_KEY}")),
        ..ApiRequest::default()
    });
    assert_eq!(response.status, 405);
    assert!(response.headers.contains(&("allow", "GET, HEAD, POST".to_owned())));
}

// Connections

#[test]
fn a_connection_from_birth_to_death() {
    let home = Home::new();
    let mut body = new_connection("Backblaze B2 Production");
    body["description"] = "All videos".into();
    body["metadata"] = json!({"team": "media"});
    let created = home.ok("POST", CONNECTIONS, body);
    let id = created["connection_id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("conn_"));
    assert_eq!(
        created,
        json!({
            "connection_id": id,
            "internal_id": "int_b2sync",
            "provider_type": "backblaze",
            "provider_config": {"provider_type": "backblaze", "credentials": {"type": "application_key"}},
            "write_enabled": false,
            "name": "Backblaze B2 Production",
            "description": "All videos",
            "status": "ACTIVE",
            "is_active": true,
            "last_used_at": null,
            "last_error": null,
            "consecutive_failures": 0,
            "created_at": "2023-11-14T22:13:21Z",
            "updated_at": "2023-11-14T22:13:21Z",
            "created_by_user_id": "usr_api_key",
            "metadata": {"team": "media"},
        })
    );
    assert_eq!(home.ok("GET", &format!("{CONNECTIONS}/{id}"), Value::Null), created);
    assert_eq!(home.ok("GET", &format!("{CONNECTIONS}/Backblaze%20B2%20Production"), Value::Null), created);

    let tested = home.ok("POST", &format!("{CONNECTIONS}/{id}/test"), Value::Null);
    check_keys(&tested, "success message details");
    assert_eq!(tested["success"], true);
    assert_eq!(
        tested["details"],
        json!({
            "s3_endpoint": "https://s3.us-east-005.backblazeb2.com",
            "region": "us-east-005",
            "capabilities": ["listBuckets", "listFiles", "readFiles"],
            "missing_capabilities": [],
            "buckets": null,
            "name_prefix": null,
            "key_expires_at": null,
        })
    );
    let read = home.ok("GET", &format!("{CONNECTIONS}/{id}"), Value::Null);
    assert_eq!(read["last_used_at"], "2023-11-14T22:13:24Z");

    let patch = json!({"name": "Renamed", "description": "", "metadata": {}, "write_enabled": true});
    let patched = home.ok("PATCH", &format!("{CONNECTIONS}/{id}"), patch);
    assert_eq!(
        (&patched["name"], &patched["description"], &patched["metadata"], &patched["write_enabled"]),
        (&"Renamed".into(), &Value::Null, &json!({}), &true.into())
    );
    assert_eq!(home.refused("GET", &format!("{CONNECTIONS}/Backblaze%20B2%20Production"), Value::Null).0, 404);

    let deleted = home.ok("DELETE", &format!("{CONNECTIONS}/Renamed"), Value::Null);
    assert!(deleted.as_object().unwrap().values().all(Value::is_string), "the client reads strings: {deleted}");
    assert_eq!(home.ok("GET", &format!("{CONNECTIONS}/{id}"), Value::Null)["status"], "ARCHIVED");
    assert_eq!(block_on(home.registry.connection(&id)).unwrap().unwrap().application_key, None);
    home.ok("DELETE", &format!("{CONNECTIONS}/{id}"), Value::Null); // again
    for (method, path) in [("PATCH", ""), ("POST", "/test")] {
        let (status, name, message) = home.refused(method, &format!("{CONNECTIONS}/{id}{path}"), json!({}));
        assert_eq!((status, name.as_str()), (409, "ConflictError"), "{message}");
    }
    home.connection("Renamed"); // The name is free.
}

#[test]
fn a_connection_is_stored_sealed() {
    let home = Home::new();
    let id = home.connection("A");
    let record = block_on(home.registry.connection(&id)).unwrap().unwrap();
    let stored = serde_json::to_string(&record).unwrap();
    assert!(!stored.contains(APPLICATION_KEY));
    let sealed = record.application_key.unwrap();
    let opened = home.master_keys.open(&sealed, &id).unwrap();
    assert_eq!(secrecy::ExposeSecret::expose_secret(&opened), APPLICATION_KEY);
    assert!(home.master_keys.open(&sealed, "conn_other").is_err());
}

#[test]
fn names_are_unique() {
    let home = Home::new();
    home.connection("A");
    let calls = home.sent.borrow().len();
    let (status, name, message) = home.refused("POST", CONNECTIONS, new_connection("A"));
    assert_eq!((status, name.as_str()), (409, "AlreadyExistsError"));
    assert!(message.contains("\"A\""));
    assert_eq!(home.sent.borrow().len(), calls, "B2 was not asked");
    let b = home.connection("B");
    let (status, name, _) = home.refused("PATCH", &format!("{CONNECTIONS}/{b}"), json!({"name": "A"}));
    assert_eq!((status, name.as_str()), (409, "AlreadyExistsError"));
}

#[test]
fn a_connection_that_is_wrong_says_where() {
    let home = Home::new();
    assert_eq!(home.wrong("POST", CONNECTIONS, json!({})), ["body.name", "body.provider_type", "body.provider_config"]);
    assert_eq!(home.wrong("POST", CONNECTIONS, Value::Null).len(), 3);
    let mut body = new_connection(" ");
    body["provider_type"] = "s3".into();
    body["description"] = "x".repeat(501).into();
    body["write_enabled"] = "yes".into();
    body["test_before_save"] = 1.into();
    body["metadata"] = json!([]);
    body["colour"] = "blue".into();
    body["provider_config"] =
        json!({"region": "x", "credentials": {"type": "oauth", "key_id": 1, "application_key": "ü"}});
    let mut wrong = home.wrong("POST", CONNECTIONS, body);
    wrong.sort_unstable();
    assert_eq!(
        wrong,
        [
            "body.colour",
            "body.description",
            "body.metadata",
            "body.name",
            "body.provider_config.credentials.application_key",
            "body.provider_config.credentials.key_id",
            "body.provider_config.credentials.type",
            "body.provider_config.region",
            "body.provider_type",
            "body.test_before_save",
            "body.write_enabled",
        ]
    );
    for (config, location) in [
        (json!({}), "body.provider_config.credentials"),
        (json!([]), "body.provider_config"),
        (json!({"credentials": {"application_key": "x"}}), "body.provider_config.credentials.key_id"),
        (json!({"credentials": {"key_id": "x"}}), "body.provider_config.credentials.application_key"),
        (
            json!({"credentials": {"key_id": "x", "application_key": ""}}),
            "body.provider_config.credentials.application_key",
        ),
    ] {
        let body = json!({"name": "A", "provider_type": "backblaze", "provider_config": config});
        assert_eq!(home.wrong("POST", CONNECTIONS, body), [location]);
    }
    assert_eq!(home.wrong("PATCH", &format!("{CONNECTIONS}/x"), json!({"status": "active"})), ["body.status"]);
    assert_eq!(
        home.wrong("PATCH", &format!("{CONNECTIONS}/x"), json!({"status": "ACTIVE", "is_active": false})),
        ["body.is_active"]
    );
    assert!(home.sent.borrow().is_empty(), "B2 was not asked");
}

#[test]
fn a_secret_in_the_wrong_place_is_not_echoed() {
    let home = Home::new();
    // `request` looks for the secret in every answer.
    let odd = format!("{APPLICATION_KEY}\u{1F4A5}");
    for body in [
        json!({"name": APPLICATION_KEY.repeat(9), "application_key": APPLICATION_KEY}),
        json!({"name": "A", "provider_type": APPLICATION_KEY, "provider_config": APPLICATION_KEY}),
        json!({"name": "A", "provider_type": "backblaze", "provider_config": {"credentials": APPLICATION_KEY}}),
        json!({"name": "A", "provider_type": "backblaze",
               "provider_config": {"credentials": {"type": APPLICATION_KEY, "key_id": "x", "application_key": odd}}}),
    ] {
        assert_eq!(home.call("POST", CONNECTIONS, body).0, 422);
    }
    let response = home.request(ApiRequest {
        method: "POST".into(),
        path: CONNECTIONS.into(),
        authorization: Some(format!("Bearer {API_KEY}")),
        body: format!("{{\"application_key\": {APPLICATION_KEY}}}").into_bytes(),
        ..ApiRequest::default()
    });
    assert_eq!(response.status, 422);
}

#[test]
fn what_b2_says_about_a_key_is_told() {
    for (answer, status, code, text) in [
        (Some((401, r#"{"code":"bad_auth_token","message":"","status":401}"#)), 400, "bad_credentials", "key"),
        (Some((403, r#"{"code":"transaction_cap_exceeded","message":"","status":403}"#)), 400, "cap_exceeded", "cap"),
        (Some((503, r#"{"code":"service_unavailable","message":"","status":503}"#)), 503, "service_unavailable", ""),
        (None, 503, "transport", ""),
    ] {
        let home = Home::new();
        *home.authorize.borrow_mut() = answer.map(|(status, body)| (status, body.to_owned()));
        let (got, body) = home.call("POST", CONNECTIONS, new_connection("A"));
        assert_eq!((got, body["error"]["code"].as_str().unwrap()), (status, code), "{body}");
        assert_eq!(body["error"]["details"]["retryable"], status == 503);
        assert!(body["error"]["message"].as_str().unwrap().contains(text), "{body}");
        assert!(block_on(home.registry.connections()).unwrap().is_empty(), "nothing was stored");
        // Without the test it is stored all the same, and the test answers 200.
        let mut body = new_connection("A");
        body["test_before_save"] = false.into();
        home.ok("POST", CONNECTIONS, body);
        let tested = home.ok("POST", &format!("{CONNECTIONS}/A/test"), Value::Null);
        assert_eq!((&tested["success"], &tested["details"]["code"]), (&false.into(), &code.into()), "{tested}");
        let read = home.ok("GET", &format!("{CONNECTIONS}/A"), Value::Null);
        assert!(read["last_error"].is_string());
        assert_eq!(read["consecutive_failures"], u8::from(status != 503), "B2 being busy is no fault of the key");
    }
}

#[test]
fn five_failures_suspend_and_a_success_restores() {
    let home = Home::new();
    home.connection("A");
    *home.authorize.borrow_mut() = Some((401, r#"{"code":"bad_auth_token","message":"","status":401}"#.into()));
    for failures in 1..=5 {
        home.ok("POST", &format!("{CONNECTIONS}/A/test"), Value::Null);
        let read = home.ok("GET", &format!("{CONNECTIONS}/A"), Value::Null);
        assert_eq!(read["consecutive_failures"], failures);
        assert_eq!(read["status"], if failures < 5 { "FAILED" } else { "SUSPENDED" });
        assert_eq!(read["is_active"], failures < 5);
    }
    let body = json!({"connection_id": "A", "source_path": "my-videos"});
    let (status, _, message) = home.refused("POST", SYNCS, body);
    assert_eq!(status, 409);
    assert!(message.contains("SUSPENDED") && message.contains("/test"), "{message}");
    *home.authorize.borrow_mut() = Some((200, ACCOUNT.into()));
    home.ok("POST", &format!("{CONNECTIONS}/A/test"), Value::Null);
    let read = home.ok("GET", &format!("{CONNECTIONS}/A"), Value::Null);
    assert_eq!(
        (&read["status"], &read["consecutive_failures"], &read["last_error"]),
        (&"ACTIVE".into(), &0.into(), &Value::Null)
    );
    // One that its user suspended stays so.
    home.ok("PATCH", &format!("{CONNECTIONS}/A"), json!({"is_active": false}));
    home.ok("POST", &format!("{CONNECTIONS}/A/test"), Value::Null);
    assert_eq!(home.ok("GET", &format!("{CONNECTIONS}/A"), Value::Null)["status"], "SUSPENDED");
    let failing = Some((401, r#"{"code":"bad_auth_token","message":"","status":401}"#.into()));
    home.authorize.borrow_mut().clone_from(&failing);
    for _ in 0..6 {
        home.ok("POST", &format!("{CONNECTIONS}/A/test"), Value::Null);
    }
    *home.authorize.borrow_mut() = Some((200, ACCOUNT.into()));
    let key = json!({"provider_config": {"credentials": {"application_key": APPLICATION_KEY}}});
    assert_eq!(home.ok("PATCH", &format!("{CONNECTIONS}/A"), key.clone())["status"], "SUSPENDED");
    let (_, _, message) = home.refused("POST", SYNCS, json!({"connection_id": "A", "source_path": "my-videos"}));
    assert!(message.contains("{\"is_active\": true}"), "{message}");

    // What failures suspended, a new key or its user's word lifts, and its syncs begin at once.
    home.ok("PATCH", &format!("{CONNECTIONS}/A"), json!({"is_active": true}));
    home.ok("POST", SYNCS, json!({"connection_id": "A", "source_path": "b2://my-videos/2024/"}));
    let begun_now = || home.commands.borrow().iter().filter(|it| **it == Command::ConnectionLifted).count();
    let mut begun = 0;
    assert_eq!(begun_now(), begun, "there was no sync to tell");
    for lift in [key, json!({"is_active": true}), json!({"status": "ACTIVE"})] {
        home.ok("PATCH", &format!("{CONNECTIONS}/A"), json!({"is_active": true}));
        home.authorize.borrow_mut().clone_from(&failing);
        for _ in 0..5 {
            home.ok("POST", &format!("{CONNECTIONS}/A/test"), Value::Null);
        }
        assert_eq!(home.ok("GET", &format!("{CONNECTIONS}/A"), Value::Null)["status"], "SUSPENDED");
        *home.authorize.borrow_mut() = Some((200, ACCOUNT.into()));
        let lifted = home.ok("PATCH", &format!("{CONNECTIONS}/A"), lift);
        assert_eq!((&lifted["status"], &lifted["is_active"]), (&"ACTIVE".into(), &true.into()));
        assert_eq!(lifted["consecutive_failures"], 0);
        begun += 1;
        assert_eq!(begun_now(), begun);
    }
}

#[test]
fn a_key_without_its_rights_fails_the_test() {
    let home = Home::new();
    *home.authorize.borrow_mut() = Some((200, ACCOUNT.replace("\"listFiles\",", "")));
    home.connection("A");
    let tested = home.ok("POST", &format!("{CONNECTIONS}/A/test"), Value::Null);
    assert_eq!(tested["success"], false);
    assert_eq!(tested["details"]["missing_capabilities"], json!(["listFiles"]));
    assert!(tested["message"].as_str().unwrap().contains("List Files"));
}

#[test]
fn new_credentials_keep_what_they_leave_out() {
    let home = Home::new();
    let id = home.connection("A");
    let patch = json!({"provider_config": {"credentials": {"application_key": "K005another"}}});
    home.ok("PATCH", &format!("{CONNECTIONS}/{id}"), patch);
    let record = block_on(home.registry.connection(&id)).unwrap().unwrap();
    assert_eq!(record.key_id, KEY_ID);
    let opened = home.master_keys.open(record.application_key.as_ref().unwrap(), &id).unwrap();
    assert_eq!(secrecy::ExposeSecret::expose_secret(&opened), "K005another");
    // Wrong ones are not stored.
    *home.authorize.borrow_mut() = Some((401, r#"{"code":"bad_auth_token","message":"","status":401}"#.into()));
    let patch = json!({"provider_config": {"credentials": {"key_id": "other"}}});
    assert_eq!(home.refused("PATCH", &format!("{CONNECTIONS}/{id}"), patch).0, 400);
    assert_eq!(block_on(home.registry.connection(&id)).unwrap().unwrap(), record);
    // A body that changes no credentials asks nobody.
    home.ok(
        "PATCH",
        &format!("{CONNECTIONS}/{id}"),
        json!({"description": "x", "provider_config": {"provider_type": "backblaze"}}),
    );
}

#[test]
fn a_connection_in_use_stays() {
    let home = Home::new();
    let sync = home.sync();
    for (method, body) in [("DELETE", Value::Null), ("PATCH", json!({"status": "ARCHIVED"}))] {
        let (status, name, message) = home.refused(method, &format!("{CONNECTIONS}/A"), body);
        assert_eq!((status, name.as_str()), (409, "ConflictError"));
        assert!(message.contains(sync.rsplit('/').next().unwrap()) && message.contains("bkt_1"), "{message}");
    }
    home.ok("POST", &format!("{sync}/pause"), Value::Null);
    home.ok("DELETE", &format!("{CONNECTIONS}/A"), Value::Null);
    let (status, _, message) = home.refused("POST", &format!("{sync}/resume"), Value::Null);
    assert_eq!(status, 409);
    assert!(message.contains("deleted"), "{message}");
}

#[test]
fn lists_of_connections() {
    let home = Home::new();
    for name in ["A", "B", "C", "D", "E"] {
        home.connection(name);
    }
    home.ok("PATCH", &format!("{CONNECTIONS}/B"), json!({"status": "SUSPENDED"}));
    home.ok("DELETE", &format!("{CONNECTIONS}/C"), Value::Null);
    let names = |query: &str, body: Value| -> Vec<String> {
        let answer = home.ok("POST", &format!("{CONNECTIONS}/list{query}"), body);
        check_keys(&answer, "results pagination total");
        let results = answer["results"].as_array().unwrap();
        results.iter().map(|result| result["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("", Value::Null), ["E", "D", "B", "A"]);
    assert_eq!(names("", json!({"is_active": true})), ["E", "D", "A"]);
    assert_eq!(names("", json!({"status": "SUSPENDED", "provider_type": "backblaze"})), ["B"]);
    assert_eq!(names("", json!({"status": "ARCHIVED"})), ["C"]);
    assert!(names("", json!({"provider_type": "s3"})).is_empty());
    assert_eq!(names("?page_size=2&page=2", json!({})), ["B", "A"]);
    let answer = home.ok("GET", &format!("{CONNECTIONS}?limit=3"), Value::Null);
    assert_eq!((&answer["total"], &answer["pagination"]["total_pages"]), (&4.into(), &2.into()));
    check_keys(&answer["pagination"], "total page page_size total_pages next_page previous_page next_cursor");
    let cursor = answer["pagination"]["next_cursor"].as_str().unwrap();
    assert_eq!(names(&format!("?limit=3&cursor={cursor}"), Value::Null), ["A"]);
    assert_eq!(
        home.wrong("POST", &format!("{CONNECTIONS}/list?limit=0&offset=x"), json!({"status": "active", "x": 1})),
        ["query.limit", "query.offset", "body.status", "body.x"]
    );
}

#[test]
fn an_unknown_connection_is_not_found() {
    let home = Home::new();
    for (method, path) in [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/test")] {
        let (status, name, message) = home.refused(method, &format!("{CONNECTIONS}/conn_none{path}"), Value::Null);
        assert_eq!((status, name.as_str()), (404, "NotFoundError"));
        assert!(message.contains("conn_none"));
    }
}

// Syncs

#[test]
fn a_sync_as_the_documentation_makes_it() {
    let home = Home::new();
    let connection_id = home.connection("A");
    let created = home.ok(
        "POST",
        SYNCS,
        json!({
            "connection_id": connection_id,
            "source_path": "b2://my-videos/2024/",
            "sync_mode": "scheduled",
            "polling_interval_seconds": 3600,
            "include_patterns": ["*.mp4", "*.mov"],
            "exclude_patterns": ["*_thumbnail.*"],
            "modified_since": "2024-01-01T02:00:00+02:00",
        }),
    );
    let sync_id = created["sync_config_id"].as_str().unwrap().to_owned();
    assert!(sync_id.starts_with("sync_"));
    // More than `json!` can hold.
    let wanted = r#"{
        "sync_config_id": "SYNC",
        "bucket_id": "bkt_1",
        "connection_id": "CONN",
        "internal_id": "int_b2sync",
        "namespace_id": "default",
        "source_path": "b2://my-videos/2024/",
        "source_type": "backblaze",
        "file_filters": {
            "include_patterns": ["*.mp4", "*.mov"],
            "exclude_patterns": ["*_thumbnail.*"],
            "extensions": null,
            "min_size_bytes": null,
            "max_size_bytes": null,
            "modified_after": "2024-01-01T00:00:00Z",
            "modified_before": null,
            "mime_types": null,
            "metadata_filters": null
        },
        "schema_mapping": null,
        "sync_mode": "continuous",
        "schedule": {"mode": "scheduled", "interval_seconds": 3600, "next_run_at": null, "last_run_at": null},
        "polling_interval_seconds": 3600,
        "batch_size": 50,
        "create_object_on_confirm": true,
        "skip_duplicates": true,
        "skip_batch_submission": false,
        "batch_collection_ids": null,
        "ingest_filter": null,
        "provider_filters": null,
        "sync_from": null,
        "reconcile": {"on_delete": true, "on_update": true, "on_filter_drift": true},
        "deletion_limit": {"percent": 50, "files": 100},
        "status": "PENDING",
        "is_active": true,
        "total_files_discovered": 0,
        "total_files_synced": 0,
        "total_files_failed": 0,
        "total_bytes_synced": 0,
        "total_bytes_known": 0,
        "consecutive_failures": 0,
        "sync_run_counter": 0,
        "created_at": "2023-11-14T22:13:22Z",
        "updated_at": "2023-11-14T22:13:22Z",
        "created_by_user_id": "usr_api_key",
        "last_sync_at": null,
        "next_sync_at": null,
        "last_error": null,
        "paused": false,
        "pause_reason": null,
        "paused_at": null,
        "locked": false,
        "locked_at": null,
        "current_sync_run_id": null,
        "sync_progress": null,
        "stats": null,
        "description": null,
        "metadata": {},
        "sync_concurrency": null,
        "max_objects_per_run": null,
        "max_class_c_per_day": null,
        "dead_letters": null,
        "stretched": null,
        "cost": {"last_job": null, "per_day": null}
    }"#;
    let wanted = wanted.replace("SYNC", &sync_id).replace("CONN", &connection_id);
    let wanted: Value = serde_json::from_str(&wanted).unwrap();
    assert_eq!(created, wanted);
    assert_eq!(home.ok("GET", &format!("{SYNCS}/{sync_id}"), Value::Null), created);
    assert_eq!(home.commands.borrow().first(), Some(&Command::Configured));
    let probed = home.sent.borrow().last().unwrap().clone();
    assert!(probed.starts_with("https://s3.us-east-005.backblazeb2.com/my-videos?"), "{probed}");
    assert!(probed.contains("max-keys=1") && probed.contains("prefix=2024%2F"), "{probed}");
    let due = block_on(home.registry.due(Timestamp::from_millis(NOW * 2), 9)).unwrap();
    assert_eq!(due.iter().map(|due| &due.sync_id).collect::<Vec<_>>(), [&sync_id]);
}

#[test]
fn a_sync_as_the_client_makes_it() {
    let home = Home::new();
    home.connection("A");
    let filters = json!({
        "include_patterns": ["a/**"], "exclude_patterns": [], "extensions": ["mp4"], "min_size_bytes": 0,
        "max_size_bytes": 18446744073709551615_u64, "modified_after": "2024-01-01T00:00:00Z",
        "modified_before": "2025-01-01T00:00:00", "mime_types": ["video/*"], "metadata_filters": [],
    });
    let created = home.ok(
        "POST",
        SYNCS,
        json!({
            "connection_id": "A", "source_path": "my-videos", "sync_mode": "initial_only", "file_filters": filters,
            "include_patterns": ["a/**"], "schema_mapping": {"mappings": {"content": {"target_type": "blob", "source": {"type": "file"}, "blob_type": "video"}}},
            "polling_interval_seconds": 30, "batch_size": 100, "skip_batch_submission": true,
            "batch_collection_ids": ["col_1"], "ingest_filter": {"retriever_id": "ret_1"}, "skip_duplicates": false,
            "reconcile": {"on_delete": false, "on_update": true, "re_extract_on_update": false, "re_extract_fields": ["a"]},
            "sync_from": "2024-06-01T00:00:00Z", "provider_filters": {"x": 1}, "description": "d",
            "max_objects_per_run": 100000, "sync_concurrency": 8, "metadata": {"a": null},
            "deletion_limit": {"percent": 0, "files": 10000000},
        }),
    );
    assert_eq!(created["sync_mode"], "initial_only");
    assert_eq!(created["schedule"]["mode"], "one_time");
    assert_eq!(created["source_path"], "b2://my-videos/");
    assert_eq!(created["file_filters"]["modified_before"], "2025-01-01T00:00:00Z");
    assert_eq!(created["file_filters"]["max_size_bytes"], u64::MAX);
    assert_eq!(created["reconcile"]["on_delete"], false);
    assert_eq!(created["reconcile"]["re_extract_fields"], json!(["a"]));
    for (name, value) in [
        ("skip_batch_submission", json!(true)),
        ("batch_collection_ids", json!(["col_1"])),
        ("ingest_filter", json!({"retriever_id": "ret_1"})),
        ("provider_filters", json!({"x": 1})),
        (
            "schema_mapping",
            json!({"mappings": {"content": {"target_type": "blob", "source": {"type": "file"}, "blob_type": "video"}}}),
        ),
        ("sync_from", json!("2024-06-01T00:00:00Z")),
        ("max_objects_per_run", json!(100_000)),
        ("sync_concurrency", json!(8)),
        ("metadata", json!({"a": null})),
        ("description", json!("d")),
        ("skip_duplicates", json!(false)),
        ("deletion_limit", json!({"percent": 0, "files": 10_000_000})),
    ] {
        assert_eq!(created[name], value, "{name}");
    }
    let record = home.record(created["sync_config_id"].as_str().unwrap());
    assert_eq!(record.effective_filters().modified_after, record.echoed.sync_from);
}

#[test]
fn a_sync_that_is_wrong_says_where() {
    let home = Home::new();
    assert_eq!(home.wrong("POST", SYNCS, Value::Null), ["body.connection_id", "body.source_path"]);
    let body = json!({
        "connection_id": 1, "source_path": "gs://x/y", "sync_mode": "weekly", "polling_interval_seconds": 29,
        "batch_size": 101, "sync_concurrency": 0, "max_objects_per_run": 0, "skip_duplicates": "yes",
        "file_filters": {"include_patterns": "*.mp4", "min_size_bytes": -1, "modified_after": "2024", "colour": 1,
                         "metadata_filters": [{"field": "a"}]},
        "reconcile": {"on_delete": 1, "other": true}, "ingest_filter": {}, "schema_mapping": {"a": 1},
        "bucket_id": "x", "sync_from": 5, "deletion_limit": {"percent": 101, "files": 10_000_001, "share": 0.5},
    });
    let mut wrong = home.wrong("POST", SYNCS, body);
    wrong.sort_unstable();
    assert_eq!(
        wrong,
        [
            "body.batch_size",
            "body.bucket_id",
            "body.connection_id",
            "body.deletion_limit.files",
            "body.deletion_limit.percent",
            "body.deletion_limit.share",
            "body.file_filters.colour",
            "body.file_filters.include_patterns",
            "body.file_filters.metadata_filters",
            "body.file_filters.min_size_bytes",
            "body.file_filters.modified_after",
            "body.ingest_filter",
            "body.max_objects_per_run",
            "body.polling_interval_seconds",
            "body.reconcile.on_delete",
            "body.reconcile.other",
            "body.schema_mapping",
            "body.skip_duplicates",
            "body.source_path",
            "body.sync_concurrency",
            "body.sync_from",
            "body.sync_mode",
        ]
    );
    for (filters, location) in [
        (json!({"include_patterns": ["ok", "a[b"]}), "body.file_filters.include_patterns[1]"),
        (json!({"min_size_bytes": 2, "max_size_bytes": 1}), "body.file_filters.min_size_bytes"),
        (json!({"mime_types": ["video"]}), "body.file_filters.mime_types[0]"),
    ] {
        let body = json!({"connection_id": "A", "source_path": "my-videos", "file_filters": filters});
        assert_eq!(home.wrong("POST", SYNCS, body), [location]);
    }
    let body = json!({
        "connection_id": "A", "source_path": "my-videos",
        "file_filters": {"include_patterns": ["a"], "exclude_patterns": ["b"], "modified_after": "2024-01-01T00:00:00Z"},
        "include_patterns": ["x"], "exclude_patterns": ["y"], "modified_since": "2025-01-01T00:00:00Z",
    });
    assert_eq!(
        home.wrong("POST", SYNCS, body),
        ["body.include_patterns", "body.exclude_patterns", "body.modified_since"]
    );
    let (status, _, message) = home.refused("POST", SYNCS, json!({"connection_id": "A", "source_path": "my-videos"}));
    assert_eq!(status, 404);
    assert!(message.contains("no connection \"A\""), "{message}");
}

#[test]
fn what_b2_says_about_a_source_is_told_at_once() {
    let restricted = ACCOUNT.replace("\"buckets\":null", r#""buckets":[{"id":"b","name":"my-videos"}]"#);
    let no_list = ACCOUNT.replace("\"listFiles\",", "");
    let prefix = ACCOUNT.replace("\"namePrefix\":null", "\"namePrefix\":\"2024/\"");
    let expired =
        ACCOUNT.replace("\"applicationKeyExpirationTimestamp\":null", "\"applicationKeyExpirationTimestamp\":1");
    let xml = |code: &str| format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>");
    let ok = || Some((200, PAGE.to_owned()));
    for (account, list, source, status, code) in [
        (restricted.as_str(), ok(), "other-bucket", 400, "bucket_not_allowed"),
        (restricted.as_str(), ok(), "My-Videos", 400, "bucket_not_allowed"),
        (no_list.as_str(), ok(), "my-videos", 400, "capability_missing"),
        (prefix.as_str(), ok(), "my-videos", 400, "prefix_not_allowed"),
        (expired.as_str(), ok(), "my-videos", 400, "key_expired"),
        (ACCOUNT, Some((404, xml("NoSuchBucket"))), "my-videos", 400, "bucket_not_found"),
        (ACCOUNT, Some((503, xml("SlowDown"))), "my-videos", 200, ""),
        (ACCOUNT, None, "my-videos", 200, ""),
    ] {
        for test_before_save in [true, false] {
            let home = Home::new();
            *home.authorize.borrow_mut() = Some((200, account.to_owned()));
            *home.list.borrow_mut() = list.clone();
            let mut connection = new_connection("A");
            connection["test_before_save"] = test_before_save.into();
            home.ok("POST", CONNECTIONS, connection);
            let (got, body) = home.call("POST", SYNCS, json!({"connection_id": "A", "source_path": source}));
            assert_eq!(got, status, "{source} {code}: {body}");
            if status == 400 {
                assert_eq!((&body["error"]["code"], &body["error"]["type"]), (&code.into(), &"BadRequestError".into()));
                assert_eq!(home.ok("POST", &format!("{SYNCS}/list"), Value::Null)["total"], 0);
            }
            // Whether or not the sync is refused, what was learnt of the key is kept.
            assert!(block_on(home.registry.connection("A")).unwrap().unwrap().account.is_some());
        }
    }
}

#[test]
fn a_cached_account_that_is_old_is_asked_for_anew() {
    let home = Home::new();
    home.connection("A");
    *home.list.borrow_mut() = Some((404, "<Error><Code>NoSuchBucket</Code></Error>".into()));
    let moved = ACCOUNT.replace("us-east-005", "eu-central-003");
    *home.authorize.borrow_mut() = Some((200, moved));
    let refused = home.refused("POST", SYNCS, json!({"connection_id": "A", "source_path": "my-videos"}));
    assert_eq!(refused.0, 400, "B2 says the same again");
    let sent = home.sent.borrow();
    assert!(sent[1].starts_with("https://s3.us-east-005."), "{sent:?}");
    assert!(sent[2].contains("b2_authorize_account"), "{sent:?}");
    assert!(sent[3].starts_with("https://s3.eu-central-003."), "{sent:?}");
    assert_eq!(sent.len(), 4);
    let stored = serde_json::to_value(block_on(home.registry.connection("A")).unwrap().unwrap()).unwrap();
    assert_eq!(stored["account"]["region"], "eu-central-003");
}

#[test]
fn a_sync_belongs_to_its_bucket_and_namespace() {
    let home = Home::new();
    let sync = home.sync();
    let id = sync.rsplit('/').next().unwrap();
    let with = |path: String, namespace: &str| {
        let request = ApiRequest {
            method: "GET".into(),
            path,
            authorization: Some(format!("Bearer {API_KEY}")),
            namespace: Some(namespace.into()),
            ..ApiRequest::default()
        };
        home.request(request).status
    };
    assert_eq!(with(sync.clone(), "default"), 200);
    assert_eq!(with(sync.clone(), ""), 200);
    assert_eq!(with(sync.clone(), "other"), 404);
    assert_eq!(with(format!("/v1/buckets/bkt_2/syncs/{id}"), "default"), 404);
    assert_eq!(with(sync.clone(), &"x".repeat(101)), 422);
    let wrong = sync.replace("bkt_1", "bkt_2");
    for (method, path) in [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/trigger"),
        ("POST", "/unlock"),
        ("GET", "/metrics"),
        ("POST", "/jobs"),
        ("GET", "/jobs/job_1"),
    ] {
        let (status, name, message) = home.refused(method, &format!("{wrong}{path}"), Value::Null);
        assert_eq!((status, name.as_str()), (404, "NotFoundError"), "{method} {path}");
        assert!(message.contains("X-Namespace"), "{message}");
    }
    assert_eq!(home.commands.borrow().len(), 3, "no coordinator was disturbed"); // configured, and two reads
}

#[test]
fn a_sync_is_paused_and_resumed() {
    let home = Home::new();
    let sync = home.sync();
    let paused = home.ok("POST", &format!("{sync}/pause"), json!({"reason": "Holidays"}));
    assert_eq!(
        (&paused["status"], &paused["is_active"], &paused["paused"], &paused["pause_reason"]),
        (&"SUSPENDED".into(), &false.into(), &true.into(), &"Holidays".into())
    );
    assert!(!home.record(&sync).is_active);
    home.ok("POST", &format!("{sync}/pause"), Value::Null);
    block_on(home.registry.set_poke_after(sync.rsplit('/').next().unwrap(), None)).unwrap();
    let resumed = home.ok("POST", &format!("{sync}/resume"), Value::Null);
    assert_eq!(
        (&resumed["status"], &resumed["is_active"], &resumed["paused"]),
        (&"ACTIVE".into(), &true.into(), &false.into())
    );
    assert_eq!(
        block_on(home.registry.due(home.now().plus_millis(1), 9)).unwrap().len(),
        1,
        "the cron looks after it again"
    );
    assert_eq!(home.ok("PATCH", &sync, json!({"is_active": false}))["status"], "SUSPENDED");
    assert_eq!(home.ok("PATCH", &sync, json!({"status": "ACTIVE"}))["status"], "ACTIVE");
    assert_eq!(home.wrong("PATCH", &sync, json!({"status": "PAUSED"})), ["body.status"]);
    assert_eq!(home.wrong("PATCH", &sync, json!({"status": "ACTIVE", "is_active": false})), ["body.is_active"]);
    assert_eq!(home.wrong("POST", &format!("{sync}/pause"), json!({"why": "x"})), ["body.why"]);
}

#[test]
fn a_sync_is_changed() {
    let home = Home::new();
    let sync = home.sync();
    let before = home.record(&sync);
    let patched = home.ok(
        "PATCH",
        &sync,
        json!({"description": "d", "polling_interval_seconds": 86400, "batch_size": 1, "metadata": {"a": 1},
               "reconcile": {"on_delete": false}, "max_objects_per_run": 5, "sync_concurrency": 2,
               "batch_collection_ids": ["col"], "include_patterns": ["*.mp4"], "skip_batch_submission": true}),
    );
    assert_eq!(patched["polling_interval_seconds"], 86_400);
    assert_eq!(patched["reconcile"], json!({"on_delete": false, "on_update": true, "on_filter_drift": true}));
    assert_eq!(patched["file_filters"]["include_patterns"], json!(["*.mp4"]));
    let after = home.record(&sync);
    assert_eq!((&after.salt, &after.source, after.created_at), (&before.salt, &before.source, before.created_at));
    assert!(home.commands.borrow().ends_with(&[Command::Configured]));
    // The nested filters replace all; null clears; what is left out stays.
    let patched = home.ok("PATCH", &sync, json!({"file_filters": {"min_size_bytes": 5}, "max_objects_per_run": null}));
    assert_eq!(
        (&patched["file_filters"]["include_patterns"], &patched["max_objects_per_run"]),
        (&Value::Null, &Value::Null)
    );
    let patched = home.ok("PATCH", &sync, json!({"file_filters": null, "metadata": null, "batch_collection_ids": []}));
    assert_eq!(
        (&patched["file_filters"], &patched["metadata"], &patched["batch_collection_ids"]),
        (&Value::Null, &json!({}), &Value::Null)
    );
    assert_eq!(patched["description"], "d");
    for (limit, percent, files) in [
        (json!({"percent": 80}), 80, 100),
        (json!({"files": 0}), 80, 0),
        (json!({}), 80, 0),
        (json!({"percent": 100, "files": 7}), 100, 7),
        (Value::Null, 50, 100),
    ] {
        let patched = home.ok("PATCH", &sync, json!({"deletion_limit": limit}));
        assert_eq!(patched["deletion_limit"], json!({"percent": percent, "files": files}), "{limit}");
        assert_eq!(u32::from(home.record(&sync).deletion_limit.percent), percent);
    }
    assert_eq!(home.wrong("PATCH", &sync, json!({"deletion_limit": 5})), ["body.deletion_limit"]);
    // What cannot be changed, and what does not fit together.
    assert_eq!(
        home.wrong("PATCH", &sync, json!({"source_path": "x", "sync_mode": "one_time"})),
        ["body.source_path", "body.sync_mode"]
    );
    home.ok("PATCH", &sync, json!({"file_filters": {"modified_before": "2024-01-01T00:00:00Z"}}));
    assert_eq!(
        home.wrong("PATCH", &sync, json!({"modified_since": "2025-01-01T00:00:00Z"})),
        ["body.file_filters.modified_after"]
    );
    assert_eq!(home.record(&sync).filters.modified_after, None);
}

#[test]
fn a_sync_is_triggered_once() {
    let home = Home::new();
    let sync = home.sync();
    block_on(home.registry.set_poke_after(sync.rsplit('/').next().unwrap(), None)).unwrap();
    let answer = home.ok("POST", &format!("{sync}/trigger?full_sync=true&confirm_deletes=true"), Value::Null);
    assert_eq!(
        block_on(home.registry.due(home.now().plus_millis(1), 9)).unwrap().len(),
        1,
        "the cron looks after the job"
    );
    check_keys(&answer, "sync_config_id sync_job_id status message job");
    assert_eq!((&answer["sync_job_id"], &answer["status"]), (&"job_now".into(), &"triggered".into()));
    let command = home.commands.borrow().last().cloned();
    assert_eq!(command, Some(Command::Trigger { trigger: Trigger::Manual, confirm_deletes: true, full_sync: true }));
    let answer = home.ok("POST", &format!("{sync}/trigger"), Value::Null);
    check_keys(&answer, "sync_config_id sync_job_id status message job");
    assert_eq!((&answer["sync_job_id"], &answer["status"]), (&"job_now".into(), &"skipped_already_running".into()));
    assert!(answer["message"].as_str().unwrap().contains("job_now"));
    let answer = home.ok("POST", &format!("{sync}/trigger?confirm_deletes=true"), Value::Null);
    assert_eq!(answer["confirm_deletes_ignored"], true, "the running job does not take it");
    assert!(answer["message"].as_str().unwrap().contains("trigger again with confirm_deletes=true"), "{answer}");
    assert_eq!(
        home.wrong("POST", &format!("{sync}/trigger?confirm_deletes=maybe"), Value::Null),
        ["query.confirm_deletes"]
    );
}

#[test]
fn a_running_sync_shows_its_progress() {
    let home = Home::new();
    let sync = home.sync();
    {
        let mut status = home.status.borrow_mut();
        status.state = SyncState::Failed;
        status.current_job = Some(job("job_2", NOW, JobStatus::Running));
        status.last_job = Some(job("job_1", NOW - 100_000, JobStatus::Failed));
        status.runs = 2;
        status.consecutive_failures = 1;
        status.last_sync_at = Some(Timestamp::from_millis(NOW - 1_000_000));
        status.files_known = 40;
        status.total_delivered = 10;
        status.total_failed = 1;
        status.last_error = Some(ErrorRecord { kind: "transport".into(), message: "x".repeat(2_000), transient: true });
    }
    let read = home.ok("GET", &sync, Value::Null);
    assert_eq!(
        (&read["status"], &read["locked"], &read["current_sync_run_id"]),
        (&"FAILED".into(), &true.into(), &"job_2".into())
    );
    assert_eq!(read["sync_progress"]["percent"], 50.0);
    assert_eq!(read["last_error"].as_str().unwrap().chars().count(), 1_000);
    assert_eq!(read["stats"]["last_run_objects_verified"], 11);
    let metrics = home.ok("GET", &format!("{sync}/metrics"), Value::Null);
    check_keys(
        &metrics,
        "sync_config_id status is_active paused total_files_discovered total_files_synced total_files_failed \
         batches_created sync_run_counter consecutive_failures last_error last_sync_at next_sync_at \
         seconds_since_last_sync is_stale intervals_since_last_sync stale_after_seconds failure_rate healthy dlq_total \
         dlq_by_error running_job stalled stalled_reason last_job stretched cost",
    );
    assert_eq!(
        (&metrics["stale_after_seconds"], &metrics["is_stale"], &metrics["healthy"]),
        (&600.into(), &true.into(), &false.into())
    );
    assert_eq!(metrics["failure_rate"], 0.025);
    assert_eq!(home.ok("POST", &format!("{sync}/unlock"), Value::Null)["sync_config_id"], read["sync_config_id"]);
    assert_eq!(home.commands.borrow().last(), Some(&Command::Unlock));
}

/// What the latest job cost, the day's forecast, and why polls are further apart.
#[test]
fn a_sync_says_what_it_costs() {
    let home = Home::new();
    let sync = home.sync();
    let patched = home.ok("PATCH", &sync, json!({"max_class_c_per_day": 10_000_000}));
    assert_eq!(patched["max_class_c_per_day"], 10_000_000);
    assert_eq!(home.record(&sync).max_class_c_per_day, Some(10_000_000));
    for wrong in [json!(0), json!(10_000_001), json!("9"), json!(1.5)] {
        assert_eq!(home.wrong("PATCH", &sync, json!({"max_class_c_per_day": wrong})), ["body.max_class_c_per_day"]);
    }
    let mut last = job("job_1", NOW - 100_000, JobStatus::Completed);
    last.cost = JobCost {
        class_b: 0,
        class_c: 1_001,
        bytes_received: 5,
        state_reads: 3,
        state_writes: 1,
        state_deletions: 1,
        steps: 2,
    };
    {
        let mut status = home.status.borrow_mut();
        status.completed_cost = Some(last.cost);
        status.last_job = Some(last);
        status.last_sync_at = Some(Timestamp::from_millis(NOW - 100_000));
    }
    let read = home.ok("GET", &sync, Value::Null);
    assert_eq!(
        read["cost"],
        json!({
            "last_job": {"sync_job_id": "job_1", "class_b_calls": 0, "class_c_calls": 1001, "bytes_received": 5,
                         "state_reads": 3, "state_writes": 1, "state_deletions": 1, "steps": 2, "dollars": 0.004004},
            "per_day": {"interval_seconds": 300, "class_b_calls": 0, "class_c_calls": 288_288, "bytes_received": 1440,
                        "state_reads": 864, "state_writes": 288, "state_deletions": 288, "steps": 576, "dollars": 1.143152,
                        "state_dollars_max": 0.003312},
        })
    );
    assert_eq!(read["stretched"], Value::Null);
    home.status.borrow_mut().stretched = Some(Stretched { interval_seconds: 86_400, reason: "A cap.".into() });
    let read = home.ok("GET", &sync, Value::Null);
    assert_eq!(read["stretched"], json!({"interval_seconds": 86_400, "reason": "A cap."}));
    assert_eq!(
        (&read["cost"]["per_day"]["class_c_calls"], &read["cost"]["per_day"]["dollars"]),
        (&1001.into(), &0.0.into())
    );
    let metrics = home.ok("GET", &format!("{sync}/metrics"), Value::Null);
    assert_eq!(
        (&metrics["stale_after_seconds"], &metrics["cost"]),
        (&172_800.into(), &read["cost"]),
        "late on purpose"
    );
    let patched = home.ok("PATCH", &sync, json!({"max_class_c_per_day": null}));
    assert_eq!(patched["max_class_c_per_day"], Value::Null);
    // One that does not poll has no days.
    let body =
        json!({"connection_id": "A", "source_path": "my-videos", "sync_mode": "one_time", "max_class_c_per_day": 5});
    let created = home.ok("POST", SYNCS, body);
    assert_eq!((&created["cost"]["per_day"], &created["max_class_c_per_day"]), (&Value::Null, &5.into()));
}

#[test]
fn dead_letters_are_listed_sent_back_and_given_up() {
    let home = Home::new();
    let sync = home.sync();
    for (n, key) in ["2024/a.mp4", "2024/ü 😀.mp4", "2024/c.mp4"].into_iter().enumerate() {
        let at = Timestamp::from_millis(NOW + n as i64);
        let entry = Entry { key: key.into(), etag: "e".into(), size: n as u64, last_modified: at };
        let change = Change::appeared("sync_1", ChangeKind::Created, entry);
        home.letters.borrow_mut().refuse(&change, &"no ".repeat(500), 3, at).unwrap();
    }
    let dlq = format!("{sync}/dlq");
    let answer = home.ok("POST", &dlq, Value::Null);
    check_keys(&answer, "results pagination total");
    assert_eq!(answer["total"], 3);
    let first = &answer["results"][0];
    check_keys(
        first,
        "dlq_id sync_config_id internal_id namespace_id bucket_id source_object_id source_path error_type error_message \
         retry_count max_retries_reached requeued_at disposal_reason first_seen_at last_seen_at change_id change \
         size_bytes last_modified",
    );
    assert_eq!(first["source_path"], "b2://my-videos/2024/a.mp4");
    assert_eq!(
        (&first["error_type"], &first["retry_count"], &first["max_retries_reached"], &first["change"]),
        (&"delivery_refused".into(), &3.into(), &true.into(), &"created".into())
    );
    assert_eq!(first["error_message"].as_str().unwrap().chars().count(), 1_000);
    let page = home.ok("GET", &format!("{dlq}?limit=2"), Value::Null);
    let cursor = page["pagination"]["next_cursor"].as_str().unwrap().to_owned();
    let rest = home.ok("POST", &format!("{dlq}?limit=2&cursor={cursor}"), Value::Null);
    assert_eq!((rest["results"].as_array().unwrap().len(), &rest["total"]), (1, &3.into()));
    assert_eq!(home.ok("POST", &dlq, json!({"error_types": ["Other"], "only_max_retries": true}))["total"], 0);

    let refused = json!({"error_types": ["delivery_refused"]});
    let marked = home.ok("POST", &format!("{dlq}/bulk-mark-failed"), refused.clone());
    assert_eq!(marked, json!({"updated": 3}));
    assert_eq!(home.ok("POST", &dlq, Value::Null)["results"][2]["disposal_reason"], "marked_failed");
    block_on(home.registry.set_poke_after(sync.rsplit('/').next().unwrap(), None)).unwrap();
    let requeued = home.ok("POST", &format!("{dlq}/requeue"), refused);
    assert_eq!(requeued, json!({"requeued": 3, "sync_job_id": "job_now"}));
    assert_eq!(
        block_on(home.registry.due(home.now().plus_millis(1), 9)).unwrap().len(),
        1,
        "the cron looks after the job"
    );
    assert_eq!(home.ok("POST", &format!("{dlq}/requeue"), Value::Null)["requeued"], 0);
    assert_eq!(home.ok("POST", &dlq, json!({"only_max_retries": true}))["total"], 0);
    let letter = &home.ok("POST", &dlq, Value::Null)["results"][0];
    assert_eq!((&letter["max_retries_reached"], &letter["disposal_reason"]), (&false.into(), &Value::Null));

    // Giving all up takes naming what.
    for body in [Value::Null, json!({"error_types": []}), json!({"error_types": null})] {
        assert_eq!(home.wrong("POST", &format!("{dlq}/bulk-mark-failed"), body), ["body.error_types"]);
    }
    assert_eq!(home.wrong("POST", &dlq, json!({"error_type": "x"})), ["body.error_type"]);
    assert_eq!(home.wrong("POST", &format!("{dlq}/requeue"), json!({"error_types": "x"})), ["body.error_types"]);

    // How many there are is shown with the sync.
    home.status.borrow_mut().dead_letters = Some([("delivery_refused".to_owned(), 3)].into());
    assert_eq!(home.ok("GET", &sync, Value::Null)["dead_letters"], 3);
    let metrics = home.ok("GET", &format!("{sync}/metrics"), Value::Null);
    assert_eq!((&metrics["dlq_total"], &metrics["dlq_by_error"]), (&3.into(), &json!({"delivery_refused": 3})));
}

#[test]
fn lists_of_syncs() {
    let home = Home::new();
    let first = home.sync();
    let other = home.connection("B");
    let mut ids = vec![first.rsplit('/').next().unwrap().to_owned()];
    for i in 0..40 {
        let body = json!({"connection_id": other, "source_path": format!("my-videos/{i}")});
        ids.insert(0, home.ok("POST", SYNCS, body)["sync_config_id"].as_str().unwrap().to_owned());
    }
    let list = |query: &str, body: Value| -> Vec<String> {
        let answer = home.ok("POST", &format!("{SYNCS}/list{query}"), body);
        check_keys(&answer, "results pagination total");
        let results = answer["results"].as_array().unwrap();
        results.iter().map(|result| result["sync_config_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(list("?limit=100", Value::Null), ids);
    assert_eq!(list("", json!({"connection_id": other})).len(), 40);
    assert_eq!(list("", json!({"status": "PENDING"})).len(), 41);
    assert!(list("", json!({"status": "ACTIVE"})).is_empty());
    assert_eq!(list("", json!({"is_active": true})).len(), 41);
    assert_eq!(list("?limit=2&page=2", Value::Null), ids[2..4]);
    assert_eq!(home.ok("GET", "/v1/buckets/bkt_2/syncs", Value::Null)["total"], 0);
    // A coordinator that does not answer hides no sync.
    home.unreachable.set(true);
    assert_eq!(list("?limit=100", Value::Null), ids);
    let answer = home.ok("POST", &format!("{SYNCS}/list"), Value::Null);
    assert_eq!(answer["results"][0]["status"], "UNKNOWN");
    let (status, name, _) = home.refused("GET", &first, Value::Null);
    assert_eq!((status, name.as_str()), (503, "ServiceUnavailableError"));
    // Nor does it keep one from being created: the cron will find it.
    let created = home.ok("POST", SYNCS, json!({"connection_id": other, "source_path": "my-videos"}));
    assert_eq!(created["status"], "PENDING");
}

#[test]
fn a_sync_is_deleted() {
    let home = Home::new();
    let sync = home.sync();
    fill(&home, sync.rsplit('/').next().unwrap());
    let second = home.ok("POST", SYNCS, json!({"connection_id": "A", "source_path": "my-videos"}));
    let second = format!("{SYNCS}/{}", second["sync_config_id"].as_str().unwrap());
    let answer = home.ok("DELETE", &second, Value::Null);
    assert_eq!((&answer["deleted"], &answer["objects_deleted"]), (&true.into(), &0.into()));
    assert_eq!(home.ok("GET", OBJECTS, Value::Null)["results"].as_array().unwrap().len(), 3);
    assert_eq!(home.refused("DELETE", &second, Value::Null).0, 404);
    let answer = home.ok("DELETE", &format!("{sync}?delete_objects=true"), Value::Null);
    assert_eq!(answer["objects_deleted"], 3);
    assert_eq!(home.refused("GET", &sync, Value::Null).0, 404);
    assert!(home.ok("GET", OBJECTS, Value::Null)["results"].as_array().unwrap().is_empty());
    assert!(home.commands.borrow().contains(&Command::Forget));
    // If the coordinator cannot be reached, the record stays, so that one can ask again.
    let home = Home::new();
    let sync = home.sync();
    home.unreachable.set(true);
    assert_eq!(home.refused("DELETE", &sync, Value::Null).0, 503);
    home.unreachable.set(false);
    home.ok("DELETE", &sync, Value::Null);
}

// Jobs

#[test]
fn jobs_recent_and_archived() {
    let home = Home::new();
    *home.jobs.borrow_mut() =
        vec![job("job_5", NOW, JobStatus::Running), job("job_4", NOW - 1_000, JobStatus::Completed)];
    *home.archive.borrow_mut() = (1..=4)
        .rev()
        .map(|i| {
            let status = if i == 2 { JobStatus::Failed } else { JobStatus::Completed };
            job(&format!("job_{i}"), NOW - 1_000 * (5 - i), status)
        })
        .collect();
    home.archive.borrow_mut()[2].error =
        Some(ErrorRecord { kind: "bucket_not_found".into(), message: "Gone.".into(), transient: false });
    let sync = home.sync();
    let list = |query: &str, body: Value| -> (Vec<String>, Value) {
        let answer = home.ok("POST", &format!("{sync}/jobs{query}"), body);
        check_keys(&answer, "results pagination total");
        let results = answer["results"].as_array().unwrap();
        let ids = results.iter().map(|result| result["sync_job_id"].as_str().unwrap().to_owned()).collect();
        (ids, answer)
    };
    let (ids, answer) = list("", Value::Null);
    assert_eq!(ids, ["job_5", "job_4", "job_3", "job_2", "job_1"]);
    assert_eq!(answer["total"], 5);
    assert_eq!(list("?limit=2", Value::Null).0, ["job_5", "job_4"]);
    assert_eq!(list("?limit=2&offset=2", Value::Null).0, ["job_3", "job_2"]);
    let (ids, answer) = list("?limit=3&offset=1", Value::Null);
    assert_eq!(ids, ["job_4", "job_3", "job_2"]);
    let cursor = answer["pagination"]["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(list(&format!("?limit=3&cursor={cursor}"), Value::Null).0, ["job_1"]);
    assert_eq!(list("", json!({"status": "failed"})).0, ["job_2"]);
    assert_eq!(list("", json!({"status": "running"})).0, ["job_5"]);
    assert_eq!(home.wrong("POST", &format!("{sync}/jobs"), json!({"status": "RUNNING"})), ["body.status"]);
    assert_eq!(home.ok("GET", &format!("{sync}/jobs"), Value::Null)["total"], 5);

    let running = home.ok("GET", &format!("{sync}/jobs/job_5"), Value::Null);
    assert_eq!(
        (&running["status"], &running["phase"], &running["progress_percent"], &running["total_files"]),
        (&"running".into(), &"discovering".into(), &50.0.into(), &40.into())
    );
    assert_eq!(running["lag_seconds"], 0);
    let failed = home.ok("GET", &format!("{sync}/jobs/job_2"), Value::Null);
    assert_eq!((&failed["error"], &failed["error_code"]), (&"Gone.".into(), &"bucket_not_found".into()));
    let done = home.ok("GET", &format!("{sync}/jobs/job_3"), Value::Null);
    assert_eq!(
        done,
        json!({
            "sync_job_id": "job_3",
            "sync_config_id": sync.rsplit('/').next().unwrap(),
            "internal_id": "int_b2sync",
            "namespace_id": "default",
            "bucket_id": "bkt_1",
            "status": "completed",
            "trigger": "manual",
            "phase": "done",
            "total_files": 20,
            "files_synced": 10,
            "files_failed": 1,
            "files_verified": 11,
            "changes": {"created": 5, "updated": 3, "deleted": 2, "failed": 1},
            "bytes_synced": 800,
            "created_at": "2023-11-14T22:13:18Z",
            "started_at": "2023-11-14T22:13:18.010Z",
            "completed_at": "2023-11-14T22:14:18.010Z",
            "updated_at": "2023-11-14T22:13:48.010Z",
            "error": null,
            "error_code": null,
            "warning": null,
            "progress_percent": 100.0,
            "throughput_files_per_min": 10.0,
            "lag_seconds": null,
            "progress": {
                "sync_job_id": "job_3", "phase": "done", "percent": 100.0, "files_listed": 30, "files_matched": 20,
                "files_synced": 10, "files_failed": 1, "bytes_synced": 800, "elapsed_seconds": 60,
            },
            "metadata": {
                "class_b_calls": 0, "class_c_calls": 0, "bytes_received": 0, "state_reads": 0, "state_writes": 0, "state_deletions": 0, "steps": 0,
                "dollars": 0.0,
            },
        })
    );
    assert_eq!(home.refused("GET", &format!("{sync}/jobs/job_9"), Value::Null).0, 404);
}

// Objects

fn fill(home: &Home, sync_id: &str) {
    let target = CatalogueTarget {
        bucket_id: "bkt_1".into(),
        sync_id: sync_id.into(),
        connection_id: block_on(home.registry.connection("A")).unwrap().unwrap().connection_id,
        source_bucket: "my-videos".into(),
    };
    let keys = ["2024/a b+%.mp4", "2024/動画/🎬.mov", "notes.unknown"];
    let changes: Vec<Change> = keys
        .iter()
        .map(|key| Change {
            id: format!("chg_{key}"),
            kind: ChangeKind::Created,
            entry: Entry { key: (*key).into(), etag: "e1".into(), size: 7, last_modified: Timestamp::from_millis(0) },
        })
        .collect();
    let delivered = block_on(home.catalogue.sink("default", target, home).deliver(&changes)).unwrap();
    assert_eq!(delivered.len(), 3);
}

#[test]
fn objects_are_listed_and_read() {
    let home = Home::new();
    let sync = home.sync();
    let sync_id = sync.rsplit('/').next().unwrap();
    fill(&home, sync_id);
    let answer = home.ok("POST", &format!("{OBJECTS}/list?include_total=true"), Value::Null);
    check_keys(&answer, "results pagination stats");
    assert_eq!(answer["pagination"]["total"], 3);
    let object = answer["results"][0].clone();
    let id = b2sync_core::ids::object_id(sync_id, "2024/a b+%.mp4");
    assert_eq!(
        object,
        json!({
            "object_id": id,
            "bucket_id": "bkt_1",
            "key_prefix": "2024/a b+%.mp4",
            "blobs": [{
                "blob_id": id.replace("obj_", "blob_"),
                "property": "content",
                "key_prefix": "2024/a b+%.mp4",
                "type": "video",
                "properties": {"url": "b2://my-videos/2024/a b+%.mp4"},
                "presigned_url": null,
                "details": {"filename": "a b+%.mp4", "size_bytes": 7, "mime_type": "video/mp4", "hash": "e1"},
            }],
            "source_details": [{"type": "bucket", "source_id": "my-videos"}],
            "status": "ACTIVE",
            "created_at": "2023-11-14T22:13:22Z",
            "updated_at": "2023-11-14T22:13:22Z",
            "source_bucket": "my-videos",
            "source_key": "2024/a b+%.mp4",
            "source_url": "b2://my-videos/2024/a b+%.mp4",
            "etag": "e1",
            "size_bytes": 7,
            "last_modified": "1970-01-01T00:00:00Z",
            "sync_config_id": sync_id,
            "connection_id": object["connection_id"],
            "version": 1,
            "change_id": "chg_2024/a b+%.mp4",
        })
    );
    assert_eq!(home.ok("GET", &format!("{OBJECTS}/{id}"), Value::Null), object);
    let signed = home.ok("GET", &format!("{OBJECTS}/{id}?return_presigned_urls=true"), Value::Null);
    let url = signed["blobs"][0]["presigned_url"].as_str().unwrap();
    assert!(url.starts_with("https://s3.us-east-005.backblazeb2.com/my-videos/2024/a%20b%2B%25.mp4?"), "{url}");

    let page = home.ok("GET", &format!("{OBJECTS}?limit=2"), Value::Null);
    assert_eq!(page["pagination"]["total"], Value::Null);
    let cursor = page["pagination"]["next_cursor"].as_str().unwrap();
    let rest = home.ok("GET", &format!("{OBJECTS}?limit=2&cursor={cursor}"), Value::Null);
    assert_eq!(rest["results"][0]["source_key"], "notes.unknown");
    assert_eq!(rest["results"][0]["blobs"][0]["type"], "string");
    assert_eq!(rest["pagination"]["next_cursor"], Value::Null);
    let found = home.ok("POST", &format!("{OBJECTS}/list"), json!({"prefix": "2024/動", "include_total": true}));
    assert_eq!(found["pagination"]["total"], 1);
    let found = home.ok("GET", &format!("{OBJECTS}?prefix=2024%2F&include_total=true"), Value::Null);
    assert_eq!(found["pagination"]["total"], 2);
    home.ok("POST", &format!("{OBJECTS}/list"), json!({"filters": null, "search": "", "return_presigned_urls": false}));
    assert_eq!(
        home.wrong("POST", &format!("{OBJECTS}/list"), json!({"filters": {"AND": []}, "sort": {"field": "x"}})),
        ["body.filters", "body.sort"]
    );
    let (status, _, message) = home.refused("GET", "/v1/buckets/bkt_2/objects/x", Value::Null);
    assert_eq!(status, 404);
    assert!(message.contains("X-Namespace"), "{message}");
}

// Everything

/// What a home sends on, as the Worker will: any bytes.
fn any_request() -> impl Strategy<Value = ApiRequest> {
    let method =
        prop_oneof![Just("GET"), Just("POST"), Just("PATCH"), Just("DELETE"), Just("PUT"), Just(""), Just("ÄÖ")];
    let segment = prop_oneof![
        Just("v1".to_owned()),
        Just("organizations".to_owned()),
        Just("connections".to_owned()),
        Just("buckets".to_owned()),
        Just("syncs".to_owned()),
        Just("objects".to_owned()),
        Just("jobs".to_owned()),
        Just("dlq".to_owned()),
        Just("list".to_owned()),
        Just("A".to_owned()),
        Just("%F0%9F".to_owned()),
        any::<String>(),
    ];
    let path = prop_oneof![
        proptest::collection::vec(segment, 0..7).prop_map(|parts| format!("/{}", parts.join("/"))),
        Just(CONNECTIONS.to_owned()),
        Just(format!("{CONNECTIONS}/list")),
        Just(format!("{CONNECTIONS}/A")),
        Just(SYNCS.to_owned()),
        Just(format!("{SYNCS}/list")),
        Just(OBJECTS.to_owned()),
        Just(format!("{OBJECTS}/list")),
    ];
    let query = prop_oneof![
        any::<String>(),
        "(limit|page_size|offset|page|cursor|after|include_total|prefix)=[0-9a-zA-Z%&=_-]{0,30}(&page=[0-9]{0,25})?",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!("my-videos")),
        Just(json!("A")),
    ];
    let key = prop_oneof![
        Just("name"),
        Just("connection_id"),
        Just("source_path"),
        Just("file_filters"),
        Just("include_patterns"),
        Just("modified_since"),
        Just("provider_type"),
        Just("provider_config"),
        Just("credentials"),
        Just("key_id"),
        Just("application_key"),
        Just("metadata"),
        Just("reconcile"),
        Just("polling_interval_seconds"),
        Just("status"),
        Just("max_size_bytes"),
        Just("max_class_c_per_day"),
        Just("deletion_limit"),
        Just("sync_from"),
        Just("other"),
    ];
    let json = leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    });
    let body = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..64),
        json.prop_map(|value| value.to_string().into_bytes()),
    ];
    let namespace = proptest::option::of(any::<String>());
    (method, path, query, namespace, body, any::<bool>()).prop_map(|(method, path, query, namespace, body, known)| {
        ApiRequest {
            method: method.to_owned(),
            path,
            query,
            authorization: known.then(|| format!("Bearer {API_KEY}")),
            namespace,
            body,
        }
    })
}

proptest! {
    #[test]
    fn whatever_comes_in_a_well_formed_answer_goes_out(request in any_request()) {
        let home = Home::new();
        home.connection("A");
        let response = home.request(request);
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        prop_assert!(response.headers.contains(&("content-type", "application/json".to_owned())));
        if response.status == 200 {
            prop_assert!(body.is_object());
        } else {
            prop_assert!([400, 401, 404, 405, 409, 422].contains(&response.status), "{}: {}", response.status, body);
            prop_assert_eq!(&body["success"], false);
            prop_assert_eq!(&body["status"], response.status);
            prop_assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
            prop_assert!(body["error"]["type"].is_string());
        }
    }
}
