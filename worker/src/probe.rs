//! Routes under `/_probe/`: each uses one part of the platform and shows what came of it.

use crate::{SINGLETON, not_found};
use serde_json::json;
use std::time::Duration;
use worker::{
    AbortSignal, Date, Delay, Env, Fetch, Headers, Method, Request, RequestInit, RequestRedirect, Response, Result,
    Url, wasm_bindgen::JsValue, web_sys,
};

/// Tells the coordinator of a cron tick.
pub(crate) async fn tick(env: &Env, at_ms: i64) -> Result<()> {
    let mut answer = durable(env, "SYNC_COORDINATOR", &format!("/tick?n={at_ms}")).await?;
    match answer.status_code() {
        200 => Ok(()),
        status => Err(format!("status {status}: {}", answer.text().await?).into()),
    }
}

pub(crate) async fn route(mut req: Request, env: &Env) -> Result<Response> {
    let url = req.url()?;
    let path = req.path();
    let mut segments = path.trim_start_matches("/_probe/").splitn(2, '/');
    match (segments.next().unwrap_or_default(), segments.next()) {
        ("registry", None) => durable(env, "REGISTRY", "/ping").await,
        ("catalogue", None) => durable(env, "CATALOGUE", "/ping").await,
        ("coordinator", Some(rest)) => {
            let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
            durable(env, "SYNC_COORDINATOR", &format!("/{rest}{query}")).await
        }
        ("kv", Some(key)) => kv(&mut req, env, key).await,
        ("kv", None) => kv_list(&url, env).await,
        ("platform", None) => platform(env).await,
        ("fetch", None) => outgoing(&url).await,
        _ => not_found(&path),
    }
}

async fn durable(env: &Env, binding: &str, path: &str) -> Result<Response> {
    let stub = env.durable_object(binding)?.get_by_name(SINGLETON)?;
    stub.fetch_with_str(&format!("https://object{path}")).await
}

async fn kv(req: &mut Request, env: &Env, key: &str) -> Result<Response> {
    let store = env.kv("STATE")?;
    match req.method() {
        Method::Put => {
            let body = req.bytes().await?;
            store.put_bytes(key, &body)?.execute().await?;
            Response::from_json(&json!({ "stored_bytes": body.len() }))
        }
        Method::Delete => {
            store.delete(key).await?;
            Response::from_json(&json!({ "deleted": key }))
        }
        _ => match store.get(key).bytes().await? {
            Some(bytes) => Response::from_bytes(bytes),
            None => not_found(key),
        },
    }
}

async fn kv_list(url: &Url, env: &Env) -> Result<Response> {
    let mut list = env.kv("STATE")?.list();
    for (name, value) in url.query_pairs() {
        list = match name.as_ref() {
            "prefix" => list.prefix(value.into_owned()),
            "cursor" => list.cursor(value.into_owned()),
            "limit" => list.limit(value.parse().unwrap_or(1_000)),
            _ => list,
        };
    }
    let page = list.execute().await?;
    let names: Vec<&str> = page.keys.iter().map(|key| key.name.as_str()).collect();
    Response::from_json(&json!({ "names": names, "complete": page.list_complete, "cursor": page.cursor }))
}

async fn platform(env: &Env) -> Result<Response> {
    let started_ms = Date::now().as_millis();
    Delay::from(Duration::from_millis(20)).await;
    let ended_ms = Date::now().as_millis();
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|error| error.to_string())?;
    Response::from_json(&json!({
        "now_ms": ended_ms,
        "delayed_ms": ended_ms.saturating_sub(started_ms),
        "random": random,
        "api_key_bytes": env.secret("API_KEY").map(|key| key.to_string().len()).ok(),
        "b2_api_url": env.var("B2_API_URL").map(|url| url.to_string()).ok(),
    }))
}

/// Exchanges one request and body within a time limit, without following redirects.
async fn outgoing(url: &Url) -> Result<Response> {
    let query = |wanted: &str| url.query_pairs().find_map(|(name, value)| (name == wanted).then(|| value.into_owned()));
    let target = query("url").ok_or("The query parameter `url` is missing.")?;
    let timeout_ms = query("timeout_ms").and_then(|value| value.parse().ok()).unwrap_or(1_000);

    let headers = Headers::new();
    headers.set("x-probe", "1")?;
    let mut init = RequestInit::new();
    init.with_method(Method::Post).with_headers(headers).with_redirect(RequestRedirect::Manual);
    init.with_body(Some(JsValue::from_str("hello")));
    let request = Request::new_with_init(&target, &init)?;
    // The signal covers the body as well: it aborts the reading too.
    let signal = AbortSignal::from(web_sys::AbortSignal::timeout_with_u32(timeout_ms));
    let started_ms = Date::now().as_millis();
    let outcome = async {
        let mut response = Fetch::Request(request).send_with_signal(&signal).await?;
        let body = response.bytes().await?;
        Ok::<_, worker::Error>((response.status_code(), body))
    }
    .await;
    let elapsed_ms = Date::now().as_millis().saturating_sub(started_ms);
    Response::from_json(&match outcome {
        Ok((status, body)) => {
            json!({ "status": status, "body": String::from_utf8_lossy(&body), "elapsed_ms": elapsed_ms })
        }
        Err(error) => {
            json!({ "error": error.to_string(), "timed_out": signal.aborted(), "elapsed_ms": elapsed_ms })
        }
    })
}
