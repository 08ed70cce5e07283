//! The Worker as it is, and one more Durable Object that runs the conformance suites on the Worker's own stores, inside
//! workerd: KV and the SQLite of a Durable Object can be reached from nowhere else. It is built for tests and never
//! deployed, so that the Worker itself needs no way in for tests.
//!
//! `tests/tests/objects.rs` runs it.

#![allow(missing_docs)] // `#[durable_object]` generates public methods that it does not document.

use std::cell::Cell;

use b2sync_core::conformance::{Outcome, blobs::blob_conformance, documents::document_conformance};
use b2sync_worker::{Kv, SqlDocuments};
use worker::{DurableObject, Env, Request, Response, Result, State, console_error, durable_object, signal};

/// Runs the suite that a request's body names: `blobs`, `documents` or `cpu`. Answers `conforms`, or the rule that is
/// broken.
#[durable_object(fetch)]
pub struct Conformance {
    state: State,
    env: Env,
}

impl Conformance {
    async fn blobs(&self) -> Outcome {
        let kv = Kv::of(&self.env).map_err(|error| error.to_string())?;
        // A sync of its own for each check: one's blobs are as good as another namespace to it.
        let syncs = Cell::new(0_u32);
        blob_conformance(async || {
            syncs.set(syncs.get() + 1);
            kv.blobs(&format!("sync_{}", syncs.get()))
        })
        .await
    }

    async fn documents(&self) -> Outcome {
        let sql = self.state.storage().sql();
        let documents = SqlDocuments::open(sql.clone()).map_err(|error| error.to_string())?;
        document_conformance(async || {
            // Should this fail, the check that finds documents says so.
            if let Err(error) = sql.exec("DELETE FROM documents", None) {
                console_error!("The documents cannot be cleared: {error}");
            }
            documents.clone()
        })
        .await
    }
}

/// The runtime has the place where it warns of the CPU limit, and has not warned.
fn cpu() -> Outcome {
    match (signal::is_registered(), signal::is_near_cpu_limit()) {
        (true, false) => Ok(()),
        (registered, near) => Err(format!("registered: {registered}, near the limit: {near}")),
    }
}

impl DurableObject for Conformance {
    fn new(state: State, env: Env) -> Self {
        Self { state, env }
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        let outcome = match request.text().await?.as_str() {
            "blobs" => self.blobs().await,
            "documents" => self.documents().await,
            "cpu" => cpu(),
            other => Err(format!("there is no suite {other:?}")),
        };
        Response::ok(outcome.err().unwrap_or_else(|| "conforms".to_owned()))
    }
}
