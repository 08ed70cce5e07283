//! The parameters of a query, each read by name, with every problem reported at once.

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{
    body::{KEY_CHARS_MAX, choice_schema, integer_schema, note, text_schema},
    errors::{ApiError, Problem},
};
use crate::coordinator::WAIT_MS_MAX;

/// The most parameters of a query.
pub(super) const PARAMETERS_MAX: usize = 64;

/// The parameters that say which page of a list is asked for.
pub(crate) const PAGE_PARAMETERS: [&str; 7] =
    ["limit", "page_size", "offset", "page", "cursor", "next_cursor", "after"];

/// The parameters of a query, decoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    /// The path that it stands behind, as it was sent, without a slash at the end.
    path: String,
    parameters: Vec<(String, String)>,
    /// Whether there are parameters beyond [`PARAMETERS_MAX`].
    has_more: bool,
    /// The name of the first parameter whose name or value is not UTF-8.
    no_text: Option<String>,
}

impl Query {
    /// Parses what stands behind the `?`. Bytes that are no UTF-8 become U+FFFD, and are reported by
    /// [`Self::check_names`].
    pub(crate) fn parse(path: &str, query: &str) -> Self {
        let mut no_text = None;
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let is_text = |text: &str| percent_decode_str(text).decode_utf8().is_ok();
        let mut parts = query.split('&').filter(|part| !part.is_empty());
        let pairs = parts.by_ref().take(PARAMETERS_MAX).map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if !is_text(name) || !is_text(value) {
                no_text.get_or_insert_with(|| decode(name));
            }
            (decode(name), decode(value))
        });
        let parameters = pairs.collect();
        Self { path: path.trim_end_matches('/').to_owned(), parameters, has_more: parts.next().is_some(), no_text }
    }

    /// Tells the tests which values a parameter takes.
    fn note(&self, name: &str, schema: impl FnOnce() -> Value) {
        note(&["query".to_owned()], name, schema);
    }

    /// The path that it stands behind.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The last value of a parameter; an empty one counts as left out.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .rev()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// Every value of a parameter that may be repeated; empty ones count as left out.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.note(name, || json!({"type": "array", "items": {"type": "string"}}));
        let values = self.parameters.iter().filter(|(n, value)| n == name && !value.is_empty());
        values.map(|(_, value)| value.clone()).collect()
    }

    /// Reports parameters that are not in `names`, are sent twice, or are empty: one that is passed over would do
    /// something else than was meant.
    pub(crate) fn check_only(&self, names: &[&str], problems: &mut Vec<Problem>) {
        self.check_names(names, &[], problems);
        for (name, value) in &self.parameters {
            if names.contains(&name.as_str()) && value.is_empty() {
                problem(problems, name, "value_error", format!("`{name}` is empty: send a value or leave it out."));
            }
        }
    }

    /// Reports parameters that are no text, are not in `names`, or are sent twice and are not `repeated`.
    pub(crate) fn check_names(&self, names: &[&str], repeated: &[&str], problems: &mut Vec<Problem>) {
        if self.has_more {
            let message = format!("The query has more than {PARAMETERS_MAX} parameters. Send fewer.");
            problems.push(Problem { location: vec!["query".to_owned()], kind: "too_long", message });
        }
        for name in names.iter().filter(|name| !repeated.contains(name)) {
            self.note(name, || json!({"type": "string"}));
        }
        if let Some(name) = &self.no_text {
            let short: String = name.chars().take(KEY_CHARS_MAX).collect();
            let message = format!("`{short}` is not UTF-8: percent-encode its UTF-8 bytes, %C3%BC for ü.");
            problem(problems, &short, "value_error", message);
        }
        for (index, (name, _)) in self.parameters.iter().enumerate() {
            let short: String = name.chars().take(KEY_CHARS_MAX).collect();
            let may_repeat = repeated.contains(&name.as_str());
            if !names.contains(&name.as_str()) {
                let allowed = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                let message = format!("Unknown parameter {short:?}. Allowed: {allowed}.");
                problem(problems, &short, "extra_forbidden", message);
            } else if !may_repeat && self.parameters.iter().take(index).any(|(other, _)| other == name) {
                problem(problems, name, "value_error", format!("`{name}` is sent more than once: send it once."));
            }
        }
    }

    /// A boolean parameter.
    pub(crate) fn flag(&self, name: &str, problems: &mut Vec<Problem>) -> Option<bool> {
        self.note(name, || json!({"type": "boolean"}));
        let text = self.get(name)?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => {
                problem(problems, name, "bool_parsing", format!("`{name}` must be true or false (or 1 or 0)."));
                None
            }
        }
    }

    /// A string of at most that many characters.
    pub(crate) fn text(&self, name: &str, chars_max: usize, problems: &mut Vec<Problem>) -> Option<String> {
        self.note(name, || text_schema(0, chars_max));
        let text = self.get(name)?;
        let chars = text.chars().count();
        if chars > chars_max {
            let message = format!("`{name}` has {chars} characters; it must have at most {chars_max}.");
            problem(problems, name, "string_too_long", message);
            return None;
        }
        Some(text.to_owned())
    }

    /// One of `choices`.
    pub(crate) fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)], problems: &mut Vec<Problem>) -> Option<T> {
        self.note(name, || choice_schema(choices));
        let text = self.get(name)?;
        let chosen = choices.iter().find(|(choice, _)| *choice == text);
        if chosen.is_none() {
            let names: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
            problem(problems, name, "enum", format!("`{name}` must be one of {}.", names.join(", ")));
        }
        chosen.map(|(_, value)| *value)
    }

    /// An integer between bounds, both included.
    pub(crate) fn integer(&self, name: &str, min: u64, max: u64, problems: &mut Vec<Problem>) -> Option<u64> {
        self.note(name, || integer_schema(min, max));
        let text = self.get(name)?;
        let kind = match text.parse::<i128>() {
            Ok(number) if number < i128::from(min) => "greater_than_equal",
            Ok(number) if number > i128::from(max) => "less_than_equal",
            Ok(number) => return u64::try_from(number).ok(),
            Err(_) => "int_parsing",
        };
        problem(problems, name, kind, format!("`{name}` must be an integer from {min} to {max}."));
        None
    }

    /// How long to wait for what is asked for, in milliseconds: `wait`, in seconds.
    pub(crate) fn wait_ms(&self, problems: &mut Vec<Problem>) -> u64 {
        self.integer("wait", 0, WAIT_MS_MAX / 1_000, problems).unwrap_or(0) * 1_000
    }
}

pub(crate) fn problem(problems: &mut Vec<Problem>, name: &str, kind: &'static str, message: String) {
    problems.push(Problem { location: vec!["query".to_owned(), name.to_owned()], kind, message });
}

/// A part of a URL, encoded.
pub(crate) fn encode(segment: &str) -> String {
    percent_encoding::utf8_percent_encode(segment, b2sync_core::b2::url::RESERVED).to_string()
}

/// Fails with what was collected.
pub(crate) fn check_problems(problems: Vec<Problem>) -> Result<(), ApiError> {
    if problems.is_empty() { Ok(()) } else { Err(ApiError::Invalid(problems)) }
}
