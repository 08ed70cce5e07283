//! Changes as they are noted before they are delivered.
//!
//! Format (`b2C` 1): the number of changes, then for each one byte for its kind (1 created, 2 updated, 3 deleted, 4 handed
//! over again), its key ([`super::codec`]), its size, its last modified as the signed difference in milliseconds from the
//! change before (the first: from 1970), and the ETag as a text, or for a deletion the 8 bytes of its [`EtagTag`]; for the
//! kind 4 the job as a text behind that.

use super::{
    EtagTag, Known,
    codec::{DecodeError, LIST_KEYS_BYTES_MAX, Piece, Reader, Writer},
};
use crate::{entry::Entry, sink::ChangeKind, time::Timestamp};

/// What a change is made of: [`crate::sink::Change`] without its id, which follows from this and the sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noted {
    /// The listing shows a key that was not known, or another version of one that was.
    Appeared(ChangeKind, Entry),
    /// A key that was known is gone.
    Vanished(Known),
    /// A key that is as before is handed over again.
    Resynced {
        /// What is listed.
        entry: Entry,
        /// The job that was asked to.
        job_id: String,
    },
}

/// Encodes changes.
pub fn encode(changes: &[Noted]) -> Vec<u8> {
    let mut out = Writer::new(Piece::Changes);
    out.number(changes.len() as u64);
    let mut before = Timestamp::default();
    let mut head = |out: &mut Writer, kind: u8, key: &str, size: u64, time: Timestamp| {
        out.raw(&[kind]);
        out.key(key);
        out.number(size);
        out.signed(time.as_millis().wrapping_sub(before.as_millis()));
        before = time;
    };
    for change in changes {
        match change {
            Noted::Appeared(kind, entry) => {
                let kind = if *kind == ChangeKind::Created { 1 } else { 2 };
                head(&mut out, kind, &entry.key, entry.size, entry.last_modified);
                out.text(&entry.etag);
            }
            Noted::Resynced { entry, job_id } => {
                head(&mut out, 4, &entry.key, entry.size, entry.last_modified);
                out.text(&entry.etag);
                out.text(job_id);
            }
            Noted::Vanished(known) => {
                head(&mut out, 3, &known.key, known.size, known.last_modified);
                out.raw(&known.tag.0);
            }
        }
    }
    out.finish()
}

/// Decodes changes.
///
/// # Errors
/// For any bytes that [`encode`] cannot have written, bounded in memory.
pub fn decode(bytes: &[u8]) -> Result<Vec<Noted>, DecodeError> {
    let mut input = Reader::new(bytes, Piece::Changes, LIST_KEYS_BYTES_MAX)?;
    let count = input.number()?;
    let mut changes = Vec::with_capacity(input.at_most(count, 6));
    let mut before = 0i64;
    for _ in 0..count {
        let [kind] = input.array()?;
        let key = input.key()?;
        let size = input.number()?;
        before = before.wrapping_add(input.signed()?);
        let last_modified = Timestamp::from_millis(before);
        changes.push(match kind {
            1 => Noted::Appeared(ChangeKind::Created, Entry { key, etag: input.text()?, size, last_modified }),
            2 => Noted::Appeared(ChangeKind::Updated, Entry { key, etag: input.text()?, size, last_modified }),
            3 => Noted::Vanished(Known { key, tag: EtagTag(input.array()?), size, last_modified }),
            4 => {
                let entry = Entry { key, etag: input.text()?, size, last_modified };
                Noted::Resynced { entry, job_id: input.text()? }
            }
            _ => return Err(DecodeError::Overflow),
        });
    }
    input.finish()?;
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decode_after_encode_is_the_same(
            list in proptest::collection::vec((0..4, "[ab/😀]{0,9}", "[0-9a-f-]{0,40}", any::<u64>(), any::<i64>()), 0..12),
        ) {
            let changes: Vec<_> = list
                .into_iter()
                .map(|(kind, key, etag, size, time)| {
                    let entry = Entry { key, etag, size, last_modified: Timestamp::from_millis(time) };
                    match kind {
                        0 => Noted::Appeared(ChangeKind::Created, entry),
                        1 => Noted::Appeared(ChangeKind::Updated, entry),
                        2 => Noted::Resynced { entry, job_id: "job_x".to_owned() },
                        _ => Noted::Vanished(Known::from(&entry)),
                    }
                })
                .collect();
            let bytes = encode(&changes);
            prop_assert_eq!(decode(&bytes).unwrap(), changes);
            for end in 0..bytes.len() {
                prop_assert!(decode(&bytes[..end]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_an_answer(bytes: Vec<u8>) {
            let _ = decode(&[b"b2C\x01".as_slice(), &bytes].concat());
        }
    }
}
