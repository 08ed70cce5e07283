//! Who is let go on, when time passes, and what rest is.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use b2sync_core::dead_letters::DeadLetters;
use b2sync_core::engine::Reconcile;
use b2sync_core::engine::thresholds::Thresholds;
use b2sync_core::entropy::Entropy as _;
use b2sync_core::entry::Entry;
use b2sync_core::error::{Error, ErrorKind};
use b2sync_core::job::{JobCost, JobRecord, JobStatus, Trigger};
use b2sync_core::snapshot::root;
use b2sync_core::store::DocumentStore as _;
use b2sync_core::time::{Clock as _, Timestamp};
use b2sync_service::catalogue::ObjectRecord;
use b2sync_service::coordinator::protocol::{Answer, Command, SyncStatus};
use b2sync_service::coordinator::{Coordinator, Home as _, LEASE_MARGIN_MS};
use b2sync_service::registry::Registry as _;

use super::checkers::{Rule, Violation};
use super::faults;
use super::history::{Age, Call, Event, FOLDERS, PREFIXES, Plan, filters};
use super::kv::PLACES;
use super::options::Options;
use super::world::{BUCKET, Doom, Inner, Instance, SYNC, SimHome, Tally};
use crate::virtual_world::{SeededEntropy, mix};
use fake_b2::content::Content;
use fake_b2::model::NewFile;

/// Turns within one event after which something counts as never ending.
const TURNS_MAX: u32 = 200_000;
/// How long after the last event a sync may take to come to rest, in virtual milliseconds: polls are up to an hour apart
/// after failures.
const REST_MS_MAX: i64 = 12 * 3_600_000;
/// How long tasks may take to end, in virtual milliseconds.
const SETTLE_MS_MAX: i64 = 3_600_000;
/// How long tasks are looked at often while they end, in milliseconds.
const SETTLE_SLOWLY_MS: i64 = 1_000_000;
/// How often the cron comes, in milliseconds.
const CRON_MS: i64 = 60_000;
/// How many syncs one tick pokes at most.
const POKES_MAX: usize = 300;
/// How soon the platform repeats an alarm whose handler failed, in milliseconds.
const ALARM_AGAIN_MS: i64 = 10_000;

/// How a world ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first rule that was broken.
    pub result: Result<(), Violation>,
    /// How much happened.
    pub tally: Tally,
    /// What kinds of effects there were.
    pub effects: BTreeSet<&'static str>,
    /// Which of them broke.
    pub broken: BTreeSet<&'static str>,
    /// What happened, if it was to be written down.
    pub trace: Vec<String>,
}

/// Lets a plan happen, and then the world come to rest.
pub fn run(plan: &Plan, traced: bool) -> Outcome {
    let mut sim = Sim::new(plan.options.clone(), plan.seed, traced);
    let result = sim.play(plan);
    let start = super::history::START_MS;
    sim.inner.count(|tally| {
        tally.events = plan.events.len() as u64;
        tally.virtual_ms = u64::try_from(sim.inner.now.get() - start).unwrap_or(0);
    });
    let inner = &sim.inner;
    let (effects, broken) = (inner.effects_seen.take(), inner.effects_broken.take());
    Outcome { result, tally: inner.tally.get(), effects, broken, trace: inner.trace.lines() }
}

type Running = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// What a task's waker sets. As on a real runtime, who is not woken is not polled.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Task {
    id: u64,
    slot: usize,
    /// Whether the platform owes a repetition.
    alarm: bool,
    what: String,
    future: Running,
    /// Whether somebody woke it since its latest turn.
    woken: Arc<Woken>,
    /// When its sleepers wake it.
    timers: BTreeSet<i64>,
    /// When it is to have its next turn.
    wake_at: i64,
    began_at: i64,
}

/// A world, its instances, and the tasks that are on their way in it.
pub struct Sim {
    /// The world.
    pub inner: Rc<Inner>,
    instances: Vec<Instance>,
    born: u64,
    tasks: Vec<Task>,
    begun: u64,
    next_cron: i64,
    uploads: [Option<(String, String)>; 3],
    keep_keys: Vec<String>,
    deleting: bool,
    /// The tasks that have deleted the sync.
    forgotten: BTreeSet<u64>,
}

fn broken(rule: Rule, message: impl Into<String>) -> Violation {
    Violation::new(rule, message)
}

impl Sim {
    /// A world in which nothing has happened yet, but for the sync that was configured.
    pub fn new(options: Options, seed: u64, traced: bool) -> Self {
        let inner = Inner::new(options, seed, traced);
        let mut sim = Self {
            next_cron: inner.now.get() + CRON_MS,
            inner,
            instances: Vec::new(),
            born: 0,
            tasks: Vec::new(),
            begun: 0,
            uploads: [None, None, None],
            keep_keys: Vec::new(),
            deleting: false,
            forgotten: BTreeSet::new(),
        };
        let slots = if sim.inner.options.sole_instance { 1 } else { 2 };
        for _ in 0..slots {
            let instance = sim.next_instance();
            sim.instances.push(instance);
        }
        sim.call(Call::Configured, 0);
        sim
    }

    fn next_instance(&mut self) -> Instance {
        self.born += 1;
        let skew = i64::try_from(self.inner.options.skew_ms_max).unwrap_or(0);
        let offset = i64::try_from(mix(self.born)).unwrap_or(0) % (skew + 1);
        let place = usize::try_from(self.born).unwrap_or(0) % PLACES;
        let (name, offset_ms) = (format!("instance_{}", self.born), Rc::new(Cell::new(offset)));
        Instance { name, place, offset_ms, memory: Rc::default() }
    }

    fn play(&mut self, plan: &Plan) -> Result<(), Violation> {
        self.keep_keys.clone_from(&plan.keys);
        for event in &plan.events {
            self.inner.note(|| format!("== {event:?}"));
            self.happen(event)?;
        }
        self.rest()?;
        if plan.options.deleted { self.delete_sync(plan) } else { Ok(()) }
    }

    // ---- time ----------------------------------------------------------------------------------------------------

    fn now(&self) -> i64 {
        self.inner.now.get()
    }

    /// A step ends, or its home ends it, while its lease lasts by everybody's clock: nothing else can keep a step that
    /// was frozen from delivering what is not so any more.
    fn step_ms_max(&self) -> i64 {
        let options = &self.inner.options;
        let lease_ms = options.budget.wall_ms_max.saturating_add(LEASE_MARGIN_MS);
        i64::try_from(lease_ms.saturating_sub(2 * options.skew_ms_max)).unwrap_or(i64::MAX) - 1
    }

    fn advance(&mut self, to: i64) {
        let limit = self.step_ms_max();
        while let Some(task) = self.tasks.iter().find(|task| to - task.began_at > limit) {
            let (id, slot) = (task.id, task.slot);
            self.inner.note(|| format!("#{id} takes too long: its home ends it"));
            if self.inner.options.sole_instance {
                self.die(slot);
            } else {
                self.drop_tasks(|task| task.id == id);
            }
        }
        self.inner.now.set(self.now().max(to));
    }

    // ---- tasks ---------------------------------------------------------------------------------------------------

    fn begin(&mut self, what: String, slot: usize, alarm: bool, command: Option<Command>) {
        let cron_asks = self.inner.options.cron_asks;
        self.begun += 1;
        let id = self.begun;
        let instance = &self.instances[slot];
        let home = SimHome::new(&self.inner, instance, slot, id);
        self.inner.note(|| format!("{} #{id} begins: {what}", instance.name));
        let future: Running = Box::pin(async move {
            match command {
                None => Coordinator::new(&home).drive().await,
                Some(Command::Poke { at }) if cron_asks => poke_due(&home, at).await,
                Some(command) => {
                    // As the API does, before it asks the coordinator and once more behind that.
                    let watched = cron_asks && is_poked_after(&command);
                    if watched {
                        home.registry().set_poke_after(SYNC, Some(home.clock().now())).await?;
                    }
                    Coordinator::new(&home).handle(SYNC, command).await?;
                    if watched {
                        home.registry().set_poke_after(SYNC, Some(home.clock().now().plus_millis(1))).await?;
                    }
                    Ok(())
                }
            }
        });
        let now = self.now();
        let (woken, timers) = (Arc::default(), BTreeSet::new());
        self.tasks.push(Task { id, slot, alarm, what, future, woken, timers, wake_at: now, began_at: now });
    }

    /// The places of the tasks that are not asleep.
    fn awake(&self) -> Vec<usize> {
        (0..self.tasks.len()).filter(|place| self.tasks[*place].wake_at <= self.now()).collect()
    }

    /// Lets one task go on a little.
    fn turn(&mut self, place: usize) -> Result<(), Violation> {
        self.inner.count(|tally| tally.turns += 1);
        let now = self.now();
        let task = &mut self.tasks[place];
        task.timers = task.timers.split_off(&(now + 1));
        let waker = Waker::from(Arc::clone(&task.woken));
        let polled = task.future.as_mut().poll(&mut Context::from_waker(&waker));
        task.timers.extend(self.inner.timers.take());
        let woken = task.woken.0.swap(false, Ordering::SeqCst);
        let wake_at = if woken { Some(now) } else { task.timers.first().copied() };
        task.wake_at = wake_at.unwrap_or(i64::MAX);
        if let Some(Doom::Instance(slot)) = self.inner.doom.take() {
            self.die(slot);
        } else if let Poll::Ready(result) = polled {
            let task = self.tasks.remove(place);
            self.ended(task, result)?;
        } else if wake_at.is_none() {
            let message = format!("#{} waits, and nobody would ever wake it: {}", task.id, task.what);
            return Err(broken(Rule::ComesToRest, message));
        }
        match self.inner.violation.borrow_mut().take() {
            Some(violation) => Err(violation),
            None => Ok(()),
        }
    }

    fn ended(&mut self, task: Task, result: Result<(), Error>) -> Result<(), Violation> {
        self.inner.forget_task(task.id);
        let Err(error) = result else {
            self.inner.note(|| format!("#{} ends", task.id));
            if task.what == "Forget" {
                self.forgotten.insert(task.id);
            }
            return Ok(());
        };
        self.inner.note(|| format!("#{} ends with an error: {error}", task.id));
        self.inner.checks.borrow().secret_in("an error", format!("{error} {error:?}").as_bytes())?;
        if task.alarm {
            let again = self.now() + ALARM_AGAIN_MS;
            self.inner.alarm.set(Some(self.inner.alarm.get().unwrap_or(again).min(again)));
        }
        match error.kind() {
            ErrorKind::Storage | ErrorKind::StateConflict | ErrorKind::StateMissing => Ok(()),
            ErrorKind::Conflict if !task.alarm => Ok(()),
            ErrorKind::NotFound if self.deleting && !task.alarm => Ok(()),
            _ => Err(broken(Rule::CallsKeepTheirContract, format!("{} ended with {error:?}", task.what))),
        }
    }

    fn drop_tasks(&mut self, who: impl Fn(&Task) -> bool) {
        let now = self.now();
        let (dropped, kept) = std::mem::take(&mut self.tasks).into_iter().partition(|task| who(task));
        self.tasks = kept;
        let dropped: Vec<Task> = dropped;
        for task in dropped {
            self.inner.count(|tally| tally.crashes += 1);
            self.inner.note(|| format!("#{} is cut off: {}", task.id, task.what));
            self.inner.forget_task(task.id);
            if task.alarm && self.inner.alarm.get().is_none() {
                self.inner.alarm.set(Some(now + ALARM_AGAIN_MS));
            }
        }
    }

    fn die(&mut self, slot: usize) {
        let next = self.next_instance();
        self.inner.note(|| format!("{} dies; {} is there", self.instances[slot].name, next.name));
        self.drop_tasks(|task| task.slot == slot);
        self.instances[slot] = next;
    }

    fn call(&mut self, call: Call, slot: usize) {
        let slot = slot % self.instances.len();
        let command = match call {
            Call::Drive => None,
            Call::Cron { late_ms } => {
                Some(Command::Poke { at: Timestamp::from_millis(self.now() - i64::from(late_ms)) })
            }
            Call::Trigger { confirm, full } => {
                Some(Command::Trigger { trigger: Trigger::Manual, confirm_deletes: confirm, full_sync: full })
            }
            Call::Pause => Some(Command::Pause { reason: None }),
            Call::Resume => Some(Command::Resume),
            Call::Unlock => Some(Command::Unlock),
            Call::Configured => Some(Command::Configured),
            Call::Requeue => Some(Command::Requeue { error_types: Vec::new() }),
            Call::MarkFailed => Some(Command::MarkFailed { error_types: Vec::new() }),
            Call::Lift => {
                self.inner.lift_suspension();
                Some(Command::ConnectionLifted)
            }
        };
        self.begin(format!("{call:?}"), slot, call == Call::Drive, command);
    }

    /// The platform runs everything: alarms when they are due, the cron each minute, tasks in any order.
    fn run_for(&mut self, ms: i64, rng: &SeededEntropy, reliable: bool) -> Result<(), Violation> {
        let end = self.now() + ms;
        for _ in 0..TURNS_MAX {
            let now = self.now();
            if now >= end {
                return Ok(());
            }
            if self.inner.alarm.get().is_some_and(|at| at <= now) && rng.chance(0.5) {
                self.inner.alarm.set(None);
                let slot = below(rng, self.instances.len());
                self.begin("the alarm".to_owned(), slot, true, None);
            }
            if now >= self.next_cron {
                self.next_cron = now - now.rem_euclid(CRON_MS) + CRON_MS;
                // It skips, and it repeats.
                let times = if reliable { 1 } else { below(rng, 3) };
                for _ in 0..times {
                    let slot = below(rng, self.instances.len());
                    self.call(Call::Cron { late_ms: 0 }, slot);
                }
            }
            let awake = self.awake();
            if !awake.is_empty() {
                self.turn(awake[below(rng, awake.len())])?;
                continue;
            }
            let wakes = self.tasks.iter().map(|task| task.wake_at);
            let next = wakes.chain(self.inner.alarm.get()).chain([self.next_cron, end]).min().unwrap_or(end);
            self.advance(next.max(now));
        }
        Err(broken(Rule::ComesToRest, "something goes on for ever without time passing"))
    }

    fn turns(&mut self, turns: u32, rng: &SeededEntropy) -> Result<(), Violation> {
        for _ in 0..turns {
            if self.tasks.is_empty() {
                return Ok(());
            }
            let awake = self.awake();
            if awake.is_empty() {
                let wakes = self.tasks.iter().map(|task| task.wake_at).min();
                self.advance(wakes.unwrap_or(0));
                continue;
            }
            self.turn(awake[below(rng, awake.len())])?;
        }
        Ok(())
    }

    // ---- events --------------------------------------------------------------------------------------------------

    fn key(&self, key: u16) -> String {
        self.keep_keys[usize::from(key) % self.keep_keys.len()].clone()
    }

    /// Uploads a file.
    pub fn put(&self, key: &str, content: Content, at: Timestamp) {
        let file = match content {
            Content::Held(bytes) => NewFile::bytes(bytes),
            Content::Generated { seed, size } => NewFile::generated(seed, size),
        };
        self.inner.edit(&[key.to_owned()], |model| {
            // The bucket is there, and names that are too long are a history of nothing.
            let _ = model.put(BUCKET, key, file, at);
        });
    }

    /// Deletes a key with all its versions.
    pub fn delete(&self, key: &str) {
        self.inner.edit(&[key.to_owned()], |model| {
            // It may be gone already.
            let _ = model.delete_key(BUCKET, key);
        });
    }

    fn happen(&mut self, event: &Event) -> Result<(), Violation> {
        let now = Timestamp::from_millis(self.now());
        match *event {
            Event::Put { key, size, version, age } => {
                let key = self.key(key);
                let visible = self.inner.fake.inspect(|model| model.find(BUCKET, &key));
                let at = match age {
                    Age::Now => now,
                    Age::Back(ms) => now.plus_millis(-i64::from(ms)),
                    Age::AsVisible => visible.map_or(now, |version| version.uploaded_at),
                };
                self.put(&key, Content::Generated { seed: version.into(), size: size.into() }, at);
            }
            Event::Burst { first, count, stride, version, at_once } => {
                for number in 0..count {
                    let key = self.key(first.wrapping_add(number.wrapping_mul(stride)));
                    let at = now.plus_millis(if at_once { 0 } else { i64::from(number) });
                    let size = u64::from(number % 4);
                    self.put(&key, Content::Generated { seed: version.into(), size }, at);
                }
            }
            Event::Hide(key) => {
                let key = self.key(key);
                self.inner.edit(std::slice::from_ref(&key), |model| {
                    let _ = model.hide(BUCKET, &key, now);
                });
            }
            Event::Delete(key) => self.delete(&self.key(key)),
            Event::DeleteNewest(key) => {
                let key = self.key(key);
                self.inner.edit(std::slice::from_ref(&key), |model| {
                    if let Some(id) = model.versions(BUCKET, &key).first().map(|version| version.id()) {
                        let _ = model.delete_version(BUCKET, &key, &id);
                    }
                });
            }
            Event::DeleteMany { first, count } => {
                (0..count).for_each(|number| self.delete(&self.key(first.wrapping_add(number))));
            }
            Event::Rename { from, to } => self.rename(FOLDERS[usize::from(from) % 4], FOLDERS[usize::from(to) % 4]),
            Event::StartLarge { key, slot } => {
                let key = self.key(key);
                let id = self.inner.fake.edit(|model| model.start_large(BUCKET, &key, NewFile::generated(0, 0), now));
                self.uploads[usize::from(slot) % 3] = id.ok().map(|id| (id, key));
            }
            Event::FinishLarge { slot, size } => {
                if let Some((id, key)) = self.uploads[usize::from(slot) % 3].take() {
                    let content = Content::Generated { seed: u64::from(slot) + 100, size: size.into() };
                    self.inner.edit(&[key], |model| {
                        let _ = model.finish_large(BUCKET, &id, content);
                    });
                }
            }
            Event::Call(call) => {
                // Which instance is asked depends on how many have been asked before.
                let slot = usize::try_from(self.begun).unwrap_or(0);
                self.call(call, slot);
            }
            Event::Filters(number) => self.inner.change_sync(|sync| sync.filters = filters(number)),
            Event::Source(number) => {
                let prefix = PREFIXES[usize::from(number) % PREFIXES.len()];
                self.inner.change_sync(|sync| {
                    if let Ok(source) = format!("b2://{BUCKET}/{prefix}").parse() {
                        sync.source = source;
                    }
                });
            }
            Event::Run { ms, seed } => self.run_for(ms.into(), &SeededEntropy::new(seed), false)?,
            Event::Turns { turns, seed } => self.turns(turns.into(), &SeededEntropy::new(seed))?,
            Event::Freeze { ms } => {
                self.inner.frozen_ms.set(self.inner.frozen_ms.get() + i64::from(ms));
                self.advance(self.now() + i64::from(ms));
            }
            Event::Die { instance } => self.die(usize::from(instance) % self.instances.len()),
            Event::Cancel { task } => {
                let victim = self.tasks.get(usize::from(task) % self.tasks.len().max(1)).map(|task| task.id);
                self.drop_tasks(|task| Some(task.id) == victim);
            }
            Event::Break { after, how } => {
                let at = self.inner.effects.get() + u64::from(after);
                self.inner.breaks.borrow_mut().insert(at, how);
            }
            Event::Trouble { skip, times, what } => {
                self.inner.troubles.borrow_mut().push(faults::Rule { skip, times, what });
            }
            Event::Refuse { key, times } => {
                self.inner.refusals.borrow_mut().insert(self.key(key), times);
            }
            Event::RefuseForEver(key) => {
                self.inner.refused_for_ever.borrow_mut().insert(self.key(key));
                self.inner.exempt.borrow_mut().insert(self.key(key));
            }
            Event::Halve(times) => self.inner.halves.set(times),
            Event::Suspend => self.inner.suspend_connection(),
            Event::RevokeKey => self.inner.revoke_key(),
            Event::RotateKey { keep_old } => self.inner.rotate_key(keep_old),
            Event::Skew { instance, ms } => {
                let instance = &self.instances[usize::from(instance) % self.instances.len()];
                instance.offset_ms.set(ms.into());
            }
            Event::LoseAlarm => self.inner.alarm.set(None),
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) {
        if from == to {
            return;
        }
        let now = Timestamp::from_millis(self.now());
        let files = self.inner.fake.visible(BUCKET);
        let moved = files.iter().filter_map(|file| Some((&file.key, file.key.strip_prefix(from)?)));
        // The empty folder is a prefix of all: there, only what lies in no folder moves.
        for (old, rest) in moved.filter(|(_, rest)| !rest.is_empty() && (!from.is_empty() || !rest.contains('/'))) {
            let new = format!("{to}{rest}");
            let version = self.inner.fake.inspect(|model| model.find(BUCKET, old));
            let Some(stored) = version.as_ref().and_then(|version| version.stored.as_ref()) else { continue };
            self.inner.edit(&[old.clone(), new.clone()], |model| {
                let _ = model.put(BUCKET, &new, stored.file.clone(), now);
                let _ = model.delete_key(BUCKET, old);
            });
        }
    }

    // ---- rest ----------------------------------------------------------------------------------------------------

    /// Asks the coordinator, while nothing goes wrong.
    ///
    /// # Errors
    /// Those of the coordinator.
    pub fn ask(&mut self, command: Command) -> Result<Answer, Error> {
        self.begun += 1;
        if self.inner.options.cron_asks && is_poked_after(&command) {
            self.inner.poke_after(Some(self.time()));
        }
        let home = SimHome::new(&self.inner, &self.instances[0], 0, self.begun);
        let coordinator = Coordinator::new(&home);
        let mut asked = std::pin::pin!(coordinator.handle(SYNC, command));
        loop {
            if let Poll::Ready(answer) = asked.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return answer;
            }
            // Nobody else goes on meanwhile.
            if let Some(until) = self.inner.timers.take().into_iter().min() {
                self.inner.now.set(until.max(self.inner.now.get()));
            }
        }
    }

    fn status(&mut self) -> Result<SyncStatus, Violation> {
        match self.ask(Command::Status) {
            Ok(Answer::Status(status)) => Ok(*status),
            other => Err(broken(Rule::CallsKeepTheirContract, format!("the status is {other:?}"))),
        }
    }

    fn job_of(status: &SyncStatus) -> Option<String> {
        status.last_job.as_ref().map(|job| job.job_id.clone())
    }

    /// Ends all trouble, lets the platform run until a job that began after it has completed, and compares.
    fn rest(&mut self) -> Result<(), Violation> {
        self.inner.note(|| "== no more trouble".to_owned());
        self.end_trouble();
        self.inner.rotate_key(false);
        // So that there is a rest between two polls, and not for a day.
        self.inner.change_sync(|sync| (sync.polling_interval_s, sync.max_class_c_per_day) = (900, None));
        if self.inner.options.class_c_max.is_some() {
            let configured = self.ask(Command::Configured);
            configured.map_err(|error| broken(Rule::CallsKeepTheirContract, format!("configured: {error}")))?;
        }
        if self.inner.options.requeues {
            // From here on nothing is refused, and all that was comes once more, whoever is still giving it up.
            self.settle_tasks(&SeededEntropy::new(5))?;
            self.inner.refused_for_ever.borrow_mut().clear();
            let requeued = self.ask(Command::Requeue { error_types: Vec::new() });
            requeued.map_err(|error| broken(Rule::CallsKeepTheirContract, format!("requeue: {error}")))?;
        }
        self.come_to_rest()
    }

    /// Deletes the sync while a job may be on its way and something may break: at last nothing is left of it, and nothing
    /// goes on.
    fn delete_sync(&mut self, plan: &Plan) -> Result<(), Violation> {
        self.inner.note(|| "== the sync is deleted".to_owned());
        self.deleting = true;
        let rng = SeededEntropy::new(plan.seed ^ 0xdead);
        if rng.chance(0.7) {
            self.call(Call::Trigger { confirm: true, full: false }, 0);
            self.turns(u32::try_from(rng.below(80)).unwrap_or(0), &rng)?;
        }
        if plan.options.troubled {
            let how = super::options::pick(&rng, &faults::Break::ALL);
            self.happen(&Event::Break { after: 1 + u16::try_from(rng.below(40)).unwrap_or(0), how })?;
        }
        if let Some(event) = &plan.last {
            self.happen(event)?;
        }
        if plan.options.cron_asks {
            // As the API does, so that nothing starts a job in between.
            self.inner.poke_after(None);
        }
        // Whoever deletes it asks again until it is done; the record goes last.
        loop {
            let slot = below(&rng, self.instances.len());
            self.begin("Forget".to_owned(), slot, false, Some(Command::Forget));
            let id = self.begun;
            while self.tasks.iter().any(|task| task.id == id) {
                self.turns(1, &rng)?;
            }
            if self.forgotten.remove(&id) {
                break;
            }
        }
        self.inner.delete_sync();
        let since = self.now();
        while !self.tasks.is_empty() || self.inner.alarm.get().is_some() {
            self.run_for(10_000, &rng, true)?;
            if self.now() - since > REST_MS_MAX {
                return Err(broken(Rule::NothingIsLeft, "it is still being deleted"));
            }
        }
        let (blobs, documents) = (self.inner.kv.all().len(), self.inner.documents.values().len());
        if blobs + documents > 0 {
            let message = format!("{blobs} blobs and {documents} documents are left, and nothing goes on");
            return Err(broken(Rule::NothingIsLeft, message));
        }
        Ok(())
    }

    /// As [`Self::rest`], for a world that has no trouble.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn come_to_rest(&mut self) -> Result<(), Violation> {
        let rng = SeededEntropy::new(7);
        let since = self.now();
        // What is on its way may have been begun under other filters.
        self.settle_tasks(&rng)?;
        let before = self.status()?;
        let mut old: BTreeSet<String> = Self::job_of(&before).into_iter().collect();
        loop {
            self.run_for(1_000, &rng, true)?;
            let status = self.status()?;
            self.inner.lift_suspension();
            if status.paused_at.is_some() && self.tasks.is_empty() {
                let resumed = self.ask(Command::Resume);
                resumed.map_err(|error| broken(Rule::CallsKeepTheirContract, format!("resume: {error}")))?;
            }
            if let Some(job) = status.last_job.filter(|job| !old.contains(&job.job_id)) {
                match (job.status, job.error.as_ref().map(|error| error.kind.as_str())) {
                    (JobStatus::Completed, _) if status.current_job.is_none() && job.limited => {
                        old.insert(job.job_id);
                        self.trigger(false)?;
                    }
                    (JobStatus::Completed, _) if status.current_job.is_none() => break,
                    (JobStatus::Failed, Some("too_many_deletions")) if status.current_job.is_none() => {
                        old.insert(job.job_id);
                        self.trigger(true)?;
                    }
                    _ => {}
                }
            }
            if self.now() - since > REST_MS_MAX {
                let why = self.status()?.last_error.map_or_else(String::new, |error| error.message);
                return Err(broken(Rule::ComesToRest, format!("no job completes: {why}")));
            }
            if self.tasks.is_empty() {
                self.skip_idle_time();
            }
        }
        self.settle_tasks(&rng)?;
        self.compare()?;
        self.quiet_poll(&rng)
    }

    fn trigger(&mut self, confirm_deletes: bool) -> Result<(), Violation> {
        let triggered = self.ask(Command::Trigger { trigger: Trigger::Manual, confirm_deletes, full_sync: false });
        triggered.map_err(|error| broken(Rule::CallsKeepTheirContract, format!("trigger: {error}"))).map(|_| ())
    }

    /// Nothing is on its way: to where something begins. The cron comes each minute all the same.
    fn skip_idle_time(&mut self) {
        let next = self.inner.alarm.get().unwrap_or(i64::MAX).min(self.next_cron);
        self.advance(next);
    }

    fn settle_tasks(&mut self, rng: &SeededEntropy) -> Result<(), Violation> {
        let since = self.now();
        while self.now() - since < SETTLE_MS_MAX {
            if self.tasks.is_empty() && self.status()?.current_job.is_none() {
                return Ok(());
            }
            // A job each of whose steps waits for a blob to be seen takes a minute a page.
            let slice_ms = if self.now() - since < SETTLE_SLOWLY_MS { 100 } else { 10_000 };
            self.run_for(slice_ms, rng, true)?;
        }
        Err(broken(Rule::ComesToRest, "a task never ends"))
    }

    /// The catalogue is the bucket, the snapshot is the catalogue, and no secret is anywhere.
    fn compare(&self) -> Result<(), Violation> {
        let (rows, bucket) = (self.inner.rows(), self.inner.bucket());
        // Where everything is taken in the end, and every change is delivered, nothing is missing.
        let all_taken = self.inner.options.requeues && self.inner.options.reconcile == Reconcile::default();
        let exempt = if all_taken { BTreeSet::new() } else { self.inner.exempt.borrow().clone() };
        let checks = self.inner.checks.borrow();
        checks.catalogue_equals_bucket(&rows, &bucket, &exempt)?;
        let snapshot = pollster::block_on(self.inner.documents.load(root::DOCUMENT));
        if let Ok(Some(document)) = snapshot {
            checks.snapshot_equals_catalogue(&document.value, &self.inner.kv, &rows, &exempt)?;
        }
        drop(checks);
        let letters = self.dead_letters()?;
        if all_taken && !letters.is_empty() {
            let message = format!("{letters:?} are left of what was sent back and taken");
            return Err(broken(Rule::RefusedAreDeadLetters, message));
        }
        let refused = |entry: &&Entry| exempt.contains(&entry.key) && self.inner.checks.borrow().takes(entry);
        let lost = bucket.iter().filter(refused).find(|entry| {
            // Where updates are not delivered, no letter is due for them.
            let as_new = |row: &ObjectRecord| row.etag == entry.etag || !self.inner.options.reconcile.on_update;
            !letters.contains(&entry.key) && !rows.iter().any(|row| row.key == entry.key && as_new(row))
        });
        if let Some(lost) = lost {
            let message = format!("{lost:?} is neither delivered nor among the dead letters");
            return Err(broken(Rule::RefusedAreDeadLetters, message));
        }
        self.inner.check_secrets()
    }

    /// The keys of the dead letters.
    fn dead_letters(&self) -> Result<BTreeSet<String>, Violation> {
        let letters = pollster::block_on(DeadLetters::load(&self.inner.documents));
        let (letters, _) = letters.map_err(|error| broken(Rule::RefusedAreDeadLetters, error.to_string()))?;
        Ok(letters.iter().map(|letter| letter.key.clone()).collect())
    }

    fn quiet_poll(&mut self, rng: &SeededEntropy) -> Result<(), Violation> {
        // Checkpoints store blobs where the document holds next to nothing itself.
        let inner = Rc::clone(&self.inner);
        let usual = inner.options.thresholds == Thresholds::USUAL;
        let so_far = || (inner.tally.get().changes, if usual { inner.blob_puts.get() } else { 0 });
        let before = so_far();
        let stored = inner.snapshots_stored.get();
        self.inner.note(|| "== a poll that finds nothing".to_owned());
        let job = self.job(true, rng)?;
        let after = so_far();
        if job.status != JobStatus::Completed {
            return Err(broken(Rule::QuietPoll, format!("it ended as {job:?}")));
        }
        let stored = inner.snapshots_stored.get() - stored;
        // Nobody else takes a step of it.
        let holds_all = inner.options.thresholds.held_bytes_max == Thresholds::USUAL.held_bytes_max;
        let is_held = inner.options.memory && inner.options.sole_instance && holds_all;
        let JobCost { steps, state_reads, .. } = job.cost;
        inner.count(|tally| tally.held += if is_held { steps - 1 } else { 0 });
        if (is_held || steps == 1) && (stored > 0 || state_reads > 2) {
            let message =
                format!("in {steps} steps it stored the snapshot {stored} times and read {state_reads} times");
            return Err(broken(Rule::QuietPoll, message));
        }
        if before != after {
            let message = format!("(changes, blobs stored) were {before:?} before it and are {after:?} after it");
            return Err(broken(Rule::QuietPoll, message));
        }
        self.compare()
    }

    fn job(&mut self, confirm_deletes: bool, rng: &SeededEntropy) -> Result<JobRecord, Violation> {
        let last = Self::job_of(&self.status()?);
        self.trigger(confirm_deletes)?;
        for _ in 0..20_000 {
            self.run_for(1_000, rng, true)?;
            let status = self.status()?;
            if status.current_job.is_none() && Self::job_of(&status) != last {
                self.settle_tasks(rng)?;
                return status.last_job.ok_or_else(|| broken(Rule::ComesToRest, "the job left no record"));
            }
        }
        Err(broken(Rule::ComesToRest, "a job never ends"))
    }

    /// Triggers a job, and lets the platform run until it has ended: for tests that are a story.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn run_job(&mut self, confirm_deletes: bool) -> Result<JobRecord, Violation> {
        self.job(confirm_deletes, &SeededEntropy::new(11))
    }

    /// The time.
    pub fn time(&self) -> Timestamp {
        Timestamp::from_millis(self.now())
    }

    /// Lets the platform run for so long: for tests that are a story.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn pass(&mut self, ms: i64) -> Result<(), Violation> {
        self.run_for(ms, &SeededEntropy::new(13), true)
    }

    /// Ends what was to fail.
    pub fn end_trouble(&mut self) {
        self.inner.breaks.borrow_mut().clear();
        self.inner.troubles.borrow_mut().clear();
        self.inner.refusals.borrow_mut().clear();
        self.inner.halves.set(0);
    }

    /// Lets an event happen.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn event(&mut self, event: &Event) -> Result<(), Violation> {
        self.happen(event)
    }
}

/// Which calls have the API tell the registry that the sync is to be poked, should they be cut off.
fn is_poked_after(command: &Command) -> bool {
    use Command::{Configured, ConnectionLifted, Requeue, Resume, Trigger};
    matches!(command, Configured | ConnectionLifted | Requeue { .. } | Resume | Trigger { .. })
}

/// What a tick of the cron does, as the Worker's `scheduled`.
async fn poke_due(home: &SimHome, at: Timestamp) -> Result<(), Error> {
    let at = at.max(home.clock().now());
    for due in home.registry().due(at, POKES_MAX).await? {
        let next = match Coordinator::new(home).handle(&due.sync_id, Command::Poke { at }).await {
            Ok(Answer::Poked { next }) => next,
            _ => Some(at.plus_millis(CRON_MS)),
        };
        // As there: what is not noted is poked again.
        let _ = home.registry().poked(&due, next).await;
    }
    Ok(())
}

fn below(rng: &SeededEntropy, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).unwrap_or(0)
}
