//! The commands of README and docs: each page's `bash` blocks, in order, in one shell, against a running service; and
//! the reader in Python.
//!
//! A block marked `no_run` needs an account, or takes long. A call that is answered with an error fails its page.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{io, thread};

use b2sync_tests::service::{Service, ServiceConfig, SyncRef, number};
use fake_b2::keys::NewKey;
use fake_b2::media::{seed_media_bucket, seed_plain_bucket};
use serde_json::Value;
use tempfile::TempDir;

use crate::{BUCKET as READ, Outcome, SOON, skip};

/// The bucket of the tutorial; the sync of it feeds `bkt_demo`.
const BUCKET: &str = "demo-media";
/// `curl` says nothing of its progress, and fails where the answer is an error.
const PRELUDE: &str =
    "set -euo pipefail\ncurl() { command curl --silent --show-error --fail-with-body \"$@\" && echo; }\n";

/// The blocks of a page in a language that can be run, in order.
fn blocks(page: &str, language: &str) -> String {
    let (mut script, mut inside) = (String::new(), false);
    for line in page.lines() {
        match line.trim() {
            "```" => inside = false,
            fence if fence.strip_prefix("```") == Some(language) => inside = true,
            _ if inside => script.extend([line, "\n"]),
            _ => {}
        }
    }
    script
}

fn pages() -> io::Result<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![root.join("README.md")];
    for folder in ["tutorial", "how-to", "reference", "explanation"] {
        for entry in fs::read_dir(root.join("docs").join(folder))? {
            pages.push(entry?.path());
        }
    }
    pages.sort();
    Ok(pages)
}

/// Runs the blocks of one page against a service of its own, with a sync that has run once. Answers whether there were
/// any.
fn run_page(page: &Path) -> Result<bool, Box<dyn std::error::Error>> {
    let script = blocks(&fs::read_to_string(page)?, "bash");
    if script.is_empty() {
        return Ok(false);
    }
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    seed_media_bucket(service.fake(), BUCKET, 50, 1)?;
    let key = service.fake().create_key(NewKey::unrestricted().for_buckets(&[BUCKET]))?;
    let connected = service.connect("demo", BUCKET)?;
    service.run_job(&connected.sync, SOON)?;
    let output = Command::new("bash")
        .args(["-c", &format!("{PRELUDE}{script}")])
        .env("BASE", service.url())
        .env("API_KEY", service.api_key())
        .env("SYNC", format!("{}{}", service.url(), connected.sync.path()))
        .env("CONNECTION", &connected.connection_id)
        .env("B2_URL", service.b2().url())
        .env("B2_BUCKET", BUCKET)
        .env("B2_KEY_ID", &key.key_id)
        .env("B2_APPLICATION_KEY", &key.secret)
        .output()?;
    if output.status.success() {
        return Ok(true);
    }
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    Err(format!("the commands of {} fail ({}):\n{script}\n{out}\n{err}", page.display(), output.status).into())
}

#[test]
fn the_commands_of_readme_and_docs_run() -> Outcome {
    let mut ran = Vec::new();
    for page in pages()? {
        if run_page(&page)? {
            ran.push(page.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    for page in ["README.md", "first-sync.md", "read-the-feed.md", "dead-letters.md", "troubleshoot.md"] {
        assert!(ran.iter().any(|it| it == page), "{page} has no commands to run: {ran:?}");
    }
    Ok(())
}

/// The reader in Python, in a folder of its own. Killed when dropped.
struct Reader(Child);

impl Reader {
    fn start(script: &str, folder: &Path, service: &Service, sync: &SyncRef, key: &str) -> io::Result<Self> {
        let output = fs::OpenOptions::new().create(true).append(true).open(folder.join("output.txt"))?;
        Command::new("python3")
            .args(["-u", "-c", script])
            .current_dir(folder)
            .env("SYNC", format!("{}{}", service.url(), sync.path()))
            .env("API_KEY", key)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map(Self)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lines that a reader prints of these changes.
fn printed(changes: &[Value]) -> String {
    let text = |change: &Value, field: &str| change[field].as_str().unwrap_or_default().to_owned();
    let line = |change: &Value| format!("{} {} {}\n", change["position"], text(change, "kind"), text(change, "key"));
    changes.iter().map(line).collect()
}

/// Waits until the reader has stored that position, and compares what it printed with the feed.
fn check_read(folder: &Path, service: &Service, sync: &SyncRef) -> Outcome {
    let changes = service.changes(sync, 0)?;
    let last = changes.len().to_string();
    let began = Instant::now();
    let stored = || fs::read_to_string(folder.join("cursor.txt")).unwrap_or_default();
    while stored() != last {
        if began.elapsed() > SOON {
            let output = fs::read_to_string(folder.join("output.txt"))?;
            return Err(format!("the reader is at {:?} of {last}, and printed {output:?}", stored()).into());
        }
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(fs::read_to_string(folder.join("output.txt"))?, printed(&changes));
    Ok(())
}

/// It prints every change once: those that are there, one that comes while it waits, and, started again, those that
/// came since. With a key that is refused, it ends.
#[test]
fn the_reader_in_python_runs() -> Outcome {
    if let Err(error) = Command::new("python3").arg("--version").output() {
        return Ok(skip(&format!("python3 does not start: {error}"), "python3")?);
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/how-to/read-the-feed.md");
    let script = blocks(&fs::read_to_string(page)?, "python");
    assert!(script.contains("/changes?after="), "read-the-feed.md has no reader in Python: {script:?}");
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(READ)?;
    // More than one page of the feed.
    seed_plain_bucket(service.fake(), READ, 1_100, 5)?;
    let it = service.connect("python", READ)?;
    service.run_job(&it.sync, SOON)?;
    let folder = TempDir::with_prefix("b2sync-reader-")?;
    let start = |key: &str| Reader::start(&script, folder.path(), &service, &it.sync, key);
    let change = |key: &str| -> Outcome {
        service.fake().delete_key(READ, key)?;
        service.run_job(&it.sync, SOON)?;
        Ok(())
    };

    let reader = start(service.api_key())?;
    check_read(folder.path(), &service, &it.sync)?;
    change("item-00000007")?;
    check_read(folder.path(), &service, &it.sync)?;
    drop(reader);

    change("item-00000008")?;
    let reader = start(service.api_key())?;
    check_read(folder.path(), &service, &it.sync)?;
    assert_eq!(number(&service.sync(&it.sync)?, "/feed/last"), 1_102);
    drop(reader);

    let mut refused = start("no-key")?;
    assert!(!refused.0.wait()?.success(), "a key that is refused is an error");
    Ok(())
}
