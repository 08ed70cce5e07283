//! The Durable Object that is the single writer of one sync: its alarm drives the steps. A stub.

use crate::{SINGLETON, answer, not_found};
use serde_json::{Value, json};
use std::time::Duration;
use worker::{Date, DurableObject, Env, Request, Response, Result, State, console_error, durable_object};

/// One sync's state machine. Here it only counts its alarms and remembers the last cron tick.
#[durable_object(alarm)]
pub struct SyncCoordinator {
    state: State,
    env: Env,
}

impl SyncCoordinator {
    async fn route(&self, req: &Request) -> Result<Response> {
        let storage = self.state.storage();
        let number =
            req.url()?.query_pairs().find_map(|(key, value)| if key == "n" { value.parse().ok() } else { None });
        match req.path().as_str() {
            "/ping" => {
                let row: Option<Value> =
                    crate::sql::first(&storage.sql(), "SELECT 40 + ? AS answer", vec![2_i64.into()])?;
                Response::from_json(&json!({ "class": "SyncCoordinator", "row": row }))
            }
            "/arm" => {
                storage.set_alarm(Duration::from_millis(number.unwrap_or(0))).await?;
                Response::from_json(&json!({ "alarm_at_ms": storage.get_alarm().await? }))
            }
            "/tick" => {
                storage.put("last_tick_ms", number.unwrap_or(0)).await?;
                self.show().await
            }
            "/show" => self.show().await,
            // One Durable Object calling another.
            "/registry" => {
                let stub = self.env.durable_object("REGISTRY")?.get_by_name(SINGLETON)?;
                stub.fetch_with_str("https://registry/ping").await
            }
            path => not_found(path),
        }
    }

    async fn show(&self) -> Result<Response> {
        let storage = self.state.storage();
        let alarms: Option<u64> = storage.get("alarms").await?;
        let last_alarm_ms: Option<u64> = storage.get("last_alarm_ms").await?;
        let last_tick_ms: Option<u64> = storage.get("last_tick_ms").await?;
        Response::from_json(&json!({
            "alarms": alarms.unwrap_or(0), "last_alarm_ms": last_alarm_ms, "last_tick_ms": last_tick_ms,
            "alarm_at_ms": storage.get_alarm().await?,
        }))
    }

    async fn step(&self) -> Result<()> {
        let storage = self.state.storage();
        let alarms: Option<u64> = storage.get("alarms").await?;
        storage.put("alarms", alarms.unwrap_or(0) + 1).await?;
        storage.put("last_alarm_ms", Date::now().as_millis()).await
    }
}

impl DurableObject for SyncCoordinator {
    fn new(state: State, env: Env) -> Self {
        Self { state, env }
    }

    async fn fetch(&self, req: Request) -> Result<Response> {
        answer(self.route(&req).await)
    }

    async fn alarm(&self) -> Result<Response> {
        // The platform gives an alarm that fails at most six more tries: an error is logged, never passed on.
        if let Err(error) = self.step().await {
            console_error!("SyncCoordinator alarm: {error}");
        }
        Response::ok("")
    }
}
