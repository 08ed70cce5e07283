//! Randomness, injected: the core draws none of its own, so that a seed repeats a run exactly.

/// A source of random bytes. On Workers and WASI it is the platform's cryptographic generator; in tests it is seeded.
pub trait Entropy {
    /// Fills `bytes`. The core uses it for jitter, salts and nonces, so an implementation for production must be
    /// cryptographically secure.
    fn fill(&self, bytes: &mut [u8]);

    /// A uniformly distributed number below `bound`; 0 when `bound` is 0.
    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        // The bias is at most bound / 2^64: of no consequence for jitter, the only use.
        u64::from_le_bytes(bytes).checked_rem(bound).unwrap_or(0)
    }
}

impl<T: Entropy + ?Sized> Entropy for &T {
    fn fill(&self, bytes: &mut [u8]) {
        (**self).fill(bytes);
    }
}
