//! What reading a bucket costs.

/// What the calls of a client or of a source have cost so far: what B2 bills, and what a platform counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCost {
    /// B2 transactions of class B: reading a file or its metadata.
    pub class_b: u64,
    /// B2 transactions of class C: authorizing, listing.
    pub class_c: u64,
    /// Requests sent, retries and failures included: what a Worker's subrequest limit counts. Without those that were
    /// made elsewhere.
    pub requests: u64,
    /// Bytes of response bodies.
    pub bytes_received: u64,
    /// Of those, the bytes received elsewhere.
    pub bytes_elsewhere: u64,
    /// How often another instance was asked to read.
    pub calls: u64,
}

impl SourceCost {
    /// What was spent since `before`.
    #[must_use]
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            class_b: self.class_b.saturating_sub(before.class_b),
            class_c: self.class_c.saturating_sub(before.class_c),
            requests: self.requests.saturating_sub(before.requests),
            bytes_received: self.bytes_received.saturating_sub(before.bytes_received),
            bytes_elsewhere: self.bytes_elsewhere.saturating_sub(before.bytes_elsewhere),
            calls: self.calls.saturating_sub(before.calls),
        }
    }
}
