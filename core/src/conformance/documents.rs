//! What every [`DocumentStore`] must do.

use bytes::Bytes;

use super::{Outcome, Racer, check, check_value, named, noise, race};
use crate::{
    error::Error,
    store::{Document, DocumentStore, Swapped},
};

/// The largest document that every store must take, in bytes. The engine moves what is larger than half of it into
/// blobs.
pub const VALUE_BYTES: usize = 1 << 20;

/// Runs every check, each against a fresh, empty store.
///
/// # Errors
/// The first rule that is broken, in words, behind the name of its check.
pub async fn document_conformance<D: DocumentStore>(new: impl AsyncFn() -> D) -> Outcome {
    named("what is missing is none", missing_is_none(&new().await)).await?;
    named("revisions count", revisions_count(&new().await)).await?;
    named("another revision is a conflict", another_revision_is_a_conflict(&new().await)).await?;
    named("a deletion leaves the revision", a_deletion_leaves_the_revision(&new().await)).await?;
    named("values are kept", values_are_kept(&new().await)).await?;
    named("names are apart", names_are_apart(&new().await)).await?;
    named("one of several creations wins", one_of_several_wins(&new().await, Start::Missing)).await?;
    named("one of several updates wins", one_of_several_wins(&new().await, Start::Present)).await?;
    named("one of several revivals wins", one_of_several_wins(&new().await, Start::Deleted)).await
}

const NAME: &str = "snapshot";

fn text(value: &str) -> Bytes {
    Bytes::copy_from_slice(value.as_bytes())
}

fn document(revision: u64, value: &str) -> Option<Document> {
    Some(Document { revision, value: text(value) })
}

async fn missing_is_none(store: &impl DocumentStore) -> Outcome {
    check("none yet", store.load(NAME).await, None)?;
    check("its revision", store.revision(NAME).await, 0)?;
    for expected in [1, 2, u64::MAX] {
        check("an update of nothing", store.swap(NAME, expected, Some(text("x"))).await, Swapped::Conflict)?;
        check("a deletion of nothing", store.swap(NAME, expected, None).await, Swapped::Conflict)?;
    }
    check("nothing was written", store.load(NAME).await, None)?;
    check("and nothing was counted", store.swap(NAME, 0, Some(text("x"))).await, Swapped::Done(1))
}

async fn revisions_count(store: &impl DocumentStore) -> Outcome {
    check("a creation", store.swap(NAME, 0, Some(text("a"))).await, Swapped::Done(1))?;
    check("is read", store.load(NAME).await, document(1, "a"))?;
    check("an update", store.swap(NAME, 1, Some(text("b"))).await, Swapped::Done(2))?;
    check("is read", store.load(NAME).await, document(2, "b"))?;
    check("the same value counts", store.swap(NAME, 2, Some(text("b"))).await, Swapped::Done(3))?;
    check("is read", store.load(NAME).await, document(3, "b"))?;
    for revision in 3..20 {
        let value = format!("value {revision}");
        check("each counts", store.swap(NAME, revision, Some(text(&value))).await, Swapped::Done(revision + 1))?;
        check("and is read", store.load(NAME).await, document(revision + 1, &value))?;
        check("and its revision alone", store.revision(NAME).await, revision + 1)?;
    }
    Ok(())
}

async fn another_revision_is_a_conflict(store: &impl DocumentStore) -> Outcome {
    check("create", store.swap(NAME, 0, Some(text("a"))).await, Swapped::Done(1))?;
    check("update", store.swap(NAME, 1, Some(text("b"))).await, Swapped::Done(2))?;
    for expected in [0, 1, 3, u64::from(u32::MAX), i64::MAX as u64, u64::MAX] {
        check(
            &format!("an update from {expected}"),
            store.swap(NAME, expected, Some(text("lost"))).await,
            Swapped::Conflict,
        )?;
        check(&format!("a deletion from {expected}"), store.swap(NAME, expected, None).await, Swapped::Conflict)?;
        check("nothing was written", store.load(NAME).await, document(2, "b"))?;
    }
    check("and nothing was counted", store.swap(NAME, 2, Some(text("c"))).await, Swapped::Done(3))
}

async fn a_deletion_leaves_the_revision(store: &impl DocumentStore) -> Outcome {
    check("create", store.swap(NAME, 0, Some(text("a"))).await, Swapped::Done(1))?;
    check("delete", store.swap(NAME, 1, None).await, Swapped::Done(2))?;
    check("deleted", store.load(NAME).await, None)?;
    check("has no revision", store.revision(NAME).await, 0)?;
    // A caller that held it before the deletion must not find its revision again.
    for expected in [1, 2, 3] {
        check("an update of what is deleted", store.swap(NAME, expected, Some(text("x"))).await, Swapped::Conflict)?;
        check("a deletion of what is deleted", store.swap(NAME, expected, None).await, Swapped::Conflict)?;
    }
    check("still deleted", store.load(NAME).await, None)?;
    check("a new creation counts on", store.swap(NAME, 0, Some(text("b"))).await, Swapped::Done(3))?;
    check("is read", store.load(NAME).await, document(3, "b"))?;
    check("exists: no creation", store.swap(NAME, 0, Some(text("c"))).await, Swapped::Conflict)?;
    check("deleted again", store.swap(NAME, 3, None).await, Swapped::Done(4))?;
    check("a deletion of nothing counts as well", store.swap(NAME, 0, None).await, Swapped::Done(5))?;
    check("there is none", store.load(NAME).await, None)?;
    check("counted on", store.swap(NAME, 0, Some(text("d"))).await, Swapped::Done(6))?;
    check("is read", store.load(NAME).await, document(6, "d"))
}

async fn values_are_kept(store: &impl DocumentStore) -> Outcome {
    let values = [
        text("{\"v\":1}"),
        Bytes::from_static(&[0]),
        Bytes::from_static(b"a\0b\r\n"),
        Bytes::from_static(&[0xff, 0xc3, 0x28]),
        (0..=u8::MAX).collect(),
        noise(VALUE_BYTES),
        // Last, so that the checks below find it: nothing in it, and yet a document.
        Bytes::new(),
    ];
    let mut revision = 0;
    for value in values {
        check("swap", store.swap(NAME, revision, Some(value.clone())).await, Swapped::Done(revision + 1))?;
        revision += 1;
        let loaded = store.load(NAME).await;
        check("the revision", loaded.clone().map(|found| found.map(|found| found.revision)), Some(revision))?;
        check_value("the value", loaded.map(|found| found.map(|found| found.value)), Some(&value))?;
    }
    check("an empty document exists", store.swap(NAME, 0, Some(text("x"))).await, Swapped::Conflict)?;
    check("and can be deleted", store.swap(NAME, revision, None).await, Swapped::Done(revision + 1))?;
    check("deleted", store.load(NAME).await, None)
}

async fn names_are_apart(store: &impl DocumentStore) -> Outcome {
    let names = ["snapshot", "snapshot2", "snap", "SNAPSHOT", "snapshot/a", "snapshot%2Fa", "coordinator", "a'b\"c;--"];
    for (writes, name) in (1..).zip(names) {
        for revision in 0..writes {
            check("swap", store.swap(name, revision, Some(text(name))).await, Swapped::Done(revision + 1))?;
        }
    }
    for (writes, name) in (1..).zip(names) {
        check(&format!("load {name}"), store.load(name).await, document(writes, name))?;
    }
    check("delete one", store.swap("snapshot", 1, None).await, Swapped::Done(2))?;
    check("deleted", store.load("snapshot").await, None)?;
    for (writes, name) in (1..).zip(names).skip(1) {
        check(&format!("load {name}"), store.load(name).await, document(writes, name))?;
    }
    Ok(())
}

/// What stands there before a race.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    Missing,
    Present,
    Deleted,
}

/// Several have read the same revision, and swap at once: one alone is told that it wrote, and what it wrote is there.
async fn one_of_several_wins(store: &impl DocumentStore, start: Start) -> Outcome {
    let mut before = 0;
    if start != Start::Missing {
        check("create", store.swap(NAME, 0, Some(text("first"))).await, Swapped::Done(1))?;
        before = 1;
    }
    if start == Start::Deleted {
        check("delete", store.swap(NAME, 1, None).await, Swapped::Done(2))?;
        before = 2;
    }
    let mut values = vec![Some(text("a")), Some(text("b")), Some(text("c"))];
    let mut expected = 0;
    if start == Start::Present {
        // Nothing is what a creation expects, so only here may a deletion take part: it would let another win as well.
        values.insert(1, None);
        expected = before;
    }
    let racers = values.iter().map(|value| -> Racer<'_, Result<Swapped, Error>> {
        Box::pin(async move { store.swap(NAME, expected, value.clone()).await })
    });
    let mut winner = None;
    for (value, answer) in values.iter().zip(race(racers.collect()).await) {
        match answer {
            Ok(Swapped::Conflict) => {}
            Ok(Swapped::Done(revision)) if winner.is_none() => winner = Some((revision, value)),
            other => return Err(format!("one wins, and the others are told so: got {other:?} for {value:?}")),
        }
    }
    let Some((revision, value)) = winner else { return Err("one wins: got none".to_owned()) };
    check("it counts once", Ok(revision), before + 1)?;
    let wanted = value.clone().map(|value| Document { revision, value });
    check("the winner's value is there", store.load(NAME).await, wanted)
}
