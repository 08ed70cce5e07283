//! What the deployment sets: variables and secrets.

use b2sync_core::{
    Error, ErrorKind,
    b2::{account::API_URL, url::parse_base},
    engine::{meter::Budget, thresholds::Thresholds},
    retry::RetryPolicy,
};
use b2sync_service::{
    api::{ApiKey, Cors},
    coordinator::Config,
    seal::MasterKeys,
};
use serde::Deserialize;
use worker::Env;

/// A budget given field by field; what is left out is that of the paid plan.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BudgetFields {
    external_requests_max: u64,
    internal_requests_max: u64,
    wall_ms_max: u64,
    bytes_received_max: u64,
    keys_max: u64,
}

impl Default for BudgetFields {
    fn default() -> Self {
        let Budget { external_requests_max, internal_requests_max, wall_ms_max, bytes_received_max, keys_max } =
            Budget::WORKERS_PAID;
        Self { external_requests_max, internal_requests_max, wall_ms_max, bytes_received_max, keys_max }
    }
}

fn text(env: &Env, name: &str) -> Option<String> {
    // A secret and a variable are read in the same way; `secret` finds both.
    env.secret(name).ok().map(|value| value.to_string()).filter(|value| !value.trim().is_empty())
}

fn missing(name: &str, how: &str) -> Error {
    Error::new(ErrorKind::Misconfigured, format!("This deployment has no {name}."), how)
}

/// What is the same for all coordinators and their shards.
pub(crate) fn coordinator(env: &Env) -> Result<Config, Error> {
    Ok(Config {
        b2_api_url: b2_api_url(env)?,
        master_keys: master_keys(env)?,
        budget: budget(env)?,
        retry: RetryPolicy::DEFAULT,
        sole_instance: true,
        cut_sizes: None,
        thresholds: Thresholds::USUAL,
    })
}

/// Who may call the API.
pub(crate) fn api_key(env: &Env) -> Result<ApiKey, Error> {
    let key = text(env, "API_KEY")
        .ok_or_else(|| missing("API_KEY", "Set it: `openssl rand -hex 32 | npx wrangler secret put API_KEY`."))?;
    Ok(ApiKey::new(&key.into()))
}

/// What application keys are sealed with.
pub(crate) fn master_keys(env: &Env) -> Result<MasterKeys, Error> {
    let keys = text(env, "MASTER_KEY").ok_or_else(|| {
        missing("MASTER_KEY", "Set it: `echo \"k1:$(openssl rand -base64 32)\" | npx wrangler secret put MASTER_KEY`.")
    })?;
    MasterKeys::parse(&keys)
}

/// Which web pages may call the API.
pub(crate) fn cors(env: &Env) -> Result<Cors, Error> {
    Cors::parse(&text(env, "CORS_ORIGINS").unwrap_or_default())
}

/// Where B2 is.
pub(crate) fn b2_api_url(env: &Env) -> Result<String, Error> {
    let Some(url) = text(env, "B2_API_URL") else { return Ok(API_URL.to_owned()) };
    match parse_base(&url) {
        Ok(_) => Ok(url),
        Err(error) => Err(Error::new(
            ErrorKind::Misconfigured,
            format!("The variable B2_API_URL cannot be used: {}", error.message()),
            "Remove it, so that Backblaze's own is used, or set it to one such as https://api.backblazeb2.com.",
        )),
    }
}

/// What one step may spend: `STEP_BUDGET` is `paid` (the default), `free`, or a JSON object of limits.
pub(crate) fn budget(env: &Env) -> Result<Budget, Error> {
    let Some(text) = text(env, "STEP_BUDGET") else { return Ok(Budget::WORKERS_PAID) };
    if let Some(budget) = Budget::named(&text) {
        return Ok(budget);
    }
    let fields: BudgetFields = serde_json::from_str(&text).map_err(|error| {
        Error::new(
            ErrorKind::Misconfigured,
            format!("The variable STEP_BUDGET is neither `paid`, `free` nor an object of limits: {error}."),
            "Set it to one of them, or remove it.",
        )
    })?;
    let BudgetFields { external_requests_max, internal_requests_max, wall_ms_max, bytes_received_max, keys_max } =
        fields;
    Ok(Budget { external_requests_max, internal_requests_max, wall_ms_max, bytes_received_max, keys_max })
}
