//! The Durable Object that reads ranges of a listing for a coordinator, or pokes syncs for the cron: it has
//! connections, calls and memory of its own. It stores nothing.

use b2sync_core::Error;
use b2sync_service::{
    coordinator::ranges::{RangeAnswer, RangeCall, read_range},
    watchdog::{Part, PartDone},
};
use worker::{DurableObject, Env, Request, Response, Result, State, durable_object};

use crate::{
    bindings::{Bindings, ShardCall, reply},
    config,
    fetch::Fetcher,
    platform::Platform,
};

/// One shard of one sync, or of the cron.
#[durable_object]
pub struct Shard {
    env: Env,
}

impl Shard {
    async fn read(&self, call: RangeCall) -> Result<RangeAnswer, Error> {
        read_range(&Fetcher, &Platform, &Platform, &config::coordinator(&self.env)?, call).await
    }

    async fn poke(&self, part: Part) -> Result<PartDone, Error> {
        Ok(Bindings::of(&self.env)?.poke_part(part).await)
    }
}

impl DurableObject for Shard {
    fn new(_: State, env: Env) -> Self {
        Self { env }
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        let body = request.text().await?;
        match serde_json::from_str(&body) {
            Ok(ShardCall::Range(call)) => reply(self.read(call).await),
            Ok(ShardCall::Poke(part)) => reply(self.poke(part).await),
            Err(error) => reply::<()>(Err(Error::internal(format!("A call to a shard does not decode: {error}.")))),
        }
    }
}
