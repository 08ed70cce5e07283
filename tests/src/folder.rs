//! Blobs, documents and a log of the feed in folders of this machine's disk: for native embedders, and for tests.
//!
//! - [`FolderBlobs`] and [`FolderDocuments`] write into a temporary file, have it written through to the disk, and
//!   rename it: a reader sees the old value or the new one, also after a crash, and never a part.
//! - [`FolderDocuments`] compares and swaps under a lock on a file, which the system releases when its process dies.
//!   Any number of threads and processes of one machine may share a folder; over a network file system the locks
//!   are as good as that file system's.
//! - [`FolderLog`] follows a feed, and writes its changes as JSON lines for other programs to read.
//!
//! Every call blocks until the disk has answered. Where that is too long for a thread of an executor, run the step on
//! one of its own. A crash can leave a file `.tmp…` behind that nothing reads; it may be deleted while nothing runs.

use std::fmt::{Display, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind as IoErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use b2sync_core::change::Change;
use b2sync_core::feed::read::PAGE_CHANGES_MAX;
use b2sync_core::feed::read_changes;
use b2sync_core::snapshot::ContentHash;
use b2sync_core::store::{BlobStore, Document, DocumentStore, Swapped};
use b2sync_core::{Error, ErrorKind, Retry};
use b2sync_service::catalogue::ChangeWire;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

/// The longest name that becomes a file name as it is, in bytes of its encoding; a longer one is hashed. File systems
/// end at 255.
const ENCODED_BYTES_MAX: usize = 200;
/// The version of the documents' header and of the log's lines.
const VERSION: u32 = 1;
/// The longest header of a document, in bytes.
const HEADER_BYTES_MAX: usize = 128;

/// Blobs as files of one folder: see [the module](self).
#[derive(Clone, Debug)]
pub struct FolderBlobs {
    folder: PathBuf,
}

impl FolderBlobs {
    /// In `folder`, which is created where it is missing and should hold nothing else.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when it cannot be created.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = folder.into();
        create(&folder)?;
        Ok(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(file_name("blob", name))
    }
}

impl BlobStore for FolderBlobs {
    async fn get(&self, name: &str) -> Result<Option<Bytes>, Error> {
        read(&self.path(name)).map(|value| value.map(Bytes::from))
    }

    async fn put(&self, name: &str, value: Bytes) -> Result<(), Error> {
        replace(&self.folder, &self.path(name), &[&value])
    }

    async fn delete(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Ok(()) => write_through(&self.folder),
            Err(error) if error.kind() == IoErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("deleted", &path, &error)),
        }
    }
}

/// Documents as files of one folder: see [the module](self).
///
/// A file is one line of JSON (`v`, `revision`, `deleted`) and behind it the value. That of a deleted document stays,
/// with its revision and without a value.
#[derive(Clone, Debug)]
pub struct FolderDocuments {
    folder: PathBuf,
}

/// The first line of a document's file.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    v: u32,
    revision: u64,
    deleted: bool,
    bytes: u64,
}

impl FolderDocuments {
    /// In `folder`, which is created where it is missing and should hold nothing else.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when it cannot be created.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = folder.into();
        create(&folder)?;
        Ok(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(file_name("document", name))
    }

    /// The revision, 0 if the name was never written, and the value if there is one.
    fn read(&self, name: &str) -> Result<(u64, Option<Bytes>), Error> {
        let path = self.path(name);
        let Some(mut bytes) = read(&path)? else { return Ok((0, None)) };
        let end = bytes.iter().take(HEADER_BYTES_MAX).position(|byte| *byte == b'\n');
        let header = end.and_then(|end| serde_json::from_slice::<Header>(bytes.get(..end)?).ok());
        match (end, header) {
            (Some(end), Some(header))
                if header.v == VERSION && header.bytes == (bytes.len() - end - 1) as u64 && header.revision > 0 =>
            {
                let value = Bytes::from(bytes.split_off(end + 1));
                Ok((header.revision, (!header.deleted).then_some(value)))
            }
            _ => Err(corrupt(&path, "it does not begin with the header of a document of this version")),
        }
    }
}

impl DocumentStore for FolderDocuments {
    async fn load(&self, name: &str) -> Result<Option<Document>, Error> {
        let (revision, value) = self.read(name)?;
        Ok(value.map(|value| Document { revision, value }))
    }

    async fn swap(&self, name: &str, expected: u64, value: Option<Bytes>) -> Result<Swapped, Error> {
        let _locked = lock(&self.folder)?;
        let (revision, current) = self.read(name)?;
        if expected != current.map_or(0, |_| revision) {
            return Ok(Swapped::Conflict);
        }
        let revision = revision + 1;
        let bytes = value.as_ref().map_or(0, Bytes::len) as u64;
        let header = Header { v: VERSION, revision, deleted: value.is_none(), bytes };
        let mut header = serde_json::to_vec(&header).map_err(|error| Error::internal(error.to_string()))?;
        header.push(b'\n');
        replace(&self.folder, &self.path(name), &[&header, value.as_deref().unwrap_or_default()])?;
        Ok(Swapped::Done(revision))
    }
}

/// A sync's feed as lines of a log, `feed.jsonl`: see [the module](self).
///
/// A line is one change as JSON: `v` (1), `position`, `id`, `kind` (`created`, `updated`, `deleted`), `key`, `etag`,
/// `size` in bytes, `last_modified` and `found_at` in milliseconds since 1970, `job_id`, and, where there is one,
/// `previous` and `again`. The last line is the cursor, so that every change is in the log once. A crash can leave a
/// part of a line at the end: readers leave it out, and the next [`FolderLog::append`] removes it.
#[derive(Clone, Debug)]
pub struct FolderLog {
    folder: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    v: u32,
    #[serde(flatten)]
    change: ChangeWire,
}

impl FolderLog {
    /// In `folder`, which is created where it is missing and should hold nothing else.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when it cannot be created.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = folder.into();
        create(&folder)?;
        Ok(Self { folder })
    }

    /// The log.
    pub fn path(&self) -> PathBuf {
        self.folder.join("feed.jsonl")
    }

    /// Every change in the log, in order.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`]; [`ErrorKind::StateCorrupt`] when a whole line is no change of this version.
    pub fn changes(&self) -> Result<Vec<Change>, Error> {
        let path = self.path();
        let log = read(&path)?.unwrap_or_default();
        let whole = log.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = log.get(..whole).unwrap_or_default().split_inclusive(|byte| *byte == b'\n');
        (1_u64..).zip(lines).map(|(number, line)| parse(&path, &format!("line {number}"), line)).collect()
    }

    /// Writes the changes of the sync's feed that are not in the log yet. Answers the position of the last one in the
    /// log: up to there the feed may be forgotten.
    ///
    /// # Errors
    /// As [`Self::append`], and as [`read_changes`].
    pub async fn follow<B: BlobStore, D: DocumentStore>(
        &self,
        blobs: &B,
        documents: &D,
        sync_id: &str,
    ) -> Result<u64, Error> {
        let mut cursor = self.append(&[])?;
        loop {
            let page = read_changes(blobs, documents, sync_id, Some(cursor), PAGE_CHANGES_MAX).await?;
            if page.changes.is_empty() {
                return Ok(cursor);
            }
            cursor = self.append(&page.changes)?;
        }
    }

    /// Writes those of the changes that come after the last one in the log. Answers the position of the last one then,
    /// 0 if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`]; [`ErrorKind::StateCorrupt`] when the last whole line is no change of this version.
    pub fn append(&self, changes: &[Change]) -> Result<u64, Error> {
        let _locked = lock(&self.folder)?;
        let path = self.path();
        let wrong = |error| failed("written", &path, &error);
        let new = !path.exists();
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut log = options.map_err(wrong)?;
        let last = last_whole_line(&mut log).map_err(wrong)?;
        let end = log.stream_position().map_err(wrong)?;
        let cursor = if last.is_empty() { 0 } else { parse(&path, "the last line", &last)?.position };
        let mut lines = Vec::new();
        for change in changes.iter().filter(|change| change.position > cursor) {
            let line = Line { v: VERSION, change: ChangeWire::from(change) };
            serde_json::to_writer(&mut lines, &line).map_err(|error| Error::internal(error.to_string()))?;
            lines.push(b'\n');
        }
        log.set_len(end).map_err(wrong)?;
        log.write_all(&lines).map_err(wrong)?;
        log.sync_data().map_err(wrong)?;
        if new {
            write_through(&self.folder)?;
        }
        Ok(changes.last().map_or(cursor, |change| change.position.max(cursor)))
    }
}

fn parse(path: &Path, which: &str, line: &[u8]) -> Result<Change, Error> {
    match serde_json::from_slice::<Line>(line) {
        Ok(Line { v: VERSION, change }) => Ok(change.into()),
        Ok(Line { v, .. }) => Err(corrupt(path, format!("{which} has version {v}"))),
        Err(error) => Err(corrupt(path, format!("{which} is no change ({error})"))),
    }
}

/// The last whole line, empty if there is none; the log then stands behind it. Reads backwards, because the log may be
/// large.
fn last_whole_line(log: &mut File) -> std::io::Result<Vec<u8>> {
    let end = log.seek(SeekFrom::End(0))?;
    let end = line_start(log, end)?;
    let start = line_start(log, end.saturating_sub(1))?;
    let mut line = vec![0; (end - start) as usize];
    log.seek(SeekFrom::Start(start))?;
    log.read_exact(&mut line)?;
    Ok(line)
}

/// Where the line begins that holds the byte before `end`, if there is one.
fn line_start(log: &mut File, mut end: u64) -> std::io::Result<u64> {
    let mut chunk = [0; 4 << 10];
    while end > 0 {
        let begin = end.saturating_sub(chunk.len() as u64);
        let part = &mut chunk[..(end - begin) as usize];
        log.seek(SeekFrom::Start(begin))?;
        log.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

/// The file that a name is kept in: the kind, and the name with every byte but `a`–`z`, `0`–`9`, `-` and `_` as `%` and
/// two digits. So no name leaves the folder, none is special to a system, and names that differ in case or in the form
/// of an accent only stay apart where the file system takes those for one.
fn file_name(kind: &str, name: &str) -> String {
    let mut encoded = format!("{kind}-");
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => encoded.push(char::from(byte)),
            _ => {
                let _ = write!(encoded, "%{byte:02x}");
            }
        }
        if encoded.len() > ENCODED_BYTES_MAX {
            // `=` stands in no encoding.
            return format!("{kind}={}", ContentHash::of(name.as_bytes()));
        }
    }
    encoded
}

fn create(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|error| failed("created", folder, &error))
}

/// The whole file; `None` when there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == IoErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path, &error)),
    }
}

/// Puts a file with these parts into `path`, at once and durably.
fn replace(folder: &Path, path: &Path, parts: &[&[u8]]) -> Result<(), Error> {
    let wrong = |error: &dyn Display| failed("written", path, error);
    let mut file = NamedTempFile::with_prefix_in(".tmp", folder).map_err(|error| wrong(&error))?;
    for part in parts {
        file.write_all(part).map_err(|error| wrong(&error))?;
    }
    file.as_file().sync_all().map_err(|error| wrong(&error))?;
    file.persist(path).map_err(|error| wrong(&error))?;
    write_through(folder)
}

/// Has the folder itself written to the disk: the names in it.
fn write_through(folder: &Path) -> Result<(), Error> {
    // Windows opens no folder as a file, and writes names through by itself.
    if cfg!(unix) {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| failed("written", folder, &error))?;
    }
    Ok(())
}

/// Waits until no other process holds the folder's lock. Dropping the file releases it, and so does the end of the
/// process.
fn lock(folder: &Path) -> Result<File, Error> {
    let path = folder.join(".lock");
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let locked = opened.and_then(|file| file.lock().map(|()| file));
    locked.map_err(|error| failed("locked", &path, &error))
}

fn failed(what: &str, path: &Path, error: &(impl Display + ?Sized)) -> Error {
    Error::new(
        ErrorKind::Storage,
        format!("{} could not be {what}: {error}.", path.display()),
        "Check that the folder is there, may be written, and that its disk is not full.",
    )
    .with_retry(Retry::Temporary)
}

fn corrupt(path: &Path, why: impl Display) -> Error {
    Error::new(
        ErrorKind::StateCorrupt,
        format!("{} cannot be read: {why}.", path.display()),
        "Use the version of b2sync that wrote it, or restore the folder from a backup.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_plain_and_apart() {
        let name = format!("segment/{}", ContentHash::of(b""));
        assert_eq!(file_name("blob", &name), name.replace("segment/", "blob-segment%2f"));
        assert_eq!(file_name("blob", ".."), "blob-%2e%2e");
        assert_eq!(file_name("blob", "A\\b:\0"), "blob-%41%5cb%3a%00");
        assert_eq!(file_name("blob", ""), "blob-");
        let long = "a/".repeat(200);
        assert_eq!(file_name("blob", &long), format!("blob={}", ContentHash::of(long.as_bytes())));
        assert!(file_name("document", &"é".repeat(33)).len() < 255);
    }
}
