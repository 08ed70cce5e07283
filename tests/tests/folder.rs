//! The stores in a folder, held to the contracts that the core states for every home, and to what folders promise
//! beyond: other processes, and crashes at any byte. And the log of a feed beside them.

use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::{env, thread};

use b2sync_core::ErrorKind;
use b2sync_core::change::{Change, Found, change_id};
use b2sync_core::conformance::blobs::blob_conformance;
use b2sync_core::conformance::documents::document_conformance;
use b2sync_core::entry::Entry;
use b2sync_core::feed;
use b2sync_core::snapshot::Known;
use b2sync_core::store::{BlobStore, DocumentStore, Swapped};
use b2sync_core::time::Timestamp;
use b2sync_tests::folder::{FolderBlobs, FolderDocuments, FolderLog};
use b2sync_tests::twin::Twin;
use fake_b2::keys::NewKey;
use fake_b2::media::seed_media_bucket;
use fake_b2::model::NewFile;
use fake_b2::{Config, FakeB2};
use pollster::block_on;
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Names the folder that [`counts_in_a_process_of_its_own`] counts in.
const COUNT_ENV: &str = "B2SYNC_TEST_COUNT_IN";
const PROCESSES: usize = 3;
const THREADS: usize = 3;
const COUNTS: u64 = 20;

/// Runs `suite` with a function that makes a folder for each of its checks.
fn in_folders(suite: impl FnOnce(&dyn Fn() -> std::path::PathBuf) -> Result<(), String>) -> Outcome {
    let folders = RefCell::new(Vec::new());
    let new = || {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("made/by/open");
        folders.borrow_mut().push(folder);
        path
    };
    suite(&new)?;
    assert!(!folders.borrow().is_empty());
    Ok(())
}

#[test]
fn a_folder_does_what_every_store_must() -> Outcome {
    in_folders(|new| block_on(blob_conformance(async || FolderBlobs::open(new()).expect("it opens"))))?;
    in_folders(|new| block_on(document_conformance(async || FolderDocuments::open(new()).expect("it opens"))))
}

#[test]
fn what_is_written_outlives_its_store() -> Outcome {
    let folder = TempDir::new()?;
    block_on(FolderBlobs::open(folder.path())?.put("segment/a", "value".into()))?;
    block_on(FolderDocuments::open(folder.path())?.swap("snapshot", 0, Some("value".into())))?;
    assert_eq!(block_on(FolderBlobs::open(folder.path())?.get("segment/a"))?.as_deref(), Some(&b"value"[..]));
    let document = block_on(FolderDocuments::open(folder.path())?.load("snapshot"))?;
    assert_eq!(document.map(|document| document.revision), Some(1));
    Ok(())
}

#[test]
fn no_name_leaves_the_folder() -> Outcome {
    let folder = TempDir::new()?;
    let inside = folder.path().join("inside");
    let blobs = FolderBlobs::open(&inside)?;
    let long = "long/".repeat(500);
    for name in ["../a", "/a", "..", ".", "", "a\0b", "C:\\a", "con", "a/../../b", &long] {
        block_on(blobs.put(name, name.to_owned().into()))?;
        assert_eq!(block_on(blobs.get(name))?.as_deref(), Some(name.as_bytes()), "{name:?}");
    }
    let outside: Vec<_> = fs::read_dir(folder.path())?.collect::<Result<_, _>>()?;
    assert_eq!(outside.len(), 1, "{outside:?}");
    Ok(())
}

/// Adds one to the document `count`, however often others come first.
fn count_up(documents: &FolderDocuments) -> Outcome {
    loop {
        let found = block_on(documents.load("count"))?;
        let revision = found.as_ref().map_or(0, |found| found.revision);
        let count: u64 = match &found {
            Some(found) => std::str::from_utf8(&found.value)?.parse()?,
            None => 0,
        };
        let swapped = block_on(documents.swap("count", revision, Some((count + 1).to_string().into())))?;
        if swapped == Swapped::Done(revision + 1) {
            return Ok(());
        }
        assert_eq!(swapped, Swapped::Conflict);
    }
}

#[test]
fn several_processes_count_together() -> Outcome {
    let folder = TempDir::new()?;
    let mut children = Vec::new();
    for _ in 0..PROCESSES {
        let mut command = Command::new(env::current_exe()?);
        command.args(["--exact", "counts_in_a_process_of_its_own", "--ignored"]).env(COUNT_ENV, folder.path());
        children.push(command.stdout(Stdio::null()).spawn()?);
    }
    for mut child in children {
        assert!(child.wait()?.success());
    }
    let document = block_on(FolderDocuments::open(folder.path())?.load("count"))?.expect("a count");
    let expected = (PROCESSES * THREADS) as u64 * COUNTS;
    assert_eq!((document.revision, &*document.value), (expected, expected.to_string().as_bytes()));
    Ok(())
}

#[test]
#[ignore = "started by several_processes_count_together"]
fn counts_in_a_process_of_its_own() {
    // Nothing to do when all ignored tests are run.
    let Some(folder) = env::var_os(COUNT_ENV) else { return };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let documents = FolderDocuments::open(&folder).expect("it opens");
                (0..COUNTS).for_each(|_| count_up(&documents).expect("it counts"));
            });
        }
    });
}

#[test]
fn a_document_that_was_cut_off_is_told() -> Outcome {
    let folder = TempDir::new()?;
    let documents = FolderDocuments::open(folder.path())?;
    block_on(documents.swap("snapshot", 0, Some("{\"v\":1}".into())))?;
    let path = folder.path().join("document-snapshot");
    let whole = fs::read(&path)?;
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length])?;
        let error = block_on(documents.load("snapshot")).expect_err("it is cut off");
        assert_eq!(error.kind(), ErrorKind::StateCorrupt, "{length} bytes");
        let error = block_on(documents.swap("snapshot", 0, None)).expect_err("it is cut off");
        assert_eq!(error.kind(), ErrorKind::StateCorrupt, "{length} bytes");
    }
    Ok(())
}

fn change(position: u64, key: &str) -> Change {
    let entry = Entry { key: key.into(), etag: "e".into(), size: 1, last_modified: Timestamp::from_millis(1) };
    let found = match position % 3 {
        0 => Found::Vanished(Known::from(&entry)),
        1 => Found::Appeared { previous: Some((&Known::from(&entry)).into()), entry },
        _ => Found::Again(entry),
    };
    found.at(position, change_id("sync_a", position), Timestamp::from_millis(2), "job_a")
}

#[test]
fn a_torn_last_line_is_left_out_and_mended() -> Outcome {
    let folder = TempDir::new()?;
    let log = FolderLog::open(folder.path())?;
    let all = [change(1, "a"), change(2, "b\nc"), change(3, "d")];
    assert_eq!(log.append(&all[..2])?, 2);
    let whole = fs::read(log.path())?;
    let first_line = whole.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
    for length in 0..whole.len() {
        fs::write(log.path(), &whole[..length])?;
        let left = usize::from(length >= first_line);
        assert_eq!(log.changes()?, &all[..left], "{length} bytes");
        // What is in the log already is not written once more.
        assert_eq!(log.append(&all)?, 3);
        assert_eq!(log.changes()?, all, "{length} bytes");
    }
    Ok(())
}

#[test]
fn a_torn_line_may_be_longer_than_a_look_back() -> Outcome {
    let folder = TempDir::new()?;
    let log = FolderLog::open(folder.path())?;
    let mut all = Vec::new();
    for (position, torn) in (1..).zip([1, 4095, 4096, 4097, 10_000]) {
        OpenOptions::new().append(true).create(true).open(log.path())?.write_all(&vec![b'{'; torn])?;
        assert_eq!(log.changes()?, all, "{torn} bytes");
        // A whole line may be long, too.
        all.push(change(position, &"x".repeat(torn)));
        assert_eq!(log.append(&all)?, position);
        assert_eq!(log.changes()?, all, "{torn} bytes");
    }
    Ok(())
}

#[test]
fn a_line_that_is_no_change_is_told() -> Outcome {
    let folder = TempDir::new()?;
    let log = FolderLog::open(folder.path())?;
    log.append(&[change(1, "a")])?;
    let whole = fs::read_to_string(log.path())?;
    for (wrong, told) in
        [("{}\n".to_owned(), "line 2 is no change"), (whole.replace("\"v\":1", "\"v\":2"), "version 2")]
    {
        fs::write(log.path(), format!("{whole}{wrong}"))?;
        let error = log.changes().expect_err("a wrong line");
        assert_eq!(error.kind(), ErrorKind::StateCorrupt);
        assert!(error.message().contains(told), "{error}");
        // Nothing is written behind it.
        assert_eq!(log.append(&[change(2, "b")]).expect_err("a wrong line").kind(), ErrorKind::StateCorrupt);
        assert_eq!(fs::read_to_string(log.path())?, format!("{whole}{wrong}"));
    }
    Ok(())
}

/// A native embedder: state in folders, a log that follows the feed, and a feed that forgets what the log has.
#[test]
fn the_log_of_a_feed_has_every_change_once() -> Outcome {
    const BUCKET: &str = "my-media";
    let fake = Arc::new(FakeB2::new(Config::default()));
    fake.create_bucket(BUCKET)?;
    seed_media_bucket(&fake, BUCKET, 1_500, 7)?;
    let key = fake.create_key(NewKey::unrestricted())?;
    let twin = || Twin::new(&fake, "sync_folder", BUCKET, &Default::default(), &key);
    let folder = TempDir::new()?;
    let blobs = FolderBlobs::open(folder.path().join("blobs"))?;
    let documents = FolderDocuments::open(folder.path().join("documents"))?;
    let mut in_memory = twin()?;
    let mut in_folders = twin()?.with_stores(blobs.clone(), documents.clone());
    let mut now = Timestamp::parse_rfc3339("2026-01-01T00:00:00Z").expect("a time");
    let mut expected = Vec::new();
    for round in 0..3 {
        now = now.plus_millis(60_000);
        fake.put(BUCKET, &format!("videos/new {round}.mp4"), NewFile::generated(round, 5_000), now)?;
        expected.extend(in_memory.run(now)?);
        in_folders.run(now)?;
        // Another process would open it like this.
        let log = FolderLog::open(folder.path().join("log"))?;
        for _ in 0..2 {
            let cursor = block_on(log.follow(&blobs, &documents, "sync_folder"))?;
            assert_eq!(cursor, expected.len() as u64);
            assert_eq!(block_on(feed::forget(&blobs, &documents, cursor))?, cursor + 1);
        }
        assert_eq!(log.changes()?, expected);
    }
    assert_eq!(expected.len(), 1_503);
    let lost = FolderLog::open(folder.path().join("another log"))?;
    let error = block_on(lost.follow(&blobs, &documents, "sync_folder")).expect_err("the changes are forgotten");
    assert_eq!(error.kind(), ErrorKind::FeedGap);
    Ok(())
}
