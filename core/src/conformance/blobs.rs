//! What every [`BlobStore`] must do.
//!
//! Run it where a write is visible at once. A store may also be eventually consistent; that is not judged here, and
//! harmless, because the engine never gives a name a second value.

use bytes::Bytes;

use super::{Outcome, check, check_value, named, noise};
use crate::{snapshot::ContentHash, store::BlobStore};

/// The largest value that every store must take, in bytes: several times the largest segment or index there is.
pub const VALUE_BYTES: usize = 3 << 20;

/// Runs every check, each against a fresh, empty store.
///
/// # Errors
/// The first rule that is broken, in words, behind the name of its check.
pub async fn blob_conformance<B: BlobStore>(new: impl AsyncFn() -> B) -> Outcome {
    named("what is missing is none", missing_is_none(&new().await)).await?;
    named("values are kept", values_are_kept(&new().await)).await?;
    named("storing again is harmless", storing_again_is_harmless(&new().await)).await?;
    named("a large value is kept", a_large_value_is_kept(&new().await)).await?;
    named("deleted is gone", deleted_is_gone(&new().await)).await?;
    named("names are apart", names_are_apart(&new().await)).await
}

/// Names as the engine makes them: `segment/`, `index/` or `scratch/`, and the hash of the value.
fn engine_names(value: &[u8]) -> [String; 3] {
    ["segment", "index", "scratch"].map(|kind| format!("{kind}/{}", ContentHash::of(value)))
}

/// Values that a store may take for text, for nothing, or for the end of something.
fn awkward_values() -> [Bytes; 8] {
    [
        Bytes::new(),
        Bytes::from_static(&[0]),
        Bytes::from_static(b"\0\0\0"),
        Bytes::from_static(b"null"),
        Bytes::from_static(b"\r\n"),
        Bytes::from_static(&[0xef, 0xbb, 0xbf]),
        Bytes::from_static(&[0xff, 0xfe, 0xc3, 0x28, 0x80]),
        (0..=u8::MAX).collect(),
    ]
}

async fn missing_is_none(store: &impl BlobStore) -> Outcome {
    let [segment, ..] = engine_names(b"");
    check_value("no value yet", store.get(&segment).await, None)?;
    check("deleting what is not there is no error", store.delete(&segment).await, ())?;
    check_value("still none", store.get(&segment).await, None)
}

async fn values_are_kept(store: &impl BlobStore) -> Outcome {
    let values = awkward_values();
    for value in &values {
        for name in engine_names(value) {
            check("put", store.put(&name, value.clone()).await, ())?;
        }
    }
    for value in &values {
        for name in engine_names(value) {
            check_value(&format!("get {name}"), store.get(&name).await, Some(value))?;
            check_value(&format!("get {name} once more"), store.get(&name).await, Some(value))?;
        }
    }
    Ok(())
}

async fn storing_again_is_harmless(store: &impl BlobStore) -> Outcome {
    let value = Bytes::from_static(b"b2S\x01\x00");
    let [name, ..] = engine_names(&value);
    for _ in 0..3 {
        check("put", store.put(&name, value.clone()).await, ())?;
        check_value("get", store.get(&name).await, Some(&value))?;
    }
    check("delete", store.delete(&name).await, ())?;
    check_value("stored three times, deleted once: gone", store.get(&name).await, None)
}

async fn a_large_value_is_kept(store: &impl BlobStore) -> Outcome {
    let value = noise(VALUE_BYTES);
    let [name, ..] = engine_names(&value);
    check("put", store.put(&name, value.clone()).await, ())?;
    check_value("get", store.get(&name).await, Some(&value))?;
    check("delete", store.delete(&name).await, ())?;
    check_value("deleted", store.get(&name).await, None)
}

async fn deleted_is_gone(store: &impl BlobStore) -> Outcome {
    let (one, other) = (Bytes::from_static(b"one"), Bytes::from_static(b"other"));
    let ([one_name, ..], [other_name, ..]) = (engine_names(&one), engine_names(&other));
    check("put", store.put(&one_name, one.clone()).await, ())?;
    check("put", store.put(&other_name, other.clone()).await, ())?;
    check("delete", store.delete(&one_name).await, ())?;
    check_value("deleted", store.get(&one_name).await, None)?;
    check_value("the other stays", store.get(&other_name).await, Some(&other))?;
    check("delete again", store.delete(&one_name).await, ())?;
    // A job that was cut off stores the blob again that another had retired.
    check("put what was deleted", store.put(&one_name, one.clone()).await, ())?;
    check_value("there again", store.get(&one_name).await, Some(&one))
}

async fn names_are_apart(store: &impl BlobStore) -> Outcome {
    // Each is the beginning of another, or the same to a store that folds case, decodes or splits.
    let names = [
        "segment",
        "segment/",
        "segment/a",
        "segment/ab",
        "segment/a/b",
        "segment/A",
        "segment%2Fa",
        "segment_a",
        "segment/*",
        "segment/a b",
        "segment/a+b",
        "segment/é",
        "segment/e\u{301}",
        "segmen",
    ];
    for name in names {
        check(&format!("put {name}"), store.put(name, Bytes::from(format!("of {name}"))).await, ())?;
    }
    for name in names {
        check_value(&format!("get {name}"), store.get(name).await, Some(format!("of {name}").as_bytes()))?;
    }
    for (deleted, name) in names.into_iter().enumerate() {
        check(&format!("delete {name}"), store.delete(name).await, ())?;
        for (index, other) in names.into_iter().enumerate() {
            let value = format!("of {other}");
            let wanted = (index > deleted).then_some(value.as_bytes());
            check_value(&format!("get {other} after deleting {name}"), store.get(other).await, wanted)?;
        }
    }
    Ok(())
}
