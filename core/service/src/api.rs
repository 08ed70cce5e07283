//! The HTTP API, as decisions: from a request to a response, with nothing of any HTTP stack.
//!
//! A home reads a request into an [`ApiRequest`], calls [`Service::handle`] and writes the [`ApiResponse`]: it decides
//! nothing. `routes` is the one table of routes; `dispatch` leads from a route to an operation of `resources`;
//! `service` is the context that all of them share. The shapes are those that Mixpeek's own clients (Python package
//! `mixpeek` 1.3.783) read and write, wherever the integration's documentation and that client differ, both.
//!
//! **Invariants.** Every success is status 200, or 204 without a body. Every path except `/` and `/healthz` requires
//! the API key. Every request gets a JSON answer, in the error envelope if it is an error; only the
//! feed answers events to those who ask for them. No answer holds an
//! application key, a key id, an API key or a master key, and no error quotes the value of a field that may hold one.
//! (A presigned URL names the key id, as S3's signatures do; only a request that asks for one gets it.)

mod auth;
mod body;
mod cors;
mod dispatch;
mod errors;
mod events;
mod filters;
mod idempotency;
mod list_fields;
mod nesting;
mod pagination;
mod preconditions;
mod query;
#[cfg(test)]
mod recorder;
mod render;
mod repeated;
mod request;
mod resources;
mod routes;
mod service;
#[cfg(test)]
mod tests;

pub use auth::ApiKey;
pub use body::BODY_BYTES_MAX;
pub use cors::Cors;
pub use errors::{ApiError, ApiResponse, Problem, http_status};
pub use pagination::{OFFSET_MAX, PAGE_DEFAULT, PAGE_MAX};
pub use request::{ApiRequest, NAMESPACE_DEFAULT};
pub use service::{Coordinators, ORGANISATION_ID, Service};
