//! Listings of any length that are not stored: each entry is computed from its number.
//!
//! The keys are of the kind that a media company has (folders with spaces and umlauts, camera names, six endings); the
//! document has the shape of B2's, about 240 bytes a key. The same number gives the same entry in every run.

use std::fmt::Write as _;
use std::ops::Range;

/// Keys a page.
pub const PAGE_KEYS: u64 = 1_000;

/// In byte order, and none of them begins another.
const FOLDERS: [&str; 11] = [
    "exports/social/1x1",
    "exports/social/9x16",
    "photos/Spring Launch",
    "photos/events/Köln",
    "podcast/season 3",
    "raw/2024",
    "raw/2025",
    "raw/2026",
    "uploads/incoming",
    "videos/b-roll",
    "videos/interviews",
];
/// How the names in a folder begin.
const STEMS: [&str; 6] = ["DSC", "IMG_", "beach ", "drone_", "interview ", "teaser_"];
/// Ending, the largest size in bytes, and how many of a hundred files have it.
const KINDS: [(&str, u64, u64); 6] = [
    (".mp4", 160_000_000, 30),
    (".mov", 400_000_000, 8),
    (".jpg", 8_000_000, 30),
    ("_thumbnail.jpg", 80_000, 22),
    (".txt", 6_000, 6),
    (".tmp", 1_000_000, 4),
];
/// 2024-01-01, in days since 1970.
const FIRST_DAY: u64 = 19_723;
/// Uploads are spread over this many days.
const DAYS: u64 = 900;

/// How names are written into a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `encoding-type=url`: percent-encoded, a space as `+`.
    Url,
    /// As they are, with entities where XML needs them.
    Xml,
}

/// A listing of this many keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    keys: u64,
}

impl Listing {
    /// With `keys` keys.
    pub const fn new(keys: u64) -> Self {
        Self { keys }
    }

    /// How many keys it has.
    pub const fn keys(self) -> u64 {
        self.keys
    }

    /// Writes the key of that number. Ascending numbers give ascending keys, in bytes.
    pub fn push_key(self, number: u64, out: &mut String) {
        let folder_keys = self.keys.div_ceil(FOLDERS.len() as u64).max(1);
        let folder = pick(&FOLDERS, number / folder_keys);
        let block = number / PAGE_KEYS;
        let stem = pick(&STEMS, mix(block));
        let (ending, _) = kind(number);
        out.push_str(folder);
        out.push('/');
        push_digits(out, block, 6);
        out.push('/');
        out.push_str(stem);
        push_digits(out, number, 8);
        out.push_str(ending);
    }

    /// The number of the first key that comes after `key`, which need not exist.
    pub fn after(self, key: &str) -> u64 {
        self.first(|candidate| candidate > key)
    }

    /// The number of the first key that is not before `key`.
    pub fn from(self, key: &str) -> u64 {
        self.first(|candidate| candidate >= key)
    }

    /// The number of the first key for which `is` holds; it holds for all that follow.
    pub fn first(self, is: impl Fn(&str) -> bool) -> u64 {
        let (mut low, mut high) = (0, self.keys);
        let mut key = String::new();
        while low < high {
            let middle = low + (high - low) / 2;
            key.clear();
            self.push_key(middle, &mut key);
            if is(&key) { high = middle } else { low = middle + 1 }
        }
        low
    }

    /// Appends the `<Contents>` of those numbers.
    pub fn push_contents(self, numbers: Range<u64>, encoding: Encoding, out: &mut String) {
        let mut key = String::new();
        for number in numbers.start..numbers.end.min(self.keys) {
            key.clear();
            self.push_key(number, &mut key);
            out.push_str("<Contents><Key>");
            push_name(&key, encoding, out);
            out.push_str("</Key><LastModified>");
            push_time(out, mix(number ^ 0x51ed));
            out.push_str("</LastModified><ETag>&quot;");
            push_hex(out, mix(number ^ 0xe7a9));
            push_hex(out, mix(number ^ 0x7a9e));
            out.push_str("&quot;</ETag><Size>");
            let (_, size_max) = kind(number);
            let _ = write!(out, "{}", mix(number ^ 0x512e) % size_max);
            out.push_str("</Size><StorageClass>STANDARD</StorageClass></Contents>");
        }
    }

    /// A whole page as it is answered to `encoding-type=url`, without a start of its own; it begins with that number.
    pub fn page(self, first: u64) -> String {
        let end = (first + PAGE_KEYS).min(self.keys);
        let mut out = String::with_capacity(260_000);
        push_head(&mut out, "bench", "", PAGE_KEYS, end.saturating_sub(first), (end < self.keys).then_some(end));
        out.push_str("<EncodingType>url</EncodingType>");
        self.push_contents(first..end, Encoding::Url, &mut out);
        out.push_str("</ListBucketResult>");
        out
    }
}

/// Appends all that stands before the entries of a page, but the echo of optional parameters. `next` is the number that
/// the next page begins with.
pub fn push_head(out: &mut String, bucket: &str, prefix: &str, keys_max: u64, count: u64, next: Option<u64>) {
    let _ = write!(
        out,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <Name>{bucket}</Name><Prefix>{prefix}</Prefix><MaxKeys>{keys_max}</MaxKeys><KeyCount>{count}</KeyCount>\
         <IsTruncated>{}</IsTruncated>",
        next.is_some()
    );
    if let Some(next) = next {
        let _ = write!(out, "<NextContinuationToken>{}</NextContinuationToken>", token(next));
    }
}

/// What asks for the page that begins with that number.
pub fn token(number: u64) -> String {
    format!("from-{number:012}")
}

/// The number in a [`token`].
pub fn parse_token(token: &str) -> Option<u64> {
    token.strip_prefix("from-")?.parse().ok()
}

/// Writes a name as a page does.
pub fn push_name(name: &str, encoding: Encoding, out: &mut String) {
    for character in name.chars() {
        match (encoding, character) {
            (_, 'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' | '_' | '*' | '/') => out.push(character),
            (Encoding::Url, ' ') => out.push('+'),
            (Encoding::Url, _) => {
                for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(out, "%{byte:02X}");
                }
            }
            (Encoding::Xml, '&') => out.push_str("&amp;"),
            (Encoding::Xml, '<') => out.push_str("&lt;"),
            (Encoding::Xml, _) => out.push(character),
        }
    }
}

/// Ending and largest size of that number.
fn kind(number: u64) -> (&'static str, u64) {
    let mut percent = mix(number ^ 0x6b1d) % 100;
    for (ending, size_max, share) in KINDS {
        match percent.checked_sub(share) {
            Some(rest) => percent = rest,
            None => return (ending, size_max),
        }
    }
    ("", 1)
}

fn pick<'a>(from: &[&'a str], number: u64) -> &'a str {
    from[usize::try_from(number).unwrap_or(usize::MAX) % from.len()]
}

/// The finaliser of `SplitMix64`: turns a counter into a number that looks random.
const fn mix(counter: u64) -> u64 {
    let z = counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn push_digits(out: &mut String, mut number: u64, width: usize) {
    let mut digits = [b'0'; 20];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend(digits[digits.len() - width..].iter().map(|&digit| char::from(digit)));
}

fn push_hex(out: &mut String, number: u64) {
    for shift in (0..16).rev() {
        out.push(char::from(b"0123456789abcdef"[(number >> (shift * 4)) as usize & 15]));
    }
}

/// `2024-01-01T00:00:00.000Z` and later.
fn push_time(out: &mut String, random: u64) {
    let (day, millis) = (FIRST_DAY + random % DAYS, (random >> 32) % 86_400_000);
    // Days to a date of the Gregorian calendar: http://howardhinnant.github.io/date_algorithms.html#civil_from_days
    let shifted = day + 719_468;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = shifted / 146_097 * 400 + year_of_era + u64::from(month <= 2);
    for (number, width, after) in [
        (year, 4, '-'),
        (month, 2, '-'),
        (day, 2, 'T'),
        (millis / 3_600_000, 2, ':'),
        (millis / 60_000 % 60, 2, ':'),
        (millis / 1_000 % 60, 2, '.'),
        (millis % 1_000, 3, 'Z'),
    ] {
        push_digits(out, number, width);
        out.push(after);
    }
}

#[cfg(test)]
mod tests {
    use b2sync_core::b2::list::parse_list_page;

    use super::*;

    #[test]
    fn a_page_is_one_of_b2s_and_in_order() {
        let listing = Listing::new(25_000);
        let mut last = String::new();
        for first in (0..25_000).step_by(1_000) {
            let text = listing.page(first);
            assert!((230_000..260_000).contains(&text.len()), "{} bytes", text.len());
            let page = parse_list_page(text.as_bytes()).unwrap();
            assert_eq!(page.entries.len(), 1_000);
            assert_eq!(page.truncated, first < 24_000);
            assert_eq!(page.next_token.as_deref().and_then(parse_token), page.truncated.then_some(first + 1_000));
            for (number, entry) in (first..).zip(page.entries.iter()) {
                let mut key = String::new();
                listing.push_key(number, &mut key);
                assert_eq!(entry.key, key);
                assert!(*last < *key, "{last} {key}");
                last = key;
            }
        }
    }

    #[test]
    fn a_key_is_found_by_its_text() {
        let listing = Listing::new(1_234);
        let mut key = String::new();
        listing.push_key(700, &mut key);
        assert_eq!((listing.from(&key), listing.after(&key)), (700, 701));
        assert_eq!(listing.after(""), 0);
        assert_eq!(listing.after("z"), 1_234);
    }

    #[test]
    fn names_are_written_as_asked() {
        let written = |encoding| {
            let mut out = String::new();
            push_name("a b/ö&", encoding, &mut out);
            out
        };
        assert_eq!(written(Encoding::Url), "a+b/%C3%B6%26");
        assert_eq!(written(Encoding::Xml), "a b/ö&amp;");
    }
}
