//! The Durable Object that reads ranges of a listing for a coordinator: it has connections and memory of its own. It
//! stores nothing.

use b2sync_core::Error;
use b2sync_service::coordinator::ranges::{RangeAnswer, RangeCall, read_range};
use worker::{DurableObject, Env, Request, Response, Result, State, durable_object};

use crate::{bindings::reply, config, fetch::Fetcher, platform::Platform};

/// One shard of one sync.
#[durable_object]
pub struct Shard {
    env: Env,
}

impl Shard {
    async fn answer(&self, body: &str) -> Result<RangeAnswer, Error> {
        let call: RangeCall = serde_json::from_str(body)
            .map_err(|error| Error::internal(format!("A call to a shard does not decode: {error}.")))?;
        read_range(&Fetcher, &Platform, &Platform, &config::coordinator(&self.env)?, call).await
    }
}

impl DurableObject for Shard {
    fn new(_: State, env: Env) -> Self {
        Self { env }
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        let body = request.text().await?;
        reply(self.answer(&body).await)
    }
}
