//! The deployment's bindings as the core's traits: calls to the Durable Objects, as JSON.

use b2sync_core::{Error, error_wire::ErrorWire};
use b2sync_service::{
    api::{ApiKey, Cors},
    catalogue::{CatalogueAnswer, CatalogueCall, Objects, RemoteObjects},
    coordinator::{
        protocol::{Answer, Command},
        ranges::{RangeAnswer, RangeCall},
    },
    registry::{Channel, Registry, RegistryCall, RemoteRegistry},
    seal::MasterKeys,
    watchdog::{self, Part, PartDone},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use worker::{
    Env, Response,
    js_sys::Promise,
    wasm_bindgen::{self, JsCast, JsValue, prelude::wasm_bindgen},
    wasm_bindgen_futures::JsFuture,
    web_sys,
};

use crate::{config, failure::storage_error, kv::Kv};

/// The binding of the shards.
pub(crate) const SHARD: &str = "SHARD";
/// The binding of the registry.
const REGISTRY: &str = "REGISTRY";

/// What a Worker invocation works with.
pub(crate) struct Bindings {
    env: Env,
    api_key: ApiKey,
    master_keys: MasterKeys,
    b2_api_url: String,
    cors: Cors,
}

impl Bindings {
    /// Those of the environment.
    ///
    /// # Errors
    /// [`b2sync_core::ErrorKind::Misconfigured`], also for what only jobs need: every route tells it at once.
    pub(crate) fn of(env: &Env) -> Result<Self, Error> {
        config::budget(env)?;
        Ok(Self {
            env: env.clone(),
            api_key: config::api_key(env)?,
            master_keys: config::master_keys(env)?,
            b2_api_url: config::b2_api_url(env)?,
            cors: config::cors(env)?,
        })
    }

    pub(crate) fn api_key(&self) -> &ApiKey {
        &self.api_key
    }

    pub(crate) fn master_keys(&self) -> &MasterKeys {
        &self.master_keys
    }

    pub(crate) fn b2_api_url(&self) -> &str {
        &self.b2_api_url
    }

    pub(crate) fn cors(&self) -> &Cors {
        &self.cors
    }

    pub(crate) fn registry(&self) -> impl Registry + use<> {
        registry(&self.env)
    }

    pub(crate) fn objects(&self) -> impl Objects + use<> {
        let env = self.env.clone();
        RemoteObjects(async move |namespace_id: &str, bucket_id: &str, call| {
            catalogue(&env, namespace_id, bucket_id, &call).await
        })
    }

    /// Sends a command to the coordinator of a sync.
    pub(crate) async fn coordinator(&self, sync_id: &str, command: &Command) -> Result<Answer, Error> {
        call_object(&self.env, "SYNC_COORDINATOR", sync_id, &(sync_id, command)).await
    }

    /// Pokes syncs.
    pub(crate) async fn poke_part(&self, part: Part) -> PartDone {
        let call = async |sync_id: &str, command: Command| self.coordinator(sync_id, &command).await;
        watchdog::poke_part(&self.registry(), &call, part).await
    }

    pub(crate) fn kv(&self) -> Result<Kv, Error> {
        Kv::of(&self.env)
    }
}

/// The registry of the deployment.
pub(crate) fn registry(env: &Env) -> impl Registry + use<> {
    RemoteRegistry(RegistryObject { env: env.clone() })
}

/// The one [`crate::Registry`] object.
struct RegistryObject {
    env: Env,
}

impl Channel for RegistryObject {
    async fn call<T: DeserializeOwned>(&self, call: &RegistryCall) -> Result<T, Error> {
        call_object(&self.env, REGISTRY, "registry", call).await
    }
}

/// Calls the catalogue of one target bucket.
pub(crate) async fn catalogue(
    env: &Env,
    namespace_id: &str,
    bucket_id: &str,
    call: &CatalogueCall,
) -> Result<CatalogueAnswer, Error> {
    call_object(env, "CATALOGUE", &catalogue_name(namespace_id, bucket_id), call).await
}

/// What a shard is asked. `R` is a [`RangeCall`], or a reference to one.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ShardCall<R> {
    /// To read on in a range. Answer: a [`RangeAnswer`].
    Range(R),
    /// To poke syncs. Answer: a [`PartDone`].
    Poke(Part),
}

/// Has one of a sync's shards read on in a range.
pub(crate) async fn shard(env: &Env, shard: usize, call: &RangeCall) -> Result<RangeAnswer, Error> {
    call_object(env, SHARD, &format!("{}#{shard}", call.sync_id()), &ShardCall::Range(call)).await
}

/// Has a shard of the cron poke syncs: it may make as many calls as this invocation.
pub(crate) async fn poke_elsewhere(env: &Env, number: usize, part: Part) -> Result<PartDone, Error> {
    call_object(env, SHARD, &format!("cron#{number}"), &ShardCall::<RangeCall>::Poke(part)).await
}

/// The name of a bucket's [`crate::Catalogue`] object. Neither part holds a line feed.
fn catalogue_name(namespace_id: &str, bucket_id: &str) -> String {
    format!("{namespace_id}\n{bucket_id}")
}

async fn exchange(env: &Env, binding: &str, name: &str, body: &str) -> worker::Result<String> {
    let stub: ObjectStub = env.durable_object(binding)?.get_by_name(name)?.into_rpc();
    let init = web_sys::RequestInit::new();
    init.set_method("POST");
    init.set_body(&JsValue::from_str(body));
    let response: web_sys::Response = JsFuture::from(stub.fetch("https://object/", &init)?).await?.dyn_into()?;
    let text = JsFuture::from(response.text()?).await?;
    text.as_string().ok_or_else(|| "A Durable Object's answer is not text.".into())
}

#[wasm_bindgen]
extern "C" {
    /// The stub of a Durable Object, called without the `Request` that workers-rs would build first and read back.
    type ObjectStub;
    #[wasm_bindgen(method, catch)]
    fn fetch(this: &ObjectStub, url: &str, init: &web_sys::RequestInit) -> Result<Promise, JsValue>;
}

/// Calls a Durable Object that answers with [`reply`].
async fn call_object<T: DeserializeOwned>(
    env: &Env,
    binding: &str,
    name: &str,
    call: &impl Serialize,
) -> Result<T, Error> {
    let what = match binding {
        "CATALOGUE" => "catalogue",
        REGISTRY => "registry",
        SHARD => "shard",
        _ => "coordinator",
    };
    let call =
        serde_json::to_string(call).map_err(|error| Error::internal(format!("A call does not encode: {error}.")))?;
    let text = exchange(env, binding, name, &call).await.map_err(|error| storage_error(what, error))?;
    match serde_json::from_str::<Result<T, ErrorWire>>(&text) {
        Ok(answer) => answer.map_err(Error::from),
        Err(error) => Err(storage_error(what, error)),
    }
}

/// The other end of [`call_object`].
pub(crate) fn reply<T: Serialize>(answer: Result<T, Error>) -> worker::Result<Response> {
    Response::from_json(&answer.map_err(ErrorWire::from))
}
