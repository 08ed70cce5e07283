//! The pure model of an account: buckets, files with versions, hide markers, large uploads and application keys.
//!
//! It knows nothing of HTTP, and every instant is an argument. Invariants:
//! - the versions of a key are ordered by *upload time* (then by arrival), newest first, and only the newest is
//!   visible: a backdated upload, or a large upload that was started earlier, may land *behind* a version that is
//!   already there;
//! - a large upload is invisible until it is finished, and then carries the time of its **start**;
//! - listing a page costs its own length and a tree look-up, whatever the size of the bucket.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use b2sync_core::time::Timestamp;
use bytes::Bytes;
use chrono::SecondsFormat;
use serde::Deserialize;

use super::content::Content;
use super::keys::{ApplicationKey, NewKey};

/// The longest file name B2 accepts, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 1_024;

/// Why the model refused a change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// No bucket of that name; names are case-sensitive.
    #[error("there is no bucket {0:?}")]
    NoSuchBucket(String),
    /// The name is taken.
    #[error("there is a bucket {0:?} already")]
    BucketExists(String),
    /// Not 6 to 63 of `[A-Za-z0-9.-]`.
    #[error("{0:?} is no bucket name: 6 to 63 letters, digits, hyphens or dots")]
    BadBucketName(String),
    /// Empty, or longer than [`KEY_BYTES_MAX`].
    #[error("a key has 1 to {KEY_BYTES_MAX} bytes, this one has {0}")]
    BadKeyLength(usize),
    /// No such key, or no such version of it.
    #[error("there is no such file or version: {0:?}")]
    NoSuchFile(String),
    /// No large upload was started under that id, or it is finished.
    #[error("there is no unfinished large upload {0:?}")]
    NoSuchUpload(String),
    /// No such application key.
    #[error("there is no application key {0:?}")]
    NoSuchKey(String),
}

/// How a listing is sorted. B2's order is not documented, so a client must survive both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyOrder {
    /// By the bytes of UTF-8, as Amazon S3.
    #[default]
    Utf8,
    /// By UTF-16 code units, as a Java string compares: emoji come before U+E000 to U+FFFF.
    Utf16,
}

/// Bytes whose plain order is the listing's order.
type SortKey = Box<[u8]>;

impl KeyOrder {
    fn sort_key(self, key: &str) -> SortKey {
        match self {
            Self::Utf8 => key.as_bytes().into(),
            Self::Utf16 => key.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        }
    }
}

/// A file to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// The bytes, or their description.
    pub content: Content,
    /// `Content-Type`.
    pub content_type: String,
    /// `fileInfo`: `x-amz-meta-*` on the S3 side. Names are lower-cased when stored.
    pub info: BTreeMap<String, String>,
}

impl NewFile {
    /// A file that holds `bytes`.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::of(Content::Held(bytes.into()))
    }

    /// A file of `size` bytes that are computed from `seed` when they are read.
    pub fn generated(seed: u64, size: u64) -> Self {
        Self::of(Content::Generated { seed, size })
    }

    fn of(content: Content) -> Self {
        Self { content, content_type: "application/octet-stream".to_owned(), info: BTreeMap::new() }
    }

    /// With this `Content-Type`.
    #[must_use]
    pub fn with_content_type(mut self, content_type: &str) -> Self {
        content_type.clone_into(&mut self.content_type);
        self
    }

    /// With this `fileInfo` entry.
    #[must_use]
    pub fn with_info(mut self, name: &str, value: &str) -> Self {
        self.info.insert(name.to_lowercase(), value.to_owned());
        self
    }
}

/// A stored file version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// What was stored.
    pub file: NewFile,
    /// Without quotes.
    pub etag: String,
}

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The file name.
    pub key: Arc<str>,
    /// Upload time: for a large upload, of its start.
    pub uploaded_at: Timestamp,
    /// [`Self::uploaded_at`] as a listing writes it: `2024-01-01T00:00:00.000Z`.
    pub last_modified: Box<str>,
    /// The file, or `None` for a hide marker.
    pub stored: Option<StoredFile>,
    /// Order of arrival in the account.
    serial: u64,
}

impl Version {
    fn new(key: Arc<str>, uploaded_at: Timestamp, stored: Option<StoredFile>, serial: u64) -> Arc<Self> {
        let last_modified = match uploaded_at.to_chrono() {
            Some(time) => time.to_rfc3339_opts(SecondsFormat::Millis, true),
            None => uploaded_at.to_string(),
        };
        Arc::new(Self { key, uploaded_at, last_modified: last_modified.into(), stored, serial })
    }

    /// The file id, unique in the account.
    pub fn id(&self) -> String {
        format!("4_z{:016x}_u{:013}", self.serial, self.uploaded_at.as_millis())
    }
}

/// What a listing shows of a key: the truth that a test compares a sync with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VisibleFile {
    /// The file name.
    pub key: String,
    /// Without quotes.
    pub etag: String,
    /// In bytes.
    pub size: u64,
    /// Upload time.
    pub last_modified: Timestamp,
}

#[derive(Clone, Debug)]
struct LargeUpload {
    key: Arc<str>,
    content_type: String,
    info: BTreeMap<String, String>,
    started_at: Timestamp,
}

/// A bucket.
#[derive(Debug)]
pub struct Bucket {
    id: String,
    /// By listing order; the versions of a key newest first, never none.
    files: BTreeMap<SortKey, Vec<Arc<Version>>>,
    uploads: BTreeMap<String, LargeUpload>,
}

impl Bucket {
    /// The bucket id, which outlives no bucket: deleting and creating again gives another one.
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery<'a> {
    /// Only keys that start with it.
    pub prefix: &'a str,
    /// Roll up what follows its first occurrence after the prefix; never empty.
    pub delimiter: Option<&'a str>,
    /// Where to start; `None` is the beginning.
    pub from: Option<Position>,
    /// Keys and common prefixes together.
    pub max_keys: usize,
}

/// A place between two keys of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position(pub(super) Vec<u8>);

/// One page of a listing.
#[derive(Clone, Debug, Default)]
pub struct ListPage {
    /// Visible versions, in listing order.
    pub entries: Vec<Arc<Version>>,
    /// Rolled-up prefixes, in listing order.
    pub common_prefixes: Vec<String>,
    /// Where the next page starts; `None` when this is the last one.
    pub next: Option<Position>,
}

/// An account.
#[derive(Debug)]
pub struct Model {
    order: KeyOrder,
    account_id: String,
    buckets: BTreeMap<String, Bucket>,
    keys: BTreeMap<String, ApplicationKey>,
    serial: u64,
}

impl Model {
    /// An empty account whose listings are sorted by `order`.
    pub fn new(order: KeyOrder) -> Self {
        Self {
            order,
            account_id: "b2f4ce000001".to_owned(),
            buckets: BTreeMap::new(),
            keys: BTreeMap::new(),
            serial: 0,
        }
    }

    /// The account id: 12 hex digits, and the key id of the account's master key.
    pub fn account_id(&self) -> &str {
        &self.account_id
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    // ---- buckets -------------------------------------------------------------------------------------------------

    /// Creates a bucket; returns its id.
    ///
    /// # Errors
    /// The name is taken or against the rules.
    pub fn create_bucket(&mut self, name: &str) -> Result<String, ModelError> {
        let fits = (6..=63).contains(&name.len());
        if !fits || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.') {
            return Err(ModelError::BadBucketName(name.to_owned()));
        }
        if self.buckets.contains_key(name) {
            return Err(ModelError::BucketExists(name.to_owned()));
        }
        let serial = self.next_serial();
        let id = format!("{}{serial:012x}", self.account_id);
        let bucket = Bucket { id: id.clone(), files: BTreeMap::new(), uploads: BTreeMap::new() };
        self.buckets.insert(name.to_owned(), bucket);
        Ok(id)
    }

    /// Deletes a bucket and all it holds. Keys restricted to it stay, and name a bucket that is gone.
    ///
    /// # Errors
    /// There is no such bucket.
    pub fn delete_bucket(&mut self, name: &str) -> Result<(), ModelError> {
        self.buckets.remove(name).map(drop).ok_or_else(|| ModelError::NoSuchBucket(name.to_owned()))
    }

    /// The bucket of that exact name.
    pub fn bucket(&self, name: &str) -> Option<&Bucket> {
        self.buckets.get(name)
    }

    /// The name of the bucket with that id; `None` when it was deleted.
    pub fn bucket_name(&self, id: &str) -> Option<&str> {
        self.buckets.iter().find(|(_, bucket)| bucket.id == id).map(|(name, _)| name.as_str())
    }

    fn bucket_mut(&mut self, name: &str) -> Result<&mut Bucket, ModelError> {
        self.buckets.get_mut(name).ok_or_else(|| ModelError::NoSuchBucket(name.to_owned()))
    }

    // ---- files ---------------------------------------------------------------------------------------------------

    /// Uploads a file with `uploaded_at` as its upload time, which may lie in the past (a *backdated* upload). Under a
    /// key that exists it becomes one more version, visible only when it is the newest by upload time.
    ///
    /// # Errors
    /// No such bucket, or a key of a wrong length.
    pub fn put(
        &mut self,
        bucket: &str,
        key: &str,
        mut file: NewFile,
        uploaded_at: Timestamp,
    ) -> Result<Arc<Version>, ModelError> {
        let key = checked_key(key)?;
        file.info = lower_cased(file.info);
        let etag = file.content.etag();
        self.add_version(bucket, key, uploaded_at, Some(StoredFile { file, etag }))
    }

    /// Hides a key: a hide marker becomes its newest version and listings leave it out. The key need not exist.
    ///
    /// # Errors
    /// No such bucket, or a key of a wrong length.
    pub fn hide(&mut self, bucket: &str, key: &str, at: Timestamp) -> Result<Arc<Version>, ModelError> {
        self.add_version(bucket, checked_key(key)?, at, None)
    }

    fn add_version(
        &mut self,
        bucket: &str,
        key: Arc<str>,
        uploaded_at: Timestamp,
        stored: Option<StoredFile>,
    ) -> Result<Arc<Version>, ModelError> {
        let serial = self.next_serial();
        let sort_key = self.order.sort_key(&key);
        let version = Version::new(key, uploaded_at, stored, serial);
        let versions = self.bucket_mut(bucket)?.files.entry(sort_key).or_default();
        let place = versions.partition_point(|other| other.uploaded_at > uploaded_at);
        versions.insert(place, Arc::clone(&version));
        Ok(version)
    }

    /// Deletes one version for good; the one behind it becomes visible again.
    ///
    /// # Errors
    /// No such bucket, key or version.
    pub fn delete_version(&mut self, bucket: &str, key: &str, version_id: &str) -> Result<(), ModelError> {
        let sort_key = self.order.sort_key(key);
        let files = &mut self.bucket_mut(bucket)?.files;
        let missing = || ModelError::NoSuchFile(key.to_owned());
        let versions = files.get_mut(&sort_key).ok_or_else(missing)?;
        let place = versions.iter().position(|version| version.id() == version_id).ok_or_else(missing)?;
        versions.remove(place);
        if versions.is_empty() {
            files.remove(&sort_key);
        }
        Ok(())
    }

    /// Deletes a key with all its versions.
    ///
    /// # Errors
    /// No such bucket or key.
    pub fn delete_key(&mut self, bucket: &str, key: &str) -> Result<(), ModelError> {
        let sort_key = self.order.sort_key(key);
        let removed = self.bucket_mut(bucket)?.files.remove(&sort_key);
        removed.map(drop).ok_or_else(|| ModelError::NoSuchFile(key.to_owned()))
    }

    /// Starts a large upload of `key`; returns its upload id. Nothing is visible until it is finished. The content of
    /// `file` is ignored here: it comes with [`Self::finish_large`].
    ///
    /// # Errors
    /// No such bucket, or a key of a wrong length.
    pub fn start_large(
        &mut self,
        bucket: &str,
        key: &str,
        file: NewFile,
        started_at: Timestamp,
    ) -> Result<String, ModelError> {
        let key = checked_key(key)?;
        let id = format!("4_zlarge{:016x}", self.next_serial());
        let upload = LargeUpload { key, content_type: file.content_type, info: lower_cased(file.info), started_at };
        self.bucket_mut(bucket)?.uploads.insert(id.clone(), upload);
        Ok(id)
    }

    /// Finishes a large upload: the file appears now, with the time of its start and an ETag that is no MD5.
    ///
    /// # Errors
    /// No such bucket or unfinished upload.
    pub fn finish_large(
        &mut self,
        bucket: &str,
        upload_id: &str,
        content: Content,
    ) -> Result<Arc<Version>, ModelError> {
        const PART_BYTES: u64 = 100_000_000;
        let missing = || ModelError::NoSuchUpload(upload_id.to_owned());
        let upload = self.bucket_mut(bucket)?.uploads.remove(upload_id).ok_or_else(missing)?;
        let parts = u32::try_from(content.size().div_ceil(PART_BYTES)).unwrap_or(u32::MAX).max(1);
        let etag = content.large_etag(self.serial + 1, parts);
        let file = NewFile { content, content_type: upload.content_type, info: upload.info };
        self.add_version(bucket, upload.key, upload.started_at, Some(StoredFile { file, etag }))
    }

    /// The visible version of a key.
    pub fn find(&self, bucket: &str, key: &str) -> Option<Arc<Version>> {
        let newest = self.versions(bucket, key).first()?;
        newest.stored.is_some().then(|| Arc::clone(newest))
    }

    /// All versions of a key, newest first, hide markers included.
    pub fn versions(&self, bucket: &str, key: &str) -> &[Arc<Version>] {
        let versions = self.buckets.get(bucket).and_then(|bucket| bucket.files.get(&self.order.sort_key(key)));
        versions.map_or(&[], Vec::as_slice)
    }

    // ---- listing -------------------------------------------------------------------------------------------------

    /// The position right after `key`.
    pub fn position_after(&self, key: &str) -> Position {
        after_sort_key(&self.order.sort_key(key))
    }

    /// One page of the visible files.
    ///
    /// # Errors
    /// No such bucket.
    pub fn list(&self, bucket: &str, query: &ListQuery<'_>) -> Result<ListPage, ModelError> {
        let files = &self.bucket(bucket).ok_or_else(|| ModelError::NoSuchBucket(bucket.to_owned()))?.files;
        let mut page = ListPage::default();
        if query.max_keys == 0 {
            return Ok(page);
        }
        let mut from = self.order.sort_key(query.prefix).into_vec();
        if let Some(Position(position)) = &query.from
            && *position > from
        {
            from.clone_from(position);
        }
        let mut last = None;
        // Each turn lists up to the next common prefix, and then jumps behind it.
        'jump: loop {
            for (sort_key, versions) in files.range::<[u8], _>((Bound::Included(from.as_slice()), Bound::Unbounded)) {
                let Some(version) = versions.first() else { continue };
                let Some(rest) = version.key.strip_prefix(query.prefix) else { break 'jump };
                if version.stored.is_none() {
                    continue;
                }
                if page.entries.len() + page.common_prefixes.len() == query.max_keys {
                    page.next = last;
                    break 'jump;
                }
                if let Some(delimiter) = query.delimiter
                    && let Some(at) = rest.find(delimiter)
                {
                    let common = &version.key[..query.prefix.len() + at + delimiter.len()];
                    page.common_prefixes.push(common.to_owned());
                    let Some(behind) = behind_prefix(&self.order.sort_key(common)) else { break 'jump };
                    last = Some(Position(behind.clone()));
                    from = behind;
                    continue 'jump;
                }
                page.entries.push(Arc::clone(version));
                last = Some(after_sort_key(sort_key));
            }
            break;
        }
        Ok(page)
    }

    /// Every visible file of a bucket in listing order; empty when there is no such bucket.
    pub fn visible(&self, bucket: &str) -> Vec<VisibleFile> {
        let newest = self.buckets.get(bucket).into_iter().flat_map(|b| b.files.values()).filter_map(|v| v.first());
        newest.filter_map(|version| visible(version)).collect()
    }

    // ---- application keys ----------------------------------------------------------------------------------------

    /// Creates an application key.
    ///
    /// # Errors
    /// A bucket that it names does not exist.
    pub fn create_key(&mut self, new: NewKey) -> Result<ApplicationKey, ModelError> {
        let ids = |names: Vec<String>| {
            let id = |name: String| match self.buckets.get(&name) {
                Some(bucket) => Ok(bucket.id.clone()),
                None => Err(ModelError::NoSuchBucket(name)),
            };
            names.into_iter().map(id).collect::<Result<Vec<_>, _>>()
        };
        let bucket_ids = new.buckets.clone().map(ids).transpose()?;
        let serial = self.next_serial();
        let key = ApplicationKey::new(new, bucket_ids, &self.account_id, serial);
        self.keys.insert(key.key_id.clone(), key.clone());
        Ok(key)
    }

    /// Creates the account's master key, which authorizes but which the S3-compatible API does not know.
    pub fn create_master_key(&mut self) -> ApplicationKey {
        let serial = self.next_serial();
        let mut key = ApplicationKey::new(NewKey::unrestricted(), None, &self.account_id, serial);
        key.key_id.clone_from(&self.account_id);
        key.master = true;
        self.keys.insert(key.key_id.clone(), key.clone());
        key
    }

    /// Deletes an application key.
    ///
    /// # Errors
    /// There is no such key.
    pub fn delete_application_key(&mut self, key_id: &str) -> Result<(), ModelError> {
        self.keys.remove(key_id).map(drop).ok_or_else(|| ModelError::NoSuchKey(key_id.to_owned()))
    }

    /// The application key of that id, expired or not.
    pub fn application_key(&self, key_id: &str) -> Option<&ApplicationKey> {
        self.keys.get(key_id)
    }
}

fn visible(version: &Version) -> Option<VisibleFile> {
    let stored = version.stored.as_ref()?;
    Some(VisibleFile {
        key: version.key.to_string(),
        etag: stored.etag.clone(),
        size: stored.file.content.size(),
        last_modified: version.uploaded_at,
    })
}

fn checked_key(key: &str) -> Result<Arc<str>, ModelError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(ModelError::BadKeyLength(key.len()));
    }
    Ok(key.into())
}

fn lower_cased(info: BTreeMap<String, String>) -> BTreeMap<String, String> {
    info.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect()
}

/// Before every longer key that starts with this one, and after the key itself.
fn after_sort_key(sort_key: &[u8]) -> Position {
    Position([sort_key, &[0]].concat())
}

/// The first bytes that sort after everything that starts with `prefix`; `None` when nothing can.
fn behind_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let (place, byte) = prefix.iter().enumerate().rfind(|(_, byte)| **byte < u8::MAX)?;
    let mut behind = prefix.get(..place)?.to_vec();
    behind.push(byte + 1);
    Some(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUCKET: &str = "my-bucket";

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn model(order: KeyOrder, keys: &[&str]) -> Model {
        let mut model = Model::new(order);
        model.create_bucket(BUCKET).unwrap();
        for key in keys {
            model.put(BUCKET, key, NewFile::generated(1, 10), at(0)).unwrap();
        }
        model
    }

    fn keys(model: &Model) -> Vec<String> {
        model.visible(BUCKET).into_iter().map(|file| file.key).collect()
    }

    /// All pages of `max_keys`: keys, then common prefixes.
    fn pages(model: &Model, prefix: &str, delimiter: Option<&str>, max_keys: usize) -> (Vec<String>, Vec<String>) {
        let mut all = (Vec::new(), Vec::new());
        let mut query = ListQuery { prefix, delimiter, from: None, max_keys };
        for _ in 0..1_000 {
            let page = model.list(BUCKET, &query).unwrap();
            assert!(page.entries.len() + page.common_prefixes.len() <= max_keys);
            all.0.extend(page.entries.iter().map(|version| version.key.to_string()));
            all.1.extend(page.common_prefixes);
            match page.next {
                Some(next) => query.from = Some(next),
                None => return all,
            }
        }
        panic!("the listing never ends");
    }

    const TREE: &[&str] =
        &["/lead", "a", "a/", "a/1", "a/2", "a//3", "a/b/4", "b", "b/1", "c", "d/1", "ß/x", "\u{ffff}/1", "😀/1"];

    #[test]
    fn every_page_size_gives_the_same_whole() {
        for order in [KeyOrder::Utf8, KeyOrder::Utf16] {
            let model = model(order, TREE);
            for prefix in ["", "a", "a/", "d/1", "nothing", "\u{ffff}"] {
                for delimiter in [None, Some("/"), Some("1"), Some("/b/")] {
                    let whole = pages(&model, prefix, delimiter, 1_000);
                    for max_keys in 1..=TREE.len() + 1 {
                        let context = format!("{order:?} {prefix:?} {delimiter:?} {max_keys}");
                        assert_eq!(pages(&model, prefix, delimiter, max_keys), whole, "{context}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_delimiter_rolls_up_what_follows_it() {
        let model = model(KeyOrder::Utf8, TREE);
        let (keys, prefixes) = pages(&model, "", Some("/"), 3);
        assert_eq!(keys, ["a", "b", "c"]);
        assert_eq!(prefixes, ["/", "a/", "b/", "d/", "ß/", "\u{ffff}/", "😀/"]);
        let (keys, prefixes) = pages(&model, "a/", Some("/"), 3);
        assert_eq!(keys, ["a/", "a/1", "a/2"]);
        assert_eq!(prefixes, ["a//", "a/b/"]);
    }

    #[test]
    fn the_two_orders_differ_only_above_the_surrogates() {
        let odd = &["\u{ff5e}tilde", "😀smile", "z"];
        assert_eq!(keys(&model(KeyOrder::Utf8, odd)), ["z", "\u{ff5e}tilde", "😀smile"]);
        assert_eq!(keys(&model(KeyOrder::Utf16, odd)), ["z", "😀smile", "\u{ff5e}tilde"]);
    }

    #[test]
    fn only_the_newest_version_by_upload_time_is_visible() {
        let mut model = model(KeyOrder::Utf8, &[]);
        let put = |model: &mut Model, text: &'static str, time| {
            model.put(BUCKET, "k", NewFile::bytes(text), at(time)).unwrap().id()
        };
        let etag = |model: &Model| model.visible(BUCKET).first().map(|file| (file.size, file.last_modified));
        put(&mut model, "first", 1_000);
        let second = put(&mut model, "2nd", 2_000);
        put(&mut model, "backdated", 1_500);
        assert_eq!(etag(&model), Some((3, at(2_000))));
        model.delete_version(BUCKET, "k", &second).unwrap();
        assert_eq!(etag(&model), Some((9, at(1_500))), "the one behind shows again");
        let marker = model.hide(BUCKET, "k", at(3_000)).unwrap();
        assert_eq!(etag(&model), None);
        assert!(model.find(BUCKET, "k").is_none());
        model.delete_version(BUCKET, "k", &marker.id()).unwrap();
        assert_eq!(etag(&model), Some((9, at(1_500))));
        model.delete_key(BUCKET, "k").unwrap();
        assert_eq!(etag(&model), None);
        assert_eq!(model.delete_key(BUCKET, "k"), Err(ModelError::NoSuchFile("k".to_owned())));
    }

    #[test]
    fn of_two_versions_in_one_millisecond_the_later_arrival_wins() {
        let mut model = model(KeyOrder::Utf8, &[]);
        model.put(BUCKET, "k", NewFile::bytes("one"), at(5)).unwrap();
        model.put(BUCKET, "k", NewFile::bytes("three"), at(5)).unwrap();
        assert_eq!(model.visible(BUCKET).first().map(|file| file.size), Some(5));
    }

    #[test]
    fn a_large_upload_appears_when_finished_with_the_time_of_its_start() {
        let mut model = model(KeyOrder::Utf8, &[]);
        let id = model.start_large(BUCKET, "big.mp4", NewFile::bytes(""), at(1_000)).unwrap();
        assert!(model.visible(BUCKET).is_empty());
        model.put(BUCKET, "small.txt", NewFile::bytes("x"), at(5_000)).unwrap();
        let content = Content::Generated { seed: 3, size: 250_000_000 };
        model.finish_large(BUCKET, &id, content.clone()).unwrap();
        let files = model.visible(BUCKET);
        let big = files.first().unwrap();
        assert_eq!((big.key.as_str(), big.last_modified), ("big.mp4", at(1_000)));
        assert_ne!(big.etag, content.etag());
        assert!(big.etag.ends_with("-3"), "{}", big.etag);
        let again = model.finish_large(BUCKET, &id, content).unwrap_err();
        assert_eq!(again, ModelError::NoSuchUpload(id));
    }

    #[test]
    fn names_follow_the_rules() {
        let mut model = model(KeyOrder::Utf8, &[]);
        assert_eq!(model.create_bucket("short"), Err(ModelError::BadBucketName("short".to_owned())));
        assert_eq!(model.create_bucket("under_score"), Err(ModelError::BadBucketName("under_score".to_owned())));
        assert_eq!(model.create_bucket(BUCKET), Err(ModelError::BucketExists(BUCKET.to_owned())));
        model.create_bucket("My-Bucket").unwrap();
        let long = "k".repeat(KEY_BYTES_MAX + 1);
        let refused = model.put(BUCKET, &long, NewFile::bytes(""), at(0)).unwrap_err();
        assert_eq!(refused, ModelError::BadKeyLength(1_025));
        model.put(BUCKET, &long[1..], NewFile::bytes(""), at(0)).unwrap();
    }
}
