//! Time and chance for simulations: a clock that moves only when told to, and entropy that a seed repeats exactly.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use b2sync_core::entropy::Entropy;
use b2sync_core::time::{Clock, Timestamp};

/// A clock that stands still until a task sleeps or a test moves it. Clones share the same time.
#[derive(Clone, Debug)]
pub struct VirtualClock(Arc<AtomicI64>);

impl VirtualClock {
    /// A clock that shows `start`.
    pub fn starting_at(start: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(start.as_millis())))
    }

    /// Moves the time on by `millis` milliseconds.
    pub fn advance(&self, millis: u64) {
        self.set(self.now().plus_millis(i64::try_from(millis).unwrap_or(i64::MAX)));
    }

    /// Shows `now` from here on; going back is allowed, as real clocks do.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.as_millis(), Ordering::SeqCst);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }

    async fn sleep(&self, millis: u64) {
        self.advance(millis);
    }
}

/// `SplitMix64`: the same seed gives the same bytes on every machine. Not secure, which a test does not need.
#[derive(Debug)]
pub struct SeededEntropy(AtomicU64);

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl SeededEntropy {
    /// The sequence of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next number of the sequence.
    pub fn next_u64(&self) -> u64 {
        mix(self.0.fetch_add(GAMMA, Ordering::SeqCst).wrapping_add(GAMMA))
    }

    /// True with the given probability (0 never, 1 always).
    pub fn chance(&self, probability: f64) -> bool {
        const STEPS: u64 = 1 << 53;
        ((self.next_u64() % STEPS) as f64) < probability * STEPS as f64
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// The finaliser of `SplitMix64`: turns a counter into a number that looks random.
pub const fn mix(counter: u64) -> u64 {
    let z = (counter ^ (counter >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeping_moves_the_virtual_clock_for_all_its_clones() {
        let clock = VirtualClock::starting_at(Timestamp::from_millis(1_000));
        let other = clock.clone();
        pollster::block_on(clock.sleep(250));
        assert_eq!(other.now(), Timestamp::from_millis(1_250));
    }

    #[test]
    fn a_seed_repeats_the_published_sequence() {
        // The first outputs of SplitMix64 for seed 1234567, as published with the algorithm.
        let entropy = SeededEntropy::new(1_234_567);
        assert_eq!(entropy.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(entropy.next_u64(), 3_203_168_211_198_807_973);
        let mut bytes = [0; 11];
        SeededEntropy::new(1_234_567).fill(&mut bytes);
        assert_eq!(bytes[..8], 6_457_827_717_110_365_317_u64.to_le_bytes());
    }
}
