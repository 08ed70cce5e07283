//! `cargo xtask test`: everything that must hold, step by step. A step that fails does not keep later ones from
//! running; the summary at the end names each, and the exit status is that of the worst.

use crate::command::{cargo, run, run_seeing, without_native_flags};
use crate::versions::{COMPONENT_TARGET, WORKER_TARGET};
use crate::{Result, build, run as tasks, setup, tidy, workspace::Workspace};
use std::process::Command;
use std::time::{Duration, Instant};

/// The packages that are compiled for the machine they are tested on.
const NATIVE: [&str; 5] = ["b2sync-core", "b2sync-service", "b2sync-fake-b2", "b2sync-tests", "xtask"];
const WASI_TESTS: &str = "b2sync-wasi-tests";
/// The bench, without the peers that take long to build: nothing of b2sync is in those, so no change can break them.
const BENCH: [&str; 2] = ["b2sync-bench", "b2sync-poll-path"];

struct Step {
    name: &'static str,
    run: fn(&Workspace, &mut Counts) -> Result<()>,
}

const STEPS: [Step; 15] = [
    Step { name: "setup", run: |workspace, _| setup::all(workspace) },
    Step { name: "format", run: |workspace, _| run(cargo(workspace).args(["fmt", "--all", "--check"])) },
    Step { name: "tidy", run: |workspace, _| tidy::run(workspace) },
    Step {
        name: "lints: native",
        run: |workspace, _| clippy(workspace, &[&NATIVE[..], &[WASI_TESTS], &BENCH].concat(), None),
    },
    Step {
        name: "lints: worker",
        run: |workspace, _| clippy(workspace, &["b2sync-worker", "b2sync-worker-conformance"], Some(WORKER_TARGET)),
    },
    Step {
        name: "lints: component",
        run: |workspace, _| clippy(workspace, &["b2sync-component"], Some(COMPONENT_TARGET)),
    },
    Step { name: "build: worker", run: |workspace, _| build::run(workspace, &build::Options::WORKER) },
    Step {
        name: "build: worker with the suites",
        run: |workspace, _| build::run(workspace, &build::Options::CONFORMANCE),
    },
    Step { name: "build: component", run: |workspace, _| build::run(workspace, &build::Options::COMPONENT) },
    Step { name: "deploy: dry run", run: |workspace, _| deploy_dry_run(workspace) },
    Step {
        name: "tests: native",
        run: |workspace, counts| {
            cargo_test(workspace, counts, &[&NATIVE[..], &BENCH].concat(), &["--lib", "--bins", "--tests"])
        },
    },
    Step {
        name: "tests: documentation",
        run: |workspace, counts| {
            cargo_test(
                workspace,
                counts,
                &["b2sync-core", "b2sync-service", "b2sync-fake-b2", "b2sync-tests"],
                &["--doc"],
            )
        },
    },
    Step { name: "simulation", run: |workspace, _| tasks::sim(workspace, &["--seeds".to_owned(), "2000".to_owned()]) },
    Step { name: "tests: worker on Node", run: worker_tests },
    Step { name: "tests: component", run: |workspace, counts| cargo_test(workspace, counts, &[WASI_TESTS], &[]) },
];

/// Runs all steps.
pub(crate) fn run_steps(workspace: &Workspace) -> Result<()> {
    let mut rows = Vec::new();
    for Step { name, run } in STEPS {
        println!("\n=== {name} ===");
        let started = Instant::now();
        let mut counts = Counts::default();
        let outcome = run(workspace, &mut counts);
        if let Err(error) = &outcome {
            println!("error: {error}");
        }
        let row = Row { name, took: started.elapsed(), counts, failed: outcome.is_err() };
        println!("=== {} ===", row.shown());
        rows.push(row);
    }
    println!("\nSummary of `cargo xtask test`:");
    for row in &rows {
        println!("  {}", row.shown());
    }
    let failed: Vec<&str> = rows.iter().filter(|row| row.failed).map(|row| row.name).collect();
    if failed.is_empty() {
        println!("Everything passed.");
        return Ok(());
    }
    Err(format!("{} of {} steps failed: {}.", failed.len(), rows.len(), failed.join(", ")))
}

struct Row {
    name: &'static str,
    took: Duration,
    counts: Counts,
    failed: bool,
}

impl Row {
    fn shown(&self) -> String {
        let outcome = if self.failed { "FAILED" } else { "ok" };
        let line = format!("{outcome:<7}{:>7.1} s  {}", self.took.as_secs_f64(), self.name);
        match self.counts {
            Counts { passed: 0, failed: 0 } => line,
            Counts { passed, failed } => format!("{line}: {passed} passed, {failed} failed"),
        }
    }
}

/// The sums of what `cargo test` says of each of its binaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u32,
    failed: u32,
}

impl Counts {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
    fn see(&mut self, line: &str) {
        let Some((_, result)) = line.split_once("test result: ") else { return };
        let number_before = |word: &str| -> u32 {
            let words: Vec<&str> = result.split_whitespace().collect();
            words.windows(2).find(|pair| pair[1] == word).and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
        };
        self.passed += number_before("passed;");
        self.failed += number_before("failed;");
    }
}

fn clippy(workspace: &Workspace, packages: &[&str], target: Option<&str>) -> Result<()> {
    let mut command = cargo(workspace);
    command.args(["clippy", "--quiet", "--all-targets"]);
    for package in packages {
        command.args(["--package", package]);
    }
    if let Some(target) = target {
        without_native_flags(command.args(["--target", target]));
    }
    run(command.args(["--", "--deny", "warnings"]))
}

fn cargo_test(workspace: &Workspace, counts: &mut Counts, packages: &[&str], options: &[&str]) -> Result<()> {
    let mut command = cargo(workspace);
    command.args(["test", "--no-fail-fast"]).args(options);
    for package in packages {
        command.args(["--package", package]);
    }
    run_seeing(&mut command, |line| counts.see(line))
}

fn worker_tests(workspace: &Workspace, counts: &mut Counts) -> Result<()> {
    let mut command = cargo(workspace);
    command
        .args(["test", "--package", "b2sync-worker", "--target", WORKER_TARGET])
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", workspace.tool("wasm-bindgen-test-runner"));
    run_seeing(without_native_flags(&mut command), |line| counts.see(line))
}

/// Everything that a deployment does on this machine; nothing leaves it.
fn deploy_dry_run(workspace: &Workspace) -> Result<()> {
    let node = workspace.newer_node().unwrap_or_else(|| "node".into());
    let mut command = Command::new(node);
    command
        .arg(workspace.node_module("wrangler/bin/wrangler.js"))
        .args(["deploy", "--dry-run", "--outdir"])
        .arg(workspace.target().join("deploy"))
        .current_dir(workspace.root())
        // For the build that wrangler starts.
        .env("CARGO_TARGET_DIR", workspace.target())
        .env("WRANGLER_SEND_METRICS", "false")
        .env("WRANGLER_SEND_ERROR_REPORTS", "false")
        .env("WRANGLER_HIDE_BANNER", "true")
        .env("CLOUDFLARE_CF_FETCH_ENABLED", "false")
        .env("CI", "1");
    run(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_binaries_add_up() {
        let mut counts = Counts::default();
        counts.see("running 3 tests");
        counts.see("test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        counts.see("test result: FAILED. 8 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!(counts, Counts { passed: 11, failed: 1 });
    }
}
