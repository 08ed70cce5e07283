//! Credentials, and what B2 says they may do: `b2_authorize_account`.
//!
//! The answer gives the S3 endpoint, the region and the restrictions of the application key; nothing of it is guessed.
//! It is cached with the connection ([`StoredAccount`]) and asked for again when a call says it is stale.
//! [`Account::check`] compares the restrictions with a source path *before* anything is listed, so that a user reads
//! "this key may read only bucket X" and not "AccessDenied".
//!
//! B2's own token is not kept: everything after this call is S3, which signs with the application key.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::url::parse_base;
use crate::{
    error::{Error, ErrorKind, quoted},
    http::{HeaderValue, Method, Request},
    secret::{ExposeSecret, SecretString},
    source_path::SourcePath,
    time::Timestamp,
};

/// Backblaze's own API, the default of `api_url` everywhere.
pub const API_URL: &str = "https://api.backblazeb2.com";
/// The longest key id and application key, in bytes. B2's have 25 and 31.
pub const CREDENTIAL_BYTES_MAX: usize = 256;
/// The region of a store that is not Backblaze's: what S3 servers expect that know none.
pub const OTHER_STORE_REGION: &str = "us-east-1";
/// How many bucket names an error lists.
const NAMED_BUCKETS_MAX: usize = 5;

/// An application key with its id. `Debug` does not show the key.
#[derive(Clone, Debug)]
pub struct Credentials {
    key_id: String,
    application_key: SecretString,
}

/// Where the console shows which part.
const COLUMNS: &str =
    "Write the keyID of the Backblaze console into key_id, and the applicationKey into application_key.";

impl Credentials {
    /// Checks both parts; white space around them, as copying leaves it, is dropped.
    ///
    /// ```
    /// use b2sync_core::b2::account::Credentials;
    /// let credentials = Credentials::new(" 005870eff85b6c60000000001\n", "K005secret")?;
    /// assert_eq!(credentials.key_id(), "005870eff85b6c60000000001");
    /// assert!(!format!("{credentials:?}").contains("K005secret"));
    /// # Ok::<(), b2sync_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with the field: empty, longer than [`CREDENTIAL_BYTES_MAX`], with characters that no
    /// header carries, or of the other part's kind. The application key is never quoted.
    pub fn new(key_id: &str, application_key: &str) -> Result<Self, Error> {
        let key_id = key_id.trim();
        let application_key = application_key.trim();
        for (field, name, value) in
            [("key_id", "key id", key_id), ("application_key", "application key", application_key)]
        {
            let wrong = if value.is_empty() {
                "is empty"
            } else if value.len() > CREDENTIAL_BYTES_MAX {
                "is too long"
            } else if !value.bytes().all(|byte| byte.is_ascii_graphic()) || (field == "key_id" && value.contains(':')) {
                "holds a character that none does"
            } else {
                continue;
            };
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("The {name} {wrong}."),
                "Copy it again from the Backblaze console, App Keys. The application key is shown only once; if it is \
                 lost, create a new key.",
            )
            .with_field(format!("provider_config.credentials.{field}")));
        }
        if let Some(error) = Self::swapped(key_id, application_key) {
            return Err(error);
        }
        for (is_other, field, what) in [
            (is_application_key(key_id), "key_id", "The key id looks like an application key."),
            (is_key_id(application_key), "application_key", "The application key looks like a key id."),
        ] {
            if is_other {
                return Err(Error::new(ErrorKind::InvalidInput, what, COLUMNS)
                    .with_field(format!("provider_config.credentials.{field}")));
            }
        }
        Ok(Self { key_id: key_id.to_owned(), application_key: SecretString::from(application_key) })
    }

    /// The error of credentials of which each part stands where the other belongs.
    pub fn swapped(key_id: &str, application_key: &str) -> Option<Error> {
        let are_swapped = is_application_key(key_id.trim()) && is_key_id(application_key.trim());
        are_swapped.then(|| {
            Error::new(ErrorKind::InvalidInput, "The key id and the application key are swapped.", COLUMNS)
                .with_field("provider_config.credentials.key_id")
        })
    }

    /// The key id (`keyID` in the console). Not a secret.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The application key.
    pub fn application_key(&self) -> &SecretString {
        &self.application_key
    }
}

/// Whether that looks like an application key: `K`, three digits, and letters.
fn is_application_key(text: &str) -> bool {
    let is_rest = |rest: &str| rest.chars().take(3).all(|digit| digit.is_ascii_digit());
    text.len() > 25 && text.strip_prefix('K').is_some_and(is_rest)
}

/// Whether that looks like the id of a key: 25 hexadecimal digits, or the 12 of the master key.
fn is_key_id(text: &str) -> bool {
    matches!(text.len(), 12 | 25) && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// The request `GET {api_url}/b2api/v4/b2_authorize_account`
/// ([documentation](https://www.backblaze.com/apidocs/b2-authorize-account)). `api_url` is [`API_URL`] but in tests.
///
/// # Errors
/// [`ErrorKind::InvalidInput`], field `api_url`.
pub fn authorize_request(api_url: &str, credentials: &Credentials) -> Result<Request, Error> {
    let base = parse_base(api_url).map_err(|error| error.with_field("api_url"))?;
    let pair = format!("{}:{}", credentials.key_id, credentials.application_key.expose_secret());
    let mut authorization = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))
        .map_err(|_| Error::internal("The credentials do not fit into a header."))?;
    authorization.set_sensitive(true);
    ::http::Request::builder()
        .method(Method::GET)
        .uri(format!("{base}/b2api/v4/b2_authorize_account"))
        .header(::http::header::AUTHORIZATION, authorization)
        .body(Bytes::new())
        .map_err(|_| Error::internal("The authorization request cannot be built."))
}

/// What B2 says of an application key: where its account lives, and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The account's id.
    pub account_id: String,
    /// `https://s3.us-west-004.backblazeb2.com`, without a slash at its end.
    pub s3_endpoint: String,
    /// `us-west-004`: what a signature is made for.
    pub region: String,
    /// `listFiles`, `readFiles`, …
    pub capabilities: BTreeSet<String>,
    /// The names of the buckets that the key is restricted to; `None` when it may use all. Buckets that were deleted
    /// have no name and are left out, so the list may be empty.
    pub buckets: Option<Vec<String>>,
    /// What every key must begin with.
    pub name_prefix: Option<String>,
    /// When the application key expires.
    pub key_expires_at: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizeWire {
    account_id: String,
    api_info: ApiInfoWire,
    #[serde(default)]
    application_key_expiration_timestamp: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ApiInfoWire {
    storage_api: StorageApiWire,
}

/// v4 has `allowed`; v3 has the other four in its place.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StorageApiWire {
    s3_api_url: String,
    #[serde(default)]
    allowed: Option<AllowedWire>,
    #[serde(default)]
    bucket_id: Option<String>,
    #[serde(default)]
    bucket_name: Option<String>,
    #[serde(default)]
    capabilities: Option<Vec<String>>,
    #[serde(default)]
    name_prefix: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AllowedWire {
    #[serde(default)]
    buckets: Option<Vec<BucketWire>>,
    capabilities: Vec<String>,
    #[serde(default)]
    name_prefix: Option<String>,
}

#[derive(Deserialize)]
struct BucketWire {
    #[serde(default)]
    name: Option<String>,
}

/// Parses the body of a 200 answer of `b2_authorize_account`, of version 4 or 3.
///
/// # Errors
/// [`ErrorKind::MalformedResponse`]: not this JSON, or an S3 URL whose region cannot be told.
pub fn parse_authorize(body: &[u8]) -> Result<Account, Error> {
    let wire: AuthorizeWire =
        serde_json::from_slice(body).map_err(|error| malformed(&format!("it is not as documented ({error})")))?;
    let storage = wire.api_info.storage_api;
    let (buckets, capabilities, name_prefix) = match storage.allowed {
        Some(allowed) => {
            let names = |buckets: Vec<BucketWire>| buckets.into_iter().filter_map(|bucket| bucket.name).collect();
            (allowed.buckets.map(names), allowed.capabilities, allowed.name_prefix)
        }
        None => {
            let restricted = storage.bucket_id.is_some() || storage.bucket_name.is_some();
            let buckets = restricted.then(|| storage.bucket_name.into_iter().collect());
            let capabilities = storage.capabilities.ok_or_else(|| malformed("it names no capabilities"))?;
            (buckets, capabilities, storage.name_prefix)
        }
    };
    let s3_endpoint = parse_base(&storage.s3_api_url).map_err(|error| malformed(error.message()))?.to_owned();
    Ok(Account {
        account_id: wire.account_id,
        region: parse_region(&s3_endpoint)?,
        s3_endpoint,
        capabilities: capabilities.into_iter().collect(),
        buckets,
        name_prefix: name_prefix.filter(|prefix| !prefix.is_empty()),
        key_expires_at: wire.application_key_expiration_timestamp.map(Timestamp::from_millis),
    })
}

/// The region in `https://s3.<region>.backblazeb2.com`; for a host that is not Backblaze's, [`OTHER_STORE_REGION`]. A
/// Backblaze host of another shape is an error: a guessed region would only fail later, and less clearly.
fn parse_region(endpoint: &str) -> Result<String, Error> {
    let host = endpoint.parse::<::http::Uri>().ok().and_then(|uri| Some(uri.host()?.to_ascii_lowercase()));
    let host = host.ok_or_else(|| malformed("its S3 URL has no host"))?;
    let Some(labels) = host.strip_suffix("backblazeb2.com").filter(|rest| rest.is_empty() || rest.ends_with('.'))
    else {
        return Ok(OTHER_STORE_REGION.to_owned());
    };
    labels
        .strip_prefix("s3.")
        .and_then(|rest| rest.strip_suffix('.'))
        .filter(|region| !region.is_empty() && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
        .map(str::to_owned)
        .ok_or_else(|| malformed(&format!("its S3 URL, {}, names no region", quoted(endpoint))))
}

fn malformed(what: &str) -> Error {
    Error::new(
        ErrorKind::MalformedResponse,
        format!("B2's answer to b2_authorize_account cannot be read: {what}."),
        "Try again. If it happens again, check that the API URL is Backblaze's, https://api.backblazeb2.com.",
    )
}

impl Account {
    /// Whether the key may list and read `source` at `now`, as far as its restrictions tell.
    ///
    /// # Errors
    /// [`ErrorKind::KeyExpired`], [`ErrorKind::CapabilityMissing`], [`ErrorKind::BucketNotAllowed`] or
    /// [`ErrorKind::PrefixNotAllowed`], each saying what the key may do, what the source path asks for, and what to do.
    pub fn check(&self, source: &SourcePath, now: Timestamp) -> Result<(), Error> {
        self.check_key(now)?;
        self.check_bucket(source)?;
        self.check_prefix(source)
    }

    /// Whether the key may list and read at all at `now`, whatever the source.
    ///
    /// # Errors
    /// [`ErrorKind::KeyExpired`], [`ErrorKind::CapabilityMissing`].
    pub fn check_key(&self, now: Timestamp) -> Result<(), Error> {
        if let Some(expired) = self.key_expires_at.filter(|expires| *expires <= now) {
            return Err(Error::new(
                ErrorKind::KeyExpired,
                format!("The application key expired at {expired}."),
                "Create a new application key in the Backblaze console, App Keys, and use it in place of this one.",
            ));
        }
        let missing: Vec<&str> =
            ["listFiles", "readFiles"].into_iter().filter(|name| !self.capabilities.contains(*name)).collect();
        if !missing.is_empty() {
            let what = if missing.len() == 1 { "capability" } else { "capabilities" };
            return Err(Error::new(
                ErrorKind::CapabilityMissing,
                format!("The application key lacks the {what} {}.", missing.join(" and ")),
                "Create a new key with List Files and Read Files enabled for the bucket, and use it in place of this \
                 one.",
            ));
        }
        Ok(())
    }

    /// Whether `credentials` are those of an application key: the master key does not work with the S3 API.
    ///
    /// # Errors
    /// [`ErrorKind::CapabilityMissing`].
    pub fn check_not_master(&self, credentials: &Credentials) -> Result<(), Error> {
        // The id of the master key is that of the account.
        if credentials.key_id != self.account_id {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::CapabilityMissing,
            "This is the master application key, which does not work with B2's S3 API.",
            "Create an application key in the Backblaze console, App Keys, with List Files and Read Files enabled, and \
             use it in place of this one.",
        ))
    }

    fn check_bucket(&self, source: &SourcePath) -> Result<(), Error> {
        let Some(allowed) = &self.buckets else { return Ok(()) };
        let named = source.bucket().as_str();
        if allowed.iter().any(|bucket| bucket == named) {
            return Ok(());
        }
        let message = match allowed.as_slice() {
            [] => "This key is restricted to a bucket that no longer exists.".to_owned(),
            [only] => format!("This key may read only bucket {only:?}; the source path names {named:?}."),
            several => {
                let first: Vec<String> =
                    several.iter().take(NAMED_BUCKETS_MAX).map(|bucket| format!("{bucket:?}")).collect();
                let more = several.len().saturating_sub(NAMED_BUCKETS_MAX);
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                format!("This key may read only buckets {}{more}; the source path names {named:?}.", first.join(", "))
            }
        };
        let advice = match allowed.iter().find(|bucket| bucket.eq_ignore_ascii_case(named)) {
            Some(alike) => format!("Bucket names are case-sensitive: write {alike:?} in the source path."),
            None => "Correct the bucket in the source path, or create a key that may read this bucket and use it in \
                     place of this one."
                .to_owned(),
        };
        Err(Error::new(ErrorKind::BucketNotAllowed, message, advice).with_field("source_path"))
    }

    fn check_prefix(&self, source: &SourcePath) -> Result<(), Error> {
        let Some(required) = self.name_prefix.as_deref().filter(|required| !source.prefix().starts_with(required))
        else {
            return Ok(());
        };
        Err(Error::new(
            ErrorKind::PrefixNotAllowed,
            format!(
                "This key may read only names that begin with {}; the source path has the prefix {}.",
                quoted(required),
                quoted(source.prefix())
            ),
            format!(
                "Write b2://{}/{required} or a longer prefix, or create a key without a file name prefix and use it \
                 in place of this one.",
                source.bucket()
            ),
        )
        .with_field("source_path"))
    }
}

/// The version of [`StoredAccount`] that this code writes.
const STORED_VERSION: u32 = 1;

/// An [`Account`] as it is cached with a connection: JSON with a version. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredAccount {
    v: u32,
    account_id: String,
    s3_endpoint: String,
    region: String,
    capabilities: Vec<String>,
    #[serde(default)]
    buckets: Option<Vec<String>>,
    #[serde(default)]
    name_prefix: Option<String>,
    #[serde(default)]
    key_expires_at_ms: Option<i64>,
}

impl From<&Account> for StoredAccount {
    fn from(account: &Account) -> Self {
        Self {
            v: STORED_VERSION,
            account_id: account.account_id.clone(),
            s3_endpoint: account.s3_endpoint.clone(),
            region: account.region.clone(),
            capabilities: account.capabilities.iter().cloned().collect(),
            buckets: account.buckets.clone(),
            name_prefix: account.name_prefix.clone(),
            key_expires_at_ms: account.key_expires_at.map(Timestamp::as_millis),
        }
    }
}

impl TryFrom<StoredAccount> for Account {
    type Error = Error;

    /// # Errors
    /// [`ErrorKind::StateCorrupt`] for a version that this code does not know.
    fn try_from(stored: StoredAccount) -> Result<Self, Error> {
        if stored.v != STORED_VERSION {
            return Err(Error::new(
                ErrorKind::StateCorrupt,
                format!("The cached account has version {}; this code knows {STORED_VERSION}.", stored.v),
                "Test the connection: that stores the account again.",
            ));
        }
        Ok(Self {
            account_id: stored.account_id,
            s3_endpoint: stored.s3_endpoint,
            region: stored.region,
            capabilities: stored.capabilities.into_iter().collect(),
            buckets: stored.buckets,
            name_prefix: stored.name_prefix,
            key_expires_at: stored.key_expires_at_ms.map(Timestamp::from_millis),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const V4: &str = r#"{"accountId":"870eff85b6c6","apiInfo":{"storageApi":{"absoluteMinimumPartSize":5000000,
        "allowed":{"buckets":[{"id":"b1","name":"my-videos"},{"id":"b2","name":null}],
        "capabilities":["listBuckets","listFiles","readFiles"],"namePrefix":"2024/"},
        "apiUrl":"https://api005.backblazeb2.com","downloadUrl":"https://f005.backblazeb2.com",
        "recommendedPartSize":100000000,"s3ApiUrl":"https://s3.us-east-005.backblazeb2.com"}},
        "applicationKeyExpirationTimestamp":1700000000000,"authorizationToken":"4_token"}"#;
    const V3: &str = r#"{"accountId":"870eff85b6c6","apiInfo":{"storageApi":{"bucketId":"b1","bucketName":"my-videos",
        "capabilities":["listFiles"],"namePrefix":null,"apiUrl":"https://api005.backblazeb2.com",
        "infoType":"storageApi","s3ApiUrl":"https://s3.eu-central-003.backblazeb2.com/"}},
        "applicationKeyExpirationTimestamp":null,
        "authorizationToken":"4_token"}"#;

    fn account() -> Account {
        parse_authorize(V4.as_bytes()).unwrap()
    }

    fn source(text: &str) -> SourcePath {
        SourcePath::parse(text).unwrap()
    }

    #[test]
    fn version_4() {
        let account = account();
        assert_eq!(account.account_id, "870eff85b6c6");
        assert_eq!(account.s3_endpoint, "https://s3.us-east-005.backblazeb2.com");
        assert_eq!(account.region, "us-east-005");
        assert!(account.capabilities.contains("readFiles"));
        assert_eq!(account.buckets, Some(vec!["my-videos".to_owned()]), "a deleted bucket has no name");
        assert_eq!(account.name_prefix.as_deref(), Some("2024/"));
        assert_eq!(account.key_expires_at, Some(Timestamp::from_millis(1_700_000_000_000)));
        let unrestricted = V4.replace(r#"[{"id":"b1","name":"my-videos"},{"id":"b2","name":null}]"#, "null");
        assert_eq!(parse_authorize(unrestricted.as_bytes()).unwrap().buckets, None);
    }

    #[test]
    fn version_3() {
        let account = parse_authorize(V3.as_bytes()).unwrap();
        assert_eq!(account.s3_endpoint, "https://s3.eu-central-003.backblazeb2.com");
        assert_eq!(account.region, "eu-central-003");
        assert_eq!(account.buckets, Some(vec!["my-videos".to_owned()]));
        assert_eq!(account.name_prefix, None);
        let deleted = V3.replace(r#""bucketName":"my-videos""#, r#""bucketName":null"#);
        assert_eq!(parse_authorize(deleted.as_bytes()).unwrap().buckets, Some(vec![]));
        let all = deleted.replace(r#""bucketId":"b1""#, r#""bucketId":null"#);
        assert_eq!(parse_authorize(all.as_bytes()).unwrap().buckets, None);
    }

    #[test]
    fn a_region_is_read_and_never_guessed() {
        for (url, region) in [
            ("https://s3.us-west-004.backblazeb2.com", Some("us-west-004")),
            ("https://S3.US-WEST-004.BackblazeB2.com", Some("us-west-004")),
            ("http://127.0.0.1:9000", Some("us-east-1")),
            ("https://minio.example.com", Some("us-east-1")),
            ("https://notbackblazeb2.com", Some("us-east-1")),
            ("https://backblazeb2.com", None),
            ("https://s3.backblazeb2.com", None),
            ("https://s3.a.b.backblazeb2.com", None),
            ("https://f004.backblazeb2.com", None),
        ] {
            assert_eq!(parse_region(url).ok().as_deref(), region, "{url}");
        }
    }

    #[test]
    fn what_is_not_an_answer_is_malformed() {
        let no_endpoint = V4.replace("https://s3.us-east-005.backblazeb2.com", "s3");
        for body in ["", "{}", "<html>", "[]", &no_endpoint, &V3.replace("capabilities", "other")] {
            assert_eq!(parse_authorize(body.as_bytes()).unwrap_err().kind(), ErrorKind::MalformedResponse, "{body}");
        }
    }

    #[test]
    fn the_request_is_basic_authorization() {
        let credentials = Credentials::new("id", "secret").unwrap();
        let request = authorize_request("https://api.backblazeb2.com/", &credentials).unwrap();
        assert_eq!(request.uri(), "https://api.backblazeb2.com/b2api/v4/b2_authorize_account");
        assert_eq!(request.headers()["authorization"], "Basic aWQ6c2VjcmV0");
        assert!(!format!("{request:?}").contains("aWQ6c2VjcmV0"), "{request:?}");
        assert_eq!(authorize_request("nowhere", &credentials).unwrap_err().field(), Some("api_url"));
    }

    #[test]
    fn credentials_are_checked_and_never_shown() {
        let credentials = Credentials::new(" id ", "K005 secret".replace(' ', "").as_str()).unwrap();
        assert!(!format!("{credentials:?}").contains("K005secret"));
        let long = "x".repeat(CREDENTIAL_BYTES_MAX + 1);
        for (key_id, key, field) in [
            ("", "key", "key_id"),
            ("a:b", "key", "key_id"),
            ("id", " ", "application_key"),
            ("id", "K005 inner space", "application_key"),
            ("id", "K005ü", "application_key"),
            ("id", "K005\r\nX-Header: 1", "application_key"),
            ("id", &long, "application_key"),
        ] {
            let error = Credentials::new(key_id, key).unwrap_err();
            assert_eq!(error.field(), Some(&*format!("provider_config.credentials.{field}")));
            assert!(!error.to_string().contains("K005"), "{error}");
        }
    }

    #[test]
    fn a_source_is_checked_before_it_is_listed() {
        let now = Timestamp::from_millis(1_600_000_000_000);
        let full = account();
        let check = |change: &dyn Fn(&mut Account), path: &str| {
            let mut account = full.clone();
            change(&mut account);
            account.check(&source(path), now)
        };
        assert_eq!(check(&|_| {}, "b2://my-videos/2024/"), Ok(()));
        assert_eq!(check(&|account| account.key_expires_at = None, "b2://my-videos/2024/x"), Ok(()));
        assert_eq!(check(&|account| (account.buckets, account.name_prefix) = (None, None), "b2://anything"), Ok(()));
        type Change = &'static dyn Fn(&mut Account);
        let cases: [(Change, &str, ErrorKind, &str); 9] = [
            (
                &|a| a.key_expires_at = Some(Timestamp::from_millis(0)),
                "my-videos/2024/",
                ErrorKind::KeyExpired,
                "expired at 1970",
            ),
            (
                &|a| assert!(a.capabilities.remove("listFiles")),
                "my-videos/2024/",
                ErrorKind::CapabilityMissing,
                "lacks the capability listFiles.",
            ),
            (
                &|a| a.capabilities.clear(),
                "my-videos/2024/",
                ErrorKind::CapabilityMissing,
                "the capabilities listFiles and readFiles.",
            ),
            (
                &|_| {},
                "other-bucket/2024/",
                ErrorKind::BucketNotAllowed,
                "only bucket \"my-videos\"; the source path names \"other-bucket\"",
            ),
            (&|_| {}, "My-Videos/2024/", ErrorKind::BucketNotAllowed, "case-sensitive: write \"my-videos\""),
            (&|a| a.buckets = Some(vec![]), "my-videos/2024/", ErrorKind::BucketNotAllowed, "no longer exists"),
            (
                &|a| a.buckets = Some((0..9).map(|i| format!("bucket{i}")).collect()),
                "my-videos/2024/",
                ErrorKind::BucketNotAllowed,
                "\"bucket4\" and 4 more",
            ),
            (
                &|_| {},
                "my-videos",
                ErrorKind::PrefixNotAllowed,
                "begin with \"2024/\"; the source path has the prefix \"\"",
            ),
            (&|_| {}, "my-videos/20", ErrorKind::PrefixNotAllowed, "b2://my-videos/2024/"),
        ];
        for (change, path, kind, text) in cases {
            let error = check(change, path).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn a_cached_account_is_versioned() {
        let json = serde_json::to_string(&StoredAccount::from(&account())).unwrap();
        let stored: StoredAccount = serde_json::from_str(&json).unwrap();
        assert_eq!(Account::try_from(stored).unwrap(), account());
        let newer: StoredAccount = serde_json::from_str(&json.replace("\"v\":1", "\"v\":2")).unwrap();
        assert_eq!(Account::try_from(newer).unwrap_err().kind(), ErrorKind::StateCorrupt);
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..64), cut in 0..V4.len()) {
            let _ = parse_authorize(&body);
            prop_assert!(parse_authorize(&V4.as_bytes()[..cut]).is_err());
        }
    }
}
