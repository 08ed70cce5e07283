//! Source paths: which bucket a sync reads, and which part of it.
//!
//! All four documented forms are one value: `b2://bucket/prefix`, `s3://bucket/prefix`, `bucket/prefix` and `bucket`.
//! A path is parsed once, at the edge; inside, a [`SourcePath`] is always valid. It does not say whether the bucket
//! exists: only a call to B2 can.
//!
//! **Invariants.** `parse ∘ to_string` is the identity. A prefix is literal: nothing is percent-decoded, and `//`,
//! spaces, `+` and `#` stay as they are, because B2 keys may hold all of them. Only what is a wildcard beyond doubt is
//! refused: as a prefix it would find nothing.

use std::{fmt, str::FromStr};

use crate::error::{Error, ErrorKind, quoted};

/// The longest prefix, in bytes: that of the longest key ([B2 file
/// names](https://www.backblaze.com/docs/cloud-storage-files)).
pub const PREFIX_BYTES_MAX: usize = 1_024;
/// The shortest bucket name, in characters. B2 asks for 6; other S3 stores for 3.
pub const BUCKET_CHARS_MIN: usize = 3;
/// The longest bucket name, in characters.
pub const BUCKET_CHARS_MAX: usize = 63;

const FIELD: &str = "source_path";
const FORMS: &str = "Write b2://bucket/prefix, or bucket/prefix, or only the bucket.";

/// The name of a bucket: 3 to 63 characters `[A-Za-z0-9.-]`, no dot at an end or beside another dot. Case-sensitive.
///
/// B2 itself asks for at least 6 characters and allows no dots in new buckets; other S3 stores allow both, and B2
/// answers clearly enough when there is no such bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketName(String);

impl BucketName {
    /// Parses a bucket name that stands alone.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], field `source_path`, naming the rule that is broken.
    pub fn parse(text: &str) -> Result<Self, Error> {
        match broken_bucket_rule(text) {
            None => Ok(Self(text.to_owned())),
            Some(rule) => Err(invalid(format!("The bucket name {} {rule}.", quoted(text)), BUCKET_ADVICE)),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which bucket a sync reads, and which part of it.
///
/// ```
/// use b2sync_core::source_path::SourcePath;
///
/// let path: SourcePath = "my-videos/2024/".parse()?;
/// assert_eq!(path.bucket().as_str(), "my-videos");
/// assert_eq!(path.prefix(), "2024/");
/// assert_eq!(path.to_string(), "b2://my-videos/2024/");
/// assert_eq!(path, SourcePath::parse("S3://my-videos/2024/")?);
///
/// let error = SourcePath::parse("gs://my-videos/2024/").unwrap_err();
/// assert_eq!(error.field(), Some("source_path"));
/// assert!(error.advice().contains("b2://my-videos/2024/"));
/// # Ok::<(), b2sync_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourcePath {
    bucket: BucketName,
    prefix: String,
    /// How long the root is, which every key is asked about.
    root_bytes: usize,
}

impl SourcePath {
    /// Parses any of the four forms; the scheme in any case.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], field `source_path`, quoting `text` and saying what to write instead: empty, white
    /// space around it, control characters, another scheme, no bucket, a bucket name out of rules, a query string or
    /// fragment, a prefix above [`PREFIX_BYTES_MAX`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.trim().is_empty() {
            return Err(invalid(format!("The source path {} is empty.", quoted(text)), FORMS));
        }
        if text.trim() != text {
            return Err(invalid(
                format!("The source path {} begins or ends with white space.", quoted(text)),
                "Remove it. If the prefix really ends with a space, end it earlier and filter with a pattern.",
            ));
        }
        if text.chars().any(|c| c < ' ' || c == '\x7f') {
            return Err(invalid(
                format!("The source path {} holds a control character.", quoted(text)),
                "Remove it. If the prefix really holds one, end the prefix before it.",
            ));
        }
        let rest = strip_scheme(text)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if let Some(wildcard) = wildcard(rest) {
            return Err(invalid(
                format!("The source path {} holds the wildcard {}.", quoted(text), quoted(wildcard)),
                "A source path is literal. End it at the folder before the wildcard, and put a pattern such as *.mp4 \
                 or raw/** into include_patterns.",
            ));
        }
        Self::check_bucket(text, bucket)?;
        if let Some(query) = query_like(prefix) {
            return Err(invalid(
                format!("The source path {} ends with a query string, {}.", quoted(text), quoted(query)),
                "A source path has no query string: remove it. If keys really hold it, end the prefix before the `?` \
                 and filter with a pattern.",
            ));
        }
        if prefix.len() > PREFIX_BYTES_MAX {
            return Err(invalid(
                format!(
                    "The prefix of the source path {} is {} bytes long; no key is longer than {PREFIX_BYTES_MAX}.",
                    quoted(text),
                    prefix.len()
                ),
                "Write a shorter prefix.",
            ));
        }
        let root_bytes = prefix.rfind('/').map_or(0, |slash| slash + 1);
        Ok(Self { bucket: BucketName(bucket.to_owned()), prefix: prefix.to_owned(), root_bytes })
    }

    fn check_bucket(text: &str, bucket: &str) -> Result<(), Error> {
        if bucket.is_empty() {
            return Err(invalid(format!("The source path {} names no bucket.", quoted(text)), FORMS));
        }
        for (sign, what) in [('?', "query string"), ('#', "fragment")] {
            if bucket.contains(sign) {
                return Err(invalid(
                    format!("The source path {} has a {what} after the bucket.", quoted(text)),
                    format!("A source path has no {what}: remove it. {FORMS}"),
                ));
            }
        }
        match broken_bucket_rule(bucket) {
            None => Ok(()),
            Some(rule) => Err(invalid(
                format!("The bucket name {} in the source path {} {rule}.", quoted(bucket), quoted(text)),
                BUCKET_ADVICE,
            )),
        }
    }

    /// The bucket.
    pub fn bucket(&self) -> &BucketName {
        &self.bucket
    }

    /// What every key of the sync begins with; empty for the whole bucket. Need not end with `/`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The source root: the prefix up to and including its last `/`. Patterns with `/` count from here.
    ///
    /// Prefix `videos/2024/` → `videos/2024/`; prefix `videos/20` → `videos/`; prefix `vid` → empty.
    pub fn root(&self) -> &str {
        self.prefix.get(..self.root_bytes).unwrap_or_default()
    }

    /// `key` as seen from the source root; the whole key if it does not lie below.
    ///
    /// ```
    /// use b2sync_core::source_path::SourcePath;
    /// let path = SourcePath::parse("b2://my-videos/videos/20")?;
    /// assert_eq!(path.relative("videos/2024/a.mp4"), "2024/a.mp4");
    /// # Ok::<(), b2sync_core::Error>(())
    /// ```
    pub fn relative<'k>(&self, key: &'k str) -> &'k str {
        let root = self.root();
        // No comparison with nothing: it is a call, and `memcmp` may take 40 ns to look at no byte.
        if root.is_empty() { key } else { key.strip_prefix(root).unwrap_or(key) }
    }
}

/// The canonical form, `b2://bucket/prefix`; `b2://bucket/` for the whole bucket.
impl fmt::Display for SourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b2://{}/{}", self.bucket, self.prefix)
    }
}

impl FromStr for SourcePath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

const BUCKET_ADVICE: &str = "Copy the name from the Buckets page of the Backblaze console. It is case-sensitive, and \
     has 6 to 63 letters, digits and hyphens (from 3, with dots, in other S3 stores).";

fn invalid(message: impl Into<String>, advice: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message, advice).with_field(FIELD)
}

/// `text` without `b2://` or `s3://`. Only a `://` before the first `/` is a scheme: a prefix may hold one.
fn strip_scheme(text: &str) -> Result<&str, Error> {
    let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| !scheme.contains('/')) else {
        return Ok(text);
    };
    if scheme.eq_ignore_ascii_case("b2") || scheme.eq_ignore_ascii_case("s3") {
        return Ok(rest);
    }
    let advice = if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") {
        "A source path is not a URL: write b2:// and then the bucket and the prefix, b2://bucket/prefix.".to_owned()
    } else {
        format!("Write b2:// if {} is a Backblaze bucket and prefix.", quoted(&format!("b2://{rest}")))
    };
    Err(invalid(
        format!("The source path {} has the scheme {}.", quoted(text), quoted(&format!("{scheme}://"))),
        advice,
    ))
}

/// Which rule a bucket name breaks, in words that follow the name.
fn broken_bucket_rule(name: &str) -> Option<String> {
    if let Some(wrong) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.')) {
        return Some(format!("holds {wrong:?}, which no bucket name does"));
    }
    // ASCII from here on: bytes are characters.
    if name.len() < BUCKET_CHARS_MIN {
        return Some(format!("is shorter than {BUCKET_CHARS_MIN} characters"));
    }
    if name.len() > BUCKET_CHARS_MAX {
        return Some(format!("is longer than {BUCKET_CHARS_MAX} characters"));
    }
    if name.starts_with('.') || name.ends_with('.') || name.contains("..") {
        return Some("has a dot at an end or beside another dot".to_owned());
    }
    None
}

/// What of a path is a wildcard beyond doubt: `*`, `{a,b}`, `[0-9]` and `[!a]`. `?`, `{a}` and `[1]` are usual in the
/// names of folders.
fn wildcard(path: &str) -> Option<&str> {
    let enclosed = |open: char, close: char, is_glob: fn(&str) -> bool| {
        path.match_indices(open).find_map(|(at, _)| {
            let (inside, _) = path.get(at + 1..)?.split_once(close)?;
            is_glob(inside).then(|| path.get(at..at + inside.len() + 2))?
        })
    };
    let is_range = |inside: &str| match inside.as_bytes() {
        [b'!' | b'^', _, ..] => true,
        [from, b'-', to] => from.is_ascii_alphanumeric() && to.is_ascii_alphanumeric(),
        _ => false,
    };
    let star = path.find('*').and_then(|at| path.get(at..=at));
    star.or_else(|| enclosed('{', '}', |inside| inside.contains(','))).or_else(|| enclosed('[', ']', is_range))
}

/// The part of a prefix that looks like a URL's query string: from the last `?` to the end, if it reads
/// `?name=value`. Other question marks are part of the key, where they are legal.
fn query_like(prefix: &str) -> Option<&str> {
    let query = prefix.get(prefix.rfind('?')?..)?;
    let (name, value) = query.get(1..)?.split_once('=')?;
    let named = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    (named && !value.contains('/')).then_some(query)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn parsed(text: &str, bucket: &str, prefix: &str) {
        let path = SourcePath::parse(text).unwrap();
        assert_eq!((path.bucket().as_str(), path.prefix()), (bucket, prefix), "{text:?}");
    }

    #[test]
    fn all_four_documented_forms() {
        parsed("b2://my-videos/2024/", "my-videos", "2024/");
        parsed("s3://my-videos/2024/", "my-videos", "2024/");
        parsed("my-videos/2024/", "my-videos", "2024/");
        parsed("my-videos", "my-videos", "");
    }

    #[test]
    fn a_prefix_is_literal() {
        parsed("B2://My-Videos", "My-Videos", "");
        parsed("b2://my-videos/", "my-videos", "");
        parsed("b2://my-videos//a//", "my-videos", "/a//");
        parsed("my-videos/a b/%20+&#?/日本語🎬", "my-videos", "a b/%20+&#?/日本語🎬");
        parsed("my-videos/what?", "my-videos", "what?");
        parsed("my-videos/a?b=c/d", "my-videos", "a?b=c/d");
        parsed("my-videos/http://archive", "my-videos", "http://archive");
        parsed("a.b.c/x", "a.b.c", "x");
        parsed("my-videos/Season [1]/{x}/[2024-01]/[a]/}{,/]", "my-videos", "Season [1]/{x}/[2024-01]/[a]/}{,/]");
    }

    #[test]
    fn every_malformed_path_says_what_to_do() {
        let long_prefix = format!("my-videos/{}", "x".repeat(PREFIX_BYTES_MAX + 1));
        let long_bucket = "x".repeat(64);
        for (text, message, advice) in [
            ("", "is empty", "b2://bucket/prefix"),
            ("  ", "is empty", "b2://bucket/prefix"),
            (" my-videos", "white space", "Remove"),
            ("my-videos/a\n", "white space", "Remove"),
            ("my-videos/a\u{1}b", "control character", "Remove"),
            ("b2://", "names no bucket", "b2://bucket/prefix"),
            ("b2:///videos", "names no bucket", "b2://bucket/prefix"),
            ("/videos", "names no bucket", "b2://bucket/prefix"),
            ("gs://my-videos/a", "scheme \"gs://\"", "b2://my-videos/a"),
            ("https://f004.backblazeb2.com/file/my-videos/a", "scheme \"https://\"", "b2://bucket/prefix"),
            ("b2:my-videos", "holds ':'", "console"),
            ("b2://my-videos?x=1", "query string after the bucket", "no query string"),
            ("my-videos#top", "fragment after the bucket", "no fragment"),
            ("b2://my-videos/a?versionId=4_z", "ends with a query string, \"?versionId=4_z\"", "no query string"),
            ("b2://my_videos/a", "holds '_'", "console"),
            ("b2://vidéos/a", "holds 'é'", "console"),
            ("my videos/a", "holds ' '", "console"),
            ("ab", "shorter than 3", "console"),
            (&long_bucket, "longer than 63", "console"),
            ("a..b/x", "dot", "console"),
            (&long_prefix, "1025 bytes", "shorter"),
            ("b2://my-videos/*", "holds the wildcard \"*\"", "include_patterns"),
            ("b2://my-videos/2024/**/*.mp4", "holds the wildcard \"*\"", "include_patterns"),
            ("b2://my-*", "holds the wildcard \"*\"", "include_patterns"),
            ("b2://my-videos/{raw,cut}/", "holds the wildcard \"{raw,cut}\"", "include_patterns"),
            ("b2://my-videos/202[0-4]/", "holds the wildcard \"[0-4]\"", "include_patterns"),
            ("b2://my-videos/[!a]/", "holds the wildcard \"[!a]\"", "include_patterns"),
        ] {
            let error = SourcePath::parse(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text:?}");
            assert_eq!(error.field(), Some("source_path"), "{text:?}");
            assert!(error.message().contains(message), "{text:?}: {error}");
            assert!(error.advice().contains(advice), "{text:?}: {error}");
            let quote = format!("{text:?}");
            assert!(error.message().contains(quote.get(..quote.len().min(100) - 1).unwrap()), "{text:?}: {error}");
        }
    }

    #[test]
    fn the_source_root_ends_with_the_last_slash() {
        for (path, root, key, relative) in [
            ("b2://bucket", "", "a/b", "a/b"),
            ("b2://bucket/videos/2024/", "videos/2024/", "videos/2024/a.mp4", "a.mp4"),
            ("b2://bucket/videos/20", "videos/", "videos/2024/a.mp4", "2024/a.mp4"),
            ("b2://bucket/vid", "", "videos/a.mp4", "videos/a.mp4"),
            ("b2://bucket//", "/", "/a", "a"),
            ("b2://bucket/videos/", "videos/", "elsewhere", "elsewhere"),
        ] {
            let path = SourcePath::parse(path).unwrap();
            assert_eq!((path.root(), path.relative(key)), (root, relative), "{path}");
        }
    }

    proptest! {
        #[test]
        fn parse_undoes_display(bucket in "[A-Za-z0-9][A-Za-z0-9-]{2,62}", prefix in "[^\\x00-\\x1f\\x7f]{0,80}") {
            let text = format!("{bucket}/{prefix}");
            if let Ok(path) = SourcePath::parse(&text) {
                prop_assert_eq!((path.bucket().as_str(), path.prefix()), (bucket.as_str(), prefix.as_str()));
                prop_assert_eq!(SourcePath::parse(&path.to_string()).unwrap(), path);
            } else {
                // Only what looks like a query string or a wildcard, or white space at the end, may be refused.
                let is_suspect = prefix.contains(['?', '*', '{', '[']) || text.trim() != text;
                prop_assert!(is_suspect);
            }
        }

        #[test]
        fn no_input_panics(text in any::<String>()) {
            if let Ok(path) = SourcePath::parse(&text) {
                prop_assert_eq!(SourcePath::parse(&path.to_string()).unwrap(), path);
            }
        }
    }
}
