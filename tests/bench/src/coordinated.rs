//! A whole coordinator in this process, and shards in threads of their own: what the Durable Objects of a sync are to
//! each other.
//!
//! The coordinator and each shard have one thread and six connections, as a Worker has. What a shard is asked, and what
//! it answers, crosses as JSON, as it does between Durable Objects. State is in memory, the sink counts.

use std::cell::Cell;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use b2sync_core::engine::memory::Memory;
use b2sync_core::engine::meter::{Budget, STREAMS_HERE_MAX};
use b2sync_core::engine::thresholds::Thresholds;
use b2sync_core::entropy::Entropy;
use b2sync_core::error::{Error, ErrorKind};
use b2sync_core::error_wire::ErrorWire;
use b2sync_core::filter::FilterSpec;
use b2sync_core::http::{ExchangeLimits, HttpClient, Request, Response, TransportError, TransportFault};
use b2sync_core::job::{JobCost, JobRecord, JobStatus, Trigger};
use b2sync_core::policy::Reconcile;
use b2sync_core::retry::RetryPolicy;
use b2sync_core::source_path::SourcePath;
use b2sync_core::store::{MemoryBlobs, MemoryDocuments};
use b2sync_core::time::{Clock, Timestamp};
use b2sync_service::conformance::registry as records;
use b2sync_service::coordinator::protocol::{Answer, Command};
use b2sync_service::coordinator::ranges::{RangeAnswer, RangeCall, read_range};
use b2sync_service::coordinator::{Config, Coordinator, Home};
use b2sync_service::registry::{ConnectionRecord, MemoryRegistry, Registry as _, SyncRecord};
use b2sync_service::seal::MasterKeys;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::LocalSet;

use crate::Result;
use crate::clients::{APPLICATION_KEY, KEY_ID};
use crate::home::{CountingSink, System};
use crate::server::{ListingServer, bucket};

/// As many as a coordinator has on Workers.
const SHARDS: usize = 16;
const SYNC_ID: &str = "sync_bench";
const CONNECTION_ID: &str = "conn_bench";
/// Seals nothing but a key that is no secret.
const MASTER_KEY: &str = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// Asynchronous HTTP: as many exchanges at once as are polled, and as there are connections for.
pub(crate) struct Hyper {
    client: Client<HttpConnector, Full<Bytes>>,
    connections: Semaphore,
}

impl Hyper {
    /// Needs a tokio runtime around it.
    pub(crate) fn new(connections: usize) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), connections: Semaphore::new(connections) }
    }
}

impl HttpClient for Hyper {
    async fn send(&self, request: Request, limits: ExchangeLimits) -> Result<Response, TransportError> {
        let failed = |fault, error: &dyn std::fmt::Display| TransportError { fault, message: error.to_string() };
        let permit = self.connections.acquire().await;
        let _connection = permit.map_err(|error| failed(TransportFault::Unreachable, &error))?;
        let answer = self.client.request(request.map(Full::new));
        // A task of its own, so that the task that waits for it is woken once and not for every frame of the body.
        let exchange = tokio::spawn(async move {
            let (parts, body) = answer.await.map_err(|error| failed(TransportFault::Unreachable, &error))?.into_parts();
            let body = Limited::new(body, limits.body_bytes_max).collect().await;
            let body = body.map_err(|error| failed(TransportFault::Interrupted, &*error))?.to_bytes();
            Ok(Response::from_parts(parts, body))
        });
        let exchange =
            async { exchange.await.unwrap_or_else(|error| Err(failed(TransportFault::Interrupted, &error))) };
        let within = tokio::time::timeout(Duration::from_millis(limits.timeout_ms), exchange).await;
        within.unwrap_or_else(|error| Err(failed(TransportFault::TimedOut, &error)))
    }
}

/// The system's clock, whose sleepers let others work.
pub(crate) struct AsyncSystem;

impl Clock for AsyncSystem {
    fn now(&self) -> Timestamp {
        System.now()
    }

    async fn sleep(&self, millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

impl Entropy for AsyncSystem {
    fn fill(&self, bytes: &mut [u8]) {
        System.fill(bytes);
    }
}

fn config(url: &str, budget: Budget) -> Result<Config, Error> {
    Ok(Config {
        b2_api_url: url.to_owned(),
        master_keys: MasterKeys::parse(MASTER_KEY)?,
        budget,
        retry: RetryPolicy::DEFAULT,
        sole_instance: true,
        cut_sizes: None,
        thresholds: Thresholds::USUAL,
    })
}

fn failed(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Storage, format!("A shard failed: {why}."), "Look at the bench.")
}

fn encode(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(failed)
}

fn decode<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(failed)
}

/// A call, and where the answer goes.
type Asked = (String, oneshot::Sender<String>);

/// A thread that reads ranges. It ends with its caller.
struct Shard(mpsc::UnboundedSender<Asked>);

impl Shard {
    fn start(url: &str) -> Result<Self> {
        let (calls, mut asked) = mpsc::unbounded_channel::<Asked>();
        let config = config(url, Budget::UNLIMITED)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("shard".to_owned()).spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, async {
                let here = Rc::new((Hyper::new(STREAMS_HERE_MAX), config));
                while let Some((call, answer)) = asked.recv().await {
                    let here = Rc::clone(&here);
                    tokio::task::spawn_local(async move {
                        let (http, config) = &*here;
                        // Who asked may have given up.
                        let _ = answer.send(Self::answer(http, config, &call).await);
                    });
                }
            });
        })?;
        Ok(Self(calls))
    }

    async fn answer(http: &Hyper, config: &Config, call: &str) -> String {
        let read = match decode::<RangeCall>(call) {
            Ok(call) => read_range(http, &AsyncSystem, &AsyncSystem, config, call).await,
            Err(error) => Err(error),
        };
        // An empty answer does not decode, and that is what the coordinator says then.
        encode(&read.map_err(ErrorWire::from)).unwrap_or_default()
    }

    async fn ask(&self, call: String) -> Result<String, Error> {
        let (answer, answered) = oneshot::channel();
        self.0.send((call, answer)).map_err(failed)?;
        answered.await.map_err(failed)
    }
}

/// What crossed between the coordinator and its shards.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Crossed {
    /// Calls to shards.
    pub(crate) calls: u64,
    /// Those that failed: the coordinator has read the range itself then.
    pub(crate) failed: u64,
    /// Bytes of the calls and of the answers.
    pub(crate) bytes: u64,
}

/// What a job was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ran {
    /// From before its first step to after its last.
    pub(crate) took: Duration,
    /// What it counted.
    pub(crate) cost: JobCost,
    /// Between coordinator and shards.
    pub(crate) crossed: Crossed,
}

/// A sync of one bucket of the server, which it has synced once.
pub(crate) struct Coordinated {
    /// Of the bucket.
    pub(crate) keys: u64,
    url: String,
    blobs: MemoryBlobs,
    documents: MemoryDocuments,
    registry: MemoryRegistry,
    shards: Vec<Shard>,
}

impl Coordinated {
    /// Syncs the bucket of this many keys for the first time.
    pub(crate) fn first(server: &ListingServer, keys: u64) -> Result<Self> {
        let registry = MemoryRegistry::new();
        let key = MasterKeys::parse(MASTER_KEY)?.seal(&APPLICATION_KEY.into(), CONNECTION_ID, &System)?;
        let connection = ConnectionRecord {
            key_id: KEY_ID.to_owned(),
            application_key: Some(key),
            authorized_at: None,
            ..records::connection(CONNECTION_ID, "bench", 0)
        };
        let sync = SyncRecord {
            source: SourcePath::parse(&format!("b2://{}", bucket(keys)))?,
            filters: FilterSpec::default(),
            polling_interval_s: 86_400,
            reconcile: Reconcile::default(),
            max_class_c_per_day: None,
            sync_concurrency: None,
            ..records::sync(SYNC_ID, "bkt_bench", CONNECTION_ID, 0)?
        };
        pollster::block_on(async {
            registry.insert_connection(connection).await?;
            registry.insert_sync(sync).await
        })?;
        let shards = (0..SHARDS).map(|_| Shard::start(server.url())).collect::<Result<_>>()?;
        let (blobs, documents) = (MemoryBlobs::default(), MemoryDocuments::default());
        let synced = Self { keys, url: server.url().to_owned(), blobs, documents, registry, shards };
        synced.job(Budget::UNLIMITED, keys)?;
        Ok(synced)
    }

    /// Polls it in this many streams, in one step; `None`: in as many as the coordinator thinks right.
    pub(crate) fn poll(&self, streams: Option<u64>, budget: Budget) -> Result<Ran> {
        let streams = streams.map(u32::try_from).transpose()?;
        pollster::block_on(async {
            let sync = self.registry.sync(SYNC_ID).await?.ok_or_else(|| failed("there is no sync"))?;
            let revision = sync.revision;
            self.registry.update_sync(SyncRecord { sync_concurrency: streams, ..sync }, revision).await
        })?;
        self.job(budget, 0)
    }

    fn job(&self, budget: Budget, changes: u64) -> Result<Ran> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let sink = CountingSink::default();
            let home = BenchHome {
                synced: self,
                http: Hyper::new(STREAMS_HERE_MAX),
                sink: &sink,
                config: config(&self.url, budget)?,
                crossed: Cell::default(),
                memory: Memory::new(),
            };
            let coordinator = Coordinator::new(&home);
            let trigger = Command::Trigger { trigger: Trigger::Manual, confirm_deletes: false, full_sync: false };
            match coordinator.handle(SYNC_ID, trigger).await? {
                Answer::Triggered { started: true, .. } => {}
                other => return Err(format!("no job was started: {other:?}").into()),
            }
            let started = Instant::now();
            let (took, job) = loop {
                coordinator.drive().await?;
                let took = started.elapsed();
                match coordinator.handle(SYNC_ID, Command::Status).await? {
                    Answer::Status(status) if status.current_job.is_some() => {}
                    Answer::Status(status) => break (took, status.last_job.ok_or("there is no job")?),
                    other => return Err(format!("no status: {other:?}").into()),
                }
            };
            // The job ends with the feed; the sink takes what is left in turns of its own.
            let mut taken = None;
            while sink.changes() < changes && taken != Some(sink.changes()) {
                taken = Some(sink.changes());
                coordinator.drive().await?;
            }
            let crossed = home.crossed.get();
            let whole = job.status == JobStatus::Completed && job.counts.listed == self.keys;
            if whole && sink.changes() == changes && crossed.failed == 0 {
                return Ok(Ran { took, cost: job.cost, crossed });
            }
            Err(format!("{changes} changes were due, {} came; {crossed:?}: {job:?}", sink.changes()).into())
        })
    }
}

/// Where the coordinator is at home for one job.
struct BenchHome<'a> {
    synced: &'a Coordinated,
    http: Hyper,
    sink: &'a CountingSink,
    config: Config,
    crossed: Cell<Crossed>,
    memory: Memory,
}

impl<'a> Home for BenchHome<'a> {
    type Http = Hyper;
    type Blobs = &'a MemoryBlobs;
    type Documents = MemoryDocuments;
    type Clock = AsyncSystem;
    type Entropy = AsyncSystem;
    type Registry = MemoryRegistry;
    type Sink = &'a CountingSink;

    fn memory(&self) -> Option<&Memory> {
        Some(&self.memory)
    }

    fn http(&self) -> &Hyper {
        &self.http
    }

    fn blobs(&self, _: &str) -> &'a MemoryBlobs {
        &self.synced.blobs
    }

    fn documents(&self) -> &MemoryDocuments {
        &self.synced.documents
    }

    fn clock(&self) -> &AsyncSystem {
        &AsyncSystem
    }

    fn entropy(&self) -> &AsyncSystem {
        &AsyncSystem
    }

    fn registry(&self) -> &MemoryRegistry {
        &self.synced.registry
    }

    fn sinks(&self, _: &SyncRecord) -> Vec<(String, &'a CountingSink)> {
        vec![("counting".to_owned(), self.sink)]
    }

    fn config(&self) -> &Config {
        &self.config
    }

    fn instance(&self) -> &str {
        "bench"
    }

    // The bench drives the job itself.
    async fn set_alarm(&self, _: Option<Timestamp>) -> Result<(), Error> {
        Ok(())
    }

    async fn publish_job(&self, _: &JobRecord) -> Result<(), Error> {
        Ok(())
    }

    fn shards_max(&self) -> usize {
        self.synced.shards.len()
    }

    async fn read_range(&self, shard: usize, call: RangeCall) -> Result<RangeAnswer, Error> {
        let ask = async || {
            let shard = self.synced.shards.get(shard).ok_or_else(|| failed("there is none of that number"))?;
            let call = encode(&call)?;
            let mut bytes = call.len();
            let answer = shard.ask(call).await?;
            bytes += answer.len();
            Ok((decode::<Result<RangeAnswer, ErrorWire>>(&answer)?.map_err(Error::from)?, bytes as u64))
        };
        let answer = ask().await;
        let Crossed { calls, failed, bytes } = self.crossed.get();
        self.crossed.set(Crossed {
            calls: calls + 1,
            failed: failed + u64::from(answer.is_err()),
            bytes: bytes + answer.as_ref().map_or(0, |(_, bytes)| *bytes),
        });
        answer.map(|(answer, _)| answer)
    }

    async fn feed_blobs(&self, _: &str, _: Option<&str>) -> Result<(Vec<String>, Option<String>), Error> {
        Ok((Vec::new(), None))
    }

    async fn wipe(&self, _: &str) -> Result<bool, Error> {
        Ok(true)
    }
}
