//! Reading a range of a listing: pages in, pieces of a snapshot out.
//!
//! A page is filtered, cut and encoded entry by entry, so that what is kept of a file is what a segment keeps of it. An
//! entry that cannot be read ([`Entry::unreadable`]) is in its segment like any other. No segment of a snapshot holds
//! one, so the hashes differ and the comparison looks at both.
//! Where the snapshot has a leaf that begins with the same key, the segments of the new leaf are held back until it is
//! complete: if its hash is that of the old one, a reference is all that is left of it. Nothing here reads or writes
//! state.

pub mod key_order;
pub mod lanes;
pub mod source;
pub mod wire;

use std::{collections::VecDeque, mem};

use serde::{Deserialize, Serialize};

use self::{
    key_order::find_key_order,
    source::{ListingWatch, PAGE_KEYS, Page, PageStart, Source},
};
use crate::{
    entry::{Entry, EntryRef, EtagRef, KeyOrder, has_one_place, just_before},
    error::{Error, ErrorKind, Retry},
    filter::{Filter, Seen},
    mutation::{self, Mutation},
    snapshot::{
        EtagTag, Md5,
        codec::DecodeError,
        cut::{Begins, Cut, LEAF_SEGMENTS_MAX},
        index::{self, Level, SegmentRef},
        segment::{self, Builder},
    },
    time::Timestamp,
};

/// What makes pieces of a listing.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Where segments begin.
    pub cut: Cut,
    /// Which entries are taken.
    pub filter: &'a Filter,
    /// What is seen of the filter is noted here.
    pub seen: &'a Seen,
}

/// A segment as it is listed: beside what a segment keeps, the rest of each ETag, which a change carries.
#[derive(Clone, Debug, Default)]
pub struct Open {
    builder: Builder,
    etags: Etags,
}

impl Open {
    /// With these entries.
    pub fn of(entries: &[Entry]) -> Self {
        let mut open = Self::default();
        entries.iter().for_each(|entry| open.push(entry.into()));
        open
    }

    fn push(&mut self, entry: EntryRef<'_>) {
        let tag = self.etags.push(entry.etag);
        self.builder.push(entry.key, tag, entry.size, entry.last_modified);
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.builder.is_empty()
    }

    /// The first key in it.
    pub fn first_key(&self) -> Option<&str> {
        self.builder.first_key()
    }

    /// As it is stored; `None` when there is no entry.
    pub fn seal(self) -> Option<Sealed> {
        let (segment, bytes) = self.builder.finish()?;
        Some(Sealed { segment, bytes, etags: self.etags })
    }
}

/// A complete segment of a listing.
#[derive(Debug)]
pub struct Sealed {
    /// What an index says of it.
    pub segment: SegmentRef,
    /// What is stored.
    pub bytes: Vec<u8>,
    pub(super) etags: Etags,
}

impl Sealed {
    /// Reads its entries one by one: key, ETag, size, last modified.
    ///
    /// # Errors
    /// As [`Self::entries`].
    pub fn for_each(&self, mut take: impl FnMut(&str, EtagRef<'_>, u64, Timestamp)) -> Result<(), DecodeError> {
        let mut etags = self.etags.0.as_slice();
        segment::for_each(&self.bytes, |key, tag, size, last_modified| {
            take(key, Etags::next(&mut etags, tag).ok_or(DecodeError::Truncated)?, size, last_modified);
            Ok(())
        })
    }

    /// Its entries, with their whole ETags.
    ///
    /// # Errors
    /// [`DecodeError`]; it does not happen for what [`Open::seal`] made.
    pub fn entries(&self) -> Result<Vec<Entry>, DecodeError> {
        let mut etags = self.etags.0.as_slice();
        let known = segment::decode(&self.bytes)?.into_iter();
        known
            .map(|known| {
                let etag = match Etags::next(&mut etags, known.tag).ok_or(DecodeError::Truncated)? {
                    EtagRef::Md5(md5) => hex::encode(md5),
                    EtagRef::Text(text) => text.to_owned(),
                };
                Ok(Entry { key: known.key, etag, size: known.size, last_modified: known.last_modified })
            })
            .collect()
    }
}

/// What the tags leave over of ETags: of an MD5 its second half, of any other all.
#[derive(Clone, Debug, Default)]
pub(super) struct Etags(pub(super) Vec<u8>);

impl Etags {
    fn push(&mut self, etag: &str) -> EtagTag {
        if let Ok(digits) = etag.as_bytes().try_into()
            && let Some(md5) = Md5::of_hex(digits)
            && md5.is_lower_case
        {
            self.0.push(0);
            self.0.extend_from_slice(&md5.second);
            return EtagTag(md5.first);
        }
        self.0.push(1);
        self.0.extend_from_slice(&(etag.len() as u32).to_le_bytes());
        self.0.extend_from_slice(etag.as_bytes());
        EtagTag::of(etag)
    }

    fn next<'a>(left: &mut &'a [u8], tag: EtagTag) -> Option<EtagRef<'a>> {
        let (kind, rest) = left.split_first()?;
        if *kind == 0 {
            let (second, rest) = rest.split_first_chunk::<8>()?;
            *left = rest;
            let mut md5 = [0; 16];
            md5.first_chunk_mut::<8>()?.copy_from_slice(&tag.0);
            md5.last_chunk_mut::<8>()?.copy_from_slice(second);
            return Some(EtagRef::Md5(md5));
        }
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        *left = rest;
        std::str::from_utf8(text).ok().map(EtagRef::Text)
    }
}

/// What a piece of a listing holds.
#[derive(Debug)]
pub enum Content {
    /// No file that passes the filters.
    Nothing,
    /// A segment.
    Segment(Sealed),
    /// A leaf that is as the snapshot has it.
    Leaf(SegmentRef),
}

/// Up to where a piece goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The first key behind it that belongs to what follows; `None`: nothing follows, the listing is at its end.
    pub covered_to: Option<String>,
    /// The last key listed before that one: where to go on.
    pub after: Option<String>,
    /// Keys listed since the mark before.
    pub listed: u64,
    /// Those that passed the filters.
    pub matched: u64,
    /// The sum of their sizes, in bytes.
    pub matched_bytes: u64,
    /// Those whose names passed the filters, and that cannot be read otherwise; not in `matched`.
    pub unreadable: u64,
    /// Whether the range ended amid a segment: what follows belongs to it, unless a key says otherwise.
    pub unfinished: bool,
}

/// A piece of a listing, in the order of its keys.
#[derive(Debug)]
pub struct Piece {
    /// What is in it.
    pub content: Content,
    /// Up to where it goes.
    pub until: Mark,
}

impl Piece {
    /// What it takes in memory, in bytes, about.
    pub fn weight(&self) -> usize {
        match &self.content {
            Content::Segment(sealed) => 128 + sealed.bytes.len() + sealed.etags.0.len(),
            _ => 256,
        }
    }
}

/// What a reader leaves when it stops on its way.
#[derive(Debug)]
pub struct Rest {
    /// The segments of the leaf that it did not complete.
    pub pieces: Vec<Piece>,
    /// The segment that it did not complete.
    pub open: Open,
    /// Since the last mark, with the last key listed.
    pub since: Mark,
    /// What was found out of the order of keys.
    pub watch: ListingWatch,
    /// What the first of all this begins, where nothing of the range was handed on before.
    pub begins: Begins,
}

/// Reads one range of a listing.
#[derive(Debug)]
pub struct RangeReader {
    /// The first key of the range; before it was met, keys are passed over.
    pub(super) from: Option<String>,
    /// The first key behind the range.
    pub(super) end: Option<String>,
    /// The order of keys, and how far the listing is.
    pub watch: ListingWatch,
    pub(super) token: Option<String>,
    /// Leaves of the snapshot that the range may meet, in order.
    pub(super) known: VecDeque<SegmentRef>,
    pub(super) open: Open,
    /// The leaf of the snapshot that begins where the open one does.
    pub(super) hold: Option<SegmentRef>,
    pub(super) held: Vec<Piece>,
    /// Segments closed in the open leaf.
    pub(super) leaf_segments: usize,
    /// Whether leaves begin here where they begin in a listing of everything.
    pub(super) leaf_aligned: bool,
    /// What the first key of the range begins.
    pub(super) begins: Option<Begins>,
    pub(super) since: Mark,
    pub(super) pieces: Vec<Piece>,
    pub(super) keys: u64,
    /// Pages read since the range was begun, or was last split.
    pub(super) pages: u32,
    /// Files that the snapshot knows in the range.
    pub(super) before: u64,
    /// Keys listed in the range so far.
    pub(super) listed: u64,
    /// Those that passed the filters.
    pub(super) matched: u64,
    /// As many pages are read before the range may be split.
    pub(super) split_after: u32,
    /// How much the first and the last key of the latest page have in common, in bytes.
    pub(super) page_common: usize,
    pub(super) done: bool,
}

/// Pages of an unknown range that are read before it is split: most buckets are smaller.
pub const SPLIT_PAGES_FIRST: u32 = 4;
/// The filters leave much out if fewer than one key in this many passes them.
const SPARSE_KEYS: u64 = 16;
/// Further pages of a range that are read before it is split again.
pub const SPLIT_PAGES_AGAIN: u32 = 16;

impl RangeReader {
    /// Reads to `end` from behind the last key that `watch` knows, with what the segment there has already, and the
    /// number of segments before it in its leaf. What comes before `from` is dealt with, though it may appear
    /// meanwhile. `begins` is what the first key begins, where that is known.
    pub fn resume(
        watch: ListingWatch,
        from: Option<String>,
        end: Option<String>,
        known: impl IntoIterator<Item = SegmentRef>,
        open: Open,
        leaf_segments: usize,
        begins: Option<Begins>,
    ) -> Self {
        let known: VecDeque<SegmentRef> = known.into_iter().collect();
        Self {
            from,
            end,
            watch,
            token: None,
            before: files_in(&known),
            listed: 0,
            matched: 0,
            known,
            leaf_aligned: open.is_empty() && leaf_segments == 0,
            open,
            hold: None,
            held: Vec::new(),
            leaf_segments,
            begins,
            since: Mark::default(),
            pieces: Vec::new(),
            keys: 0,
            pages: 0,
            split_after: SPLIT_PAGES_FIRST,
            page_common: 0,
            done: false,
        }
    }

    /// How many files the snapshot knows in the range beside those of its leaves.
    #[must_use]
    pub fn knows(self, files: u64) -> Self {
        Self { before: self.before.saturating_add(files), ..self }
    }

    /// May be split after one page: it is known that there is much in it.
    #[must_use]
    pub fn split_soon(self) -> Self {
        Self { split_after: 1, ..self }
    }

    /// Reads from `from`, which should begin a leaf, to `end`.
    pub fn range(
        order: KeyOrder,
        from: String,
        end: Option<String>,
        known: impl IntoIterator<Item = SegmentRef>,
    ) -> Self {
        let watch = ListingWatch::new(order, Some(just_before(&from)));
        let reader = Self::resume(watch, Some(from), end, known, Open::default(), 0, None);
        Self { leaf_aligned: false, split_after: SPLIT_PAGES_AGAIN, ..reader }
    }

    /// Gives what is behind the next few pages away, as a range of its own; `None` where it is not known where, or not
    /// worth it. All keys of the source begin with the same `prefix_len` bytes.
    ///
    /// The latest page says how dense keys are here: those that begin with what all keys of the page have in common are
    /// as many as the page has, or more. The other range begins behind all that have in common with them all of that
    /// but one character: some ten times as many. No key need be there.
    pub fn split(&mut self, prefix_len: usize) -> Option<Self> {
        // What was there before is rather read as it is, so that its segments are the same: unless the filters leave so
        // much out that it is little of what is read.
        let as_before = self.matched < self.before;
        let sparse = self.pages >= SPLIT_PAGES_AGAIN && self.listed / SPARSE_KEYS >= self.before;
        let early = self.pages < self.split_after || (as_before && !sparse);
        if self.done || self.from.is_some() || self.hold.is_some() || early {
            return None;
        }
        let last = self.watch.last_key()?;
        // At the top of the source, all there is would share it.
        let common = if self.page_common > prefix_len { self.page_common } else { prefix_len + 1 };
        let group = last.get(..last.ceil_char_boundary(common.min(last.len())))?;
        let from = behind_all(group, prefix_len)?;
        let clear = self.watch.order != KeyOrder::Unknown || has_one_place(&from);
        let inside = self.end.as_ref().is_none_or(|end| self.watch.order.compare(&from, end).is_lt());
        if !clear || !inside {
            return None;
        }
        let at = self.known.partition_point(|leaf| self.watch.order.compare(&leaf.first_key, &from).is_lt());
        let known = self.known.split_off(at);
        self.before = self.before.saturating_sub(files_in(&known));
        (self.pages, self.split_after) = (0, SPLIT_PAGES_AGAIN);
        let end = self.end.replace(from.clone());
        Some(Self::range(self.watch.order, from, end, known).split_soon())
    }

    /// How many pages to read before looking whether others should take over some of the range. They do not as long as
    /// files that the snapshot knows are still to come.
    pub fn pages_at_once(&self, most: u32) -> u32 {
        let early = self.split_after.saturating_sub(self.pages);
        let known = self.before.saturating_sub(self.matched).div_ceil(PAGE_KEYS);
        early.max(u32::try_from(known).unwrap_or(u32::MAX)).clamp(1, most.max(1))
    }

    /// How many files the snapshot knows in the range; at least one, so that a range counts.
    pub fn files_known(&self) -> u64 {
        self.before.max(1)
    }

    /// Whether nothing of the range was read yet.
    pub fn is_fresh(&self) -> bool {
        self.pages == 0
    }

    /// Whether the range was read to its end.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// What the first key begins, and so what must be open for it; a leaf where that is not known, or does not matter.
    pub fn begins(&self) -> Begins {
        self.begins.unwrap_or(Begins::Leaf)
    }

    /// How many keys it read since it was asked last.
    pub fn take_keys(&mut self) -> u64 {
        mem::take(&mut self.keys)
    }

    /// Whether there are pieces that are complete.
    pub fn has_pieces(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// The pieces that are complete.
    pub fn take_pieces(&mut self) -> Vec<Piece> {
        mem::take(&mut self.pieces)
    }

    /// Goes on as `other`, who read on where this one stands.
    pub fn go_on_as(&mut self, other: Self) {
        let mut pieces = mem::take(&mut self.pieces);
        let keys = self.keys;
        *self = other;
        pieces.append(&mut self.pieces);
        self.pieces = pieces;
        self.keys += keys;
    }

    /// What its complete pieces take, in bytes, about.
    pub fn complete_weight(&self) -> usize {
        self.pieces.iter().map(Piece::weight).sum()
    }

    /// What it holds in memory, in bytes, about.
    pub fn weight(&self) -> usize {
        let held: usize = self.held.iter().chain(&self.pieces).map(Piece::weight).sum();
        held + self.open.builder.weight()
    }

    /// The marks of all that was listed and not handed on.
    pub fn not_handed_on(&self) -> impl Iterator<Item = &Mark> {
        self.pieces.iter().chain(&self.held).map(|piece| &piece.until).chain([&self.since])
    }

    /// The next page is asked for behind the last key, as by a step that begins: a token is worth nothing in another
    /// one, and what was seen of pages without keys is seen again.
    pub fn begin_anew(&mut self) {
        self.token = None;
        self.watch = ListingWatch::new(self.watch.order, self.watch.last_key().map(str::to_owned));
    }

    /// Stops here.
    pub fn stop(mut self) -> Rest {
        self.pieces.append(&mut self.held);
        let begins = self.begins();
        let mut since = self.since;
        since.after = self.watch.last_key().map(str::to_owned);
        Rest { pieces: self.pieces, open: self.open, since, watch: self.watch, begins }
    }

    /// Reads one page.
    ///
    /// # Errors
    /// Of the source; of [`ListingWatch`] when the listing makes no sense.
    pub async fn read<S: Source>(&mut self, source: &S, rules: &Rules<'_>) -> Result<(), Error> {
        if self.done {
            return Ok(());
        }
        source.still_wanted().await?;
        let token = self.token.take();
        let page = match self.next_page(source, token).await {
            Err(_) if mutation::is_on(Mutation::AdvanceOnError) => Page::default(),
            page => page?,
        };
        if self.watch.order == KeyOrder::Unknown
            && let Some(telling) = page.entries.first_without_one_place(source.prefix().len())
        {
            self.watch.order = find_key_order(source, telling.key).await?;
        }
        self.take_page(rules, &page)?;
        if !self.done {
            self.token = self.watch.next(&page)?;
            if self.token.is_none() {
                self.check_end(source).await?;
                self.finish(rules, None);
            }
        }
        Ok(())
    }

    /// The listing ended before the range did. If there is anything behind the range all the same, the two answers
    /// cannot both be right, and one that ends too early would look like files that are gone.
    async fn check_end<S: Source>(&mut self, source: &S) -> Result<(), Error> {
        let Some(end) = &self.end else { return Ok(()) };
        let page = source.page(PageStart::After(&just_before(end))).await?;
        let behind = page.entries.iter().find(|entry| self.watch.order.compare(entry.key, end).is_ge());
        let Some(behind) = behind else { return Ok(()) };
        Err(Error::new(
            ErrorKind::ListingStuck,
            format!("One page of the listing says that it ends before {end:?}, and another shows {:?}.", behind.key),
            "Nothing was deleted. If this happens repeatedly, report it.",
        )
        .with_retry(Retry::Temporary))
    }

    /// Reads the page that `token` names. A token that the store does not accept any more is replaced by the last key.
    async fn next_page<S: Source>(&self, source: &S, token: Option<String>) -> Result<Page, Error> {
        let after = self.watch.last_key().map_or(PageStart::First, PageStart::After);
        match &token {
            None => source.page(after).await,
            Some(token) => match source.page(PageStart::Token(token)).await {
                Err(error) if error.status() == Some(400) && after != PageStart::First => source.page(after).await,
                result => result,
            },
        }
    }

    fn take_page(&mut self, rules: &Rules<'_>, page: &Page) -> Result<(), Error> {
        self.keys += page.entries.len() as u64;
        self.pages = self.pages.saturating_add(1);
        let carried = self.watch.take_last_key();
        let mut last = carried.as_deref();
        for entry in page.entries.iter() {
            self.watch.admit_behind(last, entry.key)?;
            if let Some(from) = &self.from {
                if self.watch.order.compare(entry.key, from).is_lt() {
                    last = Some(entry.key);
                    continue;
                }
                self.from = None;
            }
            if let Some(end) = &self.end
                && self.watch.order.compare(entry.key, end).is_ge()
            {
                self.finish(rules, last);
                break;
            }
            let is_passed_over = mutation::is_on(Mutation::PassOverEmpty) && entry.size == 0;
            if !is_passed_over && rules.filter.takes(entry, rules.seen) {
                self.take_entry(rules, entry, last);
            }
            self.since.listed += 1;
            self.listed += 1;
            last = Some(entry.key);
        }
        if let Some(last) = last {
            self.watch.set_last_key(last);
            self.page_common = page.entries.iter().next().map_or(0, |first| common_prefix(first.key, last));
        }
        Ok(())
    }

    fn take_entry(&mut self, rules: &Rules<'_>, entry: EntryRef<'_>, last: Option<&str>) {
        let begins = rules.cut.begins(entry.key);
        self.begins.get_or_insert(begins);
        let full = rules.cut.is_full(self.open.builder.len(), self.open.builder.weight());
        if !self.open.is_empty() && (begins != Begins::Nothing || full) {
            self.close_segment(Some(entry.key), last);
        }
        if begins == Begins::Leaf || self.leaf_segments >= LEAF_SEGMENTS_MAX {
            self.close_leaf();
            self.leaf_aligned |= begins == Begins::Leaf;
        }
        if self.leaf_segments == 0 && self.open.is_empty() && self.leaf_aligned {
            let keys = self.watch.order;
            while self.known.pop_front_if(|leaf| keys.compare(&leaf.first_key, entry.key).is_lt()).is_some() {}
            self.hold = self.known.pop_front_if(|leaf| leaf.first_key == entry.key);
        }
        self.open.push(entry);
        self.matched += 1;
        if entry.is_unreadable() {
            self.since.unreadable += 1;
            rules.seen.note_unreadable(entry.key, entry.etag);
            return;
        }
        self.since.matched += 1;
        self.since.matched_bytes = self.since.matched_bytes.saturating_add(entry.size);
    }

    fn mark(&mut self, covered_to: Option<&str>, after: Option<&str>) -> Mark {
        let since = mem::take(&mut self.since);
        Mark { covered_to: covered_to.map(str::to_owned), after: after.map(str::to_owned), ..since }
    }

    fn close_segment(&mut self, covered_to: Option<&str>, after: Option<&str>) {
        let until = self.mark(covered_to, after);
        let Some(sealed) = mem::take(&mut self.open).seal() else { return };
        self.leaf_segments += 1;
        let piece = Piece { content: Content::Segment(sealed), until };
        if self.hold.is_some() { self.held.push(piece) } else { self.pieces.push(piece) }
    }

    fn close_leaf(&mut self) {
        self.leaf_segments = 0;
        let Some(known) = self.hold.take() else { return };
        let segments: Vec<SegmentRef> = self
            .held
            .iter()
            .filter_map(|piece| match &piece.content {
                Content::Segment(sealed) => Some(sealed.segment.clone()),
                _ => None,
            })
            .collect();
        let equal = index::node(Level::Leaf, &segments).is_some_and(|(leaf, _)| leaf.hash == known.hash);
        if !equal {
            self.pieces.append(&mut self.held);
            return;
        }
        let mut until = Mark::default();
        for piece in self.held.drain(..) {
            until = Mark {
                listed: until.listed + piece.until.listed,
                matched: until.matched + piece.until.matched,
                matched_bytes: until.matched_bytes.saturating_add(piece.until.matched_bytes),
                unreadable: until.unreadable + piece.until.unreadable,
                ..piece.until
            };
        }
        self.pieces.push(Piece { content: Content::Leaf(known), until });
    }

    /// The range is read to its end; `last` is the last key listed before it.
    fn finish(&mut self, rules: &Rules<'_>, last: Option<&str>) {
        self.done = true;
        let end = self.end.take();
        let last = last.or(self.watch.last_key()).map(str::to_owned);
        let unfinished = end.as_deref().is_some_and(|end| rules.cut.begins(end) != Begins::Leaf);
        if !self.open.is_empty() {
            self.close_segment(end.as_deref(), last.as_deref());
        }
        if let Some(piece) = self.held.last_mut().or(self.pieces.last_mut()) {
            piece.until.unfinished = unfinished;
        }
        self.close_leaf();
        // What the last piece does not cover: keys that the filters leave out, or a range without files.
        let until = Mark { unfinished, ..self.mark(end.as_deref(), last.as_deref()) };
        self.pieces.push(Piece { content: Content::Nothing, until });
    }
}

/// What comes behind all keys that have all but one character of `group` in common, and `prefix_len` bytes at least. It
/// differs from them in a printable ASCII character, so that it is behind them in either order of keys.
fn behind_all(group: &str, prefix_len: usize) -> Option<String> {
    let chars = group.char_indices().rev().filter(|&(at, char)| at >= prefix_len && matches!(char, ' '..'~'));
    let (at, char) = chars.take(2).last()?;
    let mut behind = group.get(..at)?.to_owned();
    behind.push(char::from_u32(char as u32 + 1)?);
    Some(behind)
}

/// Files that leaves list.
fn files_in(leaves: &VecDeque<SegmentRef>) -> u64 {
    leaves.iter().fold(0, |sum, leaf| leaf.entries.saturating_add(sum))
}

/// How many bytes two keys have in common.
fn common_prefix(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_sealed_segment_gives_back_its_entries(
            list in proptest::collection::vec(
                ("[ab/😀]{0,9}", "[0-9a-f]{32}|[0-9A-F]{32}|[!-~]{0,40}", any::<u64>(), any::<i64>()),
                1..12,
            ),
        ) {
            let entries: Vec<Entry> = list
                .into_iter()
                .map(|(key, etag, size, time)| {
                    Entry { key, etag, size, last_modified: Timestamp::from_millis(time) }
                })
                .collect();
            let sealed = Open::of(&entries).seal().unwrap();
            prop_assert_eq!(sealed.entries().unwrap(), entries.clone());
            let mut again = Vec::new();
            sealed
                .for_each(|key, etag, size, last_modified| {
                    let etag = match etag {
                        EtagRef::Md5(md5) => hex::encode(md5),
                        EtagRef::Text(text) => text.to_owned(),
                    };
                    again.push(Entry { key: key.to_owned(), etag, size, last_modified });
                })
                .unwrap();
            prop_assert_eq!(again, entries.clone());
            let known: Vec<_> = entries.iter().map(crate::snapshot::Known::from).collect();
            prop_assert_eq!(sealed.bytes, segment::encode(known.iter()));
        }
    }
}
