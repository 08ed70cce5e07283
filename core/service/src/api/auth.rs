//! Who may call: those who send the API key.

use subtle::ConstantTimeEq;

use b2sync_core::{
    error::{Error, ErrorKind},
    secret::{ExposeSecret, SecretString},
};

const ADVICE: &str = "Send the header `Authorization: Bearer <your API key>`.";

/// The API key that callers must send, as its hash: the key itself is not kept.
pub struct ApiKey(Option<blake3::Hash>);

impl ApiKey {
    /// From the key. An empty key refuses every request.
    pub fn new(key: &SecretString) -> Self {
        let key = key.expose_secret().trim();
        Self((!key.is_empty()).then(|| blake3::hash(key.as_bytes())))
    }

    /// Whether `authorization`, the value of that header, carries the key. Compares hashes, in constant time, so that
    /// neither the key's length nor its beginning can be measured.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthorized`]; [`ErrorKind::Internal`] when no API key is configured.
    pub fn check(&self, authorization: Option<&str>) -> Result<(), Error> {
        let Some(hash) = &self.0 else {
            return Err(Error::new(
                ErrorKind::Internal,
                "This service has no API key configured, so it refuses every request.",
                "Set the secret API_KEY (`wrangler secret put API_KEY`).",
            ));
        };
        let refused = |message: &str| Err(Error::new(ErrorKind::Unauthorized, message, ADVICE));
        let Some(authorization) = authorization else {
            return refused("The request has no API key.");
        };
        let (scheme, token) = authorization.trim().split_once(' ').unwrap_or((authorization, ""));
        if !scheme.eq_ignore_ascii_case("bearer") {
            return refused("The Authorization header is not of the form `Bearer <key>`.");
        }
        if bool::from(blake3::hash(token.trim().as_bytes()).as_bytes().ct_eq(hash.as_bytes())) {
            Ok(())
        } else {
            refused("The API key is not valid.")
        }
    }
}

/// Shows whether there is a key, and nothing of it.
impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "ApiKey([REDACTED])" } else { "ApiKey(none)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_opens() {
        let key = ApiKey::new(&SecretString::from("the-key"));
        for right in ["Bearer the-key", "bearer the-key", "Bearer  the-key ", " Bearer the-key"] {
            assert_eq!(key.check(Some(right)), Ok(()), "{right}");
        }
        for wrong in
            ["", "Bearer", "Bearer ", "Bearer the-ke", "Bearer the-key2", "Basic the-key", "the-key", "Bearer THE-KEY"]
        {
            let error = key.check(Some(wrong)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unauthorized, "{wrong}");
            assert!(error.advice().contains("Authorization: Bearer"));
            assert!(!error.to_string().contains("the-ke"), "{error}");
        }
        assert_eq!(key.check(None).unwrap_err().kind(), ErrorKind::Unauthorized);
        assert_eq!(format!("{key:?}"), "ApiKey([REDACTED])");
    }

    #[test]
    fn without_a_key_every_request_is_refused() {
        for empty in ["", "  "] {
            let key = ApiKey::new(&SecretString::from(empty));
            for header in [None, Some("Bearer "), Some("Bearer"), Some("Bearer x")] {
                assert_eq!(key.check(header).unwrap_err().kind(), ErrorKind::Internal);
            }
        }
    }
}
