//! Files whose entries in the listing cannot be read.
//!
//! They are there, and nothing else is known of them: a file that the snapshot knows stays as it was known, and one
//! that it does not know is not taken before its entry can be read. Neither is a change.

use super::super::{listing::source::Source, step::Step};
use crate::{
    engine::previous::Base,
    entry::Entry,
    error::Error,
    snapshot::Known,
    store::{BlobStore, DocumentStore},
    time::Clock,
};

/// Of one segment of a listing: the files that stay as they were known, in the order of keys.
#[derive(Debug, Default)]
pub(super) struct Carried(Vec<Known>);

impl Carried {
    /// Takes what was known of an entry that cannot be read.
    pub(super) fn keep(&mut self, previous: Option<Known>) {
        self.0.extend(previous);
    }

    /// How many of `entries` have no place in the next snapshot, and whether the first is one of those.
    fn left_out(&self, entries: &[Entry]) -> (usize, bool) {
        let unreadable = entries.iter().filter(|entry| entry.is_unreadable()).count();
        let begins = entries
            .first()
            .is_some_and(|entry| entry.is_unreadable() && self.0.first().is_none_or(|known| known.key != entry.key));
        (unreadable.saturating_sub(self.0.len()), begins)
    }
}

impl<S: Source, B: BlobStore, D: DocumentStore, C: Clock> Step<'_, S, B, D, C> {
    /// Puts these into the next snapshot, one by one.
    fn push_entries(&mut self, entries: &[Entry], carried: &Carried) {
        let assembly = &mut self.job.next.assembly;
        let mut known = carried.0.iter().peekable();
        for entry in entries {
            if !entry.is_unreadable() {
                assembly.push_entry(entry.into());
            } else if let Some(known) = known.next_if(|known| known.key == entry.key) {
                assembly.push_known(known);
            }
        }
    }

    /// Puts the first entries of a segment into the next snapshot, one by one. Where one of them is left out, segments
    /// are cut as in a listing that does not show it: what begins with it belongs to the segment before.
    ///
    /// # Errors
    /// Of reading that segment.
    pub(super) async fn push_readable(
        &mut self,
        base: &mut Base,
        entries: &[Entry],
        carried: &Carried,
    ) -> Result<(), Error> {
        let (left_out, begins) = carried.left_out(entries);
        if begins && !self.job.place.realign {
            self.job.next.assembly.reopen_segment(&self.state, base, self.job.place.watch.order).await?;
        }
        self.job.place.realign |= left_out > 0;
        self.push_entries(entries, carried);
        Ok(())
    }
}
