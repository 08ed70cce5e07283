//! What the user of a sync should know though nothing failed: a filter that matches nothing, a source path that takes
//! more than its folder.
//!
//! Creation, jobs and the component say it in the same words: those of this module.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use unicode_normalization::char::{compose, decompose_canonical};

use crate::{
    error::quoted,
    filter::{Filter, FilterSpec, SIBLINGS_MAX, SeenRecord, Verdict},
    policy::{DeletionLimit, HeldBack},
    source_path::SourcePath,
};

/// The most items of a list that matched nothing and have a warning each; one more warning counts the others.
pub const UNMATCHED_MAX: usize = 5;

/// The most other syncs that the warning of an overlap names.
pub const OVERLAPS_MAX: usize = 5;

/// The longest text of a user in an advice, in characters.
const SHOWN_CHARS_MAX: usize = 100;

/// What a warning is about. In snake case when stored and on the wire.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum WarningCode {
    /// No file lies below the source path.
    NoFiles,
    /// The filters left out every file.
    NothingMatched,
    /// A pattern matched no file that the other filters pass.
    PatternUnmatched,
    /// One of `extensions` matched no file that the filters before it pass.
    ExtensionUnmatched,
    /// One of `mime_types` matched no file that the filters before it pass.
    MimeTypeUnmatched,
    /// A pattern begins with the source path's own folder, or with the bucket's name.
    PatternRepeatsSourcePath,
    /// The source path has no `/` at its end, and takes more than the folder that it names.
    FilesBesideFolder,
    /// Another sync of the same target bucket reads files that this one reads too.
    OverlapsSync,
    /// Entries of the listing cannot be read, so that nothing is said of these files.
    EntriesUnreadable,
    /// The job stopped after `max_objects_per_run` files.
    ObjectsLimit,
    /// More files are gone than the limit of deletions allows, so that their deletions wait to be confirmed.
    DeletionsHeld,
}

impl WarningCode {
    /// `no_files`, as stored and on the wire.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What the user of a sync should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What it is about.
    pub code: WarningCode,
    /// What is the matter, as whole sentences.
    pub message: String,
    /// What to do, as whole sentences.
    pub advice: String,
}

impl Warning {
    fn new(code: WarningCode, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { code, message: message.into(), advice: advice.into() }
    }
}

/// Of filters that no listing was read for: patterns that begin with the source path's own folder, or with the bucket's
/// name.
pub fn of_filters(spec: &FilterSpec, source: &SourcePath) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for (list, patterns) in [("include", &spec.include_patterns), ("exclude", &spec.exclude_patterns)] {
        for pattern in patterns.iter().take(UNMATCHED_MAX) {
            if let Some(rest) = behind_own_folder(pattern, source) {
                let what = if source.root().is_empty() { "name of the bucket" } else { "source path's own folder" };
                warnings.push(Warning::new(
                    WarningCode::PatternRepeatsSourcePath,
                    format!("The {list} pattern {} begins with the {what}.", quoted(pattern)),
                    without_folder(rest, source),
                ));
            }
        }
    }
    warnings
}

/// Of a source path and a look at what is below it: files and folders, by how their keys go on up to the next `/`.
pub fn of_first_look(source: &SourcePath, found: &[String], is_all: bool) -> Vec<Warning> {
    if found.is_empty() {
        return if is_all { vec![no_files(source)] } else { Vec::new() };
    }
    let folder = format!("{}/", source.prefix());
    let beside = found.iter().filter(|key| **key != folder).take(SIBLINGS_MAX);
    let siblings: Vec<String> = beside.map(|key| source.relative(key).to_owned()).collect();
    let is_open = !source.prefix().is_empty() && !source.prefix().ends_with('/');
    if is_open && found.contains(&folder) { beside_folder(source, &siblings) } else { Vec::new() }
}

/// Whether a file may lie below both source paths.
pub fn overlap(one: &SourcePath, other: &SourcePath) -> bool {
    let (a, b) = (one.prefix(), other.prefix());
    one.bucket() == other.bucket() && (a.starts_with(b) || b.starts_with(a))
}

/// Of other syncs that feed the same target bucket, by their ids, and whose source paths [`overlap`] with that of this
/// one.
pub fn of_overlaps(source: &SourcePath, others: &[(String, SourcePath)]) -> Option<Warning> {
    let ((first, path), more) = others.split_first()?;
    let message = if more.is_empty() {
        format!("The sync {first} of the same target bucket reads {} too.", shown(&path.to_string()))
    } else {
        let ids: Vec<&str> = others.iter().take(OVERLAPS_MAX).map(|(id, _)| id.as_str()).collect();
        let dots = if others.len() > OVERLAPS_MAX { ", …" } else { "" };
        let source = shown(&source.to_string());
        format!("Other syncs of the same target bucket read files below {source} too: {}{dots}.", ids.join(", "))
    };
    Some(Warning::new(
        WarningCode::OverlapsSync,
        format!("{message} A file that both take becomes two objects, one of each sync."),
        "If that is not meant, delete one of the syncs with delete_objects=true, or set filters by which they take \
         different files. If it is, tell the objects apart by their sync_config_id.",
    ))
}

/// Of deletions that a job holds back, because they are more than `limit` allows of `known` files; `is_cut_short`: the
/// job has stopped before the end of the listing.
pub fn of_deletions(held: &HeldBack, (limit, known): (DeletionLimit, u64), is_cut_short: bool) -> Warning {
    let count = held.count;
    let (gone, deletions_are) = if count == 1 {
        ("1 known file is gone, or no longer matches the filters".to_owned(), "its deletion is")
    } else {
        (format!("{count} known files are gone, or no longer match the filters"), "their deletions are")
    };
    let DeletionLimit { percent, files: allowed } = limit;
    let (rest, reach) = if is_cut_short {
        ("", ", as often as it takes: a job that stops at max_objects_per_run deletes nothing behind that place")
    } else {
        ("; everything else was synced", "")
    };
    let first = held.keys.first().map_or_else(String::new, |key| format!(" The first is {}.", quoted(key)));
    Warning::new(
        WarningCode::DeletionsHeld,
        format!(
            "{gone}. deletion_limit allows {allowed}, or {percent} % of {}, so {deletions_are} held{rest}.{first}",
            files(known)
        ),
        format!(
            "If the files are really gone, trigger the sync with confirm_deletes=true{reach}. Otherwise check the \
             key's rights, the source path and the filters: what is there again is no longer held."
        ),
    )
}

/// How far a job has come that is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Files that it has listed.
    pub listed: u64,
    /// Those that passed the filters.
    pub matched: u64,
    /// Those whose names passed the filters, and whose entries cannot be read.
    pub unreadable: u64,
    /// Whether it has stopped before the end of the listing, after this many created and updated files.
    pub stopped_after: Option<u64>,
}

/// Of a job that is done: what its listing has shown of the filters and the source path.
pub fn of_job(filter: &Filter, seen: &SeenRecord, done: Done) -> Vec<Warning> {
    let mut warnings = beside_folder(filter.source(), seen.beside_folder());
    warnings.extend(entries_unreadable(seen, done.unreadable));
    if let Some(count) = done.stopped_after {
        warnings.push(Warning::new(
            WarningCode::ObjectsLimit,
            format!("The job stopped after {}, the limit of max_objects_per_run.", files(count)),
            "The next job continues.",
        ));
        return warnings;
    }
    if done.listed == 0 {
        warnings.push(no_files(filter.source()));
        return warnings;
    }
    let judged = done.listed.saturating_sub(done.unreadable);
    if done.matched == 0 && judged > 0 {
        warnings.push(nothing_matched(filter, seen, judged));
    }
    for (verdict, unmatched) in filter.unmatched(seen) {
        // What no file comes as far as has matched nothing, and nothing is wrong with it.
        let is_reached = done.matched > 0 || Verdict::REFUSALS.iter().any(|it| *it >= verdict && seen.left_out(*it));
        if is_reached {
            warnings.extend(unmatched_items(verdict, &unmatched, filter));
        }
    }
    warnings
}

/// What a list of filters is made of.
struct Kind {
    code: WarningCode,
    /// One of it, behind `The`.
    one: &'static str,
    /// One more, and several more.
    more: (&'static str, &'static str),
}

/// Of the list that gives this verdict; `None` where it is no list.
const fn kind(verdict: Verdict<'_>) -> Option<Kind> {
    use WarningCode::{ExtensionUnmatched, MimeTypeUnmatched, PatternUnmatched};
    let (code, one, more) = match verdict {
        Verdict::OtherExtension => (ExtensionUnmatched, "extension", ("extension", "extensions")),
        Verdict::OtherMimeType => (MimeTypeUnmatched, "MIME type", ("MIME type", "MIME types")),
        Verdict::NotIncluded => (PatternUnmatched, "include pattern", ("include pattern", "include patterns")),
        Verdict::Excluded { .. } => (PatternUnmatched, "exclude pattern", ("exclude pattern", "exclude patterns")),
        _ => return None,
    };
    Some(Kind { code, one, more })
}

/// Of the items of one list that matched nothing: the first of them one by one, and one warning for the others.
fn unmatched_items(verdict: Verdict<'_>, unmatched: &[&str], filter: &Filter) -> Vec<Warning> {
    let Some(Kind { code, one, more: (singular, plural) }) = kind(verdict) else { return Vec::new() };
    let of = if has_filters_before(verdict, filter.spec()) { " that the other filters pass" } else { "" };
    let shown = unmatched.iter().take(UNMATCHED_MAX);
    let mut warnings: Vec<Warning> = shown
        .map(|item| {
            let advice = match verdict {
                Verdict::OtherExtension => {
                    "Check the spelling, or remove it. It is what a file name ends with, behind a dot; case does not \
                     count."
                        .to_owned()
                }
                Verdict::OtherMimeType => {
                    "b2sync guesses the MIME types from the names of files. For files of other names, use extensions \
                     or include_patterns."
                        .to_owned()
                }
                _ => pattern_advice(item, filter),
            };
            Warning::new(code, format!("The {one} {} matched no file{of}.", quoted(item)), advice)
        })
        .collect();
    if let Some((_, more @ [_, ..])) = unmatched.split_at_checked(UNMATCHED_MAX) {
        let names: Vec<String> = more.iter().take(UNMATCHED_MAX).map(|item| quoted(item)).collect();
        let dots = if more.len() > UNMATCHED_MAX { ", …" } else { "" };
        let count =
            if more.len() == 1 { format!("One more {singular}") } else { format!("{} more {plural}", more.len()) };
        let message = format!("{count} matched no file: {}{dots}.", names.join(", "));
        warnings.push(Warning::new(code, message, "Check their spelling, or remove them."));
    }
    warnings
}

/// Whether other filters are asked before those that give this verdict.
fn has_filters_before(verdict: Verdict<'_>, spec: &FilterSpec) -> bool {
    spec.min_size_bytes.is_some()
        || spec.max_size_bytes.is_some()
        || spec.modified_after.is_some()
        || spec.modified_before.is_some()
        || (verdict > Verdict::OtherExtension && !spec.extensions.is_empty())
        || (verdict > Verdict::OtherMimeType && !spec.mime_types.is_empty())
        || (verdict > Verdict::NotIncluded && !spec.include_patterns.is_empty())
}

/// What stands without quotation marks in an advice: at most [`SHOWN_CHARS_MAX`] characters of it. What cannot be seen
/// is escaped.
fn shown(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().take(SHOWN_CHARS_MAX) {
        let is_unseen = c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{feff}');
        if is_unseen { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

fn files(count: u64) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}

fn no_files(source: &SourcePath) -> Warning {
    let prefix = source.prefix();
    if prefix.is_empty() {
        return Warning::new(
            WarningCode::NoFiles,
            format!("There are no files in the bucket {}.", source.bucket()),
            "If that is right, do nothing: the sync finds new files. If not, check the name of the bucket.",
        );
    }
    let mut advice = "Check the spelling of the source path; case counts.".to_owned();
    if prefix.contains('%') {
        advice += " It is literal: write a space for %20.";
    }
    if prefix.contains(['?', '[', '{']) {
        advice += " It is literal: wildcards belong into include_patterns.";
    }
    if let Some(other) = other_spelling(prefix) {
        advice += &format!(" {}", spelled_otherwise(&other));
    }
    let name = prefix.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if prefix.ends_with('/') && name.contains('.') {
        advice += &format!(" If {} is a file, leave out the / at the end.", shown(name));
    }
    Warning::new(WarningCode::NoFiles, format!("There are no files below {source}."), advice)
}

/// For what lies `beside` the folder that the source path names; there may be more.
fn beside_folder(source: &SourcePath, beside: &[String]) -> Vec<Warning> {
    if beside.is_empty() {
        return Vec::new();
    }
    let names: Vec<String> = beside.iter().map(|name| quoted(name)).collect();
    vec![Warning::new(
        WarningCode::FilesBesideFolder,
        format!("The source path {source} takes more than the folder: also {}.", names.join(", ")),
        format!("If only the folder is meant, create the sync with {source}/ instead."),
    )]
}

/// For `count` entries that cannot be read, of which the first were seen.
fn entries_unreadable(seen: &SeenRecord, count: u64) -> Option<Warning> {
    let shown: Vec<String> = seen.unreadable().iter().map(|(key, why)| format!("{} ({why})", quoted(key))).collect();
    let count = count.max(shown.len() as u64);
    if count == 0 {
        return None;
    }
    let dots = if count > shown.len() as u64 { ", …" } else { "" };
    let of = if count == 1 { "1 file cannot".to_owned() } else { format!("{count} files cannot") };
    let (its, are, they) = if count == 1 { ("its entry", "is", "it") } else { ("their entries", "are", "they") };
    Some(Warning::new(
        WarningCode::EntriesUnreadable,
        format!(
            "{of} be synced, because {its} in the listing cannot be read: {}{dots}. Everything else was synced. A \
             known file stays as it was; no deletion is reported for it.",
            shown.join(", ")
        ),
        format!(
            "Check that no proxy between b2sync and B2 changes answers, and report the message to Backblaze. Once \
             {its} {are} readable, {they} will be synced."
        ),
    ))
}

fn nothing_matched(filter: &Filter, seen: &SeenRecord, listed: u64) -> Warning {
    let mut fields = Vec::new();
    let mut advice = Vec::new();
    for verdict in Verdict::REFUSALS {
        if !seen.left_out(verdict) {
            continue;
        }
        fields.extend(verdict.field().and_then(|field| field.rsplit('.').next()));
        let what = match verdict {
            Verdict::FolderMarker => {
                "The files that include_folder_markers leaves out are empty and stand for folders."
            }
            Verdict::TooSmall | Verdict::TooLarge => "Check the limits of the size, in bytes.",
            Verdict::TooOld | Verdict::TooNew => "Check the dates: the time of a file is the start of its upload.",
            Verdict::OtherExtension => "Check the extensions.",
            Verdict::OtherMimeType => "Check the MIME types: b2sync guesses them from the names of files.",
            Verdict::NotIncluded => "Check the include patterns: case counts, and one without / is for the file name.",
            Verdict::Excluded { .. } => "Check the exclude patterns: they win over include patterns.",
            Verdict::Accepted => continue,
        };
        if !advice.contains(&what) {
            advice.push(what);
        }
    }
    let of = if listed == 1 { "The only file".to_owned() } else { format!("None of the {} files", listed) };
    let did = if listed == 1 { "does not pass" } else { "passes" };
    Warning::new(
        WarningCode::NothingMatched,
        format!("{of} below {} {did} the filters: {}.", filter.source(), fields.join(", ")),
        advice.join(" "),
    )
}

/// What to do about a pattern that matched nothing.
fn pattern_advice(pattern: &str, filter: &Filter) -> String {
    let source = filter.source();
    let mut advice = if let Some(rest) = behind_own_folder(pattern, source) {
        without_folder(rest, source)
    } else if pattern.contains(['*', '?', '[', '{', '\\']) || pattern.ends_with('/') {
        let path = pattern.contains('/') && !source.root().is_empty();
        let from = if path { format!(", and patterns with / count from {}", source.root()) } else { String::new() };
        format!("Check the spelling: case counts{from}.")
    } else if let Some(extension) = pattern.strip_prefix('.').filter(|_| !pattern.contains('/')) {
        format!("It is the whole name of a file. For all files that end with it, write *.{}.", shown(extension))
    } else {
        format!("It is the name of a file. For everything in a folder of that name, write {}/.", shown(pattern))
    };
    if let Some(other) = other_spelling(pattern) {
        let _ = write!(advice, " {}", spelled_otherwise(&other));
    }
    advice
}

/// What follows in a pattern that begins with the source path's own folder, or with all of it.
fn behind_own_folder<'p>(pattern: &'p str, source: &SourcePath) -> Option<&'p str> {
    let root = source.root();
    let text = pattern.strip_prefix("./").or_else(|| pattern.strip_prefix('/')).unwrap_or(pattern);
    let in_bucket = text.strip_prefix(source.bucket().as_str()).and_then(|text| text.strip_prefix('/'));
    if root.is_empty() {
        return in_bucket;
    }
    let folder = root.trim_end_matches('/').rsplit('/').next().filter(|folder| !folder.is_empty())?;
    in_bucket
        .and_then(|text| text.strip_prefix(root))
        .or_else(|| text.strip_prefix(root))
        .or_else(|| text.strip_prefix(folder).and_then(|text| text.strip_prefix('/')))
}

/// What to write in place of the folder and `rest`.
fn without_folder(rest: &str, source: &SourcePath) -> String {
    let count = match source.root() {
        "" => "Patterns count from the beginning of the bucket".to_owned(),
        root => format!("Patterns count from the source path's last folder, {root}"),
    };
    match rest {
        "" | "**" => format!("{count}: write ** for all files in it."),
        rest if rest.contains('/') => format!("{count}: write {} for files in it.", shown(rest)),
        rest => format!("{count}: write /{} for files in it.", shown(rest)),
    }
}

/// The same text in the other of Unicode's two normal forms, if that is another text.
fn other_spelling(text: &str) -> Option<String> {
    if text.is_ascii() {
        return None;
    }
    let mut composed = String::with_capacity(text.len());
    for c in text.chars() {
        match composed.chars().next_back().and_then(|last| compose(last, c)) {
            Some(both) => {
                composed.pop();
                composed.push(both);
            }
            None => composed.push(c),
        }
    }
    if composed != text {
        return Some(composed);
    }
    let mut decomposed = String::with_capacity(text.len());
    text.chars().for_each(|c| decompose_canonical(c, |part| decomposed.push(part)));
    (decomposed != text).then_some(decomposed)
}

fn spelled_otherwise(other: &str) -> String {
    let mut escaped = String::new();
    for c in shown(other).chars() {
        match c {
            '…' => escaped.push(c),
            c if c.is_ascii() => escaped.push(c),
            c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| escaped += &format!("\\u{unit:04x}")),
        }
    }
    format!(
        "Its letters with accents have another spelling in Unicode, which looks the same, and B2 tells the two apart. \
         In JSON, the other one is \"{escaped}\"."
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        entry::Entry,
        filter::{Seen, Verdict},
        time::Timestamp,
    };

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(|&item| item.to_owned()).collect()
    }

    fn spec(include: &[&str], exclude: &[&str]) -> FilterSpec {
        FilterSpec { include_patterns: strings(include), exclude_patterns: strings(exclude), ..FilterSpec::default() }
    }

    /// The warnings of a job that lists `keys`. Each file has 9 bytes; a key that ends with `/` has none.
    fn job(spec: &FilterSpec, source: &str, keys: &[&str]) -> Vec<Warning> {
        let source = SourcePath::parse(source).unwrap();
        let filter = Filter::compile(spec, &source).unwrap();
        let (seen, mut done) = (Seen::default(), Done::default());
        for key in keys {
            let size = if key.ends_with('/') { 0 } else { 9 };
            let entry = Entry { key: (*key).into(), etag: "e".into(), size, last_modified: Timestamp::from_millis(0) };
            done.listed += 1;
            let takes = filter.takes((&entry).into(), &seen);
            assert_eq!(takes, filter.explain(&entry) == Verdict::Accepted);
            done.matched += u64::from(takes);
        }
        of_job(&filter, &seen.record(), done)
    }

    #[track_caller]
    fn check(warnings: &[Warning], expected: &[(WarningCode, &str, &str)]) {
        let codes: Vec<WarningCode> = warnings.iter().map(|warning| warning.code).collect();
        assert_eq!(codes, expected.iter().map(|it| it.0).collect::<Vec<_>>(), "{warnings:?}");
        for (warning, (_, message, advice)) in warnings.iter().zip(expected) {
            assert!(warning.message.contains(message) && warning.advice.contains(advice), "{warning:?}");
        }
    }

    #[test]
    fn a_pattern_that_matched_nothing_is_named() {
        use WarningCode::PatternUnmatched;
        let keys = ["drafts/a.tmp", "a.mp4", "b.MOV", "v.jpg"];
        check(&job(&spec(&["*.mp4", "*.MOV"], &[]), "bucket", &keys), &[]);
        for (include, exclude, message, advice) in [
            (
                &["*"][..],
                &["drafts"][..],
                "exclude pattern \"drafts\" matched no file that the other",
                "write drafts/.",
            ),
            (&[], &["drafts"], "exclude pattern \"drafts\" matched no file.", "write drafts/."),
            (&["*", "*.mov"], &[], "include pattern \"*.mov\" matched no file.", "case counts."),
            (&["*", ".mp4"], &[], "include pattern \".mp4\"", "write *.mp4."),
            (
                &["*.mp4"],
                &["*.tmp"],
                "exclude pattern \"*.tmp\" matched no file that the other filters pass",
                "spelling",
            ),
            (&["*", "a.{x,y}?"], &[], "include pattern \"a.{x,y}?\"", "case counts."),
        ] {
            check(&job(&spec(include, exclude), "bucket", &keys), &[(PatternUnmatched, message, advice)]);
        }
        // A file that several match counts for all of them, and one that is written twice is one.
        check(&job(&spec(&["a*", "*4", "a.mp4", "*?4", "*?4", "*"], &["b*", "*V", "[b].M*"]), "bucket", &keys), &[]);
        let many: Vec<String> = (0..12).map(|n| format!("x{n:02}*")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).chain(["a*"]).collect();
        let warnings = job(&spec(&many, &[]), "bucket", &keys);
        assert_eq!(warnings.len(), UNMATCHED_MAX + 1);
        let more = "7 more include patterns matched no file: \"x05*\", \"x06*\", \"x07*\", \"x08*\", \"x09*\", ….";
        assert_eq!(warnings.last().unwrap().message, more);
    }

    #[test]
    fn an_extension_or_a_mime_type_that_matched_nothing_is_named() {
        use WarningCode::{ExtensionUnmatched, MimeTypeUnmatched, NothingMatched, PatternUnmatched};
        let strings = |items: &[&str]| items.iter().map(|&item| item.to_owned()).collect::<Vec<_>>();
        let of = |extensions: &[&str], mime_types: &[&str]| FilterSpec {
            extensions: strings(extensions),
            mime_types: strings(mime_types),
            ..FilterSpec::default()
        };
        let keys = ["a.mp4", "b.MOV", "c.jpg", "ü.WEBM"];
        let job = |spec: &FilterSpec| job(spec, "bucket", &keys);
        check(&job(&of(&[".MP4", "mov", "mp4", "webm"], &[])), &[]);
        check(&job(&of(&[], &["video/*", "video/mp4", "image/jpg"])), &[]);
        check(
            &job(&of(&["mp4", ".Mkv"], &[])),
            &[(ExtensionUnmatched, "The extension \"mkv\" matched no file.", "case does not count")],
        );
        check(
            &job(&of(&[], &["video/mp4", "Audio/*"])),
            &[(MimeTypeUnmatched, "The MIME type \"audio/*\" matched no file.", "guesses the MIME types")],
        );
        // A list that no file comes as far as says nothing, and the names say by what the files were judged.
        check(
            &job(&of(&["avi"], &["video/mp4"])),
            &[(NothingMatched, "extensions.", ""), (ExtensionUnmatched, "\"avi\" matched no file.", "")],
        );
        check(
            &job(&FilterSpec { min_size_bytes: Some(3), ..of(&["mp4", "mov"], &["video/mp4", "video/webm"]) }),
            &[(MimeTypeUnmatched, "\"video/webm\" matched no file that the other filters pass.", "")],
        );
        check(
            &job(&FilterSpec { include_patterns: strings(&["c*"]), ..of(&["mp4"], &[]) }),
            &[
                (NothingMatched, "extensions, include_patterns.", ""),
                (PatternUnmatched, "\"c*\" matched no file that the other filters pass.", ""),
            ],
        );
        let many: Vec<String> = (0..7).map(|n| format!("x{n}")).chain(["mp4".to_owned()]).collect();
        let warnings = job(&of(&many.iter().map(String::as_str).collect::<Vec<_>>(), &[]));
        assert_eq!(warnings.len(), UNMATCHED_MAX + 1);
        assert_eq!(warnings.last().unwrap().message, "2 more extensions matched no file: \"x5\", \"x6\".");
    }

    #[test]
    fn a_job_without_files_says_why() {
        use WarningCode::{NoFiles, NothingMatched, PatternUnmatched};
        check(&job(&spec(&[], &[]), "b2://bucket", &[]), &[(NoFiles, "in the bucket bucket.", "name of the bucket")]);
        for (source, advice) in [
            ("b2://bucket/Item/", "case counts"),
            ("b2://bucket/a%20b/", "a space for %20"),
            ("b2://bucket/a?/", "wildcards belong into include_patterns"),
            ("b2://bucket/caf\u{e9}/", "\"cafe\\u0301/\""),
            ("b2://bucket/cafe\u{301}/", "\"caf\\u00e9/\""),
            ("b2://bucket/a.mp4/", "If a.mp4 is a file"),
        ] {
            check(&job(&spec(&[], &[]), source, &[]), &[(NoFiles, "There are no files below b2://bucket/", advice)]);
        }
        let one = "The only file below b2://bucket/ does not pass the filters: min_size_bytes.";
        let large = FilterSpec { min_size_bytes: Some(10), ..spec(&["*.mp4"], &["*.tmp"]) };
        check(&job(&large, "bucket", &["a.mp4"]), &[(NothingMatched, one, "size")]);
        check(
            &job(&spec(&["*.MP4"], &["*.tmp"]), "bucket", &["a.mp4", "b.mp4"]),
            &[
                (
                    NothingMatched,
                    "None of the 2 files below b2://bucket/ passes the filters: include_patterns.",
                    "case counts",
                ),
                (PatternUnmatched, "\"*.MP4\" matched no file.", "case counts"),
            ],
        );
        let both = "include_folder_markers, exclude_patterns.";
        check(&job(&spec(&[], &["a"]), "bucket", &["f/", "a"]), &[(NothingMatched, both, "they win")]);
    }

    #[test]
    fn the_other_spelling_of_a_pattern_is_named() {
        let warnings = job(&spec(&["caf\u{e9}*", "*"], &[]), "bucket", &["cafe\u{301}.mp4"]);
        check(&warnings, &[(WarningCode::PatternUnmatched, "café", "\"cafe\\u0301*\"")]);
        for (text, other) in [
            ("cafe", None),
            ("日本語", None),
            ("caf\u{e9}", Some("cafe\u{301}")),
            ("cafe\u{301}", Some("caf\u{e9}")),
            ("\u{304b}\u{3099}", Some("\u{304c}")),
            ("\u{d55c}", Some("\u{1112}\u{1161}\u{11ab}")),
            ("\u{1112}\u{1161}\u{11ab}", Some("\u{d55c}")),
        ] {
            assert_eq!(other_spelling(text).as_deref(), other, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_seen_is_escaped_in_an_advice() {
        let warnings = job(&spec(&["a\u{0}\u{200b}é", "b"], &[]), "b2://bucket/", &["b"]);
        assert!(warnings[0].advice.contains("write a\\u{0}\\u{200b}é/."), "{warnings:?}");
        assert_eq!(shown(&"é".repeat(101)), "é".repeat(100) + "…");
    }

    #[test]
    fn a_pattern_that_repeats_the_source_path_is_named() {
        use WarningCode::{PatternRepeatsSourcePath, PatternUnmatched};
        let source = SourcePath::parse("b2://bucket/a/v/").unwrap();
        for (pattern, advice) in [
            ("v/**", Some("a/v/: write ** for all")),
            ("/v/*.mp4", Some("write /*.mp4 for files in it")),
            ("a/v/raw/*.mp4", Some("write raw/*.mp4 for files in it")),
            ("bucket/a/v/raw/", Some("write raw/ for")),
            ("v*/x", None),
            ("v", None),
            ("**/v/x", None),
        ] {
            let warnings = of_filters(&spec(&[], &[pattern]), &source);
            let expected = advice.map(|it| (PatternRepeatsSourcePath, "begins with the source path's own folder", it));
            check(&warnings, expected.as_slice());
        }
        let whole = SourcePath::parse("b2://bucket/").unwrap();
        for (pattern, advice) in [
            ("bucket/v/**", Some("count from the beginning of the bucket: write v/** for files in it.")),
            ("/bucket/*.mp4", Some("count from the beginning of the bucket: write /*.mp4 for")),
            ("bucket2/v/**", None),
            ("v/**", None),
        ] {
            let expected = advice.map(|it| (PatternRepeatsSourcePath, "begins with the name of the bucket", it));
            check(&of_filters(&spec(&[pattern], &[]), &whole), expected.as_slice());
        }
        let spec = spec(&["v/**", "*.mp4"], &[]);
        check(
            &job(&spec, "b2://bucket/a/v/", &["a/v/x.mp4"]),
            &[(PatternUnmatched, "\"v/**\"", "Patterns count from the source path's last folder, a/v/")],
        );
        check(&job(&spec, "b2://bucket/a/v/", &["a/v/x.mp4", "a/v/v/x"]), &[]);
    }

    #[test]
    fn what_lies_beside_the_folder_is_named() {
        use WarningCode::FilesBesideFolder;
        let names = "also \"sub2/\", \"sub_old.mp4\".";
        let expected = [(FilesBesideFolder, names, "create the sync with b2://bucket/x/sub/ instead")];
        let all = FilterSpec::default();
        let keys = ["x/sub/a", "x/sub/b", "x/sub2/c", "x/sub2/d", "x/sub_old.mp4"];
        check(&job(&all, "bucket/x/sub", &keys), &expected);
        check(&job(&all, "bucket/x/sub/", &keys[..2]), &[]);
        check(&job(&all, "bucket/x/sub", &keys[..2]), &[]);
        check(&job(&all, "bucket/x/sub", &keys[2..]), &[]);
        check(&job(&spec(&[], &["sub2/", "sub_*"]), "bucket/x/sub", &keys), &[]);
        let source = SourcePath::parse("b2://bucket/x/sub").unwrap();
        let look = |found: &[&str], is_all| of_first_look(&source, &strings(found), is_all);
        check(&look(&["x/sub/", "x/sub2/", "x/sub_old.mp4"], true), &expected);
        check(&look(&["x/sub/"], true), &[]);
        check(&look(&["x/sub2/", "x/sub_old.mp4"], true), &[]);
        check(&look(&[], true), &[(WarningCode::NoFiles, "no files below b2://bucket/x/sub.", "case counts")]);
        check(&look(&[], false), &[]);
    }

    #[test]
    fn syncs_that_overlap_are_named() {
        let path = |text: &str| SourcePath::parse(text).unwrap();
        for (one, other, overlaps) in [
            ("bucket", "bucket", true),
            ("bucket", "bucket/a/", true),
            ("bucket/a", "bucket/ab/c", true),
            ("bucket/a/", "bucket/b/", false),
            ("bucket/a/", "bucket/ab/", false),
            ("bucket/a/", "bucket2/a/", false),
        ] {
            assert_eq!(overlap(&path(one), &path(other)), overlaps, "{one} {other}");
            assert_eq!(overlap(&path(other), &path(one)), overlaps, "{other} {one}");
        }
        let source = path("bucket/a/");
        assert_eq!(of_overlaps(&source, &[]), None);
        let others = |count: usize| -> Vec<_> { (0..count).map(|n| (format!("sync_{n}"), path("bucket"))).collect() };
        let message = |count: usize| of_overlaps(&source, &others(count)).unwrap().message;
        assert!(message(1).starts_with("The sync sync_0 of the same target bucket reads b2://bucket/ too. A file"));
        let five = "sync_0, sync_1, sync_2, sync_3, sync_4";
        assert!(message(5).contains(&format!("below b2://bucket/a/ too: {five}. A file")), "{}", message(5));
        assert!(message(6).contains(&format!("{five}, …. A file")), "{}", message(6));
    }

    #[test]
    fn a_limited_job_judges_no_pattern() {
        let filter = Filter::compile(&spec(&["x"], &[]), &SourcePath::parse("bucket").unwrap()).unwrap();
        let done = Done { listed: 2, matched: 1, stopped_after: Some(1), ..Done::default() };
        let warnings = of_job(&filter, &SeenRecord::default(), done);
        check(&warnings, &[(WarningCode::ObjectsLimit, "stopped after 1 file, the", "The next job continues.")]);
    }
}
