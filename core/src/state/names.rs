//! Lists of blobs' names: of those that wait to be deleted.

use std::collections::BTreeSet;

use super::{
    State,
    document::{self, NameList},
};
use crate::{
    error::Error,
    snapshot::{
        ContentHash,
        names::{self, BlobName},
    },
    store::{BlobStore, DocumentStore},
};

/// Names that the document itself holds; more go into blobs of this many.
pub(crate) const NAMES_MAX: usize = 3_072;

/// A list of names, some of it in blobs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) blobs: Vec<String>,
    pub(crate) tail: Vec<BlobName>,
}

impl Names {
    /// As it is stored.
    pub(crate) fn of(list: &NameList) -> Result<Self, Error> {
        let tail = document::decode_names(list.tail.as_deref()).map_err(|error| error.into_error("a list of names"))?;
        Ok(Self { blobs: list.blobs.clone(), tail })
    }

    /// The blobs that some of it is in.
    pub(crate) fn blobs(&self) -> &[String] {
        &self.blobs
    }

    /// Adds names.
    pub(crate) fn extend(&mut self, names: impl IntoIterator<Item = BlobName>) {
        self.tail.extend(names);
    }

    /// Adds leaves, each followed by its segments.
    pub(crate) fn note_leaves(&mut self, leaves: Vec<(ContentHash, Vec<ContentHash>)>) {
        for (leaf, segments) in leaves {
            let leaf = BlobName::node(leaf);
            if self.tail.contains(&leaf) {
                // Each step of a job looks into the one in which it goes on.
                continue;
            }
            self.tail.push(leaf);
            self.tail.extend(segments.into_iter().map(BlobName::segment));
        }
    }

    /// Stores what is too much for the document. `salt` makes the blobs other ones than all before.
    pub(crate) async fn store<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        salt: u64,
    ) -> Result<NameList, Error> {
        while self.tail.len() > NAMES_MAX {
            let rest = self.tail.split_off(NAMES_MAX);
            let full = std::mem::replace(&mut self.tail, rest);
            let name = state.write_named("scratch", names::encode(salt, &full)).await?;
            self.blobs.push(name);
        }
        Ok(NameList { blobs: self.blobs.clone(), tail: document::encode_names(salt, &self.tail) })
    }

    /// Takes the last name; where it is read from a blob, that one's name is added to `emptied`.
    async fn pop<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        emptied: &mut Vec<String>,
    ) -> Result<Option<BlobName>, Error> {
        while self.tail.is_empty() {
            let Some(blob) = self.blobs.pop() else { return Ok(None) };
            self.tail = read_names(state, &blob).await?;
            emptied.push(blob);
        }
        Ok(self.tail.pop())
    }

    /// Deletes blobs, from the last name on, except those that are `named`, as long as `allows` says so. Answers
    /// whether none is left.
    pub(crate) async fn delete<B: BlobStore, D: DocumentStore>(
        &mut self,
        state: &State<'_, B, D>,
        named: &BTreeSet<BlobName>,
        emptied: &mut Vec<String>,
        mut allows: impl FnMut() -> bool,
    ) -> Result<bool, Error> {
        while let Some(name) = self.pop(state, emptied).await? {
            if !allows() {
                self.tail.push(name);
                return Ok(false);
            }
            if !named.contains(&name) {
                state.delete(&name.to_string()).await?;
            }
        }
        Ok(true)
    }

    /// All names, in order.
    pub(crate) async fn all<B: BlobStore, D: DocumentStore>(
        &self,
        state: &State<'_, B, D>,
    ) -> Result<Vec<BlobName>, Error> {
        let mut all = Vec::new();
        for blob in &self.blobs {
            all.extend(read_names(state, blob).await?);
        }
        all.extend(&self.tail);
        Ok(all)
    }
}

async fn read_names<B: BlobStore, D: DocumentStore>(
    state: &State<'_, B, D>,
    blob: &str,
) -> Result<Vec<BlobName>, Error> {
    names::decode(&state.read(blob).await?).map_err(|error| error.into_error(blob))
}
