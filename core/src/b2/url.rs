//! URLs in path style, `endpoint/bucket/key?query`, as the signature wants them.
//!
//! One percent-encoder writes both what is sent and what is signed, so that the two cannot differ. It leaves only RFC
//! 3986's unreserved characters as they are, which is what
//! [Amazon's `UriEncode`](https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html) says. Path
//! style, because a bucket name may hold dots and then fits no TLS certificate.

use std::fmt::Write;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::error::{Error, ErrorKind, quoted};

/// Everything but the unreserved characters of RFC 3986: the one encoder of paths, of queries and of what is signed.
pub const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same for a key, whose `/` separate the segments of the path.
const PATH: &AsciiSet = &RESERVED.remove(b'/');

/// The URL of a bucket (`key` empty) or of an object, with `query` encoded and sorted by name.
///
/// ```
/// use b2sync_core::b2::url::object_url;
/// let url = object_url("https://s3.us-west-004.backblazeb2.com", "my-videos", "a b/+%.mp4", &[("prefix", "x/y")]);
/// assert_eq!(url, "https://s3.us-west-004.backblazeb2.com/my-videos/a%20b/%2B%25.mp4?prefix=x%2Fy");
/// ```
pub fn object_url(endpoint: &str, bucket: &str, key: &str, query: &[(&str, &str)]) -> String {
    let mut url = format!("{endpoint}/{}", utf8_percent_encode(bucket, PATH));
    if !key.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(url, "/{}", utf8_percent_encode(key, PATH));
    }
    let mut pairs: Vec<String> = query
        .iter()
        .map(|(name, value)| {
            format!("{}={}", utf8_percent_encode(name, RESERVED), utf8_percent_encode(value, RESERVED))
        })
        .collect();
    pairs.sort_unstable();
    for (index, pair) in pairs.iter().enumerate() {
        url.push(if index == 0 { '?' } else { '&' });
        url.push_str(pair);
    }
    url
}

/// Checks the base of an API: `http` or `https`, a host, perhaps a port, nothing else. Returns it without the slash at
/// its end.
///
/// # Errors
/// [`ErrorKind::InvalidInput`], quoting `text`.
pub fn parse_base(text: &str) -> Result<&str, Error> {
    let base = text.trim().trim_end_matches('/');
    let uri = base.parse::<::http::Uri>().ok();
    let fits = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && uri.path_and_query().is_none_or(|rest| rest == "/")
    });
    if fits {
        return Ok(base);
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("{} is not the base URL of an API.", quoted(text)),
        "Write https:// and the host, for instance https://api.backblazeb2.com.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    #[test]
    fn keys_keep_every_slash() {
        assert_eq!(object_url("http://h:1", "b", "/a//b/", &[]), "http://h:1/b//a//b/");
        assert_eq!(
            object_url("http://h:1", "b", "", &[("x", ""), ("a", "~-._ +/")]),
            "http://h:1/b?a=~-._%20%2B%2F&x="
        );
        assert_eq!(object_url("http://h", "b", "日/🎬?#", &[]), "http://h/b/%E6%97%A5/%F0%9F%8E%AC%3F%23");
    }

    #[test]
    fn a_base_is_scheme_and_host() {
        assert_eq!(parse_base("https://api.backblazeb2.com/").unwrap(), "https://api.backblazeb2.com");
        assert_eq!(parse_base("http://127.0.0.1:8787").unwrap(), "http://127.0.0.1:8787");
        for wrong in [
            "",
            "api.backblazeb2.com",
            "ftp://a",
            "https://",
            "https://u:p@host",
            "https://host/path",
            "https://host?q",
        ] {
            assert!(parse_base(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_key_survives(key in ".{1,40}") {
            let url = object_url("https://host", "bucket", &key, &[]);
            prop_assert!(url.parse::<::http::Uri>().is_ok(), "{}", url);
            let path = url.strip_prefix("https://host/bucket/").unwrap();
            prop_assert_eq!(percent_decode_str(path).decode_utf8().unwrap(), key);
        }
    }
}
