//! `Idempotency-Key`: a request that creates something may be sent again, and creates it once.
//!
//! The registry keeps for a day which id a key stands for. The first request draws it; a request with the same key gets
//! what was created under it, or creates it under the same id, should the first have failed.

use super::{
    errors::{ApiError, Problem},
    request::ApiRequest,
    service::{Coordinators, Service},
};
use crate::{
    catalogue::Objects,
    registry::{Claim, Registry},
};
use b2sync_core::{entropy::Entropy, http::HttpClient, time::Clock};

/// The longest key, in characters.
const KEY_CHARS_MAX: usize = 255;

/// What the hash of a request is for, so that no other hash of the same bytes equals it.
const CONTEXT: &str = "b2sync 2026-11 fingerprint of a request with an idempotency key";

/// A request that may be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repeatable {
    /// The key, with what it is for: the same key may be used for another path or namespace.
    key: String,
    /// A hash of the body.
    fingerprint: String,
}

impl Repeatable {
    /// Of a request with the header; `None`: it has none.
    pub(super) fn of(request: &ApiRequest) -> Result<Option<Self>, ApiError> {
        let Some(key) = request.idempotency_key.as_deref().map(str::trim) else { return Ok(None) };
        let is_printable = key.chars().all(|character| character.is_ascii_graphic());
        if key.is_empty() || key.len() > KEY_CHARS_MAX || !is_printable {
            return Err(wrong(format!(
                "The header Idempotency-Key must have 1 to {KEY_CHARS_MAX} printable ASCII characters, without spaces: \
                 a UUID, for example."
            )));
        }
        let namespace = request.namespace()?;
        Ok(Some(Self {
            key: format!("{} {} {namespace} {key}", request.method, request.path),
            fingerprint: blake3::Hasher::new_derive_key(CONTEXT).update(&request.body).finalize().to_hex().to_string(),
        }))
    }
}

fn wrong(message: String) -> ApiError {
    let location = vec!["header".to_owned(), "idempotency-key".to_owned()];
    ApiError::Invalid(vec![Problem { location, kind: "value_error", message }])
}

impl<R: Registry, C: Coordinators, O: Objects, H: HttpClient, K: Clock, E: Entropy> Service<'_, R, C, O, H, K, E> {
    /// The id under which a request creates its record: `fresh`, unless the same request was sent before.
    pub(super) async fn id_of(&self, request: Option<&Repeatable>, fresh: String) -> Result<String, ApiError> {
        let Some(Repeatable { key, fingerprint }) = request else { return Ok(fresh) };
        let claim = Claim { key: key.clone(), fingerprint: fingerprint.clone(), id: fresh, at: self.clock.now() };
        let claimed = self.registry.claim(claim).await?;
        if claimed.fingerprint == *fingerprint {
            return Ok(claimed.id);
        }
        Err(wrong(
            "A request with another body was sent with this Idempotency-Key. Use a new key for each thing that you \
             create."
                .to_owned(),
        ))
    }
}
