//! The Durable Object that holds the bucket objects of one target bucket. A stub.

use crate::answer;
use serde_json::json;
use worker::{DurableObject, Env, Request, Response, Result, SqlStorageValue, State, durable_object};

/// Bucket objects, with their metadata.
#[durable_object(fetch)]
pub struct Catalogue {
    state: State,
}

impl Catalogue {
    /// Text and bytes, through SQLite and back. Bytes are read through `raw`: a row read as a struct has no place for
    /// a JavaScript `ArrayBuffer`.
    fn ping(&self) -> Result<Response> {
        let bindings = vec!["ping".into(), vec![0_u8, 159, 255].into()];
        let row =
            self.state.storage().sql().exec("SELECT ? AS text, ? AS bytes", bindings)?.raw().next().transpose()?;
        match row.as_deref() {
            Some([SqlStorageValue::String(text), SqlStorageValue::Blob(bytes)]) => {
                Response::from_json(&json!({ "class": "Catalogue", "text": text, "bytes": bytes }))
            }
            other => Err(format!("SQLite gave back another row: {other:?}.").into()),
        }
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
