//! The Durable Object that holds the bucket objects of one target bucket, in SQLite.
//!
//! One statement applies a whole run of changes: `json_each` reads them, and the upsert decides as
//! [`b2sync_service::catalogue::plan_row`] does; `tests/tests/objects.rs` holds it to that.

use std::{cell::Cell, mem};

use b2sync_core::{Error, change::ChangeKind, ids};
use b2sync_service::catalogue::{
    CatalogueAnswer, CatalogueApply, CatalogueCall, ChangeWire, ObjectCursor, ObjectPage, ObjectQuery, ObjectRecord,
};
use serde::Deserialize;
use worker::{DurableObject, Env, Request, Response, Result, SqlStorage, State, durable_object};

use crate::{
    bindings::reply,
    failure::storage_error,
    sql::{self, Conditions},
};

const SCHEMA: [&str; 4] = [
    "CREATE TABLE IF NOT EXISTS applied (sync_id TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS objects (object_id TEXT PRIMARY KEY, bucket_id TEXT NOT NULL, sync_id TEXT NOT NULL, \
     connection_id TEXT NOT NULL, source_bucket TEXT NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, size INTEGER NOT \
     NULL, last_modified INTEGER NOT NULL, change_id TEXT NOT NULL, version INTEGER NOT NULL, created_at INTEGER NOT \
     NULL, updated_at INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS objects_by_key ON objects (key, object_id)",
    // What one sync has is counted and removed without a look at what others have.
    "CREATE INDEX IF NOT EXISTS objects_by_sync ON objects (sync_id)",
];

/// Up to which position the changes of a sync are applied. Written in the transaction of the rows, so that each change
/// is applied exactly once.
const MOVE_APPLIED: &str = "INSERT INTO applied (sync_id, position) VALUES (?1, ?2) \
    ON CONFLICT (sync_id) DO UPDATE SET position = max(position, excluded.position)";

/// The position of a sync that was removed: the largest number that JavaScript counts exactly.
const DROPPED: i64 = (1 << 53) - 1;

const PUT: &str = "INSERT INTO objects (object_id, bucket_id, sync_id, connection_id, source_bucket, key, etag, size, \
    last_modified, change_id, version, created_at, updated_at) \
    SELECT value ->> 0, ?1, ?2, ?3, ?4, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, 1, ?5, ?5 \
    FROM json_each(?6) WHERE true \
    ON CONFLICT (object_id) DO UPDATE SET bucket_id = excluded.bucket_id, connection_id = excluded.connection_id, \
    source_bucket = excluded.source_bucket, etag = excluded.etag, size = excluded.size, \
    last_modified = excluded.last_modified, change_id = excluded.change_id, version = version + 1, \
    updated_at = excluded.updated_at";

/// A statement takes rows until they are this long, in bytes. A row more has some kilobytes at most, and a value of a
/// Durable Object's SQLite at most 2 MB.
const STATEMENT_BYTES: usize = 1 << 20;

/// An [`ObjectRecord`] as JSON: its fields in their order. JSON's numbers are exact; JavaScript's are not beyond
/// 2^53 - 1.
const OBJECT: &str = "json_array(object_id, bucket_id, sync_id, connection_id, source_bucket, key, etag, size, \
    last_modified, change_id, version, created_at, updated_at)";

#[derive(Deserialize)]
struct Count {
    count: u64,
}

#[derive(Deserialize)]
struct Applied {
    position: u64,
}

/// Bucket objects, with their metadata.
#[durable_object(fetch)]
pub struct Catalogue {
    sql: SqlStorage,
    /// Whether this instance has created the tables. Nothing drops them.
    opened: Cell<bool>,
}

impl Catalogue {
    fn answer(&self, body: &str) -> Result<CatalogueAnswer, Error> {
        let call: CatalogueCall = serde_json::from_str(body)
            .map_err(|error| Error::internal(format!("A call to a catalogue does not decode: {error}.")))?;
        self.call(call).map_err(|error| storage_error("catalogue", error))
    }

    /// No await inside: what one call writes is written as a whole.
    fn call(&self, call: CatalogueCall) -> Result<CatalogueAnswer> {
        if !self.opened.get() {
            SCHEMA.iter().try_for_each(|statement| self.sql.exec(statement, None).map(|_| ()))?;
            self.opened.set(true);
        }
        Ok(match call {
            CatalogueCall::Apply(apply) => {
                self.apply(&apply)?;
                CatalogueAnswer::Applied { refusals: vec![None; apply.changes.len()] }
            }
            CatalogueCall::Get { object_id } => CatalogueAnswer::Object {
                object: sql::json_rows(
                    &self.sql,
                    &format!("SELECT {OBJECT} FROM objects WHERE object_id = ?"),
                    vec![object_id.into()],
                )?
                .pop()
                .map(Box::<ObjectRecord>::new),
            },
            CatalogueCall::List { query } => CatalogueAnswer::Page { page: self.list(&query)? },
            CatalogueCall::Count { sync_id } => CatalogueAnswer::Count {
                count: self.count(&Conditions::new("true", Vec::new()).and("sync_id = ?", sync_id))?,
            },
            CatalogueCall::Remove { object_id } => self.remove("object_id = ?", object_id)?,
            CatalogueCall::ClearSync { sync_id } => self.remove("sync_id = ?", sync_id)?,
            CatalogueCall::DropSync { sync_id } => {
                // A delivery that comes late is behind it, and is passed over.
                self.sql.exec(MOVE_APPLIED, vec![sync_id.clone().into(), DROPPED.into()])?;
                self.remove("sync_id = ?", sync_id)?
            }
        })
    }

    /// Removes the objects that meet the condition, and says how many there were.
    fn remove(&self, condition: &str, id: String) -> Result<CatalogueAnswer> {
        let conditions = Conditions::new(condition, vec![id.into()]);
        let count = self.count(&conditions)?;
        if count > 0 {
            self.sql.exec(&format!("DELETE FROM objects WHERE {condition}"), conditions.bindings)?;
        }
        Ok(CatalogueAnswer::Count { count })
    }

    fn apply(&self, apply: &CatalogueApply) -> Result<()> {
        let applied = sql::first::<Applied>(
            &self.sql,
            "SELECT position FROM applied WHERE sync_id = ?",
            vec![apply.sync_id.clone().into()],
        )?;
        let changes = apply.behind(applied.map_or(0, |row| row.position));
        let Some(last) = changes.last() else { return Ok(()) };
        let deletes = |change: &ChangeWire| change.kind == ChangeKind::Deleted;
        for run in changes.chunk_by(|a, b| deletes(a) == deletes(b)) {
            let object_id = |change: &ChangeWire| ids::object_id(&apply.sync_id, &change.key);
            if run.first().is_some_and(deletes) {
                let ids = serde_json::to_string(&run.iter().map(object_id).collect::<Vec<_>>())?;
                self.sql.exec(
                    "DELETE FROM objects WHERE object_id IN (SELECT value FROM json_each(?))",
                    vec![ids.into()],
                )?;
                continue;
            }
            self.put(apply, run)?;
        }
        let position = i64::try_from(last.position).unwrap_or(i64::MAX);
        self.sql.exec(MOVE_APPLIED, vec![apply.sync_id.clone().into(), position.into()])?;
        Ok(())
    }

    /// Creates and updates, in as few statements as the longest value of SQLite allows.
    fn put(&self, apply: &CatalogueApply, changes: &[ChangeWire]) -> Result<()> {
        let mut rows = Vec::with_capacity(STATEMENT_BYTES.min(changes.len() * 256));
        let mut changes = changes.iter().peekable();
        while let Some(it) = changes.next() {
            rows.push(if rows.is_empty() { b'[' } else { b',' });
            let object_id = ids::object_id(&apply.sync_id, &it.key);
            // SQLite's integers end at 2^63 - 1.
            let size = it.size.min(i64::MAX as u64);
            let row = (object_id, &it.key, &it.etag, size, it.last_modified.as_millis(), &it.id);
            serde_json::to_writer(&mut rows, &row)?;
            if rows.len() < STATEMENT_BYTES && changes.peek().is_some() {
                continue;
            }
            rows.push(b']');
            let rows = String::from_utf8(mem::take(&mut rows)).map_err(|error| error.to_string())?;
            self.sql.exec(
                PUT,
                vec![
                    apply.bucket_id.clone().into(),
                    apply.sync_id.clone().into(),
                    apply.connection_id.clone().into(),
                    apply.source_bucket.clone().into(),
                    apply.at.as_millis().into(),
                    rows.into(),
                ],
            )?;
        }
        Ok(())
    }

    fn list(&self, query: &ObjectQuery) -> Result<ObjectPage> {
        // A prefix is a range of keys: from itself to before the first text that sorts behind all it begins.
        let prefix = query.prefix.as_deref();
        let end = Conditions::new("true", Vec::new()).and("key < ?", prefix.and_then(after_prefix));
        let whole = end.clone().and("key >= ?", prefix);
        let total = query.include_total.then(|| self.count(&whole)).transpose()?;
        // One lower bound, the higher of both: with two of them SQLite would seek the lower and read what lies between.
        let range = match &query.cursor {
            Some(ObjectCursor { key, object_id }) if prefix.is_none_or(|prefix| key.as_str() >= prefix) => {
                let mut range = end;
                range.sql += " AND (key, object_id) > (?, ?)";
                range.bindings.extend([key.as_str().into(), object_id.as_str().into()]);
                range
            }
            _ => whole,
        };
        let limit = query.limit.max(1);
        let Conditions { sql, mut bindings } = range;
        bindings.extend([(i64::from(limit) + 1).into(), i64::from(query.offset).into()]);
        let statement = format!("SELECT {OBJECT} FROM objects WHERE {sql} ORDER BY key, object_id LIMIT ? OFFSET ?");
        let mut objects: Vec<ObjectRecord> = sql::json_rows(&self.sql, &statement, bindings)?;
        let more = objects.len() > limit as usize;
        objects.truncate(limit as usize);
        let next = objects
            .last()
            .filter(|_| more)
            .map(|last| ObjectCursor { key: last.key.clone(), object_id: last.object_id.clone() });
        Ok(ObjectPage { objects, next, total })
    }

    fn count(&self, range: &Conditions) -> Result<u64> {
        let statement = format!("SELECT count(*) AS count FROM objects WHERE {}", range.sql);
        Ok(sql::first::<Count>(&self.sql, &statement, range.bindings.clone())?.map_or(0, |row| row.count))
    }
}

/// The first text that sorts, by UTF-8 bytes, behind everything that begins with `prefix`; `None` when nothing does.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

impl DurableObject for Catalogue {
    fn new(state: State, _env: Env) -> Self {
        Self { sql: state.storage().sql(), opened: Cell::new(false) }
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        let body = request.text().await?;
        reply(self.answer(&body))
    }
}
