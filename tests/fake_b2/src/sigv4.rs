//! AWS Signature Version 4, written from the specification, one function a stage, each held to Amazon's published
//! values.
//!
//! It deliberately shares no code with the signer of the core: two independent readings of one specification.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use b2sync_core::http::{Request, StatusCode};
use b2sync_core::time::Timestamp;
use chrono::NaiveDateTime;
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use sha2::{Digest as _, Sha256};

use super::refusal::Refusal;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
/// How far the clocks may differ, in milliseconds.
const SKEW_MS_MAX: u64 = 15 * 60 * 1_000;
/// The longest life of a presigned URL, in seconds.
const EXPIRES_S_MAX: u64 = 7 * 24 * 60 * 60;

/// All but the unreserved characters of RFC 3986.
const QUERY_ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same, with slashes left alone.
const PATH_ENCODED: &AsciiSet = &QUERY_ENCODED.remove(b'/');

/// Where a signature is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// `YYYYMMDD`.
    pub date: String,
    /// `us-west-004`.
    pub region: String,
    /// `s3`.
    pub service: String,
}

impl Scope {
    fn text(&self) -> String {
        format!("{}/{}/{}/aws4_request", self.date, self.region, self.service)
    }
}

/// Stage 1: the canonical request. `path` and `query` as sent; `headers` lower-cased, sorted, and only those that are
/// signed; a parameter `X-Amz-Signature` is left out.
pub fn canonical_request(
    method: &str,
    path: &str,
    query: &str,
    headers: &[(String, String)],
    payload_hash: &str,
) -> String {
    let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", canonical_value(value))).collect();
    let path = percent_encode(&percent_decode(path.as_bytes()).collect::<Vec<_>>(), PATH_ENCODED).to_string();
    [method, &path, &canonical_query(query), &lines, &names.join(";"), payload_hash].join("\n")
}

fn canonical_query(query: &str) -> String {
    let encoded = |bytes: Vec<u8>| percent_encode(&bytes, QUERY_ENCODED).to_string();
    let mut pairs: Vec<(String, String)> = query_pairs(query)
        .filter(|(name, _)| name != b"X-Amz-Signature")
        .map(|(name, value)| (encoded(name), encoded(value)))
        .collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// The decoded pairs of a query; `+` is a space.
pub(super) fn query_pairs(query: &str) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> + '_ {
    let decoded = |text: &str| percent_decode(text.replace('+', " ").as_bytes()).collect::<Vec<_>>();
    query.split('&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}

/// Trimmed, with runs of spaces made one.
fn canonical_value(value: &str) -> String {
    value.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Stage 2: the string to sign. `date_time` is `YYYYMMDDTHHMMSSZ`.
pub fn string_to_sign(date_time: &str, scope: &Scope, canonical_request: &str) -> String {
    format!("{ALGORITHM}\n{date_time}\n{}\n{}", scope.text(), hex::encode(Sha256::digest(canonical_request)))
}

/// Stage 3: the signing key.
pub fn signing_key(secret: &str, scope: &Scope) -> [u8; 32] {
    let date_key = hmac_sha256(format!("AWS4{secret}").as_bytes(), &scope.date);
    let region_key = hmac_sha256(&date_key, &scope.region);
    hmac_sha256(&hmac_sha256(&region_key, &scope.service), "aws4_request")
}

/// Stage 4: the signature, in lower-case hex.
pub fn signature(signing_key: &[u8], string_to_sign: &str) -> String {
    hex::encode(hmac_sha256(signing_key, string_to_sign))
}

fn hmac_sha256(key: &[u8], data: &str) -> [u8; 32] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        unreachable!("HMAC takes keys of every length");
    };
    mac.update(data.as_bytes());
    mac.finalize().into_bytes().into()
}

/// Adds `host`, `x-amz-date`, `x-amz-content-sha256` and `authorization` to a request: for tests that speak to the fake
/// without the core.
///
/// # Panics
/// When the request's URI has no authority.
pub fn sign(request: &mut Request, key_id: &str, secret: &str, region: &str, now: Timestamp) {
    let date_time = now.to_chrono().map(|time| time.format("%Y%m%dT%H%M%SZ").to_string()).unwrap_or_default();
    let scope =
        Scope { date: date_time.chars().take(8).collect(), region: region.to_owned(), service: "s3".to_owned() };
    let payload_hash = hex::encode(Sha256::digest(request.body()));
    let mut insert = |name: &'static str, value: String| {
        let value = value.parse().expect("these values are plain ASCII");
        request.headers_mut().insert(name, value)
    };
    insert("x-amz-date", date_time.clone());
    insert("x-amz-content-sha256", payload_hash.clone());
    let host = request.uri().authority().expect("an absolute URI").to_string();
    request.headers_mut().insert("host", host.parse().expect("an authority is plain ASCII"));
    let mut names: Vec<String> = request.headers().keys().map(|name| name.as_str().to_owned()).collect();
    names.sort();
    let headers = signed_values(request, &names).expect("all of them are there");
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let canonical = canonical_request(request.method().as_str(), path, query, &headers, &payload_hash);
    let signature = signature(&signing_key(secret, &scope), &string_to_sign(&date_time, &scope, &canonical));
    let (scope, names) = (scope.text(), names.join(";"));
    let value = format!("{ALGORITHM} Credential={key_id}/{scope},SignedHeaders={names},Signature={signature}");
    request.headers_mut().insert("authorization", value.parse().expect("plain ASCII"));
}

/// A request's signature, taken apart and not yet checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) key_id: String,
    scope: Scope,
    date_time: String,
    signed_headers: Vec<String>,
    signature: String,
    /// Seconds that a presigned URL is valid; `None` for the header form.
    expires_s: Option<u64>,
}

impl Claim {
    /// Reads the signature of a request, in either form.
    pub(super) fn parse(request: &Request) -> Result<Self, Refusal> {
        if let Some(value) = header(request, "authorization") {
            return Self::parse_header(request, &value);
        }
        let query = request.uri().query().unwrap_or_default();
        if query_pairs(query).any(|(name, _)| name == b"X-Amz-Algorithm") {
            return Self::parse_query(query);
        }
        Err(Refusal::new(StatusCode::FORBIDDEN, "AccessDenied", "Access Denied"))
    }

    fn parse_header(request: &Request, value: &str) -> Result<Self, Refusal> {
        let malformed = |what: &str| {
            let message = format!("The authorization header is malformed; {what}.");
            Refusal::new(StatusCode::BAD_REQUEST, "AuthorizationHeaderMalformed", message)
        };
        let fields = value.strip_prefix(ALGORITHM).ok_or_else(|| {
            Refusal::new(StatusCode::BAD_REQUEST, "InvalidRequest", "The authorization mechanism is not supported")
        })?;
        let field = |name: &str| {
            let mut pairs = fields.split(',').filter_map(|field| field.trim().split_once('='));
            let (_, value) = pairs.find(|(field, _)| *field == name).ok_or_else(|| malformed(&format!("no {name}")))?;
            Ok(value.to_owned())
        };
        let (key_id, scope) = parse_credential(&field("Credential")?)
            .ok_or_else(|| malformed("the Credential is not <key id>/YYYYMMDD/<region>/s3/aws4_request"))?;
        let date_time = header(request, "x-amz-date").ok_or_else(|| {
            let message = "AWS authentication requires a valid Date or x-amz-date header";
            Refusal::new(StatusCode::FORBIDDEN, "AccessDenied", message)
        })?;
        let signed_headers = field("SignedHeaders")?.split(';').map(str::to_owned).collect();
        Ok(Self { key_id, scope, date_time, signed_headers, signature: field("Signature")?, expires_s: None })
    }

    fn parse_query(query: &str) -> Result<Self, Refusal> {
        let malformed =
            |message: String| Refusal::new(StatusCode::BAD_REQUEST, "AuthorizationQueryParametersError", message);
        let parameter = |name: &str| {
            let found = query_pairs(query).find(|(other, _)| other == name.as_bytes());
            let value = found.and_then(|(_, value)| String::from_utf8(value).ok());
            value.ok_or_else(|| malformed(format!("Query-string authentication version 4 requires {name}")))
        };
        if parameter("X-Amz-Algorithm")? != ALGORITHM {
            return Err(malformed(format!("X-Amz-Algorithm only supports \"{ALGORITHM}\"")));
        }
        let (key_id, scope) = parse_credential(&parameter("X-Amz-Credential")?)
            .ok_or_else(|| malformed("Error parsing the X-Amz-Credential parameter".to_owned()))?;
        let expires_s = parameter("X-Amz-Expires")?.parse().ok().filter(|seconds| *seconds <= EXPIRES_S_MAX);
        let expires_s = expires_s.ok_or_else(|| malformed("X-Amz-Expires must be less than a week".to_owned()))?;
        Ok(Self {
            key_id,
            scope,
            date_time: parameter("X-Amz-Date")?,
            signed_headers: parameter("X-Amz-SignedHeaders")?.split(';').map(str::to_owned).collect(),
            signature: parameter("X-Amz-Signature")?,
            expires_s: Some(expires_s),
        })
    }

    /// Checks everything but whether there is such a key.
    pub(super) fn check(&self, request: &Request, secret: &str, region: &str, now: Timestamp) -> Result<(), Refusal> {
        self.check_scope(region)?;
        self.check_time(now)?;
        self.check_headers(request)?;
        let payload_hash = self.check_payload(request)?;
        let denied = || Refusal::new(StatusCode::FORBIDDEN, "SignatureDoesNotMatch", "Signature validation failed");
        let headers = signed_values(request, &self.signed_headers).ok_or_else(denied)?;
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        let canonical = canonical_request(request.method().as_str(), path, query, &headers, &payload_hash);
        let to_sign = string_to_sign(&self.date_time, &self.scope, &canonical);
        if signature(&signing_key(secret, &self.scope), &to_sign) != self.signature {
            return Err(denied());
        }
        Ok(())
    }

    fn check_scope(&self, region: &str) -> Result<(), Refusal> {
        let malformed = |what: String| {
            let message = format!("The authorization header is malformed; {what}.");
            Err(Refusal::new(StatusCode::BAD_REQUEST, "AuthorizationHeaderMalformed", message))
        };
        if self.scope.service != "s3" {
            return malformed(format!("incorrect service '{}'; this endpoint belongs to 's3'", self.scope.service));
        }
        if self.scope.region != region {
            return malformed(format!("the region '{}' is wrong; expecting '{region}'", self.scope.region));
        }
        if !self.date_time.starts_with(&self.scope.date) || self.scope.date.len() != 8 {
            return malformed("the date of the Credential is not that of the request".to_owned());
        }
        Ok(())
    }

    fn check_time(&self, now: Timestamp) -> Result<(), Refusal> {
        let forbidden = |code: &str, message: &str| Err(Refusal::new(StatusCode::FORBIDDEN, code, message));
        let Ok(signed_at) = NaiveDateTime::parse_from_str(&self.date_time, "%Y%m%dT%H%M%SZ") else {
            return forbidden("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header");
        };
        let signed_at = Timestamp::from_millis(signed_at.and_utc().timestamp_millis());
        let early = signed_at.millis_since(now) > SKEW_MS_MAX;
        match self.expires_s {
            Some(_) if early => forbidden("AccessDenied", "Request is not yet valid"),
            Some(seconds) if now.millis_since(signed_at) > seconds * 1_000 => {
                forbidden("AccessDenied", "Request has expired")
            }
            None if early || now.millis_since(signed_at) > SKEW_MS_MAX => forbidden(
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
            ),
            _ => Ok(()),
        }
    }

    /// `host` and every `x-amz-*` header must be signed.
    fn check_headers(&self, request: &Request) -> Result<(), Refusal> {
        let signed = |name: &str| self.signed_headers.iter().any(|other| other == name);
        let amazon = request.headers().keys().map(|name| name.as_str()).filter(|name| name.starts_with("x-amz-"));
        match std::iter::once("host").chain(amazon).find(|name| !signed(name)) {
            Some(name) => {
                let message = format!("There were headers present in the request which were not signed: {name}");
                Err(Refusal::new(StatusCode::FORBIDDEN, "AccessDenied", message))
            }
            None => Ok(()),
        }
    }

    fn check_payload(&self, request: &Request) -> Result<String, Refusal> {
        let refused = |code: &str, message: &str| Err(Refusal::new(StatusCode::BAD_REQUEST, code, message));
        match (header(request, "x-amz-content-sha256"), self.expires_s) {
            (None, Some(_)) => Ok(UNSIGNED_PAYLOAD.to_owned()),
            (None, None) => refused("InvalidRequest", "Missing required header for this request: x-amz-content-sha256"),
            (Some(hash), _) if hash == UNSIGNED_PAYLOAD => Ok(hash),
            (Some(hash), _) if hash == hex::encode(Sha256::digest(request.body())) => Ok(hash),
            (Some(_), _) => refused(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            ),
        }
    }
}

fn parse_credential(credential: &str) -> Option<(String, Scope)> {
    let mut parts = credential.split('/').map(str::to_owned);
    let key_id = parts.next()?;
    let scope = Scope { date: parts.next()?, region: parts.next()?, service: parts.next()? };
    (parts.next()? == "aws4_request" && parts.next().is_none()).then_some((key_id, scope))
}

/// A header's value, values of the same name joined; `host` falls back on the URI, where clients that were not asked to
/// write bytes leave it.
fn header(request: &Request, name: &str) -> Option<String> {
    let values: Vec<_> =
        request.headers().get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    if values.is_empty() && name == "host" {
        return request.uri().authority().map(|authority| authority.as_str().to_owned());
    }
    (!values.is_empty()).then(|| values.join(","))
}

fn signed_values(request: &Request, names: &[String]) -> Option<Vec<(String, String)>> {
    names.iter().map(|name| Some((name.clone(), header(request, name)?))).collect()
}

#[cfg(test)]
mod tests {
    use b2sync_core::http::Method;
    use bytes::Bytes;

    use super::*;

    const KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const EMPTY_HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    /// 2013-05-24T00:00:00Z, the date of the examples in the documentation of S3.
    const MAY_24: Timestamp = Timestamp::from_millis(1_369_353_600_000);

    /// A request to S3 as the documentation writes it.
    fn example(method: Method, path_and_query: &str, headers: &[(&'static str, &str)], body: &'static str) -> Request {
        let mut request = Request::new(Bytes::from_static(body.as_bytes()));
        *request.method_mut() = method;
        *request.uri_mut() = path_and_query.parse().unwrap();
        let fixed = [("host", "examplebucket.s3.amazonaws.com")];
        for (name, value) in fixed.iter().chain(headers) {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        request
    }

    fn get(path_and_query: &str, signature: &str, extra: &[(&'static str, &str)]) -> Request {
        let mut names = vec!["host", "x-amz-content-sha256", "x-amz-date"];
        names.extend(extra.iter().map(|(name, _)| *name));
        names.sort_unstable();
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={KEY_ID}/20130524/us-east-1/s3/aws4_request,SignedHeaders={},\
             Signature={signature}",
            names.join(";")
        );
        let mut headers = vec![
            ("x-amz-content-sha256", EMPTY_HASH),
            ("x-amz-date", "20130524T000000Z"),
            ("authorization", authorization.as_str()),
        ];
        headers.extend(extra);
        example(Method::GET, path_and_query, &headers, "")
    }

    fn verify(request: &Request, region: &str, now: Timestamp) -> Result<(), Refusal> {
        Claim::parse(request)?.check(request, SECRET, region, now)
    }

    #[track_caller]
    fn refused(request: &Request, code: &str) -> Refusal {
        let refusal = verify(request, "us-east-1", MAY_24).unwrap_err();
        assert_eq!(refusal.code, code);
        refusal
    }

    const LIST: &str = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7";
    const PRESIGNED: &str = "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
        &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
        &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
        &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";

    /// The stages of `get-vanilla`, from Amazon's test suite.
    #[test]
    fn get_vanilla() {
        let scope =
            Scope { date: "20150830".to_owned(), region: "us-east-1".to_owned(), service: "service".to_owned() };
        let headers = [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let canonical = canonical_request("GET", "/", "", &headers, EMPTY_HASH);
        assert_eq!(
            canonical,
            format!(
                "GET\n/\n\nhost:example.amazonaws.com\nx-amz-date:20150830T123600Z\n\nhost;x-amz-date\n{EMPTY_HASH}"
            )
        );
        let to_sign = string_to_sign("20150830T123600Z", &scope, &canonical);
        assert_eq!(
            to_sign,
            "AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/service/aws4_request\n\
             bb579772317eb040ac9ed261061d46c1f17a8133879d6129b6e1c25292927e63"
        );
        assert_eq!(
            signature(&signing_key(secret, &scope), &to_sign),
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
        // get-vanilla-query-order-key-case
        let canonical = canonical_request("GET", "/", "Param2=value2&Param1=value1", &headers, EMPTY_HASH);
        let to_sign = string_to_sign("20150830T123600Z", &scope, &canonical);
        assert_eq!(
            signature(&signing_key(secret, &scope), &to_sign),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"
        );
    }

    /// The signing key that the general reference of AWS publishes.
    #[test]
    fn the_published_signing_key() {
        let scope = Scope { date: "20150830".to_owned(), region: "us-east-1".to_owned(), service: "iam".to_owned() };
        assert_eq!(
            hex::encode(signing_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", &scope)),
            "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"
        );
    }

    /// "GET Object", "GET Bucket Lifecycle" and "List Objects" of the S3 documentation.
    #[test]
    fn the_examples_of_the_s3_documentation() {
        let object = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        verify(&get("/test.txt", object, &[("range", "bytes=0-9")]), "us-east-1", MAY_24).unwrap();
        let lifecycle = "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543";
        verify(&get("/?lifecycle", lifecycle, &[]), "us-east-1", MAY_24).unwrap();
        verify(&get("/?max-keys=2&prefix=J", LIST, &[]), "us-east-1", MAY_24).unwrap();
        verify(&get("/?prefix=J&max-keys=2", LIST, &[]), "us-east-1", MAY_24).unwrap();
    }

    /// "PUT Object" of the S3 documentation: a path that needs encoding, and a body.
    #[test]
    fn the_put_example_of_the_s3_documentation() {
        let authorization = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
            SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class,\
            Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd";
        let headers = [
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("x-amz-date", "20130524T000000Z"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ("x-amz-content-sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"),
            ("authorization", authorization),
        ];
        let request = example(Method::PUT, "/test$file.text", &headers, "Welcome to Amazon S3.");
        verify(&request, "us-east-1", MAY_24).unwrap();
        let mut request = example(Method::PUT, "/test%24file.text", &headers, "Welcome to Amazon S3.");
        verify(&request, "us-east-1", MAY_24).unwrap();
        *request.body_mut() = Bytes::from_static(b"Welcome to Amazon S4.");
        refused(&request, "XAmzContentSHA256Mismatch");
    }

    #[test]
    fn the_presigned_example_of_the_s3_documentation() {
        let request = example(Method::GET, PRESIGNED, &[], "");
        verify(&request, "us-east-1", MAY_24).unwrap();
        verify(&request, "us-east-1", MAY_24.plus_millis(86_400_000)).unwrap();
        let late = verify(&request, "us-east-1", MAY_24.plus_millis(86_401_000)).unwrap_err();
        assert_eq!(late.message, "Request has expired");
        let early = verify(&request, "us-east-1", MAY_24.plus_millis(-901_000)).unwrap_err();
        assert_eq!(early.message, "Request is not yet valid");
        let other = example(Method::GET, &PRESIGNED.replace("test.txt", "other.txt"), &[], "");
        refused(&other, "SignatureDoesNotMatch");
        let without = PRESIGNED.replace("&X-Amz-Expires=86400", "");
        refused(&example(Method::GET, &without, &[], ""), "AuthorizationQueryParametersError");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = get("/?max-keys=2&prefix=J", LIST, &[]);
        let region = verify(&good, "us-west-004", MAY_24).unwrap_err();
        assert_eq!(region.code, "AuthorizationHeaderMalformed");
        assert!(region.message.contains("the region 'us-east-1' is wrong; expecting 'us-west-004'"));
        for skew in [-900_001, 900_001] {
            let refusal = verify(&good, "us-east-1", MAY_24.plus_millis(skew)).unwrap_err();
            assert_eq!((refusal.status, refusal.code.as_str()), (StatusCode::FORBIDDEN, "RequestTimeTooSkewed"));
        }
        for skew in [-900_000, 900_000] {
            verify(&good, "us-east-1", MAY_24.plus_millis(skew)).unwrap();
        }
        let refusal = refused(&get("/?max-keys=3&prefix=J", LIST, &[]), "SignatureDoesNotMatch");
        assert_eq!(refusal.message, "Signature validation failed");
        let mut unsigned = good.clone();
        unsigned.headers_mut().insert("x-amz-meta-a", "1".parse().unwrap());
        refused(&unsigned, "AccessDenied");
        let mut no_hash = good.clone();
        no_hash.headers_mut().remove("x-amz-content-sha256");
        refused(&no_hash, "InvalidRequest");
        let mut basic = good.clone();
        basic.headers_mut().insert("authorization", "Basic YTpi".parse().unwrap());
        refused(&basic, "InvalidRequest");
        let mut anonymous = good;
        anonymous.headers_mut().remove("authorization");
        refused(&anonymous, "AccessDenied");
    }

    #[test]
    fn what_sign_writes_check_accepts() {
        let mut request = Request::new(Bytes::from_static(b"body"));
        *request.uri_mut() = "http://127.0.0.1:4040/my-bucket/a%20b%2Bc//d?x=%2F&list-type=2&flag".parse().unwrap();
        sign(&mut request, KEY_ID, SECRET, "us-east-1", MAY_24);
        verify(&request, "us-east-1", MAY_24).unwrap();
    }

    #[test]
    fn values_are_trimmed_and_runs_of_spaces_are_one() {
        assert_eq!(canonical_value("  a   b  c "), "a b c");
    }
}
