//! The snapshot that a listing is compared with, read as little as possible.

use std::collections::VecDeque;

use super::{
    source::ListingWatch,
    state::{State, segment_name},
};
use crate::{
    error::Error,
    snapshot::{ContentHash, Known, index::SegmentRef, root::Root},
    store::{BlobStore, DocumentStore},
};

/// Walks through a snapshot from its first key to its last.
#[derive(Debug, Default)]
pub struct Base {
    segments: Vec<SegmentRef>,
    /// The first segment that was neither read nor passed over.
    next: usize,
    /// Of the segment before it: what is not dealt with yet.
    in_hand: VecDeque<Known>,
}

impl Base {
    /// Stands before the first key that is not `covered_to` yet.
    ///
    /// # Errors
    /// Of reading the index, and of the one segment that `covered_to` lies inside of.
    pub async fn open<B: BlobStore, D: DocumentStore>(
        state: &State<'_, B, D>,
        root: &Root,
        covered_to: Option<&str>,
        watch: &mut ListingWatch,
    ) -> Result<Self, Error> {
        let segments = match &root.index {
            Some(name) => state.read_index(name).await?,
            None => Vec::new(),
        };
        let mut base = Self { segments, ..Self::default() };
        if let Some(covered_to) = covered_to {
            base.next = base.segments.partition_point(|segment| watch.compare(&segment.first_key, covered_to).is_lt());
            if base.next > 0 && base.segments.get(base.next).is_none_or(|segment| segment.first_key != covered_to) {
                base.next -= 1;
                base.read_next(state).await?;
                while base.in_hand.pop_front_if(|known| watch.compare(&known.key, covered_to).is_lt()).is_some() {}
            }
        }
        Ok(base)
    }

    /// All that is not dealt with: entries, and the segments behind them.
    pub fn rest(self) -> (Vec<Known>, Vec<SegmentRef>) {
        let segments = self.segments.get(self.next..).unwrap_or_default().to_vec();
        (self.in_hand.into(), segments)
    }

    /// All segments of the snapshot.
    pub fn segments(&self) -> &[SegmentRef] {
        &self.segments
    }

    /// Passes over a segment whose content is that of `hash`, without reading it; `false` when that is not what comes
    /// next. `first_key` is the listing's first key in the segment.
    ///
    /// # Errors
    /// Of reading a segment that lies wholly before it; what is in it is left in hand.
    pub async fn skip_equal<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        hash: ContentHash,
        first_key: &str,
        watch: &mut ListingWatch,
    ) -> Result<bool, Error> {
        if !self.in_hand.is_empty() {
            // The segment before reached into this one's range: its rest belongs here.
            return Ok(false);
        }
        // Segments that lie wholly before the one that is looked for hold nothing but keys that are gone.
        while let Some(after) = self.segments.get(self.next + 1) {
            if watch.compare(&after.first_key, first_key).is_gt() {
                break;
            }
            self.read_next(state).await?;
        }
        let equal = self.segments.get(self.next).is_some_and(|segment| segment.hash == hash);
        if equal {
            self.next += 1;
        }
        Ok(equal)
    }

    /// Takes everything that comes before `end`; `None`: everything.
    ///
    /// # Errors
    /// Of reading the segments it is in.
    pub async fn take_before<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        end: Option<&str>,
        watch: &mut ListingWatch,
    ) -> Result<Vec<Known>, Error> {
        let Some(end) = end else {
            while self.next < self.segments.len() {
                self.read_next(state).await?;
            }
            return Ok(self.in_hand.drain(..).collect());
        };
        while self.segments.get(self.next).is_some_and(|segment| watch.compare(&segment.first_key, end).is_lt()) {
            self.read_next(state).await?;
        }
        let mut taken = Vec::new();
        while let Some(known) = self.in_hand.pop_front_if(|known| watch.compare(&known.key, end).is_lt()) {
            taken.push(known);
        }
        Ok(taken)
    }

    async fn read_next<B: BlobStore, D: DocumentStore>(&mut self, state: &State<'_, B, D>) -> Result<(), Error> {
        if let Some(segment) = self.segments.get(self.next) {
            self.in_hand.extend(state.read_segment(&segment_name(segment.hash)).await?);
            self.next += 1;
        }
        Ok(())
    }
}
