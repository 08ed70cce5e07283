//! What a sync is configured to do with what it finds.

mod deletion_limit;
mod reconcile;

pub use self::{
    deletion_limit::{DELETION_FILES_MAX, DELETION_PERCENT_MAX, DeletionLimit, HeldBack},
    reconcile::Reconcile,
};
pub(crate) use deletion_limit::empty_listing;
