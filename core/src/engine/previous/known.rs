//! Lists of known files that stand beside a snapshot: deletions that were found, and those that a job did not append to
//! the feed.
//!
//! Such a list may be as long as the bucket. It is kept in parts, each a blob, and read one part at a time.

use std::collections::VecDeque;

use crate::{
    entry::KeyOrder,
    error::Error,
    snapshot::Known,
    state::{
        State,
        document::{self, KnownPart},
    },
    store::{BlobStore, DocumentStore},
};

/// How many files parts hold that are not dealt with.
pub fn count(parts: &[KnownPart]) -> u64 {
    parts.iter().fold(0, |sum, part| sum.saturating_add(part.count.saturating_sub(part.skip)))
}

/// The parts without their first `dealt_with` files, of those that they do not skip already.
pub fn without_first(parts: Vec<KnownPart>, mut dealt_with: u64) -> Vec<KnownPart> {
    let mut left = Vec::new();
    for mut part in parts {
        let skipped = dealt_with.min(part.count.saturating_sub(part.skip));
        dealt_with -= skipped;
        part.skip += skipped;
        if part.skip < part.count {
            left.push(part);
        }
    }
    left
}

/// The files of a part that it does not skip.
///
/// # Errors
/// Of reading its blob; [`crate::ErrorKind::StateCorrupt`].
pub async fn read<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    part: &KnownPart,
) -> Result<Vec<Known>, Error> {
    let mut known = match &part.blob {
        Some(name) => state.read_segment(name).await?,
        None => {
            document::decode_known(part.tail.as_deref()).map_err(|error| error.into_error("a list of deletions"))?
        }
    };
    let skipped = usize::try_from(part.skip).unwrap_or(usize::MAX).min(known.len());
    known.drain(..skipped);
    Ok(known)
}

/// A list that is taken from the front.
#[derive(Debug, Default)]
pub struct KnownList {
    parts: VecDeque<KnownPart>,
    /// The first part, once it was read: what is not skipped of it.
    in_hand: VecDeque<Known>,
    /// The part that was taken last, if nothing of it was left.
    emptied: Option<KnownPart>,
}

impl KnownList {
    /// Of these parts.
    pub fn of(parts: Vec<KnownPart>) -> Self {
        Self { parts: parts.into(), ..Self::default() }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// What is left.
    pub fn into_parts(mut self) -> Vec<KnownPart> {
        // Parts are told apart by their first keys, and what is dealt with does not count.
        if let (Some(part), Some(first)) = (self.parts.front_mut(), self.in_hand.front()) {
            part.first_key.clone_from(&first.key);
        }
        self.parts.into()
    }

    /// The first key of the second part.
    pub fn next_part(&self) -> Option<String> {
        self.parts.get(1).map(|part| part.first_key.clone())
    }

    /// Whether there is a file before `end` (`None`: any).
    ///
    /// # Errors
    /// As [`read`].
    pub async fn has_before<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        end: Option<&str>,
        order: KeyOrder,
    ) -> Result<bool, Error> {
        self.load(state, end, order).await?;
        let first = self.in_hand.front();
        Ok(first.is_some_and(|known| end.is_none_or(|end| order.compare(&known.key, end).is_lt())))
    }

    /// Takes the files before `end` (`None`: all).
    ///
    /// # Errors
    /// As [`read`].
    pub async fn take_before<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        end: Option<&str>,
        order: KeyOrder,
    ) -> Result<Vec<Known>, Error> {
        let mut taken = Vec::new();
        self.emptied = None;
        while self.has_before(state, end, order).await? {
            while let Some(known) =
                self.in_hand.pop_front_if(|known| end.is_none_or(|end| order.compare(&known.key, end).is_lt()))
            {
                taken.push(known);
                if let Some(part) = self.parts.front_mut() {
                    part.skip += 1;
                }
            }
            self.drop_done();
        }
        Ok(taken)
    }

    /// Passes over the files before `end`, and reads at most one part for that.
    ///
    /// # Errors
    /// As [`read`].
    pub async fn skip_before<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        end: &str,
        order: KeyOrder,
    ) -> Result<(), Error> {
        // Whatever part is followed by one that begins before the end is before it as well.
        while self.parts.get(1).is_some_and(|next| order.compare(&next.first_key, end).is_le()) {
            self.parts.pop_front();
        }
        self.take_before(state, Some(end), order).await.map(|_| ())
    }

    /// Reads the first part, if it may have files before `end`.
    async fn load<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        end: Option<&str>,
        order: KeyOrder,
    ) -> Result<(), Error> {
        while self.in_hand.is_empty() {
            let Some(part) = self.parts.front() else { return Ok(()) };
            if end.is_some_and(|end| order.compare(&part.first_key, end).is_ge()) {
                return Ok(());
            }
            self.in_hand = read(state, part).await?.into();
            if self.in_hand.is_empty() {
                self.parts.pop_front();
            }
        }
        Ok(())
    }

    /// Gives back the last files of those that were taken last, all of one part.
    pub fn put_back(&mut self, known: Vec<Known>) {
        if known.is_empty() {
            return;
        }
        if let Some(part) = self.emptied.take() {
            // What was read of the next part is read again.
            self.parts.push_front(part);
            self.in_hand.clear();
        }
        if let Some(part) = self.parts.front_mut() {
            part.skip = part.skip.saturating_sub(known.len() as u64);
        }
        known.into_iter().rev().for_each(|known| self.in_hand.push_front(known));
    }

    fn drop_done(&mut self) {
        if self.in_hand.is_empty()
            && let Some(part) = self.parts.pop_front_if(|part| part.skip >= part.count)
        {
            self.emptied = Some(part);
        }
    }
}
