//! Changing a stored document by compare-and-swap: the one loop that does so.

use b2sync_core::{
    error::{Error, ErrorKind, Retry},
    store::{DocumentStore, Swapped},
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

/// A document as it was last read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded<T> {
    /// Its content.
    pub value: T,
    /// Its revision; 0: it is not stored.
    pub revision: u64,
}

/// The document called `name`; `fresh` with the revision 0 if there is none.
///
/// # Errors
/// Of the store; [`ErrorKind::StateCorrupt`].
pub async fn load<T: Stored>(documents: &impl DocumentStore, name: &str, fresh: &T) -> Result<Loaded<T>, Error> {
    match documents.load(name).await? {
        Some(document) => Ok(Loaded { value: T::decode(&document.value)?, revision: document.revision }),
        None => Ok(Loaded { value: fresh.clone(), revision: 0 }),
    }
}

/// How a change went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Updated {
    /// Whether something was written.
    pub is_changed: bool,
    /// How often the document was read again, since another writer had moved it.
    pub reloads: u32,
}

/// Reads the document, lets `decide` change it, and stores what changed; again when another writer moved it first, so
/// `decide` may be called several times, each time with what is stored then.
///
/// # Errors
/// Those of `decide` and of the store; [`ErrorKind::StateConflict`], transient, after [`SWAP_ATTEMPTS_MAX`] rounds.
pub async fn update<T: Stored, R>(
    documents: &impl DocumentStore,
    name: &str,
    fresh: &T,
    mut decide: impl FnMut(&mut T) -> Result<R, Error>,
) -> Result<R, Error> {
    let mut answer = None;
    let mut note = |value: &mut T| decide(value).map(|it| answer = Some(it));
    let mut loaded = load(documents, name, fresh).await?;
    update_loaded(documents, name, fresh, &mut loaded, &mut note, async || Ok(())).await?;
    answer.ok_or_else(|| Error::internal("A change of a document decided nothing."))
}

/// [`update`] for a document that was read already: `loaded` is what is stored afterwards. The call that creates the
/// document does `before_first` before that.
///
/// # Errors
/// As [`update`]; those of `before_first`.
pub async fn update_loaded<T: Stored>(
    documents: &impl DocumentStore,
    name: &str,
    fresh: &T,
    loaded: &mut Loaded<T>,
    decide: &mut dyn FnMut(&mut T) -> Result<(), Error>,
    mut before_first: impl AsyncFnMut() -> Result<(), Error>,
) -> Result<Updated, Error> {
    for reloads in 0..SWAP_ATTEMPTS_MAX {
        if reloads > 0 {
            *loaded = load(documents, name, fresh).await?;
        }
        let mut after = loaded.value.clone();
        decide(&mut after)?;
        if after == loaded.value {
            return Ok(Updated { is_changed: false, reloads });
        }
        if loaded.revision == 0 {
            before_first().await?;
        }
        if let Swapped::Done(revision) = documents.swap(name, loaded.revision, Some(after.encode()?)).await? {
            *loaded = Loaded { value: after, revision };
            return Ok(Updated { is_changed: true, reloads });
        }
    }
    Err(Error::new(
        ErrorKind::StateConflict,
        format!("Other calls changed the document {name:?} {SWAP_ATTEMPTS_MAX} times in a row."),
        "Send the request again.",
    )
    .with_retry(Retry::Temporary))
}
