//! Checks that what is pinned in one place is what is pinned in another.

use super::finding::Finding;
use crate::versions::{WASM_BINDGEN, WORKER_BUILD};

/// Crates in Cargo.lock against the tools that `cargo xtask setup` installs.
pub(super) fn cargo_lock(lock: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (krate, tool, pinned) in
        [("wasm-bindgen", "wasm-bindgen-cli", WASM_BINDGEN), ("worker", "worker-build", WORKER_BUILD)]
    {
        let locked = locked_versions(lock, krate);
        if locked != [pinned] {
            findings.push(Finding::file(format!(
                "`{krate}` is locked at [{}], but xtask/src/versions.rs installs {tool} {pinned}: they must be the \
                 same.",
                locked.join(", ")
            )));
        }
    }
    findings
}

/// The npm tools: exact versions only.
pub(super) fn package(package: &str) -> Vec<Finding> {
    dependencies(package)
        .filter(|(_, _, version)| !version.chars().all(|c| c.is_ascii_digit() || c == '.'))
        .map(|(line, name, version)| {
            Finding::at(
                line,
                format!("`{name}` is `{version}`: pin one exact version, for builds that can be repeated."),
            )
        })
        .collect()
}

/// The compatibility date against the workerd of every system: it knows no later date than its own.
pub(super) fn wrangler(wrangler: &str, package: &str) -> Vec<Finding> {
    let dates = (1..).zip(wrangler.lines()).filter_map(|(line, text)| {
        Some((line, text.strip_prefix("compatibility_date = \"")?.strip_suffix('"')?.to_owned()))
    });
    let Some((line, date)) = { dates }.next() else {
        return vec![Finding::file("there is no line `compatibility_date = \"…\"`, which the tests read.")];
    };
    // 1.20261117.1 is of 2026-11-17; the oldest decides, since not every system has the newest.
    let oldest = dependencies(package)
        .filter(|(_, name, _)| name == "workerd" || name.starts_with("@cloudflare/workerd-"))
        .filter_map(|(_, _, version)| version.split('.').nth(1).map(str::to_owned))
        .min()
        .unwrap_or_default();
    if date.replace('-', "") > oldest {
        let message = format!("{date} is later than the oldest workerd of package.json, which is of {oldest}.");
        return vec![Finding::at(line, message)];
    }
    Vec::new()
}

/// Lines of package-lock.json that say where a package was downloaded from.
pub(super) fn download_addresses(lock: &str) -> Vec<Finding> {
    let found = (1..).zip(lock.lines()).find(|(_, text)| text.contains("\"resolved\": \"http"));
    let message = "download addresses do not belong into the lock file: remove it and run `npm install` here, where \
                   .npmrc leaves them out.";
    found.map(|(line, _)| Finding::at(line, message)).into_iter().collect()
}

/// All versions of a crate in Cargo.lock.
fn locked_versions<'a>(lock: &'a str, krate: &str) -> Vec<&'a str> {
    let name = format!("name = \"{krate}\"");
    let mut lines = lock.lines();
    let mut versions = Vec::new();
    while lines.any(|line| line == name) {
        let version = lines.next().and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
        versions.extend(version);
    }
    versions
}

/// Line, name and version of each dependency and override of package.json, as npm writes it: one a line.
fn dependencies(package: &str) -> impl Iterator<Item = (usize, String, String)> {
    let mut inside = false;
    (1..).zip(package.lines()).filter_map(move |(line, text)| {
        let text = text.trim();
        if text.ends_with('{') {
            inside = ["dependencies\"", "\"workerd\""].iter().any(|key| text.to_lowercase().contains(key));
            return None;
        }
        let (name, version) = text.trim_end_matches(',').split_once(": ").filter(|_| inside)?;
        Some((line, name.trim_matches('"').to_owned(), version.trim_matches('"').to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGE: &str = "{\n  \"engines\": {\n    \"node\": \">=20\"\n  },\n  \"devDependencies\": {\n    \
                           \"wrangler\": \"^4.1.0\",\n    \"workerd\": \"1.20261117.1\"\n  },\n  \
                           \"overrides\": {\n    \"workerd\": {\n\
                           \"@cloudflare/workerd-darwin-64\": \"1.20261023.1\"\n    }\n  }\n}\n";

    #[test]
    fn crates_and_their_tools_are_of_one_version() {
        let lock = |bindgen: &str, worker: &str| {
            format!(
                "[[package]]\nname = \"wasm-bindgen\"\nversion = \"{bindgen}\"\n\n[[package]]\nname = \"worker\"\n\
                 version = \"{worker}\"\n\n[[package]]\nname = \"worker-sys\"\nversion = \"0.0.1\"\n"
            )
        };
        assert_eq!(cargo_lock(&lock(WASM_BINDGEN, WORKER_BUILD)), []);
        assert_eq!(cargo_lock(&lock("0.2.1", WORKER_BUILD)).len(), 1);
        assert_eq!(cargo_lock(&lock(WASM_BINDGEN, "0.1.0")).len(), 1);
        let twice = lock(WASM_BINDGEN, WORKER_BUILD) + "[[package]]\nname = \"worker\"\nversion = \"0.1.0\"\n";
        assert_eq!(cargo_lock(&twice).len(), 1);
        assert_eq!(cargo_lock("").len(), 2);
    }

    #[test]
    fn npm_tools_are_pinned_exactly() {
        let findings = package(PACKAGE);
        assert_eq!(findings.iter().map(|found| found.line).collect::<Vec<_>>(), [Some(6)], "{findings:?}");
    }

    #[test]
    fn the_compatibility_date_is_one_that_every_workerd_knows() {
        assert_eq!(wrangler("compatibility_date = \"2026-10-23\"\n", PACKAGE), []);
        assert_eq!(wrangler("name = \"x\"\ncompatibility_date = \"2026-10-24\"\n", PACKAGE)[0].line, Some(2));
        assert_eq!(wrangler("", PACKAGE).len(), 1);
    }

    #[test]
    fn the_npm_lock_has_no_download_addresses() {
        assert_eq!(download_addresses("{ \"integrity\": \"sha512-…\" }\n"), []);
        assert_eq!(download_addresses("{\n\"resolved\": \"https://a.b/c.tgz\"\n}")[0].line, Some(2));
    }
}
