//! `ListObjectsV2`: its parameters, its tokens and its document.

use std::fmt::Write as _;

use b2sync_core::http::{Request, Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use super::faults::Fault;
use super::keys::ApplicationKey;
use super::model::{ListPage, ListQuery, Model, Position};
use super::refusal::{Refusal, respond, xml_escaped};
use super::sigv4::query_pairs;
use super::{Config, SpaceEncoding};

/// The most keys and common prefixes of a page.
pub const PAGE_KEYS_MAX: usize = 1_000;

/// What `encoding-type=url` leaves alone: letters, digits, `-._*` and the slash.
const URL_ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*').remove(b'/');
/// The same for spaces that become `+`.
const URL_ENCODED_PLUS: &AsciiSet = &URL_ENCODED.remove(b' ');

/// The parameters of `ListObjectsV2`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Parameters {
    version_2: bool,
    prefix: String,
    delimiter: Option<String>,
    start_after: Option<String>,
    token: Option<String>,
    max_keys: Option<String>,
    encoding_type: Option<String>,
}

impl Parameters {
    fn parse(query: &str) -> Result<Self, Refusal> {
        let mut parameters = Self::default();
        for (name, value) in query_pairs(query) {
            let name = String::from_utf8_lossy(&name).into_owned();
            let value = String::from_utf8(value)
                .map_err(|_| Refusal::invalid_argument(format!("{name} is not UTF-8 after percent-decoding")))?;
            match name.as_str() {
                "list-type" => parameters.version_2 = value == "2",
                "prefix" => parameters.prefix = value,
                "delimiter" => parameters.delimiter = Some(value).filter(|value| !value.is_empty()),
                "start-after" => parameters.start_after = Some(value).filter(|value| !value.is_empty()),
                "continuation-token" => parameters.token = Some(value),
                "max-keys" => parameters.max_keys = Some(value),
                "encoding-type" => parameters.encoding_type = Some(value),
                "fetch-owner" | "x-id" => {}
                name if name.starts_with("X-Amz-") => {}
                other => {
                    return Err(Refusal::new(
                        StatusCode::NOT_IMPLEMENTED,
                        "NotImplemented",
                        format!("The embedded B2 does not know the parameter {other}"),
                    ));
                }
            }
        }
        if !parameters.version_2 {
            let message = "The embedded B2 lists with list-type=2 only";
            return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message));
        }
        Ok(parameters)
    }

    fn max_keys(&self) -> Result<usize, Refusal> {
        let Some(text) = &self.max_keys else { return Ok(PAGE_KEYS_MAX) };
        let max_keys = text
            .parse::<u32>()
            .map_err(|_| Refusal::invalid_argument("Provided max-keys not an integer or within integer range"))?;
        Ok(usize::try_from(max_keys).unwrap_or(PAGE_KEYS_MAX).min(PAGE_KEYS_MAX))
    }

    fn url_encoded(&self) -> Result<bool, Refusal> {
        match self.encoding_type.as_deref() {
            None => Ok(false),
            Some("url") => Ok(true),
            Some(_) => Err(Refusal::invalid_argument("Invalid Encoding Method specified in Request")),
        }
    }
}

/// Answers `ListObjectsV2` for a bucket that exists and that the key may use.
pub(super) fn answer(
    model: &Model,
    config: &Config,
    key: &ApplicationKey,
    bucket: &str,
    request: &Request,
    quirk: Option<&Fault>,
) -> Result<Response, Refusal> {
    let parameters = Parameters::parse(request.uri().query().unwrap_or_default())?;
    if !key.can("listFiles") || !key.may_use_name(&parameters.prefix) {
        return Err(Refusal::not_entitled());
    }
    let max_keys = parameters.max_keys()?;
    let writer = Writer { url_encoded: parameters.url_encoded()?, space: config.space_encoding };
    let from = match (&parameters.token, &parameters.start_after) {
        (Some(token), _) => Some(parse_token(token)?),
        (None, Some(start_after)) => Some(model.position_after(start_after)),
        (None, None) => None,
    };
    let query = ListQuery {
        prefix: &parameters.prefix,
        delimiter: parameters.delimiter.as_deref(),
        from: from.clone(),
        max_keys: max_keys.min(config.page_keys_max),
    };
    let page = match quirk {
        Some(Fault::EmptyListing) => ListPage::default(),
        _ => model.list(bucket, &query).map_err(|error| Refusal::invalid_argument(error.to_string()))?,
    };
    let next = match quirk {
        Some(Fault::NoToken) => None,
        Some(Fault::SameToken) => Some(token(&from.unwrap_or(Position(Vec::new())))),
        _ => page.next.as_ref().map(token),
    };
    let truncated = next.is_some() || matches!(quirk, Some(Fault::NoToken));
    let mut body = writer.document(bucket, &parameters, max_keys, &page, truncated, next.as_deref());
    if let Some(Fault::UnreadableEntries { keys }) = quirk {
        let names: Vec<String> = keys.iter().map(|key| writer.name(key)).collect();
        body = with_unreadable_entries(&body, &names);
    }
    Ok(respond(StatusCode::OK, "application/xml", body.into()))
}

/// A position that only this fake can make up: four bytes of hash, then the position.
fn token(position: &Position) -> String {
    let Position(bytes) = position;
    URL_SAFE_NO_PAD.encode([&check_bytes(bytes), bytes.as_slice()].concat())
}

fn parse_token(token: &str) -> Result<Position, Refusal> {
    let invalid = || Refusal::invalid_argument("The continuation token provided is incorrect");
    let decoded = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
    let (check, bytes) = decoded.split_at_checked(4).ok_or_else(invalid)?;
    if check != check_bytes(bytes) {
        return Err(invalid());
    }
    Ok(Position(bytes.to_vec()))
}

fn check_bytes(bytes: &[u8]) -> [u8; 4] {
    let digest = Sha256::new().chain_update(b"fake-b2 token").chain_update(bytes).finalize();
    [digest[0], digest[1], digest[2], digest[3]]
}

/// The page, with what cannot be read in the entries of these names, as they are written; in every second entry where
/// there is no name.
fn with_unreadable_entries(document: &str, names: &[String]) -> String {
    let mut pieces = document.split("<Contents>");
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for (number, entry) in pieces.enumerate() {
        out.push_str("<Contents>");
        let is_named = names.iter().any(|name| entry.starts_with(&format!("<Key>{name}</Key>")));
        let is_struck = if names.is_empty() { number % 2 == 1 } else { is_named };
        out.push_str(&match (is_struck, number / 2 % 4) {
            (false, _) => entry.to_owned(),
            (true, 0) => entry.replace("<Size>", "<Size>abc"),
            (true, 1) => entry.replace("<Size>", "<Size>-"),
            (true, 2) => entry.replace("<Size>", "<Size>9223372036854775808"),
            (true, _) => entry.replace("LastModified>", "Modified>"),
        });
    }
    out
}

/// Writes names as the request wants them.
struct Writer {
    url_encoded: bool,
    space: SpaceEncoding,
}

impl Writer {
    fn push_name(&self, out: &mut String, name: &str) {
        if !self.url_encoded {
            out.push_str(&xml_escaped(name));
            return;
        }
        match self.space {
            SpaceEncoding::Percent => out.extend(utf8_percent_encode(name, URL_ENCODED)),
            SpaceEncoding::Plus => {
                for piece in utf8_percent_encode(name, URL_ENCODED_PLUS) {
                    if piece.contains(' ') {
                        out.push_str(&piece.replace(' ', "+"));
                    } else {
                        out.push_str(piece);
                    }
                }
            }
        }
    }

    fn name(&self, name: &str) -> String {
        let mut out = String::new();
        self.push_name(&mut out, name);
        out
    }

    fn push_element(&self, out: &mut String, element: &str, name: &str) {
        let _ = write!(out, "<{element}>");
        self.push_name(out, name);
        let _ = write!(out, "</{element}>");
    }

    fn document(
        &self,
        bucket: &str,
        parameters: &Parameters,
        max_keys: usize,
        page: &ListPage,
        truncated: bool,
        next: Option<&str>,
    ) -> String {
        let mut out = String::with_capacity(512 + page.entries.len() * 256);
        out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        out.push_str("<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
        let _ = write!(out, "<Name>{bucket}</Name>");
        self.push_element(&mut out, "Prefix", &parameters.prefix);
        let count = page.entries.len() + page.common_prefixes.len();
        let _ = write!(out, "<MaxKeys>{max_keys}</MaxKeys><KeyCount>{count}</KeyCount>");
        let _ = write!(out, "<IsTruncated>{truncated}</IsTruncated>");
        if let Some(token) = &parameters.token {
            let _ = write!(out, "<ContinuationToken>{}</ContinuationToken>", xml_escaped(token));
        }
        if let Some(token) = next {
            let _ = write!(out, "<NextContinuationToken>{token}</NextContinuationToken>");
        }
        if let Some(delimiter) = &parameters.delimiter {
            self.push_element(&mut out, "Delimiter", delimiter);
        }
        if let Some(start_after) = &parameters.start_after {
            self.push_element(&mut out, "StartAfter", start_after);
        }
        if self.url_encoded {
            out.push_str("<EncodingType>url</EncodingType>");
        }
        for version in &page.entries {
            let Some(stored) = &version.stored else { continue };
            out.push_str("<Contents>");
            self.push_element(&mut out, "Key", &version.key);
            let (last_modified, etag, size) = (&version.last_modified, &stored.etag, stored.file.content.size());
            let _ = write!(
                out,
                "<LastModified>{last_modified}</LastModified><ETag>&quot;{etag}&quot;</ETag><Size>{size}</Size>\
                 <StorageClass>STANDARD</StorageClass></Contents>"
            );
        }
        for prefix in &page.common_prefixes {
            out.push_str("<CommonPrefixes>");
            self.push_element(&mut out, "Prefix", prefix);
            out.push_str("</CommonPrefixes>");
        }
        out.push_str("</ListBucketResult>");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_opaque_and_nobody_elses() {
        let position = Position(b"some/key\0".to_vec());
        let text = token(&position);
        assert!(!text.contains("some"));
        assert_eq!(parse_token(&text).unwrap(), position);
        for wrong in ["", "some/key", "AAAAAAAAAAAA", &text[1..], &text.to_lowercase()] {
            let refusal = parse_token(wrong).unwrap_err();
            assert_eq!((refusal.status, refusal.code.as_str()), (StatusCode::BAD_REQUEST, "InvalidArgument"));
        }
    }

    #[test]
    fn names_are_written_as_asked() {
        let written = |url_encoded, space| {
            let mut out = String::new();
            Writer { url_encoded, space }.push_name(&mut out, "a b+c/%2F&é\u{1}*~");
            out
        };
        assert_eq!(written(true, SpaceEncoding::Plus), "a+b%2Bc/%252F%26%C3%A9%01*%7E");
        assert_eq!(written(true, SpaceEncoding::Percent), "a%20b%2Bc/%252F%26%C3%A9%01*%7E");
        assert_eq!(written(false, SpaceEncoding::Plus), "a b+c/%2F&amp;é&#x1;*~");
    }

    #[test]
    fn parameters_are_checked() {
        let parse = |query: &str| Parameters::parse(query);
        assert_eq!(parse("prefix=a").unwrap_err().code, "NotImplemented");
        assert_eq!(parse("list-type=2&versions").unwrap_err().code, "NotImplemented");
        assert_eq!(parse("list-type=2&prefix=%FF").unwrap_err().code, "InvalidArgument");
        let parameters = parse("list-type=2&prefix=a%20b%2B&max-keys=5000&delimiter=&fetch-owner=true").unwrap();
        assert_eq!(parameters.prefix, "a b+");
        assert_eq!(parameters.delimiter, None);
        assert_eq!(parameters.max_keys().unwrap(), 1_000);
        assert!(parse("list-type=2&max-keys=-1").unwrap().max_keys().is_err());
        assert!(parse("list-type=2&encoding-type=xml").unwrap().url_encoded().is_err());
    }
}
