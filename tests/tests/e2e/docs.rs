//! The commands of README and docs: each page's `bash` blocks, in order, in one shell, against a running service.
//!
//! A block marked `no_run` needs an account, or takes long. A call that is answered with an error fails its page.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use b2sync_tests::service::{Service, ServiceConfig};
use fake_b2::keys::NewKey;
use fake_b2::media::seed_media_bucket;

use crate::{Outcome, SOON};

/// The bucket of the tutorial; the sync of it feeds `bkt_demo`.
const BUCKET: &str = "demo-media";
/// `curl` says nothing of its progress, and fails where the answer is an error.
const PRELUDE: &str =
    "set -euo pipefail\ncurl() { command curl --silent --show-error --fail-with-body \"$@\" && echo; }\n";

/// The blocks of a page that can be run, in order.
fn blocks(page: &str) -> String {
    let (mut script, mut inside) = (String::new(), false);
    for line in page.lines() {
        match line.trim() {
            "```bash" => inside = true,
            "```" => inside = false,
            _ if inside => script.extend([line, "\n"]),
            _ => {}
        }
    }
    script
}

fn pages() -> Result<Vec<PathBuf>, std::io::Error> {
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
    let script = blocks(&fs::read_to_string(page)?);
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
