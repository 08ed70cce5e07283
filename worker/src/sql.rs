//! The few lines between a Durable Object's SQLite and Rust values.
//!
//! `SqlCursor::one` throws a JavaScript exception that Rust cannot catch when there is not exactly one row, so rows
//! are only ever read through [`rows`] and [`first`].

use serde::de::DeserializeOwned;
use worker::{Result, SqlStorage, SqlStorageValue};

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
