//! What a tick of the cron does: it pokes the coordinators of the syncs that are due, and has the registry forget
//! connections that were archived long ago.
//!
//! It repairs and decides nothing else, so ticks may overlap, repeat, come late or be missed. One sync that fails keeps
//! no other from being poked: it comes again behind all that are due before it.

use futures_util::{
    future::join_all,
    stream::{self, StreamExt},
};
use serde::{Deserialize, Serialize};

use crate::{
    coordinator::protocol::{Answer, Command},
    registry::{DueSync, Poked, Registry},
};
use b2sync_core::{engine::meter::Budget, error::Error, time::Timestamp};

/// How many coordinators of a part are poked at the same time.
pub const POKES_IN_FLIGHT: usize = 50;
/// How many answers of coordinators the registry notes in one call.
pub const POKES_NOTED_AT_ONCE: usize = 250;
/// How many coordinators one tick pokes at most on the paid plan. What is left is overdue, and comes first at the next
/// tick.
pub const POKES_MAX: usize = 10_000;
/// The same on the free plan: an invocation has 1,000 calls, and little CPU time.
pub const POKES_MAX_FREE: usize = 300;
/// In how many parts a tick does that at most. Each has an invocation of its own, with 10,000 calls.
pub const PARTS_MAX: usize = 4;
/// How many requests to the outside an invocation has on the free plan.
pub const FREE_PLAN_REQUESTS: u64 = 50;
/// How soon a coordinator that did not answer is poked again, in milliseconds.
pub const POKE_FAILED_MS: i64 = 60_000;
/// How long an archived connection is remembered, in milliseconds: 30 days.
pub const ARCHIVED_KEPT_MS: i64 = 30 * 24 * 3_600_000;
/// How many archived connections are forgotten at once.
const PURGED_MAX: usize = 1_000;
/// How often archived connections are looked for, in milliseconds: at the tick that begins an hour.
const PURGE_EVERY_MS: i64 = 3_600_000;
/// How far ticks are apart, in milliseconds.
const TICK_MS: i64 = 60_000;

/// How many syncs a tick may poke, given what a step may spend: a budget of no more requests than the free plan has is
/// one of the free plan.
pub fn pokes_max(budget: &Budget) -> usize {
    if budget.external_requests_max <= FREE_PLAN_REQUESTS { POKES_MAX_FREE } else { POKES_MAX }
}

/// What a tick did.
#[derive(Debug, Default)]
pub struct Tick {
    /// How many coordinators were poked.
    pub poked: usize,
    /// How many archived connections were forgotten.
    pub purged: u64,
    /// What failed, to be logged. It is tried again at a later tick.
    pub failures: Vec<String>,
}

/// Syncs to poke at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The tick's time.
    pub at: Timestamp,
    /// Which.
    pub due: Vec<DueSync>,
}

/// What became of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartDone {
    /// How many coordinators were poked.
    pub poked: usize,
    /// What failed, to be logged.
    pub failures: Vec<String>,
}

/// Runs a tick at `at`, which pokes at most `limit` syncs. A few it pokes by itself: `poke_part` is [`poke_part`]. Of
/// many it hands parts out, and `hand_out` has them poked elsewhere. A part that is lost stays due.
///
/// # Errors
/// Those of the registry, if it does not say what is due.
pub async fn tick(
    registry: &impl Registry,
    poke_part: impl AsyncFn(Part) -> PartDone,
    hand_out: impl AsyncFn(usize, Part) -> Result<PartDone, Error>,
    limit: usize,
    at: Timestamp,
) -> Result<Tick, Error> {
    let mut tick = Tick::default();
    let due = registry.due(at, limit).await?;
    let parts = due.chunks(limit.div_ceil(PARTS_MAX).max(1)).map(|due| Part { at, due: due.to_vec() });
    let done = join_all(parts.enumerate().map(async |(number, part)| match number {
        0 => Ok(poke_part(part).await),
        _ => hand_out(number, part).await,
    }));
    for done in done.await {
        match done {
            Ok(PartDone { poked, failures }) => {
                tick.poked += poked;
                tick.failures.extend(failures);
            }
            Err(error) => tick.failures.push(format!("Some syncs were not poked: {error}")),
        }
    }
    if at.as_millis().rem_euclid(PURGE_EVERY_MS) < TICK_MS {
        match registry.purge(at.plus_millis(-ARCHIVED_KEPT_MS), PURGED_MAX).await {
            Ok(purged) => tick.purged = purged,
            Err(error) => tick.failures.push(format!("Archived connections were not purged: {error}")),
        }
    }
    Ok(tick)
}

/// Pokes the syncs of a part by `call`, which sends a command to the coordinator of a sync.
pub async fn poke_part(
    registry: &impl Registry,
    call: &impl AsyncFn(&str, Command) -> Result<Answer, Error>,
    Part { at, due }: Part,
) -> PartDone {
    let mut done = PartDone::default();
    let pokes = stream::iter(due).map(async |due| poke(call, due, at).await);
    let mut answers = pokes.buffer_unordered(POKES_IN_FLIGHT).chunks(POKES_NOTED_AT_ONCE);
    while let Some(answers) = answers.next().await {
        let mut noted = Vec::with_capacity(answers.len());
        for (poked, failure) in answers {
            done.failures.extend(failure);
            noted.push(poked);
        }
        done.poked += noted.len();
        if let Err(error) = registry.poked(&noted).await {
            let count = noted.len();
            done.failures.push(format!("When to poke {count} syncs again was not noted: {error}"));
        }
    }
    done
}

/// When to poke a sync again, and what failed.
async fn poke(
    call: &impl AsyncFn(&str, Command) -> Result<Answer, Error>,
    due: DueSync,
    at: Timestamp,
) -> (Poked, Option<String>) {
    let failed = match call(&due.sync_id, Command::Poke { at }).await {
        Ok(Answer::Poked { next }) => return (Poked { due, next }, None),
        Ok(other) => format!("{} answered a poke with {other:?}", due.sync_id),
        Err(error) => format!("{} was not poked: {error}", due.sync_id),
    };
    (Poked { due, next: Some(at.plus_millis(POKE_FAILED_MS)) }, Some(failed))
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        collections::BTreeMap,
        pin::pin,
        task::Poll,
    };

    use futures_util::future::poll_fn;
    use pollster::block_on;

    use super::*;
    use crate::{
        conformance::registry::{connection, sync},
        registry::{ConnectionRecord, MemoryRegistry},
    };
    use b2sync_core::error::ErrorKind;

    const fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn registry(syncs: usize) -> MemoryRegistry {
        let registry = MemoryRegistry::new();
        for i in 0..syncs {
            let record = sync(&format!("sync_{i:05}"), &format!("bkt_{}", i % 20), "conn_a", 1).unwrap();
            block_on(registry.insert_sync(record)).unwrap();
        }
        registry
    }

    /// A tick whose parts are all poked here.
    fn run<C: AsyncFn(&str, Command) -> Result<Answer, Error>>(
        registry: &MemoryRegistry,
        call: &C,
        limit: usize,
        at: Timestamp,
    ) -> Tick {
        let here = async |part| poke_part(registry, call, part).await;
        block_on(tick(registry, here, async |_, part| Ok(here(part).await), limit, at)).unwrap()
    }

    /// Comes back once before it is ready.
    async fn pause() {
        let mut paused = false;
        let wait = pin!(poll_fn(|context| {
            if std::mem::replace(&mut paused, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }));
        wait.await;
    }

    #[test]
    fn all_that_are_due_are_poked_once_and_some_at_the_same_time() {
        let registry = registry(POKES_MAX);
        let (in_flight, most, poked) = (Cell::new(0), Cell::new(0), RefCell::new(BTreeMap::<String, u32>::new()));
        let call = async |sync_id: &str, command: Command| {
            assert_eq!(command, Command::Poke { at: at(60_000) });
            in_flight.set(in_flight.get() + 1);
            most.set(most.get().max(in_flight.get()));
            *poked.borrow_mut().entry(sync_id.to_owned()).or_default() += 1;
            pause().await;
            in_flight.set(in_flight.get() - 1);
            Ok(Answer::Poked { next: Some(at(360_000)) })
        };
        for expected in [POKES_MAX, 0] {
            let done = run(&registry, &call, POKES_MAX, at(60_000));
            assert_eq!((done.poked, done.failures.len()), (expected, 0));
        }
        assert_eq!((most.get(), poked.borrow().len()), (POKES_IN_FLIGHT * PARTS_MAX, POKES_MAX));
        assert!(poked.borrow().values().all(|&times| times == 1));
        assert!(block_on(registry.due(at(359_999), 9)).unwrap().is_empty());
        assert_eq!(block_on(registry.due(at(360_000), 20_000)).unwrap().len(), 10_000);
    }

    #[test]
    fn a_tick_stays_within_the_calls_of_an_invocation() {
        for (pokes, calls) in [(POKES_MAX, 10_000), (POKES_MAX_FREE, 1_000)] {
            let part = pokes.div_ceil(PARTS_MAX);
            let due_others_and_purge = PARTS_MAX + 1;
            let spent = part + part.div_ceil(POKES_NOTED_AT_ONCE) + due_others_and_purge;
            assert!(spent <= calls, "{spent}");
        }
        assert_eq!(pokes_max(&Budget::WORKERS_PAID), POKES_MAX);
        assert_eq!(pokes_max(&Budget::WORKERS_FREE), POKES_MAX_FREE);
    }

    #[test]
    fn a_sync_that_fails_keeps_no_other_from_being_poked() {
        let registry = registry(3);
        let call = async |sync_id: &str, _| match sync_id {
            "sync_00000" => Err(Error::new(ErrorKind::Storage, "It is away.", "Try again.")),
            "sync_00001" => Ok(Answer::Forgotten),
            _ => Ok(Answer::Poked { next: None }),
        };
        let done = run(&registry, &call, 9, at(1));
        assert_eq!((done.poked, done.failures.len()), (3, 2), "{done:?}");
        assert!(done.failures.iter().any(|it| it.contains("sync_00000 was not poked: It is away.")), "{done:?}");
        assert!(block_on(registry.due(at(POKE_FAILED_MS), 9)).unwrap().is_empty());
        assert_eq!(block_on(registry.due(at(POKE_FAILED_MS + 1), 9)).unwrap().len(), 2);
    }

    #[test]
    fn a_part_that_is_lost_stays_due() {
        let registry = registry(8);
        let call = async |_: &str, _| Ok(Answer::Poked { next: None });
        let here = async |part| poke_part(&registry, &call, part).await;
        let lost = async |number, part: Part| match number {
            2 => Err(Error::new(ErrorKind::Storage, "It is away.", "Try again.")),
            _ => Ok(here(part).await),
        };
        let done = block_on(tick(&registry, here, lost, 8, at(1))).unwrap();
        assert_eq!((done.poked, done.failures.len()), (6, 1), "{done:?}");
        let left: Vec<_> = block_on(registry.due(at(1), 9)).unwrap().into_iter().map(|due| due.sync_id).collect();
        assert_eq!(left, ["sync_00004", "sync_00005"]);
    }

    #[test]
    fn a_connection_is_forgotten_thirty_days_after_it_was_archived() {
        let registry = MemoryRegistry::new();
        for name in ["kept", "used", "over"] {
            block_on(registry.insert_connection(connection(&format!("conn_{name}"), name, 1))).unwrap();
        }
        block_on(registry.insert_sync(sync("sync_a", "bkt", "conn_used", 1).unwrap())).unwrap();
        let archived_at = at(5 * 3_600_000 + 1);
        for name in ["used", "over"] {
            let record = block_on(registry.connection(name)).unwrap().unwrap();
            let archived = ConnectionRecord { archived: true, updated_at: archived_at, ..record };
            block_on(registry.update_connection(archived, 1)).unwrap();
        }
        let call = async |_: &str, _| Ok(Answer::Poked { next: None });
        let is_there = |id: &str| block_on(registry.connection(id)).unwrap().is_some();
        let mut now = at(0);
        while is_there("conn_over") {
            now = now.plus_millis(TICK_MS);
            run(&registry, &call, 9, now);
        }
        let days = now.millis_since(archived_at) as f64 / 86_400_000.0;
        assert!((30.0..30.05).contains(&days), "{days}");
        assert!(is_there("conn_kept") && is_there("conn_used"));
        block_on(registry.delete_sync("sync_a")).unwrap();
        for _ in 0..60 {
            now = now.plus_millis(TICK_MS);
            run(&registry, &call, 9, now);
        }
        assert!(is_there("conn_kept") && !is_there("conn_used"));
    }
}
