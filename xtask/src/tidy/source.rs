//! Checks of what stands in one source file.

use super::Finding;
use std::iter;

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

/// Calls that may panic, outside of comments, strings and the test module at the end.
pub(super) fn panics(text: &str) -> Vec<Finding> {
    let code = without_comments_and_strings(text);
    let lines: Vec<&str> = code.lines().collect();
    let mut findings = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        // Where the tests begin: `#[cfg(test)]` and, after other attributes perhaps, `mod … {`.
        if line.trim() == "#[cfg(test)]" {
            let item = lines.iter().skip(index + 1).map(|line| line.trim()).find(|line| !line.starts_with("#["));
            // Shared with the tests of other files, perhaps.
            let item = item.map(|item| item.strip_prefix("pub(crate) ").unwrap_or(item));
            if item.is_some_and(|item| item.starts_with("mod ") && item.ends_with('{')) {
                break;
            }
        }
        for call in PANICS.iter().filter(|call| line.contains(**call)) {
            let message = format!("`{call}` may panic, and a panic fails every request in flight: return an error.");
            findings.push(Finding::at(index + 1, message));
        }
    }
    findings
}

/// Absolute paths that exist only on the machine of whoever wrote them.
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

/// The source with the same lines, but every comment and every string's content replaced by spaces.
fn without_comments_and_strings(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let blank = blank_bytes(rest, code.chars().next_back());
        let (taken, next) = rest.split_at(blank.unwrap_or(c.len_utf8()));
        if blank.is_some() {
            code.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            code.push(c);
        }
        rest = next;
    }
    code
}

/// How many bytes at the beginning of `rest` are a comment, a string or a character literal; `None` when it is code.
fn blank_bytes(rest: &str, before: Option<char>) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment_bytes(rest));
    }
    if rest.starts_with('"') {
        return Some(string_bytes(rest));
    }
    if rest.starts_with('r') && !before.is_some_and(|c| c.is_alphanumeric() && c != 'b' || c == '_') {
        let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
        if rest[1 + hashes..].starts_with('"') {
            let end: String = iter::once('"').chain(iter::repeat_n('#', hashes)).collect();
            let start = 2 + hashes;
            return Some(rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len()));
        }
    }
    // A character literal; not a lifetime.
    let mut chars = rest.strip_prefix('\'')?.chars();
    match chars.next()? {
        '\\' => rest[3..].find('\'').map(|at| 3 + at + 1),
        c if chars.next() == Some('\'') => Some(c.len_utf8() + 2),
        _ => None,
    }
}

fn string_bytes(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Block comments nest.
fn block_comment_bytes(rest: &str) -> usize {
    let mut depth = 0_u32;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().filter_map(|found| found.line).collect()
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
        assert_eq!(lines(&panics(source)), [2, 5, 6, 8]);
    }

    #[test]
    fn tests_at_the_end_may_panic() {
        let source = "fn f() {}\n#[cfg(test)]\nmod tests {\n    x.unwrap();\n}\n";
        assert_eq!(panics(source), []);
        let attributes = "#[cfg(test)]\n#[allow(missing_docs)]\nmod tests {\n    x.unwrap();\n}\n";
        assert_eq!(panics(attributes), []);
        assert_eq!(panics("#[cfg(test)]\npub(crate) mod tests {\n    x.unwrap();\n}\n"), []);
        // The tests are in a file of their own: what follows is not a test.
        assert_eq!(lines(&panics("#[cfg(test)]\nmod tests;\nx.unwrap();\n")), [3]);
        assert_eq!(lines(&panics("#[cfg(test)]\nuse a::b;\nx.unwrap();\n")), [3]);
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
