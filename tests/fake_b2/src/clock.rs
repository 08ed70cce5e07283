//! The time of an embedded B2 behind a socket: the machine's, and ahead of it or behind as a test says.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use b2sync_core::time::Timestamp;

/// The system's clock, moved by an offset that a test may change.
#[derive(Debug, Default)]
pub struct OffsetClock(AtomicI64);

impl OffsetClock {
    /// The current time.
    pub fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)).plus_millis(self.offset_ms())
    }

    /// How far it is ahead of the system's clock, in milliseconds.
    pub fn offset_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Sets [`Self::offset_ms`].
    pub fn set_offset_ms(&self, offset_ms: i64) {
        self.0.store(offset_ms, Ordering::SeqCst);
    }

    /// Moves it on, or back.
    pub fn advance(&self, millis: i64) {
        self.set_offset_ms(self.offset_ms().saturating_add(millis));
    }
}
