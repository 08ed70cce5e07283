//! A host for the WASI component of b2sync: Wasmtime, with the state and the sink in memory. Also the shortest example
//! of how to embed it.
//!
//! Every call gets a fresh instance, so nothing can survive one but what the host keeps.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::sync::OnceLock;

use wasmtime::component::{Component, HasSelf, Linker, ResourceTable};
use wasmtime::{Config, Engine, OptLevel, Result, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

/// What `bindgen!` makes of `wit/`. The documentation is there.
#[allow(missing_docs, unreachable_pub, unused_qualifications, rust_2018_idioms, clippy::all)]
pub mod bindings {
    wasmtime::component::bindgen!({ path: "../../wit", world: "embed", additional_derives: [PartialEq] });
}

use bindings::Embed;
use bindings::b2sync::embed::{sink, state, types};
use bindings::exports::b2sync::embed::sync;

/// Names the component to test, in place of the one that `cargo xtask build --component` makes.
pub const COMPONENT_ENV: &str = "B2SYNC_COMPONENT";
/// Where `cargo xtask build --component` puts it, in the target folder.
const COMPONENT_PATH: &str = "wasm32-wasip2/release/b2sync_component.wasm";

/// A sync, and a name that is its own.
pub type Name = (String, String);

/// What this host keeps for the component, and what it was given.
#[derive(Debug, Default)]
pub struct Home {
    /// Blobs.
    pub blobs: BTreeMap<Name, Vec<u8>>,
    /// Documents: revision and content. A deleted one leaves its revision behind.
    pub documents: BTreeMap<Name, (u64, Option<Vec<u8>>)>,
    /// Every change delivered, repetitions included, with its job.
    pub deliveries: Vec<(String, types::Change)>,
    /// What to answer to the next calls of the sink, last first; empty: all is taken.
    pub sink_faults: Vec<SinkFault>,
    /// How many of the next calls to the blobs fail.
    pub blob_faults: u32,
}

/// What goes wrong in the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkFault {
    /// The batch is taken, and the answer gets lost.
    AnswerLost,
    /// The first change of the batch is refused.
    FirstRefused,
}

impl Home {
    fn blobs(&mut self) -> Result<&mut BTreeMap<Name, Vec<u8>>, String> {
        match self.blob_faults.checked_sub(1) {
            None => Ok(&mut self.blobs),
            Some(left) => {
                self.blob_faults = left;
                Err("the disk is on fire".to_owned())
            }
        }
    }
}

impl types::Host for Home {}

impl state::Host for Home {
    fn get_blob(&mut self, sync_id: String, name: String) -> Result<Option<Vec<u8>>, String> {
        Ok(self.blobs()?.get(&(sync_id, name)).cloned())
    }

    fn put_blob(&mut self, sync_id: String, name: String, value: Vec<u8>) -> Result<(), String> {
        self.blobs()?.insert((sync_id, name), value);
        Ok(())
    }

    fn delete_blob(&mut self, sync_id: String, name: String) -> Result<(), String> {
        self.blobs()?.remove(&(sync_id, name));
        Ok(())
    }

    fn load_document(&mut self, sync_id: String, name: String) -> Result<Option<state::Document>, String> {
        let found = self.documents.get(&(sync_id, name)).cloned();
        Ok(found.and_then(|(revision, value)| Some(state::Document { revision, value: value? })))
    }

    fn swap_document(
        &mut self,
        sync_id: String,
        name: String,
        expected: u64,
        value: Option<Vec<u8>>,
    ) -> Result<state::Swapped, String> {
        let document = self.documents.entry((sync_id, name)).or_default();
        let shown = if document.1.is_some() { document.0 } else { 0 };
        if shown != expected {
            return Ok(state::Swapped::Conflict);
        }
        *document = (document.0 + 1, value);
        Ok(state::Swapped::Done(document.0))
    }
}

impl sink::Host for Home {
    fn batch_max(&mut self) -> u32 {
        100
    }

    fn deliver(
        &mut self,
        _sync_id: String,
        job_id: String,
        mut changes: Vec<types::Change>,
    ) -> Result<Vec<sink::Delivery>, String> {
        let mut answers = vec![sink::Delivery::Delivered; changes.len()];
        let fault = self.sink_faults.pop();
        if fault == Some(SinkFault::FirstRefused) {
            answers[0] = sink::Delivery::Refused("not now".to_owned());
            changes.remove(0);
        }
        self.deliveries.extend(changes.into_iter().map(|change| (job_id.clone(), change)));
        if fault == Some(SinkFault::AnswerLost) { Err("the line went dead".to_owned()) } else { Ok(answers) }
    }
}

/// All that one instance can reach: [`Home`], and what WASI gives it. No folder, no argument, no variable.
struct Reach {
    home: Home,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
}

impl WasiView for Reach {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Reach {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: Default::default() }
    }
}

/// The compiled component, ready for instances.
struct Compiled {
    component: Component,
    linker: Linker<Reach>,
}

impl Compiled {
    fn new() -> Result<Self> {
        let path = component_path().map_err(wasmtime::Error::msg)?;
        // Compiling in a hurry: the tests run each function a few thousand times at most.
        let mut config = Config::new();
        config.cranelift_opt_level(OptLevel::None);
        let engine = Engine::new(&config)?;
        let component = Component::from_file(&engine, path)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_sync(&mut linker)?;
        Embed::add_to_linker::<_, HasSelf<_>>(&mut linker, |reach: &mut Reach| &mut reach.home)?;
        Ok(Self { component, linker })
    }

    /// The one of this process: compiling takes seconds.
    fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Compiled, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| Self::new().map_err(|error| format!("{error:?}")));
        shared.as_ref().map_err(|error| wasmtime::Error::msg(error.clone()))
    }
}

fn component_path() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os(COMPONENT_ENV) {
        return Ok(path.into());
    }
    let exe = env::current_exe().map_err(|error| format!("This test does not know where it is: {error}."))?;
    let in_target = exe.ancestors().map(|folder| folder.join(COMPONENT_PATH)).find(|path| path.exists());
    in_target.ok_or_else(|| {
        format!(
            "{COMPONENT_PATH} is not in the target folder that holds {}. Run `cargo xtask build --component` first, or \
             set {COMPONENT_ENV} to the component's path.",
            exe.display()
        )
    })
}

/// The component in its host.
#[derive(Debug, Default)]
pub struct EmbedHost {
    /// State and sink.
    pub home: Home,
}

impl EmbedHost {
    fn with_instance<T>(&mut self, call: impl FnOnce(&sync::Guest, &mut Store<Reach>) -> Result<T>) -> Result<T> {
        let Compiled { component, linker } = Compiled::shared()?;
        let reach = Reach {
            home: std::mem::take(&mut self.home),
            wasi: WasiCtx::builder().inherit_stderr().build(),
            http: WasiHttpCtx::new(),
            table: ResourceTable::new(),
        };
        let mut store = Store::new(component.engine(), reach);
        let embed = Embed::instantiate(&mut store, component, linker);
        let answer = embed.and_then(|embed| call(embed.b2sync_embed_sync(), &mut store));
        self.home = store.into_data().home;
        answer
    }

    /// `parse-source-path`.
    ///
    /// # Errors
    /// The component is not there, or trapped.
    pub fn parse_source_path(&mut self, text: &str) -> Result<Result<sync::SourcePath, types::Error>> {
        self.with_instance(|sync, store| sync.call_parse_source_path(store, text))
    }

    /// `decide-filter`.
    ///
    /// # Errors
    /// The component is not there, or trapped.
    pub fn decide_filter(
        &mut self,
        filters: &sync::FilterSpec,
        source_path: &str,
        entry: &types::Entry,
    ) -> Result<Result<sync::Verdict, types::Error>> {
        self.with_instance(|sync, store| sync.call_decide_filter(store, filters, source_path, entry))
    }

    /// `run-step`.
    ///
    /// # Errors
    /// The component is not there, or trapped.
    pub fn run_step(&mut self, job: &sync::JobOrder) -> Result<sync::StepResult> {
        self.with_instance(|sync, store| sync.call_run_step(store, job))
    }
}
