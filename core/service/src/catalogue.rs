//! The catalogue: the bucket objects that delivered changes became, for the API to read.
//!
//! One catalogue belongs to one target bucket of one namespace. On Workers it is a Durable Object with SQLite, called
//! through [`CatalogueCall`]; the SQL lives there. What it must do is written here, as [`MemoryCatalogue`].
//!
//! **Invariants.** Each change of a sync is applied exactly once: the catalogue keeps the position of the last change
//! that it has applied, in the transaction of the rows, and passes over what comes again. It refuses nothing. A
//! deleted key has no row, and neither has one whose object was removed, until a change creates it again.
//! Objects are ordered by (key, object id), in UTF-8 byte order, which is also SQLite's.

use std::{cell::RefCell, collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, de::Visitor};

use b2sync_core::{
    change::{Change, ChangeKind},
    entry::Entry,
    error::{Error, ErrorKind},
    ids,
    mutation::{self, Mutation},
    sink::{Delivery, Sink},
    time::{Clock, Timestamp},
};

use crate::sinks::dead_letters::PreviousWire;

/// The most changes one [`CatalogueCall::Apply`] takes: half a megabyte with usual keys, 12 MB with the longest ones
/// if every byte of them must be escaped. Half the changes of a segment, so that a call costs little beside what it
/// carries.
pub const APPLY_BATCH_MAX: usize = 2_000;

/// One object of a bucket: a key, as its latest delivered change left it. Stored: fields are only ever added, each
/// with a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// `obj_…`, from the sync and the key: see [`ids::object_id`].
    pub object_id: String,
    /// The target bucket.
    pub bucket_id: String,
    /// The sync that delivered it.
    pub sync_id: String,
    /// The connection it was read through.
    pub connection_id: String,
    /// The B2 bucket it lies in.
    pub source_bucket: String,
    /// Its whole key there.
    pub key: String,
    /// Opaque, without quotes.
    pub etag: String,
    /// In bytes. A store whose numbers are not exact beyond 2^53 may hand it over as text.
    #[serde(deserialize_with = "exact")]
    pub size: u64,
    /// As the listing showed it.
    pub last_modified: Timestamp,
    /// The latest change that was applied.
    pub change_id: String,
    /// How many changes were applied to the key since it was created: 1, 2, …
    pub version: u32,
    /// When the first of them was applied.
    pub created_at: Timestamp,
    /// When the latest of them was applied.
    pub updated_at: Timestamp,
}

/// A number, or one written as text.
fn exact<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Exact;

    impl Visitor<'_> for Exact {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an integer of at least 0, as a number or as text")
        }

        fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<u64, E> {
            Ok(number)
        }

        fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<u64, E> {
            u64::try_from(number).map_err(E::custom)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u64, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_any(Exact)
}

/// Where a page of objects begins: after this one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectCursor {
    /// The last key of the page before.
    pub key: String,
    /// The last object of the page before: two syncs may deliver the same key.
    pub object_id: String,
}

/// Which objects of a bucket, and which page of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectQuery {
    /// The namespace that the bucket belongs to.
    pub namespace_id: String,
    /// The target bucket.
    pub bucket_id: String,
    /// The most objects to answer.
    pub limit: u32,
    /// How many to pass over, after the cursor if there is one.
    #[serde(default)]
    pub offset: u32,
    /// Begin after this object.
    #[serde(default)]
    pub cursor: Option<ObjectCursor>,
    /// Only keys that begin with this.
    #[serde(default)]
    pub prefix: Option<String>,
    /// Count all that match, too.
    #[serde(default)]
    pub include_total: bool,
}

/// A page of objects, ordered by (key, object id).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectPage {
    /// The objects.
    pub objects: Vec<ObjectRecord>,
    /// Where the next page begins; `None` after the last.
    #[serde(default)]
    pub next: Option<ObjectCursor>,
    /// How many match in all; only if asked for.
    #[serde(default)]
    pub total: Option<u64>,
}

/// The objects, as the API reads them. Implemented by each home.
pub trait Objects {
    /// One object; `None` when the bucket has no such object.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    async fn get(&self, namespace_id: &str, bucket_id: &str, object_id: &str) -> Result<Option<ObjectRecord>, Error>;

    /// A page of objects.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    async fn list(&self, query: &ObjectQuery) -> Result<ObjectPage, Error>;

    /// How many objects of a sync the bucket has.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    async fn count_of_sync(&self, namespace_id: &str, bucket_id: &str, sync_id: &str) -> Result<u64, Error>;

    /// Removes one object; says whether there was one. The next change of its file creates it again, unless it deletes
    /// the file.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    async fn remove(&self, namespace_id: &str, bucket_id: &str, object_id: &str) -> Result<bool, Error>;

    /// Removes all objects that a sync delivered to the bucket, and says how many there were. What it delivers from now
    /// on is taken.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    async fn clear_sync(&self, namespace_id: &str, bucket_id: &str, sync_id: &str) -> Result<u64, Error>;

    /// As [`Self::clear_sync`], of a sync that is deleted: what it delivers from now on is passed over.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    async fn drop_sync(&self, namespace_id: &str, bucket_id: &str, sync_id: &str) -> Result<u64, Error>;
}

/// [`Change`] as it crosses between the parts of a home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeWire {
    /// The place in the feed.
    pub position: u64,
    /// The change id.
    pub id: String,
    /// What happened.
    pub kind: ChangeKind,
    /// The whole key.
    pub key: String,
    /// Opaque, without quotes.
    pub etag: String,
    /// In bytes.
    pub size: u64,
    /// As the listing showed it.
    pub last_modified: Timestamp,
    /// What was known before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<PreviousWire>,
    /// Whether a full sync hands it over again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub again: bool,
    /// When it was found.
    pub found_at: Timestamp,
    /// The job that found it.
    pub job_id: String,
}

const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl From<&Change> for ChangeWire {
    fn from(change: &Change) -> Self {
        Self {
            position: change.position,
            id: change.id.clone(),
            kind: change.kind,
            key: change.entry.key.clone(),
            etag: change.entry.etag.clone(),
            size: change.entry.size,
            last_modified: change.entry.last_modified,
            previous: change.previous.map(Into::into),
            again: change.again,
            found_at: change.found_at,
            job_id: change.job_id.clone(),
        }
    }
}

impl From<ChangeWire> for Change {
    fn from(wire: ChangeWire) -> Self {
        Self {
            position: wire.position,
            id: wire.id,
            kind: wire.kind,
            entry: Entry { key: wire.key, etag: wire.etag, size: wire.size, last_modified: wire.last_modified },
            previous: wire.previous.map(Into::into),
            again: wire.again,
            found_at: wire.found_at,
            job_id: wire.job_id,
        }
    }
}

/// One call to the catalogue of one bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatalogueCall {
    /// Apply changes, all or none of them. Answer: [`CatalogueAnswer::Applied`].
    Apply(CatalogueApply),
    /// One object. Answer: [`CatalogueAnswer::Object`].
    Get {
        /// `obj_…`
        object_id: String,
    },
    /// A page of objects. Answer: [`CatalogueAnswer::Page`].
    List {
        /// Which; its namespace and bucket are those of the catalogue.
        query: ObjectQuery,
    },
    /// How many objects there are. Answer: [`CatalogueAnswer::Count`].
    Count {
        /// Only those of this sync.
        #[serde(default)]
        sync_id: Option<String>,
    },
    /// Remove one object. Answer: [`CatalogueAnswer::Count`], 1 if there was one.
    Remove {
        /// `obj_…`
        object_id: String,
    },
    /// Remove all objects of a sync. Answer: [`CatalogueAnswer::Count`], how many were removed.
    ClearSync {
        /// The sync.
        sync_id: String,
    },
    /// The same, and pass over what the sync delivers later: it is deleted. Answer: as [`CatalogueCall::ClearSync`].
    DropSync {
        /// The sync.
        sync_id: String,
    },
}

/// Changes of one sync, and what their objects need to know beyond them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueApply {
    /// The target bucket.
    pub bucket_id: String,
    /// The sync that found the changes.
    pub sync_id: String,
    /// The connection it reads through.
    pub connection_id: String,
    /// The B2 bucket it reads.
    pub source_bucket: String,
    /// The time of the call: `created_at` and `updated_at` of what it alters.
    pub at: Timestamp,
    /// At most [`APPLY_BATCH_MAX`], by position, applied in this order.
    pub changes: Vec<ChangeWire>,
}

impl CatalogueApply {
    /// The changes behind `applied`, the position up to which the sync's changes are applied.
    pub fn behind(&self, applied: u64) -> &[ChangeWire] {
        if mutation::is_on(Mutation::ApplyTwice) {
            return &self.changes;
        }
        let done = self.changes.partition_point(|change| change.position <= applied);
        self.changes.get(done..).unwrap_or_default()
    }
}

/// The catalogue's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatalogueAnswer {
    /// Of [`CatalogueCall::Apply`].
    Applied {
        /// One for each change, in their order: `None` when it was taken, or why it was refused.
        refusals: Vec<Option<String>>,
    },
    /// Of [`CatalogueCall::Get`].
    Object {
        /// `None` when there is no such object.
        object: Option<Box<ObjectRecord>>,
    },
    /// Of [`CatalogueCall::List`].
    Page {
        /// The page.
        page: ObjectPage,
    },
    /// Of [`CatalogueCall::Count`], and of the calls that remove objects.
    Count {
        /// How many.
        count: u64,
    },
}

/// What applying one change does to a key's row. Pure: every home's catalogue decides by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// Nothing: it deletes what is not there.
    Keep,
    /// The row is now this.
    Put(Box<ObjectRecord>),
    /// The row goes.
    Remove,
}

/// Decides what `change` does to the row that its key has now.
pub fn plan_row(row: Option<&ObjectRecord>, apply: &CatalogueApply, change: &ChangeWire) -> RowChange {
    match (row, change.kind) {
        (Some(_), ChangeKind::Deleted) => RowChange::Remove,
        (None, ChangeKind::Deleted) => RowChange::Keep,
        (row, ChangeKind::Created | ChangeKind::Updated) => RowChange::Put(Box::new(ObjectRecord {
            object_id: ids::object_id(&apply.sync_id, &change.key),
            bucket_id: apply.bucket_id.clone(),
            sync_id: apply.sync_id.clone(),
            connection_id: apply.connection_id.clone(),
            source_bucket: apply.source_bucket.clone(),
            key: change.key.clone(),
            etag: change.etag.clone(),
            size: row.filter(|_| mutation::is_on(Mutation::KeepOldSize)).map_or(change.size, |row| row.size),
            last_modified: change.last_modified,
            change_id: change.id.clone(),
            version: row.map_or(1, |row| row.version.saturating_add(1)),
            created_at: row.map_or(apply.at, |row| row.created_at),
            updated_at: apply.at,
        })),
    }
}

/// What a [`CatalogueAnswer::Applied`] says to the pump.
///
/// # Errors
/// [`ErrorKind::Sink`] when the answer does not fit the call: it is unknown what became of the changes.
pub fn deliveries(answer: CatalogueAnswer, changes: usize) -> Result<Vec<Delivery>, Error> {
    match answer {
        CatalogueAnswer::Applied { refusals } if refusals.len() == changes => {
            Ok(refusals.into_iter().map(|refusal| refusal.map_or(Delivery::Delivered, Delivery::Refused)).collect())
        }
        other => Err(Error::new(
            ErrorKind::Sink,
            format!("The catalogue did not answer for each of {changes} changes ({}).", answer_name(&other)),
            "They will be delivered again.",
        )
        .with_retry(b2sync_core::Retry::Temporary)),
    }
}

fn answer_name(answer: &CatalogueAnswer) -> &'static str {
    match answer {
        CatalogueAnswer::Applied { .. } => "applied, but another number",
        CatalogueAnswer::Object { .. } => "object",
        CatalogueAnswer::Page { .. } => "page",
        CatalogueAnswer::Count { .. } => "count",
    }
}

fn unexpected(answer: &CatalogueAnswer) -> Error {
    Error::internal(format!("The catalogue sent an unexpected reply: {}.", answer_name(answer)))
}

/// [`Objects`] over a channel of [`CatalogueCall`]s: given (namespace, bucket, call), `send` asks that bucket's
/// catalogue.
#[derive(Clone, Debug)]
pub struct RemoteObjects<F>(pub F);

impl<F: AsyncFn(&str, &str, CatalogueCall) -> Result<CatalogueAnswer, Error>> Objects for RemoteObjects<F> {
    async fn get(&self, namespace_id: &str, bucket_id: &str, object_id: &str) -> Result<Option<ObjectRecord>, Error> {
        match self.0(namespace_id, bucket_id, CatalogueCall::Get { object_id: object_id.to_owned() }).await? {
            CatalogueAnswer::Object { object } => Ok(object.map(|object| *object)),
            other => Err(unexpected(&other)),
        }
    }

    async fn list(&self, query: &ObjectQuery) -> Result<ObjectPage, Error> {
        match self.0(&query.namespace_id, &query.bucket_id, CatalogueCall::List { query: query.clone() }).await? {
            CatalogueAnswer::Page { page } => Ok(page),
            other => Err(unexpected(&other)),
        }
    }

    async fn count_of_sync(&self, namespace_id: &str, bucket_id: &str, sync_id: &str) -> Result<u64, Error> {
        let call = CatalogueCall::Count { sync_id: Some(sync_id.to_owned()) };
        count(self.0(namespace_id, bucket_id, call).await?)
    }

    async fn remove(&self, namespace_id: &str, bucket_id: &str, object_id: &str) -> Result<bool, Error> {
        let call = CatalogueCall::Remove { object_id: object_id.to_owned() };
        Ok(count(self.0(namespace_id, bucket_id, call).await?)? > 0)
    }

    async fn clear_sync(&self, namespace_id: &str, bucket_id: &str, sync_id: &str) -> Result<u64, Error> {
        let call = CatalogueCall::ClearSync { sync_id: sync_id.to_owned() };
        count(self.0(namespace_id, bucket_id, call).await?)
    }

    async fn drop_sync(&self, namespace_id: &str, bucket_id: &str, sync_id: &str) -> Result<u64, Error> {
        let call = CatalogueCall::DropSync { sync_id: sync_id.to_owned() };
        count(self.0(namespace_id, bucket_id, call).await?)
    }
}

fn count(answer: CatalogueAnswer) -> Result<u64, Error> {
    match answer {
        CatalogueAnswer::Count { count } => Ok(count),
        other => Err(unexpected(&other)),
    }
}

/// Whose changes a sink delivers, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueTarget {
    /// The target bucket.
    pub bucket_id: String,
    /// The sync.
    pub sync_id: String,
    /// Its connection.
    pub connection_id: String,
    /// The B2 bucket it reads.
    pub source_bucket: String,
}

/// A [`Sink`] over a channel of [`CatalogueCall`]s to the catalogue of the target bucket.
#[derive(Clone, Debug)]
pub struct CatalogueSink<F, C> {
    /// Asks the catalogue.
    pub send: F,
    /// The time of each delivery.
    pub clock: C,
    /// Whose changes.
    pub target: CatalogueTarget,
}

impl<F: AsyncFn(CatalogueCall) -> Result<CatalogueAnswer, Error>, C: Clock> Sink for CatalogueSink<F, C> {
    fn batch_max(&self) -> usize {
        APPLY_BATCH_MAX
    }

    async fn deliver(&self, changes: &[Change]) -> Result<Vec<Delivery>, Error> {
        let target = &self.target;
        let answer = (self.send)(CatalogueCall::Apply(CatalogueApply {
            bucket_id: target.bucket_id.clone(),
            sync_id: target.sync_id.clone(),
            connection_id: target.connection_id.clone(),
            source_bucket: target.source_bucket.clone(),
            at: self.clock.now(),
            changes: changes.iter().map(ChangeWire::from).collect(),
        }))
        .await?;
        deliveries(answer, changes.len())
    }
}

/// Catalogues in memory, of all buckets. For tests and for embedding.
#[derive(Debug, Default)]
pub struct MemoryCatalogue {
    buckets: RefCell<BTreeMap<(String, String), Bucket>>,
}

/// The catalogue of one bucket.
#[derive(Debug, Default)]
struct Bucket {
    rows: Rows,
    /// Up to which position the changes of each sync are applied.
    applied: BTreeMap<String, u64>,
}

/// Ordered by (key, object id), as the catalogue lists them.
type Rows = BTreeMap<(String, String), ObjectRecord>;

impl MemoryCatalogue {
    /// Empty ones.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers one call to the catalogue of a bucket.
    ///
    /// # Errors
    /// None; the type is that of a channel.
    pub fn call(&self, namespace_id: &str, bucket_id: &str, call: CatalogueCall) -> Result<CatalogueAnswer, Error> {
        let mut buckets = self.buckets.borrow_mut();
        let Bucket { rows, applied } = buckets.entry((namespace_id.to_owned(), bucket_id.to_owned())).or_default();
        Ok(match call {
            CatalogueCall::Apply(apply) => {
                let applied = applied.entry(apply.sync_id.clone()).or_default();
                for change in apply.behind(*applied) {
                    let place = (change.key.clone(), ids::object_id(&apply.sync_id, &change.key));
                    match plan_row(rows.get(&place), &apply, change) {
                        RowChange::Keep => {}
                        RowChange::Put(row) => {
                            rows.insert(place, *row);
                        }
                        RowChange::Remove => {
                            rows.remove(&place);
                        }
                    }
                }
                *applied = apply.changes.iter().map(|change| change.position).fold(*applied, u64::max);
                CatalogueAnswer::Applied { refusals: vec![None; apply.changes.len()] }
            }
            CatalogueCall::Get { object_id } => {
                let object = rows.values().find(|row| row.object_id == object_id);
                CatalogueAnswer::Object { object: object.cloned().map(Box::new) }
            }
            CatalogueCall::List { query } => CatalogueAnswer::Page { page: list(rows, &query) },
            CatalogueCall::Count { sync_id } => {
                let counted =
                    rows.values().filter(|row| sync_id.as_ref().is_none_or(|sync_id| row.sync_id == *sync_id));
                CatalogueAnswer::Count { count: counted.count() as u64 }
            }
            CatalogueCall::Remove { object_id } => remove(rows, |row| row.object_id == object_id),
            CatalogueCall::ClearSync { sync_id } => remove(rows, |row| row.sync_id == sync_id),
            CatalogueCall::DropSync { sync_id } => {
                // A delivery that comes late is behind it, and is passed over.
                applied.insert(sync_id.clone(), u64::MAX);
                remove(rows, |row| row.sync_id == sync_id)
            }
        })
    }

    /// A sink that delivers the changes of one sync to one bucket.
    pub fn sink<'a, C: Clock>(
        &'a self,
        namespace_id: &'a str,
        target: CatalogueTarget,
        clock: C,
    ) -> CatalogueSink<impl AsyncFn(CatalogueCall) -> Result<CatalogueAnswer, Error> + 'a, C> {
        let bucket_id = target.bucket_id.clone();
        let send = async move |call| self.call(namespace_id, &bucket_id, call);
        CatalogueSink { send, clock, target }
    }
}

fn remove(rows: &mut Rows, goes: impl Fn(&ObjectRecord) -> bool) -> CatalogueAnswer {
    let before = rows.len();
    rows.retain(|_, row| !goes(row));
    CatalogueAnswer::Count { count: (before - rows.len()) as u64 }
}

fn list(rows: &Rows, query: &ObjectQuery) -> ObjectPage {
    let matches = |row: &&ObjectRecord| query.prefix.as_ref().is_none_or(|prefix| row.key.starts_with(prefix));
    let after = |row: &&ObjectRecord| {
        query.cursor.as_ref().is_none_or(|after| (&row.key, &row.object_id) > (&after.key, &after.object_id))
    };
    let mut rest = rows.values().filter(matches).filter(after).skip(query.offset as usize);
    let objects: Vec<_> = rest.by_ref().take(query.limit as usize).cloned().collect();
    let next = match (rest.next(), objects.last()) {
        (Some(_), Some(last)) => Some(ObjectCursor { key: last.key.clone(), object_id: last.object_id.clone() }),
        _ => None,
    };
    let total = query.include_total.then(|| rows.values().filter(matches).count() as u64);
    ObjectPage { objects, next, total }
}

impl MemoryCatalogue {
    fn objects(&self) -> RemoteObjects<impl AsyncFn(&str, &str, CatalogueCall) -> Result<CatalogueAnswer, Error>> {
        RemoteObjects(async |namespace: &str, bucket: &str, call| self.call(namespace, bucket, call))
    }
}

impl Objects for MemoryCatalogue {
    async fn get(&self, namespace_id: &str, bucket_id: &str, object_id: &str) -> Result<Option<ObjectRecord>, Error> {
        self.objects().get(namespace_id, bucket_id, object_id).await
    }

    async fn list(&self, query: &ObjectQuery) -> Result<ObjectPage, Error> {
        self.objects().list(query).await
    }

    async fn count_of_sync(&self, namespace_id: &str, bucket_id: &str, sync_id: &str) -> Result<u64, Error> {
        self.objects().count_of_sync(namespace_id, bucket_id, sync_id).await
    }

    async fn remove(&self, namespace_id: &str, bucket_id: &str, object_id: &str) -> Result<bool, Error> {
        self.objects().remove(namespace_id, bucket_id, object_id).await
    }

    async fn clear_sync(&self, namespace_id: &str, bucket_id: &str, sync_id: &str) -> Result<u64, Error> {
        self.objects().clear_sync(namespace_id, bucket_id, sync_id).await
    }

    async fn drop_sync(&self, namespace_id: &str, bucket_id: &str, sync_id: &str) -> Result<u64, Error> {
        self.objects().drop_sync(namespace_id, bucket_id, sync_id).await
    }
}

#[cfg(test)]
mod tests;
