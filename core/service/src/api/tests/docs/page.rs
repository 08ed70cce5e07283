//! A page of `docs/reference/`: its generated blocks, and the names in its tables.

use std::{collections::BTreeSet, fs, path::PathBuf, sync::Mutex};

/// One test at a time reads and writes a page.
static PAGES: Mutex<()> = Mutex::new(());

/// The command that rewrites the pages.
const UPDATE: &str = "UPDATE_DOCS=1 cargo test -p b2sync-service docs";
/// Stands in a new row until its last column is written.
pub(super) const TO_WRITE: &str = "TO WRITE";

fn path(page: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../docs/reference", page].iter().collect()
}

/// The text of a page.
pub(super) fn read(page: &str) -> String {
    fs::read_to_string(path(page)).unwrap_or_else(|error| panic!("docs/reference/{page}: {error}"))
}

/// Compares a block of a page with what `generate` makes of the block as it is; `UPDATE_DOCS=1` rewrites it.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a test writes documentation; no home does")]
pub(super) fn check_block(page: &str, block: &str, generate: impl FnOnce(&str) -> String) {
    let _turn = PAGES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let text = read(page);
    let begin = format!("<!-- {block}: generated from the code by `{UPDATE}` -->\n\n");
    let end = format!("\n<!-- end of {block} -->\n");
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("docs/reference/{page} needs {begin:?}"));
    let (old, after) = rest.split_once(&end).unwrap_or_else(|| panic!("docs/reference/{page} needs {end:?}"));
    let new = generate(old);
    if new != old && std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path(page), [before, &begin, &new, &end, after].concat()).unwrap();
    } else {
        let differs = |a: &str, b: &str| -> String {
            let lines: Vec<&str> = b.lines().collect();
            a.lines().filter(|line| !lines.contains(line)).map(|line| format!("  {line}\n")).collect()
        };
        assert!(
            new == old,
            "docs/reference/{page} differs from the code at `{block}`. Run `{UPDATE}` and read what changed.\n\
             The page says:\n{}The code says:\n{}",
            differs(old, &new),
            differs(&new, old),
        );
    }
    let unwritten = new.lines().find(|line| line.contains(TO_WRITE));
    assert_eq!(unwritten, None, "docs/reference/{page}: write what this is about");
}

/// A table of which the code says all columns but the last, which people write: rows stay in their order, and what was
/// written stays. A new row comes last. `rows` begin with their key.
pub(super) fn merge(old: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    let written: Vec<(&str, &str)> = old
        .lines()
        .skip(2)
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|line| (line.split(" | ").next().unwrap(), line.rsplit(" | ").next().unwrap()))
        .collect();
    let known = |key: &str| written.iter().position(|(written, _)| *written == key);
    let mut rows: Vec<&Vec<String>> = rows.iter().collect();
    rows.sort_by_key(|row| known(&row[0]).unwrap_or(usize::MAX));
    let line = |cells: &[&str]| format!("| {} |\n", cells.join(" | "));
    let mut table = line(head) + "|" + &"---|".repeat(head.len()) + "\n";
    for row in rows {
        let prose = known(&row[0]).map_or(TO_WRITE, |at| written[at].1);
        table += &line(&row.iter().map(String::as_str).chain([prose]).collect::<Vec<_>>());
    }
    table
}

/// The lines from a heading to the next.
fn section(page: &str, heading: &str) -> Vec<String> {
    let text = read(page);
    let mut lines = text.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "docs/reference/{page} has no heading {heading:?}");
    lines.take_while(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// The names in the first column of the tables below a heading.
pub(super) fn names(page: &str, heading: &str) -> BTreeSet<String> {
    let first_cell = |line: &String| Some(line.strip_prefix("| ")?.split(" | ").next()?.to_owned());
    section(page, heading).iter().filter_map(first_cell).flat_map(|cell| quoted(&cell).collect::<Vec<_>>()).collect()
}

/// The rows of the tables below a heading: the names in the first cell, and the text of the last.
pub(in crate::api::tests) fn rows(page: &str, heading: &str) -> Vec<(Vec<String>, String)> {
    let cells = |line: &String| -> Option<(Vec<String>, String)> {
        let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
        Some((quoted(cells.first()?).collect(), (*cells.last()?).to_owned()))
    };
    section(page, heading).iter().filter_map(cells).filter(|(names, _)| !names.is_empty()).collect()
}

/// The names in the paragraph that begins so.
pub(super) fn names_of_paragraph(page: &str, begin: &str) -> BTreeSet<String> {
    let text = read(page);
    let paragraph = text.split("\n\n").find(|paragraph| paragraph.starts_with(begin));
    quoted(paragraph.unwrap_or_else(|| panic!("docs/reference/{page} has no paragraph {begin:?}"))).collect()
}

/// The row of a table below a heading that begins with that name.
pub(super) fn row(page: &str, heading: &str, name: &str) -> String {
    let begin = format!("| `{name}`");
    let row = section(page, heading).into_iter().find(|line| line.starts_with(&begin));
    row.unwrap_or_else(|| panic!("docs/reference/{page}, {heading:?} has no row `{name}`"))
}

/// The names in the second cell of the row that begins with `first`.
pub(super) fn names_of_row(page: &str, heading: &str, first: &str) -> BTreeSet<String> {
    let begin = format!("| {first} | ");
    let row = section(page, heading).into_iter().find_map(|line| line.strip_prefix(&begin).map(str::to_owned));
    let row = row.unwrap_or_else(|| panic!("docs/reference/{page}, {heading:?} has no row {first:?}"));
    quoted(row.split(" | ").next().unwrap()).collect()
}

/// Fails unless a page names exactly what the code names.
#[track_caller]
pub(super) fn same(what: &str, page: &BTreeSet<String>, code: &BTreeSet<String>) {
    let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect::<Vec<_>>().join(", ");
    let (documented, real) = (only(page, code), only(code, page));
    assert!(
        documented.is_empty() && real.is_empty(),
        "{what}: only the documentation has [{documented}], only the code has [{real}]. Change docs/reference/."
    );
}
