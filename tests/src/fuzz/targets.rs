//! The decoders, and what must hold for each on any bytes.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use b2sync_core::b2::list::{ListPage, parse_list_page, parse_list_page_by_events, scan_list_page};
use b2sync_core::change::{Change, ChangeKind, Found, Previous, change_id};
use b2sync_core::entry::{Entry, KeyOrder};
use b2sync_core::feed::batch::{self, BATCH_CHANGES_MAX};
use b2sync_core::filter::{Filter, FilterSpec, ITEM_BYTES_MAX, LIST_ITEMS_MAX, Verdict, WILDCARD_PATTERNS_BYTES_MAX};
use b2sync_core::job::{ErrorRecord, JobCost, JobCounts, JobRecord, JobStatus, Phase, Trigger};
use b2sync_core::snapshot::codec::{
    DecodeError, KEY_BYTES_MAX, KEYS_BYTES_MAX, LEAF_KEYS_BYTES_MAX, LIST_KEYS_BYTES_MAX,
};
use b2sync_core::snapshot::cut::{Begins, LEAF_SEGMENTS_MAX, SEGMENT_ENTRIES_MAX};
use b2sync_core::snapshot::index::{Level, SegmentRef};
use b2sync_core::snapshot::names::BlobName;
use b2sync_core::snapshot::{ContentHash, Known, index, packed, segment};
use b2sync_core::source_path::{PREFIX_BYTES_MAX, SourcePath};
use b2sync_core::state::document::{self, Checkpoint, KnownPart, NameList, Resync, Root, RootJob, SnapshotDocument};
use b2sync_core::state::feed::{BatchRef, Feed, ListRef, decode_list, encode_list};
use b2sync_core::time::Timestamp;
use b2sync_core::{
    b2::account::{Account, parse_authorize},
    state::embedded,
};
use b2sync_service::coordinator::protocol::SyncStatus;
use b2sync_service::coordinator::{self, document_read_and_written};
use b2sync_service::documents::Stored;
use b2sync_service::sinks::SinkRecord;
use b2sync_service::sinks::dead_letters::DEAD_LETTERS_MAX;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Meter, Outcome, Target, refused, taken};

/// What any decoder may take besides: error messages and the like.
const BASE_BYTES: usize = 64 << 10;

/// All of them.
pub static TARGETS: [Target; 13] = [
    Target {
        name: "list-xml",
        about: "a page of a listing, as B2 sends it",
        seeds: list_seeds,
        odd: list_odd,
        words: &[
            b"<Contents>",
            b"</Contents>",
            b"<Contents/>",
            b"<Key>",
            b"</Key>",
            b"<Key/>",
            b"<ETag>",
            b"</ETag>",
            b"<Size>",
            b"</Size>",
            b"<LastModified>",
            b"</LastModified>",
            b"<CommonPrefixes>",
            b"</CommonPrefixes>",
            b"<Prefix>",
            b"</Prefix>",
            b"<IsTruncated>",
            b"</IsTruncated>",
            b"<NextContinuationToken>",
            b"<EncodingType>url</EncodingType>",
            b"<![CDATA[",
            b"]]>",
            b"<!--",
            b"-->",
            b"<?x ?>",
            b"<!DOCTYPE x>",
            b"&amp;",
            b"&quot;",
            b"&#0;",
            b"&#x10FFFF;",
            b"&#13;",
            b"\r\n",
            b"%2B",
            b"%",
            b"+",
            b"\"",
            b" xmlns:a=\"b\"",
            b"<a:",
            b"<",
            b"/>",
            b"2024-01-01T00:00:00.000Z",
            b"9999-12-31T23:59:59-23:59",
        ],
        input_bytes_max: 16 << 10,
        check: list_xml,
    },
    Target {
        name: "authorize",
        about: "B2's answer to b2_authorize_account",
        seeds: authorize_seeds,
        odd: Vec::new,
        words: &[
            b"null",
            b"[]",
            b"{}",
            b"\"\"",
            b"\"allowed\":",
            b"\"buckets\":",
            b"\"name\":",
            b"\"namePrefix\":",
            b"\"capabilities\":",
            b"\"bucketName\":",
            b"\"s3ApiUrl\":",
            b"https://s3.us-west-004.backblazeb2.com",
            b"http://[::1]:1/",
            b"\\u0000",
            b"\\ud800",
            b"1e999",
            b"[[",
        ],
        input_bytes_max: 8 << 10,
        check: authorize,
    },
    Target {
        name: "source-path",
        about: "a source path, as a user writes it",
        seeds: || {
            ["b2://my-videos/2024/", "S3://a.b.c", "my-videos/a?b=c/d", "my-videos/日本/ //+%20#"].map(bytes).to_vec()
        },
        odd: || ["", "gs://my-videos/", "b2://My_Videos/"].map(bytes).to_vec(),
        words: &[
            b"b2://",
            b"s3://",
            b"gs://",
            b"://",
            b"/",
            b"..",
            b"?a=b",
            b"#",
            b" ",
            b"\n",
            "é".as_bytes(),
            b"\x7f",
        ],
        input_bytes_max: 2 << 10,
        check: source_path,
    },
    Target {
        name: "filter",
        about: "the filters of a sync: one a line, + include, - exclude, . extension, m MIME type, k a key to ask about",
        seeds: filter_seeds,
        odd: filter_odd,
        words: &[
            b"\n+",
            b"\n-",
            b"\n.",
            b"\nm",
            b"\nk",
            b"**",
            b"**/",
            b"/**",
            b"{a,b}",
            b"{,}",
            b"{",
            b"}",
            b"[!a-z]",
            b"[",
            b"]",
            b"\\",
            b"?",
            b"*",
            b"/",
            b",",
            "[é]".as_bytes(),
            b"image/*",
            b"*/*",
            b"{a,{b,{c,d}}}",
            b"./",
        ],
        input_bytes_max: 8 << 10,
        check: filter,
    },
    Target {
        name: "segment",
        about: "a stored segment",
        seeds: || {
            entry_lists().iter().map(|entries| encode_known(&known(entries))).chain([bomb(b'S', 8, 100)]).collect()
        },
        odd: || vec![bomb(b'S', 8, TOO_MANY)],
        words: &[b"b2S\x01", b"b2S\x02", b"b2I\x01"],
        input_bytes_max: 32 << 10,
        check: segment_bytes,
    },
    Target {
        name: "packed",
        about: "a segment as it is stored: deflated",
        seeds: packed_seeds,
        odd: packed_odd,
        words: &[b"b2P\x01", b"b2P\x02", b"b2S\x01"],
        input_bytes_max: 8 << 10,
        check: packed_bytes,
    },
    Target {
        name: "entries",
        about: "the entries of a checkpoint's open segment",
        seeds: || {
            entry_lists().iter().map(|entries| segment::encode_entries(entries)).chain([bomb(b'E', 1, 100)]).collect()
        },
        odd: || vec![bomb(b'E', 1, TOO_MANY)],
        words: &[b"b2E\x01", b"b2E\x02", b"b2S\x01"],
        input_bytes_max: 32 << 10,
        check: entries_bytes,
    },
    Target {
        name: "index",
        about: "a stored index",
        seeds: || {
            let lists = [(Level::Leaf, 0), (Level::Leaf, 1), (Level::Leaf, 3), (Level::Top, 2), (Level::Top, 100)];
            let nodes = lists.map(|(level, count)| index::encode(level, &segment_refs(count)));
            nodes.into_iter().chain([bomb(b'I', 32, LEAF_SEGMENTS_MAX as u64)]).collect()
        },
        odd: || vec![bomb(b'I', 32, LEAF_SEGMENTS_MAX as u64 + 1), bomb(b'I', 32, TOO_MANY)],
        words: &[b"b2I\x01", b"b2I\x02", b"b2S\x01", b"b2I\x01\x00\x00", b"b2I\x01\x01"],
        input_bytes_max: 32 << 10,
        check: index_bytes,
    },
    Target {
        name: "batch",
        about: "a batch of the feed",
        seeds: || entry_lists().iter().map(|entries| batch_of(&found(entries))).chain([bomb_of_changes()]).collect(),
        odd: Vec::new,
        words: &[b"b2F\x01", b"b2F\x02", b"b2S\x01", b"\x01", b"\x02", b"\x03", b"\x04", b"\x11", b"\x05job_1"],
        input_bytes_max: 32 << 10,
        check: batch_bytes,
    },
    Target {
        name: "batches",
        about: "a list of batches of the feed",
        seeds: || [0, 1, 3, 100].map(|count| encode_list(&batch_refs(count))).to_vec(),
        odd: Vec::new,
        words: &[b"b2L\x01", b"b2L\x02", b"b2F\x01", b"\x00", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"],
        input_bytes_max: 32 << 10,
        check: batches_bytes,
    },
    Target {
        name: "checkpoint",
        about: "the stored document of root and checkpoint, and the pieces in it",
        seeds: checkpoint_seeds,
        odd: || {
            let wrong_piece = full_document(&["looked_into"]);
            [r#"{"v":1,"root":{}}"#, "{}", "", &String::from_utf8_lossy(&wrong_piece)].map(bytes).to_vec()
        },
        words: &[
            b"null",
            b"{}",
            b"[]",
            b"\"v\":1",
            b"\"v\":2",
            b"\"root\":",
            b"\"checkpoint\":",
            b"\"retired\":[",
            b"\"counts\":{",
            b"\"order\":\"utf16\"",
            b"\"feed\":{\"next\":2,\"lists\":[{\"blob\":\"",
            b"\"segments\":\"",
            b"YjJTAQ",
            b"YjJFAQ",
            b"YjJJAQ",
            b"YjJMAQ",
            b"////",
            b"AAAA",
            b"\"\",\"\",",
            b"18446744073709551615",
            b"\\u0000",
            b"\\ud800",
            b"[[",
        ],
        input_bytes_max: 16 << 10,
        check: checkpoint,
    },
    Target {
        name: "coordinator",
        about: "the stored document of a sync's coordinator",
        seeds: coordinator_seeds,
        odd: || [r#"{"v":2,"sync_id":""}"#, "{}", ""].map(bytes).to_vec(),
        words: &[
            b"null",
            b"{}",
            b"[]",
            b"\"v\":1",
            b"\"v\":2",
            b"\"jobs\":[",
            b"\"unpublished\":[",
            b"\"status\":{",
            b"\"lease\":{\"holder\":\"\",\"until\":1}",
            b"\"error\":{",
            b"\"running\"",
            b"18446744073709551615",
            b"-9223372036854775808",
            b"\\ud800",
            b"[[",
        ],
        input_bytes_max: 16 << 10,
        check: coordinator_document,
    },
    Target {
        name: "sink",
        about: "the stored document of a sink, with its dead letters",
        seeds: sink_seeds,
        odd: || [r#"{"v":2}"#, "{}", ""].map(bytes).to_vec(),
        words: &[
            b"null",
            b"{}",
            b"[]",
            b"\"v\":1",
            b"\"v\":2",
            b"\"cursor\":1",
            b"\"state\":\"disabled\"",
            b"\"dead_letters\":[",
            b"\"kind\":\"deleted\"",
            b"\"requeued\":true",
            b"18446744073709551615",
            b"-9223372036854775808",
            b"\\ud800",
            b"[[",
        ],
        input_bytes_max: 16 << 10,
        check: sink_document,
    },
];

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// `decoded` came from foreign bytes and was encoded by us: decoding that gives the same.
fn same<T: PartialEq + std::fmt::Debug, E: std::fmt::Display>(decoded: &T, again: Result<T, E>) -> Result<(), String> {
    match again {
        Ok(again) if again == *decoded => Ok(()),
        Ok(again) => Err(format!("what was decoded and encoded decodes differently: {decoded:?}, then {again:?}")),
        Err(error) => Err(format!("what was decoded and encoded does not decode: {error}, from {decoded:?}")),
    }
}

// --- the listing ---

const CONTENTS: &str = "<Contents><Key>a/1%2B.mp4</Key><LastModified>2024-01-01T00:00:00.250Z</LastModified>\
     <ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>7</Size><StorageClass>STANDARD</StorageClass>\
     <Owner><ID>1</ID><DisplayName/></Owner></Contents>";

fn page(inside: &str) -> Vec<u8> {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult \
         xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><Prefix/><MaxKeys>1000</MaxKeys>\
         <IsTruncated>false</IsTruncated>{inside}</ListBucketResult>"
    )
    .into_bytes()
}

fn list_seeds() -> Vec<Vec<u8>> {
    // In the shape that the scanner reads.
    let plain = |inside: &str| page(&format!("<EncodingType>url</EncodingType>{inside}"));
    let odd = CONTENTS
        .replace("2024-01-01T00:00:00.250Z", "2024-02-29T23:59:59Z")
        .replace("&quot;", "\"")
        .replace("a/1%2B.mp4", "%E6%97%A5/a+b%20c%25")
        .replace("><", ">\r\n\t <");
    let least = "<Contents><Key>a</Key><ETag>e</ETag><Size>0</Size><LastModified>1970-01-01T00:00:00Z</LastModified>\
                 </Contents>";
    vec![
        page(""),
        page(CONTENTS),
        plain(""),
        plain(CONTENTS),
        plain(&odd),
        plain(least),
        plain(&format!("{odd}{CONTENTS}<KeyCount>2</KeyCount><A><B/><C>c</C></A>")),
        [plain(CONTENTS), b"\n".to_vec()].concat(),
        b"<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
          <NextContinuationToken>1a+/=</NextContinuationToken></ListBucketResult>"
            .to_vec(),
        page(&format!("<EncodingType>url</EncodingType>{}", CONTENTS.repeat(20))),
        page(&format!("{CONTENTS}<NextContinuationToken>a&amp;b=</NextContinuationToken><KeyCount>1</KeyCount>")),
        page("<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes><!-- c --><![CDATA[ d ]]>"),
        page(&CONTENTS.replace("a/1%2B.mp4", "日本/<![CDATA[<🎬>]]>&#x1F3AC;&apos;")),
    ]
}

fn list_odd() -> Vec<Vec<u8>> {
    vec![
        page(&"<Contents/>".repeat(1_000)),
        bytes("<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>no</Message></Error>"),
        bytes("<!DOCTYPE html><html><body>Bad gateway</body></html>"),
    ]
}

fn list_xml(input: &[u8], meter: &Meter) -> Outcome {
    // An entry of 11 bytes, `<Contents/>`, becomes four texts that are missing.
    let page = meter.measured(BASE_BYTES + 48 * input.len(), || parse_list_page(input))?;
    // What the scanner of the hot path accepts is what quick-xml makes of the same bytes.
    let scanned = scan_list_page(input);
    let plain = if scanned.is_some() { " plain" } else { "" };
    if let Some(scanned) = scanned {
        match parse_list_page_by_events(input) {
            Ok(page) if page == scanned => {}
            Ok(page) => return Err(format!("the scanner reads {scanned:?}, and quick-xml {page:?}")),
            Err(error) => return Err(format!("the scanner reads {scanned:?}, and quick-xml says: {error}")),
        }
    }
    let page = match page {
        Ok(page) => page,
        Err(error) => return refused(error.message()),
    };
    if page.entries.iter().any(|entry| entry.key.is_empty()) {
        return Err("a key is empty".to_owned());
    }
    // A time near the year 10,000 or 0 can move out of what RFC 3339 writes with its offset.
    let times_of_four_digits = |page: &ListPage| {
        page.entries.iter().all(|entry| Timestamp::parse_rfc3339(&entry.last_modified.to_string()).is_ok())
    };
    if !times_of_four_digits(&page) {
        return taken(&format!("a page with a time that RFC 3339 does not write{plain}"));
    }
    same(&page, parse_list_page(page_xml(&page).as_bytes()))?;
    taken(&format!(
        "a page: {} {} {}{plain}",
        if page.truncated { "truncated" } else { "whole" },
        if page.entries.is_empty() { "empty" } else { "entries" },
        if page.common_prefixes.is_empty() { "" } else { "prefixes" },
    ))
}

/// The page as an S3 server might have sent it.
fn page_xml(page: &ListPage) -> String {
    let name = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut xml = "<ListBucketResult><EncodingType>url</EncodingType>".to_owned();
    let _ = write!(xml, "<IsTruncated>{}</IsTruncated>", page.truncated);
    if let Some(token) = &page.next_token {
        let _ = write!(xml, "<NextContinuationToken>{}</NextContinuationToken>", escaped(token));
    }
    for entry in page.entries.iter() {
        let _ = write!(
            xml,
            "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>\"{}\"</ETag><Size>{}</Size></Contents>",
            name(entry.key),
            entry.last_modified,
            escaped(entry.etag),
            entry.size
        );
    }
    for prefix in &page.common_prefixes {
        let _ = write!(xml, "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", name(prefix));
    }
    xml + "</ListBucketResult>"
}

fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            // quick-xml takes it as it is, and not as a reference.
            '\0' => out.push(c),
            c if c.is_control() || ('\u{2028}'..='\u{2029}').contains(&c) => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            c => out.push(c),
        }
        out
    })
}

// --- the account ---

fn authorize_seeds() -> Vec<Vec<u8>> {
    let v4 = r#"{"accountId":"870eff85b6c6","apiInfo":{"storageApi":{"absoluteMinimumPartSize":5000000,
        "apiUrl":"https://api004.backblazeb2.com","s3ApiUrl":"https://s3.us-west-004.backblazeb2.com","allowed":{
        "buckets":[{"id":"b1","name":"my-videos"},{"id":"b2","name":null}],"capabilities":["listFiles","readFiles"],
        "namePrefix":"2024/"}}},"applicationKeyExpirationTimestamp":1700000000000,"authorizationToken":"4_x"}"#;
    let v3 = r#"{"accountId":"870eff85b6c6","apiInfo":{"storageApi":{"bucketId":"b1","bucketName":"my-videos",
        "capabilities":["listFiles"],"namePrefix":null,"s3ApiUrl":"https://s3.eu-central-003.backblazeb2.com/"}},
        "applicationKeyExpirationTimestamp":null}"#;
    vec![bytes(v4), bytes(v3), bytes(&v4.replace("s3.us-west-004.backblazeb2.com", "minio.example:9000"))]
}

fn authorize(input: &[u8], meter: &Meter) -> Outcome {
    let account = match meter.measured(BASE_BYTES + 64 * input.len(), || parse_authorize(input))? {
        Ok(account) => account,
        Err(error) => return refused(error.message()),
    };
    // A scheme is the same in any case.
    let is_http = account.s3_endpoint.to_ascii_lowercase().starts_with("http");
    if account.s3_endpoint.ends_with('/') || !is_http || account.region.is_empty() {
        return Err(format!("no endpoint or region: {account:?}"));
    }
    same(&account, parse_authorize(&account_json(&account)))?;
    // Whatever the restrictions are, they are compared and not stumbled over.
    let source = SourcePath::parse("b2://my-videos/2024/").map_err(|error| error.to_string())?;
    match account.check(&source, Timestamp::from_millis(1_600_000_000_000)) {
        Ok(()) => taken("may list"),
        Err(error) => taken(error.kind().as_str()),
    }
}

/// The account as B2 might have said it, version 4.
fn account_json(account: &Account) -> Vec<u8> {
    let buckets = account
        .buckets
        .as_ref()
        .map(|names| names.iter().map(|name| serde_json::json!({"id": "b", "name": name})).collect::<Vec<_>>());
    serde_json::json!({
        "accountId": account.account_id,
        "apiInfo": {"storageApi": {"s3ApiUrl": account.s3_endpoint, "allowed": {
            "buckets": buckets, "capabilities": account.capabilities, "namePrefix": account.name_prefix,
        }}},
        "applicationKeyExpirationTimestamp": account.key_expires_at.map(Timestamp::as_millis),
    })
    .to_string()
    .into_bytes()
}

// --- what users write ---

fn source_path(input: &[u8], meter: &Meter) -> Outcome {
    let text = String::from_utf8_lossy(input);
    let path = match meter.measured(BASE_BYTES + 16 * text.len(), || SourcePath::parse(&text))? {
        Ok(path) => path,
        Err(error) => return refused(error.message()),
    };
    same(&path, SourcePath::parse(&path.to_string()))?;
    if path.prefix().len() > PREFIX_BYTES_MAX || !path.prefix().starts_with(path.root()) {
        return Err(format!("its root or its length is wrong: {path:?}"));
    }
    let key = format!("{}a/b", path.prefix());
    if format!("{}{}", path.root(), path.relative(&key)) != key {
        return Err(format!("root and relative path do not make the key: {path:?}"));
    }
    taken(if path.prefix().is_empty() { "a bucket" } else { "a prefix" })
}

/// The most memory that compiling filters may take, in bytes, whatever was written.
const FILTER_BYTES_MAX: usize = 18 << 20;
/// The most that asking them about a few keys may take. Not what they can come to: an automaton is made as keys need it, up
/// to 10 MB of it, and a pattern that ends with an extension has one of its own.
const ASKED_BYTES_MAX: usize = 64 << 20;

/// Alternatives within alternatives.
fn nested(depth: usize) -> String {
    format!("+{}a{}\nkaaa", "{b,".repeat(depth), "}".repeat(depth))
}

/// Both lists full of patterns of these pieces, as long as they may be, and `more` of one; `end` is at the end of each.
fn full_lists(piece: &str, end: &str, more: usize) -> String {
    let each = WILDCARD_PATTERNS_BYTES_MAX / LIST_ITEMS_MAX;
    let one = |n: usize| {
        let pieces = (each - 2 - end.len()) / piece.len();
        let filled = "z".repeat(each - 2 - end.len() - pieces * piece.len());
        format!("{}{filled}{n:02}{end}", piece.repeat(pieces))
    };
    let list = |sign: char| (0..LIST_ITEMS_MAX).map(|n| format!("{sign}{}\n", one(n))).collect::<String>();
    // Fewer than a hundred bytes are left over.
    format!("{}{}k{}", list('+').replacen(end, &format!("{}{end}", "z".repeat(more)), 1), list('-'), "a/".repeat(500))
}

/// Those that take most when they are compiled.
const HEAVY: [(&str, &str); 8] =
    [("**/a/", ""), ("*a", ""), ("*a", "/b"), ("?", "/b"), ("?", ""), ("{*,**}", "/b"), ("{,}", ""), ("*a", "*.mp4")];

fn filter_seeds() -> Vec<Vec<u8>> {
    let many = (0..LIST_ITEMS_MAX).map(|index| format!("+*{index}*\n")).collect::<String>();
    let alternatives = format!("+{}\nkabababab", "{a,b}".repeat(ITEM_BYTES_MAX / 5));
    let stars = format!("-{}b\nk{}", "*a".repeat(200), "a".repeat(1_000));
    let folders = format!("-{}b\nk{}", "**/a/".repeat(100), "a/".repeat(500));
    [
        "+*.mp4\n+raw/**\n-*_thumbnail.*\n.MP4\nmvideo/*\nk2024/raw/a.mp4\nk2024/b_thumbnail.mp4",
        "+[!a-c]?/\\*{x,y,}.jpg\n-./a/**/b\nka/b/c/b\nkx",
        "+{é,è}*\n-[a-z]*\nké.mp4",
        &many,
        &nested(10),
        &nested(100),
        &alternatives,
        &stars,
        &folders,
    ]
    .map(bytes)
    .into_iter()
    .chain(HEAVY.map(|(piece, end)| bytes(&full_lists(piece, end, 0))))
    .collect()
}

fn filter_odd() -> Vec<Vec<u8>> {
    [&nested(200), &nested(400), &full_lists("*a", "b", 100), "+[é]", "-", "+a[b", ".a/b", "mvideo"].map(bytes).to_vec()
}

fn filter(input: &[u8], meter: &Meter) -> Outcome {
    let text = String::from_utf8_lossy(input);
    let (mut spec, mut keys) = (FilterSpec::default(), vec![String::new(), "2024/a.mp4".to_owned()]);
    for line in text.split('\n') {
        let mut rest = line.chars();
        let list = match rest.next() {
            Some('+') => &mut spec.include_patterns,
            Some('-') => &mut spec.exclude_patterns,
            Some('.') => &mut spec.extensions,
            Some('m') => &mut spec.mime_types,
            Some('k') => &mut keys,
            _ => continue,
        };
        list.push(rest.as_str().to_owned());
    }
    let source = SourcePath::parse("b2://my-videos/2024/").map_err(|error| error.to_string())?;
    let filter = match meter.measured(FILTER_BYTES_MAX, || Filter::compile(&spec, &source))? {
        Ok(filter) => filter,
        Err(error) => return refused(format!("{} {}", error.field().unwrap_or_default(), error.message())),
    };
    let mut verdicts = BTreeSet::new();
    for key in keys.iter().take(20) {
        let entry = Entry { key: key.clone(), etag: "e".into(), size: 1, last_modified: Timestamp::from_millis(0) };
        let verdict = meter.measured(ASKED_BYTES_MAX, || filter.explain(&entry))?;
        if filter.matches(&entry) != (verdict == Verdict::Accepted) || filter.explain(&entry) != verdict {
            return Err(format!("it matches and explains differently: {key:?} {verdict:?}"));
        }
        if let Verdict::Excluded { pattern } = verdict
            && !spec.exclude_patterns.iter().any(|written| written == pattern)
        {
            return Err(format!("nobody wrote the pattern {pattern:?}"));
        }
        verdicts.insert(verdict.field().unwrap_or("accepted"));
    }
    let fingerprint = spec.fingerprint();
    spec.include_patterns.reverse();
    spec.exclude_patterns.extend(spec.exclude_patterns.clone());
    if spec.fingerprint() != fingerprint {
        return Err("order or repetition changes the fingerprint".to_owned());
    }
    taken(&format!("{verdicts:?}").replace('"', ""))
}

// --- what is stored ---

/// What a piece may take: its keys, each at most [`KEY_BYTES_MAX`] and all of them `keys_bytes_max`, and a multiple of its
/// own bytes, of which an item takes at least so many.
fn piece_bound(input: &[u8], item_bytes_min: usize, keys_bytes_max: usize) -> usize {
    let keys_bytes = (KEY_BYTES_MAX * (input.len() / item_bytes_min + 1)).min(keys_bytes_max);
    BASE_BYTES + keys_bytes + 20 * input.len()
}

/// What decoding a segment may take, whatever its bytes are.
fn segment_bound(input: &[u8]) -> usize {
    let entries = BASE_BYTES + KEYS_BYTES_MAX + size_of::<Known>() * SEGMENT_ENTRIES_MAX;
    piece_bound(input, 12, KEYS_BYTES_MAX).min(entries)
}

fn entry_lists() -> Vec<Vec<Entry>> {
    let entry = |key: String, etag: &str, size, millis| Entry {
        key,
        etag: etag.to_owned(),
        size,
        last_modified: Timestamp::from_millis(millis),
    };
    let md5 = "d41d8cd98f00b204e9800998ecf8427e";
    vec![
        vec![],
        vec![entry("a/1.mp4".into(), md5, 0, 1_704_067_200_000)],
        (0..20).map(|n| entry(format!("videos/2024/{n:04}.mp4"), md5, n << 40, 1_704_067_200_000 + n as i64)).collect(),
        vec![
            entry("\u{e000}".into(), "", u64::MAX, i64::MIN),
            entry("🎬".into(), "x-1", 1, i64::MAX),
            entry("a".repeat(1_000), "é", 2, -1),
        ],
    ]
}

fn known(entries: &[Entry]) -> Vec<Known> {
    entries.iter().map(Known::from).collect()
}

fn encode_known(known: &[Known]) -> Vec<u8> {
    segment::encode(known.iter())
}

fn segment_refs(count: u64) -> Vec<SegmentRef> {
    (0..count)
        .map(|n| SegmentRef {
            first_key: format!("videos/{n}"),
            hash: ContentHash::of(&n.to_le_bytes()),
            entries: n,
            bytes: u64::MAX - n,
        })
        .collect()
}

/// So many of the longest keys are more than any segment has.
const TOO_MANY: u64 = (KEYS_BYTES_MAX / KEY_BYTES_MAX) as u64 + 1;

/// A long key, and items that repeat it whole, `count` in all: the most memory that few bytes can ask for. `fixed` is how
/// many bytes of an item follow its key before two numbers.
fn bomb(kind: u8, fixed: usize, count: u64) -> Vec<u8> {
    let number = |value: u64| [(value & 0x7f) as u8 | 0x80, (value >> 7) as u8];
    let key_length = number(KEY_BYTES_MAX as u64);
    let mut bytes = vec![b'b', b'2', kind, 1];
    if kind == b'I' {
        bytes.push(0);
    }
    bytes.extend(number(count));
    let tail = vec![0; fixed + 2];
    bytes.extend([[0].as_slice(), &key_length, &vec![b'k'; KEY_BYTES_MAX], &tail].concat());
    for _ in 1..count {
        bytes.extend([&key_length, [0].as_slice(), &tail].concat());
    }
    bytes
}

/// The same of changes: deletions, whose 8 bytes of tag follow size and time.
fn bomb_of_changes() -> Vec<u8> {
    let known = Known::from(&Entry {
        key: "k".repeat(KEY_BYTES_MAX),
        etag: "e".to_owned(),
        size: 0,
        last_modified: Timestamp::default(),
    });
    let mut builder = batch::Builder::default();
    while !builder.is_full() {
        builder.push(&Found::Vanished(known.clone()));
    }
    finish(builder)
}

fn batch_of(found: &[Found]) -> Vec<u8> {
    let mut builder = batch::Builder::default();
    found.iter().for_each(|found| builder.push(found));
    finish(builder)
}

fn finish(builder: batch::Builder) -> Vec<u8> {
    builder.finish(7, Timestamp::from_millis(1_704_067_200_000), "job_1")
}

fn found(entries: &[Entry]) -> Vec<Found> {
    let previous = |entry: &Entry| Some(Previous::from(&Known::from(entry)));
    let change = |(n, entry): (usize, &Entry)| match n % 4 {
        0 => Found::Appeared { entry: entry.clone(), previous: None },
        1 => Found::Vanished(Known::from(entry)),
        2 => Found::Again(entry.clone()),
        _ => Found::Appeared { entry: entry.clone(), previous: previous(entry) },
    };
    entries.iter().enumerate().map(change).collect()
}

/// What a change is made of.
fn found_again(change: &Change) -> Found {
    let entry = change.entry.clone();
    match (change.kind, change.previous) {
        (ChangeKind::Deleted, Some(Previous { tag, size, last_modified })) => {
            Found::Vanished(Known { key: entry.key, tag, size, last_modified })
        }
        _ if change.again => Found::Again(entry),
        (_, previous) => Found::Appeared { entry, previous },
    }
}

fn batch_refs(count: u64) -> Vec<BatchRef> {
    let batch = |n: u64| BatchRef {
        hash: ContentHash::of(&n.to_le_bytes()),
        first: 1 + n * 5,
        count: 5,
        found_at: Timestamp::from_millis(1_704_067_200_000 + n as i64),
    };
    (0..count).map(batch).collect()
}

/// A piece decodes within `bound` bytes, and is the same when it is encoded again; `none` and `some` say what it holds.
fn piece<T: PartialEq + std::fmt::Debug>(
    meter: &Meter,
    input: &[u8],
    bound: usize,
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
    encode: impl Fn(&T) -> Vec<u8>,
    [none, some]: [&'static str; 2],
    is_empty: impl Fn(&T) -> bool,
) -> Outcome {
    let decoded = match meter.measured(bound, || decode(input))? {
        Ok(decoded) => decoded,
        Err(error) => return refused(error),
    };
    same(&decoded, decode(&encode(&decoded)))?;
    taken(if is_empty(&decoded) { none } else { some })
}

fn batch_bytes(input: &[u8], meter: &Meter) -> Outcome {
    // A change has some 250 bytes beside its key and its ETag, and its own copy of the job's id.
    let bound = piece_bound(input, 6, KEYS_BYTES_MAX) + (BATCH_CHANGES_MAX.min(input.len() / 6) + 1) * 640;
    let decode = |input: &[u8]| batch::decode(input, "sync_1");
    let changes = match meter.measured(bound, || decode(input))? {
        Ok(changes) => changes,
        Err(error) => return refused(error),
    };
    let Some(first) = changes.first() else { return taken("no changes") };
    let mut builder = batch::Builder::default();
    for (nth, change) in changes.iter().enumerate() {
        if change.position != first.position + nth as u64 || change.id != change_id("sync_1", change.position) {
            return Err(format!("the change numbered {nth} has another place: {change:?}"));
        }
        builder.push(&found_again(change));
    }
    same(&changes, decode(&builder.finish(first.position, first.found_at, &first.job_id)))?;
    taken("changes")
}

fn batches_bytes(input: &[u8], meter: &Meter) -> Outcome {
    let encode = |list: &Vec<BatchRef>| encode_list(list);
    let bound = BASE_BYTES + 4 * input.len();
    piece(meter, input, bound, decode_list, encode, ["no batches", "batches"], Vec::is_empty)
}

fn segment_bytes(input: &[u8], meter: &Meter) -> Outcome {
    let encode = |entries: &Vec<Known>| encode_known(entries);
    piece(meter, input, segment_bound(input), segment::decode, encode, ["no entries", "entries"], Vec::is_empty)
}

fn entries_bytes(input: &[u8], meter: &Meter) -> Outcome {
    let bound = piece_bound(input, 5, KEYS_BYTES_MAX);
    let encode = |entries: &Vec<Entry>| segment::encode_entries(entries);
    piece(meter, input, bound, segment::decode_entries, encode, ["no entries", "entries"], Vec::is_empty)
}

fn index_bytes(input: &[u8], meter: &Meter) -> Outcome {
    let top = input.get(4) == Some(&1);
    let keys_bytes_max = if top { LIST_KEYS_BYTES_MAX } else { LEAF_KEYS_BYTES_MAX };
    let bound = piece_bound(input, 36, keys_bytes_max);
    let encode = |(level, segments): &(Level, Vec<SegmentRef>)| index::encode(*level, segments);
    piece(meter, input, bound, index::decode, encode, ["no segments", "segments"], |(_, segments)| segments.is_empty())
}

fn packed_seeds() -> Vec<Vec<u8>> {
    let many: Vec<Entry> = (0..1_000)
        .map(|n| Entry {
            key: format!("videos/2024/clip {n:04} of a thousand.mp4"),
            etag: format!("{:032x}", n * 0x1234_5678_9abc_u128),
            size: n as u64,
            last_modified: Timestamp::from_millis(1_704_067_200_000),
        })
        .collect();
    let plain = entry_lists().into_iter().chain([many]).map(|entries| encode_known(&known(&entries)));
    plain.chain([bomb(b'S', 8, 100)]).map(packed::pack).collect()
}

/// What unpacks to too much; what unpacks and is no segment; and one with keys that are too long together.
fn packed_odd() -> Vec<Vec<u8>> {
    let zeros = |count: usize| packed::pack(vec![0; count]);
    vec![zeros(packed::PLAIN_BYTES_MAX + 1), zeros(packed::PLAIN_BYTES_MAX), packed::pack(bomb(b'S', 8, TOO_MANY))]
}

fn packed_bytes(input: &[u8], meter: &Meter) -> Outcome {
    // DEFLATE makes at most 1,032 bytes of one; twice, because what has grown too small is copied.
    let bound = 2 * BASE_BYTES + (2 * 1_032 * input.len()).min(2 * packed::PLAIN_BYTES_MAX);
    let unpacked = match meter.measured(bound, || packed::unpack(input))? {
        Ok(unpacked) => unpacked,
        Err(error) => return refused(format!("packed: {error}")),
    };
    let how = if unpacked.is_some() { "deflated" } else { "as it is" };
    let plain = unpacked.unwrap_or_else(|| input.to_vec());
    if plain.len() > packed::PLAIN_BYTES_MAX && how == "deflated" {
        return Err(format!("it unpacks to {} bytes", plain.len()));
    }
    let entries = match meter.measured(segment_bound(&plain), || segment::decode(&plain))? {
        Ok(entries) => entries,
        Err(error) => return refused(format!("{how}: {error}")),
    };
    let stored = packed::pack(encode_known(&entries));
    let again = packed::unpack(&stored).and_then(|plain| segment::decode(plain.as_deref().unwrap_or(&stored)));
    same(&entries, again)?;
    taken(how)
}

/// A document in the midst of a job, every field filled; those named hold a piece of another kind.
fn full_document(wrong: &[&str]) -> Vec<u8> {
    let entries = &entry_lists()[2];
    let piece = |name: &str, right: Option<String>| {
        if wrong.contains(&name) { Some(embedded::encode_bytes(b"b2X\x01\x00")) } else { right }
    };
    let counts = JobCounts { listed: 1, matched: 2, created: 3, delivered_bytes: u64::MAX, ..JobCounts::default() };
    let names = |folder: &str, count: u64| -> Vec<String> {
        (0..count).map(|n| format!("{folder}/{}", ContentHash::of(&n.to_le_bytes()))).collect()
    };
    let part = |name: &str| {
        let right = document::encode_known(&known(entries)).unwrap_or_default();
        KnownPart { tail: piece(name, right.tail.clone()), ..right }
    };
    let blob_part =
        || KnownPart { first_key: "a".into(), count: 4_096, skip: 3, blob: names("scratch", 1).pop(), tail: None };
    let name_list = || {
        let names = names("segment", 3);
        document::encode_names(9, &names.iter().filter_map(|name| BlobName::parse(name)).collect::<Vec<_>>())
    };
    let root = Root {
        generation: 7,
        index: names("index", 1).pop(),
        entries: 12,
        bytes: 99,
        entries_listed: Some(11),
        order: KeyOrder::Utf8,
        undeleted: vec![part("undeleted"), blob_part()],
        resync: Some(Resync { job_id: "job_0".into(), from: Some("b".into()) }),
        retired: NameList { blobs: names("scratch", 2), tail: piece("retired", name_list()) },
        garbage: NameList { blobs: names("scratch", 1), tail: piece("garbage", name_list()) },
        job: Some(RootJob {
            job_id: "job_1".into(),
            fingerprint: "f".into(),
            counts,
            objects_found: 3,
            known_before: 2,
            limited: true,
        }),
    };
    let checkpoint = Checkpoint {
        job_id: "job_2".into(),
        fingerprint: "f".into(),
        listed: true,
        limited: true,
        start_after: Some("a/b".into()),
        covered_to: Some("c".into()),
        pending_tail: piece("pending_tail", Some(embedded::encode_bytes(&segment::encode_entries(entries)))),
        pending: names("scratch", 1).pop(),
        pending_begins: Some(Begins::Segment),
        unfinished: true,
        leaves: names("scratch", 1),
        leaves_tail: piece("leaves_tail", document::encode_node(Level::Top, &segment_refs(3))),
        segments: piece("segments", document::encode_node(Level::Leaf, &segment_refs(2))),
        deletions: vec![blob_part(), part("deletions")],
        undeleted: vec![blob_part()],
        resync: Some(Resync { job_id: "job_2".into(), from: None }),
        looked_into: NameList { blobs: names("scratch", 1), tail: piece("looked_into", name_list()) },
        deletions_found: 8_212,
        deletions_done: 5,
        deletions_checked: 6,
        deletions_due: 7,
        deletions_appended: 1,
        objects_found: 8,
        counts,
        order: KeyOrder::Utf16,
        scratch: names("scratch", 3),
    };
    let document = SnapshotDocument {
        root,
        checkpoint: Some(checkpoint),
        feed: Feed {
            next: 12,
            lists: vec![ListRef { blob: "feed/x".into(), first: 1, next: 7, found_at: Timestamp::default() }],
            tail: piece("tail", Some(embedded::encode_bytes(&encode_list(&batch_refs(1))))),
        },
        ..SnapshotDocument::default()
    };
    document.encode().unwrap_or_default()
}

fn checkpoint_seeds() -> Vec<Vec<u8>> {
    let default = SnapshotDocument::default().encode().unwrap_or_default();
    vec![default, full_document(&[]), bytes(r#"{"v":4,"root":{}}"#), bytes(r#"{"v":4,"root":{},"checkpoint":{}}"#)]
}

/// A piece that a document holds: it decodes, within memory, and is the same when it is encoded again.
fn embedded<T: PartialEq + std::fmt::Debug>(
    meter: &Meter,
    text: &Option<String>,
    decode: impl Fn(Option<&str>) -> Result<T, DecodeError>,
    encode: impl Fn(&T) -> Option<String>,
) -> Result<Result<(), DecodeError>, String> {
    let length = text.as_ref().map_or(0, String::len);
    // The bytes themselves, and the longest of the pieces: an item of 5 bytes, seven characters.
    let bound = BASE_BYTES + length + (KEY_BYTES_MAX * (length / 6 + 1)).min(LIST_KEYS_BYTES_MAX) + 20 * length;
    match meter.measured(bound, || decode(text.as_deref()))? {
        Ok(decoded) => same(&decoded, decode(encode(&decoded).as_deref())).map(Ok),
        Err(error) => Ok(Err(error)),
    }
}

fn checkpoint(input: &[u8], meter: &Meter) -> Outcome {
    // An empty text of three bytes, `"",`, becomes one of 24, in a list that may have doubled.
    let document = match meter.measured(BASE_BYTES + 64 * input.len(), || SnapshotDocument::decode(input))? {
        Ok(document) => document,
        Err(error) => return refused(error.message()),
    };
    let encoded = document.encode().map_err(|error| error.to_string())?;
    same(&document, SnapshotDocument::decode(&encoded))?;
    let encode_part = |it: &Vec<Known>| document::encode_known(it).and_then(|part| part.tail);
    let encode_names = |it: &Vec<BlobName>| document::encode_names(0, it);
    let batches = |text: Option<&str>| match text {
        Some(text) => decode_list(&embedded::decode_bytes(text)?),
        None => Ok(Vec::new()),
    };
    let encode_batches = |it: &Vec<BatchRef>| (!it.is_empty()).then(|| embedded::encode_bytes(&encode_list(it)));
    let mut pieces = vec![("feed", embedded(meter, &document.feed.tail, batches, encode_batches)?)];
    if let Some(checkpoint) = &document.checkpoint {
        let entries = |text: Option<&str>| match text {
            Some(text) => segment::decode_entries(&embedded::decode_bytes(text)?),
            None => Ok(Vec::new()),
        };
        let encode_entries =
            |it: &Vec<Entry>| (!it.is_empty()).then(|| embedded::encode_bytes(&segment::encode_entries(it)));
        let top = |it: &Vec<SegmentRef>| document::encode_node(Level::Top, it);
        pieces.extend([
            ("pending_tail", embedded(meter, &checkpoint.pending_tail, entries, encode_entries)?),
            ("leaves_tail", embedded(meter, &checkpoint.leaves_tail, document::decode_node, top)?),
            ("segments", embedded(meter, &checkpoint.segments, document::decode_node, top)?),
            ("looked_into", embedded(meter, &checkpoint.looked_into.tail, document::decode_names, encode_names)?),
        ]);
        for part in checkpoint.deletions.iter().chain(&checkpoint.undeleted) {
            pieces.push(("deletions", embedded(meter, &part.tail, document::decode_known, encode_part)?));
        }
    }
    let root = &document.root;
    for part in &root.undeleted {
        pieces.push(("undeleted", embedded(meter, &part.tail, document::decode_known, encode_part)?));
    }
    for (name, list) in [("retired", &root.retired), ("garbage", &root.garbage)] {
        pieces.push((name, embedded(meter, &list.tail, document::decode_names, encode_names)?));
    }
    match pieces.into_iter().find_map(|(name, piece)| piece.err().map(|error| (name, error))) {
        Some((name, error)) => refused(format!("{name}: {error}")),
        None => taken(if document.checkpoint.is_some() { "a checkpoint" } else { "a root" }),
    }
}

fn job(job_id: &str, status: JobStatus) -> JobRecord {
    let at = Timestamp::from_millis(1_704_067_200_000);
    JobRecord {
        job_id: job_id.to_owned(),
        sync_id: "sync_1".to_owned(),
        trigger: Trigger::Manual,
        status,
        phase: Phase::Delivering,
        created_at: at,
        started_at: Some(at),
        updated_at: at,
        completed_at: Some(at),
        counts: JobCounts { listed: 5, created: 1, ..JobCounts::default() },
        cost: JobCost { class_c: 2, steps: 1, ..JobCost::default() },
        known_before: 4,
        error: Some(ErrorRecord { kind: "sink".into(), message: "No. \"x\"".into(), transient: true }),
        warning: Some("Nothing matched: …".into()),
        limited: true,
    }
}

fn coordinator_seeds() -> Vec<Vec<u8>> {
    let at = Timestamp::from_millis(1_704_067_200_000);
    let ended = job("job_1", JobStatus::Failed);
    let status = SyncStatus {
        current_job: Some(job("job_2", JobStatus::Running)),
        last_job: Some(ended.clone()),
        runs: 2,
        last_sync_at: Some(at),
        next_sync_at: Some(at),
        last_error: ended.error.clone(),
        completed_cost: Some(ended.cost),
        ..SyncStatus::default()
    };
    let full = serde_json::json!({
        "v": coordinator::VERSION, "sync_id": "sync_1", "status": status, "jobs": [ended], "unpublished": [ended],
        "lease": {"holder": "i_1", "until": at, "step": u64::MAX}, "step_failures": 1, "step_not_before": at,
        "confirm_deletes": true, "resync": true, "forgotten": true,
        "pumps": {"up_to": 3, "due_at": at, "sink_ids": ["catalogue"]},
    });
    let bookmark = serde_json::json!({
        "v": coordinator::VERSION, "sync_id": "sync_1",
        "bookmark": {"job_id": "job_2", "generation": 3, "leaves": 9, "covered_to": "k", "start_after": "j"},
    });
    vec![bytes(&full.to_string()), bytes(&bookmark.to_string()), bytes(r#"{"v":1,"sync_id":"sync_1"}"#)]
}

fn coordinator_document(input: &[u8], meter: &Meter) -> Outcome {
    // A job takes some 500 bytes, in a list that may have doubled, and at least half as many to be written.
    let written = match meter.measured(BASE_BYTES + 64 * input.len(), || document_read_and_written(input))? {
        Ok(written) => written,
        Err(error) => return refused(error.message()),
    };
    same(&written, document_read_and_written(&written))?;
    taken("a document")
}

fn sink_seeds() -> Vec<Vec<u8>> {
    let mut full = SinkRecord { cursor: 9, taken: 8, ..SinkRecord::default() };
    let now = Timestamp::from_millis(1_704_067_200_000);
    let entries: Vec<Entry> = entry_lists().into_iter().flatten().collect();
    for (position, found) in (1..).zip(found(&entries)) {
        let change = found.at(position, change_id("sync_1", position), now, "job_1");
        let _ = full.dead_letters.refuse(&change, "no \"room\"", 3, now);
    }
    full.dead_letters.requeue(&[], now);
    [full, SinkRecord::default()].iter().filter_map(|it| Some(it.encode().ok()?.to_vec())).collect()
}

fn sink_document(input: &[u8], meter: &Meter) -> Outcome {
    // A letter has some 350 bytes beside its texts, whose names alone take half as many when it is stored.
    let record = match meter.measured(BASE_BYTES + 48 * input.len(), || SinkRecord::decode(input))? {
        Ok(record) => record,
        Err(error) => return refused(error.message()),
    };
    let encoded = record.encode().map_err(|error| error.to_string())?;
    same(&record, SinkRecord::decode(&encoded))?;
    taken(match record.dead_letters.len() {
        0 => "no letters",
        1..=DEAD_LETTERS_MAX => "letters",
        _ => "too many letters",
    })
}
