//! What stands in for the world in tests, of this crate and of those above it: only with the feature `testing`.
//!
//! [`bucket`] is a bucket in memory that can fail, be slow and be read elsewhere; [`stores`] are blobs and documents in
//! memory that break off when they are told to, and tell a watcher of every write.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test is to end where something is not as it says")]

pub mod bucket;
pub mod stores;

use std::cell::{Cell, RefCell};

use crate::{
    entropy::Entropy,
    time::{Clock, Timestamp},
};

/// A clock that moves only when it is slept on.
#[derive(Debug)]
pub struct VirtualClock {
    /// The time, in milliseconds since 1970.
    pub now_ms: Cell<i64>,
    /// How long it was slept on, each time.
    pub sleeps: RefCell<Vec<u64>>,
}

impl VirtualClock {
    /// It stands at that time.
    ///
    /// # Panics
    /// If `text` is not RFC 3339.
    pub fn at(text: &str) -> Self {
        let now_ms = Cell::new(Timestamp::parse_rfc3339(text).unwrap().as_millis());
        Self { now_ms, sleeps: RefCell::default() }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now_ms.get())
    }

    async fn sleep(&self, millis: u64) {
        self.now_ms.set(self.now_ms.get() + i64::try_from(millis).unwrap());
        self.sleeps.borrow_mut().push(millis);
    }
}

/// A small generator (SplitMix64), good enough for jitter and repeatable.
#[derive(Debug)]
pub struct Seeded(pub Cell<u64>);

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
            let mut z = self.0.get();
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = (z >> 56) as u8;
        }
    }
}
