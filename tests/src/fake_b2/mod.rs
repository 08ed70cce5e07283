//! The embedded B2: a fake of Backblaze B2 that behaves as the real one is known to, and that fails on demand.

pub mod content;
pub mod keys;
pub mod model;
mod refusal;
pub mod sigv4;
