//! Which batches a feed has, and where: the part of the document that a swap appends to.

use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    snapshot::{
        ContentHash,
        codec::{DecodeError, Piece, Reader, Writer},
    },
    state::embedded::{decode_bytes, encode_bytes},
    time::Timestamp,
};

/// The most batches of one list.
pub const LIST_BATCHES_MAX: usize = 1_024;

/// A batch as a list names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRef {
    /// The hash of its bytes.
    pub hash: ContentHash,
    /// The position of its first change.
    pub first: u64,
    /// How many changes are in it; at least 1.
    pub count: u64,
    /// When it was appended.
    pub found_at: Timestamp,
}

impl BatchRef {
    /// The position behind its last change.
    pub const fn next(&self) -> u64 {
        self.first.saturating_add(self.count)
    }

    /// The name of its blob.
    pub fn name(&self) -> String {
        batch_name(self.hash)
    }
}

/// The name of a batch's blob.
pub fn batch_name(hash: ContentHash) -> String {
    format!("feed/{hash}")
}

/// A list of batches in a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListRef {
    /// The blob with the list.
    pub blob: String,
    /// The position of the first change in it.
    pub first: u64,
    /// The position behind the last change in it.
    pub next: u64,
    /// When its newest batch was appended.
    pub found_at: Timestamp,
}

/// The feed of a sync, as the document holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Feed {
    /// The position that the next change gets.
    pub next: u64,
    /// Older batches: lists of them in blobs, in order.
    pub lists: Vec<ListRef>,
    /// The latest batches: an encoded list, base64.
    pub tail: Option<String>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { next: 1, lists: Vec::new(), tail: None }
    }
}

impl Feed {
    /// The position of the newest change there ever was; 0: there was none.
    pub const fn last(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// The latest batches.
    ///
    /// # Errors
    /// [`crate::ErrorKind::StateCorrupt`] for what [`encode_list`] did not write.
    pub fn tail(&self) -> Result<Vec<BatchRef>, Error> {
        let Some(tail) = &self.tail else { return Ok(Vec::new()) };
        let batches = decode_bytes(tail).and_then(|bytes| decode_list(&bytes));
        batches.map_err(|error| error.into_error("feed.tail"))
    }

    /// Puts these in place of the latest batches.
    pub fn set_tail(&mut self, batches: &[BatchRef]) {
        self.tail = (!batches.is_empty()).then(|| encode_bytes(&encode_list(batches)));
    }

    /// The position of the oldest change that is still there; [`Self::next`] where none is.
    ///
    /// # Errors
    /// As [`Self::tail`].
    pub fn first(&self) -> Result<u64, Error> {
        match self.lists.first() {
            Some(list) => Ok(list.first),
            None => Ok(self.tail()?.first().map_or(self.next, |batch| batch.first)),
        }
    }
}

/// Encodes a list of consecutive batches (`b2L` 1): their number, the position of the first change, then for each batch
/// the 32 bytes of its hash, its number of changes, and when it was appended as the signed difference in milliseconds
/// from the batch before (the first: from 1970).
pub fn encode_list(batches: &[BatchRef]) -> Vec<u8> {
    let mut out = Writer::new(Piece::Batches);
    out.number(batches.len() as u64);
    out.number(batches.first().map_or(1, |batch| batch.first));
    let mut before = 0_i64;
    for batch in batches {
        out.raw(&batch.hash.0);
        out.number(batch.count);
        out.signed(batch.found_at.as_millis().wrapping_sub(before));
        before = batch.found_at.as_millis();
    }
    out.finish()
}

/// Decodes a list of batches.
///
/// # Errors
/// For any bytes that [`encode_list`] cannot have written.
pub fn decode_list(bytes: &[u8]) -> Result<Vec<BatchRef>, DecodeError> {
    let mut input = Reader::new(bytes, Piece::Batches, 0)?;
    let count = input.number()?;
    let mut first = input.number()?;
    let mut batches = Vec::with_capacity(input.at_most(count, 34));
    let mut before = 0_i64;
    for _ in 0..count {
        let hash = ContentHash(input.array()?);
        let count = input.number()?;
        before = before.wrapping_add(input.signed()?);
        batches.push(BatchRef { hash, first, count, found_at: Timestamp::from_millis(before) });
        first = first.checked_add(count).filter(|_| count > 0).ok_or(DecodeError::Overflow)?;
    }
    input.finish()?;
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::state::feed::*;

    proptest! {
        #[test]
        fn a_list_reads_as_it_was_written(
            list in proptest::collection::vec((any::<[u8; 32]>(), 1..5_000_u64, any::<i64>()), 0..9),
            mut first in 1..1_u64 << 60,
        ) {
            let mut batches = Vec::new();
            for (hash, count, at) in list {
                batches.push(BatchRef { hash: ContentHash(hash), first, count, found_at: Timestamp::from_millis(at) });
                first += count;
            }
            let bytes = encode_list(&batches);
            prop_assert_eq!(decode_list(&bytes).unwrap(), batches.clone());
            for end in 0..bytes.len() {
                prop_assert!(decode_list(&bytes[..end]).is_err());
            }
            let mut feed = Feed { next: first, ..Feed::default() };
            feed.set_tail(&batches);
            prop_assert_eq!(feed.tail().unwrap(), batches.clone());
            prop_assert_eq!(feed.first().unwrap(), batches.first().map_or(first, |batch| batch.first));
        }

        #[test]
        fn any_bytes_are_an_answer(bytes: Vec<u8>) {
            let _ = decode_list(&[b"b2L\x01".as_slice(), &bytes].concat());
        }
    }
}
