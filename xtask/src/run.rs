//! Tasks that build something and then hand over to it, with the options as they came.

use crate::command::{cargo, run};
use crate::{Result, build, workspace::Workspace};

/// The Worker on this machine, syncing a bucket.
pub(crate) fn demo(workspace: &Workspace, args: &[String]) -> Result<()> {
    build::run(workspace, &build::Options::WORKER)?;
    println!("Building the demo (about a minute the first time)…");
    binary(workspace, "demo", args)
}

/// The fuzz targets.
pub(crate) fn fuzz(workspace: &Workspace, args: &[String]) -> Result<()> {
    binary(workspace, "fuzz", args)
}

/// Worlds of the simulation, with the options as they came.
pub(crate) fn sim(workspace: &Workspace, args: &[String]) -> Result<()> {
    println!("Building the simulation (a minute or two the first time)…");
    run(cargo(workspace)
        .args(["run", "--quiet", "--profile", "sim", "--package", "b2sync-tests", "--bin", "sim", "--"])
        .args(args))
}

fn binary(workspace: &Workspace, name: &str, args: &[String]) -> Result<()> {
    run(cargo(workspace).args(["run", "--quiet", "--package", "b2sync-tests", "--bin", name, "--"]).args(args))
}
