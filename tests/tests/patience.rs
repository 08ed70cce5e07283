//! A B2 that is slow, allows few calls, or is down for a while: the real coordinator and engine against the embedded
//! B2, in virtual time.

use b2sync_core::job::JobStatus;
use b2sync_tests::simulation::{BUCKET, Options, Sim};
use fake_b2::faults::{Fault, Quota, Rule, Target};
use fake_b2::model::NewFile;

const MINUTE_MS: i64 = 60_000;

/// A bucket of that many pages of ten keys.
fn story(pages: usize) -> Sim {
    let sim = Sim::new(Options { page_keys: 10, latency_ms_max: 40, ..Options::calm() }, 1, true);
    let keys: Vec<String> = (0..pages * 10).map(|number| format!("clips/{number:05}.mp4")).collect();
    let at = sim.time();
    sim.inner.edit(&keys, |model| {
        for (seed, key) in (0..).zip(&keys) {
            model.put(BUCKET, key, NewFile::generated(seed, 10), at).expect("the bucket is there");
        }
    });
    sim
}

fn ended(sim: &mut Sim) -> b2sync_core::job::JobRecord {
    sim.run_job(false).unwrap_or_else(|violation| panic!("{violation}"))
}

fn pass(sim: &mut Sim, ms: i64) {
    sim.pass(ms).unwrap_or_else(|violation| panic!("{violation}"));
}

/// Twenty calls a minute, then 429 without `Retry-After`, 429 with one that is too short, or 503 SlowDown.
#[test]
fn a_listing_that_is_throttled_completes_in_a_few_minutes() {
    let too_short = Fault::Status { status: 429, retry_after_s: Some(1), code: None, message: None };
    for fault in [Fault::status(429), too_short, Fault::status(503)] {
        let mut sim = story(40);
        sim.inner.fake.set_quota(Some(Quota { target: Target::List, calls: 20, window_ms: 60_000, fault }));
        let began = sim.time();
        let job = ended(&mut sim);
        assert_eq!((job.status, job.counts.created), (JobStatus::Completed, 400), "{job:?}");
        let took_ms = sim.time().millis_since(began);
        assert!(took_ms <= 5 * 60_000, "{took_ms} ms");
        // The next poll knows the pace: B2 hardly has to refuse a call.
        pass(&mut sim, MINUTE_MS);
        let before = sim.inner.fake.counts().list;
        let job = ended(&mut sim);
        let calls = sim.inner.fake.counts().list - before;
        assert_eq!((job.status, job.counts.listed), (JobStatus::Completed, 400), "{job:?}");
        assert!(calls <= 55, "{calls} calls for 40 pages");
        sim.inner.fake.set_quota(None);
        sim.come_to_rest().unwrap_or_else(|violation| panic!("{violation}"));
    }
}

/// New accounts are allowed some calls a second.
#[test]
fn two_calls_a_second_are_enough() {
    let mut sim = story(60);
    let fault = Fault::status(429);
    sim.inner.fake.set_quota(Some(Quota { target: Target::Any, calls: 2, window_ms: 1_000, fault }));
    let began = sim.time();
    let job = ended(&mut sim);
    assert_eq!((job.status, job.counts.created), (JobStatus::Completed, 600), "{job:?}");
    // The job says that it was held back.
    assert!((100..=2_000).contains(&job.list_interval_ms), "{job:?}");
    assert!(sim.time().millis_since(began) <= 2 * 60_000);
    sim.come_to_rest().unwrap_or_else(|violation| panic!("{violation}"));
}

/// So few calls that no job can end: each goes on where the one before broke off.
#[test]
fn a_listing_that_takes_more_than_one_job_gets_to_its_end() {
    let mut sim = story(40);
    let fault = Fault::status(503);
    sim.inner.fake.set_quota(Some(Quota { target: Target::List, calls: 12, window_ms: 3_600_000, fault }));
    sim.inner.change_sync(|sync| sync.polling_interval_s = 900);
    let mut jobs = 0;
    while sim.inner.rows().len() < 400 {
        ended(&mut sim);
        pass(&mut sim, 15 * MINUTE_MS);
        jobs += 1;
        assert!(jobs < 40, "{} of 400 files after {jobs} jobs", sim.inner.rows().len());
    }
    assert!(jobs > 2, "{jobs} jobs");
    sim.inner.fake.set_quota(None);
    sim.come_to_rest().unwrap_or_else(|violation| panic!("{violation}"));
}

#[test]
fn a_store_that_is_down_for_half_an_hour_is_asked_few_times_and_nothing_is_lost() {
    let mut sim = story(40);
    let job = ended(&mut sim);
    assert_eq!(job.counts.created, 400);
    sim.put("clips/new.mp4", fake_b2::content::Content::Held(b"new"[..].into()), sim.time());
    let before = sim.inner.fake.counts().total();
    sim.inner.fake.inject(Rule::next(Target::Any, Fault::status(503)).times(Rule::ALWAYS));
    for _ in 0..30 {
        pass(&mut sim, MINUTE_MS);
    }
    let calls = sim.inner.fake.counts().total() - before;
    assert!(calls <= 60, "{calls} calls in half an hour");
    sim.inner.fake.clear_faults();
    sim.come_to_rest().unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!(sim.inner.rows().len(), 401);
}

#[test]
fn a_store_that_refuses_every_call_ends_the_job_and_the_next_one_has_it_all() {
    for (fault, words) in [(Fault::slow_down(1), "fewer requests"), (Fault::status(429), "too many requests")] {
        let mut sim = story(4);
        sim.inner.fake.inject(Rule::next(Target::List, fault).times(Rule::ALWAYS));
        let began = sim.time();
        let job = ended(&mut sim);
        let error = job.error.as_ref().map_or("", |error| error.message.as_str());
        assert!(job.status == JobStatus::Failed && error.contains(words), "{job:?}");
        assert!(sim.time().millis_since(began) < 8 * 60_000);
        sim.inner.fake.clear_faults();
        sim.come_to_rest().unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!(sim.inner.rows().len(), 40);
    }
}

/// The first page takes 35 s.
#[test]
fn a_slow_page_is_waited_for() {
    let mut sim = story(40);
    sim.inner.fake.inject(Rule::next(Target::List, Fault::Delay { millis: 35_000 }).times(3));
    let job = ended(&mut sim);
    assert_eq!((job.status, job.counts.created), (JobStatus::Completed, 400), "{job:?}");
    assert!(sim.inner.fake.counts().list <= 45, "{:?}", sim.inner.fake.counts());
}
