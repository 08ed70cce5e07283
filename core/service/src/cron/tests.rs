//! Times as people name them, the days on which clocks change, and a second reading by walking minute by minute.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    Timestamp::parse_iso8601(text).unwrap()
}

/// The first times behind `from`, as UTC.
#[track_caller]
fn times(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
    let times = Times::parse(cron, zone).unwrap();
    let mut now = at(from);
    let mut found = Vec::new();
    for _ in 0..count {
        now = times.after(now).unwrap();
        found.push(now.to_string());
    }
    found
}

#[test]
fn times_of_the_day() {
    for (cron, zone, from, wanted) in [
        ("0 3 * * *", "UTC", "2026-11-28T02:59:59.999Z", "2026-11-28T03:00:00Z"),
        ("0 3 * * *", "UTC", "2026-11-28T03:00:00Z", "2026-11-29T03:00:00Z"),
        ("0 3 * * *", "Europe/Berlin", "2026-11-28T00:00:00Z", "2026-11-28T02:00:00Z"),
        ("0 3 * * *", "europe/berlin", "2026-07-28T00:00:00Z", "2026-07-28T01:00:00Z"),
        ("*/15 * * * *", "Asia/Kathmandu", "2026-11-28T00:01:00Z", "2026-11-28T00:15:00Z"),
        ("30 9 * * MON-FRI", "America/New_York", "2026-11-28T00:00:00Z", "2026-11-30T14:30:00Z"),
        ("0 0 1 JAN *", "UTC", "2026-11-28", "2027-01-01T00:00:00Z"),
        ("0 0 29 2 *", "UTC", "2096-03-01", "2104-02-29T00:00:00Z"),
        ("0 0 L * *", "UTC", "2027-02-01", "2027-02-28T00:00:00Z"),
        ("0 0 * * 7", "UTC", "2026-11-28", "2026-11-29T00:00:00Z"),
        // Either the day of the month or the day of the week, if both are given.
        ("0 0 13 * 5", "UTC", "2026-11-28", "2026-12-04T00:00:00Z"),
        ("  5   4 * *  SUN ", "UTC", "2026-11-28", "2026-11-29T04:05:00Z"),
        ("59 23 31 12 *", "Pacific/Kiritimati", "2026-11-28", "2026-12-31T09:59:00Z"),
    ] {
        assert_eq!(times(cron, zone, from, 1), [wanted], "{cron} {zone} {from}");
    }
}

#[test]
fn a_time_that_the_clock_skips_comes_as_soon_as_it_has_jumped() {
    // In Berlin, 02:00 is followed by 03:00 on 28 March 2027, at 01:00 UTC.
    for cron in ["0 2 * * *", "30 2 * * *", "59 2 * * *", "0,30 2 * * *", "*/10 2 * * *", "30 2,2 * * *"] {
        let found = times(cron, "Europe/Berlin", "2027-03-27T23:00:00Z", 2);
        assert_eq!(found[0], "2027-03-28T01:00:00Z", "{cron}");
        assert!(found[1].starts_with("2027-03-29T00:"), "once: {cron} {found:?}");
    }
    // Together with one that is due then anyway.
    assert_eq!(
        times("30 2,3 * * *", "Europe/Berlin", "2027-03-27T23:00:00Z", 3),
        ["2027-03-28T01:00:00Z", "2027-03-28T01:30:00Z", "2027-03-29T00:30:00Z"]
    );
    assert_eq!(
        times("0 2,3 * * *", "Europe/Berlin", "2027-03-27T23:00:00Z", 2),
        ["2027-03-28T01:00:00Z", "2027-03-29T00:00:00Z"]
    );
    // Polls that follow the clock have nothing to catch up on.
    assert_eq!(
        times("30 * * * *", "Europe/Berlin", "2027-03-28T00:00:00Z", 3),
        ["2027-03-28T00:30:00Z", "2027-03-28T01:30:00Z", "2027-03-28T02:30:00Z"]
    );
    // At midnight; by half an hour; and a whole day.
    assert_eq!(times("30 0 * * *", "Africa/Cairo", "2026-04-23T12:00:00Z", 1), ["2026-04-23T22:00:00Z"]);
    assert_eq!(times("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", 1), ["2026-10-03T15:30:00Z"]);
    assert_eq!(times("0 12 30 * *", "Pacific/Apia", "2011-12-29T23:00:00Z", 1), ["2011-12-30T10:00:00Z"]);
}

#[test]
fn a_time_that_comes_twice_has_one_poll() {
    // In Berlin, 03:00 is followed by 02:00 on 31 October 2027, at 01:00 UTC.
    for (cron, wanted) in [
        ("0 2 * * *", ["2027-10-31T00:00:00Z", "2027-11-01T01:00:00Z"]),
        ("30 2 * * *", ["2027-10-31T00:30:00Z", "2027-11-01T01:30:00Z"]),
        ("30 2,3 * * *", ["2027-10-31T00:30:00Z", "2027-10-31T02:30:00Z"]),
        ("0,59 2 * * *", ["2027-10-31T00:00:00Z", "2027-10-31T00:59:00Z"]),
        // Those that follow the clock have two.
        ("30 * * * *", ["2027-10-31T00:30:00Z", "2027-10-31T01:30:00Z"]),
        ("0 */2 * * *", ["2027-10-31T00:00:00Z", "2027-10-31T01:00:00Z"]),
    ] {
        assert_eq!(times(cron, "Europe/Berlin", "2027-10-30T23:45:00Z", 2), wanted, "{cron}");
    }
    // Also where the search begins in the second of the two hours.
    let after = |cron: &str| times(cron, "Europe/Berlin", "2027-10-31T01:10:00Z", 1)[0].clone();
    assert_eq!(after("30 2 * * *"), "2027-11-01T01:30:00Z");
    assert_eq!(after("30 * * * *"), "2027-10-31T01:30:00Z");
    // And from a first time to a second one that lies before it on the clock.
    assert_eq!(
        times("0,50 * * * *", "Europe/Berlin", "2027-10-31T00:45:00Z", 3),
        ["2027-10-31T00:50:00Z", "2027-10-31T01:00:00Z", "2027-10-31T01:50:00Z"]
    );
}

#[test]
fn what_is_wrong_is_said_with_an_example() {
    for (cron, zone, field, said) in [
        ("", "UTC", "cron", "must have five fields"),
        ("0 3 * *", "UTC", "cron", "it has 4."),
        ("0 0 3 * * *", "UTC", "cron", "it has 6."),
        ("@daily", "UTC", "cron", "it has 1."),
        ("60 3 * * *", "UTC", "cron", "minute \"60\"; it must be 0 to 59"),
        ("0 24 * * *", "UTC", "cron", "hour \"24\"; it must be 0 to 23"),
        ("0 3 32 * *", "UTC", "cron", "day of month \"32\""),
        ("0 3 * 13 *", "UTC", "cron", "month \"13\""),
        ("0 3 * * 8", "UTC", "cron", "day of week \"8\""),
        ("0 3 * * FOO", "UTC", "cron", "day of week \"FOO\""),
        ("*/0 3 * * *", "UTC", "cron", "minute \"*/0\""),
        ("5-1 3 * * *", "UTC", "cron", "minute \"5-1\""),
        ("0 drei * * *", "UTC", "cron", "hour \"drei\""),
        ("0 0 31 2 *", "UTC", "cron", "never matches"),
        ("0 0 30,31 FEB *", "UTC", "cron", "never matches"),
        ("0 0 31 4,6,9,11 *", "UTC", "cron", "never matches"),
        ("0 3 * * *", "Europe/Berln", "timezone", "\"Europe/Berln\" is not the name of a time zone"),
        ("0 3 * * *", "", "timezone", "is not the name"),
        ("0 3 * * *", "+02:00", "timezone", "is not the name"),
        ("0 3 * * *", "../UTC", "timezone", "is not the name"),
    ] {
        let error = CronSchedule::new(cron, zone, Timestamp::default()).unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidInput, Some(field)), "{cron}");
        assert!(error.message().contains(said) && error.message().contains("Example"), "{cron}: {}", error.message());
    }
}

#[test]
fn a_schedule_is_stored_as_it_was_set() {
    let schedule = CronSchedule::new("0 3 * * *", "europe/berlin", at("2026-11-28")).unwrap();
    assert_eq!((schedule.timezone.as_str(), schedule.interval_s), ("Europe/Berlin", 86_400));
    let stored = serde_json::to_string(&schedule).unwrap();
    assert_eq!(serde_json::from_str::<CronSchedule>(&stored).unwrap(), schedule);
    for (cron, interval_s) in [
        ("* * * * *", 60),
        ("*/15 * * * *", 900),
        ("0 0 * * MON", 7 * 86_400),
        ("0 9-16 * * 1-5", 7 * 86_400 / 40),
        ("0 0 1 1 *", 31_557_600),
        ("0 0 29 2 *", 4 * 31_557_600),
    ] {
        assert_eq!(CronSchedule::new(cron, "UTC", at("2026-11-28")).unwrap().interval_s, interval_s, "{cron}");
    }
    // What another b2sync has stored, and this one cannot read.
    assert!(CronSchedule { timezone: "Mars/Olympus".to_owned(), ..schedule }.times().is_none());
}

/// One field of an expression.
fn field(min: u8, max: u8) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("*".to_owned()),
        2 => (min..=max).prop_map(|number| number.to_string()),
        1 => (1..=max).prop_map(|step| format!("*/{step}")),
        1 => (min..=max, min..=max).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (min..=max, min..=max).prop_map(|(a, b)| format!("{a},{b}")),
    ]
}

/// All times in the minutes from `from` to `to`, by looking at the clock each minute.
fn walked(times: &Times, from: jiff::Timestamp, minutes: i64) -> BTreeSet<Timestamp> {
    let is_named = |shown: DateTime| {
        times.hours.contains(&shown.hour()) && times.minutes.contains(&shown.minute()) && times.has_day(shown.date())
    };
    let mut found = BTreeSet::new();
    let mut latest = times.zone.to_datetime(from);
    for minute in 1..=minutes {
        let now = from + jiff::SignedDuration::from_mins(minute);
        let shown = times.zone.to_datetime(now);
        let mut is_due = is_named(shown) && (times.follows_clock || shown > latest);
        if !times.follows_clock {
            // What the clock has skipped since it showed the latest.
            let mut skipped = latest + jiff::SignedDuration::from_mins(1);
            while skipped < shown {
                is_due |= is_named(skipped);
                skipped += jiff::SignedDuration::from_mins(1);
            }
        }
        latest = latest.max(shown);
        if is_due {
            found.insert(Timestamp::from_millis(now.as_millisecond()));
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_time_is_found_and_no_other(
        minute in field(0, 59), hour in field(0, 23), day in field(1, 31), month in field(1, 12), week in field(0, 7),
        zone in prop::sample::select(vec![
            "Europe/Berlin", "America/New_York", "Africa/Cairo", "Australia/Lord_Howe", "America/St_Johns", "UTC",
            "Antarctica/Troll", "America/Santiago",
        ]),
        change in 0_usize..4, before_h in 1_i64..30,
    ) {
        let cron = format!("{minute} {hour} {day} {month} {week}");
        let times = Times::parse(&cron, zone).unwrap();
        // Around a change of the clock, where there is one.
        let year = jiff::Timestamp::from_millisecond(at("2027-01-01").as_millis()).unwrap();
        let begin = times.zone.following(year).nth(change).map_or(year, |change| change.timestamp());
        let begin = begin - jiff::SignedDuration::from_hours(before_h);
        const MINUTES: i64 = 48 * 60;
        let walked = walked(&times, begin, MINUTES);
        let end = Timestamp::from_millis((begin + jiff::SignedDuration::from_mins(MINUTES)).as_millisecond());
        let (mut now, mut found) = (Timestamp::from_millis(begin.as_millisecond()), BTreeSet::new());
        while let Some(next) = times.after(now).filter(|next| *next <= end) {
            prop_assert!(next > now);
            found.insert(next);
            now = next;
        }
        prop_assert_eq!(found, walked, "{} {}", cron, zone);
    }

    #[test]
    fn any_text_is_read_or_refused(
        cron in "[0-9*/,#LW?+@ A-Za-z-]{0,40}|.{0,40}", zone in ".{0,20}", now in any::<i64>(),
    ) {
        let now = Timestamp::from_millis(now);
        let _ = CronSchedule::new(&cron, &zone, now);
        if let Ok(schedule) = CronSchedule::new(&cron, "Europe/Berlin", now) {
            let next = schedule.times().unwrap().after(now);
            prop_assert!(next.is_none_or(|next| next > now));
            let next = schedule.times().unwrap().after(at("2026-11-28"));
            prop_assert!(next.is_some(), "{cron}");
        }
    }
}
