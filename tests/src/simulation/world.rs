//! A home in a virtual world: one bucket of the embedded B2, stale KV, documents, a catalogue, and instances with clocks
//! that disagree.
//!
//! Every effect lets others go first, is counted, and may break off or take its instance with it. Time passes only where
//! somebody sleeps; see `run.rs` for who is let go on.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use b2sync_core::b2::list::parse_list_page;
use b2sync_core::dead_letters;
use b2sync_core::engine::DELIVERY_ATTEMPTS_MAX;
use b2sync_core::engine::budget::{EXTERNAL_REQUESTS_RESERVED, INTERNAL_REQUESTS_RESERVED};
use b2sync_core::engine::memory::Memory;
use b2sync_core::engine::thresholds::Thresholds;
use b2sync_core::entropy::Entropy;
use b2sync_core::entry::{Entry, KeyOrder};
use b2sync_core::error::{Error, ErrorKind, Retry};
use b2sync_core::filter::FilterSpec;
use b2sync_core::http::{ExchangeLimits, HttpClient, Request, Response, TransportError, TransportFault};
use b2sync_core::job::JobRecord;
use b2sync_core::secret::SecretString;
use b2sync_core::sink::{Change, Delivery, Sink};
use b2sync_core::snapshot::root;
use b2sync_core::source_path::SourcePath;
use b2sync_core::store::{BlobStore, Document, DocumentStore, MemoryDocuments, Swapped};
use b2sync_core::time::{Clock, Timestamp};
use b2sync_service::catalogue::{CatalogueAnswer, CatalogueCall, CatalogueSink, CatalogueTarget, MemoryCatalogue};
use b2sync_service::catalogue::{ObjectQuery, ObjectRecord};
use b2sync_service::conformance::registry as records;
use b2sync_service::coordinator::ranges::{self, RangeAnswer, RangeCall};
use b2sync_service::coordinator::{Config, DOCUMENT, Home, LEASE_MARGIN_MS};
use b2sync_service::registry::{
    ConnectionRecord, ConnectionStatus, DueSync, MemoryRegistry, Registry, SyncQuery, SyncRecord,
};
use b2sync_service::seal::MasterKeys;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::{Serialize, de::DeserializeOwned};

use super::checkers::{Checks, CoordinatorSeen, Rule, Violation};
use super::faults::{self, Break, Trouble};
use super::history::START_MS;
use super::kv::StaleKv;
use super::options::Options;
use super::trace::Trace;
use crate::virtual_world::{SeededEntropy, mix};
use fake_b2::faults::{Rule as B2Rule, Target};
use fake_b2::keys::{ApplicationKey, NewKey};
use fake_b2::ledger::Operation;
use fake_b2::model::{self, VisibleFile};
use fake_b2::{Config as B2Config, FakeB2, Outcome, WireFault};

/// The bucket that is synced.
pub const BUCKET: &str = "sim-bucket";
/// The sync.
pub const SYNC: &str = "sync_simulation";
const CONNECTION: &str = "conn_simulation";
const NAMESPACE: &str = "ns";
const TARGET_BUCKET: &str = "bkt_simulation";
/// How many blobs of a deleted sync go at a time.
const WIPED_AT_ONCE: usize = 20;
/// Calls to the stores that one key of a page may take until the step has dealt with it: in the smallest of pieces, its leaf
/// and its segment are read and both are stored anew; and a checkpoint is the document and three blobs. The engine asks the
/// budget before each page, and its reserve is made for pieces of thousands of keys.
const CALLS_A_KEY: u64 = 4 + 4;
/// Calls to sink and stores that a batch may take: it is offered three times, and becomes dead letters, which takes two reads
/// and a write. The engine asks the budget before each but the first of what it has noted.
const CALLS_A_BATCH: u64 = DELIVERY_ATTEMPTS_MAX as u64 + 3;
/// Pages by which a step may pass its limits of keys and bytes: the last one that these allowed, one that checks the end of
/// its range, and those that tell the order of keys.
const PAGES_BEYOND_MAX: u64 = 6;
/// Requests to B2 that a step may make whatever its budget: those of its first page, and authorizing before it.
const REQUESTS_MIN: u64 = EXTERNAL_REQUESTS_RESERVED + 5;
/// Of how many changes of one delivery the trace tells.
const DELIVERIES_SHOWN_MAX: usize = 12;
const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// How much happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Worlds.
    pub worlds: u64,
    /// Events of their plans.
    pub events: u64,
    /// Turns that tasks were given.
    pub turns: u64,
    /// Steps that took a lease.
    pub steps: u64,
    /// Of these, those that took it from another step, which had died or taken too long.
    pub taken_over: u64,
    /// Jobs that began.
    pub jobs: u64,
    /// Requests to B2.
    pub requests: u64,
    /// Requests that met trouble.
    pub troubles: u64,
    /// Calls to shards.
    pub shard_calls: u64,
    /// Effects that broke off, and refusals of the sink.
    pub faults: u64,
    /// Instances and tasks that died.
    pub crashes: u64,
    /// Reads of KV that answered what is not so.
    pub stale_reads: u64,
    /// Changes that reached the sink.
    pub changes: u64,
    /// Of these, repetitions.
    pub repeated: u64,
    /// Deliveries of which the sink took a part and then failed.
    pub halves: u64,
    /// Dead letters that were stored.
    pub letters: u64,
    /// Steps that were told that their CPU time runs out.
    pub signals: u64,
    /// Jobs that delivered as many files as they may.
    pub limited: u64,
    /// Polls that a cap put off.
    pub stretched: u64,
    /// Steps that are given a bookmark.
    pub bookmarks: u64,
    /// Steps of quiet polls that went on from what the instance held.
    pub held: u64,
    /// Suspensions of the connection that were lifted.
    pub lifted: u64,
    /// Checkpoints whose open segment is in a blob.
    pub pending_blobs: u64,
    /// Checkpoints with leaves in blobs.
    pub leaf_blobs: u64,
    /// Checkpoints with deletions in blobs.
    pub deletion_blobs: u64,
    /// Documents that note what is to be delivered in a blob.
    pub doubt_blobs: u64,
    /// Virtual time, in milliseconds.
    pub virtual_ms: u64,
}

impl Tally {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.worlds += other.worlds;
        self.events += other.events;
        self.turns += other.turns;
        self.steps += other.steps;
        self.taken_over += other.taken_over;
        self.jobs += other.jobs;
        self.requests += other.requests;
        self.troubles += other.troubles;
        self.shard_calls += other.shard_calls;
        self.faults += other.faults;
        self.crashes += other.crashes;
        self.stale_reads += other.stale_reads;
        self.changes += other.changes;
        self.repeated += other.repeated;
        self.halves += other.halves;
        self.letters += other.letters;
        self.signals += other.signals;
        self.limited += other.limited;
        self.stretched += other.stretched;
        self.bookmarks += other.bookmarks;
        self.held += other.held;
        self.lifted += other.lifted;
        self.pending_blobs += other.pending_blobs;
        self.leaf_blobs += other.leaf_blobs;
        self.deletion_blobs += other.deletion_blobs;
        self.doubt_blobs += other.doubt_blobs;
        self.virtual_ms += other.virtual_ms;
    }
}

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
}

/// What is known of a task while it runs.
#[derive(Clone, Debug, Default)]
struct Step {
    /// The number of the lease that it took last.
    lease: Option<u64>,
    job: Option<String>,
    /// Where its latest page began.
    asked: BTreeSet<String>,
    /// Pages asked for since the order of keys was asked for.
    since_order: Option<u32>,
    pages: u64,
    keys: u64,
    bytes: u64,
    external: u64,
    internal: u64,
    began_at: i64,
    last_status: u16,
    /// The most bytes of a page.
    page_bytes_max: u64,
    /// Whether a batch of what was noted last was delivered.
    delivered: bool,
    /// The changes of the latest batch.
    batch: BTreeSet<String>,
    /// When it read the sync's configuration.
    configured_at: u64,
    /// How often it asked whether its CPU time runs out.
    cpu_asked: u32,
    /// Whether it was told so, and not at once.
    signalled: bool,
}

impl Step {
    /// Calls to stores and sink that it may make beyond its budget, for what it was handed.
    fn owed(&self) -> u64 {
        self.keys * CALLS_A_KEY + CALLS_A_BATCH
    }
}

/// The world, shared by all instances that ever live in it.
pub struct Inner {
    /// What it is.
    pub options: Options,
    /// The bucket.
    pub fake: Arc<FakeB2>,
    pub(super) config: Config,
    pub(super) now: Cell<i64>,
    /// How much of the time that passed nobody could use.
    pub(super) frozen_ms: Cell<i64>,
    pub(super) moment: Cell<u64>,
    entropy: SeededEntropy,
    pub(super) kv: StaleKv,
    pub(super) blob_puts: Cell<u64>,
    /// How often the snapshot's document was stored.
    pub(super) snapshots_stored: Cell<u64>,
    pub(super) documents: MemoryDocuments,
    registry: MemoryRegistry,
    catalogue: MemoryCatalogue,
    delivered_ids: RefCell<BTreeSet<String>>,
    /// Every delivery that reached the sink, if somebody wants to know.
    pub deliveries: RefCell<Vec<Change>>,
    pub(super) alarm: Cell<Option<i64>>,
    pub(super) breaks: RefCell<BTreeMap<u64, Break>>,
    pub(super) effects: Cell<u64>,
    pub(super) troubles: RefCell<Vec<faults::Rule>>,
    pub(super) refusals: RefCell<BTreeMap<String, u8>>,
    /// What the sink refuses for ever, or until everything is taken at rest.
    pub(super) refused_for_ever: RefCell<BTreeSet<String>>,
    /// What the sink ever refused so. A key here is exempt from the comparison at rest, and must be among the dead letters.
    pub(super) exempt: RefCell<BTreeSet<String>>,
    /// How many deliveries from now on the sink takes a part of before it fails.
    pub(super) halves: Cell<u8>,
    /// What kinds of effects there were, and which of them broke.
    pub(super) effects_seen: RefCell<BTreeSet<&'static str>>,
    pub(super) effects_broken: RefCell<BTreeSet<&'static str>>,
    tokens: RefCell<BTreeMap<String, Option<String>>>,
    steps: RefCell<BTreeMap<u64, Step>>,
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
    was_stretched: Cell<bool>,
    /// How many steps each instance began.
    pub steps_taken: RefCell<BTreeMap<String, u64>>,
    published: RefCell<Vec<JobRecord>>,
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

pub(super) fn storage_error() -> Error {
    Error::new(ErrorKind::Storage, "Broken off.", "Try again.").with_retry(Retry::Temporary)
}

async fn let_others_go_first() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Inner {
    /// A world in which nothing has happened yet. With `traced`, what happens is written down.
    pub fn new(options: Options, seed: u64, traced: bool) -> Rc<Self> {
        let fake = Arc::new(FakeB2::new(B2Config {
            order: options.order,
            space_encoding: options.space_encoding,
            page_keys_max: options.page_keys,
            ..B2Config::like_b2()
        }));
        // The account is empty, so the name is free.
        let _ = fake.create_bucket(BUCKET);
        let key = new_key(&fake);
        let source = SourcePath::parse(BUCKET).unwrap_or_else(|error| unreachable!("{error}"));
        let order = match options.order {
            model::KeyOrder::Utf8 => KeyOrder::Utf8,
            model::KeyOrder::Utf16 => KeyOrder::Utf16,
        };
        let mut checks = Checks::new(SYNC, order, source.clone(), &FilterSpec::default(), options.reconcile);
        checks.limit_objects(options.objects_max);
        checks.limit_deletions(options.deletion_limit);
        // Who sends dead letters back starts a job that waits for no cap.
        checks.limit_class_c(options.class_c_max.filter(|_| !options.requeues), options.skew_ms_max);
        checks.add_secret(MASTER_KEY.to_owned());
        checks.add_secret(key.secret.clone());
        let master_keys =
            MasterKeys::parse(&format!("k1:{MASTER_KEY}")).unwrap_or_else(|error| unreachable!("{error}"));
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
            delivered_ids: RefCell::default(),
            deliveries: RefCell::default(),
            alarm: Cell::new(None),
            breaks: RefCell::default(),
            effects: Cell::new(0),
            troubles: RefCell::default(),
            refusals: RefCell::default(),
            refused_for_ever: RefCell::default(),
            exempt: RefCell::default(),
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
            was_stretched: Cell::new(false),
            steps_taken: RefCell::default(),
            published: RefCell::default(),
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

    // ---- bookkeeping ---------------------------------------------------------------------------------------------

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

    fn step<T>(&self, task: u64, look: impl FnOnce(&mut Step) -> T) -> T {
        look(self.steps.borrow_mut().entry(task).or_default())
    }

    /// That task is over.
    pub(super) fn forget_task(&self, task: u64) {
        self.steps.borrow_mut().remove(&task);
    }

    /// What is stored or said in this moment holds no secret, also if it is replaced in the next.
    fn check_no_secret(&self, place: &str, bytes: &[u8]) {
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

/// What one task of one instance has of the world: the one thing that all its seams are.
#[derive(Clone)]
pub(super) struct Seam {
    pub(super) inner: Rc<Inner>,
    instance: Instance,
    slot: usize,
    task: u64,
    /// Whether it is a shard's: what that asks of B2 is not in the budget of the coordinator's step.
    shard: bool,
}

impl Seam {
    async fn die(&self) -> ! {
        self.inner.doom.set(Some(Doom::Instance(self.slot)));
        pending().await
    }

    fn note(&self, line: impl FnOnce() -> String) {
        self.inner.note(|| format!("{} #{} {}", self.instance.name, self.task, line()));
    }

    /// What becomes of the next effect.
    fn broken(&self, what: &'static str) -> Option<Break> {
        self.inner.effects.set(self.inner.effects.get() + 1);
        self.inner.effects_seen.borrow_mut().insert(what);
        let how = self.inner.breaks.borrow_mut().remove(&self.inner.effects.get())?;
        self.inner.effects_broken.borrow_mut().insert(what);
        self.inner.count(|tally| tally.faults += 1);
        self.note(|| format!("{what}: {how:?}"));
        Some(how)
    }

    /// Something that changes the world, or reads it.
    async fn effect<T>(
        &self,
        what: &'static str,
        broken: fn() -> Error,
        apply: impl AsyncFnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let_others_go_first().await;
        let how = self.broken(what);
        match how {
            Some(Break::Before) => return Err(broken()),
            Some(Break::DieBefore) => self.die().await,
            _ => {}
        }
        let answer = apply().await?;
        match how {
            Some(Break::After) => Err(broken()),
            Some(Break::DieAfter) => self.die().await,
            _ => Ok(answer),
        }
    }

    async fn wait(&self, millis: u64) {
        let until = self.inner.now.get().saturating_add(i64::try_from(millis).unwrap_or(i64::MAX));
        let mut sleeps = false;
        poll_fn(|_| {
            if self.inner.now.get() >= until {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut sleeps, true) {
                self.inner.timers.borrow_mut().push(until);
            }
            Poll::Pending
        })
        .await;
    }

    /// A page is asked for: its step's budget must allow it.
    fn check_page(&self, start: &str) {
        // Who is frozen between asking the budget and asking for a page is not to blame.
        let now = self.inner.now.get() - self.inner.frozen_ms.get();
        let budget = &self.inner.config.budget;
        let page_keys = self.inner.options.page_keys as u64;
        let ranges = self.inner.options.streams > 1;
        let skew_ms = 2 * self.inner.options.skew_ms_max;
        let over = self.inner.step(self.task, |step| {
            // Several ranges may be read at the same time, and each asks again by itself.
            let again = !step.asked.insert(start.to_owned()) || step.last_status == 400;
            if step.pages == 0 {
                // The engine's time begins after the coordinator has authorized.
                step.began_at = now;
            }
            // A step reads one page whatever its budget; where that ends a range, one more tells whether it may.
            // The first key on whose place orders do not agree has the bucket asked for its order, with two pages or a few
            // that belong to the one in which it came.
            let asks_order = start.contains("%F4%8F%BF%BD") || start.contains("%EF%BF%BD");
            step.since_order = if asks_order { Some(0) } else { step.since_order.map(|pages| pages + 1) };
            let probing = step.since_order.is_some();
            let belongs = step.since_order.is_some_and(|pages| pages <= 1);
            if again || step.pages == 0 || (ranges && step.pages == 1) || belongs {
                return None;
            }
            let wall_ms = u64::try_from(now - step.began_at).unwrap_or(0);
            // Those pages are not pages of the job.
            let keys = step.keys.saturating_sub(if probing { 4 * page_keys } else { page_keys });
            // The page that checks the end of a range is in the reserve of the one before it. While one range's pieces are
            // stored and delivered, pages of others are on their way that were allowed before.
            let (calls, bytes, slack_ms) = if ranges {
                (
                    step.internal.saturating_sub(step.owed()),
                    step.bytes.saturating_sub(step.page_bytes_max),
                    LEASE_MARGIN_MS,
                )
            } else {
                (step.internal + INTERNAL_REQUESTS_RESERVED, step.bytes, skew_ms)
            };
            let signals = u64::from(step.signalled && !ranges);
            [
                ("requests to B2", step.external + EXTERNAL_REQUESTS_RESERVED / 4, budget.external_requests_max),
                ("calls to stores", calls, budget.internal_requests_max),
                ("bytes", bytes, budget.bytes_received_max.saturating_sub(1)),
                ("keys", keys, budget.keys_max.saturating_sub(1)),
                ("ms", wall_ms, budget.wall_ms_max.saturating_add(slack_ms)),
                ("signals that the CPU time runs out", signals, 0),
            ]
            .into_iter()
            .find(|(_, spent, max)| spent > max)
        });
        if let Some((what, spent, max)) = over {
            let message = format!("a page is asked for after {spent} {what} of {max}");
            self.inner.check(Err(Violation::new(Rule::WithinTheBudget, message)));
        }
    }

    /// A batch is delivered: but for the first of what was noted, its step's budget must allow it.
    fn check_batch(&self, changes: &[Change]) {
        let most = self.inner.config.budget.internal_requests_max;
        let ids: BTreeSet<String> = changes.iter().map(|change| change.id.clone()).collect();
        let over = self.inner.step(self.task, |step| {
            let again = ids.is_subset(&step.batch);
            let asks = std::mem::replace(&mut step.delivered, true) && !again;
            step.batch = ids;
            Some(step.internal + INTERNAL_REQUESTS_RESERVED).filter(|spent| asks && *spent > most)
        });
        if let Some(spent) = over {
            let message = format!("a batch is delivered after {spent} calls of {most}");
            self.inner.check(Err(Violation::new(Rule::WithinTheBudget, message)));
        }
    }

    /// Adds to what the step has spent, which must be no more than its budget and what one page may take beyond it.
    fn spend(&self, add: impl FnOnce(&mut Step)) {
        let now = self.inner.now.get() - self.inner.frozen_ms.get();
        let budget = &self.inner.config.budget;
        let page_keys = self.inner.options.page_keys as u64;
        let over = self.inner.step(self.task, |step| {
            add(step);
            step.lease?;
            let wall_ms = u64::try_from(now - step.began_at).unwrap_or(0);
            // Where two deletions are a blob, what vanishes between two keys is in no reserve.
            let tiny = u64::from(self.inner.options.thresholds != Thresholds::USUAL);
            let owed = step.owed() + tiny * CALLS_A_KEY * self.inner.options.keys as u64;
            [
                ("requests to B2", step.external, budget.external_requests_max.max(REQUESTS_MIN)),
                ("calls to stores", step.internal, budget.internal_requests_max.saturating_add(owed)),
                ("bytes", step.bytes, budget.bytes_received_max.saturating_add(PAGES_BEYOND_MAX * step.page_bytes_max)),
                ("keys", step.keys, budget.keys_max.saturating_add(PAGES_BEYOND_MAX * page_keys)),
                ("ms", wall_ms, budget.wall_ms_max.saturating_add(LEASE_MARGIN_MS)),
            ]
            .into_iter()
            .find(|(_, spent, max)| spent > max)
        });
        if let Some((what, spent, max)) = over {
            let message = format!("a step has spent {spent} {what} of {max}");
            self.inner.check(Err(Violation::new(Rule::WithinTheBudget, message)));
        }
    }

    fn coordinator_stored(&self, bytes: &[u8]) {
        let before = self.inner.last_step_lease.get();
        let stored = self.inner.checks.borrow_mut().coordinator_stored(self.inner.now.get(), bytes);
        let CoordinatorSeen { lease, job, stretched, limited, bookmark } = match stored {
            Ok(stored) => stored,
            Err(violation) => return self.inner.check(Err(violation)),
        };
        if job.is_some() && job != *self.inner.last_job.borrow() {
            // What is known of the job before it.
            self.inner.count(|tally| {
                tally.jobs += 1;
                tally.limited += u64::from(limited);
                tally.stretched += u64::from(self.inner.was_stretched.get());
            });
        }
        self.inner.was_stretched.set(stretched);
        self.note(|| format!("coordinator: job {}, lease {}", shown(job.as_ref()), shown(lease.as_ref())));
        if lease.is_some() && lease != before {
            self.inner.count(|tally| {
                tally.steps += 1;
                tally.taken_over += u64::from(before.is_some());
                tally.bookmarks += u64::from(bookmark);
            });
            *self.inner.steps_taken.borrow_mut().entry(self.instance.name.clone()).or_default() += 1;
            let began_at = self.inner.now.get();
            let (lease, job) = (lease, job.clone());
            self.inner.step(self.task, |step| {
                *step = Step { lease, job, began_at, configured_at: step.configured_at, ..Step::default() };
            });
        }
        self.inner.last_step_lease.set(lease);
        if job.is_some() {
            *self.inner.last_job.borrow_mut() = job;
        }
    }

    /// Notes which keys a job was answered.
    fn page_answered(&self, request: &Request, body: &[u8], trouble: Option<Trouble>) {
        let query = |name: &str| {
            let pairs = request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
            let value = pairs.filter(|(it, _)| *it == name).map(|(_, value)| value).next()?;
            Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
        };
        let Ok(page) = parse_list_page(body) else { return };
        let from = match query("continuation-token") {
            Some(token) => self.inner.tokens.borrow().get(&token).cloned().flatten(),
            None => query("start-after").filter(|after| !after.is_empty()),
        };
        let last = page.entries.iter().last().map(|entry| entry.key.to_owned());
        if let Some(token) = &page.next_token {
            let leads_to = if trouble == Some(Trouble::SameToken) { from.clone() } else { last.clone() };
            self.inner.tokens.borrow_mut().insert(token.clone(), leads_to);
        }
        self.note(|| {
            let (from, to) = (shown(from.as_ref()), shown(last.as_ref()));
            format!("page of {} keys after {from} up to {to}, more: {}", page.entries.len(), page.truncated)
        });
        let at = self.inner.next_moment();
        let to = if page.truncated { last } else { None };
        if page.truncated && to.is_none() {
            return;
        }
        let (keys, bytes) = (page.entries.len() as u64, body.len() as u64);
        self.spend(|step| {
            step.pages += 1;
            if !self.shard {
                step.keys += keys;
                step.bytes += bytes;
                step.page_bytes_max = step.page_bytes_max.max(bytes);
            }
        });
        let (job, configured_at) = self.inner.step(self.task, |step| (step.job.clone(), step.configured_at));
        if let Some(job) = job {
            self.inner.checks.borrow_mut().paged(at, &job, configured_at, from, to);
        }
    }
}

/// What arrives of a call or an answer.
fn resent<T: Serialize + DeserializeOwned>(value: &T) -> Result<T, Error> {
    let lost = |error| Error::internal(format!("A call does not arrive as it was: {error}."));
    serde_json::from_str(&serde_json::to_string(value).map_err(lost)?).map_err(lost)
}

/// Enough of a blob's name to tell it from others.
fn short(name: &str) -> &str {
    name.find('/').and_then(|slash| name.get(..slash + 9)).unwrap_or(name)
}

fn shown(value: Option<&impl std::fmt::Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string().escape_debug().to_string())
}

fn interrupted() -> TransportError {
    TransportError { fault: TransportFault::Interrupted, message: "connection closed".to_owned() }
}

fn timed_out() -> TransportError {
    TransportError { fault: TransportFault::TimedOut, message: "no complete response".to_owned() }
}

impl HttpClient for Seam {
    async fn send(&self, request: Request, limits: ExchangeLimits) -> Result<Response, TransportError> {
        let_others_go_first().await;
        self.inner.count(|tally| tally.requests += 1);
        let listing = Operation::of(&request) == Operation::List;
        if listing {
            let start: Vec<&str> = request.uri().query().unwrap_or_default().split('&').collect();
            let names = ["continuation-token=", "start-after=", "prefix="];
            let start: Vec<&str> =
                start.into_iter().filter(|pair| names.iter().any(|name| pair.starts_with(name))).collect();
            if !self.shard {
                self.check_page(&start.join("&"));
            }
        }
        self.spend(|step| step.external += u64::from(!self.shard));
        let how = self.broken("request");
        match how {
            Some(Break::Before) => return Err(interrupted()),
            Some(Break::DieBefore) => self.die().await,
            _ => {}
        }
        let latency_ms = 1 + self.inner.entropy.below(self.inner.options.latency_ms_max);
        self.wait(latency_ms).await;
        let confirmed = self.inner.checks.borrow().deletes_are_confirmed();
        let trouble = faults::take(&mut self.inner.troubles.borrow_mut(), &request, confirmed);
        if let Some(trouble) = trouble {
            self.inner.count(|tally| tally.troubles += 1);
            self.inner.fake.inject(B2Rule::next(Target::Any, trouble.fault()));
        }
        // B2's own clock is right.
        let outcome = self.inner.fake.handle(&request, Timestamp::from_millis(self.inner.now.get()));
        let what = if listing { "list" } else { "authorize" };
        let response = match outcome {
            Outcome::Respond(response) => response,
            Outcome::Fault(WireFault::Hang | WireFault::Delay { .. }) => {
                self.note(|| format!("{what}: {trouble:?}"));
                self.wait(limits.timeout_ms).await;
                return Err(timed_out());
            }
            Outcome::Fault(WireFault::Reset | WireFault::CutBody { .. }) => {
                self.note(|| format!("{what}: {trouble:?}"));
                return Err(interrupted());
            }
        };
        let status = response.status().as_u16();
        self.inner.step(self.task, |step| step.last_status = status);
        self.note(|| match trouble {
            Some(trouble) => format!("{what}: {status} ({trouble:?})"),
            None => format!("{what}: {status}"),
        });
        match how {
            Some(Break::After) => return Err(interrupted()),
            Some(Break::DieAfter) => self.die().await,
            _ => {}
        }
        if listing && status == 200 {
            self.page_answered(&request, response.body(), trouble);
        }
        Ok(response)
    }
}

impl BlobStore for Seam {
    async fn get(&self, name: &str) -> Result<Option<Bytes>, Error> {
        self.spend(|step| step.internal += 1);
        self.effect("KV get", storage_error, async || {
            let seen = self.inner.kv.get(name, self.instance.place, self.inner.now.get());
            if seen.stale {
                self.inner.count(|tally| tally.stale_reads += 1);
                self.note(|| {
                    format!(
                        "KV still shows {}: {}",
                        short(name),
                        if seen.value.is_some() { "a value" } else { "nothing" }
                    )
                });
            }
            Ok(seen.value)
        })
        .await
    }

    async fn put(&self, name: &str, value: Bytes) -> Result<(), Error> {
        self.spend(|step| step.internal += 1);
        self.effect("KV put", storage_error, async || {
            // What a checkpoint holds in blobs where it may hold next to nothing itself is no part of a snapshot.
            let usual = self.inner.options.thresholds == Thresholds::USUAL;
            let counts = u64::from(usual || !name.starts_with("scratch/"));
            self.inner.blob_puts.set(self.inner.blob_puts.get() + counts);
            self.note(|| format!("KV put {}", short(name)));
            self.inner.check_no_secret(name, &value);
            let before = self.inner.kv.put(name, value.clone(), self.instance.place, self.inner.now.get());
            if before.is_some_and(|before| before != value) {
                let message = format!("{name} has got a second value");
                self.inner.check(Err(Violation::new(Rule::BlobsAreImmutable, message)));
            }
            Ok(())
        })
        .await
    }

    async fn delete(&self, name: &str) -> Result<(), Error> {
        self.spend(|step| step.internal += 1);
        self.effect("KV delete", storage_error, async || {
            self.note(|| format!("KV delete {}", short(name)));
            let checked = self.inner.checks.borrow().blob_deleted(name);
            self.inner.check(checked);
            self.inner.kv.delete(name);
            Ok(())
        })
        .await
    }
}

impl DocumentStore for Seam {
    async fn load(&self, name: &str) -> Result<Option<Document>, Error> {
        self.spend(|step| step.internal += u64::from(name != DOCUMENT));
        self.effect("document read", storage_error, async || self.inner.documents.load(name).await).await
    }

    async fn swap(&self, name: &str, expected: u64, value: Option<Bytes>) -> Result<Swapped, Error> {
        self.spend(|step| step.internal += u64::from(name != DOCUMENT));
        self.effect("document swap", storage_error, async || {
            self.inner.check_no_secret(name, value.as_deref().unwrap_or_default());
            let swapped = self.inner.documents.swap(name, expected, value.clone()).await?;
            match (swapped, &value) {
                (Swapped::Conflict, _) => self.note(|| format!("{name}: conflict")),
                (Swapped::Done(_), Some(bytes)) if name == DOCUMENT => self.coordinator_stored(bytes),
                (Swapped::Done(_), Some(_)) if name == dead_letters::DOCUMENT => {
                    self.inner.count(|tally| tally.letters += 1);
                    self.note(|| "dead letters stored".to_owned());
                }
                (Swapped::Done(_), Some(bytes)) => {
                    self.inner.snapshots_stored.set(self.inner.snapshots_stored.get() + 1);
                    self.note(|| snapshot_shown(bytes));
                    let exempt = self.inner.exempt.borrow();
                    let checked = self.inner.checks.borrow_mut().snapshot_stored(bytes, &self.inner.kv, &exempt);
                    self.inner.step(self.task, |step| step.delivered = false);
                    self.inner.check(checked.map(|seen| {
                        self.inner.count(|tally| {
                            tally.pending_blobs += u64::from(seen.pending);
                            tally.leaf_blobs += u64::from(seen.leaves);
                            tally.deletion_blobs += u64::from(seen.deletions);
                            tally.doubt_blobs += u64::from(seen.in_doubt);
                        });
                    }));
                }
                (Swapped::Done(_), None) => self.note(|| format!("{name} deleted")),
            }
            Ok(swapped)
        })
        .await
    }
}

fn snapshot_shown(bytes: &[u8]) -> String {
    let Ok(document) = root::SnapshotDocument::decode(bytes) else { return "snapshot: unreadable".to_owned() };
    let root = format!("snapshot: generation {}, {} entries", document.root.generation, document.root.entries);
    match document.checkpoint {
        None => root,
        Some(it) => format!(
            "{root}; checkpoint of {}: after {}, covered to {}, {} deletions, {} delivered, listed: {}",
            it.job_id,
            shown(it.start_after.as_ref()),
            shown(it.covered_to.as_ref()),
            it.deletions_found,
            it.deletions_delivered,
            it.listed
        ),
    }
}

impl Clock for Seam {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.inner.now.get() + self.instance.offset_ms.get())
    }

    async fn sleep(&self, millis: u64) {
        self.wait(millis).await;
    }

    /// Of each step, from another time on; of some, from before it began, when it is about another one.
    fn is_near_cpu_limit(&self) -> bool {
        let Some(most) = self.inner.options.cpu_asks_max else { return false };
        let (is_near, first) = self.inner.step(self.task, |step| {
            step.cpu_asked += 1;
            let is_near = u64::from(step.cpu_asked) > mix(self.task) % (u64::from(most) + 1);
            let first = is_near && !step.signalled && step.cpu_asked > 1;
            // What it was told before it asked for the first time is not about it.
            step.signalled |= first && !mix(self.task).is_multiple_of(u64::from(most) + 1);
            (is_near, first && step.signalled)
        });
        if first {
            self.inner.count(|tally| tally.signals += 1);
            self.note(|| "is told that its CPU time runs out".to_owned());
        }
        is_near
    }
}

impl Entropy for Seam {
    fn fill(&self, bytes: &mut [u8]) {
        self.inner.entropy.fill(bytes);
    }
}

impl Registry for Seam {
    async fn insert_connection(&self, record: ConnectionRecord) -> Result<ConnectionRecord, Error> {
        self.inner.registry.insert_connection(record).await
    }

    async fn connection(&self, id_or_name: &str) -> Result<Option<ConnectionRecord>, Error> {
        self.effect("registry: connection", storage_error, async || self.inner.registry.connection(id_or_name).await)
            .await
    }

    async fn update_connection(&self, record: ConnectionRecord, expected: u64) -> Result<ConnectionRecord, Error> {
        let stored = serde_json::to_vec(&record).unwrap_or_default();
        self.effect("registry: update", storage_error, async || {
            self.inner.check_no_secret("the connection", &stored);
            self.inner.registry.update_connection(record, expected).await
        })
        .await
    }

    async fn connections(&self) -> Result<Vec<ConnectionRecord>, Error> {
        self.inner.registry.connections().await
    }

    async fn insert_sync(&self, record: SyncRecord) -> Result<SyncRecord, Error> {
        self.inner.registry.insert_sync(record).await
    }

    async fn sync(&self, sync_id: &str) -> Result<Option<SyncRecord>, Error> {
        self.effect("registry: sync", storage_error, async || {
            let at = self.inner.moment.get();
            self.inner.step(self.task, |step| step.configured_at = at);
            self.inner.registry.sync(sync_id).await
        })
        .await
    }

    async fn update_sync(&self, record: SyncRecord, expected: u64) -> Result<SyncRecord, Error> {
        self.inner.registry.update_sync(record, expected).await
    }

    async fn delete_sync(&self, sync_id: &str) -> Result<bool, Error> {
        self.inner.registry.delete_sync(sync_id).await
    }

    async fn syncs(&self, query: &SyncQuery) -> Result<Vec<SyncRecord>, Error> {
        self.inner.registry.syncs(query).await
    }

    async fn due(&self, at: Timestamp, limit: usize) -> Result<Vec<DueSync>, Error> {
        self.effect("registry: due", storage_error, async || self.inner.registry.due(at, limit).await).await
    }

    async fn poked(&self, due: &DueSync, next: Option<Timestamp>) -> Result<(), Error> {
        self.effect("registry: poke", storage_error, async || self.inner.registry.poked(due, next).await).await
    }

    async fn set_poke_after(&self, sync_id: &str, at: Option<Timestamp>) -> Result<(), Error> {
        self.effect("registry: poke", storage_error, async || self.inner.registry.set_poke_after(sync_id, at).await)
            .await
    }
}

/// The core's catalogue behind its own adaptor, with a log.
pub(super) struct SimSink {
    seam: Seam,
    target: CatalogueTarget,
}

fn sink_error() -> Error {
    Error::new(ErrorKind::Sink, "The sink broke off.", "Try again.").with_retry(Retry::Temporary)
}

impl SimSink {
    /// Which of these the sink takes.
    fn refusals(&self, changes: &[Change]) -> Vec<Option<String>> {
        let mut refusals = self.seam.inner.refusals.borrow_mut();
        let for_ever = self.seam.inner.refused_for_ever.borrow();
        let mut refuse = |key: &str| {
            if for_ever.contains(key) {
                return Some("refused for ever".to_owned());
            }
            let left = refusals.get_mut(key)?;
            *left -= 1;
            if *left == 0 {
                refusals.remove(key);
            }
            self.seam.inner.count(|tally| tally.faults += 1);
            Some("refused for now".to_owned())
        };
        changes.iter().map(|change| refuse(&change.entry.key)).collect()
    }

    fn seen(&self, changes: &[Change]) {
        let inner = &self.seam.inner;
        let mut ids = inner.delivered_ids.borrow_mut();
        for (number, change) in changes.iter().enumerate() {
            let repeated = !ids.insert(change.id.clone());
            inner.count(|tally| {
                tally.changes += 1;
                tally.repeated += u64::from(repeated);
            });
            if number == DELIVERIES_SHOWN_MAX {
                self.seam.note(|| format!("delivers {} more", changes.len() - number));
            } else if number < DELIVERIES_SHOWN_MAX {
                self.seam.note(|| {
                    let Entry { key, etag, size, last_modified } = &change.entry;
                    let (kind, id) = (change.kind.as_str(), &change.id);
                    format!("delivers {kind} {key:?} ({etag}, {size} B, {last_modified}) as {id}")
                });
            }
        }
        inner.deliveries.borrow_mut().extend_from_slice(changes);
        let step = inner.step(self.seam.task, |step| step.lease);
        let checked = inner.checks.borrow_mut().delivered(step, changes);
        inner.check(checked);
    }
}

impl Sink for SimSink {
    fn batch_max(&self) -> usize {
        self.seam.inner.options.batch_max
    }

    async fn deliver(&self, changes: &[Change]) -> Result<Vec<Delivery>, Error> {
        let seam = &self.seam;
        seam.check_batch(changes);
        seam.inner.step(seam.task, |step| step.internal += 1);
        seam.effect("delivery", sink_error, async || {
            seam.inner.check_no_secret("a delivery", format!("{changes:?}").as_bytes());
            let offered = seam.inner.checks.borrow_mut().offered(seam.inner.next_moment(), changes);
            seam.inner.check(offered);
            let refusals = self.refusals(changes);
            let taken = changes.iter().zip(&refusals).filter(|(_, refusal)| refusal.is_none());
            let mut taken: Vec<Change> = taken.map(|(change, _)| change.clone()).collect();
            let fails = seam.inner.halves.get() > 0;
            if fails {
                seam.inner.halves.set(seam.inner.halves.get() - 1);
                seam.inner.count(|tally| (tally.faults, tally.halves) = (tally.faults + 1, tally.halves + 1));
                taken.truncate(taken.len().div_ceil(2));
                seam.note(|| format!("the sink takes {} of {} changes and fails", taken.len(), changes.len()));
            }
            self.seen(&taken);
            let send = async |call| seam.inner.catalogue.call(NAMESPACE, TARGET_BUCKET, call);
            let clock = seam.clone();
            let sink = CatalogueSink { send, clock, target: self.target.clone() };
            let mut answers = sink.deliver(&taken).await?.into_iter();
            if fails {
                return Err(sink_error());
            }
            let answer = |refusal: Option<String>| match refusal {
                Some(reason) => Some(Delivery::Refused(reason)),
                None => answers.next(),
            };
            Ok(refusals.into_iter().filter_map(answer).collect())
        })
        .await
    }
}

/// [`Seam`] as the coordinator sees it.
pub(super) struct SimHome {
    seam: Seam,
}

impl SimHome {
    pub(super) fn new(inner: &Rc<Inner>, instance: &Instance, slot: usize, task: u64) -> Self {
        let (inner, instance) = (Rc::clone(inner), instance.clone());
        Self { seam: Seam { inner, instance, slot, task, shard: false } }
    }
}

impl Home for SimHome {
    type Http = Seam;
    type Blobs = Seam;
    type Documents = Seam;
    type Clock = Seam;
    type Entropy = Seam;
    type Registry = Seam;
    type Sink = SimSink;

    fn http(&self) -> &Seam {
        &self.seam
    }

    fn blobs(&self, _: &str) -> Seam {
        self.seam.clone()
    }

    fn documents(&self) -> &Seam {
        &self.seam
    }

    fn clock(&self) -> &Seam {
        &self.seam
    }

    fn entropy(&self) -> &Seam {
        &self.seam
    }

    fn registry(&self) -> &Seam {
        &self.seam
    }

    fn sink(&self, sync: &SyncRecord) -> SimSink {
        let target = CatalogueTarget {
            bucket_id: sync.bucket_id.clone(),
            sync_id: sync.sync_id.clone(),
            connection_id: sync.connection_id.clone(),
            source_bucket: sync.source.bucket().as_str().to_owned(),
        };
        SimSink { seam: self.seam.clone(), target }
    }

    fn config(&self) -> &Config {
        &self.seam.inner.config
    }

    fn instance(&self) -> &str {
        &self.seam.instance.name
    }

    async fn set_alarm(&self, at: Option<Timestamp>) -> Result<(), Error> {
        let seam = &self.seam;
        seam.effect("alarm", storage_error, async || {
            // As an offset, as homes do: an instance's own clock may be wrong.
            let wait_ms = at.map(|at| at.as_millis() - Clock::now(seam).as_millis());
            seam.inner.alarm.set(wait_ms.map(|wait_ms| seam.inner.now.get() + wait_ms.max(0)));
            Ok(())
        })
        .await
    }

    async fn publish_job(&self, job: &JobRecord) -> Result<(), Error> {
        let seam = &self.seam;
        seam.effect("history", storage_error, async || {
            seam.note(|| {
                let error = job.error.as_ref().map_or("", |error| error.message.as_str());
                format!("{} ended: {:?} {error}", job.job_id, job.status)
            });
            seam.inner.check_no_secret("a published job", format!("{job:?}").as_bytes());
            seam.inner.published.borrow_mut().push(job.clone());
            Ok(())
        })
        .await
    }

    fn memory(&self) -> Option<&Memory> {
        self.seam.inner.options.memory.then(|| self.seam.instance.memory.as_ref())
    }

    fn shards_max(&self) -> usize {
        self.seam.inner.options.shards
    }

    async fn read_range(&self, shard: usize, call: RangeCall) -> Result<RangeAnswer, Error> {
        let there = Seam { shard: true, ..self.seam.clone() };
        let call = resent(&call)?;
        let ask = async || {
            there.note(|| format!("shard {shard} is asked to read"));
            there.inner.count(|tally| tally.shard_calls += 1);
            let answer = ranges::read_range(&there, &there, &there, self.config(), call).await?;
            there.note(|| format!("shard {shard} answers"));
            resent(&answer)
        };
        self.seam.spend(|step| step.internal += 1);
        self.seam.effect("shard", storage_error, ask).await
    }

    async fn wipe(&self, _: &str) -> Result<bool, Error> {
        let seam = &self.seam;
        seam.effect("wipe", storage_error, async || {
            let names = seam.inner.kv.all();
            names.iter().take(WIPED_AT_ONCE).for_each(|(name, _)| seam.inner.kv.delete(name));
            seam.note(|| format!("wipes {} of {} blobs", names.len().min(WIPED_AT_ONCE), names.len()));
            if names.len() > WIPED_AT_ONCE {
                return Ok(false);
            }
            for name in [DOCUMENT, root::DOCUMENT, dead_letters::DOCUMENT] {
                if let Some(document) = seam.inner.documents.load(name).await? {
                    seam.inner.documents.swap(name, document.revision, None).await?;
                }
            }
            Ok(true)
        })
        .await
    }
}
