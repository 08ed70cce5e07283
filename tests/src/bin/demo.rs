//! `cargo xtask demo`: a bucket is synced by the real Worker on the real runtime, and everything is shown.
//!
//! First everything, then exactly what changed. Each number that it prints is compared with what the embedded B2 holds;
//! `--once` ends with exit code 0 only if all of them were right. Against the real B2 it only reads, and has nothing to
//! compare with.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use b2sync_core::source_path::SourcePath;
use b2sync_core::time::Timestamp;
use b2sync_tests::service::{
    CONNECTIONS, Service, ServiceConfig, SyncRef, changes, connection_body, differences, expected_objects, now_ms,
    number, text,
};
use fake_b2::FakeB2;
use fake_b2::content::Content;
use fake_b2::keys::{ApplicationKey, NewKey};
use fake_b2::media::{awkward_keys, seed_media_bucket};
use fake_b2::model::{NewFile, VisibleFile};
use serde_json::{Value, json};

const USAGE: &str = "\
usage: cargo xtask demo [--once] [--objects N]
       B2_KEY_ID=… B2_APPLICATION_KEY=… cargo xtask demo --source b2://bucket/prefix [--once]

  --once        end after the last check, with exit code 0 only if every count was right
  --objects N   how many objects the embedded B2 holds (default 3000, at least 200)
  --source S    sync this bucket of the real Backblaze B2 instead; nothing in it is changed";

/// The bucket of the embedded B2, and the target bucket of the sync.
const BUCKET: &str = "demo-media";
const TARGET: &str = "bkt_demo";
/// The fewest objects that the changes fit into.
const OBJECTS_MIN: usize = 200;
const INCLUDE: [&str; 4] = ["*.mp4", "*.mov", "*.jpg", "*.txt"];
const EXCLUDE: [&str; 3] = ["*_thumbnail.*", "podcast/**", "*.tmp"];
const INTERVAL_S: i64 = 3_600;
/// Steps this short, in milliseconds, show progress; as deployed they last up to two minutes.
const STEP_MS: u64 = 1_000;
/// The longest a job may take.
const JOB_LIMIT: Duration = Duration::from_secs(600);
/// Changes of the feed that are shown.
const FIRST_CHANGES: usize = 5;
const FIRST_OBJECTS: usize = 8;
const BAR_CELLS: usize = 40;
/// Between two firings of the cron while the demo stays up.
const CRON_EVERY: Duration = Duration::from_secs(60);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What the demo is to do.
#[derive(Debug)]
struct Options {
    once: bool,
    objects: usize,
    real: Option<RealB2>,
}

/// The real B2. No `Debug` of the key.
struct RealB2 {
    key_id: String,
    application_key: String,
    source: String,
}

impl std::fmt::Debug for RealB2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RealB2").field("source", &self.source).finish_non_exhaustive()
    }
}

fn parse_options(
    mut arguments: impl Iterator<Item = String>,
    variable: impl Fn(&str) -> Option<String>,
) -> std::result::Result<Options, String> {
    let (mut once, mut objects, mut source) = (false, None, None);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{name} takes a value."));
        match name.as_str() {
            "--once" => once = true,
            "--objects" => {
                let text = value()?;
                let count = text.parse().ok().filter(|count| *count >= OBJECTS_MIN);
                let wrong = || format!("--objects takes a number of at least {OBJECTS_MIN}, but got {text:?}.");
                objects = Some(count.ok_or_else(wrong)?);
            }
            "--source" => source = Some(value()?),
            _ => return Err(format!("There is no option {name:?}.")),
        }
    }
    let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    let parts = [
        ("B2_KEY_ID", variable("B2_KEY_ID")),
        ("B2_APPLICATION_KEY", variable("B2_APPLICATION_KEY")),
        ("--source b2://bucket/prefix", source),
    ];
    let missing: Vec<&str> = parts.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| *name).collect();
    let given: Vec<&str> = parts.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name).collect();
    let [(_, key_id), (_, application_key), (_, source)] = parts;
    let real = match (key_id, application_key, source) {
        (Some(key_id), Some(application_key), Some(source)) => {
            SourcePath::parse(&source).map_err(|error| error.to_string())?;
            if objects.is_some() {
                return Err("--objects fills the embedded B2; with --source the bucket is what it is.".to_owned());
            }
            Some(RealB2 { key_id, application_key, source })
        }
        (None, None, None) => None,
        _ => {
            return Err(format!(
                "To sync from the real B2, {} also needed: only {} was given. Without all three the demo uses the \
                 embedded B2.",
                match missing.as_slice() {
                    [one] => format!("{one} is"),
                    several => format!("{} are", several.join(" and ")),
                },
                given.join(" and "),
            ));
        }
    };
    Ok(Options { once, objects: objects.unwrap_or(3_000), real })
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        let _ = writeln!(io::stdout(), "{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match parse_options(arguments.into_iter(), |name| env::var(name).ok()) {
        Ok(options) => options,
        Err(error) => {
            let _ = writeln!(io::stderr(), "demo: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let stopped = Arc::new(AtomicBool::new(false));
    watch_for_interrupts(Arc::clone(&stopped));
    let screen = Screen::new(Arc::clone(&stopped));
    match run(&screen, &options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            screen.line("");
            screen.line(&screen.red("Something was not as it must be: see the lines marked ✗."));
            ExitCode::FAILURE
        }
        Err(_) if stopped.load(Ordering::SeqCst) => {
            screen.line("\nStopped. The Worker is ended and its state is deleted.");
            ExitCode::from(130)
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "\ndemo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ctrl-C is only noted: the code that waits sees it and returns, and so the Worker's process is ended properly. A
/// second one ends the demo at once.
fn watch_for_interrupts(stopped: Arc<AtomicBool>) {
    thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if stopped.swap(true, Ordering::SeqCst) {
                    std::process::exit(130);
                }
            }
        });
    });
}

fn run(screen: &Screen, options: &Options) -> Result<bool> {
    match &options.real {
        Some(real) => run_real(screen, options, real),
        None => run_embedded(screen, options),
    }
}

// ---- the embedded B2
// -------------------------------------------------------------------------------------------------

fn run_embedded(screen: &Screen, options: &Options) -> Result<bool> {
    screen.heading("1. An embedded B2, and the Worker in workerd");
    let started = Instant::now();
    let service = Service::start(ServiceConfig { step_budget: Some(short_steps()), ..ServiceConfig::default() })?;
    let fake = service.fake();
    fake.create_bucket(BUCKET)?;
    seed_media_bucket(fake, BUCKET, options.objects, 1)?;
    let key = fake.create_key(NewKey::unrestricted().for_buckets(&[BUCKET]))?;
    // A large upload begins now. A tool that remembers "the latest I have seen" will never see what it becomes.
    let large_started = Timestamp::from_millis(now_ms()).plus_millis(-2 * 3_600_000);
    let large = fake.start_large(BUCKET, LARGE, NewFile::generated(0, 0), large_started)?;
    show_start(screen, &service, started, &format!("embedded, at {}", service.b2().url()));
    screen.fact(
        "Bucket",
        &format!(
            "{BUCKET}: {} objects like those of a media company, {} of them with names that break things",
            grouped(options.objects as u64),
            awkward_keys().len().min(options.objects),
        ),
    );
    screen.fact("Upload", &format!("{LARGE:?} was begun two hours ago, and is not finished"));

    screen.heading("2. A connection and a sync, as with curl");
    let source = format!("b2://{BUCKET}/");
    let sync = connect(screen, &service, &key.key_id, &key.secret, &source)?;

    screen.heading("3. The first sync: everything");
    let before = expected_objects(fake, BUCKET, takes);
    let mut checks = Checks::new(screen);
    let job = trigger_and_wait(screen, &service, &sync, Some(options.objects as u64))?;
    show_job(screen, &job);
    checks.same("status", job["status"].as_str().unwrap_or("?"), "completed");
    checks.same("listed", number(&job, "/progress/files_listed"), options.objects as u64);
    checks.same("matched by the patterns", number(&job, "/total_files"), before.len() as u64);
    checks.same("created, updated, deleted", changes(&job), (before.len() as u64, 0, 0));
    let first = service.list_objects(TARGET)?;
    show_objects(screen, &service, &first);
    checks.catalogue(&first, &before);
    checks.same("objects of version 1", first.values().filter(|object| object["version"] == 1).count(), before.len());

    screen.heading("4. The bucket changes");
    let planned = change_bucket(screen, fake, &large, &before)?;
    let after = expected_objects(fake, BUCKET, takes);

    screen.heading("5. The cron fires: exactly those changes are found");
    let job = fire_cron(screen, &service, &sync, now_ms() + (INTERVAL_S + 5) * 1_000)?;
    show_job(screen, &job);
    let second = service.list_objects(TARGET)?;
    let found = Found::between(&first, &second);
    found.show(screen);
    checks.same("trigger", job["trigger"].as_str().unwrap_or("?"), "scheduled");
    let counts = (planned.created.len() as u64, planned.updated.len() as u64, planned.deleted.len() as u64);
    checks.same("created, updated, deleted", changes(&job), counts);
    checks.same_keys("created", &found.created, &planned.created);
    checks.same_keys("updated", &found.updated, &planned.updated);
    checks.same_keys("deleted", &found.deleted, &planned.deleted);
    checks.catalogue(&second, &after);
    let untouched = second.iter().filter(|(key, object)| first.get(*key) == Some(object)).count();
    checks.same("objects left as they were", untouched, after.len() - planned.created.len() - planned.updated.len());

    check_feed(screen, &service, &sync, before.len() as u64, (&mut checks, &planned))?;

    check_quiet_poll(screen, &service, &sync, &mut checks)?;

    let right = checks.summary();
    if !options.once {
        stay_up(screen, &service, &sync, Some((service.b2().url(), &key)))?;
    }
    Ok(right)
}

fn check_feed(
    screen: &Screen,
    service: &Service,
    sync: &SyncRef,
    known: u64,
    (checks, planned): (&mut Checks<'_>, &Found),
) -> Result<()> {
    screen.heading("6. The feed says the same: every change, in order, each with a position");
    let feed = show_feed(screen, service, sync, known)?;
    let of_kind = |kind: &str| -> BTreeSet<String> {
        let changes = feed.iter().filter(|change| change["kind"] == kind);
        changes.filter_map(|change| change["key"].as_str().map(str::to_owned)).collect()
    };
    checks.same_keys("created", &of_kind("created"), &planned.created);
    checks.same_keys("updated", &of_kind("updated"), &planned.updated);
    checks.same_keys("deleted", &of_kind("deleted"), &planned.deleted);
    Ok(())
}

fn check_quiet_poll(screen: &Screen, service: &Service, sync: &SyncRef, checks: &mut Checks<'_>) -> Result<()> {
    screen.heading("7. The cron fires again: nothing changed, and nothing is written");
    let job = fire_cron(screen, service, sync, now_ms() + (2 * INTERVAL_S + 120) * 1_000)?;
    show_job(screen, &job);
    checks.same("created, updated, deleted", changes(&job), (0, 0, 0));
    let [reads, writes] = ["/metadata/state_reads", "/metadata/state_writes"].map(|name| number(&job, name));
    checks.same("reads of state, writes", (reads, writes), (2, 0));
    Ok(())
}

fn short_steps() -> String {
    json!({ "wall_ms_max": STEP_MS }).to_string()
}

/// Begun before the first sync, finished after it.
const LARGE: &str = "videos/interviews/full length 4K.mov";

/// The filter of the demo, written by hand: it must not be the one that is under test.
fn takes(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    let included = [".mp4", ".mov", ".jpg", ".txt"].iter().any(|ending| name.ends_with(ending));
    included && !name.contains("_thumbnail.") && !key.starts_with("podcast/")
}

/// Keys by what happened to them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    created: BTreeSet<String>,
    updated: BTreeSet<String>,
    deleted: BTreeSet<String>,
}

impl Found {
    fn between(before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>) -> Self {
        let changed = |key: &&String| after.get(*key).is_some_and(|now| before.get(*key).is_some_and(|old| old != now));
        Self {
            created: after.keys().filter(|key| !before.contains_key(*key)).cloned().collect(),
            updated: before.keys().filter(changed).cloned().collect(),
            deleted: before.keys().filter(|key| !after.contains_key(*key)).cloned().collect(),
        }
    }

    fn show(&self, screen: &Screen) {
        let groups =
            [("created", "+", &self.created), ("updated", "~", &self.updated), ("deleted", "-", &self.deleted)];
        for (word, sign, keys) in groups {
            for key in keys {
                screen.line(&format!("   {sign} {word}  {key:?}"));
            }
        }
    }
}

/// Changes the bucket in every way that a sync can miss; what the sync must find.
fn change_bucket(screen: &Screen, fake: &FakeB2, large: &str, before: &BTreeMap<String, VisibleFile>) -> Result<Found> {
    let now = Timestamp::from_millis(now_ms());
    let mut found = Found::default();
    let say = |what: &str, key: &str| screen.line(&format!("   {what:<44} {key:?}"));

    for key in [
        "raw/2026/new arrival 1.mp4",
        "raw/2026/new arrival 2.mp4",
        "photos/Spring Launch/新しい写真 📷.jpg",
        "awkward/50% + more & \"quotes\".txt",
    ] {
        fake.put(BUCKET, key, NewFile::generated(71, 4_000_000), now)?;
        found.created.insert(key.to_owned());
        say("added", key);
    }
    for key in ["raw/2026/scratch.tmp", "podcast/season 3/episode 9.mp4", "raw/2026/new_thumbnail.jpg"] {
        fake.put(BUCKET, key, NewFile::generated(72, 1_000), now)?;
        say("added, but the patterns leave it out", key);
    }
    fake.finish_large(BUCKET, large, Content::Generated { seed: 73, size: 7_500_000_000 })?;
    found.created.insert(LARGE.to_owned());
    say("finished: dated two hours before the sync", LARGE);

    // In the middle of the bucket, and a few of the awkward ones.
    let mut plain = before.values().filter(|file| !file.key.contains("awkward")).skip(10);
    let mut next = || plain.next().ok_or("there are not enough objects to change");
    let touched = next()?;
    let file = NewFile::generated(74, touched.size + 1);
    fake.put(BUCKET, &touched.key, file, now)?;
    found.updated.insert(touched.key.clone());
    say("overwritten", &touched.key);
    for file in [next()?, &before["awkward/emoji 😀🎬.mp4"]] {
        fake.put(BUCKET, &file.key, NewFile::generated(75, file.size), file.last_modified)?;
        found.updated.insert(file.key.clone());
        say("overwritten in the same second, same size", &file.key);
    }
    for key in [next()?.key.as_str(), "awkward/a%20b.mp4", "awkward//double.mp4"] {
        fake.delete_key(BUCKET, key)?;
        found.deleted.insert(key.to_owned());
        say("deleted", key);
    }
    let key = &next()?.key;
    fake.hide(BUCKET, key, now)?;
    found.deleted.insert(key.clone());
    say("hidden, as deleting in a B2 client does", key);
    Ok(found)
}

fn fire_cron(screen: &Screen, service: &Service, sync: &SyncRef, at_ms: i64) -> Result<Value> {
    let known = service.job_ids(sync)?;
    let at = Timestamp::from_millis(at_ms - at_ms % 1_000);
    screen.line(&format!("   The cron `* * * * *` fires, scheduled for {at}: the sync polls every hour, and is due."));
    screen.command(&format!("curl '{}/__cron?cron=*+*+*+*+*&t={}'", service.url(), at.as_millis()));
    service.cron(at.as_millis())?;
    Ok(service.wait_for_new_job(sync, &known, JOB_LIMIT)?)
}

// ---- the real B2
// -----------------------------------------------------------------------------------------------------

fn run_real(screen: &Screen, options: &Options, real: &RealB2) -> Result<bool> {
    screen.heading("1. The Worker in workerd, and the real Backblaze B2");
    let started = Instant::now();
    let url = b2sync_core::b2::account::API_URL;
    let service = Service::start(ServiceConfig {
        real_b2: Some(url.to_owned()),
        step_budget: Some(short_steps()),
        ..ServiceConfig::default()
    })?;
    show_start(screen, &service, started, &format!("{url} (nothing in it is changed)"));

    screen.heading("2. A connection and a sync, as with curl");
    let sync = connect(screen, &service, &real.key_id, &real.application_key, &real.source)?;

    screen.heading("3. The first sync: everything");
    let mut checks = Checks::new(screen);
    let job = trigger_and_wait(screen, &service, &sync, None)?;
    show_job(screen, &job);
    let objects = service.list_objects(TARGET)?;
    show_objects(screen, &service, &objects);
    checks.same("status", job["status"].as_str().unwrap_or("?"), "completed");
    checks.same("created, updated, deleted", changes(&job), (number(&job, "/total_files"), 0, 0));
    checks.same("objects in the catalogue", objects.len() as u64, number(&job, "/total_files"));

    screen.heading("4. The same again: only what changed meanwhile");
    let job = trigger_and_wait(screen, &service, &sync, Some(number(&job, "/progress/files_listed")))?;
    show_job(screen, &job);
    checks.same("status", job["status"].as_str().unwrap_or("?"), "completed");

    let right = checks.summary();
    if !options.once {
        stay_up(screen, &service, &sync, None)?;
    }
    Ok(right)
}

// ---- what both do
// ----------------------------------------------------------------------------------------------------

fn show_start(screen: &Screen, service: &Service, started: Instant, b2: &str) {
    screen.fact("B2", b2);
    screen.fact("Worker", &format!("{}, in workerd, started in {} ms", service.url(), started.elapsed().as_millis()));
    screen.fact("State", &format!("KV and SQLite on disk, in {}", service.state_dir().display()));
    screen.fact("API key", service.api_key());
}

fn connect(screen: &Screen, service: &Service, key_id: &str, application_key: &str, source: &str) -> Result<SyncRef> {
    // Shown with the variables that a user would have them in.
    let shown = connection_body("Backblaze B2", "'$B2_KEY_ID'", "'$B2_APPLICATION_KEY'");
    screen.curl(service, "POST", CONNECTIONS, Some(&shown));
    let connection = service.create_connection("Backblaze B2", key_id, application_key)?;
    screen.answer(&connection, &["connection_id", "name", "status", "provider_config"]);

    let mut body = json!({
        "connection_id": text(&connection, "connection_id")?,
        "source_path": source,
        "sync_mode": "scheduled",
        "polling_interval_seconds": INTERVAL_S,
    });
    if service_is_embedded(source) {
        body["include_patterns"] = json!(INCLUDE);
        body["exclude_patterns"] = json!(EXCLUDE);
    }
    screen.curl(service, "POST", &format!("/v1/buckets/{TARGET}/syncs"), Some(&body));
    let sync = service.create_sync(TARGET, &body)?;
    screen.answer(&sync, &["sync_config_id", "source_path", "status", "file_filters", "next_sync_at"]);
    Ok(SyncRef::of(&sync)?)
}

/// Whether the demo filled the bucket: then it also knows patterns that fit.
fn service_is_embedded(source: &str) -> bool {
    source == format!("b2://{BUCKET}/")
}

fn trigger_and_wait(screen: &Screen, service: &Service, sync: &SyncRef, listed: Option<u64>) -> Result<Value> {
    screen.curl(service, "POST", &format!("{}/trigger", sync.path()), None);
    let answer = service.trigger(sync)?;
    screen.answer(&answer, &["status", "sync_job_id"]);
    let job_id = text(&answer, "sync_job_id")?;
    screen.curl(service, "GET", &format!("{}/jobs/{job_id}?wait=25", sync.path()), None);
    let mut progress = Progress::new(screen, listed);
    let job = service.wait_for_job(sync, &job_id, JOB_LIMIT, &mut |job| progress.show(job));
    progress.end();
    screen.check_interrupt()?;
    Ok(job?)
}

fn show_job(screen: &Screen, job: &Value) {
    let (created, updated, deleted) = changes(job);
    screen.fact(
        "Job",
        &format!(
            "{}: {} listed, {} matched; {} created, {} updated, {} deleted",
            job["status"].as_str().unwrap_or("?"),
            grouped(number(job, "/progress/files_listed")),
            grouped(number(job, "/total_files")),
            grouped(created),
            grouped(updated),
            grouped(deleted),
        ),
    );
    screen.fact(
        "Cost",
        &format!(
            "{} steps, {} class C calls to B2, {} reads and {} writes of state",
            number(job, "/metadata/steps"),
            number(job, "/metadata/class_c_calls"),
            number(job, "/metadata/state_reads"),
            number(job, "/metadata/state_writes"),
        ),
    );
    if let Some(message) = job["error"].as_str() {
        screen.fact("Error", message);
    }
    for message in job["warnings"].as_array().into_iter().flatten().filter_map(|warning| warning["message"].as_str()) {
        screen.fact("Warning", message);
    }
}

/// The changes behind a position, as a reader of the feed sees them: the first few are shown.
fn show_feed(screen: &Screen, service: &Service, sync: &SyncRef, after: u64) -> Result<Vec<Value>> {
    screen.curl(service, "GET", &format!("{}/changes?after={after}&limit={FIRST_CHANGES}", sync.path()), None);
    let changes = service.changes(sync, after)?;
    for change in changes.iter().take(FIRST_CHANGES) {
        let shown = |field: &str| change[field].as_str().unwrap_or("?").to_owned();
        screen.line(&format!("   {:>15}  {:<8} {:?}", number(change, "/position"), shown("kind"), shown("key")));
    }
    let more = changes.len().saturating_sub(FIRST_CHANGES);
    if more > 0 {
        screen.line(&format!("   {:>15}  … and {} more", "", grouped(more as u64)));
    }
    Ok(changes)
}

fn show_objects(screen: &Screen, service: &Service, objects: &BTreeMap<String, Value>) {
    screen.curl(service, "GET", &format!("/v1/buckets/{TARGET}/objects?limit={FIRST_OBJECTS}"), None);
    screen.line(&format!("   {:>15}  {:<24}  {}", "bytes", "last modified", "key"));
    for (key, object) in objects.iter().take(FIRST_OBJECTS) {
        let modified = object["last_modified"].as_str().unwrap_or("");
        let mut shown = format!("{key:?}");
        if shown.chars().count() > 60 {
            shown = shown.chars().take(57).collect::<String>() + "…\"";
        }
        screen.line(&format!("   {:>15}  {modified:<24}  {shown}", grouped(number(object, "/size_bytes"))));
    }
    let more = objects.len().saturating_sub(FIRST_OBJECTS);
    screen.line(&format!("   {:>15}  … and {} more", "", grouped(more as u64)));
}

/// Runs the cron until Ctrl-C, each minute, as Cloudflare does. `embedded` is the URL of the embedded B2, and a key
/// that it made: the keys of a real B2 are not shown.
fn stay_up(
    screen: &Screen,
    service: &Service,
    sync: &SyncRef,
    embedded: Option<(&str, &ApplicationKey)>,
) -> Result<()> {
    screen.heading("Over to you (Ctrl-C ends it)");
    screen.fact("Base URL", service.url());
    screen.fact("API key", service.api_key());
    if let Some((url, key)) = embedded {
        screen.fact("Embedded B2", &format!("{url} (curl {url}/_admin shows how to change what it holds)"));
        let key = format!("B2_KEY_ID={} B2_APPLICATION_KEY={}", key.key_id, key.secret);
        screen.fact("Its key", &format!("{key} (reads the bucket {BUCKET} only)"));
    }
    screen.line("");
    let get = |path: &str| format!("curl -H 'Authorization: Bearer {}' '{}{path}'", service.api_key(), service.url());
    screen.command(&get(&format!("/v1/buckets/{TARGET}/objects?limit=3")));
    screen.command(&get(&format!("{}/changes?after=0&limit=3", sync.path())));
    screen.command(&get(&format!("{}/jobs", sync.path())));
    screen.command(&get(&format!("{}/trigger", sync.path())).replacen("curl", "curl -X POST", 1));
    let mut next = Instant::now() + CRON_EVERY;
    loop {
        screen.check_interrupt()?;
        if Instant::now() >= next {
            service.cron(now_ms())?;
            next += CRON_EVERY;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

// ---- what is right
// ---------------------------------------------------------------------------------------------------

/// Compares, shows, and remembers whether all was right.
struct Checks<'a> {
    screen: &'a Screen,
    right: u32,
    wrong: u32,
}

impl<'a> Checks<'a> {
    const fn new(screen: &'a Screen) -> Self {
        Self { screen, right: 0, wrong: 0 }
    }

    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, seen: T, wanted: T) {
        let shown = format!("{what}: {seen:?}");
        self.right_if(seen == wanted, &shown, &format!("{shown}, and should be {wanted:?}"));
    }

    fn same_keys(&mut self, what: &str, seen: &BTreeSet<String>, wanted: &BTreeSet<String>) {
        let right = format!("the {} keys are the {} that were {what}", seen.len(), wanted.len());
        self.right_if(seen == wanted, &right, &format!("{what}: {seen:?}, and should be {wanted:?}"));
    }

    fn catalogue(&mut self, objects: &BTreeMap<String, Value>, expected: &BTreeMap<String, VisibleFile>) {
        let differences = differences(objects, expected);
        let count = grouped(objects.len() as u64);
        let right = format!("the {count} objects are those of the bucket, by key, ETag, size and time");
        let first = differences.iter().take(10).cloned().collect::<Vec<_>>().join("; ");
        self.right_if(differences.is_empty(), &right, &format!("{} differences: {first}", differences.len()));
    }

    fn right_if(&mut self, right: bool, shown: &str, otherwise: &str) {
        if right {
            self.right += 1;
            self.screen.line(&format!("   {} {shown}", self.screen.green("✓")));
        } else {
            self.wrong += 1;
            self.screen.line(&self.screen.red(&format!("   ✗ {otherwise}")));
        }
    }

    fn summary(&self) -> bool {
        self.screen.line("");
        if self.wrong == 0 {
            self.screen.line(&self.screen.green(&format!("All {} checks were right.", self.right)));
        }
        self.wrong == 0
    }
}

// ---- the screen
// ------------------------------------------------------------------------------------------------------

/// Standard output. Colours and a bar that moves only on a terminal.
struct Screen {
    terminal: bool,
    colours: bool,
    stopped: Arc<AtomicBool>,
}

impl Screen {
    fn new(stopped: Arc<AtomicBool>) -> Self {
        let terminal = io::stdout().is_terminal();
        Self { terminal, colours: terminal && env::var_os("NO_COLOR").is_none(), stopped }
    }

    /// An error once Ctrl-C was pressed.
    fn check_interrupt(&self) -> Result<()> {
        if self.stopped.load(Ordering::SeqCst) { Err("interrupted".into()) } else { Ok(()) }
    }

    fn line(&self, text: &str) {
        // Its reader is gone: no reason to stop, the exit code still tells.
        let _ = writeln!(io::stdout(), "{text}");
    }

    fn styled(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn green(&self, text: &str) -> String {
        self.styled("32", text)
    }

    fn red(&self, text: &str) -> String {
        self.styled("31", text)
    }

    fn heading(&self, text: &str) {
        self.line(&format!("\n{}", self.styled("1", text)));
    }

    fn fact(&self, name: &str, value: &str) {
        self.line(&format!("   {name:<11} {value}"));
    }

    fn command(&self, command: &str) {
        self.line(&format!("   {}", self.styled("36", &format!("$ {command}"))));
    }

    fn curl(&self, service: &Service, method: &str, path: &str, body: Option<&Value>) {
        let method = if method == "GET" { String::new() } else { format!(" -X {method}") };
        let body = body.map(|body| format!(" -H 'Content-Type: application/json' -d '{body}'")).unwrap_or_default();
        let url = service.url();
        self.command(&format!("curl{method} -H \"Authorization: Bearer $API_KEY\" '{url}{path}'{body}"));
    }

    /// Some fields of an answer.
    fn answer(&self, answer: &Value, fields: &[&str]) {
        let shown: Vec<String> = fields.iter().map(|field| format!("\"{field}\": {}", answer[*field])).collect();
        self.line(&format!("   {{{}, …}}", shown.join(", ")));
    }
}

/// How far a job is.
struct Progress<'a> {
    screen: &'a Screen,
    /// How many files there are, if that is known.
    total: Option<u64>,
    started: Instant,
    latest: String,
}

impl<'a> Progress<'a> {
    fn new(screen: &'a Screen, total: Option<u64>) -> Self {
        Self { screen, total, started: Instant::now(), latest: String::new() }
    }

    fn show(&mut self, job: &Value) {
        if self.screen.stopped.load(Ordering::SeqCst) {
            return;
        }
        let (listed, delivered) = (number(job, "/progress/files_listed"), number(job, "/files_synced"));
        let counts = format!(
            "{} listed, {} synced, {}",
            grouped(listed),
            grouped(delivered),
            job["phase"].as_str().unwrap_or("?")
        );
        if counts != self.latest && !self.screen.terminal {
            self.screen.line(&format!("   {:>6} ms  {counts}", self.started.elapsed().as_millis()));
        }
        if self.screen.terminal {
            let bar = self.total.filter(|total| *total > 0).map(|total| bar(listed, total)).unwrap_or_default();
            let _ = write!(io::stdout(), "\r\x1b[2K   {bar}{counts}");
            let _ = io::stdout().flush();
        }
        self.latest = counts;
    }

    fn end(&self) {
        if self.screen.terminal {
            self.screen.line("");
        }
    }
}

/// `██████░░░░  60 %  `
fn bar(done: u64, total: u64) -> String {
    let share = (done as f64 / total as f64).clamp(0.0, 1.0);
    let cells = (share * BAR_CELLS as f64) as usize;
    format!("{}{} {:>3.0} %  ", "█".repeat(cells), "░".repeat(BAR_CELLS - cells), (share * 100.0).floor())
}

/// `1,234,567`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &str, variables: &[(&str, &str)]) -> std::result::Result<Options, String> {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        parse_options(arguments.split_whitespace().map(str::to_owned), find)
    }

    const BOTH: [(&str, &str); 2] = [("B2_KEY_ID", "0045"), ("B2_APPLICATION_KEY", "K004secret")];

    #[test]
    fn the_real_b2_needs_all_three() {
        let options = parse("--once --source b2://my-bucket/a", &BOTH).unwrap();
        assert!(options.once);
        assert_eq!(options.real.as_ref().unwrap().source, "b2://my-bucket/a");
        assert!(!format!("{options:?}").contains("K004secret"));
        assert!(parse("", &[]).unwrap().real.is_none());
        assert!(parse("", &[("B2_KEY_ID", " ")]).unwrap().real.is_none());

        let error = parse("", &BOTH).unwrap_err();
        assert!(error.contains("--source b2://bucket/prefix is also needed"), "{error}");
        let error = parse("--source b2://my-bucket", &BOTH[..1]).unwrap_err();
        assert!(error.contains("B2_APPLICATION_KEY is also needed"), "{error}");
        let error = parse("--source b2://my-bucket", &[]).unwrap_err();
        assert!(error.contains("B2_KEY_ID and B2_APPLICATION_KEY are also needed"), "{error}");
        assert!(parse("--source http://x/y", &BOTH).unwrap_err().contains("http"));
        assert!(parse("--objects 300 --source b2://my-bucket", &BOTH).is_err());
    }

    #[test]
    fn options_are_checked() {
        assert_eq!(parse("--objects 250", &[]).unwrap().objects, 250);
        assert_eq!(parse("", &[]).unwrap().objects, 3_000);
        assert!(parse("--objects 10", &[]).unwrap_err().contains("at least 200"));
        assert!(parse("--objects", &[]).unwrap_err().contains("takes a value"));
        assert!(parse("--twice", &[]).unwrap_err().contains("--twice"));
    }

    #[test]
    fn numbers_and_bars_are_readable() {
        assert_eq!([grouped(0), grouped(999), grouped(1_000), grouped(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(bar(5, 10), format!("{}{}  50 %  ", "█".repeat(20), "░".repeat(20)));
        assert!(bar(11, 10).contains("100 %"));
    }
}
