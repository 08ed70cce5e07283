//! The items of a list of extensions or of MIME types, and which of them have matched.

use super::seen::{Matched, SeenRecord};

/// The items of one list, sorted by their names, each once.
#[derive(Clone, Debug)]
pub(super) struct Items<T> {
    /// As a warning shows them.
    names: Vec<String>,
    items: Vec<T>,
    /// A bit for each.
    all: u128,
}

impl<T> Items<T> {
    /// Of items with their names; two of one name are the same.
    pub(super) fn new(mut named: Vec<(String, T)>) -> Self {
        named.sort_by(|(a, _), (b, _)| a.cmp(b));
        named.dedup_by(|(a, _), (b, _)| a == b);
        let all = (0..named.len()).fold(0, |all, place| all | 1 << (place & 127));
        let (names, items) = named.into_iter().unzip();
        Self { names, items, all }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter()
    }

    /// Notes which items match a file that one of them does; those that have are not asked again.
    #[inline]
    pub(super) fn note(&self, matched: &Matched, matches: impl Fn(&T) -> bool) {
        if !matched.is_complete(self.all) {
            for (place, item) in (0_u8..).zip(&self.items) {
                if !matched.has(place) && matches(item) {
                    matched.set(place);
                }
            }
        }
    }

    /// The names of those that have not matched.
    pub(super) fn unmatched(&self, matched: [u64; 2]) -> Vec<&str> {
        let named = (0_u8..).zip(&self.names);
        named.filter(|(place, _)| !SeenRecord::matched(matched, *place)).map(|(_, name)| name.as_str()).collect()
    }
}
