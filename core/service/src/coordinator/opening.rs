//! What a step needs of its connection and its sync before it begins.

use super::Config;
use crate::registry::SyncRecord;
use b2sync_core::{
    error::{Error, ErrorKind},
    snapshot::cut::Cut,
};

/// How long an account is used as it was cached, in milliseconds: a day, as long as B2's own tokens live.
pub const ACCOUNT_MAX_AGE_MS: u64 = 24 * 3_600_000;

/// Where the segments of a sync begin.
pub(super) fn cut(config: &Config, sync: &SyncRecord) -> Result<Cut, Error> {
    let cut = Cut::parse(sync.salt.as_str()).ok_or_else(|| Error::internal("The sync's salt is unreadable."))?;
    Ok(config.cut_sizes.map_or(cut, |(mean, entries_max)| cut.with_sizes(mean, entries_max)))
}

pub(super) fn gone(connection_id: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("The connection {connection_id} was deleted."),
        "Delete this sync and create one with another connection.",
    )
}
