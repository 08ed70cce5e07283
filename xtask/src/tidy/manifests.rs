//! What the Cargo.toml of a package may depend on: the core on nothing that does I/O, and each package on those of ours
//! that stand before it.

use super::finding::Finding;

/// Packages that perform no I/O.
const PURE: [&str; 2] = ["b2sync-core", "b2sync-service"];

/// Crates that do I/O, read a clock or draw randomness.
const DOES_IO: [&str; 20] = [
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

/// Packages of this workspace, and which others of it they may depend on, for their own tests as well. What is not here
/// is tests, and may depend on any.
const ARROWS: [(&str, &[&str]); 6] = [
    ("b2sync-core", &[]),
    ("b2sync-service", &["b2sync-core"]),
    ("b2sync-component", &["b2sync-core"]),
    ("b2sync-worker", &["b2sync-core", "b2sync-service"]),
    ("b2sync-fake-b2", &["b2sync-core"]),
    ("xtask", &[]),
];

/// A dependency of a manifest, and where it is written.
struct Dependency<'a> {
    line: usize,
    name: &'a str,
    for_tests: bool,
}

/// What a manifest depends on and may not.
pub(super) fn check(manifest: &str) -> Vec<Finding> {
    let package = package_name(manifest);
    let found = |dependency| io_dependency(package, &dependency).or_else(|| wrong_arrow(package, &dependency));
    dependencies(manifest).into_iter().filter_map(found).collect()
}

/// Tests may use any crate.
fn io_dependency(package: &str, Dependency { line, name, for_tests }: &Dependency<'_>) -> Option<Finding> {
    let message = format!(
        "{package} performs no I/O: `{name}` belongs to one of the homes (core/component, worker), behind a trait of \
         the core."
    );
    (PURE.contains(&package) && DOES_IO.contains(name) && !for_tests).then(|| Finding::at(*line, message))
}

fn wrong_arrow(package: &str, Dependency { line, name, .. }: &Dependency<'_>) -> Option<Finding> {
    let (_, allowed) = ARROWS.iter().find(|(from, _)| *from == package)?;
    let which = if allowed.is_empty() { "none".to_owned() } else { format!("only {}", allowed.join(" and ")) };
    let message = format!(
        "{package} must not depend on {name}: of this workspace it may use {which}. Move what it needs there, or the \
         code that needs it to where {name} may be used."
    );
    (name.starts_with("b2sync-") && !allowed.contains(name)).then(|| Finding::at(*line, message))
}

fn package_name(manifest: &str) -> &str {
    let names = manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    names.unwrap_or_default()
}

/// All dependencies, those of single targets as well.
fn dependencies(manifest: &str) -> Vec<Dependency<'_>> {
    let mut dependencies = Vec::new();
    let mut section = "";
    for (line, text) in (1..).zip(manifest.lines()) {
        let text = text.trim();
        let name = if let Some(header) = text.strip_prefix('[') {
            section = header.trim_end_matches(']');
            // `[dependencies.tokio]`, `[target.'cfg(…)'.dependencies.tokio]`
            section.split_once("dependencies.").map(|(_, name)| name)
        } else if section.ends_with("dependencies") && !section.starts_with("workspace") {
            text.split(['=', '.', ' ', '#']).next().filter(|name| !name.is_empty())
        } else {
            None
        };
        dependencies.extend(name.map(|name| Dependency { line, name, for_tests: section.contains("dev-") }));
    }
    dependencies
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(manifest: &str) -> Vec<usize> {
        check(manifest).iter().filter_map(|found| found.line).collect()
    }

    #[test]
    fn the_core_depends_on_nothing_that_does_io() {
        let manifest = "[package]\nname = \"b2sync-core\"\n[dependencies]\nbytes.workspace = true\ntokio = \"1\"\n\
                        worker.workspace = true\n[dev-dependencies]\nrand = \"1\"\n\
                        [dependencies.wstd]\nversion = \"0\"\n\
                        [target.'cfg(unix)'.dependencies]\nhyper={ version = \"1\" }\n[dev-dependencies.ureq]\n";
        assert_eq!(lines(manifest), [5, 6, 9, 12]);
        assert_eq!(lines(&manifest.replace("b2sync-core", "b2sync-service")), [5, 6, 9, 12]);
        assert_eq!(lines(&manifest.replace("b2sync-core", "b2sync-worker")), []);
    }

    #[test]
    fn packages_depend_only_on_those_before_them() {
        let manifest = |name: &str| {
            format!(
                "[package]\nname = \"{name}\"\n\n[dependencies]\nb2sync-core.workspace = true\n\
                 b2sync-service = {{ path = \"../service\" }}\nbytes = \"1\"\n[dev-dependencies]\n\
                 # Theirs.\nb2sync-tests.workspace = true\n"
            )
        };
        let of = |name| lines(&manifest(name));
        assert_eq!(of("b2sync-core"), [5, 6, 10]);
        assert_eq!(of("b2sync-service"), [6, 10]);
        assert_eq!(of("b2sync-component"), [6, 10]);
        assert_eq!(of("b2sync-worker"), [10]);
        assert_eq!(of("b2sync-fake-b2"), [6, 10]);
        assert_eq!(of("b2sync-tests"), []);
    }

    #[test]
    fn the_message_names_what_may_be_used() {
        let manifest = "[package]\nname = \"b2sync-component\"\n[dependencies]\nb2sync-service.workspace = true\n";
        let message = &check(manifest)[0].message;
        assert!(message.contains("it may use only b2sync-core"), "{message}");
    }
}
