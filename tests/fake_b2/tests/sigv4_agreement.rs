//! Two independent readings of one specification: what Amazon's own signer signs, the embedded B2 accepts, whatever is
//! in the key. And what was altered on the way, it refuses.

use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4::SigningParams;
use b2sync_core::http::{Method, Request};
use b2sync_core::time::Timestamp;
use bytes::Bytes;
use fake_b2::keys::{ApplicationKey, NewKey};
use fake_b2::media::{awkward_keys, seed_media_bucket};
use fake_b2::{Config, FakeB2};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

const NOW: Timestamp = Timestamp::from_millis(1_748_736_000_000);
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PATH: &AsciiSet = &UNRESERVED.remove(b'/');

fn signed(key: &ApplicationKey, method: Method, uri: &str, location: SignatureLocation) -> Request {
    let identity = Credentials::new(&key.key_id, &key.secret, None, None, "test").into();
    let mut settings = SigningSettings::default();
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.signature_location = location;
    settings.expires_in = (location == SignatureLocation::QueryParams).then_some(Duration::from_secs(60));
    let parameters = SigningParams::builder()
        .identity(&identity)
        .region("us-west-004")
        .name("s3")
        .time(UNIX_EPOCH + Duration::from_millis(NOW.as_millis().unsigned_abs()))
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let headers = std::iter::empty();
    let signable = SignableRequest::new(method.as_str(), uri, headers, SignableBody::UnsignedPayload).unwrap();
    let (instructions, _) = sign(signable, &parameters).unwrap().into_parts();
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = method;
    *request.uri_mut() = uri.parse().unwrap();
    instructions.apply_to_request_http1x(&mut request);
    request
}

fn status(fake: &FakeB2, request: &Request) -> u16 {
    fake.handle(request, NOW).into_response().unwrap().status().as_u16()
}

#[test]
fn amazons_signer_and_the_embedded_b2_agree() {
    let fake = FakeB2::new(Config::like_b2());
    fake.create_bucket("my-media").unwrap();
    let key = fake.create_key(NewKey::unrestricted()).unwrap();
    let names = awkward_keys();
    seed_media_bucket(&fake, "my-media", names.len(), 1).unwrap();
    let base = "https://s3.us-west-004.backblazeb2.com/my-media";
    for location in [SignatureLocation::Headers, SignatureLocation::QueryParams] {
        for name in &names {
            let path = utf8_percent_encode(name, PATH);
            let request = signed(&key, Method::HEAD, &format!("{base}/{path}"), location);
            assert_eq!(status(&fake, &request), 200, "{location:?} {name:?}");
            let value = utf8_percent_encode(name, UNRESERVED);
            let uri = format!("{base}?list-type=2&encoding-type=url&prefix={value}&start-after={value}");
            let mut request = signed(&key, Method::GET, &uri, location);
            assert_eq!(status(&fake, &request), 200, "{location:?} {name:?}");
            let altered = request.uri().to_string().replace("list-type=2", "list-type=2&max-keys=1");
            *request.uri_mut() = altered.parse().unwrap();
            assert_eq!(status(&fake, &request), 403, "{location:?} {name:?}");
        }
    }
}
