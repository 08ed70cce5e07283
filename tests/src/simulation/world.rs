//! A home in a virtual world: one bucket of the embedded B2, stale KV, documents, sinks, and instances with clocks that
//! disagree.
//!
//! Every effect lets others go first, is counted, and may break off or take its instance with it. Time passes only
//! where a task sleeps; see `run.rs` for who is let go on.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use b2sync_core::change::Change;
use b2sync_core::engine::memory::Memory;
use b2sync_core::entropy::Entropy;
use b2sync_core::entry::{Entry, KeyOrder};
use b2sync_core::error::{Error, ErrorKind, Retry};
use b2sync_core::filter::FilterSpec;
use b2sync_core::job::JobRecord;
use b2sync_core::secret::SecretString;
use b2sync_core::source_path::SourcePath;
use b2sync_core::store::MemoryDocuments;
use b2sync_core::time::Timestamp;
use b2sync_service::catalogue::{CatalogueAnswer, CatalogueCall, MemoryCatalogue, ObjectQuery, ObjectRecord};
use b2sync_service::conformance::registry as records;
use b2sync_service::coordinator::{Cache, Config};
use b2sync_service::registry::{ConnectionRecord, ConnectionStatus, MemoryRegistry, Registry, SyncRecord};
use b2sync_service::seal::MasterKeys;

use super::checkers::{Checks, Violation};
use super::faults::{self, Break};
use super::history::START_MS;
use super::kv::StaleKv;
use super::options::Options;
use super::sink_state::SinkState;
use super::tally::Tally;
use super::task::Step;
use super::trace::Trace;
use crate::virtual_world::SeededEntropy;
use fake_b2::keys::{ApplicationKey, NewKey};
use fake_b2::model::{self, VisibleFile};
use fake_b2::{Config as B2Config, FakeB2};

/// The bucket that is synced.
pub const BUCKET: &str = "sim-bucket";
/// The sync.
pub const SYNC: &str = "sync_simulation";
const CONNECTION: &str = "conn_simulation";
pub(super) const NAMESPACE: &str = "ns";
pub(super) const TARGET_BUCKET: &str = "bkt_simulation";
const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doom {
    /// The instance in that slot.
    Instance(usize),
}

/// An instance of the coordinator's home.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    pub(super) name: String,
    pub(super) place: usize,
    pub(super) offset_ms: Rc<Cell<i64>>,
    pub(super) memory: Rc<Memory>,
    pub(super) cache: Rc<Cache>,
}

/// The world, shared by all instances that ever live in it.
pub struct Inner {
    /// What it is.
    pub options: Options,
    /// The bucket.
    pub fake: Arc<FakeB2>,
    pub(super) config: Config,
    pub(super) now: Cell<i64>,
    /// How much of the time that passed no task could use.
    pub(super) frozen_ms: Cell<i64>,
    pub(super) moment: Cell<u64>,
    pub(super) entropy: SeededEntropy,
    pub(super) kv: StaleKv,
    pub(super) blob_puts: Cell<u64>,
    /// How often the snapshot's document was stored.
    pub(super) snapshots_stored: Cell<u64>,
    pub(super) documents: MemoryDocuments,
    pub(super) registry: MemoryRegistry,
    pub(super) catalogue: MemoryCatalogue,
    pub(super) sinks: Vec<SinkState>,
    /// How long sinks take.
    pub(super) sink_entropy: SeededEntropy,
    /// Every change that the catalogue took, repetitions included, for tests that want to know.
    pub deliveries: RefCell<Vec<Change>>,
    pub(super) alarm: Cell<Option<i64>>,
    pub(super) breaks: RefCell<BTreeMap<u64, Break>>,
    pub(super) effects: Cell<u64>,
    pub(super) troubles: RefCell<Vec<faults::Rule>>,
    /// How many deliveries from now on a sink takes a part of before it fails.
    pub(super) halves: Cell<u8>,
    /// What kinds of effects there were, and which of them broke.
    pub(super) effects_seen: RefCell<BTreeSet<&'static str>>,
    pub(super) effects_broken: RefCell<BTreeSet<&'static str>>,
    pub(super) tokens: RefCell<BTreeMap<String, Option<String>>>,
    pub(super) steps: RefCell<BTreeMap<u64, Step>>,
    /// When those who began to sleep in this turn are to be woken.
    pub(super) timers: RefCell<Vec<i64>>,
    pub(super) doom: Cell<Option<Doom>>,
    pub(super) checks: RefCell<Checks>,
    pub(super) violation: RefCell<Option<Violation>>,
    pub(super) tally: Cell<Tally>,
    pub(super) trace: Trace,
    pub(super) key: RefCell<ApplicationKey>,
    pub(super) last_step_lease: Cell<Option<u64>>,
    pub(super) last_job: RefCell<Option<String>>,
    /// The job of the latest step.
    pub(super) last_step_job: RefCell<Option<String>>,
    pub(super) was_stretched: Cell<bool>,
    /// How many steps each instance began.
    pub steps_taken: RefCell<BTreeMap<String, u64>>,
    pub(super) published: RefCell<Vec<JobRecord>>,
    /// When the first step of each job began.
    pub(super) began: RefCell<Vec<Timestamp>>,
}

fn entry(file: VisibleFile) -> Entry {
    Entry { key: file.key, etag: file.etag, size: file.size, last_modified: file.last_modified }
}

/// An application key of its own for each number: no two worlds, and no two keys of a world, share a secret.
fn new_key(fake: &FakeB2) -> ApplicationKey {
    let created = fake.create_key(NewKey::unrestricted());
    // It names no bucket, so none can be missing.
    created.unwrap_or_else(|error| unreachable!("{error}"))
}

fn new_fake(options: &Options) -> Arc<FakeB2> {
    let fake = FakeB2::new(B2Config {
        order: options.order,
        space_encoding: options.space_encoding,
        page_keys_max: options.page_keys,
        ..B2Config::like_b2()
    });
    // The account is empty, so the name is free.
    let _ = fake.create_bucket(BUCKET);
    Arc::new(fake)
}

/// What is judged in a world with these options.
fn new_checks(options: &Options, order: KeyOrder, source: &SourcePath, key: &ApplicationKey) -> Checks {
    let mut checks = Checks::new(SYNC, order, source.clone(), &FilterSpec::default(), options.reconcile);
    checks.limit_objects(options.objects_max);
    checks.limit_deletions(options.deletion_limit);
    // Who sends dead letters back starts a job that waits for no cap.
    checks.limit_class_c(options.class_c_max.filter(|_| !options.requeues), options.skew_ms_max);
    checks.add_secret(MASTER_KEY.to_owned());
    checks.add_secret(key.secret.clone());
    checks
}

pub(super) fn storage_error() -> Error {
    Error::new(ErrorKind::Storage, "Broken off.", "Try again.").with_retry(Retry::Temporary)
}

impl Inner {
    /// A world in which nothing has happened yet. With `traced`, what happens is written down.
    pub fn new(options: Options, seed: u64, traced: bool) -> Rc<Self> {
        let fake = new_fake(&options);
        let key = new_key(&fake);
        let source = SourcePath::parse(BUCKET).unwrap_or_else(|error| unreachable!("{error}"));
        let order = match options.order {
            model::KeyOrder::Utf8 => KeyOrder::Utf8,
            model::KeyOrder::Utf16 => KeyOrder::Utf16,
        };
        let mut checks = new_checks(&options, order, &source, &key);
        let master_keys =
            MasterKeys::parse(&format!("k1:{MASTER_KEY}")).unwrap_or_else(|error| unreachable!("{error}"));
        let sinks: Vec<SinkState> =
            options.sink_ids().into_iter().zip(&options.sinks).map(|(id, it)| SinkState::new(id, *it)).collect();
        sinks.iter().for_each(|sink| checks.add_sink(&sink.sink_id));
        let inner = Rc::new(Self {
            config: Config {
                b2_api_url: fake.config().base_url.clone(),
                master_keys,
                budget: options.budget,
                retry: options.retry,
                sole_instance: options.sole_instance,
                cut_sizes: Some(options.cut),
                thresholds: options.thresholds,
            },
            fake,
            now: Cell::new(START_MS),
            frozen_ms: Cell::new(0),
            moment: Cell::new(0),
            entropy: SeededEntropy::new(seed ^ 0xc0ff_ee00),
            kv: StaleKv::new(options.kv_lag_ms_max),
            blob_puts: Cell::new(0),
            snapshots_stored: Cell::new(0),
            documents: MemoryDocuments::default(),
            registry: MemoryRegistry::new(),
            catalogue: MemoryCatalogue::new(),
            sinks,
            sink_entropy: SeededEntropy::new(seed ^ 0x51_4e4b),
            deliveries: RefCell::default(),
            alarm: Cell::new(None),
            breaks: RefCell::default(),
            effects: Cell::new(0),
            troubles: RefCell::default(),
            halves: Cell::new(0),
            effects_seen: RefCell::default(),
            effects_broken: RefCell::default(),
            tokens: RefCell::default(),
            steps: RefCell::default(),
            timers: RefCell::default(),
            doom: Cell::new(None),
            checks: RefCell::new(checks),
            violation: RefCell::default(),
            tally: Cell::new(Tally { worlds: 1, ..Tally::default() }),
            trace: Trace::new(traced),
            key: RefCell::new(key),
            last_step_lease: Cell::new(None),
            last_job: RefCell::default(),
            last_step_job: RefCell::default(),
            was_stretched: Cell::new(false),
            steps_taken: RefCell::default(),
            published: RefCell::default(),
            began: RefCell::default(),
            options,
        });
        inner.configure(source);
        inner
    }

    fn configure(&self, source: SourcePath) {
        let mut connection = records::connection(CONNECTION, "B2", START_MS);
        connection.authorized_at = None;
        let mut sync =
            records::sync(SYNC, TARGET_BUCKET, CONNECTION, START_MS).unwrap_or_else(|error| unreachable!("{error}"));
        sync.source = source;
        sync.filters = FilterSpec::default();
        sync.reconcile = self.options.reconcile;
        sync.skip_duplicates = !self.options.full_syncs;
        sync.polling_interval_s = self.options.interval_s;
        sync.sync_concurrency = Some(self.options.streams);
        sync.max_objects_per_run = self.options.objects_max;
        sync.deletion_limit = self.options.deletion_limit;
        sync.max_class_c_per_day = self.options.class_c_max;
        sync.feed_retention_hours = self.options.retention_hours;
        let mut salt = [0; 16];
        self.entropy.fill(&mut salt);
        sync.salt = hex::encode(salt).into();
        pollster::block_on(async {
            // The registry is empty.
            let _ = self.registry.insert_connection(connection).await;
            let _ = self.registry.insert_sync(sync).await;
        });
        let key = self.key.borrow().clone();
        self.use_key(&key);
    }

    /// Changes the connection, as the API does.
    fn change_connection(&self, change: impl FnOnce(&mut ConnectionRecord)) {
        pollster::block_on(async {
            let Ok(Some(mut connection)) = self.registry.connection(CONNECTION).await else { return };
            change(&mut connection);
            let revision = connection.revision;
            let _ = self.registry.update_connection(connection, revision).await;
        });
    }

    /// Its user switches the connection off.
    pub(super) fn suspend_connection(&self) {
        self.change_connection(|connection| {
            (connection.status, connection.is_active) = (ConnectionStatus::Suspended, false);
            connection.consecutive_failures = 0;
        });
    }

    /// Its user sees a connection that is switched off, or that failed too often, and switches it on again.
    pub(super) fn lift_suspension(&self) {
        self.change_connection(|connection| {
            if connection.is_suspended_by_failures() || !connection.is_active {
                self.count(|tally| tally.lifted += 1);
                (connection.status, connection.is_active) = (ConnectionStatus::Active, true);
                connection.note_success(Timestamp::from_millis(self.now.get()));
            }
        });
    }

    /// Gives the connection that application key.
    fn use_key(&self, key: &ApplicationKey) {
        let secret = SecretString::from(key.secret.as_str());
        let sealed = self.config.master_keys.seal(&secret, CONNECTION, &self.entropy);
        self.change_connection(|connection| {
            connection.key_id.clone_from(&key.key_id);
            connection.application_key = sealed.ok();
            connection.account = None;
        });
    }

    /// The key stops working.
    pub(super) fn revoke_key(&self) {
        let id = self.key.borrow().key_id.clone();
        // It may be gone already.
        let _ = self.fake.delete_application_key(&id);
    }

    /// The connection gets a new key.
    pub(super) fn rotate_key(&self, keep_old: bool) {
        let new = new_key(&self.fake);
        self.checks.borrow_mut().add_secret(new.secret.clone());
        self.use_key(&new);
        if !keep_old {
            self.revoke_key();
        }
        *self.key.borrow_mut() = new;
    }

    /// Changes the sync, as the API does.
    pub fn change_sync(&self, change: impl FnOnce(&mut SyncRecord)) {
        pollster::block_on(async {
            let Ok(Some(mut sync)) = self.registry.sync(SYNC).await else { return };
            change(&mut sync);
            let at = self.next_moment();
            self.checks.borrow_mut().scoped(at, sync.source.clone(), &sync.effective_filters());
            let revision = sync.revision;
            let _ = self.registry.update_sync(sync, revision).await;
        });
    }

    /// When the cron is to poke the sync next, as the API says with what it changes.
    pub(super) fn poke_after(&self, at: Option<Timestamp>) {
        // The sync may be gone already.
        let _ = pollster::block_on(self.registry.set_poke_after(SYNC, at));
    }

    /// The sync's record goes.
    pub(super) fn delete_sync(&self) {
        // Nothing fails in memory.
        let _ = pollster::block_on(self.registry.delete_sync(SYNC));
    }

    // ---- the bucket ----------------------------------------------------------------------------------------------

    /// Changes keys of the bucket, in one moment.
    pub fn edit(&self, keys: &[String], change: impl FnOnce(&mut model::Model)) {
        self.fake.edit(change);
        let at = self.next_moment();
        let mut checks = self.checks.borrow_mut();
        self.fake.inspect(|model| {
            for key in keys {
                let visible = model.find(BUCKET, key).and_then(|version| {
                    let stored = version.stored.as_ref()?;
                    Some(Entry {
                        key: key.clone(),
                        etag: stored.etag.clone(),
                        size: stored.file.content.size(),
                        last_modified: version.uploaded_at,
                    })
                });
                checks.showed(at, key, visible);
            }
        });
    }

    /// What the bucket shows.
    pub fn bucket(&self) -> Vec<Entry> {
        self.fake.visible(BUCKET).into_iter().map(entry).collect()
    }

    /// What the catalogue holds.
    pub fn rows(&self) -> Vec<ObjectRecord> {
        let query = ObjectQuery {
            namespace_id: NAMESPACE.to_owned(),
            bucket_id: TARGET_BUCKET.to_owned(),
            limit: u32::MAX,
            offset: 0,
            cursor: None,
            prefix: None,
            include_total: false,
        };
        match self.catalogue.call("ns", TARGET_BUCKET, CatalogueCall::List { query }) {
            Ok(CatalogueAnswer::Page { page }) => page.objects,
            _ => Vec::new(),
        }
    }

    /// What a sink holds.
    pub(super) fn held(&self, sink: usize) -> BTreeMap<String, Entry> {
        let Some(state) = self.sinks.get(sink).filter(|state| !state.options.is_catalogue) else {
            let entry = |row: ObjectRecord| Entry {
                key: row.key,
                etag: row.etag,
                size: row.size,
                last_modified: row.last_modified,
            };
            return self.rows().into_iter().map(|row| (row.key.clone(), entry(row))).collect();
        };
        state.held.borrow().clone()
    }

    /// When the first step of each job began.
    pub fn polls(&self) -> Vec<Timestamp> {
        self.began.borrow().clone()
    }

    /// All changes of the feed, in order.
    pub fn changes(&self) -> Vec<Change> {
        self.checks.borrow().changes()
    }

    // ---- bookkeeping ---------------------------------------------------------------------------------------------

    /// The feed keeps what was found since then, by whatever clock, in milliseconds.
    pub(super) fn dropped_before(&self) -> i64 {
        let kept_ms = i64::from(self.options.retention_hours) * 3_600_000;
        self.now.get() + i64::try_from(self.options.skew_ms_max).unwrap_or(0) - kept_ms
    }

    pub(super) fn next_moment(&self) -> u64 {
        self.moment.set(self.moment.get() + 1);
        self.moment.get()
    }

    /// How much has happened so far.
    pub fn tally(&self) -> Tally {
        self.tally.get()
    }

    pub(super) fn count(&self, add: impl FnOnce(&mut Tally)) {
        let mut tally = self.tally.get();
        add(&mut tally);
        self.tally.set(tally);
    }

    pub(super) fn note(&self, line: impl FnOnce() -> String) {
        self.trace.note(self.now.get() - START_MS, line);
    }

    /// Keeps the first rule that was broken.
    pub(super) fn check(&self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.note(|| format!("BROKEN: {violation}"));
            self.violation.borrow_mut().get_or_insert(violation);
        }
    }

    pub(super) fn step<T>(&self, task: u64, look: impl FnOnce(&mut Step) -> T) -> T {
        look(self.steps.borrow_mut().entry(task).or_default())
    }

    /// That task is over.
    pub(super) fn forget_task(&self, task: u64) {
        self.steps.borrow_mut().remove(&task);
    }

    /// What is stored or said in this moment holds no secret, also if it is replaced in the next.
    pub(super) fn check_no_secret(&self, place: &str, bytes: &[u8]) {
        let checked = self.checks.borrow().secret_in(place, bytes);
        self.check(checked);
    }

    /// No secret in anything that is stored, published or delivered.
    pub(super) fn check_secrets(&self) -> Result<(), Violation> {
        let checks = self.checks.borrow();
        for value in self.documents.values() {
            checks.secret_in("a document", &value)?;
        }
        for (name, value) in self.kv.all() {
            checks.secret_in(&name, &value)?;
        }
        for job in self.published.borrow().iter() {
            checks.secret_in("a published job", format!("{job:?}").as_bytes())?;
        }
        for row in self.rows() {
            checks.secret_in("the catalogue", format!("{row:?}").as_bytes())?;
        }
        let connection = pollster::block_on(self.registry.connection(CONNECTION));
        let stored = serde_json::to_vec(&connection.ok().flatten()).unwrap_or_default();
        checks.secret_in("the connection", &stored)
    }
}
