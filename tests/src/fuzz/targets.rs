//! The decoders, and what must hold for each on any bytes.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use b2sync_core::b2::account::{Account, parse_authorize};
use b2sync_core::b2::list::{ListPage, parse_list_page, parse_list_page_by_events, scan_list_page};
use b2sync_core::entry::Entry;
use b2sync_core::filter::{Filter, FilterSpec, ITEM_BYTES_MAX, LIST_ITEMS_MAX, Verdict};
use b2sync_core::sink::ChangeKind;
use b2sync_core::snapshot::changes::{self, Noted};
use b2sync_core::snapshot::codec::KEY_BYTES_MAX;
use b2sync_core::snapshot::index::SegmentRef;
use b2sync_core::snapshot::root::SnapshotDocument;
use b2sync_core::snapshot::{ContentHash, Known, index, segment};
use b2sync_core::source_path::{PREFIX_BYTES_MAX, SourcePath};
use b2sync_core::time::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Meter, Outcome, Target};

/// What any decoder may take besides: error messages and the like.
const BASE_BYTES: usize = 64 << 10;

/// All of them.
pub static TARGETS: [Target; 9] = [
    Target {
        name: "list-xml",
        about: "a page of a listing, as B2 sends it",
        seeds: list_seeds,
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
        seeds: || entry_lists().iter().map(|entries| encode_known(&known(entries))).chain([bomb(b'S', 8)]).collect(),
        words: &[b"b2S\x01", b"b2S\x02", b"b2I\x01"],
        input_bytes_max: 8 << 10,
        check: segment_bytes,
    },
    Target {
        name: "entries",
        about: "the entries of a checkpoint's open segment",
        seeds: || entry_lists().iter().map(|entries| segment::encode_entries(entries)).chain([bomb(b'E', 1)]).collect(),
        words: &[b"b2E\x01", b"b2E\x02", b"b2S\x01"],
        input_bytes_max: 8 << 10,
        check: entries_bytes,
    },
    Target {
        name: "index",
        about: "a stored index",
        seeds: || {
            (0..4)
                .map(|count| index::encode(index::Level::Leaf, &segment_refs(count)))
                .chain([bomb(b'I', 32)])
                .collect()
        },
        words: &[b"b2I\x01", b"b2I\x02", b"b2S\x01", b"b2I\x01\x00\x00"],
        input_bytes_max: 8 << 10,
        check: index_bytes,
    },
    Target {
        name: "changes",
        about: "the changes that a snapshot's document notes",
        seeds: || {
            entry_lists().iter().map(|entries| changes::encode(&noted(entries))).chain([bomb_of_changes()]).collect()
        },
        words: &[b"b2C\x01", b"b2C\x02", b"b2S\x01", b"\x01", b"\x02", b"\x03"],
        input_bytes_max: 8 << 10,
        check: changes_bytes,
    },
    Target {
        name: "checkpoint",
        about: "the stored document of root and checkpoint",
        seeds: checkpoint_seeds,
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
            b"\"\",\"\",",
            b"18446744073709551615",
            b"\\u0000",
            b"\\ud800",
            b"[[",
        ],
        input_bytes_max: 8 << 10,
        check: checkpoint,
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

fn list_seeds() -> Vec<Vec<u8>> {
    let page = |inside: &str| {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult \
             xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><Prefix/><MaxKeys>1000</MaxKeys>\
             <IsTruncated>false</IsTruncated>{inside}</ListBucketResult>"
        )
        .into_bytes()
    };
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
        page(&"<Contents/>".repeat(1_000)),
        b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>no</Message></Error>".to_vec(),
        b"<!DOCTYPE html><html><body>Bad gateway</body></html>".to_vec(),
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
        Err(error) => return Ok(error.message().to_owned()),
    };
    if page.entries.iter().any(|entry| entry.key.is_empty()) {
        return Err("a key is empty".to_owned());
    }
    // A time near the year 10,000 or 0 can move out of what RFC 3339 writes with its offset.
    let times_of_four_digits = |page: &ListPage| {
        page.entries.iter().all(|entry| Timestamp::parse_rfc3339(&entry.last_modified.to_string()).is_ok())
    };
    if !times_of_four_digits(&page) {
        return Ok(format!("a page with a time that RFC 3339 does not write{plain}"));
    }
    same(&page, parse_list_page(page_xml(&page).as_bytes()))?;
    Ok(format!(
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
        Err(error) => return Ok(error.message().to_owned()),
    };
    // A scheme is the same in any case.
    let is_http = account.s3_endpoint.to_ascii_lowercase().starts_with("http");
    if account.s3_endpoint.ends_with('/') || !is_http || account.region.is_empty() {
        return Err(format!("no endpoint or region: {account:?}"));
    }
    same(&account, parse_authorize(&account_json(&account)))?;
    // Whatever the restrictions are, they are compared and not stumbled over.
    let source = SourcePath::parse("b2://my-videos/2024/").map_err(|error| error.to_string())?;
    Ok(match account.check(&source, Timestamp::from_millis(1_600_000_000_000)) {
        Ok(()) => "may list".to_owned(),
        Err(error) => error.kind().as_str().to_owned(),
    })
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
        Err(error) => return Ok(error.message().to_owned()),
    };
    same(&path, SourcePath::parse(&path.to_string()))?;
    if path.prefix().len() > PREFIX_BYTES_MAX || !path.prefix().starts_with(path.root()) {
        return Err(format!("its root or its length is wrong: {path:?}"));
    }
    let key = format!("{}a/b", path.prefix());
    if format!("{}{}", path.root(), path.relative(&key)) != key {
        return Err(format!("root and relative path do not make the key: {path:?}"));
    }
    Ok(if path.prefix().is_empty() { "a bucket" } else { "a prefix" }.to_owned())
}

/// The most memory that filters of [`Target::input_bytes_max`] may take, in bytes, whatever was written. Not yet what
/// the limits of a whole specification keep to: a hundred includes of `**/a/**/a/…` and a hundred excludes of `*a*a…`,
/// each of a thousand bytes, take 78 MB.
const FILTER_BYTES_MAX: usize = 64 << 20;

fn filter_seeds() -> Vec<Vec<u8>> {
    let many = (0..LIST_ITEMS_MAX).map(|index| format!("+*{index}*\n")).collect::<String>();
    let nested = |depth: usize| format!("+{}a{}\nkaaa", "{b,".repeat(depth), "}".repeat(depth));
    let alternatives = format!("+{}\nkabababab", "{a,b}".repeat(ITEM_BYTES_MAX / 5));
    let stars = format!("-{}b\nk{}", "*a".repeat(200), "a".repeat(1_000));
    let folders = format!("-{}b\nk{}", "**/a/".repeat(100), "a/".repeat(500));
    [
        "+*.mp4\n+raw/**\n-*_thumbnail.*\n.MP4\nmvideo/*\nk2024/raw/a.mp4\nk2024/b_thumbnail.mp4",
        "+[!a-c]?/\\*{x,y,}.jpg\n-./a/**/b\nka/b/c/b\nkx",
        "+{é,è}*\n-[a-z]*\nké.mp4",
        &many,
        &nested(10),
        &nested(400),
        &alternatives,
        &stars,
        &folders,
    ]
    .map(bytes)
    .to_vec()
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
        Err(error) => return Ok(format!("{} {}", error.field().unwrap_or_default(), error.message())),
    };
    let mut verdicts = BTreeSet::new();
    for key in keys.iter().take(20) {
        let entry = Entry { key: key.clone(), etag: "e".into(), size: 1, last_modified: Timestamp::from_millis(0) };
        let verdict = meter.measured(FILTER_BYTES_MAX, || filter.explain(&entry))?;
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
    Ok(format!("{verdicts:?}").replace('"', ""))
}

// --- what is stored ---

/// A key of an item is at least two bytes, and may repeat up to [`KEY_BYTES_MAX`] of the key before it: that is what an
/// item can cost, beyond a multiple of its own bytes.
fn items_bound(input: &[u8], item_bytes_min: usize) -> usize {
    BASE_BYTES + (KEY_BYTES_MAX + 512) * (input.len() / item_bytes_min + 1) + 16 * input.len()
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

/// A long key, and many items that repeat it whole: the most memory that few bytes can ask for. `fixed` is how many
/// bytes of an item follow its key before two numbers.
fn bomb(kind: u8, fixed: usize) -> Vec<u8> {
    const ITEMS: u8 = 100;
    let key_length = [(KEY_BYTES_MAX & 0x7f) as u8 | 0x80, (KEY_BYTES_MAX >> 7) as u8];
    let mut bytes = vec![b'b', b'2', kind, 1];
    if kind == b'I' {
        bytes.push(0);
    }
    bytes.push(ITEMS);
    let tail = vec![0; fixed + 2];
    bytes.extend([[0].as_slice(), &key_length, &vec![b'k'; KEY_BYTES_MAX], &tail].concat());
    for _ in 1..ITEMS {
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
    changes::encode(&vec![Noted::Vanished(known); 100])
}

fn noted(entries: &[Entry]) -> Vec<Noted> {
    let change = |(n, entry): (usize, &Entry)| match n % 3 {
        0 => Noted::Appeared(ChangeKind::Created, entry.clone()),
        1 => Noted::Vanished(Known::from(entry)),
        _ => Noted::Appeared(ChangeKind::Updated, entry.clone()),
    };
    entries.iter().enumerate().map(change).collect()
}

fn changes_bytes(input: &[u8], meter: &Meter) -> Outcome {
    let list = match meter.measured(items_bound(input, 6), || changes::decode(input))? {
        Ok(list) => list,
        Err(error) => return Ok(error.to_string()),
    };
    same(&list, changes::decode(&changes::encode(&list)))?;
    Ok(if list.is_empty() { "no changes" } else { "changes" }.to_owned())
}

fn segment_bytes(input: &[u8], meter: &Meter) -> Outcome {
    let entries = match meter.measured(items_bound(input, 12), || segment::decode(input))? {
        Ok(entries) => entries,
        Err(error) => return Ok(error.to_string()),
    };
    same(&entries, segment::decode(&encode_known(&entries)))?;
    Ok(if entries.is_empty() { "no entries" } else { "entries" }.to_owned())
}

fn entries_bytes(input: &[u8], meter: &Meter) -> Outcome {
    let entries = match meter.measured(items_bound(input, 5), || segment::decode_entries(input))? {
        Ok(entries) => entries,
        Err(error) => return Ok(error.to_string()),
    };
    same(&entries, segment::decode_entries(&segment::encode_entries(&entries)))?;
    Ok(if entries.is_empty() { "no entries" } else { "entries" }.to_owned())
}

fn index_bytes(input: &[u8], meter: &Meter) -> Outcome {
    let (level, segments) = match meter.measured(items_bound(input, 36), || index::decode(input))? {
        Ok(segments) => segments,
        Err(error) => return Ok(error.to_string()),
    };
    same(&(level, segments.clone()), index::decode(&index::encode(level, &segments)))?;
    Ok(if segments.is_empty() { "no segments" } else { "segments" }.to_owned())
}

fn checkpoint_seeds() -> Vec<Vec<u8>> {
    let running = r#"{"v":1,"root":{"generation":7,"index":"index/00ff","entries":12,"bytes":99,"entries_listed":11,
        "order":"utf8","retired":["segment/01","segment/02"],"job":{"job_id":"job_1","fingerprint":"f","counts":
        {"scanned":3},"known_before":2}},"checkpoint":{"job_id":"job_2","fingerprint":"f","listed":false,
        "start_after":"a/b","covered_to":"c","pending_tail":"YjJFAQA=","closed":["scratch/03"],"closed_tail":"YjJJAQAA",
        "deletions":[],"deletions_tail":"YjJTAQA=","counts":{},"order":"unknown","scratch":["scratch/03"]}}"#;
    let default = SnapshotDocument::default().encode().unwrap_or_default();
    vec![default, bytes(running), bytes(r#"{"v":1,"root":{}}"#)]
}

fn checkpoint(input: &[u8], meter: &Meter) -> Outcome {
    // An empty text of three bytes, `"",`, becomes one of 24, in a list that may have doubled.
    let document = match meter.measured(BASE_BYTES + 64 * input.len(), || SnapshotDocument::decode(input))? {
        Ok(document) => document,
        Err(error) => return Ok(error.message().to_owned()),
    };
    let encoded = document.encode().map_err(|error| error.to_string())?;
    same(&document, SnapshotDocument::decode(&encoded))?;
    Ok(if document.checkpoint.is_some() { "a checkpoint" } else { "a root" }.to_owned())
}
