//! Ten ways in which other sync tools have lost, doubled or destroyed files, each as a story that b2sync must survive:
//! the real coordinator and engine against the embedded B2, in virtual time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use b2sync_core::change::ChangeKind;
use b2sync_core::engine::meter::Budget;
use b2sync_core::job::{JobRecord, JobStatus};
use b2sync_core::mutation::{self, Mutation};
use b2sync_core::time::Timestamp;
use b2sync_tests::simulation::faults::{Break, Trouble};
use b2sync_tests::simulation::history::Call;
use b2sync_tests::simulation::{BUCKET, Event, Options, Sim, SinkOptions};
use fake_b2::content::Content;
use fake_b2::model::NewFile;

/// A world that tells a story.
struct Story(Sim);

impl Story {
    fn new(options: Options) -> Self {
        Self(Sim::new(options, 1, true))
    }

    fn put(&self, key: &str, content: &'static str, at: Timestamp) {
        self.0.put(key, Content::Held(content.as_bytes().into()), at);
    }

    fn now(&self) -> Timestamp {
        self.0.time()
    }

    fn pass(&mut self, ms: i64) {
        self.0.pass(ms).unwrap_or_else(|violation| panic!("{violation}"));
    }

    fn happens(&mut self, event: Event) {
        self.0.event(&event).unwrap_or_else(|violation| panic!("{violation}"));
    }

    fn job(&mut self) -> JobRecord {
        self.0.run_job(false).unwrap_or_else(|violation| panic!("{violation}"))
    }

    /// A job that completes, and what it delivered: (kind, key).
    fn delivered(&mut self) -> Vec<(ChangeKind, String)> {
        let before = self.0.inner.deliveries.borrow().len();
        let job = self.job();
        assert_eq!(job.status, JobStatus::Completed, "{job:?}");
        let deliveries = self.0.inner.deliveries.borrow();
        deliveries[before..].iter().map(|change| (change.kind, change.entry.key.clone())).collect()
    }

    fn error(job: &JobRecord) -> &str {
        job.error.as_ref().map_or("", |error| error.kind.as_str())
    }

    fn deletions(&self) -> usize {
        self.0.inner.deliveries.borrow().iter().filter(|change| change.kind == ChangeKind::Deleted).count()
    }

    /// The catalogue is the bucket, and a further poll finds nothing.
    fn ends_well(mut self) {
        self.0.come_to_rest().unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!(self.0.inner.rows().len(), self.0.inner.bucket().len());
    }
}

fn created(key: &str) -> (ChangeKind, String) {
    (ChangeKind::Created, key.to_owned())
}

fn updated(key: &str) -> (ChangeKind, String) {
    (ChangeKind::Updated, key.to_owned())
}

/// Cursors of the kind "modified since the newest file that I saw" pass over a large upload for ever: it shows when it
/// is finished, with the time at which it began.
#[test]
fn a_high_water_mark_and_a_late_upload() {
    let mut story = Story::new(Options::calm());
    let began = story.now();
    let fake = story.0.inner.fake.clone();
    let upload = fake.start_large(BUCKET, "late.mp4", NewFile::generated(1, 0), began).expect("the bucket is there");
    story.pass(60_000);
    story.put("newest.txt", "newest", story.now());
    assert_eq!(story.delivered(), [created("newest.txt")]);
    story.0.inner.edit(&["late.mp4".to_owned()], |model| {
        let finished = model.finish_large(BUCKET, &upload, Content::Generated { seed: 1, size: 5_000_000_000 });
        assert_eq!(finished.map(|version| version.uploaded_at), Ok(began));
    });
    assert_eq!(story.delivered(), [created("late.mp4")]);
    story.ends_well();
}

/// A history of the last 10,000 files that were seen forgets the others, and delivers them again with every poll.
#[test]
fn twelve_thousand_files_and_a_bounded_history() {
    let mut story = Story::new(Options { cut: (4_096, 32_768), ..Options::calm() });
    let keys: Vec<String> = (0..12_000).map(|number| format!("clips/{number:05}.mp4")).collect();
    let at = story.now();
    story.0.inner.edit(&keys, |model| {
        for (seed, key) in (0..).zip(&keys) {
            model.put(BUCKET, key, NewFile::generated(seed, 10), at).expect("the bucket is there");
        }
    });
    assert_eq!(story.delivered().len(), 12_000);
    assert_eq!(story.delivered(), []);
    story.put("clips/00001.mp4", "changed", story.now());
    assert_eq!(story.delivered(), [updated("clips/00001.mp4")]);
    story.ends_well();
}

/// A cursor with the resolution of a second, or "later than" instead of "not before", loses what is written in the same
/// second, and in the same millisecond, as the last file that it saw.
#[test]
fn several_files_in_the_same_second() {
    let mut story = Story::new(Options::calm());
    let at = story.now();
    story.put("a.txt", "first", at);
    assert_eq!(story.delivered(), [created("a.txt")]);
    story.put("b.txt", "same millisecond", at);
    story.put("c.txt", "same second", at.plus_millis(1));
    assert_eq!(story.delivered(), [created("b.txt"), created("c.txt")]);
    // As long and as old as before: only the ETag tells.
    story.put("a.txt", "other", at);
    assert_eq!(story.delivered(), [updated("a.txt")]);
    story.ends_well();
}

/// "Copy when the source is newer" keeps the wrong file when the right one is restored from a backup and is older.
#[test]
fn a_replacement_with_an_older_date() {
    let mut story = Story::new(Options::calm());
    let at = story.now();
    story.put("report.pdf", "broken", at);
    assert_eq!(story.delivered(), [created("report.pdf")]);
    story.0.inner.edit(&["report.pdf".to_owned()], |model| {
        model.delete_key(BUCKET, "report.pdf").expect("it is there");
        let old = NewFile::bytes("as it was last year");
        model.put(BUCKET, "report.pdf", old, at.plus_millis(-31_536_000_000)).expect("the bucket is there");
    });
    assert_eq!(story.delivered(), [updated("report.pdf")]);
    assert_eq!(story.0.inner.rows()[0].last_modified, at.plus_millis(-31_536_000_000));
    story.ends_well();
}

fn files(story: &Story, count: usize) {
    for number in 0..count {
        story.put(&format!("f{number:03}"), "content", story.now());
    }
}

/// A tool that saves "seen up to here" after each page, and takes an error for the end, believes that the rest of the
/// bucket is gone.
#[test]
fn a_partial_listing_is_not_committed() {
    let mut story = Story::new(Options { page_keys: 10, ..Options::calm() });
    files(&story, 80);
    assert_eq!(story.delivered().len(), 80);
    for what in [Trouble::Internal, Trouble::CutBody(200), Trouble::Truncated, Trouble::Garbage, Trouble::Hang] {
        story.happens(Event::Trouble { skip: 3, times: 200, what });
        let job = story.job();
        assert_eq!(job.status, JobStatus::Failed, "{what:?}: {job:?}");
        story.0.end_trouble();
        assert_eq!(story.deletions(), 0, "{what:?}");
    }
    assert_eq!(story.delivered(), []);
    story.ends_well();
}

/// "Truncated" without a token is read as the end by some, and as the beginning, again and again, by others.
#[test]
fn truncated_without_a_token() {
    let mut story = Story::new(Options { page_keys: 10, ..Options::calm() });
    files(&story, 80);
    assert_eq!(story.delivered().len(), 80);
    for what in [Trouble::NoToken, Trouble::SameToken] {
        let before = story.0.inner.fake.counts().list;
        story.happens(Event::Trouble { skip: 2, times: 200, what });
        let job = story.job();
        assert_eq!(job.status, JobStatus::Failed, "{what:?}: {job:?}");
        assert!(["listing_stuck", "listing_order"].contains(&Story::error(&job)), "{job:?}");
        assert!(story.0.inner.fake.counts().list - before < 40, "it asks again and again");
        story.0.end_trouble();
        assert_eq!(story.deletions(), 0, "{what:?}");
    }
    story.ends_well();
}

/// A key that was revoked, restricted or mistyped shows nothing; a tool that takes that for an empty bucket deletes
/// everything.
#[test]
fn wrong_credentials_are_no_mass_deletion() {
    let mut story = Story::new(Options { page_keys: 10, ..Options::calm() });
    files(&story, 30);
    assert_eq!(story.delivered().len(), 30);
    story.happens(Event::RevokeKey);
    let job = story.job();
    assert_eq!((job.status, Story::error(&job)), (JobStatus::Failed, "bad_credentials"));
    story.happens(Event::RotateKey { keep_old: false });
    // The key is right, and for once the listing shows nothing and says that this is all.
    story.happens(Event::Trouble { skip: 0, times: 1, what: Trouble::EmptyFirstPage });
    let job = story.job();
    assert_eq!((job.status, Story::error(&job)), (JobStatus::Failed, "too_many_deletions"));
    assert_eq!(story.deletions(), 0);
    assert_eq!(story.delivered(), []);
    story.ends_well();
}

/// KV knows no compare-and-swap and shows what is a minute old. A lock or a cursor in it lets two jobs run at once, or
/// one begin from the past. Here two instances are called again and again, and see each other's blobs a minute late:
/// one step runs at a time, and nothing is delivered twice.
#[test]
fn kv_is_no_lock() {
    let story = two_instances();
    let (tally, steps) = (story.0.inner.tally(), story.0.inner.steps_taken.borrow().clone());
    assert!(steps.len() == 2 && steps.values().all(|steps| *steps > 5), "{steps:?}");
    assert!(tally.stale_reads > 0, "{tally:?}");
    assert_eq!(tally.repeated, 0, "something was delivered twice");
    assert_eq!(tally.taken_over, 0, "two steps ran at once");
    story.ends_well();
    // And without the lease this story would tell.
    let without = || mutation::with(Mutation::SkipLease, || two_instances().0.inner.tally().taken_over);
    // A rule that is broken ends the story with a panic.
    let taken_over = catch_unwind(AssertUnwindSafe(without));
    assert!(taken_over.is_err() || taken_over.is_ok_and(|count| count > 0));
}

/// Two instances that are called again and again while files change.
fn two_instances() -> Story {
    let two = Options { sole_instance: false, kv_lag_ms_max: 60_000, page_keys: 5, cut: (4, 8), ..Options::calm() };
    let mut story = Story::new(Options { budget: Budget { keys_max: 1, ..two.budget }, ..two });
    files(&story, 40);
    for round in 0..12_u8 {
        for _ in 0..4 {
            story.happens(Event::Call(Call::Trigger { confirm: false, full: false }));
            story.happens(Event::Call(Call::Drive));
            story.happens(Event::Call(Call::Cron { late_ms: 90_000 }));
        }
        story.put(&format!("f{:03}", round * 3), "changed", story.now());
        story.pass(20_000);
    }
    story
}

/// Between the listing and the reading a file may be overwritten. A tool that stores what it reads under what it listed
/// never learns of the new version; here each version is delivered as it was listed, and the next poll finds the next.
#[test]
fn overwritten_between_listing_and_reading() {
    let mut story = Story::new(Options { page_keys: 5, sinks: vec![SinkOptions::catalogue(1)], ..Options::calm() });
    files(&story, 20);
    // The job dies amid the delivery of what it listed; meanwhile every file is another.
    let delivered = |story: &Story| story.0.inner.deliveries.borrow().len();
    story.happens(Event::Call(Call::Trigger { confirm: false, full: false }));
    story.happens(Event::Turns { turns: 40, seed: 1 });
    story.happens(Event::Call(Call::Drive));
    while delivered(&story) < 3 {
        story.happens(Event::Turns { turns: 1, seed: 1 });
    }
    story.happens(Event::Break { after: 1, how: Break::DieBefore });
    while story.0.inner.tally().crashes == 0 {
        story.happens(Event::Turns { turns: 1, seed: 1 });
    }
    let before = delivered(&story);
    assert!((3..20).contains(&before), "{before} of 20 are delivered");
    assert_eq!((story.0.inner.tally().crashes, story.0.inner.fake.counts().list), (1, 4));
    for number in 0..20 {
        story.put(&format!("f{number:03}"), "overwritten", story.now());
    }
    story.pass(60_000);
    story.delivered();
    let deliveries = story.0.inner.deliveries.borrow()[before..].to_vec();
    let listed_before = deliveries.iter().filter(|change| change.entry.size == "content".len() as u64).count();
    assert!(listed_before >= 20 - before, "{listed_before} as they were listed, {before} before");
    let versions = story.0.inner.rows();
    assert!(versions.iter().all(|row| row.size == "overwritten".len() as u64), "{versions:?}");
    story.ends_well();
}

/// A cursor set to the clock's "now" after the listing passes over all that came while it was read. The clock is no
/// part of any comparison here: files that appear before and behind the place that a listing has reached are found by
/// the next, and clocks that are wrong and jump change nothing.
#[test]
fn the_clock_is_not_read_inside_the_loop() {
    let mut story = Story::new(Options { page_keys: 5, latency_ms_max: 900, ..Options::calm() });
    files(&story, 40);
    story.happens(Event::Call(Call::Trigger { confirm: false, full: false }));
    story.pass(2_500);
    let listed = story.0.inner.fake.counts().list;
    assert!((1..8).contains(&listed), "{listed} pages: the listing should be on its way");
    for (key, skew_ms) in [("a-before", 600_000), ("z-behind", -600_000)] {
        story.happens(Event::Skew { instance: 0, ms: skew_ms });
        story.put(key, "while it was listed", story.now());
        story.pass(1_000);
    }
    story.pass(60_000);
    story.delivered();
    assert_eq!(story.0.inner.rows().len(), 42);
    story.ends_well();
}
