//! What Backblaze B2 speaks: authorization, signatures, listings.
//!
//! One file a subject, values in and values out; only [`client`] awaits. `b2_authorize_account` is B2's native API,
//! everything after it is S3 ([`sign`], [`list`]). Facts that Backblaze does not document, and what they rest on, are
//! marked where they matter.

pub mod account;
pub mod classify;
pub mod client;
pub mod list;
pub mod pace;
pub mod sign;
pub mod source;
pub mod url;
