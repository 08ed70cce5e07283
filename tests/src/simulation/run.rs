//! Who is let go on, when time passes, and what rest is.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use b2sync_core::entropy::Entropy as _;
use b2sync_core::error::{Error, ErrorKind};
use b2sync_core::job::Trigger;
use b2sync_core::time::{Clock as _, Timestamp};
use b2sync_service::coordinator::protocol::Command;
use b2sync_service::coordinator::{Coordinator, Home as _, LEASE_MARGIN_MS};
use b2sync_service::registry::Registry as _;
use b2sync_service::watchdog;

use super::checkers::{Rule, Violation};
use super::history::{Call, Plan};
use super::home::SimHome;
use super::kv::PLACES;
use super::options::Options;
use super::tally::Tally;
use super::world::{Doom, Inner, Instance, SYNC};
use crate::virtual_world::{SeededEntropy, mix};

/// Turns within one event after which something counts as never ending.
const TURNS_MAX: u32 = 200_000;
/// How often the cron comes, in milliseconds.
const CRON_MS: i64 = 60_000;
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

pub(super) struct Task {
    pub(super) id: u64,
    slot: usize,
    /// Whether the platform owes a repetition.
    alarm: bool,
    what: String,
    future: Running,
    /// Whether it was woken since its latest turn.
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
    pub(super) instances: Vec<Instance>,
    born: u64,
    pub(super) tasks: Vec<Task>,
    pub(super) begun: u64,
    pub(super) next_cron: i64,
    pub(super) uploads: [Option<(String, String)>; 3],
    pub(super) keep_keys: Vec<String>,
    pub(super) deleting: bool,
    /// The tasks that have deleted the sync.
    pub(super) forgotten: BTreeSet<u64>,
}

pub(super) fn broken(rule: Rule, message: impl Into<String>) -> Violation {
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
        Instance { name, place, offset_ms, memory: Rc::default(), cache: Rc::default() }
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

    pub(super) fn now(&self) -> i64 {
        self.inner.now.get()
    }

    /// A step ends, or its home ends it, while its lease lasts by every clock: nothing else can keep a step that
    /// was frozen from delivering what is not so any more.
    fn step_ms_max(&self) -> i64 {
        let options = &self.inner.options;
        let lease_ms = options.budget.wall_ms_max.saturating_add(LEASE_MARGIN_MS);
        i64::try_from(lease_ms.saturating_sub(2 * options.skew_ms_max)).unwrap_or(i64::MAX) - 1
    }

    pub(super) fn advance(&mut self, to: i64) {
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

    pub(super) fn begin(&mut self, what: String, slot: usize, alarm: bool, command: Option<Command>) {
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
            let message = format!("#{} waits, and nothing would ever wake it: {}", task.id, task.what);
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
            // What was to be replayed is no longer there.
            ErrorKind::FeedGap if task.what.starts_with("Replay") => Ok(()),
            ErrorKind::NotFound if self.deleting && !task.alarm => Ok(()),
            _ => Err(broken(Rule::CallsKeepTheirContract, format!("{} ended with {error:?}", task.what))),
        }
    }

    pub(super) fn drop_tasks(&mut self, who: impl Fn(&Task) -> bool) {
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

    pub(super) fn die(&mut self, slot: usize) {
        let next = self.next_instance();
        self.inner.note(|| format!("{} dies; {} is there", self.instances[slot].name, next.name));
        self.drop_tasks(|task| task.slot == slot);
        self.instances[slot] = next;
    }

    pub(super) fn call(&mut self, call: Call, slot: usize) {
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
            Call::Replay { sink, part } => {
                self.inner.count(|tally| tally.replays += 1);
                let sink_id = self.inner.sinks[usize::from(sink) % self.inner.sinks.len()].sink_id.clone();
                let after = self.inner.checks.borrow().last_position() * u64::from(part) / 255;
                Some(Command::Replay { sink_id, after })
            }
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
    pub(super) fn run_for(&mut self, ms: i64, rng: &SeededEntropy, reliable: bool) -> Result<(), Violation> {
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

    pub(super) fn turns(&mut self, turns: u32, rng: &SeededEntropy) -> Result<(), Violation> {
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
}

/// Which calls have the API tell the registry that the sync is to be poked, should they be cut off.
pub(super) fn is_poked_after(command: &Command) -> bool {
    use Command::{Configured, ConnectionLifted, Requeue, Resume, Trigger};
    matches!(command, Configured | ConnectionLifted | Requeue { .. } | Resume | Trigger { .. })
}

/// What a tick of the cron does, as the Worker's `scheduled`.
async fn poke_due(home: &SimHome, at: Timestamp) -> Result<(), Error> {
    let at = at.max(home.clock().now());
    let call = async |sync_id: &str, command: Command| Coordinator::new(home).handle(sync_id, command).await;
    let here = async |part| watchdog::poke_part(home.registry(), &call, part).await;
    let elsewhere = async |_, part| Ok(here(part).await);
    watchdog::tick(home.registry(), here, elsewhere, watchdog::POKES_MAX, at).await.map(|_| ())
}

pub(super) fn below(rng: &SeededEntropy, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).unwrap_or(0)
}
