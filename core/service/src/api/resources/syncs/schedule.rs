//! When a sync polls: what requests set, and what answers show.
//!
//! `schedule` has an interval or a cron expression. What an answer shows of it can be sent back as it is.

use serde_json::{Value, json};

use crate::{
    api::{
        body::{Fields, Given},
        errors::{ApiError, Problem},
        render,
    },
    coordinator::protocol::SyncStatus,
    cron::{CRON_CHARS_MAX, CronSchedule, TIMEZONE_CHARS_MAX, TIMEZONE_DEFAULT},
    registry::{POLLING_INTERVAL_S, SyncMode, SyncRecord},
};
use b2sync_core::{error::Error, time::Timestamp};

/// Seconds between polls: the default and the bounds.
pub(in crate::api) const INTERVAL_S: (u64, u64, u64) = (POLLING_INTERVAL_S as u64, 30, 86_400);

/// The modes, as requests name them.
pub(super) const MODES: [(&str, SyncMode); 4] = [
    ("continuous", SyncMode::Continuous),
    ("scheduled", SyncMode::Scheduled),
    ("one_time", SyncMode::OneTime),
    ("initial_only", SyncMode::OneTime),
];

/// What a request says about `schedule` and `polling_interval_seconds`.
pub(super) struct SchedulePatch {
    /// `polling_interval_seconds`, or `schedule.interval_seconds`.
    interval_s: Option<u64>,
    /// `Null`: poll by the interval.
    cron: Given<String>,
    timezone: Option<String>,
    mode: Option<SyncMode>,
}

impl SchedulePatch {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let mut patch = Self {
            interval_s: fields.integer("polling_interval_seconds", INTERVAL_S.1, INTERVAL_S.2),
            cron: Given::Absent,
            timezone: None,
            mode: None,
        };
        if fields.is_null("schedule") {
            fields.value("schedule");
            patch.cron = Given::Null;
            return patch;
        }
        let Some(mut schedule) = fields.nested("schedule") else { return patch };
        patch.mode = schedule.choice("mode", &MODES);
        patch.cron = schedule.text_or_null("cron", 1, CRON_CHARS_MAX);
        patch.timezone = schedule.text("timezone", 1, TIMEZONE_CHARS_MAX);
        let interval_s = schedule.integer("interval_seconds", INTERVAL_S.1, INTERVAL_S.2);
        // As answers show it.
        for shown in ["next_run_at", "last_run_at"] {
            schedule.value(shown);
        }
        match (&patch.cron, interval_s) {
            (Given::Value(_), Some(_)) => {
                let message = "`interval_seconds` and `cron` are two ways to say when to poll: send one of them.";
                schedule.problem("interval_seconds", "value_error", message);
            }
            (Given::Absent, Some(_)) => patch.cron = Given::Null,
            _ => {}
        }
        if interval_s.is_some() && patch.interval_s.is_some() && interval_s != patch.interval_s {
            let message = "`schedule.interval_seconds` and `polling_interval_seconds` mean the same and differ: send \
                           one of them.";
            schedule.problem("interval_seconds", "value_error", message);
        }
        patch.interval_s = interval_s.or(patch.interval_s);
        if let Given::Value(cron) = &patch.cron {
            let timezone = patch.timezone.as_deref().unwrap_or(TIMEZONE_DEFAULT);
            if let Err(error) = CronSchedule::new(cron, timezone, Timestamp::default()) {
                schedule.problem(field_of(&error), "value_error", error.message());
            }
        }
        schedule.done();
        patch
    }

    /// The mode of a new sync that names none.
    pub(super) fn mode_default(&self) -> SyncMode {
        match (self.mode, &self.cron) {
            (Some(mode), _) => mode,
            (None, Given::Value(_)) => SyncMode::Scheduled,
            (None, _) => SyncMode::default(),
        }
    }

    /// Changes when the sync polls. At `now`: times before that are not caught up on.
    ///
    /// # Errors
    /// What was sent does not fit the sync.
    pub(super) fn apply(&self, record: &mut SyncRecord, now: Timestamp) -> Result<(), ApiError> {
        if let Some(mode) = self.mode.filter(|mode| *mode != record.mode) {
            let message = format!(
                "`schedule.mode` is {:?}, and the `sync_mode` of this sync is {:?}. It cannot be changed: leave \
                 `schedule.mode` out.",
                mode.as_str(),
                record.mode.as_str()
            );
            return Err(invalid(&["schedule", "mode"], message));
        }
        let before = record.cron.take();
        let cron = match &self.cron {
            Given::Value(cron) => Some(cron.as_str()),
            Given::Null => None,
            Given::Absent => before.as_ref().map(|it| it.cron.as_str()),
        };
        match (cron, &self.timezone) {
            (Some(cron), timezone) => {
                let kept = before.as_ref().map_or(TIMEZONE_DEFAULT, |it| it.timezone.as_str());
                let timezone = timezone.as_deref().unwrap_or(kept);
                record.cron = Some(set(record, before.as_ref(), cron, timezone, now)?);
            }
            (None, Some(_)) => {
                let message = "`schedule.timezone` needs a `cron` beside it. Example: {\"cron\": \"0 3 * * *\", \
                               \"timezone\": \"Europe/Berlin\"}.";
                return Err(invalid(&["schedule", "timezone"], message.to_owned()));
            }
            (None, None) => {}
        }
        let Some(interval_s) = self.interval_s.map(|it| u32::try_from(it).unwrap_or(u32::MAX)) else { return Ok(()) };
        if record.cron.is_some() && interval_s != record.polling_interval_s {
            let message = "`polling_interval_seconds` has no effect on a sync that polls by `schedule.cron`. Send \
                           \"schedule\": null too, to poll by the interval.";
            return Err(invalid(&["polling_interval_seconds"], message.to_owned()));
        }
        record.polling_interval_s = interval_s;
        Ok(())
    }
}

/// The schedule of a sync that polls by cron.
fn set(
    record: &SyncRecord,
    before: Option<&CronSchedule>,
    cron: &str,
    timezone: &str,
    now: Timestamp,
) -> Result<CronSchedule, ApiError> {
    if record.mode != SyncMode::Scheduled {
        let message = format!(
            "`schedule.cron` needs a sync with the `sync_mode` \"scheduled\", and that of this one is {:?}.",
            record.mode.as_str()
        );
        return Err(invalid(&["schedule", "cron"], message));
    }
    let new = CronSchedule::new(cron, timezone, now)
        .map_err(|error| invalid(&["schedule", field_of(&error)], error.message().to_owned()))?;
    let is_same = |it: &&CronSchedule| (&it.cron, &it.timezone) == (&new.cron, &new.timezone);
    Ok(before.filter(is_same).cloned().unwrap_or(new))
}

fn field_of(error: &Error) -> &'static str {
    if error.field() == Some("timezone") { "timezone" } else { "cron" }
}

fn invalid(field: &[&str], message: String) -> ApiError {
    let location = ["body"].iter().chain(field).map(|&part| part.to_owned()).collect();
    ApiError::Invalid(vec![Problem { location, kind: "value_error", message }])
}

/// `schedule`, as the client reads it.
pub(super) fn render_schedule(record: &SyncRecord, status: &SyncStatus) -> Value {
    let (mode, next) = (record.mode.as_str(), render::time(status.next_sync_at));
    let last = render::time(status.last_sync_at);
    match &record.cron {
        Some(CronSchedule { cron, timezone, .. }) => {
            json!({"mode": mode, "cron": cron, "timezone": timezone, "next_run_at": next, "last_run_at": last})
        }
        None => {
            let interval_s = record.polling_interval_s;
            json!({"mode": mode, "interval_seconds": interval_s, "next_run_at": next, "last_run_at": last})
        }
    }
}

/// The seconds after its latest success from which on a sync is stale: when a second poll should have ended.
pub(super) fn stale_after_s(record: &SyncRecord, interval_s: u64, last: Option<Timestamp>) -> u64 {
    let second = |from: Timestamp| {
        let times = record.cron.as_ref()?.times()?;
        Some(times.after(times.after(from)?)?.millis_since(from) / 1_000)
    };
    let by_times = last.and_then(second).unwrap_or(0);
    by_times.max(2 * interval_s).max(120)
}
