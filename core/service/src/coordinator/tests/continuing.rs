//! Jobs that break off for a passing reason, and the jobs that go on from there.

use super::*;

const DOWN: (u16, &str) = (503, "<Error><Code>InternalError</Code></Error>");
const CAP: (u16, &str) = (403, "<Error><Code>AccessDenied</Code><Message>Transaction cap exceeded</Message></Error>");

/// A world whose job has read some pages and then broken off with `answer`.
fn broken_off(world: &World, answer: (u16, &'static str)) -> JobRecord {
    world.trigger();
    for _ in 0..4 {
        world.drive();
    }
    world.inner.always.set(Some(answer));
    world.run();
    world.inner.always.set(None);
    let job = world.status().last_job.unwrap();
    assert_eq!(job.status, JobStatus::Failed);
    job
}

/// The job that goes on where one broke off, and the one that begins behind it by itself.
fn goes_on(world: &World) -> (JobRecord, JobRecord) {
    world.job();
    let jobs = world.state().jobs;
    (jobs[1].clone(), jobs[0].clone())
}

/// The first pages that were asked for since `from`, as what they begin after.
fn pages(world: &World, from: usize) -> Vec<String> {
    let requests = world.inner.requests.borrow();
    let lists = requests[from..].iter().filter(|request| request.contains("list-type"));
    lists.map(|request| request.split("start-after=").nth(1).unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_next_job_goes_on_where_one_broke_off_and_the_one_after_it_lists_all() {
    for answer in [DOWN, CAP] {
        let world = World::new(keys(60, 4)).a_page_a_step();
        let failed = broken_off(&world, answer);
        assert!(failed.counts.created > 0 && world.snapshot().checkpoint.is_some(), "{failed:?}");
        // What came before the place that was reached is found by the job after the next.
        world.put("k0000", 7);
        let asked = world.inner.requests.borrow().len();
        let (job, whole) = goes_on(&world);
        assert!(job.continued && job.status == JobStatus::Completed, "{job:?}");
        assert!(!pages(&world, asked)[0].is_empty(), "it begins at the first key");
        assert_eq!(failed.counts.created + job.counts.created, 60, "each file is in the feed once");
        assert_eq!((whole.continued, whole.counts.created, whole.counts.listed), (false, 1, 61), "{answer:?}");
        assert!(world.status().next_sync_at.is_some_and(|at| at > world.now()));
        world.catch_up();
        world.check();
    }
}

#[test]
fn a_quiet_job_that_breaks_off_is_gone_on_with_too() {
    let world = World::new(keys(60, 4)).a_page_a_step();
    world.job();
    let failed = broken_off(&world, DOWN);
    assert_eq!(failed.counts.changes(), 0);
    let asked = world.inner.requests.borrow().len();
    let (job, whole) = goes_on(&world);
    assert!(job.continued && job.status == JobStatus::Completed);
    assert!(!pages(&world, asked)[0].is_empty());
    assert_eq!((whole.counts.changes(), whole.counts.listed), (0, 60));
    world.catch_up();
    world.check();
}

#[test]
fn files_that_are_gone_are_deleted_once_the_listing_is_whole() {
    let all = keys(60, 4);
    let world = World::new(all.clone()).a_page_a_step();
    world.job();
    world.delete(&all[1]);
    world.delete(&all[58]);
    let failed = broken_off(&world, DOWN);
    assert_eq!(failed.counts.deleted, 0, "no deletion before the end of the listing");
    let (job, _) = goes_on(&world);
    assert_eq!((job.continued, job.counts.deleted), (true, 2));
    world.catch_up();
    world.check();
}

#[test]
fn a_full_sync_that_breaks_off_hands_over_the_rest() {
    let world = World::new(keys(60, 4)).a_page_a_step();
    world.change_sync(|sync| sync.skip_duplicates = false);
    world.job();
    let full = Command::Trigger { trigger: Trigger::Manual, confirm_deletes: false, full_sync: true };
    world.ask(full.clone());
    for _ in 0..4 {
        world.drive();
    }
    world.inner.always.set(Some(DOWN));
    world.run();
    world.inner.always.set(None);
    let first = world.status().last_job.unwrap().counts.updated;
    assert!((1..60).contains(&first), "{first}");
    let (job, _) = goes_on(&world);
    assert_eq!((job.continued, first + job.counts.updated), (true, 60));
    // A second trigger with full_sync begins again at the first key.
    broken_off(&world, DOWN);
    world.ask(full);
    world.run();
    let job = world.status().last_job.unwrap();
    assert_eq!((job.continued, job.counts.updated), (false, 60));
}

#[test]
fn what_was_ended_by_a_user_or_is_doubtful_is_listed_from_the_first_key() {
    let begins_anew = |world: &World| {
        let asked = world.inner.requests.borrow().len();
        let job = world.job();
        assert!(!job.continued && pages(world, asked)[0].is_empty(), "{job:?}");
        world.rest();
        world.catch_up();
        world.check();
    };
    let world = World::new(keys(60, 4)).a_page_a_step();
    world.trigger();
    world.drive();
    world.drive();
    world.ask(Command::Unlock);
    begins_anew(&world);
    let world = World::new(keys(60, 4)).a_page_a_step();
    broken_off(&world, (400, "<Error><Code>InvalidArgument</Code></Error>"));
    assert!(world.snapshot().checkpoint.is_none());
    begins_anew(&world);
    // Other filters, too.
    let world = World::new(keys(60, 4)).a_page_a_step();
    broken_off(&world, DOWN);
    world.change_sync(|sync| sync.filters.exclude_patterns = vec!["k0003*".to_owned()]);
    let asked = world.inner.requests.borrow().len();
    world.job();
    assert!(pages(&world, asked)[0].is_empty());
    // And what is too old.
    let world = World::new(keys(60, 4)).a_page_a_step();
    broken_off(&world, DOWN);
    world.wait(3 * 24 * 3_600_000);
    begins_anew(&world);
}

#[test]
fn a_job_that_failed_with_nothing_read_keeps_nothing() {
    let world = World::new(keys(60, 4)).a_page_a_step();
    world.inner.always.set(Some(DOWN));
    let failed = world.job();
    world.inner.always.set(None);
    assert_eq!(failed.status, JobStatus::Failed);
    // A store that does not answer is asked few times.
    assert!(world.inner.requests.borrow().len() < 20, "{:?}", world.inner.requests.borrow());
    assert!(!world.job().continued);
}
