//! Building for the two WebAssembly homes.
//!
//! Neither build touches what a native build made: each has its own folder in `target/`, and the flags for native code
//! are taken out of the environment.

use crate::command::{cargo, run as run_command, without_native_flags};
use crate::versions::{COMPONENT_TARGET, WASM_BINDGEN, WORKER_BUILD, WORKER_TARGET};
use crate::{Result, setup, workspace::Workspace};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

/// All that decides what the Worker's build makes.
const WORKER_SOURCES: [&str; 11] = [
    ".cargo/config.toml",
    "core/src",
    "core/Cargo.toml",
    "core/service/src",
    "core/service/Cargo.toml",
    "worker/src",
    "worker/Cargo.toml",
    "Cargo.toml",
    "Cargo.lock",
    "package-lock.json",
    "xtask/src/build.rs",
];

/// What the Worker with the conformance suites has beyond them.
const CONFORMANCE_SOURCES: [&str; 2] = ["tests/worker-conformance/src", "tests/worker-conformance/Cargo.toml"];

/// What `cargo xtask build` was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    worker: bool,
    component: bool,
    conformance: bool,
    dev: bool,
}

impl Options {
    /// The Worker as it is deployed.
    pub(crate) const WORKER: Self = Self { worker: true, component: false, conformance: false, dev: false };
    /// The component.
    pub(crate) const COMPONENT: Self = Self { worker: false, component: true, conformance: false, dev: false };
    /// The Worker with the conformance suites in it.
    pub(crate) const CONFORMANCE: Self = Self { worker: false, component: false, conformance: true, dev: true };

    pub(crate) fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self { worker: false, component: false, conformance: false, dev: false };
        for arg in args {
            match arg.as_str() {
                "--worker" => options.worker = true,
                "--component" => options.component = true,
                "--conformance" => options.conformance = true,
                "--dev" => options.dev = true,
                unknown => {
                    return Err(format!(
                        "`cargo xtask build` knows --worker, --component, --conformance and --dev, but got `{unknown}`."
                    ));
                }
            }
        }
        if !options.worker && !options.component && !options.conformance {
            (options.worker, options.component) = (true, true);
        }
        Ok(options)
    }
}

/// Builds what `options` ask for.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if options.worker {
        worker(workspace, "worker", &WORKER_SOURCES, options.dev)?;
    }
    if options.component {
        component(workspace)?;
    }
    if options.conformance {
        // Never deployed, so it is built the quick way.
        let sources = [&WORKER_SOURCES[..], &CONFORMANCE_SOURCES].concat();
        worker(workspace, "tests/worker-conformance", &sources, true)?;
    }
    Ok(())
}

/// Builds the Worker of a package into its `build` folder.
fn worker(workspace: &Workspace, package: &str, sources: &[&str], dev: bool) -> Result<()> {
    setup::worker_tools(workspace)?;
    let folder = workspace.root().join(package).join("build");
    let stamp_path = folder.join(".built");
    let flavour =
        format!("worker-build {WORKER_BUILD}, wasm-bindgen {WASM_BINDGEN}, {}", if dev { "dev" } else { "release" });
    let newest = sources.iter().filter_map(|source| newest_change(&workspace.root().join(source))).max();
    let outputs = ["index.js", "index_bg.wasm"].map(|name| folder.join(name));
    if outputs.iter().all(|path| path.exists()) && is_fresh(&stamp_path, &flavour, newest) {
        println!("The Worker in {package}/build is fresh.");
        return Ok(());
    }

    println!("Building the Worker for {WORKER_TARGET} (about 2 minutes the first time, then half a minute)…");
    let started = Instant::now();
    let started_at = SystemTime::now();
    let mut command = Command::new(workspace.tool("worker-build"));
    command
        .arg(if dev { "--dev" } else { "--release" })
        .current_dir(workspace.root().join(package))
        .env("CARGO_TARGET_DIR", workspace.target())
        // Without these three, worker-build downloads them.
        .env("WASM_BINDGEN_BIN", workspace.tool("wasm-bindgen"))
        .env("WASM_OPT_BIN", workspace.node_module("binaryen/bin/wasm-opt"))
        .env("ESBUILD_BIN", workspace.esbuild())
        // wasm-bindgen reads a section that `strip = true` removes; wasm-opt strips what is left.
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo");
    run_command(without_native_flags(&mut command))?;
    if !dev {
        // worker-build keeps the names of all functions: a tenth of the bundle, for stack traces of panics that
        // `tidy` does not let in.
        let module = folder.join("index_bg.wasm");
        let mut strip = Command::new(workspace.node_module("binaryen/bin/wasm-opt"));
        strip.args(["--all-features", "--strip-debug", "-o"]).arg(&module).arg(&module);
        run_command(&mut strip)?;
    }
    // A change made while the build ran is newer than its start.
    let stamp = format!("{flavour}\n{}\n", nanos(started_at));
    fs::write(&stamp_path, stamp).map_err(|error| format!("{} cannot be written: {error}.", stamp_path.display()))?;
    println!("Built the Worker in {:.0} s: {}.", started.elapsed().as_secs_f64(), sizes(&outputs));
    Ok(())
}

fn component(workspace: &Workspace) -> Result<()> {
    setup::rust_target(COMPONENT_TARGET)?;
    println!(
        "Building the component for {COMPONENT_TARGET} (about a minute the first time, an instant when it is fresh)…"
    );
    let mut command = cargo(workspace);
    command.args(["build", "--quiet", "--package", "b2sync-component", "--release", "--target", COMPONENT_TARGET]);
    run_command(without_native_flags(&mut command))?;
    let path = workspace.target().join(COMPONENT_TARGET).join("release/b2sync_component.wasm");
    if path.exists() {
        println!("Built the component: {}.", sizes(&[path]));
    }
    Ok(())
}

fn is_fresh(stamp_path: &Path, flavour: &str, newest: Option<SystemTime>) -> bool {
    let stamp = fs::read_to_string(stamp_path).unwrap_or_default();
    let mut lines = stamp.lines();
    let same_flavour = lines.next() == Some(flavour);
    let built: Option<u128> = lines.next().and_then(|line| line.parse().ok());
    same_flavour && newest.zip(built).is_some_and(|(newest, built)| nanos(newest) < built)
}

fn nanos(time: SystemTime) -> u128 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos()
}

/// When a file, or anything in a folder, was last changed. A folder's own time tells of files that were removed.
fn newest_change(path: &Path) -> Option<SystemTime> {
    let own = fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let inside = fs::read_dir(path).into_iter().flatten().flatten().filter_map(|entry| newest_change(&entry.path()));
    inside.chain(own).max()
}

/// `512 KB, 224 KB gzipped`.
fn sizes(paths: &[PathBuf]) -> String {
    let raw: u64 = paths.iter().filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.len()).sum();
    let zipped: Option<usize> = paths.iter().map(|path| gzipped_bytes(path)).sum();
    let zipped = zipped.map(|bytes| format!(", {} KB gzipped", bytes.div_ceil(1_000))).unwrap_or_default();
    format!("{} KB{zipped}", raw.div_ceil(1_000))
}

fn gzipped_bytes(path: &Path) -> Option<usize> {
    let output = Command::new("gzip").args(["-9", "-c"]).arg(path).output().ok()?;
    output.status.success().then_some(output.stdout.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options> {
        Options::parse(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn without_a_choice_both_are_built() {
        assert_eq!(parse(&["--dev"]), Ok(Options { worker: true, component: true, conformance: false, dev: true }));
        assert_eq!(parse(&["--worker"]), Ok(Options::WORKER));
        assert_eq!(parse(&["--component"]), Ok(Options::COMPONENT));
    }

    #[test]
    fn a_stamp_is_fresh_only_for_the_same_flavour_and_nothing_newer() {
        let folder = std::env::temp_dir().join(format!("b2sync-xtask-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for this test");
        let path = folder.join("stamp");
        fs::write(&path, "release\n2000000000\n").expect("a stamp");
        let at = |nanos| Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos));
        assert!(is_fresh(&path, "release", at(1_999_999_999)));
        assert!(!is_fresh(&path, "release", at(2_000_000_000)));
        assert!(!is_fresh(&path, "dev", at(1)));
        assert!(!is_fresh(&path, "release", None));
        assert!(!is_fresh(&folder.join("none"), "release", at(1)));
        fs::remove_dir_all(&folder).expect("the folder is removed");
    }
}
