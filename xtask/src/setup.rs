//! Installing what the other tasks need: Rust targets, two cargo tools of pinned versions, and the npm tools of
//! package-lock.json. Each part first looks whether it is there.

use crate::command::{cargo, output, run};
use crate::versions::{COMPONENT_TARGET, NODE_MAJOR_MIN, WASM_BINDGEN, WORKER_BUILD, WORKER_TARGET};
use crate::{Result, workspace::Workspace};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Everything.
pub(crate) fn all(workspace: &Workspace) -> Result<()> {
    rust_target(COMPONENT_TARGET)?;
    worker_tools(workspace)?;
    stock_client(workspace)
}

/// What the Worker is built, run and deployed with.
pub(crate) fn worker_tools(workspace: &Workspace) -> Result<()> {
    rust_target(WORKER_TARGET)?;
    // With --locked the installation of wasm-bindgen-cli asks for a version of a crate that was withdrawn.
    cargo_tool(workspace, "wasm-bindgen-cli", "wasm-bindgen", WASM_BINDGEN, false)?;
    cargo_tool(workspace, "worker-build", "worker-build", WORKER_BUILD, true)?;
    npm_tools(workspace)
}

/// A target of the Rust toolchain.
pub(crate) fn rust_target(target: &str) -> Result<()> {
    let folder = output(Command::new("rustc").args(["--print", "target-libdir", "--target", target]));
    if folder.is_some_and(|folder| Path::new(&folder).is_dir()) {
        return Ok(());
    }
    println!("Adding the Rust target {target} (a few seconds, once)…");
    if output(Command::new("rustup").arg("--version")).is_none() {
        return Err(format!(
            "rustup is missing, and the Rust installed here cannot compile for {target}. Get rustup from \
             https://rustup.rs, or add the target with your system's packages."
        ));
    }
    run(Command::new("rustup").args(["target", "add", target]))
}

fn cargo_tool(workspace: &Workspace, package: &str, binary: &str, version: &str, locked: bool) -> Result<()> {
    // Cargo's own record of what it installed there.
    let record = fs::read_to_string(workspace.tools().join(".crates.toml")).unwrap_or_default();
    if record.contains(&format!("\"{package} {version} (")) && workspace.tool(binary).exists() {
        return Ok(());
    }
    println!("Installing {package} {version} into target/tools (2 to 4 minutes, once)…");
    let mut command = cargo(workspace);
    command.args(["install", package, "--version", version, "--quiet", "--root"]).arg(workspace.tools());
    if locked {
        command.arg("--locked");
    }
    // Built in a temporary folder: nothing else in target/ shares anything with these tools.
    // And built quickly rather than to run quickly: they work for a second or two a build.
    command.env_remove("CARGO_TARGET_DIR").env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    run(command.env("CARGO_PROFILE_RELEASE_LTO", "off"))
}

/// What package-lock.json names.
pub(crate) fn npm_tools(workspace: &Workspace) -> Result<()> {
    let lock_path = workspace.root().join("package-lock.json");
    let lock = fs::read(&lock_path).map_err(|error| format!("{} is not readable: {error}.", lock_path.display()))?;
    // The lock file that was last installed, whole: a comparison that cannot be wrong.
    let stamp_path = workspace.node_module(".installed-package-lock.json");
    if fs::read(&stamp_path).is_ok_and(|stamp| stamp == lock) {
        return Ok(());
    }
    check_node()?;
    println!("Installing workerd, wrangler, binaryen and esbuild into node_modules (about 20 seconds, once)…");
    let mut npm = Command::new(if cfg!(windows) { "npm.cmd" } else { "npm" });
    npm.current_dir(workspace.root()).args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]);
    run(&mut npm)?;
    fs::write(&stamp_path, lock).map_err(|error| format!("{} cannot be written: {error}.", stamp_path.display()))
}

/// The stock client of the API, a PyPI package, in a virtual environment of its own.
fn stock_client(workspace: &Workspace) -> Result<()> {
    let list_path = workspace.root().join("tests/stock_client/requirements.txt");
    let list = fs::read(&list_path).map_err(|error| format!("{} is not readable: {error}.", list_path.display()))?;
    let folder = workspace.tools().join("stock-client");
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let stamp_path = folder.join("installed-requirements.txt");
    // An environment is of the Python it was made with, which may be gone.
    let runs = || output(Command::new(&python).arg("--version")).is_some();
    if fs::read(&stamp_path).is_ok_and(|stamp| stamp == list) && runs() {
        return Ok(());
    }
    if output(Command::new("python3").arg("--version")).is_none() {
        println!("There is no python3: the tests leave the stock client of the API out, which is a Python package.");
        return Ok(());
    }
    if output(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_none() {
        return Err(
            "python3 is here without venv and pip. Get them with your system's packages (python3-venv).".to_owned()
        );
    }
    println!("Installing the stock client of the API into target/tools with pip (90 MB, 20 seconds, once)…");
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"]).arg(&list_path);
    run(&mut pip)?;
    fs::write(&stamp_path, list).map_err(|error| format!("{} cannot be written: {error}.", stamp_path.display()))
}

fn check_node() -> Result<()> {
    let get = "Get Node from https://nodejs.org or with your system's packages; npm comes with it.";
    let Some(version) = output(Command::new("node").arg("--version")) else {
        return Err(format!("node is missing. {get}"));
    };
    match major(&version) {
        Some(found) if found >= NODE_MAJOR_MIN => {}
        _ => return Err(format!("node is {version}, but {NODE_MAJOR_MIN} or newer is needed. {get}")),
    }
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    match output(Command::new(npm).arg("--version")) {
        Some(_) => Ok(()),
        None => Err(format!("npm is missing, though node {version} is there. {get}")),
    }
}

/// 20 of `v20.20.2`.
fn major(version: &str) -> Option<u32> {
    version.trim_start_matches('v').split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_of_node() {
        assert_eq!(major("v20.20.2"), Some(20));
        assert_eq!(major("v9"), Some(9));
        assert_eq!(major("system"), None);
    }
}
