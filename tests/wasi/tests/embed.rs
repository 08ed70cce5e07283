//! The component, in Wasmtime, against the embedded B2 over real HTTP.

use std::collections::{BTreeMap, BTreeSet};

use b2sync_core::change::{Change, ChangeKind, Previous};
use b2sync_core::entry::Entry;
use b2sync_core::filter::{Filter, FilterSpec};
use b2sync_core::snapshot::cut::Cut;
use b2sync_core::source_path::SourcePath;
use b2sync_core::time::Timestamp;
use b2sync_tests::twin::Twin;
use b2sync_wasi_tests::bindings::b2sync::embed::types;
use b2sync_wasi_tests::bindings::exports::b2sync::embed::sync;
use b2sync_wasi_tests::{CutOff, EmbedHost, Home};
use fake_b2::Config;
use fake_b2::content::Content;
use fake_b2::faults::{Fault, Rule, Target};
use fake_b2::keys::{ApplicationKey, NewKey};
use fake_b2::media::{awkward_keys, seed_media_bucket};
use fake_b2::model::NewFile;
use fake_b2::server::FakeB2Server;

const BUCKET: &str = "my-media";
const SYNC_ID: &str = "sync_wasi";
const SALT: &str = "000102030405060708090a0b0c0d0e0f";
/// Steps that a job of these tests takes at most: a hang is a failure.
const STEPS_MAX: usize = 100;

/// The embedded B2 with a media bucket, the component in its host, and the native twin.
struct World {
    server: FakeB2Server,
    key: ApplicationKey,
    host: EmbedHost,
    twin: Twin,
    filters: FilterSpec,
}

impl World {
    fn with_objects(count: usize) -> Self {
        let server = FakeB2Server::start(Config::default()).expect("a free port");
        server.model().create_bucket(BUCKET).expect("a new bucket");
        seed_media_bucket(server.model(), BUCKET, count, 7).expect("the bucket is there");
        let key = server.model().create_key(NewKey::unrestricted()).expect("a new key");
        let filters = FilterSpec { exclude_patterns: vec!["*.tmp".into()], ..FilterSpec::default() };
        let twin = Twin::new(server.model(), SYNC_ID, BUCKET, &filters, &key).expect("a sync");
        let twin = twin.with_cut(Cut::parse(SALT).expect("a salt"));
        Self { server, key, host: EmbedHost::default(), twin, filters }
    }

    fn order(&self, job_id: &str) -> sync::JobOrder {
        sync::JobOrder {
            key_id: self.key.key_id.clone(),
            application_key: self.key.secret.clone(),
            b2_api_url: Some(self.server.url().to_owned()),
            account_cache: None,
            source_path: format!("b2://{BUCKET}"),
            filters: wire(&self.filters),
            reconcile: sync::Reconcile { on_delete: true, on_update: true, on_filter_drift: true },
            sync_id: SYNC_ID.to_owned(),
            job_id: job_id.to_owned(),
            salt: SALT.to_owned(),
            // One page a step.
            budget: sync::Budget { keys_max: Some(1), ..no_limits() },
            deletion_limit: None,
            confirm_deletes: false,
        }
    }

    fn step(&mut self, job: &sync::JobOrder) -> sync::StepResult {
        self.host.run_step(job).expect("the component runs")
    }

    /// Steps until the job is done; answers the last result, the costs of all steps, and how many there were.
    fn run(&mut self, job_id: &str) -> (sync::StepResult, Vec<sync::Cost>) {
        let mut job = self.order(job_id);
        let mut costs = Vec::new();
        while costs.len() < STEPS_MAX {
            let result = self.step(&job);
            costs.push(result.cost);
            match &result.outcome {
                Ok(sync::Progress::Continue) => job.account_cache.clone_from(&result.account_cache),
                Ok(sync::Progress::Done) => return (result, costs),
                Err(error) => panic!("step {} failed: {error:?}", costs.len()),
            }
        }
        panic!("the job is not done after {STEPS_MAX} steps");
    }

    /// What the component has appended since this was last asked, all of it by that job.
    fn appended(&mut self, job_id: &str) -> Vec<types::Change> {
        let mut changes = Vec::new();
        self.host.read_on(SYNC_ID, |change| changes.push(change)).expect("the feed is read");
        for change in &changes {
            assert_eq!(change.job_id, job_id, "{change:?}");
            assert!(change.found_at_ms > 1_700_000_000_000, "{change:?}");
        }
        changes
    }

    /// What the native twin appends now.
    fn twin_appends(&mut self) -> Vec<types::Change> {
        let changes = self.twin.run(self.server.clock().now()).expect("the twin runs");
        changes.iter().map(wire_change).collect()
    }

    fn page(&mut self, after: u64, limit: u32) -> Result<sync::ChangePage, types::Error> {
        self.host.changes(SYNC_ID, after, limit).expect("the component runs")
    }

    fn forget(&mut self, up_to: u64) -> Result<u64, types::Error> {
        self.host.forget(SYNC_ID, up_to).expect("the component runs")
    }

    /// How many batches of the feed are stored.
    fn batches(&self) -> usize {
        self.host.home.blobs.keys().filter(|(_, name)| name.starts_with("feed/")).count()
    }

    /// Puts a file of that name.
    fn put(&self, key: &str) {
        let now = self.server.clock().now();
        self.server.model().put(BUCKET, key, NewFile::generated(1, 5_000), now).expect("the bucket is there");
    }

    fn error(&mut self, change: impl FnOnce(&mut sync::JobOrder)) -> types::Error {
        let mut job = self.order("job_error");
        change(&mut job);
        let result = self.step(&job);
        let error = result.outcome.expect_err("the step fails");
        assert!(!format!("{error:?}").contains(&self.key.secret), "{error:?}");
        assert!(!error.advice.is_empty(), "{error:?}");
        assert_eq!(result.feed_last.unwrap_or_default(), 0);
        assert_eq!(self.page(0, 1), Ok(sync::ChangePage { changes: vec![], first: 1, last: 0 }));
        error
    }
}

fn no_limits() -> sync::Budget {
    sync::Budget { requests_max: None, calls_max: None, wall_ms_max: None, bytes_received_max: None, keys_max: None }
}

fn wire(spec: &FilterSpec) -> sync::FilterSpec {
    sync::FilterSpec {
        include_patterns: spec.include_patterns.clone(),
        exclude_patterns: spec.exclude_patterns.clone(),
        extensions: spec.extensions.clone(),
        mime_types: spec.mime_types.clone(),
        min_size_bytes: spec.min_size_bytes,
        max_size_bytes: spec.max_size_bytes,
        modified_after_ms: spec.modified_after.map(Timestamp::as_millis),
        modified_before_ms: spec.modified_before.map(Timestamp::as_millis),
        include_folder_markers: spec.include_folder_markers,
    }
}

fn wire_entry(entry: &Entry) -> types::Entry {
    let Entry { key, etag, size, last_modified } = entry.clone();
    types::Entry { key, etag, size, last_modified_ms: last_modified.as_millis() }
}

fn wire_change(change: &Change) -> types::Change {
    let Change { position, id, kind, entry, previous, again, found_at, job_id } = change.clone();
    let kind = match kind {
        ChangeKind::Created => types::ChangeKind::Created,
        ChangeKind::Updated => types::ChangeKind::Updated,
        ChangeKind::Deleted => types::ChangeKind::Deleted,
    };
    let previous = previous.map(|Previous { size, last_modified, tag }| {
        let tag = tag.0.iter().map(|byte| format!("{byte:02x}")).collect();
        types::Previous { size, last_modified_ms: last_modified.as_millis(), tag }
    });
    let (entry, found_at_ms) = (wire_entry(&entry), found_at.as_millis());
    types::Change { position, id, kind, entry, previous, again, found_at_ms, job_id }
}

fn wire_error(error: &b2sync_core::Error) -> types::Error {
    types::Error {
        kind: error.kind().as_str().to_owned(),
        message: error.message().to_owned(),
        advice: error.advice().to_owned(),
        field: error.field().map(str::to_owned),
        transient: error.is_transient(),
        retry_after_ms: error.retry_after_ms(),
    }
}

/// Compares many changes without printing thousands of them. Who found a change, and when, is each one's own.
#[track_caller]
fn assert_same(ours: &[types::Change], twins: &[types::Change]) {
    for (ours, twins) in ours.iter().zip(twins) {
        let (found_at_ms, job_id) = (ours.found_at_ms, ours.job_id.clone());
        assert_eq!(ours, &types::Change { found_at_ms, job_id, ..twins.clone() });
    }
    assert_eq!(ours.len(), twins.len());
}

#[test]
fn source_paths_read_as_the_core_reads_them() {
    let mut host = EmbedHost::default();
    let long = format!("b2://my-videos/{}", "x".repeat(1_025));
    let table = [
        "b2://my-videos/2024/",
        "S3://my-videos/2024/clips",
        "my-videos/日本語 😀//",
        "my-videos",
        "",
        " my-videos",
        "gs://my-videos/x",
        "https://my-videos/x",
        "b2://",
        "b2:///x",
        "ab",
        "my_videos/x",
        "b2://my-videos?x=1",
        "b2://my-videos/a?versionId=1",
        "my-videos/tab\t",
        "my-videos/control\u{1}x",
        &long,
    ];
    let mut right = 0;
    for text in table {
        let expected = match SourcePath::parse(text) {
            Ok(path) => Ok(sync::SourcePath {
                bucket: path.bucket().as_str().to_owned(),
                prefix: path.prefix().to_owned(),
                canonical: path.to_string(),
            }),
            Err(error) => Err(wire_error(&error)),
        };
        right += usize::from(expected.is_ok());
        assert_eq!(host.parse_source_path(text).unwrap(), expected, "{text:?}");
    }
    assert_eq!((right, table.len() - right), (4, 13));
}

#[test]
fn filters_decide_as_the_core_decides() {
    let mut host = EmbedHost::default();
    let at = |text: &str| Some(Timestamp::parse_rfc3339(text).unwrap());
    let strings = |items: &[&str]| items.iter().map(|&item| item.to_owned()).collect::<Vec<_>>();
    let none = FilterSpec::default;
    let specs = [
        none(),
        FilterSpec { include_patterns: strings(&["*.mp4", "raw/**"]), ..none() },
        FilterSpec { exclude_patterns: strings(&["*_thumbnail.*", "日本*"]), ..none() },
        FilterSpec { extensions: strings(&["MP4", ".jpg"]), ..none() },
        FilterSpec { mime_types: strings(&["video/*"]), ..none() },
        FilterSpec { min_size_bytes: Some(10), max_size_bytes: Some(100), ..none() },
        FilterSpec { modified_after: at("2024-01-01T00:00:00Z"), ..none() },
        FilterSpec { modified_before: at("2024-01-01T02:00:00+02:00"), ..none() },
        // These are refused.
        FilterSpec { include_patterns: strings(&["*.mp4", "[oops"]), ..none() },
        FilterSpec { extensions: strings(&["a/b"]), ..none() },
        FilterSpec { mime_types: strings(&["video"]), ..none() },
        FilterSpec { min_size_bytes: Some(2), max_size_bytes: Some(1), ..none() },
    ];
    let keys = [
        "2024/clip.mp4",
        "2024/raw/clip.mov",
        "2024/a/b_thumbnail.jpg",
        "2024/日本語.mp4",
        "2024/CLIP.MP4",
        "2024/folder/",
        "2024/no extension",
    ];
    let path = SourcePath::parse("b2://my-videos/2024/").unwrap();
    let (mut taken, mut refused, mut wrong) = (0, 0, 0);
    for spec in &specs {
        let filter = Filter::compile(spec, &path);
        for (index, key) in keys.into_iter().enumerate() {
            let last_modified = Timestamp::from_millis(1_704_067_200_000 + index as i64 - 3);
            let entry = Entry { key: key.into(), etag: "e".into(), size: 9 + index as u64, last_modified };
            let expected = match &filter {
                Err(error) => Err(wire_error(error)),
                Ok(filter) => Ok(match (filter.explain(&entry), filter.explain(&entry).field()) {
                    (_, None) => sync::Verdict::Taken,
                    (verdict, Some(field)) => {
                        sync::Verdict::Refused(sync::Refusal { field: field.into(), reason: verdict.to_string() })
                    }
                }),
            };
            match &expected {
                Ok(sync::Verdict::Taken) => taken += 1,
                Ok(sync::Verdict::Refused(_)) => refused += 1,
                Err(_) => wrong += 1,
            }
            let decided = host.decide_filter(&wire(spec), "my-videos/2024/", &wire_entry(&entry)).unwrap();
            assert_eq!(decided, expected, "{spec:?} {key:?}");
        }
    }
    assert!(taken > 10 && refused > 10 && wrong == 28, "{taken} {refused} {wrong}");
}

#[test]
fn a_bucket_syncs_with_the_changes_and_ids_of_the_native_twin() {
    let mut world = World::with_objects(3_500);
    let model = world.server.model().clone();
    // A large upload that is not finished before the first sync has ended; its last modified is older than all of it.
    let started_at = Timestamp::from_millis(1_700_000_000_000);
    let late = model.start_large(BUCKET, "videos/late upload.mp4", NewFile::bytes(""), started_at).unwrap();

    // First everything.
    let (first, costs) = world.run("job_1");
    let ours = world.appended("job_1");
    assert_same(&ours, &world.twin_appends());
    let visible = model.visible(BUCKET);
    let matching = visible.iter().filter(|file| !file.key.ends_with(".tmp")).count();
    assert_eq!((visible.len(), ours.len()), (3_500, matching));
    assert!(ours.iter().all(|change| change.kind == types::ChangeKind::Created));
    let keys: BTreeSet<_> = ours.iter().map(|change| change.entry.key.clone()).collect();
    assert!(awkward_keys().iter().all(|key| keys.contains(key) || key.ends_with(".tmp")));
    assert_eq!(
        (first.counts.listed, first.counts.created, first.files_known),
        (3_500, ours.len() as u64, ours.len() as u64)
    );
    assert_eq!((first.feed_first, first.feed_last), (Some(1), Some(ours.len() as u64)));
    assert!(ours.iter().zip(1..).all(|(change, position)| change.position == position && !change.again));
    assert_eq!(first.counts.appended_bytes, ours.iter().map(|change| change.entry.size).sum::<u64>());
    // A page a step, and one call to authorize: later steps got it from the cache. The first page has names that tell
    // the order of keys apart, which takes one call, once. A step that closes a segment goes on behind it, and so four
    // pages may take a fifth.
    let calls: Vec<_> = costs.iter().map(|cost| cost.class_c).collect();
    assert!(calls == [3, 1, 1, 1] || calls == [3, 1, 1, 1, 1], "{calls:?}");

    // Then exactly what changed.
    let of = |index: usize| ours[index * 300 + 100].entry.clone();
    let now = world.server.clock().now();
    for key in ["videos/new.mp4", "awkward/new & + % 😀/日本語?.mp4"] {
        model.put(BUCKET, key, NewFile::generated(1, 5_000), now).unwrap();
    }
    model.put(BUCKET, "videos/not for us.tmp", NewFile::generated(1, 5_000), now).unwrap();
    // The same millisecond and the same size: only the content differs.
    let overwritten = of(1);
    let same_instant = Timestamp::from_millis(overwritten.last_modified_ms);
    model.put(BUCKET, &overwritten.key, NewFile::generated(99, overwritten.size), same_instant).unwrap();
    for index in 2..5 {
        model.delete_key(BUCKET, &of(index).key).unwrap();
    }
    model.hide(BUCKET, &of(6).key, now).unwrap();
    model.finish_large(BUCKET, &late, Content::Generated { seed: 5, size: 250_000_000 }).unwrap();

    let (second, _) = world.run("job_2");
    let ours = world.appended("job_2");
    assert_same(&ours, &world.twin_appends());
    let update = ours.iter().find(|change| change.kind == types::ChangeKind::Updated).expect("an update");
    let previous = update.previous.as_ref().expect("what was known");
    assert_eq!((previous.size, previous.last_modified_ms), (overwritten.size, overwritten.last_modified_ms));
    // The ETag of a small file is an MD5, of which a snapshot keeps the first half.
    assert_eq!((overwritten.etag.len(), previous.tag.as_str()), (32, &overwritten.etag[..16]));
    let found: BTreeSet<_> =
        ours.iter().map(|change| (change.entry.key.as_str(), format!("{:?}", change.kind))).collect();
    let gone = [2, 3, 4, 6].map(of);
    let mut expected: BTreeSet<_> =
        gone.iter().map(|entry| (entry.key.as_str(), "ChangeKind::Deleted".to_owned())).collect();
    expected.insert((&overwritten.key, "ChangeKind::Updated".to_owned()));
    for key in ["videos/new.mp4", "awkward/new & + % 😀/日本語?.mp4", "videos/late upload.mp4"] {
        expected.insert((key, "ChangeKind::Created".to_owned()));
    }
    assert_eq!(found, expected);
    assert_eq!((second.counts.created, second.counts.updated, second.counts.deleted), (3, 1, 4));

    // Then nothing; and nothing is written.
    let state = world.host.home.blobs.clone();
    let mut job = world.order("job_3");
    job.budget = no_limits();
    let third = world.step(&job);
    assert_eq!(third.outcome, Ok(sync::Progress::Done));
    assert_eq!(world.twin_appends(), []);
    assert_eq!(world.appended("job_3"), []);
    assert_eq!(third.feed_last, second.feed_last);
    assert_eq!((third.cost.state_writes, third.cost.class_c), (0, 5));
    assert_eq!(state, world.host.home.blobs);

    // Both keep the same segments, and neither keeps a secret. What only a job of several steps writes is removed when
    // the root moves next, and a batch says who found its changes.
    let is_snapshot = |name: &String| !name.starts_with("scratch/") && !name.starts_with("feed/");
    let names: Vec<_> = state.keys().map(|(_, name)| name.clone()).filter(is_snapshot).collect();
    assert_eq!(names, world.twin.blob_names().into_iter().filter(is_snapshot).collect::<Vec<_>>());
    let home = &world.host.home;
    let secret = world.key.secret.as_bytes();
    let documents = home.documents.values().filter_map(|(_, value)| value.as_ref());
    for value in home.blobs.values().chain(documents) {
        assert!(!value.windows(secret.len()).any(|bytes| bytes == secret));
    }
    assert!(!third.account_cache.unwrap().contains(&world.key.secret));
}

#[test]
fn a_job_goes_on_after_faults_of_the_network_and_the_state() {
    let mut world = World::with_objects(2_500);
    let model = world.server.model().clone();
    for fault in [Fault::Reset, Fault::CutBody { after_bytes: 10 }, Fault::slow_down(1), Fault::Garbage] {
        model.inject(Rule::next(Target::Any, fault));
    }
    model.inject(Rule { target: Target::List, skip: 1, times: 1, fault: Fault::CutBody { after_bytes: 100_000 } });
    world.host.home.blob_faults = 1;

    let job = world.order("job_1");
    let mut failures = Vec::new();
    for _ in 0..STEPS_MAX {
        match world.step(&job).outcome {
            Ok(sync::Progress::Continue) => {}
            Ok(sync::Progress::Done) => break,
            Err(error) => {
                failures.push(error);
                // Another call changes the document in the middle of the next step.
                world.host.home.races = u32::from(failures.len() == 1);
            }
        }
    }
    let kinds: Vec<_> = failures.iter().map(|error| (error.kind.as_str(), error.transient)).collect();
    assert_eq!(kinds, [("storage", true), ("state_conflict", true)], "{failures:?}");
    assert!(failures[0].message.contains("the disk is on fire"), "{failures:?}");
    assert_same(&world.appended("job_1"), &world.twin_appends());
}

/// Runs a job by the loop of a host that has read up to `cursor`, cut off at `cut`, from a copy of `home`; the changes
/// as they were applied.
fn run_cut(world: &mut World, job_id: &str, home: &Home, cursor: u64, cut: Option<CutOff>) -> Vec<types::Change> {
    world.host.home = Home { calls: 0, cut, ..home.clone() };
    world.host.cursors = BTreeMap::from([(SYNC_ID.to_owned(), cursor)]);
    let mut job = world.order(job_id);
    let mut applied: Vec<types::Change> = Vec::new();
    let mut tries = 0;
    while let Err(error) = world.host.run_job(&mut job, |change| applied.push(change)) {
        tries += 1;
        assert!(tries == 1 && cut.is_some(), "{cut:?}: {error:?}");
    }
    applied
}

#[test]
fn a_host_that_is_cut_off_anywhere_gets_each_change_once() {
    let mut world = World::with_objects(1_200);
    let model = world.server.model().clone();
    let mut home = Home::default();
    let mut cursor = 0;
    for round in 0..2 {
        let job_id = format!("job_{round}");
        if round > 0 {
            let keys: Vec<_> = model.visible(BUCKET).into_iter().map(|file| file.key).collect();
            world.put("videos/new.mp4");
            world.put(&keys[500]);
            for key in [&keys[10], &keys[700], &keys[1_100]] {
                model.delete_key(BUCKET, key).unwrap();
            }
        }
        let expected = world.twin_appends();
        let whole = run_cut(&mut world, &job_id, &home, cursor, None);
        assert_same(&whole, &expected);
        let (calls, after) = (world.host.home.calls, world.host.home.clone());
        assert!(calls > 5, "{calls}");
        for call in 1..=calls {
            for cut in [CutOff::Before(call), CutOff::After(call)] {
                let applied = run_cut(&mut world, &job_id, &home, cursor, Some(cut));
                assert_eq!(world.host.home.cut, None, "{cut:?}");
                assert_same(&applied, &expected);
            }
        }
        (home, cursor) = (after, cursor + expected.len() as u64);
    }
}

#[test]
fn the_feed_is_read_in_pages_and_forgotten() {
    let mut world = World::with_objects(2_500);
    world.run("job_1");
    let mut all = world.appended("job_1");
    assert_same(&all, &world.twin_appends());
    let of_first = all.len() as u64;
    (0..600).for_each(|index| world.put(&format!("videos/later {index}.mp4")));
    world.run("job_2");
    all.extend(world.appended("job_2"));
    let last = all.len() as u64;
    assert_eq!((of_first > 2_000, last - of_first), (true, 600));

    // Pages.
    let page = |from: usize, to: usize| sync::ChangePage { changes: all[from..to].to_vec(), first: 1, last };
    for (after, limit, expected) in
        [(0, 0, page(0, 1)), (0, 7, page(0, 7)), (998, 1_001, page(998, 1_998)), (998, u32::MAX, page(998, 1_998))]
    {
        assert_eq!(world.page(after, limit), Ok(expected), "{after} {limit}");
    }
    let (newest, nothing) = (page(all.len() - 1, all.len()), page(0, 0));
    assert_eq!((world.page(last - 1, 9), world.page(last, 9)), (Ok(newest), Ok(nothing)));
    for after in [last + 1, u64::MAX] {
        let error = world.page(after, 9).expect_err("there is nothing");
        assert_eq!((error.kind.as_str(), error.field.as_deref()), ("invalid_input", Some("after")), "{error:?}");
        assert!(error.message.contains(&last.to_string()) && !error.advice.is_empty(), "{error:?}");
    }

    // Only whole batches are dropped, and only those that are read to their end.
    let home = world.host.home.clone();
    assert_eq!(world.forget(0), Ok(1));
    assert_eq!(world.host.home.documents, home.documents);
    assert!((1..=of_first).contains(&world.forget(of_first - 1).expect("it forgets")));
    let oldest = of_first + 1;
    assert_eq!(world.forget(of_first + 300), Ok(oldest));
    assert_eq!(
        world.page(of_first, 1_000),
        Ok(sync::ChangePage { first: oldest, ..page(of_first as usize, all.len()) })
    );
    let error = world.page(oldest - 2, 9).expect_err("it is forgotten");
    assert_eq!((error.kind.as_str(), error.transient), ("feed_gap", false), "{error:?}");
    assert_eq!(error.field.as_deref(), Some("after"));
    assert!(error.message.contains(&(oldest - 1).to_string()) && !error.advice.is_empty(), "{error:?}");

    // All of it, and what comes next has the next position. A position beyond the end is as good as the last one.
    assert_eq!(world.forget(u64::MAX), Ok(last + 1));
    let empty = sync::ChangePage { changes: vec![], first: last + 1, last };
    assert_eq!(world.page(last, 9), Ok(empty));
    assert_eq!(world.page(0, 9).expect_err("it is forgotten").kind, "feed_gap");
    assert!(world.batches() > 1);
    for round in 0..3 {
        world.put(&format!("videos/new {round}.mp4"));
        let (result, _) = world.run(&format!("job_new{round}"));
        assert_eq!((result.feed_first, result.feed_last), (Some(last + 1), Some(last + 1 + round)));
        let ours = world.appended(&format!("job_new{round}"));
        assert_eq!(ours.iter().map(|change| change.position).collect::<Vec<_>>(), [last + 1 + round]);
    }
    // Three batches came, and later jobs have deleted those that were forgotten.
    assert_eq!(world.batches(), 3);

    // Each sync has a feed of its own.
    let other = world.host.changes("sync_other", 0, 9).unwrap();
    assert_eq!(other, Ok(sync::ChangePage { changes: vec![], first: 1, last: 0 }));
    assert_eq!(world.host.forget("sync_other", 7).unwrap(), Ok(1));
}

#[test]
fn a_feed_between_two_steps_is_read_and_forgotten() {
    let mut world = World::with_objects(3_500);
    let mut job = world.order("job_1");
    let mut applied = Vec::new();
    let mut steps = 0;
    loop {
        let result = world.step(&job);
        steps += 1;
        let last = result.feed_last.expect("a feed");
        world.host.read_on(SYNC_ID, |change| applied.push(change)).unwrap();
        assert_eq!(applied.len() as u64, last);
        // A call at the same time: it ends, nothing is lost, and it may be repeated.
        world.host.home.races = 1;
        match world.forget(last) {
            Ok(oldest) => assert_eq!((oldest, world.host.home.races), (last + 1, 1)),
            Err(error) => {
                assert_eq!((error.kind.as_str(), error.transient), ("state_conflict", true), "{error:?}");
                assert_eq!(world.forget(last), Ok(last + 1));
            }
        }
        world.host.home.races = 0;
        job.account_cache = result.account_cache;
        match result.outcome {
            Ok(sync::Progress::Continue) => assert!(steps < STEPS_MAX),
            Ok(sync::Progress::Done) => break,
            Err(error) => panic!("step {steps} failed: {error:?}"),
        }
    }
    assert!(steps > 2, "{steps}");
    assert_same(&applied, &world.twin_appends());
}

#[test]
fn a_feed_that_cannot_be_read_says_why() {
    let mut world = World::with_objects(10);
    world.run("job_1");

    world.host.home.blob_faults = 1;
    let error = world.page(0, 9).expect_err("a fault");
    assert_eq!((error.kind.as_str(), error.transient), ("storage", true), "{error:?}");
    assert!(error.message.contains("the disk is on fire") && !error.advice.is_empty(), "{error:?}");

    let home = world.host.home.clone();
    for ((_, name), value) in &mut world.host.home.blobs {
        if name.starts_with("feed/") {
            value.push(0);
        }
    }
    let error = world.page(0, 9).expect_err("an altered batch");
    assert_eq!((error.kind.as_str(), error.transient), ("state_corrupt", false), "{error:?}");

    world.host.home = home;
    world.host.home.blobs.retain(|(_, name), _| !name.starts_with("feed/"));
    let error = world.page(0, 9).expect_err("no batch");
    assert_eq!((error.kind.as_str(), error.transient), ("state_missing", true), "{error:?}");
}

#[test]
fn each_error_says_what_is_wrong_and_what_to_do() {
    let mut world = World::with_objects(10);
    let wrong = world.error(|job| job.application_key = "K005wrongwrongwrongwrongwrong00".to_owned());
    assert_eq!((wrong.kind.as_str(), wrong.transient), ("bad_credentials", false), "{wrong:?}");
    assert!(!wrong.message.is_empty() && wrong.advice.contains("key"), "{wrong:?}");

    let error = world.error(|job| job.source_path = "b2://my-medias".to_owned());
    assert_eq!(error.kind, "bucket_not_found", "{error:?}");
    assert!(error.message.contains("my-medias"), "{error:?}");

    let restricted = world.server.model().create_key(NewKey::unrestricted().for_buckets(&[BUCKET])).unwrap();
    let error = world.error(|job| {
        job.key_id = restricted.key_id.clone();
        job.application_key = restricted.secret.clone();
        job.source_path = "b2://My-media".to_owned();
    });
    assert_eq!((error.kind.as_str(), error.field.as_deref()), ("bucket_not_allowed", Some("source_path")), "{error:?}");
    assert!(error.advice.contains("case-sensitive"), "{error:?}");

    let error = world.error(|job| job.salt = "beach".to_owned());
    assert_eq!((error.kind.as_str(), error.field.as_deref()), ("invalid_input", Some("salt")));
    let error = world.error(|job| job.filters.include_patterns = vec!["[".to_owned()]);
    assert_eq!(error.field.as_deref(), Some("file_filters.include_patterns[0]"));
    let error = world.error(|job| job.b2_api_url = Some("api.backblazeb2.com".to_owned()));
    assert_eq!((error.kind.as_str(), error.field.as_deref()), ("invalid_input", Some("api_url")));

    // No program listens on port 9 of this machine; the retries take a few seconds.
    let error = world.error(|job| job.b2_api_url = Some("http://127.0.0.1:9".to_owned()));
    assert_eq!((error.kind.as_str(), error.transient), ("transport", true), "{error:?}");
    assert!(error.message.contains("cannot be reached"), "{error:?}");

    let long = Fault::Status { status: 200, retry_after_s: None, code: None, message: Some("x".repeat(2 << 20)) };
    world.server.model().inject(Rule::next(Target::Authorize, long));
    let error = world.error(|_| ());
    assert_eq!((error.kind.as_str(), error.transient), ("malformed_response", false), "{error:?}");
    assert!(error.message.contains("longer than 1048576 bytes"), "{error:?}");
}

#[test]
fn a_stale_account_is_asked_for_anew_and_an_unreadable_one_is_ignored() {
    let mut world = World::with_objects(10);
    let mut job = world.order("job_1");
    job.budget = no_limits();
    let fresh = world.step(&job).account_cache.expect("an account");
    let endpoint = world.server.url().to_owned();
    let table = [
        (fresh.clone(), 1),
        ("{}".to_owned(), 2),
        (fresh.replace("\"v\":1", "\"v\":99"), 2),
        // Another key had it: this one may not read the bucket.
        (fresh.replace("\"buckets\":null", "\"buckets\":[\"another\"]"), 2),
        // The account has moved: one call in vain, one to authorize, one to list.
        (fresh.replace("us-east-1", "eu-central-003"), 3),
    ];
    // The same job once more is told how it ended: nothing is asked of B2.
    job.account_cache = Some(fresh.clone());
    let again = world.step(&job);
    assert_eq!((again.outcome, again.cost.class_c, again.counts.created), (Ok(sync::Progress::Done), 0, 10));
    for (number, (cache, class_c)) in table.into_iter().enumerate() {
        assert!(class_c < 2 || cache != fresh, "{cache}");
        job.job_id = format!("job_{}", number + 2);
        job.account_cache = Some(cache.clone());
        let result = world.step(&job);
        assert_eq!((result.outcome, result.cost.class_c), (Ok(sync::Progress::Done), class_c), "{cache}");
        assert_eq!(result.account_cache.as_ref(), Some(&fresh));
    }
    assert!(fresh.contains(&endpoint));
}

#[test]
fn a_server_that_never_answers_is_left_and_asked_again() {
    let mut world = World::with_objects(10);
    world.server.model().inject(Rule::next(Target::Authorize, Fault::Hang));
    let started = std::time::Instant::now();
    let result = world.step(&world.order("job_1"));
    assert_eq!(result.outcome, Ok(sync::Progress::Done));
    assert_eq!(result.cost.requests, 3);
    // The limit of a small exchange.
    let seconds = started.elapsed().as_secs();
    assert!((15..30).contains(&seconds), "{seconds} s");
}
