//! The feed as steps append to it.

use super::*;
use crate::{change::change_id, feed::batch};

/// The changes of the batches that the steps of the latest job answered.
fn answered(world: &World) -> Vec<Change> {
    let appended = world.appended.borrow();
    appended.iter().flat_map(|batch| batch::decode(&batch.bytes, SYNC_ID).unwrap()).collect()
}

fn revision(world: &World) -> u64 {
    block_on(State::new(&world.home.blobs, &world.home.documents).load_document()).unwrap().1
}

#[test]
fn a_change_says_what_was_known_when_it_was_found_and_by_which_job() {
    let world = World::new(10);
    world.clock.now_ms.set(1_000);
    world.bucket.set([entry("a", 1), entry("b", 2)]);
    world.job(&Budget::UNLIMITED);
    world.clock.now_ms.set(2_000);
    world.bucket.set([entry("b", 3), entry("c", 4)]);
    world.job(&Budget::UNLIMITED);
    let change = |position, kind, entry: Entry, previous: Option<Entry>| Change {
        position,
        id: change_id(SYNC_ID, position),
        kind,
        entry,
        previous: previous.map(|entry| (&Known::from(&entry)).into()),
        again: false,
        found_at: Timestamp::from_millis(if position < 3 { 1_000 } else { 2_000 }),
        job_id: (if position < 3 { "job_1" } else { "job_2" }).to_owned(),
    };
    let deleted = Entry { etag: String::new(), ..entry("a", 1) };
    assert_eq!(
        world.changes(),
        [
            change(1, ChangeKind::Created, entry("a", 1), None),
            change(2, ChangeKind::Created, entry("b", 2), None),
            change(3, ChangeKind::Updated, entry("b", 3), Some(entry("b", 2))),
            change(4, ChangeKind::Created, entry("c", 4), None),
            change(5, ChangeKind::Deleted, deleted, Some(entry("a", 1))),
        ]
    );
}

#[test]
fn a_version_that_goes_and_comes_back_is_another_change() {
    let world = World::new(10);
    for _ in 0..3 {
        for state in [vec![entry("a", 1), entry("b", 1)], vec![entry("b", 2)]] {
            world.bucket.set(state);
            world.job(&Budget::UNLIMITED);
            world.check();
        }
    }
    let of_a: Vec<_> = world.changes().into_iter().filter(|change| change.entry.key == "a").collect();
    assert_eq!(of_a.iter().map(|change| &change.id).collect::<BTreeSet<_>>().len(), 6);
    assert!(of_a.iter().step_by(2).all(|change| (change.kind, &change.entry) == (ChangeKind::Created, &entry("a", 1))));
}

#[test]
fn few_changes_of_every_kind_are_one_swap_with_the_root() {
    let world = World::new(10);
    world.bucket.set(keys(0..95));
    world.job(&Budget::UNLIMITED);
    assert_eq!(revision(&world), 1);
    let mut entries = keys(3..96);
    entries[40] = entry("k00043", 2);
    world.bucket.set(entries);
    let report = world.job(&Budget::UNLIMITED);
    assert_eq!((report.counts.created, report.counts.updated, report.counts.deleted), (1, 1, 3));
    assert_eq!((revision(&world), world.appended.borrow().len()), (2, 1));
    world.check();
}

#[test]
fn a_swap_that_fails_appends_nothing() {
    for happened in [false, true] {
        let world = World::new(100);
        world.bucket.set(keys(0..5));
        world.job(&Budget::UNLIMITED);
        world.bucket.set(keys(0..9));
        let whole = World::new(100);
        for range in [0..5, 0..9] {
            whole.bucket.set(keys(range));
            whole.job(&Budget::UNLIMITED);
        }
        // The swap is the last effect of a job.
        world.home.breaks_at.set(Some((whole.home.effects.get(), happened)));
        let report = world.step("job_2", &Budget::UNLIMITED);
        assert!(report.outcome.is_err_and(|error| error.is_transient()));
        assert_eq!((report.appended, report.counts.changes()), (Vec::new(), 0), "nothing is known to be appended");
        assert_eq!(world.document().feed.last(), if happened { 9 } else { 5 });
        let report = world.step("job_2", &Budget::UNLIMITED);
        assert_eq!((report.outcome.unwrap(), report.counts.created), (Outcome::Done, 4));
        assert_eq!(report.feed.unwrap().last(), 9);
        assert_eq!(report.appended.len(), usize::from(!happened), "the feed tells what the job itself does not");
        world.check();
        assert_eq!(world.changes(), whole.changes());
    }
}

#[test]
fn a_step_answers_the_first_batches_up_to_a_few_megabytes() {
    let world = World::new(1_000);
    world.thresholds.set(Thresholds { flush_changes_min: 700, ..Thresholds::USUAL });
    // No name has anything to do with the one before.
    let name = |n: u32| format!("{}{n}", blake3::hash(&n.to_le_bytes()).to_hex().repeat(15));
    world.bucket.set((0..6_000).map(|n| entry(&name(n), 1)));
    let report = world.job(&Budget::UNLIMITED);
    assert_eq!(report.counts.created, 6_000);
    let bytes: usize = report.appended.iter().map(|batch| batch.bytes.len()).sum();
    assert!((APPENDED_BYTES_MAX / 2..=APPENDED_BYTES_MAX).contains(&bytes), "{bytes} bytes");
    let (answered, all) = (answered(&world), world.changes());
    assert!(answered.len() < 6_000 && all.starts_with(&answered), "{} changes", answered.len());
}

#[test]
fn a_job_that_is_not_wanted_any_more_appends_nothing() {
    for apart in [false, true] {
        let mut world = World::new(10);
        world.reconcile = Reconcile { on_filter_drift: !apart, ..Reconcile::default() };
        world.thresholds.set(Thresholds { flush_changes_min: 2, ..Thresholds::USUAL });
        world.bucket.set(keys(0..30));
        world.job(&Budget::UNLIMITED);
        world.bucket.set(keys(20..30));
        while !world.document().checkpoint.is_some_and(|checkpoint| checkpoint.listed) {
            assert_eq!(world.step("job_2", &ONE_PAGE).outcome.unwrap(), Outcome::Continue);
        }
        let (changes, blobs) = (world.changes(), world.home.blobs.names());
        world.bucket.is_unwanted.set(true);
        let report = world.step("job_2", &Budget::UNLIMITED);
        assert_eq!((report.outcome.unwrap_err().kind(), report.appended.len()), (ErrorKind::StateConflict, 0));
        assert_eq!((world.changes(), world.home.blobs.names()), (changes, blobs), "and stores nothing");
        world.bucket.is_unwanted.set(false);
        world.job(&Budget::UNLIMITED);
        world.check();
    }
}

#[test]
fn what_was_found_before_deletions_are_too_many_is_in_the_feed() {
    let mut world = World::new(10);
    world.confirm_deletes = false;
    world.deletion_limit = DeletionLimit { percent: 50, files: 0 };
    world.bucket.set(keys(0..20));
    world.job(&Budget::UNLIMITED);
    // Found while all of them were within the limit, which is lowered before the listing is at its end.
    world.bucket.set(keys(9..31));
    while world.document().checkpoint.is_none_or(|checkpoint| checkpoint.deletions_found < 9) {
        assert_eq!(world.step("job_x", &ONE_PAGE).outcome.unwrap(), Outcome::Continue);
    }
    world.deletion_limit = DeletionLimit { percent: 0, files: 3 };
    for job in ["job_x", "job_x"] {
        let report = world.step(job, &Budget::UNLIMITED);
        assert_eq!((report.outcome.unwrap(), report.held_back.unwrap().count), (Outcome::Done, 9));
        assert_eq!(report.counts.created, 11);
        assert_eq!(world.current().len(), 31, "what was created is there, and nothing was deleted");
    }
    world.confirm_deletes = true;
    world.job(&Budget::UNLIMITED);
    world.check();
}

#[test]
fn however_many_steps_append_the_document_stays_small() {
    let world = World::new(10);
    world.thresholds.set(Thresholds { flush_changes_min: 1, tail_items_max: 4, ..Thresholds::USUAL });
    world.bucket.set(keys(0..300));
    world.job(&Budget::UNLIMITED);
    let feed = world.document().feed;
    assert!(feed.tail().unwrap().len() <= 4 && feed.lists.len() > 20, "{} lists", feed.lists.len());
    world.check();
    world.check_nothing_else_is_stored();
}

/// What happens to a world, one at a time.
#[derive(Clone, Debug)]
enum Event {
    Bucket(BTreeMap<String, u64>),
    /// Filters that leave that out, under a fingerprint of their own.
    Filter(bool),
    Reconcile(bool, bool, bool),
    Step {
        same_job: bool,
        keys_max: u64,
        breaks_at: Option<(u64, bool)>,
    },
    Job,
    Settle,
    ObjectsMax(Option<u64>),
    Resync(bool),
    Streams(usize),
    Retention(Option<i64>, u64),
    Forget(u64),
    Time(i64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let breaks_at = || proptest::option::of((1u64..20, any::<bool>()));
    let state = proptest::collection::btree_map("[abc]{1,3}", 1u64..3, 0..40);
    let one = prop_oneof![
        4 => state.prop_map(Event::Bucket),
        1 => any::<bool>().prop_map(Event::Filter),
        1 => any::<(bool, bool, bool)>().prop_map(|(a, b, c)| Event::Reconcile(a, b, c)),
        8 => (any::<bool>(), 1u64..40, breaks_at())
            .prop_map(|(same_job, keys_max, breaks_at)| Event::Step { same_job, keys_max, breaks_at }),
        4 => Just(Event::Job),
        1 => Just(Event::Settle),
        1 => proptest::option::of(1u64..9).prop_map(Event::ObjectsMax),
        1 => any::<bool>().prop_map(Event::Resync),
        1 => (1usize..4).prop_map(Event::Streams),
        1 => (proptest::option::of(0i64..50), 0u64..200).prop_map(|(age, up_to)| Event::Retention(age, up_to)),
        1 => (0u64..200).prop_map(Event::Forget),
        2 => (1i64..50).prop_map(Event::Time),
    ];
    proptest::collection::vec(one, 1..40)
}

/// A world, and how it is configured just now.
struct Eventful {
    world: World,
    narrow: bool,
    job: u32,
}

impl Eventful {
    fn happens(&mut self, event: Event) {
        let world = &mut self.world;
        match event {
            Event::Bucket(state) => world.bucket.set(state.iter().map(|(key, version)| entry(key, *version))),
            Event::Filter(narrow) => self.narrow = narrow,
            Event::Reconcile(on_delete, on_update, on_filter_drift) => {
                world.reconcile = Reconcile { on_delete, on_update, on_filter_drift };
            }
            Event::Step { same_job, keys_max, breaks_at } => {
                let effects = world.home.effects.get();
                world.home.breaks_at.set(breaks_at.map(|(at, after)| (effects + at, after)));
                self.job += u32::from(!same_job);
                let job_id = format!("job_{}", self.job);
                let outcome = self.step(&job_id, &Budget { keys_max, ..Budget::UNLIMITED });
                // Where a job is held, what was forgotten meanwhile is a conflict.
                let may_fail = breaks_at.is_some() || self.world.memory.is_some();
                assert!(outcome.as_ref().is_ok_and(|_| true) || may_fail, "{outcome:?}");
                self.world.home.breaks_at.set(None);
            }
            Event::Job => self.job(),
            Event::Settle => world.settle(),
            Event::ObjectsMax(most) => world.objects_max.set(most),
            Event::Resync(resync) => world.resync.set(resync),
            Event::Streams(streams) => world.streams.set(streams),
            Event::Retention(age, up_to) => {
                let before = age.map(|age| world.clock.now().plus_millis(-age));
                world.retention.set(Retention { before, up_to });
            }
            Event::Forget(up_to) => _ = world.forget(up_to),
            Event::Time(millis) => world.clock.now_ms.set(world.clock.now_ms.get() + millis),
        }
    }

    fn step(&mut self, job_id: &str, budget: &Budget) -> Result<Outcome, Error> {
        let (patterns, fingerprint): (&[&str], _) = if self.narrow { (&["a*"], "narrow") } else { (&[], "all") };
        (self.world.filter, self.world.fingerprint) = (filter(patterns), fingerprint);
        self.world.step(job_id, budget).outcome
    }

    fn job(&mut self) {
        self.job += 1;
        let job_id = format!("job_{}", self.job);
        for _ in 0..1_000 {
            match self.step(&job_id, &Budget { keys_max: 7, ..Budget::UNLIMITED }) {
                Ok(Outcome::Done) => return,
                Ok(Outcome::Continue) => {}
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
        }
        panic!("the job does not end");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_steps_answer_as_appended_is_what_they_appended(
        history in histories(),
        page_size in 1usize..12,
        stepped: bool,
        tiny: bool,
        memory: bool,
    ) {
        let world = World::new(page_size).with_tiny_thresholds(tiny).with_memory(memory);
        for state in states(&history) {
            world.bucket.set(state);
            let before = world.changes().len();
            world.appended.borrow_mut().clear();
            let report = world.job(if stepped { &ONE_PAGE } else { &Budget::UNLIMITED });
            let appended = world.changes().split_off(before);
            prop_assert_eq!(report.counts.changes(), appended.len() as u64);
            prop_assert_eq!(answered(&world), appended);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_happens_the_feed_tells_what_the_snapshot_counts(
        events in events(),
        page_size in 1usize..12,
        utf16: bool,
        tiny: bool,
        memory: bool,
    ) {
        let world = World::new(page_size).in_order(utf16).with_tiny_thresholds(tiny).with_memory(memory);
        let mut eventful = Eventful { world, narrow: false, job: 0 };
        for event in events {
            eventful.happens(event);
        }
        eventful.narrow = false;
        eventful.world.objects_max.set(None);
        eventful.world.resync.set(false);
        eventful.world.reconcile = Reconcile::default();
        eventful.job();
        // One that goes on with a full sync of an earlier job.
        eventful.job();
        if eventful.world.home.watcher.tells_all.get() {
            eventful.world.check();
        }
        let world = &eventful.world;
        let named: BTreeSet<String> = world.stored().0.into_iter().chain(world.feed_blobs()).collect();
        prop_assert!(named.is_disjoint(&world.to_be_deleted()));
    }
}
