//! A home in memory: a small bucket behind an HTTP client, stores that break or stop for ever at any effect, up to
//! three sinks of any manner, a clock that moves when it is told to or when nothing else can happen, and the alarm as
//! it was last set.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use super::*;
use crate::{conformance::registry as records, registry::MemoryRegistry};
use b2sync_core::{
    http::{ExchangeLimits, Request, Response, StatusCode, TransportError},
    secret::SecretString,
    source_path::SourcePath,
    state::document,
    store::{Document, MemoryBlobs, MemoryDocuments, Swapped},
    testing::{Seeded, VirtualClock},
};

pub(super) const SYNC: &str = "sync_1";
const CONNECTION: &str = "conn_1";
/// 2024-01-01T00:00:00Z
pub(super) const START: i64 = 1_704_067_200_000;

/// What becomes of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    /// It fails before it happened.
    Before,
    /// It happens, and its answer is lost.
    After,
    /// Its caller is killed before it happened.
    KillBefore,
    /// Its caller is killed after it happened.
    KillAfter,
}

type Hook = Box<dyn FnOnce(&World)>;

/// The world, shared by all instances that ever live in it.
pub(super) struct Inner {
    /// Key → version.
    pub(super) bucket: RefCell<BTreeMap<String, u64>>,
    pub(super) page_size: Cell<usize>,
    pub(super) blobs: MemoryBlobs,
    pub(super) documents: MemoryDocuments,
    /// The sinks of the sync, unless its record says that it has none.
    pub(super) sinks: RefCell<Vec<Rc<TestSink>>>,
    pub(super) registry: MemoryRegistry,
    pub(super) clock: VirtualClock,
    /// When those that sleep wake up.
    timers: RefCell<BTreeMap<u64, i64>>,
    /// Counts whatever happens: where nothing does, time passes.
    activity: Cell<u64>,
    /// Calls to the stores and to sinks.
    pub(super) calls: Cell<u64>,
    entropy: Seeded,
    pub(super) effects: Cell<u64>,
    pub(super) break_at: Cell<Option<(u64, Break)>>,
    /// Answers to the next requests; when empty, the bucket answers.
    pub(super) answers: RefCell<VecDeque<Option<(u16, &'static str)>>>,
    /// Answers every listing with this.
    pub(super) always: Cell<Option<(u16, &'static str)>>,
    pub(super) requests: RefCell<Vec<String>>,
    /// Run while the n-th request from now is on its way.
    hook: RefCell<Option<(u64, Hook)>>,
    pub(super) alarm: Cell<Option<Timestamp>>,
    pub(super) published: RefCell<Vec<JobRecord>>,
    pub(super) publish_fails: Cell<bool>,
    /// Blobs that are stored and not visible yet.
    pub(super) invisible_until: Cell<Option<(i64, &'static str)>>,
    /// Whether every effect lets others go first.
    pub(super) interleaved: Cell<bool>,
    pub(super) wipes: Cell<u64>,
    /// Shards that read ranges; of this many calls, one fails (0: none does).
    pub(super) shards: Cell<usize>,
    pub(super) shard_fails: Cell<u64>,
    pub(super) shard_calls: RefCell<Vec<usize>>,
}

/// An instance of the home.
#[derive(Clone)]
pub(super) struct World {
    pub(super) inner: Rc<Inner>,
    config: Rc<Config>,
    instance: String,
    memory: Rc<Memory>,
    cache: Rc<Cache>,
}

/// The one thing that every seam is.
#[derive(Clone)]
pub(super) struct Seam(Rc<Inner>);

fn broken() -> Error {
    Error::new(ErrorKind::Storage, "Broken off.", "Try again.").with_retry(Retry::Temporary)
}

thread_local! {
    static KILLED: Cell<bool> = const { Cell::new(false) };
}

/// Kills the task that runs: [`poll_to_end`] polls it no more.
pub(super) async fn kill<T>() -> T {
    KILLED.set(true);
    pending().await
}

/// Whether [`kill`] was called since this was last asked.
pub(super) fn was_killed() -> bool {
    KILLED.take()
}

async fn yield_once() {
    let mut yielded = false;
    poll_fn(|_| if std::mem::replace(&mut yielded, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

impl Inner {
    async fn called(&self) {
        self.calls.set(self.calls.get() + 1);
        self.turn().await;
    }

    async fn turn(&self) {
        self.activity.set(self.activity.get() + 1);
        if self.interleaved.get() {
            yield_once().await;
        }
    }

    pub(super) async fn effect<T>(&self, apply: impl AsyncFnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.called().await;
        self.effects.set(self.effects.get() + 1);
        let broke = self.break_at.get().filter(|(at, _)| *at == self.effects.get()).map(|(_, how)| how);
        match broke {
            Some(Break::Before) => return Err(broken()),
            Some(Break::KillBefore) => kill().await,
            _ => {}
        }
        let answer = apply().await?;
        match broke {
            Some(Break::After) => Err(broken()),
            Some(Break::KillAfter) => kill().await,
            _ => Ok(answer),
        }
    }

    /// Time passes when nothing else happens between two looks at the task that wakes up next.
    pub(super) async fn sleep(&self, millis: u64) {
        /// One that was forgotten never wakes up: it holds up the others for this many looks.
        const LOOKS_MAX: u32 = 50;
        let at = self.clock.now_ms.get() + i64::try_from(millis).unwrap();
        let timer = Timer::new(self, at);
        let (mut seen, mut looks) = (None, 0);
        poll_fn(|_| {
            if self.clock.now_ms.get() >= at {
                return Poll::Ready(());
            }
            let idle = seen.replace(self.activity.get()) == Some(self.activity.get());
            looks = if idle { looks + 1 } else { 0 };
            let is_next = self.timers.borrow().values().all(|other| *other >= at);
            if !idle || (!is_next && looks < LOOKS_MAX) {
                return Poll::Pending;
            }
            self.clock.now_ms.set(at);
            self.activity.set(self.activity.get() + 1);
            Poll::Ready(())
        })
        .await;
        drop(timer);
    }
}

/// One that sleeps.
struct Timer<'a> {
    inner: &'a Inner,
    id: u64,
}

impl<'a> Timer<'a> {
    fn new(inner: &'a Inner, at: i64) -> Self {
        inner.activity.set(inner.activity.get() + 1);
        let id = inner.activity.get();
        inner.timers.borrow_mut().insert(id, at);
        Self { inner, id }
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.inner.timers.borrow_mut().remove(&self.id);
    }
}

impl HttpClient for Seam {
    async fn send(&self, request: Request, _: ExchangeLimits) -> Result<Response, TransportError> {
        self.0.turn().await;
        let uri = request.uri().to_string();
        self.0.requests.borrow_mut().push(uri.clone());
        let due = {
            let mut hook = self.0.hook.borrow_mut();
            match hook.take() {
                Some((0, run)) => Some(run),
                Some((n, run)) => {
                    *hook = Some((n - 1, run));
                    None
                }
                None => None,
            }
        };
        if let Some(run) = due {
            run(&World::new_in(&self.0));
        }
        let scripted = self.0.answers.borrow_mut().pop_front().flatten();
        let always = self.0.always.get().filter(|_| uri.contains("list-type"));
        let (status, body) = match scripted.or(always) {
            Some((status, body)) => (status, body.to_owned()),
            None if uri.contains("b2_authorize_account") => (200, ACCOUNT.to_owned()),
            None => (200, self.0.list(&uri)),
        };
        let mut response = Response::new(body.into());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Ok(response)
    }
}

const ACCOUNT: &str = r#"{"accountId":"a","apiInfo":{"storageApi":{"allowed":{"buckets":null,
    "capabilities":["listFiles","readFiles"],"namePrefix":null},"s3ApiUrl":"https://s3.us-west-004.backblazeb2.com"}},
    "applicationKeyExpirationTimestamp":null}"#;

pub(super) fn etag(version: u64) -> String {
    format!("{version:032x}")
}

impl Inner {
    fn list(&self, uri: &str) -> String {
        let query = |name: &str| {
            let pairs = uri.split_once('?').map_or("", |(_, query)| query).split('&');
            let (_, value) = pairs.filter_map(|pair| pair.split_once('=')).find(|(it, _)| *it == name)?;
            Some(percent_encoding::percent_decode_str(value).decode_utf8().unwrap().into_owned())
        };
        let after = query("continuation-token").or_else(|| query("start-after")).unwrap_or_default();
        let bucket = self.bucket.borrow();
        let mut left = bucket.iter().filter(|(key, _)| **key > after);
        let page: Vec<_> = left.by_ref().take(self.page_size.get()).collect();
        let mut xml = String::from("<ListBucketResult><EncodingType>url</EncodingType>");
        match (left.next(), page.last()) {
            (Some(_), Some((last, _))) => {
                write!(xml, "<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>")
                    .unwrap()
            }
            _ => xml.push_str("<IsTruncated>false</IsTruncated>"),
        }
        for (key, version) in page {
            write!(
                xml,
                "<Contents><Key>{key}</Key><LastModified>2023-01-01T00:00:00.000Z</LastModified><ETag>&quot;{}&quot;\
                 </ETag><Size>{version}</Size></Contents>",
                etag(*version)
            )
            .unwrap();
        }
        xml + "</ListBucketResult>"
    }
}

impl BlobStore for Seam {
    async fn get(&self, name: &str) -> Result<Option<Bytes>, Error> {
        self.0.called().await;
        let hidden = self.0.invisible_until.get();
        if hidden.is_some_and(|(until, prefix)| self.0.clock.now_ms.get() < until && name.starts_with(prefix)) {
            return Ok(None);
        }
        self.0.blobs.get(name).await
    }

    async fn put(&self, name: &str, value: Bytes) -> Result<(), Error> {
        self.0.effect(async || self.0.blobs.put(name, value).await).await
    }

    async fn delete(&self, name: &str) -> Result<(), Error> {
        self.0.effect(async || self.0.blobs.delete(name).await).await
    }
}

impl DocumentStore for Seam {
    async fn load(&self, name: &str) -> Result<Option<Document>, Error> {
        self.0.called().await;
        self.0.documents.load(name).await
    }

    async fn swap(&self, name: &str, expected: u64, value: Option<Bytes>) -> Result<Swapped, Error> {
        self.0.effect(async || self.0.documents.swap(name, expected, value).await).await
    }
}

impl Clock for Seam {
    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    async fn sleep(&self, millis: u64) {
        self.0.turn().await;
        self.0.sleep(millis).await;
    }
}

impl Entropy for Seam {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.entropy.fill(bytes);
    }
}

/// [`World`] as the coordinator sees it.
pub(super) struct TestHome {
    seam: Seam,
    config: Rc<Config>,
    instance: String,
    memory: Rc<Memory>,
    cache: Rc<Cache>,
}

impl Home for TestHome {
    type Http = Seam;
    type Blobs = Seam;
    type Documents = Seam;
    type Clock = Seam;
    type Entropy = Seam;
    type Registry = MemoryRegistry;
    type Sink = SinkSeam;

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

    fn registry(&self) -> &MemoryRegistry {
        &self.seam.0.registry
    }

    fn sinks(&self, sync: &SyncRecord) -> Vec<(String, SinkSeam)> {
        if sync.sinks.is_empty() {
            return Vec::new();
        }
        let inner = &self.seam.0;
        let seam = |sink: &Rc<TestSink>| SinkSeam::new(inner, sink);
        inner.sinks.borrow().iter().map(|sink| (sink.sink_id.clone(), seam(sink))).collect()
    }

    fn config(&self) -> &Config {
        &self.config
    }

    fn instance(&self) -> &str {
        &self.instance
    }

    fn cache(&self) -> Option<&Cache> {
        Some(&self.cache)
    }

    fn memory(&self) -> Option<&Memory> {
        Some(&self.memory)
    }

    async fn set_alarm(&self, at: Option<Timestamp>) -> Result<(), Error> {
        self.seam
            .0
            .effect(async || {
                self.seam.0.alarm.set(at);
                Ok(())
            })
            .await
    }

    async fn publish_job(&self, job: &JobRecord) -> Result<(), Error> {
        if self.seam.0.publish_fails.get() {
            return Err(broken());
        }
        self.seam
            .0
            .effect(async || {
                self.seam.0.published.borrow_mut().push(job.clone());
                Ok(())
            })
            .await
    }

    fn shards_max(&self) -> usize {
        self.seam.0.shards.get()
    }

    async fn read_range(&self, shard: usize, call: RangeCall) -> Result<RangeAnswer, Error> {
        let nth = {
            let mut calls = self.seam.0.shard_calls.borrow_mut();
            calls.push(shard);
            calls.len() as u64
        };
        let call = serde_json::to_string(&call).unwrap();
        assert!(!call.contains("K005secret"), "the key travels sealed");
        let seam = &self.seam;
        let call = serde_json::from_str(&call).unwrap();
        let answer = ranges::read_range(seam, seam, seam, &self.config, call).await?;
        if nth.checked_rem(self.seam.0.shard_fails.get()) == Some(0) {
            return Err(broken());
        }
        Ok(serde_json::from_str(&serde_json::to_string(&answer).unwrap()).unwrap())
    }

    async fn feed_blobs(&self, _: &str, cursor: Option<&str>) -> Result<(Vec<String>, Option<String>), Error> {
        // Two at a time.
        let names = self.seam.0.blobs.names();
        let rest = names.into_iter().filter(|name| name.starts_with("feed/") && Some(name.as_str()) > cursor);
        let listed: Vec<_> = rest.take(2).collect();
        let cursor = listed.last().cloned().filter(|_| listed.len() == 2);
        Ok((listed, cursor))
    }

    async fn wipe(&self, _: &str) -> Result<bool, Error> {
        self.seam.0.wipes.set(self.seam.0.wipes.get() + 1);
        for name in self.seam.0.blobs.names() {
            self.seam.0.blobs.delete(&name).await?;
        }
        let sinks: Vec<_> = self.seam.0.sinks.borrow().iter().map(|it| SinkRecord::document(&it.sink_id)).collect();
        for name in [DOCUMENT, document::DOCUMENT].into_iter().chain(sinks.iter().map(String::as_str)) {
            if let Some(document) = self.seam.0.documents.load(name).await? {
                self.seam.0.documents.swap(name, document.revision, None).await?;
            }
        }
        Ok(true)
    }
}

fn config(budget: Budget) -> Config {
    Config {
        b2_api_url: "https://api.backblazeb2.com".to_owned(),
        master_keys: MasterKeys::parse("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap(),
        budget,
        retry: RetryPolicy::NONE,
        sole_instance: true,
        cut_sizes: None,
        thresholds: Thresholds::USUAL,
    }
}

/// What `future` answers; `None` when it was killed on the way.
pub(super) fn poll_to_end<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..100_000 {
        let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if was_killed() {
            return None;
        }
        if let Poll::Ready(value) = polled {
            return Some(value);
        }
    }
    panic!("it neither ends nor dies");
}

pub(super) type Task = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

impl World {
    pub(super) fn new(keys: impl IntoIterator<Item = String>) -> Self {
        let inner = Inner {
            bucket: RefCell::new(keys.into_iter().map(|key| (key, 1)).collect()),
            page_size: Cell::new(10),
            blobs: MemoryBlobs::default(),
            documents: MemoryDocuments::default(),
            sinks: RefCell::new(vec![Rc::new(TestSink::new("catalogue"))]),
            registry: MemoryRegistry::new(),
            clock: VirtualClock::at("2024-01-01T00:00:00Z"),
            timers: RefCell::default(),
            activity: Cell::new(0),
            calls: Cell::new(0),
            entropy: Seeded(Cell::new(1)),
            effects: Cell::new(0),
            break_at: Cell::new(None),
            answers: RefCell::default(),
            always: Cell::new(None),
            requests: RefCell::default(),
            hook: RefCell::default(),
            alarm: Cell::new(None),
            published: RefCell::default(),
            publish_fails: Cell::new(false),
            invisible_until: Cell::new(None),
            interleaved: Cell::new(false),
            wipes: Cell::new(0),
            shards: Cell::new(0),
            shard_fails: Cell::new(0),
            shard_calls: RefCell::default(),
        };
        let world = Self::new_in(&Rc::new(inner));
        let key = SecretString::from("K005secret");
        let mut connection = records::connection(CONNECTION, "B2", START);
        connection.application_key =
            Some(world.config.master_keys.seal(&key, CONNECTION, &Seeded(Cell::new(3))).unwrap());
        connection.authorized_at = None;
        let mut sync = records::sync(SYNC, "bkt", CONNECTION, START).unwrap();
        sync.source = SourcePath::parse("b2://my-videos").unwrap();
        sync.filters = FilterSpec::default();
        sync.reconcile = Default::default();
        sync.deletion_limit = Default::default();
        poll_to_end(async {
            world.inner.registry.insert_connection(connection).await.unwrap();
            world.inner.registry.insert_sync(sync).await.unwrap();
        })
        .unwrap();
        world.ask(Command::Configured);
        world
    }

    fn new_in(inner: &Rc<Inner>) -> Self {
        Self {
            inner: inner.clone(),
            config: Rc::new(config(Budget { wall_ms_max: 120_000, ..Budget::UNLIMITED })),
            instance: "instance_1".to_owned(),
            memory: Rc::default(),
            cache: Rc::default(),
        }
    }

    pub(super) fn with_config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        let mut new = config(self.config.budget);
        change(&mut new);
        self.config = Rc::new(new);
        self
    }

    /// With one more sink.
    pub(super) fn with_sink(self, sink_id: &str, manner: Manner) -> Self {
        let sink = TestSink::new(sink_id);
        sink.manner.set(manner);
        self.inner.sinks.borrow_mut().push(Rc::new(sink));
        self.ask(Command::Configured);
        self
    }

    /// Without the last sink.
    pub(super) fn without_sink(&self) {
        self.inner.sinks.borrow_mut().pop();
        self.ask(Command::Configured);
    }

    /// The n-th sink; 0 is the catalogue.
    pub(super) fn sink(&self, n: usize) -> Rc<TestSink> {
        Rc::clone(&self.inner.sinks.borrow()[n])
    }

    /// A step for every page.
    pub(super) fn a_page_a_step(self) -> Self {
        self.with_config(|config| config.budget.keys_max = 1)
    }

    /// The instance that comes after this one died.
    pub(super) fn next_instance(&self) -> Self {
        Self { instance: format!("{}+", self.instance), memory: Rc::default(), cache: Rc::default(), ..self.clone() }
    }

    pub(super) fn home(&self) -> TestHome {
        TestHome {
            seam: Seam(self.inner.clone()),
            config: self.config.clone(),
            instance: self.instance.clone(),
            memory: Rc::clone(&self.memory),
            cache: Rc::clone(&self.cache),
        }
    }

    /// While the n-th request from now (0: the next) is on its way.
    pub(super) fn at_request(&self, n: u64, run: impl FnOnce(&Self) + 'static) {
        *self.inner.hook.borrow_mut() = Some((n, Box::new(run)));
    }

    pub(super) fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    pub(super) fn wait(&self, millis: i64) {
        let clock = &self.inner.clock.now_ms;
        clock.set(clock.get() + millis);
    }

    pub(super) fn try_ask(&self, command: Command) -> Result<Answer, Error> {
        let home = self.home();
        poll_to_end(Coordinator::new(&home).handle(SYNC, command)).expect("killed")
    }

    pub(super) fn ask(&self, command: Command) -> Answer {
        self.try_ask(command).unwrap()
    }

    pub(super) fn trigger(&self) -> (JobRecord, bool) {
        match self.ask(Command::Trigger { trigger: Trigger::Manual, confirm_deletes: false, full_sync: false }) {
            Answer::Triggered { job, started } => (*job, started),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn status(&self) -> SyncStatus {
        match self.ask(Command::Status) {
            Answer::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn poke(&self) -> Option<Timestamp> {
        match self.ask(Command::Poke { at: self.now() }) {
            Answer::Poked { next } => next,
            other => panic!("{other:?}"),
        }
    }

    /// `None`: killed.
    pub(super) fn try_drive(&self) -> Option<Result<(), Error>> {
        let home = self.home();
        poll_to_end(Coordinator::new(&home).drive())
    }

    /// As the alarm does: one that goes off is set no more.
    pub(super) fn drive(&self) {
        let due = |at: &Timestamp| *at <= self.now();
        self.inner.alarm.set(self.inner.alarm.get().filter(|at| !due(at)));
        self.try_drive().expect("killed").unwrap();
    }

    /// A drive or a command that others may come in between of.
    pub(super) fn task(&self, command: Option<Command>) -> Task {
        let home = self.home();
        Box::pin(async move {
            match command {
                None => Coordinator::new(&home).drive().await,
                Some(command) => Coordinator::new(&home).handle(SYNC, command).await.map(|_| ()),
            }
        })
    }

    /// As time goes by: the alarm drives, the cron pokes every minute, and an instance that dies is followed by the
    /// next instance. Answers by how much a poll began too late at most, in milliseconds.
    pub(super) fn live(&mut self, millis: i64) -> u64 {
        let end = self.now().as_millis() + millis;
        let mut late = 0;
        loop {
            let now = self.now().as_millis();
            let cron = (now / POKE_RUNNING_MS + 1) * POKE_RUNNING_MS;
            let alarm = self.inner.alarm.get().map_or(i64::MAX, Timestamp::as_millis);
            let next = alarm.min(cron).max(now);
            if next > end {
                self.wait((end - now).max(0));
                return late;
            }
            self.wait(next - now);
            let (runs, due) = (self.status().runs, self.status().next_sync_at);
            if cron <= next {
                self.survive(Some(Command::Poke { at: self.now() }));
            }
            if self.inner.alarm.get().is_some_and(|at| at <= self.now()) {
                self.inner.alarm.set(None);
                self.survive(None);
            }
            let status = self.status();
            if status.runs > runs {
                let job = status.current_job.or(status.last_job).unwrap();
                late = late.max(job.created_at.millis_since(due.unwrap_or(job.created_at)));
            }
        }
    }

    /// A drive or a command that may fail for a while, or kill: then there is another instance.
    fn survive(&mut self, command: Option<Command>) {
        match poll_to_end(self.task(command)) {
            None => *self = self.next_instance(),
            Some(Err(error)) => assert!(error.is_transient(), "{error}"),
            Some(Ok(())) => {}
        }
    }

    /// Sends the letters of any sink back, as the API does for the catalogue.
    pub(super) fn send_back(&self, sink_id: &str) -> Task {
        let (home, sink_id) = (self.home(), sink_id.to_owned());
        Box::pin(
            async move { Coordinator::new(&home).send_back(SYNC, &sink_id, &[], home.clock().now()).await.map(|_| ()) },
        )
    }

    /// Lets the alarm drive as long as it goes off at once: jobs that are due begin, and sinks get what they wait for.
    pub(super) fn rest(&self) {
        for _ in 0..1_000 {
            if self.inner.alarm.get().is_none_or(|at| at > self.now()) {
                return;
            }
            self.drive();
        }
        panic!("it does not come to rest: {:?}", self.status());
    }

    /// Lets the alarm drive until no job runs and no sink waits for anything.
    pub(super) fn catch_up(&self) {
        for _ in 0..1_000 {
            self.rest();
            if self.state().pumps.due_at.is_none() {
                return;
            }
            let at = self.inner.alarm.get().expect("a sink waits and there is no alarm");
            self.wait((at.as_millis() - self.now().as_millis()).max(0));
        }
        panic!("the sinks do not catch up: {:?}", self.status().sinks);
    }

    /// Lets the alarm drive until no job runs, and says how often it did. Then comes to rest.
    pub(super) fn run(&self) -> u64 {
        for drives in 0..1_000 {
            if self.status().current_job.is_none() {
                self.rest();
                return drives;
            }
            let at = self.inner.alarm.get().expect("a job runs and there is no alarm");
            self.wait(at.as_millis().saturating_sub(self.now().as_millis()).max(0));
            self.drive();
        }
        panic!("the job does not end: {:?}", self.status());
    }

    pub(super) fn job(&self) -> JobRecord {
        self.trigger();
        self.run();
        self.status().last_job.unwrap()
    }

    pub(super) fn change_sync(&self, change: impl FnOnce(&mut SyncRecord)) {
        poll_to_end(async {
            let mut sync = self.inner.registry.sync(SYNC).await.unwrap().unwrap();
            change(&mut sync);
            let revision = sync.revision;
            self.inner.registry.update_sync(sync, revision).await.unwrap();
        })
        .unwrap();
    }

    pub(super) fn change_connection(&self, change: impl FnOnce(&mut ConnectionRecord)) {
        poll_to_end(async {
            let mut connection = self.connection();
            change(&mut connection);
            let revision = connection.revision;
            self.inner.registry.update_connection(connection, revision).await.unwrap();
        })
        .unwrap();
    }

    pub(super) fn connection(&self) -> ConnectionRecord {
        poll_to_end(self.inner.registry.connection(CONNECTION)).unwrap().unwrap().unwrap()
    }

    pub(super) fn snapshot(&self) -> document::SnapshotDocument {
        let document = poll_to_end(self.inner.documents.load(document::DOCUMENT)).unwrap().unwrap();
        document.map(|it| document::SnapshotDocument::decode(&it.value).unwrap()).unwrap_or_default()
    }

    pub(super) fn put(&self, key: &str, version: u64) {
        self.inner.bucket.borrow_mut().insert(key.to_owned(), version);
    }

    pub(super) fn delete(&self, key: &str) {
        self.inner.bucket.borrow_mut().remove(key);
    }
}

/// `count` keys, of which every `every`-th begins a segment.
pub(super) fn keys(count: usize, every: usize) -> Vec<String> {
    let sync = records::sync(SYNC, "bkt", CONNECTION, START).unwrap();
    let cut = Cut::parse(sync.salt.as_str()).unwrap();
    let mut keys = Vec::new();
    for n in 0..count {
        let begins = n % every == 0;
        let candidates = (0..).map(|salt| format!("k{n:04}-{salt}"));
        keys.extend(candidates.into_iter().find(|key| cut.begins_segment(key) == begins));
    }
    keys
}
