//! The Worker's Durable Objects on workerd, held to the contracts that the core states for every home.

use std::cell::Cell;

use b2sync_core::change::ChangeKind;
use b2sync_core::conformance::sink::{SYNC_ID, sink_conformance};
use b2sync_core::error::Error;
use b2sync_core::error_wire::ErrorWire;
use b2sync_core::time::Timestamp;
use b2sync_service::catalogue::{
    APPLY_BATCH_MAX, CatalogueAnswer, CatalogueApply, CatalogueCall, CatalogueSink, CatalogueTarget, ChangeWire,
    MemoryCatalogue, ObjectCursor, ObjectQuery, RemoteObjects,
};
use b2sync_service::conformance::catalogue::{CatalogueReader, removal_conformance};
use b2sync_service::conformance::registry::registry_conformance;
use b2sync_service::registry::{Channel, RegistryCall, RemoteRegistry};
use b2sync_tests::virtual_world::{SeededEntropy, VirtualClock};
use b2sync_tests::workerd::{Bundle, Workerd, WorkerdConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn std::error::Error>>;

const NAMESPACE: &str = "ns";
const BUCKET: &str = "bkt";

#[test]
fn the_registry_does_what_every_registry_must() -> Outcome {
    let folder = TempDir::new()?;
    let workerd = Workerd::start(WorkerdConfig::new(folder.path()))?;
    let registries = Cell::new(0);
    pollster::block_on(registry_conformance(async || {
        registries.set(registries.get() + 1);
        RemoteRegistry(RegistryObject { workerd: &workerd, name: format!("registry-{}", registries.get()) })
    }))?;
    assert!(registries.get() > 0);
    Ok(())
}

/// One registry object.
struct RegistryObject<'a> {
    workerd: &'a Workerd,
    name: String,
}

impl Channel for RegistryObject<'_> {
    async fn call<T: DeserializeOwned>(&self, call: &RegistryCall) -> Result<T, Error> {
        ask(self.workerd, "REGISTRY", &self.name, call)
    }
}

/// Calls a Durable Object of the Worker.
fn ask<T: DeserializeOwned>(workerd: &Workerd, binding: &str, name: &str, call: &impl Serialize) -> Result<T, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::internal(error.to_string());
    let call = serde_json::to_string(call).map_err(|error| failed(&error))?;
    let text = workerd.object(binding, name, &call).map_err(|error| failed(&error))?;
    let answer: Result<T, ErrorWire> = serde_json::from_str(&text).map_err(|error| failed(&error))?;
    answer.map_err(Error::from)
}

/// The suites run inside workerd, on the Worker's own adapters: see `tests/worker-conformance`.
fn suite_inside_workerd(suite: &str) -> Outcome {
    let folder = TempDir::new()?;
    let workerd = Workerd::start(WorkerdConfig::new(folder.path()).bundle(Bundle::Conformance))?;
    assert_eq!(workerd.object("CONFORMANCE", suite, suite)?, "conforms");
    Ok(())
}

#[test]
fn kv_does_what_every_blob_store_must() -> Outcome {
    suite_inside_workerd("blobs")
}

#[test]
fn a_durable_object_does_what_every_document_store_must() -> Outcome {
    suite_inside_workerd("documents")
}

#[test]
fn the_runtime_can_warn_of_the_cpu_limit() -> Outcome {
    suite_inside_workerd("cpu")
}

fn ask_catalogue(workerd: &Workerd, name: &str, call: &CatalogueCall) -> Result<CatalogueAnswer, Error> {
    ask(workerd, "CATALOGUE", name, call)
}

#[test]
fn the_catalogue_does_what_every_sink_must() -> Outcome {
    let folder = TempDir::new()?;
    let workerd = Workerd::start(WorkerdConfig::new(folder.path()))?;
    let catalogues = Cell::new(0);
    let new = async || {
        catalogues.set(catalogues.get() + 1);
        let (workerd, name) = (&workerd, format!("sink-{}", catalogues.get()));
        let reader = name.clone();
        CatalogueReader {
            sink: CatalogueSink {
                send: async move |call: CatalogueCall| ask_catalogue(workerd, &name, &call),
                clock: VirtualClock::starting_at(Timestamp::from_millis(1_700_000_000_000)),
                target: CatalogueTarget {
                    bucket_id: BUCKET.to_owned(),
                    sync_id: SYNC_ID.to_owned(),
                    connection_id: "conn_a".to_owned(),
                    source_bucket: "media".to_owned(),
                },
            },
            objects: RemoteObjects(async move |_: &str, _: &str, call: CatalogueCall| {
                ask_catalogue(workerd, &reader, &call)
            }),
            namespace_id: NAMESPACE.to_owned(),
            bucket_id: BUCKET.to_owned(),
        }
    };
    pollster::block_on(sink_conformance(&new))?;
    pollster::block_on(removal_conformance(&new))?;
    Ok(())
}

/// Draws calls from a seed: few keys, so that most meet a row; awkward ones, so that SQL must quote them.
struct Draw(SeededEntropy);

impl Draw {
    fn below(&self, bound: u64) -> u64 {
        self.0.next_u64() % bound
    }

    fn key(&self) -> String {
        let keys = [
            "a",
            "a/b",
            "a\u{1}b",
            "a'b\"c",
            "a%b_",
            "日本/🎬",
            "\u{d7ff}z",
            "\u{e000}",
            "",
            "a//b",
            "A",
            "\u{10ffff}x",
        ];
        keys[self.below(keys.len() as u64) as usize].to_owned()
    }

    fn change(&self, position: u64) -> ChangeWire {
        let version = self.below(3);
        ChangeWire {
            position,
            id: format!("chg_{position}"),
            kind: [ChangeKind::Created, ChangeKind::Updated, ChangeKind::Deleted][self.below(3) as usize],
            key: self.key(),
            etag: format!("etag-{version}"),
            size: [0, 1, 5_000_000_000_000][version as usize],
            last_modified: Timestamp::from_millis([-5, 0, 1_700_000_000_123][version as usize]),
            previous: None,
            again: false,
            found_at: Timestamp::from_millis(7),
            job_id: "job_1".to_owned(),
        }
    }

    fn sync_id(&self) -> String {
        ["sync_a", "sync_b"][self.below(2) as usize].to_owned()
    }

    fn call(&self, at: i64) -> CatalogueCall {
        let object_id = || b2sync_core::ids::object_id(&self.sync_id(), &self.key());
        match self.below(10) {
            0 if self.below(3) == 0 => CatalogueCall::Remove { object_id: object_id() },
            0 => CatalogueCall::Get { object_id: object_id() },
            1 => CatalogueCall::Count { sync_id: (self.below(2) == 0).then(|| self.sync_id()) },
            2 if self.below(6) == 0 => CatalogueCall::DropSync { sync_id: self.sync_id() },
            2 if self.below(4) == 0 => CatalogueCall::ClearSync { sync_id: self.sync_id() },
            2..=5 => CatalogueCall::List {
                query: ObjectQuery {
                    namespace_id: NAMESPACE.to_owned(),
                    bucket_id: BUCKET.to_owned(),
                    limit: 1 + self.below(6) as u32,
                    offset: self.below(3) as u32,
                    cursor: (self.below(2) == 0)
                        .then(|| ObjectCursor { key: self.key(), object_id: "obj_8".to_owned() }),
                    prefix: (self.below(2) == 0).then(|| self.key()).filter(|prefix| !prefix.is_empty()),
                    include_total: self.below(2) == 0,
                },
            },
            // Often behind what was applied before, as after a replay.
            _ => CatalogueCall::Apply(CatalogueApply {
                bucket_id: BUCKET.to_owned(),
                sync_id: self.sync_id(),
                connection_id: format!("conn_{}", self.below(2)),
                source_bucket: "media".to_owned(),
                at: Timestamp::from_millis(at),
                changes: {
                    let first = 1 + self.below(60);
                    (first..first + self.below(8)).map(|position| self.change(position)).collect()
                },
            }),
        }
    }
}

#[test]
fn the_catalogue_decides_as_the_core_does() -> Outcome {
    let folder = TempDir::new()?;
    let workerd = Workerd::start(WorkerdConfig::new(folder.path()))?;
    for seed in 0..8 {
        let (draw, memory) = (Draw(SeededEntropy::new(seed)), MemoryCatalogue::new());
        for step in 0..60 {
            let call = draw.call(1_700_000_000_000 + step);
            let expected = memory.call(NAMESPACE, BUCKET, call.clone())?;
            let text = workerd.object("CATALOGUE", &format!("catalogue-{seed}"), &serde_json::to_string(&call)?)?;
            let answer: Result<CatalogueAnswer, ErrorWire> = serde_json::from_str(&text)?;
            let answer = answer.map_err(Error::from)?;
            assert_eq!(answer, expected, "seed {seed}, step {step}: {call:?}");
        }
    }
    Ok(())
}

#[test]
fn a_call_may_be_longer_than_a_statement() -> Outcome {
    let folder = TempDir::new()?;
    let workerd = Workerd::start(WorkerdConfig::new(folder.path()))?;
    // Every other byte is escaped: about 6 MB of rows.
    let change = |index: usize| ChangeWire {
        position: 1 + index as u64,
        id: format!("chg_{index}"),
        kind: ChangeKind::Created,
        key: format!("{index:06}{}", "\u{1}x".repeat(500)),
        etag: "etag".to_owned(),
        size: 1,
        last_modified: Timestamp::from_millis(1_700_000_000_000),
        previous: None,
        again: false,
        found_at: Timestamp::from_millis(7),
        job_id: "job_1".to_owned(),
    };
    let apply = CatalogueCall::Apply(CatalogueApply {
        bucket_id: BUCKET.to_owned(),
        sync_id: "sync_a".to_owned(),
        connection_id: "conn_1".to_owned(),
        source_bucket: "media".to_owned(),
        at: Timestamp::from_millis(1_700_000_000_000),
        changes: (0..APPLY_BATCH_MAX).map(change).collect(),
    });
    let memory = MemoryCatalogue::new();
    for call in [apply.clone(), apply, CatalogueCall::Count { sync_id: None }] {
        let expected = memory.call(NAMESPACE, BUCKET, call.clone())?;
        let text = workerd.object("CATALOGUE", "long", &serde_json::to_string(&call)?)?;
        let answer: Result<CatalogueAnswer, ErrorWire> = serde_json::from_str(&text)?;
        assert_eq!(answer.map_err(Error::from)?, expected);
    }
    Ok(())
}
