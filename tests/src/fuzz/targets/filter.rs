//! The filters of a sync.

use super::*;

/// The most memory that compiling filters may take, in bytes, whatever was written.
pub(super) const FILTER_BYTES_MAX: usize = 18 << 20;
/// The most that asking them about a few keys may take. Not what they can come to: an automaton is made as keys need
/// it, up to 10 MB of it, and a pattern that ends with an extension has one of its own.
pub(super) const ASKED_BYTES_MAX: usize = 64 << 20;

/// Alternatives within alternatives.
pub(super) fn nested(depth: usize) -> String {
    format!("+{}a{}\nkaaa", "{b,".repeat(depth), "}".repeat(depth))
}

/// Both lists full of patterns of these pieces, as long as they may be, and `more` of one; `end` is at the end of each.
pub(super) fn full_lists(piece: &str, end: &str, more: usize) -> String {
    let each = WILDCARD_PATTERNS_BYTES_MAX / LIST_ITEMS_MAX;
    let one = |n: usize| {
        let pieces = (each - 2 - end.len()) / piece.len();
        let filled = "z".repeat(each - 2 - end.len() - pieces * piece.len());
        format!("{}{filled}{n:02}{end}", piece.repeat(pieces))
    };
    let list = |sign: char| (0..LIST_ITEMS_MAX).map(|n| format!("{sign}{}\n", one(n))).collect::<String>();
    // Fewer than a hundred bytes are left over.
    format!("{}{}k{}", list('+').replacen(end, &format!("{}{end}", "z".repeat(more)), 1), list('-'), "a/".repeat(500))
}

/// Those that take most when they are compiled.
pub(super) const HEAVY: [(&str, &str); 8] =
    [("**/a/", ""), ("*a", ""), ("*a", "/b"), ("?", "/b"), ("?", ""), ("{*,**}", "/b"), ("{,}", ""), ("*a", "*.mp4")];

pub(super) fn filter_seeds() -> Vec<Vec<u8>> {
    let many = (0..LIST_ITEMS_MAX).map(|index| format!("+*{index}*\n")).collect::<String>();
    let alternatives = format!("+{}\nkabababab", "{a,b}".repeat(ITEM_BYTES_MAX / 5));
    let stars = format!("-{}b\nk{}", "*a".repeat(200), "a".repeat(1_000));
    let folders = format!("-{}b\nk{}", "**/a/".repeat(100), "a/".repeat(500));
    [
        "+*.mp4\n+raw/**\n-*_thumbnail.*\n.MP4\nmvideo/*\nk2024/raw/a.mp4\nk2024/b_thumbnail.mp4",
        "+[!a-c]?/\\*{x,y,}.jpg\n-./a/**/b\nka/b/c/b\nkx",
        "+{é,è}*\n-[a-z]*\nké.mp4",
        &many,
        &nested(10),
        &nested(100),
        &alternatives,
        &stars,
        &folders,
    ]
    .map(bytes)
    .into_iter()
    .chain(HEAVY.map(|(piece, end)| bytes(&full_lists(piece, end, 0))))
    .collect()
}

pub(super) fn filter_odd() -> Vec<Vec<u8>> {
    [&nested(200), &nested(400), &full_lists("*a", "b", 100), "+[é]", "-", "+a[b", ".a/b", "mvideo"].map(bytes).to_vec()
}

/// The filters, and the keys to ask them about, that are written in a text.
fn read(text: &str) -> (FilterSpec, Vec<String>) {
    let (mut spec, mut keys) = (FilterSpec::default(), vec![String::new(), "2024/a.mp4".to_owned()]);
    for line in text.split('\n') {
        let mut rest = line.chars();
        let list = match rest.next() {
            Some('+') => &mut spec.include_patterns,
            Some('-') => &mut spec.exclude_patterns,
            Some('.') => &mut spec.extensions,
            Some('m') => &mut spec.mime_types,
            Some('k') => &mut keys,
            _ => continue,
        };
        list.push(rest.as_str().to_owned());
    }
    (spec, keys)
}

/// The most that compiling filters at the limits of both lists takes, in bytes, of the heaviest patterns that are
/// known.
///
/// # Errors
/// A list that is refused.
pub fn heaviest_filter_bytes(meter: &Meter) -> Result<usize, String> {
    let source = SourcePath::parse("b2://my-videos/").map_err(|error| error.to_string())?;
    let mut most = 0;
    for (piece, end) in HEAVY {
        let (spec, _) = read(&full_lists(piece, end, 0));
        (meter.start)();
        Filter::compile(&spec, &source).map_err(|error| error.to_string())?;
        most = most.max((meter.peak_bytes)());
    }
    Ok(most)
}

pub(super) fn filter(input: &[u8], meter: &Meter) -> Outcome {
    let (mut spec, keys) = read(&String::from_utf8_lossy(input));
    let source = SourcePath::parse("b2://my-videos/2024/").map_err(|error| error.to_string())?;
    let filter = match meter.measured(FILTER_BYTES_MAX, || Filter::compile(&spec, &source))? {
        Ok(filter) => filter,
        Err(error) => return refused(format!("{} {}", error.field().unwrap_or_default(), error.message())),
    };
    let mut verdicts = BTreeSet::new();
    for key in keys.iter().take(20) {
        let entry = Entry { key: key.clone(), etag: "e".into(), size: 1, last_modified: Timestamp::from_millis(0) };
        let verdict = meter.measured(ASKED_BYTES_MAX, || filter.explain(&entry))?;
        if filter.matches(&entry) != (verdict == Verdict::Accepted) || filter.explain(&entry) != verdict {
            return Err(format!("it matches and explains differently: {key:?} {verdict:?}"));
        }
        if let Verdict::Excluded { pattern } = verdict
            && !spec.exclude_patterns.iter().any(|written| written == pattern)
        {
            return Err(format!("no list has the pattern {pattern:?}"));
        }
        verdicts.insert(verdict.field().unwrap_or("accepted"));
    }
    let fingerprint = spec.fingerprint();
    spec.include_patterns.reverse();
    spec.exclude_patterns.extend(spec.exclude_patterns.clone());
    if spec.fingerprint() != fingerprint {
        return Err("order or repetition changes the fingerprint".to_owned());
    }
    taken(&format!("{verdicts:?}").replace('"', ""))
}

// --- what is stored ---
