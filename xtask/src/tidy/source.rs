//! Checks of what stands in one source file.

use super::finding::Finding;

/// Calls and macros that may panic.
const PANICS: [&str; 6] = [".unwrap(", ".expect(", "panic!", "todo!", "unimplemented!", "unreachable!"];

/// Folders of one machine. Put together here, so that this file does not name them.
const MACHINE_FOLDERS: [&str; 4] =
    [concat!("/", "root/"), concat!("/", "home/"), concat!("/", "work/"), concat!("/", "tmp/")];

/// Whether the file begins with `//!`.
pub(super) fn missing_docs(text: &str) -> Option<Finding> {
    let message = "a source file begins with `//!`: what it does, what it deliberately does not, its invariants.";
    (!text.starts_with("//!")).then(|| Finding::at(1, message))
}

/// Calls that may panic, in code that ships.
pub(super) fn panics(code: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, text) in (1..).zip(code.lines()) {
        for call in PANICS.iter().filter(|call| text.contains(**call)) {
            let message = format!("`{call}` may panic, and a panic fails every request in flight: return an error.");
            findings.push(Finding::at(line, message));
        }
    }
    findings
}

/// Absolute paths that exist only on the machine of the author.
pub(super) fn paths_of_one_machine(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        for folder in MACHINE_FOLDERS {
            let absolute = content.match_indices(folder).any(|(at, _)| {
                // Part of a longer path or of an address otherwise, or not followed by a name.
                let before = content[..at].chars().next_back();
                let after = content[at + folder.len()..].chars().next();
                !before.is_some_and(|c| c.is_alphanumeric() || "_.-}/:~".contains(c))
                    && after.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.')
            });
            if absolute {
                findings.push(Finding::at(line, format!("`{folder}…` is a path of one machine.")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::code::RustFile;
    use super::*;

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().filter_map(|found| found.line).collect()
    }

    fn panics_of(text: &str) -> Vec<Finding> {
        panics(&RustFile::new("core/src/a.rs", text.to_owned()).code)
    }

    #[test]
    fn panics_are_found_in_code_only() {
        let source = "//! Docs with .unwrap() in them.\n\
                      let a = parse(\"https://a.b\").unwrap();\n\
                      let b = x.unwrap_or(1); // not .expect(\"it\")\n\
                      let c = \"panic! \\\" todo!\"; let d = r#\"a \" unreachable!\"#;\n\
                      let e = ['\"', '\\'', 'é'].len(); f.expect(\"why\");\n\
                      /* todo! /* nested */ panic! */ g.unwrap();\n\
                      let h: &'static str = \"multi\n\
                      line .unwrap() text\"; unimplemented!()\n";
        assert_eq!(lines(&panics_of(source)), [2, 5, 6, 8]);
    }

    #[test]
    fn tests_at_the_end_may_panic() {
        let source = "fn f() {}\n#[cfg(test)]\nmod tests {\n    x.unwrap();\n}\n";
        assert_eq!(panics_of(source), []);
        let attributes = "#[cfg(test)]\n#[allow(missing_docs)]\nmod tests {\n    x.unwrap();\n}\n";
        assert_eq!(panics_of(attributes), []);
        assert_eq!(panics_of("#[cfg(test)]\npub(crate) mod tests {\n    x.unwrap();\n}\n"), []);
        // The tests are in a file of their own: what follows is not a test.
        assert_eq!(lines(&panics_of("#[cfg(test)]\nmod tests;\nx.unwrap();\n")), [3]);
        assert_eq!(lines(&panics_of("#[cfg(test)]\nuse a::b;\nx.unwrap();\n")), [3]);
    }

    #[test]
    fn docs_come_first() {
        assert_eq!(missing_docs("//! What it does.\n"), None);
        assert!(missing_docs("use std::fmt;\n").is_some());
        assert!(missing_docs("").is_some());
    }

    #[test]
    fn paths_of_one_machine_are_found_and_addresses_are_not() {
        let root = MACHINE_FOLDERS[0];
        let text = format!(
            "see {root}notes\nhttps://example.com{root}x\n\"{root}.cargo\"\n$HOME{root}x\n./a{root}b\n{root} alone\n\
             /workerd/kv.js\n"
        );
        assert_eq!(lines(&paths_of_one_machine(&text)), [1, 3]);
    }
}
