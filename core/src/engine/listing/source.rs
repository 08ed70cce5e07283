//! Where a job's listing comes from.

use serde::{Deserialize, Serialize};

use super::{RangeReader, Rules};
use crate::{
    cost::SourceCost,
    entry::{EntryBuffer, KeyOrder},
    error::{Error, ErrorKind},
};

/// Keys of a page.
pub const PAGE_KEYS: u64 = 1_000;

/// Where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageStart<'a> {
    /// With the first key of the source.
    First,
    /// With the first key after this one.
    After(&'a str),
    /// Where the page that answered this continuation token ended.
    Token(&'a str),
}

/// One page of a listing, as it was answered: nothing is checked yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of the answer.
    pub entries: EntryBuffer,
    /// Whether there are more.
    pub truncated: bool,
    /// What names the next page.
    pub next_token: Option<String>,
}

/// A listing, page by page: a bucket and a prefix of it.
pub trait Source {
    /// Reads one page. Retries are inside.
    ///
    /// # Errors
    /// What [`crate::b2`] makes of the failure.
    async fn page(&self, start: PageStart<'_>) -> Result<Page, Error>;

    /// What the calls so far have cost.
    fn cost(&self) -> SourceCost;

    /// What all its keys begin with.
    fn prefix(&self) -> &str {
        ""
    }

    /// Reads on in a range: one page, or as much as is good at once where it is read elsewhere.
    ///
    /// # Errors
    /// As [`RangeReader::read`].
    async fn read(&self, reader: &mut RangeReader, rules: &Rules<'_>) -> Result<(), Error>
    where
        Self: Sized,
    {
        reader.read(self, rules).await
    }

    /// Asked before each page and before each swap that appends changes. An error ends the step there.
    ///
    /// # Errors
    /// The error with which the step ends, because the job is no longer wanted.
    async fn still_wanted(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// Consecutive pages without a key, though more are announced, before a listing counts as stuck.
pub const EMPTY_PAGES_MAX: u32 = 100;

/// Watches that a listing advances in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListingWatch {
    /// The order; unknown as long as no key was met on whose place the orders do not agree ([`super::key_order`]).
    pub order: KeyOrder,
    last_key: Option<String>,
    token: Option<String>,
    empty_pages: u32,
}

impl ListingWatch {
    /// Goes on after `last_key`.
    pub fn new(order: KeyOrder, last_key: Option<String>) -> Self {
        Self { order, last_key, token: None, empty_pages: 0 }
    }

    /// The last key admitted.
    pub fn last_key(&self) -> Option<&str> {
        self.last_key.as_deref()
    }

    /// The last key admitted, to be given back by [`Self::set_last_key`]: what stands in a page need not be copied.
    pub fn take_last_key(&mut self) -> Option<String> {
        self.last_key.take()
    }

    /// Goes on after `key`.
    pub fn set_last_key(&mut self, key: &str) {
        let last = self.last_key.get_or_insert_default();
        last.clear();
        last.push_str(key);
    }

    /// Takes the next key of the listing.
    ///
    /// # Errors
    /// As [`Self::admit_behind`].
    pub fn admit(&mut self, key: &str) -> Result<(), Error> {
        self.admit_behind(self.last_key(), key)?;
        self.set_last_key(key);
        Ok(())
    }

    /// Takes the key of the listing that comes behind `last`.
    ///
    /// # Errors
    /// [`ErrorKind::ListingOrder`] when it does not come after the one before.
    pub fn admit_behind(&self, last: Option<&str>, key: &str) -> Result<(), Error> {
        match last {
            Some(last) if self.order.compare(last, key).is_ge() => Err(Error::new(
                ErrorKind::ListingOrder,
                format!("The listing is out of order: {key:?} came after {last:?}."),
                "Nothing was deleted. If it happens again, report it with both names: the store lists its keys in \
                 an order that b2sync does not know.",
            )),
            _ => Ok(()),
        }
    }

    /// Takes in what another part of the same listing found out of the order.
    ///
    /// # Errors
    /// [`ErrorKind::ListingOrder`] when the two parts are not in the same order.
    pub fn join(&mut self, other: &Self) -> Result<(), Error> {
        match (self.order, other.order) {
            (_, KeyOrder::Unknown) => {}
            (KeyOrder::Unknown, found) => self.order = found,
            (ours, theirs) if ours != theirs => {
                return Err(Error::new(
                    ErrorKind::ListingOrder,
                    "One part of the listing is in UTF-8 order and another in UTF-16 order.",
                    "Nothing was deleted. If it happens again, report it.",
                ));
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes what a page says of the page after it: the token to go on with, or `None` at the end of the listing.
    ///
    /// # Errors
    /// [`ErrorKind::ListingStuck`] when going on would not get further.
    pub fn next(&mut self, page: &Page) -> Result<Option<String>, Error> {
        if !page.truncated {
            return Ok(None);
        }
        let stuck = |what: &str| {
            Error::new(
                ErrorKind::ListingStuck,
                format!("The listing does not advance: {what}."),
                "Nothing was deleted. Run the sync again. If it happens again, report it.",
            )
            .with_retry(crate::error::Retry::Temporary)
        };
        let Some(token) = page.next_token.as_ref().filter(|token| !token.is_empty()) else {
            return Err(stuck("a page says that more follow, but not where"));
        };
        if self.token.as_ref() == Some(token) {
            return Err(stuck("two pages name the same next page"));
        }
        self.empty_pages = if page.entries.is_empty() { self.empty_pages + 1 } else { 0 };
        if self.empty_pages > EMPTY_PAGES_MAX {
            return Err(stuck("page after page is empty"));
        }
        self.token = Some(token.clone());
        Ok(Some(token.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit_all(watch: &mut ListingWatch, keys: &[&str]) -> Result<(), Error> {
        keys.iter().try_for_each(|key| watch.admit(key))
    }

    #[test]
    fn each_order_is_held_to() {
        let (utf8, utf16) = (["a", "b\u{ff01}", "b😀"], ["a", "b😀", "b\u{ff01}"]);
        for (order, right, wrong) in [(KeyOrder::Utf8, utf8, utf16), (KeyOrder::Utf16, utf16, utf8)] {
            admit_all(&mut ListingWatch::new(order, None), &right).unwrap();
            let error = admit_all(&mut ListingWatch::new(order, None), &wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ListingOrder);
            assert!(error.message().contains("b😀") && error.message().contains("b！"), "{error}");
        }
    }

    #[test]
    fn parts_of_one_listing_are_in_one_order() {
        let mut watch = ListingWatch::default();
        watch.join(&ListingWatch::new(KeyOrder::Utf16, None)).unwrap();
        watch.join(&ListingWatch::default()).unwrap();
        assert_eq!(watch.order, KeyOrder::Utf16);
        let error = watch.join(&ListingWatch::new(KeyOrder::Utf8, None)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ListingOrder);
    }

    #[test]
    fn going_back_and_standing_still_are_errors() {
        for keys in [["b", "a"], ["a", "a"]] {
            assert_eq!(admit_all(&mut ListingWatch::default(), &keys).unwrap_err().kind(), ErrorKind::ListingOrder);
        }
    }

    #[test]
    fn a_listing_that_stands_still_is_stuck() {
        let page =
            |token: Option<&str>| Page { truncated: true, next_token: token.map(str::to_owned), ..Page::default() };
        let mut watch = ListingWatch::default();
        assert_eq!(watch.next(&page(None)).unwrap_err().kind(), ErrorKind::ListingStuck);
        assert_eq!(watch.next(&page(Some("t"))).unwrap().as_deref(), Some("t"));
        assert_eq!(watch.next(&page(Some("t"))).unwrap_err().kind(), ErrorKind::ListingStuck);
        let mut watch = ListingWatch::default();
        let stuck = (0..=EMPTY_PAGES_MAX).find_map(|n| watch.next(&page(Some(&n.to_string()))).err());
        assert_eq!(stuck.unwrap().kind(), ErrorKind::ListingStuck);
        assert_eq!(watch.next(&Page::default()).unwrap(), None);
    }
}
