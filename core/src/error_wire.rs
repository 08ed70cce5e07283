//! [`Error`] as JSON, for calls that cross from one part of a deployment to another. Both are always of the same
//! deployment, so this is no stored format.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Retry};

/// An [`Error`], field by field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorWire {
    kind: String,
    retry: RetryWire,
    message: String,
    advice: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    attempts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RetryWire {
    Permanent,
    Temporary,
    Exhausted,
}

impl From<&Error> for ErrorWire {
    fn from(error: &Error) -> Self {
        Self {
            kind: error.kind().as_str().to_owned(),
            retry: match error.retry() {
                Retry::Permanent => RetryWire::Permanent,
                Retry::Temporary => RetryWire::Temporary,
                Retry::Exhausted => RetryWire::Exhausted,
            },
            message: error.message().to_owned(),
            advice: error.advice().to_owned(),
            status: error.status(),
            code: error.code().map(str::to_owned),
            field: error.field().map(str::to_owned),
            retry_after_ms: error.retry_after_ms(),
            attempts: error.attempts(),
        }
    }
}

impl From<Error> for ErrorWire {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<ErrorWire> for Error {
    fn from(wire: ErrorWire) -> Self {
        // A kind that this deployment does not know can only come from a defect.
        let kind = wire.kind.parse().unwrap_or(ErrorKind::Internal);
        let retry = match wire.retry {
            RetryWire::Permanent => Retry::Permanent,
            RetryWire::Temporary => Retry::Temporary,
            RetryWire::Exhausted => Retry::Exhausted,
        };
        let mut error = Self::new(kind, wire.message, wire.advice)
            .with_retry(retry)
            .with_retry_after_ms(wire.retry_after_ms)
            .with_attempts(wire.attempts);
        if let Some(status) = wire.status {
            error = error.with_response(status, wire.code.as_deref());
        }
        match wire.field {
            Some(field) => error.with_field(field),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use strum::VariantArray;

    use super::*;

    #[test]
    fn every_error_comes_back_as_it_was() {
        for kind in ErrorKind::VARIANTS.iter().copied() {
            for retry in [Retry::Permanent, Retry::Temporary, Retry::Exhausted] {
                let error = Error::new(kind, "What.", "Do.")
                    .with_retry(retry)
                    .with_response(503, Some("SlowDown"))
                    .with_field("source_path")
                    .with_retry_after_ms(Some(1500))
                    .with_attempts(4);
                let json = serde_json::to_string(&ErrorWire::from(&error)).unwrap();
                assert_eq!(Error::from(serde_json::from_str::<ErrorWire>(&json).unwrap()), error);
            }
            let bare = Error::new(kind, "What.", "Do.");
            assert_eq!(Error::from(ErrorWire::from(&bare)), bare);
        }
    }
}
