//! `variables-and-limits.md` has the limits that the code has. What only a home decides (how many shards there are) is
//! written here as it is.

use super::page::{check_block, read, row};
use crate::{
    api::{
        body, nesting, pagination, query, render, request,
        resources::{
            changes, connections, dead_letters as dead_letter_list, jobs, objects,
            syncs::{
                schedule::INTERVAL_S,
                settings::{BATCH, CLASS_C_MAX, CONCURRENCY_MAX},
            },
        },
        routes,
        service::INTERACTIVE,
    },
    catalogue::APPLY_BATCH_MAX,
    coordinator::{self, ranges},
    cron, registry,
    sinks::{self, dead_letters, pump},
    watchdog,
};
use b2sync_core::{
    b2::account::CREDENTIAL_BYTES_MAX,
    engine::{
        listing::{lanes, source},
        meter::{self, Budget},
        thresholds::Thresholds,
    },
    error, feed, filter,
    http::ExchangeLimits,
    policy::{DELETION_FILES_MAX, DELETION_PERCENT_MAX, DeletionLimit},
    retry::RetryPolicy,
    snapshot::{codec, cut},
    source_path,
};

const PAGE: &str = "variables-and-limits.md";

/// With separators: `1,000`.
fn number(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or_else(|_| panic!("no limit is so large")).to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|it| std::str::from_utf8(it).unwrap()).collect();
    groups.join(",")
}

/// In the largest unit that leaves at most one decimal: `1.5 MiB`.
fn bytes(count: impl TryInto<u64>) -> String {
    let count: u64 = count.try_into().unwrap_or_else(|_| panic!("no limit is so large"));
    for (unit, size) in [("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if count >= size && (count * 10).is_multiple_of(size) {
            let (whole, tenth) = (number(count / size), count * 10 / size % 10);
            return if tenth == 0 { format!("{whole} {unit}") } else { format!("{whole}.{tenth} {unit}") };
        }
    }
    format!("{} bytes", number(count))
}

/// A time of milliseconds, in the largest unit of which there are more than two: `120 s`. An hour is one.
fn time(millis: impl TryInto<u64>) -> String {
    let millis: u64 = millis.try_into().unwrap_or_else(|_| panic!("no limit is so large"));
    let units = [("days", 86_400_000), ("hours", 3_600_000), ("minutes", 60_000), ("s", 1_000), ("ms", 1)];
    let fits = |(_, size): &(&str, u64)| millis.is_multiple_of(*size) && (millis / size > 2 || *size <= 1_000);
    match units.into_iter().find(fits) {
        _ if millis == 3_600_000 => "1 hour".to_owned(),
        Some((unit, size)) => format!("{} {unit}", number(millis / size)),
        None => panic!("every time has milliseconds"),
    }
}

#[track_caller]
fn check(block: &str, rows: &[(&str, String)]) {
    let rows: String = rows.iter().map(|(what, limit)| format!("| {what} | {limit} |\n")).collect();
    check_block(PAGE, block, |_| format!("| what | limit |\n|---|---|\n{rows}"));
}

#[test]
fn units() {
    assert_eq!([number(7), number(1_000), number(10_000_000)], ["7", "1,000", "10,000,000"]);
    assert_eq!([bytes(512), bytes(256 << 10), bytes(3 << 19)], ["512 bytes", "256 KiB", "1.5 MiB"]);
    assert_eq!([time(250), time(2_000), time(120_000), time(300_000)], ["250 ms", "2 s", "120 s", "5 minutes"]);
    assert_eq!([time(3_600_000), time(24 * 3_600_000)], ["1 hour", "24 hours"]);
}

#[test]
fn of_a_step() {
    let (paid, free) = (Budget::WORKERS_PAID, Budget::WORKERS_FREE);
    let rows = [
        ("external_requests_max", "requests to B2, retries included", number(paid.external_requests_max), {
            number(free.external_requests_max)
        }),
        ("internal_requests_max", "calls to stores and sinks", number(paid.internal_requests_max), {
            number(free.internal_requests_max)
        }),
        ("wall_ms_max", "wall time, in milliseconds", number(paid.wall_ms_max), number(free.wall_ms_max)),
        ("bytes_received_max", "bytes received from B2", bytes(paid.bytes_received_max), {
            bytes(free.bytes_received_max)
        }),
        ("keys_max", "keys read from the listing; a page has 1,000", number(paid.keys_max), number(free.keys_max)),
    ];
    let line =
        |(name, what, paid, free): &(&str, &str, String, String)| format!("| `{name}` | {what} | {paid} | {free} |\n");
    let head = "| name | meaning | `paid` | `free` |\n|---|---|---|---|\n".to_owned();
    let (requests, calls) = (meter::EXTERNAL_REQUESTS_RESERVED, meter::INTERNAL_REQUESTS_RESERVED);
    let reserved = format!(
        "\nA step keeps {requests} requests and {calls} calls in hand for one more page, so that the page can be \
         retried and all that it\nchanges can be stored.\n"
    );
    check_block(PAGE, "step budget", |_| head + &rows.iter().map(line).collect::<String>() + &reserved);
}

#[test]
fn of_the_api() {
    let (default, max, offset) = (pagination::PAGE_DEFAULT, pagination::PAGE_MAX, pagination::OFFSET_MAX);
    let changes = (number(feed::read::PAGE_CHANGES_MAX), number(changes::LIMIT_DEFAULT));
    check(
        "limits of the API",
        &[
            ("body of a request", bytes(body::BODY_BYTES_MAX)),
            ("levels of lists and objects in a body", number(nesting::NESTING_MAX as u64)),
            ("`metadata` of a connection or a sync", format!("{} as JSON", bytes(body::METADATA_BYTES_MAX))),
            ("part of a path", format!("{}, decoded", bytes(routes::SEGMENT_BYTES_MAX))),
            ("parameters of a query", number(query::PARAMETERS_MAX as u64)),
            ("items of a page", format!("1 to {}, default {}", number(max), number(default))),
            ("offset", number(offset)),
            ("strings in a list of a body", number(body::LIST_ITEMS_MAX)),
            ("namespace", format!("{} characters", request::NAMESPACE_CHARS_MAX)),
            ("name of a connection", format!("{} characters", connections::NAME_CHARS_MAX)),
            ("description, reason of a pause", format!("{} characters", body::DESCRIPTION_CHARS_MAX)),
            ("`error_types` of a list of dead letters", number(dead_letter_list::LIST_TYPES_MAX as u64)),
            ("`prefix` of a list of objects", format!("{} characters", number(objects::PREFIX_CHARS_MAX))),
            ("`last_error`, `error`", format!("{} characters", number(render::ERROR_CHARS_MAX))),
            ("quoted input in a message", format!("{} characters", error::QUOTE_CHARS_MAX)),
            ("quoted name of an unknown field", format!("{} characters", body::KEY_CHARS_MAX)),
            ("changes of a page of `GET …/changes`", format!("1 to {}, default {}", changes.0, changes.1)),
            ("wait of `GET …/changes` and of `GET …/jobs/{sync_job_id}`", time(coordinator::WAIT_MS_MAX)),
            ("presigned URL", time(objects::PRESIGNED_S * 1_000)),
            ("archived jobs that a list reads", number(jobs::ARCHIVED_JOBS_MAX)),
        ],
    );
}

#[test]
fn of_connections_and_syncs() {
    let bounds = |(default, min, max): (u64, u64, u64), unit: &str| {
        format!("{} to {}{unit}, default {}", number(min), number(max), number(default))
    };
    let hours =
        (registry::FEED_RETENTION_HOURS, registry::FEED_RETENTION_HOURS_MIN, registry::FEED_RETENTION_HOURS_MAX);
    let bucket = (source_path::BUCKET_CHARS_MIN, source_path::BUCKET_CHARS_MAX);
    let streams = meter::STREAMS_HERE_MAX;
    check(
        "limits of connections and syncs",
        &[
            ("connections that are not archived", number(registry::CONNECTIONS_MAX)),
            ("`schedule.cron`", format!("{} characters", cron::CRON_CHARS_MAX)),
            ("`schedule.timezone`", format!("{} characters", cron::TIMEZONE_CHARS_MAX)),
            ("syncs of a target bucket", number(registry::SYNCS_PER_BUCKET_MAX)),
            ("syncs that a list with `status` or `is_active` asks", number(registry::SYNCS_ASKED_MAX)),
            ("key id, application key", format!("{} each", bytes(CREDENTIAL_BYTES_MAX))),
            ("failures in a row that suspend a connection", number(registry::CONNECTION_FAILURES_MAX)),
            ("bucket name", format!("{} to {} characters of `[A-Za-z0-9.-]`", bucket.0, bucket.1)),
            ("prefix of a source path", format!("{} bytes", number(source_path::PREFIX_BYTES_MAX))),
            ("`polling_interval_seconds`", bounds(INTERVAL_S, "")),
            ("`batch_size`", bounds(BATCH, "")),
            ("`max_class_c_per_day`", format!("1 to {}", number(CLASS_C_MAX))),
            (
                "`deletion_limit`",
                format!("`percent` 0 to {DELETION_PERCENT_MAX}, `files` 0 to {}", number(DELETION_FILES_MAX)),
            ),
            ("`feed_retention_hours`", bounds((hours.0.into(), hours.1.into(), hours.2.into()), "")),
            (
                "`sync_concurrency`",
                format!(
                    "1 to {CONCURRENCY_MAX}; {streams} streams in the coordinator, and {streams} in each of up to 16 \
                     shards"
                ),
            ),
            (
                "patterns of a list",
                format!(
                    "{}, each of at most {} bytes, and at most {} in all of those with wildcards",
                    filter::LIST_ITEMS_MAX,
                    number(filter::ITEM_BYTES_MAX),
                    bytes(filter::WILDCARD_PATTERNS_BYTES_MAX)
                ),
            ),
            ("jobs kept by the coordinator", number(coordinator::JOBS_KEPT_MAX)),
        ],
    );
}

#[test]
fn of_the_feed_and_its_sinks() {
    let turn = time(coordinator::PUMP_MS_MAX as u64);
    check(
        "limits of the feed and its sinks",
        &[
            (
                "batch of the feed",
                format!(
                    "{} changes, about {}",
                    number(feed::batch::BATCH_CHANGES_MAX),
                    bytes(feed::batch::BATCH_BYTES_MAX)
                ),
            ),
            ("page of the feed", format!("{} changes", number(feed::read::PAGE_CHANGES_MAX))),
            (
                "call to a sink",
                format!("{}; then it counts as failed and the changes come again", time(pump::DELIVERY_MS_MAX)),
            ),
            ("changes in one call to the catalogue", number(APPLY_BATCH_MAX)),
            ("refusals before a change becomes a dead letter", format!("{} in a row", sinks::DELIVERY_ATTEMPTS_MAX)),
            (
                "backoff of a failing sink",
                format!(
                    "{} that doubles, at most {}; after {} of failures it is switched off",
                    time(sinks::BACKOFF_BASE_MS),
                    time(sinks::BACKOFF_CAP_MS),
                    time(sinks::FAILING_MS_MAX)
                ),
            ),
            ("time for sinks behind a step", format!("no delivery begins later than {turn} after the step")),
            (
                "dead letters of a sink",
                format!(
                    "{}, and {} bytes of them",
                    number(dead_letters::DEAD_LETTERS_MAX),
                    number(dead_letters::DEAD_LETTERS_BYTES_MAX)
                ),
            ),
            ("reason of a dead letter", format!("{} characters", number(dead_letters::REASON_CHARS_MAX))),
        ],
    );
}

#[test]
fn of_a_job() {
    let exchange = |limits: ExchangeLimits| {
        format!("an answer of at most {}, within {}", bytes(limits.body_bytes_max), time(limits.timeout_ms))
    };
    let retry = RetryPolicy::DEFAULT;
    check(
        "limits of a job",
        &[
            (
                "page of a listing",
                format!("{} keys; {}", number(source::PAGE_KEYS), exchange(ExchangeLimits::LIST_PAGE)),
            ),
            ("authorizing", exchange(ExchangeLimits::SMALL)),
            (
                "attempts of a call",
                format!(
                    "{}, with backoff of {} that doubles up to {}; `Retry-After` up to {}",
                    retry.attempts_max,
                    time(retry.backoff_base_ms),
                    time(retry.backoff_cap_ms),
                    time(retry.retry_after_max_ms)
                ),
            ),
            (
                "failed steps in a row that fail the job",
                format!(
                    "{}; backoff of {} that doubles, at most {}",
                    coordinator::STEP_FAILURES_MAX,
                    time(coordinator::STEP_BACKOFF_BASE_MS),
                    time(coordinator::STEP_BACKOFF_CAP_MS)
                ),
            ),
            ("age of a cached account", time(coordinator::ACCOUNT_MAX_AGE_MS)),
            (
                "slowest polling of a failing sync",
                format!(
                    "once in {}, or its interval if that is longer",
                    time(coordinator::FAILING_INTERVAL_S_MAX * 1_000)
                ),
            ),
            ("lease of a step", format!("the step's wall time and {}", time(coordinator::LEASE_MARGIN_MS))),
            ("empty pages in a row, although more are announced", number(source::EMPTY_PAGES_MAX)),
            (
                "call to a shard",
                format!(
                    "{} pages, {} of complete pieces, or {}",
                    ranges::PAGES_MAX,
                    bytes(ranges::ANSWER_BYTES_MAX),
                    time(ranges::CALL_MS_MAX)
                ),
            ),
        ],
    );
}

#[test]
fn of_the_cron() {
    check(
        "limits of the cron",
        &[
            (
                "syncs that one tick pokes",
                format!(
                    "{}; {} with a `STEP_BUDGET` of at most {} requests, as `free` has",
                    number(watchdog::POKES_MAX),
                    number(watchdog::POKES_MAX_FREE),
                    watchdog::FREE_PLAN_REQUESTS
                ),
            ),
            ("parts of a tick, each with the calls of an invocation", number(watchdog::PARTS_MAX as u64)),
            ("coordinators that a part pokes at the same time", number(watchdog::POKES_IN_FLIGHT)),
            ("answers noted in one call", number(watchdog::POKES_NOTED_AT_ONCE)),
            ("wait after a coordinator did not answer", time(watchdog::POKE_FAILED_MS as u64)),
            ("time that an archived connection is kept", time(watchdog::ARCHIVED_KEPT_MS as u64)),
        ],
    );
}

#[test]
fn of_snapshots() {
    let usual = Thresholds::USUAL;
    check(
        "limits of snapshots",
        &[
            ("key", format!("{}, UTF-8", bytes(codec::KEY_BYTES_MAX))),
            (
                "segment",
                format!(
                    "{} entries on average, at most {}; about {}",
                    number(cut::SEGMENT_ENTRIES_MEAN),
                    number(cut::SEGMENT_ENTRIES_MAX),
                    bytes(cut::SEGMENT_BYTES_MAX)
                ),
            ),
            (
                "leaf of the index",
                format!("{} segments on average, at most {}", cut::LEAF_SEGMENTS_MEAN, cut::LEAF_SEGMENTS_MAX),
            ),
            (
                "portion that a job stores at a time",
                format!("{} changes or {} of segments", number(usual.flush_changes_min), bytes(usual.flush_bytes_min)),
            ),
            ("deletions held in memory", format!("{}; more go into blobs", number(usual.deletions_held_max))),
            (
                "list that the document itself holds",
                format!("{} items or {} of keys", usual.tail_items_max, bytes(usual.list_bytes_max)),
            ),
            ("open segment that the document itself holds", bytes(usual.tail_bytes_max)),
            (
                "pieces that wait in memory for earlier ranges",
                format!("{}; about 24 MiB at worst", bytes(lanes::WAITING_BYTES_MAX)),
            ),
            ("job held in memory between two steps", bytes(usual.held_bytes_max)),
            ("leaves that a step must pass for a bookmark", number(usual.bookmark_leaves_min)),
        ],
    );
}

/// What other pages say of these limits in passing.
#[test]
fn in_passing() {
    let one_to = |max: u64| format!("1 to {}", number(max));
    let deletions = DeletionLimit::default();
    for (field, parts) in [
        (
            "polling_interval_seconds",
            vec![number(INTERVAL_S.0), format!("{} to {}", INTERVAL_S.1, number(INTERVAL_S.2))],
        ),
        ("feed_retention_hours", {
            vec![number(registry::FEED_RETENTION_HOURS), one_to(registry::FEED_RETENTION_HOURS_MAX.into())]
        }),
        ("max_class_c_per_day", vec![one_to(CLASS_C_MAX)]),
        ("deletion_limit", {
            let default = format!("{{\"percent\": {}, \"files\": {}}}", deletions.percent, deletions.files);
            vec![default, format!("0 to {DELETION_PERCENT_MAX}"), format!("0 to {}", number(DELETION_FILES_MAX))]
        }),
        ("sync_concurrency", {
            let streams = format!("up to {}", meter::STREAMS_HERE_MAX);
            vec![one_to(CONCURRENCY_MAX), number(coordinator::STREAM_FILES), streams]
        }),
        ("description", vec![format!("at most {} characters", body::DESCRIPTION_CHARS_MAX)]),
        ("metadata", vec![format!("at most {} as JSON", bytes(body::METADATA_BYTES_MAX))]),
    ] {
        let row = row("sync-fields.md", "## What you set", field);
        for part in parts {
            assert!(row.contains(&part), "sync-fields.md: the row {field} does not say {part:?}");
        }
    }
    let batch = row("sync-fields.md", "### Stored and returned unchanged", "batch_size");
    assert!(batch.contains(&format!("| {} | {} to {} |", BATCH.0, BATCH.1, BATCH.2)), "{batch}");
    let retry = RetryPolicy::DEFAULT;
    for (page, parts) in [
        (
            "http-api.md",
            vec![
                format!("at most {}", bytes(body::BODY_BYTES_MAX)),
                format!("and {} levels of", nesting::NESTING_MAX),
                format!("at most {} bytes", routes::SEGMENT_BYTES_MAX),
                format!("1 to {} characters) keeps target buckets", request::NAMESPACE_CHARS_MAX),
                format!("1 to {}, default {}.", number(pagination::PAGE_MAX), pagination::PAGE_DEFAULT),
                format!("at most {};", number(pagination::OFFSET_MAX)),
                format!("1 to {}, default {}", number(feed::read::PAGE_CHANGES_MAX), changes::LIMIT_DEFAULT),
                format!("at most {}. The answer comes", coordinator::WAIT_MS_MAX / 1_000),
                format!("that many seconds (0 to {})", coordinator::WAIT_MS_MAX / 1_000),
                format!("at most {} in a request", number(registry::SYNCS_ASKED_MAX)),
                format!("{} to {} characters; unique", 1, connections::NAME_CHARS_MAX),
                format!("the latest {} jobs.", coordinator::JOBS_KEPT_MAX),
                format!("at most {} of them", number(jobs::ARCHIVED_JOBS_MAX)),
            ],
        ),
        (
            "errors.md",
            vec![
                format!("up to {} times", retry.attempts_max),
                format!("(up to {}; a longer one", time(retry.retry_after_max_ms)),
                format!("(up to {}).", time(coordinator::STEP_BACKOFF_CAP_MS)),
                format!("are tried up to {} times", INTERACTIVE.attempts_max),
                format!("up to {} characters", body::KEY_CHARS_MAX),
            ],
        ),
    ] {
        let text = read(page).split_whitespace().collect::<Vec<_>>().join(" ");
        for part in parts {
            assert!(text.contains(&part), "{page} does not say {part:?}");
        }
    }
}
