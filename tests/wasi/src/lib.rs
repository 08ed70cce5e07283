//! A host for the WASI component of b2sync: Wasmtime, with the state in memory. Also the shortest example of how to
//! embed it: see [`EmbedHost::run_job`].
//!
//! Every call gets a fresh instance, so nothing survives a call except what the host keeps.

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
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "embed",
        imports: { default: trappable },
        additional_derives: [PartialEq],
    });
}

use bindings::Embed;
use bindings::b2sync::embed::{state, types};
use bindings::exports::b2sync::embed::sync;

/// Names the component to test, in place of the one that `cargo xtask build --component` makes.
pub const COMPONENT_ENV: &str = "B2SYNC_COMPONENT";
/// Where `cargo xtask build --component` puts it, in the target folder.
const COMPONENT_PATH: &str = "wasm32-wasip2/release/b2sync_component.wasm";

/// A sync, and a name that is its own.
pub type Name = (String, String);

/// What the host's store answers: an error is a reason in words.
type Answer<T> = Result<T, String>;

/// The state that this host keeps for the component, and what goes wrong in it.
#[derive(Clone, Debug, Default)]
pub struct Home {
    /// Blobs.
    pub blobs: BTreeMap<Name, Vec<u8>>,
    /// Documents: revision and content. A deleted one leaves its revision behind.
    pub documents: BTreeMap<Name, (u64, Option<Vec<u8>>)>,
    /// How many calls the component has made.
    pub calls: u64,
    /// Where the instance is cut off.
    pub cut: Option<CutOff>,
    /// How many of the next calls to the blobs fail.
    pub blob_faults: u32,
    /// Before how many of the next swaps another call changes the document.
    pub races: u32,
}

/// A call, counted by [`Home::calls`] from 1, at which the instance is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutOff {
    /// Before the host does what is asked.
    Before(u64),
    /// After the host has done it, and before the instance is told.
    After(u64),
}

impl Home {
    /// Runs a call of the component, unless it is cut off there.
    fn call<T>(&mut self, run: impl FnOnce(&mut Self) -> Answer<T>) -> Result<Answer<T>> {
        self.calls += 1;
        let cut = |cut| Err(wasmtime::Error::msg(format!("cut off: {cut:?}")));
        match self.cut.take_if(|cut| matches!(*cut, CutOff::Before(call) | CutOff::After(call) if call == self.calls)) {
            Some(CutOff::Before(call)) => cut(CutOff::Before(call)),
            Some(CutOff::After(call)) => {
                let _lost = run(self);
                cut(CutOff::After(call))
            }
            None => Ok(run(self)),
        }
    }

    fn blobs(&mut self) -> Answer<&mut BTreeMap<Name, Vec<u8>>> {
        match self.blob_faults.checked_sub(1) {
            None => Ok(&mut self.blobs),
            Some(left) => {
                self.blob_faults = left;
                Err("the disk is on fire".to_owned())
            }
        }
    }

    fn swap(&mut self, name: Name, expected: u64, value: Option<Vec<u8>>) -> state::Swapped {
        let document = self.documents.entry(name).or_default();
        if let Some(left) = self.races.checked_sub(1) {
            self.races = left;
            document.0 += 1;
        }
        let shown = if document.1.is_some() { document.0 } else { 0 };
        if shown != expected {
            return state::Swapped::Conflict;
        }
        *document = (document.0 + 1, value);
        state::Swapped::Done(document.0)
    }
}

impl types::Host for Home {}

impl state::Host for Home {
    fn get_blob(&mut self, sync_id: String, name: String) -> Result<Answer<Option<Vec<u8>>>> {
        self.call(|home| Ok(home.blobs()?.get(&(sync_id, name)).cloned()))
    }

    fn put_blob(&mut self, sync_id: String, name: String, value: Vec<u8>) -> Result<Answer<()>> {
        self.call(|home| {
            home.blobs()?.insert((sync_id, name), value);
            Ok(())
        })
    }

    fn delete_blob(&mut self, sync_id: String, name: String) -> Result<Answer<()>> {
        self.call(|home| {
            home.blobs()?.remove(&(sync_id, name));
            Ok(())
        })
    }

    fn load_document(&mut self, sync_id: String, name: String) -> Result<Answer<Option<state::Document>>> {
        self.call(|home| {
            let found = home.documents.get(&(sync_id, name)).cloned();
            Ok(found.and_then(|(revision, value)| Some(state::Document { revision, value: value? })))
        })
    }

    fn swap_document(
        &mut self,
        sync_id: String,
        name: String,
        expected: u64,
        value: Option<Vec<u8>>,
    ) -> Result<Answer<state::Swapped>> {
        self.call(|home| Ok(home.swap((sync_id, name), expected, value)))
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
    /// The state.
    pub home: Home,
    /// For each sync, the position up to which its changes are read.
    pub cursors: BTreeMap<String, u64>,
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

    /// `changes`.
    ///
    /// # Errors
    /// The component is not there, or trapped.
    pub fn changes(&mut self, sync_id: &str, after: u64, limit: u32) -> Result<Result<sync::ChangePage, types::Error>> {
        self.with_instance(|sync, store| sync.call_changes(store, sync_id, after, limit))
    }

    /// `forget`.
    ///
    /// # Errors
    /// The component is not there, or trapped.
    pub fn forget(&mut self, sync_id: &str, up_to: u64) -> Result<Result<u64, types::Error>> {
        self.with_instance(|sync, store| sync.call_forget(store, sync_id, up_to))
    }

    /// What a host does: runs a job to its end, and hands each change to `apply`.
    ///
    /// A real host stores the cursor as durably as what it applies, and best with it.
    ///
    /// # Errors
    /// The component is not there or trapped, or it answered an error. After a transient one, the same call goes on.
    pub fn run_job(&mut self, job: &mut sync::JobOrder, mut apply: impl FnMut(types::Change)) -> Result<()> {
        loop {
            let result = self.run_step(job)?;
            job.account_cache = result.account_cache.or(job.account_cache.take());
            let progress = result.outcome?;
            self.read_on(&job.sync_id, &mut apply)?;
            let cursor = self.cursors.get(&job.sync_id).copied().unwrap_or_default();
            self.forget(&job.sync_id, cursor)??;
            if progress == sync::Progress::Done {
                return Ok(());
            }
        }
    }

    /// Hands the changes after the cursor to `apply`, and moves the cursor behind them.
    ///
    /// # Errors
    /// As [`Self::run_job`].
    pub fn read_on(&mut self, sync_id: &str, mut apply: impl FnMut(types::Change)) -> Result<()> {
        loop {
            let cursor = self.cursors.get(sync_id).copied().unwrap_or_default();
            let page = self.changes(sync_id, cursor, 1_000)??;
            let Some(last) = page.changes.last().map(|change| change.position) else { return Ok(()) };
            page.changes.into_iter().for_each(&mut apply);
            self.cursors.insert(sync_id.to_owned(), last);
        }
    }
}
