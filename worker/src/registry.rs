//! The Durable Object that holds configuration which must be readable right after it was written. A stub.

use crate::{answer, sql};
use serde::Deserialize;
use serde_json::json;
use worker::{DurableObject, Env, Request, Response, Result, SqlStorage, State, console_error, durable_object};

/// Connections and syncs, strongly consistent.
#[durable_object(fetch)]
pub struct Registry {
    sql: SqlStorage,
}

#[derive(Deserialize)]
struct Count {
    pings: i64,
}

impl Registry {
    fn ping(&self) -> Result<Response> {
        let query = "INSERT INTO ping (id, pings) VALUES (?, 1) \
                     ON CONFLICT (id) DO UPDATE SET pings = pings + 1 RETURNING pings";
        let count: Option<Count> = sql::first(&self.sql, query, vec!["main".into()])?;
        Response::from_json(&json!({ "class": "Registry", "pings": count.map(|count| count.pings) }))
    }
}

impl DurableObject for Registry {
    fn new(state: State, _env: Env) -> Self {
        let sql = state.storage().sql();
        if let Err(error) = sql.exec("CREATE TABLE IF NOT EXISTS ping (id TEXT PRIMARY KEY, pings INTEGER)", None) {
            console_error!("Registry: {error}");
        }
        Self { sql }
    }

    async fn fetch(&self, _req: Request) -> Result<Response> {
        answer(self.ping())
    }
}
