//! Filters against keys, against an oracle, and what they refuse.

use super::*;
use crate::entry::Entry;
use proptest::prelude::*;

fn entry(key: &str) -> Entry {
    Entry { key: key.into(), etag: "e".into(), size: 100, last_modified: Timestamp::from_millis(1_000) }
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|&item| item.to_owned()).collect()
}

fn filter(source: &str, include: &[&str], exclude: &[&str]) -> Filter {
    let spec =
        FilterSpec { include_patterns: strings(include), exclude_patterns: strings(exclude), ..FilterSpec::default() };
    Filter::compile(&spec, &SourcePath::parse(source).unwrap()).unwrap()
}

#[test]
fn patterns_against_keys() {
    for (pattern, key, expected) in [
        ("*.mp4", "a.mp4", true),
        ("*.mp4", "x/y/a.mp4", true),
        ("*.mp4", "x/y/a.MP4", false),
        ("*.mp4", "a.mp4/", false),
        ("*", "folder/", true),
        ("*", "", true),
        ("**", "x/y/z", true),
        ("a?c", "x/abc", true),
        ("{a,b}*.jpg", "x/b1.jpg", true),
        ("[!a]*", "b", true),
        ("*[[]1[]].jpg", "x[1].jpg", true),
        ("\\*.jpg", "*.jpg", true),
        ("\\*.jpg", "a.jpg", false),
        ("日本*", "x/日本語🎬.mp4", true),
        ("{é,è}*", "été", true),
        ("x/*.mp4", "x/a.mp4", true),
        ("x/*.mp4", "x/y/a.mp4", false),
        ("x/*.mp4", "z/x/a.mp4", false),
        ("/x/*.mp4", "x/a.mp4", true),
        ("./x/*.mp4", "x/a.mp4", true),
        ("/*.mp4", "a.mp4", true),
        ("/*.mp4", "x/a.mp4", false),
        ("x/**", "x/y/a.mp4", true),
        ("x/**/a", "x/a", true),
        ("x/**/a", "x/y/z/a", true),
        ("**/a", "a", true),
        ("**/a", "x/y/a", true),
        ("x//*", "x//a", true),
        ("x/*", "x/", true),
        ("*\n*", "a\nb", true),
        ("**.mp4", "x/a.mp4", true),
        ("drafts/", "drafts/a", true),
        ("drafts/", "x/drafts/y/a", true),
        ("drafts/", "drafts", false),
        ("drafts/", "xdrafts/a", false),
        ("drafts/", "drafts2/a", false),
        ("draft*/", "x/drafts2/a", true),
        ("/drafts/", "drafts/x/a", true),
        ("/drafts/", "x/drafts/a", false),
        ("a/drafts/", "a/drafts/x", true),
        ("a/drafts/", "x/a/drafts/x", false),
        ("**/a/drafts/", "x/a/drafts/x", true),
        ("{drafts,tmp}/", "x/tmp/a", true),
        ("*/", "a/b", true),
        ("*/", "b", false),
        ("**/", "a/b", true),
        ("**/", "b", false),
        ("a/**/", "a/b", false),
        ("a/**/", "a/x/b", true),
        ("\\!a", "!a", true),
        ("[!]a]", "b", true),
    ] {
        assert_eq!(filter("b2://bucket", &[pattern], &[]).matches(&entry(key)), expected, "{pattern} {key:?}");
        assert_eq!(!filter("b2://bucket", &[], &[pattern]).matches(&entry(key)), expected, "not {pattern} {key:?}");
    }
}

#[test]
fn patterns_with_wildcards_are_bounded_together() {
    let spec = |each: usize, count: usize, begin: &str| FilterSpec {
        exclude_patterns: vec![format!("{begin}{}", "a".repeat(each - begin.len())); count],
        ..FilterSpec::default()
    };
    let source = SourcePath::parse("b2://bucket").unwrap();
    let most = WILDCARD_PATTERNS_BYTES_MAX / ITEM_BYTES_MAX;
    for begin in ["*", "?", "[ab]", "{a,b}", "\\*"] {
        assert!(Filter::compile(&spec(ITEM_BYTES_MAX, most, begin), &source).is_ok());
        let error = Filter::compile(&spec(ITEM_BYTES_MAX, most + 1, begin), &source).unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidInput, Some("file_filters.exclude_patterns")));
        assert!(error.message().contains("17408 bytes together; at most 16384"), "{error}");
    }
    // Names without wildcards are looked up in a table.
    assert!(Filter::compile(&spec(ITEM_BYTES_MAX, LIST_ITEMS_MAX, ""), &source).is_ok());
}

#[test]
fn a_path_counts_from_the_source_root() {
    let below = filter("b2://bucket/videos/20", &["2024/*.mp4"], &[]);
    assert!(below.matches(&entry("videos/2024/a.mp4")));
    assert!(!below.matches(&entry("2024/a.mp4/b")));
    assert!(filter("b2://bucket/videos/2024/", &["/*.mp4"], &[]).matches(&entry("videos/2024/a.mp4")));
}

#[test]
fn bounds_are_as_documented() {
    let spec = FilterSpec {
        min_size_bytes: Some(100),
        max_size_bytes: Some(100),
        modified_after: Some(Timestamp::from_millis(999)),
        modified_before: Some(Timestamp::from_millis(1_001)),
        ..FilterSpec::default()
    };
    let source = SourcePath::parse("bucket").unwrap();
    let filter = Filter::compile(&spec, &source).unwrap();
    let with = |size, millis| Entry { size, last_modified: Timestamp::from_millis(millis), ..entry("a") };
    assert_eq!(filter.explain(&with(100, 1_000)), Verdict::Accepted);
    assert_eq!(filter.explain(&with(99, 1_000)), Verdict::TooSmall);
    assert_eq!(filter.explain(&with(101, 1_000)), Verdict::TooLarge);
    assert_eq!(filter.explain(&with(100, 999)), Verdict::TooOld);
    assert_eq!(filter.explain(&with(100, 1_001)), Verdict::TooNew);
}

#[test]
fn extensions_and_mime_types_ignore_case() {
    let source = SourcePath::parse("bucket").unwrap();
    let spec = FilterSpec { extensions: strings(&[".MP4", "tar.gz", "É"]), ..FilterSpec::default() };
    let filter = Filter::compile(&spec, &source).unwrap();
    for (key, expected) in [
        ("a.mp4", true),
        ("x/A.Mp4", true),
        ("amp4", false),
        ("a.tar.GZ", true),
        ("a.gz", false),
        ("a.é", true),
        ("x.mp4/a", false),
    ] {
        assert_eq!(filter.matches(&entry(key)), expected, "{key}");
    }
    let spec = FilterSpec { mime_types: strings(&["Image/*", "video/mp4"]), ..FilterSpec::default() };
    let filter = Filter::compile(&spec, &source).unwrap();
    for (key, verdict) in [
        ("a.PNG", Verdict::Accepted),
        ("a.mp4", Verdict::Accepted),
        ("a.mov", Verdict::OtherMimeType),
        ("a", Verdict::OtherMimeType),
    ] {
        assert_eq!(filter.explain(&entry(key)), verdict, "{key}");
    }
}

#[test]
fn a_mime_type_has_other_names() {
    let source = SourcePath::parse("bucket").unwrap();
    let spec = |types: &[&str]| FilterSpec { mime_types: strings(types), ..FilterSpec::default() };
    for (written, key) in [
        ("image/jpg", "a.jpeg"),
        ("video/x-matroska", "a.mkv"),
        ("audio/x-wav", "a.WAV"),
        ("application/mxf", "a.mxf"),
        ("video/*", "a.mxf"),
        ("video/*", "a.ts"),
        ("video/*", "a.vob"),
        ("*/*", "README"),
        ("application/octet-stream", "README"),
    ] {
        let filter = Filter::compile(&spec(&[written]), &source).unwrap();
        assert_eq!(filter.explain(&entry(key)), Verdict::Accepted, "{written} {key}");
        assert_eq!(filter.explain(&entry("a.pdf")) == Verdict::Accepted, written == "*/*", "{written}");
    }
}

#[test]
fn folder_markers_are_left_out_unless_they_are_asked_for() {
    let source = SourcePath::parse("bucket").unwrap();
    for include_folder_markers in [false, true] {
        let spec = FilterSpec { include_folder_markers, ..FilterSpec::default() };
        let filter = Filter::compile(&spec, &source).unwrap();
        let empty = |key: &str| filter.matches(&Entry { size: 0, ..entry(key) });
        for key in ["f/", "f/.bzEmpty", ".bzEmpty", "f_$folder$", "a/b/"] {
            assert_eq!(empty(key), include_folder_markers, "{key}");
            assert!(filter.matches(&entry(key)), "{key} with content is a file");
        }
        for key in ["f", "x.bzEmpty", ".bzEmpty/a", "f$folder$"] {
            assert!(empty(key), "{key}");
        }
        let verdict = Filter::compile(&FilterSpec::default(), &source).unwrap();
        let marker = Entry { size: 0, ..entry("f/") };
        assert_eq!(verdict.explain(&marker).field(), Some("file_filters.include_folder_markers"));
        let other = FilterSpec { include_folder_markers: !include_folder_markers, ..FilterSpec::default() };
        assert_ne!(spec.fingerprint(), other.fingerprint());
    }
}

#[test]
fn excludes_win_and_a_verdict_names_its_filter() {
    let filter = filter("bucket", &["*.jpg"], &["a/**", "*_thumbnail.*"]);
    assert_eq!(filter.explain(&entry("x_thumbnail.jpg")), Verdict::Excluded { pattern: "*_thumbnail.*" });
    assert_eq!(filter.explain(&entry("a/x.jpg")), Verdict::Excluded { pattern: "a/**" });
    assert_eq!(filter.explain(&entry("a.mp4")).field(), Some("file_filters.include_patterns"));
    assert_eq!(filter.explain(&entry("a/x.jpg")).to_string(), "matches the exclude pattern \"a/**\"");
}

#[test]
fn a_bad_filter_is_quoted_with_its_field() {
    let list = |field: &str, items: &[&str]| {
        let mut spec = FilterSpec::default();
        match field {
            "include" => spec.include_patterns = strings(items),
            "exclude" => spec.exclude_patterns = strings(items),
            "extensions" => spec.extensions = strings(items),
            _ => spec.mime_types = strings(items),
        }
        spec
    };
    let long = "x".repeat(ITEM_BYTES_MAX + 1);
    let many = vec!["a"; LIST_ITEMS_MAX + 1];
    for (spec, field, quote) in [
        (list("include", &["a", "b", "[x"]), "include_patterns[2]", "\"[x\""),
        (list("exclude", &["a{b"]), "exclude_patterns[0]", "\"a{b\""),
        (list("include", &["}"]), "include_patterns[0]", "\"}\""),
        (list("include", &["a\\"]), "include_patterns[0]", "is not a glob"),
        (list("include", &["/"]), "include_patterns[0]", "\"/\""),
        (list("include", &[""]), "include_patterns[0]", "is empty"),
        (list("include", &["[àé]*"]), "include_patterns[0]", "outside ASCII"),
        (list("include", &[&long]), "include_patterns[0]", "1025 bytes"),
        (list("exclude", &many), "exclude_patterns", "101 items"),
        (list("extensions", &["."]), "extensions[0]", "\".\""),
        (list("extensions", &["*.mp4"]), "extensions[0]", "\"*.mp4\""),
        (list("mime", &["image/png", "png"]), "mime_types[1]", "\"png\" is not a MIME type"),
        (list("mime", &["vdieo/*"]), "mime_types[0]", "\"vdieo/*\" is a MIME type that no file name stands for"),
        (list("mime", &["video/mp5"]), "mime_types[0]", "\"video/mp5\" is a MIME type that no file name stands for"),
        (list("mime", &["*/mp4"]), "mime_types[0]", "no file name stands for"),
        (
            FilterSpec { min_size_bytes: Some(2), max_size_bytes: Some(1), ..FilterSpec::default() },
            "min_size_bytes",
            "2 bytes",
        ),
        (
            FilterSpec {
                modified_after: Some(Timestamp::from_millis(0)),
                modified_before: Some(Timestamp::from_millis(0)),
                ..FilterSpec::default()
            },
            "modified_after",
            "1970-01-01T00:00:00Z",
        ),
    ] {
        let error = Filter::compile(&spec, &SourcePath::parse("bucket").unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.field(), Some(&*format!("file_filters.{field}")), "{error}");
        assert!(error.message().contains(quote), "{error}");
    }
}

/// What a pattern means elsewhere and not here is refused, with what to write.
#[test]
fn a_pattern_that_would_be_read_literally_says_what_to_write() {
    let source = SourcePath::parse("b2://my-videos/v/2024/").unwrap();
    for (pattern, message, advice) in [
        ("!*.tmp", "begins with !", "put \"*.tmp\" into exclude_patterns"),
        ("b2://my-videos/v/2024/raw/**", "is a URL", "write \"raw/**\""),
        ("s3://my-videos/v/2024/*.mp4", "is a URL", "write \"/*.mp4\""),
        ("b2://other/raw/**", "is a URL", "without scheme and bucket"),
        ("https://f004.backblazeb2.com/file/my-videos/x", "is a URL", "without scheme and bucket"),
        ("../*.mp4", "leads out", "remove ../"),
        (" *.mp4", "white space", "Remove it"),
        ("*.mp4\n", "white space", "Remove it"),
        ("*.mp4, *.mov", "a list in one string", "[\"*.mp4\", \"*.mov\"]"),
        ("*.mp4;*.mov", "a list in one string", "[\"*.mp4\", \"*.mov\"]"),
        ("*.mp4 *.mov", "a list in one string", "[\"*.mp4\", \"*.mov\"]"),
        ("raw\\drafts\\*.mp4", "has a \\ before a letter", "\"raw/drafts/*.mp4\""),
        ("^raw/.*", "regular expression", "raw/**"),
        (".*\\.mp4$", "regular expression", "*.mp4"),
        ("v/**.mp4", "part of a name", "\"v/**/*.mp4\" for files at any depth, or \"v/*.mp4\""),
        ("a/v**/b", "part of a name", "\"a/**/v*/b\" for files at any depth, or \"a/v*/b\""),
        ("v**", "part of a name", "\"v*\" for names in any folder, or \"v*/**\" for folders"),
        ("IMG**.jpg", "part of a name", "\"IMG*.jpg\""),
        ("{**a,b}/c", "part of a name", "any depth"),
        ("v/***", "part of a name", "\"v/*\""),
        ("{drafts/,tmp/}", "inside the braces", "{drafts,tmp}/"),
        ("//", "names no file", "leave the pattern out"),
        ("!", "names no file", "leave the pattern out"),
        (".", "has a part .", "without it"),
        ("..", "has a part .", "without it"),
        ("raw/../x/*.mp4", "has a part .", "without it"),
        ("raw/./*.mp4", "has a part .", "without it"),
        ("*.(mp4|mov)", "alternatives in parentheses", "\"*.{mp4,mov}\""),
        ("raw/@(a|b|c)/*.mp4", "alternatives in parentheses", "\"raw/{a,b,c}/*.mp4\""),
        ("IMG?(_1|_2).jpg", "alternatives in parentheses", "\"IMG{_1,_2}.jpg\""),
        ("[[:digit:]]*.jpg", "POSIX", "[0-9]"),
        ("./", "names no file", "leave the pattern out"),
    ] {
        let spec = FilterSpec { exclude_patterns: strings(&[pattern]), ..FilterSpec::default() };
        let error = Filter::compile(&spec, &source).expect_err(pattern);
        assert_eq!(error.field(), Some("file_filters.exclude_patterns[0]"), "{pattern}");
        assert!(error.message().contains(message), "{pattern}: {error}");
        assert!(error.advice().contains(advice), "{pattern}: {error}");
    }
    for pattern in ["a!b", "[!a]*", "a,b", "a|b", "IMG 1 *.jpg", "*_$folder$", "a^", "{**/a,b}", "\\ a", "a\\ ", "x://"]
        .into_iter()
        .chain(["*(1).jpg", "a+(b).txt", "(a\\|b)", "a|(b)", "\\./a", "a/\\.\\./b", "...", ".x", "[[a].txt"])
    {
        let spec = FilterSpec { exclude_patterns: strings(&[pattern]), ..FilterSpec::default() };
        let compiled = Filter::compile(&spec, &source);
        assert_eq!(compiled.is_ok(), pattern != "x://", "{pattern}: {compiled:?}");
    }
}

#[test]
fn several_extensions_in_one_string_are_refused() {
    let source = SourcePath::parse("bucket").unwrap();
    let compile = |extension: &str| {
        Filter::compile(&FilterSpec { extensions: strings(&[extension]), ..FilterSpec::default() }, &source)
    };
    for list in ["mp4,mov", ".mp4, .mov", "mp4;mov", "mp4|mov", "mp4 mov mkv"] {
        let error = compile(list).expect_err(list);
        assert!(error.message().contains("a list in one string"), "{list}: {error}");
        assert_eq!(error.field(), Some("file_filters.extensions[0]"), "{list}");
    }
    // What RCS calls its files.
    for one in ["c,v", "txt,v", "tar.gz", "mp4"] {
        assert!(compile(one).is_ok(), "{one}");
    }
}

#[test]
fn hostile_patterns_neither_panic_nor_hang() {
    let source = SourcePath::parse("bucket").unwrap();
    let key = entry(&"a".repeat(1_024));
    for pattern in [
        "{".repeat(500) + "a" + &"}".repeat(500),
        "*a".repeat(512),
        "{a,b}".repeat(200) + "*",
        "{*,?}".repeat(200) + "b",
        "**/".repeat(300) + "b",
        "[".repeat(1_000),
    ] {
        let list = vec![pattern; 20];
        let spec = FilterSpec { include_patterns: list, ..FilterSpec::default() };
        if let Ok(filter) = Filter::compile(&spec, &source) {
            filter.matches(&key);
        }
    }
}

#[test]
fn a_fingerprint_is_stable() {
    let spec = FilterSpec { include_patterns: strings(&["b", "a", "a"]), ..FilterSpec::default() };
    let same = FilterSpec { include_patterns: strings(&["a", "b"]), ..FilterSpec::default() };
    let other = FilterSpec { exclude_patterns: strings(&["a", "b"]), ..FilterSpec::default() };
    assert_eq!(spec.fingerprint(), same.fingerprint());
    assert_ne!(spec.fingerprint(), other.fingerprint());
    // Where this value changes, every sync compares its whole listing again: change the version in it too.
    assert_eq!(FilterSpec::default().fingerprint(), "ecad092550537ea9cef5a97c36f421db421d31e7c689f2a0fa081673861cb93b");
}

/// Which patterns of each list have matched is what each says by itself, whatever it takes to find out.
#[test]
fn what_was_seen_is_what_each_pattern_says() {
    let long = format!("{{{},?b}}*", "x".repeat(1_000));
    let long: Vec<String> = (0..3).map(|n| format!("{long}{n}")).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).chain(["a*", "z*", "?b*"]).collect();
    for list in [&["*.mp4", "a*", "z*", "a/", "**/b", "*.mp4"][..], &["a?", "[b]*", "z?z", "x/**/?"], &long] {
        for keys in [&["ab", "b.mp4", ".."][..], &["x/a/c", "a/b"], &["..", "a/.."], &[]] {
            let filter = filter("bucket", list, list);
            let seen = Seen::default();
            for key in keys {
                filter.takes((&entry(key)).into(), &seen);
            }
            let mut expected: Vec<&str> = list
                .iter()
                .copied()
                .filter(|pattern| !keys.iter().any(|key| self::filter("bucket", &[pattern], &[]).matches(&entry(key))))
                .collect();
            expected.sort_unstable();
            expected.dedup();
            let mut found = filter.unmatched(&seen.record());
            found.iter_mut().for_each(|(_, items)| items.sort_unstable());
            let found: Vec<_> = found.into_iter().skip(2).map(|(_, items)| items).collect();
            assert_eq!(found, [expected.clone(), expected], "{keys:?}");
            let joined = Seen::default();
            joined.join(&SeenRecord::default());
            joined.join(&seen.record());
            assert_eq!(joined.record(), seen.record());
        }
    }
}

/// The same filter without shapes.
fn by_globs(filter: &Filter) -> Filter {
    let mut filter = filter.clone();
    for set in [&mut filter.include, &mut filter.exclude] {
        (set.names.shapes, set.paths.shapes) = (None, None);
    }
    filter
}

#[test]
fn the_usual_patterns_have_a_shape() {
    for (pattern, expected) in [
        ("*", true),
        ("*.mp4", true),
        ("*_thumbnail.*", true),
        ("IMG_*_final*.jp*g", true),
        ("README", true),
        ("*.{mp4,mov}", true),
        ("日本*", true),
        ("drafts/**", true),
        ("/*.mp4", true),
        ("a/b/*.mp4", true),
        ("**/*.mp4", true),
        ("raw/**/*.{mp4,mov}", true),
        ("a?c", false),
        ("[ab]*", false),
        ("\\*", false),
        ("**.mp4", true),
        ("drafts/", true),
        ("/drafts/", true),
        ("a/drafts/", true),
        ("{drafts,tmp}/", true),
        ("draft*/", false),
        ("{a,}", false),
        ("{a*,b}", false),
        ("{a,b}{c,d}", false),
        ("a/*/b", false),
        ("a/**/b/**", false),
        ("/**", false),
    ] {
        let filter = filter("bucket", &[pattern], &[]);
        assert_eq!(
            filter.include.names.shapes.is_some() && filter.include.paths.shapes.is_some(),
            expected,
            "{pattern}"
        );
    }
    let many: Vec<_> = (0..25).map(|n| format!("*.{n}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert!(filter("bucket", &many[1..], &[]).include.names.shapes.is_some());
    assert!(filter("bucket", &many, &[]).include.names.shapes.is_none());
}

#[test]
fn two_dots_are_left_to_the_globs() {
    for pattern in ["\\.\\.", "*.", ".*", "*", "**/\\.\\.", "a/\\.\\.", "a/**"] {
        for key in ["..", "a/..", "a/b/..", "...", "a/..."] {
            let filter = filter("bucket", &[pattern], &[]);
            assert_eq!(filter.matches(&entry(key)), by_globs(&filter).matches(&entry(key)), "{pattern} {key}");
        }
    }
}

/// A glob matcher written from the module documentation, slow and plain: the oracle.
fn oracle(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', '*', '/', rest @ ..] => {
            oracle(rest, text) || (0..text.len()).any(|at| text[at] == '/' && oracle(rest, &text[at + 1..]))
        }
        ['/', '*', '*'] => text.first() == Some(&'/'),
        ['/', '*', '*', '/', rest @ ..] => {
            text.first() == Some(&'/') && (0..text.len()).any(|at| text[at] == '/' && oracle(rest, &text[at + 1..]))
        }
        ['*', '*'] => true,
        ['*', rest @ ..] => (0..=text.len()).any(|at| !text[..at].contains(&'/') && oracle(rest, &text[at..])),
        ['?', rest @ ..] => matches!(text, [c, after @ ..] if *c != '/' && oracle(rest, after)),
        [c, rest @ ..] => matches!(text, [d, after @ ..] if c == d && oracle(rest, after)),
    }
}

fn oracle_matches(pattern: &str, path: &str) -> bool {
    let chars = |text: &str| text.chars().collect::<Vec<_>>();
    let text = pattern.trim_start_matches('/');
    if let Some(folder) = text.strip_suffix('/') {
        let within = if pattern.starts_with('/') || folder.contains('/') { "" } else { "**/" };
        let any = if folder == "**" || folder.ends_with("/**") { "/*" } else { "" };
        oracle(&chars(&format!("{within}{folder}{any}/**")), &chars(path))
    } else if pattern.contains('/') {
        oracle(&chars(text), &chars(path))
    } else {
        oracle(&chars(pattern), &chars(path.rsplit('/').next().unwrap()))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn a_filter_agrees_with_the_oracle(
        include in proptest::collection::vec(
            "/?((\\*\\*/)?[ab*?]{1,3}(/[ab*.]{1,2}){0,2}(/\\*\\*|/)?|\\*\\.[ab]{1,2})",
            0..3,
        ),
        exclude in proptest::collection::vec("[ab?]{1,2}\\*?(/[ab*]{1,2})?", 0..2),
        path in "[ab]{0,2}(\\.[ab])?(/[ab]{0,2}(\\.[ab]{1,2})?){0,3}",
    ) {
        let spec = FilterSpec {
            include_patterns: include.clone(), exclude_patterns: exclude.clone(), ..FilterSpec::default()
        };
        // `**` as a part of a name is refused.
        let Ok(filter) = Filter::compile(&spec, &SourcePath::parse("bucket/root/pre").unwrap()) else { return Ok(()) };
        let expected = (include.is_empty() || include.iter().any(|pattern| oracle_matches(pattern, &path)))
            && !exclude.iter().any(|pattern| oracle_matches(pattern, &path));
        prop_assert_eq!(filter.matches(&entry(&format!("root/{path}"))), expected);
    }

    /// Patterns of every shape there is, and of some that are close to one.
    #[test]
    fn shapes_are_the_globs_they_stand_for(
        patterns in proptest::collection::vec(
            "(/|\\./)?(\\*\\*/|[ab.]{1,2}/|//|[a*]/){0,2}[ab.*é,]{0,4}\
             ([{][ab.*é,]{0,4}[}])?[ab.*?]{0,3}(/\\*\\*|/)?",
            0..4,
        ),
        names in proptest::collection::vec("[ab.*{},é\\n]{0,10}", 0..5),
        exclude in any::<bool>(),
    ) {
        let list = patterns.iter().map(String::as_str).collect::<Vec<_>>();
        let spec = if exclude {
            FilterSpec { exclude_patterns: strings(&list), ..FilterSpec::default() }
        } else {
            FilterSpec { include_patterns: strings(&list), ..FilterSpec::default() }
        };
        if let Ok(filter) = Filter::compile(&spec, &SourcePath::parse("bucket/r/").unwrap()) {
            let key = entry(&format!("r/{}", names.join("/")));
            let by_globs = by_globs(&filter);
            prop_assert_eq!(filter.explain(&key), by_globs.explain(&key));
        }
    }

    /// Keys made to match, so that both answers are common.
    #[test]
    fn shapes_are_the_globs_they_stand_for_when_they_match(
        pattern in "((\\*\\*/)|[ab]/(\\*\\*/)?)?[ab.*]{0,5}([{][ab],[ab.]{1,2}[}])?[ab.*]{1,4}|\
                    [ab]/\\*\\*|/?[ab.]{1,2}/",
        fills in proptest::collection::vec("[ab./]{0,2}", 8),
        alternative in any::<bool>(),
    ) {
        let spec = FilterSpec { include_patterns: vec![pattern.clone()], ..FilterSpec::default() };
        let Ok(filter) = Filter::compile(&spec, &SourcePath::parse("bucket").unwrap()) else { return Ok(()) };
        let mut key = String::new();
        let mut fills = fills.iter().cycle();
        let mut inside = None;
        for c in pattern.chars() {
            match c {
                '*' => key += fills.next().unwrap(),
                '{' => inside = Some(false),
                ',' if inside.is_some() => inside = Some(true),
                '}' => inside = None,
                c if inside.is_none_or(|second| second == alternative) => key.push(c),
                _ => {}
            }
        }
        prop_assert_eq!(filter.matches(&entry(&key)), by_globs(&filter).matches(&entry(&key)), "{:?}", key);
    }

    #[test]
    fn an_extension_is_what_the_lower_case_name_ends_with(
        extensions in proptest::collection::vec("[.]?[akKéÉKßİσΣ.]{1,3}", 1..3),
        name in "[akKKéÉßİσΣ./]{0,6}",
    ) {
        let spec = FilterSpec { extensions, ..FilterSpec::default() };
        if let Ok(filter) = Filter::compile(&spec, &SourcePath::parse("bucket").unwrap()) {
            let lower = name.rsplit('/').next().unwrap().to_lowercase();
            let expected = filter.extensions.iter().any(|extension| lower.ends_with(extension));
            prop_assert_eq!(filter.matches(&entry(&name)), expected);
        }
    }

    #[test]
    fn no_pattern_panics(pattern in "[a/*?{},\\[\\]!^\\\\é-]{0,24}", key in any::<String>()) {
        let spec = FilterSpec { include_patterns: vec![pattern], ..FilterSpec::default() };
        if let Ok(filter) = Filter::compile(&spec, &SourcePath::parse("bucket").unwrap()) {
            filter.matches(&entry(&key));
        }
    }
}
