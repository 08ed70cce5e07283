//! Sinks that take, refuse, are slow, fail or kill, and remember what came to them.

use std::{
    cell::{Cell, RefCell},
    future::pending,
    rc::Rc,
};

use super::*;
use crate::catalogue::{CatalogueTarget, MemoryCatalogue, ObjectPage, ObjectQuery, Objects};
use b2sync_core::{
    change::Change,
    sink::{Delivery, MemorySink},
};

/// What a sink does with what it is offered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Manner {
    /// It takes everything.
    Takes,
    /// It takes everything, after this many milliseconds.
    Slow(u64),
    /// It says that it failed, and after how many milliseconds it wants to be asked again.
    Fails(Option<u64>),
    /// It never answers.
    Hangs,
    /// The instance that calls it is killed.
    Kills,
    /// It refuses some changes.
    Refuses(fn(&Change) -> bool),
    /// It answers for fewer changes than it was offered.
    Forgets,
}

/// One sink, and what came to it.
#[derive(Debug)]
pub(super) struct TestSink {
    pub(super) sink_id: String,
    pub(super) manner: Cell<Manner>,
    pub(super) batch_max: Cell<usize>,
    /// Every call: when, and with what.
    pub(super) offers: RefCell<Vec<(Timestamp, Vec<Change>)>>,
    /// What it took.
    pub(super) taken: MemorySink,
    /// What it took, in a catalogue.
    catalogue: MemoryCatalogue,
    /// Whether it refused anything. A catalogue never does, so [`Self::catalogue`] is none then.
    pub(super) has_refused: Cell<bool>,
    /// Whether it takes everything once it has refused something.
    pub(super) heals: Cell<bool>,
}

impl TestSink {
    pub(super) fn new(sink_id: &str) -> Self {
        Self {
            sink_id: sink_id.to_owned(),
            manner: Cell::new(Manner::Takes),
            batch_max: Cell::new(7),
            offers: RefCell::default(),
            taken: MemorySink::default(),
            catalogue: MemoryCatalogue::default(),
            has_refused: Cell::new(false),
            heals: Cell::new(false),
        }
    }

    /// The positions that it took, repetitions included.
    pub(super) fn positions(&self) -> Vec<u64> {
        self.taken.deliveries().iter().map(|change| change.position).collect()
    }

    /// When it was called.
    pub(super) fn called_at(&self) -> Vec<Timestamp> {
        self.offers.borrow().iter().map(|(at, _)| *at).collect()
    }

    /// The rows of its catalogue.
    pub(super) fn rows(&self) -> ObjectPage {
        let query = ObjectQuery {
            namespace_id: String::new(),
            bucket_id: "bkt".to_owned(),
            limit: u32::MAX,
            offset: 0,
            cursor: None,
            prefix: None,
            include_total: false,
        };
        poll_to_end(self.catalogue.list(&query)).unwrap().unwrap()
    }

    async fn offered(&self, inner: &Inner, changes: &[Change]) -> Result<Vec<Delivery>, Error> {
        self.offers.borrow_mut().push((inner.clock.now(), changes.to_vec()));
        let manner = self.manner.get();
        match manner {
            Manner::Slow(millis) => inner.sleep(millis).await,
            Manner::Fails(after) => {
                return Err(Error::new(ErrorKind::Sink, "The sink failed.", "Try again.").with_retry_after_ms(after));
            }
            Manner::Hangs => pending().await,
            Manner::Kills => kill().await,
            Manner::Takes | Manner::Refuses(_) | Manner::Forgets => {}
        }
        let refuses = |change: &Change| matches!(manner, Manner::Refuses(refuses) if refuses(change));
        let (refused, taken): (Vec<Change>, Vec<Change>) = changes.iter().cloned().partition(refuses);
        self.has_refused.set(self.has_refused.get() || !refused.is_empty());
        if self.heals.get() && !refused.is_empty() {
            self.manner.set(Manner::Takes);
        }
        self.taken.deliver(&taken).await?;
        let target = CatalogueTarget {
            bucket_id: "bkt".to_owned(),
            sync_id: SYNC.to_owned(),
            connection_id: String::new(),
            source_bucket: String::new(),
        };
        self.catalogue.sink("", target, &inner.clock).deliver(&taken).await?;
        let answer =
            |change| if refuses(change) { Delivery::Refused("no room".to_owned()) } else { Delivery::Delivered };
        let mut answers: Vec<Delivery> = changes.iter().map(answer).collect();
        if matches!(manner, Manner::Forgets) {
            answers.pop();
        }
        Ok(answers)
    }
}

/// A [`TestSink`] as the pump sees it.
pub(super) struct SinkSeam {
    inner: Rc<Inner>,
    sink: Rc<TestSink>,
}

impl SinkSeam {
    pub(super) fn new(inner: &Rc<Inner>, sink: &Rc<TestSink>) -> Self {
        Self { inner: Rc::clone(inner), sink: Rc::clone(sink) }
    }
}

impl Sink for SinkSeam {
    fn batch_max(&self) -> usize {
        self.sink.batch_max.get()
    }

    async fn deliver(&self, changes: &[Change]) -> Result<Vec<Delivery>, Error> {
        self.inner.effect(async || self.sink.offered(&self.inner, changes).await).await
    }
}
