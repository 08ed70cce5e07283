//! One local endpoint that every client lists: `b2_authorize_account` and `ListObjectsV2`, over generated listings.
//!
//! It must not be the bottleneck: each page is rendered once, and answering it again is a copy into a socket. A bucket
//! is called `keys-<number>` and has that many keys. A thread serves each connection, so that the latency it may be
//! told to add is that of each stream by itself.
//!
//! It deliberately checks no signature: the embedded B2 of the tests does, and here that would only be load.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use b2sync_poll_path::listing::{Encoding, Listing, PAGE_KEYS, parse_token, push_head, push_name};
use bytes::Bytes;
use percent_encoding::percent_decode;
use serde_json::json;

/// Rendered pages are kept for listings up to this many keys: two gigabytes. Longer ones are rendered again.
const KEPT_KEYS_MAX: u64 = 8_000_000;
/// The longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Which page: keys of the listing, how names are written, the first number.
type PageName = (u64, Encoding, u64);

#[derive(Default)]
struct Shared {
    base_url: String,
    latency_ms: AtomicU64,
    pages: Mutex<HashMap<PageName, Bytes>>,
}

/// The running server. It ends with the process.
pub(crate) struct ListingServer {
    shared: Arc<Shared>,
}

/// The bucket of this many keys.
pub(crate) fn bucket(keys: u64) -> String {
    format!("keys-{keys}")
}

impl ListingServer {
    /// Starts on a free port of the loopback interface.
    pub(crate) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address: SocketAddr = listener.local_addr()?;
        let shared = Arc::new(Shared { base_url: format!("http://{address}"), ..Shared::default() });
        let for_connections = Arc::clone(&shared);
        thread::Builder::new().name("listing".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&for_connections);
                // Without a thread the connection is dropped, and its client says so.
                let _ = thread::Builder::new().stack_size(256 << 10).spawn(move || serve(stream, &shared));
            }
        })?;
        Ok(Self { shared })
    }

    /// `http://127.0.0.1:port`
    pub(crate) fn url(&self) -> &str {
        &self.shared.base_url
    }

    /// Lets each answer wait this long, from here on.
    pub(crate) fn set_latency_ms(&self, millis: u64) {
        self.shared.latency_ms.store(millis, Ordering::SeqCst);
    }

    /// Renders all pages of a bucket in these encodings, so that no client waits for that.
    pub(crate) fn warm(&self, keys: u64, encodings: &[Encoding]) {
        for &encoding in encodings {
            let listing = Listing::new(keys);
            for first in (0..keys.min(KEPT_KEYS_MAX)).step_by(usize::try_from(PAGE_KEYS).unwrap_or(1)) {
                self.shared.contents(listing, encoding, first);
            }
        }
    }

    /// Forgets all pages.
    pub(crate) fn forget(&self) {
        self.shared.pages.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Shared {
    /// The entries of the page that begins with that number.
    fn contents(&self, listing: Listing, encoding: Encoding, first: u64) -> Bytes {
        let name = (listing.keys(), encoding, first);
        let kept = || self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = kept().get(&name) {
            return page.clone();
        }
        let mut text = String::with_capacity(256_000);
        listing.push_contents(first..first + PAGE_KEYS, encoding, &mut text);
        let page = Bytes::from(text);
        if listing.keys() <= KEPT_KEYS_MAX {
            kept().insert(name, page.clone());
        }
        page
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut received = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    let mut answer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            let count = stream.read(&mut buffer).ok().filter(|&count| count > 0)?;
            received.extend_from_slice(&buffer[..count]);
            if received.len() > HEAD_BYTES_MAX {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&received[..end]).into_owned();
        received.drain(..end);
        let mut words = head.split([' ', '\r']);
        let (method, target) = (words.next()?, words.next()?);
        answer.clear();
        let latency_ms = shared.latency_ms.load(Ordering::SeqCst);
        if latency_ms > 0 {
            thread::sleep(Duration::from_millis(latency_ms));
        }
        respond(shared, method, target, &mut answer);
        stream.write_all(&answer).ok()?;
    }
}

fn respond(shared: &Shared, method: &str, target: &str, out: &mut Vec<u8>) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path == "/b2api/v4/b2_authorize_account" {
        let body = json!({
            "accountId": "bench",
            "apiInfo": { "storageApi": {
                "absoluteMinimumPartSize": 5_000_000,
                "allowed": { "buckets": null, "capabilities": ["listFiles", "readFiles"], "namePrefix": null },
                "apiUrl": shared.base_url,
                "downloadUrl": shared.base_url,
                "recommendedPartSize": 100_000_000,
                "s3ApiUrl": shared.base_url,
            } },
            "applicationKeyExpirationTimestamp": null,
            "authorizationToken": "bench",
        });
        return push_answer(out, "200 OK", "application/json", &[body.to_string().as_bytes()], method);
    }
    let keys = path.trim_matches('/').strip_prefix("keys-").and_then(|keys| keys.parse().ok());
    let Some(listing) = keys.map(Listing::new) else {
        let body = b"<Error><Code>NoSuchKey</Code><Message>There are only listings here.</Message></Error>";
        return push_answer(out, "404 Not Found", "application/xml", &[body], method);
    };
    list(shared, listing, query, method, out);
}

fn list(shared: &Shared, listing: Listing, query: &str, method: &str, out: &mut Vec<u8>) {
    let value = |name: &str| {
        let found = query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name));
        let text = found.map_or("", |(_, value)| value).replace('+', " ");
        percent_decode(text.as_bytes()).decode_utf8_lossy().into_owned()
    };
    let (prefix, delimiter) = (value("prefix"), value("delimiter"));
    let encoding = if value("encoding-type") == "url" { Encoding::Url } else { Encoding::Xml };
    let keys_max = value("max-keys").parse().unwrap_or(PAGE_KEYS).min(PAGE_KEYS);
    let start = match (parse_token(&value("continuation-token")), value("start-after")) {
        (Some(number), _) => number,
        (None, after) if after.is_empty() => 0,
        (None, after) => listing.after(&after),
    };
    let mut first = start.max(listing.from(&prefix));
    let end = listing.first(|key| key > prefix.as_str() && !key.starts_with(&prefix));
    let mut prefixes = Vec::new();
    let mut contents = Vec::new();
    let count;
    if delimiter.is_empty() {
        let last = end.min(first.saturating_add(keys_max)).max(first);
        count = last - first;
        if count > 0 {
            let whole = count == PAGE_KEYS.min(listing.keys() - first);
            contents.push(if whole {
                shared.contents(listing, encoding, first)
            } else {
                let mut text = String::new();
                listing.push_contents(first..last, encoding, &mut text);
                Bytes::from(text)
            });
        }
        first = last;
    } else {
        let rolled = RolledUp::of(listing, (first, end, keys_max), (&prefix, &delimiter), encoding);
        (first, count, prefixes, contents) = (rolled.next, rolled.count, rolled.prefixes, rolled.contents);
    }
    let mut shown = String::new();
    push_name(&prefix, encoding, &mut shown);
    let mut head = String::with_capacity(512);
    push_head(&mut head, &bucket(listing.keys()), &shown, keys_max, count, (first < end).then_some(first));
    if encoding == Encoding::Url {
        head.push_str("<EncodingType>url</EncodingType>");
    }
    let mut tail = String::new();
    for prefix in prefixes {
        tail.push_str("<CommonPrefixes><Prefix>");
        push_name(&prefix, encoding, &mut tail);
        tail.push_str("</Prefix></CommonPrefixes>");
    }
    tail.push_str("</ListBucketResult>");
    let mut parts = vec![head.as_bytes()];
    parts.extend(contents.iter().map(|part| &part[..]));
    parts.push(tail.as_bytes());
    push_answer(out, "200 OK", "application/xml", &parts, method);
}

/// A page with a delimiter.
struct RolledUp {
    /// The number of the key behind it.
    next: u64,
    count: u64,
    prefixes: Vec<String>,
    contents: Vec<Bytes>,
}

impl RolledUp {
    fn of(
        listing: Listing,
        (first, end, keys_max): (u64, u64, u64),
        (prefix, delimiter): (&str, &str),
        encoding: Encoding,
    ) -> Self {
        let mut page = Self { next: first, count: 0, prefixes: Vec::new(), contents: Vec::new() };
        let mut key = String::new();
        while page.next < end && page.count < keys_max {
            key.clear();
            listing.push_key(page.next, &mut key);
            page.count += 1;
            match key[prefix.len()..].find(delimiter) {
                Some(at) => {
                    let rolled = key[..prefix.len() + at + delimiter.len()].to_owned();
                    page.next = listing.first(|key| key > rolled.as_str() && !key.starts_with(&rolled));
                    page.prefixes.push(rolled);
                }
                None => {
                    let mut text = String::new();
                    listing.push_contents(page.next..page.next + 1, encoding, &mut text);
                    page.contents.push(Bytes::from(text));
                    page.next += 1;
                }
            }
        }
        page
    }
}

fn push_answer(out: &mut Vec<u8>, status: &str, kind: &str, parts: &[&[u8]], method: &str) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
    out.extend_from_slice(head.as_bytes());
    if method != "HEAD" {
        parts.iter().for_each(|part| out.extend_from_slice(part));
    }
}

#[cfg(test)]
mod tests {
    use b2sync_core::b2::list::{ListPage, parse_list_page};

    use super::*;

    fn ask(query: &str) -> ListPage {
        let mut answer = Vec::new();
        respond(&Shared::default(), "GET", &format!("/keys-2500?list-type=2&{query}"), &mut answer);
        let body = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        parse_list_page(&answer[body..]).unwrap()
    }

    fn keys(page: &ListPage) -> Vec<String> {
        page.entries.iter().map(|entry| entry.key.to_owned()).collect()
    }

    #[test]
    fn the_pages_of_a_listing_follow_each_other() {
        let mut token = String::new();
        let mut all = Vec::new();
        loop {
            let page = ask(&format!("encoding-type=url&continuation-token={token}"));
            all.extend(keys(&page));
            match page.next_token {
                Some(next) => token = next,
                None => break,
            }
        }
        assert_eq!(all.len(), 2_500);
        assert!(all.is_sorted());
        let after = all[1_700].replace(' ', "%20");
        assert_eq!(keys(&ask(&format!("start-after={after}"))), all[1_701..]);
        assert_eq!(keys(&ask("max-keys=2")), all[..2]);
        let raw: Vec<String> = all.iter().filter(|key| key.starts_with("raw/2025/")).cloned().collect();
        assert_eq!(keys(&ask("prefix=raw%2F2025%2F")), raw);
    }

    #[test]
    fn a_delimiter_rolls_up() {
        let page = ask("delimiter=/&encoding-type=url");
        assert_eq!(page.common_prefixes, ["exports/", "photos/", "podcast/", "raw/", "uploads/", "videos/"]);
        assert!(page.entries.is_empty() && !page.truncated);
        let page = ask("delimiter=/&prefix=raw/&max-keys=2");
        assert_eq!(page.common_prefixes, ["raw/2024/", "raw/2025/"]);
        assert!(page.truncated);
    }
}
