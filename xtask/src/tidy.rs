//! `cargo xtask tidy`: rules of this workspace that no compiler checks. Each check is a pure function from what a file
//! says to findings; only [`run`] reads files.

mod code;
mod finding;
mod imports;
mod known;
mod manifests;
mod paths;
mod ratchet;
mod sizes;
mod source;
mod versions;

use crate::command::output;
use crate::{Result, workspace::Workspace};
use code::RustFile;
use finding::Finding;
use ratchet::Breach;
use std::fs;
use std::process::Command;

/// The largest file to be kept in the repository, in bytes.
const FILE_BYTES_MAX: u64 = 1_000_000;

/// Where nothing may panic: a panic takes down every request in flight in the same isolate, or traps the instance.
const NO_PANICS: [&str; 4] = ["core/src/", "core/service/src/", "core/component/src/", "worker/src/"];

/// What stands in for the world in tests, and is in no home.
const FOR_TESTS: &str = "core/src/testing/";

/// A finding, and the file it is about.
type Found = (String, Finding);

/// Checks all files of the repository, those not yet committed as well.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut git = Command::new("git");
    git.current_dir(workspace.root()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listing = output(&mut git).ok_or("`git ls-files` failed: `cargo xtask tidy` needs git and a clone.")?;
    let mut findings: Vec<Found> = Vec::new();
    let mut rust = Vec::new();
    let mut files = 0_usize;
    for path in listing.split('\0').filter(|path| !path.is_empty()) {
        let full = workspace.root().join(path);
        // A file that was removed but not yet committed.
        let Ok(metadata) = fs::metadata(&full) else { continue };
        files += 1;
        findings.extend(about(path, too_large(metadata.len())));
        // What is not text has no lines to check.
        let Ok(text) = fs::read_to_string(&full) else { continue };
        findings.extend(about(path, check_text(path, &text)));
        if path.ends_with(".rs") {
            rust.push(RustFile::new(path, text));
        }
    }
    for file in &rust {
        findings.extend(about(&file.path, check_rust(file)));
    }
    findings.extend(check_sizes(&rust));
    findings.extend(ratchet::check_circles(known::CIRCLES, &imports::circles(&rust)));
    let read = |path: &str| fs::read_to_string(workspace.root().join(path)).unwrap_or_default();
    let (cargo_lock, package, wrangler) = (read("Cargo.lock"), read("package.json"), read("wrangler.toml"));
    findings.extend(about("Cargo.lock", versions::cargo_lock(&cargo_lock)));
    findings.extend(about("package.json", versions::package(&package)));
    findings.extend(about("wrangler.toml", versions::wrangler(&wrangler, &package)));
    report(&findings, files)
}

fn about(path: &str, findings: Vec<Finding>) -> impl Iterator<Item = Found> {
    findings.into_iter().map(move |finding| (path.to_owned(), finding))
}

fn report(findings: &[Found], files: usize) -> Result<()> {
    for (path, Finding { line, message }) in findings {
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
    if path.ends_with("package-lock.json") {
        findings.extend(versions::download_addresses(text));
    }
    if path.ends_with("Cargo.toml") {
        findings.extend(manifests::check(text));
    }
    if !path.ends_with(".lock") && !path.ends_with("package-lock.json") {
        findings.extend(source::paths_of_one_machine(text));
    }
    findings
}

fn check_rust(file: &RustFile) -> Vec<Finding> {
    let mut findings: Vec<Finding> = source::missing_docs(&file.text).into_iter().collect();
    let may_panic = file.is_test() || file.path.starts_with(FOR_TESTS);
    if NO_PANICS.iter().any(|folder| file.path.starts_with(folder)) && !may_panic {
        findings.extend(source::panics(&file.code));
    }
    findings
}

fn check_sizes(files: &[RustFile]) -> Vec<Found> {
    let lines: Vec<Breach> = files.iter().filter_map(sizes::long_lines).collect();
    let functions: Vec<Breach> = files.iter().flat_map(sizes::long_functions).collect();
    let long: Vec<Breach> = files.iter().filter_map(sizes::long_file).collect();
    let lists = [(known::LONG_LINES, lines), (known::LONG_FUNCTIONS, functions), (known::LONG_FILES, long)];
    lists.iter().flat_map(|(list, breaches)| list.check(breaches)).collect()
}

fn too_large(bytes: u64) -> Vec<Finding> {
    if bytes <= FILE_BYTES_MAX {
        return Vec::new();
    }
    vec![Finding::file(format!("{bytes} bytes: files over {FILE_BYTES_MAX} bytes do not belong into the repository."))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().filter_map(|found| found.line).collect()
    }

    #[test]
    fn each_file_gets_the_checks_for_its_place() {
        let check = |path, text: &str| check_rust(&RustFile::new(path, text.to_owned()));
        let panics = "//! Docs.\nfn f() { None::<u8>.unwrap(); }\n";
        assert_eq!(lines(&check("core/src/a.rs", panics)), [2]);
        assert_eq!(check("core/src/a/tests.rs", panics), []);
        assert_eq!(check("tests/src/a.rs", panics), []);
        assert_eq!(lines(&check("tests/src/a.rs", "fn f() {}\n")), [1]);
    }

    #[test]
    fn large_files_are_refused() {
        assert_eq!(too_large(FILE_BYTES_MAX), []);
        assert_eq!(too_large(FILE_BYTES_MAX + 1).len(), 1);
    }
}
