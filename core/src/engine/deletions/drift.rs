//! Why a file is not in the next snapshot: it is gone from the bucket, or it is there and the filters leave it out.
//!
//! A comparison does not tell, and need not where both are treated alike. Where `reconcile` says otherwise for one of
//! them, the files that vanished are looked for in the bucket once more, in the order of keys: one page tells of all
//! that lie in it. Nothing is remembered for that.

use std::collections::BTreeMap;

use crate::{
    engine::listing::source::{EMPTY_PAGES_MAX, PageStart, Source},
    entry::{KeyOrder, just_before, orders_differ},
    error::{Error, ErrorKind, Retry},
    filter::Filter,
    policy::Reconcile,
};

/// What became of a file that is not in the next snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Fate {
    /// It is not in the bucket.
    Gone,
    /// It is there, and the filters or the source leave it out.
    LeftOut,
    /// It is there, and is taken: it came back, or the listing had not shown it. The next job tells.
    Taken,
}

impl Fate {
    /// Whether its deletion is to be appended.
    pub(in crate::engine) const fn is_due(self, reconcile: Reconcile) -> bool {
        match self {
            Self::Gone => reconcile.on_delete,
            Self::LeftOut => reconcile.on_filter_drift,
            Self::Taken => false,
        }
    }
}

/// A page of the bucket, and what it tells.
struct Seen {
    /// The key that it was asked for.
    from: String,
    /// The last key in it; `None`: it is the last page.
    to: Option<String>,
    keys: BTreeMap<String, Fate>,
}

/// Looks for keys in the bucket.
pub(in crate::engine) struct Presence<'a, S> {
    source: &'a S,
    order: KeyOrder,
    filter: &'a Filter,
    seen: Option<Seen>,
    keys: u64,
}

impl<'a, S: Source> Presence<'a, S> {
    /// Of a bucket that lists its keys in that order.
    pub(in crate::engine) const fn new(source: &'a S, order: KeyOrder, filter: &'a Filter) -> Self {
        Self { source, order, filter, seen: None, keys: 0 }
    }

    /// Keys read since it was asked last.
    pub(in crate::engine) fn take_keys(&mut self) -> u64 {
        std::mem::take(&mut self.keys)
    }

    /// What became of `key`, if that is known without asking: the latest page tells, or the source was changed so that
    /// it is none of its keys. Then it is left out, as by a filter, and nothing that can be listed would tell more.
    pub(in crate::engine) fn told(&self, key: &str) -> Option<Fate> {
        if !key.starts_with(self.source.prefix()) {
            return Some(Fate::LeftOut);
        }
        let seen = self.seen.as_ref()?;
        let begins = seen.from == key || self.is_certain(&seen.from, key);
        let ends = seen.to.as_ref().is_none_or(|to| to == key || self.is_certain(key, to));
        (begins && ends).then(|| seen.keys.get(key).copied().unwrap_or(Fate::Gone))
    }

    /// Whether `a` is listed before `b`, in whatever order that may be.
    fn is_certain(&self, a: &str, b: &str) -> bool {
        (self.order != KeyOrder::Unknown || !orders_differ(a, b)) && self.order.compare(a, b).is_lt()
    }

    /// What became of `key`.
    ///
    /// # Errors
    /// Of the source; [`ErrorKind::ListingStuck`].
    pub(in crate::engine) async fn look(&mut self, key: &str) -> Result<Fate, Error> {
        let mut page = self.source.page(PageStart::After(&just_before(key))).await?;
        let mut empty = 0;
        loop {
            self.keys += page.entries.len() as u64;
            let fate = |taken| if taken { Fate::Taken } else { Fate::LeftOut };
            let entries = page.entries.iter();
            let keys: BTreeMap<String, Fate> =
                entries.map(|entry| (entry.key.to_owned(), fate(self.filter.matches(entry)))).collect();
            let last = page.entries.iter().last().map(|entry| entry.key.to_owned());
            let there = keys.get(key).copied();
            let behind = last.as_ref().is_some_and(|last| self.is_certain(key, last));
            if there.is_some() || behind || !page.truncated {
                let to = if page.truncated { last } else { None };
                self.seen = Some(Seen { from: key.to_owned(), to, keys });
                return Ok(there.unwrap_or(Fate::Gone));
            }
            empty = if last.is_some() { 0 } else { empty + 1 };
            page = match page.next_token.filter(|token| !token.is_empty() && empty <= EMPTY_PAGES_MAX) {
                Some(token) => self.source.page(PageStart::Token(&token)).await?,
                None => {
                    return Err(Error::new(
                        ErrorKind::ListingStuck,
                        format!("The listing does not advance while {key:?} is looked for."),
                        "Nothing was deleted. Run the sync again. If it happens again, report it.",
                    )
                    .with_retry(Retry::Temporary));
                }
            };
        }
    }
}
