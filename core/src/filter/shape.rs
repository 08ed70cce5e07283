//! The globs that most filters are made of, matched by comparing bytes.
//!
//! `globset` takes any glob, and takes 100 to 200 ns a key for the usual filters: as much as all else in a poll in
//! which nothing changed. Nearly all patterns are of literal text, single stars in the name, and `**` as whole
//! folders around it: `*.mp4`, `*_thumbnail.*`, `drafts/**`, `**/drafts/**`, `raw/**/*.{mov,mp4}`. Those are
//! [`Shape`]s. The set that a shape comes from is always compiled by globset too, which stays the meaning of a pattern:
//! it reads what has another shape, and the tests ask it about every pattern that has one.

use std::cell::OnceCell;

/// The most shapes that are tried one after another: with more, globset's tables are faster.
const SHAPES_MAX: usize = 24;

/// A key as seen from the source root, taken apart at most once for all patterns.
pub(super) struct Path<'k> {
    /// The whole of it.
    pub(super) whole: &'k str,
    /// The last eight bytes, the very last one lowest; `None` if there are fewer.
    tail: Option<u64>,
    /// Where the name begins, once it was looked for.
    name_start: OnceCell<usize>,
}

impl<'k> Path<'k> {
    pub(super) fn new(whole: &'k str) -> Self {
        let tail = whole.as_bytes().last_chunk().copied().map(u64::from_be_bytes);
        Self { whole, tail, name_start: OnceCell::new() }
    }

    /// Up to and including the last `/`, and the name behind it.
    fn split(&self) -> (&'k str, &'k str) {
        let start = match self.name_start.get() {
            Some(start) => *start,
            None => {
                let start = name_start(self.whole.as_bytes());
                // It was empty an instant ago.
                let _ = self.name_start.set(start);
                start
            }
        };
        // A slash is one byte, so both sides are text: the default is never taken.
        self.whole.split_at_checked(start).unwrap_or_default()
    }

    /// What is behind the last `/`.
    pub(super) fn name(&self) -> &'k str {
        self.split().1
    }

    /// Whether the name is `..`, asked without looking for the name of others.
    pub(super) fn is_two_dots(&self) -> bool {
        self.tail.is_none_or(|tail| tail & 0xffff == 0x2e2e) && self.name() == ".."
    }
}

/// Where the name begins: behind the last `/`.
fn name_start(path: &[u8]) -> usize {
    const SLASHES: u64 = u64::from_ne_bytes([b'/'; 8]);
    let (head, words) = path.as_rchunks::<8>();
    let mut start = path.len();
    for word in words.iter().rev() {
        let slash = zero_bytes(u64::from_le_bytes(*word) ^ SLASHES);
        if slash != 0 {
            return start - (slash.leading_zeros() / 8) as usize;
        }
        start -= 8;
    }
    head.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1)
}

/// Which folders a file may be in. Texts end with `/` or are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Folder {
    Any,
    Exactly(Box<[u8]>),
    /// That one and all below.
    From(Box<[u8]>),
}

/// A glob of a known shape: a folder, and a name of literal pieces with anything between them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shape {
    /// Of the pattern that this is of.
    index: usize,
    folder: Folder,
    /// With a `/` before and behind, where the folder may be below any other.
    within: Option<Box<[u8]>>,
    /// What the name begins with.
    first: Box<[u8]>,
    /// What comes behind it in this order, with anything before, between and behind.
    middle: Box<[Box<[u8]>]>,
    /// What the name ends with; `None` when `first` is all of it.
    last: Option<Box<[u8]>>,
    /// The last eight bytes of `last` (or of `first`, if that is all), and which of them there are.
    tail: u64,
    tail_mask: u64,
    /// Whether the last eight bytes of a path, if it has as many, say all: `*.mp4`.
    is_tail: bool,
    /// Whether the name is `*`.
    is_any_name: bool,
}

impl Shape {
    /// From a pattern without braces; `None` if it has another shape.
    fn parse(index: usize, pattern: &str, is_path: bool) -> Option<Self> {
        if pattern.contains(['?', '[', '\\', '{', '}']) {
            return None;
        }
        let literal = |text: &str| (!text.contains('*')).then(|| Box::from(text.as_bytes()));
        let mut within = None;
        let (folder, name) = if !is_path {
            (Folder::Any, pattern)
        } else {
            let name_start = pattern.rfind('/').map_or(0, |slash| slash + 1);
            let (folder, name) = pattern.split_at_checked(name_start)?;
            if name == "**"
                && let Some(folder) = folder.strip_prefix("**/").filter(|folder| !folder.is_empty())
            {
                within = literal(&format!("/{folder}"));
                (Folder::From(literal(folder)?), "*")
            } else if name == "**" && !folder.is_empty() {
                (Folder::From(literal(folder)?), "*")
            } else if name.is_empty() && folder.ends_with("**/") {
                // Alone it is everything to globset; behind a folder nobody means it.
                return None;
            } else if folder == "**/" {
                (Folder::Any, name)
            } else if let Some(above) = folder.strip_suffix("/**/") {
                (Folder::From(literal(&format!("{above}/"))?), name)
            } else {
                (Folder::Exactly(literal(folder)?), name)
            }
        };
        if name.contains("**") {
            return None;
        }
        let mut pieces = name.split('*').map(|piece| Box::from(piece.as_bytes()));
        let first: Box<[u8]> = pieces.next()?;
        let mut middle: Vec<Box<[u8]>> = pieces.collect();
        let last = middle.pop();
        let (mut tail, mut tail_mask) = (0, 0);
        for (place, byte) in last.as_ref().unwrap_or(&first).iter().rev().take(8).enumerate() {
            tail |= u64::from(*byte) << (8 * place);
            tail_mask |= 0xff << (8 * place);
        }
        let is_end = first.is_empty() && middle.is_empty();
        let is_tail = is_end && folder == Folder::Any && last.as_ref().is_some_and(|last| last.len() <= 8);
        let is_any_name = is_end && last.as_ref().is_some_and(|last| last.is_empty());
        Some(Self { index, folder, within, first, middle: middle.into(), last, tail, tail_mask, is_tail, is_any_name })
    }

    fn matches(&self, path: &Path<'_>) -> bool {
        // The name ends where the path does, and what it must end with has no slash.
        if let Some(tail) = path.tail {
            if tail & self.tail_mask != self.tail {
                return false;
            }
            if self.is_tail {
                return true;
            }
        }
        let in_folder = match &self.folder {
            Folder::Any => true,
            Folder::Exactly(folder) => path.split().0.as_bytes() == &**folder,
            // It ends with a slash, so it begins the path if and only if it begins the folder.
            // Nearly all others differ in the first byte, which is no call.
            Folder::From(folder) => {
                let whole = path.whole.as_bytes();
                (whole.first() == folder.first() && whole.starts_with(folder))
                    || self.within.as_ref().is_some_and(|within| behind(whole, within).is_some())
            }
        };
        in_folder && (self.is_any_name || self.matches_name(path.name().as_bytes()))
    }

    fn matches_name(&self, name: &[u8]) -> bool {
        let Some(last) = &self.last else { return name == &*self.first };
        let mut rest = name;
        // No comparison with nothing: an empty box points nowhere, and glibc's `memcmp` for AVX-512 takes 40 ns to look
        // at no byte of it.
        if !self.first.is_empty() {
            let Some(behind) = rest.strip_prefix(&*self.first) else { return false };
            rest = behind;
        }
        if !last.is_empty() {
            let Some(before) = rest.strip_suffix(&**last) else { return false };
            rest = before;
        }
        // Each piece where it comes first: that leaves the most for those behind it.
        self.middle.iter().all(|piece| match behind(rest, piece) {
            Some(behind) => {
                rest = behind;
                true
            }
            None => false,
        })
    }
}

/// What stands behind the first `piece` in `text`.
fn behind<'t>(text: &'t [u8], piece: &[u8]) -> Option<&'t [u8]> {
    let Some((&first, others)) = piece.split_first() else { return Some(text) };
    let mut rest = text;
    loop {
        let (_, found) = rest.split_at_checked(find(first, rest)? + 1)?;
        // The next byte tells nearly always, and is no call.
        let may_be = others.first().is_none_or(|next| found.first() == Some(next));
        if may_be && let Some(behind) = found.strip_prefix(others) {
            return Some(behind);
        }
        rest = found;
    }
}

/// Where `byte` first is. Names are short: no call, no set-up.
fn find(byte: u8, text: &[u8]) -> Option<usize> {
    let wanted = u64::from_ne_bytes([byte; 8]);
    let (words, end) = text.as_chunks::<8>();
    let mut start = 0;
    for word in words {
        let found = zero_bytes(u64::from_le_bytes(*word) ^ wanted);
        if found != 0 {
            return Some(start + (found.trailing_zeros() / 8) as usize);
        }
        start += 8;
    }
    Some(start + end.iter().position(|&other| other == byte)?)
}

/// The top bit of each byte that is zero, and of no other.
const fn zero_bytes(word: u64) -> u64 {
    const LOW: u64 = u64::from_ne_bytes([0x7f; 8]);
    // No sum carries.
    !(((word & LOW) + LOW) | word | LOW)
}

/// The end of a name, as `*.mp4` asks for it: the last eight bytes of a path, and which of them count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tail {
    bytes: u64,
    mask: u64,
}

/// A list of patterns that all have a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shapes {
    /// All of them, in the order of the patterns.
    all: Box<[Shape]>,
    /// Of those whose end is all there is to them, that end.
    tails: Box<[Tail]>,
    /// The others.
    others: Box<[Shape]>,
}

impl Shapes {
    /// From patterns without a leading `/` or `./`; `None` if one has another shape, or there are too many.
    pub(super) fn parse<'p>(patterns: impl Iterator<Item = &'p str>, is_path: bool) -> Option<Self> {
        let mut shapes = Vec::new();
        for (index, pattern) in patterns.enumerate() {
            for pattern in alternatives(pattern)? {
                shapes.push(Shape::parse(index, &pattern, is_path)?);
            }
            if shapes.len() > SHAPES_MAX {
                return None;
            }
        }
        let (tails, others): (Vec<Shape>, Vec<Shape>) = shapes.iter().cloned().partition(|shape| shape.is_tail);
        let tails = tails.iter().map(|shape| Tail { bytes: shape.tail, mask: shape.tail_mask }).collect();
        Some(Self { all: shapes.into(), tails, others: others.into() })
    }

    /// Whether one of them matches. Not to be asked about a file named `..`, as [`Self::first_match`].
    pub(super) fn is_match(&self, path: &Path<'_>) -> bool {
        let Some(tail) = path.tail else { return self.all.iter().any(|shape| shape.matches(path)) };
        // All are compared whatever comes of it: files have their kinds in no order, and a branch for each kind would
        // be mispredicted, which costs more than the comparisons.
        let ends = self.tails.iter().fold(false, |found, it| found | (tail & it.mask == it.bytes));
        ends || self.others.iter().any(|shape| shape.matches(path))
    }

    /// The index of the first pattern that matches. Not to be asked about a file named `..`: globset looks the names of
    /// some patterns up in a table that leaves this one out, and of others not.
    pub(super) fn first_match(&self, path: &Path<'_>) -> Option<usize> {
        if !self.is_match(path) {
            return None;
        }
        self.all.iter().find(|shape| shape.matches(path)).map(|shape| shape.index)
    }

    /// Calls `found` with the index of each pattern that matches, of those that are `asked` for.
    pub(super) fn each_match(&self, path: &Path<'_>, asked: impl Fn(usize) -> bool, found: impl Fn(usize)) {
        for shape in &self.all {
            if asked(shape.index) && shape.matches(path) {
                found(shape.index);
            }
        }
    }
}

/// The patterns that one pattern with at most one pair of braces stands for. Only with plain text between them: a star
/// or nothing there could make `**` of what globset reads as two stars.
fn alternatives(pattern: &str) -> Option<Vec<String>> {
    let Some((before, rest)) = pattern.split_once('{') else { return Some(vec![pattern.to_owned()]) };
    let (inside, after) = rest.split_once('}')?;
    let is_plain = |text: &str| !text.is_empty() && !text.contains(['*', '?', '[', '\\', '{', '/']);
    if before.contains(['[', '\\']) || inside.split(',').count() > SHAPES_MAX || !inside.split(',').all(is_plain) {
        return None;
    }
    Some(inside.split(',').map(|one| format!("{before}{one}{after}")).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_name_begins_behind_the_last_slash(key in "[/.0oé\u{1}]{0,30}") {
            let path = Path::new(&key);
            prop_assert_eq!(path.name(), key.rsplit('/').next().unwrap());
            prop_assert_eq!([path.split().0, path.split().1].concat(), &*key);
            prop_assert_eq!(path.is_two_dots(), path.name() == "..");
        }

        #[test]
        fn any_bytes_have_their_last_slash(bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
            let slash = bytes.iter().rposition(|&byte| byte == b'/');
            prop_assert_eq!(name_start(&bytes), slash.map_or(0, |slash| slash + 1));
        }

        #[test]
        fn a_byte_is_found_where_it_comes_first(bytes in proptest::collection::vec(0u8..4, 0..40), byte in 0u8..4) {
            prop_assert_eq!(find(byte, &bytes), bytes.iter().position(|&other| other == byte));
        }

        #[test]
        fn a_piece_is_found_where_it_comes_first(text in "[ab]{0,12}|[abcde]{0,40}", piece in "[ab]{0,4}") {
            let expected = text.split_once(&piece).map(|(_, behind)| behind.as_bytes());
            prop_assert_eq!(behind(text.as_bytes(), piece.as_bytes()), expected);
        }
    }
}
