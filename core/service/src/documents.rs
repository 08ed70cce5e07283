//! Changing a stored document by compare-and-swap: the one loop that does so.

use std::cell::RefCell;

use b2sync_core::{
    error::{Error, ErrorKind, Retry},
    store::{Document, DocumentStore, Swapped},
};
use bytes::Bytes;

/// Compare-and-swap rounds before a change gives up.
pub const SWAP_ATTEMPTS_MAX: u32 = 10;

/// A document as this crate keeps it: JSON with a version.
pub trait Stored: Clone + PartialEq {
    /// Reads what was stored.
    ///
    /// # Errors
    /// [`ErrorKind::StateCorrupt`] for what is not a document of this version.
    fn decode(bytes: &[u8]) -> Result<Self, Error>;

    /// The bytes to store.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`]; it does not happen.
    fn encode(&self) -> Result<Bytes, Error>;
}

/// The content of a document as an instance decoded or stored it last: the same bytes are not decoded again.
#[derive(Debug)]
pub struct Decoded<T>(RefCell<Option<(Bytes, T)>>);

impl<T> Default for Decoded<T> {
    fn default() -> Self {
        Self(RefCell::new(None))
    }
}

impl<T: Stored> Decoded<T> {
    fn decode(&self, bytes: &Bytes) -> Result<T, Error> {
        if let Some((_, value)) = self.0.borrow().as_ref().filter(|(decoded, _)| decoded == bytes) {
            return Ok(value.clone());
        }
        let value = T::decode(bytes)?;
        self.note(bytes.clone(), &value);
        Ok(value)
    }

    fn note(&self, bytes: Bytes, value: &T) {
        self.0.replace(Some((bytes, value.clone())));
    }
}

/// A document as it was last read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded<T> {
    /// Its content.
    pub value: T,
    /// Its revision; 0: it is not stored.
    pub revision: u64,
}

/// How a change went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Updated {
    /// Whether something was written.
    pub is_changed: bool,
    /// How often the document was read again, since another writer had moved it.
    pub reloads: u32,
}

/// Where a document is.
#[derive(Debug)]
pub struct Slot<'a, D, T> {
    /// The store.
    pub documents: &'a D,
    /// Its name there.
    pub name: &'a str,
    /// What it is where nothing is stored.
    pub fresh: &'a T,
    /// What this instance decoded last.
    pub decoded: &'a Decoded<T>,
}

impl<D: DocumentStore, T: Stored> Slot<'_, D, T> {
    /// The document; [`Slot::fresh`] with the revision 0 if there is none.
    ///
    /// # Errors
    /// Of the store; [`ErrorKind::StateCorrupt`].
    pub async fn load(&self) -> Result<Loaded<T>, Error> {
        match self.documents.load(self.name).await? {
            Some(Document { value, revision }) => Ok(Loaded { value: self.decoded.decode(&value)?, revision }),
            None => Ok(Loaded { value: self.fresh.clone(), revision: 0 }),
        }
    }

    /// Reads the document, lets `decide` change it, and stores what changed; again when another writer moved it first,
    /// so `decide` may be called several times, each time with what is stored then.
    ///
    /// # Errors
    /// Those of `decide` and of the store; [`ErrorKind::StateConflict`], transient, after [`SWAP_ATTEMPTS_MAX`] rounds.
    pub async fn update<R>(&self, mut decide: impl FnMut(&mut T) -> Result<R, Error>) -> Result<R, Error> {
        let mut answer = None;
        let mut note = |value: &mut T| decide(value).map(|it| answer = Some(it));
        let mut loaded = self.load().await?;
        self.update_loaded(&mut loaded, &mut note, async || Ok(())).await?;
        answer.ok_or_else(|| Error::internal("A change of a document decided nothing."))
    }

    /// [`Slot::update`] for a document that was read already: `loaded` is what is stored afterwards. The call that
    /// creates the document does `before_first` before that.
    ///
    /// # Errors
    /// As [`Slot::update`]; those of `before_first`.
    pub async fn update_loaded(
        &self,
        loaded: &mut Loaded<T>,
        decide: &mut dyn FnMut(&mut T) -> Result<(), Error>,
        mut before_first: impl AsyncFnMut() -> Result<(), Error>,
    ) -> Result<Updated, Error> {
        for reloads in 0..SWAP_ATTEMPTS_MAX {
            if reloads > 0 {
                *loaded = self.load().await?;
            }
            let mut after = loaded.value.clone();
            decide(&mut after)?;
            if after == loaded.value {
                return Ok(Updated { is_changed: false, reloads });
            }
            if loaded.revision == 0 {
                before_first().await?;
            }
            let bytes = after.encode()?;
            let swapped = self.documents.swap(self.name, loaded.revision, Some(bytes.clone())).await?;
            if let Swapped::Done(revision) = swapped {
                self.decoded.note(bytes, &after);
                *loaded = Loaded { value: after, revision };
                return Ok(Updated { is_changed: true, reloads });
            }
        }
        Err(Error::new(
            ErrorKind::StateConflict,
            format!("Other calls changed the document {:?} {SWAP_ATTEMPTS_MAX} times in a row.", self.name),
            "Send the request again.",
        )
        .with_retry(Retry::Temporary))
    }
}

#[cfg(test)]
mod tests {
    use b2sync_core::store::MemoryDocuments;
    use pollster::block_on;

    use super::*;

    thread_local! {
        static DECODED: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    }

    #[derive(Clone, Debug, PartialEq)]
    struct Text(String);

    impl Stored for Text {
        fn decode(bytes: &[u8]) -> Result<Self, Error> {
            DECODED.set(DECODED.get() + 1);
            Ok(Self(String::from_utf8_lossy(bytes).into_owned()))
        }

        fn encode(&self) -> Result<Bytes, Error> {
            Ok(self.0.clone().into())
        }
    }

    #[test]
    fn what_this_instance_stored_or_read_is_not_decoded_again_and_what_others_stored_is() {
        let (documents, fresh) = (MemoryDocuments::default(), Text(String::new()));
        let (one, other) = (Decoded::default(), Decoded::default());
        let slot = |decoded| Slot { documents: &documents, name: "it", fresh: &fresh, decoded };
        let (one, other) = (slot(&one), slot(&other));
        let append = |slot: &Slot<'_, _, Text>, more: &str| {
            let push = |it: &mut Text| {
                it.0.push_str(more);
                Ok(())
            };
            block_on(slot.update(push)).unwrap();
        };
        append(&one, "a");
        append(&one, "b");
        assert_eq!((block_on(one.load()).unwrap().value.0, DECODED.get()), ("ab".to_owned(), 0));
        append(&other, "c");
        assert_eq!((block_on(other.load()).unwrap().value.0, DECODED.get()), ("abc".to_owned(), 1));
        for _ in 0..3 {
            assert_eq!((block_on(one.load()).unwrap().value.0, DECODED.get()), ("abc".to_owned(), 2));
        }
        // Deleted, and created again.
        let Document { revision, .. } = block_on(documents.load("it")).unwrap().unwrap();
        block_on(documents.swap("it", revision, None)).unwrap();
        assert_eq!(block_on(one.load()).unwrap(), Loaded { value: fresh.clone(), revision: 0 });
        append(&other, "d");
        assert_eq!(block_on(one.load()).unwrap().value.0, "d");
    }
}
