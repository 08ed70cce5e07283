//! B2 has a bad day: a job completes with everything, or fails with the reason and loses nothing.

use std::thread;
use std::time::Duration;

use b2sync_tests::service::{Service, ServiceConfig, changes, number};
use fake_b2::faults::{Chance, Fault, Rule, Target};
use fake_b2::media::{seed_media_bucket, seed_plain_bucket};
use fake_b2::model::NewFile;
use serde_json::json;

use crate::{BUCKET, Outcome, SOON, all, change_ids, twin_of, versions};

/// Retries and repeated steps take their time.
const PATIENCE: Duration = Duration::from_secs(150);

/// What happens under a name.
type Storm<'a> = &'a (dyn Fn(&str) -> Result<(), String> + Sync);

/// Runs each of them at the same time: a storm is mostly waiting.
fn at_once(storms: &[(&str, Storm<'_>)]) -> Outcome {
    let errors: Vec<String> = thread::scope(|scope| {
        let running: Vec<_> = storms.iter().map(|(name, storm)| (name, scope.spawn(move || storm(name)))).collect();
        let ended = running.into_iter().map(|(name, thread)| match thread.join() {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{name}: {error}")),
            Err(_) => Some(format!("{name}: it panicked")),
        });
        ended.flatten().collect()
    });
    if errors.is_empty() { Ok(()) } else { Err(errors.join("\n\n").into()) }
}

/// A first sync, and a second one with changes, in weather that passes: both complete with everything, once.
fn weathered(name: &str, set_faults: &dyn Fn(&Service)) -> Outcome {
    let service = Service::start(ServiceConfig::with_keys_a_step(3_000))?;
    let fake = service.fake();
    fake.create_bucket(BUCKET)?;
    seed_media_bucket(fake, BUCKET, 6_500, 9)?;
    let it = service.connect(name, BUCKET)?;
    let mut twin = twin_of(&service, &it, BUCKET)?;

    set_faults(&service);
    let job = service.run_job(&it.sync, PATIENCE)?;
    fake.clear_faults();
    fake.set_chance(None);
    assert_eq!((&job["status"], changes(&job)), (&json!("completed"), (6_500, 0, 0)), "{name}: {job}");
    let first = service.check_objects(&it.sync.bucket, &all(&service))?;
    assert!(versions(&first).values().all(|version| *version == 1), "{name}");
    let struck = fake.log().iter().filter(|entry| entry.fault.is_some()).count();
    assert!(struck > 0, "{name}: no fault struck");
    let now = service.b2().clock().now();
    twin.run(now)?;
    assert_eq!(change_ids(&first), twin.change_ids(), "{name}");

    let keys: Vec<String> = first.keys().filter(|key| !key.contains("awkward")).cloned().collect();
    for key in keys.iter().step_by(100) {
        fake.put(BUCKET, key, NewFile::generated(1, 1), now)?;
    }
    for key in keys.iter().skip(1).step_by(100) {
        fake.delete_key(BUCKET, key)?;
    }
    set_faults(&service);
    let job = service.run_job(&it.sync, PATIENCE)?;
    fake.clear_faults();
    fake.set_chance(None);
    assert_eq!(job["status"], "completed", "{name}: {job}");
    let second = service.check_objects(&it.sync.bucket, &all(&service))?;
    twin.run(service.b2().clock().now())?;
    assert_eq!(change_ids(&second), twin.change_ids(), "{name}");
    Ok(())
}

fn by_chance(faults: Vec<Fault>) -> impl Fn(&Service) + Sync {
    move |service| {
        let faults = faults.clone();
        service.fake().set_chance(Some(Chance { target: Target::Any, probability: 0.4, seed: 11, faults }));
    }
}

/// A page never comes: the time-out ends the wait, and the job goes on.
fn silent(name: &str) -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    seed_plain_bucket(service.fake(), BUCKET, 2_500, 1)?;
    let it = service.connect(name, BUCKET)?;
    service.fake().inject(Rule::next(Target::List, Fault::Hang).after(1));
    let job = service.run_job(&it.sync, PATIENCE)?;
    assert_eq!((&job["status"], changes(&job)), (&json!("completed"), (2_500, 0, 0)), "{name}: {job}");
    // The page after it is a smaller one.
    assert_eq!(number(&job, "/metadata/class_c_calls"), 5, "{name}: {job}");
    service.check_objects(&it.sync.bucket, &all(&service))?;
    Ok(())
}

/// A storm that does not pass: the job fails in bounded time, says why, and the next one in good weather has it all.
fn hopeless(name: &str, fault: Fault, code: &str, words: &[&str]) -> Outcome {
    let service = Service::start(ServiceConfig::default())?;
    let fake = service.fake();
    fake.create_bucket(BUCKET)?;
    seed_plain_bucket(fake, BUCKET, 2_500, 1)?;
    let it = service.connect(name, BUCKET)?;
    assert_eq!(service.run_job(&it.sync, SOON)?["status"], "completed");
    let before = all(&service);
    let now = service.b2().clock().now();
    fake.put(BUCKET, "item-00000007", NewFile::generated(1, 1), now)?;
    fake.delete_key(BUCKET, "item-00002000")?;
    fake.put(BUCKET, "zzz", NewFile::generated(1, 1), now)?;

    // The first page still comes through.
    fake.inject(Rule::next(Target::List, fault).after(1).times(Rule::ALWAYS));
    let job = service.run_job(&it.sync, PATIENCE)?;
    assert_eq!((&job["status"], &job["error_code"]), (&json!("failed"), &json!(code)), "{name}: {job}");
    let message = job["error"].as_str().unwrap_or_default();
    assert!(words.iter().all(|word| message.contains(word)), "{name}: {message:?} lacks one of {words:?}");
    assert_eq!(changes(&job).2, 0, "{name}: a deletion after half a listing: {job}");
    let kept = service.list_objects(&it.sync.bucket)?;
    assert!(before.keys().all(|key| kept.contains_key(key)), "{name}: nothing is lost");
    let state = service.sync(&it.sync)?;
    assert_eq!(number(&state, "/consecutive_failures"), 1, "{state}");
    assert!(state["next_sync_at"].is_string(), "{name}: it goes on polling: {state}");

    fake.clear_faults();
    let job = service.run_job(&it.sync, SOON)?;
    assert_eq!(job["status"], "completed", "{name}: {job}");
    let objects = service.check_objects(&it.sync.bucket, &all(&service))?;
    assert_eq!((&objects["zzz"]["version"], &objects["item-00000007"]["version"]), (&json!(1), &json!(2)));
    Ok(())
}

#[test]
fn storms() -> Outcome {
    let busy = by_chance(vec![Fault::status(429), Fault::status(503), Fault::status(500)]);
    let asked = by_chance(vec![Fault::slow_down(1), Fault::slow_down(2)]);
    let broken = by_chance(vec![
        Fault::Reset,
        Fault::CutBody { after_bytes: 1_000 },
        Fault::Garbage,
        Fault::Truncated,
        Fault::Delay { millis: 300 },
    ]);
    // More in a row than one step's retries: the next step must go on where this one was.
    let long = |service: &Service| {
        service.fake().inject(Rule::next(Target::List, Fault::status(503)).after(2).times(7));
    };
    let unavailable =
        Fault::Status { status: 503, retry_after_s: None, code: Some("ServiceUnavailable".to_owned()), message: None };
    let told = |result: Outcome| result.map_err(|error| error.to_string());
    let fails =
        |name: &str, fault: &Fault, code: &str, words: &[&str]| told(hopeless(name, fault.clone(), code, words));
    at_once(&[
        ("silent", &|name| told(silent(name))),
        ("unavailable", &|name| {
            fails(name, &unavailable, "service_unavailable", &["busy", "usually passes", "status.backblaze.com"])
        }),
        // One that refuses calls as too many is asked for minutes: tests/tests/patience.rs, in virtual time.
        ("resets", &|name| fails(name, &Fault::Reset, "transport", &["usually passes", "status.backblaze.com"])),
        ("garbage", &|name| fails(name, &Fault::Garbage, "malformed_response", &["cannot be read", "proxy"])),
        ("no-token", &|name| fails(name, &Fault::NoToken, "listing_stuck", &["Nothing was"])),
        // The first page comes again after itself: never a loop.
        ("same-token", &|name| {
            fails(name, &Fault::SameToken, "listing_order", &["out of order", "Nothing was deleted"])
        }),
        ("busy", &|name| told(weathered(name, &busy))),
        ("asked", &|name| told(weathered(name, &asked))),
        ("broken", &|name| told(weathered(name, &broken))),
        ("long", &|name| told(weathered(name, &long))),
    ])
}
