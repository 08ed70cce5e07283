//! The one public error: what went wrong, whether to try again, and what to do next.

use std::fmt;

/// What kind of thing went wrong. One `match` over it decides the HTTP answer; see `b2sync_service::api`. That it is
/// exhaustive lets the compiler name that `match` when a kind is added.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum ErrorKind {
    /// The caller's input breaks a rule that the message names.
    InvalidInput,
    /// Key id or application key is wrong, or the key was deleted.
    BadCredentials,
    /// The application key has expired.
    KeyExpired,
    /// The application key lacks a capability (`listFiles`, `readFiles`, …).
    CapabilityMissing,
    /// The application key is restricted to other buckets.
    BucketNotAllowed,
    /// The application key is restricted to another name prefix.
    PrefixNotAllowed,
    /// No such bucket in this account; the name may be differently cased.
    BucketNotFound,
    /// Refused for a reason that B2 did not name.
    AccessDenied,
    /// A spending cap of the B2 account is reached; no retry helps within a run.
    CapExceeded,
    /// Too many requests.
    RateLimited,
    /// B2 is busy or failing (5xx).
    ServiceUnavailable,
    /// No complete response: time-out, refused or broken connection.
    Transport,
    /// B2's clock and ours differ too much for a signature.
    ClockSkew,
    /// The answer is not what the protocol says.
    MalformedResponse,
    /// Keys arrive in no order that a listing may have.
    ListingOrder,
    /// The listing does not advance: repeated token, truncated without a token, or a page that goes backwards.
    ListingStuck,
    /// The listing would delete more than the limit allows; the user must confirm.
    TooManyDeletions,
    /// A stored segment, index, checkpoint or root is missing.
    StateMissing,
    /// A stored value does not decode, or is of a newer version.
    StateCorrupt,
    /// Another writer moved the document first.
    StateConflict,
    /// A store could not be read or written.
    Storage,
    /// The sink did not take the changes.
    Sink,
    /// Changes that were asked for are no longer in the feed.
    FeedGap,
    /// A sealed secret cannot be opened: another master key, or the ciphertext was altered.
    Sealing,
    /// No such connection, sync, job or object.
    NotFound,
    /// The name is taken, or the state does not allow the call.
    Conflict,
    /// The request carries no valid API key.
    Unauthorized,
    /// The deployment lacks a secret or a variable, or has one that is unreadable.
    Misconfigured,
    /// A defect of b2sync itself.
    Internal,
}

impl ErrorKind {
    /// The kind in snake case, as it is stored and shown: `bad_credentials`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Whether the same call may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Retry {
    /// The same call fails again until something is changed.
    Permanent,
    /// The same call may succeed in a moment.
    Temporary,
    /// It was [`Retry::Temporary`], and all retries are used up; a later run may succeed.
    Exhausted,
}

/// What went wrong, with the user's own input in it, and what to do next. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    kind: ErrorKind,
    retry: Retry,
    message: String,
    advice: String,
    code: Option<String>,
    status: Option<u16>,
    field: Option<String>,
    retry_after_ms: Option<u64>,
    attempts: u32,
}

impl Error {
    /// A permanent error. `message` says what is wrong, `advice` what to do next; both are whole sentences.
    pub fn new(kind: ErrorKind, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            retry: Retry::Permanent,
            message: message.into(),
            advice: advice.into(),
            code: None,
            status: None,
            field: None,
            retry_after_ms: None,
            attempts: 1,
        }))
    }

    /// A defect of b2sync itself: something that cannot happen did.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message, "This is a defect of b2sync: please report it with this message.")
    }

    /// The same error with another retry behaviour.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// The same error with other advice.
    #[must_use]
    pub fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.0.advice = advice.into();
        self
    }

    /// The same error, with the response it came from: its status and, where there is one, B2's error code.
    #[must_use]
    pub fn with_response(mut self, status: u16, code: Option<&str>) -> Self {
        self.0.status = Some(status);
        self.0.code = code.map(str::to_owned);
        self
    }

    /// The same error, saying which field of the input is meant (`provider_config.credentials.key_id`).
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// The same error, with the wait that the server asked for.
    #[must_use]
    pub fn with_retry_after_ms(mut self, millis: Option<u64>) -> Self {
        self.0.retry_after_ms = millis;
        self
    }

    /// The same error after `attempts` tries.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.0.attempts = attempts;
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether to try again.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// Whether the same call may succeed later although nothing is changed.
    pub fn is_transient(&self) -> bool {
        self.0.retry != Retry::Permanent
    }

    /// What is wrong, one sentence.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do next.
    pub fn advice(&self) -> &str {
        &self.0.advice
    }

    /// The status of the response that this came from.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// B2's own error code (`AccessDenied`, `bad_auth_token`, …).
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The field of the input that is wrong.
    pub fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// The wait that the server asked for, in milliseconds.
    pub fn retry_after_ms(&self) -> Option<u64> {
        self.0.retry_after_ms
    }

    /// How often it was tried.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }
}

/// `<message> <advice>`, and in brackets what B2 said.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.message, self.0.advice)?;
        match (self.0.status, &self.0.code) {
            (Some(status), Some(code)) => write!(f, " [B2 answered {status} {code}]"),
            (Some(status), None) => write!(f, " [B2 answered {status}]"),
            (None, _) => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// How much of a wrong input an error quotes, in characters.
pub const QUOTE_CHARS_MAX: usize = 200;

/// `text` in quotation marks, control characters escaped, cut at `QUOTE_CHARS_MAX`.
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTE_CHARS_MAX) {
        None => format!("{text:?}"),
        Some((cut, _)) => format!("{:?}…", text.get(..cut).unwrap_or(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotation_is_escaped_and_cut() {
        assert_eq!(quoted("a\"b\n日"), r#""a\"b\n日""#);
        assert_eq!(quoted(&"日".repeat(200)).chars().count(), 202);
        assert_eq!(quoted(&"日".repeat(201)), format!("\"{}\"…", "日".repeat(200)));
    }
}
