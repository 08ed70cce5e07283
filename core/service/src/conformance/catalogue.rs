//! A catalogue as a sink that the core's suite can judge.

use b2sync_core::{
    change::Change,
    conformance::sink::ReadableSink,
    entry::Entry,
    error::Error,
    sink::{Delivery, Sink},
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use b2sync_core::{
        conformance::sink::{SYNC_ID, sink_conformance},
        time::{Clock, Timestamp},
    };
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
        block_on(sink_conformance(async || {
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
        }))
        .unwrap();
    }
}
