//! What one task of one instance has of the world: requests, stores, time, chance and the registry, each of whose
//! effects may break.

use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::task::Poll;

use b2sync_core::b2::list::parse_list_page;
use b2sync_core::engine::thresholds::Thresholds;
use b2sync_core::entropy::Entropy;
use b2sync_core::error::Error;
use b2sync_core::http::{ExchangeLimits, HttpClient, Request, Response, TransportError, TransportFault};
use b2sync_core::state::document;
use b2sync_core::store::{BlobStore, Document, DocumentStore, Swapped};
use b2sync_core::time::{Clock, Timestamp};
use b2sync_service::coordinator::DOCUMENT;
use b2sync_service::registry::{
    Claim, ConnectionQuery, ConnectionRecord, ConnectionRow, DueSync, Poked, Registry, Rows, SyncQuery, SyncRecord,
    SyncRow,
};
use b2sync_service::sinks::SinkRecord;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::{Serialize, de::DeserializeOwned};

use super::checkers::{CoordinatorSeen, Rule, SnapshotSeen, Violation};
use super::faults::{self, Break, Trouble};
use super::task::Step;
use super::world::{Doom, Inner, Instance, storage_error};
use crate::virtual_world::mix;
use fake_b2::faults::{Rule as B2Rule, Target};
use fake_b2::ledger::Operation;
use fake_b2::{Outcome, WireFault};

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

/// What one task of one instance has of the world: the one thing that all its seams are.
#[derive(Clone)]
pub(super) struct Seam {
    pub(super) inner: Rc<Inner>,
    pub(super) instance: Instance,
    pub(super) slot: usize,
    pub(super) task: u64,
    /// Whether it is a shard's: what that asks of B2 is not in the budget of the coordinator's step.
    pub(super) shard: bool,
}

impl Seam {
    pub(super) async fn die(&self) -> ! {
        self.inner.doom.set(Some(Doom::Instance(self.slot)));
        pending().await
    }

    pub(super) fn note(&self, line: impl FnOnce() -> String) {
        self.inner.note(|| format!("{} #{} {}", self.instance.name, self.task, line()));
    }

    /// What becomes of the next effect.
    pub(super) fn broken(&self, what: &'static str) -> Option<Break> {
        self.inner.effects.set(self.inner.effects.get() + 1);
        self.inner.effects_seen.borrow_mut().insert(what);
        let how = self.inner.breaks.borrow_mut().remove(&self.inner.effects.get())?;
        self.inner.effects_broken.borrow_mut().insert(what);
        self.inner.count(|tally| tally.faults += 1);
        self.note(|| format!("{what}: {how:?}"));
        Some(how)
    }

    /// Something that changes the world, or reads it.
    pub(super) async fn effect<T>(
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

    pub(super) async fn wait(&self, millis: u64) {
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

    pub(super) fn coordinator_stored(&self, bytes: &[u8]) {
        let before = self.inner.last_step_lease.get();
        let stored = self.inner.checks.borrow_mut().coordinator_stored(self.inner.now.get(), bytes);
        let CoordinatorSeen { lease, job, stretched, limited, bookmark, next_sync_at } = match stored {
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
            if job.is_some() && job != *self.inner.last_step_job.borrow() {
                self.inner.began.borrow_mut().push(Timestamp::from_millis(began_at));
                self.inner.last_step_job.borrow_mut().clone_from(&job);
            }
            let job = job.clone();
            self.inner.step(self.task, |step| {
                *step = Step { lease, job, began_at, configured_at: step.configured_at, ..Step::default() };
            });
        }
        // Behind a step, its report says when the next poll is due: where that is at once, sinks have their time first.
        let poll_due = next_sync_at.filter(|due| job.is_none() && *due > Clock::now(self));
        let poll_due = poll_due.map(|due| (due, self.inner.frozen_ms.get()));
        self.inner.step(self.task, |step| {
            if step.lease.is_some() && step.lease == lease {
                step.poll_due = step.poll_due.or(poll_due);
            }
        });
        self.inner.last_step_lease.set(lease);
        if job.is_some() {
            *self.inner.last_job.borrow_mut() = job;
        }
    }

    fn snapshot_stored(&self, bytes: &[u8]) {
        let inner = &self.inner;
        inner.snapshots_stored.set(inner.snapshots_stored.get() + 1);
        self.note(|| snapshot_shown(bytes));
        let lease = inner.step(self.task, |step| step.lease);
        let (at, dropped_before) = (inner.next_moment(), inner.dropped_before());
        let checked = {
            let mut checks = inner.checks.borrow_mut();
            let swap = checks.swap(at, dropped_before);
            checks.snapshot_stored(lease, bytes, &inner.kv, &swap)
        };
        inner.check(checked.map(|seen| {
            let SnapshotSeen { pending, leaves, deletions, batches, appended, dropped } = seen;
            inner.count(|tally| {
                tally.pending_blobs += u64::from(pending);
                tally.leaf_blobs += u64::from(leaves);
                tally.deletion_blobs += u64::from(deletions);
                tally.batch_lists += u64::from(batches);
                tally.appended += appended;
                tally.dropped += dropped;
            });
        }));
    }

    fn sink_stored(&self, name: &str, bytes: &[u8]) {
        let inner = &self.inner;
        let number = inner.sinks.iter().position(|sink| SinkRecord::document(&sink.sink_id) == name);
        let stored = inner.checks.borrow_mut().sink_stored(number.unwrap_or(usize::MAX), bytes);
        inner.check(stored.map(|record| {
            let SinkRecord { cursor, state, failures, .. } = &record;
            let letters = record.dead_letters.iter().count();
            inner.count(|tally| tally.letters += u64::from(letters > 0));
            self.note(|| format!("{name}: {state:?} at {cursor}, {failures} failures, {letters} letters"));
        }));
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
pub(super) fn resent<T: Serialize + DeserializeOwned>(value: &T) -> Result<T, Error> {
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
                (Swapped::Done(_), Some(bytes)) if name == document::DOCUMENT => self.snapshot_stored(bytes),
                (Swapped::Done(_), Some(bytes)) => self.sink_stored(name, bytes),
                (Swapped::Done(_), None) => self.note(|| format!("{name} deleted")),
            }
            Ok(swapped)
        })
        .await
    }
}

fn snapshot_shown(bytes: &[u8]) -> String {
    let Ok(document) = document::SnapshotDocument::decode(bytes) else { return "snapshot: unreadable".to_owned() };
    let (generation, entries, last) = (document.root.generation, document.root.entries, document.feed.last());
    let root = format!("snapshot: generation {generation}, {entries} entries, feed to {last}");
    match document.checkpoint {
        None => root,
        Some(it) => format!(
            "{root}; checkpoint of {}: after {}, covered to {}, {} deletions, {} done, listed: {}",
            it.job_id,
            shown(it.start_after.as_ref()),
            shown(it.covered_to.as_ref()),
            it.deletions_found,
            it.deletions_done,
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

    async fn check_new_connection(&self, name: &str) -> Result<(), Error> {
        self.inner.registry.check_new_connection(name).await
    }

    async fn find_connection(&self, id_or_name: &str) -> Result<Option<ConnectionRow>, Error> {
        let find = async || self.inner.registry.find_connection(id_or_name).await;
        self.effect("registry: connection", storage_error, find).await
    }

    async fn update_connection(&self, record: ConnectionRecord, expected: u64) -> Result<ConnectionRecord, Error> {
        let stored = serde_json::to_vec(&record).unwrap_or_default();
        self.effect("registry: update", storage_error, async || {
            self.inner.check_no_secret("the connection", &stored);
            self.inner.registry.update_connection(record, expected).await
        })
        .await
    }

    async fn delete_connection(&self, connection_id: &str) -> Result<bool, Error> {
        self.inner.registry.delete_connection(connection_id).await
    }

    async fn connections(&self, query: &ConnectionQuery) -> Result<Rows<ConnectionRow>, Error> {
        self.inner.registry.connections(query).await
    }

    async fn insert_sync(&self, record: SyncRecord) -> Result<SyncRecord, Error> {
        self.inner.registry.insert_sync(record).await
    }

    async fn check_new_sync(&self, namespace_id: &str, bucket_id: &str) -> Result<(), Error> {
        self.inner.registry.check_new_sync(namespace_id, bucket_id).await
    }

    async fn find_sync(&self, sync_id: &str) -> Result<Option<SyncRow>, Error> {
        self.effect("registry: sync", storage_error, async || {
            let at = self.inner.moment.get();
            self.inner.step(self.task, |step| step.configured_at = at);
            self.inner.registry.find_sync(sync_id).await
        })
        .await
    }

    async fn update_sync(&self, record: SyncRecord, expected: u64) -> Result<SyncRecord, Error> {
        self.inner.registry.update_sync(record, expected).await
    }

    async fn delete_sync(&self, sync_id: &str) -> Result<bool, Error> {
        self.inner.registry.delete_sync(sync_id).await
    }

    async fn syncs(&self, query: &SyncQuery) -> Result<Rows<SyncRow>, Error> {
        self.inner.registry.syncs(query).await
    }

    async fn due(&self, at: Timestamp, limit: usize) -> Result<Vec<DueSync>, Error> {
        self.effect("registry: due", storage_error, async || self.inner.registry.due(at, limit).await).await
    }

    async fn poked(&self, pokes: &[Poked]) -> Result<(), Error> {
        self.effect("registry: poke", storage_error, async || self.inner.registry.poked(pokes).await).await
    }

    async fn set_poke_after(&self, sync_id: &str, at: Option<Timestamp>) -> Result<(), Error> {
        self.effect("registry: poke", storage_error, async || self.inner.registry.set_poke_after(sync_id, at).await)
            .await
    }

    async fn claim(&self, claim: Claim) -> Result<Claim, Error> {
        self.inner.registry.claim(claim).await
    }

    async fn purge(&self, archived_until: Timestamp, limit: usize) -> Result<u64, Error> {
        self.effect("registry: purge", storage_error, async || self.inner.registry.purge(archived_until, limit).await)
            .await
    }
}
