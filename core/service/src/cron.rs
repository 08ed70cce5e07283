//! Polls at times of the day: a cron expression, read in a time zone.
//!
//! `croner` reads the expression, and `jiff` knows the time zones: those of the IANA database that is linked in, so
//! that every home knows the same. When a time comes is decided here, since both crates leave open what becomes of one
//! that a change of the clock skips or repeats. It deliberately does not know what a poll is, and it reads no clock.
//!
//! # When the clocks change
//! As in Vixie cron. Where the hours are named (`30 2 * * *`), each of these times of a day has one poll: one that the
//! clock skips has it as soon as the clock has jumped, together with the others that it skips, and one that comes twice
//! has it the first time. Where every hour is meant (`*` or `*/2`), polls follow the clock: they come in both hours of
//! the same name, and an hour that is skipped has none.

use croner::{
    Cron, Weekday,
    parser::{CronParser, Seconds, Year},
};
use jiff::{
    civil::{Date, DateTime},
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};
use serde::{Deserialize, Serialize};

use b2sync_core::{
    error::{Error, ErrorKind},
    time::Timestamp,
};

/// The longest cron expression, in characters.
pub const CRON_CHARS_MAX: usize = 200;
/// The longest name of a time zone, in characters.
pub const TIMEZONE_CHARS_MAX: usize = 64;
/// The time zone of an expression that comes without one.
pub const TIMEZONE_DEFAULT: &str = "UTC";

/// The days of the week and the leap years repeat after this many years.
const CYCLE_YEARS: i16 = 28;
const CYCLE_DAYS: u64 = 28 * 365 + 7;
/// The first day of a cycle that has every kind of year.
const CYCLE_FROM: Date = jiff::civil::date(2001, 1, 1);
/// No clock is put back further than this, in hours.
const PUT_BACK_H_MAX: i64 = 4;

/// The fields of an expression: their names, and what each takes.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of month", "1 to 31, or L for the last"),
    ("month", "1 to 12, or JAN to DEC"),
    ("day of week", "0 to 7, where 0 and 7 are Sunday, or SUN to SAT"),
];

/// When a sync polls, as its user has set it. Stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronSchedule {
    /// The expression, as it came.
    pub cron: String,
    /// The name of the time zone, as the IANA database spells it.
    pub timezone: String,
    /// When its user set it: times before that are not caught up on.
    pub since: Timestamp,
    /// Seconds between two polls in the mean, as a forecast takes them.
    pub interval_s: u64,
}

impl CronSchedule {
    /// Sets a schedule.
    ///
    /// # Errors
    /// Those of [`Times::parse`]; field `cron` if no time ever matches.
    pub fn new(cron: &str, timezone: &str, now: Timestamp) -> Result<Self, Error> {
        let times = Times::parse(cron, timezone)?;
        let interval_s = times.interval_s().ok_or_else(|| {
            refused("cron", format!("`cron` {cron:?} never matches: there is no such day. {EXAMPLE}"))
        })?;
        let timezone = times.zone.iana_name().unwrap_or(timezone).to_owned();
        Ok(Self { cron: cron.to_owned(), timezone, since: now, interval_s })
    }

    /// The times; `None` if this b2sync cannot read what another has stored.
    pub fn times(&self) -> Option<Times> {
        Times::parse(&self.cron, &self.timezone).ok()
    }
}

const EXAMPLE: &str = "Example: \"0 3 * * *\" is every day at 03:00.";

fn refused(field: &'static str, message: String) -> Error {
    Error::new(ErrorKind::InvalidInput, message, "").with_field(field)
}

/// The times that an expression names in a time zone.
#[derive(Clone, Debug)]
pub struct Times {
    minutes: Vec<i8>,
    hours: Vec<i8>,
    /// Whether it means every hour, or every nth hour. Such times follow the clock when the clock changes.
    follows_clock: bool,
    /// What decides about days.
    days: Cron,
    zone: TimeZone,
}

impl Times {
    /// Reads an expression of five fields, and the name of a time zone.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], with the field `cron` or `timezone` and an example in the message.
    pub fn parse(cron: &str, timezone: &str) -> Result<Self, Error> {
        let fields: Vec<&str> = cron.split_whitespace().collect();
        if fields.len() != FIELDS.len() {
            let message = format!(
                "`cron` must have five fields (minute, hour, day of month, month, day of week); it has {}. {EXAMPLE}",
                fields.len()
            );
            return Err(refused("cron", message));
        }
        for (n, (field, (name, takes))) in fields.iter().zip(FIELDS).enumerate() {
            // Alone, so that it is known which is wrong.
            let alone = (0..FIELDS.len()).map(|other| if other == n { field } else { "*" });
            if read(&alone.collect::<Vec<_>>().join(" ")).is_none() {
                let message = format!(
                    "`cron` has the {name} {field:?}; it must be {takes}, or a list, a range or steps of them (1,15 or \
                     1-5 or */10), or *. {EXAMPLE}"
                );
                return Err(refused("cron", message));
            }
        }
        let days = read(&fields.join(" ")).ok_or_else(|| {
            refused("cron", format!("`cron` {cron:?} is not a cron expression of five fields. {EXAMPLE}"))
        })?;
        let zone = TimeZoneDatabase::bundled().get(timezone).map_err(|_| {
            let message = format!(
                "`timezone` {timezone:?} is not the name of a time zone. Send one of the IANA database. Examples: \
                 \"Europe/Berlin\", \"America/New_York\", \"UTC\"."
            );
            refused("timezone", message)
        })?;
        let numbers = |values: Vec<u16>| values.into_iter().filter_map(|value| i8::try_from(value).ok()).collect();
        Ok(Self {
            minutes: numbers(days.pattern.minutes.values()),
            hours: numbers(days.pattern.hours.values()),
            follows_clock: days.pattern.hours.from_wildcard,
            days,
            zone,
        })
    }

    /// The first of the times behind `at`; `None` if there is none within 28 years, or within what the calendar holds.
    pub fn after(&self, at: Timestamp) -> Option<Timestamp> {
        let instant = jiff::Timestamp::from_millisecond(at.as_millis()).ok()?;
        let here = self.zone.to_datetime(instant);
        // One that is behind `at` may be named by the clock before it.
        let from = here.checked_sub(jiff::SignedDuration::from_hours(PUT_BACK_H_MAX)).ok()?;
        let mut day = from.date();
        for _ in 0..=CYCLE_DAYS {
            if self.has_day(day)
                && let Some(found) = self.on_day_after(day, from, instant)
            {
                return Some(Timestamp::from_millis(found.as_millisecond()));
            }
            day = day.tomorrow().ok()?;
        }
        None
    }

    /// The first time of a day behind `at`, of those that the clock names at `from` or later.
    fn on_day_after(&self, day: Date, from: DateTime, at: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let mut found: Option<jiff::Timestamp> = None;
        for hour in &self.hours {
            for minute in &self.minutes {
                let Ok(named) = DateTime::new(day.year(), day.month(), day.day(), *hour, *minute, 0, 0) else {
                    continue;
                };
                if named < from {
                    continue;
                }
                let (first, second) = self.instants(named);
                let next = [first, second].into_iter().flatten().filter(|instant| *instant > at).min();
                found = found.into_iter().chain(next).min();
                // Those that follow come later, also if this is the second time of its name.
                if found.is_some_and(|found| first.is_some_and(|first| first >= found)) {
                    return found;
                }
            }
        }
        found
    }

    /// When the clock shows this: the first time, and the second if polls follow the clock.
    fn instants(&self, named: DateTime) -> (Option<jiff::Timestamp>, Option<jiff::Timestamp>) {
        let shown = self.zone.to_ambiguous_timestamp(named);
        match shown.offset() {
            AmbiguousOffset::Unambiguous { .. } => (shown.compatible().ok(), None),
            AmbiguousOffset::Fold { .. } if self.follows_clock => (shown.earlier().ok(), shown.later().ok()),
            AmbiguousOffset::Fold { .. } => (shown.earlier().ok(), None),
            AmbiguousOffset::Gap { .. } if self.follows_clock => (None, None),
            AmbiguousOffset::Gap { .. } => {
                let before = shown.earlier().ok();
                let jump = before.and_then(|before| self.zone.following(before).next());
                (jump.map(|jump| jump.timestamp()), None)
            }
        }
    }

    fn has_day(&self, day: Date) -> bool {
        let [month, number] = [day.month(), day.day()].map(|it| u32::try_from(it).unwrap_or_default());
        let pattern = &self.days.pattern;
        pattern.month_match(month).unwrap_or_default()
            && pattern.day_match(day.year().into(), month, number, weekday(day)).unwrap_or_default()
    }

    /// Seconds between two of them in the mean; `None` if there are none.
    fn interval_s(&self) -> Option<u64> {
        let (mut day, mut days) = (Some(CYCLE_FROM), 0_u64);
        while let Some(it) = day.filter(|day| day.year() < CYCLE_FROM.year() + CYCLE_YEARS) {
            days += u64::from(self.has_day(it));
            day = it.tomorrow().ok();
        }
        let times = days.saturating_mul((self.hours.len() * self.minutes.len()) as u64);
        (CYCLE_DAYS * 86_400).checked_div(times)
    }
}

fn read(expression: &str) -> Option<Cron> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(expression).ok()
}

fn weekday(day: Date) -> Weekday {
    match day.weekday() {
        jiff::civil::Weekday::Monday => Weekday::Monday,
        jiff::civil::Weekday::Tuesday => Weekday::Tuesday,
        jiff::civil::Weekday::Wednesday => Weekday::Wednesday,
        jiff::civil::Weekday::Thursday => Weekday::Thursday,
        jiff::civil::Weekday::Friday => Weekday::Friday,
        jiff::civil::Weekday::Saturday => Weekday::Saturday,
        jiff::civil::Weekday::Sunday => Weekday::Sunday,
    }
}

#[cfg(test)]
mod tests;
