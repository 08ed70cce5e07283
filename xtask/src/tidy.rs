//! `cargo xtask tidy`: rules of this workspace that no compiler checks. Each check is a pure function from what a file
//! says to findings; only [`run`] reads files.

mod source;
mod versions;

use crate::command::output;
use crate::{Result, workspace::Workspace};
use std::fs;
use std::process::Command;

/// The largest file to be kept in the repository, in bytes.
const FILE_BYTES_MAX: u64 = 1_000_000;

/// Where nothing may panic: a panic takes down every request in flight in the same isolate, or traps the instance.
const NO_PANICS: [&str; 4] = ["core/src/", "core/component/src/", "core/service/src/", "worker/src/"];

/// What stands in for the world in tests, and is in no home.
const FOR_TESTS: &str = "core/src/testing.rs";

/// The manifests of what performs no I/O.
const SANS_IO: [&str; 2] = ["core/Cargo.toml", "core/service/Cargo.toml"];

/// Crates that do I/O, read a clock or draw randomness: the core and the service may depend on none.
const NOT_IN_THE_CORE: [&str; 20] = [
    "async-std",
    "fastrand",
    "futures-timer",
    "getrandom",
    "gloo-net",
    "hyper",
    "js-sys",
    "mio",
    "rand",
    "reqwest",
    "smol",
    "socket2",
    "tokio",
    "ureq",
    "wasi",
    "wasm-bindgen",
    "web-sys",
    "wit-bindgen",
    "worker",
    "wstd",
];

/// Something to change, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    line: Option<usize>,
    message: String,
}

impl Finding {
    fn at(line: usize, message: impl Into<String>) -> Self {
        Self { line: Some(line), message: message.into() }
    }

    fn file(message: impl Into<String>) -> Self {
        Self { line: None, message: message.into() }
    }
}

/// Checks all files of the repository, those not yet committed as well.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut git = Command::new("git");
    git.current_dir(workspace.root()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listing = output(&mut git).ok_or("`git ls-files` failed: `cargo xtask tidy` needs git and a clone.")?;
    let mut findings: Vec<(String, Finding)> = Vec::new();
    let mut files = 0_usize;
    for path in listing.split('\0').filter(|path| !path.is_empty()) {
        let full = workspace.root().join(path);
        // A file that was removed but not yet committed.
        let Ok(metadata) = fs::metadata(&full) else { continue };
        files += 1;
        let mut add = |found: Vec<Finding>| findings.extend(found.into_iter().map(|found| (path.to_owned(), found)));
        add(too_large(metadata.len()));
        // What is not text has no lines to check.
        let Ok(text) = fs::read_to_string(&full) else { continue };
        add(check_text(path, &text));
    }
    let read = |path: &str| fs::read_to_string(workspace.root().join(path)).unwrap_or_default();
    let (cargo_lock, package, wrangler) = (read("Cargo.lock"), read("package.json"), read("wrangler.toml"));
    findings.extend(versions::cargo_lock(&cargo_lock).into_iter().map(|found| ("Cargo.lock".to_owned(), found)));
    findings.extend(versions::package(&package).into_iter().map(|found| ("package.json".to_owned(), found)));
    findings
        .extend(versions::wrangler(&wrangler, &package).into_iter().map(|found| ("wrangler.toml".to_owned(), found)));

    for (path, Finding { line, message }) in &findings {
        match line {
            Some(line) => println!("{path}:{line}: {message}"),
            None => println!("{path}: {message}"),
        }
    }
    match findings.len() {
        0 => {
            println!("Tidy: {files} files.");
            Ok(())
        }
        1 => Err("tidy found 1 thing to change.".to_owned()),
        several => Err(format!("tidy found {several} things to change.")),
    }
}

fn check_text(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if path.ends_with(".rs") {
        findings.extend(source::missing_docs(text));
        let for_tests = path == FOR_TESTS || path.ends_with("/tests.rs") || path.contains("/tests/");
        if NO_PANICS.iter().any(|folder| path.starts_with(folder)) && !for_tests {
            findings.extend(source::panics(text));
        }
    }
    if path.ends_with("package-lock.json") {
        findings.extend(versions::download_addresses(text));
    }
    if SANS_IO.contains(&path) {
        findings.extend(io_dependencies(text));
    }
    if !path.ends_with(".lock") && !path.ends_with("package-lock.json") {
        findings.extend(source::paths_of_one_machine(text));
    }
    findings
}

fn too_large(bytes: u64) -> Vec<Finding> {
    if bytes <= FILE_BYTES_MAX {
        return Vec::new();
    }
    vec![Finding::file(format!("{bytes} bytes: files over {FILE_BYTES_MAX} bytes do not belong into the repository."))]
}

/// Dependencies in a manifest of [`SANS_IO`] that do I/O. Its tests may use any.
fn io_dependencies(manifest: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut section = "";
    for (line, text) in (1..).zip(manifest.lines()) {
        let text = text.trim();
        if let Some(name) = text.strip_prefix('[') {
            section = name.trim_end_matches(']');
            // `[dependencies.tokio]`, `[target.'cfg(…)'.dependencies.tokio]`
            if let Some((_, name)) = section.split_once("dependencies.").filter(|_| !section.contains("dev-")) {
                findings.extend(io_dependency(line, name));
            }
        } else if section.ends_with("dependencies") && !section.ends_with("dev-dependencies") {
            let name = text.split(['=', '.', ' ']).next().unwrap_or_default();
            findings.extend(io_dependency(line, name));
        }
    }
    findings
}

fn io_dependency(line: usize, name: &str) -> Option<Finding> {
    let message =
        format!("the core performs no I/O: `{name}` belongs to one of its homes, behind a trait of the core.");
    NOT_IN_THE_CORE.contains(&name).then(|| Finding::at(line, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().filter_map(|found| found.line).collect()
    }

    #[test]
    fn the_core_depends_on_nothing_that_does_io() {
        let manifest = "[package]\nname = \"tokio\"\n[dependencies]\nbytes.workspace = true\ntokio = \"1\"\n\
                        worker.workspace = true\n[dev-dependencies]\nrand = \"1\"\n[dependencies.wstd]\nversion = \"0\"\n\
                        [target.'cfg(unix)'.dependencies]\nhyper={ version = \"1\" }\n[dev-dependencies.ureq]\n";
        assert_eq!(lines(&io_dependencies(manifest)), [5, 6, 9, 12]);
    }

    #[test]
    fn each_file_gets_the_checks_for_its_place() {
        let panics = "//! Docs.\nfn f() { None::<u8>.unwrap(); }\n";
        assert_eq!(lines(&check_text("core/src/a.rs", panics)), [2]);
        assert_eq!(lines(&check_text("core/service/src/a.rs", panics)), [2]);
        assert_eq!(check_text("core/src/a/tests.rs", panics), []);
        assert_eq!(check_text("tests/src/a.rs", panics), []);
        assert_eq!(lines(&check_text("tests/src/a.rs", "fn f() {}\n")), [1]);
        let manifest = "[dependencies]\ntokio = \"1\"\n";
        assert_eq!(lines(&check_text("core/service/Cargo.toml", manifest)), [2]);
        assert_eq!(check_text("worker/Cargo.toml", manifest), []);
    }

    #[test]
    fn large_files_are_refused() {
        assert_eq!(too_large(FILE_BYTES_MAX), []);
        assert_eq!(too_large(FILE_BYTES_MAX + 1).len(), 1);
    }
}
