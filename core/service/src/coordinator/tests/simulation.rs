//! Commands, steps, faults and deaths in any order, while files come and go and filters change: at rest, what was
//! delivered is what the bucket holds.

use std::task::{Context, Waker};

use proptest::prelude::*;

use super::world::*;
use super::*;

#[derive(Clone, Debug)]
enum Event {
    Command(Command),
    Drive,
    /// Whatever is in flight goes on, each by so many turns.
    Turns(u8),
    /// All that is in flight dies with its instance.
    Die,
    /// The n-th effect from now breaks.
    Break(u8, bool),
    Wait(u32),
    Put(u8),
    Delete(u8),
    /// Whether one key in ten is left out.
    Filter(bool),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => Just(Event::Command(Command::Trigger { trigger: Trigger::Manual, confirm_deletes: true, full_sync: false })),
        1 => Just(Event::Command(Command::Poke { at: Timestamp::from_millis(START) })),
        2 => Just(Event::Command(Command::Pause { reason: None })),
        3 => Just(Event::Command(Command::Resume)),
        1 => Just(Event::Command(Command::Unlock)),
        1 => Just(Event::Command(Command::Configured)),
        6 => Just(Event::Drive),
        12 => (1u8..40).prop_map(Event::Turns),
        1 => Just(Event::Die),
        2 => (1u8..20, any::<bool>()).prop_map(|(n, after)| Event::Break(n, after)),
        2 => (1u32..400_000).prop_map(Event::Wait),
        3 => (0u8..24).prop_map(Event::Put),
        2 => (0u8..24).prop_map(Event::Delete),
        1 => any::<bool>().prop_map(Event::Filter),
    ];
    proptest::collection::vec(event, 0..60)
}

/// Lets each of the tasks go on a little; the order is that of the list.
fn turn(tasks: &mut Vec<Task>) {
    tasks.retain_mut(|task| task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

fn filter(world: &World, on: bool) {
    world.change_sync(|sync| {
        sync.filters.exclude_patterns = if on { vec!["k00?5*".to_owned()] } else { Vec::new() };
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn at_rest_what_was_delivered_is_what_the_bucket_holds(
        events in events(),
        a_page_a_step: bool,
        faults: bool,
    ) {
        let all = keys(24, 4);
        let mut world = World::new(all.clone());
        if a_page_a_step {
            world = world.a_page_a_step();
        }
        let mut versions = 1;
        let filtered = events.iter().any(|event| matches!(event, Event::Filter(_)));
        let mut tasks: Vec<Task> = Vec::new();
        world.inner.interleaved.set(true);
        for event in events {
            match event {
                Event::Die | Event::Break(..) if !faults => {}
                Event::Command(Command::Poke { .. }) => {
                    let at = world.now();
                    tasks.push(world.task(Some(Command::Poke { at })));
                }
                Event::Command(command) => tasks.push(world.task(Some(command))),
                Event::Drive => tasks.push(world.task(None)),
                Event::Turns(turns) => (0..turns).for_each(|_| turn(&mut tasks)),
                Event::Die => {
                    tasks.clear();
                    world = world.next_instance();
                }
                Event::Break(n, after) => {
                    let at = world.inner.effects.get() + u64::from(n);
                    world.inner.break_at.set(Some((at, if after { Break::After } else { Break::Before })));
                }
                Event::Wait(millis) => world.wait(i64::from(millis)),
                Event::Put(key) => {
                    versions += 1;
                    world.put(&all[usize::from(key)], versions);
                }
                Event::Filter(on) => filter(&world, on),
                Event::Delete(key) => world.delete(&all[usize::from(key)]),
            }
            let (state, _) = poll_to_end(Coordinator::new(&world.home()).load(SYNC)).unwrap().unwrap();
            prop_assert!(state.jobs.iter().all(|job| job.is_over()));
        }
        // At rest: all that is in flight ends, the sync polls once more, and nothing changes meanwhile.
        for _ in 0..100_000 {
            if tasks.is_empty() {
                break;
            }
            turn(&mut tasks);
        }
        prop_assert!(tasks.is_empty(), "something never ends");
        world.inner.interleaved.set(false);
        world.inner.break_at.set(None);
        filter(&world, false);
        world.ask(Command::Resume);
        world.run();
        world.ask(Command::Trigger { trigger: Trigger::Manual, confirm_deletes: true, full_sync: false });
        world.run();
        if filtered {
            // What was updated, left out and taken in again is a creation of the version that was an update.
            world.check_delivered();
        } else {
            world.check();
        }
        prop_assert_eq!(world.status().last_job.unwrap().status, JobStatus::Completed);
    }
}
