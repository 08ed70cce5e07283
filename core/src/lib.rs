//! The portable core of b2sync: it watches a Backblaze B2 bucket and appends each file that is created,
//! updated or deleted to an ordered feed, once.
//!
//! **The contract.** This crate performs no I/O, reads no clock and draws no randomness. What it needs from the
//! world it takes through a trait that each home implements: [`http::HttpClient`], [`store::BlobStore`],
//! [`store::DocumentStore`], [`time::Clock`], [`entropy::Entropy`]. [`sink::Sink`] is what takes a feed: the
//! pumps of the service call it. The homes are a Cloudflare
//! Worker, a WASI component and native Rust. The same inputs give the same outputs, whichever home it runs in.
//!
//! Nothing here panics on any input, and nothing that matters survives an invocation but explicit, versioned,
//! serialised state.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]
#![allow(async_fn_in_trait)] // Both wasm homes have one thread: `Send` bounds would only get in the way.

pub mod b2;
pub mod change;
pub mod conformance;
pub mod cost;
pub mod engine;
pub mod entropy;
pub mod entry;
pub mod error;
pub mod error_wire;
pub mod feed;
pub mod filter;
pub mod http;
pub mod ids;
pub mod job;
pub mod lookup;
pub mod mime;
#[cfg_attr(not(feature = "mutations"), doc(hidden))]
pub mod mutation;
pub mod open_sync;
pub mod policy;
pub mod retry;
pub mod secret;
pub mod sink;
pub mod snapshot;
pub mod source_path;
pub mod state;
pub mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod warning;

pub use error::{Error, ErrorKind, Retry};
