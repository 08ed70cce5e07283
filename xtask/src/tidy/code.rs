//! What a Rust file says, without parsing Rust: its code apart from its comments, strings and tests, and the words of
//! that code. Lines keep their numbers throughout.

use std::iter;
use std::ops::Range;

/// A Rust file of the repository.
pub(super) struct RustFile {
    pub(super) path: String,
    pub(super) text: String,
    /// The text with spaces for its comments, for what its strings say, and for its tests.
    pub(super) code: String,
    /// How many lines it has besides its tests.
    pub(super) lines: usize,
}

impl RustFile {
    pub(super) fn new(path: &str, text: String) -> Self {
        let mut code = without_comments_and_strings(&text);
        let mut lines = text.lines().count();
        for test in tests_in(&code).into_iter().rev() {
            lines -= 1 + code[test.clone()].matches('\n').count();
            code.replace_range(test.clone(), &blanked(&code[test]));
        }
        Self { path: path.to_owned(), text, code, lines }
    }

    /// Whether the whole file is tests.
    pub(super) fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }
}

/// A name, a number, `::`, or any other single character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    pub(super) line: usize,
}

impl Token<'_> {
    pub(super) fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// The tokens of a file's code.
pub(super) fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (line, mut rest) in (1..).zip(code.lines()) {
        while let Some(c) = rest.chars().next() {
            let bytes = match c {
                ':' if rest.starts_with("::") => 2,
                c if is_of_name(c) => rest.find(|c| !is_of_name(c)).unwrap_or(rest.len()),
                c => c.len_utf8(),
            };
            let (text, next) = rest.split_at(bytes);
            if !c.is_whitespace() {
                tokens.push(Token { text, line });
            }
            rest = next;
        }
    }
    tokens
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where the items are that only tests have, attribute included.
fn tests_in(code: &str) -> Vec<Range<usize>> {
    const ATTRIBUTE: &str = "#[cfg(test)]";
    let mut tests = Vec::new();
    let mut from = 0;
    while let Some(found) = code[from..].find(ATTRIBUTE) {
        let start = from + found;
        from = item_end(code, start + ATTRIBUTE.len());
        tests.push(start..from);
    }
    tests
}

/// Where the item ends that begins at `start`: behind its `;`, behind its block, or before what it is the last item of.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0_u32;
    for (at, c) in code.bytes().enumerate().skip(start) {
        match c {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' if depth == 0 => return at,
            b'}' if depth == 1 => return at + 1,
            b')' | b']' | b'}' => depth -= 1,
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// As many lines, and nothing in them.
fn blanked(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect()
}

/// The source with the same lines, but every comment and every string's content replaced by spaces.
fn without_comments_and_strings(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let blank = blank_bytes(rest, code.chars().next_back());
        let (taken, next) = rest.split_at(blank.unwrap_or(c.len_utf8()));
        if blank.is_some() {
            code.push_str(&blanked(taken));
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

    fn words(text: &str) -> Vec<String> {
        let code = RustFile::new("a.rs", text.to_owned()).code;
        tokens(&code).iter().map(|token| format!("{}{}", token.line, token.text)).collect()
    }

    #[test]
    fn tokens_are_names_and_signs_of_the_code() {
        assert_eq!(
            words("a::b_1 // c\n/* d\n */ \"e\" + 'f' <'g>"),
            ["1a", "1::", "1b_1", "3+", "3<", "3'", "3g", "3>"]
        );
    }

    #[test]
    fn what_only_tests_have_is_left_out() {
        let text = "a;\n#[cfg(test)]\nuse b::{c, d};\n#[cfg(test)]\n#[allow(e)]\nmod tests {\n    f(\"}\");\n}\n\
                    mod g {\n    #[cfg(test)]\n    fn h() -> [u8; 2] {\n    }\n}\n\
                    struct I { j: u8, #[cfg(test)] k: u8 }\n";
        let expected =
            ["1a", "1;", "3;", "9mod", "9g", "9{", "13}", "14struct", "14I", "14{", "14j", "14:", "14u8", "14,", "14}"];
        assert_eq!(words(text), expected);
    }

    #[test]
    fn a_file_has_fewer_lines_without_its_tests() {
        let lines = |text: &str| RustFile::new("a.rs", text.to_owned()).lines;
        assert_eq!(lines("a;\nb;\n"), 2);
        assert_eq!(lines("a;\n#[cfg(test)]\nmod tests {\n    b();\n}\n"), 1);
        assert_eq!(lines("#[cfg(test)]\nmod b;\na;"), 1);
    }

    #[test]
    fn tests_are_known_by_their_path() {
        let is_test = |path: &str| RustFile::new(path, String::new()).is_test();
        assert!(
            is_test("core/src/engine/tests.rs") && is_test("core/src/a/tests/world.rs") && is_test("tests/tests/a.rs")
        );
        assert!(!is_test("tests/src/twin.rs") && !is_test("core/src/a.rs"));
    }
}
