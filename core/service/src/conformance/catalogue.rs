//! A catalogue as a sink that the core's suite can judge, and what it must do when objects are removed.

use b2sync_core::{
    change::{Change, ChangeKind, change_id},
    conformance::{
        Outcome, check,
        sink::{ReadableSink, SYNC_ID},
    },
    entry::Entry,
    error::Error,
    ids,
    sink::{Delivery, Sink},
    time::Timestamp,
};

use crate::catalogue::{ObjectQuery, Objects};

/// How many objects [`CatalogueReader`] asks for at a time: few, so that a check needs several pages.
const PAGE_OBJECTS: u32 = 3;

/// A sink that delivers into a catalogue, and the API's view of that catalogue.
#[derive(Clone, Debug)]
pub struct CatalogueReader<S, O> {
    /// Delivers the changes of [`SYNC_ID`](b2sync_core::conformance::sink::SYNC_ID) to the bucket below.
    pub sink: S,
    /// Reads it.
    pub objects: O,
    /// The bucket's namespace.
    pub namespace_id: String,
    /// The target bucket.
    pub bucket_id: String,
}

impl<S: Sink, O> Sink for CatalogueReader<S, O> {
    fn batch_max(&self) -> usize {
        self.sink.batch_max()
    }

    async fn deliver(&self, changes: &[Change]) -> Result<Vec<Delivery>, Error> {
        self.sink.deliver(changes).await
    }
}

impl<S: Sink, O: Objects> ReadableSink for CatalogueReader<S, O> {
    async fn current(&self) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        let mut query = ObjectQuery {
            namespace_id: self.namespace_id.clone(),
            bucket_id: self.bucket_id.clone(),
            limit: PAGE_OBJECTS,
            offset: 0,
            cursor: None,
            prefix: None,
            include_total: false,
        };
        loop {
            let page = self.objects.list(&query).await?;
            entries.extend(page.objects.into_iter().map(|object| Entry {
                key: object.key,
                etag: object.etag,
                size: object.size,
                last_modified: object.last_modified,
            }));
            match page.next {
                Some(next) => query.cursor = Some(next),
                None => return Ok(entries),
            }
        }
    }
}

impl<S: Sink, O: Objects> CatalogueReader<S, O> {
    /// Delivers these changes of keys, the first at the position `first`.
    async fn deliver_all(&self, first: u64, changes: &[(ChangeKind, &str)]) -> Outcome {
        let place = |(position, (kind, key)): (u64, &(ChangeKind, &str))| Change {
            position,
            id: change_id(SYNC_ID, position),
            kind: *kind,
            entry: Entry {
                key: (*key).to_owned(),
                etag: format!("etag-{position}"),
                size: position,
                last_modified: Timestamp::from_millis(5),
            },
            previous: None,
            again: false,
            found_at: Timestamp::from_millis(7),
            job_id: "job_conformance".to_owned(),
        };
        let changes: Vec<Change> = (first..).zip(changes).map(place).collect();
        check("changes are taken", self.deliver(&changes).await, vec![Delivery::Delivered; changes.len()])
    }

    /// The version of each key that has an object, in the order of the keys.
    async fn versions(&self, keys: &[&str]) -> Result<Vec<Option<u32>>, Error> {
        let mut versions = Vec::new();
        for key in keys {
            let id = ids::object_id(SYNC_ID, key);
            let object = self.objects.get(&self.namespace_id, &self.bucket_id, &id).await?;
            versions.push(object.map(|object| object.version));
        }
        Ok(versions)
    }

    async fn remove(&self, key: &str) -> Result<bool, Error> {
        self.objects.remove(&self.namespace_id, &self.bucket_id, &ids::object_id(SYNC_ID, key)).await
    }

    async fn count(&self, sync_id: &str) -> Result<u64, Error> {
        self.objects.count_of_sync(&self.namespace_id, &self.bucket_id, sync_id).await
    }

    async fn clear(&self, sync_id: &str) -> Result<u64, Error> {
        self.objects.clear_sync(&self.namespace_id, &self.bucket_id, sync_id).await
    }
}

/// Changes of two keys: both are created, and one is updated.
const TWO_KEYS: [(ChangeKind, &str); 3] =
    [(ChangeKind::Created, "a"), (ChangeKind::Created, "b"), (ChangeKind::Updated, "a")];

/// Runs every check of how objects are removed, each against a fresh catalogue that nothing was delivered to.
///
/// # Errors
/// The first rule that is broken, in words.
pub async fn removal_conformance<S: Sink, O: Objects>(new: impl AsyncFn() -> CatalogueReader<S, O>) -> Outcome {
    one_object_is_removed(&new().await).await?;
    the_objects_of_a_sync_are_removed(&new().await).await?;
    a_deleted_sync_delivers_nothing_more(&new().await).await
}

async fn one_object_is_removed<S: Sink, O: Objects>(catalogue: &CatalogueReader<S, O>) -> Outcome {
    let keys = ["a", "b"];
    catalogue.deliver_all(1, &TWO_KEYS).await?;
    check("each key has an object", catalogue.versions(&keys).await, vec![Some(2), Some(1)])?;
    check("an object is removed", catalogue.remove("a").await, true)?;
    check("an object is removed once", catalogue.remove("a").await, false)?;
    check("what was never there is not removed", catalogue.remove("c").await, false)?;
    check("no other is removed", catalogue.versions(&keys).await, vec![None, Some(1)])?;
    catalogue.deliver_all(1, &TWO_KEYS).await?;
    check("a replay does not bring it back", catalogue.versions(&keys).await, vec![None, Some(1)])?;
    check("both are removed", catalogue.remove("b").await, true)?;
    let next = [(ChangeKind::Updated, "a"), (ChangeKind::Deleted, "b"), (ChangeKind::Updated, "a")];
    catalogue.deliver_all(4, &next).await?;
    check("the next change creates it again, as version 1", catalogue.versions(&keys).await, vec![Some(2), None])
}

async fn the_objects_of_a_sync_are_removed<S: Sink, O: Objects>(catalogue: &CatalogueReader<S, O>) -> Outcome {
    check("there is none", catalogue.clear(SYNC_ID).await, 0)?;
    catalogue.deliver_all(1, &TWO_KEYS).await?;
    check("objects of a sync are counted", catalogue.count(SYNC_ID).await, 2)?;
    check("another sync has none", catalogue.count("sync_other").await, 0)?;
    check("another sync loses none", catalogue.clear("sync_other").await, 0)?;
    check("all of a sync are removed", catalogue.clear(SYNC_ID).await, 2)?;
    check("all are removed once", catalogue.clear(SYNC_ID).await, 0)?;
    catalogue.deliver_all(1, &TWO_KEYS).await?;
    check("a replay brings none back", catalogue.count(SYNC_ID).await, 0)?;
    catalogue.deliver_all(4, &[(ChangeKind::Updated, "a")]).await?;
    check("what is delivered later is taken", catalogue.versions(&["a", "b"]).await, vec![Some(1), None])
}

async fn a_deleted_sync_delivers_nothing_more<S: Sink, O: Objects>(catalogue: &CatalogueReader<S, O>) -> Outcome {
    catalogue.deliver_all(1, &TWO_KEYS).await?;
    let dropped = catalogue.objects.drop_sync(&catalogue.namespace_id, &catalogue.bucket_id, SYNC_ID).await;
    check("all of a sync are removed with it", dropped, 2)?;
    catalogue.deliver_all(4, &[(ChangeKind::Created, "a")]).await?;
    check("a delivery that comes late is passed over", catalogue.count(SYNC_ID).await, 0)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use b2sync_core::{conformance::sink::sink_conformance, time::Clock};
    use pollster::block_on;

    use super::*;
    use crate::catalogue::{CatalogueTarget, MemoryCatalogue, RemoteObjects};

    struct Stopped;

    impl Clock for Stopped {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(1_700_000_000_000)
        }

        async fn sleep(&self, _millis: u64) {}
    }

    #[test]
    fn the_catalogue_in_memory_conforms() {
        let catalogues: Vec<_> = (0..32).map(|_| MemoryCatalogue::new()).collect();
        let unused = RefCell::new(catalogues.iter());
        let new = async || {
            let catalogue = unused.borrow_mut().next().unwrap();
            let target = CatalogueTarget {
                bucket_id: "bkt".into(),
                sync_id: SYNC_ID.into(),
                connection_id: "conn_a".into(),
                source_bucket: "media".into(),
            };
            CatalogueReader {
                sink: catalogue.sink("ns", target, Stopped),
                objects: RemoteObjects(async |namespace_id: &str, bucket_id: &str, call| {
                    catalogue.call(namespace_id, bucket_id, call)
                }),
                namespace_id: "ns".into(),
                bucket_id: "bkt".into(),
            }
        };
        block_on(sink_conformance(&new)).unwrap();
        block_on(removal_conformance(&new)).unwrap();
    }
}
