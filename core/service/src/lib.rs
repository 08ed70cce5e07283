//! Syncs run for people: the HTTP API, the coordinator that runs a sync's jobs, and the registry, catalogue and sealed
//! secrets that they keep. The decisions of a home with many syncs, as [`b2sync_core`] has those of one job.
//!
//! **The contract** is the core's: no I/O, no clock, no randomness but through its traits and those of this crate
//! ([`registry::Registry`], [`catalogue::Objects`], [`coordinator::Home`], [`api::Coordinators`]). Nothing here panics
//! on any input.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]
#![allow(async_fn_in_trait)] // Both wasm homes have one thread: `Send` bounds would only get in the way.

pub mod api;
pub mod catalogue;
pub mod conformance;
pub mod coordinator;
pub mod cost;
pub mod cron;
pub mod documents;
pub mod registry;
pub mod seal;
pub mod sinks;
pub mod watchdog;
