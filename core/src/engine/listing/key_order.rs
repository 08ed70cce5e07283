//! In which order a bucket lists its keys, asked of the bucket itself.
//!
//! UTF-8 and UTF-16 order part only at characters from U+E000 on. The first key that has one is what the question is
//! about: a listing that begins between the two places that the key may have shows which of them it has. So as long as
//! the order is unknown, no key was met on whose place the orders do not agree, and nothing was compared that depends
//! on it.

use super::source::{EMPTY_PAGES_MAX, Page, PageStart, Source};
use crate::{
    entry::{KeyOrder, just_before},
    error::{Error, ErrorKind, Retry},
};

/// Behind these, in one order, comes every usual character from U+E000 to U+FFFF, and in the other every one above.
const BEHIND_WIDE: char = '\u{10fffd}';
const BEHIND_BASIC: char = '\u{fffd}';

/// So often it is asked from another place before that is given up.
const PROBES_MAX: u32 = 4;

/// In which order `source` lists its keys, of which `key` is one that has a character from U+E000 on.
///
/// One page, or two where the key is listed before the place that is asked about.
///
/// # Errors
/// Of the source; [`ErrorKind::ListingStuck`], transient, where the answer fits neither order: the listing changed
/// meanwhile.
pub async fn find_key_order<S: Source>(source: &S, key: &str) -> Result<KeyOrder, Error> {
    // What all keys of the source begin with does not tell them apart.
    let prefix_len = source.prefix().len();
    let mut chars = key.char_indices().filter(|&(at, _)| at >= prefix_len);
    let Some((at, first)) = chars.find(|(_, char)| *char >= '\u{e000}') else {
        return Ok(KeyOrder::Unknown);
    };
    let mut probe = key.get(..at).unwrap_or_default().to_owned();
    probe.push(if first > '\u{ffff}' { BEHIND_BASIC } else { BEHIND_WIDE });
    for _ in 0..PROBES_MAX {
        let found = first_key(source, source.page(PageStart::After(&probe)).await?).await?;
        let fits = |order: KeyOrder| {
            let comes_first = |a: &str, b: &str| order.compare(a, b).is_lt();
            match &found {
                // What is listed behind the probe is behind it, and nothing is left out before the key.
                Some(found) if !comes_first(&probe, found) => false,
                Some(found) => !comes_first(&probe, key) || !comes_first(key, found),
                None => !comes_first(&probe, key),
            }
        };
        match (fits(KeyOrder::Utf8), fits(KeyOrder::Utf16)) {
            (true, false) => return confirm(source, key, &probe, KeyOrder::Utf8).await,
            (false, true) => return confirm(source, key, &probe, KeyOrder::Utf16).await,
            (false, false) => break,
            // A name goes on with one of the few characters behind that of the probe: from there, once more.
            (true, true) => probe = found.unwrap_or(probe),
        }
    }
    Err(unclear(key))
}

/// Where the answer rests on `key` not being listed behind the probe, it must still be there at all.
async fn confirm<S: Source>(source: &S, key: &str, probe: &str, order: KeyOrder) -> Result<KeyOrder, Error> {
    if order.compare(probe, key).is_lt() {
        return Ok(order);
    }
    let page = source.page(PageStart::After(&just_before(key))).await?;
    let is_there = page.entries.iter().any(|entry| entry.key == key);
    let is_before = page.entries.iter().last().is_none_or(|last| order.compare(last.key, key).is_lt());
    // Where more than a page stands before it, that is not worth more calls: it was there a moment ago.
    if is_there || (page.truncated && is_before) { Ok(order) } else { Err(unclear(key)) }
}

/// The first key of a page, or of those that follow where it has none.
async fn first_key<S: Source>(source: &S, mut page: Page) -> Result<Option<String>, Error> {
    for _ in 0..EMPTY_PAGES_MAX {
        if let Some(first) = page.entries.iter().next() {
            return Ok(Some(first.key.to_owned()));
        }
        match page.next_token.filter(|_| page.truncated) {
            Some(token) => page = source.page(PageStart::Token(&token)).await?,
            None => return Ok(None),
        }
    }
    Ok(None)
}

fn unclear(key: &str) -> Error {
    Error::new(
        ErrorKind::ListingStuck,
        format!("The order in which the bucket lists {key:?} is unclear: the listing changed in between."),
        "Nothing was deleted. If this happens repeatedly, report it.",
    )
    .with_retry(Retry::Temporary)
}
