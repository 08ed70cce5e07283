//! Figures, as a table while they come in and as JSON at the end.
//!
//! A figure stands here only when it was measured in this run. What could not run is a line that says so, and why; it
//! is never a number.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::Result;

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bar {
    /// No bar: a figure to compare with.
    None,
    AtLeast(f64),
    AtMost(f64),
}

impl Bar {
    fn shown(self, value: f64) -> String {
        let verdict = |met: bool| if met { "met" } else { "MISSED" };
        match self {
            Self::None => String::new(),
            Self::AtLeast(bar) => format!("at least {}: {}", number(bar), verdict(value >= bar)),
            Self::AtMost(bar) => format!("at most {}: {}", number(bar), verdict(value <= bar)),
        }
    }
}

/// Everything that was measured so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    figures: Vec<Value>,
    failed: Vec<String>,
}

impl Report {
    /// A heading, and what is measured below it.
    pub(crate) fn section(&self, title: &str, what: &str) {
        say(&format!("\n## {title}\n{what}\n"));
    }

    /// A line of prose.
    pub(crate) fn note(&self, text: &str) {
        say(text);
    }

    /// One figure, measured.
    pub(crate) fn figure(&mut self, name: impl AsRef<str>, value: f64, unit: &str, bar: Bar) {
        let name = name.as_ref();
        say(format!("  {name:<46} {:>14} {unit:<10} {}", number(value), bar.shown(value)).trim_end());
        self.figures.push(json!({ "name": name, "value": value, "unit": unit }));
    }

    /// A figure that cannot be had here.
    pub(crate) fn not_run(&self, name: impl AsRef<str>, why: impl std::fmt::Display) {
        say(&format!("  {:<46} not run: {why}", name.as_ref()));
    }

    /// Something that should have run and did not.
    pub(crate) fn failed(&mut self, name: impl AsRef<str>, why: impl std::fmt::Display) {
        say(&format!("  {:<46} FAILED: {why}", name.as_ref()));
        self.failed.push(name.as_ref().to_owned());
    }

    /// The names of all figures so far.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.figures.iter().filter_map(|figure| figure["name"].as_str())
    }

    /// Writes the figures, beside those that the file has of other groups: `stays` says which. An error when something
    /// failed to run.
    pub(crate) fn finish(self, path: &Path, stays: impl Fn(&str) -> bool) -> Result<()> {
        // A file that is not there, or is none of ours, has nothing to keep.
        let before = fs::read(path).ok().and_then(|text| serde_json::from_slice::<Vec<Value>>(&text).ok());
        let measured = self.figures.len();
        let all = merged(before.unwrap_or_default(), self.figures, stays);
        let list: Vec<String> = all.iter().map(|figure| format!("  {figure}")).collect();
        fs::write(path, format!("[\n{}\n]\n", list.join(",\n")))?;
        let kept = all.len() - measured;
        let beside = if kept == 0 { String::new() } else { format!(", beside {kept} of groups that did not run") };
        say(&format!("\n{measured} figures are in {}{beside}.", path.display()));
        if self.failed.is_empty() { Ok(()) } else { Err(format!("failed to run: {}", self.failed.join(", ")).into()) }
    }
}

/// What stays of what was there, and then what was measured now. No name comes twice.
fn merged(before: Vec<Value>, now: Vec<Value>, stays: impl Fn(&str) -> bool) -> Vec<Value> {
    let mut all = before;
    all.retain(|old| {
        let is_measured = now.iter().any(|new| new["name"] == old["name"]);
        !is_measured && old["name"].as_str().is_some_and(&stays)
    });
    all.extend(now);
    all
}

/// Past a pipe that ended early.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Three digits or more, in groups.
fn number(value: f64) -> String {
    let decimals = if value.abs() >= 100.0 || value.fract() == 0.0 { 0 } else { 3 };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), String::new()), |(w, f)| (w, format!(".{f}")));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        let left = whole.len() - index;
        if index > 0 && left % 3 == 0 && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + &fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(number(6e6), "6,000,000");
        assert_eq!(number(0.2954), "0.295");
        assert_eq!(number(2.0), "2");
        assert_eq!(number(1234.56), "1,235");
        assert_eq!(number(19.96), "19.960");
    }

    #[test]
    fn figures_of_other_groups_are_kept() {
        let figure = |name: &str, value: u32| json!({ "name": name, "value": value, "unit": "s" });
        let before = vec![figure("other/1", 1), figure("ran/1", 1), figure("ran/gone", 1), json!({ "unit": "s" })];
        let all = merged(before, vec![figure("ran/1", 2)], |name| name.starts_with("other"));
        assert_eq!(all, [figure("other/1", 1), figure("ran/1", 2)]);
    }

    #[test]
    fn a_bar_says_whether_it_is_met() {
        assert_eq!(Bar::AtLeast(10.0).shown(9.0), "at least 10: MISSED");
        assert_eq!(Bar::AtMost(0.3).shown(0.3), "at most 0.300: met");
    }
}
