//! One pattern as its user wrote it: what it means, or why it is refused.
//!
//! Refused is what would be read literally and match nothing, though it means something elsewhere: `!` of gitignore, a
//! URL, a regular expression, a list in one string, `**` as a part of a name.

use crate::{error::quoted, source_path::SourcePath};

/// A pattern that means something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// What globset is given.
    pub(super) glob: String,
    /// Whether it is for the path from the source root; otherwise for the base name.
    pub(super) is_path: bool,
}

/// Why a pattern is refused: words that follow it, and what to write instead.
pub(super) struct Refusal {
    pub(super) what: String,
    pub(super) advice: String,
}

impl Refusal {
    pub(super) fn new(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.into(), advice: advice.into() }
    }
}

/// Reads a pattern for keys below `source`.
pub(super) fn read(pattern: &str, source: &SourcePath) -> Result<Pattern, Refusal> {
    check_borrowed_syntax(pattern, source)?;
    let anchored = pattern.strip_prefix("./").or_else(|| pattern.strip_prefix('/'));
    let text = anchored.unwrap_or(pattern);
    let tokens = tokens(text);
    check_list(text, &tokens)?;
    check_alternatives(text, &tokens)?;
    if text.contains("[[:") {
        return Err(Refusal::new(
            "has a POSIX character class",
            "Write its characters: [a-z] for [[:lower:]], [0-9] for [[:digit:]].",
        ));
    }
    if has_wide_class(text) {
        return Err(Refusal::new(
            "has a character outside ASCII between [ and ]",
            "Write braces instead, such as {é,è}: a class stands for one byte.",
        ));
    }
    if ends_folder_in_braces(&tokens) {
        return Err(Refusal::new(
            "has a folder's / inside the braces at its end",
            "Write the / behind the braces: {drafts,tmp}/ for what is in these folders.",
        ));
    }
    let is_path = pattern.contains('/');
    let text = match check_double_stars(text, &tokens, is_path)? {
        Some(shorter) => shorter,
        None => text.to_owned(),
    };
    if tokens.last().is_some_and(|token| token.sign == Some('/')) {
        return folder(text.strip_suffix('/').unwrap_or_default(), anchored.is_some());
    }
    if text.is_empty() {
        return Err(names_no_file());
    }
    Ok(Pattern { glob: text, is_path })
}

fn names_no_file() -> Refusal {
    Refusal::new("names no file", "Write a glob such as *.mp4 or raw/**; leave the pattern out for all files.")
}

/// What stands for all below a folder, `drafts/`: at any depth, unless it is anchored or another `/` is in it.
fn folder(text: &str, is_anchored: bool) -> Result<Pattern, Refusal> {
    let glob = match text {
        "" => return Err(names_no_file()),
        // Any folder, and not the files beside it.
        text if text == "**" || text.ends_with("/**") => format!("{text}/*/**"),
        text if is_anchored || text.contains('/') => format!("{text}/**"),
        text => format!("**/{text}/**"),
    };
    Ok(Pattern { glob, is_path: true })
}

/// Refuses what patterns of other tools have and globs do not.
fn check_borrowed_syntax(pattern: &str, source: &SourcePath) -> Result<(), Refusal> {
    if pattern == "!" {
        return Err(names_no_file());
    }
    if let Some(rest) = pattern.strip_prefix('!') {
        let literal = format!("\\!{rest}");
        return Err(Refusal::new(
            "begins with !, which negates nothing here",
            format!(
                "To exclude files, put {} into exclude_patterns. If names really begin with !, write {}.",
                quoted(rest),
                quoted(&literal)
            ),
        ));
    }
    if let Some((scheme, rest)) = pattern.split_once("://")
        && !scheme.is_empty()
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    {
        return Err(Refusal::new("is a URL", without_scheme(rest, source)));
    }
    if pattern.trim_start() != pattern || (pattern.trim_end() != pattern && !pattern.trim_end().ends_with('\\')) {
        return Err(Refusal::new(
            "begins or ends with white space",
            "Remove it. If names really begin or end with a space, put \\ before it.",
        ));
    }
    if pattern.starts_with("../") {
        return Err(Refusal::new(
            "leads out of the source path",
            "Patterns count from the source path's last folder: remove ../, or set a source path higher up.",
        ));
    }
    let path = pattern.strip_prefix("./").unwrap_or(pattern);
    if path.split('/').any(|part| matches!(part, "." | "..")) {
        return Err(Refusal::new(
            "has a part . or .., which means nothing in a key",
            "Write the path without it. If keys really have such a part, put \\ before each of its dots.",
        ));
    }
    let regular = pattern.starts_with('^')
        || pattern.contains(".*\\.")
        || (pattern.ends_with('$') && (pattern.contains("\\.") || pattern.contains(".*")));
    if regular {
        return Err(Refusal::new(
            "is a regular expression",
            "Patterns are globs: write *.mp4 for .*\\.mp4$, and raw/** for ^raw/. Put \\ before a ^ that names begin \
             with.",
        ));
    }
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c == '\\' && chars.next().is_some_and(|escaped| escaped.is_ascii_alphanumeric()) {
            return Err(Refusal::new(
                "has a \\ before a letter or digit",
                format!(
                    "Write / between folders: {}. For a \\ in a name, write \\\\.",
                    quoted(&pattern.replace('\\', "/"))
                ),
            ));
        }
    }
    Ok(())
}

/// What to write for a URL without its scheme.
fn without_scheme(rest: &str, source: &SourcePath) -> String {
    let path = rest.split_once('/').filter(|(bucket, _)| *bucket == source.bucket().as_str());
    match path.and_then(|(_, key)| key.strip_prefix(source.root())).filter(|path| !path.is_empty()) {
        Some(path) => {
            let path = if path.contains('/') { path.to_owned() } else { format!("/{path}") };
            format!("Patterns count from the source path's last folder: write {}.", quoted(&path))
        }
        None => "Write the path from the source path's last folder, without scheme and bucket: raw/*.mp4.".to_owned(),
    }
}

/// A character of a pattern.
struct Token {
    /// Where it begins, in bytes.
    at: usize,
    /// `None`: it stands for itself, behind a `\` or in a class.
    sign: Option<char>,
    /// How many braces are open behind it, or before it where it closes some.
    depth: usize,
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut depth: usize = 0;
    let mut chars = pattern.char_indices();
    while let Some((at, c)) = chars.next() {
        let sign = match c {
            '\\' => {
                chars.next();
                None
            }
            '[' => {
                skip_class(&mut chars);
                None
            }
            c => Some(c),
        };
        depth += usize::from(sign == Some('{'));
        tokens.push(Token { at, sign, depth });
        depth = depth.saturating_sub(usize::from(sign == Some('}')));
    }
    tokens
}

/// Goes behind the `]` of a class. The first character in it never ends it.
fn skip_class(chars: &mut std::str::CharIndices<'_>) {
    let mut class = chars.clone();
    if matches!(class.clone().next(), Some((_, '!' | '^'))) {
        class.next();
    }
    class.next();
    if class.any(|(_, member)| member == ']') {
        *chars = class;
    }
}

/// Refuses a list in one string: `*.mp4, *.mov`.
fn check_list(text: &str, tokens: &[Token]) -> Result<(), Refusal> {
    let is_separator = |token: &Token| match token.sign {
        Some(',' | ';' | '|') => token.depth == 0,
        Some(c) => c.is_whitespace() && text.starts_with("*."),
        None => false,
    };
    let behind = |token: &Token| text.get(token.at + 1..).unwrap_or_default().trim_start();
    let Some(separator) = tokens.iter().find(|token| is_separator(token) && behind(token).starts_with("*.")) else {
        return Ok(());
    };
    let first = text.get(..separator.at).unwrap_or_default();
    Err(Refusal::new(
        "is a list in one string",
        format!(
            "Make each pattern an item of its own: [{}, {}]; or put \\ before the separator.",
            quoted(first),
            quoted(behind(separator))
        ),
    ))
}

/// Refuses alternatives in parentheses, as regular expressions and shells write them: `*.(mp4|mov)`, `*.@(mp4|mov)`.
fn check_alternatives(text: &str, tokens: &[Token]) -> Result<(), Refusal> {
    let of = |sign| move |token: &&Token| token.sign == Some(sign);
    let Some(bar) = tokens.iter().find(of('|')) else { return Ok(()) };
    let open = tokens.iter().filter(of('(')).rfind(|token| token.at < bar.at);
    let close = tokens.iter().filter(of(')')).find(|token| token.at > bar.at);
    let Some((open, close)) = open.zip(close) else { return Ok(()) };
    let before = text.get(..open.at).unwrap_or_default();
    let before = before.strip_suffix(['@', '?', '*', '+']).filter(|_| before != "*").unwrap_or(before);
    let inside = text.get(open.at + 1..close.at).unwrap_or_default().replace('|', ",");
    let behind = text.get(close.at + 1..).unwrap_or_default();
    Err(Refusal::new(
        "has alternatives in parentheses",
        format!(
            "Write braces: {}. Put \\ before a | that names really have.",
            quoted(&format!("{before}{{{inside}}}{behind}"))
        ),
    ))
}

/// Whether the braces at the end of a pattern have a `/` at the end of an alternative: `{drafts/,tmp/}`.
fn ends_folder_in_braces(tokens: &[Token]) -> bool {
    if tokens.last().is_none_or(|last| last.sign != Some('}')) {
        return false;
    }
    let begin = tokens.iter().rposition(|token| token.depth == 0).map_or(0, |at| at + 1);
    let inside = tokens.get(begin..).unwrap_or_default();
    inside.windows(2).any(|pair| matches!(pair, [Token { sign: Some('/'), .. }, Token { sign: Some(',' | '}'), .. }]))
}

/// Refuses `**` that is a part of a name. One that begins a base name is `*`: answers the pattern with that.
fn check_double_stars(text: &str, tokens: &[Token], is_path: bool) -> Result<Option<String>, Refusal> {
    let is_star = |at: usize| tokens.get(at).is_some_and(|token| token.sign == Some('*'));
    let is_edge = |token: Option<&Token>| match token {
        None => true,
        Some(Token { sign: Some('/'), .. }) => true,
        Some(Token { sign: Some('{' | ',' | '}'), depth, .. }) => *depth > 0,
        Some(_) => false,
    };
    let mut at = 0;
    let mut shorter = None;
    while at < tokens.len() {
        let run = (at..).take_while(|&at| is_star(at)).count();
        let end = at + run;
        let before = at.checked_sub(1).and_then(|at| tokens.get(at));
        let is_whole = run == 2 && is_edge(before) && is_edge(tokens.get(end));
        if run >= 2 && !is_whole {
            let only = |c| tokens.get(end..).is_some_and(|rest| rest.iter().all(|token| token.sign != Some(c)));
            if is_path || at > 0 || !(end..tokens.len()).all(|at| !is_star(at) || !is_star(at + 1)) || !only('{') {
                return Err(double_star(text, tokens.get(at).map_or(0, |token| token.at)));
            }
            shorter = Some(text.trim_start_matches('*')).map(|rest| format!("*{rest}"));
        }
        at = end.max(at + 1);
    }
    Ok(shorter)
}

/// For a `**` at `at` that is a part of a name.
fn double_star(text: &str, at: usize) -> Refusal {
    let (before, behind) = text.split_at_checked(at).unwrap_or((text, ""));
    let begin = before.rfind('/').map_or(0, |slash| slash + 1);
    let end = behind.find('/').map_or(text.len(), |slash| at + slash);
    let single = |part: &str| {
        let mut part = part.to_owned();
        while part.contains("**") {
            part = part.replace("**", "*");
        }
        part
    };
    let folder = text.get(..begin).unwrap_or_default();
    let name = single(text.get(begin..end).unwrap_or_default());
    let rest = text.get(end..).unwrap_or_default();
    let one = format!("{folder}{name}{rest}");
    let advice = match (folder, text.ends_with("**")) {
        ("", true) if rest.is_empty() => {
            format!("Write {} for names in any folder, or {} for folders.", quoted(&one), quoted(&format!("{one}/**")))
        }
        ("", _) if rest.is_empty() => format!("Write {}: a pattern without / looks in every folder.", quoted(&one)),
        _ => format!(
            "Write {} for files at any depth, or {} for those of one folder.",
            quoted(&format!("{folder}**/{name}{rest}")),
            quoted(&one)
        ),
    };
    Refusal::new("has ** as a part of a name; ** stands only for whole folders", advice)
}

/// Whether a character class of `pattern` names a character outside ASCII, which globset would match byte by byte.
fn has_wide_class(pattern: &str) -> bool {
    let mut chars = pattern.char_indices();
    while let Some((_, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '[' => {
                let begin = chars.offset();
                skip_class(&mut chars);
                if pattern.get(begin..chars.offset()).is_some_and(|class| !class.is_ascii()) {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}
