//! What every [`Sink`] must do, and what somebody sees who reads behind it.
//!
//! The engine delivers at least once: a batch whose answer was lost, or whose step was cut off, is delivered again as a
//! whole, in the same order and under the same ids. A sink is judged by what its reader sees in the end.

use std::collections::BTreeMap;

use super::{Outcome, check, named};
use crate::{
    entry::Entry,
    error::Error,
    sink::{Change, ChangeKind, Delivery, MemorySink, Sink},
    snapshot::Known,
    time::Timestamp,
};

/// The sync whose changes the checks deliver. A sink that must know its sync is made for this one.
pub const SYNC_ID: &str = "sync_conformance";
/// The most changes that a check delivers in one batch, whatever the sink would take.
const BATCH_MAX: usize = 1_000;

/// A sink, together with what somebody sees who reads behind it.
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
    named("a version may come back", a_version_may_come_back(&new().await)).await?;
    named("the kind may be wrong", the_kind_may_be_wrong(&new().await)).await?;
    named("keys are apart", keys_are_apart(&new().await)).await?;
    named("a full batch is taken", a_full_batch_is_taken(&new().await)).await
}

/// The `version`th version of a key.
fn entry(key: &str, version: u64) -> Entry {
    Entry {
        key: key.to_owned(),
        etag: format!("etag-{version}"),
        // From nothing to what B2 takes at most, 10 TB; from before 1970 to after it.
        size: [0, 1, 10_000_000_000_000].get(version as usize % 3).copied().unwrap_or_default(),
        last_modified: Timestamp::from_millis(version as i64 * 1_700_000_000_123 - 5),
    }
}

fn created(key: &str, version: u64) -> Change {
    Change::appeared(SYNC_ID, ChangeKind::Created, entry(key, version))
}

fn updated(key: &str, version: u64) -> Change {
    Change::appeared(SYNC_ID, ChangeKind::Updated, entry(key, version))
}

fn deleted(key: &str, version: u64) -> Change {
    Change::deleted(SYNC_ID, Known::from(&entry(key, version)))
}

/// Delivers as the engine does, in batches of at most [`Sink::batch_max`]: every change is taken.
async fn deliver(sink: &impl Sink, changes: &[Change]) -> Outcome {
    for batch in changes.chunks(sink.batch_max().clamp(1, BATCH_MAX)) {
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
    for count in 1..=sink.batch_max().min(5) {
        let batch: Vec<_> = (0..count).map(|index| created(&format!("{count}/{index}"), 1)).collect();
        check(&format!("{count} changes"), sink.deliver(&batch).await, vec![Delivery::Delivered; count])?;
    }
    Ok(())
}

async fn changes_are_seen(sink: &impl ReadableSink) -> Outcome {
    deliver(sink, &[created("a", 1), created("b", 1), created("c/d.mp4", 2)]).await?;
    sees("created", sink, &[entry("a", 1), entry("b", 1), entry("c/d.mp4", 2)]).await?;
    deliver(sink, &[updated("b", 3), deleted("a", 1)]).await?;
    sees("updated and deleted", sink, &[entry("b", 3), entry("c/d.mp4", 2)]).await?;
    deliver(sink, &[created("a", 4), updated("b", 1)]).await?;
    sees("created again, and back to an older version", sink, &[entry("a", 4), entry("b", 1), entry("c/d.mp4", 2)])
        .await?;
    deliver(sink, &[deleted("a", 4), deleted("b", 1), deleted("c/d.mp4", 2)]).await?;
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
        updated("moved", 2),
        updated("moved", 3),
        created("gone and gone", 1),
        deleted("gone and gone", 1),
        created("gone and gone", 2),
        deleted("gone and gone", 2),
    ];
    deliver(sink, &batch).await?;
    sees("the last change of each key counts", sink, &[entry("back", 2), entry("moved", 3)]).await
}

async fn repetition_is_harmless(sink: &impl ReadableSink) -> Outcome {
    let first = [created("a", 1), created("b", 1), updated("a", 2), created("c", 1)];
    let after_first = [entry("a", 2), entry("b", 1), entry("c", 1)];
    for _ in 0..3 {
        deliver(sink, &first).await?;
        sees("the same batch", sink, &after_first).await?;
    }
    let second = [updated("b", 2), deleted("c", 1), created("d", 1), deleted("d", 1)];
    let after_second = [entry("a", 2), entry("b", 2)];
    for _ in 0..3 {
        deliver(sink, &second).await?;
        sees("the same batch with deletions", sink, &after_second).await?;
    }
    // A step that was cut off behind both delivers both again.
    deliver(sink, &[first, second].concat()).await?;
    sees("everything again", sink, &after_second).await?;
    // And one that was cut off within a batch, the rest of it first here and all of it then.
    let third = [updated("a", 3), deleted("b", 2), created("e", 1)];
    let (_, rest) = third.split_at(1);
    deliver(sink, rest).await?;
    deliver(sink, &third).await?;
    sees("a part, then the whole", sink, &[entry("a", 3), entry("e", 1)]).await
}

async fn a_version_may_come_back(sink: &impl ReadableSink) -> Outcome {
    // A file that is hidden and shown again, or overwritten and restored, comes with the id that it had: only the
    // latest change of a key may be taken for a repetition.
    deliver(sink, &[created("a", 1), updated("b", 1)]).await?;
    deliver(sink, &[deleted("a", 1), updated("b", 2)]).await?;
    sees("gone, and another version", sink, &[entry("b", 2)]).await?;
    deliver(sink, &[created("a", 1), updated("b", 1)]).await?;
    sees("back as they were", sink, &[entry("a", 1), entry("b", 1)]).await?;
    deliver(sink, &[deleted("a", 1), updated("b", 2)]).await?;
    sees("and once more", sink, &[entry("b", 2)]).await
}

async fn the_kind_may_be_wrong(sink: &impl ReadableSink) -> Outcome {
    // The sink and the snapshot may differ by a batch in doubt: what is delivered is what counts.
    deliver(sink, &[updated("a", 1), deleted("b", 1)]).await?;
    sees("updated what was not there, deleted what was not there", sink, &[entry("a", 1)]).await?;
    deliver(sink, &[created("a", 2)]).await?;
    sees("created what was there", sink, &[entry("a", 2)]).await?;
    deliver(sink, &[deleted("a", 7)]).await?;
    sees("deleted in another version", sink, &[]).await
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
    let all: Vec<_> = (1..).zip(keys).map(|(version, key)| created(key, version)).collect();
    deliver(sink, &all).await?;
    let mut current: BTreeMap<_, _> = (1..).zip(keys).map(|(version, key)| (key, entry(key, version))).collect();
    let entries = |current: &BTreeMap<_, Entry>| current.values().cloned().collect::<Vec<_>>();
    sees("all are there", sink, &entries(&current)).await?;
    for (version, key) in (1..).zip(keys) {
        deliver(sink, &[deleted(key, version)]).await?;
        current.remove(key);
        sees(&format!("deleted {key:?} alone"), sink, &entries(&current)).await?;
    }
    Ok(())
}

async fn a_full_batch_is_taken(sink: &impl ReadableSink) -> Outcome {
    let full = sink.batch_max().min(BATCH_MAX);
    let keys: Vec<_> = (0..full).map(|index| format!("{index:04}/{}", "long name ".repeat(20))).collect();
    let batch: Vec<_> = keys.iter().map(|key| created(key, 1)).collect();
    check("one answer for each", sink.deliver(&batch).await, vec![Delivery::Delivered; full])?;
    let wanted: Vec<_> = keys.iter().map(|key| entry(key, 1)).collect();
    sees("all of it", sink, &wanted).await?;
    let batch: Vec<_> = keys.iter().map(|key| deleted(key, 1)).collect();
    check("one answer for each", sink.deliver(&batch).await, vec![Delivery::Delivered; full])?;
    sees("nothing is left", sink, &[]).await
}
