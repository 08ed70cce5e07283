//! A bucket in memory.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    rc::Rc,
    task::Poll,
};

use super::stores::broken;
use crate::{
    cost::SourceCost,
    engine::listing::{
        RangeReader, Rules,
        source::{Page, PageStart, Source},
        wire::ReaderWire,
    },
    entry::{Entry, EntryBuffer, EntryRef, KeyOrder},
    error::{Error, ErrorKind},
};

/// Pages that a reader elsewhere reads in one call.
const PAGES_ELSEWHERE: u32 = 5;

/// A bucket that lists itself, page by page.
#[derive(Debug, Default)]
pub struct MemoryBucket {
    entries: RefCell<Vec<Entry>>,
    /// Keys of a page, at least one.
    pub page_size: Cell<usize>,
    /// The order in which it lists its keys; set before the entries are.
    pub order: Cell<KeyOrder>,
    /// Keys that it shows with entries that cannot be read.
    pub unreadable: RefCell<BTreeSet<String>>,
    /// Pages that were asked for.
    pub calls: Cell<u64>,
    /// Answers in place of its own, the last one first.
    pub answers: RefCell<Vec<Result<Page, Error>>>,
    /// The call that fails.
    pub fails_at: Cell<u64>,
    /// The call that is answered by a page without keys, although there are more behind it.
    pub empty_at: Cell<u64>,
    /// How often a page is asked for before it is there.
    pub latency: Cell<u32>,
    in_flight: Cell<usize>,
    /// The most pages that were on their way at the same time.
    pub in_flight_most: Cell<usize>,
    /// Whether ranges are read somewhere else.
    pub elsewhere: Cell<bool>,
    /// Whether the job that reads it is not wanted any more.
    pub is_unwanted: Cell<bool>,
    /// How often it answered that a page is the last one.
    pub ends: Rc<Cell<u64>>,
}

impl MemoryBucket {
    /// Holds these entries from now on, and no others.
    pub fn set(&self, entries: impl IntoIterator<Item = Entry>) {
        let mut entries: Vec<Entry> = entries.into_iter().collect();
        entries.sort_by(|a, b| self.order.get().compare(&a.key, &b.key));
        *self.entries.borrow_mut() = entries;
    }

    /// What it holds, by key.
    pub fn current(&self) -> BTreeMap<String, Entry> {
        self.entries.borrow().iter().map(|entry| (entry.key.clone(), entry.clone())).collect()
    }

    /// Waits as long as a page takes; a failure takes half as long.
    async fn wait(&self, fails: bool) {
        self.in_flight.set(self.in_flight.get() + 1);
        self.in_flight_most.set(self.in_flight_most.get().max(self.in_flight.get()));
        let mut left = self.latency.get() / if fails { 2 } else { 1 };
        poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        self.in_flight.set(self.in_flight.get() - 1);
    }

    fn answer(&self, after: Option<&str>) -> Page {
        if self.calls.get() == self.empty_at.get() {
            let next_token = Some(format!("{}!", after.unwrap_or_default()));
            return Page { entries: packed(&[]), truncated: true, next_token };
        }
        let (entries, order) = (self.entries.borrow(), self.order.get());
        let from = after.map_or(0, |after| entries.partition_point(|entry| order.compare(&entry.key, after).is_le()));
        let page: Vec<Entry> = entries.iter().skip(from).take(self.page_size.get().max(1)).cloned().collect();
        let unreadable = self.unreadable.borrow();
        let shown = |entry: Entry| {
            let hidden = unreadable.contains(&entry.key);
            if hidden { Entry::unreadable(entry.key, "<Size> is \"abc\"") } else { entry }
        };
        let page: Vec<Entry> = page.into_iter().map(shown).collect();
        let truncated = from + page.len() < entries.len();
        let next_token = page.last().filter(|_| truncated).map(|last| last.key.clone());
        Page { entries: packed(&page), truncated, next_token }
    }
}

impl Source for MemoryBucket {
    async fn page(&self, start: PageStart<'_>) -> Result<Page, Error> {
        self.calls.set(self.calls.get() + 1);
        let fails = self.calls.get() == self.fails_at.get();
        self.wait(fails).await;
        let scripted = self.answers.borrow_mut().pop();
        let page = match scripted {
            Some(answer) => answer?,
            None if fails => return Err(broken()),
            None => self.answer(match start {
                PageStart::First => None,
                PageStart::After(key) | PageStart::Token(key) => Some(key),
            }),
        };
        self.ends.set(self.ends.get() + u64::from(!page.truncated));
        Ok(page)
    }

    async fn read(&self, reader: &mut RangeReader, rules: &Rules<'_>) -> Result<(), Error> {
        if !self.elsewhere.get() {
            return reader.read(self, rules).await;
        }
        let mut other = sent(&ReaderWire::rest_of(reader)?);
        let mut read = Ok(());
        for _ in 0..other.pages_at_once(PAGES_ELSEWHERE) {
            read = other.read(self, rules).await;
            if read.is_err() {
                break;
            }
        }
        reader.go_on_as(sent(&ReaderWire::of(&other)?));
        read
    }

    async fn still_wanted(&self) -> Result<(), Error> {
        if self.is_unwanted.get() {
            return Err(Error::new(ErrorKind::StateConflict, "The job is not wanted any more.", ""));
        }
        Ok(())
    }

    fn cost(&self) -> SourceCost {
        let calls = self.calls.get();
        SourceCost { class_b: 0, class_c: calls, requests: calls, bytes_received: calls * 100, ..SourceCost::default() }
    }
}

/// Entries as a page holds them.
pub fn packed(entries: &[Entry]) -> EntryBuffer {
    entries.iter().map(EntryRef::from).collect()
}

/// A reader as it arrives somewhere else.
fn sent(wire: &ReaderWire) -> RangeReader {
    let wire: ReaderWire = serde_json::from_str(&serde_json::to_string(wire).unwrap()).unwrap();
    wire.into_reader().unwrap()
}
