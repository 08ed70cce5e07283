//! The whole service on the real runtime: what its users were promised, test by test.
//!
//! One binary, so that the test that waits (for time-outs, for storms to pass) waits while others work; its name puts
//! it first. Each test starts its own service; none knows of another.

mod at_once;
mod bad_weather;
mod conventions;
mod cuts;
mod docs;
mod explain;
mod feed;
mod filters;
mod objects;
mod poll;
mod preview;
mod reconcile;
mod refusals;
mod s3_server;
mod scenario;
mod schedule;
mod secrets;
mod unreadable;
mod waiting;

use std::collections::BTreeMap;
use std::env;
use std::io::Write as _;
use std::time::Duration;

use b2sync_tests::service::{Connected, Service, ServiceError};
use b2sync_tests::twin::Twin;
use fake_b2::model::VisibleFile;
use serde_json::Value;

/// What a test returns.
type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The source bucket of most tests.
const BUCKET: &str = "test-media";
/// The longest a job without faults may take; it takes a second or two.
const SOON: Duration = Duration::from_secs(60);

/// What a test does that lacks a tool: it says so, past the harness, which shows what a test prints only when it fails;
/// in continuous integration that is an error.
fn skip(message: &str, tools: &str) -> Result<(), String> {
    if env::var_os("CI").is_some_and(|ci| ci == "true" || ci == "1") {
        return Err(message.to_owned());
    }
    say(&format!("SKIPPED: {message}. With {tools}, this test runs."));
    Ok(())
}

/// Past the harness.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The twin of a sync of the whole bucket.
fn twin_of(service: &Service, connected: &Connected, source_path: &str) -> Result<Twin, ServiceError> {
    Twin::new(service.fake(), &connected.sync.id, source_path, &Default::default(), &connected.key)
        .map_err(|error| ServiceError::new(error.to_string()))
}

/// What the embedded B2 shows of [`BUCKET`].
fn all(service: &Service) -> BTreeMap<String, VisibleFile> {
    b2sync_tests::service::expected_objects(service.fake(), BUCKET, |_| true)
}

/// A field of each object.
fn by_key<T>(objects: &BTreeMap<String, Value>, field: impl Fn(&Value) -> T) -> BTreeMap<String, T> {
    objects.iter().map(|(key, object)| (key.clone(), field(object))).collect()
}

fn change_ids(objects: &BTreeMap<String, Value>) -> BTreeMap<String, String> {
    by_key(objects, |object| object["change_id"].as_str().unwrap_or_default().to_owned())
}

fn versions(objects: &BTreeMap<String, Value>) -> BTreeMap<String, u64> {
    by_key(objects, |object| object["version"].as_u64().unwrap_or(0))
}
