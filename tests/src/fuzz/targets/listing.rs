//! What B2 answers, and paths into it.

use b2sync_core::entry::EntryRef;

use super::*;

pub(super) const CONTENTS: &str = "<Contents><Key>a/1%2B.mp4</Key><LastModified>2024-01-01T00:00:00.250Z</LastModified>\
     <ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>7</Size><StorageClass>STANDARD</StorageClass>\
     <Owner><ID>1</ID><DisplayName/></Owner></Contents>";

pub(super) fn page(inside: &str) -> Vec<u8> {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult \
         xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><Prefix/><MaxKeys>1000</MaxKeys>\
         <IsTruncated>false</IsTruncated>{inside}</ListBucketResult>"
    )
    .into_bytes()
}

pub(super) fn list_seeds() -> Vec<Vec<u8>> {
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
        plain(&CONTENTS.replace("<Size>7", "<Size>9223372036854775808")),
        plain(&CONTENTS.replace("LastModified>", "Modified>")),
        page(&CONTENTS.replace("a/1%2B.mp4", "日本/<![CDATA[<🎬>]]>&#x1F3AC;&apos;")),
    ]
}

pub(super) fn list_odd() -> Vec<Vec<u8>> {
    vec![
        page(&"<Contents/>".repeat(1_000)),
        bytes("<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>no</Message></Error>"),
        bytes("<!DOCTYPE html><html><body>Bad gateway</body></html>"),
    ]
}

pub(super) fn list_xml(input: &[u8], meter: &Meter) -> Outcome {
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
        let is_written = |time: Timestamp| Timestamp::parse_rfc3339(&time.to_string()).is_ok();
        page.entries.iter().all(|entry| entry.is_unreadable() || is_written(entry.last_modified))
    };
    if !times_of_four_digits(&page) {
        return taken(&format!("a page with a time that RFC 3339 does not write{plain}"));
    }
    // Why an entry cannot be read is told in words, and not written again.
    let unreadable = |page: &ListPage| {
        page.entries.iter().filter(EntryRef::is_unreadable).map(|entry| entry.key.to_owned()).collect::<Vec<_>>()
    };
    let again = parse_list_page(page_xml(&page).as_bytes());
    if let Ok(again) = &again
        && unreadable(again) != unreadable(&page)
    {
        return Err(format!("{:?} cannot be read, and then {:?}", unreadable(&page), unreadable(again)));
    }
    same(&readable(page.clone()), again.map(readable))?;
    taken(&format!(
        "a page: {} {} {}{plain}",
        if page.truncated { "truncated" } else { "whole" },
        if page.entries.is_empty() { "empty" } else { "entries" },
        if page.common_prefixes.is_empty() { "" } else { "prefixes" },
    ))
}

/// The page without the entries that cannot be read.
fn readable(page: ListPage) -> ListPage {
    let entries = page.entries.iter().filter(|entry| !entry.is_unreadable()).collect();
    ListPage { entries, ..page }
}

/// The page as an S3 server might have sent it.
pub(super) fn page_xml(page: &ListPage) -> String {
    let name = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut xml = "<ListBucketResult><EncodingType>url</EncodingType>".to_owned();
    let _ = write!(xml, "<IsTruncated>{}</IsTruncated>", page.truncated);
    if let Some(token) = &page.next_token {
        let _ = write!(xml, "<NextContinuationToken>{}</NextContinuationToken>", escaped(token));
    }
    for entry in page.entries.iter() {
        if entry.is_unreadable() {
            let _ = write!(xml, "<Contents><Key>{}</Key><Size>-1</Size></Contents>", name(entry.key));
            continue;
        }
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

pub(super) fn escaped(text: &str) -> String {
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

pub(super) fn authorize_seeds() -> Vec<Vec<u8>> {
    let v4 = r#"{"accountId":"870eff85b6c6","apiInfo":{"storageApi":{"absoluteMinimumPartSize":5000000,
        "apiUrl":"https://api004.backblazeb2.com","s3ApiUrl":"https://s3.us-west-004.backblazeb2.com","allowed":{
        "buckets":[{"id":"b1","name":"my-videos"},{"id":"b2","name":null}],"capabilities":["listFiles","readFiles"],
        "namePrefix":"2024/"}}},"applicationKeyExpirationTimestamp":1700000000000,"authorizationToken":"4_x"}"#;
    let v3 = r#"{"accountId":"870eff85b6c6","apiInfo":{"storageApi":{"bucketId":"b1","bucketName":"my-videos",
        "capabilities":["listFiles"],"namePrefix":null,"s3ApiUrl":"https://s3.eu-central-003.backblazeb2.com/"}},
        "applicationKeyExpirationTimestamp":null}"#;
    vec![bytes(v4), bytes(v3), bytes(&v4.replace("s3.us-west-004.backblazeb2.com", "minio.example:9000"))]
}

pub(super) fn authorize(input: &[u8], meter: &Meter) -> Outcome {
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
pub(super) fn account_json(account: &Account) -> Vec<u8> {
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

pub(super) fn source_path(input: &[u8], meter: &Meter) -> Outcome {
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
