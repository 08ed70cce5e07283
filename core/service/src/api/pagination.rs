//! Pages of lists: what a request asks for, and the `pagination` object of the answer.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{list_fields::ListFields, render};
use crate::{
    catalogue::ObjectCursor,
    registry::{Rows, Section},
};
use b2sync_core::time::Timestamp;

/// Items of a page, if the query does not say.
pub const PAGE_DEFAULT: u64 = 50;
/// The most items of a page.
pub const PAGE_MAX: u64 = 1_000;
/// The largest offset; beyond it, follow cursors.
pub const OFFSET_MAX: u64 = 10_000;
/// Where a page begins: after this. Opaque to callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cursor {
    /// In a list ordered by creation, newest first.
    Created {
        /// When the last item was created.
        at: Timestamp,
        /// The last item.
        id: String,
    },
    /// In the catalogue.
    Object(ObjectCursor),
    /// Of what a coordinator counts.
    Offset {
        /// How many to pass over.
        n: u64,
    },
}

impl Cursor {
    pub(crate) fn to_text(&self) -> String {
        serde_json::to_vec(self).map(|json| URL_SAFE_NO_PAD.encode(json)).unwrap_or_default()
    }

    fn parse(text: &str) -> Option<Self> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }
}

/// The kinds of list, by what their cursors hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listing {
    /// Connections and syncs.
    ByCreation,
    /// Objects.
    Objects,
    /// What a coordinator counts: jobs and dead letters.
    Counted,
}

impl Listing {
    fn fits(self, cursor: &Cursor) -> bool {
        matches!(
            (self, cursor),
            (Self::ByCreation, Cursor::Created { .. })
                | (Self::Objects, Cursor::Object(_))
                | (Self::Counted, Cursor::Offset { .. })
        )
    }
}

/// The page that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageRequest {
    /// What links to other pages begin with: the answer of [`ListFields::done`].
    pub(crate) list_url: String,
    pub(crate) limit: u64,
    /// Counted from the cursor, if there is one.
    pub(crate) offset: u64,
    pub(crate) cursor: Option<Cursor>,
    pub(crate) include_total: bool,
}

impl PageRequest {
    /// Reads `limit|page_size`, `offset`, `page`, `cursor|next_cursor|after`, `include_total`.
    pub(crate) fn read(fields: &mut ListFields<'_>, listing: Listing) -> Self {
        let limit = fields.integer("limit", 1, PAGE_MAX);
        let page_size = fields.integer("page_size", 1, PAGE_MAX);
        if let (Some(limit), Some(page_size)) = (limit, page_size)
            && limit != page_size
        {
            let message = "`limit` and `page_size` mean the same and differ: send one of them.".to_owned();
            fields.problem("page_size", "value_error", message);
        }
        let limit = limit.or(page_size).unwrap_or(PAGE_DEFAULT);
        let offset = fields.integer("offset", 0, OFFSET_MAX);
        let page = fields.integer("page", 1, OFFSET_MAX);
        let from_page = page.map(|page| (page - 1).saturating_mul(limit));
        if let (Some(offset), Some(from_page)) = (offset, from_page)
            && offset != from_page
        {
            let message = "`page` and `offset` begin at different items: send one of them.".to_owned();
            fields.problem("page", "value_error", message);
        }
        let offset = offset.or(from_page).unwrap_or(0);
        if offset > OFFSET_MAX {
            let message = format!(
                "This page begins at item {offset}; the largest offset is {OFFSET_MAX}. To read on, follow \
                 `next_cursor`."
            );
            fields.problem("page", "less_than_equal", message);
        }
        let cursor = read_cursor(fields, listing);
        let include_total = fields.flag("include_total").unwrap_or(false);
        Self { list_url: String::new(), limit, offset, cursor, include_total }
    }

    /// Which section of a list by creation it is.
    pub(crate) fn section(&self) -> Section {
        let after = match &self.cursor {
            Some(Cursor::Created { at, id }) => Some((*at, id.clone())),
            _ => None,
        };
        Section { after, offset: self.offset, limit: self.limit }
    }

    /// How many items to pass over in a list that is counted.
    pub(crate) fn begin(&self) -> u64 {
        self.offset.saturating_add(match self.cursor {
            Some(Cursor::Offset { n }) => n,
            _ => 0,
        })
    }
}

/// The cursor, under any of its names.
fn read_cursor(fields: &mut ListFields<'_>, listing: Listing) -> Option<Cursor> {
    let mut found: Option<(&str, String)> = None;
    for name in ["cursor", "next_cursor", "after"] {
        match (fields.text(name, 0, usize::MAX), &found) {
            (Some(text), Some((first, other))) if text != *other => {
                let message = format!("`{first}` and `{name}` mean the same and differ: send one of them.");
                fields.problem(name, "value_error", message);
            }
            (Some(text), None) => found = Some((name, text)),
            _ => {}
        }
    }
    let (name, text) = found?;
    let cursor = Cursor::parse(&text).filter(|cursor| listing.fits(cursor));
    if cursor.is_none() {
        let message = format!("`{name}` is not a cursor of this list. Send the `next_cursor` of the previous page.");
        fields.problem(name, "value_error", message);
    }
    cursor
}

/// The `pagination` object. Its links are to be followed by the method that asked for this page.
pub(crate) fn render_pagination(page: &PageRequest, total: Option<u64>, next: Option<&Cursor>) -> Value {
    let counted = page.cursor.is_none();
    let next_cursor = next.map(Cursor::to_text);
    let link = |offset: u64| format!("{}limit={}&offset={offset}", page.list_url, page.limit);
    let next_page = match &next_cursor {
        Some(_) if counted && page.offset + page.limit <= OFFSET_MAX => Some(link(page.offset + page.limit)),
        Some(cursor) => Some(format!("{}limit={}&cursor={cursor}", page.list_url, page.limit)),
        None => None,
    };
    let previous_page = (counted && page.offset > 0).then(|| link(page.offset.saturating_sub(page.limit)));
    json!({
        "total": total,
        "page": counted.then(|| page.offset / page.limit.max(1) + 1),
        "page_size": page.limit,
        "total_pages": total.map(|total| total.div_ceil(page.limit.max(1))),
        "next_page": next_page,
        "previous_page": previous_page,
        "next_cursor": next_cursor,
    })
}

/// A section of a list by creation, as the client reads it. `key` is when an item was created, and its id.
pub(crate) fn render_section<T>(
    page: &PageRequest,
    section: &Rows<T>,
    key: impl Fn(&T) -> (Timestamp, &str),
    render: impl Fn(&T) -> Value,
) -> Value {
    let last = section.rows.last().filter(|_| section.more).map(key);
    let next = last.map(|(at, id)| Cursor::Created { at, id: id.to_owned() });
    render_list(page, section.rows.iter().map(render).collect(), Some(section.total), next.as_ref())
}

/// A list, as the client reads it.
pub(crate) fn render_list(page: &PageRequest, results: Vec<Value>, total: Option<u64>, next: Option<&Cursor>) -> Value {
    let pagination = render_pagination(page, total, next);
    json!({"results": results, "pagination": pagination, "total": render::integer(total.unwrap_or(0))})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::query::Query;

    fn parse(query: &str) -> Result<PageRequest, Vec<String>> {
        let (query, mut problems) = (Query::parse("/v1/x/", query), Vec::new());
        let mut fields = ListFields::parse(&query, b"", &mut problems).unwrap();
        let mut page = PageRequest::read(&mut fields, Listing::ByCreation);
        fields.text("prefix", 0, 9);
        page.list_url = fields.done();
        if problems.is_empty() { Ok(page) } else { Err(problems.into_iter().map(|p| p.location.join(".")).collect()) }
    }

    #[test]
    fn names_of_the_same_thing() {
        assert_eq!(parse("").unwrap().limit, PAGE_DEFAULT);
        assert_eq!(parse("page_size=7&limit=7").unwrap().limit, 7);
        assert_eq!(parse("limit=7&page=3").unwrap().offset, 14);
        assert!(parse("include_total=True").unwrap().include_total);
        assert_eq!(parse("limit=&cursor=").unwrap().cursor, None);
        let cursor = Cursor::Created { at: Timestamp::from_millis(5), id: "x".into() };
        for name in ["cursor", "next_cursor", "after"] {
            assert_eq!(parse(&format!("{name}={}", cursor.to_text())).unwrap().cursor, Some(cursor.clone()));
        }
    }

    #[test]
    fn bounds() {
        for wrong in ["limit=0", "limit=1001", "limit=x", "limit=-1"] {
            assert_eq!(parse(wrong).unwrap_err(), ["query.limit"]);
        }
        assert_eq!(parse("limit=1&page_size=2").unwrap_err(), ["query.page_size"]);
        assert_eq!(parse("offset=10001").unwrap_err(), ["query.offset"]);
        assert_eq!(parse("limit=1000&page=12").unwrap_err(), ["query.page"]);
        assert_eq!(parse("page=2&offset=1").unwrap_err(), ["query.page"]);
        assert_eq!(parse("cursor=x&include_total=maybe&offset=x").unwrap_err().len(), 3);
        let other = Cursor::Offset { n: 1 }.to_text();
        assert_eq!(parse(&format!("cursor={other}")).unwrap_err(), ["query.cursor"]);
    }

    fn created(item: &(i64, String)) -> (Timestamp, &str) {
        (Timestamp::from_millis(item.0), &item.1)
    }

    #[test]
    fn cursors_reach_every_item_once_even_when_items_come_and_go() {
        let mut items: Vec<(i64, String)> = (0..10).map(|i| (100 - i / 3, format!("x{i}"))).collect();
        items.sort_by(|a, b| created(b).cmp(&created(a)));
        let all = items.clone();
        let mut page = parse("limit=3").unwrap();
        let mut seen = Vec::new();
        loop {
            let section = page.section().of(items.clone(), created);
            let answer = render_section(&page, &section, created, |item| json!(item));
            seen.extend(section.rows);
            let Some(text) = answer["pagination"]["next_cursor"].as_str() else { break };
            page = parse(&format!("limit=3&cursor={text}")).unwrap();
            items.insert(0, (1_000, format!("new{}", seen.len()))); // A newer one appears, the last one seen goes.
            items.retain(|item| Some(item) != seen.last());
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn links() {
        let page = parse("limit=10&offset=10&prefix=a%26%2Fb+c&page=2").unwrap();
        let next = Cursor::Offset { n: 20 };
        let rendered = render_pagination(&page, Some(25), Some(&next));
        assert_eq!(rendered["page"], 2);
        assert_eq!(rendered["total_pages"], 3);
        assert_eq!(rendered["next_page"], "/v1/x?prefix=a%26%2Fb%20c&limit=10&offset=20");
        assert_eq!(rendered["previous_page"], "/v1/x?prefix=a%26%2Fb%20c&limit=10&offset=0");
        let last = render_pagination(&page, None, None);
        assert_eq!(
            (&last["next_page"], &last["next_cursor"], &last["total"]),
            (&Value::Null, &Value::Null, &Value::Null)
        );
    }
}
