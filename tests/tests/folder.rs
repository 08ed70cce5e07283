//! The stores and the sink in a folder, held to the contracts that the core states for every home, and to what folders
//! promise beyond: other processes, and crashes at any byte.

use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::{Command, Stdio};
use std::{env, thread};

use b2sync_core::ErrorKind;
use b2sync_core::conformance::blobs::blob_conformance;
use b2sync_core::conformance::documents::document_conformance;
use b2sync_core::conformance::sink::sink_conformance;
use b2sync_core::entry::Entry;
use b2sync_core::sink::{Change, ChangeKind, Sink};
use b2sync_core::store::{BlobStore, DocumentStore, Swapped};
use b2sync_core::time::Timestamp;
use b2sync_tests::folder::{FolderBlobs, FolderDocuments, FolderSink};
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
fn a_folder_does_what_every_store_and_sink_must() -> Outcome {
    in_folders(|new| block_on(blob_conformance(async || FolderBlobs::open(new()).expect("it opens"))))?;
    in_folders(|new| block_on(document_conformance(async || FolderDocuments::open(new()).expect("it opens"))))?;
    in_folders(|new| block_on(sink_conformance(async || FolderSink::open(new()).expect("it opens"))))
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

fn change(key: &str) -> Change {
    let entry = Entry { key: key.into(), etag: "e".into(), size: 1, last_modified: Timestamp::from_millis(1) };
    Change::appeared("sync_a", ChangeKind::Created, entry)
}

#[test]
fn a_torn_last_line_is_left_out_and_mended() -> Outcome {
    let folder = TempDir::new()?;
    let sink = FolderSink::open(folder.path())?;
    block_on(sink.deliver(&[change("a"), change("b\nc")]))?;
    let whole = fs::read(sink.path())?;
    let first_line = whole.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
    for length in 0..whole.len() {
        fs::write(sink.path(), &whole[..length])?;
        let mut expected = if length < first_line { vec![] } else { vec![change("a")] };
        assert_eq!(sink.deliveries()?, expected, "{length} bytes");
        block_on(sink.deliver(&[change("d")]))?;
        expected.push(change("d"));
        assert_eq!(sink.deliveries()?, expected, "{length} bytes");
    }
    Ok(())
}

#[test]
fn a_torn_line_may_be_longer_than_a_look_back() -> Outcome {
    let folder = TempDir::new()?;
    let sink = FolderSink::open(folder.path())?;
    for torn in [1, 4095, 4096, 4097, 10_000] {
        block_on(sink.deliver(&[change("a")]))?;
        let before = sink.deliveries()?;
        OpenOptions::new().append(true).open(sink.path())?.write_all(&vec![b'{'; torn])?;
        assert_eq!(sink.deliveries()?, before, "{torn} bytes");
        block_on(sink.deliver(&[change("b")]))?;
        assert_eq!(sink.deliveries()?, [before, vec![change("b")]].concat(), "{torn} bytes");
    }
    Ok(())
}

#[test]
fn a_line_that_is_no_change_is_told() -> Outcome {
    let folder = TempDir::new()?;
    let sink = FolderSink::open(folder.path())?;
    block_on(sink.deliver(&[change("a")]))?;
    let whole = fs::read_to_string(sink.path())?;
    for (wrong, told) in
        [("{}\n".to_owned(), "line 2 is no change"), (whole.replace("\"v\":1", "\"v\":2"), "version 2")]
    {
        fs::write(sink.path(), format!("{whole}{wrong}"))?;
        let error = sink.deliveries().expect_err("a wrong line");
        assert_eq!(error.kind(), ErrorKind::StateCorrupt);
        assert!(error.message().contains(told), "{error}");
    }
    Ok(())
}
