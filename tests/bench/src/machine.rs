//! What the figures were measured on, and which versions of the peers.

use std::process::Command;
use std::{env, fs, thread};

use crate::Options;
use crate::report::say;

const LOCK: &str = include_str!("../../../Cargo.lock");
/// The peers that are crates.
const CRATES: [&str; 6] = ["object_store", "opendal", "rusty-s3", "ureq", "instant-xml", "quick-xml"];

pub(crate) fn heading(options: &Options) {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    say(&format!("Machine: {}, {cores} cores, {} {}", model(), env::consts::OS, env::consts::ARCH));
    let mut versions: Vec<String> = CRATES.iter().map(|name| format!("{name} {}", locked(name))).collect();
    if let Ok(node) = options.tool("node") {
        let v8 = "process.stdout.write(`node ${process.versions.node} (V8 ${process.versions.v8})`)";
        versions.extend(said(Command::new(node).args(["-e", v8])));
    }
    if let Ok(rclone) = options.tool("rclone") {
        versions
            .extend(said(Command::new(rclone).arg("version")).and_then(|text| text.lines().next().map(str::to_owned)));
    }
    if let Ok(boto3) = options.tool("boto3") {
        let script = "import boto3, platform; print(f'boto3 {boto3.__version__} (Python {platform.python_version()})')";
        versions.extend(said(Command::new("python3").args(["-c", script]).env("PYTHONPATH", boto3)));
    }
    say(&format!("Versions: {}", versions.join(", ")));
    say(if options.quick { "A quick run: fewer keys, fewer repetitions." } else { "A full run." });
}

fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn model() -> String {
    let from_proc = || {
        let text = fs::read_to_string("/proc/cpuinfo").ok()?;
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let from_sysctl = || said(Command::new("sysctl").args(["-n", "machdep.cpu.brand_string"]));
    from_proc().or_else(from_sysctl).unwrap_or_else(|| "a processor that does not say its name".to_owned())
}

/// The newest version of a crate in Cargo.lock: that is ours where a peer brings an older one.
fn locked(name: &str) -> &'static str {
    let wanted = format!("name = \"{name}\"");
    let mut lines = LOCK.lines();
    let mut found = "?";
    while lines.any(|line| line == wanted) {
        found = lines.next().and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"')).unwrap_or(found);
    }
    found
}
