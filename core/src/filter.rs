//! Which entries a sync takes.
//!
//! [`FilterSpec`] is what the user wrote, [`Filter`] is the same made ready for a listing of a million keys. A filter
//! decides from an [`EntryRef`] alone; it never moves a cursor, so an object that begins or ceases to match is found by
//! the comparison with the snapshot.
//!
//! **Patterns** are globs as [`globset`] reads them:
//! - without `/`: the file's base name, in any folder; with `/`: the path from the source root ([`SourcePath::root`]);
//!   a leading `/` or `./` anchors a pattern there: `/*.mp4` is what is in no folder;
//! - with `/` at the end: all below the folder. `drafts/` is a folder of that name at any depth, `/drafts/` and
//!   `a/drafts/` count from the source root, as gitignore has it;
//! - `*` is any run of characters but `/`, `**` any run of whole folders (`a/**` is all below `a`, `**/b` is `b` at
//!   any depth; as a part of a name it is refused), `{a,b}` is either, `\` takes the next character literally;
//! - `?` and `[abc]` stand for one ASCII character. They count bytes of UTF-8, so another letter needs `*` or `{é,è}`;
//!   a class that names one is refused rather than left to match by halves;
//! - case counts, as it does in B2; extensions and MIME types ignore it.
//!
//! A folder marker ([`is_folder_marker`]) is left out unless [`FilterSpec::include_folder_markers`] takes it. Then it
//! is an ordinary entry; the base name of a key that ends with `/` is empty: `*` matches it, `*.mp4` does not.

mod items;
mod pattern;
mod patterns;
mod seen;
mod shape;

use std::fmt;

pub use self::seen::{SIBLINGS_MAX, Seen, SeenRecord, UNREADABLE_SHOWN_MAX};
use self::{items::Items, patterns::PatternSet, shape::Path};
use crate::{
    entry::EntryRef,
    error::{Error, ErrorKind, quoted},
    mime,
    source_path::SourcePath,
    time::Timestamp,
};

/// The most items in one list of a [`FilterSpec`].
pub const LIST_ITEMS_MAX: usize = 100;
/// The longest item of a list, in bytes.
pub const ITEM_BYTES_MAX: usize = 1_024;
/// What the patterns of one list take together at most, in bytes, except those without a wildcard: each byte of the
/// others takes several hundred while they are compiled. A hundred patterns of 160 bytes fit.
pub const WILDCARD_PATTERNS_BYTES_MAX: usize = 16 << 10;

/// The filters of a sync as its user wrote them. All are ANDed; excludes win. Empty means: no such filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterSpec {
    /// Globs, of which at least one must match. One without `/` matches the base name in any folder, one with `/`
    /// the path from the sync's source root.
    pub include_patterns: Vec<String>,
    /// Globs, of which none may match.
    pub exclude_patterns: Vec<String>,
    /// File name extensions, with or without the dot, in any case.
    pub extensions: Vec<String>,
    /// Smallest size taken, in bytes.
    pub min_size_bytes: Option<u64>,
    /// Largest size taken, in bytes.
    pub max_size_bytes: Option<u64>,
    /// Only files whose last modified is later than this.
    pub modified_after: Option<Timestamp>,
    /// Only files whose last modified is earlier than this.
    pub modified_before: Option<Timestamp>,
    /// MIME types (`image/png`, `image/*`), as guessed from the file name: a listing has none. Other names of a type
    /// (`image/jpg`) mean the same.
    pub mime_types: Vec<String>,
    /// Take folder markers too: empty files that tools leave where they make a folder ([`is_folder_marker`]).
    pub include_folder_markers: bool,
}

/// Whether a file only stands for a folder: it is empty, and its key ends with `/`, its name is `.bzEmpty` (Backblaze's
/// console), or it ends with `_$folder$` (Hadoop).
#[cold]
pub fn is_folder_marker(entry: EntryRef<'_>) -> bool {
    entry.size == 0
        && (entry.key.ends_with('/')
            || entry.key.ends_with("_$folder$")
            || entry.key.strip_suffix(".bzEmpty").is_some_and(|before| before.is_empty() || before.ends_with('/')))
}

impl FilterSpec {
    /// 64 hexadecimal digits that differ when the filters do: the BLAKE3 hash of a canonical form. The order of a list,
    /// repetitions, and the case and dot of an extension do not count.
    ///
    /// ```
    /// use b2sync_core::filter::FilterSpec;
    /// let one = FilterSpec { extensions: vec![".MP4".into(), "mov".into()], ..FilterSpec::default() };
    /// let same = FilterSpec { extensions: vec!["mov".into(), "mp4".into()], ..FilterSpec::default() };
    /// assert_eq!(one.fingerprint(), same.fingerprint());
    /// assert_ne!(one.fingerprint(), FilterSpec::default().fingerprint());
    /// ```
    pub fn fingerprint(&self) -> String {
        fn add_list(hasher: &mut blake3::Hasher, mut items: Vec<String>) {
            items.sort_unstable();
            items.dedup();
            hasher.update(&(items.len() as u64).to_le_bytes());
            for item in &items {
                hasher.update(&(item.len() as u64).to_le_bytes());
                hasher.update(item.as_bytes());
            }
        }
        fn add_number(hasher: &mut blake3::Hasher, number: Option<[u8; 8]>) {
            hasher.update(&[u8::from(number.is_some())]);
            hasher.update(&number.unwrap_or_default());
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"b2sync filter v1");
        add_list(&mut hasher, self.include_patterns.clone());
        add_list(&mut hasher, self.exclude_patterns.clone());
        add_list(&mut hasher, self.extensions.iter().map(|extension| bare_extension(extension)).collect());
        add_list(&mut hasher, self.mime_types.iter().map(|mime| mime.to_ascii_lowercase()).collect());
        add_number(&mut hasher, self.min_size_bytes.map(u64::to_le_bytes));
        add_number(&mut hasher, self.max_size_bytes.map(u64::to_le_bytes));
        add_number(&mut hasher, self.modified_after.map(|time| time.as_millis().to_le_bytes()));
        add_number(&mut hasher, self.modified_before.map(|time| time.as_millis().to_le_bytes()));
        if !self.mime_types.is_empty() {
            hasher.update(mime::TABLE_VERSION.as_bytes());
        }
        hasher.update(&[u8::from(self.include_folder_markers)]);
        hasher.finalize().to_hex().to_string()
    }
}

/// A [`FilterSpec`], checked and compiled for one source path.
///
/// ```
/// use b2sync_core::{entry::Entry, filter::{Filter, FilterSpec, Verdict}, source_path::SourcePath, time::Timestamp};
///
/// let spec = FilterSpec {
///     include_patterns: vec!["*.mp4".into(), "raw/**".into()],
///     exclude_patterns: vec!["*_thumbnail.*".into()],
///     ..FilterSpec::default()
/// };
/// let filter = Filter::compile(&spec, &SourcePath::parse("b2://my-videos/2024/")?)?;
/// let last_modified = Timestamp::from_millis(0);
/// let entry = |key: &str| Entry { key: key.into(), etag: "e".into(), size: 1, last_modified };
/// assert!(filter.matches(&entry("2024/a/b.mp4")));
/// assert!(filter.matches(&entry("2024/raw/b.mov")));
/// assert!(!filter.matches(&entry("2024/a/raw/b.mov")));
/// assert_eq!(filter.explain(&entry("2024/b_thumbnail.mp4")), Verdict::Excluded { pattern: "*_thumbnail.*" });
/// # Ok::<(), b2sync_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Filter {
    spec: FilterSpec,
    source: SourcePath,
    /// How long its prefix is, where that need not end with a folder: what lies beside the folder is taken too.
    open_prefix_bytes: Option<usize>,
    fingerprint: String,
    include: PatternSet,
    exclude: PatternSet,
    /// Lower case, each with its dot.
    extensions: Items<String>,
    min_size_bytes: u64,
    max_size_bytes: u64,
    modified_after: Option<Timestamp>,
    modified_before: Option<Timestamp>,
    mime_types: Items<MimePattern>,
    include_folder_markers: bool,
    /// Whether nothing is asked of the key.
    takes_any_name: bool,
}

/// What a [`Filter`] says of one entry, and which of its parts said it. The parts are asked in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict<'f> {
    /// The sync takes it.
    Accepted,
    /// It only stands for a folder, and `include_folder_markers` is not set.
    FolderMarker,
    /// Below `min_size_bytes`.
    TooSmall,
    /// Above `max_size_bytes`.
    TooLarge,
    /// Not later than `modified_after` (`modified_since`).
    TooOld,
    /// Not earlier than `modified_before`.
    TooNew,
    /// None of `extensions`.
    OtherExtension,
    /// None of `mime_types`.
    OtherMimeType,
    /// None of `include_patterns`.
    NotIncluded,
    /// One of `exclude_patterns`.
    Excluded {
        /// The pattern as its user wrote it.
        pattern: &'f str,
    },
}

impl Verdict<'_> {
    /// One of each kind, except [`Self::Accepted`].
    pub(crate) const REFUSALS: [Self; 9] = [
        Self::FolderMarker,
        Self::TooSmall,
        Self::TooLarge,
        Self::TooOld,
        Self::TooNew,
        Self::OtherExtension,
        Self::OtherMimeType,
        Self::NotIncluded,
        Self::Excluded { pattern: "" },
    ];

    /// Its place among all.
    const fn place(self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::FolderMarker => 1,
            Self::TooSmall => 2,
            Self::TooLarge => 3,
            Self::TooOld => 4,
            Self::TooNew => 5,
            Self::OtherExtension => 6,
            Self::OtherMimeType => 7,
            Self::NotIncluded => 8,
            Self::Excluded { .. } => 9,
        }
    }

    /// The field of the sync that rejects, as `file_filters.…`; `None` when accepted.
    pub const fn field(self) -> Option<&'static str> {
        Some(match self {
            Self::Accepted => return None,
            Self::FolderMarker => "file_filters.include_folder_markers",
            Self::TooSmall => "file_filters.min_size_bytes",
            Self::TooLarge => "file_filters.max_size_bytes",
            Self::TooOld => "file_filters.modified_after",
            Self::TooNew => "file_filters.modified_before",
            Self::OtherExtension => "file_filters.extensions",
            Self::OtherMimeType => "file_filters.mime_types",
            Self::NotIncluded => "file_filters.include_patterns",
            Self::Excluded { .. } => "file_filters.exclude_patterns",
        })
    }
}

/// Words that follow the key: `a.tmp matches the exclude pattern "*.tmp"`.
impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "passes every filter",
            Self::FolderMarker => "is a folder marker, and include_folder_markers is false",
            Self::TooSmall => "is smaller than min_size_bytes",
            Self::TooLarge => "is larger than max_size_bytes",
            Self::TooOld => "was not modified after modified_after",
            Self::TooNew => "was not modified before modified_before",
            Self::OtherExtension => "has none of the extensions",
            Self::OtherMimeType => "has none of the MIME types, as guessed from its name",
            Self::NotIncluded => "matches none of the include patterns",
            Self::Excluded { pattern } => return write!(f, "matches the exclude pattern {}", quoted(pattern)),
        })
    }
}

impl Filter {
    /// Differs where the source path or the filters do: what was compared under others is not compared with these.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Checks and compiles `spec` for keys below `source`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], naming the field (`file_filters.include_patterns[2]`) and quoting its value: a glob
    /// that cannot be read, an empty or over-long item, too long a list, or too much of it with wildcards, a MIME type
    /// that no file name stands for, and bounds between which nothing lies.
    pub fn compile(spec: &FilterSpec, source: &SourcePath) -> Result<Self, Error> {
        let (min_size_bytes, max_size_bytes) =
            (spec.min_size_bytes.unwrap_or(0), spec.max_size_bytes.unwrap_or(u64::MAX));
        if min_size_bytes > max_size_bytes {
            return Err(invalid(
                "min_size_bytes",
                format!("No file has at least {min_size_bytes} bytes and at most {max_size_bytes}."),
                "Exchange min_size_bytes and max_size_bytes, or leave one out.",
            ));
        }
        if let (Some(after), Some(before)) = (spec.modified_after, spec.modified_before)
            && after >= before
        {
            return Err(invalid(
                "modified_after",
                format!("No file was modified after {after} and before {before}."),
                "Exchange modified_after and modified_before, or leave one out.",
            ));
        }
        let extensions = compile_extensions(&spec.extensions)?;
        let mime_types = compile_mime_types(&spec.mime_types)?;
        let include = PatternSet::compile("include_patterns", &spec.include_patterns, source)?;
        let exclude = PatternSet::compile("exclude_patterns", &spec.exclude_patterns, source)?;
        let takes_any_name = extensions.is_empty() && mime_types.is_empty() && include.is_empty() && exclude.is_empty();
        let prefix = source.prefix();
        Ok(Self {
            spec: spec.clone(),
            source: source.clone(),
            open_prefix_bytes: (!prefix.is_empty() && !prefix.ends_with('/')).then_some(prefix.len()),
            fingerprint: format!("{source} {}", spec.fingerprint()),
            include,
            exclude,
            takes_any_name,
            extensions,
            min_size_bytes,
            max_size_bytes,
            modified_after: spec.modified_after,
            modified_before: spec.modified_before,
            mime_types,
            include_folder_markers: spec.include_folder_markers,
        })
    }

    /// Whether the sync takes `entry`. One that cannot be read is judged by its name alone.
    pub fn matches<'e>(&self, entry: impl Into<EntryRef<'e>>) -> bool {
        matches!(self.explain(entry), Verdict::Accepted)
    }

    /// Whether the sync takes `entry`, and if not, which filter says so: what answers "nothing matched".
    pub fn explain<'e>(&self, entry: impl Into<EntryRef<'e>>) -> Verdict<'_> {
        self.decide(entry.into(), None)
    }

    /// [`Self::matches`], noting what is `seen` of the filters.
    pub fn takes(&self, entry: EntryRef<'_>, seen: &Seen) -> bool {
        let verdict = self.decide(entry, Some(seen));
        if verdict != Verdict::Accepted {
            seen.note_left_out(verdict);
            return false;
        }
        if let Some(bytes) = self.open_prefix_bytes {
            seen.note_place(entry.key.get(bytes..).unwrap_or_default(), || {
                let relative = self.source.relative(entry.key);
                relative.split_inclusive('/').next().unwrap_or_default()
            });
        }
        true
    }

    #[inline(always)]
    fn decide(&self, entry: EntryRef<'_>, seen: Option<&Seen>) -> Verdict<'_> {
        if entry.is_unreadable() {
            return self.decide_unreadable(entry.key, seen);
        }
        if entry.size == 0 && !self.include_folder_markers && is_folder_marker(entry) {
            return Verdict::FolderMarker;
        }
        if entry.size < self.min_size_bytes {
            return Verdict::TooSmall;
        }
        if entry.size > self.max_size_bytes {
            return Verdict::TooLarge;
        }
        if self.modified_after.is_some_and(|after| entry.last_modified <= after) {
            return Verdict::TooOld;
        }
        if self.modified_before.is_some_and(|before| entry.last_modified >= before) {
            return Verdict::TooNew;
        }
        self.decide_by_name(entry.key, seen)
    }

    /// Of an entry that cannot be read, only the name can be judged.
    #[cold]
    #[inline(never)]
    fn decide_unreadable(&self, key: &str, seen: Option<&Seen>) -> Verdict<'_> {
        self.decide_by_name(key, seen)
    }

    #[inline(always)]
    fn decide_by_name(&self, key: &str, seen: Option<&Seen>) -> Verdict<'_> {
        if self.takes_any_name {
            return Verdict::Accepted;
        }
        let path = Path::new(self.source.relative(key));
        if !self.extensions.is_empty() {
            if !self.has_extension(path.name()) {
                return Verdict::OtherExtension;
            }
            if let Some(seen) = seen {
                self.extensions.note(&seen.extensions, |extension| ends_with(path.name(), extension));
            }
        }
        if !self.mime_types.is_empty() {
            let guessed = mime::guess(path.name());
            if !self.mime_types.iter().any(|pattern| pattern.matches(guessed)) {
                return Verdict::OtherMimeType;
            }
            if let Some(seen) = seen {
                self.mime_types.note(&seen.mime_types, |pattern| pattern.matches(guessed));
            }
        }
        if !self.include.is_empty() {
            if !self.include.is_match(&path) {
                return Verdict::NotIncluded;
            }
            if let Some(seen) = seen {
                self.include.note(&path, &seen.include);
            }
        }
        let Some(pattern) = self.exclude.first_match(&path) else { return Verdict::Accepted };
        if let Some(seen) = seen {
            self.exclude.note(&path, &seen.exclude);
        }
        Verdict::Excluded { pattern }
    }

    /// What it was compiled from.
    pub fn spec(&self) -> &FilterSpec {
        &self.spec
    }

    /// What it was compiled for.
    pub fn source(&self) -> &SourcePath {
        &self.source
    }

    /// The items of each list that have matched nothing, each with the verdict of the list, in the order in which the
    /// lists are asked: none of the files that the filters before it pass, and of `exclude_patterns` none that all
    /// others do.
    pub fn unmatched(&self, seen: &SeenRecord) -> Vec<(Verdict<'static>, Vec<&str>)> {
        vec![
            (Verdict::OtherExtension, self.extensions.unmatched(seen.extensions)),
            (Verdict::OtherMimeType, self.mime_types.unmatched(seen.mime_types)),
            (Verdict::NotIncluded, self.include.unmatched(seen.include)),
            (Verdict::Excluded { pattern: "" }, self.exclude.unmatched(seen.exclude)),
        ]
    }

    fn has_extension(&self, name: &str) -> bool {
        if name.is_ascii() {
            self.extensions.iter().any(|extension| ends_with_ascii(name, extension))
        } else {
            // A letter outside ASCII may become one inside, and more or fewer bytes.
            let name = name.to_lowercase();
            self.extensions.iter().any(|extension| name.ends_with(extension))
        }
    }
}

/// Whether an ASCII name ends with an extension, in whatever case.
fn ends_with_ascii(name: &str, extension: &str) -> bool {
    let start = name.len().checked_sub(extension.len());
    let end = start.and_then(|start| name.as_bytes().get(start..));
    end.is_some_and(|end| end.eq_ignore_ascii_case(extension.as_bytes()))
}

/// Whether a name ends with an extension, in whatever case.
fn ends_with(name: &str, extension: &str) -> bool {
    if name.is_ascii() { ends_with_ascii(name, extension) } else { name.to_lowercase().ends_with(extension) }
}

/// Lower case, each with its dot.
fn compile_extensions(written: &[String]) -> Result<Items<String>, Error> {
    check_list("extensions", written)?;
    let mut extensions = Vec::new();
    for (index, extension) in written.iter().enumerate() {
        let bare = bare_extension(extension);
        if bare.is_empty() || bare.contains(['/', '*']) {
            return Err(invalid(
                format!("extensions[{index}]"),
                format!("{} is not a file name extension.", quoted(extension)),
                "Write it as mp4 or .mp4; a glob belongs in include_patterns.",
            ));
        }
        let parts: Vec<&str> = bare.split([',', ';', '|', ' ']).filter(|part| !part.is_empty()).collect();
        let is_extension = |part: &&str| part.trim_start_matches('.').chars().count() > 1;
        if parts.len() > 1 && parts.iter().all(is_extension) {
            return Err(invalid(
                format!("extensions[{index}]"),
                format!("{} is a list in one string.", quoted(extension)),
                "Make each extension an item of its own: [\"mp4\", \"mov\"].",
            ));
        }
        extensions.push((bare.clone(), format!(".{bare}")));
    }
    Ok(Items::new(extensions))
}

fn compile_mime_types(written: &[String]) -> Result<Items<MimePattern>, Error> {
    check_list("mime_types", written)?;
    let mut mime_types = Vec::new();
    for (index, text) in written.iter().enumerate() {
        let pattern = MimePattern::parse(text).map_err(|what| {
            invalid(
                format!("mime_types[{index}]"),
                format!("{} {what}.", quoted(text)),
                "Write a type such as image/png, or image/* for all of a kind. For files of another type, use \
                 extensions or include_patterns.",
            )
        })?;
        mime_types.push((text.trim().to_ascii_lowercase(), pattern));
    }
    Ok(Items::new(mime_types))
}

/// `image/png`, `image/*` or `*/*`.
#[derive(Clone, Debug)]
enum MimePattern {
    /// The one type, as [`mime::guess`] calls it.
    One(&'static str),
    /// All types that begin so: `image/`; with nothing: all.
    Kind(String),
}

impl MimePattern {
    /// Errors are words that follow the text.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let lower = text.trim().to_ascii_lowercase();
        match lower.split_once('/') {
            None => Err("is not a MIME type"),
            Some(("*", "*")) => Ok(Self::Kind(String::new())),
            Some((kind, "*")) if mime::is_kind(kind) => Ok(Self::Kind(format!("{kind}/"))),
            Some(_) => mime::canonical(&lower).map(Self::One).ok_or("is a MIME type that no file name stands for"),
        }
    }

    /// Whether the type of a name, as guessed, is one of these.
    fn matches(&self, guessed: &str) -> bool {
        match self {
            Self::One(mime) => *mime == guessed,
            Self::Kind(kind) => guessed.starts_with(kind.as_str()),
        }
    }
}

/// Lower case, without the dot.
fn bare_extension(text: &str) -> String {
    let text = text.trim();
    text.strip_prefix('.').unwrap_or(text).to_lowercase()
}

fn check_list(list: &str, items: &[String]) -> Result<(), Error> {
    if items.len() > LIST_ITEMS_MAX {
        return Err(invalid(
            list,
            format!("There are {} items; at most {LIST_ITEMS_MAX} are allowed.", items.len()),
            "Join patterns with braces, {a,b}, or split the sync.",
        ));
    }
    for (index, item) in items.iter().enumerate() {
        let wrong = |what: String| {
            invalid(
                format!("{list}[{index}]"),
                format!("{} {what}.", quoted(item)),
                "Remove it, or write a shorter one.",
            )
        };
        if item.trim().is_empty() {
            let message = format!("{} is empty.", quoted(item));
            return Err(invalid(format!("{list}[{index}]"), message, "Remove it."));
        }
        if item.len() > ITEM_BYTES_MAX {
            return Err(wrong(format!("is {} bytes long; at most {ITEM_BYTES_MAX} are allowed", item.len())));
        }
    }
    Ok(())
}

fn invalid(field: impl fmt::Display, message: impl Into<String>, advice: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message, advice).with_field(format!("file_filters.{field}"))
}

#[cfg(test)]
mod tests;
