//! Commands, steps, faults and deaths in any order, while files come and go, filters change, and up to three sinks are
//! slow, refuse, fail and kill. At every moment the feed is whole; at rest feed, sinks, snapshot and bucket are the
//! same.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Command(Command),
    Drive,
    /// Whatever is in flight goes on, each by this many turns.
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
    /// A sink changes its manner.
    Sink(usize, Manner),
    /// Letters of a sink are sent back.
    SendBack(usize),
    /// The cursor of a sink goes back by this many changes.
    Replay(usize, u64),
}

fn manners() -> impl Strategy<Value = Manner> {
    prop_oneof![
        4 => Just(Manner::Takes),
        2 => (1..15_000_u64).prop_map(Manner::Slow),
        2 => Just(Manner::Fails(None)),
        1 => Just(Manner::Hangs),
        1 => Just(Manner::Kills),
        1 => Just(Manner::Forgets),
        2 => Just(Manner::Refuses(|change| change.position % 3 == 0)),
        1 => Just(Manner::Refuses(|change| change.entry.key.contains('7'))),
    ]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let trigger = Command::Trigger { trigger: Trigger::Manual, confirm_deletes: true, full_sync: false };
    let requeue = Command::Requeue { error_types: Vec::new() };
    let event = prop_oneof![
        3 => Just(Event::Command(trigger)),
        1 => Just(Event::Command(Command::Poke { at: Timestamp::from_millis(START) })),
        2 => Just(Event::Command(Command::Pause { reason: None })),
        3 => Just(Event::Command(Command::Resume)),
        1 => Just(Event::Command(Command::Unlock)),
        1 => Just(Event::Command(Command::Configured)),
        1 => Just(Event::Command(requeue)),
        1 => Just(Event::Command(Command::Changes { after: None, limit: 9, wait_ms: 2_000 })),
        7 => Just(Event::Drive),
        13 => (1u8..40).prop_map(Event::Turns),
        1 => Just(Event::Die),
        2 => (1u8..20, any::<bool>()).prop_map(|(n, after)| Event::Break(n, after)),
        2 => (1u32..400_000).prop_map(Event::Wait),
        1 => (400_000u32..10_000_000).prop_map(Event::Wait),
        4 => (0u8..24).prop_map(Event::Put),
        2 => (0u8..24).prop_map(Event::Delete),
        1 => any::<bool>().prop_map(Event::Filter),
        3 => (0usize..3, manners()).prop_map(|(sink, manner)| Event::Sink(sink, manner)),
        1 => (0usize..3).prop_map(Event::SendBack),
        1 => (0usize..3, 0u64..40).prop_map(|(sink, by)| Event::Replay(sink, by)),
    ];
    proptest::collection::vec(event, 0..70)
}

/// A world, and all that is in flight in it.
struct Run {
    world: World,
    tasks: Vec<Task>,
    /// What the feed ever showed at a position.
    seen: BTreeMap<u64, Change>,
    versions: u64,
}

impl Run {
    /// Lets each of the tasks go on a little; the order is that of the list. A sink that kills takes all of them with
    /// it.
    fn turn(&mut self) {
        for n in (0..self.tasks.len()).rev() {
            let polled = self.tasks[n].as_mut().poll(&mut Context::from_waker(Waker::noop()));
            if was_killed() {
                return self.die();
            }
            if polled.is_ready() {
                drop(self.tasks.remove(n));
            }
        }
    }

    fn die(&mut self) {
        self.tasks.clear();
        self.world = self.world.next_instance();
    }

    fn sink_id(&self, n: usize) -> String {
        let n = n % self.world.inner.sinks.borrow().len();
        self.world.sink(n).sink_id.clone()
    }

    fn filter(&self, on: bool) {
        self.world.change_sync(|sync| {
            sync.filters.exclude_patterns = if on { vec!["k00?5*".to_owned()] } else { Vec::new() };
        });
    }

    fn apply(&mut self, event: Event, keys: &[String]) {
        let world = &self.world;
        match event {
            Event::Command(Command::Poke { .. }) => {
                self.tasks.push(world.task(Some(Command::Poke { at: world.now() })));
            }
            Event::Command(command) => self.tasks.push(world.task(Some(command))),
            Event::Drive => self.tasks.push(world.task(None)),
            Event::Turns(turns) => (0..turns).for_each(|_| self.turn()),
            Event::Die => self.die(),
            Event::Break(n, after) => {
                let at = world.inner.effects.get() + u64::from(n);
                world.inner.break_at.set(Some((at, if after { Break::After } else { Break::Before })));
            }
            Event::Wait(millis) => world.wait(i64::from(millis)),
            Event::Put(key) => {
                self.versions += 1;
                world.put(&keys[usize::from(key)], self.versions);
            }
            Event::Filter(on) => self.filter(on),
            Event::Delete(key) => world.delete(&keys[usize::from(key)]),
            Event::Sink(n, manner) => {
                let n = n % world.inner.sinks.borrow().len();
                world.sink(n).manner.set(manner);
            }
            Event::SendBack(n) => {
                let sink_id = self.sink_id(n);
                self.tasks.push(world.send_back(&sink_id));
            }
            Event::Replay(n, by) => {
                let last = self.seen.keys().last().copied().unwrap_or_default();
                let replay = Command::Replay { sink_id: self.sink_id(n), after: last.saturating_sub(by) };
                self.tasks.push(world.task(Some(replay)));
            }
        }
    }

    /// The feed is whole at every moment, what it showed once does not change, and nothing is gone that a sink needs.
    fn check_moment(&mut self) {
        let state = self.world.state();
        assert!(state.jobs.iter().all(JobRecord::is_over));
        let feed = self.world.check_feed();
        let first = self.world.changes(None, 1, 0).unwrap().1;
        for change in feed {
            let known = self.seen.entry(change.position).or_insert_with(|| change.clone());
            assert_eq!(*known, change, "a position has another change than before");
        }
        for n in 0..self.world.inner.sinks.borrow().len() {
            let (record, sink) = (self.world.record(n), self.world.sink(n));
            assert!(!record.is_active() || record.cursor + 1 >= first, "{} needs what is gone", sink.sink_id);
            let taken: std::collections::BTreeSet<u64> = sink.positions().into_iter().collect();
            let letters: Vec<u64> = record.dead_letters.iter().map(|letter| letter.position).collect();
            // A letter stands for what was refused, unless a newer change of the key took its place.
            let lost = (1..=record.cursor).filter(|it| !taken.contains(it) && !letters.contains(it));
            let refused = lost.filter(|_| !sink.has_refused.get()).collect::<Vec<_>>();
            assert!(refused.is_empty(), "{} never took {refused:?}, and its cursor is {}", sink.sink_id, record.cursor);
        }
    }

    /// All that is in flight ends, all sinks take everything, the sync polls once more, and nothing changes meanwhile.
    fn come_to_rest(&mut self) {
        for sink in self.world.inner.sinks.borrow().iter() {
            sink.manner.set(Manner::Takes);
        }
        // From here on the feed keeps what no test looks at in between.
        self.world.change_sync(|sync| sync.feed_retention_hours = 720);
        for turn in 0..100_000 {
            if self.tasks.is_empty() {
                break;
            }
            self.turn();
            if turn % 10 == 0 {
                self.check_moment();
            }
        }
        assert!(self.tasks.is_empty(), "something never ends");
        let world = &self.world;
        world.inner.interleaved.set(false);
        world.inner.break_at.set(None);
        self.filter(false);
        world.ask(Command::Resume);
        world.run();
        world.ask(Command::Trigger { trigger: Trigger::Manual, confirm_deletes: true, full_sync: false });
        world.run();
        for n in 0..world.inner.sinks.borrow().len() {
            poll_to_end(world.send_back(&self.sink_id(n))).unwrap().unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn at_rest_what_was_delivered_is_what_the_bucket_holds(
        events in events(),
        a_page_a_step: bool,
        faults: bool,
        sinks in 1..4_usize,
    ) {
        let all = keys(24, 4);
        let mut world = World::new(all.clone());
        if a_page_a_step {
            world = world.a_page_a_step();
        }
        for n in 1..sinks {
            world = world.with_sink(&format!("sink{n}"), Manner::Takes);
            world.sink(n).batch_max.set(n * 2);
        }
        world.change_sync(|sync| sync.feed_retention_hours = 1);
        world.inner.interleaved.set(true);
        let mut run = Run { world, tasks: Vec::new(), seen: BTreeMap::new(), versions: 1 };
        for event in events {
            let is_fault = matches!(event, Event::Die | Event::Break(..) | Event::Sink(_, Manner::Kills));
            if faults || !is_fault {
                run.apply(event, &all);
            }
            run.check_moment();
        }
        run.come_to_rest();
        run.check_moment();
        run.world.check_from(&run.seen);
        prop_assert_eq!(run.world.status().last_job.unwrap().status, JobStatus::Completed);
    }
}
