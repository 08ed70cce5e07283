//! The patterns of one list, compiled: those for the base name and those for the path.

use globset::{Candidate, Glob, GlobBuilder, GlobSet};

use super::{
    WILDCARD_PATTERNS_BYTES_MAX, check_list, invalid,
    pattern::{self, Pattern, Refusal},
    seen::{Matched, SeenRecord},
    shape::{Path, Shapes},
};
use crate::{
    error::{Error, quoted},
    source_path::SourcePath,
};

/// With no more than this, in bytes, each glob is kept by itself too, where they have no shapes: it takes as much
/// memory again, and spares the few keys that are asked which patterns they match the automaton of all.
const SINGLES_BYTES_MAX: usize = 2 << 10;

/// One list of globs: those for the base name and those for the path.
#[derive(Clone, Debug)]
pub(super) struct PatternSet {
    pub(super) names: Patterns,
    pub(super) paths: Patterns,
    /// A bit for each pattern.
    all: u128,
}

/// Globs of one kind, compiled into one automaton, and as shapes when all of them have one.
#[derive(Clone, Debug)]
pub(super) struct Patterns {
    written: Vec<String>,
    /// The place of each among the sorted patterns of the list.
    places: Vec<u8>,
    globs: GlobSet,
    pub(super) shapes: Option<Shapes>,
    /// Each by itself, where they have no shapes and are not much.
    singles: Vec<GlobSet>,
}

/// [`Patterns`] that are being put together.
#[derive(Default)]
struct Building {
    written: Vec<String>,
    places: Vec<u8>,
    globs: Vec<Glob>,
    singles: Vec<GlobSet>,
    /// As globset is given them.
    texts: Vec<String>,
}

impl Building {
    fn build(self, list: &str, is_path: bool) -> Result<Patterns, Error> {
        let globs = GlobSet::new(self.globs).map_err(|error| {
            invalid(
                list,
                format!("The patterns together are too large: {}.", error.kind()),
                "Use fewer or simpler patterns.",
            )
        })?;
        let shapes = Shapes::parse(self.texts.iter().map(String::as_str), is_path);
        let singles = if shapes.is_some() { Vec::new() } else { self.singles };
        Ok(Patterns { written: self.written, places: self.places, globs, shapes, singles })
    }
}

/// Compiles one pattern, to be put together with others and by itself.
fn compile(Pattern { glob, is_path }: &Pattern) -> Result<(Glob, GlobSet), Refusal> {
    const ADVICE: &str = "Write a glob such as *.mp4, raw/** or {a,b}*.jpg; put \\ before a character that is meant \
         literally.";
    let glob = GlobBuilder::new(glob)
        // A base name holds no `/`: leaving this off there lets globset look extensions up in a table.
        .literal_separator(*is_path)
        .backslash_escape(true)
        .empty_alternates(true)
        .build()
        .map_err(|error| Refusal::new(format!("is not a glob: {}", error.kind()), ADVICE))?;
    // A set is compiled as a whole; a pattern too large for it is found alone, where its index is known.
    let single = GlobSet::new([glob.clone()]);
    let single = single.map_err(|error| Refusal::new(format!("cannot be used: {}", error.kind()), ADVICE))?;
    Ok((glob, single))
}

impl PatternSet {
    pub(super) fn compile(list: &str, patterns: &[String], source: &SourcePath) -> Result<Self, Error> {
        check_list(list, patterns)?;
        let with_wildcards = patterns.iter().filter(|pattern| pattern.contains(['*', '?', '[', '{', '\\']));
        let bytes: usize = with_wildcards.map(String::len).sum();
        if bytes > WILDCARD_PATTERNS_BYTES_MAX {
            return Err(invalid(
                list,
                format!(
                    "Its patterns with wildcards have {bytes} bytes together; at most {WILDCARD_PATTERNS_BYTES_MAX} \
                     are allowed."
                ),
                "Use fewer or shorter ones: a folder (raw/**) for what is in it, extensions in place of *.mp4; or \
                 split the sync.",
            ));
        }
        let mut sorted: Vec<&String> = patterns.iter().collect();
        sorted.sort_unstable();
        sorted.dedup();
        let (mut names, mut paths) = (Building::default(), Building::default());
        for (index, written) in patterns.iter().enumerate() {
            let wrong = |refusal: Refusal| {
                invalid(
                    format!("{list}[{index}]"),
                    format!("The pattern {} {}.", quoted(written), refusal.what),
                    refusal.advice,
                )
            };
            let pattern = pattern::read(written, source).map_err(wrong)?;
            let (glob, single) = compile(&pattern).map_err(wrong)?;
            let building = if pattern.is_path { &mut paths } else { &mut names };
            building.globs.push(glob);
            if bytes <= SINGLES_BYTES_MAX {
                building.singles.push(single);
            }
            building.written.push(written.clone());
            let place = sorted.partition_point(|other| *other < written);
            building.places.push(u8::try_from(place).unwrap_or(u8::MAX));
            building.texts.push(pattern.glob);
        }
        let all = (0..sorted.len()).fold(0, |all, place| all | 1 << (place & 127));
        Ok(Self { names: names.build(list, false)?, paths: paths.build(list, true)?, all })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.written.is_empty() && self.paths.written.is_empty()
    }

    pub(super) fn is_match(&self, path: &Path<'_>) -> bool {
        self.names.is_match(path, Path::name) || self.paths.is_match(path, |path| path.whole)
    }

    /// The first pattern that matches, base names before paths.
    pub(super) fn first_match(&self, path: &Path<'_>) -> Option<&str> {
        self.names.first_match(path, Path::name).or_else(|| self.paths.first_match(path, |path| path.whole))
    }

    /// Notes which patterns match a path that one of them does.
    #[inline]
    pub(super) fn note(&self, path: &Path<'_>, matched: &Matched) {
        if !matched.is_complete(self.all) {
            self.note_each(path, matched);
        }
    }

    #[inline(never)]
    fn note_each(&self, path: &Path<'_>, matched: &Matched) {
        self.names.note(path, Path::name, matched);
        self.paths.note(path, |path| path.whole, matched);
    }

    /// The patterns that have not matched, sorted.
    pub(super) fn unmatched(&self, matched: [u64; 2]) -> Vec<&str> {
        let mut unmatched = Vec::new();
        for patterns in [&self.names, &self.paths] {
            let of_kind = patterns.places.iter().zip(&patterns.written);
            unmatched.extend(of_kind.filter(|(place, _)| !SeenRecord::matched(matched, **place)));
        }
        unmatched.sort_unstable();
        unmatched.dedup();
        unmatched.into_iter().map(|(_, written)| written.as_str()).collect()
    }
}

impl Patterns {
    /// By their shapes, if they have one and can be asked.
    fn shapes(&self, path: &Path<'_>) -> Option<&Shapes> {
        self.shapes.as_ref().filter(|_| !path.is_two_dots())
    }

    /// `text` is what globset is shown of `path`.
    fn is_match<'k>(&self, path: &Path<'k>, text: impl Fn(&Path<'k>) -> &'k str) -> bool {
        match self.shapes(path) {
            Some(shapes) => shapes.is_match(path),
            None => self.globs.is_match(text(path)),
        }
    }

    /// The first pattern that matches, as its user wrote it; `text` as above.
    fn first_match<'k>(&self, path: &Path<'k>, text: impl Fn(&Path<'k>) -> &'k str) -> Option<&str> {
        let first = match self.shapes(path) {
            Some(shapes) => shapes.first_match(path),
            None => self.first_glob(text(path)),
        };
        self.written.get(first?).map(String::as_str)
    }

    /// Notes which of them match; those that have are not asked again.
    fn note<'k>(&self, path: &Path<'k>, text: impl Fn(&Path<'k>) -> &'k str, matched: &Matched) {
        let is_new = |index: usize| self.places.get(index).copied().filter(|place| !matched.has(*place));
        if let Some(shapes) = self.shapes(path) {
            shapes.each_match(
                path,
                |index| is_new(index).is_some(),
                |index| {
                    is_new(index).into_iter().for_each(|place| matched.set(place));
                },
            );
            return;
        }
        let candidate = Candidate::from_bytes(text(path));
        if self.singles.len() < self.written.len() {
            for index in self.globs.matches_candidate(&candidate) {
                is_new(index).into_iter().for_each(|place| matched.set(place));
            }
            return;
        }
        for (index, single) in self.singles.iter().enumerate() {
            if let Some(place) = is_new(index).filter(|_| single.is_match_candidate(&candidate)) {
                matched.set(place);
            }
        }
    }

    fn first_glob(&self, text: &str) -> Option<usize> {
        // `is_match` allocates nothing; which one it was is asked only of the few that match.
        let candidate = Candidate::from_bytes(text);
        if !self.globs.is_match_candidate(&candidate) {
            return None;
        }
        self.globs.matches_candidate(&candidate).into_iter().min()
    }
}
