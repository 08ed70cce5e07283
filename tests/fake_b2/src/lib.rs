//! The embedded B2: a fake of Backblaze B2 that behaves as the real one is known to, and that fails on demand.
//!
//! [`FakeB2::handle`] is pure: a request and a time in, an [`Outcome`] out. [`in_process::InProcess`] puts it behind
//! the core's `HttpClient` for simulations, [`server::FakeB2Server`] behind real sockets for whole systems, and the
//! binary `fake-b2` behind a command line.
//!
//! **Faithful**: versions, hide markers, the start time of large uploads, SigV4 (checked from the specification, with
//! none of the core's code), restrictions of application keys, error codes and bodies, opaque ETags and tokens.
//! **Not there**: writing through the S3-compatible API, listing versions, virtual-host style, native calls other than
//! `b2_authorize_account`.
//!
//! **Region**: outside of backblazeb2.com an endpoint's host does not name its region; such endpoints sign for
//! `us-east-1`, unless [`Config::region`] says otherwise.

#![forbid(unsafe_code)]

pub mod admin;
mod authorize;
pub mod clock;
pub mod content;
pub mod faults;
pub mod in_process;
pub mod keys;
pub mod ledger;
mod listing;
pub mod media;
pub mod model;
mod refusal;
mod s3;
pub mod server;
pub mod sigv4;
pub mod virtual_world;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use b2sync_core::http::{Method, Request, Response};
use b2sync_core::time::Timestamp;
use serde::Deserialize;

use content::Content;
use faults::{Chance, Fault, FaultPlan, Quota, Rule};
use keys::{ApplicationKey, NewKey};
use ledger::{Counts, Ledger, LogEntry, Operation};
pub use listing::PAGE_KEYS_MAX;
use model::{KeyOrder, Model, ModelError, NewFile, Version, VisibleFile};

/// How `encoding-type=url` writes a space. Amazon writes `+`, other stores `%20`; a client must read both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpaceEncoding {
    /// `+`
    #[default]
    Plus,
    /// `%20`
    Percent,
}

/// What can be chosen about an embedded B2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it is reached, without a slash at the end. A server replaces it by its own address.
    pub base_url: String,
    /// `s3ApiUrl` of the authorize answer; `None` is [`Config::base_url`]. May name another S3 server.
    pub s3_api_url: Option<String>,
    /// The region that signatures must name.
    pub region: String,
    /// How listings are sorted.
    pub order: KeyOrder,
    /// How listings write spaces.
    pub space_encoding: SpaceEncoding,
    /// The most keys of a page, whatever is asked for: a small bucket has many pages then. At most [`PAGE_KEYS_MAX`].
    pub page_keys_max: usize,
}

/// One address for everything, which names no region: hence `us-east-1`.
impl Default for Config {
    fn default() -> Self {
        Self {
            base_url: "http://fake-b2.test".to_owned(),
            s3_api_url: None,
            region: "us-east-1".to_owned(),
            order: KeyOrder::default(),
            space_encoding: SpaceEncoding::default(),
            page_keys_max: PAGE_KEYS_MAX,
        }
    }
}

impl Config {
    /// The addresses of the real B2, in `us-west-004`: for [`in_process::InProcess`], which resolves no names.
    pub fn like_b2() -> Self {
        Self {
            base_url: "https://api.backblazeb2.com".to_owned(),
            s3_api_url: Some("https://s3.us-west-004.backblazeb2.com".to_owned()),
            region: "us-west-004".to_owned(),
            ..Self::default()
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is answered.
    Respond(Response),
    /// Something goes wrong below HTTP.
    Fault(WireFault),
}

impl Outcome {
    /// The answer, were the wire without faults.
    pub fn into_response(self) -> Option<Response> {
        match self {
            Self::Respond(response)
            | Self::Fault(WireFault::CutBody { response, .. } | WireFault::Delay { response, .. }) => Some(response),
            Self::Fault(WireFault::Hang | WireFault::Reset) => None,
        }
    }
}

/// A fault below HTTP.
#[derive(Clone, Debug)]
pub enum WireFault {
    /// No answer, ever.
    Hang,
    /// The connection is dropped.
    Reset,
    /// The connection is closed after this many bytes of the body.
    CutBody {
        /// The answer.
        response: Response,
        /// Fewer than its body has.
        after_bytes: usize,
    },
    /// The answer comes late.
    Delay {
        /// In milliseconds.
        millis: u64,
        /// The answer.
        response: Response,
    },
}

/// An embedded B2: one account, its faults and its ledger. All methods may be called from any thread.
#[derive(Debug)]
pub struct FakeB2 {
    config: Config,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    model: Model,
    faults: FaultPlan,
    ledger: Ledger,
}

impl FakeB2 {
    /// An empty account.
    pub fn new(config: Config) -> Self {
        let model = Model::new(config.order);
        Self { config, state: Mutex::new(State { model, faults: FaultPlan::default(), ledger: Ledger::default() }) }
    }

    /// What was chosen about it.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked while it held the lock left a usable model behind: each change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request to that authority (`host` or `host:port`) reaches it.
    pub fn serves(&self, authority: &str) -> bool {
        let urls = std::iter::once(&self.config.base_url).chain(&self.config.s3_api_url);
        urls.filter_map(|url| url.split_once("://")).any(|(_, rest)| rest == authority)
    }

    /// What becomes of a request that arrives at `now`. The native API is under `/b2api/`, all else is the
    /// S3-compatible API in path style: bucket names are too long to be mistaken for it.
    pub fn handle(&self, request: &Request, now: Timestamp) -> Outcome {
        let mut state = self.state();
        let fault = state.faults.take(Operation::of(request), now);
        let name = fault.as_ref().map(Fault::name);
        let outcome = self.outcome(&state.model, request, now, fault);
        let status = match &outcome {
            Outcome::Respond(response)
            | Outcome::Fault(WireFault::CutBody { response, .. } | WireFault::Delay { response, .. }) => {
                Some(response.status().as_u16())
            }
            Outcome::Fault(WireFault::Hang | WireFault::Reset) => None,
        };
        state.ledger.record(request, now, status, name);
        outcome
    }

    fn outcome(&self, model: &Model, request: &Request, now: Timestamp, fault: Option<Fault>) -> Outcome {
        let answer = |quirk: Option<&Fault>| {
            if request.uri().path().starts_with("/b2api/") {
                authorize::answer(model, &self.config, request, now)
            } else {
                s3::answer(model, &self.config, request, now, quirk)
            }
        };
        match fault {
            None => Outcome::Respond(answer(None)),
            Some(Fault::Status { status, retry_after_s, code, message }) => {
                Outcome::Respond(faults::status_response(request, status, retry_after_s, code, message))
            }
            Some(Fault::Hang) => Outcome::Fault(WireFault::Hang),
            Some(Fault::Reset) => Outcome::Fault(WireFault::Reset),
            Some(Fault::CutBody { after_bytes }) => cut_body(request, answer(None), after_bytes),
            Some(Fault::Delay { millis }) => Outcome::Fault(WireFault::Delay { millis, response: answer(None) }),
            Some(Fault::Garbage) => Outcome::Respond(faults::garbage(request.method())),
            Some(Fault::Truncated) if request.method() != Method::HEAD => {
                Outcome::Respond(faults::truncated(answer(None)))
            }
            Some(Fault::Truncated) => Outcome::Respond(answer(None)),
            Some(
                quirk @ (Fault::EmptyListing | Fault::NoToken | Fault::SameToken | Fault::UnreadableEntries { .. }),
            ) => Outcome::Respond(answer(Some(&quirk))),
        }
    }

    // ---- the model -----------------------------------------------------------------------------------------------

    /// Looks at the model. Do not call other methods of the fake from within.
    pub fn inspect<T>(&self, look: impl FnOnce(&Model) -> T) -> T {
        look(&self.state().model)
    }

    /// Changes the model, in one step for all others. Do not call other methods of the fake from within.
    pub fn edit<T>(&self, change: impl FnOnce(&mut Model) -> T) -> T {
        change(&mut self.state().model)
    }

    /// [`Model::create_bucket`].
    ///
    /// # Errors
    /// As there.
    pub fn create_bucket(&self, name: &str) -> Result<String, ModelError> {
        self.edit(|model| model.create_bucket(name))
    }

    /// [`Model::delete_bucket`].
    ///
    /// # Errors
    /// As there.
    pub fn delete_bucket(&self, name: &str) -> Result<(), ModelError> {
        self.edit(|model| model.delete_bucket(name))
    }

    /// [`Model::put`].
    ///
    /// # Errors
    /// As there.
    pub fn put(
        &self,
        bucket: &str,
        key: &str,
        file: NewFile,
        uploaded_at: Timestamp,
    ) -> Result<Arc<Version>, ModelError> {
        self.edit(|model| model.put(bucket, key, file, uploaded_at))
    }

    /// [`Model::hide`].
    ///
    /// # Errors
    /// As there.
    pub fn hide(&self, bucket: &str, key: &str, at: Timestamp) -> Result<Arc<Version>, ModelError> {
        self.edit(|model| model.hide(bucket, key, at))
    }

    /// [`Model::delete_version`].
    ///
    /// # Errors
    /// As there.
    pub fn delete_version(&self, bucket: &str, key: &str, version_id: &str) -> Result<(), ModelError> {
        self.edit(|model| model.delete_version(bucket, key, version_id))
    }

    /// [`Model::delete_key`].
    ///
    /// # Errors
    /// As there.
    pub fn delete_key(&self, bucket: &str, key: &str) -> Result<(), ModelError> {
        self.edit(|model| model.delete_key(bucket, key))
    }

    /// [`Model::start_large`].
    ///
    /// # Errors
    /// As there.
    pub fn start_large(
        &self,
        bucket: &str,
        key: &str,
        file: NewFile,
        started_at: Timestamp,
    ) -> Result<String, ModelError> {
        self.edit(|model| model.start_large(bucket, key, file, started_at))
    }

    /// [`Model::finish_large`].
    ///
    /// # Errors
    /// As there.
    pub fn finish_large(&self, bucket: &str, upload_id: &str, content: Content) -> Result<Arc<Version>, ModelError> {
        self.edit(|model| model.finish_large(bucket, upload_id, content))
    }

    /// [`Model::visible`].
    pub fn visible(&self, bucket: &str) -> Vec<VisibleFile> {
        self.inspect(|model| model.visible(bucket))
    }

    /// [`Model::create_key`].
    ///
    /// # Errors
    /// As there.
    pub fn create_key(&self, new: NewKey) -> Result<ApplicationKey, ModelError> {
        self.edit(|model| model.create_key(new))
    }

    /// [`Model::create_master_key`].
    pub fn create_master_key(&self) -> ApplicationKey {
        self.edit(Model::create_master_key)
    }

    /// [`Model::delete_application_key`].
    ///
    /// # Errors
    /// As there.
    pub fn delete_application_key(&self, key_id: &str) -> Result<(), ModelError> {
        self.edit(|model| model.delete_application_key(key_id))
    }

    // ---- faults and ledger ---------------------------------------------------------------------------------------

    /// Adds a rule behind those that are there.
    pub fn inject(&self, rule: Rule) {
        self.state().faults.push(rule);
    }

    /// Sets or ends the faults by chance.
    pub fn set_chance(&self, chance: Option<Chance>) {
        self.state().faults.set_chance(chance);
    }

    /// Sets or ends the quota of requests.
    pub fn set_quota(&self, quota: Option<Quota>) {
        self.state().faults.set_quota(quota);
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// Requests since the start or the last [`Self::reset_counts`].
    pub fn counts(&self) -> Counts {
        self.state().ledger.counts
    }

    /// Empties counts and log.
    pub fn reset_counts(&self) {
        self.state().ledger = Ledger::default();
    }

    /// The requests, oldest first.
    pub fn log(&self) -> Vec<LogEntry> {
        self.state().ledger.log()
    }
}

/// A body that ends early; where there is none to cut, the connection ends before the answer.
fn cut_body(request: &Request, response: Response, after_bytes: usize) -> Outcome {
    let length = response.body().len();
    if length == 0 || request.method() == Method::HEAD {
        return Outcome::Fault(WireFault::Reset);
    }
    Outcome::Fault(WireFault::CutBody { after_bytes: after_bytes.min(length - 1), response })
}

#[cfg(test)]
mod tests;
