//! The poll path: from the bytes of a page to the knowledge that nothing changed.
//!
//! It is put together here from the core's pieces, in the order in which the engine calls them, without its stores and
//! its sink. Everything that a poll does to a key is in [`Poll::page`].

use b2sync_core::b2::list::parse_list_page;
use b2sync_core::engine::source::ListingWatch;
use b2sync_core::entry::EntryRef;
use b2sync_core::error::Error;
use b2sync_core::filter::{Filter, FilterSpec};
use b2sync_core::snapshot::cut::Cut;
use b2sync_core::snapshot::{ContentHash, EtagTag, Known, segment};
use b2sync_core::source_path::SourcePath;

use crate::listing::{Listing, PAGE_KEYS};

/// Bytes that an entry takes at most besides its key, encoded: as in the engine.
const ENTRY_BYTES_MAX: usize = 48;

/// The filters of the poll: those of the README's example.
///
/// # Errors
/// The patterns do not compile, which would be a defect.
pub fn filter() -> Result<Filter, Error> {
    let spec = FilterSpec {
        include_patterns: ["*.mp4", "*.mov", "*.jpg"].map(str::to_owned).to_vec(),
        exclude_patterns: ["*_thumbnail.*", "podcast/**"].map(str::to_owned).to_vec(),
        ..FilterSpec::default()
    };
    Filter::compile(&spec, &SourcePath::parse("b2://bench-bucket/")?)
}

/// One poll on its way through the pages.
#[derive(Debug)]
pub struct Poll<'a> {
    filter: &'a Filter,
    cut: Cut,
    /// The hashes of the segments that are expected; what does not come as expected is counted.
    index: &'a [ContentHash],
    next: usize,
    watch: ListingWatch,
    pending: Vec<Known>,
    pending_bytes: usize,
    /// The hashes of the segments as they are.
    hashes: Vec<ContentHash>,
    /// Segments that are not what the index says.
    differing: u64,
}

impl<'a> Poll<'a> {
    /// Begins before the first page.
    pub fn new(filter: &'a Filter, index: &'a [ContentHash]) -> Self {
        Self {
            filter,
            cut: Cut::new([7; 16]),
            index,
            next: 0,
            watch: ListingWatch::default(),
            pending: Vec::new(),
            pending_bytes: 0,
            hashes: Vec::new(),
            differing: 0,
        }
    }

    /// Parses, decodes, filters, cuts, hashes and compares the next page; how many keys it had.
    ///
    /// # Errors
    /// The page is malformed, or its keys are out of order.
    pub fn page(&mut self, body: &[u8]) -> Result<u64, Error> {
        let page = parse_list_page(body)?;
        for entry in page.entries.iter() {
            self.watch.admit(entry.key)?;
            if !self.filter.matches(entry) {
                continue;
            }
            if self.cut.cuts_before(entry.key, self.pending.len(), self.pending_bytes) {
                self.close();
            }
            self.pending_bytes += entry.key.len() + ENTRY_BYTES_MAX;
            self.pending.push(known(entry));
        }
        Ok(page.entries.len() as u64)
    }

    /// Ends with the last segment: the hashes of all, and how many differ from the index.
    pub fn finish(mut self) -> (Vec<ContentHash>, u64) {
        self.close();
        (self.hashes, self.differing)
    }

    fn close(&mut self) {
        let hash = ContentHash::of(&segment::encode(self.pending.iter()));
        self.pending.clear();
        self.pending_bytes = 0;
        if self.index.get(self.next) != Some(&hash) {
            self.differing += 1;
        }
        self.next += 1;
        self.hashes.push(hash);
    }
}

fn known(entry: EntryRef<'_>) -> Known {
    Known {
        key: entry.key.to_owned(),
        tag: EtagTag::of(entry.etag),
        size: entry.size,
        last_modified: entry.last_modified,
    }
}

/// Pages in memory, and the snapshot that a poll of them finds unchanged.
#[derive(Debug)]
pub struct PollBench {
    pages: Vec<String>,
    filter: Filter,
    index: Vec<ContentHash>,
}

impl PollBench {
    /// Generates so many pages and takes their snapshot.
    ///
    /// # Errors
    /// Those of [`Poll::page`].
    pub fn prepare(pages: u32) -> Result<Self, Error> {
        let listing = Listing::new(u64::from(pages) * PAGE_KEYS);
        let pages: Vec<String> = (0..u64::from(pages)).map(|page| listing.page(page * PAGE_KEYS)).collect();
        let filter = filter()?;
        let mut poll = Poll::new(&filter, &[]);
        for page in &pages {
            poll.page(page.as_bytes())?;
        }
        let (index, _) = poll.finish();
        Ok(Self { pages, filter, index })
    }

    /// The pages.
    pub fn pages(&self) -> &[String] {
        &self.pages
    }

    /// Polls all pages once; how many keys that were.
    ///
    /// # Errors
    /// Those of [`Poll::page`]; something differs from the snapshot.
    pub fn poll(&self) -> Result<u64, Error> {
        let mut poll = Poll::new(&self.filter, &self.index);
        let mut keys = 0;
        for page in &self.pages {
            keys += poll.page(page.as_bytes())?;
        }
        match poll.finish() {
            (_, 0) => Ok(keys),
            (_, differing) => Err(Error::internal(format!("{differing} segments of an unchanged listing differ."))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_finds_what_changed_and_nothing_else() {
        let bench = PollBench::prepare(12).unwrap();
        assert!(bench.index.len() > 1, "more than one segment");
        assert_eq!(bench.poll().unwrap(), 12_000);
        let mut changed = PollBench::prepare(12).unwrap();
        changed.pages[7] = changed.pages[7].replace("<Size>1", "<Size>2");
        assert!(changed.poll().is_err());
    }
}
