//! Signatures: AWS Signature Version 4 for S3, by `aws-sigv4`.
//!
//! S3's own way of signing: the path is signed as it is sent, neither encoded twice nor normalised, and
//! `x-amz-content-sha256` is always there. No checksum header is ever added: B2 answers `x-amz-checksum-*` with 400
//! "Unsupported header". Source: [Authenticating Requests (AWS Signature Version
//! 4)](https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html), whose published examples
//! are the tests.

use std::time::{Duration, SystemTime};

use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation,
        SigningInstructions, SigningParams, SigningSettings, UriPathNormalizationMode,
    },
    sign::v4,
};
use percent_encoding::utf8_percent_encode;

use super::{account::Credentials, url::RESERVED};
use crate::{
    error::{Error, ErrorKind},
    http::{HeaderName, HeaderValue, Request},
    secret::ExposeSecret,
    time::Timestamp,
};

/// The longest life of a presigned URL, in seconds: a week, S3's own limit.
pub const PRESIGNED_SECONDS_MAX: u64 = 604_800;
/// The last second that fits the four-digit year of a signature.
const SIGNABLE_MILLIS_MAX: i64 = 253_402_300_799_000;

/// Signs `request` for `region` at `now`, in place: adds `authorization`, `x-amz-date` and `x-amz-content-sha256`.
///
/// All headers already there are signed too, so a home must send them as they are. Signing twice replaces the first
/// signature.
///
/// ```
/// use b2sync_core::{b2::{account::Credentials, sign::sign}, http::Request, time::Timestamp};
///
/// let credentials = Credentials::new("005870eff85b6c60000000001", "K005secret")?;
/// let mut request = Request::new(bytes::Bytes::new());
/// *request.uri_mut() = "https://s3.us-east-005.backblazeb2.com/my-videos?list-type=2".parse()?;
/// sign(&mut request, &credentials, "us-east-005", Timestamp::from_millis(1_704_067_200_000))?;
/// assert_eq!(request.headers()["x-amz-date"], "20240101T000000Z");
/// assert!(request.headers()["authorization"].to_str()?.contains("/20240101/us-east-005/s3/aws4_request"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Internal`] when the request has no absolute URL or a header that is not UTF-8;
/// [`ErrorKind::ClockSkew`] when `now` lies outside the years 1970 to 9999.
pub fn sign(request: &mut Request, credentials: &Credentials, region: &str, now: Timestamp) -> Result<(), Error> {
    let mut headers = Vec::with_capacity(request.headers().len());
    for (name, value) in request.headers() {
        let value = std::str::from_utf8(value.as_bytes()).map_err(|_| unsignable("a header is not UTF-8"))?;
        headers.push((name.as_str(), value));
    }
    let url = request.uri().to_string();
    let signed = instructions(
        SignableParts { method: request.method().as_str(), url: &url, headers: &headers },
        SignableBody::Bytes(request.body()),
        settings(SignatureLocation::Headers, None),
        credentials,
        region,
        now,
    )?;
    for header in signed.into_parts().0 {
        let mut value = HeaderValue::from_str(header.value()).map_err(|_| unsignable("the signature is no header"))?;
        value.set_sensitive(header.sensitive());
        let name = HeaderName::try_from(header.name()).map_err(|_| unsignable("the signature is no header"))?;
        request.headers_mut().insert(name, value);
    }
    Ok(())
}

/// The URL that lets anyone GET `url` for `expires_s` seconds from `now`. It is a secret while it lasts.
///
/// # Errors
/// As [`sign`]; [`ErrorKind::InvalidInput`] when `expires_s` is 0 or above [`PRESIGNED_SECONDS_MAX`].
pub fn presign_get(
    url: &str,
    credentials: &Credentials,
    region: &str,
    now: Timestamp,
    expires_s: u64,
) -> Result<String, Error> {
    if !(1..=PRESIGNED_SECONDS_MAX).contains(&expires_s) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("A presigned URL must expire in 1 to {PRESIGNED_SECONDS_MAX} seconds, not {expires_s}."),
            "Choose an expiry in this range.",
        ));
    }
    let signature = instructions(
        SignableParts { method: "GET", url, headers: &[] },
        SignableBody::UnsignedPayload,
        settings(SignatureLocation::QueryParams, Some(Duration::from_secs(expires_s))),
        credentials,
        region,
        now,
    )?;
    let mut signed = url.to_owned();
    for (name, value) in signature.into_parts().1 {
        signed.push(if signed.contains('?') { '&' } else { '?' });
        signed.push_str(name);
        signed.push('=');
        signed.extend(utf8_percent_encode(&value, RESERVED));
    }
    Ok(signed)
}

struct SignableParts<'a> {
    method: &'a str,
    url: &'a str,
    headers: &'a [(&'a str, &'a str)],
}

fn settings(location: SignatureLocation, expires_in: Option<Duration>) -> SigningSettings {
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    settings.signature_location = location;
    settings.expires_in = expires_in;
    settings
}

fn instructions(
    parts: SignableParts<'_>,
    body: SignableBody<'_>,
    settings: SigningSettings,
    credentials: &Credentials,
    region: &str,
    now: Timestamp,
) -> Result<SigningInstructions, Error> {
    // aws-sigv4 takes an absolute URL for granted and would panic without.
    let uri = parts.url.parse::<::http::Uri>().map_err(|_| unsignable("its URL cannot be read"))?;
    if uri.host().is_none_or(str::is_empty) || uri.scheme().is_none() {
        return Err(unsignable("its URL has no host"));
    }
    let time = u64::try_from(now.as_millis())
        .ok()
        .filter(|_| now.as_millis() <= SIGNABLE_MILLIS_MAX)
        .and_then(|millis| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis)))
        .ok_or_else(|| {
            Error::new(
                ErrorKind::ClockSkew,
                format!("The clock of this machine says {now}."),
                "Set the clock of this machine.",
            )
        })?;
    let identity = aws_credential_types::Credentials::new(
        credentials.key_id(),
        credentials.application_key().expose_secret(),
        None,
        None,
        "b2sync",
    )
    .into();
    let params: SigningParams<'_> = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("s3")
        .time(time)
        .settings(settings)
        .build()
        .map_err(|_| unsignable("a signing parameter is missing"))?
        .into();
    let request = SignableRequest::new(parts.method, parts.url, parts.headers.iter().copied(), body)
        .map_err(|_| unsignable("its URL cannot be read"))?;
    let output =
        aws_sigv4::http_request::sign(request, &params).map_err(|_| unsignable("a header cannot be signed"))?;
    Ok(output.into_parts().0)
}

fn unsignable(why: &str) -> Error {
    Error::internal(format!("A request cannot be signed: {why}."))
}

/// Amazon's published examples: "Examples: Signature Calculations" of the S3 API reference, for header-based
/// authentication and for query parameters.
#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn amazon() -> Credentials {
        Credentials::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY").unwrap()
    }

    fn day() -> Timestamp {
        Timestamp::parse_rfc3339("2013-05-24T00:00:00Z").unwrap()
    }

    fn request(method: &str, url: &str, headers: &[(&'static str, &str)], body: &'static str) -> Request {
        let mut request = ::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Bytes::from_static(body.as_bytes())).unwrap()
    }

    #[track_caller]
    fn signed(mut request: Request, signed_headers: &str, signature: &str) {
        sign(&mut request, &amazon(), "us-east-1", day()).unwrap();
        let expected = format!(
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
             SignedHeaders={signed_headers}, Signature={signature}"
        );
        assert_eq!(request.headers()["authorization"], expected);
        assert!(!format!("{request:?}").contains("wJalr"));
    }

    #[test]
    fn get_object() {
        let request = request("GET", "https://examplebucket.s3.amazonaws.com/test.txt", &[("range", "bytes=0-9")], "");
        signed(
            request,
            "host;range;x-amz-content-sha256;x-amz-date",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        );
    }

    #[test]
    fn put_object() {
        let headers = [("date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")];
        let request = request(
            "PUT",
            "https://examplebucket.s3.amazonaws.com/test%24file.text",
            &headers,
            "Welcome to Amazon S3.",
        );
        signed(
            request,
            "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        );
    }

    #[test]
    fn get_bucket_lifecycle() {
        signed(
            request("GET", "https://examplebucket.s3.amazonaws.com/?lifecycle", &[], ""),
            "host;x-amz-content-sha256;x-amz-date",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        );
    }

    #[test]
    fn list_objects() {
        signed(
            request("GET", "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J", &[], ""),
            "host;x-amz-content-sha256;x-amz-date",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        );
    }

    #[test]
    fn presigned_get() {
        let url = presign_get("https://examplebucket.s3.amazonaws.com/test.txt", &amazon(), "us-east-1", day(), 86_400)
            .unwrap();
        let expected = "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
             &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
             &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
        assert_eq!(url, expected);
    }

    #[test]
    fn signing_again_replaces_the_first_signature() {
        let mut twice = request("GET", "https://host/bucket/a//b?prefix=a%2Bb", &[], "");
        let mut once = request("GET", "https://host/bucket/a//b?prefix=a%2Bb", &[], "");
        sign(&mut twice, &amazon(), "us-east-1", Timestamp::from_millis(0)).unwrap();
        sign(&mut twice, &amazon(), "us-east-1", day()).unwrap();
        sign(&mut once, &amazon(), "us-east-1", day()).unwrap();
        assert_eq!(once.headers(), twice.headers());
        assert_eq!(once.headers()["x-amz-content-sha256"], EMPTY_SHA256);
        let mut names: Vec<_> = once.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "x-amz-content-sha256", "x-amz-date"], "no checksum header");
    }

    #[test]
    fn what_cannot_be_signed_is_an_error() {
        let mut relative = request("GET", "/bucket", &[], "");
        assert_eq!(sign(&mut relative, &amazon(), "r", day()).unwrap_err().kind(), ErrorKind::Internal);
        for millis in [-1, i64::MIN, i64::MAX, SIGNABLE_MILLIS_MAX + 1] {
            let mut request = request("GET", "https://host/bucket", &[], "");
            let error = sign(&mut request, &amazon(), "r", Timestamp::from_millis(millis)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ClockSkew, "{millis}");
        }
        for expires_s in [0, PRESIGNED_SECONDS_MAX + 1] {
            assert!(presign_get("https://host/b/k", &amazon(), "r", day(), expires_s).is_err());
        }
        assert!(presign_get("not a URL", &amazon(), "r", day(), 1).is_err());
    }
}
