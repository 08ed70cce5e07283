//! The Cloudflare home of b2sync: events in, bindings out. It decides nothing: [`b2sync_service`] and [`b2sync_core`]
//! do.
//!
//! - `fetch` hands each request to the API ([`b2sync_service::api::Service`]);
//! - `scheduled` is the cron's tick ([`b2sync_service::watchdog`]): it pokes the coordinators of syncs that are due;
//! - [`Registry`], [`SyncCoordinator`], [`Shard`] and [`Catalogue`] are Durable Objects: one registry, one coordinator
//!   a sync and some shards that read for it, one catalogue a target bucket;
//! - KV holds the segments of snapshots and the job history: what never changes, or is only read by people.
//!
//! Invariants: nothing here panics, since a panic also fails everything else that the isolate is doing; and every error
//! becomes an answer in the API's own envelope.

#![allow(missing_docs)] // `#[durable_object]` generates public methods that it does not document.

mod bindings;
mod catalogue;
mod config;
mod coordinator;
mod failure;
mod fetch;
mod kv;
mod platform;
mod registry;
mod shard;
mod sql;

pub use catalogue::Catalogue;
pub use coordinator::SyncCoordinator;
pub use registry::Registry;
pub use shard::Shard;
// The stores, for the conformance suites (tests/worker-conformance). They can only be made from a deployment's
// bindings.
pub use coordinator::SqlDocuments;
pub use kv::{Kv, KvBlobs};

use b2sync_core::time::{Clock, Timestamp};
use b2sync_service::{
    api::{ApiError, ApiRequest, ApiResponse, BODY_BYTES_MAX, Service},
    watchdog,
};
use worker::{Context, Env, Headers, Request, Response, Result, ScheduleContext, ScheduledEvent, console_error, event};

use bindings::Bindings;
use platform::{Platform, RemoteCoordinators};

#[event(fetch)]
async fn fetch(mut request: Request, env: Env, _context: Context) -> Result<Response> {
    let answer = match Bindings::of(&env) {
        Ok(bindings) => {
            let registry = bindings.registry();
            let coordinators = RemoteCoordinators::new(&bindings);
            let objects = bindings.objects();
            let service = Service {
                registry: &registry,
                coordinators: &coordinators,
                objects: &objects,
                http: &fetch::Fetcher,
                clock: &Platform,
                entropy: &Platform,
                master_keys: bindings.master_keys(),
                api_key: bindings.api_key(),
                cors: bindings.cors(),
                b2_api_url: bindings.b2_api_url(),
                version: env!("CARGO_PKG_VERSION"),
            };
            service.handle(api_request(&mut request).await?).await
        }
        Err(error) => ApiError::Failed(error).into_response(),
    };
    respond(answer)
}

async fn api_request(request: &mut Request) -> Result<ApiRequest> {
    let url = request.url()?;
    let length = request.headers().get("content-length")?.and_then(|length| length.parse().ok());
    Ok(ApiRequest {
        // As it was sent: workers-rs takes a method that it does not know for GET.
        method: request.inner().method(),
        path: url.path().to_owned(),
        query: url.query().unwrap_or_default().to_owned(),
        authorization: request.headers().get("authorization")?,
        namespace: request.headers().get("x-namespace")?,
        idempotency_key: request.headers().get("idempotency-key")?,
        if_match: request.headers().get("if-match")?,
        accept: request.headers().get("accept")?,
        origin: request.headers().get("origin")?,
        last_event_id: request.headers().get("last-event-id")?,
        body: fetch::read_at_most(request.inner().body(), length, BODY_BYTES_MAX + 1).await?,
    })
}

fn respond(answer: ApiResponse) -> Result<Response> {
    let headers = Headers::new();
    for (name, value) in &answer.headers {
        headers.set(name, value)?;
    }
    // The runtime refuses a body, even an empty one, with 204.
    let response = if answer.body.is_empty() { Response::empty()? } else { Response::from_bytes(answer.body)? };
    Ok(response.with_status(answer.status).with_headers(headers))
}

/// Ticks may overlap, repeat or be missed.
#[event(scheduled)]
async fn scheduled(event: ScheduledEvent, env: Env, _context: ScheduleContext) {
    // Milliseconds since the epoch fit an f64 exactly.
    let at = Timestamp::from_millis(event.schedule() as i64).max(Platform.now());
    if let Err(error) = tick(&env, at).await {
        console_error!("The cron tick of {at} failed: {error}");
    }
}

async fn tick(env: &Env, at: Timestamp) -> std::result::Result<(), b2sync_core::Error> {
    let bindings = Bindings::of(env)?;
    let limit = watchdog::pokes_max(&config::budget(env)?);
    let here = async |part| bindings.poke_part(part).await;
    let elsewhere = async |number, part| bindings::poke_elsewhere(env, number, part).await;
    let done = watchdog::tick(&bindings.registry(), here, elsewhere, limit, at).await?;
    done.failures.iter().for_each(|failure| console_error!("{failure}"));
    Ok(())
}
