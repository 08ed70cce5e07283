//! The suites against what the core itself brings, and against implementations that break a rule: a suite that lets
//! those pass is worth nothing.

use pollster::block_on;

use super::{
    blobs::blob_conformance,
    documents::document_conformance,
    sink::{ReadableSink, sink_conformance},
    *,
};
use crate::{
    change::{Change, ChangeKind},
    entry::Entry,
    sink::{Delivery, MemorySink, Sink},
    store::{BlobStore, Document, DocumentStore, MemoryBlobs, MemoryDocuments, Swapped},
};

#[test]
fn memory_conforms() {
    block_on(blob_conformance(async || MemoryBlobs::default())).unwrap();
    block_on(document_conformance(async || MemoryDocuments::default())).unwrap();
    block_on(sink_conformance(async || MemorySink::default())).unwrap();
}

/// Which rule a store breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Defect {
    EmptyIsNothing,
    NamesFoldCase,
    DeleteTakesAllBelow,
    CutsLargeValues,
    ConflictsAreLost,
    RevisionsBeginAgain,
    RevisionsStay,
    CreationOverwrites,
    ConflictWrites,
}

struct DefectiveBlobs(Defect, MemoryBlobs);

impl DefectiveBlobs {
    fn name(&self, name: &str) -> String {
        if self.0 == Defect::NamesFoldCase { name.to_lowercase() } else { name.to_owned() }
    }
}

impl BlobStore for DefectiveBlobs {
    async fn get(&self, name: &str) -> Result<Option<Bytes>, Error> {
        let value = self.1.get(&self.name(name)).await?;
        Ok(value.filter(|value| self.0 != Defect::EmptyIsNothing || !value.is_empty()))
    }

    async fn put(&self, name: &str, mut value: Bytes) -> Result<(), Error> {
        if self.0 == Defect::CutsLargeValues {
            value.truncate(1 << 20);
        }
        self.1.put(&self.name(name), value).await
    }

    async fn delete(&self, name: &str) -> Result<(), Error> {
        if self.0 == Defect::DeleteTakesAllBelow {
            for other in self.1.names().iter().filter(|other| other.starts_with(name)) {
                self.1.delete(other).await?;
            }
        }
        self.1.delete(&self.name(name)).await
    }
}

#[test]
fn defective_blobs_are_told() {
    for (defect, told) in [
        (Defect::EmptyIsNothing, "values are kept: get segment/"),
        (Defect::NamesFoldCase, "names are apart: get segment/a"),
        (Defect::DeleteTakesAllBelow, "names are apart: get segment/ after deleting segment"),
        (Defect::CutsLargeValues, "a large value is kept: get: got 1048576 bytes with the hash"),
    ] {
        let broken = block_on(blob_conformance(async || DefectiveBlobs(defect, MemoryBlobs::default()))).unwrap_err();
        assert!(broken.starts_with(told), "{defect:?}: {broken}");
    }
}

struct DefectiveDocuments(Defect, MemoryDocuments);

impl DocumentStore for DefectiveDocuments {
    async fn load(&self, name: &str) -> Result<Option<Document>, Error> {
        let found = self.1.load(name).await?;
        Ok(found.filter(|found| self.0 != Defect::EmptyIsNothing || !found.value.is_empty()))
    }

    async fn revision(&self, name: &str) -> Result<u64, Error> {
        // Of a deleted document, too.
        let deleted = if self.0 == Defect::RevisionsStay { 1 } else { 0 };
        Ok(self.1.load(name).await?.map_or(deleted, |found| found.revision))
    }

    async fn swap(&self, name: &str, expected: u64, value: Option<Bytes>) -> Result<Swapped, Error> {
        let current = self.1.load(name).await?.map_or(0, |found| found.revision);
        match self.0 {
            Defect::ConflictsAreLost => match self.1.swap(name, current, value).await? {
                Swapped::Done(_) if current != expected => Ok(Swapped::Conflict),
                swapped => Ok(swapped),
            },
            Defect::CreationOverwrites if expected == 0 => self.1.swap(name, current, value).await,
            Defect::ConflictWrites if current > 0 => match self.1.swap(name, expected, value.clone()).await? {
                Swapped::Conflict => self.1.swap(name, current, value).await.map(|_| Swapped::Conflict),
                done => Ok(done),
            },
            // Counts from the document that is there, and so from nothing after a deletion.
            Defect::RevisionsBeginAgain => match self.1.swap(name, expected, value).await? {
                Swapped::Done(_) => Ok(Swapped::Done(expected + 1)),
                Swapped::Conflict => Ok(Swapped::Conflict),
            },
            _ => self.1.swap(name, expected, value).await,
        }
    }
}

#[test]
fn defective_documents_are_told() {
    for (defect, told) in [
        (Defect::EmptyIsNothing, "values are kept: the revision"),
        (Defect::ConflictsAreLost, "what is missing is none: a deletion of nothing"),
        (Defect::ConflictWrites, "another revision is a conflict: nothing was written"),
        (Defect::CreationOverwrites, "another revision is a conflict: an update from 0"),
        (Defect::RevisionsStay, "what is missing is none: its revision"),
        (Defect::RevisionsBeginAgain, "a deletion leaves the revision: a new creation counts on"),
    ] {
        let new = async || DefectiveDocuments(defect, MemoryDocuments::default());
        let broken = block_on(document_conformance(new)).unwrap_err();
        assert!(broken.starts_with(told), "{defect:?}: {broken}");
    }
}

/// Awaits between its look and its write: what a store without compare-and-swap does.
#[derive(Default)]
struct LookThenWrite(MemoryDocuments);

impl DocumentStore for LookThenWrite {
    async fn load(&self, name: &str) -> Result<Option<Document>, Error> {
        self.0.load(name).await
    }

    async fn swap(&self, name: &str, expected: u64, value: Option<Bytes>) -> Result<Swapped, Error> {
        let current = self.0.load(name).await?.map_or(0, |found| found.revision);
        let mut waited = false;
        poll_fn(|context| {
            context.waker().wake_by_ref();
            if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        if current != expected {
            return Ok(Swapped::Conflict);
        }
        let current = self.0.load(name).await?.map_or(0, |found| found.revision);
        self.0.swap(name, current, value).await
    }
}

#[test]
fn a_race_that_both_win_is_told() {
    let broken = block_on(document_conformance(async || LookThenWrite::default())).unwrap_err();
    assert!(broken.starts_with("one of several creations wins: one wins, and the others are told so"), "{broken}");
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum SinkDefect {
    OneAnswerForAll,
    ReversesTheBatch,
    IgnoresDeletions,
    RefusesUnknownKeys,
    EachVersionOnce,
    KeepsTheNewestDate,
    SkipsWholeBatches,
    WantsTheFirstPosition,
    AppliesAcrossRepetition,
    IgnoresRepeatedDeletions,
}

struct DefectiveSink(SinkDefect, MemorySink);

impl DefectiveSink {
    /// The changes that it does not leave out.
    fn taken(&self, changes: &[Change]) -> Vec<Change> {
        let seen = self.1.deliveries();
        let last = seen.iter().map(|change| change.position).max().unwrap_or_default();
        let mut changes = changes.to_vec();
        match self.0 {
            SinkDefect::OneAnswerForAll | SinkDefect::RefusesUnknownKeys | SinkDefect::WantsTheFirstPosition => {}
            SinkDefect::ReversesTheBatch => changes.reverse(),
            SinkDefect::IgnoresDeletions => changes.retain(|change| change.kind != ChangeKind::Deleted),
            // Remembering versions is not harmless: a file that changes back has the same version again.
            SinkDefect::EachVersionOnce => {
                changes.retain(|change| !seen.iter().any(|seen| seen.kind == change.kind && seen.entry == change.entry))
            }
            // Nor is looking at dates: an older version may be restored.
            SinkDefect::KeepsTheNewestDate => {
                let current = self.1.current();
                let is_older = |change: &Change| {
                    let has = current.get(&change.entry.key);
                    has.is_some_and(|has| change.entry.last_modified < has.last_modified)
                };
                changes.retain(|change| change.kind == ChangeKind::Deleted || !is_older(change));
            }
            // What begins with a repetition may end with something new.
            SinkDefect::SkipsWholeBatches => {
                if changes.first().is_some_and(|change| change.position <= last) {
                    changes.clear();
                }
            }
            // Of a repetition it takes the first change again, and nothing else that it has.
            SinkDefect::AppliesAcrossRepetition => {
                let first = changes.first().map(|change| change.position);
                changes.retain(|change| change.position > last || Some(change.position) == first);
            }
            // What it has applied is undone by what comes again, unless all of that does.
            SinkDefect::IgnoresRepeatedDeletions => {
                changes.retain(|change| change.position > last || change.kind != ChangeKind::Deleted);
            }
        }
        changes
    }
}

impl Sink for DefectiveSink {
    fn batch_max(&self) -> usize {
        self.1.batch_max()
    }

    async fn deliver(&self, changes: &[Change]) -> Result<Vec<Delivery>, Error> {
        let mut answers = vec![Delivery::Delivered; changes.len()];
        match self.0 {
            SinkDefect::OneAnswerForAll => answers.truncate(1),
            SinkDefect::RefusesUnknownKeys => {
                let known = self.1.current();
                for (change, answer) in changes.iter().zip(&mut answers) {
                    if change.kind == ChangeKind::Updated && !known.contains_key(&change.entry.key) {
                        *answer = Delivery::Refused("unknown".to_owned());
                    }
                }
            }
            SinkDefect::WantsTheFirstPosition => {
                let next = self.1.deliveries().iter().map(|change| change.position + 1).max().unwrap_or(1);
                if changes.first().is_some_and(|change| change.position > next) {
                    return Err(Error::new(ErrorKind::Sink, "There is a gap.", ""));
                }
            }
            _ => {}
        }
        self.1.deliver(&self.taken(changes)).await?;
        Ok(answers)
    }
}

impl ReadableSink for DefectiveSink {
    async fn current(&self) -> Result<Vec<Entry>, Error> {
        ReadableSink::current(&self.1).await
    }
}

#[test]
fn defective_sinks_are_told() {
    for (defect, told) in [
        (SinkDefect::OneAnswerForAll, "each change has its answer: 2 changes"),
        (SinkDefect::ReversesTheBatch, "a batch is applied in its order"),
        (SinkDefect::IgnoresDeletions, "changes are seen: updated and deleted"),
        (SinkDefect::RefusesUnknownKeys, "a batch is applied in its order: one answer for each change"),
        (SinkDefect::EachVersionOnce, "repetition may begin and end anywhere"),
        (SinkDefect::KeepsTheNewestDate, "changes are seen: created again, and back to an older version"),
        (SinkDefect::SkipsWholeBatches, "repetition is harmless: a part, then the whole"),
        (SinkDefect::WantsTheFirstPosition, "a feed may begin anywhere"),
        (SinkDefect::AppliesAcrossRepetition, "repetition"),
        (SinkDefect::IgnoresRepeatedDeletions, "repetition"),
    ] {
        let broken = block_on(sink_conformance(async || DefectiveSink(defect, MemorySink::default()))).unwrap_err();
        assert!(broken.starts_with(told), "{defect:?}: {broken}");
    }
}

/// Applies each position once, as one that stores its position with what it has.
#[derive(Default)]
struct OncePerPosition(MemorySink);

impl Sink for OncePerPosition {
    fn batch_max(&self) -> usize {
        7
    }

    async fn deliver(&self, changes: &[Change]) -> Result<Vec<Delivery>, Error> {
        let last = self.0.deliveries().last().map_or(0, |change| change.position);
        let new: Vec<Change> = changes.iter().filter(|change| change.position > last).cloned().collect();
        self.0.deliver(&new).await?;
        Ok(vec![Delivery::Delivered; changes.len()])
    }
}

impl ReadableSink for OncePerPosition {
    async fn current(&self) -> Result<Vec<Entry>, Error> {
        ReadableSink::current(&self.0).await
    }
}

#[test]
fn a_sink_that_applies_each_position_once_conforms() {
    block_on(sink_conformance(async || OncePerPosition::default())).unwrap();
}
