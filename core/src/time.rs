//! Instants, and the clock that a home injects.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// An instant: whole milliseconds since 1970-01-01T00:00:00Z, as B2 counts them. May lie before 1970. Stored as that
/// number.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// `self + millis`, stopping at the ends of the range.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// `self - earlier` in milliseconds, 0 when `earlier` is later.
    pub const fn millis_since(self, earlier: Self) -> u64 {
        let difference = self.0.saturating_sub(earlier.0);
        if difference < 0 { 0 } else { difference as u64 }
    }

    /// Parses RFC 3339 with any offset (`2024-01-01T00:00:00Z`, `2024-01-01T02:00:00.250+02:00`). Digits below the
    /// millisecond are cut off.
    ///
    /// # Errors
    /// What is wrong with `text`, in chrono's words; the caller adds which field it stood in.
    pub fn parse_rfc3339(text: &str) -> Result<Self, chrono::ParseError> {
        Ok(Self(DateTime::parse_from_rfc3339(text)?.timestamp_millis()))
    }

    /// The same instant as chrono knows it; `None` outside its range (years -262143 to 262142).
    pub const fn to_chrono(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_millis(self.0)
    }
}

/// RFC 3339 in UTC, with milliseconds only where there are some: `2024-01-01T00:00:00Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_chrono() {
            Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            None => write!(f, "{} ms after 1970-01-01T00:00:00Z", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The time, injected.
pub trait Clock {
    /// The current time.
    fn now(&self) -> Timestamp;

    /// Returns after about `millis` milliseconds. A virtual clock moves on instead of waiting.
    async fn sleep(&self, millis: u64);

    /// Whether the platform is about to end this invocation for the CPU time it has used. Where there is no such limit:
    /// never.
    fn is_near_cpu_limit(&self) -> bool {
        false
    }
}

impl<T: Clock + ?Sized> Clock for &T {
    fn now(&self) -> Timestamp {
        (**self).now()
    }

    async fn sleep(&self, millis: u64) {
        (**self).sleep(millis).await;
    }

    fn is_near_cpu_limit(&self) -> bool {
        (**self).is_near_cpu_limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_an_instant() {
        let utc = Timestamp::parse_rfc3339("2024-01-01T00:00:00Z").unwrap();
        assert_eq!(Timestamp::parse_rfc3339("2024-01-01T02:00:00+02:00").unwrap(), utc);
        assert_eq!(utc.to_string(), "2024-01-01T00:00:00Z");
        assert_eq!(utc.plus_millis(250).to_string(), "2024-01-01T00:00:00.250Z");
    }

    #[test]
    fn the_range_has_no_edges_to_fall_off() {
        assert_eq!(Timestamp::from_millis(i64::MAX).plus_millis(1), Timestamp::from_millis(i64::MAX));
        assert_eq!(Timestamp::from_millis(i64::MAX).to_string(), "9223372036854775807 ms after 1970-01-01T00:00:00Z");
        assert_eq!(Timestamp::from_millis(0).millis_since(Timestamp::from_millis(5)), 0);
    }
}
