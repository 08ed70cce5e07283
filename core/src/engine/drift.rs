//! Why a file is not in the next snapshot: it is gone from the bucket, or it is there and the filters leave it out.
//!
//! A comparison does not tell, and need not where both are delivered alike. Where `reconcile` says otherwise for one of
//! them, the files that vanished are looked for in the bucket once more, in the order of keys: one page tells of all that
//! lie in it. Nothing is remembered for that.

use std::collections::BTreeSet;

use super::{
    Reconcile,
    listing::just_before,
    source::{EMPTY_PAGES_MAX, PageStart, Source},
};
use crate::{
    entry::{KeyOrder, orders_differ},
    error::{Error, ErrorKind, Retry},
};

/// Whether it matters why a file vanished.
pub(super) const fn matters(reconcile: Reconcile) -> bool {
    reconcile.on_delete != reconcile.on_filter_drift
}

/// A page of the bucket, and what it tells.
struct Seen {
    /// The key that it was asked for.
    from: String,
    /// The last key in it; `None`: it is the last page.
    to: Option<String>,
    keys: BTreeSet<String>,
}

/// Looks for keys in the bucket.
pub(super) struct Presence<'a, S> {
    source: &'a S,
    order: KeyOrder,
    seen: Option<Seen>,
    keys: u64,
}

impl<'a, S: Source> Presence<'a, S> {
    /// Of a bucket that lists its keys in that order.
    pub(super) const fn new(source: &'a S, order: KeyOrder) -> Self {
        Self { source, order, seen: None, keys: 0 }
    }

    /// Keys read since it was asked last.
    pub(super) fn take_keys(&mut self) -> u64 {
        std::mem::take(&mut self.keys)
    }

    /// Whether `key` is in the bucket, if the latest page tells.
    pub(super) fn told(&self, key: &str) -> Option<bool> {
        let seen = self.seen.as_ref()?;
        let clear = |other: &str| self.order != KeyOrder::Unknown || !orders_differ(key, other);
        let begins = seen.from == key || (clear(&seen.from) && self.order.compare(&seen.from, key).is_lt());
        let ends = seen.to.as_ref().is_none_or(|to| clear(to) && self.order.compare(key, to).is_le());
        (begins && ends).then(|| seen.keys.contains(key))
    }

    /// Whether `key` is in the bucket.
    ///
    /// # Errors
    /// Of the source; [`ErrorKind::ListingStuck`].
    pub(super) async fn look(&mut self, key: &str) -> Result<bool, Error> {
        let mut page = self.source.page(PageStart::After(&just_before(key))).await?;
        let mut empty = 0;
        loop {
            self.keys += page.entries.len() as u64;
            let keys: BTreeSet<String> = page.entries.iter().map(|entry| entry.key.to_owned()).collect();
            let last = page.entries.iter().last().map(|entry| entry.key.to_owned());
            let there = keys.contains(key);
            let behind = last.as_ref().is_some_and(|last| self.order.compare(key, last).is_le());
            if there || behind || !page.truncated {
                let to = if page.truncated { last } else { None };
                self.seen = Some(Seen { from: key.to_owned(), to, keys });
                return Ok(there);
            }
            empty = if last.is_some() { 0 } else { empty + 1 };
            page = match page.next_token.filter(|token| !token.is_empty() && empty <= EMPTY_PAGES_MAX) {
                Some(token) => self.source.page(PageStart::Token(&token)).await?,
                None => {
                    return Err(Error::new(
                        ErrorKind::ListingStuck,
                        format!("The listing does not advance while {key:?} is looked for."),
                        "Nothing was removed. Trigger the sync again; if it happens again, report it.",
                    )
                    .with_retry(Retry::Temporary));
                }
            };
        }
    }
}
