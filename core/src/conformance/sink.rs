//! What every [`Sink`] must do, and what a reader behind it sees.
//!
//! A sink gets the changes of a feed in the order of their positions. Delivery is at least once: when an answer is
//! lost, a step is cut off or a cursor is moved back, changes come again from an earlier position, with the same
//! positions, ids and contents, and in batches that may end elsewhere than before; then the feed goes on to its end. So
//! what counts is what the reader sees once the sink has been given the last position. What goes and comes back has new
//! positions and new ids.

use std::{cell::Cell, collections::BTreeMap};

use super::{Outcome, check, named};
use crate::{
    change::{Change, Found, Previous, change_id},
    entry::Entry,
    error::Error,
    sink::{Delivery, MemorySink, Sink},
    snapshot::Known,
    time::Timestamp,
};

/// The sync whose changes the checks deliver. A sink that must know its sync is made for this one.
pub const SYNC_ID: &str = "sync_conformance";
/// The most changes that a check delivers in one batch, whatever the sink would take.
const BATCH_MAX: usize = 1_000;

/// A sink, together with what a reader behind it sees.
pub trait ReadableSink: Sink {
    /// The current version of every key, once each, in any order. A sink that only passes changes on answers what a
    /// receiver has who applied them in the order of their delivery.
    ///
    /// # Errors
    /// As the reader's own.
    async fn current(&self) -> Result<Vec<Entry>, Error>;
}

impl ReadableSink for MemorySink {
    async fn current(&self) -> Result<Vec<Entry>, Error> {
        Ok(MemorySink::current(self).into_values().collect())
    }
}

/// Runs every check, each against a fresh sink that nothing was delivered to.
///
/// # Errors
/// The first rule that is broken, in words, behind the name of its check.
pub async fn sink_conformance<S: ReadableSink>(new: impl AsyncFn() -> S) -> Outcome {
    named("each change has its answer", each_change_has_its_answer(&new().await)).await?;
    named("changes are seen", changes_are_seen(&new().await)).await?;
    named("a batch is applied in its order", a_batch_is_applied_in_its_order(&new().await)).await?;
    named("repetition is harmless", repetition_is_harmless(&new().await)).await?;
    named("repetition may begin and end anywhere", repetition_may_begin_and_end_anywhere(&new)).await?;
    named("a version may come back", a_version_may_come_back(&new().await)).await?;
    named("a feed may begin anywhere", a_feed_may_begin_anywhere(&new().await)).await?;
    named("a file may be handed over again", a_file_may_be_handed_over_again(&new().await)).await?;
    named("keys are apart", keys_are_apart(&new().await)).await?;
    named("a full batch is taken", a_full_batch_is_taken(&new().await)).await
}

const SIZES: [u64; 5] = [0, 1, 10_000_000_000_000, (1 << 53) + 1, i64::MAX as u64];

/// The `version`th version of a key.
fn entry(key: &str, version: u64) -> Entry {
    Entry {
        key: key.to_owned(),
        etag: format!("etag-{version}"),
        // From nothing over what B2 takes at most, 10 TB, to more than a double tells apart; from before 1970 to after
        // it.
        size: SIZES.get(version as usize % SIZES.len()).copied().unwrap_or_default(),
        last_modified: Timestamp::from_millis(version as i64 * 1_700_000_000_123 - 5),
    }
}

fn created(key: &str, version: u64) -> Found {
    Found::Appeared { entry: entry(key, version), previous: None }
}

/// From the version numbered `from` to the one numbered `version`.
fn updated(key: &str, from: u64, version: u64) -> Found {
    let previous = Some(Previous::from(&Known::from(&entry(key, from))));
    Found::Appeared { entry: entry(key, version), previous }
}

fn deleted(key: &str, version: u64) -> Found {
    Found::Vanished(Known::from(&entry(key, version)))
}

fn again(key: &str, version: u64) -> Found {
    Found::Again(entry(key, version))
}

/// Gives changes their positions, one after the other.
struct Feed(Cell<u64>);

impl Feed {
    fn new() -> Self {
        Self::from(1)
    }

    fn from(first: u64) -> Self {
        Self(Cell::new(first))
    }

    /// The changes that come next.
    fn append(&self, found: impl IntoIterator<Item = Found>) -> Vec<Change> {
        let place = |found: Found| {
            let position = self.0.replace(self.0.get() + 1);
            let found_at = Timestamp::from_millis(1_800_000_000_000 + position as i64 / 3);
            found.at(position, change_id(SYNC_ID, position), found_at, "job_conformance")
        };
        found.into_iter().map(place).collect()
    }
}

/// Delivers in batches of at most [`Sink::batch_max`]: every change is taken.
async fn deliver(sink: &impl Sink, changes: &[Change]) -> Outcome {
    deliver_by(sink, changes, BATCH_MAX).await
}

/// As [`deliver`], in batches of at most `most`.
async fn deliver_by(sink: &impl Sink, changes: &[Change], most: usize) -> Outcome {
    for batch in changes.chunks(sink.batch_max().clamp(1, most)) {
        check("one answer for each change", sink.deliver(batch).await, vec![Delivery::Delivered; batch.len()])?;
    }
    Ok(())
}

async fn sees(rule: &str, sink: &impl ReadableSink, wanted: &[Entry]) -> Outcome {
    let mut wanted = wanted.to_vec();
    wanted.sort_by(|a, b| a.key.cmp(&b.key));
    let current = sink.current().await.map(|mut current| {
        current.sort_by(|a, b| a.key.cmp(&b.key));
        current
    });
    check(rule, current, wanted)
}

async fn each_change_has_its_answer(sink: &impl ReadableSink) -> Outcome {
    if sink.batch_max() == 0 {
        return Err("a batch of at least one change is taken: batch_max is 0".to_owned());
    }
    sees("nothing at first", sink, &[]).await?;
    check("no changes, no answers", sink.deliver(&[]).await, Vec::new())?;
    let feed = Feed::new();
    for count in 1..=sink.batch_max().min(5) {
        let batch = feed.append((0..count).map(|index| created(&format!("{count}/{index}"), 1)));
        check(&format!("{count} changes"), sink.deliver(&batch).await, vec![Delivery::Delivered; count])?;
    }
    Ok(())
}

async fn changes_are_seen(sink: &impl ReadableSink) -> Outcome {
    let feed = Feed::new();
    deliver(sink, &feed.append([created("a", 1), created("b", 1), created("c/d.mp4", 2)])).await?;
    sees("created", sink, &[entry("a", 1), entry("b", 1), entry("c/d.mp4", 2)]).await?;
    deliver(sink, &feed.append([updated("b", 1, 3), deleted("a", 1)])).await?;
    sees("updated and deleted", sink, &[entry("b", 3), entry("c/d.mp4", 2)]).await?;
    deliver(sink, &feed.append([created("a", 4), updated("b", 3, 1)])).await?;
    sees("created again, and back to an older version", sink, &[entry("a", 4), entry("b", 1), entry("c/d.mp4", 2)])
        .await?;
    deliver(sink, &feed.append([deleted("a", 4), deleted("b", 1), deleted("c/d.mp4", 2)])).await?;
    sees("nothing is left", sink, &[]).await
}

async fn a_batch_is_applied_in_its_order(sink: &impl ReadableSink) -> Outcome {
    let batch = [
        created("gone", 1),
        created("back", 1),
        deleted("gone", 1),
        deleted("back", 1),
        created("back", 2),
        created("moved", 1),
        updated("moved", 1, 2),
        updated("moved", 2, 3),
        created("gone and gone", 1),
        deleted("gone and gone", 1),
        created("gone and gone", 2),
        deleted("gone and gone", 2),
    ];
    deliver(sink, &Feed::new().append(batch)).await?;
    sees("the last change of each key counts", sink, &[entry("back", 2), entry("moved", 3)]).await
}

async fn repetition_is_harmless(sink: &impl ReadableSink) -> Outcome {
    let feed = Feed::new();
    let first = feed.append([created("a", 1), created("b", 1), updated("a", 1, 2), created("c", 1)]);
    let after_first = [entry("a", 2), entry("b", 1), entry("c", 1)];
    for _ in 0..3 {
        deliver(sink, &first).await?;
        sees("the same batch", sink, &after_first).await?;
    }
    let second = feed.append([updated("b", 1, 2), deleted("c", 1), created("d", 1), deleted("d", 1)]);
    let after_second = [entry("a", 2), entry("b", 2)];
    for _ in 0..3 {
        deliver(sink, &second).await?;
        sees("the same batch with deletions", sink, &after_second).await?;
    }
    // A step that was cut off behind both delivers both again.
    deliver(sink, &[first.clone(), second.clone()].concat()).await?;
    sees("everything again", sink, &after_second).await?;
    // As a step that was cut off within a batch: a part of it, then all of it.
    let third = feed.append([updated("a", 2, 3), deleted("b", 2), created("e", 1)]);
    let (part, _) = third.split_at(2);
    deliver(sink, part).await?;
    deliver(sink, &third).await?;
    sees("a part, then the whole", sink, &[entry("a", 3), entry("e", 1)]).await?;
    deliver(sink, &[first, second, third].concat()).await?;
    sees("a cursor that was moved back to the beginning", sink, &[entry("a", 3), entry("e", 1)]).await
}

/// A history in which each kind follows each other one, some of it of one key. Answers what is current in the end.
fn eventful() -> (Vec<Change>, Vec<Entry>) {
    let found = [
        created("a", 1),
        created("b", 1),
        deleted("a", 1),
        created("a", 1),
        updated("a", 1, 2),
        updated("b", 1, 2),
        deleted("b", 2),
        updated("a", 2, 1),
        created("c", 4),
        again("a", 1),
        created("b", 1),
        deleted("c", 4),
        deleted("a", 1),
        again("b", 1),
        created("d", 1),
        created("c", 5),
    ];
    (Feed::new().append(found), vec![entry("b", 1), entry("c", 5), entry("d", 1)])
}

async fn repetition_may_begin_and_end_anywhere<S: ReadableSink>(new: &impl AsyncFn() -> S) -> Outcome {
    let (all, current) = eventful();
    for most in [1, 2, 3, 5, all.len()] {
        let sink = new().await;
        for until in 1..=all.len() {
            // Up to here it was taken, then the cursor moves back.
            let from = until.saturating_sub(until % 4 * 3);
            deliver_by(&sink, all.get(..until).unwrap_or_default(), most).await?;
            deliver_by(&sink, all.get(from..).unwrap_or_default(), most + 1).await?;
            sees(&format!("up to {until}, then again from {}", from + 1), &sink, &current).await?;
        }
    }
    Ok(())
}

async fn a_version_may_come_back(sink: &impl ReadableSink) -> Outcome {
    // A file that is hidden and shown again, or overwritten and restored, is a change of its own each time.
    let feed = Feed::new();
    deliver(sink, &feed.append([created("a", 1), created("b", 1)])).await?;
    deliver(sink, &feed.append([deleted("a", 1), updated("b", 1, 2)])).await?;
    sees("gone, and another version", sink, &[entry("b", 2)]).await?;
    deliver(sink, &feed.append([created("a", 1), updated("b", 2, 1)])).await?;
    sees("back as they were", sink, &[entry("a", 1), entry("b", 1)]).await?;
    deliver(sink, &feed.append([deleted("a", 1), updated("b", 1, 2)])).await?;
    sees("and once more", sink, &[entry("b", 2)]).await
}

async fn a_feed_may_begin_anywhere(sink: &impl ReadableSink) -> Outcome {
    // A sink that is new to a feed does not have what came before, and what it has may be from another time.
    let feed = Feed::from(1 << 40);
    deliver(sink, &feed.append([updated("a", 7, 1), deleted("b", 1)])).await?;
    sees("updated what was not there, deleted what was not there", sink, &[entry("a", 1)]).await?;
    deliver(sink, &feed.append([created("a", 2)])).await?;
    sees("created what was there", sink, &[entry("a", 2)]).await?;
    deliver(sink, &feed.append([deleted("a", 7)])).await?;
    sees("deleted in another version", sink, &[]).await
}

async fn a_file_may_be_handed_over_again(sink: &impl ReadableSink) -> Outcome {
    let feed = Feed::new();
    deliver(sink, &feed.append([created("a", 1), created("b", 1)])).await?;
    deliver(sink, &feed.append([again("a", 1), again("b", 1)])).await?;
    sees("as they were", sink, &[entry("a", 1), entry("b", 1)]).await?;
    // A reader that lost a file gets it back this way.
    deliver(sink, &feed.append([again("c", 2)])).await?;
    sees("one that was not there", sink, &[entry("a", 1), entry("b", 1), entry("c", 2)]).await
}

async fn keys_are_apart(sink: &impl ReadableSink) -> Outcome {
    let keys = [
        "a",
        "a/",
        "a/b",
        "A",
        " a",
        "a ",
        "a//b",
        "/a",
        "..",
        "a%2Fb",
        "a+b",
        "a'b\"c;--",
        "a\\b",
        "a\nb",
        "a\u{1}b",
        "a_b",
        "a?b*",
        "é",
        "e\u{301}",
        "日本/🎬",
        "\u{d7ff}",
        "\u{e000}",
        "\u{10ffff}",
        "{\"key\":1}",
        "1",
        "null",
    ];
    let feed = Feed::new();
    deliver(sink, &feed.append((1..).zip(keys).map(|(version, key)| created(key, version)))).await?;
    let mut current: BTreeMap<_, _> = (1..).zip(keys).map(|(version, key)| (key, entry(key, version))).collect();
    let entries = |current: &BTreeMap<_, Entry>| current.values().cloned().collect::<Vec<_>>();
    sees("all are there", sink, &entries(&current)).await?;
    for (version, key) in (1..).zip(keys) {
        deliver(sink, &feed.append([deleted(key, version)])).await?;
        current.remove(key);
        sees(&format!("deleted {key:?} alone"), sink, &entries(&current)).await?;
    }
    Ok(())
}

async fn a_full_batch_is_taken(sink: &impl ReadableSink) -> Outcome {
    let full = sink.batch_max().min(BATCH_MAX);
    let keys: Vec<_> = (0..full).map(|index| format!("{index:04}/{}", "long name ".repeat(20))).collect();
    let feed = Feed::new();
    let batch = feed.append(keys.iter().map(|key| created(key, 1)));
    check("one answer for each", sink.deliver(&batch).await, vec![Delivery::Delivered; full])?;
    let wanted: Vec<_> = keys.iter().map(|key| entry(key, 1)).collect();
    sees("all of it", sink, &wanted).await?;
    let batch = feed.append(keys.iter().map(|key| deleted(key, 1)));
    check("one answer for each", sink.deliver(&batch).await, vec![Delivery::Delivered; full])?;
    sees("nothing is left", sink, &[]).await
}
