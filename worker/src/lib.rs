//! The Cloudflare home of b2sync: events in, bindings out.
//!
//! This is the scaffold of it. It answers `/healthz`, and under `/_probe/` it uses each part of the platform that
//! the service stands on (KV, the three Durable Objects with SQLite, the alarm, the cron, outgoing requests), so that
//! the whole pipeline from cargo to workerd is tested before there is a service. It decides nothing.
//!
//! Invariants: nothing here panics, since a panic also fails whatever else the same isolate is doing; and each error
//! becomes a JSON answer in one place, [`answer`].

#![allow(missing_docs)] // `#[durable_object]` generates public methods that it does not document.

mod catalogue;
mod coordinator;
mod probe;
mod registry;
mod sql;

pub use catalogue::Catalogue;
pub use coordinator::SyncCoordinator;
pub use registry::Registry;

use serde_json::json;
use worker::{Context, Env, Request, Response, Result, ScheduleContext, ScheduledEvent, console_error, event};

/// The name of the one [`Registry`] object, and in this scaffold of the other two as well.
pub(crate) const SINGLETON: &str = "main";

#[event(fetch)]
async fn fetch(req: Request, env: Env, _ctx: Context) -> Result<Response> {
    let path = req.path();
    let outcome = match path.as_str() {
        "/healthz" => Response::from_json(&json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") })),
        _ if path.starts_with("/_probe/") => probe::route(req, &env).await,
        _ => not_found(&path),
    };
    answer(outcome)
}

/// A cron tick only pokes the coordinator: ticks may overlap, repeat or be missed.
#[event(scheduled)]
async fn scheduled(event: ScheduledEvent, env: Env, _ctx: ScheduleContext) {
    // Milliseconds since the epoch fit an f64 exactly.
    let at_ms = event.schedule() as i64;
    if let Err(error) = probe::tick(&env, at_ms).await {
        console_error!("The cron tick of {at_ms} did not reach the coordinator: {error}");
    }
}

/// Turns an error into a JSON answer, so that no caller ever gets a bare 500.
pub(crate) fn answer(outcome: Result<Response>) -> Result<Response> {
    outcome.or_else(|error| {
        console_error!("{error}");
        Ok(Response::from_json(&json!({ "error": error.to_string() }))?.with_status(500))
    })
}

/// The answer to a path that nobody serves.
pub(crate) fn not_found(path: &str) -> Result<Response> {
    Ok(Response::from_json(&json!({ "error": format!("Nothing is served at {path}.") }))?.with_status(404))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use wasm_bindgen_test::wasm_bindgen_test;

    #[wasm_bindgen_test]
    async fn an_error_is_an_answer() -> Result<()> {
        let mut response = answer(Err("the reason".into()))?;
        assert_eq!(response.status_code(), 500);
        let body: Value = response.json().await?;
        assert_eq!(body["error"], "the reason");
        Ok(())
    }
}
