//! What a job has seen of its filters: which of their items have matched, which filters left files out, what lies
//! beside the source path's folder; and which entries of the listing it could not read.
//!
//! All of it only grows, so it may be noted for keys that are read again, and joined from steps and shards in any
//! order. Once an item has matched, no key is asked about it for this again.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use serde::{Deserialize, Serialize};

use super::Verdict;

/// How many files and folders beside the source path's folder are remembered.
pub const SIBLINGS_MAX: usize = 3;

/// How many entries that cannot be read are remembered: those whose keys are the first by their bytes.
pub const UNREADABLE_SHOWN_MAX: usize = 5;

/// Items of one list, by their places among the sorted ones: another order of the list changes nothing.
#[derive(Debug, Default)]
pub(super) struct Matched(Cell<u128>);

impl Matched {
    pub(super) fn has(&self, place: u8) -> bool {
        self.0.get() & (1 << (place & 127)) != 0
    }

    pub(super) fn set(&self, place: u8) {
        self.0.set(self.0.get() | 1 << (place & 127));
    }

    /// Whether it has all of `all`.
    pub(super) fn is_complete(&self, all: u128) -> bool {
        self.0.get() & all == all
    }

    fn join(&self, [low, high]: [u64; 2]) {
        self.0.set(self.0.get() | u128::from(high) << 64 | u128::from(low));
    }

    fn halves(&self) -> [u64; 2] {
        let bits = self.0.get();
        [bits as u64, (bits >> 64) as u64]
    }
}

/// What was seen so far. Of one job and one filter.
#[derive(Debug, Default)]
pub struct Seen {
    pub(super) include: Matched,
    pub(super) exclude: Matched,
    pub(super) extensions: Matched,
    pub(super) mime_types: Matched,
    /// By [`Verdict::place`].
    left_out: Cell<u16>,
    in_folder: Cell<bool>,
    siblings: RefCell<Vec<String>>,
    /// Keys, and why their entries cannot be read.
    unreadable: RefCell<BTreeMap<String, String>>,
}

impl Seen {
    /// Takes in what was seen elsewhere.
    pub fn join(&self, other: &SeenRecord) {
        self.include.join(other.include);
        self.exclude.join(other.exclude);
        self.extensions.join(other.extensions);
        self.mime_types.join(other.mime_types);
        self.left_out.set(self.left_out.get() | other.left_out);
        self.in_folder.set(self.in_folder.get() || other.in_folder);
        other.siblings.iter().for_each(|name| self.note_sibling(name));
        other.unreadable.iter().for_each(|(key, why)| self.note_unreadable(key, why));
    }

    /// To be kept.
    pub fn record(&self) -> SeenRecord {
        SeenRecord {
            include: self.include.halves(),
            exclude: self.exclude.halves(),
            extensions: self.extensions.halves(),
            mime_types: self.mime_types.halves(),
            left_out: self.left_out.get(),
            in_folder: self.in_folder.get(),
            siblings: self.siblings.borrow().clone(),
            unreadable: self.unreadable.borrow().clone(),
        }
    }

    /// Notes that the entry of `key` cannot be read, and `why`.
    pub fn note_unreadable(&self, key: &str, why: &str) {
        let mut unreadable = self.unreadable.borrow_mut();
        let is_full = unreadable.len() >= UNREADABLE_SHOWN_MAX;
        if is_full && unreadable.last_key_value().is_some_and(|(last, _)| last.as_str() < key) {
            return;
        }
        unreadable.insert(key.to_owned(), why.to_owned());
        if unreadable.len() > UNREADABLE_SHOWN_MAX {
            unreadable.pop_last();
        }
    }

    pub(super) fn note_left_out(&self, verdict: Verdict<'_>) {
        self.left_out.set(self.left_out.get() | 1 << verdict.place());
    }

    /// Notes where a file lies whose key goes on with `behind` after the source path's prefix; `name` is what is shown
    /// of it where that is not in the folder.
    pub(super) fn note_place<'k>(&self, behind: &str, name: impl FnOnce() -> &'k str) {
        if behind.starts_with('/') {
            self.in_folder.set(true);
        } else if self.siblings.borrow().len() < SIBLINGS_MAX {
            self.note_sibling(name());
        }
    }

    fn note_sibling(&self, name: &str) {
        let mut siblings = self.siblings.borrow_mut();
        if siblings.len() < SIBLINGS_MAX && !siblings.iter().any(|known| known == name) {
            siblings.push(name.to_owned());
        }
    }
}

impl Clone for Seen {
    fn clone(&self) -> Self {
        let clone = Self::default();
        clone.join(&self.record());
        clone
    }
}

/// [`Seen`] as it is kept between steps, and sent to shards and back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SeenRecord {
    pub(super) include: [u64; 2],
    pub(super) exclude: [u64; 2],
    pub(super) extensions: [u64; 2],
    pub(super) mime_types: [u64; 2],
    left_out: u16,
    pub(super) in_folder: bool,
    pub(super) siblings: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unreadable: BTreeMap<String, String>,
}

impl SeenRecord {
    pub(super) fn matched(list: [u64; 2], place: u8) -> bool {
        let [low, high] = list;
        let bits = u128::from(high) << 64 | u128::from(low);
        bits & (1 << (place & 127)) != 0
    }

    /// Whether some file was left out so.
    pub(crate) fn left_out(&self, verdict: Verdict<'_>) -> bool {
        self.left_out & (1 << verdict.place()) != 0
    }

    /// The first keys whose entries cannot be read, and why.
    pub(crate) const fn unreadable(&self) -> &BTreeMap<String, String> {
        &self.unreadable
    }

    /// What lies beside the folder that the source path names, if files lie in the folder too.
    pub(crate) fn beside_folder(&self) -> &[String] {
        if self.in_folder { &self.siblings } else { &[] }
    }
}
