//! Dead letters: changes that the sink refused [`crate::engine::DELIVERY_ATTEMPTS_MAX`] times.
//!
//! A sync keeps them in one document of its own ([`DOCUMENT`]), at most one for each key. The engine writes it when the
//! sink refuses a change or takes a newer one of the same key; the coordinator writes it when a user sends letters back
//! or gives them up. Both may do so at the same time, so every write is a compare-and-swap, repeated on a conflict
//! ([`DeadLetters::change`]).
//!
//! It deliberately does not deliver anything, and does not decide how often a change is offered.
//!
//! # Invariants
//! - A letter goes only when its change, or a newer one of its key, was delivered, or a newer one was refused and takes its
//!   place. Where no more fit, [`DeadLetters::refuse`] is an error and changes nothing: nothing is dropped in silence.
//! - What is encoded fits a row of 2 MB.
//!
//! **Order of writes.** The letter comes before whatever notes that its change is done with (checkpoint, root), so that a
//! cut between the two only offers the change once more.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    entry::Entry,
    error::{Error, ErrorKind, Retry},
    sink::{Change, ChangeKind},
    store::{DocumentStore, Swapped},
    time::Timestamp,
};

/// The name of the document.
pub const DOCUMENT: &str = "dead-letters";
/// The version that this code reads and writes.
pub const VERSION: u32 = 1;
/// The most letters of a sync.
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
/// Compare-and-swap rounds before a change of the document gives up.
const SWAP_ATTEMPTS_MAX: u32 = 10;

/// A change that was not delivered. Stored, and crosses from the coordinator to the API: fields are only ever added, each
/// with a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
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
    /// The next job offers it again.
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
            id: self.change_id.clone(),
            kind: self.kind,
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

/// All dead letters of a sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetters {
    by_key: BTreeMap<String, DeadLetter>,
    /// The sum of [`DeadLetter::encoded_bytes`] when each was taken in or read.
    bytes: usize,
}

#[derive(Serialize)]
struct Encoded<'a> {
    v: u32,
    letters: Vec<&'a DeadLetter>,
}

#[derive(Deserialize)]
struct Decoded {
    v: u32,
    letters: Vec<DeadLetter>,
}

impl DeadLetters {
    /// As stored: `{"v":1,"letters":[…]}`, by key.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`]; never happens.
    pub fn encode(&self) -> Result<Bytes, Error> {
        let letters = self.by_key.values().collect();
        Ok(serde_json::to_vec(&Encoded { v: VERSION, letters }).map_err(unencodable)?.into())
    }

    /// From what was stored.
    ///
    /// # Errors
    /// [`ErrorKind::StateCorrupt`] for what does not decode, for another version, and for two letters of one key.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let corrupt = |why: String| {
            Error::new(
                ErrorKind::StateCorrupt,
                format!("The stored dead letters cannot be read: {why}."),
                "Use the version of b2sync that wrote them, or delete the sync and create it again.",
            )
        };
        let decoded: Decoded = serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))?;
        if decoded.v != VERSION {
            return Err(corrupt(format!("they have version {}, and this b2sync reads version {VERSION}", decoded.v)));
        }
        let mut letters = Self::default();
        for letter in decoded.letters {
            letters.bytes += letter.encoded_bytes()?;
            if let Some(other) = letters.by_key.insert(letter.key.clone(), letter) {
                return Err(corrupt(format!("there are two of {}", crate::error::quoted(&other.key))));
            }
        }
        Ok(letters)
    }

    /// Those that are stored, and the revision that [`Self::save`] must name; none and 0 if there is no document.
    ///
    /// # Errors
    /// Those of the store, and of [`Self::decode`].
    pub async fn load(documents: &impl DocumentStore) -> Result<(Self, u64), Error> {
        match documents.load(DOCUMENT).await? {
            Some(document) => Ok((Self::decode(&document.value)?, document.revision)),
            None => Ok((Self::default(), 0)),
        }
    }

    /// Stores them if nobody else did so since `revision`, and answers the new revision. Where none is left, the document
    /// goes, and the answer is 0.
    ///
    /// # Errors
    /// [`ErrorKind::StateConflict`], to be repeated, when somebody else did; those of the store.
    pub async fn save(&self, documents: &impl DocumentStore, revision: u64) -> Result<u64, Error> {
        let value = if self.is_empty() { None } else { Some(self.encode()?) };
        if value.is_none() && revision == 0 {
            return Ok(0);
        }
        let left = value.is_some();
        match documents.swap(DOCUMENT, revision, value).await? {
            Swapped::Done(revision) => Ok(if left { revision } else { 0 }),
            Swapped::Conflict => Err(Error::new(
                ErrorKind::StateConflict,
                "Somebody else changed the dead letters at the same time.",
                "Nothing was written: try again.",
            )
            .with_retry(Retry::Temporary)),
        }
    }

    /// Reads them, lets `decide` change them, and stores what changed; again if somebody else stored them meanwhile, so
    /// `decide` may be called several times, each time with what is stored then.
    ///
    /// # Errors
    /// Those of `decide`, [`Self::load`] and [`Self::save`].
    pub async fn change<T>(
        documents: &impl DocumentStore,
        mut decide: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut answer = None;
        let mut note = |letters: &mut Self| decide(letters).map(|it| answer = Some(it));
        Self::change_by(documents, &mut note).await?;
        answer.ok_or_else(|| Error::internal("A change of the dead letters decided nothing."))
    }

    /// [`Self::change`] for a decision of whatever type: compiled once, and not for each of them.
    async fn change_by(
        documents: &impl DocumentStore,
        decide: &mut dyn FnMut(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut attempt = 1;
        loop {
            let (before, revision) = Self::load(documents).await?;
            let mut letters = before.clone();
            decide(&mut letters)?;
            if letters == before {
                return Ok(());
            }
            match letters.save(documents, revision).await {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::StateConflict && attempt < SWAP_ATTEMPTS_MAX => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

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

    /// Takes in a change that was offered `attempts` times and refused each time, the last time for `reason`. It takes the
    /// place of an older letter of its key; refused again under the same id, it stays the same letter, its attempts add
    /// up and it is requeued no longer.
    ///
    /// # Errors
    /// [`ErrorKind::Sink`], permanent, when it does not fit: nothing has changed, and the job must fail.
    pub fn refuse(&mut self, change: &Change, reason: &str, attempts: u32, now: Timestamp) -> Result<(), Error> {
        let entry = &change.entry;
        let older = self.by_key.get(&entry.key);
        let same = older.filter(|letter| letter.change_id == change.id);
        let letter = DeadLetter {
            change_id: change.id.clone(),
            kind: change.kind,
            key: entry.key.clone(),
            etag: entry.etag.clone(),
            size: entry.size,
            last_modified: entry.last_modified,
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
                    "The sink refused {} {attempts} times ({}), and there are {} dead letters already: no more fit.",
                    crate::error::quoted(&entry.key),
                    letter.reason,
                    self.by_key.len(),
                ),
                "Nothing is lost: the change is offered again by the next job. See why the sink refuses them (POST …/dlq), \
                 mend that, and send them back (POST …/dlq/requeue).",
            ));
        }
        self.bytes = bytes;
        self.by_key.insert(letter.key.clone(), letter);
        Ok(())
    }

    /// A change of this key was delivered, the letter's own or a newer one: the letter goes.
    pub fn delivered(&mut self, change: &Change) {
        if let Some(letter) = self.by_key.remove(&change.entry.key) {
            self.bytes = self.bytes.saturating_sub(letter.encoded_bytes().unwrap_or_default());
        }
    }

    /// The changes to offer again, in the order of their keys.
    pub fn requeued(&self) -> Vec<Change> {
        self.iter().filter(|letter| letter.requeued).map(DeadLetter::change).collect()
    }

    /// Sends letters back: those of these types, or all of them where no type is named. Answers how many were not on their
    /// way already.
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
    use pollster::block_on;
    use proptest::prelude::*;

    use super::*;
    use crate::store::MemoryDocuments;

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
        let kind = if version == 0 { ChangeKind::Created } else { ChangeKind::Updated };
        Change::appeared("sync_1", kind, entry)
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
        assert_eq!(letters.requeued(), [], "it rests until somebody sends it back");

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
        assert!(letters.encode().unwrap().len() <= 2_000_000);
        assert_eq!(DeadLetters::decode(&letters.encode().unwrap()), Ok(letters));
    }

    #[test]
    fn what_cannot_be_read_is_corrupt() {
        let twice = letters(&["a"]).encode().unwrap();
        let twice = String::from_utf8(twice.to_vec()).unwrap();
        let one = &twice[twice.find('[').unwrap() + 1..twice.rfind(']').unwrap()];
        for text in ["", "{}", "{\"v\":2,\"letters\":[]}", &format!("{{\"v\":1,\"letters\":[{one},{one}]}}")] {
            assert_eq!(DeadLetters::decode(text.as_bytes()).unwrap_err().kind(), ErrorKind::StateCorrupt, "{text}");
        }
        // Pinned: what an older version wrote must read.
        let older = r#"{"v":1,"letters":[{"change_id":"chg_0","kind":"deleted","key":"k","etag":"","size":1,
            "last_modified":2,"reason":"r","error_type":"t","attempts":3,"first_seen_at":4,"last_seen_at":5}]}"#;
        assert_eq!(DeadLetters::decode(older.as_bytes()).unwrap().get("k").unwrap().kind, ChangeKind::Deleted);
    }

    #[test]
    fn two_writers_lose_nothing() {
        block_on(async {
            let documents = MemoryDocuments::default();
            DeadLetters::change(&documents, |letters| letters.refuse(&change("a", 0), "full", 3, at(1))).await.unwrap();
            let (mut stale, revision) = DeadLetters::load(&documents).await.unwrap();
            DeadLetters::change(&documents, |letters| Ok(letters.requeue(&[], at(2)))).await.unwrap();
            stale.refuse(&change("b", 0), "full", 3, at(3)).unwrap();
            let error = stale.save(&documents, revision).await.unwrap_err();
            assert_eq!((error.kind(), error.is_transient()), (ErrorKind::StateConflict, true));
            DeadLetters::change(&documents, |letters| letters.refuse(&change("b", 0), "full", 3, at(3))).await.unwrap();
            let (now, revision) = DeadLetters::load(&documents).await.unwrap();
            assert_eq!(now.iter().map(|letter| letter.requeued).collect::<Vec<_>>(), [true, false]);
            // Nothing is written where nothing changes, and an empty document goes.
            DeadLetters::change(&documents, |letters| Ok(letters.mark_failed(&["x".to_owned()]))).await.unwrap();
            assert_eq!(DeadLetters::load(&documents).await.unwrap().1, revision);
            DeadLetters::change(&documents, |letters| {
                letters.delivered(&change("a", 1));
                letters.delivered(&change("b", 1));
                Ok(())
            })
            .await
            .unwrap();
            assert_eq!(documents.load(DOCUMENT).await.unwrap(), None);
            DeadLetters::change(&documents, |letters| letters.refuse(&change("c", 0), "full", 3, at(4))).await.unwrap();
            assert_eq!(DeadLetters::load(&documents).await.unwrap().0.len(), 1, "and comes back");
        });
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
                        open.insert(key, refused);
                    }
                    Act::Deliver(key, version) => {
                        letters.delivered(&change(&key, version));
                        open.remove(&key);
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
                let encoded = letters.encode().unwrap();
                prop_assert!(encoded.len() <= letters.bytes + 24, "{} {}", encoded.len(), letters.bytes);
                prop_assert_eq!(DeadLetters::decode(&encoded), Ok(letters.clone()));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..400_usize) {
            let _ = DeadLetters::decode(&bytes);
            let whole = letters(&["a", "b"]).encode().unwrap();
            let cut = &whole[..cut.min(whole.len())];
            prop_assert_eq!(DeadLetters::decode(cut).is_ok(), cut.len() == whole.len());
        }
    }
}
