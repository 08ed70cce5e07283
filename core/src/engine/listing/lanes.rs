//! Reading several ranges of one listing side by side, and handing their pieces on in the order of keys.
//!
//! A lane reads one range. Pieces of the first lane are handed on as they come; those of the others wait until all
//! before them are handed on. So the code that takes them need not know how many lanes there are, and what comes of it
//! is the same.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use super::{
    Mark, Piece, RangeReader, Rest, Rules,
    source::{ListingWatch, Source},
};
use crate::{
    error::Error,
    job::JobCounts,
    mutation::{self, Mutation},
    snapshot::cut::Begins,
};

/// Once all lanes but the first hold this much, in bytes, only those go on before which, and in which, there is less
/// than half of it: so they hold half as much again at most, and the pages that are on their way.
pub const WAITING_BYTES_MAX: usize = 16 << 20;
/// Lanes that wait, for each that reads.
const WAITING_LANES_MAX: usize = 16;

type Reading<'f> = Pin<Box<dyn Future<Output = (Box<RangeReader>, Result<(), Error>)> + 'f>>;

/// One range.
enum Lane<'f> {
    /// With what it held in memory when it began to.
    Reading(Reading<'f>, usize),
    /// Between two pages; `Some` when it cannot go on.
    Resting(Box<RangeReader>, Option<Result<(), Error>>),
}

impl Lane<'_> {
    /// Behind a page, or where nothing is on its way.
    fn rest(reader: Box<RangeReader>, result: Result<(), Error>) -> Self {
        let ended = reader.is_done() || result.is_err();
        Self::Resting(reader, ended.then_some(result))
    }

    /// What it holds in memory, in bytes, about.
    fn weight(&self) -> usize {
        match self {
            Self::Reading(_, weight) => *weight,
            Self::Resting(reader, _) => reader.weight(),
        }
    }
}

/// What was read, and is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reads {
    /// Keys read since [`Lanes::take_keys`].
    pub keys: u64,
    /// Pages on their way.
    pub in_flight: u64,
    /// Whether the page to be read is the first of a range ahead. What is read ahead and not handed on when the step
    /// ends is read again by the next one, unless the job is held.
    pub begins: bool,
}

/// What comes next.
pub enum Next {
    /// Pieces of the listing.
    Pieces {
        /// In the order of keys.
        pieces: Vec<Piece>,
        /// What the first of them begins, where they are the first of a range: what must be open for it.
        begins: Begins,
    },
    /// The listing is read to its end.
    End,
    /// No page more may be read.
    Stopped,
    /// The first lane cannot go on.
    Failed(Error),
}

/// Lanes between two steps.
#[derive(Debug)]
pub struct PausedLanes {
    lanes: Vec<RangeReader>,
    ahead: VecDeque<RangeReader>,
    closing: bool,
    fresh: bool,
    watch: ListingWatch,
}

impl PausedLanes {
    /// Counts what was read and not handed on as listed.
    pub fn add_to(&self, counts: &mut JobCounts) {
        for mark in self.lanes.iter().flat_map(|reader| reader.not_handed_on()) {
            let Mark { listed, matched, matched_bytes, unreadable, .. } = mark;
            counts.unreadable += unreadable;
            counts.listed += listed;
            counts.matched += matched;
            counts.matched_bytes = counts.matched_bytes.saturating_add(*matched_bytes);
        }
    }
}

/// One look at all lanes.
struct Round {
    /// Which lane is looked at.
    index: usize,
    /// [`Lanes::longest_left`].
    next: u64,
    /// Pages on their way.
    in_flight: u64,
    /// What all lanes hold, except the first.
    all: usize,
    /// Of that, what lanes before the one that is looked at hold.
    waiting: usize,
    /// No page more may be read.
    stopped: bool,
}

/// The lanes that a step reads.
pub struct Lanes<'f, S> {
    source: &'f S,
    rules: Rules<'f>,
    lanes: VecDeque<Lane<'f>>,
    ahead: VecDeque<RangeReader>,
    streams: usize,
    prefix_len: usize,
    /// Whether all ranges are lanes by now, and the longest that is left is begun next.
    closing: bool,
    /// Whether the first lane's first pieces are still to come.
    fresh: bool,
    /// What is known of the order of keys, of all lanes whose pieces were handed on.
    pub watch: ListingWatch,
    keys: u64,
}

impl<'f, S: Source> Lanes<'f, S> {
    /// Begins with `first`; of the ranges `ahead` of it, as many are read that `streams` are read at the same time.
    pub fn new(
        source: &'f S,
        rules: Rules<'f>,
        first: RangeReader,
        ahead: impl IntoIterator<Item = RangeReader>,
        streams: usize,
    ) -> Self {
        let watch = first.watch.clone();
        let lanes = VecDeque::from([Lane::Resting(Box::new(first), None)]);
        let ahead = ahead.into_iter().collect();
        let prefix_len = source.prefix().len();
        let streams = streams.max(1);
        Self { source, rules, lanes, ahead, streams, prefix_len, closing: false, fresh: true, watch, keys: 0 }
    }

    /// Goes on with lanes as another step left them.
    pub fn go_on(source: &'f S, rules: Rules<'f>, paused: PausedLanes, streams: usize) -> Self {
        let PausedLanes { lanes, ahead, closing, fresh, watch } = paused;
        let lanes = lanes.into_iter().map(|reader| Lane::rest(Box::new(reader), Ok(()))).collect();
        let (prefix_len, streams) = (source.prefix().len(), streams.max(1));
        Self { source, rules, lanes, ahead, streams, prefix_len, closing, fresh, watch, keys: 0 }
    }

    /// Gives the lanes up for another step to go on with, once no page is on its way. `None`, and they stay, where one
    /// of them cannot go on, or they hold more than `bytes_max` bytes.
    pub async fn pause(&mut self, bytes_max: usize) -> Option<PausedLanes> {
        poll_fn(|context| self.poll_rest(context)).await;
        let weight: usize = self.lanes.iter().map(Lane::weight).sum();
        // What failed for a while is asked for again.
        let goes_on = |lane: &Lane<'_>| match lane {
            Lane::Resting(_, Some(Err(error))) => error.is_transient(),
            _ => true,
        };
        if weight > bytes_max || !self.lanes.iter().all(goes_on) {
            return None;
        }
        let reader = |lane| match lane {
            Lane::Resting(reader, _) => Some(*reader),
            Lane::Reading(..) => None,
        };
        let mut lanes: Vec<RangeReader> = self.lanes.drain(..).filter_map(reader).collect();
        lanes.iter_mut().for_each(RangeReader::begin_anew);
        let ahead = std::mem::take(&mut self.ahead);
        Some(PausedLanes { lanes, ahead, closing: self.closing, fresh: self.fresh, watch: self.watch.clone() })
    }

    /// Waits until no page is on its way: for all at once, since each may take all its retries.
    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut all = Poll::Ready(());
        for lane in &mut self.lanes {
            if let Lane::Reading(future, _) = lane {
                match future.as_mut().poll(context) {
                    Poll::Pending => all = Poll::Pending,
                    Poll::Ready((mut reader, result)) => {
                        self.keys += reader.take_keys();
                        *lane = Lane::rest(reader, result);
                    }
                }
            }
        }
        all
    }

    /// Keys read since it was asked last.
    pub fn take_keys(&mut self) -> u64 {
        std::mem::take(&mut self.keys)
    }

    /// Reads until there is something to hand on. `may_read` is asked before each page.
    pub async fn next(&mut self, may_read: &mut dyn FnMut(Reads) -> bool) -> Next {
        poll_fn(|context| self.poll_next(context, may_read)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>, may_read: &mut dyn FnMut(Reads) -> bool) -> Poll<Next> {
        self.close();
        let mut round = Round {
            index: 0,
            next: self.longest_left(),
            in_flight: self.lanes.iter().filter(|lane| matches!(lane, Lane::Reading(..))).count() as u64,
            all: self.lanes.iter().skip(1).map(Lane::weight).sum(),
            waiting: 0,
            stopped: false,
        };
        loop {
            if round.index == self.lanes.len() && !self.add_lane(&round) {
                break;
            }
            let Some(lane) = self.lanes.remove(round.index) else { break };
            round.waiting += if round.index == 0 { 0 } else { lane.weight() };
            let lane = self.advance(lane, &mut round, context, may_read);
            let began = self.closing && round.next > 0 && matches!(lane, Lane::Reading(..));
            self.lanes.insert(round.index, lane);
            if began && round.in_flight < self.streams as u64 {
                // Another one may be the longest now, and stand before this one.
                let left = self.longest_left();
                if left != round.next {
                    round.next = left;
                    (round.index, round.waiting) = (0, 0);
                    continue;
                }
            }
            if round.index == 0
                && let Some(next) = self.hand_on(round.stopped)
            {
                return Poll::Ready(next);
            }
            round.index += 1;
        }
        if round.in_flight == 0 && !mutation::is_on(Mutation::RestUnwoken) {
            // The first lane was told to wait for what was on its way, and that came behind it: nothing else would wake
            // it.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Adds one lane more, if there is a range, a stream, and memory for it.
    fn add_lane(&mut self, round: &Round) -> bool {
        let room = self.streams > 1
            && self.lanes.len() < self.streams.saturating_mul(WAITING_LANES_MAX)
            && round.all < WAITING_BYTES_MAX
            && round.in_flight < self.streams as u64
            && !round.stopped;
        if !room && !self.lanes.is_empty() {
            return false;
        }
        let Some(reader) = self.ahead.pop_front() else { return false };
        self.lanes.push_back(Lane::Resting(Box::new(reader), None));
        true
    }

    /// Takes in the page that a lane was waiting for, and asks for its next one, as often as both can be done now.
    fn advance(
        &mut self,
        mut lane: Lane<'f>,
        round: &mut Round,
        context: &mut Context<'_>,
        may_read: &mut dyn FnMut(Reads) -> bool,
    ) -> Lane<'f> {
        loop {
            lane = match lane {
                Lane::Reading(mut future, weight) => match future.as_mut().poll(context) {
                    Poll::Pending => return Lane::Reading(future, weight),
                    Poll::Ready((mut reader, result)) => {
                        round.in_flight -= 1;
                        self.keys += reader.take_keys();
                        Lane::rest(reader, result)
                    }
                },
                Lane::Resting(reader, ended) => {
                    let begins = round.index > 0 && reader.is_fresh();
                    if ended.is_some() || !self.may_go_on(&reader, begins, round) {
                        return Lane::Resting(reader, ended);
                    }
                    if !may_read(Reads { keys: self.keys, in_flight: round.in_flight, begins }) {
                        // What is on its way may leave enough for one page more.
                        round.stopped = round.in_flight == 0 && !begins;
                        return Lane::Resting(reader, ended);
                    }
                    round.in_flight += 1;
                    self.read(reader, round)
                }
            };
        }
    }

    /// Whether it is the turn of a lane's reader to ask for a page.
    fn may_go_on(&self, reader: &RangeReader, begins: bool, round: &Round) -> bool {
        let first = round.index == 0;
        // The first lane's pieces are handed on before it reads on.
        let is_much = round.all >= WAITING_BYTES_MAX && round.waiting >= WAITING_BYTES_MAX / 2;
        let has_to_wait = if first { reader.has_pieces() } else { is_much };
        let free = first || round.in_flight < self.streams as u64;
        let turn = !begins || !self.closing || reader.files_known() >= round.next;
        !has_to_wait && free && turn && !round.stopped
    }

    /// Asks for the next page of a range.
    fn read(&mut self, mut reader: Box<RangeReader>, round: &Round) -> Lane<'f> {
        let (source, rules, weight) = (self.source, self.rules, reader.weight());
        // No range is left, but streams are: what is behind the next few pages becomes one.
        if self.ahead.is_empty()
            && round.next == 0
            && round.in_flight < self.streams as u64
            && self.lanes.len() < self.streams.saturating_mul(WAITING_LANES_MAX)
            && round.all < WAITING_BYTES_MAX / 2
            && let Some(behind) = reader.split(self.prefix_len)
        {
            self.lanes.insert(round.index, Lane::Resting(Box::new(behind), None));
        }
        let reading = Box::pin(async move {
            let result = source.read(&mut reader, &rules).await;
            (reader, result)
        });
        Lane::Reading(reading, weight)
    }

    /// Once the longest range that is left takes about as long as all others on all streams, all become lanes: it must
    /// not be begun last.
    fn close(&mut self) {
        if self.closing || self.streams < 2 {
            return;
        }
        let files = self.ahead.iter().map(RangeReader::files_known);
        let (longest, all) = files.fold((0, 0_u64), |(longest, all), it| (longest.max(it), all.saturating_add(it)));
        if all <= longest.saturating_mul(self.streams as u64) {
            self.closing = true;
            self.lanes.extend(self.ahead.drain(..).map(|reader| Lane::Resting(Box::new(reader), None)));
        }
    }

    /// When closing: how many files the longest range has that is not begun; 0 for none.
    fn longest_left(&self) -> u64 {
        let waiting = self.lanes.iter().skip(1).filter_map(|lane| match lane {
            Lane::Resting(reader, None) if self.closing && reader.is_fresh() => Some(reader.files_known().max(1)),
            _ => None,
        });
        waiting.max().unwrap_or(0)
    }

    /// What the first lane has.
    fn hand_on(&mut self, stopped: bool) -> Option<Next> {
        let Some(Lane::Resting(reader, ended)) = self.lanes.front_mut() else { return None };
        if reader.has_pieces() {
            let pieces = reader.take_pieces();
            if let Err(error) = self.watch.join(&reader.watch) {
                return Some(Next::Failed(error));
            }
            let begins = if std::mem::take(&mut self.fresh) { reader.begins() } else { Begins::Leaf };
            return Some(Next::Pieces { pieces, begins });
        }
        match ended.take() {
            Some(Err(error)) => Some(Next::Failed(error)),
            Some(Ok(())) => {
                self.lanes.pop_front();
                self.fresh = true;
                if self.lanes.is_empty() && self.ahead.is_empty() {
                    return Some(Next::End);
                }
                // The next lane is the first now; it is looked at at once.
                Some(Next::Pieces { pieces: Vec::new(), begins: Begins::Leaf })
            }
            None => stopped.then_some(Next::Stopped),
        }
    }

    /// Stops here: what the first lane has read and not handed on, if it stands where handing on stopped.
    pub fn stop(self) -> Option<Rest> {
        let fresh = self.fresh;
        match self.lanes.into_iter().next() {
            Some(Lane::Resting(reader, _)) => {
                let rest = reader.stop();
                let begins = if fresh { rest.begins } else { Begins::Leaf };
                Some(Rest { begins, ..rest })
            }
            _ => None,
        }
    }
}
