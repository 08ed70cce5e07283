//! Application keys: what they may do, where, and until when.

use std::fmt;

use b2sync_core::time::Timestamp;

use crate::virtual_world::mix;

/// An application key to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// `listFiles`, `readFiles`, …
    pub capabilities: Vec<String>,
    /// Names of the only buckets it may use; `None` is all of them.
    pub buckets: Option<Vec<String>>,
    /// The only prefix it may use.
    pub name_prefix: Option<String>,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// A fixed key id; one of B2's shape is made up otherwise.
    pub key_id: Option<String>,
    /// A fixed application key; one of B2's shape is made up otherwise.
    pub secret: Option<String>,
}

impl NewKey {
    /// The read-only key that the documentation tells users to create: all buckets, `listBuckets`, `listFiles`,
    /// `readFiles`.
    pub fn unrestricted() -> Self {
        let capabilities = ["listBuckets", "listFiles", "readFiles"].map(str::to_owned).to_vec();
        Self { capabilities, buckets: None, name_prefix: None, expires_at: None, key_id: None, secret: None }
    }

    /// With exactly these capabilities.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: &[&str]) -> Self {
        self.capabilities = capabilities.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// Restricted to these buckets.
    #[must_use]
    pub fn for_buckets(mut self, names: &[&str]) -> Self {
        self.buckets = Some(names.iter().map(|&name| name.to_owned()).collect());
        self
    }

    /// Restricted to this prefix.
    #[must_use]
    pub fn for_prefix(mut self, prefix: &str) -> Self {
        self.name_prefix = Some(prefix.to_owned());
        self
    }

    /// Working until `at`, and no longer.
    #[must_use]
    pub const fn expiring_at(mut self, at: Timestamp) -> Self {
        self.expires_at = Some(at);
        self
    }
}

/// An application key. `Debug` does not show the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ApplicationKey {
    /// 25 characters, or 12 for the master key.
    pub key_id: String,
    /// The application key itself.
    pub secret: String,
    /// `listFiles`, `readFiles`, …
    pub capabilities: Vec<String>,
    /// Ids of the only buckets it may use; `None` is all of them.
    pub bucket_ids: Option<Vec<String>>,
    /// The only prefix it may use.
    pub name_prefix: Option<String>,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// The account's master key, unknown to the S3-compatible API.
    pub master: bool,
}

impl ApplicationKey {
    pub(super) fn new(new: NewKey, bucket_ids: Option<Vec<String>>, account_id: &str, serial: u64) -> Self {
        Self {
            key_id: new.key_id.unwrap_or_else(|| format!("004{account_id}{serial:010}")),
            secret: new.secret.unwrap_or_else(|| format!("K004{:016x}{:011x}", mix(serial), mix(!serial) >> 20)),
            capabilities: new.capabilities,
            bucket_ids,
            name_prefix: new.name_prefix,
            expires_at: new.expires_at,
            master: false,
        }
    }

    /// Whether it has stopped working.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Whether it has the capability.
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|name| name == capability)
    }

    /// Whether its restrictions let it use the bucket of that id; `None` is a bucket that does not exist.
    pub fn may_use_bucket(&self, bucket_id: Option<&str>) -> bool {
        match (&self.bucket_ids, bucket_id) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(ids), Some(bucket_id)) => ids.iter().any(|id| id == bucket_id),
        }
    }

    /// Whether its restrictions let it use a key or list a prefix.
    pub fn may_use_name(&self, name: &str) -> bool {
        self.name_prefix.as_deref().is_none_or(|prefix| name.starts_with(prefix))
    }
}

impl fmt::Debug for ApplicationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplicationKey")
            .field("key_id", &self.key_id)
            .field("capabilities", &self.capabilities)
            .field("bucket_ids", &self.bucket_ids)
            .field("name_prefix", &self.name_prefix)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_keys_have_the_shape_of_b2s() {
        let key = ApplicationKey::new(NewKey::unrestricted(), None, "b2f4ce000001", 1);
        assert_eq!(key.key_id.len(), 25);
        assert_eq!(key.secret.len(), 31);
        assert!(!format!("{key:?}").contains(&key.secret));
    }
}
