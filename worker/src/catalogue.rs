//! The Durable Object that holds the bucket objects of one target bucket. A stub.

use crate::{answer, sql};
use serde::Deserialize;
use serde_json::json;
use worker::{DurableObject, Env, Request, Response, Result, State, durable_object};

/// Bucket objects, with their metadata.
#[durable_object(fetch)]
pub struct Catalogue {
    state: State,
}

#[derive(Deserialize)]
struct Echo {
    text: String,
    bytes: i64,
}

impl Catalogue {
    fn ping(&self) -> Result<Response> {
        let query = "SELECT ? AS text, length(?) AS bytes";
        let bindings = vec!["ping".into(), vec![0_u8, 159, 255].into()];
        let echo: Option<Echo> = sql::first(&self.state.storage().sql(), query, bindings)?;
        let (text, bytes) = echo.map(|echo| (echo.text, echo.bytes)).unzip();
        Response::from_json(&json!({ "class": "Catalogue", "text": text, "blob_bytes": bytes }))
    }
}

impl DurableObject for Catalogue {
    fn new(state: State, _env: Env) -> Self {
        Self { state }
    }

    async fn fetch(&self, _req: Request) -> Result<Response> {
        answer(self.ping())
    }
}
