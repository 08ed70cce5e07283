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
        let bytes = text.as_bytes();
        let plain = match bytes.len() {
            24 => bytes.first_chunk().and_then(Self::from_plain_millis),
            20 => bytes.first_chunk().and_then(Self::from_plain_seconds),
            _ => None,
        };
        match plain {
            Some(time) => Ok(time),
            None => Ok(Self(DateTime::parse_from_rfc3339(text)?.timestamp_millis())),
        }
    }

    /// Parses ISO 8601 as people write it: what [`Self::parse_rfc3339`] reads, a date alone (midnight UTC), times
    /// without seconds, the basic form without `-` and `:`, and offsets of hours alone or without `:`. Without an
    /// offset, as Python's `datetime` without a zone writes it, it is UTC.
    ///
    /// # Errors
    /// [`NotATime`].
    pub fn parse_iso8601(text: &str) -> Result<Self, NotATime> {
        if let Ok(time) = Self::parse_rfc3339(text) {
            return Ok(time);
        }
        let text = text.trim();
        let (date, time) = match text.split_once(['T', 't', ' ']) {
            Some((date, time)) => (date, Some(time)),
            None => (text, None),
        };
        let date = with_signs(date, '-', &[4, 2, 2]).ok_or(NotATime)?;
        let Some(time) = time else {
            return Self::parse_rfc3339(&format!("{date}T00:00:00Z")).map_err(|_| NotATime);
        };
        let (time, zone) = match time.find(['Z', 'z', '+', '-']) {
            Some(at) => time.split_at_checked(at).ok_or(NotATime)?,
            None => (time, "Z"),
        };
        let (time, fraction) = match time.split_once(['.', ',']) {
            Some((time, digits)) => (time, format!(".{digits}")),
            None => (time, String::new()),
        };
        let time = match with_signs(time, ':', &[2, 2, 2]) {
            Some(time) => time + &fraction,
            None if fraction.is_empty() => with_signs(time, ':', &[2, 2]).ok_or(NotATime)? + ":00",
            None => return Err(NotATime),
        };
        let zone = match zone.split_at_checked(1) {
            Some(("Z" | "z", "")) => "Z".to_owned(),
            Some((sign, offset)) => match with_signs(offset, ':', &[2, 2]) {
                Some(offset) => format!("{sign}{offset}"),
                None => format!("{sign}{}:00", with_signs(offset, ':', &[2]).ok_or(NotATime)?),
            },
            None => return Err(NotATime),
        };
        match Self::parse_rfc3339(&format!("{date}T{time}{zone}")) {
            Ok(time) => Ok(time),
            Err(_) => Err(NotATime),
        }
    }

    /// `YYYY-MM-DDTHH:MM:SS.mmmZ`, as listings write it, without chrono. `None` for any other text, leap seconds and
    /// days that do not exist among them: chrono judges those.
    #[inline]
    pub(crate) fn from_plain_millis(text: &[u8; 24]) -> Option<Self> {
        /// The top bit of each byte.
        const TOP: u64 = u64::from_ne_bytes([0x80; 8]);
        // What is added to a byte so that its top bit says: not a digit; not what it must be.
        const DIGIT: u8 = 0x80 - 10;
        const FIXED: u8 = 0x80 - 1;
        // By eight bytes, little-endian. Each becomes the value of its digit; 0 where the text is fixed, if it is
        // right.
        let (words, _) = text.as_chunks::<8>();
        let &[date, time, rest] = words else { return None };
        let date = u64::from_le_bytes(date) ^ u64::from_le_bytes(*b"0000-00-");
        let time = u64::from_le_bytes(time) ^ u64::from_le_bytes(*b"00T00:00");
        let rest = u64::from_le_bytes(rest) ^ u64::from_le_bytes(*b":00.000Z");
        let wrong = |word: u64, kinds: [u8; 8]| word | word.wrapping_add(u64::from_le_bytes(kinds));
        let wrong = wrong(date, [DIGIT, DIGIT, DIGIT, DIGIT, FIXED, DIGIT, DIGIT, FIXED])
            | wrong(time, [DIGIT, DIGIT, FIXED, DIGIT, DIGIT, FIXED, DIGIT, DIGIT])
            | wrong(rest, [FIXED, DIGIT, DIGIT, FIXED, DIGIT, DIGIT, DIGIT, FIXED]);
        if wrong & TOP != 0 {
            return None;
        }
        // Byte n is now the number that the digits n and n + 1 make, at most 99.
        let pairs = |word: u64| (word * 10 + (word >> 8)).to_le_bytes().map(u32::from);
        let [century, _, year_of_century, _, _, month, _, _] = pairs(date);
        let [day, _, _, hour, _, _, minute, _] = pairs(time);
        let [_, second, _, _, centis, _, _, _] = pairs(rest);
        let [_, _, _, _, _, _, milli, _] = rest.to_le_bytes().map(u32::from);
        let Month { days: days_in_month, years_before, days_before } = MONTHS.get(month as usize)?;
        let leap = if year_of_century == 0 { century } else { year_of_century }.is_multiple_of(4);
        let days_in_month = days_in_month + u32::from(month == 2 && leap);
        // A wrapped 0 is above any of them.
        if day.wrapping_sub(1) >= days_in_month || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        // Days from 0000-03-01 in years that begin with March, so that the leap day comes last (Howard Hinnant,
        // "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`). Counted from 400 years earlier, all is
        // positive.
        let year = 400 + century * 100 + year_of_century - years_before;
        let days = year * 365 + year / 4 - year / 100 + year / 400 + days_before + day - 1;
        let seconds = (i64::from(days) - 146_097 - 719_468) * 86_400 + i64::from(hour * 3_600 + minute * 60 + second);
        Some(Self(seconds * 1_000 + i64::from(centis * 10 + milli)))
    }

    /// The same without milliseconds: `YYYY-MM-DDTHH:MM:SSZ`.
    #[inline]
    pub(crate) fn from_plain_seconds(text: &[u8; 20]) -> Option<Self> {
        let mut with_millis = *b"0000-00-00T00:00:00.000Z";
        let (seconds, end) = text.split_last_chunk::<1>()?;
        with_millis.first_chunk_mut::<19>()?.copy_from_slice(seconds);
        (end == b"Z").then(|| Self::from_plain_millis(&with_millis))?
    }

    /// The same instant as chrono knows it; `None` outside its range (years -262143 to 262142).
    pub const fn to_chrono(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_millis(self.0)
    }
}

/// The error of a text that is not a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotATime;

/// Runs of digits of these lengths with `sign` between them, written with it everywhere or nowhere; as with it.
fn with_signs(text: &str, sign: char, lengths: &[usize]) -> Option<String> {
    let digits: String = text.chars().filter(|&c| c != sign).collect();
    if digits.len() != lengths.iter().sum::<usize>() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut parts = Vec::new();
    let mut rest = digits.as_str();
    for &length in lengths {
        let (part, behind) = rest.split_at_checked(length)?;
        parts.push(part);
        rest = behind;
    }
    let signed = parts.join(sign.encode_utf8(&mut [0; 4]));
    (text == signed || text == digits).then_some(signed)
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

/// A month, in years that begin with March.
struct Month {
    /// How many days it has, without a leap day; 0: there is no such month.
    days: u32,
    /// 1 where the year that it belongs to began in the calendar year before.
    years_before: u32,
    /// Days from the first of March to its first.
    days_before: u32,
}

/// By their numbers. A table, since listings have their months in no order, and a branch for each would be
/// mispredicted.
const MONTHS: [Month; 13] = {
    const fn month(days: u32, years_before: u32, days_before: u32) -> Month {
        Month { days, years_before, days_before }
    }
    [
        month(0, 0, 0),
        month(31, 1, 306),
        month(28, 1, 337),
        month(31, 0, 0),
        month(30, 0, 31),
        month(31, 0, 61),
        month(30, 0, 92),
        month(31, 0, 122),
        month(31, 0, 153),
        month(30, 0, 184),
        month(31, 0, 214),
        month(30, 0, 245),
        month(31, 0, 275),
    ]
};

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
    use proptest::prelude::*;

    use super::*;

    /// What chrono says.
    fn oracle(text: &str) -> Option<Timestamp> {
        DateTime::parse_from_rfc3339(text).ok().map(|time| Timestamp(time.timestamp_millis()))
    }

    /// Holds the whole parser to chrono, and whether its own part read `text`.
    fn is_plain(text: &str) -> bool {
        assert_eq!(Timestamp::parse_rfc3339(text).ok(), oracle(text), "{text}");
        let millis = text.as_bytes().try_into().ok().and_then(Timestamp::from_plain_millis);
        let seconds = text.as_bytes().try_into().ok().and_then(Timestamp::from_plain_seconds);
        millis.or(seconds).inspect(|time| assert_eq!(Some(*time), oracle(text), "{text}")).is_some()
    }

    #[test]
    fn every_month_of_the_calendar_is_read_without_chrono() {
        for year in (0..410).chain(1_890..2_110).chain([9_999]) {
            for month in 0..14 {
                for day in [0, 1, 27, 28, 29, 30, 31, 32] {
                    let text = format!("{year:04}-{month:02}-{day:02}T23:59:59.999Z");
                    assert_eq!(is_plain(&text), oracle(&text).is_some(), "{text}");
                }
            }
        }
    }

    #[test]
    fn a_leap_second_is_left_to_chrono() {
        for text in ["2016-12-31T23:59:60Z", "2016-12-31T23:59:60.500Z"] {
            assert!(Timestamp::parse_rfc3339(text).is_ok() && !is_plain(text));
        }
    }

    #[test]
    fn iso_8601_is_read_in_every_form_that_people_write() {
        let at = |text: &str| Timestamp::parse_rfc3339(text).unwrap();
        let new_year = at("2024-01-01T00:00:00Z");
        for text in [
            "2024-01-01",
            "20240101",
            "2024-01-01T00:00:00Z",
            "2024-01-01T00:00Z",
            "2024-01-01T00:00:00+0000",
            "2024-01-01T00:00:00+00",
            "2024-01-01T02:00:00+02",
            "2024-01-01T02:00+0200",
            "20240101T000000Z",
            "20240101T0000Z",
            "20231231T190000-05",
            "2024-01-01 00:00:00Z",
            "2024-01-01t00:00:00z",
            "2024-01-01T00:00:00,000Z",
            "20240101T000000.000+0000",
        ] {
            assert_eq!(Timestamp::parse_iso8601(text), Ok(new_year), "{text}");
        }
        assert_eq!(Timestamp::parse_iso8601("20240101T000000,25Z"), Ok(new_year.plus_millis(250)));
        for text in ["2024-01-01T00:00:00", "2024-01-01T00:00", "20240101T000000", "2024-01-01 00:00:00"] {
            assert_eq!(Timestamp::parse_iso8601(text), Ok(new_year), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2024",
            "2024-01",
            "2024-13-01",
            "2024-02-30",
            "01.01.2024",
            "1/1/2024",
            "2024-1-1",
            "2024-W01-1",
            "202401-01",
            "2024-01-01T",
            "2024-01-01T24:01Z",
            "2024-01-01T00Z",
            "2024-01-01T00:00:00+",
            "2024-01-01T00:00:00+2",
            "2024-01-01T00:00:00 CET",
            "2024-01-01T25:00:00",
            "1704067200",
            "2024-01-01Z",
            "２０２４-01-01",
        ] {
            assert_eq!(Timestamp::parse_iso8601(text), Err(NotATime), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9TZtz:+., -]{0,30}|.{0,20}") {
            let _ = Timestamp::parse_iso8601(&text);
        }

        #[test]
        fn any_text_is_read_as_by_chrono(
            text in "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}\
                     (\\.[0-9]{0,4})?(Z|z|[+-][0-9]{2}:[0-9]{2})",
        ) {
            is_plain(&text);
        }

        #[test]
        fn a_time_with_one_byte_wrong_is_read_as_by_chrono(
            millis in 0..253_402_300_800_000_i64,
            short in any::<bool>(),
            at in any::<prop::sample::Index>(),
            other in any::<u8>(),
        ) {
            let millis = if short { millis / 1_000 * 1_000 } else { millis };
            let form = if short { SecondsFormat::Secs } else { SecondsFormat::Millis };
            let text = Timestamp(millis).to_chrono().unwrap().to_rfc3339_opts(form, true);
            prop_assert!(is_plain(&text));
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = other;
            match String::from_utf8(bytes) {
                Ok(text) => drop(is_plain(&text)),
                Err(error) => {
                    let plain = error.as_bytes().try_into().ok().and_then(Timestamp::from_plain_millis);
                    prop_assert!(plain.is_none());
                }
            }
        }
    }

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
