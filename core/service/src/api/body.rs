//! Request bodies: JSON objects read field by field, with every problem of a body reported at once.
//!
//! No error quotes the value of a field: it may be a secret, or a secret put in the wrong place.

use serde_json::{Map, Value, json};

use super::{
    errors::{ApiError, Problem},
    nesting::{NESTING_MAX, TooDeep, check_nesting},
    render::Shown,
    repeated::find_repeated,
};
use b2sync_core::time::Timestamp;

/// The longest body, in bytes.
pub const BODY_BYTES_MAX: usize = 256 * 1024;
/// The longest description, and the longest reason of a pause, in characters.
pub(super) const DESCRIPTION_CHARS_MAX: usize = 500;
/// The most items of a list of strings.
pub(super) const LIST_ITEMS_MAX: usize = 1_000;
/// The longest `metadata`, in bytes as JSON.
pub(super) const METADATA_BYTES_MAX: usize = 16 * 1024;
/// What some programs write before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// How much of the name of an unknown field an error quotes, in characters.
pub(super) const KEY_CHARS_MAX: usize = 64;

/// A value that may be left out, or be cleared with `null`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Given<T> {
    /// Left out: keep what there is.
    Absent,
    /// `null`: clear it.
    Null,
    /// Set it.
    Value(T),
}

impl<T> Given<T> {
    /// The value, if there is one.
    pub(crate) fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Null => None,
        }
    }

    /// Writes it to `place`.
    pub(crate) fn apply(self, place: &mut Option<T>) {
        match self {
            Self::Absent => {}
            Self::Null => *place = None,
            Self::Value(value) => *place = Some(value),
        }
    }
}

/// Parses a body that must be a JSON object. An empty one is `{}`, and a byte order mark before it is read over.
pub(crate) fn parse_object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let wrong_at = |field: Option<String>, kind: &'static str, message: String| {
        let location = std::iter::once("body".to_owned()).chain(field).collect();
        ApiError::Invalid(vec![Problem { location, kind, message }])
    };
    let wrong = |kind: &'static str, message: String| wrong_at(None, kind, message);
    if body.len() > BODY_BYTES_MAX {
        return Err(wrong("too_long", format!("The body is longer than {BODY_BYTES_MAX} bytes. Send a shorter one.")));
    }
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    if let Err(TooDeep { field }) = check_nesting(body) {
        let field = field.map(|name| name.chars().take(KEY_CHARS_MAX).collect::<String>());
        let what = field.as_ref().map_or_else(|| "The body".to_owned(), |name| format!("`{name}`"));
        let message = format!(
            "{what} is nested too deep: a body has at most {NESTING_MAX} levels of lists and objects. Send it flatter, \
             or as a string."
        );
        return Err(wrong_at(field, "too_deep", message));
    }
    if let Some(name) = find_repeated(body) {
        let name: String = name.chars().take(KEY_CHARS_MAX).collect();
        let message = format!("`{name}` stands more than once in one object: send it once.");
        return Err(wrong_at(Some(name), "value_error", message));
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(map),
        // A client without a body to send may send this.
        Ok(Value::Null) => Ok(Map::new()),
        Ok(other) => {
            Err(wrong("object_type", format!("The body is {}, not a JSON object. Send {{…}}.", kind_of(&other))))
        }
        Err(error) => Err(wrong(
            "json_invalid",
            format!("The body is not JSON (line {}, column {}). Send a JSON object.", error.line(), error.column()),
        )),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The fields of one JSON object. Each is taken once, by name; [`Fields::done`] reports those that were not taken.
pub(crate) struct Fields<'p> {
    location: Vec<String>,
    map: Map<String, Value>,
    accepted: Vec<&'static str>,
    problems: &'p mut Vec<Problem>,
}

impl<'p> Fields<'p> {
    /// Those of the body itself.
    pub(crate) fn of_body(map: Map<String, Value>, problems: &'p mut Vec<Problem>) -> Self {
        Self { location: vec!["body".to_owned()], map, accepted: Vec::new(), problems }
    }

    /// Reports a problem of a field.
    pub(crate) fn problem(&mut self, name: &str, kind: &'static str, message: impl Into<String>) {
        let mut location = self.location.clone();
        location.push(name.to_owned());
        self.problems.push(Problem { location, kind, message: message.into() });
    }

    /// Reports a problem that is worded already.
    pub(crate) fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Tells the tests which values a field takes.
    fn note(&self, name: &str, schema: impl FnOnce() -> Value) {
        note(&self.location, name, schema);
    }

    /// Reports that a required field is not there.
    pub(crate) fn missing(&mut self, name: &str, what: &str) {
        #[cfg(test)]
        super::recorder::note(&self.location, name, None);
        self.problem(name, "missing", format!("`{name}` is required: {what}."));
    }

    /// Whether a problem of this field was reported, so that it is not reported as missing too.
    pub(crate) fn reported(&self, name: &str) -> bool {
        self.problems.iter().any(|problem| match problem.location.split_last() {
            Some((last, before)) => last == name && before == self.location,
            None => false,
        })
    }

    fn wrong_type(&mut self, name: &str, value: &Value, wanted: &str) {
        self.problem(name, "type_error", format!("`{name}` is {}; it must be {wanted}.", kind_of(value)));
    }

    /// Whether a field is there and is `null`.
    pub(crate) fn is_null(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(Value::is_null)
    }

    /// Takes a field as it is; `null` counts as left out.
    pub(crate) fn value(&mut self, name: &'static str) -> Option<Value> {
        self.note(name, || json!({}));
        match self.given(name) {
            Given::Value(value) => Some(value),
            Given::Absent | Given::Null => None,
        }
    }

    fn given(&mut self, name: &'static str) -> Given<Value> {
        self.accepted.push(name);
        match self.map.remove(name) {
            None => Given::Absent,
            Some(Value::Null) => Given::Null,
            Some(value) => Given::Value(value),
        }
    }

    fn read<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Self, Value) -> Option<T>) -> Given<T> {
        match self.given(name) {
            Given::Absent => Given::Absent,
            Given::Null => Given::Null,
            // What could not be read was reported; the body as a whole is refused.
            Given::Value(value) => read(self, value).map_or(Given::Absent, Given::Value),
        }
    }

    /// A string of that many characters.
    pub(crate) fn text(&mut self, name: &'static str, chars_min: usize, chars_max: usize) -> Option<String> {
        self.text_or_null(name, chars_min, chars_max).value()
    }

    /// The same, `null` clearing it.
    pub(crate) fn text_or_null(&mut self, name: &'static str, chars_min: usize, chars_max: usize) -> Given<String> {
        self.note(name, || text_schema(chars_min, chars_max));
        self.read(name, |fields, value| {
            let Value::String(text) = value else {
                fields.wrong_type(name, &value, "a string");
                return None;
            };
            let chars = text.chars().count();
            if chars < chars_min || chars > chars_max {
                let kind = if chars < chars_min { "string_too_short" } else { "string_too_long" };
                fields.problem(
                    name,
                    kind,
                    format!("`{name}` has {chars} characters; it must have {chars_min} to {chars_max}."),
                );
                return None;
            }
            Some(text)
        })
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, name: &'static str) -> Option<bool> {
        self.note(name, || json!({"type": "boolean"}));
        self.read(name, |fields, value| {
            if value.as_bool().is_none() {
                fields.wrong_type(name, &value, "true or false");
            }
            value.as_bool()
        })
        .value()
    }

    /// An integer between bounds, both included.
    pub(crate) fn integer(&mut self, name: &'static str, min: u64, max: u64) -> Option<u64> {
        self.integer_or_null(name, min, max).value()
    }

    /// The same, `null` clearing it.
    pub(crate) fn integer_or_null(&mut self, name: &'static str, min: u64, max: u64) -> Given<u64> {
        self.note(name, || integer_schema(min, max));
        self.read(name, |fields, value| {
            // 300.0 is what some languages make of 300.
            let whole = value.as_u64().or_else(|| {
                value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..9e15).contains(number)).map(|n| n as u64)
            });
            let negative = value.as_f64().is_some_and(|number| number < 0.0);
            match whole {
                Some(number) if (min..=max).contains(&number) => Some(number),
                Some(_) => {
                    let kind = if whole < Some(min) { "greater_than_equal" } else { "less_than_equal" };
                    fields.problem(name, kind, between(name, min, max));
                    None
                }
                None if negative => {
                    fields.problem(name, "greater_than_equal", between(name, min, max));
                    None
                }
                None => {
                    if value.is_number() {
                        fields.problem(name, "int_type", between(name, min, max));
                    } else {
                        fields.wrong_type(name, &value, "an integer");
                    }
                    None
                }
            }
        })
    }

    /// A list of strings.
    pub(crate) fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        self.texts_or_null(name).value()
    }

    /// The same, `null` clearing it.
    pub(crate) fn texts_or_null(&mut self, name: &'static str) -> Given<Vec<String>> {
        self.note(name, || json!({"type": "array", "items": {"type": "string"}, "maxItems": LIST_ITEMS_MAX}));
        self.read(name, |fields, value| {
            let Value::Array(items) = value else {
                fields.wrong_type(name, &value, "a list of strings");
                return None;
            };
            if items.len() > LIST_ITEMS_MAX {
                fields.problem(name, "too_long", format!("`{name}` has more than {LIST_ITEMS_MAX} items."));
                return None;
            }
            let mut texts = Vec::with_capacity(items.len());
            for (index, item) in items.into_iter().enumerate() {
                match item {
                    Value::String(text) => texts.push(text),
                    other => fields.wrong_type(&format!("{name}[{index}]"), &other, "a string"),
                }
            }
            Some(texts)
        })
    }

    /// An instant, ISO 8601. A date is midnight UTC, and a time without an offset is UTC.
    pub(crate) fn time(&mut self, name: &'static str) -> Option<Timestamp> {
        self.time_or_null(name).value()
    }

    /// The same, `null` clearing it.
    pub(crate) fn time_or_null(&mut self, name: &'static str) -> Given<Timestamp> {
        self.note(name, || json!({"type": "string", "format": "date-time"}));
        self.read(name, |fields, value| {
            let Value::String(text) = &value else {
                fields.wrong_type(name, &value, "a time such as \"2024-01-01T00:00:00Z\"");
                return None;
            };
            // Of the year 0 nothing is shown, and so its user could not see the filter.
            let time = Timestamp::parse_iso8601(text).ok().filter(|time| Shown::of(*time).is_some());
            let Some(time) = time else {
                let message = format!(
                    "`{name}` is not a time. Write ISO 8601: \"2024-01-01T00:00:00Z\" with any offset, or \
                     \"2024-01-01\" for midnight UTC."
                );
                fields.problem(name, "datetime_parsing", message);
                return None;
            };
            Some(time)
        })
    }

    /// One of `choices`.
    pub(crate) fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&str, T)]) -> Option<T> {
        self.note(name, || choice_schema(choices));
        self.read(name, |fields, value| {
            let chosen = value.as_str().and_then(|text| choices.iter().find(|(choice, _)| *choice == text));
            if chosen.is_none() {
                let names: Vec<String> = choices.iter().map(|(choice, _)| format!("\"{choice}\"")).collect();
                fields.problem(name, "enum", format!("`{name}` must be one of {}.", names.join(", ")));
            }
            chosen.map(|(_, value)| *value)
        })
        .value()
    }

    /// `metadata`: the user's own object, kept as it is; `null` clears it.
    pub(crate) fn metadata(&mut self) -> Given<Map<String, Value>> {
        const NAME: &str = "metadata";
        let map = match self.free_object_or_null(NAME) {
            Given::Value(map) => map,
            other => return other,
        };
        let bytes = serde_json::to_vec(&map).map_or(usize::MAX, |json| json.len());
        if bytes > METADATA_BYTES_MAX {
            let message = format!(
                "`{NAME}` has {bytes} bytes as JSON; it must have at most {METADATA_BYTES_MAX}. Keep large values \
                 elsewhere, and their place here."
            );
            self.problem(NAME, "too_long", message);
            return Given::Absent;
        }
        Given::Value(map)
    }

    /// A free JSON object, kept as it is; `null` clears it.
    pub(crate) fn free_object_or_null(&mut self, name: &'static str) -> Given<Map<String, Value>> {
        self.note(name, || json!({"type": "object"}));
        self.read(name, |fields, value| match value {
            Value::Object(map) => Some(map),
            other => {
                fields.wrong_type(name, &other, "an object");
                None
            }
        })
    }

    /// An object with declared fields of its own; call [`Fields::done`] on it.
    pub(crate) fn nested(&mut self, name: &'static str) -> Option<Fields<'_>> {
        let map = self.free_object_or_null(name).value();
        #[cfg(test)]
        let map = map.or_else(|| super::recorder::opens().then(Map::new));
        let map = map?;
        let mut location = self.location.clone();
        location.push(name.to_owned());
        Some(Fields { location, map, accepted: Vec::new(), problems: self.problems })
    }

    /// Takes a field that is not to be named among the allowed ones; `None` where it is absent or `null`.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// Refuses a field that other calls take.
    pub(crate) fn refuse(&mut self, name: &'static str, message: String) {
        if self.map.remove(name).is_some() {
            self.problem(name, "value_error", message);
        }
    }

    /// Declares that nothing else is accepted: reports what is left.
    pub(crate) fn done(mut self) {
        let accepted = if self.accepted.is_empty() {
            "no fields".to_owned()
        } else {
            self.accepted.sort_unstable();
            self.accepted.dedup();
            self.accepted.join(", ")
        };
        let keys: Vec<String> = self.map.keys().cloned().collect();
        for key in keys {
            let short: String = key.chars().take(KEY_CHARS_MAX).collect();
            self.problem(&short, "extra_forbidden", format!("Unknown field {short:?}. Allowed: {accepted}."));
        }
    }
}

/// Tells the tests which values a field takes. Nothing else is to know it.
#[cfg(test)]
pub(super) fn note(location: &[String], name: &str, schema: impl FnOnce() -> Value) {
    super::recorder::note(location, name, Some(schema()));
}

#[cfg(not(test))]
pub(super) fn note(_: &[String], _: &str, _: impl FnOnce() -> Value) {}

/// As JSON Schema: a string of that many characters.
pub(super) fn text_schema(chars_min: usize, chars_max: usize) -> Value {
    let min = (chars_min > 0).then_some(("minLength", chars_min as u64));
    let max = (chars_max < usize::MAX).then_some(("maxLength", chars_max as u64));
    bounded("string", min, max)
}

/// As JSON Schema: an integer between bounds, both included.
pub(super) fn integer_schema(min: u64, max: u64) -> Value {
    bounded("integer", Some(("minimum", min)), (max < u64::MAX).then_some(("maximum", max)))
}

fn bounded(kind: &str, min: Option<(&str, u64)>, max: Option<(&str, u64)>) -> Value {
    let bounds = min.into_iter().chain(max).map(|(name, bound)| (name.to_owned(), bound.into()));
    Value::Object([("type".to_owned(), kind.into())].into_iter().chain(bounds).collect())
}

/// As JSON Schema: one of these.
pub(super) fn choice_schema<T>(choices: &[(&str, T)]) -> Value {
    json!({"type": "string", "enum": choices.iter().map(|(name, _)| *name).collect::<Vec<_>>()})
}

fn between(name: &str, min: u64, max: u64) -> String {
    match max {
        u64::MAX => format!("`{name}` must be an integer of at least {min}."),
        max => format!("`{name}` must be an integer from {min} to {max}."),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(value: Value, read: impl FnOnce(&mut Fields<'_>)) -> Vec<(String, &'static str, String)> {
        let mut problems = Vec::new();
        let Value::Object(map) = value else { panic!() };
        let mut fields = Fields::of_body(map, &mut problems);
        read(&mut fields);
        fields.done();
        problems.into_iter().map(|problem| (problem.location.join("."), problem.kind, problem.message)).collect()
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let body = json!({"name": "", "count": 29, "flag": 1, "mode": "x", "since": "yesterday", "list": ["a", 1],
                          "nested": {"other": 1}, "object": [], "secret_value": "K005", "float": 1.5, "low": -1});
        let problems = fields(body, |fields| {
            assert_eq!(fields.text("name", 1, 100), None);
            assert_eq!(fields.integer("count", 30, 86_400), None);
            assert_eq!(fields.integer("float", 30, 86_400), None);
            assert_eq!(fields.integer("low", 0, u64::MAX), None);
            assert_eq!(fields.flag("flag"), None);
            assert_eq!(fields.choice("mode", &[("a", 1), ("b", 2)]), None);
            assert_eq!(fields.time("since"), None);
            fields.texts("list");
            fields.free_object_or_null("object");
            let mut nested = fields.nested("nested").unwrap();
            nested.text("inner", 0, 9);
            nested.done();
        });
        let found: Vec<_> = problems.iter().map(|(location, kind, _)| (location.as_str(), *kind)).collect();
        assert_eq!(
            found,
            [
                ("body.name", "string_too_short"),
                ("body.count", "greater_than_equal"),
                ("body.float", "int_type"),
                ("body.low", "greater_than_equal"),
                ("body.flag", "type_error"),
                ("body.mode", "enum"),
                ("body.since", "datetime_parsing"),
                ("body.list[1]", "type_error"),
                ("body.object", "type_error"),
                ("body.nested.other", "extra_forbidden"),
                ("body.secret_value", "extra_forbidden"),
            ]
        );
        assert!(problems[1].2.contains("30 to 86400"));
        assert!(problems[9].2.contains("Allowed: inner."));
        assert!(problems.iter().all(|(_, _, message)| !message.contains("K005")));
    }

    #[test]
    fn null_is_left_out_or_clears() {
        let problems = fields(json!({"a": null, "b": null, "d": "x"}), |fields| {
            assert_eq!(fields.text("a", 1, 9), None);
            assert_eq!(fields.text_or_null("b", 1, 9), Given::Null);
            assert_eq!(fields.text_or_null("c", 1, 9), Given::Absent);
            assert_eq!(fields.text_or_null("d", 1, 9), Given::Value("x".to_owned()));
        });
        assert_eq!(problems, []);
    }

    #[test]
    fn whole_floats_and_dates_are_understood() {
        let problems = fields(json!({"a": 300.0, "b": "2024-01-01", "c": u64::MAX}), |fields| {
            assert_eq!(fields.integer("a", 30, 86_400), Some(300));
            assert_eq!(fields.time("b"), Timestamp::parse_rfc3339("2024-01-01T00:00:00Z").ok());
            assert_eq!(fields.integer("c", 0, u64::MAX), Some(u64::MAX));
        });
        assert_eq!(problems, []);
    }

    #[test]
    fn what_is_no_time_says_what_to_write() {
        let problems = fields(json!({"a": "2024-01-01T00:00:00", "b": "last week"}), |fields| {
            assert_eq!(fields.time("a"), Some(Timestamp::parse_rfc3339("2024-01-01T00:00:00Z").unwrap()));
            fields.time("b");
        });
        let year_0 = fields(json!({"a": "0000-06-01"}), |fields| assert_eq!(fields.time("a"), None));
        assert_eq!(year_0.len(), 1, "no answer could show it");
        let [(_, "datetime_parsing", unreadable)] = problems.as_slice() else { panic!("{problems:?}") };
        assert!(unreadable.contains("\"2024-01-01\" for midnight UTC"), "{unreadable}");
    }

    #[test]
    fn an_empty_body_is_an_empty_object() {
        for body in ["", " \r\n", "{}", "null", "\u{feff}", "\u{feff} {}"] {
            assert!(parse_object(body.as_bytes()).unwrap().is_empty());
        }
        for body in ["[]", "1", "{", "\u{feff}\u{feff}{}", " \u{feff}{}", "{\"a\":}"] {
            assert!(parse_object(body.as_bytes()).is_err(), "{body}");
        }
        assert!(parse_object(&vec![b' '; BODY_BYTES_MAX + 1]).is_err());
        assert!(parse_object("[".repeat(100_000).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_object(&body);
        }
    }
}
