//! What a list asks for: in the query, in the body, or in both.
//!
//! Each name may stand in either. Where it stands in both, both must say the same: if one of them won, following a link
//! with the body of the page before would lead to that page again.

use super::{
    body::{Fields, parse_object},
    errors::{ApiError, Problem},
    query::{PAGE_PARAMETERS, Query, encode, problem},
};
use serde_json::Value;

/// What clients know and no list here supports. Empty ones count as left out.
const NOT_SUPPORTED: [&str; 4] = ["filters", "sort", "search", "select"];

/// The fields of a list. Each is taken once, by name; [`ListFields::done`] reports those that were not taken.
pub(crate) struct ListFields<'a> {
    query: &'a Query,
    body: Fields<'a>,
    /// Those of the query.
    problems: Vec<Problem>,
    /// What may stand in the query.
    names: Vec<&'static str>,
    /// Those that may be repeated there.
    repeated: Vec<&'static str>,
    /// What the body has.
    in_body: Vec<&'static str>,
    /// What links to other pages repeat.
    kept: Vec<(&'static str, String)>,
}

impl<'a> ListFields<'a> {
    /// Of a request.
    pub(crate) fn parse(query: &'a Query, body: &[u8], problems: &'a mut Vec<Problem>) -> Result<Self, ApiError> {
        let body = Fields::of_body(parse_object(body)?, problems);
        let (names, repeated, in_body, kept) = Default::default();
        Ok(Self { query, body, problems: Vec::new(), names, repeated, in_body, kept })
    }

    /// Reports a problem where the field stands.
    pub(crate) fn problem(&mut self, name: &str, kind: &'static str, message: String) {
        if self.in_body.contains(&name) {
            self.body.problem(name, kind, message);
        } else {
            problem(&mut self.problems, name, kind, message);
        }
    }

    /// The value that stands in the query or in the body.
    fn either<T: PartialEq>(&mut self, name: &'static str, in_query: Option<T>, in_body: Option<T>) -> Option<T> {
        self.names.push(name);
        if in_body.is_some() {
            self.in_body.push(name);
        }
        if in_query.is_some() && in_body.is_some() && in_query != in_body {
            let message = format!("`{name}` differs in the query and in the body: send it in one of them.");
            self.problem(name, "value_error", message);
        }
        in_query.or(in_body)
    }

    fn keep(&mut self, name: &'static str, value: impl ToString) {
        if !PAGE_PARAMETERS.contains(&name) {
            self.kept.push((name, value.to_string()));
        }
    }

    /// An integer between bounds, both included.
    pub(crate) fn integer(&mut self, name: &'static str, min: u64, max: u64) -> Option<u64> {
        let in_query = self.query.integer(name, min, max, &mut self.problems);
        let in_body = self.body.integer(name, min, max);
        self.either(name, in_query, in_body).inspect(|&value| self.keep(name, value))
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, name: &'static str) -> Option<bool> {
        let in_query = self.query.flag(name, &mut self.problems);
        let in_body = self.body.flag(name);
        self.either(name, in_query, in_body).inspect(|&value| self.keep(name, value))
    }

    /// A string of that many characters. An empty one, where there may be one, counts as left out.
    pub(crate) fn text(&mut self, name: &'static str, chars_min: usize, chars_max: usize) -> Option<String> {
        let in_query = self.query.text(name, chars_max, &mut self.problems);
        let in_body = self.body.text(name, chars_min, chars_max).filter(|text| !text.is_empty());
        self.either(name, in_query, in_body).inspect(|value| self.keep(name, value))
    }

    /// One of `choices`.
    pub(crate) fn choice<T: Copy + PartialEq>(
        &mut self,
        name: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let in_query = self.query.choice(name, choices, &mut self.problems);
        let in_body = self.body.choice(name, choices);
        let chosen = self.either(name, in_query, in_body)?;
        if let Some((text, _)) = choices.iter().find(|(_, value)| *value == chosen) {
            self.keep(name, text);
        }
        Some(chosen)
    }

    /// A list of at most that many strings; in the query, the parameter is repeated.
    pub(crate) fn texts(&mut self, name: &'static str, items_max: usize) -> Option<Vec<String>> {
        let in_query = Some(self.query.all(name)).filter(|texts| !texts.is_empty());
        let in_body = self.body.texts(name);
        self.repeated.push(name);
        let texts = self.either(name, in_query, in_body)?;
        if texts.len() > items_max {
            self.problem(name, "too_long", format!("`{name}` has more than {items_max} items."));
            return None;
        }
        for text in &texts {
            self.keep(name, text);
        }
        Some(texts)
    }

    /// Refuses fields of the body that clients know and b2sync does not support, unless they ask for nothing.
    fn refuse_others(&mut self) {
        let filters: Vec<&str> = self.names.iter().copied().filter(|name| !PAGE_PARAMETERS.contains(name)).collect();
        for name in NOT_SUPPORTED {
            let asked = match self.body.take(name) {
                None => false,
                Some(Value::Array(list)) => !list.is_empty(),
                Some(Value::Object(map)) => !map.is_empty(),
                Some(Value::String(text)) => !text.is_empty(),
                Some(_) => true,
            };
            if asked {
                let message = format!("`{name}` is not supported. This list takes {}.", filters.join(", "));
                self.body.problem(name, "value_error", message);
            }
        }
    }

    /// Declares that nothing else is accepted: reports what is left, in both. Answers what links to other pages begin
    /// with: the path, and what is asked for besides the page.
    pub(crate) fn done(mut self) -> String {
        self.refuse_others();
        let Self { query, mut body, mut problems, mut names, repeated, kept, .. } = self;
        names.sort_unstable();
        query.check_names(&names, &repeated, &mut problems);
        let link = |url: String, (name, value): &(&str, String)| format!("{url}{name}={}&", encode(value));
        problems.into_iter().for_each(|problem| body.report(problem));
        body.done();
        kept.iter().fold(format!("{}?", query.path()), link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::pagination::{Listing, PageRequest};
    use serde_json::json;

    /// What a list reads, and the links of its page; or where it is wrong.
    fn read(query: &str, body: Value) -> Result<(String, u64), Vec<String>> {
        let (query, mut problems) = (Query::parse("/v1/x", query), Vec::new());
        let mut fields = ListFields::parse(&query, body.to_string().as_bytes(), &mut problems).unwrap();
        let mut page = PageRequest::read(&mut fields, Listing::ByCreation);
        fields.flag("is_active");
        fields.text("prefix", 0, 5);
        fields.choice("status", &[("a", 1), ("b", 2)]);
        fields.texts("types", 2);
        page.list_url = fields.done();
        if problems.is_empty() {
            Ok((page.list_url, page.limit))
        } else {
            Err(problems.into_iter().map(|problem| problem.location.join(".")).collect())
        }
    }

    #[test]
    fn the_query_and_the_body_say_the_same() {
        let all = "/v1/x?include_total=true&is_active=false&prefix=a%20%26&status=b&types=x&types=y%2Cz&";
        let body = json!({"is_active": false, "prefix": "a &", "status": "b", "types": ["x", "y,z"],
                          "include_total": true, "page_size": 7});
        let query = "is_active=false&prefix=a+%26&status=b&types=x&types=y,z&include_total=1&page_size=7";
        for (query, body) in [("", body.clone()), (query, json!({})), (query, body)] {
            assert_eq!(read(query, body.clone()), Ok((all.to_owned(), 7)), "{query} {body}");
        }
        let nothing = json!({"prefix": "", "status": null, "limit": null, "cursor": ""});
        assert_eq!(read("prefix=&status=&limit=", nothing), Ok(("/v1/x?".to_owned(), 50)));
    }

    #[test]
    fn what_differs_is_refused() {
        for (query, body, wrong) in [
            ("limit=5", json!({"limit": 6}), "body.limit"),
            ("limit=5", json!({"page_size": 6}), "body.page_size"),
            ("page_size=5", json!({"limit": 6}), "query.page_size"),
            ("page=2", json!({"offset": 7}), "query.page"),
            ("cursor=x", json!({"after": "y"}), "body.after"),
            ("status=a", json!({"status": "b"}), "body.status"),
            ("is_active=true", json!({"is_active": false}), "body.is_active"),
            ("types=a", json!({"types": []}), "body.types"),
        ] {
            let found = read(query, body.clone()).unwrap_err();
            assert!(found.iter().any(|it| it == wrong), "{query} {body}: {found:?}");
        }
    }

    #[test]
    fn bounds_hold_in_both() {
        for (query, body, wrong) in [
            ("prefix=123456", json!({}), "query.prefix"),
            ("", json!({"prefix": "123456"}), "body.prefix"),
            ("status=c", json!({}), "query.status"),
            ("", json!({"status": "c"}), "body.status"),
            ("limit=0", json!({}), "query.limit"),
            ("", json!({"limit": 1001}), "body.limit"),
            ("types=a&types=b&types=c", json!({}), "query.types"),
            ("", json!({"types": ["a", "b", "c"]}), "body.types"),
            ("", json!({"other": 1}), "body.other"),
            ("", json!({"cursor": "x"}), "body.cursor"),
        ] {
            assert_eq!(read(query, body.clone()).unwrap_err(), [wrong], "{query} {body}");
        }
    }
}
