//! Values that every answer renders the same way.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::cost::NANODOLLARS;
use b2sync_core::{time::Timestamp, warning::Warning};

/// The longest `last_error` and `error`, in characters: the client refuses longer ones.
pub(super) const ERROR_CHARS_MAX: usize = 1_000;

/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999Z: what the client's `datetime` can hold.
const TIME_MIN: Timestamp = Timestamp::from_millis(-62_135_596_800_000);
const TIME_MAX: Timestamp = Timestamp::from_millis(253_402_300_799_999);

/// A time as RFC 3339.
pub(super) struct Shown(Timestamp);

impl Shown {
    /// `None` for a time that the client cannot hold.
    pub(super) fn of(at: Timestamp) -> Option<Self> {
        (TIME_MIN..=TIME_MAX).contains(&at).then_some(Self(at))
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// RFC 3339, or `null`.
pub(super) fn time(at: impl Into<Option<Timestamp>>) -> Value {
    at.into().and_then(Shown::of).map_or(Value::Null, |shown| shown.0.to_string().into())
}

/// At most [`ERROR_CHARS_MAX`] characters of `text`.
pub(super) fn error(text: &str) -> String {
    match text.char_indices().nth(ERROR_CHARS_MAX) {
        None => text.to_owned(),
        Some(_) => text.chars().take(ERROR_CHARS_MAX - 1).chain(['…']).collect(),
    }
}

/// What the user should know though nothing failed.
pub(super) fn warnings(warnings: &[Warning]) -> Value {
    let shown = warnings.iter().map(|Warning { code, message, advice }| (code.as_str(), error(message), error(advice)));
    shown.map(|(code, message, advice)| json!({"code": code, "message": message, "advice": advice})).collect()
}

/// Rounds to one decimal; NaN and infinity become 0.
pub(super) fn decimal(number: f64) -> Value {
    let rounded = (number * 10.0).round() / 10.0;
    Value::from(if rounded.is_finite() { rounded } else { 0.0 })
}

/// An integer that every client's `int` takes.
pub(super) fn integer(number: u64) -> Value {
    int(number).into()
}

/// As [`integer`], as a number.
pub(super) fn int(number: u64) -> u64 {
    number.min(i64::MAX as u64)
}

/// Dollars, as a number.
pub(super) fn dollars(nanodollars: u64) -> Value {
    Value::from(nanodollars as f64 / NANODOLLARS as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_outside_the_calendar_are_null() {
        assert_eq!(time(Timestamp::from_millis(0)), "1970-01-01T00:00:00Z");
        assert_eq!(time(None), Value::Null);
        assert_eq!(time(TIME_MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(time(Timestamp::from_millis(i64::MAX)), Value::Null);
        assert_eq!(time(Timestamp::from_millis(i64::MIN)), Value::Null);
    }

    #[test]
    fn long_errors_are_cut_between_characters() {
        assert_eq!(error(&"ü".repeat(1_000)), "ü".repeat(1_000));
        let cut = error(&"ü".repeat(1_001));
        assert_eq!(cut.chars().count(), 1_000);
        assert!(cut.ends_with("ü…"));
        assert_eq!(decimal(f64::NAN), 0.0);
        assert_eq!(decimal(33.333), 33.3);
        assert_eq!(dollars(4_004_000).to_string(), "0.004004");
    }
}
