//! Dead letters: changes that a sink refused [`super::DELIVERY_ATTEMPTS_MAX`] times.
//!
//! A sink keeps them in its own document ([`super::SinkRecord`]), at most one for each key, so that the swap that moves
//! its cursor past a refused change is the one that keeps the letter.
//!
//! It deliberately does not deliver anything, and does not decide how often a change is offered.
//!
//! # Invariants
//! - A letter goes only when its change, or a newer one of its key, was delivered, or a newer one was refused and takes
//!   its place. When the limit is reached, [`DeadLetters::refuse`] is an error and changes nothing: no letter is
//!   dropped.
//! - What is encoded fits a row of 2 MB.

use std::collections::BTreeMap;

use b2sync_core::{
    change::{Change, ChangeKind, Previous},
    entry::Entry,
    error::{Error, ErrorKind, quoted},
    snapshot::EtagTag,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// The most letters of a sink.
pub const DEAD_LETTERS_MAX: usize = 1_000;
/// The most bytes of all letters, encoded; names may be long. A row holds 2 MB; what is left over is for
/// [`LETTER_GROWTH_MAX`] of each letter, and for the frame.
pub const DEAD_LETTERS_BYTES_MAX: usize = 1_500_000;
/// The longest reason that is kept, in characters.
pub const REASON_CHARS_MAX: usize = 1_000;
/// What a letter may grow by after it was taken in, in bytes: by its flags and the time of its return.
pub const LETTER_GROWTH_MAX: usize = 100;
/// What [`DeadLetter::error_type`] says of a change that the sink refused.
pub const ERROR_TYPE_REFUSED: &str = "delivery_refused";

/// A change that was not delivered. Stored, and crosses from the coordinator to the API: fields are only ever added,
/// each with a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// [`Change::position`].
    pub position: u64,
    /// [`Change::id`].
    pub change_id: String,
    /// What happened to the key.
    pub kind: ChangeKind,
    /// The whole key.
    pub key: String,
    /// Of the version that was not delivered; empty for a deletion.
    pub etag: String,
    /// In bytes.
    pub size: u64,
    /// Of that version.
    pub last_modified: Timestamp,
    /// [`Change::previous`].
    #[serde(default)]
    pub previous: Option<PreviousWire>,
    /// [`Change::again`].
    #[serde(default)]
    pub again: bool,
    /// [`Change::found_at`].
    pub found_at: Timestamp,
    /// [`Change::job_id`].
    pub job_id: String,
    /// Why, in the sink's words; at most [`REASON_CHARS_MAX`] characters.
    pub reason: String,
    /// What kind of failure: [`ERROR_TYPE_REFUSED`]. Users filter by it.
    pub error_type: String,
    /// How often it was offered, in all.
    pub attempts: u32,
    /// When it was refused for good the first time.
    pub first_seen_at: Timestamp,
    /// When it was refused last.
    pub last_seen_at: Timestamp,
    /// The next delivery offers it again.
    #[serde(default)]
    pub requeued: bool,
    /// When it was sent back last.
    #[serde(default)]
    pub requeued_at: Option<Timestamp>,
    /// A user gave it up. It is offered again only if it is sent back all the same.
    #[serde(default)]
    pub marked_failed: bool,
}

impl DeadLetter {
    /// `dlq_` and the digits of the change's id.
    pub fn dlq_id(&self) -> String {
        format!("dlq_{}", self.change_id.strip_prefix("chg_").unwrap_or(&self.change_id))
    }

    /// The change, to be delivered under the id that it had.
    pub fn change(&self) -> Change {
        Change {
            position: self.position,
            id: self.change_id.clone(),
            kind: self.kind,
            previous: self.previous.map(Into::into),
            again: self.again,
            found_at: self.found_at,
            job_id: self.job_id.clone(),
            entry: Entry {
                key: self.key.clone(),
                etag: self.etag.clone(),
                size: self.size,
                last_modified: self.last_modified,
            },
        }
    }

    /// What it takes in the document, in bytes.
    fn encoded_bytes(&self) -> Result<usize, Error> {
        Ok(serde_json::to_vec(self).map_err(unencodable)?.len() + 1)
    }
}

/// [`Previous`] as it is stored and crosses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousWire {
    /// In bytes.
    pub size: u64,
    /// As the listing showed it then.
    pub last_modified: Timestamp,
    /// 8 bytes, as a number: those of [`EtagTag`], the first one highest.
    pub tag: u64,
}

impl From<Previous> for PreviousWire {
    fn from(previous: Previous) -> Self {
        let Previous { size, last_modified, tag } = previous;
        Self { size, last_modified, tag: u64::from_be_bytes(tag.0) }
    }
}

impl From<PreviousWire> for Previous {
    fn from(wire: PreviousWire) -> Self {
        Self { size: wire.size, last_modified: wire.last_modified, tag: EtagTag(wire.tag.to_be_bytes()) }
    }
}

/// All dead letters of a sink. Stored as a list, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<DeadLetter>", try_from = "Vec<DeadLetter>")]
pub struct DeadLetters {
    by_key: BTreeMap<String, DeadLetter>,
    /// The sum of [`DeadLetter::encoded_bytes`] when each was taken in or read.
    bytes: usize,
}

impl From<DeadLetters> for Vec<DeadLetter> {
    fn from(letters: DeadLetters) -> Self {
        letters.by_key.into_values().collect()
    }
}

impl TryFrom<Vec<DeadLetter>> for DeadLetters {
    type Error = Error;

    fn try_from(list: Vec<DeadLetter>) -> Result<Self, Error> {
        let mut letters = Self::default();
        for letter in list {
            letters.bytes += letter.encoded_bytes()?;
            if let Some(other) = letters.by_key.insert(letter.key.clone(), letter) {
                return Err(Error::new(
                    ErrorKind::StateCorrupt,
                    format!("There are two dead letters of {}.", quoted(&other.key)),
                    "Use the version of b2sync that wrote them, or delete the sync and create it again.",
                ));
            }
        }
        Ok(letters)
    }
}

impl DeadLetters {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The letter of a key.
    pub fn get(&self, key: &str) -> Option<&DeadLetter> {
        self.by_key.get(key)
    }

    /// In the order of their keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &DeadLetter> {
        self.by_key.values()
    }

    /// Takes in a change that was offered `attempts` times and refused each time, the last time for `reason`. It takes
    /// the place of an older letter of its key; refused again under the same id, it stays the same letter, its attempts
    /// add up and it is requeued no longer. A newer letter of the key stays: after a replay, its change is offered
    /// again later.
    ///
    /// # Errors
    /// [`ErrorKind::Sink`], permanent, when the limit is reached: nothing has changed, and the sink must stop before
    /// it.
    pub fn refuse(&mut self, change: &Change, reason: &str, attempts: u32, now: Timestamp) -> Result<(), Error> {
        let entry = &change.entry;
        let older = self.by_key.get(&entry.key);
        if older.is_some_and(|letter| letter.position > change.position) {
            return Ok(());
        }
        let same = older.filter(|letter| letter.change_id == change.id);
        let letter = DeadLetter {
            position: change.position,
            change_id: change.id.clone(),
            kind: change.kind,
            key: entry.key.clone(),
            etag: entry.etag.clone(),
            size: entry.size,
            last_modified: entry.last_modified,
            previous: change.previous.map(Into::into),
            again: change.again,
            found_at: change.found_at,
            job_id: change.job_id.clone(),
            reason: bounded(reason),
            error_type: ERROR_TYPE_REFUSED.to_owned(),
            attempts: same.map_or(0, |letter| letter.attempts).saturating_add(attempts),
            first_seen_at: same.map_or(now, |letter| letter.first_seen_at),
            last_seen_at: now,
            requeued: false,
            requeued_at: same.and_then(|letter| letter.requeued_at),
            marked_failed: same.is_some_and(|letter| letter.marked_failed),
        };
        let freed = older.map_or(Ok(0), DeadLetter::encoded_bytes)?;
        let bytes = self.bytes.saturating_sub(freed).saturating_add(letter.encoded_bytes()?);
        let count = self.by_key.len() + usize::from(older.is_none());
        // A letter that takes the place of another may always do so if it is no longer: what is too much already, which
        // only another version can have written, must not keep a letter from getting better.
        let grows = count > self.by_key.len() || bytes > self.bytes;
        if grows && (count > DEAD_LETTERS_MAX || bytes > DEAD_LETTERS_BYTES_MAX) {
            return Err(Error::new(
                ErrorKind::Sink,
                format!(
                    "The sink refused {} {attempts} times ({}), and the limit of dead letters is reached: there are \
                     {}.",
                    quoted(&entry.key),
                    letter.reason,
                    self.by_key.len(),
                ),
                "The sink stops here, so that no change is dropped. Look at the reasons (POST …/dlq), fix the cause, \
                 and send the letters back (POST …/dlq/requeue).",
            ));
        }
        self.bytes = bytes;
        self.by_key.insert(letter.key.clone(), letter);
        Ok(())
    }

    /// A change of this key was delivered: the letter goes if that was its own change or a newer one.
    pub fn delivered(&mut self, change: &Change) {
        if self.get(&change.entry.key).is_none_or(|letter| letter.position > change.position) {
            return;
        }
        if let Some(letter) = self.by_key.remove(&change.entry.key) {
            self.bytes = self.bytes.saturating_sub(letter.encoded_bytes().unwrap_or_default());
        }
    }

    /// The changes to offer again, by position.
    pub fn requeued(&self) -> Vec<Change> {
        let mut requeued: Vec<_> = self.iter().filter(|letter| letter.requeued).collect();
        requeued.sort_by_key(|letter| letter.position);
        requeued.into_iter().map(DeadLetter::change).collect()
    }

    /// Sends letters back: those of these types, or all of them where no type is named. Answers how many were not on
    /// their way already.
    pub fn requeue(&mut self, error_types: &[String], now: Timestamp) -> u64 {
        self.mark(error_types, |letter| {
            let rests = !letter.requeued;
            if rests {
                (letter.requeued, letter.requeued_at, letter.marked_failed) = (true, Some(now), false);
            }
            rests
        })
    }

    /// Gives up the letters of these types. They stay, and are offered no more, also not if they were sent back before.
    /// Answers how many were not given up already.
    pub fn mark_failed(&mut self, error_types: &[String]) -> u64 {
        self.mark(error_types, |letter| {
            let open = !letter.marked_failed;
            (letter.requeued, letter.marked_failed) = (false, true);
            open
        })
    }

    fn mark(&mut self, error_types: &[String], mut mark: impl FnMut(&mut DeadLetter) -> bool) -> u64 {
        let all = error_types.is_empty();
        let chosen = self.by_key.values_mut().filter(|letter| all || error_types.contains(&letter.error_type));
        let marked = chosen.filter_map(|letter| mark(letter).then_some(())).count() as u64;
        // Which may have grown by a few bytes each; the bound has room for it.
        self.bytes = self.by_key.values().filter_map(|letter| letter.encoded_bytes().ok()).sum();
        marked
    }

    /// How many there are of each type.
    pub fn by_error_type(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for letter in self.iter() {
            *counts.entry(letter.error_type.clone()).or_default() += 1;
        }
        counts
    }
}

fn unencodable(error: serde_json::Error) -> Error {
    Error::internal(format!("A dead letter does not encode: {error}."))
}

fn bounded(reason: &str) -> String {
    match reason.char_indices().nth(REASON_CHARS_MAX) {
        None => reason.to_owned(),
        Some(_) => reason.chars().take(REASON_CHARS_MAX - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use b2sync_core::{
        error::Retry,
        store::{DocumentStore, MemoryDocuments},
    };
    use pollster::block_on;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        documents::{self, Stored},
        sinks::SinkRecord,
    };

    fn record(letters: DeadLetters) -> SinkRecord {
        SinkRecord { dead_letters: letters, ..SinkRecord::default() }
    }

    fn decode(bytes: &[u8]) -> Result<DeadLetters, Error> {
        SinkRecord::decode(bytes).map(|record| record.dead_letters)
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn change(key: &str, version: u64) -> Change {
        let entry = Entry {
            key: key.to_owned(),
            etag: format!("e{version}"),
            size: version,
            last_modified: at(version as i64),
        };
        let (kind, previous) = match version {
            0 => (ChangeKind::Created, None),
            _ => (
                ChangeKind::Updated,
                Some(Previous { size: version - 1, last_modified: at(5), tag: EtagTag(*b"\0\x01\xff45678") }),
            ),
        };
        let (position, id) = (version + 1, format!("chg_{key}_{version}"));
        Change { position, id, kind, entry, previous, again: false, found_at: at(3), job_id: "job_1".to_owned() }
    }

    fn letters(keys: &[&str]) -> DeadLetters {
        let mut letters = DeadLetters::default();
        for key in keys {
            letters.refuse(&change(key, 0), "full", 3, at(1)).unwrap();
        }
        letters
    }

    #[test]
    fn a_letter_keeps_what_it_takes_to_deliver_it() {
        let mut letters = DeadLetters::default();
        let created = change("a/ü 😀.mp4", 0);
        letters.refuse(&created, &"é".repeat(2_000), 3, at(10)).unwrap();
        let letter = letters.get("a/ü 😀.mp4").unwrap();
        assert_eq!(letter.change(), created);
        assert_eq!(letter.dlq_id(), created.id.replace("chg_", "dlq_"));
        assert_eq!(letter.reason.chars().count(), REASON_CHARS_MAX);
        assert_eq!((letter.attempts, letter.first_seen_at, letter.last_seen_at), (3, at(10), at(10)));
        assert_eq!(letters.requeued(), [], "it rests until a user sends it back");

        assert_eq!(letters.requeue(&[], at(20)), 1);
        assert_eq!(letters.requeue(&[], at(21)), 0, "it is on its way");
        assert_eq!(letters.requeued(), std::slice::from_ref(&created));
        letters.refuse(&created, "again", 3, at(30)).unwrap();
        let letter = letters.get("a/ü 😀.mp4").unwrap();
        assert_eq!((letter.attempts, letter.first_seen_at, letter.last_seen_at), (6, at(10), at(30)));
        assert_eq!((letter.requeued, letter.requeued_at), (false, Some(at(20))));
    }

    #[test]
    fn a_newer_change_takes_the_place_of_an_older_one() {
        let mut letters = letters(&["a", "b"]);
        letters.requeue(&[], at(5));
        letters.refuse(&change("a", 7), "full", 3, at(9)).unwrap();
        assert_eq!(letters.len(), 2);
        let letter = letters.get("a").unwrap();
        assert_eq!((letter.kind, letter.size, letter.attempts), (ChangeKind::Updated, 7, 3));
        assert_eq!((letter.first_seen_at, letter.requeued), (at(9), false), "it is another letter");
        letters.delivered(&change("b", 8));
        assert_eq!(letters.len(), 1);
        letters.delivered(&change("never refused", 1));
        letters.delivered(&change("a", 7));
        assert_eq!(letters, DeadLetters::default(), "the bytes are counted back, too");
    }

    #[test]
    fn what_was_given_up_is_offered_no_more_until_it_is_sent_back() {
        let refused = [ERROR_TYPE_REFUSED.to_owned()];
        let mut letters = letters(&["a", "b"]);
        letters.requeue(&[], at(5));
        assert_eq!(letters.mark_failed(&["OtherError".to_owned()]), 0);
        assert_eq!(letters.requeued().len(), 2);
        assert_eq!(letters.mark_failed(&refused), 2);
        assert_eq!(letters.mark_failed(&refused), 0);
        assert_eq!(letters.requeued(), []);
        assert_eq!(letters.by_error_type(), BTreeMap::from([(ERROR_TYPE_REFUSED.to_owned(), 2)]));
        assert_eq!(letters.requeue(&["OtherError".to_owned()], at(6)), 0);
        assert_eq!(letters.requeue(&refused, at(6)), 2);
        assert!(letters.iter().all(|letter| letter.requeued && !letter.marked_failed));
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_changes_nothing() {
        let mut letters = DeadLetters::default();
        for n in 0..DEAD_LETTERS_MAX {
            letters.refuse(&change(&format!("k{n}"), 0), "full", 3, at(1)).unwrap();
        }
        let before = letters.clone();
        let error = letters.refuse(&change("one more", 0), "full", 3, at(2)).unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Sink, Retry::Permanent));
        assert!(error.to_string().contains("one more") && error.to_string().contains("dlq/requeue"), "{error}");
        assert_eq!(letters, before);
        letters.refuse(&change("k7", 1), "full", 3, at(2)).unwrap(); // Takes a place that is there.
        letters.delivered(&change("k8", 1));
        letters.refuse(&change("one more", 0), "full", 3, at(2)).unwrap();
    }

    /// The longest keys and reasons, every character escaped.
    #[test]
    fn the_document_fits_a_row_whatever_the_names() {
        let mut letters = DeadLetters::default();
        let mut refused = 0;
        for n in 0..DEAD_LETTERS_MAX {
            let key = format!("{n}{}", "\u{1}".repeat(8_000));
            refused += u64::from(letters.refuse(&change(&key, 0), &"\u{1}".repeat(2_000), 3, at(1)).is_err());
        }
        assert!(refused > 0 && !letters.is_empty());
        for n in 0.. {
            if letters.refuse(&change(&format!("{n}"), 0), "", 3, at(i64::MIN)).is_err() {
                break;
            }
        }
        letters.requeue(&[], at(i64::MIN));
        let bytes = record(letters.clone()).encode().unwrap();
        assert!(bytes.len() <= 2_000_000);
        assert_eq!(decode(&bytes), Ok(letters));
    }

    #[test]
    fn what_cannot_be_read_is_corrupt() {
        let one = serde_json::to_string(&letters(&["a"])).unwrap();
        let one = one.trim_matches(['[', ']']);
        let twice = format!("{{\"v\":1,\"dead_letters\":[{one},{one}]}}");
        for text in ["", "{}", "{\"v\":2,\"dead_letters\":[]}", "{\"v\":1,\"dead_letters\":{}}", &twice] {
            assert_eq!(decode(text.as_bytes()).unwrap_err().kind(), ErrorKind::StateCorrupt, "{text}");
        }
        assert_eq!(SinkRecord::decode(b"{\"v\":1}"), Ok(SinkRecord::default()));
        // Pinned: what an older version wrote must read.
        let older = r#"{"v":1,"dead_letters":[{"position":7,"change_id":"chg_0","kind":"deleted","key":"k","etag":"",
            "size":1,"last_modified":2,"found_at":3,"job_id":"j","reason":"r","error_type":"t","attempts":3,
            "first_seen_at":4,"last_seen_at":5}]}"#;
        assert_eq!(decode(older.as_bytes()).unwrap().get("k").unwrap().kind, ChangeKind::Deleted);
    }

    #[test]
    fn two_writers_lose_nothing() {
        block_on(async {
            let documents = MemoryDocuments::default();
            let refuse = |record: &mut SinkRecord, key| record.dead_letters.refuse(&change(key, 0), "full", 3, at(1));
            SinkRecord::update(&documents, "s", |record| refuse(record, "a")).await.unwrap();
            let mut interfered = false;
            SinkRecord::update(&documents, "s", |record| {
                if !std::mem::replace(&mut interfered, true) {
                    block_on(SinkRecord::update(&documents, "s", |record| Ok(record.dead_letters.requeue(&[], at(2)))))
                        .unwrap();
                }
                refuse(record, "b")
            })
            .await
            .unwrap();
            let documents::Loaded { value: now, revision } = SinkRecord::load(&documents, "s").await.unwrap();
            assert_eq!(now.dead_letters.iter().map(|letter| letter.requeued).collect::<Vec<_>>(), [true, false]);
            // Nothing is written where nothing changes, nor where the decision is an error.
            let nothing = ["x".to_owned()];
            SinkRecord::update(&documents, "s", |record| Ok(record.dead_letters.mark_failed(&nothing))).await.unwrap();
            let failed = SinkRecord::update(&documents, "s", |record| {
                record.cursor = 9;
                Err::<(), _>(Error::internal("no"))
            });
            assert!(failed.await.is_err());
            assert_eq!(SinkRecord::load(&documents, "s").await.unwrap().revision, revision);
            assert!(documents.load("sink-s").await.unwrap().is_some(), "this is its name");
            // One that others change every time is given up.
            let error = SinkRecord::update(&documents, "s", |record| {
                let other = SinkRecord::update(&documents, "s", |record| {
                    record.cursor += 1;
                    Ok(())
                });
                block_on(other).unwrap();
                record.cursor = 99;
                Ok(())
            });
            let error = error.await.unwrap_err();
            assert_eq!((error.kind(), error.is_transient()), (ErrorKind::StateConflict, true));
        });
    }

    #[test]
    fn letters_are_sent_back_in_the_order_of_the_feed() {
        let mut letters = DeadLetters::default();
        for (key, version) in [("b", 1), ("a", 7), ("c", 3)] {
            letters.refuse(&change(key, version), "full", 3, at(1)).unwrap();
        }
        letters.requeue(&[], at(2));
        assert_eq!(letters.requeued().iter().map(|it| it.position).collect::<Vec<_>>(), [2, 4, 8]);
    }

    #[test]
    fn an_older_change_that_is_replayed_does_not_touch_a_newer_letter() {
        let mut letters = DeadLetters::default();
        letters.refuse(&change("a", 7), "full", 3, at(1)).unwrap();
        let before = letters.clone();
        letters.delivered(&change("a", 6));
        letters.refuse(&change("a", 6), "again", 3, at(2)).unwrap();
        assert_eq!(letters, before);
    }

    #[derive(Clone, Debug)]
    enum Act {
        Refuse(String, u64, String),
        Deliver(String, u64),
        Requeue,
        MarkFailed,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let key = "[ab\u{1}\"😀]{1,2}";
        let act = prop_oneof![
            4 => (key, 0..3_u64, ".{0,20}").prop_map(|(key, version, why)| Act::Refuse(key, version, why)),
            2 => (key, 0..3_u64).prop_map(|(key, version)| Act::Deliver(key, version)),
            1 => Just(Act::Requeue),
            1 => Just(Act::MarkFailed),
        ];
        proptest::collection::vec(act, 0..40)
    }

    proptest! {
        #[test]
        fn no_letter_goes_but_by_a_delivery(acts in acts()) {
            let mut letters = DeadLetters::default();
            let mut open: BTreeMap<String, Change> = BTreeMap::new();
            for (now, act) in acts.into_iter().enumerate() {
                match act {
                    Act::Refuse(key, version, why) => {
                        let refused = change(&key, version);
                        letters.refuse(&refused, &why, 3, at(now as i64)).unwrap();
                        if open.get(&key).is_none_or(|letter| letter.position <= refused.position) {
                            open.insert(key, refused);
                        }
                    }
                    Act::Deliver(key, version) => {
                        let delivered = change(&key, version);
                        letters.delivered(&delivered);
                        open.retain(|it, letter| *it != key || letter.position > delivered.position);
                    }
                    Act::Requeue => {
                        letters.requeue(&[], at(now as i64));
                        prop_assert_eq!(letters.requeued().len(), open.len());
                    }
                    Act::MarkFailed => {
                        letters.mark_failed(&[]);
                        prop_assert_eq!(letters.requeued(), Vec::<Change>::new());
                    }
                }
                let kept: Vec<Change> = letters.iter().map(DeadLetter::change).collect();
                prop_assert_eq!(kept, open.values().cloned().collect::<Vec<_>>());
                let encoded = serde_json::to_vec(&letters).unwrap();
                prop_assert!(encoded.len() <= letters.bytes + 24, "{} {}", encoded.len(), letters.bytes);
                prop_assert_eq!(decode(&record(letters.clone()).encode().unwrap()), Ok(letters.clone()));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..400_usize) {
            let _ = decode(&bytes);
            let whole = record(letters(&["a", "b"])).encode().unwrap();
            let cut = &whole[..cut.min(whole.len())];
            prop_assert_eq!(decode(cut).is_ok(), cut.len() == whole.len());
        }
    }
}
