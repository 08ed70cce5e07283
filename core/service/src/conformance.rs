//! What the implementations of this crate's seams must have in common, and what the core's suites need to judge those
//! of its own: see [`b2sync_core::conformance`].

pub mod catalogue;
pub mod registry;
