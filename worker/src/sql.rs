//! The few lines between a Durable Object's SQLite and Rust values.
//!
//! `SqlCursor::one` throws a JavaScript exception that Rust cannot catch when there is not exactly one row, so rows
//! are only ever read through [`rows`] and [`first`].

use serde::de::DeserializeOwned;
use worker::{
    Result, SqlStorage, SqlStorageValue,
    js_sys::Array,
    wasm_bindgen::{self, JsCast, JsValue, prelude::wasm_bindgen},
};

/// Runs `query` with `?` bound to `bindings`, and reads all its rows.
pub(crate) fn rows<T: DeserializeOwned>(
    sql: &SqlStorage,
    query: &str,
    bindings: Vec<SqlStorageValue>,
) -> Result<Vec<T>> {
    sql.exec(query, bindings)?.to_array()
}

/// The first row, if there is one.
pub(crate) fn first<T: DeserializeOwned>(
    sql: &SqlStorage,
    query: &str,
    bindings: Vec<SqlStorageValue>,
) -> Result<Option<T>> {
    Ok(rows(sql, query, bindings)?.into_iter().next())
}

/// Conditions that rows must all meet, and what is bound to their `?`.
#[derive(Clone)]
pub(crate) struct Conditions {
    pub(crate) sql: String,
    pub(crate) bindings: Vec<SqlStorageValue>,
}

impl Conditions {
    pub(crate) fn new(condition: &str, bindings: Vec<SqlStorageValue>) -> Self {
        Self { sql: condition.to_owned(), bindings }
    }

    /// Adds a condition, if there is a value for it.
    pub(crate) fn and(mut self, condition: &str, value: Option<impl Into<SqlStorageValue>>) -> Self {
        if let Some(value) = value {
            self.sql = format!("{} AND {condition}", self.sql);
            self.bindings.push(value.into());
        }
        self
    }
}

/// Runs a query whose one column is JSON text, and reads all its rows. They cross as one text: to read a row as
/// a JavaScript object costs ten times as much.
pub(crate) fn json_rows<T: DeserializeOwned>(
    sql: &SqlStorage,
    query: &str,
    bindings: Vec<SqlStorageValue>,
) -> Result<Vec<T>> {
    let bindings: Array = bindings.into_iter().map(JsValue::from).collect();
    let statements: &Statements = sql.as_ref().unchecked_ref();
    let rows = Array::from(&statements.exec(query, &bindings)?.raw()?);
    // Each row is an array of one text, and is that text when it is joined.
    let text = rows.join(",").as_string().unwrap_or_default();
    Ok(serde_json::from_str(&format!("[{text}]"))?)
}

#[wasm_bindgen]
extern "C" {
    /// `SqlStorage`, for rows that need no object each.
    type Statements;
    #[wasm_bindgen(method, catch, variadic)]
    fn exec(this: &Statements, query: &str, bindings: &Array) -> Result<Cursor, JsValue>;

    type Cursor;
    /// An iterator of arrays, one a row.
    #[wasm_bindgen(method, catch)]
    fn raw(this: &Cursor) -> Result<JsValue, JsValue>;
}
