//! One page of a listing: S3 `ListObjectsV2`, its request and its answer.
//!
//! [`scan_list_page`] reads the one shape in which B2 writes its answer, fast. What it is not sure about is read as
//! a stream of XML events, which alone says what is wrong with a page. Names come with
//! `encoding-type=url`, because XML 1.0 cannot carry every character that a B2 name may hold. Whether B2 writes a space
//! as `+` or `%20` there is not documented; AWS writes `+`. Both are read: a literal plus sign is always sent as `%2B`.
//!
//! An entry whose size, time or the like cannot be read is set aside as [`Entry::unreadable`], so that it does not hide
//! the others. An entry without a readable key makes the whole page unreadable: what is not named cannot be told from
//! what is gone.
//!
//! This module judges whether a page is well-formed, not whether a listing makes sense: the order of keys, a repeated
//! token, or "truncated" without a token are the engine's to judge.
//!
//! Source: [ListObjectsV2](https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html), [B2's version of
//! it](https://www.backblaze.com/apidocs/s3-list-objects-v2).

mod scan;

use bytes::Bytes;
use percent_encoding::percent_decode;
use quick_xml::{Reader, events::Event};

use super::{classify::resolve_entity, url::object_url};
use crate::{
    entry::{Entry, EntryBuffer, SIZE_MAX},
    error::{Error, ErrorKind, quoted},
    http::{Method, Request},
    time::Timestamp,
};

pub use scan::scan_list_page;

/// The most keys that one page may be asked for.
pub const PAGE_KEYS_MAX: u16 = 1_000;
/// The most entries and common prefixes that a page may hold: more than B2 sends, less than could hurt.
pub const PAGE_ENTRIES_MAX: usize = 10_000;
/// How deep the elements of a page may be nested; the documented ones are 4 deep.
const DEPTH_MAX: usize = 16;

/// Which page of which listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    /// The bucket.
    pub bucket: String,
    /// What every key begins with; empty for all.
    pub prefix: String,
    /// Only keys after this one, which need not exist. Not sent along with a token, which says it better.
    pub start_after: Option<String>,
    /// [`ListPage::next_token`] of the page before.
    pub continuation_token: Option<String>,
    /// Rolls up keys into [`ListPage::common_prefixes`] at this separator.
    pub delimiter: Option<String>,
    /// How many keys, 1 to [`PAGE_KEYS_MAX`].
    pub max_keys: u16,
}

impl ListQuery {
    /// The first full page below `prefix`.
    pub fn first(bucket: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: prefix.into(),
            start_after: None,
            continuation_token: None,
            delimiter: None,
            max_keys: PAGE_KEYS_MAX,
        }
    }
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    /// In the order of the answer, those that cannot be read included ([`Entry::unreadable`]).
    pub entries: EntryBuffer,
    /// Whether there are more pages.
    pub truncated: bool,
    /// What asks for the next page.
    pub next_token: Option<String>,
    /// Only with a delimiter.
    pub common_prefixes: Vec<String>,
}

/// The unsigned request for one page, in path style.
///
/// ```
/// use b2sync_core::b2::list::{ListQuery, list_request};
/// let query = ListQuery { max_keys: 10, ..ListQuery::first("my-videos", "2024/a b") };
/// let request = list_request("https://s3.us-west-004.backblazeb2.com", &query)?;
/// assert_eq!(
///     request.uri(),
///     "https://s3.us-west-004.backblazeb2.com/my-videos?encoding-type=url&list-type=2&max-keys=10&prefix=2024%2Fa%20b"
/// );
/// # Ok::<(), b2sync_core::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Internal`] when endpoint or token make no URL, or `max_keys` is out of range.
pub fn list_request(endpoint: &str, query: &ListQuery) -> Result<Request, Error> {
    if !(1..=PAGE_KEYS_MAX).contains(&query.max_keys) {
        return Err(Error::internal(format!("A page of {} keys was asked for.", query.max_keys)));
    }
    let max_keys = query.max_keys.to_string();
    let mut pairs = vec![("encoding-type", "url"), ("list-type", "2"), ("max-keys", &*max_keys)];
    if !query.prefix.is_empty() {
        pairs.push(("prefix", &query.prefix));
    }
    if let Some(delimiter) = &query.delimiter {
        pairs.push(("delimiter", delimiter));
    }
    match (&query.continuation_token, &query.start_after) {
        (Some(token), _) => pairs.push(("continuation-token", token)),
        (None, Some(key)) => pairs.push(("start-after", key)),
        (None, None) => {}
    }
    ::http::Request::builder()
        .method(Method::GET)
        .uri(object_url(endpoint, &query.bucket, "", &pairs))
        .body(Bytes::new())
        .map_err(|error| Error::internal(format!("The list request cannot be built: {error}.")))
}

/// Parses the body of a 200 answer.
///
/// ```
/// use b2sync_core::b2::list::parse_list_page;
/// let page = parse_list_page(br#"<?xml version="1.0" encoding="UTF-8"?>
/// <ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><EncodingType>url</EncodingType>
///   <IsTruncated>true</IsTruncated><NextContinuationToken>abc=</NextContinuationToken>
///   <Contents><Key>a%2Bb+c.mp4</Key><LastModified>2024-01-01T00:00:00.250Z</LastModified>
///     <ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>7</Size></Contents>
/// </ListBucketResult>"#)?;
/// let entry = page.entries.iter().next().unwrap();
/// assert_eq!(entry.key, "a+b c.mp4");
/// assert_eq!(entry.etag, "d41d8cd98f00b204e9800998ecf8427e");
/// assert_eq!(page.next_token.as_deref(), Some("abc="));
/// # Ok::<(), b2sync_core::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::MalformedResponse`], naming what is wrong: not UTF-8, not XML, cut off, another root element (HTML, an
/// `<Error>` behind a 200), a field of the page or a key missing, doubled or unreadable, more than
/// [`PAGE_ENTRIES_MAX`] entries.
pub fn parse_list_page(body: &[u8]) -> Result<ListPage, Error> {
    match scan_list_page(body) {
        Some(page) => Ok(page),
        None => parse_list_page_by_events(body),
    }
}

/// [`parse_list_page`] by XML events alone: any XML, more than ten times slower. What it answers is what
/// [`scan_list_page`] is measured against.
///
/// # Errors
/// As [`parse_list_page`].
pub fn parse_list_page_by_events(body: &[u8]) -> Result<ListPage, Error> {
    let text = std::str::from_utf8(body).map_err(|error| malformed(format!("it is not UTF-8 ({error})")))?;
    let mut reader = Reader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut page = RawPage::default();
    let mut path: Vec<String> = Vec::new();
    let mut leaf = String::new();
    let mut root_seen = false;
    loop {
        let position = reader.buffer_position();
        let event = reader.read_event().map_err(|error| malformed(format!("at byte {position}: {error}")))?;
        match event {
            Event::Start(start) => {
                let name = start.local_name();
                open(&path, name.as_ref(), root_seen, &mut page)?;
                root_seen = true;
                path.push(name.as_ref().to_owned());
                leaf.clear();
            }
            Event::Empty(start) => {
                let name = start.local_name();
                open(&path, name.as_ref(), root_seen, &mut page)?;
                root_seen = true;
                path.push(name.as_ref().to_owned());
                close(&path, "", &mut page)?;
                path.pop();
                leaf.clear();
            }
            Event::End(_) => {
                close(&path, &leaf, &mut page)?;
                path.pop();
                leaf.clear();
            }
            Event::Text(text) => leaf.push_str(&text.xml10_content()),
            Event::CData(text) => leaf.push_str(&text.xml10_content()),
            Event::GeneralRef(entity) => leaf.push_str(
                &resolve_entity(&entity)
                    .ok_or_else(|| malformed(format!("it holds the unknown entity {}", quoted(&entity))))?,
            ),
            // A page has no document type, and no entities of its own that could be expanded.
            Event::DocType(_) => return Err(malformed("it has a document type: HTML, perhaps")),
            Event::Eof => break,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
    match path.last() {
        Some(open) => Err(malformed(format!("it ends inside <{open}>"))),
        None if !root_seen => Err(malformed("it is empty, or not XML")),
        None => page.finish(),
    }
}

/// A page with its names as they were sent: `EncodingType` may follow them.
#[derive(Default)]
struct RawPage {
    contents: Vec<RawEntry>,
    common_prefixes: Vec<String>,
    truncated: Option<String>,
    next_token: Option<String>,
    encoding: Option<String>,
}

#[derive(Default)]
struct RawEntry {
    key: Option<String>,
    etag: Option<String>,
    size: Option<String>,
    last_modified: Option<String>,
    /// A field beside the key that is there twice.
    doubled: Option<&'static str>,
}

/// Judges an element as it begins.
fn open(path: &[String], name: &str, root_seen: bool, page: &mut RawPage) -> Result<(), Error> {
    if path.is_empty() {
        return match (root_seen, name) {
            (true, _) => Err(malformed(format!("<{name}> follows its end"))),
            (false, "ListBucketResult") => Ok(()),
            (false, _) => Err(malformed(format!("it is <{name}>, not <ListBucketResult>"))),
        };
    }
    if path.len() >= DEPTH_MAX {
        return Err(malformed("its elements are nested too deep"));
    }
    if path.len() == 1 && matches!(name, "Contents" | "CommonPrefixes") {
        if page.contents.len() + page.common_prefixes.len() >= PAGE_ENTRIES_MAX {
            return Err(malformed(format!("it has more than {PAGE_ENTRIES_MAX} entries")));
        }
        if name == "Contents" {
            page.contents.push(RawEntry::default());
        }
    }
    Ok(())
}

/// Takes the text of an element as it ends.
fn close(path: &[String], text: &str, page: &mut RawPage) -> Result<(), Error> {
    let (slot, name) = match path {
        [_, name] => match name.as_str() {
            "IsTruncated" => (&mut page.truncated, name),
            "NextContinuationToken" => (&mut page.next_token, name),
            "EncodingType" => (&mut page.encoding, name),
            _ => return Ok(()),
        },
        [_, parent, name] if parent == "Contents" => {
            let Some(entry) = page.contents.last_mut() else { return Ok(()) };
            let (slot, field) = match name.as_str() {
                "Key" => (&mut entry.key, "Key"),
                "ETag" => (&mut entry.etag, "ETag"),
                "Size" => (&mut entry.size, "Size"),
                "LastModified" => (&mut entry.last_modified, "LastModified"),
                _ => return Ok(()),
            };
            if field != "Key" {
                if slot.replace(text.to_owned()).is_some() {
                    entry.doubled = Some(field);
                }
                return Ok(());
            }
            (slot, name)
        }
        [_, parent, name] if parent == "CommonPrefixes" && name == "Prefix" => {
            page.common_prefixes.push(text.to_owned());
            return Ok(());
        }
        _ => return Ok(()),
    };
    if slot.replace(text.to_owned()).is_some() {
        return Err(malformed(format!("it has <{name}> twice")));
    }
    Ok(())
}

impl RawPage {
    fn finish(self) -> Result<ListPage, Error> {
        let url_encoded = match self.encoding.as_deref().map(str::trim) {
            None | Some("") => false,
            Some("url") => true,
            Some(other) => return Err(malformed(format!("it has the unknown encoding type {}", quoted(other)))),
        };
        let truncated = match self.truncated.as_deref().map(str::trim) {
            Some("true") => true,
            Some("false") => false,
            Some(other) => return Err(malformed(format!("<IsTruncated> is {}", quoted(other)))),
            None => return Err(malformed("<IsTruncated> is missing")),
        };
        let mut entries = EntryBuffer::with_capacity(self.contents.len(), 0);
        for (index, raw) in self.contents.into_iter().enumerate() {
            let entry = raw.finish(url_encoded).map_err(|what| malformed(format!("in entry {index}, {what}")))?;
            entries.extend([(&entry).into()]);
        }
        let mut common_prefixes = Vec::with_capacity(self.common_prefixes.len());
        for prefix in self.common_prefixes {
            common_prefixes.push(decode_name(prefix, url_encoded).map_err(malformed)?);
        }
        let next_token = self.next_token.filter(|token| !token.is_empty());
        Ok(ListPage { entries, truncated, next_token, common_prefixes })
    }
}

impl RawEntry {
    fn finish(self, url_encoded: bool) -> Result<Entry, String> {
        let key = decode_name(self.key.clone().ok_or("<Key> is missing")?, url_encoded)?;
        if key.is_empty() {
            return Err("<Key> is empty".to_owned());
        }
        let (size, last_modified) = match (self.doubled, self.size(), self.last_modified()) {
            (None, Ok(size), Ok(last_modified)) => (size, last_modified),
            (Some(field), ..) => return Ok(Entry::unreadable(key, format!("<{field}> is there twice"))),
            (None, Err(why), _) | (None, Ok(_), Err(why)) => return Ok(Entry::unreadable(key, why)),
        };
        // A version without one is told from others by its size and time.
        let etag = self.etag.as_deref().unwrap_or_default().trim();
        let etag = etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(etag).to_owned();
        Ok(Entry { key, etag, size, last_modified })
    }

    fn size(&self) -> Result<u64, String> {
        let text = self.size.as_deref().ok_or("<Size> is missing")?;
        let size = text.trim().parse().ok().filter(|&size| size <= SIZE_MAX);
        size.ok_or_else(|| format!("<Size> is {}", quoted(text)))
    }

    fn last_modified(&self) -> Result<Timestamp, String> {
        let text = self.last_modified.as_deref().ok_or("<LastModified> is missing")?;
        Timestamp::parse_rfc3339(text.trim()).map_err(|_| format!("<LastModified> is {}", quoted(text)))
    }
}

fn decode_name(name: String, url_encoded: bool) -> Result<String, String> {
    if !url_encoded || !name.contains(['+', '%']) {
        return Ok(name);
    }
    let spaced = name.replace('+', " ");
    match percent_decode(spaced.as_bytes()).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(format!("the name {} is not UTF-8 when decoded", quoted(&name))),
    }
}

fn malformed(what: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::MalformedResponse,
        format!("A page of the listing cannot be read: {what}."),
        "Nothing was lost. If it happens again, check that no proxy stands between b2sync and B2, \
         and report it with this message.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryRef;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    const CONTENTS: &str = "<Contents><Key>a</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>\
         <ETag>\"e\"</ETag><Size>1</Size><StorageClass>STANDARD</StorageClass>\
         <Owner><ID>Key</ID><DisplayName/></Owner></Contents>";

    fn document(inside: &str) -> String {
        format!("<ListBucketResult><IsTruncated>false</IsTruncated>{inside}</ListBucketResult>")
    }

    #[test]
    fn one_odd_entry_does_not_hide_the_others() {
        let odd = CONTENTS.replace("<ETag>\"e\"</ETag>", "").replace("<Key>a", "<Key>b");
        let large = CONTENTS.replace("<Size>1<", "<Size>9007199254740993<").replace("<Key>a", "<Key>c");
        let page = parse_list_page(document(&[CONTENTS, &odd, &large].concat()).as_bytes()).unwrap();
        let seen: Vec<_> = page.entries.iter().map(|entry| (entry.key.to_owned(), entry.size)).collect();
        assert_eq!(seen, [("a", 1), ("b", 1), ("c", 9_007_199_254_740_993)].map(|it| (it.0.to_owned(), it.1)));
        assert_eq!(page.entries.iter().nth(1).unwrap().etag, "");
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_set_aside_with_its_key() {
        let size = |text: &str| CONTENTS.replace("<Size>1<", &format!("<Size>{text}<"));
        let time = |text: &str| CONTENTS.replace("2024-01-01T00:00:00.000Z", text);
        for (contents, why) in [
            (size("9223372036854775808"), "<Size> is \"9223372036854775808\""),
            (size("99999999999999999999"), "<Size> is \"99999999999999999999\""),
            (size("-1"), "<Size> is \"-1\""),
            (size("abc"), "<Size> is \"abc\""),
            (size("1.0"), "<Size> is \"1.0\""),
            (size(""), "<Size> is \"\""),
            (CONTENTS.replace("<Size>1</Size>", ""), "<Size> is missing"),
            (CONTENTS.replace("<Size>1<", "<Size>1</Size><Size>2<"), "<Size> is there twice"),
            (CONTENTS.replace("<ETag>", "<ETag>x</ETag><ETag>"), "<ETag> is there twice"),
            (time("2024-13-01T00:00:00.000Z"), "<LastModified> is \"2024-13-01T00:00:00.000Z\""),
            (time("yesterday"), "<LastModified> is \"yesterday\""),
            (CONTENTS.replace("LastModified>", "Modified>"), "<LastModified> is missing"),
        ] {
            let (before, behind) = (CONTENTS.replace("<Key>a", "<Key>0"), CONTENTS.replace("<Key>a", "<Key>b"));
            let text = format!("<EncodingType>url</EncodingType>{before}{contents}{behind}");
            let page = parse_list_page(document(&text).as_bytes()).unwrap();
            let entries: Vec<Entry> = page.entries.iter().map(EntryRef::to_entry).collect();
            assert_eq!(entries[1], Entry::unreadable("a", why));
            let keys: Vec<_> = entries.iter().map(|entry| (entry.key.as_str(), entry.is_unreadable())).collect();
            assert_eq!(keys, [("0", false), ("a", true), ("b", false)]);
        }
        let most = parse_list_page(document(&size("9223372036854775807")).as_bytes()).unwrap();
        assert_eq!(most.entries.iter().next().unwrap().size, SIZE_MAX);
    }

    #[test]
    fn a_request_sorts_and_encodes_its_query() {
        let query = ListQuery {
            start_after: Some("a+b/日".into()),
            delimiter: Some("/".into()),
            ..ListQuery::first("bucket", "")
        };
        let uri = |query: &ListQuery| list_request("http://h:1", query).unwrap().uri().to_string();
        assert_eq!(
            uri(&query),
            "http://h:1/bucket?delimiter=%2F&encoding-type=url&list-type=2&max-keys=1000&start-after=a%2Bb%2F%E6%97%A5"
        );
        let next = ListQuery { continuation_token: Some("t=/+".into()), delimiter: None, ..query };
        assert_eq!(
            uri(&next),
            "http://h:1/bucket?continuation-token=t%3D%2F%2B&encoding-type=url&list-type=2&max-keys=1000"
        );
        for max_keys in [0, 1_001] {
            assert!(list_request("http://h", &ListQuery { max_keys, ..ListQuery::first("b", "") }).is_err());
        }
    }

    #[test]
    fn names_are_decoded_only_if_the_answer_says_so() {
        let key = |encoding: &str, key: &str| {
            let text = document(&format!("{}{encoding}", CONTENTS.replace(">a<", &format!(">{key}<"))));
            parse_list_page(text.as_bytes()).unwrap().entries.iter().next().unwrap().key.to_owned()
        };
        let url = "<EncodingType>url</EncodingType>";
        assert_eq!(key(url, "a+b%20c%2Bd%00%F0%9F%8E%AC//"), "a b c+d\0🎬//");
        assert_eq!(key("", "a+b%20c"), "a+b%20c");
        assert_eq!(key("", "a&amp;&lt;&#x41;&#10; b"), "a&<A\n b");
        assert_eq!(key("", "<![CDATA[a&b]]>"), "a&b");
        assert_eq!(key("", " a "), " a ");
        assert_eq!(key(url, "100%"), "100%");
    }

    #[test]
    fn truncated_without_a_token_is_for_the_engine_to_judge() {
        let text = "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
        let page = parse_list_page(text.as_bytes()).unwrap();
        assert_eq!(page, ListPage { truncated: true, ..ListPage::default() });
    }

    #[test]
    fn common_prefixes() {
        let text = document(
            "<EncodingType>url</EncodingType><CommonPrefixes><Prefix>a+b/</Prefix></CommonPrefixes>\
             <CommonPrefixes><Prefix>c/</Prefix></CommonPrefixes><Prefix>x</Prefix>",
        );
        assert_eq!(parse_list_page(text.as_bytes()).unwrap().common_prefixes, ["a b/", "c/"]);
    }

    #[test]
    fn what_is_not_a_page_names_what_is_wrong() {
        let many = document(&"<Contents/>".repeat(PAGE_ENTRIES_MAX + 1));
        let deep = format!("<ListBucketResult>{}", "<a>".repeat(DEPTH_MAX + 1));
        for (text, what) in [
            ("", "empty, or not XML"),
            ("garbage", "empty, or not XML"),
            ("{\"code\":1}", "empty, or not XML"),
            ("<!DOCTYPE html><html></html>", "HTML"),
            ("<html><body>Bad gateway</body></html>", "<html>, not <ListBucketResult>"),
            ("<Error><Code>InternalError</Code></Error>", "<Error>, not"),
            ("<ListBucketResult>", "ends inside <ListBucketResult>"),
            ("<ListBucketResult><Contents><Ke", "at byte"),
            ("<ListBucketResult><Contents></ListBucketResult>", "at byte"),
            ("<ListBucketResult></ListBucketResult>", "<IsTruncated> is missing"),
            ("<ListBucketResult><IsTruncated>maybe</IsTruncated></ListBucketResult>", "\"maybe\""),
            (&document("<IsTruncated>false</IsTruncated>"), "<IsTruncated> twice"),
            (&format!("{}<a/>", document("")), "follows its end"),
            (&document("<Contents/>"), "entry 0, <Key> is missing"),
            (&document(&CONTENTS.replace("<Key>a</Key>", "<Key/>")), "<Key> is empty"),
            (&document(&CONTENTS.replace("<Key>a<", "<Key>b</Key><Key>a<")), "<Key> twice"),
            (&document(&CONTENTS.replace(">a<", ">&x;<")), "unknown entity \"x\""),
            (&document("<EncodingType>base64</EncodingType>"), "encoding type \"base64\""),
            (
                &document(&format!("<EncodingType>url</EncodingType>{}", CONTENTS.replace(">a<", ">%FF<"))),
                "\"%FF\" is not UTF-8",
            ),
            (&many, "more than 10000"),
            (&deep, "too deep"),
        ] {
            let error = parse_list_page(text.as_bytes()).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::MalformedResponse);
            assert!(error.message().contains(what), "{what}: {error}");
        }
        assert!(parse_list_page(b"<ListBucketResult>\xff").unwrap_err().message().contains("not UTF-8"));
    }

    fn entries() -> impl Strategy<Value = EntryBuffer> {
        let times = -62_000_000_000_000_i64..253_000_000_000_000;
        let one =
            (any::<String>(), "[ -!#-~]{0,34}", 0..=SIZE_MAX, times).prop_map(|(key, etag, size, millis)| Entry {
                key: format!("k{key}"),
                etag: etag.trim().to_owned(),
                size,
                last_modified: Timestamp::from_millis(millis),
            });
        proptest::collection::vec(one, 0..8).prop_map(|entries| entries.iter().map(EntryRef::from).collect())
    }

    fn escaped(text: &str) -> String {
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
    }

    fn rendered(page: &ListPage, plus: bool) -> String {
        let name = |text: &str| {
            let encoded = utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            if plus { encoded.replace("%20", "+") } else { encoded }
        };
        let mut xml =
            String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"x\"><Name>b</Name>");
        for entry in page.entries.iter() {
            xml += &format!(
                "\n <Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>\"{}\"</ETag><Size>{}</Size>\
                 </Contents>",
                name(entry.key),
                entry.last_modified,
                escaped(entry.etag),
                entry.size
            );
        }
        for prefix in &page.common_prefixes {
            xml += &format!("<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", name(prefix));
        }
        if let Some(token) = &page.next_token {
            xml += &format!("<NextContinuationToken>{}</NextContinuationToken>", escaped(token));
        }
        xml + &format!(
            "<IsTruncated>{}</IsTruncated><EncodingType>url</EncodingType></ListBucketResult>\n",
            page.truncated
        )
    }

    proptest! {
        #[test]
        fn parsing_undoes_rendering(
            entries in entries(),
            truncated in any::<bool>(),
            next_token in proptest::option::of("[!-~]{1,60}"),
            common_prefixes in proptest::collection::vec(any::<String>(), 0..3),
            plus in any::<bool>(),
        ) {
            let page = ListPage { entries, truncated, next_token, common_prefixes };
            prop_assert_eq!(parse_list_page(rendered(&page, plus).as_bytes()).unwrap(), page);
        }

        #[test]
        fn a_cut_page_is_never_a_page(entries in entries(), cut in any::<proptest::sample::Index>()) {
            let xml = rendered(&ListPage { entries, ..ListPage::default() }, false);
            let xml = xml.trim_end();
            prop_assert!(parse_list_page(&xml.as_bytes()[..cut.index(xml.len())]).is_err());
        }

        #[test]
        fn no_body_panics(body in "(<[a-zA-Z/!?]{0,3}|Contents>|&[#x;]?|[\"'\\]>= a]){0,20}") {
            let _ = parse_list_page(body.as_bytes());
            let _ = parse_list_page(format!("<ListBucketResult>{body}").as_bytes());
        }
    }
}
