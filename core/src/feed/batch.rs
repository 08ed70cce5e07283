//! Consecutive changes as one immutable blob.
//!
//! Format (`b2F` 1): the position of the first change, the number of changes, when they were appended in milliseconds
//! since 1970 (signed), the job as a text; then for each change a byte that says what it is, its key
//! ([`crate::snapshot::codec`]), its size, and its last modified as the signed difference in milliseconds from the
//! change before (the first: from 1970). The byte is 1 for created, 2 for updated, 3 for deleted, 4 for handed over
//! again; 16 is added where the ETag is an MD5 in small letters. Behind a created, updated or repeated file stands the
//! ETag: 16 bytes of an MD5, or a text. Behind an updated one stands what was known before: 8 bytes of its tag, its
//! size, and its last modified as the signed difference from the new one. Behind a deleted one stand the 8 bytes of its
//! tag.

use crate::{
    change::{Change, Found, Previous, change_id_prefix},
    entry::{Entry, EntryRef},
    mutation::{self, Mutation},
    snapshot::{
        EtagTag, Known, Md5,
        codec::{DecodeError, KEY_BYTES_MAX, KEYS_BYTES_MAX, Piece, Reader, Writer},
    },
    time::Timestamp,
};

/// The most changes of a batch.
pub const BATCH_CHANGES_MAX: usize = 4_096;
/// A batch ends once it is this long, encoded, in bytes; a last change may go beyond.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// A batch ends once its keys are this long together, in bytes: a reader has to hold them all.
const BATCH_KEYS_BYTES_MAX: usize = KEYS_BYTES_MAX - KEY_BYTES_MAX;

/// The longest id of a job, in bytes: each change that is read has its own copy.
pub const JOB_ID_BYTES_MAX: usize = 256;

const CREATED: u8 = 1;
const UPDATED: u8 = 2;
const DELETED: u8 = 3;
const AGAIN: u8 = 4;
/// Added to the kind where the ETag is 16 bytes of an MD5.
const MD5: u8 = 16;

/// A batch as it grows.
#[derive(Clone, Debug)]
pub struct Builder {
    body: Writer,
    before: Timestamp,
    count: usize,
    key_bytes: usize,
}

impl Default for Builder {
    fn default() -> Self {
        Self { body: Writer::body(), before: Timestamp::default(), count: 0, key_bytes: 0 }
    }
}

impl Builder {
    /// How many changes there are.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether the next change belongs into another batch.
    pub fn is_full(&self) -> bool {
        self.count >= BATCH_CHANGES_MAX || self.body.len() >= BATCH_BYTES_MAX || self.key_bytes >= BATCH_KEYS_BYTES_MAX
    }

    /// Appends a change.
    pub fn push(&mut self, found: &Found) {
        match found {
            Found::Appeared { entry, previous } => self.appeared(entry.into(), previous.as_ref()),
            Found::Again(entry) => self.version(AGAIN, entry.into()),
            Found::Vanished(known) => {
                self.head(DELETED, &known.key, known.size, known.last_modified);
                self.body.raw(&known.tag.0);
            }
        }
    }

    /// Appends a file that is new, or has another version than the previous one.
    pub fn appeared(&mut self, entry: EntryRef<'_>, previous: Option<&Previous>) {
        let Some(previous) = previous else { return self.version(CREATED, entry) };
        self.version(UPDATED, entry);
        self.body.raw(&previous.tag.0);
        self.body.number(previous.size);
        self.body.signed(difference(previous.last_modified, entry.last_modified));
    }

    /// Appends a file that is new and has the MD5 as its ETag.
    pub fn created_md5(&mut self, key: &str, md5: [u8; 16], size: u64, last_modified: Timestamp) {
        self.head(CREATED | MD5, key, size, last_modified);
        self.body.raw(&md5);
    }

    fn version(&mut self, kind: u8, entry: EntryRef<'_>) {
        let md5 = entry.etag.as_bytes().try_into().ok().and_then(Md5::of_hex).filter(|md5| md5.is_lower_case);
        self.head(kind | if md5.is_some() { MD5 } else { 0 }, entry.key, entry.size, entry.last_modified);
        match md5 {
            Some(md5) => {
                self.body.raw(&md5.first);
                self.body.raw(&md5.second);
            }
            None => self.body.text(entry.etag),
        }
    }

    fn head(&mut self, kind: u8, key: &str, size: u64, last_modified: Timestamp) {
        self.body.raw(&[kind]);
        self.body.key(key);
        self.body.number(size);
        self.body.signed(difference(last_modified, self.before));
        self.before = last_modified;
        self.count += 1;
        self.key_bytes += key.len();
    }

    /// The bytes to store.
    pub fn finish(self, first: u64, found_at: Timestamp, job_id: &str) -> Vec<u8> {
        let mut out = Writer::new(Piece::Batch);
        out.number(first);
        out.number(self.count as u64);
        out.signed(found_at.as_millis());
        out.text(job_id);
        out.raw(&self.body.finish());
        out.finish()
    }
}

fn difference(time: Timestamp, before: Timestamp) -> i64 {
    time.as_millis().wrapping_sub(before.as_millis())
}

fn sum(before: Timestamp, difference: i64) -> Timestamp {
    Timestamp::from_millis(before.as_millis().wrapping_add(difference))
}

/// Decodes the changes of a sync's batch.
///
/// # Errors
/// For any bytes that [`Builder::finish`] cannot have written, bounded in memory.
pub fn decode(bytes: &[u8], sync_id: &str) -> Result<Vec<Change>, DecodeError> {
    let mut input = Reader::new(bytes, Piece::Batch, KEYS_BYTES_MAX)?;
    let first = input.number()?;
    let count = input.number()?;
    if count > BATCH_CHANGES_MAX as u64 || first == 0 || first.checked_add(count).is_none() {
        return Err(DecodeError::Overflow);
    }
    let found_at = Timestamp::from_millis(input.signed()?);
    let job_id = input.text()?;
    if job_id.len() > JOB_ID_BYTES_MAX {
        return Err(DecodeError::Overflow);
    }
    let prefix = change_id_prefix(sync_id);
    let mut changes = Vec::with_capacity(input.at_most(count, 6));
    let mut before = Timestamp::default();
    for position in first..first + count {
        let found = decode_one(&mut input, &mut before)?;
        let counted_from = if mutation::is_on(Mutation::CountIdsInBatch) { first - 1 } else { 0 };
        let id = format!("{prefix}{}", position - counted_from);
        changes.push(found.at(position, id, found_at, &job_id));
    }
    input.finish()?;
    Ok(changes)
}

fn decode_one(input: &mut Reader<'_>, before: &mut Timestamp) -> Result<Found, DecodeError> {
    let [kind] = input.array()?;
    let key = input.key()?;
    let size = input.number()?;
    let last_modified = sum(*before, input.signed()?);
    *before = last_modified;
    if kind == DELETED {
        return Ok(Found::Vanished(Known { key, tag: EtagTag(input.array()?), size, last_modified }));
    }
    let etag = if kind & MD5 == 0 { input.text()? } else { hex::encode(input.array::<16>()?) };
    let entry = Entry { key, etag, size, last_modified };
    match kind & !MD5 {
        CREATED => Ok(Found::Appeared { entry, previous: None }),
        UPDATED => {
            let (tag, size) = (EtagTag(input.array()?), input.number()?);
            let previous = Previous { size, last_modified: sum(last_modified, input.signed()?), tag };
            Ok(Found::Appeared { entry, previous: Some(previous) })
        }
        AGAIN => Ok(Found::Again(entry)),
        _ => Err(DecodeError::Overflow),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::change::change_id;

    /// Changes of every kind.
    pub(crate) fn found() -> impl Strategy<Value = Found> {
        let etag = prop_oneof!["[0-9a-f]{32}", "[0-9A-F]{32}", "[0-9a-f-]{0,40}"];
        let version = (any::<u64>(), any::<i64>(), any::<[u8; 8]>());
        (0..4, "[ab/😀]{0,9}", etag, any::<u64>(), any::<i64>(), version).prop_map(
            |(kind, key, etag, size, time, (before_size, before_time, tag))| {
                let entry = Entry { key, etag, size, last_modified: Timestamp::from_millis(time) };
                let last_modified = Timestamp::from_millis(before_time);
                let previous = Previous { size: before_size, last_modified, tag: EtagTag(tag) };
                match kind {
                    0 => Found::Appeared { entry, previous: None },
                    1 => Found::Appeared { entry, previous: Some(previous) },
                    2 => Found::Again(entry),
                    _ => Found::Vanished(Known::from(&entry)),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn decode_after_finish_is_the_same(
            list in proptest::collection::vec(found(), 0..12),
            first in 1..u64::MAX - 12,
            at: i64,
        ) {
            let (at, mut builder) = (Timestamp::from_millis(at), Builder::default());
            list.iter().for_each(|found| builder.push(found));
            prop_assert_eq!(builder.len(), list.len());
            let bytes = builder.finish(first, at, "job_x");
            let changes: Vec<Change> = (first..)
                .zip(list)
                .map(|(position, found)| found.at(position, change_id("sync_1", position), at, "job_x"))
                .collect();
            prop_assert_eq!(decode(&bytes, "sync_1").unwrap(), changes);
            for end in 0..bytes.len() {
                prop_assert!(decode(&bytes[..end], "sync_1").is_err());
            }
        }

        #[test]
        fn any_bytes_are_an_answer(bytes: Vec<u8>) {
            let _ = decode(&[b"b2F\x01".as_slice(), &bytes].concat(), "sync_1");
        }
    }

    #[test]
    fn a_batch_of_the_longest_keys_can_be_read() {
        let mut builder = Builder::default();
        let mut count = 0;
        while !builder.is_full() {
            // All of it is shared with the key before, except the end.
            let key = format!("{}{count:05}", "x".repeat(KEY_BYTES_MAX - 5));
            let entry = Entry { key, etag: String::new(), size: 1, last_modified: Timestamp::default() };
            builder.push(&Found::Again(entry));
            count += 1;
        }
        assert!(count > 100);
        assert_eq!(decode(&builder.finish(1, Timestamp::default(), "job"), "sync_1").unwrap().len(), count);
    }
}
