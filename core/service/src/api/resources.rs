//! What the API offers, one file a resource: each reads its requests, acts, and renders its answers.

pub(super) mod changes;
pub(super) mod connections;
pub(super) mod dead_letters;
pub(super) mod explain;
pub(super) mod jobs;
pub(super) mod objects;
pub(super) mod syncs;
