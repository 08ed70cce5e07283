//! How long lines, functions and files are.

use super::code::{RustFile, Token, tokens};
use super::ratchet::Breach;

/// The longest line, in characters: what rustfmt breaks where it can.
const COLUMNS_MAX: usize = 120;
/// The longest function, from its `fn` to the brace that closes it.
const FUNCTION_LINES_MAX: usize = 70;
/// The longest file, without its tests.
const FILE_LINES_MAX: usize = 800;

/// The file, if it has lines that are too long. Tests are read as well: they may have none.
pub(super) fn long_lines(file: &RustFile) -> Option<Breach> {
    let too_long = (1..).zip(file.text.lines()).filter(|(_, line)| line.chars().count() > COLUMNS_MAX);
    let lines: Vec<usize> = too_long.map(|(line, _)| line).collect();
    let first = *lines.first()?;
    let numbers: Vec<String> = lines.iter().map(usize::to_string).collect();
    let message = format!("lines of more than {COLUMNS_MAX} characters: {}. Break them.", numbers.join(", "));
    Some(Breach::new(&file.path, "", lines.len(), first, message))
}

/// The file, if it is too long.
pub(super) fn long_file(file: &RustFile) -> Option<Breach> {
    let message = format!(
        "{} lines without its tests, and {FILE_LINES_MAX} are the most: give a subject of it a file of its own.",
        file.lines
    );
    (file.lines > FILE_LINES_MAX && !file.is_test()).then(|| Breach::new(&file.path, "", file.lines, 1, message))
}

/// The functions that are too long, those of tests aside.
pub(super) fn long_functions(file: &RustFile) -> Vec<Breach> {
    if file.is_test() {
        return Vec::new();
    }
    let too_long = functions(&tokens(&file.code)).into_iter().filter(|(_, _, lines)| *lines > FUNCTION_LINES_MAX);
    let breach = |(name, line, lines)| {
        let message = format!(
            "`{name}` has {lines} lines, and {FUNCTION_LINES_MAX} are the most: make functions of the steps it takes."
        );
        Breach::new(&file.path, name, lines, line, message)
    };
    too_long.map(breach).collect()
}

/// Name, first line and number of lines of each function that has a body.
fn functions<'a>(tokens: &[Token<'a>]) -> Vec<(&'a str, usize, usize)> {
    let starts = tokens.windows(2).enumerate().filter(|(_, pair)| pair[0].text == "fn" && pair[1].is_name());
    let lines_of = |(at, pair): (usize, &[Token<'a>])| {
        let end = body_end(&tokens[at..])?;
        Some((pair[1].text, pair[0].line, end.line - pair[0].line + 1))
    };
    starts.filter_map(lines_of).collect()
}

/// The brace that closes the function which `tokens` begins with; `None` when only its signature is there.
fn body_end<'a>(tokens: &[Token<'a>]) -> Option<Token<'a>> {
    let mut depth = 0_usize;
    for token in tokens {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            "}" if depth == 1 => return Some(*token),
            ")" | "]" | "}" => depth = depth.checked_sub(1)?,
            ";" if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> RustFile {
        RustFile::new("core/src/a.rs", text.to_owned())
    }

    /// The text of a function that is `lines` lines long.
    fn function(name: &str, lines: usize) -> String {
        format!("fn {name}(a: [u8; 2]) {{\n{}}}\n", "    a();\n".repeat(lines - 2))
    }

    #[test]
    fn a_line_has_as_many_columns_as_characters() {
        let longest = "é".repeat(COLUMNS_MAX);
        assert_eq!(long_lines(&file(&format!("{longest}\n"))), None);
        let breach = long_lines(&file(&format!("\n{longest}.\n\n\"{longest}\"\n"))).unwrap();
        assert_eq!((breach.size, breach.line), (2, 2));
        assert!(breach.message.ends_with(": 2, 4. Break them."), "{}", breach.message);
    }

    #[test]
    fn a_function_counts_from_its_fn_to_its_brace() {
        let text = "//! fn d() {\ntrait T {\n    fn only(&self) -> [u8; 2];\n}\n\n\
                    pub async fn f<F: Fn(u8)>(\n    g: fn(u8),\n) where\n    F: Copy,\n{\n\
                    \x20   fn inner() {}\n    let s = \"}\";\n}\n";
        assert_eq!(functions(&tokens(&file(text).code)), [("f", 6, 8), ("inner", 11, 1)]);
    }

    #[test]
    fn long_functions_are_found_and_those_of_tests_are_not() {
        let (fits, long) = (function("fits", FUNCTION_LINES_MAX), function("long", FUNCTION_LINES_MAX + 1));
        let found = long_functions(&file(&format!("{fits}{long}#[cfg(test)]\nmod tests {{\n{long}}}\n")));
        assert_eq!(found.len(), 1);
        let breach = &found[0];
        assert_eq!((breach.name.as_str(), breach.size, breach.line), ("long", 71, 71));
        assert_eq!(long_functions(&RustFile::new("core/src/a/tests.rs", long)), []);
    }

    #[test]
    fn the_tests_of_a_file_do_not_make_it_long() {
        let code = "fn f() {}\n".repeat(FILE_LINES_MAX);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{code}}}\n");
        assert_eq!(long_file(&file(&format!("{code}{tests}"))), None);
        let breach = long_file(&file(&format!("{tests}{code}\n"))).unwrap();
        assert_eq!(breach.size, FILE_LINES_MAX + 1);
        assert_eq!(long_file(&RustFile::new("tests/tests/a.rs", code.repeat(2))), None);
        assert!(long_file(&RustFile::new("tests/src/a.rs", code.repeat(2))).is_some());
    }
}
