//! The stock client of the API, the PyPI package `mixpeek`, and the API's own description, against the Worker on the
//! real runtime.
//!
//! `cargo xtask setup` makes its virtual environment. The scripts are in `tests/stock_client`; each ends with an error
//! at the first answer that is not what the client's models and users expect.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use b2sync_core::time::Timestamp;
use b2sync_tests::service::{Service, ServiceConfig};
use fake_b2::faults::{Fault, Rule, Target};
use fake_b2::keys::NewKey;
use fake_b2::model::NewFile;

type Outcome = Result<(), Box<dyn std::error::Error>>;

const BUCKET: &str = "stock-media";
const FILES: usize = 50;

/// Runs a script against a service.
fn run(service: &Service, script: &str) -> Outcome {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("stock_client");
    let python = python();
    if !python.exists() {
        return missing(&python);
    }
    let key = service.fake().create_key(NewKey::unrestricted().for_buckets(&[BUCKET]))?;
    let output = Command::new(python)
        .arg(folder.join(script))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("BASE", service.url())
        .env("API_KEY", service.api_key())
        .env("B2_KEY_ID", &key.key_id)
        .env("B2_APPLICATION_KEY", &key.secret)
        .env("B2_BUCKET", BUCKET)
        .env("FILES", FILES.to_string())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    Err(service.error(format!("{script} ended with {}:\n{out}\n{err}", output.status)).into())
}

/// A machine without Python passes, except in continuous integration.
fn missing(python: &Path) -> Outcome {
    let has_python = Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if has_python || std::env::var_os("CI").is_some_and(|ci| ci == "true" || ci == "1") {
        return Err(format!("{} is missing. Run `cargo xtask setup`.", python.display()).into());
    }
    // Past the test harness, which shows what a test prints only when it fails.
    writeln!(std::io::stderr(), "SKIPPED: there is no python3, and the stock client is a Python package.")?;
    Ok(())
}

/// The interpreter of the virtual environment, where `cargo xtask setup` makes it.
fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let target = root.join(target);
    target.join("tools/stock-client").join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" })
}

fn service() -> Result<Service, Box<dyn std::error::Error>> {
    let service = Service::start(ServiceConfig::default())?;
    service.fake().create_bucket(BUCKET)?;
    let uploaded_at = Timestamp::from_millis(1_767_225_600_000);
    for number in 0..FILES {
        // What JSON, URLs and signatures write in another way.
        let odd = ["", " +&=?#", "ä日本", "\"'%\\"][number % 4];
        let key = format!("2024/{odd}clip {number:03}.mp4");
        service.fake().put(BUCKET, &key, NewFile::generated(number as u64, 1_000 + number as u64), uploaded_at)?;
    }
    Ok(service)
}

#[test]
fn the_typed_client_makes_every_call() -> Outcome {
    run(&service()?, "typed.py")
}

#[test]
fn the_description_of_the_api_is_valid_and_true() -> Outcome {
    run(&service()?, "openapi.py")
}

#[test]
fn the_high_level_client_makes_the_calls_of_the_documentation() -> Outcome {
    let service = service()?;
    // Each call of the service makes three attempts.
    let down = Rule::next(Target::Authorize, Fault::status(503)).times(3);
    service.fake().inject(down);
    run(&service, "high_level.py")
}
